//! The JSON Schema of an agent config, and the check of a config against it.
//!
//! A config is stored and returned as it was written; the schema types what is known and lets
//! everything else through (`additionalProperties: true`), so that a config made for another server
//! of the same contract keeps all of its parts. Only `runtime` and the workflows are ours to act on.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Api;
use super::error::{ApiError, Violation};
use super::inbound_routing::{check_definition, violations};
use super::schema::Schema;
use crate::briefing::{self, ActionWorkflow, WorkflowAction};
use crate::credential::ScopedTo;
use crate::guard;
use crate::ids::OrganisationId;
use crate::limits::{
    NAME_BYTES, RUNTIME_HEADERS, RUNTIME_PARAMETER_CHARACTERS, RUNTIME_PARAMETERS,
    RUNTIME_URL_CHARACTERS,
};
use crate::model::{Runtime, VersionRef};
use crate::store::StoreError;
use crate::workflows::Fault;

/// The schema, as `GET /core/agent-config-schema` returns it.
pub(crate) static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

/// Checks the known parts of a config, which is the body's field `name`.
pub(crate) fn check(name: &str, config: &Value) -> Result<(), ApiError> {
    let found = Schema { document: &SCHEMA, root: &SCHEMA, enums: true }
        .violations(config, &[json!("body"), json!(name)]);
    if found.is_empty() { Ok(()) } else { Err(ApiError::Violations(found)) }
}

/// Checks the workflows of a config: their actions, and what they run.
pub(crate) async fn check_workflows(
    api: &Api,
    scope: &ScopedTo<OrganisationId>,
    (name, config): (&str, &Value),
) -> Result<(), ApiError> {
    let organisation = scope.organisation();
    for field in briefing::FIELDS {
        let place = format!("{name}.{field}");
        let action = config.get(field);
        let parsed = WorkflowAction::parse(action).map_err(|why| violations(&place, &why))?;
        let (Some(parsed), Some(action)) = (parsed, action) else { continue };
        check_stored(api, scope, (&place, &parsed)).await?;
        if let Some(definition) = action.get("definition").filter(|value| !value.is_null()) {
            let place = format!("{place}.definition");
            check_definition(api, organisation, (&place, definition)).await?;
        }
        if let Some(condition) = action.get("condition").and_then(Value::as_str)
            && !condition.trim().is_empty()
        {
            let definition = briefing::condition_definition(condition);
            let checked = check_definition(api, organisation, ("", &definition)).await;
            checked.map_err(|error| match error {
                // Where it stands in the workflow that is made of it means nothing to its author.
                ApiError::Violations(all) => condition_violation(&place, all),
                error => error,
            })?;
        }
    }
    Ok(())
}

/// A stored workflow must be there to be run: published, and with the step it is to begin with.
async fn check_stored(
    api: &Api,
    scope: &ScopedTo<OrganisationId>,
    (place, action): (&str, &WorkflowAction),
) -> Result<(), ApiError> {
    let ActionWorkflow::Stored(stored) = &action.workflow else { return Ok(()) };
    let refuse = |key: &str, why: &str| Err(violations(place, &[Fault::new(key, why)]));
    let Ok(id) = stored.id.parse() else {
        return refuse("workflow_id", "is no workflow of this organization");
    };
    let which = stored.version.map_or(VersionRef::Latest, VersionRef::Number);
    let definition = match api.store.workflow_definition(scope, id, which).await {
        Ok((_, definition)) => definition,
        Err(StoreError::NotFound(what)) if what == "Workflow" => {
            return refuse("workflow_id", "is no workflow of this organization");
        }
        Err(StoreError::NotFound(_) | StoreError::Refused(_)) => {
            return refuse("workflow_version", "is no published version of the workflow");
        }
        Err(error) => return Err(error.into()),
    };
    match &action.initial_step {
        Some(step) if definition.position(step).is_none() => {
            refuse("initial_step", "is no step of the workflow")
        }
        _ => Ok(()),
    }
}

fn condition_violation(place: &str, all: Vec<Violation>) -> ApiError {
    let loc = std::iter::once("body").chain(place.split('.')).chain(["condition"]);
    let loc: Vec<Value> = loc.map(Value::from).collect();
    ApiError::Violations(all.into_iter().map(|one| Violation { loc: loc.clone(), ..one }).collect())
}

