//! Calls whose agent a workflow chooses, and the workflows of agents: what the caller gets, and what
//! the customer can read about it.

use std::time::Duration;

use serde_json::{Value, json};
use support::callee::{Answering, Callee, PLAIN_ANSWER, Script};
use support::gateway::{SETTINGS, echo, from_here, program, tone};
use support::http::Rest;
use support::lookup::Lookup;
use support::sipp::Sipp;
use support::{Gateway, peer, wait};

const NUMBER: &str = "+15550100100";

/// Whom SIPp calls as.
const CALLER: &str = "+155501991";

/// What lets workflows ask the tests' own server.
const LOOK_UPS_HERE: &[(&str, &str)] = &[
    ("fetch.allow_private_addresses", "true"),
    ("fetch.allow_plain_http", "true"),
    ("fetch.allow_any_port", "true"),
];

const CONFIG: &str = "/core/inbound-routing-config";

/// An organisation with a number, whose slot holds an agent that no call of these tests should reach.
struct House {
    gateway: Gateway,
    slot: String,
}

impl House {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(changes: &[(&str, &str)]) -> Self {
        let gateway = Gateway::with(&[LOOK_UPS_HERE, changes].concat());
        let line = gateway.line(NUMBER, from_here(), echo());
        House { gateway, slot: line.agent }
    }

    /// Has this workflow decide; without a fallback agent when `fallback` is null.
    fn routes(&self, steps: Value, fallback: Option<&str>) {
        let body =
            json!({ "workflow_definition": { "steps": steps }, "fallback_agent_id": fallback });
        self.gateway.rest().post(CONFIG, &body);
    }

    /// Changes the config.
    fn change(&self, change: &Value) {
        let _ = self.gateway.rest().send("PUT", CONFIG, Some(change)).ok();
    }

    /// Another agent that answers with a tone.
    fn agent(&self) -> String {
        self.gateway.agent(tone(), &[])
    }

    /// A call that is answered; its record and the decision about it.
    #[track_caller]
    fn answered(&self) -> (Value, Value) {
        Sipp::new(&self.gateway, "call", NUMBER).passes();
        let record = self.gateway.ended_conversation();
        assert_eq!(record["status"], "completed", "{record:#}");
        (record, self.gateway.decision(NUMBER))
    }

    /// A call that rings and is refused with `status`; its record and the decision about it.
    #[track_caller]
    fn refused(&self, status: u16) -> (Value, Value) {
        Sipp::new(&self.gateway, "refused_while_ringing", NUMBER).set("status", status).passes();
        let record = self.gateway.ended_conversation();
        assert_eq!(record["end_reason"]["sip_code"], status, "{record:#}");
        let decision = self.gateway.decision(NUMBER);
        assert_eq!(decision["sip_status"], status, "{decision:#}");
        assert_eq!(decision["rule"], record["end_reason"]["code"], "{decision:#}");
        assert_eq!(decision["conversation_id"], record["id"]);
        (record, decision)
    }
}

/// A workflow that ends at once with these fields.
fn gives(fields: &Value) -> Value {
    json!([
        { "id": "trigger", "type": "input", "next": "done" },
        { "id": "done", "type": "output", "fields": fields },
    ])
}

/// A workflow whose `step` is followed by an output that names this agent.
fn through(step: Value, agent: &str) -> Value {
    let mut step = step;
    step["id"] = json!("n1");
    step["next"] = json!("done");
    json!([
        { "id": "trigger", "type": "input", "next": "n1" },
        step,
        { "id": "done", "type": "output", "fields": { "agent_id": agent } },
    ])
}

fn code(source: &str) -> Value {
    json!({ "type": "code", "code": source })
}

/// Sends calls for which `when` is true to one agent and all others to another.
fn either(when: &str, yes: &str, no: &str) -> Value {
    json!([
        { "id": "trigger", "type": "input", "next": "which" },
        { "id": "which", "type": "condition", "default": "no",
          "branches": [{ "label": "yes", "when": when, "next": "yes" }] },
        { "id": "yes", "type": "output", "fields": { "agent_id": yes } },
        { "id": "no", "type": "output", "fields": { "agent_id": no } },
    ])
}

