//! Verbs on conversations. Calls write them through the [journal](crate::journal), never directly.

use std::sync::PoisonError;

use super::database::Database;
use super::events::{News, Teller, telling};
use super::post_runs::PostActions;
use super::rows::{
    free_stamp_in, json_opt, parsed, parsed_opt, raw, time, time_opt, to_json, to_json_opt,
    to_value, to_word, word,
};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError, post_runs};
use crate::clock::Timestamp;
use crate::credential::{ScopedTo, Who};
use crate::ids::{ConversationId, OrganisationId};
use crate::model::{
    AgentName, Annotation, Conversation, ConversationChange, ConversationClose, ConversationStatus,
    EndReason, EventKind, Transfer, TransferStatus,
};

/// Conversations with their agents' names, up to the WHERE clause.
const SELECT: &str = "
    SELECT t.*, a.name AS agent_name
    FROM conversations t LEFT JOIN agents a ON a.id = t.agent_id";

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
        let mut teller = Teller::new(self);
        let begun = self.insert_conversation(&mut tx, &conversation).await?;
        let is_new = begun.is_some();
        if let Some(news) = begun {
            teller.tell(&mut tx, &news).await?;
        }
        let stored = load(&mut tx, scope, conversation.id).await.map_err(|error| match error {
            StoreError::NotFound(_) => StoreError::Conflict("id is already taken".to_owned()),
            error => error,
        })?;
        // What calls record of themselves is no change that anybody made.
        if is_new && scope.actor().who != Who::Gateway {
            let note = Change::of(scope, "conversation.create").object(stored.id);
            tx.note(note.after(&stored)?);
        }
        self.commit(tx, teller.after()).await?;
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
        let mut teller = Teller::new(self);
        if let Some(news) = apply_change(&mut tx, change).await? {
            teller.tell(&mut tx, &news).await?;
        }
        let stored = load(&mut tx, scope, change.id).await?;
        self.commit(tx, teller.after()).await?;
        Ok(stored)
    }

    /// Records that a conversation ended, if it had not, and makes the run of what its agent has done then.
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
        let mut teller = Teller::new(self);
        let job_added = self.end_conversation(&mut tx, close, &mut teller).await?;
        let stored = load(&mut tx, scope, close.id).await?;
        self.commit(tx, After { job_added, ..teller.after() }).await?;
        Ok(stored)
    }

    /// Ends a conversation within a write, if it had not ended, and says whether there is a job for it.
    pub(super) async fn end_conversation(
        &self,
        tx: &mut Connection,
        close: &ConversationClose,
        teller: &mut Teller<'_>,
    ) -> Result<bool, StoreError> {
        let Some(news) = apply_close(tx, close).await? else { return Ok(false) };
        teller.tell(tx, &news).await?;
        match &close.post {
            Some(post) => self.insert_post_run(tx, close.id, post).await,
            None => Ok(false),
        }
    }

    /// Writes down what whoever held a conversation says of it, at whatever stage it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such conversation; [`StoreError::Invalid`] for
    /// a field that is not acceptable.
    pub async fn annotate_conversation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        (id, annotation): (ConversationId, &Annotation),
    ) -> Result<Conversation, StoreError> {
        annotation.validate()?;
        let mut tx = self.0.db.write().await?;
        let before = load(&mut tx, scope, id).await?;
        if *annotation == Annotation::default() {
            return Ok(before);
        }
        let note = Change::of(scope, "conversation.annotate").object(id).before(&before)?;
        let (mut transcript, mut turns) = (before.conversation, before.user_turn_count);
        if let Some(said) = &annotation.conversation {
            transcript = said.as_ref().map(to_value).transpose()?;
            turns = said.as_ref().map(|said| i64::try_from(said.user_turns()).unwrap_or(i64::MAX));
        }
        let summary = annotation.summary.clone().unwrap_or(before.summary);
        sql::query(
            "UPDATE conversations SET conversation = ?1, user_turn_count = ?2, summary = ?3,
                 updated_at = CASE WHEN updated_at < ?4 THEN ?4 ELSE updated_at END
             WHERE id = ?5",
        )
        .bind(to_json_opt(transcript.as_ref())?)
        .bind(turns)
        .bind(summary)
        .bind(self.now().micros())
        .bind(id.to_string())
        .execute(&mut tx)
        .await?;
        let stored = load(&mut tx, scope, id).await?;
        tx.note(note.after(&stored)?);
        let is_told = stored.conversation.is_some() && stored.summary.is_some();
        let job_added = is_told && post_runs::wake(&mut tx, id, self.now()).await?;
        self.commit(tx, After { job_added, ..After::default() }).await?;
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

    /// The newest conversation whose other party is this one, letter by letter.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has none.
    pub async fn newest_conversation_with(
        &self,
        scope: &ScopedTo<OrganisationId>,
        user: &str,
    ) -> Result<Conversation, StoreError> {
        let mut query = QueryBuilder::new(SELECT);
        query.push(" WHERE t.organization_id = ").push_bind(scope.organisation().to_string());
        query.push(" AND t.user_id = ").push_bind(user);
        query.push(" ORDER BY t.created_at DESC LIMIT 1");
        let mut tx = self.0.db.read().await?;
        let row = query.build().fetch_optional(&mut tx).await?;
        from_row(&row.ok_or_else(|| StoreError::not_found("Conversation"))?)
    }

    /// Looks again for what this node left open: who had its name until now may have taken calls since the
    /// store was opened.
    pub(super) async fn find_left_open(&self) -> Result<(), StoreError> {
        let found = open_of(&self.0.db, &self.0.options.node).await?;
        *self.0.found_open.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// Closes the conversations that this node left open when it died, and says how many. Each
    /// counts as failed, ended by the gateway, with `gateway_crash`. Those that began since the store
    /// was opened, or since the node's name is held, are none of them. What the published versions of their agents have done after a
    /// conversation is made to run here too; an agent of a single call was known to the node alone.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn close_left_open(&self) -> Result<u64, StoreError> {
        let mut tx = self.0.db.write().await?;
        let (reason, now) = (to_json(&EndReason::gateway_crash())?, self.now());
        let (mut closed, mut teller) = (0, Teller::new(self));
        let (mut named, mut job_added) = (PostActions::default(), false);
        let left = self.0.found_open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for id in &left {
            let Some(present) = present(&mut tx, id).await? else { continue };
            if present.status.is_terminal() {
                continue;
            }
            let written = sql::query(telling!(
                "UPDATE conversations SET status = 'failed', end_reason = ?1, ended_at = ?2,
                     updated_at = ?2, transfer = ?3, event_count = event_count + 1
                 WHERE id = ?4"
            ))
            .bind(&reason)
            .bind(now.micros())
            .bind(to_json_opt(settled(present.transfer).as_ref())?)
            .bind(id)
            .fetch_written(&mut tx)
            .await?;
            let Some(row) = written else { continue };
            closed += 1;
            let conversation = id.parse().map_err(|_| StoreError::Fault)?;
            let news = News { kinds: &[EventKind::Ended], at: now, row };
            teller.tell(&mut tx, &news).await?;
            if let Some(post) = named.of(&mut tx, id).await? {
                job_added |= self.insert_post_run(&mut tx, conversation, &post).await?;
            }
        }
        self.commit(tx, After { job_added, ..teller.after() }).await?;
        Ok(closed)
    }

    /// Adds a row, unless there is one with its id, and returns what there is to tell.
    pub(super) async fn insert_conversation(
        &self,
        tx: &mut Connection,
        row: &Conversation,
    ) -> Result<Option<News>, StoreError> {
        let kinds = begun(row);
        let inserted = sql::query(telling!(
            "INSERT INTO conversations (id, organization_id, node, direction, channel, status,
                 user_id, agent_id, agent_version_id, agent_number, web_widget_id, trunk_id,
                 trunk_call_id, duration, user_turn_count, end_reason, quality, summary,
                 initial_context, custom_metadata, conversation, recording_details, answered_at,
                 ended_at, created_at, updated_at, transfer, event_count)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                 ?19, ?20, ?21, ?22, ?23, ?24, free.stamp,
                 CASE WHEN ?26 > free.stamp THEN ?26 ELSE free.stamp END, ?27, ?28
             FROM (",
            free_stamp_in!("conversations", "?25"),
            " AS stamp) AS free WHERE TRUE ON CONFLICT (id) DO NOTHING"
        ))
        .bind(row.id.to_string())
        .bind(row.organization_id.to_string())
        .bind(&self.0.options.node)
        .bind(to_word(row.direction)?)
        .bind(to_word(row.channel)?)
        .bind(to_word(row.status)?)
        .bind(&row.user_id)
        .bind(row.agent_id.map(|id| id.to_string()))
        .bind(row.agent_version_id.map(|id| id.to_string()))
        .bind(&row.agent_number)
        .bind(&row.web_widget_id)
        .bind(row.trunk_id.map(|id| id.to_string()))
        .bind(&row.trunk_call_id)
        .bind(row.duration)
        .bind(row.user_turn_count)
        .bind(to_json_opt(row.end_reason.as_ref())?)
        .bind(to_json_opt(row.quality.as_ref())?)
        .bind(&row.summary)
        .bind(&row.initial_context)
        .bind(to_json_opt(row.custom_metadata.as_ref())?)
        .bind(to_json_opt(row.conversation.as_ref())?)
        .bind(to_json_opt(row.recording_details.as_ref())?)
        .bind(row.answered_at.map(Timestamp::micros))
        .bind(row.ended_at.map(Timestamp::micros))
        .bind(row.created_at.micros())
        .bind(row.updated_at.micros())
        .bind(to_json_opt(row.transfer.as_ref())?)
        .bind(count(kinds))
        .fetch_written(tx)
        .await?;
        Ok(inserted.map(|stored| News { kinds, at: row.created_at, row: stored }))
    }
}

