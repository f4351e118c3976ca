//! `trunkline agent`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::{Query, Rest};
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body, find, version};

/// `trunkline agent`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Agent {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisation's agents, newest first.
    #[command(after_help = "Examples:\n  \
        trunkline agent list\n  \
        trunkline agent list --active true --metadata '{\"team\": \"sales\"}' --json")]
    List {
        /// Part of the name, whatever the case.
        #[arg(long, value_name = "PART")]
        name: Option<String>,
        /// Taking calls or not.
        #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
        active: Option<bool>,
        /// A demonstration or not.
        #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
        demo: Option<bool>,
        /// A JSON object that the metadata must contain.
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// One agent with its versions, numbers, SIP endpoint and what its conversations add up to.
    #[command(after_help = "Example:\n  trunkline agent get Echo")]
    Get {
        /// Its id or name.
        agent: String,
    },
    /// Make an agent, which has no version yet.
    #[command(after_help = "Example:\n  \
        trunkline agent create Echo --description 'Says back what it hears'\n  \
        trunkline agent draft Echo --config echo.yaml\n  \
        trunkline agent publish Echo --number +15550100100")]
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change an agent: what is not named stays as it is.
    #[command(after_help = "Example:\n  trunkline agent update Echo --active false")]
    Update {
        /// Its id or name.
        agent: String,
        /// A new name.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Delete an agent: its numbers' slots are cleared, its conversations stay.
    #[command(after_help = "Example:\n  trunkline agent delete Echo")]
    Delete {
        /// Its id or name.
        agent: String,
    },
    /// Give the agent a SIP address of its own, where its newest published version answers.
    #[command(after_help = "Example:\n  trunkline agent deploy Echo")]
    Deploy {
        /// Its id or name.
        agent: String,
    },
    /// Take the agent's SIP address away.
    #[command(after_help = "Example:\n  trunkline agent undeploy Echo")]
    Undeploy {
        /// Its id or name.
        agent: String,
    },
    /// The JSON Schema of agent configs.
    #[command(after_help = "Example:\n  trunkline agent schema > agent-config.schema.json")]
    Schema,
    #[command(flatten)]
    Version(version::Verb),
}

/// What an agent is made of.
#[derive(Debug, Args)]
struct Fields {
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Whether it takes calls.
    #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
    active: Option<bool>,
    /// Whether it is a demonstration.
    #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
    demo: Option<bool>,
    /// Data of your own: a JSON object.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
}

const PATH: [&str; 2] = ["core", "agents"];

const COLUMNS: &[Column] = &[
    ("ID", |agent| field(agent, "id")),
    ("NAME", |agent| field(agent, "name")),
    ("ACTIVE", |agent| field(agent, "active")),
    ("DEMO", |agent| field(agent, "is_demo")),
    ("SIP", |agent| match agent.pointer("/sip_endpoint/deployed") {
        Some(Value::Bool(true)) => field(agent, "sip_endpoint.uri"),
        _ => "-".to_owned(),
    }),
    ("CREATED", |agent| moment(agent, "created_at")),
];

impl Fields {
    fn lay_over(&self, agent: &mut Value) -> Result<(), Failure> {
        body::set_if(agent, "description", self.description.clone());
        body::set_if(agent, "active", self.active);
        body::set_if(agent, "is_demo", self.demo);
        if let Some(text) = &self.metadata {
            body::set(agent, "metadata", body::inline("--metadata", text)?);
        }
        Ok(())
    }
}

impl Agent {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { name, active, demo, metadata, page } => {
                let mut query: Query = name.into_iter().map(|name| ("name", name)).collect();
                query.extend(active.map(|active| ("active", active.to_string())));
                query.extend(demo.map(|demo| ("is_demo", demo.to_string())));
                query.extend(metadata.map(|object| ("metadata", object)));
                let listing = rest.list(&PATH, &query, page.wanted()).await?;
                shown.list("agents", COLUMNS, &listing.items, listing.more);
                Ok(())
            }
            Verb::Create { name, fields } => {
                let mut new = json!({ "name": name });
                fields.lay_over(&mut new)?;
                shown.one(&rest.post(&PATH, &new).await?);
                Ok(())
            }
            Verb::Schema => {
                shown.raw(&rest.get(&["core", "agent-config-schema"], &Query::new()).await?);
                Ok(())
            }
            Verb::Version(verb) => verb.run(&rest, &shown).await,
            verb => of_one(verb, &rest, &shown).await,
        }
    }
}

/// The verbs that name one agent.
async fn of_one(verb: Verb, rest: &Rest, shown: &Shown) -> Result<(), Failure> {
    match verb {
        Verb::Get { agent } => {
            let id = find::agent(rest, &agent).await?;
            let agent = rest.get(&["core", "agents", &id], &Query::new()).await?;
            show(shown, &agent);
        }
        Verb::Update { agent, name, fields } => {
            let mut change = json!({});
            body::set_if(&mut change, "name", name);
            fields.lay_over(&mut change)?;
            if change == json!({}) {
                return Err(Failure::Unusable("nothing to change; see --help".to_owned()));
            }
            let id = find::agent(rest, &agent).await?;
            shown.one(&rest.put(&["core", "agents", &id], &change).await?);
        }
        Verb::Delete { agent } => {
            let id = find::agent(rest, &agent).await?;
            rest.delete(&["core", "agents", &id]).await?;
            shown.done(&format!("agent {agent} deleted"), &json!({ "id": id }));
        }
        Verb::Deploy { agent } => {
            let id = find::agent(rest, &agent).await?;
            let path = ["core", "agents", &id, "deploy-as-sip"];
            let endpoint = rest.post(&path, &json!({})).await?;
            shown.done(&field(&endpoint, "uri"), &endpoint);
        }
        Verb::Undeploy { agent } => {
            let id = find::agent(rest, &agent).await?;
            rest.delete(&["core", "agents", &id, "deploy-as-sip"]).await?;
            shown.done(&format!("agent {agent} has no SIP address"), &json!({ "id": id }));
        }
        Verb::List { .. } | Verb::Create { .. } | Verb::Schema | Verb::Version(_) => {}
    }
    Ok(())
}

/// An agent with its versions and numbers as tables.
fn show(shown: &Shown, agent: &Value) {
    if shown.is_json() {
        shown.raw(agent);
        return;
    }
    let mut alone = agent.clone();
    let mut taken = Vec::new();
    if let Value::Object(entries) = &mut alone {
        // The same id again, for clients that look for it under this name.
        entries.shift_remove("agent_id");
        entries.shift_remove("web_widgets");
        for list in ["versions", "phone_numbers"] {
            let items = entries.shift_remove(list).unwrap_or_default();
            taken.push(items.as_array().cloned().unwrap_or_default());
        }
    }
    shown.one(&alone);
    if let [versions, numbers] = taken.as_slice() {
        shown.gap();
        shown.list("versions", version::COLUMNS, versions, false);
        shown.gap();
        shown.list("phone numbers", super::number::COLUMNS, numbers, false);
    }
}
