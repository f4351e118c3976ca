//! Reaching out: what the signalling shard asks for when a call is to go somewhere, without waiting.
//!
//! ```text
//!  shard                         Reach                                     network
//!    ├─ locate(ticket, host) ─────► Resolver ────────────────────────────► name servers
//!    │◄── Located { ticket, targets in order } ──┘
//!    ├─ connect(ticket, target) ──► UDP: at once
//!    │                              TCP, TLS: one of ours that is open ─┐
//!    │                                        or dial, handshake ───────┼► peer
//!    │◄── Connected { ticket, flow } ───────────────────────────────────┘
//! ```
//!
//! Every ticket is answered exactly once, in its own time: `Located` within
//! [`LOOKUP_DEADLINE`](super::resolve::LOOKUP_DEADLINE), `Connected` within the deadlines of
//! [`Limits`]. A connection is shared by those who ask for the same transport, address, name in the
//! certificate and profile, also while it is being opened; one that a peer opened is never used, for
//! nobody has checked whom it belongs to. What arrives on a connection of ours reaches the shard as
//! [`Inbound`](super::Inbound) like everything else, its end included.
//!
//! When a connection breaks in mid-call, `connect` again gives another one, and
//! [`sip::Endpoint::move_dialog`] has the dialog use it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use sip::{Flow, Transport};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::resolve::Resolver;
pub use super::stream::Hold;
use super::stream::{OpenedSlot, Streams, Usage};
pub use super::target::{Destination, LocateError, Target};
pub use super::trust::TlsFault;
use super::trust::Trust;
use super::{Outbound, address};

/// An answer to the shard. The number is the one it asked with.
#[derive(Debug)]
pub enum Reached {
    /// To [`Reach::locate`].
    Located {
        /// The ticket.
        ticket: u64,
        /// The addresses to try, best first, at least one; or why there is none.
        result: Result<Vec<Target>, LocateError>,
    },
    /// To [`Reach::connect`].
    Connected {
        /// The ticket.
        ticket: u64,
        /// A flow that can be sent on, or why there is none.
        result: Result<Connection, ConnectError>,
    },
}

/// A way to a peer.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What to send on. Its local address is where the peer reaches us: for Via and Contact.
    pub flow: Flow,
    /// Keeps the connection open; to be kept for as long as a call needs it. Without any holder a
    /// silent connection is closed after ten minutes.
    pub hold: Hold,
}

/// Why there is no way to a target. Its text is for the customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ConnectError {
    /// No socket of ours sends to such an address.
    #[error("there is no local address from which the destination can be reached")]
    NoSocket,
    /// As many connections as are allowed are open.
    #[error("too many outgoing connections are open")]
    NoPlace,
    /// Nobody listens there.
    #[error("the destination refused the connection")]
    Refused,
    /// The network says no.
    #[error("the destination cannot be reached")]
    Unreachable,
    /// Nobody answered in time.
    #[error("the destination did not answer in time")]
    Timeout,
    /// The connection is there; the handshake was not done in time.
    #[error("the destination did not finish the TLS handshake in time")]
    HandshakeTimeout,
    /// The handshake failed.
    #[error("no TLS with the destination: {0}")]
    Tls(#[from] TlsFault),
}

impl ConnectError {
    /// The stable word for metrics, records and the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ConnectError::NoSocket => "connect_no_socket",
            ConnectError::NoPlace => "connect_no_place",
            ConnectError::Refused => "connect_refused",
            ConnectError::Unreachable => "connect_unreachable",
            ConnectError::Timeout => "connect_timeout",
            ConnectError::HandshakeTimeout => "tls_timeout",
            ConnectError::Tls(fault) => fault.code(),
        }
    }

    fn of_dial(error: &io::Error) -> ConnectError {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                ConnectError::Refused
            }
            io::ErrorKind::TimedOut => ConnectError::Timeout,
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput => ConnectError::NoSocket,
            _ => ConnectError::Unreachable,
        }
    }
}

/// The bounds of connections of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For TCP to connect.
    pub connect: Duration,
    /// For the TLS handshake after that.
    pub handshake: Duration,
    /// Most connections of ours at a time, those being opened included.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            max_connections: 1024,
        }
    }
}

/// Where streams are listened for: those that we open are bound to the same addresses, and tell the
/// peer the same ports.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// TCP.
    pub tcp: Vec<SocketAddr>,
    /// TLS.
    pub tls: Vec<SocketAddr>,
}

