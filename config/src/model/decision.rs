//! Decision records: why an INVITE was refused, or what a routing workflow made of it, for those it
//! was meant for.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RoutingReport;
use crate::clock::Timestamp;
use crate::ids::{ConversationId, DecisionId, OrganisationId, TrunkId};

/// A trunk that was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Considered {
    /// The trunk.
    pub trunk_id: TrunkId,
    /// Its owner; a customer is shown only trunks of their own.
    pub organization_id: OrganisationId,
    /// Its name.
    pub name: String,
    /// The rule that was asked: a stable word.
    #[schema(value_type = String)]
    pub rule: Cow<'static, str>,
    /// What it said, in words.
    pub verdict: String,
}

/// Why one INVITE was refused, or how a routing workflow decided about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// Its id.
    pub id: DecisionId,
    /// When; unique among decisions.
    pub at: Timestamp,
    /// Whose call it would have been; `None` when nobody could tell.
    pub organization_id: Option<OrganisationId>,
    /// The packet's source address.
    pub source_ip: String,
    /// The packet's source port.
    pub source_port: u16,
    /// `udp`, `tcp` or `tls`.
    #[schema(value_type = String)]
    pub transport: Cow<'static, str>,
    /// The Request-URI, as it came.
    pub request_uri: String,
    /// The From header's URI, as it came.
    pub from: String,
    /// The number that was dialled, as it came.
    pub called_raw: String,
    /// The same, normalised to E.164, if it could be.
    pub called_number: Option<String>,
    /// The trunks that were looked at, in order.
    pub trunks_considered: Vec<Considered>,
    /// The first rule that failed, or how the call was routed: a stable word.
    #[schema(value_type = String)]
    pub rule: Cow<'static, str>,
    /// What happened and what to do about it, in a sentence.
    pub explanation: String,
    /// The SIP status that was answered; `None` is silence, or a call that goes on.
    pub sip_status: Option<u16>,
    /// The INVITE's Call-ID.
    pub sip_call_id: String,
    /// The conversation, of a call that was admitted.
    #[serde(default)]
    pub conversation_id: Option<ConversationId>,
    /// What the organization's routing workflow did and what was made of it, if it ran.
    #[serde(default)]
    pub routing: Option<RoutingReport>,
}
