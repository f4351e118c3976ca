//! Trunks that register with their carriers, to a registrar that this test plays.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use support::gateway::echo;
use support::{Gateway, wait};

const NUMBER: &str = "+15550100100";
const USER: &str = "customer";
const PASSWORD: &str = "correct horse battery";
const NONCE: &str = "4f1c2d";

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A carrier's registrar over UDP.
struct Registrar {
    socket: UdpSocket,
    peer: SocketAddr,
}

/// One message of SIP.
struct Message(String);

impl Message {
    fn header(&self, name: &str) -> &str {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(is, _)| *is == name).map(|(_, value)| value).unwrap_or_default()
    }

    fn first_line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// One parameter of the Authorization header.
    fn credential(&self, name: &str) -> &str {
        let value = self.header("Authorization").trim_start_matches("Digest ");
        let parts = value.split(',').filter_map(|part| part.trim().split_once('='));
        let mut found = parts.filter(|(is, _)| *is == name).map(|(_, value)| value);
        found.next().unwrap_or_default().trim_matches('"')
    }
}

impl Registrar {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let peer = socket.local_addr().unwrap();
        Self { socket, peer }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn receive(&mut self) -> Message {
        let mut bytes = [0; 65_536];
        let (length, peer) = self.socket.recv_from(&mut bytes).expect("a message in time");
        self.peer = peer;
        Message(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// The next REGISTER.
    fn register(&mut self) -> Message {
        loop {
            let message = self.receive();
            if message.first_line().starts_with("REGISTER ") {
                return message;
            }
        }
    }

    fn answer(&self, request: &Message, line: &str, more: &str) {
        let mut text = format!("SIP/2.0 {line}\r\n");
        for name in ["Via", "From", "Call-ID", "CSeq"] {
            text.push_str(&format!("{name}: {}\r\n", request.header(name)));
        }
        text.push_str(&format!("To: {};tag=r1\r\n{more}", request.header("To")));
        self.send(&format!("{text}Content-Length: 0\r\n\r\n"));
    }

    fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.peer).unwrap();
    }

    fn challenge(&self, request: &Message) {
        let header = format!(
            "WWW-Authenticate: Digest realm=\"carrier\", nonce=\"{NONCE}\", algorithm=MD5, \
             qop=\"auth\"\r\n"
        );
        self.answer(request, "401 Unauthorized", &header);
    }

    /// Grants a binding that lasts for an hour, or its end.
    fn accept(&self, request: &Message) {
        let gone = request.header("Expires") == "0";
        let contact = format!("Contact: {};expires=3600\r\n", request.header("Contact"));
        self.answer(request, "200 OK", if gone { "" } else { &contact });
    }

    /// Takes one registration, challenge and all; the request that was accepted.
    fn take(&mut self) -> Message {
        let first = self.register();
        assert_eq!(first.header("Authorization"), "");
        self.challenge(&first);
        let second = self.register();
        assert_eq!(second.header("Call-ID"), first.header("Call-ID"));
        assert_right(&second);
        self.accept(&second);
        second
    }
}

