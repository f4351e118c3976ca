//! `/metrics`, `/health`, `/health/live` and `/health/ready` on a listener of their own.
//!
//! Live: the process runs. Ready: it takes new calls. Draining is alive but not ready, and says so.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

/// How far the program is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not everything listens yet.
    Starting,
    /// Takes calls.
    Ready,
    /// Takes no new calls; live ones finish.
    Draining,
}

/// What health answers from. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    phase: Arc<AtomicU8>,
    store_down: Arc<AtomicBool>,
}

impl Health {
    /// Moves to a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The phase of the moment.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Ready as u8 => Phase::Ready,
            phase if phase == Phase::Draining as u8 => Phase::Draining,
            _ => Phase::Starting,
        }
    }

    /// Notes whether the store can be written; calls go on either way.
    pub fn store_is(&self, up: bool) {
        self.store_down.store(!up, Ordering::Release);
    }

    fn report(&self) -> (StatusCode, String) {
        let phase = self.phase();
        let store = !self.store_down.load(Ordering::Acquire);
        let (status, word) = match (phase, store) {
            (Phase::Ready, true) => (StatusCode::OK, "ready"),
            (Phase::Ready, false) => (StatusCode::OK, "degraded"),
            (Phase::Draining, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            (Phase::Starting, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        };
        let store = if store { "up" } else { "down" };
        let calls = if phase == Phase::Ready { "accepted" } else { "refused" };
        (status, format!("{{\"status\":\"{word}\",\"store\":\"{store}\",\"calls\":\"{calls}\"}}\n"))
    }
}

/// Text that is made only when somebody scrapes: media workers, queues.
pub type Extra = Arc<dyn Fn(&mut String) + Send + Sync>;

#[derive(Clone)]
struct Observed {
    health: Health,
    registry: Arc<Mutex<Registry>>,
    extra: Extra,
}

/// The routes of the observation listener.
pub fn router(health: Health, registry: Registry, extra: Extra) -> Router {
    let observed = Observed { health, registry: Arc::new(Mutex::new(registry)), extra };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(ready))
        .route("/health/ready", get(ready))
        .route("/health/live", get(live))
        .with_state(observed)
}

async fn metrics(State(observed): State<Observed>) -> Response {
    let mut text = String::new();
    let registry = observed.registry.lock().unwrap_or_else(PoisonError::into_inner);
    if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    drop(registry);
    let end = text.rfind("# EOF").unwrap_or(text.len());
    text.truncate(end);
    (observed.extra)(&mut text);
    let _ = writeln!(text, "# EOF");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn ready(State(observed): State<Observed>) -> Response {
    let (status, body) = observed.health.report();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn live() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], "{\"status\":\"live\"}\n").into_response()
}
