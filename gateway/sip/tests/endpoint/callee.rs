//! Called from outside: RFC 3261 §8.2, §9.2, §13.3.

use sip::Transport;
use sip::endpoint::{CommandError, Event, Options, Reply, Trust};

use crate::support::*;

#[test]
fn an_invite_gets_a_100_at_once_and_the_call_goes_up() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    let trying = solo.one();
    assert_eq!(first_line(&trying), "SIP/2.0 100 Trying");
    assert_eq!(to_tag(&trying), "");
    assert!(header(&trying, "Via").contains(";rport=5060;branch=z9hG4bKinv1;received=192.0.2.9"));
    let early = solo.answer(tx, 180).unwrap();
    let ringing = solo.one();
    assert_eq!(header(&ringing, "Contact"), OUR_CONTACT);
    assert_eq!(solo.answer(tx, 200), Some(early));
    let ok = solo.one();
    assert!(!to_tag(&ok).is_empty());
    assert_eq!(to_tag(&ok), to_tag(&ringing));
    for name in ["From", "Call-ID", "CSeq"] {
        assert_eq!(header(&ok, name), header(&invite(), name));
    }
}

#[test]
fn a_repeated_invite_gets_the_last_response_again_byte_for_byte() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.answer(tx, 180);
    let sent = solo.sent();
    solo.say(&invite());
    assert_eq!(solo.one(), sent[1]);
    assert!(solo.events().is_empty());
}

#[test]
fn a_merged_request_gets_482_and_makes_no_second_call() {
    let mut solo = Solo::new();
    solo.invited(&invite());
    solo.sent();
    solo.say(&opening("INVITE", "z9hG4bKother", ""));
    assert_eq!(first_line(&solo.one()), "SIP/2.0 482 Loop Detected");
    assert!(solo.events().is_empty());
}

#[test]
fn what_a_request_requires_in_vain_is_named_exactly() {
    let options = Options { supported: vec!["timer".into()], ..Options::default() };
    let mut solo = Solo::with(options, Transport::Udp);
    solo.say(&opening("INVITE", "z9hG4bK1", "Require: 100rel, Timer\r\nRequire: siprec\r\n"));
    let refused = solo.one();
    assert_eq!(first_line(&refused), "SIP/2.0 420 Bad Extension");
    assert_eq!(header(&refused, "Unsupported"), "100rel, siprec");
    assert!(!to_tag(&refused).is_empty());
    assert!(solo.events().is_empty());
    assert_eq!(solo.endpoint.poll_refused().map(|refused| refused.status), Some(420));
    solo.invited(&opening("INVITE", "z9hG4bK2", "Require: timer\r\n"));
    assert!(solo.endpoint.poll_refused().is_none());
}

#[test]
fn require_is_no_reason_to_refuse_ack_and_cancel() {
    let mut solo = Solo::new();
    solo.invited(&invite());
    solo.sent();
    solo.say(&opening("CANCEL", "z9hG4bKinv1", "Require: nothing\r\n"));
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK", "SIP/2.0 487 Request Terminated"]);
    let _ = solo.events();
    solo.say(&opening("ACK", "z9hG4bKinv1", "Require: nothing\r\n"));
    solo.pass(40_000);
    assert!(solo.lines().is_empty());
}

#[test]
fn a_stateless_refusal_is_the_same_when_it_is_asked_for_again() {
    let mut solo = Solo::new();
    let text = opening("INVITE", "z9hG4bK1", "Require: 100rel\r\n");
    solo.say(&text);
    let first = solo.one();
    solo.say(&text);
    assert_eq!(solo.one(), first);
    assert_eq!(solo.endpoint.load().server_transactions, 0);
}

#[test]
fn methods_we_do_not_take_get_405_and_unknown_ones_501_with_allow() {
    let mut solo = Solo::new();
    solo.say(&opening("PUBLISH", "z9hG4bK1", ""));
    solo.say(&opening("DANCE", "z9hG4bK2", ""));
    let sent = solo.sent();
    assert_eq!(first_line(&sent[0]), "SIP/2.0 405 Method Not Allowed");
    assert_eq!(first_line(&sent[1]), "SIP/2.0 501 Not Implemented");
    for text in &sent {
        assert!(header(text, "Allow").starts_with("INVITE, ACK, CANCEL, BYE"));
    }
    assert!(solo.events().is_empty());
}

#[test]
fn unknown_schemes_get_416_and_packed_bodies_415() {
    let mut solo = Solo::new();
    solo.say(
        &opening("INVITE", "z9hG4bK1", "")
            .replace("INVITE sip:agent@192.0.2.1", "INVITE soap.beep://x"),
    );
    solo.say(&opening("INVITE", "z9hG4bK2", "Content-Encoding: gzip\r\n"));
    let sent = solo.sent();
    assert_eq!(first_line(&sent[0]), "SIP/2.0 416 Unsupported URI Scheme");
    assert_eq!(first_line(&sent[1]), "SIP/2.0 415 Unsupported Media Type");
    assert_eq!(header(&sent[1], "Accept-Encoding"), "identity");
}

