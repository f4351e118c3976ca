//! The store: what customers configured and what calls left behind, behind verbs.
//!
//! Verbs are methods of [`Store`], one file per noun. Those that touch an organisation's rows take a
//! [`ScopedTo`](crate::credential::ScopedTo) and never look beyond it; a row of another organisation
//! is as absent as one that never was. SQL stands nowhere but in this folder, and every query once:
//! what SQLite and PostgreSQL do not have in common is in `sql`, `sqlite` and `postgres`.
//!
//! Invariants:
//! - a write that matters to calls has swapped the [snapshot](crate::snapshot) before its verb returns,
//!   even if the caller went away in between;
//! - one transaction writes at a time, and takes the write lock first (SQLite: `BEGIN IMMEDIATE`;
//!   PostgreSQL: an advisory lock that all nodes share), so a write that has begun is never turned
//!   away half-way; readers never wait for it;
//! - what another node writes is seen here soon, in the order in which it was written (`follow`);
//! - `created_at` is unique per table, so that it can be a cursor;
//! - nobody waits for a locked database longer than [`StoreOptions::busy_budget_ms`]; then it is
//!   [`StoreError::Unavailable`].

mod agents;
mod audit;
mod columns;
mod conversation_lists;
mod conversations;
mod database;
mod decisions;
mod deliveries;
mod door;
mod entries;
mod events;
mod executions;
mod follow;
mod generation;
mod inbound_routing;
mod jobs;
mod keys;
mod managed;
mod memberships;
mod named_workflows;
mod node_name;
mod numbers;
mod organisation_settings;
mod organisations;
mod post_runs;
mod postgres;
mod publish;
mod routes;
mod rows;
mod sql;
mod sqlite;
mod tokens;
mod trunks;
mod usage;
mod users;
mod versions;
mod webhooks;
mod workflows;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use conversation_lists::Large;
pub use conversations::Opened;
pub use database::BUSY_BUDGET_MS;
pub use deliveries::{Claim, Claimed, Settled};
pub use executions::Executed;

pub use jobs::{JobEnd, Wanted};
pub use node_name::NodeName;
use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::events::{EventBus, Told};
use crate::limits::{
    WEBHOOK_FINISHED_KEPT, WEBHOOK_PENDING, WORKFLOW_EXECUTION_BYTES, WORKFLOW_EXECUTIONS,
};
use crate::model::{Invalid, SipHost};
use crate::seal::{SealError, Sealer};
use crate::snapshot::SnapshotHandle;
use audit::Change;
use database::{Database, Write};
use door::{Door, DoorChange};
use routes::Touched;

/// What a store needs to know beside where its database is.
#[derive(Debug)]
pub struct StoreOptions {
    /// Seals and opens passwords.
    pub sealer: Sealer,
    /// The host in inbound and agent URIs.
    pub sip_host: SipHost,
    /// What rows are stamped with.
    pub clock: Clock,
    /// The node whose calls these are; only its own are closed after a crash. No two nodes of one
    /// database may have the same.
    pub node: String,
    /// Most phone numbers of an organisation that has no limit of its own.
    pub max_phone_numbers: u32,
    /// Decision records kept for each organisation, and as many for callers nobody could place.
    pub decisions_kept: u32,
    /// Runs of workflows whose records are kept, of each organisation.
    pub executions_kept: u32,
    /// Bytes of JSON in those records, of each organisation.
    pub execution_bytes_kept: u64,
    /// Most webhooks of an organisation.
    pub max_webhooks: u32,
    /// How long a delivery waits after its first failed attempt, in seconds; then twice as long.
    pub webhook_retry_first_s: u32,
    /// For how many hours a delivery is tried before it is given up.
    pub webhook_retry_hours: u32,
    /// Most deliveries that wait for one webhook.
    pub webhook_pending: u32,
    /// Deliveries of a webhook that are kept once taken, and as many given up.
    pub webhook_kept: u32,
    /// How long a verb waits for a database that somebody else has locked, in milliseconds.
    pub busy_budget_ms: u64,
}

impl StoreOptions {
    /// The usual options: node `trunkline`, 100 numbers, 20 webhooks and 10,000 decisions per
    /// organisation, deliveries tried for a day, the system's clock.
    #[must_use]
    pub fn new(sealer: Sealer, sip_host: &str) -> Self {
        Self {
            sealer,
            sip_host: SipHost::new(sip_host),
            clock: Clock::system(),
            node: "trunkline".to_owned(),
            max_phone_numbers: 100,
            decisions_kept: 10_000,
            executions_kept: WORKFLOW_EXECUTIONS.value_u32(),
            execution_bytes_kept: WORKFLOW_EXECUTION_BYTES.value,
            max_webhooks: 20,
            webhook_retry_first_s: 5,
            webhook_retry_hours: 24,
            webhook_pending: WEBHOOK_PENDING.value_u32(),
            webhook_kept: WEBHOOK_FINISHED_KEPT.value_u32(),
            busy_budget_ms: BUSY_BUDGET_MS,
        }
    }
}

/// Why a verb did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No such row, or none of this organisation (404).
    #[error("{0} not found")]
    NotFound(String),
    /// Another row or this row's state is in the way (409).
    #[error("{0}")]
    Conflict(String),
    /// Well-formed and against a rule (400).
    #[error("{0}")]
    Refused(String),
    /// More than the caller may (403).
    #[error("{0}")]
    Forbidden(String),
    /// Not well-formed (422).
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The database cannot be used at this moment; nothing is wrong with the request (503).
    #[error("the store is unavailable: {0}")]
    Unavailable(Unavailable),
    /// The store is at fault (500); the log says more.
    #[error("the store failed")]
    Fault,
}

