//! Links and pumps against an agent in the same process, over real sockets on loopback.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use media::codec::g711;
use media::port::{AgentPort, Down, Full, Up, agent_port};
use media::{FRAME_SAMPLES, Frame};
use rustls::RootCertStore;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};

use super::port::Port;
use super::pump::{Pump, Wiring};
use super::*;

type Agent = WebSocketStream<TcpStream>;

const STREAM_SID: &str = "MZ07070707070707070707070707070707";

fn settings() -> LinkSettings {
    LinkSettings {
        allow_plain_ws: true,
        allow_private_addresses: true,
        close_timeout_ms: 200,
        ..LinkSettings::default()
    }
}

fn opening() -> Opening {
    Opening {
        ids: StreamIds { stream: [7; 16], call: [8; 16], account: [9; 16] },
        from_number: "+15550001".into(),
        to_number: "+15550002".into(),
        conversation_id: "c".into(),
        parameters: vec![],
    }
}

fn dialer() -> Dialer {
    Dialer::new(RootCertStore::empty()).unwrap()
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/stream?a=b", listener.local_addr().unwrap());
    (listener, url)
}

async fn connect(url: &str, settings: &LinkSettings) -> Result<(), LinkError> {
    dialer().connect(url, None, settings).await.map(drop)
}

/// A port whose worker is the test.
#[derive(Clone, Default)]
struct TestPort(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    up: VecDeque<Up>,
    ring: VecDeque<Down>,
    pushed: u64,
    played: Vec<u8>,
    keys: String,
    overruns: u64,
    closed: bool,
}

const RING: usize = 8;

impl TestPort {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap()
    }

    /// What the worker does every 20 ms.
    fn tick(&self) {
        let mut ends = self.ends();
        match ends.ring.pop_front() {
            Some(Down::Frame(frame)) => {
                ends.played.extend(frame.samples.map(g711::ulaw_encode));
            }
            Some(Down::Digit { digit, .. }) => ends.keys.push(digit),
            None => {}
        }
    }

    fn say(&self, level: i16) {
        let frame = Frame { samples: [level; FRAME_SAMPLES] };
        self.ends().up.push_back(Up::Frame(frame));
    }
}

impl Port for TestPort {
    fn pull(&mut self) -> Option<Up> {
        self.ends().up.pop_front()
    }

    fn push(&mut self, item: Down) -> Result<(), Full> {
        let mut ends = self.ends();
        if ends.ring.len() >= RING {
            return Err(Full);
        }
        ends.pushed += 1;
        ends.ring.push_back(item);
        Ok(())
    }

    fn room(&self) -> usize {
        RING - self.ends().ring.len()
    }

    fn clear(&mut self) {
        self.ends().ring.clear();
    }

    fn pushed(&self) -> u64 {
        self.ends().pushed
    }

    fn consumed(&self) -> u64 {
        let ends = self.ends();
        ends.pushed - ends.ring.len() as u64
    }

    fn played(&self) -> u64 {
        (self.ends().played.len() / FRAME_SAMPLES) as u64
    }

    fn overruns(&self) -> u64 {
        self.ends().overruns
    }

    fn is_closed(&self) -> bool {
        self.ends().closed
    }
}

/// A call whose link is open, with everything around it in the test's hands.
struct Rig {
    port: TestPort,
    wake: Arc<Wake>,
    orders: Option<mpsc::Sender<Order>>,
    events: mpsc::Receiver<(u64, AgentEvent)>,
    pump: JoinHandle<(End, LinkReport)>,
}

impl Rig {
    /// Opens a link and reads the two messages every stream begins with.
    async fn open(settings: LinkSettings) -> (Rig, Agent) {
        let (listener, url) = listen().await;
        Rig::open_at(settings, listener, &url).await
    }

