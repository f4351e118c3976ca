//! The wire side of a session: one peer, its two ports, everything between a datagram and a frame.

use std::mem::offset_of;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::WallAnchor;
use crate::codec::Codec;
use crate::command::LegOptions;
use crate::dtmf::{self, Digit};
use crate::frame::{FRAME_SAMPLES, Frame};
use crate::latch::{Admit, Arrival, Latch, Policy, Target};
use crate::packet::rtcp as wire;
use crate::packet::rtp::{self, RtpView};
use crate::report::LegReport;
use crate::sdp::Plan;
use crate::srtp::{SrtpError, TAIL_ROOM};
use crate::stats::{Quality, Reception};
use crate::stream::{Outgoing, Stream};
use crate::worker::Drops;

use super::budget::Budget;
use super::clean::PACKET_MAX;
use super::listen::{Listener, Suppressor};
use super::numbers::Numbers;
use super::relay::{Crossing, Kind};
use super::rtcp::{COMPOUND_BYTES, Rtcp};
use super::secure::Secured;
use super::tones::Tones;
use super::{Channel, Datagram, Outlet};

/// What became of an RTP packet.
pub(super) enum Heard {
    /// It was dropped and counted.
    Nothing,
    /// It was dropped, and there are too many of its kind.
    Intrusion,
    /// It is the peer's.
    Peer {
        /// The first one ever.
        first: bool,
        /// Where media goes from now on, if that has just been learned.
        latched: Option<SocketAddr>,
        /// A digit that is complete with this packet.
        digit: Option<Digit>,
        /// What the other leg of a bridged call is to send.
        crossing: Option<Crossing>,
    },
}

/// One side of a call as RTP sees it. What every packet needs comes first.
#[repr(C)]
pub(super) struct Leg {
    pub(super) terms: Terms,
    ever_heard: bool,
    pub(super) budget: Budget,
    /// Elsewhere, as a plain leg has no use for so many bytes.
    pub(super) secured: Option<Box<Secured>>,
    pub(super) latch: Latch,
    reception: Reception,
    pub(super) stream: Stream,
    dialler: dtmf::Sender,
    listener: Listener,
    pub(super) drops: Drops,
    drops_told: Drops,
    digits: dtmf::Receiver,
    tones: Tones,
    rtcp: Rtcp,
    digits_received: u32,
    digits_sent: u32,
}

/// What the plan says, without its keys.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
    pub(super) dtmf_send: Option<u8>,
    dtmf_receive: Option<u8>,
    send: bool,
    receive: bool,
    remote_rtcp: SocketAddr,
    rtcp_mux: bool,
}

impl Terms {
    fn of(plan: &Plan) -> Self {
        Self {
            codec: plan.codec,
            payload_type: plan.payload_type,
            dtmf_send: plan.dtmf_payload,
            dtmf_receive: plan.dtmf_receive_payload,
            send: plan.send,
            receive: plan.receive,
            remote_rtcp: plan.remote_rtcp,
            rtcp_mux: plan.rtcp_mux,
        }
    }

    fn content(&self, payload_type: u8) -> Option<Content> {
        if payload_type == self.payload_type {
            Some(Content::Audio)
        } else if Some(payload_type) == self.dtmf_receive {
            Some(Content::Digits)
        } else if payload_type == COMFORT_NOISE {
            Some(Content::ComfortNoise)
        } else {
            None
        }
    }
}

/// What a payload type stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Audio,
    Digits,
    ComfortNoise,
}

impl Leg {
    /// What a relayed packet needs ends with this.
    pub(super) const HOT_BYTES: usize = offset_of!(Self, listener) + Listener::HOT_BYTES;

