//! What clients of the contract do, step by step, as their documentation tells them to.

use serde_json::{Value, json};

use crate::server::{Server, id};

#[tokio::test]
async fn an_agent_is_deployed_from_continuous_integration() {
    let server = Server::start().await;
    for round in 1..=2 {
        let found = server.get("/core/agents?name=Support").await.is(200);
        let exact =
            found.as_array().unwrap().iter().find(|agent| agent["name"] == "Support").cloned();
        let agent = match exact {
            Some(agent) => agent,
            None => server.post("/core/agents", json!({ "name": "Support" })).await.is(200),
        };
        let path = format!("/core/agents/{}/versions", agent["agent_id"].as_str().unwrap());
        let config = json!({ "config": { "instructions": format!("round {round}") } });
        let version = server.post(&path, config).await.is(200);
        assert_eq!(version["version"], round);
        let publish = format!("{path}/{}/publish", version["version"]);
        assert_eq!(server.post(&publish, Value::Null).await.is(200), json!([]));
    }
}

#[tokio::test]
async fn a_carrier_brings_a_number_and_an_agent_answers_it() {
    let server = Server::start().await;
    let body = json!({ "name": "Carrier", "inbound_config": { "allowed_addresses": ["198.51.100.0/24"] } });
    let trunk = server.post("/core/trunks", body).await.is(200);
    assert_eq!(trunk["warnings"], json!([]));
    let body = json!({ "phone_number": "+15551234567", "trunk_id": id(&trunk) });
    server.post("/core/phone-numbers", body).await.is(200);
    let agent = server.agent("Desk").await;
    let publish = format!("/core/agents/{agent}/versions/1/publish");
    server.post(&publish, json!({ "phone_numbers": ["+15551234567"] })).await.is(200);

    // The next call sees it: the write has swapped the snapshot before it returned.
    let snapshot = server.store.snapshot().load();
    let route = snapshot.number("+15551234567").expect("the number is routed");
    assert_eq!(route.trunk_id.to_string(), id(&trunk));
    assert!(route.inbound_version.is_some());
}

#[tokio::test]
async fn an_unescaped_plus_and_a_trailing_query_are_understood() {
    let server = Server::start().await;
    let trunk = server.trunk("a").await;
    server.number("+15551234567", &trunk).await;
    server.get("/core/phone-numbers?phone_number=%2B1555&limit=5").await.is(200);
    server.get("/core/phone-numbers/%2b15551234567").await.is(200);
}
