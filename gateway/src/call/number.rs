//! Telephone numbers as callers and carriers write them (RFC 3966 §5.1, E.164).

/// Longest telephone number that is looked at: E.164 has 15 digits; prefixes and separators add some.
const MAX_LENGTH: usize = 40;

/// Turns what stands in a Request-URI or From into `+<digits>`, or `None` when it is no number.
///
/// Visual separators are dropped, a leading `00` becomes `+`, and digits without a prefix are
/// taken as international: the form in which numbers are stored is looked up, nothing is guessed
/// about countries.
#[must_use]
pub fn normalise(raw: &str) -> Option<String> {
    if raw.is_empty() || raw.len() > MAX_LENGTH {
        return None;
    }
    let (plus, rest) = match raw.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, raw),
    };
    let mut digits = String::with_capacity(rest.len());
    for character in rest.chars() {
        match character {
            '0'..='9' => digits.push(character),
            '-' | '.' | '(' | ')' | ' ' => {}
            _ => return None,
        }
    }
    let international = if plus { &digits } else { digits.strip_prefix("00").unwrap_or(&digits) };
    let national_trunk_prefix = international.starts_with('0') || international.is_empty();
    if national_trunk_prefix || international.len() > 15 || international.len() < 2 {
        return None;
    }
    Some(format!("+{international}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_of_one_number_are_one_number() {
        for spelling in [
            "+15551230001",
            "15551230001",
            "0015551230001",
            "+1-555-123-0001",
            "+1.555.123.0001",
            "+1(555)123-0001",
        ] {
            assert_eq!(normalise(spelling).as_deref(), Some("+15551230001"), "{spelling}");
        }
    }

    #[test]
    fn what_is_no_international_number_is_not_made_one() {
        for spelling in
            ["", "+", "alice", "05551234", "+0123", "1", "+1555123000112345", "+1555\r\n"]
        {
            assert_eq!(normalise(spelling), None, "{spelling}");
        }
    }
}
