//! Who may use a worker, and who is next.
//!
//! There are so many places. One organisation may hold at most its share of them, however few others
//! ask, so that loops in one customer's code never take them all. Those that wait are served in turns:
//! one of each organisation, the longest waiting first. There is room for so many; who comes to a full
//! queue pushes out somebody of the organisation of which most wait, so that no few of them shut the
//! others out. Pure.
//!
//! Invariant: an organisation is in the order exactly once while somebody of it waits.

use std::collections::{BTreeMap, VecDeque};

use config::ids::OrganisationId;

/// The places and those who wait for one.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    places: usize,
    share: usize,
    most_waiting: usize,
    taken: usize,
    waiting: usize,
    lanes: BTreeMap<OrganisationId, Lane<T>>,
    order: VecDeque<OrganisationId>,
}

#[derive(Debug)]
struct Lane<T> {
    taken: usize,
    waiting: VecDeque<T>,
}

impl<T> Turns<T> {
    /// So many places, and so many who may wait for one; one organisation may have half of either.
    pub(crate) const fn new(places: usize, most_waiting: usize) -> Self {
        Self {
            places,
            share: places.div_ceil(2),
            most_waiting,
            taken: 0,
            waiting: 0,
            lanes: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Takes a place, if there is one at once.
    pub(crate) fn take(&mut self, organisation: OrganisationId) -> bool {
        if self.taken >= self.places {
            return false;
        }
        let lane = self.lane(organisation);
        let fits = lane.waiting.is_empty() && lane.taken < self.share;
        if fits {
            self.occupy(organisation);
        }
        fits
    }

    /// Waits for a place. Gives back whoever waits in vain, if too many do: the waiter itself when as
    /// many of its organisation wait as of any other, else the newest of the one of which most wait.
    pub(crate) fn wait(&mut self, organisation: OrganisationId, waiter: T) -> Option<T> {
        let own = self.lanes.get(&organisation).map_or(0, |lane| lane.waiting.len());
        if own >= self.most_waiting.div_ceil(2) {
            return Some(waiter);
        }
        let mut out = None;
        if self.waiting >= self.most_waiting {
            match self.longest() {
                Some((longest, length)) if length > own + 1 => out = self.push_out(longest),
                _ => return Some(waiter),
            }
        }
        let lane = self.lane(organisation);
        lane.waiting.push_back(waiter);
        self.waiting += 1;
        if own == 0 {
            self.order.push_back(organisation);
        }
        out
    }

    /// The organisation of which most wait, and how many.
    fn longest(&self) -> Option<(OrganisationId, usize)> {
        let lanes =
            self.lanes.iter().map(|(organisation, lane)| (*organisation, lane.waiting.len()));
        lanes.max_by_key(|(_, length)| *length)
    }

    /// Takes the newest waiter of an organisation out of the queue; it is not its last.
    fn push_out(&mut self, organisation: OrganisationId) -> Option<T> {
        let out = self.lane(organisation).waiting.pop_back();
        self.waiting -= usize::from(out.is_some());
        out
    }

    /// Gives a place back.
    pub(crate) fn free(&mut self, organisation: OrganisationId) {
        if let Some(lane) = self.lanes.get_mut(&organisation) {
            lane.taken = lane.taken.saturating_sub(1);
            self.taken = self.taken.saturating_sub(1);
        }
        self.tidy(organisation);
    }

    /// Takes a place for whoever is next, passing over those who no longer wait.
    pub(crate) fn next(&mut self, gone: impl Fn(&T) -> bool) -> Option<(OrganisationId, T)> {
        for _ in 0..self.order.len() {
            if self.taken >= self.places {
                return None;
            }
            let organisation = self.order.pop_front()?;
            let share = self.share;
            let lane = self.lane(organisation);
            let before = lane.waiting.len();
            lane.waiting.retain(|waiter| !gone(waiter));
            let mut left = lane.waiting.len();
            let next = if lane.taken < share { lane.waiting.pop_front() } else { None };
            left -= usize::from(next.is_some());
            self.waiting -= before - left;
            if left > 0 {
                self.order.push_back(organisation);
            }
            if let Some(next) = next {
                self.occupy(organisation);
                return Some((organisation, next));
            }
            self.tidy(organisation);
        }
        None
    }

    fn lane(&mut self, organisation: OrganisationId) -> &mut Lane<T> {
        let empty = || Lane { taken: 0, waiting: VecDeque::new() };
        self.lanes.entry(organisation).or_insert_with(empty)
    }

    fn occupy(&mut self, organisation: OrganisationId) {
        self.lane(organisation).taken += 1;
        self.taken += 1;
    }

    /// Forgets an organisation that has nothing here.
    fn tidy(&mut self, organisation: OrganisationId) {
        let idle = |lane: &Lane<T>| lane.taken == 0 && lane.waiting.is_empty();
        if self.lanes.get(&organisation).is_some_and(idle) {
            self.lanes.remove(&organisation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organisations<const N: usize>() -> [OrganisationId; N] {
        std::array::from_fn(|_| OrganisationId::random())
    }

    fn still(_: &u32) -> bool {
        false
    }

    #[test]
    fn one_organisation_never_has_more_than_half_of_the_places() {
        let [loops, calm] = organisations();
        let mut turns = Turns::<u32>::new(4, 10);
        assert!(turns.take(loops) && turns.take(loops));
        assert!(!turns.take(loops), "half is enough");
        assert!(turns.take(calm) && turns.take(calm));
        assert!(!turns.take(calm), "all are taken");
        assert_eq!(turns.wait(loops, 1), None);
        turns.free(calm);
        assert_eq!(turns.next(still), None, "the free place is not for those who have their share");
        turns.free(loops);
        assert_eq!(turns.next(still), Some((loops, 1)));
    }

    #[test]
    fn organisations_are_served_in_turns() {
        let [holder, a, b] = organisations();
        let mut turns = Turns::new(1, 10);
        assert!(turns.take(holder));
        for waiter in [1, 2, 3] {
            assert_eq!(turns.wait(a, waiter), None);
        }
        assert_eq!(turns.wait(b, 4), None);
        turns.free(holder);
        let mut served = Vec::new();
        while let Some((organisation, waiter)) = turns.next(still) {
            served.push(waiter);
            turns.free(organisation);
        }
        assert_eq!(served, [1, 4, 2, 3]);
        assert!(turns.lanes.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn who_is_gone_is_passed_over() {
        let [a, b] = organisations();
        let mut turns = Turns::new(1, 10);
        assert!(turns.take(a));
        assert_eq!(turns.wait(a, 1), None);
        assert_eq!(turns.wait(b, 2), None);
        turns.free(a);
        assert_eq!(turns.next(|waiter| *waiter == 1), Some((b, 2)));
        assert_eq!((turns.waiting, turns.order.len()), (0, 0));
    }

    #[test]
    fn one_organisation_fills_at_most_half_of_the_queue() {
        let [a, b] = organisations();
        let mut turns = Turns::new(0, 4);
        assert_eq!([turns.wait(a, 1), turns.wait(a, 2), turns.wait(a, 3)], [None, None, Some(3)]);
        assert_eq!([turns.wait(b, 4), turns.wait(b, 5), turns.wait(b, 6)], [None, None, Some(6)]);
    }

    #[test]
    fn two_that_fill_the_queue_shut_nobody_out() {
        let [a, b, c, d, e] = organisations();
        let mut turns = Turns::new(1, 4);
        assert!(turns.take(a));
        for (organisation, waiter) in [(a, 1), (a, 2), (b, 3), (b, 4)] {
            assert_eq!(turns.wait(organisation, waiter), None);
        }
        let mut out = [turns.wait(c, 5), turns.wait(d, 6)];
        out.sort_unstable();
        assert_eq!(out, [Some(2), Some(4)], "the newest of those of whom most wait");
        assert_eq!(turns.wait(e, 7), Some(7), "nobody has more than one any more");
        assert_eq!(turns.wait(b, 8), Some(8), "and who has one pushes out nobody for a second");
        assert_eq!((turns.waiting, turns.order.len()), (4, 4));
        turns.free(a);
        let mut served = Vec::new();
        while let Some((organisation, waiter)) = turns.next(still) {
            served.push(waiter);
            turns.free(organisation);
        }
        assert_eq!(served, [1, 3, 5, 6]);
        assert!(turns.lanes.is_empty() && turns.order.is_empty());
    }
}
