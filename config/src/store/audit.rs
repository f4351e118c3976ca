//! The audit log: who changed what, when and from where; appended to, never changed.
//!
//! ```text
//!  entry 1 ──► hash 1 ─┐
//!  entry 2 ────────────┴► hash 2 ─┐         hash n = SHA-256(hash n-1 ‖ entry n)
//!  entry 3 ───────────────────────┴► hash 3 = head of the chain
//! ```
//!
//! Every organisation has a chain of its own, and so has what concerns none. An entry is written in
//! the transaction of the change it tells of: neither is there without the other. The head of a chain
//! is kept beside it, so that missing newest entries show too. Whoever can write to the database can
//! write a whole chain anew; that shows against a head that was noted elsewhere.
//!
//! Invariant: no secret gets here. Of an object there is its id, and the digest of what the API shows
//! of it, where secrets are never shown.

use std::fmt::Display;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::rows::{and, json, paged, raw, to_json};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::{Actor, Authenticated, Operator, ScopedTo};
use crate::ids::OrganisationId;
use crate::model::{
    AuditActor, AuditChain, AuditEntry, AuditFault, AuditFilter, AuditOutcome, Page,
};

/// The chain of what concerns no organisation.
const NODE: &str = "node";

/// Entries read at once by a verification.
const STRIDE: i64 = 1_000;

type Hash = [u8; 32];

/// What a verb did, for the audit log.
pub(super) struct Change {
    chain: String,
    actor: Actor,
    action: String,
    object_id: Option<String>,
    status: Option<u16>,
    before: Option<String>,
    after: Option<String>,
}

impl Change {
    /// Something of an organisation's. The action reads `noun.verb`.
    pub(super) fn of(scope: &ScopedTo<OrganisationId>, action: &'static str) -> Self {
        Self::new(scope.organisation().to_string(), scope.actor(), action.to_owned())
    }

    /// Something that is no organisation's.
    pub(super) fn of_node(by: Actor, action: &'static str) -> Self {
        Self::new(NODE.to_owned(), by, action.to_owned())
    }

    const fn new(chain: String, actor: Actor, action: String) -> Self {
        Self { chain, actor, action, object_id: None, status: None, before: None, after: None }
    }

    /// What it was done to.
    pub(super) fn object(self, id: impl Display) -> Self {
        Self { object_id: Some(id.to_string()), ..self }
    }

    /// The object as it was, in the form the API shows it in.
    pub(super) fn before<T: Serialize>(self, object: &T) -> Result<Self, StoreError> {
        Ok(Self { before: Some(digest(object)?), ..self })
    }

    /// The object as it is now, in the form the API shows it in.
    pub(super) fn after<T: Serialize>(self, object: &T) -> Result<Self, StoreError> {
        Ok(Self { after: Some(digest(object)?), ..self })
    }

    fn into_entry(self, sequence: i64, at: Timestamp) -> AuditEntry {
        AuditEntry {
            sequence,
            at,
            actor: AuditActor::from(self.actor),
            source_address: self.actor.source.map(|address| address.to_string()),
            action: self.action,
            object_id: self.object_id,
            outcome: match self.status {
                None => AuditOutcome::Done,
                Some(_) => AuditOutcome::Refused,
            },
            status: self.status,
            before: self.before,
            after: self.after,
            previous_hash: String::new(),
            hash: String::new(),
        }
    }
}

