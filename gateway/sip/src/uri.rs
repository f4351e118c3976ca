//! URIs: `sip`, `sips`, `tel`, and the rest as they are (RFC 3261 §19.1, RFC 3966).
//!
//! A view borrows; it never rewrites. Send the bytes that came, not a rendering of the view: a
//! percent sign escaped twice dials another user.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lex;
use crate::param::Params;

/// A host: an address or a name (RFC 3261 §25.1 `host`, RFC 5118).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Host<'a> {
    /// A literal address; IPv6 without its brackets.
    Address(IpAddr),
    /// A domain name as written. Compare it blind to case: [`Host::matches`].
    Name(&'a [u8]),
}

impl<'a> Host<'a> {
    /// Reads one host and nothing else: `example.com`, `192.0.2.1`, `[2001:db8::1]`.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match take_host(bytes)? {
            (host, []) => Some(host),
            _ => None,
        }
    }

    /// Whether both are the same host: addresses by value, names blind to case.
    #[must_use]
    pub fn matches(self, other: Host<'_>) -> bool {
        match (self, other) {
            (Self::Address(one), Host::Address(two)) => one == two,
            (Self::Name(one), Host::Name(two)) => one.eq_ignore_ascii_case(two),
            _ => false,
        }
    }

    /// The literal address, when it is one.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => write!(out, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(out, "[{address}]"),
            Self::Name(name) => out.write_str(&String::from_utf8_lossy(name)),
        }
    }
}

/// A host at the start of the bytes, and what follows it.
pub(crate) fn take_host(bytes: &[u8]) -> Option<(Host<'_>, &[u8])> {
    if let [b'[', inner @ ..] = bytes {
        let (literal, rest) = lex::split_once(inner, b']')?;
        let address: Ipv6Addr = std::str::from_utf8(literal).ok()?.parse().ok()?;
        return Some((Host::Address(address.into()), rest));
    }
    let (name, rest) = lex::take(lex::HOST, bytes);
    // Only what ends in a digit can be an address: names end in a letter (RFC 3261 §25.1 toplabel).
    let address = match name.last()? {
        b'0'..=b'9' => std::str::from_utf8(name).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    Some((
        address.map_or(Host::Name(name), |address: Ipv4Addr| Host::Address(address.into())),
        rest,
    ))
}

/// A port: digits, 0 to 65535.
pub(crate) fn port(bytes: &[u8]) -> Option<u16> {
    lex::number(bytes).and_then(|number| u16::try_from(number).ok())
}

/// A URI of any scheme.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uri<'a> {
    /// `sip:` or `sips:`.
    Sip(SipUri<'a>),
    /// `tel:`.
    Tel(TelUri<'a>),
    /// Any other scheme: in a Request-URI a reason to answer 416 (RFC 3261 §8.2.2.1).
    Other {
        /// The scheme as written.
        scheme: &'a [u8],
        /// What follows the colon.
        rest: &'a [u8],
    },
}

/// A `sip` or `sips` URI (RFC 3261 §19.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SipUri<'a> {
    /// Whether the scheme is `sips`: every hop under TLS.
    pub secure: bool,
    /// The user part, still escaped, without the password; see [`SipUri::user_into`].
    pub user: Option<&'a [u8]>,
    /// The password, still escaped. Never to be used, never to be logged (RFC 3261 §19.1.1).
    pub password: Option<&'a [u8]>,
    /// The host.
    pub host: Host<'a>,
    /// The port, when one is written.
    pub port: Option<u16>,
    /// The URI's parameters.
    pub params: Params<'a>,
    /// What follows the question mark.
    pub headers: Option<&'a [u8]>,
}

/// A `tel` URI (RFC 3966).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TelUri<'a> {
    /// The number as written, with its visual separators; global when it starts with `+`.
    pub number: &'a [u8],
    /// The parameters, `phone-context` among them.
    pub params: Params<'a>,
}

