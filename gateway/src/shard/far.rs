//! The agent of a call: which runtime it has, and how it is reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::limits::AGENT_HEADER_BYTES;
use config::model::{Builtin, Runtime, SipAgent, SipAgentValues, Websocket};
use config::routing::Told;
use media::codec::Codec;
use media::{AgentPort, Far};
use serde_json::Value;
use sip::Transport;

use super::Shard;
use super::call::Agent;
use super::leg::Side;
use super::links::Introduction;
use super::login::Login;
use super::wanted::Wanted;
use crate::call::EndReason;
use crate::call::machine::Input;
use crate::net::target::Destination;

/// Frames that wait in the ring between agent and wire; the rest waits in the agent's play-out queue.
const RING_FRAMES: usize = 16;

/// What an agent link may take to say how its connecting ended, on top of the connect time-out. Only
/// a link that hangs in its opening or is broken takes that long.
const LINK_GRACE: Duration = Duration::from_secs(1);

/// Hops on the way to a SIP agent at most: an agent is near, and a circle of gateways that call each
/// other as agents ends soon (RFC 3261 §16.3).
const AGENT_HOPS: u8 = 10;

impl Shard {
    /// Settles what the carrier's leg will be connected to, before its media opens.
    pub(super) fn prepare_far(&mut self, key: u64, runtime: &Runtime) -> Option<AgentPort> {
        let links = &self.services.links;
        let (far, port) = match runtime {
            Runtime::Builtin(Builtin::Echo) => (Far::Echo, None),
            Runtime::Builtin(Builtin::Playback { clip, repeat }) => {
                (Far::Playback { clip: links.clip(*clip), repeat: *repeat }, None)
            }
            Runtime::Websocket(_) => {
                let (worker, port) = media::agent_port(RING_FRAMES);
                (Far::Agent(worker), Some(port))
            }
            Runtime::Sip(_) => (Far::Nobody, None),
        };
        if let Some(call) = self.calls.get_mut(&key) {
            call.far = Some(far);
        }
        port
    }

    /// Reaches the agent; [`Input::AgentReady`] follows, or [`Input::AgentGone`].
    pub(super) fn reach_agent(
        &mut self,
        now: Instant,
        key: u64,
        (runtime, port): (Runtime, Option<AgentPort>),
    ) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        match (runtime, port) {
            (Runtime::Websocket(link), Some(port)) => self.open_link(now, key, (&link, port)),
            (Runtime::Sip(agent), _) => {
                call.agent = Agent::Sip;
                call.ending = agent.on_failure.unwrap_or(call.ending);
                self.dial_agent(now, key, &agent);
            }
            _ => {
                call.agent = Agent::Builtin;
                self.handle_input(now, key, Input::AgentReady);
            }
        }
    }

    /// How long an agent may take to be ready.
    fn agent_patience(&self, own: Option<u32>) -> Duration {
        let timeout_ms = own.unwrap_or(self.services.settings.calls.agent_connect_timeout_ms);
        Duration::from_millis(u64::from(timeout_ms))
    }

    fn open_link(&mut self, now: Instant, key: u64, (link, port): (&Websocket, AgentPort)) {
        let entropy = self.random.bytes();
        let limit = now + self.agent_patience(link.connect_timeout_ms) + LINK_GRACE;
        self.set_limit(key, limit);
        let Some(call) = self.calls.get_mut(&key) else { return };
        let who = Introduction {
            call: key,
            organisation: call.parties.organisation,
            conversation: call.record.id(),
            from_number: call.parties.caller.clone(),
            to_number: call.parties.called.clone(),
            told: parameters(&call.told),
            entropy,
        };
        let audio = (port, Arc::clone(&call.wake));
        call.ending = link.on_failure.unwrap_or(call.ending);
        call.agent = Agent::Linked(self.services.links.start(link, who, audio));
    }

    /// Calls an agent that is a SIP endpoint.
    fn dial_agent(&mut self, now: Instant, key: u64, agent: &SipAgent) {
        match self.agent_wanted(key, agent) {
            Some(wanted) => self.dial(now, key, wanted),
            // The caller's hops are used up: whoever calls in a circle ends here (RFC 3261 §16.3).
            None => self.handle_input(now, key, Input::AgentGone(EndReason::TooManyHops)),
        }
    }

    fn agent_wanted(&self, key: u64, agent: &SipAgent) -> Option<Wanted> {
        let call = self.calls.get(&key).filter(|call| call.max_forwards > 0)?;
        let parties = &call.parties;
        let conversation = call.record.id().to_string();
        let values = SipAgentValues {
            called: &parties.called,
            caller: &parties.caller,
            conversation: &conversation,
        };
        let request_uri = agent.uri_for(&values);
        let (host, port) = agent.host();
        let transport = match agent.transport {
            config::model::Transport::Udp => Transport::Udp,
            config::model::Transport::Tcp => Transport::Tcp,
            config::model::Transport::Tls => Transport::Tls,
        };
        let told = &call.told;
        let own = [
            Some(conversation.clone()),
            Some(parties.organisation.to_string()),
            parties.agent.map(|id| id.to_string()),
            parties.version.map(|id| id.to_string()),
            told.initial_context.as_deref().and_then(as_header_text),
            told.metadata().as_ref().and_then(as_header_json),
        ];
        let own = SipAgent::OWN_HEADERS.into_iter().zip(own);
        let mut headers: Vec<(String, String)> =
            own.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        headers.extend(agent.headers_for(&values).map(|(name, value)| (name.to_owned(), value)));
        let hops = call.max_forwards.min(AGENT_HOPS);
        headers.push(("Max-Forwards".to_owned(), hops.to_string()));
        let caller = super::invite::as_user(&parties.caller);
        let first = call.carrier.as_ref().and_then(|leg| leg.codec).unwrap_or(Codec::Pcmu);
        let second = if first == Codec::Pcmu { Codec::Pcma } else { Codec::Pcmu };
        Some(Wanted {
            side: Side::Agent,
            destination: Destination {
                host: host.to_owned(),
                port,
                transport,
                secure: agent.is_secure(),
            },
            from: format!("<sip:{caller}@{}>", self.our_host()),
            to: format!("<{request_uri}>"),
            request_uri,
            headers,
            login: agent
                .auth_username
                .clone()
                .zip(agent.auth_password.clone())
                .map(|(username, password)| Arc::new(Login { username, password })),
            encryption: agent.media_encryption,
            // The caller's codec first: the two legs then need no translation.
            codecs: vec![first, second],
            trunk: None,
            noise_cancellation: false,
            patience: self.agent_patience(agent.connect_timeout_ms),
        })
    }
}