fn digest<T: Serialize>(object: &T) -> Result<String, StoreError> {
    Ok(hexadecimal(&Sha256::digest(to_json(object)?)))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn next_hash(previous: &[u8], entry: &str) -> Hash {
    Sha256::new().chain_update(previous).chain_update(entry).finalize().into()
}

impl Store {
    /// Writes down something that was done elsewhere than in the store, such as ending a call. It is
    /// done by now: what cannot be written goes to the program's own log.
    pub(crate) async fn note_act(
        &self,
        scope: &ScopedTo<OrganisationId>,
        action: &'static str,
        object: impl Display,
    ) {
        self.note_alone(Change::of(scope, action).object(object)).await;
    }

    /// Writes down a request that was refused; `action` is its method and path.
    pub(crate) async fn note_refusal(
        &self,
        by: &Authenticated,
        action: String,
        object_id: Option<String>,
        status: u16,
    ) {
        let chain = by.organisation().organisation().to_string();
        let change = Change::new(chain, by.actor(), action);
        self.note_alone(Change { object_id, status: Some(status), ..change }).await;
    }

    async fn note_alone(&self, change: Change) {
        let action = change.action.clone();
        let noting = async {
            let mut tx = self.0.db.write().await?;
            tx.note(change);
            self.commit(tx, After::default()).await
        };
        if let Err(error) = noting.await {
            tracing::warn!(%error, action, "an entry is missing in the audit log");
        }
    }

    /// The organisation's log, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn audit_log(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.list_entries(&scope.organisation().to_string(), filter, page).await
    }

    /// The log of what concerns no organisation, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn node_audit_log(
        &self,
        _by: &Operator,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.list_entries(NODE, filter, page).await
    }

    /// Whether the organisation's log is whole and as it was written.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn verify_audit_log(
        &self,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<AuditChain, StoreError> {
        let mut tx = self.0.db.read().await?;
        verify(&mut tx, &scope.organisation().to_string()).await
    }

    /// The same, of all logs there are.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn verify_audit_logs(&self, _by: &Operator) -> Result<Vec<AuditChain>, StoreError> {
        let mut tx = self.0.db.read().await?;
        let chains: Vec<String> = sql::query(
            "SELECT chain FROM audit_chains UNION SELECT chain FROM audit_log ORDER BY 1",
        )
        .fetch_scalars(&mut tx)
        .await?;
        let mut verified = Vec::with_capacity(chains.len());
        for chain in chains {
            verified.push(verify(&mut tx, &chain).await?);
        }
        Ok(verified)
    }

    async fn list_entries(
        &self,
        chain: &str,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT t.entry, t.hash, p.hash AS previous FROM audit_log t
             LEFT JOIN audit_log p ON p.chain = t.chain AND p.sequence = t.sequence - 1
             WHERE t.chain = ",
        );
        query.push_bind(chain);
        and(&mut query, "t.action =", filter.action.as_deref());
        and(&mut query, "t.object_id =", filter.object_id.as_deref());
        and(&mut query, "t.actor_id =", filter.actor_id.as_deref());
        and(&mut query, "t.created_at >=", filter.after.map(Timestamp::micros));
        and(&mut query, "t.created_at <=", filter.before.map(Timestamp::micros));
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }
}

/// Appends what a write does to the chains that it concerns.
pub(super) async fn append(
    tx: &mut Connection,
    mut changes: Vec<Change>,
    now: Timestamp,
) -> Result<(), StoreError> {
    while let Some(first) = changes.first() {
        let mut end = End::of(tx, first.chain.clone()).await?;
        let (own, others) = changes.into_iter().partition(|change| change.chain == end.chain);
        for change in own {
            end.append(tx, change, now).await?;
        }
        end.write(tx).await?;
        changes = others;
    }
    Ok(())
}

/// The end of a chain, to which entries are appended.
struct End {
    chain: String,
    entries: i64,
    head: Vec<u8>,
    last_at: i64,
}

impl End {
    /// Reads it. The row is ours until the commit: entries of one chain follow one another.
    async fn of(tx: &mut Connection, chain: String) -> Result<Self, StoreError> {
        let row = sql::query(
            "INSERT INTO audit_chains (chain, entries, head, last_at) VALUES (?, 0, ?, 0)
             ON CONFLICT (chain) DO UPDATE SET entries = audit_chains.entries
             RETURNING entries, head, last_at",
        )
        .bind(&chain)
        .bind(Hash::default().to_vec())
        .fetch_one(tx)
        .await?;
        let (entries, head) = (raw(&row, "entries")?, raw(&row, "head")?);
        Ok(Self { chain, entries, head, last_at: raw(&row, "last_at")? })
    }

