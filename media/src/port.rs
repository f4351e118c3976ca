//! The port between a media worker and an agent: two rings of 20 ms frames and digits.
//!
//! ```text
//!   media worker                                   agent link (any other thread)
//!   WorkerPort  ── up ring, drop-oldest, 1 s ──►   AgentPort::pull
//!               ◄── down ring, refuses when full ── AgentPort::push / clear
//! ```
//!
//! Everything pushed down has a position: the first item has 0, the next 1, and so on. A playback
//! mark is set by remembering [`AgentPort::pushed`] and is reached when [`AgentPort::consumed`] is no
//! longer below it. [`AgentPort::played`] counts only the frames that really went to the wire.
//!
//! A worker that would send at once what the agent says next has said so; the push that finds this
//! knocks at the worker's door. All other pushes cost no wake-up: the worker comes for them in time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crate::board::Board;
use crate::doorbell::Doorbell;
use crate::frame::{FRAME_SAMPLES, Frame};
use crate::ring::{Consumer, Producer, Record, Words, ring};

/// Caller audio kept for an agent that does not pull: one second. After that the oldest goes first.
pub const UP_FRAMES: usize = 50;

/// Makes the two ends of a port that buffers up to `capacity_frames` (20 ms each) towards the caller.
///
/// The memory is taken here and never grows: 328 bytes a frame.
#[must_use]
pub fn agent_port(capacity_frames: usize) -> (WorkerPort, AgentPort) {
    let (up_in, up_out) = ring(UP_FRAMES);
    let (down_in, down_out) = ring(capacity_frames);
    let tally = Arc::new(Tally::default());
    let worker = WorkerPort { up: up_in, down: down_out, tally: Arc::clone(&tally) };
    (worker, AgentPort { up: up_out, down: down_in, tally })
}

/// What goes from the caller to the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every item is a frame; none is ever boxed")]
pub enum Up {
    /// 20 ms of what the caller said, silence included.
    Frame(Frame),
    /// A key the caller pressed, reported once.
    Digit {
        /// `0`–`9`, `*`, `#` or `A`–`D`.
        digit: char,
        /// How long it was held, in milliseconds.
        duration_ms: u32,
    },
}

/// What goes from the agent to the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every item is a frame; none is ever boxed")]
pub enum Down {
    /// 20 ms of audio.
    Frame(Frame),
    /// A key to press: it takes its place between the frames and lasts `duration_ms`.
    Digit {
        /// `0`–`9`, `*`, `#` or `A`–`D`.
        digit: char,
        /// How long to hold it, in milliseconds.
        duration_ms: u32,
    },
}

/// The down ring has no room: push again after the worker has consumed something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The agent's end.
pub struct AgentPort {
    up: Consumer<Up>,
    down: Producer<Down>,
    tally: Arc<Tally>,
}

impl AgentPort {
    /// The next frame or digit from the caller, oldest first.
    pub fn pull(&mut self) -> Option<Up> {
        self.up.pop()
    }

    /// Queues `item` to be sent to the caller.
    ///
    /// # Errors
    /// [`Full`] when `capacity_frames` items are waiting already.
    pub fn push(&mut self, item: Down) -> Result<(), Full> {
        self.down.push(item).map_err(|_| Full)?;
        self.tally.knock();
        Ok(())
    }

    /// Items that can be pushed before [`Full`].
    #[must_use]
    pub fn room(&self) -> usize {
        usize::try_from(self.down.room()).unwrap_or(usize::MAX)
    }

    /// Drops everything that waits and returns how many items that were.
    ///
    /// The worker cannot take any of them once this has returned, so the caller hears silence
    /// within one 20 ms tick.
    pub fn clear(&mut self) -> u64 {
        self.down.clear()
    }

    /// The position the next pushed item will get: how many were pushed since the start.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.down.tail()
    }

    /// The position of the next item to be consumed; items before it were sent or cleared.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.down.head()
    }

    /// Frames of this port handed to the wire since the start; cleared ones are not among them.
    #[must_use]
    pub fn played(&self) -> u64 {
        self.tally.played.load(Ordering::Relaxed)
    }

    /// Caller frames dropped because nobody pulled them in time.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.tally.overruns.load(Ordering::Relaxed)
    }

    /// A handle that says where to mark that there is something to pull, for whoever hears the bell of
    /// all the calls of a worker; see [`crate::worker::Workers::tick_fd`].
    #[must_use]
    pub fn news(&self) -> PortNews {
        PortNews(Arc::clone(&self.tally))
    }

    /// True once the session has ended: nothing pushed will be sent any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.down.is_abandoned()
    }
}

/// Where the news of one port are marked; see [`AgentPort::news`].
#[derive(Clone)]
pub struct PortNews(Arc<Tally>);

