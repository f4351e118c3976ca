//! From values to bytes (RFC 3261 §7, §8.2.6, §18.2.1; RFC 3581).
//!
//! What is printed here is one message and stays one: a value that holds CR, LF or NUL cannot be
//! printed, nor a name that is no token. What is echoed from a message that was read loses its folds
//! and nothing else.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::header::HeaderName;
use crate::lex::{self, Commas};
use crate::message::{Message, StartLine, unfold};
use crate::method::Method;
use crate::name_addr::NameAddr;
use crate::uri::Uri;
use crate::via::Via;

/// Why something cannot be part of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unprintable {
    /// A method or header name that is no token (RFC 3261 §25.1).
    Name,
    /// A value with CR, LF or NUL in it.
    Value,
    /// A Request-URI that could not be read back.
    Uri,
    /// A status code outside 100 to 699.
    Status,
}

impl fmt::Display for Unprintable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Name => "a name that is no token",
            Self::Value => "a value with CR, LF or NUL",
            Self::Uri => "a Request-URI that cannot be read back",
            Self::Status => "a status code outside 100 to 699",
        })
    }
}

impl std::error::Error for Unprintable {}

/// Writes one message: start line, headers in the order of the calls, then the body.
pub struct Writer {
    out: Vec<u8>,
}

const ROOM: usize = 1_024;

impl Writer {
    /// Starts a request.
    ///
    /// # Errors
    /// When the method is no token or the URI cannot be read back.
    pub fn request(method: &str, uri: &[u8]) -> Result<Self, Unprintable> {
        if !lex::is_token(method.as_bytes()) {
            return Err(Unprintable::Name);
        }
        Uri::parse(uri).ok_or(Unprintable::Uri)?;
        let mut out = Vec::with_capacity(ROOM);
        for piece in [method.as_bytes(), b" ", uri, b" SIP/2.0\r\n"] {
            out.extend_from_slice(piece);
        }
        Ok(Self { out })
    }

    /// Starts a response with nothing in it yet; [`Writer::reply_to`] is what one usually wants.
    ///
    /// # Errors
    /// When the status is out of range or the reason cannot be printed.
    pub fn response(status: u16, reason: Option<&str>) -> Result<Self, Unprintable> {
        if !(100..700).contains(&status) {
            return Err(Unprintable::Status);
        }
        let reason = reason.unwrap_or_else(|| reason_phrase(status));
        let mut writer = Self { out: Vec::with_capacity(ROOM) };
        writer.number_between(b"SIP/2.0 ", u32::from(status), b" ");
        writer.value(reason.as_bytes())?;
        writer.out.extend_from_slice(b"\r\n");
        Ok(writer)
    }

    /// Starts the response to a request (RFC 3261 §8.2.6): every Via, with `received` and `rport` of
    /// the topmost saying where the request really came from, From, To with `to_tag` unless it has a
    /// tag, Call-ID, CSeq; Record-Route where the response may create a dialog (§12.1.1); Timestamp
    /// in a 100 (§8.2.6.1).
    ///
    /// It takes a [`Message`] because malformed requests are answered too, with what could be read.
    /// `reason` defaults to the usual phrase of the status.
    ///
    /// # Errors
    /// When the status is out of range, or the reason or the tag cannot be printed.
    pub fn reply_to(
        request: &Message,
        source: SocketAddr,
        status: u16,
        reason: Option<&str>,
        to_tag: Option<&str>,
    ) -> Result<Self, Unprintable> {
        let mut writer = Self::response(status, reason)?;
        writer.echo_vias(request, source);
        writer.echo_first(request, HeaderName::From);
        writer.echo_to(request, to_tag)?;
        writer.echo_first(request, HeaderName::CallId);
        writer.echo_first(request, HeaderName::CSeq);
        let method = match request.start {
            StartLine::Request { method, .. } => method,
            StartLine::Response { .. } => Method::Other,
        };
        let opens =
            matches!(method, Method::Invite | Method::Subscribe | Method::Refer | Method::Notify);
        if opens && (101..300).contains(&status) {
            writer.echo(request, HeaderName::RecordRoute);
        }
        if status == 100 {
            writer.echo_first(request, HeaderName::Timestamp);
        }
        Ok(writer)
    }

