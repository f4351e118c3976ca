//! The least HTTP/1.1 that the API and the metrics listener need: one request, one connection.
//!
//! Blocking, so that a test reads from top to bottom beside its child processes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A reply, read whole.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Reply {
    /// The body as JSON; an empty one is `null`.
    ///
    /// # Panics
    /// When it is neither.
    #[must_use]
    pub fn json(&self) -> Value {
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text).expect("the API answers in JSON")
    }

    /// The JSON of a success.
    ///
    /// # Panics
    /// When the status is not 2xx; the body is told.
    #[must_use]
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text);
        self.json()
    }
}

/// Sends one request and reads the reply.
///
/// # Errors
/// When the listener cannot be reached, or what it says is no HTTP.
pub fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{key}{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let reply = String::from_utf8(reply).map_err(io::Error::other)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP reply");
    let (head, text) = reply.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let text = if chunked { unchunk(text).ok_or_else(bad)? } else { text.to_owned() };
    Ok(Reply { status, text })
}

/// Joins the chunks of a body (RFC 9112 §7.1).
fn unchunk(mut text: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        let (chunk, after) = rest.split_at_checked(size)?;
        whole.push_str(chunk);
        text = after.strip_prefix("\r\n")?;
    }
}

/// The organisation's view of a gateway.
#[derive(Clone, Debug)]
pub struct Rest {
    api: SocketAddr,
    key: String,
}

impl Rest {
    /// A client with this key.
    #[must_use]
    pub fn new(api: SocketAddr, key: &str) -> Self {
        Rest { api, key: key.to_owned() }
    }

    /// Sends one request, whatever the reply.
    ///
    /// # Panics
    /// When the API cannot be reached.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        send(self.api, method, path, Some(&self.key), body).expect("the API answers")
    }

    /// GET; the JSON of a success.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.send("GET", path, None).ok()
    }

    /// POST; the JSON of a success.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.send("POST", path, Some(body)).ok()
    }
}
