//! Running the workflows of calls, beside the shard.
//!
//! ```text
//!  shard ── start(job) ──► a task of its own: condition, workflow, time limit ── RunDone ──► shard
//!        ◄─ Busy ──────── when as many run as may, of all or of this organisation
//! ```
//!
//! A run for a call is bound to it: dropping its [`RunHandle`] ends it. What runs after a conversation
//! is nobody's to wait for: the store has it from the end on, as a run in the background.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::briefing::{self, ActionWorkflow, WorkflowAction};
use config::ids::OrganisationId;
use config::routing::{Why, not_run};
use config::settings::RoutingSettings;
use config::workflows::{Definition, FailureKind, Outcome, RunRequest, Workflows};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::call::EndReason;

/// One workflow to be run for a call.
#[derive(Clone, Debug)]
pub struct Job {
    /// Whose call it is.
    pub organisation: OrganisationId,
    /// What is run, or why it cannot be.
    pub workflow: Result<Arc<Definition>, String>,
    /// The step it begins with; `None` for its own first step.
    pub initial_step: Option<String>,
    /// It runs only if this workflow says so.
    pub condition: Option<Arc<Definition>>,
    /// What it is told.
    pub input: Value,
    /// How long condition and workflow may take together.
    pub limit: Duration,
}

impl Job {
    /// The job of an agent's workflow.
    #[must_use]
    pub fn of(
        action: &WorkflowAction,
        organisation: OrganisationId,
        (input, limit): (Value, Duration),
    ) -> Self {
        let workflow = match &action.workflow {
            ActionWorkflow::Inline(definition) => Ok(Arc::clone(definition)),
            ActionWorkflow::Stored(stored) => stored.definition.clone(),
            ActionWorkflow::Unreadable(why) => Err(why.clone()),
        };
        Job {
            organisation,
            workflow,
            initial_step: action.initial_step.clone(),
            condition: action.condition.clone(),
            input,
            limit,
        }
    }
}

/// A run for a call is over.
#[derive(Debug)]
pub struct RunDone {
    /// The call.
    pub call: u64,
    /// Which of its runs.
    pub run: u64,
    /// How it ended; `None` when its condition was not true.
    pub outcome: Option<Outcome>,
}

/// How much may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Runs for calls at the same time.
    pub total: usize,
    /// The same of one organisation.
    pub per_organisation: usize,
}

impl From<&RoutingSettings> for RunLimits {
    fn from(settings: &RoutingSettings) -> Self {
        RunLimits {
            total: settings.concurrent_runs as usize,
            per_organisation: settings.concurrent_runs_per_organization as usize,
        }
    }
}

/// As many workflows run as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many workflows run as may")]
pub struct Busy;

/// Runs the workflows of calls. Clones share everything.
#[derive(Clone)]
pub struct Runs(Arc<Inner>);

struct Inner {
    workflows: Arc<dyn Workflows>,
    limits: RunLimits,
    done: mpsc::Sender<RunDone>,
    load: Arc<Mutex<Load>>,
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

/// What runs at the moment.
#[derive(Debug, Default)]
struct Load {
    total: usize,
    by_organisation: HashMap<OrganisationId, usize>,
}

/// One place among those that may run; given back when it is dropped.
struct Place {
    load: Arc<Mutex<Load>>,
    organisation: OrganisationId,
}

fn lock(load: &Mutex<Load>) -> MutexGuard<'_, Load> {
    load.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut load = lock(&self.load);
        load.total = load.total.saturating_sub(1);
        if let Some(own) = load.by_organisation.get_mut(&self.organisation) {
            *own -= 1;
            if *own == 0 {
                load.by_organisation.remove(&self.organisation);
            }
        }
    }
}

/// A run for a call. Dropping it ends the run.
#[derive(Debug)]
pub struct RunHandle(JoinHandle<()>);

