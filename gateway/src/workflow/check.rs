//! What only a worker can say of a definition, and what only we know: whether its expressions and its
//! code can be read, and whether its actions exist.

use std::time::Instant;

use config::ids::OrganisationId;
use config::workflows::{Definition, Fault, Kind, Parsed, Rejected};
use serde_json::{Map, Value};

use super::actions;
use super::pool::{Asker, Lost, Pool};
use super::wire::{Reply, Work};
use crate::clock;

/// How long a check may wait for a worker and take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Expressions and programs of a definition, each with its place.
#[derive(Debug, Default)]
struct Texts {
    expressions: Vec<(String, String)>,
    sources: Vec<(String, String)>,
}

pub(super) async fn check(
    pool: &Pool,
    organisation: OrganisationId,
    definition: &Value,
) -> Result<Parsed, Rejected> {
    let parsed = Definition::parse(definition).map_err(Rejected::Faults)?;
    let mut faults = Vec::new();
    let texts = texts(&parsed.definition, &mut faults);
    if !(texts.expressions.is_empty() && texts.sources.is_empty()) {
        let deadline = clock::now() + PATIENCE;
        faults.extend(read(pool, organisation, &texts, deadline).await?);
    }
    if faults.is_empty() { Ok(parsed) } else { Err(Rejected::Faults(faults)) }
}

fn texts(definition: &Definition, faults: &mut Vec<Fault>) -> Texts {
    let mut texts = Texts::default();
    for (index, step) in definition.steps().iter().enumerate() {
        let place = |field: &str| format!("steps[{index}].{field}");
        for (field, template) in step.kind.templates() {
            let found = template.expressions().into_iter();
            texts.expressions.extend(found.map(|source| (place(&field), source.to_string())));
        }
        match &step.kind {
            Kind::Code(source) => texts.sources.push((place("code"), source.to_string())),
            Kind::App { action, parameters } => {
                let found = actions::faults(action, parameters).into_iter();
                faults.extend(found.map(|(field, why)| Fault::new(place(&field), why)));
            }
            _ => {}
        }
    }
    texts
}

/// Has a worker read them all.
async fn read(
    pool: &Pool,
    organisation: OrganisationId,
    texts: &Texts,
    deadline: Instant,
) -> Result<Vec<Fault>, Rejected> {
    let only = |pairs: &[(String, String)]| pairs.iter().map(|(_, text)| text.clone()).collect();
    let expressions = only(&texts.expressions);
    let sources = only(&texts.sources);
    let work = Work::Check { expressions, sources };
    let asker = Asker { organisation, deadline, comes_again: false };
    let reply = pool.perform(asker, work, (&Map::new(), &[])).await;
    let (expressions, sources) = match reply {
        Ok(Reply::Checked { expressions, sources }) => (expressions, sources),
        Err(Lost::Busy | Lost::Expired) => return Err(Rejected::Busy),
        Err(Lost::TooSlow) => return Ok(vec![whole(&pool.too_slow())]),
        Err(Lost::Died(why)) => return Ok(vec![whole(why)]),
        Ok(_) => return Ok(vec![whole("the worker failed")]),
    };
    let told = |(place, _): &(String, String), why: Option<String>| Some(Fault::new(place, why?));
    let in_expressions = texts.expressions.iter().zip(expressions);
    let in_sources = texts.sources.iter().zip(sources);
    Ok(in_expressions.chain(in_sources).filter_map(|(text, why)| told(text, why)).collect())
}

/// A fault of no step in particular: reading them all ended the worker.
fn whole(why: &str) -> Fault {
    Fault::new("steps", format!("the expressions and code could not be read: {why}"))
}
