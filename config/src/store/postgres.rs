//! A PostgreSQL server: its connections, its migrations, its one write lock, and what its errors mean.
//!
//! Nodes write one at a time. A write begins by taking an advisory lock, in the order of asking, and
//! each of its statements then sees all that was committed before: what the verbs promise (moments
//! that are unique, version numbers that are never used twice, one draft made for many who ask at
//! once) holds for many nodes as it does for SQLite's one writer, and no transaction is turned away
//! half-way and has to be begun again. Readers see one moment and wait for nobody.
//!
//! A server that stays silent is given up after some seconds, connection and all, so that none of our
//! few connections waits for a machine that is gone. The other way round, the server ends what a
//! silent node has left open, and with it the lock.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgListener, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::columns::Columns;
use super::database::{BUSY_BUDGET_MS, migration_failed};
use super::sql::{self, Connection};
use super::{StoreError, Unavailable};
use crate::model::Invalid;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/schema/postgres");

/// Takes the write lock, which is that of the tables' schema.
pub(super) const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SELECT pg_advisory_xact_lock(hashtextextended('trunkline.' || current_schema(), 0))";

const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Takes a node's name, if nobody has it.
const HOLD: &str = "SELECT pg_try_advisory_lock(
    hashtextextended('trunkline.node.' || current_schema() || '.' || $1, 0))";

const KEEP_ALIVE: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3";

/// Connections that write: one does, and another is on its way back.
const WRITERS: u32 = 2;
const READERS: u32 = 4;

/// Prepared statements kept for each connection: more than the verbs have.
const STATEMENTS: usize = 256;

/// How long the server may take to accept the first connection, at the start of a node.
const FIRST_CONNECTION: Duration = Duration::from_secs(10 + STALL_S);

/// How long the server may take to begin, commit or roll back.
const TURNAROUND: Duration = Duration::from_secs(2 + STALL_S);

/// How much longer this crate's unit tests wait for the server, in seconds: on a machine that others
/// share it may stand still for longer than any call would wait.
const STALL_S: u64 = if cfg!(test) { 20 } else { 0 };

/// How long bringing the tables up to date may take, with other nodes doing so too, in seconds.
const MIGRATE_S: u64 = 120;

/// After how long the server ends a statement, in milliseconds, whoever still waits for it.
const STATEMENT_MS: u64 = 30_000;

/// After how long the server ends a transaction whose node says nothing more, in milliseconds: its
/// node is stopped or cut off, and it may hold the write lock.
const IDLE_MS: u64 = 4_000 + 1_000 * STALL_S;

/// Connections to one database of a server.
pub(super) struct PostgresServer {
    options: PgConnectOptions,
    writers: PgPool,
    readers: PgPool,
    columns: Arc<Columns>,
    /// How long it may take to begin to write: the server's turnaround, and the wait for the lock.
    patience: Duration,
}

impl PostgresServer {
    pub(super) async fn open(url: &str, busy_budget_ms: u64) -> Result<Self, StoreError> {
        // The parser's own words could quote the password.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| Invalid::new("store.url", "is not a PostgreSQL URL"))?
            .application_name("trunkline")
            .statement_cache_capacity(STATEMENTS);
        let columns = Arc::new(migrate(&options).await?);
        let pool = |most: u32| {
            let settings = format!(
                "SET lock_timeout = {}; SET statement_timeout = {STATEMENT_MS};
                 SET idle_in_transaction_session_timeout = {IDLE_MS}",
                busy_budget_ms.max(1) // 0 would be for ever
            );
            PgPoolOptions::new()
                .max_connections(most)
                .acquire_timeout(Duration::from_millis(
                    busy_budget_ms.max(BUSY_BUDGET_MS) + 1_000 * STALL_S,
                ))
                .after_connect(move |connection, _| {
                    let settings = AssertSqlSafe(settings.clone());
                    Box::pin(
                        async move { sqlx::raw_sql(settings).execute(connection).await.map(drop) },
                    )
                })
                .connect_lazy_with(options.clone())
        };
        let patience = TURNAROUND.saturating_add(Duration::from_millis(busy_budget_ms));
        Ok(Self { writers: pool(WRITERS), readers: pool(READERS), options, columns, patience })
    }

