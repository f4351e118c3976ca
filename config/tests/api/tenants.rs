//! Two organisations with twin objects: nothing of one is to be had with the key of the other.

use axum::http::Method;
use serde_json::{Value, json};

use crate::server::{Server, id};

/// Paths of one organisation's objects, and what is in them.
struct Things {
    trunk: String,
    agent: String,
    number: &'static str,
    conversation: String,
    key: String,
}

impl Things {
    async fn of(server: &Server, number: &'static str) -> Self {
        let trunk = server.trunk("twin").await;
        server.number(number, &trunk).await;
        let agent = server.agent("twin").await;
        let publish = format!("/core/agents/{agent}/versions/1/publish");
        server.post(&publish, json!({ "phone_numbers": [number] })).await.is(200);
        let conversation = server.conversation(server.organisation, |_| ()).await.id.to_string();
        let bought = json!({ "phone_number": "+14155550100" });
        server.post("/core/managed-accounts/pool/purchase-number", bought).await.is(200);
        let key = server.post("/admin/organization-pats", json!({ "name": "twin" })).await.is(200);
        let key = key["key_id"].as_str().unwrap().to_owned();
        Self { trunk, agent, number, conversation, key }
    }

    /// Every request that names one of these things in its path.
    fn requests(&self) -> Vec<(Method, String, Value)> {
        let Self { trunk, agent, number, conversation, key } = self;
        let none = Value::Null;
        vec![
            (Method::GET, format!("/core/trunks/{trunk}"), none.clone()),
            (Method::PUT, format!("/core/trunks/{trunk}"), json!({ "name": "taken" })),
            (Method::DELETE, format!("/core/trunks/{trunk}?force=true"), none.clone()),
            (Method::GET, format!("/core/phone-numbers/{number}"), none.clone()),
            (
                Method::PATCH,
                format!("/core/phone-numbers/{number}"),
                json!({ "outbound_shareable": true }),
            ),
            (Method::DELETE, format!("/core/phone-numbers/{number}"), none.clone()),
            (Method::GET, format!("/core/agents/{agent}"), none.clone()),
            (Method::PUT, format!("/core/agents/{agent}"), json!({ "name": "taken" })),
            (Method::DELETE, format!("/core/agents/{agent}"), none.clone()),
            (Method::POST, format!("/core/agents/{agent}/deploy-as-sip"), none.clone()),
            (Method::DELETE, format!("/core/agents/{agent}/deploy-as-sip"), none.clone()),
            (Method::GET, format!("/core/agents/{agent}/versions"), none.clone()),
            (Method::POST, format!("/core/agents/{agent}/versions"), json!({ "config": {} })),
            (Method::GET, format!("/core/agents/{agent}/versions/1"), none.clone()),
            (Method::GET, format!("/core/agents/{agent}/versions/latest"), none.clone()),
            (Method::PUT, format!("/core/agents/{agent}/versions/1"), json!({ "config": {} })),
            (Method::POST, format!("/core/agents/{agent}/versions/1/publish"), none.clone()),
            (
                Method::POST,
                format!("/core/agents/{agent}/versions/1/generate-instructions"),
                none.clone(),
            ),
            (
                Method::POST,
                format!("/core/agents/{agent}/versions/compare"),
                json!({ "from_version": 1, "to_version": 1 }),
            ),
            (Method::GET, format!("/core/conversations/{conversation}"), none.clone()),
            (Method::POST, format!("/core/conversations/{conversation}/hangup"), none.clone()),
            (
                Method::POST,
                format!("/core/conversations/{conversation}/transfer"),
                json!({ "transfer_number": "+15550000009" }),
            ),
            (
                Method::POST,
                "/core/managed-accounts/pool/release-number".to_owned(),
                json!({ "phone_number": "+14155550100" }),
            ),
            (Method::DELETE, format!("/admin/organization-pats/{key}"), none),
        ]
    }
}

/// Everything the owner can see.
async fn portrait(server: &Server, things: &Things) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in [
        "/core/trunks".to_owned(),
        "/core/phone-numbers".to_owned(),
        format!("/core/agents/{}", things.agent),
        "/core/conversations".to_owned(),
    ] {
        seen.push(server.get(&path).await.is(200));
    }
    seen
}

#[tokio::test]
async fn an_id_of_another_organisation_is_an_unknown_id() {
    let server = Server::start().await;
    let things = Things::of(&server, "+15550000001").await;
    let (_, foreign) = server.stranger().await;
    let before = portrait(&server, &things).await;
    let unknown = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for (method, path, body) in things.requests() {
        let theirs = server.call(method.clone(), &path, &foreign, &body).await;
        let never = path
            .replace(&things.trunk, unknown)
            .replace(&things.agent, unknown)
            .replace(&things.conversation, unknown)
            .replace(&things.key, unknown)
            .replace(things.number, "+15559999999");
        let never = server.call(method.clone(), &never, &foreign, &body).await;
        assert_eq!(theirs.status, 404, "{method} {path}: {}", theirs.text);
        let theirs = theirs.text.replace(things.number, "N");
        assert_eq!(theirs, never.text.replace("+15559999999", "N"), "{method} {path}");
    }
    assert_eq!(portrait(&server, &things).await, before);
    let list = server.get("/admin/organization-pats").await.is(200);
    assert!(list.as_array().unwrap().iter().any(|key| key["key_id"] == json!(things.key)));
}