#[test]
fn malformed_requests_get_400_and_are_reported() {
    let mut solo = Solo::new();
    solo.say(&invite().replace("Call-ID: call-1\r\n", ""));
    assert!(solo.one().starts_with("SIP/2.0 400 Missing Call-ID Header Field\r\n"));
    assert!(matches!(solo.event(), Event::Malformed { .. }));
    solo.say("nonsense\r\n\r\n");
    assert!(solo.sent().is_empty());
    assert!(matches!(solo.event(), Event::Malformed { .. }));
}

#[test]
fn a_cancel_gets_200_and_the_invite_487_once() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.answer(tx, 180);
    let tag = to_tag(&solo.sent()[1]);
    let cancel = opening("CANCEL", "z9hG4bKinv1", "Reason: SIP;cause=200\r\n");
    solo.say(&cancel);
    let sent = solo.sent();
    assert_eq!(first_line(&sent[0]), "SIP/2.0 200 OK");
    assert_eq!(first_line(&sent[1]), "SIP/2.0 487 Request Terminated");
    assert!(sent.iter().all(|text| to_tag(text) == tag));
    let Event::Cancelled { tx: cancelled, request } = solo.event() else { panic!() };
    assert_eq!(cancelled, tx);
    assert_eq!(request.header(sip::HeaderName::Reason), Some(&b"SIP;cause=200"[..]));
    assert_eq!(solo.endpoint.load().dialogs, 0);
    let late = solo.endpoint.respond(solo.now, tx, Reply::new(486));
    assert_eq!(late, Err(CommandError::AlreadyAnswered));
    solo.say(&cancel);
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK"]);
    assert!(solo.events().is_empty());
}

#[test]
fn a_cancel_of_nothing_gets_481() {
    let mut solo = Solo::new();
    solo.say(&opening("CANCEL", "z9hG4bKnone", ""));
    assert_eq!(solo.lines(), ["SIP/2.0 481 Call/Transaction Does Not Exist"]);
}

#[test]
fn a_cancel_after_the_final_response_changes_nothing() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.answer(tx, 200);
    solo.sent();
    solo.say(&opening("CANCEL", "z9hG4bKinv1", ""));
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK"]);
    assert!(solo.events().is_empty());
    assert_eq!(solo.endpoint.load().dialogs, 1);
}

#[test]
fn an_invite_ends_when_its_own_expires_runs_out() {
    let mut solo = Solo::new();
    let tx = solo.invited(&opening("INVITE", "z9hG4bKinv1", "Expires: 20\r\n"));
    solo.answer(tx, 180);
    solo.sent();
    solo.pass(20_000);
    assert_eq!(solo.lines(), ["SIP/2.0 487 Request Terminated"]);
    assert!(matches!(solo.event(), Event::Cancelled { .. }));
}

#[test]
fn a_peer_of_rfc_2543_has_one_transaction_and_its_ack_matches() {
    let mut solo = Solo::new();
    let text = "INVITE sip:UserB@example.com SIP/2.0\r\nVia: SIP/2.0/UDP iftgw.example.com\r\n\
                From: <sip:+13035551111@ift.client.example.net;user=phone>\r\n\
                Record-Route: <sip:UserB@example.com;maddr=ss1.example.com>\r\n\
                To: sip:+16505552222@ss1.example.net;user=phone\r\nCall-ID: inv2543.1717@ift\r\n\
                CSeq: 56 INVITE\r\nContent-Length: 0\r\n\r\n";
    let tx = solo.invited(text);
    solo.say(text);
    assert!(solo.events().is_empty());
    assert_eq!(solo.endpoint.load().server_transactions, 1);
    solo.answer(tx, 486);
    let tag = to_tag(solo.sent().last().unwrap());
    let ack = text
        .replace("INVITE", "ACK")
        .replace(";user=phone\r\nCall", &format!(";user=phone;tag={tag}\r\nCall"));
    solo.say(&ack.replace(&tag, "wrong"));
    solo.pass(500);
    assert_eq!(solo.lines(), ["SIP/2.0 486 Busy Here"], "a wrong ACK stops nothing");
    solo.say(&ack);
    solo.pass(40_000);
    assert!(solo.sent().is_empty());
    assert_eq!(solo.endpoint.load().server_transactions, 0);
}

