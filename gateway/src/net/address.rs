//! Which of our addresses a peer is told: in Contact, in SDP, in Via.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use config::settings::Advertise;

/// The address a peer should use to reach us.
///
/// The most specific `advertise` line whose network holds the peer wins (a host behind 1:1 NAT); else the
/// socket's own address; else, for a socket bound to every address, the local address that the
/// kernel would send from.
#[must_use]
pub fn reachable_at(advertise: &[Advertise], bound: IpAddr, peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    let lines = advertise.iter().filter(|line| line.peers.contains(&peer));
    if let Some(line) = lines.max_by_key(|line| line.peers.prefix_len()) {
        return line.address;
    }
    if !bound.is_unspecified() {
        return bound.to_canonical();
    }
    route_source(peer).unwrap_or(bound)
}

/// Most peers that [`Seen`] remembers; then it starts over.
const MAX_REMEMBERED: usize = 1024;

/// How one socket looks from outside: [`reachable_at`] with a memory, because asking the kernel for
/// a route costs system calls.
#[derive(Debug)]
pub struct Seen {
    advertise: Arc<[Advertise]>,
    bound: SocketAddr,
    remembered: HashMap<IpAddr, IpAddr>,
}

impl Seen {
    /// Of the socket bound to `bound`.
    #[must_use]
    pub fn new(advertise: Arc<[Advertise]>, bound: SocketAddr) -> Self {
        Seen { advertise, bound, remembered: HashMap::new() }
    }

    /// Our address as `peer` should use it, with the socket's port.
    pub fn by(&mut self, peer: IpAddr) -> SocketAddr {
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        let (advertise, bound) = (&self.advertise, self.bound.ip());
        let entry = self.remembered.entry(peer);
        let address = *entry.or_insert_with(|| reachable_at(advertise, bound, peer));
        SocketAddr::new(address, self.bound.port())
    }
}

/// The local address from which the kernel would send to `peer`. Nothing is sent.
fn route_source(peer: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = match peer {
        IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    // Port 9 (discard): connecting a datagram socket only asks for the route.
    socket.connect((peer, 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// An address as it stands in a SIP URI or Via: IPv6 in brackets (RFC 3261 §25.1).
#[must_use]
pub fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_outside_is_told_the_advertised_address_and_one_inside_the_real_one() {
        let advertise = vec![Advertise {
            peers: "203.0.113.0/24".parse().expect("a network"),
            address: "198.51.100.7".parse().expect("an address"),
        }];
        let bound = "127.0.0.1".parse().expect("an address");
        let outside = "203.0.113.9".parse().expect("an address");
        let inside = "127.0.0.2".parse().expect("an address");
        assert_eq!(reachable_at(&advertise, bound, outside).to_string(), "198.51.100.7");
        assert_eq!(reachable_at(&advertise, bound, inside).to_string(), "127.0.0.1");
    }

    #[test]
    fn the_most_specific_line_wins() {
        let line = |peers: &str, address: &str| Advertise {
            peers: peers.parse().expect("a network"),
            address: address.parse().expect("an address"),
        };
        let advertise = [line("0.0.0.0/0", "198.51.100.7"), line("10.0.0.0/8", "10.0.0.7")];
        let bound = "0.0.0.0".parse().expect("an address");
        let inside = "10.1.2.3".parse().expect("an address");
        assert_eq!(reachable_at(&advertise, bound, inside).to_string(), "10.0.0.7");
    }

    #[test]
    fn a_socket_on_every_address_tells_the_one_that_reaches_the_peer() {
        let any = "0.0.0.0".parse().expect("an address");
        let peer = "127.0.0.1".parse().expect("an address");
        assert_eq!(reachable_at(&[], any, peer).to_string(), "127.0.0.1");
    }
}
