//! `/core/inbound-routing-config`, and the workflows of agents.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use config::api::ApiOptions;
use config::ids::OrganisationId;
use config::workflows::{
    Definition, Failure, FailureKind, Fault, Outcome, Parsed, Rejected, RunRequest, Running,
    TraceEntry, Workflows,
};
use serde_json::{Value, json};

use crate::server::{Server, id};

const PATH: &str = "/core/inbound-routing-config";
const DRY_RUN: &str = "/core/inbound-routing-config/dry-run";
const NUMBER: &str = "+15550000001";

/// An engine that finds the fault and gives the output, or the failure, that it was made with, after the
/// time that it takes; its trace says what it was told.
struct Scripted {
    fault: Option<Fault>,
    result: Result<Value, FailureKind>,
    takes: Duration,
}

impl Workflows for Scripted {
    fn check<'a>(
        &'a self,
        _: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(async move {
            match &self.fault {
                Some(fault) => Err(Rejected::Faults(vec![fault.clone()])),
                None => Definition::parse(definition).map_err(Rejected::Faults),
            }
        })
    }

    fn run(&self, request: RunRequest) -> Running<'_, Outcome> {
        let result = self.result.clone().map_err(|kind| Failure {
            step_name: "n1".to_owned(),
            message: "no".to_owned(),
            kind,
        });
        let step = TraceEntry {
            step: "trigger".to_owned(),
            name: "trigger".to_owned(),
            kind: "input".to_owned(),
            duration_us: 3,
            summary: request.input.to_string(),
        };
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            Outcome { result, trace: vec![step] }
        })
    }
}

/// The same server with another engine.
fn over(server: &Server, engine: Scripted) -> Server {
    server.with_engine(Arc::new(engine))
}

fn gives(output: Value) -> Scripted {
    Scripted { fault: None, result: Ok(output), takes: Duration::ZERO }
}

fn fails(kind: FailureKind) -> Scripted {
    Scripted { fault: None, result: Err(kind), takes: Duration::ZERO }
}

fn definition() -> Value {
    json!({ "steps": [
        { "id": "trigger", "type": "input", "next": "n1" },
        { "id": "n1", "type": "output", "fields": {} },
    ] })
}

/// An agent with one published version; its id.
async fn published(server: &Server, name: &str) -> String {
    let agent = server.agent(name).await;
    let path = format!("/core/agents/{agent}/versions/1/publish");
    server.post(&path, json!({})).await.is(200);
    agent
}

