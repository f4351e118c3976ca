//! The `trunkline` binary on loopback, called by programs that other people wrote: SIPp, baresip,
//! and an agent on pipecat. Every test has a gateway of its own.

mod audio;
mod callers;
mod digest;
mod failures;
mod operation;
mod program;
mod refusals;
