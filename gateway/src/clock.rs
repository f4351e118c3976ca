//! The only file of this crate that reads time. Everything else is handed `now`.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time: timers, retransmissions, durations.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time in microseconds since 1970-01-01T00:00:00Z: records, nonces, certificates.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn unix_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Wall-clock time in whole seconds since the epoch.
#[must_use]
pub fn unix_seconds() -> u64 {
    u64::try_from(unix_micros() / 1_000_000).unwrap_or(0)
}