#[test]
fn a_workflow_is_told_of_the_headers_that_a_caller_adds() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let (gold, other) = (house.agent(), house.agent());
    house.routes(either("{{ input.sip_headers.`x-tier` = 'gold' }}", &gold, &other), None);
    let hops_and_tier = "70\n      X-Tier: gold";
    Sipp::new(&house.gateway, "call", NUMBER).set("hops", hops_and_tier).passes();
    assert_eq!(house.gateway.ended_conversation()["agent_id"], json!(gold));
}

#[test]
fn a_call_is_routed_by_who_calls_and_the_record_and_the_decision_say_so() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let (vip, other) = (house.agent(), house.agent());
    house
        .routes(either(&format!("{{{{ input.caller_number = '{CALLER}' }}}}"), &vip, &other), None);
    let call = json!({ "caller_number": CALLER, "called_number": NUMBER });
    let forecast = house.gateway.rest().post(&format!("{CONFIG}/dry-run"), &call);
    let (record, decision) = house.answered();
    assert_eq!(record["agent_id"], json!(vip));
    assert_ne!(record["agent_id"], json!(house.slot));
    assert_eq!(decision["rule"], "routed");
    assert_eq!(decision["sip_status"], Value::Null);
    assert_eq!(decision["routing"]["result"], "workflow");
    assert_eq!(decision["routing"]["agent_version_id"], record["agent_version_id"]);
    let steps = |report: &Value| {
        let steps = report["steps"].as_array().unwrap().iter();
        steps.map(|step| step["step"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(steps(&decision["routing"]), ["trigger", "which", "yes"]);
    // What was forecast is what happened.
    assert_eq!(steps(&forecast), steps(&decision["routing"]));
    for field in ["result", "reason", "agent_id", "agent_version_id", "version", "explanation"] {
        assert_eq!(forecast[field], decision["routing"][field], "{field}");
    }
    house.gateway.finish();
}

#[test]
fn a_call_is_routed_by_when_it_comes() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let (now, then) = (house.agent(), house.agent());
    let when = "{{ $substring(input.timestamp, 0, 4) >= '2020' }}";
    house.routes(either(when, &now, &then), None);
    let past = json!({ "caller_number": CALLER, "called_number": NUMBER,
        "timestamp": "2019-12-31T23:59:59Z" });
    let forecast = house.gateway.rest().post(&format!("{CONFIG}/dry-run"), &past);
    assert_eq!(forecast["agent_id"], json!(then));
    assert_eq!(house.answered().0["agent_id"], json!(now));
    house.gateway.finish();
}

#[test]
fn a_call_is_routed_by_what_a_look_up_says() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let agent = house.agent();
    let lookup = Lookup::start(&json!({ "agent": agent, "tier": "gold" }));
    house.routes(
        json!([
            { "id": "trigger", "type": "input", "next": "n1" },
            { "id": "n1", "type": "http", "method": "POST", "url": lookup.url("/crm"),
              "body": { "caller": "{{ input.caller_number }}" }, "next": "done" },
            { "id": "done", "type": "output", "fields": {
                "agent_id": "{{ n1.body.agent }}",
                "custom_metadata": { "tier": "{{ n1.body.tier }}" } } },
        ]),
        None,
    );
    let (record, decision) = house.answered();
    assert_eq!(record["agent_id"], json!(agent));
    assert_eq!(record["custom_metadata"], json!({ "tier": "gold" }));
    let asked = lookup.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("POST /crm ") && asked[0].contains(CALLER), "{}", asked[0]);
    // Those who may read decisions need not be those who may read what calls are about.
    assert!(!decision.to_string().contains("gold"), "{decision:#}");
    house.gateway.finish();
}

#[test]
fn a_call_is_routed_by_code() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let agent = house.agent();
    let source = "def run(ctx):\n    number = ctx['input']['caller_number']\n    return number[-1]";
    let mut steps = through(code(source), &agent);
    steps[2]["fields"]["custom_metadata"] = json!({ "last_digit": "{{ n1 }}" });
    house.routes(steps, None);
    let (record, _) = house.answered();
    assert_eq!(record["agent_id"], json!(agent));
    assert_eq!(record["custom_metadata"], json!({ "last_digit": "1" }));
    house.gateway.finish();
}

