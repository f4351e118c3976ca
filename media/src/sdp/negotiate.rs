//! One leg's side of offer/answer (RFC 3264), and the answering half of it.
//!
//! ```text
//!            answer()                      offer()
//!  Settled ◀───────── Settled ────────────────────────▶ OfferOpen
//!     ▲                                                    │  │
//!     └───────────── accept() ◀───────────────────────────┘  │
//!     └───────────── withdraw() (the offer was refused) ◀─────┘
//! ```

use std::net::{IpAddr, SocketAddr};

use super::crypto::CryptoLine;
use super::direction::Direction;
use super::offer::OpenOffer;
use super::parse::Description;
use super::plan::{Incompatible, Plan, SrtpKeys};
use super::print::{self, AudioLine, RefusedLine};
use super::select::{self, Choice, Media};
use crate::codec::Codec;
use crate::srtp::{MASTER_BYTES, MasterKey};

/// What a leg's configuration says about SRTP.
///
/// What is taken of the peer's offers stands beside the table in `select`. What ours look like, and
/// which answers to them are taken:
///
/// | | first offer | plain answer | encrypted answer |
/// |---|---|---|---|
/// | disable | `RTP/AVP` | taken | refused |
/// | allow | `RTP/AVP` with keys (RFC 8643) | taken | taken |
/// | require | `RTP/SAVP` with keys | refused | taken |
///
/// Whatever the rule, an answer does not take the keys away from a call that has them. Peers that
/// know nothing of RFC 8643 leave the keys of `RTP/AVP` aside, so whoever would rather have SRTP
/// offers under `Require` first, and with a [`Negotiation`] of its own under `Disable` once that
/// was refused (488, 415, 606).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// Plain RTP only; an offer that insists on SRTP is refused.
    Disable,
    /// SRTP whenever the peer can, plain RTP otherwise (RFC 8643).
    #[default]
    Allow,
    /// SRTP or no call.
    Require,
}

/// What this leg can and may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Codecs in the order we offer them; answers follow the order of the offer.
    pub codecs: Vec<Codec>,
    /// Telephone events (RFC 4733).
    pub dtmf: bool,
    /// The rule for SRTP.
    pub encryption: Encryption,
}

/// Our end of the media: what descriptions of ours say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The address peers can reach.
    pub address: IpAddr,
    /// The RTP port; RTCP is one above.
    pub port: u16,
    /// The session id of `o=`, unique per leg (RFC 8866 §5.2).
    pub session_id: u64,
}

/// The offer/answer state of one leg. Holds keys, so it has no `Debug`.
pub struct Negotiation {
    pub(crate) capabilities: Capabilities,
    pub(crate) local: Local,
    pub(crate) wish: Direction,
    pub(crate) settled: Settled,
    pub(crate) open: Option<OpenOffer>,
    sent: Option<sdp_types::Session>,
}

/// What both sides agreed on, as far as the next exchange has to respect it.
#[derive(Clone, Default)]
pub(crate) struct Settled {
    /// The media lines in their order; `None` is ours.
    pub(crate) lines: Vec<Option<RefusedLine>>,
    pub(crate) proto: Option<String>,
    pub(crate) mid: Option<String>,
    pub(crate) dtmf: Option<u8>,
    /// The codec in use with the number it has in our descriptions.
    pub(crate) codec: Option<(Codec, u8)>,
    pub(crate) mux: bool,
    pub(crate) srtp: Option<SettledKeys>,
    /// What we wanted when this was agreed on.
    pub(crate) wish: Direction,
    /// The last real address of the peer, for the time it holds by `0.0.0.0`.
    remote: Option<IpAddr>,
    local_epoch: u32,
    remote_epoch: u32,
}

/// The crypto line in use: our own, and the peer's key.
#[derive(Clone)]
pub(crate) struct SettledKeys {
    pub(crate) local: CryptoLine,
    remote: MasterKey,
}

