//! The playout buffer: packets in whenever they come, 20 ms of audio out whenever asked.
//!
//! Works on the RTP time line (RFC 3550 §5.1) of a codec with one byte per sample at 8 kHz
//! (G.711), so packets of any length are cut into 20 ms without a special case:
//!
//! ```text
//!            play                       end
//!  ───────────┼──────────────────────────┼────────────▶ RTP timestamp
//!   consumed  │ audio │ missing │ audio  │   not yet
//!             └────────── depth ─────────┘
//!
//!  Idle ──push──▶ Filling ──depth ≥ target──▶ Playing ──ran dry──▶ Starved ──push──▶ Filling
//! ```
//!
//! The target depth follows the measured delay variation between a minimum and a maximum. What
//! the sender left out on purpose (silence suppression, RFC 3551 §4.1) is told from loss by the
//! sequence number: a time jump without a sequence jump is silence.
//!
//! Who plays the audio out pulls a frame every 20 ms. Who only listens takes frames as soon as they
//! are whole ([`Jitter::take_whole`]) and asks for what is overdue when it has waited long enough
//! ([`Jitter::take_overdue`]): then the buffer only puts things in order.
//!
//! Invariants: nothing is played twice or out of order; the depth never stays above the maximum;
//! nothing is allocated after [`Jitter::new`].

mod delay;

use std::time::{Duration, Instant};

use self::delay::{DelayEstimate, Reserve};
use crate::frame::FRAME_SAMPLES;
use crate::sequence::SequenceWindow;

/// RTP clock, in samples per millisecond.
const SAMPLES_PER_MS: i32 = 8;
/// Time line kept, in samples; a power of two. A little more than one second.
const RING: usize = 8192;
const RING_MASK: usize = RING - 1;
/// One frame as a signed count of samples.
const FRAME: i32 = 160;
/// Longest packet accepted: 200 ms, which RFC 3551 §4.2 asks receivers to accept.
const PACKET_MAX: usize = 1600;
/// A packet further behind than this is no late packet but another time line, in samples.
const LATE_MAX: i32 = 16_000;
/// A sequence jump above this needs a second packet to be believed (RFC 3550 A.1).
const DROPOUT_MAX: i32 = 3_000;
/// Cells below this loudness count as quiet: slips and stretches there are not heard.
const QUIET: u8 = 0x30;
/// Frames between two corrections for drift: half a second.
const CORRECTION_FRAMES: u32 = 25;

/// State of one sample cell: nothing arrived for it.
const MISSING: u8 = 0;
/// State of one sample cell: holds audio.
const AUDIO: u8 = 1;
/// State of one sample cell: the sender was silent on purpose.
const SILENT: u8 = 2;

/// Bounds of the delay that the buffer may add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Least depth aimed at, in milliseconds.
    pub min_ms: u16,
    /// Greatest depth kept, in milliseconds; at most 400.
    pub max_ms: u16,
    /// The byte that decodes to silence: 0xFF for PCMU, 0xD5 for PCMA.
    pub silence: u8,
}

impl Default for Options {
    /// 20 to 200 ms of µ-law.
    fn default() -> Self {
        Self { min_ms: 20, max_ms: 200, silence: 0xFF }
    }
}

/// What became of a packet that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It will be played.
    Buffered,
    /// Its sequence number was here before.
    Duplicate,
    /// Its moment has passed.
    Late,
    /// Empty or longer than 200 ms, or out of any order: not believed yet.
    Refused,
}

/// What there is to play for one 20 ms tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot<'a> {
    /// 20 ms of payload: always 160 bytes.
    Frame(&'a [u8]),
    /// The packet is lost although later ones are here: conceal.
    Lost,
    /// The sender is silent on purpose: comfort noise.
    Silence,
    /// Nothing to play: not begun, filling up, or run dry. Conceal with a fade-out.
    Empty,
}

/// Counts since the start; frames are 20 ms each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets of a sequence number seen before.
    pub duplicates: u64,
    /// Packets that came after their moment.
    pub late: u64,
    /// Packets refused for their length or their odd position.
    pub refused: u64,
    /// Frames played, whole or in part.
    pub played: u64,
    /// Frames known to be lost.
    pub lost: u64,
    /// Frames that had to be bridged because the buffer ran dry.
    pub starved: u64,
    /// Frames skipped to come down to the target.
    pub slipped: u64,
    /// Frames inserted to come up to the target.
    pub stretched: u64,
    /// Times the sender jumped to another time line.
    pub restarts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Filling { since: Instant },
    Playing,
    Starved,
}

