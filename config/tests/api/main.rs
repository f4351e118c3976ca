//! The REST API as a client sees it: the whole router in this process, over a store in memory, and in
//! a second run over PostgreSQL.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod admin;
mod agents;
mod assignment;
mod audit;
mod calls;
mod conform;
mod contract;
mod conversations;
mod document;
mod engine;
mod errors;
mod events;
mod faults;
mod hostile;
mod inbound_routing;
mod keys;
mod managed;
mod numbers;
#[path = "../support/postgres.rs"]
mod postgres;
mod scopes;
mod server;
mod settings;
mod tenants;
mod texts;
mod trunks;
mod twilio;
mod webhooks;
mod workflows;

#[tokio::test]
async fn everything_holds_on_postgresql_too() {
    postgres::run_again(&[], &["everything_holds_on_postgresql_too"]).await;
}
