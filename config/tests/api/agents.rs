//! `/core/agents`, their versions, publishing, and SIP endpoints.

use config::api::ApiOptions;
use config::model::Runtime;
use serde_json::{Value, json};

use crate::server::{Server, id};

#[tokio::test]
async fn an_agent_is_made_read_changed_and_deleted() {
    let server = Server::start().await;
    let made = server
        .post("/core/agents", json!({ "name": "Ada", "metadata": { "k": [1] } }))
        .await
        .is(200);
    assert_eq!(made["id"], made["agent_id"]);
    assert_eq!((&made["active"], &made["is_demo"]), (&json!(true), &json!(false)));
    let path = format!("/core/agents/{}", id(&made));
    let read = server.get(&path).await.is(200);
    assert_eq!(read["versions"], json!([]));
    assert_eq!(read["phone_numbers"], json!([]));
    assert_eq!(read["web_widgets"], json!([]));
    assert_eq!(read["sip_endpoint"]["deployed"], false);
    assert_eq!(read["sip_endpoint"]["uri"], format!("sip:{}@sip.example.com", id(&made)));
    assert_eq!(read["conversation_stats"]["total"], 0);

    let changed = server.put(&path, json!({ "active": false, "description": "d" })).await.is(200);
    assert_eq!((&changed["name"], &changed["active"]), (&json!("Ada"), &json!(false)));
    let changed = server.put(&path, json!({ "description": null })).await.is(200);
    assert_eq!(
        (&changed["description"], &changed["metadata"]),
        (&Value::Null, &json!({ "k": [1] }))
    );
    server.delete(&path).await.is(204);
    assert_eq!(server.get(&path).await.is(404)["detail"], "Agent not found");
}

#[tokio::test]
async fn agents_are_listed_by_every_filter() {
    let server = Server::start().await;
    for (name, demo) in [("support", false), ("support desk", true), ("sales", false)] {
        let body =
            json!({ "name": name, "is_demo": demo, "metadata": { "team": { "name": name } } });
        server.post("/core/agents", body).await.is(200);
    }
    let count = async |query: &str| {
        server.get(&format!("/core/agents?{query}")).await.is(200).as_array().unwrap().len()
    };
    assert_eq!(count("").await, 3);
    assert_eq!(count("name=SUPPORT").await, 2);
    assert_eq!(count("is_demo=true").await, 1);
    assert_eq!(count("active=false").await, 0);
    assert_eq!(count("metadata=%7B%22team%22%3A%7B%22name%22%3A%22sales%22%7D%7D").await, 1);
    for (query, place) in
        [("metadata=5", "metadata"), ("metadata=%7B", "metadata"), ("active=x", "active")]
    {
        let places = server.get(&format!("/core/agents?{query}")).await.places();
        assert_eq!(places, [format!("query.{place}")]);
    }
}

#[tokio::test]
async fn nothing_else_of_an_agent_can_be_set() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    for field in ["id", "agent_id", "organization_id", "sip_endpoint", "created_at", "versions"] {
        let body = json!({ "name": "b", field: "x" });
        assert_eq!(
            server.post("/core/agents", body.clone()).await.places(),
            [format!("body.{field}")]
        );
        let path = format!("/core/agents/{agent}");
        assert_eq!(server.put(&path, body).await.places(), [format!("body.{field}")]);
    }
    let path = format!("/core/agents/{agent}/versions");
    for field in ["id", "agent_id", "version", "published", "instructions_status"] {
        let body = json!({ "config": {}, field: true });
        assert_eq!(server.post(&path, body).await.places(), [format!("body.{field}")]);
    }
    for evil in ["a\r\nb", "", "  ", "a\0"] {
        assert_eq!(
            server.post("/core/agents", json!({ "name": evil })).await.places(),
            ["body.name"]
        );
    }
}

