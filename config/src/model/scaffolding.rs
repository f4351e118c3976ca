//! Agents that are made from a company's website, in the background.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{E164, Invalid, check_length, check_name, null_is_absent};
use crate::clock::Timestamp;
use crate::ids::{AgentId, JobId};
use crate::limits;

/// A job that was begun; it is asked about at `/core/agents/scaffolding/{workflow_id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ScaffoldingStarted {
    /// The job.
    pub workflow_id: JobId,
}

/// Instructions that are being written; the version tells when they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct GenerationStarted {
    /// Always `generating`.
    pub status: super::InstructionsStatus,
}

/// An agent to be made from a company's website.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewWebsiteAgent {
    /// The company.
    pub company_name: String,
    /// Its website; `https://` is added where nothing stands in front.
    pub company_website: String,
    /// What it does, in its own words.
    #[serde(default)]
    pub company_overview: Option<String>,
    /// Whether the agent is a demonstration.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(value_type = Option<bool>)]
    pub is_demo: bool,
    /// Leave the version a draft, and the agent without a SIP endpoint.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(value_type = Option<bool>)]
    pub skip_deployment: bool,
    /// The voice it speaks with; kept in the config.
    #[serde(default)]
    pub voice_id: Option<String>,
    /// Its picture; kept in the agent's metadata, never fetched.
    #[serde(default)]
    pub avatar_url: Option<String>,
    /// The agent that gets a new version, instead of a new agent.
    #[serde(default)]
    pub existing_agent_id: Option<AgentId>,
    /// A knowledge base to attach; kept in the config.
    #[serde(default)]
    pub existing_collection_id: Option<String>,
    /// What kind of demonstration it is; kept in the agent's metadata.
    #[serde(default)]
    pub demo_type: Option<String>,
}

/// A demonstration to be made from a company's website.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewDemo {
    /// The company's website; `https://` is added where nothing stands in front.
    pub company_website: String,
    /// What the agent is to do.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Get it a phone number of its own, where the node has a managed account.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(value_type = Option<bool>)]
    pub include_phone_number: bool,
}

impl NewWebsiteAgent {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("company_name", &self.company_name)?;
        check_text("company_overview", self.company_overview.as_deref())?;
        for (field, value) in [
            ("voice_id", &self.voice_id),
            ("existing_collection_id", &self.existing_collection_id),
            ("demo_type", &self.demo_type),
        ] {
            value.as_deref().map_or(Ok(()), |value| check_name(field, value))?;
        }
        Ok(())
    }
}

impl NewDemo {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_text("instructions", self.instructions.as_deref())
    }
}

fn check_text(field: &'static str, text: Option<&str>) -> Result<(), Invalid> {
    text.map_or(Ok(()), |text| check_length(field, text, limits::TEXT_BYTES))
}

/// How far such a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaffoldingStatus {
    /// It waits for its turn, or for another attempt.
    Queued,
    /// It is being done.
    Running,
    /// The agent is there.
    Completed,
    /// It came to nothing; `error` says why.
    Failed,
}

/// What such a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaffoldingStep {
    /// The website is read.
    #[default]
    ReadingWebsite,
    /// Instructions are written.
    WritingInstructions,
    /// The agent is made, if it is a new one.
    CreatingAgent,
    /// The version is made.
    CreatingVersion,
    /// The version is published, and the agent gets its SIP endpoint.
    Deploying,
    /// A phone number is chosen.
    ChoosingNumber,
    /// It is bought, and the version put into its inbound slot.
    AssigningNumber,
    /// Nothing is left to do.
    Done,
}

/// A job that makes an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Scaffolding {
    /// The job.
    pub workflow_id: JobId,
    /// How far it has come.
    pub status: ScaffoldingStatus,
    /// What it is doing, or was doing when it failed.
    pub step: ScaffoldingStep,
    /// The agent, as soon as it is there.
    pub agent_id: Option<AgentId>,
    /// The version, as soon as it is there.
    pub version: Option<u32>,
    /// The phone number, as soon as it is the agent's.
    pub phone_number: Option<E164>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// Why it failed, or why the last attempt did.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last came further.
    pub updated_at: Timestamp,
}
