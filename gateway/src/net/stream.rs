//! SIP over TCP and TLS (RFC 3261 §18.3): accepting, framing, and deadlines for slow senders.
//!
//! Connections that we open ([`super::reach`]) run through the same loop, counted apart: a flood of
//! accepted ones takes no place from them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::settings::Advertise;
use sip::{Flow, Frame, StreamFramer, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::tls::ServerIdentity;
use super::{CONNECTION_DEPTH, Inbound, Outbound, STREAMS_DEPTH, address};
use crate::clock;

/// A connection that has sent no whole message by then is closed.
const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

/// A message that has begun must be whole by then.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

/// A connection that is silent for so long is closed; RFC 5626 §4.4.1 pings count as life.
const IDLE_DEADLINE: Duration = Duration::from_secs(3600);

/// A connection of ours that no call holds and nothing moves on is closed after this long.
const UNUSED_DEADLINE: Duration = Duration::from_secs(600);

/// Depth of the send queue of a connection of ours, in messages: all calls of a carrier may have to
/// be hung up on it at once.
const OPENED_DEPTH: usize = 8192;

/// A TLS handshake must be done by then.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that does not take a message within this time loses its connection.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How long answers may still go out on a stream whose peer has sent its last byte, or nonsense.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Bytes read at once.
const READ_CHUNK: usize = 4096;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Binds a listener. As with datagrams `[::]` is IPv6 alone, so that both families can have the same
/// port.
///
/// # Errors
/// Whatever the kernel says to `bind` or `listen`.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What every connection of the program shares.
#[derive(Clone)]
pub struct Streams {
    inbound: mpsc::Sender<Inbound>,
    places: Arc<Semaphore>,
    outbound: Outbound,
    next: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max_open: usize,
    /// Connections that we opened.
    opened: Arc<AtomicUsize>,
    advertise: Arc<[Advertise]>,
}

impl Streams {
    /// Connections report to `inbound` and become reachable through `outbound`.
    #[must_use]
    pub fn new(
        inbound: mpsc::Sender<Inbound>,
        outbound: Outbound,
        max_open: usize,
        advertise: Arc<[Advertise]>,
    ) -> Self {
        Streams {
            inbound,
            places: Arc::new(Semaphore::new(STREAMS_DEPTH)),
            outbound,
            next: Arc::new(AtomicU64::new(1)),
            open: Arc::default(),
            by_address: Arc::default(),
            max_open,
            opened: Arc::default(),
            advertise,
        }
    }

    /// Accepts TCP connections until the listener fails for good.
    pub async fn accept_tcp(self, listener: TcpListener) {
        while let Some((stream, peer)) = accept(&listener).await {
            let Some(slot) = self.reserve(peer) else { continue };
            let streams = self.clone();
            tokio::spawn(async move {
                let _slot = slot;
                if let Some(flow) = streams.flow(&stream, Transport::Tcp) {
                    streams.run(stream, flow, &Side::Accepted).await;
                }
            });
        }
    }

    /// Accepts TLS connections with the identity of the moment, so that a reload takes effect at once.
    pub async fn accept_tls(self, listener: TcpListener, identity: ServerIdentity) {
        while let Some((stream, peer)) = accept(&listener).await {
            let Some(slot) = self.reserve(peer) else { continue };
            let streams = self.clone();
            let acceptor = identity.acceptor();
            tokio::spawn(async move {
                let _slot = slot;
                let Some(flow) = streams.flow(&stream, Transport::Tls) else { return };
                match timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => streams.run(stream, flow, &Side::Accepted).await,
                    Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => debug!(%peer, "TLS handshake took too long"),
                }
            });
        }
    }

    /// Accepted connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections of ours that are open, or being opened, now.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// A place for one more connection of ours, of `most`.
    pub(super) fn reserve_opened(&self, most: usize) -> Option<OpenedSlot> {
        let slot = OpenedSlot(Arc::clone(&self.opened));
        // Counted first: of two at once none slips through.
        (self.opened.fetch_add(1, Ordering::Relaxed) < most).then_some(slot)
    }

    /// The flow of a connection that we opened. Its local port is `listening` when there is one: that
    /// is where Via and Contact send the peer when the connection is gone (RFC 3261 §18.1.1).
    pub(super) fn opened_flow(
        &self,
        stream: &TcpStream,
        transport: Transport,
        listening: Option<u16>,
    ) -> Option<Flow> {
        let mut flow = self.flow(stream, transport)?;
        if let Some(port) = listening {
            flow.local.set_port(port);
        }
        Some(flow)
    }

    /// Makes a connection that we opened reachable, and gives what runs it to its end.
    pub(super) fn adopt<S: AsyncRead + AsyncWrite + Send + 'static>(
        &self,
        stream: S,
        flow: Flow,
        usage: Arc<Usage>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let streams = self.clone();
        let (queue, waiting) = mpsc::channel(OPENED_DEPTH);
        self.outbound.register(flow.connection, queue.clone());
        async move { streams.carry(stream, flow, &Side::Opened(usage), (queue, waiting)).await }
    }

    /// A place for one more connection. A quarter of all places is the most one address gets, so
    /// that nobody can take them all.
    fn reserve(&self, peer: SocketAddr) -> Option<Slot> {
        let address = peer.ip().to_canonical();
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let most = (self.max_open / 4).max(1);
        let taken = by_address.get(&address).copied().unwrap_or(0);
        if taken >= most || self.open.load(Ordering::Relaxed) >= self.max_open {
            debug!(%peer, taken, "connection refused: no place");
            return None;
        }
        by_address.insert(address, taken + 1);
        drop(by_address);
        self.open.fetch_add(1, Ordering::Relaxed);
        let (open, by_address) = (Arc::clone(&self.open), Arc::clone(&self.by_address));
        Some(Slot { open, by_address, address })
    }

    fn flow(&self, stream: &TcpStream, transport: Transport) -> Option<Flow> {
        let _ = stream.set_nodelay(true);
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let (local, remote) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
        let seen = address::reachable_at(&self.advertise, local.ip(), remote.ip());
        let local = SocketAddr::new(seen, local.port());
        Some(Flow { transport, local, remote, connection })
    }

    /// Runs one accepted connection to its end.
    async fn run<S>(&self, stream: S, flow: Flow, side: &Side)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(CONNECTION_DEPTH);
        self.outbound.register(flow.connection, queue.clone());
        self.carry(stream, flow, side, (queue, waiting)).await;
    }

    /// Carries messages both ways until the connection ends, and says so.
    async fn carry<S>(&self, stream: S, flow: Flow, side: &Side, (queue, mut waiting): Queue)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let write = async {
            while let Some(bytes) = waiting.recv().await {
                side.wrote();
                match timeout(WRITE_DEADLINE, writer.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    _ => return,
                }
            }
        };
        let read = self.read(&mut reader, flow, queue, side);
        tokio::pin!(write);
        tokio::select! {
            () = &mut write => {}
            finished = read => if finished {
                // What the last messages are answered with still goes out.
                side.finish();
                drop(timeout(LAST_WORDS, write).await);
            },
        }
        self.outbound.forget(flow.connection);
        let place = self.place().await;
        let _ = self.inbound.send(Inbound::Closed { flow, place }).await;
    }

    /// Reads until the peer closes, misbehaves or falls silent. False when the connection broke:
    /// then nothing can be written to it any more either.
    async fn read<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        flow: Flow,
        pong: mpsc::Sender<Bytes>,
        side: &Side,
    ) -> bool {
        let mut framer = StreamFramer::new();
        let mut chunk = BytesMut::with_capacity(READ_CHUNK);
        let mut patience = Patience::of(side);
        loop {
            chunk.clear();
            match timeout_at(patience.until, reader.read_buf(&mut chunk)).await {
                Ok(Ok(0)) => return true,
                Ok(Err(error)) => {
                    debug!(remote = %flow.remote, %error, "stream broke");
                    return false;
                }
                Err(_) if patience.is_used(side) => continue,
                Err(_) => return true,
                Ok(Ok(_)) => framer.push(&chunk),
            }
            if self.hand_on(&mut framer, flow, &pong, &mut patience).await.is_none() {
                return true;
            }
            patience.after_read(framer.pending() > 0);
        }
    }

    /// A place in the queue to the shard. There will be one: nobody closes the semaphore.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Hands on every message that is whole; `None` when the connection is to end.
    async fn hand_on(
        &self,
        framer: &mut StreamFramer,
        flow: Flow,
        pong: &mpsc::Sender<Bytes>,
        patience: &mut Patience,
    ) -> Option<()> {
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Message(bytes))) => {
                    patience.message_came();
                    let place = self.place().await;
                    let message = Inbound::Message { flow, bytes, at: clock::now(), place };
                    self.inbound.send(message).await.ok()?;
                }
                // RFC 5626 §3.5.1: a double CRLF is answered by a single one.
                Ok(Some(Frame::Ping)) => {
                    let _ = pong.try_send(Bytes::from_static(b"\r\n"));
                }
                Ok(Some(Frame::Pong)) => {}
                Ok(None) => return Some(()),
                Err(error) => {
                    debug!(remote = %flow.remote, ?error, "stream framing broken, closing");
                    return None;
                }
            }
        }
    }
}

