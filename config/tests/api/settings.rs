//! What an organization says of its calls once for all of them.

use config::calls::DialRequest;
use config::model::{Conversation, Direction, Runtime};
use serde_json::{Value, json};

use crate::server::{Server, id};

const CONCURRENCY: &str = "/campaign/concurrency-settings";
const RUNTIME: &str = "/core/default-runtime";

#[tokio::test]
async fn a_concurrency_limit_is_the_nodes_until_the_organization_says_another() {
    let server = Server::start().await;
    let own = server.organisation.to_string();
    let settings = |limit: u32, is_default: bool| json!({ "organization_id": own, "concurrency_limit": limit, "is_default": is_default });
    assert_eq!(server.get(CONCURRENCY).await.is(200), settings(10, true));
    let put = async |body: Value| server.put(CONCURRENCY, body).await;
    assert_eq!(put(json!({ "concurrency_limit": 10_000 })).await.is(200), settings(10_000, false));
    assert_eq!(put(json!({})).await.is(200), settings(10_000, false));
    assert_eq!(server.get(CONCURRENCY).await.is(200), settings(10_000, false));
    for body in [
        json!({ "concurrency_limit": 0 }),
        json!({ "concurrency_limit": 10_001 }),
        json!({ "concurrency_limit": -1 }),
        json!({ "concurrency_limit": "7" }),
    ] {
        assert_eq!(put(body).await.places(), ["body.concurrency_limit"]);
    }
    assert_eq!(put(json!({ "global_limit": 5 })).await.places(), ["body.global_limit"]);
    assert_eq!(put(json!({ "concurrency_limit": null })).await.is(200), settings(10, true));
    let log = server.get("/admin/audit-log?action=concurrency.update").await.is(200);
    assert_eq!(log.as_array().unwrap().len(), 2, "{log}");
}

/// The call that was placed last.
fn dialled(server: &Server) -> DialRequest {
    server.calls.dialled.lock().unwrap().pop().unwrap()
}

#[tokio::test]
async fn agents_without_a_runtime_run_where_the_organization_says() {
    let server = Server::start().await;
    assert_eq!(server.get(RUNTIME).await.is(200), json!({ "runtime": null }));
    let outbound =
        json!({ "address": "h.example.com", "auth_username": "u", "auth_password": "p" });
    let trunk = json!({ "name": "t", "outbound_config": outbound });
    let trunk = id(&server.post("/core/trunks", trunk).await.is(200));
    server.number("+15550001111", &trunk).await;
    let agent = server.agent("a").await;
    server.post(&format!("/core/agents/{agent}/versions/1/publish"), Value::Null).await.is(200);
    let ask = async |with: Value| {
        let mut body = json!({ "channel": "telephone", "user_id": "+4930123456" });
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        server.post("/core/conversations", body).await.is(202);
        dialled(&server).runtime
    };
    assert_eq!(ask(json!({ "agent_id": agent })).await, Runtime::default());

    let block = json!({ "type": "websocket", "url": "wss://agents.example.com/x",
        "auth_token": "canary" });
    let shown = server.put(RUNTIME, json!({ "runtime": block })).await.is(200);
    assert_eq!(shown["runtime"]["auth_token"], Value::Null);
    assert_eq!(server.get(RUNTIME).await.is(200), shown);
    let Runtime::Websocket(one) = ask(json!({ "agent_id": agent })).await else { panic!() };
    assert_eq!(one.auth_token.unwrap().expose(), "canary");
    let inline = json!({ "agent_number": "+15550001111", "agent_config": {} });
    assert!(matches!(ask(inline).await, Runtime::Websocket(_)));
    let own = json!({ "runtime": { "type": "builtin" } });
    let inline = json!({ "agent_number": "+15550001111", "agent_config": own });
    assert_eq!(ask(inline).await, Runtime::default());
}

#[tokio::test]
async fn a_default_runtime_is_judged_as_an_agents_own() {
    let server = Server::start().await;
    let places =
        async |block: Value| server.put(RUNTIME, json!({ "runtime": block })).await.places();
    for (block, place) in [
        (json!({ "type": "carrier_pigeon" }), "body.runtime.type"),
        (json!({ "type": "websocket", "url": "https://h.example.com" }), "body.runtime.url"),
        (json!({ "type": "websocket", "url": "ws://h.example.com" }), "body.runtime.url"),
        (json!({ "type": "websocket", "url": "wss://127.0.0.1/" }), "body.runtime.url"),
        (json!({ "type": "sip", "uri": "sip:a@10.0.0.1" }), "body.runtime.uri"),
        (
            json!({ "type": "sip", "uri": "sip:a@h.example.com", "auth_username": "u" }),
            "body.runtime.auth_password",
        ),
        (json!("echo"), "body.runtime"),
    ] {
        let found = places(block.clone()).await;
        assert!(found.iter().any(|one| one.starts_with(place)), "{block}: {found:?}");
    }
    assert_eq!(server.put(RUNTIME, json!({})).await.places(), ["body.runtime"]);
    assert_eq!(server.get(RUNTIME).await.is(200), json!({ "runtime": null }));
}

