//! Calls that we place, to carriers that SIPp plays.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use serde_json::{Value, json};
use support::authority::Authority;
use support::callee::{Callee, PLAIN_ANSWER, SAVP_ANSWER, Script};
use support::dns::Records;
use support::gateway::{echo, websocket};
use support::sipp::{Called, Message};
use support::{Gateway, Line, peer};

/// The number that calls go out from.
const NUMBER: &str = "+15550100100";

/// The number that is called.
const CALLEE: &str = "+15550200200";

const USER: &str = "customer";
const PASSWORD: &str = "correct horse battery";

/// A way out over UDP, without encryption.
fn plain(address: SocketAddr) -> Value {
    json!({ "address": address.to_string(), "auth_username": USER, "auth_password": PASSWORD })
}

fn with(address: SocketAddr, more: &Value) -> Value {
    let mut outbound = plain(address);
    for (name, value) in more.as_object().into_iter().flatten() {
        outbound[name] = value.clone();
    }
    outbound
}

fn line(gateway: &Gateway, outbound: Value) -> Line {
    gateway.way_out(NUMBER, outbound, echo())
}

/// The nth number of a test with several.
fn number(n: usize) -> String {
    format!("+1555010020{n}")
}

/// The lines of a message's SDP that begin like this.
fn sdp<'a>(message: &'a Message, start: &'a str) -> Vec<&'a str> {
    message.text().lines().filter(|line| line.starts_with(start)).collect()
}

#[track_caller]
fn assert_end(record: &Value, status: &str, code: &str) {
    assert_eq!(record["status"], status, "{record:#}");
    assert_eq!(record["end_reason"]["code"], code, "{record:#}");
}

#[test]
fn a_call_out_says_who_calls_and_ends_when_the_callee_hangs_up() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = Callee::new(Script::answers_and_hangs_up(PLAIN_ANSWER, 1_200)).start();
    let address = carrier.address;
    let line = line(&gateway, plain(address));
    let call = gateway.dial(&line, CALLEE);
    let called = carrier.passes();
    let invite = called.request("INVITE");
    assert_eq!(invite.uri(), format!("sip:{CALLEE}@{address}"));
    assert_eq!(invite.header("Max-Forwards"), Some("70"));
    assert_eq!(invite.header("To"), Some(format!("<{}>", invite.uri()).as_str()));
    let from = invite.header("From").unwrap();
    assert!(from.starts_with(&format!("<sip:{NUMBER}@127.0.0.1>;tag=")), "{from}");
    let asserted = invite.header("P-Asserted-Identity").unwrap();
    assert!(asserted.starts_with(&format!("<sip:{NUMBER}@")), "{asserted}");
    assert_eq!(invite.header("Authorization"), None);
    assert_eq!(invite.header("Proxy-Authorization"), None);
    assert!(invite.header("Allow").unwrap().contains("UPDATE"), "{}", invite.text());
    assert!(sdp(&invite, "m=")[0].contains(" RTP/AVP 0 8 "), "{}", invite.text());
    assert_eq!(sdp(&invite, "a=crypto"), [""; 0]);
    assert_eq!(called.request("ACK").uri(), format!("sip:callee@{address};transport=UDP"));
    let record = gateway.ends(&call);
    assert_end(&record, "completed", "callee_hung_up");
    assert_eq!(record["direction"], "outbound");
    assert_eq!(record["user_id"], CALLEE);
    assert_eq!(record["agent_number"], NUMBER);
    assert_eq!(record["agent_id"], line.agent);
    assert_eq!(record["trunk_id"], line.trunk);
    assert_eq!(record["trunk_call_id"], invite.header("Call-ID").unwrap());
    assert_eq!(record["duration"], 1);
    assert_eq!(record["end_reason"]["party"], "callee");
    gateway.finish();
}

