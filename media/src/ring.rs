//! A bounded ring between one producer thread and one consumer thread, without locks.
//!
//! Positions run from 0 upwards and never wrap: `head` is the position of the oldest record that is
//! still there, `tail` the position the next one will get. Both sides may move `head` forward: the
//! consumer by taking a record, the producer by dropping the oldest ones. Each does it by
//! compare-and-exchange, so a record is either taken or dropped, never both.
//!
//! ```text
//!          head                tail
//!            ▼                   ▼
//!   ┌───┬───┬───┬───┬───┬───┬───┬───┐      producer: write slot[tail], then publish tail + 1
//!   │   │   │ 9 │10 │11 │12 │13 │   │      consumer: read slot[head], then claim head + 1;
//!   └───┴───┴───┴───┴───┴───┴───┴───┘                if the claim fails, what was read is thrown away
//! ```
//!
//! The slots are words that may be read and written at the same time. A read that raced with an
//! overwrite may be torn, but then its claim on `head` has failed and nobody sees it. That is the
//! invariant that lets this file do without `unsafe`.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::FRAME_SAMPLES;

/// Words of one record: a tag, and 20 ms of samples packed four to a word.
pub(crate) const RECORD_WORDS: usize = 1 + FRAME_SAMPLES / 4;

/// One record as it lies in a slot.
pub(crate) type Words = [u64; RECORD_WORDS];

/// What a ring can carry: something that packs into a fixed number of words.
pub(crate) trait Record: Sized {
    /// Writes the record into `words`; words it does not need are left as they are.
    fn pack(&self, words: &mut Words);
    /// Reads back what [`Record::pack`] wrote.
    fn unpack(words: &Words) -> Self;
}

/// A ring of `capacity` records (at least one), seen from its two ends.
pub(crate) fn ring<T: Record>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let shared = Arc::new(Shared {
        slots: (0..capacity.max(1)).map(|_| Slot::default()).collect(),
        head: Position::default(),
        tail: Position::default(),
    });
    let producer = Producer { shared: Arc::clone(&shared), record: PhantomData };
    (producer, Consumer { shared, record: PhantomData })
}

/// The end that writes.
pub(crate) struct Producer<T> {
    shared: Arc<Shared>,
    record: PhantomData<fn(T)>,
}

impl<T: Record> Producer<T> {
    /// Appends `record`, or hands it back when the ring is full.
    pub(crate) fn push(&mut self, record: T) -> Result<(), T> {
        if self.room() == 0 {
            return Err(record);
        }
        self.shared.write(&record);
        Ok(())
    }

    /// Appends `record`; when the ring is full the oldest record makes way. Returns how many did.
    pub(crate) fn push_over(&mut self, record: T) -> u64 {
        let tail = self.shared.tail.load();
        let keep = self.shared.capacity() - 1;
        let dropped = self.shared.drop_before(tail.saturating_sub(keep));
        self.shared.write(&record);
        dropped
    }

    /// Drops everything pushed so far and returns how many records that were.
    ///
    /// When this returns, the consumer can no longer take any of them.
    pub(crate) fn clear(&mut self) -> u64 {
        self.shared.drop_before(self.shared.tail.load())
    }

    /// Records that can be pushed before the ring is full. It can only grow behind our back.
    pub(crate) fn room(&self) -> u64 {
        self.shared.capacity() - self.shared.len()
    }

    /// Position of the next record to be pushed: how many were ever pushed.
    pub(crate) fn tail(&self) -> u64 {
        self.shared.tail.load()
    }

    /// Position of the next record to be taken: everything before it was taken or dropped.
    pub(crate) fn head(&self) -> u64 {
        self.shared.head.load()
    }

    /// True once the consumer is gone for good.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) < 2
    }
}

/// The end that reads.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared>,
    record: PhantomData<fn() -> T>,
}

impl<T: Record> Consumer<T> {
    /// Takes the oldest record.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let mut words = [0; RECORD_WORDS];
        loop {
            let head = self.shared.head.load();
            if head >= self.shared.tail.load() {
                return None;
            }
            self.shared.slot(head).read(&mut words);
            if self.shared.head.claim(head, head + 1) {
                return Some(T::unpack(&words));
            }
        }
    }

    /// Records waiting right now.
    pub(crate) fn len(&self) -> u64 {
        self.shared.len()
    }
}

struct Shared {
    slots: Box<[Slot]>,
    head: Position,
    tail: Position,
}

