//! The `trunkline` binary on loopback, called by programs that other people wrote: SIPp, baresip,
//! and an agent on pipecat. Every test has a gateway of its own.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests, also where a function has no #[test]"
)]

mod audio;
mod bridge;
mod callers;
mod carriers;
mod clients;
mod digest;
mod events;
mod failures;
mod operation;
mod outage;
mod outbound;
mod program;
mod refusals;
mod register;
mod routing;
mod transfer;
mod workflows;
