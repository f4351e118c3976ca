//! A bounded store whose handles notice that what they named is gone.
//!
//! Each place counts how often it was used; a handle carries the count it was made with, so a stale
//! handle finds nothing instead of somebody else's entry.

use std::marker::PhantomData;

/// Names an entry of a [`Slab`].
pub(super) struct Id<T> {
    index: u32,
    generation: u32,
    kind: PhantomData<fn() -> T>,
}

/// Entries in reused places, at most as many as `capacity`.
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    capacity: usize,
}

struct Place<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Slab<T> {
    /// An empty store for at most `capacity` entries; memory grows with use.
    pub(super) fn new(capacity: usize) -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new(), capacity }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether another entry would be refused.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Stores `entry`; `None` when the store is full.
    pub(super) fn insert(&mut self, entry: T) -> Option<Id<T>> {
        if self.is_full() {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.places.len()).ok()?;
                self.places.push(Place { generation: 0, entry: None });
                index
            }
        };
        let place = self.place_mut(index)?;
        place.entry = Some(entry);
        Some(Id { index, generation: place.generation, kind: PhantomData })
    }

    /// The entry `id` names, unless it is gone.
    pub(super) fn get(&self, id: Id<T>) -> Option<&T> {
        let place = self.places.get(usize::try_from(id.index).ok()?)?;
        place.entry.as_ref().filter(|_| place.generation == id.generation)
    }

    /// The entry `id` names, to change it.
    pub(super) fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let place = self.place_mut(id.index)?;
        let current = place.generation == id.generation;
        place.entry.as_mut().filter(|_| current)
    }

    /// Takes the entry out; its handle is stale from now on.
    pub(super) fn remove(&mut self, id: Id<T>) -> Option<T> {
        let place = self.place_mut(id.index).filter(|place| place.generation == id.generation)?;
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(entry)
    }

    /// The handles of all entries, in the order of their places.
    pub(super) fn ids(&self) -> impl Iterator<Item = Id<T>> + '_ {
        self.places
            .iter()
            .zip(0u32..)
            .filter(|(place, _)| place.entry.is_some())
            .map(|(place, index)| Id { index, generation: place.generation, kind: PhantomData })
    }

    fn place_mut(&mut self, index: u32) -> Option<&mut Place<T>> {
        self.places.get_mut(usize::try_from(index).ok()?)
    }
}

// Derived impls would ask the same of `T`.
impl<T> Clone for Id<T> {
    fn clone(&self) -> Id<T> {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Id<T>) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Id<T> {}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Id<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Id<T>) -> std::cmp::Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}

impl<T> std::hash::Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}

impl<T> std::fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_handle_finds_nothing_in_a_reused_place() {
        let mut slab = Slab::new(4);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b').unwrap();
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_ne!(first, second);
    }

    #[test]
    fn a_full_slab_refuses_and_takes_again_after_a_removal() {
        let mut slab = Slab::new(2);
        let ids: Vec<_> = (0..3).map(|n| slab.insert(n)).collect();
        assert!(ids[2].is_none() && slab.is_full());
        slab.remove(ids[0].unwrap());
        assert_eq!(slab.len(), 1);
        assert!(slab.insert(9).is_some());
        assert_eq!(slab.ids().count(), 2);
    }
}
