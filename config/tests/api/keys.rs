//! `/admin/organization-pats` and `/admin/members/me/scopes`.

use axum::http::Method;
use serde_json::{Value, json};

use crate::server::Server;

#[tokio::test]
async fn a_key_is_shown_once_and_opens_until_it_is_deleted() {
    let server = Server::start().await;
    let reply = server.post("/admin/organization-pats", json!({ "name": "ci" })).await;
    assert_eq!(reply.headers["cache-control"], "no-store");
    let made = reply.is(200);
    let key = made["pat_key"].as_str().unwrap();
    assert!(key.starts_with("ak_"));
    assert_eq!(made["expires_at"], Value::Null);
    server.call(Method::GET, "/core/trunks", key, &Value::Null).await.is(200);

    let listed = server.get("/admin/organization-pats").await;
    let secret = key.split_once('.').unwrap().1;
    assert!(!listed.text.contains(secret));
    let listed = listed.is(200);
    assert_eq!(listed[0]["key_id"], made["key_id"]);
    assert_eq!(listed[0]["name"], "ci");

    let path = format!("/admin/organization-pats/{}", made["key_id"].as_str().unwrap());
    server.delete(&path).await.is(204);
    server.call(Method::GET, "/core/trunks", key, &Value::Null).await.is(401);
    server.delete(&path).await.is(404);
}

#[tokio::test]
async fn a_key_cannot_make_a_stronger_one() {
    let server = Server::start().await;
    let weak = server.key_with(&["organizations:manage", "trunks:read"]).await;
    let path = "/admin/organization-pats";
    for grants in
        [json!(["admin"]), json!(["trunks:manage"]), json!(["operator:read"]), Value::Null]
    {
        let mut body = json!({ "name": "x", "grants": grants });
        if body["grants"].is_null() {
            body.as_object_mut().unwrap().shift_remove("grants");
        }
        server.call(Method::POST, path, &weak, &body).await.is(400);
    }
    let body = json!({ "name": "x", "grants": ["trunks:read"] });
    server.call(Method::POST, path, &weak, &body).await.is(200);
    let admin = server.key_with(&["admin"]).await;
    let body = json!({ "name": "x", "grants": ["operator:manage"] });
    server.call(Method::POST, path, &admin, &body).await.is(400);
}

#[tokio::test]
async fn a_bad_key_request_says_where() {
    let server = Server::start().await;
    for (body, place) in [
        (json!({}), "body.name"),
        (json!({ "name": "" }), "body.name"),
        (json!({ "name": "x", "expires_at": "soon" }), "body.expires_at"),
        (json!({ "name": "x", "expires_at": 0 }), "body.expires_at"),
        (json!({ "name": "x", "grants": ["root"] }), "body.grants"),
        (json!({ "name": "x", "key_id": "y" }), "body.key_id"),
        (json!({ "name": "x", "pat_key": "y" }), "body.pat_key"),
    ] {
        assert_eq!(server.post("/admin/organization-pats", body).await.places(), [place]);
    }
}

#[tokio::test]
async fn a_key_knows_its_own_scopes() {
    let server = Server::start().await;
    let key = server.key_with(&["trunks:read", "agents:manage"]).await;
    let path = "/admin/members/me/scopes";
    let scopes = server.call(Method::GET, path, &key, &Value::Null).await.is(200);
    assert_eq!(scopes, json!(["agents:manage", "trunks:read"]));
    server.call(Method::GET, path, "", &Value::Null).await.is(401);
}
