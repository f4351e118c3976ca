//! What a listing may ask for. Lists are newest first by `created_at`; a page walks back in time.

use serde_json::{Map, Value};

use super::{Channel, ConversationStatus, Direction};
use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, TrunkId};
use crate::limits;

/// One page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most rows to return, 1 to [`Page::MAX`].
    pub limit: u32,
    /// Only rows made strictly before this: the last row of the page before.
    pub before: Option<Timestamp>,
}

impl Page {
    /// The most rows in one page.
    pub const MAX: u32 = limits::API_PAGE.value_u32();
    /// The rows in a page when nobody says.
    pub const DEFAULT: u32 = limits::API_PAGE_DEFAULT.value_u32();

    /// The first page.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self { limit, before: None }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first(Self::DEFAULT)
    }
}

/// Inclusive bounds on when a row was made and last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Period {
    /// Made at or after.
    pub created_after: Option<Timestamp>,
    /// Made at or before.
    pub created_before: Option<Timestamp>,
    /// Changed at or after.
    pub updated_after: Option<Timestamp>,
    /// Changed at or before.
    pub updated_before: Option<Timestamp>,
}

/// Which trunks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrunkFilter {
    /// Part of the name, whatever the case.
    pub name: Option<String>,
    /// When.
    pub period: Period,
}

/// Which phone numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NumberFilter {
    /// Part of the number.
    pub phone_number: Option<String>,
    /// On this trunk.
    pub trunk_id: Option<TrunkId>,
    /// When.
    pub period: Period,
}

/// Which agents.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentFilter {
    /// Part of the name, whatever the case.
    pub name: Option<String>,
    /// Taking calls or not.
    pub active: Option<bool>,
    /// A demonstration or not.
    pub is_demo: Option<bool>,
    /// An object that the metadata must contain.
    pub metadata: Option<Map<String, Value>>,
    /// When.
    pub period: Period,
}

/// Which versions of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VersionFilter {
    /// With this number.
    pub version: Option<u32>,
    /// Published or not.
    pub published: Option<bool>,
    /// When.
    pub period: Period,
}

/// Which conversations.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConversationFilter {
    /// Who started them.
    pub direction: Option<Direction>,
    /// What they were held over.
    pub channel: Option<Channel>,
    /// How far they have come.
    pub status: Option<ConversationStatus>,
    /// Part of the other party's number, whatever the case.
    pub user_id: Option<String>,
    /// With this agent.
    pub agent_id: Option<AgentId>,
    /// With this version.
    pub agent_version_id: Option<AgentVersionId>,
    /// Part of the agent side's number, whatever the case.
    pub agent_number: Option<String>,
    /// Through this widget.
    pub web_widget_id: Option<String>,
    /// Over this trunk.
    pub trunk_id: Option<TrunkId>,
    /// At least this long, in seconds.
    pub duration_above: Option<i64>,
    /// At most this long, in seconds.
    pub duration_below: Option<i64>,
    /// At least this many turns.
    pub user_turn_count_above: Option<i64>,
    /// At most this many turns.
    pub user_turn_count_below: Option<i64>,
    /// An object that the custom metadata must contain.
    pub custom_metadata: Option<Map<String, Value>>,
    /// When.
    pub period: Period,
}

/// Which decision records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecisionFilter {
    /// From this source address, exactly.
    pub source_ip: Option<String>,
    /// With this rule as the first that failed.
    pub rule: Option<String>,
    /// For this called number, after normalisation.
    pub called_number: Option<String>,
    /// At or after.
    pub after: Option<Timestamp>,
    /// At or before.
    pub before: Option<Timestamp>,
}

/// Whether `whole` contains `part`: objects key by key, arrays element by element in any order,
/// everything else by equality.
#[must_use]
pub(crate) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => contains_all(whole, part),
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
        }
        (whole, part) => whole == part,
    }
}

/// Whether an object contains every entry of another.
#[must_use]
pub(crate) fn contains_all(whole: &Map<String, Value>, part: &Map<String, Value>) -> bool {
    part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containment_is_by_key_by_element_and_by_equality() {
        let whole = json!({"a": 1, "b": {"c": [1, 2, {"d": true}], "e": null}});
        for part in [
            json!({}),
            json!({"a": 1}),
            json!({"b": {"c": [2, 1]}}),
            json!({"b": {"c": [{"d": true}], "e": null}}),
        ] {
            assert!(contains(&whole, &part), "{part}");
        }
        for part in [json!({"a": "1"}), json!({"z": null}), json!({"b": {"c": [3]}}), json!([])] {
            assert!(!contains(&whole, &part), "{part}");
        }
    }
}