#[tokio::test]
async fn a_version_is_a_draft_until_it_is_published() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    let first = server.get(&format!("{path}/1")).await.is(200);
    assert_eq!((&first["version"], &first["published"]), (&json!(1), &json!(false)));
    let config = json!({ "instructions": "new", "unknown": { "kept": [1, null] } });
    let changed = server.put(&format!("{path}/1"), json!({ "config": config })).await.is(200);
    assert_eq!(changed["config"], config);
    assert_eq!(server.post(&format!("{path}/1/publish"), Value::Null).await.is(200), json!([]));
    let refused = server.put(&format!("{path}/1"), json!({ "config": {} })).await.is(400);
    assert!(refused["detail"].is_string());
    server.post(&format!("{path}/1/publish"), Value::Null).await.is(200);

    let copy = server.post(&path, json!({ "base_version": 1 })).await.is(200);
    assert_eq!((&copy["version"], &copy["config"]), (&json!(2), &config));
    server.post(&path, json!({ "base_version": 9 })).await.is(404);
    let listed = server.get(&format!("{path}?published=true")).await.is(200);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(server.get(&format!("{path}?version=2")).await.is(200)[0]["version"], 2);
}

#[tokio::test]
async fn asking_for_latest_makes_sure_of_a_draft() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    assert_eq!(server.get(&format!("{path}/latest")).await.is(200)["version"], 1);
    server.post(&format!("{path}/latest/publish"), Value::Null).await.is(200);
    let draft = server.get(&format!("{path}/latest")).await.is(200);
    assert_eq!((&draft["version"], &draft["published"]), (&json!(2), &json!(false)));
    assert_eq!(server.get(&format!("{path}/latest")).await.is(200)["version"], 2);
    for bad in ["x", "-1", "1.0", "Latest"] {
        assert_eq!(server.get(&format!("{path}/{bad}")).await.places(), ["path.version"]);
    }
    server.get(&format!("{path}/9")).await.is(404);
}

#[tokio::test]
async fn a_version_is_made_from_exactly_one_thing() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    server.post(&path, json!({})).await.is(422);
    server.post(&path, json!({ "config": {}, "base_version": 1 })).await.is(422);
    assert_eq!(server.post(&path, json!({ "config": 7 })).await.places(), ["body.config"]);
}

#[tokio::test]
async fn a_sip_agents_password_goes_in_and_never_out() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    let config = |uri: &str, user: &str, password: Value| {
        json!({ "config": { "runtime": { "type": "sip", "uri": uri, "auth_username": user,
            "auth_password": password, "headers": { "X-Call": "{conversation_id}" } } } })
    };
    let with = config("sip:{called_number}@h.example.com", "u", json!("canary"));
    let made = server.post(&path, with).await;
    assert!(!made.text.contains("canary"));
    assert_eq!(made.is(200)["config"]["runtime"]["auth_password"], Value::Null);
    let draft = format!("{path}/2");
    let kept = config("sip:{called_number}@h.example.com", "u", Value::Null);
    server.put(&draft, kept).await.is(200);
    let password = async || {
        server.post(&format!("{draft}/publish"), Value::Null).await.is(200);
        let version = server.get(&draft).await.is(200)["id"].as_str().unwrap().parse().unwrap();
        let snapshot = server.store.snapshot().load();
        let runtime = snapshot.version(version).unwrap().runtime.clone();
        let Some(Runtime::Sip(agent)) = runtime else { panic!("{runtime:?}") };
        agent.auth_password.map(|password| password.expose().clone())
    };
    // Another place or another user does not get it.
    for (uri, user) in [("sip:evil.example.com", "u"), ("sip:{called_number}@h.example.com", "v")] {
        let reply = server.put(&draft, config(uri, user, Value::Null)).await;
        assert_eq!(reply.places(), ["body.config.runtime.auth_password"]);
    }
    assert_eq!(password().await.as_deref(), Some("canary"));
}

