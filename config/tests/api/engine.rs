//! A stand-in for the workflow engine: reads the shape of definitions, and does what the input says.

use std::time::Duration;

use config::ids::OrganisationId;
use config::workflows::{
    Definition, Failure, FailureKind, Outcome, Parsed, Rejected, RunRequest, Running, Stopped,
    TraceEntry, Workflows,
};
use serde_json::{Value, json};

/// Gives back its input; `fail` fails, and quotes it if it is in a conversation's metadata, `wait` waits so many seconds, `take` takes so many milliseconds,
/// as far as the run has them, `hang` never ends.
#[derive(Debug)]
pub(crate) struct Echo;

impl Workflows for Echo {
    fn check<'a>(
        &'a self,
        _organisation: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(async move { Definition::parse(definition).map_err(Rejected::Faults) })
    }

    fn run(&self, request: RunRequest) -> Running<'_, Outcome> {
        Box::pin(async move {
            if request.input.get("hang").is_some() {
                std::future::pending::<()>().await;
            }
            if let Some(time) = request.input.get("take").and_then(Value::as_u64) {
                let time = Duration::from_millis(time);
                assert!(time < request.limit, "only {:?} may be taken", request.limit);
                tokio::time::sleep(time).await;
            }
            let quoted = request.input.pointer("/trigger/custom_metadata/fail");
            let message = match (quoted, request.input.get("fail")) {
                (Some(value), _) => format!("Cannot convert {value} to number"),
                (None, Some(_)) => "as asked".to_owned(),
                (None, None) => return ended(Ok(json!({ "echo": request.input }))),
            };
            let (step_name, kind) = ("out".to_owned(), FailureKind::Threw);
            ended(Err(Failure { step_name, message, kind }))
        })
    }

    fn advance(&self, request: RunRequest, checkpoint: Option<Value>) -> Running<'_, Stopped> {
        Box::pin(async move {
            match (checkpoint, request.input.get("wait").and_then(Value::as_u64)) {
                (Some(checkpoint), _) => Stopped::Ended(ended(Ok(checkpoint))),
                (None, Some(seconds)) => Stopped::Waiting {
                    time: Duration::from_secs(seconds),
                    checkpoint: json!({ "waited": true }),
                },
                (None, None) => Stopped::Ended(self.run(request).await),
            }
        })
    }
}

fn ended(result: Result<Value, Failure>) -> Outcome {
    let entry = TraceEntry {
        step: "trigger".to_owned(),
        name: "trigger".to_owned(),
        kind: "input".to_owned(),
        duration_us: 1,
        summary: "{}".to_owned(),
    };
    Outcome { result, trace: vec![entry] }
}
