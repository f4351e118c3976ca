//! What a large store costs: opening it, look-ups in its snapshot, and how soon a publish has effect.
//!
//! `cargo bench -p trunkline-config --bench store` fills a store with 10,000 trunks and 100,000
//! numbers and prints one line for each case. With `TRUNKLINE_TEST_POSTGRES` it does so on PostgreSQL
//! too, where a second node waits for what the first one publishes.

#![expect(
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a bench that cannot go on should stop, and its times are short"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use config::credential::{Operator, ScopedTo};
use config::ids::{AgentId, OrganisationId};
use config::model::{NewPhoneNumber, VersionRef};
use config::seal::Sealer;
use config::store::{Store, StoreError, StoreOptions};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

const TRUNKS: u32 = 10_000;
const NUMBERS: u32 = 100_000;
const PUBLISHES: usize = 500;
const LOOKUPS: u32 = 1_000_000;

type Org = ScopedTo<OrganisationId>;

#[tokio::main]
async fn main() {
    let folder = std::env::temp_dir().join(format!("trunkline-bench-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).expect("a folder can be made");
    println!("{TRUNKS} trunks, {NUMBERS} numbers");
    measure("SQLite", &format!("sqlite:{}/store.db", folder.display())).await;
    let _ = std::fs::remove_dir_all(&folder);
    if let Ok(server) = std::env::var("TRUNKLINE_TEST_POSTGRES") {
        let joint = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{joint}options[search_path]=trunkline_bench");
        run(&server, "DROP SCHEMA IF EXISTS trunkline_bench CASCADE").await;
        run(&server, "CREATE SCHEMA trunkline_bench").await;
        measure("PostgreSQL", &url).await;
        run(&server, "DROP SCHEMA trunkline_bench CASCADE").await;
    }
}

async fn measure(name: &str, url: &str) {
    let first = open(url, "first").await;
    let by = Operator::by_process();
    let made = first.create_organisation(&by, "bench", None).await.expect("an organisation");
    let org = ScopedTo::by_gateway(made.id);
    fill(url, made.id).await;
    drop(first);
    let (took, store) = timed(open(url, "first")).await;
    println!("{name}: opening and reading all            {took:>12.1?}");
    println!("{name}: numbers and trunks                 {:?}", store.snapshot().load().size());
    look_up(name, &store);
    register(name, &store, &org).await;
    publish(name, &store, &org).await;
    if !url.starts_with("sqlite:") {
        neighbour(name, url, &store, &org).await;
    }
}

async fn open(url: &str, node: &str) -> Store {
    for _ in 0..20 {
        let sealer = Sealer::ephemeral().expect("randomness");
        let usual = StoreOptions::new(sealer, "sip.example.com");
        let options = StoreOptions { node: node.to_owned(), max_phone_numbers: 1_000_000, ..usual };
        match Store::open(url, options).await {
            Err(StoreError::Unavailable(why)) => println!("waiting for the store: {why}"),
            opened => return opened.expect("a store"),
        }
    }
    panic!("the store stays unavailable")
}

async fn run(url: &str, sql: &str) {
    let query = sqlx::raw_sql(AssertSqlSafe(sql));
    let done = if url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(url).await.expect("a connection");
        query.execute(&mut connection).await.map(drop)
    } else {
        let mut connection = PgConnection::connect(url).await.expect("a connection");
        query.execute(&mut connection).await.map(drop)
    };
    done.expect("rows can be written");
}

/// Straight into the tables: verbs would take their time.
async fn fill(url: &str, organisation: OrganisationId) {
    let rows = |count: u32| {
        format!(
            "WITH RECURSIVE n (i) AS
                 (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        )
    };
    let trunk = "'1' || CAST(1000000 + i AS TEXT) || '-0000-4000-8000-000000000000'";
    run(
        url,
        &format!(
            "{} INSERT INTO trunks (id, organization_id, name, name_folded, slug, inbound_config,
                 created_at, updated_at)
             SELECT {trunk}, '{organisation}', 'trunk', 'trunk', 's' || CAST(i AS TEXT),
                 '{{\"allowed_addresses\":[\"10.' || CAST(i / 250 AS TEXT) || '.'
                     || CAST(i % 250 AS TEXT) || '.1\"]}}', i, i FROM n",
            rows(TRUNKS)
        ),
    )
    .await;
    run(
        url,
        &format!(
            "{} INSERT INTO phone_numbers (phone_number, organization_id, trunk_id, created_at,
                 updated_at)
             SELECT '+1' || CAST(5550000000 + i AS TEXT), '{organisation}',
                 '1' || CAST(1000001 + i % {TRUNKS} AS TEXT) || '-0000-4000-8000-000000000000',
                 i, i FROM n",
            rows(NUMBERS)
        ),
    )
    .await;
}

