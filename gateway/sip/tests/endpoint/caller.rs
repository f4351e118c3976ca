//! Calling others: RFC 3261 §8.1, §9.1, §13.2, §17.1.1.3.

use sip::endpoint::{CommandError, Content, Event, Failure, OutOfDialog};
use sip::{Method, Transport};

use crate::support::*;

#[test]
fn our_invite_has_everything_a_request_must_have() {
    let mut solo = Solo::new();
    let (_, text) = solo.call();
    assert_eq!(first_line(&text), "INVITE sip:bob@example.com SIP/2.0");
    let via = header(&text, "Via");
    assert!(via.starts_with("SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK"), "{via}");
    assert!(header(&text, "From").starts_with("<sip:us@example.net>;tag="));
    assert_eq!(header(&text, "To"), "<sip:bob@example.com>");
    assert_eq!(header(&text, "CSeq"), "1 INVITE");
    assert_eq!(header(&text, "Max-Forwards"), "70");
    assert_eq!(header(&text, "Contact"), OUR_CONTACT);
    assert_eq!(header(&text, "Route"), "<sip:edge.example.com;lr>");
    assert!(!header(&text, "Call-ID").contains(['@', '.']), "no address of ours");
    assert!(text.ends_with("Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"));
}

#[test]
fn our_tags_and_branches_are_fresh_and_name_our_node() {
    let options = sip::Options { node: 0xbeef, ..Default::default() };
    let mut solo = Solo::with(options, Transport::Udp);
    let (_, one) = solo.call();
    let (_, two) = solo.call();
    for name in ["From", "Call-ID", "Via"] {
        assert_ne!(header(&one, name), header(&two, name));
    }
    let tag = header(&one, "From").split_once(";tag=").unwrap().1.to_owned();
    assert!(tag.starts_with("beef") && tag.len() == 24, "{tag}");
    assert!(header(&one, "Call-ID").starts_with("beef"));
    assert!(branch(&one).starts_with("z9hG4bKbeef"));
}

#[test]
fn the_ack_of_a_refusal_follows_the_invite_hop_by_hop() {
    let mut solo = Solo::new();
    let (tx, invite) = solo.call();
    let busy = response(&invite, 486, "callee", "");
    solo.say(&busy);
    let ack = solo.one();
    assert_eq!(first_line(&ack), "ACK sip:bob@example.com SIP/2.0");
    assert_eq!(headers(&ack, "Via"), headers(&invite, "Via"));
    for name in ["Route", "From", "Call-ID"] {
        assert_eq!(header(&ack, name), header(&invite, name));
    }
    assert_eq!(header(&ack, "CSeq"), "1 ACK");
    assert_eq!(to_tag(&ack), "callee");
    let Event::Response { tx: answered, dialog: None, .. } = solo.event() else { panic!() };
    assert_eq!(answered, tx);
    solo.say(&busy);
    assert_eq!(solo.one(), ack);
    assert!(solo.events().is_empty());
}

#[test]
fn each_to_tag_is_a_dialog_of_its_own() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    solo.say(&response(&invite, 100, "", ""));
    assert_eq!(answered(&solo.event()), (100, None));
    let mut early = |tag: &str, status: u16| {
        solo.say(&response(&invite, status, tag, CONTACT));
        answered(&solo.event()).1.unwrap()
    };
    let one = early("one", 180);
    let two = early("two", 183);
    assert_eq!(early("one", 183), one);
    assert_ne!(one, two);
    assert_eq!(early("two", 200), two);
    assert_eq!(early("one", 200), one);
    for dialog in [one, two] {
        solo.endpoint.ack(solo.now, dialog, None).unwrap();
    }
    solo.endpoint.request(solo.now, one, Method::Bye, Content::default()).unwrap();
    solo.drain();
    let sent = solo.sent();
    assert_eq!(sent.iter().map(|text| to_tag(text)).collect::<Vec<_>>(), ["one", "two", "one"]);
}

