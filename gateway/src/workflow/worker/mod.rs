//! The worker process: computes what customers wrote, and can do nothing else.
//!
//! The gateway starts it as `trunkline workflow-worker` with an empty environment, and speaks to it
//! over standard input and output ([`wire`](super::wire)). Before the first byte is read it gives up
//! all it could ever do but compute ([`lockdown`]): it cannot open a file or a socket, start a process,
//! or take more memory than it was told. If it fails all the same, by running out of memory or stack, it
//! dies, and with it one step of one run.

mod jsonata;
mod lockdown;
mod python;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use config::limits::WORKFLOW_OUTPUT_VALUES;
use serde_json::{Map, Value};

use super::value;
use super::wire::{self, LONGEST_REPLY, LONGEST_TASK, Reply, Task, Work};

/// Stack of the thread that computes: recursion in customers' code is bounded long before its end.
const STACK_BYTES: usize = 32 << 20;

/// What the worker says when nothing confines it, so that nothing was computed.
const NOT_CONFINED: u8 = 3;

/// Runs the worker until its input ends. `memory_mib` is what it may take for computing.
#[must_use]
pub(crate) fn run(memory_mib: u32) -> ExitCode {
    // A thread whose stack is known beforehand: asking for that of the first one opens a file.
    let computing = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        if lockdown::confine(u64::from(memory_mib) << 20).is_err() {
            return ExitCode::from(NOT_CONFINED);
        }
        let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
        let ready = wire::write(&mut to, &[], LONGEST_REPLY);
        match ready.and_then(|()| serve(&mut from, &mut to, lockdown::allow_cpu)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    });
    computing.map_or(ExitCode::FAILURE, |thread| thread.join().unwrap_or(ExitCode::FAILURE))
}

/// Answers one task after the other. `before` is told how long each may take.
fn serve(from: &mut impl Read, to: &mut impl Write, before: impl Fn(Duration)) -> io::Result<()> {
    let mut languages = Languages::default();
    let (mut task, mut context) = (Vec::new(), Vec::new());
    while wire::read(from, &mut task, LONGEST_TASK)? {
        if !wire::read(from, &mut context, LONGEST_TASK)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let task: Task = serde_json::from_slice(&task)?;
        before(Duration::from_millis(task.limit_ms));
        let most_values = task.work.most_values();
        let reply = serde_json::to_vec(&languages.perform(task, &context))?;
        match too_much(&reply, most_values) {
            None => wire::write(to, &reply, LONGEST_REPLY)?,
            Some(message) => {
                wire::write(to, &serde_json::to_vec(&Reply::Threw { message })?, LONGEST_REPLY)?;
            }
        }
    }
    Ok(())
}

/// Why the gateway would not take a reply, if it would not.
fn too_much(reply: &[u8], most_values: u64) -> Option<String> {
    if reply.len() > LONGEST_REPLY {
        return Some(format!("gives more than {LONGEST_REPLY} bytes of JSON"));
    }
    value::holds_more_than(reply, most_values)
        .then(|| format!("gives more than {} JSON values", WORKFLOW_OUTPUT_VALUES.value))
}

/// What was compiled so far.
#[derive(Default)]
struct Languages {
    jsonata: jsonata::Expressions,
    python: python::Programs,
}

impl Languages {
    fn perform(&mut self, task: Task, context: &[u8]) -> Reply {
        let limit = Duration::from_millis(task.limit_ms);
        let outcome = match task.work {
            Work::Evaluate { expressions, until_true } => jsonata::context(context, &task.names)
                .and_then(|context| {
                    self.jsonata.evaluate(&expressions, until_true, (&context, limit))
                })
                .map(|values| Reply::Values { values }),
            Work::Code { source } => named(context, &task.names)
                .and_then(|context| self.python.run(&source, context, limit))
                .map(|value| Reply::Output { value }),
            Work::Check { expressions, sources } => Ok(Reply::Checked {
                expressions: expressions.iter().map(|text| jsonata::fault(text)).collect(),
                sources: sources.iter().map(|text| python::fault(text)).collect(),
            }),
        };
        outcome.unwrap_or_else(|message| Reply::Threw { message })
    }
}

/// The context, with the steps under their names as well.
fn named(context: &[u8], names: &[(String, String)]) -> Result<Map<String, Value>, String> {
    let mut context: Map<String, Value> =
        serde_json::from_slice(context).map_err(|_| "the context cannot be read".to_owned())?;
    for (name, id) in names {
        if let Some(output) = context.get(id).cloned() {
            context.insert(name.clone(), output);
        }
    }
    Ok(context)
}

#[cfg(test)]
mod tests;