#[tokio::test]
async fn a_config_is_checked_where_it_is_known() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    for (config, place) in [
        (json!({ "runtime": { "type": "sip" } }), "uri"),
        (json!({ "runtime": { "type": "sip", "uri": "tel:+15550100" } }), "uri"),
        (json!({ "runtime": { "type": "sip", "uri": "sip:a@h\r\nVia: x" } }), "uri"),
        (json!({ "runtime": { "type": "sip", "uri": "sip:a@{caller_number}" } }), "uri"),
        (json!({ "runtime": { "type": "sip", "uri": "sip:a@10.0.0.1" } }), "uri"),
        (json!({ "runtime": { "type": "sip", "uri": "sips:h", "transport": "UDP" } }), "transport"),
        (
            json!({ "runtime": { "type": "sip", "uri": "sip:h", "media_encryption": "x" } }),
            "media_encryption",
        ),
        (
            json!({ "runtime": { "type": "sip", "uri": "sip:h", "headers": { "Via": "x" } } }),
            "headers",
        ),
        (
            json!({ "runtime": { "type": "sip", "uri": "sip:h", "headers": { "X-A": "\r\nB: c" } } }),
            "headers",
        ),
        (
            json!({ "runtime": { "type": "sip", "uri": "sip:h", "auth_username": "u" } }),
            "auth_password",
        ),
        (json!({ "runtime": { "type": "openai_realtime" } }), "type"),
        (json!({ "runtime": { "type": "websocket" } }), "url"),
        (json!({ "runtime": { "type": "websocket", "url": "ws://agent.example.com/" } }), "url"),
        (json!({ "runtime": { "type": "websocket", "url": "wss://10.0.0.1/" } }), "url"),
        (json!({ "runtime": { "type": "websocket", "url": "wss://h/\r\nX: y" } }), "url"),
        (json!({ "runtime": { "type": "websocket", "url": "https://h/" } }), "url"),
        (json!({ "runtime": { "type": "builtin", "builtin": "sing" } }), "builtin"),
    ] {
        let body = json!({ "config": config });
        let wanted = [format!("body.config.runtime.{place}")];
        assert_eq!(server.post(&path, body.clone()).await.places(), wanted);
        assert_eq!(server.put(&format!("{path}/1"), body).await.places(), wanted);
    }
    let open =
        ApiOptions { allow_plain_ws: true, allow_private_addresses: true, ..ApiOptions::default() };
    let server = Server::with(open).await;
    let agent = server.agent("a").await;
    let config = json!({ "runtime": { "type": "websocket", "url": "ws://127.0.0.1:9000/media" } });
    let path = format!("/core/agents/{agent}/versions");
    server.post(&path, json!({ "config": config })).await.is(200);
}

#[tokio::test]
async fn an_agents_token_goes_in_and_never_comes_out() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    let config = json!({ "runtime": { "type": "websocket", "url": "wss://h.example.com/",
        "dialect": "twilio", "auth_token": "canary" } });
    let reply = server.post(&path, json!({ "config": config })).await;
    assert!(!reply.text.contains("canary"));
    let version = reply.is(200)["version"].clone();
    for path in [format!("{path}/{version}"), path.clone(), format!("/core/agents/{agent}")] {
        assert!(!server.get(&path).await.text.contains("canary"), "{path}");
    }
}

