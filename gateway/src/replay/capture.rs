//! What a capture holds: the SIP messages in their order, and a count of everything else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use media::packet;
use sip::{HeaderName, Message, NameAddr, Transport};

use super::file::{self, End, NotACapture, Packet};
use super::link::{Arrival, Unwrap};
use super::stream::{self, Captured, Held};

/// Messages of a capture that are looked at.
const MAX_MESSAGES: usize = 100_000;

/// One SIP message of a capture, with what the replay needs of it. Nothing is demanded of the message
/// but that it can be taken apart: what is wrong with it is for the gateway to say.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    /// Number of the packet that brought it, or its last piece, from 1.
    pub(super) packet: usize,
    /// Who sent it.
    pub(super) from: SocketAddr,
    /// To whom.
    pub(super) to: SocketAddr,
    /// UDP or TCP.
    pub(super) transport: Transport,
    /// The message.
    pub(super) message: Message,
    /// Its method; for a response that of CSeq. Empty when it cannot be read.
    pub(super) method: String,
    /// Its status, when it is a response.
    pub(super) status: Option<u16>,
    /// The Call-ID; empty without one.
    pub(super) call_id: String,
    /// The number of CSeq, as written.
    pub(super) cseq: String,
    /// The method of CSeq: that of the request, unless one of them is wrong.
    pub(super) cseq_method: String,
}

impl Sighting {
    /// A message as it was seen, or the reason why it is none.
    ///
    /// # Errors
    /// The phrase of the parser.
    pub(super) fn read(
        packet: usize,
        (from, to): (SocketAddr, SocketAddr),
        transport: Transport,
        bytes: Bytes,
    ) -> Result<Self, String> {
        let message = Message::parse(bytes).map_err(|why| why.to_string())?;
        let (mut method, status) = first_line(&message);
        let cseq = text(&message, HeaderName::CSeq);
        let mut words = cseq.split_whitespace();
        let number = words.next().unwrap_or_default().to_owned();
        let cseq_method = words.next().unwrap_or_default().to_owned();
        if status.is_some() {
            method.clone_from(&cseq_method);
        }
        let call_id = text(&message, HeaderName::CallId);
        Ok(Sighting {
            packet,
            from,
            to,
            transport,
            message,
            method,
            status,
            call_id,
            cseq: number,
            cseq_method,
        })
    }

    /// The tag of To: there in every request within a dialog (RFC 3261 §12.2.1.1).
    #[must_use]
    pub(super) fn to_tag(&self) -> Option<String> {
        tag(&self.message, HeaderName::To)
    }

    /// Whether the request carries an answer to a challenge.
    #[must_use]
    pub(super) fn has_credentials(&self) -> bool {
        self.message.header(HeaderName::Authorization).is_some()
            || self.message.header(HeaderName::ProxyAuthorization).is_some()
    }

    /// The reason phrase of a response.
    pub(super) fn reason_phrase(&self) -> String {
        let line = self.message.bytes().split(|&byte| matches!(byte, b'\r' | b'\n')).next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned()
    }

    /// The Request-URI as written; empty for a response.
    #[must_use]
    pub(super) fn request_uri(&self) -> &[u8] {
        let line = self.message.bytes().split(|&byte| matches!(byte, b'\r' | b'\n')).next();
        let mut words = line.unwrap_or_default().split(|&byte| byte == b' ');
        words.nth(1).filter(|_| self.status.is_none()).unwrap_or_default()
    }
}

/// Method or status of the first line.
fn first_line(message: &Message) -> (String, Option<u16>) {
    let line = message.bytes().split(|&byte| matches!(byte, b'\r' | b'\n')).next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let mut words = line.split(' ');
    let first = words.next().unwrap_or_default().to_owned();
    if message.is_request() {
        return (first, None);
    }
    (String::new(), Some(words.next().and_then(|word| word.parse().ok()).unwrap_or(0)))
}

/// A header's value as text, its folds undone.
pub(super) fn text(message: &Message, name: HeaderName) -> String {
    message
        .text(name)
        .map(|value| String::from_utf8_lossy(&value).trim().to_owned())
        .unwrap_or_default()
}

