//! `trunkline agent versions`, `draft`, `publish`, …: the versions of an agent.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::failure::Failure;
use super::rest::{Query, Rest};
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{body, find, number};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// The agent's versions, newest first.
    #[command(after_help = "Example:\n  trunkline agent versions Echo --published true")]
    Versions {
        /// The agent's id or name.
        agent: String,
        /// Published or not.
        #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
        published: Option<bool>,
        #[command(flatten)]
        page: Page,
    },
    /// One version with its config.
    #[command(after_help = "Examples:\n  \
        trunkline agent version Echo 3\n  \
        trunkline agent version Echo latest --json | jq .config > echo.json")]
    Version {
        /// The agent's id or name.
        agent: String,
        /// Its number, or `latest`, which makes a draft when the newest version is published.
        version: String,
    },
    /// Make a draft: a new version from a config, or a copy of a version.
    #[command(after_help = "Examples:\n  \
        trunkline agent draft Echo --config echo.yaml\n  \
        trunkline agent draft Echo --base 3")]
    Draft {
        /// The agent's id or name.
        agent: String,
        /// YAML or JSON file with the agent config, `-` for standard input.
        #[arg(
            long,
            value_name = "FILE",
            required_unless_present = "base",
            conflicts_with = "base"
        )]
        config: Option<PathBuf>,
        /// The number of the version to copy.
        #[arg(long, value_name = "VERSION")]
        base: Option<u32>,
        /// YAML or JSON file with the inputs that instructions are generated from.
        #[arg(long, value_name = "FILE")]
        inputs: Option<PathBuf>,
    },
    /// Change a draft.
    #[command(after_help = "Example:\n  trunkline agent edit Echo 4 --config echo.yaml")]
    Edit {
        /// The agent's id or name.
        agent: String,
        /// The draft's number, or `latest`.
        version: String,
        /// YAML or JSON file with a new config, whole.
        #[arg(long, value_name = "FILE", required_unless_present = "inputs")]
        config: Option<PathBuf>,
        /// YAML or JSON file with new inputs that instructions are generated from.
        #[arg(long, value_name = "FILE")]
        inputs: Option<PathBuf>,
    },
    /// What differs between two versions, in words.
    #[command(after_help = "Example:\n  trunkline agent compare Echo 3 4")]
    Compare {
        /// The agent's id or name.
        agent: String,
        /// The number of the older version.
        from: u32,
        /// The number of the newer one.
        to: u32,
    },
    /// Publish a version, for good, and point numbers at it. Publishing an older one is the way back.
    #[command(after_help = "Examples:\n  \
        trunkline agent publish Echo\n  \
        trunkline agent publish Echo 3 --number +15550100100 --direction both\n  \
        trunkline agent publish Echo --unassign +15550100101")]
    Publish {
        /// The agent's id or name.
        agent: String,
        /// The version's number, or `latest` for the newest.
        #[arg(default_value = "latest")]
        version: String,
        /// A number to point at it; give it once for each.
        #[arg(long, value_name = "NUMBER")]
        number: Vec<String>,
        /// A number to clear of this agent; give it once for each.
        #[arg(long, value_name = "NUMBER")]
        unassign: Vec<String>,
        /// Calls to the numbers, calls from them, or both.
        #[arg(long, value_name = "DIRECTION", default_value = "inbound")]
        direction: Direction,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Direction {
    Inbound,
    Outbound,
    Both,
}

impl Direction {
    const fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Both => "both",
        }
    }
}

pub(super) const COLUMNS: &[Column] = &[
    ("VERSION", |version| field(version, "version")),
    ("PUBLISHED", |version| field(version, "published")),
    ("INSTRUCTIONS", instructions),
    ("ID", |version| field(version, "id")),
    ("CREATED", |version| moment(version, "created_at")),
];

/// What stands in the way of publishing, in a word.
fn instructions(version: &Value) -> String {
    let is = |name: &str| version.get(name) == Some(&Value::Bool(true));
    match field(version, "instructions_status").as_str() {
        "idle" if is("instructions_dirty") => "stale".to_owned(),
        "idle" if is("instructions_manually_edited") => "edited".to_owned(),
        status => status.to_owned(),
    }
}

impl Verb {
    /// Runs the verb.
    pub(super) async fn run(self, rest: &Rest, shown: &Shown) -> Result<(), Failure> {
        match self {
            Self::Versions { agent, published, page } => {
                let id = find::agent(rest, &agent).await?;
                let query: Query =
                    published.into_iter().map(|is| ("published", is.to_string())).collect();
                let path = ["core", "agents", &id, "versions"];
                let listing = rest.list(&path, &query, page.wanted()).await?;
                shown.list("versions", COLUMNS, &listing.items, listing.more);
            }
            Self::Version { agent, version } => {
                let id = find::agent(rest, &agent).await?;
                let path = ["core", "agents", &id, "versions", &version];
                shown.one(&rest.get(&path, &Query::new()).await?);
            }
            Self::Draft { agent, config, base, inputs } => {
                let mut new = json!({});
                lay_over(&mut new, config, inputs)?;
                body::set_if(&mut new, "base_version", base);
                let id = find::agent(rest, &agent).await?;
                let made = rest.post(&["core", "agents", &id, "versions"], &new).await?;
                shown.done(&format!("draft {} of {agent}", field(&made, "version")), &made);
            }
            Self::Edit { agent, version, config, inputs } => {
                let mut change = json!({});
                lay_over(&mut change, config, inputs)?;
                let id = find::agent(rest, &agent).await?;
                let path = ["core", "agents", &id, "versions", &version];
                let changed = rest.put(&path, &change).await?;
                shown.done(
                    &format!("draft {} of {agent} changed", field(&changed, "version")),
                    &changed,
                );
            }
            Self::Compare { agent, from, to } => {
                let id = find::agent(rest, &agent).await?;
                let path = ["core", "agents", &id, "versions", "compare"];
                let asked = json!({ "from_version": from, "to_version": to });
                let text = rest.text(&path, &asked).await?;
                shown.done(text.trim_end(), &json!({ "text": text }));
            }
            Self::Publish { agent, version, number, unassign, direction } => {
                let mut publish = json!({ "direction": direction.word() });
                if !number.is_empty() {
                    body::set(&mut publish, "phone_numbers", json!(number));
                }
                if !unassign.is_empty() {
                    body::set(&mut publish, "unassign_phone_numbers", json!(unassign));
                }
                let id = find::agent(rest, &agent).await?;
                let path = ["core", "agents", &id, "versions", &version, "publish"];
                let changed = rest.post(&path, &publish).await?;
                let numbers = changed.as_array().cloned().unwrap_or_default();
                if numbers.is_empty() {
                    let which = match version.as_str() {
                        "latest" => "the latest version".to_owned(),
                        number => format!("version {number}"),
                    };
                    shown.done(&format!("{which} of {agent} is published"), &changed);
                } else {
                    shown.list("phone numbers", number::COLUMNS, &numbers, false);
                }
            }
        }
        Ok(())
    }
}

fn lay_over(
    version: &mut Value,
    config: Option<PathBuf>,
    inputs: Option<PathBuf>,
) -> Result<(), Failure> {
    if let Some(path) = config {
        body::set(version, "config", body::object(&path)?);
    }
    if let Some(path) = inputs {
        body::set(version, "instruction_builder_inputs", body::object(&path)?);
    }
    Ok(())
}
