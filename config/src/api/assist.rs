//! `/core/agent-assist/{phone_number}`: a brief about somebody's newest call, for whoever takes it over.
//!
//! Most of what is in it is sensitive, so there is none without `conversations:read_sensitive`. A model
//! takes seconds, and so such requests have the same few places as those that wait for workflows; where
//! none is free, no model is there, or it fails, the brief is put together from the record instead.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;

use super::Api;
use super::error::ApiError;
use super::extract::path_parameter;
use super::table::Caller;
use crate::ids::OrganisationId;
use crate::model::{Brief, Conversation};
use crate::texts;

/// The other party in the path, as conversations have it in `user_id`; `+` may be written `%2B`.
pub(crate) struct OtherParty(String);

impl FromRequestParts<Api> for OtherParty {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let text = path_parameter(parts, api, "phone_number").await;
        text.map(Self).ok_or_else(|| ApiError::not_found("Conversation"))
    }
}

/// A brief about the newest conversation with this number: who it is, what it was about, what was said and
/// what could be done now. It is made for this request and not kept.
///
/// A language model writes it where the node has one. Otherwise, and when it fails or is too slow, the
/// brief is put together from the record and judges nothing; `source` tells which.
#[utoipa::path(get, path = "/core/agent-assist/{phone_number}", tag = "conversations",
    params(("phone_number" = String, Path,
        description = "The other party's number, as conversations have it in `user_id`")),
    responses((status = 200, description = "The brief", body = Brief)))]
pub(crate) async fn get_agent_assist(
    State(api): State<Api>,
    caller: Caller,
    OtherParty(user): OtherParty,
) -> Result<Json<Brief>, ApiError> {
    let scope = caller.organisation();
    let conversation = api.store.newest_conversation_with(&scope, &user).await?;
    let written = written(&api, scope.organisation(), &conversation).await;
    Ok(Json(written.unwrap_or_else(|| texts::assembled_brief(&conversation))))
}

/// What the model writes, if there is one that does, in so much time that the reply is not late.
async fn written(
    api: &Api,
    organisation: OrganisationId,
    conversation: &Conversation,
) -> Option<Brief> {
    let model = api.model.as_ref()?;
    let _place = api.place(organisation).ok()?;
    let patience = api.options.request_timeout / 4 * 3;
    tokio::select! {
        brief = texts::written_brief(model, conversation, patience) => brief
            .inspect_err(|error| tracing::warn!(%error, "a brief is put together instead"))
            .ok(),
        () = api.waiting.stopped() => None,
    }
}
