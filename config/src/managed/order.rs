//! An order: what is known of one number's purchase before, while and after it is made.

use crate::clock::Timestamp;
use crate::ids::{OrderId, OrganisationId, TrunkId};
use crate::model::{E164, InboundConfig, OutboundConfig};
use crate::secret::Secret;

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// The provider may have been asked; nothing is promised to anybody.
    Buying,
    /// The organisation has the number.
    Held,
    /// The organisation does not have it; the provider may.
    Releasing,
}

impl OrderState {
    /// Its word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buying => "buying",
            Self::Held => "held",
            Self::Releasing => "releasing",
        }
    }
}

impl std::str::FromStr for OrderState {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let all = [Self::Buying, Self::Held, Self::Releasing];
        all.into_iter().find(|state| state.as_str() == word).ok_or(())
    }
}

/// The purchase of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberOrder {
    /// Its id, which no other order ever has.
    pub id: OrderId,
    /// Who buys.
    pub organisation: OrganisationId,
    /// At which account.
    pub account: String,
    /// What.
    pub phone_number: E164,
    /// The id of the trunk that will carry it.
    pub trunk_id: TrunkId,
    /// What names that trunk in its inbound URI.
    pub slug: String,
    /// Where the carrier is to send its calls.
    pub inbound_uri: String,
    /// What we will show the carrier; gone once the trunk has it.
    pub password: Option<Secret<String>>,
    /// How far it has come.
    pub state: OrderState,
    /// Attempts before this one.
    pub attempts: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

impl NumberOrder {
    /// What everything of this order is called at the provider, and nothing else is.
    #[must_use]
    pub fn label(&self) -> String {
        format!("trunkline-{}", self.id.as_uuid().simple())
    }

    /// Whether an earlier attempt may have left something at the provider.
    #[must_use]
    pub const fn is_resumed(&self) -> bool {
        self.attempts > 0
    }
}

/// What a provider made: how calls come in and go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How they come in.
    pub inbound: InboundConfig,
    /// How they go out, with the password.
    pub outbound: OutboundConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_as_it_is_written() {
        for state in [OrderState::Buying, OrderState::Held, OrderState::Releasing] {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!("".parse::<OrderState>(), Err(()));
    }
}