#[test]
fn a_call_that_the_workflow_rejects_is_603_and_cancelled() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let fallback = house.agent();
    house.routes(gives(&json!({ "reject": true })), Some(&fallback));
    let (record, decision) = house.refused(603);
    assert_eq!(record["status"], "cancelled");
    assert_eq!(record["direction"], "inbound");
    assert_eq!(record["agent_id"], Value::Null);
    let reason = &record["end_reason"];
    assert_eq!(
        (&reason["code"], &reason["party"]),
        (&json!("routing_rejected"), &json!("operator"))
    );
    assert_eq!(decision["routing"]["result"], "refused");
    let label = "reason=\"routing_rejected\"";
    assert_eq!(house.gateway.metric("gateway_calls_ended_total", label), 1.0);
    house.gateway.finish();
}

#[test]
fn a_workflow_that_throws_gives_the_call_to_the_fallback_agent() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let (named, fallback) = (house.agent(), house.agent());
    let steps = through(code("def run(ctx):\n    return 1 // 0"), &named);
    house.routes(steps, Some(&fallback));
    let (record, decision) = house.answered();
    assert_eq!(record["agent_id"], json!(fallback));
    assert_eq!(decision["rule"], "routing_failed");
    assert_eq!(decision["routing"]["result"], "fallback");
    assert!(decision["explanation"].as_str().unwrap().contains("n1"), "{decision:#}");
    house.gateway.finish();
}

#[test]
fn a_workflow_that_throws_without_a_fallback_agent_is_480_and_says_which_step() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let steps = through(code("def run(ctx):\n    raise ValueError('canary')"), &house.slot);
    house.routes(steps, None);
    let (record, decision) = house.refused(480);
    assert_eq!(record["status"], "failed");
    assert_eq!(record["end_reason"]["code"], "routing_failed");
    assert!(record["end_reason"]["text"].as_str().unwrap().contains("n1"), "{record:#}");
    assert!(!record.to_string().contains("canary"), "{record:#}");
    assert!(!decision["explanation"].to_string().contains("canary"), "{decision:#}");
    let last = &decision["routing"]["steps"][1]["summary"];
    assert!(last.as_str().unwrap().contains("canary"), "this key may see it: {decision:#}");
    house.gateway.finish();
}

#[test]
fn a_workflow_that_loops_does_not_hold_its_call_and_the_next_one_runs() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::with(&[("routing.deadline_seconds", "2")]);
    let steps = through(code("def run(ctx):\n    while True:\n        pass"), &house.slot);
    house.routes(steps, None);
    let (record, _) = house.refused(480);
    let code = record["end_reason"]["code"].as_str().unwrap();
    assert!(["routing_timed_out", "routing_failed"].contains(&code), "{record:#}");
    let agent = house.agent();
    let body = json!({ "workflow_definition": { "steps": gives(&json!({ "agent_id": agent })) } });
    house.change(&body);
    Sipp::new(&house.gateway, "call", NUMBER).passes();
    let records = house.gateway.ended_conversations(2);
    assert_eq!(records[0]["agent_id"], json!(agent), "{:#}", records[0]);
    house.gateway.finish();
}

#[test]
fn a_workflow_that_sleeps_past_its_deadline_gives_the_call_to_the_fallback_agent() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::with(&[("routing.deadline_seconds", "1")]);
    let fallback = house.agent();
    let steps = through(json!({ "type": "wait", "duration": 30, "unit": "seconds" }), &house.slot);
    house.routes(steps, Some(&fallback));
    let (record, decision) = house.answered();
    assert_eq!(record["agent_id"], json!(fallback));
    assert_eq!(decision["rule"], "routing_timed_out");
    house.gateway.finish();
}

#[test]
fn a_caller_who_gives_up_while_the_workflow_runs_ends_it() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let steps = through(json!({ "type": "wait", "duration": 5, "unit": "seconds" }), &house.slot);
    house.routes(steps, None);
    Sipp::new(&house.gateway, "cancelled", NUMBER).set("ring_ms", 300).passes();
    let record = house.gateway.ended_conversation();
    assert_eq!(record["status"], "cancelled");
    assert_eq!(record["end_reason"]["code"], "caller_cancelled");
    let waits = || house.gateway.metric("gateway_queue_depth", "queue=\"workflow_runs\"");
    let patience = Duration::from_secs(3); // the run itself would take five
    wait::until("the run is given up", patience, || (waits() < 1.0).then_some(()));
    house.gateway.finish();
}

