//! The name of a node, held for as long as the node runs.
//!
//! A second node of the name would take the first one's calls for some that a crash left open, and its jobs
//! for its own. So the name is a lock: on a file beside an SQLite database, and of a session of its own on a
//! PostgreSQL server. The operating system and the server give it back however a node ends, so that it can
//! begin again at once.

use std::fs::File;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use super::{Store, StoreError};

/// How often is looked whether the server still knows of the lock.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the server may take to answer that.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a node that has just ended may keep its name: its server has yet to notice.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause between two attempts in that time.
const AGAIN: Duration = Duration::from_millis(100);

/// The name, held until this is dropped.
#[derive(Debug)]
pub struct NodeName(pub(super) Held);

/// What holds it.
#[derive(Debug)]
pub(super) enum Held {
    /// Nobody else can see a database in memory.
    Alone,
    /// The lock on this file, which is that of the file's description.
    File(#[expect(dead_code, reason = "it is held, and closed at the end")] File),
    /// The lock of this session.
    Session(PgConnection),
    /// The session was lost, and the lock with it.
    Lost,
}

impl Store {
    /// Holds this node's name; without it no node may take calls.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while another node of this database has it; otherwise as the database
    /// fails.
    pub async fn hold_node_name(&self) -> Result<NodeName, StoreError> {
        let node = &self.0.options.node;
        let attempts = async {
            loop {
                if let Some(held) = self.0.db.hold(node).await? {
                    self.find_left_open().await?;
                    return Ok(NodeName(held));
                }
                sleep(AGAIN).await;
            }
        };
        let taken = || {
            let why = "node.name: another node of this database runs under the name";
            StoreError::Conflict(format!("{why} {node:?}; each needs one of its own"))
        };
        timeout(PATIENCE, attempts).await.unwrap_or_else(|_| Err(taken()))
    }
}

impl NodeName {
    /// Holds the name for as long as it is polled, and takes it again after an outage of the database.
    pub async fn keep(mut self, store: Store) {
        let mut is_lost = false;
        loop {
            sleep(LOOK_EVERY).await;
            let was_lost = std::mem::replace(&mut is_lost, !self.look(&store).await);
            match (was_lost, is_lost) {
                (false, true) => tracing::warn!(
                    "node.name is not held: the database was away, or another node has taken the name"
                ),
                (true, false) => tracing::info!("node.name is held again"),
                _ => {}
            }
        }
    }

    /// Says whether the name is held; one that was lost is taken again, if nobody has it.
    pub(super) async fn look(&mut self, store: &Store) -> bool {
        if let Held::Session(session) = &mut self.0 {
            if matches!(timeout(ANSWER, session.ping()).await, Ok(Ok(()))) {
                return true;
            }
            self.0 = Held::Lost;
        }
        if !matches!(self.0, Held::Lost) {
            return true;
        }
        match store.0.db.hold(&store.0.options.node).await {
            Ok(Some(held)) => {
                self.0 = held;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }
}
