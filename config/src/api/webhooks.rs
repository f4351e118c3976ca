//! `/core/webhooks`: where events are posted to, and what became of each delivery.
//!
//! What is sensitive in an event goes only where somebody who may see it has sent it: a webhook with
//! `include_sensitive` can be made and changed only with `conversations:read_sensitive`, and the
//! deliveries of one show sensitive fields only with it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, OptionalBody, Params};
use super::page::{Cursor, page, reply};
use super::table::Caller;
use crate::credential::Scope;
use crate::ids::{DeliveryId, WebhookId};
use crate::limits::WEBHOOK_SECRET_OVERLAP_SECONDS;
use crate::model::{
    Delivery, DeliveryDetail, DeliveryState, Invalid, NewWebhook, Webhook, WebhookChange,
};

/// How long the old secret signs too, when nobody says, in seconds.
const OVERLAP_SECONDS: u32 = 86_400;

/// A webhook with a secret that was just made. The only reply that holds it.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookSecret<'a> {
    #[serde(flatten)]
    webhook: Webhook,
    /// What deliveries are signed with: shown this once.
    secret: &'a str,
}

/// How a secret is to be changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct RotateSecret {
    /// For how many seconds the old secret signs too; absent is a day, 0 is not at all.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 604_800)]
    overlap_seconds: Option<u32>,
}

/// What was replayed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replayed {
    /// How many deliveries are on their way again.
    replayed: u64,
}

/// The page of the list of webhooks.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct ListWebhooks {
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Where the page before ended: Base64 of the `created_at` of its last item.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

/// Filters of the list of deliveries.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct ListDeliveries {
    /// How far they have come.
    #[param(inline)]
    state: Option<DeliveryState>,
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Where the page before ended: Base64 of the `created_at` of its last item.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

fn may_see_sensitive(caller: &Caller) -> bool {
    caller.holds(Scope::ConversationsReadSensitive)
}

/// Refuses a URL that no delivery would go to.
fn check_url(api: &Api, url: Option<&String>) -> Result<(), ApiError> {
    let checked = url.map_or(Ok(()), |url| api.fetcher.check_url(url));
    checked.map_err(|why| Invalid::new("url", why.to_string()).into())
}

/// A reply with a secret, which nobody on the way may keep.
fn with_secret(webhook: Webhook, secret: &str) -> Response {
    let mut response = Json(WebhookSecret { webhook, secret }).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Makes a webhook: the events it wants are posted to its URL, each signed with its secret, which
/// only this reply holds. `include_sensitive` needs `conversations:read_sensitive`.
#[utoipa::path(post, path = "/core/webhooks", tag = "webhooks", request_body = NewWebhook,
    responses((status = 200, description = "The webhook and its secret", body = WebhookSecret),
        (status = 400, description = "The organization has as many as it may",
            body = ErrorBody)))]
pub(crate) async fn create_webhook(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewWebhook>,
) -> Result<Response, ApiError> {
    new.validate()?;
    check_url(&api, Some(&new.url))?;
    let scope = caller.organisation();
    let (webhook, secret) =
        api.store.create_webhook(&scope, new, may_see_sensitive(&caller)).await?;
    Ok(with_secret(webhook, secret.expose()))
}

/// The organization's webhooks, newest first, without their secrets.
#[utoipa::path(get, path = "/core/webhooks", tag = "webhooks", params(ListWebhooks),
    responses((status = 200, description = "Webhooks", body = [Webhook])))]
pub(crate) async fn list_webhooks(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListWebhooks>,
) -> Result<Response, ApiError> {
    let page = page(query.limit, query.cursor);
    let webhooks = api.store.webhooks(&caller.organisation(), page).await?;
    Ok(reply(page, webhooks, |webhook| webhook.created_at))
}

/// One webhook, and how it fares.
#[utoipa::path(get, path = "/core/webhooks/{id}", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook", body = Webhook)))]
pub(crate) async fn get_webhook(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
) -> Result<Json<Webhook>, ApiError> {
    Ok(Json(api.store.webhook(&caller.organisation(), id).await?))
}

/// Changes a webhook; what is absent stays. What waits for it goes where the change says. One that
/// has or gets `include_sensitive` needs `conversations:read_sensitive`, unless that is taken away.
#[utoipa::path(put, path = "/core/webhooks/{id}", tag = "webhooks", request_body = WebhookChange,
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook", body = Webhook)))]
pub(crate) async fn update_webhook(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
    Body(change): Body<WebhookChange>,
) -> Result<Json<Webhook>, ApiError> {
    change.validate()?;
    check_url(&api, change.url.as_ref())?;
    let may_see = may_see_sensitive(&caller);
    Ok(Json(api.store.update_webhook(&caller.organisation(), id, change, may_see).await?))
}

