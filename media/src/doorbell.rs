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

use crate::board::Board;
use crate::worker::sys::Bell;

/// Knocked at by any thread, answered by one.
pub(crate) struct Doorbell {
    bell: Bell,
    doors: Board,
}

impl Doorbell {
    /// A bell for doors 0 up to `doors`.
    pub(crate) fn new(doors: usize) -> io::Result<Self> {
        Ok(Self { bell: Bell::new()?, doors: Board::new(doors) })
    }

    /// Says that there is something at `door`; a door that does not exist is nobody's.
    pub(crate) fn knock(&self, door: usize) {
        if self.doors.mark(door) {
            self.bell.ring();
        }
    }

    /// Gives the doors knocked at since the last time to `open`, lowest first.
    pub(crate) fn answer(&self, open: impl FnMut(usize)) {
        self.doors.take(open);
    }
}

impl AsFd for Doorbell {
    /// Becomes readable with every ring; to be watched for that edge, and never read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

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
}
