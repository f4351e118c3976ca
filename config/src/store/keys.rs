//! Verbs on API keys, and the table in memory that opens the door.
//!
//! Keys are few and asked for at every request, so all of them are kept in memory: a request is let
//! in or turned away without the database, also while that is down, and a revoked key is out at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::rows::{free_stamp, free_stamp_in, json, paged, parsed, raw, time, time_opt, to_json};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::{
    self, Authenticated, KeyHash, Operator, ScopeSet, ScopedTo, Unauthenticated,
};
use crate::ids::{KeyId, OrganisationId};
use crate::model::{ApiKey, NewApiKey, Page};
use crate::secret::Secret;

const FREE_STAMP: &str = free_stamp_in!("api_keys");

/// How exactly it is remembered when a key was last used, in microseconds: a minute.
const LAST_USED_GRAIN_US: i64 = 60_000_000;

/// Compared with when there is no such key, so that the answer takes as long.
const NO_KEY: KeyHash = [0; 32];

/// A key in memory.
pub(super) struct KeyEntry {
    id: KeyId,
    organisation: OrganisationId,
    hash: KeyHash,
    scopes: ScopeSet,
    expires_at_ms: Option<i64>,
    /// Microseconds; 0 is never.
    last_used: AtomicI64,
}

impl KeyEntry {
    pub(super) const fn id(&self) -> KeyId {
        self.id
    }
}

/// All keys that are good.
#[derive(Default)]
pub(super) struct KeyTable(RwLock<HashMap<KeyId, KeyEntry>>);

impl KeyTable {
    pub(super) fn insert(&self, entry: KeyEntry) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(entry.id, entry);
    }

    /// These and no others; when the ones that stay were last used is kept.
    fn replace(&self, entries: Vec<KeyEntry>) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::take(&mut *keys);
        for entry in entries {
            if let Some(known) = old.get(&entry.id) {
                let used = known.last_used.load(Ordering::Relaxed);
                entry.last_used.fetch_max(used, Ordering::Relaxed);
            }
            keys.insert(entry.id, entry);
        }
    }

    pub(super) fn remove(&self, id: KeyId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn check(&self, text: &str, now: Timestamp) -> Result<Authenticated, Unauthenticated> {
        let id = credential::id_of(text).ok_or(Unauthenticated)?;
        let hash = credential::hash(text);
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = keys.get(&id);
        let matches = credential::hashes_match(&hash, entry.map_or(&NO_KEY, |entry| &entry.hash));
        let entry = entry.filter(|_| matches).ok_or(Unauthenticated)?;
        if entry.expires_at_ms.is_some_and(|at| at <= now.millis()) {
            return Err(Unauthenticated);
        }
        entry.last_used.fetch_max(now.micros(), Ordering::Relaxed);
        Ok(Authenticated::by_key(entry.id, entry.organisation, entry.scopes))
    }

    fn last_used(&self, id: KeyId) -> Option<Timestamp> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let micros = keys.get(&id)?.last_used.load(Ordering::Relaxed);
        (micros > 0).then(|| Timestamp::from_micros(micros - micros % LAST_USED_GRAIN_US))
    }

    fn all_last_used(&self) -> Vec<(KeyId, i64)> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let used = |entry: &KeyEntry| entry.last_used.load(Ordering::Relaxed);
        keys.values()
            .filter(|entry| used(entry) > 0)
            .map(|entry| (entry.id, used(entry) - used(entry) % LAST_USED_GRAIN_US))
            .collect()
    }
}

impl Store {
    /// Lets a bearer in, or not. Answers from memory, in a time that does not tell a wrong secret
    /// from an unknown key.
    ///
    /// # Errors
    /// [`Unauthenticated`], whatever is wrong with the key.
    pub fn authenticate(&self, key: &str) -> Result<Authenticated, Unauthenticated> {
        self.0.keys.check(key, self.now())
    }

    /// Makes a key. Returns its text too: it cannot be had again.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if it would hold more than `held`, what its maker holds.
    pub async fn create_key(
        &self,
        scope: &ScopedTo<OrganisationId>,
        held: ScopeSet,
        new: NewApiKey,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        if !held.covers(new.grants.scopes()) {
            return Err(StoreError::refused("a key cannot hold more than the key that makes it"));
        }
        self.add_key(scope.organisation(), new).await
    }

