//! What must not cross from one leg of a call to another, or leave the gateway at all: passwords,
//! headers, packets to addresses that somebody else chose; and calls that lead back to where they
//! began.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use crate::callee::{
    Callee, OWN, QUIET, Ringing, SDP, THEIRS, assert_ended, kind, lines, response,
};
use crate::common::{
    Dialog, ECHO, Gateway, OTHER_PEER, PATIENCE, PEER, Phone, STRANGER, drain, eventually, fresh,
    now, offer, soak, status,
};
use crate::injection::{INTERNAL, spellings};
use crate::names::Names;

/// The number of the SIP agent.
const DESK: &str = "+15550100902";

/// The challenges of one cell: how the carrier asks, and with which hashes.
const ASKS: [(&str, &[&str]); 6] = [
    ("401 Unauthorized", &["MD5"]),
    ("401 Unauthorized", &["SHA-256"]),
    ("401 Unauthorized", &["SHA-256", "MD5", "SHA-512-256"]),
    ("407 Proxy Authentication Required", &["MD5"]),
    ("407 Proxy Authentication Required", &["SHA-256"]),
    ("407 Proxy Authentication Required", &["MD5", "MD5", "SHA-256"]),
];

/// The header lines that go with a challenge.
fn challenges((line, hashes): (&str, &[&str]), realm: &str) -> String {
    let name = if line.starts_with("401") { "WWW-Authenticate" } else { "Proxy-Authenticate" };
    let mut lines = String::new();
    for hash in hashes {
        let nonce = fresh();
        let _ = write!(
            lines,
            "{name}: Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={hash}, qop=\"auth\"\r\n"
        );
    }
    lines
}

/// Every credential in what was received, with the user it names.
fn credentials(texts: &[String]) -> Vec<String> {
    let names = ["Authorization", "Proxy-Authorization"];
    let all = texts.iter().flat_map(|text| names.map(|name| lines(text, name)));
    all.filter(|line| !line.is_empty()).collect()
}

/// What a SIP agent that has no credentials of its own is sent, though it asks for some: first when
/// it is called, then in a call.
fn ask_the_desk(gateway: &Gateway, desk: &Callee, ask: (&str, &[&str])) -> Vec<String> {
    let phone = Phone::new(PEER, gateway.udp);
    let demand = challenges(ask, "trunkline-carrier");
    let mut seen = Vec::new();
    // INVITE.
    let mut ringing = Ringing::begin(&phone, DESK, "");
    let invite = desk.expect("INVITE");
    desk.answer(&invite, ask.0, &demand, "");
    seen.push(desk.expect("ACK"));
    ringing.response(480);
    ringing.acknowledge_refusal();
    // A re-INVITE that carries the caller's hold, and the BYE.
    let mut ringing = Ringing::begin(&phone, DESK, "");
    let invite = desk.expect("INVITE");
    desk.accept(&invite);
    seen.push(desk.expect("ACK"));
    let answer = ringing.response(200);
    let mut call = ringing.answered(&answer, true);
    assert_eq!(status(&call.reinvite(&offer(PEER, 9, "RTP/AVP 0", "a=sendonly\r\n"))), 200);
    let invite = desk.expect("INVITE");
    desk.answer(&invite, ask.0, &demand, "");
    seen.push(desk.expect("ACK"));
    call.hang_up();
    let bye = desk.expect("BYE");
    desk.answer(&bye, ask.0, &demand, "");
    seen.extend([invite, bye]);
    seen.extend(desk.rest());
    seen
}

#[test]
fn an_agent_is_never_sent_a_trunks_credentials() {
    let gateway = Gateway::empty(&[]);
    let desk = Callee::new(PEER, gateway.udp);
    // The trunk of the number has credentials, and its carrier may be asked for them.
    let trunk = gateway.way_out("127.0.0.6:5099", &json!({}));
    gateway.number(DESK, &trunk);
    let runtime = json!({"type": "sip", "uri": format!("sip:desk@{}", desk.address())});
    gateway.agent(runtime, &[DESK]);
    let mut cells = 0;
    for ask in ASKS {
        let seen = ask_the_desk(&gateway, &desk, ask);
        assert_eq!(credentials(&seen), Vec::<String>::new(), "{ask:?}");
        cells += 3;
    }
    println!("{cells} challenges of an agent, 0 credentials");
    finish(gateway);
}

