//! Targets that have failed lately are tried last.
//!
//! A carrier's host often stands for several machines (RFC 3263 §4.2). One that is silent costs each call the
//! time to find that out, and one that has asked for a rest (503 with Retry-After, RFC 3261 §21.5.4) is to be
//! given it. So a target that failed stands behind its neighbours for a while; the first call after that finds
//! out whether it is well again. A target without neighbours is always tried: there is nothing to turn to.
//!
//! What one trunk's calls have met says nothing to another's: failures are remembered per trunk.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use config::ids::TrunkId;
use sip::{Response, Transport};

use super::Shard;
use super::dial::Dial;
use crate::call::dial::{Input, State};
use crate::net::target::Target;

/// How long a target that did not answer stands behind.
const REST: Duration = Duration::from_secs(30);

/// The longest rest a carrier may ask for.
const REST_MAX: Duration = Duration::from_secs(300);

/// Targets that are remembered; the next one is not avoided.
const MAX_AVOIDED: usize = 1024;

/// Who has failed whom, and until when that counts.
#[derive(Debug, Default)]
pub(super) struct Avoided {
    until: HashMap<(Option<TrunkId>, Target), Instant>,
}

impl Avoided {
    /// A target has failed.
    pub(super) fn avoid(&mut self, now: Instant, who: (Option<TrunkId>, Target), rest: Duration) {
        if self.until.len() >= MAX_AVOIDED {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() < MAX_AVOIDED {
            self.until.insert(who, now + rest.min(REST_MAX));
        }
    }

    /// A target has answered.
    pub(super) fn welcome(&mut self, who: &(Option<TrunkId>, Target)) {
        self.until.remove(who);
    }

    /// The targets in their order, those that failed lately behind the others.
    pub(super) fn behind(
        &self,
        now: Instant,
        trunk: Option<TrunkId>,
        targets: Vec<Target>,
    ) -> Vec<Target> {
        if self.until.is_empty() {
            return targets;
        }
        let fails = |target: &Target| {
            self.until.get(&(trunk, target.clone())).is_some_and(|until| *until > now)
        };
        let (failing, mut well): (Vec<_>, Vec<_>) = targets.into_iter().partition(fails);
        well.extend(failing);
        well
    }
}

/// What became of an attempt, as far as the target is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// It answers.
    Well,
    /// No connection, no answer, or a broken one.
    Dead,
    /// It has asked to be left alone for a while.
    Tired(Duration),
}

impl Bearing {
    /// What a response says. A server error without Retry-After is about the call and not the target.
    pub(super) fn of(response: &Response) -> Bearing {
        let rest = (response.status() == 503).then(|| retry_after(response)).flatten();
        rest.map_or(Bearing::Well, Bearing::Tired)
    }
}

/// The seconds of Retry-After, up to its comment or parameters (RFC 3261 §20.33).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.header(sip::HeaderName::RetryAfter)?;
    let digits = value.trim_ascii_start();
    let end = digits.iter().position(|c| !c.is_ascii_digit()).unwrap_or(digits.len());
    let digits = str::from_utf8(digits.get(..end)?).ok()?;
    digits.parse().ok().map(Duration::from_secs)
}

impl Dial {
    /// Which of whose targets is being tried.
    fn attempted(&self) -> Option<(Option<TrunkId>, Target)> {
        self.target.clone().map(|target| (self.wanted.trunk, target))
    }

    /// Whether the INVITE went there in a datagram, and nothing has come back yet.
    fn is_unheard_at(&self, remote: SocketAddr) -> bool {
        let is_there =
            |target: &Target| target.transport == Transport::Udp && target.address == remote;
        self.machine.state() == State::Inviting && self.target.as_ref().is_some_and(is_there)
    }
}

impl Shard {
    /// Remembers how the target that a dial is trying bears itself.
    pub(super) fn note_target(&mut self, now: Instant, id: u64, bearing: Bearing) {
        let Some(who) = self.dials.get(&id).and_then(Dial::attempted) else { return };
        match bearing {
            Bearing::Well => self.avoided.welcome(&who),
            Bearing::Dead => self.avoided.avoid(now, who, REST),
            Bearing::Tired(rest) => self.avoided.avoid(now, who, rest),
        }
    }

    /// ICMP says that nobody listens where an INVITE went. As anybody can say so, it ends no call: it only
    /// saves waiting for a target that has not said a word, when there is another one.
    pub(super) fn handle_refused_datagram(&mut self, now: Instant, remote: SocketAddr) {
        let waits = |dial: &Dial| dial.is_unheard_at(remote);
        let ids: Vec<u64> =
            self.dials.iter().filter(|(_, dial)| waits(dial)).map(|(id, _)| *id).collect();
        for id in ids {
            self.note_target(now, id, Bearing::Dead);
            self.step(now, id, Input::Silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn target(last: u8) -> Target {
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 5060));
        Target { transport: Transport::Udp, address, name: "carrier.example".to_owned() }
    }

    fn order(avoided: &Avoided, now: Instant, trunk: Option<TrunkId>) -> Vec<u8> {
        let targets = avoided.behind(now, trunk, (1..=3).map(target).collect());
        targets
            .iter()
            .map(|target| match target.address {
                SocketAddr::V4(v4) => v4.ip().octets()[3],
                SocketAddr::V6(_) => 0,
            })
            .collect()
    }

    #[test]
    fn a_target_that_failed_stands_behind_until_its_rest_is_over_or_it_answers() {
        let (mut avoided, now) = (Avoided::default(), crate::clock::now());
        avoided.avoid(now, (None, target(1)), REST);
        avoided.avoid(now, (None, target(2)), REST / 2);
        assert_eq!(order(&avoided, now, None), [3, 1, 2]);
        assert_eq!(order(&avoided, now + REST / 2, None), [2, 3, 1]);
        avoided.welcome(&(None, target(1)));
        assert_eq!(order(&avoided, now, None), [1, 3, 2]);
        assert_eq!(order(&avoided, now + REST, None), [1, 2, 3]);
    }

    #[test]
    fn one_trunks_failure_is_not_anothers() {
        let (mut avoided, now) = (Avoided::default(), crate::clock::now());
        avoided.avoid(now, (Some(TrunkId::random()), target(1)), REST);
        assert_eq!(order(&avoided, now, None), [1, 2, 3]);
        assert_eq!(order(&avoided, now, Some(TrunkId::random())), [1, 2, 3]);
    }

    #[test]
    fn nobody_rests_for_ever_and_memory_is_bounded() {
        let (mut avoided, now) = (Avoided::default(), crate::clock::now());
        avoided.avoid(now, (None, target(1)), Duration::MAX);
        assert_eq!(order(&avoided, now + REST_MAX, None), [1, 2, 3]);
        for _ in 0..MAX_AVOIDED + 10 {
            avoided.avoid(now, (Some(TrunkId::random()), target(1)), REST);
        }
        assert_eq!(avoided.until.len(), MAX_AVOIDED);
        avoided.avoid(now + REST_MAX, (None, target(2)), REST);
        assert_eq!(avoided.until.len(), 1, "what is over makes room");
    }
}
