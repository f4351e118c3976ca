//! One call on the shard, and how the machine's actions are carried out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::briefing::AgentWorkflows;
use config::ids::{AgentId, AgentVersionId, OrganisationId, TrunkId};
use config::model::{AgentEnding, Clip};
use config::routing::Told;
use media::Far;
use sip::Request;
use sip::endpoint::{Content, DialogId, Reply, ServerTx};
use tracing::{debug, error, info};

use super::flows::Farewell;
use super::inputs::Alarm;
use super::leg::{Leg, Media, Side};
use super::record::Record;
use super::request::Pending;
use super::session_id::SessionId;
use super::transfer::Transfer;
use super::wanted::Outcome;
use super::workflows::Undecided;
use super::{Shard, live_status};
use crate::agent::{AgentEvent, AgentHandle, End, LinkError, TickSeat, Wake};
use crate::call::EndReason;
use crate::call::admission::Admitted;
use crate::call::end::EndRow;
use crate::call::machine::{Action, Input, Machine, State};
use crate::observe::metric::EndLabels;

/// The agent of a call.
pub(super) enum Agent {
    /// Lives in the media worker; ready as soon as media is.
    Builtin,
    /// Lives elsewhere, behind a link.
    Linked(AgentHandle),
    /// A SIP endpoint, on a leg of its own.
    Sip,
    /// Over.
    Gone,
}

/// Whose call it is, and between whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parties {
    pub(super) organisation: OrganisationId,
    /// The carrier's trunk; `None` for a call to an agent's own SIP endpoint.
    pub(super) trunk: Option<TrunkId>,
    pub(super) agent: Option<AgentId>,
    pub(super) version: Option<AgentVersionId>,
    /// Who called: a number where it is one.
    pub(super) caller: String,
    /// Who was called: a number, or an agent's id.
    pub(super) called: String,
    /// The agent side's number, if there is one.
    pub(super) number: Option<String>,
}

impl From<Admitted> for Parties {
    fn from(admitted: Admitted) -> Self {
        Parties {
            organisation: admitted.organisation,
            trunk: admitted.trunk,
            agent: admitted.answering.map(|by| by.agent),
            version: admitted.answering.map(|by| by.version),
            caller: admitted.caller,
            called: admitted.called,
            number: admitted.number,
        }
    }
}

/// Hops of a request that begins with us, or that does not say how many it may take
/// (RFC 3261 §8.1.1.6, §16.6).
pub(super) const MAX_FORWARDS: u8 = 70;

/// One call: a leg to the carrier, and an agent.
pub(super) struct Call {
    pub(super) machine: Machine,
    pub(super) parties: Parties,
    pub(super) record: Record,
    /// What the call is called by all gateways that pass it on.
    pub(super) session: SessionId,
    /// The user part of the Request-URI that it came with; empty when it began here.
    pub(super) dialled: String,
    /// The carrier's INVITE, when the call came in.
    pub(super) tx: Option<ServerTx>,
    pub(super) carrier: Option<Leg>,
    pub(super) agent_leg: Option<Box<Leg>>,
    pub(super) target: Option<Box<Leg>>,
    /// What the carrier's leg will be connected to when its media opens.
    pub(super) far: Option<Far>,
    /// The leg that is being dialled.
    pub(super) dial: Option<u64>,
    pub(super) transfer: Option<Transfer>,
    /// What it needs until its agent is reached.
    pub(super) undecided: Box<Undecided>,
    /// What the agent is told beforehand.
    pub(super) told: Told,
    /// What runs before and after the conversation.
    pub(super) workflows: Arc<AgentWorkflows>,
    pub(super) agent: Agent,
    /// Keeps the ticks of the media worker coming to the agent link.
    pub(super) seat: Option<TickSeat>,
    pub(super) wake: Arc<Wake>,
    pub(super) ending: AgentEnding,
    /// Hops that a leg we make on behalf of this call may take (RFC 3261 §16.6).
    pub(super) max_forwards: u8,
    pub(super) received_at: Instant,
    pub(super) accepted_at: Option<Instant>,
    /// When a workflow must be done; then, when the agent must be ready; then, when it has rung for long enough; once answered, when
    /// the call has lasted long enough.
    pub(super) limit: Option<Instant>,
    pub(super) max_duration: Duration,
}