fn look_up(name: &str, store: &Store) {
    let snapshots = store.snapshot();
    let numbers: Vec<_> = (1..=NUMBERS)
        .step_by(97)
        .map(|i| format!("+1{}", 5_550_000_000_u64 + u64::from(i)))
        .collect();
    let begun = now();
    for (_, number) in (0..LOOKUPS).zip(numbers.iter().cycle()) {
        let snapshot = snapshots.load();
        let route = snapshot.number(black_box(number)).expect("a number that is there");
        black_box(snapshot.trunk(route.trunk_id).expect("its trunk"));
    }
    let each = begun.elapsed() / LOOKUPS;
    println!("{name}: snapshot, number and its trunk      {each:>12.1?}");
}

/// Registers numbers while another thread looks up without a pause.
async fn register(name: &str, store: &Store, org: &Org) {
    let trunk = "11000001-0000-4000-8000-000000000000".parse().expect("an id");
    let (stop, worst) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reader = std::thread::spawn({
        let (stop, worst, snapshots) = (Arc::clone(&stop), Arc::clone(&worst), store.snapshot());
        move || {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = now();
                black_box(snapshots.load().number("+15550000001"));
                times.push(begun.elapsed());
            }
            times.sort_unstable();
            let at = times.len() - times.len() / 100_000 - 1;
            let worst_of = times.get(at).map_or(0, |time| time.as_nanos() as u64);
            worst.store(worst_of, Ordering::Relaxed);
        }
    });
    let mut times = Vec::new();
    for i in 0..PUBLISHES {
        let phone_number = format!("+49{}", 3_000_000_000_u64 + i as u64).parse().expect("E.164");
        let new = NewPhoneNumber { phone_number, trunk_id: trunk, outbound_shareable: false };
        let (took, made) = timed(store.register_number(org, new)).await;
        made.expect("a number");
        times.push(took);
    }
    stop.store(true, Ordering::Relaxed);
    reader.join().unwrap_or_else(|_| panic!("the reader failed"));
    print(name, "registering a number, to effect", times);
    let worst = Duration::from_nanos(worst.load(Ordering::Relaxed));
    println!("{name}: look-up meanwhile, p99.999          {worst:>12.1?}");
}

/// From asking for a publish to its effect on calls.
async fn publish(name: &str, store: &Store, org: &Org) {
    let agents = [agent(store, org).await, agent(store, org).await];
    let mut times = Vec::new();
    for agent in agents.iter().cycle().take(PUBLISHES) {
        let (took, ()) = timed(publish_once(store, org, *agent)).await;
        let snapshot = store.snapshot().load();
        let route = snapshot.number("+15550000001").expect("a number that is there");
        let version = route.inbound_version.and_then(|id| snapshot.version(id));
        assert_eq!(version.map(|version| version.agent_id), Some(*agent));
        times.push(took);
    }
    print(name, "publish, to effect", times);
}

/// From asking for a publish at one node to its effect at another.
async fn neighbour(name: &str, url: &str, store: &Store, org: &Org) {
    let other = open(url, "second").await;
    let following = tokio::spawn(other.clone().keep_following());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let agents = [agent(store, org).await, agent(store, org).await];
    let mut times = Vec::new();
    for agent in agents.iter().cycle().take(PUBLISHES) {
        let begun = now();
        publish_once(store, org, *agent).await;
        loop {
            let snapshot = other.snapshot().load();
            let route = snapshot.number("+15550000001").expect("a number that is there");
            let version = route.inbound_version.and_then(|id| snapshot.version(id));
            if version.is_some_and(|version| version.agent_id == *agent) {
                break;
            }
            tokio::task::yield_now().await;
        }
        times.push(begun.elapsed());
    }
    following.abort();
    print(name, "publish, to effect elsewhere", times);
}

async fn agent(store: &Store, org: &Org) -> AgentId {
    let read = |value: Value| serde_json::from_value(value).expect("an agent");
    let agent = store.create_agent(org, read(json!({ "name": "a" }))).await.expect("an agent");
    let new = serde_json::from_value(json!({ "config": {} })).expect("a version");
    store.create_version(org, agent.id, new).await.expect("a version");
    agent.id
}

async fn publish_once(store: &Store, org: &Org, agent: AgentId) {
    let body = json!({ "phone_numbers": ["+15550000001"] });
    let publish = serde_json::from_value(body).expect("a publish");
    store.publish(org, agent, VersionRef::Number(1), publish).await.expect("published");
}

fn print(name: &str, what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{name}: {what:<34} p50 {:>9.1?}  p99 {:>9.1?}", at(50), at(99));
}

async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let begun = now();
    let result = work.await;
    (begun.elapsed(), result)
}

#[expect(clippy::disallowed_methods, reason = "a bench is about time")]
fn now() -> Instant {
    Instant::now()
}
