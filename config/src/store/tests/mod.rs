//! The verbs, on a real database of its own for each test: an SQLite file, and in a second run a
//! PostgreSQL schema.

mod agents;
mod audit;
mod events;
mod follow;
mod inbound_routing;
mod jobs;
mod keys;
mod managed;
mod node_name;
mod organisation_settings;
mod post_runs;
#[path = "../../../tests/support/postgres.rs"]
mod postgres;
mod records;
mod routes;
mod tenancy;
mod trunks;
mod upgrade;
mod workflows;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::{Store, StoreError, StoreOptions};
use crate::clock::{Clock, Timestamp};
use crate::credential::{Operator, ScopedTo};
use crate::ids::{AgentId, OrganisationId, TrunkId};
use crate::model::{Agent, NewPhoneNumber, NewVersion, PhoneNumber, Publish, Trunk, VersionRef};
use crate::seal::Sealer;

pub(crate) type Org = ScopedTo<OrganisationId>;

/// Where the tests' clock starts: 2026-01-01T00:00:00Z. Each reading is a millisecond later.
pub(super) const START_US: i64 = 1_767_225_600_000_000;

/// A store in a folder that goes when the test does, or in a schema that goes after all tests.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    url: String,
    folder: PathBuf,
}

/// Somebody else who holds the write lock.
pub(crate) enum Locked {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Locked {
    pub(crate) async fn release(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}

#[tokio::test]
async fn everything_holds_on_postgresql_too() {
    let without = ["everything_holds_on_postgresql_too"];
    postgres::run_again(&["store::tests::", "journal::tests::"], &without).await;
}

impl std::ops::Deref for Scratch {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn options() -> StoreOptions {
    let ticks = AtomicI64::new(START_US);
    StoreOptions {
        clock: Clock::from_fn(move || {
            Timestamp::from_micros(ticks.fetch_add(1_000, Ordering::Relaxed))
        }),
        ..StoreOptions::new(Sealer::ephemeral().unwrap(), "sip.example.com")
    }
}

/// Rows that a statement which fills a table adds at once.
const PORTION: usize = 2_000;

impl Scratch {
    pub(crate) async fn new() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: StoreOptions) -> Self {
        let name = format!("trunkline-store-{}", uuid::Uuid::new_v4());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let url = match postgres::schema().await {
            Some(url) => url,
            None => format!("sqlite:{}/store.db", folder.display()),
        };
        let store = Store::open(&url, options).await.unwrap();
        Self { store, url, folder }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// The same database, opened once more, as after a restart or by another node.
    pub(crate) async fn again(&self, options: StoreOptions) -> Store {
        let busy_budget_ms = self.store.0.options.busy_budget_ms;
        Store::open(&self.url, StoreOptions { busy_budget_ms, ..options }).await.unwrap()
    }

    /// Every byte the database keeps.
    pub(super) async fn bytes(&self) -> Vec<u8> {
        if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let sql = "SELECT query_to_xml('SELECT * FROM ' || tablename, true, false, '')::text
                       FROM pg_tables WHERE schemaname = current_schema()";
            let query = sqlx::query_scalar::<_, String>(sql);
            let tables = query.fetch_all(&mut connection).await.unwrap();
            assert!(tables.iter().any(|table| table.contains("<created_at>")));
            return tables.concat().into_bytes();
        }
        let files = std::fs::read_dir(&self.folder).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Does something to the database that is no verb, as a newer program would.
    pub(crate) async fn run(&self, sql: &'static str) {
        if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            return connection.close().await.unwrap();
        }
        let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Takes the write lock, as another process would.
    pub(crate) async fn lock(&self) -> Locked {
        if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(super::postgres::BEGIN_WRITE).execute(&mut connection).await.unwrap();
            return Locked::Postgres(connection);
        }
        let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
        Locked::Sqlite(connection)
    }

    pub(crate) async fn organisation(&self) -> Org {
        let made = self.create_organisation(&Operator::by_process(), "org", None).await.unwrap();
        ScopedTo::by_gateway(made.id)
    }

    /// Adds so many jobs of a kind that are to be done at a time.
    pub(super) async fn fill_jobs(&self, org: &Org, kind: &str, (count, run_at): (u64, i64)) {
        let sql = "WITH RECURSIVE n(i) AS
                 (SELECT CAST(?6 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO jobs (id, organization_id, kind, payload, progress, status, run_at,
                 created_at, updated_at)
             SELECT ?3 || i, ?2, ?3, '{}', '{}', 'waiting', ?4, i + ?5, 0 FROM n";
        let count = i64::try_from(count).unwrap();
        let own_times = i64::try_from(kind.len()).unwrap() * 1_000_000;
        // In portions: each has to be written in time, on a disk that is busy too.
        for first in (1..=count).step_by(PORTION) {
            let last = count.min(first - 1 + i64::try_from(PORTION).unwrap());
            let mut tx = self.0.db.write().await.unwrap();
            let fill = super::sql::query(sql).bind(last).bind(org.organisation().to_string());
            let fill = fill.bind(kind).bind(run_at).bind(own_times).bind(first);
            fill.execute(&mut tx).await.unwrap();
            self.commit(tx, super::After::default()).await.unwrap();
        }
    }

    pub(super) async fn make_trunk(&self, org: &Org, body: Value) -> Result<Trunk, StoreError> {
        self.create_trunk(org, serde_json::from_value(body).unwrap()).await
    }

    pub(super) async fn plain_trunk(&self, org: &Org) -> TrunkId {
        self.make_trunk(org, json!({"name": "trunk"})).await.unwrap().id
    }

    pub(super) async fn make_number(
        &self,
        org: &Org,
        trunk: TrunkId,
        number: &str,
    ) -> Result<PhoneNumber, StoreError> {
        let phone_number = number.parse().unwrap();
        let new = NewPhoneNumber { phone_number, trunk_id: trunk, outbound_shareable: false };
        self.register_number(org, new).await
    }

    pub(super) async fn make_agent(&self, org: &Org, name: &str) -> Agent {
        let new = serde_json::from_value(json!({"name": name})).unwrap();
        self.create_agent(org, new).await.unwrap()
    }

    pub(super) async fn make_version(&self, org: &Org, agent: AgentId, config: Value) -> u32 {
        let new = NewVersion { config: Some(config), ..NewVersion::default() };
        self.create_version(org, agent, new).await.unwrap().version
    }

    pub(super) async fn make_publish(
        &self,
        org: &Org,
        agent: AgentId,
        version: u32,
        body: Value,
    ) -> Result<Vec<PhoneNumber>, StoreError> {
        let publish: Publish = serde_json::from_value(body).unwrap();
        self.publish(org, agent, VersionRef::Number(version), publish).await
    }
}

pub(super) fn not_found(what: &str) -> StoreError {
    StoreError::NotFound(what.to_owned())
}
