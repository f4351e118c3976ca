//! Chapters: how it is built, whom it distrusts, how to debug a call.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("threats.md")]
pub mod threats {}

#[doc = include_str!("debugging.md")]
pub mod debugging {}
