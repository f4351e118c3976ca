//! Where the database is: a setting that may hold a password.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::secret::Secret;

/// The URL of the database. It prints without the user, the password and the parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Secret<String>);

impl StoreUrl {
    /// The whole text, which may hold a password.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The path of an SQLite database, as it is written; `None` if it is another kind of URL.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<&str> {
        self.expose().strip_prefix("sqlite:")
    }

    /// Whether it is a PostgreSQL URL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        let after = |scheme| self.expose().strip_prefix(scheme);
        let rest = after("postgres://").or_else(|| after("postgresql://"));
        rest.is_some_and(|rest| !rest.is_empty())
    }
}

impl From<&str> for StoreUrl {
    fn from(text: &str) -> Self {
        Self(Secret::from(text))
    }
}

impl FromStr for StoreUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.expose();
        let Some((scheme, rest)) = text.split_once("://") else {
            return f.write_str(self.sqlite_path().map_or("***", |_| text));
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A password with a stray slash or @ must not look like a host: all before the last @ goes.
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        write!(f, "{scheme}://{place}")
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_without_what_opens_the_database() {
        for (url, shown) in [
            ("sqlite:trunkline.db", "sqlite:trunkline.db"),
            ("postgres://u:hunter2@db.example:5432/calls", "postgres://db.example:5432/calls"),
            ("postgres://u:hun/ter2@db.example/calls", "postgres://db.example/calls"),
            ("postgres://u:hunter2@a@db/calls?password=hunter2", "postgres://db/calls"),
            ("postgresql:///calls?host=/run/pg&password=hunter2", "postgresql:///calls"),
            ("hunter2", "***"),
        ] {
            let url = StoreUrl::from(url);
            assert_eq!((url.to_string().as_str(), format!("{url:?}").as_str()), (shown, shown));
        }
    }
}
