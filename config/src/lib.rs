//! What customers and operators configure: settings, the resource model, the store and the REST API.
//!
//! ```text
//!            settings                     what the operator configures, once
//!               |
//! REST API -> store -> snapshot -> calls  what customers configure, at any time
//!               ^                    |
//!               +----- journal <-----+    what calls leave behind
//! ```
//!
//! This crate knows nothing of SIP or audio. Calls read an immutable [`snapshot`] and write to a
//! bounded [`journal`], so that nothing in a call ever waits for the database; what the API asks of
//! live calls goes through the trait in [`calls`], and what it asks of the workflow engine through that in
//! [`workflows`].

pub mod api;
pub mod briefing;
pub mod calls;
pub mod clock;
pub mod credential;
pub mod dial;
pub mod events;
pub mod fetch;
pub mod guard;
pub mod ids;
pub mod jobs;
pub mod journal;
pub mod limits;
pub mod llm;
pub mod managed;
pub mod model;
pub mod routing;
pub mod seal;
pub mod secret;
pub mod settings;
pub mod snapshot;
pub mod store;
mod texts;
pub mod trust;
pub mod workflows;
