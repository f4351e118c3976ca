//! Cipher suites and master keys (RFC 4568 §6.2, RFC 3711 §8.2).

use std::hint::black_box;

/// Bytes of an AES-128 master key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a master salt.
pub const SALT_BYTES: usize = 14;
/// Bytes of key and salt together: what an `inline:` key of RFC 4568 §6.1 decodes to.
pub const MASTER_BYTES: usize = KEY_BYTES + SALT_BYTES;

/// A cipher suite of RFC 4568 §6.2. Both encrypt with AES in counter mode under a 128-bit key and
/// authenticate with HMAC-SHA1; they differ in how much of the tag an RTP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`: 10-byte tags.
    AesCm128HmacSha1_80,
    /// `AES_CM_128_HMAC_SHA1_32`: 4-byte tags on RTP, 10-byte tags on RTCP.
    AesCm128HmacSha1_32,
}

impl Suite {
    /// All suites, most wanted first.
    pub const ALL: [Self; 2] = [Self::AesCm128HmacSha1_80, Self::AesCm128HmacSha1_32];

    /// The name in an `a=crypto` line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of this name. Case is ignored, because products in the field write it small.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of the authentication tag on an RTP packet.
    #[must_use]
    pub const fn rtp_tag_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 => 10,
            Self::AesCm128HmacSha1_32 => 4,
        }
    }

    /// Bytes of the authentication tag on an RTCP packet: always ten (RFC 4568 §6.2.2).
    #[must_use]
    pub const fn rtcp_tag_bytes(self) -> usize {
        10
    }
}

/// A master key and its salt. It has no `Debug`, compares in constant time and is overwritten when
/// dropped (the copies a move may leave on the stack are beyond its reach).
#[derive(Clone)]
pub struct MasterKey {
    bytes: [u8; MASTER_BYTES],
}

impl MasterKey {
    /// From key and salt in one piece, as SDP carries them: 16 bytes of key, 14 bytes of salt.
    #[must_use]
    pub const fn new(bytes: [u8; MASTER_BYTES]) -> Self {
        Self { bytes }
    }

    /// From a slice; `None` unless it is exactly [`MASTER_BYTES`] long.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self { bytes: bytes.try_into().ok()? })
    }

    /// Key and salt in one piece. For printing an SDP offer, and nothing else.
    #[must_use]
    pub const fn expose(&self) -> &[u8; MASTER_BYTES] {
        &self.bytes
    }

    pub(crate) fn key(&self) -> &[u8; KEY_BYTES] {
        self.bytes.first_chunk().expect("the key is the first part of the array")
    }

    pub(crate) fn salt(&self) -> &[u8; SALT_BYTES] {
        self.bytes.last_chunk().expect("the salt is the last part of the array")
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.bytes.iter().zip(&other.bytes);
        black_box(pairs.fold(0, |seen, (a, b)| seen | (a ^ b))) == 0
    }
}

impl Eq for MasterKey {}

impl Drop for MasterKey {
    fn drop(&mut self) {
        erase(&mut self.bytes);
    }
}

/// Overwrites a secret with zeros in a way the compiler must assume is looked at.
pub(crate) fn erase(secret: &mut [u8]) {
    secret.fill(0);
    black_box(secret);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_name(suite.name()), Some(suite));
            assert_eq!(Suite::from_name(&suite.name().to_lowercase()), Some(suite));
        }
        assert_eq!(Suite::from_name("NULL_HMAC_SHA1_80"), None);
    }

    #[test]
    fn a_master_key_has_exactly_thirty_bytes() {
        for len in 0..64 {
            assert_eq!(MasterKey::from_slice(&vec![7; len]).is_some(), len == MASTER_BYTES);
        }
    }

    #[test]
    fn keys_that_differ_in_one_bit_are_unequal() {
        let key = MasterKey::new([0x5a; MASTER_BYTES]);
        assert!(key == key.clone());
        for bit in 0..8 * MASTER_BYTES {
            let mut other = [0x5a; MASTER_BYTES];
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(key != MasterKey::new(other));
        }
    }
}
