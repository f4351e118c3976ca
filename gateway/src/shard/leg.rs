//! One SIP leg of a call: its dialog, its offers and answers, its media session.
//!
//! A call has a leg to the carrier, and another one when its agent is a SIP endpoint or when the
//! caller was handed to another number. Two legs are bridged on one media worker; what one of them is
//! told about holding is carried across to the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::ids::TrunkId;
use media::codec::Codec;
use media::ports::PortPair;
use media::sdp::{Direction, Negotiation, Plan};
use media::{Far, SessionKey};
use sip::endpoint::{CommandError, Content, DialogId};
use sip::{Flow, Method, Response};
use tracing::{debug, error, info};

use super::Shard;
use super::body::{self, Body};
use super::call::{Agent, Call};
use super::flows::Farewell;
use super::inputs::Alarm;
use super::login::Login;
use super::request::{Kind, Pending};
use crate::call::EndReason;
use crate::call::machine::Input;
use crate::net::reach::{Hold, Target};

/// Which leg of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    /// The customer's carrier or PBX: whoever called us or is called by us.
    Carrier,
    /// An agent that is a SIP endpoint.
    Agent,
    /// The number the caller was handed to.
    Target,
}

impl Side {
    pub(super) const ALL: [Side; 3] = [Side::Carrier, Side::Agent, Side::Target];

    /// The media session of this leg of a call.
    pub(super) fn session(self, call: u64) -> SessionKey {
        SessionKey(call << 2 | self as u64)
    }

    /// The call and the leg that a media session belongs to.
    pub(super) fn of(session: SessionKey) -> (u64, Side) {
        let side = match session.0 & 3 {
            0 => Side::Carrier,
            1 => Side::Agent,
            _ => Side::Target,
        };
        (session.0 >> 2, side)
    }
}

/// Where a leg's media is.
pub(super) enum Media {
    /// Ports are taken, the plan is not known yet (an INVITE without offer).
    Waiting(PortPair),
    /// A worker has it.
    Open,
    /// Over, or never begun.
    Gone,
}

/// One SIP leg.
pub(super) struct Leg {
    pub(super) flow: Flow,
    /// Keeps a connection of ours open for as long as the leg lives.
    pub(super) hold: Option<Hold>,
    /// Where a leg that we dialled over a connection can be reached again.
    pub(super) target: Option<Target>,
    /// When its connection was last replaced.
    pub(super) moved_at: Option<Instant>,
    pub(super) dialog: Option<DialogId>,
    /// Our Contact in this dialog.
    pub(super) contact: String,
    pub(super) negotiation: Negotiation,
    /// Our SDP for the 200: the answer, or the offer when the INVITE had none.
    pub(super) sdp: Vec<u8>,
    /// Our offer is out; the next ACK must carry the answer.
    pub(super) awaiting_answer: bool,
    pub(super) media: Media,
    /// The trunk whose rules hold for it; `None` for an agent's leg.
    pub(super) trunk: Option<TrunkId>,
    /// Answers challenges of this leg's peer and of nobody else.
    pub(super) login: Option<Arc<Login>>,
    pub(super) noise_cancellation: bool,
    /// The codec in use, once it is known.
    pub(super) codec: Option<Codec>,
    /// It takes keys as events (RFC 4733); otherwise they go to it as INFO.
    pub(super) takes_events: bool,
    /// What the plan in force lets us send and receive.
    pub(super) flows: Flows,
    /// No media came for the configured time.
    pub(super) silent: bool,
    /// Offers of ours in a row that met one of the peer's.
    pub(super) glares: u8,
    /// Our re-INVITE that carries holding across.
    pub(super) offer: Offer,
}

/// Offers that may meet one of the peer's before ours is given up.
const MAX_GLARES: u8 = 5;

/// Whether a re-INVITE of ours is out on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// None is.
    None,
    /// One is, and it says what the other leg was told last.
    Out,
    /// One is, and the other leg has been told something else since: that is offered next.
    Outdated,
}

/// Which ways audio may flow on a leg, seen from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flows {
    pub(super) send: bool,
    pub(super) receive: bool,
}

impl Flows {
    pub(super) const BOTH: Flows = Flows { send: true, receive: true };

    pub(super) fn of(plan: &Plan) -> Self {
        Flows { send: plan.send, receive: plan.receive }
    }
}

