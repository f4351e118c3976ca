//! The courier: the task that takes deliveries from the outbox to their receivers.
//!
//! ```text
//!  outbox ──due──► lane of webhook A ──► up to 8 requests at a time ─┐
//!    ▲        ├──► lane of webhook B ──► …                           │
//!    │        └──► lane of webhook C ──► …                           │
//!    └──────────────────── how each came out ◄───────────────────────┘
//! ```
//!
//! Every webhook has a lane of its own, so a receiver that stalls keeps nobody waiting but itself;
//! one that keeps failing is paused in the store and costs one request in a while. What is claimed is
//! leased there: when this task dies, the deliveries come due again.
//!
//! An attempt is one POST within its time, without redirects. Any 2xx is a success, and nothing of
//! the reply is read but its status.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio::time::MissedTickBehavior;

use super::signature;
use crate::fetch::{FetchRequest, Fetcher};
use crate::ids::WebhookId;
use crate::limits::{WEBHOOK_LANE, WEBHOOK_REQUESTS};
use crate::secret::Secret;
use crate::store::{Claim, Claimed, Settled, Store, StoreError};

/// How often the outbox is looked at though nobody rang, in milliseconds: for attempts that have come
/// due, and for what a node that died has left.
const LOOK_MS: u64 = 1_000;

/// Looks between two searches for deliveries that have waited for too long.
const LOOKS_BETWEEN_GIVING_UP: u32 = 60;

/// Pause before writing down again what the store could not take, in milliseconds, and how often.
const SETTLE_PAUSE_MS: u64 = 500;
const SETTLE_ATTEMPTS: u32 = 20;

const EVENT_ID: HeaderName = HeaderName::from_static("trunkline-event-id");
const EVENT_TYPE: HeaderName = HeaderName::from_static("trunkline-event-type");
const ATTEMPT: HeaderName = HeaderName::from_static("trunkline-delivery-attempt");

/// Delivers what the outbox holds, for as long as it runs.
#[derive(Clone)]
pub struct Courier {
    store: Store,
    fetcher: Fetcher,
    timeout: Duration,
    places: Arc<Semaphore>,
    attempts: Arc<Attempts>,
}

/// How attempts came out since the start, for the metrics.
#[derive(Debug, Default)]
pub struct Attempts {
    taken: AtomicU64,
    failed: AtomicU64,
}

impl Attempts {
    /// Those that the receiver took.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Those that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn count(&self, settled: &Settled) {
        let outcome = if settled.error.is_none() { &self.taken } else { &self.failed };
        outcome.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Lanes that are running.
#[derive(Default)]
struct Lanes {
    tasks: JoinSet<()>,
    webhooks: HashMap<WebhookId, Id>,
}

impl Courier {
    /// A courier whose attempts take at most `timeout` each.
    #[must_use]
    pub fn new(store: Store, fetcher: Fetcher, timeout: Duration) -> Self {
        let places = Arc::new(Semaphore::new(WEBHOOK_REQUESTS.value_usize()));
        Self { store, fetcher, timeout, places, attempts: Arc::default() }
    }

    /// How its attempts come out.
    #[must_use]
    pub fn attempts(&self) -> Arc<Attempts> {
        Arc::clone(&self.attempts)
    }

    /// Delivers until the future is dropped; then what is under way is attempted again by whoever
    /// comes after.
    pub async fn run(self) {
        let mut lanes = Lanes::default();
        let mut look = tokio::time::interval(Duration::from_millis(LOOK_MS));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        self.release_claims().await;
        loop {
            tokio::select! {
                () = self.store.deliveries_queued() => {}
                Some(ended) = lanes.tasks.join_next_with_id() => lanes.ended(ended),
                _ = look.tick() => {
                    if looks % LOOKS_BETWEEN_GIVING_UP == 0 {
                        self.give_up_overdue().await;
                    }
                    looks = looks.wrapping_add(1);
                }
            }
            match self.store.due_webhooks().await {
                Ok(due) => due.into_iter().for_each(|webhook| lanes.start(&self, webhook)),
                Err(error) => tracing::debug!(%error, "the outbox cannot be looked at"),
            }
        }
    }

