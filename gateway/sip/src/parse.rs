//! From bytes to messages (RFC 3261 §7, §18.3, §25; RFC 4475).
//!
//! ```text
//!   bytes ── Message::parse ──▶ Message ──┬─ Request::try_from ──▶ Request  | Rejection (400, 505)
//!               │                         └─ Response::try_from ─▶ Response | Malformed (dropped)
//!               ▼
//!           Malformed: not a message at all, nobody to answer
//! ```
//!
//! Indexing is one scan for line ends. What is wrong with a header does not stop it: the first fault
//! is kept, so that whoever sent the message can be told. A message ends its lines in one way only,
//! CRLF or bare LF; two readers of a mixture would see different headers.

use bytes::Bytes;

use crate::header::HeaderName;
use crate::lex;
use crate::message::{
    Facts, Line, Lines, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, MAX_VIAS, Malformed, Message,
    Rejection, Request, Response, Span, StartLine,
};
use crate::method::Method;
use crate::name_addr::{Contact, NameAddr};
use crate::uri::Uri;
use crate::via::Via;

impl Message {
    /// Indexes one message: a datagram, or a frame of a stream.
    ///
    /// Line breaks before the start line are skipped. Bytes after the length that Content-Length
    /// gives are cut off; without Content-Length the body is the rest (RFC 3261 §18.3). A missing
    /// empty line at the very end is forgiven.
    ///
    /// # Errors
    /// [`Malformed`] when this is no SIP message at all, or exceeds a limit.
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let skipped = bytes.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        let mut bytes = bytes;
        let bytes = bytes.split_off(skipped);
        if bytes.is_empty() {
            return Err(Malformed::Empty);
        }
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed::TooLong);
        }
        let mut scanner = Scanner { bytes: &bytes, at: 0, bare_lf: None, fault: None };
        let first = scanner.next_line()?.ok_or(Malformed::StartLine)?;
        let start = start_line(&bytes, first)?;
        let (lines, promised) = header_lines(&mut scanner)?;
        let (body_start, mut fault) = (scanner.at, scanner.fault);
        let room = bytes.len() - body_start;
        let length = match promised {
            Some(promised) if promised <= room => promised,
            Some(_) => {
                fault = fault.or(Some(Malformed::BodyTooShort));
                room
            }
            None => room,
        };
        let body = span(body_start, body_start + length);
        let bytes = bytes.slice(..body_start + length);
        Ok(Self { bytes, start, lines, body, fault })
    }
}

/// Every position in a message fits sixteen bits.
#[expect(clippy::cast_possible_truncation, reason = "bounded by MAX_MESSAGE_BYTES in parse")]
const fn position(at: usize) -> u16 {
    debug_assert!(at <= MAX_MESSAGE_BYTES);
    at as u16
}

const fn span(start: usize, end: usize) -> Span {
    Span { start: position(start), end: position(end) }
}

/// Walks over logical lines: a line with all its folds (RFC 3261 §7.3.1).
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How this message ends its lines, once the first line said it.
    bare_lf: Option<bool>,
    fault: Option<Malformed>,
}

impl Scanner<'_> {
    fn blame(&mut self, fault: Malformed) {
        self.fault = self.fault.or(Some(fault));
    }

    /// The next logical line without its end; `None` at the empty line and at the end of the bytes.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>, Malformed> {
        let start = self.at;
        let mut from = start;
        while let Some((end, next)) = self.line_end(from) {
            if end > start + MAX_HEADER_BYTES {
                return Err(Malformed::HeaderTooLong);
            }
            self.at = next;
            let folded = matches!(self.bytes.get(next), Some(b' ' | b'\t'));
            if end == start || !folded || start == 0 {
                return Ok((end > start).then_some((start, end)));
            }
            from = next;
        }
        self.at = self.bytes.len();
        if self.at == start {
            return Ok(None);
        }
        if self.at > start + MAX_HEADER_BYTES {
            return Err(Malformed::HeaderTooLong);
        }
        self.blame(Malformed::Truncated);
        Ok(Some((start, self.at)))
    }

    /// Where the physical line that goes on at `from` ends, and where the next one starts.
    fn line_end(&mut self, mut from: usize) -> Option<(usize, usize)> {
        loop {
            let end = from + memchr::memchr2(b'\r', b'\n', self.bytes.get(from..)?)?;
            let bare_lf = self.bytes.get(end) == Some(&b'\n');
            if !bare_lf && self.bytes.get(end + 1) != Some(&b'\n') {
                self.blame(Malformed::LineEnd);
                from = end + 1;
                continue;
            }
            if *self.bare_lf.get_or_insert(bare_lf) != bare_lf {
                self.blame(Malformed::LineEnd);
            }
            return Some((end, if bare_lf { end + 1 } else { end + 2 }));
        }
    }
}

