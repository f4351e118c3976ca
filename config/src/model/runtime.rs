//! Where an agent's conversation runs: the `runtime` block of its config.
//!
//! Two readers with two tempers: [`Runtime::parse`] is strict and guards what is written;
//! [`Runtime::read`] is lenient and reads what was stored, where an absent or unknown runtime means
//! the default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::sip_agent::{SipAgent, transport_of};
use super::{Invalid, MediaEncryption, Transport, check_length, check_printable};
use crate::limits;
use crate::secret::Secret;

/// The values of `runtime.type` that are served.
pub const SERVED_RUNTIMES: &[&str] = &["builtin", "websocket", "sip"];

/// Names that are reserved for runtimes to come.
const PLANNED_RUNTIMES: &[&str] = &["openai_realtime"];

/// Where in a config a secret may stand: one runtime has one.
const SECRETS: [&str; 2] = ["/runtime/auth_token", "/runtime/auth_password"];

/// What a secret belongs to: it must not be shown anywhere else.
const PLACES: [&str; 4] =
    ["/runtime/type", "/runtime/url", "/runtime/uri", "/runtime/auth_username"];

/// Where a conversation runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// Inside the gateway; needs nothing outside.
    Builtin(Builtin),
    /// At the far end of a WebSocket.
    Websocket(Box<Websocket>),
    /// At a SIP endpoint.
    Sip(Box<SipAgent>),
}

impl Default for Runtime {
    fn default() -> Self {
        Self::Builtin(Builtin::Echo)
    }
}

/// A built-in agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Says back what it hears.
    Echo,
    /// Plays a clip.
    Playback {
        /// What to play.
        clip: Clip,
        /// Whether to start again at its end; otherwise the call ends there.
        repeat: bool,
    },
}

/// A built-in clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// A short spoken-like greeting.
    #[default]
    Greeting,
    /// A steady tone.
    Tone,
}

/// Whose protocol a WebSocket agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Twilio Media Streams.
    #[default]
    Twilio,
}

/// What becomes of a call whose agent cannot be reached or is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentEnding {
    /// It is refused if not yet answered, and hung up otherwise.
    #[default]
    Hangup,
    /// The same, but a caller who was talking hears a clip before being hung up.
    Playback,
}

/// A WebSocket agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Websocket {
    /// `wss://…` (or `ws://…`, where the settings allow it).
    pub url: String,
    /// Whose protocol it speaks.
    pub dialect: Dialect,
    /// Signs the handshake. Sealed at rest; write-only.
    pub auth_token: Option<Secret<String>>,
    /// Passed to the agent when the stream starts.
    pub parameters: BTreeMap<String, String>,
    /// What to do without it; `None` is the gateway's setting.
    pub on_failure: Option<AgentEnding>,
    /// How long to try to connect, in milliseconds; `None` is the gateway's setting.
    pub connect_timeout_ms: Option<u32>,
}

/// Why a `runtime` block was refused.
pub type RuntimeError = Invalid;

/// The block as it is written.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Wire {
    Builtin {
        #[serde(default)]
        builtin: BuiltinName,
        #[serde(default)]
        clip: Option<Clip>,
        #[serde(default)]
        repeat: bool,
    },
    Websocket {
        url: String,
        #[serde(default)]
        dialect: Dialect,
        #[serde(default)]
        auth_token: Option<Secret<String>>,
        #[serde(default, alias = "custom_parameters")]
        parameters: BTreeMap<String, String>,
        #[serde(default)]
        on_failure: Option<AgentEnding>,
        #[serde(default)]
        connect_timeout_ms: Option<u32>,
    },
    Sip {
        uri: String,
        #[serde(default)]
        transport: Option<Transport>,
        #[serde(default)]
        media_encryption: MediaEncryption,
        #[serde(default)]
        auth_username: Option<String>,
        #[serde(default)]
        auth_password: Option<Secret<String>>,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        #[serde(default)]
        on_failure: Option<AgentEnding>,
        #[serde(default)]
        connect_timeout_ms: Option<u32>,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum BuiltinName {
    #[default]
    Echo,
    Playback,
}

impl Runtime {
    /// Reads the `runtime` block of an agent config; `None` when it has none.
    ///
    /// # Errors
    /// When the block is there and is not one that is served, saying what is.
    pub fn parse(config: &Value) -> Result<Option<Self>, RuntimeError> {
        let block = match config.get("runtime") {
            None | Some(Value::Null) => return Ok(None),
            Some(block) => block,
        };
        check_type(block)?;
        let wire = Wire::deserialize(block)
            .map_err(|error| Invalid::new("config.runtime", error.to_string()))?;
        let runtime = Self::try_from(wire)?;
        runtime.validate()?;
        Ok(Some(runtime))
    }

    /// Reads a stored config: whatever is not served is `None`, the default.
    #[must_use]
    pub fn read(config: &Value) -> Option<Self> {
        Self::parse(config).ok().flatten()
    }

    /// Takes the agent's secret (token or password) out of a config, leaving `null` in its place.
    /// `None` when the config has none, which on a change means that the stored one stays.
    pub fn take_token(config: &mut Value) -> Option<Secret<String>> {
        let taken = SECRETS.map(|place| config.pointer_mut(place).map(Value::take));
        taken.into_iter().flatten().find_map(|value| match value {
            Value::String(secret) => Some(Secret::new(secret)),
            _ => None,
        })
    }

    /// Whether two configs reach the same agent as the same user, so that the secret of one may be
    /// shown to the other's.
    #[must_use]
    pub fn same_place(one: &Value, other: &Value) -> bool {
        one.pointer("/runtime/type").is_some()
            && PLACES.iter().all(|place| one.pointer(place) == other.pointer(place))
    }

    /// Puts the agent's secret back.
    #[must_use]
    pub fn with_token(mut self, token: Option<Secret<String>>) -> Self {
        match &mut self {
            Self::Builtin(_) => {}
            Self::Websocket(websocket) => websocket.auth_token = token,
            Self::Sip(agent) => agent.auth_password = token,
        }
        self
    }

    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Builtin(_) => Ok(()),
            Self::Websocket(websocket) => websocket.validate(),
            Self::Sip(agent) => agent.validate(),
        }
    }
}

