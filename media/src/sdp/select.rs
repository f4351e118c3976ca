//! Choosing the audio line, its codec and its keys from what the peer wrote.

use std::net::{IpAddr, SocketAddr};

use super::address;
use super::crypto::CryptoLine;
use super::direction::Direction;
use super::negotiate::{Capabilities, Encryption};
use super::parse::{Section, Target};
use super::plan::Incompatible;
use crate::codec::Codec;
use crate::srtp::Suite;

/// Audio per packet when the peer does not say, in milliseconds (RFC 3551 §4.2).
pub(crate) const PTIME_DEFAULT_MS: u8 = 20;

/// A media line that works, and how.
#[derive(Clone)]
pub(crate) struct Choice {
    pub(crate) codec: Codec,
    pub(crate) payload_type: u8,
    pub(crate) dtmf: Option<u8>,
    pub(crate) ptime_ms: u8,
    pub(crate) crypto: Option<CryptoLine>,
    pub(crate) media: Media,
}

/// Where the peer receives and who sends, by its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Media {
    /// `None`: held by address (`c=0.0.0.0`); the port is known all the same.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) rtcp: Option<SocketAddr>,
    pub(crate) mux: bool,
    /// The peer's direction; a peer that holds by address does not receive.
    pub(crate) direction: Direction,
}

/// How a transport protects media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Plain,
    Secure,
}

impl Profile {
    /// The feedback profiles (RFC 4585, RFC 5124) are taken, without any feedback.
    pub(crate) fn of(proto: &str) -> Option<Self> {
        match proto {
            "RTP/AVP" | "RTP/AVPF" => Some(Self::Plain),
            "RTP/SAVP" | "RTP/SAVPF" => Some(Self::Secure),
            _ => None,
        }
    }
}

