//! Captures made here, in memory: what machines without other people's captures can check.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::PacketBuilder;

use super::calls::{self, Call, Side, Step};
use super::capture::Capture;
use super::file::{self, End, Packet};
use super::target::{Numbers, Treatment};
use super::{FileReport, Options, Verdict, replay_bytes};

const PHONE: &str = "192.0.2.1:5060";
const SERVER: &str = "192.0.2.2:7000";

/// A pcap in the making: microseconds, little endian, Ethernet unless said otherwise.
struct Pcap(Vec<u8>);

impl Pcap {
    fn new(link: u32) -> Self {
        let mut bytes = Vec::new();
        bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
        bytes.extend([2, 0, 4, 0]);
        for field in [0_u32, 0, 65_535, link] {
            bytes.extend(field.to_le_bytes());
        }
        Pcap(bytes)
    }

    fn frame(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap();
        for field in [1_u32, 0, length, length] {
            self.0.extend(field.to_le_bytes());
        }
        self.0.extend(frame);
    }

    fn udp(&mut self, from: &str, to: &str, payload: &[u8]) {
        self.frame(&udp(from, to, payload));
    }
}

fn addresses(from: &str, to: &str) -> (SocketAddr, SocketAddr) {
    (from.parse().unwrap(), to.parse().unwrap())
}

fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = addresses(from, to);
    let (IpAddr::V4(a), IpAddr::V4(b)) = (from.ip(), to.ip()) else { panic!("IPv4 is wanted") };
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4(a.octets(), b.octets(), 64)
        .udp(from.port(), to.port());
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn tcp(from: &str, to: &str, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let (from, to) = addresses(from, to);
    let (IpAddr::V4(a), IpAddr::V4(b)) = (from.ip(), to.ip()) else { panic!("IPv4 is wanted") };
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(a.octets(), b.octets(), 64).tcp(
        from.port(),
        to.port(),
        sequence,
        1000,
    );
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// One request of a call between the phone and the server.
fn request(method: &str, call: &str, cseq: &str, to_tag: &str) -> String {
    let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    let body = match cseq.ends_with("INVITE") {
        true => {
            "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                 m=audio 4000 RTP/AVP 0\r\n"
        }
        false => "",
    };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:+15550100123@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {PHONE};branch=z9hG4bK{}\r\n\
         From: <sip:+15550100001@example.com>;tag=f\r\nTo: <sip:+15550100123@example.com>{tag}\r\n\
         Call-ID: {call}\r\nCSeq: {cseq}\r\nContact: <sip:a@{PHONE}>\r\nMax-Forwards: 70\r\n{kind}\
         Content-Length: {}\r\n\r\n{body}",
        cseq.replace(' ', ""),
        body.len()
    )
}

fn answer(status: &str, call: &str, cseq: &str) -> String {
    format!(
        "SIP/2.0 {status}\r\nVia: SIP/2.0/UDP {PHONE};branch=z9hG4bK{}\r\n\
         From: <sip:+15550100001@example.com>;tag=f\r\nTo: <sip:+15550100123@example.com>;tag=t\r\n\
         Call-ID: {call}\r\nCSeq: {cseq}\r\nContact: <sip:b@{SERVER}>\r\nContent-Length: 0\r\n\r\n",
        cseq.replace(' ', "")
    )
}

/// A whole call, message by message; `true` is from the phone.
fn whole_call(call: &str) -> Vec<(bool, String)> {
    vec![
        (true, request("INVITE", call, "1 INVITE", "")),
        (false, answer("100 Trying", call, "1 INVITE")),
        (false, answer("180 Ringing", call, "1 INVITE")),
        (false, answer("200 OK", call, "1 INVITE")),
        (true, request("ACK", call, "1 ACK", "t")),
        (true, request("BYE", call, "2 BYE", "t")),
        (false, answer("200 OK", call, "2 BYE")),
    ]
}

fn ends(from_phone: bool) -> (&'static str, &'static str) {
    if from_phone { (PHONE, SERVER) } else { (SERVER, PHONE) }
}

fn capture_of(messages: &[(bool, String)]) -> Vec<u8> {
    let mut pcap = Pcap::new(1);
    for (from_phone, text) in messages {
        let (from, to) = ends(*from_phone);
        pcap.udp(from, to, text.as_bytes());
    }
    pcap.0
}

