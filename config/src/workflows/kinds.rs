//! The fields of each type of step.

use std::time::Duration;

use axum::http::HeaderName;
use serde_json::{Map, Value, json};

use super::definition::{Branch, FieldType, HttpStep, InputField, Kind, OutputField, WaitUnit};
use super::fields::{Fields, Targets};
use super::template::Template;
use crate::fetch::FetchRequest;
use crate::limits::{
    WORKFLOW_BRANCHES, WORKFLOW_CODE_BYTES, WORKFLOW_FIELDS, WORKFLOW_HTTP_SECONDS,
};

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// The methods whose requests have a body.
const WITH_BODY: [&str; 3] = ["POST", "PUT", "PATCH"];

/// How long a request may take if the step does not say.
const HTTP_SECONDS: u64 = 10;

/// Reads what a step's type asks for; `None` if the type is not one, which was said.
pub(super) fn read(fields: &mut Fields<'_, '_>, targets: &Targets) -> Option<Kind> {
    Some(match fields.required_text("type")? {
        "input" => Kind::Input(input(fields)),
        "condition" => condition(fields, targets),
        "code" => Kind::Code(code(fields).into()),
        "http" => Kind::Http(Box::new(http(fields))),
        "app" => Kind::App {
            action: fields.required_text("action").unwrap_or_default().to_owned(),
            parameters: object(fields, "parameters"),
        },
        "wait" => wait(fields),
        "output" => Kind::Output(output(fields)),
        "note" => {
            fields.text("text");
            Kind::Note
        }
        _ => {
            let why = "must be input, condition, code, http, app, wait, output or note";
            fields.fault("type", why);
            return None;
        }
    })
}

fn input(fields: &mut Fields<'_, '_>) -> Vec<InputField> {
    let mut found = Vec::new();
    for (index, item) in fields.list("fields", WORKFLOW_FIELDS).iter().enumerate() {
        let place = format!("fields[{index}]");
        let Some(object) = item.as_object() else {
            fields.fault(&place, "must be an object with name and type");
            continue;
        };
        let mut item = fields.within(object, &place);
        item.ignore(&["description"]);
        let name = item.required_text("name").unwrap_or_default().to_owned();
        let kind = field_type(&mut item).unwrap_or(FieldType::String);
        let required = item.flag("required");
        item.finish();
        found.push(InputField { name, kind, required });
    }
    found
}

fn field_type(fields: &mut Fields<'_, '_>) -> Option<FieldType> {
    let word = fields.text("type")?;
    let kind = FieldType::NAMES.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
    if kind.is_none() {
        fields.fault("type", "must be string, number, boolean, array or object");
    }
    kind
}

fn condition(fields: &mut Fields<'_, '_>, targets: &Targets) -> Kind {
    let list = fields.list("branches", WORKFLOW_BRANCHES);
    if list.is_empty() {
        fields.fault("branches", "must hold at least one branch");
    }
    let mut branches: Vec<Branch> = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let place = format!("branches[{index}]");
        let Some(object) = item.as_object() else {
            fields.fault(&place, "must be an object with label and when");
            continue;
        };
        let mut item = fields.within(object, &place);
        let label = item.required_text("label").unwrap_or_default().to_owned();
        if label == "default" || branches.iter().any(|other| other.label == label) {
            item.fault("label", "must be its own, and not default");
        }
        let when = when(&mut item);
        let next = item.target("next", targets);
        item.finish();
        branches.push(Branch { label, when, next });
    }
    Kind::Condition { branches, default: fields.target("default", targets) }
}

/// A branch asks one question, so it is one expression: text around it would always be true.
fn when(fields: &mut Fields<'_, '_>) -> Template {
    match fields.template("when") {
        Some(when @ (Template::Expression(_) | Template::Value(Value::Bool(_)))) => return when,
        Some(_) => fields.fault("when", "must be one {{ expression }}, or true or false"),
        None => fields.fault("when", "is missing or not readable"),
    }
    Template::Value(json!(false))
}

fn code(fields: &mut Fields<'_, '_>) -> String {
    if fields.text("language").is_some_and(|language| language != "python") {
        fields.fault("language", "must be python");
    }
    let source = fields.required_text("code").unwrap_or_default();
    if source.len() > WORKFLOW_CODE_BYTES.value_usize() {
        fields.fault("code", format!("must be at most {} bytes", WORKFLOW_CODE_BYTES.value));
    }
    source.to_owned()
}

