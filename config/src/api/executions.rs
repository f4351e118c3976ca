//! `/workflow/workflow-executions`: running workflows, and what became of the runs.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Params};
use super::page::{listing, reply};
use super::table::Caller;
use super::waiting::Place;
use crate::credential::{Scope, ScopedTo};
use crate::ids::{ConversationId, ExecutionId, OrganisationId, WorkflowId};
use crate::limits::WORKFLOW_SYNC_SECONDS;
use crate::model::{
    Execution, ExecutionError, ExecutionFilter, ExecutionStatus, ExecutionSummary, NewExecution,
    Sight,
};
use crate::store::{Executed, Store, StoreError, Unavailable};
use crate::workflows::{RunRequest, background};

/// How long the request may take that waits for a run: the run's own time, and some around it.
/// `api.request_timeout_seconds` is for requests that only ask the store.
pub(super) const TIME: Duration =
    Duration::from_secs(WORKFLOW_SYNC_SECONDS.value).saturating_add(AROUND);

/// Time for writing down that a run begins and how it ended, while the store is slow.
pub(super) const AROUND: Duration = Duration::from_secs(10);

/// Where one asks for such a run.
pub(super) const PATH: &str = "/workflow/workflow-executions";

/// How often such a run looks whether somebody has cancelled it, here or on another node.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pause before the end of a run is written again, and for how long that is tried.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
const WRITTEN_WITHIN: Duration = Duration::from_secs(600);

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

/// Runs a published version and waits for its end, for a minute at most. Who hangs up ends the run.
#[utoipa::path(post, path = "/workflow/workflow-executions", tag = "workflow executions",
    request_body = NewExecution,
    responses((status = 200, description = "How it ended", body = Finished),
        (status = 400, description = "The version is not published", body = ErrorBody),
        (status = 404, description = "No such workflow or version", body = ErrorBody)))]
