//! `/admin/usage`: what the organisation used.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Api;
use super::error::{ApiError, Violation};
use super::extract::Params;
use super::table::Caller;
use crate::clock::Timestamp;
use crate::limits::USAGE_DAYS;
use crate::model::Usage;

const DAY: Duration = Duration::from_secs(86_400);

/// Days of a summary whose beginning is not said.
const USUAL_DAYS: u32 = 30;

/// The period of a summary.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct UsagePeriod {
    /// Its first moment (ISO 8601); 30 days before its last if it is not given. Without an offset it is
    /// in UTC; a date alone is its first moment.
    from: Option<Timestamp>,
    /// Its last moment, at most 366 days later; now if it is not given.
    to: Option<Timestamp>,
}

/// What the organization used in a period: conversations that began in it, and runs of stored workflows
/// as far as their records are kept.
#[utoipa::path(get, path = "/admin/usage/summary", tag = "organizations",
    params(UsagePeriod),
    responses((status = 200, description = "The summary", body = Usage)))]
pub(crate) async fn get_usage_summary(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<UsagePeriod>,
) -> Result<Json<Usage>, ApiError> {
    let to = query.to.unwrap_or_else(|| api.store.now());
    let from = query.from.unwrap_or_else(|| to.before(DAY * USUAL_DAYS));
    let refuse = |name: &str, why: String| {
        Err(ApiError::Violations(vec![Violation::query(name, "value_error", why)]))
    };
    if from > to {
        return refuse("to", "must not be before from".to_owned());
    }
    if from.after(DAY * USAGE_DAYS.value_u32()) < to {
        return refuse("to", format!("must be at most {} days after from", USAGE_DAYS.value));
    }
    Ok(Json(api.store.usage(&caller.organisation(), (from, to)).await?))
}
