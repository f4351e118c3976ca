//! Reads the fields of one object of a file, and complains of those it does not know.

use serde_json::Value;

use crate::client::yaml::{Fault, Kind, Node, joined};

/// Where complaints go: each is finished with its file and line.
#[derive(Debug)]
pub(super) struct Faults {
    /// The file that is being read.
    pub(super) file: String,
    pub(super) all: Vec<String>,
}

impl Faults {
    pub(super) fn add(&mut self, line: usize, path: &str, why: impl Into<String>) {
        self.all.push(Fault::new(line, path, why).in_file(&self.file));
    }

    pub(super) fn extend(&mut self, faults: Vec<Fault>) {
        self.all.extend(faults.iter().map(|fault| fault.in_file(&self.file)));
    }
}

/// One object being read.
pub(super) struct Fields<'a> {
    node: &'a Node,
    path: String,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of an object; anything else is a fault.
    pub(super) fn of(node: &'a Node, path: &str, faults: &mut Faults) -> Option<Self> {
        if !matches!(node.kind, Kind::Map(_)) {
            faults.add(node.line, path, "must be an object");
            return None;
        }
        Some(Self { node, path: path.to_owned(), known: Vec::new() })
    }

    /// The field as it stands, `null` included.
    pub(super) fn any(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        self.node.get(name)
    }

    /// The path of a field.
    pub(super) fn path(&self, name: &str) -> String {
        joined(&self.path, name)
    }

    /// A text that must be there and must not be empty.
    pub(super) fn name(&mut self, name: &'static str, faults: &mut Faults) -> String {
        let text = self.text(name, faults).unwrap_or_default();
        if text.trim().is_empty() && self.node.get(name).is_none_or(is_text) {
            let line = self.node.line_of(&[Value::from(name)]);
            faults.add(line, &self.path(name), "is needed");
        }
        text
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str, faults: &mut Faults) -> Option<String> {
        match &self.any(name)?.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Null => None,
            _ => self.wrong(name, "must be a text; put it in quotes", faults),
        }
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, name: &'static str, faults: &mut Faults) -> Option<bool> {
        match self.any(name)?.kind {
            Kind::Bool(value) => Some(value),
            Kind::Null => None,
            _ => self.wrong(name, "must be true or false", faults),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &'static str, faults: &mut Faults) -> Option<Vec<String>> {
        let list = match &self.any(name)?.kind {
            Kind::List(items) => items,
            Kind::Null => return None,
            _ => return self.wrong(name, "must be a list", faults),
        };
        let mut texts = Vec::new();
        for (index, item) in list.iter().enumerate() {
            match &item.kind {
                Kind::Text(text) => texts.push(text.clone()),
                _ => {
                    let path = format!("{}[{index}]", self.path(name));
                    faults.add(item.line, &path, "must be a text; put it in quotes");
                }
            }
        }
        Some(texts)
    }

    /// Complains of every field that nobody asked for.
    pub(super) fn finish(self, faults: &mut Faults) {
        let Kind::Map(entries) = &self.node.kind else { return };
        for (key, _) in entries.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str())) {
            let known = self.known.join(", ");
            faults.add(
                key.line,
                &self.path(&key.name),
                format!("unknown field; known are {known}"),
            );
        }
    }

    fn wrong<T>(&self, name: &'static str, why: &str, faults: &mut Faults) -> Option<T> {
        let line = self.node.line_of(&[Value::from(name)]);
        faults.add(line, &self.path(name), why);
        None
    }
}

const fn is_text(node: &Node) -> bool {
    matches!(node.kind, Kind::Text(_) | Kind::Null)
}
