//! `/core/inbound-routing-config`: the one workflow of an organisation that chooses the agent of the
//! calls to its numbers, and what it would do with a call.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::Api;
use super::error::{ApiError, ErrorBody, Violation};
use super::extract::Body;
use super::table::Caller;
use crate::ids::OrganisationId;
use crate::model::{
    InboundRoutingConfig, InboundRoutingConfigChange, NewInboundRoutingConfig, RoutingDryRun,
    RoutingForecast,
};
use crate::routing::forecast::{self, Thought};
use crate::routing::{Incoming, not_run};
use crate::snapshot::{NumberRoute, Snapshot};
use crate::workflows::{
    Definition, FailureKind, Fault, Outcome, Parsed, Rejected, RunRequest, background,
};

/// Where one asks what would become of a call.
pub(super) const DRY_RUN: &str = "/core/inbound-routing-config/dry-run";

/// The organization's inbound routing config, or `null` when it has none.
#[utoipa::path(get, path = "/core/inbound-routing-config", tag = "inbound routing",
    responses((status = 200, description = "The config, or `null`",
        body = Option<InboundRoutingConfig>)))]
pub(crate) async fn get_inbound_routing_config(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<Option<InboundRoutingConfig>>, ApiError> {
    Ok(Json(api.store.inbound_routing(&caller.organisation()).await?))
}

/// Makes the organization's inbound routing config. While it is enabled, its workflow decides about
/// every call to the organization's numbers, in place of their inbound slots.
#[utoipa::path(post, path = "/core/inbound-routing-config", tag = "inbound routing",
    request_body = NewInboundRoutingConfig,
    responses((status = 200, description = "The config", body = InboundRoutingConfig),
        (status = 400, description = "The fallback agent could not answer", body = ErrorBody),
        (status = 409, description = "There is one already", body = ErrorBody)))]
pub(crate) async fn create_inbound_routing_config(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewInboundRoutingConfig>,
) -> Result<Json<InboundRoutingConfig>, ApiError> {
    new.validate()?;
    check(&api, &caller, Some(&new.workflow_definition)).await?;
    Ok(Json(api.store.create_inbound_routing(&caller.organisation(), new).await?))
}

/// Changes the inbound routing config; only what is sent changes.
#[utoipa::path(put, path = "/core/inbound-routing-config", tag = "inbound routing",
    request_body = InboundRoutingConfigChange,
    responses((status = 200, description = "The config", body = InboundRoutingConfig),
        (status = 400, description = "The fallback agent could not answer", body = ErrorBody),
        (status = 404, description = "There is none", body = ErrorBody)))]
pub(crate) async fn update_inbound_routing_config(
    State(api): State<Api>,
    caller: Caller,
    Body(change): Body<InboundRoutingConfigChange>,
) -> Result<Json<InboundRoutingConfig>, ApiError> {
    change.validate()?;
    check(&api, &caller, change.workflow_definition.as_ref()).await?;
    Ok(Json(api.store.update_inbound_routing(&caller.organisation(), change).await?))
}

/// Gives the inbound routing config up: the numbers' inbound slots decide from now on.
#[utoipa::path(delete, path = "/core/inbound-routing-config", tag = "inbound routing",
    responses((status = 204, description = "Gone"),
        (status = 404, description = "There is none", body = ErrorBody)))]
pub(crate) async fn delete_inbound_routing_config(
    State(api): State<Api>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    api.store.delete_inbound_routing(&caller.organisation()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says what would happen to a call, and why, step by step. The workflow really runs, with all that
/// it asks of others; no call is made and nothing is recorded. An extension of the contract.
#[utoipa::path(post, path = "/core/inbound-routing-config/dry-run", tag = "inbound routing",
    request_body = RoutingDryRun,
    responses((status = 200, description = "What would happen", body = RoutingForecast),
        (status = 404, description = "No such trunk", body = ErrorBody)))]
pub(crate) async fn dry_run_inbound_routing(
    State(api): State<Api>,
    caller: Caller,
    Body(call): Body<RoutingDryRun>,
) -> Result<Json<RoutingForecast>, ApiError> {
    call.validate()?;
    let organisation = caller.organisation().organisation();
    let snapshot = api.store.snapshot().load();
    if let Some(trunk) = call.trunk_id {
        let trunk = snapshot.trunk(trunk).filter(|trunk| trunk.organization_id == organisation);
        trunk.ok_or_else(|| ApiError::not_found("Trunk"))?;
    }
    let instead = check(&api, &caller, call.workflow_definition.as_ref()).await?;
    let number = snapshot.number(call.called_number.as_str());
    let number = number.filter(|number| number.organization_id == organisation);
    let Some(number) = number else { return Ok(Json(forecast::unknown_number())) };
    let Some(workflow) = workflow(&snapshot, organisation, instead) else {
        return Ok(Json(forecast::by_slot(&snapshot, number)));
    };
    let _place = api.place(organisation)?;
    Ok(Json(run(&api, (&snapshot, number), &call, workflow).await))
}