    async fn open_at(settings: LinkSettings, listener: TcpListener, url: &str) -> (Rig, Agent) {
        let dialer = dialer();
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            accept_async(stream).await.unwrap()
        };
        let (link, mut agent) = tokio::join!(dialer.connect(url, None, &settings), accept);
        let port = TestPort::default();
        let wake = Arc::new(Wake::default());
        let (orders, order_queue) = mpsc::channel(MAX_ORDERS);
        let (events_in, events) = mpsc::channel(16);
        let dialect = Dialect::new(Kind::Twilio, opening().ids);
        let mut pump = Pump::new(link.unwrap(), dialect, port.clone(), settings);
        pump.open(&opening()).await.unwrap();
        assert_eq!(heard(&mut agent).await["event"], "connected");
        assert_eq!(heard(&mut agent).await["event"], "start");
        let wiring =
            Wiring { call: 1, wake: Arc::clone(&wake), orders: order_queue, events: events_in };
        let pump = tokio::spawn(async move {
            let end = pump.run(wiring).await;
            (end, pump.report())
        });
        let mut rig = Rig { port, wake, orders: Some(orders), events, pump };
        assert_eq!(rig.event().await, AgentEvent::Ready);
        (rig, agent)
    }

    async fn event(&mut self) -> AgentEvent {
        self.events.recv().await.unwrap().1
    }

    /// One tick of the worker, and time for the pump to do its part.
    async fn tick(&self) {
        self.port.tick();
        self.wake.audio();
        for _ in 0..4 {
            yield_now().await;
        }
    }

    /// Ticks until so many octets have been played.
    async fn play(&self, octets: usize) -> Vec<u8> {
        for _ in 0..20_000 {
            if self.port.ends().played.len() >= octets {
                return self.port.ends().played.clone();
            }
            self.tick().await;
        }
        panic!("only {} octets were played", self.port.ends().played.len());
    }

    fn stop(&mut self) {
        self.orders = None;
        self.wake.order();
    }
}

