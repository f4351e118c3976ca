//! Digest authentication, both sides (RFC 7616, RFC 8760, RFC 3261 §22, RFC 2617 for old peers).
//!
//! ```text
//!   client                                   server
//!     │ INVITE                                  │
//!     ├────────────────────────────────────────▶│ Nonces::challenge: a nonce that proves itself
//!     │ 401, WWW-Authenticate: SHA-256, MD5     │
//!     │◀────────────────────────────────────────┤
//!     │ choose, Challenge::answer               │
//!     │ INVITE, CSeq + 1, Authorization         │
//!     ├────────────────────────────────────────▶│ Nonces::verify: proof, age, password, nc
//! ```
//!
//! The server keeps nothing for strangers: a nonce carries its time and a keyed hash over it, and
//! only a request with the right password enters the bounded table that finds replays. Secrets have
//! no `Debug`; comparisons of secrets take the same time whatever they compare.

mod answers;
mod client;
mod field;
mod hash;
mod server;

pub use answers::{Answers, Line, Refused, Rules, Subject};
pub use client::{Challenge, Credentials, Question, Unanswerable, choose};
pub use hash::{Algorithm, Hash};
pub use server::{Claim, Nonces, Verdict};
