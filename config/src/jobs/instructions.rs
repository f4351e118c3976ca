//! Writing a version's instructions from its builder inputs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info;

use super::{Desk, Job, JobError, NewJob, Turn, Work, Working};
use crate::credential::ScopedTo;
use crate::ids::{AgentId, AgentVersionId};
use crate::llm::{self, Model, ModelError};
use crate::model::{InstructionsSource, InstructionsStatus, VersionRef};
use crate::store::{Store, StoreError};
use crate::texts;

/// Jobs that write instructions.
pub const GENERATE_INSTRUCTIONS: &str = "generate_instructions";

/// Which version's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Payload {
    agent_id: AgentId,
    version: u32,
}

/// The job that writes a version's instructions.
pub(crate) fn job(agent: AgentId, version: u32, id: AgentVersionId) -> NewJob {
    NewJob {
        kind: GENERATE_INSTRUCTIONS,
        subject: Some(id.to_string()),
        payload: json!(Payload { agent_id: agent, version }),
        rests: Duration::ZERO,
    }
}

/// Instructions, and who wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The instructions.
    pub text: String,
    /// Who wrote them.
    pub source: InstructionsSource,
}

/// Writes instructions from inputs: by the model, if there is one, else from structure.
pub(crate) async fn write(model: Option<&Model>, inputs: &Value) -> Result<Written, ModelError> {
    let Some(model) = model else { return Ok(assembled(inputs)) };
    let answer = model.ask(texts::instructions_prompt(inputs)).await?;
    let text = llm::whole(answer).await?;
    if !texts::is_usable(&text) {
        return Err(ModelError::Broken);
    }
    Ok(Written { text: text.trim().to_owned(), source: InstructionsSource::Model })
}

pub(crate) fn assembled(inputs: &Value) -> Written {
    Written { text: texts::assemble(inputs), source: InstructionsSource::Assembled }
}

/// The work of [`GENERATE_INSTRUCTIONS`].
pub struct GenerateInstructions {
    store: Store,
    model: Option<Model>,
}

impl GenerateInstructions {
    /// Writes with this model, or without.
    #[must_use]
    pub fn new(store: Store, model: Option<Model>) -> Self {
        Self { store, model }
    }

    async fn generate(&self, job: &Job) -> Result<Turn, JobError> {
        let (scope, payload) = (ScopedTo::by_gateway(job.organisation), read(job)?);
        let which = VersionRef::Number(payload.version);
        let version = match self.store.version(&scope, payload.agent_id, which).await {
            Err(StoreError::NotFound(_)) => return Ok(Turn::Done(Value::Null)), // deleted meanwhile
            found => found?,
        };
        if version.instructions_status != InstructionsStatus::Generating {
            return Ok(Turn::Done(Value::Null)); // written before a crash
        }
        let inputs = version.instruction_builder_inputs.unwrap_or_default();
        let written = write(self.model.as_ref(), &inputs).await.map_err(of_model)?;
        info!(source = ?written.source, "instructions are written");
        self.store.finish_generation(&scope, payload.agent_id, which, Some(written)).await?;
        Ok(Turn::Done(Value::Null))
    }

    async fn fail(&self, job: &Job) -> Result<(), StoreError> {
        let Ok(payload) = read(job) else { return Ok(()) };
        let (scope, which) =
            (ScopedTo::by_gateway(job.organisation), VersionRef::Number(payload.version));
        match self.store.finish_generation(&scope, payload.agent_id, which, None).await {
            Err(StoreError::NotFound(_) | StoreError::Conflict(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Work for GenerateInstructions {
    fn run<'a>(&'a self, job: &'a Job, _desk: &'a Desk) -> Working<'a, Result<Turn, JobError>> {
        Box::pin(self.generate(job))
    }

    fn give_up<'a>(&'a self, job: &'a Job) -> Working<'a, Result<(), StoreError>> {
        Box::pin(self.fail(job))
    }
}

fn read(job: &Job) -> Result<Payload, JobError> {
    let unreadable = |_| JobError::Final("the job cannot be read".to_owned());
    Payload::deserialize(&job.payload).map_err(unreadable)
}

pub(crate) fn of_model(error: ModelError) -> JobError {
    if error.is_passing() {
        JobError::Passing(error.to_string())
    } else {
        JobError::Final(error.to_string())
    }
}
