//! The OpenAPI document, generated from the handlers and finished from the table of routes.
//!
//! What every route has in common (who may use it, what errors it can answer) is written here once
//! from its row, so the document cannot promise what the guard does not keep.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::table::{Access, Route};

/// The document as it is served, and as request bodies are checked against.
pub(crate) static OPENAPI: LazyLock<Value> = LazyLock::new(build);

/// The services of the contract that have routes here.
const SERVICES: [&str; 4] = ["core", "workflow", "campaign", "admin"];

/// The same for each service alone: its own paths, and the schemas that they name.
static OF_SERVICES: LazyLock<Vec<Value>> =
    LazyLock::new(|| SERVICES.iter().map(|service| of_service(service)).collect());

/// The document of one service; the whole one for any other name.
pub(crate) fn service(name: &str) -> &'static Value {
    let position = SERVICES.iter().position(|service| *service == name);
    position.and_then(|position| OF_SERVICES.get(position)).unwrap_or(&OPENAPI)
}

fn of_service(service: &str) -> Value {
    let (mut document, prefix) = (OPENAPI.clone(), format!("/{service}/"));
    if let Some(Value::Object(paths)) = document.get_mut("paths") {
        paths.retain(|path, _| path.starts_with(&prefix));
    }
    let (mut waiting, mut named) = (Vec::new(), BTreeSet::new());
    collect_references(document.get("paths").unwrap_or(&Value::Null), &mut waiting);
    while let Some(name) = waiting.pop() {
        if let Some(schema) = document.pointer(&format!("/components/schemas/{name}"))
            && named.insert(name)
        {
            collect_references(schema, &mut waiting);
        }
    }
    if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") {
        schemas.retain(|name, _| named.contains(name));
    }
    if let Some(info) = document.get_mut("info") {
        set(info, "title", json!(format!("Trunkline API: {service}")));
    }
    document
}

fn build() -> Value {
    let table = super::table();
    let mut document = serde_json::to_value(table.router.get_openapi())
        .expect("a generated document has only string keys");
    set(&mut document, "openapi", json!("3.1.0"));
    set(&mut document, "info", info());
    set(&mut document, "security", json!([{ "bearerAuth": [] }]));
    show_password_flags(&mut document);
    close_requests(&mut document);
    if let Some(components) = document.get_mut("components") {
        set(components, "securitySchemes", security_schemes());
        if let Some(schemas) = components.get_mut("schemas") {
            add_schema::<super::error::ErrorBody>(schemas);
            add_schema::<super::error::ValidationErrorBody>(schemas);
        }
    }
    for row in &table.rows {
        let path = row.path.replace('~', "~0").replace('/', "~1");
        let pointer = format!("/paths/{path}/{}", row.method.as_str().to_ascii_lowercase());
        if let Some(operation) = document.pointer_mut(&pointer) {
            finish_operation(operation, row);
        }
    }
    document
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(entries) = object {
        entries.insert(key.to_owned(), value);
    }
}

fn info() -> Value {
    json!({
        "title": "Trunkline API",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Trunks, phone numbers, agents and the record of every call. Lists are \
            JSON arrays, newest first; `cursor` is the Base64 of the `created_at` of the last item, \
            and the header X-Next-Cursor holds it when a page is full. Errors are \
            `{\"detail\": …}`. Every reply has an X-Request-Id.",
        "license": { "name": "MIT OR Apache-2.0" },
    })
}

fn security_schemes() -> Value {
    json!({ "bearerAuth": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "ak_<id>.<secret> or pat_<id>.<secret>",
        "description": "An organization API key; or a user's personal access token, beside which the \
            header X-Anyreach-Org names the organization to act in.",
    } })
}

fn add_schema<T: utoipa::ToSchema>(schemas: &mut Value) {
    let mut all = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut all);
    for (name, schema) in all {
        if let Ok(schema) = serde_json::to_value(schema) {
            set(schemas, &name, schema);
        }
    }
}

