//! Saying no: the challenge, the final response or the silence, and the record that explains it.

use std::time::{Duration, Instant};

use config::snapshot::Snapshot;
use sip::endpoint::{Refused, Reply, ServerTx, Trust};
use tracing::info;

use super::Shard;
use super::invite::Arrival;
use super::record::{self, Attempt};
use crate::call::admission::{Admitted, Considered, Refusal, Rule};
use crate::call::pace::Bucket;
use crate::net::{INBOUND_DEPTH, Inbound};
use crate::observe::metric::RuleLabels;

/// Refusals of sources that no trunk lists, silent or not, and of calls beyond what the gateway can set up, that
/// leave a decision record and a log line, per second; a flood is counted and fills neither the disk nor
/// the log.
const FLOODS_RECORDED_PER_SECOND: u32 = 20;

/// Messages that may wait for the shard before calls that begin are refused: a quarter of the queue. About
/// a twentieth of a second's work, and more than a host that pauses lets pile up at everyday rates. What is
/// under way must not wait behind calls that come faster than they can be set up.
const CROWDED: usize = INBOUND_DEPTH / 4;

/// How long the first of them has waited then, or else they are little work.
const CROWDED_FOR: Duration = Duration::from_millis(20);

impl Shard {
    /// Whether calls come faster than they can be set up, or than their records can be kept. `next` is what
    /// comes first of all that waits: many messages of little work do not keep anybody waiting, and a few
    /// that a pause of the host has made old are soon done.
    pub(super) fn is_overloaded(&self, now: Instant, next: &Inbound, waiting: usize) -> bool {
        is_crowded(self.endpoint.is_busy(), now, next, waiting) || self.services.journal.is_behind()
    }

    /// 401 with one challenge per algorithm, the most wanted first (RFC 8760 §2.4).
    pub(super) fn challenge(&mut self, now: Instant, tx: ServerTx, stale: bool) {
        self.services.metrics.challenged.inc();
        let challenges = self.nonces.challenge(crate::clock::unix_seconds(), stale);
        let headers: Vec<(&str, &str)> =
            challenges.iter().map(|value| ("WWW-Authenticate", value.as_str())).collect();
        self.respond_plain(now, tx, 401, &headers);
    }

    pub(super) fn respond_plain(
        &mut self,
        now: Instant,
        tx: ServerTx,
        status: u16,
        headers: &[(&str, &str)],
    ) {
        let mut all = Vec::with_capacity(headers.len() + 1);
        all.extend_from_slice(headers);
        all.push(("Server", self.services.settings.sip.user_agent.as_str()));
        let reply = Reply { headers: &all, ..Reply::new(status) };
        if let Err(why) = self.endpoint.respond(now, tx, reply) {
            tracing::debug!(status, %why, "a response could not be sent");
        }
    }

    pub(super) fn refuse(&mut self, arrival: &Arrival<'_>, refusal: Refusal) {
        let fields = match refusal.status {
            Some(503 | 480) => self.retry_after(),
            _ => Vec::new(),
        };
        self.refuse_with(arrival, refusal, &fields);
    }

