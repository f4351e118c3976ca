//! Which addresses media may be sent to.
//!
//! A description is written by the peer, and what it names receives fifty packets a second. So
//! nothing is accepted that cannot be a single host of the peer's network. Private addresses are:
//! many peers behind NAT signal theirs, and the latch (not the description) decides where media
//! really goes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::plan::Incompatible;

/// Checks an address a peer gave for its media against ours.
///
/// # Errors
/// [`Incompatible::Multicast`], [`Incompatible::AddressFamily`], or [`Incompatible::BadAddress`]
/// for broadcast, reserved, unspecified, port 0, our own socket, and loopback and link-local
/// unless ours is of that kind too.
pub(crate) fn check(peer: SocketAddr, ours: SocketAddr) -> Result<SocketAddr, Incompatible> {
    let ip = peer.ip().to_canonical();
    let our_ip = ours.ip().to_canonical();
    if ip.is_multicast() {
        return Err(Incompatible::Multicast);
    }
    if peer.port() == 0 || ip.is_unspecified() || is_reserved(ip) {
        return Err(Incompatible::BadAddress);
    }
    if ip.is_ipv4() != our_ip.is_ipv4() {
        return Err(Incompatible::AddressFamily);
    }
    let foreign_loopback = ip.is_loopback() && !our_ip.is_loopback();
    let foreign_link = is_link_local(ip) && !is_link_local(our_ip);
    if foreign_loopback || foreign_link || is_own(peer.port(), ip, ours, our_ip) {
        return Err(Incompatible::BadAddress);
    }
    Ok(SocketAddr::new(ip, peer.port()))
}

/// Our own RTP or RTCP port: media sent there would come back for ever.
fn is_own(port: u16, ip: IpAddr, ours: SocketAddr, our_ip: IpAddr) -> bool {
    ip == our_ip && (port == ours.port() || Some(port) == ours.port().checked_add(1))
}

/// "This network", class E and broadcast; IPv6: discard, documentation is left alone.
fn is_reserved(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first == 0 || first >= 240 || ip == Ipv4Addr::BROADCAST
        }
        // 100::/64 discards what it receives (RFC 6666).
        IpAddr::V6(ip) => ip.segments()[..4] == [0x100, 0, 0, 0],
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(peer: &str, ours: &str) -> Result<SocketAddr, Incompatible> {
        check(peer.parse().unwrap(), ours.parse().unwrap())
    }

    #[test]
    fn no_description_can_point_media_at_the_wrong_kind_of_address() {
        use Incompatible::{AddressFamily, BadAddress, Multicast};
        for (peer, why) in [
            ("224.0.0.1:4000", Multicast),
            ("239.255.255.250:1900", Multicast),
            ("232.1.1.1:4000", Multicast),
            ("[ff02::1]:4000", Multicast),
            ("[ff0e::1234]:4000", Multicast),
            ("[::ffff:224.0.0.1]:4000", Multicast),
            ("255.255.255.255:4000", BadAddress),
            ("[::ffff:255.255.255.255]:4000", BadAddress),
            ("240.0.0.1:4000", BadAddress),
            ("0.0.0.0:4000", BadAddress),
            ("0.1.2.3:4000", BadAddress),
            ("[::]:4000", BadAddress),
            ("[100::1]:4000", BadAddress),
            ("127.0.0.1:4000", BadAddress),
            ("127.8.8.8:4000", BadAddress),
            ("[::ffff:127.0.0.1]:4000", BadAddress),
            ("169.254.169.254:80", BadAddress),
            ("169.254.1.1:4000", BadAddress),
            ("192.0.2.10:0", BadAddress),
            ("203.0.113.1:20000", BadAddress),
            ("203.0.113.1:20001", BadAddress),
            ("[2001:db8::1]:4000", AddressFamily),
            ("[fe80::1]:4000", AddressFamily),
            ("[::1]:4000", AddressFamily),
        ] {
            assert_eq!(checked(peer, "203.0.113.1:20000"), Err(why), "{peer}");
        }
        for peer in ["[fe80::1]:4000", "[::1]:4000"] {
            assert_eq!(checked(peer, "[2001:db8::9]:20000"), Err(BadAddress), "{peer}");
        }
        assert_eq!(checked("192.0.2.1:4000", "[2001:db8::9]:20000"), Err(AddressFamily));
    }

    #[test]
    fn hosts_are_accepted_private_ones_too() {
        for peer in ["192.0.2.1:4000", "10.1.2.3:9", "172.16.0.1:65535", "100.64.0.9:4000"] {
            assert_eq!(checked(peer, "203.0.113.1:20000"), Ok(peer.parse().unwrap()));
        }
        assert!(checked("[2001:db8::5]:4000", "[2001:db8::9]:20000").is_ok());
        assert!(checked("127.0.0.2:4000", "127.0.0.1:20000").is_ok());
        assert!(checked("203.0.113.1:20002", "203.0.113.1:20000").is_ok());
    }

    #[test]
    fn a_mapped_address_is_what_it_maps() {
        let found = checked("[::ffff:192.0.2.1]:4000", "203.0.113.1:20000");
        assert_eq!(found, Ok("192.0.2.1:4000".parse().unwrap()));
    }
}
