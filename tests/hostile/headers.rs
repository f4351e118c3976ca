//! Messages that lack a mandatory header or have it twice.

use std::time::Duration;

use serde_json::json;

use crate::common::{Dialog, Gateway, PATIENCE, PEER, Phone, STRANGER, offer, status};

const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "INFO",
    "UPDATE",
    "PRACK",
    "REFER",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "PUBLISH",
];

const HEADERS: [&str; 6] = ["Via", "From", "To", "Call-ID", "CSeq", "Max-Forwards"];

/// A change to a message: the headers of that name taken away, or its first line written twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Removed,
    Doubled,
}

const CHANGES: [Change; 2] = [Change::Removed, Change::Doubled];

fn changed(message: &str, name: &str, change: Change) -> String {
    let mut doubled = false;
    let lines = message.split_inclusive("\r\n").map(|line| {
        let found = line.split_once(':').is_some_and(|(found, _)| found == name);
        match change {
            Change::Removed if found => String::new(),
            Change::Doubled if found && !doubled => {
                doubled = true;
                line.repeat(2)
            }
            _ => line.to_owned(),
        }
    });
    lines.collect()
}

/// Sends it from a place of its own: the statuses that come back before the health check's do.
fn reactions(
    gateway: &Gateway,
    ip: std::net::Ipv4Addr,
    make: impl Fn(&Phone) -> String,
) -> Vec<u16> {
    let phone = Phone::new(ip, gateway.udp);
    phone.send(make(&phone).as_bytes());
    assert_eq!(Phone::new(PEER, gateway.udp).options(), 200);
    let mut statuses: Vec<u16> = phone.received().iter().map(|text| status(text)).collect();
    statuses.retain(|&status| status != 100);
    statuses
}

fn request(phone: &Phone, method: &str) -> String {
    Dialog::new(phone, "sip:+15550109999@127.0.0.1").request(phone, method, "", "")
}

#[test]
fn a_request_needs_each_mandatory_header_once_whatever_its_method() {
    let mut gateway = Gateway::start();
    for method in METHODS {
        let usual = reactions(&gateway, PEER, |phone| request(phone, method));
        for name in HEADERS {
            for change in CHANGES {
                let got = reactions(&gateway, PEER, |phone| {
                    changed(&request(phone, method), name, change)
                });
                let what = format!("{method}, {name} {change:?}: {got:?}");
                match (method, name, change) {
                    ("ACK", ..) | (_, "Via", Change::Removed) => assert!(got.is_empty(), "{what}"),
                    // Two Vias are a request that came over a proxy; RFC 2543 had no Max-Forwards.
                    (_, "Via", Change::Doubled) | (_, "Max-Forwards", Change::Removed) => {
                        assert_eq!(got, usual, "{what}");
                    }
                    (.., Change::Removed) => assert!(got.is_empty() || got == [400], "{what}"),
                    (.., Change::Doubled) => assert_eq!(got, [400], "{what}"),
                }
                let stranger = |phone: &Phone| changed(&request(phone, method), name, change);
                let told = reactions(&gateway, STRANGER, stranger);
                assert!(told.is_empty(), "{what}, and a stranger {told:?}");
            }
        }
    }
    gateway.assert_serving();
    gateway.assert_quiet();
}

/// A 200 to a request of the gateway's.
fn response(request: &str) -> String {
    let (_, rest) = request.split_once("\r\n").unwrap();
    format!("SIP/2.0 200 OK\r\n{rest}")
}

#[test]
fn a_broken_response_is_none_and_the_request_is_repeated() {
    let mut gateway = Gateway::empty(&[]);
    let trunk = gateway.pbx("PBX", "ALLOW");
    gateway.number("+15550100100", &trunk);
    let greeting = json!({"type": "builtin", "builtin": "playback", "clip": "greeting"});
    gateway.agent(greeting, &["+15550100100"]);
    let phone = Phone::new(PEER, gateway.udp);
    let audio = std::net::UdpSocket::bind((PEER, 0)).unwrap();
    let port = audio.local_addr().unwrap().port();
    let call = phone.dial("+15550100100", &offer(PEER, port, "RTP/AVP 0", "")).unwrap();
    // The clip ends, and the gateway hangs up.
    let bye = phone.receive(PATIENCE).unwrap();
    assert!(bye.starts_with("BYE ") && bye.contains(&call.dialog.call_id), "{bye}");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for change in CHANGES {
            phone.send(changed(&response(&bye), name, change).as_bytes());
        }
    }
    let repeated = phone.receive(PATIENCE).unwrap();
    assert_eq!(repeated, bye, "no broken answer was taken");
    phone.send(response(&bye).as_bytes());
    while let Some(late) = phone.receive(Duration::from_millis(1_200)) {
        assert_eq!(late, bye);
        assert_eq!(phone.receive(Duration::from_millis(4_500)), None, "the right answer was taken");
    }
    gateway.assert_quiet();
}

#[test]
fn a_stray_response_does_nothing() {
    let mut gateway = Gateway::start();
    for ip in [PEER, STRANGER] {
        for name in HEADERS {
            for change in CHANGES {
                let stray =
                    |phone: &Phone| changed(&response(&request(phone, "INVITE")), name, change);
                let told = reactions(&gateway, ip, stray);
                assert!(told.is_empty(), "{name} {change:?}: {told:?}");
            }
        }
    }
    gateway.assert_quiet();
}
