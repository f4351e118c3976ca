//! The resource model: what customers configure, with the names it has on the wire.
//!
//! Field names and values are those of the public HTTP contract. Secrets go in and never come out:
//! they are `null` in every serialised form, beside a flag that says whether one is set. Inputs
//! check themselves: what deserialises and passes `validate` is well-formed, and only rules about
//! other rows are left to the store.

mod agent;
mod conversation;
mod decision;
mod listing;
mod number;
mod organisation;
mod runtime;
mod trunk;
mod version;

pub use agent::{
    Agent, AgentChange, AgentDetail, ConversationStats, NewAgent, SipEndpoint, SipHost,
};
pub use conversation::{
    AgentName, Channel, Conversation, ConversationChange, ConversationClose, ConversationStatus,
    Direction, EndReason,
};
pub use decision::{Considered, Decision};
pub(crate) use listing::contains_all;
pub use listing::{
    AgentFilter, ConversationFilter, DecisionFilter, NumberFilter, Page, Period, TrunkFilter,
    VersionFilter,
};
pub use number::{
    E164, NewPhoneNumber, NotE164, NumberChange, PhoneNumber, SlotAgent, SlotVersion,
};
pub use organisation::{ApiKey, NewApiKey, Organisation};
pub use runtime::{
    AgentEnding, Builtin, Clip, Dialect, Runtime, RuntimeError, SERVED_RUNTIMES, Websocket,
};
pub use trunk::{
    AllowedAddress, Codec, InboundConfig, MediaEncryption, NewTrunk, OutboundConfig, TransferMode,
    Transport, Trunk, TrunkChange,
};
pub use version::{
    AgentVersion, InstructionsStatus, NewVersion, Publish, SlotDirection, VersionChange, VersionRef,
};

use serde::{Deserialize, Deserializer, Serializer};

use crate::limits::{self, Limit};
use crate::secret::Secret;

/// A field that is well-formed JSON and still not acceptable (HTTP 422).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// The field, as a dotted path from the body's root.
    pub field: &'static str,
    /// What is wrong with it, without repeating its value.
    pub message: String,
}

impl Invalid {
    /// An objection to one field.
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

/// Refuses an empty, oversized or unprintable name.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.trim().is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    check_length(field, name, limits::NAME_BYTES)?;
    if name.chars().any(char::is_control) {
        return Err(Invalid::new(field, "must not hold control characters"));
    }
    Ok(())
}

/// Refuses a text of more bytes than the limit says.
fn check_length(field: &'static str, text: &str, limit: Limit) -> Result<(), Invalid> {
    if text.len() > usize::try_from(limit.value).unwrap_or(usize::MAX) {
        return Err(Invalid::new(field, format!("must be at most {} bytes", limit.value)));
    }
    Ok(())
}

/// Refuses zero, and more than the limit says.
fn check_count(field: &'static str, count: Option<u32>, limit: Limit) -> Result<(), Invalid> {
    match count {
        Some(count) if count == 0 || u64::from(count) > limit.value => {
            Err(Invalid::new(field, format!("must be from 1 to {}", limit.value)))
        }
        _ => Ok(()),
    }
}

/// Refuses what cannot stand in a SIP header or digest field: empty, oversized, or with controls.
fn check_token(field: &'static str, value: &str) -> Result<(), Invalid> {
    check_name(field, value)?;
    if value.contains('"') || value.contains('\\') {
        return Err(Invalid::new(field, "must not hold quotes or backslashes"));
    }
    Ok(())
}

/// Serialises any secret as `null`.
fn hidden<S: Serializer>(_: &Option<Secret<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_none()
}

/// Tells an absent key (`None`) from an explicit `null` (`Some(None)`); use with `serde(default)`.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

const fn yes() -> bool {
    true
}