    /// Answers (or not), counts, and leaves the decision record.
    pub(super) fn refuse_with(
        &mut self,
        arrival: &Arrival<'_>,
        refusal: Refusal,
        fields: &[(&'static str, String)],
    ) {
        let Arrival { now, tx, .. } = *arrival;
        match refusal.status {
            None => self.endpoint.ignore(now, tx),
            Some(401) => self.challenge(now, tx, false),
            Some(status) => {
                let headers: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
                self.respond_plain(now, tx, status, &headers);
            }
        }
        let detail = fields.iter().find(|(name, _)| *name == "Warning").map(|(_, v)| v.clone());
        let attempt = Attempt::read(arrival.request, &arrival.flow);
        self.record_refusal(now, arrival.snapshot, attempt, (refusal, detail));
    }

    /// A call that the endpoint refused by itself: counted and recorded as any other.
    pub(super) fn handle_refused(&mut self, now: Instant, refused: &Refused) {
        let snapshot = self.services.snapshot.load();
        let rule = match refused.status {
            415 => Rule::BodyUnsupported,
            416 => Rule::UriUnsupported,
            420 => Rule::ExtensionRequired,
            503 if self.endpoint.is_busy() => Rule::Overloaded,
            _ => Rule::GatewayFull,
        };
        let listed = snapshot.trunks_allowing(refused.flow.remote.ip());
        let considered = listed.iter().map(|trunk| Considered {
            trunk_id: trunk.id,
            found_by: "address",
            verdict: rule.code(),
        });
        let mut organisations: Vec<_> = listed.iter().map(|t| t.organization_id).collect();
        organisations.dedup();
        let organisation = organisations.first().copied().filter(|_| organisations.len() == 1);
        let refusal = Refusal {
            rule,
            status: (refused.trust == Trust::Known).then_some(refused.status),
            organisation,
            considered: considered.collect(),
            called_number: None,
        };
        let attempt = Attempt::read(&refused.request, &refused.flow);
        self.record_refusal(now, &snapshot, attempt, (refusal, None));
    }

    fn record_refusal(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        attempt: Attempt,
        (refusal, detail): (Refusal, Option<String>),
    ) {
        let rule = refusal.rule.code();
        self.services.metrics.refused.get_or_create(&RuleLabels { rule }).inc();
        let listed = !snapshot.trunks_allowing(attempt.source.ip()).is_empty();
        let flood = if !listed {
            Some(("stranger_record", &mut self.strangers))
        } else if refusal.rule == Rule::Overloaded {
            Some(("overload_record", &mut self.overload))
        } else {
            None
        };
        if let Some((limit, bucket)) = flood
            && !bucket
                .get_or_insert_with(|| Bucket::full(FLOODS_RECORDED_PER_SECOND, now))
                .take(FLOODS_RECORDED_PER_SECOND, now)
        {
            return self.shed(limit);
        }
        info!(
            rule, status = refusal.status, source = %attempt.source,
            organization = refusal.organisation.map(|id| id.to_string()), "INVITE refused"
        );
        self.services.journal.record(record::decision(attempt, snapshot, refusal, detail));
    }
}

/// Whether so much is `waiting`, and the `next` of it has waited for so long, that calls are refused. Where
/// the next one does not say for how long, it is as before.
fn is_crowded(before: bool, now: Instant, next: &Inbound, waiting: usize) -> bool {
    waiting >= CROWDED
        && match next {
            Inbound::Message { at, .. } => now.saturating_duration_since(*at) >= CROWDED_FOR,
            Inbound::Refused { .. } | Inbound::Closed { .. } => before,
        }
}

/// A refusal of a call that was admitted, but cannot be carried.
pub(super) fn refused_later(admitted: &Admitted, rule: Rule) -> Refusal {
    let considered = admitted.trunk.map(|trunk_id| Considered {
        trunk_id,
        found_by: "number",
        verdict: rule.code(),
    });
    Refusal {
        rule,
        status: Some(rule.sip_status()),
        organisation: Some(admitted.organisation),
        considered: considered.into_iter().collect(),
        called_number: admitted.number.clone(),
    }
}

#[cfg(test)]
mod tests {
    use sip::{Flow, Transport};

    use super::*;

    #[test]
    fn many_messages_of_which_the_first_has_waited_are_a_crowd() {
        let at = crate::clock::now();
        let address = "192.0.2.1:5060".parse().expect("an address");
        let flow =
            Flow { transport: Transport::Udp, local: address, remote: address, connection: 0 };
        let message = Inbound::Message { flow, bytes: bytes::Bytes::new(), at, place: None };
        let after = |ms| at + Duration::from_millis(ms);
        for (waiting, ms, expected) in
            [(1_023, 20, false), (1_024, 19, false), (1_024, 20, true), (4_096, 19, false)]
        {
            for before in [false, true] {
                assert_eq!(is_crowded(before, after(ms), &message, waiting), expected, "{waiting}");
            }
        }
        let earlier = at - Duration::from_secs(1);
        assert!(!is_crowded(false, earlier, &message, 4_096), "it was read after we looked");
        let closed = Inbound::Closed { flow, place: None };
        for before in [false, true] {
            assert_eq!(is_crowded(before, after(20), &closed, 1_024), before);
            assert!(!is_crowded(before, after(20), &closed, 1_023));
        }
    }
}