impl Shard {
    /// Opens a leg's media with its first plan, or changes the plan of open media.
    pub(super) fn apply_plan(&mut self, now: Instant, (key, side): (u64, Side), plan: Plan) {
        let Some(leg) = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side)) else {
            return;
        };
        leg.codec = Some(plan.codec);
        leg.takes_events = plan.dtmf_payload.is_some();
        leg.flows = Flows::of(&plan);
        match std::mem::replace(&mut leg.media, Media::Gone) {
            Media::Waiting(ports) => self.open_media(now, (key, side), ports, plan),
            Media::Open => {
                leg.media = Media::Open;
                if let Err(why) = self.services.workers.apply(side.session(key), plan) {
                    error!(call = key, ?side, %why, "the new media plan was not taken");
                    self.handle_input(now, key, Input::HangUp(EndReason::MediaUnavailable));
                }
            }
            Media::Gone => {}
        }
    }

    /// Hands ports and plan to a worker: to the one that has the call's other leg, if there is one.
    pub(super) fn open_media(
        &mut self,
        now: Instant,
        (key, side): (u64, Side),
        ports: PortPair,
        plan: Plan,
    ) {
        let entropy = self.random.bytes();
        let snapshot = self.services.snapshot.load();
        let Some(call) = self.calls.get_mut(&key) else { return };
        let beside = call.open_side().map(|other| other.session(key));
        let far = match side {
            Side::Carrier => call.far.take().unwrap_or(Far::Nobody),
            Side::Agent | Side::Target => Far::Nobody,
        };
        let Some(leg) = call.leg_mut(side) else { return };
        leg.codec = Some(plan.codec);
        leg.takes_events = plan.dtmf_payload.is_some();
        leg.flows = Flows::of(&plan);
        let mut options = media::LegOptions::new(leg.flow.remote.ip().to_canonical(), entropy);
        // Media may go at once to where signalling is, or to what the trunk lists; anywhere else it
        // waits for the peer's own packets.
        let trunk = leg.trunk.and_then(|id| snapshot.trunk(id));
        options.listed =
            trunk.is_some_and(|trunk| trunk.allowed.is_some() && trunk.admits(plan.remote.ip()));
        options.noise_cancellation = leg.noise_cancellation;
        let settings = &self.services.settings.media;
        options.jitter_min_ms = settings.jitter_min_ms;
        options.jitter_max_ms = settings.jitter_max_ms;
        options.media_timeout_ms = settings.timeout_seconds.saturating_mul(1000);
        let news = far.news();
        let open = media::Open { ports, plan, far, options };
        let workers = &self.services.workers;
        let opened = match beside {
            Some(other) => workers.open_beside(side.session(key), other, open),
            None => workers.open(side.session(key), open),
        };
        match opened {
            Ok(worker) => {
                leg.media = Media::Open;
                if let Some(news) = news {
                    call.seat = self.services.links.seat(worker, (&call.wake, news));
                }
                self.join(now, key);
            }
            Err(why) => {
                error!(call = key, ?side, %why, "no media worker took the leg");
                self.handle_input(now, key, Input::HangUp(EndReason::MediaUnavailable));
            }
        }
    }

    /// Bridges the carrier's leg with the one that stands opposite, once both have media.
    pub(super) fn join(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some(opposite) = call.opposite(Side::Carrier) else { return };
        let is_open =
            |side: Side| call.leg(side).is_some_and(|leg| matches!(leg.media, Media::Open));
        if !is_open(Side::Carrier) || !is_open(opposite) {
            return;
        }
        let (carrier, other) = (Side::Carrier.session(key), opposite.session(key));
        if let Err(why) = self.services.workers.bridge(carrier, other) {
            error!(call = key, %why, "the two legs could not be bridged");
            self.handle_input(now, key, Input::HangUp(EndReason::MediaUnavailable));
        }
    }

    /// Opens the gates of all legs.
    pub(super) fn open_gates(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get(&key) else { return };
        let open = call.open_sides();
        for side in open.into_iter().flatten() {
            if let Err(why) = self.services.workers.gate(side.session(key), true) {
                error!(call = key, ?side, %why, "the media gate was not opened");
                return self.handle_input(now, key, Input::HangUp(EndReason::MediaUnavailable));
            }
        }
    }

    /// One leg was told to hold, or to go on: the other is offered the same (RFC 3264 §8.4).
    pub(super) fn carry_hold(&mut self, now: Instant, key: u64, from: Side) {
        let random = &mut self.random;
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some(told) = call.leg(from).map(|leg| leg.flows) else { return };
        let Some(to) = call.opposite(from) else { return };
        let Some(leg) = call.leg_mut(to) else { return };
        let Some(dialog) = leg.dialog.filter(|_| matches!(leg.media, Media::Open)) else { return };
        if leg.offer != Offer::None {
            leg.offer = Offer::Outdated;
            return;
        }
        // What we may not send to the one, we need not receive from the other.
        leg.negotiation.set_direction(Direction::new(told.receive, told.send));
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        let offer = leg.negotiation.offer(&mut fill);
        let body = Some(("application/sdp", offer.as_slice()));
        let content = Content { headers: &[("Allow", super::outside::ALLOW)], body };
        match self.endpoint.request(now, dialog, Method::Invite, content) {
            Ok(tx) => {
                leg.offer = Offer::Out;
                let login = leg.login.clone();
                self.requests.insert(tx, Pending::new(key, to, Kind::Reinvite, login));
            }
            Err(why) => {
                debug!(call = key, side = ?to, %why, "holding was not carried across");
                leg.negotiation.withdraw();
                if why == CommandError::Pending {
                    self.offer_again_later(now, key, to);
                }
            }
        }
    }

    /// Both sides made an offer at once (RFC 3261 §14.1): ours is made again, after 2.1 to 4 s on a
    /// dialog that we began, after 0 to 2 s on one that the peer did.
    fn offer_again_later(&mut self, now: Instant, key: u64, side: Side) {
        let dice = u64::from(u32::from_be_bytes(self.random.bytes()));
        let Some(call) = self.calls.get_mut(&key) else { return };
        let began = side != Side::Carrier || call.tx.is_none();
        let Some(leg) = call.leg_mut(side).filter(|leg| leg.glares < MAX_GLARES) else { return };
        leg.glares += 1;
        let units = if began { 210 + dice % 191 } else { dice % 201 };
        let at = now + Duration::from_millis(10 * units);
        self.alarms.insert((at, Alarm::Offer(key, side)));
    }

    /// It is time to make an offer again that met another one.
    pub(super) fn handle_offer_alarm(&mut self, now: Instant, key: u64, side: Side) {
        if let Some(from) = self.calls.get(&key).and_then(|call| call.opposite(side)) {
            self.carry_hold(now, key, from);
        }
    }

    /// The answer to a re-INVITE of ours.
    pub(super) fn handle_reinvite_response(
        &mut self,
        now: Instant,
        (key, side): (u64, Side),
        response: &Response,
        dialog: Option<DialogId>,
    ) {
        let accepted = (200..300).contains(&response.status());
        let Some(leg) = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side)) else {
            // The leg's BYE is out, or waits for a connection.
            if let Some(dialog) = dialog.filter(|_| accepted) {
                let _ = self.endpoint.ack(now, dialog, None);
            }
            return;
        };
        let offer = std::mem::replace(&mut leg.offer, Offer::None);
        self.settle_offer(now, (key, side), response, dialog);
        let opposite = self.calls.get(&key).and_then(|call| call.opposite(side));
        // After a 491 the offer is made again later, and will be the newest then.
        if let (Offer::Outdated, Some(from)) =
            (offer, opposite.filter(|_| response.status() != 491))
        {
            self.carry_hold(now, key, from);
        }
    }

    /// What the answer to an offer of ours changes.
    fn settle_offer(
        &mut self,
        now: Instant,
        (key, side): (u64, Side),
        response: &Response,
        dialog: Option<DialogId>,
    ) {
        let accepted = (200..300).contains(&response.status());
        let Some(leg) = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side)) else {
            return;
        };
        if !accepted {
            debug!(call = key, ?side, status = response.status(), "holding was refused");
            leg.negotiation.withdraw();
            if response.status() == 491 {
                self.offer_again_later(now, key, side);
            }
            return;
        }
        leg.glares = 0;
        let plan = match body::read(response) {
            Body::Sdp(answer) => leg.negotiation.accept(answer),
            _ => Err(media::sdp::Incompatible::Malformed),
        };
        if let Some(dialog) = dialog
            && let Err(why) = self.endpoint.ack(now, dialog, None)
        {
            debug!(call = key, %why, "ACK was not sent");
        }
        match plan {
            Ok(plan) => self.apply_plan(now, (key, side), plan),
            Err(why) => {
                info!(call = key, ?side, why = why.word(), "the answer to our offer is unusable");
                if let Some(leg) = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side)) {
                    leg.negotiation.withdraw();
                }
            }
        }
    }

    /// A key pressed on one leg that the other cannot hear as RFC 4733: sent as INFO.
    pub(super) fn carry_digit(
        &mut self,
        now: Instant,
        (key, from): (u64, Side),
        digit: (char, u32),
    ) {
        let Some(call) = self.calls.get(&key) else { return };
        let leg = call.opposite(from).and_then(|side| Some((side, call.leg(side)?)));
        let Some((side, Some(dialog))) = leg.map(|(side, leg)| (side, leg.dialog)) else { return };
        let (signal, duration_ms) = digit;
        let text = format!("Signal={signal}\r\nDuration={duration_ms}\r\n");
        let body = Some(("application/dtmf-relay", text.as_bytes()));
        let content = Content { headers: &[], body };
        if let Ok(tx) = self.endpoint.request(now, dialog, Method::Info, content) {
            self.requests.insert(tx, Pending::new(key, side, Kind::Info, None));
        }
    }

    /// A leg has been silent for the configured time. With two legs the call ends when both are.
    pub(super) fn handle_silence(&mut self, now: Instant, key: u64, side: Side) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if let Some(leg) = call.leg_mut(side) {
            leg.silent = true;
        }
        let other = call.opposite(side).and_then(|other| call.leg(other));
        if other.is_none_or(|leg| leg.silent) {
            return self.handle_input(now, key, Input::MediaTimedOut);
        }
        info!(call = key, ?side, "no media from one side");
    }

    /// The peers of a leg are known from here on: their messages are answered while it lives.
    pub(super) fn meet(&mut self, flow: &Flow) {
        *self.peers.entry(flow.remote.ip().to_canonical()).or_insert(0) += 1;
    }

    /// The leg is over: its peer is a stranger again, unless another leg knows it.
    pub(super) fn part(&mut self, flow: &Flow) {
        let source = flow.remote.ip().to_canonical();
        if let Some(count) = self.peers.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&source);
            }
        }
    }

    /// Hangs up a leg and gives back what it holds. The other legs are not touched.
    pub(super) fn drop_leg(&mut self, now: Instant, (key, side): (u64, Side), reason: EndReason) {
        let Some(leg) = self.calls.get_mut(&key).and_then(|call| call.take_leg(side)) else {
            return;
        };
        if let Some(farewell) = leg.farewell(reason) {
            self.send_bye(now, (key, side), farewell);
        }
        self.retire_leg(&leg);
        if matches!(leg.media, Media::Open) {
            let _ = self.services.workers.close(side.session(key), |_| {});
        }
    }

    /// Forgets a leg whose dialog is over or ending.
    pub(super) fn retire_leg(&mut self, leg: &Leg) {
        if let Some(dialog) = leg.dialog {
            self.by_dialog.remove(&dialog);
        }
        self.part(&leg.flow);
    }
}

