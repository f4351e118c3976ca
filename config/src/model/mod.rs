//! The resource model: what customers configure, with the names it has on the wire.
//!
//! Field names and values are those of the public HTTP contract. Secrets go in and never come out:
//! they are `null` in every serialised form, beside a flag that says whether one is set. Inputs
//! check themselves: what deserialises and passes `validate` is well-formed, and only rules about
//! other rows are left to the store.

mod agent;
mod audit;
mod brief;
mod conversation;
mod decision;
mod event;
mod inbound_routing;
mod listing;
mod managed;
mod new_conversation;
mod number;
mod organisation;
mod organisation_settings;
mod runtime;
mod scaffolding;
mod sip_agent;
mod transcript;
mod trunk;
mod usage;
mod user;
mod version;
mod webhook;
mod workflow;

pub use agent::{
    Agent, AgentChange, AgentDetail, ConversationStats, NewAgent, SipEndpoint, SipHost,
};
pub use audit::{
    AuditActor, AuditActorKind, AuditChain, AuditEntry, AuditFault, AuditFaultKind, AuditFilter,
    AuditOutcome,
};
pub use brief::{
    Brief, BriefHeader, BriefSource, Information, NextStep, Sentiment, SentimentLevel, SpokenTurn,
};
pub use conversation::{
    AgentName, Answering, Channel, Conversation, ConversationChange, ConversationClose,
    ConversationStatus, Direction, DisplayedNumber, EndReason, Transfer, TransferStatus,
};
pub use decision::{Considered, Decision};
pub use event::{CallEvent, EventKind, UnknownEvent};
pub use inbound_routing::{
    InboundRoutingConfig, InboundRoutingConfigChange, NewInboundRoutingConfig, RoutingDryRun,
    RoutingForecast, RoutingReport, RoutingResult,
};
pub(crate) use listing::contains_all;
pub use listing::{
    AgentFilter, ConversationFilter, DecisionFilter, NumberFilter, Page, Period, TrunkFilter,
    VersionFilter,
};
pub use managed::{
    AvailableNumber, ManagedAccount, ManagedNumber, ManagedProvider, NewManagedTrunk, NumberSearch,
    NumberType,
};
pub use new_conversation::{NewConversation, NewTransfer};
pub use number::{
    E164, NewPhoneNumber, NotE164, NumberChange, PhoneNumber, SlotAgent, SlotVersion,
};
pub use organisation::{ApiKey, NewApiKey, NewOrganisation, Organisation, OrganisationChange};
pub(crate) use organisation_settings::of_body;
pub use organisation_settings::{ConcurrencyChange, ConcurrencySettings, DefaultRuntime};
pub use runtime::{
    AgentEnding, Builtin, Clip, Dialect, Runtime, RuntimeError, SERVED_RUNTIMES, Websocket,
};
pub use scaffolding::{
    GenerationStarted, NewDemo, NewWebsiteAgent, Scaffolding, ScaffoldingStarted,
    ScaffoldingStatus, ScaffoldingStep,
};
pub use sip_agent::{SipAgent, Values as SipAgentValues};
pub use transcript::{Annotation, Speaker, Transcript, TranscriptItem};
pub use trunk::{
    AllowedAddress, Codec, InboundConfig, MediaEncryption, NewTrunk, OutboundConfig, TransferMode,
    Transport, Trunk, TrunkChange,
};
pub use usage::Usage;
pub use user::{
    Email, Member, MemberChange, Membership, NewMember, NewPersonalToken, NewUser, PersonalToken,
    User,
};
pub use version::{
    AgentVersion, Comparison, InstructionsSource, InstructionsStatus, NewVersion, Publish,
    SlotDirection, VersionChange, VersionRef,
};
pub use webhook::{Delivery, DeliveryDetail, DeliveryState, NewWebhook, Webhook, WebhookChange};
pub use workflow::{
    Execution, ExecutionError, ExecutionFilter, ExecutionStatus, ExecutionSummary, NewExecution,
    NewWorkflow, NewWorkflowVersion, Workflow, WorkflowChange, WorkflowFilter, WorkflowVersion,
    WorkflowVersionChange, WorkflowVersionSummary,
};

pub(crate) use workflow::Sight;

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

/// Refuses an expiry that is no moment after the epoch.
pub(crate) fn check_expiry(expires_at: Option<i64>) -> Result<(), Invalid> {
    if expires_at.is_some_and(|at| at <= 0) {
        return Err(Invalid::new("expires_at", "must be milliseconds since the epoch"));
    }
    Ok(())
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

/// Refuses a password that no phone could send.
fn check_password(field: &'static str, password: Option<&Secret<String>>) -> Result<(), Invalid> {
    match password.map(|password| password.expose()) {
        Some(text) if text.is_empty() => Err(Invalid::new(field, "must not be empty")),
        // A line end at its end was pasted along, and no phone could ever send one.
        Some(text) if text.chars().any(char::is_control) => {
            Err(Invalid::new(field, "must not hold control characters"))
        }
        Some(text) => check_length(field, text, limits::PASSWORD_BYTES),
        None => Ok(()),
    }
}

/// Refuses line ends and other control characters, which end up in headers and messages.
fn check_printable(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(field, "must not hold control characters"));
    }
    Ok(())
}

/// RFC 3261 §25.1 `hostport`: a host name, IPv4 address or bracketed IPv6 reference, and a port. Names may
/// hold underscores, as some in the DNS do; one that ends in a number is an IPv4 address or nothing.
pub(crate) fn is_host(text: &str) -> bool {
    let (host_fits, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return false,
        Some(Some((v6, ""))) => (v6.parse::<std::net::Ipv6Addr>().is_ok(), None),
        Some(Some((v6, rest))) => (v6.parse::<std::net::Ipv6Addr>().is_ok(), Some(rest)),
        None => match text.find(':').and_then(|at| text.split_at_checked(at)) {
            Some((name, rest)) => (is_host_name(name), Some(rest)),
            None => (is_host_name(text), None),
        },
    };
    host_fits && port.is_none_or(|port| port.strip_prefix(':').is_some_and(is_port))
}

/// A host name of the DNS, or an IPv4 address.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let relative = name.strip_suffix('.').unwrap_or(name);
    let last = relative.rsplit('.').next().unwrap_or(relative);
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return name.parse::<std::net::Ipv4Addr>().is_ok();
    }
    name.len() <= 253 && relative.split('.').all(label)
}

/// A port that can be connected to: 1 to 65535, and nothing but digits.
fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
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

/// Takes an explicit `null` for an absent key; use with `serde(default)`.
fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

const fn yes() -> bool {
    true
}
