//! Sockets: datagrams and streams in, datagrams and streams out. Nothing above knows sockets.
//!
//! ```text
//!  UDP socket ──┐                                            ┌── UDP socket (try_send)
//!  TCP accept ──┼─► Inbound (bounded) ─► shard ─► Outbound ──┼── connection (bounded queue)
//!  TLS accept ──┤                          │                 └── …
//!               │                          └─► Reach: locate (DNS), connect (TCP, TLS)
//!  connections we opened ◄────────────────────────┘
//! ```

pub mod address;
mod cache;
pub mod reach;
pub mod resolve;
pub mod stream;
pub mod target;
pub mod tls;
pub mod trust;
pub mod udp;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use config::settings::Advertise;
use sip::{Flow, Transport};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use address::Seen;

/// What sockets tell the shard.
#[derive(Debug)]
pub enum Inbound {
    /// One whole SIP message.
    Message {
        /// Where it came from and to.
        flow: Flow,
        /// The message.
        bytes: Bytes,
        /// When it was read.
        at: Instant,
        /// Of a stream: one of the [`STREAMS_DEPTH`] places, until it is dropped.
        place: Option<OwnedSemaphorePermit>,
    },
    /// A datagram of ours was refused on its way, or ICMP says so: anybody may.
    Refused {
        /// Whom it was for.
        remote: SocketAddr,
    },
    /// A stream is gone; nothing more comes from it or can be sent on it.
    Closed {
        /// The stream.
        flow: Flow,
        /// As that of a message.
        place: Option<OwnedSemaphorePermit>,
    },
}

/// Depth of the queue from all sockets to the shard, in messages. When it is full, datagrams are
/// dropped (SIP retransmits) and streams wait (TCP pushes back).
pub const INBOUND_DEPTH: usize = 4096;

/// How many of these messages may be of streams: those wait for a place and would have every one before a
/// datagram found it.
pub const STREAMS_DEPTH: usize = INBOUND_DEPTH / 2;

/// Depth of one connection's send queue, in messages. A peer that does not read loses its connection.
pub const CONNECTION_DEPTH: usize = 256;

/// Where the shard sends: every socket and every open connection.
#[derive(Clone, Default)]
pub struct Outbound {
    udp: Arc<HashMap<SocketAddr, Datagrams>>,
    connections: Arc<Mutex<HashMap<u64, mpsc::Sender<Bytes>>>>,
}

/// One datagram socket and how it looks from outside.
struct Datagrams {
    socket: Arc<UdpSocket>,
    seen: Mutex<Seen>,
}

impl Datagrams {
    fn seen_by(&self, peer: IpAddr) -> SocketAddr {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).by(peer)
    }
}

/// A message could not be handed to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No such socket or connection.
    Gone,
    /// The peer does not read, or the kernel's buffer is full.
    Full,
}

impl Outbound {
    /// Sends from these datagram sockets, keyed by the address they are bound to, which is also the
    /// one that peers see.
    #[must_use]
    pub fn new(udp: HashMap<SocketAddr, Arc<UdpSocket>>) -> Self {
        Outbound::advertised(udp, &Arc::from([]))
    }

    /// As `new`; `advertise` is what the receiving side of the sockets goes by too ([`Seen`]), so that
    /// a flow leads back to the socket it came in on.
    #[must_use]
    pub fn advertised(
        udp: HashMap<SocketAddr, Arc<UdpSocket>>,
        advertise: &Arc<[Advertise]>,
    ) -> Self {
        let with_view = |(bound, socket)| {
            let seen = Mutex::new(Seen::new(Arc::clone(advertise), bound));
            (bound, Datagrams { socket, seen })
        };
        Outbound {
            udp: Arc::new(udp.into_iter().map(with_view).collect()),
            connections: Arc::default(),
        }
    }

    /// The flow of datagrams of ours to `remote`: from the socket that reaches it, its local address
    /// as `remote` sees it. `None` when no socket does.
    #[must_use]
    pub fn datagrams_to(&self, remote: SocketAddr) -> Option<Flow> {
        let from = address::sender(&self.bound(), remote.ip())?;
        let local = self.udp.get(&from)?.seen_by(remote.ip());
        Some(Flow { transport: Transport::Udp, local, remote, connection: 0 })
    }

    /// Sends one message on its flow without waiting.
    ///
    /// # Errors
    /// [`SendError::Gone`] when the flow's socket or connection is not there, [`SendError::Full`]
    /// when it cannot take the message now.
    pub fn send(&self, flow: &Flow, bytes: Bytes) -> Result<(), SendError> {
        match flow.transport {
            Transport::Udp => {
                let socket = self.socket(flow).ok_or(SendError::Gone)?;
                let send = || socket.try_send_to(&bytes, flow.remote);
                // What went wrong with an earlier datagram is told to the next one, which is not to blame.
                let sent = match send() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => send(),
                    sent => sent,
                };
                sent.map(drop).map_err(|_| SendError::Full)
            }
            Transport::Tcp | Transport::Tls => {
                let connections = self.connections();
                let queue = connections.get(&flow.connection).ok_or(SendError::Gone)?;
                queue.try_send(bytes).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => SendError::Full,
                    mpsc::error::TrySendError::Closed(_) => SendError::Gone,
                })
            }
        }
    }

    /// The addresses that datagram sockets are bound to.
    pub(crate) fn bound(&self) -> Vec<SocketAddr> {
        self.udp.keys().copied().collect()
    }

    /// The socket behind a flow's local address: bound to it, or at least to its port. Where several
    /// are, behind one advertised address, it is the one that this peer sees there.
    fn socket(&self, flow: &Flow) -> Option<&UdpSocket> {
        let seen = flow.local;
        if let Some(exact) = self.udp.get(&seen) {
            return Some(&exact.socket);
        }
        let behind = |bound: &SocketAddr| {
            bound.port() == seen.port() && bound.is_ipv6() == flow.remote.is_ipv6()
        };
        let mut candidates = self.udp.iter().filter(|(bound, _)| behind(bound));
        let (_, first) = candidates.next()?;
        if first.seen_by(flow.remote.ip()) == seen {
            return Some(&first.socket);
        }
        let found = candidates.find(|(_, one)| one.seen_by(flow.remote.ip()) == seen);
        Some(found.map_or(&first.socket, |(_, one)| &one.socket))
    }

    /// Makes a connection reachable.
    pub(crate) fn register(&self, connection: u64, queue: mpsc::Sender<Bytes>) {
        self.connections().insert(connection, queue);
    }

    /// Forgets a connection; its task ends when the queue is dropped.
    pub(crate) fn forget(&self, connection: u64) {
        self.connections().remove(&connection);
    }

    /// Whether messages can be sent on this connection.
    pub(crate) fn is_open(&self, connection: u64) -> bool {
        self.connections().get(&connection).is_some_and(|queue| !queue.is_closed())
    }

    /// Open connections.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.connections().len()
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<Bytes>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
