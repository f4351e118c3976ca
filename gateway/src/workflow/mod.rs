//! The engine that runs workflows.
//!
//! ```text
//!  RunRequest ─► driver ─► machine    what comes next (pure)
//!                  ├─────► pool ─► worker processes    JSONata and Python
//!                  ├─────► Outside    HTTP requests, the language model
//!                  └─────► the clock    waits
//! ```
//!
//! What customers wrote (expressions, code) is computed in worker processes only, never in this one.
//! [`Engine`] is cheap to clone; all clones share the workers. The types of a run are those of
//! [`config::workflows`].

mod actions;
mod check;
mod http;
mod machine;
mod outside;
mod pool;
mod process;
mod turns;
mod value;
mod wire;
pub(crate) mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::ids::OrganisationId;
use config::workflows::{
    Failure, FailureKind, Outcome, Parsed, Rejected, RunRequest, Running, Stopped, Workflows,
};
use serde_json::Value;
use tokio::time::timeout_at;

pub use http::{HttpAnswer, HttpRequest};
pub use outside::{Outside, World};
pub use pool::EngineOptions;
pub use process::SUBCOMMAND;

use crate::clock;
use machine::{Input, Paused, Run, Want};
use pool::{Asker, Lost, Pool};
use wire::{Reply, Work};

/// A wait of more than this is not sat out in memory by a run in the background.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// Runs workflows. Clones share everything.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    pool: Pool,
    outside: Arc<dyn Outside>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("pool", &self.0.pool).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine. It starts no process before the first expression.
    #[must_use]
    pub fn new(options: EngineOptions, outside: Arc<dyn Outside>) -> Self {
        Self(Arc::new(Inner { pool: Pool::new(options), outside }))
    }

    /// Reads a definition as it would be run, with all its expressions and code compiled.
    ///
    /// # Errors
    /// Every fault that was found, each with its place.
    pub async fn check(
        &self,
        organisation: OrganisationId,
        definition: &Value,
    ) -> Result<Parsed, Rejected> {
        check::check(&self.0.pool, organisation, definition).await
    }

    /// Runs a definition to its end. Dropping the future ends the run.
    pub async fn run(&self, request: RunRequest) -> Outcome {
        let organisation = request.organisation;
        match begin(request) {
            Ok(started) => match self.drive(organisation, started, None).await {
                Stopped::Ended(outcome) => outcome,
                // Without patience nothing is put aside.
                Stopped::Waiting { .. } => failed("", "the run was put aside"),
            },
            Err(outcome) => outcome,
        }
    }

    /// Runs a definition up to its end or its next long wait.
    pub async fn advance(&self, request: RunRequest, checkpoint: Option<Value>) -> Stopped {
        let organisation = request.organisation;
        let started = match checkpoint {
            None => begin(request),
            Some(checkpoint) => go_on(request, checkpoint),
        };
        match started {
            Ok(started) => self.drive(organisation, started, Some(SHORT_WAIT)).await,
            Err(outcome) => Stopped::Ended(outcome),
        }
    }

    /// Does what the run wants until it ends, or until a wait that is longer than `patience`.
    async fn drive(
        &self,
        organisation: OrganisationId,
        (mut run, mut input, deadline): Started,
        patience: Option<Duration>,
    ) -> Stopped {
        let asker = Asker { organisation, deadline, comes_again: patience.is_some() };
        loop {
            let want = run.handle(clock::now(), input);
            input = match want {
                Want::End(result) => return Stopped::Ended(run.outcome(result)),
                Want::Sleep(until) => {
                    let time = until.saturating_duration_since(clock::now());
                    if patience.is_some_and(|patience| time > patience)
                        && let Some(checkpoint) = paused(&run)
                    {
                        return Stopped::Waiting { time, checkpoint };
                    }
                    tokio::time::sleep_until(until.into()).await;
                    Input::Woke
                }
                want => {
                    let done = self.fulfil(asker, &run, want);
                    timeout_at(deadline.into(), done).await.unwrap_or(Input::Expired)
                }
            };
        }
    }

    async fn fulfil(&self, asker: Asker, run: &Run, want: Want) -> Input {
        let work = match want {
            Want::Evaluate { expressions, until_true } => {
                let expressions = expressions.iter().map(ToString::to_string).collect();
                Work::Evaluate { expressions, until_true }
            }
            Want::Code(source) => Work::Code { source: source.to_string() },
            Want::Ask(prompt) => {
                let answer = self.0.outside.ask(prompt).await;
                return answer.map_or_else(Input::Threw, Input::Answer);
            }
            Want::Http(request) => {
                let answer = self.0.outside.fetch(request).await;
                return answer.and_then(http::output).map_or_else(Input::Threw, Input::Output);
            }
            Want::Sleep(_) | Want::End(_) => return Input::Begin,
        };
        let pool = &self.0.pool;
        match pool.perform(asker, work, (run.context(), &run.names())).await {
            Ok(Reply::Values { values }) => Input::Values(values),
            Ok(Reply::Output { value }) => Input::Output(value),
            Ok(Reply::Threw { message }) => Input::Threw(message),
            Ok(Reply::Checked { .. }) => Input::Threw("the worker failed".to_owned()),
            Err(Lost::Busy) => Input::Busy,
            Err(Lost::Expired) => Input::Expired,
            Err(Lost::TooSlow) => Input::Threw(pool.too_slow()),
            Err(Lost::Died(why)) => Input::Threw(why.to_owned()),
        }
    }
}

impl Workflows for Engine {
    fn check<'a>(
        &'a self,
        organisation: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(self.check(organisation, definition))
    }

    fn run(&self, request: RunRequest) -> Running<'_, Outcome> {
        Box::pin(self.run(request))
    }

    fn advance(&self, request: RunRequest, checkpoint: Option<Value>) -> Running<'_, Stopped> {
        Box::pin(self.advance(request, checkpoint))
    }
}

/// A run, its first input, and when its time is up.
type Started = (Run, Input, Instant);

fn begin(request: RunRequest) -> Result<Started, Outcome> {
    let RunRequest { definition, input, initial_step, limit, .. } = request;
    let first = match &initial_step {
        None => Some(definition.first()),
        Some(id) => definition.position(id),
    };
    let Some(first) = first else {
        let wanted = initial_step.unwrap_or_default();
        return Err(failed(&wanted, "the definition has no step with this id to begin with"));
    };
    let times = times(limit);
    Ok((Run::new(definition, first, input, times), Input::Begin, times.1))
}

fn go_on(request: RunRequest, checkpoint: Value) -> Result<Started, Outcome> {
    let RunRequest { definition, limit, .. } = request;
    let Ok(paused) = serde_json::from_value::<Paused>(checkpoint) else {
        return Err(failed(definition.first_step(), "the run was put aside and cannot be read"));
    };
    let times = times(limit);
    Ok((Run::resume(definition, paused, times), Input::Woke, times.1))
}

/// Now, and when a run that may take so long is over.
fn times(limit: Duration) -> (Instant, Instant) {
    let now = clock::now();
    (now, now.checked_add(limit).unwrap_or(now))
}

fn paused(run: &Run) -> Option<Value> {
    serde_json::to_value(run.pause()?).ok()
}

/// The outcome of a run that never began.
fn failed(step: &str, message: &str) -> Outcome {
    let failure = Failure {
        step_name: step.to_owned(),
        message: message.to_owned(),
        kind: FailureKind::Threw,
    };
    Outcome { result: Err(failure), trace: Vec::new() }
}
