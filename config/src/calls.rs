//! What the control plane may ask of the calls that are up: the one arrow from here to the gateway.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::briefing::AgentWorkflows;
use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, ConversationId, OrganisationId, TrunkId};
use crate::model::{Conversation, ConversationStatus, Direction, DisplayedNumber, E164, Runtime};

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

/// A call to be placed. Everything about it is decided; the gateway only waits for its turn.
#[derive(Debug, Clone, PartialEq)]
pub struct DialRequest {
    /// Its record as it stands in the store: outbound and triggered, with initial context and custom
    /// metadata. Its end has a reserved place in the journal from [`Journal::expect_end`] on, which
    /// whoever reserves a place for the call must ask for.
    ///
    /// [`Journal::expect_end`]: crate::journal::Journal::expect_end
    pub conversation: Box<Conversation>,
    /// Whose call it is.
    pub organisation: OrganisationId,
    /// The number it goes out from: what the callee sees.
    pub number: E164,
    /// The number to call.
    pub callee: E164,
    /// The trunk of `number`, which had an outbound configuration a moment ago.
    pub trunk: TrunkId,
    /// The agent that will talk; `None` for one that exists for this call only.
    pub agent: Option<AgentId>,
    /// Its version; `None` like the agent.
    pub version: Option<AgentVersionId>,
    /// Where the agent runs.
    pub runtime: Runtime,
    /// What runs before and after the call.
    pub workflows: Arc<AgentWorkflows>,
}

/// Why a call was not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialRefused {
    /// As many calls wait already as may.
    #[error("queue_full")]
    QueueFull,
    /// The node takes no new calls.
    #[error("draining")]
    Draining,
}

/// The organisation has no such call on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such call on this node")]
pub struct NoSuchCall;

/// A call is to be handed to another number, without the agent (a cold transfer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferRequest {
    /// Where to.
    pub transfer_number: E164,
    /// Whose number is seen there.
    pub displayed_number: DisplayedNumber,
}

/// Why a call is not being handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefused {
    /// The organisation has no such call on this node.
    #[error("no such call on this node")]
    NoSuchCall,
    /// It has not been answered, or is ending.
    #[error("the call is not in progress")]
    NotActive,
    /// It is being handed on already.
    #[error("the call is already being transferred")]
    AlreadyTransferring,
    /// Its trunk takes no calls out.
    #[error("the trunk has no outbound_config")]
    NoOutbound,
}

/// A place for a call out. Dropped, it is free again.
pub trait Reserved: Send {
    /// Takes on the call: it will be placed when its turn comes, and its record brought to an end
    /// whatever happens to it.
    fn dial(self: Box<Self>, request: DialRequest);
}

/// What the control plane asks of the gateway's calls. Every answer comes from memory at once: what
/// takes time shows later, in the conversation's record.
pub trait LiveCalls: Send + Sync {
    /// How many calls are up on this node, of all organisations.
    fn live(&self) -> usize;

    /// Whether the node has stopped taking new calls and waits for the rest to end.
    fn draining(&self) -> bool;

    /// The calls of one organisation, oldest first.
    fn list(&self, organisation: OrganisationId) -> Vec<LiveCall>;

    /// Takes a place for a call that this conversation will be the record of, before there is one: with
    /// the place, it will be taken on.
    ///
    /// # Errors
    /// When there is none; nothing is left behind.
    fn reserve(
        &self,
        organisation: OrganisationId,
        id: ConversationId,
    ) -> Result<Box<dyn Reserved>, DialRefused>;

    /// Ends a call: one that waits or rings is cancelled, one that was answered is hung up. Asking
    /// twice is asking once.
    ///
    /// # Errors
    /// [`NoSuchCall`], also for one that has just ended.
    fn hang_up(&self, organisation: OrganisationId, id: ConversationId) -> Result<(), NoSuchCall>;

    /// Begins to hand a call on. The outcome appears in its record's `transfer`.
    ///
    /// # Errors
    /// When nothing was begun; the call goes on as it was.
    fn transfer(
        &self,
        organisation: OrganisationId,
        id: ConversationId,
        request: TransferRequest,
    ) -> Result<(), TransferRefused>;
}

/// No calls at all, and nobody to place any: what a control plane without a gateway has.
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

    fn reserve(
        &self,
        _whose: OrganisationId,
        _id: ConversationId,
    ) -> Result<Box<dyn Reserved>, DialRefused> {
        Err(DialRefused::Draining)
    }

    fn hang_up(&self, _whose: OrganisationId, _id: ConversationId) -> Result<(), NoSuchCall> {
        Err(NoSuchCall)
    }

    fn transfer(
        &self,
        _whose: OrganisationId,
        _id: ConversationId,
        _request: TransferRequest,
    ) -> Result<(), TransferRefused> {
        Err(TransferRefused::NoSuchCall)
    }
}
