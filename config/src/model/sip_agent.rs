//! An agent that is a SIP endpoint: where it is called, and what the call tells it.
//!
//! Its URI and headers are templates in which `{called_number}`, `{caller_number}` and
//! `{conversation_id}` stand for what belongs to the call. Callers choose some of that (a From header
//! can hold anything), so filling a template in never changes its meaning: in a URI every character
//! that could is escaped (RFC 3261 section 19.1.2), in a header line ends are left out, and the host
//! takes no placeholder, so that no caller decides where calls go.

use std::collections::BTreeMap;

use super::{
    AgentEnding, Invalid, MediaEncryption, Transport, check_length, check_password,
    check_printable, check_token, is_host,
};
use crate::limits;
use crate::secret::Secret;

const URI: &str = "config.runtime.uri";
const HEADERS: &str = "config.runtime.headers";
const TRANSPORT: &str = "config.runtime.transport";

/// What stands in a URI for a value that is empty, such as the number of a caller who withheld it.
const NOBODY: &str = "anonymous";

/// Characters of a value that are filled in: more than any number or identifier has.
const VALUE_CHARACTERS: usize = 255;

/// A SIP agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipAgent {
    /// `sip:` or `sips:` (RFC 3261 section 19.1), with placeholders in user part and parameters.
    pub uri: String,
    /// What carries SIP to it.
    pub transport: Transport,
    /// Whether its audio is encrypted.
    pub media_encryption: MediaEncryption,
    /// Digest user, where it asks for one.
    pub auth_username: Option<String>,
    /// Its password. Sealed at rest; write-only.
    pub auth_password: Option<Secret<String>>,
    /// Headers of its INVITE by name; the values may hold placeholders.
    pub headers: BTreeMap<String, String>,
    /// What to do without it; `None` is the gateway's setting.
    pub on_failure: Option<AgentEnding>,
    /// How long it may take to answer, in milliseconds; `None` is the gateway's setting.
    pub connect_timeout_ms: Option<u32>,
}

/// What a template's placeholders stand for in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values<'a> {
    /// `{called_number}`.
    pub called: &'a str,
    /// `{caller_number}`.
    pub caller: &'a str,
    /// `{conversation_id}`.
    pub conversation: &'a str,
}

impl<'a> Values<'a> {
    /// Values that try a template out.
    const SAMPLE: Values<'static> =
        Values { called: "+15550100", caller: "a@b;c?d=\r\n", conversation: "0" };

    fn named(&self, placeholder: &str) -> Option<&'a str> {
        match placeholder {
            "called_number" => Some(self.called),
            "caller_number" => Some(self.caller),
            "conversation_id" => Some(self.conversation),
            _ => None,
        }
    }
}

impl SipAgent {
    /// Headers that the gateway itself writes into the INVITE of every SIP agent.
    pub const OWN_HEADERS: [&str; 6] = [
        "X-Conversation-Id",
        "X-Organization-Id",
        "X-Agent-Id",
        "X-Agent-Version-Id",
        "X-Initial-Context",
        "X-Custom-Metadata",
    ];

    /// The Request-URI of one call: the template with every value escaped (RFC 3261 section 19.1.2;
    /// a plus stays). An empty value reads `anonymous`.
    #[must_use]
    pub fn uri_for(&self, values: &Values<'_>) -> String {
        fill(&self.uri, values, escape)
    }

    /// The headers of one call, without control characters.
    pub fn headers_for(&self, values: &Values<'_>) -> impl Iterator<Item = (&str, String)> {
        let values = *values;
        self.headers.iter().map(move |(name, value)| (name.as_str(), fill(value, &values, print)))
    }

    /// The host to look up, and its port if the URI has one. An IPv6 address has no brackets here.
    #[must_use]
    pub fn host(&self) -> (&str, Option<u16>) {
        Parts::of(&self.uri).map_or(("", None), |parts| split_port(parts.host))
    }

    /// Whether the URI asks for TLS on the way (`sips:`, RFC 3261 section 19.1).
    #[must_use]
    pub fn is_secure(&self) -> bool {
        Parts::of(&self.uri).is_ok_and(|parts| parts.secure)
    }

