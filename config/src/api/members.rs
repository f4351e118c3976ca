//! `/admin/members`: who belongs to the organization, and what they may do.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Params};
use super::page::{PageOnly, page, reply};
use super::table::Caller;
use crate::ids::UserId;
use crate::model::{Member, MemberChange, NewMember};

/// The organization's members, newest first.
#[utoipa::path(get, path = "/admin/members", tag = "members", params(PageOnly),
    responses((status = 200, description = "Members", body = [Member])))]
pub(crate) async fn list_members(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<PageOnly>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let members = api.store.members(&caller.organisation(), page).await?;
    Ok(reply(page, members, |member| member.created_at))
}

/// One member.
#[utoipa::path(get, path = "/admin/members/{user_id}", tag = "members",
    params(("user_id" = UserId, Path, description = "The user")),
    responses((status = 200, description = "The member", body = Member)))]
pub(crate) async fn get_member(
    State(api): State<Api>,
    caller: Caller,
    Id(user): Id<UserId>,
) -> Result<Json<Member>, ApiError> {
    Ok(Json(api.store.member(&caller.organisation(), user).await?))
}

/// Adds a member. A user the node does not know yet is made; their first personal access token comes
/// from the operator. Nobody gives a role that holds more than they hold themselves.
#[utoipa::path(post, path = "/admin/members", tag = "members", request_body = NewMember,
    responses((status = 200, description = "The member", body = Member),
        (status = 400, description = "The role holds more than the caller, or there are too many",
            body = ErrorBody),
        (status = 409, description = "They are a member already", body = ErrorBody)))]
pub(crate) async fn add_member(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewMember>,
) -> Result<Json<Member>, ApiError> {
    let held = caller.authenticated().scopes();
    Ok(Json(api.store.add_member(&caller.organisation(), held, new).await?))
}

/// Changes a member: an absent key stays as it is. The role of one who holds more than the caller
/// stays too, and so does the last admin's.
#[utoipa::path(patch, path = "/admin/members/{user_id}", tag = "members",
    request_body = MemberChange,
    params(("user_id" = UserId, Path, description = "The user")),
    responses((status = 200, description = "The member", body = Member),
        (status = 400, description = "A role holds more than the caller", body = ErrorBody),
        (status = 409, description = "Nobody else is an admin", body = ErrorBody)))]
pub(crate) async fn update_member(
    State(api): State<Api>,
    caller: Caller,
    Id(user): Id<UserId>,
    Body(change): Body<MemberChange>,
) -> Result<Json<Member>, ApiError> {
    let held = caller.authenticated().scopes();
    Ok(Json(api.store.update_member(&caller.organisation(), held, user, change).await?))
}

/// Ends a membership at once: the user's tokens open nothing of the organization any more.
#[utoipa::path(delete, path = "/admin/members/{user_id}", tag = "members",
    params(("user_id" = UserId, Path, description = "The user")),
    responses((status = 204, description = "Gone"),
        (status = 400, description = "Their role holds more than the caller", body = ErrorBody),
        (status = 409, description = "Nobody else is an admin", body = ErrorBody)))]
pub(crate) async fn remove_member(
    State(api): State<Api>,
    caller: Caller,
    Id(user): Id<UserId>,
) -> Result<StatusCode, ApiError> {
    let held = caller.authenticated().scopes();
    api.store.remove_member(&caller.organisation(), held, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