impl Negotiation {
    /// A leg on which nothing was said yet.
    #[must_use]
    pub fn new(capabilities: Capabilities, local: Local) -> Self {
        Self {
            capabilities,
            local,
            wish: Direction::SendRecv,
            settled: Settled::default(),
            open: None,
            sent: None,
        }
    }

    /// What we want from now on: [`Direction::SendOnly`] or [`Direction::Inactive`] hold the
    /// peer. Takes effect with the next offer or answer; [`Negotiation::withdraw`] takes it back.
    pub fn set_direction(&mut self, wish: Direction) {
        self.wish = wish;
    }

    /// Answers an offer: the answer to send, and what media does from now on. `rng` fills keys.
    ///
    /// # Errors
    /// Any [`Incompatible`]; the negotiation is unchanged then, and running media goes on.
    pub fn answer(
        &mut self,
        offer: &[u8],
        rng: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(Vec<u8>, Plan), Incompatible> {
        if self.open.as_ref().is_some_and(OpenOffer::is_unanswered) {
            return Err(Incompatible::OutOfTurn);
        }
        let offer = Description::parse(offer)?;
        let (at, choice) = select::choose(&offer.sections, &self.capabilities, self.socket())?;
        let section = offer.sections.get(at).ok_or(Incompatible::NoAudio)?;
        let local = choice.crypto.as_ref().map(|line| self.local_line(line, rng));
        let lines = offer.sections.iter().enumerate();
        let lines = lines.map(|(n, other)| (n != at).then(|| RefusedLine::of(other))).collect();
        let agreed = Agreed { choice, local, dtmf_receive: None };
        let plan = self.settle(agreed, lines, section.proto.clone());
        self.settled.mid.clone_from(&section.mid);
        self.open = None;
        let direction = Direction::new(plan.send, plan.receive);
        let codecs = [(plan.codec, plan.payload_type)];
        Ok((self.describe(&codecs, direction, None), plan))
    }

    /// The text of a description of ours, its version one up if it says anything new
    /// (RFC 3264 §8). `crypto` is for offers; answers state the key in use.
    pub(crate) fn describe(
        &mut self,
        codecs: &[(Codec, u8)],
        direction: Direction,
        crypto: Option<&[CryptoLine]>,
    ) -> Vec<u8> {
        let version = self.sent.as_ref().map_or(1, |sent| sent.origin.sess_version);
        let mut session = print::session(self.local.address, self.local.session_id, version);
        let settled: Vec<_> = self.settled.srtp.iter().map(|keys| keys.local.clone()).collect();
        let audio = AudioLine {
            port: self.local.port,
            proto: self.settled.proto.as_deref().unwrap_or("RTP/AVP"),
            codecs,
            dtmf: self.settled.dtmf,
            direction,
            crypto: crypto.unwrap_or(&settled),
            rtcp_mux: self.settled.mux,
            mid: self.settled.mid.as_deref(),
        };
        let lines = self.settled.lines.iter();
        session.medias = lines
            .map(|line| line.as_ref().map_or_else(|| print::audio(&audio), print::refused))
            .collect();
        if self.sent.as_ref().is_some_and(|sent| *sent != session) {
            session.origin.sess_version = version.wrapping_add(1);
        }
        let bytes = print::bytes(&session);
        self.sent = Some(session);
        bytes
    }

    /// Makes what was agreed the state, and the plan of it.
    pub(crate) fn settle(
        &mut self,
        agreed: Agreed,
        lines: Vec<Option<RefusedLine>>,
        proto: String,
    ) -> Plan {
        let Agreed { choice, local, dtmf_receive } = agreed;
        let srtp = choice.crypto.zip(local).map(|(peer, ours)| self.rekey(&peer, ours));
        if srtp.is_none() {
            self.settled.srtp = None;
        }
        let media = choice.media;
        if let Some(address) = media.address.filter(|address| !address.is_unspecified()) {
            self.settled.remote = Some(address);
        }
        let dtmf_receive_payload = dtmf_receive.or(choice.dtmf);
        self.settled.lines = lines;
        self.settled.proto = Some(proto);
        self.settled.dtmf = dtmf_receive_payload;
        self.settled.codec = Some((choice.codec, choice.payload_type));
        self.settled.mux = media.mux;
        self.settled.wish = self.wish;
        let direction = self.wish.meet(media.direction);
        let (remote, remote_rtcp) = self.targets(&media);
        Plan {
            codec: choice.codec,
            payload_type: choice.payload_type,
            dtmf_payload: choice.dtmf,
            dtmf_receive_payload,
            ptime_ms: choice.ptime_ms,
            send: direction.sends(),
            receive: direction.receives(),
            remote,
            remote_rtcp,
            rtcp_mux: media.mux,
            srtp,
        }
    }

    /// Our media socket, as the peer sees it.
    pub(crate) fn socket(&self) -> SocketAddr {
        print::socket(self.local.address, self.local.port)
    }

    /// RTP and RTCP addresses. A peer that holds by address keeps the one it had.
    fn targets(&self, media: &Media) -> (SocketAddr, SocketAddr) {
        let unknown = select::unspecified(self.socket());
        let held = || self.settled.remote.unwrap_or(unknown);
        let ip = media.address.unwrap_or_else(held);
        let rtp = SocketAddr::new(ip, media.port);
        if media.mux {
            return (rtp, rtp);
        }
        let above = SocketAddr::new(ip, media.port.checked_add(1).unwrap_or(media.port));
        (rtp, media.rtcp.unwrap_or(above))
    }

    /// Our line for the peer's: tag and suite of the offer, our key kept while the peer keeps
    /// its own, a new one otherwise.
    fn local_line(&self, peer: &CryptoLine, rng: &mut dyn FnMut(&mut [u8])) -> CryptoLine {
        let kept = self
            .settled
            .srtp
            .as_ref()
            .filter(|keys| keys.local.suite == peer.suite && keys.remote == peer.key);
        let key = kept.map_or_else(|| fresh_key(rng), |keys| keys.local.key.clone());
        CryptoLine { tag: peer.tag, suite: peer.suite, key }
    }

    /// Takes the keys over; epochs grow where a key is another one than before.
    fn rekey(&mut self, peer: &CryptoLine, ours: CryptoLine) -> SrtpKeys {
        let before = self.settled.srtp.take();
        let same_suite = before.as_ref().is_some_and(|keys| keys.local.suite == peer.suite);
        let same_local = before.as_ref().is_some_and(|keys| keys.local.key == ours.key);
        let same_remote = before.as_ref().is_some_and(|keys| keys.remote == peer.key);
        self.settled.local_epoch += u32::from(!(same_local && same_suite));
        self.settled.remote_epoch += u32::from(!(same_remote && same_suite));
        let keys = SrtpKeys {
            suite: peer.suite,
            local: ours.key.clone(),
            remote: peer.key.clone(),
            local_epoch: self.settled.local_epoch,
            remote_epoch: self.settled.remote_epoch,
        };
        self.settled.srtp = Some(SettledKeys { local: ours, remote: peer.key.clone() });
        keys
    }
}

/// Both sides' word on the audio line.
pub(crate) struct Agreed {
    pub(crate) choice: Choice,
    /// Our crypto line, when there is one of the peer's.
    pub(crate) local: Option<CryptoLine>,
    /// Our number for telephone events, when it is not the peer's.
    pub(crate) dtmf_receive: Option<u8>,
}

/// A key nobody had before.
pub(crate) fn fresh_key(rng: &mut dyn FnMut(&mut [u8])) -> MasterKey {
    let mut bytes = [0; MASTER_BYTES];
    rng(&mut bytes);
    MasterKey::new(bytes)
}