/// One call by each of the three policies; what each offer looked like.
fn each_policy(gateway: &Gateway, carrier: impl Fn(Script) -> Callee, more: &Value) {
    let policies = [
        ("SIP_MEDIA_ENCRYPT_DISABLE", PLAIN_ANSWER, "RTP/AVP", false),
        ("SIP_MEDIA_ENCRYPT_ALLOW", SAVP_ANSWER, "RTP/SAVP", true),
        ("SIP_MEDIA_ENCRYPT_REQUIRE", SAVP_ANSWER, "RTP/SAVP", true),
    ];
    let calls: Vec<_> = policies
        .iter()
        .enumerate()
        .map(|(n, (policy, answer, ..))| {
            let carrier = carrier(Script::answers_and_hangs_up(answer, 200)).start();
            let mut outbound = with(carrier.address, more);
            outbound["media_encryption"] = json!(policy);
            if let Some(name) = more["address"].as_str() {
                outbound["address"] = json!(format!("{name}:{}", carrier.address.port()));
            }
            let line = gateway.way_out(&number(n), outbound, echo());
            (carrier, gateway.dial(&line, CALLEE))
        })
        .collect();
    for ((carrier, call), (policy, _, profile, secure)) in calls.into_iter().zip(policies) {
        let called = carrier.passes();
        let invite = called.request("INVITE");
        assert!(sdp(&invite, "m=")[0].contains(&format!(" {profile} ")), "{}", invite.text());
        assert_eq!(!sdp(&invite, "a=crypto").is_empty(), secure, "{}", invite.text());
        let record = gateway.ends(&call);
        assert_end(&record, "completed", "callee_hung_up");
        assert_eq!(record["quality"]["encrypted"], secure, "{policy} {record:#}");
    }
}

#[test]
fn each_encryption_policy_offers_what_it_says_over_udp() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    each_policy(&gateway, Callee::new, &json!({ "transport": "SIP_TRANSPORT_UDP" }));
    gateway.finish();
}

#[test]
fn each_encryption_policy_offers_what_it_says_over_tcp() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = |script| Callee::new(script).over_tcp();
    each_policy(&gateway, carrier, &json!({ "transport": "SIP_TRANSPORT_TCP" }));
    gateway.finish();
}

#[test]
fn each_encryption_policy_offers_what_it_says_over_tls_to_a_certified_name() {
    if !peer::have(&["sipp", "openssl", "python3", "dnsmasq"]) {
        return;
    }
    let authority = Authority::new();
    let names = Records::default().address("carrier.test").serve();
    let roots = format!("{:?}", authority.roots());
    let gateway = Gateway::with(&[
        ("sip.nameservers", names.setting().as_str()),
        ("sip.extra_roots", roots.as_str()),
    ]);
    let identity = authority.issue("DNS:carrier.test");
    let carrier = |script| Callee::new(script).over_tls(identity.clone());
    let more = json!({ "transport": "SIP_TRANSPORT_TLS", "address": "carrier.test" });
    each_policy(&gateway, carrier, &more);
    assert!(gateway.metric("gateway_sip_messages_total", "transport=\"tls\"") > 0.0);
    gateway.finish();
}

#[test]
fn a_carrier_whose_certificate_is_for_another_or_by_nobody_we_trust_gets_no_call() {
    if !peer::have(&["sipp", "openssl", "python3"]) {
        return;
    }
    let (authority, unknown) = (Authority::new(), Authority::new());
    let roots = format!("{:?}", authority.roots());
    let gateway = Gateway::with(&[("sip.extra_roots", roots.as_str())]);
    let identities = [
        (authority.issue("DNS:other.test"), "for other.test, not 127.0.0.1"),
        (authority.issue("IP:127.0.0.2"), "not 127.0.0.1"),
        (unknown.issue("IP:127.0.0.1"), "issuer is not known"),
    ];
    let calls: Vec<_> = identities
        .into_iter()
        .enumerate()
        .map(|(n, (identity, words))| {
            let carrier = Callee::new(Script::call()).over_tls(identity).start();
            let outbound = with(carrier.address, &json!({ "transport": "SIP_TRANSPORT_TLS" }));
            let call = gateway.dial(&gateway.way_out(&number(n), outbound, echo()), CALLEE);
            (carrier, call, words)
        })
        .collect();
    for (carrier, call, words) in calls {
        let record = gateway.ends(&call);
        assert_end(&record, "failed", "carrier_unreachable");
        let text = record["end_reason"]["text"].as_str().unwrap_or_default();
        assert!(text.contains(words), "{record:#}");
        assert_eq!(carrier.messages(), "");
    }
    gateway.finish();
}

