//! What `*` stands for: the columns that a table had when the store was opened.
//!
//! A newer node adds columns while this one runs. A statement that was prepared for all columns would then
//! return more than it was prepared for: PostgreSQL refuses to run it ("cached plan must not change result
//! type"), and the SQLite driver's connection dies of it. With the columns named nothing changes, and
//! statements stay prepared.

use std::borrow::Cow;
use std::collections::HashMap;

/// The names of the columns of each table, in their order.
#[derive(Debug, Default)]
pub(super) struct Columns(HashMap<String, Vec<String>>);

impl FromIterator<(String, String)> for Columns {
    /// From tables and columns, a pair for each column.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut tables: HashMap<String, Vec<String>> = HashMap::new();
        for (table, column) in pairs {
            tables.entry(table).or_default().push(column);
        }
        Self(tables)
    }
}

impl Columns {
    /// The text with its `SELECT *` and `alias.*` spelled out. What is not a table of ours stays.
    pub(super) fn named<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        if !sql.contains("SELECT *") && !sql.contains(".*") {
            return Cow::Borrowed(sql);
        }
        let words: Vec<&str> = sql.split_whitespace().collect();
        let mut out = String::with_capacity(sql.len().saturating_mul(4));
        let mut previous = "";
        for chunk in sql.split_inclusive(char::is_whitespace) {
            let word = chunk.trim_end();
            let all = word.trim_end_matches(',');
            let list = match all.strip_suffix('*') {
                Some("") if previous == "SELECT" => self.list(&words, None),
                Some(owner) => owner.strip_suffix('.').and_then(|t| self.list(&words, Some(t))),
                None => None,
            };
            match list {
                Some(list) => {
                    out.push_str(&list);
                    out.push_str(chunk.strip_prefix(all).unwrap_or_default());
                }
                None => out.push_str(chunk),
            }
            previous = if word.is_empty() { previous } else { word };
        }
        Cow::Owned(out)
    }

    /// The columns of the first table that is read, or of the one with this alias.
    fn list(&self, words: &[&str], alias: Option<&str>) -> Option<String> {
        let mut froms =
            words.iter().zip(words.iter().skip(1)).zip(words.iter().skip(2).chain([&""]));
        let ((_, table), _) = froms.find(|((before, _), after)| match alias {
            None => **before == "FROM",
            Some(alias) => matches!(**before, "FROM" | "JOIN") && **after == alias,
        })?;
        let owner = alias.map(|alias| format!("{alias}.")).unwrap_or_default();
        let columns = self.0.get(*table)?.iter().map(|column| format!("{owner}\"{column}\""));
        Some(columns.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sql: &str) -> String {
        let pairs = [("calls", "id"), ("calls", "from"), ("agents", "id")];
        let pairs = pairs.map(|(table, column)| (table.to_owned(), column.to_owned()));
        Columns::from_iter(pairs).named(sql).into_owned()
    }

    #[test]
    fn all_columns_are_named_in_their_order() {
        assert_eq!(named("SELECT * FROM calls"), r#"SELECT "id", "from" FROM calls"#);
        assert_eq!(
            named("SELECT t.*, a.name\n FROM calls t LEFT JOIN agents a ON TRUE"),
            "SELECT t.\"id\", t.\"from\", a.name\n FROM calls t LEFT JOIN agents a ON TRUE"
        );
        assert_eq!(
            named("SELECT t.*, (SELECT max(id) FROM calls v) FROM agents t"),
            r#"SELECT t."id", (SELECT max(id) FROM calls v) FROM agents t"#
        );
    }

    #[test]
    fn what_is_no_table_or_no_list_of_columns_stays() {
        for sql in ["SELECT * FROM tree", "SELECT count(*), 2 * id FROM calls", "SELECT x.* FROM y"]
        {
            assert_eq!(named(sql), sql);
        }
    }
}
