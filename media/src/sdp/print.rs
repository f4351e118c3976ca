//! Writing our descriptions, by `sdp-types`, which lets no line break through a value.

use std::net::{IpAddr, SocketAddr};

use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};

use super::crypto::CryptoLine;
use super::direction::Direction;
use super::parse::Section;
use super::select::PTIME_DEFAULT_MS;
use crate::codec::Codec;

/// The media line we take part in.
pub(crate) struct AudioLine<'a> {
    pub(crate) port: u16,
    pub(crate) proto: &'a str,
    /// Codecs with their numbers, most wanted first.
    pub(crate) codecs: &'a [(Codec, u8)],
    pub(crate) dtmf: Option<u8>,
    pub(crate) direction: Direction,
    pub(crate) crypto: &'a [CryptoLine],
    pub(crate) rtcp_mux: bool,
    pub(crate) mid: Option<&'a str>,
}

/// A line of a description we refuse or have refused: kept in its place with port 0
/// (RFC 3264 §6, §8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedLine {
    kind: String,
    proto: String,
    format: String,
}

impl RefusedLine {
    pub(crate) fn of(section: &Section) -> Self {
        Self {
            kind: section.kind.clone(),
            proto: section.proto.clone(),
            format: section.formats.first().cloned().unwrap_or_else(|| "0".to_owned()),
        }
    }
}

/// The session part of a description of ours.
pub(crate) fn session(address: IpAddr, session_id: u64, version: u64) -> Session {
    let mut session = Session::new(Origin::with_ip_addr(session_id, version, address), "-");
    session.connection = Some(Connection::from_ip_addr(address));
    session.times = vec![Time::new(0, 0)];
    session
}

/// The `m=` section of the line we take part in.
pub(crate) fn audio(line: &AudioLine<'_>) -> Media {
    let numbers = line.codecs.iter().map(|(_, number)| *number).chain(line.dtmf);
    let formats: Vec<_> = numbers.map(|number| number.to_string()).collect();
    let mut media = media("audio", line.port, line.proto, formats.join(" "));
    let attributes = &mut media.attributes;
    for (codec, number) in line.codecs {
        let (name, clock) = (codec.name(), codec.clock_rate_hz());
        attributes.push(attribute("rtpmap", format!("{number} {name}/{clock}")));
    }
    if let Some(number) = line.dtmf {
        attributes.push(attribute("rtpmap", format!("{number} telephone-event/8000")));
        attributes.push(attribute("fmtp", format!("{number} 0-15")));
    }
    attributes.push(attribute("ptime", PTIME_DEFAULT_MS.to_string()));
    for line in line.crypto {
        attributes.push(attribute("crypto", line.print()));
    }
    if line.rtcp_mux {
        attributes.push(flag("rtcp-mux"));
    }
    if let Some(mid) = line.mid {
        attributes.push(attribute("mid", mid.to_owned()));
    }
    attributes.push(flag(line.direction.name()));
    media
}

/// The `m=` section of a line that is refused.
pub(crate) fn refused(line: &RefusedLine) -> Media {
    media(&line.kind, 0, &line.proto, line.format.clone())
}

/// The bytes of a description.
pub(crate) fn bytes(session: &Session) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    session.write(&mut out).expect("writing to memory does not fail");
    out
}

/// Our media address as the checks want it.
pub(crate) fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

fn media(kind: &str, port: u16, proto: &str, formats: String) -> Media {
    Media {
        media: kind.to_owned(),
        port,
        num_ports: None,
        proto: proto.to_owned(),
        fmt: formats,
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    }
}

fn attribute(name: &str, value: String) -> Attribute {
    Attribute { attribute: name.to_owned(), value: Some(value) }
}

fn flag(name: &str) -> Attribute {
    Attribute { attribute: name.to_owned(), value: None }
}