async fn heard(agent: &mut Agent) -> Value {
    loop {
        match agent.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn say(agent: &mut Agent, text: impl Into<String>) {
    agent.send(Message::text(text.into())).await.unwrap();
}

fn media(octets: &[u8]) -> String {
    let payload = STANDARD.encode(octets);
    format!(r#"{{"event":"media","streamSid":"{STREAM_SID}","media":{{"payload":"{payload}"}}}}"#)
}

fn mark(name: &str) -> String {
    format!(r#"{{"event":"mark","streamSid":"{STREAM_SID}","mark":{{"name":"{name}"}}}}"#)
}

fn clear() -> String {
    format!(r#"{{"event":"clear","streamSid":"{STREAM_SID}"}}"#)
}

/// Audio without the code for silence, different at every place, that survives decoding and encoding.
fn speech(octets: usize) -> Vec<u8> {
    (0_u8..0x7F).cycle().take(octets).collect()
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let (listener, url) = listen().await;
    drop(listener);
    assert_eq!(connect(&url, &settings()).await, Err(LinkError::Refused));
}

#[tokio::test]
async fn an_agent_that_never_answers_the_upgrade_is_a_timeout() {
    let (_listener, url) = listen().await;
    let settings = LinkSettings { connect_timeout_ms: 30, ..settings() };
    assert_eq!(connect(&url, &settings).await, Err(LinkError::Timeout));
}

#[tokio::test]
async fn another_status_than_101_is_told() {
    let (listener, url) = listen().await;
    let agent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        assert!(String::from_utf8_lossy(&request[..length]).contains("Trunkline/"));
        stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    };
    let settings = settings();
    let (result, ()) = tokio::join!(connect(&url, &settings), agent);
    assert_eq!(result, Err(LinkError::Handshake { status: 403 }));
}

#[tokio::test]
async fn what_is_no_websocket_server_is_a_protocol_error_or_a_refusal() {
    for answer in ["SSH-2.0-OpenSSH_9.7\r\n\r\n", "", "HTTP/1.1 101 Switching Protocols\r\n\r\n"] {
        let (listener, url) = listen().await;
        let agent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let settings = settings();
        let (result, ()) = tokio::join!(connect(&url, &settings), agent);
        assert!(matches!(result, Err(LinkError::Protocol | LinkError::Refused)), "{result:?}");
    }
}

#[tokio::test]
async fn addresses_of_our_own_network_are_never_connected_to() {
    let (listener, url) = listen().await;
    let port = listener.local_addr().unwrap().port();
    let guarded = LinkSettings { allow_private_addresses: false, ..settings() };
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::]"] {
        let result = connect(&format!("ws://{host}:{port}/"), &guarded).await;
        assert_eq!(result, Err(LinkError::Forbidden), "{host}");
    }
    assert_eq!(connect(&url, &guarded).await, Err(LinkError::Forbidden));
    assert!(listener.accept().now_or_never().is_none(), "somebody connected");
}

#[tokio::test]
async fn the_agent_sees_a_signature_over_the_url_it_was_dialled_by() {
    let (listener, url) = listen().await;
    let token = AuthToken::new("secret");
    let expected = token.sign(&url);
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let check = |request: &Request, response: Response| {
        assert_eq!(request.headers().get(signature::HEADER).unwrap(), &expected);
        Ok(response)
    };
    let accept = async {
        accept_hdr_async(listener.accept().await.unwrap().0, check).await.unwrap();
    };
    let (dialer, settings) = (dialer(), settings());
    let (link, ()) = tokio::join!(dialer.connect(&url, Some(&token), &settings), accept);
    assert!(link.is_ok());
}

#[tokio::test]
async fn wss_needs_an_issuer_the_gateway_trusts() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let root = link::certificates(issued.cert.pem().as_bytes()).unwrap().remove(0);
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();

    for (roots, trusted) in [(roots, true), (RootCertStore::empty(), false)] {
        let (listener, url) = listen().await;
        let url = url.replace("ws://127.0.0.1", "wss://localhost");
        let accept = async {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.ok()?;
            accept_async(stream).await.ok()
        };
        let (dialer, settings) = (Dialer::new(roots).unwrap(), settings());
        let (link, agent) = tokio::join!(dialer.connect(&url, None, &settings), accept);
        assert_eq!(agent.is_some(), trusted);
        assert_eq!(link.err(), (!trusted).then_some(LinkError::Tls));
    }
}

#[tokio::test]
async fn the_callers_audio_and_keys_go_up_in_order_and_stop_comes_last() {
    let (mut rig, mut agent) = Rig::open(settings()).await;
    rig.port.say(0);
    rig.port.ends().up.push_back(Up::Digit { digit: '7', duration_ms: 90 });
    rig.port.say(1000);
    rig.tick().await;
    let order = Order::Pressed { digit: '9', duration_ms: 90 };
    rig.orders.as_ref().unwrap().send(order).await.unwrap();
    rig.wake.order();
    let first = heard(&mut agent).await;
    assert_eq!(first["media"]["payload"], STANDARD.encode([0xFF; FRAME_SAMPLES]));
    assert_eq!(
        (&first["sequenceNumber"], &first["media"]["timestamp"]),
        (&"2".into(), &"20".into())
    );
    assert_eq!(heard(&mut agent).await["dtmf"]["digit"], "7");
    assert_eq!(heard(&mut agent).await["media"]["timestamp"], "40");
    assert_eq!(heard(&mut agent).await["dtmf"]["digit"], "9");
    rig.stop();
    let stop = heard(&mut agent).await;
    assert_eq!((&stop["event"], &stop["sequenceNumber"]), (&"stop".into(), &"6".into()));
    let Some(Ok(Message::Close(Some(frame)))) = agent.next().await else { panic!("no close") };
    assert_eq!(u16::from(frame.code), 1000);
    while agent.next().await.is_some() {}
    let (end, report) = rig.pump.await.unwrap();
    assert_eq!(end, End::Stopped);
    assert_eq!((report.frames_sent, report.frames_dropped), (2, 0));
}

#[tokio::test]
async fn an_agent_that_does_not_answer_the_goodbye_is_left_behind() {
    let (mut rig, _agent) = Rig::open(LinkSettings { close_timeout_ms: 20, ..settings() }).await;
    rig.stop();
    assert_eq!(rig.pump.await.unwrap().0, End::Stopped);
}

#[tokio::test]
async fn single_octets_come_out_as_whole_frames() {
    let (mut rig, mut agent) = Rig::open(settings()).await;
    let said = speech(FRAME_SAMPLES * 2);
    for octet in &said {
        say(&mut agent, media(&[*octet])).await;
    }
    assert_eq!(rig.event().await, AgentEvent::FirstAudio);
    assert_eq!(rig.play(said.len()).await, said);
}

#[tokio::test]
async fn a_minute_in_one_message_is_played_without_a_gap_and_then_marked() {
    let (rig, mut agent) = Rig::open(settings()).await;
    let said = speech(60 * 8000);
    say(&mut agent, media(&said)).await;
    say(&mut agent, mark("end")).await;
    let early = tokio::time::timeout(Duration::from_millis(20), heard(&mut agent)).await;
    assert!(early.is_err(), "a mark overtook its audio");
    assert_eq!(rig.play(said.len()).await, said);
    assert_eq!(heard(&mut agent).await["mark"]["name"], "end");
}

#[tokio::test]
async fn audio_before_the_answer_waits_and_its_first_frame_is_heard() {
    let (rig, mut agent) = Rig::open(settings()).await;
    let said = speech(FRAME_SAMPLES * 20);
    say(&mut agent, media(&said)).await;
    for _ in 0..100 {
        rig.wake.audio(); // the gate is shut: ticks, and nothing is consumed
        yield_now().await;
    }
    assert_eq!(rig.port.ends().ring.len() as u64, playout::AHEAD_FRAMES);
    assert_eq!(rig.play(said.len()).await, said);
}

#[tokio::test]
async fn a_clear_is_silent_at_once_and_returns_every_mark() {
    let (rig, mut agent) = Rig::open(settings()).await;
    say(&mut agent, media(&speech(8000))).await;
    say(&mut agent, mark("a")).await;
    say(&mut agent, media(&speech(8000))).await;
    say(&mut agent, mark("b")).await;
    let before = rig.play(FRAME_SAMPLES * 3).await.len();
    say(&mut agent, clear()).await;
    assert_eq!(heard(&mut agent).await["mark"]["name"], "a");
    assert_eq!(heard(&mut agent).await["mark"]["name"], "b");
    for _ in 0..10 {
        rig.tick().await;
    }
    assert_eq!(rig.port.ends().played.len(), before);
    say(&mut agent, mark("now")).await;
    assert_eq!(heard(&mut agent).await["mark"]["name"], "now");
    say(&mut agent, media(&[1; FRAME_SAMPLES])).await;
    let played = rig.play(before + FRAME_SAMPLES).await;
    assert_eq!(played[before..], [1; FRAME_SAMPLES]);
}

#[tokio::test]
async fn garbage_is_warned_of_once_and_the_stream_goes_on() {
    let (mut rig, mut agent) = Rig::open(settings()).await;
    for _ in 0..3 {
        agent.send(Message::binary(vec![0; 100])).await.unwrap();
        say(&mut agent, "garbage").await;
        say(&mut agent, clear().replace("MZ07", "MZ99")).await;
    }
    say(&mut agent, media(&[3; FRAME_SAMPLES])).await;
    assert_eq!(rig.event().await, AgentEvent::Warning(Warning::Undecodable));
    assert_eq!(rig.event().await, AgentEvent::Warning(Warning::Unexpected));
    assert_eq!(rig.event().await, AgentEvent::FirstAudio);
    assert_eq!(rig.play(FRAME_SAMPLES).await, [3; FRAME_SAMPLES]);
    rig.stop();
    drop(agent);
    let (_, report) = rig.pump.await.unwrap();
    assert_eq!((report.messages, report.warnings), (1, [3, 6, 0, 0, 0]));
}

#[tokio::test]
async fn a_flood_is_bounded_by_the_play_out_queue() {
    let (mut rig, mut agent) =
        Rig::open(LinkSettings { playout_limit_ms: 1000, ..settings() }).await;
    say(&mut agent, media(&speech(61 * 8000))).await;
    assert_eq!(rig.event().await, AgentEvent::Warning(Warning::QueueFull));
    assert_eq!(rig.event().await, AgentEvent::FirstAudio);
    assert_eq!(rig.play(8000).await, speech(8000));
    rig.stop();
    drop(agent);
    assert_eq!(rig.pump.await.unwrap().1.refused_ms, 60_000);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_link() {
    let (rig, mut agent) = Rig::open(settings()).await;
    let sent = agent.send(Message::text("x".repeat(link::MAX_MESSAGE_OCTETS + 1)));
    let (_, (end, _)) = tokio::join!(sent, async { rig.pump.await.unwrap() });
    assert_eq!(end, End::Lost(LinkError::Protocol));
}

#[tokio::test]
async fn an_agent_that_dies_is_noticed_at_once() {
    let (rig, agent) = Rig::open(settings()).await;
    let stream = agent.into_inner();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(rig.pump.await.unwrap().0, End::Lost(LinkError::Closed { code: 1006 }));
}

#[tokio::test]
async fn the_last_words_of_an_agent_that_hangs_up_are_heard() {
    let (rig, mut agent) = Rig::open(settings()).await;
    let said = speech(8000 + 10);
    say(&mut agent, media(&said)).await;
    let goodbye = CloseFrame { code: 4321.into(), reason: "bye".into() };
    agent.send(Message::Close(Some(goodbye))).await.unwrap();
    let played = rig.play(said.len()).await;
    assert_eq!(played[..said.len()], said);
    assert_eq!(rig.pump.await.unwrap().0, End::Closed { code: 4321 });
}

#[tokio::test]
async fn last_words_that_nobody_plays_do_not_hold_up_the_end() {
    let (rig, mut agent) = Rig::open(settings()).await;
    say(&mut agent, media(&speech(8000))).await;
    agent.send(Message::Close(None)).await.unwrap();
    assert_eq!(rig.pump.await.unwrap().0, End::Closed { code: 1005 });
}

#[tokio::test]
async fn an_agent_that_stops_reading_costs_its_oldest_audio_and_then_its_link() {
    let (listener, url) = listen().await;
    socket2::SockRef::from(&listener).set_recv_buffer_size(2048).unwrap();
    let impatient = LinkSettings { stall_timeout_ms: 100, heartbeat_interval_ms: 0, ..settings() };
    let (rig, agent) = Rig::open_at(impatient, listener, &url).await;
    for _ in 0..20_000 {
        if rig.pump.is_finished() {
            break;
        }
        rig.port.say(1);
        rig.tick().await;
        tokio::task::spawn_blocking(|| ()).await.unwrap(); // lets time pass without a sleep
    }
    let (end, report) = rig.pump.await.unwrap();
    assert_eq!(end, End::Lost(LinkError::Stalled));
    assert!(report.frames_dropped > 0 && report.warnings[4] > 0, "{report:?}");
    drop(agent);
}

#[tokio::test]
async fn an_agent_that_reads_again_gets_the_newest_audio_with_the_gap_in_its_time_stamps() {
    let (listener, url) = listen().await;
    socket2::SockRef::from(&listener).set_recv_buffer_size(2048).unwrap();
    let patient = LinkSettings { heartbeat_interval_ms: 0, ..settings() };
    let (rig, mut agent) = Rig::open_at(patient, listener, &url).await;
    const SAID: u64 = 200;
    for _ in 0..SAID {
        rig.port.say(1);
        rig.tick().await;
    }
    let (mut stamps, mut sequence) = (Vec::new(), 1);
    while stamps.last() != Some(&(SAID * 20)) {
        let message = heard(&mut agent).await;
        sequence += 1;
        assert_eq!(message["sequenceNumber"], sequence.to_string());
        stamps.push(message["media"]["timestamp"].as_str().unwrap().parse::<u64>().unwrap());
    }
    assert!(stamps.is_sorted());
    assert!(stamps.len() < 100, "{} of {SAID} frames were kept for a slow reader", stamps.len());
    let newest = stamps.iter().filter(|stamp| **stamp > (SAID - 10) * 20).count();
    assert_eq!(newest, 10, "the last 200 ms are whole");
}

#[tokio::test]
async fn an_agent_without_a_sign_of_life_is_given_up() {
    let impatient =
        LinkSettings { heartbeat_interval_ms: 10, heartbeat_timeout_ms: 60, ..settings() };
    let (rig, agent) = Rig::open(impatient).await;
    assert_eq!(rig.pump.await.unwrap().0, End::Lost(LinkError::Silent));
    drop(agent);
}

#[tokio::test]
async fn an_agent_that_only_answers_pings_is_alive() {
    let impatient =
        LinkSettings { heartbeat_interval_ms: 5, heartbeat_timeout_ms: 60, ..settings() };
    let (rig, mut agent) = Rig::open(impatient).await;
    let mut pings = 0;
    while pings < 20 {
        if let Message::Ping(_) = agent.next().await.unwrap().unwrap() {
            pings += 1;
        }
    }
    assert!(!rig.pump.is_finished());
}

#[tokio::test]
async fn a_call_whose_media_is_gone_says_goodbye() {
    let (rig, mut agent) = Rig::open(settings()).await;
    rig.port.ends().closed = true;
    rig.wake.audio();
    assert_eq!(heard(&mut agent).await["event"], "stop");
    drop(agent);
    assert_eq!(rig.pump.await.unwrap().0, End::Stopped);
}

#[tokio::test]
async fn keys_of_the_agent_go_to_the_caller_and_do_not_disturb_marks() {
    let (rig, mut agent) = Rig::open(settings()).await;
    for digit in "12#".chars() {
        let order = Order::Press { digit, duration_ms: 100 };
        rig.orders.as_ref().unwrap().send(order).await.unwrap();
        rig.wake.order();
    }
    say(&mut agent, media(&[5; FRAME_SAMPLES])).await;
    say(&mut agent, mark("m")).await;
    assert_eq!(rig.play(FRAME_SAMPLES).await, [5; FRAME_SAMPLES]);
    assert_eq!(rig.port.ends().keys, "12#");
    assert_eq!(heard(&mut agent).await["mark"]["name"], "m");
}

fn start_at(
    url: String,
) -> (AgentHandle, mpsc::Receiver<(u64, AgentEvent)>, media::port::WorkerPort) {
    let (worker, port) = agent_port(16);
    let (events_in, events) = mpsc::channel(16);
    let handle = start(
        AgentStart {
            call: 42,
            url,
            dialect: Kind::Twilio,
            token: None,
            opening: opening(),
            settings: settings(),
            dialer: dialer(),
            port,
            wake: Arc::new(Wake::default()),
        },
        events_in,
    );
    (handle, events, worker)
}

#[tokio::test]
async fn a_link_that_cannot_be_opened_fails_and_gives_the_port_back() {
    let (listener, url) = listen().await;
    drop(listener);
    let (handle, mut events, _worker) = start_at(url);
    assert!(handle.reclaim().is_none());
    let event = events.recv().await;
    assert_eq!(event, Some((42, AgentEvent::Failed(LinkError::Refused))));
    let port: Option<AgentPort> = handle.reclaim();
    assert!(port.is_some() && handle.reclaim().is_none());
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn a_dropped_handle_stops_the_link_whether_open_or_not() {
    let (_listener, url) = listen().await;
    let (handle, mut events, _worker) = start_at(url);
    drop(handle);
    assert!(matches!(events.recv().await, Some((42, AgentEvent::Ended(End::Stopped, _)))));

    let (listener, url) = listen().await;
    let (handle, mut events, _worker) = start_at(url);
    let _agent = accept_async(listener.accept().await.unwrap().0).await.unwrap();
    assert_eq!(events.recv().await, Some((42, AgentEvent::Ready)));
    handle.stop();
    assert!(matches!(events.recv().await, Some((42, AgentEvent::Ended(End::Stopped, _)))));
}
