//! A board of many places: which of them have something, without asking each.
//!
//! A place is marked by any thread and its mark taken by one. Places are given to others later, so a mark is a
//! reason to look, never a promise.

use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each place.
#[derive(Debug)]
pub struct Board {
    words: Box<[AtomicU64]>,
}

impl Board {
    /// A board with places 0 up to `places`, none of them marked.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let words = places.div_ceil(PLACES_PER_WORD);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Marks a place. True if none of its neighbours was marked: then nobody has been called to look
    /// at them yet. A place that does not exist is nobody's.
    pub fn mark(&self, place: usize) -> bool {
        let Some(word) = self.words.get(place / PLACES_PER_WORD) else { return false };
        let bit = 1 << (place % PLACES_PER_WORD);
        word.fetch_or(bit, Ordering::AcqRel) == 0
    }

    /// Takes all marks and gives their places to `look`, lowest first.
    pub fn take(&self, mut look: impl FnMut(usize)) {
        for (at, word) in self.words.iter().enumerate() {
            // Most words are empty, and a read leaves their cache lines where they are.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut marked = word.swap(0, Ordering::AcqRel);
            while marked != 0 {
                look(at * PLACES_PER_WORD + marked.trailing_zeros() as usize);
                marked &= marked - 1;
            }
        }
    }
}

const PLACES_PER_WORD: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(board: &Board) -> Vec<usize> {
        let mut places = Vec::new();
        board.take(|place| places.push(place));
        places
    }

    #[test]
    fn every_marked_place_is_taken_once_in_order() {
        let board = Board::new(130);
        for place in [129, 0, 63, 64, 0, 5, 1_000] {
            board.mark(place);
        }
        assert_eq!(taken(&board), [0, 5, 63, 64, 129]);
        assert_eq!(taken(&board), [0; 0]);
    }

    #[test]
    fn the_first_mark_among_neighbours_says_so() {
        let board = Board::new(128);
        assert_eq!([3, 3, 4, 64].map(|place| board.mark(place)), [true, false, false, true]);
        assert_eq!(taken(&board), [3, 4, 64]);
        assert!(board.mark(4));
        assert!(!board.mark(9_999), "nobody is there");
    }

    #[test]
    fn no_mark_is_lost_between_threads() {
        const MARKS: usize = 20_000;
        let board = Board::new(3);
        let marked: [AtomicU64; 3] = Default::default();
        let mark = |place: usize| {
            for _ in 0..MARKS {
                marked[place].fetch_add(1, Ordering::Relaxed);
                board.mark(place);
            }
        };
        std::thread::scope(|scope| {
            for place in 0..marked.len() {
                scope.spawn(move || mark(place));
            }
            let mut seen = [0; 3];
            while seen != [MARKS as u64; 3] {
                board.take(|place| seen[place] = marked[place].load(Ordering::Relaxed));
                std::thread::yield_now();
            }
        });
    }
}
