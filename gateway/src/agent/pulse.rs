//! Whether the agent lives, and how much it may say: the two watches a pump keeps over its link.
//!
//! ```text
//!              heard ──────── interval ──────► ping ──────► … ──── patience ────► Silent
//!  batch not taken ─────────── stall ────────────────────────────────────────────► Stalled
//! ```
//!
//! Pure: `now` is handed in, and nothing is sent from here but into the [`Uplink`].

use std::time::Duration;

use tokio::time::Instant;

use super::link::{LinkError, LinkSettings};
use super::uplink::Uplink;

/// Whether the agent lives: reads what it is sent, and gives a sign when asked.
#[derive(Debug)]
pub(crate) struct Pulse {
    stall: Duration,
    /// Interval and timeout of the heartbeat, unless it is switched off.
    heartbeat: Option<(Duration, Duration)>,
    heard: Instant,
    asked: Instant,
    blocked: Option<Instant>,
}

impl Pulse {
    pub(crate) fn new(settings: &LinkSettings, now: Instant) -> Pulse {
        let interval = Duration::from_millis(settings.heartbeat_interval_ms);
        let patience = Duration::from_millis(settings.heartbeat_timeout_ms);
        Pulse {
            stall: Duration::from_millis(settings.stall_timeout_ms),
            heartbeat: (!interval.is_zero()).then_some((interval, patience)),
            heard: now,
            asked: now,
            blocked: None,
        }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(crate) fn blocked(&mut self, now: Instant) {
        self.blocked.get_or_insert(now);
    }

    pub(crate) fn unblocked(&mut self) {
        self.blocked = None;
    }

    /// Asks for a sign of life when one is due.
    pub(crate) fn check(&mut self, now: Instant, uplink: &mut Uplink) -> Result<(), LinkError> {
        if self.blocked.is_some_and(|since| now >= since + self.stall) {
            return Err(LinkError::Stalled);
        }
        let Some((interval, patience)) = self.heartbeat else { return Ok(()) };
        if now >= self.heard + patience {
            return Err(LinkError::Silent);
        }
        if now >= self.heard.max(self.asked) + interval {
            self.asked = now;
            uplink.push_ping();
        }
        Ok(())
    }

    pub(crate) fn deadline(&self, now: Instant) -> Instant {
        let stalled = self.blocked.map(|since| since + self.stall);
        let silent = self.heartbeat.map(|(interval, patience)| {
            (self.heard + patience).min(self.heard.max(self.asked) + interval)
        });
        [stalled, silent].into_iter().flatten().min().unwrap_or(now + IDLE)
    }
}

/// How much an agent may say at a time: a token bucket over the octets of its messages, so that one that
/// floods costs a bounded share of a core. Only reading pauses; the sender is held back by TCP.
#[derive(Debug)]
pub(crate) struct Intake {
    octets: usize,
    filled: Instant,
}

impl Intake {
    pub(crate) fn new(now: Instant) -> Intake {
        Intake { octets: BURST_OCTETS, filled: now }
    }

    pub(crate) fn refill(&mut self, now: Instant) {
        let passed_ms = now.duration_since(self.filled).as_millis();
        let passed_ms = usize::try_from(passed_ms).unwrap_or(usize::MAX);
        if passed_ms > 0 {
            self.filled = now;
            let earned = passed_ms.saturating_mul(INTAKE_OCTETS_PER_MS);
            self.octets = self.octets.saturating_add(earned).min(BURST_OCTETS);
        }
    }

    pub(crate) fn spend(&mut self, octets: usize) {
        self.octets = self.octets.saturating_sub(octets.max(LEAST_MESSAGE_OCTETS));
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.octets == 0
    }
}

/// Deadline of a call without deadlines.
const IDLE: Duration = Duration::from_secs(3600);

/// Ten minutes of audio in base64 may come as fast as the network carries it.
const BURST_OCTETS: usize = 8 * 1024 * 1024;

/// After that, about a hundred times as fast as it can be heard.
const INTAKE_OCTETS_PER_MS: usize = 1024;

/// What handling a message costs even if it is empty, in octets of audio that cost the same.
const LEAST_MESSAGE_OCTETS: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::uplink::Item;
    use super::*;

