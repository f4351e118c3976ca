//! `/admin/audit-log`: who changed what, when and from where.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Api;
use super::error::ApiError;
use super::extract::Params;
use super::page::{Cursor, page, reply};
use super::table::Caller;
use crate::clock::Timestamp;
use crate::model::{AuditChain, AuditEntry, AuditFilter};

/// Filters of the audit log.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct ListAuditLog {
    /// Of this action, exactly: `trunk.update`, or the method and path of a refused request.
    action: Option<String>,
    /// About the object with this id, exactly.
    object_id: Option<String>,
    /// By the key or user with this id, exactly.
    actor_id: Option<String>,
    /// `true`: what concerns no organization; needs `operator:read`.
    node: Option<bool>,
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

/// Every change to the organization's things and every change that was refused, newest first.
#[utoipa::path(get, path = "/admin/audit-log", tag = "audit", params(ListAuditLog),
    responses((status = 200, description = "Entries", body = [AuditEntry])))]
pub(crate) async fn list_audit_log(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListAuditLog>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let filter = AuditFilter {
        action: query.action,
        object_id: query.object_id.map(|text| text.replace(' ', "+")),
        actor_id: query.actor_id,
        after: query.created_after,
        before: query.created_before,
    };
    let entries = if query.node == Some(true) {
        api.store.node_audit_log(&caller.operator()?, &filter, page).await?
    } else {
        api.store.audit_log(&caller.organisation(), &filter, page).await?
    };
    Ok(reply(page, entries, |entry| entry.at))
}

/// Whether the organization's audit log is whole and as it was written, from its first entry to its
/// last.
#[utoipa::path(get, path = "/admin/audit-log/verification", tag = "audit",
    responses((status = 200, description = "What became of it", body = AuditChain)))]
pub(crate) async fn verify_audit_log(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<AuditChain>, ApiError> {
    Ok(Json(api.store.verify_audit_log(&caller.organisation()).await?))
}