    /// Adds a header.
    ///
    /// # Errors
    /// When the value cannot be printed.
    pub fn header(
        &mut self,
        name: HeaderName,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self, Unprintable> {
        self.extension(name.as_str(), value)
    }

    /// Adds a header by any name.
    ///
    /// # Errors
    /// When the name is no token or the value cannot be printed.
    pub fn extension(
        &mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self, Unprintable> {
        if !lex::is_token(name.as_bytes()) {
            return Err(Unprintable::Name);
        }
        let before = self.out.len();
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        if let Err(why) = self.value(value.as_ref()) {
            self.out.truncate(before);
            return Err(why);
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(self)
    }

    /// Adds a header whose value is a number.
    pub fn number(&mut self, name: HeaderName, number: u32) -> &mut Self {
        self.out.extend_from_slice(name.as_str().as_bytes());
        self.number_between(b": ", number, b"\r\n");
        self
    }

    /// Copies every line of a name from a message that was read, with folds undone.
    pub fn echo(&mut self, message: &Message, name: HeaderName) -> &mut Self {
        for value in message.lines(name) {
            self.echoed(name, value);
        }
        self
    }

    /// Ends the message with a body and its type, or with none; Content-Length either way
    /// (RFC 3261 §20.14).
    ///
    /// # Errors
    /// When the type cannot be printed.
    pub fn finish(mut self, body: Option<(&str, &[u8])>) -> Result<Bytes, Unprintable> {
        let body = match body {
            Some((content_type, body)) => {
                self.header(HeaderName::ContentType, content_type)?;
                body
            }
            None => &[],
        };
        let length = u32::try_from(body.len()).map_err(|_| Unprintable::Value)?;
        self.number(HeaderName::ContentLength, length);
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body);
        Ok(Bytes::from(self.out))
    }

    fn value(&mut self, value: &[u8]) -> Result<(), Unprintable> {
        if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
            return Err(Unprintable::Value);
        }
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn number_between(&mut self, before: &[u8], number: u32, after: &[u8]) {
        self.out.extend_from_slice(before);
        write!(self.out, "{number}").expect("writing to memory never fails");
        self.out.extend_from_slice(after);
    }

    fn echo_first(&mut self, message: &Message, name: HeaderName) {
        if let Some(value) = message.header(name) {
            self.echoed(name, value);
        }
    }

    /// Writes a value that was read from one header line: without its folds it is one line again.
    fn echoed(&mut self, name: HeaderName, value: &[u8]) {
        for piece in [name.as_str().as_bytes(), b": ", &unfold(value), b"\r\n"] {
            self.out.extend_from_slice(piece);
        }
    }

    fn echo_to(&mut self, request: &Message, tag: Option<&str>) -> Result<(), Unprintable> {
        let Some(value) = request.header(HeaderName::To) else { return Ok(()) };
        let untagged = NameAddr::parse(value).is_some_and(|to| !to.params.has("tag"));
        let tagged = match tag.filter(|_| untagged) {
            Some(tag) if !lex::is_token(tag.as_bytes()) => return Err(Unprintable::Value),
            Some(tag) => Cow::Owned([&unfold(value), &b";tag="[..], tag.as_bytes()].concat()),
            None => Cow::Borrowed(value),
        };
        self.echoed(HeaderName::To, &tagged);
        Ok(())
    }

    fn echo_vias(&mut self, request: &Message, source: SocketAddr) {
        for (row, line) in request.lines(HeaderName::Via).enumerate() {
            let mut values = Commas(Some(line));
            match values.next().and_then(|top| Some((top, Via::parse(top)?))) {
                Some((top, via)) if row == 0 => {
                    self.out.extend_from_slice(b"Via: ");
                    self.stamped_via(top, via, source);
                    for value in values {
                        self.out.extend_from_slice(b", ");
                        self.out.extend_from_slice(&unfold(value));
                    }
                    self.out.extend_from_slice(b"\r\n");
                }
                _ => self.echoed(HeaderName::Via, line),
            }
        }
    }

    /// The topmost Via with the packet's source in it (RFC 3261 §18.2.1, RFC 3581 §4). What the
    /// sender wrote into `received` and `rport` itself is not repeated.
    fn stamped_via(&mut self, top: &[u8], via: Via<'_>, source: SocketAddr) {
        let (sent_by, _) = lex::split_outside(top, b';');
        self.out.extend_from_slice(&unfold(lex::trim_end(sent_by)));
        for (name, value) in via.params.iter() {
            if name.eq_ignore_ascii_case(b"received") {
                continue;
            }
            self.out.push(b';');
            self.out.extend_from_slice(name);
            if name.eq_ignore_ascii_case(b"rport") {
                self.number_between(b"=", u32::from(source.port()), b"");
            } else if let Some(value) = value {
                self.out.push(b'=');
                self.out.extend_from_slice(&unfold(value));
            }
        }
        let address = source.ip().to_canonical();
        let known = via.host.address().map(|host| host.to_canonical());
        if via.wants_rport() || known != Some(address) {
            write!(self.out, ";received={address}").expect("writing to memory never fails");
        }
    }
}

/// The usual phrase of a status code (RFC 3261 §21 and the registry), or that of its class.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        ..200 => provisional(status),
        200..300 => success(status),
        300..400 => redirection(status),
        400..500 => client_error(status),
        500..600 => server_failure(status),
        600.. => global_failure(status),
    }
}

