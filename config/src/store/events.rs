//! Events: what a change of a record tells, written in the transaction that makes the change durable.
//!
//! A [`Teller`] collects the events of one transaction. Each gets the next number of its conversation
//! and a row of the outbox for every webhook that wants it; when the transaction has been committed,
//! and only then, they go to the [bus](crate::events::EventBus).

use std::collections::HashMap;
use std::sync::Arc;

use super::rows::{
    free_stamp, free_stamp_in, json, json_opt, parsed, parsed_opt, raw, small, to_word, word,
};
use super::sql::{self, Connection, Row};
use super::{After, Store, StoreError};
use crate::clock::Timestamp;
use crate::events::Told;
use crate::ids::{DeliveryId, EventId, OrganisationId, WebhookId};
use crate::model::{CallEvent, Decision, EventKind};

const FREE_STAMP: &str = free_stamp_in!("webhook_deliveries");

/// Microseconds of an hour.
const HOUR_US: i64 = 3_600_000_000;

/// A statement that writes a conversation, and returns of its record what events tell.
macro_rules! telling {
    ($($sql:expr),+) => {
        concat!(
            $($sql,)+
            " RETURNING id, organization_id, direction, status, user_id, agent_number, agent_id,
                 agent_version_id, trunk_id, trunk_call_id, duration, end_reason, transfer,
                 custom_metadata, event_count"
        )
    };
}
pub(super) use telling;

/// What the change of a conversation's record tells.
pub(super) struct News {
    /// What has happened, in order.
    pub(super) kinds: &'static [EventKind],
    /// When.
    pub(super) at: Timestamp,
    /// The record afterwards, from a statement of [`telling`] that has counted these events.
    pub(super) row: Row,
}

/// The events of one transaction.
pub(super) struct Teller<'s> {
    store: &'s Store,
    hooks: HashMap<OrganisationId, Vec<Hook>>,
    told: Vec<Arc<Told>>,
    is_queued: bool,
}

/// A webhook that is enabled.
struct Hook {
    id: WebhookId,
    events: Vec<EventKind>,
    include_sensitive: bool,
    /// How many more events may wait for it.
    room: u32,
}

/// A delivery that has not been attempted.
pub(super) struct Fresh<'a> {
    pub(super) webhook: WebhookId,
    pub(super) event: &'a CallEvent,
    pub(super) body: &'a str,
    /// When it is given up.
    pub(super) give_up_at: Timestamp,
}

impl<'s> Teller<'s> {
    pub(super) fn new(store: &'s Store) -> Self {
        Self { store, hooks: HashMap::new(), told: Vec::new(), is_queued: false }
    }

    /// Tells what has happened to a conversation, in order.
    pub(super) async fn tell(
        &mut self,
        tx: &mut Connection,
        news: &News,
    ) -> Result<(), StoreError> {
        let counted = small(&news.row, "event_count")?;
        let before = counted.saturating_sub(u32::try_from(news.kinds.len()).unwrap_or(u32::MAX));
        for (kind, sequence) in news.kinds.iter().zip(before + 1..) {
            self.add(tx, news.event(*kind, sequence)?).await?;
        }
        Ok(())
    }

    /// Tells of a refused call, if somebody's.
    pub(super) async fn tell_refused(
        &mut self,
        tx: &mut Connection,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        match CallEvent::refused(decision) {
            Some(event) => self.add(tx, event).await,
            None => Ok(()),
        }
    }

    /// What is to be done once the transaction is durable.
    pub(super) fn after(self) -> After {
        After { told: self.told, deliveries_queued: self.is_queued, ..After::default() }
    }

    async fn add(&mut self, tx: &mut Connection, event: CallEvent) -> Result<(), StoreError> {
        let organisation = event.organization_id;
        let told = Told::new(event).map_err(|error| {
            tracing::error!(%error, "an event does not write");
            StoreError::Fault
        })?;
        let now = self.store.now();
        let hours = i64::from(self.store.0.options.webhook_retry_hours);
        let give_up_at = Timestamp::from_micros(now.micros() + hours * HOUR_US);
        for hook in self.hooks_of(tx, organisation).await? {
            if !hook.events.contains(&told.event().kind) {
                continue;
            }
            if hook.room == 0 {
                count_dropped(tx, hook.id).await?;
                continue;
            }
            hook.room -= 1;
            let body = told.text(hook.include_sensitive);
            let fresh = Fresh { webhook: hook.id, event: told.event(), body, give_up_at };
            insert(tx, &fresh, now).await?;
        }
        self.is_queued |= self.hooks.get(&organisation).is_some_and(|hooks| !hooks.is_empty());
        self.told.push(Arc::new(told));
        Ok(())
    }

