//! Cold transfer: a caller is handed to another number, and the agent leaves.
//!
//! ```text
//!  bridge   dial the number over the trunk ── 2xx ──► bridge the two, the agent is told to stop
//!                                          └─ else ─► the caller stays with the agent
//!  refer    REFER on the carrier's leg ── NOTIFY 200 ──► BYE: the carrier has taken the call
//!                                       └─ refused, NOTIFY ≥ 300, silence ─► the caller stays
//! ```
//!
//! The outcome stands in the conversation's record either way (RFC 3515, RFC 5589).

use std::time::{Duration, Instant};

use config::calls::TransferRequest;
use config::ids::ConversationId;
use config::model::{DisplayedNumber, TransferMode, TransferStatus};
use media::ports::PortPair;
use media::sdp::Plan;
use sip::endpoint::{Content, ServerTx};
use sip::{Method, Request};
use tracing::{info, warn};

use super::Shard;
use super::call::Agent;
use super::inputs::Alarm;
use super::leg::Side;
use super::outbound::Dialled;
use super::request::{Kind, Pending};
use crate::call::EndReason;
use crate::call::machine::{Input, State};

/// What the carrier may take on top of the ring time to say how a REFER ended.
const REFER_GRACE: Duration = Duration::from_secs(10);

/// A transfer that is under way.
pub(super) struct Transfer {
    request: TransferRequest,
    mode: TransferMode,
    /// The agent left meanwhile: should the transfer fail, this is how the call ends.
    agent_left: Option<EndReason>,
    /// When a REFER without outcome is given up.
    limit: Option<Instant>,
}

impl Shard {
    /// Begins to hand a call on, or notes at once that it cannot be.
    pub(super) fn transfer(&mut self, now: Instant, id: ConversationId, request: TransferRequest) {
        let Some(&key) = self.by_conversation.get(&id) else {
            return self.services.live.transfer_over(id);
        };
        let snapshot = self.services.snapshot.load();
        let Some(call) = self.calls.get_mut(&key) else { return };
        let trunk = call.parties.trunk.and_then(|id| snapshot.trunk(id));
        let config = trunk.and_then(|trunk| trunk.outbound.as_ref()).map(|route| &route.config);
        let mode = config.map(|config| config.transfer_mode).unwrap_or_default();
        call.record.transfer_begun(&request, mode);
        self.services.journal.record(call.record.changed());
        info!(call = key, ?mode, "handing the call on");
        let possible = call.machine.state() == State::Active && call.transfer.is_none();
        call.transfer = Some(Transfer { request, mode, agent_left: None, limit: None });
        let begun = possible
            && match (mode, trunk) {
                (TransferMode::Bridge, Some(trunk)) => self.dial_target(now, key, trunk),
                (TransferMode::Refer, Some(trunk)) => self.send_refer(now, key, trunk),
                (_, None) => false,
            };
        if !begun {
            self.transfer_failed(now, key, None);
        }
    }

    fn dial_target(
        &mut self,
        now: Instant,
        key: u64,
        trunk: &config::snapshot::TrunkRoute,
    ) -> bool {
        let Some(call) = self.calls.get(&key) else { return false };
        let Some(transfer) = &call.transfer else { return false };
        let parties = &call.parties;
        // On a call we placed, the person who is handed on is the one we called.
        let other = if call.record.is_outbound() { &parties.called } else { &parties.caller };
        let shown = match transfer.request.displayed_number {
            DisplayedNumber::TransfereeNumber => other,
            DisplayedNumber::AgentNumber => parties.number.as_ref().unwrap_or(other),
        };
        let (shown, callee) = (shown.clone(), transfer.request.transfer_number.to_string());
        let by = parties.number.clone().unwrap_or_else(|| shown.clone());
        let headers = vec![("Referred-By".to_owned(), format!("<sip:{by}@{}>", self.our_host()))];
        let dialled = Dialled { side: Side::Target, callee: &callee, shown: &shown, headers };
        let Some(wanted) = self.wanted(trunk, dialled) else { return false };
        self.dial(now, key, wanted);
        true
    }