/// Checks what the settings of this node forbid of an agent's address.
pub(crate) fn check_address(
    name: &str,
    config: &Value,
    rules: AddressRules,
) -> Result<(), ApiError> {
    let refuse = |field: &str, message: &str| {
        let loc = ["body", name, "runtime", field].map(Value::from);
        ApiError::Violations(vec![Violation::new(&loc, "value_error", message)])
    };
    let inside = |host: &str| {
        host.parse().is_ok_and(|address| !guard::is_public(address))
            || host.eq_ignore_ascii_case("localhost")
    };
    const INSIDE: &str = "must not be a private or loopback address on this node";
    if let Some(url) = config.pointer("/runtime/url").and_then(Value::as_str) {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if scheme.eq_ignore_ascii_case("ws") && !rules.allow_plain_ws {
            let why = "must be wss://: this node does not allow agents without TLS";
            return Err(refuse("url", why));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(six) => six.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        if inside(host) && !rules.allow_private_addresses {
            return Err(refuse("url", INSIDE));
        }
    }
    match Runtime::read(config) {
        Some(Runtime::Sip(agent)) if inside(agent.host().0) && !rules.allow_private_addresses => {
            Err(refuse("uri", INSIDE))
        }
        _ => Ok(()),
    }
}

/// What the settings say about the addresses of agents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressRules {
    pub(crate) allow_plain_ws: bool,
    pub(crate) allow_private_addresses: bool,
}

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AgentConfig",
        "description": "What an agent version does. Unknown fields are kept as they are.",
        "x-version": env!("CARGO_PKG_VERSION"),
        "type": "object",
        "additionalProperties": true,
        "properties": {
            "runtime": runtime(),
            "instructions": {
                "type": ["string", "null"],
                "description": "The prompt.",
            },
            "starting_message": opening(),
            "stt_llm_tts": speech(),
            "inactivity_nudge": nudge(),
            "tools": {
                "type": ["array", "null"],
                "items": { "$ref": "#/$defs/ToolCall" },
            },
            "channel_overrides": by_channel(json!({
                "instructions": { "type": ["string", "null"] },
                "instructions_mode": { "enum": ["append", "replace", null] },
                "starting_message": opening(),
                "max_tool_steps": { "type": ["integer", "null"], "minimum": 0 },
            })),
            "channel_properties": by_channel(json!({
                "enabled": { "type": ["boolean", "null"] },
                "body_format": { "type": ["string", "null"] },
                "body_template": { "type": ["string", "null"] },
                "default_subject": { "type": ["string", "null"] },
                "subject_template": { "type": ["string", "null"] },
                "signature": { "type": ["string", "null"] },
                "include_unsubscribe_footer": { "type": ["boolean", "null"] },
            })),
            "pre_conversation_workflow": workflow("before somebody is answered or dialled"),
            "post_conversation_workflow": workflow("after the end"),
        },
        "$defs": { "Message": message(), "ToolCall": tool_call(), "Action": action() },
    })
}

fn opening() -> Value {
    json!({
        "description": "What is said first.",
        "anyOf": [{ "type": "null" }, { "type": "string" }, { "$ref": "#/$defs/Message" }],
    })
}

/// Where the conversation runs; one form per value of `type`.
fn runtime() -> Value {
    json!({
        "description": "Where the conversation runs. Absent or null: where the organization's default says, else the built-in echo.",
        "oneOf": [{ "type": "null" }, builtin(), websocket(), sip()],
    })
}

fn builtin() -> Value {
    json!({
        "type": "object",
        "title": "Builtin",
        "description": "Inside the gateway: needs nothing outside.",
        "required": ["type"],
        "additionalProperties": true,
        "properties": {
            "type": { "const": "builtin" },
            "builtin": {
                "enum": ["echo", "playback"],
                "default": "echo",
                "description": "Say back what is heard, or play a clip.",
            },
            "clip": { "enum": ["greeting", "tone", null], "default": "greeting" },
            "repeat": { "type": "boolean", "default": false },
        },
    })
}

fn websocket() -> Value {
    json!({
        "type": "object",
        "title": "Websocket",
        "description": "At the far end of a WebSocket.",
        "required": ["type", "url"],
        "additionalProperties": true,
        "properties": {
            "type": { "const": "websocket" },
            "url": {
                "type": "string",
                "format": "uri",
                "minLength": 1,
                "maxLength": RUNTIME_URL_CHARACTERS.value,
                "description": "wss://…, or ws://… where the node allows it.",
            },
            "dialect": {
                "enum": ["twilio"],
                "default": "twilio",
                "description": "Whose protocol it speaks: Twilio Media Streams.",
            },
            "auth_token": {
                "type": ["string", "null"],
                "writeOnly": true,
                "description": "Signs the handshake. Never returned; null keeps the stored one.",
            },
            "parameters": parameters(),
            "custom_parameters": parameters(),
            "on_failure": { "enum": ["hangup", "playback", null] },
            "connect_timeout_ms": { "type": ["integer", "null"], "minimum": 1, "maximum": 60_000 },
        },
    })
}

