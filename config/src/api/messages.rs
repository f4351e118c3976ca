//! `/core/conversations/{conversation_id}`: what can be asked of text conversations and of those in a
//! room.
//!
//! Conversations here are telephone calls, so the contract has one answer for each of these: 409 for
//! what takes text, 404 for the room that is not there. They are answered, and not left out, so that a
//! client of the contract learns what is the matter with this conversation.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id};
use super::table::Caller;
use crate::ids::ConversationId;
use crate::model::{Channel, Conversation, ConversationStatus, Invalid};

/// How a reply may look.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Interactivity {
    /// Text only.
    #[default]
    Plain,
    /// Text and widgets.
    Rich,
}

/// A message of the other party.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewMessage {
    /// What it says.
    #[schema(min_length = 1)]
    text: String,
    /// How the reply may look.
    #[serde(default, rename = "interactivity")]
    _interactivity: Interactivity,
}

async fn find(api: &Api, caller: &Caller, id: ConversationId) -> Result<Conversation, ApiError> {
    Ok(api.store.conversation(&caller.organisation(), id).await?)
}

/// No conversation here takes text, whatever its channel: none is served but the telephone.
fn refuse_text(conversation: &Conversation) -> ApiError {
    let why = match conversation.channel {
        Channel::Text => "Text conversations are not served here",
        Channel::Telephone | Channel::Webrtc | Channel::Email => {
            "The conversation is not a text conversation"
        }
    };
    ApiError::Conflict(why.to_owned())
}

/// Says something in a text conversation. Telephone calls are none: 409.
#[utoipa::path(post, path = "/core/conversations/{conversation_id}/messages", tag = "conversations",
    request_body = NewMessage,
    params(("conversation_id" = ConversationId, Path, description = "The conversation")),
    responses((status = 409, description = "It is not a text conversation", body = ErrorBody)))]
pub(crate) async fn send_conversation_message(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ConversationId>,
    Body(message): Body<NewMessage>,
) -> Result<(), ApiError> {
    if message.text.trim().is_empty() {
        return Err(Invalid::new("text", "must not be empty").into());
    }
    Err(refuse_text(&find(&api, &caller, id).await?))
}

/// Ends a text conversation. Telephone calls are none: 409; `hangup` ends them.
#[utoipa::path(post, path = "/core/conversations/{conversation_id}/end", tag = "conversations",
    params(("conversation_id" = ConversationId, Path, description = "The conversation")),
    responses((status = 409, description = "It is not a text conversation", body = ErrorBody)))]
pub(crate) async fn end_conversation(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ConversationId>,
) -> Result<(), ApiError> {
    Err(refuse_text(&find(&api, &caller, id).await?))
}

/// A token to listen in on a conversation's room. Telephone calls have none: 404, or 409 for one that
/// is not active.
#[utoipa::path(post, path = "/core/conversations/{conversation_id}/listener-token",
    tag = "conversations",
    params(("conversation_id" = ConversationId, Path, description = "The conversation")),
    responses((status = 409, description = "It is not active", body = ErrorBody)))]
pub(crate) async fn create_listener_token(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ConversationId>,
) -> Result<(), ApiError> {
    let conversation = find(&api, &caller, id).await?;
    let status = conversation.status;
    if status.is_terminal() || status == ConversationStatus::TokenCreated {
        return Err(ApiError::Conflict("The conversation is not active".to_owned()));
    }
    Err(ApiError::NotFound("The conversation has no room".to_owned()))
}
