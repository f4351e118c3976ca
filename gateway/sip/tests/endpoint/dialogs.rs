//! Inside a call the peer made: RFC 3261 §12.2, §14.2, §15.

use sip::endpoint::{CommandError, Content, Event, Reply};
use sip::{HeaderName, Method};

use crate::support::*;

#[test]
fn requests_with_tags_of_no_dialog_get_481() {
    let mut solo = Solo::new();
    for method in ["BYE", "INVITE", "UPDATE", "INFO", "OPTIONS"] {
        solo.say(&within(method, 2, "nobody", &format!("z9hG4bK{method}"), ""));
        assert_eq!(solo.lines(), ["SIP/2.0 481 Call/Transaction Does Not Exist"], "{method}");
    }
    solo.say(&within("ACK", 2, "nobody", "z9hG4bKack", ""));
    assert!(solo.sent().is_empty() && solo.events().is_empty());
    assert_eq!(solo.endpoint.load().server_transactions, 0);
}

#[test]
fn a_lower_number_gets_500_and_the_call_stays() {
    let mut solo = Solo::new();
    let (dialog, tag) = solo.called();
    solo.sent();
    solo.say(&within("INFO", 5, &tag, "z9hG4bK5", ""));
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 200);
    solo.sent();
    solo.say(&within("INFO", 4, &tag, "z9hG4bK4", ""));
    assert_eq!(solo.lines(), ["SIP/2.0 500 Server Internal Error"]);
    assert!(solo.events().is_empty());
    assert!(solo.endpoint.identity(dialog).is_some());
}

#[test]
fn the_ack_carries_its_body_up_once() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    let dialog = solo.answer(tx, 200).unwrap();
    let tag = to_tag(solo.sent().last().unwrap());
    let ack = within("ACK", 1, &tag, "z9hG4bKack", "Content-Type: application/sdp\r\n")
        .replace("Content-Length: 0\r\n\r\n", "Content-Length: 5\r\n\r\nv=0\r\n");
    solo.say(&ack);
    solo.say(&ack);
    let Event::Acked { dialog: acked, body } = solo.event() else { panic!() };
    assert_eq!((acked, body.as_deref()), (dialog, Some(OFFER)));
    solo.pass(40_000);
    assert!(solo.sent().is_empty());
}

#[test]
fn an_ack_with_the_branch_of_its_invite_is_understood() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.answer(tx, 200);
    let tag = to_tag(solo.sent().last().unwrap());
    solo.say(&within("ACK", 1, &tag, "z9hG4bKinv1", ""));
    assert!(matches!(solo.event(), Event::Acked { .. }));
}

#[test]
fn bye_ends_the_call_and_its_answer_is_repeated_for_32_seconds() {
    let mut solo = Solo::new();
    let (dialog, tag) = solo.called();
    solo.sent();
    let bye = within("BYE", 2, &tag, "z9hG4bKbye", "");
    solo.say(&bye);
    let Event::InDialog { dialog: ended, tx, request } = solo.event() else { panic!() };
    assert_eq!((ended, request.method()), (dialog, Method::Bye));
    solo.answer(tx, 200);
    let answer = solo.one();
    assert_eq!(solo.endpoint.identity(dialog), None);
    solo.pass(20_000);
    solo.say(&bye);
    assert_eq!(solo.one(), answer);
    solo.pass(60_000);
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn bye_gives_487_to_what_is_pending_in_the_dialog() {
    let mut solo = Solo::new();
    let (_, tag) = solo.called();
    solo.sent();
    solo.say(&within("INVITE", 2, &tag, "z9hG4bKre", ""));
    assert_eq!(solo.lines(), ["SIP/2.0 100 Trying"]);
    let Event::InDialog { .. } = solo.event() else { panic!() };
    solo.say(&within("BYE", 3, &tag, "z9hG4bKbye", ""));
    let refused = solo.one();
    assert_eq!(first_line(&refused), "SIP/2.0 487 Request Terminated");
    assert_eq!(header(&refused, "CSeq"), "2 INVITE");
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 200);
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK"]);
}

#[test]
fn a_caller_may_end_an_early_dialog_with_bye() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.answer(tx, 180);
    let tag = to_tag(solo.sent().last().unwrap());
    solo.say(&within("BYE", 2, &tag, "z9hG4bKbye", ""));
    assert_eq!(solo.lines(), ["SIP/2.0 487 Request Terminated"]);
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 200);
    assert_eq!(solo.endpoint.load().dialogs, 0);
}