/// Everything that reaching out needs, given once.
pub struct Means {
    /// For names.
    pub resolver: Resolver,
    /// What runs connections.
    pub streams: Streams,
    /// The datagram sockets.
    pub outbound: Outbound,
    /// Where streams are listened for.
    pub listeners: Listeners,
    /// Whom to believe over TLS.
    pub trust: Trust,
    /// Bounds.
    pub limits: Limits,
}

/// Reaches out on behalf of the shard. Clones share everything.
#[derive(Clone)]
pub struct Reach {
    inner: Arc<Inner>,
}

struct Inner {
    means: Means,
    events: mpsc::Sender<Reached>,
    pool: Mutex<HashMap<Key, Place>>,
}

/// Who may share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    target: Target,
    profile: u64,
}

/// A connection of ours.
enum Place {
    /// Being opened; these tickets wait for it.
    Opening(Vec<u64>),
    /// Opened, and perhaps closed since.
    Open(Flow, Arc<Usage>),
}

impl Reach {
    /// Answers come out of `events`' other end. One ticket is one answer, so that as many as there
    /// are calls under way wait at most.
    #[must_use]
    pub fn new(means: Means, events: mpsc::Sender<Reached>) -> Self {
        Reach { inner: Arc::new(Inner { means, events, pool: Mutex::default() }) }
    }

    /// Looks a destination up; [`Reached::Located`] comes within two seconds.
    pub fn locate(&self, ticket: u64, destination: Destination) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let result = inner.means.resolver.locate(&destination).await;
            let _ = inner.events.send(Reached::Located { ticket, result }).await;
        });
    }

    /// Opens a way to a target, or finds one that is open; [`Reached::Connected`] comes at once, or
    /// when the deadlines are over at the latest. Connections are shared within a `profile` only: a
    /// number for what else must be equal, 0 when nothing must.
    ///
    /// Must be called within a tokio runtime.
    pub fn connect(&self, ticket: u64, target: Target, profile: u64) {
        if target.transport == Transport::Udp {
            let flow = self.datagrams(target.address);
            let result = flow.map(|flow| Connection { flow, hold: Hold::new(None) });
            return self.inner.tell(ticket, result);
        }
        let key = Key { target, profile };
        if let Some(open) = self.inner.join(ticket, &key) {
            self.inner.tell(ticket, Ok(open));
        }
    }

    /// The flow of datagrams to an address, without a ticket: nothing has to be waited for.
    ///
    /// # Errors
    /// [`ConnectError::NoSocket`].
    pub fn datagrams(&self, remote: SocketAddr) -> Result<Flow, ConnectError> {
        self.inner.means.outbound.datagrams_to(remote).ok_or(ConnectError::NoSocket)
    }
}

impl Inner {
    fn pool(&self) -> MutexGuard<'_, HashMap<Key, Place>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a ticket without waiting.
    fn tell(self: &Arc<Self>, ticket: u64, result: Result<Connection, ConnectError>) {
        let answer = Reached::Connected { ticket, result };
        if let Err(mpsc::error::TrySendError::Full(answer)) = self.events.try_send(answer) {
            let inner = Arc::clone(self);
            tokio::spawn(async move { inner.events.send(answer).await });
        }
    }

    /// An open connection; `None` when the ticket waits for one, which is being opened then.
    fn join(self: &Arc<Self>, ticket: u64, key: &Key) -> Option<Connection> {
        let mut pool = self.pool();
        match pool.entry(key.clone()) {
            Entry::Occupied(mut place) => match place.get_mut() {
                Place::Opening(tickets) => {
                    tickets.push(ticket);
                    return None;
                }
                Place::Open(flow, usage)
                    if usage.is_live() && self.means.outbound.is_open(flow.connection) =>
                {
                    return Some(Connection { flow: *flow, hold: Hold::new(Some(usage)) });
                }
                closed @ Place::Open(..) => *closed = Place::Opening(vec![ticket]),
            },
            Entry::Vacant(place) => {
                place.insert(Place::Opening(vec![ticket]));
            }
        }
        let (inner, key) = (Arc::clone(self), key.clone());
        tokio::spawn(async move { inner.open(key).await });
        None
    }