fn finish(mut gateway: Gateway) {
    gateway.assert_quiet();
}

/// Two trunks of two carriers: each is asked in the other's realm, by every kind of request.
#[test]
fn a_carrier_is_sent_its_own_trunks_credentials_and_nobody_elses() {
    let gateway = Gateway::empty(&[]);
    let carriers = ["one", "two"].map(|name| {
        let callee = Callee::new(PEER, gateway.udp);
        let login = json!({"auth_username": name, "auth_password": format!("secret of {name}"),
            "transfer_mode": "refer"});
        let number = if name == "one" { "+15550100911" } else { "+15550100912" };
        let agent = gateway.caller(number, &callee.address(), &login);
        (name, number, callee, agent)
    });
    let mut cells = 0;
    for ask in ASKS {
        for (n, (name, number, callee, agent)) in carriers.iter().enumerate() {
            let realm = format!("realm of {}", carriers[1 - n].0);
            let id = gateway.place(number, agent);
            let mut seen = Vec::new();
            let mut challenged = |wanted: &str| {
                let request = callee.expect(wanted);
                callee.answer(&request, ask.0, &challenges(ask, &realm), "");
                cells += 1;
                let again = std::iter::from_fn(|| callee.next(PATIENCE)).find(|text| {
                    seen.push(text.clone());
                    kind(text) == wanted
                });
                again.expect("it is tried again")
            };
            let invite = challenged("INVITE");
            callee.accept(&invite);
            callee.expect("ACK");
            gateway.await_status(&id, "in_progress");
            assert_eq!(gateway.hand_on(&id, THEIRS), 202);
            let refer = challenged("REFER");
            callee.answer(&refer, "603 Decline", "", "");
            eventually("the transfer has failed", PATIENCE, || {
                gateway.conversation(&id)["transfer"]["status"] == "failed"
            });
            gateway.hang_up(&id);
            let bye = challenged("BYE");
            callee.answer(&bye, "200 OK", "", "");
            let sent = credentials(&seen);
            assert!(sent.len() >= 3, "{ask:?}: {seen:#?}");
            let own = format!("username=\"{name}\"");
            assert!(sent.iter().all(|line| line.contains(&own)), "{sent:#?}");
            let hash = if ask.1.contains(&"SHA-256") { "=SHA-" } else { "=MD5" };
            assert!(sent.iter().all(|line| line.contains(hash)), "the weaker hash: {sent:#?}");
            gateway.ended(&id);
        }
    }
    println!("{cells} challenges in another's realm, 0 credentials of another");
    finish(gateway);
}

#[test]
fn a_caller_from_anywhere_is_not_sent_the_trunks_credentials() {
    let gateway = Gateway::empty(&[]);
    gateway.pbx("for the one who asks how it is", "DISABLE");
    let trunk = gateway.way_out_with("127.0.0.6:5099", &json!({}), json!({}));
    gateway.number(ECHO, &trunk);
    gateway.agent(support::gateway::echo(), &[ECHO]);
    let mut cells = 0;
    for ask in ASKS {
        let peer = Callee::new(STRANGER, gateway.udp);
        let call = peer.phone.dial(ECHO, &peer.sdp()).unwrap();
        let mut id = String::new();
        eventually("the call is up", PATIENCE, || {
            let all = gateway.conversations();
            let up = all.iter().find(|one| one["status"] == "in_progress");
            up.and_then(|one| one["id"].as_str()).unwrap_or_default().clone_into(&mut id);
            !id.is_empty()
        });
        gateway.hang_up(&id);
        let bye = peer.expect("BYE");
        peer.answer(&bye, ask.0, &challenges(ask, "trunkline-carrier"), "");
        assert_eq!(credentials(&peer.rest()), Vec::<String>::new());
        cells += 1;
        drop(call);
    }
    println!("{cells} challenges of a stranger, 0 credentials");
    finish(gateway);
}

