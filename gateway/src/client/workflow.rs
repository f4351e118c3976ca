//! `trunkline workflow`: stored workflows, and their runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::{Query, Rest};
use super::routing::with_steps;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body, find};

/// `trunkline workflow`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Workflow {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisation's workflows, newest first.
    #[command(after_help = "Example:\n  trunkline workflow list --name greet")]
    List {
        /// Part of the name, whatever the case.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// One workflow, with the definition of one of its versions.
    #[command(after_help = "Examples:\n  \
        trunkline workflow show Greet\n  \
        trunkline workflow show Greet 3 --json | jq .definition > greet.json")]
    Show {
        /// The workflow's id or name.
        workflow: String,
        /// The version's number, or `latest` for the newest.
        #[arg(default_value = "latest")]
        version: String,
    },
    /// Make a workflow; its definition is version 1, a draft unless it is published at once.
    #[command(
        after_help = "Example:\n  trunkline workflow create Greet --definition greet.yaml --publish"
    )]
    Create {
        /// Its name.
        name: String,
        /// YAML or JSON file with the definition, `-` for standard input.
        #[arg(long, value_name = "FILE")]
        definition: PathBuf,
        /// What it is for.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Publish the version, for good.
        #[arg(long)]
        publish: bool,
    },
    /// Make a draft: a new version of a workflow, published at once if that is wanted.
    #[command(
        after_help = "Example:\n  trunkline workflow draft Greet --definition greet.yaml --publish"
    )]
    Draft {
        /// The workflow's id or name.
        workflow: String,
        /// YAML or JSON file with the definition, `-` for standard input.
        #[arg(long, value_name = "FILE")]
        definition: PathBuf,
        /// Publish the version, for good.
        #[arg(long)]
        publish: bool,
    },
    /// Publish a version, for good: from then on it can be run, and cannot change.
    #[command(after_help = "Example:\n  trunkline workflow publish Greet 3")]
    Publish {
        /// The workflow's id or name.
        workflow: String,
        /// The version's number, or `latest` for the newest.
        #[arg(default_value = "latest")]
        version: String,
    },
    /// Delete a workflow with its versions; what refers to it fails from then on.
    #[command(after_help = "Example:\n  trunkline workflow delete Greet")]
    Delete {
        /// The workflow's id or name.
        workflow: String,
    },
    /// Run a published version and wait for its end; a run that fails is exit code 1.
    #[command(after_help = "Examples:\n  \
        trunkline workflow run Greet --input '{\"name\": \"Ada\"}'\n  \
        trunkline workflow run Greet 3 --background")]
    Run {
        /// The workflow's id or name.
        workflow: String,
        /// The version's number, or `latest` for the newest that is published.
        #[arg(default_value = "latest")]
        version: String,
        /// What it is given, a JSON object.
        #[arg(long, value_name = "JSON")]
        input: Option<String>,
        /// Do not wait: it runs in the background, over long waits and restarts.
        #[arg(long)]
        background: bool,
    },
    /// Runs, newest first.
    #[command(after_help = "Example:\n  trunkline workflow runs --workflow Greet --status failed")]
    Runs {
        /// Of this workflow: its id or name.
        #[arg(long, value_name = "WORKFLOW")]
        workflow: Option<String>,
        /// After this conversation: its id.
        #[arg(long, value_name = "ID")]
        conversation: Option<String>,
        /// `queued`, `running`, `waiting`, `success` or `failed`.
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Cancel a run: one that waits is over at once, one that is at work within seconds.
    #[command(after_help = "Example:\n  trunkline workflow cancel 5f0c…")]
    Cancel {
        /// The run's id.
        execution: String,
    },
    /// What became of a run, step by step.
    #[command(after_help = "Example:\n  trunkline workflow result 5f0c…")]
    Result {
        /// The run's id.
        execution: String,
    },
}

const PATH: [&str; 2] = ["workflow", "workflows"];

const RUNS_PATH: [&str; 2] = ["workflow", "workflow-executions"];

const COLUMNS: &[Column] = &[
    ("ID", |workflow| field(workflow, "id")),
    ("NAME", |workflow| field(workflow, "name")),
    ("NEWEST", |workflow| field(workflow, "latest_version")),
    ("PUBLISHED", |workflow| field(workflow, "latest_published_version")),
    ("CREATED", |workflow| moment(workflow, "created_at")),
];

const RUNS: &[Column] = &[
    ("ID", |run| field(run, "execution_id")),
    ("ASKED", |run| moment(run, "created_at")),
    ("WORKFLOW", |run| field(run, "workflow_id")),
    ("VERSION", |run| field(run, "workflow_version")),
    ("CONVERSATION", |run| field(run, "conversation_id")),
    ("STATUS", |run| field(run, "status")),
    ("WHY NOT", why_not),
];

