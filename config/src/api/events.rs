//! `GET /core/events`: what happens to the organization's calls, as it happens.
//!
//! A stream of server-sent events (the `text/event-stream` of the HTML standard). Beside the events of
//! calls it says four things of its own: `stream.opened`, with the position to resume from;
//! `stream.gap`, where events were lost; a comment as heartbeat; and last of all `stream.ended` with
//! the reason. A client that comes back with `Last-Event-ID` reads on where it was.
//!
//! The time limit of requests is for the beginning of the reply; a stream lasts until its client goes,
//! its key is refused, it falls behind, or the node stops.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::Api;
use super::error::{ApiError, Violation};
use super::extract::Params;
use super::table::{Caller, Door};
use crate::credential::Scope;
use crate::events::{Next, Start, StreamId, Subscription};
use crate::limits::EVENT_WRITE_SECONDS;
use crate::model::EventKind;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What keeps proxies from gathering a stream before they pass it on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How often it is asked whether the key still opens the stream, in milliseconds: half of the second
/// in which a revoked key must be out.
const DOOR_MS: u64 = 500;

/// How long the last event may take to be handed over, in milliseconds.
const FAREWELL_MS: u64 = 1_000;

/// How long a client should wait before it comes back, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// What a stream is asked with.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct StreamEvents {
    /// Names of the events to show, separated by commas; absent is all of them.
    #[param(example = "call.answered,call.ended")]
    events: Option<String>,
}

impl StreamEvents {
    fn kinds(&self) -> Result<Vec<EventKind>, ApiError> {
        let Some(list) = &self.events else { return Ok(EventKind::CALLS.to_vec()) };
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let kinds = names.map(str::parse).collect::<Result<Vec<EventKind>, _>>();
        kinds.ok().filter(|kinds| !kinds.is_empty()).ok_or_else(|| {
            let names = EventKind::CALLS.map(EventKind::as_str).join(", ");
            let why = format!("Names one or more of: {names}");
            ApiError::Violations(vec![Violation::query("events", "value_error", why)])
        })
    }
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its key opens it no more.
    Revoked,
    /// Its client reads too slowly.
    TooSlow,
    /// The node stops.
    Draining,
}

impl Ending {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Revoked => ("revoked", "The key no longer opens this stream"),
            Self::TooSlow => ("too_slow", "Events were read too slowly; come back to read on"),
            Self::Draining => ("draining", "This node is stopping; come back to read on"),
        }
    }

    fn frame(self) -> Bytes {
        let (reason, detail) = self.words();
        frame(None, "stream.ended", &json!({ "reason": reason, "detail": detail }).to_string())
    }
}

/// The events of the organization's calls from now on, or from after `Last-Event-ID`, as a stream of
/// server-sent events. Each `data` is an event as webhooks get it; sensitive fields need
/// `conversations:read_sensitive` and are absent without it. The stream does not end by itself.
#[utoipa::path(get, path = "/core/events", tag = "events",
    params(StreamEvents,
        ("Last-Event-ID" = Option<String>, Header,
            description = "The `id` of the last event that was read: the stream goes on after it")),
    responses((status = 200, description = "Server-sent events", body = String,
        content_type = "text/event-stream")))]
