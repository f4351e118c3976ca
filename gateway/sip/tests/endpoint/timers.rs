//! The timers as a peer sees them, to the millisecond (RFC 3261 §17, RFC 6026, RFC 4320).

use sip::endpoint::{Content, Event, Failure, Options, Reply};
use sip::{Method, Transport};

use crate::support::*;

const DOUBLED: [u128; 7] = [0, 500, 1_500, 3_500, 7_500, 15_500, 31_500];
const CAPPED: [u128; 11] =
    [0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];

fn tcp() -> Solo {
    Solo::with(Options::default(), Transport::Tcp)
}

#[test]
fn timers_a_and_b_repeat_an_unanswered_invite_until_32_seconds() {
    let mut solo = Solo::new();
    let (tx, invite) = solo.call();
    solo.pass(31_999);
    let mut sent = solo.sent();
    assert!(sent.iter().all(|text| *text == invite));
    sent.clear();
    assert!(solo.events().is_empty());
    solo.pass(32_000);
    let Event::Failed { tx: failed, why: Failure::Timeout, .. } = solo.event() else { panic!() };
    assert_eq!(failed, tx);
    let mut solo = Solo::new();
    solo.call();
    solo.pass(60_000);
    assert_eq!(solo.instants(), DOUBLED[1..]);
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn nothing_ends_a_ringing_call_but_its_parties() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    solo.say(&response(&invite, 180, "callee", CONTACT));
    let _ = solo.events();
    solo.pass(200_000);
    assert!(solo.sent().is_empty() && solo.events().is_empty());
    solo.say(&response(&invite, 200, "callee", CONTACT));
    assert_eq!(answered(&solo.event()).0, 200);
}

#[test]
fn timer_d_acknowledges_repeated_refusals_for_32_seconds() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    let busy = response(&invite, 486, "callee", "");
    solo.say(&busy);
    let ack = solo.one();
    solo.pass(10_000);
    solo.say(&busy);
    assert_eq!(solo.one(), ack);
    solo.pass(32_000);
    solo.say(&busy);
    assert!(solo.sent().is_empty());
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn timers_e_and_f_repeat_an_unanswered_request_until_32_seconds() {
    let mut solo = Solo::new();
    let (dialog, _) = solo.connected();
    solo.pass(0);
    solo.endpoint.request(solo.now, dialog, Method::Info, Content::default()).unwrap();
    solo.drain();
    solo.pass(60_000);
    assert_eq!(solo.instants(), CAPPED);
    assert!(matches!(solo.event(), Event::Failed { why: Failure::Timeout, .. }));
    assert!(solo.endpoint.identity(dialog).is_some(), "a lost INFO ends no call");
}

#[test]
fn timers_g_and_h_repeat_a_refusal_until_its_ack_or_32_seconds() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.sent();
    solo.answer(tx, 486);
    solo.pass(60_000);
    assert_eq!(solo.instants(), CAPPED);
    assert_eq!(solo.endpoint.load(), Default::default());
}

#[test]
fn timer_i_absorbs_late_acks() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.answer(tx, 486);
    let tag = to_tag(solo.sent().last().unwrap());
    let ack = within("ACK", 1, &tag, "z9hG4bKinv1", "");
    solo.say(&ack);
    solo.pass(4_999);
    solo.say(&ack);
    solo.say(&invite());
    assert_eq!(solo.endpoint.load().server_transactions, 1);
    solo.pass(5_000);
    assert_eq!(solo.endpoint.load(), Default::default());
    assert!(solo.sent().is_empty() && solo.events().is_empty());
}

#[test]
fn timer_k_absorbs_late_answers() {
    let mut solo = Solo::new();
    let (dialog, _) = solo.connected();
    solo.endpoint.request(solo.now, dialog, Method::Info, Content::default()).unwrap();
    solo.drain();
    let info = solo.one();
    solo.say(&response(&info, 200, "", ""));
    let _ = solo.event();
    solo.pass(4_999);
    solo.say(&response(&info, 200, "", ""));
    solo.pass(5_001);
    solo.say(&response(&info, 200, "", ""));
    assert!(solo.events().is_empty() && solo.sent().is_empty());
}

#[test]
fn timer_l_absorbs_repeated_invites_after_a_2xx() {
    let mut solo = Solo::new();
    let tx = solo.invited(&invite());
    solo.answer(tx, 200);
    let tag = to_tag(solo.sent().last().unwrap());
    solo.say(&within("ACK", 1, &tag, "z9hG4bKack", ""));
    let _ = solo.event();
    solo.pass(31_000);
    solo.say(&invite());
    assert!(solo.sent().is_empty() && solo.events().is_empty());
    assert_eq!(solo.endpoint.load().server_transactions, 1);
    solo.pass(32_000);
    assert_eq!(solo.endpoint.load().server_transactions, 0);
}

