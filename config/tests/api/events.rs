//! `GET /core/events`, read as a client reads it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use config::api::ApiOptions;
use config::credential::ScopedTo;
use config::events::StreamLimits;
use config::model::{Conversation, ConversationClose, ConversationStatus, EndReason};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::server::Server;

/// Far longer than anything here takes when it works.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stream that is being read.
struct Stream {
    body: axum::body::BodyDataStream,
    text: String,
}

/// One server-sent event.
#[derive(Debug)]
struct Sent {
    id: Option<String>,
    name: String,
    data: Value,
}

impl Stream {
    async fn open(server: &Server, path: &str, key: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(path).header("authorization", format!("Bearer {key}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let reply = server.stream(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status().as_u16(), 200);
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        assert_eq!(reply.headers()["cache-control"], "no-store");
        Self { body: reply.into_body().into_data_stream(), text: String::new() }
    }

    /// The next block up to an empty line; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    /// The next event; comments are passed over.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            if let Some(name) = field("event") {
                let data = serde_json::from_str(field("data").unwrap()).unwrap();
                let id = field("id").map(str::to_owned);
                return Some(Sent { id, name: name.to_owned(), data });
            }
        }
    }

    async fn expect(&mut self, name: &str) -> Sent {
        let sent = self.next().await.unwrap();
        assert_eq!(sent.name, name, "{sent:?}");
        sent
    }
}

async fn end(server: &Server, call: &Conversation) {
    let close = ConversationClose {
        id: call.id,
        status: ConversationStatus::Completed,
        end_reason: EndReason::new("caller_hung_up", "caller"),
        duration_s: Some(3),
        transfer: None,
        quality: None,
        closed_at: call.created_at,
        post: None,
    };
    let scope = ScopedTo::by_gateway(call.organization_id);
    server.store.close_conversation(&scope, &close).await.unwrap();
}

async fn call(server: &Server) -> Conversation {
    let with_canary = |c: &mut Conversation| c.custom_metadata = Some(json!({ "canary": 1 }));
    server.conversation(server.organisation, with_canary).await
}

#[tokio::test]
async fn what_happens_is_told_to_whose_it_is_less_what_the_key_may_not_see() {
    let server = Server::start().await;
    let (_, foreign) = server.stranger().await;
    let reader = server.key_with(&["conversations:read"]).await;
    let mut full = Stream::open(&server, "/core/events", &server.key, None).await;
    let mut safe = Stream::open(&server, "/core/events", &reader, None).await;
    let mut ends = Stream::open(&server, "/core/events?events=call.ended", &reader, None).await;
    let mut theirs = Stream::open(&server, "/core/events", &foreign, None).await;
    for stream in [&mut full, &mut safe, &mut ends, &mut theirs] {
        let opened = stream.expect("stream.opened").await;
        assert!(opened.id.is_some() && opened.data["heartbeat_seconds"] == 15);
    }
    let call = call(&server).await;
    end(&server, &call).await;
    let rings = full.expect("call.ringing").await;
    assert_eq!(rings.data["custom_metadata"], json!({ "canary": 1 }));
    assert_eq!(rings.data["type"], "call.ringing");
    let ended = full.expect("call.ended").await;
    assert_eq!((&ended.data["sequence"], &ended.data["duration"]), (&json!(2), &json!(3)));
    let rings = safe.expect("call.ringing").await;
    assert!(!rings.data.to_string().contains("canary"));
    assert_eq!(rings.data["conversation_id"], json!(call.id));
    assert_eq!(ends.expect("call.ended").await.data["end_reason"]["code"], "caller_hung_up");
    server.store.events().close(Duration::ZERO).await;
    assert_eq!(theirs.expect("stream.ended").await.data["reason"], "draining");
    assert!(theirs.next().await.is_none());
}

#[tokio::test]
async fn a_stream_is_taken_up_where_it_broke_off() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server, "/core/events", &server.key, None).await;
    stream.expect("stream.opened").await;
    let call = call(&server).await;
    let last = stream.expect("call.ringing").await.id.unwrap();
    drop(stream);
    end(&server, &call).await;
    let mut again = Stream::open(&server, "/core/events", &server.key, Some(&last)).await;
    assert_eq!(again.expect("stream.opened").await.id, Some(last));
    again.expect("call.ended").await;
    let mut lost = Stream::open(&server, "/core/events", &server.key, Some("long ago")).await;
    lost.expect("stream.opened").await;
    lost.expect("stream.gap").await;
    lost.expect("call.ringing").await;
}

#[tokio::test]
async fn a_revoked_key_ends_its_streams_within_a_second() {
    let server = Server::start().await;
    let body = json!({ "name": "gone", "grants": ["conversations:read"] });
    let made = server.post("/admin/organization-pats", body).await.is(200);
    let key = made["pat_key"].as_str().unwrap();
    let mut stream = Stream::open(&server, "/core/events", key, None).await;
    stream.expect("stream.opened").await;
    let path = format!("/admin/organization-pats/{}", made["key_id"].as_str().unwrap());
    server.delete(&path).await.is(204);
    let ended = tokio::time::timeout(Duration::from_secs(1), stream.expect("stream.ended")).await;
    assert_eq!(ended.unwrap().data["reason"], "revoked");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn silence_carries_heartbeats() {
    let heartbeat = Duration::from_millis(20);
    let server = Server::with(ApiOptions { heartbeat, ..ApiOptions::default() }).await;
    let mut stream = Stream::open(&server, "/core/events", &server.key, None).await;
    assert!(stream.block().await.unwrap().starts_with("retry: 2000\nid: "));
    for _ in 0..3 {
        assert_eq!(stream.block().await.unwrap(), ": still here");
    }
}

#[tokio::test]
async fn a_slow_reader_is_cut_off_and_told_so() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server, "/core/events", &server.key, None).await;
    for _ in 0..1_010 {
        call(&server).await;
    }
    let mut names = Vec::new();
    while let Some(sent) = stream.next().await {
        names.push((sent.name, sent.data["reason"].clone()));
    }
    assert_eq!(names.last(), Some(&("stream.ended".to_owned(), json!("too_slow"))));
    assert!(names.len() < 10, "what it missed is not made up for");
}

#[tokio::test]
async fn an_organisation_has_no_more_streams_than_it_may() {
    let streams = StreamLimits { per_organisation: 2, total: 3 };
    let server = Server::with(ApiOptions { streams, ..ApiOptions::default() }).await;
    let (_, foreign) = server.stranger().await;
    let first = Stream::open(&server, "/core/events", &server.key, None).await;
    let _second = Stream::open(&server, "/core/events", &server.key, None).await;
    let refused = server.get("/core/events").await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.is(503)["detail"], "Too many streams of events are open");
    let _other = Stream::open(&server, "/core/events", &foreign, None).await;
    drop(first);
    Stream::open(&server, "/core/events", &server.key, None).await;
}

#[tokio::test]
async fn unknown_events_are_not_waited_for() {
    let server = Server::start().await;
    for query in ["events=call.eaten", "events=", "events=webhook.test", "event=call.ended"] {
        let places = server.get(&format!("/core/events?{query}")).await.places();
        assert!(places[0].starts_with("query.event"), "{query}");
    }
    let made = server.call(Method::POST, "/core/events", &server.key, &json!({})).await;
    assert_eq!(made.status.as_u16(), 405);
}
