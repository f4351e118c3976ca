//! `/core/conversations`: the records of calls, less what the key may not see.
//!
//! Sensitive columns are left out, key and all, unless the key holds
//! `conversations:read_sensitive`; `conversations:manage` alone does not show them. Filtering by a
//! sensitive column would tell what is in it, so that needs the same scope.
//!
//! What is large is read for a list only if the reply has it, and only so much of it: a page that is cut
//! short would be the last one by the contract, so rows go without it instead, key and all.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Api;
use super::error::{ApiError, Violation};
use super::extract::{Body, Id, Params};
use super::page::{JsonObject, listing, reply};
use super::table::Caller;
use crate::clock::Timestamp;
use crate::credential::Scope;
use crate::ids::{AgentId, AgentVersionId, ConversationId, TrunkId};
use crate::limits::API_TRANSCRIPT_VALUES;
use crate::model::{
    Annotation, Channel, Conversation, ConversationFilter, ConversationStatus, Direction,
};
use crate::store::Large;

listing! {
    /// Filters of the list of conversations.
    ListConversations {
        /// Who started them.
        #[param(inline)]
        direction: Direction,
        /// What they were held over.
        #[param(inline)]
        channel: Channel,
        /// How far they have come.
        #[param(inline)]
        status: ConversationStatus,
        /// Part of the other party's number, whatever the case.
        user_id: String,
        /// With this agent.
        agent_id: AgentId,
        /// With this version.
        agent_version_id: AgentVersionId,
        /// Part of the agent side's number, whatever the case.
        agent_number: String,
        /// Through this widget.
        web_widget_id: String,
        /// Over this trunk.
        trunk_id: TrunkId,
        /// At least this long, in seconds.
        duration_above: i64,
        /// At most this long, in seconds.
        duration_below: i64,
        /// At least this many turns.
        user_turn_count_above: i64,
        /// At most this many turns.
        user_turn_count_below: i64,
        /// A JSON object that the custom metadata must contain; needs `conversations:read_sensitive`.
        #[param(value_type = Option<String>)]
        custom_metadata: JsonObject,
        /// Names of the fields to return, separated by commas.
        fields: String,
    }
}

impl ListConversations {
    fn into_filter(self) -> ConversationFilter {
        // A plus that was not escaped arrives as a space.
        let number = |text: Option<String>| text.map(|text| text.replace(' ', "+"));
        ConversationFilter {
            period: self.period(),
            direction: self.direction,
            channel: self.channel,
            status: self.status,
            user_id: number(self.user_id),
            agent_id: self.agent_id,
            agent_version_id: self.agent_version_id,
            agent_number: number(self.agent_number),
            web_widget_id: self.web_widget_id,
            trunk_id: self.trunk_id,
            duration_above: self.duration_above,
            duration_below: self.duration_below,
            user_turn_count_above: self.user_turn_count_above,
            user_turn_count_below: self.user_turn_count_below,
            custom_metadata: self.custom_metadata.map(|object| object.0),
        }
    }
}

/// What one conversation is asked with.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct OneConversation {
    /// Names of the fields to return, separated by commas.
    fields: Option<String>,
}

/// Which fields of a conversation a reply has.
#[derive(Debug)]
pub(super) struct View {
    sensitive: bool,
    fields: Option<Vec<String>>,
}

impl View {
    /// What the key may see and the query asks for; a field that no conversation has is 422.
    pub(super) fn new(caller: &Caller, fields: Option<&str>) -> Result<Self, ApiError> {
        let sensitive = caller.holds(Scope::ConversationsReadSensitive);
        let Some(list) = fields else { return Ok(Self { sensitive, fields: None }) };
        let wanted: Vec<&str> =
            list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let known = known_fields();
        let unknown: Vec<Violation> = wanted
            .iter()
            .filter(|name| !known.contains_key(**name))
            .map(|_| Violation::query("fields", "value_error", "Names an unknown field"))
            .collect();
        if !unknown.is_empty() {
            return Err(ApiError::Violations(unknown));
        }
        let fields = wanted.into_iter().map(str::to_owned).collect();
        Ok(Self { sensitive, fields: Some(fields) })
    }

    /// Whether a reply has any of these fields.
    fn shows(&self, names: &[&str]) -> bool {
        let wanted = |name: &&str| {
            let hidden = !self.sensitive && Conversation::SENSITIVE.contains(name);
            !hidden
                && self.fields.as_ref().is_none_or(|fields| fields.iter().any(|one| one == name))
        };
        names.iter().any(wanted)
    }

