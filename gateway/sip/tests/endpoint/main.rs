//! The endpoint in virtual time: alone against hand-made messages, and two of them back to back.
//!
//! Nothing here sleeps or opens a socket. Times are milliseconds since the scenario began.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a scenario that does not go as written has failed"
)]

mod callee;
mod caller;
mod dialogs;
mod disorder;
mod routes;
mod strangers;
mod support;
mod timers;
mod together;