    /// The number answered: the caller talks to it from here on.
    pub(super) fn transfer_answered(
        &mut self,
        now: Instant,
        key: u64,
        (ports, plan): (PortPair, Plan),
    ) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        // The agent's leg is gone before the two are bridged, so that nobody listens in.
        if let Agent::Linked(agent) = std::mem::replace(&mut call.agent, Agent::Gone) {
            agent.stop();
        }
        self.drop_leg(now, (key, Side::Agent), EndReason::Transferred);
        self.open_media(now, (key, Side::Target), ports, plan);
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.seat = None;
        call.transfer = None;
        call.record.transfer_over(TransferStatus::Completed, Some(200));
        self.services.live.transferred(&call.record);
        // The conversation is over, though the two go on talking: its record ends here.
        let post = call.workflows.post.clone();
        if let Some(closing) = call.record.closing(EndReason::Transferred, post) {
            let journal = self.services.journal.clone();
            let without = closing.clone();
            let session = Side::Carrier.session(key);
            let told = self.services.workers.report(session, move |report| {
                journal.record(closing.with_media(&report));
            });
            if told.is_err() {
                self.services.journal.record(without.without_media());
            }
        }
        info!(call = key, "handed on");
        self.open_gates(now, key);
    }

    /// The caller stays with the agent, if it is still there.
    pub(super) fn transfer_failed(&mut self, now: Instant, key: u64, status: Option<u16>) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some(transfer) = call.transfer.take() else { return };
        call.record.transfer_over(TransferStatus::Failed, status);
        self.services.live.transfer_over(call.record.id());
        self.services.journal.record(call.record.changed());
        if let Some(limit) = transfer.limit {
            self.alarms.remove(&(limit, Alarm::Transfer(key)));
        }
        info!(call = key, mode = ?transfer.mode, status, "not handed on");
        if let Some(reason) = transfer.agent_left {
            self.handle_input(now, key, Input::AgentGone(reason));
        }
    }

    /// The agent is gone. True when the call goes on all the same: it has been handed on, or is
    /// being handed on.
    pub(super) fn outlives_agent(&mut self, key: u64, reason: EndReason) -> bool {
        let Some(call) = self.calls.get_mut(&key) else { return false };
        if call.target.is_some() {
            return true;
        }
        match &mut call.transfer {
            Some(transfer) => {
                transfer.agent_left = Some(reason);
                true
            }
            None => false,
        }
    }

    /// Asks the carrier to take the call to the number.
    fn send_refer(&mut self, now: Instant, key: u64, trunk: &config::snapshot::TrunkRoute) -> bool {
        let Some(call) = self.calls.get(&key) else { return false };
        let Some((transfer, leg)) = call.transfer.as_ref().zip(call.carrier.as_ref()) else {
            return false;
        };
        let (Some(dialog), login) = (leg.dialog, leg.login.clone()) else { return false };
        let Some(route) = &trunk.outbound else { return false };
        let number = transfer.request.transfer_number.to_string();
        let refer_to = format!("<sip:{number}@{}>", route.config.address);
        let by = call.parties.number.as_deref().unwrap_or("anonymous");
        let referred_by = format!("<sip:{by}@{}>", self.our_host());
        let headers = [("Refer-To", refer_to.as_str()), ("Referred-By", referred_by.as_str())];
        let content = Content { headers: &headers, body: None };
        match self.endpoint.request(now, dialog, Method::Refer, content) {
            Ok(tx) => {
                self.requests.insert(tx, Pending::new(key, Side::Carrier, Kind::Refer, login));
                let ring = route.config.ring_timeout_seconds;
                let ring = ring.unwrap_or(self.services.settings.calls.ring_timeout_seconds);
                let limit = now + Duration::from_secs(u64::from(ring)) + REFER_GRACE;
                if let Some(transfer) =
                    self.calls.get_mut(&key).and_then(|call| call.transfer.as_mut())
                {
                    transfer.limit = Some(limit);
                }
                self.alarms.insert((limit, Alarm::Transfer(key)));
                true
            }
            Err(why) => {
                warn!(call = key, %why, "REFER was not sent");
                false
            }
        }
    }

    /// The answer to our REFER: accepted means that NOTIFY will tell, unless it is a refusal.
    pub(super) fn handle_refer_response(&mut self, now: Instant, key: u64, status: u16) {
        if status >= 300 {
            self.transfer_failed(now, key, Some(status));
        }
    }

    /// NOTIFY of our REFER (RFC 3515 §2.4.5): how far the carrier has come with the number.
    pub(super) fn handle_notify(
        &mut self,
        now: Instant,
        key: u64,
        tx: ServerTx,
        request: &Request,
    ) {
        let refers = self
            .calls
            .get(&key)
            .and_then(|call| call.transfer.as_ref())
            .is_some_and(|transfer| transfer.mode == TransferMode::Refer);
        if !refers {
            // No subscription of ours is open (RFC 6665 §4.1.3).
            return self.respond_plain(now, tx, 489, &[]);
        }
        self.respond_plain(now, tx, 200, &[]);
        match sip::sipfrag_status(request.body()) {
            Some(200..=299) => self.referred(now, key),
            Some(status @ 300..) => self.transfer_failed(now, key, Some(status)),
            _ => {}
        }
    }

    /// The carrier has the call: our leg is over.
    fn referred(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if let Some(limit) = call.transfer.take().and_then(|transfer| transfer.limit) {
            self.alarms.remove(&(limit, Alarm::Transfer(key)));
        }
        call.record.transfer_over(TransferStatus::Completed, Some(200));
        self.handle_input(now, key, Input::HangUp(EndReason::Transferred));
    }

    /// A REFER whose outcome never came.
    pub(super) fn handle_transfer_alarm(&mut self, now: Instant, key: u64) {
        self.transfer_failed(now, key, None);
    }
}
