//! Which sequence numbers were here (RFC 3550 A.1 without the probation).

/// Sequence numbers seen, newest first, in one word (RFC 3550 A.1 without the probation).
pub(crate) struct SequenceWindow {
    newest: u16,
    /// Bit n: `newest - n` was here.
    seen: u64,
}

impl SequenceWindow {
    /// Numbers remembered.
    pub(crate) const SPAN: i32 = 64;

    pub(crate) fn starting_at(sequence: u16) -> Self {
        Self { newest: sequence, seen: 1 }
    }

    /// How far `sequence` is ahead of the newest one; negative when behind.
    #[expect(clippy::cast_possible_wrap, reason = "modular distance is what a sequence is")]
    pub(crate) fn step(&self, sequence: u16) -> i32 {
        i32::from(sequence.wrapping_sub(self.newest) as i16)
    }

    pub(crate) fn advance(&mut self, step: i32, sequence: u16) {
        let shift = u32::try_from(step).unwrap_or(0);
        self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
        self.newest = sequence;
    }

    /// Notes an older number; false when it was here before.
    pub(crate) fn mark(&mut self, step: i32) -> bool {
        let Some(bit) = u32::try_from(-step).ok().and_then(|back| 1u64.checked_shl(back)) else {
            return false;
        };
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}