impl Leg {
    /// The BYE that ends its dialog.
    pub(super) fn farewell(&self, reason: EndReason) -> Option<Farewell> {
        let (login, target) = (self.login.clone(), self.target.clone());
        Some(Farewell { dialog: self.dialog?, login, row: reason.row(), target })
    }
}

impl Call {
    pub(super) fn leg(&self, side: Side) -> Option<&Leg> {
        match side {
            Side::Carrier => self.carrier.as_ref(),
            Side::Agent => self.agent_leg.as_deref(),
            Side::Target => self.target.as_deref(),
        }
    }

    pub(super) fn leg_mut(&mut self, side: Side) -> Option<&mut Leg> {
        match side {
            Side::Carrier => self.carrier.as_mut(),
            Side::Agent => self.agent_leg.as_deref_mut(),
            Side::Target => self.target.as_deref_mut(),
        }
    }

    pub(super) fn take_leg(&mut self, side: Side) -> Option<Leg> {
        match side {
            Side::Carrier => self.carrier.take(),
            Side::Agent => self.agent_leg.take().map(|leg| *leg),
            Side::Target => self.target.take().map(|leg| *leg),
        }
    }

    /// The leg that hears what `side` says: none when a built-in or linked agent does.
    pub(super) fn opposite(&self, side: Side) -> Option<Side> {
        let partner = if self.target.is_some() {
            Side::Target
        } else if matches!(self.agent, Agent::Sip) {
            Side::Agent
        } else {
            return None;
        };
        match side {
            Side::Carrier => Some(partner),
            other if other == partner => Some(Side::Carrier),
            _ => None,
        }
    }

    /// The legs that have media.
    pub(super) fn open_sides(&self) -> [Option<Side>; 3] {
        Side::ALL.map(|side| {
            let leg = self.leg(side)?;
            matches!(leg.media, Media::Open).then_some(side)
        })
    }

    /// One leg that has media.
    pub(super) fn open_side(&self) -> Option<Side> {
        self.open_sides().into_iter().flatten().next()
    }
}
