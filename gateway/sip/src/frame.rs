//! Messages out of a byte stream (RFC 3261 §7.5, §18.3; RFC 5626 §3.5.1, §4.4.1).
//!
//! A stream has no datagrams: Content-Length says where a message ends, and it must be there, once
//! or with equal values. The framer keeps what arrived and nothing else: no room is set aside for
//! what a peer merely promises. A stream may be cut at any byte; the frames are the same. After an
//! error the stream has lost its rhythm: it gives that error for ever and must be closed.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::header::HeaderName;
use crate::lex;
use crate::message::{MAX_HEADER_BYTES, MAX_HEADER_LINES, MAX_MESSAGE_BYTES};
use crate::parse::content_length;

/// What a stream held next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// One whole message, from its start line to the last byte of its body.
    Message(Bytes),
    /// The second CRLF of two between messages: the peer asks for a single CRLF in return
    /// (RFC 5626 §4.4.1).
    Ping,
    /// A CRLF between messages: the answer to a ping of ours, or the first half of one of theirs.
    /// Either way the peer is alive, so it is told without waiting for what may follow.
    Pong,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameError {
    /// A line, the header lines or the message exceed the limits of [`crate::message`].
    TooLong,
    /// No Content-Length (RFC 3261 §18.3 demands it on streams).
    NoContentLength,
    /// A Content-Length that is no number.
    ContentLength,
    /// Several Content-Lengths that disagree.
    ContentLengths,
    /// A line that ends in LF without CR.
    LineEnd,
    /// The first line is none of SIP's, of whatever version: another protocol, or noise.
    StartLine,
}

impl fmt::Display for FrameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLong => "message too long",
            Self::NoContentLength => "no Content-Length on a stream",
            Self::ContentLength => "bad Content-Length",
            Self::ContentLengths => "conflicting Content-Length",
            Self::LineEnd => "line without CR",
            Self::StartLine => "no SIP start line",
        })
    }
}

impl std::error::Error for FrameError {}

/// Cuts one stream into frames.
///
/// Call [`StreamFramer::push`] with what arrived, then [`StreamFramer::next_frame`] until it gives
/// nothing: then less than one message is held.
#[derive(Default)]
pub struct StreamFramer {
    held: BytesMut,
    /// Where the logical line being read starts; 0 is the start line.
    line: usize,
    /// Bytes already searched for a line end.
    searched: usize,
    lines: usize,
    promised: Option<usize>,
    /// Length of the whole message, once its header lines have ended.
    total: Option<usize>,
    /// The last frame was the first CRLF of what may become a ping.
    half_ping: bool,
    failed: Option<FrameError>,
}

