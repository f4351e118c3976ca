//! What every request goes through: a request id, a place among the concurrent, a time limit, and a
//! line in the log.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tracing::Instrument as _;
use uuid::Uuid;

use super::error::ApiError;
use super::{ApiOptions, executions, inbound_routing};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How many requests may run, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    timeout: Duration,
    /// For a routing workflow as a call would run it.
    routing: Duration,
}

impl Gate {
    pub(crate) fn new(options: &ApiOptions) -> Self {
        let places = Arc::new(Semaphore::new(options.max_concurrent_requests));
        let routing = options.routing_deadline.saturating_add(executions::AROUND);
        Self { places, timeout: options.request_timeout, routing }
    }

    /// How long this request may take: one that waits for a run, as long as a run may.
    fn time_of(&self, request: &Request) -> Duration {
        match (request.method(), request.uri().path()) {
            (&Method::POST, executions::PATH) => self.timeout.max(executions::TIME),
            (&Method::POST, inbound_routing::DRY_RUN) => self.timeout.max(self.routing),
            _ => self.timeout,
        }
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
            return ApiError::Busy("Too many requests at the same time").into_response();
        };
        match tokio::time::timeout(gate.time_of(&request), next.run(request)).await {
            Ok(response) => response,
            Err(_) => {
                tracing::warn!("refused: took too long");
                ApiError::Busy("Request took too long").into_response()
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt as _;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    async fn answer(gate: Gate, router: Router) -> (u16, String) {
        let router = router
            .layer(CatchPanicLayer::custom(answer_panic))
            .layer(from_fn_with_state(gate, enclose));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert!(response.headers().contains_key(REQUEST_ID));
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1_024).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_500_and_nothing_of_its_text() {
        let router = Router::new().route("/", get(async || -> () { panic!("canary") }));
        let (status, body) = answer(Gate::new(&ApiOptions::default()), router).await;
        assert_eq!((status, body.as_str()), (500, r#"{"detail":"Internal server error"}"#));
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_with_503() {
        let router = Router::new().route("/", get(async || std::future::pending::<()>().await));
        let options = ApiOptions { request_timeout: Duration::ZERO, ..ApiOptions::default() };
        let (status, _) = answer(Gate::new(&options), router).await;
        assert_eq!(status, 503);
    }

    #[tokio::test]
    async fn a_request_gives_its_place_back() {
        let options = ApiOptions { max_concurrent_requests: 1, ..ApiOptions::default() };
        let gate = Gate::new(&options);
        for _ in 0..3 {
            let router = Router::new().route("/", get(async || ()));
            assert_eq!(answer(gate.clone(), router).await.0, 200);
        }
    }
}
