//! Does what a plan says, step by step, and stops at the first that fails.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::declared::Declared;
use super::found::Found;
use super::plan::{Action, Plan, Sign, Step, Target};
use super::routing;
use crate::client::failure::Failure;
use crate::client::rest::Rest;
use crate::client::shown::{field, printable};
use crate::run::say_error;

/// Runs a plan to its end, or to its first failure.
pub(super) async fn run(
    rest: &Rest,
    declared: &Declared,
    found: &Found,
    plan: &Plan,
    quiet: bool,
) -> Result<(), Failure> {
    let by_name = |all: &[Value]| -> BTreeMap<String, String> {
        all.iter().map(|one| (field(one, "name"), field(one, "id"))).collect()
    };
    let mut runner = Runner {
        rest,
        declared,
        trunks: by_name(&found.trunks),
        agents: by_name(&found.agents),
        made: BTreeMap::new(),
    };
    let steps: Vec<&Step> = plan.steps.iter().filter(|step| step.sign != Sign::Same).collect();
    for (done, step) in steps.iter().enumerate() {
        for action in &step.actions {
            if let Err(failure) = runner.act(action).await {
                let name = printable(&step.name);
                say_error(&format!(
                    "stopped at {} {name}, with {done} of {} done; run it again to go on\n",
                    step.kind,
                    steps.len()
                ));
                return Err(failure);
            }
        }
        if !quiet {
            say_error(&format!("{} {} ✔\n", step.kind, printable(&step.name)));
        }
    }
    Ok(())
}

struct Runner<'a> {
    rest: &'a Rest,
    declared: &'a Declared,
    /// Ids by name: of those found, and of those made since.
    trunks: BTreeMap<String, String>,
    agents: BTreeMap<String, String>,
    /// The numbers of the versions made, by agent.
    made: BTreeMap<String, String>,
}

impl Runner<'_> {
    async fn act(&mut self, action: &Action) -> Result<(), Failure> {
        match action {
            Action::CreateTrunk { name } => self.create_trunk(name).await,
            Action::UpdateTrunk { id, body } => self.put(&["core", "trunks", id], body).await,
            Action::RegisterNumber { number, trunk, shareable } => {
                let new = json!({
                    "phone_number": number,
                    "trunk_id": known(&self.trunks, trunk)?,
                    "outbound_shareable": shareable,
                });
                self.rest.post(&["core", "phone-numbers"], &new).await.map(drop)
            }
            Action::UpdateNumber { number, shareable } => {
                let change = json!({ "outbound_shareable": shareable });
                self.rest.patch(&["core", "phone-numbers", number], &change).await.map(drop)
            }
            Action::CreateAgent { name } => self.create_agent(name).await,
            Action::UpdateAgent { id, body } => self.put(&["core", "agents", id], body).await,
            Action::CreateVersion { agent } => self.create_version(agent).await,
            Action::Publish { .. } => self.publish(action).await,
            Action::Deploy { agent } => {
                let path = ["core", "agents", known(&self.agents, agent)?, "deploy-as-sip"];
                self.rest.post(&path, &json!({})).await.map(drop)
            }
            Action::Undeploy { agent } => {
                let path = ["core", "agents", known(&self.agents, agent)?, "deploy-as-sip"];
                self.rest.delete(&path).await
            }
            Action::WriteRouting { exists } => self.write_routing(*exists).await,
            Action::Delete { path } => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                self.rest.delete(&path).await
            }
        }
    }

    async fn put(&self, path: &[&str], body: &Value) -> Result<(), Failure> {
        self.rest.put(path, body).await.map(drop)
    }

    async fn create_trunk(&mut self, name: &str) -> Result<(), Failure> {
        let trunk = self.declared.trunks.iter().flatten().find(|one| one.name == name);
        let body = trunk.map(|trunk| &trunk.body).ok_or_else(lost)?;
        let made = self.rest.post(&["core", "trunks"], body).await?;
        self.trunks.insert(name.to_owned(), field(&made, "id"));
        Ok(())
    }

    async fn create_agent(&mut self, name: &str) -> Result<(), Failure> {
        let agent = self.declared.agents.iter().flatten().find(|one| one.name == name);
        let mut body = Value::Object(agent.ok_or_else(lost)?.fields.clone());
        crate::client::body::set(&mut body, "name", name);
        let made = self.rest.post(&["core", "agents"], &body).await?;
        self.agents.insert(name.to_owned(), field(&made, "id"));
        Ok(())
    }

    async fn create_version(&mut self, name: &str) -> Result<(), Failure> {
        let agent = self.declared.agents.iter().flatten().find(|one| one.name == name);
        let config = agent.and_then(|agent| agent.config.as_ref()).ok_or_else(lost)?;
        let path = ["core", "agents", known(&self.agents, name)?, "versions"];
        let made = self.rest.post(&path, &json!({ "config": config.value })).await?;
        self.made.insert(name.to_owned(), field(&made, "version"));
        Ok(())
    }

    async fn publish(&self, action: &Action) -> Result<(), Failure> {
        let Action::Publish { agent, version, assign, unassign, direction } = action else {
            return Err(lost());
        };
        let version = match version {
            Target::Number(number) => number,
            Target::Made => known(&self.made, agent)?,
        };
        let mut body = json!({ "direction": direction.word() });
        if !assign.is_empty() {
            crate::client::body::set(&mut body, "phone_numbers", json!(assign));
        }
        if !unassign.is_empty() {
            crate::client::body::set(&mut body, "unassign_phone_numbers", json!(unassign));
        }
        let id = known(&self.agents, agent)?;
        let path = ["core", "agents", id, "versions", version, "publish"];
        self.rest.post(&path, &body).await.map(drop)
    }

    async fn write_routing(&self, exists: bool) -> Result<(), Failure> {
        let routing = self.declared.routing.as_ref().ok_or_else(lost)?;
        let fallback = match &routing.fallback {
            Some(Some(name)) => Some(known(&self.agents, name)?.as_str()),
            _ => None,
        };
        let (path, body) = (["core", "inbound-routing-config"], routing::body(routing, fallback));
        let written = if exists {
            self.rest.put(&path, &body).await
        } else {
            self.rest.post(&path, &body).await
        };
        written.map(drop)
    }
}

/// An id that an earlier step found or made.
fn known<'a>(all: &'a BTreeMap<String, String>, name: &str) -> Result<&'a String, Failure> {
    all.get(name).ok_or_else(lost)
}

/// A step that speaks of something no earlier step made: plans are made so that this does not happen.
fn lost() -> Failure {
    Failure::Stopped("the plan does not hold together; please report this".to_owned())
}
