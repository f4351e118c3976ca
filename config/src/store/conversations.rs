//! Verbs on conversations. Calls write them through the [journal](crate::journal), never directly.

use serde_json::{Map, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::database::Database;
use super::rows::{
    and, and_holds, and_period, free_stamp, free_stamp_in, json_opt, paged, parsed, parsed_opt,
    raw, time, time_opt, to_json, to_json_opt, to_word, word,
};
use super::{After, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{ConversationId, OrganisationId};
use crate::model::{
    AgentName, Conversation, ConversationChange, ConversationClose, ConversationFilter,
    ConversationStatus, EndReason, Page, contains_all,
};

const FREE_STAMP: &str = free_stamp_in!("conversations");

/// Conversations with their agents' names, up to the WHERE clause.
const SELECT: &str = "
    SELECT t.*, a.name AS agent_name
    FROM conversations t LEFT JOIN agents a ON a.id = t.agent_id";

/// Rows read at a time when a filter must look into JSON.
const JSON_SCAN_ROWS: u32 = 500;

/// A conversation that was to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// As it is stored.
    pub conversation: Conversation,
    /// Whether it began now; otherwise one with its id was there, and nothing changed.
    pub is_new: bool,
}

impl Store {
    /// Records that a conversation began. If there is one with this id already, returns that one and
    /// changes nothing: creation by a client's own id is idempotent.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the id is that of another organisation's conversation.
    pub async fn open_conversation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        mut conversation: Conversation,
    ) -> Result<Opened, StoreError> {
        conversation.organization_id = scope.organisation();
        let mut tx = self.0.db.write().await?;
        let is_new = self.insert_conversation(&mut tx, &conversation).await?;
        let stored = load(&mut tx, scope, conversation.id).await.map_err(|error| match error {
            StoreError::NotFound(_) => StoreError::Conflict("id is already taken".to_owned()),
            error => error,
        })?;
        self.commit(tx, After::default()).await?;
        Ok(Opened { conversation: stored, is_new })
    }

    /// Records that a conversation moved on, if that is forward.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such conversation.
    pub async fn change_conversation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        change: &ConversationChange,
    ) -> Result<Conversation, StoreError> {
        let mut tx = self.0.db.write().await?;
        load(&mut tx, scope, change.id).await?;
        apply_change(&mut tx, change).await?;
        let stored = load(&mut tx, scope, change.id).await?;
        self.commit(tx, After::default()).await?;
        Ok(stored)
    }

    /// Records that a conversation ended, if it had not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such conversation.
    pub async fn close_conversation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        close: &ConversationClose,
    ) -> Result<Conversation, StoreError> {
        let mut tx = self.0.db.write().await?;
        load(&mut tx, scope, close.id).await?;
        apply_close(&mut tx, close).await?;
        let stored = load(&mut tx, scope, close.id).await?;
        self.commit(tx, After::default()).await?;
        Ok(stored)
    }

    /// One conversation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such conversation.
    pub async fn conversation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ConversationId,
    ) -> Result<Conversation, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope, id).await
    }

    /// The organisation's conversations, newest first.
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

    /// Closes the conversations that this node left open when it died, and says how many. Each
    /// counts as failed, ended by the gateway, with `gateway_crash`. Those that began since the store
    /// was opened are none of them.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn close_left_open(&self) -> Result<u64, StoreError> {
        let mut tx = self.0.db.write().await?;
        let sql = format!(
            "UPDATE conversations SET status = 'failed', end_reason = ?1, ended_at = ?2,
                 updated_at = ?2, transfer = {TRANSFER_SETTLED}
             WHERE node = ?3 AND rowid <= ?4
               AND status IN ('token_created', 'triggered', 'ringing', 'in_progress')"
        );
        let done = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(to_json(&EndReason::gateway_crash())?)
            .bind(self.now().micros())
            .bind(&self.0.options.node)
            .bind(self.0.found_conversations)
            .execute(&mut *tx)
            .await?;
        self.commit(tx, After::default()).await?;
        Ok(done.rows_affected())
    }

    /// Adds a row, unless there is one with its id; says which.
    pub(super) async fn insert_conversation(
        &self,
        tx: &mut SqliteConnection,
        row: &Conversation,
    ) -> Result<bool, StoreError> {
        let created_at = free_stamp(tx, FREE_STAMP, row.created_at).await?;
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO conversations VALUES (");
        let mut values = query.separated(", ");
        values
            .push_bind(row.id.to_string())
            .push_bind(row.organization_id.to_string())
            .push_bind(&self.0.options.node)
            .push_bind(to_word(row.direction)?)
            .push_bind(to_word(row.channel)?)
            .push_bind(to_word(row.status)?)
            .push_bind(&row.user_id)
            .push_bind(row.agent_id.map(|id| id.to_string()))
            .push_bind(row.agent_version_id.map(|id| id.to_string()))
            .push_bind(&row.agent_number)
            .push_bind(&row.web_widget_id)
            .push_bind(row.trunk_id.map(|id| id.to_string()))
            .push_bind(&row.trunk_call_id)
            .push_bind(row.duration)
            .push_bind(row.user_turn_count)
            .push_bind(to_json_opt(row.end_reason.as_ref())?)
            .push_bind(to_json_opt(row.quality.as_ref())?)
            .push_bind(&row.summary)
            .push_bind(&row.initial_context)
            .push_bind(to_json_opt(row.custom_metadata.as_ref())?)
            .push_bind(to_json_opt(row.conversation.as_ref())?)
            .push_bind(to_json_opt(row.recording_details.as_ref())?)
            .push_bind(row.answered_at.map(Timestamp::micros))
            .push_bind(row.ended_at.map(Timestamp::micros))
            .push_bind(created_at.micros())
            .push_bind(row.updated_at.max(created_at).micros())
            .push_bind(to_json_opt(row.transfer.as_ref())?);
        query.push(") ON CONFLICT (id) DO NOTHING");
        let done = query.build().execute(tx).await?;
        Ok(done.rows_affected() > 0)
    }
}

