//! The operator's verbs: `trunkline trunk list`, `trunkline apply -f site.yaml`, ….
//!
//! ```text
//!  noun ─► verb ─► Rest ─────────► the REST API of a running gateway, here or elsewhere
//!                   │                   one key, one organisation, its scopes
//!                   └─► Shown ─► a table for people, JSON for scripts
//! ```
//!
//! Nothing here touches a store: what these verbs can do is what the key may do. The key comes from a
//! file or the environment, never from the command line, where every process could read it; it is sent
//! over TLS or to this machine only, and never after a redirection.
//!
//! What the API returns was partly written by strangers (a caller's name, a trunk's name): it is shown
//! without control characters, so that no name can steer a terminal.

mod agent;
pub mod apply;
mod audit;
mod body;
mod connection;
mod conversation;
mod decision;
mod failure;
mod find;
mod key;
mod number;
mod organisation;
mod rest;
mod routing;
mod shown;
mod token;
mod trunk;
mod user;
mod version;
mod webhook;
mod workflow;
mod yaml;

use std::process::ExitCode;

use clap::Subcommand;

pub use connection::Connection;

/// What every noun's page of help ends with.
pub(crate) const EXIT_CODES: &str = "Exit codes:\n  \
    0  done\n  \
    1  the API refused it, or it ended half-way\n  \
    2  the command line, a file or a name cannot be used\n  \
    3  the key is not valid, or may not do this\n  \
    4  there is no such thing\n  \
    5  the API cannot be reached, or cannot answer now";

/// The nouns of the API.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trunks: the relations to carriers and PBXs.
    Trunk(trunk::Trunk),
    /// Phone numbers and the trunks that carry them.
    Number(number::Number),
    /// Agents, their versions, and where they are published.
    Agent(agent::Agent),
    /// Inbound routing: the workflow that decides who answers.
    Routing(routing::Routing),
    /// Workflows: stored definitions, and their runs.
    Workflow(workflow::Workflow),
    /// Webhooks: where events are posted to, and what became of them.
    Webhook(webhook::Webhook),
    /// Conversations: call somebody, look at calls, hang up, hand on.
    Conversation(conversation::Conversation),
    /// Decisions: why calls were refused.
    Decision(decision::Decision),
    /// Organisations within reach of the key.
    Organisation(organisation::Organisation),
    /// Who belongs to the organisation.
    Member(user::Member),
    /// Everyone who has an account on the node.
    User(user::User),
    /// API keys of the organisation, through the API (`keys` works on the store itself).
    Key(key::Key),
    /// Personal tokens of whoever asks.
    Token(token::Token),
    /// The audit log: who changed what.
    Audit(audit::Audit),
    /// Make the organisation look like a file says: trunks, numbers, agents, routing.
    Apply(apply::Apply),
}

/// Runs one verb to its end.
pub async fn run(command: Command) -> ExitCode {
    let json = command.connection().json;
    let done = match command {
        Command::Trunk(noun) => noun.run().await,
        Command::Number(noun) => noun.run().await,
        Command::Agent(noun) => noun.run().await,
        Command::Routing(noun) => noun.run().await,
        Command::Workflow(noun) => noun.run().await,
        Command::Webhook(noun) => noun.run().await,
        Command::Conversation(noun) => noun.run().await,
        Command::Decision(noun) => noun.run().await,
        Command::Organisation(noun) => noun.run().await,
        Command::Member(noun) => noun.run().await,
        Command::User(noun) => noun.run().await,
        Command::Key(noun) => noun.run().await,
        Command::Token(noun) => noun.run().await,
        Command::Audit(noun) => noun.run().await,
        Command::Apply(noun) => noun.run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(json);
            failure.exit_code()
        }
    }
}

impl Command {
    const fn connection(&self) -> &Connection {
        match self {
            Self::Trunk(noun) => &noun.connection,
            Self::Number(noun) => &noun.connection,
            Self::Agent(noun) => &noun.connection,
            Self::Routing(noun) => &noun.connection,
            Self::Workflow(noun) => &noun.connection,
            Self::Webhook(noun) => &noun.connection,
            Self::Conversation(noun) => &noun.connection,
            Self::Decision(noun) => &noun.connection,
            Self::Organisation(noun) => &noun.connection,
            Self::Member(noun) => &noun.connection,
            Self::User(noun) => &noun.connection,
            Self::Key(noun) => &noun.connection,
            Self::Token(noun) => &noun.connection,
            Self::Audit(noun) => &noun.connection,
            Self::Apply(noun) => &noun.connection,
        }
    }
}
