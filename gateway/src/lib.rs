//! Trunkline: a SIP back-to-back user agent and trunk gateway for voice agents.
//!
//! Start with the chapters in [`manual`]: the architecture, the threats, and how to debug a call.
//!
//! ```text
//!   cli ─► run ─► serve ─► shard ─► call      what happens to a call (pure)
//!                   │        ├────► sip       the protocol (pure, own crate)
//!                   │        ├────► media     audio (own crate, own threads)
//!                   │        └────► agent     links to agents
//!                   ├─► net      sockets
//!                   └─► observe  logs, metrics, health
//! ```

pub mod agent;
pub mod call;
pub mod cli;
pub mod client;
pub mod clock;
pub mod control;
pub mod demo;
pub mod keys;
pub mod manual;
pub mod net;
pub mod observe;
pub mod random;
pub mod replay;
pub mod routing;
pub mod run;
pub mod serve;
pub mod shard;
mod terminal;
pub mod verify;
pub mod workflow;
