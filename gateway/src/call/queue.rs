//! Calls out that wait for their turn: how many may go at once, and whose is next.
//!
//! ```text
//!  push ──► lane of the organisation (first in, first out) ──► next: placed ──► finished
//!              │ cancel, drain: withdrawn       │ patience over: expired
//! ```
//!
//! There is room for so many to wait, half of it for any one organisation; who comes to a full queue pushes
//! out the newest of the organisation of which most wait, so that no few of them shut the others out.
//!
//! An organisation has at most so many calls out at a time, and all together have at most so many. The
//! places that are free are shared among those that wait in proportion to what each may have, nobody
//! getting more than it can use: the whole parts first, and what is left by the largest fraction. To its
//! fraction comes what an organisation was left short of before, so that one that may have little is
//! late and never forgotten, though places come free one by one and another may have ever so much. Of
//! equal fractions the one that has waited longest goes first.
//!
//! Pure: time is an argument, and the order of everything follows from what was put in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use config::calls::DialRequest;
use config::ids::{ConversationId, OrganisationId};
use config::settings::Settings;

/// How many calls out there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// At the same time, of all organisations.
    pub total: usize,
    /// Waiting.
    pub waiting: usize,
    /// How long one may wait.
    pub patience: Duration,
}

impl QueueLimits {
    /// How many of one organisation may wait.
    #[must_use]
    pub const fn share(&self) -> usize {
        self.waiting.div_ceil(2)
    }
}

impl From<&Settings> for QueueLimits {
    fn from(settings: &Settings) -> Self {
        let calls = &settings.calls;
        Self {
            total: calls.outbound_concurrency_total as usize,
            waiting: calls.outbound_queue as usize,
            patience: Duration::from_secs(u64::from(calls.outbound_queue_seconds)),
        }
    }
}

/// When a call came: the moment, and its place among those of the same moment.
type Arrival = (Instant, u64);

#[derive(Debug)]
struct Waiting {
    arrival: Arrival,
    request: DialRequest,
}

/// The calls of one organisation.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    placed: usize,
    /// What it was left short of when the last places were shared, in parts of a place; below zero, what
    /// it got beyond its own.
    owed: i64,
}

/// The waiting calls of one node.
#[derive(Debug)]
pub struct DialQueue {
    limits: QueueLimits,
    lanes: BTreeMap<OrganisationId, Lane>,
    /// Whose each waiting call is.
    owners: HashMap<ConversationId, OrganisationId>,
    /// Whose each waiting call is, in the order they came.
    arrivals: BTreeMap<Arrival, OrganisationId>,
    placed: usize,
    next_number: u64,
}

