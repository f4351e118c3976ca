//! How long to wait after a failure: pure functions of the failures and a roll of the dice.
//!
//! Both grow twofold up to a bound, and the dice choose from the upper half of each, so that what
//! failed together does not come back together.

/// Failures in a row after which a webhook is paused.
pub const FAILURES_BEFORE_PAUSE: u32 = 5;

/// The first pause of a webhook, and the longest, in seconds.
const PAUSE_FIRST_S: u32 = 15;
const PAUSE_MAX_S: u32 = 900;

/// The longest wait of one delivery, in seconds.
const RETRY_MAX_S: u32 = 3_600;

/// Microseconds to wait before the next attempt of a delivery, after `attempts` have failed.
#[must_use]
pub fn retry_us(first_s: u32, attempts: u32, roll: u32) -> i64 {
    jittered(doubled(first_s, attempts.saturating_sub(1), RETRY_MAX_S.max(first_s)), roll)
}

/// Microseconds to pause a webhook after this many failures in a row; `None` is not at all.
#[must_use]
pub fn pause_us(failures: u32, roll: u32) -> Option<i64> {
    let beyond = failures.checked_sub(FAILURES_BEFORE_PAUSE)?;
    Some(jittered(doubled(PAUSE_FIRST_S, beyond, PAUSE_MAX_S), roll))
}

fn doubled(first_s: u32, times: u32, most_s: u32) -> u32 {
    let factor = 1_u32.checked_shl(times.min(31)).unwrap_or(u32::MAX);
    first_s.saturating_mul(factor).min(most_s)
}

/// From half of it to all of it.
fn jittered(seconds: u32, roll: u32) -> i64 {
    let whole = i64::from(seconds) * 1_000_000;
    whole / 2 + (whole / 2) * i64::from(roll) / i64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn a_delivery_waits_twice_as_long_each_time_up_to_an_hour() {
        let waits: Vec<i64> = (1..=12).map(|n| retry_us(5, n, u32::MAX) / S).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
        assert_eq!(retry_us(5, u32::MAX, u32::MAX), 3_600 * S);
        assert_eq!(retry_us(5, 0, u32::MAX), 5 * S);
    }

    #[test]
    fn the_dice_choose_from_the_upper_half() {
        assert_eq!(retry_us(5, 1, 0), 5 * S / 2);
        assert_eq!(retry_us(5, 1, u32::MAX), 5 * S);
        let half = retry_us(5, 1, u32::MAX / 2);
        assert!((3 * S..4 * S).contains(&half), "{half}");
    }

    #[test]
    fn a_webhook_is_paused_from_the_fifth_failure_on() {
        let pauses = [0, 4, 5, 6, 7, 20, u32::MAX].map(|n| pause_us(n, u32::MAX).map(|us| us / S));
        let expected = [None, None, Some(15), Some(30), Some(60), Some(900), Some(900)];
        assert_eq!(pauses, expected);
    }
}