impl<'a> Uri<'a> {
    /// Reads a URI that is all of the bytes.
    ///
    /// `None` for white space, control letters, brackets or quotes in it, for a scheme that is none,
    /// and for `sip`, `sips` and `tel` URIs that break their grammar.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.iter().any(|&byte| lex::is(lex::NO_URI, byte)) {
            return None;
        }
        let (scheme, rest) = lex::split_once(bytes, b':')?;
        if scheme.eq_ignore_ascii_case(b"sip") {
            SipUri::parse(false, rest).map(Self::Sip)
        } else if scheme.eq_ignore_ascii_case(b"sips") {
            SipUri::parse(true, rest).map(Self::Sip)
        } else if scheme.eq_ignore_ascii_case(b"tel") {
            TelUri::parse(rest).map(Self::Tel)
        } else {
            (is_scheme(scheme) && !rest.is_empty()).then_some(Self::Other { scheme, rest })
        }
    }

    /// The `sip` or `sips` URI, when it is one.
    #[must_use]
    pub const fn as_sip(&self) -> Option<&SipUri<'a>> {
        match self {
            Self::Sip(uri) => Some(uri),
            _ => None,
        }
    }

    /// Who is meant: the user part of a SIP URI, still escaped, or the number of a `tel` URI.
    #[must_use]
    pub const fn user(&self) -> Option<&'a [u8]> {
        match self {
            Self::Sip(uri) => uri.user,
            Self::Tel(uri) => Some(uri.number),
            Self::Other { .. } => None,
        }
    }

    /// The host of a SIP URI.
    #[must_use]
    pub const fn host(&self) -> Option<Host<'a>> {
        match self {
            Self::Sip(uri) => Some(uri.host),
            _ => None,
        }
    }

    /// How many parameters or headers a comparison has to match up.
    fn size(&self) -> usize {
        let headers = self.as_sip().and_then(|uri| uri.headers);
        let headers = headers.map_or(0, |part| part.split(|&byte| byte == b'&').count());
        self.params().iter().count().max(headers)
    }

    /// The parameters; none for an unknown scheme.
    #[must_use]
    pub const fn params(&self) -> Params<'a> {
        match self {
            Self::Sip(uri) => uri.params,
            Self::Tel(uri) => uri.params,
            Self::Other { .. } => Params::NONE,
        }
    }

    /// Whether both mean the same resource: RFC 3261 §19.1.4 for SIP, RFC 3966 §4 for `tel`, bytes
    /// for the rest. Not transitive, as the RFC says itself; never use it as a key. URIs of more
    /// than 32 parameters or headers are equivalent to none but their own copy: the comparison is of
    /// each with each, and strangers write them.
    #[must_use]
    pub fn equivalent(&self, other: &Uri<'_>) -> bool {
        if self == other {
            return true;
        }
        if self.size().max(other.size()) > MOST_COMPARED {
            return false;
        }
        match (self, other) {
            (Self::Sip(one), Uri::Sip(two)) => one.equivalent(two),
            (Self::Tel(one), Uri::Tel(two)) => one.equivalent(two),
            (Self::Other { scheme, rest }, Uri::Other { scheme: theirs, rest: tail }) => {
                scheme.eq_ignore_ascii_case(theirs) && rest == tail
            }
            _ => false,
        }
    }
}

/// The most parameters, and the most headers, that are compared in any order.
const MOST_COMPARED: usize = 32;

fn is_scheme(scheme: &[u8]) -> bool {
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

impl<'a> SipUri<'a> {
    fn parse(secure: bool, rest: &'a [u8]) -> Option<Self> {
        // An unescaped `@` can only end the user part; that part may hold `;` and `?`.
        let (userinfo, rest) = match lex::split_once(rest, b'@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let (user, password) = match userinfo.map(|info| (info, lex::split_once(info, b':'))) {
            None => (None, None),
            Some((_, Some((user, password)))) => (Some(user), Some(password)),
            Some((user, None)) => (Some(user), None),
        };
        if user.is_some_and(<[u8]>::is_empty) {
            return None;
        }
        let (rest, headers) = match lex::split_once(rest, b'?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        let (host, rest) = take_host(rest)?;
        let (port, rest) = match rest {
            [b':', tail @ ..] => {
                let end = memchr::memchr(b';', tail).unwrap_or(tail.len());
                let (digits, rest) = tail.split_at_checked(end)?;
                (Some(port(digits)?), rest)
            }
            _ => (None, rest),
        };
        let params = Params::parse(rest)?;
        Some(Self { secure, user, password, host, port, params, headers })
    }

    /// The user part with its escapes undone, once, in the caller's buffer (RFC 3261 §19.1.2).
    /// `None` when there is no user part or the buffer is too small.
    #[must_use]
    pub fn user_into<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        unescape_into(self.user?, buffer)
    }

    /// The value of the `transport` parameter.
    #[must_use]
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.params.value("transport")
    }

    /// Whether the `lr` parameter marks a loose router (RFC 3261 §16.12.1.1).
    #[must_use]
    pub fn is_loose_router(&self) -> bool {
        self.params.has("lr")
    }

    /// RFC 3261 §19.1.4.
    fn equivalent(&self, other: &SipUri<'_>) -> bool {
        self.secure == other.secure
            && same_escaped(self.user, other.user)
            && same_escaped(self.password, other.password)
            && self.host.matches(other.host)
            && self.port == other.port
            && covers(self.params, other.params)
            && covers(other.params, self.params)
            && same_headers(self.headers, other.headers)
    }
}

