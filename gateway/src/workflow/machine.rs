//! One run of a workflow, without doing any of it.
//!
//! ```text
//!            Begin                 Values              Answer…             Output
//!   Ready ─────────► Evaluating ─────────► Asking ─────────────► Performing ───────┐
//!     ▲               (expressions)         (prompts)             (the step itself)  │
//!     └───────────────────────────── next step ─────────────────────────────────────┘
//!   any state: Threw, Busy, Expired ─► Ended            output step, no next step ─► Ended
//! ```
//!
//! [`Run::handle`] is fed one input and says the one thing it wants next; it has no clock, no
//! processes and no network. A state that has nothing to do (no expressions, no prompts) is passed
//! through at once. Same definition and same inputs give the same wants: that is a test.
//!
//! Invariant: what the context holds is bounded, and so is the number of steps.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::limits::{
    Limit, WORKFLOW_CONTEXT_BYTES, WORKFLOW_CONTEXT_VALUES, WORKFLOW_OUTPUT_BYTES,
    WORKFLOW_OUTPUT_VALUES, WORKFLOW_RUN_STEPS,
};
use config::workflows::{
    Branch, Definition, Failure, FailureKind, InputField, Kind, Outcome, OutputField, Step,
    Template, TraceEntry,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::http::{self, HttpRequest};
use super::{actions, value};

/// What one step may give, as JSON and in values.
const OUTPUT: (Limit, Limit) = (WORKFLOW_OUTPUT_BYTES, WORKFLOW_OUTPUT_VALUES);

/// What a run may remember, likewise.
const CONTEXT: (Limit, Limit) = (WORKFLOW_CONTEXT_BYTES, WORKFLOW_CONTEXT_VALUES);

/// Characters of a step's output that the trace shows.
const SUMMARY_CHARACTERS: usize = 200;

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    definition: Arc<Definition>,
    progress: Progress,
    state: State,
    entered: Instant,
    deadline: Instant,
}

/// How far a run has come: all of it that outlives a pause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// The index of the step it is at.
    at: usize,
    /// `input`, and each finished step's output under its id.
    context: Map<String, Value>,
    /// The size of the context as JSON, in bytes.
    bytes: usize,
    /// Of how many values its entries are made.
    #[serde(default)]
    values: u64,
    /// How many steps were entered.
    steps: u64,
    trace: Vec<TraceEntry>,
}

/// A run in the middle of a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Paused {
    progress: Progress,
    /// How long the wait is.
    seconds: f64,
}

#[derive(Debug)]
enum State {
    Ready,
    Evaluating,
    Asking(Asking),
    Performing,
    /// A wait of so many seconds.
    Sleeping(f64),
    Ended,
}

/// A step whose expressions have values and whose prompts do not have all their answers.
#[derive(Debug)]
struct Asking {
    values: Vec<Value>,
    prompts: Vec<String>,
    answers: Vec<String>,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// Nothing yet: the run begins.
    Begin,
    /// What the expressions came to, in order; fewer if they were to be evaluated until one is true.
    Values(Vec<Value>),
    /// What the language model said.
    Answer(String),
    /// What the code returned, or what the server answered.
    Output(Value),
    /// The time that was to pass has passed.
    Woke,
    /// What was wanted failed.
    Threw(String),
    /// Too many others want the same.
    Busy,
    /// The run's time is up.
    Expired,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub(crate) enum Want {
    /// Evaluate these, in order.
    Evaluate {
        /// JSONata.
        expressions: Vec<Arc<str>>,
        /// Stop after the first that is true.
        until_true: bool,
    },
    /// Ask the language model.
    Ask(String),
    /// Run this Python.
    Code(Arc<str>),
    /// Make this request.
    Http(HttpRequest),
    /// Let time pass until then.
    Sleep(Instant),
    /// Nothing: this is how it ended.
    End(Result<Value, Failure>),
}

/// Where the machine goes from within.
enum Move {
    Enter(usize),
    Evaluated(Vec<Value>),
    Perform(Vec<Value>),
    Leave { output: Option<Value>, summary: String, next: Option<usize> },
    Want(State, Want),
    End(Map<String, Value>),
    Fail(FailureKind, String),
}

impl Move {
    fn threw(why: impl Into<String>) -> Self {
        Self::Fail(FailureKind::Threw, why.into())
    }
}

impl Run {
    /// A run from the step at `first`, with what stands under `input`.
    pub(crate) fn new(
        definition: Arc<Definition>,
        first: usize,
        input: Value,
        (now, deadline): (Instant, Instant),
    ) -> Self {
        let (bytes, values) = (value::bytes(&input), value::count(&input));
        let context = Map::from_iter([("input".to_owned(), input)]);
        let progress = Progress { at: first, context, bytes, values, steps: 0, trace: Vec::new() };
        Self { definition, progress, state: State::Ready, entered: now, deadline }
    }