impl PortNews {
    /// Whatever the worker gives the agent from now on is marked at `place` of `board`. A port knows one
    /// board for as long as it lives, and may change its place there.
    pub fn mark_at(&self, board: &Arc<Board>, place: usize) {
        // A second board would be that of a worker which the first one had given the port to, and
        // none does.
        let _ = self.0.board.set(Arc::clone(board));
        self.0.place.store(place, Ordering::Release);
    }

    /// Nothing is marked any more.
    pub fn mark_nowhere(&self) {
        self.0.place.store(NOWHERE, Ordering::Release);
    }
}

impl std::fmt::Debug for PortNews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortNews").finish_non_exhaustive()
    }
}

/// The worker's end, to be given away in [`crate::command::Far::Agent`].
pub struct WorkerPort {
    up: Producer<Up>,
    down: Consumer<Down>,
    tally: Arc<Tally>,
}

impl WorkerPort {
    /// What [`AgentPort::news`] gives, for whoever has only this end.
    #[must_use]
    pub fn news(&self) -> PortNews {
        PortNews(Arc::clone(&self.tally))
    }

    /// Gives the agent `item`; when it lags by a second the oldest item makes way.
    pub fn give(&mut self, item: Up) {
        let dropped = self.up.push_over(item);
        if dropped > 0 {
            self.tally.overruns.fetch_add(dropped, Ordering::Relaxed);
        }
        self.tally.mark_news();
    }

    /// Takes the next thing the agent wants the caller to hear.
    pub(crate) fn take(&mut self) -> Option<Down> {
        self.down.pop()
    }

    /// How much the agent has said that was not taken yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.down.len()
    }

    /// Says whether the next push is to be told of at the door; see [`WorkerPort::live_at`]. It is
    /// told once. After having said so, look whether there is something already.
    pub(crate) fn await_speech(&self, awaited: bool) {
        self.tally.awaited.store(awaited, Ordering::Relaxed);
        if awaited {
            // Either the agent sees that it is awaited, or we see what it has pushed.
            fence(Ordering::SeqCst);
        }
    }

    /// What is awaited is told at `door` of `bell` from now on. A port lives at one door.
    pub(crate) fn live_at(&self, bell: &Arc<Doorbell>, door: usize) {
        // A second door would be that of a worker which the first one had given the port to, and
        // none does.
        let _ = self.tally.door.set((Arc::clone(bell), door));
    }

    /// Counts one frame taken from this port as handed to the wire.
    pub(crate) fn count_played(&self) {
        self.tally.played.fetch_add(1, Ordering::Relaxed);
    }

    /// Caller frames dropped because nobody pulled them in time.
    pub(crate) fn overruns(&self) -> u64 {
        self.tally.overruns.load(Ordering::Relaxed)
    }
}

struct Tally {
    played: AtomicU64,
    overruns: AtomicU64,
    /// Where it is marked that the agent was given something.
    board: OnceLock<Arc<Board>>,
    place: AtomicUsize,
    /// What the agent says next is to be told at the door.
    awaited: AtomicBool,
    door: OnceLock<(Arc<Doorbell>, usize)>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            played: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
            board: OnceLock::new(),
            place: AtomicUsize::new(NOWHERE),
            awaited: AtomicBool::new(false),
            door: OnceLock::new(),
        }
    }
}

impl Tally {
    /// The agent was given something.
    fn mark_news(&self) {
        if let Some(board) = self.board.get() {
            board.mark(self.place.load(Ordering::Acquire));
        }
    }

    /// Something was pushed: tells the worker if it waits for that.
    fn knock(&self) {
        fence(Ordering::SeqCst);
        if self.awaited.load(Ordering::Relaxed)
            && self.awaited.swap(false, Ordering::Relaxed)
            && let Some((bell, door)) = self.door.get()
        {
            bell.knock(*door);
        }
    }
}

/// A place that no board has.
const NOWHERE: usize = usize::MAX;

/// Set in the tag word of a digit; the tag of a frame is zero.
const DIGIT: u64 = 1 << 63;

fn pack_digit(digit: char, duration_ms: u32) -> u64 {
    DIGIT | (u64::from(u32::from(digit)) << 32) | u64::from(duration_ms)
}

#[expect(clippy::cast_possible_truncation, reason = "takes the tag apart into its two halves")]
fn unpack_digit(tag: u64) -> (char, u32) {
    let digit = char::from_u32(((tag & !DIGIT) >> 32) as u32);
    (digit.unwrap_or(char::REPLACEMENT_CHARACTER), tag as u32)
}

fn pack_frame(frame: &Frame, words: &mut [u64]) {
    let (quads, _) = frame.samples.as_chunks::<4>();
    for (word, quad) in words.iter_mut().zip(quads) {
        let [a, b, c, d] = quad.map(|sample| u64::from(sample.cast_unsigned()));
        *word = a | b << 16 | c << 32 | d << 48;
    }
}

