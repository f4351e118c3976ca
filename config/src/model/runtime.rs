//! Where an agent's conversation runs: the `runtime` block of its config.
//!
//! Two readers with two tempers: [`Runtime::parse`] is strict and guards what is written;
//! [`Runtime::read`] is lenient and reads what was stored, where an absent or unknown runtime means
//! the default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Invalid, check_length};
use crate::limits;
use crate::secret::Secret;

/// The values of `runtime.type` that are served.
pub const SERVED_RUNTIMES: &[&str] = &["builtin", "websocket"];

/// Names that are reserved for runtimes to come.
const PLANNED_RUNTIMES: &[&str] = &["openai_realtime", "sip"];

/// Where a conversation runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// Inside the gateway; needs nothing outside.
    Builtin(Builtin),
    /// At the far end of a WebSocket.
    Websocket(Box<Websocket>),
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
        let runtime = Self::from(wire);
        runtime.validate()?;
        Ok(Some(runtime))
    }

    /// Reads a stored config: whatever is not served is `None`, the default.
    #[must_use]
    pub fn read(config: &Value) -> Option<Self> {
        Self::parse(config).ok().flatten()
    }

    /// Takes the agent's token out of a config, leaving `null` in its place. `None` when the config
    /// has no token, which on a change means that the stored one stays.
    pub fn take_token(config: &mut Value) -> Option<Secret<String>> {
        match config.pointer_mut("/runtime/auth_token").map(Value::take) {
            Some(Value::String(token)) => Some(Secret::new(token)),
            _ => None,
        }
    }

    /// Puts the agent's token back.
    #[must_use]
    pub fn with_token(mut self, token: Option<Secret<String>>) -> Self {
        if let Self::Websocket(websocket) = &mut self {
            websocket.auth_token = token;
        }
        self
    }

    fn validate(&self) -> Result<(), Invalid> {
        let Self::Websocket(websocket) = self else { return Ok(()) };
        let Websocket { url, parameters, auth_token, connect_timeout_ms, .. } = websocket.as_ref();
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

/// Refuses line ends and other control characters, which end up in handshakes and messages.
fn check_printable(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(field, "must not hold control characters"));
    }
    Ok(())
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

impl From<Wire> for Runtime {
    fn from(wire: Wire) -> Self {
        match wire {
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
        }
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
        let config = json!({"runtime": {"type": "sip", "uri": "sip:a@b"}});
        let error = Runtime::parse(&config).unwrap_err();
        assert_eq!(error.message, "sip is not served yet; served are: builtin, websocket");
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
    }
}
