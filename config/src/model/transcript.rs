//! What was said in a conversation, as whoever heard it writes it down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Invalid, check_length, present};
use crate::limits::{NAME_BYTES, TEXT_BYTES, TRANSCRIPT_BYTES, TRANSCRIPT_ITEMS};

/// Who spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// The other party.
    User,
    /// The agent.
    Assistant,
}

/// One thing that happened in a conversation: a turn, or what a tool was asked and said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TranscriptItem {
    /// What it is: `message`, `function_call`, `function_call_output`, or a word of your own.
    #[serde(rename = "type")]
    #[schema(min_length = 1, max_length = 255)]
    pub kind: String,
    /// Who spoke; a message has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub role: Option<Speaker>,
    /// What was said; a message has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<String>>,
    /// Whatever else is known of it: `call_id`, latencies, whether it was interrupted.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// What was said in a conversation, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Transcript {
    /// Turns and calls of tools.
    #[schema(max_items = 2_000)]
    pub items: Vec<TranscriptItem>,
}

impl Transcript {
    /// How often the other party spoke.
    #[must_use]
    pub fn user_turns(&self) -> usize {
        let spoke =
            |item: &&TranscriptItem| item.kind == MESSAGE && item.role == Some(Speaker::User);
        self.items.iter().filter(spoke).count()
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn validate(&self) -> Result<(), Invalid> {
        let refuse = |why: String| Err(Invalid::new("conversation.items", why));
        if self.items.len() > TRANSCRIPT_ITEMS.value_usize() {
            return refuse(format!("must be at most {}", TRANSCRIPT_ITEMS.value));
        }
        for (index, item) in self.items.iter().enumerate() {
            if item.kind.is_empty() || item.kind.len() > NAME_BYTES.value_usize() {
                return refuse(format!("item {index} needs a type"));
            }
            if item.kind == MESSAGE && (item.role.is_none() || item.content.is_none()) {
                return refuse(format!("item {index} is a message: it needs role and content"));
            }
        }
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |text| text.len());
        if bytes > TRANSCRIPT_BYTES.value_usize() {
            let why = format!("must be at most {} bytes as JSON", TRANSCRIPT_BYTES.value);
            return Err(Invalid::new("conversation", why));
        }
        Ok(())
    }
}

const MESSAGE: &str = "message";

/// What is written down about a conversation by whoever held it: an absent key leaves things as they are.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct Annotation {
    /// What was said, whole; `null` forgets it. The turns of the other party are counted from it.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Transcript>)]
    pub conversation: Option<Option<Transcript>>,
    /// What it was about; `null` forgets it.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub summary: Option<Option<String>>,
}

impl Annotation {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(Some(summary)) = &self.summary {
            check_length("summary", summary, TEXT_BYTES)?;
        }
        match &self.conversation {
            Some(Some(transcript)) => transcript.validate(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(items: Value) -> Transcript {
        serde_json::from_value(json!({ "items": items })).unwrap()
    }

    #[test]
    fn only_what_the_other_party_said_is_a_turn_of_theirs() {
        let said = |role| json!({ "type": "message", "role": role, "content": ["x"] });
        let call = json!({ "type": "function_call", "name": "look_up", "call_id": "1" });
        let transcript = read(json!([said("assistant"), said("user"), call, said("user")]));
        assert_eq!(transcript.user_turns(), 2);
        assert!(transcript.validate().is_ok());
    }

    #[test]
    fn what_is_more_of_an_item_is_kept() {
        let items = json!([{ "type": "message", "role": "user", "content": ["x"],
            "e2e_latency": 0.4, "interrupted": false }]);
        assert_eq!(serde_json::to_value(read(items.clone())).unwrap()["items"], items);
    }

    #[test]
    fn a_transcript_keeps_to_its_bounds() {
        let said = json!({ "type": "message", "role": "user", "content": ["x"] });
        let field = |items: Value| read(items).validate().map_err(|why| why.field);
        assert_eq!(field(json!([{ "type": "" }])), Err("conversation.items"));
        assert_eq!(
            field(json!([{ "type": "message", "role": "user" }])),
            Err("conversation.items")
        );
        assert_eq!(field(vec![said.clone(); 2_000].into()), Ok(()));
        assert_eq!(field(vec![said; 2_001].into()), Err("conversation.items"));
        let long = "x".repeat(TRANSCRIPT_BYTES.value_usize());
        assert_eq!(field(json!([{ "type": "note", "text": long }])), Err("conversation"));
    }
}