#[test]
fn a_carrier_that_refuses_srtp_is_offered_plain_audio_and_the_next_call_begins_with_it() {
    if !peer::have(&["sipp"]) {
        return;
    }
    for (status, reason) in [(488, "Not Acceptable Here"), (415, "Unsupported Media Type")] {
        let gateway = Gateway::start();
        let script = Script::call()
            .when_secure(|secure| secure.refuse(status, reason, ""))
            .answer(PLAIN_ANSWER)
            .pause(100)
            .request("BYE", "", "");
        let carrier = Callee::new(script).calls(3).start();
        let policy = json!({ "media_encryption": "SIP_MEDIA_ENCRYPT_ALLOW" });
        let line = line(&gateway, with(carrier.address, &policy));
        let first = gateway.dial(&line, CALLEE);
        assert_end(&gateway.ends(&first), "completed", "callee_hung_up");
        let second = gateway.dial(&line, CALLEE);
        assert_end(&gateway.ends(&second), "completed", "callee_hung_up");
        let called = carrier.passes();
        let offers = called.requests("INVITE");
        let profiles: Vec<_> =
            offers.iter().map(|invite| sdp(invite, "m=")[0].split(' ').nth(2).unwrap()).collect();
        assert_eq!(profiles, ["RTP/SAVP", "RTP/AVP", "RTP/AVP"]);
        assert!(sdp(&offers[1], "a=crypto").is_empty(), "{}", offers[1].text());
        gateway.finish();
    }
}

#[test]
fn a_carrier_that_refuses_either_offer_is_offered_srtp_first_the_next_time_too() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = Callee::new(Script::refuses(488, "Not Acceptable Here")).calls(4).start();
    let policy = json!({ "media_encryption": "SIP_MEDIA_ENCRYPT_ALLOW" });
    let line = line(&gateway, with(carrier.address, &policy));
    for _ in 0..2 {
        let record = gateway.ends(&gateway.dial(&line, CALLEE));
        assert_end(&record, "failed", "media_refused");
        assert_eq!(record["end_reason"]["sip_code"], 488);
    }
    let called = carrier.passes();
    let offers = called.requests("INVITE");
    let profiles: Vec<_> =
        offers.iter().map(|invite| sdp(invite, "m=")[0].split(' ').nth(2).unwrap()).collect();
    assert_eq!(profiles, ["RTP/SAVP", "RTP/AVP", "RTP/SAVP", "RTP/AVP"]);
    gateway.finish();
}

#[test]
fn the_plain_offer_after_a_refused_one_is_challenged_anew_and_its_credentials_are_fresh() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let asks = |nonce| challenge("WWW-Authenticate", nonce, ", algorithm=MD5, qop=\"auth\"");
    let script = Script::call()
        .refuse(401, "Unauthorized", &asks("nonce"))
        .invite()
        .when_secure(|secure| secure.refuse(488, "Not Acceptable Here", ""))
        .answer(PLAIN_ANSWER)
        .pause(100)
        .request("BYE", "", "");
    let carrier = Callee::new(script).calls(2).start();
    let policy = json!({ "media_encryption": "SIP_MEDIA_ENCRYPT_ALLOW" });
    let call = gateway.dial(&line(&gateway, with(carrier.address, &policy)), CALLEE);
    assert_end(&gateway.ends(&call), "completed", "callee_hung_up");
    let invites = carrier.passes().requests("INVITE");
    let shape: Vec<_> = invites
        .iter()
        .map(|invite| {
            let profile = sdp(invite, "m=")[0].split(' ').nth(2).unwrap();
            (profile, invite.header("Authorization").is_some())
        })
        .collect();
    let (secure, plain) = ("RTP/SAVP", "RTP/AVP");
    assert_eq!(shape, [(secure, false), (secure, true), (plain, false), (plain, true)]);
    for invite in [&invites[1], &invites[3]] {
        assert_proven(invite, "Authorization", "md5");
    }
    gateway.finish();
}

