//! From one leg to the other of a bridged call (RFC 3550 §7.1: we are a translator).
//!
//! ```text
//!   leg A   budget ─► unprotect ─► latch ─► statistics ─► clean ─┐ Crossing
//!                                                               ▼ at once, in the same buffer
//!   leg B   send ◄─ protect ◄─ header in place ◄─ A-law or µ-law ◄┘
//! ```
//!
//! Each leg has its own peer, keys, latch, statistics and RTCP; what crosses is the payload. Nothing
//! waits for a tick or lies in a playout buffer: the far peer has one of its own, and loss, order and
//! packet times are left as they are for it to judge.
//!
//! Audio crosses when both gates are open, neither leg is held in that direction, and the other
//! peer's address is proven or vouched for. A packet that may not cross is dropped and counted.

use super::Outlet;
use super::leg::{Leg, send_protected};
use crate::codec::Codec;
use crate::packet::rtp::{HEADER_BYTES, Header, RtpView, write_header};

/// A packet that one leg has heard and the other is to send: what it is and where in the datagram's
/// buffer its payload lies, in the clear.
#[derive(Clone, Copy, Debug)]
pub struct Crossing {
    header: Header,
    payload_start: usize,
    payload_len: usize,
    kind: Kind,
}

/// What a crossing packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Audio of this codec.
    Audio(Codec),
    /// A telephone event (RFC 4733).
    Event,
    /// Nothing for the other leg, but its number must not be missed there.
    Nothing,
}

impl Crossing {
    pub(super) fn new(view: &RtpView, kind: Kind) -> Self {
        let payload = view.payload_range();
        let (payload_start, payload_len) = (payload.start, payload.len());
        Self { header: view.header, payload_start, payload_len, kind }
    }
}

impl Leg {
    /// Sends what the other leg has heard. The new header takes the place right before the payload,
    /// so that neither contributing sources nor extensions nor padding of the other leg get through.
    pub(super) fn relay(
        &mut self,
        crossing: &Crossing,
        buffer: &mut [u8],
        outlet: &mut impl Outlet,
    ) {
        let Crossing { header, payload_start, payload_len, kind } = *crossing;
        let Some((payload_type, samples)) = self.relayed_as(kind, payload_len) else {
            return self.stream.leave_out(&header);
        };
        // While a digit is dialled it takes the audio's place.
        if !self.may_speak() || self.is_dialling() {
            self.drops.uncrossed += 1;
            return self.stream.interrupt();
        }
        let Some(target) = self.latch.send_to() else { return };
        let Some(packet) =
            payload_start.checked_sub(HEADER_BYTES).and_then(|start| buffer.get_mut(start..))
        else {
            return;
        };
        let len = HEADER_BYTES + payload_len;
        if let (Kind::Audio(codec), Some(codes)) = (kind, packet.get_mut(HEADER_BYTES..len)) {
            codec.transcode(self.terms.codec, codes);
        }
        let Some(header) = self.stream.relay(&header, payload_type, samples) else {
            self.drops.uncrossed += 1;
            return;
        };
        if write_header(packet, header).is_err() {
            return;
        }
        self.stream.count_octets(payload_len);
        send_protected(&mut self.secured, target, (packet, len), outlet);
    }

    /// Lets `ticks` pass in which there was nothing to do but to relay.
    pub(super) fn make_up_for(&mut self, ticks: u16) {
        self.budget.refill(u64::from(ticks));
        (0..ticks).for_each(|_| self.stream.pass());
    }

    /// The payload type it leaves with, and how much audio it is; `None` for what the peer has not
    /// agreed to.
    fn relayed_as(&self, kind: Kind, payload_len: usize) -> Option<(u8, usize)> {
        match kind {
            Kind::Audio(_) => Some((self.terms.payload_type, payload_len)),
            Kind::Event => Some((self.terms.dtmf_send?, 0)),
            Kind::Nothing => None,
        }
    }
}