impl StreamFramer {
    /// An empty framer, at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what arrived. After an error it is dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.held.extend_from_slice(bytes);
        }
    }

    /// How many bytes wait for the rest of their message: 0 between messages. A driver gives
    /// unfinished messages a deadline.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.held.len()
    }

    /// The next frame, or nothing until more bytes arrive.
    ///
    /// # Errors
    /// [`FrameError`]: the stream must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let frame = self.read();
        if let Err(error) = frame {
            self.failed = Some(error);
            self.held = BytesMut::new();
        }
        frame
    }

    fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.line == 0 && self.searched == 0 {
            match *self.held {
                [b'\r', b'\n', ..] => return Ok(Some(self.keep_alive())),
                [] | [b'\r'] => return Ok(None),
                _ => self.half_ping = false,
            }
        }
        while self.total.is_none() {
            if !self.read_line()? {
                return Ok(None);
            }
        }
        Ok(self.total.filter(|&total| self.held.len() >= total).map(|total| {
            let message = self.held.split_to(total).freeze();
            let held = std::mem::take(&mut self.held);
            *self = Self { held, ..Self::default() };
            Frame::Message(message)
        }))
    }

    fn keep_alive(&mut self) -> Frame {
        self.held.advance(2);
        self.half_ping = !self.half_ping;
        if self.half_ping { Frame::Pong } else { Frame::Ping }
    }

    /// Reads one physical line; `false` when its end, or the byte that says whether it is folded,
    /// has not arrived.
    fn read_line(&mut self) -> Result<bool, FrameError> {
        let unseen = self.held.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unseen).map(|at| self.searched + at) else {
            self.searched = self.held.len();
            return within(self.searched - self.line, MAX_HEADER_BYTES).map(|()| false);
        };
        // `end` is searched again while the byte behind it is missing.
        self.searched = end;
        let text = self.held.get(self.line..end).and_then(|text| text.strip_suffix(b"\r"));
        let text = text.ok_or(FrameError::LineEnd)?;
        within(text.len(), MAX_HEADER_BYTES)?;
        if text.is_empty() {
            self.end_headers(end + 1)?;
            return Ok(true);
        }
        match self.held.get(end + 1) {
            None => return Ok(false),
            Some(b' ' | b'\t') if self.line > 0 => {}
            Some(_) => {
                if self.line > 0 {
                    self.promised = promise(text, self.promised)?;
                    self.lines += 1;
                    within(self.lines, MAX_HEADER_LINES)?;
                } else if !is_start_line(text) {
                    return Err(FrameError::StartLine);
                }
                self.line = end + 1;
            }
        }
        self.searched = end + 1;
        Ok(true)
    }

    fn end_headers(&mut self, end: usize) -> Result<(), FrameError> {
        let body = self.promised.ok_or(FrameError::NoContentLength)?;
        let total = end.checked_add(body).ok_or(FrameError::TooLong)?;
        within(total, MAX_MESSAGE_BYTES)?;
        self.total = Some(total);
        Ok(())
    }
}

const fn within(size: usize, limit: usize) -> Result<(), FrameError> {
    if size <= limit { Ok(()) } else { Err(FrameError::TooLong) }
}

/// Whether a line looks like `SIP/… …` or `METHOD … SIP/…` (RFC 3261 §7.1, §7.2), well-formed or
/// not. Without this, whatever stands before a message would swallow it and leave the stream open.
fn is_start_line(line: &[u8]) -> bool {
    let names_sip = |word: &[u8]| word.get(..4).is_some_and(|w| w.eq_ignore_ascii_case(b"SIP/"));
    let mut words = line.split(|&byte| byte == b' ');
    let first = words.next().unwrap_or_default();
    names_sip(first) || (lex::is_token(first) && words.any(names_sip))
}

