//! `/core/agents`: agents and their SIP endpoints; and the schema of their configs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::Api;
use super::agent_config;
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::page::{JsonObject, listing, reply};
use super::table::Caller;
use crate::ids::AgentId;
use crate::model::{Agent, AgentChange, AgentDetail, AgentFilter, NewAgent, SipEndpoint};

listing! {
    /// Filters of the list of agents.
    ListAgents {
        /// Part of the name, whatever the case.
        name: String,
        /// Taking calls or not.
        active: bool,
        /// A demonstration or not.
        is_demo: bool,
        /// A JSON object that the metadata must contain.
        #[param(value_type = Option<String>)]
        metadata: JsonObject,
    }
}

/// The organization's agents, newest first.
#[utoipa::path(get, path = "/core/agents", tag = "agents", params(ListAgents),
    responses((status = 200, description = "Agents", body = [Agent])))]
pub(crate) async fn list_agents(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListAgents>,
) -> Result<Response, ApiError> {
    let page = query.page();
    let filter = AgentFilter {
        period: query.period(),
        name: query.name,
        active: query.active,
        is_demo: query.is_demo,
        metadata: query.metadata.map(|object| object.0),
    };
    let agents = api.store.agents(&caller.organisation(), &filter, page).await?;
    Ok(reply(page, agents, |agent| agent.created_at))
}

/// One agent with its versions, phone numbers, SIP endpoint and conversation statistics.
#[utoipa::path(get, path = "/core/agents/{id}", tag = "agents",
    params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The agent", body = AgentDetail)))]
pub(crate) async fn get_agent(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
) -> Result<Json<AgentDetail>, ApiError> {
    Ok(Json(api.store.agent_detail(&caller.organisation(), id).await?))
}

/// Makes an agent, which has no version yet.
#[utoipa::path(post, path = "/core/agents", tag = "agents", request_body = NewAgent,
    responses((status = 200, description = "The agent", body = Agent)))]
pub(crate) async fn create_agent(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewAgent>,
) -> Result<Json<Agent>, ApiError> {
    new.validate()?;
    Ok(Json(api.store.create_agent(&caller.organisation(), new).await?))
}

/// Changes an agent: an absent key stays as it is.
#[utoipa::path(put, path = "/core/agents/{id}", tag = "agents", request_body = AgentChange,
    params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(crate) async fn update_agent(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Body(change): Body<AgentChange>,
) -> Result<Json<Agent>, ApiError> {
    change.validate()?;
    Ok(Json(api.store.update_agent(&caller.organisation(), id, change).await?))
}

/// Deletes an agent: its numbers' slots are cleared, its SIP endpoint goes, its conversations stay,
/// and running calls finish.
#[utoipa::path(delete, path = "/core/agents/{id}", tag = "agents",
    params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 204, description = "Gone")))]
pub(crate) async fn delete_agent(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_agent(&caller.organisation(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets the agent be dialled at its own SIP URI; its latest published version answers.
#[utoipa::path(post, path = "/core/agents/{id}/deploy-as-sip", tag = "agents",
    params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The endpoint", body = SipEndpoint),
        (status = 409, description = "No version is published", body = super::error::ErrorBody)))]
pub(crate) async fn deploy_agent_as_sip(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
) -> Result<Json<SipEndpoint>, ApiError> {
    Ok(Json(api.store.deploy_as_sip(&caller.organisation(), id).await?))
}

/// Takes the agent's SIP endpoint away; also when there is none.
#[utoipa::path(delete, path = "/core/agents/{id}/deploy-as-sip", tag = "agents",
    params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 204, description = "Gone")))]
pub(crate) async fn undeploy_agent_as_sip(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
) -> Result<StatusCode, ApiError> {
    api.store.undeploy_as_sip(&caller.organisation(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The JSON Schema that agent configs are checked against.
#[utoipa::path(get, path = "/core/agent-config-schema", tag = "agents",
    responses((status = 200, description = "A JSON Schema", body = Object)))]
pub(crate) async fn get_agent_config_schema() -> Json<&'static Value> {
    Json(&agent_config::SCHEMA)
}
