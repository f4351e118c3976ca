//! Exact keys to handles, hashed under a secret so that no peer can make them collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// From a key's bytes to a handle.
pub(super) struct Table<Handle> {
    entries: HashMap<Box<[u8]>, Handle, Keyed>,
}

/// SipHash that has swallowed a secret first.
#[derive(Clone, Copy)]
pub(super) struct Keyed(u128);

impl Keyed {
    /// By this secret.
    pub(super) const fn by(key: u128) -> Keyed {
        Keyed(key)
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u128(self.0);
        hasher
    }
}

impl<Handle: Copy + PartialEq> Table<Handle> {
    /// An empty table under the secret `key`.
    pub(super) fn new(key: u128) -> Table<Handle> {
        Table { entries: HashMap::with_hasher(Keyed(key)) }
    }

    /// The handle under `key`.
    pub(super) fn find(&self, key: &[u8]) -> Option<Handle> {
        self.entries.get(key).copied()
    }

    /// Puts `handle` under `key`, in the place of any other.
    pub(super) fn put(&mut self, key: Box<[u8]>, handle: Handle) {
        self.entries.insert(key, handle);
    }

    /// Removes `key` if it still leads to `handle`.
    pub(super) fn remove(&mut self, key: &[u8], handle: Handle) {
        if self.find(key) == Some(handle) {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_removed_only_by_the_handle_it_leads_to() {
        let mut table = Table::new(7);
        table.put(Box::from(*b"k"), 1);
        table.put(Box::from(*b"k"), 2);
        table.remove(b"k", 1);
        assert_eq!(table.find(b"k"), Some(2));
        table.remove(b"k", 2);
        assert_eq!(table.find(b"k"), None);
    }
}
