//! Randomness for identifiers and keys that calls mint: seeded once from the operating system.

use aws_lc_rs::aead::quic;

/// A generator of unpredictable bytes: ChaCha20 keyed with a seed, in counter mode.
///
/// Same seed, same bytes: that is what makes a run replayable. The seed itself comes from the
/// operating system ([`seed`]).
pub struct Random {
    key: quic::HeaderProtectionKey,
    counter: u128,
    rest: Vec<u8>,
}

/// 32 bytes of the operating system's randomness.
///
/// # Errors
/// When the operating system has none to give.
pub fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(seed)
}

impl Random {
    /// A generator for this seed.
    ///
    /// # Panics
    /// Never: a ChaCha20 key has 32 bytes.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let key = quic::HeaderProtectionKey::new(&quic::CHACHA20, &seed)
            .expect("a ChaCha20 key has 32 bytes");
        Random { key, counter: 0, rest: Vec::new() }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next_byte();
        }
    }

    /// `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    fn next_byte(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.rest.pop() {
                return byte;
            }
            // Five bytes of key stream for every counter (RFC 9001 §5.4.4).
            let sample = self.counter.to_le_bytes();
            self.counter += 1;
            if let Ok(mask) = self.key.new_mask(&sample) {
                self.rest.extend(mask);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
        let one: [u8; 64] = Random::new([1; 32]).bytes();
        assert_eq!(one, Random::new([1; 32]).bytes::<64>());
        assert_ne!(one, Random::new([2; 32]).bytes::<64>());
    }

    #[test]
    fn the_bytes_look_random() {
        let bytes: [u8; 4096] = Random::new([9; 32]).bytes();
        let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        assert!((15_900..16_900).contains(&ones), "{ones} of 32768 bits");
    }
}
