//! What strangers get: nothing, unless the application says so (reflection, scanning, forged calls).

use sip::Transport;
use sip::endpoint::{Event, Options, Prefix, Trust};

use crate::support::*;

fn stranger() -> Solo {
    let mut solo = Solo::new();
    solo.trust = Trust::Stranger;
    solo
}

#[test]
fn nothing_a_stranger_sends_is_answered_by_the_endpoint_itself() {
    let mut solo = stranger();
    for text in [
        invite(),
        opening("INVITE", "z9hG4bKmerged", ""),
        opening("INVITE", "z9hG4bK2", "Require: 100rel\r\n"),
        opening("DANCE", "z9hG4bK3", ""),
        opening("REGISTER", "z9hG4bK4", ""),
        opening("CANCEL", "z9hG4bKnone", ""),
        opening("BYE", "z9hG4bK5", ""),
        within("BYE", 2, "guess", "z9hG4bK6", ""),
        within("INVITE", 2, "guess", "z9hG4bK7", ""),
        within("ACK", 2, "guess", "z9hG4bK8", ""),
        invite().replace("Call-ID: call-1\r\n", ""),
        response(&invite(), 200, "x", ""),
    ] {
        solo.say(&text);
    }
    solo.pass(120_000);
    assert!(solo.sent().is_empty());
    assert_eq!(solo.endpoint.load().strangers, 1, "an INVITE waits for the application");
}

#[test]
fn a_refused_stranger_is_not_sent_repeats_it_did_not_ask_for() {
    let mut solo = stranger();
    let tx = solo.invited(&invite());
    solo.answer(tx, 401);
    assert_eq!(solo.lines(), ["SIP/2.0 401 Unauthorized"]);
    solo.pass(10_000);
    assert!(solo.sent().is_empty());
    solo.say(&invite());
    assert_eq!(solo.lines(), ["SIP/2.0 401 Unauthorized"]);
    solo.pass(40_000);
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn a_stranger_the_application_accepts_is_one_no_longer() {
    let mut solo = stranger();
    let tx = solo.invited(&invite());
    solo.answer(tx, 200);
    assert_eq!(solo.endpoint.load().strangers, 0);
    let tag = to_tag(&solo.one());
    solo.pass(500);
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK"]);
    solo.say(&within("ACK", 1, &tag, "z9hG4bKack", ""));
    assert!(matches!(solo.event(), Event::Acked { .. }));
    solo.say(&within("BYE", 2, &tag, "z9hG4bKbye", ""));
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 200);
    assert_eq!(solo.lines(), ["SIP/2.0 200 OK"]);
}

