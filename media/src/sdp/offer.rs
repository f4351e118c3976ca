//! The offering half of offer/answer: our offer, and the answer to it (RFC 3264 §5, §7).

use super::crypto::CryptoLine;
use super::negotiate::{Agreed, Encryption, Negotiation, fresh_key};
use super::parse::{Description, Section};
use super::plan::{Incompatible, Plan};
use super::select::{self, Choice, Profile};
use crate::codec::Codec;
use crate::srtp::Suite;

/// The number we offer telephone events with; any dynamic one would do.
const DTMF_PAYLOAD: u8 = 101;

/// An offer of ours. It stays after the answer came, because several answers may come: one per
/// early dialog of a forked INVITE, and repeats in later responses (RFC 6337 §2.2).
#[derive(Clone)]
pub(crate) struct OpenOffer {
    answered: bool,
    audio: usize,
    proto: String,
    codecs: Vec<(Codec, u8)>,
    dtmf: Option<u8>,
    crypto: Vec<CryptoLine>,
    /// Media was encrypted when it was made, and is to stay so.
    secured: bool,
}

impl OpenOffer {
    pub(crate) fn is_unanswered(&self) -> bool {
        !self.answered
    }
}

impl Negotiation {
    /// An offer: for a call we place, for an INVITE that came without one, or to change a call.
    ///
    /// What the first offer of a leg looks like depends on its [`Encryption`]. Later offers keep the
    /// transport and the keys that are in use; codecs stand in the order of
    /// [`super::Capabilities::codecs`], the one in use before the others.
    pub fn offer(&mut self, rng: &mut dyn FnMut(&mut [u8])) -> Vec<u8> {
        let first = self.settled.codec.is_none();
        if first {
            self.begin_offer();
        }
        let crypto = self.offered_crypto(first, rng);
        let codecs = self.offered_codecs();
        let open = OpenOffer {
            answered: false,
            audio: self.settled.lines.iter().position(Option::is_none).unwrap_or(0),
            proto: self.settled.proto.clone().unwrap_or_default(),
            codecs,
            dtmf: self.settled.dtmf,
            crypto,
            secured: self.settled.srtp.is_some(),
        };
        let bytes = self.describe(&open.codecs, self.wish, Some(&open.crypto));
        self.open = Some(open);
        bytes
    }

    /// Takes the answer to our offer. May be called again for another answer to the same offer.
    ///
    /// # Errors
    /// Any [`Incompatible`]; the negotiation is unchanged then.
    pub fn accept(&mut self, answer: &[u8]) -> Result<Plan, Incompatible> {
        let open = self.open.clone().ok_or(Incompatible::OutOfTurn)?;
        let answer = Description::parse(answer)?;
        let section = answer.sections.get(open.audio).ok_or(Incompatible::NoAudio)?;
        if section.kind != "audio" || section.port == 0 {
            return Err(Incompatible::NoAudio);
        }
        let (crypto, local) = self.answered_crypto(section, &open)?.unzip();
        let offered: Vec<_> = open.codecs.iter().map(|(codec, _)| *codec).collect();
        let (codec, payload_type) = select::codec_of(section, &offered)?;
        let dtmf = open.dtmf.and_then(|_| select::dtmf_of(section, codec));
        let media = select::media_of(section, self.socket())?;
        // We never offer a shared port on our own, so nobody can accept one out of nothing.
        let mux = media.mux && self.settled.mux;
        let choice = Choice {
            codec,
            payload_type,
            dtmf,
            ptime_ms: select::ptime_of(section),
            crypto,
            media: select::Media { mux, ..media },
        };
        let agreed = Agreed { choice, local, dtmf_receive: open.dtmf.filter(|_| dtmf.is_some()) };
        let lines = self.settled.lines.clone();
        let plan = self.settle(agreed, lines, open.proto);
        if let Some(open) = &mut self.open {
            open.answered = true;
        }
        Ok(plan)
    }

    /// Our offer was refused (488, 491, no answer): the session stays as it was (RFC 3264 §8), and so
    /// does the direction we want. Without an offer that waits for its answer it does nothing.
    pub fn withdraw(&mut self) {
        if self.open.take_if(|open| open.is_unanswered()).is_some() {
            self.wish = self.settled.wish;
        }
    }

    /// The shape of a leg's first offer.
    fn begin_offer(&mut self) {
        let proto = match self.capabilities.encryption {
            Encryption::Disable | Encryption::Allow => "RTP/AVP",
            Encryption::Require => "RTP/SAVP",
        };
        self.settled.lines = vec![None];
        self.settled.proto = Some(proto.to_owned());
        self.settled.dtmf = self.capabilities.dtmf.then_some(DTMF_PAYLOAD);
    }

    /// Crypto lines of an offer: one per suite at first, later the one in use.
    fn offered_crypto(&self, first: bool, rng: &mut dyn FnMut(&mut [u8])) -> Vec<CryptoLine> {
        if !first {
            return self.settled.srtp.iter().map(|keys| keys.local.clone()).collect();
        }
        if self.capabilities.encryption == Encryption::Disable {
            return Vec::new();
        }
        // An offer repeated before its answer came keeps its keys: it is the same offer.
        if let Some(open) = &self.open {
            return open.crypto.clone();
        }
        let lines = Suite::ALL.into_iter().zip(1..);
        lines.map(|(suite, tag)| CryptoLine { tag, suite, key: fresh_key(rng) }).collect()
    }

    /// The codec in use first, then the others.
    fn offered_codecs(&self) -> Vec<(Codec, u8)> {
        let in_use = self.settled.codec;
        let others = self.capabilities.codecs.iter().copied();
        let others = others.filter(|codec| in_use.is_none_or(|(used, _)| used != *codec));
        in_use.into_iter().chain(others.map(|codec| (codec, codec.payload_type()))).collect()
    }

    /// The crypto line of an answer with ours of the same tag (RFC 4568 §5.1.3).
    fn answered_crypto(
        &self,
        section: &Section,
        open: &OpenOffer,
    ) -> Result<Option<(CryptoLine, CryptoLine)>, Incompatible> {
        let profile = Profile::of(&section.proto).ok_or(Incompatible::Transport)?;
        let mut lines = select::usable_crypto(section);
        let pair = lines.find_map(|line| {
            let mut ours = open.crypto.iter();
            let ours = ours.find(|ours| ours.tag == line.tag && ours.suite == line.suite)?;
            Some((line, ours.clone()))
        });
        let must = open.secured
            || Profile::of(&open.proto) == Some(Profile::Secure)
            || self.capabilities.encryption == Encryption::Require;
        match pair {
            Some(pair) => Ok(Some(pair)),
            None if open.crypto.is_empty() && profile == Profile::Secure => {
                Err(Incompatible::EncryptionRefused)
            }
            None if open.crypto.is_empty() => Ok(None),
            None if profile == Profile::Secure || !section.crypto.is_empty() => {
                Err(Incompatible::NoUsableCrypto)
            }
            None if must => Err(Incompatible::EncryptionRequired),
            None => Ok(None),
        }
    }
}
