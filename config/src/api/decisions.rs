//! `/core/calls/decisions`: why calls were refused, for those they were meant for.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Api;
use super::error::ApiError;
use super::extract::Params;
use super::page::{Cursor, page, reply};
use super::table::Caller;
use crate::clock::Timestamp;
use crate::credential::Scope;
use crate::model::{Decision, DecisionFilter};
use crate::routing;

/// Filters of the list of decisions.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct ListDecisions {
    /// From this source address, exactly.
    source: Option<String>,
    /// For this called number, after normalisation.
    called_number: Option<String>,
    /// With this rule as the first that failed.
    rule: Option<String>,
    /// `true`: calls that nobody could place; needs `operator:read`.
    unattributed: Option<bool>,
    /// At or after this moment (ISO 8601). Without an offset it is in UTC; a date alone is its first
    /// moment.
    created_after: Option<Timestamp>,
    /// At or before this moment.
    created_before: Option<Timestamp>,
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Where the page before ended: Base64 of the `at` of its last item.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

/// Why the organization's calls were refused, newest first: the trunks that were considered, the
/// first rule that failed, and what to do about it. The words of a step of the routing workflow that
/// failed are for `conversations:read_sensitive`: they may quote what a call is about.
#[utoipa::path(get, path = "/core/calls/decisions", tag = "calls", params(ListDecisions),
    responses((status = 200, description = "Decisions", body = [Decision])))]
pub(crate) async fn list_call_decisions(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListDecisions>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let filter = DecisionFilter {
        source_ip: query.source,
        rule: query.rule,
        called_number: query.called_number.map(|text| text.replace(' ', "+")),
        after: query.created_after,
        before: query.created_before,
    };
    let mut decisions = if query.unattributed == Some(true) {
        api.store.unattributed_decisions(&caller.operator()?, &filter, page).await?
    } else {
        api.store.decisions(&caller.organisation(), &filter, page).await?
    };
    if !caller.holds(Scope::ConversationsReadSensitive) {
        for decision in &mut decisions {
            decision.routing = decision.routing.take().map(routing::without_error);
        }
    }
    Ok(reply(page, decisions, |decision| decision.at))
}
