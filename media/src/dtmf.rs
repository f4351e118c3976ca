//! Keypad digits: telephone events in RTP (RFC 4733) both ways, and in INFO bodies.
//!
//! One event is a run of packets with one timestamp, a growing duration and, if the network
//! pleases, an end bit on the last three:
//!
//! ```text
//!  timestamp  t t t t t t t          the marker bit may be missing, the end packets may be lost,
//!  duration   1 2 3 4 5 5 5  × 160   packets may come twice or out of order
//!  end        · · · · E E E
//! ```
//!
//! Invariant: one key press is one [`Digit`]. The receiver knows an event by its timestamp and
//! code, never by marker or end bit; a press whose end is lost is closed by time.

use std::time::{Duration, Instant};

/// Bytes of one event in a payload (RFC 4733 §2.3).
pub const EVENT_BYTES: usize = 4;
/// Without a packet for this long an event is over: its end was lost.
const END_LOST_AFTER: Duration = Duration::from_millis(200);
/// Finished events remembered, against late copies of their packets.
const FINISHED: usize = 8;
/// Digits waiting to be polled. Four packets of events bring fewer.
const READY: usize = 8;
/// Events believed in one packet; honest senders put one, redundant ones a few.
const EVENTS_PER_PACKET: usize = 4;
/// A segment this long may go on in another one (RFC 4733 §2.5.1.3), in timestamp units.
const SEGMENT_FULL: u16 = 0xF000;
/// The codes of RFC 4733 §3.2 by number.
const KEYS: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

/// One key press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit {
    /// `0`–`9`, `*`, `#`, `A`–`D`.
    pub digit: char,
    /// How long the key was held, in milliseconds, as far as packets told.
    pub duration_ms: u32,
}

/// The event code of a key (RFC 4733 §3.2); letters in either case.
#[must_use]
pub fn event_code(digit: char) -> Option<u8> {
    let key = digit.to_ascii_uppercase();
    KEYS.iter().position(|&known| known == key).and_then(|code| u8::try_from(code).ok())
}

/// The key of an event code; `None` for hook flash, tones and the unassigned.
#[must_use]
pub fn key(event_code: u8) -> Option<char> {
    KEYS.get(usize::from(event_code)).copied()
}

/// One event of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    code: u8,
    end: bool,
    duration: u16,
}

impl Event {
    fn parse(bytes: [u8; EVENT_BYTES]) -> Self {
        let [code, flags, high, low] = bytes;
        Self { code, end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) }
    }

    fn print(self, volume: u8) -> [u8; EVENT_BYTES] {
        let [high, low] = self.duration.to_be_bytes();
        [self.code, u8::from(self.end) << 7 | volume & 0x3F, high, low]
    }
}

/// The event that is going on.
#[derive(Clone, Copy, Debug)]
struct Current {
    code: u8,
    timestamp: u32,
    /// Length of this segment so far, in timestamp units.
    duration: u16,
    /// Length of the segments before it.
    before: u32,
    last_packet: Instant,
}

/// Turns event packets of one stream into digits.
#[derive(Clone, Debug)]
pub struct Receiver {
    clock_hz: u32,
    current: Option<Current>,
    /// Timestamp and code of events that were told, newest first.
    finished: [Option<(u32, u8)>; FINISHED],
    ready: [Option<Digit>; READY],
}

impl Receiver {
    /// A receiver for events on this RTP clock (the audio codec's, RFC 4733 §2.1).
    #[must_use]
    pub fn new(clock_hz: u32) -> Self {
        Self {
            clock_hz: clock_hz.max(1),
            current: None,
            finished: [None; FINISHED],
            ready: [None; READY],
        }
    }

    /// Takes the payload of one event packet with its RTP timestamp. Returns a digit when one is
    /// complete; when a packet completes several, [`Receiver::poll`] has the others.
    pub fn push(&mut self, payload: &[u8], timestamp: u32, now: Instant) -> Option<Digit> {
        self.close_stale(now);
        let (events, _rest) = payload.as_chunks::<EVENT_BYTES>();
        let events = events.get(..events.len().min(EVENTS_PER_PACKET)).unwrap_or_default();
        let mut timestamp = timestamp;
        for (at, bytes) in events.iter().enumerate() {
            let event = Event::parse(*bytes);
            // All but the last of several events in one packet are over (RFC 4733 §2.3.1).
            let end = event.end || at + 1 < events.len();
            self.take(Event { end, ..event }, timestamp, now);
            timestamp = timestamp.wrapping_add(u32::from(event.duration));
        }
        self.next_ready()
    }

