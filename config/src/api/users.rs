//! `/admin/users`: everybody the node knows; the operator's.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Params};
use super::page::{PageOnly, page, reply};
use super::table::Caller;
use super::tokens::{CreatedToken, created};
use crate::ids::UserId;
use crate::model::{NewPersonalToken, NewUser, User};

/// All users, newest first.
#[utoipa::path(get, path = "/admin/users", tag = "users", params(PageOnly),
    responses((status = 200, description = "Users", body = [User])))]
pub(crate) async fn list_users(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<PageOnly>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let users = api.store.users(&caller.operator()?, page).await?;
    Ok(reply(page, users, |user| user.created_at))
}

/// Makes a user, who belongs nowhere yet.
#[utoipa::path(post, path = "/admin/users", tag = "users", request_body = NewUser,
    responses((status = 200, description = "The user", body = User),
        (status = 409, description = "The email is another user's", body = ErrorBody)))]
pub(crate) async fn create_user(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewUser>,
) -> Result<Json<User>, ApiError> {
    Ok(Json(api.store.create_user(&caller.operator_manage()?, new).await?))
}

/// Removes a user, with their tokens and memberships, at once.
#[utoipa::path(delete, path = "/admin/users/{user_id}", tag = "users",
    params(("user_id" = UserId, Path, description = "The user")),
    responses((status = 204, description = "Gone"),
        (status = 409, description = "An organization would be left without an admin",
            body = ErrorBody)))]
pub(crate) async fn delete_user(
    State(api): State<Api>,
    caller: Caller,
    Id(user): Id<UserId>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_user(&caller.operator_manage()?, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a personal access token for a user: their first, or one instead of those they have lost.
#[utoipa::path(post, path = "/admin/users/{user_id}/personal-access-tokens", tag = "users",
    request_body = NewPersonalToken,
    params(("user_id" = UserId, Path, description = "The user")),
    responses((status = 200, description = "The token, whole, this once", body = CreatedToken),
        (status = 400, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn create_token_for_user(
    State(api): State<Api>,
    caller: Caller,
    Id(user): Id<UserId>,
    Body(new): Body<NewPersonalToken>,
) -> Result<Response, ApiError> {
    let by = caller.operator_manage()?;
    let (token, text) = api.store.create_token_for(&by, user, new).await?;
    Ok(created(token, &text))
}