/// The tag of a From or To header.
pub(super) fn tag(message: &Message, name: HeaderName) -> Option<String> {
    let value = message.header(name)?;
    let tag = NameAddr::parse(value)?.tag()?;
    Some(String::from_utf8_lossy(tag).into_owned())
}

/// Everything a capture held.
#[derive(Debug, Default)]
pub(super) struct Capture {
    /// The SIP messages, in the order in which they were complete.
    pub(super) messages: Vec<Sighting>,
    /// What else there was, and how often: a word for people, and a count.
    pub(super) others: BTreeMap<String, usize>,
    /// Packets of the file.
    pub(super) packets: usize,
    /// True when the file ends in the middle of a packet.
    pub(super) broken_off: bool,
}

impl Capture {
    /// Reads a capture file.
    ///
    /// # Errors
    /// [`NotACapture`] when it is of another format.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, NotACapture> {
        let mut reading = Reading::default();
        let end = file::read(bytes, &mut |packet| {
            reading.packet(packet);
            reading.capture.messages.len() < MAX_MESSAGES
        })?;
        let mut capture = reading.finish();
        capture.broken_off = end == End::BrokenOff;
        Ok(capture)
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.others.entry(what.into()).or_default() += 1;
    }

    fn message(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        transport: Transport,
        bytes: Bytes,
        cut: bool,
    ) {
        match Sighting::read(self.packets, ends, transport, bytes) {
            Ok(sighting) => self.messages.push(sighting),
            Err(_) if cut => self.count("SIP cut off by the capture"),
            Err(why) => self.count(format!("unreadable SIP: {why}")),
        }
    }

    fn held(&mut self, ends: (SocketAddr, SocketAddr), held: Held) {
        match held {
            Held::Message(bytes) => self.message(ends, Transport::Tcp, bytes, false),
            Held::KeepAlive => self.count("keep-alives"),
            Held::Http { websocket: true } => self.count("WebSocket connections"),
            Held::Http { websocket: false } => self.count("HTTP messages"),
            Held::Other => self.count("TCP streams without SIP"),
        }
    }

    fn datagram(&mut self, ends: (SocketAddr, SocketAddr), bytes: &[u8], cut: bool) {
        // Empty lines may come before a message (RFC 3261 §7.5).
        let lines = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let message = bytes.get(lines..).unwrap_or_default();
        if stream::is_start_line(message) {
            return self.message(ends, Transport::Udp, Bytes::copy_from_slice(message), cut);
        }
        let sip_port = [ends.0.port(), ends.1.port()].contains(&5060);
        let what = match packet::classify(bytes) {
            _ if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) => "keep-alives",
            _ if sip_port && bytes.len() < 16 => "keep-alives",
            _ if stream::is_http(bytes) => "HTTP messages",
            packet::Kind::Rtp => "RTP packets",
            packet::Kind::Rtcp => "RTCP packets",
            packet::Kind::Stun => "STUN packets",
            packet::Kind::Other if sip_port => "datagrams on port 5060 that are no SIP",
            packet::Kind::Other => "other datagrams",
        };
        self.count(what);
    }
}

/// A capture being read.
#[derive(Default)]
struct Reading {
    capture: Capture,
    unwrap: Unwrap,
    streams: Captured,
}

impl Reading {
    fn packet(&mut self, packet: Packet<'_>) {
        let Reading { capture, unwrap, streams } = self;
        capture.packets += 1;
        let known = unwrap.frame(packet, &mut |arrival| match arrival {
            Arrival::Datagram { from, to, bytes } => {
                capture.datagram((from, to), bytes, packet.cut);
            }
            Arrival::Segment { from, to, segment } => {
                streams.segment((from, to), segment, &mut |held| capture.held((from, to), held));
            }
        });
        if !known {
            capture.count(format!("frames of link type {}", packet.link));
        }
    }

    fn finish(self) -> Capture {
        let Reading { mut capture, unwrap, streams } = self;
        streams.finish(&mut |ends, held| capture.held(ends, held));
        let unfinished = unwrap.unfinished();
        if unfinished > 0 {
            capture.others.insert("IP packets with missing pieces".to_owned(), unfinished);
        }
        capture
    }
}