fn split(bytes: &[u8]) -> Vec<Call> {
    calls::split(&Capture::read(bytes).unwrap().messages, None)
}

async fn replayed(bytes: &[u8]) -> FileReport {
    let options = Options { patience: Duration::from_secs(2), ..Options::default() };
    replay_bytes("memory", bytes, &options).await.unwrap()
}

#[test]
fn two_calls_between_each_other_are_told_apart_on_any_port() {
    let mut messages = Vec::new();
    for (one, two) in whole_call("one").into_iter().zip(whole_call("two")) {
        messages.extend([one.clone(), two, one]);
    }
    let calls = split(&capture_of(&messages));
    assert_eq!(calls.len(), 2);
    for (call, id) in calls.iter().zip(["one", "two"]) {
        assert_eq!((call.call_id.as_str(), call.far.to_string()), (id, PHONE.to_owned()));
        let seen: Vec<_> =
            call.exchanges().map(|one| (one.request.method.as_str(), one.final_answer())).collect();
        assert_eq!(seen, [("INVITE", Some(200)), ("ACK", None), ("BYE", Some(200))]);
    }
    let repeated: Vec<_> = calls[0].exchanges().map(|one| one.repeats).collect();
    assert_eq!(repeated, [1, 1, 1]);
}

#[test]
fn what_had_been_answered_when_the_far_side_went_on_is_known() {
    let mut messages = whole_call("one");
    messages.truncate(3);
    messages.push((true, request("CANCEL", "one", "1 CANCEL", "")));
    messages.push((false, answer("487 Request Terminated", "one", "1 INVITE")));
    let calls = split(&capture_of(&messages));
    let invite = calls[0].exchanges().next().unwrap();
    assert_eq!((&invite.answers[..], invite.awaited), (&[100, 180, 487][..], 2));
}

#[test]
fn the_side_can_be_chosen() {
    let bytes = capture_of(&whole_call("one"));
    let messages = Capture::read(&bytes).unwrap().messages;
    let side = |text: &str| Some(text.parse::<Side>().unwrap());
    let calls = calls::split(&messages, side("192.0.2.2"));
    assert_eq!(calls[0].far.to_string(), SERVER);
    assert!(calls[0].steps.iter().all(|step| matches!(step, Step::Was { .. })));
    assert_eq!(calls::split(&messages, side("192.0.2.9"))[0].far.to_string(), PHONE);
    assert!("phone".parse::<Side>().is_err());
}

#[test]
fn pieces_tags_and_tunnels_are_unwrapped() {
    let text = request("OPTIONS", "one", "1 OPTIONS", "");
    let whole = udp(PHONE, SERVER, text.as_bytes());
    let (ethernet, ip) = whole.split_at(14);
    let tagged = [&whole[..12], &[0x81, 0, 0, 5], &whole[12..]].concat();
    let cooked = [&[0; 14][..], &[8, 0], ip].concat();
    let cooked_2 = [&[8, 0][..], &[0; 18], ip].concat();
    let outer = |protocol: u8, inner: &[u8]| {
        let length = u16::try_from(20 + inner.len()).unwrap().to_be_bytes();
        let header = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
        [ethernet, &header, &[10, 0, 0, 1, 10, 0, 0, 2], inner].concat()
    };
    let ip_in_ip = outer(4, ip);
    let erspan = outer(47, &[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1][..], &[0; 8], &whole].concat());
    for (link, frame) in [
        (1, &whole),
        (1, &tagged),
        (113, &cooked),
        (276, &cooked_2),
        (101, &ip.to_vec()),
        (0, &[&[2, 0, 0, 0], ip].concat()),
        (1, &ip_in_ip),
        (1, &erspan),
    ] {
        let mut pcap = Pcap::new(link);
        pcap.frame(frame);
        let capture = Capture::read(&pcap.0).unwrap();
        assert_eq!(capture.messages.len(), 1, "link {link}: {:?}", capture.others);
        assert_eq!(capture.messages[0].from.to_string(), PHONE);
    }
}