#[test]
fn a_re_invite_is_answered_repeated_and_acknowledged_like_the_first() {
    let mut solo = Solo::new();
    let (dialog, tag) = solo.called();
    solo.sent();
    let contact = "Contact: <sip:moved@192.0.2.9:5090>\r\n";
    solo.say(&within("INVITE", 2, &tag, "z9hG4bKre", contact));
    let Event::InDialog { tx, request, .. } = solo.event() else { panic!() };
    assert_eq!(request.method(), Method::Invite);
    solo.answer(tx, 200);
    assert_eq!(solo.lines(), ["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]);
    solo.pass(500);
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK"]);
    solo.say(&within("ACK", 2, &tag, "z9hG4bKreack", ""));
    assert!(matches!(solo.event(), Event::Acked { .. }));
    solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    solo.drain();
    assert_eq!(first_line(&solo.one()), "BYE sip:moved@192.0.2.9:5090 SIP/2.0");
}

#[test]
fn a_refused_re_invite_leaves_the_call_as_it_was() {
    let mut solo = Solo::new();
    let (dialog, tag) = solo.called();
    solo.say(&within("INVITE", 2, &tag, "z9hG4bKre", ""));
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 488);
    solo.say(&within("ACK", 2, &tag, "z9hG4bKre", ""));
    assert!(solo.endpoint.identity(dialog).is_some());
    solo.say(&within("INVITE", 3, &tag, "z9hG4bKre3", ""));
    assert!(matches!(solo.event(), Event::InDialog { .. }));
}

#[test]
fn a_second_invite_gets_500_with_retry_after_while_the_first_is_open() {
    let mut solo = Solo::new();
    let (_, tag) = solo.called();
    solo.say(&within("INVITE", 2, &tag, "z9hG4bKre2", ""));
    let _ = solo.events();
    solo.sent();
    solo.say(&within("INVITE", 3, &tag, "z9hG4bKre3", ""));
    let refused = solo.one();
    assert_eq!(first_line(&refused), "SIP/2.0 500 Server Internal Error");
    assert!(header(&refused, "Retry-After").parse::<u32>().unwrap() <= 10);
    assert!(solo.events().is_empty());
}

#[test]
fn an_invite_that_meets_ours_gets_491_and_ours_can_be_sent_again() {
    let mut solo = Solo::new();
    let (dialog, tag) = solo.called();
    solo.sent();
    let body = Content { body: Some(("application/sdp", OFFER)), ..Content::default() };
    let tx = solo.endpoint.request(solo.now, dialog, Method::Invite, body).unwrap();
    solo.drain();
    let ours = solo.one();
    assert_eq!(header(&ours, "Contact"), OUR_CONTACT);
    solo.say(&within("INVITE", 2, &tag, "z9hG4bKre", ""));
    assert_eq!(solo.lines(), ["SIP/2.0 491 Request Pending"]);
    let twice = solo.endpoint.request(solo.now, dialog, Method::Invite, body);
    assert_eq!(twice, Err(CommandError::Pending));
    solo.say(&response(&ours, 491, "", ""));
    assert_eq!(solo.lines(), ["ACK sip:carrier@192.0.2.9:5060 SIP/2.0"]);
    assert_eq!(answered(&solo.event()), (491, Some(dialog)));
    solo.pass(2_500);
    solo.sent();
    let again = solo.endpoint.retry_with(solo.now, tx, &[]).unwrap();
    assert_ne!(again, tx);
    solo.drain();
    let again = solo.one();
    assert_eq!(header(&again, "CSeq"), "2 INVITE");
    assert_ne!(branch(&again), branch(&ours));
    assert!(again.ends_with("\r\nContent-Length: 5\r\n\r\nv=0\r\n"));
}

#[test]
fn our_requests_follow_the_route_set_on_the_flow_of_the_dialog() {
    let mut solo = Solo::new();
    let routes = "Record-Route: <sip:p2.example.com;lr>, <sip:p1.example.com;lr>\r\n";
    let tx = solo.invited(&opening("INVITE", "z9hG4bKinv1", routes));
    let dialog = solo.answer(tx, 200).unwrap();
    let ok = solo.sent().pop().unwrap();
    assert_eq!(headers(&ok, "Record-Route").len(), 1);
    solo.say(&within("ACK", 1, &to_tag(&ok), "z9hG4bKack", ""));
    let content = Content { headers: &[("X-Note", "1")], body: Some(("text/plain", b"hello")) };
    solo.endpoint.request(solo.now, dialog, Method::Info, content).unwrap();
    solo.drain();
    let info = solo.one();
    assert_eq!(first_line(&info), "INFO sip:carrier@192.0.2.9:5060 SIP/2.0");
    assert_eq!(headers(&info, "Route"), ["<sip:p2.example.com;lr>", "<sip:p1.example.com;lr>"]);
    assert_eq!(header(&info, "From"), format!("<sip:agent@192.0.2.1>;tag={}", to_tag(&ok)));
    assert_eq!(header(&info, "To"), "<sip:carrier@192.0.2.9>;tag=theirs");
    assert_eq!(request(&info).header(HeaderName::ContentLength), Some(&b"5"[..]));
}

#[test]
fn a_strict_router_is_obeyed() {
    let mut solo = Solo::new();
    let tx =
        solo.invited(&opening("INVITE", "z9hG4bKinv1", "Record-Route: <sip:old.example.com>\r\n"));
    let dialog = solo.answer(tx, 200).unwrap();
    let tag = to_tag(solo.sent().last().unwrap());
    solo.say(&within("ACK", 1, &tag, "z9hG4bKack", ""));
    solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    solo.drain();
    let bye = solo.one();
    assert_eq!(first_line(&bye), "BYE sip:old.example.com SIP/2.0");
    assert_eq!(header(&bye, "Route"), "<sip:carrier@192.0.2.9:5060>");
}

#[test]
fn our_bye_waits_for_the_ack_of_our_2xx() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    let dialog = solo.answer(tx, 200).unwrap();
    let tag = to_tag(solo.sent().last().unwrap());
    let bye = solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    solo.drain();
    assert!(solo.sent().is_empty());
    solo.say(&within("ACK", 1, &tag, "z9hG4bKack", ""));
    let sent = solo.one();
    assert!(sent.starts_with("BYE "));
    let _ = solo.events();
    solo.say(&response(&sent, 200, "", ""));
    let Event::Response { tx, dialog: ended, .. } = solo.event() else { panic!() };
    assert_eq!((tx, ended), (bye, Some(dialog)));
    assert_eq!(solo.endpoint.identity(dialog), None);
}

