//! Via: one hop of a message's way (RFC 3261 §20.42, RFC 3581, RFC 5118 §4.5).

use std::net::IpAddr;

use crate::flow::Transport;
use crate::lex;
use crate::param::Params;
use crate::uri::{self, Host};

/// The cookie that says a branch is unique (RFC 3261 §8.1.1.7).
pub const BRANCH_COOKIE: &[u8] = b"z9hG4bK";

/// One Via value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via<'a> {
    /// The transport's token as written; it need not be one we speak.
    pub transport: &'a [u8],
    /// The host of sent-by: what the sender believes to be its own.
    pub host: Host<'a>,
    /// The port of sent-by, when one is written.
    pub port: Option<u16>,
    /// Its parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one Via value. White space may surround every separator.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (protocol, rest) = lex::take(lex::TOKEN, lex::trim_start(value));
        let (version, rest) = lex::take(lex::TOKEN, after(b'/', rest)?);
        let (transport, rest) = lex::take(lex::TOKEN, after(b'/', rest)?);
        if protocol.is_empty() || version.is_empty() || transport.is_empty() {
            return None;
        }
        let sent_by = lex::trim_start(rest);
        if sent_by.len() == rest.len() {
            return None;
        }
        let (host, rest) = uri::take_host(sent_by)?;
        let (port, rest) = match after(b':', rest) {
            Some(tail) => {
                let end = tail.iter().position(|b| !b.is_ascii_digit()).unwrap_or(tail.len());
                let (digits, rest) = tail.split_at_checked(end)?;
                (Some(uri::port(digits)?), rest)
            }
            None => (None, rest),
        };
        Some(Self { transport, host, port, params: Params::parse(rest)? })
    }

    /// The transport, when it is one this product speaks.
    #[must_use]
    pub fn known_transport(&self) -> Option<Transport> {
        Transport::parse(self.transport)
    }

    /// The port of sent-by, or what its transport means by none (RFC 3261 §18.2.2).
    #[must_use]
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or_else(|| self.known_transport().map_or(5060, Transport::default_port))
    }

    /// The branch, with its cookie if it has one.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.value("branch")
    }

    /// The branch when it names a transaction by itself: it has the cookie and something behind it.
    /// Otherwise the matching of RFC 2543 applies (RFC 3261 §17.2.3).
    #[must_use]
    pub fn unique_branch(&self) -> Option<&'a [u8]> {
        let branch = self.branch()?;
        let (cookie, rest) = branch.split_at_checked(BRANCH_COOKIE.len())?;
        (cookie.eq_ignore_ascii_case(BRANCH_COOKIE) && !rest.is_empty()).then_some(branch)
    }

    /// Whether the sender asks for the answer at the port it sends from (RFC 3581 §3).
    #[must_use]
    pub fn wants_rport(&self) -> bool {
        self.params.has("rport")
    }

    /// The port the next hop saw, when it was filled in (RFC 3581 §4).
    #[must_use]
    pub fn rport(&self) -> Option<u16> {
        uri::port(self.params.value("rport")?)
    }

    /// The address the next hop saw, IPv6 with or without brackets (RFC 5118 §4.5).
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        let value = self.params.value("received")?;
        let bare = value.strip_prefix(b"[").and_then(|v| v.strip_suffix(b"]")).unwrap_or(value);
        std::str::from_utf8(bare).ok()?.parse().ok()
    }

    /// The multicast address answers should go to. Read for the log only: an answer goes to the
    /// packet's source and nowhere else.
    #[must_use]
    pub fn maddr(&self) -> Option<Host<'a>> {
        Host::parse(self.params.value("maddr")?)
    }

    /// The multicast time to live.
    #[must_use]
    pub fn ttl(&self) -> Option<u8> {
        lex::number(self.params.value("ttl")?).and_then(|number| u8::try_from(number).ok())
    }
}

/// What follows a separator, without the white space before and after it.
fn after(separator: u8, bytes: &[u8]) -> Option<&[u8]> {
    match lex::trim_start(bytes) {
        [first, rest @ ..] if *first == separator => Some(lex::trim_start(rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_may_stand_around_every_separator() {
        let via = Via::parse(
            b"SIP  /\r\n 2.0 / TCP   spindle.example.com : 5070 ; branch =\r\n z9hG4bK9ikj8 ",
        )
        .unwrap();
        assert_eq!(via.known_transport(), Some(Transport::Tcp));
        assert_eq!(via.host, Host::Name(b"spindle.example.com"));
        assert_eq!(via.port, Some(5070));
        assert_eq!(via.unique_branch(), Some(&b"z9hG4bK9ikj8"[..]));
    }

    #[test]
    fn received_is_read_with_and_without_brackets() {
        let seen: IpAddr = "2001:db8::9:255".parse().unwrap();
        for value in ["[2001:db8::9:255]", "2001:db8::9:255"] {
            let text =
                format!("SIP/2.0/UDP [2001:db8::9:1];received={value};branch=z9hG4bKas3;ttl=7");
            let via = Via::parse(text.as_bytes()).unwrap();
            assert_eq!((via.received(), via.ttl()), (Some(seen), Some(7)));
            assert_eq!(via.branch(), Some(&b"z9hG4bKas3"[..]));
        }
    }

    #[test]
    fn rport_is_a_wish_until_it_has_a_value() {
        let via = Via::parse(b"SIP/2.0/UDP a;rport").unwrap();
        assert!(via.wants_rport() && via.rport().is_none());
        let via = Via::parse(b"SIP/2.0/UDP a;RPORT=5080").unwrap();
        assert_eq!(via.rport(), Some(5080));
    }

    #[test]
    fn unknown_transports_are_no_fault() {
        let via = Via::parse(b"SIP/2.0/UNKNOWN t5.example.com;branch=z9hG4bK").unwrap();
        assert_eq!((via.transport, via.known_transport()), (&b"UNKNOWN"[..], None));
        assert_eq!((via.unique_branch(), via.port_or_default()), (None, 5060));
    }

    #[test]
    fn vias_that_break_the_grammar_are_refused() {
        for wrong in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0 UDP h",
            "SIP//UDP h",
            "SIP/2.0/UDPh:x",
            "SIP/2.0/UDP h:",
            "SIP/2.0/UDP h:70000",
            "SIP/2.0/UDP 192.0.2.15;;",
            "SIP/2.0/UDP h h",
            "SIP/2.0/UDP 2001:db8::1",
            "SIP/2.0/UDP <h>",
        ] {
            assert_eq!(Via::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