#[test]
fn early_dialogs_end_with_the_refusal_of_their_invite() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    for tag in ["one", "two"] {
        solo.say(&response(&invite, 180, tag, CONTACT));
    }
    assert_eq!(solo.endpoint.load().dialogs, 2);
    solo.say(&response(&invite, 486, "one", ""));
    assert_eq!(solo.endpoint.load().dialogs, 0);
}

#[test]
fn early_dialogs_that_never_became_calls_end_when_no_2xx_can_come_any_more() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    solo.say(&response(&invite, 180, "one", CONTACT));
    solo.say(&response(&invite, 200, "two", CONTACT));
    assert_eq!(solo.endpoint.load().dialogs, 2);
    solo.pass(32_000);
    assert_eq!(solo.endpoint.load().dialogs, 1);
}

#[test]
fn the_ack_of_a_2xx_is_a_request_of_the_dialog_and_is_repeated_with_it() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    let more = format!("Record-Route: <sip:p2;lr>\r\nRecord-Route: <sip:p1;lr>\r\n{CONTACT}");
    let ok = response(&invite, 200, "callee", &more);
    solo.say(&ok);
    let (_, dialog) = answered(&solo.event());
    let dialog = dialog.unwrap();
    solo.say(&ok);
    assert!(solo.sent().is_empty() && solo.events().is_empty(), "the application has not answered");
    solo.endpoint.ack(solo.now, dialog, Some(("application/sdp", OFFER))).unwrap();
    solo.drain();
    let ack = solo.one();
    assert_eq!(first_line(&ack), "ACK sip:bob@192.0.2.9:5070 SIP/2.0");
    assert_eq!(headers(&ack, "Route"), ["<sip:p1;lr>", "<sip:p2;lr>"]);
    assert_ne!(branch(&ack), branch(&invite));
    assert!(ack.ends_with("\r\n\r\nv=0\r\n"));
    solo.say(&ok);
    assert_eq!(solo.one(), ack);
    assert!(solo.events().is_empty());
    assert_eq!(solo.endpoint.ack(solo.now, dialog, None), Err(CommandError::NotAllowed));
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut solo = Solo::new();
    let (tx, invite) = solo.call();
    solo.endpoint.cancel_with(solo.now, tx, &[("Reason", "SIP;cause=200")]).unwrap();
    solo.drain();
    assert!(solo.sent().is_empty());
    solo.say(&response(&invite, 100, "", ""));
    let cancel = solo.one();
    assert_eq!(first_line(&cancel), "CANCEL sip:bob@example.com SIP/2.0");
    assert_eq!(headers(&cancel, "Via"), headers(&invite, "Via"));
    assert_eq!(header(&cancel, "CSeq"), "1 CANCEL");
    assert_eq!(header(&cancel, "Route"), header(&invite, "Route"));
    assert_eq!(header(&cancel, "Reason"), "SIP;cause=200");
    assert_eq!(to_tag(&cancel), "");
    let _ = solo.events();
    solo.say(&response(&cancel, 200, "callee", ""));
    assert!(solo.events().is_empty(), "the answer to CANCEL is nobody's business");
    solo.say(&response(&invite, 487, "callee", ""));
    assert_eq!(answered(&solo.event()).0, 487);
    assert!(solo.one().starts_with("ACK "));
}

#[test]
fn a_callee_that_never_spoke_is_sent_no_cancel() {
    let mut solo = Solo::new();
    let (tx, _) = solo.call();
    solo.endpoint.cancel(solo.now, tx).unwrap();
    solo.pass(40_000);
    assert!(solo.lines().iter().all(|line| line.starts_with("INVITE ")));
    assert!(matches!(solo.event(), Event::Failed { why: Failure::Timeout, .. }));
}