impl Shared {
    fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    fn len(&self) -> u64 {
        // Head first: the tail read after it can only be further on, never behind it.
        let head = self.head.load();
        self.tail.load().saturating_sub(head).min(self.capacity())
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of slots")]
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below a usize")]
    fn slot(&self, position: u64) -> &Slot {
        &self.slots[(position % self.capacity()) as usize]
    }

    /// Producer only: the slot at the tail is free because there is room.
    fn write<T: Record>(&self, record: &T) {
        let tail = self.tail.load();
        self.slot(tail).write(record);
        self.tail.0.store(tail + 1, Ordering::Release);
    }

    /// Moves the head up to `position` unless it is there already.
    fn drop_before(&self, position: u64) -> u64 {
        loop {
            let head = self.head.load();
            if head >= position {
                return 0;
            }
            if self.head.claim(head, position) {
                return position - head;
            }
        }
    }
}

/// A position on a cache line of its own, so that the two threads do not slow each other down.
#[derive(Default)]
#[repr(align(64))]
struct Position(AtomicU64);

impl Position {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn claim(&self, from: u64, to: u64) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

struct Slot([AtomicU64; RECORD_WORDS]);

impl Default for Slot {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; RECORD_WORDS])
    }
}

impl Slot {
    fn write<T: Record>(&self, record: &T) {
        let mut words = [0; RECORD_WORDS];
        record.pack(&mut words);
        for (cell, word) in self.0.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    fn read(&self, words: &mut Words) {
        for (word, cell) in words.iter_mut().zip(&self.0) {
            *word = cell.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record that shows tearing: every word holds the same number.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Numbered(u64);

    impl Record for Numbered {
        fn pack(&self, words: &mut Words) {
            words.fill(self.0);
        }

        fn unpack(words: &Words) -> Self {
            assert!(words.iter().all(|word| *word == words[0]), "torn record");
            Self(words[0])
        }
    }

    #[test]
    fn a_full_ring_hands_the_record_back() {
        let (mut producer, mut consumer) = ring(2);
        assert_eq!(producer.push(Numbered(1)), Ok(()));
        assert_eq!(producer.push(Numbered(2)), Ok(()));
        assert_eq!(producer.push(Numbered(3)), Err(Numbered(3)));
        assert_eq!(consumer.pop(), Some(Numbered(1)));
        assert_eq!(producer.push(Numbered(3)), Ok(()));
        assert_eq!(producer.room(), 0);
    }

    #[test]
    fn pushing_over_drops_the_oldest() {
        let (mut producer, mut consumer) = ring(2);
        let dropped: u64 = (1..=5).map(|n| producer.push_over(Numbered(n))).sum();
        assert_eq!(dropped, 3);
        assert_eq!(consumer.pop(), Some(Numbered(4)));
        assert_eq!(consumer.pop(), Some(Numbered(5)));
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn a_cleared_record_cannot_be_taken() {
        let (mut producer, mut consumer) = ring(8);
        for n in 0..5 {
            assert_eq!(producer.push(Numbered(n)), Ok(()));
        }
        assert_eq!(consumer.pop(), Some(Numbered(0)));
        assert_eq!(producer.clear(), 4);
        assert_eq!((producer.head(), producer.tail()), (5, 5));
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.push(Numbered(9)), Ok(()));
        assert_eq!(consumer.pop(), Some(Numbered(9)));
    }

    #[test]
    fn the_producer_notices_that_the_consumer_is_gone() {
        let (producer, consumer) = ring::<Numbered>(1);
        assert!(!producer.is_abandoned());
        drop(consumer);
        assert!(producer.is_abandoned());
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_bounded_queue(
            capacity in 1_usize..6,
            steps in proptest::collection::vec(0_u8..4, 0..200),
        ) {
            let (mut producer, mut consumer) = ring(capacity);
            let mut model = std::collections::VecDeque::new();
            for (n, step) in steps.into_iter().enumerate() {
                let n = n as u64;
                match step {
                    0 if model.len() == capacity => prop_assert!(producer.push(Numbered(n)).is_err()),
                    0 => {
                        prop_assert!(producer.push(Numbered(n)).is_ok());
                        model.push_back(Numbered(n));
                    }
                    1 => {
                        let dropped = u64::from(model.len() == capacity);
                        if dropped == 1 {
                            model.pop_front();
                        }
                        prop_assert_eq!(producer.push_over(Numbered(n)), dropped);
                        model.push_back(Numbered(n));
                    }
                    2 => prop_assert_eq!(consumer.pop(), model.pop_front()),
                    _ => {
                        prop_assert_eq!(producer.clear(), model.len() as u64);
                        model.clear();
                    }
                }
                prop_assert_eq!(consumer.len(), model.len() as u64);
                prop_assert_eq!(producer.room(), (capacity - model.len()) as u64);
            }
        }
    }

    #[test]
    fn two_threads_never_see_a_torn_or_repeated_record() {
        const RECORDS: u64 = 20_000;
        let (mut producer, mut consumer) = ring(3);
        let writer = std::thread::spawn(move || {
            (1..=RECORDS).map(|n| producer.push_over(Numbered(n))).sum::<u64>()
        });
        let (mut last, mut taken) = (0, 0);
        while last < RECORDS {
            if let Some(Numbered(n)) = consumer.pop() {
                assert!(n > last, "{n} came after {last}");
                last = n;
                taken += 1;
            } else {
                std::thread::yield_now();
            }
        }
        assert_eq!(taken + writer.join().unwrap(), RECORDS);
    }
}
