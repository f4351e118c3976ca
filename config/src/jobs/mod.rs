//! Work that goes on after its request was answered, and after a crash.
//!
//! ```text
//!  enqueue ─► waiting ─► running ─► done
//!               ▲          │  │
//!               │  again,  │  └──► failed: for good, or begun too often
//!               │  later   │
//!               └──────────┘◄─── lease over: its node fell silent
//! ```
//!
//! A job is a row. Whoever takes it holds a *lease* on it, which is renewed while the work goes on; a
//! node that dies lets it lapse, and any node begins the job again from the progress that it had
//! written. So work is done at least once, and what it does must bear being done again. Writes of a
//! worker whose lease lapsed change nothing.

mod instructions;
mod runner;
mod scaffold;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use instructions::{GENERATE_INSTRUCTIONS, GenerateInstructions, Written};
pub use runner::Runner;
pub(crate) use runner::progress;
pub use scaffold::{SCAFFOLD_AGENT, ScaffoldAgent};
pub(crate) use {
    instructions::job as generation, scaffold::describe, scaffold::for_demo, scaffold::for_website,
};

use crate::clock::Timestamp;
use crate::ids::{JobId, OrganisationId};
use crate::store::{Store, StoreError};

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Not begun, or to be begun again.
    Waiting,
    /// Somebody has it.
    Running,
    /// Over, with a result.
    Done,
    /// Over, without.
    Failed,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// What is to be done: the name under which its [`Work`] is known.
    pub kind: String,
    /// What with.
    pub payload: Value,
    /// What was done so far, in the words of its work; `{}` at first.
    pub progress: Value,
    /// How far it has come.
    pub status: JobStatus,
    /// How often it was begun.
    pub attempts: u32,
    /// What came of it.
    pub result: Option<Value>,
    /// Why the last attempt came to nothing, for its owner.
    pub error: Option<String>,
    /// When it was made; unique among jobs.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A job to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// What is to be done.
    pub kind: &'static str,
    /// What it is about: of one kind there is at most one unfinished job about the same thing.
    pub subject: Option<String>,
    /// What with.
    pub payload: Value,
    /// How long it is left before it may be begun.
    pub rests: Duration,
}

/// The right to work on a job, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub(crate) job: JobId,
    pub(crate) token: String,
}

/// How a turn at a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// It is done, with this result. With null its row goes at once: its record is elsewhere.
    Done(Value),
    /// It is to go on at this time; that is no failure.
    Later(Timestamp),
}

/// Why a turn at a job came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    /// It may well succeed later. For its owner: no addresses, no secrets.
    Passing(String),
    /// It never will.
    Final(String),
    /// Somebody else has the job now; nothing is to be done about it.
    LeaseLost,
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Fault => {
                Self::Passing("the store was unavailable".to_owned())
            }
            refused => Self::Final(refused.to_string()),
        }
    }
}

/// Something being done.
pub type Working<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is done about jobs of one kind.
pub trait Work: Send + Sync {
    /// Does the job, from where its progress says that it stopped. Dropped when the lease is lost.
    fn run<'a>(&'a self, job: &'a Job, desk: &'a Desk) -> Working<'a, Result<Turn, JobError>>;

    /// Puts right what a job that has failed for good would leave behind. May be called again.
    fn give_up<'a>(&'a self, job: &'a Job) -> Working<'a, Result<(), StoreError>>;
}

/// What a worker has at hand: its lease, and where to write its progress.
#[derive(Debug, Clone)]
pub struct Desk {
    store: Store,
    lease: Arc<Lease>,
}

impl Desk {
    pub(crate) fn new(store: Store, lease: Lease) -> Self {
        Self { store, lease: Arc::new(lease) }
    }

    /// The lease, for verbs that write together with the progress.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Writes how far the work has come, which is where it begins again after a crash.
    ///
    /// # Errors
    /// [`JobError::LeaseLost`]; or as the database fails.
    pub async fn save(&self, progress: &Value) -> Result<(), JobError> {
        match self.store.save_job(&self.lease, progress).await? {
            true => Ok(()),
            false => Err(JobError::LeaseLost),
        }
    }
}
