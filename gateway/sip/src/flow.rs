//! A flow: the transport and the two addresses a message travelled between (RFC 5626 §3).
//!
//! Nothing above this crate's rim knows sockets, and nothing in this crate opens one: a flow is the
//! name under which the driver finds the socket or the connection again.

use std::net::SocketAddr;

/// How a message travels (RFC 3261 §18).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// One message per datagram; may be lost, repeated or reordered.
    Udp,
    /// A byte stream in the clear.
    Tcp,
    /// A byte stream under TLS (RFC 5246, RFC 8446).
    Tls,
}

impl Transport {
    /// Whether the transport itself repeats what is lost, so that transactions need not
    /// (RFC 3261 §17.1.1.2).
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether strangers on the path can read along.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls)
    }

    /// The word of the Via line (RFC 3261 §20.42).
    #[must_use]
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// The value of the URI's `transport` parameter (RFC 3261 §19.1.1).
    #[must_use]
    pub const fn uri_token(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The port that is meant when none is written: 5061 for TLS, otherwise 5060
    /// (RFC 3261 §19.1.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }

    /// Reads the transport word of a Via or of a URI parameter, in any case.
    /// `None` for transports this product does not speak.
    #[must_use]
    pub const fn parse(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"UDP") {
            Some(Self::Udp)
        } else if token.eq_ignore_ascii_case(b"TCP") {
            Some(Self::Tcp)
        } else if token.eq_ignore_ascii_case(b"TLS") {
            Some(Self::Tls)
        } else {
            None
        }
    }
}

/// Where a message came from, or where it goes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// How it travels.
    pub transport: Transport,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end, as the packet said it, never as a header claimed it.
    pub remote: SocketAddr,
    /// Number of the connection that carries a stream, never used twice; 0 for UDP.
    pub connection: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_reads_its_own_words_in_any_case() {
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            assert_eq!(Transport::parse(transport.via_token().as_bytes()), Some(transport));
            assert_eq!(Transport::parse(transport.uri_token().as_bytes()), Some(transport));
        }
        assert_eq!(Transport::parse(b"SCTP"), None);
    }

    #[test]
    fn only_datagrams_are_unreliable() {
        assert!(!Transport::Udp.is_reliable());
        assert!(Transport::Tcp.is_reliable() && Transport::Tls.is_reliable());
        assert_eq!(Transport::Tls.default_port(), 5061);
    }
}
