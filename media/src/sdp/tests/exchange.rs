//! Plain offer/answer: codecs, lines, hold, versions, both directions.

use super::*;
use crate::sdp::Direction;

fn plain(offer: &str) -> (String, Plan) {
    answer(&mut leg(Encryption::Disable), &described(offer)).unwrap()
}

#[test]
fn the_answer_has_one_codec_and_events_with_the_numbers_of_the_offer() {
    let (text, plan) = plain(
        "m=audio 4000 RTP/AVP 18 8 0 126 101
         a=rtpmap:18 G729/8000
         a=rtpmap:126 telephone-event/48000
         a=rtpmap:101 telephone-event/8000
         a=fmtp:101 0-16",
    );
    assert_has(&text, "m=audio 20000 RTP/AVP 8 101");
    assert_has(&text, "a=rtpmap:8 PCMA/8000");
    assert_has(&text, "a=rtpmap:101 telephone-event/8000");
    assert_has(&text, "a=fmtp:101 0-15");
    assert_has(&text, "a=ptime:20");
    assert_has(&text, "a=sendrecv");
    assert_has(&text, "c=IN IP4 203.0.113.5");
    assert_has(&text, "o=- 77 1 IN IP4 203.0.113.5");
    assert_eq!((plan.codec, plan.payload_type), (Codec::Pcma, 8));
    assert_eq!((plan.dtmf_payload, plan.dtmf_receive_payload), (Some(101), Some(101)));
    assert_eq!(plan.remote, "192.0.2.1:4000".parse().unwrap());
    assert_eq!(plan.remote_rtcp, "192.0.2.1:4001".parse().unwrap());
    assert!(plan.send && plan.receive && plan.srtp.is_none() && !plan.rtcp_mux);
}

#[test]
fn the_offerers_order_decides_not_ours() {
    assert_eq!(plain("m=audio 4000 RTP/AVP 8 0").1.codec, Codec::Pcma);
    assert_eq!(plain("m=audio 4000 RTP/AVP 0 8").1.codec, Codec::Pcmu);
}

#[test]
fn static_numbers_need_no_rtpmap_and_dynamic_ones_are_read() {
    let (_, plan) = plain("m=audio 4000 RTP/AVP 96\na=rtpmap:96 pcma/8000/1");
    assert_eq!((plan.codec, plan.payload_type), (Codec::Pcma, 96));
    let offer = described("m=audio 4000 RTP/AVP 0\na=rtpmap:0 G726-32/8000");
    assert_eq!(refusal(&mut leg(Encryption::Disable), &offer), Some(Incompatible::NoCodec));
    let offer = described("m=audio 4000 RTP/AVP 96\na=rtpmap:96 PCMU/16000");
    assert_eq!(refusal(&mut leg(Encryption::Disable), &offer), Some(Incompatible::NoCodec));
}

#[test]
fn events_are_left_out_when_the_leg_or_the_peer_has_none() {
    assert_eq!(plain("m=audio 4000 RTP/AVP 0").1.dtmf_payload, None);
    let mut leg = leg(Encryption::Disable);
    leg.capabilities.dtmf = false;
    let offer = described("m=audio 4000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000");
    let (text, plan) = answer(&mut leg, &offer).unwrap();
    assert_eq!(plan.dtmf_payload, None);
    assert_has(&text, "m=audio 20000 RTP/AVP 0");
}

#[test]
fn refused_lines_keep_their_place_with_port_zero() {
    let (text, _) = plain(
        "m=image 5000 udptl t38
         m=video 5002 RTP/AVP 31 32
         m=audio 4000 RTP/AVP 0
         m=audio 4002 RTP/AVP 0
         m=application 0 UDP/BFCP *",
    );
    assert_eq!(
        media_lines(&text),
        [
            "m=image 0 UDPTL t38",
            "m=video 0 RTP/AVP 31",
            "m=audio 20000 RTP/AVP 0",
            "m=audio 0 RTP/AVP 0",
            "m=application 0 UDP/BFCP *",
        ]
    );
}

#[test]
fn a_later_offer_of_fax_or_without_audio_is_refused_and_the_call_goes_on() {
    let mut leg = leg(Encryption::Disable);
    let audio = described("m=audio 4000 RTP/AVP 0");
    let (before, _) = answer(&mut leg, &audio).unwrap();
    let fax = described("m=audio 0 RTP/AVP 0\nm=image 5000 udptl t38");
    assert_eq!(refusal(&mut leg, &fax), Some(Incompatible::NoAudio));
    assert_eq!(refusal(&mut leg, &described("")), Some(Incompatible::NoAudio));
    let g729 = described("m=audio 4000 RTP/AVP 18");
    assert_eq!(refusal(&mut leg, &g729), Some(Incompatible::NoCodec));
    assert_eq!(answer(&mut leg, &audio).unwrap().0, before);
}

