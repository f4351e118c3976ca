//! What the tests of the whole program share: the program itself as a child process, its REST API
//! as a customer sees it, and peers that other people wrote.
//!
//! ```text
//!  test ─► Gateway ── child process `trunkline serve`, port 0 everywhere, a folder of its own
//!       │     └─ Rest, Metrics: what a customer and an operator can ask
//!       ├─► Sipp ──── callers from a scenario of tests/e2e/assets
//!       ├─► Callee ── carriers and SIP agents: SIPp with a script written in the test
//!       ├─► Baresip ─ a softphone with a microphone and a loudspeaker that are WAV files
//!       ├─► Kamailio  a proxy in the route of every dialog; Records: what dnsmasq serves
//!       ├─► Postgres  the database of one or of several gateways
//!       ├─► Lookup ── an HTTP server that a workflow asks
//!       ├─► Bot ───── an agent on pipecat's own Twilio serializer
//!       └─► Receiver  a customer's program that hears of calls, over webhooks; Listener: the stream
//! ```
//!
//! Invariants: nothing waits without a limit ([`wait`]); every child dies with the value that
//! stands for it; no port, file or process is shared between two tests.
#![expect(
    clippy::indexing_slicing,
    reason = "what is not there in a JSON value reads as null: indexing one cannot panic"
)]

pub mod authority;
pub mod baresip;
pub mod bot;
pub mod callee;
pub mod dns;
pub mod gateway;
pub mod http;
pub mod kamailio;
pub mod lookup;
pub mod peer;
pub mod port;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod sipp;
pub mod sound;
pub mod wait;

pub use gateway::{Gateway, Line};
