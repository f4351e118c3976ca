//! What a broken request gets, and that nothing from inside is in it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request};
use config::api::{self, Api, ApiOptions, Waiting};
use config::calls::NoCalls;
use config::fetch::Fetcher;
use config::managed::Managed;
use config::seal::Sealer;
use config::settings::FetchSettings;
use config::store::{Store, StoreOptions};
use config::workflows::NoWorkflows;
use serde_json::{Value, json};

use crate::server::{Reply, Server};

async fn raw(server: &Server, body: impl Into<Body>) -> Reply {
    let request = Request::post("/core/agents")
        .header("authorization", format!("Bearer {}", server.key))
        .body(body.into());
    server.send(request.unwrap()).await
}

#[tokio::test]
async fn every_reply_has_an_id_of_its_own() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for path in ["/core/trunks", "/core/openapi.json", "/nowhere", "/core/trunks/x"] {
        let request = Request::get(path).header("x-request-id", "forged\tline");
        let reply = server.send(request.body(Body::empty()).unwrap()).await;
        let id = reply.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn an_unknown_route_is_404_and_a_wrong_method_405() {
    let server = Server::start().await;
    for path in ["/", "/core", "/core/trunk", "/core/trunks/", "/core/agents/x/versions/1/compare"]
    {
        assert!(server.get(path).await.is(404)["detail"].is_string(), "{path}");
    }
    let reply = server.patch("/core/trunks", json!({})).await;
    assert!(reply.headers["allow"].to_str().unwrap().contains("GET"));
    assert_eq!(reply.is(405)["detail"], "Method not allowed");
    server.call(Method::PUT, "/core/openapi.json", "", &Value::Null).await.is(405);
}

#[tokio::test]
async fn a_query_that_cannot_be_read_or_that_nobody_reads_is_422() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let unread = format!("/core/agents/{agent}");
    let latest = format!("{unread}/versions/latest");
    for path in ["/core/conversations", "/core/trunks", &unread, &latest] {
        for bad in ["user_id=%FF", "%c3%28=1", "x=%ED%A0%80"] {
            let reply = server.get(&format!("{path}?{bad}")).await;
            assert_eq!(reply.places(), ["query"], "{path}?{bad}");
        }
    }
    for path in [&unread, &latest] {
        let places = server.get(&format!("{path}?x=1&%C3%A4=%zz")).await.places();
        assert_eq!(places, ["query.x", "query.ä"], "{path}");
        let known = server.get(path).await.status;
        assert_eq!(server.get(&format!("{path}?")).await.status, known, "nothing is asked");
    }
    server.get("/core/conversations?user_id=%2B49%C3%A4&limit=1").await.is(200);
    server.post("/core/agents?dry=1", json!({ "name": "b" })).await.is(422);
    server.delete(&format!("{unread}?force=true")).await.is(422);
    server.get(&unread).await.is(200);
    let stranger = server.call(Method::GET, &format!("{unread}?x=1"), "", &Value::Null).await;
    assert_eq!(stranger.status.as_u16(), 401, "who has no key learns nothing more");
}

