//! The SIP protocol alone: bytes in, bytes out, no sockets, no clock, no tasks.
//!
//! ```text
//!   datagram ────────────────┐
//!   stream ── StreamFramer ──┴─▶ Message ─▶ Request / Response ─▶ transactions, dialogs
//!                                                                        │
//!                                              bytes ◀── Writer ◀────────┘
//! ```
//!
//! Three invariants hold for whatever arrives:
//!
//! 1. Nothing panics, and nothing is allocated by what a message promises, only by what arrived.
//! 2. A message is indexed where it lies. Headers nobody here knows are as present as any others.
//! 3. A [`Request`] has its mandatory headers, once each and readable; there is no accessor for them
//!    that could fail.
//!
//! Time, randomness and addresses are arguments: the same inputs give the same bytes.

mod dialog;
pub mod digest;
pub mod endpoint;
pub mod flow;
pub mod frame;
pub mod header;
mod lex;
mod malformed;
pub mod message;
pub mod method;
pub mod name_addr;
pub mod param;
mod parse;
pub mod print;
mod sipfrag;
mod transaction;
pub mod uri;
pub mod via;

pub use endpoint::{Endpoint, Options};
pub use flow::{Flow, Transport};
pub use frame::{Frame, FrameError, StreamFramer};
pub use header::HeaderName;
pub use message::{Malformed, Message, Rejection, Request, Response};
pub use method::Method;
pub use name_addr::{Contact, NameAddr};
pub use param::Params;
pub use print::{Unprintable, Writer, reason_phrase};
pub use sipfrag::sipfrag_status;
pub use uri::{Host, SipUri, TelUri, Uri};
pub use via::Via;