#[test]
fn byes_that_cross_both_end_the_call() {
    let mut solo = Solo::new();
    let (dialog, tag) = solo.called();
    solo.sent();
    solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    solo.drain();
    let ours = solo.one();
    solo.say(&within("BYE", 2, &tag, "z9hG4bKbye", ""));
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 200);
    solo.say(&response(&ours, 481, "", ""));
    assert_eq!(answered(&solo.event()).0, 481);
    solo.pass(60_000);
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn the_callee_cannot_say_bye_before_it_has_answered() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    let dialog = solo.answer(tx, 183).unwrap();
    let early = solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default());
    assert_eq!(early, Err(CommandError::NotAllowed));
    let ack = solo.endpoint.request(solo.now, dialog, Method::Ack, Content::default());
    assert_eq!(ack, Err(CommandError::NotAllowed));
    let update = solo.endpoint.request(solo.now, dialog, Method::Update, Content::default());
    assert!(update.is_ok());
}

#[test]
fn answers_follow_a_peer_that_comes_back_on_another_connection() {
    let mut solo = Solo::with(sip::Options::default(), sip::Transport::Tcp);
    let (dialog, tag) = solo.called();
    solo.sent();
    let mut newer = solo.flow;
    newer.connection = 9;
    newer.remote.set_port(40_000);
    solo.flow = newer;
    solo.say(&within("INFO", 2, &tag, "z9hG4bKinfo", ""));
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.endpoint.respond(solo.now, tx, Reply::new(200)).unwrap();
    solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    for _ in 0..2 {
        assert_eq!(solo.endpoint.poll_transmit().unwrap().flow, newer);
    }
}

#[test]
fn a_dialog_whose_connection_broke_goes_on_over_another_one() {
    let mut solo = Solo::with(sip::Options::default(), sip::Transport::Tls);
    let (dialog, _) = solo.connected();
    let broken = solo.flow;
    solo.endpoint.handle_flow_failed(solo.now, &broken);
    let newer = sip::Flow { connection: 9, ..broken };
    let clear = sip::Flow { transport: sip::Transport::Tcp, ..newer };
    assert_eq!(solo.endpoint.move_dialog(dialog, clear), Err(CommandError::NotAllowed));
    assert_eq!(solo.endpoint.flow_of(dialog), Some(broken));
    solo.endpoint.move_dialog(dialog, newer).unwrap();
    assert_eq!(solo.endpoint.flow_of(dialog), Some(newer));
    let bye = solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    assert_eq!(solo.endpoint.poll_transmit().unwrap().flow, newer);
    solo.endpoint.handle_flow_failed(solo.now, &newer);
    solo.drain();
    let Event::Failed { tx, .. } = solo.event() else { panic!() };
    assert_eq!(tx, bye);
    solo.endpoint.forget(dialog);
    assert_eq!(solo.endpoint.move_dialog(dialog, newer), Err(CommandError::Gone));
    assert_eq!(solo.endpoint.flow_of(dialog), None);
}

#[test]
fn a_bye_that_is_held_back_moves_with_its_dialog() {
    let mut solo = Solo::with(sip::Options::default(), sip::Transport::Tcp);
    let tx = solo.invited(&invite());
    let dialog = solo.answer(tx, 200).unwrap();
    let tag = to_tag(solo.sent().last().unwrap());
    solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    let newer = sip::Flow { connection: 9, ..solo.flow };
    solo.endpoint.move_dialog(dialog, newer).unwrap();
    solo.flow = newer;
    let ack = within("ACK", 1, &tag, "z9hG4bKack", "").into_bytes();
    solo.endpoint.handle_message(solo.now, newer, ack.into(), sip::endpoint::Trust::Known);
    let sent = solo.endpoint.poll_transmit().unwrap();
    assert!(sent.bytes.starts_with(b"BYE ") && sent.flow == newer);
}