/// `auth_password_set` is ours to write; requests may send it back, and it changes nothing.
fn show_password_flags(document: &mut Value) {
    let flag = json!({
        "type": "boolean",
        "readOnly": true,
        "description": "Whether a password is stored.",
    });
    for name in ["InboundConfig", "OutboundConfig"] {
        let pointer = format!("/components/schemas/{name}/properties");
        if let Some(properties) = document.pointer_mut(&pointer) {
            set(properties, "auth_password_set", flag.clone());
        }
    }
}

/// Request bodies take no unknown fields, at any depth that has named fields.
fn close_requests(document: &mut Value) {
    let mut waiting = Vec::new();
    for operation in operations(document) {
        collect_references(operation.get("requestBody").unwrap_or(&Value::Null), &mut waiting);
    }
    let mut closed: Vec<String> = Vec::new();
    while let Some(name) = waiting.pop() {
        if closed.contains(&name) {
            continue;
        }
        let pointer = format!("/components/schemas/{name}");
        if let Some(schema) = document.pointer_mut(&pointer) {
            let has_fields = schema
                .get("properties")
                .is_some_and(|fields| fields.as_object().is_some_and(|fields| !fields.is_empty()));
            if has_fields && schema.get("additionalProperties").is_none() {
                set(schema, "additionalProperties", json!(false));
            }
            collect_references(schema, &mut waiting);
        }
        closed.push(name);
    }
}

fn operations(document: &Value) -> impl Iterator<Item = &Value> {
    let paths = document.get("paths").and_then(Value::as_object);
    paths.into_iter().flat_map(Map::values).filter_map(Value::as_object).flat_map(Map::values)
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            let reference = entries.get("$ref").and_then(Value::as_str);
            let name = reference.and_then(|text| text.strip_prefix("#/components/schemas/"));
            into.extend(name.map(str::to_owned));
            entries.values().for_each(|entry| collect_references(entry, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// Adds what follows from the row: scopes, and the errors that its guard and extractors answer.
fn finish_operation(operation: &mut Value, row: &Route) {
    let has_body = operation.get("requestBody").is_some();
    if row.access == Access::Anyone {
        set(operation, "security", json!([]));
    }
    let who = match row.access {
        Access::Anyone => "Needs no key.".to_owned(),
        Access::AnyKey => "Needs a valid key.".to_owned(),
        Access::AnyUser => {
            "Needs a personal access token; X-Anyreach-Org may be left out.".to_owned()
        }
        Access::AnyOf(scopes) => {
            let words: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
            format!("Needs any one of the scopes {}.", words.join(", "))
        }
    };
    let before = operation.get("description").and_then(Value::as_str).unwrap_or("");
    let description = format!("{before}\n\n{who}");
    set(operation, "description", json!(description.trim()));

    let mut errors = vec![("500", "Our fault"), ("503", "Cannot be answered now; try again")];
    if row.access != Access::Anyone {
        errors.push(("401", "No valid key"));
    }
    match row.access {
        Access::Anyone => {}
        Access::AnyKey => errors.push(("403", "The key belongs to another organization")),
        Access::AnyUser => errors.push(("403", "The credential is not a user's")),
        Access::AnyOf(_) => errors.push(("403", "The key holds none of the scopes")),
    }
    if row.path.contains('{') {
        errors.push(("404", "No such thing"));
    }
    if has_body {
        errors.push(("413", "The body is too large"));
    }
    if has_body || row.access != Access::Anyone {
        errors.push(("422", "Does not fit the schema, or breaks a rule"));
    }
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for (status, description) in errors {
            let name = if status == "422" { "ValidationErrorBody" } else { "ErrorBody" };
            let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
            let reply = json!({
                "description": description,
                "content": { "application/json": { "schema": schema } },
            });
            responses.entry(status).or_insert(reply);
        }
        responses.sort_keys();
    }
}
