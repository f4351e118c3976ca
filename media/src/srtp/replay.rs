//! The replay window of RFC 3711 §3.3.2: which of the last 128 packet indices were seen.
//!
//! ```text
//!   highest − 127 …………………………… highest          bit n of `seen` stands for highest − n
//! ```
//!
//! Invariant: [`Window::check`] never changes anything; only [`Window::commit`] does, and it is
//! called for packets whose tag was right.

/// Width of the window in packets. RFC 3711 asks for at least 64.
pub(crate) const WINDOW_PACKETS: u64 = 128;

/// What the window says of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fresh,
    Seen,
    TooOld,
}

/// Indices seen so far of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    /// A window in which nothing was seen and whose packets count from `expected` on.
    pub(crate) const fn starting_at(expected: u64) -> Self {
        Self { highest: expected, seen: 0 }
    }

    /// The highest index committed, or where the window was set to start.
    pub(crate) const fn highest(&self) -> u64 {
        self.highest
    }

    pub(crate) const fn check(&self, index: u64) -> Verdict {
        let Some(age) = self.highest.checked_sub(index) else { return Verdict::Fresh };
        if age >= WINDOW_PACKETS {
            Verdict::TooOld
        } else if self.seen >> age & 1 == 1 {
            Verdict::Seen
        } else {
            Verdict::Fresh
        }
    }

    /// Notes an authenticated index. Indices older than the window are left out.
    pub(crate) const fn commit(&mut self, index: u64) {
        if index > self.highest {
            let step = index - self.highest;
            self.seen = if step < WINDOW_PACKETS { self.seen << step } else { 0 };
            self.highest = index;
        }
        let age = self.highest - index;
        if age < WINDOW_PACKETS {
            self.seen |= 1 << age;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_seen_at_first() {
        let window = Window::starting_at(500);
        for index in 373..2_000 {
            assert_eq!(window.check(index), Verdict::Fresh);
        }
        assert_eq!(window.check(372), Verdict::TooOld);
    }

    #[test]
    fn checking_changes_nothing() {
        let window = Window::starting_at(7);
        assert_eq!(window.check(9), Verdict::Fresh);
        assert_eq!(window.check(9), Verdict::Fresh);
        assert_eq!(window, Window::starting_at(7));
    }

    #[test]
    fn a_jump_beyond_the_window_forgets_all_that_is_too_old() {
        let mut window = Window::starting_at(0);
        window.commit(0);
        window.commit(128);
        assert_eq!(window.check(0), Verdict::TooOld);
        assert_eq!(window.check(1), Verdict::Fresh);
        assert_eq!(window.check(128), Verdict::Seen);
        window.commit(u64::MAX >> 16);
        assert_eq!(window.check(128), Verdict::TooOld);
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(indices in prop::collection::vec(0_u64..600, 1..200)) {
            let mut window = Window::starting_at(0);
            let mut seen = HashSet::new();
            for index in indices {
                let highest = seen.iter().copied().max().unwrap_or(0_u64);
                let expected = if index + WINDOW_PACKETS <= highest {
                    Verdict::TooOld
                } else if seen.contains(&index) {
                    Verdict::Seen
                } else {
                    Verdict::Fresh
                };
                prop_assert_eq!(window.check(index), expected);
                if expected == Verdict::Fresh {
                    window.commit(index);
                    seen.insert(index);
                }
            }
        }
    }
}
