//! Versions of an agent, and publishing them to numbers.

use std::fmt;
use std::str::FromStr;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{E164, Invalid, Runtime, present};
use crate::briefing::{FIELDS, WorkflowAction};
use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId};

/// How far the writing of instructions from builder inputs has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstructionsStatus {
    /// Nothing is being written.
    #[default]
    Idle,
    /// Being written; the version cannot be published.
    Generating,
    /// The last writing failed.
    Failed,
}

/// Who wrote a version's instructions, if it was not its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstructionsSource {
    /// A language model.
    Model,
    /// Nobody: they were put together from the builder inputs.
    Assembled,
}

/// A version of an agent. A draft until it is published, and immutable from then on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AgentVersion {
    /// Its id: what slots and conversations hold.
    pub id: AgentVersionId,
    /// Its agent.
    pub agent_id: AgentId,
    /// 1, 2, 3 … within the agent, never reused.
    pub version: u32,
    /// Whether it is published, which is for good.
    pub published: bool,
    /// The agent config, as it was written but for secrets, which are `null`.
    #[schema(value_type = Object)]
    pub config: Value,
    /// What its instructions are generated from.
    #[schema(value_type = Option<Object>)]
    pub instruction_builder_inputs: Option<Value>,
    /// How far that has come.
    pub instructions_status: InstructionsStatus,
    /// Whether the inputs changed since.
    pub instructions_dirty: bool,
    /// Whether a person changed the instructions since.
    pub instructions_manually_edited: bool,
    /// Who wrote them, if it was not their owner.
    pub instructions_source: Option<InstructionsSource>,
    /// When it was made; unique among versions.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// How a path or body names a version: by number, or `latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionRef {
    /// The one with this number.
    Number(u32),
    /// The newest.
    Latest,
}

impl FromStr for VersionRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        text.parse()
            .map(Self::Number)
            .map_err(|_| Invalid::new("version", "must be a number or \"latest\""))
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::Latest => f.write_str("latest"),
        }
    }
}

impl<'de> Deserialize<'de> for VersionRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = VersionRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 1, or \"latest\"")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<VersionRef, E> {
                let fits = u32::try_from(number).ok().filter(|number| *number > 0);
                let wrong = || E::invalid_value(Unexpected::Unsigned(number), &self);
                fits.map(VersionRef::Number).ok_or_else(wrong)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<VersionRef, E> {
                let wrong = || E::custom("must be a number from 1, or \"latest\"");
                (text == "latest").then_some(VersionRef::Latest).ok_or_else(wrong)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl utoipa::PartialSchema for VersionRef {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let latest = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["latest"]));
        let either = OneOfBuilder::new().item(number).item(latest);
        either.description(Some("A version's number, or `latest`.")).into()
    }
}

impl ToSchema for VersionRef {}

/// A version to be made: from a config, or as a copy. Exactly one of the two.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct NewVersion {
    /// The agent config.
    #[schema(value_type = Option<Object>)]
    pub config: Option<Value>,
    /// The number of the version to copy.
    pub base_version: Option<u32>,
    /// What its instructions are to be generated from.
    #[schema(value_type = Option<Object>)]
    pub instruction_builder_inputs: Option<Value>,
}

impl NewVersion {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_inputs(self.instruction_builder_inputs.as_ref())?;
        match (&self.config, self.base_version) {
            (Some(config), None) => check_config(config),
            (None, Some(_)) => Ok(()),
            _ => Err(Invalid::new("config", "give exactly one of config and base_version")),
        }
    }
}

/// A change to a draft: an absent key leaves things as they are.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct VersionChange {
    /// A new agent config, whole.
    #[schema(value_type = Option<Object>)]
    pub config: Option<Value>,
    /// New builder inputs, or none.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    pub instruction_builder_inputs: Option<Option<Value>>,
}

impl VersionChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_inputs(self.instruction_builder_inputs.as_ref().and_then(Option::as_ref))?;
        self.config.as_ref().map_or(Ok(()), check_config)
    }
}

fn check_config(config: &Value) -> Result<(), Invalid> {
    if !config.is_object() {
        return Err(Invalid::new("config", "must be an object"));
    }
    Runtime::parse(config)?;
    for (field, place) in FIELDS
        .into_iter()
        .zip(["config.pre_conversation_workflow", "config.post_conversation_workflow"])
    {
        WorkflowAction::parse(config.get(field)).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Invalid::new(place, faults.join("; "))
        })?;
    }
    Ok(())
}

fn check_inputs(inputs: Option<&Value>) -> Result<(), Invalid> {
    match inputs {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(Invalid::new("instruction_builder_inputs", "must be an object")),
    }
}

/// Two versions of an agent to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Comparison {
    /// The earlier one, or whichever is the ground of the comparison.
    pub from_version: VersionRef,
    /// The one whose changes are told.
    pub to_version: VersionRef,
}

/// Which slots a publish writes or clears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlotDirection {
    /// Calls to the number.
    #[default]
    Inbound,
    /// Calls from the number.
    Outbound,
    /// Both.
    Both,
}

impl SlotDirection {
    /// Whether the inbound slot is meant.
    #[must_use]
    pub const fn inbound(self) -> bool {
        matches!(self, Self::Inbound | Self::Both)
    }

    /// Whether the outbound slot is meant.
    #[must_use]
    pub const fn outbound(self) -> bool {
        matches!(self, Self::Outbound | Self::Both)
    }
}

/// A publish: which numbers to point at the version, and which to clear of its agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct Publish {
    /// Numbers to point at this version.
    pub phone_numbers: Option<Vec<E164>>,
    /// Numbers to clear of any version of this agent.
    pub unassign_phone_numbers: Option<Vec<E164>>,
    /// Which slots.
    pub direction: SlotDirection,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_version_is_made_from_exactly_one_thing() {
        let read = |value| serde_json::from_value::<NewVersion>(value).unwrap().validate();
        assert!(read(json!({"config": {}})).is_ok());
        assert!(read(json!({"base_version": 1})).is_ok());
        assert!(read(json!({})).is_err());
        assert!(read(json!({"config": {}, "base_version": 1})).is_err());
        assert!(read(json!({"config": 7})).is_err());
    }

    #[test]
    fn latest_and_numbers_name_versions() {
        assert_eq!("latest".parse(), Ok(VersionRef::Latest));
        assert_eq!("12".parse(), Ok(VersionRef::Number(12)));
        assert!("v1".parse::<VersionRef>().is_err());
        assert!("-1".parse::<VersionRef>().is_err());
    }
}