    const SETTINGS: LinkSettings = LinkSettings {
        connect_timeout_ms: 0,
        stall_timeout_ms: 500,
        heartbeat_interval_ms: 1000,
        heartbeat_timeout_ms: 3000,
        close_timeout_ms: 0,
        tail_timeout_ms: 0,
        playout_limit_ms: 0,
        latency_limit_ms: 0,
        allow_plain_ws: false,
        allow_private_addresses: false,
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_silent_link_is_asked_every_interval_and_given_up_after_its_patience() {
        let start = Instant::now();
        let mut pulse = Pulse::new(&SETTINGS, start);
        let mut uplink = Uplink::new(200);
        let mut asked = Vec::new();
        let mut now = start;
        let end = loop {
            now = pulse.deadline(now);
            if let Err(error) = pulse.check(now, &mut uplink) {
                break error;
            }
            assert_eq!(uplink.pop(), Some(Item::Ping));
            asked.push(now - start);
        };
        assert_eq!(asked, [ms(1000), ms(2000)]);
        assert_eq!((end, now - start), (LinkError::Silent, ms(3000)));
    }

    #[test]
    fn a_link_that_is_heard_is_never_asked() {
        let start = Instant::now();
        let mut pulse = Pulse::new(&SETTINGS, start);
        let mut uplink = Uplink::new(200);
        for at in 1..100 {
            pulse.heard(start + ms(at * 900));
            assert_eq!(pulse.check(start + ms(at * 900 + 899), &mut uplink), Ok(()));
        }
        assert_eq!(uplink.len(), 0);
    }

    #[test]
    fn a_batch_that_is_not_taken_in_time_is_a_stall_even_if_the_agent_speaks() {
        let start = Instant::now();
        let mut pulse = Pulse::new(&SETTINGS, start);
        let mut uplink = Uplink::new(200);
        pulse.blocked(start);
        pulse.blocked(start + ms(400));
        pulse.heard(start + ms(499));
        assert_eq!(pulse.check(start + ms(499), &mut uplink), Ok(()));
        assert_eq!(pulse.deadline(start + ms(499)), start + ms(500));
        assert_eq!(pulse.check(start + ms(500), &mut uplink), Err(LinkError::Stalled));
        pulse.unblocked();
        assert_eq!(pulse.check(start + ms(500), &mut uplink), Ok(()));
    }

    #[test]
    fn without_a_heartbeat_nothing_is_asked_or_given_up() {
        let start = Instant::now();
        let mut pulse = Pulse::new(&LinkSettings { heartbeat_interval_ms: 0, ..SETTINGS }, start);
        let mut uplink = Uplink::new(200);
        assert_eq!(pulse.check(start + IDLE, &mut uplink), Ok(()));
        assert_eq!(uplink.len(), 0);
    }

    #[test]
    fn ten_minutes_may_come_at_once_and_then_a_hundred_times_real_time() {
        let start = Instant::now();
        let mut intake = Intake::new(start);
        intake.spend(600 * 8000 * 4 / 3);
        assert!(!intake.is_spent());
        intake.spend(BURST_OCTETS);
        assert!(intake.is_spent());
        intake.refill(start);
        assert!(intake.is_spent());
        intake.refill(start + ms(20));
        assert!(!intake.is_spent());
        let per_second = INTAKE_OCTETS_PER_MS * 1000;
        assert!(per_second >= 90 * 8000 * 4 / 3, "{per_second}");
    }

    #[test]
    fn empty_messages_are_not_free() {
        let mut intake = Intake::new(Instant::now());
        for _ in 0..BURST_OCTETS / LEAST_MESSAGE_OCTETS {
            assert!(!intake.is_spent());
            intake.spend(0);
        }
        assert!(intake.is_spent());
    }
}
