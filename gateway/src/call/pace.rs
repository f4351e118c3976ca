//! How fast and how many: a token bucket per trunk and counts of live calls.

use std::time::Instant;

/// Token bucket: `rate` new calls a second, and as many at once.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(rate_per_second: u32, now: Instant) -> Self {
        Bucket { tokens: f64::from(rate_per_second), filled_at: now }
    }

    /// Takes one token if there is one. `rate_per_second` may change between calls.
    pub fn take(&mut self, rate_per_second: u32, now: Instant) -> bool {
        let rate = f64::from(rate_per_second);
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(rate);
        self.filled_at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_its_rate_and_not_one_more() {
        let start = clock::now();
        let mut bucket = Bucket::full(5, start);
        let at_once = (0..20).filter(|_| bucket.take(5, start)).count();
        assert_eq!(at_once, 5);
        let later = start + Duration::from_secs(1);
        let after_a_second = (0..20).filter(|_| bucket.take(5, later)).count();
        assert_eq!(after_a_second, 5);
    }
}
