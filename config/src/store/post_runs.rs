//! The runs of what agents have done after their conversations, made in the write that ends them.
//!
//! A conversation ends once, and only the write that ends it makes its run. So there is one at most,
//! however often an end is written, and none is lost with a node: either both are there or neither.
//! From then on it is a run in the background as any other of its organisation, and takes its turn.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::executions;
use super::rows::{json, raw, to_json};
use super::sql::{self, Connection};
use super::{After, Store, StoreError, conversations, workflows};
use crate::briefing::{self, AgentWorkflows, PostAction};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{ConversationId, ExecutionId, OrganisationId, WorkflowId};
use crate::model::Execution;
use crate::model::VersionRef;
use crate::workflows::{FailureKind, background};

impl Store {
    /// Makes the run after a conversation that ends in this write, and says whether there is a job for
    /// it. Where the organisation has too much that is unfinished the run has failed, and says so.
    ///
    /// # Errors
    /// As the database fails, and for nothing else: the end itself must be written.
    pub(super) async fn insert_post_run(
        &self,
        tx: &mut Connection,
        id: ConversationId,
        post: &PostAction,
    ) -> Result<bool, StoreError> {
        let Some(conversation) = conversations::find(tx, id).await? else { return Ok(false) };
        let scope = ScopedTo::by_gateway(conversation.organization_id);
        let mut execution = executions::of_nothing(&scope, briefing::after(&conversation));
        execution.conversation_id = Some(id);
        if let Some((workflow, which)) = post.named() {
            execution.workflow_id = Some(workflow);
            execution.workflow_version = version(tx, &scope, (workflow, which)).await?;
        }
        self.insert_execution(tx, &mut execution).await?;
        let mut job = background::job(execution.execution_id, Some(post.text()));
        if conversation.conversation.is_some() && conversation.summary.is_some() {
            job.rests = Duration::ZERO; // nothing more is awaited
        }
        match self.insert_job(tx, &scope, &job).await {
            Ok(_) => Ok(true),
            Err(StoreError::Refused(why)) => {
                tracing::warn!(
                    conversation = %id, organization = %conversation.organization_id,
                    "a post-conversation workflow was left out: too much is unfinished"
                );
                let outcome = background::not_begun(FailureKind::Busy, why);
                self.end_execution(tx, &mut execution, outcome).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// Tells a run what its conversation has come to by now: what was said and what it was about are
    /// written down after the end. It is asked for before the first step, and the run as it then is returned.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such run, or no longer.
    pub(crate) async fn brief_execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
    ) -> Result<Execution, StoreError> {
        let mut tx = self.0.db.write().await?;
        let mut execution = executions::load(&mut tx, scope, id).await?;
        let Some(conversation) = execution.conversation_id else { return Ok(execution) };
        let Some(conversation) = conversations::find(&mut tx, conversation).await? else {
            return Ok(execution); // what was known at its end stays
        };
        let input = briefing::after(&conversation);
        if execution.status.is_over() || execution.input_data == input {
            return Ok(execution);
        }
        execution.input_data = input;
        sql::query("UPDATE workflow_executions SET input_data = ? WHERE id = ?")
            .bind(to_json(&execution.input_data)?)
            .bind(id.to_string())
            .execute(&mut tx)
            .await?;
        self.commit(tx, After::default()).await?;
        Ok(execution)
    }

    /// Forgets a run of which its condition said that it is not to be made, unless it is over.
    ///
    /// # Errors
    /// As the database fails.
    pub(crate) async fn forget_execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let sql = "DELETE FROM workflow_executions WHERE id = ? AND organization_id = ?
             AND status NOT IN ('success', 'failed')";
        sql::query(sql)
            .bind(id.to_string())
            .bind(scope.organisation().to_string())
            .execute(&mut tx)
            .await?;
        self.commit(tx, After::default()).await
    }
}

/// Gives the run after a conversation its turn now, if it has not begun, and says whether there is one:
/// what it waited for is there.
pub(super) async fn wake(
    tx: &mut Connection,
    conversation: ConversationId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "UPDATE jobs SET run_at = ?1
         WHERE kind = ?2 AND status = 'waiting' AND run_at > ?1 AND progress = '{}' AND subject IN
             (SELECT id FROM workflow_executions WHERE conversation_id = ?3)",
    )
    .bind(now.micros())
    .bind(background::RUN_AFTER_CONVERSATION)
    .bind(conversation.to_string())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The number of the version that is meant, as it is published now. Without one, the run fails in its
/// turn and tells why.
async fn version(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    (workflow, which): (WorkflowId, VersionRef),
) -> Result<Option<u32>, StoreError> {
    match which {
        VersionRef::Number(number) => Ok(Some(number)),
        VersionRef::Latest => workflows::latest_published(tx, scope, workflow).await,
    }
}

/// What the versions of agents have done after a conversation; each is read once.
#[derive(Default)]
pub(super) struct PostActions(HashMap<String, Option<PostAction>>);

impl PostActions {
    /// What the agent of this conversation has done, if a version of its own says so.
    pub(super) async fn of(
        &mut self,
        tx: &mut Connection,
        conversation: &str,
    ) -> Result<Option<PostAction>, StoreError> {
        let sql = "SELECT agent_version_id FROM conversations WHERE id = ?";
        let row = sql::query(sql).bind(conversation).fetch_optional(tx).await?;
        let version: Option<String> = match &row {
            Some(row) => raw(row, "agent_version_id")?,
            None => None,
        };
        let Some(version) = version else { return Ok(None) };
        if let Some(known) = self.0.get(&version) {
            return Ok(known.clone());
        }
        let sql = "SELECT config FROM agent_versions WHERE id = ?";
        let row = sql::query(sql).bind(&version).fetch_optional(tx).await?;
        let config: Option<Value> = row.as_ref().map(|row| json(row, "config")).transpose()?;
        let post = config.and_then(|config| AgentWorkflows::read(&config).post);
        self.0.insert(version, post.clone());
        Ok(post)
    }
}
