//! `/core/webhooks`.

use axum::http::Method;
use serde_json::{Value, json};

use crate::server::{Server, id};

const UNKNOWN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

async fn make(server: &Server, more: Value) -> Value {
    let mut body = json!({ "url": "https://receiver.example/hook" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/core/webhooks", body).await.is(200)
}

#[tokio::test]
async fn a_webhook_is_made_read_changed_and_removed() {
    let server = Server::start().await;
    let reply = server
        .post("/core/webhooks", json!({ "url": "https://receiver.example/", "description": "CRM" }))
        .await;
    assert_eq!(reply.headers["cache-control"], "no-store");
    let made = reply.is(200);
    let path = format!("/core/webhooks/{}", id(&made));
    assert_eq!(made["events"].as_array().unwrap().len(), 5, "all there are");
    assert_eq!((&made["enabled"], &made["include_sensitive"]), (&json!(true), &json!(false)));

    let seen = server.get(&path).await.is(200);
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(seen, expected);
    let change = json!({ "events": ["call.ended"], "description": null, "enabled": false });
    let changed = server.put(&path, change).await.is(200);
    assert_eq!(changed["url"], made["url"], "what is absent stays");
    assert_eq!(changed["description"], Value::Null);
    assert_eq!((&changed["events"], &changed["enabled"]), (&json!(["call.ended"]), &json!(false)));
    let second = make(&server, json!({})).await;
    let list = server.get("/core/webhooks").await.is(200);
    let ids: Vec<_> = list.as_array().unwrap().iter().map(id).collect();
    assert_eq!(ids, [id(&second), id(&made)]);
    server.delete(&path).await.is(204);
    assert_eq!(server.get(&path).await.is(404)["detail"], "Webhook not found");
    server.delete(&path).await.is(404);
}

#[tokio::test]
async fn a_secret_is_shown_once_and_nowhere_else() {
    let server = Server::start().await;
    let made = make(&server, json!({})).await;
    let (hook, first) = (id(&made), made["secret"].as_str().unwrap().to_owned());
    assert!(first.starts_with("whsec_"));
    let rotate = format!("/core/webhooks/{hook}/rotate-secret");
    let reply = server.post(&rotate, Value::Null).await;
    assert_eq!(reply.headers["cache-control"], "no-store");
    let rotated = reply.is(200);
    assert!(rotated["previous_secret_expires_at"].is_string());
    let second = rotated["secret"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    server.post(&format!("/core/webhooks/{hook}/test"), Value::Null).await.is(202);
    for path in ["", "/deliveries"] {
        let text = server.get(&format!("/core/webhooks/{hook}{path}")).await.text;
        assert!(!text.contains("whsec_") && !text.contains("\"secret\""), "{text}");
    }
    let list = server.get("/core/webhooks").await.text;
    assert!(!list.contains("whsec_"));
    let at_once = server.post(&rotate, json!({ "overlap_seconds": 0 })).await.is(200);
    assert_eq!(at_once["previous_secret_expires_at"], Value::Null);
    let places = server.post(&rotate, json!({ "overlap_seconds": 604_801 })).await.places();
    assert_eq!(places, ["body.overlap_seconds"]);
}

#[tokio::test]
async fn urls_that_no_delivery_would_go_to_are_refused() {
    let server = Server::start().await;
    for url in [
        "",
        "receiver.example",
        "http://receiver.example/",
        "ftp://receiver.example/",
        "https://user:password@receiver.example/",
        "https://receiver.example:8443/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://0x7f000001/",
        "https://receiver.example/ x",
    ] {
        let places = server.post("/core/webhooks", json!({ "url": url })).await.places();
        assert_eq!(places, ["body.url"], "{url}");
    }
    let made = make(&server, json!({})).await;
    let path = format!("/core/webhooks/{}", id(&made));
    let places = server.put(&path, json!({ "url": "https://localhost:9/" })).await.places();
    assert_eq!(places, ["body.url"]);
    for (body, place) in [
        (json!({ "url": "https://r.example", "secret": "mine" }), "body.secret"),
        (json!({ "url": "https://r.example", "events": ["call.eaten"] }), "body.events.0"),
        (json!({ "url": "https://r.example", "events": ["webhook.test"] }), "body.events"),
        (json!({ "url": "https://r.example", "organization_id": UNKNOWN }), "body.organization_id"),
    ] {
        assert_eq!(server.post("/core/webhooks", body).await.places(), [place]);
    }
}

#[tokio::test]
async fn who_may_not_see_what_is_sensitive_may_not_have_it_posted() {
    let server = Server::start().await;
    let plain = server.key_with(&["webhooks:manage", "conversations:manage"]).await;
    let body = json!({ "url": "https://r.example", "include_sensitive": true });
    let ask = async |method: Method, path: &str, body: &Value| {
        server.call(method, path, &plain, body).await
    };
    ask(Method::POST, "/core/webhooks", &body).await.is(403);
    let hook = id(&server.post("/core/webhooks", body).await.is(200));
    let path = format!("/core/webhooks/{hook}");
    ask(Method::PUT, &path, &json!({ "url": "https://thief.example" })).await.is(403);
    assert_eq!(server.get(&path).await.is(200)["url"], "https://r.example");
    ask(Method::PUT, &path, &json!({ "include_sensitive": false })).await.is(200);
    ask(Method::PUT, &path, &json!({ "include_sensitive": true })).await.is(403);
}

#[tokio::test]
async fn deliveries_are_listed_read_and_replayed() {
    let server = Server::start().await;
    let hook = id(&make(&server, json!({ "include_sensitive": true })).await);
    let path = format!("/core/webhooks/{hook}/deliveries");
    let call = server
        .conversation(server.organisation, |c| c.custom_metadata = Some(json!({ "canary": 1 })))
        .await;
    server.post(&format!("/core/webhooks/{hook}/test"), Value::Null).await.is(202);
    let list = server.get(&path).await.is(200);
    let types: Vec<_> = list.as_array().unwrap().iter().map(|d| d["event_type"].clone()).collect();
    assert_eq!(types, ["webhook.test", "call.ringing"]);
    assert_eq!(list[1]["state"], "pending");
    assert!(server.get(&format!("{path}?state=dead")).await.is(200).as_array().unwrap().is_empty());
    assert_eq!(server.get(&format!("{path}?state=eaten")).await.places(), ["query.state"]);
    let page = server.get(&format!("{path}?limit=1")).await;
    let cursor = page.headers["x-next-cursor"].to_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("{path}?cursor={cursor}")).await.is(200)[0], list[1]);

    let one = format!("{path}/{}", id(&list[1]));
    let detail = server.get(&one).await.is(200);
    assert_eq!(detail["event"]["conversation_id"], json!(call.id));
    assert_eq!(detail["event"]["custom_metadata"], json!({ "canary": 1 }));
    assert_eq!(detail["event"]["id"], list[1]["event_id"]);
    let reader = server.key_with(&["webhooks:read"]).await;
    let hidden = server.call(Method::GET, &one, &reader, &Value::Null).await;
    assert!(!hidden.text.contains("canary"), "{}", hidden.text);
    hidden.is(200);
    server.post(&format!("{one}/replay"), Value::Null).await.is(409);
    let none = server.post(&format!("/core/webhooks/{hook}/replay"), Value::Null).await.is(202);
    assert_eq!(none, json!({ "replayed": 0 }));
    server.get(&format!("{path}/{UNKNOWN}")).await.is(404);
    server.get(&format!("{path}/nonsense")).await.is(404);
}
