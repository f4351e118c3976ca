//! SIP messages out of captured TCP streams (RFC 9293 §3.4, RFC 3261 §18.3).
//!
//! Each direction of a connection is put in order by its sequence numbers: what comes twice counts
//! once, what comes early waits. A capture may start in the middle of a connection or miss a
//! segment: then the next thing that looks like a start line is where reading goes on.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;
use sip::{Frame, StreamFramer};

use super::link::Segment;

/// Directions of connections that are followed; the rest of a larger capture is not read.
const MAX_STREAMS: usize = 4_096;

/// Bytes of a direction that may wait for an earlier segment.
const MAX_WAITING: usize = 256 * 1024;

/// What a stream held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// A whole SIP message.
    Message(Bytes),
    /// A CRLF between messages (RFC 5626 §3.5.1).
    KeepAlive,
    /// The start of an HTTP request or response; `true` when it asks for a WebSocket (RFC 7118).
    Http { websocket: bool },
    /// Bytes that are no SIP; told once per run of them.
    Other,
}

/// One direction of a connection.
#[derive(Default)]
struct Direction {
    next: Option<u32>,
    waiting: BTreeMap<u32, Vec<u8>>,
    waiting_bytes: usize,
    framer: StreamFramer,
    /// Something else than SIP was read, and no start line since.
    lost: bool,
}

/// All streams of a capture.
#[derive(Default)]
pub(super) struct Captured {
    directions: HashMap<(SocketAddr, SocketAddr), Direction>,
}

impl Captured {
    /// Takes a segment and hands on what became readable.
    pub(super) fn segment(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        segment: Segment<'_>,
        each: &mut dyn FnMut(Held),
    ) {
        if !self.directions.contains_key(&ends) && self.directions.len() >= MAX_STREAMS {
            return;
        }
        let direction = self.directions.entry(ends).or_default();
        if segment.syn {
            // The port is used again: a new connection.
            *direction =
                Direction { next: Some(segment.sequence.wrapping_add(1)), ..Direction::default() };
        }
        let sequence = segment.sequence.wrapping_add(u32::from(segment.syn));
        direction.take(sequence, segment.bytes, each);
        if segment.last {
            direction.skip_gaps(each);
            direction.next = None;
            direction.restart();
        }
    }

    /// The capture is over: what waits for segments that it does not hold is read without them.
    pub(super) fn finish(mut self, each: &mut dyn FnMut((SocketAddr, SocketAddr), Held)) {
        let mut all: Vec<_> = self.directions.drain().collect();
        all.sort_by_key(|(ends, _)| *ends);
        for (ends, mut direction) in all {
            direction.skip_gaps(&mut |held| each(ends, held));
        }
    }
}

impl Direction {
    fn take(&mut self, sequence: u32, bytes: &[u8], each: &mut dyn FnMut(Held)) {
        if bytes.is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(sequence);
        // Sequence numbers wrap: half of the space lies before, half behind.
        let ahead = sequence.wrapping_sub(next);
        if ahead < 1 << 31 && ahead > 0 {
            self.waiting.entry(sequence).or_insert_with(|| {
                self.waiting_bytes += bytes.len();
                bytes.to_vec()
            });
            if self.waiting_bytes > MAX_WAITING {
                self.skip_gaps(each);
            }
            return;
        }
        let known = usize::try_from(next.wrapping_sub(sequence)).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty()) else { return };
        self.next = Some(next.wrapping_add(u32::try_from(fresh.len()).unwrap_or(0)));
        self.read(fresh, each);
        self.take_waiting(each);
    }

    /// The waiting segments that now join on.
    fn take_waiting(&mut self, each: &mut dyn FnMut(Held)) {
        while let Some(next) = self.next {
            let joins =
                |sequence: u32| sequence.wrapping_sub(next).wrapping_sub(1) >= (1 << 31) - 1;
            let found = self.waiting.keys().copied().find(|&sequence| joins(sequence));
            let Some(sequence) = found else { return };
            let bytes = self.waiting.remove(&sequence).unwrap_or_default();
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes.len());
            let known = usize::try_from(next.wrapping_sub(sequence)).unwrap_or(usize::MAX);
            if let Some(fresh) = bytes.get(known..) {
                self.next = Some(next.wrapping_add(u32::try_from(fresh.len()).unwrap_or(0)));
                self.read(fresh, each);
            }
        }
    }

    /// Goes on behind the holes, in the order of what waits.
    fn skip_gaps(&mut self, each: &mut dyn FnMut(Held)) {
        while let Some(next) = self.next {
            let nearest = self.waiting.keys().copied().min_by_key(|at| at.wrapping_sub(next));
            let Some(nearest) = nearest else { return };
            self.restart();
            self.lost = true;
            self.next = Some(nearest);
            self.take_waiting(each);
        }
    }

    fn restart(&mut self) {
        self.framer = StreamFramer::new();
        self.lost = false;
    }

    fn read(&mut self, bytes: &[u8], each: &mut dyn FnMut(Held)) {
        let mut bytes = bytes;
        if self.lost {
            let Some(start) = find_start(bytes) else { return };
            bytes = bytes.get(start..).unwrap_or_default();
            self.restart();
        }
        if self.framer.pending() == 0 && is_http(bytes) {
            each(Held::Http { websocket: contains(bytes, b"websocket") });
            self.lost = true;
            return;
        }
        self.framer.push(bytes);
        if !self.read_frames(each) {
            each(Held::Other);
            self.restart();
            self.lost = true;
            // What follows in the same segment may be in order again.
            if let Some(start) = bytes.get(1..).and_then(find_start) {
                self.read(bytes.get(start + 1..).unwrap_or_default(), each);
            }
        }
    }

    /// `false` when the stream cannot be read on and nothing of it was.
    fn read_frames(&mut self, each: &mut dyn FnMut(Held)) -> bool {
        let mut messages = 0_u32;
        loop {
            match self.framer.next_frame() {
                Ok(Some(Frame::Message(message))) => {
                    messages += 1;
                    each(Held::Message(message));
                }
                Ok(Some(Frame::Ping)) => each(Held::KeepAlive),
                Ok(Some(Frame::Pong)) => {}
                Ok(None) => return true,
                Err(_) if messages == 0 => return false,
                Err(_) => {
                    self.restart();
                    self.lost = true;
                    return true;
                }
            }
        }
    }
}

