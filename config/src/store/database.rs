//! The SQLite file: its connections, its migrations, and what its errors mean.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{StoreError, Unavailable};
use crate::model::Invalid;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/schema/sqlite");

/// The usual [`StoreOptions::busy_budget_ms`](super::StoreOptions::busy_budget_ms): below the second
/// in which an API request must be answered one way or the other.
pub const BUSY_BUDGET_MS: u64 = 800;

/// How long SQLite itself waits, in milliseconds: short, because it cannot be interrupted.
const BUSY_TIMEOUT_MS: u64 = 20;

/// Pauses between attempts, in milliseconds: short first, for a neighbour that is merely quick.
const PAUSE_FIRST_MS: u64 = 5;
const PAUSE_MAX_MS: u64 = 100;

const READERS: u32 = 4;

/// One connection that writes and several that read.
pub(super) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held from before a write begins until what it changed can be seen.
    turn: Arc<Mutex<()>>,
    busy_budget_ms: u64,
}

/// A write that has begun: the database's write lock, and the turn among our own writers.
pub(super) struct Write {
    tx: Transaction<'static, Sqlite>,
    turn: OwnedMutexGuard<()>,
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.tx
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }
}

impl Write {
    /// Makes it durable; the turn lasts for as long as the caller keeps it.
    pub(super) async fn commit(self) -> Result<OwnedMutexGuard<()>, StoreError> {
        self.tx.commit().await?;
        Ok(self.turn)
    }
}

impl Database {
    pub(super) async fn open(url: &str, busy_budget_ms: u64) -> Result<Self, StoreError> {
        if !url.starts_with("sqlite:") {
            return Err(Invalid::new("store.url", "must begin with sqlite:").into());
        }
        let in_memory = url.contains(":memory:");
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| Invalid::new("store.url", "is not a SQLite URL"))?
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS));
        if !in_memory {
            create_private(options.get_filename()).map_err(sqlx::Error::Io)?;
        }
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(Duration::from_millis(BUSY_BUDGET_MS))
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await.map_err(migration_failed)?;
        let readers = if in_memory {
            writer.clone() // a database in memory lives in its one connection
        } else {
            pool().max_connections(READERS).connect_with(options.read_only(true)).await?
        };
        Ok(Self { writer, readers, turn: Arc::default(), busy_budget_ms })
    }

    /// Begins to write: waits for the write lock as long as the budget allows.
    pub(super) async fn write(&self) -> Result<Write, StoreError> {
        let patience = Duration::from_millis(BUSY_BUDGET_MS);
        let turn = tokio::time::timeout(patience, Arc::clone(&self.turn).lock_owned());
        let turn = turn.await.map_err(|_| StoreError::Unavailable(Unavailable::Busy))?;
        let mut pause = PAUSE_FIRST_MS;
        let mut waited = 0;
        loop {
            match self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::from) {
                Err(StoreError::Unavailable(Unavailable::Busy)) if waited < self.busy_budget_ms => {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    waited += pause + BUSY_TIMEOUT_MS;
                    pause = (pause * 2).min(PAUSE_MAX_MS);
                }
                outcome => return outcome.map(|tx| Write { tx, turn }),
            }
        }
    }

    /// Begins to read: everything that is read in it is of one moment.
    pub(super) async fn read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// A number that changes when another process has written (SQLite's `data_version`, which does not
    /// count the writes of its own connection).
    pub(super) async fn foreign_version(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(&self.writer).await?)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Makes the file, if there is none, so that only its owner can read it; SQLite gives the files it
/// keeps beside it the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn migration_failed(error: sqlx::migrate::MigrateError) -> StoreError {
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
        let kind = match &error {
            sqlx::Error::Database(error) => error.code().and_then(|code| primary_code(&code)),
            sqlx::Error::PoolTimedOut => Some(Unavailable::Busy),
            sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Some(Unavailable::StorageFailed)
            }
            _ => None,
        };
        match kind {
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

/// What SQLite's result code means here; the extended code's low byte is the primary one.
fn primary_code(code: &str) -> Option<Unavailable> {
    match code.parse::<u32>().ok()? & 0xff {
        5 | 6 => Some(Unavailable::Busy),     // BUSY, LOCKED
        13 => Some(Unavailable::StorageFull), // FULL
        8 | 10 | 11 | 14 | 26 => Some(Unavailable::StorageFailed), // READONLY, IOERR, CORRUPT, CANTOPEN, NOTADB
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_codes_are_told_apart_by_their_low_byte() {
        assert_eq!(primary_code("517"), Some(Unavailable::Busy)); // BUSY_SNAPSHOT
        assert_eq!(primary_code("13"), Some(Unavailable::StorageFull));
        assert_eq!(primary_code("778"), Some(Unavailable::StorageFailed)); // IOERR_WRITE
        assert_eq!(primary_code("2067"), None); // CONSTRAINT_UNIQUE
        assert_eq!(primary_code("x"), None);
    }
}
