//! Why a verb did not do what it was asked, and the exit code that says so.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::shown::printable;
use crate::run::say_error;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, a file or a name cannot be used; nothing was asked of the API.
    Unusable(String),
    /// No answer: no connection, no name, a time-out, or no API at the other end.
    Unreachable(String),
    /// The API said no.
    Refused(Box<Refusal>),
    /// Ended half-way, or not begun because nobody agreed.
    Stopped(String),
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// `POST /core/trunks`.
    pub(crate) asked: String,
    /// The `detail` of the answer, or its text when it is no JSON.
    pub(crate) detail: Value,
    /// The answer's X-Request-Id, under which the gateway's log has more.
    pub(crate) request_id: Option<String>,
}

impl Failure {
    /// A name that finds nothing.
    pub(crate) fn not_found(noun: &str, name: &str) -> Self {
        let detail = json!(format!("no {noun} is called {name}"));
        Self::Refused(Box::new(Refusal {
            status: 404,
            asked: String::new(),
            detail,
            request_id: None,
        }))
    }

    /// What scripts look at.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Unusable(_) => 2,
            Self::Unreachable(_) => 5,
            Self::Stopped(_) => 1,
            Self::Refused(refusal) => match refusal.status {
                401 | 403 => 3,
                404 => 4,
                500.. => 5,
                _ => 1,
            },
        })
    }

    /// Says it on standard error, as a sentence or as one JSON object.
    pub(crate) fn tell(&self, as_json: bool) {
        say_error(&if as_json { format!("{}\n", self.json()) } else { self.text() });
    }

    fn json(&self) -> Value {
        match self {
            Self::Refused(refusal) => json!({
                "status": refusal.status, "detail": refusal.detail, "request_id": refusal.request_id,
            }),
            Self::Unusable(why) | Self::Unreachable(why) | Self::Stopped(why) => {
                json!({ "status": null, "detail": why, "request_id": null })
            }
        }
    }

    /// The sentence for people, with every place that does not fit.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Unusable(why) | Self::Unreachable(why) | Self::Stopped(why) => {
                format!("error: {}\n", printable(why))
            }
            Self::Refused(refusal) => refusal.text(),
        }
    }
}

impl Refusal {
    fn text(&self) -> String {
        let mut text = match &self.detail {
            Value::String(sentence) => format!("error: {}\n", printable(sentence)),
            Value::Array(violations) => {
                let mut text = "error: the request does not fit\n".to_owned();
                for violation in violations {
                    let _ = writeln!(text, "  {}", printable(&place_and_reason(violation)));
                }
                text
            }
            other => format!("error: {}\n", printable(&other.to_string())),
        };
        if !self.asked.is_empty() {
            let _ = writeln!(text, "  ({} to {})", self.status, printable(&self.asked));
        }
        if let Some(id) = &self.request_id {
            let _ = writeln!(text, "  (request id {})", printable(id));
        }
        text
    }
}

/// `body.inbound_config.auth_username: must not be empty`.
fn place_and_reason(violation: &Value) -> String {
    let parts = violation.get("loc").and_then(Value::as_array).into_iter().flatten();
    let place: Vec<String> =
        parts.map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect();
    let reason = violation.get("msg").and_then(Value::as_str).unwrap_or("does not fit");
    format!("{}: {reason}", place.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, detail: Value) -> Failure {
        Failure::Refused(Box::new(Refusal {
            status,
            asked: "POST /core/trunks".to_owned(),
            detail,
            request_id: Some("7f".to_owned()),
        }))
    }

    #[test]
    fn every_place_that_does_not_fit_is_told_with_the_request_id() {
        let detail = json!([
            {"loc": ["body", "name"], "msg": "Field required", "type": "missing"},
            {"loc": ["body", "list", 2], "msg": "Input should be a valid string", "type": "string_type"},
        ]);
        assert_eq!(
            refused(422, detail).text(),
            "error: the request does not fit\n  body.name: Field required\n  \
             body.list.2: Input should be a valid string\n  (422 to POST /core/trunks)\n  \
             (request id 7f)\n"
        );
    }

    #[test]
    fn what_the_api_quotes_cannot_steer_the_terminal() {
        let text = refused(409, json!("\u{1b}[2Jtaken")).text();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn scripts_can_tell_failures_apart() {
        let code = |failure: Failure| format!("{:?}", failure.exit_code());
        let of = |status| code(refused(status, Value::Null));
        assert_eq!(of(401), of(403));
        assert_eq!(of(404), code(Failure::not_found("trunk", "x")));
        assert_eq!(of(503), code(Failure::Unreachable(String::new())));
        let kinds = [of(422), of(401), of(404), of(503), code(Failure::Unusable(String::new()))];
        for (index, kind) in kinds.iter().enumerate() {
            assert!(!kinds[..index].contains(kind), "{kinds:?}");
        }
    }
}
