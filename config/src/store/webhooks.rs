//! Verbs on webhooks. Secrets go out once, when they are made, and lie sealed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::rows::{
    free_stamp, free_stamp_in, json, paged, parsed, raw, small, time, time_opt, to_json,
};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{OrganisationId, WebhookId};
use crate::model::{NewWebhook, Page, Webhook, WebhookChange};
use crate::secret::{Secret, Wipe as _};

const FREE_STAMP: &str = free_stamp_in!("webhooks");

/// Every secret begins like this, so that a scanner finds one that lies about.
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: usize = 32;

/// What a webhook's secrets are sealed for.
pub(super) fn owner(id: WebhookId) -> String {
    format!("webhook:{id}")
}

impl Store {
    /// Makes a webhook. Returns its secret too: it cannot be had again.
    ///
    /// # Errors
    /// [`StoreError::Invalid`]; [`StoreError::Refused`] when the organisation has as many as it may;
    /// [`StoreError::Forbidden`] as for [`Store::update_webhook`].
    pub async fn create_webhook(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewWebhook,
        may_see_sensitive: bool,
    ) -> Result<(Webhook, Secret<String>), StoreError> {
        new.validate()?;
        check_sensitive(new.include_sensitive, may_see_sensitive)?;
        let (id, secret) = (WebhookId::random(), mint()?);
        let sealed = self.0.options.sealer.seal(&owner(id), secret.expose())?;
        let mut tx = self.0.db.write().await?;
        let most = self.0.options.max_webhooks;
        if count(&mut tx, scope).await? >= i64::from(most) {
            let why = format!("The organization has {most} webhooks, which is as many as it may");
            return Err(StoreError::refused(why));
        }
        let at = free_stamp(&mut tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO webhooks (id, organization_id, url, description, events,
                 include_sensitive, enabled, secret, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(scope.organisation().to_string())
        .bind(&new.url)
        .bind(new.description.as_deref())
        .bind(to_json(&new.events)?)
        .bind(new.include_sensitive)
        .bind(new.enabled)
        .bind(sealed)
        .bind(at.micros())
        .bind(at.micros())
        .execute(&mut tx)
        .await?;
        let webhook = self.load_webhook(&mut tx, scope, id).await?;
        tx.note(Change::of(scope, "webhook.create").object(id).after(&webhook)?);
        self.commit(tx, After::default()).await?;
        Ok((webhook, secret))
    }

    /// One webhook.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such webhook.
    pub async fn webhook(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WebhookId,
    ) -> Result<Webhook, StoreError> {
        let mut tx = self.0.db.read().await?;
        self.load_webhook(&mut tx, scope, id).await
    }

    /// The organisation's webhooks, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn webhooks(
        &self,
        scope: &ScopedTo<OrganisationId>,
        page: Page,
    ) -> Result<Vec<Webhook>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM webhooks t WHERE t.organization_id = ");
        query.push_bind(scope.organisation().to_string());
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        let rows = query.build().fetch_all(&mut tx).await?;
        rows.iter().map(|row| self.webhook_from_row(row)).collect()
    }

