//! Between a session and its sockets: where its outputs go, and how epoll names what is readable.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::slab::SlabKey;
use super::sys::{self, Poller};
use super::{Events, Shared};
use crate::clock;
use crate::command::Event;
use crate::ports::PortPair;
use crate::session::{Channel, Outlet};

/// The way out of a session while it handles one input.
pub(super) struct Network<'a> {
    pub(super) ports: &'a PortPair,
    pub(super) shared: &'a Shared,
    pub(super) events: &'a Events,
    /// What it handles was due, or came, at this moment; `None` if that was not looked at.
    pub(super) since: Option<Instant>,
}

impl Outlet for Network<'_> {
    fn send(&mut self, channel: Channel, to: SocketAddr, datagram: &[u8]) {
        let socket = match channel {
            Channel::Rtp => self.ports.rtp(),
            Channel::Rtcp => self.ports.rtcp(),
        };
        match sys::send(socket.as_fd(), to, datagram) {
            Ok(()) => self.count_sent(),
            Err(_) => self.shared.counters.count_unsent(),
        }
    }

    fn send_connected(&mut self, to: SocketAddr, datagram: &[u8]) {
        let socket = self.ports.connected();
        let sent =
            socket.is_some_and(|socket| sys::send_connected(socket.as_fd(), datagram).is_ok());
        match sent {
            true => self.count_sent(),
            // That an earlier one found the port closed is told to this socket only, and instead of
            // sending; whether this one is lost as well is for the peer to show.
            false => self.send(Channel::Rtp, to, datagram),
        }
    }

    fn event(&mut self, event: Event) {
        (self.events)(event);
    }
}

impl Network<'_> {
    fn count_sent(&self) {
        let counters = &self.shared.counters;
        counters.sent.add(1);
        if let Some(since) = self.since {
            counters.count_residence(clock::now().saturating_duration_since(since));
        }
    }
}

/// A socket that a tenant is read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inlet {
    /// The RTP port's, for everybody.
    Rtp,
    /// The RTCP port's.
    Rtcp,
    /// The RTP port's, for the peer alone.
    Connected,
}

impl Inlet {
    const ALL: [Self; 3] = [Self::Rtp, Self::Rtcp, Self::Connected];

    /// The port it is at.
    pub(super) fn channel(self) -> Channel {
        match self {
            Self::Rtp | Self::Connected => Channel::Rtp,
            Self::Rtcp => Channel::Rtcp,
        }
    }

    /// The socket, if the tenant has it.
    pub(super) fn of(self, ports: &PortPair) -> Option<&UdpSocket> {
        match self {
            Self::Rtp => Some(ports.rtp()),
            Self::Rtcp => Some(ports.rtcp()),
            Self::Connected => ports.connected(),
        }
    }

    /// Calls it that of the tenant `key`: the key in the upper 62 bits, the inlet in the last two.
    fn token(self, key: SlabKey) -> u64 {
        key.to_bits() << 2 | self as u64
    }
}

/// What [`Inlet::token`] has put together.
pub(super) fn parse_token(token: u64) -> (SlabKey, Inlet) {
    let inlet = match token & 3 {
        0 => Inlet::Rtp,
        1 => Inlet::Rtcp,
        _ => Inlet::Connected,
    };
    (SlabKey::from_bits(token >> 2), inlet)
}

/// The sockets a tenant has, with their tokens.
fn inlets(ports: &PortPair, key: SlabKey) -> impl Iterator<Item = (BorrowedFd<'_>, u64)> {
    let found = move |inlet: Inlet| Some((inlet.of(ports)?.as_fd(), inlet.token(key)));
    Inlet::ALL.into_iter().filter_map(found)
}

pub(super) fn join(poller: &Poller, ports: &PortPair, key: SlabKey) -> io::Result<()> {
    inlets(ports, key).try_for_each(|(socket, token)| poller.add(socket, token))
}

