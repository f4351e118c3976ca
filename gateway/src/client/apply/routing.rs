//! The part of a plan about inbound routing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::declared::Routing;
use super::difference::Compare;
use super::plan::{Action, Doing, Draft};
use crate::client::shown::field;

/// Plans the declared routing.
pub(super) fn routing(draft: &mut Draft<'_>) {
    let Some(routing) = &draft.declared.routing else { return };
    let mut fallback = Value::Null;
    if let Some(Some(name)) = &routing.fallback {
        let declared = draft.declared.agents.iter().flatten().any(|one| one.name == *name);
        match draft.found.agent(name) {
            Err(why) => return draft.fault(&routing.place, &why),
            Ok(Some(agent)) => fallback = json!(field(agent, "id")),
            Ok(None) if declared => {}
            Ok(None) => {
                let why = format!("no agent is called {name}, here or there");
                return draft.fault(&routing.place, &why);
            }
        }
    }
    if draft.found.routing.is_null() {
        let notes = vec!["a workflow decides who answers".to_owned()];
        let actions = vec![Action::WriteRouting { exists: false }];
        return draft.create(KIND, "of this organisation", Doing { notes, actions });
    }
    let doing = change(routing, &fallback, draft);
    draft.settle(KIND, "of this organisation", doing);
}

const KIND: &str = "inbound routing";

fn change(routing: &Routing, fallback: &Value, draft: &Draft<'_>) -> Doing {
    let there = &draft.found.routing;
    let stored = |name: &str| there.get(name).unwrap_or(&Value::Null);
    let mut notes = Vec::new();
    let rewrite_secrets = draft.options.rewrite_secrets;
    let compare = Compare { secrets: &routing.workflow.secrets, rewrite_secrets };
    for one in compare.differences(&routing.workflow.value, stored("workflow_definition")) {
        let dot = if one.path.is_empty() { "" } else { "." };
        notes.push(format!("workflow_definition{dot}{}", one.text()));
    }
    let none = BTreeSet::new();
    let plain = Compare { secrets: &none, rewrite_secrets };
    let mut note = |name: &str, declared: Option<Value>| {
        for one in declared.iter().flat_map(|value| plain.differences(value, stored(name))) {
            notes.push(format!("{name}{}", one.text()));
        }
    };
    note("enabled", routing.enabled.map(Value::from));
    note("fallback_agent_id", routing.fallback.as_ref().map(|_| fallback.clone()));
    let version = routing.fallback_version.map_or(Value::Null, Value::from);
    note("fallback_agent_version", matches!(routing.fallback, Some(Some(_))).then_some(version));
    let actions =
        if notes.is_empty() { Vec::new() } else { vec![Action::WriteRouting { exists: true }] };
    Doing { notes, actions }
}

/// The body that writes the routing, once the fallback agent's id is known.
pub(super) fn body(routing: &Routing, fallback: Option<&str>) -> Value {
    let mut body = json!({ "workflow_definition": routing.workflow.value });
    let Value::Object(entries) = &mut body else { return body };
    entries.extend(routing.enabled.map(|enabled| ("enabled".to_owned(), json!(enabled))));
    match &routing.fallback {
        None => {}
        Some(None) => drop(entries.insert("fallback_agent_id".to_owned(), Value::Null)),
        Some(Some(_)) => {
            entries.insert("fallback_agent_id".to_owned(), json!(fallback));
            entries.insert("fallback_agent_version".to_owned(), json!(routing.fallback_version));
        }
    }
    body
}
