//! From a host and a port to addresses, purely: RFC 3263 §4, RFC 2782.
//!
//! ```text
//!  Destination ─► first_step ─┬─► Ready: a literal address
//!                             ├─► Addresses: A and AAAA of the host, its port
//!                             └─► Services: SRV ─┬─ found ─► in_order ─► A, AAAA of each
//!                                                └─ none  ─► A, AAAA of the host, default port
//! ```
//!
//! NAPTR is never asked for: it chooses a transport (RFC 3263 §4.1), and here the trunk or the
//! agent's URI has chosen one already. What a name leads to is judged by [`Policy`] before anything
//! is sent there.

use std::net::{IpAddr, SocketAddr};

use config::guard;
use sip::Transport;

/// Most addresses that one look-up gives.
pub const MAX_TARGETS: usize = 16;

/// Where a call is to go, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// A domain name or a literal address; IPv6 with or without brackets.
    pub host: String,
    /// The port when one is written; it then wins over SRV (RFC 3263 §4.2).
    pub port: Option<u16>,
    /// The transport of the trunk, or of the URI's `transport` parameter.
    pub transport: Transport,
    /// The URI is a `sips:` one: TLS whatever stream transport is written (RFC 3261 §26.2.2).
    pub secure: bool,
}

/// One address to try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// How.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
    /// What the peer's certificate must be for: the host as configured, never a name that DNS led to
    /// (RFC 3263 §4, RFC 5922 §4).
    pub name: String,
}

/// Why a destination has no address to try. Its text is for the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LocateError {
    /// A `sips:` URI or a trunk that wants TLS, over UDP (RFC 5630 §3.1.3).
    #[error("a secure destination cannot be reached over UDP")]
    Insecure,
    /// The host is neither a domain name nor an address, or the port is 0.
    #[error("the destination is no host name or address")]
    BadName,
    /// The name does not exist, or has no address.
    #[error("the destination's host name has no address")]
    NoAddress,
    /// SRV says decidedly that the service is not there (RFC 2782: a target of ".").
    #[error("the destination's domain offers no SIP service")]
    NoService,
    /// All addresses are ones that nothing may be sent to.
    #[error("the destination's address is not allowed")]
    Forbidden,
    /// All addresses are of a family that no socket of ours has.
    #[error("the destination has no address of an IP version in use here")]
    NoFamily,
    /// No name server answered in time, or it could not find out.
    #[error("the destination's host name could not be looked up")]
    Unavailable,
}

impl LocateError {
    /// The stable word for metrics, records and the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            LocateError::Insecure => "destination_insecure",
            LocateError::BadName => "destination_bad_name",
            LocateError::NoAddress => "destination_no_address",
            LocateError::NoService => "destination_no_service",
            LocateError::Forbidden => "destination_forbidden",
            LocateError::NoFamily => "destination_no_family",
            LocateError::Unavailable => "dns_unavailable",
        }
    }
}

/// What is to be asked of DNS first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: the host is an address.
    Ready(SocketAddr),
    /// The addresses of this name.
    Addresses {
        /// The name, in lower case, without a last dot.
        host: String,
        /// The port at all of them.
        port: u16,
    },
    /// The SRV records of this name; without any, the addresses of the host with the default port.
    Services {
        /// As `_sip._udp.example.com`.
        name: String,
        /// The host itself, in lower case, without a last dot.
        host: String,
    },
}

impl Destination {
    /// The transport that is really used: with `secure`, TCP means TLS.
    ///
    /// # Errors
    /// [`LocateError::Insecure`].
    pub fn transport(&self) -> Result<Transport, LocateError> {
        match (self.transport, self.secure) {
            (Transport::Udp, true) => Err(LocateError::Insecure),
            (Transport::Tcp, true) => Ok(Transport::Tls),
            (transport, _) => Ok(transport),
        }
    }

    /// What to ask first (RFC 3263 §4.2).
    pub(crate) fn first_step(&self) -> Result<Step, LocateError> {
        let transport = self.transport()?;
        if self.port == Some(0) {
            return Err(LocateError::BadName);
        }
        if let Some(address) = literal(&self.host) {
            let port = self.port.unwrap_or(transport.default_port());
            return Ok(Step::Ready(SocketAddr::new(address, port)));
        }
        let host = domain(&self.host).ok_or(LocateError::BadName)?;
        Ok(match self.port {
            Some(port) => Step::Addresses { host, port },
            None => Step::Services { name: format!("{}.{host}", service(transport)), host },
        })
    }

    /// The target at one of the addresses.
    pub(crate) fn target(&self, transport: Transport, address: SocketAddr) -> Target {
        let name = self.host.trim_matches(['[', ']']).to_owned();
        Target { transport, address, name }
    }
}

/// The service and protocol labels of a transport's SRV records (RFC 3263 §4.1).
fn service(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
    }
}

