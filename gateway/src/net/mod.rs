//! Sockets: datagrams and streams in, datagrams and streams out. Nothing above knows sockets.
//!
//! ```text
//!  UDP socket ──┐                                    ┌── UDP socket (try_send)
//!  TCP accept ──┼─► Inbound (bounded) ─► shard ─► Outbound ──┼── connection (bounded queue)
//!  TLS accept ──┘                                    └── …
//! ```

pub mod address;
pub mod stream;
pub mod tls;
pub mod udp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sip::{Flow, Transport};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// What sockets tell the shard.
#[derive(Debug)]
pub enum Inbound {
    /// One whole SIP message.
    Message {
        /// Where it came from and to.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// A stream is gone; nothing more comes from it or can be sent on it.
    Closed {
        /// The stream.
        flow: Flow,
    },
}

/// Depth of the queue from all sockets to the shard, in messages. When it is full, datagrams are
/// dropped (SIP retransmits) and streams wait (TCP pushes back).
pub const INBOUND_DEPTH: usize = 4096;

/// Depth of one connection's send queue, in messages. A peer that does not read loses its connection.
pub const CONNECTION_DEPTH: usize = 256;

/// Where the shard sends: every socket and every open connection.
#[derive(Clone, Default)]
pub struct Outbound {
    udp: Arc<HashMap<SocketAddr, Arc<UdpSocket>>>,
    connections: Arc<Mutex<HashMap<u64, mpsc::Sender<Bytes>>>>,
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
    /// Sends from these datagram sockets, keyed by the address they are bound to.
    #[must_use]
    pub fn new(udp: HashMap<SocketAddr, Arc<UdpSocket>>) -> Self {
        Outbound { udp: Arc::new(udp), connections: Arc::default() }
    }

    /// Sends one message on its flow without waiting.
    ///
    /// # Errors
    /// [`SendError::Gone`] when the flow's socket or connection is not there, [`SendError::Full`]
    /// when it cannot take the message now.
    pub fn send(&self, flow: &Flow, bytes: Bytes) -> Result<(), SendError> {
        match flow.transport {
            Transport::Udp => {
                let socket = self.socket(flow.local).ok_or(SendError::Gone)?;
                socket.try_send_to(&bytes, flow.remote).map(|_| ()).map_err(|_| SendError::Full)
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

    /// The socket behind an address as peers see it: bound to it, or at least to its port.
    fn socket(&self, seen: SocketAddr) -> Option<&UdpSocket> {
        let exact = self.udp.get(&seen);
        let behind =
            |bound: &SocketAddr| bound.port() == seen.port() && bound.is_ipv6() == seen.is_ipv6();
        exact
            .or_else(|| self.udp.iter().find(|(bound, _)| behind(bound)).map(|(_, socket)| socket))
            .map(AsRef::as_ref)
    }

    /// Makes a connection reachable.
    pub(crate) fn register(&self, connection: u64, queue: mpsc::Sender<Bytes>) {
        self.connections().insert(connection, queue);
    }

    /// Forgets a connection; its task ends when the queue is dropped.
    pub(crate) fn forget(&self, connection: u64) {
        self.connections().remove(&connection);
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
