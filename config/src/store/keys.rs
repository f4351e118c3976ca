//! Verbs on API keys.

use super::door::{DoorChange, KeyEntry, KeyPowers};
use super::rows::{free_stamp, free_stamp_in, json, paged, parsed, raw, time, time_opt, to_json};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError};
use crate::credential::{self, Operator, ScopeSet, ScopedTo};
use crate::ids::{KeyId, OrganisationId};
use crate::limits::ORGANISATION_KEYS;
use crate::model::{ApiKey, NewApiKey, Page};
use crate::secret::Secret;

const FREE_STAMP: &str = free_stamp_in!("api_keys");

impl Store {
    /// Makes a key. Returns its text too: it cannot be had again.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if it would hold more than `held`, what its maker holds, or at the
    /// limit of keys.
    pub async fn create_key(
        &self,
        scope: &ScopedTo<OrganisationId>,
        held: ScopeSet,
        new: NewApiKey,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        if !held.covers(new.grants.scopes()) {
            return Err(StoreError::refused("a key cannot hold more than whoever makes it"));
        }
        self.add_key(scope, new).await
    }

    /// Makes a key for any organisation, holding anything.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such organisation.
    pub async fn create_key_for(
        &self,
        by: &Operator,
        organisation: OrganisationId,
        new: NewApiKey,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        let scope = by.within(organisation);
        self.organisation(&scope).await?;
        self.add_key(&scope, new).await
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
        let rows = query.build().fetch_all(&mut tx).await?;
        let mut keys = rows.iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
        for key in &mut keys {
            key.last_used_at = self.0.door.key_last_used(key.key_id).or(key.last_used_at);
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
        let row = sql::query("SELECT * FROM api_keys WHERE id = ? AND organization_id = ?")
            .bind(id.to_string())
            .bind(scope.organisation().to_string())
            .fetch_optional(&mut tx)
            .await?
            .ok_or_else(|| StoreError::not_found("API key"))?;
        sql::query("DELETE FROM api_keys WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut tx)
            .await?;
        tx.note(Change::of(scope, "key.revoke").object(id).before(&from_row(&row)?)?);
        self.commit(tx, After::door(DoorChange::KeyRevoked(id))).await
    }

    async fn add_key(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewApiKey,
    ) -> Result<(ApiKey, Secret<String>), StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let held: i64 = sql::query("SELECT count(*) FROM api_keys WHERE organization_id = ?")
            .bind(scope.organisation().to_string())
            .fetch_scalar(&mut tx)
            .await?;
        if held >= i64::from(ORGANISATION_KEYS.value_u32()) {
            return Err(StoreError::refused("API key limit reached"));
        }
        let (entry, key, text) = self.insert_key(&mut tx, scope.organisation(), &new).await?;
        tx.note(Change::of(scope, "key.create").object(key.key_id).after(&key)?);
        self.commit(tx, After::door(DoorChange::KeyAdded(entry))).await?;
        Ok((key, text))
    }

    pub(super) async fn insert_key(
        &self,
        tx: &mut Connection,
        organisation: OrganisationId,
        new: &NewApiKey,
    ) -> Result<(KeyEntry, ApiKey, Secret<String>), StoreError> {
        let minted = credential::mint::<KeyId>().map_err(no_randomness)?;
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
        let powers = KeyPowers { organisation, scopes: new.grants.scopes() };
        let entry = KeyEntry::new(minted.id, powers, minted.hash, new.expires_at);
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

/// All keys, for the door.
pub(super) async fn entries(tx: &mut Connection) -> Result<Vec<KeyEntry>, StoreError> {
    let rows = sql::query("SELECT * FROM api_keys").fetch_all(tx).await?;
    rows.iter().map(entry_from_row).collect()
}

/// One key, for the door.
pub(super) async fn entry(tx: &mut Connection, id: KeyId) -> Result<Option<KeyEntry>, StoreError> {
    let row = sql::query("SELECT * FROM api_keys WHERE id = ?").bind(id.to_string());
    row.fetch_optional(tx).await?.as_ref().map(entry_from_row).transpose()
}

/// Writes down when a key was last used.
pub(super) async fn set_last_used(
    tx: &mut Connection,
    id: KeyId,
    at_us: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE api_keys SET last_used_at = ?1
               WHERE id = ?2 AND coalesce(last_used_at, 0) < ?1";
    sql::query(sql).bind(at_us).bind(id.to_string()).execute(tx).await?;
    Ok(())
}

pub(super) fn no_randomness(error: getrandom::Error) -> StoreError {
    tracing::error!(%error, "no randomness for a credential");
    StoreError::Fault
}

fn entry_from_row(row: &Row) -> Result<KeyEntry, StoreError> {
    let key = from_row(row)?;
    let hash: Vec<u8> = raw(row, "hash")?;
    let hash = hash.try_into().map_err(|_| StoreError::Fault)?;
    let powers = KeyPowers { organisation: key.organization_id, scopes: key.grants.scopes() };
    Ok(KeyEntry::new(key.key_id, powers, hash, key.expires_at))
}
