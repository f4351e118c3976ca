//! How a request's path, query and body become typed values, or 404, 413 and 422.

use std::str::FromStr;
use std::sync::LazyLock;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{Uri, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, Violation};
use super::schema::Schema;
use super::{Api, json};
use crate::clock::Timestamp;
use crate::ids::{
    AgentId, ConversationId, DeliveryId, ExecutionId, JobId, KeyId, OrganisationId, TokenId,
    TrunkId, UserId, WebhookId, WorkflowId,
};
use crate::limits::API_BODY_ITEMS;

/// A JSON body that fits the schema of `T` in the served document, of so many values at most.
pub(crate) struct Body<T, const VALUES: u64 = { API_BODY_ITEMS.value }>(pub(crate) T);

impl<T: DeserializeOwned + ToSchema, const VALUES: u64> FromRequest<Api> for Body<T, VALUES> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let bytes = read(request, api).await?;
        typed(&bytes, VALUES).map(Self)
    }
}

/// A JSON body that may be absent.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned + ToSchema + Default> FromRequest<Api> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let bytes = read(request, api).await?;
        match bytes.trim_ascii() {
            b"" | b"null" => Ok(Self(T::default())),
            present => typed(present, API_BODY_ITEMS.value).map(Self),
        }
    }
}

/// Reads what arrives, never more than the limit, whatever Content-Length promises.
async fn read(request: Request, api: &Api) -> Result<axum::body::Bytes, ApiError> {
    let limit = api.options.max_body_bytes;
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(ApiError::TooLarge(limit));
    }
    to_bytes(request.into_body(), limit).await.map_err(|_| ApiError::TooLarge(limit))
}

fn typed<T: DeserializeOwned + ToSchema>(bytes: &[u8], values: u64) -> Result<T, ApiError> {
    let body = json!("body");
    let value = json::parse(bytes, values).map_err(|why| {
        ApiError::Violations(vec![Violation::new(std::slice::from_ref(&body), "json_invalid", why)])
    })?;
    let pointer = format!("/components/schemas/{}", T::name());
    let document = &*super::document::OPENAPI;
    let Some(root) = document.pointer(&pointer) else {
        return Err(ApiError::Bug(format!("the document has no schema {}", T::name())));
    };
    let found =
        Schema { document, root, enums: false }.violations(&value, std::slice::from_ref(&body));
    settle(value, "body", found)
}

/// Gives a value its type, or says all that is wrong with it.
fn settle<T: DeserializeOwned>(
    value: Value,
    place: &str,
    found: Vec<Violation>,
) -> Result<T, ApiError> {
    if !found.is_empty() {
        return Err(ApiError::Violations(found));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut loc = vec![json!(place)];
        loc.extend(error.path().iter().filter_map(|segment| match segment {
            serde_path_to_error::Segment::Seq { index } => Some(json!(index)),
            serde_path_to_error::Segment::Map { key } => Some(json!(key)),
            _ => None,
        }));
        let why = error.into_inner().to_string();
        ApiError::Violations(vec![Violation::new(&loc, "value_error", why)])
    })
}

/// The query, checked against the parameters that `T` documents; unknown names are refused, because
/// a mistyped filter that is ignored shows more than was asked for.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + IntoParams> FromRequestParts<Api> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        parse_query(&parts.uri).map(Self)
    }
}

/// Refuses a query that is not UTF-8, which readers would mend each in their own way; and any at all where
/// none is read.
pub(crate) fn check_query(uri: &Uri, takes_query: bool) -> Result<(), ApiError> {
    let Some(query) = uri.query() else { return Ok(()) };
    if String::from_utf8(unescaped(query)).is_err() {
        let why = "Query is not UTF-8 once its percent signs are resolved";
        let violation = Violation::new(&[json!("query")], "value_error", why);
        return Err(ApiError::Violations(vec![violation]));
    }
    if takes_query {
        return Ok(());
    }
    let unknown: Vec<Violation> = pairs(uri)?
        .iter()
        .map(|(name, _)| Violation::query(name, "extra_forbidden", UNKNOWN))
        .collect();
    if unknown.is_empty() { Ok(()) } else { Err(ApiError::Violations(unknown)) }
}

/// The bytes that a query stands for (RFC 3986 §2.1); a percent sign that begins nothing is itself.
fn unescaped(query: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut left, mut all) = (query.as_bytes(), Vec::with_capacity(query.len()));
    while let [byte, rest @ ..] = left {
        let escaped = match left {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        all.push(escaped.map_or(*byte, |(high, low)| high << 4 | low));
        left = if escaped.is_some() { rest.get(2..).unwrap_or_default() } else { rest };
    }
    all
}

const UNKNOWN: &str = "Unknown query parameter";

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    let read = axum::extract::Query::try_from_uri(uri);
    read.map(|read| read.0).map_err(|_| ApiError::Unprocessable("Query cannot be read".to_owned()))
}