#[tokio::test]
async fn an_id_of_another_organisation_in_a_body_is_unknown_too() {
    let server = Server::start().await;
    let things = Things::of(&server, "+15550000001").await;
    let (_, foreign) = server.stranger().await;
    let ask =
        async |path: &str, body: Value| server.call(Method::POST, path, &foreign, &body).await;

    let body = json!({ "phone_number": "+15550000002", "trunk_id": things.trunk });
    assert_eq!(ask("/core/phone-numbers", body).await.is(404)["detail"], "Trunk not found");
    let agent = id(&ask("/core/agents", json!({ "name": "thief" })).await.is(200));
    ask(&format!("/core/agents/{agent}/versions"), json!({ "config": {} })).await.is(200);
    let before = server.get("/core/phone-numbers").await.is(200);
    let publish = format!("/core/agents/{agent}/versions/1/publish");
    for list in ["phone_numbers", "unassign_phone_numbers"] {
        let theirs = ask(&publish, json!({ list: [things.number] })).await.is(404);
        let never = ask(&publish, json!({ list: ["+15559999999"] })).await.is(404);
        let theirs = theirs["detail"].as_str().unwrap().replace(things.number, "N");
        assert_eq!(theirs, never["detail"].as_str().unwrap().replace("+15559999999", "N"));
    }
    assert_eq!(server.get("/core/phone-numbers").await.is(200), before);
}

#[tokio::test]
async fn nothing_of_another_organisation_can_be_dialled_with() {
    let server = Server::start().await;
    let things = Things::of(&server, "+15550000001").await;
    let version = server.get(&format!("/core/agents/{}/versions/1", things.agent)).await.is(200);
    let (other, foreign) = server.stranger().await;
    let unknown = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let ask = async |mut body: Value| {
        body["channel"] = json!("telephone");
        body["user_id"] = json!("+4930123456");
        server.call(Method::POST, "/core/conversations", &foreign, &body).await
    };
    let dial = async |field: &str, theirs: &str, never: &str| {
        let (theirs, never) =
            (ask(json!({ field: theirs })).await, ask(json!({ field: never })).await);
        assert_eq!(theirs.text, never.text, "{field}");
        theirs.status.as_u16()
    };
    assert_eq!(dial("agent_id", &things.agent, unknown).await, 404);
    assert_eq!(dial("agent_version_id", &id(&version), unknown).await, 404);
    assert_eq!(dial("agent_number", things.number, "+15559999999").await, 400);
    let numbered = json!({ "agent_id": things.agent, "version": 1 });
    assert_eq!(ask(numbered).await.is(404)["detail"], "Agent not found");
    assert!(server.calls.dialled.lock().unwrap().is_empty());

    // An id that is taken there is refused, and says no more.
    let trunk = json!({ "name": "t", "outbound_config": { "address": "h.example.com",
        "auth_username": "u", "auth_password": "p" } });
    let trunk = server.call(Method::POST, "/core/trunks", &foreign, &trunk).await.is(200);
    let number = json!({ "phone_number": "+15550000002", "trunk_id": id(&trunk) });
    server.call(Method::POST, "/core/phone-numbers", &foreign, &number).await.is(200);
    let inline = json!({ "id": things.conversation, "agent_number": "+15550000002",
        "agent_config": {} });
    assert_eq!(ask(inline).await.is(409)["detail"], "id is already taken");
    assert!(server.calls.dialled.lock().unwrap().is_empty());
    let list = server.call(Method::GET, "/core/conversations", &foreign, &Value::Null).await;
    assert_eq!(list.is(200), json!([]), "{other}");
}

#[tokio::test]
async fn lists_and_filters_show_only_ones_own() {
    let server = Server::start().await;
    let things = Things::of(&server, "+15550000001").await;
    let (_, foreign) = server.stranger().await;
    let cursor = server.get("/core/trunks?limit=1").await.headers["x-next-cursor"].clone();
    let version = server.get(&format!("/core/agents/{}/versions/1", things.agent)).await.is(200);
    for path in [
        "/core/trunks".to_owned(),
        "/core/trunks?name=twin".to_owned(),
        format!("/core/trunks?cursor={}", cursor.to_str().unwrap()),
        "/core/phone-numbers".to_owned(),
        format!("/core/phone-numbers?trunk_id={}", things.trunk),
        format!("/core/phone-numbers?phone_number={}", &things.number[1..]),
        "/core/agents".to_owned(),
        "/core/agents?name=twin".to_owned(),
        "/core/conversations".to_owned(),
        format!("/core/conversations?agent_version_id={}", id(&version)),
        format!("/core/conversations?agent_id={}", things.agent),
        format!("/core/conversations?trunk_id={}", things.trunk),
        "/core/calls/decisions".to_owned(),
    ] {
        let list = server.call(Method::GET, &path, &foreign, &Value::Null).await.is(200);
        assert_eq!(list, json!([]), "{path}");
    }
    let keys = server.call(Method::GET, "/admin/organization-pats", &foreign, &Value::Null).await;
    assert_eq!(keys.is(200).as_array().unwrap().len(), 1);
}
