//! Callers that are handed to another number (cold transfer).

use serde_json::{Value, json};
use support::baresip::{Audio, Baresip};
use support::callee::{Callee, PLAIN_ANSWER, Script};
use support::gateway::{echo, from_here, tone};
use support::sipp::Sipp;
use support::sound::tune;
use support::{Gateway, Line, peer, wait};

use crate::audio::{CALLER, SCALE};

const NUMBER: &str = "+15550100100";
const TARGET: &str = "+15550300300";

/// What the number that is transferred to says.
const OTHER: [u32; 3] = [1_130, 620, 1_610];

/// Longer than any test.
const SECONDS: u32 = 30;

/// The same notes over and over.
fn endless(notes: &[u32]) -> Vec<i16> {
    let mut samples = tune(&notes.repeat(40), 300);
    samples.truncate(SECONDS as usize * 8_000);
    samples
}

/// A line with an agent, and a way out for transfers.
fn line(gateway: &Gateway, address: &str, mode: &str, runtime: Value) -> Line {
    let outbound = json!({
        "address": address, "auth_username": "customer", "auth_password": "correct horse",
        "transfer_mode": mode,
    });
    gateway.way_out(NUMBER, outbound, runtime)
}

/// The conversation that is up.
fn live(gateway: &Gateway) -> String {
    wait::until("the call is up", std::time::Duration::from_secs(10), || {
        let all = gateway.conversations();
        let up = all.iter().find(|record| record["status"] == "in_progress")?;
        up["id"].as_str().map(str::to_owned)
    })
}

fn transfer(gateway: &Gateway, id: &str, displayed: &str) {
    let body = json!({ "transfer_number": TARGET, "displayed_number": displayed });
    let reply =
        gateway.rest().send("POST", &format!("/core/conversations/{id}/transfer"), Some(&body));
    assert_eq!(reply.status, 202, "{}", reply.text);
}

#[test]
fn a_caller_who_is_handed_on_and_the_number_hear_each_other() {
    if !peer::have(&["baresip"]) {
        return;
    }
    let gateway = Gateway::start();
    let mut target = Baresip::answer(TARGET, Audio::Plain, &endless(&OTHER), SECONDS);
    line(&gateway, &target.address().to_string(), "bridge", tone());
    let uri = format!("sip:{NUMBER}@{}", gateway.udp);
    let mut caller = Baresip::call(&uri, Audio::Plain, &endless(&CALLER), SECONDS);
    caller.wait_for_answer();
    caller.hears(&SCALE, &[440]);
    let id = live(&gateway);
    transfer(&gateway, &id, "transferee_number");
    target.wait_for_answer();
    target.hears(&SCALE, &CALLER);
    caller.hears(&SCALE, &OTHER);
    // The agent is silent from here on.
    let record = gateway.reaches(&id, "transferred");
    assert_eq!(record["transfer"]["status"], "completed", "{record:#}");
    assert_eq!(record["transfer"]["transfer_number"], TARGET);
    assert_eq!(record["transfer"]["mode"], "bridge");
    assert_eq!(record["end_reason"]["code"], "transferred");
    target.quit();
    caller.wait_for_end();
    gateway.finish();
}

#[test]
fn the_sip_agent_of_a_caller_who_is_handed_on_is_hung_up() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let agent = Callee::new(Script::answers(PLAIN_ANSWER)).start();
    let target = Callee::new(Script::answers(PLAIN_ANSWER)).start();
    let runtime = json!({ "type": "sip", "uri": format!("sip:agent@{}", agent.address) });
    line(&gateway, &target.address.to_string(), "bridge", runtime);
    let caller = Sipp::new(&gateway, "call", NUMBER).set("talk_ms", 2_500).start();
    let id = live(&gateway);
    transfer(&gateway, &id, "transferee_number");
    agent.passes();
    gateway.reaches(&id, "transferred");
    caller.passes();
    target.passes();
    gateway.finish();
}

