//! What customers are told about their calls: one event for each thing that happens to one.
//!
//! ```text
//!  call.ringing -> call.answered -> call.transferred -> call.ended      one call, numbered from 1
//!  call.refused                                                         one INVITE, always number 1
//! ```
//!
//! An event tells of a record that is durable already: whoever asks for the conversation on hearing
//! of it finds it at least as far. A call may skip any step but its end, which comes exactly once,
//! also after a crash of the gateway.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{ConversationStatus, Decision, Direction, EndReason, Transfer};
use crate::clock::Timestamp;
use crate::ids::{
    AgentId, AgentVersionId, ConversationId, DecisionId, EventId, OrganisationId, TrunkId,
};

/// What happened.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub enum EventKind {
    /// The call rings: it came in, or the callee is being alerted.
    #[serde(rename = "call.ringing")]
    Ringing,
    /// It was answered, and the agent talks.
    #[serde(rename = "call.answered")]
    Answered,
    /// It was handed to another number; its end follows at once.
    #[serde(rename = "call.transferred")]
    Transferred,
    /// It ended, however far it had come.
    #[serde(rename = "call.ended")]
    Ended,
    /// A call that came in was refused before it became a conversation.
    #[serde(rename = "call.refused")]
    Refused,
    /// A test that was asked for; goes to one webhook only.
    #[serde(rename = "webhook.test")]
    Test,
}

/// The text names no event that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("names no event")]
pub struct UnknownEvent;

impl EventKind {
    /// Those of calls: what one can ask for.
    pub const CALLS: [Self; 5] =
        [Self::Ringing, Self::Answered, Self::Transferred, Self::Ended, Self::Refused];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ringing => "call.ringing",
            Self::Answered => "call.answered",
            Self::Transferred => "call.transferred",
            Self::Ended => "call.ended",
            Self::Refused => "call.refused",
            Self::Test => "webhook.test",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        Self::CALLS.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownEvent)
    }
}

/// One event, as webhooks deliver it and the stream shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CallEvent {
    /// Its id: the same in every delivery of it, so that a repetition can be told.
    pub id: EventId,
    /// The version of this form: 1. Fields may be added to it, none is taken away or changed.
    pub schema_version: u32,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Its number among the events of its call, from 1 without gaps.
    pub sequence: u32,
    /// When it happened.
    pub at: Timestamp,
    /// Whose call it is.
    pub organization_id: OrganisationId,
    /// The conversation; `null` for a call that was refused before there was one.
    pub conversation_id: Option<ConversationId>,
    /// The decision record of a call that was refused.
    pub decision_id: Option<DecisionId>,
    /// Who started it.
    pub direction: Direction,
    /// How far the conversation has come.
    pub status: Option<ConversationStatus>,
    /// The other party: for telephone, their number.
    pub user_id: String,
    /// The agent side's number.
    pub agent_number: Option<String>,
    /// The agent.
    pub agent_id: Option<AgentId>,
    /// Its version.
    pub agent_version_id: Option<AgentVersionId>,
    /// The trunk that carries it.
    pub trunk_id: Option<TrunkId>,
    /// The carrier leg's Call-ID (RFC 3261 section 8.1.1.4).
    pub trunk_call_id: Option<String>,
    /// Whole seconds from answer to end; `null` before the end, and if never answered.
    pub duration: Option<i64>,
    /// How it ended, or why it was refused: the words of the record.
    pub end_reason: Option<EndReason>,
    /// The last attempt to hand it to another number.
    pub transfer: Option<Transfer>,
    /// The customer's own data. Sensitive: absent for those who may not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub custom_metadata: Option<Value>,
}

impl CallEvent {
    /// The version of the form.
    pub const SCHEMA_VERSION: u32 = 1;

    /// A refused call; `None` when nobody can tell whose it would have been.
    #[must_use]
    pub fn refused(decision: &Decision) -> Option<Self> {
        let organisation = decision.organization_id?;
        let own = |owner: &OrganisationId| *owner == organisation;
        let mut trunks = decision.trunks_considered.iter().filter(|t| own(&t.organization_id));
        let trunk = trunks.next().map(|trunk| trunk.trunk_id);
        let is_only = trunks.next().is_none();
        Some(Self {
            kind: EventKind::Refused,
            conversation_id: None,
            decision_id: Some(decision.id),
            status: None,
            user_id: user_of(&decision.from).to_owned(),
            agent_number: decision.called_number.clone(),
            trunk_id: trunk.filter(|_| is_only),
            trunk_call_id: Some(decision.sip_call_id.clone()),
            end_reason: Some(EndReason {
                code: decision.rule.clone(),
                party: "gateway".into(),
                sip_code: decision.sip_status,
                sip_reason: None,
                text: Some(decision.explanation.clone()),
            }),
            ..Self::test(organisation, decision.at)
        })
    }

    /// An event of no call, for a test of one webhook.
    #[must_use]
    pub fn test(organization_id: OrganisationId, at: Timestamp) -> Self {
        Self {
            id: EventId::random(),
            schema_version: Self::SCHEMA_VERSION,
            kind: EventKind::Test,
            sequence: 1,
            at,
            organization_id,
            conversation_id: None,
            decision_id: None,
            direction: Direction::Inbound,
            status: None,
            user_id: String::new(),
            agent_number: None,
            agent_id: None,
            agent_version_id: None,
            trunk_id: None,
            trunk_call_id: None,
            duration: None,
            end_reason: None,
            transfer: None,
            custom_metadata: None,
        }
    }

    /// The same without what only `conversations:read_sensitive` shows.
    #[must_use]
    pub fn without_sensitive(mut self) -> Self {
        self.custom_metadata = None;
        self
    }
}

/// The user part of a URI as it came: `+4930` of `sip:+4930;phone-context=x@host`.
fn user_of(uri: &str) -> &str {
    let rest = ["sip:", "sips:", "tel:"].iter().find_map(|scheme| {
        let (start, rest) = uri.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let rest = rest.unwrap_or(uri);
    let user = rest.split_once('@').map_or(rest, |(user, _)| user);
    user.split([';', ':']).next().unwrap_or(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_is_spelled_the_same_everywhere() {
        for kind in EventKind::CALLS.into_iter().chain([EventKind::Test]) {
            assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.as_str()));
        }
        for kind in EventKind::CALLS {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!(
            "webhook.test".parse::<EventKind>(),
            Err(UnknownEvent),
            "nobody subscribes to it"
        );
        assert_eq!("call.Ringing".parse::<EventKind>(), Err(UnknownEvent));
    }

    #[test]
    fn what_is_sensitive_is_absent_key_and_all() {
        let event = CallEvent {
            custom_metadata: Some(json!({ "canary": 1 })),
            ..CallEvent::test(OrganisationId::random(), Timestamp::from_micros(1))
        };
        assert_eq!(serde_json::to_value(&event).unwrap()["custom_metadata"], json!({"canary": 1}));
        let safe = serde_json::to_string(&event.without_sensitive()).unwrap();
        assert!(!safe.contains("canary") && !safe.contains("custom_metadata"), "{safe}");
    }

    #[test]
    fn the_caller_of_a_refused_call_is_the_user_part_of_its_uri() {
        for (uri, user) in [
            ("sip:+4930@192.0.2.1:5060;user=phone", "+4930"),
            ("SIPS:alice;x=1@host", "alice"),
            ("sip:alice:secret@host", "alice"),
            ("tel:+4930;phone-context=x", "+4930"),
            ("sip:host", "host"),
            ("", ""),
        ] {
            assert_eq!(user_of(uri), user, "{uri}");
        }
    }
}
