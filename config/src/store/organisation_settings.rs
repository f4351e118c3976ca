//! Verbs on what an organisation says of its calls once for all of them.

use serde_json::Value;

use super::routes::Touched;
use super::rows::{json_opt, parsed, raw, small_opt, to_json_opt};
use super::sql::{self, Connection};
use super::{After, Change, Store, StoreError};
use crate::credential::ScopedTo;
use crate::ids::OrganisationId;
use crate::model::{ConcurrencyChange, DefaultRuntime, of_body};

/// What the token of an organisation's default runtime is sealed for.
pub(super) fn token_owner(organisation: OrganisationId) -> String {
    format!("organization:{organisation}:runtime")
}

impl Store {
    /// How many calls out the organisation may have at a time; `None` is the node's setting.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation is gone.
    pub async fn concurrency_limit(
        &self,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<Option<u32>, StoreError> {
        let mut tx = self.0.db.read().await?;
        Ok(load(&mut tx, scope).await?.concurrency_limit)
    }

    /// Changes how many calls out the organisation may have at a time, and returns it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a limit that is not acceptable; [`StoreError::NotFound`] if the
    /// organisation is gone.
    pub async fn set_concurrency(
        &self,
        scope: &ScopedTo<OrganisationId>,
        change: ConcurrencyChange,
    ) -> Result<Option<u32>, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let before = load(&mut tx, scope).await?.concurrency_limit;
        let Some(limit) = change.concurrency_limit else { return Ok(before) };
        let organisation = scope.organisation();
        sql::query("UPDATE organisations SET concurrency_limit = ?, updated_at = ? WHERE id = ?")
            .bind(limit)
            .bind(self.now().micros())
            .bind(organisation.to_string())
            .execute(&mut tx)
            .await?;
        let said = |limit: Option<u32>| serde_json::json!({ "concurrency_limit": limit });
        let note = Change::of(scope, "concurrency.update").object(organisation);
        tx.note(note.before(&said(before))?.after(&said(limit))?);
        self.commit(tx, After::routes(Touched::organisation(organisation))).await?;
        Ok(limit)
    }

    /// Where the conversations of agents run whose configs do not say.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation is gone.
    pub async fn default_runtime(
        &self,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<DefaultRuntime, StoreError> {
        let mut tx = self.0.db.read().await?;
        Ok(load(&mut tx, scope).await?.runtime)
    }

    /// Says where the conversations of agents run whose configs do not. A token or password that is
    /// `null` or absent stays while the place and user it belongs to do; an empty one goes.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a runtime that is not acceptable; [`StoreError::NotFound`] if the
    /// organisation is gone.
    pub async fn set_default_runtime(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: DefaultRuntime,
    ) -> Result<DefaultRuntime, StoreError> {
        new.validate()?;
        let organisation = scope.organisation();
        let mut tx = self.0.db.write().await?;
        let said = load(&mut tx, scope).await?;
        let mut config = new.into_config();
        let kept = (&said.runtime.clone().into_config(), said.token);
        let token = self.seal_token(&token_owner(organisation), &mut config, kept);
        let token = token.map_err(|error| match error {
            StoreError::Invalid(invalid) => StoreError::Invalid(of_body(invalid)),
            error => error,
        })?;
        let block = config.get_mut("runtime").map(Value::take).filter(|block| !block.is_null());
        let runtime = DefaultRuntime { runtime: block };
        write_runtime(&mut tx, organisation, (&runtime, token.as_deref())).await?;
        let note = Change::of(scope, "default_runtime.update").object(organisation);
        tx.note(note.before(&said.runtime)?.after(&runtime)?);
        self.commit(tx, After::routes(Touched::organisation(organisation))).await?;
        Ok(runtime)
    }

    pub(super) async fn reseal_default_runtimes(
        &self,
        tx: &mut Connection,
    ) -> Result<usize, StoreError> {
        let sql = "SELECT * FROM organisations WHERE runtime_token IS NOT NULL";
        let mut sealed = 0;
        for row in sql::query(sql).fetch_all(&mut *tx).await? {
            let id: OrganisationId = parsed(&row, "id")?;
            let mut said = Said::from_row(&row)?;
            sealed += self.reseal_one(&token_owner(id), said.token.as_mut())?;
            write_runtime(tx, id, (&said.runtime, said.token.as_deref())).await?;
        }
        Ok(sealed)
    }
}

/// What an organisation says, the token of its runtime sealed.
struct Said {
    concurrency_limit: Option<u32>,
    runtime: DefaultRuntime,
    token: Option<Vec<u8>>,
}

impl Said {
    fn from_row(row: &sql::Row) -> Result<Self, StoreError> {
        Ok(Self {
            concurrency_limit: small_opt(row, "concurrency_limit")?,
            runtime: DefaultRuntime { runtime: json_opt(row, "default_runtime")? },
            token: raw(row, "runtime_token")?,
        })
    }
}

async fn load(tx: &mut Connection, scope: &ScopedTo<OrganisationId>) -> Result<Said, StoreError> {
    let id = scope.organisation().to_string();
    let query = sql::query("SELECT * FROM organisations WHERE id = ?").bind(id);
    let row = query.fetch_optional(tx).await?;
    Said::from_row(&row.ok_or_else(|| StoreError::not_found("Organization"))?)
}

async fn write_runtime(
    tx: &mut Connection,
    organisation: OrganisationId,
    (runtime, token): (&DefaultRuntime, Option<&[u8]>),
) -> Result<(), StoreError> {
    sql::query("UPDATE organisations SET default_runtime = ?, runtime_token = ? WHERE id = ?")
        .bind(to_json_opt(runtime.runtime.as_ref())?)
        .bind(token)
        .bind(organisation.to_string())
        .execute(tx)
        .await?;
    Ok(())
}
