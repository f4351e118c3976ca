//! Maps and lists of which the next one shares all that it does not change.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::snapshot::NumberRoute;

/// Parts of a map. With 100,000 entries a change copies 200 of them, and 512 pointers.
const SHARDS: usize = 512;

/// Which bits of a hash say the shard: not those by which the map within finds its place (the lowest
/// and the highest ones), or all entries of a shard would be crowded together there.
const SHARD_BITS_FROM: u32 = 32;

/// A hash map in parts: a clone costs a pointer for each, and a change of the clone copies one.
#[derive(Debug, Clone)]
pub(super) struct Shards<K, V> {
    shards: Vec<Arc<HashMap<K, V>>>,
    hasher: RandomState,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS], hasher: RandomState::new(), len: 0 }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.shard(key))?.get(key)
    }

    /// All values, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    /// Puts a value in the place of the one there may be, or nothing.
    pub(super) fn set(&mut self, key: K, value: Option<V>) {
        match value {
            Some(value) => drop(self.insert(key, value)),
            None => drop(self.remove(&key)),
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.shard(&key);
        let old = Arc::make_mut(self.shards.get_mut(shard)?).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard(key);
        let shard = self.shards.get_mut(shard)?;
        if !shard.contains_key(key) {
            return None; // and nothing is copied
        }
        self.len -= 1;
        Arc::make_mut(shard).remove(key)
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        let bits = self.hasher.hash_one(key) >> SHARD_BITS_FROM;
        usize::try_from(bits).unwrap_or_default() % SHARDS
    }
}

impl<K: Hash + Eq + Clone, T: Clone + PartialEq> Shards<K, Vec<T>> {
    /// Adds to the list of a key.
    pub(super) fn add(&mut self, key: K, item: T) {
        let mut list = self.remove(&key).unwrap_or_default();
        list.push(item);
        self.insert(key, list);
    }

    /// Removes from the list of a key, and the list with its last item.
    pub(super) fn take_out(&mut self, key: K, item: &T) {
        let Some(mut list) = self.remove(&key) else { return };
        list.retain(|one| one != item);
        if !list.is_empty() {
            self.insert(key, list);
        }
    }
}

/// Numbers at most in a chunk of a list.
const CHUNK: usize = 512;

/// The numbers of one organisation, oldest first: a change of a clone copies one chunk.
#[derive(Debug, Clone, Default)]
pub(super) struct NumberList {
    /// None is empty.
    chunks: Vec<Arc<Vec<Arc<NumberRoute>>>>,
}

impl NumberList {
    pub(super) fn iter(&self) -> impl Iterator<Item = &NumberRoute> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(Arc::as_ref)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn insert(&mut self, route: Arc<NumberRoute>) {
        let at = self.chunk_of(route.created_at).min(self.chunks.len().saturating_sub(1));
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![route]));
            return;
        };
        let chunk = Arc::make_mut(chunk);
        let place = chunk.partition_point(|one| one.created_at < route.created_at);
        chunk.insert(place, route);
        if chunk.len() > CHUNK {
            // Numbers mostly come at the end: a full chunk there stays full.
            let from = if place + 1 == chunk.len() { CHUNK } else { CHUNK / 2 };
            let rest = chunk.split_off(from);
            self.chunks.insert(at + 1, Arc::new(rest));
        }
    }

    /// Removes the number that was registered then: no two were at once.
    pub(super) fn remove(&mut self, created_at: Timestamp) {
        let at = self.chunk_of(created_at);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let chunk = Arc::make_mut(chunk);
        chunk.retain(|one| one.created_at != created_at);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
    }

    /// The chunk that holds a moment, if one does.
    fn chunk_of(&self, at: Timestamp) -> usize {
        let ends_before = |chunk: &Arc<Vec<Arc<NumberRoute>>>| {
            chunk.last().is_some_and(|last| last.created_at < at)
        };
        self.chunks.partition_point(ends_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OrganisationId, TrunkId};

    #[test]
    fn a_clone_that_changes_leaves_the_original_as_it_was() {
        let mut map = Shards::default();
        for number in 0..5_000_u32 {
            assert_eq!(map.insert(number, number), None);
        }
        let before = map.clone();
        assert_eq!(map.remove(&7), Some(7));
        assert_eq!(map.insert(8, 80), Some(8));
        assert_eq!((map.get(&7), map.get(&8), map.len()), (None, Some(&80), 4_999));
        assert_eq!((before.get(&7), before.get(&8), before.len()), (Some(&7), Some(&8), 5_000));
        let shared = map.shards.iter().zip(&before.shards).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert!(shared.count() >= SHARDS - 2);
        assert_eq!(map.remove(&7), None);
    }

    #[test]
    fn entries_are_spread_over_the_shards() {
        let mut map = Shards::default();
        for number in 0..51_200_u32 {
            map.insert(number, ());
        }
        let fullest = map.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(fullest < 200, "{fullest} of 100");
    }

    #[test]
    fn lists_in_a_map_grow_and_vanish() {
        let mut map = Shards::default();
        map.add("a", 1);
        map.add("a", 2);
        assert_eq!(map.get("a"), Some(&vec![1, 2]));
        map.take_out("a", &1);
        map.take_out("a", &2);
        map.take_out("a", &3);
        assert_eq!((map.get("a"), map.len()), (None, 0));
    }

    fn route(created_at: i64) -> Arc<NumberRoute> {
        Arc::new(NumberRoute {
            number: created_at.to_string().into(),
            organization_id: OrganisationId::random(),
            trunk_id: TrunkId::random(),
            inbound_version: None,
            outbound_version: None,
            outbound_shareable: false,
            created_at: Timestamp::from_micros(created_at),
        })
    }

    #[test]
    fn numbers_stay_in_order_however_they_come_and_go() {
        let mut list = NumberList::default();
        // 7 and 4,001 have no common factor: every moment once, in no order.
        for step in 0..4_001 {
            list.insert(route(step * 7 % 4_001));
        }
        assert!(list.iter().map(|one| one.created_at.micros()).eq(0..4_001));
        let before = list.clone();
        for gone in (0..4_001).filter(|at| at % 3 != 0) {
            list.remove(Timestamp::from_micros(gone));
        }
        list.remove(Timestamp::from_micros(9_999));
        assert!(list.iter().map(|one| one.created_at.micros()).eq((0..4_001).step_by(3)));
        assert_eq!(before.iter().count(), 4_001);
        for gone in (0..4_001).step_by(3) {
            list.remove(Timestamp::from_micros(gone));
        }
        assert!(list.is_empty());
    }
}