#[test]
fn a_cancelled_invite_is_given_up_32_seconds_after_its_cancel() {
    let mut solo = Solo::new();
    let (tx, invite) = solo.call();
    solo.say(&response(&invite, 180, "callee", CONTACT));
    solo.pass(100_000);
    solo.endpoint.cancel(solo.now, tx).unwrap();
    solo.drain();
    let _ = solo.events();
    solo.pass(131_999);
    assert!(solo.events().is_empty());
    solo.pass(132_000);
    assert!(matches!(solo.event(), Event::Failed { why: Failure::Timeout, .. }));
    solo.pass(140_000);
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn a_2xx_that_crosses_our_cancel_gets_ack_and_bye() {
    let mut solo = Solo::new();
    let (tx, invite) = solo.call();
    solo.say(&response(&invite, 180, "callee", CONTACT));
    solo.endpoint.cancel(solo.now, tx).unwrap();
    solo.drain();
    assert!(solo.lines()[0].starts_with("CANCEL "));
    let _ = solo.events();
    let ok = response(&invite, 200, "callee", CONTACT);
    solo.say(&ok);
    let sent = solo.sent();
    assert_eq!(first_line(&sent[0]), "ACK sip:bob@192.0.2.9:5070 SIP/2.0");
    assert_eq!(first_line(&sent[1]), "BYE sip:bob@192.0.2.9:5070 SIP/2.0");
    assert_eq!(header(&sent[1], "CSeq"), "2 BYE");
    assert!(matches!(solo.event(), Event::Failed { why: Failure::Cancelled, .. }));
    solo.say(&ok);
    assert_eq!(solo.lines(), [first_line(&sent[0])]);
    solo.say(&response(&sent[1], 200, "", ""));
    assert!(solo.events().is_empty());
    assert_eq!(solo.endpoint.load().dialogs, 0);
    // A second callee that has accepted too, after that.
    solo.say(&response(&invite, 200, "other", CONTACT));
    assert_eq!(solo.lines().len(), 2);
    assert!(solo.events().is_empty());
}

#[test]
fn an_accepted_invite_cannot_be_cancelled() {
    let mut solo = Solo::new();
    let (tx, invite) = solo.call();
    solo.say(&response(&invite, 200, "callee", CONTACT));
    assert_eq!(solo.endpoint.cancel(solo.now, tx), Err(CommandError::AlreadyAnswered));
}

#[test]
fn a_challenged_request_is_sent_again_with_the_next_number() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut solo = Solo::with(Default::default(), transport);
        let (tx, invite) = solo.call();
        solo.say(&response(&invite, 401, "callee", "WWW-Authenticate: Digest x\r\n"));
        assert_eq!(answered(&solo.event()).0, 401);
        solo.sent();
        let credentials = [("Authorization", "Digest username=\"us\"")];
        let again = solo.endpoint.retry_with(solo.now, tx, &credentials).unwrap();
        solo.drain();
        let text = solo.one();
        for name in ["From", "To", "Call-ID", "Contact", "Route"] {
            assert_eq!(header(&text, name), header(&invite, name));
        }
        assert_eq!(header(&text, "CSeq"), "2 INVITE");
        assert_eq!(header(&text, "Authorization"), "Digest username=\"us\"");
        assert_ne!(branch(&text), branch(&invite));
        solo.say(&response(&text, 200, "callee", CONTACT));
        let Event::Response { tx, dialog: Some(dialog), .. } = solo.event() else { panic!() };
        assert_eq!(tx, again);
        solo.endpoint.ack(solo.now, dialog, None).unwrap();
        solo.drain();
        let ack = solo.one();
        assert_eq!(header(&ack, "CSeq"), "2 ACK");
        assert_eq!(header(&ack, "Authorization"), "Digest username=\"us\"");
    }
}

#[test]
fn a_challenged_bye_can_be_sent_again_in_its_dialog() {
    let mut solo = Solo::new();
    let (dialog, _) = solo.connected();
    let tx = solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    solo.drain();
    let bye = solo.one();
    solo.say(&response(&bye, 407, "", "Proxy-Authenticate: Digest x\r\n"));
    assert_eq!(answered(&solo.event()), (407, Some(dialog)));
    let credentials = [("Proxy-Authorization", "Digest y")];
    solo.endpoint.retry_with(solo.now, tx, &credentials).unwrap();
    solo.drain();
    let again = solo.one();
    assert_eq!(header(&again, "CSeq"), "3 BYE");
    solo.say(&response(&again, 200, "", ""));
    assert_eq!(solo.endpoint.load().dialogs, 0);
}

