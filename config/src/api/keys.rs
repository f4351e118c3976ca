//! `/admin/organization-pats`: the organization's API keys; and what one's own credential may do.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::page::{PageOnly, page, reply, shown_once};
use super::table::Caller;
use crate::ids::KeyId;
use crate::model::{ApiKey, NewApiKey};
use crate::secret::Secret;

/// A key that was just made. The only reply that holds its text.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey<'a> {
    #[serde(flatten)]
    key: ApiKey,
    /// The key itself, `ak_<id>.<secret>`: shown this once.
    pat_key: &'a str,
}

/// Makes an API key. It cannot hold more than whoever makes it.
#[utoipa::path(post, path = "/admin/organization-pats", tag = "keys", request_body = NewApiKey,
    responses((status = 200, description = "The key, whole, this once", body = CreatedKey),
        (status = 400, description = "It would hold more than whoever makes it, or there are too \
            many", body = super::error::ErrorBody)))]
pub(crate) async fn create_organization_pat(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewApiKey>,
) -> Result<Response, ApiError> {
    new.validate()?;
    let held = caller.authenticated().scopes();
    let (key, text) = api.store.create_key(&caller.organisation(), held, new).await?;
    Ok(created(key, &text))
}

/// The reply that shows a new key, this once.
pub(crate) fn created(key: ApiKey, text: &Secret<String>) -> Response {
    shown_once(&CreatedKey { key, pat_key: text.expose() })
}

/// The organization's API keys, newest first, without their secrets.
#[utoipa::path(get, path = "/admin/organization-pats", tag = "keys", params(PageOnly),
    responses((status = 200, description = "Keys", body = [ApiKey])))]
pub(crate) async fn list_organization_pats(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<PageOnly>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let keys = api.store.keys(&caller.organisation(), page).await?;
    Ok(reply(page, keys, |key| key.created_at))
}

/// Ends a key at once.
#[utoipa::path(delete, path = "/admin/organization-pats/{key_id}", tag = "keys",
    params(("key_id" = KeyId, Path, description = "The public half of the key")),
    responses((status = 204, description = "Gone")))]
pub(crate) async fn delete_organization_pat(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
) -> Result<StatusCode, ApiError> {
    api.store.revoke_key(&caller.organisation(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the caller may do in the organization: the scopes of its key, or of the user's role.
#[utoipa::path(get, path = "/admin/members/me/scopes", tag = "keys",
    responses((status = 200, description = "Scopes", body = [String])))]
pub(crate) async fn get_my_scopes(caller: Caller) -> Json<Vec<&'static str>> {
    Json(caller.authenticated().scopes().iter().map(|scope| scope.as_str()).collect())
}
