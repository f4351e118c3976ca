//! From JSON to a definition, with everything that is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Fault;
use super::definition::{Definition, Kind, Parsed, Step};
use super::fields::{Fields, Targets};
use super::kinds;
use crate::limits::{
    WORKFLOW_DEFINITION_BYTES, WORKFLOW_RUN_SECONDS, WORKFLOW_STEP_ID_CHARACTERS, WORKFLOW_STEPS,
};

/// Whether a definition says that it has the one format there is, by whatever name.
fn is_schema(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_suffix("/1").is_some_and(|name| {
        (1..=SCHEMA_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain)
    })
}

/// The longest name of a format.
const SCHEMA_NAME_BYTES: usize = 64;

/// The id of the step that runs begin with, if there is one.
const TRIGGER: &str = "trigger";

/// The branch of an edge that stands for a condition's default.
const DEFAULT: &str = "default";

pub(super) fn definition(value: &Value) -> Result<Parsed, Vec<Fault>> {
    let mut faults = Vec::new();
    let size = serde_json::to_vec(value).map_or(usize::MAX, |text| text.len());
    if size > WORKFLOW_DEFINITION_BYTES.value_usize() {
        let why = format!("must be at most {} bytes of JSON", WORKFLOW_DEFINITION_BYTES.value);
        return Err(vec![Fault::new("", why)]);
    }
    let Some(object) = value.as_object() else {
        return Err(vec![Fault::new("", "must be an object with steps")]);
    };
    let mut top = Fields::new(object, String::new(), &mut faults);
    top.ignore(&["name", "description", "metadata"]);
    if top.text("schema").is_some_and(|schema| !is_schema(schema)) {
        top.fault("schema", "must be a name and the version 1, such as trunkline/1");
    }
    let longest = WORKFLOW_RUN_SECONDS.value;
    let time_limit = top.whole("timeout_seconds", 1..=longest).map(Duration::from_secs);
    let steps = top.list("steps", WORKFLOW_STEPS);
    let edges = top.list("edges", WORKFLOW_STEPS);
    top.finish();
    if steps.is_empty() && faults.is_empty() {
        faults.push(Fault::new("steps", "must hold at least one step"));
    }
    let targets = targets(steps, &mut faults);
    let mut read: Vec<Step> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| one_step(step, format!("steps[{index}]"), &targets, &mut faults))
        .collect();
    for (index, edge) in edges.iter().enumerate() {
        connect(edge, format!("edges[{index}]"), (&targets, &mut read), &mut faults);
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let first = first(&read);
    let definition = Definition { steps: read, first, time_limit };
    let warnings = follow(&definition)?;
    Ok(Parsed { definition: Arc::new(definition), warnings })
}

/// Where runs begin.
fn first(steps: &[Step]) -> usize {
    let trigger = steps.iter().position(|step| step.id == TRIGGER);
    let input = || steps.iter().position(|step| matches!(step.kind, Kind::Input(_)));
    trigger.or_else(input).unwrap_or(0)
}

/// The ids, of which each must be one step's alone. Names share their space, for both are keys of the
/// context.
fn targets(steps: &[Value], faults: &mut Vec<Fault>) -> Targets {
    let mut keys = HashMap::new();
    let mut ids = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        let text = |field: &str| step.get(field).and_then(Value::as_str);
        let id = text("id");
        for field in ["id", "name"] {
            let Some(key) = text(field) else { continue };
            if field == "name" && Some(key) == id {
                continue;
            }
            if let Some(other) = keys.insert(key.to_owned(), index) {
                let why = format!("is the id or name of steps[{other}] already");
                faults.push(Fault::new(format!("steps[{index}].{field}"), why));
            }
        }
        if let Some(id) = id {
            ids.entry(id.to_owned()).or_insert(index);
        }
    }
    Targets(ids)
}