    pub(super) fn new(plan: &Plan, options: &LegOptions, anchor: WallAnchor) -> Self {
        let numbers = Numbers::from(options.entropy);
        let policy = Policy {
            signalling: options.peer_signalling_ip,
            secure: plan.srtp.is_some(),
            listed: options.listed,
            learn_anywhere: options.learn_anywhere,
        };
        let mut stream = Stream::new(numbers.ssrc, numbers.sequence, numbers.timestamp);
        stream.configure(plan.payload_type, plan.ptime_ms);
        let clock_hz = plan.codec.clock_rate_hz();
        Self {
            terms: Terms::of(plan),
            secured: plan.srtp.as_ref().map(|keys| Box::new(Secured::new(keys))),
            latch: Latch::new(plan.remote, policy),
            budget: Budget::new(),
            reception: Reception::new(clock_hz),
            listener: Listener::new(plan.codec, options, numbers.ssrc),
            digits: dtmf::Receiver::new(clock_hz),
            stream,
            dialler: dtmf::Sender::new(clock_hz),
            tones: Tones::new(),
            rtcp: Rtcp::new(anchor, numbers.name, numbers.intervals),
            drops: Drops::default(),
            drops_told: Drops::default(),
            ever_heard: false,
            digits_received: 0,
            digits_sent: 0,
        }
    }

    /// Obeys a new plan; see [`super::Session::apply`].
    pub(super) fn apply(&mut self, plan: &Plan) {
        let was = std::mem::replace(&mut self.terms, Terms::of(plan));
        let stays = !self.latch.relatch(plan.remote, plan.srtp.is_some());
        self.secured = match (self.secured.take(), &plan.srtp) {
            (Some(previous), Some(keys)) => Some(Box::new(previous.renew(keys, stays))),
            (None, Some(keys)) => Some(Box::new(Secured::new(keys))),
            (_, None) => None,
        };
        self.listener.change_codec(plan.codec);
        if plan.receive && !was.receive {
            // What the peer sends now has nothing to do with what it sent before the hold.
            self.listener.reset();
        }
        self.stream.configure(plan.payload_type, plan.ptime_ms);
    }

    pub(super) fn clean_with(&mut self, suppressor: Option<Suppressor>) {
        self.listener.clean_with(suppressor);
    }

    pub(super) fn is_cleaned(&self) -> bool {
        self.listener.is_cleaned()
    }

    pub(super) fn bypass_cleaning(&mut self, bypassed: bool) {
        self.listener.bypass_cleaning(bypassed);
    }

    // Receiving.

    /// Takes one packet that looks like RTP. When the leg is `bridged` its audio is not kept for
    /// frames but made ready to cross to the other leg.
    pub(super) fn handle_rtp(
        &mut self,
        now: Instant,
        datagram: &mut Datagram<'_>,
        bridged: bool,
    ) -> Heard {
        // Jitter is the network's: how late we looked is not part of it, nor is it anything the
        // playout buffer has to grow for.
        let arrived = match datagram.waited {
            Duration::ZERO => now,
            waited => now.checked_sub(waited).unwrap_or(now),
        };
        let is_peer = self.latch.locked().is_none_or(|peer| peer == datagram.from);
        if !self.budget.spend(is_peer) {
            self.drops.over_budget += 1;
            return Heard::Nothing;
        }
        let Some(len) = self.unprotect(datagram) else { return Heard::Nothing };
        let packet = datagram.buffer.get(..len).unwrap_or_default();
        let Ok(view) = rtp::view(packet) else {
            self.drops.malformed += 1;
            return Heard::Nothing;
        };
        let Some(content) = self.terms.content(view.header.payload_type) else {
            self.drops.payload_type += 1;
            return Heard::Nothing;
        };
        let latched = match self.admit(&view, datagram.from, now) {
            Admit::Yes => None,
            Admit::Locked => self.latch.locked(),
            verdict @ (Admit::No | Admit::Intrusion) => {
                self.drops.stranger += 1;
                let is_intrusion = verdict == Admit::Intrusion;
                return if is_intrusion { Heard::Intrusion } else { Heard::Nothing };
            }
        };
        let first = !std::mem::replace(&mut self.ever_heard, true);
        let (mut digit, mut crossing) = (None, None);
        if self.count(&view, content, arrived) {
            let packet = datagram.buffer.get_mut(..len).unwrap_or_default();
            if content == Content::Digits {
                digit = self.digits.push(view.payload(packet), view.header.timestamp, now);
            }
            let stale = datagram.waited > STALE;
            if bridged {
                crossing = self.take_across(&view, (content, stale), packet);
            } else {
                self.take(&view, (content, stale), packet, arrived);
            }
        }
        Heard::Peer { first, latched, digit, crossing }
    }

