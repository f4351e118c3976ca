//! What is asked and what comes back.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use reqwest::Url;

use super::FetchError;

/// One request to be made.
#[derive(Clone)]
pub struct FetchRequest {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) plain_http: bool,
    pub(super) redirects: u8,
    pub(super) content_types: &'static [&'static str],
    pub(super) timeout: Option<Duration>,
    pub(super) reads_body: bool,
    pub(super) most_bytes: Option<usize>,
}

/// Headers and body stay out of logs: they may be somebody's credentials.
impl std::fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Redirects that a request which only reads may follow.
const MAX_REDIRECTS: u8 = 3;

impl FetchRequest {
    /// A request that reads `url`, following up to three redirects.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// A request that sends `body` to `url`. Redirects are not followed: they are the reply.
    pub fn post(url: impl Into<String>, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, url).body(content_type, body)
    }

    /// A request by any method: GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS. GET and HEAD follow
    /// up to three redirects, the others none.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        let only_reads = method == Method::GET || method == Method::HEAD;
        Self {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            plain_http: false,
            redirects: if only_reads { MAX_REDIRECTS } else { 0 },
            content_types: &[],
            timeout: None,
            reads_body: true,
            most_bytes: None,
        }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        self.headers.insert(header::CONTENT_TYPE, content_type);
        self.body = body.into();
        self
    }

    /// With this header; it is never taken along to another origin. See [`FetchRequest::may_set`].
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Whether a caller may set this header: not what frames the message, belongs to the connection,
    /// or says who we are.
    #[must_use]
    pub fn may_set(name: &HeaderName) -> bool {
        const OURS: [HeaderName; 9] = [
            header::HOST,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
            header::TE,
            header::TRAILER,
            header::EXPECT,
            header::USER_AGENT,
        ];
        let text = name.as_str();
        !(OURS.contains(name)
            || name == header::ACCEPT_ENCODING
            || text == "keep-alive"
            || text.starts_with("proxy-"))
    }

    /// Also over `http://`: for reading what is public anyway.
    #[must_use]
    pub const fn or_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Follows up to `redirects` redirects, at most three. Another origin gets neither headers nor,
    /// unless the redirect keeps the method (307, 308), the body.
    #[must_use]
    pub const fn following(mut self, redirects: u8) -> Self {
        self.redirects = if redirects > MAX_REDIRECTS { MAX_REDIRECTS } else { redirects };
        self
    }

    /// Reads only bodies of these types (`text/html`), when the reply is a success.
    #[must_use]
    pub const fn only(mut self, content_types: &'static [&'static str]) -> Self {
        self.content_types = content_types;
        self
    }

    /// In all within `timeout`, where that is less than the settings say.
    #[must_use]
    pub const fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Reads a body of at most `bytes`, where that is less than the settings say; a longer one is
    /// [`FetchError::TooLarge`].
    #[must_use]
    pub const fn at_most(mut self, bytes: usize) -> Self {
        self.most_bytes = Some(bytes);
        self
    }

    /// Reads no body: the status is all that is wanted.
    #[must_use]
    pub const fn status_only(mut self) -> Self {
        self.reads_body = false;
        self
    }

    pub(super) fn check(&self) -> Result<(), FetchError> {
        const SERVED: [Method; 7] = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ];
        if !SERVED.contains(&self.method) {
            return Err(FetchError::Method);
        }
        if !self.headers.keys().all(Self::may_set) {
            return Err(FetchError::Header);
        }
        Ok(())
    }

    /// Becomes what a redirect asks for (RFC 9110 §15.4).
    pub(super) fn redirected(&mut self, status: StatusCode, from: &Url, to: &Url) {
        let keeps = matches!(status.as_u16(), 307 | 308);
        if !keeps && self.method != Method::GET && self.method != Method::HEAD {
            self.method = Method::GET;
            self.body = Bytes::new();
            self.headers.remove(header::CONTENT_TYPE);
        }
        if from.origin() != to.origin() {
            let kept = [header::ACCEPT, header::CONTENT_TYPE];
            let kept = kept.map(|name| self.headers.get(&name).cloned().map(|value| (name, value)));
            self.headers = kept.into_iter().flatten().collect();
        }
    }
}

/// A reply.
#[derive(Clone, Debug)]
pub struct FetchReply {
    /// Its status, whatever it is.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole; empty when only the status was wanted.
    pub body: Bytes,
    /// Where it came from in the end.
    pub url: String,
}

impl FetchReply {
    /// The type of the body in lower case, without parameters: `text/html`.
    #[must_use]
    pub fn content_type(&self) -> String {
        content_type(&self.headers)
    }

    /// The body as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

pub(super) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}
