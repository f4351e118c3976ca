//! The letters of SIP's grammar (RFC 3261 §25.1): tokens, white space, quotes, numbers.
//!
//! A folded header line keeps its line breaks in the message; every reader here counts CR and LF as
//! white space, so that folding needs no copy to be undone.

/// Whether a byte may stand in a `token` (RFC 3261 §25.1).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// Whether these bytes are a `token`: one letter or more.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
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

/// A token at the start, and what follows it.
pub(crate) fn take_token(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(bytes.len());
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
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
    let mut bracketed = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' if !bracketed => match bytes.get(at..).and_then(take_quoted) {
                Some((_, rest)) => {
                    at = bytes.len() - rest.len();
                    continue;
                }
                None => return (bytes, None),
            },
            b'<' => bracketed = true,
            b'>' => bracketed = false,
            _ if byte == separator && !bracketed => {
                let (head, tail) = split_around(bytes, at);
                return (head, Some(tail));
            }
            _ => {}
        }
        at += 1;
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
