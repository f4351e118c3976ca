//! `trunkline key`: API keys, through the API.

use clap::{Args, Subcommand};
use config::clock::Timestamp;
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::Query;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body};
use crate::clock;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// `trunkline key`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Key {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisation's keys, newest first: never their secrets.
    #[command(after_help = "Example:\n  trunkline key list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Make a key; it is printed this once and never again.
    #[command(after_help = "Examples:\n  \
        trunkline key create CI --days 90 > ci.key\n  \
        trunkline key create dashboard --grant viewer\n  \
        trunkline key create dialler --grant conversations:manage --grant agents:read")]
    Create(New),
    /// Revoke a key: requests with it fail at once.
    #[command(after_help = "Example:\n  trunkline key revoke 5f0c…")]
    Revoke {
        /// The key's id, as `list` shows it.
        key: String,
    },
    /// What the key in use may do.
    #[command(after_help = "Example:\n  trunkline key scopes")]
    Scopes,
}

/// A key to be made.
#[derive(Debug, Args)]
pub(super) struct New {
    /// What the key is for.
    name: String,
    /// What it may do: `admin`, `viewer` or a scope, once for each; without it `admin`. Never more than
    /// the key that makes it.
    #[arg(long, value_name = "GRANT")]
    grant: Vec<String>,
    /// Days until it expires; without it the key lasts until it is revoked.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

impl New {
    /// The body that asks for it.
    pub(super) fn body(&self) -> Value {
        let mut new = json!({ "name": self.name });
        if !self.grant.is_empty() {
            body::set(&mut new, "grants", json!(self.grant));
        }
        body::set_if(&mut new, "expires_at", expiry(self.days));
        new
    }
}

/// In so many days, in milliseconds since the epoch.
pub(super) fn expiry(days: Option<u32>) -> Option<i64> {
    days.map(|days| clock::unix_micros() / 1000 + i64::from(days) * MILLIS_PER_DAY)
}

/// When a key or token stops working.
pub(super) fn expires(key: &Value) -> String {
    let at = key.get("expires_at").and_then(Value::as_i64);
    at.map_or_else(|| "never".to_owned(), |at| Timestamp::from_millis(at).to_string())
}

/// Prints a key or token that was just made, alone on its line, so that a file takes it as it is.
pub(super) fn show(shown: &Shown, made: &Value) {
    if !shown.is_json() {
        let id = if made.get("token_id").is_some() { "token_id" } else { "key_id" };
        shown.aside(&format!("{} \"{}\": shown this once", field(made, id), field(made, "name")));
    }
    shown.done(&field(made, "pat_key"), made);
}

const PATH: [&str; 2] = ["admin", "organization-pats"];

const COLUMNS: &[Column] = &[
    ("KEY", |key| field(key, "key_id")),
    ("NAME", |key| field(key, "name")),
    ("MAY DO", |key| field(key, "grants")),
    ("EXPIRES", expires),
    ("LAST USED", |key| moment(key, "last_used_at")),
    ("CREATED", |key| moment(key, "created_at")),
];

impl Key {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { page } => {
                let listing = rest.list(&PATH, &Query::new(), page.wanted()).await?;
                shown.list("keys", COLUMNS, &listing.items, listing.more);
            }
            Verb::Create(new) => show(&shown, &rest.post(&PATH, &new.body()).await?),
            Verb::Revoke { key } => {
                rest.delete(&["admin", "organization-pats", &key]).await?;
                shown.done(&format!("{key} revoked"), &json!({ "key_id": key }));
            }
            Verb::Scopes => {
                let scopes = rest.get(&["admin", "members", "me", "scopes"], &Query::new()).await?;
                let words: Vec<String> =
                    scopes.as_array().into_iter().flatten().map(super::shown::plain).collect();
                shown.done(&words.join("\n"), &scopes);
            }
        }
        Ok(())
    }
}