    /// A run that goes on after a pause in a wait; it expects [`Input::Woke`].
    pub(crate) fn resume(
        definition: Arc<Definition>,
        paused: Paused,
        (now, deadline): (Instant, Instant),
    ) -> Self {
        let Paused { progress, seconds } = paused;
        Self { definition, progress, state: State::Sleeping(seconds), entered: now, deadline }
    }

    /// What is needed to go on later, while it waits.
    pub(crate) fn pause(&self) -> Option<Paused> {
        match self.state {
            State::Sleeping(seconds) => Some(Paused { progress: self.progress.clone(), seconds }),
            _ => None,
        }
    }

    /// What expressions and code see.
    pub(crate) const fn context(&self) -> &Map<String, Value> {
        &self.progress.context
    }

    /// The names of the steps whose output the context has, each with the step's id.
    pub(crate) fn names(&self) -> Vec<(&str, &str)> {
        let known = |step: &&Step| self.progress.context.contains_key(&step.id);
        let named = |step: &'_ Step| step.name.is_some();
        let steps = self.definition.steps().iter().filter(known).filter(|step| named(step));
        steps.map(|step| (step.title(), step.id.as_str())).collect()
    }

    /// Ends the run, with what it left behind.
    pub(crate) fn outcome(self, result: Result<Value, Failure>) -> Outcome {
        Outcome { result, trace: self.progress.trace }
    }

    /// All transitions, in the order of the figure.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) -> Want {
        let state = mem::replace(&mut self.state, State::Ended);
        let mut next = match (state, input) {
            (_, Input::Expired) => {
                Move::Fail(FailureKind::TimedOut, "the time for the run is up".to_owned())
            }
            (_, Input::Busy) => {
                Move::Fail(FailureKind::Busy, "too many workflows run at the moment".to_owned())
            }
            (_, Input::Threw(why)) => Move::threw(why),
            (State::Ready, Input::Begin) => self.begin(),
            (State::Evaluating, Input::Values(values)) => Move::Evaluated(values),
            (State::Asking(asking), Input::Answer(answer)) => self.answered(asking, answer),
            (State::Performing, Input::Output(output)) => self.performed(output),
            (State::Sleeping(seconds), Input::Woke) => {
                self.performed(json!({ "waited_seconds": value::number(seconds) }))
            }
            (state, input) => Move::threw(format!("{input:?} does not belong into {state:?}")),
        };
        loop {
            next = match next {
                Move::Enter(index) => self.enter(now, index),
                Move::Evaluated(values) => self.evaluated(values),
                Move::Perform(values) => self.perform(now, values),
                Move::Leave { output, summary, next } => self.leave(now, output, summary, next),
                Move::Want(state, want) => {
                    self.state = state;
                    return want;
                }
                Move::End(fields) => return Want::End(Ok(Value::Object(fields))),
                Move::Fail(kind, why) => return Want::End(Err(self.fail(now, kind, why))),
            }
        }
    }

    fn begin(&self) -> Move {
        let input = self.progress.context.get("input");
        if !input.is_some_and(Value::is_object) {
            return Move::threw("the input must be an object");
        }
        if let Some(why) = input.and_then(|input| too_much(input, CONTEXT)) {
            return Move::threw(format!("the input {why}"));
        }
        Move::Enter(self.progress.at)
    }

    fn enter(&mut self, now: Instant, index: usize) -> Move {
        let definition = Arc::clone(&self.definition);
        let Some(step) = definition.step(index) else {
            return Move::threw("there is no such step");
        };
        self.progress.at = index;
        self.progress.steps += 1;
        self.entered = now;
        if self.progress.steps > WORKFLOW_RUN_STEPS.value {
            let why = format!("the run took more than {} steps", WORKFLOW_RUN_STEPS.value);
            return Move::Fail(FailureKind::TooManySteps, why);
        }
        let (expressions, until_true) = match &step.kind {
            Kind::Condition { branches, .. } => (questions(branches), true),
            kind => {
                let templates = kind.templates().into_iter();
                (templates.flat_map(|(_, template)| template.expressions()).collect(), false)
            }
        };
        match expressions.is_empty() {
            true => Move::Evaluated(Vec::new()),
            false => Move::Want(State::Evaluating, Want::Evaluate { expressions, until_true }),
        }
    }

