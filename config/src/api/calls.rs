//! `/core/conversations`: calls out, hanging up, and handing on.
//!
//! ```text
//!  request ─► checked ─► number and agent chosen ─► record: triggered ─► gateway's queue ─► 202
//!             422        404, 400                   same id: 202
//!                            no place: 503
//! ```
//!
//! A record is written before the gateway knows of the call, so that there is no call without one, and
//! after it has a place there, so that who is told to come back finds no call under its id; from then
//! on nothing depends on the client still waiting. What the gateway does takes time and
//! shows in the record.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::agent_config;
use super::conversations::View;
use super::error::{ApiError, ErrorBody, Violation};
use super::extract::{Body, Id};
use super::table::Caller;
use crate::briefing::AgentWorkflows;
use crate::calls::{DialRefused, DialRequest, TransferRefused, TransferRequest};
use crate::credential::ScopedTo;
use crate::dial::{self, Choice, InlineAgent, Refused, Speaker, Wanted};
use crate::ids::{ConversationId, OrganisationId};
use crate::model::{
    Conversation, Direction, E164, NewConversation, NewTransfer, Runtime, Transfer, TransferStatus,
    VersionRef,
};
use crate::store::StoreError;

const DRAINING: &str = "This node is stopping and takes no new calls";
const QUEUE_FULL: &str = "Too many calls are waiting already";

/// A conversation that something was asked of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConversationReply {
    /// As it is now, less what the key may not see.
    #[schema(value_type = Conversation)]
    conversation: Map<String, Value>,
}

impl ConversationReply {
    fn new(view: &View, conversation: &Conversation) -> Result<Json<Self>, ApiError> {
        Ok(Json(Self { conversation: view.show(conversation)? }))
    }
}

type Reply = Result<(StatusCode, Json<ConversationReply>), ApiError>;

/// Calls a number. The call waits for its turn; how it goes shows in the conversation. With an `id`
/// of the client's choosing, asking again returns the conversation that is there.
#[utoipa::path(post, path = "/core/conversations", tag = "conversations",
    request_body = NewConversation,
    responses((status = 202, description = "The conversation", body = ConversationReply),
        (status = 400, description = "There is no agent or no number to call with",
            body = ErrorBody),
        (status = 404, description = "No such agent or version", body = ErrorBody),
        (status = 409, description = "The id is taken", body = ErrorBody)))]
pub(crate) async fn create_conversation(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewConversation>,
) -> Reply {
    place(api, caller, new).await
}

/// Calls a number for a campaign: `POST /core/conversations` under a scope of its own, which no role has,
/// so that a campaign service needs no key that changes or ends other calls.
///
/// The contract names this route and its scope, and leaves its body open; body and reply are those of
/// `POST /core/conversations`.
#[utoipa::path(post, path = "/core/conversations/dial", tag = "conversations",
    request_body = NewConversation,
    responses((status = 202, description = "The conversation", body = ConversationReply),
        (status = 400, description = "There is no agent or no number to call with",
            body = ErrorBody),
        (status = 404, description = "No such agent or version", body = ErrorBody),
        (status = 409, description = "The id is taken", body = ErrorBody)))]
pub(crate) async fn dial_conversation(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewConversation>,
) -> Reply {
    place(api, caller, new).await
}

async fn place(api: Api, caller: Caller, new: NewConversation) -> Reply {
    let (scope, view) = (caller.organisation(), View::new(&caller, None)?);
    let id = wanted_id(&new)?;
    let callee = new.validate()?;
    let mut wanted = wanted(&api, &new)?;
    if let Some(config) = &new.agent_config {
        let place = ("agent_config", config);
        agent_config::check_workflows(&api, &scope, place).await?;
    }
    if let Speaker::Inline(agent) = &mut wanted.speaker {
        api.store.find_workflows(&scope, Arc::make_mut(&mut agent.workflows)).await?;
    }
    if let Some(id) = id
        && let Some(before) = begun_before(&api, &scope, id).await?
    {
        if before.direction != Direction::Outbound {
            return Err(StoreError::Conflict("id is already taken".to_owned()).into());
        }
        return Ok((StatusCode::ACCEPTED, ConversationReply::new(&view, &before)?));
    }
    if api.calls.draining() {
        return Err(ApiError::Busy(DRAINING));
    }
    let choice = dial::choose(&api.store.snapshot().load(), scope.organisation(), &wanted);
    let choice = match choice {
        Ok(choice) => choice,
        Err(refused) => return Err(explain(&api, &scope, &wanted.speaker, refused).await),
    };
    let row = Conversation {
        id: id.unwrap_or_else(ConversationId::random),
        user_id: callee.to_string(),
        agent_id: choice.agent,
        agent_version_id: choice.version,
        agent_number: Some(choice.number.to_string()),
        trunk_id: Some(choice.trunk),
        initial_context: new.initial_context,
        custom_metadata: new.custom_metadata.map(Value::Object),
        ..Conversation::begun(scope.organisation(), Direction::Outbound, api.store.now())
    };
    // A client that goes away must not leave a record of a call that nobody places.
    let begun = tokio::spawn(begin(api, scope, row, (choice, callee))).await;
    let begun = begun.map_err(|_| ApiError::Bug("a call could not be begun".to_owned()))??;
    Ok((StatusCode::ACCEPTED, ConversationReply::new(&view, &begun)?))
}