fn md5(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The credentials are those of RFC 7616 §3.4.1 with `qop=auth`.
fn assert_right(request: &Message) {
    let uri = request.first_line().split(' ').nth(1).unwrap();
    assert_eq!(request.credential("username"), USER);
    assert_eq!(request.credential("uri"), uri);
    let secret = md5(&format!("{USER}:carrier:{PASSWORD}"));
    let what = md5(&format!("REGISTER:{uri}"));
    let (nc, cnonce) = (request.credential("nc"), request.credential("cnonce"));
    let expected = md5(&format!("{secret}:{NONCE}:{nc}:{cnonce}:auth:{what}"));
    assert_eq!(request.credential("response"), expected);
}

fn await_registered(gateway: &Gateway, count: f64) {
    wait::until("the number of registered trunks", PATIENCE, || {
        let held = gateway.metric("gateway_trunks_registered", "");
        ((held - count).abs() < 0.5).then_some(())
    });
}

fn way_out(registrar: &Registrar) -> Value {
    json!({ "address": registrar.address().to_string(), "auth_username": USER,
        "auth_password": PASSWORD, "register": true })
}

/// A call that the carrier brings to the contact it was given, answered and hung up.
fn call_in(registrar: &mut Registrar, contact: &str) {
    let here = registrar.address();
    let uri = contact.trim_start_matches('<').trim_end_matches('>').to_owned();
    let head = |method: &str, cseq: u32, to: &str| {
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{method}{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+4930123456@{here}>;tag=f1\r\nTo: {to}\r\n\
             Call-ID: in-1\r\nCSeq: {cseq} {method}\r\nContact: <sip:{here}>\r\n"
        )
    };
    let to = format!("<sip:{NUMBER}@{here}>");
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
               m=audio 40000 RTP/AVP 0\r\n";
    let invite = head("INVITE", 1, &to);
    let length = sdp.len();
    registrar.send(&format!(
        "{invite}Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}"
    ));
    let answered = loop {
        let message = registrar.receive();
        if message.first_line().starts_with("SIP/2.0 200") {
            break message;
        }
        assert!(message.first_line().starts_with("SIP/2.0 1"), "{}", message.0);
    };
    let to = answered.header("To").to_owned();
    registrar.send(&format!("{}Content-Length: 0\r\n\r\n", head("ACK", 1, &to)));
    registrar.send(&format!("{}Content-Length: 0\r\n\r\n", head("BYE", 2, &to)));
}

#[test]
fn a_trunk_registers_is_called_at_its_contact_and_takes_its_binding_back() {
    let gateway = Gateway::start();
    let mut registrar = Registrar::new();
    let line = gateway.way_out(NUMBER, way_out(&registrar), echo());
    let request = registrar.take();
    let address = registrar.address();
    assert_eq!(request.first_line(), format!("REGISTER sip:{address} SIP/2.0"));
    assert_eq!(request.header("To"), format!("<sip:{USER}@127.0.0.1>"));
    assert_eq!(request.header("Expires"), "600");
    await_registered(&gateway, 1.0);

    // The contact names the trunk: the carrier's calls are told from all others.
    let trunk = gateway.rest().get(&format!("/core/trunks/{}", line.trunk));
    let slug = trunk["inbound_uri"].as_str().unwrap().trim_start_matches("sip:");
    let slug = slug.split(['@', '.']).next().unwrap();
    let contact = request.header("Contact").to_owned();
    assert!(contact.starts_with(&format!("<sip:{slug}@127.0.0.1:")), "{contact}");
    call_in(&mut registrar, &contact);
    let record = gateway.ended_conversation();
    assert_eq!(record["trunk_id"], json!(line.trunk));
    assert_eq!(record["agent_number"], NUMBER);

    let body = json!({ "outbound_config": { "address": address.to_string(),
        "auth_username": USER, "register": false } });
    let path = format!("/core/trunks/{}", line.trunk);
    assert_eq!(gateway.rest().send("PUT", &path, Some(&body)).status, 200);
    let last = registrar.take();
    assert_eq!(last.header("Expires"), "0");
    assert_eq!(last.header("Call-ID"), request.header("Call-ID"));
    await_registered(&gateway, 0.0);
    gateway.finish();
}

#[test]
fn a_carrier_that_wants_a_longer_binding_gets_one_and_one_that_refuses_is_left_alone() {
    let gateway = Gateway::start();
    let (mut patient, mut refusing) = (Registrar::new(), Registrar::new());
    gateway.way_out(NUMBER, way_out(&patient), echo());
    gateway.way_out("+15550100101", way_out(&refusing), echo());
    let first = patient.register();
    patient.answer(&first, "423 Interval Too Brief", "Min-Expires: 1800\r\n");
    let second = patient.register();
    assert_eq!(second.header("Expires"), "1800");
    patient.accept(&second);

    let refused = refusing.register();
    refusing.answer(&refused, "403 Forbidden", "");
    await_registered(&gateway, 1.0);
    refusing.socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut bytes = [0; 2_048];
    while let Ok((len, _)) = refusing.socket.recv_from(&mut bytes) {
        // A slow machine repeats the one that was not answered in half a second.
        let again = String::from_utf8_lossy(&bytes[..len]).into_owned();
        let same = format!("CSeq: {}", refused.header("CSeq"));
        assert!(
            again.contains(&same),
            "a refusal is not answered by asking again at once: {again}"
        );
    }
    gateway.finish();
}
