//! Waiting with a limit: the only place of the tests that looks at the clock and lets time pass.
#![expect(
    clippy::disallowed_methods,
    reason = "peers are processes of their own: their progress can only be looked at again and again"
)]

use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);

/// Asks until there is an answer; `None` once `limit` has passed.
pub fn try_until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(EVERY);
    }
}

/// Asks until there is an answer.
///
/// # Panics
/// When there is none after `limit`; the message names `what` was waited for.
#[expect(clippy::panic, reason = "a test that waited in vain has failed")]
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, ask: impl FnMut() -> Option<T>) -> T {
    match try_until(limit, ask) {
        Some(answer) => answer,
        None => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// Milliseconds that `work` took, and its result.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}