/// Indexes the header lines; also what Content-Length promises.
fn header_lines(scanner: &mut Scanner<'_>) -> Result<(Lines, Option<usize>), Malformed> {
    let mut lines = Lines::new();
    let mut promised = None;
    while let Some((start, end)) = scanner.next_line()? {
        let text = scanner.bytes.get(start..end).unwrap_or_default();
        let Some((name, value)) = lex::split_once(text, b':') else {
            scanner.blame(Malformed::HeaderLine);
            continue;
        };
        let name = lex::trim_end(name);
        let Ok(name_length) = u8::try_from(name.len()) else {
            return Err(Malformed::HeaderTooLong);
        };
        if !lex::is_token(name) {
            scanner.blame(Malformed::HeaderLine);
            continue;
        }
        let id = HeaderName::parse(name);
        let value_start = end - lex::trim_start(value).len();
        let value = lex::trim(value);
        if id == HeaderName::ContentLength {
            match (content_length(value), promised) {
                (None, _) => scanner.blame(Malformed::ContentLength),
                (Some(length), None) => promised = Some(length),
                (Some(length), Some(earlier)) if length == earlier => {}
                (Some(_), Some(_)) => scanner.blame(Malformed::ContentLengths),
            }
        }
        let value = span(value_start, value_start + value.len());
        if !lines.push(Line { name: id, name_length, name_start: position(start), value }) {
            return Err(Malformed::TooManyHeaders);
        }
    }
    Ok((lines, promised))
}

/// Reads the value of Content-Length: digits and nothing else (RFC 3261 §20.14).
pub(crate) fn content_length(value: &[u8]) -> Option<usize> {
    lex::number(value).and_then(|length| usize::try_from(length).ok())
}

/// Reads the first line (RFC 3261 §7.1, §7.2).
fn start_line(bytes: &[u8], (start, end): (usize, usize)) -> Result<StartLine, Malformed> {
    let text = lex::trim_end(bytes.get(start..end).unwrap_or_default());
    let (first, rest) = lex::split_once(text, b' ').ok_or(Malformed::StartLine)?;
    if let Some(version_ok) = version(first) {
        return if version_ok {
            status_line(start + first.len() + 1, rest)
        } else {
            Err(Malformed::Version)
        };
    }
    let blank = memchr::memrchr(b' ', rest).ok_or(Malformed::StartLine)?;
    let (_, last) = lex::split_around(rest, blank);
    let version_ok = version(last).ok_or(Malformed::StartLine)?;
    if !lex::is_token(first) {
        return Err(Malformed::StartLine);
    }
    let method_end = start + first.len();
    Ok(StartLine::Request {
        method: Method::parse(first),
        token: span(start, method_end),
        uri: span(method_end + 1, method_end + 1 + blank),
        version_ok,
    })
}

/// Whether this is a protocol version, and whether it is ours: `SIP/2.0` in any case.
fn version(token: &[u8]) -> Option<bool> {
    let (protocol, number) = lex::split_once(token, b'/')?;
    let well_formed = number.iter().all(|&byte| byte.is_ascii_digit() || byte == b'.');
    (protocol.eq_ignore_ascii_case(b"SIP") && well_formed && !number.is_empty())
        .then_some(number == b"2.0")
}

fn status_line(at: usize, rest: &[u8]) -> Result<StartLine, Malformed> {
    let (code, reason) = lex::split_once(rest, b' ').unwrap_or((rest, &[]));
    let status = (code.len() == 3).then(|| lex::number(code)).flatten();
    let status = status.and_then(|status| u16::try_from(status).ok());
    let status =
        status.filter(|status| (100..700).contains(status)).ok_or(Malformed::StatusCode)?;
    let end = at + rest.len();
    Ok(StartLine::Response { status, reason: span(end - reason.len(), end) })
}

impl TryFrom<Message> for Request {
    type Error = Rejection;

    /// Checks a message for what every request must have (RFC 3261 §8.1.1, §8.2, §16.3).
    #[expect(
        clippy::result_large_err,
        reason = "the message comes back so that it can be answered"
    )]
    fn try_from(message: Message) -> Result<Self, Rejection> {
        let refused = match message.start {
            StartLine::Request { method, token, uri, version_ok } => {
                match request_facts(&message, (token, uri), version_ok) {
                    Ok(facts) => return Ok(Self { message, facts, method, token, uri }),
                    Err(why) => why,
                }
            }
            StartLine::Response { .. } => Malformed::StartLine,
        };
        let status = if refused == Malformed::Version { 505 } else { 400 };
        Err(Rejection { status, reason: refused.reason(), why: refused, message })
    }
}

