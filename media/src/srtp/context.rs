//! One key at work: index estimate, replay window, cipher and tag (RFC 3711 §3.3, §3.4, §4).
//!
//! ```text
//! SRTP    header | payload (encrypted)            | MKI | tag over header, payload, wrap counter
//! SRTCP   header, SSRC | rest (encrypted) | E + index | MKI | tag over all before the MKI
//! ```
//!
//! Order on receipt: lengths, replay check, tag, room in the stream table, decryption, commit. What
//! fails before the tag was found right leaves no trace.

use hmac::Mac;

use super::kdf::{Half, SessionKeys};
use super::replay::{Verdict, Window};
use super::{MasterKey, SrtpError, Suite};
use crate::packet::{read_u32, rtp};

/// Sources one key keeps state for. A peer may change its SSRC in mid-call (music on hold,
/// transfer) without a new key, and a source cannot be forgotten while its old packets could be
/// replayed; so the table is fixed, and what does not fit is refused.
pub const MAX_STREAMS: usize = 16;

/// Packets under a new key after which the old one is forgotten: two seconds of speech.
const HANDOVER_PACKETS: u8 = 100;
/// Longest master key identifier taken; [`super::TAIL_ROOM`] has room for it.
const MAX_MKI_BYTES: usize = 8;
/// Header and SSRC of an RTCP packet: the part that is never encrypted.
const RTCP_CLEAR_BYTES: usize = 8;
const RTCP_INDEX_BYTES: usize = 4;
const ENCRYPTED_BIT: u32 = 1 << 31;
const MAX_RTCP_INDEX: u64 = (1 << 31) - 1;
const MAX_RTP_INDEX: u64 = (1 << 48) - 1;
const HALF_SEQUENCE: u16 = 1 << 15;

// The longest trailer there is fits the room that callers leave behind a packet.
const _: () = assert!(
    RTCP_INDEX_BYTES + MAX_MKI_BYTES + Suite::AesCm128HmacSha1_80.rtcp_tag_bytes()
        <= super::TAIL_ROOM
);

/// One direction of a session: one master key and the streams protected with it.
///
/// A context either sends (`protect`) or receives (`unprotect`); a leg has one for each, see
/// [`super::SrtpPair`].
pub struct Context {
    suite: Suite,
    rtp: SessionKeys,
    rtcp: SessionKeys,
    mki: Mki,
    streams: [Option<Stream>; MAX_STREAMS],
    previous: Option<Previous>,
}

/// The context a peer's new key took the place of. Packets under the old key may still be on their
/// way, so it is tried after the new one until enough packets came under that.
struct Previous {
    context: Box<Context>,
    /// Packets under the new key that are still to come.
    remaining: u8,
}

/// What is remembered of one SSRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    ssrc: u32,
    rtp: Progress,
    rtcp: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No RTP packet yet; the rollover counter the first will have.
    Expected {
        roc: u32,
    },
    Running(Window),
}

/// Master key identifier (RFC 3711 §3.1), usually empty.
#[derive(Clone, Copy, Default)]
struct Mki {
    bytes: [u8; MAX_MKI_BYTES],
    len: usize,
}

impl Mki {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Context {
    /// Derives the session keys of this master key.
    #[must_use]
    pub fn new(suite: Suite, master: &MasterKey) -> Self {
        Self {
            suite,
            rtp: SessionKeys::derive(master, Half::Rtp),
            rtcp: SessionKeys::derive(master, Half::Rtcp),
            mki: Mki::default(),
            streams: [None; MAX_STREAMS],
            previous: None,
        }
    }

    /// Makes this the receiving context in place of `previous`, whose peer has changed its key: the
    /// packets still under way are accepted under the old key, until a hundred were accepted under
    /// this one. For receiving only; a sender changes over at once.
    #[must_use]
    pub fn replacing(self, mut previous: Self) -> Self {
        previous.previous = None;
        let previous = Previous { context: Box::new(previous), remaining: HANDOVER_PACKETS };
        Self { previous: Some(previous), ..self }
    }

    /// As [`Context::new`], for a key whose SDP line carries a master key identifier: every packet
    /// has it before the tag. `None` for an identifier of more than eight bytes.
    #[must_use]
    pub fn with_mki(suite: Suite, master: &MasterKey, mki: &[u8]) -> Option<Self> {
        let mut kept = Mki { len: mki.len(), ..Mki::default() };
        kept.bytes.get_mut(..mki.len())?.copy_from_slice(mki);
        Some(Self { mki: kept, ..Self::new(suite, master) })
    }