#[test]
fn no_header_of_a_caller_reaches_the_agent() {
    let gateway = Gateway::empty(&[]);
    let desk = Callee::new(PEER, gateway.udp);
    gateway.desk(DESK, &desk.address(), &json!({"headers": {"X-Called": "{called_number}"}}));
    let (mut sent, mut passed) = (0, 0);
    for line in INTERNAL.iter().flat_map(|name| spellings(name)) {
        let phone = Phone::new(PEER, gateway.udp);
        let ringing = Ringing::begin(&phone, DESK, &line);
        sent += 1;
        let mut refused = false;
        let invite = loop {
            if let Some(text) = desk.next(Duration::from_millis(10)) {
                break Some(text);
            }
            refused |= phone.received().iter().any(|text| status(text) == 400);
            if refused {
                break None;
            }
        };
        let Some(invite) = invite else { continue };
        passed += 1;
        assert!(!invite.contains("canary") && !invite.contains("8889999"), "{line:?}: {invite}");
        let allowed = [
            "Via",
            "Max-Forwards",
            "From",
            "To",
            "Call-ID",
            "CSeq",
            "Contact",
            "Allow",
            "User-Agent",
            "X-Conversation-Id",
            "X-Organization-Id",
            "X-Agent-Id",
            "X-Agent-Version-Id",
            "X-Called",
            "Session-ID",
            "Content-Type",
            "Content-Length",
        ];
        let head = invite.split("\r\n\r\n").next().unwrap();
        for name in head.lines().skip(1).filter_map(|line| line.split(':').next()) {
            assert!(allowed.contains(&name), "{line:?} brought {name}");
        }
        desk.answer(&invite, "486 Busy Here", "X-Evil: canary\r\nServer: canary\r\n", "");
        desk.expect("ACK");
        let answer = phone.received().concat();
        // Record-Route is the one of these that a response has to repeat (RFC 3261 §12.1.1).
        let repeats = line.to_ascii_lowercase().starts_with("record-route");
        assert!(repeats || !answer.contains("canary"), "{line:?}: {answer}");
        ringing.acknowledge_refusal();
    }
    println!("{sent} spellings, {passed} INVITEs reached the agent");
    assert!(sent >= 200 && passed >= 100, "{passed} of {sent}");
    gateway.wait_until_quiet();
    finish(gateway);
}

