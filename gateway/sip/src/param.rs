//! Parameters: `;name=value` behind an address, a Via or a URI (RFC 3261 §7.3.1, §25.1).

use crate::lex;

/// A list of parameters, in place: the bytes behind the first semicolon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Params<'a> {
    /// `None` where no semicolon opened a list.
    list: Option<&'a [u8]>,
}

impl<'a> Params<'a> {
    /// No parameters.
    pub const NONE: Params<'static> = Params { list: None };

    /// Reads what follows a value: nothing, or a semicolon and the list.
    ///
    /// `None` for anything else, for a parameter without a name, for quotes that never close and
    /// for white space inside a name or value.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match lex::trim(bytes) {
            [] => Some(Params::NONE),
            [b';', list @ ..] => {
                let params = Self { list: Some(list) };
                params
                    .iter()
                    .all(|(name, value)| is_name(name) && is_value(value))
                    .then_some(params)
            }
            _ => None,
        }
    }

    /// All parameters in their order; a value keeps its quotes.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone {
        let mut rest = self.list;
        std::iter::from_fn(move || {
            let (param, tail) = lex::split_outside(rest?, b';');
            rest = tail;
            Some(match lex::split_once(param, b'=') {
                Some((name, value)) => (lex::trim(name), Some(lex::trim(value))),
                None => (lex::trim(param), None),
            })
        })
    }

    /// Whether a parameter of this name stands here, in any case, with or without a value.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The value of the first parameter of this name, in any case. `None` when there is no such
    /// parameter and when it has no value.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))?.1
    }

    /// The bytes behind the first semicolon; empty when there are none.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.list.unwrap_or_default()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.list.is_none()
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| lex::is(lex::PARAM_NAME, byte))
}

fn is_value(value: Option<&[u8]>) -> bool {
    match value {
        None => true,
        Some([b'"', ..]) => {
            value.and_then(lex::take_quoted).is_some_and(|(_, rest)| rest.is_empty())
        }
        Some(plain) => !plain.iter().any(|&byte| lex::is_space(byte) || matches!(byte, b'"' | 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_every_separator_are_no_part_of_it() {
        let params = Params::parse(b" ; tag\t=\r\n x ;lr; q = \"a;b\" ").unwrap();
        let all: Vec<_> = params.iter().collect();
        assert_eq!(all, [(&b"tag"[..], Some(&b"x"[..])), (b"lr", None), (b"q", Some(b"\"a;b\""))]);
        assert_eq!(params.value("TAG"), Some(&b"x"[..]));
        assert!(params.has("LR") && params.value("lr").is_none() && !params.has("l"));
    }

    #[test]
    fn a_value_may_hold_colons_and_brackets() {
        let params = Params::parse(b";gr=urn:uuid:f81d;received=[2001:db8::1];x=1:2").unwrap();
        assert_eq!(params.value("gr"), Some(&b"urn:uuid:f81d"[..]));
        assert_eq!(params.value("received"), Some(&b"[2001:db8::1]"[..]));
    }

    #[test]
    fn nameless_unclosed_and_spaced_parameters_are_refused() {
        for wrong in
            [&b";"[..], b";;a", b";a;", b";=x", b";a=\"b", b";a b", b";a=b c", b"a", b";a=\"b\"c"]
        {
            assert_eq!(Params::parse(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(Params::parse(b"  "), Some(Params::NONE));
    }
}