pub(crate) async fn stream_events(
    State(api): State<Api>,
    caller: Caller,
    door: Door,
    headers: HeaderMap,
    Params(query): Params<StreamEvents>,
) -> Result<Response, ApiError> {
    let kinds = query.kinds()?;
    let organisation = caller.organisation().organisation();
    let (start, limits) = (start(&headers), api.options.streams);
    let opened = api.store.events().subscribe(organisation, start, limits);
    let (subscription, place) =
        opened.map_err(|_| ApiError::Busy("Too many streams of events are open"))?;
    let sensitive = caller.holds(Scope::ConversationsReadSensitive);
    let heartbeat = api.options.heartbeat;
    // One frame at a time: what a refused key could still read is no more than is on the wire.
    let (frames, written) = mpsc::channel::<Bytes>(1);
    let stream = Stream { subscription, kinds, sensitive, heartbeat, frames };
    tokio::spawn(stream.run(door));
    // The place belongs to the connection: one whose client does not read keeps it.
    let body = futures_util::stream::unfold((written, place), |(mut written, place)| async {
        let frame = written.recv().await?;
        Some((Ok::<_, Infallible>(frame), (written, place)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Where the client was. An id that is none of ours is one that nobody knows any more.
fn start(headers: &HeaderMap) -> Start {
    match headers.get(LAST_EVENT_ID).map(HeaderValue::to_str) {
        None | Some(Ok("")) => Start::Now,
        Some(text) => {
            let id = text.ok().and_then(|text| text.parse().ok());
            id.map_or(Start::Unknown, Start::After)
        }
    }
}

/// One stream that is open.
struct Stream {
    subscription: Subscription,
    kinds: Vec<EventKind>,
    sensitive: bool,
    heartbeat: Duration,
    frames: mpsc::Sender<Bytes>,
}

impl Stream {
    /// Writes until the end, and says why it has come, unless the client is gone.
    async fn run(mut self, door: Door) {
        let (sensitive, frames) = (self.sensitive, self.frames.clone());
        let ending = tokio::select! {
            biased;
            () = closed(&door, sensitive) => Some(Ending::Revoked),
            ending = self.write() => ending,
        };
        if let Some(ending) = ending {
            let patience = Duration::from_millis(FAREWELL_MS);
            let _ = timeout(patience, frames.send(ending.frame())).await;
        }
    }

    /// Writes what there is to read; `None` when the client is gone.
    async fn write(&mut self) -> Option<Ending> {
        let mut next = Some(self.opening());
        loop {
            if let Some(frame) = next.take()
                && let Err(ending) = self.hand_over(frame).await
            {
                return ending;
            }
            let silent_until = Instant::now() + self.heartbeat;
            while next.is_none() {
                next = match timeout_at(silent_until, self.subscription.next()).await {
                    Err(_) => Some(Bytes::from_static(b": still here\n\n")),
                    Ok(Next::Event(id, told)) if self.kinds.contains(&told.event().kind) => {
                        let kind = told.event().kind.as_str();
                        Some(frame(Some(id), kind, told.text(self.sensitive)))
                    }
                    Ok(Next::Event(..)) => None,
                    Ok(Next::Lost(id)) => Some(gap(id)),
                    Ok(Next::Behind) => return Some(Ending::TooSlow),
                    Ok(Next::Closed) => return Some(Ending::Draining),
                };
            }
        }
    }

    /// Gives the connection a frame as soon as it has written the one before.
    async fn hand_over(&self, frame: Bytes) -> Result<(), Option<Ending>> {
        let patience = Duration::from_secs(EVENT_WRITE_SECONDS.value);
        match timeout(patience, self.frames.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Ending::TooSlow)),
        }
    }

    fn opening(&self) -> Bytes {
        let data = json!({ "heartbeat_seconds": self.heartbeat.as_secs() }).to_string();
        let opened = frame(Some(self.subscription.position()), "stream.opened", &data);
        [format!("retry: {RETRY_MS}\n").as_bytes(), &opened].concat().into()
    }
}

/// Returns when the key opens this stream no more, or no longer shows as much.
async fn closed(door: &Door, sensitive: bool) {
    let mut look = tokio::time::interval(Duration::from_millis(DOOR_MS));
    loop {
        look.tick().await;
        let caller = door.opens();
        if caller.is_none_or(|c| c.holds(Scope::ConversationsReadSensitive) != sensitive) {
            return;
        }
    }
}

fn gap(id: StreamId) -> Bytes {
    let detail =
        "Events were lost here; /core/conversations?updated_after= shows what they told of";
    frame(Some(id), "stream.gap", &json!({ "detail": detail }).to_string())
}

/// One server-sent event; the data is JSON on one line.
fn frame(id: Option<StreamId>, event: &str, data: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("{id}event: {event}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_event_of_the_html_standard() {
        let id = "0000000000000001-7".parse().unwrap();
        let text = frame(Some(id), "call.ended", "{}");
        assert_eq!(text, "id: 0000000000000001-7\nevent: call.ended\ndata: {}\n\n");
        assert!(
            Ending::TooSlow
                .frame()
                .starts_with(b"event: stream.ended\ndata: {\"reason\":\"too_slow\"")
        );
    }

    #[test]
    fn a_stream_begins_now_or_after_the_event_that_was_read_last() {
        let of = |text: &'static str| {
            start(&HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_static(text))]))
        };
        assert_eq!(start(&HeaderMap::new()), Start::Now);
        assert_eq!(of(""), Start::Now);
        assert_eq!(of("0000000000000001-7"), Start::After("0000000000000001-7".parse().unwrap()));
        assert_eq!(of("7"), Start::Unknown);
    }
}
