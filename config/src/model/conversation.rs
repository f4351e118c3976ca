//! Conversations: the records of calls.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{E164, TransferMode};
use crate::briefing::PostAction;
use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, ConversationId, OrganisationId, TrunkId};

/// Who started a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The other party.
    Inbound,
    /// The agent.
    Outbound,
}

/// What a conversation is held over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// SIP.
    #[default]
    Telephone,
    /// A browser.
    Webrtc,
    /// Electronic mail.
    Email,
    /// Text messages.
    Text,
}

/// How far a conversation has come.
///
/// ```text
/// token_created -> triggered -> ringing -> in_progress -> completed | transferred | failed
///                     |            |
///                     +------------+--> cancelled | unanswered | failed | completed | transferred
/// ```
///
/// It only moves to the right, and never out of the last column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConversationStatus {
    /// A browser was let in and has not come yet.
    TokenCreated,
    /// Started; an outbound call waits to be placed.
    Triggered,
    /// Ringing.
    Ringing,
    /// Answered.
    InProgress,
    /// Ended normally.
    Completed,
    /// Ended by an error.
    Failed,
    /// Cancelled before it was answered.
    Cancelled,
    /// Handed to another destination.
    Transferred,
    /// Never answered.
    Unanswered,
}

impl ConversationStatus {
    /// Those of which more may come.
    pub const OPEN: [Self; 4] =
        [Self::TokenCreated, Self::Triggered, Self::Ringing, Self::InProgress];

    /// Whether it is over; what is over never changes.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self.stage() == 4
    }

    /// Whether it may be followed by `next`: only forward, and never out of the end.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        self.stage() < next.stage()
    }

    const fn stage(self) -> u8 {
        match self {
            Self::TokenCreated => 0,
            Self::Triggered => 1,
            Self::Ringing => 2,
            Self::InProgress => 3,
            Self::Completed
            | Self::Failed
            | Self::Cancelled
            | Self::Transferred
            | Self::Unanswered => 4,
        }
    }
}

/// How and by whom a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndReason {
    /// A stable word, the same in the SIP reply, the metric and the record.
    #[schema(value_type = String)]
    pub code: Cow<'static, str>,
    /// Who ended it: `caller`, `callee`, `agent`, `carrier`, `gateway`, `operator`.
    #[schema(value_type = String)]
    pub party: Cow<'static, str>,
    /// The SIP status that said so, if one did: for a call out, the carrier's own.
    pub sip_code: Option<u16>,
    /// The reason phrase the carrier gave with it (RFC 3261 section 7.2).
    #[serde(default)]
    pub sip_reason: Option<String>,
    /// What else a person should know: which name a certificate has, which host was not found.
    #[serde(default)]
    pub text: Option<String>,
}

impl EndReason {
    /// An ending of which no more is known than this.
    #[must_use]
    pub const fn new(code: &'static str, party: &'static str) -> Self {
        Self {
            code: Cow::Borrowed(code),
            party: Cow::Borrowed(party),
            sip_code: None,
            sip_reason: None,
            text: None,
        }
    }

    /// What is written about a call that was up when the gateway died.
    #[must_use]
    pub const fn gateway_crash() -> Self {
        Self::new("gateway_crash", "gateway")
    }
}

/// Whose number the destination of a transfer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisplayedNumber {
    /// That of the person who is handed over: the other party of the conversation.
    #[default]
    TransfereeNumber,
    /// That of the agent's side.
    AgentNumber,
}

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransferStatus {
    /// The destination is being reached.
    Pending,
    /// It has the call.
    Completed,
    /// It does not; the other party stayed with the agent.
    Failed,
}

/// The last transfer of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// How far it has come.
    pub status: TransferStatus,
    /// Where to.
    pub transfer_number: E164,
    /// Whose number was seen there.
    pub displayed_number: DisplayedNumber,
    /// Whether the gateway dialled, or the carrier was asked to.
    pub mode: TransferMode,
    /// The SIP status that decided it, once there is one.
    pub sip_code: Option<u16>,
    /// When it came this far.
    pub at: Timestamp,
}

/// An agent, in a record about something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentName {
    /// Its id.
    pub id: AgentId,
    /// Its name today.
    pub name: String,
}

