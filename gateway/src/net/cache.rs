//! What DNS has said, for as long as it may be believed (RFC 1035 §3.2.1, RFC 2308, RFC 8767).
//!
//! ```text
//!  learned ──── TTL ────► stale ──── + 1 h ────► forgotten
//!     │                     │
//!     Fresh                 Stale: ask again; if nobody answers, this will do,
//!                                  and for 30 s nobody is asked
//!  failed, nothing known: Failed for 5 s, so that a dead name server costs one wait, not one per call
//! ```
//!
//! Time is an argument; nothing here asks anybody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::target::Service;

/// How long an answer is good for after its TTL when no name server answers.
const STALE: Duration = Duration::from_secs(3600);

/// How long a stale answer is given without asking again, once asking has failed (RFC 8767 §5).
const RECHECK: Duration = Duration::from_secs(30);

/// How long a failure is remembered when there is nothing to give instead (RFC 2308 §7).
const FAILED: Duration = Duration::from_secs(5);

/// The longest TTL that is believed.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// The longest that "there is no such record" is believed: a new record should work soon.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(60);

/// Most questions whose answers are kept.
const MAX_ENTRIES: usize = 4096;

/// Most records of one answer that are kept.
const MAX_RECORDS: usize = 64;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The name in lower case, without its last dot.
    pub(super) name: String,
    /// The type of record.
    pub(super) kind: Kind,
}

/// A type of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// SRV.
    Services,
    /// A.
    Ipv4,
    /// AAAA.
    Ipv6,
}

/// What a name server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// SRV records.
    Services(Arc<[Service]>),
    /// A or AAAA records.
    Addresses(Arc<[IpAddr]>),
    /// There are none, or the name server does not do such records.
    Nothing,
}

impl Answer {
    /// SRV records; of very many those of the lowest priorities.
    pub(super) fn of_services(mut services: Vec<Service>) -> Answer {
        services.sort_by_key(|one| one.priority);
        services.truncate(MAX_RECORDS);
        if services.is_empty() { Answer::Nothing } else { Answer::Services(services.into()) }
    }

    /// Addresses.
    pub(super) fn of_addresses(mut addresses: Vec<IpAddr>) -> Answer {
        addresses.truncate(MAX_RECORDS);
        if addresses.is_empty() { Answer::Nothing } else { Answer::Addresses(addresses.into()) }
    }
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The answer; no need to ask.
    Fresh(Answer),
    /// An answer whose time is over: ask, and take it if nobody answers.
    Stale(Answer),
    /// Asking has failed a moment ago.
    Failed,
    /// Nothing.
    Unknown,
}

/// Answers by question.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Question, Entry>,
}

struct Entry {
    /// `None` when asking has only ever failed.
    answer: Option<Answer>,
    /// Until then it is not asked again.
    fresh_until: Instant,
    /// Then it is forgotten.
    kept_until: Instant,
}

impl Cache {
    /// What is known at `now`.
    pub(super) fn look(&self, now: Instant, question: &Question) -> Known {
        let Some(entry) = self.entries.get(question).filter(|entry| now < entry.kept_until) else {
            return Known::Unknown;
        };
        match (&entry.answer, now < entry.fresh_until) {
            (Some(answer), true) => Known::Fresh(answer.clone()),
            (Some(answer), false) => Known::Stale(answer.clone()),
            (None, true) => Known::Failed,
            (None, false) => Known::Unknown,
        }
    }

