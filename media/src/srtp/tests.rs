//! What a context must do, alone and against another implementation.

use proptest::prelude::*;

use super::super::testing::{Choices, Oracle, hex};
use super::super::{Direction, SrtpPair, SrtpSession, TAIL_ROOM};
use super::*;
use crate::packet::rtp::{HEADER_BYTES, Header, write_header};

const SUITES: [Suite; 2] = Suite::ALL;
const SSRC: u32 = 0xcafe_babe;

fn key(fill: u8) -> MasterKey {
    MasterKey::new(std::array::from_fn(|at| fill.wrapping_add(at as u8 * 7)))
}

fn context(suite: Suite) -> Context {
    Context::new(suite, &key(1))
}

fn packet(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER_BYTES];
    let header = Header { payload_type: 0, marker: false, sequence, timestamp: 160, ssrc };
    write_header(&mut packet, header).unwrap();
    packet.extend_from_slice(payload);
    packet
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut report = vec![0x80, 201, 0, 1];
    report.extend_from_slice(&ssrc.to_be_bytes());
    report.extend_from_slice(&[0x81, 203, 0, 1]);
    report.extend_from_slice(&ssrc.to_be_bytes());
    report
}

type Call<S> = fn(&mut S, &mut [u8], usize) -> Result<usize, SrtpError>;

/// Runs one of the four calls on a copy with tail room and returns what it left.
fn run<S>(session: &mut S, call: Call<S>, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + TAIL_ROOM, 0);
    let len = call(session, &mut buffer, packet.len())?;
    buffer.truncate(len);
    Ok(buffer)
}

fn protected(sender: &mut Context, ssrc: u32, sequence: u16) -> Vec<u8> {
    run(sender, Context::protect, &packet(ssrc, sequence, b"voice")).unwrap()
}

#[test]
fn the_packets_of_libsrtp_are_reproduced() {
    let master = hex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6");
    let master = MasterKey::from_slice(&master).unwrap();
    let mut sender = Context::new(Suite::AesCm128HmacSha1_80, &master);
    let mut receiver = Context::new(Suite::AesCm128HmacSha1_80, &master);
    let rtp = hex("800f1234decafbadcafebabeabababababababababababababababab");
    let srtp = hex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb");
    assert_eq!(run(&mut sender, Context::protect, &rtp).unwrap(), srtp);
    assert_eq!(run(&mut receiver, Context::unprotect, &srtp).unwrap(), rtp);
    let rtcp = hex("81c8000bcafebabeabababababababababababababababab");
    let srtcp = hex("81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798");
    assert_eq!(run(&mut sender, Context::protect_rtcp, &rtcp).unwrap(), srtcp);
    assert_eq!(run(&mut receiver, Context::unprotect_rtcp, &srtcp).unwrap(), rtcp);
}

/// Sequence numbers over four wraps: strides between them, every number around them, and each
/// group of four in another order.
fn wrapping_sequences() -> Vec<u16> {
    let mut positions: Vec<u64> = Vec::new();
    let mut at = 65_000_u64;
    while at < 65_000 + 3 * 65_536 + 1_000 {
        positions.push(at);
        let near_a_wrap = (at + 70) % 65_536 < 140;
        at += if near_a_wrap { 1 } else { 29 };
    }
    let mut choices = Choices(5);
    for group in positions.chunks_mut(4) {
        for last in (1..group.len()).rev() {
            group.swap(last, choices.below(last as u64 + 1) as usize);
        }
    }
    positions.into_iter().map(|position| position as u16).collect()
}

#[test]
fn another_implementation_agrees_byte_for_byte_over_four_wraps() {
    for suite in SUITES {
        let mut ours = SrtpPair::new(suite, &key(1), &key(2));
        let mut theirs = Oracle::new(suite, &key(1), &key(2));
        // The same keys seen from the far end, to take what was sent.
        let mut our_peer = SrtpPair::new(suite, &key(2), &key(1));
        let mut their_peer = Oracle::new(suite, &key(2), &key(1));
        let mut choices = Choices(11);
        for sequence in wrapping_sequences() {
            let len = choices.below(180) as usize;
            let plain = packet(SSRC, sequence, &choices.bytes(len));
            let sent = run(&mut ours, SrtpPair::protect, &plain).unwrap();
            assert_eq!(sent, run(&mut theirs, Oracle::protect, &plain).unwrap(), "{sequence}");
            let received = run(&mut our_peer, SrtpPair::unprotect, &sent);
            assert_eq!(received.as_ref(), Ok(&plain), "{sequence}");
            assert_eq!(run(&mut their_peer, Oracle::unprotect, &sent), received, "{sequence}");
        }
        assert_eq!(ours.roc(Direction::Outbound, SSRC), Some(4));
        assert_eq!(our_peer.roc(Direction::Inbound, SSRC), Some(4));
    }
}