    /// Closes an event whose end was lost, and gives the next complete digit. To be called every
    /// tick until it returns `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Digit> {
        self.close_stale(now);
        self.next_ready()
    }

    /// A key is held down at the moment.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.current.is_some()
    }

    fn take(&mut self, event: Event, timestamp: u32, now: Instant) {
        let known = (timestamp, event.code);
        if key(event.code).is_none() || self.finished.contains(&Some(known)) {
            return;
        }
        match self.current {
            Some(current) if (current.timestamp, current.code) == known => {
                let duration = current.duration.max(event.duration);
                self.current = Some(Current { duration, last_packet: now, ..current });
            }
            Some(current) if current.continues_in(event, timestamp) => {
                self.remember(current.timestamp, current.code);
                self.current = Some(Current {
                    timestamp,
                    duration: event.duration,
                    before: current.before.saturating_add(u32::from(current.duration)),
                    last_packet: now,
                    ..current
                });
            }
            Some(current) if is_older(timestamp, current.timestamp) => return,
            _ => {
                self.close();
                self.current = Some(Current {
                    code: event.code,
                    timestamp,
                    duration: event.duration,
                    before: 0,
                    last_packet: now,
                });
            }
        }
        if event.end {
            self.close();
        }
    }

    fn close_stale(&mut self, now: Instant) {
        let stale = self.current.is_some_and(|current| {
            now.saturating_duration_since(current.last_packet) >= END_LOST_AFTER
        });
        if stale {
            self.close();
        }
    }

    /// Tells the current event, if there is one.
    fn close(&mut self) {
        let Some(current) = self.current.take() else { return };
        self.remember(current.timestamp, current.code);
        let Some(digit) = key(current.code) else { return };
        let units = u64::from(current.before) + u64::from(current.duration);
        let duration_ms = units * 1_000 / u64::from(self.clock_hz);
        let duration_ms = u32::try_from(duration_ms).unwrap_or(u32::MAX);
        if let Some(place) = self.ready.iter_mut().find(|place| place.is_none()) {
            *place = Some(Digit { digit, duration_ms });
        }
    }

    fn remember(&mut self, timestamp: u32, code: u8) {
        self.finished.rotate_right(1);
        if let Some(newest) = self.finished.first_mut() {
            *newest = Some((timestamp, code));
        }
    }

    fn next_ready(&mut self) -> Option<Digit> {
        let digit = self.ready.first_mut()?.take();
        self.ready.rotate_left(1);
        digit
    }
}

impl Current {
    /// The event is the next segment of this one: same key, no end seen, and it begins where
    /// this one became full.
    fn continues_in(&self, event: Event, timestamp: u32) -> bool {
        let elapsed = timestamp.wrapping_sub(self.timestamp);
        event.code == self.code
            && self.duration >= SEGMENT_FULL
            && (u32::from(SEGMENT_FULL)..=0x1_0000).contains(&elapsed)
    }
}

/// `a` lies before `b` on the RTP clock.
fn is_older(a: u32, b: u32) -> bool {
    let behind = b.wrapping_sub(a);
    behind != 0 && behind < 1 << 31
}

/// Length of a digit when the caller does not say, in milliseconds.
pub const DURATION_DEFAULT_MS: u32 = 100;
/// Shortest digit sent: what equipment must detect (ITU-T Q.24), in milliseconds.
pub const DURATION_MIN_MS: u32 = 40;
/// Longest digit sent, in milliseconds: one segment at 8 kHz.
pub const DURATION_MAX_MS: u32 = 8_000;
/// Least silence between two digits, in milliseconds; rounded up to whole ticks.
pub const GAP_MIN_MS: u32 = 50;
/// What one `w` in a dial string waits, in milliseconds.
pub const PAUSE_MS: u32 = 500;
/// Digits and pauses that may wait to be sent.
pub const QUEUE: usize = 64;
/// Length of one tick, in milliseconds.
const TICK_MS: u32 = 20;
/// End packets of each event (RFC 4733 §2.5.1.4).
const END_PACKETS: u8 = 3;
/// Power of the tone in −dBm0, as gateways send it.
const VOLUME: u8 = 10;

