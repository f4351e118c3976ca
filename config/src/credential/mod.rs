//! Credentials, what they may do, and the proof that they were checked.
//!
//! ```text
//!  ak_<id>.<secret>    a key: one organisation, the scopes it was granted
//!  pat_<id>.<secret>   a token: one user, in each of their organisations the scopes of their role
//! ```
//!
//! The secret is 256 random bits and a checksum that tells a mistyped credential from a wrong one.
//! Only the SHA-256 of the whole text is kept. Invariant: the proofs [`Authenticated`], [`Person`],
//! [`ScopedTo`] and [`Operator`] come from an accepted credential, or from the few constructors that
//! say in their name on whose authority they act; each carries the [`Actor`] that the audit log names.

mod proof;
mod scope;
mod text;

pub use proof::{Actor, Authenticated, Operator, Person, ScopedTo, Unauthenticated, Who};
pub use scope::{Grant, Grants, Role, Scope, ScopeSet, UnknownScope};
pub(crate) use text::{KeyHash, Presented, hash, hashes_match, mint, read};