#[test]
fn another_implementation_agrees_on_reports() {
    for suite in SUITES {
        let mut ours = SrtpPair::new(suite, &key(1), &key(2));
        let mut theirs = Oracle::new(suite, &key(1), &key(2));
        let mut our_peer = SrtpPair::new(suite, &key(2), &key(1));
        let mut their_peer = Oracle::new(suite, &key(2), &key(1));
        for round in 0..300 {
            let plain = report(SSRC + round % 2);
            let sent = run(&mut ours, SrtpPair::protect_rtcp, &plain).unwrap();
            assert_eq!(sent, run(&mut theirs, Oracle::protect_rtcp, &plain).unwrap());
            let received = run(&mut our_peer, SrtpPair::unprotect_rtcp, &sent);
            assert_eq!(received.as_ref(), Ok(&plain));
            assert_eq!(run(&mut their_peer, Oracle::unprotect_rtcp, &sent), received);
        }
    }
}

#[test]
fn the_sources_and_extensions_of_a_header_stay_in_the_clear() {
    let mut plain = packet(SSRC, 9, b"csrc\xbe\xde\x00\x01\x10\x55\x00\x00voice");
    plain[0] |= 0x11;
    let suite = Suite::AesCm128HmacSha1_80;
    let sent = run(&mut context(suite), Context::protect, &plain).unwrap();
    assert_eq!(sent[..24], plain[..24]);
    assert_ne!(sent[24..29], plain[24..29]);
    let mut theirs = Oracle::new(suite, &key(1), &key(1));
    assert_eq!(run(&mut theirs, Oracle::protect, &plain).unwrap(), sent);
    assert_eq!(run(&mut context(suite), Context::unprotect, &sent).unwrap(), plain);
}

#[test]
fn only_the_rtp_tag_is_shorter_in_the_second_suite() {
    let mut sender = context(Suite::AesCm128HmacSha1_32);
    assert_eq!(protected(&mut sender, SSRC, 1).len(), HEADER_BYTES + 5 + 4);
    let sent = run(&mut sender, Context::protect_rtcp, &report(SSRC)).unwrap();
    assert_eq!(sent.len(), report(SSRC).len() + 4 + 10);
}

#[test]
fn every_packet_is_taken_once() {
    for suite in SUITES {
        let (mut sender, mut receiver) = (context(suite), context(suite));
        for sequence in (65_500..=65_535).chain(0..50) {
            let sent = protected(&mut sender, SSRC, sequence);
            let report = run(&mut sender, Context::protect_rtcp, &report(SSRC)).unwrap();
            assert!(run(&mut receiver, Context::unprotect, &sent).is_ok());
            assert!(run(&mut receiver, Context::unprotect_rtcp, &report).is_ok());
            for _ in 0..3 {
                let again = run(&mut receiver, Context::unprotect, &sent);
                assert_eq!(again, Err(SrtpError::Replayed));
                let again = run(&mut receiver, Context::unprotect_rtcp, &report);
                assert_eq!(again, Err(SrtpError::Replayed));
            }
        }
    }
}

#[test]
fn packets_older_than_the_window_are_refused_and_younger_ones_taken() {
    let (mut sender, mut receiver) = (context(SUITES[0]), context(SUITES[0]));
    let sent: Vec<_> = (0..300).map(|sequence| protected(&mut sender, SSRC, sequence)).collect();
    assert!(run(&mut receiver, Context::unprotect, &sent[299]).is_ok());
    assert_eq!(run(&mut receiver, Context::unprotect, &sent[171]), Err(SrtpError::TooOld));
    assert!(run(&mut receiver, Context::unprotect, &sent[172]).is_ok());
}

#[test]
fn a_stream_may_start_just_below_a_wrap_and_lose_its_first_packets() {
    for lost in 0..20 {
        let (mut sender, mut receiver) = (context(SUITES[0]), context(SUITES[0]));
        for at in 0..40_u16 {
            let sent = protected(&mut sender, SSRC, 65_530_u16.wrapping_add(at));
            if at >= lost {
                assert!(run(&mut receiver, Context::unprotect, &sent).is_ok(), "{lost} {at}");
            }
        }
        assert_eq!(receiver.roc(SSRC), Some(1));
    }
}

