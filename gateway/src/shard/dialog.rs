//! Requests inside a dialog: BYE, re-INVITE and UPDATE, INFO, and what we do not serve.

use std::time::Instant;

use media::dtmf;
use media::sdp::Incompatible;
use sip::endpoint::{DialogId, Reply, ServerTx};
use sip::{HeaderName, Method, Request};
use tracing::{debug, info};

use super::Shard;
use super::body::{self, Body};
use super::call::Agent;
use super::leg::{Flows, Side};
use crate::call::EndReason;
use crate::call::machine::{Input, State};

impl Shard {
    pub(super) fn handle_in_dialog(
        &mut self,
        now: Instant,
        dialog: DialogId,
        tx: ServerTx,
        request: &Request,
    ) {
        let Some(&(key, side)) = self.by_dialog.get(&dialog) else {
            // The call is over and our BYE is on its way; one that crosses it is in order.
            let status = if request.method() == Method::Bye { 200 } else { 481 };
            return self.respond_plain(now, tx, status, &[]);
        };
        match request.method() {
            Method::Bye => {
                self.respond_plain(now, tx, 200, &[]);
                let reason = request.extension("Reason").map(String::from_utf8_lossy);
                debug!(call = key, ?reason, "BYE");
                self.hung_up(now, (key, side));
            }
            Method::Invite => self.renegotiate(now, (key, side), tx, request),
            Method::Update => self.update(now, (key, side), tx, request),
            Method::Info => self.info(now, (key, side), tx, request),
            Method::Options => self.answer_options(now, tx),
            // Transfers asked for by the caller's side are not served: toll fraud starts there.
            Method::Refer => self.respond_plain(now, tx, 403, &[]),
            Method::Notify => self.handle_notify(now, key, tx, request),
            _ => self.respond_plain(now, tx, 405, &[("Allow", super::outside::ALLOW)]),
        }
    }

    /// The far end of one leg has hung up. Its dialog is over, and with it the call.
    fn hung_up(&mut self, now: Instant, (key, side): (u64, Side)) {
        let leg = match side {
            Side::Carrier => None,
            Side::Agent | Side::Target => {
                self.calls.get_mut(&key).and_then(|call| call.take_leg(side))
            }
        };
        if let Some(leg) = leg {
            self.retire_leg(&leg);
            let _ = self.services.workers.close(side.session(key), |_| {});
        }
        match side {
            Side::Carrier => self.handle_input(now, key, Input::Bye),
            Side::Agent if self.outlives_agent(key, EndReason::AgentHungUp) => {}
            Side::Agent => self.handle_input(now, key, Input::AgentGone(EndReason::AgentHungUp)),
            Side::Target => {
                self.handle_input(now, key, Input::AgentGone(EndReason::TransferTargetHungUp));
            }
        }
    }

    /// UPDATE (RFC 3311): without a body it only refreshes the target.
    fn update(&mut self, now: Instant, at: (u64, Side), tx: ServerTx, request: &Request) {
        let call = self.calls.get(&at.0);
        let answered = call.is_some_and(|call| call.machine.state() != State::Connecting);
        match body::read(request) {
            Body::Nothing => {
                let leg = self.calls.get(&at.0).and_then(|call| call.leg(at.1));
                let contact = leg.map(|leg| leg.contact.clone());
                let reply = Reply { contact: contact.as_deref(), ..Reply::new(200) };
                self.respond_with(now, tx, reply);
            }
            // Before the 200 our answer is still to come (RFC 3311 §5.2): the offer must wait.
            Body::Sdp(_) if !answered => {
                let retry = self.retry_after_value();
                self.respond_plain(now, tx, 500, &[("Retry-After", &retry)]);
            }
            Body::Sdp(_) => self.renegotiate(now, at, tx, request),
            Body::Unsupported => self.respond_plain(now, tx, 415, &[("Accept", "application/sdp")]),
        }
    }

