//! Captures made here, in memory.