impl Websocket {
    fn validate(&self) -> Result<(), Invalid> {
        let Websocket { url, parameters, auth_token, connect_timeout_ms, .. } = self;
        let rest = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if host.is_empty() || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Invalid::new("config.runtime.url", "must be a wss:// or ws:// URL"));
        }
        if host.contains('@') {
            let message = "must not carry a user name or password; use auth_token";
            return Err(Invalid::new("config.runtime.url", message));
        }
        check_length("config.runtime.url", url, limits::RUNTIME_URL_CHARACTERS)?;
        if u64::try_from(parameters.len()).is_ok_and(|n| n > limits::RUNTIME_PARAMETERS.value) {
            let message = format!("must hold at most {}", limits::RUNTIME_PARAMETERS.value);
            return Err(Invalid::new("config.runtime.parameters", message));
        }
        for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
            let limit = limits::RUNTIME_PARAMETER_CHARACTERS;
            check_length("config.runtime.parameters", text, limit)?;
            check_printable("config.runtime.parameters", text)?;
        }
        if let Some(token) = auth_token {
            check_printable("config.runtime.auth_token", token.expose())?;
        }
        if *connect_timeout_ms == Some(0) {
            return Err(Invalid::new("config.runtime.connect_timeout_ms", "must be at least 1"));
        }
        Ok(())
    }
}

fn check_type(block: &Value) -> Result<(), Invalid> {
    let served = SERVED_RUNTIMES.join(", ");
    match block.get("type").and_then(Value::as_str) {
        Some(kind) if SERVED_RUNTIMES.contains(&kind) => Ok(()),
        Some(kind) if PLANNED_RUNTIMES.contains(&kind) => Err(Invalid::new(
            "config.runtime.type",
            format!("{kind} is not served yet; served are: {served}"),
        )),
        _ => Err(Invalid::new("config.runtime.type", format!("must be one of: {served}"))),
    }
}

impl TryFrom<Wire> for Runtime {
    type Error = Invalid;