#[test]
fn where_encryption_is_required_a_plain_answer_ends_the_call_before_a_packet_is_sent() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let ear = UdpSocket::bind("127.0.0.1:0").unwrap();
    ear.set_nonblocking(true).unwrap();
    let answer =
        PLAIN_ANSWER.replace("[media_port]", &ear.local_addr().unwrap().port().to_string());
    let script =
        Script::call().reply(180, "Ringing").answer(&answer).expect("BYE").reply(200, "OK");
    let carrier = Callee::new(script).start();
    let policy = json!({ "media_encryption": "SIP_MEDIA_ENCRYPT_REQUIRE" });
    let line = line(&gateway, with(carrier.address, &policy));
    let call = gateway.dial(&line, CALLEE);
    let called = carrier.passes();
    assert_eq!(called.requests("INVITE").len(), 1, "{}", called.messages);
    let record = gateway.ends(&call);
    assert_end(&record, "failed", "media_refused");
    assert!(record["end_reason"]["text"].is_string(), "{record:#}");
    assert!(record["end_reason"]["sip_reason"].is_null(), "{record:#}");
    gateway.wait_until_quiet();
    assert!(ear.recv(&mut [0; 2_000]).is_err(), "audio was sent in the clear");
    gateway.finish();
}

#[test]
fn where_encryption_is_required_a_refusal_of_it_ends_the_call() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    for (n, (status, reason)) in
        [(488, "Not Acceptable Here"), (415, "Unsupported Media Type")].into_iter().enumerate()
    {
        let carrier = Callee::new(Script::refuses(status, reason)).start();
        let policy = json!({ "media_encryption": "SIP_MEDIA_ENCRYPT_REQUIRE" });
        let outbound = with(carrier.address, &policy);
        let call = gateway.dial(&gateway.way_out(&number(n), outbound, echo()), CALLEE);
        let called = carrier.passes();
        assert_eq!(called.requests("INVITE").len(), 1, "{}", called.messages);
        let record = gateway.ends(&call);
        assert_end(&record, "failed", "media_refused");
        assert_eq!(record["end_reason"]["sip_code"], status);
    }
    gateway.finish();
}

/// `response` as RFC 7616 section 3.4.1 defines it, by somebody else's code.
const RESPONSE: &str = "
import hashlib, sys
algorithm, user, realm, password, method, uri, nonce, nc, cnonce, qop = sys.argv[1:]
h = lambda text: hashlib.new(algorithm, text.encode()).hexdigest()
a1, a2 = h(f'{user}:{realm}:{password}'), h(f'{method}:{uri}')
middle = f'{nonce}:{nc}:{cnonce}:{qop}' if qop else nonce
print(h(f'{a1}:{middle}:{a2}'))
";

/// A parameter of credentials, without its quotes.
fn parameter<'a>(credentials: &'a str, name: &str) -> &'a str {
    let all = credentials.split_once(' ').map_or("", |(_, all)| all);
    let found = all.split(", ").flat_map(|part| part.split(',')).find_map(|part| {
        let (found, value) = part.trim().split_once('=')?;
        (found == name).then_some(value.trim_matches('"'))
    });
    found.unwrap_or_default()
}

