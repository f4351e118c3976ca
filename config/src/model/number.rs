//! Phone numbers and their two slots.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, OrganisationId, TrunkId};

/// The text was not a number in E.164 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an E.164 number: a plus, a digit other than zero, and up to 14 digits")]
pub struct NotE164;

/// A phone number in E.164 form: `^\+[1-9]\d{1,14}$`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, pattern = r"^\+[1-9]\d{1,14}$", example = "+15551234567")]
pub struct E164(String);

impl E164 {
    /// The number with its plus.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for E164 {
    type Err = NotE164;

    fn from_str(text: &str) -> Result<Self, NotE164> {
        let digits = text.strip_prefix('+').ok_or(NotE164)?;
        let fits = (2..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        fits.then(|| Self(text.to_owned())).ok_or(NotE164)
    }
}

impl<'de> Deserialize<'de> for E164 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The agent behind a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SlotAgent {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
}

/// What a slot holds, spelled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SlotVersion {
    /// The version's id.
    pub id: AgentVersionId,
    /// Its number within the agent.
    pub version: u32,
    /// Its agent.
    pub agent: SlotAgent,
}

/// A phone number, as the API returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PhoneNumber {
    /// The number; its key.
    pub phone_number: E164,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// The trunk that carries its calls.
    pub trunk_id: TrunkId,
    /// The agent version that answers calls to it.
    pub inbound_agent_version_id: Option<AgentVersionId>,
    /// The agent version that dials from it.
    pub outbound_agent_version_id: Option<AgentVersionId>,
    /// Whether other agents may show it as their number.
    pub outbound_shareable: bool,
    /// The inbound slot, spelled out.
    pub inbound_agent_version: Option<SlotVersion>,
    /// The outbound slot, spelled out.
    pub outbound_agent_version: Option<SlotVersion>,
    /// When it was registered; unique among numbers.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A number to be registered on a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewPhoneNumber {
    /// The number.
    pub phone_number: E164,
    /// The trunk that carries it; one of the customer's own.
    pub trunk_id: TrunkId,
    /// Whether other agents may show it as their number.
    #[serde(default)]
    pub outbound_shareable: bool,
}

/// A change to a number: nothing but this one field can change here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NumberChange {
    /// Whether other agents may show it as their number.
    pub outbound_shareable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e164_has_a_plus_and_two_to_fifteen_digits() {
        for good in ["+15551234567", "+49", "+123456789012345"] {
            assert_eq!(good.parse::<E164>().unwrap().as_str(), good);
        }
        for bad in ["", "+", "+1", "15551234567", "+0123", "+1234567890123456", "+1 555", "+٣٣٣"]
        {
            assert_eq!(bad.parse::<E164>(), Err(NotE164), "{bad}");
        }
    }

    #[test]
    fn a_number_change_has_one_field() {
        let read = serde_json::from_str::<NumberChange>;
        assert!(read(r#"{"outbound_shareable":true}"#).unwrap().outbound_shareable);
        assert!(read(r#"{"outbound_shareable":true,"trunk_id":null}"#).is_err());
    }
}