/// The playout buffer of one stream. See the module documentation.
pub struct Jitter {
    options: Options,
    state: State,
    /// Payload bytes by timestamp.
    bytes: Box<[u8; RING]>,
    /// State of each cell of `bytes`.
    cells: Box<[u8; RING]>,
    frame: [u8; FRAME_SAMPLES],
    /// Timestamp of the next sample to play.
    play: u32,
    /// Timestamp after the last sample known of.
    end: u32,
    /// Nothing before this timestamp may be played any more.
    floor: u32,
    sequence: Option<SequenceWindow>,
    /// The packet that would prove a jump: sequence number and timestamp expected next.
    suspect: Option<(u16, u32)>,
    delay: DelayEstimate,
    /// Samples per packet of the sender, the largest seen.
    packet_samples: i32,
    reserve: Reserve,
    since_correction: u32,
    counters: Counters,
}

impl Jitter {
    /// An empty buffer. Allocates its 16 KiB here and nowhere else.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let max_ms = options.max_ms.clamp(40, 400);
        let options = Options { min_ms: options.min_ms.clamp(20, max_ms), max_ms, ..options };
        Self {
            options,
            state: State::Idle,
            bytes: Box::new([options.silence; RING]),
            cells: Box::new([MISSING; RING]),
            frame: [options.silence; FRAME_SAMPLES],
            play: 0,
            end: 0,
            floor: 0,
            sequence: None,
            suspect: None,
            delay: DelayEstimate::new(),
            packet_samples: FRAME,
            reserve: Reserve::default(),
            since_correction: 0,
            counters: Counters::default(),
        }
    }

    /// Takes one audio packet: its sequence number, RTP timestamp and payload.
    pub fn push(&mut self, sequence: u16, timestamp: u32, payload: &[u8], now: Instant) -> Pushed {
        if payload.is_empty() || payload.len() > PACKET_MAX {
            self.counters.refused += 1;
            return Pushed::Refused;
        }
        let samples = i32::try_from(payload.len()).unwrap_or(FRAME);
        let step = match self.place(sequence, timestamp, samples) {
            Ok(step) => step,
            Err(why) => return why,
        };
        self.delay.observe(timestamp, now);
        self.packet_samples = samples.max(self.packet_samples - 1);
        self.make_room(timestamp, samples, step, now);
        if signed(timestamp, self.floor) < 0 {
            self.counters.late += 1;
            return Pushed::Late;
        }
        self.store(timestamp, payload);
        Pushed::Buffered
    }

    /// Takes note of a packet of this stream that carries no audio (comfort noise, telephone
    /// event): its sequence number is not missing, so the time it covers is silence, not loss.
    pub fn skip(&mut self, sequence: u16) {
        if let Some(window) = &mut self.sequence {
            let step = window.step(sequence);
            if (1..=DROPOUT_MAX).contains(&step) {
                window.advance(step, sequence);
            } else {
                window.mark(step);
            }
        }
    }

    /// Gives the next 20 ms. To be called once per 20 ms tick.
    pub fn pull(&mut self, now: Instant) -> Slot<'_> {
        self.delay.age();
        match self.state {
            State::Idle => Slot::Empty,
            State::Starved => {
                self.counters.starved += 1;
                Slot::Empty
            }
            State::Filling { since } => {
                let waited = now.saturating_duration_since(since);
                let target = self.target_samples();
                if self.depth() < target && waited < samples_to_duration(target) {
                    return Slot::Empty;
                }
                self.state = State::Playing;
                self.reserve = Reserve::default();
                self.play_one()
            }
            State::Playing => self.play_one(),
        }
    }

    /// Gives the next 20 ms if all of them are here, however little is behind them.
    pub fn take_whole(&mut self) -> Option<Slot<'_>> {
        if !self.is_whole() {
            return None;
        }
        self.state = State::Playing;
        Some(self.take())
    }

    /// Drops the next 20 ms if all of them are here and nothing loud is among them.
    pub fn drop_quiet(&mut self) -> bool {
        let drops = self.is_whole() && self.is_quiet();
        if drops {
            self.drop_frame();
        }
        drops
    }

    /// Gives 20 ms in place of what should have been here by now: with its gaps, if later audio has
    /// come, else [`Slot::Empty`].
    pub fn take_overdue(&mut self) -> Slot<'_> {
        if self.depth() >= FRAME {
            self.state = State::Playing;
            return self.take();
        }
        if self.state != State::Idle {
            self.state = State::Starved;
            self.counters.starved += 1;
        }
        Slot::Empty
    }

    /// Lets 20 ms pass for whoever does not [`Jitter::pull`].
    pub fn age(&mut self) {
        self.delay.age();
    }

    /// Forgets the stream: for a new SSRC, or after a pause without media.
    pub fn reset(&mut self) {
        self.cells.fill(MISSING);
        self.state = State::Idle;
        self.end = self.play;
        self.sequence = None;
        self.suspect = None;
        self.delay = DelayEstimate::new();
        self.packet_samples = FRAME;
        self.reserve = Reserve::default();
    }

    /// Audio waiting to be played, in milliseconds.
    #[must_use]
    pub fn depth_ms(&self) -> u32 {
        u32::try_from(self.depth().max(0) / SAMPLES_PER_MS).unwrap_or(0)
    }

    /// The depth never stayed above, in milliseconds.
    #[must_use]
    pub fn max_ms(&self) -> u32 {
        u32::from(self.options.max_ms)
    }

    /// The depth aimed at, in milliseconds.
    #[must_use]
    pub fn target_ms(&self) -> u32 {
        u32::try_from(self.target_samples() / SAMPLES_PER_MS).unwrap_or(0)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Finds the packet's place in the sequence: how many numbers it is ahead of the newest.
    fn place(&mut self, sequence: u16, timestamp: u32, samples: i32) -> Result<i32, Pushed> {
        let Some(window) = &mut self.sequence else {
            self.begin(sequence, timestamp);
            return Ok(0);
        };
        let step = window.step(sequence);
        let ahead = signed(timestamp, self.end);
        let believable = match step {
            1.. => step <= DROPOUT_MAX && ahead > -LATE_MAX.min(self.packet_samples + FRAME),
            _ => step > -SequenceWindow::SPAN && ahead > -LATE_MAX && ahead < LATE_MAX,
        };
        if believable {
            self.suspect = None;
            if step > 0 {
                window.advance(step, sequence);
            } else if !window.mark(step) {
                self.counters.duplicates += 1;
                return Err(Pushed::Duplicate);
            }
            return Ok(step);
        }
        if self.suspect == Some((sequence, timestamp)) {
            self.counters.restarts += 1;
            self.reset();
            self.begin(sequence, timestamp);
            return Ok(0);
        }
        // A very old straggler is only late; anything else may be a sender that began anew.
        if (-DROPOUT_MAX..=0).contains(&step) && (-LATE_MAX..=0).contains(&ahead) {
            self.counters.late += 1;
            return Err(Pushed::Late);
        }
        let next = timestamp.wrapping_add_signed(samples);
        self.suspect = Some((sequence.wrapping_add(1), next));
        self.counters.refused += 1;
        Err(Pushed::Refused)
    }

    fn begin(&mut self, sequence: u16, timestamp: u32) {
        self.sequence = Some(SequenceWindow::starting_at(sequence));
        self.suspect = None;
        self.play = timestamp;
        self.end = timestamp;
        // Packets reordered at the very start may still go before the first one.
        self.floor = timestamp.wrapping_add_signed(-self.max_samples());
    }

    /// Moves the time line so that the packet fits: start, silence, jump, overflow.
    fn make_room(&mut self, timestamp: u32, samples: i32, step: i32, now: Instant) {
        match self.state {
            State::Idle => self.state = State::Filling { since: now },
            State::Starved => {
                let gap = signed(timestamp, self.play);
                if gap >= 0 {
                    if gap >= FRAME {
                        self.jump_to(timestamp);
                    }
                    self.state = State::Filling { since: now };
                }
            }
            State::Filling { .. } => {
                if signed(timestamp, self.play) < 0 && signed(timestamp, self.floor) >= 0 {
                    self.play = timestamp;
                }
            }
            State::Playing => {}
        }
        let gap = signed(timestamp, self.end);
        let depth = signed(timestamp, self.play).saturating_add(samples);
        if depth > self.max_samples() + self.packet_samples {
            // Too much to hold: a burst after a pause, or silence longer than the ring. The
            // newest audio is worth most, so the line moves up until the packet just fits.
            let target = self.target_samples().max(samples);
            let start = timestamp.wrapping_add_signed(samples - target);
            let dropped = signed(self.end.min_signed(start), self.play).max(0) / FRAME;
            self.counters.slipped += u64::try_from(dropped).unwrap_or(0);
            self.jump_to(start);
        }
        if step == 1 && gap > 0 {
            self.mark_silent(self.end, timestamp);
        }
        let after = timestamp.wrapping_add_signed(samples);
        if signed(after, self.end) > 0 {
            self.end = after;
        }
    }

    /// Plays from the time line, correcting the depth where nobody hears it.
    fn play_one(&mut self) -> Slot<'_> {
        let depth = self.depth();
        if depth < FRAME {
            self.state = State::Starved;
            self.counters.starved += 1;
            return Slot::Empty;
        }
        self.since_correction = self.since_correction.saturating_add(1);
        if self.should_stretch(depth) {
            self.since_correction = 0;
            self.counters.stretched += 1;
            return Slot::Silence;
        }
        self.slip(depth);
        self.take()
    }

    /// Takes the next 20 ms, whatever they are.
    fn take(&mut self) -> Slot<'_> {
        let found = self.take_frame();
        self.reserve.observe(self.depth());
        match found {
            AUDIO => {
                self.counters.played += 1;
                Slot::Frame(&self.frame)
            }
            SILENT => Slot::Silence,
            _ => {
                self.counters.lost += 1;
                Slot::Lost
            }
        }
    }

    /// Comes down to the target: at once above the maximum, else where it is quiet.
    fn slip(&mut self, depth: i32) {
        let mut excess = if depth > self.max_samples() + self.packet_samples - FRAME {
            depth - self.target_samples()
        } else if self.surplus(depth) && (self.is_quiet() || self.since_correction > 100) {
            FRAME
        } else {
            0
        };
        while excess >= FRAME && self.depth() >= 2 * FRAME {
            self.drop_frame();
            excess -= FRAME;
        }
    }

    fn drop_frame(&mut self) {
        self.clear(self.play, FRAME);
        self.play = self.play.wrapping_add_signed(FRAME);
        self.floor = self.play;
        self.counters.slipped += 1;
        self.since_correction = 0;
        self.reserve = Reserve::default();
    }

    /// Nothing is missing of the next frame.
    fn is_whole(&self) -> bool {
        let is_here = |offset| self.cells.get(index(self.play, offset)) != Some(&MISSING);
        self.depth() >= FRAME && (0..FRAME_SAMPLES).all(is_here)
    }

    /// A whole frame lay unused for a second, although the target does not ask for it.
    fn surplus(&self, depth: i32) -> bool {
        self.since_correction >= CORRECTION_FRAMES
            && depth > self.target_samples()
            && self.reserve.unused().is_some_and(|unused| unused >= FRAME + FRAME / 4)
    }

    fn should_stretch(&self, depth: i32) -> bool {
        self.since_correction >= CORRECTION_FRAMES
            && depth + FRAME + self.packet_samples <= self.target_samples()
            && self.is_quiet()
    }

    /// Moves one frame out of the ring; the best cell state in it says what it is.
    fn take_frame(&mut self) -> u8 {
        let mut found = MISSING;
        let mut silent = 0;
        for (offset, out) in self.frame.iter_mut().enumerate() {
            let at = index(self.play, offset);
            let (Some(cell), Some(byte)) = (self.cells.get_mut(at), self.bytes.get(at)) else {
                continue;
            };
            *out = if *cell == AUDIO { *byte } else { self.options.silence };
            match *cell {
                AUDIO => found = AUDIO,
                SILENT => silent += 1,
                _ => {}
            }
            *cell = MISSING;
        }
        self.play = self.play.wrapping_add_signed(FRAME);
        self.floor = self.play;
        if found == MISSING && silent * 2 >= FRAME_SAMPLES { SILENT } else { found }
    }

    /// Nothing loud in the next frame. The distance from the silence byte grows with loudness in
    /// both laws of G.711.
    fn is_quiet(&self) -> bool {
        (0..FRAME_SAMPLES).step_by(4).all(|offset| {
            let at = index(self.play, offset);
            let (cell, byte) = (self.cells.get(at), self.bytes.get(at));
            cell != Some(&AUDIO)
                || byte.is_some_and(|byte| (byte ^ self.options.silence) & 0x7F < QUIET)
        })
    }

    fn store(&mut self, timestamp: u32, payload: &[u8]) {
        for (offset, byte) in payload.iter().enumerate() {
            let at = index(timestamp, offset);
            if let (Some(cell), Some(slot)) = (self.cells.get_mut(at), self.bytes.get_mut(at)) {
                *cell = AUDIO;
                *slot = *byte;
            }
        }
    }

    fn mark_silent(&mut self, from: u32, to: u32) {
        let start = if signed(from, self.play) < 0 { self.play } else { from };
        let length = usize::try_from(signed(to, start)).unwrap_or(0).min(RING);
        for offset in 0..length {
            if let Some(cell) = self.cells.get_mut(index(start, offset)) {
                *cell = SILENT;
            }
        }
    }

    /// Goes on at `timestamp`, forgetting what lies before it. Never backwards.
    fn jump_to(&mut self, timestamp: u32) {
        let distance = signed(timestamp, self.play);
        if distance <= 0 {
            return;
        }
        self.clear(self.play, distance);
        self.play = timestamp;
        self.floor = timestamp;
        if signed(self.end, timestamp) < 0 {
            self.end = timestamp;
        }
        self.reserve = Reserve::default();
    }

    fn clear(&mut self, from: u32, samples: i32) {
        let length = usize::try_from(samples).unwrap_or(0).min(RING);
        for offset in 0..length {
            if let Some(cell) = self.cells.get_mut(index(from, offset)) {
                *cell = MISSING;
            }
        }
    }

    fn depth(&self) -> i32 {
        signed(self.end, self.play)
    }

    fn max_samples(&self) -> i32 {
        i32::from(self.options.max_ms) * SAMPLES_PER_MS
    }

    fn target_samples(&self) -> i32 {
        let least = (i32::from(self.options.min_ms) * SAMPLES_PER_MS).max(self.packet_samples);
        let wanted = self.delay.spread_samples() + FRAME.max(self.packet_samples);
        wanted.clamp(least, self.max_samples().max(least))
    }
}

