//! The letters of SIP's grammar (RFC 3261 §25.1): tokens, white space, quotes, numbers.
//!
//! A folded header line keeps its line breaks in the message; every reader here counts CR and LF as
//! white space, so that folding needs no copy to be undone.

/// May stand in a `token` (RFC 3261 §25.1).
pub(crate) const TOKEN: u8 = 1;
/// May stand in the name of a parameter: a `token`, or a letter only URIs allow there.
pub(crate) const PARAM_NAME: u8 = 2;
/// May not stand in any URI: white space, control letters, angle brackets, quotes.
pub(crate) const NO_URI: u8 = 4;
/// May stand in the name of a host.
pub(crate) const HOST: u8 = 8;

/// What each byte may be part of.
static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "runs at compile time, where a fault is a build error")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0u8;
    loop {
        let alphanumeric = byte.is_ascii_alphanumeric();
        let mark = matches!(byte, b'!' | b'%' | b'*' | b'+' | b'`' | b'\'' | b'~');
        let name = matches!(byte, b'-' | b'.' | b'_');
        let of_uris = matches!(byte, b'[' | b']' | b'/' | b':' | b'&' | b'$' | b'(' | b')');
        let mut class = 0;
        if alphanumeric || name {
            class |= TOKEN | PARAM_NAME | HOST;
        }
        if mark {
            class |= TOKEN | PARAM_NAME;
        }
        if of_uris {
            class |= PARAM_NAME;
        }
        if byte <= b' ' || matches!(byte, 0x7f | b'<' | b'>' | b'"') {
            class |= NO_URI;
        }
        classes[byte as usize] = class;
        if byte == u8::MAX {
            return classes;
        }
        byte += 1;
    }
}

/// Whether a byte is of this class.
pub(crate) fn is(class: u8, byte: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Whether these bytes are a `token`: one letter or more.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is(TOKEN, byte))
}

/// The bytes at the start that are of this class, and what follows them.
pub(crate) fn take(class: u8, bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| !is(class, byte)).unwrap_or(bytes.len());
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

/// White space, with the CR and LF of a fold.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The bytes without white space at the start.
pub(crate) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_space(*first)
    {
        bytes = rest;
    }
    bytes
}

/// The bytes without white space at the end.
pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes
        && is_space(*last)
    {
        bytes = rest;
    }
    bytes
}

/// The bytes without white space around them.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}

/// What stands before and after position `at`, without the byte there.
pub(crate) fn split_around(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    match bytes.split_at_checked(at) {
        Some((head, [_, tail @ ..])) => (head, tail),
        Some((head, [])) => (head, &[]),
        None => (bytes, &[]),
    }
}

/// What stands before and after the first `byte`.
pub(crate) fn split_once(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    memchr::memchr(byte, bytes).map(|at| split_around(bytes, at))
}

/// A quoted string at the start, without its quotes and with its escapes, and what follows it.
/// `None` when the bytes do not start with a quote or the string is never closed.
pub(crate) fn take_quoted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [b'"', inner @ ..] = bytes else { return None };
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', inner.get(at..)?)?;
        match inner.get(at) {
            Some(b'"') => return Some(split_around(inner, at)),
            _ => at += 2,
        }
    }
}

/// A decimal number: digits and nothing else. `None` when it is not one or does not fit.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u32, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Splits at the first `separator` that stands outside quotes and outside angle brackets.
///
/// Unclosed quotes or brackets swallow the rest: the value's own parser then refuses them, so a
/// separator hidden behind them is never believed.
pub(crate) fn split_outside(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut from = 0;
    while let Some(rest) = bytes.get(from..)
        && let Some(at) = memchr::memchr3(separator, b'"', b'<', rest)
    {
        let (_, opened) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        let closed = match opened {
            [b'"', ..] => take_quoted(opened).map(|(_, rest)| rest),
            [b'<', ..] => split_once(opened, b'>').map(|(_, rest)| rest),
            _ => {
                let (head, tail) = split_around(bytes, from + at);
                return (head, Some(tail));
            }
        };
        let Some(closed) = closed else { break };
        from = bytes.len() - closed.len();
    }
    (bytes, None)
}

/// The values of a comma-joined line, without the white space around them (RFC 3261 §7.3.1).
#[derive(Clone, Debug)]
pub(crate) struct Commas<'a>(pub(crate) Option<&'a [u8]>);

impl<'a> Iterator for Commas<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (value, rest) = split_outside(self.0?, b',');
        self.0 = rest;
        Some(trim(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_inside_quotes_or_brackets_separates_nothing() {
        let line = br#""a,\"b" <sip:c,d@e>;x="," , f ,g"#;
        let values: Vec<_> = Commas(Some(line)).collect();
        assert_eq!(values, [&br#""a,\"b" <sip:c,d@e>;x=",""#[..], b"f", b"g"]);
    }

    #[test]
    fn an_unclosed_quote_hides_no_separator() {
        assert_eq!(Commas(Some(b"\"a, b")).count(), 1);
        assert_eq!(Commas(Some(b"<a, b")).count(), 1);
        assert_eq!(Commas(Some(b"")).collect::<Vec<_>>(), [b""]);
    }

    #[test]
    fn quoted_strings_end_at_the_first_bare_quote() {
        assert_eq!(take_quoted(br#""a\"b" c"#), Some((&br#"a\"b"#[..], &b" c"[..])));
        assert_eq!(take_quoted(br#""a\"#), None);
        assert_eq!(take_quoted(br#""a\""#), None);
        assert_eq!(take_quoted(b"a"), None);
    }

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(number(b"0009"), Some(9));
        assert_eq!(number(b"4294967295"), Some(u32::MAX));
        for wrong in [&b""[..], b"4294967296", b"-1", b"+1", b"1 ", b"0x1"] {
            assert_eq!(number(wrong), None);
        }
    }
}