/// Credentials that only the owner of the password could have made, for exactly this request.
#[track_caller]
fn assert_proven(request: &Message, header: &str, hash: &str) {
    let given = request.header(header).unwrap();
    let value = |name| parameter(given, name);
    assert_eq!(value("uri"), request.uri(), "{given}");
    assert_eq!(value("username"), USER);
    let method = request.text().split(' ').next().unwrap();
    let python = Command::new("python3")
        .args(["-c", RESPONSE, hash, USER, value("realm"), PASSWORD, method, value("uri")])
        .args([value("nonce"), value("nc"), value("cnonce"), value("qop")])
        .output()
        .unwrap();
    let expected = String::from_utf8(python.stdout).unwrap();
    assert_eq!(value("response"), expected.trim(), "{given}");
}

/// A challenge's whole header line.
fn challenge(header: &str, nonce: &str, rest: &str) -> String {
    format!("{header}: Digest realm=\"carrier.test\", nonce=\"{nonce}\"{rest}")
}

#[test]
fn challenges_of_servers_and_proxies_are_answered_with_either_hash_for_invite_and_bye() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let cases = [
        (401, "Unauthorized", "", "md5"),
        (401, "Unauthorized", ", algorithm=MD5, qop=\"auth\"", "md5"),
        (401, "Unauthorized", ", algorithm=SHA-256, qop=\"auth\"", "sha256"),
        (407, "Proxy Authentication Required", ", algorithm=MD5, qop=\"auth,auth-int\"", "md5"),
        (407, "Proxy Authentication Required", ", algorithm=SHA-256, qop=\"auth\"", "sha256"),
    ];
    let headers = |status| match status {
        401 => ("WWW-Authenticate", "Authorization"),
        _ => ("Proxy-Authenticate", "Proxy-Authorization"),
    };
    let calls: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(n, (status, reason, rest, _))| {
            let (asks, _) = headers(*status);
            let script = Script::call()
                .refuse(*status, reason, &challenge(asks, "first", rest))
                .invite()
                .reply(180, "Ringing")
                .answer(PLAIN_ANSWER)
                .expect("BYE")
                .challenge(*status, reason, &challenge(asks, "second", rest))
                .expect("BYE")
                .reply(200, "OK");
            let carrier = Callee::new(script).start();
            let line = gateway.way_out(&number(n), plain(carrier.address), echo());
            (carrier, gateway.dial(&line, CALLEE))
        })
        .collect();
    for ((carrier, call), (status, _, _, hash)) in calls.into_iter().zip(cases) {
        let (_, answers) = headers(status);
        gateway.reaches(&call, "in_progress");
        gateway.ask(&call, "hangup", &json!({}));
        let called = carrier.passes();
        for (method, nonce) in [("INVITE", "first"), ("BYE", "second")] {
            let [first, second] = called.requests(method).try_into().unwrap();
            assert_eq!(first.header(answers), None, "{}", first.text());
            assert_proven(&second, answers, hash);
            assert_eq!(parameter(second.header(answers).unwrap(), "nonce"), nonce);
            assert_eq!(cseq(&second), cseq(&first) + 1);
            assert_eq!(first.header("Call-ID"), second.header("Call-ID"));
        }
        assert_end(&gateway.ends(&call), "completed", "operator_hung_up");
    }
    gateway.finish();
}

fn cseq(message: &Message) -> u32 {
    message.header("CSeq").unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_stronger_of_two_challenges_is_answered_and_a_stale_nonce_is_replaced_once() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let asks = "WWW-Authenticate";
    let both = [
        challenge(asks, "weak", ", algorithm=MD5, qop=\"auth\""),
        challenge(asks, "strong", ", algorithm=SHA-256, qop=\"auth\""),
    ];
    let stale = ", algorithm=SHA-256, qop=\"auth\", stale=true";
    let script = Script::call()
        .refuse(401, "Unauthorized", &both.join("\n"))
        .invite()
        .refuse(401, "Unauthorized", &challenge(asks, "newer", stale))
        .invite()
        .answer(PLAIN_ANSWER)
        .pause(100)
        .request("BYE", "", "");
    let carrier = Callee::new(script).start();
    let call = gateway.dial(&line(&gateway, plain(carrier.address)), CALLEE);
    let called = carrier.passes();
    let [_, second, third] = called.requests("INVITE").try_into().unwrap();
    for (invite, nonce) in [(second, "strong"), (third, "newer")] {
        assert_proven(&invite, "Authorization", "sha256");
        assert_eq!(parameter(invite.header("Authorization").unwrap(), "nonce"), nonce);
    }
    assert_end(&gateway.ends(&call), "completed", "callee_hung_up");
    gateway.finish();
}

