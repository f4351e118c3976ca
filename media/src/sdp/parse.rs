//! Reading a description: a tolerant, bounded pass in front of `sdp-types`.
//!
//! Products write `o=` with spaces in the user name, leave out `s=` and `t=`, end lines any way
//! they like and mix character sets. None of that says anything about audio. So only the lines
//! that do are kept (`c=`, `m=` and a dozen attributes), as many as the limits allow, and those
//! are parsed strictly.

use std::net::{IpAddr, Ipv4Addr};

use super::direction::Direction;
use super::plan::Incompatible;

/// Longest description, in bytes.
const BYTES_MAX: usize = 64 * 1024;
/// Lines of a description, whatever they say; with many candidates there are some hundred.
const LINES_MAX: usize = 1024;
/// Media lines of a description. All have to be answered, so more are an error.
const MEDIA_MAX: usize = 8;
/// Formats read of one media line; the rest is ignored.
const FORMATS_MAX: usize = 32;
/// Longest word of a media line that we would have to repeat in an answer.
const WORD_MAX: usize = 32;
/// Shortest and longest packet time believed, in milliseconds.
const PTIME_MS: (u8, u8) = (10, 60);

/// Attributes that are read, each with how many of it per media line (or session) are kept.
const ATTRIBUTES: [(&str, usize); 11] = [
    ("rtpmap", FORMATS_MAX),
    ("crypto", 16),
    ("ptime", 1),
    ("maxptime", 1),
    ("rtcp", 1),
    ("rtcp-mux", 1),
    ("mid", 1),
    ("sendrecv", 1),
    ("sendonly", 1),
    ("recvonly", 1),
    ("inactive", 1),
];

/// What a description says about audio, and the bare shape of the rest.
#[derive(Clone)]
pub(crate) struct Description {
    pub(crate) sections: Vec<Section>,
}

/// Where media is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An address; `0.0.0.0` and `::` mean hold (RFC 3264 §8.4).
    Ip(IpAddr),
    /// A host name. Nothing here resolves names; the latch learns the address.
    Name,
    /// There is no connection line, or it is not understood.
    Missing,
}

/// One media line with what belongs to it, session-level values filled in.
#[derive(Clone)]
pub(crate) struct Section {
    /// `audio`, `video`, `image`, …
    pub(crate) kind: String,
    pub(crate) port: u16,
    /// `RTP/AVP`, `RTP/SAVP`, …
    pub(crate) proto: String,
    /// Formats as written, in the order of preference.
    pub(crate) formats: Vec<String>,
    pub(crate) target: Target,
    pub(crate) direction: Direction,
    pub(crate) rtpmaps: Vec<RtpMap>,
    pub(crate) ptime_ms: Option<u8>,
    pub(crate) maxptime_ms: Option<u8>,
    /// Port and address of `a=rtcp` (RFC 3605).
    pub(crate) rtcp: Option<(u16, Option<IpAddr>)>,
    pub(crate) rtcp_mux: bool,
    /// Values of `a=crypto`, in order.
    pub(crate) crypto: Vec<String>,
    pub(crate) mid: Option<String>,
}

/// `a=rtpmap:<payload type> <name>/<clock>[/<channels>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RtpMap {
    pub(crate) payload_type: u8,
    pub(crate) name: String,
    pub(crate) clock_hz: u32,
    pub(crate) channels: u8,
}

impl Description {
    /// Reads a description.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Incompatible> {
        let text = reduce(bytes)?;
        let session =
            sdp_types::Session::parse(text.as_bytes()).map_err(|_| Incompatible::Malformed)?;
        let direction = direction_of(&session.attributes).unwrap_or_default();
        let target = session.connection.as_ref().map_or(Target::Missing, target_of);
        let sections =
            session.medias.into_iter().map(|media| Section::of(media, target, direction)).collect();
        Ok(Self { sections })
    }
}

