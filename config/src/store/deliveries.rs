//! Verbs on the outbox: what customers see of it, and what the courier does with it.
//!
//! ```text
//!            claim                     taken
//!  pending ---------> pending, leased -------> delivered
//!     ^                    |   |                   |
//!     |   failed, in time  |   | failed, too late  |
//!     +--------------------+   +-----> dead        |
//!     |                                 |          |
//!     +------------- replay ------------+----------+
//! ```
//!
//! Invariants: within one call an event is claimed only when no earlier one of it is pending, so a
//! receiver gets the events of a call in order; a claim whose courier died comes due again when its
//! node is back or its lease is over, so nothing is delivered less than once; a webhook whose attempts
//! keep failing is paused, and then probed with one delivery at a time.

use super::events::{Fresh, insert};
use super::rows::{and, json, paged, parsed, raw, small, time, to_word, word};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::events::{Told, backoff};
use crate::ids::{DeliveryId, EventId, OrganisationId, WebhookId};
use crate::model::{CallEvent, Delivery, DeliveryDetail, DeliveryState, EventKind, Page};
use crate::secret::Secret;

/// How long a claim is good for, in microseconds: far longer than an attempt may take.
const LEASE_US: i64 = 120_000_000;

/// Deliveries of one webhook that were claimed together.
#[derive(Debug)]
pub struct Claim {
    /// Where they go.
    pub url: String,
    /// What signs them: one secret, or two while they are being changed over.
    pub secrets: Vec<Secret<String>>,
    /// The deliveries, each of another call.
    pub deliveries: Vec<Claimed>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its id.
    pub id: DeliveryId,
    /// What it delivers.
    pub event_id: EventId,
    /// What that tells of.
    pub event_type: EventKind,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The event, as it is to be posted.
    pub body: String,
}

/// How an attempt came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Of which delivery.
    pub id: DeliveryId,
    /// Which attempt it was.
    pub attempt: u32,
    /// The HTTP status, if there was an answer.
    pub status_code: Option<u16>,
    /// Why it failed; `None` is success.
    pub error: Option<String>,
}

impl Store {
    /// Queues a test of one webhook. It is attempted once, also while the webhook is disabled or
    /// paused.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such webhook.
    pub async fn queue_webhook_test(
        &self,
        scope: &ScopedTo<OrganisationId>,
        webhook: WebhookId,
    ) -> Result<Delivery, StoreError> {
        let mut tx = self.0.db.write().await?;
        self.load_webhook(&mut tx, scope, webhook).await?;
        let now = self.now();
        let told = Told::new(CallEvent::test(scope.organisation(), now));
        let told = told.map_err(|_| StoreError::Fault)?;
        let (event, body) = (told.event(), told.text(false));
        let fresh = Fresh { webhook, event, body, give_up_at: now };
        let id = insert(&mut tx, &fresh, now).await?;
        let delivery = load(&mut tx, webhook, id).await?;
        tx.note(Change::of(scope, "webhook.test").object(webhook));
        self.commit(tx, After::deliveries_queued()).await?;
        Ok(delivery)
    }

    /// A webhook's deliveries, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such webhook.
    pub async fn webhook_deliveries(
        &self,
        scope: &ScopedTo<OrganisationId>,
        webhook: WebhookId,
        state: Option<DeliveryState>,
        page: Page,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut tx = self.0.db.read().await?;
        self.load_webhook(&mut tx, scope, webhook).await?;
        let mut query =
            QueryBuilder::new("SELECT t.* FROM webhook_deliveries t WHERE t.webhook_id = ");
        query.push_bind(webhook.to_string());
        and(&mut query, "t.state =", state.map(to_word).transpose()?);
        paged(&mut query, page);
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }

    /// One delivery with its event.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such webhook, or that no such delivery.
    pub async fn webhook_delivery(
        &self,
        scope: &ScopedTo<OrganisationId>,
        webhook: WebhookId,
        id: DeliveryId,
    ) -> Result<DeliveryDetail, StoreError> {
        let mut tx = self.0.db.read().await?;
        self.load_webhook(&mut tx, scope, webhook).await?;
        let row = find(&mut tx, webhook, id).await?;
        Ok(DeliveryDetail { delivery: from_row(&row)?, event: json(&row, "body")? })
    }

