//! YAML and JSON files as JSON values that know their lines.
//!
//! The YAML is 1.2 with one difference that spares people a trap: a plain scalar is a number only when
//! JSON would write it so. `+15550100100` and `0049` are texts, so that phone numbers need no quotes.
//! Anchors and aliases are followed, tags are refused; keys are texts and may not be given twice.
//! Depth and size are bounded.
//!
//! `${NAME}` (capital letters, digits, `_`) stands for an environment variable, anywhere in a text;
//! `$${NAME}` stands for itself. Anything else after `$` is left alone: workflows use it.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Number, Value};

/// Levels of nesting that are read.
const DEPTH: usize = 64;

/// Values of one file that are read, aliases counted as often as they are used.
const NODES: usize = 200_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its line, from 1.
    pub(crate) line: usize,
    /// Whether a text of it came from the environment, and so may be a secret.
    pub(crate) from_environment: bool,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    /// `trunks[0].inbound_config`; empty when it is about the text itself.
    pub(crate) path: String,
    pub(crate) why: String,
}

impl Fault {
    pub(crate) fn new(line: usize, path: &str, why: impl Into<String>) -> Self {
        Self { line, path: path.to_owned(), why: why.into() }
    }

    /// `site.yaml:12: trunks[0].name: must not be empty`.
    pub(crate) fn in_file(&self, name: &str) -> String {
        let colon = if self.path.is_empty() { "" } else { ": " };
        format!("{name}:{}: {}{colon}{}", self.line, self.path, self.why)
    }
}

/// The documents of a text, in order; a text without any is an empty list.
///
/// # Errors
/// The first place that cannot be read.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Fault> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: NODES };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(_), _) => {
                reader.anchors.clear();
                let first = reader.next()?;
                let node = reader.node(first, DEPTH)?;
                documents.push(node);
            }
            _ => {}
        }
    }
}

/// The environment, as `${NAME}` sees it.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    /// Values that may still come.
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Span::empty(Marker::default()))),
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Fault> {
        let line = span.start.line();
        let fault = |why: &str| Fault::new(line, "", why);
        let Some(depth) = depth.checked_sub(1) else {
            return Err(fault("is nested too deeply"));
        };
        self.spend(1, line)?;
        let (kind, anchor) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(fault("is an alias of itself"));
                };
                self.spend(count(&node), line)?;
                return Ok(node);
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => return Err(fault("tags are not read")),
            Event::Scalar(text, style, anchor, None) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, None) => (Kind::List(self.list(depth)?), anchor),
            Event::MappingStart(anchor, None) => (Kind::Map(self.map(depth)?), anchor),
            _ => return Err(fault("cannot be read")),
        };
        let node = Node { line, from_environment: false, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                event => items.push(self.node(event, depth)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fault> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (name, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(name, _, 0, None), span) => (name.into_owned(), span),
                (_, span) => return Err(Fault::new(span.start.line(), "", "a key must be a text")),
            };
            let line = span.start.line();
            if entries.iter().any(|(key, _)| key.name == name) {
                return Err(Fault::new(line, &name, "is given twice"));
            }
            let value = self.next()?;
            let node = self.node(value, depth)?;
            entries.push((Key { name, line }, node));
        }
    }

    fn spend(&mut self, nodes: usize, line: usize) -> Result<(), Fault> {
        let left = self.nodes.checked_sub(nodes);
        self.nodes = left.ok_or_else(|| Fault::new(line, "", "the file holds too many values"))?;
        Ok(())
    }
}

fn syntax(error: &ScanError) -> Fault {
    Fault::new(error.marker().line(), "", error.info())
}

/// The values in a value, itself left out.
fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => items.iter().map(|item| 1 + count(item)).sum(),
        Kind::Map(entries) => entries.iter().map(|(_, value)| 1 + count(value)).sum(),
        _ => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => match serde_json::from_str::<Number>(text) {
            Ok(number) => Kind::Number(number),
            Err(_) => Kind::Text(text.to_owned()),
        },
    }
}

