//! Who wants to be woken when: an ordered set with one entry per owner.
//!
//! Moving a deadline removes the old entry, so nothing stale is ever left behind and the earliest
//! deadline is exact. Every operation is O(log n). Ties are broken by owner, which keeps the order of
//! outputs a function of the inputs.

use std::collections::BTreeSet;
use std::time::Instant;

/// The deadlines of all owners.
pub(super) struct Deadlines<Owner> {
    queue: BTreeSet<(Instant, Owner)>,
}

impl<Owner: Ord + Copy> Deadlines<Owner> {
    /// Nobody wants to be woken.
    pub(super) fn new() -> Deadlines<Owner> {
        Deadlines { queue: BTreeSet::new() }
    }

    /// Moves the deadline of `owner` from `old` to `new`.
    pub(super) fn shift(&mut self, owner: Owner, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.queue.remove(&(old, owner));
        }
        if let Some(new) = new {
            self.queue.insert((new, owner));
        }
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the owner of the earliest deadline if it is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Owner> {
        let first = self.queue.first().copied().filter(|(at, _)| *at <= now)?;
        self.queue.remove(&first);
        Some(first.1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transaction::testing::epoch;

    #[test]
    fn a_moved_deadline_leaves_nothing_behind() {
        let now = epoch();
        let later = now + Duration::from_secs(1);
        let mut deadlines = Deadlines::new();
        deadlines.shift('a', None, Some(now));
        deadlines.shift('b', None, Some(later));
        deadlines.shift('a', Some(now), Some(later + Duration::from_secs(1)));
        assert_eq!(deadlines.earliest(), Some(later));
        assert_eq!(deadlines.pop_due(later), Some('b'));
        assert_eq!(deadlines.pop_due(later), None);
        deadlines.shift('a', Some(later + Duration::from_secs(1)), None);
        assert_eq!(deadlines.earliest(), None);
    }
}