fn one_step(value: &Value, place: String, targets: &Targets, faults: &mut Vec<Fault>) -> Step {
    let blank = || Step { id: String::new(), name: None, kind: Kind::Note, next: None };
    let Some(object) = value.as_object() else {
        faults.push(Fault::new(place, "must be an object"));
        return blank();
    };
    let mut fields = Fields::new(object, place, faults);
    fields.ignore(&["description", "position"]);
    let id = fields.required_text("id").unwrap_or_default().to_owned();
    let name = fields.text("name").map(str::to_owned);
    check_keys(&id, name.as_deref(), &mut fields);
    let kind = kinds::read(&mut fields, targets);
    if id == "input" && !matches!(kind, Some(Kind::Input(_))) {
        fields.fault("id", "is the input's own key: only an input step may have it");
    }
    let next = match kind {
        Some(Kind::Condition { .. }) | None => None,
        _ => fields.target("next", targets),
    };
    if next.is_some() && matches!(kind, Some(Kind::Output(_))) {
        fields.fault("next", "cannot follow an output, which ends the run");
    }
    if kind.is_some() {
        fields.finish();
    }
    Step { id, name, kind: kind.unwrap_or(Kind::Note), next }
}

fn check_keys(id: &str, name: Option<&str>, fields: &mut Fields<'_, '_>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let longest = WORKFLOW_STEP_ID_CHARACTERS.value_usize();
    if id.len() > longest || !id.chars().all(plain) {
        fields.fault("id", format!("must be 1 to {longest} letters, digits, _ and -"));
    }
    let Some(name) = name else { return };
    if name.trim().is_empty() || name.len() > 4 * longest {
        fields.fault("name", format!("must be 1 to {} bytes", 4 * longest));
    }
    if name == "input" || name.contains('`') || name.chars().any(char::is_control) {
        fields.fault("name", "must not be \"input\" nor hold backticks or control characters");
    }
}

/// Puts in what an edge says.
fn connect(
    edge: &Value,
    place: String,
    (targets, steps): (&Targets, &mut Vec<Step>),
    faults: &mut Vec<Fault>,
) {
    let Some(object) = edge.as_object() else {
        return faults.push(Fault::new(place, "must be an object with from and to"));
    };
    let mut fields = Fields::new(object, place, faults);
    fields.ignore(&["id"]);
    let (from, to) = (fields.target("from", targets), fields.target("to", targets));
    let branch = fields.text("branch").map(str::to_owned);
    for missing in ["from", "to"] {
        if !object.contains_key(missing) {
            fields.fault(missing, "is missing");
        }
    }
    fields.finish();
    let Some((step, to)) = from.and_then(|from| steps.get_mut(from)).zip(to) else { return };
    let open = match (&mut step.kind, branch.as_deref()) {
        (Kind::Condition { default, .. }, None | Some(DEFAULT)) => default,
        (Kind::Condition { branches, .. }, Some(label)) => {
            match branches.iter_mut().find(|branch| branch.label == label) {
                Some(branch) => &mut branch.next,
                None => return fields.fault("branch", "is not a label of that condition"),
            }
        }
        (Kind::Output(_), _) => return fields.fault("from", "is an output, which ends the run"),
        (_, None) => &mut step.next,
        (_, Some(_)) => return fields.fault("branch", "only leads on from a condition"),
    };
    match *open {
        Some(other) if other != to => {
            fields.fault("to", "contradicts another edge, or what the step itself says");
        }
        _ => *open = Some(to),
    }
}

/// Walks through the steps from the first; those it does not come to are odd, and without an output
/// among those it does the workflow could never say anything.
fn follow(definition: &Definition) -> Result<Vec<Fault>, Vec<Fault>> {
    let mut reached = vec![false; definition.steps.len()];
    let mut ahead = vec![definition.first];
    while let Some(index) = ahead.pop() {
        match reached.get_mut(index) {
            Some(seen) if !*seen => *seen = true,
            _ => continue,
        }
        ahead.extend(definition.steps.get(index).map(Step::successors).unwrap_or_default());
    }
    let with_reach = || definition.steps.iter().enumerate().zip(&reached);
    if !with_reach().any(|((_, step), reached)| *reached && matches!(step.kind, Kind::Output(_))) {
        return Err(vec![Fault::new("steps", "no output step can be reached")]);
    }
    let lost = with_reach().filter(|((_, step), reached)| !**reached && step.kind != Kind::Note);
    let warn = |((index, _), _): ((usize, &Step), &bool)| {
        Fault::new(format!("steps[{index}]"), "cannot be reached from the first step")
    };
    Ok(lost.map(warn).collect())
}
