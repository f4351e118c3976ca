//! One bell for many doors: which of many ports has something, without asking each of them.
//!
//! ```text
//!   port 3  ── knock ─► ┌ doors ───────┐
//!   port 70 ── knock ─► │ …0100 …1000… │ ── bell, once per 64 doors ──► whoever serves them all
//!                       └──────────────┘ ◄── answer: takes the doors knocked at, 64 at a time
//! ```
//!
//! A knock sets the port's bit; only one that finds none of its word set rings the bell, because
//! whoever set the others has rung it and nobody has come yet. So many knocks at about the same time
//! cost one wake-up, and no knock is ever lost: the bit is there before the bell rings. Doors are
//! numbered again for later tenants, so an answer is a reason to look, never a promise.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::worker::sys::Bell;

/// Knocked at by any thread, answered by one.
pub(crate) struct Doorbell {
    bell: Bell,
    doors: Box<[AtomicU64]>,
}

impl Doorbell {
    /// A bell for doors 0 up to `doors`.
    pub(crate) fn new(doors: usize) -> io::Result<Self> {
        let words = doors.div_ceil(DOORS_PER_WORD);
        Ok(Self { bell: Bell::new()?, doors: (0..words).map(|_| AtomicU64::new(0)).collect() })
    }

    /// Says that there is something at `door`; a door that does not exist is nobody's.
    pub(crate) fn knock(&self, door: usize) {
        let Some(word) = self.doors.get(door / DOORS_PER_WORD) else { return };
        let bit = 1 << (door % DOORS_PER_WORD);
        if word.fetch_or(bit, Ordering::AcqRel) == 0 {
            self.bell.ring();
        }
    }

    /// Gives the doors knocked at since the last time to `open`, lowest first within each word.
    pub(crate) fn answer(&self, mut open: impl FnMut(usize)) {
        for (at, word) in self.doors.iter().enumerate() {
            // Most words are empty, and a read leaves their cache lines where they are.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut knocked = word.swap(0, Ordering::AcqRel);
            while knocked != 0 {
                open(at * DOORS_PER_WORD + knocked.trailing_zeros() as usize);
                knocked &= knocked - 1;
            }
        }
    }
}

impl AsFd for Doorbell {
    /// Becomes readable with every ring; to be watched for that edge, and never read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

const DOORS_PER_WORD: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::sys::{Poller, Ready};

    fn answered(bell: &Doorbell) -> Vec<usize> {
        let mut doors = Vec::new();
        bell.answer(|door| doors.push(door));
        doors
    }

    #[test]
    fn every_door_knocked_at_is_answered_once() {
        let bell = Doorbell::new(130).unwrap();
        for door in [129, 0, 63, 64, 0, 5, 1_000] {
            bell.knock(door);
        }
        assert_eq!(answered(&bell), [0, 5, 63, 64, 129]);
        assert_eq!(answered(&bell), [0; 0]);
    }

    #[test]
    fn it_rings_for_the_first_knock_after_an_answer_and_is_not_read() {
        let bell = Doorbell::new(64).unwrap();
        let (poller, mut ready) = (Poller::new().unwrap(), Ready::new());
        poller.add_edge(bell.as_fd(), 1).unwrap();
        let mut rings = || {
            poller.poll(&mut ready).unwrap();
            ready.tokens().count()
        };
        bell.knock(1);
        bell.knock(2);
        assert_eq!((rings(), rings()), (1, 0));
        bell.knock(3);
        assert_eq!(rings(), 0, "nobody has come for the first two yet");
        assert_eq!(answered(&bell), [1, 2, 3]);
        bell.knock(1);
        assert_eq!(rings(), 1);
    }

    #[test]
    fn no_knock_is_lost_between_threads() {
        const KNOCKS: usize = 20_000;
        let bell = Doorbell::new(3).unwrap();
        let knocked: [AtomicU64; 3] = Default::default();
        let knock_at = |door: usize| {
            for _ in 0..KNOCKS {
                knocked[door].fetch_add(1, Ordering::Relaxed);
                bell.knock(door);
            }
        };
        std::thread::scope(|scope| {
            for door in 0..knocked.len() {
                scope.spawn(move || knock_at(door));
            }
            let mut seen = [0; 3];
            while seen != [KNOCKS as u64; 3] {
                bell.answer(|door| seen[door] = knocked[door].load(Ordering::Relaxed));
                std::thread::yield_now();
            }
        });
    }
}
