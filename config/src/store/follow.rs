//! What other processes write: seen here without being asked for.
//!
//! ```text
//! SQLite       asked once a second whether anything was written; then everything is read again
//! PostgreSQL   every write sends a notice with what it touched; that is read again, at once
//! ```
//!
//! The writes of a PostgreSQL database that others must see are numbered, within their transaction.
//! A notice carries its number, so that one that was missed is noticed by the next one, by the look
//! that is taken when no notice has come for a second, and after every loss of the connection: then
//! everything is read again. What is kept in memory is changed in one's turn only, between our own
//! writes, so that nothing of ours is ever swapped out again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::database::Write;
use super::door::DoorChange;
use super::postgres::{self, PostgresServer};
use super::routes::Touched;
use super::{After, Store, StoreError, keys};
use crate::ids::KeyId;

/// How often the number of the last write is looked at, in milliseconds, while nobody tells it.
const LOOK_MS: u64 = 1_000;

/// Pause before a connection that was lost is made again, in milliseconds.
const AGAIN_MS: u64 = 250;

/// The longest notice, in bytes: PostgreSQL takes 8,000 with the number in front.
const NOTICE_BYTES: usize = 7_900;

/// What one write has changed of what is kept in memory. Whatever a write changes there has to have
/// its place here, or other nodes will not know of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Notice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<Touched>,
    /// Keys that were made or ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyId>,
    /// Tokens were made or ended, or users belong elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    users: bool,
    /// Too much to tell: everything has to be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    everything: bool,
}

impl Notice {
    fn of(after: &After) -> Option<Self> {
        let mut notice = Self { routes: after.routes.clone(), ..Self::default() };
        match &after.door {
            Some(DoorChange::KeyAdded(entry)) => notice.keys.push(entry.id),
            Some(DoorChange::KeyRevoked(id)) => notice.keys.push(*id),
            Some(_) => notice.users = true,
            None if notice.routes.is_none() => return None,
            None => {}
        }
        Some(notice)
    }

    fn into_text(self) -> Result<String, StoreError> {
        let text = super::rows::to_json(&self)?;
        if text.len() <= NOTICE_BYTES {
            return Ok(text);
        }
        super::rows::to_json(&Self { everything: true, ..Self::default() })
    }
}

/// The turn to write, and up to which write everything is in memory.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The last write that is seen, with all before it.
    seen: i64,
    /// Writes of our own after one of another node's that is not seen yet.
    ahead: BTreeSet<i64>,
}

/// What a notice's number says.
#[derive(Debug, PartialEq, Eq)]
enum Numbered {
    /// It is seen already.
    Known,
    /// It is the next one.
    Next,
    /// Others before it are not seen, and will not be told again.
    Gap,
}

impl Turn {
    /// All writes up to this one are seen.
    pub(super) fn caught_up(&mut self, version: i64) {
        self.seen = version;
        self.ahead.retain(|own| *own > version);
        while self.ahead.remove(&(self.seen + 1)) {
            self.seen += 1;
        }
    }

    /// A write of our own is seen, if it has a number.
    pub(super) fn wrote(&mut self, version: Option<i64>) {
        match version {
            Some(version) if version == self.seen + 1 => self.caught_up(version),
            Some(version) => drop(self.ahead.insert(version)),
            None => {}
        }
    }

    fn judge(&self, version: i64) -> Numbered {
        if version <= self.seen || self.ahead.contains(&version) {
            Numbered::Known
        } else if version == self.seen + 1 {
            Numbered::Next
        } else {
            Numbered::Gap
        }
    }
}

/// Why listening ended.
enum Deaf {
    /// The connection was lost, or a notice.
    Lost,
    Failed(StoreError),
}

impl From<StoreError> for Deaf {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Store {
    /// Takes over what another process has written since the last time: credentials made or
    /// revoked, and everything calls read. Costs one trivial query when nothing has changed. Says whether
    /// anything had.
    ///
    /// # Errors
    /// As the database fails; what is in memory stays.
    pub async fn follow(&self) -> Result<bool, StoreError> {
        let mut turn = self.0.db.turn().await?;
        let version = self.0.db.version().await?;
        if turn.seen == version {
            return Ok(false);
        }
        self.read_again(&mut turn, version).await?;
        Ok(true)
    }

