//! What there is: the organisation as the API shows it, as far as the files speak of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::declared::Declared;
use crate::client::failure::Failure;
use crate::client::rest::{Query, Rest};
use crate::client::shown::field;

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) trunks: Vec<Value>,
    pub(super) numbers: Vec<Value>,
    pub(super) agents: Vec<Value>,
    /// The versions of declared agents, by the agent's id.
    pub(super) versions: BTreeMap<String, Versions>,
    /// The routing config, or `null`.
    pub(super) routing: Value,
}

/// The two versions of an agent that a plan looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    pub(super) newest: Option<Value>,
    pub(super) published: Option<Value>,
}

impl Found {
    /// Asks for what the plan needs, and no more: a key need not see what it does not declare.
    pub(super) async fn fetch(rest: &Rest, declared: &Declared) -> Result<Self, Failure> {
        let none = Query::new();
        let mut found = Self::default();
        if declared.trunks.is_some() || declared.numbers.is_some() {
            found.trunks = rest.all(&["core", "trunks"], &none).await?;
        }
        if declared.numbers.is_some() || declared.agents.is_some() {
            found.numbers = rest.all(&["core", "phone-numbers"], &none).await?;
        }
        let names_fallback = declared
            .routing
            .as_ref()
            .is_some_and(|routing| matches!(routing.fallback, Some(Some(_))));
        if declared.agents.is_some() || names_fallback {
            found.agents = rest.all(&["core", "agents"], &none).await?;
        }
        for agent in declared.agents.iter().flatten() {
            for there in found.agents.iter().filter(|there| field(there, "name") == agent.name) {
                let id = field(there, "id");
                let versions = versions(rest, &id).await?;
                found.versions.insert(id, versions);
            }
        }
        if declared.routing.is_some() {
            found.routing = rest.get(&["core", "inbound-routing-config"], &none).await?;
        }
        Ok(found)
    }

    /// The trunk of this name, if there is one.
    pub(super) fn trunk(&self, name: &str) -> Result<Option<&Value>, String> {
        only(&self.trunks, "trunks", name)
    }

    /// The agent of this name, if there is one.
    pub(super) fn agent(&self, name: &str) -> Result<Option<&Value>, String> {
        only(&self.agents, "agents", name)
    }

    /// This number, if it is registered.
    pub(super) fn number(&self, number: &str) -> Option<&Value> {
        self.numbers.iter().find(|there| field(there, "phone_number") == number)
    }
}

/// The one thing of a name; two are a fault, because nobody can say which is meant.
fn only<'a>(all: &'a [Value], noun: &str, name: &str) -> Result<Option<&'a Value>, String> {
    let found: Vec<&Value> = all.iter().filter(|there| field(there, "name") == name).collect();
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        many => {
            let ids: Vec<String> = many.iter().map(|there| field(there, "id")).collect();
            Err(format!("{} {noun} are called {name}: {}", many.len(), ids.join(", ")))
        }
    }
}

/// Listed, not asked for as `latest`: that would make a draft.
async fn versions(rest: &Rest, agent: &str) -> Result<Versions, Failure> {
    let path = ["core", "agents", agent, "versions"];
    let newest = rest.list(&path, &Query::new(), 1).await?.items.pop();
    let published = Query::from([("published", "true".to_owned())]);
    let published = rest.list(&path, &published, 1).await?.items.pop();
    Ok(Versions { newest, published })
}
