//! The organisation's inbound routing: a workflow that chooses the agent of every call to its numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{E164, Invalid, check_length, check_printable, present, yes};
use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, InboundRoutingConfigId, OrganisationId, TrunkId};
use crate::limits;
use crate::routing::{OwnHeaders, is_own};
use crate::workflows::TraceEntry;

/// How an organisation's calls find their agent, as the API returns it. There is one at most.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct InboundRoutingConfig {
    /// Its id.
    pub id: InboundRoutingConfigId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// The workflow, as it was written.
    #[schema(value_type = Object)]
    pub workflow_definition: Value,
    /// Who answers when the workflow names nobody who can, fails, or takes too long.
    pub fallback_agent_id: Option<AgentId>,
    /// Which of its versions; `null` is the latest published.
    pub fallback_agent_version: Option<u32>,
    /// Whether the workflow runs; if not, the number's inbound slot decides.
    pub enabled: bool,
    /// When it was made; unique among these configs.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// An inbound routing config to be made.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct NewInboundRoutingConfig {
    /// The workflow that chooses the agent. Not empty.
    #[schema(value_type = Object)]
    pub workflow_definition: Map<String, Value>,
    /// Who answers when the workflow names nobody who can, fails, or takes too long. Without one
    /// such calls are refused.
    #[serde(default)]
    pub fallback_agent_id: Option<AgentId>,
    /// Which of its versions; absent or `null` is the latest published.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub fallback_agent_version: Option<u32>,
    /// Whether the workflow runs.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// A change to it: an absent key leaves things as they are.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct InboundRoutingConfigChange {
    /// A new workflow, whole. Not empty.
    #[schema(value_type = Object)]
    pub workflow_definition: Option<Map<String, Value>>,
    /// A new fallback agent; `null` removes it and its version.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<AgentId>)]
    pub fallback_agent_id: Option<Option<AgentId>>,
    /// A new version of the fallback agent; `null` is the latest published.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub fallback_agent_version: Option<Option<u32>>,
    /// Whether the workflow runs.
    pub enabled: Option<bool>,
}

impl NewInboundRoutingConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_definition(&self.workflow_definition)?;
        check_version(self.fallback_agent_version)?;
        if self.fallback_agent_version.is_some() && self.fallback_agent_id.is_none() {
            return Err(Invalid::new("fallback_agent_version", "needs fallback_agent_id"));
        }
        Ok(())
    }
}

impl InboundRoutingConfigChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.workflow_definition.as_ref().map_or(Ok(()), check_definition)?;
        check_version(self.fallback_agent_version.flatten())?;
        match (self.fallback_agent_id, self.fallback_agent_version) {
            (Some(None), Some(Some(_))) => {
                Err(Invalid::new("fallback_agent_version", "needs fallback_agent_id"))
            }
            _ => Ok(()),
        }
    }
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let (most, longest) = (limits::ROUTING_HEADERS, limits::ROUTING_HEADER_BYTES);
    let refuse = |why: String| Err(Invalid::new("sip_headers", why));
    if headers.len() > most.value_usize() {
        return refuse(format!("must be at most {} headers", most.value));
    }
    for (name, value) in headers {
        if !is_own(name.as_bytes()) {
            return refuse("must have names that begin with X-".to_owned());
        }
        if name.len().max(value.len()) > longest.value_usize() {
            return refuse(format!("must be at most {} bytes each", longest.value));
        }
        check_printable("sip_headers", name)?;
        check_printable("sip_headers", value)?;
    }
    Ok(())
}

fn check_definition(definition: &Map<String, Value>) -> Result<(), Invalid> {
    if definition.is_empty() {
        return Err(Invalid::new("workflow_definition", "must not be empty"));
    }
    Ok(())
}

fn check_version(version: Option<u32>) -> Result<(), Invalid> {
    match version {
        Some(0) => Err(Invalid::new("fallback_agent_version", "must be at least 1")),
        _ => Ok(()),
    }
}

/// A call that is only thought of: what would happen to it?
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct RoutingDryRun {
    /// Who calls: a number where it is one, else what the caller's telephone shows.
    pub caller_number: String,
    /// The number that is dialled.
    pub called_number: E164,
    /// The trunk it comes in on; absent or `null` is the number's own.
    #[serde(default)]
    pub trunk_id: Option<TrunkId>,
    /// The INVITE's own headers: names that begin with `X-`, in any case.
    #[serde(default)]
    pub sip_headers: Option<BTreeMap<String, String>>,
    /// When it comes; absent or `null` is now.
    #[serde(default)]
    pub timestamp: Option<Timestamp>,
    /// A workflow to run in place of the stored one, enabled or not.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub workflow_definition: Option<Map<String, Value>>,
}