/// What Content-Length promises after this header line.
fn promise(line: &[u8], promised: Option<usize>) -> Result<Option<usize>, FrameError> {
    let Some((name, value)) = lex::split_once(line, b':') else { return Ok(promised) };
    if HeaderName::parse(lex::trim_end(name)) != HeaderName::ContentLength {
        return Ok(promised);
    }
    let length = content_length(lex::trim(value)).ok_or(FrameError::ContentLength)?;
    match promised {
        Some(earlier) if earlier != length => Err(FrameError::ContentLengths),
        _ => Ok(Some(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"INFO sip:a SIP/2.0\r\nl\t:\r\n 3\r\nX: y\r\n\r\nabc";
    const TWO: &[u8] = b"SIP/2.0 200 OK\r\nContent-Length: 0\r\ncontent-length : 0\r\n\r\n";

    fn frames(chunks: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
        let mut framer = StreamFramer::new();
        let mut frames = Vec::new();
        for chunk in chunks {
            framer.push(chunk);
            while let Some(frame) = framer.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn error(text: &str) -> Option<FrameError> {
        frames(&[text.as_bytes()]).err()
    }

    #[test]
    fn what_does_not_begin_like_sip_is_no_message() {
        let behind = |start: &str| error(&format!("{start}\r\nContent-Length: 0\r\n\r\n"));
        for start in
            ["GET / HTTP/1.1", "\0\0INFO sip:a SIP/2.0", "INFO sip:a", "x", " INFO sip:a SIP/2.0"]
        {
            assert_eq!(behind(start), Some(FrameError::StartLine), "{start:?}");
        }
        for start in [
            "INFO  sip:a SIP/2.0 ",
            "INFO sip:a b SIP/7.0",
            "SIP/2.0 200",
            "sip/3.0 999 x",
            "i <> sip/2.0",
        ] {
            assert_eq!(behind(start), None, "{start:?}");
        }
    }

    #[test]
    fn messages_and_keep_alives_come_out_in_order_wherever_the_stream_is_cut() {
        let stream = [ONE, b"\r\n\r\n\r\n", TWO, ONE, b"\r\n\r\n"].concat();
        let one = || Frame::Message(Bytes::from_static(ONE));
        let two = Frame::Message(Bytes::from_static(TWO));
        let expected = vec![
            one(),
            Frame::Pong,
            Frame::Ping,
            Frame::Pong,
            two,
            one(),
            Frame::Pong,
            Frame::Ping,
        ];
        assert_eq!(frames(&[&stream]), Ok(expected.clone()));
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(frames(&bytes), Ok(expected.clone()));
        for cut in 0..stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(frames(&[head, tail]), Ok(expected.clone()), "cut at {cut}");
        }
    }

    #[test]
    fn lengths_that_cannot_be_trusted_end_the_stream() {
        let with =
            |headers: &str| error(&format!("INFO sip:a SIP/2.0\r\n{headers}\r\nX: y\r\n\r\n"));
        assert_eq!(with("To: a"), Some(FrameError::NoContentLength));
        assert_eq!(with("l: -1"), Some(FrameError::ContentLength));
        assert_eq!(with("l: 0x10"), Some(FrameError::ContentLength));
        assert_eq!(with("l: 4294967296"), Some(FrameError::ContentLength));
        assert_eq!(with("l: 18446744073709551615"), Some(FrameError::ContentLength));
        assert_eq!(with("l: 1\r\nContent-Length: 2"), Some(FrameError::ContentLengths));
        assert_eq!(with("l: 65535"), Some(FrameError::TooLong));
        assert_eq!(with("l: 3\nX: y"), Some(FrameError::LineEnd));
        assert_eq!(with("l: 0"), None);
    }

    #[test]
    fn nothing_is_held_beyond_the_limits_and_nothing_reserved_for_promises() {
        assert_eq!(error(&"a".repeat(MAX_HEADER_BYTES + 1)), Some(FrameError::TooLong));
        let lines = "X: y\r\n".repeat(MAX_HEADER_LINES + 1);
        assert_eq!(error(&format!("INFO sip:a SIP/2.0\r\n{lines}\r\n")), Some(FrameError::TooLong));
        let mut framer = StreamFramer::new();
        framer.push(b"INFO sip:a SIP/2.0\r\nl: 60000\r\n\r\n");
        assert_eq!(framer.next_frame(), Ok(None));
        assert!(framer.held.capacity() < 1_024, "{} bytes reserved", framer.held.capacity());
    }

    #[test]
    fn an_error_is_for_ever() {
        let mut framer = StreamFramer::new();
        framer.push(b"INFO sip:a SIP/2.0\r\n\r\n");
        for _ in 0..2 {
            assert_eq!(framer.next_frame(), Err(FrameError::NoContentLength));
            framer.push(TWO);
        }
        assert_eq!(framer.pending(), 0);
    }

    #[test]
    fn half_a_message_is_pending_and_no_message_is_not() {
        let mut framer = StreamFramer::new();
        framer.push(&ONE[..9]);
        assert_eq!((framer.next_frame(), framer.pending()), (Ok(None), 9));
        framer.push(&ONE[9..]);
        assert_eq!(framer.next_frame(), Ok(Some(Frame::Message(Bytes::from_static(ONE)))));
        assert_eq!((framer.next_frame(), framer.pending()), (Ok(None), 0));
    }
}