impl Call {
    /// A call with nothing but its parties.
    pub(super) fn new(
        now: Instant,
        machine: Machine,
        (parties, record): (Parties, Record),
        (ending, max_duration): (AgentEnding, Duration),
    ) -> Self {
        Call {
            machine,
            parties,
            session: SessionId::of_conversation(&record.id()),
            dialled: String::new(),
            record,
            tx: None,
            carrier: None,
            agent_leg: None,
            target: None,
            far: None,
            dial: None,
            transfer: None,
            undecided: Box::default(),
            told: Told::default(),
            workflows: Arc::default(),
            agent: Agent::Gone,
            seat: None,
            wake: Arc::default(),
            ending,
            max_forwards: MAX_FORWARDS,
            received_at: now,
            accepted_at: None,
            limit: None,
            max_duration,
        }
    }

    /// The carrier's end of signalling, for logs.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.carrier.as_ref().map(|leg| leg.flow.remote)
    }

    /// The place of a leg.
    pub(super) fn put_leg(&mut self, side: Side, leg: Leg) {
        match side {
            Side::Carrier => self.carrier = Some(leg),
            Side::Agent => self.agent_leg = Some(Box::new(leg)),
            Side::Target => self.target = Some(Box::new(leg)),
        }
    }
}

impl Shard {
    /// Feeds the call's machine and does what it says.
    pub(super) fn handle_input(&mut self, now: Instant, key: u64, input: Input) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let actions = call.machine.handle(input);
        for action in actions.into_iter().flatten() {
            self.act(now, key, action);
        }
        if let Some(call) = self.calls.get(&key) {
            let status = live_status(call.machine.state(), call.record.is_outbound());
            self.services.live.changed(&call.record, status);
        }
    }

    fn act(&mut self, now: Instant, key: u64, action: Action) {
        match action {
            Action::Brief => self.brief(now, key),
            Action::DoWithout(why) => self.do_without(now, key, why),
            Action::ReachAgent => self.connect(now, key),
            Action::Dial => self.dial_callee(now, key),
            Action::GiveUpDial => self.give_up_dial(now, key),
            Action::Accept => self.accept(now, key),
            Action::OpenGate => self.open_gates(now, key),
            Action::Refuse(reason) => self.refuse_call(now, key, reason),
            Action::PlayFarewell => self.play_farewell(now, key),
            Action::SendBye(reason) => self.hang_up_leg(now, (key, Side::Carrier), reason),
            Action::End(reason) => self.end(now, key, reason),
        }
    }

    /// 200 with our SDP. The media gate stays shut until the ACK.
    fn accept(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (Some(tx), Some(leg)) = (call.tx, call.carrier.as_mut()) else { return };
        let reply = Reply {
            contact: Some(&leg.contact),
            headers: &[
                ("Allow", super::outside::ALLOW),
                ("Server", &self.services.settings.sip.user_agent),
            ],
            body: Some(("application/sdp", &leg.sdp)),
            ..Reply::new(200)
        };
        match self.endpoint.respond(now, tx, reply) {
            Ok(dialog) => {
                leg.dialog = dialog;
                let set_up = now.saturating_duration_since(call.received_at);
                self.services.metrics.set_up.observe(set_up.as_secs_f64());
                if let Some(dialog) = dialog {
                    self.by_dialog.insert(dialog, (key, Side::Carrier));
                }
                self.note_answered(now, key);
            }
            Err(why) => {
                error!(call = key, %why, "the 200 could not be sent");
                self.services.metrics.bugs.inc();
                // Nothing was answered, so BYE would not end it.
                self.refuse_call(now, key, EndReason::GatewayBug);
                self.handle_input(now, key, Input::HangUp(EndReason::GatewayBug));
            }
        }
    }

    /// The call is answered: its record says so, and its longest duration begins.
    pub(super) fn note_answered(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.accepted_at = Some(now);
        call.record.answered();
        self.services.journal.record(call.record.changed());
        let limit = now + call.max_duration;
        self.set_limit(key, limit);
    }

    /// Sets the call's one time limit; it replaces the one before.
    pub(super) fn set_limit(&mut self, key: u64, limit: Instant) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if let Some(before) = call.limit.replace(limit) {
            self.alarms.remove(&(before, Alarm::Call(key)));
        }
        self.alarms.insert((limit, Alarm::Call(key)));
    }

    /// Final response to the INVITE, with the reason in words (RFC 3326).
    fn refuse_call(&mut self, now: Instant, key: u64, reason: EndReason) {
        let Some(tx) = self.calls.get(&key).and_then(|call| call.tx) else { return };
        let row = reason.row();
        let q850 = reason_header(row);
        let retry = self.services.settings.calls.retry_after_seconds.to_string();
        let mut headers = vec![("Reason", q850.as_str())];
        if row.sip_status == 503 || row.sip_status == 480 {
            headers.push(("Retry-After", retry.as_str()));
        }
        let reply = Reply { headers: &headers, ..Reply::new(row.sip_status) };
        if let Err(why) = self.endpoint.respond(now, tx, reply) {
            debug!(call = key, %why, "the INVITE had its answer already");
        }
    }

    /// BYE on one of the call's legs.
    fn hang_up_leg(&mut self, now: Instant, (key, side): (u64, Side), reason: EndReason) {
        let leg = self.calls.get(&key).and_then(|call| call.leg(side));
        if let Some(farewell) = leg.and_then(|leg| leg.farewell(reason)) {
            self.send_bye(now, (key, side), farewell);
        }
    }

    /// BYE in a dialog. When its connection is gone it is said once more on the next one.
    pub(super) fn send_bye(&mut self, now: Instant, (key, side): (u64, Side), bye: Farewell) {
        let dialog = bye.dialog;
        let reason = reason_header(bye.row);
        let agent = &self.services.settings.sip.user_agent;
        let content =
            Content { headers: &[("Reason", &reason), ("User-Agent", agent)], body: None };
        match self.endpoint.request(now, dialog, sip::Method::Bye, content) {
            Ok(tx) => {
                self.requests.insert(tx, Pending::bye(key, side, bye));
            }
            Err(why) => {
                debug!(call = key, %why, "BYE was not sent");
                self.endpoint.forget(dialog);
            }
        }
    }

    /// The only way out: everything the call holds is given back, and its record is closed.
    fn end(&mut self, now: Instant, key: u64, reason: EndReason) {
        self.give_up_dial(now, key);
        self.drop_leg(now, (key, Side::Agent), reason);
        self.drop_leg(now, (key, Side::Target), reason);
        let Some(mut call) = self.calls.remove(&key) else { return };
        if let Some(tx) = call.tx {
            self.by_tx.remove(&tx);
        }
        if let Some(limit) = call.limit {
            self.alarms.remove(&(limit, Alarm::Call(key)));
        }
        self.by_conversation.remove(&call.record.id());
        self.sessions.remove(call.session, key);
        self.services.live.ended(&call.record);
        if let Agent::Linked(agent) = std::mem::replace(&mut call.agent, Agent::Gone) {
            agent.stop();
        }
        let row = reason.row();
        let labels = EndLabels { party: row.party.as_str(), reason: row.code };
        self.services.metrics.ended.get_or_create(&labels).inc();
        self.live_changed();
        let talked = call.accepted_at.map(|at| now.saturating_duration_since(at));
        info!(
            call = key, conversation = %call.record.id(), organization = %call.parties.organisation,
            source = ?call.source(), reason = row.code, party = %row.party,
            talked_ms = talked.map(|t| t.as_millis()), "call ended"
        );
        self.close_carrier(key, &mut call, reason);
        self.release(now, &call);
    }

    /// Closes the carrier's leg; its media report completes the record, whichever thread it comes on.
    fn close_carrier(&mut self, key: u64, call: &mut Call, reason: EndReason) {
        let journal = self.services.journal.clone();
        let leg = call.carrier.take();
        if let Some(leg) = &leg {
            self.retire_leg(leg);
        }
        let Some(closing) = call.record.closing(reason, call.workflows.post.clone()) else {
            let _ = self.services.workers.close(Side::Carrier.session(key), |_| {});
            return;
        };
        if leg.is_none_or(|leg| !matches!(leg.media, Media::Open)) {
            return journal.record(closing.without_media());
        }
        let closing_without = closing.clone();
        let fallback = journal.clone();
        let delay = self.services.metrics.mouth_to_ear.clone();
        let told = self.services.workers.close(Side::Carrier.session(key), move |report| {
            if let Some(seconds) = super::record::mouth_to_ear(&report) {
                delay.observe(seconds);
            }
            journal.record(closing.with_media(&report));
        });
        if told.is_err() {
            fallback.record(closing_without.without_media());
        }
    }

    fn release(&mut self, now: Instant, call: &Call) {
        let load = call.parties.trunk.and_then(|trunk| self.loads.get_mut(&trunk));
        if let Some(load) = load {
            load.live = load.live.saturating_sub(1);
        }
        if call.record.is_outbound() {
            self.queue.finished(call.parties.organisation);
            self.start_waiting(now);
        }
    }

    /// A leg that was dialled is up: media, and what the call makes of it.
    pub(super) fn leg_is_up(
        &mut self,
        now: Instant,
        (key, side): (u64, Side),
        ports: media::ports::PortPair,
        plan: media::sdp::Plan,
    ) {
        match side {
            Side::Carrier => {
                self.open_media(now, (key, side), ports, plan);
                self.note_answered(now, key);
                self.handle_input(now, key, Input::CalleeAnswered);
            }
            Side::Agent => {
                self.open_media(now, (key, side), ports, plan);
                self.handle_input(now, key, Input::AgentReady);
            }
            Side::Target => self.transfer_answered(now, key, (ports, plan)),
        }
    }

    /// A leg that was dialled did not come about.
    pub(super) fn leg_failed(&mut self, now: Instant, (key, side): (u64, Side), outcome: Outcome) {
        match side {
            Side::Carrier => {
                if let Some(call) = self.calls.get_mut(&key) {
                    call.record.refused_by(&outcome);
                }
                self.handle_input(now, key, Input::DialFailed(outcome.reason));
            }
            Side::Agent => {
                let why = match outcome.reason {
                    EndReason::NoAnswer if outcome.status.is_none() => EndReason::AgentTimedOut,
                    _ => EndReason::AgentRefused,
                };
                self.handle_input(now, key, Input::AgentGone(why));
            }
            // A 2xx whose media was of no use is no status that says so.
            Side::Target => {
                let refusal = outcome.status.filter(|status| *status >= 300);
                self.transfer_failed(now, key, refusal);
            }
        }
    }

    /// What an agent link reports.
    pub(super) fn handle_link(&mut self, now: Instant, key: u64, event: AgentEvent) {
        match event {
            AgentEvent::Ready => self.handle_input(now, key, Input::AgentReady),
            AgentEvent::FirstAudio => self.agent_spoke(now, key),
            AgentEvent::Hangup => {
                if !self.outlives_agent(key, EndReason::AgentHungUp) {
                    self.handle_input(now, key, Input::AgentGone(EndReason::AgentHungUp));
                }
            }
            AgentEvent::Warning(warning) => {
                debug!(call = key, ?warning, "the agent sent something odd");
            }
            AgentEvent::Failed(why) => {
                info!(call = key, %why, code = why.code(), "agent not reached");
                let reason = match why {
                    LinkError::Timeout => EndReason::AgentTimedOut,
                    _ => EndReason::AgentRefused,
                };
                self.handle_input(now, key, Input::AgentGone(reason));
            }
            AgentEvent::Ended(end, report) => {
                debug!(call = key, ?end, ?report, "agent link ended");
                self.agent_ended(now, key, end);
            }
        }
    }

    fn agent_spoke(&mut self, now: Instant, key: u64) {
        let accepted = self.calls.get(&key).and_then(|call| call.accepted_at);
        if let Some(accepted) = accepted {
            let waited = now.saturating_duration_since(accepted).as_secs_f64();
            self.services.metrics.first_agent_frame.observe(waited);
        }
    }

    /// The agent hung up, or was lost: at once, or after the configured farewell.
    fn agent_ended(&mut self, now: Instant, key: u64, end: End) {
        let reason = match end {
            End::Stopped => return,
            // 1000 normal, 1001 going away, 1005 no code (RFC 6455 §7.4.1).
            End::Closed { code: 1000 | 1001 | 1005 } => EndReason::AgentHungUp,
            End::Closed { .. } => EndReason::AgentLost,
            End::Lost(LinkError::Stalled | LinkError::Silent) => EndReason::AgentStalled,
            End::Lost(_) => EndReason::AgentLost,
        };
        if self.outlives_agent(key, reason) {
            return;
        }
        let ending = self.calls.get(&key).map(|call| call.ending);
        let input = match (reason, ending) {
            (EndReason::AgentLost | EndReason::AgentStalled, Some(AgentEnding::Playback)) => {
                Input::AgentFell(reason)
            }
            _ => Input::AgentGone(reason),
        };
        self.handle_input(now, key, input);
    }

    /// The clip takes the agent's place; [`media::Event::PlaybackEnded`] ends the call.
    fn play_farewell(&mut self, now: Instant, key: u64) {
        let clip = self.services.links.clip(Clip::Greeting);
        let far = Far::Playback { clip, repeat: false };
        if self.services.workers.connect(Side::Carrier.session(key), far).is_err() {
            self.handle_input(now, key, Input::FarewellOver);
        }
    }

    /// A clip came to its end: the farewell is over, or a playback agent is done.
    pub(super) fn handle_playback_ended(&mut self, now: Instant, key: u64) {
        let input = match self.calls.get(&key).map(|call| call.machine.state()) {
            Some(State::Farewell) => Input::FarewellOver,
            _ => Input::AgentGone(EndReason::AgentFinished),
        };
        self.handle_input(now, key, input);
    }

    /// The ACK came: the answer, if one was asked for, and the gate.
    pub(super) fn handle_ack(&mut self, now: Instant, dialog: DialogId, body: Option<&[u8]>) {
        let Some(&(key, side)) = self.by_dialog.get(&dialog) else { return };
        let Some(leg) = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side)) else {
            return;
        };
        if std::mem::take(&mut leg.awaiting_answer) {
            let plan = body.map(|body| leg.negotiation.accept(body));
            match plan {
                Some(Ok(plan)) => self.apply_plan(now, (key, side), plan),
                Some(Err(why)) => {
                    info!(call = key, why = why.word(), "the answer in the ACK is unusable");
                    return self.handle_input(now, key, Input::BadAnswer);
                }
                None => return self.handle_input(now, key, Input::BadAnswer),
            }
        }
        if side == Side::Carrier {
            self.handle_input(now, key, Input::Acked);
        }
    }
}

/// Reason header of RFC 3326: the Q.850 cause, with our words.
fn reason_header(row: EndRow) -> String {
    format!("Q.850;cause={};text=\"{}\"", row.q850, row.text)
}

/// Request kept while the call rings would be dead weight: only what the record needs is copied.
pub(super) fn sip_call_id(request: &Request) -> String {
    String::from_utf8_lossy(request.call_id()).chars().take(256).collect()
}