/// A connection's send queue, both ends.
type Queue = (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>);

/// Who opened a connection.
enum Side {
    /// The peer.
    Accepted,
    /// We.
    Opened(Arc<Usage>),
}

impl Side {
    fn wrote(&self) {
        if let Side::Opened(usage) = self {
            usage.moved.store(true, Ordering::Relaxed);
        }
    }

    fn finish(&self) {
        if let Side::Opened(usage) = self {
            usage.finished.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether a connection of ours is needed.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Calls that hold it.
    holders: AtomicUsize,
    /// Something was sent since the last look.
    moved: AtomicBool,
    /// The peer has said its last: nothing new is begun on it.
    finished: AtomicBool,
}

impl Usage {
    /// Whether requests may still be answered on it.
    pub(super) fn is_live(&self) -> bool {
        !self.finished.load(Ordering::Relaxed)
    }
}

/// Keeps a connection of ours open for as long as it, or a clone of it, exists, however silent the
/// connection is. Does nothing for datagrams.
#[derive(Debug)]
pub struct Hold(Option<Arc<Usage>>);

impl Hold {
    /// Of a connection, or of nothing.
    pub(super) fn new(usage: Option<&Arc<Usage>>) -> Hold {
        if let Some(usage) = usage {
            usage.holders.fetch_add(1, Ordering::Relaxed);
        }
        Hold(usage.cloned())
    }
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        Hold::new(self.0.as_ref())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(usage) = &self.0 {
            usage.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Until when a connection may go on without completing what it began. The time-limit of a message
/// runs from its first byte: dripping bytes does not extend it.
struct Patience {
    until: Instant,
    state: Waiting,
    idle: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    First,
    Rest,
    Any,
}

impl Patience {
    /// Who connects has something to say soon; who was connected to may wait for us.
    fn of(side: &Side) -> Self {
        let (state, first, idle) = match side {
            Side::Accepted => (Waiting::First, FIRST_MESSAGE_DEADLINE, IDLE_DEADLINE),
            Side::Opened(_) => (Waiting::Any, UNUSED_DEADLINE, UNUSED_DEADLINE),
        };
        Patience { until: Instant::now() + first, state, idle }
    }

    fn message_came(&mut self) {
        self.state = Waiting::Any;
    }

    /// Whether a connection that was silent to the end of its time is still needed, and gets more.
    fn is_used(&mut self, side: &Side) -> bool {
        let used = match side {
            Side::Opened(usage) => {
                usage.moved.swap(false, Ordering::Relaxed)
                    || usage.holders.load(Ordering::Relaxed) > 0
            }
            Side::Accepted => false,
        };
        let more = used && self.state == Waiting::Any;
        if more {
            self.until = Instant::now() + self.idle;
        }
        more
    }

    fn after_read(&mut self, mid_message: bool) {
        match (self.state, mid_message) {
            (Waiting::First, _) | (Waiting::Rest, true) => {}
            (Waiting::Any, true) => {
                self.state = Waiting::Rest;
                self.until = Instant::now() + MESSAGE_DEADLINE;
            }
            (Waiting::Any | Waiting::Rest, false) => {
                self.state = Waiting::Any;
                self.until = Instant::now() + self.idle;
            }
        }
    }
}

/// One place among the connections of ours; freed when dropped.
pub(super) struct OpenedSlot(Arc<AtomicUsize>);

impl Drop for OpenedSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One place among the open connections; freed when dropped.
struct Slot {
    open: Arc<AtomicUsize>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut taken) = by_address.entry(self.address) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

/// The next connection; transient errors (no descriptors) are waited out instead of spinning.
async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok(accepted) => return Some(accepted),
            Err(error) if is_fatal(&error) => {
                warn!(%error, "listener failed");
                return None;
            }
            Err(error) => {
                debug!(%error, "accept failed, trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_fatal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_of_ours_stays_while_it_is_held_or_something_was_sent() {
        let usage = Arc::new(Usage::default());
        let side = Side::Opened(Arc::clone(&usage));
        let mut patience = Patience::of(&side);
        assert!(!patience.is_used(&side), "nobody needs it");
        side.wrote();
        assert!(patience.is_used(&side) && !patience.is_used(&side), "once for what was sent");
        let hold = Hold::new(Some(&usage));
        let other = hold.clone();
        drop(hold);
        assert!(patience.is_used(&side), "the other still holds it");
        patience.after_read(true);
        assert!(!patience.is_used(&side), "half a message is waited for no longer");
        patience.after_read(false);
        drop(other);
        assert!(!patience.is_used(&side));
        assert!(!Patience::of(&Side::Accepted).is_used(&Side::Accepted));
    }

    #[tokio::test]
    async fn a_message_of_a_stream_holds_a_place_until_it_is_done_with() {
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let address = listener.local_addr().expect("bound");
        let (inbound, mut queue) = mpsc::channel(8);
        let streams = Streams::new(inbound, Outbound::default(), 1, Arc::from([]));
        let places = Arc::clone(&streams.places);
        let all = places.available_permits();
        let accepting = tokio::spawn(streams.accept_tcp(listener));
        let mut peer = TcpStream::connect(address).await.expect("accepted");
        let text = "OPTIONS sip:a@x SIP/2.0\r\nContent-Length: 0\r\n\r\n";
        peer.write_all(text.repeat(2).as_bytes()).await.expect("sent");
        let (one, two) = (queue.recv().await, queue.recv().await);
        assert!(one.is_some() && two.is_some());
        assert_eq!(all - places.available_permits(), 2);
        drop((one, two));
        // With no place left nothing more is read from streams, and the queue has room for others.
        let taken = Arc::clone(&places).try_acquire_many_owned(u32::try_from(all).expect("few"));
        peer.write_all(text.as_bytes()).await.expect("sent");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(queue.try_recv().is_err());
        drop(taken.expect("all are free"));
        assert!(queue.recv().await.is_some());
        drop(peer);
        let Some(Inbound::Closed { place: Some(_), .. }) = queue.recv().await else { panic!() };
        accepting.abort();
    }

    #[tokio::test]
    async fn both_families_share_a_port() {
        let Ok(six) = bind("[::]:0".parse().expect("an address")) else { return };
        let port = six.local_addr().expect("bound").port();
        bind(SocketAddr::new("0.0.0.0".parse().expect("an address"), port)).expect("free");
    }
}