/// `a - b` on the RTP clock, which wraps.
#[expect(clippy::cast_possible_wrap, reason = "modular distance is what RTP time is")]
const fn signed(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

trait MinSigned {
    fn min_signed(self, other: Self) -> Self;
}

impl MinSigned for u32 {
    fn min_signed(self, other: Self) -> Self {
        if signed(self, other) < 0 { self } else { other }
    }
}

/// Where the sample `offset` after `timestamp` lives.
fn index(timestamp: u32, offset: usize) -> usize {
    let at = usize::try_from(timestamp).unwrap_or(0).wrapping_add(offset);
    at & RING_MASK
}

fn samples_to_duration(samples: i32) -> Duration {
    Duration::from_micros(u64::try_from(samples).unwrap_or(0) * 125)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// What one tick gave.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Heard {
        Frame(u8),
        Lost,
        Silence,
        Empty,
    }

    /// A packet on its way. Each byte carries the number of the frame it was sampled in.
    #[derive(Clone, Copy, Debug)]
    struct Sent {
        arrives_ms: u64,
        sequence: u16,
        timestamp: u32,
        samples: usize,
        /// Its first sample, counted from the start of the talk.
        first: u64,
    }

    /// Virtual time around one buffer.
    struct Run {
        jitter: Jitter,
        start: Instant,
        heard: Vec<Heard>,
        samples: Vec<u8>,
        deepest_ms: u32,
    }

    impl Run {
        fn new() -> Self {
            Self::with(Options::default())
        }

        fn with(options: Options) -> Self {
            let start = crate::clock::now();
            Self {
                jitter: Jitter::new(options),
                start,
                heard: Vec::new(),
                samples: Vec::new(),
                deepest_ms: 0,
            }
        }

        fn push(&mut self, packet: Sent) -> Pushed {
            let bytes: Vec<u8> = (0..packet.samples).map(|n| id(packet.first + n as u64)).collect();
            let now = self.start + MS * u32::try_from(packet.arrives_ms).unwrap();
            self.jitter.push(packet.sequence, packet.timestamp, &bytes, now)
        }

        fn pull(&mut self, at_ms: u64) {
            let now = self.start + MS * u32::try_from(at_ms).unwrap();
            let heard = match self.jitter.pull(now) {
                Slot::Frame(bytes) => {
                    assert_eq!(bytes.len(), FRAME_SAMPLES);
                    let audio = bytes.iter().filter(|byte| **byte != SILENCE);
                    self.samples.extend(audio.clone());
                    Heard::Frame(*audio.clone().next().unwrap())
                }
                Slot::Lost => Heard::Lost,
                Slot::Silence => Heard::Silence,
                Slot::Empty => Heard::Empty,
            };
            self.heard.push(heard);
            self.deepest_ms = self.deepest_ms.max(self.jitter.depth_ms());
        }

        /// Delivers packets by arrival and ticks every 20 ms (7 ms off) until `until_ms`.
        fn play(&mut self, mut packets: Vec<Sent>, until_ms: u64) {
            packets.sort_by_key(|packet| packet.arrives_ms);
            let mut packets = packets.into_iter().peekable();
            for tick in 0..until_ms / 20 {
                let at_ms = tick * 20 + 7;
                while let Some(packet) = packets.next_if(|packet| packet.arrives_ms <= at_ms) {
                    self.push(packet);
                }
                self.pull(at_ms);
            }
        }

        fn count(&self, what: Heard) -> usize {
            self.heard.iter().filter(|heard| **heard == what).count()
        }

        fn frames(&self) -> Vec<u8> {
            let frame = |heard: &Heard| match heard {
                Heard::Frame(id) => Some(*id),
                _ => None,
            };
            self.heard.iter().filter_map(frame).collect()
        }
    }

    /// Frame numbers are counted modulo this, which leaves the silence byte out.
    const NUMBERS: u8 = 250;
    const SILENCE: u8 = 0xFF;

    /// The byte of a sample: the number of its frame.
    fn id(sample: u64) -> u8 {
        u8::try_from(sample / 160 % u64::from(NUMBERS)).unwrap()
    }

    /// How many frames `b` is after `a`.
    fn step(a: u8, b: u8) -> u8 {
        let ahead = u16::from(b) + u16::from(NUMBERS) - u16::from(a);
        u8::try_from(ahead % u16::from(NUMBERS)).unwrap()
    }

    /// A perfect sender of `count` packets of `ptime_ms`.
    #[expect(clippy::cast_possible_truncation, reason = "RTP counts modulo 2^16 and 2^32")]
    fn stream(count: u64, ptime_ms: u64, first: (u16, u32)) -> Vec<Sent> {
        (0..count)
            .map(|n| Sent {
                arrives_ms: n * ptime_ms,
                sequence: first.0.wrapping_add(n as u16),
                timestamp: first.1.wrapping_add((n * ptime_ms * 8) as u32),
                samples: (ptime_ms * 8) as usize,
                first: n * ptime_ms * 8,
            })
            .collect()
    }

    /// Samples in order, each at most once.
    #[track_caller]
    fn assert_in_order(run: &Run) {
        let played = run.samples.chunk_by(|a, b| a == b);
        let mut before = None;
        for same in played {
            assert!(same.len() <= 160, "frame {} was played twice", same[0]);
            let number = same[0];
            if let Some(before) = before.replace(number) {
                assert!((1..125).contains(&step(before, number)), "{number} after {before}");
            }
        }
    }

    #[test]
    fn a_perfect_stream_is_played_whole_after_a_short_wait() {
        let mut run = Run::new();
        run.play(stream(500, 20, (1, 0)), 10_000);
        let frames = run.frames();
        assert_in_order(&run);
        assert!(frames.len() >= 496, "{}", frames.len());
        assert_eq!(run.count(Heard::Lost), 0);
        let counters = run.jitter.counters();
        assert_eq!((counters.starved, counters.late, counters.duplicates), (0, 0, 0));
        assert!(run.deepest_ms <= 60, "{} ms", run.deepest_ms);
    }

    #[test]
    fn packets_of_every_length_come_out_as_twenty_milliseconds() {
        for ptime_ms in [10, 20, 30, 40, 60] {
            let mut run = Run::new();
            run.play(stream(9_000 / ptime_ms, ptime_ms, (1, 99)), 9_000);
            let frames = run.frames();
            assert_in_order(&run);
            assert!(frames.len() >= 440, "{ptime_ms} ms: {} frames", frames.len());
            assert_eq!(run.count(Heard::Lost), 0, "{ptime_ms} ms");
            assert!(run.jitter.counters().starved <= 4, "{ptime_ms} ms");
        }
    }

    #[test]
    fn sequence_and_timestamp_wrap_unnoticed() {
        let mut run = Run::new();
        run.play(stream(300, 20, (65_400, u32::MAX - 20_000)), 6_000);
        let frames = run.frames();
        assert_in_order(&run);
        assert!(frames.len() >= 296);
        assert_eq!((run.jitter.counters().restarts, run.count(Heard::Lost)), (0, 0));
    }

    #[test]
    fn swapped_and_doubled_packets_are_put_right() {
        let mut packets = stream(400, 20, (1, 0));
        for pair in packets.chunks_mut(8) {
            let late = pair[3].arrives_ms + 22;
            pair[3].arrives_ms = late;
        }
        let copies: Vec<_> = packets.iter().step_by(5).copied().collect();
        let doubled = copies.len() as u64;
        packets.extend(copies);
        let mut run = Run::new();
        run.play(packets, 8_000);
        assert_in_order(&run);
        assert!(run.frames().len() >= 394, "{}", run.frames().len());
        assert_eq!(run.jitter.counters().duplicates, doubled);
    }

    #[test]
    fn loss_is_told_as_loss_and_time_goes_on() {
        let packets = stream(500, 20, (1, 0)).into_iter().enumerate();
        let packets: Vec<_> = packets.filter(|(n, _)| n % 10 != 5).map(|(_, p)| p).collect();
        let mut run = Run::new();
        run.play(packets, 10_000);
        assert_in_order(&run);
        assert!((48..=50).contains(&run.count(Heard::Lost)), "{}", run.count(Heard::Lost));
    }

    #[test]
    fn silence_suppression_is_no_loss() {
        // Talk 1 s, pause 2 s, with timestamps that go on and sequence numbers that do not jump.
        let mut packets = Vec::new();
        for spurt in 0..4_u64 {
            for mut packet in stream(50, 20, (1 + 50 * u16::try_from(spurt).unwrap(), 0)) {
                packet.arrives_ms += spurt * 3_000;
                packet.timestamp += u32::try_from(spurt).unwrap() * 24_000;
                packet.first += spurt * 50 * 160;
                packets.push(packet);
            }
        }
        let mut run = Run::new();
        run.play(packets, 12_000);
        assert_eq!(run.frames().len(), 200, "not a frame is missing");
        assert_in_order(&run);
        assert_eq!(run.count(Heard::Lost), 0);
    }

    #[test]
    fn a_short_gap_with_comfort_noise_is_silence() {
        let mut run = Run::new();
        let packets = stream(60, 20, (1, 0));
        for (n, packet) in packets.into_iter().enumerate() {
            match n {
                30 => run.jitter.skip(packet.sequence),
                31 => {}
                _ => {
                    let sequence = packet.sequence - u16::from(n > 31);
                    run.push(Sent { sequence, ..packet });
                }
            }
            if n == 31 || n == 30 {
                // Nothing is pulled meanwhile, so that the gap is inside the buffer.
                continue;
            }
            run.pull(packet.arrives_ms + 7);
        }
        assert_eq!(run.count(Heard::Lost), 0, "{:?}", run.heard);
        assert_eq!(run.count(Heard::Silence), 2);
    }

    #[test]
    fn a_sender_that_begins_anew_is_heard_again_at_once() {
        for (sequence, timestamp) in [(40_000, 3_000_000_000), (40_000, 5), (101, 3_000_000_000)] {
            let mut run = Run::new();
            let mut packets = stream(100, 20, (1, 1_000_000));
            for mut packet in stream(100, 20, (sequence, timestamp)) {
                packet.arrives_ms += 2_000;
                packet.first += 100 * 160;
                packets.push(packet);
            }
            run.play(packets, 4_000);
            assert_in_order(&run);
            let after = run.heard[105..].iter().filter(|heard| matches!(heard, Heard::Frame(_)));
            assert!(after.count() >= 90, "{sequence} {timestamp}: {:?}", &run.heard[95..115]);
        }
    }

    #[test]
    fn one_odd_packet_changes_nothing() {
        let mut packets = stream(200, 20, (1, 0));
        let odd =
            Sent { arrives_ms: 1_001, sequence: 30_000, timestamp: 9, samples: 160, first: 0 };
        packets.push(odd);
        let mut run = Run::new();
        run.play(packets, 4_000);
        assert_in_order(&run);
        assert_eq!((run.count(Heard::Lost), run.jitter.counters().restarts), (0, 0));
        assert_eq!(run.jitter.counters().refused, 1);
    }

    #[test]
    fn a_reset_forgets_the_stream() {
        let mut run = Run::new();
        run.play(stream(50, 20, (1, 0)), 1_000);
        run.jitter.reset();
        assert_eq!(run.jitter.depth_ms(), 0);
        run.pull(1_007);
        assert_eq!(run.heard.last(), Some(&Heard::Empty));
    }

    #[test]
    fn a_burst_after_a_pause_leaves_no_lasting_delay() {
        let mut packets = stream(400, 20, (1, 0));
        for packet in &mut packets[100..140] {
            packet.arrives_ms = 2_800;
        }
        let mut run = Run::new();
        run.play(packets, 8_000);
        assert_in_order(&run);
        assert!(run.deepest_ms <= 220, "{} ms", run.deepest_ms);
        assert!(run.frames().len() >= 355, "{}", run.frames().len());
    }

    #[test]
    fn the_target_follows_the_delay_variation_up_and_down() {
        let mut packets = stream(4_000, 20, (1, 0));
        for (n, packet) in packets.iter_mut().enumerate().take(1_000) {
            packet.arrives_ms += (n as u64 * 37) % 90;
        }
        let mut run = Run::new();
        let calm = packets.split_off(1_000);
        run.play(packets, 20_000);
        let rough_ms = run.jitter.target_ms();
        assert!((80..=130).contains(&rough_ms), "{rough_ms} ms");
        assert!(run.jitter.counters().late + run.jitter.counters().starved < 40);
        for packet in calm {
            run.push(packet);
            run.pull(packet.arrives_ms + 7);
        }
        assert!(run.jitter.target_ms() <= 40, "{} ms", run.jitter.target_ms());
        assert!(run.jitter.depth_ms() <= 60, "{} ms", run.jitter.depth_ms());
        assert_in_order(&run);
    }

    #[test]
    fn a_sender_whose_timestamps_stand_still_in_pauses_costs_no_delay_for_long() {
        let mut run = Run::new();
        let mut packets = stream(600, 20, (1, 0));
        for packet in &mut packets[100..] {
            packet.arrives_ms += 700;
        }
        run.play(packets, 12_700);
        assert_in_order(&run);
        assert!(run.frames().len() >= 595, "{}", run.frames().len());
        assert!(run.jitter.target_ms() <= 40, "{} ms", run.jitter.target_ms());
        assert!(run.deepest_ms <= 60, "{} ms", run.deepest_ms);
    }

    #[test]
    fn clock_drift_is_absorbed_frame_by_frame() {
        for ppm in [-300_i64, 300] {
            let mut run = Run::new();
            let mut packets = stream(15_000, 20, (1, 0));
            for packet in &mut packets {
                let at = i64::try_from(packet.arrives_ms).unwrap();
                packet.arrives_ms = u64::try_from(at - at * ppm / 1_000_000).unwrap();
            }
            run.play(packets, 299_000);
            assert_in_order(&run);
            assert!(run.deepest_ms <= 100, "{ppm} ppm: {} ms", run.deepest_ms);
            let counters = run.jitter.counters();
            // Five minutes at 300 ppm are 90 ms: four or five frames.
            let corrections = counters.slipped + counters.stretched + counters.starved;
            assert!((3..=9).contains(&corrections), "{ppm} ppm: {counters:?}");
            assert!(run.frames().len() > 14_930, "{ppm} ppm: {}", run.frames().len());
        }
    }

    #[test]
    fn lengths_out_of_reason_are_refused() {
        let mut jitter = Jitter::new(Options::default());
        let now = crate::clock::now();
        assert_eq!(jitter.push(1, 0, &[], now), Pushed::Refused);
        assert_eq!(jitter.push(1, 0, &[0; 1_601], now), Pushed::Refused);
        assert_eq!(jitter.push(1, 0, &[0; 1_600], now), Pushed::Buffered);
    }

    /// What the network does to one packet.
    #[derive(Clone, Copy, Debug)]
    struct Fate {
        lost: bool,
        copies: bool,
        delay_ms: u64,
    }

    fn fates(loss: u32, jitter_ms: u64) -> impl Strategy<Value = Vec<Fate>> {
        let fate =
            (0..100_u32, 0..100_u32, 0..=jitter_ms).prop_map(move |(lost, copies, delay_ms)| {
                Fate { lost: lost < loss, copies: copies < 5, delay_ms }
            });
        proptest::collection::vec(fate, 200..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_frame_is_played_twice_and_the_delay_is_bounded(
            fates in (0..30_u32, 0..150_u64).prop_flat_map(|(loss, jitter_ms)| fates(loss, jitter_ms)),
            ptime_ms in proptest::sample::select(vec![20_u64, 40, 60]),
            first in any::<(u16, u32)>(),
        ) {
            let mut packets = Vec::new();
            let count = fates.len() as u64;
            for (packet, fate) in stream(count, ptime_ms, first).into_iter().zip(&fates) {
                let arrives_ms = packet.arrives_ms + fate.delay_ms;
                if !fate.lost {
                    packets.push(Sent { arrives_ms, ..packet });
                }
                if fate.copies {
                    packets.push(Sent { arrives_ms: arrives_ms + 31, ..packet });
                }
            }
            let mut run = Run::new();
            run.play(packets, count * ptime_ms + 1_000);
            assert_in_order(&run);
            prop_assert!(u64::from(run.deepest_ms) <= 200 + ptime_ms, "{} ms", run.deepest_ms);
            // Every frame within bounds of its own time: buffer, packet, network and one tick.
            let bound_ms = 200 + 2 * ptime_ms + 150 + 20;
            let mut number = 0_u64;
            for (tick, heard) in run.heard.iter().enumerate() {
                let Heard::Frame(frame) = heard else { continue };
                number += u64::from(step(id(number * 160), *frame));
                let delay_ms = (tick as u64 * 20 + 7).saturating_sub(number * 20);
                prop_assert!(delay_ms <= bound_ms, "frame {number} after {delay_ms} ms");
            }
            prop_assert_eq!(run.jitter.counters().restarts, 0);
        }

        #[test]
        fn any_packets_in_any_order_are_survived(
            packets in proptest::collection::vec((any::<u16>(), any::<u32>(), 0..2_000_usize, 0..60_u64), 0..200),
        ) {
            let mut run = Run::new();
            let mut at_ms = 0;
            for (sequence, timestamp, samples, wait_ms) in packets {
                at_ms += wait_ms;
                run.push(Sent { arrives_ms: at_ms, sequence, timestamp, samples, first: 0 });
                run.jitter.skip(sequence ^ 0x5555);
                run.pull(at_ms);
                prop_assert!(run.deepest_ms <= 400);
            }
        }
    }
}
