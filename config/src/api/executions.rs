//! `/workflow/workflow-executions`: running workflows, and what became of the runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Params};
use super::page::{listing, reply};
use super::table::Caller;
use crate::credential::{Scope, ScopedTo};
use crate::ids::{ConversationId, ExecutionId, OrganisationId, WorkflowId};
use crate::limits::{WORKFLOW_SYNC_RUNS, WORKFLOW_SYNC_SECONDS};
use crate::model::{
    Execution, ExecutionError, ExecutionFilter, ExecutionStatus, ExecutionSummary, NewExecution,
};
use crate::store::{Executed, Store, StoreError};
use crate::workflows::{Outcome, RunRequest, background};

/// What is left of a request's time for writing down how the run ended.
const TO_WRITE: Duration = Duration::from_secs(2);

/// Runs that requests wait for may take one of so many of the requests there may be.
const WAITING_PART: usize = 4;

/// Pause before the end of a run is written again, and how often that is tried: for ten minutes.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
const WRITES: u32 = 600;

/// How many runs are waited for by requests, of each organisation. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<OrganisationId, usize>>>);

/// A place among them; given back when it is dropped.
struct Place(Waiting, OrganisationId);

impl Waiting {
    /// A place, unless the organisation has as many as it may, or all of them have `most`: requests that
    /// wait take room from the others.
    fn take(&self, organisation: OrganisationId, most: usize) -> Option<Place> {
        let mut runs = self.lock();
        if runs.values().sum::<usize>() >= most {
            return None;
        }
        let own = runs.entry(organisation).or_default();
        if *own >= WORKFLOW_SYNC_RUNS.value_usize() {
            return None;
        }
        *own += 1;
        drop(runs);
        Some(Place(self.clone(), organisation))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrganisationId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut runs = self.0.lock();
        if let Some(own) = runs.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                runs.remove(&self.1);
            }
        }
    }
}

/// How a run ended that the request waited for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Finished {
    /// `success` or `failed`.
    status: ExecutionStatus,
    /// The record of the run.
    execution_id: ExecutionId,
    /// What it gave, if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    output: Option<Value>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ExecutionError>,
}

/// A run that was taken on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Enqueued {
    /// The record of the run.
    execution_id: ExecutionId,
}

listing! {
    /// Filters of the list of runs.
    ListExecutions {
        /// Of this workflow.
        workflow_id: WorkflowId,
        /// After this conversation.
        conversation_id: ConversationId,
        /// That have come so far.
        status: ExecutionStatus,
    }
}

/// Runs a published version and waits for its end, for at most a minute or as long as a request may
/// take. Who hangs up ends the run.
#[utoipa::path(post, path = "/workflow/workflow-executions", tag = "workflow executions",
    request_body = NewExecution,
    responses((status = 200, description = "How it ended", body = Finished),
        (status = 400, description = "The version is not published", body = ErrorBody),
        (status = 404, description = "No such workflow or version", body = ErrorBody)))]
pub(crate) async fn execute_workflow(
    State(api): State<Api>,
    Extension(waiting): Extension<Waiting>,
    caller: Caller,
    Body(new): Body<NewExecution>,
) -> Result<Json<Finished>, ApiError> {
    new.validate()?;
    let scope = caller.organisation();
    let most = (api.options.max_concurrent_requests / WAITING_PART).max(1);
    let place = waiting.take(scope.organisation(), most);
    let place = place.ok_or(ApiError::Busy("Too many workflows run that requests wait for"))?;
    let (version, definition) =
        api.store.workflow_definition(&scope, new.workflow_id, new.workflow_version).await?;
    let input = new.input_data.unwrap_or_else(|| Value::Object(Map::new()));
    let timeout = api.options.request_timeout;
    let most = Duration::from_secs(WORKFLOW_SYNC_SECONDS.value);
    let request = RunRequest {
        organisation: scope.organisation(),
        definition,
        input: input.clone(),
        initial_step: None,
        limit: most.min(timeout.saturating_sub(TO_WRITE.min(timeout / 4))),
    };
    let what = Executed { workflow: new.workflow_id, version, input };
    // What has begun is recorded to its end, whether or not anybody still waits for it.
    let (heard, hung_up) = oneshot::channel();
    let ran = tokio::spawn(run(api, scope, (request, what), (place, hung_up))).await;
    drop(heard);
    let Execution { execution_id, status, output, error, .. } =
        ran.map_err(|panic| ApiError::Bug(panic.to_string()))??;
    Ok(Json(Finished { status, execution_id, output, error }))
}

