//! Texts that are written for customers: instructions of agents, what differs between versions, and briefs
//! about calls.
//!
//! A language model writes them where the node has one. Without one they are put together from
//! structure by the plain functions here, and say so: nobody mistakes the one for the other.

mod brief;
mod difference;
mod html;
mod instructions;
mod site;

pub(crate) use brief::{assembled_brief, written_brief};
pub(crate) use difference::compare;
pub(crate) use instructions::{assemble, demo_inputs, instructions_prompt, is_usable};
pub(crate) use site::{Site, read_site};
