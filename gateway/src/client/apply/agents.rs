//! The part of a plan about agents: themselves, their version, their numbers, their SIP address.

use serde_json::{Map, Value};

use super::declared::{Agent, Document};
use super::difference::Compare;
use super::found::Versions;
use super::plan::{Action, Direction, Doing, Draft, Target};
use crate::client::shown::field;

/// Differences of a config that are told one by one; more are counted.
const TOLD: usize = 8;

/// Plans every declared agent.
pub(super) fn agents(draft: &mut Draft<'_>) {
    for agent in draft.declared.agents.iter().flatten() {
        check_numbers(draft, agent);
        match draft.found.agent(&agent.name) {
            Err(why) => draft.fault(&agent.place, &why),
            Ok(None) => {
                let mut doing = Doing::default();
                doing.actions.push(Action::CreateAgent { name: agent.name.clone() });
                version_and_slots(draft, agent, None, &mut doing);
                draft.create("agent", &agent.name, doing);
            }
            Ok(Some(there)) => {
                let mut doing = Doing::default();
                own_fields(agent, there, &mut doing);
                version_and_slots(draft, agent, Some(there), &mut doing);
                draft.settle("agent", &agent.name, doing);
            }
        }
    }
}

/// A number must be there, or be declared, before an agent can have it.
fn check_numbers(draft: &mut Draft<'_>, agent: &Agent) {
    for number in agent.numbers() {
        let declared = draft.declared.numbers.iter().flatten().any(|one| one.number == *number);
        if !declared && draft.found.number(number).is_none() {
            draft.fault(&agent.place, &format!("{number} is not registered, and not declared"));
        }
    }
    for other in draft.declared.agents.iter().flatten().filter(|one| one.name != agent.name) {
        let both = |mine: &Option<Vec<String>>, theirs: &Option<Vec<String>>| {
            let theirs =
                theirs.iter().flatten().find(|one| mine.iter().flatten().any(|m| m == *one));
            theirs.cloned()
        };
        for (slot, mine, theirs) in [
            ("inbound", &agent.inbound, &other.inbound),
            ("outbound", &agent.outbound, &other.outbound),
        ] {
            if let Some(number) = both(mine, theirs) {
                let why = format!("{} has the {slot} slot of {number} too", other.name);
                draft.fault(&agent.place, &why);
            }
        }
    }
}

fn own_fields(agent: &Agent, there: &Value, doing: &mut Doing) {
    let mut body = Map::new();
    for (name, value) in &agent.fields {
        let stored = there.get(name).unwrap_or(&Value::Null);
        if stored != value {
            let secrets = std::collections::BTreeSet::new();
            let compare = Compare { secrets: &secrets, rewrite_secrets: false };
            for one in compare.differences(value, stored) {
                let dot = if one.path.is_empty() { "" } else { "." };
                doing.notes.push(format!("{name}{dot}{}", one.text()));
            }
            body.insert(name.clone(), value.clone());
        }
    }
    if !body.is_empty() {
        let body = Value::Object(body);
        doing.actions.push(Action::UpdateAgent { id: field(there, "id"), body });
    }
}

/// The version that is wanted, and everything that hangs on it.
fn version_and_slots(
    draft: &mut Draft<'_>,
    agent: &Agent,
    there: Option<&Value>,
    doing: &mut Doing,
) {
    let found = there.and_then(|there| draft.found.versions.get(&field(there, "id")));
    let versions = found.cloned().unwrap_or_default();
    let wanted = wanted_version(agent, &versions, draft.options.rewrite_secrets, doing);
    let deployed = there.and_then(|there| there.pointer("/sip_endpoint/deployed")).cloned();
    let deployed = deployed == Some(Value::Bool(true));
    let (mut published, needs) = (versions.published.is_some(), agent.numbers().next().is_some());
    match wanted {
        Some(wanted) if agent.publish => {
            slots(draft, agent, &wanted, doing);
            published = true;
        }
        _ if needs => {
            draft.fault(
                &agent.place,
                "has no version that its numbers could have: declare a config",
            );
        }
        _ => {}
    }
    match agent.deploy {
        Some(true) if !deployed && !published => {
            draft.fault(&agent.place, "has no published version to deploy as SIP");
        }
        Some(true) if !deployed => {
            doing.notes.push("deployed as SIP".to_owned());
            doing.actions.push(Action::Deploy { agent: agent.name.clone() });
        }
        Some(false) if deployed => {
            doing.notes.push("no longer deployed as SIP".to_owned());
            doing.actions.push(Action::Undeploy { agent: agent.name.clone() });
        }
        _ => {}
    }
}

/// A version to have in slots.
struct Wanted {
    target: Target,
    /// Its id, when it is there.
    id: Option<String>,
    published: bool,
}

impl Wanted {
    fn there(version: &Value) -> Self {
        Self {
            target: Target::Number(field(version, "version")),
            id: Some(field(version, "id")),
            published: version.get("published") == Some(&Value::Bool(true)),
        }
    }
}

