//! One call's media, without sockets and without a clock: fed datagrams and ticks, it gives
//! datagrams and events (RFC 3550, 3711, 4733).
//!
//! ```text
//!             datagram                                             tick (20 ms)
//!                │                                                      │
//!   budget ─► unprotect ─► latch ─► statistics ─┬─► jitter ──► decode / conceal ─► clean ─┐
//!                                               └─► digits ───────────────────────────────┤
//!                                                                                        ▼
//!   network ◄─ protect ◄─ RTP header ◄─ encode ◄─ frame, digit or silence ◄───────── far side
//! ```
//!
//! A session has one leg and a far side: an agent, an echo, a clip, nobody, or the leg of another
//! session ([`Session::bridge`]), which packets reach without any of the right half of the figure.
//! The caller's audio passes the gate only when signalling has opened it (the call is answered), and
//! so does the far side's.
//!
//! Nothing waits for a tick that need not: what is relayed crosses at once, an agent hears each frame
//! when it is whole (`prompt`), and what it says leaves when it comes (`pace`). The tick stands for
//! the passing of time: what is due, what is overdue, what takes the place of what is missing.
//!
//! Invariants: nothing an unproven source sends changes any state but counters; after
//! [`Session::new`], [`Session::apply`] and [`Session::connect`] nothing is allocated; time never goes
//! back between ticks, and between packets by no more than one waking of the worker.

mod budget;
mod clean;
mod far;
mod leg;
mod listen;
mod numbers;
mod pace;
mod prompt;
mod relay;
mod rtcp;
mod secure;
mod tones;

use std::mem::offset_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::WallAnchor;
use crate::command::{Event, Far, LegOptions, SessionKey};
use crate::doorbell::Doorbell;
use crate::dtmf;
use crate::frame::{FRAME_MS, Frame};
use crate::packet::{self, Kind};
use crate::report::LegReport;
use crate::sdp::Plan;
use crate::srtp::TAIL_ROOM;
use crate::worker::Drops;

use far::Speech;
use leg::{Heard, Leg};
use pace::Pace;

pub(crate) use clean::Cleaning;
pub(crate) use far::{FarSide, OtherLeg};
pub(crate) use listen::Suppressor;
pub use relay::Crossing;

/// Bytes a buffer for received datagrams must have: any packet we take, and room for SRTP to work.
pub const DATAGRAM_BYTES: usize = 2_048 + TAIL_ROOM;

/// Which of a leg's two ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// The even port.
    Rtp,
    /// The odd port above it; idle when RTP and RTCP share one (RFC 5761).
    Rtcp,
}

/// One received datagram; it is decrypted in place.
pub struct Datagram<'a> {
    /// The port it came to.
    pub channel: Channel,
    /// The address it came from.
    pub from: SocketAddr,
    /// How long it waited before we looked at it.
    pub waited: Duration,
    /// The bytes: the datagram is the first `len` of them.
    pub buffer: &'a mut [u8],
    /// Length of the datagram.
    pub len: usize,
}

/// Where a session's outputs go, at once and in order.
pub trait Outlet {
    /// Sends `datagram` from the leg's `channel`. Whether it arrives is not our concern.
    fn send(&mut self, channel: Channel, to: SocketAddr, datagram: &[u8]);

    /// Sends `datagram` from [`Channel::Rtp`], `to` the address that the session was told there is a
    /// connected socket for.
    fn send_connected(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.send(Channel::Rtp, to, datagram);
    }

    /// Tells signalling.
    fn event(&mut self, event: Event);
}

/// One call's media.
///
/// What every packet needs comes first and lies together, as it does in a leg: of a thousand
/// sessions nothing else stays in the processor's cache.
#[repr(C, align(64))]
pub struct Session {
    key: SessionKey,
    /// When the peer was last heard, or media was last allowed to flow.
    last_sign: Instant,
    gate_open: bool,
    timeout_told: bool,
    /// An agent was given something nobody has been told of.
    fed_agent: bool,
    far: FarSide,
    leg: Leg,
    media_timeout: Option<Duration>,
    /// Of far sides that were here before this one.
    overruns_before: u64,
    overruns_told: u64,
    frames_played: u64,
    pace: Pace,
    ticked: Instant,
}

impl Session {
    /// What of a session a relayed packet needs: it is laid out to come first.
    pub(crate) const HOT_BYTES: usize = offset_of!(Self, leg) + Leg::HOT_BYTES;