impl RoutingDryRun {
    /// Its headers, as a workflow is told of them.
    #[must_use]
    pub(crate) fn headers(&self) -> OwnHeaders {
        let headers = self.sip_headers.iter().flatten();
        OwnHeaders::collect(headers.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_length("caller_number", &self.caller_number, limits::NAME_BYTES)?;
        check_printable("caller_number", &self.caller_number)?;
        self.sip_headers.as_ref().map_or(Ok(()), check_headers)?;
        self.workflow_definition.as_ref().map_or(Ok(()), check_definition)
    }
}

/// Who answers a call, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoutingResult {
    /// The agent that the workflow named.
    Workflow,
    /// The fallback agent.
    Fallback,
    /// The agent in the number's inbound slot: no workflow runs.
    Slot,
    /// Nobody: the call is refused.
    Refused,
}

/// How a call found its agent, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoutingReport {
    /// Who answers.
    pub result: RoutingResult,
    /// Why it is refused, or why the fallback agent answers: a stable word.
    pub reason: Option<String>,
    /// The SIP status that the caller gets; `null` when an agent answers.
    pub sip_status: Option<u16>,
    /// The agent that answers.
    pub agent_id: Option<AgentId>,
    /// The version that answers.
    pub agent_version_id: Option<AgentVersionId>,
    /// Its number within the agent.
    pub version: Option<u32>,
    /// Whether the agent's own pre-conversation workflow is left out.
    pub skip_pre_conversation_workflow: bool,
    /// What the workflow's steps did, in the order in which they were entered.
    pub steps: Vec<TraceEntry>,
    /// What was made of that, in sentences, in order.
    pub explanation: Vec<String>,
}

/// What would happen to a call.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoutingForecast {
    /// How it would find its agent.
    #[serde(flatten)]
    pub report: RoutingReport,
    /// What the workflow would be told; `null` when none would run.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Value>,
    /// What the workflow gave; `null` when none would run, or it failed.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Value>,
    /// What the agent would be told beforehand.
    pub initial_context: Option<String>,
    /// What would be put on the conversation.
    #[schema(value_type = Option<Object>)]
    pub custom_metadata: Option<Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn new(change: Value) -> Result<(), Invalid> {
        let mut body = json!({"workflow_definition": {"steps": []}});
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        serde_json::from_value::<NewInboundRoutingConfig>(body).unwrap().validate()
    }

    fn change(body: Value) -> Result<(), Invalid> {
        serde_json::from_value::<InboundRoutingConfigChange>(body).unwrap().validate()
    }

    #[test]
    fn a_definition_is_never_empty() {
        assert_eq!(
            new(json!({"workflow_definition": {}})).unwrap_err().field,
            "workflow_definition"
        );
        let refused = change(json!({"workflow_definition": {}})).unwrap_err();
        assert_eq!(refused.field, "workflow_definition");
        assert!(new(json!({})).is_ok());
        assert!(change(json!({})).is_ok());
    }

    #[test]
    fn a_fallback_version_needs_its_agent() {
        let agent = AgentId::random();
        let field = "fallback_agent_version";
        assert_eq!(new(json!({"fallback_agent_version": 1})).unwrap_err().field, field);
        assert!(new(json!({"fallback_agent_id": agent, "fallback_agent_version": 1})).is_ok());
        assert!(new(json!({"fallback_agent_id": agent, "fallback_agent_version": 0})).is_err());
        let both = json!({"fallback_agent_id": null, "fallback_agent_version": 1});
        assert_eq!(change(both).unwrap_err().field, field);
        assert!(change(json!({"fallback_agent_id": null})).is_ok());
        // Whether there is an agent the version belongs to, the store knows.
        assert!(change(json!({"fallback_agent_version": 2})).is_ok());
    }

    #[test]
    fn null_and_nothing_differ_in_a_change() {
        let read = |body| serde_json::from_value::<InboundRoutingConfigChange>(body).unwrap();
        assert_eq!(read(json!({"fallback_agent_id": null})).fallback_agent_id, Some(None));
        assert_eq!(read(json!({})).fallback_agent_id, None);
    }

    #[test]
    fn a_caller_holds_no_line_ends() {
        let read = |caller: &str| {
            let body = json!({"caller_number": caller, "called_number": "+15550100"});
            serde_json::from_value::<RoutingDryRun>(body).unwrap().validate()
        };
        assert!(read("+15550199").is_ok());
        assert!(read("anonymous").is_ok());
        assert_eq!(read("a\r\nb").unwrap_err().field, "caller_number");
    }
}
