//! Where this program may be made to connect to.
//!
//! The URLs of agents, webhooks and sites are written by customers, so they may name our own network: a
//! loopback port, the metadata service of a cloud, a neighbour. Names prove nothing, they resolve to
//! anything, and to something else a moment later. So a name is resolved once, each address is judged here,
//! and the connection goes to an address that was judged. Ranges after the IANA special-purpose registries
//! (RFC 6890 and successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `address` belongs to a host on the public internet. Addresses that carry another one inside
/// (IPv4-mapped, NAT64, 6to4) are judged by that one.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether `address` can be that of one host at all, on whichever network: not "this network" (RFC 1122
/// §3.2.1.3), multicast, reserved or broadcast, and not link-local IPv6, which says nothing without its
/// interface.
#[must_use]
pub fn is_of_a_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !matches!(address.octets(), [0 | 224..=255, ..]),
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local())
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let shared_or_special = match address.octets() {
        [0, ..] | [240..=255, ..] => true, // this network, reserved, broadcast
        [100, 64..=127, ..] => true,       // RFC 6598: carrier-grade NAT
        [192, 0, 0, _] => true,            // RFC 6890: protocol assignments
        [192, 88, 99, _] => true,          // RFC 7526: former 6to4 relays
        [198, 18..=19, ..] => true,        // RFC 2544: benchmarks
        _ => false,
    };
    !(shared_or_special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xFFFF, high, low] => is_public_v4(embedded(high, low)),
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)), // RFC 6052
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),               // RFC 3056
        [0x2001, 0..=0x1FF, ..] => false, // RFC 2928: protocol assignments, Teredo among them
        [0x2001, 0xDB8, ..] => false,     // RFC 3849: documentation
        [0x3FFF, 0..=0xFFF, ..] => false, // RFC 9637: documentation
        [0x2000..=0x3FFF, ..] => true,    // global unicast
        _ => false,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_on_the_internet_are_public() {
        for address in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "172.32.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn our_own_networks_and_addresses_of_no_host_are_not() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.1.1",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