pub(crate) async fn execute_workflow(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewExecution>,
) -> Result<Json<Finished>, ApiError> {
    new.validate()?;
    let scope = caller.organisation();
    let place = api.place(scope.organisation())?;
    let (version, definition) =
        api.store.workflow_definition(&scope, new.workflow_id, new.workflow_version).await?;
    let input = new.input_data.unwrap_or_else(|| Value::Object(Map::new()));
    let request = RunRequest {
        organisation: scope.organisation(),
        definition,
        input: input.clone(),
        initial_step: None,
        limit: Duration::from_secs(WORKFLOW_SYNC_SECONDS.value),
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

/// Runs until the end, or until whoever asked has gone, somebody cancels it or the node stops. Its record is there before its first step, and
/// its end is written also when the store is away just then.
async fn run(
    api: Api,
    scope: ScopedTo<OrganisationId>,
    (request, what): (RunRequest, Executed),
    (place, hung_up): (Place, oneshot::Receiver<()>),
) -> Result<Execution, StoreError> {
    let mut begun = api.store.begin_execution(&scope, what).await?;
    let id = begun.execution_id;
    let outcome = tokio::select! {
        outcome = api.workflows.run(request) => outcome,
        _ = hung_up => background::interrupted("the request was given up while it ran"),
        () = api.waiting.stopped() => background::interrupted(background::STOPPED),
        () = is_over(&api.store, &scope, id) => background::cancelled(None),
    };
    let written = api.store.finish_execution(&scope, id, outcome.clone()).await;
    let Err(StoreError::Unavailable(why)) = written else { return written };
    tracing::warn!(%why, execution = %id, "how a workflow ended is not written yet");
    begun.end(outcome.clone());
    // The organisation's place is taken until then.
    tokio::spawn(async move {
        let write = || api.store.finish_execution(&scope, id, outcome.clone());
        if let Err(error) = write_again((WRITE_AGAIN, WRITTEN_WITHIN), write).await {
            tracing::warn!(%error, execution = %id, "how a workflow ended is not written");
        }
        drop(place);
    });
    Ok(begun)
}

/// Returns when the run is over by its record: somebody has cancelled it.
async fn is_over(store: &Store, scope: &ScopedTo<OrganisationId>, id: ExecutionId) {
    loop {
        sleep(LOOK_EVERY).await;
        if let Ok(true) = store.execution_is_over(scope, id).await {
            return;
        }
    }
}

/// Writes until the store has taken it, with these pauses and within this time, however long each attempt
/// takes.
async fn write_again<T, Write>(
    (pause, within): (Duration, Duration),
    write: impl Fn() -> Write,
) -> Result<T, StoreError>
where
    Write: Future<Output = Result<T, StoreError>>,
{
    let writing = async {
        loop {
            sleep(pause).await;
            match write().await {
                Err(StoreError::Unavailable(_)) => {}
                written => return written,
            }
        }
    };
    let late = Err(StoreError::Unavailable(Unavailable::NoAnswer));
    timeout(within, writing).await.unwrap_or(late)
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

/// The organization's runs, newest first, without what went in and out. The words of an error of one after
/// a conversation need `conversations:read_sensitive`.
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
    let sight = sight(&caller);
    let shown = executions.into_iter().map(|execution| execution.shown(sight)).collect();
    Ok(reply(page, shown, |execution: &ExecutionSummary| execution.created_at))
}

/// One run. Of one after a conversation, only `conversations:read_sensitive` shows the sensitive fields
/// that it was given, its output, what its steps did and the words of an error; and of its `trigger`, who
/// may read no conversations sees the ids alone.
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
    Ok(shown(&caller, execution))
}

/// A run as far as this caller may see it.
fn shown(caller: &Caller, execution: Execution) -> Json<Execution> {
    Json(execution.shown(sight(caller)))
}

/// How much this caller may see of the conversations that runs come after.
fn sight(caller: &Caller) -> Sight {
    if caller.holds(Scope::ConversationsReadSensitive) {
        Sight::Whole
    } else if super::CONVERSATIONS_READ.iter().any(|scope| caller.holds(*scope)) {
        Sight::NotSensitive
    } else {
        Sight::IdsOnly
    }
}

/// Cancels a run: it has failed as `cancelled`. One that waits or has not begun is over at once; one that
/// is at work stops within seconds, maybe in the midst of a step. Again is the same. An extension of
/// the contract.
#[utoipa::path(post, path = "/workflow/workflow-executions/{execution_id}/cancel",
    tag = "workflow executions",
    params(("execution_id" = ExecutionId, Path, description = "The run")),
    responses((status = 200, description = "The run", body = Execution),
        (status = 404, description = "No such run", body = ErrorBody),
        (status = 409, description = "It has ended otherwise", body = ErrorBody)))]
pub(crate) async fn cancel_workflow_execution(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ExecutionId>,
) -> Result<Json<Execution>, ApiError> {
    let execution = api.store.cancel_execution(&caller.organisation(), id).await?;
    Ok(shown(&caller, execution))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn an_end_is_written_again_until_the_store_has_taken_or_refused_it() {
        let patience = (Duration::ZERO, WRITTEN_WITHIN);
        let away = || Err(StoreError::Unavailable(Unavailable::Busy));
        let refused = || Err(StoreError::NotFound("Execution".to_owned()));
        for last in [Ok(7), refused()] {
            let answers = RefCell::new(vec![last.clone(), away(), away()]);
            let write = || std::future::ready(answers.borrow_mut().pop().unwrap());
            assert_eq!(write_again(patience, write).await, last);
            assert!(answers.borrow().is_empty(), "it is not asked again");
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_not_asked_for_longer() {
        let patience = (Duration::ZERO, Duration::from_millis(1));
        let late = Err(StoreError::Unavailable(Unavailable::NoAnswer));
        let silent = std::future::pending::<Result<(), StoreError>>;
        assert_eq!(write_again(patience, silent).await, late);
    }
}