#[test]
fn a_key_stream_is_never_used_twice() {
    let mut sender = context(SUITES[0]);
    protected(&mut sender, SSRC, 7);
    let again = run(&mut sender, Context::protect, &packet(SSRC, 7, b"other"));
    assert_eq!(again, Err(SrtpError::Replayed));
    protected(&mut sender, SSRC, 1_000);
    let late = run(&mut sender, Context::protect, &packet(SSRC, 8, b"other"));
    assert_eq!(late, Err(SrtpError::TooOld));
}

#[test]
fn a_key_ends_with_its_last_index() {
    let mut sender = context(SUITES[0]);
    sender.set_roc(SSRC, u32::MAX).unwrap();
    protected(&mut sender, SSRC, u16::MAX);
    let next = run(&mut sender, Context::protect, &packet(SSRC, 0, b""));
    assert_eq!(next, Err(SrtpError::KeyExhausted));
    let stream = sender.streams.iter_mut().flatten().next().unwrap();
    stream.rtcp = Window::starting_at(MAX_RTCP_INDEX - 1);
    assert!(run(&mut sender, Context::protect_rtcp, &report(SSRC)).is_ok());
    let next = run(&mut sender, Context::protect_rtcp, &report(SSRC));
    assert_eq!(next, Err(SrtpError::KeyExhausted));
}

#[test]
fn a_stream_can_be_taken_over_midway() {
    let (mut sender, mut receiver) = (context(SUITES[0]), context(SUITES[0]));
    sender.set_roc(SSRC, 41).unwrap();
    let sent = protected(&mut sender, SSRC, 60_000);
    assert_eq!(run(&mut receiver, Context::unprotect, &sent), Err(SrtpError::Forged));
    receiver.set_roc(SSRC, 41).unwrap();
    assert!(run(&mut receiver, Context::unprotect, &sent).is_ok());
    assert_eq!(receiver.roc(SSRC), Some(41));
    assert_eq!(receiver.set_roc(SSRC, 40), Err(SrtpError::TooOld));
    // Setting it to what it is forgets nothing; setting it forward still refuses the old packets.
    receiver.set_roc(SSRC, 41).unwrap();
    assert_eq!(run(&mut receiver, Context::unprotect, &sent), Err(SrtpError::Replayed));
    receiver.set_roc(SSRC, 42).unwrap();
    assert_eq!(receiver.roc(SSRC), Some(42));
    sender.set_roc(SSRC, 42).unwrap();
    let sent = protected(&mut sender, SSRC, 60_001);
    assert!(run(&mut receiver, Context::unprotect, &sent).is_ok());
}

#[test]
fn every_flipped_bit_is_found_and_leaves_the_packet_as_it_came() {
    for suite in SUITES {
        let mut sender = context(suite);
        let sent = [
            (protected(&mut sender, SSRC, 5), Context::unprotect as Call<Context>),
            (
                run(&mut sender, Context::protect_rtcp, &report(SSRC)).unwrap(),
                Context::unprotect_rtcp as Call<Context>,
            ),
        ];
        for (sent, call) in sent {
            for bit in 0..8 * sent.len() {
                let mut receiver = context(suite);
                let mut forged = sent.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                let before = forged.clone();
                let error = call(&mut receiver, &mut forged, before.len()).unwrap_err();
                assert!(matches!(error, SrtpError::Forged | SrtpError::Malformed), "{error:?}");
                assert_eq!(forged, before);
                assert_eq!(receiver.streams, [None; MAX_STREAMS]);
            }
        }
    }
}

#[test]
fn forged_packets_change_nothing_and_cost_the_good_ones_nothing() {
    let (mut sender, mut receiver) = (context(SUITES[0]), context(SUITES[0]));
    let first = protected(&mut sender, SSRC, 100);
    run(&mut receiver, Context::unprotect, &first).unwrap();
    let before = receiver.streams;
    let mut choices = Choices(3);
    for round in 0..2_000_u32 {
        let ssrc = if round % 4 == 0 { SSRC } else { choices.below(1 << 32) as u32 };
        let mut forged = packet(ssrc, choices.below(65_536) as u16, &choices.bytes(40));
        assert!(receiver.unprotect(&mut forged, 52).is_err());
        forged[1] = 200 + (round % 4) as u8;
        assert!(receiver.unprotect_rtcp(&mut forged, 52).is_err());
    }
    assert_eq!(receiver.streams, before);
    let next = protected(&mut sender, SSRC, 101);
    assert!(run(&mut receiver, Context::unprotect, &next).is_ok());
}

