//! A trunk with a user name and a password (RFC 8760, RFC 7616).
//!
//! SIPp 3.6 knows MD5 only and ends at the sight of SHA-256, so it is handed credentials that
//! Python's `hashlib` has computed for the challenge of a call before. Challenges prove themselves,
//! hence a nonce is good for any call.

use std::process::Command;

use serde_json::json;
use support::baresip::Baresip;
use support::gateway::echo;
use support::sipp::Sipp;
use support::{Gateway, Line, peer};

const USER: &str = "pbx";
const PASSWORD: &str = "correct horse battery";

/// `response` as RFC 7616 section 3.4.1 defines it, by somebody else's code.
const RESPONSE: &str = "
import hashlib, sys
algorithm, user, realm, password, uri, nonce = sys.argv[1:]
h = lambda text: hashlib.new(algorithm, text.encode()).hexdigest()
a1, a2 = h(f'{user}:{realm}:{password}'), h(f'INVITE:{uri}')
print(h(f'{a1}:{nonce}:00000001:0a4f113b:auth:{a2}'))
";

/// The value of a quoted parameter.
fn parameter<'a>(challenge: &'a str, name: &str) -> &'a str {
    let (_, rest) = challenge.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap()
}

fn protected(gateway: &Gateway) -> Line {
    let inbound = json!({ "auth_username": USER, "auth_password": PASSWORD });
    gateway.line("+15550100100", inbound, echo())
}

/// Calls without credentials; makes an Authorization header out of the challenge.
fn authorization(gateway: &Gateway, line: &Line, algorithm: &str, password: &str) -> String {
    let called = Sipp::new(gateway, "challenged", &line.number).passes();
    let wanted = format!("algorithm={algorithm}");
    let challenge = called
        .messages
        .lines()
        .find(|text| text.starts_with("WWW-Authenticate:") && text.contains(&wanted))
        .unwrap();
    let uri = format!("sip:{}@{}", line.number, gateway.udp);
    let (realm, nonce) = (parameter(challenge, "realm"), parameter(challenge, "nonce"));
    let hash = algorithm.replace('-', "").to_lowercase();
    let python = Command::new("python3")
        .args(["-c", RESPONSE, &hash, USER, realm, password, &uri, nonce])
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let response = String::from_utf8(python.stdout).unwrap();
    format!(
        "Digest username=\"{USER}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{}\", algorithm={algorithm}, cnonce=\"0a4f113b\", qop=auth, nc=00000001",
        response.trim()
    )
}

/// baresip 1.0 gives up at a challenge it does not know, wherever it stands.
#[test]
fn an_older_phone_gets_through_where_md5_alone_is_offered() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::with(&[("sip.digest", "\"md5\"")]);
    let inbound = json!({ "auth_username": USER, "auth_password": "tomato-soup" });
    let line = gateway.line("+15550100100", inbound, echo());
    let uri = format!("sip:{}@{}", line.number, gateway.udp);
    let call = |password| {
        let account = format!(";auth_user={USER};auth_pass={password}");
        Baresip::call_as(&uri, &account, &vec![0; 16_000], 2)
    };
    let mut phone = call("tomato-soup");
    phone.wait_for_answer();
    phone.ends();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    let _stranger = call("guessed");
    let decision = gateway.decision(&line.number);
    assert_eq!(decision["rule"], "credentials_wrong");
    assert_eq!(decision["sip_status"], 401);
    gateway.finish();
}

#[test]
fn the_right_password_gets_through_with_sha_256_and_with_md5() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = protected(&gateway);
    for algorithm in ["SHA-256", "MD5"] {
        let header = authorization(&gateway, &line, algorithm, PASSWORD);
        let caller = Sipp::new(&gateway, "call_with_credentials", &line.number);
        caller.set("authorization", header).passes();
    }
    assert_eq!(gateway.ended_conversations(2).len(), 2);
    gateway.finish();
}

#[test]
fn the_wrong_password_is_401_and_the_customer_reads_why() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = protected(&gateway);
    for algorithm in ["SHA-256", "MD5"] {
        let header = authorization(&gateway, &line, algorithm, "guessed");
        let caller = Sipp::new(&gateway, "refused_with_credentials", &line.number);
        caller.set("authorization", header).set("status", 401).passes();
    }
    let decision = gateway.decision(&line.number);
    assert_eq!(decision["rule"], "credentials_wrong");
    assert_eq!(decision["sip_status"], 401);
    assert!(gateway.conversations().is_empty());
    gateway.finish();
}

#[test]
fn credentials_that_were_used_are_not_good_for_a_second_call() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = protected(&gateway);
    let header = authorization(&gateway, &line, "SHA-256", PASSWORD);
    let caller = |scenario| Sipp::new(&gateway, scenario, &line.number);
    caller("call_with_credentials").set("authorization", &header).passes();
    let replay = caller("refused_with_credentials").set("authorization", &header);
    let called = replay.set("status", 401).passes();
    assert!(called.messages.contains("stale=true"), "{}", called.messages);
    assert_eq!(gateway.ended_conversations(1).len(), 1);
    gateway.finish();
}
