//! Lists of conversations.
//!
//! A page may have a thousand rows, and a row may have 200 KiB: what is large is not read with the others,
//! but after them, and only so much of it.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::conversations::from_row;
use super::rows::{and, and_holds, and_period, json_opt, paged, parsed, raw, to_word};
use super::sql::{self, Connection, QueryBuilder};
use super::{Store, StoreError};
use crate::credential::ScopedTo;
use crate::ids::{ConversationId, OrganisationId};
use crate::limits::CONVERSATIONS_PAGE_BYTES;
use crate::model::{Conversation, ConversationFilter, Page, contains_all};

/// Conversations with their agents' names, without what is large in a row, up to the WHERE clause.
const SELECT_LISTED: &str = "
    SELECT t.id, t.organization_id, t.direction, t.channel, t.status, t.user_id, t.agent_id,
        t.agent_version_id, t.agent_number, t.web_widget_id, t.trunk_id, t.trunk_call_id, t.duration,
        t.user_turn_count, t.end_reason, t.transfer, t.quality, t.summary, t.custom_metadata,
        t.recording_details, t.answered_at, t.ended_at, t.created_at, t.updated_at,
        CAST(NULL AS TEXT) AS initial_context, CAST(NULL AS TEXT) AS conversation,
        a.name AS agent_name
    FROM conversations t LEFT JOIN agents a ON a.id = t.agent_id";

/// Rows read at a time when a filter must look into JSON.
const JSON_SCAN_ROWS: u32 = 500;

/// What is large in a conversation, and left out of lists.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Large {
    /// What the agent was told beforehand.
    pub initial_context: Option<String>,
    /// The transcript.
    pub conversation: Option<Value>,
}

impl Store {
    /// The organisation's conversations, newest first, without what is [`Large`] in them.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn conversations(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &ConversationFilter,
        page: Page,
    ) -> Result<Vec<Conversation>, StoreError> {
        let mut tx = self.0.db.read().await?;
        let wanted = usize::try_from(page.limit.clamp(1, Page::MAX)).unwrap_or(usize::MAX);
        let scanned = match filter.custom_metadata {
            Some(_) => Page { limit: page.limit.max(JSON_SCAN_ROWS), ..page },
            None => page,
        };
        let (mut found, mut cursor) = (Vec::new(), scanned);
        loop {
            let batch = conversations_page(&mut tx, scope, filter, cursor).await?;
            let last = batch.last().map(|conversation| conversation.created_at);
            let is_end = batch.len() < usize::try_from(cursor.limit).unwrap_or(usize::MAX);
            found.extend(batch.into_iter().filter(|row| has_metadata(row, filter)));
            if is_end || found.len() >= wanted || last.is_none() {
                found.truncate(wanted);
                return Ok(found);
            }
            cursor.before = last;
        }
    }

    /// What is large in these conversations, one after the other for as long as it all fits
    /// [`CONVERSATIONS_PAGE_BYTES`]; of the others there is nothing.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn large_of(
        &self,
        scope: &ScopedTo<OrganisationId>,
        conversations: &[ConversationId],
    ) -> Result<HashMap<ConversationId, Large>, StoreError> {
        let mut tx = self.0.db.read().await?;
        let sizes = of_those(
            "SELECT id, CAST(coalesce(octet_length(initial_context), 0)
                 + coalesce(octet_length(conversation), 0) AS BIGINT) AS bytes
             FROM conversations WHERE organization_id = ",
            (scope, conversations),
        );
        let sizes = sizes.fetch_all(&mut tx).await?;
        let sizes: HashMap<ConversationId, i64> = sizes
            .iter()
            .map(|row| Ok((parsed(row, "id")?, raw(row, "bytes")?)))
            .collect::<Result<_, StoreError>>()?;
        let (mut left, mut found, mut large) =
            (CONVERSATIONS_PAGE_BYTES.value, HashMap::new(), Vec::new());
        for id in conversations {
            let bytes = sizes.get(id).map_or(0, |bytes| u64::try_from(*bytes).unwrap_or(u64::MAX));
            let Some(rest) = left.checked_sub(bytes) else { break };
            left = rest;
            found.insert(*id, Large::default());
            if bytes > 0 {
                large.push(*id);
            }
        }
        let columns = "SELECT id, initial_context, conversation FROM conversations
             WHERE organization_id = ";
        for row in of_those(columns, (scope, &large)).fetch_all(&mut tx).await? {
            let (initial_context, conversation) =
                (raw(&row, "initial_context")?, json_opt(&row, "conversation")?);
            found.insert(parsed(&row, "id")?, Large { initial_context, conversation });
        }
        Ok(found)
    }
}

/// A query about conversations, up to its organisation, for some of them alone.
fn of_those(
    sql: &'static str,
    (scope, conversations): (&ScopedTo<OrganisationId>, &[ConversationId]),
) -> sql::Query {
    let mut query = QueryBuilder::new(sql);
    query.push_bind(scope.organisation().to_string()).push(" AND id IN (NULL");
    for id in conversations {
        query.push(", ").push_bind(id.to_string());
    }
    query.push(")");
    query.build()
}

async fn conversations_page(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    filter: &ConversationFilter,
    page: Page,
) -> Result<Vec<Conversation>, StoreError> {
    let mut query = QueryBuilder::new(SELECT_LISTED);
    query.push(" WHERE t.organization_id = ").push_bind(scope.organisation().to_string());
    and(&mut query, "t.direction =", filter.direction.map(to_word).transpose()?);
    and(&mut query, "t.channel =", filter.channel.map(to_word).transpose()?);
    and(&mut query, "t.status =", filter.status.map(to_word).transpose()?);
    and_holds(&mut query, "lower(t.user_id)", filter.user_id.as_ref());
    and(&mut query, "t.agent_id =", filter.agent_id.map(|id| id.to_string()));
    and(&mut query, "t.agent_version_id =", filter.agent_version_id.map(|id| id.to_string()));
    and_holds(&mut query, "lower(t.agent_number)", filter.agent_number.as_ref());
    and(&mut query, "t.web_widget_id =", filter.web_widget_id.as_deref());
    and(&mut query, "t.trunk_id =", filter.trunk_id.map(|id| id.to_string()));
    and(&mut query, "t.duration >=", filter.duration_above);
    and(&mut query, "t.duration <=", filter.duration_below);
    and(&mut query, "t.user_turn_count >=", filter.user_turn_count_above);
    and(&mut query, "t.user_turn_count <=", filter.user_turn_count_below);
    and_metadata(&mut query, filter.custom_metadata.as_ref());
    and_period(&mut query, &filter.period);
    paged(&mut query, page);
    query.build().fetch_all(tx).await?.iter().map(from_row).collect()
}

/// Lets the database discard most rows by the texts wanted at the top level, which are stored as we
/// write them here; the whole comparison is ours.
fn and_metadata(query: &mut QueryBuilder, part: Option<&Map<String, Value>>) {
    for (key, value) in part.into_iter().flatten().filter(|(_, value)| value.is_string()) {
        let member = format!("{}:{value}", Value::from(key.as_str()));
        query.push(" AND instr(t.custom_metadata, ").push_bind(member).push(") > 0");
    }
}

fn has_metadata(conversation: &Conversation, filter: &ConversationFilter) -> bool {
    let Some(part) = &filter.custom_metadata else { return true };
    let whole = conversation.custom_metadata.as_ref().and_then(|value| value.as_object());
    whole.map_or(part.is_empty(), |whole| contains_all(whole, part))
}