impl Section {
    fn of(media: sdp_types::Media, target: Target, direction: Direction) -> Self {
        let formats = media.fmt.split_ascii_whitespace().map(str::to_owned).collect();
        let value = |name: &str| {
            let found = media.attributes.iter().find(|attribute| attribute.attribute == name);
            found.and_then(|attribute| attribute.value.as_deref())
        };
        let all = |name: &'static str| {
            let named = media.attributes.iter().filter(move |a| a.attribute == name);
            named.filter_map(|attribute| attribute.value.as_deref())
        };
        Self {
            formats,
            target: media.connections.first().map_or(target, target_of),
            direction: direction_of(&media.attributes).unwrap_or(direction),
            rtpmaps: all("rtpmap").filter_map(RtpMap::parse).collect(),
            ptime_ms: value("ptime").and_then(parse_ptime),
            maxptime_ms: value("maxptime").and_then(parse_ptime),
            rtcp: value("rtcp").and_then(parse_rtcp),
            rtcp_mux: media.attributes.iter().any(|a| a.attribute == "rtcp-mux"),
            crypto: all("crypto").map(str::to_owned).collect(),
            mid: value("mid").filter(|mid| is_word(mid)).map(str::to_owned),
            kind: media.media,
            port: media.port,
            proto: media.proto,
        }
    }

    /// The payload types offered, in order; what is no payload type is left out. 64 to 95 look
    /// like RTCP on a shared port and must not be used (RFC 5761 §4).
    pub(crate) fn payload_types(&self) -> impl Iterator<Item = u8> {
        let numbers = self.formats.iter().filter_map(|format| format.parse::<u8>().ok());
        numbers.filter(|number| matches!(number, 0..=63 | 96..=127))
    }

    pub(crate) fn rtpmap(&self, payload_type: u8) -> Option<&RtpMap> {
        self.rtpmaps.iter().find(|map| map.payload_type == payload_type)
    }
}

impl RtpMap {
    fn parse(value: &str) -> Option<Self> {
        let (payload_type, encoding) =
            value.trim().split_once(|c: char| c.is_ascii_whitespace())?;
        let mut parts = encoding.trim().split('/');
        let name = parts.next().filter(|name| !name.is_empty())?;
        let clock_hz = parts.next()?.trim().parse().ok()?;
        let channels = parts.next().map_or(Some(1), |text| text.trim().parse().ok())?;
        let payload_type = payload_type.parse().ok().filter(|number| *number <= 127)?;
        Some(Self { payload_type, name: name.to_owned(), clock_hz, channels })
    }
}