impl Drop for RunHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Runs {
    /// Runs with `workflows`, and says on `done` how each run ended.
    #[must_use]
    pub fn new(
        workflows: Arc<dyn Workflows>,
        limits: RunLimits,
        done: mpsc::Sender<RunDone>,
    ) -> Self {
        Runs(Arc::new(Inner { workflows, limits, done, load: Arc::default() }))
    }

    /// Begins a run for a call; [`RunDone`] follows unless the handle is dropped. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// [`Busy`] when as many run as may, of all organisations or of this one.
    pub fn start(&self, (call, run): (u64, u64), job: Job) -> Result<RunHandle, Busy> {
        let place = self.take_place(job.organisation)?;
        let (workflows, done) = (Arc::clone(&self.0.workflows), self.0.done.clone());
        Ok(RunHandle(tokio::spawn(async move {
            let outcome = perform(&*workflows, job).await;
            drop(place);
            // The shard is gone only when the program ends.
            let _ = done.send(RunDone { call, run, outcome }).await;
        })))
    }

    /// Runs for calls at this moment.
    #[must_use]
    pub fn live(&self) -> usize {
        lock(&self.0.load).total
    }

    fn take_place(&self, organisation: OrganisationId) -> Result<Place, Busy> {
        let mut load = lock(&self.0.load);
        let own = load.by_organisation.get(&organisation).copied().unwrap_or_default();
        if load.total >= self.0.limits.total || own >= self.0.limits.per_organisation {
            return Err(Busy);
        }
        load.total += 1;
        load.by_organisation.insert(organisation, own + 1);
        drop(load);
        Ok(Place { load: Arc::clone(&self.0.load), organisation })
    }
}

/// Condition and workflow, within the time they have together.
async fn perform(workflows: &dyn Workflows, job: Job) -> Option<Outcome> {
    let limit = job.limit;
    let late = |_| Some(not_run(FailureKind::TimedOut, "the run was not done in time"));
    tokio::time::timeout(limit, run(workflows, job)).await.unwrap_or_else(late)
}

async fn run(workflows: &dyn Workflows, job: Job) -> Option<Outcome> {
    let Job { organisation, workflow, initial_step, condition, input, limit } = job;
    let request = |definition, initial_step| RunRequest {
        organisation,
        definition,
        input: input.clone(),
        initial_step,
        limit,
    };
    if let Some(condition) = condition {
        let said = workflows.run(request(condition, None)).await;
        match briefing::holds(&said) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_) => return Some(said),
        }
    }
    match workflow {
        Ok(definition) => Some(workflows.run(request(definition, initial_step)).await),
        Err(why) => Some(not_run(FailureKind::Threw, &why)),
    }
}

/// How a call ends that the organisation's workflow did not bring to an agent.
#[must_use]
pub fn routing_end(why: Why) -> EndReason {
    match why {
        Why::Rejected => EndReason::RoutingRejected,
        Why::Failed => EndReason::RoutingFailed,
        Why::TimedOut => EndReason::RoutingTimedOut,
        Why::Overloaded => EndReason::RoutingOverloaded,
        Why::Unresolved => EndReason::RoutingUnresolved,
    }
}