    /// Sends a delivery again that was taken or given up, with all the time of a new one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] while it is on its way.
    pub async fn replay_webhook_delivery(
        &self,
        scope: &ScopedTo<OrganisationId>,
        webhook: WebhookId,
        id: DeliveryId,
    ) -> Result<Delivery, StoreError> {
        let mut tx = self.0.db.write().await?;
        self.load_webhook(&mut tx, scope, webhook).await?;
        if load(&mut tx, webhook, id).await?.state == DeliveryState::Pending {
            return Err(StoreError::Conflict("The delivery is on its way".to_owned()));
        }
        let now = self.now().micros();
        sql::query(
            "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = ?1,
                 give_up_at = ?2, updated_at = ?1
             WHERE id = ?3",
        )
        .bind(now)
        .bind(self.give_up_at(now))
        .bind(id.to_string())
        .execute(&mut tx)
        .await?;
        let delivery = load(&mut tx, webhook, id).await?;
        tx.note(Change::of(scope, "delivery.replay").object(id));
        self.commit(tx, After::deliveries_queued()).await?;
        Ok(delivery)
    }

    /// Sends every delivery again that was given up, and says how many there were.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such webhook.
    pub async fn replay_dead_deliveries(
        &self,
        scope: &ScopedTo<OrganisationId>,
        webhook: WebhookId,
    ) -> Result<u64, StoreError> {
        let mut tx = self.0.db.write().await?;
        self.load_webhook(&mut tx, scope, webhook).await?;
        let now = self.now().micros();
        let done = sql::query(
            "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = ?1,
                 give_up_at = ?2, updated_at = ?1
             WHERE webhook_id = ?3 AND state = 'dead' AND event_type <> 'webhook.test'",
        )
        .bind(now)
        .bind(self.give_up_at(now))
        .bind(webhook.to_string())
        .execute(&mut tx)
        .await?;
        tx.note(Change::of(scope, "webhook.replay").object(webhook));
        self.commit(tx, After::deliveries_queued()).await?;
        Ok(done.rows_affected())
    }