    /// A session that obeys `plan`, with its gate shut.
    #[must_use]
    pub fn new(
        key: SessionKey,
        plan: &Plan,
        far: Far,
        options: &LegOptions,
        anchor: WallAnchor,
    ) -> Self {
        let timeout_ms = u64::from(options.media_timeout_ms);
        Self {
            key,
            leg: Leg::new(plan, options, anchor),
            far: far.into(),
            gate_open: false,
            media_timeout: (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms)),
            last_sign: anchor.at,
            timeout_told: false,
            overruns_before: 0,
            overruns_told: 0,
            frames_played: 0,
            fed_agent: false,
            pace: Pace::new(),
            ticked: anchor.at,
        }
    }

    /// The key given at the start.
    #[must_use]
    pub const fn key(&self) -> SessionKey {
        self.key
    }

    /// An agent was given frames or digits since the last call.
    #[must_use]
    pub fn take_fed_agent(&mut self) -> bool {
        std::mem::take(&mut self.fed_agent)
    }

    /// Takes one datagram. What a bridged session returns is for [`Session::cross`] of the other
    /// one, together with the same buffer.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        mut datagram: Datagram<'_>,
        outlet: &mut impl Outlet,
    ) -> Option<Crossing> {
        let bytes = datagram.buffer.get(..datagram.len).unwrap_or_default();
        match (packet::classify(bytes), datagram.channel) {
            (Kind::Rtp, Channel::Rtp) => {
                let heard = self.leg.handle_rtp(now, &mut datagram, self.is_bridged());
                let crossing = self.note(now, heard, outlet);
                if self.far.is_agent() {
                    self.feed_agent(Leg::hand_on);
                }
                return crossing.filter(|_| self.gate_open);
            }
            // Peers that do not agree to share a port are known to do it all the same.
            (Kind::Rtcp, _) => self.leg.handle_rtcp(now, &mut datagram),
            (Kind::Rtp | Kind::Stun | Kind::Other, _) => self.leg.count_malformed(),
        }
        None
    }

    /// Sends the peer what the session it is bridged with has heard, at once; `buffer` is the one
    /// it was heard in. Nothing passes a gate that is shut.
    pub fn cross(&mut self, crossing: &Crossing, buffer: &mut [u8], outlet: &mut impl Outlet) {
        if self.gate_open && self.is_bridged() {
            self.leg.relay(crossing, buffer, outlet);
        }
    }

    /// Does what is due every 20 ms. `missed` ticks before this one were left out because the
    /// worker was stalled: their time has passed, and so has their audio. Ticks of a short stall
    /// are not left out but done one after another, perhaps at the same `now`.
    pub fn handle_tick(&mut self, now: Instant, missed: u64, outlet: &mut impl Outlet) {
        self.leg.let_pass(now, missed);
        if missed > 0 {
            self.leg.fall_silent(self.pace.forget());
        }
        let on_time = now.saturating_duration_since(self.ticked) >= ON_TIME;
        self.ticked = now;
        while let Some(digit) = self.leg.poll_digit(now) {
            self.hear_digit(digit, outlet);
        }
        if self.far.is_agent() {
            self.feed_agent(Leg::hand_on_overdue);
        } else if !self.is_bridged() {
            let frame = self.leg.listen(now);
            if self.gate_open {
                self.far.hear(&frame);
            }
        }
        if self.gate_open {
            self.speak(on_time, outlet);
            self.leg.report_if_due(now, outlet);
            self.watch(now, outlet);
        }
    }

    /// For how many ticks from now on it may be left alone: while it does nothing but relay there is
    /// nothing to be done 50 times a second. See [`Session::make_up_for`].
    pub(crate) fn rest(&self) -> u16 {
        let relays = self.gate_open && self.is_bridged() && !self.leg.is_cleaned();
        let rests = relays && self.leg.may_rest() && !self.leg.is_dialling();
        if rests { REST_TICKS } else { 0 }
    }

    /// Lets the `ticks` pass for which it was left alone.
    pub(crate) fn make_up_for(&mut self, ticks: u16) {
        if ticks > 0 {
            self.leg.make_up_for(ticks);
        }
    }

    /// Where to it wants a connected socket: to its peer, once media has flowed for a while.
    pub(crate) fn to_connect(&self, now: Instant) -> Option<SocketAddr> {
        self.leg.latch.to_connect(now).filter(|_| self.gate_open)
    }

    /// The answer to [`Session::to_connect`]: there is such a socket now, or there can be none.
    pub(crate) fn connected(&mut self, now: Instant, is_connected: bool) {
        match is_connected {
            true => self.leg.latch.connected(),
            false => self.leg.latch.not_connected(now),
        }
    }

    /// The agent has said something that was awaited: it is sent at once.
    pub fn handle_speech(&mut self, outlet: &mut impl Outlet) {
        if !self.gate_open || !self.far.is_agent() || !self.leg.may_speak() {
            return;
        }
        if self.say_what_is_owed(outlet) && self.far.waiting() == 0 {
            self.pace.kept_up();
        }
        self.await_speech(outlet);
    }

    /// What the agent says is told at `door` of `bell` from now on, whenever it need not wait for a
    /// tick; see [`Session::handle_speech`].
    pub(crate) fn live_at(&mut self, bell: &Arc<Doorbell>, door: usize) {
        self.far.live_at(bell, door);
    }

    /// Obeys a new plan from here on. The stream we send goes on with the same SSRC and numbering;
    /// keys that did not change keep their state.
    pub fn apply(&mut self, now: Instant, plan: &Plan) {
        self.leg.apply(plan);
        // What was allowed or known before says nothing about how long to wait now.
        self.last_sign = now;
        self.timeout_told = false;
    }

    /// Opens or shuts the gate: only while it is open does audio pass between leg and far side.
    pub fn gate(&mut self, now: Instant, open: bool) {
        if open && !self.gate_open {
            self.last_sign = now;
        }
        self.gate_open = open;
    }

    /// Puts something else at the far end, from the next tick on: an announcement, another agent.
    pub fn connect(&mut self, far: Far) {
        self.replace_far(far.into());
    }

    /// Makes two sessions each other's far side, from the next packet on: what one hears is for the
    /// other to [`Session::cross`]. To be repeated when one of them has a new plan.
    pub fn bridge(&mut self, other: &mut Self) {
        let (one, two) = (self.as_other_leg(), other.as_other_leg());
        self.face(two);
        other.face(one);
    }

    /// One half of [`Session::bridge`], for sessions that cannot be borrowed together.
    pub(crate) fn face(&mut self, other: OtherLeg) {
        match &mut self.far {
            FarSide::Leg(known) => *known = other,
            _ => self.replace_far(FarSide::Leg(other)),
        }
    }

    /// What a session that is bridged with this one has to know of it.
    pub(crate) fn as_other_leg(&self) -> OtherLeg {
        OtherLeg { takes_events: self.leg.takes_events() }
    }

    /// Another session's leg is at the far end.
    #[must_use]
    pub fn is_bridged(&self) -> bool {
        self.far.other_leg().is_some()
    }

    /// Presses a key at the peer: as a telephone event, or as tones if it has not agreed to those.
    /// It takes the place of what the far side says meanwhile. What is no key is ignored.
    pub fn dial(&mut self, digit: char, duration_ms: u32) {
        self.leg.dial(digit, duration_ms);
    }

    /// [`Session::connect`] with something that is ready.
    pub(crate) fn replace_far(&mut self, far: FarSide) {
        self.overruns_before = self.overruns();
        self.leg.fall_silent(self.pace.forget());
        if self.is_bridged() || matches!(far, FarSide::Leg(_)) {
            self.leg.change_far_side();
        }
        self.far = far;
    }

    /// Turns noise cancellation on or off.
    pub(crate) fn clean_with(&mut self, suppressor: Option<Suppressor>) {
        self.leg.clean_with(suppressor);
    }

    /// Noise cancellation is on, which costs more than everything else.
    #[must_use]
    pub fn is_cleaned(&self) -> bool {
        self.leg.is_cleaned()
    }

    /// Lets audio pass uncleaned for as long as there is no time to clean it.
    pub fn bypass_cleaning(&mut self, bypassed: bool) {
        self.leg.bypass_cleaning(bypassed);
    }

    /// What is known so far.
    #[must_use]
    pub fn report(&self) -> LegReport {
        self.leg.report(self.overruns(), self.frames_played)
    }

    /// Ends the session: says BYE and tells what is known.
    pub fn close(&mut self, now: Instant, outlet: &mut impl Outlet) -> LegReport {
        if self.gate_open {
            self.leg.say_bye(now, outlet);
        }
        self.gate_open = false;
        self.report()
    }

    /// What was dropped since the last call.
    pub(crate) fn take_drops(&mut self) -> Drops {
        let overruns = self.overruns();
        let told = std::mem::replace(&mut self.overruns_told, overruns);
        Drops { overrun: overruns.saturating_sub(told), ..self.leg.take_drops() }
    }

    /// Frames that this and earlier far sides did not take in time.
    fn overruns(&self) -> u64 {
        self.overruns_before + self.far.overruns()
    }

    fn note(&mut self, now: Instant, heard: Heard, outlet: &mut impl Outlet) -> Option<Crossing> {
        let key = self.key;
        let (first, latched, digit, crossing) = match heard {
            Heard::Nothing => return None,
            Heard::Intrusion => {
                outlet.event(Event::Intrusion { key });
                return None;
            }
            Heard::Peer { first, latched, digit, crossing } => (first, latched, digit, crossing),
        };
        if let Some(address) = latched {
            outlet.event(Event::Latched { key, address });
        }
        if first {
            outlet.event(Event::FirstPacket { key });
        }
        if let Some(digit) = digit {
            self.hear_digit(digit, outlet);
        }
        self.last_sign = now;
        self.timeout_told = false;
        crossing
    }

    /// Gives the agent the frames that `hand_on` finds; before the gate opens nobody hears them.
    fn feed_agent(&mut self, hand_on: impl FnOnce(&mut Leg, &mut dyn FnMut(&Frame))) {
        let (far, fed, gate_open) = (&mut self.far, &mut self.fed_agent, self.gate_open);
        hand_on(&mut self.leg, &mut |frame| {
            if gate_open {
                far.hear(frame);
                *fed = true;
            }
        });
    }

    fn hear_digit(&mut self, digit: dtmf::Digit, outlet: &mut impl Outlet) {
        let dtmf::Digit { digit, duration_ms } = digit;
        self.leg.count_digit();
        if !self.gate_open {
            return;
        }
        match self.far.other_leg() {
            Some(OtherLeg { takes_events: true }) => {}
            Some(_) => outlet.event(Event::Digit { key: self.key, digit, duration_ms }),
            None => {
                self.far.hear_digit(digit, duration_ms);
                self.fed_agent |= self.far.is_agent();
            }
        }
    }

    /// Sends the caller 20 ms of what the far side has to say, or of silence.
    fn speak(&mut self, on_time: bool, outlet: &mut impl Outlet) {
        if !self.leg.may_speak() {
            return self.leg.send_filler(outlet);
        }
        if self.far.is_agent() {
            return self.keep_pace(on_time, outlet);
        }
        if self.leg.is_dialling() {
            return self.leg.send_digit_or_silence(outlet);
        }
        if self.is_bridged() {
            return self.leg.pass();
        }
        match self.far.speak() {
            Some(speech) => self.say(speech, outlet),
            None => {
                self.leg.send_digit_or_silence(outlet);
                if self.far.take_end() {
                    outlet.event(Event::PlaybackEnded { key: self.key });
                }
            }
        }
    }

    /// A tick in which an agent may speak: what is owed is sent, be it silence.
    fn keep_pace(&mut self, on_time: bool, outlet: &mut impl Outlet) {
        self.pace.tick(on_time, self.far.waiting());
        if self.leg.is_dialling() {
            // One at a time: what is a key lasts as long as it has to.
            self.leg.send_digit_or_silence(outlet);
            self.pace.sent();
        } else {
            self.say_what_is_owed(outlet);
            self.pace.left(self.far.waiting());
            while self.pace.must_fill() && !self.leg.is_dialling() {
                self.leg.send_digit_or_silence(outlet);
                self.pace.filled();
            }
        }
        self.await_speech(outlet);
    }

    /// Sends what the agent has said, as far as packets are owed; false when that was nothing.
    fn say_what_is_owed(&mut self, outlet: &mut impl Outlet) -> bool {
        let mut said = false;
        while self.pace.may_send()
            && !self.leg.is_dialling()
            && let Some(speech) = self.far.speak()
        {
            self.say(speech, outlet);
            self.pace.spoke();
            said = true;
        }
        said
    }

    /// From here on the agent's next word is told at the door, if it may leave before the next tick.
    fn await_speech(&mut self, outlet: &mut impl Outlet) {
        let awaited = self.pace.may_send() && !self.leg.is_dialling();
        self.far.await_speech(awaited);
        if awaited && self.far.waiting() > 0 {
            // It came just before it was awaited.
            self.say_what_is_owed(outlet);
        }
    }

    fn say(&mut self, speech: Speech, outlet: &mut impl Outlet) {
        match speech {
            Speech::Frame(frame) => {
                self.leg.send_frame(&frame, outlet);
                self.far.count_played();
                self.frames_played += 1;
            }
            Speech::Digit { digit, duration_ms } => {
                self.leg.dial(digit, duration_ms);
                self.leg.send_digit_or_silence(outlet);
            }
        }
    }

    /// Tells when the peer has been silent for too long although it should not be.
    fn watch(&mut self, now: Instant, outlet: &mut impl Outlet) {
        if self.leg.is_on_hold() {
            self.last_sign = now;
            return;
        }
        let silent = now.saturating_duration_since(self.last_sign);
        if self.media_timeout.is_some_and(|limit| silent >= limit) && !self.timeout_told {
            self.timeout_told = true;
            outlet.event(Event::MediaTimeout { key: self.key });
        }
    }
}

/// A tick sooner after another one is made up for after a stall.
const ON_TIME: Duration = Duration::from_millis(FRAME_MS as u64 / 2);

/// What a relaying session has to do can wait for 200 ms: reports, time-outs, the end of a digit whose
/// own end was lost, and a budget that lasts for half a second.
const REST_TICKS: u16 = 9;

const _: () =
    assert!(Session::HOT_BYTES <= 12 * 64, "fetched ahead for every packet: keep it small");

#[cfg(test)]
mod tests;
