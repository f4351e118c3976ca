//! `/core/trunks`: the relations to carriers and PBXs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Id, Params};
use super::page::{listing, reply};
use super::table::Caller;
use crate::ids::TrunkId;
use crate::model::{InboundConfig, Invalid, NewTrunk, Trunk, TrunkChange, TrunkFilter};

/// A trunk that was just written, with what its owner should know about it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WrittenTrunk {
    #[serde(flatten)]
    trunk: Trunk,
    /// What is allowed and unwise about it, in sentences; empty when nothing is.
    warnings: Vec<String>,
}

impl From<Trunk> for WrittenTrunk {
    fn from(trunk: Trunk) -> Self {
        let open = trunk.inbound_config.as_ref().is_none_or(|inbound| {
            inbound.allowed_addresses.is_none() && !inbound.auth_password_set
        });
        let warning = "Calls are taken from any address: give inbound_config.allowed_addresses, or \
                       auth_username and auth_password.";
        let warnings = if open { vec![warning.to_owned()] } else { Vec::new() };
        Self { trunk, warnings }
    }
}

listing! {
    /// Filters of the list of trunks.
    ListTrunks {
        /// Part of the name, whatever the case.
        name: String,
    }
}

/// The organization's trunks, newest first.
#[utoipa::path(get, path = "/core/trunks", tag = "trunks", params(ListTrunks),
    responses((status = 200, description = "Trunks", body = [Trunk])))]
pub(crate) async fn list_trunks(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListTrunks>,
) -> Result<Response, ApiError> {
    let page = query.page();
    let filter = TrunkFilter { period: query.period(), name: query.name };
    let trunks = api.store.trunks(&caller.organisation(), &filter, page).await?;
    Ok(reply(page, trunks, |trunk| trunk.created_at))
}

/// One trunk.
#[utoipa::path(get, path = "/core/trunks/{id}", tag = "trunks",
    params(("id" = TrunkId, Path, description = "The trunk")),
    responses((status = 200, description = "The trunk", body = Trunk)))]
pub(crate) async fn get_trunk(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TrunkId>,
) -> Result<Json<Trunk>, ApiError> {
    Ok(Json(api.store.trunk(&caller.organisation(), id).await?))
}

/// Makes a trunk of the customer's own.
#[utoipa::path(post, path = "/core/trunks", tag = "trunks", request_body = NewTrunk,
    responses((status = 200, description = "The trunk", body = WrittenTrunk),
        (status = 409, description = "Another trunk could not be told apart from it",
            body = super::error::ErrorBody)))]
pub(crate) async fn create_trunk(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewTrunk>,
) -> Result<Json<WrittenTrunk>, ApiError> {
    new.validate()?;
    if new.outbound_config.as_ref().is_some_and(|config| config.auth_password.is_none()) {
        return Err(Invalid::new("outbound_config.auth_password", "Field required").into());
    }
    let digest = new.inbound_config.as_ref().is_some_and(|config| config.auth_password.is_some());
    require_protection(&api, new.inbound_config.as_ref(), digest)?;
    Ok(Json(api.store.create_trunk(&caller.organisation(), new).await?.into()))
}

/// Changes a trunk: an absent key stays as it is, `null` removes a config, and a config that is given
/// replaces the stored one whole, but for an absent password, which stays. With another `address` in
/// `outbound_config` it does not: the password must be given again, or whoever may change a trunk and
/// not read its password could have it sent to a server of their own.
#[utoipa::path(put, path = "/core/trunks/{id}", tag = "trunks", request_body = TrunkChange,
    params(("id" = TrunkId, Path, description = "The trunk")),
    responses((status = 200, description = "The trunk", body = WrittenTrunk),
        (status = 400, description = "The trunk is managed", body = super::error::ErrorBody),
        (status = 409, description = "Another trunk could not be told apart from it",
            body = super::error::ErrorBody)))]
pub(crate) async fn update_trunk(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TrunkId>,
    Body(change): Body<TrunkChange>,
) -> Result<Json<WrittenTrunk>, ApiError> {
    change.validate()?;
    let inbound = change.inbound_config.as_ref().and_then(Option::as_ref);
    if api.options.require_inbound_protection && change.inbound_config.is_some() {
        let stored = api.store.trunk(&caller.organisation(), id).await?;
        let kept = stored.inbound_config.is_some_and(|config| config.auth_password_set);
        let digest = inbound.is_some_and(|config| {
            config.auth_username.is_some() && (config.auth_password.is_some() || kept)
        });
        require_protection(&api, inbound, digest)?;
    }
    Ok(Json(api.store.update_trunk(&caller.organisation(), id, change).await?.into()))
}

/// What a deletion may be asked with.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct DeleteTrunk {
    /// Delete the trunk's numbers with it.
    force: bool,
}

/// Deletes a trunk; one that has numbers only by `force`.
#[utoipa::path(delete, path = "/core/trunks/{id}", tag = "trunks",
    params(("id" = TrunkId, Path, description = "The trunk"), DeleteTrunk),
    responses((status = 204, description = "Gone"),
        (status = 400, description = "The trunk is managed", body = super::error::ErrorBody),
        (status = 409, description = "The trunk has numbers", body = super::error::ErrorBody)))]
pub(crate) async fn delete_trunk(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TrunkId>,
    Params(query): Params<DeleteTrunk>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_trunk(&caller.organisation(), id, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a trunk that takes calls from anywhere, where the settings say so.
fn require_protection(
    api: &Api,
    inbound: Option<&InboundConfig>,
    digest: bool,
) -> Result<(), ApiError> {
    let by_address = inbound.is_some_and(|config| config.allowed_addresses.is_some());
    if by_address || digest || !api.options.require_inbound_protection {
        return Ok(());
    }
    let why = "This node refuses trunks that take calls from any address: give \
               inbound_config.allowed_addresses, or auth_username and auth_password";
    Err(ApiError::Unprocessable(why.to_owned()))
}