    /// Whether it has a user but no password, and so no credentials.
    #[must_use]
    pub fn lacks_password(&self) -> bool {
        let password = self.auth_password.as_ref().map_or("", |password| password.expose());
        self.auth_username.is_some() && password.is_empty()
    }

    /// Checks what types cannot.
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        check_length(URI, &self.uri, limits::RUNTIME_URL_CHARACTERS)?;
        let parts = Parts::of(&self.uri)?;
        parts.check()?;
        if parts.secure && self.transport != Transport::Tls {
            return Err(Invalid::new(TRANSPORT, "must be TLS with a sips URI"));
        }
        if parts.transport()?.is_some_and(|named| named != self.transport) {
            return Err(Invalid::new(TRANSPORT, "is not the one that the URI names"));
        }
        debug_assert!(Parts::of(&self.uri_for(&Values::SAMPLE)).is_ok_and(|p| p.check().is_ok()));
        self.check_credentials()?;
        self.check_headers()?;
        if self.connect_timeout_ms == Some(0) {
            return Err(Invalid::new("config.runtime.connect_timeout_ms", "must be at least 1"));
        }
        Ok(())
    }

    fn check_credentials(&self) -> Result<(), Invalid> {
        match (&self.auth_username, &self.auth_password) {
            (Some(name), _) => check_token("config.runtime.auth_username", name)?,
            (None, Some(password)) if !password.expose().is_empty() => {
                let message = "must be given with auth_password";
                return Err(Invalid::new("config.runtime.auth_username", message));
            }
            (None, _) => {}
        }
        match &self.auth_password {
            // An empty text removes a stored password.
            Some(password) if !password.expose().is_empty() => {
                check_password("config.runtime.auth_password", Some(password))
            }
            _ => Ok(()),
        }
    }

    fn check_headers(&self) -> Result<(), Invalid> {
        if u64::try_from(self.headers.len()).is_ok_and(|n| n > limits::RUNTIME_HEADERS.value) {
            let message = format!("must hold at most {}", limits::RUNTIME_HEADERS.value);
            return Err(Invalid::new(HEADERS, message));
        }
        let mut names = Self::OWN_HEADERS.map(str::to_ascii_lowercase).to_vec();
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            if !lower.strip_prefix("x-").is_some_and(is_token) {
                return Err(Invalid::new(HEADERS, "must have names that start with X-"));
            }
            if names.contains(&lower) {
                let message = "must not name a header twice, or one that the gateway writes";
                return Err(Invalid::new(HEADERS, message));
            }
            names.push(lower);
            for text in [name, value] {
                check_length(HEADERS, text, limits::RUNTIME_PARAMETER_CHARACTERS)?;
            }
            check_printable(HEADERS, value)?;
            check_placeholders(HEADERS, value)?;
        }
        Ok(())
    }
}

/// What the transport is when nothing but the URI says it (RFC 3263 section 4.1, without NAPTR).
pub(super) fn transport_of(uri: &str) -> Result<Transport, Invalid> {
    let parts = Parts::of(uri)?;
    let unnamed = if parts.secure { Transport::Tls } else { Transport::Udp };
    Ok(parts.transport()?.unwrap_or(unnamed))
}

/// A SIP URI (RFC 3261 section 19.1.1) in its parts, placeholders and all.
#[derive(Clone, Copy)]
struct Parts<'a> {
    secure: bool,
    user: Option<&'a str>,
    host: &'a str,
    parameters: &'a str,
}

