//! The text of a credential: made, read, and what is kept of it.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::ids::{KeyId, TokenId};
use crate::secret::Secret;

const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// The SHA-256 of a whole credential.
pub(crate) type KeyHash = [u8; 32];

/// The public half of a credential; its type decides the prefix.
pub(crate) trait CredentialId: Copy {
    /// What the text begins with.
    const PREFIX: &'static str;

    /// A fresh random id.
    fn random() -> Self;

    /// The 128 bits.
    fn uuid(&self) -> &Uuid;
}

macro_rules! credential_id {
    ($($id:ty = $prefix:literal;)+) => {$(
        impl CredentialId for $id {
            const PREFIX: &'static str = $prefix;

            fn random() -> Self {
                Self::random()
            }

            fn uuid(&self) -> &Uuid {
                self.as_uuid()
            }
        }
    )+};
}

credential_id! {
    KeyId = "ak_";
    TokenId = "pat_";
}

/// A new credential: its text, to be shown once, and what is kept of it.
pub(crate) struct Minted<I> {
    pub(crate) id: I,
    pub(crate) text: Secret<String>,
    pub(crate) hash: KeyHash,
}

/// Makes a credential from 256 bits of the operating system's randomness.
pub(crate) fn mint<I: CredentialId>() -> Result<Minted<I>, getrandom::Error> {
    let mut secret = [0_u8; SECRET_BYTES + CHECKSUM_BYTES];
    let (random, checksum) = secret.split_at_mut(SECRET_BYTES);
    getrandom::fill(random)?;
    checksum.copy_from_slice(&checksum_of(random));
    let id = I::random();
    let (public, secret) = (id.uuid().simple(), URL_SAFE_NO_PAD.encode(secret));
    let text = format!("{}{public}.{secret}", I::PREFIX);
    Ok(Minted { id, hash: hash(&text), text: Secret::new(text) })
}

/// Which credential a text claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presented {
    /// `ak_…`
    Key(KeyId),
    /// `pat_…`
    Token(TokenId),
}

/// Reads a text that [`mint`] could have made; anything else is no credential.
pub(crate) fn read(text: &str) -> Option<Presented> {
    if let Some(rest) = text.strip_prefix(KeyId::PREFIX) {
        return public_half(rest).map(KeyId::from_uuid).map(Presented::Key);
    }
    let rest = text.strip_prefix(TokenId::PREFIX)?;
    public_half(rest).map(TokenId::from_uuid).map(Presented::Token)
}

fn public_half(text: &str) -> Option<Uuid> {
    let (id, secret) = text.split_once('.')?;
    let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
    let (random, checksum) = secret.split_at_checked(SECRET_BYTES)?;
    (checksum == checksum_of(random)).then(|| Uuid::try_parse(id).ok()).flatten()
}

/// What is kept of a credential. Its 256 random bits make a slow hash pointless.
pub(crate) fn hash(text: &str) -> KeyHash {
    Sha256::digest(text.as_bytes()).into()
}

/// Compares in a time that does not depend on where the two differ.
pub(crate) fn hashes_match(a: &KeyHash, b: &KeyHash) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

fn checksum_of(random: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..]: KeyHash = Sha256::digest(random).into();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_carries_its_kind_its_id_and_a_checksum() {
        let key = mint::<KeyId>().unwrap();
        let text = key.text.expose();
        assert!(text.starts_with("ak_"));
        assert_eq!(read(text), Some(Presented::Key(key.id)));
        assert!(hashes_match(&key.hash, &hash(text)));
        assert!(!hashes_match(&key.hash, &hash("ak_")));
        let token = mint::<TokenId>().unwrap();
        assert!(token.text.expose().starts_with("pat_"));
        assert_eq!(read(token.text.expose()), Some(Presented::Token(token.id)));
    }

    #[test]
    fn a_mistyped_credential_is_none() {
        let text = mint::<KeyId>().unwrap().text.expose().clone();
        let last = if text.ends_with('A') { 'Q' } else { 'A' };
        let mistyped = format!("{}{last}", &text[..text.len() - 1]);
        for bad in ["", "ak_", "ak_.", "pat_", "pat_x.y", &mistyped, &text[3..], &text[..20]] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