impl DialQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        DialQueue {
            limits,
            lanes: BTreeMap::new(),
            owners: HashMap::new(),
            arrivals: BTreeMap::new(),
            placed: 0,
            next_number: 0,
        }
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.owners.len()
    }

    /// How many calls are placed and not finished.
    #[must_use]
    pub fn placed(&self) -> usize {
        self.placed
    }

    /// Lets a call wait. [`Self::next`] says when it goes, which may be at once; whether there is a place to
    /// wait if it does not, [`Self::crowded_out`].
    ///
    /// # Errors
    /// The call itself, when it waits already.
    pub fn push(&mut self, now: Instant, request: DialRequest) -> Result<(), Box<DialRequest>> {
        let id = request.conversation.id;
        if self.owners.contains_key(&id) {
            return Err(Box::new(request));
        }
        let organisation = request.organisation;
        let arrival = (now, self.next_number);
        self.next_number += 1;
        self.owners.insert(id, organisation);
        self.arrivals.insert(arrival, organisation);
        let lane = self.lanes.entry(organisation).or_default();
        lane.waiting.push_back(Waiting { arrival, request });
        Ok(())
    }

    /// Withdraws the call that finds no place to wait after one of this organisation was pushed and all that
    /// can go have gone: the newest of its own when it has its share or as many wait as of any other, else
    /// the newest of the one of which most wait.
    pub fn crowded_out(&mut self, whose: OrganisationId) -> Option<DialRequest> {
        let length = |lane: &Lane| lane.waiting.len();
        let own = self.lanes.get(&whose).map_or(0, length);
        let mut from = whose;
        if own <= self.limits.share() {
            if self.waiting() <= self.limits.waiting {
                return None;
            }
            let (longest, lane) = self.lanes.iter().max_by_key(|(_, lane)| length(lane))?;
            if length(lane) > own {
                from = *longest;
            }
        }
        let newest = self.lanes.get(&from)?.waiting.back()?.arrival;
        self.remove_arrival((newest, from))
    }

    /// Withdraws a call that waits; `None` if it does not.
    pub fn cancel(&mut self, id: ConversationId) -> Option<DialRequest> {
        let organisation = *self.owners.get(&id)?;
        self.remove(organisation, |one| one.request.conversation.id == id)
    }

    /// Withdraws all calls that wait, in the order they came: the node is stopping.
    pub fn drain(&mut self) -> Vec<DialRequest> {
        let mut all = Vec::with_capacity(self.waiting());
        while let Some(first) = self.first() {
            all.extend(self.remove_arrival(first));
        }
        all
    }

    /// The calls that go now, at most `room` of them; `limit_of` is how many calls an organisation may
    /// have at a time. Each counts as placed until [`Self::finished`].
    pub fn next(
        &mut self,
        room: usize,
        limit_of: impl Fn(OrganisationId) -> usize,
    ) -> Vec<DialRequest> {
        let mut going = Vec::new();
        for (organisation, share) in self.shares(room, limit_of) {
            if let Some(lane) = self.lanes.get_mut(&organisation) {
                lane.owed = share.owed;
            }
            for _ in 0..share.places {
                let Some(lane) = self.lanes.get_mut(&organisation) else { break };
                // Counted before it is taken out: a lane with nothing in it is forgotten.
                lane.placed += 1;
                self.placed += 1;
                going.extend(self.remove(organisation, |_| true));
            }
        }
        going
    }

    /// The calls that have waited for too long, the longest wait first. They are out of the queue.
    pub fn expired(&mut self, now: Instant) -> Vec<DialRequest> {
        let mut expired = Vec::new();
        while let Some(first) = self.first() {
            let ((came, _), _) = first;
            if came + self.limits.patience > now {
                break;
            }
            expired.extend(self.remove_arrival(first));
        }
        expired
    }

    /// A placed call of this organisation is over; its place is free.
    pub fn finished(&mut self, organisation: OrganisationId) {
        let Some(lane) = self.lanes.get_mut(&organisation) else { return };
        if lane.placed > 0 {
            lane.placed -= 1;
            self.placed -= 1;
        }
        self.forget_idle(organisation);
    }

    /// When the next call will have waited for too long.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.first().map(|((came, _), _)| came + self.limits.patience)
    }

    /// The call that has waited longest.
    fn first(&self) -> Option<(Arrival, OrganisationId)> {
        self.arrivals.first_key_value().map(|(arrival, whose)| (*arrival, *whose))
    }

    fn remove_arrival(
        &mut self,
        (arrival, whose): (Arrival, OrganisationId),
    ) -> Option<DialRequest> {
        self.remove(whose, |one| one.arrival == arrival)
    }

    /// Takes the first waiting call of a lane that is meant.
    fn remove(
        &mut self,
        organisation: OrganisationId,
        is_meant: impl FnMut(&Waiting) -> bool,
    ) -> Option<DialRequest> {
        let lane = self.lanes.get_mut(&organisation)?;
        let position = lane.waiting.iter().position(is_meant)?;
        let taken = lane.waiting.remove(position)?;
        self.owners.remove(&taken.request.conversation.id);
        self.arrivals.remove(&taken.arrival);
        self.forget_idle(organisation);
        Some(taken.request)
    }

    fn forget_idle(&mut self, organisation: OrganisationId) {
        let idle = |lane: &Lane| lane.waiting.is_empty() && lane.placed == 0;
        if self.lanes.get(&organisation).is_some_and(idle) {
            self.lanes.remove(&organisation);
        }
    }

    /// How many calls of whom may go now, who waits longest first.
    fn shares(
        &self,
        room: usize,
        limit_of: impl Fn(OrganisationId) -> usize,
    ) -> Vec<(OrganisationId, Share)> {
        let free = self.limits.total.saturating_sub(self.placed).min(room);
        let claims = self.lanes.iter().filter_map(|(organisation, lane)| {
            // Nobody can have more than all there are: who says so gets no larger part for it.
            let limit = limit_of(*organisation).min(self.limits.total);
            let room = limit.saturating_sub(lane.placed).min(lane.waiting.len());
            let first = lane.waiting.front().filter(|_| room > 0)?;
            Some((first.arrival, *organisation, Claim { limit, room, owed: lane.owed }))
        });
        let mut claims: Vec<(Arrival, OrganisationId, Claim)> = claims.collect();
        claims.sort_by_key(|(arrival, ..)| *arrival);
        let shares = share(free, claims.iter().map(|(.., claim)| *claim).collect());
        claims.into_iter().zip(shares).map(|((_, whose, _), share)| (whose, share)).collect()
    }
}