#[tokio::test]
async fn publishing_points_numbers_at_a_version() {
    let server = Server::start().await;
    let trunk = server.trunk("t").await;
    let (one, two) = ("+15550000001", "+15550000002");
    server.number(one, &trunk).await;
    server.number(two, &trunk).await;
    let agent = server.agent("a").await;
    let version = id(&server.get(&format!("/core/agents/{agent}/versions/1")).await.is(200));
    let publish = format!("/core/agents/{agent}/versions/1/publish");

    let written = server.post(&publish, json!({ "phone_numbers": [one] })).await.is(200);
    assert_eq!(written[0]["inbound_agent_version_id"], json!(version));
    assert_eq!(written[0]["outbound_agent_version_id"], Value::Null);
    let both = json!({ "phone_numbers": [one, two], "direction": "both" });
    let written = server.post(&publish, both).await.is(200);
    assert_eq!(written.as_array().unwrap().len(), 2);
    assert_eq!(written[1]["outbound_agent_version_id"], json!(version));
    let nested = server.get(&format!("/core/agents/{agent}")).await.is(200);
    assert_eq!(nested["phone_numbers"].as_array().unwrap().len(), 2);
    assert_eq!(nested["versions"][0]["published"], true);

    let other = server.agent("b").await;
    let unassign = json!({ "unassign_phone_numbers": [one] });
    let path = format!("/core/agents/{other}/versions/1/publish");
    assert_eq!(server.post(&path, unassign.clone()).await.is(200), json!([]));
    let cleared = server.post(&publish, unassign).await.is(200);
    assert_eq!(cleared[0]["inbound_agent_version_id"], Value::Null);
    assert_eq!(cleared[0]["outbound_agent_version_id"], json!(version));
    let swap = json!({ "phone_numbers": [one], "unassign_phone_numbers": [one] });
    let swapped = server.post(&publish, swap).await.is(200);
    assert_eq!(swapped.as_array().unwrap().len(), 1);
    assert_eq!(swapped[0]["inbound_agent_version_id"], json!(version));

    server.delete(&format!("/core/agents/{agent}")).await.is(204);
    let number = server.get(&format!("/core/phone-numbers/{one}")).await.is(200);
    assert_eq!(number["inbound_agent_version_id"], Value::Null);
}

#[tokio::test]
async fn a_publish_that_cannot_be_done_does_nothing() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions/1");
    let publish = format!("{path}/publish");
    let unknown = server.post(&publish, json!({ "phone_numbers": ["+15559999999"] })).await.is(404);
    assert!(unknown["detail"].as_str().unwrap().contains("+15559999999"));
    let bad = json!({ "phone_numbers": ["x"], "direction": "inbound" });
    assert_eq!(server.post(&publish, bad).await.places(), ["body.phone_numbers.0"]);
    let bad = json!({ "direction": "sideways" });
    assert_eq!(server.post(&publish, bad).await.places(), ["body.direction"]);
    assert_eq!(server.get(&path).await.is(200)["published"], false);
    server.post(&format!("/core/agents/{agent}/versions/7/publish"), Value::Null).await.is(404);

    server.put(&path, json!({ "instruction_builder_inputs": { "a": 1 } })).await.is(200);
    assert_eq!(server.get(&path).await.is(200)["instructions_dirty"], true);
    server.post(&publish, Value::Null).await.is(400);
    server.put(&path, json!({ "config": { "instructions": "by hand" } })).await.is(200);
    server.post(&publish, Value::Null).await.is(200);
}

#[tokio::test]
async fn an_agent_is_deployed_as_a_sip_endpoint() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/deploy-as-sip");
    server.post(&path, Value::Null).await.is(409);
    server.delete(&path).await.is(204);
    server.post(&format!("/core/agents/{agent}/versions/1/publish"), Value::Null).await.is(200);
    for _ in 0..2 {
        let endpoint = server.post(&path, Value::Null).await.is(200);
        assert_eq!(
            endpoint,
            json!({ "uri": format!("sip:{agent}@sip.example.com"), "deployed": true })
        );
    }
    let read = server.get(&format!("/core/agents/{agent}")).await.is(200);
    assert_eq!(read["sip_endpoint"]["deployed"], true);
    for _ in 0..2 {
        server.delete(&path).await.is(204);
    }
    let read = server.get(&format!("/core/agents/{agent}")).await.is(200);
    assert_eq!(read["sip_endpoint"]["deployed"], false);
    let unknown = "/core/agents/67e55044-10b1-426f-9247-bb680e5fe0c8/deploy-as-sip";
    server.post(unknown, Value::Null).await.is(404);
    server.delete(unknown).await.is(404);
}

#[tokio::test]
async fn the_schema_of_configs_is_served() {
    let server = Server::start().await;
    let schema = server.get("/core/agent-config-schema").await.is(200);
    assert_eq!(schema["additionalProperties"], true);
    assert_eq!(
        schema.pointer("/properties/runtime/oneOf/1/properties/type/const"),
        Some(&json!("builtin"))
    );
}
