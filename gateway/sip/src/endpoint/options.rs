//! What an endpoint is told once, when it is made.

use std::net::IpAddr;

use crate::method::Method;
use crate::transaction::timer::Timings;

/// Settings and bounds of an [`Endpoint`](super::Endpoint).
#[derive(Clone, Debug)]
pub struct Options {
    /// T1, T2 and T4.
    pub timings: Timings,
    /// Most client and most server transactions at a time, each. Beyond it requests of known peers
    /// get 503 with Retry-After, and ours are refused with `CommandError::Full`.
    pub max_transactions: usize,
    /// Most requests of strangers at a time; beyond it the next ones are dropped. Part of
    /// `max_transactions`, so that strangers cannot take the places of peers we know.
    pub max_strangers: usize,
    /// Most ignored requests that are remembered in order to stay silent when they are repeated;
    /// beyond it the oldest is forgotten.
    pub max_ignored: usize,
    /// Most dialogs at a time, early ones included.
    pub max_dialogs: usize,
    /// The methods that reach the application; others get 405, unknown ones 501, both with Allow.
    pub allow: Vec<Method>,
    /// Option tags we understand, for Require (RFC 3261 §8.2.2.3); none by default.
    pub supported: Vec<String>,
    /// Seconds named in the Retry-After of our 503.
    pub retry_after_seconds: u32,
    /// The host our Via names, when the local address of the flow is not the one to be seen; the
    /// port is the flow's. Responses come back to the packet's source either way (RFC 3581).
    pub via_host: Option<String>,
    /// Number of this node: it leads every tag, branch and Call-ID we mint, as four hex digits, so
    /// that a message can be led back to its node without a look-up.
    pub node: u16,
}

impl Default for Options {
    fn default() -> Options {
        let allow = [
            Method::Invite,
            Method::Ack,
            Method::Cancel,
            Method::Bye,
            Method::Options,
            Method::Info,
            Method::Update,
            Method::Refer,
            Method::Notify,
        ];
        Options {
            timings: Timings::default(),
            max_transactions: 100_000,
            max_strangers: 4_096,
            max_ignored: 1_024,
            max_dialogs: 20_000,
            allow: allow.to_vec(),
            supported: Vec::new(),
            retry_after_seconds: 5,
            via_host: None,
            node: 0,
        }
    }
}

/// Addresses that begin alike: a network of a trunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Any address of the network.
    pub address: IpAddr,
    /// How many leading bits count; more than the address has is as many as it has.
    pub bits: u8,
}

impl Prefix {
    /// Whether `address` is in the network. IPv4 and IPv6 never mix, mapped addresses excepted.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= bits.min(u32::BITS)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= bits.min(u128::BITS)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_what_begins_alike() {
        let holds = |prefix: &str, bits: u8, address: &str| {
            Prefix { address: prefix.parse().unwrap(), bits }.contains(address.parse().unwrap())
        };
        assert!(holds("192.0.2.128", 25, "192.0.2.200"));
        assert!(!holds("192.0.2.128", 25, "192.0.2.127"));
        assert!(holds("192.0.2.1", 32, "::ffff:192.0.2.1"));
        assert!(!holds("192.0.2.1", 99, "192.0.2.2"));
        assert!(holds("0.0.0.0", 0, "203.0.113.1") && !holds("0.0.0.0", 0, "2001:db8::1"));
        assert!(holds("2001:db8::", 32, "2001:db8:1::9") && !holds("2001:db8::", 32, "2001:db9::"));
    }
}