    /// Takes one packet that looks like RTCP.
    pub(super) fn handle_rtcp(&mut self, now: Instant, datagram: &mut Datagram<'_>) {
        let is_peer = self.latch.locked().is_none_or(|peer| peer.ip() == datagram.from.ip());
        if !self.budget.spend(is_peer) {
            self.drops.over_budget += 1;
            return;
        }
        let len = match &mut self.secured {
            None => datagram.len,
            Some(secured) => match secured.unprotect_rtcp(datagram.buffer, datagram.len) {
                Ok(len) => len,
                Err(why) => return self.count_refused(why),
            },
        };
        if !self.latch.admit_rtcp(datagram.from, self.secured.is_some()) {
            self.drops.stranger += 1;
            return;
        }
        let packet = datagram.buffer.get(..len).unwrap_or_default();
        let Ok(packets) = wire::parse(packet) else { return self.count_malformed() };
        let ssrc = self.stream.ssrc();
        for packet in packets {
            self.rtcp.heard(&packet, ssrc, &mut self.reception, now);
        }
    }

    pub(super) fn count_malformed(&mut self) {
        self.drops.malformed += 1;
    }

    pub(super) fn count_digit(&mut self) {
        self.digits_received = self.digits_received.saturating_add(1);
    }

    /// A digit whose end was lost, once its time is over.
    pub(super) fn poll_digit(&mut self, now: Instant) -> Option<Digit> {
        self.digits.poll(now)
    }

    /// The frame of this tick.
    pub(super) fn listen(&mut self, now: Instant) -> Frame {
        self.listener.pull(now)
    }

    /// Hands on the frames that are whole by now.
    pub(super) fn hand_on(&mut self, give: &mut dyn FnMut(&Frame)) {
        self.listener.hand_on(give);
    }

    /// Hands on the frames of this tick.
    pub(super) fn hand_on_overdue(&mut self, give: &mut dyn FnMut(&Frame)) {
        self.listener.hand_on_overdue(give);
    }

    /// Lets this tick begin, after `missed` others that never did.
    pub(super) fn let_pass(&mut self, now: Instant, missed: u64) {
        self.budget.refill(missed.saturating_add(1));
        if missed > 0 {
            self.listener.let_pass(now, missed);
            self.stream.skip(missed);
        }
    }

    /// The plan keeps one of the directions shut.
    pub(super) fn is_on_hold(&self) -> bool {
        !(self.terms.send && self.terms.receive)
    }

    fn unprotect(&mut self, datagram: &mut Datagram<'_>) -> Option<usize> {
        let Some(secured) = &mut self.secured else { return Some(datagram.len) };
        match secured.unprotect(datagram.buffer, datagram.len) {
            Ok(len) => Some(len),
            Err(why) => {
                self.count_refused(why);
                None
            }
        }
    }

    fn count_refused(&mut self, why: SrtpError) {
        match why {
            SrtpError::Malformed => self.drops.malformed += 1,
            _ => self.drops.unauthenticated += 1,
        }
    }

    fn admit(&mut self, view: &RtpView, source: SocketAddr, now: Instant) -> Admit {
        let arrival = Arrival {
            source,
            ssrc: view.header.ssrc,
            sequence: view.header.sequence,
            authenticated: self.secured.is_some(),
        };
        self.latch.admit(arrival, now)
    }

    /// Counts a packet of the peer; false when the plan says that we do not receive.
    fn count(&mut self, view: &RtpView, content: Content, arrived: Instant) -> bool {
        let rtp::Header { ssrc, sequence, timestamp, .. } = view.header;
        let media_time = (content == Content::Audio).then_some(timestamp);
        self.reception.arrived(ssrc, sequence, media_time, arrived);
        if !self.terms.receive {
            self.drops.on_hold += 1;
        }
        self.terms.receive
    }

    /// Uses a packet of the peer for the frames to come.
    fn take(
        &mut self,
        view: &RtpView,
        (content, stale): (Content, bool),
        packet: &[u8],
        arrived: Instant,
    ) {
        let rtp::Header { ssrc, sequence, timestamp, .. } = view.header;
        let payload = view.payload(packet);
        match content {
            Content::Audio if stale => {
                self.drops.stale += 1;
                self.listener.skip(ssrc, sequence);
            }
            Content::Audio => {
                self.listener.push((ssrc, sequence, timestamp), payload, arrived);
            }
            Content::ComfortNoise => self.listener.comfort(ssrc, sequence, payload),
            Content::Digits => self.listener.skip(ssrc, sequence),
        }
    }