fn http(fields: &mut Fields<'_, '_>) -> HttpStep {
    let word = fields.text("method").unwrap_or("GET").to_ascii_uppercase();
    let method = METHODS.into_iter().find(|method| *method == word);
    if method.is_none() {
        fields.fault("method", format!("must be one of {}", METHODS.join(", ")));
    }
    let method = method.unwrap_or("GET");
    fields.required_text("url");
    let url = fields.template("url").unwrap_or_else(|| Template::Value(Value::Null));
    if let Template::Value(Value::String(url)) = &url
        && !url.starts_with("https://")
        && !url.starts_with("http://")
    {
        fields.fault("url", "must begin with https://");
    }
    let headers = object(fields, "headers");
    check_headers(fields, &headers);
    let query = object(fields, "query");
    let body = fields.template("body");
    if body.is_some() && !WITH_BODY.contains(&method) {
        fields.fault("body", format!("does not go with {method}"));
    }
    let longest = WORKFLOW_HTTP_SECONDS.value;
    let timeout = fields.whole("timeout_seconds", 1..=longest).unwrap_or(HTTP_SECONDS);
    HttpStep { method, url, headers, query, body, timeout: Duration::from_secs(timeout) }
}

fn check_headers(fields: &mut Fields<'_, '_>, headers: &Template) {
    let Template::Object(headers) = headers else { return };
    for (name, _) in headers {
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => fields.fault(&format!("headers.{name}"), "is not the name of a header field"),
            Ok(field) if !FetchRequest::may_set(&field) => {
                fields.fault(&format!("headers.{name}"), "is set by the client itself");
            }
            Ok(_) => {}
        }
    }
}

/// An object of templates; none is an empty one.
fn object(fields: &mut Fields<'_, '_>, name: &'static str) -> Template {
    match fields.template(name) {
        None => Template::Object(Vec::new()),
        Some(Template::Object(entries)) if entries.len() <= WORKFLOW_FIELDS.value_usize() => {
            Template::Object(entries)
        }
        Some(_) => {
            fields.fault(
                name,
                format!("must be an object of at most {} fields", WORKFLOW_FIELDS.value),
            );
            Template::Object(Vec::new())
        }
    }
}

fn wait(fields: &mut Fields<'_, '_>) -> Kind {
    let duration = fields.template("duration").unwrap_or_else(|| Template::Value(json!(1)));
    let fits = match &duration {
        Template::Expression(_) => true,
        Template::Value(value) => value.as_f64().is_some_and(|number| number >= 0.0),
        _ => false,
    };
    if !fits {
        fields.fault("duration", "must be a number from 0, or one {{ expression }}");
    }
    let unit = match fields.text("unit").unwrap_or("seconds").to_ascii_lowercase().as_str() {
        "seconds" => WaitUnit::Seconds,
        "minutes" => WaitUnit::Minutes,
        "hours" => WaitUnit::Hours,
        "days" => WaitUnit::Days,
        _ => {
            fields.fault("unit", "must be seconds, minutes, hours or days");
            WaitUnit::Seconds
        }
    };
    Kind::Wait { duration, unit }
}

/// Fields as an object of values, or as a list that gives each a type.
fn output(fields: &mut Fields<'_, '_>) -> Vec<OutputField> {
    match fields.value("fields") {
        None => Vec::new(),
        Some(Value::Object(object)) => plain_output(fields, object),
        Some(Value::Array(_)) => typed_output(fields),
        Some(_) => {
            fields.fault("fields", "must be an object, or a list of name, type and value");
            Vec::new()
        }
    }
}

fn plain_output(fields: &mut Fields<'_, '_>, object: &Map<String, Value>) -> Vec<OutputField> {
    if object.len() > WORKFLOW_FIELDS.value_usize() {
        fields.fault("fields", format!("must be at most {}", WORKFLOW_FIELDS.value));
    }
    let mut found = Vec::new();
    for (name, value) in object {
        if let Some(value) = fields.parse(&format!("fields.{name}"), value) {
            found.push(OutputField { name: name.clone(), kind: None, value });
        }
    }
    found
}

fn typed_output(fields: &mut Fields<'_, '_>) -> Vec<OutputField> {
    let mut found: Vec<OutputField> = Vec::new();
    for (index, item) in fields.list("fields", WORKFLOW_FIELDS).iter().enumerate() {
        let place = format!("fields[{index}]");
        let Some(object) = item.as_object() else {
            fields.fault(&place, "must be an object with name, type and value");
            continue;
        };
        let mut item = fields.within(object, &place);
        let name = item.required_text("name").unwrap_or_default().to_owned();
        if found.iter().any(|other| other.name == name) {
            item.fault("name", "is that of another field");
        }
        let kind = field_type(&mut item);
        let value = item.template("value").unwrap_or(Template::Value(Value::Null));
        if let (Some(kind), Template::Value(value)) = (kind, &value)
            && !kind.holds(value)
        {
            item.fault("value", format!("is not of the type {}", kind.as_str()));
        }
        item.finish();
        found.push(OutputField { name, kind, value });
    }
    found
}