fn parse_query<T: DeserializeOwned + IntoParams>(uri: &Uri) -> Result<T, ApiError> {
    let known = T::into_params(|| Some(ParameterIn::Query));
    let (mut found, mut object) = (Vec::new(), Map::new());
    for (name, text) in pairs(uri)? {
        let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
            found.push(Violation::query(&name, "extra_forbidden", UNKNOWN));
            continue;
        };
        let schema = schema_of(parameter);
        let document = &*super::document::OPENAPI;
        let check = Schema { document, root: &schema, enums: false };
        let value = from_text(check, text);
        let place = [json!("query"), json!(name)];
        found.extend(check.violations(&value, &place));
        if object.insert(name.clone(), value).is_some() {
            found.push(Violation::query(&name, "value_error", "Query parameter is given twice"));
        }
    }
    settle(Value::Object(object), "query", found)
}

fn schema_of(parameter: &Parameter) -> Value {
    parameter
        .schema
        .as_ref()
        .and_then(|schema| serde_json::to_value(schema).ok())
        .unwrap_or_default()
}

/// Gives the text of a query parameter the JSON type its schema asks for.
fn from_text(schema: Schema<'_>, text: String) -> Value {
    let schema = schema.resolve(schema.root);
    let is = |name: &str| match schema.get("type") {
        Some(Value::String(only)) => only == name,
        Some(Value::Array(names)) => names.iter().any(|one| one == name),
        _ => false,
    };
    let number = is("integer").then(|| text.parse::<i64>().ok()).flatten();
    let truth = is("boolean").then(|| text.to_ascii_lowercase().parse::<bool>().ok()).flatten();
    match (number, truth) {
        (Some(number), _) => json!(number),
        (None, Some(truth)) => json!(truth),
        // An offset or a number whose plus was not escaped arrives with a space instead.
        (None, None) if schema.get("format").is_some_and(|format| format == "date-time") => {
            json!(in_utc(text.replace(' ', "+")))
        }
        (None, None) => json!(text),
    }
}

/// A moment that says no offset is one in UTC, and a date alone is its first moment.
fn in_utc(text: String) -> String {
    let readings = ["", "Z", "T00:00:00Z"].map(|end| format!("{text}{end}"));
    readings.into_iter().find(|one| one.parse::<Timestamp>().is_ok()).unwrap_or(text)
}

/// Something a path names by id.
pub(crate) trait Named: FromStr {
    /// What it is called in "… not found".
    const NOUN: &'static str;
    /// The name of the path parameter.
    const PARAMETER: &'static str;
}

macro_rules! named {
    ($($id:ty = $parameter:literal, $noun:literal;)+) => {$(
        impl Named for $id {
            const NOUN: &'static str = $noun;
            const PARAMETER: &'static str = $parameter;
        }
    )+};
}

named! {
    TrunkId = "id", "Trunk";
    AgentId = "id", "Agent";
    ConversationId = "conversation_id", "Conversation";
    KeyId = "key_id", "API key";
    OrganisationId = "id", "Organization";
    TokenId = "token_id", "Personal access token";
    UserId = "user_id", "User";
    WebhookId = "id", "Webhook";
    DeliveryId = "delivery_id", "Delivery";
    JobId = "workflow_id", "Job";
    WorkflowId = "workflow_id", "Workflow";
    ExecutionId = "execution_id", "Execution";
}

/// The id in the path. What is no id names nothing, so it is 404 like any other unknown id.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: Named> FromRequestParts<Api> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let text = path_parameter(parts, api, T::PARAMETER).await;
        let id = text.and_then(|text| text.parse().ok());
        id.map(Self).ok_or_else(|| ApiError::not_found(T::NOUN))
    }
}

/// A text in the path, by the name of its parameter.
pub(crate) async fn path_parameter(parts: &mut Parts, api: &Api, name: &str) -> Option<String> {
    let all = RawPathParams::from_request_parts(parts, api).await.ok()?;
    all.iter().find(|(key, _)| *key == name).map(|(_, text)| text.to_owned())
}

/// Builds the document before the first request needs it.
pub(crate) fn warm_up() {
    LazyLock::force(&super::document::OPENAPI);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_without_an_offset_is_in_utc() {
        let read = |text: &str| in_utc(text.to_owned());
        assert_eq!(read("2026-11-22T10:00:00"), "2026-11-22T10:00:00Z");
        assert_eq!(read("2026-11-22T10:00:00.5"), "2026-11-22T10:00:00.5Z");
        assert_eq!(read("2026-11-22"), "2026-11-22T00:00:00Z");
        assert_eq!(read("2026-11-22T10:00:00+02:00"), "2026-11-22T10:00:00+02:00");
        for other in ["", "2026", "2026-13-01", "2026-11-22T25:00:00", "tomorrow", "2026-11-22Z"] {
            assert_eq!(read(other), other);
        }
    }
}
