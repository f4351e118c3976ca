//! `/core/agents/{id}/versions`: drafts, published versions, and the publishing of one to numbers.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::Api;
use super::agent_config;
use super::error::{ApiError, Violation};
use super::extract::{Body, Id, OptionalBody, Params, path_parameter};
use super::page::{listing, reply};
use super::table::Caller;
use crate::ids::AgentId;
use crate::limits::PUBLISH_NUMBERS;
use crate::model::{
    AgentVersion, Comparison, GenerationStarted, Invalid, NewVersion, PhoneNumber, Publish,
    VersionChange, VersionFilter, VersionRef,
};
use crate::texts;

/// The version in the path: a number or `latest`; anything else is 422.
pub(crate) struct Which(pub(crate) VersionRef);

impl FromRequestParts<Api> for Which {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let text = path_parameter(parts, api, "version").await.unwrap_or_default();
        text.parse().map(Self).map_err(|why: Invalid| {
            let loc = [json!("path"), json!("version")];
            ApiError::Violations(vec![Violation::new(&loc, "value_error", why.message)])
        })
    }
}

listing! {
    /// Filters of the list of versions.
    ListAgentVersions {
        /// With this number.
        version: u32,
        /// Published or not.
        published: bool,
    }
}

/// The agent's versions, newest first.
#[utoipa::path(get, path = "/core/agents/{id}/versions", tag = "agent versions",
    params(("id" = AgentId, Path, description = "The agent"), ListAgentVersions),
    responses((status = 200, description = "Versions", body = [AgentVersion])))]
pub(crate) async fn list_agent_versions(
    State(api): State<Api>,
    caller: Caller,
    Id(agent): Id<AgentId>,
    Params(query): Params<ListAgentVersions>,
) -> Result<Response, ApiError> {
    let page = query.page();
    let filter = VersionFilter {
        version: query.version,
        published: query.published,
        period: query.period(),
    };
    let versions = api.store.versions(&caller.organisation(), agent, &filter, page).await?;
    Ok(reply(page, versions, |version| version.created_at))
}

/// One version. Asking for `latest` makes sure that there is a draft, and may create it.
#[utoipa::path(get, path = "/core/agents/{id}/versions/{version}", tag = "agent versions",
    params(("id" = AgentId, Path, description = "The agent"),
        ("version" = String, Path, description = "A number, or `latest`")),
    responses((status = 200, description = "The version", body = AgentVersion)))]
pub(crate) async fn get_agent_version(
    State(api): State<Api>,
    caller: Caller,
    Id(agent): Id<AgentId>,
    Which(version): Which,
) -> Result<Json<AgentVersion>, ApiError> {
    Ok(Json(api.store.version(&caller.organisation(), agent, version).await?))
}

/// Makes a draft, from a config or as a copy of a version.
#[utoipa::path(post, path = "/core/agents/{id}/versions", tag = "agent versions",
    request_body = NewVersion, params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The draft", body = AgentVersion)))]
pub(crate) async fn create_agent_version(
    State(api): State<Api>,
    caller: Caller,
    Id(agent): Id<AgentId>,
    Body(new): Body<NewVersion>,
) -> Result<Json<AgentVersion>, ApiError> {
    if new.config.is_some() == new.base_version.is_some() {
        let why = "Give exactly one of config and base_version";
        return Err(ApiError::Unprocessable(why.to_owned()));
    }
    check_config(&api, &caller, new.config.as_ref()).await?;
    new.validate()?;
    Ok(Json(api.store.create_version(&caller.organisation(), agent, new).await?))
}

/// Changes a draft.
#[utoipa::path(put, path = "/core/agents/{id}/versions/{version}", tag = "agent versions",
    request_body = VersionChange,
    params(("id" = AgentId, Path, description = "The agent"),
        ("version" = String, Path, description = "A number, or `latest`")),
    responses((status = 200, description = "The draft", body = AgentVersion),
        (status = 400, description = "The version is published", body = super::error::ErrorBody),
        (status = 409, description = "Its instructions are being generated",
            body = super::error::ErrorBody)))]
