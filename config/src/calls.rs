//! What the control plane may ask of the calls that are up: the one arrow from here to the gateway.

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::ids::{AgentId, ConversationId, OrganisationId, TrunkId};
use crate::model::{ConversationStatus, Direction};

/// A call that is up at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LiveCall {
    /// The conversation that will be its record.
    pub conversation_id: ConversationId,
    /// Whose call it is.
    pub organization_id: OrganisationId,
    /// Who started it.
    pub direction: Direction,
    /// How far it has come.
    pub status: ConversationStatus,
    /// The other party's number, as it will stand in the record.
    pub user_id: String,
    /// The agent side's number, if one was dialled or is shown.
    pub agent_number: Option<String>,
    /// The agent that has it.
    pub agent_id: Option<AgentId>,
    /// The trunk that carries it.
    pub trunk_id: Option<TrunkId>,
    /// The carrier leg's Call-ID (RFC 3261 section 8.1.1.4).
    pub trunk_call_id: String,
    /// When its INVITE came or went.
    pub started_at: Timestamp,
    /// When it was answered.
    pub answered_at: Option<Timestamp>,
}

/// What the gateway tells the control plane about its calls. Every answer comes from memory at once.
pub trait LiveCalls: Send + Sync {
    /// How many calls are up on this node, of all organisations.
    fn live(&self) -> usize;

    /// Whether the node has stopped taking new calls and waits for the rest to end.
    fn draining(&self) -> bool;

    /// The calls of one organisation, oldest first.
    fn list(&self, organisation: OrganisationId) -> Vec<LiveCall>;
}

/// No calls at all: what a control plane without a gateway has.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCalls;

impl LiveCalls for NoCalls {
    fn live(&self) -> usize {
        0
    }

    fn draining(&self) -> bool {
        false
    }

    fn list(&self, _organisation: OrganisationId) -> Vec<LiveCall> {
        Vec::new()
    }
}