    /// A new offer (RFC 3264 §8): answered, or refused with the session left as it was.
    fn renegotiate(
        &mut self,
        now: Instant,
        (key, side): (u64, Side),
        tx: ServerTx,
        request: &Request,
    ) {
        let random = &mut self.random;
        let Some(leg) = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side)) else {
            return;
        };
        let before = leg.flows;
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        let (sdp, plan) = match body::read(request) {
            Body::Unsupported => {
                return self.respond_plain(now, tx, 415, &[("Accept", "application/sdp")]);
            }
            Body::Nothing => {
                leg.awaiting_answer = true;
                (leg.negotiation.offer(&mut fill), None)
            }
            Body::Sdp(offer) => match leg.negotiation.answer(offer, &mut fill) {
                Ok((sdp, plan)) => (sdp, Some(plan)),
                Err(why) => {
                    info!(call = key, why = why.word(), "new offer refused, the session stays");
                    // Our own offer is open (RFC 3261 §14.2, RFC 3311 §5.2): theirs has to wait.
                    let status = if why == Incompatible::OutOfTurn { 491 } else { 488 };
                    let warning = super::sdp::warning(&self.services.settings.sip.host, why);
                    return self.respond_plain(now, tx, status, &[("Warning", &warning)]);
                }
            },
        };
        let contact = leg.contact.clone();
        let reply = Reply {
            contact: Some(&contact),
            headers: &[("Allow", super::outside::ALLOW)],
            body: Some(("application/sdp", &sdp)),
            ..Reply::new(200)
        };
        self.respond_with(now, tx, reply);
        if let Some(plan) = plan {
            debug!(call = key, send = plan.send, receive = plan.receive, "media renegotiated");
            let after = Flows::of(&plan);
            self.apply_plan(now, (key, side), plan);
            if after != before {
                self.carry_hold(now, key, side);
            }
        }
    }

    /// Keys pressed, for peers that send them in signalling (RFC 6086 and common practice).
    fn info(&mut self, now: Instant, (key, side): (u64, Side), tx: ServerTx, request: &Request) {
        let kind = request.header(HeaderName::ContentType).unwrap_or_default();
        match dtmf::parse_info(&String::from_utf8_lossy(kind), request.body()) {
            Some(digit) => {
                self.pass_digit(now, (key, side), (digit.digit, digit.duration_ms));
                self.respond_plain(now, tx, 200, &[]);
            }
            None if request.body().is_empty() => self.respond_plain(now, tx, 200, &[]),
            None => {
                let accept = [("Accept", "application/dtmf-relay, application/dtmf")];
                self.respond_plain(now, tx, 415, &accept);
            }
        }
    }

    /// A key press that came in signalling, for whoever stands opposite.
    fn pass_digit(&mut self, now: Instant, (key, side): (u64, Side), pressed: (char, u32)) {
        let Some(call) = self.calls.get(&key) else { return };
        let (digit, duration_ms) = pressed;
        if let Some(opposite) = call.opposite(side) {
            if !call.leg(opposite).is_some_and(|leg| leg.takes_events) {
                return self.carry_digit(now, (key, side), pressed);
            }
            let session = opposite.session(key);
            if let Err(why) = self.services.workers.digit(session, digit, duration_ms) {
                debug!(call = key, %why, "a key press was not played");
            }
        } else if let Agent::Linked(agent) = &call.agent {
            agent.digit(digit, duration_ms);
        }
    }

    /// Our 200 was never acknowledged: RFC 3261 §13.3.1.4 ends the session.
    pub(super) fn handle_ack_missing(&mut self, now: Instant, key: u64) {
        let active = self.calls.get(&key).is_some_and(|call| call.machine.state() == State::Active);
        if active {
            // The ACK of a re-INVITE is missing; the call was confirmed long ago.
            self.handle_input(now, key, Input::HangUp(EndReason::AckMissing));
        } else {
            self.handle_input(now, key, Input::AckMissing);
        }
    }

    pub(super) fn respond_with(&mut self, now: Instant, tx: ServerTx, reply: Reply<'_>) {
        if let Err(why) = self.endpoint.respond(now, tx, reply) {
            debug!(%why, "a response could not be sent");
        }
    }

    fn retry_after_value(&self) -> String {
        self.services.settings.calls.retry_after_seconds.to_string()
    }
}