    /// Changes a webhook. What is on its way to it goes where the change says.
    ///
    /// # Errors
    /// [`StoreError::Invalid`]; [`StoreError::NotFound`]; [`StoreError::Forbidden`] when its events
    /// would hold sensitive fields and `may_see_sensitive` says that the caller may not see them: who
    /// may not see them may not send them elsewhere either.
    pub async fn update_webhook(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WebhookId,
        change: WebhookChange,
        may_see_sensitive: bool,
    ) -> Result<Webhook, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let old = self.load_webhook(&mut tx, scope, id).await?;
        let include_sensitive = change.include_sensitive.unwrap_or(old.include_sensitive);
        check_sensitive(include_sensitive, may_see_sensitive)?;
        let note = Change::of(scope, "webhook.update").object(id).before(&old)?;
        sql::query(
            "UPDATE webhooks SET url = ?, description = ?, events = ?, include_sensitive = ?,
                 enabled = ?, updated_at = ?
             WHERE id = ?",
        )
        .bind(change.url.unwrap_or(old.url))
        .bind(change.description.unwrap_or(old.description))
        .bind(to_json(&change.events.unwrap_or(old.events))?)
        .bind(include_sensitive)
        .bind(change.enabled.unwrap_or(old.enabled))
        .bind(self.now().micros())
        .bind(id.to_string())
        .execute(&mut tx)
        .await?;
        let webhook = self.load_webhook(&mut tx, scope, id).await?;
        tx.note(note.after(&webhook)?);
        self.commit(tx, After::deliveries_queued()).await?;
        Ok(webhook)
    }

    /// Removes a webhook, and what is on its way to it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such webhook.
    pub async fn delete_webhook(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WebhookId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let done = sql::query("DELETE FROM webhooks WHERE id = ? AND organization_id = ?")
            .bind(id.to_string())
            .bind(scope.organisation().to_string())
            .execute(&mut tx)
            .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::not_found("Webhook"));
        }
        tx.note(Change::of(scope, "webhook.delete").object(id));
        self.commit(tx, After::default()).await
    }

    /// Gives a webhook a new secret, and returns it: it cannot be had again. The old one signs too
    /// for `keep_old_s` seconds, so that receivers can be changed over; one older still is gone.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such webhook.
    pub async fn rotate_webhook_secret(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WebhookId,
        keep_old_s: u32,
    ) -> Result<(Webhook, Secret<String>), StoreError> {
        let secret = mint()?;
        let sealed = self.0.options.sealer.seal(&owner(id), secret.expose())?;
        let mut tx = self.0.db.write().await?;
        self.load_webhook(&mut tx, scope, id).await?;
        let now = self.now();
        let until = now.micros() + i64::from(keep_old_s) * 1_000_000;
        sql::query(
            "UPDATE webhooks SET previous_secret = secret, previous_secret_expires_at = ?,
                 secret = ?, updated_at = ?
             WHERE id = ?",
        )
        .bind(until)
        .bind(sealed)
        .bind(now.micros())
        .bind(id.to_string())
        .execute(&mut tx)
        .await?;
        if keep_old_s == 0 {
            sql::query("UPDATE webhooks SET previous_secret = NULL WHERE id = ?")
                .bind(id.to_string())
                .execute(&mut tx)
                .await?;
        }
        let webhook = self.load_webhook(&mut tx, scope, id).await?;
        tx.note(Change::of(scope, "webhook.rotate_secret").object(id));
        self.commit(tx, After::default()).await?;
        Ok((webhook, secret))
    }

    /// Seals the secrets again that are sealed with an older key, and says how many.
    pub(super) async fn reseal_webhooks(&self, tx: &mut Connection) -> Result<usize, StoreError> {
        let rows = sql::query("SELECT id, secret, previous_secret FROM webhooks")
            .fetch_all(&mut *tx)
            .await?;
        let mut sealed = 0;
        for row in &rows {
            let id: WebhookId = parsed(row, "id")?;
            let mut secret: Option<Vec<u8>> = raw(row, "secret")?;
            let mut previous: Option<Vec<u8>> = raw(row, "previous_secret")?;
            sealed += self.reseal_one(&owner(id), secret.as_mut())?;
            sealed += self.reseal_one(&owner(id), previous.as_mut())?;
            sql::query("UPDATE webhooks SET secret = ?, previous_secret = ? WHERE id = ?")
                .bind(secret)
                .bind(previous)
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
        }
        Ok(sealed)
    }

    /// The secrets that sign now, the newest first.
    pub(super) fn live_secrets(&self, row: &Row) -> Result<Vec<Secret<String>>, StoreError> {
        let id: WebhookId = parsed(row, "id")?;
        let sealed: Vec<u8> = raw(row, "secret")?;
        let previous: Option<Vec<u8>> = raw(row, "previous_secret")?;
        let is_live = self.previous_until(row)?.is_some();
        let sealer = &self.0.options.sealer;
        let all = std::iter::once(sealed).chain(previous.filter(|_| is_live));
        all.map(|sealed| Ok(sealer.open_sealed(&owner(id), &sealed)?)).collect()
    }

    /// Until when the previous secret signs too, if there is one and it has not expired.
    fn previous_until(&self, row: &Row) -> Result<Option<Timestamp>, StoreError> {
        let is_there: Option<Vec<u8>> = raw(row, "previous_secret")?;
        let until = time_opt(row, "previous_secret_expires_at")?;
        Ok(until.filter(|until| is_there.is_some() && *until > self.now()))
    }

    pub(super) async fn load_webhook(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        id: WebhookId,
    ) -> Result<Webhook, StoreError> {
        let row = sql::query("SELECT * FROM webhooks WHERE id = ? AND organization_id = ?")
            .bind(id.to_string())
            .bind(scope.organisation().to_string())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or_else(|| StoreError::not_found("Webhook"))?;
        self.webhook_from_row(&row)
    }

    fn webhook_from_row(&self, row: &Row) -> Result<Webhook, StoreError> {
        let paused_until = time_opt(row, "paused_until")?;
        Ok(Webhook {
            id: parsed(row, "id")?,
            organization_id: parsed(row, "organization_id")?,
            url: raw(row, "url")?,
            description: raw(row, "description")?,
            events: json(row, "events")?,
            include_sensitive: raw(row, "include_sensitive")?,
            enabled: raw(row, "enabled")?,
            previous_secret_expires_at: self.previous_until(row)?,
            consecutive_failures: small(row, "consecutive_failures")?,
            paused_until: paused_until.filter(|until| *until > self.now()),
            last_delivered_at: time_opt(row, "last_delivered_at")?,
            last_failed_at: time_opt(row, "last_failed_at")?,
            last_error: raw(row, "last_error")?,
            dropped_events: small(row, "dropped_events")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
        })
    }
}

fn check_sensitive(includes: bool, may_see: bool) -> Result<(), StoreError> {
    if includes && !may_see {
        let why = "include_sensitive requires conversations:read_sensitive";
        return Err(StoreError::Forbidden(why.to_owned()));
    }
    Ok(())
}

async fn count(tx: &mut Connection, scope: &ScopedTo<OrganisationId>) -> Result<i64, StoreError> {
    let row = sql::query("SELECT count(*) AS webhooks FROM webhooks WHERE organization_id = ?")
        .bind(scope.organisation().to_string())
        .fetch_one(&mut *tx)
        .await?;
    raw(&row, "webhooks")
}

/// 256 bits of the operating system's randomness, as text.
fn mint() -> Result<Secret<String>, StoreError> {
    let mut random = [0_u8; SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "no randomness for a webhook's secret");
        StoreError::Fault
    })?;
    let text = format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    random.wipe();
    Ok(Secret::new(text))
}
