//! The Session-ID header (RFC 7989): which call a call belongs to, however many gateways it has passed.
//!
//! ```text
//!   caller ── INVITE  Session-ID: ab30… ──► gateway ── INVITE  Session-ID: ab30… ──► agent, carrier
//! ```
//!
//! A call that has no such name gets its conversation's id for one, and whoever is called for it hears it. So a
//! call that has gone in a circle through gateways which pass the name on is known when it comes back: the same
//! name for the same number is the same call once more, whatever its Call-ID.

use std::collections::HashMap;
use std::fmt;

use sip::{HeaderName, Request};

/// Name of the header.
pub(super) const SESSION_ID: &str = "Session-ID";

/// The caller's half of the header's value: a UUID without hyphens (RFC 7989 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionId(u128);

impl SessionId {
    /// What the caller names its session, if it does and the value is one: 32 lower-case hexadecimal
    /// digits, not all zero.
    pub(super) fn of(request: &Request) -> Option<SessionId> {
        let value = request.header(HeaderName::SessionId)?;
        let text = str::from_utf8(value).ok()?;
        let local = text.split(';').next()?.trim();
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if local.len() != DIGITS || !local.bytes().all(is_hex) {
            return None;
        }
        u128::from_str_radix(local, 16).ok().filter(|id| *id != 0).map(SessionId)
    }

    /// The name of a call that came without one.
    pub(super) fn of_conversation(id: &config::ids::ConversationId) -> SessionId {
        SessionId(id.as_uuid().as_u128())
    }

    /// The header's value in a first INVITE: nobody knows the other half yet.
    pub(super) fn header(self) -> String {
        format!("{self};remote={:0DIGITS$}", 0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

/// The calls that are up, by the session they belong to. Several may belong to one: a call may come back for
/// another number.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<SessionId, Vec<u64>>);

impl Sessions {
    pub(super) fn insert(&mut self, id: SessionId, call: u64) {
        self.0.entry(id).or_default().push(call);
    }

    pub(super) fn remove(&mut self, id: SessionId, call: u64) {
        if let Some(calls) = self.0.get_mut(&id) {
            calls.retain(|other| *other != call);
            if calls.is_empty() {
                self.0.remove(&id);
            }
        }
    }

    /// The calls of a session.
    pub(super) fn calls(&self, id: SessionId) -> impl Iterator<Item = u64> + '_ {
        self.0.get(&id).into_iter().flatten().copied()
    }
}

const DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<SessionId> {
        let text = format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bKx\r\nFrom: <sip:c@c>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n{value}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let message = sip::Message::parse(text.into_bytes().into()).unwrap();
        SessionId::of(&Request::try_from(message).unwrap())
    }

    #[test]
    fn a_session_is_named_by_32_lower_case_digits_and_by_nothing_else() {
        let id = read("Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=0").unwrap();
        assert_eq!(id.to_string(), "ab30317f1a784dc48ff824d0d3715d86");
        assert_eq!(read("session-id:  ab30317f1a784dc48ff824d0d3715d86 ; x=y"), Some(id));
        for value in [
            "X: y",
            "Session-ID:",
            "Session-ID: ;remote=ab30317f1a784dc48ff824d0d3715d86",
            "Session-ID: AB30317F1A784DC48FF824D0D3715D86",
            "Session-ID: +b30317f1a784dc48ff824d0d3715d86",
            "Session-ID: ab30317f1a784dc48ff824d0d3715d8",
            "Session-ID: ab30317f1a784dc48ff824d0d3715d866",
            "Session-ID: 00000000000000000000000000000000",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn a_name_is_written_in_full_with_an_unknown_other_half() {
        let zeros = "0".repeat(32);
        assert_eq!(SessionId(10).header(), format!("{}a;remote={zeros}", "0".repeat(31)));
    }

    #[test]
    fn a_session_is_forgotten_with_its_last_call() {
        let mut sessions = Sessions::default();
        sessions.insert(SessionId(1), 7);
        sessions.insert(SessionId(1), 8);
        sessions.remove(SessionId(1), 7);
        sessions.remove(SessionId(2), 8);
        assert_eq!(sessions.calls(SessionId(1)).collect::<Vec<_>>(), [8]);
        sessions.remove(SessionId(1), 8);
        assert!(sessions.0.is_empty());
    }
}
