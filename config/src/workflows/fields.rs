//! Reading an object field by field, and telling what does not fit.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::Fault;
use super::template::Template;
use crate::limits::{Limit, WORKFLOW_EXPRESSION_BYTES};

/// Which step has which id.
pub(super) struct Targets(pub(super) HashMap<String, usize>);

/// An object being read. What is not asked for is refused at the end.
pub(super) struct Fields<'v, 'f> {
    object: &'v Map<String, Value>,
    place: String,
    asked: Vec<&'static str>,
    faults: &'f mut Vec<Fault>,
}

impl<'v, 'f> Fields<'v, 'f> {
    pub(super) fn new(
        object: &'v Map<String, Value>,
        place: String,
        faults: &'f mut Vec<Fault>,
    ) -> Self {
        Self { object, place, asked: Vec::new(), faults }
    }

    pub(super) fn fault(&mut self, field: &str, message: impl Into<String>) {
        let place = match (self.place.is_empty(), field.is_empty()) {
            (true, _) => field.to_owned(),
            (false, true) => self.place.clone(),
            (false, false) => format!("{}.{field}", self.place),
        };
        self.faults.push(Fault::new(place, message));
    }

    /// An object below this one, whose faults are told at its place.
    pub(super) fn within(&mut self, object: &'v Map<String, Value>, place: &str) -> Fields<'v, '_> {
        Fields::new(object, format!("{}.{place}", self.place), self.faults)
    }

    /// Names that may be there and mean nothing here.
    pub(super) fn ignore(&mut self, names: &[&'static str]) {
        self.asked.extend(names);
    }

    /// Any value but null.
    pub(super) fn value(&mut self, name: &'static str) -> Option<&'v Value> {
        self.asked.push(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<&'v str> {
        let value = self.value(name)?;
        if !value.is_string() {
            self.fault(name, "must be a string");
        }
        value.as_str()
    }

    pub(super) fn required_text(&mut self, name: &'static str) -> Option<&'v str> {
        let there = self.object.get(name).is_some_and(|value| !value.is_null());
        let text = self.text(name).filter(|text| !text.is_empty());
        if !there || (text.is_none() && self.object.get(name).is_some_and(Value::is_string)) {
            self.fault(name, "is missing or empty");
        }
        text
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        match self.value(name) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.fault(name, "must be true or false");
                false
            }
        }
    }

    pub(super) fn whole(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(name)?;
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = range.into_inner();
            self.fault(name, format!("must be a whole number from {low} to {high}"));
        }
        number
    }

    /// A list that may be absent.
    pub(super) fn list(&mut self, name: &'static str, most: Limit) -> &'v [Value] {
        match self.value(name) {
            None => &[],
            Some(Value::Array(items)) if items.len() <= most.value_usize() => items,
            Some(Value::Array(_)) => {
                self.fault(name, format!("must have at most {} entries", most.value));
                &[]
            }
            Some(_) => {
                self.fault(name, "must be an array");
                &[]
            }
        }
    }

    /// A value in which expressions may stand.
    pub(super) fn template(&mut self, name: &'static str) -> Option<Template> {
        let value = self.value(name)?;
        self.parse(name, value)
    }

    /// The same for a value that was found in some other way, at a place below this object.
    pub(super) fn parse(&mut self, place: &str, value: &Value) -> Option<Template> {
        let template = match Template::parse(value) {
            Ok(template) => template,
            Err((below, why)) => {
                self.fault(&format!("{place}{below}"), why);
                return None;
            }
        };
        let longest = WORKFLOW_EXPRESSION_BYTES.value_usize();
        if template.expressions().iter().any(|source| source.len() > longest) {
            self.fault(place, format!("has an expression of more than {longest} bytes"));
        }
        Some(template)
    }

    /// The index of the step that a field names by its id.
    pub(super) fn target(&mut self, name: &'static str, targets: &Targets) -> Option<usize> {
        let id = self.text(name)?;
        let found = targets.0.get(id).copied();
        if found.is_none() {
            self.fault(name, "names no step");
        }
        found
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(&mut self) {
        let unknown = self.object.keys().filter(|key| !self.asked.contains(&key.as_str()));
        for key in unknown.cloned().collect::<Vec<_>>() {
            self.fault(&key, "is not a field that is known here");
        }
    }
}
