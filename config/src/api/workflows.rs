//! `/workflow/workflows`: workflows, and their versions as drafts and published.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Params};
use super::inbound_routing::check_definition;
use super::page::{listing, reply};
use super::table::Caller;
use super::versions::Which;
use crate::ids::WorkflowId;
use crate::model::{
    NewWorkflow, NewWorkflowVersion, VersionFilter, Workflow, WorkflowChange, WorkflowFilter,
    WorkflowVersion, WorkflowVersionChange, WorkflowVersionSummary,
};
use crate::workflows::Fault;

/// A version that was just written, with what its author should know about it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WrittenWorkflowVersion {
    #[serde(flatten)]
    version: WorkflowVersion,
    /// What is allowed and odd about it; empty when nothing is.
    warnings: Vec<Fault>,
}

/// A workflow that was just made, with what its author should know about its first version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WrittenWorkflow {
    #[serde(flatten)]
    workflow: Workflow,
    /// What is allowed and odd about its definition; empty when nothing is.
    warnings: Vec<Fault>,
}

listing! {
    /// Filters of the list of workflows.
    ListWorkflows {
        /// Part of the name, whatever the case.
        name: String,
    }
}

listing! {
    /// Filters of the list of a workflow's versions.
    ListWorkflowVersions {
        /// With this number.
        version: u32,
        /// Published or not.
        published: bool,
    }
}

/// The organization's workflows, newest first.
#[utoipa::path(get, path = "/workflow/workflows", tag = "workflows", params(ListWorkflows),
    responses((status = 200, description = "Workflows", body = [Workflow])))]
pub(crate) async fn list_workflows(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListWorkflows>,
) -> Result<Response, ApiError> {
    let page = query.page();
    let filter = WorkflowFilter { period: query.period(), name: query.name };
    let workflows = api.store.workflows(&caller.organisation(), &filter, page).await?;
    Ok(reply(page, workflows, |workflow| workflow.created_at))
}

/// Makes a workflow; its definition is version 1, a draft.
#[utoipa::path(post, path = "/workflow/workflows", tag = "workflows", request_body = NewWorkflow,
    responses((status = 200, description = "The workflow", body = WrittenWorkflow)))]
pub(crate) async fn create_workflow(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewWorkflow>,
) -> Result<Json<WrittenWorkflow>, ApiError> {
    new.validate()?;
    let warnings = check(&api, &caller, &new.definition).await?;
    let workflow = api.store.create_workflow(&caller.organisation(), new).await?;
    Ok(Json(WrittenWorkflow { workflow, warnings }))
}

/// One workflow.
#[utoipa::path(get, path = "/workflow/workflows/{workflow_id}", tag = "workflows",
    params(("workflow_id" = WorkflowId, Path, description = "The workflow")),
    responses((status = 200, description = "The workflow", body = Workflow)))]
pub(crate) async fn get_workflow(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
) -> Result<Json<Workflow>, ApiError> {
    Ok(Json(api.store.workflow(&caller.organisation(), id).await?))
}

/// Changes a workflow's name or description.
#[utoipa::path(put, path = "/workflow/workflows/{workflow_id}", tag = "workflows",
    request_body = WorkflowChange,
    params(("workflow_id" = WorkflowId, Path, description = "The workflow")),
    responses((status = 200, description = "The workflow", body = Workflow)))]
pub(crate) async fn update_workflow(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Body(change): Body<WorkflowChange>,
) -> Result<Json<Workflow>, ApiError> {
    change.validate()?;
    Ok(Json(api.store.update_workflow(&caller.organisation(), id, change).await?))
}

/// Deletes a workflow with its versions; records of its runs stay, and what refers to it fails.
#[utoipa::path(delete, path = "/workflow/workflows/{workflow_id}", tag = "workflows",
    params(("workflow_id" = WorkflowId, Path, description = "The workflow")),
    responses((status = 204, description = "Gone")))]
