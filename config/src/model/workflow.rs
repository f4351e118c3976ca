//! Workflows, their versions, and what their runs leave behind.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Conversation, Invalid, VersionRef, check_length, check_name, present};
use crate::clock::Timestamp;
use crate::ids::{ConversationId, ExecutionId, OrganisationId, WorkflowId};
use crate::limits;
use crate::workflows::{FailureKind, Outcome, TraceEntry, discreet};

/// A workflow, as the API returns it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Workflow {
    /// Its id.
    pub id: WorkflowId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Its name, for people.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The number of its newest version.
    pub latest_version: u32,
    /// The number of its newest published version: the one that `latest` runs.
    pub latest_published_version: Option<u32>,
    /// When it was made; unique among workflows.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A workflow to be made, with its first draft.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NewWorkflow {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// The definition of version 1.
    #[schema(value_type = Object)]
    pub definition: Value,
}

impl NewWorkflow {
    /// Checks what can be checked without the engine.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)?;
        self.description
            .as_deref()
            .map_or(Ok(()), |text| check_length("description", text, limits::TEXT_BYTES))
    }
}

/// What is to become of a workflow; absent keys stay as they are.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct WorkflowChange {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// What it is for; `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
}

impl WorkflowChange {
    /// Checks what can be checked without the stored row.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(name) = &self.name {
            check_name("name", name)?;
        }
        match &self.description {
            Some(Some(text)) => check_length("description", text, limits::TEXT_BYTES),
            _ => Ok(()),
        }
    }
}

/// A version of a workflow. A draft until it is published, and immutable from then on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkflowVersion {
    /// Its workflow.
    pub workflow_id: WorkflowId,
    /// 1, 2, 3 … within the workflow.
    pub version: u32,
    /// Whether it is published, which is for good: only then can it be run.
    pub published: bool,
    /// The definition, as it was written.
    #[schema(value_type = Object)]
    pub definition: Value,
    /// When it was made; unique among versions.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A version as lists show it: without its definition, which may be large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WorkflowVersionSummary {
    /// Its workflow.
    pub workflow_id: WorkflowId,
    /// 1, 2, 3 … within the workflow.
    pub version: u32,
    /// Whether it is published.
    pub published: bool,
    /// When it was made; unique among versions.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A draft to be made: from a definition, or as a copy.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct NewWorkflowVersion {
    /// The definition.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub definition: Option<Value>,
    /// The version it is a copy of.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub base_version: Option<u32>,
}

/// Another definition for a draft.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct WorkflowVersionChange {
    /// The definition.
    #[schema(value_type = Object)]
    pub definition: Value,
}

/// A run that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct NewExecution {
    /// Which workflow.
    pub workflow_id: WorkflowId,
    /// Which published version: a number, or `latest` for the newest.
    pub workflow_version: VersionRef,
    /// What stands under `input` in the context: 256 KiB of JSON at most.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub input_data: Option<Value>,
}

impl NewExecution {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The input, when it is larger than what a step may give.
    pub fn validate(&self) -> Result<(), Invalid> {
        let bytes = self.input_data.as_ref().map_or(0, |input| input.to_string().len());
        if bytes > limits::WORKFLOW_OUTPUT_BYTES.value_usize() {
            let most = limits::WORKFLOW_OUTPUT_BYTES.value;
            return Err(Invalid::new(
                "input_data",
                format!("must be at most {most} bytes of JSON"),
            ));
        }
        Ok(())
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// Not begun.
    Queued,
    /// At work.
    Running,
    /// In the middle of a wait.
    Waiting,
    /// Over, with an output.
    Success,
    /// Over, with an error.
    Failed,
}

impl ExecutionStatus {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

/// Where and why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecutionError {
    /// The step's name, or its id if it has none.
    pub step_name: String,
    /// What happened.
    pub message: String,
    /// The kind of failure.
    pub kind: FailureKind,
}

impl ExecutionError {
    /// Without words that may quote what the step was given.
    fn discreet(mut self) -> Self {
        self.message = discreet(&self.step_name, self.kind, &self.message).to_owned();
        self
    }
}

/// How much of a conversation somebody may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// That there was one, and whose.
    IdsOnly,
    /// All but what is sensitive.
    NotSensitive,
    /// All.
    Whole,
}