    fn evaluated(&self, values: Vec<Value>) -> Move {
        let Some(step) = self.step() else { return Move::threw("there is no such step") };
        if let Kind::Condition { branches, default } = &step.kind {
            return choose(branches, *default, values);
        }
        let (filled, prompts) = fill(&step.kind, values.clone(), Vec::new());
        match prompts.first() {
            None => Move::Perform(filled),
            Some(first) => {
                let first = first.clone();
                let asking = Asking { values, prompts, answers: Vec::new() };
                Move::Want(State::Asking(asking), Want::Ask(first))
            }
        }
    }

    fn answered(&self, mut asking: Asking, answer: String) -> Move {
        let Some(step) = self.step() else { return Move::threw("there is no such step") };
        asking.answers.push(answer);
        match asking.prompts.get(asking.answers.len()).cloned() {
            Some(prompt) => Move::Want(State::Asking(asking), Want::Ask(prompt)),
            None => Move::Perform(fill(&step.kind, asking.values, asking.answers).0),
        }
    }

    fn perform(&self, now: Instant, filled: Vec<Value>) -> Move {
        let Some(step) = self.step() else { return Move::threw("there is no such step") };
        let mut filled = filled.into_iter();
        let want = |want| Move::Want(State::Performing, want);
        match &step.kind {
            Kind::Input(fields) => self.take_input(fields),
            Kind::Condition { .. } => Move::threw("a condition does nothing"),
            Kind::Code(source) => want(Want::Code(Arc::clone(source))),
            Kind::Http(http) => {
                http::request(http, filled).map_or_else(Move::threw, |it| want(Want::Http(it)))
            }
            Kind::App { action, .. } => {
                let parameters = filled.next().unwrap_or_default();
                actions::perform(action, &parameters)
                    .map_or_else(Move::threw, |output| self.performed(output))
            }
            Kind::Wait { unit, .. } => {
                let duration = filled.next().and_then(|duration| duration.as_f64());
                self.wait(now, duration.map(|duration| duration * f64::from(unit.seconds())))
            }
            Kind::Output(fields) => self.give(fields, filled),
            Kind::Note => Move::Leave { output: None, summary: String::new(), next: step.next },
        }
    }

    fn take_input(&self, fields: &[InputField]) -> Move {
        let input = self.progress.context.get("input").cloned().unwrap_or_default();
        for InputField { name, kind, required } in fields {
            match input.get(name).filter(|value| !value.is_null()) {
                None if *required => return Move::threw(format!("the input has no {name}")),
                Some(value) if !kind.holds(value) => {
                    let kind = kind.as_str();
                    return Move::threw(format!("the input's {name} is not of the type {kind}"));
                }
                _ => {}
            }
        }
        self.performed(input)
    }

    fn wait(&self, now: Instant, seconds: Option<f64>) -> Move {
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let Some((seconds, time)) = seconds.zip(time) else {
            return Move::threw("the duration of a wait is a number from 0");
        };
        match now.checked_add(time) {
            Some(until) if until <= self.deadline => {
                Move::Want(State::Sleeping(seconds), Want::Sleep(until))
            }
            _ => {
                let why = format!("a wait of {seconds} s is longer than the run may take");
                Move::Fail(FailureKind::TimedOut, why)
            }
        }
    }

    fn give(&self, fields: &[OutputField], filled: impl Iterator<Item = Value>) -> Move {
        let mut output = Map::new();
        for (field, value) in fields.iter().zip(filled) {
            let name = &field.name;
            match field.kind {
                Some(kind) if !value.is_null() && !kind.holds(&value) => {
                    let kind = kind.as_str();
                    return Move::threw(format!("the field {name} is not of the type {kind}"));
                }
                _ => output.insert(name.clone(), value),
            };
        }
        let output = Value::Object(output);
        if let Some(why) = too_much(&output, OUTPUT) {
            return Move::threw(format!("the output {why}"));
        }
        let summary = value::summary(&output, SUMMARY_CHARACTERS);
        Move::Leave { output: Some(output), summary, next: None }
    }

    /// The step is done, and this is what it gives.
    fn performed(&self, output: Value) -> Move {
        let next = self.step().and_then(|step| step.next);
        if let Some(why) = too_much(&output, OUTPUT) {
            return Move::threw(format!("what the step gives {why}"));
        }
        let summary = value::summary(&output, SUMMARY_CHARACTERS);
        Move::Leave { output: Some(output), summary, next }
    }