    /// Takes the write lock, waiting for it as long as the budget allows.
    pub(super) async fn write(&self) -> Result<Connection, StoreError> {
        let begun = PgTransaction::begin(&self.writers, BEGIN_WRITE, self.patience).await;
        Ok(Connection::Postgres(begun?, Arc::clone(&self.columns)))
    }

    pub(super) async fn read(&self) -> Result<Connection, StoreError> {
        let begun = PgTransaction::begin(&self.readers, BEGIN_READ, TURNAROUND).await;
        Ok(Connection::Postgres(begun?, Arc::clone(&self.columns)))
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.read().await.map(drop)
    }

    /// The number of the last write that others must see.
    pub(super) async fn version(&self) -> Result<i64, StoreError> {
        let sql = "SELECT version FROM store_changes";
        sql::query(sql).fetch_scalar(&mut self.read().await?).await
    }

    /// Hears the notices of all nodes, from now on, on a connection of its own.
    pub(super) async fn listen(&self) -> Result<PgListener, StoreError> {
        let options = PgPoolOptions::new().max_connections(1);
        let pool = options.acquire_timeout(TURNAROUND).connect_lazy_with(self.options.clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            let channel = sqlx::query_scalar("SELECT 'trunkline.' || current_schema()");
            let channel: String = channel.fetch_one(&mut listener).await?;
            listener.listen(&channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let answer = timeout(TURNAROUND, listening).await;
        answer.map_err(|_| no_answer())?.map_err(StoreError::from)
    }

    /// Takes the lock that is a node's name, if nobody has it, and returns the session that holds it. A
    /// session whose node is cut off ends soon, and not only when the server next wants to say something.
    pub(super) async fn hold(&self, node: &str) -> Result<Option<PgConnection>, StoreError> {
        let work = async {
            let mut session = PgConnection::connect_with(&self.options).await?;
            sqlx::raw_sql(KEEP_ALIVE).execute(&mut session).await?;
            let held: bool = sqlx::query_scalar(HOLD).bind(node).fetch_one(&mut session).await?;
            Ok::<_, sqlx::Error>(held.then_some(session))
        };
        timeout(TURNAROUND, work).await.map_err(|_| no_answer())?.map_err(StoreError::from)
    }

    pub(super) async fn close(&self) {
        let closing = async {
            self.readers.close().await;
            self.writers.close().await;
        };
        // What a silent server keeps is not waited for.
        let _ = timeout(TURNAROUND, closing).await;
    }
}

/// Sends all nodes a notice, when and if the transaction commits, and returns its number.
pub(super) async fn announce(on: &mut Connection, notice: String) -> Result<i64, StoreError> {
    let sql = "WITH next AS (UPDATE store_changes SET version = version + 1 RETURNING version)
               SELECT version, pg_notify('trunkline.' || current_schema(), version || ' ' || ?)
               FROM next";
    sql::query(sql).bind(notice).fetch_scalar(on).await
}

/// The columns of all tables.
const COLUMNS: &str = "SELECT table_name::text, column_name::text FROM information_schema.columns
    WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position";

/// Brings the tables up to date, and says what they are. Nodes that start together wait for each other.
async fn migrate(options: &PgConnectOptions) -> Result<Columns, StoreError> {
    let work = async {
        let connecting = PgConnection::connect_with(options);
        let connected = timeout(FIRST_CONNECTION, connecting).await.map_err(|_| no_answer())?;
        let mut connection = connected.map_err(StoreError::from)?;
        MIGRATIONS.run(&mut connection).await.map_err(migration_failed)?;
        let columns: Vec<(String, String)> =
            sqlx::query_as(COLUMNS).fetch_all(&mut connection).await.map_err(StoreError::from)?;
        let _ = connection.close().await; // all is done already
        Ok(columns.into_iter().collect())
    };
    timeout(Duration::from_secs(MIGRATE_S), work).await.map_err(|_| no_answer())?
}

async fn bounded<T>(work: impl Future<Output = T>) -> Result<T, StoreError> {
    timeout(TURNAROUND, work).await.map_err(|_| no_answer())
}

fn no_answer() -> StoreError {
    StoreError::Unavailable(Unavailable::NoAnswer)
}

/// A transaction that has begun. Dropped, it is rolled back, or its connection closed.
pub(super) struct PgTransaction {
    /// `None` once the server was given up, or when all is done.
    connection: Option<PoolConnection<Postgres>>,
    /// A statement failed: the server would take a commit for a roll-back.
    failed: bool,
}

impl PgTransaction {
    async fn begin(
        pool: &PgPool,
        sql: &'static str,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => no_answer(),
            error => error.into(),
        })?;
        let mut tx = Self { connection: Some(connection), failed: false };
        tx.run(sql, patience).await?;
        Ok(tx)
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        if self.failed {
            tracing::error!("a write went on after one of its statements had failed");
            return Err(StoreError::Fault);
        }
        self.run("COMMIT", TURNAROUND).await?;
        drop(self.connection.take()); // into the pool
        Ok(())
    }

    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, StoreError> {
        self.connection.as_deref_mut().ok_or_else(no_answer)
    }

