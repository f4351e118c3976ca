//! JSONata, with its own limits of time and depth.

use std::collections::HashMap;
use std::time::Duration;

use jsonata_core::Expression;
use jsonata_core::evaluator::EvaluatorOptions;
use jsonata_core::parser;
use jsonata_core::value::JValue;
use serde_json::Value;

use crate::workflow::value;

/// Compiled expressions that are kept; then all are forgotten, which costs microseconds each.
const KEPT: usize = 1_024;

/// How deep an evaluation may nest.
const MAX_DEPTH: usize = 1_000;

/// How long a sequence may become.
const MAX_SEQUENCE: usize = 100_000;

/// Characters of an expression that an error message shows.
const SHOWN_CHARACTERS: usize = 80;

/// Reads a context, and puts steps under their names as well.
pub(super) fn context(text: &[u8], names: &[(String, String)]) -> Result<JValue, String> {
    let mut context: JValue =
        serde_json::from_slice(text).map_err(|_| "the context cannot be read".to_owned())?;
    if let Some(fields) = context.as_object_mut() {
        for (name, id) in names {
            if let Some(output) = fields.get(id).cloned() {
                fields.insert(name.clone(), output);
            }
        }
    }
    Ok(context)
}

/// What is wrong with an expression, if anything is.
pub(super) fn fault(source: &str) -> Option<String> {
    parser::parse(source).err().map(|error| error.to_string())
}

/// Expressions that were compiled.
#[derive(Default)]
pub(super) struct Expressions(HashMap<String, Expression>);

impl Expressions {
    /// Evaluates one after the other, on request only up to the first that is true.
    pub(super) fn evaluate(
        &mut self,
        sources: &[String],
        until_true: bool,
        (context, limit): (&JValue, Duration),
    ) -> Result<Vec<Value>, String> {
        let mut values = Vec::with_capacity(sources.len());
        for source in sources {
            let value = self.one(source, context, limit)?;
            let done = until_true && value::is_true(&value);
            values.push(value);
            if done {
                break;
            }
        }
        Ok(values)
    }

    fn one(&mut self, source: &str, context: &JValue, limit: Duration) -> Result<Value, String> {
        let told = |why: &str| format!("{{{{ {} }}}}: {why}", value::cut(source, SHOWN_CHARACTERS));
        if !self.0.contains_key(source) {
            if self.0.len() >= KEPT {
                self.0.clear();
            }
            let compiled = Expression::compile(source).map_err(|error| told(&error.to_string()))?;
            self.0.insert(source.to_owned(), compiled);
        }
        let expression = self.0.get(source).ok_or_else(|| told("was not compiled"))?;
        let options = EvaluatorOptions {
            timeout_ms: Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            max_stack_depth: Some(MAX_DEPTH),
            max_sequence_length: Some(MAX_SEQUENCE),
            ..EvaluatorOptions::default()
        };
        let value = expression
            .evaluate_with_options(context, options)
            .map_err(|error| told(error.message()))?;
        if value.is_undefined() {
            return Ok(Value::Null);
        }
        if value.is_function() {
            return Err(told("is a function, not a value"));
        }
        serde_json::to_value(&value).map_err(|_| told("is no JSON value"))
    }
}