/// What a transfer that nobody will finish came to.
const TRANSFER_SETTLED: &str = "CASE transfer ->> 'status' WHEN 'pending'
    THEN json_set(transfer, '$.status', 'failed') ELSE transfer END";

/// Moves a conversation forward and adds what is known; its status never moves backward, and what is
/// over stays as it is.
pub(super) async fn apply_change(
    tx: &mut SqliteConnection,
    change: &ConversationChange,
) -> Result<(), StoreError> {
    let Some(present) = status_of(tx, change.id).await? else { return Ok(()) };
    if change.status.is_terminal() || present.is_terminal() {
        return Ok(());
    }
    let status = if present.may_become(change.status) { change.status } else { present };
    sqlx::query(
        "UPDATE conversations SET status = ?, answered_at = coalesce(answered_at, ?),
             trunk_call_id = coalesce(?, trunk_call_id), transfer = coalesce(?, transfer),
             updated_at = max(updated_at, ?)
         WHERE id = ?",
    )
    .bind(to_word(status)?)
    .bind(change.answered_at.map(Timestamp::micros))
    .bind(change.trunk_call_id.as_deref())
    .bind(to_json_opt(change.transfer.as_ref())?)
    .bind(change.at.micros())
    .bind(change.id.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends a conversation; the second end does nothing.
pub(super) async fn apply_close(
    tx: &mut SqliteConnection,
    close: &ConversationClose,
) -> Result<(), StoreError> {
    let Some(status) = status_of(tx, close.id).await? else { return Ok(()) };
    if !close.status.is_terminal() || !status.may_become(close.status) {
        return Ok(());
    }
    let sql = format!(
        "UPDATE conversations SET status = ?, end_reason = ?, duration = ?,
             transfer = coalesce(?, {TRANSFER_SETTLED}), quality = coalesce(?, quality),
             ended_at = ?, updated_at = max(updated_at, ?)
         WHERE id = ?"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(to_word(close.status)?)
        .bind(to_json(&close.end_reason)?)
        .bind(close.duration_s)
        .bind(to_json_opt(close.transfer.as_ref())?)
        .bind(to_json_opt(close.quality.as_ref())?)
        .bind(close.closed_at.micros())
        .bind(close.closed_at.micros())
        .bind(close.id.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// The last conversation there is, by the order in which they were written.
pub(super) async fn last_row(db: &Database) -> Result<i64, StoreError> {
    let mut tx = db.read().await?;
    let sql = "SELECT coalesce(max(rowid), 0) FROM conversations";
    Ok(sqlx::query_scalar(sql).fetch_one(&mut *tx).await?)
}

async fn status_of(
    tx: &mut SqliteConnection,
    id: ConversationId,
) -> Result<Option<ConversationStatus>, StoreError> {
    let row = sqlx::query("SELECT status FROM conversations WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(|row| word(row, "status")).transpose()
}

async fn load(
    tx: &mut SqliteConnection,
    scope: &ScopedTo<OrganisationId>,
    id: ConversationId,
) -> Result<Conversation, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" WHERE t.organization_id = ").push_bind(scope.organisation().to_string());
    query.push(" AND t.id = ").push_bind(id.to_string());
    let row = query.build().fetch_optional(tx).await?;
    from_row(&row.ok_or_else(|| StoreError::not_found("Conversation"))?)
}

async fn conversations_page(
    tx: &mut SqliteConnection,
    scope: &ScopedTo<OrganisationId>,
    filter: &ConversationFilter,
    page: Page,
) -> Result<Vec<Conversation>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
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

/// Lets the database discard most rows by the texts wanted at the top level; the whole comparison
/// is ours.
fn and_metadata(query: &mut QueryBuilder<Sqlite>, part: Option<&Map<String, Value>>) {
    let texts = part.into_iter().flatten().filter_map(|(key, value)| Some((key, value.as_str()?)));
    for (key, text) in texts {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(t.custom_metadata) WHERE key = ");
        query.push_bind(key.clone()).push(" AND atom = ").push_bind(text.to_owned()).push(")");
    }
}

fn has_metadata(conversation: &Conversation, filter: &ConversationFilter) -> bool {
    let Some(part) = &filter.custom_metadata else { return true };
    let whole = conversation.custom_metadata.as_ref().and_then(|value| value.as_object());
    whole.map_or(part.is_empty(), |whole| contains_all(whole, part))
}

fn from_row(row: &SqliteRow) -> Result<Conversation, StoreError> {
    let agent_id = parsed_opt(row, "agent_id")?;
    let agent_name: Option<String> = raw(row, "agent_name")?;
    Ok(Conversation {
        id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        direction: word(row, "direction")?,
        channel: word(row, "channel")?,
        status: word(row, "status")?,
        user_id: raw(row, "user_id")?,
        agent_id,
        agent_version_id: parsed_opt(row, "agent_version_id")?,
        agent_number: raw(row, "agent_number")?,
        web_widget_id: raw(row, "web_widget_id")?,
        trunk_id: parsed_opt(row, "trunk_id")?,
        trunk_call_id: raw(row, "trunk_call_id")?,
        duration: raw(row, "duration")?,
        user_turn_count: raw(row, "user_turn_count")?,
        agent: agent_id.zip(agent_name).map(|(id, name)| AgentName { id, name }),
        end_reason: json_opt(row, "end_reason")?,
        transfer: json_opt(row, "transfer")?,
        quality: json_opt(row, "quality")?,
        summary: raw(row, "summary")?,
        initial_context: raw(row, "initial_context")?,
        custom_metadata: json_opt(row, "custom_metadata")?,
        conversation: json_opt(row, "conversation")?,
        recording_details: json_opt(row, "recording_details")?,
        answered_at: time_opt(row, "answered_at")?,
        ended_at: time_opt(row, "ended_at")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
