//! How many packets a leg may cost us: a flood is dropped before it is decrypted.
//!
//! The peer and the rest of the world have budgets of their own, so that a stranger who floods a
//! port cannot use up what the peer's audio needs. While the peer is not known yet there is only one.

/// Both budgets of a leg, refilled by the tick.
pub(super) struct Budget {
    peer: u32,
    strangers: u32,
}

impl Budget {
    /// Full budgets.
    pub(super) fn new() -> Self {
        Self { peer: PEER_BURST, strangers: STRANGER_BURST }
    }

    /// Another `ticks` of 20 ms have passed.
    pub(super) fn refill(&mut self, ticks: u64) {
        let ticks = u32::try_from(ticks.min(1_000)).unwrap_or(0);
        self.peer = (self.peer + ticks * PEER_PER_TICK).min(PEER_BURST);
        self.strangers = (self.strangers + ticks * STRANGER_PER_TICK).min(STRANGER_BURST);
    }

    /// The peer's will last for a while.
    pub(super) fn is_ample(&self) -> bool {
        self.peer > PEER_BURST / 2
    }

    /// Takes one packet out of the right budget; false when it is used up.
    pub(super) fn spend(&mut self, is_peer: bool) -> bool {
        let budget = if is_peer { &mut self.peer } else { &mut self.strangers };
        match budget.checked_sub(1) {
            Some(left) => {
                *budget = left;
                true
            }
            None => false,
        }
    }
}

/// 500 packets a second: ten times G.711 at 20 ms, five times at 10 ms with doubled events.
const PEER_PER_TICK: u32 = 10;
/// What may come at once after a stall of the network: half a second's worth.
pub(super) const PEER_BURST: u32 = 250;
/// 100 packets a second: enough to notice an intrusion and, with SRTP, a peer that moved.
const STRANGER_PER_TICK: u32 = 2;
const STRANGER_BURST: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn spend_all(budget: &mut Budget, is_peer: bool) -> u32 {
        (0..10_000).take_while(|_| budget.spend(is_peer)).count().try_into().unwrap()
    }

    #[test]
    fn a_peer_gets_500_packets_a_second_and_a_burst() {
        let mut budget = Budget::new();
        assert_eq!(spend_all(&mut budget, true), PEER_BURST);
        let mut spent = 0;
        for _ in 0..50 {
            budget.refill(1);
            spent += spend_all(&mut budget, true);
        }
        assert_eq!(spent, 500);
    }

    #[test]
    fn a_flood_of_strangers_leaves_the_peer_its_budget() {
        let mut budget = Budget::new();
        spend_all(&mut budget, false);
        assert!(!budget.spend(false));
        assert_eq!(spend_all(&mut budget, true), PEER_BURST);
    }

    #[test]
    fn a_long_stall_refills_no_more_than_the_burst() {
        let mut budget = Budget::new();
        budget.refill(u64::MAX);
        assert_eq!(spend_all(&mut budget, true), PEER_BURST);
    }
}