#[tokio::test]
async fn an_id_that_is_no_id_is_unknown() {
    let server = Server::start().await;
    for bad in
        ["x", "1", "%00", "%ff", "..%2f", "67e55044-10b1-426f-9247-bb680e5fe0c", "'%20or%201=1"]
    {
        for (noun, what) in
            [("trunks", "Trunk"), ("agents", "Agent"), ("conversations", "Conversation")]
        {
            let detail = server.get(&format!("/core/{noun}/{bad}")).await.is(404)["detail"].clone();
            assert_eq!(detail, json!(format!("{what} not found")), "{bad}");
        }
        let detail =
            server.get(&format!("/core/phone-numbers/{bad}")).await.is(404)["detail"].clone();
        assert_eq!(detail, "Phone number not found");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_422() {
    let server = Server::start().await;
    let deep = format!("{{\"name\":\"a\",\"metadata\":{}1{}}}", "[".repeat(40), "]".repeat(40));
    let wide = format!("{{\"name\":\"a\",\"metadata\":{{\"x\":[{}1]}}}}", "1,".repeat(10_000));
    for body in [
        "",
        "{",
        "nonsense",
        "{\"name\":\"a\"} x",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":NaN}",
        "{\"name\":1e999}",
        &deep,
        &wide,
    ] {
        let reply = raw(&server, body.to_owned()).await.is(422);
        assert_eq!(reply["detail"][0]["type"], "json_invalid", "{body}");
    }
    let reply = raw(&server, b"{\"name\":\"\xff\"}".to_vec()).await.is(422);
    assert_eq!(reply["detail"][0]["msg"], "body is not UTF-8");
    for body in ["null", "[]", "\"x\"", "7"] {
        assert_eq!(raw(&server, body).await.places(), ["body"], "{body}");
    }
}

#[tokio::test]
async fn all_violations_are_told_at_once() {
    let server = Server::start().await;
    let body = json!({ "active": "yes", "is_demo": 1, "metadata": [], "surprise": null });
    let reply = server.post("/core/agents", body).await;
    let mut places = reply.places();
    places.sort();
    assert_eq!(
        places,
        ["body.active", "body.is_demo", "body.metadata", "body.name", "body.surprise"]
    );
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413() {
    let options = ApiOptions { max_body_bytes: 1_024, ..ApiOptions::default() };
    let server = Server::with(options).await;
    let body = json!({ "name": "a", "description": "d".repeat(2_000) });
    let reply = server.post("/core/agents", body).await.is(413);
    assert_eq!(reply["detail"], "Body is larger than 1024 bytes");
    let request = Request::post("/core/agents")
        .header("authorization", format!("Bearer {}", server.key))
        .header("content-length", "99999999999999999999")
        .body(Body::from("{\"name\":\"a\"}"));
    let status = server.send(request.unwrap()).await.status.as_u16();
    assert!(status == 200 || status == 413, "a promise is not a body: {status}");
}

#[tokio::test]
async fn a_bad_query_says_which_parameter() {
    let server = Server::start().await;
    for (query, place) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("cursor=AAAA", "cursor"),
        ("cursor=%00", "cursor"),
        ("created_after=yesterday", "created_after"),
        ("updated_before=2026-13-01", "updated_before"),
        ("nmae=a", "nmae"),
        ("name=a&name=b", "name"),
        ("organization_id=x", "organization_id"),
    ] {
        let reply = server.get(&format!("/core/trunks?{query}")).await;
        assert_eq!(reply.places(), [format!("query.{place}")], "{query}");
    }
    for fine in [
        "limit=1000",
        "limit=1",
        "created_after=2026-01-01T00:00:00Z",
        "created_after=2026-01-01T00:00:00+01:00",
    ] {
        server.get(&format!("/core/trunks?{fine}")).await.is(200);
    }
}

#[tokio::test]
async fn a_store_that_cannot_answer_is_503() {
    let server = Server::start().await;
    server.store.close().await;
    let reply = server.get("/core/trunks").await;
    assert!(reply.headers.contains_key("retry-after"));
    let text = reply.text.clone();
    assert!(reply.is(503)["detail"].is_string());
    for inside in ["sql", "pool", "sqlite", "/", "panicked"] {
        assert!(!text.to_lowercase().contains(inside), "{text}");
    }
}

#[tokio::test]
async fn one_request_more_than_fits_is_503() {
    let options = ApiOptions { max_concurrent_requests: 0, ..ApiOptions::default() };
    let server = Server::with(options).await;
    let reply = server.get("/core/trunks").await;
    assert!(
        reply.headers.contains_key("retry-after") && reply.headers.contains_key("x-request-id")
    );
    reply.is(503);
}

#[tokio::test]
async fn no_error_holds_what_the_client_sent_as_a_secret() {
    let server = Server::start().await;
    for body in [
        json!({ "name": 1, "outbound_config": { "auth_password": "canary" } }),
        json!({ "name": "a", "outbound_config": { "auth_password": ["canary"] } }),
        json!({ "name": "a", "inbound_config": { "auth_password": "canary" } }),
        json!({ "name": "a", "outbound_config": "canary" }),
    ] {
        let reply = server.post("/core/trunks", body).await;
        assert!(!reply.text.contains("canary"), "{}", reply.text);
        reply.is(422);
    }
}

#[tokio::test]
async fn two_routers_over_two_stores_share_nothing() {
    let (a, b) = (Server::start().await, Server::start().await);
    b.call(Method::GET, "/core/trunks", &a.key, &Value::Null).await.is(401);
    let store = StoreOptions::new(Sealer::ephemeral().unwrap(), "127.0.0.1:5060");
    let store = Store::open("sqlite::memory:", store).await.unwrap();
    let options = ApiOptions::default();
    let calls = Arc::new(NoCalls);
    let managed = Managed::new(store.clone(), Vec::new());
    let workflows = Arc::new(NoWorkflows);
    let fetcher = Fetcher::new(&FetchSettings::default()).unwrap();
    let waiting = Waiting::default();
    let api = Api { store, options, calls, workflows, waiting, managed, fetcher, model: None };
    assert!(!format!("{api:?}").is_empty());
    drop(api::router(api));
}
