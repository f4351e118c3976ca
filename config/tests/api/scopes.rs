//! The matrix of routes and credentials, taken from the table itself.

use axum::body::Body;
use axum::http::{Method, Request};
use config::api::{self, Access};
use config::credential::Scope;
use serde_json::{Value, json};

use crate::server::Server;

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// A path with every parameter filled in by something that does not exist.
fn filled(path: &str) -> String {
    path.replace("{phone_number}", "+15550001111")
        .replace("{version}", "1")
        .replace("{account_id}", "pool")
        .replace("{trunk_id}", ID)
        .replace("{id}", ID)
        .replace("{key_id}", ID)
        .replace("{conversation_id}", ID)
        .replace("{workflow_id}", ID)
}

#[tokio::test]
async fn every_cell_of_route_and_credential_is_right() {
    let server = Server::start().await;
    let (_, foreign) = server.stranger().await;
    let mut singles = Vec::new();
    for scope in Scope::ALL {
        singles.push((*scope, server.key_with(&[scope.as_str()]).await));
    }
    let expired = json!({ "name": "old", "expires_at": 1 });
    let expired = server.key_of(server.organisation, expired).await;
    let revoked = server.post("/admin/organization-pats", json!({ "name": "gone" })).await.is(200);
    let path = format!("/admin/organization-pats/{}", revoked["key_id"].as_str().unwrap());
    server.delete(&path).await.is(204);
    let (mistyped, _) = server.key.split_at(server.key.len() - 1);
    let none_of_these = [
        "",
        "garbage",
        "pat_x",
        "ak_",
        "ak_x.y",
        mistyped,
        &expired,
        revoked["pat_key"].as_str().unwrap(),
    ];

    let mut cells = 0;
    for route in api::routes() {
        let path = filled(&route.path);
        let ask = async |key: &str| {
            server.call(route.method.clone(), &path, key, &Value::Null).await.status.as_u16()
        };
        let name = format!("{} {}", route.method, route.path);
        for key in none_of_these {
            let status = ask(key).await;
            assert_eq!(
                status == 401,
                route.access != Access::Anyone,
                "{name} with {key:?}: {status}"
            );
            cells += 1;
        }
        for (scope, key) in &singles {
            let status = ask(key).await;
            let open = match route.access {
                Access::AnyOf(scopes) => scopes.contains(scope),
                Access::Anyone | Access::AnyKey => true,
            };
            assert_eq!(status == 403, !open, "{name} with {scope}: {status}");
            assert!(status < 500 && status != 401, "{name} with {scope}: {status}");
            cells += 1;
        }
        let others: Vec<&str> = Scope::ALL
            .iter()
            .filter(|scope| !matches!(route.access, Access::AnyOf(open) if open.contains(scope)))
            .map(|scope| scope.as_str())
            .collect();
        let all_but = server.key_with(&others).await;
        assert_eq!(ask(&all_but).await == 403, matches!(route.access, Access::AnyOf(_)), "{name}");
        let status = ask(&foreign).await;
        let operators_only = matches!(route.access, Access::AnyOf([Scope::OperatorManage]));
        assert_eq!(status == 403, operators_only, "{name} as another: {status}");
        assert!(status != 401 && status < 500, "{name} as another: {status}");
        cells += 2;
    }
    assert_eq!(cells, api::routes().len() * (none_of_these.len() + Scope::ALL.len() + 2));
}

#[tokio::test]
async fn a_read_is_opened_by_manage_too_and_a_write_never_by_read() {
    for route in api::routes() {
        let Access::AnyOf(scopes) = route.access else { continue };
        let name = format!("{} {}", route.method, route.path);
        let reads = scopes.iter().any(|scope| scope.as_str().contains(":read"));
        let manages = scopes.iter().any(|scope| scope.as_str().ends_with(":manage"));
        assert!(manages, "{name}");
        // A comparison writes nothing: it has a body because it names two things.
        let only_reads = route.method == Method::GET || route.path.ends_with("/compare");
        assert!(!reads || only_reads, "{name}");
    }
}

#[tokio::test]
async fn credentials_that_are_no_bearer_tokens_are_401() {
    let server = Server::start().await;
    let key = &server.key;
    for value in [
        format!("Basic {key}"),
        key.clone(),
        "Bearer".to_owned(),
        "Bearer  ".to_owned(),
        format!("Bearer {key}{}", "x".repeat(1000)),
        "Bearer \u{e9}".to_owned(),
    ] {
        let request = Request::get("/core/trunks").header("authorization", value.as_bytes());
        let reply = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
        assert!(reply.is(401)["detail"].is_string());
    }
    let twice = Request::get("/core/trunks")
        .header("authorization", format!("Bearer {key}"))
        .header("authorization", format!("Bearer {key}"));
    server.send(twice.body(Body::empty()).unwrap()).await.is(401);
    let lower = Request::get("/core/trunks").header("authorization", format!("bearer {key}"));
    server.send(lower.body(Body::empty()).unwrap()).await.is(200);
}

#[tokio::test]
async fn a_personal_token_is_told_that_its_organisation_is_missing() {
    let server = Server::start().await;
    let reply = server.call(Method::GET, "/core/trunks", "pat_abc", &Value::Null).await.is(401);
    assert_eq!(reply["detail"], "Token is missing organization claim.");
}

#[tokio::test]
async fn a_key_with_another_organisations_header_is_403() {
    let server = Server::start().await;
    for (organisation, status) in
        [(server.organisation.to_string(), 200), (ID.to_owned(), 403), ("x".to_owned(), 403)]
    {
        let request = Request::get("/core/trunks")
            .header("authorization", format!("Bearer {}", server.key))
            .header("x-anyreach-org", organisation);
        server.send(request.body(Body::empty()).unwrap()).await.is(status);
    }
}
