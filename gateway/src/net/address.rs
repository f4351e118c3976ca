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

/// Which of our sockets, by the address it is bound to, sends to `peer`: the one with the address
/// the kernel would send from, else one on every address, else the lowest from which the kernel finds
/// a way. `None` when no socket is of the peer's family, or none has a way.
#[must_use]
pub fn sender(bound: &[SocketAddr], peer: IpAddr) -> Option<SocketAddr> {
    let peer = peer.to_canonical();
    let mut family: Vec<SocketAddr> =
        bound.iter().copied().filter(|one| one.is_ipv6() == peer.is_ipv6()).collect();
    family.sort_unstable();
    if let [only] = family.as_slice() {
        let reaches = only.ip().is_unspecified() || source_from(only.ip(), peer).is_some();
        return reaches.then_some(*only);
    }
    let preferred = route_source(peer);
    let exact = family.iter().find(|one| Some(one.ip()) == preferred);
    let every = || family.iter().find(|one| one.ip().is_unspecified() && preferred.is_some());
    let any = || family.iter().find(|one| source_from(one.ip(), peer).is_some());
    exact.or_else(every).or_else(any).copied()
}

/// The local address from which the kernel would send to `peer`. Nothing is sent.
fn route_source(peer: IpAddr) -> Option<IpAddr> {
    let any = match peer {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    source_from(any, peer)
}

/// The address that a socket bound to `own` would send to `peer` from. Nothing is sent.
fn source_from(own: IpAddr, peer: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((own, 0)).ok()?;
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
    fn the_socket_with_the_kernels_own_choice_sends_and_else_one_that_can() {
        let of = |list: &[&str], peer: &str| {
            let bound: Vec<SocketAddr> =
                list.iter().map(|one| one.parse().expect("an address")).collect();
            sender(&bound, peer.parse().expect("an address")).map(|one| one.to_string())
        };
        let both = ["127.0.0.2:5060", "127.0.0.1:5060"];
        assert_eq!(of(&both, "127.0.0.9").as_deref(), Some("127.0.0.1:5060"));
        let wide = ["127.0.0.2:5060", "0.0.0.0:5061"];
        assert_eq!(of(&wide, "127.0.0.9").as_deref(), Some("0.0.0.0:5061"));
        let others = ["127.0.0.3:5060", "127.0.0.2:5060", "[::1]:5060"];
        assert_eq!(of(&others, "127.0.0.9").as_deref(), Some("127.0.0.2:5060"));
        assert_eq!(of(&["[::1]:5060"], "127.0.0.9"), None);
        assert_eq!(of(&["127.0.0.1:5060"], "203.0.113.9"), None, "loopback leads nowhere else");
    }

    #[test]
    fn a_socket_on_every_address_tells_the_one_that_reaches_the_peer() {
        let any = "0.0.0.0".parse().expect("an address");
        let peer = "127.0.0.1".parse().expect("an address");
        assert_eq!(reachable_at(&[], any, peer).to_string(), "127.0.0.1");
    }
}