fn sip() -> Value {
    let filled_in = "May hold {called_number}, {caller_number} and {conversation_id}.";
    json!({
        "type": "object",
        "title": "Sip",
        "description": "At a SIP endpoint, which the gateway calls for every conversation.",
        "required": ["type", "uri"],
        "additionalProperties": true,
        "properties": {
            "type": { "const": "sip" },
            "uri": {
                "type": "string",
                "minLength": 1,
                "maxLength": RUNTIME_URL_CHARACTERS.value,
                "examples": ["sips:{called_number}@agents.example.com"],
                "description": format!(
                    "sip:… or sips:… without password and headers. {filled_in} Not in the host."
                ),
            },
            "transport": {
                "enum": [
                    "SIP_TRANSPORT_UDP", "SIP_TRANSPORT_TCP", "SIP_TRANSPORT_TLS",
                    "UDP", "TCP", "TLS", null,
                ],
                "description": "What carries SIP to it. Absent or null: what the URI says.",
            },
            "media_encryption": {
                "enum": [
                    "SIP_MEDIA_ENCRYPT_DISABLE", "SIP_MEDIA_ENCRYPT_ALLOW",
                    "SIP_MEDIA_ENCRYPT_REQUIRE", "NONE", "DISABLE", "ALLOW", "REQUIRE",
                ],
                "default": "SIP_MEDIA_ENCRYPT_DISABLE",
                "description": "Whether the audio to it is encrypted.",
            },
            "auth_username": {
                "type": ["string", "null"],
                "description": "Digest user, where it asks for one.",
            },
            "auth_password": {
                "type": ["string", "null"],
                "writeOnly": true,
                "description": "Its password. Never returned; null keeps the stored one.",
            },
            "headers": {
                "type": "object",
                "maxProperties": RUNTIME_HEADERS.value,
                "additionalProperties": {
                    "type": "string",
                    "maxLength": RUNTIME_PARAMETER_CHARACTERS.value,
                },
                "description": format!("Headers of its INVITE, named X-…. {filled_in}"),
            },
            "on_failure": { "enum": ["hangup", "playback", null] },
            "connect_timeout_ms": { "type": ["integer", "null"], "minimum": 1, "maximum": 60_000 },
        },
    })
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "maxProperties": RUNTIME_PARAMETERS.value,
        "additionalProperties": {
            "type": "string",
            "maxLength": RUNTIME_PARAMETER_CHARACTERS.value,
        },
        "description": "Passed to the agent when the stream starts.",
    })
}

fn message() -> Value {
    json!({
        "type": "object",
        "additionalProperties": true,
        "properties": {
            "type": { "type": ["string", "null"] },
            "text": { "type": ["string", "null"] },
            "prompt": { "type": ["string", "null"] },
        },
    })
}

fn speech() -> Value {
    json!({
        "type": ["object", "null"],
        "additionalProperties": true,
        "properties": {
            "turn_detection": {
                "type": ["object", "null"],
                "additionalProperties": true,
                "properties": { "models": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": true,
                        "properties": { "provider": { "type": "string" } },
                    },
                } },
            },
            "interruption": {
                "type": ["object", "null"],
                "additionalProperties": true,
                "properties": { "mode": { "enum": ["adaptive", "vad"], "default": "adaptive" } },
            },
            "endpointing": { "type": ["object", "null"] },
        },
    })
}

fn nudge() -> Value {
    json!({
        "type": ["object", "null"],
        "additionalProperties": true,
        "properties": {
            "timeout_seconds": { "type": "number", "exclusiveMinimum": 0, "default": 30 },
            "nudge_interval_seconds": { "type": "number", "exclusiveMinimum": 0, "default": 15 },
            "nudges": {
                "type": "array",
                "minItems": 1,
                "items": { "$ref": "#/$defs/Message" },
            },
        },
    })
}

