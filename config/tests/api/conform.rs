//! Checks replies against the document: status, required fields, types, and nothing undocumented.

use config::api;
use serde_json::{Map, Value, json};

/// Panics when a reply is not one that the document describes.
#[track_caller]
pub(crate) fn check(method: &str, path_and_query: &str, status: u16, body: &Value) {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let Some(operation) = operation(&method.to_ascii_lowercase(), path) else {
        assert!(status == 404 || status == 405, "{method} {path} is undocumented: {status}");
        return;
    };
    let response = &operation["responses"][status.to_string()];
    assert!(response.is_object(), "{method} {path}: {status} is undocumented: {body}");
    // A projection leaves out what is required otherwise.
    let schema = response.pointer("/content/application~1json/schema");
    if let Some(schema) = schema.filter(|_| !query.contains("fields=")) {
        let wrong = differences(schema, body, "reply");
        assert!(wrong.is_empty(), "{method} {path}: {wrong:?} in {body}");
    }
}

/// The operation whose path template fits; a template without parameters goes first.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let paths = api::openapi()["paths"].as_object()?;
    let fits = |template: &str| {
        let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let same = |(a, b): (&&str, &&str)| a == b || (a.starts_with('{') && !b.is_empty());
        a.len() == b.len() && a.iter().zip(&b).all(same)
    };
    let item = paths
        .get(path)
        .or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item));
    item?.get(method)
}

fn resolve(schema: &'static Value) -> &'static Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let target = api::openapi().pointer(reference.strip_prefix('#').unwrap());
            resolve(target.unwrap_or_else(|| panic!("{reference}")))
        }
        None => schema,
    }
}

fn differences(schema: &'static Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolve(schema);
    if let Some(forms) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
        let fits = forms.iter().any(|form| differences(form, value, at).is_empty());
        return if fits { Vec::new() } else { vec![format!("{at} fits no form")] };
    }
    let types = match schema.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of_type(value, name)) {
        return vec![format!("{at} is not {types:?}")];
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|all| !all.contains(value)) {
        return vec![format!("{at} is not in the list")];
    }
    match value {
        Value::Object(entries) => object(schema, entries, at),
        Value::Array(items) => {
            let Some(form) = schema.get("items") else { return Vec::new() };
            let each = items.iter().enumerate();
            each.flat_map(|(n, item)| differences(form, item, &format!("{at}.{n}"))).collect()
        }
        _ => Vec::new(),
    }
}

fn object(schema: &'static Value, entries: &Map<String, Value>, at: &str) -> Vec<String> {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    let mut known = Vec::new();
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten().chain([schema])
    {
        let part = resolve(part);
        if let Some(all) = part.get("properties").and_then(Value::as_object) {
            known.extend(all.iter());
            properties.extend(all.clone());
        }
        required
            .extend(part.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    }
    let mut wrong: Vec<String> = required
        .iter()
        .filter(|name| !entries.contains_key(name.as_str().unwrap()))
        .map(|name| format!("{at} has no {name}"))
        .collect();
    for (name, entry) in entries {
        match known.iter().find(|(key, _)| *key == name) {
            Some((_, form)) => wrong.extend(differences(form, entry, &format!("{at}.{name}"))),
            None if properties.is_empty() => {}
            None => wrong.push(format!("{at}.{name} is undocumented")),
        }
    }
    wrong
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    }
}

#[test]
#[should_panic(expected = "undocumented")]
fn an_undocumented_field_is_found() {
    check("GET", "/admin/members/me/scopes", 401, &json!({ "detail": "x", "more": 1 }));
}
