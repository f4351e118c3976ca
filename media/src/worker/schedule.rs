//! The scheduling class of a media worker: the best the system permits.
//!
//! ```text
//!   SCHED_RR 10 ──refused──► nice −15 ──refused──► normal, with a warning
//!      │     ▲
//!      │     └── 10 s without another such run ──┐
//!      └──── ran 200 ms without waiting ─────► demoted, with a warning
//! ```
//!
//! A real-time thread that never waits starves the machine, so it is watched by a thread of normal
//! priority rather than limited by `RLIMIT_RTTIME`: that limit counts for the whole process and its
//! signal would kill it. The kernel's own guard (95 % of each second) keeps the watcher running.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sys;

/// The class a worker thread runs in, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// `SCHED_RR`, priority 10: other work on the machine does not delay media.
    Realtime,
    /// The ordinary scheduler with nice −15: short delays under load.
    Nice,
    /// The ordinary scheduler: audio suffers whenever the machine is busy.
    Normal,
    /// Was real-time until it ran for 200 ms without waiting.
    Demoted,
}

impl Class {
    /// A stable word for metrics and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Nice => "nice",
            Self::Normal => "normal",
            Self::Demoted => "demoted",
        }
    }

    const ALL: [Self; 4] = [Self::Realtime, Self::Nice, Self::Normal, Self::Demoted];
}

/// Raises the calling thread as far as the system permits, or not at all if not asked to.
pub(crate) fn enter_class(realtime: bool) -> Class {
    if !realtime {
        return Class::Normal;
    }
    let thread = sys::thread_id();
    if sys::make_realtime(thread, REALTIME_PRIORITY).is_ok() {
        return Class::Realtime;
    }
    match sys::make_nice(thread, MEDIA_NICE) {
        Ok(()) => {
            tracing::warn!(
                "media worker may not run in real time (CAP_SYS_NICE or RLIMIT_RTPRIO is missing); \
                 it runs at nice {MEDIA_NICE}"
            );
            Class::Nice
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "media worker may not raise its priority: audio will suffer when the machine is busy"
            );
            Class::Normal
        }
    }
}

/// Ticks that are due at once, after a stall perhaps.
///
/// What a short stall held back is owed: the peer's buffer bridges it when everything comes in the
/// end. After a long one the peer has bridged the time itself, and a burst would only be dropped or
/// play for ever late, so no more than 60 ms are owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arrears {
    /// Ticks whose time has passed with nothing done in it.
    pub(crate) left_out: u64,
    /// Ticks to be done now, the present one included.
    pub(crate) owed: u64,
}

impl Arrears {
    /// What is owed after as many deadlines have passed since the last tick.
    pub(crate) fn of(deadlines: u64) -> Self {
        let owed = deadlines.min(OWED_MAX);
        Self { left_out: deadlines - owed, owed }
    }
}

/// A worker's pulse: set when it starts working, cleared before it waits.
pub(crate) struct Heartbeat {
    epoch: Instant,
    /// Milliseconds since `epoch` at which the work in progress began, plus one; zero is waiting.
    busy_since: AtomicU64,
    thread: AtomicI32,
    class: AtomicU8,
    /// Stamp of the last time it was found stuck.
    stuck_at: AtomicU64,
}

