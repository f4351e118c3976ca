//! The fields of challenges and credentials: `Digest name=value, name="value"` (RFC 7616 §3.3, §3.4).

use std::borrow::Cow;

use crate::lex::{self, Commas};

/// The fields behind the scheme `Digest`.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// `None` when the scheme is another one.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let (scheme, fields) = lex::take(lex::TOKEN, lex::trim(value));
        let apart = fields.first().is_some_and(|&byte| lex::is_space(byte));
        (scheme.eq_ignore_ascii_case(b"Digest") && apart).then_some(Self(fields))
    }

    /// The value of a field, without its quotes, with its escapes. A field that stands twice has
    /// no value anyone could agree on, and counts as missing.
    pub(super) fn value(self, name: &str) -> Option<&'a [u8]> {
        let mut found = None;
        for field in Commas(Some(self.0)) {
            let Some((known, value)) = lex::split_once(field, b'=') else { continue };
            if !lex::trim(known).eq_ignore_ascii_case(name.as_bytes()) {
                continue;
            }
            if found.is_some() {
                return None;
            }
            found = Some(unquoted(lex::trim(value))?);
        }
        found
    }
}

fn unquoted(value: &[u8]) -> Option<&[u8]> {
    match lex::take_quoted(value) {
        Some((inner, [])) => Some(inner),
        Some(_) => None,
        None => (value.first() != Some(&b'"')).then_some(value),
    }
}

/// Undoes the escapes of a quoted string.
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut escaped = false;
    let plain = raw.iter().copied().filter(|&byte| {
        escaped = byte == b'\\' && !escaped;
        !escaped
    });
    Cow::Owned(plain.collect())
}

/// Escapes what a quoted string cannot hold bare.
pub(super) fn escaped(plain: &str) -> Cow<'_, str> {
    if !plain.contains(['"', '\\']) {
        return Cow::Borrowed(plain);
    }
    Cow::Owned(plain.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_and_without_quotes_and_blanks() {
        let fields = Fields::parse(
            b" digest\r\n realm = \"a, \\\"b\\\"\",nonce=414d:38,  QOP=\"auth,auth-int\" ,,",
        )
        .unwrap();
        assert_eq!(fields.value("REALM"), Some(&b"a, \\\"b\\\""[..]));
        assert_eq!(fields.value("nonce"), Some(&b"414d:38"[..]));
        assert_eq!(fields.value("qop"), Some(&b"auth,auth-int"[..]));
        assert_eq!(fields.value("opaque"), None);
    }

    #[test]
    fn other_schemes_and_doubled_fields_have_no_value() {
        assert!(Fields::parse(b"NoOneKnowsThisScheme opaque-data=here").is_none());
        assert!(Fields::parse(b"Digest").is_none() && Fields::parse(b"").is_none());
        let twice = Fields::parse(b"Digest nonce=1, nonce=2, realm=\"x").unwrap();
        assert!(twice.value("nonce").is_none() && twice.value("realm").is_none());
    }

    #[test]
    fn escapes_are_undone_and_made() {
        assert_eq!(escaped(r#"DOMAIN\"me"#), r#"DOMAIN\\\"me"#);
        assert_eq!(&*unescaped(br#"DOMAIN\\\"me"#), br#"DOMAIN\"me"#);
        assert!(matches!(unescaped(b"me"), Cow::Borrowed(b"me")));
    }
}
