//! Route sets on every kind of request in a dialog: RFC 3261 §12.1, §12.2.1.1, §16.12.

use sip::Method;
use sip::endpoint::{Content, DialogId, Event};

use crate::support::*;

/// Every request that we may send in a dialog that is up.
const IN_DIALOG: [Method; 7] = [
    Method::Invite,
    Method::Update,
    Method::Info,
    Method::Refer,
    Method::Notify,
    Method::Options,
    Method::Bye,
];

/// What we send in the dialog, by method: the Request-URI and the Route values. The callee answers
/// everything, so that one request can follow the other.
fn requests(solo: &mut Solo, dialog: DialogId) -> Vec<(Method, String, Vec<String>)> {
    let mut seen = Vec::new();
    for method in IN_DIALOG {
        solo.endpoint.request(solo.now, dialog, method, Content::default()).unwrap();
        solo.drain();
        let text = solo.one();
        seen.push((method, uri(&text), headers(&text, "Route")));
        solo.say(&response(&text, 200, "", ""));
        let _ = solo.events();
        if method == Method::Invite {
            solo.endpoint.ack(solo.now, dialog, None).unwrap();
            solo.drain();
            let text = solo.one();
            seen.push((Method::Ack, uri(&text), headers(&text, "Route")));
        }
    }
    seen
}

fn uri(text: &str) -> String {
    first_line(text).split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A call of ours that was accepted through these proxies.
fn accepted(record_routes: &str) -> (Solo, DialogId) {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    solo.say(&response(&invite, 200, "callee", &format!("{record_routes}{CONTACT}")));
    let Event::Response { dialog: Some(dialog), .. } = solo.event() else { panic!() };
    solo.endpoint.ack(solo.now, dialog, None).unwrap();
    solo.drain();
    assert!(solo.one().starts_with("ACK "));
    (solo, dialog)
}

/// Request-URI and Route values.
fn destination(text: &str) -> (String, Vec<String>) {
    (uri(text), headers(text, "Route"))
}

#[test]
fn as_caller_we_follow_record_route_backwards_whatever_lines_it_came_in() {
    for record_routes in [
        "Record-Route: <sip:p3;lr>, <sip:p2;lr>, <sip:p1;lr>\r\n",
        "Record-Route: <sip:p3;lr>\r\nRecord-Route: <sip:p2;lr>\r\nRecord-Route: <sip:p1;lr>\r\n",
        "Record-Route: <sip:p3;lr>\r\nRecord-Route: <sip:p2;lr>,\r\n <sip:p1;lr>\r\n",
    ] {
        let (mut solo, dialog) = accepted(record_routes);
        for (method, uri, routes) in requests(&mut solo, dialog) {
            assert_eq!(uri, "sip:bob@192.0.2.9:5070", "{method:?}");
            assert_eq!(routes, ["<sip:p1;lr>", "<sip:p2;lr>", "<sip:p3;lr>"], "{method:?}");
        }
        assert_eq!(solo.endpoint.load().dialogs, 0);
    }
}

#[test]
fn as_callee_we_follow_record_route_forwards() {
    let mut solo = Solo::new();
    let routes = "Record-Route: <sip:p3;lr>\r\nRecord-Route: <sip:p2;lr>, <sip:p1;lr>\r\n";
    let tx = solo.invited(&opening("INVITE", "z9hG4bKinv1", routes));
    let dialog = solo.answer(tx, 200).unwrap();
    let tag = to_tag(solo.sent().last().unwrap());
    solo.say(&within("ACK", 1, &tag, "z9hG4bKack1", ""));
    let _ = solo.events();
    for (method, uri, routes) in requests(&mut solo, dialog) {
        assert_eq!(uri, "sip:carrier@192.0.2.9:5060", "{method:?}");
        assert_eq!(routes, ["<sip:p3;lr>", "<sip:p2;lr>", "<sip:p1;lr>"], "{method:?}");
    }
}

#[test]
fn a_strict_router_first_takes_the_request_uri_of_every_request() {
    let (mut solo, dialog) = accepted("Record-Route: <sip:p2;lr>, <sip:p1>\r\n");
    for (method, uri, routes) in requests(&mut solo, dialog) {
        assert_eq!(uri, "sip:p1", "{method:?}");
        assert_eq!(routes, ["<sip:p2;lr>", "<sip:bob@192.0.2.9:5070>"], "{method:?}");
    }
}

#[test]
fn the_digest_of_an_unasked_answer_covers_the_uri_that_will_be_used() {
    let (solo, dialog) = accepted("Record-Route: <sip:p2;lr>, <sip:p1>\r\n");
    assert_eq!(solo.endpoint.request_uri(dialog).as_deref(), Some(&b"sip:p1"[..]));
    let (solo, dialog) = accepted("");
    assert_eq!(solo.endpoint.request_uri(dialog).as_deref(), Some(&b"sip:bob@192.0.2.9:5070"[..]));
}

#[test]
fn the_2xx_overrides_the_route_set_of_the_early_dialog_and_later_ones_change_nothing() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    solo.say(&response(&invite, 183, "callee", "Record-Route: <sip:early;lr>\r\n"));
    let Event::Response { dialog: Some(early), .. } = solo.event() else { panic!() };
    solo.endpoint.request(solo.now, early, Method::Update, Content::default()).unwrap();
    solo.drain();
    let update = solo.one();
    assert_eq!(headers(&update, "Route"), ["<sip:early;lr>"]);
    let more = format!("Record-Route: <sip:p1;lr>\r\n{CONTACT}");
    solo.say(&response(&invite, 200, "callee", &more));
    let Event::Response { dialog: Some(dialog), .. } = solo.event() else { panic!() };
    assert_eq!(dialog, early);
    solo.endpoint.ack(solo.now, dialog, None).unwrap();
    solo.endpoint.request(solo.now, dialog, Method::Invite, Content::default()).unwrap();
    solo.drain();
    let again = solo.sent().pop().unwrap();
    let moved = "Record-Route: <sip:evil;lr>\r\nContact: <sip:bob@192.0.2.8>\r\n";
    solo.say(&response(&again, 200, "", moved));
    solo.endpoint.ack(solo.now, dialog, None).unwrap();
    solo.drain();
    let ack = solo.one();
    assert_eq!(
        (uri(&ack).as_str(), headers(&ack, "Route")),
        ("sip:bob@192.0.2.8", vec!["<sip:p1;lr>".to_owned()])
    );
}