pub(crate) async fn delete_workflow(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_workflow(&caller.organisation(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A workflow's versions, newest first, without their definitions.
#[utoipa::path(get, path = "/workflow/workflows/{workflow_id}/versions", tag = "workflows",
    params(("workflow_id" = WorkflowId, Path, description = "The workflow"), ListWorkflowVersions),
    responses((status = 200, description = "Versions", body = [WorkflowVersionSummary])))]
pub(crate) async fn list_workflow_versions(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Params(query): Params<ListWorkflowVersions>,
) -> Result<Response, ApiError> {
    let page = query.page();
    let filter = VersionFilter {
        version: query.version,
        published: query.published,
        period: query.period(),
    };
    let versions = api.store.workflow_versions(&caller.organisation(), id, &filter, page).await?;
    Ok(reply(page, versions, |version| version.created_at))
}

/// Makes a draft, from a definition or as a copy of a version: exactly one of the two.
#[utoipa::path(post, path = "/workflow/workflows/{workflow_id}/versions", tag = "workflows",
    request_body = NewWorkflowVersion,
    params(("workflow_id" = WorkflowId, Path, description = "The workflow")),
    responses((status = 200, description = "The draft", body = WrittenWorkflowVersion),
        (status = 400, description = "The workflow has as many versions as it may",
            body = ErrorBody)))]
pub(crate) async fn create_workflow_version(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Body(new): Body<NewWorkflowVersion>,
) -> Result<Json<WrittenWorkflowVersion>, ApiError> {
    api.store.workflow(&caller.organisation(), id).await?;
    if new.definition.is_some() == new.base_version.is_some() {
        let why = "Give exactly one of definition and base_version";
        return Err(ApiError::Unprocessable(why.to_owned()));
    }
    let warnings = match &new.definition {
        Some(definition) => check(&api, &caller, definition).await?,
        None => Vec::new(),
    };
    let version = api.store.create_workflow_version(&caller.organisation(), id, new).await?;
    Ok(Json(WrittenWorkflowVersion { version, warnings }))
}

/// One version: by number, or `latest` for the newest.
#[utoipa::path(get, path = "/workflow/workflows/{workflow_id}/versions/{version}",
    tag = "workflows",
    params(("workflow_id" = WorkflowId, Path, description = "The workflow"),
        ("version" = String, Path, description = "A number, or `latest`")),
    responses((status = 200, description = "The version", body = WorkflowVersion)))]
pub(crate) async fn get_workflow_version(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Which(version): Which,
) -> Result<Json<WorkflowVersion>, ApiError> {
    Ok(Json(api.store.workflow_version(&caller.organisation(), id, version).await?))
}

/// Gives a draft another definition.
#[utoipa::path(put, path = "/workflow/workflows/{workflow_id}/versions/{version}",
    tag = "workflows", request_body = WorkflowVersionChange,
    params(("workflow_id" = WorkflowId, Path, description = "The workflow"),
        ("version" = String, Path, description = "A number, or `latest`")),
    responses((status = 200, description = "The draft", body = WrittenWorkflowVersion),
        (status = 400, description = "The version is published", body = ErrorBody)))]
pub(crate) async fn update_workflow_version(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Which(version): Which,
    Body(change): Body<WorkflowVersionChange>,
) -> Result<Json<WrittenWorkflowVersion>, ApiError> {
    let scope = caller.organisation();
    api.store.workflow_version(&scope, id, version).await?;
    let warnings = check(&api, &caller, &change.definition).await?;
    let change = (version, change.definition);
    let version = api.store.update_workflow_version(&scope, id, change).await?;
    Ok(Json(WrittenWorkflowVersion { version, warnings }))
}

/// Publishes a version, for good: from then on it can be run, and cannot change.
#[utoipa::path(post, path = "/workflow/workflows/{workflow_id}/versions/{version}/publish",
    tag = "workflows",
    params(("workflow_id" = WorkflowId, Path, description = "The workflow"),
        ("version" = String, Path, description = "A number, or `latest`")),
    responses((status = 200, description = "The version", body = WorkflowVersion)))]
pub(crate) async fn publish_workflow_version(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Which(version): Which,
) -> Result<Json<WorkflowVersion>, ApiError> {
    Ok(Json(api.store.publish_workflow_version(&caller.organisation(), id, version).await?))
}

/// Has the engine read a definition at `body.definition`; what is odd about it, or 422 with every
/// fault.
async fn check(api: &Api, caller: &Caller, definition: &Value) -> Result<Vec<Fault>, ApiError> {
    let organisation = caller.organisation().organisation();
    let parsed = check_definition(api, organisation, ("definition", definition)).await?;
    Ok(parsed.warnings)
}
