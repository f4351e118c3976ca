//! Every field of every body and every query parameter, with values nobody should send: each answer
//! is one that the document promises, and none is a fault of ours.

use axum::http::Method;
use config::api;
use serde_json::{Value, json};

use crate::server::{Server, id};

fn hostile_values() -> Vec<Value> {
    let nested = (0..20).fold(json!(1), |inner, _| json!([inner]));
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("\u{0}"),
        json!("a\r\nVia: SIP/2.0/UDP evil"),
        json!("'; DROP TABLE trunks; --"),
        json!("\u{202e}\u{feff}😀"),
        json!("x".repeat(70_000)),
        json!("+15550000001"),
        json!("67e55044-10b1-426f-9247-bb680e5fe0c8"),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "type": "websocket", "url": "wss://h" }),
        nested,
    ]
}

/// Bodies that are right, by operation; each field is then spoilt in turn.
#[expect(clippy::too_many_lines, reason = "a table")]
fn good_body(operation: &str, trunk: &str, agent: &str) -> Value {
    let inbound = json!({ "enable_noise_cancellation": true, "media_encryption": "ALLOW",
        "allowed_addresses": ["192.0.2.1"], "auth_username": null, "auth_password": null,
        "max_concurrent_calls": 1, "calls_per_second": 1 });
    let outbound = json!({ "address": "h.example.com", "auth_username": "u", "auth_password": "p",
        "transport": "UDP", "media_encryption": "ALLOW", "from_user": "f", "from_host": "h",
        "register": false, "transfer_mode": "bridge", "codecs": ["PCMU"],
        "ring_timeout_seconds": 1, "max_duration_seconds": 1 });
    let runtime = json!({ "type": "websocket", "url": "wss://h.example.com/", "dialect": "twilio",
        "auth_token": "t", "parameters": { "a": "b" }, "on_failure": "hangup",
        "connect_timeout_ms": 1 });
    match operation {
        "create_trunk" | "update_trunk" => {
            json!({ "name": "a", "inbound_config": inbound, "outbound_config": outbound })
        }
        "create_phone_number" => {
            json!({ "phone_number": "+15550009999", "trunk_id": trunk, "outbound_shareable": true })
        }
        "update_phone_number" => json!({ "outbound_shareable": true }),
        "update_default_runtime" => json!({ "runtime": runtime }),
        "update_concurrency_settings" => json!({ "concurrency_limit": 1 }),
        "create_agent" | "update_agent" => json!({ "name": "a", "description": "d",
            "active": true, "is_demo": false, "metadata": { "a": 1 } }),
        "create_agent_version" | "update_agent_version" => json!({
            "config": { "instructions": "i", "runtime": runtime, "tools": [] },
            "instruction_builder_inputs": { "a": 1 } }),
        "publish_agent_version" => json!({ "phone_numbers": ["+15550000001"],
            "unassign_phone_numbers": ["+15550000001"], "direction": "both" }),
        "create_conversation" | "dial_conversation" => {
            json!({ "channel": "telephone", "user_id": "+4930123456",
            "id": "67e55044-10b1-426f-9247-bb680e5fe0c8",
            "conversation_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "agent_id": agent,
            "version": 1, "agent_version_id": null, "agent_config": null,
            "agent_number": "+15550000001", "initial_context": "c", "custom_metadata": { "a": 1 },
            "to_address": null, "from_address": null, "subject": null })
        }
        "annotate_conversation" => json!({ "summary": "s", "conversation": { "items": [
            { "type": "message", "role": "user", "content": ["c"], "interrupted": true },
            { "type": "function_call", "name": "n", "call_id": "1" }] } }),
        "create_agent_from_website" => json!({ "company_name": "a",
            "company_website": "example.com", "company_overview": "o", "is_demo": true,
            "skip_deployment": true, "voice_id": "v", "avatar_url": "https://h.example.com/a",
            "existing_agent_id": agent, "existing_collection_id": "k", "demo_type": "t" }),
        "create_demo_agent" => json!({ "company_website": "example.com", "instructions": "i",
            "include_phone_number": true }),
        "compare_agent_versions" => json!({ "from_version": 1, "to_version": "latest" }),
        "transfer_conversation" => {
            json!({ "transfer_number": "+4930123456", "displayed_number": "agent_number" })
        }
        "purchase_number" | "release_number" => json!({ "phone_number": "+14155550100" }),
        "create_managed_trunk" => json!({ "organization_id": agent, "name": "a",
            "inbound_config": inbound, "outbound_config": outbound,
            "phone_numbers": ["+15550008888"] }),
        "create_organization_pat" => {
            json!({ "name": "a", "expires_at": null, "grants": ["viewer"] })
        }
        "create_pat_for_organization"
        | "create_personal_access_token"
        | "create_token_for_user" => {
            json!({ "name": "a", "expires_at": null })
        }
        "add_member" | "add_member_to_organization" => {
            json!({ "email": "a@example.com", "name": "a", "role": "viewer" })
        }
        "update_member" => json!({ "name": "a", "role": "viewer" }),
        "create_user" => json!({ "email": "b@example.com" }),
        "create_organization" => json!({ "name": "a", "parent_id": null, "max_phone_numbers": 1 }),
        "update_organization" => json!({ "name": "a", "max_phone_numbers": 1 }),
        "create_webhook" | "update_webhook" => json!({ "url": "https://h.example.com/",
            "description": "d", "enabled": true, "include_sensitive": false,
            "events": ["call.ended"] }),
        "rotate_webhook_secret" => json!({}),
        "send_conversation_message" => json!({ "text": "t", "interactivity": "plain" }),
        "create_inbound_routing_config" | "update_inbound_routing_config" => json!({
            "workflow_definition": routing_definition(), "enabled": true,
            "fallback_agent_id": agent, "fallback_agent_version": 1 }),
        "dry_run_inbound_routing" => json!({ "caller_number": "+15550000009",
            "called_number": "+15550000001", "trunk_id": trunk,
            "timestamp": "2026-01-01T00:00:00Z", "workflow_definition": routing_definition(),
            "sip_headers": { "X-A": "b" } }),
        "create_workflow" => json!({ "name": "a", "description": "d",
            "definition": routing_definition() }),
        "update_workflow" => json!({ "name": "a", "description": "d" }),
        "create_workflow_version" => json!({ "definition": routing_definition(),
            "base_version": null }),
        "update_workflow_version" => json!({ "definition": routing_definition() }),
        "execute_workflow" | "enqueue_workflow" => json!({
            "workflow_id": "wf_67e5504410b1426f9247bb680e5fe0c8", "workflow_version": 1,
            "input_data": { "a": 1 } }),
        other => panic!("no good body for {other}"),
    }
}