fn request_facts(
    message: &Message,
    (token, uri): (Span, Span),
    version_ok: bool,
) -> Result<Facts, Malformed> {
    if !version_ok {
        return Err(Malformed::Version);
    }
    let facts = facts(message)?;
    // Headers inside a Request-URI are not allowed (RFC 3261 §19.1.1), and nobody may act on them.
    match Uri::parse(message.at(uri)) {
        Some(Uri::Sip(uri)) if uri.headers.is_some() => return Err(Malformed::RequestUri),
        Some(_) => {}
        None => return Err(Malformed::RequestUri),
    }
    if message.at(facts.cseq_token) != message.at(token) {
        return Err(Malformed::MethodMismatch);
    }
    if message.values(HeaderName::Contact).any(|value| Contact::parse(value).is_none()) {
        return Err(Malformed::Invalid(HeaderName::Contact));
    }
    Ok(facts)
}

impl TryFrom<Message> for Response {
    type Error = Malformed;

    /// Checks a message for what every response must have (RFC 3261 §8.1.3, §8.2.6.2).
    ///
    /// Malformed responses are dropped, never answered; the transaction's timers do the rest.
    fn try_from(message: Message) -> Result<Self, Malformed> {
        let StartLine::Response { status, reason } = message.start else {
            return Err(Malformed::StartLine);
        };
        let facts = facts(&message)?;
        let method = Method::parse(message.at(facts.cseq_token));
        Ok(Self { message, facts, method, status, reason })
    }
}

/// Where the headers stand that requests and responses share; each as often as it may.
#[derive(Default)]
struct Found {
    from: Option<Span>,
    to: Option<Span>,
    call_id: Option<Span>,
    cseq: Option<Span>,
    max_forwards: Option<Span>,
}

impl Found {
    fn read(message: &Message) -> Result<Self, Malformed> {
        let mut found = Self::default();
        for line in message.lines.iter() {
            let place = match line.name {
                HeaderName::From => &mut found.from,
                HeaderName::To => &mut found.to,
                HeaderName::CallId => &mut found.call_id,
                HeaderName::CSeq => &mut found.cseq,
                HeaderName::MaxForwards => &mut found.max_forwards,
                _ => continue,
            };
            if place.replace(line.value).is_some() {
                return Err(Malformed::Repeated(line.name));
            }
        }
        Ok(found)
    }
}

fn facts(message: &Message) -> Result<Facts, Malformed> {
    if let Some(fault) = message.fault {
        return Err(fault);
    }
    let found = Found::read(message)?;
    let via = top_via(message)?;
    let from = address(message, found.from, HeaderName::From)?;
    let to = address(message, found.to, HeaderName::To)?;
    let call_id = found.call_id.ok_or(Malformed::Missing(HeaderName::CallId))?;
    let unfit = |byte: u8| byte <= b' ' || byte == 0x7f;
    let text = message.at(call_id);
    if text.is_empty() || text.iter().any(|&byte| unfit(byte)) {
        return Err(Malformed::Invalid(HeaderName::CallId));
    }
    let at = found.cseq.ok_or(Malformed::Missing(HeaderName::CSeq))?;
    let (cseq, token) = cseq(message.at(at)).ok_or(Malformed::Invalid(HeaderName::CSeq))?;
    let end = usize::from(at.end);
    let cseq_token = span(end - token.len(), end);
    let max_forwards = match found.max_forwards {
        Some(at) => Some(max_forwards(message.at(at))?),
        None => None,
    };
    Ok(Facts { from, to, call_id, via, cseq, cseq_token, max_forwards })
}

/// Checks every Via and says where the topmost value stands.
fn top_via(message: &Message) -> Result<Span, Malformed> {
    let mut top = None;
    let mut count = 0;
    for value in message.values(HeaderName::Via) {
        count += 1;
        if count > MAX_VIAS {
            return Err(Malformed::TooManyVias);
        }
        Via::parse(value).ok_or(Malformed::Invalid(HeaderName::Via))?;
        top = top.or(Some(value.len()));
    }
    let length = top.ok_or(Malformed::Missing(HeaderName::Via))?;
    let line = message.lines.iter().find(|line| line.name == HeaderName::Via);
    let start = line.map_or(0, |line| usize::from(line.value.start));
    Ok(span(start, start + length))
}

fn address(message: &Message, at: Option<Span>, name: HeaderName) -> Result<Span, Malformed> {
    let at = at.ok_or(Malformed::Missing(name))?;
    NameAddr::parse(message.at(at)).map(|_| at).ok_or(Malformed::Invalid(name))
}

/// Reads CSeq: a number below 2^32 and a method (RFC 3261 §20.16).
fn cseq(value: &[u8]) -> Option<(u32, &[u8])> {
    let blank = value.iter().position(|&byte| lex::is_space(byte))?;
    let (digits, token) = value.split_at_checked(blank)?;
    let token = lex::trim_start(token);
    lex::is_token(token).then_some((lex::number(digits)?, token))
}

/// Reads Max-Forwards; a number larger than the 255 of the grammar counts as 255.
fn max_forwards(value: &[u8]) -> Result<u8, Malformed> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Invalid(HeaderName::MaxForwards));
    }
    Ok(lex::number(value).and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX))
}