#[test]
fn other_requests_go_up_and_their_answers_are_kept() {
    let mut solo = Solo::new();
    let options = opening("OPTIONS", "z9hG4bK1", "").replace("Max-Forwards: 70", "Max-Forwards: 0");
    solo.say(&options);
    assert!(solo.sent().is_empty());
    let Event::Request { tx, request, .. } = solo.event() else { panic!() };
    assert_eq!(request.max_forwards(), Some(0));
    let early = solo.endpoint.respond(solo.now, tx, Reply::new(180));
    assert_eq!(early, Err(CommandError::NotAllowed));
    let timeout = solo.endpoint.respond(solo.now, tx, Reply::new(408));
    assert_eq!(timeout, Err(CommandError::NotAllowed));
    solo.answer(tx, 200);
    let answer = solo.one();
    solo.say(&options);
    assert_eq!(solo.one(), answer);
}

#[test]
fn commands_that_cannot_be_carried_out_change_nothing() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.sent();
    let now = solo.now;
    let bad =
        Reply { headers: &[("X-A", "a\r\nb")], contact: Some(OUR_CONTACT), ..Reply::new(200) };
    assert_eq!(solo.endpoint.respond(now, tx, bad), Err(CommandError::Unprintable));
    assert_eq!(solo.endpoint.respond(now, tx, Reply::new(200)), Err(CommandError::NoContact));
    assert_eq!(solo.endpoint.respond(now, tx, Reply::new(99)), Err(CommandError::NotAllowed));
    assert_eq!(solo.endpoint.respond(now, tx, Reply::new(700)), Err(CommandError::NotAllowed));
    assert_eq!(solo.endpoint.load().dialogs, 0);
    solo.answer(tx, 200);
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK"]);
}

#[test]
fn a_busy_endpoint_refuses_calls_that_begin_and_nothing_else() {
    let mut solo = Solo::new();
    let (_, tag) = solo.called();
    let ringing = opening("INVITE", "z9hG4bKringing", "").replace("Call-ID: ", "Call-ID: ringing-");
    solo.invited(&ringing);
    solo.sent();
    let held = solo.endpoint.load();
    solo.endpoint.set_busy(true);
    let another = opening("INVITE", "z9hG4bKanother", "").replace("Call-ID: ", "Call-ID: another-");
    solo.say(&another);
    let refusal = solo.one();
    assert!(refusal.starts_with("SIP/2.0 503 "), "{refusal}");
    assert_eq!(header(&refusal, "Retry-After"), "5");
    assert_eq!(solo.endpoint.poll_refused().map(|refused| refused.status), Some(503));
    assert_eq!(solo.endpoint.load(), held, "it has cost nothing that lasts");
    solo.trust = Trust::Stranger;
    solo.say(&another.replace("z9hG4bKanother", "z9hG4bKstranger"));
    assert_eq!(solo.sent(), Vec::<String>::new(), "a stranger learns nothing");
    assert!(solo.endpoint.poll_refused().is_none(), "and costs nothing");
    solo.trust = Trust::Known;
    solo.say(&opening("OPTIONS", "z9hG4bKoptions", ""));
    assert!(matches!(solo.event(), Event::Request { .. }));
    for (sequence, method) in (2..).zip(["INFO", "UPDATE", "BYE"]) {
        solo.say(&within(method, sequence, &tag, &format!("z9hG4bK{method}"), ""));
        assert!(matches!(solo.event(), Event::InDialog { .. }), "{method}");
    }
    solo.say(&ringing);
    assert_eq!(solo.lines(), ["SIP/2.0 100 Trying"], "it began before");
    solo.say(&ringing.replace("INVITE", "CANCEL"));
    assert!(matches!(solo.event(), Event::Cancelled { .. }));
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK", "SIP/2.0 487 Request Terminated"]);
    solo.endpoint.set_busy(false);
    solo.say(&another);
    assert_eq!(solo.one(), refusal, "its caller has gone");
    assert!(solo.endpoint.poll_refused().is_none(), "it has been told");
    solo.invited(&another.replace("z9hG4bKanother", "z9hG4bKnew"));
}

#[test]
fn a_full_endpoint_says_503_with_retry_after_and_recovers() {
    let options = Options { max_transactions: 2, max_dialogs: 1, ..Options::default() };
    let mut solo = Solo::with(options, Transport::Udp);
    for number in 0..3 {
        let call = format!("Call-ID: call-{number}");
        solo.say(
            &opening("INVITE", &format!("z9hG4bK{number}"), "").replace("Call-ID: call-1", &call),
        );
    }
    let sent = solo.sent();
    assert_eq!(first_line(&sent[2]), "SIP/2.0 503 Service Unavailable");
    assert_eq!(header(&sent[2], "Retry-After"), "5");
    let calls: Vec<_> = solo
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Invite { tx, .. } => tx,
            other => panic!("{other:?}"),
        })
        .collect();
    solo.answer(calls[0], 200);
    let reply = Reply { contact: Some(OUR_CONTACT), ..Reply::new(200) };
    assert_eq!(solo.endpoint.respond(solo.now, calls[1], reply), Err(CommandError::Full));
    solo.answer(calls[1], 503);
    solo.pass(64_000);
    assert_eq!(solo.endpoint.load().server_transactions, 0);
}