/// Where the next start line of SIP begins: at the start, or behind a line end.
fn find_start(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        if is_start_line(rest) {
            return Some(at);
        }
        at += rest.windows(2).position(|two| two == b"\r\n")? + 2;
    }
}

/// Whether a message of SIP, of whatever kind, starts here (RFC 3261 §7.1, §7.2).
pub(super) fn is_start_line(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let version = |text: &[u8]| text.eq_ignore_ascii_case(b"SIP/2.0");
    let mut words = line.split(|&byte| byte == b' ');
    let first = words.next().unwrap_or_default();
    version(first)
        || (!first.is_empty()
            && words.clone().count() >= 2
            && words.next_back().is_some_and(version))
}

/// Whether HTTP starts here.
pub(super) fn is_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"HTTP/1.") || line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n";
    const TWO: &[u8] = b"OPTIONS sip:b SIP/2.0\r\nCall-ID: 2\r\nContent-Length: 4\r\n\r\nbody";

    fn ends() -> (SocketAddr, SocketAddr) {
        ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap())
    }

    /// The messages of segments given as (sequence number, bytes); 0 is a SYN.
    fn messages(segments: &[(u32, &[u8])]) -> Vec<Held> {
        let mut captured = Captured::default();
        let mut held = Vec::new();
        for &(sequence, bytes) in segments {
            let segment = Segment { sequence, syn: bytes.is_empty(), last: false, bytes };
            captured.segment(ends(), segment, &mut |one| held.push(one));
        }
        captured.finish(&mut |_, one| held.push(one));
        held
    }

    fn both() -> Vec<Held> {
        vec![Held::Message(ONE.into()), Held::Message(TWO.into())]
    }

    #[test]
    fn segments_split_anywhere_twice_and_out_of_order_give_the_same_messages() {
        let stream = [ONE, TWO].concat();
        // Numbers that wrap in the middle of the stream.
        let first = u32::MAX - 20;
        for cut in 1..stream.len() - 1 {
            let (a, b) = stream.split_at(cut);
            let second = (first + 1).wrapping_add(u32::try_from(cut).unwrap());
            let syn = (first, &b""[..]);
            assert_eq!(messages(&[syn, (first + 1, a), (second, b)]), both(), "{cut}");
            assert_eq!(messages(&[syn, (second, b), (first + 1, a)]), both(), "{cut} swapped");
            let again = [syn, (first + 1, a), (first + 1, a), (first + 1, &stream), (second, b)];
            assert_eq!(messages(&again), both(), "{cut} twice");
        }
    }

    #[test]
    fn a_capture_that_starts_in_the_middle_is_read_from_the_next_start_line() {
        let stream = [b"v=0\r\no=- 1 1 IN IP4 x\r\n", ONE, TWO].concat();
        let [other, rest @ ..] = &*messages(&[(77, &stream)]) else { panic!("nothing was read") };
        assert_eq!((other, rest), (&Held::Other, &both()[..]));
    }

    #[test]
    fn a_lost_segment_costs_its_message_and_no_other() {
        let (head, tail) = ONE.split_at(20);
        let at = |n: usize| 101 + u32::try_from(n).unwrap();
        let seen = messages(&[(100, b""), (101, head), (at(ONE.len()), TWO)]);
        assert_eq!(seen, [Held::Message(TWO.into())], "without {tail:?}");
    }

    #[test]
    fn other_protocols_are_named_and_then_left_alone() {
        let upgrade = b"GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n";
        assert_eq!(messages(&[(1, upgrade), (40, b"more")]), [Held::Http { websocket: true }]);
        assert_eq!(messages(&[(1, b"\x16\x03\x01 tls\r\n"), (10, b"more")]), [Held::Other]);
    }

    #[test]
    fn keep_alives_between_messages_are_seen() {
        let stream = [b"\r\n\r\n", ONE].concat();
        assert_eq!(messages(&[(1, &stream)]), [Held::KeepAlive, Held::Message(ONE.into())]);
    }
}
