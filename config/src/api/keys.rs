//! `/admin/organization-pats`: the organization's API keys; and what one's own key may do.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::page::{Cursor, page, reply};
use super::table::Caller;
use crate::ids::KeyId;
use crate::model::{ApiKey, NewApiKey};

/// A key that was just made. The only reply that holds its text.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey<'a> {
    #[serde(flatten)]
    key: ApiKey,
    /// The key itself, `ak_<id>.<secret>`: shown this once.
    pat_key: &'a str,
}

/// Makes an API key. It cannot hold more than the key that makes it.
#[utoipa::path(post, path = "/admin/organization-pats", tag = "keys", request_body = NewApiKey,
    responses((status = 200, description = "The key, whole, this once", body = CreatedKey),
        (status = 400, description = "It would hold more than the key that makes it",
            body = super::error::ErrorBody)))]
pub(crate) async fn create_organization_pat(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewApiKey>,
) -> Result<Response, ApiError> {
    new.validate()?;
    let held = caller.authenticated().scopes();
    let (key, text) = api.store.create_key(&caller.organisation(), held, new).await?;
    let mut response = Json(CreatedKey { key, pat_key: text.expose() }).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The page of the list of keys.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct ListKeys {
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Where the page before ended: Base64 of the `created_at` of its last item.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

/// The organization's API keys, newest first, without their secrets.
#[utoipa::path(get, path = "/admin/organization-pats", tag = "keys", params(ListKeys),
    responses((status = 200, description = "Keys", body = [ApiKey])))]
pub(crate) async fn list_organization_pats(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListKeys>,
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

/// The scopes of one's own key.
#[utoipa::path(get, path = "/admin/members/me/scopes", tag = "keys",
    responses((status = 200, description = "Scopes", body = [String])))]
pub(crate) async fn get_my_scopes(caller: Caller) -> Json<Vec<&'static str>> {
    Json(caller.authenticated().scopes().iter().map(|scope| scope.as_str()).collect())
}
