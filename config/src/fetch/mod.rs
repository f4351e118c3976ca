//! The HTTP client for addresses that customers write: sites to read, webhooks, HTTP steps.
//!
//! ```text
//!  URL ─► canonical form ─► scheme, credentials, port, literal address ─► send ─► reply
//!   ▲                                                                      │ name: own resolver,
//!   └──────────────── redirect (at most three, each judged anew) ◄─────────┘ every address judged
//! ```
//!
//! Invariants: nothing is connected to whose address was not judged by [`guard`], in the
//! same look-up that the connection uses; nothing of ours goes along (no proxy of the environment, no
//! cookies, no credentials, no referrer); and every fetch is over within its time and its bytes. Bodies
//! are not decompressed, because nobody asks for compressed ones: a small reply cannot become a large
//! one.

mod error;
mod exchange;
mod lookup;
mod place;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{self, HeaderMap, HeaderValue};
use reqwest::{Response, Url};

pub use error::FetchError;
pub use exchange::{FetchReply, FetchRequest};

use crate::guard;
use crate::settings::FetchSettings;
use crate::trust;
use exchange::content_type;
use lookup::Lookup;
use place::{Allowed, Judged, Rules};

/// How long an idle connection is kept for the next request to the same origin.
const IDLE: Duration = Duration::from_secs(15);

/// Idle connections kept for one origin.
const IDLE_CONNECTIONS: usize = 2;

/// Who we say we are.
const USER_AGENT: &str = concat!("Trunkline-Fetch/", env!("CARGO_PKG_VERSION"));

/// The client. Clones share everything.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    rules: Rules,
    plain_http: bool,
    timeout: Duration,
    max_body_bytes: usize,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// The client that the settings ask for.
    ///
    /// # Errors
    /// When the file of extra issuers cannot be used.
    pub fn new(settings: &FetchSettings) -> io::Result<Self> {
        let allowed: Allowed = if settings.allow_private_addresses {
            Arc::new(guard::is_of_a_host)
        } else {
            Arc::new(guard::is_public)
        };
        Self::with(settings, lookup::system(), allowed)
    }

    fn with(settings: &FetchSettings, lookup: Lookup, allowed: Allowed) -> io::Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust::client_tls(settings.extra_roots.as_deref())?)
            .dns_resolver(Arc::new(Judged { lookup, allowed: Arc::clone(&allowed) }))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .default_headers(headers)
            .user_agent(USER_AGENT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build()
            .map_err(io::Error::other)?;
        Ok(Self(Arc::new(Inner {
            client,
            rules: Rules { allowed, any_port: settings.allow_any_port },
            plain_http: settings.allow_plain_http,
            timeout: Duration::from_secs(settings.timeout_seconds.into()),
            max_body_bytes: settings.max_body_bytes,
        })))
    }

    /// Checks what can be said of a URL without asking anyone: whether a fetch of it would be tried.
    /// For URLs that are stored now and fetched later.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_url(&self, url: &str) -> Result<(), FetchError> {
        self.0.rules.judge(url, self.0.plain_http).map(drop)
    }

    /// As [`Fetcher::check_url`], for what may be fetched over `http://` too.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_site(&self, url: &str) -> Result<(), FetchError> {
        self.0.rules.judge(url, true).map(drop)
    }

    /// Makes a request and reads the reply whole. A reply with an error status is a reply.
    ///
    /// # Errors
    /// Why there is no reply, or none that is read.
    pub async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, FetchError> {
        let limit = self.0.timeout;
        let patience = request.timeout.map_or(limit, |wanted| wanted.min(limit));
        let whole = tokio::time::timeout(patience, self.0.follow(request));
        whole.await.unwrap_or(Err(FetchError::TimedOut))
    }
}

impl Inner {
    async fn follow(&self, mut request: FetchRequest) -> Result<FetchReply, FetchError> {
        request.check()?;
        let plain_http = request.plain_http || self.plain_http;
        let mut url = self.rules.judge(&request.url, plain_http)?;
        let (follows, mut left) = (request.redirects > 0, request.redirects);
        loop {
            let response = self.send(&request, &url).await?;
            let Some(next) = next_place(&response, &url).filter(|_| follows) else {
                return self.read(&request, url, response).await;
            };
            left = left.checked_sub(1).ok_or(FetchError::TooManyRedirects)?;
            let next = self.rules.judge(&next?, plain_http)?;
            request.redirected(response.status(), &url, &next);
            url = next;
        }
    }

    async fn send(&self, request: &FetchRequest, url: &Url) -> Result<Response, FetchError> {
        let mut outgoing = self
            .client
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone());
        if !request.body.is_empty() {
            outgoing = outgoing.body(request.body.clone());
        }
        outgoing.send().await.map_err(|error| FetchError::of(&error))
    }

    async fn read(
        &self,
        request: &FetchRequest,
        url: Url,
        mut response: Response,
    ) -> Result<FetchReply, FetchError> {
        let status = response.status();
        let mut body = Vec::new();
        if request.reads_body {
            check_kind(request, &response)?;
            let limit = self.max_body_bytes;
            let limit = request.most_bytes.map_or(limit, |wanted| wanted.min(limit));
            let declared = response.content_length().unwrap_or(0);
            let declared = usize::try_from(declared).map_err(|_| FetchError::TooLarge)?;
            if declared > limit {
                return Err(FetchError::TooLarge);
            }
            body.reserve_exact(declared);
            while let Some(chunk) = response.chunk().await.map_err(|e| FetchError::of(&e))? {
                if body.len() + chunk.len() > limit {
                    return Err(FetchError::TooLarge);
                }
                body.extend_from_slice(&chunk);
            }
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(FetchReply { status, headers, body: Bytes::from(body), url: url.into() })
    }
}

/// Where a redirect leads; the text may be relative (RFC 9110 §10.2.2).
fn next_place(response: &Response, url: &Url) -> Option<Result<String, FetchError>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?;
    let joined = match location.to_str() {
        Ok(text) if text.contains('\\') => None,
        Ok(text) if Url::parse(text).is_ok() => Some(text.to_owned()), // judged as it was written
        Ok(text) => url.join(text).ok().map(String::from),
        Err(_) => None,
    };
    Some(joined.ok_or(FetchError::BadUrl))
}

fn check_kind(request: &FetchRequest, response: &Response) -> Result<(), FetchError> {
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(FetchError::Encoded);
    }
    let wanted = request.content_types;
    let unwanted = !wanted.is_empty() && !wanted.contains(&&*content_type(response.headers()));
    if unwanted && response.status().is_success() {
        return Err(FetchError::ContentType);
    }
    Ok(())
}
