//! `/admin/audit-log`: nothing is changed that it does not tell of.

use axum::http::Method;
use config::credential::{Operator, Role};
use config::model::{AuditFilter, AuditOutcome, Page};
use serde_json::{Value, json};

use crate::admin::user;
use crate::server::{Server, id};
use crate::tenants::{Things, requests};

#[tokio::test]
async fn every_request_that_changes_something_or_is_refused_is_told() {
    // These two have a body for what they are asked, and change nothing.
    let asks_only =
        |path: &str| ["/versions/compare", "/dry-run"].iter().any(|end| path.ends_with(end));
    let changes = {
        let server = Server::start().await;
        let all = requests(&Things::twins(&server).await.1).into_iter().enumerate();
        let changing = all.filter(|(_, ask)| ask.method != Method::GET && !asks_only(&ask.path));
        changing.map(|(index, _)| index).collect::<Vec<_>>()
    };
    let mut writes = 0;
    for index in changes {
        let server = Server::start().await;
        let (_, things) = Things::twins(&server).await;
        let ask = &requests(&things)[index];
        // What is done to a child is told in its log, and a new one in that of where it hangs.
        let named =
            ask.path.strip_prefix("/admin/organizations/").and_then(|id| id.split('/').next());
        let named = named.or_else(|| ask.body["parent_id"].as_str());
        let whose = named.and_then(|id| id.parse().ok()).unwrap_or(things.organisation);
        let scope = Operator::by_process().within(whose);
        let newest = async || {
            let page = Page::first(1);
            let log = server.store.audit_log(&scope, &AuditFilter::default(), page).await.unwrap();
            log.into_iter().next()
        };
        let before = newest().await.map_or(0, |told| told.sequence);
        let key = &things.credential;
        let reply = server.call(ask.method.clone(), &ask.path, key, &ask.body).await;
        let name = format!("{} {}", ask.method, ask.path);
        let told = newest().await.unwrap_or_else(|| panic!("{name}: an empty log"));
        assert!(told.sequence > before, "{name} is not in the audit log: {}", reply.text);
        let done = told.outcome == AuditOutcome::Done;
        assert_eq!(reply.status.is_success(), done, "{name}: {} {told:?}", reply.status);
        assert!(told.object_id.is_some() || !done, "{name}: {told:?}");
        assert_eq!(server.store.verify_audit_log(&scope).await.unwrap().fault, None);
        server.store.close().await; // its connections are few on PostgreSQL
        writes += 1;
    }
    assert!(writes > 20, "{writes}");
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_what_was_refused() {
    let server = Server::start().await;
    let ada = user(&server, "ada@example.com", Role::Admin).await;
    let made = ada.ask(Method::POST, "/core/trunks", json!({ "name": "t" })).await.is(200);
    let trunk = format!("/core/trunks/{}", id(&made));
    ada.ask(Method::DELETE, &trunk, Value::Null).await.is(204);
    ada.ask(Method::DELETE, &trunk, Value::Null).await.is(404);
    let weak = server.key_with(&["trunks:read"]).await;
    server.call(Method::POST, "/core/trunks", &weak, &json!({ "name": "t" })).await.is(403);
    server.call(Method::GET, "/core/agents", &weak, &Value::Null).await.is(403);

    let log = ada.ask(Method::GET, "/admin/audit-log?limit=5", Value::Null).await.is(200);
    let told: Vec<_> = log.as_array().unwrap().iter().collect();
    let shown = |n: usize, key: &str| told[n][key].clone();
    assert_eq!(shown(0, "action"), "POST /core/trunks");
    assert_eq!((shown(0, "outcome"), shown(0, "status")), (json!("refused"), json!(403)));
    assert_eq!(told[0]["actor"]["type"], "api_key");
    assert_eq!(shown(1, "action"), "key.create");
    assert_eq!(shown(2, "action"), "DELETE /core/trunks/{id}");
    assert_eq!((shown(2, "object_id"), shown(2, "status")), (made["id"].clone(), json!(404)));
    assert_eq!((shown(3, "action"), shown(3, "outcome")), (json!("trunk.delete"), json!("done")));
    assert_eq!(
        (shown(4, "action"), shown(4, "object_id")),
        (json!("trunk.create"), made["id"].clone())
    );
    assert_eq!(told[4]["actor"]["type"], "user");
    assert!(told[4]["actor"]["token_id"].is_string());
    assert_eq!(shown(3, "before"), shown(4, "after"));
    let of = format!("/admin/audit-log?object_id={}", id(&made));
    assert_eq!(ada.ask(Method::GET, &of, Value::Null).await.is(200).as_array().unwrap().len(), 3);

    let verified = ada.ask(Method::GET, "/admin/audit-log/verification", Value::Null).await.is(200);
    assert_eq!((&verified["fault"], &verified["head_hash"]), (&Value::Null, &told[0]["hash"]));
    ada.ask(Method::GET, "/admin/audit-log?node=true", Value::Null).await.is(403);
    let node = server.get("/admin/audit-log?node=true").await.is(200);
    assert_eq!(node[0]["action"], "token.create");
}

#[tokio::test]
async fn the_audit_log_is_walked_page_by_page() {
    let server = Server::start().await;
    for _ in 0..5 {
        server.trunk("t").await;
    }
    let (mut seen, mut path) = (Vec::new(), "/admin/audit-log?limit=2".to_owned());
    loop {
        let reply = server.get(&path).await;
        let next = reply.headers.get("x-next-cursor").map(|next| next.to_str().unwrap().to_owned());
        let page = reply.is(200);
        seen.extend(page.as_array().unwrap().iter().map(|one| one["sequence"].as_i64().unwrap()));
        let Some(next) = next else { break };
        path = format!("/admin/audit-log?limit=2&cursor={next}");
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1]);
}
