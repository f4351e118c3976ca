//! What an organization says of its calls once for all of them.

use config::calls::DialRequest;
use config::model::Runtime;
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
