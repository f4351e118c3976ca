//! The definition of a workflow: its steps, and what leads from one to the next.
//!
//! ```text
//!  { "schema": "trunkline/1",
//!    "steps": [
//!      { "id": "trigger", "type": "input", "next": "n1" },
//!      { "id": "n1", "name": "Who calls", "type": "condition", "default": "n3",
//!        "branches": [ { "label": "vip", "when": "{{ input.caller_number = '+15550001' }}", "next": "n2" } ] },
//!      { "id": "n2", "type": "output", "fields": { "agent_id": "…" } },
//!      { "id": "n3", "type": "output", "fields": { "reject": true } } ] }
//! ```
//!
//! Every step has at most one successor, but for a condition, which has one for each branch and one
//! for the default. A successor is written as `next` (or `default`) or as an entry of `edges`, which
//! means the same: `{"from": "n1", "to": "n2", "branch": "vip"}`. A run begins at the step called
//! `trigger`, or else at the input step, or else at the first step. It ends at an output step; where
//! nothing follows it ends with no fields.
//!
//! `schema` may be left out. The name in it is up to whoever writes the definition (`own/1`), so any short
//! one is taken; another version than 1 would be another format.
//!
//! Invariant: indices of steps are those of steps that exist.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::template::Template;
use super::{Fault, read};

/// A definition whose shape is right. It is made once, when it is written or loaded, and shared by
/// all its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub(super) steps: Vec<Step>,
    pub(super) first: usize,
    pub(super) time_limit: Option<Duration>,
}

/// A definition with what was odd about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The definition.
    pub definition: Arc<Definition>,
    /// What its author should know: steps that nothing leads to.
    pub warnings: Vec<Fault>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its id, under which its output stands in the context.
    pub id: String,
    /// Its display name, under which its output stands as well.
    pub name: Option<String>,
    /// What it does.
    pub kind: Kind,
    /// The index of the step that follows; `None` ends the run. Conditions choose for themselves.
    pub next: Option<usize>,
}

/// What a step does, by its `type`.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `input`: holds what the run was given, after checking it.
    Input(Vec<InputField>),
    /// `condition`: takes the first branch that is true, or else the default.
    Condition {
        /// In the order they are tried.
        branches: Vec<Branch>,
        /// The index of the step that follows when none is true.
        default: Option<usize>,
    },
    /// `code`: Python with a `def run(ctx)`.
    Code(Arc<str>),
    /// `http`: one request.
    Http(Box<HttpStep>),
    /// `app`: an action of ours.
    App {
        /// Its name.
        action: String,
        /// What it is given: an object.
        parameters: Template,
    },
    /// `wait`: lets time pass.
    Wait {
        /// How many of the unit.
        duration: Template,
        /// The unit.
        unit: WaitUnit,
    },
    /// `output`: ends the run with these fields.
    Output(Vec<OutputField>),
    /// `note`: does nothing.
    Note,
}

/// A field the input must have, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputField {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: FieldType,
    /// Whether a run without it fails.
    pub required: bool,
}

/// A field of the output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputField {
    /// Its name.
    pub name: String,
    /// Its type; `None` takes any.
    pub kind: Option<FieldType>,
    /// Its value.
    pub value: Template,
}

/// The types of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Text.
    String,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    Array,
    /// A map.
    Object,
}

impl FieldType {
    /// All of them with their names.
    pub(super) const NAMES: [(&'static str, Self); 5] = [
        ("string", Self::String),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("array", Self::Array),
        ("object", Self::Object),
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| *name)
    }

    /// Whether a value is of this type.
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
        }
    }
}

/// A branch of a condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// What it is called; the condition's output when it is taken.
    pub label: String,
    /// One expression, or `true` or `false`.
    pub when: Template,
    /// The index of the step that follows.
    pub next: Option<usize>,
}

/// One HTTP request.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpStep {
    /// The method, in capitals.
    pub method: &'static str,
    /// The URL.
    pub url: Template,
    /// Header fields: an object of texts.
    pub headers: Template,
    /// What is added to the URL's query: an object of texts.
    pub query: Template,
    /// The body: a text as it is, anything else as JSON.
    pub body: Option<Template>,
    /// How long it may take.
    pub timeout: Duration,
}

/// The units of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitUnit {
    /// One second.
    Seconds,
    /// 60 seconds.
    Minutes,
    /// 3,600 seconds.
    Hours,
    /// 86,400 seconds.
    Days,
}

impl WaitUnit {
    /// How many seconds it has.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Seconds => 1,
            Self::Minutes => 60,
            Self::Hours => 3_600,
            Self::Days => 86_400,
        }
    }
}

impl Definition {
    /// Reads the shape of a definition: steps, fields, and what leads where. What its expressions and
    /// its code say is checked by [`Workflows::check`](super::Workflows::check), when it is written.
    ///
    /// # Errors
    /// Every fault that was found, each with its place.
    pub fn parse(definition: &Value) -> Result<Parsed, Vec<Fault>> {
        read::definition(definition)
    }

    /// Its steps, as listed.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step with this index.
    #[must_use]
    pub fn step(&self, index: usize) -> Option<&Step> {
        self.steps.get(index)
    }

    /// The index of the step with this id.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }

    /// The index of the step a run begins with.
    #[must_use]
    pub const fn first(&self) -> usize {
        self.first
    }

    /// The id of the step a run begins with.
    #[must_use]
    pub fn first_step(&self) -> &str {
        self.steps.get(self.first).map_or("", |step| &step.id)
    }

    /// How long a run in the background may take, if the definition says (`timeout_seconds`).
    #[must_use]
    pub const fn time_limit(&self) -> Option<Duration> {
        self.time_limit
    }
}

impl Step {
    /// Its name, or its id if it has none.
    #[must_use]
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// The steps that may follow.
    pub(super) fn successors(&self) -> Vec<usize> {
        match &self.kind {
            Kind::Condition { branches, default } => {
                branches.iter().filter_map(|branch| branch.next).chain(*default).collect()
            }
            _ => self.next.into_iter().collect(),
        }
    }
}

impl Kind {
    /// The word for it in definitions.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Condition { .. } => "condition",
            Self::Code(_) => "code",
            Self::Http(_) => "http",
            Self::App { .. } => "app",
            Self::Wait { .. } => "wait",
            Self::Output(_) => "output",
            Self::Note => "note",
        }
    }

    /// All templates in it, each with its place within the step, in the order they are filled in.
    #[must_use]
    pub fn templates(&self) -> Vec<(String, &Template)> {
        match self {
            Self::Input(_) | Self::Code(_) | Self::Note => Vec::new(),
            Self::Condition { branches, .. } => branches
                .iter()
                .enumerate()
                .map(|(index, branch)| (format!("branches[{index}].when"), &branch.when))
                .collect(),
            Self::Http(http) => {
                [("url", &http.url), ("headers", &http.headers), ("query", &http.query)]
                    .into_iter()
                    .chain(http.body.as_ref().map(|body| ("body", body)))
                    .map(|(field, template)| (field.to_owned(), template))
                    .collect()
            }
            Self::App { parameters, .. } => vec![("parameters".to_owned(), parameters)],
            Self::Wait { duration, .. } => vec![("duration".to_owned(), duration)],
            Self::Output(fields) => fields
                .iter()
                .map(|field| (format!("fields.{}", field.name), &field.value))
                .collect(),
        }
    }
}