    /// Encrypts and tags an RTP packet in place; see [`super::SrtpSession::protect`].
    ///
    /// # Errors
    /// As there.
    pub fn protect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..len).ok_or(SrtpError::Malformed)?;
        let header = rtp::header_bytes(packet).map_err(|_| SrtpError::Malformed)?;
        let (ssrc, sequence) = identity(packet)?;
        let total = len + self.mki.len + self.suite.rtp_tag_bytes();
        if total > buffer.len() {
            return Err(SrtpError::NoRoom);
        }
        let index = match self.progress(ssrc) {
            Progress::Expected { roc } => first_index(roc, sequence),
            Progress::Running(window) => fresh(window, sequence)?,
        };
        if index > MAX_RTP_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        admit(&mut self.streams, ssrc)?.commit_rtp(index);
        let (packet, tail) = buffer.split_at_mut_checked(len).ok_or(SrtpError::NoRoom)?;
        let payload = packet.get_mut(header..).ok_or(SrtpError::Malformed)?;
        self.rtp.apply_keystream(ssrc, index, payload);
        let mac = self.rtp.authenticate(packet, &roc_of(index).to_be_bytes());
        seal(tail, &self.mki, self.suite.rtp_tag_bytes(), mac)?;
        Ok(total)
    }

    /// Authenticates and decrypts an SRTP packet in place; see [`super::SrtpSession::unprotect`].
    /// A packet that is refused is left as it came.
    ///
    /// # Errors
    /// As there.
    pub fn unprotect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let taken = self.accept(buffer, len);
        self.or_previous(taken, |context| context.accept(buffer, len))
    }

    fn accept(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get_mut(..len).ok_or(SrtpError::Malformed)?;
        let (packet, tag) = self.open(packet, self.suite.rtp_tag_bytes())?;
        let header = rtp::header_bytes(packet).map_err(|_| SrtpError::Malformed)?;
        let (ssrc, sequence) = identity(packet)?;
        let index = self.authentic_index(packet, tag, (ssrc, sequence))?;
        admit(&mut self.streams, ssrc)?.commit_rtp(index);
        let payload = packet.get_mut(header..).ok_or(SrtpError::Malformed)?;
        self.rtp.apply_keystream(ssrc, index, payload);
        Ok(packet.len())
    }

    /// Encrypts and tags a compound RTCP packet in place; see [`super::SrtpSession::protect_rtcp`].
    ///
    /// # Errors
    /// As there.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..len).ok_or(SrtpError::Malformed)?;
        let ssrc = rtcp_ssrc(packet)?;
        let body = len + RTCP_INDEX_BYTES;
        let total = body + self.mki.len + self.suite.rtcp_tag_bytes();
        if total > buffer.len() {
            return Err(SrtpError::NoRoom);
        }
        // The first packet has index one, as libsrtp numbers them.
        let index = self.stream(ssrc).map_or(0, |stream| stream.rtcp.highest()) + 1;
        if index > MAX_RTCP_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        admit(&mut self.streams, ssrc)?.rtcp.commit(index);
        let (packet, tail) = buffer.split_at_mut_checked(body).ok_or(SrtpError::NoRoom)?;
        let (clear, trailer) = packet.split_at_mut_checked(len).ok_or(SrtpError::NoRoom)?;
        let rest = clear.get_mut(RTCP_CLEAR_BYTES..).ok_or(SrtpError::Malformed)?;
        self.rtcp.apply_keystream(ssrc, index, rest);
        let word = ENCRYPTED_BIT | u32::try_from(index).map_err(|_| SrtpError::KeyExhausted)?;
        trailer.copy_from_slice(&word.to_be_bytes());
        let mac = self.rtcp.authenticate(packet, &[]);
        seal(tail, &self.mki, self.suite.rtcp_tag_bytes(), mac)?;
        Ok(total)
    }

    /// Authenticates and decrypts an SRTCP packet in place; see
    /// [`super::SrtpSession::unprotect_rtcp`]. A packet that is refused is left as it came.
    ///
    /// # Errors
    /// As there.
    pub fn unprotect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let taken = self.accept_rtcp(buffer, len);
        self.or_previous(taken, |context| context.accept_rtcp(buffer, len))
    }

    fn accept_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get_mut(..len).ok_or(SrtpError::Malformed)?;
        let (packet, tag) = self.open(packet, self.suite.rtcp_tag_bytes())?;
        let body = packet.len().checked_sub(RTCP_INDEX_BYTES).ok_or(SrtpError::Malformed)?;
        let word = read_u32(packet, body).ok_or(SrtpError::Malformed)?;
        let ssrc = rtcp_ssrc(packet.get(..body).ok_or(SrtpError::Malformed)?)?;
        let index = u64::from(word & !ENCRYPTED_BIT);
        if let Some(stream) = self.stream(ssrc) {
            judge(stream.rtcp.check(index))?;
        }
        let mac = self.rtcp.authenticate(packet, &[]);
        mac.verify_truncated_left(tag).map_err(|_| SrtpError::Forged)?;
        if word & ENCRYPTED_BIT == 0 {
            return Err(SrtpError::NotEncrypted);
        }
        admit(&mut self.streams, ssrc)?.rtcp.commit(index);
        let rest = packet.get_mut(RTCP_CLEAR_BYTES..body).ok_or(SrtpError::Malformed)?;
        self.rtcp.apply_keystream(ssrc, index, rest);
        Ok(body)
    }

    /// What this context said of a packet, or else what the one before it says. A refused packet is
    /// left as it came, which is why it can be tried twice.
    fn or_previous(
        &mut self,
        taken: Result<usize, SrtpError>,
        accept: impl FnOnce(&mut Self) -> Result<usize, SrtpError>,
    ) -> Result<usize, SrtpError> {
        let Some(previous) = &mut self.previous else { return taken };
        if taken.is_err() {
            return accept(&mut previous.context).or(taken);
        }
        previous.remaining = previous.remaining.saturating_sub(1);
        if previous.remaining == 0 {
            self.previous = None;
        }
        taken
    }

    /// Rollover counter of a source; see [`super::SrtpSession::roc`].
    #[must_use]
    pub fn roc(&self, ssrc: u32) -> Option<u32> {
        Some(match self.stream(ssrc)?.rtp {
            Progress::Expected { roc } => roc,
            Progress::Running(window) => roc_of(window.highest()),
        })
    }

    /// Sets the rollover counter of a source; see [`super::SrtpSession::set_roc`].
    ///
    /// # Errors
    /// As there.
    pub fn set_roc(&mut self, ssrc: u32, roc: u32) -> Result<(), SrtpError> {
        let stream = admit(&mut self.streams, ssrc)?;
        stream.rtp = match stream.rtp {
            Progress::Expected { .. } => Progress::Expected { roc },
            Progress::Running(window) => {
                let highest = window.highest();
                match roc_of(highest) {
                    old if roc < old => return Err(SrtpError::TooOld),
                    old if roc == old => Progress::Running(window),
                    _ => Progress::Running(Window::starting_at(first_index(
                        roc,
                        low_sixteen_bits(highest),
                    ))),
                }
            }
        };
        Ok(())
    }

    fn stream(&self, ssrc: u32) -> Option<&Stream> {
        self.streams.iter().flatten().find(|stream| stream.ssrc == ssrc)
    }

    fn progress(&self, ssrc: u32) -> Progress {
        self.stream(ssrc).map_or(Progress::Expected { roc: 0 }, |stream| stream.rtp)
    }

    /// Splits a received packet into what is authenticated and the tag, with the identifier between
    /// them checked.
    fn open<'a>(
        &self,
        packet: &'a mut [u8],
        tag_bytes: usize,
    ) -> Result<(&'a mut [u8], &'a [u8]), SrtpError> {
        let tail = self.mki.len + tag_bytes;
        let body = packet.len().checked_sub(tail).ok_or(SrtpError::Malformed)?;
        let (packet, tail) = packet.split_at_mut_checked(body).ok_or(SrtpError::Malformed)?;
        let (mki, tag) = tail.split_at_checked(self.mki.len).ok_or(SrtpError::Malformed)?;
        if mki == self.mki.as_slice() { Ok((packet, tag)) } else { Err(SrtpError::Forged) }
    }

    /// The index under which the packet's tag is right and which was not seen before.
    ///
    /// Of a source not met yet the rollover counter is zero, or what it was set to. But a stream
    /// may start just below a wrap and its first packets may be lost: the first one to arrive then
    /// belongs to the next counter already, so a low sequence number is tried with that too.
    fn authentic_index(
        &self,
        packet: &[u8],
        tag: &[u8],
        (ssrc, sequence): (u32, u16),
    ) -> Result<u64, SrtpError> {
        let mac = self.rtp.authenticate(packet, &[]);
        let is_right = |index: u64| {
            let roc = roc_of(index).to_be_bytes();
            mac.clone().chain_update(roc).verify_truncated_left(tag).is_ok()
        };
        match self.progress(ssrc) {
            Progress::Running(window) => {
                let index = fresh(window, sequence)?;
                if is_right(index) { Ok(index) } else { Err(SrtpError::Forged) }
            }
            Progress::Expected { roc } => {
                let next = (sequence < HALF_SEQUENCE).then(|| roc.checked_add(1)).flatten();
                let mut candidates = [Some(roc), next].into_iter().flatten();
                let right = candidates.find(|&roc| is_right(first_index(roc, sequence)));
                right.map(|roc| first_index(roc, sequence)).ok_or(SrtpError::Forged)
            }
        }
    }
}

