//! `/campaign/concurrency-settings`: how many calls out the organisation may have at a time.
//!
//! Free places are shared in proportion to what the organisations say here, so whoever says more gets
//! more; what all have together stays the node's setting.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::error::ApiError;
use super::extract::Body;
use super::table::Caller;
use crate::model::{ConcurrencyChange, ConcurrencySettings};

/// How many calls out the organization may have at a time. More of them wait for their turn.
#[utoipa::path(get, path = "/campaign/concurrency-settings", tag = "concurrency",
    responses((status = 200, description = "The settings", body = ConcurrencySettings)))]
pub(crate) async fn get_concurrency_settings(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<ConcurrencySettings>, ApiError> {
    let limit = api.store.concurrency_limit(&caller.organisation()).await?;
    Ok(Json(shown(&api, &caller, limit)))
}

/// Changes how many calls out the organization may have at a time. Calls that are up stay up; those
/// that wait are looked at within a second.
#[utoipa::path(put, path = "/campaign/concurrency-settings", tag = "concurrency",
    request_body = ConcurrencyChange,
    responses((status = 200, description = "The settings", body = ConcurrencySettings)))]
pub(crate) async fn update_concurrency_settings(
    State(api): State<Api>,
    caller: Caller,
    Body(change): Body<ConcurrencyChange>,
) -> Result<Json<ConcurrencySettings>, ApiError> {
    let limit = api.store.set_concurrency(&caller.organisation(), change).await?;
    Ok(Json(shown(&api, &caller, limit)))
}

fn shown(api: &Api, caller: &Caller, limit: Option<u32>) -> ConcurrencySettings {
    ConcurrencySettings {
        organization_id: caller.organisation().organisation(),
        concurrency_limit: limit.unwrap_or(api.options.outbound_concurrency),
        is_default: limit.is_none(),
    }
}