#[tokio::test]
async fn usage_adds_up_what_began_in_the_period() {
    let server = Server::start().await;
    let (other, _) = server.stranger().await;
    let at = |text: &str| text.parse().unwrap();
    for (organisation, day, direction, seconds) in [
        (server.organisation, "2026-01-01T00:00:00Z", Direction::Inbound, Some(90)),
        (server.organisation, "2026-01-31T23:59:59Z", Direction::Outbound, Some(30)),
        (server.organisation, "2026-01-15T00:00:00Z", Direction::Outbound, None),
        (server.organisation, "2026-02-01T00:00:01Z", Direction::Inbound, Some(1_000)),
        (other, "2026-01-15T00:00:01Z", Direction::Inbound, Some(1_000)),
    ] {
        let change = |one: &mut Conversation| {
            (one.direction, one.duration, one.created_at) = (direction, seconds, at(day));
        };
        server.conversation(organisation, change).await;
    }
    let path = "/admin/usage/summary?from=2026-01-01&to=2026-02-01";
    let expected = json!({
        "from": "2026-01-01T00:00:00.000000Z", "to": "2026-02-01T00:00:00.000000Z",
        "voice_minutes": 2.0, "voice_calls": 3, "chat_minutes": 0.0, "chat_calls": 0,
        "total_calls": 3, "inbound_calls": 1, "outbound_calls": 2,
        "workflow_runs_total": 0, "workflow_runs_success": 0, "workflow_runs_failed": 0,
    });
    assert_eq!(server.get(path).await.is(200), expected);
    assert_eq!(server.get("/admin/usage/summary").await.is(200)["total_calls"], 0);
    for (query, ok) in [
        ("from=2026-01-01&to=2027-01-02", true),
        ("from=2026-01-01&to=2027-01-02T00:00:00.000001", false),
        ("from=2026-01-02&to=2026-01-01", false),
    ] {
        let reply = server.get(&format!("/admin/usage/summary?{query}")).await;
        match ok {
            true => drop(reply.is(200)),
            false => assert_eq!(reply.places(), ["query.to"], "{query}"),
        }
    }
}

#[tokio::test]
async fn runs_of_workflows_count_as_they_ended() {
    let server = Server::start().await;
    let definition = json!({ "steps": [
        { "id": "trigger", "type": "input", "next": "n1" },
        { "id": "n1", "type": "output", "fields": { "a": 1 } },
    ] });
    let workflow = json!({ "name": "w", "definition": definition });
    let workflow = id(&server.post("/workflow/workflows", workflow).await.is(200));
    let publish = format!("/workflow/workflows/{workflow}/versions/1/publish");
    server.post(&publish, Value::Null).await.is(200);
    let run = json!({ "workflow_id": workflow, "workflow_version": 1 });
    let run = server.post("/workflow/workflow-executions", run).await.is(200);
    let usage = server.get("/admin/usage/summary").await.is(200);
    let succeeded = i32::from(run["status"] == "success");
    assert_eq!(usage["workflow_runs_total"], 1);
    assert_eq!(usage["workflow_runs_success"], succeeded);
    assert_eq!(usage["workflow_runs_failed"], 1 - succeeded);
}

#[tokio::test]
async fn a_time_in_a_query_may_have_no_offset_and_no_time_of_day() {
    let server = Server::start().await;
    let change = |one: &mut Conversation| {
        one.created_at = "2026-11-22T10:00:00Z".parse().unwrap();
    };
    server.conversation(server.organisation, change).await;
    for (query, expected) in [
        ("created_after=2026-11-22", 1),
        ("created_after=2026-11-22T10:00:00", 1),
        ("created_after=2026-11-22T10:00:00.000001", 0),
        ("created_before=2026-11-22", 0),
        ("created_before=2026-11-22T10:00:00", 1),
        ("created_after=2026-11-22T12:00:00%2B02:00", 1),
    ] {
        let list = server.get(&format!("/core/conversations?{query}")).await.is(200);
        assert_eq!(list.as_array().unwrap().len(), expected, "{query}");
    }
    let places = server.get("/core/conversations?created_after=22.11.2026").await.places();
    assert_eq!(places, ["query.created_after"]);
}
