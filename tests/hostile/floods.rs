//! Much of everything: floods from strangers, connections that dawdle.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::common::{Dialog, ECHO, Gateway, PATIENCE, PEER, Phone, STRANGER, now, offer};
use crate::framing::from;

/// Messages of a flood.
const FLOOD: u32 = 20_000;

/// Most requests of strangers that are remembered at a time (`sip::Options`).
const MAX_REMEMBERED: f64 = 4_096.0;

/// Most KiB that a flood of strangers may leave behind.
const MAX_GROWTH_KIB: u64 = 32 * 1_024;

#[test]
fn a_flood_of_strangers_leaves_the_gateway_small_and_answering() {
    let mut gateway = Gateway::start();
    gateway.assert_serving();
    let before = gateway.resident_kib();
    let flooder = Phone::new(STRANGER, gateway.udp);
    let peer = Phone::new(PEER, gateway.udp);
    let mut call = peer.dial(ECHO, &offer(PEER, 4_000, "RTP/AVP 0", "")).unwrap();
    let methods = ["OPTIONS", "REGISTER", "INVITE", "MESSAGE", "SUBSCRIBE"];
    let mut slowest = Duration::ZERO;
    for n in 0..FLOOD {
        let method = methods[n as usize % methods.len()];
        let dialog = Dialog::new(&flooder, &format!("sip:{n}@{}", gateway.udp));
        flooder.send(dialog.request(&flooder, method, "", "").as_bytes());
        if n % 2_000 == 1_999 {
            let asked = now();
            assert_eq!(peer.options(), 200, "after {n} messages");
            slowest = slowest.max(now() - asked);
        }
    }
    assert!(slowest < Duration::from_secs(5), "a peer waited {slowest:?}");
    assert!(call.is_up());
    call.hang_up();
    assert_eq!(flooder.receive(Duration::from_millis(50)), None);
    gateway.assert_serving();
    let growth = gateway.resident_kib().saturating_sub(before);
    assert!(growth <= MAX_GROWTH_KIB, "{growth} KiB");
    let remembered = gateway.metric("gateway_queue_high_water", "stranger_transactions");
    assert!((1.0..=MAX_REMEMBERED).contains(&remembered), "{remembered}");
    let lines = gateway.log().len();
    println!("slowest answer {slowest:?}, growth {growth} KiB, {lines} log lines");
    assert!(lines < FLOOD as usize / 10, "{lines} log lines");
    gateway.assert_quiet();
}

#[test]
fn many_strangers_with_one_message_each_are_no_more_than_one() {
    let mut gateway = Gateway::start();
    let before = gateway.resident_kib();
    for n in 0..2_000_u32 {
        let [.., high, low] = n.to_be_bytes();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, high, low), 0)).unwrap();
        let text = format!(
            "INVITE sip:{n}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKd{n}\r\n\
             From: <sip:a@h>;tag={n}\r\nTo: <sip:b@h>\r\nCall-ID: d{n}\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        socket.send_to(text.as_bytes(), gateway.udp).unwrap();
    }
    gateway.assert_serving();
    let growth = gateway.resident_kib().saturating_sub(before);
    assert!(growth <= MAX_GROWTH_KIB, "{growth} KiB");
    gateway.assert_quiet();
}

/// Whether the other side has not ended the connection, whatever it said.
fn is_open(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(length) => length > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn connections_that_dawdle_are_ended_and_harm_nobody() {
    let mut gateway = Gateway::start();
    let text = "OPTIONS sip:ping@127.0.0.1 SIP/2.0\r\nX-Never: ending\r\n";
    let mut streams = Vec::new();
    for n in 0..300 {
        let secure = n % 4 == 3;
        let mut stream = from(STRANGER, if secure { gateway.tls } else { gateway.tcp });
        // Some say nothing, some begin and stop, some drip, some stop half-way in a TLS handshake.
        match n % 4 {
            0 => {}
            1 => stream.write_all(text.as_bytes()).unwrap(),
            2 => stream.write_all(b"O").unwrap(),
            _ => stream.write_all(&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]).unwrap(),
        }
        stream.set_nonblocking(true).unwrap();
        streams.push(stream);
    }
    let (begun, mut open, mut next) = (now(), streams, 0);
    while !open.is_empty() {
        assert!(now() - begun < PATIENCE, "{} connections are still open", open.len());
        gateway.assert_serving();
        let letter = &text.as_bytes()[next % text.len()..][..1];
        next += 1;
        open.retain_mut(is_open);
        for stream in open.iter_mut().filter(|_| next % 5 == 0) {
            let _ = stream.write_all(letter);
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let took = now() - begun;
    assert!(took > Duration::from_secs(5), "patience has some length: {took:?}");
    gateway.assert_quiet();
}
