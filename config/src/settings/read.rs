//! Takes located values by name, remembers what was asked for, and refuses what was not.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use super::fault::{Origin, SettingsError};
use super::source::{Kind, Source, Table};
use super::value::FromValue;

/// Hands out sections; whatever nobody took is an unknown name.
#[derive(Debug)]
pub(super) struct Reader {
    source: Source,
    sections: Vec<&'static str>,
    /// Every key that was asked for, with the place it was written at.
    pub(super) keys: BTreeMap<String, Origin>,
    errors: Vec<SettingsError>,
}

impl Reader {
    pub(super) fn new(source: Source) -> Self {
        Self { source, sections: Vec::new(), keys: BTreeMap::new(), errors: Vec::new() }
    }

    /// Reads one section with `read`, then refuses the keys it did not take.
    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        self.sections.push(name);
        let values = match self.source.sections.remove(name) {
            None => Table::new(),
            Some(value) => match value.kind {
                Kind::Table(table) => table,
                _ => {
                    let message = format!("is a section: write [{name}] on a line of its own");
                    let key = name.to_owned();
                    self.errors.push(SettingsError { origin: value.origin, key, message });
                    Table::new()
                }
            },
        };
        let mut section = Section { name, values, known: Vec::new(), reader: self };
        let settings = read(&mut section);
        section.refuse_the_rest();
        settings
    }

    /// Records that the setting `key` breaks a rule.
    pub(super) fn fault(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.keys.get(key).cloned().unwrap_or(Origin::Unwritten);
        self.errors.push(SettingsError { origin, key: key.to_owned(), message: message.into() });
    }

    /// All faults, unknown sections included.
    pub(super) fn finish(mut self) -> Vec<SettingsError> {
        for (name, value) in std::mem::take(&mut self.source.sections) {
            let message = unknown("section", &name, &self.sections);
            self.errors.push(SettingsError { origin: value.origin, key: name, message });
        }
        self.errors
    }
}

/// One section being read.
pub(super) struct Section<'a> {
    name: &'static str,
    values: Table,
    known: Vec<&'static str>,
    reader: &'a mut Reader,
}

impl Section<'_> {
    /// The value of `key`, or `default` when it was not written or cannot be read.
    pub(super) fn take<T: FromValue>(&mut self, key: &'static str, default: T) -> T {
        self.known.push(key);
        let path = format!("{}.{key}", self.name);
        let Some(value) = self.values.remove(key) else {
            self.reader.keys.insert(path, Origin::Unwritten);
            return default;
        };
        self.reader.keys.insert(path.clone(), value.origin.clone());
        match T::from_value(&value) {
            Ok(settled) => settled,
            Err(wrongs) => {
                let faults = wrongs.into_iter().map(|wrong| SettingsError {
                    origin: wrong.origin,
                    key: path.clone(),
                    message: wrong.message,
                });
                self.reader.errors.extend(faults);
                default
            }
        }
    }

    /// As [`Section::take`], refusing what lies outside `range`.
    pub(super) fn take_within<T>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T
    where
        T: FromValue + PartialOrd + Display,
    {
        let value = self.take(key, default);
        if !range.contains(&value) {
            let (low, high) = (range.start(), range.end());
            let message = format!("{value} is out of range: {low} to {high}");
            self.reader.fault(&format!("{}.{key}", self.name), message);
        }
        value
    }

    fn refuse_the_rest(mut self) {
        for (key, value) in std::mem::take(&mut self.values) {
            let message = unknown("key", &key, &self.known);
            let key = format!("{}.{key}", self.name);
            self.reader.errors.push(SettingsError { origin: value.origin, key, message });
        }
    }
}

/// "unknown key; did you mean `x`?", or the list of what there is.
fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (distance(name, k), *k)).min();
    match nearest {
        Some((far, best)) if far <= best.len().div_ceil(3) => {
            format!("unknown {what}; did you mean {best}?")
        }
        _ => format!("unknown {what}; there are {}", known.join(", ")),
    }
}

/// Levenshtein distance: the fewest single-letter edits between two words.
fn distance(a: &str, b: &str) -> usize {
    let letters: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=letters.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (y, &up) in letters.iter().zip(row.iter().skip(1)) {
            left = (corner + usize::from(x != *y)).min(up + 1).min(left + 1);
            corner = up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
