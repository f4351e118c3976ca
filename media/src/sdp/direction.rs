//! Who sends on a media line: the direction attributes (RFC 8866 §6.7) and their algebra
//! (RFC 3264 §6.1).

/// A direction, seen from whoever states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sends and receives; the default of RFC 3264 §5.1.
    #[default]
    SendRecv,
    /// Sends only: the other side is on hold, perhaps with music.
    SendOnly,
    /// Receives only: the side that is on hold.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// All four, for tables.
    pub const ALL: [Self; 4] = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];

    /// From its two halves.
    #[must_use]
    pub const fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whoever states this sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whoever states this receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// What we may state when we want `self` and the peer stated `peer`: never more than both
    /// agree to (RFC 3264 §6.1).
    #[must_use]
    pub const fn meet(self, peer: Self) -> Self {
        Self::new(self.sends() && peer.receives(), self.receives() && peer.sends())
    }

    /// The attribute.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The direction of an attribute name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    use super::*;

    #[test]
    fn the_table_of_sixteen() {
        // Rows: what the peer offers. Columns: what we want. Cells: what we answer.
        let columns = [SendRecv, SendOnly, RecvOnly, Inactive];
        let table = [
            (SendRecv, [SendRecv, SendOnly, RecvOnly, Inactive]),
            (SendOnly, [RecvOnly, Inactive, RecvOnly, Inactive]),
            (RecvOnly, [SendOnly, SendOnly, Inactive, Inactive]),
            (Inactive, [Inactive, Inactive, Inactive, Inactive]),
        ];
        for (peer, answers) in table {
            for (ours, answer) in columns.into_iter().zip(answers) {
                assert_eq!(ours.meet(peer), answer, "peer {peer:?}, we want {ours:?}");
            }
        }
    }

    #[test]
    fn names_and_halves_go_both_ways() {
        for direction in Direction::ALL {
            assert_eq!(Direction::from_name(direction.name()), Some(direction));
            assert_eq!(Direction::new(direction.sends(), direction.receives()), direction);
        }
        assert_eq!(Direction::from_name("sendrecv "), None);
    }
}
