//! A brief about a call, for the person who takes it over.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Speaker;
use crate::ids::ConversationId;

/// Who wrote a brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BriefSource {
    /// A language model.
    Model,
    /// Nobody: it was put together from the record.
    Assembled,
}

/// How the other party seems to feel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SentimentLevel {
    /// At ease.
    Calm,
    /// Annoyed.
    SlightlyFrustrated,
    /// Angry.
    Frustrated,
    /// Nobody has judged it.
    Unknown,
}

/// The mood of the other party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sentiment {
    /// In a word or two.
    pub label: String,
    /// In a word of this list.
    pub level: SentimentLevel,
}

/// What one sees first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BriefHeader {
    /// The other party's name; `Unknown Caller` if nobody said it.
    pub caller_name: String,
    /// Their number.
    pub phone_number: String,
    /// Whole seconds from answer to end; `null` while it lasts, and if it was never answered.
    pub call_duration_seconds: Option<i64>,
    /// Their mood.
    pub sentiment: Sentiment,
}

/// One thing that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Information {
    /// What it is.
    pub label: String,
    /// What is known of it.
    pub value: String,
}

/// One thing that could be done now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NextStep {
    /// What.
    pub step: String,
    /// How sure whoever suggests it is, from 0 to 1; `null` where nobody has judged it.
    #[serde(default)]
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub confidence: Option<f64>,
}

/// One turn of what was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SpokenTurn {
    /// Who spoke.
    pub role: Speaker,
    /// What.
    pub text: String,
}

/// What somebody should know who takes a call over from an agent. Made when it is asked for, and not kept.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Brief {
    /// What one sees first.
    pub header: BriefHeader,
    /// Why the call is handed on; `null` if nothing tells.
    pub transfer_reason: Option<String>,
    /// What it was about, in three to five sentences.
    pub call_summary: Vec<String>,
    /// What is known by now.
    pub information_collected: Vec<Information>,
    /// What could be done now, one to three things.
    pub suggested_next_steps: Vec<NextStep>,
    /// What was said, in order.
    pub transcript: Vec<SpokenTurn>,
    /// What is to be minded by law or policy; where nobody has judged it, nothing.
    pub compliance_flags: Vec<String>,
    /// The conversation that it is about. An extension of the contract.
    pub conversation_id: ConversationId,
    /// Who wrote it. An extension of the contract.
    pub source: BriefSource,
}
