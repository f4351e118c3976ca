//! The database behind the verbs, whichever of the two it is: whose turn it is to write, and what its
//! errors mean.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::audit::Change;
use super::follow::Turn;
use super::node_name::Held;
use super::postgres::{self, PostgresServer};
use super::sql::Connection;
use super::sqlite::{self, SqliteFile};
use super::{StoreError, Unavailable};
use crate::model::Invalid;

/// The usual [`StoreOptions::busy_budget_ms`](super::StoreOptions::busy_budget_ms): below the second
/// in which an API request must be answered one way or the other.
pub const BUSY_BUDGET_MS: u64 = 800;

/// How long a write waits for our own writes before it, in milliseconds, as long as they get on: some
/// hundred of them on a busy machine. When they do not, the usual budget is all there is.
pub(super) const TURN_MS: u64 = 5_000;

#[expect(clippy::large_enum_variant, reason = "there is one in the program")]
enum Engine {
    Sqlite(SqliteFile),
    Postgres(PostgresServer),
}

/// One database, and the turn among our own writers.
pub(super) struct Database {
    engine: Engine,
    /// Held from before a write begins until what it changed can be seen.
    turn: Arc<Mutex<Turn>>,
    /// The last write could not begin.
    is_stuck: AtomicBool,
    busy_budget_ms: u64,
}

/// A write that has begun: the database's write lock, and the turn among our own writers.
pub(super) struct Write {
    connection: Connection,
    turn: OwnedMutexGuard<Turn>,
    /// What the audit log will say about it.
    notes: Vec<Change>,
}

impl Deref for Write {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Write {
    /// Tells the audit log what is being done; it is written with it, or not at all.
    pub(super) fn note(&mut self, change: Change) {
        self.notes.push(change);
    }

    pub(super) fn take_notes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.notes)
    }

    /// Makes it durable; the turn lasts for as long as the caller keeps it.
    pub(super) async fn commit(self) -> Result<OwnedMutexGuard<Turn>, StoreError> {
        self.connection.commit().await?;
        Ok(self.turn)
    }
}

/// A reading of one moment.
pub(super) struct Read(Connection);

impl Deref for Read {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Read {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Database {
    pub(super) async fn open(url: &str, busy_budget_ms: u64) -> Result<Self, StoreError> {
        let engine = if url.starts_with("sqlite:") {
            Engine::Sqlite(SqliteFile::open(url).await?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Engine::Postgres(PostgresServer::open(url, busy_budget_ms).await?)
        } else {
            let message = "must begin with sqlite:, postgres:// or postgresql://";
            return Err(Invalid::new("store.url", message).into());
        };
        let db =
            Self { engine, turn: Arc::default(), is_stuck: AtomicBool::new(false), busy_budget_ms };
        let version = db.version().await?;
        db.turn.lock().await.caught_up(version);
        Ok(db)
    }

    /// The server, if it is one.
    pub(super) const fn postgres(&self) -> Option<&PostgresServer> {
        match &self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(server) => Some(server),
        }
    }

    /// Begins to write: waits for the write lock as long as the budget allows.
    pub(super) async fn write(&self) -> Result<Write, StoreError> {
        let turn = self.turn().await?;
        let connection = match &self.engine {
            Engine::Sqlite(file) => file.write(self.busy_budget_ms).await,
            Engine::Postgres(server) => server.write().await,
        };
        self.is_stuck.store(connection.is_err(), Ordering::Relaxed);
        Ok(Write { connection: connection?, turn, notes: Vec::new() })
    }

    /// Keeps our own writers waiting, and waits for the one there may be.
    pub(super) async fn turn(&self) -> Result<OwnedMutexGuard<Turn>, StoreError> {
        let is_stuck = self.is_stuck.load(Ordering::Relaxed);
        let patience = Duration::from_millis(if is_stuck { BUSY_BUDGET_MS } else { TURN_MS });
        let turn = tokio::time::timeout(patience, Arc::clone(&self.turn).lock_owned()).await;
        turn.map_err(|_| StoreError::Unavailable(Unavailable::Busy))
    }

    /// Begins to read: everything that is read in it is of one moment.
    pub(super) async fn read(&self) -> Result<Read, StoreError> {
        match &self.engine {
            Engine::Sqlite(file) => file.read().await.map(Read),
            Engine::Postgres(server) => server.read().await.map(Read),
        }
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Sqlite(file) => file.check().await,
            Engine::Postgres(server) => server.check().await,
        }
    }

    /// A number that changes when another process has written what must be seen here.
    pub(super) async fn version(&self) -> Result<i64, StoreError> {
        match &self.engine {
            Engine::Sqlite(file) => file.foreign_version().await,
            Engine::Postgres(server) => server.version().await,
        }
    }

    /// Takes the lock that is a node's name, if nobody has it.
    pub(super) async fn hold(&self, node: &str) -> Result<Option<Held>, StoreError> {
        match &self.engine {
            Engine::Sqlite(file) => file.hold(node),
            Engine::Postgres(server) => Ok(server.hold(node).await?.map(Held::Session)),
        }
    }

    pub(super) async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(file) => file.close().await,
            Engine::Postgres(server) => server.close().await,
        }
    }
}

pub(super) fn migration_failed(error: sqlx::migrate::MigrateError) -> StoreError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        error => {
            tracing::error!(%error, "the database's tables are not ones this program knows");
            StoreError::Fault
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match unavailable(&error) {
            Some(Unavailable::Busy) => Self::Unavailable(Unavailable::Busy),
            Some(kind) => {
                tracing::warn!(%error, "the database cannot be used");
                Self::Unavailable(kind)
            }
            None => {
                tracing::error!(%error, "the store failed");
                Self::Fault
            }
        }
    }
}

fn unavailable(error: &sqlx::Error) -> Option<Unavailable> {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code()?;
            match error.try_downcast_ref::<PgDatabaseError>() {
                Some(_) => postgres::meaning(&code),
                None => sqlite::meaning(&code),
            }
        }
        sqlx::Error::PoolTimedOut => Some(Unavailable::Busy),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Some(Unavailable::StorageFailed),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => Some(Unavailable::NoAnswer),
        _ => None,
    }
}