    /// Takes back what this node had begun when it died, as soon as the store lets it.
    async fn release_claims(&self) {
        while let Err(error) = self.store.release_claims().await {
            tracing::debug!(%error, "deliveries of the run before wait");
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    async fn give_up_overdue(&self) {
        match self.store.give_up_overdue().await {
            Ok(0) => {}
            Ok(dead) => tracing::warn!(dead, "webhook deliveries were given up unattempted"),
            Err(error) => tracing::debug!(%error, "overdue deliveries are not given up yet"),
        }
    }

    /// Delivers what is due for one webhook, until nothing is.
    async fn serve(self, webhook: WebhookId) {
        while let Some(places) = self.take_places().await {
            let most = u32::try_from(places.num_permits()).unwrap_or(1);
            let claim = match self.store.claim_deliveries(webhook, most).await {
                Ok(Some(claim)) => claim,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, %webhook, "nothing can be claimed");
                    return tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
                }
            };
            let settled = self.attempt_all(claim).await;
            drop(places);
            if let Err(error) = self.settle(webhook, &settled).await {
                return tracing::warn!(%error, %webhook, "deliveries are made again after a while");
            }
        }
    }

    /// As many places as one lane may have and are free; at least one.
    async fn take_places(&self) -> Option<OwnedSemaphorePermit> {
        let mut places = Arc::clone(&self.places).acquire_owned().await.ok()?;
        while places.num_permits() < WEBHOOK_LANE.value_usize() {
            let Ok(more) = Arc::clone(&self.places).try_acquire_owned() else { break };
            places.merge(more);
        }
        Some(places)
    }

    /// Makes one attempt of each, at the same time.
    async fn attempt_all(&self, claim: Claim) -> Vec<Settled> {
        let (mut attempts, mut settled) = (JoinSet::new(), Vec::new());
        let (url, secrets): (Arc<str>, Arc<[_]>) = (claim.url.into(), claim.secrets.into());
        for one in claim.deliveries {
            let (courier, to) = (self.clone(), (Arc::clone(&url), Arc::clone(&secrets)));
            attempts.spawn(async move { courier.attempt(to, one).await });
        }
        while let Some(ended) = attempts.join_next().await {
            match ended {
                Ok(one) => {
                    self.attempts.count(&one);
                    settled.push(one);
                }
                Err(error) => tracing::error!(%error, "an attempt of a delivery failed"),
            }
        }
        settled
    }

    async fn attempt(&self, to: (Arc<str>, Arc<[Secret<String>]>), one: Claimed) -> Settled {
        let (id, attempt) = (one.id, one.attempt);
        let settled = |status_code, error| Settled { id, attempt, status_code, error };
        let Some(request) = self.request(&to, one) else {
            return settled(None, Some("cannot be written as a request".to_owned()));
        };
        match self.fetcher.fetch(request).await {
            Ok(reply) if reply.status.is_success() => settled(Some(reply.status.as_u16()), None),
            Ok(reply) => {
                let status = reply.status.as_u16();
                settled(Some(status), Some(format!("answered with status {status}")))
            }
            Err(error) => settled(None, Some(error.to_string())),
        }
    }

    fn request(
        &self,
        (url, secrets): &(Arc<str>, Arc<[Secret<String>]>),
        one: Claimed,
    ) -> Option<FetchRequest> {
        let now_s = self.store.now().millis() / 1_000;
        let signed = signature::header(secrets, now_s, one.body.as_bytes());
        let signed = HeaderValue::from_str(&signed).ok()?;
        let event_id = HeaderValue::from_str(&one.event_id.to_string()).ok()?;
        let json = HeaderValue::from_static("application/json");
        let request = FetchRequest::post(&**url, json, one.body)
            .header(header::ACCEPT, HeaderValue::from_static("*/*"))
            .header(HeaderName::from_static(signature::HEADER), signed)
            .header(EVENT_ID, event_id)
            .header(EVENT_TYPE, HeaderValue::from_static(one.event_type.as_str()))
            .header(ATTEMPT, HeaderValue::from(one.attempt));
        Some(request.within(self.timeout).status_only())
    }

    /// Writes down how attempts came out, waiting a while for a store that is unavailable.
    async fn settle(&self, webhook: WebhookId, settled: &[Settled]) -> Result<(), StoreError> {
        let mut left = SETTLE_ATTEMPTS;
        loop {
            match self.store.settle_deliveries(webhook, settled).await {
                Err(StoreError::Unavailable(_)) if left > 0 => {
                    left -= 1;
                    tokio::time::sleep(Duration::from_millis(SETTLE_PAUSE_MS)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

impl Lanes {
    /// Starts the lane of a webhook, unless it is running.
    fn start(&mut self, courier: &Courier, webhook: WebhookId) {
        if !self.webhooks.contains_key(&webhook) {
            let task = self.tasks.spawn(courier.clone().serve(webhook));
            self.webhooks.insert(webhook, task.id());
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "the lane of a webhook failed");
                error.id()
            }
        };
        self.webhooks.retain(|_, running| *running != id);
    }
}