#[test]
fn hold_and_our_wish_meet_in_all_sixteen_ways() {
    for theirs in Direction::ALL {
        for ours in Direction::ALL {
            let mut leg = leg(Encryption::Disable);
            leg.set_direction(ours);
            let offer = described(&format!("m=audio 4000 RTP/AVP 0\na={}", theirs.name()));
            let (text, plan) = answer(&mut leg, &offer).unwrap();
            let expected = ours.meet(theirs);
            assert_has(&text, &format!("a={}", expected.name()));
            assert_eq!((plan.send, plan.receive), (expected.sends(), expected.receives()));

            let mut leg = self::leg(Encryption::Disable);
            leg.set_direction(ours);
            let text = String::from_utf8(leg.offer(&mut counting())).unwrap();
            assert_has(&text, &format!("a={}", ours.name()));
            let plan = leg.accept(offer.as_bytes()).unwrap();
            assert_eq!((plan.send, plan.receive), (expected.sends(), expected.receives()));
        }
    }
}

#[test]
fn the_direction_of_the_session_counts_unless_the_line_has_its_own() {
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
    let offer = format!("{head}a=sendonly\r\nm=audio 4000 RTP/AVP 0\r\n");
    assert_has(&answer(&mut leg(Encryption::Disable), &offer).unwrap().0, "a=recvonly");
    let offer = format!("{head}a=sendonly\r\nm=audio 4000 RTP/AVP 0\r\na=sendrecv\r\n");
    assert_has(&answer(&mut leg(Encryption::Disable), &offer).unwrap().0, "a=sendrecv");
}

#[test]
fn hold_by_zero_address_and_resume() {
    let mut leg = leg(Encryption::Disable);
    let offer = |c: &str, dir: &str| {
        format!(
            "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nc=IN {c}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na={dir}\r\n"
        )
    };
    let (first, _) = answer(&mut leg, &offer("IP4 192.0.2.1", "sendrecv")).unwrap();
    for zero in ["IP4 0.0.0.0", "IP6 ::", "IP4 anything.invalid"] {
        let (held, plan) = answer(&mut leg, &offer(zero, "sendrecv")).unwrap();
        assert_has(&held, "a=recvonly");
        assert!(!plan.send && plan.receive, "{zero}");
        assert_eq!(plan.remote, "192.0.2.1:4000".parse().unwrap(), "the address is kept");
        let (held, plan) = answer(&mut leg, &offer(zero, "sendonly")).unwrap();
        assert_has(&held, "a=recvonly");
        assert!(!plan.send && plan.receive);
        let (held, plan) = answer(&mut leg, &offer(zero, "inactive")).unwrap();
        assert_has(&held, "a=inactive");
        assert!(!plan.send && !plan.receive);
    }
    let (resumed, plan) = answer(&mut leg, &offer("IP4 192.0.2.1", "sendrecv")).unwrap();
    assert!(plan.send && plan.receive);
    assert_eq!(media_lines(&resumed), media_lines(&first));
    assert_has(&resumed, "a=sendrecv");
}

#[test]
fn a_call_that_begins_on_hold_has_no_address_yet() {
    let offer =
        "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let (_, plan) = answer(&mut leg(Encryption::Disable), offer).unwrap();
    assert!(plan.remote.ip().is_unspecified() && !plan.send);
}

#[test]
fn a_host_name_is_left_to_the_latch() {
    let offer = "v=0\r\nc=IN IP4 media.example.com\r\nm=audio 4000 RTP/AVP 0\r\n";
    let (_, plan) = answer(&mut leg(Encryption::Disable), offer).unwrap();
    assert_eq!(plan.remote, "0.0.0.0:4000".parse().unwrap());
    assert!(plan.send && plan.receive);
}

#[test]
fn the_version_grows_by_one_exactly_when_the_text_changes() {
    let mut leg = leg(Encryption::Disable);
    let one = described("m=audio 4000 RTP/AVP 0");
    let held = described("m=audio 4000 RTP/AVP 0\na=sendonly");
    let moved = one.replace("192.0.2.1", "192.0.2.99");
    let versions = [&one, &one, &moved, &held, &held, &one]
        .map(|offer| version(&answer(&mut leg, offer).unwrap().0));
    assert_eq!(versions, [1, 1, 1, 2, 2, 3]);
    let text = String::from_utf8(leg.offer(&mut counting())).unwrap();
    assert_eq!(version(&text), 4, "an offer lists all codecs: that is a change");
    leg.withdraw();
    let text = String::from_utf8(leg.offer(&mut counting())).unwrap();
    assert_eq!(version(&text), 4, "the same offer again is none");
}