#[test]
fn fragments_in_any_order_become_one_message() {
    let text = request("OPTIONS", "one", "1 OPTIONS", "");
    let whole = udp(PHONE, SERVER, text.as_bytes());
    let (ethernet, ip) = whole.split_at(14);
    let (header, payload) = ip.split_at(20);
    let piece = |at: usize, bytes: &[u8]| {
        let mut header = header.to_vec();
        let length = u16::try_from(20 + bytes.len()).unwrap().to_be_bytes();
        let more = if at + bytes.len() < payload.len() { 0x2000 } else { 0 };
        let place = (u16::try_from(at / 8).unwrap() | more).to_be_bytes();
        (header[2], header[3]) = (length[0], length[1]);
        (header[4], header[5]) = (7, 7);
        (header[6], header[7]) = (place[0], place[1]);
        [ethernet, &header, bytes].concat()
    };
    let mut pcap = Pcap::new(1);
    let pieces: Vec<_> =
        payload.chunks(64).enumerate().map(|(n, part)| piece(n * 64, part)).collect();
    for frame in pieces.iter().rev() {
        pcap.frame(frame);
    }
    let capture = Capture::read(&pcap.0).unwrap();
    assert_eq!(capture.messages.len(), 1, "{:?}", capture.others);
}

#[test]
fn garbage_is_counted_and_never_a_panic() {
    let good = capture_of(&whole_call("one"));
    // Every prefix, and every byte changed: lengths, types, addresses, text.
    for end in 0..good.len() {
        if let Ok(capture) = Capture::read(&good[..end]) {
            assert!(capture.broken_off || capture.packets <= 7);
        }
    }
    for at in 0..good.len() {
        for value in [0, 0x0a, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(capture) = Capture::read(&bad) {
                let _ = calls::split(&capture.messages, None);
            }
        }
    }
    assert!(Capture::read(b"not a capture at all, but long enough to be one").is_err());
    assert!(Capture::read(b"").is_err());
}

#[test]
fn pcapng_in_both_byte_orders_survives_the_same() {
    let frame = udp(PHONE, SERVER, request("OPTIONS", "one", "1 OPTIONS", "").as_bytes());
    for big in [false, true] {
        let number = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let half = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let block = |kind: u32, body: &[u8]| {
            let length = number(u32::try_from(body.len() + 12).unwrap());
            [&number(kind)[..], &length, body, &length].concat()
        };
        let versions = [half(1), half(0)].concat();
        let section =
            block(0x0a0d_0d0a, &[&number(0x1a2b_3c4d)[..], &versions, &[0xff; 8]].concat());
        let interface = block(1, &[&half(1)[..], &half(0), &number(65_535)].concat());
        let length = number(u32::try_from(frame.len()).unwrap());
        let padded = [&frame[..], &vec![0; (4 - frame.len() % 4) % 4]].concat();
        let zero = number(0);
        let packet = block(6, &[&zero[..], &zero, &zero, &length, &length, &padded].concat());
        let good = [section, interface, packet].concat();
        let capture = Capture::read(&good).unwrap();
        assert_eq!(capture.messages.len(), 1, "big endian: {big}");
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = Capture::read(&bad);
                let _ = Capture::read(&good[..at]);
            }
        }
    }
}

#[test]
fn a_file_that_breaks_off_gives_what_stands_before_the_break() {
    let good = capture_of(&whole_call("one"));
    let mut packets = 0;
    let end = file::read(&good[..good.len() - 1], &mut |_: Packet<'_>| {
        packets += 1;
        true
    });
    assert_eq!((end, packets), (Ok(End::BrokenOff), 6));
}

