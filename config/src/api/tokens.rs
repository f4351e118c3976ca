//! `/admin/personal-access-tokens`: the tokens of whoever asks; and the organizations they belong to.

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
use super::table::Bearer;
use crate::ids::TokenId;
use crate::model::{Membership, NewPersonalToken, PersonalToken};
use crate::secret::Secret;

/// A token that was just made. The only reply that holds its text.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedToken<'a> {
    #[serde(flatten)]
    token: PersonalToken,
    /// The token itself, `pat_<id>.<secret>`: shown this once.
    pat_key: &'a str,
}

/// The reply that shows a new token, this once.
pub(crate) fn created(token: PersonalToken, text: &Secret<String>) -> Response {
    shown_once(&CreatedToken { token, pat_key: text.expose() })
}

/// Makes a personal access token for whoever asks. It cannot outlive the token that makes it; one
/// that is not said to expire expires with it.
#[utoipa::path(post, path = "/admin/personal-access-tokens", tag = "tokens",
    request_body = NewPersonalToken,
    responses((status = 200, description = "The token, whole, this once", body = CreatedToken),
        (status = 400, description = "It would outlive the token that makes it, or there are too \
            many", body = super::error::ErrorBody)))]
pub(crate) async fn create_personal_access_token(
    State(api): State<Api>,
    Bearer(person): Bearer,
    Body(new): Body<NewPersonalToken>,
) -> Result<Response, ApiError> {
    new.validate()?;
    let (token, text) = api.store.create_token(&person, new).await?;
    Ok(created(token, &text))
}

/// The personal access tokens of whoever asks, newest first, without their secrets.
#[utoipa::path(get, path = "/admin/personal-access-tokens", tag = "tokens", params(PageOnly),
    responses((status = 200, description = "Tokens", body = [PersonalToken])))]
pub(crate) async fn list_personal_access_tokens(
    State(api): State<Api>,
    Bearer(person): Bearer,
    Params(query): Params<PageOnly>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let tokens = api.store.tokens(&person, page).await?;
    Ok(reply(page, tokens, |token| token.created_at))
}

/// Ends a personal access token at once.
#[utoipa::path(delete, path = "/admin/personal-access-tokens/{token_id}", tag = "tokens",
    params(("token_id" = TokenId, Path, description = "The public half of the token")),
    responses((status = 204, description = "Gone")))]
pub(crate) async fn delete_personal_access_token(
    State(api): State<Api>,
    Bearer(person): Bearer,
    Id(id): Id<TokenId>,
) -> Result<StatusCode, ApiError> {
    api.store.revoke_token(&person, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The organizations that whoever asks belongs to, by name: what X-Anyreach-Org may say beside a
/// personal access token.
#[utoipa::path(get, path = "/admin/members/me/organizations", tag = "tokens",
    responses((status = 200, description = "Organizations", body = [Membership])))]
pub(crate) async fn list_my_organizations(
    State(api): State<Api>,
    Bearer(person): Bearer,
) -> Result<Json<Vec<Membership>>, ApiError> {
    Ok(Json(api.store.organisations_of(&person).await?))
}