    /// Opens a connection, answers those who wait for it, and runs it to its end.
    async fn open(self: Arc<Self>, key: Key) {
        let mut opening = Opening { inner: &self, key: &key, settled: false };
        let opened = match self.means.streams.reserve_opened(self.means.limits.max_connections) {
            Some(slot) => self.dial(&key.target, slot).await,
            None => Err(ConnectError::NoPlace),
        };
        let Opened { flow, usage, run, slot } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                debug!(target = %key.target.address, name = key.target.name, %error, "not connected");
                return opening.settle(Err(error));
            }
        };
        opening.settle(Ok((flow, usage)));
        run.await;
        drop(slot);
        let mut pool = self.pool();
        if matches!(pool.get(&key), Some(Place::Open(last, _)) if last.connection == flow.connection)
        {
            pool.remove(&key);
        }
    }

    async fn dial(&self, target: &Target, slot: OpenedSlot) -> Result<Opened, ConnectError> {
        let Limits { connect, handshake, .. } = self.means.limits;
        let (socket, listening) = self.socket(target)?;
        let stream = match timeout(connect, socket.connect(target.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(ConnectError::of_dial(&error)),
            Err(_) => return Err(ConnectError::Timeout),
        };
        notice_death(&stream);
        let streams = &self.means.streams;
        let flow = streams.opened_flow(&stream, target.transport, listening);
        let flow = flow.ok_or(ConnectError::Unreachable)?;
        let usage = Arc::new(Usage::default());
        let run: Run = if target.transport == Transport::Tls {
            let name = ServerName::try_from(target.name.clone()).map_err(|_| TlsFault::BadName)?;
            let connector = self.means.trust.connector();
            match timeout(handshake, connector.connect(name, stream)).await {
                Ok(Ok(stream)) => Box::pin(streams.adopt(stream, flow, Arc::clone(&usage))),
                Ok(Err(error)) => return Err(TlsFault::of_handshake(&error).into()),
                Err(_) => return Err(ConnectError::HandshakeTimeout),
            }
        } else {
            Box::pin(streams.adopt(stream, flow, Arc::clone(&usage)))
        };
        Ok(Opened { flow, usage, run, slot })
    }

    /// A socket bound to the address that the peer knows us by, and the port it may call back.
    fn socket(&self, target: &Target) -> Result<(TcpSocket, Option<u16>), ConnectError> {
        let Listeners { tcp, tls } = &self.means.listeners;
        let bound = if target.transport == Transport::Tls { tls } else { tcp };
        let peer = target.address.ip();
        let listener = address::sender(bound, peer);
        // Without a listener of this transport the address is still one of those we are known by.
        let known = || {
            let any = [tcp.as_slice(), tls.as_slice(), &self.means.outbound.bound()].concat();
            address::sender(&any, peer)
        };
        let own: Option<IpAddr> = listener.or_else(known).map(|one| one.ip());
        let made = if peer.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
        let socket = made.map_err(|_| ConnectError::NoSocket)?;
        if let Some(own) = own.filter(|ip| !ip.is_unspecified()) {
            socket.bind(SocketAddr::new(own, 0)).map_err(|_| ConnectError::NoSocket)?;
        }
        Ok((socket, listener.map(|one| one.port())))
    }
}

/// A connection that is ready.
struct Opened {
    flow: Flow,
    usage: Arc<Usage>,
    run: Run,
    slot: OpenedSlot,
}

type Run = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tickets that wait. Whatever becomes of the task, they are answered.
struct Opening<'a> {
    inner: &'a Arc<Inner>,
    key: &'a Key,
    settled: bool,
}

impl Opening<'_> {
    fn settle(&mut self, opened: Result<(Flow, Arc<Usage>), ConnectError>) {
        self.settled = true;
        let mut pool = self.inner.pool();
        let before = match &opened {
            Ok((flow, usage)) => {
                pool.insert(self.key.clone(), Place::Open(*flow, Arc::clone(usage)))
            }
            Err(_) => pool.remove(self.key),
        };
        drop(pool);
        let Some(Place::Opening(tickets)) = before else { return };
        for ticket in tickets {
            let result = match &opened {
                Ok((flow, usage)) => Ok(Connection { flow: *flow, hold: Hold::new(Some(usage)) }),
                Err(error) => Err(error.clone()),
            };
            self.inner.tell(ticket, result);
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(Err(ConnectError::Unreachable));
        }
    }
}

/// Silence of the peer's host is noticed while nothing is sent, and soon when something is.
fn notice_death(stream: &TcpStream) {
    const ASK_AFTER: Duration = Duration::from_secs(60);
    const ASK_EVERY: Duration = Duration::from_secs(15);
    const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY);
    // A system that cannot do this only notices later.
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

#[cfg(test)]
mod tests;
