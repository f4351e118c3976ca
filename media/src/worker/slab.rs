//! Where a worker keeps its sessions: a slab whose keys cannot be mistaken for a later tenant's.

use super::sys;

/// Names one tenancy of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlabKey {
    index: u32,
    generation: u32,
}

impl SlabKey {
    /// Packs the key into 62 bits; see [`SlabKey::from_bits`].
    pub(crate) fn to_bits(self) -> u64 {
        (u64::from(self.generation & GENERATION_MASK) << 32) | u64::from(self.index)
    }

    /// The slot, below the limit of its slab.
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// The key that [`SlabKey::to_bits`] packed.
    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 & GENERATION_MASK }
    }
}

/// Up to `limit` values; the slot of a removed one is used again under a new generation.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
}

/// In a cache line of its own: of hundreds of tenants one is wanted at a time.
#[repr(align(64))]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    /// Stores `value`, or hands it back when `limit` values are stored.
    pub(crate) fn insert(&mut self, value: T) -> Result<SlabKey, T> {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.value = Some(value);
            return Ok(SlabKey { index, generation: slot.generation });
        }
        match u32::try_from(self.slots.len()) {
            Ok(index) if self.slots.len() < self.limit => {
                self.slots.push(Slot { generation: 0, value: Some(value) });
                Ok(SlabKey { index, generation: 0 })
            }
            _ => Err(value),
        }
    }

    pub(crate) fn get(&self, key: SlabKey) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, key: SlabKey) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// Has the processor fetch the value of a key, which will be wanted soon.
    pub(crate) fn fetch(&self, key: SlabKey) {
        if let Some(slot) = self.slots.get(key.index as usize) {
            sys::prefetch(slot, size_of::<Slot<T>>());
        }
    }

    pub(crate) fn remove(&mut self, key: SlabKey) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(value)
    }

    /// How many slots there are, in use or not: the bound for [`Slab::key_at`].
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The key of the value in slot `index`, if there is one.
    pub(crate) fn key_at(&self, index: usize) -> Option<SlabKey> {
        let slot = self.slots.get(index).filter(|slot| slot.value.is_some())?;
        Some(SlabKey { index: u32::try_from(index).ok()?, generation: slot.generation })
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Generations have 30 bits, so that a key leaves two bits of a word to its user.
const GENERATION_MASK: u32 = u32::MAX >> 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_does_not_reach_the_next_tenant() {
        let mut slab = Slab::new(8);
        let old = slab.insert('a').unwrap();
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b').unwrap();
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get_mut(new), Some(&mut 'b'));
        assert_eq!((slab.len(), slab.slots()), (1, 1));
    }

    #[test]
    fn the_limit_hands_the_value_back() {
        let mut slab = Slab::new(1);
        assert!(slab.insert('a').is_ok());
        assert_eq!(slab.insert('b'), Err('b'));
    }

    #[test]
    fn keys_survive_being_packed() {
        for (index, generation) in [(0, 0), (u32::MAX, GENERATION_MASK), (7, 9)] {
            let key = SlabKey { index, generation };
            assert_eq!(SlabKey::from_bits(key.to_bits()), key);
            assert_eq!(key.to_bits() >> 62, 0);
        }
    }

    #[test]
    fn walking_the_slots_finds_every_value_once() {
        let mut slab = Slab::new(8);
        let keys: Vec<_> = (0..5).map(|n| slab.insert(n).unwrap()).collect();
        slab.remove(keys[1]);
        slab.remove(keys[4]);
        let found: Vec<_> = (0..slab.slots()).filter_map(|at| slab.key_at(at)).collect();
        assert_eq!(found, [keys[0], keys[2], keys[3]]);
    }
}
