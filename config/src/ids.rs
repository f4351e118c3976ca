//! Identifiers of everything a customer can name.
//!
//! Each is a random UUID (version 4) of its own type, so that a trunk's id can never be passed where
//! an agent's is wanted. On the wire, in the store and in SIP URIs they are the hyphenated lower-case
//! text of RFC 9562 section 4; any spelling of that RFC is accepted on input.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

/// The text was not a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a UUID")]
pub struct NotAnId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ToSchema)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh random id.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id with exactly these 128 bits.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The 128 bits.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(/// An organisation: the owner of everything else.
    OrganisationId);
id!(/// A trunk: the relation to one carrier or PBX.
    TrunkId);
id!(/// An agent; also the user part of its SIP endpoint's URI.
    AgentId);
id!(/// One version of an agent; what a number's slots hold.
    AgentVersionId);
id!(/// A conversation: the record of one call.
    ConversationId);
id!(/// An API key; the public half of `ak_<id>.<secret>`.
    KeyId);
id!(/// A purchase of a phone number through a managed account.
    OrderId);
id!(/// A user: a person, whatever organisations they belong to.
    UserId);
id!(/// A personal access token; the public half of `pat_<id>.<secret>`.
    TokenId);
id!(/// A job: work that goes on after its request was answered.
    JobId);
id!(/// The inbound routing of an organisation.
    InboundRoutingConfigId);
id!(/// A decision record: why one INVITE was refused.
    DecisionId);
id!(/// A webhook: where events are posted to.
    WebhookId);
id!(/// An event of a call; the same in every delivery of it.
    EventId);
id!(/// A delivery: one event on its way to one webhook.
    DeliveryId);

id!(/// One run of a workflow.
    ExecutionId);

/// A workflow: on the wire `wf_` and the 32 digits of a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, pattern = "^wf_[0-9a-f]{32}$", example = "wf_67e5504410b1426f9247bb680e5fe0c8")]
pub struct WorkflowId(Uuid);

impl WorkflowId {
    const PREFIX: &'static str = "wf_";

    /// A fresh random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0.simple())
    }
}

impl FromStr for WorkflowId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(NotAnId)?;
        let id = Uuid::try_parse(digits).map(Self).map_err(|_| NotAnId)?;
        // One spelling only: it is compared as text.
        if id.to_string() == text { Ok(id) } else { Err(NotAnId) }
    }
}

impl Serialize for WorkflowId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkflowId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom("is not a workflow's id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_as_it_parses() {
        let id: TrunkId = "67E55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        assert_eq!(id.to_string(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<TrunkId>(&format!("\"{id}\"")).unwrap(), id);
    }

    #[test]
    fn a_workflows_id_has_one_spelling() {
        let id = WorkflowId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<WorkflowId>(), Err(NotAnId));
        let hyphenated = "wf_67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert_eq!(hyphenated.parse::<WorkflowId>(), Err(NotAnId));
        assert_eq!("67e5504410b1426f9247bb680e5fe0c8".parse::<WorkflowId>(), Err(NotAnId));
    }

    #[test]
    fn what_is_no_uuid_is_no_id() {
        assert_eq!("agent_1".parse::<AgentId>(), Err(NotAnId));
        assert!(serde_json::from_str::<AgentId>("\"\"").is_err());
    }
}