impl StoreError {
    fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound(what.into())
    }

    fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

/// Why the database cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Somebody else holds it.
    #[error("busy")]
    Busy,
    /// Its server cannot be reached, or says nothing.
    #[error("no_answer")]
    NoAnswer,
    /// Its server does not let us in.
    #[error("access_denied")]
    AccessDenied,
    /// The disk is full.
    #[error("storage_full")]
    StorageFull,
    /// The disk or the file fails.
    #[error("storage_failed")]
    StorageFailed,
}

impl From<SealError> for StoreError {
    fn from(error: SealError) -> Self {
        tracing::error!(%error, "is the seal key file the one this database was written with?");
        Self::Fault
    }
}

/// The store. Clones share everything.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    db: Database,
    options: StoreOptions,
    door: Door,
    /// This node's conversations that were open when the store was opened.
    found_open: std::sync::Mutex<Vec<String>>,
    snapshot: SnapshotHandle,
    events: EventBus,
    /// Rung when there is something new for webhooks.
    deliveries_queued: Notify,
    /// Told whenever a job is made on this node.
    job_added: Notify,
    jobs_asleep: jobs::Asleep,
}

/// What is to be done once a write is durable, whoever still waits for it. By default nothing: what
/// is kept in memory has not changed.
#[derive(Default)]
struct After {
    /// Calls must see these rows.
    routes: Option<Touched>,
    /// Others may come in from now on, or no longer.
    door: Option<DoorChange>,
    /// This has happened to calls.
    told: Vec<Arc<Told>>,
    /// There is something new for webhooks.
    deliveries_queued: bool,
    /// Whoever does jobs has something to do.
    job_added: bool,
}

impl After {
    fn routes(touched: Touched) -> Self {
        Self { routes: Some(touched), ..Self::default() }
    }

    fn door(change: DoorChange) -> Self {
        Self { door: Some(change), ..Self::default() }
    }

    fn job_added() -> Self {
        Self { job_added: true, ..Self::default() }
    }

    fn deliveries_queued() -> Self {
        Self { deliveries_queued: true, ..Self::default() }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("node", &self.0.options.node).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database at `url` and brings its tables up to date: `sqlite:<path>`, which is made if
    /// it is not there, `sqlite::memory:` for one that is forgotten, or
    /// `postgres://<user>:<password>@<host>/<database>`, with `sslmode` and the other parameters of
    /// a PostgreSQL URL.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a URL of another kind; otherwise as the database fails.
    pub async fn open(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let db = Database::open(url, options.busy_budget_ms).await?;
        let found_open = conversations::open_of(&db, &options.node).await?.into();
        let events = EventBus::new(options.clock.clone());
        let store = Self(Arc::new(Inner {
            db,
            options,
            door: Door::default(),
            found_open,
            snapshot: SnapshotHandle::default(),
            events,
            deliveries_queued: Notify::new(),
            job_added: Notify::new(),
            jobs_asleep: jobs::Asleep::default(),
        }));
        store.load_door().await?;
        store.fail_left_generations().await?;
        store.load_routes().await?;
        Ok(store)
    }

    /// What calls read: always the present snapshot.
    #[must_use]
    pub fn snapshot(&self) -> SnapshotHandle {
        self.0.snapshot.clone()
    }

    /// What streams read: every event, once what it tells of is durable.
    #[must_use]
    pub fn events(&self) -> &EventBus {
        &self.0.events
    }

    /// Returns when there may be something new for webhooks.
    pub(crate) async fn deliveries_queued(&self) {
        self.0.deliveries_queued.notified().await;
    }

    /// Whether the database answers. Costs one trivial query; for health checks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.0.db.check().await
    }

    /// Writes what is in memory only (when keys were last used), then closes the database.
    pub async fn close(&self) {
        if let Err(error) = self.flush_last_used().await {
            tracing::warn!(%error, "when keys were last used is lost");
        }
        self.0.db.close().await;
    }

    /// What time it is, by the clock that rows are stamped with.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.options.clock.now()
    }

    /// Commits, and does what follows from it. Both happen even if the caller is dropped meanwhile:
    /// an HTTP client that hangs up must not leave calls with a stale snapshot.
    ///
    /// What calls must see is read back before the commit and swapped in right after it, within one
    /// turn: snapshots follow each other in the order of the writes, each with all of one write.
    async fn commit(&self, mut tx: Write, after: After) -> Result<(), StoreError> {
        let store = self.clone();
        let finish = tokio::spawn(async move {
            let notes = tx.take_notes();
            audit::append(&mut tx, notes, store.now()).await?;
            let next = match &after.routes {
                Some(touched) => Some(store.next_snapshot(&mut tx, touched).await?),
                None => None,
            };
            let version = store.announce(&mut tx, &after).await?;
            let mut turn = tx.commit().await?;
            turn.wrote(version);
            if let Some(next) = next {
                store.0.snapshot.swap(next);
            }
            if let Some(change) = after.door {
                store.0.door.apply(change);
            }
            for told in &after.told {
                store.0.events.publish(told);
            }
            if after.deliveries_queued {
                store.0.deliveries_queued.notify_one();
            }
            drop(turn);
            if after.job_added {
                store.0.job_added.notify_one();
            }
            Ok(())
        });
        finish.await.unwrap_or(Err(StoreError::Fault))
    }
}