#[test]
fn an_agent_that_cannot_answer_is_480_without_a_fallback_agent() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let nobody = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    house.routes(gives(&json!({ "agent_id": nobody })), None);
    let (record, _) = house.refused(480);
    assert_eq!(record["status"], "failed");
    assert_eq!(record["end_reason"]["code"], "routing_unresolved");
    house.gateway.finish();
}

#[test]
fn an_agent_of_another_organization_is_nobody() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let fallback = house.agent();
    let foreign = agent_elsewhere(&house.gateway);
    house.routes(gives(&json!({ "agent_id": foreign })), Some(&fallback));
    let (record, decision) = house.answered();
    assert_eq!(record["agent_id"], json!(fallback));
    assert_eq!(decision["rule"], "routing_unresolved");
    // Nor can it be told from one that never was.
    let told = |agent: &str| {
        let steps = gives(&json!({ "agent_id": agent }));
        let call = json!({ "caller_number": CALLER, "called_number": NUMBER,
            "workflow_definition": { "steps": steps } });
        let answer = house.gateway.rest().post(&format!("{CONFIG}/dry-run"), &call);
        assert_eq!(answer["reason"], "routing_unresolved", "{answer:#}");
        answer["explanation"].to_string().replace(agent, "X")
    };
    assert_eq!(told(&foreign), told("67e55044-10b1-426f-9247-bb680e5fe0c8"));
    house.gateway.finish();
}

/// An agent of another organisation, published and ready to answer.
fn agent_elsewhere(gateway: &Gateway) -> String {
    let made = gateway.rest().post("/admin/organizations", &json!({ "name": "elsewhere" }));
    let organization = made["id"].as_str().unwrap();
    let key = ["keys", "create", "k", "--organization", organization, "--settings", SETTINGS];
    let key = program(&key, gateway.folder()).output().unwrap();
    assert!(key.status.success(), "{}", String::from_utf8_lossy(&key.stderr));
    let rest = Rest::new(gateway.api, std::str::from_utf8(&key.stdout).unwrap().trim());
    wait::until("the key works", Duration::from_secs(10), || {
        (rest.send("GET", "/core/agents", None).status == 200).then_some(())
    });
    let agent = rest.post("/core/agents", &json!({ "name": "theirs" }))["id"].clone();
    let agent = agent.as_str().unwrap().to_owned();
    let version = json!({ "config": { "runtime": echo() } });
    rest.post(&format!("/core/agents/{agent}/versions"), &version);
    rest.post(&format!("/core/agents/{agent}/versions/1/publish"), &json!({}));
    agent
}

#[test]
fn a_config_that_is_not_enabled_leaves_the_slot_to_decide() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    house.routes(gives(&json!({ "reject": true })), None);
    house.change(&json!({ "enabled": false }));
    Sipp::new(&house.gateway, "call", NUMBER).passes();
    assert_eq!(house.gateway.ended_conversation()["agent_id"], json!(house.slot));
    house.gateway.finish();
}

/// An agent with these workflows, published as `publish` says; its id.
pub(crate) fn agent_with(gateway: &Gateway, config: &Value, publish: &Value) -> String {
    let rest = gateway.rest();
    let made = rest.post("/core/agents", &json!({ "name": "with workflows" }));
    let id = made["id"].as_str().unwrap().to_owned();
    rest.post(&format!("/core/agents/{id}/versions"), &json!({ "config": config }));
    rest.post(&format!("/core/agents/{id}/versions/1/publish"), publish);
    id
}

/// A workflow action of these steps.
pub(crate) fn action(steps: &Value) -> Value {
    json!({ "type": "workflow", "definition": { "steps": steps } })
}

/// A SIP agent's config, with this workflow before its conversations.
fn at_endpoint(agent: &Answering, pre: &Value) -> Value {
    json!({
        "runtime": { "type": "sip", "uri": format!("sip:agent@{}", agent.address) },
        "pre_conversation_workflow": pre,
    })
}

