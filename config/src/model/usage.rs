//! What an organisation used.

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;

/// What an organisation used in a period, as far as telephony and workflows know it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Usage {
    /// The first moment of the period.
    pub from: Timestamp,
    /// Its last.
    pub to: Timestamp,
    /// Minutes of talk: from answer to end, calls that are not over left out; to a hundredth.
    pub voice_minutes: f64,
    /// Conversations over telephone or browser, answered or not.
    pub voice_calls: i64,
    /// The same of conversations in writing.
    pub chat_minutes: f64,
    /// Conversations in writing: none are served here.
    pub chat_calls: i64,
    /// All conversations.
    pub total_calls: i64,
    /// Those that the other party started.
    pub inbound_calls: i64,
    /// Those that the agent started.
    pub outbound_calls: i64,
    /// Runs of stored workflows that are kept as records: the newest 10,000.
    pub workflow_runs_total: i64,
    /// Those that are over, with an output.
    pub workflow_runs_success: i64,
    /// Those that are over, with an error.
    pub workflow_runs_failed: i64,
}
