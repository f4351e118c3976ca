//! The same tests once more, on PostgreSQL.
//!
//! A test program that is told of a server (`TRUNKLINE_TEST_POSTGRES`, the URL of somebody who may
//! make schemas) runs itself a second time. In that run every test has a schema of its own instead
//! of an SQLite database. The first run removes them all at the end, whatever became of the second.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// The server.
const SERVER: &str = "TRUNKLINE_TEST_POSTGRES";

/// What the schemas' names begin with; only the second run has it.
const PREFIX: &str = "TRUNKLINE_TEST_SCHEMAS";

/// So many tests that failed are run a second time, by themselves.
const SECOND_CALLS: usize = 20;

/// Runs the tests that have one of `filters` in their names once more, on PostgreSQL; `without`
/// are left out.
pub(crate) async fn run_again(filters: &[&str], without: &[&str]) {
    let Ok(server) = std::env::var(SERVER) else {
        println!("skipped: on SQLite only; {SERVER} names no PostgreSQL server");
        return;
    };
    let prefix = format!("trunkline_test_{}_", std::process::id());
    let skipped = without.iter().flat_map(|name| ["--skip", name]);
    let (mut passed, mut text) = run(filters.iter().copied().chain(skipped), &prefix).await;
    let failed = failed_tests(&text);
    if !passed && (1..=SECOND_CALLS).contains(&failed.len()) {
        // A server that stands still for two seconds is an outage to the program, and a slow disk here.
        let by_themselves = failed.iter().copied().chain(["--exact", "--test-threads=1"]);
        let (passed_now, text_now) = run(by_themselves, &format!("{prefix}again_")).await;
        let how = if passed_now { "passed only" } else { "failed also" };
        println!("on PostgreSQL, {how} by themselves: {}", failed.join(" "));
        if passed_now {
            (passed, text) = (passed_now, text_now);
        }
    }
    remove_schemas(&server, &prefix).await;
    // Set in, so that nobody who counts the lines of the first run counts these too.
    assert!(passed, "on PostgreSQL:\n    {}", text.replace('\n', "\n    "));
    assert!(!text.contains("test result: ok. 0 passed"), "no test ran on PostgreSQL");
    let result = text.lines().find(|line| line.starts_with("test result: "));
    println!("on PostgreSQL: {}", result.unwrap_or_default());
}

/// Runs this program's tests with these arguments on PostgreSQL: whether all passed, and what it said.
async fn run(arguments: impl Iterator<Item = &str>, prefix: &str) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env(PREFIX, prefix);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The tests that a run lists at its end as failed; none of a run that did not get there.
fn failed_tests(text: &str) -> Vec<&str> {
    let list = text.rsplit_once("\nfailures:\n").map_or("", |(_, list)| list);
    list.lines().map_while(|line| line.strip_prefix("    ")).collect()
}

/// The URL of a schema made for one test, in the run on PostgreSQL.
pub(crate) async fn schema() -> Option<String> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let prefix = std::env::var(PREFIX).ok()?;
    let server = std::env::var(SERVER).unwrap();
    let name = format!("{prefix}{}", MADE.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(&server).await.unwrap();
    let sql = AssertSqlSafe(format!("CREATE SCHEMA {name}"));
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let joint = if server.contains('?') { '&' } else { '?' };
    Some(format!("{server}{joint}options[search_path]={name}"))
}

async fn remove_schemas(server: &str, prefix: &str) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    let found = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, $1)";
    let query = sqlx::query_scalar(found).bind(prefix);
    let names: Vec<String> = query.fetch_all(&mut connection).await.unwrap();
    for name in names {
        let sql = AssertSqlSafe(format!("DROP SCHEMA {name} CASCADE"));
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
}

#[test]
fn the_tests_that_failed_are_those_a_run_lists_last() {
    let text = "failures:\n\n---- a::b stdout ----\n    at x.rs\n\nfailures:\n    a::b\n    c\n\ntest result: FAILED.";
    assert_eq!(failed_tests(text), ["a::b", "c"]);
    assert!(failed_tests("running 3 tests\n").is_empty(), "it died");
}