#[test]
fn a_wrong_password_is_tried_once_and_no_more() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let asks = "WWW-Authenticate";
    let script = Script::call()
        .refuse(401, "Unauthorized", &challenge(asks, "first", ", algorithm=MD5, qop=\"auth\""))
        .invite()
        .refuse(401, "Unauthorized", &challenge(asks, "second", ", algorithm=MD5, qop=\"auth\""));
    let carrier = Callee::new(script).start();
    let call = gateway.dial(&line(&gateway, plain(carrier.address)), CALLEE);
    let record = gateway.ends(&call);
    assert_end(&record, "failed", "carrier_unauthorised");
    assert_eq!(record["end_reason"]["sip_code"], 401);
    assert_eq!(record["end_reason"]["party"], "carrier");
    let called = carrier.passes();
    assert_eq!(called.requests("INVITE").len(), 2, "{}", called.messages);
    assert!(!called.messages.contains(PASSWORD));
    assert!(gateway.log().iter().all(|line| !line.contains(PASSWORD)), "the password was logged");
    gateway.finish();
}

#[test]
fn every_refusal_has_its_status_and_keeps_the_carriers_words() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let cases = [
        (486, "Busy Here Indeed", "unanswered", "callee_busy"),
        (600, "Busy Everywhere", "unanswered", "callee_busy"),
        (603, "Decline", "unanswered", "callee_declined"),
        (480, "Temporarily Unavailable", "unanswered", "no_answer"),
        (404, "Not Found", "failed", "carrier_refused"),
        (403, "Forbidden", "failed", "carrier_refused"),
        (503, "Service Unavailable", "failed", "carrier_unreachable"),
    ];
    let calls: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(n, (status, reason, ..))| {
            let script = Script::call().reply(180, "Ringing").refuse(*status, reason, "");
            let carrier = Callee::new(script).start();
            let line = gateway.way_out(&number(n), plain(carrier.address), echo());
            (carrier, gateway.dial(&line, CALLEE))
        })
        .collect();
    for ((carrier, call), (status, reason, ended, code)) in calls.into_iter().zip(cases) {
        let record = gateway.ends(&call);
        assert_end(&record, ended, code);
        assert_eq!(record["end_reason"]["sip_code"], status);
        assert_eq!(record["end_reason"]["sip_reason"], reason);
        assert!(record["duration"].is_null(), "{record:#}");
        assert_eq!(carrier.passes().requests("INVITE").len(), 1);
    }
    gateway.finish();
}

/// A carrier that lets it ring until it is told otherwise.
fn rings_until_cancelled() -> Script {
    Script::call().reply(180, "Ringing").expect("CANCEL").reply(200, "OK").terminated()
}

#[test]
fn a_callee_who_does_not_answer_is_cancelled_after_the_ring_time() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = Callee::new(rings_until_cancelled()).start();
    let line = line(&gateway, with(carrier.address, &json!({ "ring_timeout_seconds": 1 })));
    let call = gateway.dial(&line, CALLEE);
    gateway.reaches(&call, "ringing");
    let called = carrier.passes();
    let (invite, cancel) = (called.request("INVITE"), called.request("CANCEL"));
    assert_eq!(cancel.uri(), invite.uri());
    assert_eq!(cancel.header("Via"), invite.header("Via"));
    assert_end(&gateway.ends(&call), "unanswered", "no_answer");
    gateway.finish();
}

