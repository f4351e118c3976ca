//! Nothing can be set that a request has no field for: owners, ids, flags, moments.

use std::collections::BTreeSet;

use axum::http::Method;
use config::api;
use serde_json::{Value, json};

use crate::server::Server;
use crate::tenants::{Things, requests};

fn schema_named(schema: &Value) -> &Value {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let pointer = reference.and_then(|text| text.strip_prefix('#'));
    pointer.map_or(schema, |pointer| api::openapi().pointer(pointer).unwrap())
}

/// The names of all fields that anything of ours has.
fn all_names() -> BTreeSet<String> {
    let schemas = api::openapi()["components"]["schemas"].as_object().unwrap();
    let fields = |schema: &Value| -> Vec<String> {
        let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
        let parts = parts.map(schema_named).chain([schema]);
        let fields = parts.filter_map(|part| part.get("properties")?.as_object());
        fields.flat_map(|fields| fields.keys().cloned()).collect()
    };
    schemas.values().flat_map(fields).collect()
}

/// The names of the fields that a request's body may have.
fn own_names(method: &Method, path: &str) -> BTreeSet<String> {
    let method = method.as_str().to_ascii_lowercase();
    let body = &api::openapi()["paths"][path][method]["requestBody"];
    let schema = &body["content"]["application/json"]["schema"];
    let forms = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let forms = forms.chain([schema]).map(schema_named);
    let fields = forms.filter_map(|form| form.get("properties")?.as_object());
    fields.flat_map(|fields| fields.keys().cloned()).collect()
}

#[tokio::test]
async fn a_field_that_a_request_does_not_have_is_refused_by_name() {
    let server = Server::start().await;
    let (_, things) = Things::twins(&server).await;
    let names = all_names();
    assert!(names.contains("organization_id") && names.contains("managed_account_id"));
    let mut tried = 0;
    for ask in requests(&things).iter().filter(|ask| ask.body.is_object()) {
        let own = own_names(&ask.method, &ask.route);
        assert!(!own.is_empty(), "{} {}", ask.method, ask.route);
        for name in names.difference(&own) {
            let mut body = ask.body.clone();
            body[name] = json!(null);
            let key = &things.credential;
            let reply = server.call(ask.method.clone(), &ask.path, key, &body).await;
            let what = format!("{} {} with {name}: {}", ask.method, ask.route, reply.text);
            assert_eq!(reply.status, 422, "{what}");
            assert!(reply.places().contains(&format!("body.{name}")), "{what}");
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}
