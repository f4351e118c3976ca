//! Whether one more call out may come, as it is seen from outside the queue: by counts alone.
//!
//! The API must say so at once, and before there is a record of the call. The queue itself, which has
//! the calls, decides by the same rules ([`DialQueue::crowded_out`](super::queue::DialQueue::crowded_out))
//! what becomes of those that were let in: in between, others may have come. Pure.

use config::ids::OrganisationId;
use config::settings::Settings;
use config::snapshot::Snapshot;

use super::queue::QueueLimits;

/// What bounds calls out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// Those that wait and those that are placed.
    pub queue: QueueLimits,
    /// At the same time, of an organisation that says nothing itself.
    pub each: usize,
    /// Calls of all kinds at the same time.
    pub calls: usize,
}

impl From<&Settings> for DialLimits {
    fn from(settings: &Settings) -> Self {
        Self {
            queue: QueueLimits::from(settings),
            each: settings.calls.outbound_concurrency as usize,
            calls: settings.sip.max_calls as usize,
        }
    }
}

impl DialLimits {
    /// How many calls out an organisation may have at a time.
    #[must_use]
    pub fn of(&self, snapshot: &Snapshot, whose: OrganisationId) -> usize {
        let said = snapshot.organisation(whose).and_then(|one| one.concurrency_limit);
        said.map_or(self.each, |limit| limit as usize)
    }
}

/// The calls out of one organisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those that were placed and are not over.
    pub placed: usize,
    /// Those that were taken on and are not placed: the next moment, or later.
    pub pending: usize,
    /// How many it may have at a time.
    pub limit: usize,
}

impl Standing {
    /// How many of the pending can go as far as its own limit says.
    const fn able(self) -> usize {
        let room = self.limit.saturating_sub(self.placed);
        if self.pending < room { self.pending } else { room }
    }

    /// How many of the pending wait, when at most `free` can go.
    fn waits(self, free: usize) -> usize {
        self.pending - self.able().min(free)
    }
}

/// Whether an organisation may bring one more call, with `free` places for calls that go now. One that
/// can go at once always may; one that has to wait needs a place for that.
#[must_use]
pub fn may_come(own: Standing, others: &[Standing], free: usize, limits: QueueLimits) -> bool {
    let able = others.iter().fold(own.able(), |sum, one| sum + one.able());
    if own.placed + own.pending < own.limit && able < free {
        return true;
    }
    let waits = own.waits(free);
    if waits >= limits.share() {
        return false;
    }
    let pending = others.iter().fold(own.pending, |sum, one| sum + one.pending);
    let pushes_out = |one: &Standing| one.waits(free) > waits + 1;
    pending - able.min(free) < limits.waiting || others.iter().any(pushes_out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: QueueLimits =
        QueueLimits { total: 100, waiting: 10, patience: Duration::from_secs(1) };

    fn standing(placed: usize, pending: usize, limit: usize) -> Standing {
        Standing { placed, pending, limit }
    }

    #[test]
    fn a_call_that_can_go_at_once_comes_however_many_wait() {
        let crowd = [standing(1, 5, 1), standing(1, 5, 1)];
        assert!(may_come(standing(0, 0, 1), &crowd, 90, LIMITS));
        assert!(may_come(standing(2, 7, 10), &crowd, 90, LIMITS), "those are on their way");
        assert!(!may_come(standing(1, 4, 1), &crowd, 90, LIMITS), "this one would wait");
        assert!(!may_come(standing(0, 9, 20), &[], 4, LIMITS), "and so would this: four can go");
    }

    #[test]
    fn an_organisation_has_half_of_the_places_to_wait() {
        assert!(may_come(standing(1, 4, 1), &[], 90, LIMITS));
        assert!(!may_come(standing(1, 5, 1), &[], 90, LIMITS));
        assert!(!may_come(standing(0, 5, 9), &[], 0, LIMITS), "nothing can go");
    }

    #[test]
    fn who_comes_to_a_full_queue_needs_another_to_push_out() {
        let full = [standing(1, 5, 1), standing(1, 4, 1)];
        assert!(may_come(standing(1, 1, 1), &full, 90, LIMITS));
        assert!(may_come(standing(1, 3, 1), &full, 90, LIMITS));
        assert!(!may_come(standing(1, 4, 1), &full, 90, LIMITS), "as many wait as of any other");
    }
}
