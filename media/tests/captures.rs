//! Real packets and real descriptions: captures and messages of other products, where the
//! conformance material is there. It is not part of the repository: its folder is named by the
//! environment variable `TRUNKLINE_CONFORMANCE`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as it should be"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use media::codec::Codec;
use media::dtmf;
use media::jitter::{Jitter, Options, Slot};
use media::packet::rtp;
use media::sdp::{Capabilities, Encryption, Incompatible, Local, Negotiation};
use media::stats::Reception;

/// A file of the conformance material.
fn conformance(path: &str) -> Option<Vec<u8>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/conformance");
    let root =
        std::env::var_os("TRUNKLINE_CONFORMANCE").map_or(PathBuf::from(default), PathBuf::from);
    let found = std::fs::read(root.join(path)).ok();
    if found.is_none() {
        println!("skipped: no {path} below TRUNKLINE_CONFORMANCE");
    }
    found
}

/// One UDP datagram of a capture: seconds into it, and the payload.
struct Datagram {
    at: Duration,
    payload: Vec<u8>,
}

fn u32_le(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Reads a classic little-endian pcap of Ethernet or Linux "cooked" frames with IPv4 inside.
fn datagrams(capture: &[u8]) -> Vec<Datagram> {
    assert_eq!(u32_le(capture, 0), 0xA1B2_C3D4, "a classic pcap");
    let link = if u32_le(capture, 20) == 113 { 16 } else { 14 };
    let (mut at, mut start, mut found) = (24, None, Vec::new());
    while at + 16 <= capture.len() {
        let time = Duration::new(u64::from(u32_le(capture, at)), u32_le(capture, at + 4) * 1_000);
        let length = usize::try_from(u32_le(capture, at + 8)).unwrap();
        let ip = &capture[at + 16 + link..at + 16 + length];
        at += 16 + length;
        let header = usize::from(ip[0] & 15) * 4;
        if ip[0] >> 4 != 4 || ip[9] != 17 {
            continue;
        }
        let udp = usize::from(u16::from_be_bytes([ip[header + 4], ip[header + 5]]));
        let payload = ip[header + 8..header + udp].to_vec();
        let since = time.saturating_sub(*start.get_or_insert(time));
        found.push(Datagram { at: since, payload });
    }
    found
}

#[expect(clippy::disallowed_methods, reason = "a moment to count from; nothing waits")]
fn epoch() -> Instant {
    Instant::now()
}

fn digits_of(capture: &[u8]) -> (String, Vec<u32>) {
    let (start, mut receiver) = (epoch(), dtmf::Receiver::new(8_000));
    let (mut digits, mut lengths) = (String::new(), Vec::new());
    let mut note = |digit: dtmf::Digit| {
        digits.push(digit.digit);
        lengths.push(digit.duration_ms);
    };
    let mut now = start;
    for datagram in datagrams(capture) {
        now = start + datagram.at;
        let view = rtp::view(&datagram.payload).unwrap();
        if view.header.payload_type == 101 {
            let payload = view.payload(&datagram.payload);
            receiver.push(payload, view.header.timestamp, now).map(&mut note);
        }
        receiver.poll(now).map(&mut note);
    }
    receiver.poll(now + Duration::from_secs(1)).map(&mut note);
    (digits, lengths)
}

#[test]
fn digits_of_captures_are_heard_once_each() {
    for (name, expected) in [
        ("ulaw-with-dtmf-1.pcap", "2013785496"),
        ("opus-with-dtmf-1.pcap", "2013785496"),
        ("g711a-with-dtmf-1.pcap", "2112233445566789"),
        ("sipp_dtmf_2833_0.pcap", "0"),
        ("sipp_dtmf_2833_5.pcap", "5"),
        ("sipp_dtmf_2833_9.pcap", "9"),
        ("sipp_dtmf_2833_star.pcap", "*"),
        ("sipp_dtmf_2833_pound.pcap", "#"),
    ] {
        let Some(capture) = conformance(&format!("pcaps/{name}")) else { continue };
        let (digits, lengths) = digits_of(&capture);
        assert_eq!(digits, expected, "{name}");
        assert!(lengths.iter().all(|ms| (100..500).contains(ms)), "{name}: {lengths:?}");
    }
}

/// Plays a capture in its own time; frames heard, lost, and the loss by sequence numbers.
fn play(capture: &[u8], silence: u8) -> (usize, usize, u64) {
    let mut jitter = Jitter::new(Options { silence, ..Options::default() });
    let mut reception = Reception::new(8_000);
    let (start, mut packets) = (epoch(), datagrams(capture));
    let ssrc = |packet: &Datagram| rtp::view(&packet.payload).unwrap().header.ssrc;
    let first = ssrc(&packets[0]);
    packets.retain(|packet| ssrc(packet) == first);
    let last = packets.last().unwrap().at + Duration::from_millis(300);
    let mut packets = packets.into_iter().peekable();
    let (mut heard, mut lost, mut tick) = (0, 0, Duration::ZERO);
    while tick < last {
        while let Some(packet) = packets.next_if(|packet| packet.at <= tick) {
            let now = start + packet.at;
            let view = rtp::view(&packet.payload).unwrap();
            let header = view.header;
            reception.arrived(header.ssrc, header.sequence, Some(header.timestamp), now);
            if header.payload_type == 101 {
                jitter.skip(header.sequence);
            } else {
                let payload = view.payload(&packet.payload);
                jitter.push(header.sequence, header.timestamp, payload, now);
            }
        }
        match jitter.pull(start + tick) {
            Slot::Frame(_) => heard += 1,
            Slot::Lost => lost += 1,
            Slot::Silence | Slot::Empty => {}
        }
        tick += Duration::from_millis(20);
    }
    (heard, lost, reception.lost())
}

#[test]
fn speech_of_captures_is_played_nearly_whole() {
    // The name, what decodes to silence, and the frames that are in it.
    for (name, silence, frames) in [
        ("alaw-40ms-ptime.pcap", 0xD5, 1_652),
        ("milliwatt-pcmu.pcap", 0xFF, 232),
        ("carrier-g711u.pcap", 0xFF, 800),
        // Two streams in one capture; the first one counts.
        ("customer-g711u.pcap", 0xFF, 401),
        ("sipp_g711a.pcap", 0xD5, 354),
        ("ulaw-with-dtmf-1.pcap", 0xFF, 854),
    ] {
        let Some(capture) = conformance(&format!("pcaps/{name}")) else { continue };
        let (heard, lost, missing) = play(&capture, silence);
        println!("{name}: {heard} of {frames} frames heard, {lost} lost, {missing} missing");
        assert!(heard * 100 >= frames * 97, "{name}: {heard} of {frames}");
        assert!(lost * 100 <= frames * 2, "{name}: {lost} lost");
    }
}

fn leg(encryption: Encryption) -> Negotiation {
    let capabilities =
        Capabilities { codecs: vec![Codec::Pcmu, Codec::Pcma], dtmf: true, encryption };
    let address = "198.18.255.1".parse().unwrap();
    Negotiation::new(capabilities, Local { address, port: 20_000, session_id: 1 })
}

#[test]
fn descriptions_of_products_are_answered_or_refused_for_a_reason() {
    use Encryption::{Allow, Disable, Require};
    for (name, encryption, expected) in [
        ("twilio_invite_tls_sdes.sip", Require, Ok(true)),
        ("twilio_invite_tls_sdes.sip", Allow, Ok(true)),
        ("twilio_invite_tls_sdes.sip", Disable, Err(Incompatible::EncryptionRefused)),
        ("audiocodes-mediant_invite_broken-pai.sip", Allow, Ok(false)),
        ("audiocodes-mediant_invite_compact.sip", Allow, Ok(false)),
        ("freeswitch_b2bua_of_twilio_invite.sip", Allow, Ok(false)),
        ("whatsapp_invite_sdes.sip", Allow, Err(Incompatible::NoCodec)),
        ("samsung-volte_invite_precondition.sip", Allow, Err(Incompatible::NoCodec)),
        ("sonus-sbc_siprec_invite.sip", Allow, Ok(false)),
    ] {
        let Some(message) = conformance(&format!("wire/{name}")) else { continue };
        let text = String::from_utf8_lossy(&message);
        let Some(at) = text.find("v=0") else { panic!("{name} has no description") };
        let result = leg(encryption).answer(&text.as_bytes()[at..], &mut |bytes| bytes.fill(7));
        let outcome = result.map(|(_, plan)| plan.srtp.is_some());
        assert_eq!(outcome, expected, "{name}, {encryption:?}");
    }
}
