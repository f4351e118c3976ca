//! The gateway process against people who mean harm, over real sockets of one machine.
//!
//! Every test starts a gateway of its own and attacks it from other addresses of 127.0.0.0/8, at
//! bounded rates and for seconds. What must hold is said in the name of each test; afterwards the
//! gateway must be unharmed and quiet again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers may fail it"
)]

mod api;
mod bleed;
mod bridged;
mod callee;
mod carriers;
mod common;
mod dialling;
mod downgrade;
mod failover;
mod floods;
mod framing;
mod headers;
mod http;
mod injection;
mod leaks;
mod names;
mod races;
mod rtcp;
mod strangers;
