//! Calls that we place: the queue, the agent first, then the callee over the customer's carrier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::calls::DialRequest;
use config::ids::ConversationId;
use config::model::OutboundConfig;
use config::snapshot::TrunkRoute;
use sip::Transport;
use tracing::info;

use super::Shard;
use super::call::{Call, Parties};
use super::leg::Side;
use super::login::Login;
use super::record::Record;
use super::wanted::{Outcome, Wanted};
use super::workflows::Undecided;
use crate::call::EndReason;
use crate::call::machine::{Input, Machine, State};
use crate::call::places::DialLimits;
use crate::net::target::Destination;
use crate::observe::metric::EndLabels;

/// One number dialled over a trunk, as one of its own.
pub(super) struct Dialled<'a> {
    pub(super) side: Side,
    /// Who is called.
    pub(super) callee: &'a str,
    /// The number that is shown.
    pub(super) shown: &'a str,
    pub(super) headers: Vec<(String, String)>,
}

impl Shard {
    /// Takes on a call to be placed when its turn comes. Where too many wait, one of them is not.
    pub(super) fn take_on(&mut self, now: Instant, request: DialRequest) {
        if self.is_draining() {
            return self.never_placed(&request, EndReason::Drained);
        }
        let whose = request.organisation;
        if let Err(request) = self.queue.push(now, request) {
            return self.never_placed(&request, EndReason::QueueFull);
        }
        self.start_waiting(now);
        if let Some(request) = self.queue.crowded_out(whose) {
            self.never_placed(&request, EndReason::QueueFull);
        }
    }

    /// Places as many waiting calls as limits allow, and ends those that waited for too long.
    pub(super) fn start_waiting(&mut self, now: Instant) {
        for request in self.queue.expired(now) {
            self.never_placed(&request, EndReason::QueueTimedOut);
        }
        if self.is_draining() {
            for request in self.queue.drain() {
                self.never_placed(&request, EndReason::Drained);
            }
            return;
        }
        let limits = DialLimits::from(&*self.services.settings);
        let room = limits.calls.saturating_sub(self.calls.len());
        let snapshot = self.services.snapshot.load();
        let limit_of = |whose| limits.of(&snapshot, whose);
        for request in self.queue.next(room, limit_of) {
            self.place(now, request);
        }
    }

    /// A call that never began: its record says why.
    fn never_placed(&mut self, request: &DialRequest, reason: EndReason) {
        let mut record = Record::of(&request.conversation);
        info!(conversation = %record.id(), reason = reason.code(), "call not placed");
        let labels = EndLabels { party: reason.party().as_str(), reason: reason.code() };
        self.services.metrics.ended.get_or_create(&labels).inc();
        self.services.live.ended(&record);
        if let Some(closing) = record.closing(reason, request.workflows.post.clone()) {
            self.services.journal.record(closing.without_media());
        }
    }

    /// Withdraws a call through the API: one that waits or rings is cancelled, one that was answered
    /// is hung up.
    pub(super) fn hang_up(&mut self, now: Instant, id: ConversationId) {
        if let Some(request) = self.queue.cancel(id) {
            return self.never_placed(&request, EndReason::CallCancelled);
        }
        let Some(&key) = self.by_conversation.get(&id) else { return };
        let answered = self.calls.get(&key).is_some_and(|call| call.accepted_at.is_some());
        let reason = if answered { EndReason::OperatorHungUp } else { EndReason::CallCancelled };
        self.handle_input(now, key, Input::HangUp(reason));
    }

    /// Begins a call: the agent's workflow runs, and the agent is reached, before anybody's telephone
    /// rings.
    fn place(&mut self, now: Instant, request: DialRequest) {
        let key = self.next_key;
        self.next_key += 1;
        let parties = Parties {
            organisation: request.organisation,
            trunk: Some(request.trunk),
            agent: request.agent,
            version: request.version,
            caller: request.number.to_string(),
            called: request.callee.to_string(),
            number: Some(request.number.to_string()),
        };
        let record = Record::of(&request.conversation);
        self.services.live.placed(&record);
        info!(
            call = key, conversation = %record.id(), organization = %parties.organisation,
            "placing a call"
        );
        let snapshot = self.services.snapshot.load();
        let trunk = snapshot.trunk(request.trunk);
        let max_duration = self.outbound_duration(trunk.and_then(outbound_config));
        self.by_conversation.insert(record.id(), key);
        self.loads.entry(request.trunk).or_default().live += 1;
        let rules = (self.services.settings.calls.agent_ending, max_duration);
        let undecided = Undecided { runtime: request.runtime, ..Undecided::default() };
        let call = Call {
            undecided: Box::new(undecided),
            told: record.ordered_with(),
            workflows: request.workflows,
            ..Call::new(now, Machine::outbound(), (parties, record), rules)
        };
        self.sessions.insert(call.session, key);
        self.calls.insert(key, call);
        self.live_changed();
        self.brief(now, key);
    }