/// Removes a webhook, with what waits for it and the record of what was delivered.
#[utoipa::path(delete, path = "/core/webhooks/{id}", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses((status = 204, description = "Gone")))]
pub(crate) async fn delete_webhook(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_webhook(&caller.organisation(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a webhook a new secret, which only this reply holds. The old one signs too for
/// `overlap_seconds`, so that receivers can be changed over one by one.
#[utoipa::path(post, path = "/core/webhooks/{id}/rotate-secret", tag = "webhooks",
    request_body = Option<RotateSecret>,
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook and its secret", body = WebhookSecret)))]
pub(crate) async fn rotate_webhook_secret(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
    OptionalBody(body): OptionalBody<RotateSecret>,
) -> Result<Response, ApiError> {
    let (overlap, most) = (body.overlap_seconds, WEBHOOK_SECRET_OVERLAP_SECONDS.value_u32());
    let overlap = overlap.unwrap_or(OVERLAP_SECONDS);
    if overlap > most {
        return Err(Invalid::new("overlap_seconds", format!("must be at most {most}")).into());
    }
    let scope = caller.organisation();
    let (webhook, secret) = api.store.rotate_webhook_secret(&scope, id, overlap).await?;
    Ok(with_secret(webhook, secret.expose()))
}

/// Sends a `webhook.test` to a webhook, as its events are sent, but attempted once only; also while it
/// is disabled or paused. How it went shows in the delivery.
#[utoipa::path(post, path = "/core/webhooks/{id}/test", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses((status = 202, description = "The delivery", body = Delivery)))]
pub(crate) async fn test_webhook(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
) -> Result<(StatusCode, Json<Delivery>), ApiError> {
    let delivery = api.store.queue_webhook_test(&caller.organisation(), id).await?;
    Ok((StatusCode::ACCEPTED, Json(delivery)))
}

/// A webhook's deliveries, newest first: all that wait, and the last thousand that were taken and
/// that were given up.
#[utoipa::path(get, path = "/core/webhooks/{id}/deliveries", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The webhook"), ListDeliveries),
    responses((status = 200, description = "Deliveries", body = [Delivery])))]
pub(crate) async fn list_webhook_deliveries(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
    Params(query): Params<ListDeliveries>,
) -> Result<Response, ApiError> {
    let (scope, page) = (caller.organisation(), page(query.limit, query.cursor));
    let deliveries = api.store.webhook_deliveries(&scope, id, query.state, page).await?;
    Ok(reply(page, deliveries, |delivery| delivery.created_at))
}

/// One delivery with its event. Sensitive fields need `conversations:read_sensitive` and are absent
/// without it.
#[utoipa::path(get, path = "/core/webhooks/{id}/deliveries/{delivery_id}", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The webhook"),
        ("delivery_id" = DeliveryId, Path, description = "The delivery")),
    responses((status = 200, description = "The delivery", body = DeliveryDetail)))]
pub(crate) async fn get_webhook_delivery(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
    Id(delivery): Id<DeliveryId>,
) -> Result<Json<DeliveryDetail>, ApiError> {
    let mut detail = api.store.webhook_delivery(&caller.organisation(), id, delivery).await?;
    if !may_see_sensitive(&caller) {
        detail.event = detail.event.without_sensitive();
    }
    Ok(Json(detail))
}

/// Sends a delivery again that was taken or given up, with the same event id and all the time of a
/// new one.
#[utoipa::path(post, path = "/core/webhooks/{id}/deliveries/{delivery_id}/replay", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The webhook"),
        ("delivery_id" = DeliveryId, Path, description = "The delivery")),
    responses((status = 202, description = "The delivery", body = Delivery),
        (status = 409, description = "It is on its way", body = ErrorBody)))]
pub(crate) async fn replay_webhook_delivery(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
    Id(delivery): Id<DeliveryId>,
) -> Result<(StatusCode, Json<Delivery>), ApiError> {
    let scope = caller.organisation();
    let delivery = api.store.replay_webhook_delivery(&scope, id, delivery).await?;
    Ok((StatusCode::ACCEPTED, Json(delivery)))
}

/// Sends every delivery again that was given up: for a receiver that is back.
#[utoipa::path(post, path = "/core/webhooks/{id}/replay", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The webhook")),
    responses((status = 202, description = "How many are on their way again", body = Replayed)))]
pub(crate) async fn replay_dead_deliveries(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<WebhookId>,
) -> Result<(StatusCode, Json<Replayed>), ApiError> {
    let replayed = api.store.replay_dead_deliveries(&caller.organisation(), id).await?;
    Ok((StatusCode::ACCEPTED, Json(Replayed { replayed })))
}
