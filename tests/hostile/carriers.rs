//! Carriers that misbehave: silent, refusing, challenging for ever, answering twice, talking nonsense,
//! breaking off, and answering media from nowhere. Every call ends with the right word within its
//! time, and nothing of it is left.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Type};

use crate::callee::{Callee, OWN, QUIET, SDP, THEIRS, assert_ended, described, kind, response};
use crate::common::{Gateway, PATIENCE, PEER, drain, eventually, header, now, offer};
use crate::failover::{AT_ONCE, SECOND, finish, zone};
use crate::names::Names;

/// A stream of a carrier that a test reads and writes itself.
struct Line {
    stream: TcpStream,
    address: SocketAddr,
    waiting: String,
}

impl Line {
    #[track_caller]
    fn accept(listener: &TcpListener) -> Line {
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        eventually("somebody connects", PATIENCE, || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        Line::on(accepted.unwrap().0, listener)
    }

    fn on(stream: TcpStream, listener: &TcpListener) -> Line {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Line { stream, address: listener.local_addr().unwrap(), waiting: String::new() }
    }

    /// The next message of a kind.
    #[track_caller]
    fn expect(&mut self, wanted: &str) -> String {
        let (until, mut buffer) = (now() + PATIENCE, [0; 8_192]);
        while now() < until {
            while let Some(text) = self.take() {
                if kind(&text) == wanted {
                    return text;
                }
            }
            let Ok(length) = self.stream.read(&mut buffer) else { continue };
            assert!(length > 0, "the stream ended before {wanted} came");
            self.waiting.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        panic!("{wanted} did not come");
    }

    fn take(&mut self) -> Option<String> {
        let (head, rest) = self.waiting.split_once("\r\n\r\n")?;
        let length: usize = header(head, "Content-Length").parse().unwrap_or(0);
        if rest.len() < length {
            return None;
        }
        let whole = head.len() + 4 + length;
        let text = self.waiting[..whole].to_owned();
        self.waiting.drain(..whole);
        Some(text)
    }

    fn answer(&mut self, request: &str, line: &str, sdp: &str) {
        let text = response(self.address, request, line, "line", (SDP, sdp));
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Ends with RST instead of FIN.
    fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A gateway whose carrier has the servers `first` and `second` for streams.
fn streams(
    first: SocketAddr,
    second: SocketAddr,
    (service, transport): (&str, &str),
    settings: &[(&str, &str)],
) -> (Gateway, String, Names) {
    let names = Names::start(zone(service, first, second));
    let servers = names.setting();
    let mut all = vec![("sip.nameservers", &*servers)];
    all.extend(settings);
    let gateway = Gateway::empty(&all);
    let agent = gateway.caller(OWN, "carrier.test", &json!({"transport": transport}));
    (gateway, agent, names)
}

fn listen(ip: Ipv4Addr) -> TcpListener {
    TcpListener::bind((ip, 0)).unwrap()
}

#[test]
fn a_server_that_refuses_the_connection_or_breaks_it_is_left_at_once() {
    for accepts in [false, true] {
        let (first, second) = (listen(PEER), listen(SECOND));
        let place = first.local_addr().unwrap();
        let first = accepts.then_some(first);
        let (gateway, agent, _names) =
            streams(place, second.local_addr().unwrap(), ("_sip._tcp", "TCP"), &[]);
        let begun = now();
        let id = gateway.place(OWN, &agent);
        if let Some(first) = first {
            let mut line = Line::accept(&first);
            line.expect("INVITE");
            line.reset();
        }
        let mut line = Line::accept(&second);
        let invite = line.expect("INVITE");
        let took = now() - begun;
        assert!(took < AT_ONCE, "turned to the second server after {took:?}");
        line.answer(&invite, "200 OK", &offer(SECOND, 9, "RTP/AVP 0", ""));
        line.expect("ACK");
        gateway.await_status(&id, "in_progress");
        gateway.hang_up(&id);
        let bye = line.expect("BYE");
        line.answer(&bye, "200 OK", "");
        assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
        finish(gateway);
    }
}

#[test]
fn a_server_that_resets_the_handshake_is_left_for_one_whose_name_is_right() {
    // The second server is a gateway of its own: it has a certificate for the carrier's name.
    let carrier = Gateway::empty(&[("sip.host", "\"carrier.test\"")]);
    let trunk = carrier.trunk("customers", json!({"allowed_addresses": ["127.0.0.0/8"]}));
    carrier.number(THEIRS, &trunk);
    carrier.agent(support::gateway::echo(), &[THEIRS]);
    let first = listen(PEER);
    let roots = format!("{:?}", carrier.certificate());
    let (gateway, agent, _names) = streams(
        first.local_addr().unwrap(),
        carrier.tls,
        ("_sips._tcp", "TLS"),
        &[("sip.extra_roots", &roots)],
    );
    let id = gateway.place(OWN, &agent);
    Line::accept(&first).reset();
    gateway.await_status(&id, "in_progress");
    gateway.hang_up(&id);
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(gateway);
    // Its certificate is for another name than the one that was called.
    let gateway = Gateway::empty(&[("sip.extra_roots", &roots)]);
    let agent = gateway.caller(OWN, &carrier.tls.to_string(), &json!({"transport": "TLS"}));
    let id = gateway.place(OWN, &agent);
    assert_ended(&gateway.ended(&id), "failed", "carrier_unreachable", "carrier");
    finish(gateway);
    finish(carrier);
}

/// A call out that is answered: its id, the connection it has, and where its media is to go.
fn answered(
    gateway: &Gateway,
    agent: &str,
    listener: &TcpListener,
    audio: &UdpSocket,
) -> (String, Line, SocketAddr) {
    let id = gateway.place(OWN, agent);
    let mut line = Line::accept(listener);
    let invite = line.expect("INVITE");
    let port = audio.local_addr().unwrap().port();
    line.answer(&invite, "200 OK", &offer(PEER, port, "RTP/AVP 0", ""));
    line.expect("ACK");
    gateway.await_status(&id, "in_progress");
    (id, line, described(&invite))
}

#[test]
fn a_call_that_ends_while_its_connection_is_replaced_says_so_on_the_next_one() {
    // One connection may wait to be accepted; another has to try again after a second.
    let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((PEER, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::empty(&[]);
    let agent = gateway.caller(OWN, &address.to_string(), &json!({"transport": "TCP"}));
    let audio = UdpSocket::bind((PEER, 0)).unwrap();
    let (id, line, _) = answered(&gateway, &agent, &listener, &audio);
    let ahead = TcpStream::connect(address).unwrap();
    line.reset();
    eventually("the broken connection is noticed", PATIENCE, || {
        gateway.log().iter().any(|line| line.contains("connection lost, opening another"))
    });
    gateway.hang_up(&id);
    eventually("the call has ended", PATIENCE, || {
        gateway.log().iter().any(|line| line.contains("call ended"))
    });
    drop((Line::accept(&listener), ahead));
    let mut line = Line::accept(&listener);
    let bye = line.expect("BYE");
    line.answer(&bye, "200 OK", "");
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(gateway);
}

#[test]
fn a_bye_that_nobody_read_before_its_connection_ended_comes_again_on_the_next_one() {
    let listener = listen(PEER);
    let gateway = Gateway::empty(&[]);
    let address = listener.local_addr().unwrap().to_string();
    let agent = gateway.caller(OWN, &address, &json!({"transport": "TCP"}));
    let audio = UdpSocket::bind((PEER, 0)).unwrap();
    let (id, line, _) = answered(&gateway, &agent, &listener, &audio);
    // FIN: for half a second the gateway still writes what it has to say.
    line.stream.shutdown(Shutdown::Both).unwrap();
    gateway.hang_up(&id);
    let mut next = Line::accept(&listener);
    let bye = next.expect("BYE");
    next.answer(&bye, "200 OK", "");
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(gateway);
}

#[test]
fn a_dialog_that_its_peer_has_taken_to_another_connection_stays_there() {
    let listener = listen(PEER);
    let gateway = Gateway::empty(&[]);
    let address = listener.local_addr().unwrap().to_string();
    let agent = gateway.caller(OWN, &address, &json!({"transport": "TCP"}));
    let id = gateway.place(OWN, &agent);
    let mut first = Line::accept(&listener);
    let invite = first.expect("INVITE");
    first.answer(&invite, "200 OK", &offer(PEER, 9, "RTP/AVP 0", ""));
    first.expect("ACK");
    gateway.await_status(&id, "in_progress");
    let contact = header(&invite, "Contact");
    let host = contact.trim_start_matches("<sip:").split([';', '>']).next().unwrap();
    let to: SocketAddr = host.rsplit('@').next().unwrap().parse().unwrap();
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((PEER, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut own = Line::on(socket.into(), &listener);
    let options = format!(
        "OPTIONS {target} SIP/2.0\r\nVia: SIP/2.0/TCP {address};branch=z9hG4bKown\r\n\
         Max-Forwards: 70\r\nFrom: {ours};tag=line\r\nTo: {theirs}\r\nCall-ID: {call_id}\r\n\
         CSeq: 7 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        target = contact.trim_matches(['<', '>']),
        ours = header(&invite, "To"),
        theirs = header(&invite, "From"),
        call_id = header(&invite, "Call-ID"),
    );
    own.stream.write_all(options.as_bytes()).unwrap();
    own.expect("200 OPTIONS");
    first.reset();
    listener.set_nonblocking(true).unwrap();
    std::thread::park_timeout(QUIET);
    assert!(listener.accept().is_err(), "another connection although there is one");
    gateway.hang_up(&id);
    let bye = own.expect("BYE");
    own.answer(&bye, "200 OK", "");
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(gateway);
}

#[test]
fn a_connection_that_ends_as_soon_as_it_is_opened_is_not_opened_again_until_the_bye() {
    let listener = listen(PEER);
    let gateway = Gateway::empty(&[]);
    let address = listener.local_addr().unwrap().to_string();
    let agent = gateway.caller(OWN, &address, &json!({"transport": "TCP"}));
    let audio = UdpSocket::bind((PEER, 0)).unwrap();
    let (id, line, _) = answered(&gateway, &agent, &listener, &audio);
    line.reset();
    Line::accept(&listener).reset();
    std::thread::park_timeout(QUIET);
    assert!(listener.accept().is_err(), "a third connection");
    gateway.hang_up(&id);
    let mut last = Line::accept(&listener);
    let bye = last.expect("BYE");
    last.answer(&bye, "200 OK", "");
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(gateway);
}

#[test]
fn a_connection_that_breaks_in_mid_call_is_opened_again_and_the_call_goes_on() {
    let listener = listen(PEER);
    let gateway = Gateway::empty(&[("media.timeout_seconds", "2")]);
    let address = listener.local_addr().unwrap().to_string();
    let agent = gateway.caller(OWN, &address, &json!({"transport": "TCP"}));
    let audio = UdpSocket::bind((PEER, 0)).unwrap();
    let place = |gateway: &Gateway| {
        let (id, line, media) = answered(gateway, &agent, &listener, &audio);
        line.reset();
        (id, media)
    };
    let (id, media) = place(&gateway);
    for n in 0..50_u16 {
        let packet = crate::common::rtp(n, u32::from(n) * 160, 7, &[0xff; 160]);
        audio.send_to(&packet, media).unwrap();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(gateway.conversation(&id)["status"], "in_progress", "audio goes on, and so does it");
    let hung_up = || {
        let mut line = Line::accept(&listener);
        let bye = line.expect("BYE");
        line.answer(&bye, "200 OK", "");
    };
    assert_ended(&gateway.ended(&id), "completed", "media_timed_out", "carrier");
    hung_up();
    let (id, _) = place(&gateway);
    gateway.hang_up(&id);
    hung_up();
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    // With nobody there any more the call ends all the same, in silence.
    let (id, _) = place(&gateway);
    drop(listener);
    gateway.hang_up(&id);
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(gateway);
}

/// A gateway that calls out over a single datagram server.
fn single(settings: &[(&str, &str)], more: &Value) -> (Gateway, Callee, String) {
    let gateway = Gateway::empty(settings);
    let callee = Callee::new(PEER, gateway.udp);
    let agent = gateway.caller(OWN, &callee.address(), more);
    (gateway, callee, agent)
}

#[test]
fn every_refusal_ends_the_call_with_the_carriers_own_words() {
    let (gateway, callee, agent) = single(&[], &json!({}));
    for (line, status, code, party) in [
        ("301 Moved Permanently", "failed", "carrier_refused", "carrier"),
        ("400 Bad Request", "failed", "carrier_refused", "carrier"),
        ("403 Not \"yours\"; at=all", "failed", "carrier_refused", "carrier"),
        ("404 Not Found", "failed", "carrier_refused", "carrier"),
        ("408 Request Timeout", "unanswered", "no_answer", "callee"),
        ("480 Temporarily Unavailable", "unanswered", "no_answer", "callee"),
        ("486 Busy Here", "unanswered", "callee_busy", "callee"),
        ("488 Not Acceptable Here", "failed", "media_refused", "carrier"),
        ("500 Server Internal Error", "failed", "carrier_unreachable", "carrier"),
        ("503 Service Unavailable", "failed", "carrier_unreachable", "carrier"),
        ("600 Busy Everywhere", "unanswered", "callee_busy", "callee"),
        ("603 Decline", "unanswered", "callee_declined", "callee"),
        ("699 Whatever", "failed", "carrier_refused", "carrier"),
    ] {
        let id = gateway.place(OWN, &agent);
        let invite = callee.expect("INVITE");
        callee.answer(&invite, "183 Session Progress", "", "");
        callee.answer(&invite, line, "Retry-After: 1\r\n", "");
        callee.expect("ACK");
        let record = gateway.ended(&id);
        assert_ended(&record, status, code, party);
        let (number, phrase) = line.split_once(' ').unwrap();
        let end = &record["end_reason"];
        assert_eq!(end["sip_code"].to_string(), number, "{record:#}");
        assert_eq!(end["sip_reason"], phrase, "{record:#}");
    }
    finish(gateway);
}

#[test]
fn a_carrier_that_challenges_for_ever_is_given_up() {
    let (gateway, callee, agent) = single(&[], &json!({}));
    for (stale, status, header) in [
        (false, "401 Unauthorized", "WWW-Authenticate"),
        (false, "407 Proxy Authentication Required", "Proxy-Authenticate"),
        (true, "401 Unauthorized", "WWW-Authenticate"),
    ] {
        let id = gateway.place(OWN, &agent);
        let mut asked = 0;
        while let Some(request) = callee.next(QUIET) {
            if kind(&request) != "INVITE" {
                continue;
            }
            asked += 1;
            assert!(asked < 10, "it goes on for ever");
            let challenge = format!(
                "{header}: Digest realm=\"carrier\", nonce=\"n{asked}\", algorithm=MD5, \
                 qop=\"auth\", stale={stale}\r\n"
            );
            callee.answer(&request, status, &challenge, "");
        }
        assert!((2..=4).contains(&asked), "{asked} INVITEs");
        let record = gateway.ended(&id);
        assert_ended(&record, "failed", "carrier_unauthorised", "carrier");
        assert_eq!(record["end_reason"]["sip_code"].to_string(), status[..3], "{record:#}");
    }
    finish(gateway);
}

#[test]
fn a_second_answer_is_acknowledged_and_hung_up() {
    let (gateway, callee, agent) = single(&[], &json!({}));
    let id = gateway.place(OWN, &agent);
    let invite = callee.expect("INVITE");
    callee.answer_as(&invite, "180 Ringing", "one", ("", ""));
    callee.answer_as(&invite, "180 Ringing", "two", ("", ""));
    callee.answer_as(&invite, "200 OK", "one", (SDP, &callee.sdp()));
    callee.answer_as(&invite, "200 OK", "two", (SDP, &callee.sdp()));
    let mut acked = Vec::new();
    let mut ended = Vec::new();
    eventually("both are acknowledged and one is ended", PATIENCE, || {
        if let Some(request) = callee.next(QUIET) {
            let tag = if request.contains(";tag=one") { "one" } else { "two" };
            match &*kind(&request) {
                "ACK" => acked.push(tag),
                "BYE" => {
                    callee.answer(&request, "200 OK", "", "");
                    ended.push(tag);
                }
                other => panic!("{other}"),
            }
        }
        acked.len() == 2 && ended.len() == 1
    });
    assert_eq!((&*acked, &*ended), (&["one", "two"][..], &["two"][..]));
    // The same answer once more: acknowledged once more (RFC 3261 §13.2.2.4), and that is all.
    callee.answer_as(&invite, "200 OK", "one", (SDP, &callee.sdp()));
    let again = callee.phone.receive(PATIENCE).unwrap();
    assert!(kind(&again) == "ACK" && again.contains(";tag=one"), "{again}");
    gateway.hang_up(&id);
    callee.take_bye();
    assert_eq!(gateway.conversations().len(), 1);
    finish(gateway);
}

/// What no SIP element should say to an INVITE, with which the call goes on all the same.
fn nonsense(callee: &Callee, invite: &str) -> Vec<Vec<u8>> {
    let ok = response(callee.phone.address, invite, "200 OK", "x", (SDP, &callee.sdp()));
    let mut all: Vec<Vec<u8>> = [
        ok.replace("SIP/2.0 200", "SIP/2.0 20"),
        ok.replace("SIP/2.0 200", "SIP/2.0 000"),
        ok.replace("SIP/2.0 200", "SIP/2.0 999999999999"),
        ok.replace("SIP/2.0 200", "SIP/9.0 200"),
        ok.replace("branch=z9hG4bK", "branch=z9hG4bKother"),
        ok.replace("CSeq: 1 INVITE", "CSeq: 99 INVITE"),
        ok.replace("CSeq: 1 INVITE", "CSeq: 1 BYE"),
        ok.replace("Call-ID:", "X-Call-ID:"),
        ok.replace("Via:", "X-Via:"),
        ok.replace("From:", "Via: SIP/2.0/UDP elsewhere;branch=z9hG4bKx\r\nFrom:"),
        ok.replace("\r\n", "\n").replace(": ", "\0"),
        ok[..ok.len() / 2].to_owned(),
        ok[..40].to_owned(),
    ]
    .map(String::into_bytes)
    .into();
    all.extend([vec![], vec![0; 1_400], vec![0xff; 65_000], b"SIP/2.0 200 OK\r\n\r\n".to_vec()]);
    all
}

#[test]
fn nonsense_from_a_carrier_changes_nothing() {
    let (gateway, callee, agent) = single(&[], &json!({}));
    let id = gateway.place(OWN, &agent);
    let invite = callee.expect("INVITE");
    for text in nonsense(&callee, &invite) {
        callee.phone.send(&text);
    }
    let rest = callee.rest();
    assert!(rest.is_empty(), "{rest:#?}");
    assert_ne!(gateway.conversation(&id)["status"], "in_progress");
    callee.accept(&invite);
    callee.expect("ACK");
    gateway.await_status(&id, "in_progress");
    for text in nonsense(&callee, &invite) {
        callee.phone.send(&text);
    }
    assert_eq!(gateway.conversation(&id)["status"], "in_progress");
    gateway.hang_up(&id);
    let bye = callee.expect("BYE");
    for text in nonsense(&callee, &bye) {
        callee.phone.send(&text);
    }
    callee.answer(&bye, "200 OK", "", "");
    assert_ended(&gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(gateway);
}

#[test]
fn a_carrier_that_says_nothing_at_all_is_not_a_callee_who_does_not_answer() {
    let (gateway, callee, agent) = single(&[], &json!({"ring_timeout_seconds": 2}));
    let begun = now();
    let silent = gateway.place(OWN, &agent);
    callee.expect("INVITE");
    assert_ended(&gateway.ended(&silent), "failed", "carrier_unreachable", "carrier");
    let took = now() - begun;
    assert!(took < Duration::from_secs(4), "{took:?}");
    let ringing = gateway.place(OWN, &agent);
    let invite = callee.expect("INVITE");
    callee.answer(&invite, "180 Ringing", "", "");
    let cancel = callee.expect("CANCEL");
    callee.answer(&cancel, "200 OK", "", "");
    callee.answer(&invite, "487 Request Terminated", "", "");
    callee.expect("ACK");
    assert_ended(&gateway.ended(&ringing), "unanswered", "no_answer", "callee");
    assert_eq!(callee.rest(), Vec::<String>::new());
    drop(callee);
    // The INVITE that nobody acknowledged is given up with its transaction (64·T1); no call is left.
    gateway.wait_until_quiet();
}

#[test]
fn an_answer_that_no_media_can_follow_is_hung_up() {
    let (gateway, callee, agent) = single(&[], &json!({}));
    let with = |address: &str, media: &str| {
        format!("v=0\r\no=- 1 1 IN IP4 {PEER}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{media}")
    };
    let audio = "m=audio 4000 RTP/AVP 0\r\n";
    for sdp in [
        String::new(),
        "hello".to_owned(),
        with("224.0.0.5", audio),
        with("239.1.2.3/127", audio),
        with("255.255.255.255", audio),
        with("127.0.0.2", "m=audio 0 RTP/AVP 0\r\n"),
        with("127.0.0.2", "m=video 4000 RTP/AVP 0\r\n"),
        with("127.0.0.2", "m=audio 4000 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\n"),
        with("127.0.0.2", "m=audio 4000 RTP/SAVP 0\r\n"),
        with("127.0.0.2", "m=audio 99999 RTP/AVP 0\r\n"),
    ] {
        let id = gateway.place(OWN, &agent);
        let invite = callee.expect("INVITE");
        callee.accept_with(&invite, &sdp);
        callee.expect("ACK");
        callee.take_bye();
        let record = gateway.ended(&id);
        assert_ended(&record, "failed", "media_refused", "carrier");
        assert!(record["end_reason"]["text"].is_string(), "{sdp}: {record:#}");
    }
    finish(gateway);
}

#[test]
fn media_from_nowhere_ends_the_call_in_its_time() {
    let gateway = Gateway::empty(&[("media.timeout_seconds", "2")]);
    let callee = Callee::new(PEER, gateway.udp);
    // The carrier is one address; what it describes is another.
    let listed = json!({"allowed_addresses": [PEER]});
    let trunk = gateway.way_out_with(&callee.address(), &json!({}), listed);
    gateway.number(OWN, &trunk);
    let agent = gateway.agent(support::gateway::tone(), &[OWN]);
    let bystander = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 99), 0)).unwrap();
    let strange = offer(
        Ipv4Addr::new(127, 0, 0, 99),
        bystander.local_addr().unwrap().port(),
        "RTP/AVP 0",
        "",
    );
    for own in [false, true] {
        let id = gateway.place(OWN, &agent);
        let invite = callee.expect("INVITE");
        // Where nobody is, or where we are ourselves: an echo that would answer itself for ever.
        let ours = described(&invite);
        let looped = offer(Ipv4Addr::LOCALHOST, ours.port(), "RTP/AVP 0", "");
        callee.accept_with(&invite, if own { &looped } else { &strange });
        callee.expect("ACK");
        let begun = now();
        callee.take_bye();
        let took = now() - begun;
        assert!(took < Duration::from_secs(4), "{took:?}");
        let record = gateway.ended(&id);
        let code = record["end_reason"]["code"].as_str().unwrap();
        assert!(["media_timed_out", "media_refused"].contains(&code), "{record:#}");
        assert_eq!(record["end_reason"]["party"], "carrier", "{record:#}");
    }
    let strays = drain(&bystander);
    println!("{strays} packets to an address that nobody vouched for");
    assert!(strays <= 4, "{strays} packets to an address that nobody vouched for");
    finish(gateway);
}
