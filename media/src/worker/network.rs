//! Between a session and its sockets: where its outputs go, and how epoll names what is readable.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
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
        let counters = &self.shared.counters;
        match sys::send(socket(self.ports, channel).as_fd(), to, datagram) {
            Ok(()) => {
                counters.sent.add(1);
                if let Some(since) = self.since {
                    counters.count_residence(clock::now().saturating_duration_since(since));
                }
            }
            Err(_) => counters.count_unsent(),
        }
    }

    fn event(&mut self, event: Event) {
        (self.events)(event);
    }
}

pub(super) fn socket(ports: &PortPair, channel: Channel) -> &UdpSocket {
    match channel {
        Channel::Rtp => ports.rtp(),
        Channel::Rtcp => ports.rtcp(),
    }
}

/// Which socket of which tenant: the key in the upper 63 bits, the channel in the last.
pub(super) fn token(key: SlabKey, channel: Channel) -> u64 {
    key.to_bits() << 1 | u64::from(channel == Channel::Rtcp)
}

pub(super) fn parse_token(token: u64) -> (SlabKey, Channel) {
    let channel = if token & 1 == 1 { Channel::Rtcp } else { Channel::Rtp };
    (SlabKey::from_bits(token >> 1), channel)
}

const CHANNELS: [Channel; 2] = [Channel::Rtp, Channel::Rtcp];

pub(super) fn join(poller: &Poller, ports: &PortPair, key: SlabKey) -> io::Result<()> {
    CHANNELS
        .iter()
        .try_for_each(|&channel| poller.add(socket(ports, channel).as_fd(), token(key, channel)))
}

pub(super) fn leave(poller: &Poller, ports: &PortPair) {
    for channel in CHANNELS {
        // It may not have joined, or have left already.
        let _ = poller.remove(socket(ports, channel).as_fd());
    }
}

pub(super) fn mute(poller: &Poller, ports: &PortPair, key: SlabKey) {
    for channel in CHANNELS {
        let _ = poller.mute(socket(ports, channel).as_fd(), token(key, channel));
    }
}

pub(super) fn unmute(poller: &Poller, ports: &PortPair, key: SlabKey) {
    for channel in CHANNELS {
        let _ = poller.unmute(socket(ports, channel).as_fd(), token(key, channel));
    }
}
