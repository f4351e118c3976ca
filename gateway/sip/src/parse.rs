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

use bytes::{Buf, Bytes};

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
        bytes.advance(skipped);
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
        bytes.truncate(body_start + length);
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
        let id = HeaderName::parse(name);
        if id == HeaderName::Other && !lex::is_token(name) {
            scanner.blame(Malformed::HeaderLine);
            continue;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[&str] = &[
        "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa",
        "From: <sip:a@h>;tag=1",
        "To: <sip:b@h>",
        "Call-ID: x@h",
        "CSeq: 7 OPTIONS",
        "Max-Forwards: 70",
    ];

    fn text(start: &str, lines: &[&str], end: &str) -> Bytes {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        Bytes::from(format!("{start}\r\n{lines}{end}"))
    }

    fn options(lines: &[&str]) -> Bytes {
        text("OPTIONS sip:b@h SIP/2.0", lines, "\r\n")
    }

    fn request(bytes: Bytes) -> Result<Request, Malformed> {
        Request::try_from(Message::parse(bytes)?).map_err(|rejection| rejection.why)
    }

    fn with(extra: &str) -> Result<Request, Malformed> {
        request(options(&[LINES, &[extra]].concat()))
    }

    #[test]
    fn a_plain_request_has_all_it_needs() {
        let request = with("Content-Length: 0").unwrap();
        assert_eq!((request.method(), request.cseq()), (Method::Options, 7));
        assert_eq!((request.call_id(), request.max_forwards()), (&b"x@h"[..], Some(70)));
        assert_eq!(request.via().branch(), Some(&b"z9hG4bKa"[..]));
        assert_eq!((request.from().tag(), request.to().tag()), (Some(&b"1"[..]), None));
        assert_eq!(request.uri_bytes(), b"sip:b@h");
        assert!(request.contact().is_none() && request.body().is_empty());
    }

    #[test]
    fn every_mandatory_header_is_missed_and_none_may_stand_twice() {
        use HeaderName::{CSeq, CallId, From, MaxForwards, To, Via};
        for (row, name) in [Via, From, To, CallId, CSeq].into_iter().enumerate() {
            let mut lines = LINES.to_vec();
            let line = lines.remove(row);
            assert_eq!(request(options(&lines)).err(), Some(Malformed::Missing(name)));
            if name != Via {
                lines.extend([line, line]);
                assert_eq!(request(options(&lines)).err(), Some(Malformed::Repeated(name)));
            }
        }
        assert_eq!(with("max-forwards: 70").err(), Some(Malformed::Repeated(MaxForwards)));
        assert_eq!(with("v: SIP/2.0/TCP h2, SIP/2.0/UDP h3").unwrap().vias().count(), 3);
    }

    #[test]
    fn without_max_forwards_it_is_an_old_friends_request() {
        assert_eq!(request(options(&LINES[..5])).unwrap().max_forwards(), None);
        for (value, hops) in [("0068", 68), ("255", 255), ("300", 255), ("99999999999", 255)] {
            let line = format!("Max-Forwards: {value}");
            let lines = [&LINES[..5], &[line.as_str()]].concat();
            assert_eq!(request(options(&lines)).unwrap().max_forwards(), Some(hops));
        }
        let lines = [&LINES[..5], &["Max-Forwards: -1"]].concat();
        let wrong = Some(Malformed::Invalid(HeaderName::MaxForwards));
        assert_eq!(request(options(&lines)).err(), wrong);
    }

    #[test]
    fn cseq_is_a_number_that_fits_and_the_requests_method() {
        let cseq = |value: &str| {
            let line = format!("CSeq: {value}");
            request(options(&[&LINES[..4], &[line.as_str()]].concat()))
        };
        assert_eq!(cseq("4294967295\r\n\tOPTIONS").unwrap().cseq(), u32::MAX);
        for wrong in
            ["4294967296 OPTIONS", "-1 OPTIONS", "OPTIONS", "7", "7 OPTIONS x", "", "7OPTIONS"]
        {
            assert_eq!(cseq(wrong).err(), Some(Malformed::Invalid(HeaderName::CSeq)), "{wrong}");
        }
        assert_eq!(cseq("7 INVITE").err(), Some(Malformed::MethodMismatch));
        assert_eq!(cseq("7 options").err(), Some(Malformed::MethodMismatch));
    }

    #[test]
    fn bodies_end_where_content_length_says() {
        let body = |header: &[&str], body: &str| {
            let end = format!("\r\n{body}");
            request(text("OPTIONS sip:b@h SIP/2.0", &[LINES, header].concat(), &end))
        };
        assert_eq!(body(&[], "all of it").unwrap().body(), b"all of it");
        let cut = body(&["l: 3"], "abcINVITE sip:x SIP/2.0").unwrap();
        assert_eq!((cut.body(), cut.bytes().ends_with(b"\r\n\r\nabc")), (&b"abc"[..], true));
        assert_eq!(body(&["l: 3", "Content-Length : 003"], "abc").unwrap().body(), b"abc");
        assert_eq!(body(&["l: 4"], "abc").err(), Some(Malformed::BodyTooShort));
        assert_eq!(body(&["l: 3", "l: 2"], "abc").err(), Some(Malformed::ContentLengths));
        for wrong in ["-1", "1e3", "", "3, 3", "99999999999999999999", "0x3", "3 3"] {
            let line = format!("Content-Length: {wrong}");
            let why = body(&[line.as_str()], "abc").err();
            assert_eq!(why, Some(Malformed::ContentLength), "{wrong}");
        }
    }

    #[test]
    fn a_message_ends_its_lines_in_one_way_only() {
        let crlf = String::from_utf8(options(LINES).to_vec()).unwrap();
        assert!(request(crlf.replace("\r\n", "\n").into()).is_ok());
        for wrong in [
            crlf.replace("h>\r\nCall", "h>\nCall"),
            crlf.replace("x@h", "x\rX: y@h"),
            crlf.replace("\r\n", "\n").replace("h>\nCall", "h>\r\nCall"),
        ] {
            let rejection = Request::try_from(Message::parse(wrong.into()).unwrap()).unwrap_err();
            assert_eq!((rejection.why, rejection.status), (Malformed::LineEnd, 400));
            assert!(rejection.is_answerable());
        }
    }

    #[test]
    fn what_is_no_message_is_told_apart_from_what_is_a_bad_one() {
        let parse = |bytes: &'static [u8]| Message::parse(Bytes::from_static(bytes)).err();
        assert_eq!(parse(b"\r\n\r\n"), Some(Malformed::Empty));
        assert_eq!(parse(b""), Some(Malformed::Empty));
        for noise in [
            &b"HELLO"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\0",
            b"INVITE sip:a@h\r\n\r\n",
            b" SIP/2.0\r\n\r\n",
            b"IN,VITE sip:a SIP/2.0\r\n\r\n",
            b"INVITE SIP/2.0\r\n",
        ] {
            assert_eq!(parse(noise), Some(Malformed::StartLine), "{}", noise.escape_ascii());
        }
        assert_eq!(parse(b"SIP/2.0 99 x\r\n\r\n"), Some(Malformed::StatusCode));
        assert_eq!(parse(b"SIP/2.0 700 x\r\n\r\n"), Some(Malformed::StatusCode));
        assert_eq!(parse(b"SIP/3.0 200 x\r\n\r\n"), Some(Malformed::Version));
        assert!(Message::parse(Bytes::from_static(b"\r\n\nSIP/2.0 200\r\n\r\n")).is_ok());
        let newer = request(text("OPTIONS sip:b@h SIP/7.0", LINES, "\r\n"));
        assert_eq!(newer.err(), Some(Malformed::Version));
    }

    #[test]
    fn every_limit_holds() {
        let many = |count, line: &str| {
            let lines: Vec<_> =
                LINES.iter().copied().chain(std::iter::repeat_n(line, count)).collect();
            request(options(&lines))
        };
        assert!(many(122, "X: y").is_ok());
        assert_eq!(many(123, "X: y").err(), Some(Malformed::TooManyHeaders));
        assert_eq!(many(63, "v: SIP/2.0/UDP h").unwrap().vias().count(), 64);
        assert_eq!(many(64, "v: SIP/2.0/UDP h").err(), Some(Malformed::TooManyVias));
        assert!(with(&format!("X: {}", "y".repeat(8_189))).is_ok());
        assert_eq!(
            with(&format!("X: {}", "y".repeat(8_190))).err(),
            Some(Malformed::HeaderTooLong)
        );
        let folds = "\r\n y".repeat(3_000);
        assert_eq!(with(&format!("X: y{folds}")).err(), Some(Malformed::HeaderTooLong));
        assert_eq!(with(&format!("{}: y", "x".repeat(256))).err(), Some(Malformed::HeaderTooLong));
        let long = Bytes::from(vec![b'a'; MAX_MESSAGE_BYTES + 1]);
        assert_eq!(Message::parse(long).err(), Some(Malformed::TooLong));
    }

    #[test]
    fn lines_that_are_no_headers_are_refused_and_known_names_are_not_forged() {
        for wrong in ["no colon", "X Y: z", ": z", "To\0: z", "Ｔo: z", "X"] {
            assert_eq!(with(wrong).err(), Some(Malformed::HeaderLine), "{wrong}");
        }
        let odd = with("Contact\t : <sip:a@h>").unwrap();
        assert_eq!(odd.contact().unwrap().uri_bytes, b"sip:a@h");
        assert_eq!(
            with("Contact: <sip:a@h>, sip:b@h?x").err(),
            Some(Malformed::Invalid(HeaderName::Contact))
        );
    }

    #[test]
    fn a_missing_last_line_is_forgiven_and_a_cut_one_is_not() {
        let whole = options(LINES);
        assert!(request(whole.slice(..whole.len() - 2)).is_ok());
        assert_eq!(request(whole.slice(..whole.len() - 4)).err(), Some(Malformed::Truncated));
        assert_eq!(request(whole.slice(..whole.len() - 6)).err(), Some(Malformed::Truncated));
    }

    #[test]
    fn request_uris_with_blanks_brackets_or_headers_are_refused() {
        for uri in [
            "sip:b@h; lr",
            " sip:b@h ",
            "<sip:b@h>",
            "sip:b@h?Route=%3Csip:h%3E",
            "sip:2001:db8::10",
            "b",
        ] {
            let bytes = text(&format!("OPTIONS {uri} SIP/2.0"), LINES, "\r\n");
            assert_eq!(request(bytes).err(), Some(Malformed::RequestUri), "{uri}");
        }
        let trailing = text("OPTIONS sip:b@h SIP/2.0  ", LINES, "\r\n");
        assert_eq!(request(trailing).unwrap().uri_bytes(), b"sip:b@h");
    }

    #[test]
    fn responses_carry_their_numbers_and_phrases() {
        let response = |start: &str| {
            Response::try_from(Message::parse(text(start, LINES, "\r\n")).unwrap()).unwrap()
        };
        let ok = response("sip/2.0 200 \u{43e}\u{442}\u{43b}\u{438}\u{447}\u{43d}\u{43e} = ok");
        assert_eq!((ok.status(), ok.is_success(), ok.cseq()), (200, true, (7, Method::Options)));
        assert!(ok.reason().ends_with(b" = ok"));
        assert!(response("SIP/2.0 100 ").is_provisional());
        assert_eq!(response("SIP/2.0 486").reason(), b"");
        let is_request = Message::parse(options(LINES)).unwrap();
        assert_eq!(Response::try_from(is_request).err(), Some(Malformed::StartLine));
    }

    #[test]
    fn acks_and_requests_without_via_are_never_answered() {
        let ack = text("ACK sip:b@h SIP/2.0", &LINES[..2], "\r\n");
        let rejection = Request::try_from(Message::parse(ack).unwrap()).unwrap_err();
        assert!(!rejection.is_answerable());
        let rejection = Request::try_from(Message::parse(options(&LINES[1..])).unwrap());
        assert!(!rejection.unwrap_err().is_answerable());
    }
}
