//! Secrets at rest: AES-256-GCM under a key that lies outside the database.
//!
//! A sealed value is `1 | key id (4, big endian) | nonce (12) | ciphertext and tag`. What it belongs
//! to is the associated data, so that a value moved to another row does not open. Invariant: every
//! seal has a fresh random nonce; the key file can be read by its owner only.
//!
//! The key file holds one key a line, `<id> <base64 of 32 bytes>`; the last seals, all open. To
//! rotate, [`Sealer::rotate`] the file and let the store seal everything again.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::{Secret, Wipe as _};

const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;

/// The keys that seal and open.
pub struct Sealer {
    keys: BTreeMap<u32, LessSafeKey>,
    current: u32,
}

/// A value did not open: another key, another owner, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open with the keys at hand")]
pub struct SealError;

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the key file, making it first (mode 0600) if there is none.
    ///
    /// # Errors
    /// When the file cannot be read or made, is readable by others, or holds no keys.
    pub fn open(path: &Path) -> io::Result<Self> {
        match read_private(path) {
            Ok(text) => Self::parse(text.expose()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = fresh_line(1)?;
                create_private(path, text.expose())?;
                Self::parse(text.expose())
            }
            Err(error) => Err(error),
        }
    }

    /// A sealer whose key dies with it: for a store in memory.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn ephemeral() -> io::Result<Self> {
        Self::parse(fresh_line(1)?.expose())
    }

    /// Adds a key to the file and returns a sealer that seals with it and opens with all.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub fn rotate(path: &Path) -> io::Result<Self> {
        let old = Self::open(path)?;
        let mut text = read_private(path)?.expose().clone();
        text.push_str(fresh_line(old.current.saturating_add(1))?.expose());
        let text = Secret::new(text);
        let beside = path.with_extension("new");
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => create_private(&beside, text.expose())?,
        }
        std::fs::rename(&beside, path)?;
        Self::parse(text.expose())
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut keys = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (id, key) = parse_line(line).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "the seal key file is damaged")
            })?;
            keys.insert(id, key);
        }
        let current = keys.keys().next_back().copied().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the seal key file holds no key")
        })?;
        Ok(Self { keys, current })
    }

    /// Seals a text that belongs to `owner`.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn seal(&self, owner: &str, text: &str) -> Result<Vec<u8>, SealError> {
        let key = self.keys.get(&self.current).ok_or(SealError)?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SealError)?;
        let mut body = text.as_bytes().to_vec();
        let aad = Aad::from(owner.as_bytes());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .map_err(|_| SealError)?;
        let mut sealed = Vec::with_capacity(1 + 4 + NONCE_LEN + body.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.current.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what was sealed for `owner`.
    ///
    /// # Errors
    /// When the key is not at hand, the owner is another, or the value is damaged.
    pub fn open_sealed(&self, owner: &str, sealed: &[u8]) -> Result<Secret<String>, SealError> {
        let (id, rest) = key_id(sealed).ok_or(SealError)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let key = self.keys.get(&id).ok_or(SealError)?;
        let mut body = body.to_vec();
        let aad = Aad::from(owner.as_bytes());
        let text = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body)
            .map_err(|_| SealError)
            .and_then(|text| std::str::from_utf8(text).map_err(|_| SealError))
            .map(Secret::from);
        body.wipe();
        text
    }

    /// Whether a value is sealed with an older key than the current one.
    #[must_use]
    pub fn is_stale(&self, sealed: &[u8]) -> bool {
        key_id(sealed).is_none_or(|(id, _)| id != self.current)
    }
}

fn key_id(sealed: &[u8]) -> Option<(u32, &[u8])> {
    let (format, rest) = sealed.split_first()?;
    let (id, rest) = rest.split_first_chunk::<4>()?;
    (*format == FORMAT).then(|| (u32::from_be_bytes(*id), rest))
}

fn parse_line(line: &str) -> Option<(u32, LessSafeKey)> {
    let (id, key) = line.split_once(' ')?;
    let mut bytes = STANDARD.decode(key.trim()).ok()?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes).ok();
    bytes.wipe();
    Some((id.parse().ok()?, LessSafeKey::new(key?)))
}

fn fresh_line(id: u32) -> io::Result<Secret<String>> {
    let mut key = [0_u8; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    let mut line = String::new();
    let written = writeln!(line, "{id} {}", STANDARD.encode(key));
    key.wipe();
    written.map(|()| Secret::new(line)).map_err(io::Error::other)
}

#[cfg(unix)]
fn read_private(path: &Path) -> io::Result<Secret<String>> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        let message = format!("{} can be read by others: chmod 600 it", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    std::fs::read_to_string(path).map(Secret::new)
}

#[cfg(not(unix))]
fn read_private(path: &Path) -> io::Result<Secret<String>> {
    std::fs::read_to_string(path).map(Secret::new)
}

fn create_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn scratch() -> std::path::PathBuf {
        let name = format!("trunkline-seal-{}", uuid::Uuid::new_v4());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn what_is_sealed_opens_for_its_owner_only() {
        let sealer = Sealer::ephemeral().unwrap();
        let sealed = sealer.seal("trunk:a", "hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(sealer.open_sealed("trunk:a", &sealed).unwrap().expose(), "hunter2");
        assert_eq!(sealer.open_sealed("trunk:b", &sealed), Err(SealError));
    }

    #[test]
    fn damage_anywhere_does_not_open_and_does_not_panic() {
        let sealer = Sealer::ephemeral().unwrap();
        let sealed = sealer.seal("o", "hunter2").unwrap();
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(sealer.open_sealed("o", &damaged), Err(SealError));
            assert_eq!(sealer.open_sealed("o", &sealed[..at]), Err(SealError));
        }
    }

    #[test]
    fn the_same_text_never_seals_to_the_same_bytes() {
        let sealer = Sealer::ephemeral().unwrap();
        assert_ne!(sealer.seal("o", "x").unwrap(), sealer.seal("o", "x").unwrap());
    }

    #[test]
    fn the_key_file_is_made_once_and_private() {
        let path = scratch();
        let sealed = Sealer::open(&path).unwrap().seal("o", "x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Sealer::open(&path).unwrap();
        assert_eq!(again.open_sealed("o", &sealed).unwrap().expose(), "x");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Sealer::open(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_rotated_key_file_opens_the_old_and_seals_with_the_new() {
        let path = scratch();
        let old = Sealer::open(&path).unwrap();
        let sealed = old.seal("o", "x").unwrap();
        let new = Sealer::rotate(&path).unwrap();
        assert!(new.is_stale(&sealed));
        assert_eq!(new.open_sealed("o", &sealed).unwrap().expose(), "x");
        let fresh = new.seal("o", "x").unwrap();
        assert!(!new.is_stale(&fresh));
        assert_eq!(old.open_sealed("o", &fresh), Err(SealError));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_damaged_key_file_is_an_error() {
        for text in ["", "1", "1 AAAA", "x AAAA"] {
            assert_eq!(Sealer::parse(text).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
