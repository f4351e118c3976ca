//! `trunkline audit`: who changed what, and whether the log of it is whole.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::EXIT_CODES;
use super::connection::Connection;
use super::failure::Failure;
use super::rest::Query;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;

/// `trunkline audit`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Audit {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Changes, and changes that were refused, newest first.
    #[command(after_help = "Examples:\n  \
        trunkline audit list --action trunk.update\n  \
        trunkline audit list --after 2026-11-22T00:00:00Z --all --json > audit.json")]
    List {
        /// Of this action, such as `trunk.update`.
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// About the object with this id.
        #[arg(long, value_name = "ID")]
        object: Option<String>,
        /// By the key or user with this id.
        #[arg(long, value_name = "ID")]
        actor: Option<String>,
        /// At or after this moment (ISO 8601).
        #[arg(long, value_name = "MOMENT")]
        after: Option<String>,
        /// At or before this moment.
        #[arg(long, value_name = "MOMENT")]
        before: Option<String>,
        /// What concerns no organisation; needs a key with `operator:read`.
        #[arg(long)]
        node: bool,
        #[command(flatten)]
        page: Page,
    },
    /// Whether the log is whole and as it was written, from its first entry to its last.
    #[command(after_help = "Example:\n  trunkline audit verify --json")]
    Verify,
}

const COLUMNS: &[Column] = &[
    ("AT", |entry| moment(entry, "at")),
    ("BY", |entry| match field(entry, "actor.id").as_str() {
        "-" => field(entry, "actor.type"),
        id => format!("{} {id}", field(entry, "actor.type")),
    }),
    ("FROM", |entry| field(entry, "source_address")),
    ("ACTION", |entry| field(entry, "action")),
    ("OUTCOME", |entry| match entry.get("status").and_then(Value::as_u64) {
        Some(status) => format!("{} ({status})", field(entry, "outcome")),
        None => field(entry, "outcome"),
    }),
    ("OBJECT", |entry| field(entry, "object_id")),
];

impl Audit {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { action, object, actor, after, before, node, page } => {
                let given = [
                    ("action", action),
                    ("object_id", object),
                    ("actor_id", actor),
                    ("created_after", after),
                    ("created_before", before),
                    ("node", node.then(|| "true".to_owned())),
                ];
                let query: Query =
                    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                let listing = rest.list(&["admin", "audit-log"], &query, page.wanted()).await?;
                shown.list("entries", COLUMNS, &listing.items, listing.more);
            }
            Verb::Verify => {
                let path = ["admin", "audit-log", "verification"];
                shown.one(&rest.get(&path, &Query::new()).await?);
            }
        }
        Ok(())
    }
}
