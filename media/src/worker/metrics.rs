//! What the workers count, in atomics that anybody may read at any time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::schedule::Class;

/// Buckets of a [`Residence`] histogram.
pub const RESIDENCE_BUCKETS: usize = 24;

/// A histogram of durations with one bucket per power of two of microseconds.
///
/// Bucket `n` counts durations below 2ⁿ µs and not below 2ⁿ⁻¹ µs; bucket 0 those below 1 µs, the
/// last one everything longer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Residence {
    /// How many durations fell into each bucket.
    pub buckets: [u64; RESIDENCE_BUCKETS],
    /// Sum of all of them, in microseconds.
    pub sum_us: u64,
}

impl Residence {
    /// The upper bound of bucket `index`, in microseconds.
    #[must_use]
    pub fn upper_bound_us(index: usize) -> u64 {
        1 << index.min(RESIDENCE_BUCKETS - 1)
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// An upper bound of the given quantile (0.0 to 1.0), in microseconds; zero if nothing was counted.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a quantile of a histogram is an estimate; the product is within 0 and the count"
    )]
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        let rank = (self.count() as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64;
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank.max(1) {
                return Self::upper_bound_us(index);
            }
        }
        0
    }
}

/// Why datagrams and frames were not used, counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Drops {
    /// Came from a source the latch does not accept.
    pub stranger: u64,
    /// Failed SRTP authentication or decryption, or were replayed.
    pub unauthenticated: u64,
    /// Were not well-formed RTP or RTCP, or not RTP or RTCP at all.
    pub malformed: u64,
    /// Carried a payload type that was not negotiated.
    pub payload_type: u64,
    /// Exceeded the packets per second one leg may receive.
    pub over_budget: u64,
    /// Had waited too long in the kernel to be played.
    pub stale: u64,
    /// Arrived while the plan says that we do not receive.
    pub on_hold: u64,
    /// Could not cross to the other leg: it is on hold, dialling, or its peer's address unproven,
    /// or the packet came twice or too late.
    pub uncrossed: u64,
    /// Frames the agent did not pull in time.
    pub overrun: u64,
    /// Could not be sent: the system refused.
    pub unsent: u64,
}

impl Drops {
    /// The causes by name, for metric labels.
    #[must_use]
    pub fn by_cause(&self) -> [(&'static str, u64); 10] {
        [
            ("stranger", self.stranger),
            ("unauthenticated", self.unauthenticated),
            ("malformed", self.malformed),
            ("payload_type", self.payload_type),
            ("over_budget", self.over_budget),
            ("stale", self.stale),
            ("on_hold", self.on_hold),
            ("uncrossed", self.uncrossed),
            ("overrun", self.overrun),
            ("unsent", self.unsent),
        ]
    }

    /// What has come since these figures were `told`.
    pub(crate) const fn since(&self, told: &Self) -> Self {
        Self {
            stranger: self.stranger - told.stranger,
            unauthenticated: self.unauthenticated - told.unauthenticated,
            malformed: self.malformed - told.malformed,
            payload_type: self.payload_type - told.payload_type,
            over_budget: self.over_budget - told.over_budget,
            stale: self.stale - told.stale,
            on_hold: self.on_hold - told.on_hold,
            uncrossed: self.uncrossed - told.uncrossed,
            overrun: self.overrun - told.overrun,
            unsent: self.unsent - told.unsent,
        }
    }
}

/// One worker at one moment.
#[derive(Clone, Copy, Debug)]
pub struct WorkerMetrics {
    /// The scheduling class it runs in.
    pub class: Class,
    /// Sessions open.
    pub sessions: usize,
    /// Commands waiting in its mailbox.
    pub mailbox: usize,
    /// Ticks done.
    pub ticks: u64,
    /// Ticks that began more than 5 ms after their deadline.
    pub late_ticks: u64,
    /// Ticks that were done after their time, together with a later one: short stalls.
    pub made_up_ticks: u64,
    /// Ticks that were left out because the worker was stalled for longer than 60 ms.
    pub missed_ticks: u64,
    /// Frames that passed uncleaned because noise cancellation had used up its share of a tick.
    pub uncleaned: u64,
    /// Sessions closed because handling them panicked: always our bug.
    pub faults: u64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams and frames not used, by cause.
    pub drops: Drops,
    /// Kernel receive to handled or, if it was relayed, to sent; and tick deadline to sent: how long
    /// media lay in this box. While datagrams come closely one in 32 is measured.
    pub residence: Residence,
}

/// The counters behind [`WorkerMetrics`]; written by one worker, read by anybody.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sessions: AtomicUsize,
    pub(crate) mailbox: AtomicUsize,
    pub(crate) ticks: Counter,
    pub(crate) late_ticks: Counter,
    pub(crate) made_up_ticks: Counter,
    pub(crate) missed_ticks: Counter,
    pub(crate) uncleaned: Counter,
    pub(crate) faults: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    drops: [Counter; 10],
    buckets: [Counter; RESIDENCE_BUCKETS],
    residence_us: Counter,
}