    /// Makes a packet of the peer ready for the other leg.
    fn take_across(
        &mut self,
        view: &RtpView,
        (content, stale): (Content, bool),
        packet: &mut [u8],
    ) -> Option<Crossing> {
        let payload = packet.get_mut(view.payload_range()).unwrap_or_default();
        let kind = match content {
            Content::Audio if stale => {
                self.drops.stale += 1;
                return None;
            }
            Content::Audio if !(1..=PACKET_MAX).contains(&payload.len()) => Kind::Nothing,
            Content::Audio => {
                self.listener.clean_codes(view.header.ssrc, payload);
                Kind::Audio(self.terms.codec)
            }
            Content::Digits => Kind::Event,
            Content::ComfortNoise => Kind::Nothing,
        };
        if kind == Kind::Nothing {
            self.drops.payload_type += 1;
        }
        Some(Crossing::new(view, kind))
    }

    /// The leg was bridged, or is not any more: what was heard before goes elsewhere.
    pub(super) fn change_far_side(&mut self) {
        self.listener.reset();
        self.stream.interrupt();
    }

    // Sending.

    /// The far side's audio may go out: the plan allows it and the peer's address is proven or
    /// vouched for. Until then the far side waits, so that its first word is not spoken to nobody.
    pub(super) fn may_speak(&self) -> bool {
        self.terms.send && self.latch.send_rtcp_to(self.terms.remote_rtcp, true).is_some()
    }

    /// Nothing is due but what can wait: it may speak, and the peer sends no more than it should.
    pub(super) fn may_rest(&self) -> bool {
        self.budget.is_ample() && self.may_speak()
    }

    /// The peer has agreed to telephone events.
    pub(super) fn takes_events(&self) -> bool {
        self.terms.dtmf_send.is_some()
    }

    /// Digits are on their way, or the pause after them.
    pub(super) fn is_dialling(&self) -> bool {
        self.dialler.is_active()
    }

    /// Queues a digit for the peer. What is no key is ignored.
    pub(super) fn dial(&mut self, digit: char, duration_ms: u32) {
        if self.dialler.start(digit, duration_ms).is_ok() {
            self.digits_sent = self.digits_sent.saturating_add(1);
        }
    }

    /// While the far side may not speak: silence to an unproven address, as far as the latch lets
    /// us, or nothing but the passing of time.
    pub(super) fn send_filler(&mut self, outlet: &mut impl Outlet) {
        if self.terms.send {
            self.send_codes(&[self.terms.codec.silence(); FRAME_SAMPLES], outlet);
        } else {
            self.stream.skip(1);
        }
    }

    /// Sends nothing for so many ticks whose time has passed.
    pub(super) fn fall_silent(&mut self, ticks: u32) {
        if ticks > 0 {
            self.stream.skip(u64::from(ticks));
        }
    }

    /// Sends nothing for 20 ms: what there is to send comes from the other leg.
    pub(super) fn pass(&mut self) {
        self.stream.pass();
    }

    /// Sends one frame of the far side.
    pub(super) fn send_frame(&mut self, frame: &Frame, outlet: &mut impl Outlet) {
        let mut codes = [0; FRAME_SAMPLES];
        self.terms.codec.encode(&frame.samples, &mut codes);
        self.send_codes(&codes, outlet);
    }

    /// Sends the next piece of a digit if there is one to dial, else silence. A peer that has not
    /// agreed to telephone events gets tones.
    pub(super) fn send_digit_or_silence(&mut self, outlet: &mut impl Outlet) {
        let Some(event) = self.dialler.next(self.stream.timestamp()) else {
            return self.send_codes(&[self.terms.codec.silence(); FRAME_SAMPLES], outlet);
        };
        let Some(payload_type) = self.terms.dtmf_send else {
            let tone = self.tones.frame(&event);
            return self.send_frame(&tone, outlet);
        };
        let Some(target) = self.latch.send_to() else { return self.stream.skip(1) };
        let secured = &mut self.secured;
        self.stream.push_event(payload_type, &event, |out| transmit(secured, target, &out, outlet));
    }

    /// Sends a report when its time has come.
    pub(super) fn report_if_due(&mut self, now: Instant, outlet: &mut impl Outlet) {
        if self.rtcp.is_due(now) {
            self.send_report(now, false, outlet);
        }
    }

