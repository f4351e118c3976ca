//! Runs in the background: jobs that go on over waits and restarts.
//!
//! Steps have effects outside (a request, an action), so none is done twice: before a run goes on, the
//! job's progress says so, and a run that is found begun after a crash has failed as `interrupted`. Only
//! in the middle of a long wait is there a checkpoint to go on from, and with it until when: a job that
//! was given back early, its node stopped, waits on. What a run came to is written again and again while
//! the store is away: the run itself cannot be had again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::warn;

use super::{
    Definition, Failure, FailureKind, Outcome, RunRequest, Stopped, TraceEntry, Workflows,
};
use crate::briefing::{self, ActionWorkflow, WorkflowAction};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{ExecutionId, OrganisationId};
use crate::jobs::{Desk, Job, JobError, NewJob, Turn, Work, Working};
use crate::model::{Execution, VersionRef};
use crate::store::{Store, StoreError};

/// Jobs that run workflows.
pub const RUN_WORKFLOW: &str = "run_workflow";

/// Jobs that run workflows after conversations: whatever else an organisation runs, they get their turn.
pub const RUN_AFTER_CONVERSATION: &str = "run_after_conversation";

/// All kinds of jobs that run workflows.
pub(crate) const KINDS: [&str; 2] = [RUN_WORKFLOW, RUN_AFTER_CONVERSATION];

/// How long a run after a conversation is left: whoever held the conversation hears of its end as well,
/// and writes down what was said. Once that is there, the run is left no longer.
const GRACE: Duration = Duration::from_secs(10);

/// Where a checkpoint of the engine has the steps that were done. All else in it is the engine's own.
const TRACE: &str = "/progress/trace";

/// How long a run may take if its definition does not say.
const TIME_LIMIT: Duration = Duration::from_secs(3_600);

/// Pause before what the store could not take is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// Which run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Payload {
    execution_id: ExecutionId,
    /// Of a run after a conversation: the field of the agent's config, JSON, as it stood at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<String>,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// Somebody is at it, or was when the program stopped.
    begun: bool,
    /// When its first turn was: the time that it may take counts from there.
    began_at: Option<Timestamp>,
    /// How long it waits. The job's own time is no answer: it is lost when the node stops.
    until: Option<Timestamp>,
    /// Where it waits, or where it went on from.
    checkpoint: Option<Value>,
}

impl Progress {
    fn of(progress: &Value) -> Self {
        Self::deserialize(progress).unwrap_or_default()
    }

    /// How a run ended that the engine did not end: with the steps that it had done at its last wait.
    fn ended(self, kind: FailureKind, message: String) -> Outcome {
        let trace = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.pointer(TRACE));
        let trace = trace.and_then(|trace| Vec::<TraceEntry>::deserialize(trace).ok());
        let failure = Failure { step_name: String::new(), message, kind };
        Outcome { result: Err(failure), trace: trace.unwrap_or_default() }
    }

    fn interrupted(self, why: &str) -> Outcome {
        self.ended(FailureKind::Interrupted, why.to_owned())
    }
}