    /// Webhooks that something could be claimed for: neither disabled nor paused, but tests are due in
    /// any case.
    ///
    /// # Errors
    /// As the database fails.
    pub(crate) async fn due_webhooks(&self) -> Result<Vec<WebhookId>, StoreError> {
        let mut tx = self.0.db.read().await?;
        let rows = sql::query(
            "SELECT w.id FROM webhooks w WHERE EXISTS (
                 SELECT 1 FROM webhook_deliveries d
                 WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.next_attempt_at <= ?1
                   AND (d.event_type = 'webhook.test'
                        OR (w.enabled = TRUE AND coalesce(w.paused_until, 0) <= ?1))
                   AND NOT EXISTS (SELECT 1 FROM webhook_deliveries e
                                   WHERE e.webhook_id = d.webhook_id AND e.subject = d.subject
                                     AND e.state = 'pending' AND e.sequence < d.sequence))",
        )
        .bind(self.now().micros())
        .fetch_all(&mut tx)
        .await?;
        rows.iter().map(|row| parsed(row, "id")).collect()
    }

    /// Claims up to `most` deliveries of a webhook that are due, each of another call.
    ///
    /// # Errors
    /// As the database fails.
    pub(crate) async fn claim_deliveries(
        &self,
        webhook: WebhookId,
        most: u32,
    ) -> Result<Option<Claim>, StoreError> {
        let mut tx = self.0.db.write().await?;
        let now = self.now().micros();
        let hook = sql::query("SELECT * FROM webhooks WHERE id = ?")
            .bind(webhook.to_string())
            .fetch_optional(&mut tx)
            .await?;
        let Some(hook) = hook else { return Ok(None) };
        let is_paused = raw::<Option<i64>>(&hook, "paused_until")?.is_some_and(|at| at > now);
        let tests_only = is_paused || !raw::<bool>(&hook, "enabled")?;
        let is_probed = small(&hook, "consecutive_failures")? >= backoff::FAILURES_BEFORE_PAUSE;
        let most = if is_probed { 1 } else { most };
        let rows = due_heads(&mut tx, (webhook, now), tests_only, most).await?;
        let mut deliveries = Vec::with_capacity(rows.len());
        for row in &rows {
            deliveries.push(lease(&mut tx, row, (&self.0.options.node, now)).await?);
        }
        if deliveries.is_empty() {
            return Ok(None);
        }
        let claim =
            Claim { url: raw(&hook, "url")?, secrets: self.live_secrets(&hook)?, deliveries };
        self.commit(tx, After::default()).await?;
        Ok(Some(claim))
    }

    /// Writes down how attempts came out.
    ///
    /// # Errors
    /// As the database fails; then the deliveries come due again when their leases are over.
    pub(crate) async fn settle_deliveries(
        &self,
        webhook: WebhookId,
        settled: &[Settled],
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let now = self.now();
        for one in settled {
            match &one.error {
                None => settle_taken(&mut tx, one, now).await?,
                Some(why) => self.settle_failed(&mut tx, one, (why, now)).await?,
            }
        }
        self.note_health(&mut tx, webhook, (settled, now)).await?;
        for state in [DeliveryState::Delivered, DeliveryState::Dead] {
            trim(&mut tx, webhook, (state, self.0.options.webhook_kept)).await?;
        }
        self.commit(tx, After::default()).await
    }

    /// Makes the attempts due again that this node had begun when it died. To be called before it makes
    /// any.
    ///
    /// # Errors
    /// As the database fails.
    pub(crate) async fn release_claims(&self) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        sql::query(
            "UPDATE webhook_deliveries SET node = NULL, next_attempt_at = ?
             WHERE state = 'pending' AND node = ?",
        )
        .bind(self.now().micros())
        .bind(&self.0.options.node)
        .execute(&mut tx)
        .await?;
        self.commit(tx, After::deliveries_queued()).await
    }

    /// Gives up what has waited for too long, also for webhooks that are paused or disabled; says how
    /// much.
    ///
    /// # Errors
    /// As the database fails.
    pub(crate) async fn give_up_overdue(&self) -> Result<u64, StoreError> {
        let mut tx = self.0.db.write().await?;
        let done = sql::query(
            "UPDATE webhook_deliveries
             SET state = 'dead', error = coalesce(error, 'was never attempted'), updated_at = ?1
             WHERE state = 'pending' AND give_up_at < ?1 AND next_attempt_at <= ?1
               AND event_type <> 'webhook.test'",
        )
        .bind(self.now().micros())
        .execute(&mut tx)
        .await?;
        self.commit(tx, After::default()).await?;
        Ok(done.rows_affected())
    }

    fn give_up_at(&self, now: i64) -> i64 {
        now + i64::from(self.0.options.webhook_retry_hours) * 3_600_000_000
    }

    /// An attempt failed: the delivery waits for its next, or is given up.
    async fn settle_failed(
        &self,
        tx: &mut Connection,
        one: &Settled,
        (why, now): (&str, Timestamp),
    ) -> Result<(), StoreError> {
        let first_s = self.0.options.webhook_retry_first_s;
        let next = now.micros() + backoff::retry_us(first_s, one.attempt, roll());
        sql::query(
            "UPDATE webhook_deliveries
             SET state = CASE WHEN give_up_at < ?1 THEN 'dead' ELSE 'pending' END,
                 node = NULL, next_attempt_at = ?1, status_code = ?2, error = ?3, updated_at = ?4
             WHERE id = ?5 AND state = 'pending'",
        )
        .bind(next)
        .bind(one.status_code.map(i64::from))
        .bind(why)
        .bind(now.micros())
        .bind(one.id.to_string())
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Counts failures in a row, pauses the webhook after too many, and lets everything that waits
    /// go at once when it works again.
    async fn note_health(
        &self,
        tx: &mut Connection,
        webhook: WebhookId,
        (settled, now): (&[Settled], Timestamp),
    ) -> Result<(), StoreError> {
        let row = sql::query("SELECT consecutive_failures FROM webhooks WHERE id = ?")
            .bind(webhook.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(()) }; // deleted meanwhile
        let before = small(&row, "consecutive_failures")?;
        let why = settled.iter().rev().find_map(|one| one.error.as_deref());
        let failed = settled.iter().filter(|one| one.error.is_some()).count();
        let is_well = settled.len() > failed;
        let failed = u32::try_from(failed).unwrap_or(u32::MAX);
        let failures = if is_well { 0 } else { before.saturating_add(failed) };
        let pause = backoff::pause_us(failures, roll());
        sql::query(
            "UPDATE webhooks SET consecutive_failures = ?, paused_until = ?,
                 last_delivered_at = coalesce(?, last_delivered_at),
                 last_failed_at = coalesce(?, last_failed_at), last_error = coalesce(?, last_error)
             WHERE id = ?",
        )
        .bind(failures)
        .bind(pause.map(|pause| now.micros() + pause))
        .bind(is_well.then_some(now.micros()))
        .bind(why.map(|_| now.micros()))
        .bind(why)
        .bind(webhook.to_string())
        .execute(&mut *tx)
        .await?;
        if is_well && before >= backoff::FAILURES_BEFORE_PAUSE {
            hurry(tx, webhook, now).await?;
        }
        Ok(())
    }
}

