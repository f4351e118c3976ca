//! One call on the shard, and how the machine's actions are carried out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::model::{AgentEnding, Clip};
use media::ports::PortPair;
use media::sdp::{Negotiation, Plan};
use media::{Far, SessionKey};
use sip::endpoint::{Content, DialogId, Reply, ServerTx};
use sip::{Flow, Request};
use tokio::sync::Notify;
use tracing::{debug, error, info};

use super::record::Record;
use super::{Shard, live_status};
use crate::agent::{AgentEvent, AgentHandle, End, LinkError, TickSeat};
use crate::call::EndReason;
use crate::call::admission::Admitted;
use crate::call::end::EndRow;
use crate::call::machine::{Action, Input, Machine, State};
use crate::observe::metric::EndLabels;

/// Where the call's media is.
pub(super) enum Media {
    /// Ports are taken, the plan is not known yet (an INVITE without offer).
    Waiting(PortPair, Far),
    /// A worker has it.
    Open,
    /// Over, or never begun.
    Gone,
}

/// The agent of a call.
pub(super) enum Agent {
    /// Lives in the media worker; ready as soon as media is.
    Builtin,
    /// Lives elsewhere, behind a link.
    Linked(AgentHandle),
    /// Over.
    Gone,
}

/// One inbound call with an agent.
pub(super) struct Call {
    pub(super) machine: Machine,
    pub(super) flow: Flow,
    pub(super) tx: ServerTx,
    pub(super) dialog: Option<DialogId>,
    pub(super) admitted: Admitted,
    pub(super) record: Record,
    pub(super) negotiation: Negotiation,
    /// Our Contact in this dialog.
    pub(super) contact: String,
    /// Our SDP for the 200: the answer, or the offer when the INVITE had none.
    pub(super) sdp: Vec<u8>,
    /// Our offer is out; the next ACK must carry the answer.
    pub(super) awaiting_answer: bool,
    pub(super) media: Media,
    pub(super) agent: Agent,
    /// Keeps the ticks of the media worker coming to the agent link.
    pub(super) seat: Option<TickSeat>,
    pub(super) wake: Arc<Notify>,
    pub(super) ending: AgentEnding,
    pub(super) received_at: Instant,
    pub(super) accepted_at: Option<Instant>,
    /// When the agent must be ready; once answered, when the call has lasted long enough.
    pub(super) limit: Option<Instant>,
    pub(super) noise_cancellation: bool,
}

