//! `trunkline number`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::{Query, Rest};
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
    /// Numbers that can be bought now.
    #[command(after_help = "Examples:\n  \
        trunkline number available --area-code 415\n  \
        trunkline number available --account twilio --country GB --type mobile")]
    Available {
        /// The managed account; not needed while there is only one.
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<String>,
        /// Two capital letters; without it US.
        #[arg(long, value_name = "COUNTRY")]
        country: Option<String>,
        /// `local`, `toll_free` or `mobile`; without it local.
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// The digits after the country's calling code.
        #[arg(long, value_name = "DIGITS")]
        area_code: Option<String>,
        /// At most this many.
        #[arg(long, value_name = "COUNT")]
        limit: Option<u32>,
    },
    /// Buy a number, with a managed trunk that carries it. This costs money.
    #[command(after_help = "Example:\n  trunkline number buy +14155550100")]
    Buy {
        /// The number, E.164.
        number: String,
        /// The managed account; not needed while there is only one.
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<String>,
    },
    /// Give a bought number back to its account.
    #[command(after_help = "Example:\n  trunkline number release +14155550100")]
    Release {
        /// The number, E.164.
        number: String,
        /// The managed account; not needed while there is only one.
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<String>,
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

const AVAILABLE: &[Column] = &[
    ("NUMBER", |number| field(number, "phone_number")),
    ("COUNTRY", |number| field(number, "country")),
    ("TYPE", |number| field(number, "type")),
    ("PLACE", |number| field(number, "locality")),
    ("REGION", |number| field(number, "region")),
];

/// The managed account that is named, or the only one there is.
async fn account(rest: &Rest, named: Option<String>) -> Result<String, Failure> {
    if let Some(named) = named {
        return Ok(named);
    }
    let all = rest.get(&["core", "managed-accounts"], &Query::new()).await?;
    match all.as_array().map_or(&[][..], Vec::as_slice) {
        [only] => Ok(field(only, "id")),
        [] => Err(Failure::Unusable("there is no managed account to buy at".to_owned())),
        many => {
            let ids: Vec<String> = many.iter().map(|account| field(account, "id")).collect();
            let why = format!("at which account? say it with --account: {}", ids.join(", "));
            Err(Failure::Unusable(why))
        }
    }
}

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
            Verb::Available { account, country, kind, area_code, limit } => {
                let account = self::account(&rest, account).await?;
                let given = [
                    ("country", country),
                    ("type", kind),
                    ("area_code", area_code),
                    ("limit", limit.map(|limit| limit.to_string())),
                ];
                let query: Query =
                    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                let path = ["core", "managed-accounts", &account, "available-numbers"];
                let found = rest.get(&path, &query).await?;
                let found = found.as_array().cloned().unwrap_or_default();
                shown.list("numbers to be had", AVAILABLE, &found, false);
            }
            Verb::Buy { number, account } => {
                let account = self::account(&rest, account).await?;
                let path = ["core", "managed-accounts", &account, "purchase-number"];
                shown.one(&rest.post(&path, &json!({ "phone_number": number })).await?);
            }
            Verb::Release { number, account } => {
                let account = self::account(&rest, account).await?;
                let path = ["core", "managed-accounts", &account, "release-number"];
                let back = json!({ "phone_number": number });
                rest.post(&path, &back).await?;
                shown.done(&format!("{number} released"), &back);
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
