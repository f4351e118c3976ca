//! One request to Twilio and what came of it.

use std::time::Duration;

use axum::http::{HeaderValue, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde_json::Value;

use crate::fetch::{FetchError, FetchRequest, Fetcher};
use crate::secret::Secret;
use crate::settings::FetchSettings;

/// How long one whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(10);

/// Most pages that are looked through: a hundred thousand items.
const MOST_PAGES: usize = 100;

/// What went wrong with a request. Its text names no credential and no URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It was not sent: nothing was done.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have been done; no answer that can be read has come.
    #[error("no answer: {0}")]
    Lost(String),
    /// It was answered with an error.
    #[error("answered {status}, error {code:?}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The `code` of the answer's body.
        code: Option<u64>,
    },
}

/// The account's credentials and a client. No `Debug`: it holds a secret.
pub(super) struct Wire {
    fetcher: Fetcher,
    /// The value of Authorization (RFC 7617).
    credentials: Secret<String>,
    /// The servers that may be asked, as they stand in front of every URL.
    servers: [String; 2],
}

impl Wire {
    pub(super) fn new(
        user: &str,
        token: &Secret<String>,
        servers: [String; 2],
    ) -> Result<Self, String> {
        // The servers are the operator's to name, and nothing else is ever asked.
        let settings = FetchSettings {
            allow_plain_http: true,
            allow_private_addresses: true,
            allow_any_port: true,
            ..FetchSettings::default()
        };
        let fetcher =
            Fetcher::new(&settings).map_err(|error| format!("managed.twilio: {error}"))?;
        let pair = Secret::new(format!("{user}:{}", token.expose()));
        let credentials = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
        Ok(Self { fetcher, credentials, servers })
    }

    pub(super) async fn get(&self, url: &str) -> Result<Value, Trouble> {
        self.send(FetchRequest::get(url).following(0), url).await
    }

    pub(super) async fn post(&self, url: &str, form: &str) -> Result<Value, Trouble> {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        self.send(FetchRequest::post(url, kind, form.to_owned()), url).await
    }

    /// Deletes; what is not there is deleted already.
    pub(super) async fn delete(&self, url: &str) -> Result<(), Trouble> {
        match self.send(FetchRequest::new(Method::DELETE, url), url).await {
            Ok(_) | Err(Trouble::Status { status: 404, .. }) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// The first item that fits in the pages of a list.
    pub(super) async fn find(
        &self,
        first: &str,
        list: &str,
        fits: impl Fn(&Value) -> bool + Send,
    ) -> Result<Option<Value>, Trouble> {
        let mut url = first.to_owned();
        for _ in 0..MOST_PAGES {
            let page = self.get(&url).await?;
            let items = page.get(list).and_then(Value::as_array);
            if let Some(found) = items.into_iter().flatten().find(|item| fits(item)) {
                return Ok(Some(found.clone()));
            }
            match self.next_page(&page) {
                Some(next) => url = next,
                None => return Ok(None),
            }
        }
        Err(Trouble::Lost("more pages than are looked through".to_owned()))
    }

    /// The two APIs name the next page differently: by path, and whole.
    fn next_page(&self, page: &Value) -> Option<String> {
        let [api, _] = &self.servers;
        let by_path = page.get("next_page_uri").and_then(Value::as_str);
        let by_path =
            by_path.filter(|path| path.starts_with('/')).map(|path| format!("{api}{path}"));
        let whole = page.pointer("/meta/next_page_url").and_then(Value::as_str);
        by_path.or_else(|| whole.map(str::to_owned))
    }

    async fn send(&self, request: FetchRequest, url: &str) -> Result<Value, Trouble> {
        // The credentials go nowhere else, whatever an answer says where the next page is.
        let is_ours = self.servers.iter().any(|server| {
            url.strip_prefix(server.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        if !is_ours {
            return Err(Trouble::NotSent("a URL of another server".to_owned()));
        }
        let mut credentials = HeaderValue::from_str(self.credentials.expose())
            .map_err(|_| Trouble::NotSent("credentials that no header can hold".to_owned()))?;
        credentials.set_sensitive(true);
        let request = request.header(header::AUTHORIZATION, credentials).within(EXCHANGE);
        let reply = self.fetcher.fetch(request).await.map_err(trouble)?;
        let body = match reply.body.as_ref() {
            [] => Some(Value::Null),
            bytes => serde_json::from_slice::<Value>(bytes).ok(),
        };
        if !reply.status.is_success() {
            let code = body.and_then(|body| body.get("code")?.as_u64());
            return Err(Trouble::Status { status: reply.status.as_u16(), code });
        }
        body.ok_or_else(|| Trouble::Lost("the answer is no JSON".to_owned()))
    }
}

/// Whether the request has left us.
fn trouble(error: FetchError) -> Trouble {
    match error {
        FetchError::TimedOut
        | FetchError::Broken
        | FetchError::TooManyRedirects
        | FetchError::TooLarge
        | FetchError::ContentType
        | FetchError::Encoded => Trouble::Lost(error.to_string()),
        FetchError::BadUrl
        | FetchError::Scheme
        | FetchError::Credentials
        | FetchError::Port
        | FetchError::NotPublic
        | FetchError::Method
        | FetchError::Header
        | FetchError::Unreachable
        | FetchError::Untrusted => Trouble::NotSent(error.to_string()),
    }
}

/// Fields as `application/x-www-form-urlencoded`, which is also how a query is written.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("http://form/") else { return String::new() };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        let servers = ["https://api.example".to_owned(), "https://trunks.example".to_owned()];
        Wire::new("AC1", &Secret::from("canary"), servers).unwrap()
    }

    #[test]
    fn fields_are_escaped() {
        assert_eq!(form(&[("PhoneNumber", "+1 5"), ("a&b", "=")]), "PhoneNumber=%2B1+5&a%26b=%3D");
    }

    #[test]
    fn the_next_page_is_named_in_two_ways() {
        let next = |text: &str| wire().next_page(&serde_json::from_str(text).unwrap());
        let by_path = r#"{"next_page_uri": "/2010-04-01/x.json?Page=1"}"#;
        assert_eq!(next(by_path).unwrap(), "https://api.example/2010-04-01/x.json?Page=1");
        let whole = r#"{"meta": {"next_page_url": "https://trunks.example/v1/Trunks?Page=1"}}"#;
        assert_eq!(next(whole).unwrap(), "https://trunks.example/v1/Trunks?Page=1");
        for last in [r#"{"next_page_uri": null}"#, r#"{"meta": {"next_page_url": null}}"#, "{}"] {
            assert_eq!(next(last), None);
        }
    }

    #[tokio::test]
    async fn credentials_are_sent_to_no_other_server() {
        for url in ["https://evil.example/", "https://api.example.evil/x", "https://api.example@e/"]
        {
            let trouble = wire().get(url).await.unwrap_err();
            assert_eq!(trouble, Trouble::NotSent("a URL of another server".to_owned()));
        }
    }

    #[test]
    fn a_timeout_leaves_in_doubt_and_a_closed_port_does_not() {
        assert!(matches!(trouble(FetchError::TimedOut), Trouble::Lost(_)));
        assert!(matches!(trouble(FetchError::Unreachable), Trouble::NotSent(_)));
    }
}
