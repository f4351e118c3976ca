//! `trunkline webhook`: where events are posted to, and what became of them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::rest::{Query, Rest};
use super::shown::{Column, Shown, field, moment};
use super::trunk::Page;
use super::{EXIT_CODES, body};

/// `trunkline webhook`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Webhook {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The organisation's webhooks, newest first.
    #[command(after_help = "Example:\n  trunkline webhook list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// One webhook, with how its deliveries fare.
    #[command(after_help = "Example:\n  trunkline webhook get 5f0c…")]
    Get {
        /// Its id.
        id: String,
    },
    /// Make a webhook; its secret is printed this once and never again.
    #[command(after_help = "Examples:\n  \
        trunkline webhook create https://example.com/calls > webhook.secret\n  \
        trunkline webhook create https://example.com/ends --event call.ended --event call.refused")]
    Create {
        /// Where events are posted to.
        url: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change a webhook: what is not named stays as it is.
    #[command(after_help = "Example:\n  trunkline webhook update 5f0c… --enabled false")]
    Update {
        /// Its id.
        id: String,
        /// Where events are posted to.
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Delete a webhook and what waits for it.
    #[command(after_help = "Example:\n  trunkline webhook delete 5f0c…")]
    Delete {
        /// Its id.
        id: String,
    },
    /// Make a new secret; for a while deliveries are signed with the old one too.
    #[command(after_help = "Example:\n  trunkline webhook rotate 5f0c… > webhook.secret")]
    Rotate {
        /// Its id.
        id: String,
        /// Seconds in which the old secret signs too; without it a day.
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u32>,
    },
    /// Post a test event, as any other.
    #[command(after_help = "Example:\n  trunkline webhook test 5f0c…")]
    Test {
        /// Its id.
        id: String,
    },
    /// What became of its events, newest first.
    #[command(after_help = "Example:\n  trunkline webhook deliveries 5f0c… --state dead")]
    Deliveries {
        /// The webhook's id.
        id: String,
        /// `pending`, `delivered` or `dead`.
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Send a delivery again, or every one that was given up.
    #[command(after_help = "Examples:\n  \
        trunkline webhook replay 5f0c…\n  \
        trunkline webhook replay 5f0c… 77ab…")]
    Replay {
        /// The webhook's id.
        id: String,
        /// The delivery's id; without it every one that was given up.
        delivery: Option<String>,
    },
}

/// What a webhook is made of.
#[derive(Debug, Args)]
struct Fields {
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// An event it wants, such as `call.ended`; give it once for each. Without it all of them.
    #[arg(long, value_name = "EVENT")]
    event: Vec<String>,
    /// Put in what only `conversations:read_sensitive` shows.
    #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
    include_sensitive: Option<bool>,
    /// Whether events are delivered.
    #[arg(long, value_name = "YES", action = clap::ArgAction::Set)]
    enabled: Option<bool>,
}

impl Fields {
    fn lay_over(&self, webhook: &mut Value) {
        body::set_if(webhook, "description", self.description.clone());
        if !self.event.is_empty() {
            body::set(webhook, "events", json!(self.event));
        }
        body::set_if(webhook, "include_sensitive", self.include_sensitive);
        body::set_if(webhook, "enabled", self.enabled);
    }
}

const PATH: [&str; 2] = ["core", "webhooks"];

const COLUMNS: &[Column] = &[
    ("ID", |webhook| field(webhook, "id")),
    ("URL", |webhook| field(webhook, "url")),
    ("EVENTS", |webhook| field(webhook, "events")),
    ("ENABLED", |webhook| field(webhook, "enabled")),
    ("FAILURES IN A ROW", |webhook| field(webhook, "consecutive_failures")),
    ("LAST DELIVERED", |webhook| moment(webhook, "last_delivered_at")),
];

const DELIVERIES: &[Column] = &[
    ("ID", |delivery| field(delivery, "id")),
    ("QUEUED", |delivery| moment(delivery, "created_at")),
    ("EVENT", |delivery| field(delivery, "event_type")),
    ("STATE", |delivery| field(delivery, "state")),
    ("ATTEMPTS", |delivery| field(delivery, "attempts")),
    ("ANSWER", |delivery| field(delivery, "status_code")),
    ("WHY NOT", |delivery| field(delivery, "error")),
];

impl Webhook {
    /// Runs the verb.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (rest, shown) = (self.connection.open()?, Shown::new(self.connection.json));
        match self.verb {
            Verb::List { page } => {
                let listing = rest.list(&PATH, &Query::new(), page.wanted()).await?;
                shown.list("webhooks", COLUMNS, &listing.items, listing.more);
            }
            Verb::Get { id } => {
                shown.one(&rest.get(&["core", "webhooks", &id], &Query::new()).await?);
            }
            Verb::Create { url, fields } => {
                let mut new = json!({ "url": url });
                fields.lay_over(&mut new);
                show_secret(&shown, &rest.post(&PATH, &new).await?);
            }
            Verb::Update { id, url, fields } => {
                let mut change = json!({});
                body::set_if(&mut change, "url", url);
                fields.lay_over(&mut change);
                if change == json!({}) {
                    return Err(Failure::Unusable("nothing to change; see --help".to_owned()));
                }
                shown.one(&rest.put(&["core", "webhooks", &id], &change).await?);
            }
            Verb::Delete { id } => {
                rest.delete(&["core", "webhooks", &id]).await?;
                shown.done(&format!("webhook {id} deleted"), &json!({ "id": id }));
            }
            Verb::Rotate { id, overlap } => {
                let mut how = json!({});
                body::set_if(&mut how, "overlap_seconds", overlap);
                let path = ["core", "webhooks", &id, "rotate-secret"];
                show_secret(&shown, &rest.post(&path, &how).await?);
            }
            Verb::Test { id } => {
                let path = ["core", "webhooks", &id, "test"];
                shown.one(&rest.post(&path, &json!({})).await?);
            }
            Verb::Deliveries { id, state, page } => {
                let query: Query = state.into_iter().map(|state| ("state", state)).collect();
                let path = ["core", "webhooks", &id, "deliveries"];
                let listing = rest.list(&path, &query, page.wanted()).await?;
                shown.list("deliveries", DELIVERIES, &listing.items, listing.more);
            }
            Verb::Replay { id, delivery } => replay(&rest, &shown, &id, delivery).await?,
        }
        Ok(())
    }
}

async fn replay(
    rest: &Rest,
    shown: &Shown,
    id: &str,
    delivery: Option<String>,
) -> Result<(), Failure> {
    let reply = match &delivery {
        Some(delivery) => {
            let path = ["core", "webhooks", id, "deliveries", delivery, "replay"];
            rest.post(&path, &json!({})).await?
        }
        None => rest.post(&["core", "webhooks", id, "replay"], &json!({})).await?,
    };
    shown.one(&reply);
    Ok(())
}

/// Prints a secret that was just made, alone on its line, so that a file takes it as it is.
fn show_secret(shown: &Shown, made: &Value) {
    if !shown.is_json() {
        shown.aside(&format!("webhook {}: its secret, shown this once", field(made, "id")));
    }
    shown.done(&field(made, "secret"), made);
}