#[test]
fn each_number_is_treated_as_the_capture_shows_it() {
    let ended = |call: &str, status: &str, from: usize| {
        let mut messages = whole_call(call);
        messages.truncate(from);
        messages.push((false, answer(status, call, "1 INVITE")));
        messages
    };
    let messages = [
        whole_call("answered"),
        ended("unknown", "404 Not Found", 2),
        ended("absent", "480 Temporarily Unavailable", 2),
        ended("rings", "180 Ringing", 2),
    ]
    .concat();
    let calls = split(&capture_of(&messages));
    let treated: Vec<_> = calls.iter().map(|call| Treatment::of(call).unwrap()).collect();
    let all =
        [Treatment::Answers, Treatment::Unregistered, Treatment::WithoutAgent, Treatment::Rings];
    assert_eq!(treated, all);
    let numbers = Numbers::choose(calls.iter());
    // They all dialled the same number: the first call has it, the others have stand-ins.
    assert_eq!(numbers.treated.get("+15550100123"), Some(&Treatment::Answers));
    assert_eq!(numbers.stand_ins[0], None);
    assert!(numbers.stand_ins[1..].iter().all(Option::is_some), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_udp_is_replayed_and_the_same() {
    let report = replayed(&capture_of(&whole_call("one"))).await;
    let call = &report.calls[0];
    assert_eq!(call.verdict, Verdict::Same, "{call:#?}");
    let ours: Vec<_> = call.rows.iter().map(|row| (row.method.as_str(), row.our_final())).collect();
    assert_eq!(ours, [("INVITE", Some(200)), ("ACK", None), ("BYE", Some(200))]);
    assert!(call.rows.iter().all(|row| row.sent && row.note.is_none()), "{call:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tcp_in_shreds_is_replayed_over_tcp() {
    let mut pcap = Pcap::new(1);
    let mut sequences = [5_u32, u32::MAX - 300];
    for (from_phone, text) in whole_call("one") {
        let (from, to) = ends(from_phone);
        let next = &mut sequences[usize::from(from_phone)];
        for shred in text.as_bytes().chunks(97) {
            // Each twice: the second is a retransmission.
            pcap.frame(&tcp(from, to, *next, shred));
            pcap.frame(&tcp(from, to, *next, shred));
            *next = next.wrapping_add(u32::try_from(shred.len()).unwrap());
        }
    }
    let report = replayed(&pcap.0).await;
    let call = &report.calls[0];
    assert_eq!((call.transport, call.verdict), ("TCP", Verdict::Same), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_have_a_reason_and_the_decision_record_speaks() {
    let mut refused = whole_call("refused");
    refused.truncate(2);
    refused.push((false, answer("486 Busy Here", "refused", "1 INVITE")));
    refused.push((true, request("ACK", "refused", "1 ACK", "t")));
    let mut unsuited = whole_call("unsuited");
    for (_, text) in &mut unsuited {
        *text = text.replace("RTP/AVP 0", "RTP/AVP 9").replace("0100123", "0100124");
    }
    let mut register = vec![(true, request("REGISTER", "register", "1 REGISTER", ""))];
    register.push((false, answer("200 OK", "register", "1 REGISTER")));
    let report = replayed(&capture_of(&[refused, unsuited, register].concat())).await;
    let reasons: Vec<String> = report.calls.iter().map(|call| call.reasons.join("; ")).collect();
    assert!(report.calls.iter().all(|call| call.verdict == Verdict::Differs), "{report:#?}");
    assert!(
        reasons[0].contains("busy (486): here the number's agent takes the call"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("488, media_incompatible: "), "{reasons:?}");
    assert!(reasons[2].contains("no registrar, 405"), "{reasons:?}");
    // The call that the capture refused and this gateway took is not left behind.
    let last = report.calls[0].rows.last().unwrap();
    assert!(last.own && last.method == "BYE" && last.our_final() == Some(200), "{last:?}");
    // The rest of the call that this gateway refused is not sent, and that is said.
    let bye = &report.calls[1].rows[2];
    assert_eq!(bye.note.as_deref(), Some("not sent: the gateway made no such dialog"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_while_it_rings_is_given_up_here_too() {
    let mut messages = whole_call("one");
    messages.truncate(3);
    messages.push((true, request("CANCEL", "one", "1 CANCEL", "")));
    messages.push((false, answer("200 OK", "one", "1 CANCEL")));
    messages.push((false, answer("487 Request Terminated", "one", "1 INVITE")));
    messages.push((true, request("ACK", "one", "1 ACK", "t")));
    let report = replayed(&capture_of(&messages)).await;
    assert_eq!(report.calls[0].verdict, Verdict::Same, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_starts_in_the_middle_of_a_call_is_no_call_here() {
    let messages = whole_call("one").split_off(4);
    let report = replayed(&capture_of(&messages)).await;
    let call = &report.calls[0];
    assert_eq!(call.verdict, Verdict::Differs, "{call:#?}");
    assert_eq!(
        call.reasons,
        ["the capture's answer to BYE is 200: Trunkline knows no such dialog, 481"]
    );
}
