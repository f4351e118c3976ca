//! `trunkline token`: the personal tokens of whoever asks.

use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::Connection;
use super::failure::Failure;
use super::rest::Query;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body, key};

/// `trunkline token`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Token {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Your tokens, newest first: never their secrets.
    #[command(after_help = "Example:\n  trunkline token list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Make another token; it is printed this once and never again.
    #[command(after_help = "Example:\n  trunkline token create laptop --days 90 > laptop.key")]
    Create {
        /// What it is for.
        name: String,
        /// Days until it expires; without it the token lasts as long as the one that makes it.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// Revoke a token: requests with it fail at once.
    #[command(after_help = "Example:\n  trunkline token revoke 5f0c…")]
    Revoke {
        /// The token's id, as `list` shows it.
        token: String,
    },
    /// The organisations you belong to: what --organisation may say.
    #[command(after_help = "Example:\n  trunkline token organisations")]
    Organisations,
}

const PATH: [&str; 2] = ["admin", "personal-access-tokens"];

const COLUMNS: &[Column] = &[
    ("TOKEN", |token| field(token, "token_id")),
    ("NAME", |token| field(token, "name")),
    ("EXPIRES", key::expires),
    ("LAST USED", |token| moment(token, "last_used_at")),
    ("CREATED", |token| moment(token, "created_at")),
];

const ORGANISATIONS: &[Column] = &[
    ("ID", |membership| field(membership, "organization_id")),
    ("NAME", |membership| field(membership, "name")),
    ("ROLE", |membership| field(membership, "role")),
];

impl Token {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { page } => {
                let listing = rest.list(&PATH, &Query::new(), page.wanted()).await?;
                shown.list("tokens", COLUMNS, &listing.items, listing.more);
            }
            Verb::Create { name, days } => {
                let mut new = json!({ "name": name });
                body::set_if(&mut new, "expires_at", key::expiry(days));
                key::show(&shown, &rest.post(&PATH, &new).await?);
            }
            Verb::Revoke { token } => {
                rest.delete(&["admin", "personal-access-tokens", &token]).await?;
                shown.done(&format!("{token} revoked"), &json!({ "token_id": token }));
            }
            Verb::Organisations => {
                let path = ["admin", "members", "me", "organizations"];
                let all = rest.get(&path, &Query::new()).await?;
                let all = all.as_array().cloned().unwrap_or_default();
                shown.list("organisations", ORGANISATIONS, &all, false);
            }
        }
        Ok(())
    }
}