/// The job that does a run: of the version that it names, or what an agent has done after a conversation.
pub(crate) fn job(execution: ExecutionId, action: Option<&str>) -> NewJob {
    let payload = Payload { execution_id: execution, action: action.map(str::to_owned) };
    let (kind, rests) = match action {
        Some(_) => (RUN_AFTER_CONVERSATION, GRACE),
        None => (RUN_WORKFLOW, Duration::ZERO),
    };
    NewJob { kind, subject: Some(execution.to_string()), payload: json!(payload), rests }
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
        let (scope, id, action) = whose(job)?;
        let execution = match self.store.execution(&scope, id).await {
            Err(StoreError::NotFound(_)) => return Ok(Turn::Done(Value::Null)), // forgotten meanwhile
            found => found?,
        };
        if execution.status.is_over() {
            return Ok(Turn::Done(Value::Null));
        }
        let progress = Progress::of(&job.progress);
        if progress.begun {
            return self.end(&scope, id, progress.interrupted(STOPPED)).await;
        }
        let now = self.store.now();
        let execution = match (progress.began_at, execution.conversation_id) {
            (None, Some(_)) => self.store.brief_execution(&scope, id).await?,
            _ => execution,
        };
        let began_at = progress.began_at.unwrap_or(now);
        let (condition, request) = match self.request(&execution, action, began_at).await {
            Err(error @ (StoreError::NotFound(_) | StoreError::Refused(_))) => {
                let ended = progress.ended(FailureKind::Threw, why_not(error));
                return self.end(&scope, id, ended).await;
            }
            request => request?,
        };
        // Only now: with its workflow deleted, it has nothing to wait for.
        if let Some(until) = progress.until.filter(|until| *until > now) {
            return Ok(Turn::Later(until));
        }
        // A run that has come to a wait has met its condition; asking has no effects, so that it may be
        // asked again after a crash.
        if let Some(condition) = condition.filter(|_| progress.checkpoint.is_none()) {
            let said = self.engine.run(condition).await;
            match briefing::holds(&said) {
                Ok(true) => {}
                Ok(false) => return self.forget(&scope, id).await,
                Err(why) if why.kind == FailureKind::Busy => {
                    return Ok(Turn::Later(now.after(WRITE_AGAIN)));
                }
                Err(_) => return self.end(&scope, id, said).await,
            }
        }
        let begun = Progress { begun: true, began_at: Some(began_at), until: None, ..progress };
        if !self.advance(desk, &scope, id, &begun).await? {
            return Ok(Turn::Done(Value::Null));
        }
        match self.engine.advance(request, begun.checkpoint).await {
            Stopped::Ended(outcome) => self.end(&scope, id, outcome).await,
            Stopped::Waiting { time, checkpoint } => {
                let until = self.store.now().after(time);
                let waits = Progress {
                    begun: false,
                    began_at: Some(began_at),
                    until: Some(until),
                    checkpoint: Some(checkpoint),
                };
                match persist(|| self.advance(desk, &scope, id, &waits)).await? {
                    true => Ok(Turn::Later(until)),
                    false => Ok(Turn::Done(Value::Null)),
                }
            }
        }
    }

    /// Writes how far a run has come, in its job and for its owner; says whether it is to go on.
    async fn advance(
        &self,
        desk: &Desk,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
        progress: &Progress,
    ) -> Result<bool, JobError> {
        let written = (desk.lease(), &json!(progress));
        match self.store.advance_execution(scope, id, progress.until, written).await {
            Ok(Some(execution)) => Ok(!execution.status.is_over()),
            Ok(None) => Err(JobError::LeaseLost),
            Err(StoreError::NotFound(_)) => Ok(false), // forgotten meanwhile
            Err(error) => Err(error.into()),
        }
    }

    /// What is asked of the engine: the condition of a run, if it has one, and the run.
    async fn request(
        &self,
        execution: &Execution,
        action: Option<String>,
        began_at: Timestamp,
    ) -> Result<(Option<RunRequest>, RunRequest), StoreError> {
        let action = action.as_deref().map(read_action).transpose()?;
        let definition = match action.as_ref().map(|action| &action.workflow) {
            Some(ActionWorkflow::Inline(definition)) => Arc::clone(definition),
            _ => self.stored(execution).await?,
        };
        let limit = definition.time_limit().unwrap_or(TIME_LIMIT);
        let left = began_at.after(limit).micros().saturating_sub(self.store.now().micros());
        let request = |definition, initial_step| RunRequest {
            organisation: execution.organization_id,
            definition,
            input: execution.input_data.clone(),
            initial_step,
            limit: Duration::from_micros(u64::try_from(left).unwrap_or(0)),
        };
        let (condition, first) =
            action.map_or((None, None), |action| (action.condition, action.initial_step));
        Ok((condition.map(|asked| request(asked, None)), request(definition, first)))
    }

    /// The definition of the version that a run names.
    async fn stored(&self, execution: &Execution) -> Result<Arc<Definition>, StoreError> {
        let scope = ScopedTo::by_gateway(execution.organization_id);
        let id =
            execution.workflow_id.ok_or_else(|| StoreError::NotFound("Workflow".to_owned()))?;
        let which = execution.workflow_version.map_or(VersionRef::Latest, VersionRef::Number);
        Ok(self.store.workflow_definition(&scope, id, which).await?.1)
    }

    /// Nothing is to be run, and so there is no run.
    async fn forget(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
    ) -> Result<Turn, JobError> {
        persist(|| self.store.forget_execution(scope, id)).await?;
        Ok(Turn::Done(Value::Null))
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
        let Ok((scope, id, _)) = whose(job) else { return Ok(()) };
        self.write_end(&scope, id, Progress::of(&job.progress).interrupted(STOPPED)).await
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

/// Whose run it is, which, and what an agent has done if it is one after a conversation.
type Which = (ScopedTo<OrganisationId>, ExecutionId, Option<String>);

fn whose(job: &Job) -> Result<Which, JobError> {
    let unreadable = |_| JobError::Final("the job cannot be read".to_owned());
    let Payload { execution_id, action } =
        Payload::deserialize(&job.payload).map_err(unreadable)?;
    Ok((ScopedTo::by_gateway(job.organisation), execution_id, action))
}

/// What an agent has done after a conversation. Whatever is wrong with it is its owner's to hear.
fn read_action(text: &str) -> Result<WorkflowAction, StoreError> {
    let field = serde_json::from_str::<Value>(text).ok();
    match WorkflowAction::parse(field.as_ref()) {
        Ok(Some(action)) => Ok(action),
        Ok(None) => Err(StoreError::Refused("There is no workflow".to_owned())),
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Err(StoreError::Refused(faults.join("; ")))
        }
    }
}

/// Writes until the store has taken it; the lease says for how long that makes sense.
async fn persist<T, E: Into<JobError>, Write: Future<Output = Result<T, E>>>(
    write: impl Fn() -> Write,
) -> Result<T, JobError> {
    loop {
        match write().await.map_err(E::into) {
            Err(JobError::Passing(why)) => warn!(why, "what a workflow came to is not written yet"),
            written => return written,
        }
        sleep(WRITE_AGAIN).await;
    }
}

/// Why a run was interrupted whose node is gone.
pub(crate) const STOPPED: &str = "the program was stopped while it ran";

/// A run that was cut short, and by what.
pub(crate) fn interrupted(why: &str) -> Outcome {
    Progress::default().interrupted(why)
}

/// A run that does not even begin, and why.
pub(crate) fn not_begun(kind: FailureKind, why: String) -> Outcome {
    Progress::default().ended(kind, why)
}

/// A run that somebody ended, from the progress of its job if it had one.
pub(crate) fn cancelled(progress: Option<Value>) -> Outcome {
    let progress = progress.as_ref().map(Progress::of).unwrap_or_default();
    progress.ended(FailureKind::Cancelled, "it was cancelled".to_owned())
}

/// Why a run has nothing that it could run. Its version was there when it was taken on.
fn why_not(error: StoreError) -> String {
    match error {
        StoreError::NotFound(what) => format!("{what}: it was deleted"),
        refused => refused.to_string(),
    }
}