#[test]
fn sources_beyond_the_table_are_refused_and_the_others_go_on() {
    let (mut sender, mut receiver) = (context(SUITES[0]), context(SUITES[0]));
    let sources = 0..u32::try_from(MAX_STREAMS).unwrap();
    for ssrc in sources.clone() {
        let sent = protected(&mut sender, ssrc, 1);
        assert!(run(&mut receiver, Context::unprotect, &sent).is_ok());
    }
    let mut other = context(SUITES[0]);
    let extra = protected(&mut other, 99, 1);
    assert_eq!(run(&mut receiver, Context::unprotect, &extra), Err(SrtpError::TooManyStreams));
    let extra = run(&mut other, Context::protect_rtcp, &report(99)).unwrap();
    let refused = run(&mut receiver, Context::unprotect_rtcp, &extra);
    assert_eq!(refused, Err(SrtpError::TooManyStreams));
    let refused = run(&mut sender, Context::protect, &packet(99, 1, b""));
    assert_eq!(refused, Err(SrtpError::TooManyStreams));
    assert_eq!(receiver.set_roc(99, 1), Err(SrtpError::TooManyStreams));
    for ssrc in sources {
        let sent = protected(&mut sender, ssrc, 2);
        assert!(run(&mut receiver, Context::unprotect, &sent).is_ok());
    }
}

#[test]
fn a_report_in_the_clear_is_refused_though_authentic() {
    let mut receiver = context(SUITES[0]);
    let mut plain = report(SSRC);
    plain.extend_from_slice(&[0, 0, 0, 1]);
    let mac = receiver.rtcp.authenticate(&plain, &[]).finalize().into_bytes();
    plain.extend_from_slice(&mac[..10]);
    let refused = run(&mut receiver, Context::unprotect_rtcp, &plain);
    assert_eq!(refused, Err(SrtpError::NotEncrypted));
    assert_eq!(receiver.streams, [None; MAX_STREAMS]);
}

#[test]
fn a_key_identifier_stands_before_the_tag() {
    let make = |mki: &[u8]| Context::with_mki(SUITES[0], &key(1), mki);
    let (mut sender, mut receiver) = (make(&[0, 1]).unwrap(), make(&[0, 1]).unwrap());
    let sent = protected(&mut sender, SSRC, 1);
    assert_eq!(sent[sent.len() - 12..sent.len() - 10], [0, 1]);
    assert!(run(&mut receiver, Context::unprotect, &sent).is_ok());
    let sent = run(&mut sender, Context::protect_rtcp, &report(SSRC)).unwrap();
    assert_eq!(run(&mut receiver, Context::unprotect_rtcp, &sent).unwrap(), report(SSRC));
    let sent = protected(&mut sender, SSRC, 2);
    let other = run(&mut make(&[0, 2]).unwrap(), Context::unprotect, &sent);
    assert_eq!(other, Err(SrtpError::Forged));
    assert!(make(&[0; 8]).is_some());
    assert!(make(&[0; 9]).is_none());
}

#[test]
fn a_new_key_loses_no_packet_that_is_still_under_way() {
    let suite = SUITES[0];
    let (mut old_sender, mut receiver) = (context(suite), context(suite));
    let mut new_sender = Context::new(suite, &key(50));
    let old: Vec<_> = (1..=5).map(|at| protected(&mut old_sender, SSRC, at)).collect();
    run(&mut receiver, Context::unprotect, &old[0]).unwrap();
    receiver = Context::new(suite, &key(50)).replacing(receiver);
    let report = run(&mut old_sender, Context::protect_rtcp, &report(SSRC)).unwrap();
    assert!(run(&mut receiver, Context::unprotect_rtcp, &report).is_ok());
    for at in 0..u16::from(HANDOVER_PACKETS) {
        let new = protected(&mut new_sender, SSRC, 500 + at);
        assert!(run(&mut receiver, Context::unprotect, &new).is_ok());
        let late = match at {
            5 => run(&mut receiver, Context::unprotect, &old[1]).map(|_| ()),
            6 => run(&mut receiver, Context::unprotect, &old[2]).map(|_| ()),
            _ => continue,
        };
        assert_eq!(late, Ok(()));
    }
    // What was taken under the old key is no more taken again, and then the key is gone.
    for packet in [&old[0], &old[1], &old[3]] {
        assert!(run(&mut receiver, Context::unprotect, packet).is_err());
    }
    assert!(receiver.previous.is_none());
}

