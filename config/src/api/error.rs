//! The one error type of the API: every failure a client can see, and nothing of what is inside.
//!
//! Each is JSON `{"detail": …}`: a sentence, or for a body or query that does not fit its schema the
//! list of violations. Text from below (SQL, paths, panics) stays in the log, under the request id
//! that the reply carries in `X-Request-Id`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::model::Invalid;
use crate::store::{StoreError, Unavailable};

/// Seconds a client should wait after a 503.
const RETRY_AFTER_SECONDS: u32 = 1;

/// An error whose detail is a sentence.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What went wrong, for people.
    #[schema(example = "Trunk not found")]
    pub(crate) detail: String,
}

/// A body or query that does not fit its schema, or a request that fails a rule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidationErrorBody {
    pub(crate) detail: ValidationDetail,
}

/// Every violation found, or one sentence.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ValidationDetail {
    /// What does not fit, each with its place.
    Violations(Vec<Violation>),
    /// The rule that was broken.
    Sentence(String),
}

/// One part of a request that does not fit.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Violation {
    /// Where: `body`, `query` or `path`, then keys and indices.
    #[schema(value_type = Vec<Value>, example = json!(["body", "outbound_config", "address"]))]
    pub(crate) loc: Vec<Value>,
    /// What would fit.
    pub(crate) msg: String,
    /// A stable word for the kind of violation.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
}

impl Violation {
    /// A violation at `loc`.
    pub(crate) fn new(loc: &[Value], kind: &'static str, msg: impl Into<String>) -> Self {
        Self { loc: loc.to_vec(), msg: msg.into(), kind }
    }

    /// A violation of the query parameter `name`.
    pub(crate) fn query(name: &str, kind: &'static str, msg: impl Into<String>) -> Self {
        Self::new(&[json!("query"), json!(name)], kind, msg)
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// 400: understood, but a rule of the product forbids it.
    Refused(String),
    /// 401: no credential that opens anything.
    Unauthenticated(&'static str),
    /// 403: a good credential without any of the scopes that open this route.
    Forbidden(String),
    /// 404: no such thing, or not this organisation's.
    NotFound(String),
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 409: the state of the resource forbids it.
    Conflict(String),
    /// 413: a body beyond the limit, in bytes.
    TooLarge(usize),
    /// 422: does not fit the schema.
    Violations(Vec<Violation>),
    /// 422: fits the schema and breaks a rule between its parts.
    Unprocessable(String),
    /// 502: somebody else's service, which this needs, refused or failed.
    Upstream(String),
    /// 503: the store cannot answer now, and why in one word.
    Unavailable(Unavailable),
    /// 503: there is no room for it at this moment.
    Busy(&'static str),
    /// 500: our fault; the text goes to the log only.
    Bug(String),
}

impl ApiError {
    /// 404 with the wording of the contract: "Trunk not found".
    pub(crate) fn not_found(noun: &str) -> Self {
        Self::NotFound(format!("{noun} not found"))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Violations(_) | Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Unavailable(_) | Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Bug(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::Refused(text)
            | Self::Forbidden(text)
            | Self::NotFound(text)
            | Self::Conflict(text)
            | Self::Upstream(text)
            | Self::Unprocessable(text) => text.clone(),
            Self::Unauthenticated(text) | Self::Busy(text) => (*text).to_owned(),
            Self::MethodNotAllowed => "Method not allowed".to_owned(),
            Self::TooLarge(limit) => format!("Body is larger than {limit} bytes"),
            Self::Violations(_) => "Request does not fit its schema".to_owned(),
            Self::Unavailable(why) => format!("Store unavailable ({why}), try again shortly"),
            Self::Bug(_) => "Internal server error".to_owned(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Bug(why) = &self {
            tracing::error!(why, "api request failed");
        }
        let (status, detail) = (self.status(), self.sentence());
        let retry_later = matches!(self, Self::Unavailable(_) | Self::Busy(_));
        let mut response = match self {
            Self::Violations(all) => {
                let detail = ValidationDetail::Violations(all);
                (status, Json(ValidationErrorBody { detail })).into_response()
            }
            Self::Unprocessable(_) => {
                let detail = ValidationDetail::Sentence(detail);
                (status, Json(ValidationErrorBody { detail })).into_response()
            }
            _ => (status, Json(ErrorBody { detail })).into_response(),
        };
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if retry_later {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::not_found(&what),
            StoreError::Conflict(why) => Self::Conflict(why),
            StoreError::Refused(why) => Self::Refused(why),
            StoreError::Forbidden(why) => Self::Forbidden(why),
            StoreError::Invalid(invalid) => Self::from(invalid),
            StoreError::Unavailable(why) => {
                tracing::warn!(%why, "the store cannot be used");
                Self::Unavailable(why)
            }
            StoreError::Fault => Self::Bug("the store failed".to_owned()),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        let path = std::iter::once("body").chain(invalid.field.split('.')).map(Value::from);
        Self::Violations(vec![Violation {
            loc: path.collect(),
            msg: invalid.message,
            kind: "value_error",
        }])
    }
}