/// The line to answer: the first that is encrypted and usable, else the first that is usable.
pub(crate) fn choose(
    sections: &[Section],
    capabilities: &Capabilities,
    ours: SocketAddr,
) -> Result<(usize, Choice), Incompatible> {
    let mut plain = None;
    let mut refusal = None;
    for (at, section) in sections.iter().enumerate() {
        if section.kind != "audio" || section.port == 0 {
            continue;
        }
        match judge(section, capabilities, ours) {
            Ok(choice) if choice.crypto.is_some() => return Ok((at, choice)),
            Ok(choice) => plain = plain.or(Some((at, choice))),
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    plain.ok_or(refusal.unwrap_or(Incompatible::NoAudio))
}

/// One offered audio line against what we can do and may do.
fn judge(
    section: &Section,
    capabilities: &Capabilities,
    ours: SocketAddr,
) -> Result<Choice, Incompatible> {
    let crypto = security(section, capabilities.encryption)?;
    let (codec, payload_type) = codec_of(section, &capabilities.codecs)?;
    Ok(Choice {
        codec,
        payload_type,
        dtmf: capabilities.dtmf.then(|| dtmf_of(section, codec)).flatten(),
        ptime_ms: ptime_of(section),
        crypto,
        media: media_of(section, ours)?,
    })
}

/// The encryption rules: what is offered against what the leg allows.
///
/// | offer | disable | allow | require |
/// |---|---|---|---|
/// | AVP | plain | plain | refused |
/// | AVP with a usable key (RFC 8643) | plain | SRTP | SRTP |
/// | AVP with unusable keys only | plain | plain | refused |
/// | SAVP with a usable key | refused | SRTP | SRTP |
/// | SAVP without | refused | refused | refused |
fn security(section: &Section, encryption: Encryption) -> Result<Option<CryptoLine>, Incompatible> {
    let profile = Profile::of(&section.proto).ok_or(Incompatible::Transport)?;
    let crypto = best_crypto(section);
    match (encryption, profile, crypto) {
        (Encryption::Disable, Profile::Plain, _) => Ok(None),
        (Encryption::Disable, Profile::Secure, _) => Err(Incompatible::EncryptionRefused),
        (_, _, Some(line)) => Ok(Some(line)),
        (_, Profile::Secure, None) => Err(Incompatible::NoUsableCrypto),
        (Encryption::Allow, Profile::Plain, None) => Ok(None),
        (Encryption::Require, Profile::Plain, None) if section.crypto.is_empty() => {
            Err(Incompatible::EncryptionRequired)
        }
        (Encryption::Require, Profile::Plain, None) => Err(Incompatible::NoUsableCrypto),
    }
}

/// The crypto lines that can be used, in the order written.
pub(crate) fn usable_crypto(section: &Section) -> impl Iterator<Item = CryptoLine> {
    section.crypto.iter().filter_map(|value| CryptoLine::parse(value).ok())
}

/// The peer's first line of the strongest suite. A line that asks to weaken the stream spoils
/// nothing but itself.
fn best_crypto(section: &Section) -> Option<CryptoLine> {
    let with = |suite: Suite| usable_crypto(section).find(|line| line.suite == suite);
    Suite::ALL.into_iter().find_map(with)
}

/// The first format of the peer that we have; static numbers need no rtpmap (RFC 3551 §6).
pub(crate) fn codec_of(section: &Section, codecs: &[Codec]) -> Result<(Codec, u8), Incompatible> {
    let mut formats = section.payload_types();
    let found = formats.find_map(|number| {
        let codec = match section.rtpmap(number) {
            Some(map) if map.clock_hz == 8_000 && map.channels == 1 => Codec::from_name(&map.name),
            Some(_) => None,
            None => Codec::from_payload_type(number),
        };
        codec.filter(|codec| codecs.contains(codec)).map(|codec| (codec, number))
    });
    found.ok_or(Incompatible::NoCodec)
}

/// Telephone events on the codec's own clock (RFC 4733 §2.1).
pub(crate) fn dtmf_of(section: &Section, codec: Codec) -> Option<u8> {
    section.payload_types().find(|number| {
        section.rtpmap(*number).is_some_and(|map| {
            map.name.eq_ignore_ascii_case("telephone-event")
                && map.clock_hz == codec.clock_rate_hz()
        })
    })
}

/// What the peer wants in a packet, never more than it says it can take.
pub(crate) fn ptime_of(section: &Section) -> u8 {
    let wanted = section.ptime_ms.unwrap_or(PTIME_DEFAULT_MS);
    let most = section.maxptime_ms.unwrap_or(u8::MAX);
    let ptime_ms = wanted.min(most);
    // Whole blocks of ten milliseconds.
    (ptime_ms / 10).max(1) * 10
}

/// Address and direction of a line, every address checked.
pub(crate) fn media_of(section: &Section, ours: SocketAddr) -> Result<Media, Incompatible> {
    let stated = section.direction;
    let (address, direction) = match section.target {
        Target::Missing => return Err(Incompatible::BadAddress),
        Target::Name => (Some(unspecified(ours)), stated),
        Target::Ip(ip) if ip.is_unspecified() => (None, Direction::new(stated.sends(), false)),
        Target::Ip(ip) => {
            let checked = address::check(SocketAddr::new(ip, section.port), ours)?;
            (Some(checked.ip()), stated)
        }
    };
    let mux = section.rtcp_mux;
    let rtcp = if mux { None } else { rtcp_of(section, address, ours) };
    Ok(Media { address, port: section.port, rtcp, mux, direction })
}

/// The RTCP address of `a=rtcp`, if it may be used (RFC 3605). One that may not is ignored:
/// audio works without it.
fn rtcp_of(section: &Section, media: Option<IpAddr>, ours: SocketAddr) -> Option<SocketAddr> {
    let (port, address) = section.rtcp?;
    let address = SocketAddr::new(address.or(media)?, port);
    address::check(address, ours).ok()
}

/// "Not told", in the family of our own address.
pub(crate) fn unspecified(ours: SocketAddr) -> IpAddr {
    match ours {
        SocketAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