    /// Follows what other processes write for as long as it is polled: within milliseconds on
    /// PostgreSQL, within a second on SQLite. Goes on whatever happens to the database.
    pub async fn keep_following(self) {
        loop {
            let pause = match self.0.db.postgres() {
                Some(server) => {
                    if let Err(Deaf::Failed(error)) = self.heed_notices(server).await {
                        tracing::debug!(%error, "notices of other nodes cannot be heard");
                    }
                    AGAIN_MS
                }
                None => {
                    if let Err(error) = self.follow().await {
                        tracing::debug!(%error, "what others write cannot be seen");
                    }
                    LOOK_MS
                }
            };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Sends the notice that this write deserves, if it commits, and returns its number.
    pub(super) async fn announce(
        &self,
        tx: &mut Write,
        after: &After,
    ) -> Result<Option<i64>, StoreError> {
        match (self.0.db.postgres(), Notice::of(after)) {
            (Some(_), Some(notice)) => postgres::announce(tx, notice.into_text()?).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Listens first and looks then, so that nothing is missed between the two.
    async fn heed_notices(&self, server: &PostgresServer) -> Result<(), Deaf> {
        let mut listener = server.listen().await?;
        self.follow().await?;
        loop {
            match timeout(Duration::from_millis(LOOK_MS), listener.try_recv()).await {
                Ok(Ok(Some(notice))) => self.heed(notice.payload()).await?,
                Ok(Ok(None)) => return Err(Deaf::Lost),
                Ok(Err(error)) => return Err(StoreError::from(error).into()),
                Err(_quiet) => {
                    if self.follow().await? {
                        return Err(Deaf::Lost); // something was written, and nobody told
                    }
                }
            }
        }
    }

    async fn heed(&self, payload: &str) -> Result<(), StoreError> {
        let parts = payload.split_once(' ').and_then(|(number, text)| {
            Some((number.parse().ok()?, serde_json::from_str::<Notice>(text).ok()?))
        });
        let Some((version, notice)) = parts else {
            // Of a node that knows more than this one, or of nobody: the numbers tell.
            return self.follow().await.map(drop);
        };
        let mut turn = self.0.db.turn().await?;
        match turn.judge(version) {
            Numbered::Known => return Ok(()),
            Numbered::Next if !notice.everything => self.read_touched(&notice).await?,
            Numbered::Next | Numbered::Gap => return self.read_again(&mut turn, version).await,
        }
        turn.caught_up(version);
        Ok(())
    }

    async fn read_touched(&self, notice: &Notice) -> Result<(), StoreError> {
        let mut tx = self.0.db.read().await?;
        let snapshot = match &notice.routes {
            Some(touched) => Some(self.next_snapshot(&mut tx, touched).await?),
            None => None,
        };
        let mut changes = Vec::new();
        for id in &notice.keys {
            let entry = keys::entry(&mut tx, *id).await?;
            changes.push(entry.map_or(DoorChange::KeyRevoked(*id), DoorChange::KeyAdded));
        }
        drop(tx);
        if notice.users {
            self.load_door().await?;
        }
        for change in changes {
            self.0.door.apply(change);
        }
        if let Some(snapshot) = snapshot {
            self.0.snapshot.swap(snapshot);
        }
        Ok(())
    }

    /// Reads everything, which is then as it was at `version` or later.
    async fn read_again(&self, turn: &mut Turn, version: i64) -> Result<(), StoreError> {
        self.load_door().await?;
        self.load_routes().await?;
        turn.caught_up(version);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_seen_in_order_and_our_own_when_those_before_are() {
        let mut turn = Turn::default();
        turn.caught_up(7);
        assert_eq!(turn.judge(7), Numbered::Known);
        assert_eq!(turn.judge(8), Numbered::Next);
        assert_eq!(turn.judge(9), Numbered::Gap);
        turn.wrote(Some(8));
        assert_eq!(turn.judge(8), Numbered::Known);
        turn.wrote(Some(10)); // 9 is another node's
        turn.wrote(Some(11));
        turn.wrote(None);
        assert_eq!(turn.judge(10), Numbered::Known);
        assert_eq!(turn.judge(9), Numbered::Next);
        turn.caught_up(9);
        assert_eq!(turn.judge(11), Numbered::Known);
        assert_eq!(turn.judge(12), Numbered::Next);
    }

    #[test]
    fn a_notice_that_is_too_long_says_everything() {
        let numbers = (0..1_000).map(|number| format!("+1555{number:07}")).collect();
        let routes = Some(Touched { numbers, ..Touched::default() });
        let notice = Notice { routes, ..Notice::default() };
        assert_eq!(notice.into_text().unwrap(), r#"{"everything":true}"#);
        let routes = Some(Touched { numbers: vec!["+1".to_owned()], ..Touched::default() });
        let notice = Notice { routes, ..Notice::default() };
        assert_eq!(notice.into_text().unwrap(), r#"{"routes":{"numbers":["+1"]}}"#);
    }
}