    pub(super) fn show(&self, conversation: &Conversation) -> Result<Map<String, Value>, ApiError> {
        let value = serde_json::to_value(conversation);
        let Ok(Value::Object(mut entries)) = value else {
            return Err(ApiError::Bug("a conversation is no object".to_owned()));
        };
        entries.retain(|name, _| self.shows(&[name.as_str()]));
        Ok(entries)
    }

    /// The same of a row of a list, with what is large in it if that was read.
    fn show_listed(
        &self,
        row: Conversation,
        large: Option<Large>,
    ) -> Result<Map<String, Value>, ApiError> {
        let Some(Large { initial_context, conversation }) = large else {
            let mut entries = self.show(&row)?;
            entries.retain(|name, _| !Conversation::LARGE.contains(&name.as_str()));
            return Ok(entries);
        };
        self.show(&Conversation { initial_context, conversation, ..row })
    }
}

/// The names of a conversation's fields, from the document.
fn known_fields() -> Map<String, Value> {
    let fields = super::openapi().pointer("/components/schemas/Conversation/properties");
    fields.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The organization's conversations, newest first. Sensitive fields need
/// `conversations:read_sensitive` and are absent without it.
///
/// `conversation` and `initial_context` take at most 8 MiB of one page, beginning with the newest row, and
/// are absent from the rows beyond. A conversation that is asked for alone has them.
#[utoipa::path(get, path = "/core/conversations", tag = "conversations",
    params(ListConversations),
    responses((status = 200, description = "Conversations", body = [Conversation])))]
pub(crate) async fn list_conversations(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListConversations>,
) -> Result<Response, ApiError> {
    let page = query.page();
    let view = View::new(&caller, query.fields.as_deref())?;
    if query.custom_metadata.is_some() && !view.sensitive {
        let why = "Filtering by custom_metadata requires conversations:read_sensitive";
        return Err(ApiError::Forbidden(why.to_owned()));
    }
    let filter = query.into_filter();
    let found = api.store.conversations(&caller.organisation(), &filter, page).await?;
    let mut large = large_of(&api, &caller, (&view, &found)).await?;
    let shown = found.into_iter().map(|row| {
        let (at, own) = (row.created_at, large.remove(&row.id));
        Ok((at, view.show_listed(row, own)?))
    });
    Ok(reply_shown(page, shown.collect::<Result<Vec<_>, ApiError>>()?))
}

/// What is large in these conversations, if the reply has any of it.
async fn large_of(
    api: &Api,
    caller: &Caller,
    (view, found): (&View, &[Conversation]),
) -> Result<HashMap<ConversationId, Large>, ApiError> {
    if !view.shows(Conversation::LARGE) {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = found.iter().map(|conversation| conversation.id).collect();
    Ok(api.store.large_of(&caller.organisation(), &ids).await?)
}

/// One conversation. Sensitive fields need `conversations:read_sensitive` and are absent without it.
#[utoipa::path(get, path = "/core/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = ConversationId, Path, description = "The conversation"),
        OneConversation),
    responses((status = 200, description = "The conversation", body = Conversation)))]
pub(crate) async fn get_conversation(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ConversationId>,
    Params(query): Params<OneConversation>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let view = View::new(&caller, query.fields.as_deref())?;
    let conversation = api.store.conversation(&caller.organisation(), id).await?;
    Ok(Json(view.show(&conversation)?))
}

/// Writes down what was said in a conversation and what it was about: an agent knows it, the gateway does
/// not. Only what is sent changes, while the conversation lasts or after its end. `user_turn_count` is
/// counted from the messages of the other party. An extension of the contract.
///
/// The transcript has the contract's shape: items with a `type`, messages with `role` and `content`, and
/// whatever else is known of an item. The reply shows it to keys with `conversations:read_sensitive`.
#[utoipa::path(patch, path = "/core/conversations/{conversation_id}", tag = "conversations",
    request_body = Annotation,
    params(("conversation_id" = ConversationId, Path, description = "The conversation")),
    responses((status = 200, description = "The conversation", body = Conversation)))]
pub(crate) async fn annotate_conversation(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ConversationId>,
    Body(annotation): Body<Annotation, { API_TRANSCRIPT_VALUES.value }>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let scope = caller.organisation();
    let conversation = api.store.annotate_conversation(&scope, (id, &annotation)).await?;
    Ok(Json(View::new(&caller, None)?.show(&conversation)?))
}

/// A projected item no longer has its moment, so it travels beside it.
fn reply_shown(page: crate::model::Page, shown: Vec<(Timestamp, Map<String, Value>)>) -> Response {
    let (moments, items): (Vec<_>, Vec<_>) = shown.into_iter().unzip();
    let last = moments.last().copied();
    reply(page, items, move |_| last.unwrap_or_default())
}
