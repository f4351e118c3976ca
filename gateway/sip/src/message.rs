//! Messages: what arrived, where its parts are, and the two kinds that were checked.
//!
//! RFC 3261 §7, §8.1.1, §20. [`Message`] holds the bytes as they came and an index of small numbers
//! into them; nothing is copied, and a header this product does not know is as present as any other.
//! [`Request`] and [`Response`] are messages whose mandatory headers were found, once each and
//! readable: what they promise can be asked for without an answer for "missing".

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

use bytes::Bytes;

use crate::header::HeaderName;
use crate::lex::{self, Commas};
pub use crate::malformed::Malformed;
use crate::method::Method;
use crate::name_addr::{Contact, NameAddr};
use crate::uri::Uri;
use crate::via::Via;

/// The longest message that is read, in bytes: what a UDP datagram can carry.
pub const MAX_MESSAGE_BYTES: usize = 65_535;
/// The most header lines a message may have.
pub const MAX_HEADER_LINES: usize = 128;
/// The longest header line, folds and name included, in bytes. Start lines obey it too.
pub const MAX_HEADER_BYTES: usize = 8_192;
/// The most Via values a message may have (RFC 4475 §3.1.1.7 has 34).
pub const MAX_VIAS: usize = 64;

/// A part of the message, by position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Span {
    pub(crate) start: u16,
    pub(crate) end: u16,
}

impl Span {
    fn range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

/// Where one header line is: eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) name: HeaderName,
    pub(crate) name_length: u8,
    pub(crate) name_start: u16,
    pub(crate) value: Span,
}

const INLINE_LINES: usize = 40;
const SPILLED_LINES: usize = MAX_HEADER_LINES - INLINE_LINES;
const NO_LINE: Line = Line {
    name: HeaderName::Other,
    name_length: 0,
    name_start: 0,
    value: Span { start: 0, end: 0 },
};

/// The header lines of one message. Ordinary messages are indexed in place; a message of more than
/// forty lines takes one block from the heap, of 704 bytes whatever it says.
#[derive(Clone)]
pub(crate) struct Lines {
    length: usize,
    inline: [Line; INLINE_LINES],
    spilled: Option<Box<[Line; SPILLED_LINES]>>,
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Self { length: 0, inline: [NO_LINE; INLINE_LINES], spilled: None }
    }

    /// Adds a line; `false` when there is no room for it.
    pub(crate) fn push(&mut self, line: Line) -> bool {
        let slot = match self.inline.get_mut(self.length) {
            Some(slot) => Some(slot),
            None => self
                .spilled
                .get_or_insert_with(|| Box::new([NO_LINE; SPILLED_LINES]))
                .get_mut(self.length - INLINE_LINES),
        };
        slot.map(|slot| *slot = line).is_some() && {
            self.length += 1;
            true
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Line> + Clone {
        let spilled = self.spilled.as_deref().map_or(&[][..], |lines| &lines[..]);
        self.inline.iter().chain(spilled).take(self.length)
    }
}

/// What the first line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StartLine {
    Request { method: Method, token: Span, uri: Span, version_ok: bool },
    Response { status: u16, reason: Span },
}

/// One SIP message as it arrived, with an index of its parts.
///
/// Cloning copies the index and shares the bytes.
#[derive(Clone)]
pub struct Message {
    pub(crate) bytes: Bytes,
    pub(crate) start: StartLine,
    pub(crate) lines: Lines,
    pub(crate) body: Span,
    /// The first thing that is wrong with the headers, when the message could be indexed anyway.
    pub(crate) fault: Option<Malformed>,
}

impl Message {
    /// The message's bytes, from the first letter of its start line to the last of its body.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether this is a request; otherwise it is a response.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// What is wrong with the headers, if anything: such a message becomes neither a [`Request`]
    /// nor a [`Response`], but what could be read of it can be, so that a 400 finds its way.
    #[must_use]
    pub const fn fault(&self) -> Option<Malformed> {
        self.fault
    }