impl Stream {
    const fn commit_rtp(&mut self, index: u64) {
        match &mut self.rtp {
            Progress::Running(window) => window.commit(index),
            Progress::Expected { .. } => {
                let mut window = Window::starting_at(index);
                window.commit(index);
                self.rtp = Progress::Running(window);
            }
        }
    }
}

/// The stream of this source, made if there is room. For authenticated sources only.
fn admit(streams: &mut [Option<Stream>; MAX_STREAMS], ssrc: u32) -> Result<&mut Stream, SrtpError> {
    let known = |slot: &Option<Stream>| slot.as_ref().is_some_and(|stream| stream.ssrc == ssrc);
    let at = streams
        .iter()
        .position(known)
        .or_else(|| streams.iter().position(Option::is_none))
        .ok_or(SrtpError::TooManyStreams)?;
    let slot = streams.get_mut(at).ok_or(SrtpError::TooManyStreams)?;
    Ok(slot.get_or_insert(Stream {
        ssrc,
        rtp: Progress::Expected { roc: 0 },
        rtcp: Window::starting_at(0),
    }))
}

/// Writes identifier and tag behind a packet.
fn seal(tail: &mut [u8], mki: &Mki, tag_bytes: usize, mac: impl Mac) -> Result<(), SrtpError> {
    let (identifier, tail) = tail.split_at_mut_checked(mki.len).ok_or(SrtpError::NoRoom)?;
    identifier.copy_from_slice(mki.as_slice());
    let whole = mac.finalize().into_bytes();
    let tag = whole.get(..tag_bytes).ok_or(SrtpError::NoRoom)?;
    tail.get_mut(..tag_bytes).ok_or(SrtpError::NoRoom)?.copy_from_slice(tag);
    Ok(())
}