    async fn append(
        &mut self,
        tx: &mut Connection,
        change: Change,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.entries += 1;
        self.last_at = now.micros().max(self.last_at + 1);
        let entry = change.into_entry(self.entries, Timestamp::from_micros(self.last_at));
        let text = to_json(&entry)?;
        self.head = next_hash(&self.head, &text).to_vec();
        sql::query(
            "INSERT INTO audit_log
                 (chain, sequence, created_at, action, object_id, actor_id, entry, hash)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&self.chain)
        .bind(entry.sequence)
        .bind(entry.at.micros())
        .bind(&entry.action)
        .bind(&entry.object_id)
        .bind(&entry.actor.id)
        .bind(text)
        .bind(self.head.clone())
        .execute(tx)
        .await?;
        Ok(())
    }

    async fn write(self, tx: &mut Connection) -> Result<(), StoreError> {
        sql::query("UPDATE audit_chains SET entries = ?, head = ?, last_at = ? WHERE chain = ?")
            .bind(self.entries)
            .bind(self.head)
            .bind(self.last_at)
            .bind(self.chain)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Walks a chain from its first entry to its head.
async fn verify(tx: &mut Connection, chain: &str) -> Result<AuditChain, StoreError> {
    let head = sql::query("SELECT entries, head FROM audit_chains WHERE chain = ?").bind(chain);
    let head = head.fetch_optional(tx).await?;
    let (entries, head): (i64, Vec<u8>) = match &head {
        Some(row) => (raw(row, "entries")?, raw(row, "head")?),
        None => (0, Hash::default().to_vec()),
    };
    let mut verified = AuditChain {
        organization_id: chain.parse().ok(),
        entries,
        head_hash: hexadecimal(&head),
        fault: None,
    };
    let (mut sequence, mut previous) = (0, Hash::default().to_vec());
    loop {
        let rows = sql::query(
            "SELECT * FROM audit_log WHERE chain = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        );
        let rows = rows.bind(chain).bind(sequence).bind(STRIDE).fetch_all(tx).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            if let Err(fault) = check_row(row, sequence + 1, &previous)? {
                return Ok(AuditChain { fault: Some(fault), ..verified });
            }
            sequence += 1;
            previous = raw(row, "hash")?;
        }
    }
    if sequence != entries || previous != head {
        verified.fault = Some(AuditFault::missing(sequence + 1));
    }
    Ok(verified)
}

/// Whether a row is the entry that was written after `previous`.
fn check_row(
    row: &Row,
    expected: i64,
    previous: &[u8],
) -> Result<Result<(), AuditFault>, StoreError> {
    if raw::<i64>(row, "sequence")? != expected {
        return Ok(Err(AuditFault::missing(expected)));
    }
    let text: &str = raw(row, "entry")?;
    if next_hash(previous, text) != raw::<&[u8]>(row, "hash")? {
        return Ok(Err(AuditFault::changed(expected)));
    }
    let Ok(entry) = serde_json::from_str::<AuditEntry>(text) else {
        return Ok(Err(AuditFault::changed(expected)));
    };
    let same = entry.sequence == expected
        && entry.at.micros() == raw::<i64>(row, "created_at")?
        && entry.action == raw::<&str>(row, "action")?
        && entry.object_id.as_deref() == raw::<Option<&str>>(row, "object_id")?
        && entry.actor.id.as_deref() == raw::<Option<&str>>(row, "actor_id")?;
    Ok(if same { Ok(()) } else { Err(AuditFault::changed(expected)) })
}

fn from_row(row: &Row) -> Result<AuditEntry, StoreError> {
    let mut entry: AuditEntry = json(row, "entry")?;
    entry.hash = hexadecimal(raw(row, "hash")?);
    let previous: Option<&[u8]> = raw(row, "previous")?;
    entry.previous_hash = hexadecimal(previous.unwrap_or(&Hash::default()));
    Ok(entry)
}
