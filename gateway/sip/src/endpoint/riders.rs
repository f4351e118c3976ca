//! Which transactions a connection carries, so that those of a broken one are found at once.
//!
//! Datagrams have no connection that could break; what is sent in them is not kept here.

use std::collections::{BTreeSet, HashMap};

use crate::flow::Flow;

/// Owners by connection.
pub(super) struct Riders<Owner> {
    // Connections are numbered by us: nobody can make the numbers collide.
    by_connection: HashMap<u64, BTreeSet<Owner>>,
}

impl<Owner: Ord + Copy> Riders<Owner> {
    /// Nobody is carried.
    pub(super) fn new() -> Riders<Owner> {
        Riders { by_connection: HashMap::new() }
    }

    /// `owner` is carried by `flow`.
    pub(super) fn board(&mut self, flow: &Flow, owner: Owner) {
        if flow.connection != 0 {
            self.by_connection.entry(flow.connection).or_default().insert(owner);
        }
    }

    /// `owner` is not carried by `flow` any more.
    pub(super) fn leave(&mut self, flow: &Flow, owner: Owner) {
        if let Some(riders) = self.by_connection.get_mut(&flow.connection) {
            riders.remove(&owner);
            if riders.is_empty() {
                self.by_connection.remove(&flow.connection);
            }
        }
    }

    /// Everybody whom the connection of `flow` carries, in order; `None` for datagrams.
    pub(super) fn on(&self, flow: &Flow) -> Option<Vec<Owner>> {
        let riders = self.by_connection.get(&flow.connection);
        (flow.connection != 0).then(|| riders.into_iter().flatten().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Transport;

    #[test]
    fn riders_are_found_by_connection_and_leave_nothing_behind() {
        let address = "192.0.2.1:5060".parse().unwrap();
        let on = |connection| Flow {
            transport: Transport::Tcp,
            local: address,
            remote: address,
            connection,
        };
        let mut riders = Riders::new();
        for (connection, owner) in [(1, 'b'), (1, 'a'), (2, 'c'), (0, 'd')] {
            riders.board(&on(connection), owner);
        }
        assert_eq!(riders.on(&on(1)), Some(vec!['a', 'b']));
        assert_eq!(riders.on(&on(3)), Some(vec![]));
        assert_eq!(riders.on(&on(0)), None);
        for (connection, owner) in [(1, 'b'), (1, 'a'), (2, 'c'), (0, 'd')] {
            riders.leave(&on(connection), owner);
        }
        assert!(riders.by_connection.is_empty());
    }
}