fn tool_call() -> Value {
    json!({
        "type": "object",
        "additionalProperties": true,
        "required": ["name", "description", "actions"],
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": NAME_BYTES.value },
            "description": { "type": "string" },
            "properties": { "type": "object", "default": {} },
            "required": { "type": "array", "items": { "type": "string" }, "default": [] },
            "actions": { "type": "array", "items": { "$ref": "#/$defs/Action" } },
            "actions_on_error": {
                "type": "array",
                "items": { "$ref": "#/$defs/Action" },
                "default": [],
            },
            "output": { "type": ["string", "null"] },
        },
    })
}

fn action() -> Value {
    json!({
        "type": "object",
        "additionalProperties": true,
        "required": ["type"],
        "properties": {
            "type": {
                "type": "string",
                "description": "play_message, play_audio, stop_audio, cold_transfer, \
                    warm_transfer, conference, dtmf, wait, hangup, leave_room, \
                    update_endpointing, workflow, knowledge_base.",
            },
            "condition": { "type": ["string", "null"] },
        },
    })
}

/// What the fields of a workflow action mean; [`WorkflowAction::parse`] checks them.
fn workflow(when: &str) -> Value {
    json!({
        "type": ["object", "null"],
        "additionalProperties": true,
        "description": format!("A workflow that runs {when}: exactly one of workflow_id and definition."),
        "properties": {
            "type": { "const": "workflow" },
            "workflow_id": { "type": ["string", "null"], "description": "A stored workflow." },
            "workflow_version": {
                "type": ["integer", "string", "null"],
                "description": "The number of its published version, or `latest`.",
            },
            "definition": { "type": ["object", "null"], "description": "A workflow of its own." },
            "initial_step": {
                "type": ["string", "null"],
                "description": "The step it begins with; needed with workflow_id.",
            },
            "condition": {
                "type": ["string", "null"],
                "description": "A JSONata expression over the input: it runs only if that is true.",
            },
            "reject_on_error": {
                "type": ["boolean", "null"],
                "default": false,
                "description": "Whether the call ends when it fails.",
            },
        },
    })
}

