//! The play-out queue: what the agent has said and the caller has not heard yet.
//!
//! Agents send audio in chunks of any size, mostly faster than it can be heard, and expect the gateway to
//! keep and pace it. The queue cuts the octets into frames of 20 ms across the borders of chunks and lets at
//! most [`AHEAD_FRAMES`] of them out at a time, so that a clear has little to call back.
//!
//! ```text
//!  chunks ─► │ octets … │M│ octets … │ ─► frames ─► ring (≤ AHEAD_FRAMES) ─► wire
//!            accepted    mark       framed        handed              consumed
//! ```
//!
//! Three counters only grow: octets `accepted`, octets `framed`, frames `handed`. A mark waits for an octet
//! count until the frame with its last octet is cut, then for that frame to be consumed. Invariant: what
//! comes out is what went in, octet for octet, but for the silence that fills the last frame before a pause.

use std::collections::VecDeque;

/// Samples, and octets of µ-law, in one frame.
pub const FRAME_OCTETS: usize = media::FRAME_SAMPLES;

/// Frames that may wait in the ring before the worker. Enough to ride out a late wake-up of 80 ms.
pub const AHEAD_FRAMES: u64 = 5;

/// Marks that may wait at once; an agent marks sentences, not frames.
pub const MAX_MARKS: usize = 512;

/// Octets a mark's name may have.
pub const MAX_MARK_OCTETS: usize = 1024;

/// µ-law's code for zero (ITU-T G.711).
const SILENCE: u8 = 0xFF;

/// Memory, in octets, an empty queue may keep after a long burst has been played.
const KEPT_OCTETS: usize = 16 * 1024;

/// A mark was not taken: too many wait, or its name is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarksFull;

/// Audio and marks between the agent's link and the ring of the media worker.
#[derive(Debug)]
pub struct Playout {
    audio: VecDeque<u8>,
    limit: usize,
    marks: VecDeque<Mark>,
    /// Octets ever taken in, played or cleared.
    accepted: u64,
    /// Octets ever cut into frames or cleared.
    framed: u64,
    /// Index the next frame will have in the ring.
    handed: u64,
    /// Frames below this index are gone even if the worker has not said so yet: they were cleared.
    cleared: u64,
    /// Octets that found the queue full.
    refused: u64,
    /// Audio came since the last tick.
    fresh: bool,
    /// A whole tick has passed without audio.
    quiet: bool,
}

#[derive(Debug)]
struct Mark {
    name: String,
    due: Due,
}

/// When a mark may go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Its last octet is not in a frame yet: once so many octets are framed.
    Octet(u64),
    /// Once the frames below this index are consumed.
    Frame(u64),
}

impl Playout {
    /// An empty queue that holds at most `limit` octets (8 per millisecond). `next_index` is the index the ring
    /// gives to the next frame; 0 for a new ring.
    pub fn new(limit: usize, next_index: u64) -> Playout {
        Playout {
            audio: VecDeque::new(),
            limit,
            marks: VecDeque::new(),
            accepted: 0,
            framed: 0,
            handed: next_index,
            cleared: next_index,
            refused: 0,
            fresh: false,
            quiet: false,
        }
    }

    /// Queues µ-law and returns how many octets were taken. Beyond the limit the newest are refused: what the
    /// agent said first is what it wants heard first.
    pub fn push(&mut self, ulaw: &[u8]) -> usize {
        let room = self.limit.saturating_sub(self.audio.len());
        let (taken, refused) = ulaw.split_at_checked(room).unwrap_or((ulaw, &[]));
        self.audio.extend(taken);
        self.accepted += taken.len() as u64;
        self.refused += refused.len() as u64;
        if !taken.is_empty() {
            (self.fresh, self.quiet) = (true, false);
        }
        taken.len()
    }

    /// Queues a mark behind everything pushed so far.
    ///
    /// # Errors
    /// [`MarksFull`] when [`MAX_MARKS`] wait already or the name is longer than [`MAX_MARK_OCTETS`].
    pub fn mark(&mut self, name: &str) -> Result<(), MarksFull> {
        if self.marks.len() >= MAX_MARKS || name.len() > MAX_MARK_OCTETS {
            return Err(MarksFull);
        }
        let due =
            if self.audio.is_empty() { Due::Frame(self.handed) } else { Due::Octet(self.accepted) };
        self.marks.push_back(Mark { name: name.to_owned(), due });
        Ok(())
    }

