//! Skeleton.
/// Header and SSRC.
pub const MIN_BYTES: usize = 8;
