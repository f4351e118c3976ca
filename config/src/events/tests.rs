//! The courier against receivers of every kind, over real connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::fetch::Fetcher;
use crate::ids::WebhookId;
use crate::journal::Entry;
use crate::model::{
    Conversation, ConversationChange, ConversationClose, ConversationStatus, Direction, EndReason,
    NewWebhook,
};
use crate::settings::FetchSettings;
use crate::store::StoreOptions;
use crate::store::tests::{Org, Scratch, options};

/// Far longer than anything here takes when it works.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a receiver behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Takes,
    /// Answers nothing at all.
    Stalls,
    /// Sends this head, and then as much of a gigabyte as is read.
    Floods,
    /// Sends its client to the other end of the world.
    Redirects,
    /// Closes the connection unanswered.
    HangsUp,
    Fails,
}

/// What came: headers by name, and the body.
struct Post {
    headers: HashMap<String, String>,
    body: String,
}

impl Post {
    fn event(&self) -> CallEvent {
        serde_json::from_str(&self.body).unwrap()
    }
}

struct Receiver {
    address: SocketAddr,
    posts: mpsc::Receiver<Post>,
    connections: Arc<AtomicUsize>,
    /// While this is set it answers 503 instead.
    is_down: Arc<AtomicBool>,
}

impl Receiver {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, posts) = mpsc::channel(100_000);
        let connections = Arc::<AtomicUsize>::default();
        let is_down = Arc::<AtomicBool>::default();
        let (counted, down) = (Arc::clone(&connections), Arc::clone(&is_down));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let down = Arc::clone(&down);
                tokio::spawn(serve(stream, manner, (sender.clone(), down)));
            }
        });
        Self { address, posts, connections, is_down }
    }

    async fn post(&mut self) -> Post {
        tokio::time::timeout(PATIENCE, self.posts.recv()).await.unwrap().unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    manner: Manner,
    (posts, is_down): (mpsc::Sender<Post>, Arc<AtomicBool>),
) {
    while let Some(post) = read_post(&mut stream).await {
        let down = is_down.load(Ordering::Relaxed);
        if !down {
            posts.send(post).await.unwrap();
        }
        let answer: &[u8] = match manner {
            _ if down => b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n",
            Manner::Takes => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Manner::Fails => b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            Manner::Redirects => {
                b"HTTP/1.1 307 Over there\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
            }
            Manner::Floods => b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n",
            Manner::Stalls => return std::future::pending().await,
            Manner::HangsUp => return,
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
        if manner == Manner::Floods {
            while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
            return;
        }
    }
}

async fn read_post(stream: &mut TcpStream) -> Option<Post> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> =
        lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Post { headers, body: String::from_utf8(body).unwrap() })
}

/// A store with one organisation, whose clock can be moved on, and a courier at work.
struct Office {
    store: Scratch,
    org: Org,
    later_us: Arc<AtomicI64>,
    courier: tokio::task::JoinHandle<()>,
}

impl Drop for Office {
    fn drop(&mut self) {
        self.courier.abort();
    }
}

fn fetcher(private: bool) -> Fetcher {
    Fetcher::new(&FetchSettings {
        allow_plain_http: true,
        allow_any_port: true,
        allow_private_addresses: private,
        ..FetchSettings::default()
    })
    .unwrap()
}

impl Office {
    async fn open(timeout: Duration) -> Self {
        Self::with(timeout, true).await
    }

    async fn with(timeout: Duration, private: bool) -> Self {
        let later_us = Arc::<AtomicI64>::default();
        let (later, system) = (Arc::clone(&later_us), Clock::system());
        let clock = Clock::from_fn(move || {
            Timestamp::from_micros(system.now().micros() + later.load(Ordering::Relaxed))
        });
        let store = Scratch::with(StoreOptions { clock, ..options() }).await;
        let org = store.organisation().await;
        let courier = Courier::new(store.store.clone(), fetcher(private), timeout);
        Self { courier: tokio::spawn(courier.run()), store, org, later_us }
    }