#[test]
fn no_line_end_gets_into_a_message_through_the_api() {
    let gateway = Gateway::empty(&[]);
    let callee = Callee::new(PEER, gateway.udp);
    let agent = gateway.caller(OWN, &callee.address(), &json!({"transfer_mode": "refer"}));
    let ends =
        ["\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "\0", "%0d%0aX-Evil: 1", ";x", "?x=1"];
    let refused = |path: &str, body: &Value| {
        let reply = gateway.call("POST", path, Some(body));
        assert_eq!(reply.status, 422, "{path} {body}: {}", reply.text());
    };
    let versions = format!("/core/agents/{agent}/versions");
    for end in ends {
        let number = format!("{THEIRS}{end}");
        let call = |user: &str, own: &str| json!({"channel": "telephone", "user_id": user, "agent_number": own});
        refused("/core/conversations", &call(&number, OWN));
        refused("/core/conversations", &call(THEIRS, &format!("{OWN}{end}")));
        let control = end.contains(['\r', '\n', '\0']);
        for (field, value) in [
            ("uri", format!("sip:a{end}@127.0.0.1")),
            ("auth_username", format!("a{end}")),
            ("transport", format!("UDP{end}")),
        ] {
            if control || field == "transport" {
                let mut runtime = json!({"type": "sip", "uri": "sip:a@127.0.0.1"});
                runtime[field] = json!(value);
                refused(&versions, &json!({"config": {"runtime": runtime}}));
            }
        }
        if control {
            for headers in [json!({"X-A": format!("b{end}")}), json!({format!("X-A{end}"): "b"})] {
                let runtime = json!({"type": "sip", "uri": "sip:a@127.0.0.1", "headers": headers});
                refused(&versions, &json!({"config": {"runtime": runtime}}));
            }
        }
    }
    // Data of the customer's own may hold anything, and goes nowhere.
    let body = json!({"channel": "telephone", "user_id": THEIRS, "agent_number": OWN,
        "agent_id": agent, "custom_metadata": {"a\r\nX-Evil: 1": "b\r\nX-Evil: 1"},
        "initial_context": "c\r\nX-Evil: 1"});
    let reply = gateway.call("POST", "/core/conversations", Some(&body));
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.json()["conversation"]["id"].as_str().unwrap().to_owned();
    let invite = callee.expect("INVITE");
    assert!(!invite.contains("Evil"), "{invite}");
    callee.accept(&invite);
    callee.expect("ACK");
    gateway.await_status(&id, "in_progress");
    for end in ends {
        let number = format!("{THEIRS}{end}");
        refused(&format!("/core/conversations/{id}/transfer"), &json!({"transfer_number": number}));
    }
    gateway.hang_up(&id);
    callee.take_bye();
    finish(gateway);
}

#[test]
fn answers_go_to_where_requests_came_from_and_are_no_more_than_they() {
    let gateway = Gateway::start();
    let victim = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 98), 0)).unwrap();
    let place = victim.local_addr().unwrap();
    let vias = [
        format!("SIP/2.0/UDP {place};branch=z9hG4bK"),
        format!("SIP/2.0/UDP {place};rport;branch=z9hG4bK"),
        format!("SIP/2.0/UDP h;received={};rport={};branch=z9hG4bK", place.ip(), place.port()),
        format!("SIP/2.0/UDP {place};maddr={};branch=z9hG4bK", place.ip()),
        format!("SIP/2.0/UDP {place};maddr={};ttl=255;branch=z9hG4bK", place.ip()),
        format!(
            "SIP/2.0/UDP h:{};maddr={};received={};branch=z9hG4bK",
            place.port(),
            place.ip(),
            place.ip()
        ),
        format!("SIP/2.0/TCP {place};branch=z9hG4bK"),
    ];
    let (mut asked, mut bytes_in, mut bytes_out) = (0_u32, 0, 0);
    for via in vias {
        for method in ["OPTIONS", "INVITE", "REGISTER", "BYE", "NONSENSE"] {
            for ip in [PEER, OTHER_PEER, STRANGER] {
                let phone = Phone::new(ip, gateway.udp);
                let dialog = Dialog::new(&phone, &format!("sip:{ECHO}@{}", gateway.udp));
                let sdp = offer(PEER, 4_000, "RTP/AVP 0", "");
                let text = dialog.request(&phone, method, SDP, &sdp);
                let (before, after) = text.split_once("Via: ").unwrap();
                let (_, after) = after.split_once("\r\n").unwrap();
                let text = format!("{before}Via: {via}{}\r\n{after}", fresh());
                phone.send(text.as_bytes());
                asked += 1;
                if ip == STRANGER {
                    bytes_in += text.len();
                    bytes_out += phone.received().iter().map(String::len).sum::<usize>();
                }
            }
        }
    }
    // INVITEs that nobody acknowledged are answered again and again: never elsewhere.
    std::thread::park_timeout(Duration::from_millis(1_200));
    assert_eq!(drain(&victim), 0, "packets to somebody who asked for none");
    println!(
        "{asked} requests, 0 packets to the victim; a stranger: {bytes_in} in, {bytes_out} out"
    );
    assert_eq!(bytes_out, 0, "a stranger is not answered");
    drop(gateway);
}

