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
    queue: [Option<Step>; QUEUE],
    first: usize,
    waiting: usize,
    state: Sending,
}

impl Sender {
    /// A sender on this RTP clock.
    #[must_use]
    pub fn new(clock_hz: u32) -> Self {
        Self { clock_hz, queue: [None; QUEUE], first: 0, waiting: 0, state: Sending::Idle }
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
        self.queue = [None; QUEUE];
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