#[test]
fn what_both_workflows_say_reaches_the_agent_and_the_record_and_the_agents_own_wins() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let callee = Callee::new(Script::answers(PLAIN_ANSWER)).start();
    let pre = action(&gives(&json!({
        "initial_context": "from the agent\r\nVia: x",
        "custom_metadata": { "b": "agent", "heard": "{{ input.trigger.custom_metadata.a }}" },
    })));
    let agent = agent_with(&house.gateway, &at_endpoint(&callee, &pre), &json!({}));
    house.routes(
        gives(&json!({ "agent_id": agent, "initial_context": "from the organization",
            "custom_metadata": { "a": "routing", "b": "routing" } })),
        None,
    );
    let (record, _) = house.answered();
    let expected = json!({ "a": "routing", "b": "agent", "heard": "routing" });
    assert_eq!(record["custom_metadata"], expected);
    assert_eq!(record["initial_context"], "from the agent\r\nVia: x");
    let invite = callee.passes().request("INVITE");
    assert_eq!(invite.header("X-Initial-Context"), Some("from%20the%20agent%0D%0AVia%3A%20x"));
    let metadata = invite.header("X-Custom-Metadata").unwrap();
    assert_eq!(serde_json::from_str::<Value>(metadata).unwrap(), expected);
    house.gateway.finish();
}

#[test]
fn the_agents_own_workflow_is_left_out_where_the_organization_says_so() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let house = House::new();
    let config = json!({ "runtime": echo(),
        "pre_conversation_workflow": action(&gives(&json!({ "reject": true }))) });
    let agent = agent_with(&house.gateway, &config, &json!({}));
    let fields = json!({ "agent_id": agent, "skip_pre_conversation_workflow": true });
    house.routes(gives(&fields), None);
    assert_eq!(house.answered().0["agent_id"], json!(agent));
    house.gateway.finish();
}

#[test]
fn an_agents_workflow_that_rejects_is_603_and_cancelled() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    gateway.number(NUMBER, &gateway.trunk("t", from_here()));
    let config = json!({ "runtime": echo(),
        "pre_conversation_workflow": action(&gives(&json!({ "reject": true }))) });
    let agent = agent_with(&gateway, &config, &json!({ "phone_numbers": [NUMBER] }));
    Sipp::new(&gateway, "refused_while_ringing", NUMBER).set("status", 603).passes();
    let record = gateway.ended_conversation();
    assert_eq!(record["status"], "cancelled");
    assert_eq!(record["agent_id"], json!(agent));
    assert_eq!(record["end_reason"]["code"], "pre_conversation_rejected");
    gateway.finish();
}

#[test]
fn a_workflow_that_an_agent_names_runs_as_it_is_published_at_the_time() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let rest = gateway.rest();
    gateway.number(NUMBER, &gateway.trunk("t", from_here()));
    let definition = |fields: &Value| json!({ "steps": gives(fields) });
    let body = json!({ "name": "w", "definition": definition(&json!({ "reject": true })) });
    let made = rest.post("/workflow/workflows", &body);
    let id = made["id"].as_str().unwrap();
    let versions = format!("/workflow/workflows/{id}/versions");
    rest.post(&format!("{versions}/1/publish"), &json!({}));
    let pre = json!({ "type": "workflow", "workflow_id": id, "workflow_version": "latest",
        "initial_step": "trigger", "reject_on_error": true });
    let config = json!({ "runtime": echo(), "pre_conversation_workflow": pre });
    agent_with(&gateway, &config, &json!({ "phone_numbers": [NUMBER] }));
    Sipp::new(&gateway, "refused_while_ringing", NUMBER).set("status", 603).passes();
    let second = json!({ "definition": definition(&json!({ "custom_metadata": { "by": id } })) });
    rest.post(&versions, &second);
    rest.post(&format!("{versions}/2/publish"), &json!({}));
    Sipp::new(&gateway, "call", NUMBER).passes();
    let records = gateway.ended_conversations(2);
    assert_eq!(records[0]["custom_metadata"], json!({ "by": id }), "{:#}", records[0]);
    assert_eq!(records[1]["end_reason"]["code"], "pre_conversation_rejected", "{:#}", records[1]);
    let _ = rest.send("DELETE", &format!("/workflow/workflows/{id}"), None).ok();
    Sipp::new(&gateway, "refused_while_ringing", NUMBER).set("status", 480).passes();
    let record = gateway.ended_conversations(3).remove(0);
    assert_eq!(record["end_reason"]["code"], "pre_conversation_failed", "{record:#}");
    assert!(record["end_reason"]["text"].as_str().unwrap().contains(id), "{record:#}");
    gateway.finish();
}

