//! What the tests of this folder share: the other implementation behind our trait, and small tools.

use webrtc_srtp::context::Context as Theirs;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::{Direction, MasterKey, SrtpError, SrtpSession, Suite};

/// Bytes of a hexadecimal text.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    assert!(text.is_ascii() && text.len().is_multiple_of(2), "{text}");
    let nibble = |byte: u8| (byte as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}

/// The crate `webrtc-srtp` as an [`SrtpSession`]. It panics on an SRTCP datagram shorter than its
/// trailer, so lengths are checked before it sees anything.
pub(crate) struct Oracle {
    suite: Suite,
    outbound: Theirs,
    inbound: Theirs,
}

/// Wider than any reordering of the tests, so that both sides agree on what is too old.
const ORACLE_WINDOW: usize = 128;

impl Oracle {
    pub(crate) fn new(suite: Suite, local: &MasterKey, remote: &MasterKey) -> Self {
        let profile = match suite {
            Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        };
        let context = |master: &MasterKey| {
            let rtp = Some(srtp_replay_protection(ORACLE_WINDOW));
            let rtcp = Some(srtcp_replay_protection(ORACLE_WINDOW));
            Theirs::new(master.key(), master.salt(), profile, rtp, rtcp).expect("a good key")
        };
        Self { suite, outbound: context(local), inbound: context(remote) }
    }
}

/// Its error type cannot be named from outside, so its words have to do.
fn reason(error: impl std::error::Error) -> SrtpError {
    let words = error.to_string();
    if words.contains("duplicate") {
        SrtpError::Replayed
    } else if words.contains("failed to verify") {
        SrtpError::Forged
    } else {
        SrtpError::Malformed
    }
}

fn replace(buffer: &mut [u8], bytes: &[u8]) -> Result<usize, SrtpError> {
    buffer.get_mut(..bytes.len()).ok_or(SrtpError::NoRoom)?.copy_from_slice(bytes);
    Ok(bytes.len())
}

impl SrtpSession for Oracle {
    fn protect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..len).ok_or(SrtpError::Malformed)?;
        let protected = self.outbound.encrypt_rtp(packet).map_err(reason)?;
        replace(buffer, &protected)
    }

    fn unprotect(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..len).ok_or(SrtpError::Malformed)?;
        let plain = self.inbound.decrypt_rtp(packet).map_err(reason)?;
        replace(buffer, &plain)
    }

    fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..len).ok_or(SrtpError::Malformed)?;
        let protected = self.outbound.encrypt_rtcp(packet).map_err(reason)?;
        replace(buffer, &protected)
    }

    fn unprotect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..len).ok_or(SrtpError::Malformed)?;
        if packet.len() < 8 + 4 + self.suite.rtcp_tag_bytes() {
            return Err(SrtpError::Malformed);
        }
        let plain = self.inbound.decrypt_rtcp(packet).map_err(reason)?;
        replace(buffer, &plain)
    }

    fn roc(&self, _: Direction, _: u32) -> Option<u32> {
        None
    }

    fn set_roc(&mut self, _: Direction, _: u32, _: u32) -> Result<(), SrtpError> {
        Err(SrtpError::Unsupported)
    }
}

/// A linear congruential generator: the same choices in every run.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}