const fn provisional(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        199 => "Early Dialog Terminated",
        _ => "Session Progress",
    }
}

const fn success(status: u16) -> &'static str {
    match status {
        202 => "Accepted",
        204 => "No Notification",
        _ => "OK",
    }
}

const fn redirection(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        _ => "Multiple Choices",
    }
}

const fn client_error(status: u16) -> &'static str {
    match status {
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        _ => "Bad Request",
    }
}

const fn server_failure(status: u16) -> &'static str {
    match status {
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        555 => "Push Notification Service Not Supported",
        580 => "Precondition Failure",
        _ => "Server Internal Error",
    }
}

const fn global_failure(status: u16) -> &'static str {
    match status {
        600 => "Busy Everywhere",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => "Decline",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Request;

    fn source() -> SocketAddr {
        "203.0.113.9:5080".parse().unwrap()
    }

    fn request(via: &str, rest: &str) -> Request {
        let text = format!(
            "INVITE sip:b@h SIP/2.0\r\nVia: {via}\r\nf: <sip:a@h>;tag=1\r\nt: \r\n <sip:b@h>\r\n\
             i: x@h\r\nCSeq: 7 \r\n INVITE\r\n{rest}\r\n"
        );
        Request::try_from(Message::parse(text.into()).unwrap()).unwrap()
    }

    fn reply(request: &Request, status: u16, tag: Option<&str>) -> String {
        let writer = Writer::reply_to(request, source(), status, None, tag).unwrap();
        String::from_utf8(writer.finish(None).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_reply_echoes_what_finds_it_its_way_back() {
        let request = request(
            "SIP/2.0/UDP a.example;branch=z9hG4bKx",
            "v: SIP/2.0/TCP b\r\nRecord-Route: <sip:p;lr>\r\n",
        );
        assert_eq!(
            reply(&request, 180, Some("ours")),
            "SIP/2.0 180 Ringing\r\n\
             Via: SIP/2.0/UDP a.example;branch=z9hG4bKx;received=203.0.113.9\r\n\
             Via: SIP/2.0/TCP b\r\n\
             From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=ours\r\nCall-ID: x@h\r\n\
             CSeq: 7 INVITE\r\nRecord-Route: <sip:p;lr>\r\nContent-Length: 0\r\n\r\n"
        );
        assert!(!reply(&request, 486, Some("ours")).contains("Record-Route"));
    }

    #[test]
    fn the_topmost_via_tells_where_the_packet_came_from_and_believes_no_claim() {
        let stamped = |via: &str| {
            let reply = reply(&request(via, ""), 100, None);
            reply.split("\r\n").nth(1).unwrap().to_owned()
        };
        assert_eq!(stamped("SIP/2.0/UDP 203.0.113.9"), "Via: SIP/2.0/UDP 203.0.113.9");
        assert_eq!(
            stamped("SIP/2.0/UDP 203.0.113.9 ; RPORT ; branch=z9hG4bKx"),
            "Via: SIP/2.0/UDP 203.0.113.9;RPORT=5080;branch=z9hG4bKx;received=203.0.113.9"
        );
        assert_eq!(
            stamped("SIP/2.0/UDP a;received=192.0.2.66;rport=1;x=\"y;z\", SIP/2.0/TCP b ;rport"),
            "Via: SIP/2.0/UDP a;rport=5080;x=\"y;z\";received=203.0.113.9, SIP/2.0/TCP b ;rport"
        );
        assert_eq!(
            stamped("SIP/2.0/UDP [::ffff:203.0.113.9]"),
            "Via: SIP/2.0/UDP [::ffff:203.0.113.9]"
        );
    }

    #[test]
    fn a_tag_is_added_once_and_only_where_it_belongs() {
        let tagged = request("SIP/2.0/UDP a", "Timestamp: 54\r\n");
        assert!(reply(&tagged, 100, None).contains("To: <sip:b@h>\r\n"));
        assert!(reply(&tagged, 100, None).contains("Timestamp: 54\r\n"));
        assert!(!reply(&tagged, 200, None).contains("Timestamp"));
        let text = "BYE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nTo: sip:b@h;TAG=2\r\n\r\n";
        let message = Message::parse(text.into()).unwrap();
        let writer = Writer::reply_to(&message, source(), 481, Some("Gone"), Some("ours")).unwrap();
        let reply = writer.finish(None).unwrap();
        assert!(reply.windows(20).any(|part| part == b"To: sip:b@h;TAG=2\r\nC"));
    }

    #[test]
    fn nothing_that_would_break_a_line_can_be_printed() {
        let mut writer = Writer::request("INFO", b"sip:a@h").unwrap();
        for value in ["a\rb", "a\nb", "a\0b", "\r\n", "a\r\nVia: x"] {
            assert_eq!(writer.header(HeaderName::Subject, value).err(), Some(Unprintable::Value));
        }
        for name in ["", "X Y", "X:", "X\r\n", "\u{dc}"] {
            assert_eq!(writer.extension(name, "v").err(), Some(Unprintable::Name));
        }
        assert_eq!(writer.header(HeaderName::Other, "v").err(), Some(Unprintable::Name));
        writer.extension("X-Odd", "\u{fc} \t").unwrap().number(HeaderName::MaxForwards, 70);
        let bytes = writer.finish(Some(("text/plain", b"a\r\n\0"))).unwrap();
        assert_eq!(
            bytes,
            "INFO sip:a@h SIP/2.0\r\nX-Odd: \u{fc} \t\r\nMax-Forwards: 70\r\n\
             Content-Type: text/plain\r\nContent-Length: 4\r\n\r\na\r\n\0"
        );
        assert_eq!(Writer::request("IN VITE", b"sip:h").err(), Some(Unprintable::Name));
        assert_eq!(Writer::request("INVITE", b"sip:h SIP/2.0\r\n").err(), Some(Unprintable::Uri));
        assert_eq!(Writer::response(99, None).err(), Some(Unprintable::Status));
        assert_eq!(Writer::response(200, Some("a\nb")).err(), Some(Unprintable::Value));
        let to = request("SIP/2.0/UDP a", "");
        let tag = Writer::reply_to(&to, source(), 200, None, Some("a;b"));
        assert_eq!(tag.err(), Some(Unprintable::Value));
    }

    #[test]
    fn every_status_has_a_phrase() {
        for status in 100..700 {
            assert!(!reason_phrase(status).is_empty());
        }
        assert_eq!(
            (reason_phrase(499), reason_phrase(199)),
            ("Bad Request", "Early Dialog Terminated")
        );
    }
}
