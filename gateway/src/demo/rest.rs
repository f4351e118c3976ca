//! The demo's REST client: what a customer would do with curl.

use std::io;
use std::net::SocketAddr;

use reqwest::Method;
use serde_json::Value;

/// A client of the gateway's own API.
pub struct Rest {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Rest {
    /// A client with this organisation key.
    #[must_use]
    pub fn new(api: SocketAddr, key: &str) -> Self {
        Rest { client: reqwest::Client::new(), base: format!("http://{api}"), key: key.to_owned() }
    }

    /// POST with a JSON body; the reply, which must be a success.
    ///
    /// # Errors
    /// When the API cannot be reached or answers with an error, whose `detail` is told.
    pub async fn post(&self, path: &str, body: Value) -> io::Result<Value> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// GET; the reply, which must be a success.
    ///
    /// # Errors
    /// As [`Rest::post`].
    pub async fn get(&self, path: &str) -> io::Result<Value> {
        self.send(Method::GET, path, None).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> io::Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method.clone(), &url).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let reply = request.send().await.map_err(io::Error::other)?;
        let status = reply.status();
        let text = reply.text().await.map_err(io::Error::other)?;
        if !status.is_success() {
            return Err(io::Error::other(format!("{method} {path}: {status}: {text}")));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(io::Error::other)
    }
}