/// A workflow that decides nothing.
fn routing_definition() -> Value {
    json!({ "steps": [
        { "id": "trigger", "type": "input", "next": "n1" },
        { "id": "n1", "type": "output", "fields": { "initial_context": "c" } },
    ] })
}

/// JSON pointers of every value inside.
fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, v)| pointers(v, &format!("{at}/{key}"), into));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, v)| pointers(v, &format!("{at}/{n}"), into));
        }
        _ => {}
    }
}

/// `(METHOD, path, operation)` of every operation that takes a body.
fn with_body() -> Vec<(Method, &'static String, &'static Value)> {
    let mut all = Vec::new();
    for (path, item) in api::openapi()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.get("requestBody").is_some() {
                all.push((method.to_ascii_uppercase().parse().unwrap(), path, operation));
            }
        }
    }
    all
}

/// `good` with every value inside replaced by every hostile one, in turn.
fn spoilt(good: &Value) -> Vec<Value> {
    let mut places = Vec::new();
    pointers(good, "", &mut places);
    let each = places.iter().flat_map(|place| {
        hostile_values().into_iter().map(|value| {
            let mut body = good.clone();
            *body.pointer_mut(place).unwrap() = value;
            body
        })
    });
    each.collect()
}

#[tokio::test]
async fn no_field_of_a_body_makes_us_fail() {
    let server = Server::start().await;
    let trunk = server.trunk("t").await;
    server.number("+15550000001", &trunk).await;
    let agent = server.agent("a").await;
    let conversation = server.conversation(server.organisation, |_| ()).await.id.to_string();
    let workflow = json!({ "name": "a", "definition": routing_definition() });
    let workflow = id(&server.post("/workflow/workflows", workflow).await.is(200));
    let key = server.key_with(&["admin", "operator:manage", "conversations:dial"]).await;
    let mut sent = 0;
    for (method, path, operation) in with_body() {
        let owner = if path.contains("trunks") { &trunk } else { &agent };
        let url = path
            .replace("{id}", owner)
            .replace("{version}", "1")
            .replace("{account_id}", "pool")
            .replace("{conversation_id}", &conversation)
            .replace("{workflow_id}", &workflow)
            .replace("{user_id}", "67e55044-10b1-426f-9247-bb680e5fe0c8")
            .replace("{phone_number}", "+15550000001");
        let name = operation["operationId"].as_str().unwrap();
        for body in spoilt(&good_body(name, &trunk, &agent)) {
            let reply = server.call(method.clone(), &url, &key, &body).await;
            let promised = operation["responses"].get(reply.status.as_str()).is_some();
            let fine = promised && !reply.status.is_server_error();
            assert!(fine, "{name} {body}: {} {}", reply.status, reply.text);
            sent += 1;
        }
    }
    assert!(sent > 1_000, "{sent}");
}

#[tokio::test]
async fn no_query_makes_us_fail() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    for (path, item) in api::openapi()["paths"].as_object().unwrap() {
        let Some(operation) = item.get("get") else { continue };
        let url = path.replace("{id}", &agent).replace("{version}", "1");
        let url = url.replace("{account_id}", "pool");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in parameters.iter().filter(|p| p["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            for value in [
                "",
                "0",
                "-1",
                "99999999999999999999",
                "%00",
                "%ff",
                "%",
                "a%0d%0ab",
                "true",
                "null",
                "%7B%7D",
                "%25_",
                "2026-01-01T00:00:00Z",
                "9999-12-31T23:59:59Z",
                "-9999-01-01T00:00:00Z",
                "MjAyNi0wMS0zMVQxMjowMDowMC4wMDAwMDFa",
            ] {
                let reply = server.get(&format!("{url}?{name}={value}")).await;
                let status = reply.status.as_str();
                assert!(
                    operation["responses"].get(status).is_some() && !reply.status.is_server_error(),
                    "{url}?{name}={value}: {status} {}",
                    reply.text
                );
            }
        }
    }
}
