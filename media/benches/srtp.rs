//! Protecting and unprotecting a packet of G.711 (160 bytes of payload), ours and `webrtc-srtp`'s.

#![expect(clippy::indexing_slicing, reason = "a bench that indexes wrongly should stop")]

mod measure;

use std::hint::black_box;

use measure::Bench;
use media::packet::rtp::{HEADER_BYTES, Header, write_header};
use media::srtp::{Context, MASTER_BYTES, MasterKey, Suite, TAIL_ROOM};
use webrtc_srtp::context::Context as Theirs;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

const PACKET_BYTES: usize = HEADER_BYTES + 160;
const BATCH: usize = 1_000;

type Buffer = [u8; PACKET_BYTES + TAIL_ROOM];

/// A stream of packets, ours to send and either's to receive.
struct Stream {
    sender: Context,
    sequence: u16,
    packets: Vec<(Buffer, usize)>,
}

impl Stream {
    fn new() -> Self {
        let sender = Context::new(Suite::AesCm128HmacSha1_80, &key());
        Self { sender, sequence: 0, packets: Vec::with_capacity(BATCH) }
    }

    fn plain(&mut self) -> Buffer {
        let mut buffer = [0xd5; PACKET_BYTES + TAIL_ROOM];
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header { sequence: self.sequence, ssrc: 7, ..Header::default() };
        write_header(&mut buffer, header).expect("the buffer is long enough");
        buffer
    }

    /// Fills the batch with packets in the clear.
    fn fill(&mut self) {
        self.packets.clear();
        for _ in 0..BATCH {
            let plain = self.plain();
            self.packets.push((plain, PACKET_BYTES));
        }
    }

    /// Fills the batch with protected packets.
    fn fill_protected(&mut self) {
        self.fill();
        for (buffer, len) in &mut self.packets {
            *len = self.sender.protect(buffer, *len).expect("the sequence goes on");
        }
    }
}

fn key() -> MasterKey {
    MasterKey::new([3; MASTER_BYTES])
}

fn theirs() -> Theirs {
    let (key, salt) = ([3; 16], [3; 14]);
    let profile = ProtectionProfile::Aes128CmHmacSha1_80;
    let (rtp, rtcp) = (srtp_replay_protection(128), srtcp_replay_protection(128));
    Theirs::new(&key, &salt, profile, Some(rtp), Some(rtcp)).expect("a good key")
}

fn main() {
    let bench = Bench::from_arguments();
    bench.case(("protect", BATCH), Stream::new(), Stream::fill, |stream, at| {
        let (buffer, len) = &mut stream.packets[at];
        black_box(stream.sender.protect(buffer, *len)).expect("the sequence goes on");
    });
    let receiver = Context::new(Suite::AesCm128HmacSha1_80, &key());
    bench.case(
        ("unprotect", BATCH),
        (Stream::new(), receiver),
        |(stream, _)| stream.fill_protected(),
        |(stream, receiver), at| {
            let (buffer, len) = &mut stream.packets[at];
            black_box(receiver.unprotect(buffer, *len)).expect("authentic and new");
        },
    );
    let receiver = Context::new(Suite::AesCm128HmacSha1_80, &key());
    bench.case(
        ("unprotect-forged", BATCH),
        (Stream::new(), receiver),
        |(stream, _)| stream.fill(),
        |(stream, receiver), at| {
            let (buffer, len) = &mut stream.packets[at];
            black_box(receiver.unprotect(buffer, *len)).expect_err("nobody signed it");
        },
    );
    bench.case(
        ("webrtc-srtp-protect", BATCH),
        (Stream::new(), theirs()),
        |(stream, _)| stream.fill(),
        |(stream, theirs), at| {
            let (buffer, len) = &stream.packets[at];
            black_box(theirs.encrypt_rtp(&buffer[..*len])).expect("the sequence goes on");
        },
    );
    bench.case(
        ("webrtc-srtp-unprotect", BATCH),
        (Stream::new(), theirs()),
        |(stream, _)| stream.fill_protected(),
        |(stream, theirs), at| {
            let (buffer, len) = &stream.packets[at];
            black_box(theirs.decrypt_rtp(&buffer[..*len])).expect("authentic and new");
        },
    );
}