    fn leave(
        &mut self,
        now: Instant,
        output: Option<Value>,
        summary: String,
        next: Option<usize>,
    ) -> Move {
        let Some(step) = self.definition.step(self.progress.at) else {
            return Move::threw("there is no such step");
        };
        let ends = matches!(step.kind, Kind::Output(_));
        if let (true, Some(Value::Object(fields))) = (ends, &output) {
            let fields = fields.clone();
            self.note(now, summary);
            return Move::End(fields);
        }
        if let Some(output) = output {
            let id = step.id.clone();
            self.remember(id, output);
        }
        if self.progress.bytes > WORKFLOW_CONTEXT_BYTES.value_usize() {
            let most = WORKFLOW_CONTEXT_BYTES.value;
            return Move::threw(format!("the run remembers more than {most} bytes of JSON"));
        }
        if self.progress.values > WORKFLOW_CONTEXT_VALUES.value {
            let most = WORKFLOW_CONTEXT_VALUES.value;
            return Move::threw(format!("the run remembers more than {most} JSON values"));
        }
        self.note(now, summary);
        next.map_or_else(|| Move::End(Map::new()), Move::Enter)
    }

    /// Adds a step's output to the context, in the place of what it gave before.
    fn remember(&mut self, id: String, output: Value) {
        let progress = &mut self.progress;
        progress.bytes += value::bytes(&output) + id.len();
        progress.values += value::count(&output);
        if let Some(before) = progress.context.insert(id, output) {
            progress.bytes = progress.bytes.saturating_sub(value::bytes(&before));
            progress.values = progress.values.saturating_sub(value::count(&before));
        }
    }

    fn fail(&mut self, now: Instant, kind: FailureKind, message: String) -> Failure {
        let step_name = self.step().map_or_else(String::new, |step| step.title().to_owned());
        self.note(now, format!("{}: {}", kind.as_str(), value::cut(&message, SUMMARY_CHARACTERS)));
        Failure { step_name, message, kind }
    }

    /// Writes into the trace what became of the step.
    fn note(&mut self, now: Instant, summary: String) {
        let Some(step) = self.definition.step(self.progress.at) else { return };
        let duration = now.saturating_duration_since(self.entered);
        self.progress.trace.push(TraceEntry {
            step: step.id.clone(),
            name: step.title().to_owned(),
            kind: step.kind.as_str().to_owned(),
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            summary,
        });
    }

    fn step(&self) -> Option<&Step> {
        self.definition.step(self.progress.at)
    }
}

/// In what a value is more than so many bytes and values, if it is.
fn too_much(value: &Value, (bytes, values): (Limit, Limit)) -> Option<String> {
    if value::deeper_than(value, value::MAX_DEPTH) {
        return Some(format!("is nested more than {} deep", value::MAX_DEPTH));
    }
    if value::bytes(value) > bytes.value_usize() {
        return Some(format!("is more than {} bytes of JSON", bytes.value));
    }
    (value::count(value) > values.value)
        .then(|| format!("is made of more than {} JSON values", values.value))
}

/// The expressions of the branches up to one that is plainly true.
fn questions(branches: &[Branch]) -> Vec<Arc<str>> {
    let open = |branch: &&Branch| branch.when != Template::Value(Value::Bool(true));
    branches.iter().take_while(open).flat_map(|branch| branch.when.expressions()).collect()
}

/// The first branch that is true, or else the default.
fn choose(branches: &[Branch], default: Option<usize>, values: Vec<Value>) -> Move {
    let mut values = values.into_iter();
    let taken = branches.iter().find(|branch| match &branch.when {
        Template::Value(plain) => value::is_true(plain),
        _ => values.next().is_some_and(|value| value::is_true(&value)),
    });
    match taken {
        Some(Branch { label, next, .. }) => Move::Leave {
            output: Some(json!(label)),
            summary: format!("branch {}", value::cut(label, SUMMARY_CHARACTERS)),
            next: *next,
        },
        None => Move::Leave {
            output: Some(Value::Null),
            summary: "default branch".to_owned(),
            next: default,
        },
    }
}

/// All templates of a step with their values and answers, and the prompts among them.
fn fill(kind: &Kind, values: Vec<Value>, answers: Vec<String>) -> (Vec<Value>, Vec<String>) {
    let (mut values, mut answers) = (VecDeque::from(values), VecDeque::from(answers));
    let (mut filled, mut prompts) = (Vec::new(), Vec::new());
    for (_, template) in kind.templates() {
        let own = template.expressions().len().min(values.len());
        let one = template.fill(values.drain(..own).collect(), answers.clone().into());
        answers.drain(..one.prompts.len().min(answers.len()));
        filled.push(one.value);
        prompts.extend(one.prompts);
    }
    (filled, prompts)
}

#[cfg(test)]
mod tests;