#[tokio::test]
async fn a_config_is_null_made_once_changed_and_given_up() {
    let server = Server::start().await;
    assert_eq!(server.get(PATH).await.is(200), Value::Null);
    server.put(PATH, json!({ "enabled": false })).await.is(404);
    server.delete(PATH).await.is(404);
    let made = server.post(PATH, json!({ "workflow_definition": definition() })).await.is(200);
    assert_eq!(made["organization_id"], json!(server.organisation));
    assert_eq!(made["workflow_definition"], definition());
    assert_eq!(made["enabled"], true);
    assert_eq!(
        (&made["fallback_agent_id"], &made["fallback_agent_version"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(server.get(PATH).await.is(200), made);
    let again = server.post(PATH, json!({ "workflow_definition": definition() })).await;
    assert_eq!(again.is(409)["detail"], "Inbound routing config already exists");
    let agent = published(&server, "fallback").await;
    let both = json!({ "fallback_agent_id": agent, "fallback_agent_version": 1 });
    let changed = server.put(PATH, both).await.is(200);
    assert_eq!(
        (&changed["fallback_agent_id"], &changed["fallback_agent_version"]),
        (&json!(agent), &json!(1))
    );
    assert_eq!(changed["workflow_definition"], definition());
    let changed = server.put(PATH, json!({ "fallback_agent_id": null })).await.is(200);
    assert_eq!(
        (&changed["fallback_agent_id"], &changed["fallback_agent_version"]),
        (&json!(null), &json!(null))
    );
    let changed = server.put(PATH, json!({ "enabled": false })).await.is(200);
    assert_eq!(changed["enabled"], false);
    server.delete(PATH).await.is(204);
    assert_eq!(server.get(PATH).await.is(200), Value::Null);
}

#[tokio::test]
async fn what_does_not_fit_is_said_with_its_place() {
    let server = Server::start().await;
    let agent = server.agent("draft").await;
    for (body, place) in [
        (json!({}), "body.workflow_definition"),
        (json!({ "workflow_definition": {} }), "body.workflow_definition"),
        (json!({ "workflow_definition": null }), "body.workflow_definition"),
        (json!({ "workflow_definition": { "steps": [] } }), "body.workflow_definition.steps"),
        (
            json!({ "workflow_definition": definition(), "fallback_agent_version": 1 }),
            "body.fallback_agent_version",
        ),
        (json!({ "workflow_definition": definition(), "enabled": "yes" }), "body.enabled"),
        (json!({ "workflow_definition": definition(), "timeout": 7 }), "body.timeout"),
    ] {
        let places = server.post(PATH, body.clone()).await.places();
        assert_eq!(places, [place], "{body}");
    }
    let unpublished = json!({ "workflow_definition": definition(), "fallback_agent_id": agent });
    let detail = server.post(PATH, unpublished).await.is(400)["detail"].to_string();
    assert!(detail.contains("no published version"), "{detail}");
    assert_eq!(server.get(PATH).await.is(200), Value::Null);
}

#[tokio::test]
async fn a_fault_that_the_engine_finds_is_named_down_to_the_field() {
    let server = Server::start().await;
    let fault = Fault::new("steps[1].branches[0].when", "is no JSONata");
    let strict = over(&server, Scripted { fault: Some(fault), ..gives(json!({})) });
    let body = json!({ "workflow_definition": definition() });
    let place = "body.workflow_definition.steps.1.branches.0.when";
    assert_eq!(strict.post(PATH, body.clone()).await.places(), [place]);
    server.post(PATH, body.clone()).await.is(200);
    assert_eq!(strict.put(PATH, body).await.places(), [place]);
    let call = json!({ "caller_number": "x", "called_number": NUMBER, "workflow_definition": definition() });
    assert_eq!(strict.post(DRY_RUN, call).await.places(), [place]);
}

#[tokio::test]
async fn a_config_belongs_to_one_organisation() {
    let server = Server::start().await;
    let (_, foreign) = server.stranger().await;
    let agent = published(&server, "own").await;
    let body = json!({ "workflow_definition": definition(), "fallback_agent_id": agent });
    let made = server.post(PATH, body.clone()).await.is(200);
    let ask = async |method: Method, body: &Value| server.call(method, PATH, &foreign, body).await;
    assert_eq!(ask(Method::GET, &Value::Null).await.is(200), Value::Null);
    ask(Method::PUT, &json!({ "enabled": false })).await.is(404);
    ask(Method::DELETE, &Value::Null).await.is(404);
    let theirs = ask(Method::POST, &body).await.is(400);
    let mut never = body;
    never["fallback_agent_id"] = json!("67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert_eq!(theirs, ask(Method::POST, &never).await.is(400));
    assert_eq!(server.get(PATH).await.is(200), made);
}

/// A number whose slot holds an agent; the number's trunk and the agent.
async fn line(server: &Server) -> (String, String) {
    let trunk = server.trunk("t").await;
    server.number(NUMBER, &trunk).await;
    let agent = server.agent("slot").await;
    let path = format!("/core/agents/{agent}/versions/1/publish");
    server.post(&path, json!({ "phone_numbers": [NUMBER] })).await.is(200);
    (trunk, agent)
}

fn call() -> Value {
    json!({ "caller_number": "+15559990000", "called_number": NUMBER })
}

#[tokio::test]
async fn without_a_config_a_dry_run_says_what_the_slot_does() {
    let server = Server::start().await;
    let unknown = server.post(DRY_RUN, call()).await.is(200);
    assert_eq!(
        (&unknown["result"], &unknown["reason"]),
        (&json!("refused"), &json!("number_not_found"))
    );
    assert_eq!(unknown["sip_status"], 404);
    let (_, agent) = line(&server).await;
    let forecast = server.post(DRY_RUN, call()).await.is(200);
    assert_eq!((&forecast["result"], &forecast["agent_id"]), (&json!("slot"), &json!(agent)));
    assert_eq!((&forecast["input"], &forecast["steps"]), (&Value::Null, &json!([])));
    let off = json!({ "workflow_definition": definition(), "enabled": false });
    server.post(PATH, off).await.is(200);
    assert_eq!(server.post(DRY_RUN, call()).await.is(200), forecast);
}

#[tokio::test]
async fn a_dry_run_is_decided_as_a_call_is_and_changes_nothing() {
    let server = Server::start().await;
    let (trunk, _) = line(&server).await;
    let (named, fallback) =
        (published(&server, "named").await, published(&server, "fallback").await);
    let body = json!({ "workflow_definition": definition(), "fallback_agent_id": fallback });
    server.post(PATH, body).await.is(200);
    let ask = async |engine: Scripted| over(&server, engine).post(DRY_RUN, call()).await.is(200);
    let output =
        json!({ "agent_id": named, "initial_context": "VIP", "custom_metadata": { "a": 1 } });
    let seen = ask(gives(output.clone())).await;
    assert_eq!((&seen["result"], &seen["agent_id"]), (&json!("workflow"), &json!(named)));
    assert_eq!((&seen["version"], &seen["sip_status"]), (&json!(1), &Value::Null));
    assert_eq!(seen["initial_context"], "VIP");
    assert_eq!(seen["custom_metadata"], json!({ "a": 1 }));
    assert_eq!(seen["output"], output);
    assert_eq!(seen["input"]["trunk_id"], json!(trunk));
    assert_eq!(seen["input"]["caller_number"], "+15559990000");
    assert_eq!(seen["input"]["organization_id"], json!(server.organisation));
    assert_eq!(seen["steps"][0]["summary"], seen["input"].to_string());
    let seen = ask(gives(json!({ "reject": true }))).await;
    assert_eq!((&seen["reason"], &seen["sip_status"]), (&json!("routing_rejected"), &json!(603)));
    let seen = ask(fails(FailureKind::TimedOut)).await;
    assert_eq!((&seen["result"], &seen["agent_id"]), (&json!("fallback"), &json!(fallback)));
    assert_eq!(seen["reason"], "routing_timed_out");
    assert!(seen["explanation"][0].as_str().unwrap().contains("not done in time"), "{seen}");
    server.put(PATH, json!({ "fallback_agent_id": null })).await.is(200);
    let seen = ask(gives(json!({ "agent_id": "x" }))).await;
    assert_eq!((&seen["reason"], &seen["sip_status"]), (&json!("routing_unresolved"), &json!(480)));
    assert_eq!(server.get("/core/conversations").await.is(200), json!([]));
    assert_eq!(server.get("/core/calls/decisions").await.is(200), json!([]));
}

#[tokio::test]
async fn a_dry_run_may_bring_its_own_workflow_trunk_and_time() {
    let server = Server::start().await;
    line(&server).await;
    let other = server.trunk("other").await;
    let mut body = call();
    body["workflow_definition"] = definition();
    body["trunk_id"] = json!(other);
    body["timestamp"] = json!("2026-01-31T12:00:00Z");
    body["sip_headers"] = json!({ "X-Tier": "gold" });
    let seen = over(&server, gives(json!({}))).post(DRY_RUN, body.clone()).await.is(200);
    assert_eq!(seen["input"]["trunk_id"], json!(other));
    assert_eq!(seen["input"]["timestamp"], "2026-01-31T12:00:00.000000Z");
    assert_eq!(seen["input"]["sip_headers"], json!({ "x-tier": "gold" }));
    assert_eq!(seen["reason"], "routing_unresolved");
    assert_eq!(server.get(PATH).await.is(200), Value::Null);
    body["trunk_id"] = json!("67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert_eq!(server.post(DRY_RUN, body).await.is(404)["detail"], "Trunk not found");
    for (field, bad) in [
        ("caller_number", json!("a\r\nb")),
        ("called_number", json!("15550000001")),
        ("timestamp", json!("yesterday")),
        ("workflow_definition", json!({})),
        ("sip_headers", json!({ "Via": "x" })),
        ("sip_headers", json!({ "X-A": "b\r\nc" })),
        ("sip_headers", json!({ "X-A": "x".repeat(1_025) })),
    ] {
        let mut body = call();
        body[field] = bad;
        let places = server.post(DRY_RUN, body).await.places();
        assert_eq!(places, [format!("body.{field}")]);
    }
}

#[tokio::test]
async fn a_dry_run_has_the_time_that_a_call_has_however_short_other_requests_are() {
    let short = ApiOptions { request_timeout: Duration::from_millis(50), ..ApiOptions::default() };
    let server = Server::with(short).await;
    line(&server).await;
    let mut body = call();
    body["workflow_definition"] = definition();
    let slow = Scripted { takes: Duration::from_millis(300), ..gives(json!({ "reject": true })) };
    let seen = over(&server, slow).post(DRY_RUN, body).await.is(200);
    assert_eq!(seen["reason"], "routing_rejected");
}

#[tokio::test]
async fn a_dry_run_sees_nothing_of_another_organisation() {
    let server = Server::start().await;
    let (trunk, agent) = line(&server).await;
    let (_, foreign) = server.stranger().await;
    let ask = async |server: &Server, body: &Value| {
        server.call(Method::POST, DRY_RUN, &foreign, body).await
    };
    let seen = ask(&server, &call()).await.is(200);
    assert_eq!(seen["reason"], "number_not_found");
    let mut body = call();
    body["trunk_id"] = json!(trunk);
    ask(&server, &body).await.is(404);
    // A number of their own, and a workflow that names our agent.
    let own = json!({ "name": "t" });
    let own = server.call(Method::POST, "/core/trunks", &foreign, &own).await.is(200);
    let number = json!({ "phone_number": "+15550000002", "trunk_id": id(&own) });
    server.call(Method::POST, "/core/phone-numbers", &foreign, &number).await.is(200);
    let body = json!({ "caller_number": "x", "called_number": "+15550000002",
        "workflow_definition": definition() });
    let seen = ask(&over(&server, gives(json!({ "agent_id": agent }))), &body).await.is(200);
    assert_eq!((&seen["reason"], &seen["agent_id"]), (&json!("routing_unresolved"), &Value::Null));
}

#[tokio::test]
async fn the_workflows_of_an_agent_are_checked_when_they_are_written() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    let with = |action: Value| json!({ "config": { "pre_conversation_workflow": action } });
    let place = "body.config.pre_conversation_workflow";
    for (action, at) in [
        (json!({ "type": "workflow" }), "definition"),
        (json!({ "type": "hangup" }), "type"),
        (json!({ "type": "workflow", "workflow_id": "wf_1" }), "initial_step"),
        (json!({ "type": "workflow", "definition": { "steps": [] } }), "definition.steps"),
        (
            json!({ "type": "workflow", "definition": definition(), "reject_on_error": 1 }),
            "reject_on_error",
        ),
    ] {
        let places = server.post(&path, with(action.clone())).await.places();
        assert_eq!(places, [format!("{place}.{at}")], "{action}");
    }
    let fine = json!({ "type": "workflow", "definition": definition(), "condition": "input.x" });
    server.post(&path, with(fine.clone())).await.is(200);
    let fault = || Some(Fault::new("steps[1].fields.holds", "is no JSONata"));
    let strict = over(&server, Scripted { fault: fault(), ..gives(json!({})) });
    let places = strict.post(&path, with(fine)).await.places();
    assert_eq!(places, [format!("{place}.definition.steps.1.fields.holds")]);
    let inline = json!({ "channel": "telephone", "user_id": "+4930123456", "agent_number": NUMBER,
        "agent_config": { "post_conversation_workflow": { "type": "workflow" } } });
    let places = server.post("/core/conversations", inline).await.places();
    assert_eq!(places, ["body.agent_config.post_conversation_workflow.definition"]);
}

#[tokio::test]
async fn an_agent_names_only_workflows_that_can_be_run_for_it() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    let made = json!({ "name": "w", "definition": definition() });
    let workflow = id(&server.post("/workflow/workflows", made.clone()).await.is(200));
    let naming = |workflow: &str, version: Value, step: &str| {
        let action = json!({ "type": "workflow", "workflow_id": workflow,
            "workflow_version": version, "initial_step": step });
        json!({ "config": { "post_conversation_workflow": action } })
    };
    let places = async |body: Value| server.post(&path, body).await.places();
    let at = |key: &str| [format!("body.config.post_conversation_workflow.{key}")];
    let latest = || json!("latest");
    assert_eq!(places(naming(&workflow, latest(), "trigger")).await, at("workflow_version"));
    let publish = format!("/workflow/workflows/{workflow}/versions/1/publish");
    server.post(&publish, Value::Null).await.is(200);
    assert_eq!(places(naming(&workflow, json!(2), "trigger")).await, at("workflow_version"));
    assert_eq!(places(naming(&workflow, latest(), "nowhere")).await, at("initial_step"));
    for unknown in ["wf_67e5504410b1426f9247bb680e5fe0c8", "wf_1"] {
        assert_eq!(places(naming(unknown, latest(), "trigger")).await, at("workflow_id"));
    }
    let (_, foreign) = server.stranger().await;
    let theirs = server.call(Method::POST, "/workflow/workflows", &foreign, &made).await.is(200);
    assert_eq!(places(naming(&id(&theirs), latest(), "trigger")).await, at("workflow_id"));
    server.post(&path, naming(&workflow, latest(), "trigger")).await.is(200);
    server.post(&path, naming(&workflow, json!(1), "trigger")).await.is(200);
}

/// An engine whose runs have no end.
struct Endless;

impl Workflows for Endless {
    fn check<'a>(
        &'a self,
        _: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(async move { Definition::parse(definition).map_err(Rejected::Faults) })
    }

    fn run(&self, _: RunRequest) -> Running<'_, Outcome> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn dry_runs_take_the_places_of_requests_that_wait_for_runs() {
    let server = Server::start().await;
    line(&server).await;
    let endless = server.with_engine(Arc::new(Endless));
    let mut body = call();
    body["workflow_definition"] = definition();
    let all = futures_util::future::join_all((0..16).map(|_| endless.post(DRY_RUN, body.clone())));
    {
        let mut all = std::pin::pin!(all);
        assert!(futures_util::poll!(&mut all).is_pending());
        endless.post(DRY_RUN, body.clone()).await.is(503);
    }
    over(&server, gives(json!({}))).post(DRY_RUN, body).await.is(200);
}