/// The queue of digits to send is full, or the string holds what no keypad has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// More than [`QUEUE`] digits would wait.
    Full,
    /// Not a digit, `*`, `#`, `A`–`D`, `w`, or a separator.
    NotADigit,
}

impl std::fmt::Display for Unsendable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "too many digits waiting",
            Self::NotADigit => "not a keypad digit",
        })
    }
}

impl std::error::Error for Unsendable {}

/// One event packet to send in this tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The payload.
    pub payload: [u8; EVENT_BYTES],
    /// The RTP timestamp: that of the event's start, in all its packets.
    pub timestamp: u32,
    /// The marker bit: on the first packet of an event.
    pub marker: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tone { code: u8, duration_ms: u32 },
    Pause { duration_ms: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Idle,
    Tone { code: u8, duration_ms: u32, sent_ms: u32, timestamp: u32 },
    End { code: u8, duration_ms: u32, timestamp: u32, left: u8 },
    Quiet { left_ms: u32 },
}

/// Sends digits as telephone events, one packet per 20 ms tick.
///
/// ```text
///  Idle ──▶ Tone ──duration reached──▶ End (2 more copies) ──▶ Quiet (gap) ──▶ Idle
/// ```
#[derive(Clone, Debug)]
pub struct Sender {
    clock_hz: u32,
    /// Elsewhere: most calls never dial.
    queue: Box<[Option<Step>; QUEUE]>,
    first: usize,
    waiting: usize,
    state: Sending,
}

impl Sender {
    /// A sender on this RTP clock.
    #[must_use]
    pub fn new(clock_hz: u32) -> Self {
        Self {
            clock_hz,
            queue: Box::new([None; QUEUE]),
            first: 0,
            waiting: 0,
            state: Sending::Idle,
        }
    }

    /// Queues one digit, or `w` for a pause of [`PAUSE_MS`]. The duration is brought between
    /// [`DURATION_MIN_MS`] and [`DURATION_MAX_MS`].
    ///
    /// # Errors
    /// [`Unsendable::NotADigit`], or [`Unsendable::Full`] when [`QUEUE`] steps wait already.
    pub fn start(&mut self, digit: char, duration_ms: u32) -> Result<(), Unsendable> {
        let step = step_of(digit, duration_ms)?;
        self.enqueue(step)
    }