    /// The body, of the length that Content-Length gave it (RFC 3261 §18.3).
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.at(self.body)
    }

    /// The body as bytes that share the message's memory.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        self.bytes.slice_ref(self.body())
    }

    /// The value of the first header of this name, as it came: a folded value still holds its line
    /// breaks, which every reader of this crate takes for white space. See [`Message::text`].
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&[u8]> {
        self.lines(name).next()
    }

    /// The value of the first header of this name with its folds undone (RFC 3261 §7.3.1); copies
    /// only what was folded.
    #[must_use]
    pub fn text(&self, name: HeaderName) -> Option<Cow<'_, [u8]>> {
        self.header(name).map(unfold)
    }

    /// The value of the first header of a name this product does not know, in any case.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&[u8]> {
        let wanted = name.as_bytes();
        self.headers().find(|header| header.1.eq_ignore_ascii_case(wanted)).map(|header| header.2)
    }

    /// All headers in their order: which one it is, its name as written, its value as it came.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, &[u8], &[u8])> + Clone {
        self.lines.iter().map(|line| {
            let start = usize::from(line.name_start);
            let name = self.bytes.get(start..start + usize::from(line.name_length));
            (line.name, name.unwrap_or_default(), self.at(line.value))
        })
    }

    /// The value of every line of this name, unsplit.
    pub fn lines(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> + Clone {
        self.lines.iter().filter(move |line| line.name == name).map(|line| self.at(line.value))
    }

    /// Every value of this name, over all its lines; comma lists are split where the header's
    /// grammar allows commas, with regard to quotes and angle brackets (RFC 3261 §7.3.1).
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> + Clone {
        self.lines(name).flat_map(move |line| {
            let (list, whole) =
                if name.is_list() { (Some(line), None) } else { (None, Some(line)) };
            Commas(list).chain(whole)
        })
    }

    /// Every Via, topmost first; one that cannot be read ends the list.
    pub fn vias(&self) -> impl Iterator<Item = Via<'_>> + Clone {
        self.values(HeaderName::Via).map_while(Via::parse)
    }

    /// The topmost Via, when there is one that can be read.
    #[must_use]
    pub fn top_via(&self) -> Option<Via<'_>> {
        self.vias().next()
    }

    /// The Contacts, in order; those that cannot be read are left out.
    pub fn contacts(&self) -> impl Iterator<Item = Contact<'_>> + Clone {
        self.values(HeaderName::Contact).filter_map(Contact::parse)
    }

    pub(crate) fn at(&self, span: Span) -> &[u8] {
        self.bytes.get(span.range()).unwrap_or_default()
    }
}

impl fmt::Debug for Message {
    /// The first line only: headers may carry credentials, bodies may carry keys.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.bytes.split(|&byte| byte == b'\r' || byte == b'\n').next();
        write!(out, "Message({:?})", String::from_utf8_lossy(line.unwrap_or_default()))
    }
}

/// Undoes folding: each line break with the white space around it becomes one blank.
pub(crate) fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    for piece in value.split(|&byte| byte == b'\r' || byte == b'\n') {
        let piece = lex::trim(piece);
        if !piece.is_empty() && !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(piece);
    }
    Cow::Owned(out)
}

/// The facts that make a message a request or a response, read once when it was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) from: Span,
    pub(crate) to: Span,
    pub(crate) call_id: Span,
    pub(crate) via: Span,
    pub(crate) cseq: u32,
    pub(crate) cseq_token: Span,
    pub(crate) max_forwards: Option<u8>,
}

/// Why a message is no acceptable request, and what to answer.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The status code to answer with: 400 or 505.
    pub status: u16,
    /// The reason phrase to answer with.
    pub reason: &'static str,
    /// What exactly was wrong.
    pub why: Malformed,
    /// The message, as far as it could be read.
    pub message: Message,
}

impl Rejection {
    /// Whether an answer would find its way and its transaction: there is a Via that can be read,
    /// and the request is no ACK (RFC 3261 §17: nothing answers an ACK).
    #[must_use]
    pub fn is_answerable(&self) -> bool {
        let is_ack = matches!(self.message.start, StartLine::Request { method: Method::Ack, .. });
        self.message.is_request() && !is_ack && self.message.top_via().is_some()
    }
}

const CHECKED: &str = "the same bytes were read when the message was checked";