#[test]
fn the_address_of_the_line_wins_over_that_of_the_session() {
    let (_, plan) = plain("m=audio 4000 RTP/AVP 0\nc=IN IP4 192.0.2.77");
    assert_eq!(plan.remote, "192.0.2.77:4000".parse().unwrap());
    let (_, plan) = plain("m=video 4002 RTP/AVP 31\nc=IN IP4 192.0.2.66\nm=audio 4000 RTP/AVP 0");
    assert_eq!(plan.remote, "192.0.2.1:4000".parse().unwrap());
}

#[test]
fn rtcp_goes_where_the_peer_says() {
    for (lines, rtcp, mux) in [
        ("a=rtcp:4500", "192.0.2.1:4500", false),
        ("a=rtcp:4500 IN IP4 192.0.2.8", "192.0.2.8:4500", false),
        ("a=rtcp:4500 IN IP4 224.0.0.1", "192.0.2.1:4001", false),
        ("a=rtcp:0", "192.0.2.1:4001", false),
        ("a=rtcp:junk", "192.0.2.1:4001", false),
        ("a=rtcp-mux", "192.0.2.1:4000", true),
        ("a=rtcp:9 IN IP4 0.0.0.0\na=rtcp-mux", "192.0.2.1:4000", true),
    ] {
        let (text, plan) = plain(&format!("m=audio 4000 RTP/AVP 0\n{lines}"));
        assert_eq!(plan.remote_rtcp, rtcp.parse().unwrap(), "{lines}");
        assert_eq!((plan.rtcp_mux, text.contains("a=rtcp-mux")), (mux, mux), "{lines}");
    }
    let (_, plan) = plain("m=audio 65535 RTP/AVP 0");
    assert_eq!(plan.remote_rtcp.port(), 65_535);
}

#[test]
fn packet_times_are_kept_within_reason() {
    for (lines, ms) in [
        ("", 20),
        ("a=ptime:10", 10),
        ("a=ptime:30", 30),
        ("a=ptime:40", 40),
        ("a=ptime:60", 60),
        ("a=ptime:0", 20),
        ("a=ptime:-5", 20),
        ("a=ptime:20.0", 20),
        ("a=ptime:25", 20),
        ("a=ptime:4294967295", 60),
        ("a=ptime:99999999999999", 20),
        ("a=maxptime:10", 10),
        ("a=maxptime:150", 20),
        ("a=ptime:60\na=maxptime:30", 30),
        ("a=maxptime:1", 10),
    ] {
        assert_eq!(plain(&format!("m=audio 4000 RTP/AVP 0\n{lines}")).1.ptime_ms, ms, "{lines}");
    }
}

#[test]
fn ipv6_both_ways() {
    let local = Local { address: "2001:db8::5".parse().unwrap(), port: 20_000, session_id: 1 };
    let mut leg = Negotiation::new(capabilities(Encryption::Disable), local);
    let offer = "v=0\r\nc=IN IP6 2001:db8::1\r\nm=audio 4000 RTP/AVP 0\r\n";
    let (text, plan) = answer(&mut leg, offer).unwrap();
    assert_eq!(plan.remote, "[2001:db8::1]:4000".parse().unwrap());
    assert_has(&text, "c=IN IP6 2001:db8::5");
    let offer = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n";
    assert_eq!(refusal(&mut leg, offer), Some(Incompatible::AddressFamily));
}

#[test]
fn a_delayed_offer_is_answered_in_the_ack() {
    let mut leg = leg(Encryption::Disable);
    let text = String::from_utf8(leg.offer(&mut counting())).unwrap();
    assert_has(&text, "m=audio 20000 RTP/AVP 0 8 101");
    let answer =
        described("m=audio 4000 RTP/AVP 8 126\na=rtpmap:126 telephone-event/8000\na=ptime:30");
    let plan = leg.accept(answer.as_bytes()).unwrap();
    assert_eq!((plan.codec, plan.payload_type, plan.ptime_ms), (Codec::Pcma, 8, 30));
    assert_eq!((plan.dtmf_payload, plan.dtmf_receive_payload), (Some(126), Some(101)));
}

