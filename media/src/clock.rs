//! The only file of this crate that reads time.
//!
//! Everything else is told what time it is. Media runs on the monotonic clock; the wall clock is read
//! once per session, as the anchor from which RTCP sender reports derive their timestamps, and once
//! per tick, as the one by which the kernel's stamps of arrival are understood.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock as the time since 1970, zero if it is set before that.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A moment on both clocks.
///
/// Wall-clock timestamps of a session are reckoned from its anchor, so that a clock that is set
/// during the call never makes them jump.
#[derive(Clone, Copy, Debug)]
pub struct WallAnchor {
    /// The moment on the monotonic clock.
    pub at: Instant,
    /// The same moment as the time since 1970-01-01T00:00Z.
    pub since_1970: Duration,
}

impl WallAnchor {
    /// Reads both clocks now.
    #[must_use]
    pub fn now() -> Self {
        Self { at: now(), since_1970: since_1970() }
    }

    /// `moment` as the time since 1970.
    #[must_use]
    pub fn since_1970(&self, moment: Instant) -> Duration {
        self.since_1970 + moment.saturating_duration_since(self.at)
    }

    /// `moment` as an NTP timestamp: seconds since 1900 in 32.32 fixed point (RFC 3550 §4).
    #[must_use]
    pub fn ntp(&self, moment: Instant) -> u64 {
        let since_1970 = self.since_1970(moment);
        let seconds = since_1970.as_secs().wrapping_add(SECONDS_1900_TO_1970);
        let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
        (seconds << 32) | fraction
    }
}

/// RFC 868: the distance between the epochs of NTP and of Unix.
const SECONDS_1900_TO_1970: u64 = 2_208_988_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_reckons_ntp_time_from_the_monotonic_clock() {
        let anchor = WallAnchor { at: now(), since_1970: Duration::from_millis(1_500) };
        assert_eq!(anchor.ntp(anchor.at), ((SECONDS_1900_TO_1970 + 1) << 32) | (1 << 31));
        let later = anchor.at + Duration::from_secs(2);
        assert_eq!(anchor.ntp(later) - anchor.ntp(anchor.at), 2 << 32);
    }
}
