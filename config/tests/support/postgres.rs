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

/// Runs the tests that have one of `filters` in their names once more, on PostgreSQL; `without`
/// are left out.
pub(crate) async fn run_again(filters: &[&str], without: &[&str]) {
    let Ok(server) = std::env::var(SERVER) else {
        println!("skipped: on SQLite only; {SERVER} names no PostgreSQL server");
        return;
    };
    let prefix = format!("trunkline_test_{}_", std::process::id());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(filters).env(PREFIX, &prefix);
    command.args(without.iter().flat_map(|name| ["--skip", name]));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    remove_schemas(&server, &prefix).await;
    assert!(output.status.success(), "on PostgreSQL:\n{text}");
    assert!(!text.contains("test result: ok. 0 passed"), "no test ran on PostgreSQL");
    let result = text.lines().find(|line| line.starts_with("test result: "));
    println!("on PostgreSQL: {}", result.unwrap_or_default());
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
