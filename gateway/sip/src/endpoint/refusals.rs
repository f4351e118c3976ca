//! Saying no: refusals that keep no transaction (RFC 3261 §8.2.7).

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::compose::{self, Answer};
use super::event::{Headers, Refused, Trust};
use super::table::Keyed;
use crate::flow::Flow;
use crate::message::Request;
use crate::method::Method;
use crate::transaction::key::Sought;

/// Refused calls that may wait for `poll_refused`; what comes on top is refused all the same.
const MAX_REFUSED: usize = 64;

/// A final response that says no, and the header that says what would be right.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) header: Option<(&'static str, String)>,
}

impl Refusal {
    /// A status that says everything.
    pub(super) const fn of(status: u16) -> Refusal {
        Refusal { status, header: None }
    }
}

/// Calls that found no room, by the keys of their INVITEs.
///
/// Their refusal keeps no transaction, and its reason passes. A repeat that waited behind the first, or was
/// on its way when we answered, would be taken for a new call: one whose caller has gone.
pub(super) struct TurnedAway {
    keyed: Keyed,
    keys: HashSet<u64>,
    /// The same, oldest first.
    order: VecDeque<(Instant, u64)>,
}

impl TurnedAway {
    /// Those remembered at most; then the oldest make way.
    const MAX: usize = 32_768;

    /// 64·T1: by then nobody repeats an INVITE (RFC 3261 §17.1.1.2, timer B).
    const LIFE: Duration = Duration::from_secs(32);

    /// Nobody yet. `key` is secret.
    pub(super) fn new(key: u128) -> TurnedAway {
        TurnedAway { keyed: Keyed::by(key), keys: HashSet::new(), order: VecDeque::new() }
    }

    fn holds(&mut self, now: Instant, key: &[u8]) -> bool {
        self.forget_old(now);
        self.keys.contains(&self.keyed.hash_one(key))
    }

    fn note(&mut self, now: Instant, key: &[u8]) {
        self.forget_old(now);
        let key = self.keyed.hash_one(key);
        if !self.keys.insert(key) {
            return;
        }
        self.order.push_back((now, key));
        if self.order.len() > Self::MAX {
            self.forget_oldest();
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let is_old = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) >= Self::LIFE;
        while self.order.front().is_some_and(is_old) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.keys.remove(&key);
        }
    }
}

impl Endpoint {
    /// Refuses a request without keeping anything of it; a stranger is not even refused. The application
    /// hears of it when it was a new call.
    pub(super) fn refuse(
        &mut self,
        flow: Flow,
        request: &Request,
        trust: Trust,
        refusal: &Refusal,
    ) {
        self.note_refused(flow, request, trust, refusal.status);
        self.say_no(flow, request, trust, refusal);
    }

    /// There is no room for the request, or no time.
    pub(super) fn refuse_busy(
        &mut self,
        now: Instant,
        flow: Flow,
        request: &Request,
        trust: Trust,
    ) {
        if trust == Trust::Known && begins_call(request) {
            let key = self.key.server(request, &flow, Sought::Own);
            self.turned_away.note(now, key);
        }
        let refusal = self.no_room();
        self.refuse(flow, request, trust, &refusal);
    }

    /// Refuses a call that begins while we are busy, and its repeats even afterwards; says whether it has.
    pub(super) fn turns_away(
        &mut self,
        now: Instant,
        flow: Flow,
        request: &Request,
        trust: Trust,
    ) -> bool {
        let key = self.key.server(request, &flow, Sought::Own);
        let is_repeated = self.turned_away.holds(now, key);
        if is_repeated {
            let refusal = self.no_room();
            self.say_no(flow, request, trust, &refusal);
        } else if self.busy {
            self.refuse_busy(now, flow, request, trust);
        }
        is_repeated || self.busy
    }

    fn no_room(&self) -> Refusal {
        let wait = self.options.retry_after_seconds.to_string();
        Refusal { status: 503, header: Some(("Retry-After", wait)) }
    }

    fn say_no(&mut self, flow: Flow, request: &Request, trust: Trust, refusal: &Refusal) {
        if trust == Trust::Stranger || request.method() == Method::Ack {
            return;
        }
        let key = self.key.server(request, &flow, Sought::Own);
        let tag = compose::identifier(self.options.node, &self.random.token_for(key));
        let header = refusal.header.as_ref().map(|(name, value)| (*name, value.as_str()));
        let headers: Headers<'_> = header.as_slice();
        let answer = Answer::new(refusal.status, Some(&tag));
        if let Ok(bytes) = compose::answer(request, flow.remote, &answer, headers, None) {
            self.transmit(flow, bytes);
        }
    }

    /// Keeps a refused call for `poll_refused`. A merged one is none: its twin is served.
    fn note_refused(&mut self, flow: Flow, request: &Request, trust: Trust, status: u16) {
        if begins_call(request) && status != 482 && self.refused.len() < MAX_REFUSED {
            self.refused.push_back(Refused { request: request.clone(), flow, status, trust });
        }
    }
}

/// An INVITE outside of any dialog.
fn begins_call(request: &Request) -> bool {
    request.method() == Method::Invite && request.to().tag().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::testing::epoch;

    #[test]
    fn who_was_turned_away_is_known_for_as_long_as_it_may_repeat() {
        let (mut away, start) = (TurnedAway::new(7), epoch());
        away.note(start, b"one");
        away.note(start + Duration::from_secs(1), b"two");
        away.note(start + Duration::from_secs(2), b"one");
        assert!(away.holds(start + Duration::from_secs(31), b"one"));
        assert!(!away.holds(start + Duration::from_secs(32), b"one"), "it counts from the first");
        assert!(away.holds(start + Duration::from_secs(32), b"two"));
        assert!(!away.holds(start, b"three"));
    }

    #[test]
    fn the_oldest_of_too_many_make_way() {
        let (mut away, now) = (TurnedAway::new(7), epoch());
        for number in 0..=TurnedAway::MAX {
            away.note(now, &number.to_be_bytes());
        }
        assert!(!away.holds(now, &0_usize.to_be_bytes()));
        assert!(away.holds(now, &1_usize.to_be_bytes()));
        away.note(now, &2_usize.to_be_bytes());
        assert!(away.holds(now, &1_usize.to_be_bytes()), "who is known takes no place");
        assert_eq!((away.keys.len(), away.order.len()), (TurnedAway::MAX, TurnedAway::MAX));
    }
}