/// Runs until the end, or until whoever asked has gone. Its record is there before its first step, and
/// its end is written also when the store is away just then.
async fn run(
    api: Api,
    scope: ScopedTo<OrganisationId>,
    (request, what): (RunRequest, Executed),
    (place, hung_up): (Place, oneshot::Receiver<()>),
) -> Result<Execution, StoreError> {
    let mut begun = api.store.begin_execution(&scope, what).await?;
    let outcome: Outcome = tokio::select! {
        outcome = api.workflows.run(request) => outcome,
        _ = hung_up => background::interrupted("the request was given up while it ran"),
    };
    let id = begun.execution_id;
    let written = api.store.finish_execution(&scope, id, outcome.clone()).await;
    let Err(StoreError::Unavailable(why)) = written else { return written };
    tracing::warn!(%why, execution = %id, "how a workflow ended is not written yet");
    begun.end(outcome.clone());
    tokio::spawn(write_again(api.store, (scope, id), outcome, place));
    Ok(begun)
}

/// Writes how a run ended, once the store is back; the organisation's place is taken until then.
async fn write_again(
    store: Store,
    (scope, id): (ScopedTo<OrganisationId>, ExecutionId),
    outcome: Outcome,
    _place: Place,
) {
    for _ in 0..WRITES {
        tokio::time::sleep(WRITE_AGAIN).await;
        match store.finish_execution(&scope, id, outcome.clone()).await {
            Err(StoreError::Unavailable(_)) => {}
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, execution = %id, "its end is not written"),
        }
    }
}

/// Takes on a run of a published version, and answers at once; it goes on over long waits and
/// restarts.
#[utoipa::path(post, path = "/workflow/workflow-executions/async", tag = "workflow executions",
    request_body = NewExecution,
    responses((status = 202, description = "Taken on", body = Enqueued),
        (status = 400, description = "The version is not published, or too much is unfinished",
            body = ErrorBody),
        (status = 404, description = "No such workflow or version", body = ErrorBody)))]
pub(crate) async fn enqueue_workflow(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewExecution>,
) -> Result<(StatusCode, Json<Enqueued>), ApiError> {
    new.validate()?;
    let scope = caller.organisation();
    let (version, _) =
        api.store.workflow_definition(&scope, new.workflow_id, new.workflow_version).await?;
    let input = new.input_data.unwrap_or_else(|| Value::Object(Map::new()));
    let what = Executed { workflow: new.workflow_id, version, input };
    let Execution { execution_id, .. } = api.store.enqueue_execution(&scope, what).await?;
    Ok((StatusCode::ACCEPTED, Json(Enqueued { execution_id })))
}

/// The organization's runs, newest first, without what went in and out.
#[utoipa::path(get, path = "/workflow/workflow-executions", tag = "workflow executions",
    params(ListExecutions),
    responses((status = 200, description = "Runs", body = [ExecutionSummary])))]
pub(crate) async fn list_workflow_executions(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListExecutions>,
) -> Result<Response, ApiError> {
    let page = query.page();
    let filter = ExecutionFilter {
        workflow_id: query.workflow_id,
        conversation_id: query.conversation_id,
        status: query.status,
        period: query.period(),
    };
    let executions = api.store.executions(&caller.organisation(), &filter, page).await?;
    Ok(reply(page, executions, |execution| execution.created_at))
}

/// One run. Of one after a conversation, only `conversations:read_sensitive` shows the sensitive fields
/// that it was given, its output and what its steps did.
#[utoipa::path(get, path = "/workflow/workflow-executions/{execution_id}",
    tag = "workflow executions",
    params(("execution_id" = ExecutionId, Path, description = "The run")),
    responses((status = 200, description = "The run", body = Execution)))]
pub(crate) async fn get_workflow_execution(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>, ApiError> {
    let execution = api.store.execution(&caller.organisation(), id).await?;
    Ok(Json(match caller.holds(Scope::ConversationsReadSensitive) {
        true => execution,
        false => execution.without_sensitive(),
    }))
}
