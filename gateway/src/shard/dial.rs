//! Dialling a leg: what the dial machine asks for, carried out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use config::model::MediaEncryption;
use media::ports::PortPair;
use media::sdp::{Capabilities, Encryption, Local, Negotiation, Plan};
use sip::endpoint::{ClientTx, Content, DialogId, Failure, Invite};
use sip::{Method, Response};
use tracing::{debug, info, warn};

use super::Shard;
use super::avoided::Bearing;
use super::body::{self, Body};
use super::inputs::Alarm;
use super::leg::{Flows, Leg, Media, Offer, Side};
use super::login::Answers;
use super::request::{Kind, Pending};
use super::session_id::SESSION_ID;
use super::wanted::{Outcome, Wanted};
use crate::call::EndReason;
use crate::call::dial::{Action, Input, Machine, State};
use crate::net::address;
use crate::net::reach::{Connection, Reached};
use crate::net::target::Target;

/// How long a trunk whose carrier took only the plain offer is offered that first: an hour.
const REMEMBER_PLAIN: Duration = Duration::from_secs(3_600);

/// A leg being dialled.
pub(super) struct Dial {
    pub(super) machine: Machine,
    call: u64,
    pub(super) wanted: Wanted,
    targets: VecDeque<Target>,
    /// The one that is being tried.
    pub(super) target: Option<Target>,
    /// Counts attempts, so that a late answer to an earlier one is known as such.
    attempt: u8,
    connection: Option<Connection>,
    tx: Option<ClientTx>,
    contact: String,
    /// The offer that is out, and the ports it names.
    offer: Option<(Negotiation, Vec<u8>)>,
    ports: Option<PortPair>,
    plain: bool,
    /// The plain offer followed a secure one that was refused.
    fell_back: bool,
    answers: Answers,
    /// An answer that came before the 2xx: some 2xx leave it out.
    early_answer: Option<Vec<u8>>,
    /// The dialog of the 2xx, and what its answer makes media do.
    answered_in: Option<DialogId>,
    plan: Option<Plan>,
    outcome: Outcome,
    /// Until when it may ring.
    until: Instant,
    /// Until when other targets are turned to.
    budget: Instant,
    /// When the machine is to hear that a target is silent.
    silent_at: Option<Instant>,
    alarm: Instant,
}

/// Tickets of attempts: the dial in the upper bits, the attempt in the last eight.
fn ticket(id: u64, attempt: u8) -> u64 {
    id << 8 | u64::from(attempt)
}

impl Shard {
    /// Begins to dial a leg of a call.
    pub(super) fn dial(&mut self, now: Instant, key: u64, wanted: Wanted) {
        let id = self.next_dial;
        self.next_dial += 1;
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.dial = Some(id);
        let plain = match wanted.encryption {
            MediaEncryption::Disable => true,
            MediaEncryption::Require => false,
            MediaEncryption::Allow => wanted
                .trunk
                .and_then(|trunk| self.plain_trunks.get(&trunk))
                .is_some_and(|until| *until > now),
        };
        let falls_back = !plain && wanted.encryption == MediaEncryption::Allow;
        let destination = wanted.destination.clone();
        let calls = &self.services.settings.sip;
        let until = now + wanted.patience;
        let dial = Dial {
            machine: Machine::new(falls_back),
            call: key,
            targets: VecDeque::new(),
            target: None,
            attempt: 0,
            connection: None,
            tx: None,
            contact: String::new(),
            offer: None,
            ports: None,
            plain,
            fell_back: false,
            answers: Answers::default(),
            early_answer: None,
            answered_in: None,
            plan: None,
            outcome: Outcome::new(EndReason::CarrierUnreachable, ""),
            until,
            budget: now + Duration::from_secs(u64::from(calls.failover_seconds)),
            silent_at: None,
            alarm: until,
            wanted,
        };
        debug!(call = key, side = ?dial.wanted.side, host = destination.host, "dialling");
        self.alarms.insert((until, Alarm::Dial(id)));
        self.dials.insert(id, dial);
        self.services.reach.locate(ticket(id, 0), destination);
    }