/// A literal address, IPv6 with or without brackets; one that is mapped is the IPv4 one it maps.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A domain name in lower case without its last dot, if it is one (RFC 1123 §2.1; underscores are
/// let through because they exist). A name whose last label is a number is none: elsewhere it might
/// be read as an IPv4 address in one of its odd spellings.
fn domain(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let (first, last) = (host.bytes().next()?, host.rsplit('.').next()?);
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .or(last.strip_prefix("0X"))
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let fine = first != b'.' && host.len() <= 253 && host.split('.').all(label) && !number;
    fine.then(|| host.to_ascii_lowercase())
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Lower comes first.
    pub(crate) priority: u16,
    /// The share of its priority's calls; 0 for hardly any.
    pub(crate) weight: u16,
    /// The port.
    pub(crate) port: u16,
    /// The host's name, without its last dot; empty for the root, which stands for no service.
    pub(crate) host: String,
}

/// SRV records in the order to try them, at most [`MAX_TARGETS`]: by priority, and among equals drawn
/// by weight (RFC 2782, usage rules). `draw(n)` gives a random number from 0 to n, both included.
pub(crate) fn in_order(
    mut services: Vec<Service>,
    draw: &mut dyn FnMut(u32) -> u32,
) -> Vec<Service> {
    // Those without weight first: they are drawn only when the random number is 0.
    services.sort_by_key(|one| (one.priority, one.weight != 0));
    let mut ordered = Vec::with_capacity(services.len().min(MAX_TARGETS));
    while let Some(priority) = services.first().map(|one| one.priority) {
        if ordered.len() == MAX_TARGETS {
            break;
        }
        let group = services.iter().take_while(|one| one.priority == priority);
        let sum = group.clone().map(|one| u32::from(one.weight)).sum();
        let drawn = draw(sum);
        let mut running = 0;
        let reached = |one: &Service| {
            running += u32::from(one.weight);
            running >= drawn
        };
        let chosen = group.map(reached).position(|reached| reached).unwrap_or(0);
        ordered.push(services.remove(chosen));
    }
    ordered
}

/// Which addresses may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// There are IPv4 sockets.
    pub ipv4: bool,
    /// There are IPv6 sockets.
    pub ipv6: bool,
    /// Loopback, private and other addresses off the public internet are fine too: carriers often are
    /// on the customer's own network.
    pub allow_private: bool,
}

impl Policy {
    /// Whether something may be sent to `address`.
    ///
    /// # Errors
    /// [`LocateError::Forbidden`] for an address of no single host, or a private one where those are
    /// not allowed; [`LocateError::NoFamily`].
    pub fn judge(&self, address: IpAddr) -> Result<IpAddr, LocateError> {
        let address = address.to_canonical();
        if !guard::is_of_a_host(address) || (!self.allow_private && !guard::is_public(address)) {
            return Err(LocateError::Forbidden);
        }
        let usable = if address.is_ipv6() { self.ipv6 } else { self.ipv4 };
        if usable { Ok(address) } else { Err(LocateError::NoFamily) }
    }