pub(crate) async fn update_agent_version(
    State(api): State<Api>,
    caller: Caller,
    Id(agent): Id<AgentId>,
    Which(version): Which,
    Body(change): Body<VersionChange>,
) -> Result<Json<AgentVersion>, ApiError> {
    check_config(&api, &caller, change.config.as_ref()).await?;
    change.validate()?;
    let written = api.store.update_version(&caller.organisation(), agent, version, change).await?;
    Ok(Json(written))
}

/// Publishes a version, for good, and points numbers' slots at it. May be repeated; publishing an
/// older version again is the way back. The body may be absent: then only the version is published.
#[utoipa::path(post, path = "/core/agents/{id}/versions/{version}/publish",
    tag = "agent versions", request_body = Option<Publish>,
    params(("id" = AgentId, Path, description = "The agent"),
        ("version" = String, Path, description = "A number, or `latest`")),
    responses((status = 200, description = "The numbers that changed", body = [PhoneNumber]),
        (status = 400, description = "Its instructions are being generated, or are stale",
            body = super::error::ErrorBody)))]
pub(crate) async fn publish_agent_version(
    State(api): State<Api>,
    caller: Caller,
    Id(agent): Id<AgentId>,
    Which(version): Which,
    OptionalBody(publish): OptionalBody<Publish>,
) -> Result<Json<Vec<PhoneNumber>>, ApiError> {
    for (field, list) in [
        ("phone_numbers", &publish.phone_numbers),
        ("unassign_phone_numbers", &publish.unassign_phone_numbers),
    ] {
        if list.as_ref().is_some_and(|list| list.len() > PUBLISH_NUMBERS.value_usize()) {
            let why = format!("must be at most {} numbers", PUBLISH_NUMBERS.value);
            return Err(Invalid::new(field, why).into());
        }
    }
    Ok(Json(api.store.publish(&caller.organisation(), agent, version, publish).await?))
}

/// Has a draft's instructions written from its builder inputs, in the background: the version says when
/// that is done (`instructions_status`) and by whom (`instructions_source`).
#[utoipa::path(post, path = "/core/agents/{id}/versions/{version}/generate-instructions",
    tag = "agent versions",
    params(("id" = AgentId, Path, description = "The agent"),
        ("version" = String, Path, description = "A number, or `latest`")),
    responses((status = 202, description = "They are being written", body = GenerationStarted),
        (status = 400, description = "The version is published, or has no builder inputs",
            body = super::error::ErrorBody),
        (status = 409, description = "They are being written already",
            body = super::error::ErrorBody)))]
pub(crate) async fn generate_agent_instructions(
    State(api): State<Api>,
    caller: Caller,
    Id(agent): Id<AgentId>,
    Which(version): Which,
) -> Result<(StatusCode, Json<GenerationStarted>), ApiError> {
    let version = api.store.begin_generation(&caller.organisation(), agent, version).await?;
    let started = GenerationStarted { status: version.instructions_status };
    Ok((StatusCode::ACCEPTED, Json(started)))
}

/// What changed between two versions, in words. A language model writes them where the node has one;
/// otherwise, and when it fails, the differences are told field by field, and say so.
#[utoipa::path(post, path = "/core/agents/{id}/versions/compare", tag = "agent versions",
    request_body = Comparison, params(("id" = AgentId, Path, description = "The agent")),
    responses((status = 200, description = "The text, as it is written", body = String,
        content_type = "text/plain")))]
pub(crate) async fn compare_agent_versions(
    State(api): State<Api>,
    caller: Caller,
    Id(agent): Id<AgentId>,
    Body(versions): Body<Comparison>,
) -> Result<Response, ApiError> {
    let organisation = caller.organisation();
    let find = |which| api.store.existing_version(&organisation, agent, which);
    let (from, to) = (find(versions.from_version).await?, find(versions.to_version).await?);
    let text = texts::compare(api.model.as_ref(), &from, &to).await;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    let body = axum::body::Body::from_stream(text.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

async fn check_config(api: &Api, caller: &Caller, config: Option<&Value>) -> Result<(), ApiError> {
    let Some(config) = config else { return Ok(()) };
    agent_config::check("config", config)?;
    agent_config::check_address("config", config, api.address_rules())?;
    agent_config::check_workflows(api, &caller.organisation(), ("config", config)).await
}