impl<'a> TelUri<'a> {
    fn parse(rest: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let (number, rest) = rest.split_at_checked(end)?;
        let digits = number.strip_prefix(b"+").unwrap_or(number);
        let known = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#') || is_separator(b);
        if !digits.iter().any(|&b| !is_separator(b)) || !digits.iter().all(|&b| known(b)) {
            return None;
        }
        Some(Self { number, params: Params::parse(rest)? })
    }

    /// Whether the number is global: it starts with `+` (RFC 3966 §5.1.4).
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.number.first() == Some(&b'+')
    }

    /// The number without visual separators.
    pub fn digits(&self) -> impl Iterator<Item = u8> + Clone {
        self.number.iter().copied().filter(|&byte| !is_separator(byte))
    }

    /// RFC 3966 §4: separators and case do not count, parameters do.
    fn equivalent(&self, other: &TelUri<'_>) -> bool {
        let same = |one: Params<'_>, two: Params<'_>| {
            one.iter().all(|(name, value)| {
                two.iter().any(|(known, theirs)| {
                    known.eq_ignore_ascii_case(name) && same_blind(value, theirs)
                })
            })
        };
        let lower = |byte: u8| byte.to_ascii_lowercase();
        self.digits().map(lower).eq(other.digits().map(lower))
            && same(self.params, other.params)
            && same(other.params, self.params)
    }
}

/// Visual separators of a number (RFC 3966 §3).
const fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'(' | b')')
}

/// Whether every parameter of `one` agrees with `two`: equal where both have it, and never one of
/// the parameters that change the target where only `one` has it.
fn covers(one: Params<'_>, two: Params<'_>) -> bool {
    const DECISIVE: [&[u8]; 5] = [b"user", b"ttl", b"method", b"maddr", b"transport"];
    one.iter().all(|(name, value)| {
        let theirs = two.iter().find(|(known, _)| same_unescaped(known, name, true));
        match theirs {
            Some((_, theirs)) => match (value, theirs) {
                (Some(value), Some(theirs)) => same_unescaped(value, theirs, true),
                (None, None) => true,
                _ => false,
            },
            None => !DECISIVE.iter().any(|known| same_unescaped(known, name, true)),
        }
    })
}

/// Whether both header parts hold the same pairs in any order.
fn same_headers(one: Option<&[u8]>, two: Option<&[u8]>) -> bool {
    let pairs = |part: Option<&[u8]>| part.map_or(0, |part| part.split(|&b| b == b'&').count());
    let within = |part: &[u8], other: &[u8]| {
        part.split(|&b| b == b'&')
            .all(|pair| other.split(|&b| b == b'&').any(|p| same_pair(pair, p)))
    };
    match (one, two) {
        (None, None) => true,
        (Some(a), Some(b)) => pairs(one) == pairs(two) && within(a, b) && within(b, a),
        _ => false,
    }
}

fn same_pair(one: &[u8], two: &[u8]) -> bool {
    match (lex::split_once(one, b'='), lex::split_once(two, b'=')) {
        (Some((name, value)), Some((known, theirs))) => {
            same_unescaped(name, known, true) && same_unescaped(value, theirs, false)
        }
        _ => one == two,
    }
}

fn same_blind(one: Option<&[u8]>, two: Option<&[u8]>) -> bool {
    match (one, two) {
        (Some(one), Some(two)) => one.eq_ignore_ascii_case(two),
        (None, None) => true,
        _ => false,
    }
}

