//! The arithmetic of RFC 7616 §3.4: A1, A2 and the response.

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

/// A hash function, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hash {
    /// MD5: broken as a hash, still the only one many carriers know.
    Md5,
    /// SHA-256 (RFC 8760).
    Sha256,
    /// SHA-512/256 (RFC 8760).
    Sha512_256,
}

/// What the `algorithm` parameter says: a hash, and whether A1 is bound to the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Algorithm {
    /// The hash function.
    pub hash: Hash,
    /// Whether A1 includes the nonces (`-sess`, RFC 7616 §3.4.2).
    pub session: bool,
}

impl Algorithm {
    /// What a missing parameter means (RFC 7616 §3.3).
    pub const DEFAULT: Self = Self { hash: Hash::Md5, session: false };

    const TOKENS: [(&'static str, Self); 6] = [
        ("MD5", Self { hash: Hash::Md5, session: false }),
        ("MD5-sess", Self { hash: Hash::Md5, session: true }),
        ("SHA-256", Self { hash: Hash::Sha256, session: false }),
        ("SHA-256-sess", Self { hash: Hash::Sha256, session: true }),
        ("SHA-512-256", Self { hash: Hash::Sha512_256, session: false }),
        ("SHA-512-256-sess", Self { hash: Hash::Sha512_256, session: true }),
    ];

    /// Reads the parameter's value, in any case. `None` for an algorithm we do not know.
    #[must_use]
    pub fn parse(token: &[u8]) -> Option<Self> {
        let known = |(name, _): &&(&str, Self)| name.as_bytes().eq_ignore_ascii_case(token);
        Self::TOKENS.iter().find(known).map(|&(_, algorithm)| algorithm)
    }

    /// The parameter's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::TOKENS.iter().find(|&&(_, known)| known == self).map_or("", |&(name, _)| name)
    }
}

/// A digest in lower-case hexadecimal.
#[derive(Clone, Copy)]
pub(super) struct Hex {
    digits: [u8; 64],
    length: usize,
}

impl Hex {
    fn new(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        let mut hex = Self { digits: [0; 64], length: bytes.len() * 2 };
        for (pair, byte) in hex.digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
        }
        hex
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.digits.get(..self.length).unwrap_or_default()
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("hexadecimal digits are ASCII")
    }

    /// Whether `claimed` is this digest, in either case of letters, in a time that depends on the
    /// lengths only.
    pub(super) fn matches(&self, claimed: &[u8]) -> bool {
        let ours = self.as_bytes();
        let difference = ours.iter().zip(claimed).fold(0, |sum, (one, two)| {
            std::hint::black_box(sum | (one ^ two.to_ascii_lowercase()))
        });
        ours.len() == claimed.len() && difference == 0
    }
}

impl Hash {
    /// The hash of the pieces joined by colons.
    pub(super) fn joined(self, pieces: &[&[u8]]) -> Hex {
        match self {
            Self::Md5 => Hex::new(&digest::<Md5>(pieces)),
            Self::Sha256 => Hex::new(&digest::<Sha256>(pieces)),
            Self::Sha512_256 => Hex::new(&digest::<Sha512_256>(pieces)),
        }
    }
}

fn digest<D: Digest>(pieces: &[&[u8]]) -> sha2::digest::Output<D> {
    let mut hasher = D::new();
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 {
            hasher.update(b":");
        }
        hasher.update(piece);
    }
    hasher.finalize()
}

/// Everything the response is computed from.
pub(super) struct Inputs<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) username: &'a [u8],
    pub(super) realm: &'a [u8],
    pub(super) password: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) uri: &'a [u8],
    pub(super) nonce: &'a [u8],
    pub(super) protection: Protection<'a>,
}

/// The quality of protection (RFC 7616 §3.4.1).
#[derive(Clone, Copy)]
pub(super) enum Protection<'a> {
    /// No `qop`: RFC 2069, as old PBXs ask for it.
    None,
    /// `qop=auth`.
    Auth { cnonce: &'a [u8], nc: &'a [u8] },
    /// `qop=auth-int`: the body is covered too.
    AuthInt { cnonce: &'a [u8], nc: &'a [u8], body: &'a [u8] },
}

impl Inputs<'_> {
    /// The `response` (RFC 7616 §3.4.1).
    pub(super) fn response(&self) -> Hex {
        let hash = self.algorithm.hash;
        let mut a1 = hash.joined(&[self.username, self.realm, self.password]);
        if self.algorithm.session {
            let cnonce = match self.protection {
                Protection::None => &[],
                Protection::Auth { cnonce, .. } | Protection::AuthInt { cnonce, .. } => cnonce,
            };
            a1 = hash.joined(&[a1.as_bytes(), self.nonce, cnonce]);
        }
        let a1 = a1.as_bytes();
        let plain = || hash.joined(&[self.method, self.uri]);
        match self.protection {
            Protection::None => hash.joined(&[a1, self.nonce, plain().as_bytes()]),
            Protection::Auth { cnonce, nc } => {
                hash.joined(&[a1, self.nonce, nc, cnonce, b"auth", plain().as_bytes()])
            }
            Protection::AuthInt { cnonce, nc, body } => {
                let body = hash.joined(&[body]);
                let a2 = hash.joined(&[self.method, self.uri, body.as_bytes()]);
                hash.joined(&[a1, self.nonce, nc, cnonce, b"auth-int", a2.as_bytes()])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mufasa(algorithm: Algorithm) -> Inputs<'static> {
        Inputs {
            algorithm,
            username: b"Mufasa",
            realm: b"http-auth@example.org",
            password: b"Circle of Life",
            method: b"GET",
            uri: b"/dir/index.html",
            nonce: b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            protection: Protection::Auth {
                cnonce: b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                nc: b"00000001",
            },
        }
    }

    #[test]
    fn the_example_of_rfc_2617_section_3_5() {
        let inputs = Inputs {
            realm: b"testrealm@host.com",
            password: b"Circle Of Life",
            nonce: b"dcd98b7102dd2f0e8b11d0f600bfb0c093",
            protection: Protection::Auth { cnonce: b"0a4f113b", nc: b"00000001" },
            ..mufasa(Algorithm::DEFAULT)
        };
        assert_eq!(inputs.response().as_str(), "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn the_examples_of_rfc_7616_section_3_9_1() {
        assert_eq!(
            mufasa(Algorithm::DEFAULT).response().as_str(),
            "8ca523f5e9506fed4657c9700eebdbec"
        );
        let sha = Algorithm::parse(b"sha-256").unwrap();
        assert_eq!(
            mufasa(sha).response().as_str(),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
    }

    #[test]
    fn every_algorithm_reads_its_own_token_in_any_case() {
        for (name, algorithm) in Algorithm::TOKENS {
            assert_eq!(Algorithm::parse(name.to_ascii_lowercase().as_bytes()), Some(algorithm));
            assert_eq!(algorithm.as_str(), name);
        }
        assert_eq!(Algorithm::parse(b"SHA-1"), None);
    }

    #[test]
    fn a_session_key_depends_on_both_nonces() {
        let session = Algorithm { session: true, ..Algorithm::DEFAULT };
        let first = mufasa(session).response();
        let other = Inputs {
            protection: Protection::Auth { cnonce: b"other", nc: b"00000001" },
            ..mufasa(session)
        };
        assert!(!first.matches(mufasa(Algorithm::DEFAULT).response().as_bytes()));
        assert!(!first.matches(other.response().as_bytes()));
        assert!(first.matches(first.as_str().to_uppercase().as_bytes()));
        assert!(!first.matches(b""));
    }
}