#[test]
fn a_stranger_that_gives_up_is_told_nothing_and_the_application_is() {
    let mut solo = stranger();
    solo.invited(&invite());
    solo.say(&opening("CANCEL", "z9hG4bKinv1", ""));
    assert!(matches!(solo.event(), Event::Cancelled { .. }));
    assert!(solo.sent().is_empty());
    solo.pass(33_000);
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn an_ignored_request_stays_ignored_and_memory_of_it_is_bounded() {
    let options = Options { max_ignored: 8, max_strangers: 4, ..Options::default() };
    let mut solo = Solo::with(options, Transport::Udp);
    solo.trust = Trust::Stranger;
    for number in 0..100 {
        let text = invite().replace("z9hG4bKinv1", &format!("z9hG4bK{number}"));
        let text = text.replace("call-1", &format!("call-{number}"));
        solo.say(&text);
        if let Some(Event::Invite { tx, .. }) = solo.events().pop() {
            solo.endpoint.ignore(solo.now, tx);
        }
        solo.say(&text);
        assert!(solo.events().is_empty(), "repeats reach nobody");
        assert!(solo.endpoint.load().server_transactions <= 8);
    }
    assert!(solo.sent().is_empty());
}

#[test]
fn strangers_cannot_take_the_places_of_known_peers() {
    let options = Options { max_transactions: 64, max_strangers: 8, ..Options::default() };
    let mut solo = Solo::with(options, Transport::Udp);
    solo.trust = Trust::Stranger;
    for number in 0..1000 {
        let text = invite().replace("z9hG4bKinv1", &format!("z9hG4bK{number}"));
        solo.say(&text.replace("call-1", &format!("call-{number}")));
    }
    assert_eq!(solo.endpoint.load().strangers, 8);
    assert_eq!(solo.events().len(), 8);
    solo.trust = Trust::Known;
    solo.invited(&invite().replace("call-1", "good").replace("inv1", "good"));
    assert_eq!(solo.lines(), ["SIP/2.0 100 Trying"]);
}

#[test]
fn right_tags_from_a_wrong_address_touch_no_call() {
    let mut solo = Solo::new();
    let (_, tag) = solo.called();
    solo.sent();
    let mut elsewhere = solo.flow;
    elsewhere.remote = "203.0.113.66:5060".parse().unwrap();
    solo.trust = Trust::Stranger;
    for method in ["BYE", "INVITE", "INFO", "ACK", "CANCEL"] {
        let branch = format!("z9hG4bK{method}");
        solo.say_from(elsewhere, &within(method, 9, &tag, &branch, ""));
    }
    assert!(solo.sent().is_empty() && solo.events().is_empty());
    solo.trust = Trust::Known;
    solo.endpoint.handle_message(
        solo.now,
        elsewhere,
        within("BYE", 9, &tag, "z9hG4bKx", "").into(),
        Trust::Known,
    );
    let refused = solo.endpoint.poll_transmit().unwrap();
    assert!(refused.bytes.starts_with(b"SIP/2.0 481 "));
    assert_eq!(refused.flow.remote, elsewhere.remote);
    solo.say(&within("BYE", 2, &tag, "z9hG4bKreal", ""));
    assert!(matches!(solo.event(), Event::InDialog { .. }));
}

#[test]
fn a_cancel_from_another_address_withdraws_nothing() {
    let mut solo = Solo::new();
    solo.invited(&invite());
    solo.sent();
    let mut elsewhere = solo.flow;
    elsewhere.remote = "203.0.113.66:5060".parse().unwrap();
    solo.trust = Trust::Stranger;
    solo.say_from(elsewhere, &opening("CANCEL", "z9hG4bKinv1", ""));
    assert!(solo.sent().is_empty() && solo.events().is_empty());
}

#[test]
fn a_secure_dialog_takes_nothing_in_the_clear() {
    let mut solo = Solo::with(Options::default(), Transport::Tls);
    let (_, tag) = solo.called();
    solo.sent();
    let clear = flow(Transport::Tcp);
    solo.say_from(clear, &within("BYE", 2, &tag, "z9hG4bKbye", ""));
    assert_eq!(solo.lines(), ["SIP/2.0 481 Call/Transaction Does Not Exist"]);
    assert!(solo.events().is_empty());
}

#[test]
fn a_dialog_takes_requests_from_the_other_addresses_of_its_trunk() {
    let mut solo = Solo::new();
    let (dialog, tag) = solo.called();
    let mut elsewhere = solo.flow;
    elsewhere.remote = "198.51.100.7:5060".parse().unwrap();
    let network = Prefix { address: "198.51.100.0".parse().unwrap(), bits: 24 };
    solo.endpoint.also_from(dialog, &[network]);
    solo.flow = elsewhere;
    solo.say(&within("INFO", 2, &tag, "z9hG4bKinfo", ""));
    assert!(matches!(solo.event(), Event::InDialog { .. }));
}

#[test]
fn a_response_needs_our_branch_and_nothing_else_but_one_via() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    let more = format!("Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKz\r\n{CONTACT}");
    solo.say(&response(&invite, 200, "x", &more));
    solo.say(&response(&invite, 200, "x", CONTACT).replace(&branch(&invite), "z9hG4bKguess"));
    solo.say(&response(&invite, 200, "x", CONTACT).replace("1 INVITE", "2 INVITE"));
    assert!(solo.sent().is_empty() && solo.events().is_empty());
    let mut elsewhere = solo.flow;
    elsewhere.remote = "192.0.2.10:5060".parse().unwrap();
    solo.say_from(elsewhere, &response(&invite, 200, "x", CONTACT));
    assert_eq!(answered(&solo.event()).0, 200);
}

#[test]
fn a_callee_that_invents_tags_makes_a_bounded_number_of_dialogs() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    for number in 0..1_000 {
        solo.say(&response(&invite, 180, &format!("tag{number}"), CONTACT));
    }
    assert_eq!(solo.endpoint.load().dialogs, 16);
}

#[test]
fn what_strangers_ask_while_we_are_busy_is_not_looked_at() {
    let mut solo = stranger();
    solo.endpoint.set_busy(true);
    let odd_uri = opening("INVITE", "z9hG4bK3", "").replace("INVITE sip:", "INVITE foo:");
    let asked = [
        invite(),
        opening("INVITE", "z9hG4bK1", "Require: 100rel\r\n"),
        opening("INVITE", "z9hG4bK2", "Content-Encoding: gzip\r\n"),
        odd_uri,
        opening("OPTIONS", "z9hG4bK4", ""),
        opening("REGISTER", "z9hG4bK5", ""),
    ];
    asked.iter().for_each(|text| solo.say(text));
    assert_eq!((solo.sent(), solo.events().len()), (Vec::new(), 0));
    assert!(solo.endpoint.poll_refused().is_none());
    assert_eq!(solo.endpoint.load(), Default::default());
    assert_eq!([solo.endpoint.take_unheard(), solo.endpoint.take_unheard()], [6, 0]);
    solo.endpoint.set_busy(false);
    solo.invited(&invite());
    assert_eq!(solo.endpoint.take_unheard(), 0);
}

#[test]
fn of_too_many_strangers_the_last_are_not_looked_at() {
    let mut solo = Solo::with(Options { max_strangers: 1, ..Options::default() }, Transport::Udp);
    solo.trust = Trust::Stranger;
    solo.invited(&invite());
    solo.say(&opening("OPTIONS", "z9hG4bK1", "").replace("Call-ID: ", "Call-ID: another-"));
    assert_eq!((solo.events().len(), solo.endpoint.take_unheard()), (0, 1));
}