/// Takes a place, writes the record and hands the call to the gateway.
async fn begin(
    api: Api,
    scope: ScopedTo<OrganisationId>,
    row: Conversation,
    (choice, callee): (Choice, E164),
) -> Result<Conversation, ApiError> {
    let place =
        api.calls.reserve(scope.organisation(), row.id).map_err(|refused| match refused {
            DialRefused::QueueFull => ApiError::Busy(QUEUE_FULL),
            DialRefused::Draining => ApiError::Busy(DRAINING),
        })?;
    let opened = api.store.open_conversation(&scope, row).await?;
    if !opened.is_new {
        return Ok(opened.conversation);
    }
    place.dial(DialRequest {
        conversation: Box::new(opened.conversation.clone()),
        organisation: scope.organisation(),
        number: choice.number,
        callee,
        trunk: choice.trunk,
        agent: choice.agent,
        version: choice.version,
        runtime: choice.runtime,
        workflows: choice.workflows,
    });
    Ok(opened.conversation)
}

fn wanted_id(new: &NewConversation) -> Result<Option<ConversationId>, ApiError> {
    match (new.id, new.conversation_id) {
        (Some(one), Some(other)) if one != other => {
            Err(ApiError::Unprocessable("id and conversation_id are not the same".to_owned()))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// Who is to talk and from which number, as far as the request says.
fn wanted(api: &Api, new: &NewConversation) -> Result<Wanted, ApiError> {
    let refuse = |why: &str| Err(ApiError::Unprocessable(why.to_owned()));
    if new.version.is_some() && new.agent_id.is_none() {
        return refuse("version needs agent_id");
    }
    let speaker = match (new.agent_id, new.agent_version_id, &new.agent_config) {
        (None, None, None) => Speaker::Slot,
        (Some(agent), None, None) => match new.version {
            Some(VersionRef::Number(number)) => Speaker::Numbered(agent, number),
            Some(VersionRef::Latest) | None => Speaker::Agent(agent),
        },
        (None, Some(version), None) => Speaker::Version(version),
        (None, None, Some(config)) => Speaker::Inline(Box::new(inline(api, config)?)),
        _ => return refuse("Give at most one of agent_id, agent_version_id and agent_config"),
    };
    if new.agent_number.is_none() && matches!(speaker, Speaker::Slot | Speaker::Inline(_)) {
        return refuse("Give at least one of agent_number, agent_id and agent_version_id");
    }
    Ok(Wanted { speaker, number: new.agent_number.clone() })
}

/// The runtime and workflows of an agent that exists for this call only.
fn inline(api: &Api, config: &Value) -> Result<InlineAgent, ApiError> {
    const FIELD: &str = "agent_config";
    let refuse = |path: &str, message: String| {
        let path = path.split('.').skip(1).map(Value::from);
        let loc: Vec<Value> = ["body", FIELD].map(Value::from).into_iter().chain(path).collect();
        ApiError::Violations(vec![Violation::new(&loc, "value_error", message)])
    };
    agent_config::check(FIELD, config)?;
    agent_config::check_address(FIELD, config, api.address_rules())?;
    let runtime = Runtime::parse(config).map_err(|why| refuse(why.field, why.message))?;
    match &runtime {
        Some(Runtime::Sip(agent)) if agent.lacks_password() => {
            let message = "must be given with auth_username".to_owned();
            Err(refuse("config.runtime.auth_password", message))
        }
        _ => {
            let workflows = Arc::new(AgentWorkflows::read(config));
            Ok(InlineAgent { runtime, workflows })
        }
    }
}

async fn begun_before(
    api: &Api,
    scope: &ScopedTo<OrganisationId>,
    id: ConversationId,
) -> Result<Option<Conversation>, ApiError> {
    match api.store.conversation(scope, id).await {
        Ok(conversation) => Ok(Some(conversation)),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// 400 or 404 for what cannot be dialled with. Drafts are not in the snapshot, so whether an
/// unpublished version is there at all is for the store to say.
async fn explain(
    api: &Api,
    scope: &ScopedTo<OrganisationId>,
    speaker: &Speaker,
    refused: Refused,
) -> ApiError {
    let found = match (refused, speaker) {
        (Refused::UnknownAgent, _) => return ApiError::not_found("Agent"),
        (Refused::UnknownVersion, Speaker::Version(id)) => {
            api.store.version_with_id(scope, *id).await
        }
        (Refused::UnknownVersion, Speaker::Numbered(agent, number)) => {
            api.store.version(scope, *agent, VersionRef::Number(*number)).await
        }
        _ => return ApiError::Refused(refused.to_string()),
    };
    match found {
        Ok(_) => ApiError::Refused(refused.to_string()),
        Err(error) => error.into(),
    }
}

/// Ends a call. One that waits or rings becomes `cancelled`, one that was answered `completed`; one
/// that is over stays as it is. An extension of the contract.
#[utoipa::path(post, path = "/core/conversations/{conversation_id}/hangup", tag = "conversations",
    params(("conversation_id" = ConversationId, Path, description = "The conversation")),
    responses((status = 200, description = "It was over already", body = ConversationReply),
        (status = 202, description = "It is being ended", body = ConversationReply),
        (status = 409, description = "It is not on this node", body = ErrorBody)))]
pub(crate) async fn hang_up_conversation(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ConversationId>,
) -> Reply {
    let (scope, view) = (caller.organisation(), View::new(&caller, None)?);
    let conversation = api.store.conversation(&scope, id).await?;
    // A call that was handed on lives, though its conversation is over: it is asked first.
    if api.calls.hang_up(scope.organisation(), id).is_ok() {
        api.store.note_act(&scope, "conversation.hangup", id).await;
        return Ok((StatusCode::ACCEPTED, ConversationReply::new(&view, &conversation)?));
    }
    // It may have ended since it was read.
    let conversation = api.store.conversation(&scope, id).await?;
    if conversation.status.is_terminal() {
        return Ok((StatusCode::OK, ConversationReply::new(&view, &conversation)?));
    }
    Err(ApiError::Conflict("The call is not on this node, or has just ended".to_owned()))
}

/// Hands a call to another number, without the agent. How it comes out shows in the conversation's
/// `transfer`; when it fails, the other party stays with the agent. An extension of the contract.
#[utoipa::path(post, path = "/core/conversations/{conversation_id}/transfer", tag = "conversations",
    request_body = NewTransfer,
    params(("conversation_id" = ConversationId, Path, description = "The conversation")),
    responses((status = 202, description = "It is being handed on", body = ConversationReply),
        (status = 400, description = "Its trunk has no outbound_config", body = ErrorBody),
        (status = 409, description = "It is not in progress, or is being handed on already",
            body = ErrorBody)))]
pub(crate) async fn transfer_conversation(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ConversationId>,
    Body(new): Body<NewTransfer>,
) -> Reply {
    const NO_WAY_OUT: &str = "The call's trunk has no outbound_config";
    let (scope, view) = (caller.organisation(), View::new(&caller, None)?);
    let mut conversation = api.store.conversation(&scope, id).await?;
    if conversation.status.is_terminal() {
        return Err(ApiError::Conflict(TransferRefused::NotActive.to_string()));
    }
    let snapshot = api.store.snapshot().load();
    let trunk = conversation.trunk_id.and_then(|trunk| snapshot.trunk(trunk));
    let Some(way_out) = trunk.and_then(|trunk| trunk.outbound.as_ref()) else {
        return Err(ApiError::Refused(NO_WAY_OUT.to_owned()));
    };
    let request = TransferRequest {
        transfer_number: new.transfer_number.clone(),
        displayed_number: new.displayed_number,
    };
    match api.calls.transfer(scope.organisation(), id, request) {
        Ok(()) => {}
        Err(TransferRefused::NoOutbound) => return Err(ApiError::Refused(NO_WAY_OUT.to_owned())),
        Err(why) => return Err(ApiError::Conflict(why.to_string())),
    }
    api.store.note_act(&scope, "conversation.transfer", id).await;
    // The record will say the same in a moment: the gateway writes it.
    conversation.transfer = Some(Transfer {
        status: TransferStatus::Pending,
        transfer_number: new.transfer_number,
        displayed_number: new.displayed_number,
        mode: way_out.config.transfer_mode,
        sip_code: None,
        at: api.store.now(),
    });
    Ok((StatusCode::ACCEPTED, ConversationReply::new(&view, &conversation)?))
}
