//! An HTTP server on loopback that answers every request with the same JSON: a customer's look-up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running server. It ends with the test program.
#[derive(Debug)]
pub struct Lookup {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Lookup {
    /// Starts one that answers with this.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(answer: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
        let address = listener.local_addr().expect("a listener has an address");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (answer, seen) = (answer.to_string(), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = serve(stream, &answer) {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                }
            }
        });
        Lookup { address, requests }
    }

    /// The URL of a path on it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far: head and body of each request.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request, one answer, one connection.
fn serve(mut stream: TcpStream, answer: &str) -> Option<String> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let (mut request, mut part) = (Vec::new(), [0; 2_048]);
    let text = loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(part.get(..read)?);
        let text = String::from_utf8_lossy(&request).into_owned();
        if text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head)) {
            break text;
        }
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(answer.as_bytes()).ok()?;
    Some(text)
}

/// The length of a body by its head.
fn length(head: &str) -> usize {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or_default()
}
