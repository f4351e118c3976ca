//! `trunkline organisation`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::Query;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body, key};

/// `trunkline organisation`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Organisation {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisations within reach of the key, newest first.
    #[command(after_help = "Example:\n  trunkline organisation list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// One organisation.
    #[command(after_help = "Example:\n  trunkline organisation get 49e0…")]
    Get {
        /// Its id.
        id: String,
    },
    /// Make an organisation below the key's own, below another, or at the root of a tree of its own.
    #[command(after_help = "Examples:\n  \
        trunkline organisation create 'Acme Munich'\n  \
        trunkline organisation create Globex --root       (the operator's)")]
    Create {
        /// Its name.
        name: String,
        /// The organisation above it: its id.
        #[arg(long, value_name = "ID", conflicts_with = "root")]
        parent: Option<String>,
        /// Put none above it; the operator's to do.
        #[arg(long)]
        root: bool,
        /// Most phone numbers it may have; the operator's to say.
        #[arg(long, value_name = "COUNT")]
        max_phone_numbers: Option<u32>,
    },
    /// Change an organisation: what is not named stays as it is.
    #[command(after_help = "Example:\n  trunkline organisation update 49e0… --name Acme")]
    Update {
        /// Its id.
        id: String,
        /// A new name.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Most phone numbers it may have; the operator's to say.
        #[arg(long, value_name = "COUNT")]
        max_phone_numbers: Option<u32>,
    },
    /// How many calls out the key's organisation may have at a time; with a limit, change it.
    #[command(after_help = "Examples:\n  \
        trunkline organisation concurrency\n  \
        trunkline organisation concurrency --limit 25\n  \
        trunkline organisation concurrency --default")]
    Concurrency {
        /// Most calls out at a time; more wait.
        #[arg(long, value_name = "COUNT", conflicts_with = "default",
            value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: Option<u32>,
        /// Go by the node's setting again.
        #[arg(long)]
        default: bool,
    },
    /// Where the key's organisation has its agents run whose configs do not say; with a file, change it.
    #[command(after_help = "Examples:\n  \
        trunkline organisation runtime\n  \
        echo '{\"type\": \"websocket\", \"url\": \"wss://agents.example.com\"}' |\n    \
        trunkline organisation runtime --set -\n  \
        trunkline organisation runtime --none             (the built-in echo)")]
    Runtime {
        /// YAML or JSON file with the `runtime` block of an agent's config, `-` for standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "none")]
        set: Option<PathBuf>,
        /// Have no default: such agents are the built-in echo.
        #[arg(long)]
        none: bool,
    },
    /// What the key's organisation used: calls, minutes, runs of workflows.
    #[command(after_help = "Example:\n  \
        trunkline organisation usage --from 2026-11-01 --to 2026-12-01")]
    Usage {
        /// From this moment on (ISO 8601); without it 30 days before the end.
        #[arg(long, value_name = "MOMENT")]
        from: Option<String>,
        /// Up to this moment; without it now.
        #[arg(long, value_name = "MOMENT")]
        to: Option<String>,
    },
    /// Make an API key of an organisation; it is printed this once and never again.
    #[command(after_help = "Example:\n  trunkline organisation key 49e0… first > acme.key")]
    Key {
        /// The organisation's id.
        id: String,
        #[command(flatten)]
        new: key::New,
    },
}

const PATH: [&str; 2] = ["admin", "organizations"];

const COLUMNS: &[Column] = &[
    ("ID", |organisation| field(organisation, "id")),
    ("NAME", |organisation| field(organisation, "name")),
    ("PARENT", |organisation| field(organisation, "parent_id")),
    ("NUMBERS AT MOST", |organisation| field(organisation, "max_phone_numbers")),
    ("CREATED", |organisation| moment(organisation, "created_at")),
];

impl Organisation {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { page } => {
                let listing = rest.list(&PATH, &Query::new(), page.wanted()).await?;
                shown.list("organisations", COLUMNS, &listing.items, listing.more);
            }
            Verb::Get { id } => {
                shown.one(&rest.get(&["admin", "organizations", &id], &Query::new()).await?);
            }
            Verb::Create { name, parent, root, max_phone_numbers } => {
                let mut new = json!({ "name": name });
                body::set_if(&mut new, "parent_id", parent);
                if root {
                    body::set(&mut new, "parent_id", Value::Null);
                }
                body::set_if(&mut new, "max_phone_numbers", max_phone_numbers);
                shown.one(&rest.post(&PATH, &new).await?);
            }
            Verb::Update { id, name, max_phone_numbers } => {
                let mut change = json!({});
                body::set_if(&mut change, "name", name);
                body::set_if(&mut change, "max_phone_numbers", max_phone_numbers);
                if change == json!({}) {
                    return Err(Failure::Unusable("nothing to change; see --help".to_owned()));
                }
                shown.one(&rest.patch(&["admin", "organizations", &id], &change).await?);
            }
            Verb::Concurrency { limit, default } => {
                let path = ["campaign", "concurrency-settings"];
                shown.one(&match (limit, default) {
                    (None, false) => rest.get(&path, &Query::new()).await?,
                    (limit, _) => rest.put(&path, &json!({ "concurrency_limit": limit })).await?,
                });
            }
            Verb::Runtime { set, none } => {
                let path = ["core", "default-runtime"];
                let block = set.map(|file| body::object(&file)).transpose()?;
                shown.one(&match (block, none) {
                    (None, false) => rest.get(&path, &Query::new()).await?,
                    (block, _) => rest.put(&path, &json!({ "runtime": block })).await?,
                });
            }
            Verb::Usage { from, to } => {
                let given = [("from", from), ("to", to)].into_iter();
                let query: Query = given.filter_map(|(name, at)| Some((name, at?))).collect();
                shown.one(&rest.get(&["admin", "usage", "summary"], &query).await?);
            }
            Verb::Key { id, new } => {
                let path = ["admin", "organizations", &id, "organization-pats"];
                key::show(&shown, &rest.post(&path, &new.body()).await?);
            }
        }
        Ok(())
    }
}