/// Keeps the lines that matter, within their limits, in a form that parses strictly.
fn reduce(bytes: &[u8]) -> Result<String, Incompatible> {
    if bytes.len() > BYTES_MAX {
        return Err(Incompatible::TooLarge);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len() + 64);
    out.push_str("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
    let mut recognised = false;
    let mut media_lines = 0;
    let mut has_connection = false;
    let mut counts = [0; ATTRIBUTES.len()];
    let lines = text.split(['\r', '\n']).filter(|line| !line.is_empty());
    for (at, line) in lines.enumerate() {
        if at >= LINES_MAX {
            return Err(Incompatible::TooLarge);
        }
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        if value.contains('\0') {
            continue;
        }
        match key {
            "v" => recognised = true,
            "m" => {
                media_lines += 1;
                if media_lines > MEDIA_MAX {
                    return Err(Incompatible::TooLarge);
                }
                reduce_media(value, &mut out).ok_or(Incompatible::Malformed)?;
                (recognised, has_connection) = (true, false);
                counts = [0; ATTRIBUTES.len()];
            }
            "c" if !has_connection => has_connection = reduce_connection(value, &mut out).is_some(),
            "a" => reduce_attribute(value, &mut counts, &mut out),
            _ => {}
        }
    }
    if recognised { Ok(out) } else { Err(Incompatible::Malformed) }
}

/// `<media> <port>[/<count>] <proto> <fmt> …`
fn reduce_media(value: &str, out: &mut String) -> Option<()> {
    let mut words = value.split_ascii_whitespace();
    let kind = words.next().filter(|word| is_word(word))?.to_ascii_lowercase();
    let port = words.next()?.split('/').next()?.parse::<u16>().ok()?;
    let proto = words.next().filter(|word| is_word(word))?.to_ascii_uppercase();
    let formats: Vec<_> = words.filter(|word| is_word(word)).take(FORMATS_MAX).collect();
    if formats.is_empty() {
        return None;
    }
    let formats = formats.join(" ");
    out.push_str(&format!("m={kind} {port} {proto} {formats}\r\n"));
    Some(())
}

/// `<nettype> <addrtype> <address>`
fn reduce_connection(value: &str, out: &mut String) -> Option<()> {
    let mut words = value.split_ascii_whitespace();
    let (net, kind, address) = (words.next()?, words.next()?, words.next()?);
    let plain = address.len() <= 255 && address.bytes().all(|b| b.is_ascii_graphic());
    if !net.eq_ignore_ascii_case("IN") || !is_word(kind) || !plain {
        return None;
    }
    out.push_str(&format!("c=IN {} {address}\r\n", kind.to_ascii_uppercase()));
    Some(())
}

fn reduce_attribute(value: &str, counts: &mut [usize; ATTRIBUTES.len()], out: &mut String) {
    let (name, rest) = match value.split_once(':') {
        Some((name, rest)) => (name.trim(), Some(rest.trim())),
        None => (value.trim(), None),
    };
    let known =
        ATTRIBUTES.iter().zip(counts).find(|((known, _), _)| known.eq_ignore_ascii_case(name));
    let Some(((name, limit), count)) = known else { return };
    *count += 1;
    if *count > *limit {
        return;
    }
    match rest {
        Some(rest) => out.push_str(&format!("a={name}:{rest}\r\n")),
        None => out.push_str(&format!("a={name}\r\n")),
    }
}

/// A word we can repeat in an answer.
fn is_word(word: &str) -> bool {
    (1..=WORD_MAX).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+!*#$%&'~^{}|`".contains(&b))
}

fn direction_of(attributes: &[sdp_types::Attribute]) -> Option<Direction> {
    attributes.iter().find_map(|attribute| Direction::from_name(&attribute.attribute))
}

fn target_of(connection: &sdp_types::Connection) -> Target {
    let address = connection.connection_address.as_str();
    // `224.2.1.1/127/3`: TTL and count belong to multicast, which is refused by its address.
    let host = address.split('/').next().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) => Target::Ip(ip.to_canonical()),
        // RFC 6157 §5.1: a name below .invalid is the IPv6 way to write 0.0.0.0.
        Err(_) if host.to_ascii_lowercase().ends_with(".invalid") => {
            Target::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        }
        Err(_) if is_host_name(host) => Target::Name,
        Err(_) => Target::Missing,
    }
}

/// Something a resolver would be asked about; not an address with a digit too many.
fn is_host_name(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
        && last.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
}

/// Packet times come as `20`, `20.0` and ` 20`; zero is no packet time.
fn parse_ptime(text: &str) -> Option<u8> {
    let whole = text.trim().split(['.', ' ']).next()?;
    let ms = whole.parse::<u32>().ok().filter(|ms| *ms > 0)?;
    let (least, most) = PTIME_MS;
    Some(u8::try_from(ms).unwrap_or(most).clamp(least, most))
}

/// `<port> [IN IP4|IP6 <address>]`
fn parse_rtcp(text: &str) -> Option<(u16, Option<IpAddr>)> {
    let mut words = text.split_ascii_whitespace();
    let port = words.next()?.parse().ok()?;
    let address = words.nth(2).and_then(|address| address.parse().ok());
    Some((port, address))
}
