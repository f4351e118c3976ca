//! The endpoint's randomness: a hash over a secret seed and a counter.
//!
//! Tags, branches and Call-IDs must not be guessable (a forged BYE needs both tags), and the same
//! seed must give the same bytes again in a test. SHA-256 in counter mode gives both; the seed never
//! leaves this file.

use sha2::{Digest, Sha256};

/// A deterministic stream of unguessable bytes. No `Debug`: the seed is a secret.
pub(super) struct Random {
    seed: [u8; 32],
    counter: u64,
}

/// Digits and lower-case letters: tokens compare without case (RFC 3261 §7.3.1).
const ALPHABET: &[u8; 32] = b"0123456789abcdfghjklmnpqrstvwxyz";

/// Characters of a token: 20 × 5 = 100 random bits, more than the 64 a tag must have.
const TOKEN_LENGTH: usize = 20;

/// A fresh identifier: letters and digits, 100 random bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Token([u8; TOKEN_LENGTH]);

impl Token {
    /// No secret at all, but as long as any.
    pub(super) const BLANK: Token = Token([b'0'; TOKEN_LENGTH]);

    fn from_digest(digest: [u8; 32]) -> Token {
        let mut token = [b'0'; TOKEN_LENGTH];
        for (letter, byte) in token.iter_mut().zip(digest) {
            *letter = ALPHABET.get(usize::from(byte & 31)).copied().unwrap_or(b'0');
        }
        Token(token)
    }

    /// The identifier as text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Random {
    /// A stream that is a function of `seed` alone.
    pub(super) fn new(seed: [u8; 32]) -> Random {
        Random { seed, counter: 0 }
    }

    fn block(&mut self) -> [u8; 32] {
        self.counter = self.counter.wrapping_add(1);
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(b"stream");
        hash.update(self.counter.to_be_bytes());
        hash.finalize().into()
    }

    /// The next identifier of the stream.
    pub(super) fn token(&mut self) -> Token {
        Token::from_digest(self.block())
    }

    /// A number below `limit`, for waiting times.
    pub(super) fn below(&mut self, limit: u8) -> u8 {
        let [first, ..] = self.block();
        first.checked_rem(limit).unwrap_or(0)
    }

    /// An identifier that is always the same for `text`, yet unguessable: for answers that are given
    /// without keeping state, whose To tag must not change when they are given again
    /// (RFC 3261 §8.2.7).
    pub(super) fn token_for(&self, text: &[u8]) -> Token {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(b"stateless");
        hash.update(text);
        Token::from_digest(hash.finalize().into())
    }

    /// A secret number that the endpoint's hash tables are keyed with.
    pub(super) fn hash_key(&self) -> u128 {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(b"tables");
        let digest: [u8; 32] = hash.finalize().into();
        digest.iter().take(16).fold(0, |key, byte| (key << 8) | u128::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
        let tokens = |seed: u8| {
            let mut random = Random::new([seed; 32]);
            (0..4).map(|_| random.token().as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(tokens(1), tokens(1));
        assert_ne!(tokens(1), tokens(2));
        let mut all = tokens(1);
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_stateless_token_depends_on_the_text_and_not_on_the_stream() {
        let mut random = Random::new([7; 32]);
        let before = random.token_for(b"call");
        let _ = random.token();
        assert!(before == random.token_for(b"call"));
        assert!(before != random.token_for(b"other"));
    }

    #[test]
    fn tokens_are_tokens() {
        let mut random = Random::new([3; 32]);
        for _ in 0..1000 {
            assert!(random.token().as_str().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
    }
}
