//! What waits to be sent to the agent, bounded so that it never grows old.
//!
//! ```text
//!  frames, digits ─┐
//!   marks played  ─┼─► │ oldest … newest │ ─► link, while it takes
//!      ping, stop ─┘     frames ≤ limit: a new one pushes the oldest out
//! ```
//!
//! Audio of the caller is worth something only while it is fresh; keys and marks are worth keeping. So a full
//! queue loses its oldest frame and nothing else, and the time stamps show the gap. Keys are bounded by
//! [`MAX_DIGITS`] and marks by the play-out queue, which never has more than it was given to give back.

use std::collections::VecDeque;

use media::{FRAME_MS, Frame};

/// Keys that may wait. Nobody types so many while an agent does not read.
pub(crate) const MAX_DIGITS: usize = 64;

/// One thing to tell the agent.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all items are frames; a box for each costs more"
)]
pub(crate) enum Item {
    /// The caller's audio, which ended so many milliseconds after the stream began.
    Frame { frame: Frame, elapsed_ms: u64 },
    /// A key of the caller.
    Digit(char),
    /// A mark of the agent whose time has come.
    Mark(String),
    /// Are you there?
    Ping,
    /// The call is over.
    Stop,
}

/// The queue in front of the link.
#[derive(Debug)]
pub(crate) struct Uplink {
    items: VecDeque<Item>,
    frames: usize,
    digits: usize,
    max_frames: usize,
    elapsed_ms: u64,
    dropped: u64,
}

impl Uplink {
    /// An empty queue for at most `limit_ms` of audio, one frame at least.
    pub(crate) fn new(limit_ms: u64) -> Uplink {
        let frames = usize::try_from(limit_ms / u64::from(FRAME_MS)).unwrap_or(usize::MAX);
        Uplink {
            items: VecDeque::new(),
            frames: 0,
            digits: 0,
            max_frames: frames.max(1),
            elapsed_ms: 0,
            dropped: 0,
        }
    }

    /// Queues 20 ms of the caller; when the limit is reached the oldest frame goes.
    pub(crate) fn push_frame(&mut self, frame: Frame) {
        if self.frames >= self.max_frames {
            self.drop_oldest_frame();
        }
        self.elapsed_ms += u64::from(FRAME_MS);
        self.frames += 1;
        self.items.push_back(Item::Frame { frame, elapsed_ms: self.elapsed_ms });
    }

    /// Queues a key, unless [`MAX_DIGITS`] wait already.
    pub(crate) fn push_digit(&mut self, digit: char) {
        if self.digits < MAX_DIGITS {
            self.digits += 1;
            self.items.push_back(Item::Digit(digit));
        }
    }

    /// Queues the return of a mark.
    pub(crate) fn push_mark(&mut self, name: String) {
        self.items.push_back(Item::Mark(name));
    }

    /// Queues a ping, at most one at a time.
    pub(crate) fn push_ping(&mut self) {
        if !self.items.contains(&Item::Ping) {
            self.items.push_back(Item::Ping);
        }
    }

    /// Queues the last message.
    pub(crate) fn push_stop(&mut self) {
        self.items.push_back(Item::Stop);
    }

    /// `frames` of the caller were lost before they came here: time goes on without them.
    pub(crate) fn skip(&mut self, frames: u64) {
        self.elapsed_ms += frames * u64::from(FRAME_MS);
        self.dropped += frames;
    }

    /// The next thing to send.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        match item {
            Item::Frame { .. } => self.frames -= 1,
            Item::Digit(_) => self.digits -= 1,
            Item::Mark(_) | Item::Ping | Item::Stop => {}
        }
        Some(item)
    }

    /// Things waiting.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Frames of the caller the agent will never get.
    pub(crate) fn dropped_frames(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest_frame(&mut self) {
        let oldest = self.items.iter().position(|item| matches!(item, Item::Frame { .. }));
        if let Some(at) = oldest {
            self.items.remove(at);
            self.frames -= 1;
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(level: i16) -> Frame {
        Frame { samples: [level; media::FRAME_SAMPLES] }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_with_the_time_it_ended() {
        let mut uplink = Uplink::new(200);
        uplink.push_frame(frame(1));
        uplink.push_digit('5');
        uplink.push_frame(frame(2));
        uplink.push_mark("m".into());
        uplink.push_stop();
        assert_eq!(uplink.pop(), Some(Item::Frame { frame: frame(1), elapsed_ms: 20 }));
        assert_eq!(uplink.pop(), Some(Item::Digit('5')));
        assert_eq!(uplink.pop(), Some(Item::Frame { frame: frame(2), elapsed_ms: 40 }));
        assert_eq!(uplink.pop(), Some(Item::Mark("m".into())));
        assert_eq!(uplink.pop(), Some(Item::Stop));
        assert_eq!(uplink.pop(), None);
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_audio_and_no_key_or_mark() {
        let mut uplink = Uplink::new(40);
        uplink.push_mark("m".into());
        uplink.push_frame(frame(1));
        uplink.push_digit('#');
        for level in 2..=4 {
            uplink.push_frame(frame(level));
        }
        assert_eq!(uplink.dropped_frames(), 2);
        assert_eq!(uplink.pop(), Some(Item::Mark("m".into())));
        assert_eq!(uplink.pop(), Some(Item::Digit('#')));
        assert_eq!(uplink.pop(), Some(Item::Frame { frame: frame(3), elapsed_ms: 60 }));
        assert_eq!(uplink.pop(), Some(Item::Frame { frame: frame(4), elapsed_ms: 80 }));
        assert_eq!(uplink.len(), 0);
    }

    #[test]
    fn keys_are_bounded_and_pings_do_not_pile_up() {
        let mut uplink = Uplink::new(200);
        for _ in 0..1000 {
            uplink.push_digit('1');
            uplink.push_ping();
        }
        assert_eq!(uplink.len(), MAX_DIGITS + 1);
    }

    #[test]
    fn audio_lost_on_the_way_leaves_its_gap_in_the_time() {
        let mut uplink = Uplink::new(200);
        uplink.skip(3);
        uplink.push_frame(frame(1));
        assert_eq!(uplink.pop(), Some(Item::Frame { frame: frame(1), elapsed_ms: 80 }));
        assert_eq!(uplink.dropped_frames(), 3);
    }

    #[test]
    fn a_limit_below_one_frame_still_lets_the_newest_through() {
        let mut uplink = Uplink::new(0);
        uplink.push_frame(frame(1));
        uplink.push_frame(frame(2));
        assert_eq!(uplink.pop(), Some(Item::Frame { frame: frame(2), elapsed_ms: 40 }));
    }
}
