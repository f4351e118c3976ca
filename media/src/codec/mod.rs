//! Codecs and what stands between them: G.711, rate conversion, concealment of lost frames.

pub mod conceal;
pub mod g711;
pub mod resample;

pub use g711::Codec;
