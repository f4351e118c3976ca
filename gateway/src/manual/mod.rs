//! Chapters: how it is built, whom it distrusts, how to debug a call.
//!
//! | chapter | question it answers |
//! |---|---|
//! | [`architecture`] | Which part does what, on which thread, and what happens when a queue is full? |
//! | [`calls`] | How is a call taken, placed, put through and handed on? |
//! | [`numbers`] | Whose is a number, which trunk carries it, and how is one bought? |
//! | [`access`] | Who may do what, with which credential, and who did it? |
//! | [`agents`] | What does an agent see on its WebSocket, and what may it rely on? |
//! | [`provisioning`] | How do trunks, numbers and agents come to be, by hand, by file, by a pipeline? |
//! | [`events`] | How do customers' programs hear of calls, by stream and by webhook? |
//! | [`workflows`] | What is a workflow made of, what may it do, and where does it run? |
//! | [`operating`] | How does it run on a real host, and what is to be watched? |
//! | [`threats`] | Who may do harm, at which boundary, and what stops them? |
//! | [`debugging`] | A call went wrong. Where do I look, in which order? |
//!
//! The chapters live beside the code they speak of. What a chapter says and the code does not do is
//! a bug in one of the two.

#[doc = include_str!("access.md")]
pub mod access {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("calls.md")]
pub mod calls {}

#[doc = include_str!("numbers.md")]
pub mod numbers {}

#[doc = include_str!("agents.md")]
pub mod agents {}

#[doc = include_str!("provisioning.md")]
pub mod provisioning {}

#[doc = include_str!("workflows.md")]
pub mod workflows {}

#[doc = include_str!("events.md")]
pub mod events {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("threats.md")]
pub mod threats {}

#[doc = include_str!("debugging.md")]
pub mod debugging {}