    fn try_from(wire: Wire) -> Result<Self, Invalid> {
        Ok(match wire {
            Wire::Builtin { builtin: BuiltinName::Echo, .. } => Self::Builtin(Builtin::Echo),
            Wire::Builtin { builtin: BuiltinName::Playback, clip, repeat } => {
                Self::Builtin(Builtin::Playback { clip: clip.unwrap_or_default(), repeat })
            }
            Wire::Websocket {
                url,
                dialect,
                auth_token,
                parameters,
                on_failure,
                connect_timeout_ms,
            } => Self::Websocket(Box::new(Websocket {
                url,
                dialect,
                auth_token,
                parameters,
                on_failure,
                connect_timeout_ms,
            })),
            Wire::Sip {
                uri,
                transport,
                media_encryption,
                auth_username,
                auth_password,
                headers,
                on_failure,
                connect_timeout_ms,
            } => Self::Sip(Box::new(SipAgent {
                transport: transport.map_or_else(|| transport_of(&uri), Ok)?,
                uri,
                media_encryption,
                auth_username,
                auth_password,
                headers,
                on_failure,
                connect_timeout_ms,
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(runtime: Value) -> Result<Option<Runtime>, Invalid> {
        Runtime::parse(&json!({"instructions": "x", "runtime": runtime}))
    }

    #[test]
    fn the_builtin_agents_are_read() {
        let echo = Runtime::Builtin(Builtin::Echo);
        assert_eq!(parse(json!({"type": "builtin", "builtin": "echo"})), Ok(Some(echo)));
        let tone = Builtin::Playback { clip: Clip::Tone, repeat: true };
        let block =
            json!({"type": "builtin", "builtin": "playback", "clip": "tone", "repeat": true});
        assert_eq!(parse(block), Ok(Some(Runtime::Builtin(tone))));
    }

    #[test]
    fn a_websocket_needs_a_websocket_url() {
        let read = |url| parse(json!({"type": "websocket", "url": url}));
        assert!(read("wss://agent.example.com/media?x=1").is_ok());
        assert!(read("ws://127.0.0.1:9000").is_ok());
        for bad in ["https://h/", "wss://", "wss:///path", "wss://u:p@h/", "wss://h/ x"] {
            assert_eq!(read(bad).unwrap_err().field, "config.runtime.url", "{bad}");
        }
    }

    #[test]
    fn a_runtime_that_is_not_served_is_refused_at_write_and_ignored_at_read() {
        let config = json!({"runtime": {"type": "openai_realtime"}});
        let error = Runtime::parse(&config).unwrap_err();
        let words = "openai_realtime is not served yet; served are: builtin, websocket, sip";
        assert_eq!(error.message, words);
        assert_eq!(Runtime::read(&config), None);
        assert!(parse(json!({"type": "webscoket"})).is_err());
        assert!(parse(json!("builtin")).is_err());
    }

    #[test]
    fn a_runtime_keeps_to_the_limits() {
        let read = |url: String, parameters: Value| {
            let block = json!({"type": "websocket", "url": url, "parameters": parameters});
            parse(block).map_err(|error| error.field)
        };
        let many: serde_json::Map<_, _> = (0..65).map(|n| (n.to_string(), json!("x"))).collect();
        let url = || "wss://h/".to_owned();
        assert!(read(url(), json!({"a": "b"})).is_ok());
        assert_eq!(read(url(), many.into()), Err("config.runtime.parameters"));
        assert_eq!(read(url(), json!({"a": "b\r\nc: d"})), Err("config.runtime.parameters"));
        assert_eq!(read(url(), json!({"a\0": "b"})), Err("config.runtime.parameters"));
        assert_eq!(read(url(), json!({"a": "x".repeat(1_025)})), Err("config.runtime.parameters"));
        assert_eq!(read(url() + &"x".repeat(2_048), json!({})), Err("config.runtime.url"));
    }

    #[test]
    fn no_runtime_is_none() {
        assert_eq!(parse(Value::Null), Ok(None));
        assert_eq!(Runtime::parse(&json!({})), Ok(None));
    }

    #[test]
    fn the_token_is_taken_out_of_the_config() {
        let mut config = json!({"runtime":
            {"type": "websocket", "url": "wss://h/", "auth_token": "canary", "x": 1}});
        let token = Runtime::take_token(&mut config).unwrap();
        assert_eq!(token.expose(), "canary");
        assert_eq!(config["runtime"]["auth_token"], Value::Null);
        assert_eq!(config["runtime"]["x"], 1);
        assert!(Runtime::take_token(&mut config).is_none());
        assert!(Runtime::take_token(&mut json!({"runtime": 3})).is_none());
        let mut config = json!({"runtime": {"type": "sip", "auth_password": "canary"}});
        assert_eq!(Runtime::take_token(&mut config).unwrap().expose(), "canary");
        assert_eq!(config["runtime"]["auth_password"], Value::Null);
    }

    #[test]
    fn a_secret_belongs_to_one_agent_and_one_user() {
        let sip =
            |uri, user| json!({"runtime": {"type": "sip", "uri": uri, "auth_username": user}});
        let websocket = |url| json!({"runtime": {"type": "websocket", "url": url}});
        assert!(Runtime::same_place(&sip("sip:a", "x"), &sip("sip:a", "x")));
        assert!(!Runtime::same_place(&sip("sip:a", "x"), &sip("sip:b", "x")));
        assert!(!Runtime::same_place(&sip("sip:a", "x"), &sip("sip:a", "y")));
        assert!(Runtime::same_place(&websocket("wss://a"), &websocket("wss://a")));
        assert!(!Runtime::same_place(&websocket("wss://a"), &sip("sip:a", "x")));
        assert!(!Runtime::same_place(&json!({}), &json!({})));
    }
}