/// A conversation, as the API returns it to those who may see all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Who started it.
    pub direction: Direction,
    /// What it is held over.
    pub channel: Channel,
    /// How far it has come.
    pub status: ConversationStatus,
    /// The other party: for telephone, their number.
    pub user_id: String,
    /// The agent.
    pub agent_id: Option<AgentId>,
    /// Its version.
    pub agent_version_id: Option<AgentVersionId>,
    /// The agent side's number.
    pub agent_number: Option<String>,
    /// The widget it came through: none are served here.
    pub web_widget_id: Option<String>,
    /// The trunk that carried it.
    pub trunk_id: Option<TrunkId>,
    /// The carrier leg's Call-ID (RFC 3261 section 8.1.1.4).
    pub trunk_call_id: Option<String>,
    /// Whole seconds from answer to end; `null` if never answered.
    pub duration: Option<i64>,
    /// How often the other party spoke.
    pub user_turn_count: Option<i64>,
    /// The agent, spelled out; filled in when read.
    pub agent: Option<AgentName>,
    /// How it ended.
    pub end_reason: Option<EndReason>,
    /// The last attempt to hand it to another number.
    #[serde(default)]
    pub transfer: Option<Transfer>,
    /// Loss, jitter and opinion score of its audio.
    #[schema(value_type = Option<Object>)]
    pub quality: Option<Value>,
    /// What it was about. Sensitive.
    pub summary: Option<String>,
    /// What the agent was told beforehand. Sensitive.
    pub initial_context: Option<String>,
    /// The customer's own data. Sensitive.
    #[schema(value_type = Option<Object>)]
    pub custom_metadata: Option<Value>,
    /// The transcript. Sensitive.
    #[schema(value_type = Option<Object>)]
    pub conversation: Option<Value>,
    /// The recording. Sensitive.
    #[schema(value_type = Option<Object>)]
    pub recording_details: Option<Value>,
    /// When it was answered.
    pub answered_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When it started; unique among conversations.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Conversation {
    /// The fields that only `conversations:read_sensitive` shows.
    pub const SENSITIVE: &[&str] =
        &["summary", "initial_context", "custom_metadata", "conversation", "recording_details"];

    /// The fields that may be absent from a list, because so much may be in them.
    pub const LARGE: &[&str] = &["initial_context", "conversation"];

    /// A telephone call that has just begun, with nothing known but this.
    #[must_use]
    pub fn begun(organization_id: OrganisationId, direction: Direction, at: Timestamp) -> Self {
        Self {
            id: ConversationId::random(),
            organization_id,
            direction,
            channel: Channel::Telephone,
            status: match direction {
                Direction::Inbound => ConversationStatus::Ringing,
                Direction::Outbound => ConversationStatus::Triggered,
            },
            user_id: String::new(),
            agent_id: None,
            agent_version_id: None,
            agent_number: None,
            web_widget_id: None,
            trunk_id: None,
            trunk_call_id: None,
            duration: None,
            user_turn_count: None,
            agent: None,
            end_reason: None,
            transfer: None,
            quality: None,
            summary: None,
            initial_context: None,
            custom_metadata: None,
            conversation: None,
            recording_details: None,
            answered_at: None,
            ended_at: None,
            created_at: at,
            updated_at: at,
        }
    }
}

/// The agent that has a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering {
    /// The agent.
    pub agent: AgentId,
    /// Its version.
    pub version: AgentVersionId,
}

/// A conversation moves on, or more is known about it. A status never moves backward, and what is over
/// does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationChange {
    /// Which one.
    pub id: ConversationId,
    /// Where it is now; never a terminal status, which [`ConversationClose`] alone writes.
    pub status: ConversationStatus,
    /// When it was answered, if it was.
    pub answered_at: Option<Timestamp>,
    /// The carrier leg's Call-ID, once there is one; `None` leaves what is known.
    pub trunk_call_id: Option<String>,
    /// How far a transfer has come; `None` leaves what is known.
    pub transfer: Option<Transfer>,
    /// Who has it, once that is chosen; `None` leaves what is known.
    pub answering: Option<Answering>,
    /// What the agent is told beforehand; `None` leaves what is known.
    pub initial_context: Option<String>,
    /// The customer's own data, whole; `None` leaves what is known.
    pub custom_metadata: Option<Value>,
    /// When this happened.
    pub at: Timestamp,
}

impl ConversationChange {
    /// The conversation has come to this status, and no more is known.
    #[must_use]
    pub const fn to(id: ConversationId, status: ConversationStatus, at: Timestamp) -> Self {
        Self {
            id,
            status,
            answered_at: None,
            trunk_call_id: None,
            transfer: None,
            answering: None,
            initial_context: None,
            custom_metadata: None,
            at,
        }
    }
}

/// A conversation ends. Only the first end counts.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationClose {
    /// Which one.
    pub id: ConversationId,
    /// How it ended: a terminal status.
    pub status: ConversationStatus,
    /// How, and by whom.
    pub end_reason: EndReason,
    /// Whole seconds from answer to end; `None` if never answered.
    pub duration_s: Option<i64>,
    /// How its transfer came out; `None` leaves what is known, but that one still pending failed.
    pub transfer: Option<Transfer>,
    /// Loss, jitter and opinion score of its audio.
    pub quality: Option<Value>,
    /// When it ended.
    pub closed_at: Timestamp,
    /// What its agent's version has run afterwards.
    pub post: Option<PostAction>,
}

#[cfg(test)]
mod tests {
    use super::ConversationStatus::{self, *};

    #[test]
    fn a_status_only_moves_forward_and_never_out_of_the_end() {
        let all = [
            TokenCreated,
            Triggered,
            Ringing,
            InProgress,
            Completed,
            Failed,
            Cancelled,
            Transferred,
            Unanswered,
        ];
        for from in all {
            assert_eq!(ConversationStatus::OPEN.contains(&from), !from.is_terminal());
            assert!(!from.may_become(from));
            for to in all.into_iter().filter(|_| from.is_terminal()) {
                assert!(!from.may_become(to), "{from:?} -> {to:?}");
            }
        }
        assert!(Ringing.may_become(InProgress) && !InProgress.may_become(Ringing));
        assert!(Triggered.may_become(Cancelled));
        assert_eq!(serde_json::to_string(&InProgress).unwrap(), "\"in_progress\"");
        assert_eq!(
            serde_json::from_str::<ConversationStatus>("\"unanswered\"").unwrap(),
            Unanswered
        );
    }
}