#[test]
fn cancel_and_the_ack_of_a_refusal_take_the_invites_own_route() {
    let mut solo = Solo::new();
    let (tx, invite) = solo.call();
    solo.say(&response(&invite, 183, "callee", "Record-Route: <sip:p1;lr>\r\n"));
    solo.endpoint.cancel(solo.now, tx).unwrap();
    solo.drain();
    let cancel = solo.one();
    solo.say(&response(&invite, 487, "callee", ""));
    let ack = solo.one();
    for text in [cancel, ack] {
        assert_eq!(destination(&text), destination(&invite));
    }
}

#[test]
fn whatever_contact_says_our_requests_stay_on_the_flow() {
    let mut solo = Solo::new();
    let (_, invite) = solo.call();
    let elsewhere = "Contact: <sip:169.254.169.254:80;transport=tcp;maddr=224.0.0.1>\r\n";
    solo.say(&response(&invite, 200, "callee", elsewhere));
    let Event::Response { dialog: Some(dialog), .. } = solo.event() else { panic!() };
    solo.endpoint.ack(solo.now, dialog, None).unwrap();
    solo.drain();
    assert!(solo.one().starts_with("ACK sip:169.254.169.254:80"));
    // Every transmission is compared with the flow of the call.
    let _ = requests(&mut solo, dialog);
}