    /// Ends our stream (RFC 3550 §6.6).
    pub(super) fn say_bye(&mut self, now: Instant, outlet: &mut impl Outlet) {
        self.send_report(now, true, outlet);
    }

    fn send_codes(&mut self, codes: &[u8; FRAME_SAMPLES], outlet: &mut impl Outlet) {
        let Some(target) = self.latch.send_to() else { return self.stream.skip(1) };
        let secured = &mut self.secured;
        self.stream.push(codes, |out| transmit(secured, target, &out, outlet));
    }

    fn send_report(&mut self, now: Instant, bye: bool, outlet: &mut impl Outlet) {
        let mux = self.terms.rtcp_mux;
        let Some(to) = self.latch.send_rtcp_to(self.terms.remote_rtcp, mux) else { return };
        let mut buffer = [0; COMPOUND_BYTES + TAIL_ROOM];
        let written = self.rtcp.write((&mut buffer, bye), &self.stream, &mut self.reception, now);
        let Some(mut len) = written else { return };
        if let Some(secured) = &mut self.secured {
            let Ok(protected) = secured.protect_rtcp(&mut buffer, len) else { return };
            len = protected;
        }
        let channel = if mux { Channel::Rtp } else { Channel::Rtcp };
        outlet.send(channel, to, buffer.get(..len).unwrap_or_default());
    }

    pub(super) fn take_drops(&mut self) -> Drops {
        let told = std::mem::replace(&mut self.drops_told, self.drops);
        self.drops.since(&told)
    }

    pub(super) fn report(&self, overrun: u64, frames_played: u64) -> LegReport {
        let playout = self.listener.playout();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let buffer_ms = self.listener.target_ms() as f32;
        let round_trip = self.rtcp.round_trip_ms();
        let quality = Quality {
            packets_sent: self.stream.packets(),
            remote_loss_percent: self.rtcp.remote_loss_percent(),
            ..Quality::of(&self.reception, playout.late, buffer_ms, round_trip)
        };
        let latch = self.latch.counters();
        LegReport {
            quality,
            noise: self.listener.noise_report(),
            latched: self.latch.locked(),
            strangers: latch.strangers,
            intrusions: latch.intrusions,
            auth_failures: self.drops.unauthenticated,
            secured: self.secured.is_some(),
            drops: Drops { overrun, ..self.drops },
            playout,
            frames_played,
            digits_received: self.digits_received,
            digits_sent: self.digits_sent,
        }
    }
}

/// Builds, protects and sends one RTP packet.
fn transmit(
    secured: &mut Option<Box<Secured>>,
    target: Target,
    out: &Outgoing<'_>,
    outlet: &mut impl Outlet,
) {
    let mut buffer = [0; PACKET_BYTES];
    let len = rtp::HEADER_BYTES + out.payload.len();
    if rtp::write_header(&mut buffer, out.header).is_err() {
        return;
    }
    let Some(payload) = buffer.get_mut(rtp::HEADER_BYTES..len) else { return };
    payload.copy_from_slice(out.payload);
    send_protected(secured, target, (&mut buffer, len), outlet);
}

/// Protects and sends the RTP packet in the first `len` bytes of `buffer`.
pub(super) fn send_protected(
    secured: &mut Option<Box<Secured>>,
    target: Target,
    (buffer, mut len): (&mut [u8], usize),
    outlet: &mut impl Outlet,
) {
    if let Some(secured) = secured {
        // A packet that cannot be protected is not sent: never in the clear.
        let Ok(protected) = secured.protect(buffer, len) else { return };
        len = protected;
    }
    let packet = buffer.get(..len).unwrap_or_default();
    if target.connected {
        outlet.send_connected(target.address, packet);
    } else {
        outlet.send(Channel::Rtp, target.address, packet);
    }
}

/// Comfort noise at 8 kHz (RFC 3389 §4): static, and sent by some without being negotiated.
const COMFORT_NOISE: u8 = 13;

/// Audio that lay in the kernel for longer than this is not played any more.
const STALE: Duration = Duration::from_millis(60);

/// The longest packet we send: 60 ms of G.711, and room for the tag.
const PACKET_BYTES: usize = rtp::HEADER_BYTES + 480 + TAIL_ROOM;