impl Heartbeat {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            busy_since: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            class: AtomicU8::new(Class::Normal as u8),
            stuck_at: AtomicU64::new(0),
        }
    }

    /// The worker names itself, before its first wait.
    pub(crate) fn begin(&self, class: Class) {
        self.thread.store(sys::thread_id(), Ordering::Relaxed);
        self.set_class(class);
    }

    pub(crate) fn busy(&self, now: Instant) {
        self.busy_since.store(self.stamp(now), Ordering::Relaxed);
    }

    pub(crate) fn idle(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn class(&self) -> Class {
        let class = self.class.load(Ordering::Relaxed);
        Class::ALL.get(usize::from(class)).copied().unwrap_or(Class::Normal)
    }

    fn set_class(&self, class: Class) {
        self.class.store(class as u8, Ordering::Relaxed);
    }

    fn stamp(&self, now: Instant) -> u64 {
        let ms = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(ms).unwrap_or(u64::MAX - 1) + 1
    }

    /// True when the worker has been working without a wait for longer than [`PATIENCE`].
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        let since = self.busy_since.load(Ordering::Relaxed);
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        since != 0 && self.stamp(now).saturating_sub(since) > patience
    }

    /// Takes the real-time class away from a worker that has not waited for too long, and gives it
    /// back to one that has behaved since. To be called a few times a second.
    pub(crate) fn watch(&self, now: Instant) {
        let thread = self.thread.load(Ordering::Relaxed);
        match (self.class(), self.is_stuck(now)) {
            (Class::Realtime, true) => {
                self.stuck_at.store(self.stamp(now), Ordering::Relaxed);
                match sys::make_ordinary(thread) {
                    Ok(()) => self.set_class(Class::Demoted),
                    Err(error) => tracing::warn!(thread, %error, "cannot demote a media worker"),
                }
                tracing::warn!(thread, "media worker ran 200 ms without waiting: demoted");
            }
            (Class::Demoted, true) => self.stuck_at.store(self.stamp(now), Ordering::Relaxed),
            (Class::Demoted, false) => {
                let calm_ms = self.stamp(now).saturating_sub(self.stuck_at.load(Ordering::Relaxed));
                let is_calm = u128::from(calm_ms) >= PROBATION.as_millis();
                if is_calm && sys::make_realtime(thread, REALTIME_PRIORITY).is_ok() {
                    self.set_class(Class::Realtime);
                }
            }
            (Class::Realtime, false) | (Class::Nice | Class::Normal, _) => {}
        }
    }
}

/// Three ticks: the burst that reliability asks not to exceed.
const OWED_MAX: u64 = 3;

/// In the middle of the range above nothing else that is common; audio servers use the same.
const REALTIME_PRIORITY: i32 = 10;

/// Measured to be the second best: delays of 10 to 80 ms under load instead of hundreds.
const MEDIA_NICE: i32 = -15;

/// A worker that works for longer than this without a wait is not doing media any more.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a demoted worker must wait properly before it is trusted again.
const PROBATION: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_of_60_ms_is_owed_and_no_more() {
        let of = |deadlines| {
            let Arrears { left_out, owed } = Arrears::of(deadlines);
            (left_out, owed)
        };
        assert_eq!([0, 1, 2, 3, 4, 50].map(of), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (47, 3)]);
        assert_eq!(of(u64::MAX), (u64::MAX - 3, 3));
    }

    #[test]
    fn a_worker_is_stuck_only_while_it_works_and_only_after_200_ms() {
        let epoch = crate::clock::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let heartbeat = Heartbeat::new(epoch);
        assert!(!heartbeat.is_stuck(at(1_000)));
        heartbeat.busy(at(1_000));
        assert!(!heartbeat.is_stuck(at(1_200)));
        assert!(heartbeat.is_stuck(at(1_201)));
        heartbeat.idle();
        assert!(!heartbeat.is_stuck(at(9_000)));
    }

    #[test]
    fn a_stuck_realtime_worker_is_demoted_and_comes_back_when_it_behaves() {
        let epoch = crate::clock::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let heartbeat = Heartbeat::new(epoch);
        heartbeat.begin(Class::Realtime);
        heartbeat.busy(epoch);
        heartbeat.watch(at(100));
        assert_eq!(heartbeat.class(), Class::Realtime);
        heartbeat.watch(at(300));
        assert_eq!(heartbeat.class(), Class::Demoted);
        heartbeat.watch(at(11_000));
        heartbeat.idle();
        heartbeat.watch(at(20_000));
        assert_eq!(heartbeat.class(), Class::Demoted, "stuck 9 s ago");
        heartbeat.watch(at(21_500));
        let restored = heartbeat.class();
        // Only where the test may ask for real time; it must not keep it.
        sys::make_ordinary(sys::thread_id()).unwrap();
        assert!(matches!(restored, Class::Realtime | Class::Demoted));
    }

    #[test]
    fn nobody_is_raised_without_being_asked() {
        assert_eq!(enter_class(false), Class::Normal);
    }
}
