//! Against a small server of our own that answers like an endpoint, well and badly.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::secret::Secret;
use crate::settings::LlmSettings;

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Manner {
    /// Writes this, and closes.
    Says(&'static str),
    /// Writes this, and then nothing more.
    Stalls(&'static str),
}

/// An endpoint with manners; its requests are noted.
async fn endpoint(manner: Manner) -> (Endpoint, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !is_whole(&request) {
                let mut part = [0; 4_096];
                let Ok(n @ 1..) = stream.read(&mut part).await else { break };
                request.extend_from_slice(&part[..n]);
            }
            noted.lock().unwrap().push(String::from_utf8(request).unwrap());
            let (Manner::Says(text) | Manner::Stalls(text)) = manner;
            let _ = stream.write_all(text.as_bytes()).await;
            if matches!(manner, Manner::Stalls(_)) {
                std::future::pending::<()>().await;
            }
        }
    });
    let settings = LlmSettings {
        base_url: Some(format!("http://{address}/v1/")),
        model: Some("small".to_owned()),
        api_key: Some(Secret::from("canary")),
        timeout_seconds: 5,
        extra_roots: None,
    };
    (Endpoint::new(&settings).unwrap().unwrap(), requests)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
    body.len() >= length.unwrap().parse().unwrap()
}

async fn ask(manner: Manner) -> Result<String, ModelError> {
    let (endpoint, _) = endpoint(manner).await;
    whole(endpoint.ask(Prompt::new("s", "u")).await?).await
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
    data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n\
    data: {\"choices\":[{\"delta\":{\"content\":\", world\"}}]}\n\n\
    data: [DONE]\n\n";

#[tokio::test]
async fn an_answer_comes_piece_by_piece() {
    let (endpoint, requests) = endpoint(Manner::Stalls(STREAM)).await;
    let answer = endpoint.ask(Prompt::new("be brief", "greet")).await.unwrap();
    let pieces: Vec<_> = answer.collect().await;
    assert_eq!(pieces, [Ok("Hello".to_owned()), Ok(", world".to_owned())]);
    let request = requests.lock().unwrap().remove(0);
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer canary\r\n"), "{request}");
    let body: serde_json::Value =
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["model"], &body["stream"]), (&"small".into(), &true.into()));
    assert_eq!(body["messages"][1]["content"], "greet");
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
        connection: close\r\n\r\n{\"choices\":[{\"message\":{\"content\":\"Hello\"}}]}";
    assert_eq!(ask(Manner::Says(WHOLE)).await, Ok("Hello".to_owned()));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (reply, why) in [
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", ModelError::Unauthorised),
        ("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", ModelError::Busy),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", ModelError::Failed),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", ModelError::Busy),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", ModelError::Refused),
        ("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", ModelError::Refused),
        ("nonsense\r\n\r\n", ModelError::Broken),
    ] {
        assert_eq!(ask(Manner::Says(reply)).await, Err(why), "{reply}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_not_taken_for_a_whole_one() {
    const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n";
    let (endpoint, _) = endpoint(Manner::Says(CUT)).await;
    let pieces: Vec<_> = endpoint.ask(Prompt::new("", "")).await.unwrap().collect().await;
    assert_eq!(pieces, [Ok("Hel".to_owned()), Err(ModelError::Broken)]);
    const NONSENSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
        data: <html>\n\n";
    assert_eq!(ask(Manner::Says(NONSENSE)).await, Err(ModelError::Broken));
}

#[tokio::test]
async fn a_model_that_stalls_is_left_in_time() {
    const BEGUN: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n";
    for manner in [Manner::Stalls(""), Manner::Stalls(BEGUN)] {
        let (endpoint, _) = endpoint(manner).await;
        let endpoint = endpoint.within(Duration::from_millis(50));
        let asked = endpoint.ask(Prompt::new("s", "u")).await;
        let outcome = match asked {
            Ok(answer) => whole(answer).await,
            Err(why) => Err(why),
        };
        assert_eq!(outcome, Err(ModelError::TimedOut));
    }
}

#[tokio::test]
async fn a_model_that_is_not_there_is_unreachable() {
    let settings = LlmSettings {
        base_url: Some("http://127.0.0.1:1/v1".to_owned()),
        model: Some("small".to_owned()),
        ..LlmSettings::default()
    };
    let endpoint = Endpoint::new(&settings).unwrap().unwrap();
    let asked = endpoint.ask(Prompt::new("", "")).await;
    assert_eq!(asked.err(), Some(ModelError::Unreachable));
    assert!(Endpoint::new(&LlmSettings::default()).unwrap().is_none());
}

#[test]
fn the_material_of_a_prompt_is_bounded_and_stays_text() {
    let prompt = Prompt::new("", "é".repeat(200_000));
    assert_eq!(prompt.user.len(), 262_144);
}

#[tokio::test]
async fn a_key_is_not_printed() {
    let (endpoint, _) = endpoint(Manner::Says("")).await;
    assert!(!format!("{endpoint:?}").contains("canary"));
}