    /// A name server has answered; `ttl` is what it said of how long that holds.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        question: Question,
        answer: Answer,
        ttl: Duration,
    ) {
        let most = if answer == Answer::Nothing { MAX_NEGATIVE_TTL } else { MAX_TTL };
        let fresh_until = now + ttl.min(most);
        let kept_until = fresh_until + STALE;
        self.put(now, question, Entry { answer: Some(answer), fresh_until, kept_until });
    }

    /// No name server has answered.
    pub(super) fn fail(&mut self, now: Instant, question: Question) {
        match self.entries.get_mut(&question).filter(|entry| now < entry.kept_until) {
            Some(Entry { answer: Some(_), fresh_until, kept_until }) => {
                *fresh_until = (*fresh_until).max((now + RECHECK).min(*kept_until));
            }
            _ => {
                let until = now + FAILED;
                let entry = Entry { answer: None, fresh_until: until, kept_until: until };
                self.put(now, question, entry);
            }
        }
    }

    /// Whether a question for SRV records that a name server will not answer may be taken to have
    /// none: nothing is known to the contrary.
    pub(super) fn may_lack_services(&self, now: Instant, question: &Question) -> bool {
        let known = self.look(now, question);
        let seen =
            matches!(known, Known::Fresh(Answer::Services(_)) | Known::Stale(Answer::Services(_)));
        question.kind == Kind::Services && !seen
    }

    /// Stores an entry; a full cache loses what would be forgotten first.
    fn put(&mut self, now: Instant, question: Question, entry: Entry) {
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&question) {
            self.entries.retain(|_, entry| now < entry.kept_until);
        }
        if self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(&question) {
            let first = self.entries.iter().min_by_key(|(_, entry)| entry.kept_until);
            if let Some(first) = first.map(|(question, _)| question.clone()) {
                self.entries.remove(&first);
            }
        }
        self.entries.insert(question, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn question(name: &str) -> Question {
        Question { name: name.to_owned(), kind: Kind::Ipv4 }
    }

    fn answer() -> Answer {
        Answer::of_addresses(vec!["192.0.2.7".parse().expect("an address")])
    }

    #[test]
    fn an_answer_is_fresh_for_its_ttl_then_stale_for_an_hour_then_gone() {
        let (mut cache, now) = (Cache::default(), clock::now());
        cache.learn(now, question("a"), answer(), 60 * SECOND);
        let known = |seconds: u32| cache.look(now + seconds * SECOND, &question("a"));
        assert_eq!(known(59), Known::Fresh(answer()));
        assert_eq!(known(60), Known::Stale(answer()));
        assert_eq!(known(3659), Known::Stale(answer()));
        assert_eq!(known(3660), Known::Unknown);
    }

    #[test]
    fn a_stale_answer_is_given_for_30_seconds_without_asking_when_asking_failed() {
        let (mut cache, now) = (Cache::default(), clock::now());
        cache.learn(now, question("a"), answer(), SECOND);
        cache.fail(now + 10 * SECOND, question("a"));
        let known =
            |cache: &Cache, seconds: u32| cache.look(now + seconds * SECOND, &question("a"));
        assert_eq!(known(&cache, 39), Known::Fresh(answer()));
        assert_eq!(known(&cache, 40), Known::Stale(answer()));
        for seconds in (40..3600).step_by(30) {
            cache.fail(now + seconds * SECOND, question("a"));
        }
        assert_eq!(known(&cache, 3601), Known::Unknown, "failures do not prolong it");
    }

    #[test]
    fn a_failure_without_any_answer_is_remembered_for_5_seconds() {
        let (mut cache, now) = (Cache::default(), clock::now());
        cache.fail(now, question("a"));
        assert_eq!(cache.look(now + 4 * SECOND, &question("a")), Known::Failed);
        assert_eq!(cache.look(now + 5 * SECOND, &question("a")), Known::Unknown);
    }

    #[test]
    fn that_there_is_nothing_is_believed_for_a_minute_at_most() {
        let (mut cache, now) = (Cache::default(), clock::now());
        cache.learn(now, question("a"), Answer::Nothing, 3600 * SECOND);
        cache.learn(now, question("b"), answer(), Duration::MAX.min(365 * 86_400 * SECOND));
        assert_eq!(cache.look(now + 59 * SECOND, &question("a")), Known::Fresh(Answer::Nothing));
        assert_eq!(cache.look(now + 60 * SECOND, &question("a")), Known::Stale(Answer::Nothing));
        assert_eq!(cache.look(now + 86_401 * SECOND, &question("b")), Known::Stale(answer()));
    }

    #[test]
    fn a_full_cache_forgets_what_ends_first_and_stays_bounded() {
        let (mut cache, now) = (Cache::default(), clock::now());
        for n in 0..MAX_ENTRIES + 10 {
            let ttl = SECOND * u32::try_from(n + 1).expect("small");
            cache.learn(now, question(&n.to_string()), answer(), ttl);
        }
        assert_eq!(cache.entries.len(), MAX_ENTRIES);
        assert_eq!(cache.look(now, &question("9")), Known::Unknown);
        assert_eq!(cache.look(now, &question("10")), Known::Fresh(answer()));
    }

    #[test]
    fn of_a_thousand_records_the_first_priorities_are_kept() {
        let many = (0..1000).rev().map(|priority| Service {
            priority,
            weight: 0,
            port: 5060,
            host: "x".to_owned(),
        });
        let Answer::Services(kept) = Answer::of_services(many.collect()) else { panic!("none") };
        assert_eq!((kept.len(), kept[63].priority), (MAX_RECORDS, 63));
    }
}