/// The workflow that would decide: the one given instead, or the stored one if it is enabled.
fn workflow(
    snapshot: &Snapshot,
    organisation: OrganisationId,
    instead: Option<Arc<Definition>>,
) -> Option<Result<Arc<Definition>, String>> {
    let stored = || snapshot.enabled_routing(organisation).map(|route| route.workflow.clone());
    instead.map(Ok).or_else(stored)
}

/// Runs the workflow as a call would, and settles what it gave as a call would.
async fn run(
    api: &Api,
    (snapshot, number): (&Snapshot, &NumberRoute),
    call: &RoutingDryRun,
    workflow: Result<Arc<Definition>, String>,
) -> RoutingForecast {
    let organisation = number.organization_id;
    let incoming = Incoming {
        organisation,
        conversation: None,
        caller: &call.caller_number,
        called: call.called_number.as_str(),
        trunk: Some(call.trunk_id.unwrap_or(number.trunk_id)),
        headers: &call.headers(),
        at: call.timestamp.unwrap_or_else(|| api.store.now()),
    };
    let input = incoming.input();
    let outcome = match workflow {
        Err(fault) => not_run(FailureKind::Threw, &fault),
        Ok(definition) => {
            let limit = api.options.routing_deadline;
            let (input, initial_step) = (input.clone(), None);
            let request = RunRequest { organisation, definition, input, initial_step, limit };
            tokio::select! {
                outcome = within(limit, api.workflows.run(request)) => outcome,
                () = api.waiting.stopped() => background::interrupted(background::STOPPED),
            }
        }
    };
    let fallback = snapshot.routing(organisation).and_then(|route| route.fallback);
    forecast::by_workflow(snapshot, Thought { organisation, fallback, input, outcome })
}

/// The engine keeps its time; a call does not rely on that, and neither does this.
async fn within(limit: Duration, running: impl Future<Output = Outcome>) -> Outcome {
    let late = |_| not_run(FailureKind::TimedOut, "the run was not done in time");
    tokio::time::timeout(limit, running).await.unwrap_or_else(late)
}

/// Compiles a definition that is to be stored or run.
async fn check(
    api: &Api,
    caller: &Caller,
    definition: Option<&Map<String, Value>>,
) -> Result<Option<Arc<Definition>>, ApiError> {
    let Some(definition) = definition else { return Ok(None) };
    let definition = Value::Object(definition.clone());
    let organisation = caller.organisation().organisation();
    let parsed = check_definition(api, organisation, ("workflow_definition", &definition)).await?;
    Ok(Some(parsed.definition))
}

/// Compiles a definition that stands in this field of the body.
pub(crate) async fn check_definition(
    api: &Api,
    organisation: OrganisationId,
    (field, definition): (&str, &Value),
) -> Result<Parsed, ApiError> {
    let checked = api.workflows.check(organisation, definition).await;
    checked.map_err(|rejected| match rejected {
        Rejected::Faults(faults) => violations(field, &faults),
        Rejected::Busy => ApiError::Busy("Workflows cannot be checked at this moment"),
    })
}

/// Every fault of a definition, as violations of the body's field that holds it.
pub(crate) fn violations(field: &str, faults: &[Fault]) -> ApiError {
    let violation = |fault: &Fault| {
        let mut place = vec![Value::from("body")];
        place.extend(field.split('.').map(Value::from));
        place.extend(steps_to(&fault.place));
        Violation::new(&place, "value_error", fault.message.clone())
    };
    ApiError::Violations(faults.iter().map(violation).collect())
}

/// `steps[2].branches[0].when` as the keys and indices that lead there.
fn steps_to(place: &str) -> Vec<Value> {
    let parts = place.split(['.', '[', ']']).filter(|part| !part.is_empty());
    parts.map(|part| part.parse::<u64>().map_or_else(|_| part.into(), Value::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_place_is_keys_and_indices() {
        let place = steps_to("steps[2].branches[0].when");
        assert_eq!(place, [json!("steps"), json!(2), json!("branches"), json!(0), json!("when")]);
        assert!(steps_to("").is_empty());
    }
}