/// URIs of every kind that lead somewhere they should not.
fn places(canary: SocketAddr, own: &Gateway) -> Vec<String> {
    let SocketAddr::V4(v4) = canary else { panic!("IPv4 here") };
    let number = u32::from(*v4.ip());
    let [a, b, c, d] = v4.ip().octets();
    let port = canary.port();
    let hosts = [
        format!("{}:{port}", v4.ip()),
        format!("{number}:{port}"),
        format!("{number:#x}:{port}"),
        format!("0{number:o}:{port}"),
        format!("0{a:o}.{b}.{c}.{d}:{port}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}:{port}"),
        format!("{a}.{d}:{port}"),
        format!("[::ffff:{}]:{port}", v4.ip()),
        format!("[64:ff9b::{}]:{port}", v4.ip()),
        format!("[::1]:{port}"),
        format!("[::]:{port}"),
        format!("0.0.0.0:{port}"),
        format!("localhost:{port}"),
        "169.254.169.254:80".to_owned(),
        "224.0.1.75".to_owned(),
        "canary.example".to_owned(),
        "canary.example.:5060".to_owned(),
        format!("{}", own.api),
        format!("{}", own.observe),
        format!("{}", own.udp),
    ];
    let forms: [fn(&str) -> String; 4] = [
        |host| format!("sip:evil@{host}"),
        |host| format!("sip:evil@{host};transport=tcp;lr"),
        |host| format!("sips:evil@{host}"),
        |host| format!("sip:evil@elsewhere.example;maddr={};lr", host.split(':').next().unwrap()),
    ];
    hosts.iter().flat_map(|host| forms.map(|form| form(host))).collect()
}

/// The headers that may name a place, all leading to one.
fn leading(to: &str) -> String {
    format!(
        "Record-Route: <{to}>\r\nRoute: <{to}>\r\nAlert-Info: <http://canary.example/ring.wav>\r\n\
         Call-Info: <http://canary.example/face.png>;purpose=icon\r\nError-Info: <{to}>\r\n\
         Reply-To: <{to}>\r\nPath: <{to}>\r\nService-Route: <{to}>\r\n"
    )
}

#[test]
fn no_uri_in_a_message_makes_us_send_or_ask_anything() {
    let canary = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 98), 0)).unwrap();
    let stream = TcpListener::bind(canary.local_addr().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let names = Names::start(Vec::new());
    let gateway = Gateway::empty(&[("sip.nameservers", &names.setting())]);
    let desk = Callee::new(PEER, gateway.udp);
    gateway.desk(DESK, &desk.address(), &json!({}));
    let all = places(canary.local_addr().unwrap(), &gateway);
    let (mut in_callers, mut in_agents) = (0, 0);
    for to in &all {
        // Both ends name the place in all they say; the caller's leg gets our BYE, the agent's our
        // ACK and BYE.
        let phone = Callee::new(PEER, gateway.udp);
        let mut ringing = Ringing::begin(&phone.phone, DESK, &leading(to));
        let contact = format!("Contact: <sip:{}>", phone.phone.address);
        let (mut invite, mut heard) = (None, String::new());
        eventually("the call comes or is refused", PATIENCE, || {
            invite = desk.next(Duration::from_millis(10));
            heard += &phone.phone.received().concat();
            invite.is_some() || heard.contains("SIP/2.0 4")
        });
        // A URI that is none is refused before anything is made of it.
        let Some(invite) = invite else { continue };
        in_callers += 1;
        let own = format!("<sip:callee@{}>", desk.phone.address);
        let sdp = desk.sdp();
        let ok = response(desk.phone.address, &invite, "200 OK", "t", (&(leading(to) + SDP), &sdp));
        desk.phone.send(ok.replace(&own, &format!("<{to}>")).as_bytes());
        let Some(ack) = desk.next(QUIET) else {
            // An answer that is none is passed over; a proper one is not.
            desk.accept(&invite);
            desk.expect("ACK");
            let answer = ringing.response(200);
            ringing.answered(&answer, true).hang_up();
            desk.take_bye();
            continue;
        };
        assert_eq!(kind(&ack), "ACK", "{to}: {ack}");
        in_agents += 1;
        let answer = ringing.response(200);
        let mut call = ringing.answered(&answer, true);
        // A target refresh, and a request to call somebody.
        call.dialog.cseq += 1;
        let update = call.dialog.request(&phone.phone, "UPDATE", &leading(to), "");
        let moved = update.replace(&contact, &format!("Contact: <{to}>"));
        phone.phone.ask(&moved).expect("an answer to UPDATE");
        let refer = format!("Refer-To: <{to}>\r\nReferred-By: <{to}>\r\n");
        assert_eq!(status(&call.ask("REFER", &refer, "")), 403, "{to}");
        let bye = desk.call(&invite, "t");
        bye.hang_up();
        let bye = phone.expect("BYE");
        phone.answer(&bye, "200 OK", "", "");
    }
    println!("{} URIs: {in_callers} from callers, {in_agents} from agents", all.len());
    assert!(all.len() >= 80 && in_callers >= 40 && in_agents >= 40);
    assert_eq!(drain(&canary), 0, "datagrams to a place that a message named");
    assert!(stream.accept().is_err(), "a connection to a place that a message named");
    assert_eq!(names.asked(), Vec::<String>::new(), "names that a message named");
    finish(gateway);
}