#[test]
fn timer_m_lets_further_2xx_up_for_32_seconds() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    solo.say(&response(&invite, 200, "one", CONTACT));
    let (_, one) = answered(&solo.event());
    solo.pass(31_000);
    solo.say(&response(&invite, 200, "two", CONTACT));
    let (status, two) = answered(&solo.event());
    assert!(status == 200 && two != one);
    solo.pass(32_000);
    solo.say(&response(&invite, 200, "three", CONTACT));
    assert!(solo.events().is_empty());
}

#[test]
fn a_2xx_is_repeated_until_its_ack_or_32_seconds() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut solo = Solo::with(Options::default(), transport);
        let tx = solo.invited(&invite());
        solo.sent();
        let dialog = solo.answer(tx, 200).unwrap();
        solo.pass(31_999);
        assert_eq!(solo.instants(), CAPPED);
        assert!(solo.events().is_empty());
        solo.pass(32_000);
        assert!(matches!(solo.event(), Event::AckMissing { dialog: missing } if missing == dialog));
        solo.endpoint.request(solo.now, dialog, Method::Bye, Content::default()).unwrap();
        solo.drain();
        assert_eq!(solo.lines(), ["BYE sip:carrier@192.0.2.9:5060 SIP/2.0"]);
    }
}

#[test]
fn a_silent_application_is_no_reason_for_a_408() {
    let mut solo = Solo::new();
    let (_, tag) = solo.called();
    solo.sent();
    solo.say(&within("INFO", 2, &tag, "z9hG4bKinfo", ""));
    let Event::InDialog { tx, .. } = solo.event() else { panic!() };
    solo.pass(40_000);
    assert!(solo.sent().is_empty());
    let late = solo.endpoint.respond(solo.now, tx, Reply::new(200));
    assert_eq!(late, Err(sip::endpoint::CommandError::Gone));
}

#[test]
fn reliable_transports_repeat_nothing_and_linger_nowhere() {
    let mut solo = tcp();
    let (_, invite) = solo.call();
    solo.pass(20_000);
    assert!(solo.sent().is_empty(), "no timer A");
    solo.say(&response(&invite, 486, "callee", ""));
    assert_eq!(solo.lines().len(), 1);
    solo.say(&response(&invite, 486, "callee", ""));
    assert!(solo.sent().is_empty(), "timer D is zero");

    let mut solo = tcp();
    let (dialog, _) = solo.connected();
    solo.endpoint.request(solo.now, dialog, Method::Info, Content::default()).unwrap();
    solo.pass(40_000);
    solo.drain();
    assert_eq!(solo.sent().len(), 1, "no timer E");
    assert!(matches!(solo.events().pop(), Some(Event::Failed { why: Failure::Timeout, .. })));

    let mut solo = tcp();
    let tx = solo.invited(&crate::support::invite());
    solo.answer(tx, 486);
    let tag = to_tag(solo.sent().last().unwrap());
    solo.pass(10_000);
    assert!(solo.sent().is_empty(), "no timer G");
    solo.say(&within("ACK", 1, &tag, "z9hG4bKinv1", ""));
    assert_eq!(solo.endpoint.load(), Default::default(), "timer I is zero");
    solo.say(&opening("OPTIONS", "z9hG4bKopt", ""));
    let Event::Request { tx, .. } = solo.event() else { panic!() };
    solo.answer(tx, 200);
    assert_eq!(solo.endpoint.load(), Default::default(), "timer J is zero");
}

#[test]
fn every_abandoned_step_is_freed_in_time() {
    let steps: [fn(&mut Solo); 5] = [
        |solo| {
            let tx = solo.invited(&invite());
            solo.answer(tx, 486);
        },
        |solo| {
            solo.called();
        },
        |solo| {
            solo.call();
        },
        |solo| {
            let (_, invite) = solo.call();
            solo.say(&response(&invite, 486, "x", ""));
        },
        |solo| {
            solo.say(&opening("OPTIONS", "z9hG4bKopt", ""));
        },
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let mut solo = Solo::new();
        step(&mut solo);
        solo.pass(34_000);
        solo.pass(40_000);
        let load = solo.endpoint.load();
        assert_eq!((load.server_transactions, load.client_transactions), (0, 0), "step {number}");
    }
}
