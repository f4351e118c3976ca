//! Addresses with a display name and parameters: From, To, Contact, Route and their like
//! (RFC 3261 §20.10, §25.1 `name-addr` and `addr-spec`).
//!
//! Without angle brackets, what follows the first semicolon belongs to the header and not to the
//! URI; a URI with a comma or a question mark must be bracketed, and is refused otherwise.

use std::borrow::Cow;

use crate::lex;
use crate::param::Params;
use crate::print::Unprintable;
use crate::uri::Uri;

/// One address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameAddr<'a> {
    /// The display name as written, without its quotes, with its escapes.
    display: Option<&'a [u8]>,
    quoted: bool,
    /// The URI.
    pub uri: Uri<'a>,
    /// The URI as it was written, without angle brackets.
    pub uri_bytes: &'a [u8],
    /// The header's parameters.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one address that is all of the value.
    ///
    /// Display names are taken as leniently as they can be without guessing: unquoted letters of
    /// any alphabet pass, separators do not (RFC 4475 §3.1.2.15).
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = lex::trim(value);
        if let Some((display, rest)) = lex::take_quoted(value) {
            return Self::bracketed(Some(display), true, lex::trim_start(rest));
        }
        match memchr::memchr2(b'<', b'"', value).map(|at| value.split_at_checked(at)) {
            Some(Some((display, rest @ [b'<', ..]))) => {
                let display = lex::trim_end(display);
                let named = (!display.is_empty()).then_some(display);
                display.iter().all(|&byte| is_display_byte(byte)).then_some(())?;
                Self::bracketed(named, false, rest)
            }
            _ => Self::bare(value),
        }
    }

    fn bracketed(display: Option<&'a [u8]>, quoted: bool, rest: &'a [u8]) -> Option<Self> {
        let (uri_bytes, rest) = lex::split_once(rest.strip_prefix(b"<")?, b'>')?;
        let (uri, params) = (Uri::parse(uri_bytes)?, Params::parse(rest)?);
        Some(Self { display, quoted, uri, uri_bytes, params })
    }

    fn bare(value: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let (uri_bytes, rest) = value.split_at_checked(end)?;
        let uri_bytes = lex::trim_end(uri_bytes);
        if memchr::memchr2(b'?', b',', uri_bytes).is_some() {
            return None;
        }
        let (uri, params) = (Uri::parse(uri_bytes)?, Params::parse(rest)?);
        Some(Self { display: None, quoted: false, uri, uri_bytes, params })
    }

    /// The tag: one side's name in a dialog (RFC 3261 §19.3).
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.value("tag").filter(|tag| !tag.is_empty())
    }

    /// The display name with the escapes of its quotes undone; copies only when there are any.
    #[must_use]
    pub fn display_name(&self) -> Option<Cow<'a, [u8]>> {
        let raw = self.display?;
        if !self.quoted || memchr::memchr3(b'\\', b'\r', b'\n', raw).is_none() {
            return Some(Cow::Borrowed(raw));
        }
        let mut escaped = false;
        let plain = raw.iter().copied().filter(|&byte| {
            escaped = byte == b'\\' && !escaped;
            !escaped && !matches!(byte, b'\r' | b'\n')
        });
        Some(Cow::Owned(plain.collect()))
    }
}

