//! What has to be done, in which order, and how that is shown. Pure: same inputs, same plan.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::declared::Declared;
use super::found::Found;
use super::{Options, agents, routing, trunks};
use crate::client::shown::{field, printable};
use crate::terminal::Style;

/// What is done to one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Create,
    Change,
    Delete,
    Same,
}

impl Sign {
    const fn symbol(self) -> char {
        match self {
            Self::Create => '+',
            Self::Change => '~',
            Self::Delete => '-',
            Self::Same => '=',
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
            Self::Same => "same",
        }
    }
}

/// One thing, and what is to be done to it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) sign: Sign,
    /// `trunk`, `phone number`, `agent`, `inbound routing`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// What changes, in words, without secrets.
    pub(super) notes: Vec<String>,
    /// What the API is asked, in this order.
    pub(super) actions: Vec<Action>,
}

/// One request. Trunks and agents are named: their ids may only be known once they are made.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    CreateTrunk {
        name: String,
    },
    UpdateTrunk {
        id: String,
        body: Value,
    },
    RegisterNumber {
        number: String,
        trunk: String,
        shareable: bool,
    },
    UpdateNumber {
        number: String,
        shareable: bool,
    },
    CreateAgent {
        name: String,
    },
    UpdateAgent {
        id: String,
        body: Value,
    },
    /// The declared config becomes a new version.
    CreateVersion {
        agent: String,
    },
    Publish {
        agent: String,
        version: Target,
        assign: Vec<String>,
        unassign: Vec<String>,
        direction: Direction,
    },
    Deploy {
        agent: String,
    },
    Undeploy {
        agent: String,
    },
    /// `exists` says whether it is written over.
    WriteRouting {
        exists: bool,
    },
    /// DELETE of this path.
    Delete {
        path: Vec<String>,
    },
}

/// A version to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One that is there.
    Number(String),
    /// The one that this run made.
    Made,
}

/// Which slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound,
    Outbound,
    Both,
}

impl Direction {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Both => "both",
        }
    }
}

/// Everything that has to be done, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
}

impl Plan {
    /// Holds what is declared against what is found.
    ///
    /// # Errors
    /// Everything that cannot be done, each with its place.
    pub(super) fn make(
        declared: &Declared,
        found: &Found,
        options: Options,
    ) -> Result<Self, Vec<String>> {
        let mut draft = Draft { declared, found, options, steps: Vec::new(), faults: Vec::new() };
        trunks::trunks(&mut draft);
        trunks::numbers(&mut draft);
        agents::agents(&mut draft);
        routing::routing(&mut draft);
        if options.prune {
            prune(&mut draft);
        }
        if draft.faults.is_empty() { Ok(Self { steps: draft.steps }) } else { Err(draft.faults) }
    }

    /// Whether there is anything to do.
    pub(super) fn has_changes(&self) -> bool {
        self.count(Sign::Same) < self.steps.len()
    }

    fn count(&self, sign: Sign) -> usize {
        self.steps.iter().filter(|step| step.sign == sign).count()
    }

    /// The plan for people.
    pub(super) fn text(&self, style: &Style) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let colour = match step.sign {
                Sign::Create => style.good,
                Sign::Change => style.other,
                Sign::Delete => style.bad,
                Sign::Same => style.dim,
            };
            let title = printable(&format!("{} {} {}", step.sign.symbol(), step.kind, step.name));
            let _ = writeln!(text, "{colour}{title}{}", style.off);
            for note in &step.notes {
                let _ = writeln!(text, "    {}", printable(note));
            }
        }
        let same = self.count(Sign::Same);
        if self.has_changes() {
            let (made, changed, gone) =
                (self.count(Sign::Create), self.count(Sign::Change), self.count(Sign::Delete));
            let _ = writeln!(
                text,
                "{made} to create, {changed} to change, {gone} to delete, {same} as declared."
            );
        } else {
            let _ = writeln!(text, "No changes: {same} as declared.");
        }
        text
    }

    /// The plan for scripts.
    pub(super) fn json(&self) -> Value {
        let step = |step: &Step| {
            json!({
                "action": step.sign.word(), "kind": step.kind, "name": step.name, "notes": step.notes,
            })
        };
        Value::Array(self.steps.iter().map(step).collect())
    }
}

/// A plan that is being made.
pub(super) struct Draft<'a> {
    pub(super) declared: &'a Declared,
    pub(super) found: &'a Found,
    pub(super) options: Options,
    pub(super) steps: Vec<Step>,
    pub(super) faults: Vec<String>,
}

impl Draft<'_> {
    /// Something cannot be done.
    pub(super) fn fault(&mut self, place: &str, why: &str) {
        self.faults.push(format!("{place}: {why}"));
    }

    /// A thing that is made anew.
    pub(super) fn create(&mut self, kind: &'static str, name: &str, doing: Doing) {
        self.push(Sign::Create, kind, name, doing);
    }

    /// A thing that is there: changed when there is anything to do.
    pub(super) fn settle(&mut self, kind: &'static str, name: &str, doing: Doing) {
        let sign = if doing.actions.is_empty() { Sign::Same } else { Sign::Change };
        self.push(sign, kind, name, doing);
    }

    fn push(&mut self, sign: Sign, kind: &'static str, name: &str, doing: Doing) {
        let Doing { notes, actions } = doing;
        self.steps.push(Step { sign, kind, name: name.to_owned(), notes, actions });
    }

    fn delete(&mut self, kind: &'static str, name: &str, path: &[&str]) {
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        let doing = Doing { notes: Vec::new(), actions: vec![Action::Delete { path }] };
        self.push(Sign::Delete, kind, name, doing);
    }
}

/// What is done to one thing, in words and in requests.
#[derive(Debug, Default)]
pub(super) struct Doing {
    pub(super) notes: Vec<String>,
    pub(super) actions: Vec<Action>,
}

/// Deletes what is not declared, dependants first. What a provider manages is not ours to delete.
fn prune(draft: &mut Draft<'_>) {
    let (declared, found) = (draft.declared, draft.found);
    if let Some(agents) = &declared.agents {
        let named = |agent: &&Value| !agents.iter().any(|one| one.name == field(agent, "name"));
        for agent in found.agents.iter().filter(named) {
            let id = field(agent, "id");
            draft.delete("agent", &field(agent, "name"), &["core", "agents", &id]);
        }
    }
    let managed = |trunk: &Value| !trunk.get("managed_account_id").is_none_or(Value::is_null);
    if let Some(numbers) = &declared.numbers {
        for number in &found.numbers {
            let text = field(number, "phone_number");
            let on = field(number, "trunk_id");
            let on_managed =
                found.trunks.iter().any(|trunk| field(trunk, "id") == on && managed(trunk));
            if !on_managed && !numbers.iter().any(|one| one.number == text) {
                draft.delete("phone number", &text, &["core", "phone-numbers", &text]);
            }
        }
    }
    if let Some(trunks) = &declared.trunks {
        let named = |trunk: &&Value| !trunks.iter().any(|one| one.name == field(trunk, "name"));
        for trunk in found.trunks.iter().filter(named).filter(|trunk| !managed(trunk)) {
            let id = field(trunk, "id");
            draft.delete("trunk", &field(trunk, "name"), &["core", "trunks", &id]);
        }
    }
}