fn same_escaped(one: Option<&[u8]>, two: Option<&[u8]>) -> bool {
    match (one, two) {
        (Some(one), Some(two)) => same_unescaped(one, two, false),
        (None, None) => true,
        _ => false,
    }
}

fn same_unescaped(one: &[u8], two: &[u8], blind: bool) -> bool {
    let letters = |bytes| {
        Letters(bytes)
            .map(move |(byte, held)| (if blind { byte.to_ascii_lowercase() } else { byte }, held))
    };
    letters(one).eq(letters(two))
}

/// The bytes of an escaped text, each with whether it is a reserved letter that was escaped: such a
/// letter is not the same as the bare one (RFC 3261 §19.1.4).
struct Letters<'a>(&'a [u8]);

impl Iterator for Letters<'_> {
    type Item = (u8, bool);

    fn next(&mut self) -> Option<(u8, bool)> {
        let hex =
            |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        if let [b'%', high, low, rest @ ..] = self.0
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            self.0 = rest;
            let byte = high << 4 | low;
            return Some((byte, b";/?:@&=+$,".contains(&byte)));
        }
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some((byte, false))
    }
}

/// Undoes percent escapes, once, into the caller's buffer; a `%` that starts no escape stays.
/// `None` when the buffer is too small: [`slice::len`] of the input always suffices.
#[must_use]
pub fn unescape_into<'b>(escaped: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut length = 0;
    for (byte, _) in Letters(escaped) {
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    buffer.get(..length)
}

