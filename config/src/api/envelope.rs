//! What every request goes through: a request id, a place among the concurrent, a time limit, and a
//! line in the log.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tracing::Instrument as _;
use uuid::Uuid;

use super::ApiOptions;
use super::error::ApiError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How many requests may run, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl Gate {
    pub(crate) fn new(options: ApiOptions) -> Self {
        let places = Arc::new(Semaphore::new(options.max_concurrent_requests));
        Self { places, timeout: options.request_timeout }
    }
}

/// Runs one request. The id is ours: what a client sends as X-Request-Id could forge log lines.
pub(crate) async fn enclose(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().simple().to_string();
    let method = request.method().clone();
    // The path is not logged: it can hold a phone number, and a stranger writes it.
    let span = tracing::info_span!("api", request_id = %id, %method);
    let run = async {
        let Ok(_place) = gate.places.try_acquire() else {
            tracing::warn!("refused: too many requests at the same time");
            return ApiError::Unavailable.into_response();
        };
        match tokio::time::timeout(gate.timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                tracing::warn!("refused: took too long");
                ApiError::Unavailable.into_response()
            }
        }
    };
    let mut response = run.instrument(span.clone()).await;
    let status = response.status();
    span.in_scope(|| {
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), "answered");
        } else {
            tracing::debug!(status = status.as_u16(), "answered");
        }
    });
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Answers 500 for a panic; what it said goes to the log only.
pub(crate) fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let why = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    ApiError::Bug(why.to_owned()).into_response()
}
