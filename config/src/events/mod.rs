//! Events of calls: how customers hear of them, by stream and by webhook.
//!
//! ```text
//!  calls ──► journal ──► store: record + outbox, one transaction ──► bus ──► streams (GET /core/events)
//!                                         │
//!                                         └──► courier ──► webhooks (signed, retried, in order)
//! ```
//!
//! No call waits for any of it: calls put what happened into the bounded [journal](crate::journal) as
//! they always do, and its writer makes an event of every step that it makes durable. So whoever hears
//! of a step finds it in the record, a step is told once however often it is written, and what a crash
//! left open is told when it is closed.
//!
//! - [`EventBus`]: what streams read, per organisation, from a bounded ring;
//! - [`Courier`]: the task that delivers, with [`signature`] over each body and the pauses of
//!   [`backoff`].

pub mod backoff;
mod bus;
mod courier;
pub mod signature;

#[cfg(test)]
mod tests;

pub use bus::{EventBus, Next, Place, Start, StreamId, StreamLimits, Subscription, TooManyStreams};
pub use courier::{Attempts, Courier};

use crate::model::CallEvent;

/// An event that was told, with its text.
#[derive(Debug)]
pub struct Told {
    event: CallEvent,
    safe: String,
    /// The text with what is sensitive, where that is another.
    full: Option<String>,
}

impl Told {
    /// Writes an event down, once for those who may see all of it and once for the others.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn new(event: CallEvent) -> Result<Self, serde_json::Error> {
        let full = match event.custom_metadata {
            Some(_) => Some(serde_json::to_string(&event)?),
            None => None,
        };
        let safe = event.clone().without_sensitive();
        Ok(Self { safe: serde_json::to_string(&safe)?, event, full })
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &CallEvent {
        &self.event
    }

    /// Its JSON, on one line.
    #[must_use]
    pub fn text(&self, sensitive: bool) -> &str {
        self.full.as_deref().filter(|_| sensitive).unwrap_or(&self.safe)
    }

    fn bytes(&self) -> usize {
        self.safe.len() + self.full.as_ref().map_or(0, String::len)
    }
}