impl Call {
    /// The caller's end of media and signalling, for logs.
    pub(super) fn source(&self) -> SocketAddr {
        self.flow.remote
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
            self.services.live.changed(&call.record, live_status(call.machine.state()));
        }
    }

    fn act(&mut self, now: Instant, key: u64, action: Action) {
        match action {
            Action::Accept => self.accept(now, key),
            Action::OpenGate => self.open_gate(now, key),
            Action::Refuse(reason) => self.refuse_call(now, key, reason),
            Action::PlayFarewell => self.play_farewell(now, key),
            Action::SendBye(reason) => self.send_bye(now, key, reason.row()),
            Action::End(reason) => self.end(now, key, reason),
        }
    }

    /// 200 with our SDP. The media gate stays shut until the ACK.
    fn accept(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let reply = Reply {
            contact: Some(&call.contact),
            headers: &[
                ("Allow", super::outside::ALLOW),
                ("Server", &self.services.settings.sip.user_agent),
            ],
            body: Some(("application/sdp", &call.sdp)),
            ..Reply::new(200)
        };
        match self.endpoint.respond(now, call.tx, reply) {
            Ok(dialog) => {
                call.dialog = dialog;
                call.accepted_at = Some(now);
                let duration = self.services.settings.calls.max_duration_seconds;
                let limit = now + Duration::from_secs(u64::from(duration));
                if let Some(connecting) = call.limit.replace(limit) {
                    self.limits.remove(&(connecting, key));
                }
                self.limits.insert((limit, key));
                let set_up = now.saturating_duration_since(call.received_at);
                self.services.metrics.set_up.observe(set_up.as_secs_f64());
                call.record.answered();
                self.services.journal.record(call.record.changed());
                if let Some(dialog) = dialog {
                    self.by_dialog.insert(dialog, key);
                }
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

    fn open_gate(&mut self, now: Instant, key: u64) {
        if let Err(why) = self.services.workers.gate(SessionKey(key), true) {
            error!(call = key, %why, "the media gate was not opened");
            self.handle_input(now, key, Input::HangUp(EndReason::MediaUnavailable));
        }
    }

    /// Final response to the INVITE, with the reason in words (RFC 3326).
    fn refuse_call(&mut self, now: Instant, key: u64, reason: EndReason) {
        let Some(call) = self.calls.get(&key) else { return };
        let row = reason.row();
        let q850 = reason_header(row);
        let retry = self.services.settings.calls.retry_after_seconds.to_string();
        let mut headers = vec![("Reason", q850.as_str())];
        if row.sip_status == 503 || row.sip_status == 480 {
            headers.push(("Retry-After", retry.as_str()));
        }
        let reply = Reply { headers: &headers, ..Reply::new(row.sip_status) };
        if let Err(why) = self.endpoint.respond(now, call.tx, reply) {
            debug!(call = key, %why, "the INVITE had its answer already");
        }
    }

    fn send_bye(&mut self, now: Instant, key: u64, row: EndRow) {
        let Some(dialog) = self.calls.get(&key).and_then(|call| call.dialog) else { return };
        let reason = reason_header(row);
        let agent = &self.services.settings.sip.user_agent;
        let content =
            Content { headers: &[("Reason", &reason), ("User-Agent", agent)], body: None };
        match self.endpoint.request(now, dialog, sip::Method::Bye, content) {
            Ok(tx) => {
                self.byes.insert(tx, key);
            }
            Err(why) => {
                debug!(call = key, %why, "BYE was not sent");
                self.endpoint.forget(dialog);
            }
        }
    }

    /// The only way out: everything the call holds is given back, and its record is closed.
    fn end(&mut self, now: Instant, key: u64, reason: EndReason) {
        let Some(mut call) = self.calls.remove(&key) else { return };
        self.by_tx.remove(&call.tx);
        if let Some(dialog) = call.dialog {
            self.by_dialog.remove(&dialog);
        }
        if let Some(limit) = call.limit {
            self.limits.remove(&(limit, key));
        }
        self.release(&call);
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
            call = key, conversation = %call.record.id(), organization = %call.admitted.organisation,
            source = %call.source(), reason = row.code, party = %row.party,
            talked_ms = talked.map(|t| t.as_millis()), "call ended"
        );
        self.close_media(key, &mut call, reason);
    }

    /// Closes the media session; its report completes the record, whichever thread it comes on.
    fn close_media(&mut self, key: u64, call: &mut Call, reason: EndReason) {
        let journal = self.services.journal.clone();
        let closing = call.record.closing(reason);
        match std::mem::replace(&mut call.media, Media::Gone) {
            Media::Open => {
                let closing_without = closing.clone();
                let fallback = journal.clone();
                let delay = self.services.metrics.mouth_to_ear.clone();
                let told = self.services.workers.close(SessionKey(key), move |report| {
                    if let Some(seconds) = super::record::mouth_to_ear(&report) {
                        delay.observe(seconds);
                    }
                    journal.record(closing.with_media(&report));
                });
                if told.is_err() {
                    fallback.record(closing_without.without_media());
                }
            }
            Media::Waiting(..) | Media::Gone => {
                journal.record(closing.without_media());
            }
        }
    }

    fn release(&mut self, call: &Call) {
        let load = call.admitted.trunk.and_then(|trunk| self.loads.get_mut(&trunk));
        if let Some(load) = load {
            load.live = load.live.saturating_sub(1);
        }
        let source = call.flow.remote.ip().to_canonical();
        if let Some(count) = self.peers.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&source);
            }
        }
    }

    /// What an agent link reports.
    pub(super) fn handle_link(&mut self, now: Instant, key: u64, event: AgentEvent) {
        match event {
            AgentEvent::Ready => self.handle_input(now, key, Input::AgentReady),
            AgentEvent::FirstAudio => self.agent_spoke(now, key),
            AgentEvent::Hangup => {
                self.handle_input(now, key, Input::AgentGone(EndReason::AgentHungUp));
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
        if self.services.workers.connect(SessionKey(key), far).is_err() {
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
        let Some(&key) = self.by_dialog.get(&dialog) else { return };
        let Some(call) = self.calls.get_mut(&key) else { return };
        if std::mem::take(&mut call.awaiting_answer) {
            let plan = body.map(|body| call.negotiation.accept(body));
            match plan {
                Some(Ok(plan)) => self.apply_plan(now, key, plan),
                Some(Err(why)) => {
                    info!(call = key, why = why.word(), "the answer in the ACK is unusable");
                    return self.handle_input(now, key, Input::BadAnswer);
                }
                None => return self.handle_input(now, key, Input::BadAnswer),
            }
        }
        self.handle_input(now, key, Input::Acked);
    }

    /// Opens media with its first plan, or changes the plan of open media.
    pub(super) fn apply_plan(&mut self, now: Instant, key: u64, plan: Plan) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        match std::mem::replace(&mut call.media, Media::Gone) {
            Media::Waiting(ports, far) => {
                self.open_media(now, key, (ports, far), plan);
            }
            Media::Open => {
                call.media = Media::Open;
                if let Err(why) = self.services.workers.apply(SessionKey(key), plan) {
                    error!(call = key, %why, "the new media plan was not taken");
                    self.handle_input(now, key, Input::HangUp(EndReason::MediaUnavailable));
                }
            }
            Media::Gone => {}
        }
    }

    /// Hands ports and plan to a worker.
    pub(super) fn open_media(
        &mut self,
        now: Instant,
        key: u64,
        (ports, far): (PortPair, Far),
        plan: Plan,
    ) {
        let entropy = self.random.bytes();
        let snapshot = self.services.snapshot.load();
        let Some(call) = self.calls.get_mut(&key) else { return };
        let signalling = call.flow.remote.ip().to_canonical();
        let mut options = media::LegOptions::new(signalling, entropy);
        // Media may go at once to where signalling is, or to what the trunk lists; anywhere else it
        // waits for the peer's own packets.
        let trunk = call.admitted.trunk.and_then(|id| snapshot.trunk(id));
        options.listed =
            trunk.is_some_and(|trunk| trunk.allowed.is_some() && trunk.admits(plan.remote.ip()));
        options.noise_cancellation = call.noise_cancellation;
        options.jitter_min_ms = self.services.settings.media.jitter_min_ms;
        options.jitter_max_ms = self.services.settings.media.jitter_max_ms;
        options.media_timeout_ms =
            self.services.settings.media.timeout_seconds.saturating_mul(1000);
        let open = media::Open { ports, plan, far, options };
        match self.services.workers.open(SessionKey(key), open) {
            Ok(worker) => {
                call.media = Media::Open;
                call.seat = self.services.links.seat(worker, &call.wake);
            }
            Err(why) => {
                error!(call = key, %why, "no media worker took the call");
                self.handle_input(now, key, Input::HangUp(EndReason::MediaUnavailable));
            }
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