    /// Forgets all audio, also what the ring still holds, and returns the names of all waiting marks. The
    /// caller must clear the ring in the same step.
    pub fn clear(&mut self) -> impl Iterator<Item = String> + '_ {
        self.audio.clear();
        self.give_back_memory();
        self.framed = self.accepted;
        self.cleared = self.handed;
        self.marks.drain(..).map(|mark| mark.name)
    }

    /// 20 ms have passed. Audio that does not fill a frame has waited long enough when none came from one tick
    /// to the next.
    pub fn tick(&mut self) {
        self.quiet = !self.fresh;
        self.fresh = false;
    }

    /// The next frame to hand to the ring, of which frames below `consumed` have gone to the wire. `None` while
    /// enough are ahead, nothing is queued, or the little that is may still become a whole frame.
    pub fn next_frame(&mut self, consumed: u64) -> Option<[u8; FRAME_OCTETS]> {
        let ahead = self.handed.saturating_sub(consumed.max(self.cleared));
        let queued = self.audio.len();
        if ahead >= AHEAD_FRAMES || queued == 0 {
            return None;
        }
        if queued < FRAME_OCTETS && !(ahead == 0 && (self.quiet || self.mark_at_the_end())) {
            return None;
        }
        let mut frame = [SILENCE; FRAME_OCTETS];
        let taken = queued.min(FRAME_OCTETS);
        for (to, from) in frame.iter_mut().zip(self.audio.drain(..taken)) {
            *to = from;
        }
        self.framed += taken as u64;
        self.handed += 1;
        self.settle_marks();
        self.give_back_memory();
        Some(frame)
    }

    /// Something else than a frame of this queue took the next index of the ring: a key.
    pub fn skip_position(&mut self) {
        self.handed += 1;
    }

    /// The next mark whose audio has gone to the wire, given that frames below `consumed` have.
    pub fn next_mark(&mut self, consumed: u64) -> Option<String> {
        let gone = consumed.max(self.cleared);
        let mark = self.marks.pop_front_if(|mark| match mark.due {
            Due::Frame(index) => index <= gone,
            Due::Octet(_) => false,
        })?;
        Some(mark.name)
    }

    /// Whether audio or marks still wait, here or in the ring.
    pub fn is_busy(&self, consumed: u64) -> bool {
        !self.audio.is_empty() || !self.marks.is_empty() || consumed.max(self.cleared) < self.handed
    }

    /// Audio not yet cut into frames, in milliseconds, the last one begun included.
    pub fn queued_ms(&self) -> u64 {
        (self.audio.len() as u64).div_ceil(OCTETS_PER_MS)
    }

    /// Octets that were refused since the start because the queue was full.
    pub fn refused_octets(&self) -> u64 {
        self.refused
    }

    fn mark_at_the_end(&self) -> bool {
        self.marks.back().is_some_and(|mark| mark.due == Due::Octet(self.accepted))
    }

    /// Marks whose last octet has just been framed now wait for that frame.
    fn settle_marks(&mut self) {
        let (framed, handed) = (self.framed, self.handed);
        for mark in &mut self.marks {
            match mark.due {
                Due::Octet(octet) if octet <= framed => mark.due = Due::Frame(handed),
                Due::Octet(_) => break,
                Due::Frame(_) => {}
            }
        }
    }

    fn give_back_memory(&mut self) {
        if self.audio.is_empty() && self.audio.capacity() > KEPT_OCTETS {
            self.audio.shrink_to(KEPT_OCTETS);
        }
    }
}

