//! What differs between what is declared and what there is, field by field.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::client::yaml::joined;

/// Characters of a value that are shown.
const SHOWN: usize = 60;

/// One field that differs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) path: String,
    /// `None`: there is nothing yet.
    pub(super) from: Option<Value>,
    /// `None`: it is to go.
    pub(super) to: Option<Value>,
    /// Whether the value must not be seen.
    pub(super) secret: bool,
}

impl Difference {
    /// `allowed_addresses: ["192.0.2.1"] → ["192.0.2.2"]`.
    pub(super) fn text(&self) -> String {
        let show = |value: &Option<Value>| match value {
            None => "nothing".to_owned(),
            Some(Value::Null) => "nothing".to_owned(),
            Some(_) if self.secret => "***".to_owned(),
            Some(value) => shortened(&value.to_string()),
        };
        format!("{}: {} → {}", self.path, show(&self.from), show(&self.to))
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    let kept: String = text.chars().take(SHOWN).collect();
    format!("{kept}…")
}

/// How two values are compared.
#[derive(Clone, Copy)]
pub(super) struct Compare<'a> {
    /// Paths in the declared value that came from the environment.
    pub(super) secrets: &'a BTreeSet<String>,
    /// Whether a secret that is stored counts as different.
    pub(super) rewrite_secrets: bool,
}

impl Compare<'_> {
    /// Every difference between two values.
    pub(super) fn differences(&self, declared: &Value, found: &Value) -> Vec<Difference> {
        let mut all = Vec::new();
        self.visit("", Some(declared), Some(found), &mut all);
        all
    }

    fn visit(
        &self,
        path: &str,
        declared: Option<&Value>,
        found: Option<&Value>,
        all: &mut Vec<Difference>,
    ) {
        if declared == found {
            return;
        }
        let secret = self.secrets.contains(path);
        match (declared, found) {
            // The API shows null where a secret is stored.
            (Some(Value::String(_)), Some(Value::Null)) if secret && !self.rewrite_secrets => {}
            (Some(Value::Object(declared)), Some(Value::Object(found))) => {
                for (name, value) in declared {
                    self.visit(&joined(path, name), Some(value), found.get(name), all);
                }
                for (name, value) in found.iter().filter(|(name, _)| !declared.contains_key(*name))
                {
                    self.visit(&joined(path, name), None, Some(value), all);
                }
            }
            (Some(Value::Array(declared)), Some(Value::Array(found)))
                if declared.len() == found.len() && declared.iter().any(Value::is_object) =>
            {
                for (index, (declared, found)) in declared.iter().zip(found).enumerate() {
                    self.visit(&format!("{path}[{index}]"), Some(declared), Some(found), all);
                }
            }
            _ => all.push(Difference {
                path: path.to_owned(),
                from: found.cloned(),
                to: declared.cloned(),
                secret: secret || self.holds_secret(path),
            }),
        }
    }

    /// Whether something below the path came from the environment.
    fn holds_secret(&self, path: &str) -> bool {
        let below = |secret: &&String| {
            secret.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        path.is_empty() && !self.secrets.is_empty() || self.secrets.iter().any(|s| below(&s))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(declared: &Value, found: &Value, secrets: &[&str], rewrite: bool) -> Vec<String> {
        let secrets = secrets.iter().map(|path| (*path).to_owned()).collect();
        let compare = Compare { secrets: &secrets, rewrite_secrets: rewrite };
        compare.differences(declared, found).iter().map(Difference::text).collect()
    }

    #[test]
    fn every_field_that_differs_is_told_and_no_other() {
        let declared = json!({"a": 1, "b": {"c": [1, 2]}, "d": "x", "l": [{"n": 1}]});
        let found = json!({"a": 1, "b": {"c": [2, 1]}, "e": true, "l": [{"n": 2}]});
        assert_eq!(
            texts(&declared, &found, &[], false),
            ["b.c: [2,1] → [1,2]", "d: nothing → \"x\"", "l[0].n: 2 → 1", "e: true → nothing"]
        );
        assert!(texts(&declared, &declared, &[], true).is_empty());
    }

    #[test]
    fn a_stored_secret_is_left_alone_until_it_is_to_be_written_again() {
        let declared = json!({"runtime": {"auth_token": "canary", "url": "wss://a"}});
        let found = json!({"runtime": {"auth_token": null, "url": "wss://a"}});
        let secrets = ["runtime.auth_token"];
        assert!(texts(&declared, &found, &secrets, false).is_empty());
        assert_eq!(texts(&declared, &found, &secrets, true), ["runtime.auth_token: nothing → ***"]);
    }

    #[test]
    fn a_secret_is_not_seen_wherever_the_difference_begins() {
        let declared = json!({"runtime": {"auth_token": "canary"}, "list": ["canary"]});
        for found in [json!({}), json!({"runtime": null}), Value::Null, json!({"list": [1, 2]})] {
            let told =
                texts(&declared, &found, &["runtime.auth_token", "list[0]"], false).join("\n");
            assert!(!told.contains("canary") && !told.is_empty(), "{told}");
        }
    }
}
