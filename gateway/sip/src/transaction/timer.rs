//! The timers of RFC 3261 §17 and RFC 6026: their values, and the slots they are armed in.
//!
//! A transaction never runs two timers of one class at once, so three slots hold all thirteen
//! names. Arming a timer replaces whatever its slot held; the earliest slot is the transaction's
//! deadline.

use std::time::{Duration, Instant};

/// The three base values every other timer is computed from (RFC 3261 §17.1.1.1, table 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// Round-trip estimate: the first retransmission interval, in milliseconds.
    pub t1_ms: u32,
    /// Longest retransmission interval of non-INVITE requests and INVITE responses, milliseconds.
    pub t2_ms: u32,
    /// How long a message may stay in the network, in milliseconds.
    pub t4_ms: u32,
}

impl Timings {
    /// T1 as a duration.
    pub fn t1(self) -> Duration {
        Duration::from_millis(u64::from(self.t1_ms))
    }

    /// T2 as a duration.
    pub fn t2(self) -> Duration {
        Duration::from_millis(u64::from(self.t2_ms))
    }

    /// T4 as a duration.
    pub fn t4(self) -> Duration {
        Duration::from_millis(u64::from(self.t4_ms))
    }

    /// 64·T1: how long either side waits for the other before it gives up.
    pub fn timeout(self) -> Duration {
        self.t1() * 64
    }
}

impl Default for Timings {
    /// The values the RFC gives: 500 ms, 4 s, 5 s.
    fn default() -> Timings {
        Timings { t1_ms: 500, t2_ms: 4_000, t4_ms: 5_000 }
    }
}

/// A timer by the letter the RFC gives it.
///
/// | timer | runs in | value (unreliable / reliable) |
/// |---|---|---|
/// | A | INVITE client, repeats the INVITE | T1, doubled / off |
/// | B | INVITE client, gives up | 64·T1 |
/// | D | INVITE client, absorbs repeated 3xx–6xx | 64·T1 / 0 |
/// | E | non-INVITE client, repeats the request | T1, doubled up to T2 / off |
/// | F | non-INVITE client, gives up | 64·T1 |
/// | G | INVITE server, repeats a 3xx–6xx | T1, doubled up to T2 / off |
/// | H | INVITE server, waits for ACK | 64·T1 |
/// | I | INVITE server, absorbs repeated ACKs | T4 / 0 |
/// | J | non-INVITE server, absorbs repeated requests | 64·T1 / 0 |
/// | K | non-INVITE client, absorbs repeated responses | T4 / 0 |
/// | L | INVITE server, absorbs repeated INVITEs after a 2xx (RFC 6026) | 64·T1 |
/// | M | INVITE client, lets further 2xx through (RFC 6026) | 64·T1 |
///
/// Timer C belongs to proxies: an endpoint may ring for as long as its user wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    A,
    B,
    D,
    E,
    F,
    G,
    H,
    I,
    J,
    K,
    L,
    M,
}

/// The slot a timer lives in: one timer of each class can run at a time.
#[derive(Clone, Copy)]
enum Class {
    /// Repeats something: A, E, G.
    Repeat,
    /// Gives up on the peer: B, F, H.
    GiveUp,
    /// Lingers to absorb what is still in the network: D, I, J, K, L, M.
    Linger,
}

impl Timer {
    const fn class(self) -> Class {
        match self {
            Timer::A | Timer::E | Timer::G => Class::Repeat,
            Timer::B | Timer::F | Timer::H => Class::GiveUp,
            Timer::D | Timer::I | Timer::J | Timer::K | Timer::L | Timer::M => Class::Linger,
        }
    }
}

/// The armed timers of one transaction.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct TimerTable {
    slots: [Option<(Instant, Timer)>; 3],
}

impl TimerTable {
    /// Arms `timer`, replacing whatever its slot held.
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        if let Some(slot) = self.slots.get_mut(timer.class() as usize) {
            *slot = Some((at, timer));
        }
    }

    /// Stops every timer.
    pub(crate) fn clear(&mut self) {
        self.slots = [None; 3];
    }

    /// The earliest instant at which a timer fires.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|(at, _)| *at).min()
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let due = self.next().filter(|at| *at <= now)?;
        let slot = self.slots.iter_mut().find(|slot| slot.is_some_and(|(at, _)| at == due))?;
        slot.take().map(|(_, timer)| timer)
    }

    /// Every armed timer with the time left until it fires, in slot order. For tables and tests.
    #[cfg(test)]
    pub(crate) fn armed(&self, now: Instant) -> Vec<(Timer, Duration)> {
        let left = |(at, timer): (Instant, Timer)| (timer, at.saturating_duration_since(now));
        self.slots.iter().flatten().copied().map(left).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_due_timer_fires_first_and_once() {
        let now = crate::transaction::testing::epoch();
        let mut table = TimerTable::default();
        table.arm(Timer::B, now + Duration::from_secs(32));
        table.arm(Timer::A, now + Duration::from_millis(500));
        assert_eq!(table.next(), Some(now + Duration::from_millis(500)));
        assert_eq!(table.pop_due(now), None);
        assert_eq!(table.pop_due(now + Duration::from_secs(40)), Some(Timer::A));
        assert_eq!(table.pop_due(now + Duration::from_secs(40)), Some(Timer::B));
        assert_eq!(table.pop_due(now + Duration::from_secs(40)), None);
    }

    #[test]
    fn arming_a_timer_replaces_the_one_in_its_slot() {
        let now = crate::transaction::testing::epoch();
        let mut table = TimerTable::default();
        table.arm(Timer::D, now + Duration::from_secs(32));
        table.arm(Timer::M, now + Duration::from_secs(5));
        assert_eq!(table.armed(now), vec![(Timer::M, Duration::from_secs(5))]);
        table.clear();
        assert_eq!(table.next(), None);
    }
}
