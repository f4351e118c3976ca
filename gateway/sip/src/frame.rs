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
}

impl fmt::Display for FrameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLong => "message too long",
            Self::NoContentLength => "no Content-Length on a stream",
            Self::ContentLength => "bad Content-Length",
            Self::ContentLengths => "conflicting Content-Length",
            Self::LineEnd => "line without CR",
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