pub(super) fn leave(poller: &Poller, ports: &PortPair) {
    for socket in Inlet::ALL.into_iter().filter_map(|inlet| inlet.of(ports)) {
        // It may not have joined, or have left already.
        let _ = poller.remove(socket.as_fd());
    }
}

pub(super) fn mute(poller: &Poller, ports: &PortPair, key: SlabKey) {
    inlets(ports, key).for_each(|(socket, token)| drop(poller.mute(socket, token)));
}

pub(super) fn unmute(poller: &Poller, ports: &PortPair, key: SlabKey) {
    inlets(ports, key).for_each(|(socket, token)| drop(poller.unmute(socket, token)));
}

/// Connects a socket of the tenant `key` to its `peer`, or the one it has to another peer.
pub(super) fn connect(
    poller: &Poller,
    ports: &mut PortPair,
    key: SlabKey,
    peer: SocketAddr,
) -> io::Result<()> {
    let was_connected = ports.connected().is_some();
    ports.connect(peer)?;
    match ports.connected() {
        Some(socket) if !was_connected => poller
            .add(socket.as_fd(), Inlet::Connected.token(key))
            .inspect_err(|_| ports.disconnect()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{PoolOptions, PortPool, first_test_port};
    use crate::worker::sys::Ready;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_tenant_that_is_connected_elsewhere_keeps_its_socket_and_what_lies_in_it() {
        for bind in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let Ok(first) = UdpSocket::bind((bind, 0)) else { continue };
            let second = UdpSocket::bind((bind, 0)).unwrap();
            let ports = first_test_port() + 78..=first_test_port() + 79;
            let (quarantine, key) = (Duration::ZERO, SlabKey::from_bits(7));
            let pool =
                PortPool::new(PoolOptions { bind, ports, quarantine, seed: 1, connected: 1 });
            let mut ports = pool.allocate(clock::now()).unwrap();
            let (poller, mut ready) = (Poller::new().unwrap(), Ready::new());
            let port = (bind, ports.port());
            connect(&poller, &mut ports, key, first.local_addr().unwrap()).unwrap();
            first.send_to(b"one", port).unwrap();
            connect(&poller, &mut ports, key, second.local_addr().unwrap()).unwrap();
            second.send_to(b"two", port).unwrap();
            poller.wait(&mut ready).unwrap();
            assert_eq!(
                ready.tokens().map(parse_token).collect::<Vec<_>>(),
                [(key, Inlet::Connected)]
            );
            let socket = ports.connected().unwrap();
            let from = || socket.recv_from(&mut [0; 8]).unwrap().1;
            assert_eq!([from(), from()], [&first, &second].map(|peer| peer.local_addr().unwrap()));
        }
    }

    #[test]
    fn what_the_connected_socket_refuses_is_sent_all_the_same() {
        let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ports = first_test_port() + 76..=first_test_port() + 77;
        let quarantine = Duration::ZERO;
        let pool = PortPool::new(PoolOptions { bind, ports, quarantine, seed: 1, connected: 1 });
        let mut ports = pool.allocate(clock::now()).unwrap();
        let peer = UdpSocket::bind((bind, 0)).unwrap();
        let to = peer.local_addr().unwrap();
        let (shared, events) = (Shared::new(1).unwrap(), Arc::new(drop) as Events);
        let send = |ports: &PortPair| {
            let mut network = Network { ports, shared: &shared, events: &events, since: None };
            network.send_connected(to, b"hello");
            shared.counters.sent.value()
        };
        assert_eq!(send(&ports), 1, "there is no such socket");
        ports.connect(to).unwrap();
        assert_eq!(send(&ports), 2);
        let mut buffer = [0; 8];
        assert_eq!([(); 2].map(|()| peer.recv(&mut buffer).unwrap()), [5, 5]);
        drop(peer);
        // The first finds the port closed, which the second is told.
        assert_eq!([send(&ports), send(&ports)], [3, 4]);
    }
}
