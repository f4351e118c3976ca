//! The audit log as it is read.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::credential::{Actor, Who};
use crate::ids::OrganisationId;

/// What kind of actor did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditActorKind {
    /// The bearer of an organisation's key.
    ApiKey,
    /// A user, by a personal access token.
    User,
    /// Somebody at the machine's command line, or the program at its start.
    Process,
    /// The gateway, in the course of a call or of its own work.
    Gateway,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditActor {
    /// What kind of actor.
    #[serde(rename = "type")]
    pub kind: AuditActorKind,
    /// The key's or the user's id.
    pub id: Option<String>,
    /// The id of the user's token.
    pub token_id: Option<String>,
}

impl From<Actor> for AuditActor {
    fn from(actor: Actor) -> Self {
        let (kind, id, token_id) = match actor.who {
            Who::Key(key) => (AuditActorKind::ApiKey, Some(key.to_string()), None),
            Who::User { user, token } => {
                (AuditActorKind::User, Some(user.to_string()), Some(token.to_string()))
            }
            Who::Process => (AuditActorKind::Process, None, None),
            Who::Gateway => (AuditActorKind::Gateway, None, None),
        };
        Self { kind, id, token_id }
    }
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused, and changed nothing.
    Refused,
}

/// One entry of the audit log.
///
/// `hash` is the SHA-256 of the bytes of `previous_hash` followed by the entry as compact JSON: its
/// fields in this order, without the two hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place in the log: 1, 2, 3 … without gaps.
    pub sequence: i64,
    /// When; unique in the log and never before the entry before it.
    pub at: Timestamp,
    /// Who.
    pub actor: AuditActor,
    /// The address the request came from.
    pub source_address: Option<String>,
    /// What was done, as `noun.verb`; of a refused request its method and path.
    pub action: String,
    /// To what: an id, or a phone number.
    pub object_id: Option<String>,
    /// How it came out.
    pub outcome: AuditOutcome,
    /// The HTTP status it was refused with.
    pub status: Option<u16>,
    /// SHA-256 of the object's JSON before, as the API shows it, in hexadecimal digits.
    pub before: Option<String>,
    /// The same, afterwards.
    pub after: Option<String>,
    /// The hash of the entry before, or zeros.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(required = true)]
    pub previous_hash: String,
    /// The hash of this entry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(required = true)]
    pub hash: String,
}

/// Which entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Of this action, exactly.
    pub action: Option<String>,
    /// About this object, exactly.
    pub object_id: Option<String>,
    /// By this key or user, exactly.
    pub actor_id: Option<String>,
    /// At or after.
    pub after: Option<Timestamp>,
    /// At or before.
    pub before: Option<Timestamp>,
}

/// What became of one chain of the log, from its first entry to its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditChain {
    /// Whose log it is; `null` for what concerns no organisation.
    pub organization_id: Option<OrganisationId>,
    /// How many entries it has had.
    pub entries: i64,
    /// The hash of the last one, or zeros. Noted elsewhere, it shows later that nothing before it was
    /// written anew.
    pub head_hash: String,
    /// The first thing that is wrong with it; `null` if nothing is.
    pub fault: Option<AuditFault>,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditFault {
    /// Which entry.
    pub sequence: i64,
    /// What became of it.
    pub kind: AuditFaultKind,
}

/// What can become of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditFaultKind {
    /// It is not there.
    Missing,
    /// It is not the one that was written.
    Changed,
}

impl AuditFault {
    /// The entry is not there.
    #[must_use]
    pub const fn missing(sequence: i64) -> Self {
        Self { sequence, kind: AuditFaultKind::Missing }
    }

    /// The entry is not the one that was written.
    #[must_use]
    pub const fn changed(sequence: i64) -> Self {
        Self { sequence, kind: AuditFaultKind::Changed }
    }
}
