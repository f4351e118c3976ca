//! A model behind an endpoint of the OpenAI kind: `POST {base_url}/chat/completions`, streamed.
//!
//! "Compatible" servers differ; few fields are sent and few are read. A server that ignores `stream`
//! is understood too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use futures_util::stream;
use reqwest::Response;
use serde_json::json;
use tokio::time::Sleep;

use super::events::Events;
use super::{Answer, Asking, LanguageModel, ModelError, Prompt};
use crate::fetch::FetchError;
use crate::limits::LLM_ANSWER_BYTES;
use crate::settings::LlmSettings;
use crate::trust;

/// An endpoint of the settings. Clones share everything.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    client: reqwest::Client,
    url: String,
    model: String,
    timeout: Duration,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("model", &self.0.model).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The endpoint that the settings name, if they name one.
    ///
    /// # Errors
    /// When the file of extra issuers or the key cannot be used.
    pub fn new(settings: &LlmSettings) -> io::Result<Option<Self>> {
        let (Some(base_url), Some(model)) = (&settings.base_url, &settings.model) else {
            return Ok(None);
        };
        let mut headers = HeaderMap::new();
        if let Some(key) = &settings.api_key {
            let value = HeaderValue::try_from(format!("Bearer {}", key.expose()));
            let mut value =
                value.map_err(|_| io::Error::other("llm.api_key is no header value"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust::client_tls(settings.extra_roots.as_deref())?)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .default_headers(headers)
            .user_agent(concat!("Trunkline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(io::Error::other)?;
        Ok(Some(Self(Arc::new(Inner {
            client,
            url: format!("{}/chat/completions", base_url.trim_end_matches('/')),
            model: model.clone(),
            timeout: Duration::from_secs(settings.timeout_seconds.into()),
        }))))
    }

    /// The same endpoint with another patience.
    #[cfg(test)]
    pub(super) fn within(&self, timeout: Duration) -> Self {
        Self(Arc::new(Inner { timeout, ..(*self.0).clone() }))
    }
}

impl LanguageModel for Endpoint {
    fn ask(&self, prompt: Prompt) -> Asking {
        let endpoint = Arc::clone(&self.0);
        Box::pin(async move {
            let mut deadline = Box::pin(tokio::time::sleep(endpoint.timeout));
            let response = tokio::select! {
                () = &mut deadline => return Err(ModelError::TimedOut),
                response = endpoint.send(&prompt) => response?,
            };
            let is_stream = response
                .headers()
                .get(header::CONTENT_TYPE)
                .is_none_or(|kind| !kind.as_bytes().starts_with(b"application/json"));
            let reading = Reading {
                response,
                events: Events::default(),
                whole: (!is_stream).then(Vec::new),
                deadline,
                answered: 0,
                failed: false,
            };
            Ok(stream::unfold(reading, Reading::next).boxed() as Answer)
        })
    }
}

impl Inner {
    async fn send(&self, prompt: &Prompt) -> Result<Response, ModelError> {
        let body = json!({
            "model": self.model,
            "stream": true,
            "messages": [
                { "role": "system", "content": prompt.system },
                { "role": "user", "content": prompt.user },
            ],
        });
        let sent = self.client.post(&self.url).json(&body).send().await;
        let response = sent.map_err(|error| lost(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => {
                tracing::warn!(status = status.as_u16(), "the language model refused");
                Err(refused(status))
            }
        }
    }
}

/// An answer being read.
struct Reading {
    response: Response,
    events: Events,
    /// What came of a reply that is no stream.
    whole: Option<Vec<u8>>,
    deadline: Pin<Box<Sleep>>,
    /// Bytes of text so far.
    answered: usize,
    failed: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<String, ModelError>, Self)> {
        if self.failed {
            return None;
        }
        let piece = self.piece().await.transpose()?;
        self.failed = piece.is_err();
        Some((piece, self))
    }

    async fn piece(&mut self) -> Result<Option<String>, ModelError> {
        loop {
            if let Some(piece) = self.events.poll_piece() {
                self.answered += piece.len();
                if self.answered > LLM_ANSWER_BYTES.value_usize() {
                    return Err(ModelError::Broken);
                }
                return Ok(Some(piece));
            }
            if self.events.is_over() {
                return Ok(None);
            }
            let chunk = tokio::select! {
                () = &mut self.deadline => return Err(ModelError::TimedOut),
                chunk = self.response.chunk() => chunk.map_err(|error| lost(&error))?,
            };
            self.take(chunk.as_deref())?;
        }
    }

    /// Takes what arrived, or the end.
    fn take(&mut self, chunk: Option<&[u8]>) -> Result<(), ModelError> {
        match (&mut self.whole, chunk) {
            (None, Some(bytes)) => self.events.push(bytes),
            (None, None) => Err(ModelError::Broken),
            (Some(body), Some(bytes)) => {
                body.extend_from_slice(bytes);
                let fits = body.len() <= 2 * LLM_ANSWER_BYTES.value_usize();
                if fits { Ok(()) } else { Err(ModelError::Broken) }
            }
            (Some(body), None) => self.events.push_whole(body),
        }
    }
}

fn refused(status: StatusCode) -> ModelError {
    match status.as_u16() {
        429 | 503 => ModelError::Busy,
        401 | 403 => ModelError::Unauthorised,
        500..=599 => ModelError::Failed,
        _ => ModelError::Refused,
    }
}

fn lost(error: &reqwest::Error) -> ModelError {
    let why = FetchError::of(error);
    tracing::warn!(%why, "the language model is out of reach");
    match why {
        FetchError::TimedOut => ModelError::TimedOut,
        FetchError::Broken => ModelError::Broken,
        _ => ModelError::Unreachable,
    }
}