    /// Queues a dial string: digits, `w` pauses, and the separators people write (`-`, `.`,
    /// space, brackets), which are skipped. All or nothing.
    ///
    /// # Errors
    /// As [`Sender::start`]; nothing is queued then.
    pub fn start_string(&mut self, digits: &str, duration_ms: u32) -> Result<(), Unsendable> {
        let steps = || digits.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')'));
        let mut count = 0;
        for digit in steps() {
            step_of(digit, duration_ms)?;
            count += 1;
        }
        if count > QUEUE - self.waiting {
            return Err(Unsendable::Full);
        }
        steps().try_for_each(|digit| self.start(digit, duration_ms))
    }

    /// What to send in this tick instead of audio. `timestamp` is that of the audio packet that
    /// would go now. `None`: nothing to send, audio may go.
    pub fn next(&mut self, timestamp: u32) -> Option<Outgoing> {
        loop {
            match self.state {
                Sending::Idle => match self.dequeue()? {
                    Step::Tone { code, duration_ms } => {
                        self.state = Sending::Tone { code, duration_ms, sent_ms: 0, timestamp };
                    }
                    Step::Pause { duration_ms } => {
                        self.state = Sending::Quiet { left_ms: duration_ms };
                    }
                },
                Sending::Tone { code, duration_ms, sent_ms, timestamp } => {
                    return Some(self.tone(code, duration_ms, sent_ms, timestamp));
                }
                Sending::End { code, duration_ms, timestamp, left } => {
                    self.state = match left {
                        0 | 1 => Sending::Quiet { left_ms: GAP_MIN_MS },
                        _ => Sending::End { code, duration_ms, timestamp, left: left - 1 },
                    };
                    let event = Event { code, end: true, duration: self.units(duration_ms) };
                    let payload = event.print(VOLUME);
                    return Some(Outgoing { payload, timestamp, marker: false });
                }
                Sending::Quiet { left_ms: 0 } => self.state = Sending::Idle,
                Sending::Quiet { left_ms } => {
                    self.state = Sending::Quiet { left_ms: left_ms.saturating_sub(TICK_MS) };
                    return None;
                }
            }
        }
    }

    /// Digits are being sent or wait.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.waiting > 0 || self.state != Sending::Idle
    }

    /// Forgets the digits that wait. One that is being sent is finished properly.
    pub fn clear(&mut self) {
        self.waiting = 0;
        self.first = 0;
        *self.queue = [None; QUEUE];
        if let Sending::Tone { code, duration_ms, sent_ms, timestamp } = self.state {
            let duration_ms = duration_ms.min(sent_ms.max(DURATION_MIN_MS));
            self.state = Sending::Tone { code, duration_ms, sent_ms, timestamp };
        }
    }

    fn tone(&mut self, code: u8, duration_ms: u32, sent_ms: u32, timestamp: u32) -> Outgoing {
        let now_ms = sent_ms.saturating_add(TICK_MS).min(duration_ms);
        let end = now_ms >= duration_ms;
        self.state = if end {
            Sending::End { code, duration_ms, timestamp, left: END_PACKETS - 1 }
        } else {
            Sending::Tone { code, duration_ms, sent_ms: now_ms, timestamp }
        };
        let event = Event { code, end, duration: self.units(now_ms) };
        Outgoing { payload: event.print(VOLUME), timestamp, marker: sent_ms == 0 }
    }

    fn units(&self, ms: u32) -> u16 {
        let units = u64::from(ms) * u64::from(self.clock_hz) / 1_000;
        u16::try_from(units).unwrap_or(u16::MAX)
    }

    fn enqueue(&mut self, step: Step) -> Result<(), Unsendable> {
        if self.waiting == QUEUE {
            return Err(Unsendable::Full);
        }
        let place = self.queue.get_mut((self.first + self.waiting) % QUEUE);
        *place.ok_or(Unsendable::Full)? = Some(step);
        self.waiting += 1;
        Ok(())
    }

    fn dequeue(&mut self) -> Option<Step> {
        if self.waiting == 0 {
            return None;
        }
        let step = self.queue.get_mut(self.first)?.take();
        self.first = (self.first + 1) % QUEUE;
        self.waiting -= 1;
        step
    }
}

fn step_of(digit: char, duration_ms: u32) -> Result<Step, Unsendable> {
    if matches!(digit, 'w' | 'W' | ',') {
        return Ok(Step::Pause { duration_ms: PAUSE_MS });
    }
    let code = event_code(digit).ok_or(Unsendable::NotADigit)?;
    let duration_ms = duration_ms.clamp(DURATION_MIN_MS, DURATION_MAX_MS);
    Ok(Step::Tone { code, duration_ms })
}

/// Reads a digit from an INFO body: `application/dtmf-relay` (`Signal=5` and `Duration=160`) or
/// `application/dtmf` (the digit alone, by some with the `Signal=` of the other form). Codes
/// above nine written as numbers are those of RFC 4733. `None` for anything else.
#[must_use]
pub fn parse_info(content_type: &str, body: &[u8]) -> Option<Digit> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let relay = media_type.eq_ignore_ascii_case("application/dtmf-relay");
    if !relay && !media_type.eq_ignore_ascii_case("application/dtmf") {
        return None;
    }
    let text = std::str::from_utf8(body.get(..body.len().min(512))?).ok()?;
    let mut signal = None;
    let mut duration_ms = None;
    for line in text.lines() {
        match line.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("signal") => {
                signal = signal.or_else(|| info_key(value.trim()));
            }
            Some((name, value)) if name.trim().eq_ignore_ascii_case("duration") => {
                duration_ms = value.trim().parse::<u32>().ok();
            }
            None if !relay => signal = signal.or_else(|| info_key(line.trim())),
            _ => {}
        }
    }
    let duration_ms = duration_ms.unwrap_or(DURATION_DEFAULT_MS).min(60_000);
    signal.map(|digit| Digit { digit, duration_ms })
}