/// How a call ends that an agent's own workflow did not let through.
#[must_use]
pub fn briefing_end(why: Why) -> EndReason {
    match why {
        Why::Rejected => EndReason::PreConversationRejected,
        Why::TimedOut => EndReason::PreConversationTimedOut,
        Why::Failed | Why::Overloaded | Why::Unresolved => EndReason::PreConversationFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::workflows::{Parsed, Rejected, Running};
    use serde_json::json;

    /// An engine that says of every run what it was given, or never ends.
    struct Scripted {
        hangs: bool,
    }

    impl Workflows for Scripted {
        fn check<'a>(
            &'a self,
            _: OrganisationId,
            definition: &'a Value,
        ) -> Running<'a, Result<Parsed, Rejected>> {
            Box::pin(async move { Definition::parse(definition).map_err(Rejected::Faults) })
        }

        fn run(&self, request: RunRequest) -> Running<'_, Outcome> {
            let hangs = self.hangs;
            Box::pin(async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Outcome { result: Ok(request.input), trace: Vec::new() }
            })
        }
    }

    const LIMITS: RunLimits = RunLimits { total: 3, per_organisation: 2 };

    fn desk(hangs: bool) -> (Runs, mpsc::Receiver<RunDone>) {
        let (done, comes) = mpsc::channel(8);
        (Runs::new(Arc::new(Scripted { hangs }), LIMITS, done), comes)
    }

    fn definition() -> Arc<Definition> {
        let definition = briefing::condition_definition("true");
        Definition::parse(&definition).expect("a definition").definition
    }

    fn job(organisation: OrganisationId, input: Value) -> Job {
        Job {
            organisation,
            workflow: Ok(definition()),
            initial_step: None,
            condition: None,
            input,
            limit: Duration::from_secs(60),
        }
    }

    #[tokio::test]
    async fn a_run_comes_back_with_the_call_it_was_made_for() {
        let (runs, mut comes) = desk(false);
        let handle = runs.start((7, 3), job(OrganisationId::random(), json!({ "a": 1 })));
        let done = comes.recv().await.expect("a run");
        assert_eq!((done.call, done.run), (7, 3));
        assert_eq!(done.outcome.expect("it ran").result, Ok(json!({ "a": 1 })));
        drop(handle);
        assert_eq!(runs.live(), 0);
    }

    #[tokio::test]
    async fn one_organisation_leaves_room_for_the_others() {
        let (runs, _comes) = desk(true);
        let (greedy, other) = (OrganisationId::random(), OrganisationId::random());
        let first = runs.start((1, 0), job(greedy, Value::Null)).expect("a place");
        let _second = runs.start((2, 0), job(greedy, Value::Null)).expect("a place");
        assert_eq!(runs.start((3, 0), job(greedy, Value::Null)).err(), Some(Busy));
        let _third = runs.start((4, 0), job(other, Value::Null)).expect("a place");
        assert_eq!(runs.start((5, 0), job(other, Value::Null)).err(), Some(Busy));
        drop(first);
        while runs.live() == 3 {
            tokio::task::yield_now().await;
        }
        assert!(runs.start((6, 0), job(other, Value::Null)).is_ok());
    }

    #[tokio::test]
    async fn a_run_that_never_ends_is_late() {
        let (runs, mut comes) = desk(true);
        let job = Job { limit: Duration::ZERO, ..job(OrganisationId::random(), Value::Null) };
        let handle = runs.start((1, 0), job);
        let outcome = comes.recv().await.and_then(|done| done.outcome).expect("an outcome");
        assert_eq!(outcome.result.map_err(|why| why.kind), Err(FailureKind::TimedOut));
        drop(handle);
    }

    #[tokio::test]
    async fn a_condition_that_is_not_true_leaves_the_workflow_out() {
        let (runs, mut comes) = desk(false);
        for (holds, ran) in [(true, true), (false, false)] {
            let input = json!({ "holds": holds });
            let condition = Some(definition());
            let job = Job { condition, ..job(OrganisationId::random(), input) };
            let _handle = runs.start((1, 0), job);
            assert_eq!(comes.recv().await.expect("a run").outcome.is_some(), ran);
        }
    }

    #[tokio::test]
    async fn a_workflow_that_cannot_be_run_has_failed() {
        let (runs, mut comes) = desk(false);
        let job =
            Job { workflow: Err("no".to_owned()), ..job(OrganisationId::random(), json!({})) };
        let _handle = runs.start((1, 0), job);
        let outcome = comes.recv().await.and_then(|done| done.outcome).expect("an outcome");
        let why = outcome.result.expect_err("a failure");
        assert_eq!((why.kind, why.message.as_str()), (FailureKind::Threw, "no"));
    }

    #[test]
    fn a_call_that_is_not_routed_ends_with_the_same_word_and_status_as_a_dry_run_says() {
        for why in Why::ALL {
            let row = routing_end(why).row();
            assert_eq!((row.code, row.sip_status), (why.code(), why.sip_status()));
        }
    }
}