fn identity(packet: &[u8]) -> Result<(u32, u16), SrtpError> {
    rtp::ssrc(packet).zip(rtp::sequence(packet)).ok_or(SrtpError::Malformed)
}

fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    match packet.first() {
        Some(first) if first >> 6 == 2 => read_u32(packet, 4).ok_or(SrtpError::Malformed),
        _ => Err(SrtpError::Malformed),
    }
}

/// The index this sequence number most likely has (RFC 3711 §3.3.1), unless it was seen already.
fn fresh(window: Window, sequence: u16) -> Result<u64, SrtpError> {
    let index = estimate(window.highest(), sequence);
    judge(window.check(index))?;
    Ok(index)
}

const fn judge(verdict: Verdict) -> Result<(), SrtpError> {
    match verdict {
        Verdict::Fresh => Ok(()),
        Verdict::Seen => Err(SrtpError::Replayed),
        Verdict::TooOld => Err(SrtpError::TooOld),
    }
}

/// The index nearest to the highest one that ends in this sequence number. There is nothing below
/// rollover counter zero, so there a high sequence number is taken for a leap forward.
fn estimate(highest: u64, sequence: u16) -> u64 {
    let last = low_sixteen_bits(highest);
    let epoch = highest >> 16;
    let epoch = if last < HALF_SEQUENCE {
        let wrapped_back = sequence.checked_sub(last).is_some_and(|ahead| ahead > HALF_SEQUENCE);
        epoch.saturating_sub(u64::from(wrapped_back))
    } else {
        epoch + u64::from(last - HALF_SEQUENCE > sequence)
    };
    epoch << 16 | u64::from(sequence)
}

const fn first_index(roc: u32, sequence: u16) -> u64 {
    (roc as u64) << 16 | sequence as u64
}

#[expect(clippy::cast_possible_truncation, reason = "an RTP index has 48 bits")]
const fn roc_of(index: u64) -> u32 {
    (index >> 16) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower bits are what is wanted")]
const fn low_sixteen_bits(index: u64) -> u16 {
    index as u16
}

#[cfg(test)]
#[path = "tests.rs"]
#[expect(clippy::cast_possible_truncation, reason = "test values are made to fit")]
mod tests;