#[test]
fn an_agents_workflow_that_fails_stops_only_the_calls_of_those_who_say_so() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let trunk = gateway.trunk("t", from_here());
    let steps = through(code("def run(ctx):\n    raise ValueError('canary')"), "x");
    let mut numbers = Vec::new();
    for (number, rejects) in [(NUMBER, false), ("+15550100101", true)] {
        gateway.number(number, &trunk);
        let mut pre = action(&steps);
        pre["reject_on_error"] = json!(rejects);
        let config = json!({ "runtime": echo(), "pre_conversation_workflow": pre });
        agent_with(&gateway, &config, &json!({ "phone_numbers": [number] }));
        numbers.push(number);
    }
    Sipp::new(&gateway, "call", numbers[0]).passes();
    Sipp::new(&gateway, "refused_while_ringing", numbers[1]).set("status", 480).passes();
    let records = gateway.ended_conversations(2);
    assert_eq!(records[0]["end_reason"]["code"], "pre_conversation_failed", "{:#}", records[0]);
    let text = "step \"n1\": the step failed";
    assert_eq!(records[0]["end_reason"]["text"], text, "the error may quote the caller");
    assert_eq!(records[1]["end_reason"]["code"], "caller_hung_up", "{:#}", records[1]);
    gateway.finish();
}

/// A way out over UDP to this carrier.
fn way_out(carrier: &Answering) -> Value {
    json!({ "address": carrier.address.to_string(), "auth_username": "u", "auth_password": "p" })
}

#[test]
fn nobody_is_dialled_when_the_agents_workflow_rejects_a_call_out() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let carrier = Callee::new(Script::answers(PLAIN_ANSWER)).start();
    let line = gateway.way_out(NUMBER, way_out(&carrier), echo());
    let condition = "{{ input.trigger.phone_number = '+15550200200' }}";
    let mut pre = action(&gives(&json!({ "reject": true })));
    pre["condition"] = json!(condition);
    let config = json!({ "runtime": echo(), "pre_conversation_workflow": pre });
    let publish = json!({ "phone_numbers": [NUMBER], "direction": "outbound" });
    let agent = agent_with(&gateway, &config, &publish);
    let record = gateway.ends(&gateway.dial(&line, "+15550200200"));
    assert_eq!(record["status"], "cancelled", "{record:#}");
    assert_eq!(record["end_reason"]["code"], "pre_conversation_rejected");
    assert_eq!(record["agent_id"], json!(agent));
    assert!(!carrier.messages().contains("INVITE "), "{}", carrier.messages());
    // Another number does not meet the condition.
    let other = gateway.dial(&line, "+15550200201");
    gateway.reaches(&other, "in_progress");
    gateway.ask(&other, "hangup", &Value::Null);
    assert_eq!(gateway.ends(&other)["status"], "completed");
    carrier.passes();
    gateway.finish();
}

#[test]
fn what_runs_after_a_conversation_is_told_how_it_ended_and_holds_nobody_up() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::with(LOOK_UPS_HERE);
    gateway.number(NUMBER, &gateway.trunk("t", from_here()));
    let lookup = Lookup::start(&json!({}));
    let steps = json!([
        { "id": "trigger", "type": "input", "next": "tell" },
        { "id": "tell", "type": "http", "method": "POST", "url": lookup.url("/after"),
          "body": "{{ input.trigger }}", "next": "done" },
        { "id": "done", "type": "output", "fields": {} },
    ]);
    let config = json!({ "runtime": echo(), "post_conversation_workflow": action(&steps) });
    let agent = agent_with(&gateway, &config, &json!({ "phone_numbers": [NUMBER] }));
    Sipp::new(&gateway, "call", NUMBER).passes();
    let record = gateway.ended_conversation();
    let told = wait::until("the workflow's request", Duration::from_secs(30), || {
        lookup.requests().first().cloned()
    });
    let (_, body) = told.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["type"], "post_call");
    assert_eq!(body["conversation_id"], record["id"]);
    assert_eq!(body["agent_id"], json!(agent));
    assert_eq!((&body["status"], &body["direction"]), (&json!("completed"), &json!("inbound")));
    assert_eq!(body["end_reason"]["code"], "caller_hung_up");
    gateway.finish();
}