#[test]
fn a_call_is_withdrawn_through_the_api_while_it_rings_and_while_it_waits() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::with(&[("calls.outbound_concurrency", "1")]);
    let carrier = Callee::new(rings_until_cancelled()).start();
    let line = line(&gateway, plain(carrier.address));
    let (rings, waits) = (gateway.dial(&line, CALLEE), gateway.dial(&line, "+15550200201"));
    gateway.reaches(&rings, "ringing");
    assert_eq!(gateway.conversation(&waits)["status"], "triggered");
    gateway.ask(&waits, "hangup", &json!({}));
    assert_end(&gateway.ends(&waits), "cancelled", "call_cancelled");
    gateway.ask(&rings, "hangup", &json!({}));
    assert_end(&gateway.ends(&rings), "cancelled", "call_cancelled");
    // What is over stays as it is.
    let again = gateway.ask(&rings, "hangup", &json!({}));
    assert_eq!(again["conversation"]["status"], "cancelled", "{again:#}");
    let called = carrier.passes();
    assert_eq!(called.requests("INVITE").len(), 1, "{}", called.messages);
    gateway.finish();
}

#[test]
fn a_call_that_is_up_is_hung_up_through_the_api() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = Callee::new(Script::answers(PLAIN_ANSWER)).start();
    let call = gateway.dial(&line(&gateway, plain(carrier.address)), CALLEE);
    gateway.reaches(&call, "in_progress");
    gateway.ask(&call, "hangup", &json!({}));
    let called = carrier.passes();
    let reason = called.request("BYE").header("Reason").unwrap().to_owned();
    assert!(reason.starts_with("Q.850;cause=16"), "{reason}");
    let record = gateway.ends(&call);
    assert_end(&record, "completed", "operator_hung_up");
    assert_eq!(record["end_reason"]["party"], "operator");
    gateway.finish();
}

#[test]
fn the_next_call_in_the_queue_is_placed_when_one_is_over() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::with(&[("calls.outbound_concurrency", "1")]);
    let script = Script::answers_and_hangs_up(PLAIN_ANSWER, 300);
    let carrier = Callee::new(script).calls(3).start();
    let line = line(&gateway, plain(carrier.address));
    let callees = ["+15550200201", "+15550200202", "+15550200203"];
    for callee in callees {
        gateway.dial(&line, callee);
    }
    let called = carrier.passes();
    let order: Vec<_> = called
        .requests("INVITE")
        .iter()
        .map(|invite| invite.uri().trim_start_matches("sip:").split('@').next().unwrap().to_owned())
        .collect();
    assert_eq!(order, callees);
    let steps: Vec<_> = called
        .messages
        .lines()
        .filter(|line| line.starts_with("INVITE ") || line.starts_with("BYE "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(steps, ["INVITE", "BYE", "INVITE", "BYE", "INVITE", "BYE"]);
    let records = gateway.ended_conversations(3);
    assert!(records.iter().all(|record| record["status"] == "completed"), "{records:#?}");
    gateway.finish();
}

#[test]
fn an_order_that_is_repeated_with_its_id_is_one_call() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = Callee::new(Script::answers_and_hangs_up(PLAIN_ANSWER, 300)).start();
    let line = line(&gateway, plain(carrier.address));
    let id = "6e0d3b4e-5c3a-4a38-8d0e-2f1f6d3c9a01";
    let body = json!({
        "id": id, "channel": "telephone", "user_id": CALLEE, "agent_number": line.number,
    });
    let order = || gateway.rest().send("POST", "/core/conversations", Some(&body));
    let replies = [order(), order()];
    assert_end(&gateway.ends(id), "completed", "callee_hung_up");
    for reply in replies.iter().chain([&order()]) {
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(reply.json()["conversation"]["id"], id);
    }
    let called = carrier.passes();
    assert_eq!(called.requests("INVITE").len(), 1, "{}", called.messages);
    assert_eq!(gateway.ended_conversations(1).len(), 1);
    gateway.finish();
}

