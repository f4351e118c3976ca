//! An HTTP client that sends whatever it is told to.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::common::PATIENCE;

/// What an HTTP server said.
#[derive(Debug)]
pub(crate) struct HttpReply {
    /// 0 when nothing readable came.
    pub(crate) status: u16,
    bytes: Vec<u8>,
}

impl HttpReply {
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap_or_default()
    }
}

/// One request on a connection of its own.
pub(crate) fn http(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> HttpReply {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !headers.iter().any(|(name, _)| *name == "content-length") {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server may answer and close before it has read everything.
    let _ =
        stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
    let bytes = read_reply(&mut stream);
    let line = bytes.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
    HttpReply { status: line.and_then(|code| code.parse().ok()).unwrap_or(0), bytes }
}

/// All of a reply, or of a stream of events, which never ends, the first lines.
fn read_reply(stream: &mut TcpStream) -> Vec<u8> {
    let (mut bytes, mut some) = (Vec::new(), [0; 64 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut some) {
        bytes.extend(&some[..count]);
        let head = bytes.split(|&byte| byte == b'\n').take_while(|line| line.len() > 1);
        if head.into_iter().any(|line| line.ends_with(b"text/event-stream\r")) {
            break;
        }
    }
    bytes
}