    /// The addresses that may be sent to, the families taking turns so that a dead one costs one
    /// attempt (RFC 8305 §4). When there are none, why.
    pub(crate) fn sift(&self, found: &[IpAddr]) -> Result<Vec<IpAddr>, LocateError> {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        let mut why = LocateError::NoAddress;
        for address in found {
            match self.judge(*address) {
                Ok(address) if address.is_ipv4() => four.push(address),
                Ok(address) => six.push(address),
                Err(reason) => why = reason,
            }
        }
        let (mut four, mut six) = (four.into_iter(), six.into_iter());
        let mut sifted = Vec::new();
        loop {
            let pair = [four.next(), six.next()];
            if pair == [None, None] {
                return if sifted.is_empty() { Err(why) } else { Ok(sifted) };
            }
            sifted.extend(pair.into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(host: &str, port: Option<u16>, transport: Transport) -> Destination {
        Destination { host: host.to_owned(), port, transport, secure: false }
    }

    #[test]
    fn what_is_asked_first_follows_the_table_of_rfc_3263() {
        use Transport::{Tcp, Tls, Udp};
        let table = [
            ("192.0.2.7", None, Udp, "192.0.2.7:5060"),
            ("192.0.2.7", None, Tls, "192.0.2.7:5061"),
            ("192.0.2.7", Some(5080), Tcp, "192.0.2.7:5080"),
            ("[2001:db8::7]", None, Udp, "[2001:db8::7]:5060"),
            ("2001:db8::7", Some(5070), Tls, "[2001:db8::7]:5070"),
            ("::ffff:192.0.2.7", None, Udp, "192.0.2.7:5060"),
            ("Carrier.Example", Some(5080), Tls, "A carrier.example 5080"),
            ("carrier.example.", None, Udp, "SRV _sip._udp.carrier.example"),
            ("carrier.example", None, Tcp, "SRV _sip._tcp.carrier.example"),
            ("carrier.example", None, Tls, "SRV _sips._tcp.carrier.example"),
        ];
        for (host, port, transport, expected) in table {
            let step = destination(host, port, transport).first_step().expect("a good one");
            let told = match step {
                Step::Ready(address) => address.to_string(),
                Step::Addresses { host, port } => format!("A {host} {port}"),
                Step::Services { name, .. } => format!("SRV {name}"),
            };
            assert_eq!(told, expected, "{host}");
        }
    }

    #[test]
    fn names_that_are_none_are_not_asked_for() {
        let long = "a".repeat(64);
        let longer = ["a"; 130].join(".");
        for host in [
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "a b",
            "a@b",
            "a:b",
            "[::1",
            "2130706433",
            "0177.0.0.1",
            "0x7f.1",
            "127.1",
            "x.0x7f000001",
            "a\0.example",
            "bücher.example",
            &long,
            &longer,
        ] {
            let step = destination(host, None, Transport::Udp).first_step();
            assert_eq!(step, Err(LocateError::BadName), "{host}");
        }
        let zero = destination("carrier.example", Some(0), Transport::Udp).first_step();
        assert_eq!(zero, Err(LocateError::BadName));
    }

    #[test]
    fn a_secure_destination_is_reached_over_tls_or_not_at_all() {
        let secure = |transport| {
            Destination { secure: true, ..destination("c.example", None, transport) }.transport()
        };
        assert_eq!(secure(Transport::Tcp), Ok(Transport::Tls));
        assert_eq!(secure(Transport::Tls), Ok(Transport::Tls));
        assert_eq!(secure(Transport::Udp), Err(LocateError::Insecure));
    }

    #[test]
    fn the_certificates_name_is_the_configured_host() {
        let there = "192.0.2.7:5061".parse().expect("an address");
        let target =
            destination("Carrier.Example", None, Transport::Tls).target(Transport::Tls, there);
        assert_eq!(target.name, "Carrier.Example");
        let literal =
            destination("[2001:db8::7]", None, Transport::Tls).target(Transport::Tls, there);
        assert_eq!(literal.name, "2001:db8::7");
    }

    fn service(priority: u16, weight: u16, host: &str) -> Service {
        Service { priority, weight, port: 5060, host: host.to_owned() }
    }

    #[test]
    fn a_lower_priority_comes_first_whatever_the_weights() {
        let services = vec![service(20, 65_535, "c"), service(10, 0, "a"), service(10, 1, "b")];
        for drawn in [0, 1] {
            let ordered = in_order(services.clone(), &mut |most| drawn.min(most));
            assert_eq!(ordered.last().map(|one| one.host.as_str()), Some("c"));
        }
    }

    #[test]
    fn among_equals_the_weight_is_the_share() {
        let services = vec![service(1, 60, "a"), service(1, 30, "b"), service(1, 10, "c")];
        let mut first = [0u32; 3];
        for drawn in 1..=100 {
            let mut draws = [drawn].into_iter();
            let ordered = in_order(services.clone(), &mut |_| draws.next().unwrap_or(0));
            let place = ["a", "b", "c"].iter().position(|host| *host == ordered[0].host);
            first[place.expect("one of them")] += 1;
            assert_eq!(ordered.len(), 3);
        }
        assert_eq!(first, [60, 30, 10]);
    }

    #[test]
    fn a_record_without_weight_is_drawn_only_by_a_zero() {
        let services = vec![service(1, 9, "b"), service(1, 0, "a")];
        let first = |drawn: u32| in_order(services.clone(), &mut |_| drawn)[0].host.clone();
        assert_eq!((first(0), first(1), first(9)), ("a".into(), "b".into(), "b".into()));
    }

    #[test]
    fn a_thousand_records_are_sixteen_targets() {
        let many: Vec<Service> = (0..1000).map(|n| service(n % 7, n, "x")).collect();
        let ordered = in_order(many, &mut |most| most / 2);
        assert_eq!(ordered.len(), MAX_TARGETS);
        assert!(ordered.iter().all(|one| one.priority == 0));
    }

    const OPEN: Policy = Policy { ipv4: true, ipv6: true, allow_private: true };

    #[test]
    fn addresses_of_no_host_are_never_sent_to() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.1.75",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:0.0.0.0",
            "::ffff:255.255.255.255",
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(OPEN.judge(address), Err(LocateError::Forbidden), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_for_those_who_allow_them() {
        let closed = Policy { allow_private: false, ..OPEN };
        for address in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1"] {
            let address = address.parse().expect("an address");
            assert_eq!(OPEN.judge(address), Ok(address));
            assert_eq!(closed.judge(address), Err(LocateError::Forbidden), "{address}");
        }
    }

    #[test]
    fn families_take_turns_and_one_we_lack_is_passed_over() {
        let found: Vec<IpAddr> = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "0.0.0.0"]
            .map(|address| address.parse().expect("an address"))
            .to_vec();
        let texts = |policy: Policy| -> Result<Vec<String>, LocateError> {
            Ok(policy.sift(&found)?.iter().map(IpAddr::to_string).collect())
        };
        let both = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(str::to_owned).to_vec();
        assert_eq!(texts(OPEN), Ok(both));
        let six = Policy { ipv4: false, ..OPEN };
        assert_eq!(texts(six), Ok(vec!["2001:db8::1".to_owned()]));
        assert_eq!(six.sift(&found[..2]), Err(LocateError::NoFamily));
        assert_eq!(OPEN.sift(&[]), Err(LocateError::NoAddress));
        assert_eq!(OPEN.sift(&found[3..]), Err(LocateError::Forbidden));
    }
}