/// A number that only grows and has one writer, which therefore needs no locked operation to add.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.value().wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts one datagram that lay in this box for `residence`.
    pub(crate) fn count_residence(&self, residence: Duration) {
        let us = u64::try_from(residence.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        if let Some(counter) = self.buckets.get(bucket.min(RESIDENCE_BUCKETS - 1)) {
            counter.add(1);
        }
        self.residence_us.add(us);
    }

    /// Adds what a session dropped since the last time.
    pub(crate) fn count_drops(&self, drops: &Drops) {
        for (counter, (_, count)) in self.drops.iter().zip(drops.by_cause()) {
            if count > 0 {
                counter.add(count);
            }
        }
    }

    /// Counts one datagram that the system refused to send.
    pub(crate) fn count_unsent(&self) {
        self.count_drops(&Drops { unsent: 1, ..Drops::default() });
    }

    pub(crate) fn read(&self, class: Class) -> WorkerMetrics {
        WorkerMetrics {
            class,
            sessions: self.sessions.load(Ordering::Relaxed),
            mailbox: self.mailbox.load(Ordering::Relaxed),
            ticks: self.ticks.value(),
            late_ticks: self.late_ticks.value(),
            made_up_ticks: self.made_up_ticks.value(),
            missed_ticks: self.missed_ticks.value(),
            uncleaned: self.uncleaned.value(),
            faults: self.faults.value(),
            received: self.received.value(),
            sent: self.sent.value(),
            drops: self.drops(),
            residence: Residence {
                buckets: std::array::from_fn(|at| self.buckets.get(at).map_or(0, Counter::value)),
                sum_us: self.residence_us.value(),
            },
        }
    }

    fn drops(&self) -> Drops {
        let [stranger, unauthenticated, malformed, payload_type, over_budget, rest @ ..] =
            &self.drops;
        let [stale, on_hold, uncrossed, overrun, unsent] = rest;
        Drops {
            stranger: stranger.value(),
            unauthenticated: unauthenticated.value(),
            malformed: malformed.value(),
            payload_type: payload_type.value(),
            over_budget: over_budget.value(),
            stale: stale.value(),
            on_hold: on_hold.value(),
            uncrossed: uncrossed.value(),
            overrun: overrun.value(),
            unsent: unsent.value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_powers_of_two() {
        let counters = Counters::default();
        for us in [0, 1, 2, 3, 1_000, 60_000_000_000] {
            counters.count_residence(Duration::from_micros(us));
        }
        let residence = counters.read(Class::Normal).residence;
        assert_eq!(residence.buckets[..3], [1, 1, 2]);
        assert_eq!(residence.buckets[10], 1);
        assert_eq!(residence.buckets[RESIDENCE_BUCKETS - 1], 1);
        assert_eq!(residence.count(), 6);
        assert_eq!(residence.quantile_us(0.5), 4);
        assert_eq!(Residence::default().quantile_us(0.99), 0);
    }

    #[test]
    fn every_cause_is_read_back_as_itself() {
        let drops = Drops {
            stranger: 1,
            unauthenticated: 2,
            malformed: 3,
            payload_type: 4,
            over_budget: 5,
            stale: 6,
            on_hold: 7,
            uncrossed: 8,
            overrun: 9,
            unsent: 10,
        };
        let counters = Counters::default();
        counters.count_drops(&drops);
        assert_eq!(counters.read(Class::Normal).drops, drops);
    }
}
