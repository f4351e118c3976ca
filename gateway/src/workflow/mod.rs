//! The engine that runs workflows.
//!
//! [`Engine`] is cheap to clone; all clones share the worker processes. The types of a run are those of
//! [`config::workflows`].

use std::sync::Arc;

use config::ids::OrganisationId;
use config::workflows::{
    Definition, Failure, FailureKind, Outcome, Parsed, Rejected, RunRequest, Running, Workflows,
};
use serde_json::Value;

/// Runs workflows. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Engine(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {}

impl Engine {
    /// Reads a definition as it would be run, with all its expressions and code compiled.
    ///
    /// # Errors
    /// Every fault that was found, each with its place.
    pub async fn check(
        &self,
        _organisation: OrganisationId,
        definition: &Value,
    ) -> Result<Parsed, Rejected> {
        let Inner {} = *self.0;
        Definition::parse(definition).map_err(Rejected::Faults)
    }

    /// Runs a definition to its end. Dropping the future ends the run.
    pub async fn run(&self, request: RunRequest) -> Outcome {
        let step_name = request.definition.first_step().to_owned();
        let message = "The engine does not run yet".to_owned();
        let failure = Failure { step_name, message, kind: FailureKind::Busy };
        Outcome { result: Err(failure), trace: Vec::new() }
    }
}

impl Workflows for Engine {
    fn check<'a>(
        &'a self,
        organisation: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(self.check(organisation, definition))
    }

    fn run(&self, request: RunRequest) -> Running<'_, Outcome> {
        Box::pin(self.run(request))
    }
}