/// Escapes what the user part of a SIP URI cannot hold bare (RFC 3261 §25.1 `user`): whatever comes
/// in, [`unescape_into`] gives it back. Copies only when there is something to escape.
#[must_use]
pub fn escape_user(user: &str) -> Cow<'_, str> {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte);
    if user.bytes().all(bare) {
        return Cow::Borrowed(user);
    }
    let mut out = String::with_capacity(user.len() + 8);
    for byte in user.bytes() {
        if bare(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to memory never fails");
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sip(text: &str) -> SipUri<'_> {
        match Uri::parse(text.as_bytes()) {
            Some(Uri::Sip(uri)) => uri,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn same(one: &str, two: &str) -> bool {
        let read = |text: &'static str| Uri::parse(text.as_bytes()).unwrap();
        let (one, two) = (one.to_owned().leak(), two.to_owned().leak());
        let forth = read(one).equivalent(&read(two));
        assert_eq!(forth, read(two).equivalent(&read(one)), "{one} and {two} disagree");
        forth
    }

    #[test]
    fn every_part_of_a_sip_uri_is_found() {
        let uri =
            sip("sips:alice:secret@[2001:db8::10]:5070;transport=tcp;x=1:2?Subject=a&Route=b");
        assert!(uri.secure);
        assert_eq!(uri.user, Some(&b"alice"[..]));
        assert_eq!(uri.password, Some(&b"secret"[..]));
        assert_eq!(uri.host, Host::Address("2001:db8::10".parse().unwrap()));
        assert_eq!(uri.port, Some(5070));
        assert_eq!(uri.transport(), Some(&b"tcp"[..]));
        assert_eq!(uri.params.value("x"), Some(&b"1:2"[..]));
        assert_eq!(uri.headers, Some(&b"Subject=a&Route=b"[..]));
    }

    #[test]
    fn a_user_part_may_hold_semicolons_and_escapes() {
        let uri = sip("sip:user;par=u%40example.net@example.com");
        let mut buffer = [0; 32];
        assert_eq!(uri.user_into(&mut buffer), Some(&b"user;par=u@example.net"[..]));
        assert_eq!(uri.user_into(&mut [0; 4]), None);
        assert!(uri.params.is_empty());
        let unusual = sip(
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
        );
        assert_eq!(unusual.host, Host::Name(b"example.com"));
        assert_eq!(unusual.headers, None);
    }

    #[test]
    fn escapes_are_undone_once_and_a_stray_percent_stays() {
        let mut buffer = [0; 32];
        assert_eq!(unescape_into(b"%2523", &mut buffer), Some(&b"%23"[..]));
        assert_eq!(unescape_into(b"%Z%4", &mut buffer), Some(&b"%Z%4"[..]));
        assert_eq!(unescape_into(b"null-%00-null", &mut buffer), Some(&b"null-\0-null"[..]));
    }

    #[test]
    fn numbers_in_brackets_are_part_of_the_address() {
        assert_eq!(sip("sip:[2001:db8::10:5070]").port, None);
        assert_eq!(sip("sip:[2001:db8::10]:5070").port, Some(5070));
        assert_eq!(sip("sip:user@[::ffff:192.0.2.2]").host.to_string(), "[::ffff:192.0.2.2]");
    }

    #[test]
    fn uris_that_break_the_grammar_are_refused() {
        for wrong in [
            "",
            "sip:",
            "sip",
            ":",
            "sip:@h",
            "sip:a@",
            "sip:a@h:",
            "sip:a@h:65536",
            "sip:a@h:x",
            "sip:2001:db8::10",
            "sip:[2001:db8::10",
            "sip:[x]",
            "sip:a b@h",
            "<sip:a@h>",
            "sip:a@h;",
            "sip:a@h;;x",
            "sip:user@example.com; lr",
            "tel:",
            "tel:+",
            "tel:abcxyz",
            "1x:y",
            "sip:a@b@c",
            "sip:a@h;x=\"y",
            "mailto:",
            "sip:a@[2001:db8:::192.0.2.1]",
        ] {
            assert_eq!(Uri::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn unknown_schemes_are_handed_on() {
        let uri = Uri::parse(b"soap.beep://192.0.2.103:3002").unwrap();
        assert_eq!(uri, Uri::Other { scheme: b"soap.beep", rest: b"//192.0.2.103:3002" });
        assert!(uri.user().is_none() && uri.host().is_none());
    }

    #[test]
    fn telephone_numbers_compare_without_their_separators() {
        assert!(same("tel:+1-555-(015).1234", "TEL:+15550151234"));
        assert!(same("tel:7042;phone-context=example.com", "tel:70-42;Phone-Context=EXAMPLE.com"));
        assert!(!same("tel:7042;phone-context=example.com", "tel:7042"));
        assert!(!same("tel:+1", "sip:+1@h"));
    }

    /// The pairs of RFC 3261 §19.1.4.
    #[test]
    fn the_rfcs_equal_and_unequal_pairs() {
        assert!(same(
            "sip:%61lice@atlanta.com;transport=TCP",
            "sip:alice@AtLanTa.CoM;Transport=tcp"
        ));
        assert!(same("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"));
        assert!(same("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"));
        assert!(same(
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com"
        ));
        assert!(same(
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x"
        ));
        assert!(!same(
            "SIP:ALICE@AtLanTa.CoM;Transport=udp",
            "sip:alice@AtLanTa.CoM;Transport=UDP"
        ));
        assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"));
        assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"));
        assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"));
        assert!(!same("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"));
        assert!(!same("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"));
        assert!(!same("sip:a@h;security=on", "sip:a@h;security=off"));
    }

    #[test]
    fn a_reserved_letter_is_not_its_own_escape() {
        assert!(!same("sip:a%3Bb@h", "sip:a;b@h"));
        assert!(same("sip:a%2D%7Eb@h", "sip:a-~b@h"));
        assert!(!same("sip:null-%00-null@h", "sip:null-@h"));
        assert!(!same("sips:a@h", "sip:a@h"));
    }

    #[test]
    fn what_was_escaped_comes_back_and_nothing_breaks_out() {
        for user in
            ["+15550100", "a b", "x@evil", "100%", "a:b", "\u{fc}\r\n", "<>\"", "user;par=u"]
        {
            let text = format!("sip:{}@h", escape_user(user));
            let uri = sip(&text);
            assert_eq!(uri.user_into(&mut [0; 64]), Some(user.as_bytes()), "{text}");
            assert_eq!((uri.host, uri.password), (Host::Name(b"h"), None));
        }
        assert!(matches!(escape_user("+1555;ext=7"), Cow::Borrowed(_)));
    }

    #[test]
    fn endless_parameters_are_compared_as_bytes_only() {
        let many = |count| (0..count).map(|n| format!(";p{n}")).collect::<String>();
        assert!(same(&format!("sip:h{}", many(32)), "sip:H"));
        assert!(!same(&format!("sip:h{}", many(33)), "sip:H"));
        assert!(same(&format!("sip:h{}", many(33)), &format!("sip:h{}", many(33))));
    }
}
