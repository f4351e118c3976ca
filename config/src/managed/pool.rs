//! The operator's own numbers: a list in the settings, on a carrier of the operator's.
//!
//! Nothing is bought anywhere: a number is free until an order names it, and orders are what keeps two
//! organisations from having the same one.

use std::collections::BTreeSet;

use super::{Answer, Failure, Line, NumberOrder, Provider};
use crate::model::{
    AllowedAddress, AvailableNumber, E164, InboundConfig, NumberSearch, NumberType, OutboundConfig,
};
use crate::settings::ManagedSettings;

/// The operator's own numbers.
#[derive(Debug, Clone)]
pub struct Pool {
    numbers: BTreeSet<E164>,
    country: String,
    line: Line,
}

impl Pool {
    /// These numbers of one country, all on the same line.
    #[must_use]
    pub fn new(numbers: impl IntoIterator<Item = E164>, country: &str, line: Line) -> Self {
        Self { numbers: numbers.into_iter().collect(), country: country.to_owned(), line }
    }

    /// The pool of the settings, if they have one.
    #[must_use]
    pub fn of_settings(settings: &ManagedSettings) -> Option<Self> {
        let address = settings.pool_address.as_deref()?;
        let (user, password) =
            (settings.pool_username.as_deref()?, settings.pool_password.clone()?);
        let outbound = OutboundConfig {
            transport: settings.pool_transport,
            ..OutboundConfig::to(address, user, password)
        };
        let inbound = InboundConfig {
            allowed_addresses: allowed(&settings.pool_allowed_addresses),
            ..InboundConfig::default()
        };
        let numbers = settings.pool_numbers.iter().cloned();
        Some(Self::new(numbers, &settings.pool_country, Line { inbound, outbound }))
    }

    fn describe(&self, number: &E164) -> AvailableNumber {
        AvailableNumber {
            phone_number: number.clone(),
            country: self.country.clone(),
            kind: NumberType::Local,
            voice_enabled: true,
            locality: None,
            region: None,
        }
    }
}

/// Networks as a trunk's `allowed_addresses`; none is `None`.
pub(super) fn allowed(networks: &[ipnet::IpNet]) -> Option<Vec<AllowedAddress>> {
    let texts = networks.iter().map(ToString::to_string);
    let list: Vec<_> = texts.filter_map(|text| AllowedAddress::parse(&text)).collect();
    (!list.is_empty()).then_some(list)
}

impl Provider for Pool {
    fn search<'a>(&'a self, wanted: &'a NumberSearch) -> Answer<'a, Vec<AvailableNumber>> {
        let fits = |number: &&E164| {
            let area = wanted.area_code.as_deref().unwrap_or_default();
            national(number).starts_with(area)
        };
        let ours = wanted.country == self.country && wanted.kind == NumberType::Local;
        let found = self.numbers.iter().filter(|_| ours).filter(fits);
        let found = found.map(|number| self.describe(number)).collect();
        Box::pin(async move { Ok(found) })
    }

    fn provision<'a>(&'a self, order: &'a NumberOrder) -> Answer<'a, Line> {
        Box::pin(async move {
            let known = self.numbers.contains(&order.phone_number);
            if known { Ok(self.line.clone()) } else { Err(Failure::Gone) }
        })
    }

    fn release<'a>(&'a self, _order: &'a NumberOrder) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn sells(&self, number: &E164) -> bool {
        self.numbers.contains(number)
    }
}

/// A number without its plus and country calling code (ITU-T E.164 annex A and its list of codes).
fn national(number: &E164) -> &str {
    const TWO: &[&str] = &[
        "20", "27", "30", "31", "32", "33", "34", "36", "39", "40", "41", "43", "44", "45", "46",
        "47", "48", "49", "51", "52", "53", "54", "55", "56", "57", "58", "60", "61", "62", "63",
        "64", "65", "66", "81", "82", "84", "86", "90", "91", "92", "93", "94", "95", "98",
    ];
    let digits = number.as_str().trim_start_matches('+');
    let code = match digits.as_bytes() {
        [b'1' | b'7', ..] => 1,
        _ if TWO.iter().any(|code| digits.starts_with(code)) => 2,
        _ => 3,
    };
    digits.get(code..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_code_is_told_from_the_rest() {
        for (number, rest) in [
            ("+14155550100", "4155550100"),
            ("+79161234567", "9161234567"),
            ("+493012345", "3012345"),
            ("+35312345", "12345"),
            ("+88", ""),
        ] {
            assert_eq!(national(&number.parse().unwrap()), rest, "{number}");
        }
    }
}
