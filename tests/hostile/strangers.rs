//! What people who do not belong to a call, or to any trunk, may learn and touch: nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;

use crate::common::{
    Audio, Dialog, ECHO, Gateway, OTHER_PEER, PATIENCE, PEER, Phone, STRANGER, Sprayer, TONE,
    eventually, fresh, offer, rtp, status,
};
use crate::framing::from;

use media::sdp::Encryption;

const METHODS: [&str; 13] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "INFO",
    "UPDATE",
    "REFER",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "NEWMETHOD",
];

#[test]
fn a_source_that_no_trunk_lists_gets_no_packet_at_all() {
    let mut gateway = Gateway::start();
    let phone = Phone::new(STRANGER, gateway.udp);
    let agent = gateway.call("GET", "/core/agents", None).json()[0]["id"].to_string();
    let users = [ECHO, "+15550109999", "100", "admin", agent.trim_matches('"'), ""];
    for method in METHODS {
        for user in users {
            let at = if user.is_empty() { "" } else { "@" };
            let dialog = Dialog::new(&phone, &format!("sip:{user}{at}{}", gateway.udp));
            let sdp = offer(STRANGER, 4_000, "RTP/AVP 0", "");
            let text = dialog.request(&phone, method, "Content-Type: application/sdp\r\n", &sdp);
            phone.send(text.as_bytes());
            // Again, as somebody would who got no answer; and with faults that peers are told of.
            phone.send(text.as_bytes());
            phone.send(text.replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia").as_bytes());
            phone.send(text.replace("Max-Forwards: 70", "Max-Forwards: 0").as_bytes());
            phone.send(text.replace("Content-Length: ", "Content-Length: -").as_bytes());
            phone.send(text.replace("Contact:", "Require: x\r\nContact:").as_bytes());
        }
    }
    for junk in [&b"\r\n\r\n"[..], b"\0\0\0\0", b"HELLO", b"OPTIONS sip:a SIP/2.0\r\n\r\n"] {
        phone.send(junk);
    }
    assert_eq!(Phone::new(PEER, gateway.udp).options(), 200);
    assert_eq!(phone.receive(Duration::from_millis(700)), None);
    gateway.assert_serving();
    gateway.assert_quiet();
}

/// A response without what echoes the request or is random: all that could tell two apart.
fn face(answer: &str) -> String {
    let echoed = ["Via:", "From:", "To:", "Call-ID:"];
    let lines = answer.lines().filter(|line| !echoed.iter().any(|name| line.starts_with(name)));
    let lines = lines.map(|line| match line.split_once("nonce=\"") {
        Some((before, rest)) => {
            format!("{before}{}", rest.split_once('"').map_or("", |(_, end)| end))
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn strangers_cannot_tell_numbers_apart_by_the_challenge() {
    let mut gateway = Gateway::start();
    let credentials = json!({"auth_username": "carrier", "auth_password": "secret"});
    let trunk = gateway.trunk("digest", credentials);
    gateway.number("+15550100700", &trunk);
    gateway.agent(support::gateway::echo(), &["+15550100700"]);
    let phone = Phone::new(STRANGER, gateway.udp);
    let wrong = |realm: &str| {
        let (nonce, response) = ("AAAA", "0123456789abcdef0123456789abcdef");
        format!(
            "Authorization: Digest username=\"carrier\", realm=\"{realm}\", nonce=\"{nonce}\", \
             uri=\"sip:x\", response=\"{response}\", qop=auth, nc=00000001, cnonce=\"c\"\r\n"
        )
    };
    for headers in [String::new(), wrong("trunkline"), wrong("elsewhere")] {
        let faces = ["+15550100700", ECHO, "+15550109999", "100", "admin"].map(|user| {
            let dialog = Dialog::new(&phone, &format!("sip:{user}@{}", gateway.udp));
            let answer = phone.ask(&dialog.request(&phone, "INVITE", &headers, ""));
            face(&answer.unwrap_or_else(|| panic!("{user} met silence")))
        });
        assert!(faces[0].starts_with("SIP/2.0 401"), "{}", faces[0]);
        assert!(faces.iter().all(|face| *face == faces[0]), "{faces:#?}");
    }
    gateway.assert_quiet();
}

#[test]
fn a_stranger_on_a_stream_gets_no_byte() {
    let mut gateway = Gateway::start();
    let mut stream = from(STRANGER, gateway.tcp);
    let phone = Phone::new(STRANGER, gateway.tcp);
    for method in METHODS {
        let dialog = Dialog::new(&phone, &format!("sip:{ECHO}@{}", gateway.tcp));
        let text = dialog.request(&phone, method, "", "").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
        stream.write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(Phone::new(PEER, gateway.udp).options(), 200);
    stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let mut buffer = [0; 4_096];
    match stream.read(&mut buffer) {
        Ok(length) => assert_eq!(String::from_utf8_lossy(&buffer[..length]), ""),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
    }
    gateway.assert_quiet();
}

#[test]
fn a_request_in_a_call_from_another_address_does_not_touch_it() {
    let mut gateway = Gateway::start();
    let phone = Phone::new(PEER, gateway.udp);
    let mut audio = Audio::new(PEER, None, Encryption::Disable);
    let mut call = phone.dial(TONE, &audio.offer).unwrap();
    let plan = audio.accept(&call);
    eventually("audio comes", PATIENCE, || audio.waiting() > 0);
    let elsewhere = offer(STRANGER, 4_000, "RTP/AVP 0", "");
    for ip in [STRANGER, OTHER_PEER] {
        let forger = Phone::new(ip, gateway.udp);
        for method in ["BYE", "CANCEL", "INVITE", "UPDATE", "INFO", "ACK", "REFER"] {
            let mut dialog = call.dialog.clone();
            dialog.cseq += 10;
            let headers = "Content-Type: application/sdp\r\n";
            // Once with a Via of its own, once with the caller's.
            let own = dialog.request(&forger, method, headers, &elsewhere);
            let stolen = dialog.request(&phone, method, headers, &elsewhere);
            forger.send(own.as_bytes());
            forger.send(stolen.as_bytes());
        }
        assert_eq!(Phone::new(PEER, gateway.udp).options(), 200);
        for text in forger.received() {
            assert_ne!(ip, STRANGER, "a stranger got {text}");
            assert!(status(&text) >= 400 || text.contains("100 "), "{text}");
        }
        assert!(call.is_up(), "{ip} ended the call");
    }
    audio.waiting();
    let heard = gateway::demo::rtp::talk(&audio.socket, plan, &[0; 4_000], None).unwrap();
    assert!(heard.received > 20, "audio goes on: {heard:?}");
    call.hang_up();
    gateway.assert_quiet();
}

#[test]
fn a_cancel_from_another_address_does_not_touch_a_ringing_call() {
    // An agent that accepts connections and says nothing: the caller hears ringing meanwhile.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = Gateway::start();
    let trunk = gateway.pbx("ringing", "ALLOW");
    gateway.number("+15550100600", &trunk);
    let url = format!("ws://{}/", silent.local_addr().unwrap());
    let runtime = json!({"type": "websocket", "url": url});
    gateway.agent(runtime, &["+15550100600"]);
    let phone = Phone::new(PEER, gateway.udp);
    let dialog = Dialog::new(&phone, &format!("sip:+15550100600@{}", gateway.udp));
    let sdp = offer(PEER, 4_000, "RTP/AVP 0", "");
    let branch = format!("z9hG4bK{}", fresh());
    let body = ("Content-Type: application/sdp\r\n", &*sdp);
    phone.send(dialog.request_with(&phone, "INVITE", body, &branch).as_bytes());
    eventually("it rings", PATIENCE, || {
        phone.receive(Duration::from_millis(100)).is_some_and(|text| status(&text) == 180)
    });
    let cancel = dialog.request_with(&phone, "CANCEL", ("", ""), &branch);
    for ip in [STRANGER, OTHER_PEER] {
        let forger = Phone::new(ip, gateway.udp);
        forger.send(cancel.as_bytes());
        assert_eq!(Phone::new(PEER, gateway.udp).options(), 200);
        assert!(forger.received().iter().all(|text| ip != STRANGER && status(text) == 481));
        let text = phone.received().concat();
        assert!(!text.contains("487"), "{ip} cancelled the call: {text}");
    }
    phone.send(cancel.as_bytes());
    let mut seen = String::new();
    eventually("the caller's own CANCEL is heard", PATIENCE, || {
        seen.extend(phone.receive(Duration::from_millis(100)));
        seen.contains("SIP/2.0 487") && seen.contains("SIP/2.0 200")
    });
    gateway.assert_quiet();
}

#[test]
fn packets_of_the_last_call_do_not_reach_the_next_one_on_its_port() {
    let mut gateway = Gateway::start();
    let phone = Phone::new(PEER, gateway.udp);
    let old = UdpSocket::bind((PEER, 0)).unwrap();
    let address = old.local_addr().unwrap();
    let call = phone.dial(ECHO, &offer(PEER, address.port(), "RTP/AVP 0", "")).unwrap();
    call.hang_up();
    drop(old);
    // The old phone never stops; its port is everybody's port now.
    let late =
        Sprayer::start(SocketAddr::from((PEER, address.port())), gateway.ports.clone(), |n| {
            rtp(n, u32::from(n) * 160, 7, &[0x2a; 160])
        });
    for _ in 0..8 {
        let mut audio = Audio::new(PEER, None, Encryption::Require);
        let call = phone.dial(ECHO, &audio.offer).unwrap();
        let plan = audio.accept(&call);
        let heard = gateway::demo::rtp::talk(&audio.socket, plan, &[0; 1_600], None).unwrap();
        assert!(heard.received > 0 && heard.unusable == 0);
        let loudest = heard.samples.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
        assert!(loudest < 64, "the old caller is heard: {loudest}");
        call.hang_up();
    }
    assert_eq!(late.stop(), 0);
    gateway.assert_quiet();
}
