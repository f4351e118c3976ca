//! Where the packets of another stream come to lie in ours: what a relay changes in their numbers.
//!
//! ```text
//!   theirs   … 100 101  ×  103 …  SSRC a          7  8 …  SSRC b
//!                │   │       │                    │  │
//!   ours     …  41  42  ×   44 …  one SSRC       45 46 …  marker on 45
//! ```
//!
//! A number that is lost on their side is missing on ours too, so that the receiver conceals and
//! reports what was really lost. Another source, or a jump that is no loss, begins a new mapping
//! right behind the last packet we sent.
//!
//! Invariant: no two packets get the same number, whatever the other side sends.

use crate::packet::rtp::Header;
use crate::sequence::SequenceWindow;

/// From one source's numbers to ours, for as long as nothing else is sent in between.
pub(super) struct Mapping {
    ssrc: u32,
    window: SequenceWindow,
    /// How many numbers before the newest one are mapped by these offsets.
    covered: i32,
    sequence_offset: u16,
    timestamp_offset: u32,
}

/// The place of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Under these numbers; `newest` tells that none after it was sent yet.
    At { sequence: u16, timestamp: u32, newest: bool },
    /// It was here before, or its number is one of somebody else's by now.
    Taken,
    /// It does not belong to the stream that is mapped.
    Elsewhere,
}

impl Mapping {
    /// Maps the packet with this header to `sequence` and `timestamp`, and others likewise.
    pub(super) fn anchored(source: &Header, sequence: u16, timestamp: u32) -> Self {
        Self {
            ssrc: source.ssrc,
            window: SequenceWindow::starting_at(source.sequence),
            covered: 0,
            sequence_offset: sequence.wrapping_sub(source.sequence),
            timestamp_offset: timestamp.wrapping_sub(source.timestamp),
        }
    }

    /// Finds the place of a packet and takes it.
    pub(super) fn place(&mut self, source: &Header) -> Place {
        let step = self.window.step(source.sequence);
        if source.ssrc != self.ssrc || !(-MISORDER_MAX..=DROPOUT_MAX).contains(&step) {
            return Place::Elsewhere;
        }
        if step > 0 {
            self.window.advance(step, source.sequence);
            self.covered = (self.covered + step).min(SequenceWindow::SPAN);
        } else if -step > self.covered || !self.window.mark(step) {
            return Place::Taken;
        }
        Place::At {
            sequence: source.sequence.wrapping_add(self.sequence_offset),
            timestamp: source.timestamp.wrapping_add(self.timestamp_offset),
            newest: step > 0,
        }
    }

    /// Another time line under the same numbers: `source` is to have `timestamp`.
    pub(super) fn retime(&mut self, source: &Header, timestamp: u32) {
        self.timestamp_offset = timestamp.wrapping_sub(source.timestamp);
    }

    /// Leaves a packet out that is not for our receiver, so that nobody misses its number.
    pub(super) fn leave_out(&mut self, source: &Header) {
        if source.ssrc == self.ssrc && self.window.step(source.sequence) == 1 {
            self.window.advance(1, source.sequence);
            self.covered = 0;
            self.sequence_offset = self.sequence_offset.wrapping_sub(1);
        }
    }
}

/// A jump ahead of more than this is a stream that began anew (RFC 3550 A.1).
const DROPOUT_MAX: i32 = 3_000;

/// And one back of more than this.
const MISORDER_MAX: i32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(ssrc: u32, sequence: u16) -> Header {
        let timestamp = u32::from(sequence).wrapping_mul(160);
        Header { ssrc, sequence, timestamp, ..Header::default() }
    }

    fn sequence_of(place: Place) -> Option<u16> {
        match place {
            Place::At { sequence, .. } => Some(sequence),
            Place::Taken | Place::Elsewhere => None,
        }
    }

    #[test]
    fn losses_stay_losses_and_late_packets_find_their_place() {
        let mut mapping = Mapping::anchored(&header(1, 100), u16::MAX, 7_000);
        let placed = [101, 104, 103, 105].map(|n| sequence_of(mapping.place(&header(1, n))));
        assert_eq!(placed, [0, 3, 2, 4].map(Some));
        let place = mapping.place(&header(1, 106));
        assert_eq!(place, Place::At { sequence: 5, timestamp: 7_000 + 960, newest: true });
    }

    #[test]
    fn copies_and_numbers_from_before_the_mapping_have_no_place() {
        let mut mapping = Mapping::anchored(&header(1, 100), 10, 0);
        for taken in [100, 99, 40] {
            assert_eq!(mapping.place(&header(1, taken)), Place::Taken, "{taken}");
        }
        assert_eq!(sequence_of(mapping.place(&header(1, 102))), Some(12));
        assert_eq!(mapping.place(&header(1, 102)), Place::Taken);
        assert_eq!(sequence_of(mapping.place(&header(1, 101))), Some(11));
        assert_eq!(mapping.place(&header(1, 101)), Place::Taken);
    }

    #[test]
    fn another_source_and_a_jump_are_elsewhere() {
        let mut mapping = Mapping::anchored(&header(1, 100), 10, 0);
        for (ssrc, sequence) in [(2, 101), (1, 3_101), (1, u16::MAX - 1_000)] {
            assert_eq!(mapping.place(&header(ssrc, sequence)), Place::Elsewhere);
        }
        assert_eq!(sequence_of(mapping.place(&header(1, 3_100))), Some(3_010));
    }

    #[test]
    fn what_is_left_out_is_missed_by_nobody_and_nothing_takes_its_number() {
        let mut mapping = Mapping::anchored(&header(1, 100), 10, 0);
        mapping.leave_out(&header(1, 101));
        mapping.leave_out(&header(2, 102));
        assert_eq!(sequence_of(mapping.place(&header(1, 102))), Some(11));
        assert_eq!(mapping.place(&header(1, 101)), Place::Taken);
        assert_eq!(mapping.place(&header(1, 100)), Place::Taken);
    }

    proptest::proptest! {
        #[test]
        fn no_number_is_given_twice(
            numbers in proptest::collection::vec((0_u16..200, proptest::bool::ANY), 1..400),
        ) {
            let mut mapping = Mapping::anchored(&header(1, 100), 10, 0);
            let mut given = std::collections::HashSet::from([10]);
            for (number, left_out) in numbers {
                if left_out {
                    mapping.leave_out(&header(1, number));
                } else if let Some(sequence) = sequence_of(mapping.place(&header(1, number))) {
                    proptest::prop_assert!(given.insert(sequence));
                }
            }
        }
    }
}