fn by_channel(properties: Value) -> Value {
    let channel = json!({
        "type": ["object", "null"],
        "additionalProperties": true,
        "properties": properties,
    });
    json!({ "type": ["object", "null"], "additionalProperties": channel })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    const LOCKED: AddressRules =
        AddressRules { allow_plain_ws: false, allow_private_addresses: false };

    /// A config that has every part that the schema knows.
    fn full() -> Value {
        let message = json!({ "type": "bot_initiates_static", "text": "Hi", "prompt": null });
        let action = json!({ "type": "hangup", "condition": "x", "more": [1] });
        json!({
            "runtime": { "type": "websocket", "url": "wss://h/", "dialect": "twilio",
                "parameters": { "a": "b" }, "on_failure": "hangup", "connect_timeout_ms": 9 },
            "instructions": "x",
            "starting_message": message,
            "stt_llm_tts": { "turn_detection": { "models": [{ "provider": "livekit" }] },
                "interruption": { "mode": "vad" }, "endpointing": {} },
            "inactivity_nudge": { "timeout_seconds": 30, "nudge_interval_seconds": 1.5,
                "nudges": [message] },
            "tools": [{ "name": "t", "description": "d", "properties": {}, "required": ["a"],
                "actions": [action], "actions_on_error": [], "output": null }],
            "channel_overrides": { "telephone": { "instructions": "x", "max_tool_steps": 3,
                "instructions_mode": "append", "starting_message": "y" } },
            "channel_properties": { "email": { "enabled": true, "signature": "s" } },
            "unknown": { "kept": [1, null] },
        })
    }

    /// Every place in a value, as JSON pointers.
    fn places(value: &Value, at: &str, into: &mut Vec<String>) {
        into.push(at.to_owned());
        match value {
            Value::Object(entries) => {
                entries.iter().for_each(|(key, one)| places(one, &format!("{at}/{key}"), into));
            }
            Value::Array(items) => {
                let each = items.iter().enumerate();
                each.for_each(|(index, one)| places(one, &format!("{at}/{index}"), into));
            }
            _ => {}
        }
    }

    /// Values of every type; whole numbers are written as such.
    fn anything() -> impl Strategy<Value = Value> {
        let text = prop::sample::select(vec![
            "",
            "x",
            "builtin",
            "websocket",
            "sip",
            "echo",
            "append",
            "vad",
            "twilio",
            "UDP",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3_i64..70_000).prop_map(Value::from),
            prop::sample::select(vec![0.5, -0.5, 61_000.5]).prop_map(Value::from),
            text.prop_map(Value::from),
            Just(Value::from("y".repeat(3_000))),
        ];
        let name = prop::sample::select(vec!["type", "url", "uri", "mode", "models", "name", "a"]);
        leaf.prop_recursive(2, 8, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..3).prop_map(|entries| {
                    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
                }),
            ]
        })
    }

    #[test]
    fn what_the_served_schema_says_is_what_is_checked() {
        let oracle = jsonschema::draft202012::new(&SCHEMA).unwrap();
        assert!(oracle.is_valid(&full()) && check("config", &full()).is_ok());
        let mut everywhere = Vec::new();
        places(&full(), "", &mut everywhere);
        let change = (prop::sample::select(everywhere), anything());
        let mut runner = TestRunner::new(Config { cases: 4_000, ..Config::default() });
        let outcome = runner.run(&change, |(place, value)| {
            let mut config = full();
            *config.pointer_mut(&place).unwrap() = value;
            prop_assert_eq!(oracle.is_valid(&config), check("config", &config).is_ok());
            Ok(())
        });
        outcome.unwrap();
    }

    #[test]
    fn unknown_parts_pass_and_known_parts_are_checked() {
        assert!(check("config", &json!({})).is_ok());
        assert!(
            check("config", &json!({"instructions": "x", "llm": {"model": "y"}, "runtime": null}))
                .is_ok()
        );
        assert!(
            check("config", &json!({"runtime": {"type": "builtin", "builtin": "echo"}})).is_ok()
        );
        let websocket = json!({"type": "websocket", "url": "wss://h/", "parameters": {"a": "b"}});
        assert!(check("config", &json!({ "runtime": websocket })).is_ok());
        for (bad, place) in [
            (json!([]), r#"["body","config"]"#),
            (json!({"instructions": 3}), r#"["body","config","instructions"]"#),
            (json!({"runtime": {"type": "websocket"}}), r#"["body","config","runtime","url"]"#),
            (json!({"runtime": {"type": "sip"}}), r#"["body","config","runtime","uri"]"#),
            (json!({"runtime": {"type": "smtp"}}), r#"["body","config","runtime","type"]"#),
            (
                json!({"runtime": {"type": "builtin", "builtin": "x"}}),
                r#"["body","config","runtime","builtin"]"#,
            ),
            (
                json!({"runtime": {"type": "websocket", "url": "wss://h", "parameters": {"a": 1}}}),
                r#"["body","config","runtime","parameters","a"]"#,
            ),
            (
                json!({"tools": [{"name": "x", "description": "", "actions": [{}]}]}),
                r#"["body","config","tools",0,"actions",0,"type"]"#,
            ),
        ] {
            let Err(ApiError::Violations(found)) = check("config", &bad) else {
                panic!("{bad} passes")
            };
            let places: Vec<_> = found.iter().map(|v| json!(v.loc).to_string()).collect();
            assert_eq!(places, [place], "{bad}");
        }
    }

    #[test]
    fn addresses_inside_are_refused_unless_the_settings_allow_them() {
        let open = AddressRules { allow_plain_ws: true, allow_private_addresses: true };
        for url in [
            "ws://agent.example.com/",
            "wss://127.0.0.1/",
            "wss://10.0.0.1:8443/x",
            "wss://[::1]/",
            "wss://[::ffff:192.168.0.1]:1/",
            "wss://169.254.169.254/",
            "wss://localhost:9",
            "wss://100.64.0.1/",
        ] {
            let config = json!({"runtime": {"type": "websocket", "url": url}});
            let error = check_address("config", &config, LOCKED).expect_err(url);
            assert_eq!(error.into_response().status(), 422);
            assert!(check_address("config", &config, open).is_ok());
        }
        for uri in ["sip:a@127.0.0.1", "sips:[::1]:5061", "sip:localhost", "sip:10.0.0.1;x"] {
            let config = json!({"runtime": {"type": "sip", "uri": uri}});
            assert!(check_address("config", &config, LOCKED).is_err(), "{uri}");
            assert!(check_address("config", &config, open).is_ok(), "{uri}");
        }
        let fine = json!({"runtime": {"type": "websocket", "url": "wss://agent.example.com/"}});
        assert!(check_address("config", &fine, LOCKED).is_ok());
        assert!(check_address("config", &json!({}), LOCKED).is_ok());
    }
}
