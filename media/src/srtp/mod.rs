//! SRTP and SRTCP in place (RFC 3711) with the suites of RFC 4568.
//!
//! [`SrtpPair`] is what a leg owns: one key for what we send, another for what we receive. The
//! trait [`SrtpSession`] stands between it and the rest, so that another implementation can be put
//! in its place and held against the same tests.
//!
//! Invariants:
//! - nothing a stranger sends changes any state: stream tables, rollover counters and replay
//!   windows are written after the tag was found right;
//! - no length makes it panic, and nothing is allocated per packet;
//! - an index is never used twice for sending, so a key stream is never used twice;
//! - keys are overwritten on drop and cannot be printed.

mod context;
mod kdf;
mod pair;
mod replay;
mod suite;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test values are made to fit")]
pub(crate) mod testing;

pub use context::{Context, MAX_STREAMS};
pub use pair::SrtpPair;
pub use suite::{KEY_BYTES, MASTER_BYTES, MasterKey, SALT_BYTES, Suite};

/// Bytes a buffer must have behind the packet so that [`SrtpSession::protect`] and
/// [`SrtpSession::protect_rtcp`] can grow it: SRTCP index, longest tag, and room to spare.
pub const TAIL_ROOM: usize = 32;

/// Why a packet was neither protected nor accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpError {
    /// Too short to be what it claims, or its RTP headers reach beyond its end.
    Malformed,
    /// The buffer has no room for the tag.
    NoRoom,
    /// The tag is wrong: a stranger, or another key.
    Forged,
    /// The index was seen before.
    Replayed,
    /// The index is older than the replay window.
    TooOld,
    /// An SRTCP packet in the clear. We never agree to that, so it is refused though authentic.
    NotEncrypted,
    /// Authentic, but from one source more than a session may have; see [`MAX_STREAMS`].
    TooManyStreams,
    /// 2^48 RTP or 2^31 RTCP packets were sent: only a new key can go on (RFC 3711 §9.2).
    KeyExhausted,
    /// This implementation has no way to do that.
    Unsupported,
}

/// Which of the two keys of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What we send.
    Outbound,
    /// What we receive.
    Inbound,
}

/// Both directions of one leg's protected media. Every call works in place on the first `len` bytes
/// of `buffer` and returns the new length. On an error the packet's bytes are unspecified, and
/// the session is as it was before.
pub trait SrtpSession {
    /// Encrypts and tags an RTP packet (RFC 3711 §3.3). The buffer needs [`TAIL_ROOM`].
    ///
    /// # Errors
    /// Any [`SrtpError`] but `Forged` and `NotEncrypted`.
    fn protect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError>;

    /// Authenticates and decrypts an SRTP packet.
    ///
    /// # Errors
    /// Any [`SrtpError`] but `NoRoom` and `NotEncrypted`.
    fn unprotect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError>;

    /// Encrypts and tags a compound RTCP packet (RFC 3711 §3.4). The buffer needs [`TAIL_ROOM`].
    ///
    /// # Errors
    /// Any [`SrtpError`] but `Forged`, `Replayed`, `TooOld` and `NotEncrypted`.
    fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError>;

    /// Authenticates and decrypts an SRTCP packet.
    ///
    /// # Errors
    /// Any [`SrtpError`] but `NoRoom`.
    fn unprotect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError>;

    /// Rollover counter of a source (RFC 3711 §3.3.1): how often its sequence number has wrapped.
    /// `None` for a source not met yet.
    fn roc(&self, direction: Direction, ssrc: u32) -> Option<u32>;

    /// Sets the rollover counter of a source before its first packet, for a stream taken over
    /// midway. A source that was met already keeps its replay window and can only go forward.
    ///
    /// # Errors
    /// `TooManyStreams`; `TooOld` when the counter would go back; `Unsupported`.
    fn set_roc(&mut self, direction: Direction, ssrc: u32, roc: u32) -> Result<(), SrtpError>;
}