    /// Makes a key for any organisation, holding anything.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such organisation.
    pub async fn create_key_for(
        &self,
        _by: &Operator,
        organisation: OrganisationId,
        new: NewApiKey,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        self.organisation(&ScopedTo::by_gateway(organisation)).await?;
        self.add_key(organisation, new).await
    }

    /// The organisation's keys, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn keys(
        &self,
        scope: &ScopedTo<OrganisationId>,
        page: Page,
    ) -> Result<Vec<ApiKey>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM api_keys t WHERE t.organization_id = ");
        query.push_bind(scope.organisation().to_string());
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        let rows = query.build().fetch_all(&mut *tx).await?;
        let mut keys = rows.iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
        for key in &mut keys {
            key.last_used_at = self.0.keys.last_used(key.key_id).or(key.last_used_at);
        }
        Ok(keys)
    }

    /// Ends a key: when this returns, it opens nothing any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such key.
    pub async fn revoke_key(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: KeyId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let done = sql::query("DELETE FROM api_keys WHERE id = ? AND organization_id = ?")
            .bind(id.to_string())
            .bind(scope.organisation().to_string())
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::not_found("API key"));
        }
        self.commit(tx, After::key_revoked(id)).await
    }

    /// Writes down when keys were last used. The journal's writer calls it now and then.
    ///
    /// # Errors
    /// As the database fails; nothing is lost but this.
    pub async fn flush_last_used(&self) -> Result<(), StoreError> {
        let used = self.0.keys.all_last_used();
        if used.is_empty() {
            return Ok(());
        }
        let mut tx = self.0.db.write().await?;
        for (id, at) in used {
            sql::query(
                "UPDATE api_keys SET last_used_at = ?1
                 WHERE id = ?2 AND coalesce(last_used_at, 0) < ?1",
            )
            .bind(at)
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
        }
        self.commit(tx, After::default()).await
    }

    /// Reads all keys.
    pub(super) async fn load_keys(&self) -> Result<(), StoreError> {
        let mut tx = self.0.db.read().await?;
        let rows = sql::query("SELECT * FROM api_keys").fetch_all(&mut *tx).await?;
        let entries = rows.iter().map(entry_from_row).collect::<Result<Vec<_>, _>>()?;
        self.0.keys.replace(entries);
        Ok(())
    }

    async fn add_key(
        &self,
        organisation: OrganisationId,
        new: NewApiKey,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let (entry, key, text) = self.insert_key(&mut tx, organisation, &new).await?;
        self.commit(tx, After::key_added(entry)).await?;
        Ok((key, text))
    }

    pub(super) async fn insert_key(
        &self,
        tx: &mut Connection,
        organisation: OrganisationId,
        new: &NewApiKey,
    ) -> Result<(KeyEntry, ApiKey, Secret<String>), StoreError> {
        let minted = credential::mint().map_err(|error| {
            tracing::error!(%error, "no randomness for a key");
            StoreError::Fault
        })?;
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO api_keys
                 (id, organization_id, name, hash, grants, expires_at, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(minted.id.to_string())
        .bind(organisation.to_string())
        .bind(&new.name)
        .bind(minted.hash.to_vec())
        .bind(to_json(&new.grants)?)
        .bind(new.expires_at)
        .bind(at.micros())
        .execute(&mut *tx)
        .await?;
        let entry = KeyEntry {
            id: minted.id,
            organisation,
            hash: minted.hash,
            scopes: new.grants.scopes(),
            expires_at_ms: new.expires_at,
            last_used: AtomicI64::new(0),
        };
        let key = ApiKey {
            key_id: minted.id,
            organization_id: organisation,
            name: new.name.clone(),
            grants: new.grants.clone(),
            expires_at: new.expires_at,
            last_used_at: None,
            created_at: at,
        };
        Ok((entry, key, minted.text))
    }
}

fn from_row(row: &Row) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        key_id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        name: raw(row, "name")?,
        grants: json(row, "grants")?,
        expires_at: raw(row, "expires_at")?,
        last_used_at: time_opt(row, "last_used_at")?,
        created_at: time(row, "created_at")?,
    })
}

pub(super) fn entry_from_row(row: &Row) -> Result<KeyEntry, StoreError> {
    let key = from_row(row)?;
    let hash: Vec<u8> = raw(row, "hash")?;
    Ok(KeyEntry {
        id: key.key_id,
        organisation: key.organization_id,
        hash: hash.try_into().map_err(|_| StoreError::Fault)?,
        scopes: key.grants.scopes(),
        expires_at_ms: key.expires_at,
        last_used: AtomicI64::new(0),
    })
}
