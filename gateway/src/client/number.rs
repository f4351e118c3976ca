//! `trunkline number`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::Query;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, find};

/// `trunkline number`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Number {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisation's numbers, newest first, with the agents in their slots.
    #[command(after_help = "Examples:\n  \
        trunkline number list\n  \
        trunkline number list --trunk 'Office PBX' --json")]
    List {
        /// Part of the number.
        #[arg(long, value_name = "PART")]
        number: Option<String>,
        /// On this trunk: its id or name.
        #[arg(long, value_name = "TRUNK")]
        trunk: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// One number.
    #[command(after_help = "Example:\n  trunkline number get +15550100100")]
    Get {
        /// The number, E.164.
        number: String,
    },
    /// Register a number that a carrier already sends over a trunk of yours.
    #[command(after_help = "Example:\n  \
        trunkline number create +15550100100 --trunk 'Office PBX'\n\n\
        Which agent answers is said by publishing: `trunkline agent publish`.")]
    Create {
        /// The number, E.164.
        number: String,
        /// The trunk that carries it: its id or name.
        #[arg(long, value_name = "TRUNK")]
        trunk: String,
        /// Let other agents show it as their number.
        #[arg(long)]
        shareable: bool,
    },
    /// Say whether other agents may show the number.
    #[command(after_help = "Example:\n  trunkline number update +15550100100 --shareable true")]
    Update {
        /// The number, E.164.
        number: String,
        /// Whether other agents may show it as theirs.
        #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
        shareable: bool,
    },
    /// Give a number up.
    #[command(after_help = "Example:\n  trunkline number delete +15550100100")]
    Delete {
        /// The number, E.164.
        number: String,
    },
}

const PATH: [&str; 2] = ["core", "phone-numbers"];

pub(super) const COLUMNS: &[Column] = &[
    ("NUMBER", |number| field(number, "phone_number")),
    ("INBOUND", |number| slot(number, "inbound_agent_version")),
    ("OUTBOUND", |number| slot(number, "outbound_agent_version")),
    ("SHAREABLE", |number| field(number, "outbound_shareable")),
    ("TRUNK", |number| field(number, "trunk_id")),
    ("CREATED", |number| moment(number, "created_at")),
];

/// `Echo v3`, or a dash for an empty slot.
fn slot(number: &Value, name: &str) -> String {
    match number.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(version) => {
            format!("{} v{}", field(version, "agent.name"), field(version, "version"))
        }
    }
}

impl Number {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { number, trunk, page } => {
                let mut query: Query =
                    number.into_iter().map(|part| ("phone_number", part)).collect();
                if let Some(trunk) = trunk {
                    query.push(("trunk_id", find::trunk(&rest, &trunk).await?));
                }
                let listing = rest.list(&PATH, &query, page.wanted()).await?;
                shown.list("phone numbers", COLUMNS, &listing.items, listing.more);
            }
            Verb::Get { number } => {
                let path = ["core", "phone-numbers", &number];
                shown.one(&rest.get(&path, &Query::new()).await?);
            }
            Verb::Create { number, trunk, shareable } => {
                let trunk = find::trunk(&rest, &trunk).await?;
                let new = json!({
                    "phone_number": number, "trunk_id": trunk, "outbound_shareable": shareable,
                });
                shown.one(&rest.post(&PATH, &new).await?);
            }
            Verb::Update { number, shareable } => {
                let change = json!({ "outbound_shareable": shareable });
                let path = ["core", "phone-numbers", &number];
                shown.one(&rest.patch(&path, &change).await?);
            }
            Verb::Delete { number } => {
                rest.delete(&["core", "phone-numbers", &number]).await?;
                let gone = json!({ "phone_number": number });
                shown.done(&format!("{number} given up"), &gone);
            }
        }
        Ok(())
    }
}
