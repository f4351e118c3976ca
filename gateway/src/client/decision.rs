//! `trunkline decision`: why calls were refused.

use clap::{Args, Subcommand};

use super::EXIT_CODES;
use super::connection::Connection;
use super::failure::Failure;
use super::rest::Query;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;

/// `trunkline decision`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Decision {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Why calls were refused, newest first, in words.
    #[command(after_help = "Examples:\n  \
        trunkline decision list --limit 1\n  \
        trunkline decision list --called +15550100100 --json")]
    List {
        /// From this source address.
        #[arg(long, value_name = "ADDRESS")]
        source: Option<String>,
        /// For this called number.
        #[arg(long, value_name = "NUMBER")]
        called: Option<String>,
        /// With this rule as the first that failed.
        #[arg(long, value_name = "RULE")]
        rule: Option<String>,
        /// Calls that nobody could place; needs a key with `operator:read`.
        #[arg(long)]
        unattributed: bool,
        #[command(flatten)]
        page: Page,
    },
}

const COLUMNS: &[Column] = &[
    ("AT", |decision| moment(decision, "at")),
    ("SOURCE", |decision| {
        format!("{}:{}", field(decision, "source_ip"), field(decision, "source_port"))
    }),
    ("CALLED", |decision| field(decision, "called_raw")),
    ("RULE", |decision| field(decision, "rule")),
    ("ANSWER", |decision| match field(decision, "sip_status").as_str() {
        "-" => "silence".to_owned(),
        status => status.to_owned(),
    }),
    ("EXPLANATION", |decision| field(decision, "explanation")),
];

impl Decision {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        let Verb::List { source, called, rule, unattributed, page } = self.verb;
        let given = [("source", source), ("called_number", called), ("rule", rule)];
        let mut query: Query =
            given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        if unattributed {
            query.push(("unattributed", "true".to_owned()));
        }
        let listing = rest.list(&["core", "calls", "decisions"], &query, page.wanted()).await?;
        shown.list("decisions", COLUMNS, &listing.items, listing.more);
        Ok(())
    }
}
