//! What one packet costs on its way, step by step: header, codec, resampling, noise, concealment.

#![expect(clippy::indexing_slicing, reason = "a bench that indexes wrongly should stop")]

mod measure;

use std::hint::black_box;

use measure::Bench;
use media::codec::Codec;
use media::codec::conceal::Concealer;
use media::codec::resample::{Downsampler, Upsampler, WIDE_SAMPLES};
use media::frame::{FRAME_SAMPLES, Frame};
use media::noise::{Cleaner, Rnn};
use media::packet::rtcp::{self, Compound, ReportBlock, SenderInfo};
use media::packet::rtp::{self, Header};
use media::packet::{Kind, classify};
use media::srtp::{Context, MASTER_BYTES, MasterKey, Suite, TAIL_ROOM};

const PACKET_BYTES: usize = rtp::HEADER_BYTES + FRAME_SAMPLES;

fn main() {
    let bench = Bench::from_arguments();
    packets(&bench);
    audio(&bench);
}

fn nothing<S>(_: &mut S) {}

fn packets(bench: &Bench) {
    let mut packet = [0x55_u8; PACKET_BYTES + TAIL_ROOM];
    rtp::write_header(&mut packet, Header::default()).expect("the buffer is long enough");
    bench.case(("relay-header", 1_000), packet, nothing, |packet, at| {
        relay(&mut packet[..PACKET_BYTES], at);
    });
    let secure =
        |fill| Context::new(Suite::AesCm128HmacSha1_80, &MasterKey::new([fill; MASTER_BYTES]));
    let legs = (packet, secure(1), secure(1), secure(2));
    bench.case(("relay-srtp-to-srtp", 1_000), (legs, 0_u16), nothing, |(legs, sequence), at| {
        let (packet, caller, inbound, outbound) = legs;
        *sequence = sequence.wrapping_add(1);
        let header = Header { sequence: *sequence, ..Header::default() };
        rtp::write_header(packet, header).expect("the buffer is long enough");
        // The caller's own work is measured with it: take the case `protect` of `srtp` off.
        let len = caller.protect(packet, PACKET_BYTES).expect("the sequence goes on");
        let len = inbound.unprotect(packet, len).expect("authentic and new");
        relay(&mut packet[..len], at);
        let header = Header { sequence: *sequence, ssrc: 9, ..Header::default() };
        rtp::rewrite_header(packet, header).expect("the buffer is long enough");
        black_box(outbound.protect(packet, len)).expect("the sequence goes on");
    });
    bench.case(("rtcp-write-and-read", 1_000), [0; 256], nothing, |buffer: &mut [u8; 256], _| {
        let reports = [ReportBlock::default()];
        let sender = Some(SenderInfo::default());
        let report = Compound { ssrc: 7, sender, reports: &reports, cname: "name", bye: false };
        let len = report.write(buffer).expect("the buffer is long enough");
        black_box(rtcp::parse(&buffer[..len]).expect("whole").count());
    });
}

fn relay(packet: &mut [u8], at: usize) {
    assert_eq!(classify(packet), Kind::Rtp);
    let view = rtp::view(black_box(packet)).expect("a good packet");
    let sequence = u16::try_from(at).expect("batches are small");
    let header = Header { sequence, ssrc: 8, ..view.header };
    rtp::rewrite_header(packet, header).expect("a good packet");
}

fn noisy_frame() -> Frame {
    let mut state = 1_u32;
    Frame {
        samples: std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [high, low, ..] = state.to_be_bytes();
            i16::from_be_bytes([high, low]) / 16
        }),
    }
}

fn audio(bench: &Bench) {
    let frame = noisy_frame();
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let codes = [0; FRAME_SAMPLES];
        let name = format!("{}-encode", codec.name());
        bench.case((&name, 1_000), (frame, codes), nothing, |(frame, codes), _| {
            black_box(codec.encode(black_box(&frame.samples), codes));
        });
        let name = format!("{}-decode", codec.name());
        bench.case((&name, 1_000), (frame, codes), nothing, |(frame, codes), _| {
            black_box(codec.decode(black_box(codes), &mut frame.samples));
        });
    }
    let wide = [0.0; WIDE_SAMPLES];
    bench.case(("8k-to-48k", 100), (Upsampler::new(), wide), nothing, |(up, wide), _| {
        up.process(black_box(&frame.samples), wide);
    });
    bench.case(("48k-to-8k", 100), (Downsampler::new(), frame), nothing, |(down, frame), _| {
        down.process(black_box(&wide), &mut frame.samples);
    });
    bench.case(("noise-suppression", 50), Cleaner::new(Rnn::new()), nothing, |cleaner, _| {
        cleaner.process(&mut frame.clone(), true);
    });
    bench.case(("conceal-first-loss", 100), Concealer::new(1), nothing, |concealer, _| {
        concealer.heard(&mut frame.clone());
        concealer.missing(&mut Frame::SILENCE.clone());
    });
}
