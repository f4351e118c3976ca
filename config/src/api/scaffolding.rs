//! Agents made from a company's website: `/core/agents/create-from-website`, `/core/agents/create-demo`,
//! and how far that has come.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Id};
use super::table::Caller;
use crate::ids::JobId;
use crate::jobs::{self, SCAFFOLD_AGENT};
use crate::model::{Invalid, NewDemo, NewWebsiteAgent, Scaffolding, ScaffoldingStarted};

/// Makes an agent from a company's website, in the background.
#[utoipa::path(post, path = "/core/agents/create-from-website", tag = "agents",
    request_body = NewWebsiteAgent,
    responses((status = 202, description = "It is being made", body = ScaffoldingStarted),
        (status = 400, description = "Too many are being made", body = super::error::ErrorBody),
        (status = 404, description = "No such agent", body = super::error::ErrorBody)))]
pub(crate) async fn create_agent_from_website(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewWebsiteAgent>,
) -> Result<(StatusCode, Json<ScaffoldingStarted>), ApiError> {
    new.validate()?;
    let website = website(&api, &new.company_website)?;
    if let Some(url) = &new.avatar_url {
        let refused = |why| Invalid::new("avatar_url", format!("{why}"));
        api.fetcher.check_url(url).map_err(refused)?;
    }
    if let Some(agent) = new.existing_agent_id {
        api.store.agent(&caller.organisation(), agent).await?;
    }
    start(&api, caller, jobs::for_website(new, website)).await
}

/// Makes a demonstration from a company's website, in the background.
#[utoipa::path(post, path = "/core/agents/create-demo", tag = "agents", request_body = NewDemo,
    responses((status = 202, description = "It is being made", body = ScaffoldingStarted),
        (status = 400, description = "Too many are being made", body = super::error::ErrorBody)))]
pub(crate) async fn create_demo_agent(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewDemo>,
) -> Result<(StatusCode, Json<ScaffoldingStarted>), ApiError> {
    new.validate()?;
    let website = website(&api, &new.company_website)?;
    start(&api, caller, jobs::for_demo(new, website)).await
}

/// How far the making of an agent has come.
#[utoipa::path(get, path = "/core/agents/scaffolding/{workflow_id}", tag = "agents",
    params(("workflow_id" = JobId, Path, description = "What the request was answered with")),
    responses((status = 200, description = "How far it has come", body = Scaffolding)))]
pub(crate) async fn get_agent_scaffolding(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<JobId>,
) -> Result<Json<Scaffolding>, ApiError> {
    let job = api.store.job(&caller.organisation(), SCAFFOLD_AGENT, id).await?;
    Ok(Json(jobs::describe(job)))
}

async fn start(
    api: &Api,
    caller: Caller,
    job: jobs::NewJob,
) -> Result<(StatusCode, Json<ScaffoldingStarted>), ApiError> {
    let job = api.store.enqueue_job(&caller.organisation(), job).await?;
    Ok((StatusCode::ACCEPTED, Json(ScaffoldingStarted { workflow_id: job.id })))
}

/// The website's URL, whole, if it is one that can be read.
fn website(api: &Api, text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    let url = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    let refused = |why| Invalid::new("company_website", format!("{why}"));
    api.fetcher.check_site(&url).map_err(refused)?;
    Ok(url)
}