/// A request whose mandatory headers are there, once each and readable (RFC 3261 §8.1.1).
#[derive(Clone)]
pub struct Request {
    pub(crate) message: Message,
    pub(crate) facts: Facts,
    pub(crate) method: Method,
    pub(crate) token: Span,
    pub(crate) uri: Span,
}

impl Request {
    /// What is asked for.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The method as it was written; the only name an unknown method has.
    #[must_use]
    pub fn method_token(&self) -> &[u8] {
        self.message.at(self.token)
    }

    /// The Request-URI.
    ///
    /// # Panics
    /// Never: the URI was read when the request was checked.
    #[must_use]
    pub fn uri(&self) -> Uri<'_> {
        Uri::parse(self.uri_bytes()).expect(CHECKED)
    }

    /// The Request-URI as it was written.
    #[must_use]
    pub fn uri_bytes(&self) -> &[u8] {
        self.message.at(self.uri)
    }

    /// The topmost Via: the hop this request came from (RFC 3261 §18.2).
    ///
    /// # Panics
    /// Never: the Via was read when the request was checked.
    #[must_use]
    pub fn via(&self) -> Via<'_> {
        Via::parse(self.message.at(self.facts.via)).expect(CHECKED)
    }

    /// Who asks (RFC 3261 §8.1.1.3). A claim, not an identity.
    ///
    /// # Panics
    /// Never: the header was read when the request was checked.
    #[must_use]
    pub fn from(&self) -> NameAddr<'_> {
        NameAddr::parse(self.message.at(self.facts.from)).expect(CHECKED)
    }

    /// Who is asked (RFC 3261 §8.1.1.2).
    ///
    /// # Panics
    /// Never: the header was read when the request was checked.
    #[must_use]
    pub fn to(&self) -> NameAddr<'_> {
        NameAddr::parse(self.message.at(self.facts.to)).expect(CHECKED)
    }

    /// The SIP Call-ID, compared byte by byte (RFC 3261 §8.1.1.4).
    #[must_use]
    pub fn call_id(&self) -> &[u8] {
        self.message.at(self.facts.call_id)
    }

    /// The sequence number (RFC 3261 §8.1.1.5).
    #[must_use]
    pub const fn cseq(&self) -> u32 {
        self.facts.cseq
    }

    /// The hops left, 255 when it claims more; `None` when the header is missing, as RFC 2543 let
    /// it be (RFC 3261 §16.3 then assumes 70).
    #[must_use]
    pub const fn max_forwards(&self) -> Option<u8> {
        self.facts.max_forwards
    }

    /// The first Contact that is an address.
    #[must_use]
    pub fn contact(&self) -> Option<NameAddr<'_>> {
        first_address(&self.message)
    }

    /// The message behind it.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Request {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(out)
    }
}

/// A response whose mandatory headers are there, once each and readable (RFC 3261 §8.2.6.2).
#[derive(Clone)]
pub struct Response {
    pub(crate) message: Message,
    pub(crate) facts: Facts,
    pub(crate) method: Method,
    pub(crate) status: u16,
    pub(crate) reason: Span,
}

impl Response {
    /// The status code, 100 to 699.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether the transaction goes on after it.
    #[must_use]
    pub const fn is_provisional(&self) -> bool {
        self.status < 200
    }

