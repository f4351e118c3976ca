//! Calls: admission, the call machine, and how calls end.
//!
//! Everything here is pure: fed with facts and `now`, drained of decisions and actions.

pub mod admission;
pub mod dial;
pub mod end;
pub mod machine;
pub mod number;
pub mod pace;
pub mod places;
pub mod queue;
pub mod registration;

pub use end::{EndReason, Party};