    /// The agent is ready: now the callee.
    pub(super) fn dial_callee(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get(&key) else { return };
        let (callee, number) = (call.parties.called.clone(), call.parties.caller.clone());
        let snapshot = self.services.snapshot.load();
        let trunk = call.parties.trunk.and_then(|id| snapshot.trunk(id));
        let dialled = Dialled {
            side: Side::Carrier,
            callee: &callee,
            shown: &number,
            headers: vec![(
                "P-Asserted-Identity".to_owned(),
                format!("<sip:{number}@{}>", self.our_host()),
            )],
        };
        match trunk.and_then(|trunk| self.wanted(trunk, dialled)) {
            Some(wanted) => {
                self.set_limit(key, now + wanted.patience);
                self.dial(now, key, wanted);
            }
            None => self.handle_input(now, key, Input::DialFailed(EndReason::TrunkUnusable)),
        }
    }

    /// How a number is dialled over a trunk; `None` when the trunk takes no calls out.
    pub(super) fn wanted(&self, trunk: &TrunkRoute, dialled: Dialled<'_>) -> Option<Wanted> {
        let route = trunk.outbound.as_ref()?;
        let config = &route.config;
        let destination = destination(config);
        let from_user = config.from_user.as_deref().unwrap_or(dialled.shown);
        let from_host = config.from_host.as_deref().unwrap_or_else(|| self.our_host());
        let ring = config.ring_timeout_seconds;
        let ring = ring.unwrap_or(self.services.settings.calls.ring_timeout_seconds);
        Some(Wanted {
            side: dialled.side,
            destination,
            request_uri: format!("sip:{}@{}", dialled.callee, config.address),
            from: format!("<sip:{from_user}@{from_host}>"),
            to: format!("<sip:{}@{}>", dialled.callee, config.address),
            headers: dialled.headers,
            login: login(trunk),
            encryption: config.media_encryption,
            codecs: super::invite::codecs(config.codecs.as_deref()),
            trunk: Some(trunk.id),
            noise_cancellation: trunk.noise_cancellation,
            patience: Duration::from_secs(u64::from(ring)),
        })
    }

    /// The host that our From names.
    pub(super) fn our_host(&self) -> &str {
        let host = self.services.settings.sip.host.as_str();
        if host.is_empty() { "localhost" } else { host }
    }

    /// The longest that a call we take may last.
    pub(super) fn max_duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.services.settings.calls.max_duration_seconds))
    }

    /// The longest that a call we place may last.
    fn outbound_duration(&self, trunk: Option<&OutboundConfig>) -> Duration {
        let own = trunk.and_then(|config| config.max_duration_seconds);
        let own = own.unwrap_or(self.services.settings.calls.outbound_duration_seconds);
        Duration::from_secs(u64::from(own)).min(self.max_duration())
    }

    /// Nothing has come from the carrier, not even a 100: that is no callee who does not answer.
    fn never_heard(&mut self, key: u64) -> Input {
        let outcome = Outcome::new(EndReason::CarrierUnreachable, "no answer to the INVITE");
        let reason = outcome.reason;
        if let Some(call) = self.calls.get_mut(&key) {
            call.record.refused_by(&outcome);
        }
        Input::DialFailed(reason)
    }

    /// A time limit of a call has passed: what it means depends on how far the call has come.
    pub(super) fn handle_limit(&mut self, now: Instant, key: u64) {
        let input = match self.calls.get(&key).map(|call| call.machine.state()) {
            Some(State::Routing | State::Briefing) => Input::RunTimedOut,
            Some(State::Preparing | State::Connecting) => {
                Input::AgentGone(EndReason::AgentTimedOut)
            }
            Some(State::Dialling) if self.is_unheard(key) => self.never_heard(key),
            Some(State::Dialling | State::Ringing) => Input::RingTimedOut,
            _ => Input::DurationReached,
        };
        self.handle_input(now, key, input);
    }
}

/// Where a trunk's carrier is.
pub(super) fn destination(config: &OutboundConfig) -> Destination {
    let transport = match config.transport {
        config::model::Transport::Udp => Transport::Udp,
        config::model::Transport::Tcp => Transport::Tcp,
        config::model::Transport::Tls => Transport::Tls,
    };
    let (host, port) = split_port(&config.address);
    Destination { host: host.to_owned(), port, transport, secure: false }
}

fn outbound_config(trunk: &TrunkRoute) -> Option<&OutboundConfig> {
    trunk.outbound.as_ref().map(|route| &route.config)
}

/// A trunk's credentials at its carrier.
pub(super) fn login(trunk: &TrunkRoute) -> Option<Arc<Login>> {
    let route = trunk.outbound.as_ref()?;
    Some(Arc::new(Login {
        username: route.config.auth_username.clone(),
        password: route.password.clone(),
    }))
}

/// A host and its port, if one is written; an IPv6 address keeps its brackets.
pub(super) fn split_port(address: &str) -> (&str, Option<u16>) {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            port.parse().map_or((address, None), |port| (host, Some(port)))
        }
        _ => (address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_split_off_where_one_is_written() {
        for (address, host, port) in [
            ("carrier.example", "carrier.example", None),
            ("carrier.example:5070", "carrier.example", Some(5070)),
            ("192.0.2.1:5070", "192.0.2.1", Some(5070)),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[2001:db8::1]:5070", "[2001:db8::1]", Some(5070)),
            ("2001:db8::1", "2001:db8::1", None),
        ] {
            assert_eq!(split_port(address), (host, port), "{address}");
        }
    }
}
