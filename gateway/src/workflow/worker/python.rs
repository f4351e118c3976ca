//! The Python of `code` steps: a subset, interpreted without any way out.
//!
//! A program defines `def run(ctx)`; what it returns is the step's output. `ctx` is a dict; the result
//! is made of dicts with text keys, lists, tuples, strings, numbers, booleans and `None`. There is no
//! file, network, process, environment or clock; `print` goes nowhere. The modules are [`MODULES`].

use std::collections::HashMap;
use std::time::Duration;

use monty::MontyRun;
use monty_types::{
    CompileOptions, MontyException, MontyObject, PrintWriter, ResourceLimits, ResourceTracker,
};
use serde_json::{Map, Number, Value};

use crate::workflow::value::MAX_DEPTH;

/// The modules a program can import.
pub(super) const MODULES: [&str; 12] = [
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
    "functools",
    "itertools",
    "json",
    "math",
    "re",
    "typing",
    "unicodedata",
];

/// What error messages call the program.
const FILE: &str = "code";

/// The name of the program's only argument.
const ARGUMENT: &str = "ctx";

/// How deep calls may nest.
const MAX_CALLS: usize = 500;

/// Compiled programs that are kept; then all are forgotten.
const KEPT: usize = 128;

/// Programs that were compiled.
#[derive(Default)]
pub(super) struct Programs(HashMap<String, MontyRun>);

impl Programs {
    /// Calls `run(ctx)` of the program.
    pub(super) fn run(
        &mut self,
        source: &str,
        context: Map<String, Value>,
        limit: Duration,
    ) -> Result<Value, String> {
        if !self.0.contains_key(source) {
            if self.0.len() >= KEPT {
                self.0.clear();
            }
            self.0.insert(source.to_owned(), compile(source)?);
        }
        let program = self.0.get(source).ok_or("was not compiled")?;
        let limits = ResourceLimits::default().max_duration(limit).max_recursion_depth(MAX_CALLS);
        let context = inward(Value::Object(context));
        let tracker = ResourceTracker::new(limits);
        let result = program.run(vec![context], tracker, PrintWriter::Disabled);
        let result = result.map_err(|error| told(&error, source))?;
        outward(result, MAX_DEPTH)
    }
}

/// What is wrong with a program, if anything is.
pub(super) fn fault(source: &str) -> Option<String> {
    if let Err(why) = compile(source) {
        return Some(why);
    }
    let lines = || code_lines(source);
    if !lines().any(|(_, line)| line.starts_with("def run(")) {
        return Some("must define run(ctx) at the left margin".to_owned());
    }
    lines().find_map(|(number, line)| {
        let foreign = imported(line.trim_start()).find(|module| !MODULES.contains(module))?;
        Some(format!(
            "line {number}: there is no module {foreign}; there are {}",
            MODULES.join(", ")
        ))
    })
}

fn compile(source: &str) -> Result<MontyRun, String> {
    let program = format!("{source}\n\nrun({ARGUMENT})\n");
    MontyRun::new(program, FILE, vec![ARGUMENT.to_owned()], CompileOptions::default())
        .map_err(|error| told(&error, source))
}

/// The lines outside texts of three quotes, with their numbers.
fn code_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut within = None;
    source.lines().enumerate().filter_map(move |(index, line)| {
        let began_within = within.is_some();
        let mut rest = line;
        loop {
            let quotes =
                within.map_or_else(|| first_quotes(rest), |open| Some((rest.find(open)?, open)));
            let Some((at, found)) = quotes else { break };
            within = if within.is_some() { None } else { Some(found) };
            rest = rest.get(at + found.len()..).unwrap_or_default();
        }
        (!began_within).then_some((index + 1, line))
    })
}

/// The first three quotes of either kind.
fn first_quotes(text: &str) -> Option<(usize, &'static str)> {
    ["\"\"\"", "'''"].into_iter().filter_map(|quotes| Some((text.find(quotes)?, quotes))).min()
}

/// The modules that a line imports.
fn imported(line: &str) -> impl Iterator<Item = &str> {
    let many = line.strip_prefix("import ").into_iter().flat_map(|list| list.split(','));
    let one = line.strip_prefix("from ").and_then(|rest| rest.split_once(" import "));
    many.chain(one.map(|(module, _)| module)).filter_map(package)
}

/// The package a dotted name begins with.
fn package(module: &str) -> Option<&str> {
    module.trim_start().split([' ', '.', '#', ';']).find(|part| !part.is_empty())
}

/// An exception in one line, with the line of the program it came from.
fn told(error: &MontyException, source: &str) -> String {
    let lines = u32::try_from(source.lines().count()).unwrap_or(u32::MAX);
    let frames = error.traceback().iter().rev();
    let line = frames.map(|frame| frame.start.line).find(|line| (1..=lines).contains(line));
    match line {
        Some(line) => format!("line {line}: {}", error.summary()),
        None => error.summary(),
    }
}

/// A JSON value as Python has it.
fn inward(value: Value) -> MontyObject {
    match value {
        Value::Null => MontyObject::None,
        Value::Bool(truth) => MontyObject::Bool(truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => MontyObject::Int(whole),
            None => MontyObject::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => MontyObject::String(text),
        Value::Array(items) => MontyObject::List(items.into_iter().map(inward).collect()),
        Value::Object(fields) => {
            let pairs =
                fields.into_iter().map(|(key, value)| (MontyObject::String(key), inward(value)));
            MontyObject::dict(pairs.collect::<Vec<_>>())
        }
    }
}

/// What Python returned, as JSON.
fn outward(object: MontyObject, depth: usize) -> Result<Value, String> {
    let Some(below) = depth.checked_sub(1) else {
        return Err(format!("run returned a value nested more than {MAX_DEPTH} deep"));
    };
    let list = |items: Vec<MontyObject>| {
        items
            .into_iter()
            .map(|item| outward(item, below))
            .collect::<Result<_, _>>()
            .map(Value::Array)
    };
    match object {
        MontyObject::None => Ok(Value::Null),
        MontyObject::Bool(truth) => Ok(Value::Bool(truth)),
        MontyObject::Int(whole) => Ok(whole.into()),
        MontyObject::Float(number) => Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| format!("run returned {number}, which JSON does not have")),
        MontyObject::String(text) => Ok(Value::String(text)),
        MontyObject::List(items) | MontyObject::Tuple(items) => list(items),
        MontyObject::Dict(pairs) => pairs
            .into_iter()
            .map(|(key, value)| match key {
                MontyObject::String(key) => Ok((key, outward(value, below)?)),
                other => {
                    Err(format!("run returned a dict with a key of type {}", other.type_name()))
                }
            })
            .collect::<Result<Map<_, _>, _>>()
            .map(Value::Object),
        other => Err(format!("run returned a {}, which JSON does not have", other.type_name())),
    }
}
