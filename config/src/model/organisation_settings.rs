//! What an organisation says of its calls once for all of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Invalid, Runtime, check_count, present};
use crate::ids::OrganisationId;
use crate::limits::OUTBOUND_CONCURRENCY;

/// How many calls out an organisation may have at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConcurrencySettings {
    /// Whose.
    pub organization_id: OrganisationId,
    /// Most calls out at a time, on each node.
    #[schema(minimum = 1, maximum = 10_000)]
    pub concurrency_limit: u32,
    /// Whether that is the node's setting, because the organization says nothing.
    pub is_default: bool,
}

/// A change to how many calls out there may be: an absent key leaves things as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ConcurrencyChange {
    /// Most calls out at a time; `null` for the node's setting.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10_000)]
    pub concurrency_limit: Option<Option<u32>>,
}

impl ConcurrencyChange {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A limit that is zero or too large.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_count("concurrency_limit", self.concurrency_limit.flatten(), OUTBOUND_CONCURRENCY)
    }
}

/// Where the conversations of agents run whose configs do not say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct DefaultRuntime {
    /// The block, as the `runtime` of an agent's config; its token or password is written and never
    /// shown. `null` is the built-in echo.
    #[schema(value_type = Option<Object>, required)]
    pub runtime: Option<Value>,
}

impl DefaultRuntime {
    /// The same block where an agent's config has it.
    #[must_use]
    pub fn into_config(self) -> Value {
        serde_json::json!({ "runtime": self.runtime })
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        Runtime::parse(&self.clone().into_config()).map(drop).map_err(of_body)
    }
}

/// What is wrong with an agent's config, said of a body that holds nothing but a runtime.
pub(crate) fn of_body(invalid: Invalid) -> Invalid {
    Invalid { field: invalid.field.strip_prefix("config.").unwrap_or(invalid.field), ..invalid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_at_least_one_and_at_most_ten_thousand() {
        let check = |limit| ConcurrencyChange { concurrency_limit: Some(limit) }.validate().is_ok();
        assert!(check(None) && check(Some(1)) && check(Some(10_000)));
        assert!(!check(Some(0)) && !check(Some(10_001)));
    }

    #[test]
    fn a_default_runtime_is_judged_as_an_agents_own() {
        let check = |block| DefaultRuntime { runtime: Some(block) }.validate();
        assert!(check(serde_json::json!({ "type": "builtin" })).is_ok());
        assert!(DefaultRuntime::default().validate().is_ok());
        let bad = check(serde_json::json!({ "type": "websocket", "url": "https://h/" }));
        assert_eq!(bad.unwrap_err().field, "runtime.url");
    }
}