fn info_key(text: &str) -> Option<char> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(digit), None) => key(event_code(digit)?),
        _ => key(text.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(code: u8, end: bool, duration: u16) -> [u8; EVENT_BYTES] {
        Event { code, end, duration }.print(VOLUME)
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// The packets of one press of 100 ms at 8 kHz.
    fn press(code: u8) -> Vec<[u8; EVENT_BYTES]> {
        let growing = (1..5).map(|n| event(code, false, 160 * n));
        growing.chain((0..3).map(|_| event(code, true, 800))).collect()
    }

    fn now() -> Instant {
        crate::clock::now()
    }

    #[test]
    fn a_press_is_one_digit_at_its_first_end() {
        let (start, mut receiver) = (now(), Receiver::new(8_000));
        let told: Vec<_> = press(5)
            .iter()
            .zip(0..)
            .filter_map(|(packet, n)| {
                receiver.push(packet, 1_000, at(start, n * 20)).map(|digit| (n, digit))
            })
            .collect();
        assert_eq!(told, [(4, Digit { digit: '5', duration_ms: 100 })]);
        assert_eq!(receiver.poll(at(start, 5_000)), None);
    }

    #[test]
    fn a_lost_end_is_closed_by_time_and_a_late_one_is_no_second_digit() {
        let (start, mut receiver) = (now(), Receiver::new(8_000));
        assert_eq!(receiver.push(&event(11, false, 160), 0, start), None);
        assert_eq!(receiver.push(&event(11, false, 320), 0, at(start, 20)), None);
        assert_eq!(receiver.poll(at(start, 219)), None);
        assert!(receiver.is_active());
        let digit = receiver.poll(at(start, 220));
        assert_eq!(digit, Some(Digit { digit: '#', duration_ms: 40 }));
        assert_eq!(receiver.push(&event(11, true, 800), 0, at(start, 230)), None);
        assert_eq!(receiver.poll(at(start, 1_000)), None);
    }

    #[test]
    fn the_same_key_pressed_twice_is_two_digits_even_without_ends_and_markers() {
        let (start, mut receiver) = (now(), Receiver::new(8_000));
        assert_eq!(receiver.push(&event(1, false, 160), 0, start), None);
        let first = receiver.push(&event(1, false, 160), 1_200, at(start, 150));
        assert_eq!(first.map(|digit| digit.digit), Some('1'));
        let second = receiver.push(&event(1, true, 320), 1_200, at(start, 170));
        assert_eq!(second.map(|digit| digit.digit), Some('1'));
    }

    #[test]
    fn only_an_end_packet_is_enough() {
        let mut receiver = Receiver::new(8_000);
        let digit = receiver.push(&event(10, true, 1_600), 77, now());
        assert_eq!(digit, Some(Digit { digit: '*', duration_ms: 200 }));
    }

    #[test]
    fn a_long_press_in_segments_is_one_digit_of_the_whole_length() {
        let (start, mut receiver) = (now(), Receiver::new(8_000));
        receiver.push(&event(2, false, 0xFFFF), 0, start);
        receiver.push(&event(2, false, 160), 0xFFFF, at(start, 20));
        assert_eq!(receiver.push(&event(2, false, 0xFFFF), 0, at(start, 30)), None, "straggler");
        let digit = receiver.push(&event(2, true, 801), 0xFFFF, at(start, 100));
        assert_eq!(digit, Some(Digit { digit: '2', duration_ms: (65_535 + 801) / 8 }));
        assert_eq!(receiver.poll(at(start, 900)), None);
    }

    #[test]
    fn several_events_in_one_packet_are_several_digits() {
        let (start, mut receiver) = (now(), Receiver::new(8_000));
        let mut packet = event(1, false, 400).to_vec();
        packet.extend_from_slice(&event(2, false, 400));
        packet.extend_from_slice(&event(3, true, 400));
        let mut digits = vec![receiver.push(&packet, 0, start)];
        digits.extend([receiver.poll(start), receiver.poll(start), receiver.poll(start)]);
        let digits: String = digits.into_iter().flatten().map(|digit| digit.digit).collect();
        assert_eq!(digits, "123");
    }

    #[test]
    fn durations_follow_the_clock() {
        let mut receiver = Receiver::new(48_000);
        let digit = receiver.push(&event(0, true, 4_800), 0, now());
        assert_eq!(digit.map(|digit| digit.duration_ms), Some(100));
    }

    #[test]
    fn flashes_tones_and_stumps_are_no_digits() {
        let mut receiver = Receiver::new(8_000);
        for payload in [&[][..], &[1], &[1, 0x80, 3], &event(16, true, 800), &event(255, true, 1)] {
            assert_eq!(receiver.push(payload, 9, now()), None);
        }
        assert!(!receiver.is_active());
    }

    /// Plays a sender to its end: `(tick, packet)`.
    fn play(sender: &mut Sender) -> Vec<(u32, Outgoing)> {
        let mut sent = Vec::new();
        for tick in 0..5_000 {
            if let Some(packet) = sender.next(tick * 160) {
                sent.push((tick, packet));
            }
            if !sender.is_active() {
                return sent;
            }
        }
        panic!("never ends");
    }

    #[test]
    fn a_sent_digit_has_marker_fixed_timestamp_growing_duration_and_three_ends() {
        let mut sender = Sender::new(8_000);
        sender.start('d', DURATION_DEFAULT_MS).unwrap();
        let sent = play(&mut sender);
        let markers: Vec<_> = sent.iter().map(|(_, packet)| packet.marker).collect();
        assert_eq!(markers, [true, false, false, false, false, false, false]);
        assert!(sent.iter().all(|(_, packet)| packet.timestamp == 0));
        let events: Vec<_> = sent.iter().map(|(_, packet)| Event::parse(packet.payload)).collect();
        let durations: Vec<_> = events.iter().map(|event| event.duration).collect();
        assert_eq!(durations, [160, 320, 480, 640, 800, 800, 800]);
        assert_eq!(events.iter().filter(|event| event.end).count(), 3);
        assert!(events.iter().all(|event| event.code == 15));
        assert_eq!(sent[0].1.payload[1], VOLUME);
    }

    #[test]
    fn digits_are_apart_and_pauses_pause() {
        let mut sender = Sender::new(8_000);
        sender.start_string("1w2 (3)", 100).unwrap();
        let sent = play(&mut sender);
        let starts: Vec<_> = sent.iter().filter(|(_, p)| p.marker).map(|(tick, _)| *tick).collect();
        // Five ticks of tone, two more end packets, three of gap; the pause is 25 ticks.
        assert_eq!(starts, [0, 10 + 25, 10 + 25 + 10]);
    }

    #[test]
    fn lengths_are_brought_into_range() {
        for (wanted, units) in [(0, 320), (1, 320), (50, 400), (u32::MAX, 64_000)] {
            let mut sender = Sender::new(8_000);
            sender.start('1', wanted).unwrap();
            let last = play(&mut sender).pop().unwrap().1;
            assert_eq!(Event::parse(last.payload).duration, units, "{wanted} ms");
        }
    }

    #[test]
    fn the_queue_is_bounded_and_strings_go_whole_or_not_at_all() {
        let mut sender = Sender::new(8_000);
        assert_eq!(sender.start('x', 100), Err(Unsendable::NotADigit));
        assert_eq!(sender.start_string("12e", 100), Err(Unsendable::NotADigit));
        assert_eq!(sender.start_string(&"1".repeat(65), 100), Err(Unsendable::Full));
        assert!(!sender.is_active());
        sender.start_string(&"1".repeat(64), 100).unwrap();
        assert_eq!(sender.start('2', 100), Err(Unsendable::Full));
        sender.clear();
        assert!(!sender.is_active());
    }

    #[test]
    fn clearing_finishes_the_digit_on_the_wire() {
        let mut sender = Sender::new(8_000);
        sender.start_string("19", 1_000).unwrap();
        let first: Vec<_> = (0..4).filter_map(|tick| sender.next(tick * 160)).collect();
        assert_eq!(first.len(), 4);
        sender.clear();
        let rest: Vec<_> =
            play(&mut sender).into_iter().map(|(_, p)| Event::parse(p.payload)).collect();
        assert_eq!(rest.len(), 3);
        assert!(rest.iter().all(|event| event.end && event.code == 1 && event.duration >= 640));
    }

    #[test]
    fn info_bodies_of_both_types_are_read() {
        let digit = |digit, duration_ms| Some(Digit { digit, duration_ms });
        let relay = "application/dtmf-relay";
        for (content_type, body, expected) in [
            (relay, "Signal=5\r\nDuration=160\r\n", digit('5', 160)),
            (relay, "Signal= *\nDuration= 250", digit('*', 250)),
            ("Application/DTMF-Relay; charset=x", "signal=#", digit('#', 100)),
            (relay, "Signal=11\r\nDuration=x\r\n", digit('#', 100)),
            (relay, "Signal=a", digit('A', 100)),
            (relay, "5", None),
            (relay, "Signal=16", None),
            (relay, "Signal=", None),
            ("application/dtmf", "5", digit('5', 100)),
            ("application/dtmf", " 10 \r\n", digit('*', 100)),
            ("application/dtmf", "Signal=7", digit('7', 100)),
            ("application/dtmf", "", None),
            ("application/sdp", "5", None),
            ("", "5", None),
        ] {
            assert_eq!(
                parse_info(content_type, body.as_bytes()),
                expected,
                "{content_type} {body}"
            );
        }
        assert_eq!(parse_info(relay, b"Signal=\xff"), None);
        let long = parse_info(relay, b"Signal=1\r\nDuration=4294967295");
        assert_eq!(long.map(|digit| digit.duration_ms), Some(60_000));
    }

    proptest! {
        /// What the sender sends, the receiver reads, whatever the network does to a fifth of it.
        #[test]
        fn every_digit_arrives_once_through_a_bad_network(
            keys in "[0-9A-D*#]{1,20}",
            length in 60_u32..400,
            fates in proptest::collection::vec(0_u8..10, 700),
        ) {
            let (start, mut sender) = (now(), Sender::new(8_000));
            let mut receiver = Receiver::new(8_000);
            sender.start_string(&keys, length).unwrap();
            let mut heard = String::new();
            let mut fates = fates.into_iter().cycle();
            let mut lost_run = 0;
            let mut held: Option<Outgoing> = None;
            for tick in 0_u32..2_000 {
                let time = at(start, u64::from(tick) * 20);
                let packet = sender.next(tick * 160);
                let mut arriving = vec![];
                match (packet, fates.next().unwrap()) {
                    // Never a whole event, nor so many that it looks over.
                    (Some(_), 0 | 1) if lost_run < 3 => lost_run += 1,
                    (Some(packet), 2) => arriving.extend([packet, packet]),
                    (Some(packet), 3) if held.is_none() => held = Some(packet),
                    (Some(packet), _) => {
                        lost_run = 0;
                        arriving.push(packet);
                        arriving.extend(held.take());
                    }
                    (None, _) => arriving.extend(held.take()),
                }
                for packet in arriving {
                    heard.extend(receiver.push(&packet.payload, packet.timestamp, time).map(|d| d.digit));
                }
                while let Some(digit) = receiver.poll(time) {
                    heard.push(digit.digit);
                }
            }
            prop_assert_eq!(heard, keys);
        }

        #[test]
        fn any_payload_is_survived(
            packets in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), any::<u32>()), 0..60)
        ) {
            let (start, mut receiver) = (now(), Receiver::new(8_000));
            for (n, (payload, timestamp)) in packets.iter().enumerate() {
                let time = at(start, n as u64 * 7);
                receiver.push(payload, *timestamp, time);
                receiver.poll(time);
            }
        }
    }
}
