//! Webhooks: where a customer's programs hear of events, and what became of each delivery.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CallEvent, EventKind, Invalid, check_length, check_printable, present, yes};
use crate::clock::Timestamp;
use crate::ids::{DeliveryId, EventId, OrganisationId, WebhookId};
use crate::limits;

/// A webhook, without its secret: the secret is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Where events are posted to.
    pub url: String,
    /// What it is for, for people.
    pub description: Option<String>,
    /// The events it wants.
    pub events: Vec<EventKind>,
    /// Whether its events hold what only `conversations:read_sensitive` shows.
    pub include_sensitive: bool,
    /// Whether events are queued for it and delivered.
    pub enabled: bool,
    /// Until when deliveries are signed with the previous secret too; `null` when none is left.
    pub previous_secret_expires_at: Option<Timestamp>,
    /// Attempts that failed since the last one that did not.
    pub consecutive_failures: u32,
    /// Until when nothing is attempted, because too many attempts failed.
    pub paused_until: Option<Timestamp>,
    /// When it last took a delivery.
    pub last_delivered_at: Option<Timestamp>,
    /// When an attempt last failed.
    pub last_failed_at: Option<Timestamp>,
    /// Why.
    pub last_error: Option<String>,
    /// Events that were not queued for it because too many were waiting already.
    pub dropped_events: u32,
    /// When it was made; unique among webhooks.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A webhook to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewWebhook {
    /// Where events are posted to: an `https` URL that can be reached from the internet.
    pub url: String,
    /// What it is for, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// The events it wants; absent is all of them.
    #[serde(default = "all_events")]
    #[schema(value_type = Vec<EventKind>)]
    pub events: Vec<EventKind>,
    /// Put what only `conversations:read_sensitive` shows into its events; needs that scope.
    #[serde(default)]
    pub include_sensitive: bool,
    /// Whether events are queued for it and delivered.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl NewWebhook {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_url(&self.url)?;
        check_description(self.description.as_deref())?;
        check_events(&self.events)
    }
}

/// What is to change about a webhook; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
pub struct WebhookChange {
    /// Where events are posted to.
    #[serde(default)]
    pub url: Option<String>,
    /// What it is for; `null` takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// The events it wants.
    #[serde(default)]
    pub events: Option<Vec<EventKind>>,
    /// Put what only `conversations:read_sensitive` shows into its events.
    #[serde(default)]
    pub include_sensitive: Option<bool>,
    /// Whether events are queued for it and delivered.
    #[serde(default)]
    pub enabled: Option<bool>,
}

impl WebhookChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        if let Some(url) = &self.url {
            check_url(url)?;
        }
        check_description(self.description.as_ref().and_then(Option::as_deref))?;
        self.events.as_deref().map_or(Ok(()), check_events)
    }
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its first attempt, or for the next.
    Pending,
    /// The receiver took it.
    Delivered,
    /// It was given up. It can be replayed.
    Dead,
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Where it goes.
    pub webhook_id: WebhookId,
    /// What it delivers.
    pub event_id: EventId,
    /// What that tells of.
    pub event_type: EventKind,
    /// How far it has come.
    pub state: DeliveryState,
    /// Attempts so far, one that is under way included.
    pub attempts: u32,
    /// When the next attempt is due at the earliest, while it is pending.
    pub next_attempt_at: Option<Timestamp>,
    /// When it is given up, while it is pending.
    pub give_up_at: Option<Timestamp>,
    /// The HTTP status of the last answer, if there was one.
    pub status_code: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was queued; unique among deliveries.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A delivery with what it delivers.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeliveryDetail {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The event, as it is posted.
    pub event: CallEvent,
}

fn all_events() -> Vec<EventKind> {
    EventKind::CALLS.to_vec()
}

/// What is wrong with a URL whatever it leads to; the rest is the guard's.
fn check_url(url: &str) -> Result<(), Invalid> {
    let characters = limits::WEBHOOK_URL_CHARACTERS.value_usize();
    if url.is_empty() || url.chars().count() > characters {
        return Err(Invalid::new("url", format!("must have 1 to {characters} characters")));
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Invalid::new("url", "must not hold spaces or control characters"));
    }
    Ok(())
}

fn check_description(text: Option<&str>) -> Result<(), Invalid> {
    let Some(text) = text else { return Ok(()) };
    check_length("description", text, limits::NAME_BYTES)?;
    check_printable("description", text)
}

fn check_events(events: &[EventKind]) -> Result<(), Invalid> {
    if events.is_empty() {
        return Err(Invalid::new("events", "must name at least one event"));
    }
    if events.contains(&EventKind::Test) {
        return Err(Invalid::new("events", "webhook.test is sent when it is asked for only"));
    }
    let twice = |(at, kind): (usize, &EventKind)| events.iter().skip(at + 1).any(|k| k == kind);
    if events.iter().enumerate().any(twice) {
        return Err(Invalid::new("events", "names an event twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn new(body: Value) -> Result<(), &'static str> {
        let new: NewWebhook = serde_json::from_value(body).unwrap();
        new.validate().map_err(|invalid| invalid.field)
    }

    #[test]
    fn what_is_not_said_is_all_events_and_nothing_sensitive() {
        let made: NewWebhook =
            serde_json::from_value(json!({ "url": "https://x.example" })).unwrap();
        assert_eq!(made.events, EventKind::CALLS);
        assert!(made.enabled && !made.include_sensitive);
        assert_eq!(made.validate(), Ok(()));
    }

    #[test]
    fn fields_that_are_no_good_are_named() {
        for (body, field) in [
            (json!({ "url": "" }), "url"),
            (json!({ "url": format!("https://{}", "x".repeat(2_048)) }), "url"),
            (json!({ "url": "https://x.example/ a" }), "url"),
            (json!({ "url": "https://x.example/\r\nHost: y" }), "url"),
            (json!({ "url": "u", "description": "a\nb" }), "description"),
            (json!({ "url": "u", "description": "x".repeat(256) }), "description"),
            (json!({ "url": "u", "events": [] }), "events"),
            (json!({ "url": "u", "events": ["call.ended", "call.ended"] }), "events"),
            (json!({ "url": "u", "events": ["webhook.test"] }), "events"),
        ] {
            assert_eq!(new(body.clone()), Err(field), "{body}");
        }
    }

    #[test]
    fn an_absent_description_stays_and_a_null_takes_it_away() {
        let change = |body| serde_json::from_value::<WebhookChange>(body).unwrap().description;
        assert_eq!(change(json!({})), None);
        assert_eq!(change(json!({ "description": null })), Some(None));
    }
}