/// What a transfer came to that nobody will go on with.
fn settled(transfer: Option<Transfer>) -> Option<Transfer> {
    let settle = |transfer: Transfer| match transfer.status {
        TransferStatus::Pending => Transfer { status: TransferStatus::Failed, ..transfer },
        _ => transfer,
    };
    transfer.map(settle)
}

/// What there is to tell of a conversation that has just begun.
const fn begun(row: &Conversation) -> &'static [EventKind] {
    match row.status {
        ConversationStatus::Ringing => &[EventKind::Ringing],
        _ => &[], // one that waits to be placed is heard of when it rings
    }
}

/// How many events those are, as the record counts them.
fn count(kinds: &[EventKind]) -> i64 {
    i64::try_from(kinds.len()).unwrap_or(i64::MAX)
}

/// The statuses that are meant, as one text to look a status up in.
fn words(meant: impl Fn(ConversationStatus) -> bool) -> Result<String, StoreError> {
    let words = ConversationStatus::OPEN.into_iter().filter(|status| meant(*status)).map(to_word);
    Ok(words.collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// Moves a conversation forward and adds what is known; its status never moves backward, and what is
/// over stays as it is: of that there is nothing to tell.
pub(super) async fn apply_change(
    tx: &mut Connection,
    change: &ConversationChange,
) -> Result<Option<News>, StoreError> {
    if change.status.is_terminal() {
        return Ok(None);
    }
    // The usual one first: without a look at the record each is one statement.
    match write_change(tx, change, true).await? {
        Some(news) => Ok(Some(news)),
        None => write_change(tx, change, false).await,
    }
}

/// Writes a change to a conversation that it moves on, or to an open one that stays where it is. If it is
/// neither, nothing is written.
async fn write_change(
    tx: &mut Connection,
    change: &ConversationChange,
    moves: bool,
) -> Result<Option<News>, StoreError> {
    let kinds: &[_] = match change.status {
        ConversationStatus::Ringing if moves => &[EventKind::Ringing],
        ConversationStatus::InProgress if moves => &[EventKind::Answered],
        _ => &[],
    };
    let row = sql::query(telling!(
        "UPDATE conversations SET status = coalesce(?1, status),
             answered_at = coalesce(answered_at, ?2),
             trunk_call_id = coalesce(?3, trunk_call_id), transfer = coalesce(?4, transfer),
             agent_id = coalesce(?5, agent_id), agent_version_id = coalesce(?6, agent_version_id),
             initial_context = coalesce(?7, initial_context),
             custom_metadata = coalesce(?8, custom_metadata),
             updated_at = CASE WHEN updated_at < ?9 THEN ?9 ELSE updated_at END,
             event_count = event_count + ?10
         WHERE id = ?11 AND instr(?12, status) > 0"
    ))
    .bind(moves.then(|| to_word(change.status)).transpose()?)
    .bind(change.answered_at.map(Timestamp::micros))
    .bind(change.trunk_call_id.as_deref())
    .bind(to_json_opt(change.transfer.as_ref())?)
    .bind(change.answering.map(|by| by.agent.to_string()))
    .bind(change.answering.map(|by| by.version.to_string()))
    .bind(change.initial_context.as_deref())
    .bind(to_json_opt(change.custom_metadata.as_ref())?)
    .bind(change.at.micros())
    .bind(count(kinds))
    .bind(change.id.to_string())
    .bind(words(|status| status.may_become(change.status) == moves)?)
    .fetch_written(tx)
    .await?;
    Ok(row.map(|row| News { kinds, at: change.at, row }))
}

/// Ends a conversation, and returns what there is to tell; the second end does nothing.
pub(super) async fn apply_close(
    tx: &mut Connection,
    close: &ConversationClose,
) -> Result<Option<News>, StoreError> {
    if !close.status.is_terminal() {
        return Ok(None);
    }
    // The usual one first: nothing is known of a transfer, or its end is. It needs no look at the record.
    if let Some(news) = write_close(tx, close, close.transfer.as_ref()).await? {
        return Ok(Some(news));
    }
    match present(tx, &close.id.to_string()).await? {
        Some(Present { status, transfer }) if !status.is_terminal() => {
            write_close(tx, close, settled(transfer).as_ref()).await
        }
        _ => Ok(None),
    }
}

/// Writes an end to a conversation that is open, unless a transfer is left of which nothing is said.
async fn write_close(
    tx: &mut Connection,
    close: &ConversationClose,
    transfer: Option<&Transfer>,
) -> Result<Option<News>, StoreError> {
    let kinds: &[_] = match close.status {
        ConversationStatus::Transferred => &[EventKind::Transferred, EventKind::Ended],
        _ => &[EventKind::Ended],
    };
    let row = sql::query(telling!(
        "UPDATE conversations SET status = ?1, end_reason = ?2, duration = ?3, transfer = ?4,
             quality = coalesce(?5, quality), ended_at = ?6,
             updated_at = CASE WHEN updated_at < ?6 THEN ?6 ELSE updated_at END,
             event_count = event_count + ?7
         WHERE id = ?8 AND instr(?9, status) > 0 AND (?4 IS NOT NULL OR transfer IS NULL)"
    ))
    .bind(to_word(close.status)?)
    .bind(to_json(&close.end_reason)?)
    .bind(close.duration_s)
    .bind(to_json_opt(transfer)?)
    .bind(to_json_opt(close.quality.as_ref())?)
    .bind(close.closed_at.micros())
    .bind(count(kinds))
    .bind(close.id.to_string())
    .bind(words(|status| status.may_become(close.status))?)
    .fetch_written(tx)
    .await?;
    Ok(row.map(|row| News { kinds, at: close.closed_at, row }))
}

/// The conversations of a node that are open.
pub(super) async fn open_of(db: &Database, node: &str) -> Result<Vec<String>, StoreError> {
    let mut tx = db.read().await?;
    sql::query(
        "SELECT id FROM conversations WHERE node = ?
           AND status IN ('token_created', 'triggered', 'ringing', 'in_progress')",
    )
    .bind(node)
    .fetch_scalars(&mut tx)
    .await
}

/// What decides about what may still become of a conversation.
struct Present {
    status: ConversationStatus,
    transfer: Option<Transfer>,
}

async fn present(tx: &mut Connection, id: &str) -> Result<Option<Present>, StoreError> {
    let query = sql::query("SELECT status, transfer FROM conversations WHERE id = ?").bind(id);
    let Some(row) = query.fetch_optional(tx).await? else { return Ok(None) };
    let (status, transfer) = (word(&row, "status")?, json_opt(&row, "transfer")?);
    Ok(Some(Present { status, transfer }))
}

/// A conversation, whosever it is: for what is run after it.
pub(super) async fn find(
    tx: &mut Connection,
    id: ConversationId,
) -> Result<Option<Conversation>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" WHERE t.id = ").push_bind(id.to_string());
    query.build().fetch_optional(tx).await?.as_ref().map(from_row).transpose()
}

async fn load(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    id: ConversationId,
) -> Result<Conversation, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" WHERE t.organization_id = ").push_bind(scope.organisation().to_string());
    query.push(" AND t.id = ").push_bind(id.to_string());
    let row = query.build().fetch_optional(tx).await?;
    from_row(&row.ok_or_else(|| StoreError::not_found("Conversation"))?)
}

pub(super) fn from_row(row: &Row) -> Result<Conversation, StoreError> {
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
