//! Runs in the background: jobs that go on over waits and restarts.
//!
//! Steps have effects outside (a request, an action), so none is done twice: before a run goes on, the
//! job's progress says so, and a run that is found begun after a crash has failed as `interrupted`. Only
//! in the middle of a long wait is there a checkpoint to go on from. What a run came to is written again
//! and again while the store is away: the run itself cannot be had again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::warn;

use super::{Failure, FailureKind, Outcome, RunRequest, Stopped, Workflows};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{ExecutionId, OrganisationId};
use crate::jobs::{Desk, Job, JobError, NewJob, Turn, Work, Working};
use crate::model::{Execution, VersionRef};
use crate::store::{Store, StoreError};

/// Jobs that run workflows.
pub const RUN_WORKFLOW: &str = "run_workflow";

/// How long a run may take if its definition does not say.
const TIME_LIMIT: Duration = Duration::from_secs(3_600);

/// Pause before what the store could not take is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// Which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Payload {
    execution_id: ExecutionId,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// Somebody is at it, or was when the program stopped.
    begun: bool,
    /// Where it waits.
    checkpoint: Option<Value>,
}

/// The job that does a run.
pub(crate) fn job(execution: ExecutionId) -> NewJob {
    NewJob {
        kind: RUN_WORKFLOW,
        subject: Some(execution.to_string()),
        payload: json!(Payload { execution_id: execution }),
    }
}

/// Does runs in the background.
pub struct RunWorkflow {
    store: Store,
    engine: Arc<dyn Workflows>,
}

impl std::fmt::Debug for RunWorkflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunWorkflow").finish_non_exhaustive()
    }
}

impl RunWorkflow {
    /// Does them with this engine.
    #[must_use]
    pub fn new(store: Store, engine: Arc<dyn Workflows>) -> Self {
        Self { store, engine }
    }

    async fn turn(&self, job: &Job, desk: &Desk) -> Result<Turn, JobError> {
        let (scope, id) = whose(job)?;
        let execution = match self.store.execution(&scope, id).await {
            Err(StoreError::NotFound(_)) => return Ok(Turn::Done(Value::Null)), // forgotten meanwhile
            found => found?,
        };
        if execution.status.is_over() {
            return Ok(Turn::Done(Value::Null));
        }
        let Progress { begun, checkpoint } =
            serde_json::from_value(job.progress.clone()).unwrap_or_default();
        if begun {
            return self.end(&scope, id, interrupted(STOPPED)).await;
        }
        let request = match self.request(&scope, &execution).await {
            Err(StoreError::NotFound(why) | StoreError::Refused(why)) => {
                return self.end(&scope, id, failed(format!("{why}: it was deleted"))).await;
            }
            request => request?,
        };
        self.store.advance_execution(&scope, id, None).await?;
        desk.save(&json!(Progress { begun: true, checkpoint: None })).await?;
        match self.engine.advance(request, checkpoint).await {
            Stopped::Ended(outcome) => self.end(&scope, id, outcome).await,
            Stopped::Waiting { time, checkpoint } => {
                let until = self.store.now().after(time);
                let progress = json!(Progress { begun: false, checkpoint: Some(checkpoint) });
                persist(|| desk.save(&progress)).await?;
                persist(|| self.pause(&scope, id, until)).await?;
                Ok(Turn::Later(until))
            }
        }
    }

    async fn pause(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
        until: Timestamp,
    ) -> Result<(), JobError> {
        match self.store.advance_execution(scope, id, Some(until)).await {
            Err(StoreError::NotFound(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn request(
        &self,
        scope: &ScopedTo<OrganisationId>,
        execution: &Execution,
    ) -> Result<RunRequest, StoreError> {
        let which = VersionRef::Number(execution.workflow_version);
        let (_, definition) =
            self.store.workflow_definition(scope, execution.workflow_id, which).await?;
        let limit = definition.time_limit().unwrap_or(TIME_LIMIT);
        let over = execution.created_at.after(limit).micros();
        let left = over.saturating_sub(self.store.now().micros());
        Ok(RunRequest {
            organisation: scope.organisation(),
            definition,
            input: execution.input_data.clone(),
            initial_step: None,
            limit: Duration::from_micros(u64::try_from(left).unwrap_or(0)),
        })
    }

    async fn end(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
        outcome: Outcome,
    ) -> Result<Turn, JobError> {
        persist(|| self.write_end(scope, id, outcome.clone())).await?;
        Ok(Turn::Done(Value::Null))
    }

    /// A run that is no longer there, its organisation gone, has nothing to be written.
    async fn write_end(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        match self.store.finish_execution(scope, id, outcome).await {
            Err(StoreError::NotFound(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn fail(&self, job: &Job) -> Result<(), StoreError> {
        let Ok((scope, id)) = whose(job) else { return Ok(()) };
        self.write_end(&scope, id, interrupted(STOPPED)).await
    }
}

impl Work for RunWorkflow {
    fn run<'a>(&'a self, job: &'a Job, desk: &'a Desk) -> Working<'a, Result<Turn, JobError>> {
        Box::pin(self.turn(job, desk))
    }

    fn give_up<'a>(&'a self, job: &'a Job) -> Working<'a, Result<(), StoreError>> {
        Box::pin(self.fail(job))
    }
}

fn whose(job: &Job) -> Result<(ScopedTo<OrganisationId>, ExecutionId), JobError> {
    let unreadable = |_| JobError::Final("the job cannot be read".to_owned());
    let payload = Payload::deserialize(&job.payload).map_err(unreadable)?;
    Ok((ScopedTo::by_gateway(job.organisation), payload.execution_id))
}

/// Writes until the store has taken it; the lease says for how long that makes sense.
async fn persist<E: Into<JobError>, Write: Future<Output = Result<(), E>>>(
    write: impl Fn() -> Write,
) -> Result<(), JobError> {
    loop {
        match write().await.map_err(E::into) {
            Err(JobError::Passing(why)) => warn!(why, "what a workflow came to is not written yet"),
            written => return written,
        }
        sleep(WRITE_AGAIN).await;
    }
}

const STOPPED: &str = "the program was stopped while it ran";

/// A run that was cut short, and by what.
pub(crate) fn interrupted(why: &str) -> Outcome {
    ended(FailureKind::Interrupted, why.to_owned())
}

fn failed(message: String) -> Outcome {
    ended(FailureKind::Threw, message)
}

fn ended(kind: FailureKind, message: String) -> Outcome {
    Outcome { result: Err(Failure { step_name: String::new(), message, kind }), trace: Vec::new() }
}