    /// The organisation's webhooks, looked up once for each transaction.
    async fn hooks_of(
        &mut self,
        tx: &mut Connection,
        organisation: OrganisationId,
    ) -> Result<&mut Vec<Hook>, StoreError> {
        if !self.hooks.contains_key(&organisation) {
            let most = self.store.0.options.webhook_pending;
            let hooks = load_hooks(tx, (organisation, most)).await?;
            self.hooks.insert(organisation, hooks);
        }
        Ok(self.hooks.entry(organisation).or_default())
    }
}

impl News {
    fn event(&self, kind: EventKind, sequence: u32) -> Result<CallEvent, StoreError> {
        let row = &self.row;
        Ok(CallEvent {
            id: EventId::random(),
            schema_version: CallEvent::SCHEMA_VERSION,
            kind,
            sequence,
            at: self.at,
            organization_id: parsed(row, "organization_id")?,
            conversation_id: Some(parsed(row, "id")?),
            decision_id: None,
            direction: word(row, "direction")?,
            status: Some(word(row, "status")?),
            user_id: raw(row, "user_id")?,
            agent_number: raw(row, "agent_number")?,
            agent_id: parsed_opt(row, "agent_id")?,
            agent_version_id: parsed_opt(row, "agent_version_id")?,
            trunk_id: parsed_opt(row, "trunk_id")?,
            trunk_call_id: raw(row, "trunk_call_id")?,
            duration: raw(row, "duration")?,
            end_reason: json_opt(row, "end_reason")?,
            transfer: json_opt(row, "transfer")?,
            custom_metadata: json_opt(row, "custom_metadata")?,
        })
    }
}

async fn load_hooks(
    tx: &mut Connection,
    (organisation, most): (OrganisationId, u32),
) -> Result<Vec<Hook>, StoreError> {
    let rows = sql::query(
        "SELECT w.id, w.events, w.include_sensitive,
             (SELECT count(*) FROM webhook_deliveries d
              WHERE d.webhook_id = w.id AND d.state = 'pending') AS pending
         FROM webhooks w WHERE w.organization_id = ? AND w.enabled = TRUE",
    )
    .bind(organisation.to_string())
    .fetch_all(&mut *tx)
    .await?;
    let hook = |row| {
        let pending = small(row, "pending")?;
        Ok(Hook {
            id: parsed(row, "id")?,
            events: json(row, "events")?,
            include_sensitive: raw(row, "include_sensitive")?,
            room: most.saturating_sub(pending),
        })
    };
    rows.iter().map(hook).collect()
}

async fn count_dropped(tx: &mut Connection, webhook: WebhookId) -> Result<(), StoreError> {
    sql::query("UPDATE webhooks SET dropped_events = dropped_events + 1 WHERE id = ?")
        .bind(webhook.to_string())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// Puts a delivery into the outbox.
pub(super) async fn insert(
    tx: &mut Connection,
    fresh: &Fresh<'_>,
    now: Timestamp,
) -> Result<DeliveryId, StoreError> {
    let at = free_stamp(&mut *tx, FREE_STAMP, now).await?;
    let (id, event) = (DeliveryId::random(), fresh.event);
    let subject = event.conversation_id.map(|id| id.to_string());
    sql::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_type, subject, sequence,
             body, state, next_attempt_at, give_up_at, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(fresh.webhook.to_string())
    .bind(event.id.to_string())
    .bind(to_word(event.kind)?)
    .bind(subject.unwrap_or_else(|| event.id.to_string())) // a call of its own
    .bind(event.sequence)
    .bind(fresh.body)
    .bind(now.micros())
    .bind(fresh.give_up_at.micros())
    .bind(at.micros())
    .bind(at.micros())
    .execute(&mut *tx)
    .await?;
    Ok(id)
}