/// Jitter; without randomness there is none, which is no reason to stop.
fn roll() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// What is due and first of its call, the longest due first.
async fn due_heads(
    tx: &mut Connection,
    (webhook, now): (WebhookId, i64),
    tests_only: bool,
    most: u32,
) -> Result<Vec<Row>, StoreError> {
    let rows = sql::query(
        "SELECT d.id, d.event_id, d.event_type, d.attempts, d.body, d.next_attempt_at
         FROM webhook_deliveries d
         WHERE d.webhook_id = ? AND d.state = 'pending' AND d.next_attempt_at <= ?
           AND (? = FALSE OR d.event_type = 'webhook.test')
           AND NOT EXISTS (SELECT 1 FROM webhook_deliveries e
                           WHERE e.webhook_id = d.webhook_id AND e.subject = d.subject
                             AND e.state = 'pending' AND e.sequence < d.sequence)
         ORDER BY d.next_attempt_at LIMIT ?",
    )
    .bind(webhook.to_string())
    .bind(now)
    .bind(tests_only)
    .bind(i64::from(most))
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// Begins an attempt: until the lease is over nobody else does.
async fn lease(
    tx: &mut Connection,
    row: &Row,
    (node, now): (&str, i64),
) -> Result<Claimed, StoreError> {
    let id: DeliveryId = parsed(row, "id")?;
    sql::query(
        "UPDATE webhook_deliveries
         SET attempts = attempts + 1, node = ?, next_attempt_at = ?, updated_at = ? WHERE id = ?",
    )
    .bind(node)
    .bind(now + LEASE_US)
    .bind(now)
    .bind(id.to_string())
    .execute(tx)
    .await?;
    Ok(Claimed {
        id,
        event_id: parsed(row, "event_id")?,
        event_type: word(row, "event_type")?,
        attempt: small(row, "attempts")?.saturating_add(1),
        body: raw(row, "body")?,
    })
}

async fn settle_taken(
    tx: &mut Connection,
    one: &Settled,
    now: Timestamp,
) -> Result<(), StoreError> {
    sql::query(
        "UPDATE webhook_deliveries
         SET state = 'delivered', node = NULL, status_code = ?, error = NULL, updated_at = ?
         WHERE id = ? AND state = 'pending'",
    )
    .bind(one.status_code.map(i64::from))
    .bind(now.micros())
    .bind(one.id.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes everything due that waits for a later attempt; what is under way stays leased.
async fn hurry(tx: &mut Connection, webhook: WebhookId, now: Timestamp) -> Result<(), StoreError> {
    sql::query(
        "UPDATE webhook_deliveries SET next_attempt_at = ?1
         WHERE webhook_id = ?2 AND state = 'pending' AND next_attempt_at > ?1 AND node IS NULL",
    )
    .bind(now.micros())
    .bind(webhook.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

/// Keeps the newest of what is over.
async fn trim(
    tx: &mut Connection,
    webhook: WebhookId,
    (state, kept): (DeliveryState, u32),
) -> Result<(), StoreError> {
    sql::query(
        "DELETE FROM webhook_deliveries WHERE webhook_id = ?1 AND state = ?2 AND created_at <=
             (SELECT created_at FROM webhook_deliveries WHERE webhook_id = ?1 AND state = ?2
              ORDER BY created_at DESC LIMIT 1 OFFSET ?3)",
    )
    .bind(webhook.to_string())
    .bind(to_word(state)?)
    .bind(kept)
    .execute(tx)
    .await?;
    Ok(())
}

async fn find(tx: &mut Connection, webhook: WebhookId, id: DeliveryId) -> Result<Row, StoreError> {
    sql::query("SELECT * FROM webhook_deliveries WHERE id = ? AND webhook_id = ?")
        .bind(id.to_string())
        .bind(webhook.to_string())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| StoreError::not_found("Delivery"))
}

async fn load(
    tx: &mut Connection,
    webhook: WebhookId,
    id: DeliveryId,
) -> Result<Delivery, StoreError> {
    from_row(&find(tx, webhook, id).await?)
}

fn from_row(row: &Row) -> Result<Delivery, StoreError> {
    let state: DeliveryState = word(row, "state")?;
    let is_pending = state == DeliveryState::Pending;
    let status: Option<i64> = raw(row, "status_code")?;
    Ok(Delivery {
        id: parsed(row, "id")?,
        webhook_id: parsed(row, "webhook_id")?,
        event_id: parsed(row, "event_id")?,
        event_type: word(row, "event_type")?,
        state,
        attempts: small(row, "attempts")?,
        next_attempt_at: is_pending.then(|| time(row, "next_attempt_at")).transpose()?,
        give_up_at: is_pending.then(|| time(row, "give_up_at")).transpose()?,
        status_code: status.and_then(|status| u16::try_from(status).ok()),
        error: raw(row, "error")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
