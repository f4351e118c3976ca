//! `trunkline conversation`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::Query;
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body, find};

/// `trunkline conversation`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Conversation {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Conversations, newest first.
    #[command(after_help = "Examples:\n  \
        trunkline conversation list --status failed\n  \
        trunkline conversation list --agent Echo --after 2026-11-22T00:00:00Z --json")]
    List {
        /// `inbound` or `outbound`.
        #[arg(long, value_name = "DIRECTION")]
        direction: Option<String>,
        /// How far they have come: `ringing`, `in_progress`, `completed`, `failed`, ….
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
        /// Part of the other party's number.
        #[arg(long, value_name = "PART")]
        user: Option<String>,
        /// Part of the agent's number.
        #[arg(long, value_name = "PART")]
        number: Option<String>,
        /// With this agent: its id or name.
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Begun at or after this moment (ISO 8601).
        #[arg(long, value_name = "MOMENT")]
        after: Option<String>,
        /// Begun at or before this moment.
        #[arg(long, value_name = "MOMENT")]
        before: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// One conversation, with how it ended and what its audio was like.
    #[command(after_help = "Example:\n  trunkline conversation get 8f3c…")]
    Get {
        /// Its id.
        id: String,
    },
    /// Call somebody.
    #[command(after_help = "Examples:\n  \
        trunkline conversation call +15550200100 --number +15550100200\n  \
        trunkline conversation call +15550200100 --agent Caller --context 'Their order is late'")]
    Call {
        /// The number to call, E.164.
        callee: String,
        /// The number to call from.
        #[arg(long, value_name = "NUMBER")]
        number: Option<String>,
        /// The agent that talks: its id or name.
        #[arg(long, value_name = "AGENT", required_unless_present = "number")]
        agent: Option<String>,
        /// Which of its published versions; without it the newest.
        #[arg(long, value_name = "VERSION", requires = "agent")]
        version: Option<u32>,
        /// What the agent is told beforehand.
        #[arg(long, value_name = "TEXT")]
        context: Option<String>,
        /// Data of your own: a JSON object.
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
        /// A UUID of your choosing; asking again with it calls nobody a second time.
        #[arg(long, value_name = "UUID")]
        id: Option<String>,
    },
    /// Write down what was said in a conversation, or what it was about: what is not named stays.
    #[command(after_help = "Examples:\n  \
        trunkline conversation annotate 8f3c… --summary 'Wants a refund'\n  \
        trunkline conversation annotate 8f3c… --transcript turns.json")]
    Annotate {
        /// Its id.
        id: String,
        /// What it was about.
        #[arg(long, value_name = "TEXT")]
        summary: Option<String>,
        /// YAML or JSON file with what was said, `-` for standard input: an object with `items`, of which
        /// messages have `type`, `role` and `content`.
        #[arg(long, value_name = "FILE")]
        transcript: Option<PathBuf>,
    },
    /// End a call, or cancel one that waits.
    #[command(after_help = "Example:\n  trunkline conversation hangup 8f3c…")]
    Hangup {
        /// Its id.
        id: String,
    },
    /// Hand a call to another number; the agent leaves it.
    #[command(after_help = "Example:\n  \
        trunkline conversation transfer 8f3c… +15550300100 --show-agent-number")]
    Transfer {
        /// Its id.
        id: String,
        /// Where to, E.164.
        number: String,
        /// Show the agent's number there instead of the other party's.
        #[arg(long)]
        show_agent_number: bool,
    },
}

const PATH: [&str; 2] = ["core", "conversations"];

const COLUMNS: &[Column] = &[
    ("ID", |conversation| field(conversation, "id")),
    ("BEGUN", |conversation| moment(conversation, "created_at")),
    ("DIRECTION", |conversation| field(conversation, "direction")),
    ("OTHER PARTY", |conversation| field(conversation, "user_id")),
    ("NUMBER", |conversation| field(conversation, "agent_number")),
    ("AGENT", |conversation| field(conversation, "agent.name")),
    ("SECONDS", |conversation| field(conversation, "duration")),
    ("STATUS", |conversation| field(conversation, "status")),
    ("ENDED", ended),
];

/// `callee_busy (callee)`.
fn ended(conversation: &Value) -> String {
    match field(conversation, "end_reason.code").as_str() {
        "-" => "-".to_owned(),
        code => format!("{code} ({})", field(conversation, "end_reason.party")),
    }
}

impl Conversation {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { direction, status, user, number, agent, after, before, page } => {
                let given = [
                    ("direction", direction),
                    ("status", status),
                    ("user_id", user),
                    ("agent_number", number),
                    ("created_after", after),
                    ("created_before", before),
                ];
                let mut query: Query =
                    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                if let Some(agent) = agent {
                    query.push(("agent_id", find::agent(&rest, &agent).await?));
                }
                let listing = rest.list(&PATH, &query, page.wanted()).await?;
                shown.list("conversations", COLUMNS, &listing.items, listing.more);
            }
            Verb::Get { id } => {
                shown.one(&rest.get(&["core", "conversations", &id], &Query::new()).await?);
            }
            Verb::Call { callee, number, agent, version, context, metadata, id } => {
                let mut new = json!({ "channel": "telephone", "user_id": callee });
                body::set_if(&mut new, "agent_number", number);
                if let Some(agent) = agent {
                    body::set(&mut new, "agent_id", find::agent(&rest, &agent).await?);
                }
                body::set_if(&mut new, "version", version);
                body::set_if(&mut new, "initial_context", context);
                body::set_if(&mut new, "id", id);
                if let Some(text) = metadata {
                    body::set(&mut new, "custom_metadata", body::inline("--metadata", &text)?);
                }
                let reply = rest.post(&PATH, &new).await?;
                let conversation = reply.get("conversation").cloned().unwrap_or_default();
                shown.done(&field(&conversation, "id"), &conversation);
            }
            Verb::Annotate { id, summary, transcript } => {
                let mut annotation = json!({});
                body::set_if(&mut annotation, "summary", summary);
                if let Some(path) = transcript {
                    body::set(&mut annotation, "conversation", body::object(&path)?);
                }
                if annotation == json!({}) {
                    return Err(Failure::Unusable("nothing to write down; see --help".to_owned()));
                }
                shown.one(&rest.patch(&["core", "conversations", &id], &annotation).await?);
            }
            Verb::Hangup { id } => {
                let path = ["core", "conversations", &id, "hangup"];
                let reply = rest.post(&path, &json!({})).await?;
                shown.done(&format!("{id} is being ended"), &reply);
            }
            Verb::Transfer { id, number, show_agent_number } => {
                let shows = if show_agent_number { "agent_number" } else { "transferee_number" };
                let transfer = json!({ "transfer_number": number, "displayed_number": shows });
                let path = ["core", "conversations", &id, "transfer"];
                let reply = rest.post(&path, &transfer).await?;
                shown.done(&format!("{id} is being handed to {number}"), &reply);
            }
        }
        Ok(())
    }
}
