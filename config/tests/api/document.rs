//! The OpenAPI document: complete, served, and held by a golden file.

use std::collections::BTreeSet;
use std::path::Path;

use axum::http::Method;
use config::api::{self, Access};
use serde_json::{Value, json};

use crate::server::Server;

/// `(METHOD, path, operation)` of every operation of the document.
fn operations() -> Vec<(String, String, &'static Value)> {
    let paths = api::openapi()["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(|(method, operation)| (method.to_ascii_uppercase(), path.clone(), operation))
    });
    each.collect()
}

#[test]
fn the_document_has_exactly_the_routes_of_the_table() {
    let documented: BTreeSet<_> = operations().into_iter().map(|(m, p, _)| (m, p)).collect();
    let routed: BTreeSet<_> =
        api::routes().into_iter().map(|route| (route.method.to_string(), route.path)).collect();
    assert_eq!(documented, routed);
}

#[test]
fn every_operation_has_a_name_a_summary_and_its_errors() {
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations() {
        let name = operation["operationId"].as_str().unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
        let route =
            api::routes().into_iter().find(|r| r.path == path && r.method == *method).unwrap();
        let open = route.access == Access::Anyone;
        assert_eq!(operation["responses"].get("401").is_some(), !open, "{method} {path}");
        assert_eq!(operation.get("security") == Some(&json!([])), open, "{method} {path}");
        assert!(
            operation["responses"]["500"].is_object() && operation["responses"]["503"].is_object()
        );
        if let Access::AnyOf(scopes) = route.access {
            let text = operation["description"].as_str().unwrap();
            assert!(scopes.iter().all(|scope| text.contains(scope.as_str())), "{method} {path}");
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|p| p["in"] == "path").count();
        assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
        let mut names: Vec<_> = parameters.iter().map(|p| p["name"].to_string()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), parameters.len(), "{method} {path} names a parameter twice");
    }
}

/// Fails at a reference of a document that leads nowhere.
fn walk(document: &Value, value: &Value) {
    match value {
        Value::Object(entries) => {
            if let Some(reference) = entries.get("$ref").and_then(Value::as_str) {
                let target = document.pointer(reference.strip_prefix('#').unwrap());
                assert!(target.is_some(), "{reference}");
            }
            entries.values().for_each(|entry| walk(document, entry));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    walk(api::openapi(), api::openapi());
}

#[tokio::test]
async fn the_document_is_served_to_anyone() {
    let server = Server::start().await;
    let served = server.call(Method::GET, "/openapi.json", "", &Value::Null).await.is(200);
    assert_eq!(&served, api::openapi());
    assert_eq!(served["info"]["title"], "Trunkline API");
    assert_eq!(served["components"]["securitySchemes"]["bearerAuth"]["scheme"], "bearer");
}

#[tokio::test]
async fn each_service_serves_the_document_of_its_own_paths() {
    let server = Server::start().await;
    let whole = api::openapi();
    let mut operations = 1; // that of the whole document is below none
    for service in ["core", "workflow", "campaign", "admin"] {
        let path = format!("/{service}/openapi.json");
        let served = server.call(Method::GET, &path, "", &Value::Null).await.is(200);
        for (path, item) in served["paths"].as_object().unwrap() {
            assert!(path.starts_with(&format!("/{service}/")), "{path}");
            assert_eq!(item, &whole["paths"][path], "{path}");
            operations += 1;
        }
        let text = served.to_string();
        for (name, schema) in served["components"]["schemas"].as_object().unwrap() {
            assert_eq!(schema, &whole["components"]["schemas"][name], "{name}");
            assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name} is not used");
        }
        walk(&served, &served);
    }
    assert_eq!(operations, whole["paths"].as_object().unwrap().len(), "each is below one service");
}

/// Holds a public document byte for byte; `UPDATE_GOLDEN=1` writes it anew.
#[track_caller]
fn is_golden(name: &str, present: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/api").join(name);
    let present = serde_json::to_string_pretty(present).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &present).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == present,
        "{name} changed; if that is meant, run this test with UPDATE_GOLDEN=1 and review the \
         difference of tests/api/{name}"
    );
}

#[test]
fn the_document_is_the_golden_one() {
    is_golden("openapi.json", api::openapi());
}

#[tokio::test]
async fn the_schema_of_agent_configs_is_the_golden_one() {
    let server = Server::start().await;
    let schema = server.get("/core/agent-config-schema").await.is(200);
    is_golden("agent-config-schema.json", &schema);
}