/// What one organisation could use of the free places.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// Most calls at a time: its weight.
    limit: usize,
    /// How many more can go.
    room: usize,
    /// What it was left short of before.
    owed: i64,
}

/// What one organisation gets of the free places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    places: usize,
    /// What it is left short of now.
    owed: i64,
}

/// The parts that a place is counted in.
const PARTS: usize = 1 << 20;
const PLACE: i64 = 1 << 20;

/// Shares `free` places. Places that somebody has no room for are shared again among the rest.
fn share(mut free: usize, mut claims: Vec<Claim>) -> Vec<Share> {
    let nothing = |claim: &Claim| Share { places: 0, owed: claim.owed };
    let mut shares: Vec<Share> = claims.iter().map(nothing).collect();
    loop {
        let claiming = claims.iter().filter(|claim| claim.room > 0);
        let weight: usize = claiming.map(|claim| claim.limit).sum();
        if free == 0 || weight == 0 {
            return shares;
        }
        let mut left = free;
        let mut fractions = Vec::new();
        for (index, (claim, share)) in claims.iter_mut().zip(&mut shares).enumerate() {
            if claim.room > 0 {
                let part = free.saturating_mul(claim.limit);
                let whole = (part / weight).min(claim.room);
                claim.room -= whole;
                share.places += whole;
                left -= whole;
                let fraction = (part % weight).saturating_mul(PARTS) / weight;
                let fraction = i64::try_from(fraction).unwrap_or(PLACE);
                fractions.push((Reverse(fraction + claim.owed), index));
            }
        }
        if left == free {
            // Fewer places than claims: one each, the largest fraction first, of equals the first.
            fractions.sort_unstable();
            for (order, (Reverse(fraction), index)) in fractions.into_iter().enumerate() {
                let Some(share) = shares.get_mut(index) else { continue };
                let gets_one = order < free;
                share.places += usize::from(gets_one);
                share.owed = fraction - if gets_one { PLACE } else { 0 };
            }
            return shares;
        }
        free = left;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use config::clock::Timestamp;
    use config::ids::TrunkId;
    use config::model::{Conversation, Direction, Runtime};

    use super::*;
    use crate::clock;

    const LIMITS: QueueLimits =
        QueueLimits { total: 5, waiting: 100, patience: Duration::from_secs(60) };

    /// What every organisation may have, unless a test says otherwise.
    fn three(_: OrganisationId) -> usize {
        3
    }

    fn request(organisation: OrganisationId) -> DialRequest {
        let at = Timestamp::from_micros(0);
        let conversation = Conversation::begun(organisation, Direction::Outbound, at);
        DialRequest {
            conversation: Box::new(conversation),
            organisation,
            number: "+15550001".parse().expect("a number"),
            callee: "+15550002".parse().expect("a number"),
            trunk: TrunkId::random(),
            agent: None,
            version: None,
            runtime: Runtime::default(),
            workflows: Arc::default(),
        }
    }

    fn id(request: &DialRequest) -> ConversationId {
        request.conversation.id
    }

    /// Lets `count` calls of an organisation wait; their ids in order.
    fn fill(queue: &mut DialQueue, whose: OrganisationId, count: usize) -> Vec<ConversationId> {
        let now = clock::now();
        let each = (0..count).map(|_| {
            let request = request(whose);
            let id = id(&request);
            queue.push(now, request).expect("there is room");
            id
        });
        each.collect()
    }

    /// How many of these calls are whose.
    fn counts(requests: &[DialRequest], organisations: &[OrganisationId]) -> Vec<usize> {
        let of = |whose| requests.iter().filter(|one| one.organisation == whose).count();
        organisations.iter().map(|whose| of(*whose)).collect()
    }

    #[test]
    fn calls_go_in_the_order_they_came_as_far_as_the_organisation_may() {
        let mut queue = DialQueue::new(LIMITS);
        let whose = OrganisationId::random();
        let ids = fill(&mut queue, whose, 5);
        let going: Vec<_> = queue.next(100, three).iter().map(id).collect();
        assert_eq!(going, ids[..3]);
        assert_eq!((queue.placed(), queue.waiting()), (3, 2));
        assert!(queue.next(100, three).is_empty());
        queue.finished(whose);
        assert_eq!(queue.next(100, three).iter().map(id).collect::<Vec<_>>(), ids[3..4]);
    }

    #[test]
    fn free_places_are_shared_in_fair_parts() {
        let limits = QueueLimits { total: 10, ..LIMITS };
        let mut queue = DialQueue::new(limits);
        let [many, some, few] = [(); 3].map(|()| OrganisationId::random());
        fill(&mut queue, many, 50);
        fill(&mut queue, some, 20);
        fill(&mut queue, few, 1);
        // 3⅓ each; what the last cannot use goes to the others, the odd one to who came first.
        let going = queue.next(100, |_| 10);
        assert_eq!(counts(&going, &[many, some, few]), [5, 4, 1]);
    }

    #[test]
    fn places_go_by_what_each_may_have_and_never_beyond_its_room() {
        let shared = |free, all: &[(usize, usize)]| -> Vec<usize> {
            let claim =
                |(limit, room): &(usize, usize)| Claim { limit: *limit, room: *room, owed: 0 };
            let shares = share(free, all.iter().map(claim).collect());
            shares.iter().map(|share| share.places).collect()
        };
        assert_eq!(shared(10, &[(10, 9), (30, 30)]), [2, 8], "2½ and 7½: the first");
        assert_eq!(shared(7, &[(10, 9), (20, 20)]), [2, 5], "2⅓ and 4⅔");
        assert_eq!(shared(50, &[(10, 2), (10, 3)]), [2, 3]);
        assert_eq!(shared(1, &[(10, 5), (10, 5), (10, 5)]), [1, 0, 0]);
        assert_eq!(shared(9, &[(10, 1), (10, 0), (20, 9)]), [1, 0, 8]);
        assert_eq!(shared(0, &[(10, 1)]), [0]);
        assert!(shared(3, &[]).is_empty());
    }

    /// How many calls of whom go when places come free one at a time.
    fn one_by_one(limits: [usize; 2], rounds: usize) -> Vec<usize> {
        let mut queue = DialQueue::new(QueueLimits { total: 1, waiting: 10_000, ..LIMITS });
        let both = [(); 2].map(|()| OrganisationId::random());
        both.iter().for_each(|whose| drop(fill(&mut queue, *whose, rounds)));
        let limit_of = |whose| if whose == both[0] { limits[0] } else { limits[1] };
        let mut gone = Vec::new();
        for _ in 0..rounds {
            let going = queue.next(1, limit_of);
            going.iter().for_each(|one| queue.finished(one.organisation));
            gone.extend(going);
        }
        counts(&gone, &both)
    }

    #[test]
    fn places_that_come_free_one_by_one_are_shared_in_proportion_too() {
        assert_eq!(one_by_one([1, 1], 100), [50, 50]);
        assert_eq!(
            one_by_one([10_000, 1], 100),
            [50, 50],
            "nobody can have more than the one place"
        );
    }

    #[test]
    fn who_may_have_little_is_late_and_never_forgotten() {
        let mut queue = DialQueue::new(QueueLimits { total: 10, waiting: 10_000, ..LIMITS });
        let [large, small] = [(); 2].map(|()| OrganisationId::random());
        let limit_of = |whose| if whose == large { 9 } else { 1 };
        fill(&mut queue, large, 1_000);
        fill(&mut queue, small, 100);
        let mut gone = queue.next(1, limit_of);
        for _ in 0..99 {
            queue.finished(gone.last().expect("one goes").organisation);
            gone.extend(queue.next(1, limit_of));
        }
        assert_eq!(counts(&gone, &[large, small]), [90, 10]);
    }

    #[test]
    fn a_limit_holds_from_the_moment_it_is_changed() {
        let mut queue = DialQueue::new(LIMITS);
        let whose = OrganisationId::random();
        fill(&mut queue, whose, 10);
        assert_eq!(queue.next(100, |_| 1).len(), 1);
        assert!(queue.next(100, |_| 1).is_empty());
        assert_eq!(queue.next(100, |_| 4).len(), 3, "raised");
        queue.finished(whose);
        assert!(queue.next(100, |_| 2).is_empty(), "lowered: what is up stays up");
    }

    #[test]
    fn no_more_go_than_the_node_has_room_for() {
        let mut queue = DialQueue::new(LIMITS);
        fill(&mut queue, OrganisationId::random(), 3);
        assert!(queue.next(0, three).is_empty());
        assert_eq!(queue.next(1, three).len(), 1);
        assert_eq!(queue.next(100, three).len(), 2);
    }

    #[test]
    fn a_second_call_with_the_same_id_is_refused() {
        let mut queue = DialQueue::new(LIMITS);
        let (now, first) = (clock::now(), request(OrganisationId::random()));
        queue.push(now, first.clone()).expect("there is room");
        assert_eq!(queue.push(now, first.clone()), Err(Box::new(first)));
        assert_eq!(queue.waiting(), 1);
    }

    /// Pushes one call and says whose was crowded out, if one was.
    fn crowd(queue: &mut DialQueue, whose: OrganisationId) -> Option<OrganisationId> {
        let newest = fill(queue, whose, 1)[0];
        let out = queue.crowded_out(whose)?;
        assert_eq!(id(&out) == newest, out.organisation == whose, "the newest of its own");
        Some(out.organisation)
    }

    #[test]
    fn no_organisation_fills_the_queue_and_who_comes_late_finds_a_place() {
        let mut queue = DialQueue::new(QueueLimits { waiting: 6, ..LIMITS });
        let [first, second, late] = [(); 3].map(|()| OrganisationId::random());
        for whose in [first, second] {
            for _ in 0..3 {
                assert_eq!(crowd(&mut queue, whose), None);
            }
            assert_eq!(crowd(&mut queue, whose), Some(whose), "half of the places, and no more");
        }
        let out = [(); 2].map(|()| crowd(&mut queue, late).expect("the queue is full"));
        assert!(out == [first, second] || out == [second, first], "of whom most wait");
        assert_eq!(crowd(&mut queue, late), Some(late), "as many wait as of any other");
        assert_eq!(queue.waiting(), 6);
        let left = queue.drain();
        assert_eq!(counts(&left, &[first, second, late]), [2, 2, 2]);
    }

    #[test]
    fn a_call_that_can_go_at_once_needs_no_place_to_wait() {
        let mut queue = DialQueue::new(QueueLimits { waiting: 2, ..LIMITS });
        let [many, one] = [(); 2].map(|()| OrganisationId::random());
        let limit_of = |_| 1;
        fill(&mut queue, many, 2);
        assert_eq!(queue.next(100, limit_of).len(), 1);
        fill(&mut queue, many, 1);
        fill(&mut queue, one, 1);
        assert_eq!(counts(&queue.next(100, limit_of), &[many, one]), [0, 1]);
        assert_eq!(queue.crowded_out(one), None);
        assert_eq!(queue.crowded_out(many).map(|out| out.organisation), Some(many));
    }

    #[test]
    fn a_call_is_withdrawn_once_and_only_while_it_waits() {
        let mut queue = DialQueue::new(LIMITS);
        let ids = fill(&mut queue, OrganisationId::random(), 3);
        assert_eq!(queue.next(100, |_| 1).len(), 1);
        assert_eq!(queue.cancel(ids[0]), None, "it is placed");
        assert_eq!(queue.cancel(ids[2]).as_ref().map(id), Some(ids[2]));
        assert_eq!(queue.cancel(ids[2]), None);
        assert_eq!(queue.drain().iter().map(id).collect::<Vec<_>>(), ids[1..2]);
        assert_eq!((queue.waiting(), queue.poll_timeout()), (0, None));
    }

    #[test]
    fn a_call_that_waits_for_too_long_comes_back() {
        let mut queue = DialQueue::new(LIMITS);
        let (start, second) = (clock::now(), Duration::from_secs(1));
        let (one, other) = (OrganisationId::random(), OrganisationId::random());
        let (first, then) = (request(one), request(other));
        queue.push(start, first.clone()).expect("there is room");
        queue.push(start + second, then.clone()).expect("there is room");
        assert_eq!(queue.poll_timeout(), Some(start + LIMITS.patience));
        assert!(queue.expired(start + LIMITS.patience - second / 2).is_empty());
        assert_eq!(queue.expired(start + LIMITS.patience), [first]);
        assert_eq!(queue.poll_timeout(), Some(start + LIMITS.patience + second));
        assert_eq!(queue.next(100, three), [then]);
        assert_eq!(queue.poll_timeout(), None, "a call that is placed does not expire");
    }

    #[test]
    fn an_organisation_that_never_called_has_nothing_to_finish() {
        let mut queue = DialQueue::new(LIMITS);
        queue.finished(OrganisationId::random());
        let whose = OrganisationId::random();
        fill(&mut queue, whose, 1);
        queue.finished(whose);
        assert_eq!((queue.placed(), queue.next(100, three).len()), (0, 1));
        queue.finished(whose);
        queue.finished(whose);
        assert_eq!((queue.placed(), queue.lanes.len()), (0, 0), "nothing is kept of who is idle");
    }

    #[test]
    fn nobody_waits_for_ever_while_others_come_and_go() {
        let mut queue = DialQueue::new(QueueLimits { total: 1, waiting: 10_000, ..LIMITS });
        let greedy: Vec<_> = (0..10).map(|_| OrganisationId::random()).collect();
        for whose in &greedy {
            fill(&mut queue, *whose, 50);
        }
        let patient = fill(&mut queue, OrganisationId::random(), 1)[0];
        let mut rounds = 0;
        loop {
            let going = queue.next(100, three);
            let [only] = going.as_slice() else { panic!("one place, {} calls", going.len()) };
            if id(only) == patient {
                break;
            }
            rounds += 1;
            assert!(rounds <= 500, "all that came earlier have gone");
            queue.finished(only.organisation);
            let now = clock::now();
            queue.push(now, request(only.organisation)).expect("there is room");
        }
    }

    /// A plain generator: the test must be the same every time.
    fn random(state: &mut u64, below: usize) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        usize::try_from(*state % below as u64).expect("below")
    }

    /// What the queue should hold, kept the slow way.
    #[derive(Default)]
    struct Model {
        limit: HashMap<OrganisationId, usize>,
        waiting: Vec<(Instant, ConversationId, OrganisationId)>,
        placed: Vec<OrganisationId>,
    }

    impl Model {
        fn of(&self, whose: OrganisationId) -> usize {
            self.placed.iter().filter(|one| **one == whose).count()
        }

        fn going(&mut self, limits: QueueLimits, going: &[DialRequest]) {
            let mut gone = HashSet::new();
            for request in going {
                let first =
                    self.waiting.iter().find(|(_, _, whose)| *whose == request.organisation);
                assert_eq!(first.map(|(_, id, _)| *id), Some(id(request)), "first in, first out");
                self.waiting.retain(|(_, waiting, _)| *waiting != id(request));
                self.placed.push(request.organisation);
                gone.insert(request.organisation);
            }
            for whose in gone {
                assert!(self.of(whose) <= self.limit[&whose]);
            }
            assert!(self.placed.len() <= limits.total);
        }
    }

    impl Model {
        fn waiting_of(&self, whose: OrganisationId) -> usize {
            self.waiting.iter().filter(|(.., of)| *of == whose).count()
        }

        fn crowded(
            &mut self,
            limits: QueueLimits,
            (pushed, out): (Option<OrganisationId>, Option<DialRequest>),
        ) {
            if let Some(out) = out {
                let (from, own) = (out.organisation, pushed.expect("nobody else is crowded out"));
                let newest = self.waiting.iter().rposition(|(.., whose)| *whose == from);
                let (_, newest, _) = self.waiting[newest.expect("it waited")];
                assert_eq!(newest, id(&out), "the newest of its lane");
                let is_longest = |(.., other): &(_, _, OrganisationId)| {
                    self.waiting_of(*other) <= self.waiting_of(from)
                };
                assert!(
                    self.waiting_of(own) > limits.share() || self.waiting.iter().all(is_longest)
                );
                self.waiting.retain(|one| one.1 != newest);
            }
            assert!(self.waiting.len() <= limits.waiting);
            let fits =
                |(.., whose): &(_, _, OrganisationId)| self.waiting_of(*whose) <= limits.share();
            assert!(self.waiting.iter().all(fits));
        }
    }

    /// Whether a waiting call could have gone, and did not.
    fn leaves_places_idle(model: &Model, limits: QueueLimits) -> bool {
        let could = |whose| model.of(whose) < model.limit[&whose];
        model.placed.len() < limits.total && model.waiting.iter().any(|(.., whose)| could(*whose))
    }

    #[test]
    fn whatever_happens_limits_and_order_hold_and_no_place_stays_idle() {
        for seed in 1..200_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut dice = |below| random(&mut state, below);
            let limits = QueueLimits {
                total: 1 + dice(8),
                waiting: 1 + dice(30),
                patience: Duration::from_secs(20),
            };
            let organisations: Vec<_> = (0..=dice(5)).map(|_| OrganisationId::random()).collect();
            let (mut queue, mut model) = (DialQueue::new(limits), Model::default());
            model.limit.extend(organisations.iter().map(|whose| (*whose, 1 + dice(4))));
            let mut now = clock::now();
            for _ in 0..200 {
                let mut pushed = None;
                match dice(6) {
                    0..=2 => {
                        let request = request(organisations[dice(organisations.len())]);
                        pushed = Some(request.organisation);
                        model.waiting.push((now, id(&request), request.organisation));
                        queue.push(now, request).expect("it is new");
                    }
                    3 if !model.placed.is_empty() => {
                        let whose = model.placed.swap_remove(dice(model.placed.len()));
                        queue.finished(whose);
                    }
                    4 if !model.waiting.is_empty() => {
                        let (_, id, _) = model.waiting.remove(dice(model.waiting.len()));
                        assert!(queue.cancel(id).is_some());
                    }
                    _ => now += Duration::from_secs(1),
                }
                let expired: Vec<_> = queue.expired(now).iter().map(id).collect();
                let late = |(came, ..): &&(Instant, _, _)| *came + limits.patience <= now;
                let wanted: Vec<_> = model.waiting.iter().filter(late).map(|one| one.1).collect();
                assert_eq!(expired, wanted);
                model.waiting.retain(|one| !expired.contains(&one.1));
                let going = queue.next(usize::MAX, |whose| model.limit[&whose]);
                model.going(limits, &going);
                let out = pushed.and_then(|whose| queue.crowded_out(whose));
                model.crowded(limits, (pushed, out));
                assert!(!leaves_places_idle(&model, limits), "seed {seed}");
                assert_eq!(queue.waiting(), model.waiting.len());
                assert_eq!(queue.placed(), model.placed.len());
                let next = model.waiting.first().map(|(came, ..)| *came + limits.patience);
                assert_eq!(queue.poll_timeout(), next);
            }
        }
    }
}