#[test]
fn an_old_key_still_refuses_what_it_saw() {
    let suite = SUITES[0];
    let (mut sender, mut receiver) = (context(suite), context(suite));
    let sent = protected(&mut sender, SSRC, 1);
    run(&mut receiver, Context::unprotect, &sent).unwrap();
    receiver = Context::new(suite, &key(50)).replacing(receiver);
    for _ in 0..200 {
        assert!(run(&mut receiver, Context::unprotect, &sent).is_err());
    }
    assert!(receiver.previous.is_some());
}

#[test]
fn a_buffer_without_tail_room_is_refused_and_nothing_is_spent() {
    let mut sender = context(SUITES[0]);
    for room in 0..10 {
        let mut buffer = packet(SSRC, 1, b"voice");
        let len = buffer.len();
        buffer.resize(len + room, 0);
        assert_eq!(sender.protect(&mut buffer, len), Err(SrtpError::NoRoom));
        let mut buffer = report(SSRC);
        let len = buffer.len();
        buffer.resize(len + room + 4, 0);
        assert_eq!(sender.protect_rtcp(&mut buffer, len), Err(SrtpError::NoRoom));
    }
    assert_eq!(sender.streams, [None; MAX_STREAMS]);
}

#[test]
fn every_length_to_64_is_survived_by_all_four_calls() {
    for suite in SUITES {
        let mut session = context(suite);
        for len in 0..=64 {
            for first in [0x00, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xff] {
                short_packets_are_survived(&mut session, first, len);
            }
        }
        assert_eq!(session.streams, [None; MAX_STREAMS]);
    }
}

fn short_packets_are_survived(session: &mut Context, first: u8, len: usize) {
    let mut sender = Context::new(session.suite, &key(9));
    for second in 192..=223 {
        let mut bytes = vec![second; len];
        bytes.iter_mut().take(1).for_each(|byte| *byte = first);
        for call in [Context::unprotect, Context::unprotect_rtcp] {
            assert!(run(session, call, &bytes).is_err());
            assert!(call(session, &mut bytes.clone(), len + 1).is_err());
        }
        for call in [Context::protect, Context::protect_rtcp] {
            let _ = run(&mut sender, call, &bytes);
            assert!(call(&mut sender, &mut bytes.clone(), len + 1).is_err());
        }
    }
}

#[test]
fn the_index_nearest_to_the_highest_is_chosen() {
    let at = |roc: u64, sequence: u64| roc << 16 | sequence;
    for (highest, sequence, expected) in [
        (at(0, 0), 0, at(0, 0)),
        (at(0, 5), 65_530, at(0, 65_530)),
        (at(0, 65_530), 5, at(1, 5)),
        (at(1, 5), 65_530, at(0, 65_530)),
        (at(7, 0x7fff), 0xffff, at(7, 0xffff)),
        (at(7, 0x7ffe), 0xffff, at(6, 0xffff)),
        (at(7, 0x8000), 0, at(7, 0)),
        (at(7, 0x8001), 0, at(8, 0)),
    ] {
        assert_eq!(estimate(highest, sequence), expected, "{highest:#x} {sequence}");
    }
}

proptest! {
    #[test]
    fn random_packets_are_refused_and_change_nothing(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut session = context(Suite::AesCm128HmacSha1_80);
        if let Some(first) = bytes.first_mut() {
            *first = *first & 0x3f | 0x80;
        }
        let len = bytes.len();
        prop_assert!(session.unprotect(&mut bytes, len).is_err());
        prop_assert!(session.unprotect_rtcp(&mut bytes, len).is_err());
        prop_assert!(session.streams == [None; MAX_STREAMS]);
    }

    #[test]
    fn what_is_protected_comes_back(
        ssrc: u32, sequence: u16, payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for suite in SUITES {
            let plain = packet(ssrc, sequence, &payload);
            let sent = run(&mut context(suite), Context::protect, &plain).unwrap();
            let back = run(&mut context(suite), Context::unprotect, &sent);
            prop_assert_eq!(back.as_ref(), Ok(&plain));
        }
    }
}
