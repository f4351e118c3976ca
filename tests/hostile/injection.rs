//! Line ends in values, and headers in disguise: nothing that is written through the API or sent by
//! a carrier becomes a header line of a message of ours.

use serde_json::{Value, json};

use crate::common::{Dialog, ECHO, Gateway, PEER, Phone, body, eventually, offer, status};

/// What ends a line or a text, and smuggles a header behind it.
const ENDS: [&str; 5] =
    ["\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "\0", "\r\n\r\nINVITE sip:x SIP/2.0"];

/// Whole bodies, and the pointers of the texts in them that end up in a message, a handshake or a
/// header.
fn writes(gateway: &Gateway) -> Vec<(&'static str, String, Value, Vec<&'static str>)> {
    let trunk = gateway.pbx("victim", "ALLOW");
    gateway.number("+15550100500", &trunk);
    let agent = gateway.agent(json!({"type": "builtin"}), &[]);
    let trunk_body = json!({"name": "t",
        "inbound_config": {"allowed_addresses": ["192.0.2.1"], "auth_username": "u", "auth_password": "p"},
        "outbound_config": {"address": "h.example.com", "auth_username": "u", "auth_password": "p",
            "from_user": "f", "from_host": "h.example.com", "codecs": ["PCMU"]}});
    let trunk_texts = vec![
        "/name",
        "/inbound_config/allowed_addresses/0",
        "/inbound_config/auth_username",
        "/inbound_config/auth_password",
        "/outbound_config/address",
        "/outbound_config/auth_username",
        "/outbound_config/auth_password",
        "/outbound_config/from_user",
        "/outbound_config/from_host",
        "/outbound_config/codecs/0",
    ];
    let runtime = json!({"type": "websocket", "url": "wss://h.example.com/a?b=c", "auth_token": "t",
        "parameters": {"a": "b"}, "dialect": "twilio", "on_failure": "hangup"});
    let runtime_texts = vec![
        "/config/runtime/url",
        "/config/runtime/auth_token",
        "/config/runtime/parameters/a",
        "/config/runtime/dialect",
        "/config/runtime/on_failure",
        "/config/runtime/type",
    ];
    let version = json!({"config": {"runtime": runtime}});
    let number = json!({"phone_number": "+15550100501", "trunk_id": trunk});
    let numbers = json!({"phone_numbers": ["+15550100500"], "direction": "inbound"});
    let versions = format!("/core/agents/{agent}/versions");
    vec![
        ("POST", "/core/trunks".to_owned(), trunk_body.clone(), trunk_texts.clone()),
        ("PUT", format!("/core/trunks/{trunk}"), trunk_body, trunk_texts),
        ("POST", "/core/phone-numbers".to_owned(), number, vec!["/phone_number", "/trunk_id"]),
        ("POST", "/core/agents".to_owned(), json!({"name": "a"}), vec!["/name"]),
        ("PUT", format!("/core/agents/{agent}"), json!({"name": "a"}), vec!["/name"]),
        ("POST", versions.clone(), version.clone(), runtime_texts.clone()),
        ("PUT", format!("{versions}/1"), version, runtime_texts),
        ("POST", format!("{versions}/1/publish"), numbers, vec!["/phone_numbers/0", "/direction"]),
    ]
}

#[test]
fn no_text_with_a_line_end_is_taken() {
    let mut gateway = Gateway::start();
    let mut wrong = Vec::new();
    for (method, path, good, texts) in writes(&gateway) {
        for (text, end) in texts.iter().flat_map(|text| ENDS.map(|end| (text, end))) {
            for spoil in [
                |value: &str, end: &str| format!("{value}{end}"),
                |value: &str, end: &str| format!("{end}{value}"),
            ] {
                let mut body = good.clone();
                let place = body.pointer_mut(text).unwrap();
                *place = json!(spoil(place.as_str().unwrap(), end));
                let reply = gateway.call(method, &path, Some(&body));
                if reply.status != 422 {
                    wrong.push(format!(
                        "{method} {path} {text} {end:?}: {} {}",
                        reply.status,
                        reply.text()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} taken: {wrong:#?}", wrong.len());
    let shown = gateway.call("GET", "/core/trunks", None);
    assert!(!shown.text().contains("Evil"), "{}", shown.text());
    let names = json!({"config": {"runtime": {"type": "websocket", "url": "wss://h/",
        "parameters": {"a\r\nX-Evil": "b"}}}});
    let (_, versions, ..) = writes_versions(&gateway);
    assert_eq!(gateway.call("POST", &versions, Some(&names)).status, 422);
    gateway.assert_serving();
    gateway.assert_quiet();
}

/// Where versions of a new agent are made.
fn writes_versions(gateway: &Gateway) -> (String, String) {
    let agent = gateway.agent(json!({"type": "builtin"}), &[]);
    let path = format!("/core/agents/{agent}/versions");
    (agent, path)
}

/// Headers that mean something between our own parts, or to carriers that trust us.
pub(crate) const INTERNAL: [&str; 10] = [
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Remote-Party-ID",
    "Diversion",
    "X-Trunkline-Organization",
    "X-Conversation-Id",
    "Authorization",
    "Record-Route",
    "Server",
    "Warning",
];

/// How somebody may write a header so that a filter overlooks it.
pub(crate) fn spellings(name: &str) -> Vec<String> {
    let value = "<sip:+15558889999@canary.example>;canary=1";
    vec![
        format!("{name}: {value}\r\n"),
        format!("{} : {value}\r\n", name.to_uppercase()),
        format!("{}\t:{value}\r\n", name.to_lowercase()),
        format!("{name} \t : {value}\r\n"),
        format!("{name}:\r\n {value}\r\n"),
        format!("{name}:\r\n\t\r\n {value}\r\n"),
        format!("Subject: x\r\n {name}: {value}\r\n"),
        format!("Subject: x\n{name}: {value}\r\n"),
        format!("Subject: x\r{name}: {value}\r\n"),
        format!("Subject: x\0{name}: {value}\r\n"),
        format!("{name}\0: {value}\r\n"),
        format!("{name}\u{a0}: {value}\r\n"),
        format!("{}: {value}\r\n", name.replace('o', "\u{43e}").replace('i', "\u{456}")),
        format!("{}: {value}\r\n", name.replace('-', "\u{2010}")),
        format!("{name}: {value}\r\n{name}: {value}\r\n"),
        format!("{name}: {value},{value}\r\n"),
        format!("\r {name}: {value}\r\n"),
        format!("{name};: {value}\r\n"),
        format!("{name}:{}{value}\r\n", " ".repeat(2_000)),
        format!("%50{}: {value}\r\n", &name[1..]),
    ]
}

#[test]
fn no_spelling_of_a_header_comes_back_or_changes_who_calls() {
    let mut gateway = Gateway::start();
    let (mut sent, mut answered) = (0, 0);
    for line in INTERNAL.iter().flat_map(|name| spellings(name)) {
        let phone = Phone::new(PEER, gateway.udp);
        let mut dialog = Dialog::new(&phone, &format!("sip:{ECHO}@{}", gateway.udp));
        let headers = format!("{line}Content-Type: application/sdp\r\n");
        let sdp = offer(PEER, 4_000, "RTP/AVP 0", "");
        let invite = dialog.request(&phone, "INVITE", &headers, &sdp);
        sent += 1;
        let record_route = line.to_ascii_lowercase().starts_with("record-route");
        let Some(answer) = phone.ask(&invite) else { panic!("no answer to {line:?}") };
        // Record-Route is the one of these that a response has to repeat (RFC 3261 §12.1.1).
        assert!(record_route || !answer.contains("canary"), "{line:?}: {answer}");
        assert!(!body(&answer).contains("canary"), "{line:?}: {answer}");
        assert!([200, 400].contains(&status(&answer)), "{line:?}: {answer}");
        if status(&answer) == 200 {
            answered += 1;
            dialog.to = crate::common::header(&answer, "To").to_owned();
            phone.send(dialog.request(&phone, "ACK", "", "").as_bytes());
            dialog.cseq += 1;
            let bye = dialog.request(&phone, "BYE", "", "");
            assert_eq!(status(&phone.ask(&bye).unwrap()), 200);
        }
    }
    assert!(sent >= 200 && answered >= 100, "{answered} of {sent}");
    let path = "/core/conversations?limit=1000";
    eventually("all records are written", crate::common::PATIENCE, || {
        gateway.call("GET", path, None).json().as_array().map_or(0, Vec::len) == answered
    });
    let records = gateway.call("GET", path, None);
    assert!(!records.text().contains("canary") && !records.text().contains("8889999"));
    for record in records.json().as_array().unwrap() {
        assert_eq!(record["user_id"], "+15550100001", "{record}");
    }
    gateway.assert_quiet();
}
