//! What is shown: aligned tables for people, JSON for scripts.

use std::fmt::Write as _;

use serde_json::Value;

use crate::run::{say, say_error};
use crate::terminal::Style;

/// The longest text of a column but the last, in characters.
const WIDEST: usize = 48;

/// Where results go.
pub(crate) struct Shown {
    json: bool,
    style: Style,
}

/// One column of a table: its heading, and what it says about an item.
pub(crate) type Column = (&'static str, fn(&Value) -> String);

impl Shown {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, style: Style::of_stdout() }
    }

    /// Whether scripts read this.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// A list as a table, or as an array; an empty one says so.
    pub(crate) fn list(&self, noun: &str, columns: &[Column], items: &[Value], more: bool) {
        if self.json {
            self.raw(&Value::Array(items.to_vec()));
        } else if items.is_empty() {
            say(&format!("No {noun}.\n"));
        } else {
            say(&table(columns, items, &self.style));
        }
        if more {
            let shown = items.len();
            say_error(&format!("These are the newest {shown}; --all shows the rest.\n"));
        }
    }

    /// One thing: a line for each of its fields, or an object.
    pub(crate) fn one(&self, thing: &Value) {
        if self.json {
            self.raw(thing);
        } else {
            say(&fields(thing, &self.style));
        }
    }

    /// A sentence for people; scripts get `thing`.
    pub(crate) fn done(&self, sentence: &str, thing: &Value) {
        if self.json {
            self.raw(thing);
        } else {
            say(&format!("{}\n", printable(sentence)));
        }
    }

    /// An empty line between two tables.
    pub(crate) fn gap(&self) {
        if !self.json {
            say("\n");
        }
    }

    /// A line for people beside the result, on standard error.
    #[expect(clippy::unused_self, reason = "everything that is shown goes through here")]
    pub(crate) fn aside(&self, line: &str) {
        say_error(&format!("{}\n", printable(line)));
    }

    /// JSON, whoever reads it.
    #[expect(clippy::unused_self, reason = "everything that is shown goes through here")]
    pub(crate) fn raw(&self, value: &Value) {
        say(&format!("{value:#}\n"));
    }
}

fn table(columns: &[Column], items: &[Value], style: &Style) -> String {
    let cell = |(_, value): &Column, item: &Value| printable(&value(item)).replace('\n', "\\n");
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| columns.iter().map(|column| cell(column, item)).collect())
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, (heading, _))| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|text| text.chars().count()).max().unwrap_or(0);
            widest.min(WIDEST).max(heading.len())
        })
        .collect();
    let headings: Vec<String> = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let mut text = format!("{}{}{}\n", style.bold, line(&headings, &widths), style.off);
    for row in &rows {
        text.push_str(&line(row, &widths));
        text.push('\n');
    }
    text
}

/// Cells side by side; the last one is as long as it is.
fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if index + 1 == cells.len() {
            text.push_str(cell);
        } else {
            let cell = shortened(cell, *width);
            let _ = write!(text, "{cell:<width$}  ");
        }
    }
    text.trim_end().to_owned()
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Field by field, objects indented below their name.
fn fields(thing: &Value, style: &Style) -> String {
    let mut text = String::new();
    let mut lines = Vec::new();
    collect(thing, 0, &mut lines);
    let widest = lines.iter().map(|(depth, name, _)| depth * 2 + name.chars().count()).max();
    let widest = widest.unwrap_or(0);
    for (depth, name, value) in lines {
        let label = format!("{:indent$}{name}", "", indent = depth * 2);
        let Some(value) = value else {
            let _ = writeln!(text, "{}{label}{}", style.dim, style.off);
            continue;
        };
        // A text of several lines stays in its column, so that it cannot pass for other fields.
        let next_line = format!("\n{:1$}", "", widest + 2);
        let value = value.replace('\n', &next_line);
        let _ = writeln!(text, "{}{label:<widest$}{}  {value}", style.dim, style.off);
    }
    text
}

type Line = (usize, String, Option<String>);

fn collect(thing: &Value, depth: usize, lines: &mut Vec<Line>) {
    let Value::Object(entries) = thing else {
        lines.push((depth, String::new(), Some(printable(&plain(thing)))));
        return;
    };
    for (name, value) in entries {
        let name = printable(name);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                lines.push((depth, name, None));
                collect(value, depth + 1, lines);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (index, item) in items.iter().enumerate() {
                    lines.push((depth, format!("{name}[{index}]"), None));
                    collect(item, depth + 1, lines);
                }
            }
            _ => lines.push((depth, name, Some(printable(&plain(value))))),
        }
    }
}

/// A value as a person writes it: texts without quotes, nothing as a dash.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A field of an item, by its path (`inbound_config.auth_username`).
pub(crate) fn field(item: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(item, |at, name| at.get(name));
    found.map_or_else(|| "-".to_owned(), plain)
}

/// A moment without its fractions of a second.
pub(crate) fn moment(item: &Value, name: &str) -> String {
    let text = field(item, name);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// Text without what steers a terminal or turns the reading direction.
pub(crate) fn printable(text: &str) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { clean.extend(c.escape_unicode()) } else { clean.push(c) }
    }
    clean
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAME_AND_SIZE: &[Column] =
        &[("NAME", |item| field(item, "name")), ("SIZE", |item| field(item, "size"))];

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let items = [json!({"name": "a", "size": 1}), json!({"name": "längster", "size": null})];
        assert_eq!(
            table(NAME_AND_SIZE, &items, &Style::PLAIN),
            "NAME      SIZE\na         1\nlängster  -\n"
        );
    }

    #[test]
    fn a_long_name_does_not_push_the_other_columns_away() {
        let items = [json!({"name": "x".repeat(500), "size": 1})];
        let text = table(NAME_AND_SIZE, &items, &Style::PLAIN);
        assert!(text.lines().all(|line| line.chars().count() < 60), "{text}");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal_nor_break_a_row() {
        let items = [json!({"name": "\u{1b}[31mred\u{202e}", "size": "a\r\nb"})];
        let text = table(NAME_AND_SIZE, &items, &Style::PLAIN);
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text:?}");
        assert!(text.contains("\\u{1b}[31mred"), "{text:?}");
        assert_eq!(text.lines().count(), 2, "{text:?}");
    }

    #[test]
    fn one_thing_is_shown_field_by_field() {
        let thing = json!({
            "name": "PBX",
            "inbound_config": {"allowed_addresses": ["192.0.2.1", "192.0.2.2"], "auth_username": null},
            "versions": [{"version": 2}],
        });
        assert_eq!(
            fields(&thing, &Style::PLAIN),
            "name                 PBX\n\
             inbound_config\n\
             \u{20}\u{20}allowed_addresses  192.0.2.1, 192.0.2.2\n\
             \u{20}\u{20}auth_username      -\n\
             versions[0]\n\
             \u{20}\u{20}version            2\n"
        );
    }

    #[test]
    fn moments_are_told_to_the_second() {
        let item = json!({"at": "2026-11-22T12:00:00.123456Z", "never": null});
        assert_eq!(moment(&item, "at"), "2026-11-22T12:00:00Z");
        assert_eq!(moment(&item, "never"), "-");
    }
}