#[test]
fn early_media_and_an_answer_that_came_before_the_200_are_good() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let both = Script::call()
        .early(183, "Session Progress", PLAIN_ANSWER)
        .pause(200)
        .answer(PLAIN_ANSWER)
        .pause(300)
        .request("BYE", "", "");
    let before = Script::call()
        .early(183, "Session Progress", PLAIN_ANSWER)
        .answer_without_sdp()
        .pause(300)
        .request("BYE", "", "");
    for (n, script) in [both, before].into_iter().enumerate() {
        let carrier = Callee::new(script).start();
        let line = gateway.way_out(&number(n), plain(carrier.address), echo());
        let call = gateway.dial(&line, CALLEE);
        carrier.passes();
        assert_end(&gateway.ends(&call), "completed", "callee_hung_up");
    }
    gateway.finish();
}

/// The tags of To in the requests of this method.
fn to_tags(called: &Called, method: &str) -> Vec<String> {
    let tag = |message: &Message| {
        let to = message.header("To").unwrap().to_owned();
        to.split_once(";tag=").map(|(_, tag)| tag.to_owned()).unwrap()
    };
    called.requests(method).iter().map(tag).collect()
}

#[test]
fn the_second_answer_of_a_fork_is_acknowledged_and_hung_up() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let script = Script::call()
        .reply(180, "Ringing")
        .answer(PLAIN_ANSWER)
        .answer_as("other", PLAIN_ANSWER)
        .expect("BYE")
        .reply(200, "OK")
        .expect("BYE")
        .reply(200, "OK");
    let carrier = Callee::new(script).start();
    let call = gateway.dial(&line(&gateway, plain(carrier.address)), CALLEE);
    carrier.wait_for_message("BYE sip:");
    // The first dialog goes on.
    gateway.reaches(&call, "in_progress");
    gateway.ask(&call, "hangup", &json!({}));
    let called = carrier.passes();
    let (acks, byes) = (to_tags(&called, "ACK"), to_tags(&called, "BYE"));
    assert_eq!(acks.len(), 2, "{}", called.messages);
    assert!(acks[1].contains("other"), "{acks:?}");
    assert_eq!(byes, [acks[1].clone(), acks[0].clone()]);
    assert_end(&gateway.ends(&call), "completed", "operator_hung_up");
    gateway.finish();
}

#[test]
fn an_answer_that_crosses_our_cancel_is_acknowledged_and_hung_up() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let script = Script::call()
        .reply(180, "Ringing")
        .expect("CANCEL")
        .reply(200, "OK")
        .answer(PLAIN_ANSWER)
        .expect("BYE")
        .reply(200, "OK");
    let carrier = Callee::new(script).start();
    let call = gateway.dial(&line(&gateway, plain(carrier.address)), CALLEE);
    gateway.reaches(&call, "ringing");
    gateway.ask(&call, "hangup", &json!({}));
    carrier.passes();
    let record = gateway.ends(&call);
    assert_end(&record, "cancelled", "call_cancelled");
    assert!(record["answered_at"].is_null(), "{record:#}");
    gateway.finish();
}

#[test]
fn nobody_is_called_before_the_agent_is_there() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::with(&[("calls.agent_connect_timeout_ms", "300")]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/agent", silent.local_addr().unwrap());
    let carrier = Callee::new(Script::call()).start();
    let line = gateway.way_out(NUMBER, plain(carrier.address), websocket(&url));
    let call = gateway.dial(&line, CALLEE);
    assert_end(&gateway.ends(&call), "failed", "agent_timed_out");
    assert_eq!(carrier.messages(), "");
    gateway.finish();
}

#[test]
fn a_call_out_ends_after_the_trunks_longest_duration() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = Callee::new(Script::answers(PLAIN_ANSWER)).start();
    let line = line(&gateway, with(carrier.address, &json!({ "max_duration_seconds": 1 })));
    let call = gateway.dial(&line, CALLEE);
    carrier.passes();
    assert_end(&gateway.ends(&call), "completed", "duration_reached");
    gateway.finish();
}
