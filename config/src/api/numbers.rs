//! `/core/phone-numbers`: numbers and the trunks that carry them. Slots are written by publishing.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Params, path_parameter};
use super::page::{listing, reply};
use super::table::Caller;
use crate::ids::TrunkId;
use crate::model::{E164, NewPhoneNumber, NumberChange, NumberFilter, PhoneNumber};

/// The number in the path; `+` may be written `%2B`. What is no number is not found.
pub(crate) struct Number(E164);

impl FromRequestParts<Api> for Number {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let text = path_parameter(parts, api, "phone_number").await;
        let number = text.and_then(|text| text.parse().ok());
        number.map(Self).ok_or_else(|| ApiError::not_found("Phone number"))
    }
}

listing! {
    /// Filters of the list of numbers.
    ListPhoneNumbers {
        /// Part of the number.
        phone_number: String,
        /// On this trunk.
        trunk_id: TrunkId,
    }
}

/// The organization's phone numbers, newest first.
#[utoipa::path(get, path = "/core/phone-numbers", tag = "phone numbers", params(ListPhoneNumbers),
    responses((status = 200, description = "Phone numbers", body = [PhoneNumber])))]
pub(crate) async fn list_phone_numbers(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListPhoneNumbers>,
) -> Result<Response, ApiError> {
    let page = query.page();
    // A plus that was not escaped arrives as a space.
    let part = query.phone_number.as_deref().map(|text| text.replace(' ', "+"));
    let filter =
        NumberFilter { period: query.period(), trunk_id: query.trunk_id, phone_number: part };
    let numbers = api.store.numbers(&caller.organisation(), &filter, page).await?;
    Ok(reply(page, numbers, |number| number.created_at))
}

/// One phone number.
#[utoipa::path(get, path = "/core/phone-numbers/{phone_number}", tag = "phone numbers",
    params(("phone_number" = String, Path, description = "The number, E.164")),
    responses((status = 200, description = "The number", body = PhoneNumber)))]
pub(crate) async fn get_phone_number(
    State(api): State<Api>,
    caller: Caller,
    Number(number): Number,
) -> Result<Json<PhoneNumber>, ApiError> {
    Ok(Json(api.store.number(&caller.organisation(), &number).await?))
}

/// Registers an existing number on a trunk of the customer's own.
#[utoipa::path(post, path = "/core/phone-numbers", tag = "phone numbers",
    request_body = NewPhoneNumber,
    responses((status = 200, description = "The number", body = PhoneNumber),
        (status = 400, description = "The trunk is managed, or the limit is reached",
            body = super::error::ErrorBody),
        (status = 404, description = "No such trunk", body = super::error::ErrorBody),
        (status = 409, description = "Somebody has the number already", body = super::error::ErrorBody)))]
pub(crate) async fn create_phone_number(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewPhoneNumber>,
) -> Result<Json<PhoneNumber>, ApiError> {
    if api.managed.sells(&new.phone_number) {
        return Err(ApiError::Conflict("Phone number belongs to a managed account".to_owned()));
    }
    Ok(Json(api.store.register_number(&caller.organisation(), new).await?))
}

/// Says whether other agents may show the number; nothing else of a number changes here.
#[utoipa::path(patch, path = "/core/phone-numbers/{phone_number}", tag = "phone numbers",
    request_body = NumberChange,
    params(("phone_number" = String, Path, description = "The number, E.164")),
    responses((status = 200, description = "The number", body = PhoneNumber)))]
pub(crate) async fn update_phone_number(
    State(api): State<Api>,
    caller: Caller,
    Number(number): Number,
    Body(change): Body<NumberChange>,
) -> Result<Json<PhoneNumber>, ApiError> {
    Ok(Json(api.store.update_number(&caller.organisation(), &number, change).await?))
}

/// Gives a number up.
#[utoipa::path(delete, path = "/core/phone-numbers/{phone_number}", tag = "phone numbers",
    params(("phone_number" = String, Path, description = "The number, E.164")),
    responses((status = 204, description = "Gone"),
        (status = 400, description = "Its trunk is managed", body = super::error::ErrorBody)))]
pub(crate) async fn delete_phone_number(
    State(api): State<Api>,
    caller: Caller,
    Number(number): Number,
) -> Result<StatusCode, ApiError> {
    api.store.delete_number(&caller.organisation(), &number).await?;
    Ok(StatusCode::NO_CONTENT)
}