#[test]
fn answers_may_repeat_or_differ_by_fork() {
    let mut leg = leg(Encryption::Disable);
    leg.offer(&mut counting());
    let early = described("m=audio 4000 RTP/AVP 0");
    let other = described("m=audio 5000 RTP/AVP 8");
    assert_eq!(leg.accept(early.as_bytes()).unwrap().remote.port(), 4000);
    assert_eq!(leg.accept(early.as_bytes()).unwrap().remote.port(), 4000);
    let plan = leg.accept(other.as_bytes()).unwrap();
    assert_eq!((plan.remote.port(), plan.codec), (5000, Codec::Pcma));
}

#[test]
fn a_useless_answer_leaves_room_for_a_better_one() {
    let mut leg = leg(Encryption::Disable);
    leg.offer(&mut counting());
    for (answer, why) in [
        ("m=audio 0 RTP/AVP 0", Incompatible::NoAudio),
        ("m=video 4000 RTP/AVP 0", Incompatible::NoAudio),
        ("m=audio 4000 RTP/AVP 18", Incompatible::NoCodec),
        ("", Incompatible::NoAudio),
    ] {
        assert_eq!(leg.accept(described(answer).as_bytes()).err(), Some(why), "{answer}");
    }
    assert!(leg.accept(described("m=audio 4000 RTP/AVP 0").as_bytes()).is_ok());
}

#[test]
fn offers_that_cross_are_out_of_turn() {
    let mut leg = leg(Encryption::Disable);
    let offer = described("m=audio 4000 RTP/AVP 0");
    assert_eq!(leg.accept(offer.as_bytes()).err(), Some(Incompatible::OutOfTurn));
    leg.offer(&mut counting());
    assert_eq!(refusal(&mut leg, &offer), Some(Incompatible::OutOfTurn));
    leg.withdraw();
    assert_eq!(refusal(&mut leg, &offer), None);
    leg.offer(&mut counting());
    leg.accept(offer.as_bytes()).unwrap();
    assert_eq!(refusal(&mut leg, &offer), None, "an answered offer is no open one");
}

#[test]
fn our_later_offer_keeps_the_lines_of_the_call() {
    let mut leg = leg(Encryption::Disable);
    let offer = described(
        "m=video 5000 RTP/AVP 31\nm=audio 4000 RTP/AVP 8 97\na=rtpmap:97 telephone-event/8000\na=mid:a1",
    );
    answer(&mut leg, &offer).unwrap();
    leg.set_direction(Direction::SendOnly);
    let text = String::from_utf8(leg.offer(&mut counting())).unwrap();
    assert_eq!(media_lines(&text), ["m=video 0 RTP/AVP 31", "m=audio 20000 RTP/AVP 8 0 97"]);
    assert_has(&text, "a=sendonly");
    assert_has(&text, "a=mid:a1");
    let reply = described("m=video 0 RTP/AVP 31\nm=audio 4000 RTP/AVP 8\na=recvonly");
    let plan = leg.accept(reply.as_bytes()).unwrap();
    assert!(plan.send && !plan.receive);
}

#[test]
fn a_hold_that_is_refused_is_taken_back_and_one_that_is_answered_stays() {
    let mut leg = leg(Encryption::Disable);
    let offer = described("m=audio 4000 RTP/AVP 0");
    answer(&mut leg, &offer).unwrap();
    leg.set_direction(Direction::SendOnly);
    let text = String::from_utf8(leg.offer(&mut counting())).unwrap();
    assert_has(&text, "a=sendonly");
    leg.withdraw();
    assert_has(&answer(&mut leg, &offer).unwrap().0, "a=sendrecv");
    leg.set_direction(Direction::SendOnly);
    leg.offer(&mut counting());
    let plan = leg.accept(described("m=audio 4000 RTP/AVP 0\na=recvonly").as_bytes()).unwrap();
    assert!(plan.send && !plan.receive);
    leg.withdraw();
    assert_has(&answer(&mut leg, &offer).unwrap().0, "a=sendonly");
}

#[test]
fn codecs_are_offered_in_our_order() {
    for (codecs, media) in [
        (vec![Codec::Pcma, Codec::Pcmu], "m=audio 20000 RTP/AVP 8 0 101"),
        (vec![Codec::Pcmu, Codec::Pcma], "m=audio 20000 RTP/AVP 0 8 101"),
        (vec![Codec::Pcma], "m=audio 20000 RTP/AVP 8 101"),
    ] {
        let mut leg = leg(Encryption::Disable);
        leg.capabilities.codecs = codecs;
        assert_has(&String::from_utf8(leg.offer(&mut counting())).unwrap(), media);
    }
}
