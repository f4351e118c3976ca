//! Conversations that are asked for: calls out, and handing a call on.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Channel, DisplayedNumber, E164, Invalid, VersionRef, check_length};
use crate::ids::{AgentId, AgentVersionId, ConversationId};
use crate::limits;

/// A conversation to be started.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct NewConversation {
    /// What it is held over: `telephone` is served.
    pub channel: Channel,
    /// The other party: the number to call, in E.164 form.
    pub user_id: String,
    /// A UUID of the client's choosing. Asking again with it returns the conversation that is there
    /// and calls nobody a second time.
    #[serde(default)]
    pub id: Option<ConversationId>,
    /// Another name for `id`.
    #[serde(default)]
    pub conversation_id: Option<ConversationId>,
    /// The agent that talks.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// Which of its published versions, by number; absent or `latest` is the newest. Only with
    /// `agent_id`.
    #[serde(default)]
    pub version: Option<VersionRef>,
    /// The published version that talks.
    #[serde(default)]
    pub agent_version_id: Option<AgentVersionId>,
    /// The config of an agent that exists for this call only. Needs `agent_number`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub agent_config: Option<Value>,
    /// The number to call from, one of the organization's own; the callee sees it.
    #[serde(default)]
    pub agent_number: Option<E164>,
    /// What the agent is told beforehand.
    #[serde(default)]
    pub initial_context: Option<String>,
    /// The customer's own data, returned later.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub custom_metadata: Option<Map<String, Value>>,
    /// For email, which is not served here.
    #[serde(default)]
    pub to_address: Option<String>,
    /// For email, which is not served here.
    #[serde(default)]
    pub from_address: Option<String>,
    /// For email, which is not served here.
    #[serde(default)]
    pub subject: Option<String>,
}

impl NewConversation {
    /// Checks what types cannot, field by field, and returns the number to call.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<E164, Invalid> {
        if self.channel != Channel::Telephone {
            return Err(Invalid::new("channel", "is not served here; served is: telephone"));
        }
        let callee = self.user_id.parse::<E164>();
        let callee = callee.map_err(|why| Invalid::new("user_id", why.to_string()))?;
        for (field, value) in [
            ("to_address", &self.to_address),
            ("from_address", &self.from_address),
            ("subject", &self.subject),
        ] {
            if value.is_some() {
                return Err(Invalid::new(field, "is for the channel email"));
            }
        }
        if let Some(context) = &self.initial_context {
            check_length("initial_context", context, limits::INITIAL_CONTEXT_BYTES)?;
            if context.contains('\0') {
                return Err(Invalid::new("initial_context", "must not hold NUL characters"));
            }
        }
        let metadata =
            self.custom_metadata.as_ref().and_then(|map| serde_json::to_string(map).ok());
        if let Some(text) = metadata {
            check_length("custom_metadata", &text, limits::CUSTOM_METADATA_BYTES)?;
        }
        Ok(callee)
    }
}

/// A call to be handed to another number, without the agent (a cold transfer).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewTransfer {
    /// Where to.
    pub transfer_number: E164,
    /// Whose number is seen there.
    #[serde(default)]
    pub displayed_number: DisplayedNumber,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: Value) -> Result<NewConversation, serde_json::Error> {
        let mut body = json!({"channel": "telephone", "user_id": "+15550100"});
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        serde_json::from_value(body)
    }

    fn refused(change: Value) -> &'static str {
        read(change).unwrap().validate().unwrap_err().field
    }

    #[test]
    fn a_call_needs_little() {
        let new = read(json!({})).unwrap();
        assert_eq!(new.validate().unwrap().as_str(), "+15550100");
        assert_eq!((new.version, new.agent_number), (None, None));
    }

    #[test]
    fn a_version_is_a_number_or_the_latest() {
        let version = |value| read(json!({"version": value})).map(|new| new.version);
        assert_eq!(version(json!(3)).unwrap(), Some(VersionRef::Number(3)));
        assert_eq!(version(json!("latest")).unwrap(), Some(VersionRef::Latest));
        assert_eq!(version(Value::Null).unwrap(), None);
        for bad in [json!(0), json!(-1), json!(1.5), json!("3"), json!(u64::MAX), json!([1])] {
            assert!(version(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_text_keeps_to_its_kind_and_size() {
        assert_eq!(refused(json!({"channel": "text"})), "channel");
        for bad in ["", "sip:a@b", "15550100", "+1555\r\nVia: x", "+15550100;x=1", "+1555 0100"] {
            assert_eq!(refused(json!({"user_id": bad})), "user_id", "{bad}");
            assert!(read(json!({"agent_number": bad})).is_err(), "{bad}");
        }
        assert_eq!(refused(json!({"subject": "x"})), "subject");
        assert_eq!(refused(json!({"initial_context": "a\0b"})), "initial_context");
        assert_eq!(refused(json!({"initial_context": "x".repeat(65_537)})), "initial_context");
        assert_eq!(
            refused(json!({"custom_metadata": {"a": "x".repeat(16_384)}})),
            "custom_metadata"
        );
        let fine = json!({"initial_context": "two\nlines", "custom_metadata": {"a": [1, null]}});
        assert!(read(fine).unwrap().validate().is_ok());
    }

    #[test]
    fn a_transfer_goes_to_a_number() {
        let read = |value| serde_json::from_value::<NewTransfer>(value);
        let new = read(json!({"transfer_number": "+15550100"})).unwrap();
        assert_eq!(new.displayed_number, DisplayedNumber::TransfereeNumber);
        assert!(read(json!({"transfer_number": "+1555\r\nRefer-To: x"})).is_err());
        assert!(read(json!({"transfer_number": "sip:a@b"})).is_err());
        assert!(read(json!({"transfer_number": "+15550100", "displayed_number": "x"})).is_err());
    }
}