/// What workflows and the API tell an agent, as parameters of its stream.
fn parameters(told: &Told) -> Vec<(String, String)> {
    let context = told.initial_context.clone().map(|text| ("initial_context".to_owned(), text));
    let metadata = told.metadata().map(|map| ("custom_metadata".to_owned(), map.to_string()));
    context.into_iter().chain(metadata).collect()
}

/// Text as a header's value: everything but letters, digits and `-_.~` is percent-encoded (RFC 3986
/// section 2.1), so that it stays one line. What is too long is left out: the agent reads it in the
/// conversation, whose id it has.
fn as_header_text(text: &str) -> Option<String> {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            value.push(char::from(byte));
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
        if value.len() > AGENT_HEADER_BYTES.value_usize() {
            return None;
        }
    }
    Some(value)
}

/// JSON as a header's value: on one line as it is, and in ASCII, escaped (RFC 8259 section 7).
fn as_header_json(value: &Value) -> Option<String> {
    let mut text = String::new();
    for unit in value.to_string().encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ 0x20..=0x7e) => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\u{unit:04x}")),
        }
        if text.len() > AGENT_HEADER_BYTES.value_usize() {
            return None;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_in_a_header_is_one_line_and_means_the_same() {
        let text = as_header_text("two\r\nVia: x\tü").expect("short");
        assert_eq!(text, "two%0D%0AVia%3A%20x%09%C3%BC");
        let value = json!({ "a\r\n": "ü 😀 \u{7f}\"" });
        let text = as_header_json(&value).expect("short");
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn what_is_too_long_for_a_header_is_left_out() {
        let longest = AGENT_HEADER_BYTES.value_usize();
        assert!(as_header_text(&"x".repeat(longest)).is_some());
        assert!(as_header_text(&"x".repeat(longest + 1)).is_none());
        assert!(as_header_text(&"\n".repeat(longest / 2)).is_none());
        assert!(as_header_json(&json!("x".repeat(longest))).is_none());
    }

    #[test]
    fn an_agent_that_is_told_nothing_gets_no_parameters() {
        assert!(parameters(&Told::default()).is_empty());
        let custom_metadata = json!({ "a": 1 }).as_object().cloned().unwrap_or_default();
        let told = Told { initial_context: Some("x".to_owned()), custom_metadata };
        let expected = [("initial_context", "x"), ("custom_metadata", r#"{"a":1}"#)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parameters(&told), expected);
    }
}