impl<'a> Parts<'a> {
    fn of(uri: &'a str) -> Result<Self, Invalid> {
        let (scheme, rest) = uri.split_once(':').unwrap_or_default();
        let secure = scheme.eq_ignore_ascii_case("sips");
        if !secure && !scheme.eq_ignore_ascii_case("sip") {
            return Err(Invalid::new(URI, "must be a sip: or sips: URI"));
        }
        let (user, rest) = match rest.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (host, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        Ok(Self { secure, user, host, parameters })
    }

    fn check(self) -> Result<(), Invalid> {
        if self.user.is_some_and(|user| user.contains(':')) {
            return Err(Invalid::new(URI, "must not carry a password; use auth_password"));
        }
        if [self.host, self.parameters].iter().any(|part| part.contains('?')) {
            return Err(Invalid::new(URI, "must not carry headers; use headers"));
        }
        if self.host.contains(['{', '}']) {
            return Err(Invalid::new(URI, "must not have a placeholder in its host"));
        }
        if !is_host(self.host) || split_port(self.host).1 == Some(0) {
            return Err(Invalid::new(URI, "must have a host name or address, and no other port"));
        }
        if let Some(user) = self.user {
            check_placeholders(URI, user)?;
            if user.is_empty() || !holds_only(user, is_user) {
                return Err(Invalid::new(URI, "has characters in its user part to be escaped"));
            }
        }
        self.named_parameters().try_for_each(|(name, value)| check_parameter(name, value))
    }

    fn named_parameters(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let all = (!self.parameters.is_empty()).then(|| self.parameters.split(';'));
        all.into_iter().flatten().map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (parameter, None),
        })
    }

    /// What its `transport` parameter says.
    fn transport(self) -> Result<Option<Transport>, Invalid> {
        let mut named = self.named_parameters();
        let Some((_, value)) = named.find(|(name, _)| name.eq_ignore_ascii_case("transport"))
        else {
            return Ok(None);
        };
        match value.unwrap_or_default().to_ascii_lowercase().as_str() {
            "udp" => Ok(Some(Transport::Udp)),
            "tcp" if self.secure => Ok(Some(Transport::Tls)), // RFC 3261 section 26.2.2
            "tcp" => Ok(Some(Transport::Tcp)),
            "tls" => Ok(Some(Transport::Tls)),
            _ => Err(Invalid::new(URI, "names a transport other than udp, tcp and tls")),
        }
    }
}

fn check_parameter(name: &str, value: Option<&str>) -> Result<(), Invalid> {
    if !is_token(name) {
        return Err(Invalid::new(URI, "has a parameter without a proper name"));
    }
    if ["maddr", "method"].iter().any(|other| name.eq_ignore_ascii_case(other)) {
        return Err(Invalid::new(URI, "must not have the parameters maddr and method"));
    }
    let value = value.unwrap_or("1");
    check_placeholders(URI, value)?;
    if value.is_empty() || !holds_only(value, is_parameter) {
        return Err(Invalid::new(URI, "has characters in its parameters to be escaped"));
    }
    Ok(())
}

/// Refuses a brace that is not part of a known placeholder: it is a mistyped one.
fn check_placeholders(field: &'static str, template: &str) -> Result<(), Invalid> {
    let message = "holds a placeholder other than {called_number}, {caller_number} and \
                   {conversation_id}";
    if fill(template, &Values::SAMPLE, |_, _| ()).contains(['{', '}']) {
        return Err(Invalid::new(field, message));
    }
    Ok(())
}

/// Whether everything but placeholders and escapes is of these characters.
fn holds_only(template: &str, fits: fn(u8) -> bool) -> bool {
    let text = fill(template, &Values::SAMPLE, |_, _| ());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let escape = byte == b'%';
        let mut digit = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
        if !(escape && digit() && digit() || !escape && fits(byte)) {
            return false;
        }
    }
    true
}

/// RFC 3261 section 25.1, `unreserved`.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte)
}

/// RFC 3261 section 25.1, `user` less its escapes.
fn is_user(byte: u8) -> bool {
    is_unreserved(byte) || b"&=+$,;?/".contains(&byte)
}

/// RFC 3261 section 25.1, `paramchar` less its escapes.
fn is_parameter(byte: u8) -> bool {
    is_unreserved(byte) || b"[]/:&+$".contains(&byte)
}

/// RFC 3261 section 25.1, `token`.
fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// A host as [`is_host`] takes it, without brackets, and its port.
fn split_port(host: &str) -> (&str, Option<u16>) {
    let (name, rest) = match host.strip_prefix('[') {
        Some(six) => six.split_once(']').unwrap_or((six, "")),
        None => host.split_once(':').map_or((host, ""), |(name, _)| host.split_at(name.len())),
    };
    (name, rest.strip_prefix(':').and_then(|port| port.parse().ok()))
}

