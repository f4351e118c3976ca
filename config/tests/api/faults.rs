//! What only a look behind the API can set up: managed trunks, a locked database, and races.

use std::sync::Arc;

use axum::http::Method;
use config::api::ApiOptions;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio::task::JoinSet;

use crate::server::Server;

/// A server over a database that others can reach, and a second connection to it.
struct Behind {
    server: Server,
    database: Database,
    folder: std::path::PathBuf,
}

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Behind {
    async fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("trunkline-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let url = match crate::postgres::schema().await {
            Some(url) => url,
            None => format!("sqlite:{}", folder.join("store.db").display()),
        };
        let server = Server::over(&url, ApiOptions::default()).await;
        let database = if url.starts_with("sqlite:") {
            Database::Sqlite(SqliteConnection::connect(&url).await.unwrap())
        } else {
            Database::Postgres(PgConnection::connect(&url).await.unwrap())
        };
        Self { server, database, folder }
    }

    async fn run(&mut self, sql: &'static str) {
        let query = sqlx::raw_sql(sql);
        match &mut self.database {
            Database::Sqlite(database) => drop(query.execute(database).await.unwrap()),
            Database::Postgres(database) => drop(query.execute(database).await.unwrap()),
        }
    }

    /// Locks out those who write; until `ROLLBACK`.
    async fn lock(&mut self) {
        let sql = match &self.database {
            Database::Sqlite(_) => "BEGIN IMMEDIATE",
            Database::Postgres(_) => "BEGIN; LOCK TABLE trunks IN EXCLUSIVE MODE",
        };
        self.run(sql).await;
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn a_managed_trunk_is_read_only() {
    let mut behind = Behind::start().await;
    let trunk = behind.server.trunk("managed").await;
    behind.server.number("+15550000001", &trunk).await;
    behind.run("UPDATE trunks SET managed_account_id = 'account'").await;
    let server = &behind.server;
    let path = format!("/core/trunks/{trunk}");
    assert_eq!(server.get(&path).await.is(200)["managed_account_id"], "account");
    for reply in [
        server.put(&path, json!({ "name": "mine" })).await,
        server.delete(&path).await,
        server.delete(&format!("{path}?force=true")).await,
        server.delete("/core/phone-numbers/+15550000001").await,
        server
            .post(
                "/core/phone-numbers",
                json!({ "phone_number": "+15550000002", "trunk_id": trunk }),
            )
            .await,
    ] {
        assert!(reply.is(400)["detail"].as_str().unwrap().contains("managed"));
    }
    assert_eq!(server.get(&path).await.is(200)["name"], "managed");
    server.get("/core/phone-numbers/+15550000001").await.is(200);
}

#[tokio::test]
async fn a_locked_database_is_503_for_writes_and_nothing_for_reads() {
    let mut behind = Behind::start().await;
    behind.server.trunk("before").await;
    behind.lock().await;
    let reply = behind.server.post("/core/trunks", json!({ "name": "a" })).await;
    assert!(reply.headers.contains_key("retry-after"));
    reply.is(503);
    behind.server.get("/core/trunks").await.is(200);
    behind.run("ROLLBACK").await;
    behind.server.trunk("after").await;
    let list = behind.server.get("/core/trunks").await.is(200);
    assert_eq!(list.as_array().unwrap().len(), 2, "what was refused was not done");
}

/// How many do the same at the same time.
const CROWD: usize = 100;

/// How often each of them asks.
const ATTEMPTS: usize = 100;

/// Sends requests at once; the statuses. Who is told that the store is busy asks again, as a client
/// would: what was refused must not have been done.
async fn at_once(server: &Arc<Server>, requests: Vec<(String, Value)>) -> Vec<u16> {
    let mut all = JoinSet::new();
    for (path, body) in requests {
        let server = Arc::clone(server);
        all.spawn(async move {
            for _ in 0..ATTEMPTS {
                let reply = server.call(Method::POST, &path, &server.key, &body).await;
                if reply.status != 503 {
                    return reply.status.as_u16();
                }
            }
            503
        });
    }
    all.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_registrations_of_one_number_one_wins() {
    let server = Arc::new(Server::start().await);
    let trunk = server.trunk("t").await;
    let body = json!({ "phone_number": "+15551234567", "trunk_id": trunk });
    let requests = vec![("/core/phone-numbers".to_owned(), body); CROWD];
    let statuses = at_once(&server, requests).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), CROWD - 1, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_publishes_to_one_number_the_last_stands_whole() {
    let server = Arc::new(Server::start().await);
    let trunk = server.trunk("t").await;
    server.number("+15551234567", &trunk).await;
    let agents = [server.agent("a").await, server.agent("b").await];
    let body = json!({ "phone_numbers": ["+15551234567"], "direction": "both" });
    let path = |agent: &String| format!("/core/agents/{agent}/versions/1/publish");
    let requests =
        (0..CROWD / 2).flat_map(|_| agents.iter().map(|agent| (path(agent), body.clone())));
    let statuses = at_once(&server, requests.collect()).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let number = server.get("/core/phone-numbers/+15551234567").await.is(200);
    assert_eq!(number["inbound_agent_version_id"], number["outbound_agent_version_id"]);
    let snapshot = server.store.snapshot().load();
    let route = snapshot.number("+15551234567").unwrap();
    assert_eq!(json!(route.inbound_version), number["inbound_agent_version_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_drafts_made_at_once_each_has_a_number_of_its_own() {
    let server = Arc::new(Server::start().await);
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    let statuses = at_once(&server, vec![(path.clone(), json!({ "config": {} })); CROWD]).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let list = server.get(&format!("{path}?limit=1000")).await.is(200);
    let mut numbers: Vec<usize> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|v| json!(v["version"]).to_string().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=CROWD + 1).collect::<Vec<_>>());
}