/// µ-law at 8 kHz.
const OCTETS_PER_MS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that consumes one frame per tick, and everything it played.
    struct Wire {
        ring: VecDeque<[u8; FRAME_OCTETS]>,
        consumed: u64,
        played: Vec<u8>,
        marks: Vec<(String, usize)>,
    }

    impl Wire {
        fn new() -> Wire {
            Wire { ring: VecDeque::new(), consumed: 0, played: Vec::new(), marks: Vec::new() }
        }

        fn feed(&mut self, playout: &mut Playout) {
            while let Some(frame) = playout.next_frame(self.consumed) {
                self.ring.push_back(frame);
                assert!(self.ring.len() as u64 <= AHEAD_FRAMES);
            }
            while let Some(name) = playout.next_mark(self.consumed) {
                self.marks.push((name, self.played.len()));
            }
        }

        fn tick(&mut self, playout: &mut Playout) {
            if let Some(frame) = self.ring.pop_front() {
                self.played.extend(frame);
                self.consumed += 1;
            }
            playout.tick();
            self.feed(playout);
        }

        fn run_dry(&mut self, playout: &mut Playout) {
            for _ in 0..100_000 {
                if !playout.is_busy(self.consumed) {
                    return;
                }
                self.tick(playout);
            }
            panic!("never ran dry");
        }
    }

    /// xorshift64*: the same numbers in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
        }
    }

    /// Codes that are never silence, so that padding can be told from audio.
    fn speech(length: usize, random: &mut Random) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(random.below(255)).unwrap()).collect()
    }

    #[test]
    fn however_it_is_cut_what_comes_out_is_what_went_in() {
        let mut random = Random(0x5EED);
        for round in 0..80 {
            let largest = [1, 2, 7, 159, 161, 400, 4000, 20_000][round % 8];
            let mut playout = Playout::new(usize::MAX, 0);
            let mut wire = Wire::new();
            let mut said = Vec::new();
            for _ in 0..random.below(40) + 1 {
                let length = random.below(largest) + 1;
                let chunk = speech(length, &mut random);
                assert_eq!(playout.push(&chunk), chunk.len());
                said.extend(chunk);
                wire.feed(&mut playout);
                for _ in 0..random.below(3) {
                    wire.tick(&mut playout);
                }
            }
            wire.run_dry(&mut playout);
            wire.played.retain(|code| *code != SILENCE);
            assert_eq!(wire.played, said, "chunks up to {largest}");
        }
    }

    #[test]
    fn a_burst_comes_out_without_a_gap_and_is_padded_only_at_its_end() {
        let mut random = Random(1);
        let said = speech(60 * 8000 + 13, &mut random);
        let mut playout = Playout::new(usize::MAX, 0);
        let mut wire = Wire::new();
        for chunk in said.chunks(977) {
            playout.push(chunk);
        }
        wire.feed(&mut playout);
        wire.run_dry(&mut playout);
        let (audio, padding) = wire.played.split_at(said.len());
        assert_eq!(audio, said);
        assert_eq!(padding, vec![SILENCE; FRAME_OCTETS - 13]);
    }

    #[test]
    fn marks_come_back_in_order_after_exactly_the_audio_before_them() {
        let mut random = Random(77);
        for _ in 0..80 {
            let mut playout = Playout::new(usize::MAX, 0);
            let mut wire = Wire::new();
            let mut positions = Vec::new();
            for at in 0..random.below(30) + 1 {
                let length = random.below(1000);
                let chunk = speech(length, &mut random);
                playout.push(&chunk);
                playout.mark(&at.to_string()).unwrap();
                positions.push(positions.last().copied().unwrap_or(0) + length);
                if random.below(4) == 0 {
                    wire.tick(&mut playout);
                }
            }
            wire.run_dry(&mut playout);
            assert_eq!(wire.marks.len(), positions.len());
            for (at, ((name, played), position)) in wire.marks.iter().zip(positions).enumerate() {
                assert_eq!(name, &at.to_string());
                let heard = wire.played[..*played].iter().filter(|code| **code != SILENCE).count();
                assert!(heard >= position, "mark {at} came {} octets early", position - heard);
                assert!(heard < position + FRAME_OCTETS, "mark {at} came a frame late");
            }
        }
    }

    #[test]
    fn a_mark_in_an_empty_queue_comes_back_at_once() {
        let mut playout = Playout::new(usize::MAX, 0);
        playout.mark("now").unwrap();
        assert_eq!(playout.next_mark(0).as_deref(), Some("now"));
        assert_eq!(playout.next_mark(0), None);
    }

    #[test]
    fn a_mark_waits_for_frames_that_are_in_the_ring_already() {
        let mut playout = Playout::new(usize::MAX, 0);
        playout.push(&[1; FRAME_OCTETS * 2]);
        while playout.next_frame(0).is_some() {}
        playout.mark("end").unwrap();
        assert_eq!(playout.next_mark(0), None);
        assert_eq!(playout.next_mark(1), None);
        assert_eq!(playout.next_mark(2).as_deref(), Some("end"));
    }

    #[test]
    fn a_mark_right_after_a_partial_frame_lets_it_out_at_once() {
        let mut playout = Playout::new(usize::MAX, 0);
        playout.push(&[1; 10]);
        assert_eq!(playout.next_frame(0), None, "more may come");
        playout.mark("end").unwrap();
        let frame = playout.next_frame(0).unwrap();
        assert_eq!(frame[..10], [1; 10]);
        assert_eq!(frame[10..], [SILENCE; FRAME_OCTETS - 10]);
        assert_eq!(playout.next_mark(0), None);
        assert_eq!(playout.next_mark(1).as_deref(), Some("end"));
    }

    #[test]
    fn a_partial_frame_waits_one_tick_for_its_rest() {
        let mut playout = Playout::new(usize::MAX, 0);
        playout.tick();
        playout.tick();
        playout.push(&[1; 100]);
        playout.tick();
        assert_eq!(playout.next_frame(0), None, "it came just before the tick");
        playout.push(&[2; 60]);
        let frame = playout.next_frame(0).unwrap();
        assert_eq!((frame[99], frame[100]), (1, 2));
        playout.push(&[3; 1]);
        playout.tick();
        playout.tick();
        assert_eq!(playout.next_frame(0), None, "a frame is still ahead of the wire");
        assert_eq!(playout.next_frame(1).unwrap()[..2], [3, SILENCE]);
    }

    #[test]
    fn clear_forgets_everything_and_returns_every_mark_at_once() {
        let mut playout = Playout::new(usize::MAX, 0);
        playout.mark("before").unwrap();
        playout.push(&[1; FRAME_OCTETS * 20]);
        playout.mark("middle").unwrap();
        while playout.next_frame(0).is_some() {}
        playout.push(&[1; 50]);
        playout.mark("end").unwrap();
        assert_eq!(playout.clear().collect::<Vec<_>>(), ["before", "middle", "end"]);
        assert!(!playout.is_busy(0));
        assert_eq!(playout.next_frame(0), None);
        playout.mark("after").unwrap();
        assert_eq!(playout.next_mark(0).as_deref(), Some("after"), "cleared frames are gone");
        playout.push(&[2; FRAME_OCTETS]);
        assert_eq!(playout.next_frame(0), Some([2; FRAME_OCTETS]));
    }

    #[test]
    fn beyond_the_limit_the_newest_is_refused_and_counted() {
        let mut playout = Playout::new(100, 0);
        assert_eq!(playout.push(&[1; 70]), 70);
        assert_eq!(playout.push(&[2; 70]), 30);
        assert_eq!(playout.push(&[3; 70]), 0);
        assert_eq!(playout.refused_octets(), 110);
        assert_eq!(playout.queued_ms(), 13);
        playout.tick();
        playout.tick();
        let frame = playout.next_frame(0).unwrap();
        assert_eq!((frame[69], frame[70], frame[99], frame[100]), (1, 2, 2, SILENCE));
    }

    #[test]
    fn marks_are_bounded_in_number_and_length() {
        let mut playout = Playout::new(usize::MAX, 0);
        assert_eq!(playout.mark(&"x".repeat(MAX_MARK_OCTETS + 1)), Err(MarksFull));
        for _ in 0..MAX_MARKS {
            playout.mark("m").unwrap();
        }
        assert_eq!(playout.mark("one more"), Err(MarksFull));
        assert_eq!(playout.next_mark(0).as_deref(), Some("m"));
        playout.mark("one more").unwrap();
    }

    #[test]
    fn a_played_burst_leaves_no_memory_behind() {
        let mut playout = Playout::new(usize::MAX, 0);
        playout.push(&vec![1; 600 * 8000]);
        playout.clear().for_each(drop);
        assert!(playout.audio.capacity() <= 2 * KEPT_OCTETS);
    }

    #[test]
    fn a_ring_that_was_used_before_goes_on_counting() {
        let mut playout = Playout::new(usize::MAX, 40);
        playout.push(&[1; FRAME_OCTETS]);
        playout.mark("first").unwrap();
        assert!(playout.next_frame(40).is_some());
        assert_eq!(playout.next_mark(40), None);
        assert_eq!(playout.next_mark(41).as_deref(), Some("first"));
    }
}
