//! Workflows: how their definitions are written, and what may be asked of the engine that runs them.
//!
//! ```text
//!  JSON ─► Definition::parse ─► Definition ─► Workflows::run ─► Outcome
//!          (shape, pure)            │          (the gateway's engine)
//!                                   └───────► Workflows::check
//!                                              (its JSONata and Python, in a worker process)
//! ```
//!
//! This crate knows the shape of a definition and nothing of its languages: those are the engine's,
//! which the gateway implements behind the one trait here.

pub mod background;
mod definition;
mod fields;
mod kinds;
mod read;
mod template;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use definition::{
    Branch, Definition, FieldType, HttpStep, InputField, Kind, OutputField, Parsed, Step, WaitUnit,
};
pub use template::{Filled, Segment, Template};

use crate::ids::OrganisationId;

/// Something in a definition that is wrong, or that is odd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// Where: the step and its field from the root of the definition.
    #[schema(example = "steps[2].branches[0].when")]
    pub place: String,
    /// What is wrong with it.
    pub message: String,
}

impl Fault {
    /// A fault at one place.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Why a definition could not be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is wrong, at these places.
    #[error("the definition has {} faults", .0.len())]
    Faults(Vec<Fault>),
    /// Nobody could look at its expressions and code just now: all workers are busy.
    #[error("workflow workers are busy")]
    Busy,
}

/// One run to be made.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Whose run it is: workers are shared fairly between organisations.
    pub organisation: OrganisationId,
    /// What is run.
    pub definition: Arc<Definition>,
    /// What stands under `input` in the context.
    pub input: Value,
    /// The step it begins with; `None` for the definition's own first step.
    pub initial_step: Option<String>,
    /// How long it may take, from now.
    pub limit: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The output (a JSON object), or why there is none.
    pub result: Result<Value, Failure>,
    /// Every step that was entered, in order.
    pub trace: Vec<TraceEntry>,
}

/// How far a run in the background has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Stopped {
    /// It has ended.
    Ended(Outcome),
    /// It has come to a wait, and can be put aside.
    Waiting {
        /// How long from now.
        time: Duration,
        /// What [`Workflows::advance`] needs to go on.
        checkpoint: Value,
    },
}

/// Why a run gave no output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{step_name}: {message}")]
pub struct Failure {
    /// The name of the step that failed, or its id if it has none.
    pub step_name: String,
    /// What happened, for the workflow's author.
    pub message: String,
    /// The kind of failure, as a stable word.
    pub kind: FailureKind,
}

impl Failure {
    /// What may be said of it to those who may not see what the run was about: which step and what kind,
    /// for the words of an error quote what the step was given. A run that came to no step says in words of
    /// ours why.
    #[must_use]
    pub fn discreet(&self) -> &str {
        discreet(&self.step_name, self.kind, &self.message)
    }
}

/// What is said instead of the words of a failure at this step.
pub(crate) fn discreet<'a>(step: &str, kind: FailureKind, message: &'a str) -> &'a str {
    if step.is_empty() { message } else { kind.sentence() }
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The step itself failed: an exception, an expression without a value, an unreachable host.
    Threw,
    /// The time for the run was up.
    TimedOut,
    /// The run took more steps than a run may.
    TooManySteps,
    /// Too many runs waited for a worker.
    Busy,
    /// The program was stopped while it ran.
    Interrupted,
    /// Somebody cancelled the run.
    Cancelled,
}

impl FailureKind {
    /// The word in records, metrics and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Threw => "threw",
            Self::TimedOut => "timed_out",
            Self::TooManySteps => "too_many_steps",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
        }
    }

    /// The same in words.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Threw => "the step failed",
            Self::TimedOut => "the run was not done in time",
            Self::TooManySteps => "the run took more steps than a run may",
            Self::Busy => "too many runs waited for a worker",
            Self::Interrupted => "the program was stopped while it ran",
            Self::Cancelled => "it was cancelled",
        }
    }
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceEntry {
    /// The step's id.
    pub step: String,
    /// Its name, or its id if it has none.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Microseconds it took.
    pub duration_us: u64,
    /// The branch that was taken, the output in short, or why it failed.
    pub summary: String,
}

/// A future of the engine.
pub type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the control plane asks of the engine.
pub trait Workflows: Send + Sync {
    /// Reads a definition as it would be run, with all its expressions and code compiled.
    ///
    /// # Errors
    /// Every fault that was found, each with its place.
    fn check<'a>(
        &'a self,
        organisation: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>>;

    /// Runs a definition to its end. Dropping the future ends the run.
    fn run(&self, request: RunRequest) -> Running<'_, Outcome>;

    /// Runs a definition up to its end or its next long wait: from its beginning, or from where it
    /// was put aside. An engine that puts nothing aside runs to the end.
    fn advance(&self, request: RunRequest, checkpoint: Option<Value>) -> Running<'_, Stopped> {
        drop(checkpoint);
        Box::pin(async move { Stopped::Ended(self.run(request).await) })
    }
}

/// No engine: definitions are read for their shape alone, and nothing runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoWorkflows;

impl Workflows for NoWorkflows {
    fn check<'a>(
        &'a self,
        _organisation: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(async move { Definition::parse(definition).map_err(Rejected::Faults) })
    }

    fn run(&self, request: RunRequest) -> Running<'_, Outcome> {
        let step_name = request.definition.first_step().to_owned();
        let message = "workflows are not run here".to_owned();
        let failure = Failure { step_name, message, kind: FailureKind::Busy };
        Box::pin(async move { Outcome { result: Err(failure), trace: Vec::new() } })
    }
}

#[cfg(test)]
mod tests;
