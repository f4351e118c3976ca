//! What is wrong with a settings file, and where.

use std::fmt::{self, Write as _};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in the settings file; line and column count from one, columns in characters.
    File {
        /// The file's name as it was given.
        name: String,
        /// Line, from one.
        line: usize,
        /// Column in characters, from one.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// Nobody wrote it: the default, or the whole file.
    Unwritten,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Unwritten => f.write_str("settings"),
        }
    }
}

/// One fault: where it stands, which setting it concerns, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// Where the faulty text stands.
    pub origin: Origin,
    /// The setting as `section.key`; empty when no setting is concerned (bad TOML).
    pub key: String,
    /// What is wrong, in one line.
    pub message: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.origin.to_string();
        let parts = [&place, &self.key, &self.message];
        for (index, part) in parts.into_iter().filter(|part| !part.is_empty()).enumerate() {
            if index > 0 {
                f.write_str(": ")?;
            }
            // A part may quote what the file held; a terminal must not obey it.
            for c in part.chars() {
                f.write_char(if c.is_control() { ' ' } else { c })?;
            }
        }
        Ok(())
    }
}

/// Every fault of a settings file and its environment; `Display` prints one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsErrors {
    all: Vec<SettingsError>,
}

impl SettingsErrors {
    pub(super) fn new(mut all: Vec<SettingsError>) -> Self {
        all.sort_by(|a, b| a.origin.cmp(&b.origin));
        Self { all }
    }

    pub(super) fn unreadable(name: &str, why: &std::io::Error) -> Self {
        let message = format!("cannot read {name}: {why}");
        Self { all: vec![SettingsError { origin: Origin::Unwritten, key: String::new(), message }] }
    }

    /// The faults, in the order of the file, then of the variables; never empty.
    pub fn iter(&self) -> impl Iterator<Item = &SettingsError> {
        self.all.iter()
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.all.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsErrors {}