    /// Feeds the dial's machine and does what it says.
    pub(super) fn step(&mut self, now: Instant, id: u64, input: Input) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        for action in dial.machine.handle(input).into_iter().flatten() {
            self.act_dial(now, id, action);
        }
        self.set_dial_alarm(now, id);
        let over = |dial: &Dial| matches!(dial.machine.state(), State::Over | State::Answered);
        if self.dials.get(&id).is_some_and(over) {
            self.forget_dial(id);
        }
    }

    fn act_dial(&mut self, now: Instant, id: u64, action: Action) {
        match action {
            Action::Connect => self.connect_next(id),
            Action::Invite => self.send_invite(now, id),
            Action::InvitePlain => {
                if let Some(dial) = self.dials.get_mut(&id) {
                    (dial.plain, dial.fell_back) = (true, true);
                    dial.answers = Answers::default();
                }
                self.send_invite(now, id);
            }
            Action::Authenticate => self.send_with_credentials(now, id),
            Action::Ring => self.dial_rings(now, id),
            Action::Accept => self.dial_accepted(now, id),
            Action::HangUp => self.hang_up_unusable(now, id),
            Action::Cancel => self.cancel_attempt(now, id),
            Action::Fail => self.dial_failed(now, id),
        }
    }

    /// What the resolver or a connection has to say.
    pub(super) fn handle_reached(&mut self, now: Instant, reached: Reached) {
        if self.handle_registrar_reached(now, &reached) {
            return;
        }
        if let Reached::Connected { ticket, result } = &reached
            && self.handle_reconnected(now, *ticket, result)
        {
            return;
        }
        let (ticket, input, text) = match reached {
            Reached::Located { ticket, result: Ok(targets) } if !targets.is_empty() => {
                let count = targets.len();
                if let Some(dial) = self.dials.get_mut(&(ticket >> 8)) {
                    dial.targets = self.avoided.behind(now, dial.wanted.trunk, targets).into();
                }
                (ticket, Input::Located(count), String::new())
            }
            Reached::Located { ticket, result } => {
                let host = self.dials.get(&(ticket >> 8)).map(|dial| &dial.wanted.destination.host);
                let text = match (result, host) {
                    (Err(why), Some(host)) => format!("{host}: {why}"),
                    _ => String::new(),
                };
                (ticket, Input::NotLocated, text)
            }
            Reached::Connected { ticket, result: Ok(connection) } => {
                let current = self.dials.get_mut(&(ticket >> 8));
                if let Some(dial) = current.filter(|dial| u64::from(dial.attempt) == ticket & 0xff)
                {
                    dial.connection = Some(connection);
                }
                (ticket, Input::Connected, String::new())
            }
            Reached::Connected { ticket, result: Err(why) } => {
                (ticket, Input::NotConnected, why.to_string())
            }
        };
        let id = ticket >> 8;
        let Some(dial) = self.dials.get_mut(&id) else { return };
        if u64::from(dial.attempt) != ticket & 0xff {
            return;
        }
        if matches!(input, Input::NotLocated | Input::NotConnected) {
            info!(call = dial.call, why = text, "a target was not reached");
            dial.outcome = Outcome::new(EndReason::CarrierUnreachable, text);
            self.note_target(now, id, Bearing::Dead);
        }
        self.step(now, id, input);
    }

    fn connect_next(&mut self, id: u64) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        let Some(target) = dial.targets.pop_front() else { return };
        dial.attempt = dial.attempt.wrapping_add(1);
        (dial.connection, dial.tx, dial.silent_at) = (None, None, None);
        dial.answers = Answers::default();
        debug!(call = dial.call, address = %target.address, "trying a target");
        dial.target = Some(target.clone());
        self.services.reach.connect(ticket(id, dial.attempt), target, 0);
    }

    /// The INVITE, with the offer that is due.
    fn send_invite(&mut self, now: Instant, id: u64) {
        if let Err(outcome) = self.try_invite(now, id) {
            warn!(dial = id, why = outcome.text, "the INVITE could not be sent");
            if let Some(dial) = self.dials.get_mut(&id) {
                dial.outcome = outcome;
            }
            self.step(now, id, Input::Refused);
        }
    }

    fn try_invite(&mut self, now: Instant, id: u64) -> Result<(), Outcome> {
        let broken = |text: String| Outcome::new(EndReason::MediaUnavailable, text);
        let flow = self.dials.get(&id).and_then(|dial| Some(dial.connection.as_ref()?.flow));
        let flow = flow.ok_or_else(|| broken("no flow".to_owned()))?;
        let pool = self.pool_for(&flow).ok_or_else(|| {
            broken("no media address of the carrier's IP version is configured".to_owned())
        })?;
        let settings = &self.services.settings.sip;
        let local = address::reachable_at(&settings.advertise, pool.bind(), flow.remote.ip());
        let session_id = u64::from_be_bytes(self.random.bytes()) >> 2;
        let random = &mut self.random;
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        let Some(dial) = self.dials.get_mut(&id) else { return Ok(()) };
        // All attempts of a leg share their ports; another IP version needs others.
        let v6 = pool.bind().is_ipv6();
        let fits =
            |ports: &PortPair| ports.rtp().local_addr().is_ok_and(|bound| bound.is_ipv6() == v6);
        let ports = match dial.ports.take().filter(fits) {
            Some(ports) => ports,
            None => pool.allocate(now).map_err(|why| broken(why.to_string()))?,
        };
        let local = Local { address: local, port: ports.port(), session_id };
        dial.ports = Some(ports);
        let encryption = if dial.plain { Encryption::Disable } else { Encryption::Require };
        let codecs = dial.wanted.codecs.clone();
        let capabilities = Capabilities { codecs, dtmf: true, encryption };
        let mut negotiation = Negotiation::new(capabilities, local);
        let offer = negotiation.offer(&mut fill);
        dial.contact = super::invite::contact(&flow, dial.wanted.destination.secure);
        let agent = settings.user_agent.as_str();
        let session = self.calls.get(&dial.call).map(|call| call.session.header());
        let mut headers = vec![("Allow", super::outside::ALLOW), ("User-Agent", agent)];
        headers.extend(session.as_deref().map(|session| (SESSION_ID, session)));
        headers.extend(dial.wanted.headers.iter().map(|(name, value)| (&**name, &**value)));
        let invite = Invite {
            flow,
            request_uri: &dial.wanted.request_uri,
            from: &dial.wanted.from,
            to: &dial.wanted.to,
            contact: &dial.contact,
            headers: &headers,
            body: Some(("application/sdp", &offer)),
            call_id: None,
        };
        let tx = self.endpoint.invite(now, invite).map_err(|why| broken(why.to_string()))?;
        dial.offer = Some((negotiation, offer));
        self.invite_is_out(now, id, tx);
        Ok(())
    }

    fn send_with_credentials(&mut self, now: Instant, id: u64) {
        let cnonce = self.cnonce();
        let Some(dial) = self.dials.get_mut(&id) else { return };
        let (Some(login), Some(tx)) = (dial.wanted.login.clone(), dial.tx) else { return };
        let Some(request) = self.endpoint.request_of(tx) else { return };
        let headers = dial.answers.headers(&login, request, &cnonce);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match self.endpoint.retry_with(now, tx, &headers) {
            Ok(new) => self.invite_is_out(now, id, new),
            Err(why) => {
                dial.outcome = Outcome::new(EndReason::CarrierUnauthorised, why.to_string());
                self.step(now, id, Input::Refused);
            }
        }
    }

    fn invite_is_out(&mut self, now: Instant, id: u64, tx: ClientTx) {
        let wait = Duration::from_millis(u64::from(self.services.settings.sip.target_timeout_ms));
        let call_id = self.endpoint.request_of(tx).map(super::call::sip_call_id);
        let Some(dial) = self.dials.get_mut(&id) else { return };
        if let Some(old) = dial.tx.replace(tx) {
            self.dial_by_tx.remove(&old);
        }
        dial.silent_at = Some(now + wait);
        self.dial_by_tx.insert(tx, id);
        if dial.wanted.side == Side::Carrier
            && let (Some(call), Some(call_id)) = (self.calls.get_mut(&dial.call), call_id)
        {
            call.record.sent_as(call_id);
        }
    }

    /// A response to an INVITE that is out. False when no dial waits for it.
    pub(super) fn handle_dial_response(
        &mut self,
        now: Instant,
        tx: ClientTx,
        response: &Response,
        dialog: Option<DialogId>,
    ) -> bool {
        let Some(&id) = self.dial_by_tx.get(&tx) else { return false };
        self.note_target(now, id, Bearing::of(response));
        let input = match response.status() {
            100 => {
                self.trust_longer(id);
                Input::Trying
            }
            101..=199 => {
                self.note_early_answer(id, response);
                Input::Rings
            }
            200..=299 => return self.dial_answered(now, id, response, dialog),
            401 | 407 if self.takes_challenge(id, response) => Input::Challenged,
            status => {
                let Some(dial) = self.dials.get_mut(&id) else { return true };
                dial.outcome = Outcome::of(response);
                match status {
                    415 | 488 => Input::MediaRefused,
                    500 | 502..=504 => Input::Unavailable,
                    _ => Input::Refused,
                }
            }
        };
        self.step(now, id, input);
        true
    }

    /// Somebody works on it: the target gets what is left of the budget before the next is tried.
    fn trust_longer(&mut self, id: u64) {
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.silent_at = Some(dial.budget);
        }
    }

    fn note_early_answer(&mut self, id: u64, response: &Response) {
        if let (Some(dial), Body::Sdp(answer)) = (self.dials.get_mut(&id), body::read(response)) {
            dial.early_answer = Some(answer.to_vec());
        }
    }

    fn takes_challenge(&mut self, id: u64, response: &Response) -> bool {
        let Some(dial) = self.dials.get_mut(&id) else { return false };
        dial.wanted.login.is_some() && dial.answers.take(response)
    }

    /// A 2xx: usable when its answer is.
    fn dial_answered(
        &mut self,
        now: Instant,
        id: u64,
        response: &Response,
        dialog: Option<DialogId>,
    ) -> bool {
        let Some(dial) = self.dials.get_mut(&id) else { return true };
        if matches!(dial.machine.state(), State::Answered | State::Over) || dialog.is_none() {
            self.acknowledge_orphan(now, dialog);
            return true;
        }
        dial.answered_in = dialog;
        let early = dial.early_answer.take();
        let answer = match body::read(response) {
            Body::Sdp(answer) => Some(answer),
            _ => early.as_deref(),
        };
        let accepted = match (&mut dial.offer, answer) {
            (Some((negotiation, _)), Some(answer)) => negotiation.accept(answer),
            _ => Err(media::sdp::Incompatible::NoAudio),
        };
        let input = match accepted {
            Ok(plan) => {
                dial.plan = Some(plan);
                Input::Accepted
            }
            Err(why) => {
                dial.outcome = Outcome::new(EndReason::MediaRefused, why.text());
                dial.outcome.status = Some(response.status());
                Input::BadAnswer
            }
        };
        self.step(now, id, input);
        true
    }

    /// An INVITE that will not be answered.
    pub(super) fn handle_dial_failed(&mut self, now: Instant, tx: ClientTx, why: Failure) -> bool {
        let Some(&id) = self.dial_by_tx.get(&tx) else { return false };
        if let Some(dial) = self.dials.get_mut(&id) {
            let text = match why {
                Failure::Timeout => "no answer to the INVITE",
                Failure::Transport => "the connection broke",
                Failure::Cancelled => "cancelled",
            };
            dial.outcome = Outcome::new(EndReason::CarrierUnreachable, text);
        }
        if why != Failure::Cancelled {
            self.note_target(now, id, Bearing::Dead);
        }
        self.step(now, id, Input::Unavailable);
        true
    }

    fn dial_rings(&mut self, now: Instant, id: u64) {
        let carrier = self.dials.get(&id).filter(|dial| dial.wanted.side == Side::Carrier);
        let Some(key) = carrier.map(|dial| dial.call) else { return };
        if let Some(call) = self.calls.get_mut(&key) {
            call.record.rings();
            self.services.journal.record(call.record.changed());
        }
        self.handle_input(now, key, crate::call::machine::Input::CalleeRings);
    }

    /// The leg is up: it becomes the call's.
    fn dial_accepted(&mut self, now: Instant, id: u64) {
        let Some(mut dial) = self.dials.remove(&id) else { return };
        self.drop_dial_traces(id, &dial);
        // Only a carrier that took the plain offer is offered it first from now on.
        if let Some(trunk) = dial.wanted.trunk.filter(|_| dial.fell_back) {
            self.plain_trunks.insert(trunk, now + REMEMBER_PLAIN);
        }
        let (key, side) = (dial.call, dial.wanted.side);
        let Some((leg, ports, plan)) = dial.take_leg() else { return };
        let Some(dialog) = leg.dialog else { return };
        if let Err(why) = self.endpoint.ack(now, dialog, None) {
            warn!(call = key, %why, "ACK was not sent");
        }
        let Some(call) = self.calls.get_mut(&key) else {
            return self.hang_up_dialog(now, (key, side), dialog);
        };
        call.dial = None;
        let snapshot = self.services.snapshot.load();
        let trunk = leg.trunk.and_then(|trunk| snapshot.trunk(trunk));
        self.endpoint.also_from(dialog, &super::invite::networks(trunk));
        let flow = leg.flow;
        call.put_leg(side, leg);
        self.by_dialog.insert(dialog, (key, side));
        self.meet(&flow);
        self.leg_is_up(now, (key, side), ports, plan);
    }

    /// A 2xx whose answer is of no use: acknowledged, and hung up.
    fn hang_up_unusable(&mut self, now: Instant, id: u64) {
        let Some(dial) = self.dials.get(&id) else { return };
        let (key, side) = (dial.call, dial.wanted.side);
        if let Some(dialog) = dial.answered_in {
            let _ = self.endpoint.ack(now, dialog, None);
            self.hang_up_dialog(now, (key, side), dialog);
        }
    }

    fn hang_up_dialog(&mut self, now: Instant, (key, side): (u64, Side), dialog: DialogId) {
        match self.endpoint.request(now, dialog, Method::Bye, Content::default()) {
            Ok(tx) => {
                self.requests.insert(tx, Pending::new(key, side, Kind::Bye, None));
            }
            Err(_) => self.endpoint.forget(dialog),
        }
    }

    fn cancel_attempt(&mut self, now: Instant, id: u64) {
        let Some(tx) = self.dials.get_mut(&id).and_then(|dial| dial.tx.take()) else { return };
        self.dial_by_tx.remove(&tx);
        if let Err(why) = self.endpoint.cancel(now, tx) {
            debug!(dial = id, %why, "nothing to cancel");
        }
    }

    fn dial_failed(&mut self, now: Instant, id: u64) {
        let Some(dial) = self.dials.get(&id) else { return };
        let (key, side, outcome) = (dial.call, dial.wanted.side, dial.outcome.clone());
        info!(
            call = key,
            ?side,
            reason = outcome.reason.code(),
            status = outcome.status,
            why = outcome.text,
            "not reached"
        );
        if let Some(call) = self.calls.get_mut(&key) {
            call.dial = None;
        }
        self.leg_failed(now, (key, side), outcome);
    }

    /// Whether nothing at all has come back from whoever is dialled for a call.
    pub(super) fn is_unheard(&self, key: u64) -> bool {
        let dial = self.calls.get(&key).and_then(|call| self.dials.get(&call.dial?));
        dial.is_some_and(|dial| {
            matches!(dial.machine.state(), State::Locating | State::Connecting | State::Inviting)
        })
    }

    /// The call does not want the leg any more.
    pub(super) fn give_up_dial(&mut self, now: Instant, key: u64) {
        let Some(id) = self.calls.get_mut(&key).and_then(|call| call.dial.take()) else { return };
        self.step(now, id, Input::GiveUp);
    }

    /// A time limit of a dial: a silent target, or an end to the patience.
    pub(super) fn handle_dial_alarm(&mut self, now: Instant, id: u64) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        if dial.until <= now {
            let (key, side) = (dial.call, dial.wanted.side);
            self.step(now, id, Input::GiveUp);
            if let Some(call) = self.calls.get_mut(&key) {
                call.dial = None;
            }
            let outcome = Outcome::new(EndReason::NoAnswer, "not answered in time");
            return self.leg_failed(now, (key, side), outcome);
        }
        if dial.silent_at.is_some_and(|at| at <= now) {
            dial.silent_at = None;
            self.note_target(now, id, Bearing::Dead);
            self.step(now, id, Input::Silent);
        }
    }

    fn set_dial_alarm(&mut self, now: Instant, id: u64) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        let waits = dial.machine.has_alternative() && dial.budget > now;
        let silent = dial.silent_at.filter(|_| waits).unwrap_or(dial.until);
        let next = dial.until.min(silent);
        if next != dial.alarm {
            self.alarms.remove(&(dial.alarm, Alarm::Dial(id)));
            dial.alarm = next;
            self.alarms.insert((next, Alarm::Dial(id)));
        }
    }

    fn forget_dial(&mut self, id: u64) {
        if let Some(dial) = self.dials.remove(&id) {
            self.drop_dial_traces(id, &dial);
        }
    }

    fn drop_dial_traces(&mut self, id: u64, dial: &Dial) {
        self.alarms.remove(&(dial.alarm, Alarm::Dial(id)));
        if let Some(tx) = dial.tx {
            self.dial_by_tx.remove(&tx);
        }
    }
}

impl Dial {
    /// The call it is for.
    pub(super) fn call(&self) -> u64 {
        self.call
    }

    /// What was dialled, as a leg of a call.
    fn take_leg(&mut self) -> Option<(Leg, PortPair, Plan)> {
        let (negotiation, sdp) = self.offer.take()?;
        let plan = self.plan.take()?;
        let connection = self.connection.take()?;
        let leg = Leg {
            flow: connection.flow,
            hold: Some(connection.hold),
            moved_at: None,
            target: self.target.take().filter(|target| target.transport.is_reliable()),
            dialog: self.answered_in,
            contact: std::mem::take(&mut self.contact),
            negotiation,
            sdp,
            awaiting_answer: false,
            media: Media::Gone,
            trunk: self.wanted.trunk,
            login: self.wanted.login.clone(),
            noise_cancellation: self.wanted.noise_cancellation,
            codec: None,
            takes_events: false,
            flows: Flows::BOTH,
            silent: false,
            glares: 0,
            offer: Offer::None,
        };
        Some((leg, self.ports.take()?, plan))
    }
}
