//! Session descriptions: SDP (RFC 8866), offer/answer (RFC 3264) and SDES keys (RFC 4568).
//!
//! A [`Negotiation`] is one leg's side of the offer/answer exchange. It reads what the peer sent
//! through a tolerant pass that bounds every count, decides, and hands out a [`Plan`]: everything
//! the media worker needs and nothing of SDP.
//!
//! ```text
//!  offer bytes ──parse──▶ Description ──select──▶ Choice ──negotiate──▶ answer bytes + Plan
//! ```
//!
//! Invariant: a call that fails leaves the negotiation as it was, so a refused re-offer never
//! disturbs running media (RFC 3264 §8).

mod address;
mod crypto;
mod direction;
mod negotiate;
mod offer;
mod parse;
mod plan;
mod print;
mod select;
#[cfg(test)]
mod tests;

pub use direction::Direction;
pub use negotiate::{Capabilities, Encryption, Local, Negotiation};
pub use plan::{Incompatible, Plan, SrtpKeys};
