//! Managed accounts: where numbers are bought, and the trunks that the platform runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{E164, InboundConfig, Invalid, OutboundConfig, check_name};
use crate::ids::OrganisationId;
use crate::limits;

/// Who sells an account's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManagedProvider {
    /// The operator: numbers of the settings, on a carrier of the operator's.
    Pool,
    /// Twilio: numbers are bought there, each with an elastic SIP trunk.
    Twilio,
}

/// An account of the operator's at which organisations buy numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ManagedAccount {
    /// Its id: a trunk's `managed_account_id`.
    #[schema(example = "twilio")]
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Who sells its numbers.
    pub provider: ManagedProvider,
}

/// What kind of number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NumberType {
    /// Of a place.
    #[default]
    Local,
    /// Free of charge for callers.
    TollFree,
    /// Of a mobile network.
    Mobile,
}

/// Which numbers are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberSearch {
    /// The country, ISO 3166-1 alpha-2 in capitals.
    pub country: String,
    /// What kind.
    pub kind: NumberType,
    /// Only numbers that carry calls.
    pub voice_enabled: bool,
    /// The digits that follow the country's calling code.
    pub area_code: Option<String>,
    /// Most numbers to return.
    pub limit: u32,
}

impl NumberSearch {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first parameter that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.country.len() != 2 || !self.country.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(Invalid::new("country", "must be two capital letters"));
        }
        let digits = |code: &String| {
            (1..=6).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit())
        };
        if !self.area_code.as_ref().is_none_or(digits) {
            return Err(Invalid::new("area_code", "must be one to six digits"));
        }
        if self.limit == 0 || u64::from(self.limit) > limits::AVAILABLE_NUMBERS.value {
            let message = format!("must be from 1 to {}", limits::AVAILABLE_NUMBERS.value);
            return Err(Invalid::new("limit", message));
        }
        Ok(())
    }
}

/// A number that could be bought a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AvailableNumber {
    /// The number.
    pub phone_number: E164,
    /// Its country, ISO 3166-1 alpha-2.
    #[schema(example = "US")]
    pub country: String,
    /// What kind.
    #[serde(rename = "type")]
    pub kind: NumberType,
    /// Whether it carries calls.
    pub voice_enabled: bool,
    /// Its town, where the provider says.
    pub locality: Option<String>,
    /// Its state or province, where the provider says.
    pub region: Option<String>,
}

/// A number to be bought, or to be given back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagedNumber {
    /// The number.
    pub phone_number: E164,
}

/// A managed trunk that the operator makes for an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewManagedTrunk {
    /// Whose trunk it will be.
    pub organization_id: OrganisationId,
    /// Its name, for people.
    pub name: String,
    /// How calls come in.
    #[serde(default)]
    pub inbound_config: Option<InboundConfig>,
    /// How calls go out.
    #[serde(default)]
    pub outbound_config: Option<OutboundConfig>,
    /// Numbers to register on it.
    #[serde(default)]
    pub phone_numbers: Vec<E164>,
}

impl NewManagedTrunk {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("name", &self.name)?;
        self.inbound_config.as_ref().map_or(Ok(()), InboundConfig::validate)?;
        self.outbound_config.as_ref().map_or(Ok(()), OutboundConfig::validate)?;
        if u64::try_from(self.phone_numbers.len()).is_ok_and(|n| n > limits::PUBLISH_NUMBERS.value)
        {
            let message = format!("must hold at most {}", limits::PUBLISH_NUMBERS.value);
            return Err(Invalid::new("phone_numbers", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_names_a_country_and_digits() {
        let search = |country: &str, area: Option<&str>, limit| NumberSearch {
            country: country.to_owned(),
            kind: NumberType::Local,
            voice_enabled: true,
            area_code: area.map(str::to_owned),
            limit,
        };
        assert!(search("US", Some("415"), 20).validate().is_ok());
        assert!(search("DE", None, 1).validate().is_ok());
        for (bad, field) in [
            (search("us", None, 1), "country"),
            (search("USA", None, 1), "country"),
            (search("..", None, 1), "country"),
            (search("US", Some(""), 1), "area_code"),
            (search("US", Some("4/5"), 1), "area_code"),
            (search("US", Some("1234567"), 1), "area_code"),
            (search("US", None, 0), "limit"),
            (search("US", None, 101), "limit"),
        ] {
            assert_eq!(bad.validate().unwrap_err().field, field);
        }
    }
}
