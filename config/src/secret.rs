//! Values that must not be seen: passwords, tokens, keys.
//!
//! Invariant: a [`Secret`] prints as `***`, cannot be serialised, and overwrites its memory when it is
//! dropped. Whoever needs the value says so by calling [`Secret::expose`].

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A value whose memory can be overwritten in place.
pub trait Wipe {
    /// Overwrites the value so that no copy of it remains in this memory.
    fn wipe(&mut self);
}

impl Wipe for String {
    fn wipe(&mut self) {
        std::mem::take(self).into_bytes().wipe();
    }
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        self.fill(0);
        // The reader the optimiser cannot see through keeps the stores above alive.
        std::hint::black_box(self.as_slice());
    }
}

impl<const N: usize> Wipe for [u8; N] {
    fn wipe(&mut self) {
        self.fill(0);
        std::hint::black_box(self.as_slice());
    }
}

/// A secret: not printable, not serialisable, overwritten on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Wipe>(T);

impl<T: Wipe> Secret<T> {
    /// Takes charge of a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Keep it out of logs, errors and replies.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

impl<'de, T: Wipe + Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn wiping_overwrites_every_byte() {
        let mut bytes = b"hunter2".to_vec();
        bytes.wipe();
        assert_eq!(bytes, [0; 7]);
        let mut key = [7_u8; 32];
        key.wipe();
        assert_eq!(key, [0; 32]);
    }
}