fn unpack_frame(words: &[u64]) -> Frame {
    let mut samples = [0; FRAME_SAMPLES];
    let (quads, _) = samples.as_chunks_mut::<4>();
    for (quad, word) in quads.iter_mut().zip(words) {
        *quad = [0, 16, 32, 48].map(|shift| low_sample(word >> shift));
    }
    Frame { samples }
}

#[expect(clippy::cast_possible_truncation, reason = "takes the sample out of its word")]
const fn low_sample(word: u64) -> i16 {
    (word as u16).cast_signed()
}

macro_rules! record {
    ($kind:ident) => {
        impl Record for $kind {
            fn pack(&self, words: &mut Words) {
                let [tag, audio @ ..] = words;
                match self {
                    Self::Frame(frame) => {
                        *tag = 0;
                        pack_frame(frame, audio);
                    }
                    Self::Digit { digit, duration_ms } => *tag = pack_digit(*digit, *duration_ms),
                }
            }

            fn unpack(words: &Words) -> Self {
                let [tag, audio @ ..] = words;
                if *tag == 0 {
                    return Self::Frame(unpack_frame(audio));
                }
                let (digit, duration_ms) = unpack_digit(*tag);
                Self::Digit { digit, duration_ms }
            }
        }
    };
}

record!(Up);
record!(Down);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(level: i16) -> Frame {
        let mut samples = [level; FRAME_SAMPLES];
        samples[0] = i16::MIN;
        samples[FRAME_SAMPLES - 1] = -1;
        Frame { samples }
    }

    #[test]
    fn frames_and_digits_cross_unchanged_and_in_order() {
        let (mut worker, mut agent) = agent_port(4);
        let items = [
            Down::Frame(frame(7)),
            Down::Digit { digit: '#', duration_ms: u32::MAX },
            Down::Frame(frame(-300)),
        ];
        for item in &items {
            assert_eq!(agent.push(item.clone()), Ok(()));
        }
        for item in items {
            assert_eq!(worker.take(), Some(item));
        }
        worker.give(Up::Digit { digit: '5', duration_ms: 120 });
        worker.give(Up::Frame(frame(9)));
        assert_eq!(agent.pull(), Some(Up::Digit { digit: '5', duration_ms: 120 }));
        assert_eq!(agent.pull(), Some(Up::Frame(frame(9))));
        assert_eq!(agent.pull(), None);
    }

    #[test]
    fn a_full_port_refuses_and_says_how_much_room_there_is() {
        let (mut worker, mut agent) = agent_port(2);
        assert_eq!(agent.room(), 2);
        assert_eq!(agent.push(Down::Frame(frame(1))), Ok(()));
        assert_eq!(agent.push(Down::Frame(frame(2))), Ok(()));
        assert_eq!(agent.push(Down::Frame(frame(3))), Err(Full));
        worker.take();
        assert_eq!(agent.room(), 1);
    }

    #[test]
    fn a_mark_is_reached_by_playing_and_by_clearing() {
        let (mut worker, mut agent) = agent_port(8);
        for level in 0..3 {
            assert_eq!(agent.push(Down::Frame(frame(level))), Ok(()));
        }
        let mark = agent.pushed();
        worker.take();
        worker.count_played();
        assert!(agent.consumed() < mark);
        assert_eq!(agent.clear(), 2);
        assert_eq!(agent.consumed(), mark);
        assert_eq!(agent.played(), 1);
        assert_eq!(worker.take(), None);
    }

    #[test]
    fn an_agent_that_does_not_pull_loses_the_oldest_second_first() {
        let (mut worker, mut agent) = agent_port(1);
        for level in 0..53 {
            worker.give(Up::Frame(frame(level)));
        }
        assert_eq!(agent.overruns(), 3);
        assert_eq!(agent.pull(), Some(Up::Frame(frame(3))));
    }

    #[test]
    fn news_are_marked_where_the_port_was_told_to_and_nowhere_after_that() {
        let (mut worker, agent) = agent_port(4);
        let (mut other_worker, _other) = agent_port(1);
        let board = Arc::new(Board::new(8));
        let marked = || {
            let mut places = Vec::new();
            board.take(|place| places.push(place));
            places
        };
        let news = agent.news();
        worker.give(Up::Frame(frame(1)));
        news.mark_at(&board, 3);
        assert_eq!(marked(), [0; 0]);
        worker.give(Up::Frame(frame(2)));
        other_worker.give(Up::Frame(frame(2)));
        assert_eq!(marked(), [3]);
        news.mark_at(&board, 5);
        worker.give(Up::Frame(frame(3)));
        assert_eq!(marked(), [5]);
        news.mark_nowhere();
        worker.give(Up::Frame(frame(4)));
        assert_eq!(marked(), [0; 0]);
    }

    #[test]
    fn an_agent_notices_that_its_session_ended() {
        let (worker, agent) = agent_port(1);
        assert!(!agent.is_closed());
        drop(worker);
        assert!(agent.is_closed());
    }
}