    /// Whether it grants the request.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The reason phrase as it was written; may be empty, may be any UTF-8 or worse.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.message.at(self.reason)
    }

    /// The number and the method of the request it answers.
    #[must_use]
    pub const fn cseq(&self) -> (u32, Method) {
        (self.facts.cseq, self.method)
    }

    /// The method of the request it answers, as it was written.
    #[must_use]
    pub fn method_token(&self) -> &[u8] {
        self.message.at(self.facts.cseq_token)
    }

    /// The topmost Via: ours, if the response is for us (RFC 3261 §18.1.2).
    ///
    /// # Panics
    /// Never: the Via was read when the response was checked.
    #[must_use]
    pub fn via(&self) -> Via<'_> {
        Via::parse(self.message.at(self.facts.via)).expect(CHECKED)
    }

    /// Who asked.
    ///
    /// # Panics
    /// Never: the header was read when the response was checked.
    #[must_use]
    pub fn from(&self) -> NameAddr<'_> {
        NameAddr::parse(self.message.at(self.facts.from)).expect(CHECKED)
    }

    /// Who answers; its tag names the dialog's far side.
    ///
    /// # Panics
    /// Never: the header was read when the response was checked.
    #[must_use]
    pub fn to(&self) -> NameAddr<'_> {
        NameAddr::parse(self.message.at(self.facts.to)).expect(CHECKED)
    }

    /// The SIP Call-ID, compared byte by byte.
    #[must_use]
    pub fn call_id(&self) -> &[u8] {
        self.message.at(self.facts.call_id)
    }

    /// The first Contact that is an address: the remote target of a dialog (RFC 3261 §12.1.2).
    #[must_use]
    pub fn contact(&self) -> Option<NameAddr<'_>> {
        first_address(&self.message)
    }

    /// The message behind it.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Response {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(out)
    }
}

fn first_address(message: &Message) -> Option<NameAddr<'_>> {
    message.contacts().find_map(|contact| match contact {
        Contact::Address(address) => Some(address),
        Contact::Any => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &str) -> Message {
        Message::parse(Bytes::from(format!("OPTIONS sip:h SIP/2.0\r\n{headers}\r\nbody"))).unwrap()
    }

    #[test]
    fn unknown_headers_are_as_present_as_any_other() {
        let message = message("X-Odd:  1 \r\nTo: a\r\nx-odd : 2\r\n");
        let all: Vec<_> = message.headers().collect();
        assert_eq!(all[0], (HeaderName::Other, &b"X-Odd"[..], &b"1"[..]));
        assert_eq!(all[1], (HeaderName::To, &b"To"[..], &b"a"[..]));
        assert_eq!(all[2], (HeaderName::Other, &b"x-odd"[..], &b"2"[..]));
        assert_eq!(message.extension("X-ODD"), Some(&b"1"[..]));
        assert_eq!(message.extension("X"), None);
    }

    #[test]
    fn values_are_split_over_lines_and_commas_where_the_grammar_has_lists() {
        let message = message("Supported: timer, 100rel\r\nk:path\r\nSubject: a, b\r\n");
        let supported: Vec<_> = message.values(HeaderName::Supported).collect();
        assert_eq!(supported, [&b"timer"[..], b"100rel", b"path"]);
        assert_eq!(message.values(HeaderName::Subject).collect::<Vec<_>>(), [b"a, b"]);
        assert_eq!(message.lines(HeaderName::Supported).count(), 2);
    }

    #[test]
    fn folds_are_undone_only_where_there_are_any() {
        let message = message("Subject: a\r\n \tb \r\n  c\r\nDate: x y\r\n");
        assert_eq!(message.header(HeaderName::Subject), Some(&b"a\r\n \tb \r\n  c"[..]));
        assert_eq!(message.text(HeaderName::Subject).as_deref(), Some(&b"a b c"[..]));
        assert!(matches!(message.text(HeaderName::Date), Some(Cow::Borrowed(b"x y"))));
        assert_eq!(message.text(HeaderName::From), None);
    }

    #[test]
    fn bodies_share_the_messages_memory() {
        let message = message("");
        assert_eq!(message.body(), b"body");
        assert_eq!(message.body_bytes().as_ptr(), message.body().as_ptr());
    }

    #[test]
    fn more_lines_than_fit_in_place_are_kept_as_well() {
        let lines: String = (0..MAX_HEADER_LINES).map(|n| format!("X-{n}: {n}\r\n")).collect();
        let message = message(&lines);
        assert_eq!(message.headers().count(), MAX_HEADER_LINES);
        assert_eq!(message.extension("X-127"), Some(&b"127"[..]));
        assert_eq!(message.clone().headers().last().unwrap().2, b"127");
    }

    #[test]
    fn debug_output_shows_no_header_and_no_body() {
        assert_eq!(
            format!("{:?}", message("Authorization: secret\r\n")),
            r#"Message("OPTIONS sip:h SIP/2.0")"#
        );
    }
}