    /// What the server said. One that said nothing is given up.
    pub(super) fn heard<T>(
        &mut self,
        answer: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, StoreError> {
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if is_outdated(&error) => {
                tracing::info!("the tables have changed: a connection begins anew");
                self.give_up();
                Err(StoreError::Unavailable(Unavailable::Busy))
            }
            Ok(Err(error)) => {
                self.failed = true;
                Err(error.into())
            }
            Err(_) => {
                tracing::warn!("the database stays silent");
                self.give_up();
                Err(no_answer())
            }
        }
    }

    async fn run(&mut self, sql: &'static str, patience: Duration) -> Result<(), StoreError> {
        let work = sqlx::raw_sql(sql).execute(self.connection()?);
        let answer = timeout(patience, work).await;
        self.heard(answer).map(drop)
    }

    /// Closes the connection without a word: a word could wait for ever.
    fn give_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl Drop for PgTransaction {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return self.give_up() };
        let Some(mut connection) = self.connection.take() else { return };
        runtime.spawn(async move {
            let rollback = bounded(sqlx::raw_sql("ROLLBACK").execute(&mut *connection)).await;
            if !matches!(rollback, Ok(Ok(_))) {
                drop(connection.detach());
            }
        });
    }
}

/// Whether a statement that was prepared on this connection returns something else by now: a newer node
/// has changed the tables. The same asked again, on a connection that has prepared nothing, works.
fn is_outdated(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    // feature_not_supported is said of much; the message of this may be in any language.
    error.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| {
        error.code() == "0A000" && error.routine() == Some("RevalidateCachedQuery")
    })
}

/// What an SQLSTATE means here (PostgreSQL manual, appendix A).
pub(super) fn meaning(state: &str) -> Option<Unavailable> {
    match state {
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled
        "40001" | "40P01" | "55P03" | "57014" => Some(Unavailable::Busy),
        "53100" => Some(Unavailable::StorageFull), // disk_full
        // read_only_sql_transaction (a standby), io_error, data_corrupted, index_corrupted
        "25006" | "58030" | "XX001" | "XX002" => Some(Unavailable::StorageFailed),
        "25P03" => Some(Unavailable::NoAnswer), // idle_in_transaction_session_timeout
        // invalid_catalog_name, invalid_schema_name, insufficient_privilege
        "3D000" | "3F000" | "42501" => Some(Unavailable::AccessDenied),
        _ => match state.get(..2) {
            Some("28") => Some(Unavailable::AccessDenied), // invalid authorisation
            Some("53") => Some(Unavailable::Busy),         // insufficient resources
            Some("08" | "57") => Some(Unavailable::NoAnswer), // connection, operator intervention
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart_by_what_one_can_do_about_them() {
        assert_eq!(meaning("40001"), Some(Unavailable::Busy));
        assert_eq!(meaning("53300"), Some(Unavailable::Busy)); // too_many_connections
        assert_eq!(meaning("53100"), Some(Unavailable::StorageFull));
        assert_eq!(meaning("57P01"), Some(Unavailable::NoAnswer)); // admin_shutdown
        assert_eq!(meaning("08006"), Some(Unavailable::NoAnswer)); // connection_failure
        assert_eq!(meaning("28P01"), Some(Unavailable::AccessDenied)); // invalid_password
        assert_eq!(meaning("23505"), None); // unique_violation: a verb that did not look first
        assert_eq!(meaning(""), None);
    }
}
