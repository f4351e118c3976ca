//! The part of a plan about trunks and phone numbers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::declared::{Number, Trunk};
use super::difference::{Compare, Difference};
use super::plan::{Action, Doing, Draft};
use crate::client::shown::field;

/// Plans every declared trunk.
pub(super) fn trunks(draft: &mut Draft<'_>) {
    for trunk in draft.declared.trunks.iter().flatten() {
        match draft.found.trunk(&trunk.name) {
            Err(why) => draft.fault(&trunk.place, &why),
            Ok(None) => {
                let notes = trunk.configs.iter().filter_map(summary).collect();
                let actions = vec![Action::CreateTrunk { name: trunk.name.clone() }];
                draft.create("trunk", &trunk.name, Doing { notes, actions });
            }
            Ok(Some(there)) => {
                let doing = change(trunk, there, draft.options.rewrite_secrets);
                if !doing.actions.is_empty() && field(there, "managed_account_id") != "-" {
                    draft.fault(&trunk.place, "is a managed trunk, which cannot be changed");
                    continue;
                }
                draft.settle("trunk", &trunk.name, doing);
            }
        }
    }
}

/// What a new trunk will be, in a line for each direction.
fn summary((name, config): (&&'static str, &Value)) -> Option<String> {
    match *name {
        "inbound_config" => match field(config, "allowed_addresses").as_str() {
            "-" if field(config, "auth_username") == "-" => {
                Some("calls in from anywhere".to_owned())
            }
            "-" => Some("calls in with a password".to_owned()),
            addresses => Some(format!("calls in from {addresses}")),
        },
        _ if config.is_null() => None,
        _ => Some(format!("calls out to {}", field(config, "address"))),
    }
}

/// The change that makes a trunk what is declared; a config that differs is written whole.
fn change(trunk: &Trunk, there: &Value, rewrite_secrets: bool) -> Doing {
    let (mut doing, mut body) = (Doing::default(), json!({}));
    for (name, config) in &trunk.configs {
        let stored = there.get(*name).unwrap_or(&Value::Null);
        let mut differences = config_differences(config, stored);
        let wanted = trunk.body.get(*name).and_then(|config| config.get("auth_password"));
        if wanted.is_some_and(Value::is_string) {
            let is_set = stored.get("auth_password_set") == Some(&Value::Bool(true));
            if !is_set || rewrite_secrets {
                differences.push(Difference {
                    path: "auth_password".to_owned(),
                    from: is_set.then(|| json!("")),
                    to: Some(json!("")),
                    secret: true,
                });
            }
        }
        if differences.is_empty() {
            continue;
        }
        doing.notes.extend(differences.iter().map(|one| {
            let dot = if one.path.is_empty() { "" } else { "." };
            format!("{name}{dot}{}", one.text())
        }));
        if let Value::Object(entries) = &mut body {
            let whole = trunk.body.get(*name).cloned().unwrap_or_default();
            entries.insert((*name).to_owned(), whole);
        }
    }
    if !doing.notes.is_empty() {
        doing.actions.push(Action::UpdateTrunk { id: field(there, "id"), body });
    }
    doing
}

/// Differences of two configs as the API shows them; what it says about passwords is no part of that.
fn config_differences(declared: &Value, stored: &Value) -> Vec<Difference> {
    let without_passwords = |config: &Value| {
        let mut config = config.clone();
        if let Value::Object(entries) = &mut config {
            entries.retain(|name, _| !name.starts_with("auth_password"));
        }
        config
    };
    let compare = Compare { secrets: &BTreeSet::new(), rewrite_secrets: false };
    compare.differences(&without_passwords(declared), &without_passwords(stored))
}

/// Plans every declared number.
pub(super) fn numbers(draft: &mut Draft<'_>) {
    for number in draft.declared.numbers.iter().flatten() {
        let declared = draft.declared.trunks.iter().flatten().any(|one| one.name == number.trunk);
        let trunk = match draft.found.trunk(&number.trunk) {
            Err(why) => {
                draft.fault(&number.place, &why);
                continue;
            }
            Ok(trunk) => trunk.map(|trunk| field(trunk, "id")),
        };
        if trunk.is_none() && !declared {
            let why = format!("no trunk is called {}, here or there", number.trunk);
            draft.fault(&number.place, &why);
            continue;
        }
        match draft.found.number(&number.number) {
            None => draft.create("phone number", &number.number, register(number)),
            Some(there) if trunk.as_ref() != Some(&field(there, "trunk_id")) => {
                let why = format!(
                    "{} is on another trunk; a number cannot be moved: delete it first (`trunkline \
                     number delete`)",
                    number.number
                );
                draft.fault(&number.place, &why);
            }
            Some(there) => {
                let doing = shareable(number, there);
                draft.settle("phone number", &number.number, doing);
            }
        }
    }
}

fn register(number: &Number) -> Doing {
    Doing {
        notes: vec![format!("on {}", number.trunk)],
        actions: vec![Action::RegisterNumber {
            number: number.number.clone(),
            trunk: number.trunk.clone(),
            shareable: number.shareable.unwrap_or(false),
        }],
    }
}

fn shareable(number: &Number, there: &Value) -> Doing {
    let stored = there.get("outbound_shareable").and_then(Value::as_bool);
    match number.shareable {
        Some(shareable) if stored != Some(shareable) => Doing {
            notes: vec![format!("outbound_shareable: {} → {shareable}", !shareable)],
            actions: vec![Action::UpdateNumber { number: number.number.clone(), shareable }],
        },
        _ => Doing::default(),
    }
}