impl Node {
    /// The value as JSON.
    pub(crate) fn json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::json).collect()),
            Kind::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| (key.name.clone(), node.json()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => {
                entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    /// The line of the place `path` leads to, or of the last part of it that exists.
    pub(crate) fn line_of(&self, path: &[Value]) -> usize {
        let Some((first, rest)) = path.split_first() else { return self.line };
        match (&self.kind, first) {
            (Kind::Map(entries), Value::String(name)) => {
                let entry = entries.iter().find(|(key, _)| key.name == *name);
                entry.map_or(self.line, |(key, node)| match rest {
                    [] => key.line,
                    _ => node.line_of(rest),
                })
            }
            (Kind::List(items), Value::Number(index)) => {
                let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
                let item = index.and_then(|index| items.get(index));
                item.map_or(self.line, |item| item.line_of(rest))
            }
            _ => self.line,
        }
    }

    /// Puts the environment's values in the place of each `${NAME}`.
    ///
    /// # Errors
    /// Every reference to a variable that is not there.
    pub(crate) fn fill(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Vec<Fault>> {
        let mut faults = Vec::new();
        self.fill_at("", environment, &mut faults);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn fill_at(
        &mut self,
        path: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        faults: &mut Vec<Fault>,
    ) {
        match &mut self.kind {
            Kind::Text(text) => match substitute(text, environment) {
                Ok(None) => {}
                Ok(Some((filled, from_environment))) => {
                    *text = filled;
                    self.from_environment = from_environment;
                }
                Err(name) => {
                    let why = format!("the environment variable {name} is not set");
                    faults.push(Fault::new(self.line, path, why));
                }
            },
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.fill_at(&format!("{path}[{index}]"), environment, faults);
                }
            }
            Kind::Map(entries) => {
                for (key, node) in entries {
                    node.fill_at(&joined(path, &key.name), environment, faults);
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => {}
        }
    }
}

/// A path and a key below it.
pub(crate) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The text with its references filled in, and whether there was any; `None` when nothing changes.
fn substitute(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(String, bool)>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let (mut filled, mut found, mut rest) = (String::with_capacity(text.len()), false, text);
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        let inner = reference.strip_prefix("${").unwrap_or_default();
        let name = inner.split('}').next().filter(|name| is_name(name) && name.len() < inner.len());
        let Some(name) = name else {
            filled.push_str(before);
            filled.push_str("${");
            rest = inner;
            continue;
        };
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = inner;
            continue;
        }
        filled.push_str(before);
        filled.push_str(&environment(name).ok_or_else(|| name.to_owned())?);
        found = true;
        rest = inner.get(name.len() + 1..).unwrap_or_default();
    }
    filled.push_str(rest);
    Ok(Some((filled, found)))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Value {
        let documents = parse(text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents[0].json()
    }

    #[test]
    fn phone_numbers_need_no_quotes() {
        let read = one("a: +15550100100\nb: 0049\nc: 49\nd: -1.5e3\ne: '7'\nf: 1_000\ng: .inf\n");
        let whole = json!({
            "a": "+15550100100", "b": "0049", "c": 49, "d": -1500.0, "e": "7", "f": "1_000", "g": ".inf",
        });
        assert_eq!(read, whole);
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"a": [1, 2.5, true, null, "x\ny"], "b": {}}"#;
        assert_eq!(one(text), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn one_text_holds_several_documents_or_none() {
        assert_eq!(parse("a: 1\n---\nb: 2\n---\n").unwrap().len(), 3);
        assert!(parse("").unwrap().is_empty());
        assert!(parse("# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn anchors_are_followed_but_not_into_an_explosion() {
        assert_eq!(one("a: &x {k: 1}\nb: *x\n"), json!({"a": {"k": 1}, "b": {"k": 1}}));
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..8 {
            let before = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(",")));
        }
        assert!(parse(&bomb).unwrap_err().why.contains("too many"));
        assert!(parse("a: &x [*x]\n").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let line = |text: &str| parse(text).unwrap_err().line;
        assert_eq!(line("a: 1\nb: 2\na: 3\n"), 3);
        assert_eq!(line("a: 1\n? [1]\n: 2\n"), 2);
        assert_eq!(line("a: !!binary x\n"), 1);
        assert_eq!(line("a: [1\nb: 2\n"), 2);
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn places_are_found_again() {
        let node = &parse("name: x\nlist:\n  - a: 1\n  - b: 2\n    c: 3\n").unwrap()[0];
        assert_eq!(node.line_of(&[json!("name")]), 1);
        assert_eq!(node.line_of(&[json!("list"), json!(1), json!("c")]), 5);
        assert_eq!(node.line_of(&[json!("list"), json!(1), json!("missing")]), 4);
    }

    #[test]
    fn the_environment_fills_in_what_is_named_and_nothing_else() {
        let environment = |name: &str| (name == "SECRET").then(|| "s3".to_owned());
        let fill = |text: &str| {
            let mut node = parse(&format!("- '{text}'")).unwrap().remove(0);
            node.fill(&environment).map(|()| node.json()[0].as_str().unwrap().to_owned())
        };
        assert_eq!(fill("${SECRET}").unwrap(), "s3");
        assert_eq!(fill("a ${SECRET} b ${SECRET}").unwrap(), "a s3 b s3");
        assert_eq!(fill("$${SECRET}").unwrap(), "${SECRET}");
        for kept in ["${ Summarise {{ input }} }", "${}", "${lower}", "$SECRET", "${SECRET", "$"] {
            assert_eq!(fill(kept).unwrap(), kept);
        }
        let faults = fill("${ABSENT}").unwrap_err();
        assert_eq!(faults[0].in_file("f"), "f:1: [0]: the environment variable ABSENT is not set");
    }
}