fn why_not(run: &Value) -> String {
    run.get("error").filter(|error| !error.is_null()).map_or_else(String::new, |error| {
        format!("{}: {}", field(error, "step_name"), field(error, "message"))
    })
}

impl Workflow {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { name, page } => {
                let query: Query = name.into_iter().map(|name| ("name", name)).collect();
                let listing = rest.list(&PATH, &query, page.wanted()).await?;
                shown.list("workflows", COLUMNS, &listing.items, listing.more);
            }
            Verb::Show { workflow, version } => {
                let id = find::workflow(&rest, &workflow).await?;
                let path = ["workflow", "workflows", &id, "versions", &version];
                shown.one(&rest.get(&path, &Query::new()).await?);
            }
            Verb::Create { name, definition, description, publish: at_once } => {
                let mut new = json!({ "name": name, "definition": body::object(&definition)? });
                body::set_if(&mut new, "description", description);
                let mut made = rest.post(&PATH, &new).await?;
                warn(&shown, &made);
                if at_once {
                    publish(&rest, &field(&made, "id"), "1").await?;
                    body::set(&mut made, "latest_published_version", json!(1));
                }
                shown.done(&format!("workflow {}", field(&made, "id")), &made);
            }
            Verb::Draft { workflow, definition, publish: at_once } => {
                let new = json!({ "definition": body::object(&definition)? });
                let id = find::workflow(&rest, &workflow).await?;
                let mut made = rest.post(&["workflow", "workflows", &id, "versions"], &new).await?;
                warn(&shown, &made);
                let number = field(&made, "version");
                if at_once {
                    made = publish(&rest, &id, &number).await?;
                }
                shown.done(&format!("version {number} of {workflow}"), &made);
            }
            Verb::Publish { workflow, version } => {
                let id = find::workflow(&rest, &workflow).await?;
                let published = publish(&rest, &id, &version).await?;
                let number = field(&published, "version");
                shown.done(&format!("version {number} of {workflow} published"), &published);
            }
            Verb::Delete { workflow } => {
                let id = find::workflow(&rest, &workflow).await?;
                rest.delete(&["workflow", "workflows", &id]).await?;
                shown.done(&format!("workflow {workflow} deleted"), &json!({ "id": id }));
            }
            Verb::Run { workflow, version, input, background } => {
                let asked = asked(find::workflow(&rest, &workflow).await?, &version, input)?;
                run(&rest, &shown, &asked, background).await?;
            }
            Verb::Runs { workflow, conversation, status, page } => {
                let mut query: Query = status.into_iter().map(|one| ("status", one)).collect();
                if let Some(workflow) = workflow {
                    query.push(("workflow_id", find::workflow(&rest, &workflow).await?));
                }
                query.extend(conversation.map(|id| ("conversation_id", id)));
                let listing = rest.list(&RUNS_PATH, &query, page.wanted()).await?;
                shown.list("runs", RUNS, &listing.items, listing.more);
            }
            Verb::Cancel { execution } => cancel(&rest, &shown, &execution).await?,
            Verb::Result { execution } => {
                let path = ["workflow", "workflow-executions", &execution];
                with_steps(&shown, &rest.get(&path, &Query::new()).await?, "trace");
            }
        }
        Ok(())
    }
}

async fn publish(rest: &Rest, id: &str, version: &str) -> Result<Value, Failure> {
    let path = ["workflow", "workflows", id, "versions", version, "publish"];
    rest.post(&path, &json!({})).await
}

async fn cancel(rest: &Rest, shown: &Shown, execution: &str) -> Result<(), Failure> {
    let path = ["workflow", "workflow-executions", execution, "cancel"];
    let over = rest.post(&path, &json!({})).await?;
    shown.done(&format!("run {execution} cancelled"), &over);
    Ok(())
}

/// What is odd about a definition goes beside the result.
fn warn(shown: &Shown, made: &Value) {
    for one in made.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        shown.aside(&format!("{}: {}", field(one, "place"), field(one, "message")));
    }
}

fn asked(id: String, version: &str, input: Option<String>) -> Result<Value, Failure> {
    let number = version.parse::<u32>().map_or_else(|_| json!(version), |number| json!(number));
    let mut asked = json!({ "workflow_id": id, "workflow_version": number });
    if let Some(input) = input {
        body::set(&mut asked, "input_data", body::inline("--input", &input)?);
    }
    Ok(asked)
}

async fn run(rest: &Rest, shown: &Shown, asked: &Value, background: bool) -> Result<(), Failure> {
    if background {
        let path = ["workflow", "workflow-executions", "async"];
        let taken = rest.post(&path, asked).await?;
        shown.done(&field(&taken, "execution_id"), &taken);
        return Ok(());
    }
    let ran = rest.post(&RUNS_PATH, asked).await?;
    shown.one(&ran);
    match field(&ran, "status").as_str() {
        "failed" => Err(Failure::Stopped(format!("the workflow failed at {}", why_not(&ran)))),
        _ => Ok(()),
    }
}
