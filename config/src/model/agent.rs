//! Agents and their SIP endpoints.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{AgentVersion, Invalid, PhoneNumber, check_length, check_name, present, yes};
use crate::clock::Timestamp;
use crate::ids::{AgentId, OrganisationId};
use crate::limits;

/// An agent, as the API returns it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The same id again: clients look for it under either name.
    pub agent_id: AgentId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Its name, for people.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it takes calls.
    pub active: bool,
    /// Whether it is a demonstration.
    pub is_demo: bool,
    /// The customer's own data.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    /// Where it can be dialled.
    pub sip_endpoint: Option<SipEndpoint>,
    /// When it was made; unique among agents.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where an agent can be dialled without a phone number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SipEndpoint {
    /// The SIP URI; known before it is deployed.
    pub uri: String,
    /// Whether calls to it are answered.
    pub deployed: bool,
}

/// What an agent's conversations add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ConversationStats {
    /// All of them.
    pub total: i64,
    /// Started by the other party.
    pub inbound: i64,
    /// Started by the agent.
    pub outbound: i64,
    /// Ended normally.
    pub completed: i64,
    /// Talking time of all, in seconds.
    pub total_duration_seconds: i64,
}

/// An agent with everything that hangs on it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AgentDetail {
    /// The agent itself.
    #[serde(flatten)]
    pub agent: Agent,
    /// Its newest versions, newest first: a hundred at most. All of them are at
    /// `/core/agents/{id}/versions`, page by page.
    pub versions: Vec<AgentVersion>,
    /// The numbers with one of its versions in a slot.
    pub phone_numbers: Vec<PhoneNumber>,
    /// Its web widgets: none are served here.
    #[schema(value_type = Vec<Object>)]
    pub web_widgets: Vec<Value>,
    /// What its conversations add up to.
    pub conversation_stats: ConversationStats,
}

/// An agent to be made.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct NewAgent {
    /// Its name, for people.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether it takes calls.
    #[serde(default = "yes")]
    pub active: bool,
    /// Whether it is a demonstration.
    #[serde(default)]
    pub is_demo: bool,
    /// The customer's own data.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

impl NewAgent {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)?;
        check_description(self.description.as_deref())?;
        check_object("metadata", self.metadata.as_ref())
    }
}

/// A change to an agent: an absent key leaves things as they are.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct AgentChange {
    /// A new name.
    pub name: Option<String>,
    /// A new description, or none.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Whether it takes calls.
    pub active: Option<bool>,
    /// Whether it is a demonstration.
    pub is_demo: Option<bool>,
    /// New data of the customer's own, or none.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Option<Value>>,
}

impl AgentChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.name.as_ref().map_or(Ok(()), |name| check_name("name", name))?;
        check_description(self.description.as_ref().and_then(|text| text.as_deref()))?;
        check_object("metadata", self.metadata.as_ref().and_then(Option::as_ref))
    }
}

fn check_description(text: Option<&str>) -> Result<(), Invalid> {
    text.map_or(Ok(()), |text| check_length("description", text, limits::TEXT_BYTES))
}

fn check_object(field: &'static str, value: Option<&Value>) -> Result<(), Invalid> {
    match value {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(Invalid::new(field, "must be an object")),
    }
}

/// The host that customers dial, and the SIP URIs made with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipHost {
    text: String,
    is_address: bool,
}

impl SipHost {
    /// Takes `sip.example.com`, `192.0.2.1`, `192.0.2.1:5080`, `[2001:db8::1]:5060`, ….
    #[must_use]
    pub fn new(text: &str) -> Self {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        let is_address = text.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok();
        let is_local = text.split(':').next().is_some_and(|host| !host.contains('.'));
        Self { text: text.to_owned(), is_address: is_address || is_local }
    }

    /// Where a customer points their carrier. With a domain the trunk's slug is a label in front of
    /// it, so that Request-URI users stay free for numbers; with an address it is the user part.
    #[must_use]
    pub fn trunk_uri(&self, slug: &str) -> String {
        let separator = if self.is_address { '@' } else { '.' };
        format!("sip:{slug}{separator}{}", self.text)
    }

    /// Where an agent is dialled.
    #[must_use]
    pub fn agent_uri(&self, agent: AgentId) -> String {
        format!("sip:{agent}@{}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_a_label_of_a_domain_and_a_user_at_an_address() {
        let uri = |host| SipHost::new(host).trunk_uri("t7");
        assert_eq!(uri("sip.example.com"), "sip:t7.sip.example.com");
        assert_eq!(uri("sip.example.com:5070"), "sip:t7.sip.example.com:5070");
        assert_eq!(uri("127.0.0.1:5060"), "sip:t7@127.0.0.1:5060");
        assert_eq!(uri("[2001:db8::1]:5060"), "sip:t7@[2001:db8::1]:5060");
        assert_eq!(uri("[::1]"), "sip:t7@[::1]");
        assert_eq!(uri("localhost:5060"), "sip:t7@localhost:5060");
    }

    #[test]
    fn a_change_tells_absent_from_null() {
        let change: AgentChange = serde_json::from_str(r#"{"description":null}"#).unwrap();
        assert_eq!((change.description, change.metadata), (Some(None), None));
    }

    #[test]
    fn metadata_is_an_object() {
        let new: NewAgent = serde_json::from_str(r#"{"name":"a","metadata":[1]}"#).unwrap();
        assert_eq!(new.validate().unwrap_err().field, "metadata");
    }
}