/// The newest published version if its config is the declared one, else the newest draft if that has
/// it, else a new version. A draft that somebody else works on is never written over.
fn wanted_version(
    agent: &Agent,
    versions: &Versions,
    rewrite_secrets: bool,
    doing: &mut Doing,
) -> Option<Wanted> {
    let Some(config) = &agent.config else {
        return versions.published.as_ref().map(Wanted::there);
    };
    let differences = |version: &Value| {
        let stored = version.get("config").unwrap_or(&Value::Null);
        Compare { secrets: &config.secrets, rewrite_secrets }.differences(&config.value, stored)
    };
    let newest = versions.newest.as_ref();
    let candidates =
        if agent.publish { [versions.published.as_ref(), newest] } else { [newest, None] };
    for version in candidates.into_iter().flatten() {
        if differences(version).is_empty() {
            return Some(Wanted::there(version));
        }
    }
    let before = versions.published.as_ref().or(newest);
    note_new_version(before.map(&differences), config, doing);
    doing.actions.push(Action::CreateVersion { agent: agent.name.clone() });
    Some(Wanted { target: Target::Made, id: None, published: false })
}

fn note_new_version(
    differences: Option<Vec<super::difference::Difference>>,
    config: &Document,
    doing: &mut Doing,
) {
    let Some(differences) = differences else {
        let runtime = field(&config.value, "runtime.type");
        doing.notes.push(format!("first version (runtime {runtime})"));
        return;
    };
    doing.notes.push("new version".to_owned());
    let told = differences.iter().take(TOLD).map(|one| {
        let dot = if one.path.is_empty() { "" } else { "." };
        format!("  config{dot}{}", one.text())
    });
    doing.notes.extend(told);
    if differences.len() > TOLD {
        doing.notes.push(format!("  … and {} more", differences.len() - TOLD));
    }
}

/// Publishes where that is needed: the version itself, and numbers whose slot holds another one.
fn slots(draft: &Draft<'_>, agent: &Agent, wanted: &Wanted, doing: &mut Doing) {
    let lacks = |number: &&String, slot: &str| {
        let holds = draft.found.number(number).map(|there| field(there, slot));
        wanted.id.is_none() || holds != wanted.id
    };
    let of = |numbers: &Option<Vec<String>>, slot: &str| -> Vec<String> {
        numbers.iter().flatten().filter(|number| lacks(number, slot)).cloned().collect()
    };
    let inbound = of(&agent.inbound, INBOUND);
    let outbound = of(&agent.outbound, OUTBOUND);
    let (both, inbound): (Vec<_>, Vec<_>) =
        inbound.into_iter().partition(|number| outbound.contains(number));
    let outbound = outbound.into_iter().filter(|number| !both.contains(number)).collect();
    let mut publishes = Vec::new();
    for (numbers, direction) in
        [(both, Direction::Both), (inbound, Direction::Inbound), (outbound, Direction::Outbound)]
    {
        if !numbers.is_empty() {
            let word = direction.word();
            doing.notes.push(format!("published to {} ({word})", numbers.join(", ")));
            publishes.push((numbers, Vec::new(), direction));
        }
    }
    if draft.options.prune {
        for (declared, slot, direction) in [
            (&agent.inbound, INBOUND, Direction::Inbound),
            (&agent.outbound, OUTBOUND, Direction::Outbound),
        ] {
            let gone = undeclared(draft, agent, declared.as_deref(), slot);
            if !gone.is_empty() {
                let word = direction.word();
                doing.notes.push(format!("taken from {} ({word})", gone.join(", ")));
                publishes.push((Vec::new(), gone, direction));
            }
        }
    }
    if publishes.is_empty() && !wanted.published {
        doing.notes.push("published".to_owned());
        publishes.push((Vec::new(), Vec::new(), Direction::Inbound));
    }
    doing.actions.extend(publishes.into_iter().map(|(assign, unassign, direction)| {
        let (agent, version) = (agent.name.clone(), wanted.target.clone());
        Action::Publish { agent, version, assign, unassign, direction }
    }));
}

const INBOUND: &str = "inbound_agent_version_id";
const OUTBOUND: &str = "outbound_agent_version_id";

/// Numbers that have this agent in a slot and are not to; none when the list is not declared.
fn undeclared(
    draft: &Draft<'_>,
    agent: &Agent,
    declared: Option<&[String]>,
    slot: &str,
) -> Vec<String> {
    let Some(declared) = declared else { return Vec::new() };
    let there = draft.found.agent(&agent.name).ok().flatten();
    let Some(id) = there.map(|there| field(there, "id")) else { return Vec::new() };
    let spelled = slot.trim_end_matches("_id");
    let has = |number: &&Value| field(number, &format!("{spelled}.agent.id")) == id;
    let numbers =
        draft.found.numbers.iter().filter(has).map(|number| field(number, "phone_number"));
    numbers.filter(|number| !declared.contains(number)).collect()
}
