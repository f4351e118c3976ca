//! Key derivation (RFC 3711 §4.3) and the AES counter-mode key stream it shares with the packets
//! (§4.1.1).
//!
//! The key derivation rate is zero, as RFC 4568 leaves it unless a session parameter says other:
//! keys are derived once. Invariant: key schedule and HMAC state are computed here and kept, never
//! per packet, and are overwritten on drop.

use std::hint::black_box;

use aes::Aes128Enc;
use ctr::CtrCore;
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::suite::{KEY_BYTES, MasterKey, SALT_BYTES, erase};

const AUTH_KEY_BYTES: usize = 20;
const BLOCK_BYTES: usize = 16;

/// The three labels of one half of a session (RFC 3711 §4.3.1 and §4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Rtp,
    Rtcp,
}

impl Half {
    const fn labels(self) -> [u8; 3] {
        match self {
            Self::Rtp => [0x00, 0x01, 0x02],
            Self::Rtcp => [0x03, 0x04, 0x05],
        }
    }
}

/// Session keys of one direction for either RTP or RTCP, ready for use on packets.
pub(crate) struct SessionKeys {
    cipher: Aes128Enc,
    salt: [u8; SALT_BYTES],
    authenticator: Hmac<Sha1>,
}

impl SessionKeys {
    pub(crate) fn derive(master: &MasterKey, half: Half) -> Self {
        let prf = Aes128Enc::new(master.key().into());
        let [encryption, authentication, salting] = half.labels();
        let mut key = [0; KEY_BYTES];
        derive(&prf, master.salt(), encryption, &mut key);
        let mut auth_key = [0; AUTH_KEY_BYTES];
        derive(&prf, master.salt(), authentication, &mut auth_key);
        let mut salt = [0; SALT_BYTES];
        derive(&prf, master.salt(), salting, &mut salt);
        let keys =
            Self { cipher: Aes128Enc::new(&key.into()), salt, authenticator: hmac(&auth_key) };
        erase(&mut key);
        erase(&mut auth_key);
        keys
    }

    /// Encrypts or decrypts in place: IV = (salt · 2^16) ⊕ (SSRC · 2^64) ⊕ (index · 2^16).
    pub(crate) fn apply_keystream(&self, ssrc: u32, index: u64, bytes: &mut [u8]) {
        let mut block = u128::from(ssrc) << 64 ^ u128::from(index) << 16;
        block ^= salt_block(&self.salt);
        apply(&self.cipher, block, bytes);
    }

    /// HMAC-SHA1 over `bytes` followed by `suffix` (rollover counter or nothing), not yet finished.
    pub(crate) fn authenticate(&self, bytes: &[u8], suffix: &[u8]) -> Hmac<Sha1> {
        let mut mac = self.authenticator.clone();
        mac.update(bytes);
        mac.update(suffix);
        mac
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        erase(&mut self.salt);
        self.cipher = Aes128Enc::new(&[0; KEY_BYTES].into());
        self.authenticator = hmac(&[0; AUTH_KEY_BYTES]);
        black_box(self);
    }
}

fn hmac(key: &[u8; AUTH_KEY_BYTES]) -> Hmac<Sha1> {
    Mac::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The pseudo-random function of RFC 3711 §4.3.3: key stream of the master key from label ⊕ salt.
fn derive(prf: &Aes128Enc, salt: &[u8; SALT_BYTES], label: u8, out: &mut [u8]) {
    out.fill(0);
    // The label stands above a 48-bit index (here 0) and the whole is shifted by the 16-bit
    // counter.
    apply(prf, salt_block(salt) ^ u128::from(label) << 64, out);
}

/// A 112-bit salt as the upper bits of a counter block.
fn salt_block(salt: &[u8; SALT_BYTES]) -> u128 {
    let mut block = [0; BLOCK_BYTES];
    for (to, from) in block.iter_mut().zip(salt) {
        *to = *from;
    }
    u128::from_be_bytes(block)
}

/// XORs the key stream that starts at this counter block onto `bytes`.
fn apply(cipher: &Aes128Enc, block: u128, bytes: &mut [u8]) {
    let core = CtrCore::<&Aes128Enc, Ctr128BE>::inner_iv_init(cipher, &block.to_be_bytes().into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::testing::hex;

    #[test]
    fn rfc_3711_b_2_key_stream() {
        let cipher = Aes128Enc::new_from_slice(&hex("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
        let salt = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd").try_into().unwrap();
        let mut stream = [0; 48];
        apply(&cipher, salt_block(&salt), &mut stream);
        let expected = "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab\
                        41e95b3bb0a2e8dd477901e4fca894c0";
        assert_eq!(stream.to_vec(), hex(expected));
        // The same appendix gives the blocks around counter 0xff00.
        let mut late = [0; 48];
        apply(&cipher, salt_block(&salt) | 0xfeff, &mut late);
        let expected = "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae\
                        6a2cc3787889374fbeb4c81b17ba6c44";
        assert_eq!(late.to_vec(), hex(expected));
    }

    #[test]
    fn rfc_3711_b_3_session_keys() {
        let prf = Aes128Enc::new_from_slice(&hex("e1f97a0d3e018be0d64fa32c06de4139")).unwrap();
        let salt = hex("0ec675ad498afeebb6960b3aabe6").try_into().unwrap();
        let mut key = [0; KEY_BYTES];
        derive(&prf, &salt, 0x00, &mut key);
        assert_eq!(key.to_vec(), hex("c61e7a93744f39ee10734afe3ff7a087"));
        let mut session_salt = [0; SALT_BYTES];
        derive(&prf, &salt, 0x02, &mut session_salt);
        assert_eq!(session_salt.to_vec(), hex("30cbbc08863d8c85d49db34a9ae1"));
        // The appendix derives 94 bytes of authentication key; HMAC-SHA1 takes the first twenty.
        let mut auth = [0; 94];
        derive(&prf, &salt, 0x01, &mut auth);
        let expected = "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbce\
                        e049646c43d9327ad175578ef72270986371c10c9a369ac2f94a8c5fbcdddc25\
                        6d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34db60dbdfb2";
        assert_eq!(auth.to_vec(), hex(expected));
    }

    #[test]
    fn rtp_and_rtcp_have_different_keys() {
        let master = MasterKey::new([9; 30]);
        let mut streams = [[0; 32]; 2];
        for (half, stream) in [Half::Rtp, Half::Rtcp].into_iter().zip(&mut streams) {
            SessionKeys::derive(&master, half).apply_keystream(1, 1, stream);
        }
        assert_ne!(streams[0], streams[1]);
    }
}
