//! `/core/managed-accounts`: numbers that organizations buy, and the trunks that the operator makes.
//!
//! Accounts are the operator's and the same for everybody; what was bought at them is an
//! organization's own.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;

use super::Api;
use super::error::{ApiError, ErrorBody, Violation};
use super::extract::{Body, Params, path_parameter};
use super::table::Caller;
use crate::ids::TrunkId;
use crate::managed::ManagedError;
use crate::model::{
    AvailableNumber, Invalid, ManagedAccount, ManagedNumber, NewManagedTrunk, NumberSearch,
    NumberType, PhoneNumber, Trunk,
};

/// Numbers of a search that names no limit.
const DEFAULT_LIMIT: u32 = 20;

/// The account in the path, which there is.
pub(crate) struct Account(String);

impl FromRequestParts<Api> for Account {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let id = path_parameter(parts, api, "account_id").await.unwrap_or_default();
        api.managed.account(&id)?;
        Ok(Self(id))
    }
}

impl From<ManagedError> for ApiError {
    fn from(error: ManagedError) -> Self {
        match error {
            ManagedError::UnknownAccount => Self::not_found("Managed account"),
            ManagedError::Gone => Self::Conflict(error.to_string()),
            ManagedError::Provider => Self::Upstream(error.to_string()),
            ManagedError::UnderWay => Self::Busy(UNDER_WAY),
            ManagedError::Store(error) => error.into(),
        }
    }
}

const UNDER_WAY: &str =
    "The purchase is under way; the number appears in the list of numbers when it is done";

/// The accounts at which numbers can be bought.
#[utoipa::path(get, path = "/core/managed-accounts", tag = "managed accounts",
    responses((status = 200, description = "Managed accounts", body = [ManagedAccount])))]
pub(crate) async fn list_managed_accounts(State(api): State<Api>) -> Json<Vec<ManagedAccount>> {
    Json(api.managed.accounts())
}

/// Which numbers are looked for.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct AvailableNumbers {
    /// Their country, ISO 3166-1 alpha-2.
    #[param(pattern = "^[A-Z]{2}$", default = "US")]
    country: Option<String>,
    /// What kind; `local` if nothing is said.
    #[serde(rename = "type")]
    kind: Option<NumberType>,
    /// Only numbers that carry calls.
    #[param(default = true)]
    voice_enabled: Option<bool>,
    /// The digits after the country's calling code.
    #[param(pattern = "^[0-9]{1,6}$")]
    area_code: Option<String>,
    /// Most numbers to return.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
}

impl AvailableNumbers {
    fn search(self) -> Result<NumberSearch, ApiError> {
        let search = NumberSearch {
            country: self.country.unwrap_or_else(|| "US".to_owned()),
            kind: self.kind.unwrap_or_default(),
            voice_enabled: self.voice_enabled.unwrap_or(true),
            area_code: self.area_code,
            limit: self.limit.unwrap_or(DEFAULT_LIMIT),
        };
        let refuse = |Invalid { field, message }| {
            ApiError::Violations(vec![Violation::query(field, "value_error", message)])
        };
        search.validate().map_err(refuse)?;
        Ok(search)
    }
}

/// Numbers that can be bought at an account now.
#[utoipa::path(get, path = "/core/managed-accounts/{account_id}/available-numbers", tag = "managed accounts",
    params(("account_id" = String, Path, description = "The managed account"), AvailableNumbers),
    responses((status = 200, description = "Numbers", body = [AvailableNumber]),
        (status = 502, description = "The provider cannot be asked", body = ErrorBody)))]
pub(crate) async fn list_available_numbers(
    State(api): State<Api>,
    Account(account): Account,
    Params(query): Params<AvailableNumbers>,
) -> Result<Json<Vec<AvailableNumber>>, ApiError> {
    Ok(Json(api.managed.available(&account, &query.search()?).await?))
}

/// Buys a number, with a managed trunk that carries it. A purchase that takes longer than the request
/// is answered with 503 and goes on; the number then appears in the list of numbers.
#[utoipa::path(post, path = "/core/managed-accounts/{account_id}/purchase-number", tag = "managed accounts",
    request_body = ManagedNumber,
    params(("account_id" = String, Path, description = "The managed account")),
    responses((status = 200, description = "The number", body = PhoneNumber),
        (status = 400, description = "The limit of numbers is reached", body = ErrorBody),
        (status = 409, description = "The number is not to be had", body = ErrorBody),
        (status = 502, description = "The provider failed, and nothing was bought",
            body = ErrorBody)))]
pub(crate) async fn purchase_number(
    State(api): State<Api>,
    caller: Caller,
    Account(account): Account,
    Body(wanted): Body<ManagedNumber>,
) -> Result<Json<PhoneNumber>, ApiError> {
    let scope = caller.organisation();
    Ok(Json(api.managed.purchase(&scope, &account, &wanted.phone_number).await?))
}

/// Gives a bought number back, and its trunk with it. An extension of the contract.
#[utoipa::path(post, path = "/core/managed-accounts/{account_id}/release-number", tag = "managed accounts",
    request_body = ManagedNumber,
    params(("account_id" = String, Path, description = "The managed account")),
    responses((status = 204, description = "Gone")))]
pub(crate) async fn release_number(
    State(api): State<Api>,
    caller: Caller,
    Account(account): Account,
    Body(number): Body<ManagedNumber>,
) -> Result<StatusCode, ApiError> {
    api.managed.release(&caller.organisation(), &account, &number.phone_number).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a managed trunk for an organization, which can use and not change it. For the operator.
#[utoipa::path(post, path = "/core/managed-accounts/{account_id}/trunks", tag = "managed accounts",
    request_body = NewManagedTrunk,
    params(("account_id" = String, Path, description = "The managed account")),
    responses((status = 200, description = "The trunk", body = Trunk),
        (status = 409, description = "Somebody has one of the numbers, or another trunk could not be \
            told apart from it", body = ErrorBody)))]
pub(crate) async fn create_managed_trunk(
    State(api): State<Api>,
    caller: Caller,
    Account(account): Account,
    Body(new): Body<NewManagedTrunk>,
) -> Result<Json<Trunk>, ApiError> {
    let operator = caller.operator_manage()?;
    Ok(Json(api.store.create_managed_trunk(&operator, &account, new).await?))
}

/// The trunk in a path that names an account too.
pub(crate) struct ManagedTrunk(TrunkId);

impl FromRequestParts<Api> for ManagedTrunk {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let id = path_parameter(parts, api, "trunk_id").await.and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(|| ApiError::not_found("Trunk"))
    }
}

/// Removes a managed trunk that the operator made, with its numbers. For the operator.
#[utoipa::path(delete, path = "/core/managed-accounts/{account_id}/trunks/{trunk_id}",
    tag = "managed accounts",
    params(("account_id" = String, Path, description = "The managed account"),
        ("trunk_id" = TrunkId, Path, description = "The trunk")),
    responses((status = 204, description = "Gone"),
        (status = 409, description = "It came with a bought number", body = ErrorBody)))]
pub(crate) async fn delete_managed_trunk(
    State(api): State<Api>,
    caller: Caller,
    Account(account): Account,
    ManagedTrunk(trunk): ManagedTrunk,
) -> Result<StatusCode, ApiError> {
    let operator = caller.operator_manage()?;
    api.store.delete_managed_trunk(&operator, &account, trunk).await?;
    Ok(StatusCode::NO_CONTENT)
}