/// Fills a template in, in one pass: what a value holds is not a template.
fn fill(template: &str, values: &Values<'_>, write: fn(&str, &mut String)) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let known = after.split_once('}');
        match known.and_then(|(name, tail)| Some((values.named(name)?, tail))) {
            Some((value, tail)) => {
                write(value, &mut text);
                rest = tail;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// Writes a value into a URI: escaped, but for what means itself everywhere in one.
fn escape(value: &str, uri: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let value = if value.is_empty() { NOBODY } else { value };
    for byte in value.chars().take(VALUE_CHARACTERS).collect::<String>().bytes() {
        if is_unreserved(byte) || byte == b'+' {
            uri.push(char::from(byte));
        } else {
            let digits = [byte >> 4, byte & 15].map(|nibble| HEX.get(usize::from(nibble)));
            uri.push('%');
            uri.extend(digits.into_iter().flatten().map(|digit| char::from(*digit)));
        }
    }
}

/// Writes a value into a header, without what could end the line.
fn print(value: &str, header: &mut String) {
    header.extend(value.chars().take(VALUE_CHARACTERS).filter(|c| !c.is_control()));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Runtime;

    fn read(mut block: Value) -> Result<SipAgent, String> {
        block["type"] = json!("sip");
        match Runtime::parse(&json!({ "runtime": block })) {
            Ok(Some(Runtime::Sip(agent))) => Ok(*agent),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(format!("{}: {}", error.field, error.message)),
        }
    }

    fn at(uri: &str) -> Result<SipAgent, String> {
        read(json!({ "uri": uri }))
    }

    const VALUES: Values<'_> =
        Values { called: "+15550100", caller: "+4930123", conversation: "67e5-1" };

    #[test]
    fn values_are_filled_in_where_the_placeholders_stand() {
        let agent = at("sip:{called_number}@agents.example.com;from={caller_number}").unwrap();
        assert_eq!(agent.uri_for(&VALUES), "sip:+15550100@agents.example.com;from=+4930123");
        let agent = at("sips:bot-{conversation_id}@[2001:db8::1]:5071").unwrap();
        assert_eq!(agent.uri_for(&VALUES), "sips:bot-67e5-1@[2001:db8::1]:5071");
        assert_eq!((agent.host(), agent.is_secure()), (("2001:db8::1", Some(5071)), true));
        assert_eq!(at("sip:h.example").unwrap().host(), ("h.example", None));
        assert_eq!(at("sip:a@h.example:5080;x").unwrap().host(), ("h.example", Some(5080)));
    }

    #[test]
    fn a_value_cannot_change_what_the_uri_means() {
        let agent = at("sip:{caller_number}@h.example;x={caller_number}").unwrap();
        let caller = "a@evil.example;maddr=1?b={called_number}\r\nX: \u{e9}%41";
        let uri = agent.uri_for(&Values { caller, ..VALUES });
        let escaped = "a%40evil.example%3Bmaddr%3D1%3Fb%3D%7Bcalled_number%7D%0D%0AX%3A%20\
                       %C3%A9%2541";
        assert_eq!(uri, format!("sip:{escaped}@h.example;x={escaped}"));
        let nobody = agent.uri_for(&Values { caller: "", ..VALUES });
        assert_eq!(nobody, "sip:anonymous@h.example;x=anonymous");
        let long = "1".repeat(100_000);
        assert!(agent.uri_for(&Values { caller: &long, ..VALUES }).len() < 600);
    }

    #[test]
    fn headers_are_filled_in_without_line_ends() {
        let headers = json!({"X-From": "<{caller_number}>", "x-fixed": "a b"});
        let agent = read(json!({"uri": "sip:h", "headers": headers})).unwrap();
        let caller = "1\r\nVia: x\0{called_number}";
        let values = Values { caller, ..VALUES };
        let all: Vec<_> = agent.headers_for(&values).collect();
        let from = "<1Via: x{called_number}>".to_owned();
        assert_eq!(all, [("X-From", from), ("x-fixed", "a b".to_owned())]);
    }

    #[test]
    fn the_transport_is_the_uris_unless_the_block_says_it() {
        let transport = |block: Value| read(block).map(|agent| agent.transport);
        assert_eq!(transport(json!({"uri": "sip:h"})), Ok(Transport::Udp));
        assert_eq!(transport(json!({"uri": "sips:h"})), Ok(Transport::Tls));
        assert_eq!(transport(json!({"uri": "sip:h;transport=TCP"})), Ok(Transport::Tcp));
        assert_eq!(transport(json!({"uri": "sip:h", "transport": "TLS"})), Ok(Transport::Tls));
        let both = json!({"uri": "sips:h;transport=tcp", "transport": "SIP_TRANSPORT_TLS"});
        assert_eq!(transport(both), Ok(Transport::Tls));
        for block in [
            json!({"uri": "sip:h;transport=tcp", "transport": "UDP"}),
            json!({"uri": "sips:h", "transport": "UDP"}),
        ] {
            assert!(transport(block.clone()).unwrap_err().contains("transport"), "{block}");
        }
    }

    #[test]
    fn what_is_no_fit_uri_is_refused() {
        for bad in [
            "",
            "h.example",
            "https://h/",
            "tel:+15550100",
            "sip:",
            "sip:@h",
            "sip:a@",
            "sip:a:secret@h",
            "sip:a b@h",
            "sip:a@h\r\nVia: x",
            "sip:a@h\0",
            "sip:a@b@h",
            "sip:a%4@h",
            "sip:a%zz@h",
            "sip:a@h:0",
            "sip:a@192.0.2.1:0",
            "sip:a@h:99999",
            "sip:a@-h",
            "sip:a@h?Replaces=x",
            "sip:a@h;x=1?y=z",
            "sip:a@h;;x",
            "sip:a@h;maddr=192.0.2.1",
            "sip:a@h;Method=BYE",
            "sip:a@h;transport=sctp",
            "sip:a@h;transport={caller_number}",
            "sip:a@h;x=a>b",
            "sip:a@{caller_number}",
            "sip:a@h;{caller_number}=1",
            "sip:{caller}@h",
            "sip:{called_number@h",
            "sip:called_number}@h",
            "<sip:a@h>",
        ] {
            assert!(at(bad).unwrap_err().starts_with(URI), "{bad}");
        }
        assert!(at(&format!("sip:{}@h", "a".repeat(2_048))).is_err());
    }

    #[test]
    fn headers_are_extension_headers_and_nobody_elses() {
        let with = |headers: Value| read(json!({"uri": "sip:h", "headers": headers}));
        assert!(with(json!({"X-Tenant": "{conversation_id} \u{e9}"})).is_ok());
        let many: serde_json::Map<_, _> = (0..17).map(|n| (format!("X-{n}"), json!("x"))).collect();
        for bad in [
            json!({"Via": "x"}),
            json!({"X-": "x"}),
            json!({"X-A B": "x"}),
            json!({"X-A:": "x"}),
            json!({"X-A\r\nVia": "x"}),
            json!({"X-A": "b\r\nVia: x"}),
            json!({"X-A": "b\0"}),
            json!({"X-A": "{caller}"}),
            json!({"X-A": "1", "x-a": "2"}),
            json!({"x-conversation-id": "1"}),
            json!({"X-A": "x".repeat(1_025)}),
            many.into(),
        ] {
            assert!(with(bad.clone()).unwrap_err().starts_with(HEADERS), "{bad}");
        }
    }

    #[test]
    fn credentials_are_complete_and_printable() {
        let with = |user: Value, password: Value| {
            let block = json!({"uri": "sip:h", "auth_username": user, "auth_password": password});
            read(block)
        };
        let agent = with(json!("bot"), json!("canary")).unwrap();
        assert!(!format!("{agent:?}").contains("canary"));
        assert!(with(json!("bot"), Value::Null).is_ok());
        assert!(with(Value::Null, json!("")).is_ok());
        assert!(with(Value::Null, json!("x")).unwrap_err().contains("auth_username"));
        assert!(with(json!("a\r\nb"), json!("x")).unwrap_err().contains("auth_username"));
        assert!(with(json!("a"), json!("x\n")).unwrap_err().contains("auth_password"));
    }
}
