//! First stage: the file and the environment as located values, without meaning.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Origin, SettingsError};

/// The prefix of environment variables that are settings.
const PREFIX: &str = "TRUNKLINE_";

/// A value and the place it stands at.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) origin: Origin,
}

/// What was written, before anyone asks what was meant.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A quoted string of the file.
    Text(String),
    /// The text of an environment variable: any type, lists separated by commas.
    Loose(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Value>),
    Table(Table),
    /// A TOML type that no setting has; holds its name.
    Foreign(&'static str),
}

/// Keys of one table, each with the place of the key.
pub(super) type Table = BTreeMap<String, Value>;

/// Sections of the merged source.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) sections: BTreeMap<String, Value>,
}

impl Source {
    /// Parses `text` and lays the environment over it; all syntax faults are returned together.
    pub(super) fn read(
        text: &str,
        name: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Vec<SettingsError>) {
        let places = Places { text, name };
        let (table, faults) = DeTable::parse_recoverable(text);
        let errors = faults.iter().map(|fault| places.syntax_error(fault)).collect();
        let mut source = Self { sections: places.table(table.get_ref()) };
        for (variable, value) in env {
            source.overlay(variable, value);
        }
        (source, errors)
    }

    fn overlay(&mut self, variable: String, text: String) {
        let Some((section, key)) = variable.strip_prefix(PREFIX).and_then(|v| v.split_once("__"))
        else {
            return;
        };
        let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        let origin = Origin::Variable(variable);
        let value = Value { kind: Kind::Loose(text), origin: origin.clone() };
        let holder = self
            .sections
            .entry(section)
            .or_insert_with(|| Value { kind: Kind::Table(Table::new()), origin });
        if let Kind::Table(keys) = &mut holder.kind {
            keys.insert(key, value);
        }
    }
}

/// Turns byte offsets of the text into lines and columns.
struct Places<'a> {
    text: &'a str,
    name: &'a str,
}

impl Places<'_> {
    fn at(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Origin::File { name: self.name.to_owned(), line, column }
    }

    fn syntax_error(&self, fault: &toml::de::Error) -> SettingsError {
        let origin = fault.span().map_or(Origin::Unwritten, |span| self.at(span.start));
        SettingsError { origin, key: String::new(), message: fault.message().to_owned() }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let mut value = self.value(value);
                // A section is best pointed at by its name, a scalar by its value.
                if matches!(value.kind, Kind::Table(_)) {
                    value.origin = self.at(key.span().start);
                }
                (key.get_ref().to_string(), value)
            })
            .collect()
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Kind::Foreign("integer beyond 64 bits"), Kind::Integer),
            DeValue::Boolean(truth) => Kind::Boolean(*truth),
            DeValue::Array(items) => {
                Kind::List(items.iter().map(|item| self.value(item)).collect())
            }
            DeValue::Table(table) => Kind::Table(self.table(table)),
            DeValue::Float(_) => Kind::Foreign("float"),
            DeValue::Datetime(_) => Kind::Foreign("date"),
        };
        Value { kind, origin: self.at(value.span().start) }
    }
}