/// What those are told of a conversation who may not see it.
const TRIGGER_IDS: [&str; 5] =
    ["type", "conversation_id", "agent_id", "agent_version_id", "organization_id"];

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Execution {
    /// Its id.
    pub execution_id: ExecutionId,
    /// Whose it is.
    pub organization_id: OrganisationId,
    /// What was run; null for a workflow that stands in an agent's config.
    pub workflow_id: Option<WorkflowId>,
    /// Which version of it.
    pub workflow_version: Option<u32>,
    /// The conversation after which it runs; null for one that was asked for.
    pub conversation_id: Option<ConversationId>,
    /// How far it has come.
    pub status: ExecutionStatus,
    /// What it was given.
    #[schema(value_type = Object)]
    pub input_data: Value,
    /// What it gave.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Value>,
    /// Why it gave nothing.
    pub error: Option<ExecutionError>,
    /// Every step it entered, in order; of a run in the background only once it is over.
    pub trace: Vec<TraceEntry>,
    /// When it goes on, while it waits.
    pub resume_at: Option<Timestamp>,
    /// When it was asked for; unique among runs.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Execution {
    /// As it is for who may see this much of conversations: of a run after one, no more than that in what
    /// it was given, and nothing of what its steps made of the rest.
    #[must_use]
    pub(crate) fn shown(mut self, sight: Sight) -> Self {
        if self.conversation_id.is_none() || sight == Sight::Whole {
            return self;
        }
        let trigger = self.input_data.get_mut("trigger").and_then(Value::as_object_mut);
        if let Some(trigger) = trigger {
            trigger.retain(|name, _| match sight {
                Sight::IdsOnly => TRIGGER_IDS.contains(&name.as_str()),
                Sight::NotSensitive | Sight::Whole => {
                    !Conversation::SENSITIVE.contains(&name.as_str())
                }
            });
        }
        self.output = None;
        for entry in &mut self.trace {
            entry.summary.clear();
        }
        self.error = self.error.map(ExecutionError::discreet);
        self
    }

    /// Whether it is over because somebody cancelled it.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind == FailureKind::Cancelled)
    }

    /// The run is over, like this.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.trace = outcome.trace;
        self.resume_at = None;
        match outcome.result {
            Ok(output) => {
                self.status = ExecutionStatus::Success;
                self.output = Some(output);
            }
            Err(failure) => {
                self.status = ExecutionStatus::Failed;
                self.error = Some(ExecutionError {
                    step_name: failure.step_name,
                    message: failure.message,
                    kind: failure.kind,
                });
            }
        }
    }
}

/// A run as lists show it: without what went in, what came out and the steps between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExecutionSummary {
    /// Its id.
    pub execution_id: ExecutionId,
    /// Whose it is.
    pub organization_id: OrganisationId,
    /// What was run; null for a workflow that stands in an agent's config.
    pub workflow_id: Option<WorkflowId>,
    /// Which version of it.
    pub workflow_version: Option<u32>,
    /// The conversation after which it runs; null for one that was asked for.
    pub conversation_id: Option<ConversationId>,
    /// How far it has come.
    pub status: ExecutionStatus,
    /// Why it gave nothing.
    pub error: Option<ExecutionError>,
    /// When it goes on, while it waits.
    pub resume_at: Option<Timestamp>,
    /// When it was asked for; unique among runs.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl ExecutionSummary {
    /// As it is for who may see this much of conversations.
    #[must_use]
    pub(crate) fn shown(mut self, sight: Sight) -> Self {
        if self.conversation_id.is_some() && sight != Sight::Whole {
            self.error = self.error.map(ExecutionError::discreet);
        }
        self
    }
}

/// Which workflows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkflowFilter {
    /// Part of the name, whatever the case.
    pub name: Option<String>,
    /// When.
    pub period: super::Period,
}

/// Which runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecutionFilter {
    /// Of this workflow.
    pub workflow_id: Option<WorkflowId>,
    /// After this conversation.
    pub conversation_id: Option<ConversationId>,
    /// That have come so far.
    pub status: Option<ExecutionStatus>,
    /// When.
    pub period: super::Period,
}