    /// Moves the clock of the store on.
    fn pass(&self, seconds: i64) {
        self.later_us.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    async fn hook(&self, receiver: &Receiver) -> (WebhookId, String) {
        let url = format!("http://{}/hook", receiver.address);
        let new: NewWebhook = serde_json::from_value(serde_json::json!({ "url": url })).unwrap();
        let (hook, secret) = self.store.create_webhook(&self.org, new, true).await.unwrap();
        (hook.id, secret.expose().clone())
    }

    /// One call from its beginning to its end.
    async fn call(&self) {
        let at = self.store.now();
        let call = Conversation::begun(self.org.organisation(), Direction::Inbound, at);
        let status = ConversationStatus::InProgress;
        let change = ConversationChange::to(call.id, status, at);
        let close = ConversationClose {
            id: call.id,
            status: ConversationStatus::Completed,
            end_reason: EndReason::new("caller_hung_up", "caller"),
            duration_s: Some(1),
            transfer: None,
            quality: None,
            closed_at: at,
            post: None,
        };
        let entries = [
            Entry::ConversationOpened(Box::new(call)),
            Entry::ConversationChanged(change),
            Entry::ConversationClosed(Box::new(close)),
        ];
        self.store.write_entries(&entries).await.unwrap();
    }

    /// Waits until the last attempt failed with this.
    async fn error_of(&self, hook: WebhookId) -> String {
        let wait = async {
            loop {
                let seen = self.store.webhook(&self.org, hook).await.unwrap();
                if let Some(error) = seen.last_error {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }
}

#[tokio::test]
async fn a_delivery_is_signed_stamped_and_says_what_it_is() {
    let office = Office::open(PATIENCE).await;
    let mut receiver = Receiver::start(Manner::Takes).await;
    let (_, secret) = office.hook(&receiver).await;
    office.call().await;
    for (kind, sequence) in ["call.ringing", "call.answered", "call.ended"].into_iter().zip(1..) {
        let post = receiver.post().await;
        let (event, headers) = (post.event(), &post.headers);
        assert_eq!((event.kind.as_str(), event.sequence), (kind, sequence));
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["trunkline-event-id"], event.id.to_string());
        assert_eq!(headers["trunkline-event-type"], kind);
        assert_eq!(headers["trunkline-delivery-attempt"], "1");
        let signed = &headers["trunkline-signature"];
        let at: i64 = signed.split(['=', ',']).nth(1).unwrap().parse().unwrap();
        let expected = signature::header(&[secret.as_str().into()], at, post.body.as_bytes());
        assert_eq!(signed, &expected);
        assert!((office.store.now().millis() / 1_000 - at).abs() < 30);
    }
}

#[tokio::test]
async fn bad_receivers_delay_nobody_but_themselves() {
    let office = Office::open(PATIENCE).await;
    let manners =
        [Manner::Stalls, Manner::Floods, Manner::Redirects, Manner::HangsUp, Manner::Fails];
    let mut bad = Vec::new();
    for manner in manners {
        let receiver = Receiver::start(manner).await;
        bad.push((office.hook(&receiver).await.0, receiver));
    }
    let mut good = Receiver::start(Manner::Takes).await;
    office.hook(&good).await;
    for _ in 0..50 {
        office.call().await;
    }
    let mut per_call: HashMap<_, Vec<u32>> = HashMap::new();
    for _ in 0..150 {
        let event = good.post().await.event();
        per_call.entry(event.conversation_id).or_default().push(event.sequence);
    }
    assert_eq!(per_call.len(), 50);
    assert!(per_call.values().all(|all| all == &[1, 2, 3]), "in order within each call");
    assert_eq!(office.error_of(bad[2].0).await, "answered with status 307");
    assert_eq!(office.error_of(bad[3].0).await, "did not answer as HTTP says");
    assert_eq!(office.error_of(bad[4].0).await, "answered with status 500");
    let stalled = bad[0].1.connections.load(Ordering::Relaxed);
    assert!(stalled <= 8, "a lane has eight requests: {stalled}");
}

#[tokio::test]
async fn a_receiver_that_answers_a_gigabyte_has_answered() {
    let office = Office::open(PATIENCE).await;
    let mut receiver = Receiver::start(Manner::Floods).await;
    office.hook(&receiver).await;
    office.call().await;
    for sequence in 1..=3 {
        assert_eq!(receiver.post().await.event().sequence, sequence);
    }
}

#[tokio::test]
async fn a_receiver_that_stalls_is_left_after_its_time() {
    let office = Office::open(Duration::from_millis(50)).await;
    let receiver = Receiver::start(Manner::Stalls).await;
    let (hook, _) = office.hook(&receiver).await;
    office.call().await;
    assert_eq!(office.error_of(hook).await, "did not answer in time");
}

#[tokio::test]
async fn nothing_goes_to_an_address_inside() {
    let office = Office::with(PATIENCE, false).await;
    let receiver = Receiver::start(Manner::Takes).await;
    let (hook, _) = office.hook(&receiver).await;
    office.call().await;
    assert_eq!(office.error_of(hook).await, "has no address on the public internet");
    assert_eq!(receiver.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn everything_arrives_once_the_receiver_is_back() {
    let office = Office::open(PATIENCE).await;
    let mut receiver = Receiver::start(Manner::Takes).await;
    receiver.is_down.store(true, Ordering::Relaxed);
    let (hook, _) = office.hook(&receiver).await;
    for _ in 0..40 {
        office.call().await;
    }
    assert_eq!(office.error_of(hook).await, "answered with status 503");
    receiver.is_down.store(false, Ordering::Relaxed);
    office.pass(3_600);
    let mut per_call: HashMap<_, Vec<u32>> = HashMap::new();
    for _ in 0..120 {
        let event = receiver.post().await.event();
        per_call.entry(event.conversation_id).or_default().push(event.sequence);
    }
    assert!(per_call.len() == 40 && per_call.values().all(|all| all == &[1, 2, 3]));
}

#[tokio::test]
async fn what_waits_is_delivered_by_the_next_courier() {
    let office = Office::open(PATIENCE).await;
    office.courier.abort();
    let mut receiver = Receiver::start(Manner::Takes).await;
    office.hook(&receiver).await;
    office.call().await;
    let store = office.store.store.clone();
    let next = tokio::spawn(Courier::new(store, fetcher(true), PATIENCE).run());
    for sequence in 1..=3 {
        assert_eq!(receiver.post().await.event().sequence, sequence);
    }
    next.abort();
}