#[test]
fn the_number_sees_whoever_the_request_says() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let script = Script::answers_and_hangs_up(PLAIN_ANSWER, 200);
    let target = Callee::new(script).calls(2).start();
    line(&gateway, &target.address.to_string(), "bridge", echo());
    for displayed in ["transferee_number", "agent_number"] {
        let caller = Sipp::new(&gateway, "hung_up_by_the_gateway", NUMBER).start();
        transfer(&gateway, &live(&gateway), displayed);
        // The number hangs up, and with it the caller.
        caller.passes();
    }
    let invites = target.passes().requests("INVITE");
    let shown: Vec<_> = invites
        .iter()
        .map(|invite| {
            let from = invite.header("From").unwrap();
            from.trim_start_matches("<sip:").split('@').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(shown, ["+155501991", NUMBER]);
    for invite in invites {
        assert!(invite.uri().starts_with(&format!("sip:{TARGET}@")), "{}", invite.uri());
    }
    for record in gateway.ended_conversations(2) {
        assert_eq!(record["status"], "transferred", "{record:#}");
    }
    gateway.finish();
}

#[test]
fn a_caller_whose_number_is_busy_stays_with_the_agent() {
    if !peer::have(&["baresip", "sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let target = Callee::new(Script::call().reply(180, "Ringing").refuse(486, "Busy Here", ""));
    let target = target.start();
    line(&gateway, &target.address.to_string(), "bridge", echo());
    let uri = format!("sip:{NUMBER}@{}", gateway.udp);
    let mut caller = Baresip::call(&uri, Audio::Plain, &endless(&CALLER), SECONDS);
    caller.wait_for_answer();
    let id = live(&gateway);
    transfer(&gateway, &id, "transferee_number");
    target.passes();
    let failed = || {
        let record = gateway.conversation(&id);
        (record["transfer"]["status"] == "failed").then_some(record)
    };
    let record = wait::until("the transfer failed", std::time::Duration::from_secs(10), failed);
    assert_eq!(record["transfer"]["sip_code"], 486, "{record:#}");
    assert_eq!(record["status"], "in_progress");
    caller.hears_from_now_on(&SCALE, &CALLER);
    caller.quit();
    let record = gateway.ends(&id);
    assert_eq!(record["status"], "completed");
    assert_eq!(record["end_reason"]["code"], "caller_hung_up");
    gateway.finish();
}

#[test]
fn only_a_call_that_is_up_is_handed_on_and_only_once_at_a_time() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let script =
        Script::call().reply(180, "Ringing").expect("CANCEL").reply(200, "OK").terminated();
    let target = Callee::new(script.clone()).start();
    let line = line(&gateway, &target.address.to_string(), "bridge", echo());
    let body = json!({ "transfer_number": TARGET });
    let ask = |id: &str| {
        let path = format!("/core/conversations/{id}/transfer");
        gateway.rest().send("POST", &path, Some(&body)).status
    };
    let rings = gateway.dial(&line, "+15550200200");
    gateway.reaches(&rings, "ringing");
    assert_eq!(ask(&rings), 409);
    gateway.ask(&rings, "hangup", &json!({}));
    target.passes();
    assert_eq!(ask(&rings), 409);
    let target = Callee::new(script).start_on(target_port(&gateway, &line));
    let caller = Sipp::new(&gateway, "call", NUMBER).set("talk_ms", 1_500).start();
    let id = live(&gateway);
    assert_eq!(ask(&id), 202);
    target.wait_for_message("SIP/2.0 180");
    assert_eq!(ask(&id), 409);
    // The caller hangs up while the number rings: that is withdrawn.
    caller.passes();
    target.passes();
    let record = gateway.ends(&id);
    assert_eq!(record["status"], "completed", "{record:#}");
    assert_eq!(record["transfer"]["status"], "failed", "{record:#}");
    gateway.finish();
}

/// The port that the line's trunk dials.
fn target_port(gateway: &Gateway, line: &Line) -> u16 {
    let trunk = gateway.rest().get(&format!("/core/trunks/{}", line.trunk));
    let address = trunk["outbound_config"]["address"].as_str().unwrap().to_owned();
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn a_caller_cannot_be_handed_on_over_a_trunk_without_a_way_out() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    gateway.line(NUMBER, from_here(), echo());
    let caller = Sipp::new(&gateway, "call", NUMBER).set("talk_ms", 800).start();
    let path = format!("/core/conversations/{}/transfer", live(&gateway));
    let reply = gateway.rest().send("POST", &path, Some(&json!({ "transfer_number": TARGET })));
    assert_eq!(reply.status, 400, "{}", reply.text);
    caller.passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");
    gateway.finish();
}

#[test]
fn a_carrier_that_is_asked_takes_the_call_and_says_so() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let script = Script::call()
        .answer(PLAIN_ANSWER)
        .expect("REFER")
        .reply(202, "Accepted")
        .notify("active;expires=60", "SIP/2.0 100 Trying")
        .notify("terminated;reason=noresource", "SIP/2.0 200 OK")
        .expect("BYE")
        .reply(200, "OK");
    let carrier = Callee::new(script).start();
    let address = carrier.address;
    let line = line(&gateway, &address.to_string(), "refer", echo());
    let id = gateway.dial(&line, "+15550200200");
    gateway.reaches(&id, "in_progress");
    transfer(&gateway, &id, "transferee_number");
    let called = carrier.passes();
    let refer = called.request("REFER");
    assert_eq!(refer.header("Refer-To"), Some(format!("<sip:{TARGET}@{address}>").as_str()));
    let by = refer.header("Referred-By").unwrap();
    assert!(by.starts_with(&format!("<sip:{NUMBER}@")), "{by}");
    assert!(refer.header("Contact").is_some(), "{}", refer.text());
    let record = gateway.ends(&id);
    assert_eq!(record["status"], "transferred", "{record:#}");
    assert_eq!(record["transfer"]["status"], "completed");
    assert_eq!(record["transfer"]["mode"], "refer");
    gateway.finish();
}

#[test]
fn a_carrier_that_cannot_or_will_not_take_the_call_leaves_it_with_the_agent() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let begun = Script::call().answer(PLAIN_ANSWER).expect("REFER");
    let cases = [
        (begun.clone().reply(405, "Method Not Allowed"), 405),
        (
            begun
                .reply(202, "Accepted")
                .notify("active;expires=60", "SIP/2.0 100 Trying")
                .notify("terminated;reason=noresource", "SIP/2.0 503 Service Unavailable"),
            503,
        ),
    ];
    for (n, (script, status)) in cases.into_iter().enumerate() {
        let carrier = Callee::new(script.expect("BYE").reply(200, "OK")).start();
        let outbound = json!({
            "address": carrier.address.to_string(), "auth_username": "customer",
            "auth_password": "correct horse", "transfer_mode": "refer",
        });
        let line = gateway.way_out(&format!("+1555010020{n}"), outbound, echo());
        let id = gateway.dial(&line, "+15550200200");
        gateway.reaches(&id, "in_progress");
        transfer(&gateway, &id, "agent_number");
        let failed = || {
            let record = gateway.conversation(&id);
            (record["transfer"]["status"] == "failed").then_some(record)
        };
        let record = wait::until("the transfer failed", std::time::Duration::from_secs(10), failed);
        assert_eq!(record["transfer"]["sip_code"], status, "{record:#}");
        assert_eq!(record["status"], "in_progress");
        gateway.ask(&id, "hangup", &json!({}));
        carrier.passes();
        assert_eq!(gateway.ends(&id)["status"], "completed");
    }
    gateway.finish();
}