/// A display name between quotes, escaped, ready to stand before `<` (RFC 3261 §25.1
/// `quoted-string`).
///
/// # Errors
/// When it holds control letters: no escape makes them fit to show, and CR and LF break the line.
pub fn quoted(display: &str) -> Result<String, Unprintable> {
    if display.chars().any(char::is_control) {
        return Err(Unprintable::Value);
    }
    Ok(format!("\"{}\"", display.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Letters an unquoted display name may hold: everything that separates nothing.
const fn is_display_byte(byte: u8) -> bool {
    match byte {
        b'"' | b',' | b';' | b':' | b'<' | b'>' | b'@' | b'\\' | 0x7f => false,
        _ => byte >= b' ' || lex::is_space(byte),
    }
}

/// One value of a Contact header (RFC 3261 §20.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contact<'a> {
    /// `*`: all bindings, in a REGISTER that removes them.
    Any,
    /// An address.
    Address(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    /// Reads one Contact value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        match lex::trim(value) {
            b"*" => Some(Self::Any),
            value => NameAddr::parse(value).map(Self::Address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> NameAddr<'_> {
        NameAddr::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn display_names_come_quoted_bare_and_not_at_all() {
        let quoted =
            read(r#""J Rosenberg \\\""       <sip:jdrosen@example.com>  ;  tag = 98asjd8"#);
        assert_eq!(quoted.display_name().as_deref(), Some(&br#"J Rosenberg \""#[..]));
        assert_eq!(quoted.tag(), Some(&b"98asjd8"[..]));
        assert_eq!(read("caller<sip:c@h>").display_name().as_deref(), Some(&b"caller"[..]));
        assert_eq!(
            read("token1~` t2'+_ <sip:c@h>").display_name().as_deref(),
            Some(&b"token1~` t2'+_"[..])
        );
        assert_eq!(read("J\u{fc}rgen <sip:c@h>").uri_bytes, b"sip:c@h");
        assert!(read("<sip:c@h>").display_name().is_none());
        assert_eq!(read("\"\" <sip:c@h>").display_name().as_deref(), Some(&b""[..]));
    }

    #[test]
    fn without_brackets_parameters_belong_to_the_header() {
        let bare = read("sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n");
        assert_eq!(bare.tag(), Some(&b"1918181833n"[..]));
        assert!(bare.uri.params().is_empty());
        let bracketed = read("<sip:a@h;lr;tag=inner>;tag=outer");
        assert_eq!(bracketed.tag(), Some(&b"outer"[..]));
        assert_eq!(bracketed.uri.params().value("tag"), Some(&b"inner"[..]));
    }

    #[test]
    fn instance_parameters_with_brackets_in_quotes_survive() {
        let contact = read("<sip:a@h;gr=urn:uuid:1>;+sip.instance=\"<urn:uuid:2>\";q=0.5");
        assert_eq!(contact.params.value("+SIP.instance"), Some(&b"\"<urn:uuid:2>\""[..]));
    }

    #[test]
    fn addresses_one_would_have_to_guess_at_are_refused() {
        for wrong in [
            "",
            "<>",
            "<sip:a@h",
            "sip:a@h>",
            "\"Mr. J. User <sip:j@h>",
            "\"x\" sip:a@h",
            "Bell, Alexander <sip:a@h>;tag=43",
            "< sip:a@h >",
            "sip:user@h?Route=%3Csip:h%3E",
            "sip:a@h, sip:b@h",
            "<sip:a@h> <sip:b@h>",
            "<sip:a@h>;;;;",
            ";tag=x",
            "a\"b\" <sip:a@h>",
        ] {
            assert_eq!(NameAddr::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_star_is_every_contact() {
        assert_eq!(Contact::parse(b" * "), Some(Contact::Any));
        assert!(matches!(Contact::parse(b"<name:John_Smith>"), Some(Contact::Address(_))));
        assert_eq!(Contact::parse(b"**"), None);
    }

    #[test]
    fn a_quoted_display_name_reads_back_whatever_it_holds() {
        for display in ["", "Alice", "a\"b\\c", "<sip:x@y>,", "J\u{fc}rgen \u{2603}"] {
            let text = format!("{} <sip:a@h>;tag=t", quoted(display).unwrap());
            assert_eq!(read(&text).display_name().as_deref(), Some(display.as_bytes()));
            assert_eq!(read(&text).uri_bytes, b"sip:a@h");
        }
        for wrong in ["a\r\nX: y", "a\0", "\u{7f}", "a\tb"] {
            assert_eq!(quoted(wrong), Err(Unprintable::Value));
        }
    }
}