#[test]
fn requests_outside_of_dialogs_are_answered_once() {
    let mut solo = Solo::new();
    let register = OutOfDialog {
        flow: solo.flow,
        method: Method::Register,
        request_uri: "sip:example.com",
        from: "<sip:us@example.com>",
        to: "<sip:us@example.com>",
        headers: &[("Contact", OUR_CONTACT), ("Expires", "3600")],
        body: None,
        sequence: Some(("registration-1", 41)),
    };
    let tx = solo.endpoint.request_outside(solo.now, register).unwrap();
    solo.drain();
    let text = solo.one();
    assert_eq!(header(&text, "Call-ID"), "registration-1");
    assert_eq!(header(&text, "CSeq"), "41 REGISTER");
    let ok = response(&text, 200, "r", "");
    solo.say(&ok);
    let Event::Response { tx: answered, dialog: None, .. } = solo.event() else { panic!() };
    assert_eq!(answered, tx);
    solo.say(&ok);
    assert!(solo.events().is_empty());
    let invite = OutOfDialog { method: Method::Invite, ..register };
    assert_eq!(solo.endpoint.request_outside(solo.now, invite), Err(CommandError::NotAllowed));
}

#[test]
fn what_cannot_be_printed_is_not_sent() {
    let mut solo = Solo::new();
    let good = OutOfDialog {
        flow: solo.flow,
        method: Method::Options,
        request_uri: "sip:x",
        from: "<sip:a@x>",
        to: "<sip:b@x>",
        headers: &[],
        body: None,
        sequence: None,
    };
    for bad in [
        OutOfDialog { request_uri: "sip:x y", ..good },
        OutOfDialog { to: "<sip:b@x>\r\nX: y", ..good },
        OutOfDialog { from: "\"unclosed <sip:a@x>", ..good },
        OutOfDialog { headers: &[("Bad Name", "x")], ..good },
        OutOfDialog { headers: &[("X", "a\0b")], ..good },
    ] {
        let refused = solo.endpoint.request_outside(solo.now, bad);
        assert_eq!(refused, Err(CommandError::Unprintable));
    }
    solo.drain();
    assert!(solo.sent().is_empty());
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn the_callee_may_end_and_change_the_call() {
    let mut solo = Solo::new();
    let (dialog, invite) = solo.connected();
    solo.say(&backwards("INVITE", 100, &invite, "callee"));
    let Event::InDialog { dialog: changed, tx, .. } = solo.event() else { panic!() };
    assert_eq!(changed, dialog);
    solo.answer(tx, 200);
    assert_eq!(solo.lines(), ["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]);
    solo.say(&backwards("ACK", 100, &invite, "callee"));
    assert!(matches!(solo.event(), Event::Acked { .. }));
    solo.say(&backwards("BYE", 101, &invite, "callee"));
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 200);
    assert_eq!(solo.endpoint.load().dialogs, 0);
}

#[test]
fn our_re_invite_is_acknowledged_by_the_application_and_then_by_itself() {
    let mut solo = Solo::new();
    let (dialog, _) = solo.connected();
    let body = Content { body: Some(("application/sdp", OFFER)), ..Content::default() };
    solo.endpoint.request(solo.now, dialog, Method::Invite, body).unwrap();
    solo.drain();
    let again = solo.one();
    assert_eq!(header(&again, "CSeq"), "2 INVITE");
    let ok = response(&again, 200, "", "Contact: <sip:moved@192.0.2.9>\r\n");
    solo.say(&ok);
    assert_eq!(answered(&solo.event()), (200, Some(dialog)));
    solo.endpoint.ack(solo.now, dialog, None).unwrap();
    solo.drain();
    let ack = solo.one();
    assert_eq!(first_line(&ack), "ACK sip:moved@192.0.2.9 SIP/2.0");
    assert_eq!(header(&ack, "CSeq"), "2 ACK");
    solo.say(&ok);
    assert_eq!(solo.one(), ack);
    assert!(solo.endpoint.request(solo.now, dialog, Method::Invite, body).is_ok());
}

#[test]
fn a_failed_flow_fails_our_requests_on_it_and_no_others() {
    let mut solo = Solo::with(Default::default(), Transport::Tcp);
    let (tx, _) = solo.call();
    let other = sip::Flow { connection: 2, ..solo.flow };
    solo.endpoint.handle_flow_failed(solo.now, &other);
    solo.drain();
    assert!(solo.events().is_empty());
    let flow = solo.flow;
    solo.endpoint.handle_flow_failed(solo.now, &flow);
    solo.drain();
    let Event::Failed { tx: failed, why: Failure::Transport, .. } = solo.event() else { panic!() };
    assert_eq!(failed, tx);
}

#[test]
fn a_bye_whose_flow_fails_leaves_its_dialog_for_another_flow_and_a_silent_one_does_not() {
    let mut solo = Solo::with(Default::default(), Transport::Tcp);
    let (dialog, _) = solo.connected();
    solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    solo.drain();
    let first = solo.one();
    let (broken, next) = (solo.flow, sip::Flow { connection: 2, ..solo.flow });
    solo.endpoint.handle_flow_failed(solo.now, &broken);
    solo.drain();
    let Event::Failed { why: Failure::Transport, dialog: left, .. } = solo.event() else {
        panic!()
    };
    assert_eq!(left, Some(dialog));
    solo.endpoint.move_dialog(dialog, next).unwrap();
    solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
    let sent = solo.endpoint.poll_transmit().unwrap();
    assert_eq!(sent.flow, next);
    let again = String::from_utf8(sent.bytes.to_vec()).unwrap();
    assert_eq!(header(&again, "Call-ID"), header(&first, "Call-ID"));
    assert_ne!(header(&again, "CSeq"), header(&first, "CSeq"));
    solo.pass(33_000);
    assert!(matches!(solo.event(), Event::Failed { why: Failure::Timeout, .. }));
    assert_eq!(solo.endpoint.flow_of(dialog), None);
}

#[test]
fn a_second_callee_that_accepts_is_dismissed() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    solo.say(&response(&invite, 200, "one", CONTACT));
    let (_, Some(first)) = answered(&solo.event()) else { panic!() };
    solo.endpoint.ack(solo.now, first, None).unwrap();
    solo.drain();
    solo.sent();
    let other = response(&invite, 200, "two", CONTACT);
    solo.say(&other);
    let (200, Some(second)) = answered(&solo.event()) else { panic!() };
    assert_ne!(first, second);
    solo.endpoint.dismiss(solo.now, second).unwrap();
    solo.drain();
    let sent = solo.sent();
    let lines: Vec<_> = sent.iter().map(|text| (first_line(text), to_tag(text))).collect();
    let uri = "sip:bob@192.0.2.9:5070 SIP/2.0";
    assert_eq!(
        lines,
        [(&*format!("ACK {uri}"), "two".into()), (&*format!("BYE {uri}"), "two".into())]
    );
    solo.say(&other);
    assert_eq!(solo.one(), sent[0]);
    // Even a challenge ends it: nobody would answer it.
    solo.say(&response(&sent[1], 407, "", "Proxy-Authenticate: Digest x\r\n"));
    assert!(solo.events().is_empty());
    assert_eq!(solo.endpoint.load().dialogs, 1);
    assert_eq!(solo.endpoint.dismiss(solo.now, second), Err(CommandError::Gone));
    assert!(solo.endpoint.identity(first).is_some());
}

#[test]
fn a_refused_invite_is_tried_again_at_the_next_target() {
    let mut solo = Solo::with(Default::default(), Transport::Tcp);
    let (tx, invite) = solo.call();
    solo.say(&response(&invite, 503, "callee", ""));
    assert_eq!(answered(&solo.event()).0, 503);
    solo.sent();
    let next = sip::Flow { connection: 2, ..solo.flow };
    let contact = [("Contact", "<sip:192.0.2.1:5060;transport=tcp>")];
    let again = solo.endpoint.retry_on(solo.now, tx, next, &contact).unwrap();
    let sent = solo.endpoint.poll_transmit().unwrap();
    assert_eq!(sent.flow, next);
    let text = String::from_utf8(sent.bytes.to_vec()).unwrap();
    assert_eq!(headers(&text, "Contact"), ["<sip:192.0.2.1:5060;transport=tcp>"]);
    assert_eq!(
        (header(&text, "Call-ID"), header(&text, "CSeq").as_str()),
        (header(&invite, "Call-ID"), "2 INVITE")
    );
    assert_ne!(branch(&text), branch(&invite));
    assert_eq!(solo.endpoint.request_of(again).unwrap().bytes(), &text);
    solo.endpoint.handle_flow_failed(solo.now, &next);
    solo.drain();
    assert!(matches!(solo.event(), Event::Failed { tx, .. } if tx == again));
    let (dialog, _) = solo.connected();
    let tx = solo.endpoint.request(solo.now, dialog, Method::Info, Content::default()).unwrap();
    solo.drain();
    let info = solo.one();
    solo.say(&response(&info, 503, "", ""));
    assert_eq!(solo.endpoint.retry_on(solo.now, tx, next, &[]), Err(CommandError::NotAllowed));
}

#[test]
fn the_size_of_an_invite_is_known_before_it_is_sent() {
    let mut solo = Solo::new();
    let body = vec![b'x'; 1000];
    for call_id in [None, Some("given")] {
        let invite = sip::endpoint::Invite {
            flow: solo.flow,
            request_uri: "sip:bob@example.com",
            from: "<sip:us@example.net>",
            to: "<sip:bob@example.com>",
            contact: OUR_CONTACT,
            headers: &[("X-Note", "1")],
            body: Some(("application/sdp", &body)),
            call_id,
        };
        let size = solo.endpoint.invite_size(&invite).unwrap();
        solo.endpoint.invite(solo.now, invite).unwrap();
        solo.drain();
        assert_eq!(solo.one().len(), size);
        assert!(size > sip::endpoint::MAX_DATAGRAM_REQUEST);
    }
}

#[test]
fn a_transfer_is_asked_for_and_its_course_is_heard() {
    let mut solo = Solo::new();
    let (dialog, invite) = solo.connected();
    let content =
        Content { headers: &[("Refer-To", "<sip:carol@example.com>")], ..Content::default() };
    let tx = solo.endpoint.request(solo.now, dialog, Method::Refer, content).unwrap();
    solo.drain();
    let refer = solo.one();
    assert_eq!(header(&refer, "Refer-To"), "<sip:carol@example.com>");
    assert_eq!(header(&refer, "Contact"), OUR_CONTACT);
    solo.say(&response(&refer, 202, "", ""));
    assert!(matches!(solo.event(), Event::Response { tx: answered, .. } if answered == tx));
    for (cseq, fragment) in [(1, "SIP/2.0 100 Trying\r\n"), (2, "SIP/2.0 200 OK\r\n")] {
        let notify = backwards("NOTIFY", cseq, &invite, "callee").replace(
            "Content-Length: 0\r\n\r\n",
            &format!(
                "Event: refer\r\nContent-Type: message/sipfrag\r\nContent-Length: {}\r\n\r\n{fragment}",
                fragment.len()
            ),
        );
        solo.say(&notify);
        let Event::InDialog { tx, request, .. } = solo.event() else { panic!() };
        let expected = if cseq == 1 { 100 } else { 200 };
        assert_eq!(sip::sipfrag_status(request.body()), Some(expected));
        solo.answer(tx, 200);
        solo.sent();
    }
}