#[test]
fn a_redirection_is_not_followed() {
    let names = Names::start(Vec::new());
    let gateway = Gateway::empty(&[("sip.nameservers", &names.setting())]);
    let callee = Callee::new(PEER, gateway.udp);
    let canary = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 98), 0)).unwrap();
    let agent = gateway.caller(OWN, &callee.address(), &json!({}));
    for to in [format!("sip:x@{}", canary.local_addr().unwrap()), "sip:canary.example".to_owned()] {
        let id = gateway.place(OWN, &agent);
        let invite = callee.expect("INVITE");
        let text = response(callee.phone.address, &invite, "302 Moved Temporarily", "t", ("", ""));
        let own = format!("<sip:callee@{}>", callee.phone.address);
        callee.phone.send(text.replace(&own, &format!("<{to}>")).as_bytes());
        callee.expect("ACK");
        assert_ended(&gateway.ended(&id), "failed", "carrier_refused", "carrier");
    }
    assert_eq!((drain(&canary), names.asked()), (0, Vec::new()));
    finish(gateway);
}

/// INVITEs that were refused because they had come back.
fn loops(gateway: &Gateway) -> f64 {
    gateway.metric("gateway_calls_refused_total", "\"loop_detected\"")
}

#[test]
fn a_call_that_leads_back_here_is_refused_at_once() {
    // An agent whose URI is its own number.
    let gateway = Gateway::empty(&[]);
    gateway.desk(
        DESK,
        &gateway.udp.to_string(),
        &json!({"uri":
        format!("sip:{DESK}@{}", gateway.udp)}),
    );
    let phone = Phone::new(PEER, gateway.udp);
    let begun = now();
    let refused = phone.dial(DESK, &offer(PEER, 9, "RTP/AVP 0", "")).map(drop);
    let took = now() - begun;
    assert_eq!(refused, Err(480));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(loops(&gateway), 1.0);
    assert_eq!(gateway.ended_conversations(1).len(), 1);
    let decision = gateway.decision(DESK);
    assert_eq!(decision["rule"], "loop_detected", "{decision:#}");
    finish(gateway);
    // A trunk whose carrier is this gateway, and a number of ours behind it.
    let gateway = Gateway::empty(&[]);
    let agent = gateway.caller(OWN, &gateway.udp.to_string(), &json!({}));
    let trunk = gateway.trunk("here", json!({"allowed_addresses": ["127.0.0.0/8"]}));
    gateway.number(THEIRS, &trunk);
    gateway.agent(support::gateway::echo(), &[THEIRS]);
    let begun = now();
    let id = gateway.place(OWN, &agent);
    let record = gateway.ended(&id);
    let took = now() - begun;
    assert_ended(&record, "failed", "carrier_refused", "carrier");
    assert_eq!(record["end_reason"]["sip_code"], 482, "{record:#}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((loops(&gateway), gateway.conversations().len()), (1.0, 1));
    finish(gateway);
}

#[test]
fn two_gateways_that_are_each_others_agents_stop_at_the_second_round() {
    let pair = [Gateway::empty(&[]), Gateway::empty(&[])];
    for (one, other) in [(0, 1), (1, 0)] {
        let uri = format!("sip:{DESK}@{}", pair[other].udp);
        pair[one].desk(DESK, "x", &json!({"uri": uri}));
    }
    let phone = Phone::new(PEER, pair[0].udp);
    let begun = now();
    let refused = phone.dial(DESK, &offer(PEER, 9, "RTP/AVP 0", "")).map(drop);
    let took = now() - begun;
    assert_eq!(refused, Err(480));
    assert!(took < Duration::from_secs(1), "{took:?}");
    // The call is known by its Session-ID when it comes back for the same number.
    assert_eq!(loops(&pair[0]), 1.0);
    let calls: usize = pair.iter().map(|gateway| gateway.ended_conversations(1).len()).sum();
    println!("{calls} calls in {took:?}");
    assert_eq!(calls, 2, "the one that was made, and one more");
    pair.into_iter().for_each(finish);
}

#[test]
fn forged_requests_in_a_call_out_touch_nothing() {
    // The callee has no audio, and a million guesses take longer than a call lives without.
    let gateway = Gateway::empty(&[("media.timeout_seconds", "600")]);
    let callee = Callee::new(PEER, gateway.udp);
    let listed = json!({"allowed_addresses": [PEER]});
    let trunk = gateway.way_out_with(&callee.address(), &json!({}), listed);
    gateway.number(OWN, &trunk);
    let agent = gateway.agent(support::gateway::echo(), &[OWN]);
    let id = gateway.place(OWN, &agent);
    let mut call = callee.take();
    gateway.await_status(&id, "in_progress");
    let elsewhere = offer(STRANGER, 4_000, "RTP/AVP 0", "");
    // The right tags from a wrong address.
    for ip in [STRANGER, OTHER_PEER] {
        let forger = Phone::new(ip, gateway.udp);
        for method in ["BYE", "CANCEL", "INVITE", "UPDATE", "INFO", "ACK", "REFER", "NOTIFY"] {
            let mut dialog = call.dialog.clone();
            dialog.cseq += 10;
            forger.send(dialog.request(&forger, method, SDP, &elsewhere).as_bytes());
            forger.send(dialog.request(&callee.phone, method, SDP, &elsewhere).as_bytes());
        }
        assert!(call.is_up(), "{ip} ended the call");
        assert_eq!(forger.received(), Vec::<String>::new(), "{ip} got an answer");
    }
    // Wrong tags from the right address.
    let guesses = if soak() { 1_000_000_u32 } else { 10_000 };
    let tag = call.dialog.to.rsplit_once("tag=").unwrap().1.to_owned();
    for n in 0..guesses {
        let mut dialog = call.dialog.clone();
        let keep = tag.len().saturating_sub(5);
        let guess = format!("{}{:05x}", &tag[..keep], n);
        if guess == tag {
            continue;
        }
        dialog.to = dialog.to.replace(&tag, &guess);
        dialog.cseq += 1;
        callee.phone.send(dialog.request(&callee.phone, "BYE", "", "").as_bytes());
        if n % 64 == 63 {
            assert!(callee.phone.received().iter().all(|text| status(text) != 200));
        }
    }
    assert_eq!(gateway.conversation(&id)["status"], "in_progress");
    // Each guess is a transaction that is kept for 32 s (RFC 3261 §17.2.2): there may be no room at once.
    eventually("the call is up", 4 * PATIENCE, || call.is_up());
    println!("{guesses} guesses, 0 calls touched");
    call.hang_up();
    assert_ended(&gateway.ended(&id), "completed", "callee_hung_up", "callee");
    finish(gateway);
}
