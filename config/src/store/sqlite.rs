//! The SQLite file: its connections, its migrations, and what its errors mean.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::columns::Columns;
use super::database::{TURN_MS, migration_failed};
use super::node_name::Held;
use super::sql::Connection;
use super::{StoreError, Unavailable};
use crate::model::Invalid;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/schema/sqlite");

/// How long SQLite itself waits, in milliseconds: short, because it cannot be interrupted.
const BUSY_TIMEOUT_MS: u64 = 20;

/// Pauses between attempts, in milliseconds: short first, for a neighbour that is merely quick.
const PAUSE_FIRST_MS: u64 = 5;
const PAUSE_MAX_MS: u64 = 100;

const READERS: u32 = 4;

/// One connection that writes and several that read.
pub(super) struct SqliteFile {
    writer: SqlitePool,
    readers: SqlitePool,
    columns: Arc<Columns>,
    /// `None` for a database in memory.
    path: Option<PathBuf>,
}

/// The columns of all tables.
const COLUMNS: &str = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c
    WHERE m.type = 'table' ORDER BY m.name, c.cid";

impl SqliteFile {
    /// Opens the file, waiting for a neighbour that is at work on it: another node's last breath, or a
    /// subcommand.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let mut waited = 0;
        loop {
            match Self::try_open(url).await {
                Err(StoreError::Unavailable(Unavailable::Busy)) if waited < TURN_MS => {
                    tokio::time::sleep(Duration::from_millis(PAUSE_MAX_MS)).await;
                    waited += PAUSE_MAX_MS + BUSY_TIMEOUT_MS;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_open(url: &str) -> Result<Self, StoreError> {
        let in_memory = url.contains(":memory:");
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| Invalid::new("store.url", "is not a SQLite URL"))?
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS));
        let path = (!in_memory).then(|| options.get_filename().to_owned());
        if let Some(path) = &path {
            create_private(path).map_err(|error| {
                tracing::warn!(%error, "the database's file cannot be made");
                StoreError::Unavailable(Unavailable::StorageFailed)
            })?;
        }
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(Duration::from_millis(TURN_MS)) // our own are waited for
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
        let columns: Vec<(String, String)> = sqlx::query_as(COLUMNS).fetch_all(&writer).await?;
        let columns = Arc::new(columns.into_iter().collect());
        Ok(Self { writer, readers, columns, path })
    }

    /// Takes the write lock, waiting for it as long as the budget allows.
    pub(super) async fn write(&self, busy_budget_ms: u64) -> Result<Connection, StoreError> {
        let mut pause = PAUSE_FIRST_MS;
        let mut waited = 0;
        loop {
            match self.writer.begin_with("BEGIN IMMEDIATE").await {
                Err(error) if waited < busy_budget_ms && is_locked(&error) => {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    waited += pause + BUSY_TIMEOUT_MS;
                    pause = (pause * 2).min(PAUSE_MAX_MS);
                }
                outcome => return Ok(Connection::Sqlite(outcome?, Arc::clone(&self.columns))),
            }
        }
    }

    pub(super) async fn read(&self) -> Result<Connection, StoreError> {
        Ok(Connection::Sqlite(self.readers.begin().await?, Arc::clone(&self.columns)))
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM organisations LIMIT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// A number that changes when another process has written (SQLite's `data_version`, which does not
    /// count the writes of its own connection).
    pub(super) async fn foreign_version(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(&self.writer).await?)
    }

    /// Takes the lock that is a node's name, if nobody has it: on a file beside the database, which stays.
    pub(super) fn hold(&self, node: &str) -> Result<Option<Held>, StoreError> {
        let Some(path) = &self.path else { return Ok(Some(Held::Alone)) };
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{node}.lock"));
        let failed = |error: std::io::Error| {
            tracing::warn!(%error, "the file that holds the node's name cannot be locked");
            StoreError::Unavailable(Unavailable::StorageFailed)
        };
        let file = create_private(Path::new(&name)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Held::File(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Makes the file, if there is none, so that only its owner can read it; SQLite gives the files it
/// keeps beside it the same mode.
fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Another process has the lock; one of our own that is slow has been waited for by the pool.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| meaning(&code) == Some(Unavailable::Busy))
}

/// What SQLite's result code means here; the extended code's low byte is the primary one.
pub(super) fn meaning(code: &str) -> Option<Unavailable> {
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
        assert_eq!(meaning("517"), Some(Unavailable::Busy)); // BUSY_SNAPSHOT
        assert_eq!(meaning("13"), Some(Unavailable::StorageFull));
        assert_eq!(meaning("778"), Some(Unavailable::StorageFailed)); // IOERR_WRITE
        assert_eq!(meaning("2067"), None); // CONSTRAINT_UNIQUE
        assert_eq!(meaning("x"), None);
    }
}
