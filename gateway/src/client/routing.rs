//! `trunkline routing`: the one workflow that decides who answers.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::{Query, Rest};
use super::shown::{Column, Shown, field};
use super::{EXIT_CODES, body, find};

/// `trunkline routing`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Routing {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisation's inbound routing.
    #[command(after_help = "Example:\n  trunkline routing get --json | jq .workflow_definition")]
    Get,
    /// Write it: made when there is none, changed otherwise. What is not named stays as it is.
    #[command(after_help = "Examples:\n  \
        trunkline routing set --workflow routing.yaml --fallback Reception\n  \
        trunkline routing set --enabled false")]
    Set {
        /// YAML or JSON file with the workflow definition, `-` for standard input.
        #[arg(long, value_name = "FILE")]
        workflow: Option<PathBuf>,
        /// The agent that answers when the workflow does not settle it: its id or name.
        #[arg(long, value_name = "AGENT")]
        fallback: Option<String>,
        /// Which of its published versions; without it the newest.
        #[arg(long, value_name = "VERSION", requires = "fallback")]
        fallback_version: Option<u32>,
        /// Have no such agent: what is not settled is not answered.
        #[arg(long, conflicts_with = "fallback")]
        no_fallback: bool,
        /// Whether it decides; if not, the numbers' own slots do.
        #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
        enabled: Option<bool>,
    },
    /// Give it up: the numbers' own slots decide from now on.
    #[command(after_help = "Example:\n  trunkline routing delete")]
    Delete,
    /// What would happen to a call, and why, step by step. Nobody is called.
    #[command(after_help = "Examples:\n  \
        trunkline routing dry-run --caller +15550200100 --called +15550100100\n  \
        trunkline routing dry-run --caller anonymous --called +15550100100 \\\n    \
        --at 2026-12-24T20:00:00Z --workflow routing.yaml")]
    DryRun {
        /// Who calls.
        #[arg(long, value_name = "NUMBER")]
        caller: String,
        /// The number that is dialled.
        #[arg(long, value_name = "NUMBER")]
        called: String,
        /// The trunk it comes in on: its id or name; without it the number's own.
        #[arg(long, value_name = "TRUNK")]
        trunk: Option<String>,
        /// When it comes (ISO 8601); without it now.
        #[arg(long, value_name = "MOMENT")]
        at: Option<String>,
        /// A workflow to run in place of the stored one: a YAML or JSON file.
        #[arg(long, value_name = "FILE")]
        workflow: Option<PathBuf>,
    },
}

const PATH: [&str; 2] = ["core", "inbound-routing-config"];

const STEPS: &[Column] = &[
    ("STEP", |step| field(step, "name")),
    ("TYPE", |step| field(step, "type")),
    ("MICROSECONDS", |step| field(step, "duration_us")),
    ("WHAT IT DID", |step| field(step, "summary")),
];

impl Routing {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::Get => match rest.get(&PATH, &Query::new()).await? {
                Value::Null => {
                    shown.done("No inbound routing: the numbers' own slots decide.", &Value::Null);
                }
                config => shown.one(&config),
            },
            Verb::Set { workflow, fallback, fallback_version, no_fallback, enabled } => {
                let mut config = json!({});
                if let Some(path) = workflow {
                    body::set(&mut config, "workflow_definition", body::object(&path)?);
                }
                if let Some(agent) = fallback {
                    let id = find::agent(&rest, &agent).await?;
                    body::set(&mut config, "fallback_agent_id", id);
                    body::set(&mut config, "fallback_agent_version", json!(fallback_version));
                }
                if no_fallback {
                    body::set(&mut config, "fallback_agent_id", Value::Null);
                }
                body::set_if(&mut config, "enabled", enabled);
                shown.one(&write(&rest, &config).await?);
            }
            Verb::Delete => {
                rest.delete(&PATH).await?;
                shown.done("inbound routing deleted", &Value::Null);
            }
            Verb::DryRun { caller, called, trunk, at, workflow } => {
                let mut call = json!({ "caller_number": caller, "called_number": called });
                if let Some(trunk) = trunk {
                    body::set(&mut call, "trunk_id", find::trunk(&rest, &trunk).await?);
                }
                body::set_if(&mut call, "timestamp", at);
                if let Some(path) = workflow {
                    body::set(&mut call, "workflow_definition", body::object(&path)?);
                }
                let path = ["core", "inbound-routing-config", "dry-run"];
                with_steps(&shown, &rest.post(&path, &call).await?, "steps");
            }
        }
        Ok(())
    }
}

async fn write(rest: &Rest, config: &Value) -> Result<Value, Failure> {
    if config == &json!({}) {
        return Err(Failure::Unusable("nothing to change; see --help".to_owned()));
    }
    if rest.get(&PATH, &Query::new()).await?.is_null() {
        rest.post(&PATH, config).await
    } else {
        rest.put(&PATH, config).await
    }
}

/// What came or would come of a workflow, then the steps that lead there as a table.
pub(super) fn with_steps(shown: &Shown, whole: &Value, steps: &str) {
    if shown.is_json() {
        shown.raw(whole);
        return;
    }
    let mut alone = whole.clone();
    let steps = alone.as_object_mut().and_then(|entries| entries.shift_remove(steps));
    shown.one(&alone);
    if let Some(Value::Array(steps)) = steps {
        shown.gap();
        shown.list("steps", STEPS, &steps, false);
    }
}
