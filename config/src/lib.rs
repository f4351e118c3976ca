//! Skeleton.
pub mod limits;
pub mod settings;
