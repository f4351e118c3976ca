//! `/core/default-runtime`: where the conversations of agents run whose configs do not say. An extension
//! of the contract, for agents that are configured for another server of it and all live in one place.

use axum::Json;
use axum::extract::State;
use serde_json::json;

use super::error::ApiError;
use super::extract::Body;
use super::table::Caller;
use super::{Api, agent_config};
use crate::model::DefaultRuntime;

/// Where the conversations of the organization's agents run whose configs have no `runtime`; `null` is
/// the built-in echo. Tokens and passwords are `null`.
#[utoipa::path(get, path = "/core/default-runtime", tag = "agents",
    responses((status = 200, description = "The default", body = DefaultRuntime)))]
pub(crate) async fn get_default_runtime(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<DefaultRuntime>, ApiError> {
    Ok(Json(api.store.default_runtime(&caller.organisation()).await?))
}

/// Says where they run, from the next call on. The block is judged as the `runtime` of an agent's config;
/// a token or password that is `null` or absent is kept while the place and user it is for stay.
#[utoipa::path(put, path = "/core/default-runtime", tag = "agents",
    request_body = DefaultRuntime,
    responses((status = 200, description = "The default", body = DefaultRuntime)))]
pub(crate) async fn update_default_runtime(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<DefaultRuntime>,
) -> Result<Json<DefaultRuntime>, ApiError> {
    let config = new.clone().into_config();
    agent_config::check(CONFIG, &config).map_err(of_body)?;
    agent_config::check_address(CONFIG, &config, api.address_rules()).map_err(of_body)?;
    Ok(Json(api.store.set_default_runtime(&caller.organisation(), new).await?))
}

/// What a config's checks call it; here the body is all there is of one.
const CONFIG: &str = "config";

/// Says where in this body something is that was found in a config.
fn of_body(error: ApiError) -> ApiError {
    match error {
        ApiError::Violations(mut all) => {
            for violation in &mut all {
                violation.loc.retain(|part| *part != json!(CONFIG));
            }
            ApiError::Violations(all)
        }
        error => error,
    }
}
