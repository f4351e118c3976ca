//! `/admin/organizations`: one's own organization, those below it, and for the operator all.
//!
//! Organizations form trees. `child_organizations:manage` reaches everything below one's own, as deep
//! as the tree goes; nothing reaches upwards or sideways, where every id is an unknown one.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Params};
use super::page::{Cursor, page, reply};
use super::table::Caller;
use crate::credential::{Scope, ScopeSet, ScopedTo};
use crate::ids::OrganisationId;
use crate::model::{
    Member, NewApiKey, NewMember, NewOrganisation, Organisation, OrganisationChange,
};

/// Which organizations, and the page of their list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct ListOrganizations {
    /// `true`: all there are; needs `operator:read`.
    all: Option<bool>,
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Where the page before ended: Base64 of the `created_at` of its last item.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

/// One's own organization, and with `child_organizations:manage` all below it, newest first.
#[utoipa::path(get, path = "/admin/organizations", tag = "organizations",
    params(ListOrganizations),
    responses((status = 200, description = "Organizations", body = [Organisation])))]
pub(crate) async fn list_organizations(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListOrganizations>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let organisations = if query.all == Some(true) {
        api.store.organisations(&caller.operator()?, page).await?
    } else {
        let below = caller.holds(Scope::ChildOrganizationsManage);
        api.store.organisations_from(&caller.organisation(), below, page).await?
    };
    Ok(reply(page, organisations, |organisation| organisation.created_at))
}

/// One organization: one's own, or one that is within reach.
#[utoipa::path(get, path = "/admin/organizations/{id}", tag = "organizations",
    params(("id" = OrganisationId, Path, description = "The organization")),
    responses((status = 200, description = "The organization", body = Organisation)))]
pub(crate) async fn get_organization(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Json<Organisation>, ApiError> {
    let bearer = caller.authenticated();
    let scope = api.store.reach(bearer, id, bearer.operator_read()).await?;
    Ok(Json(api.store.organisation(&scope).await?))
}

/// Makes an organization: below one's own, below one that is within reach, or (the operator's) the
/// root of a new tree. A user who makes one is its first admin.
#[utoipa::path(post, path = "/admin/organizations", tag = "organizations",
    request_body = NewOrganisation,
    responses((status = 200, description = "The organization", body = Organisation),
        (status = 400, description = "Too many, or too deep", body = ErrorBody),
        (status = 404, description = "No such parent", body = ErrorBody)))]
pub(crate) async fn create_organization(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewOrganisation>,
) -> Result<Json<Organisation>, ApiError> {
    new.validate()?;
    let bearer = caller.authenticated();
    if new.max_phone_numbers.is_some() {
        caller.operator_manage()?;
    }
    let made = match new.parent_id {
        Some(None) => {
            let (by, most) = (caller.operator_manage()?, new.max_phone_numbers);
            api.store.create_organisation(&by, &new.name, most).await?
        }
        Some(Some(id)) => {
            let parent = api.store.reach(bearer, id, bearer.operator_manage()).await?;
            api.store.create_child_organisation(&parent, new).await?
        }
        None => api.store.create_child_organisation(&bearer.organisation(), new).await?,
    };
    api.managed.welcome(ScopedTo::by_gateway(made.id)).await;
    Ok(Json(made))
}

/// Changes an organization: an absent key stays as it is. One's own takes `organizations:manage`.
#[utoipa::path(patch, path = "/admin/organizations/{id}", tag = "organizations",
    request_body = OrganisationChange,
    params(("id" = OrganisationId, Path, description = "The organization")),
    responses((status = 200, description = "The organization", body = Organisation)))]
pub(crate) async fn update_organization(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<OrganisationId>,
    Body(change): Body<OrganisationChange>,
) -> Result<Json<Organisation>, ApiError> {
    let bearer = caller.authenticated();
    let scope = api.store.reach(bearer, id, bearer.operator_manage()).await?;
    let own = id == caller.organisation().organisation();
    if own && !caller.holds(Scope::OrganizationsManage) && bearer.operator_manage().is_none() {
        let why = "Requires any one of: organizations:manage, operator:manage";
        return Err(ApiError::Forbidden(why.to_owned()));
    }
    if change.max_phone_numbers.is_some() {
        caller.operator_manage()?;
    }
    Ok(Json(api.store.update_organisation(&scope, change).await?))
}

/// Makes an API key of an organization within reach, as its own admins do at
/// `/admin/organization-pats`. It cannot hold more than whoever makes it, unless the operator does.
#[utoipa::path(post, path = "/admin/organizations/{id}/organization-pats", tag = "organizations",
    request_body = NewApiKey,
    params(("id" = OrganisationId, Path, description = "The organization")),
    responses((status = 200, description = "The key, whole, this once",
            body = super::keys::CreatedKey),
        (status = 400, description = "It would hold more than whoever makes it, or there are too \
            many", body = ErrorBody)))]
pub(crate) async fn create_pat_for_organization(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<OrganisationId>,
    Body(new): Body<NewApiKey>,
) -> Result<Response, ApiError> {
    let bearer = caller.authenticated();
    let scope = api.store.reach(bearer, id, bearer.operator_manage()).await?;
    let (key, text) = api.store.create_key(&scope, powers(&caller), new).await?;
    Ok(super::keys::created(key, &text))
}

/// Adds a member to an organization within reach, as its own admins do at `/admin/members`.
#[utoipa::path(post, path = "/admin/organizations/{id}/members", tag = "organizations",
    request_body = NewMember,
    params(("id" = OrganisationId, Path, description = "The organization")),
    responses((status = 200, description = "The member", body = Member),
        (status = 400, description = "The role holds more than whoever gives it, or there are too \
            many", body = ErrorBody),
        (status = 409, description = "They are a member already", body = ErrorBody)))]
pub(crate) async fn add_member_to_organization(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<OrganisationId>,
    Body(new): Body<NewMember>,
) -> Result<Json<Member>, ApiError> {
    let bearer = caller.authenticated();
    let scope = api.store.reach(bearer, id, bearer.operator_manage()).await?;
    Ok(Json(api.store.add_member(&scope, powers(&caller), new).await?))
}

/// What the caller can give away in an organization below: the operator, everything.
fn powers(caller: &Caller) -> ScopeSet {
    match caller.authenticated().operator_manage() {
        Some(_) => ScopeSet::all(),
        None => caller.authenticated().scopes(),
    }
}
