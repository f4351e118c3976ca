//! Verbs on the runs of workflows.
//!
//! A run in the background is a row here and a job, made in one write; the row is what its owner sees,
//! the job is who does it. A run that a request waits for is written before its first step, and ended when
//! it is over; if its node is gone by then, whoever looks later ends it.

use serde_json::Value;

use super::rows::{
    and, and_period, free_stamp, free_stamp_in, json, json_opt, paged, parsed, parsed_opt, raw,
    time, time_opt, to_json, to_json_opt, to_word, word,
};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{ExecutionId, OrganisationId, WorkflowId};
use crate::jobs::Lease;
use crate::model::{Execution, ExecutionFilter, ExecutionStatus, ExecutionSummary, Page};
use crate::workflows::{Outcome, background};

const FREE_STAMP: &str = free_stamp_in!("workflow_executions");

/// The age, in microseconds, at which a run that a request waited for is on a node that is gone: such
/// runs take a minute, and their ends are written for ten more.
const LOST_AFTER_US: i64 = 15 * 60 * 1_000_000;

/// Runs without a job that seem to go on since a time. All of the first condition is in an index.
pub(super) const LOST: &str = "SELECT t.id, t.organization_id FROM workflow_executions t
    WHERE t.status = 'running' AND t.created_at < ? AND NOT EXISTS
        (SELECT 1 FROM jobs j
         WHERE j.kind IN (?, ?) AND j.subject = t.id AND j.status IN ('waiting', 'running'))
    ORDER BY t.created_at LIMIT 1000";

/// The oldest run of an organisation that is over, if there are too many of them or they take too much.
pub(super) const OLDEST_TOO_MANY: &str = "SELECT t.id, t.bytes FROM workflow_executions t
    WHERE t.organization_id = ?1 AND t.status IN ('success', 'failed') AND EXISTS
        (SELECT 1 FROM workflow_records r
         WHERE r.organization_id = ?1 AND (r.runs > ?2 OR r.bytes > ?3))
    ORDER BY t.created_at LIMIT 1";

/// So many records are forgotten at most when a run ends.
const TRIM_AT_ONCE: usize = 32;

/// What is run, with what.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// Which workflow.
    pub workflow: WorkflowId,
    /// Which version of it.
    pub version: u32,
    /// What it is given.
    pub input: Value,
}

impl Store {
    /// Records a run that a request waits for, before its first step: when the store is away nothing
    /// has been done yet. [`Store::finish_execution`] ends it.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn begin_execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        what: Executed,
    ) -> Result<Execution, StoreError> {
        let mut execution = blank(scope, what);
        execution.status = ExecutionStatus::Running;
        let mut tx = self.0.db.write().await?;
        self.insert_execution(&mut tx, &mut execution).await?;
        tx.note(Change::of(scope, "execution.create").object(execution.execution_id));
        self.commit(tx, After::default()).await?;
        Ok(execution)
    }

    /// Makes a run that is to be done in the background.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the organisation has too much that is unfinished.
    pub async fn enqueue_execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        what: Executed,
    ) -> Result<Execution, StoreError> {
        let mut execution = blank(scope, what);
        let mut tx = self.0.db.write().await?;
        self.insert_execution(&mut tx, &mut execution).await?;
        let job = background::job(execution.execution_id, None);
        self.insert_job(&mut tx, scope, &job).await?;
        tx.note(Change::of(scope, "execution.create").object(execution.execution_id));
        self.commit(tx, After::job_added()).await?;
        Ok(execution)
    }

    /// One run.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such run, or no longer.
    pub async fn execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
    ) -> Result<Execution, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope, id).await
    }

    /// The organisation's runs, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn executions(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &ExecutionFilter,
        page: Page,
    ) -> Result<Vec<ExecutionSummary>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT t.id, t.organization_id, t.workflow_id, t.workflow_version, t.conversation_id,
                 t.status, t.error, t.resume_at, t.created_at, t.updated_at
             FROM workflow_executions t WHERE t.organization_id = ",
        );
        query.push_bind(scope.organisation().to_string());
        and(&mut query, "t.workflow_id =", filter.workflow_id.map(|id| id.to_string()));
        let conversation = filter.conversation_id.map(|id| id.to_string());
        and(&mut query, "t.conversation_id =", conversation);
        and(&mut query, "t.status =", filter.status.map(to_word).transpose()?);
        and_period(&mut query, &filter.period);
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(summary_from_row).collect()
    }

    /// Writes that a run is at work, or waits until then, together with the progress of its job, and
    /// gives the run as it then is. One that has ended stays as it is, and so does its job; `None` if
    /// the job's lease no longer held, and nothing is written: a node that was cut off says no more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such run, or no longer.
    pub async fn advance_execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
        resume_at: Option<Timestamp>,
        (lease, progress): (&Lease, &Value),
    ) -> Result<Option<Execution>, StoreError> {
        let mut tx = self.0.db.write().await?;
        let mut execution = load(&mut tx, scope, id).await?;
        if execution.status.is_over() {
            return Ok(Some(execution));
        }
        if !self.write_progress(&mut tx, lease, progress).await? {
            return Ok(None);
        }
        execution.status = match resume_at {
            Some(_) => ExecutionStatus::Waiting,
            None => ExecutionStatus::Running,
        };
        execution.resume_at = resume_at;
        self.update_execution(&mut tx, &mut execution).await?;
        self.commit(tx, After::default()).await?;
        Ok(Some(execution))
    }

    /// Writes how a run ended; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such run, or no longer.
    pub async fn finish_execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
        outcome: Outcome,
    ) -> Result<Execution, StoreError> {
        let mut tx = self.0.db.write().await?;
        let mut execution = load(&mut tx, scope, id).await?;
        if !execution.status.is_over() {
            self.end_execution(&mut tx, &mut execution, outcome).await?;
            tx.note(Change::of(scope, "execution.end").object(id));
            self.commit(tx, After::default()).await?;
        }
        Ok(execution)
    }

    /// Cancels a run, wherever it is: it has failed as `cancelled`, and its job is gone. A node that is
    /// at it finds that out when it renews its lease, and stops. Cancelled twice is cancelled once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such run, or no longer;
    /// [`StoreError::Conflict`] for one that has ended otherwise.
    pub async fn cancel_execution(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
    ) -> Result<Execution, StoreError> {
        let mut tx = self.0.db.write().await?;
        let mut execution = load(&mut tx, scope, id).await?;
        if execution.is_cancelled() {
            return Ok(execution);
        }
        if execution.status.is_over() {
            return Err(StoreError::Conflict("Execution is over".to_owned()));
        }
        let mut progress = None;
        for kind in background::KINDS {
            let job = (kind, id.to_string());
            progress = progress.or(self.take_job_back(&mut tx, job).await?);
        }
        self.end_execution(&mut tx, &mut execution, background::cancelled(progress)).await?;
        tx.note(Change::of(scope, "execution.cancel").object(id));
        self.commit(tx, After::default()).await?;
        Ok(execution)
    }

    /// Whether a run has ended, or is not there any more.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn execution_is_over(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: ExecutionId,
    ) -> Result<bool, StoreError> {
        let sql = "SELECT status FROM workflow_executions WHERE id = ? AND organization_id = ?";
        let query = sql::query(sql).bind(id.to_string()).bind(scope.organisation().to_string());
        let mut tx = self.0.db.read().await?;
        let row = query.fetch_optional(&mut tx).await?;
        let status = row.as_ref().map(|row| word::<ExecutionStatus>(row, "status")).transpose()?;
        Ok(status.is_none_or(ExecutionStatus::is_over))
    }

    /// Ends runs that requests waited for on nodes that are gone; how many there were.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn end_lost_executions(&self) -> Result<usize, StoreError> {
        let mut tx = self.0.db.read().await?;
        let lost = sql::query(LOST)
            .bind(self.now().micros().saturating_sub(LOST_AFTER_US))
            .bind(background::RUN_WORKFLOW)
            .bind(background::RUN_AFTER_CONVERSATION)
            .fetch_all(&mut tx)
            .await?;
        drop(tx);
        for row in &lost {
            let scope = ScopedTo::by_gateway(parsed(row, "organization_id")?);
            let outcome = background::interrupted(background::STOPPED);
            self.finish_execution(&scope, parsed(row, "id")?, outcome).await?;
        }
        Ok(lost.len())
    }

    pub(super) async fn insert_execution(
        &self,
        tx: &mut Connection,
        execution: &mut Execution,
    ) -> Result<(), StoreError> {
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        (execution.created_at, execution.updated_at) = (at, at);
        sql::query(
            "INSERT INTO workflow_executions (id, organization_id, workflow_id, workflow_version,
                 conversation_id, status, input_data, output, error, trace, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(execution.execution_id.to_string())
        .bind(execution.organization_id.to_string())
        .bind(execution.workflow_id.map(|id| id.to_string()))
        .bind(execution.workflow_version)
        .bind(execution.conversation_id.map(|id| id.to_string()))
        .bind(to_word(execution.status)?)
        .bind(to_json(&execution.input_data)?)
        .bind(to_json_opt(execution.output.as_ref())?)
        .bind(to_json_opt(execution.error.as_ref())?)
        .bind(to_json(&execution.trace)?)
        .bind(at.micros())
        .bind(at.micros())
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Writes how a run ended, counts its record among those that are kept, and forgets the oldest where
    /// there are too many.
    pub(super) async fn end_execution(
        &self,
        tx: &mut Connection,
        execution: &mut Execution,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        execution.end(outcome);
        self.update_execution(tx, execution).await?;
        let (organisation, bytes) =
            (execution.organization_id.to_string(), record_bytes(execution)?);
        sql::query("UPDATE workflow_executions SET bytes = ? WHERE id = ?")
            .bind(bytes)
            .bind(execution.execution_id.to_string())
            .execute(tx)
            .await?;
        sql::query(
            "INSERT INTO workflow_records (organization_id, runs, bytes) VALUES (?, 1, ?)
             ON CONFLICT (organization_id) DO UPDATE SET
                 runs = workflow_records.runs + 1, bytes = workflow_records.bytes + excluded.bytes",
        )
        .bind(&organisation)
        .bind(bytes)
        .execute(tx)
        .await?;
        let options = &self.0.options;
        let most = i64::try_from(options.execution_bytes_kept).unwrap_or(i64::MAX);
        trim(tx, &organisation, (options.executions_kept, most)).await
    }

    async fn update_execution(
        &self,
        tx: &mut Connection,
        execution: &mut Execution,
    ) -> Result<(), StoreError> {
        execution.updated_at = self.now();
        sql::query(
            "UPDATE workflow_executions SET status = ?, output = ?, error = ?, trace = ?,
                 resume_at = ?, updated_at = ?
             WHERE id = ?",
        )
        .bind(to_word(execution.status)?)
        .bind(to_json_opt(execution.output.as_ref())?)
        .bind(to_json_opt(execution.error.as_ref())?)
        .bind(to_json(&execution.trace)?)
        .bind(execution.resume_at.map(Timestamp::micros))
        .bind(execution.updated_at.micros())
        .bind(execution.execution_id.to_string())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// A run that has not begun.
fn blank(scope: &ScopedTo<OrganisationId>, what: Executed) -> Execution {
    Execution {
        workflow_id: Some(what.workflow),
        workflow_version: Some(what.version),
        ..of_nothing(scope, what.input)
    }
}

/// The same, of which it is not said what is run.
pub(super) fn of_nothing(scope: &ScopedTo<OrganisationId>, input: Value) -> Execution {
    Execution {
        execution_id: ExecutionId::random(),
        organization_id: scope.organisation(),
        workflow_id: None,
        workflow_version: None,
        conversation_id: None,
        status: ExecutionStatus::Queued,
        input_data: input,
        output: None,
        error: None,
        trace: Vec::new(),
        resume_at: None,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    }
}

/// How much of the disk the record of a run takes, but for what all have.
fn record_bytes(execution: &Execution) -> Result<i64, StoreError> {
    let parts = [
        to_json(&execution.input_data)?,
        to_json(&execution.trace)?,
        to_json_opt(execution.output.as_ref())?.unwrap_or_default(),
        to_json_opt(execution.error.as_ref())?.unwrap_or_default(),
    ];
    Ok(parts.iter().map(String::len).sum::<usize>().try_into().unwrap_or(i64::MAX))
}

/// Forgets the oldest runs that are over, until so many of so many bytes are left. With each that ends
/// there is one more, so mostly that is one; after a limit was lowered it takes some ends.
async fn trim(
    tx: &mut Connection,
    organisation: &str,
    (runs, bytes): (u32, i64),
) -> Result<(), StoreError> {
    for _ in 0..TRIM_AT_ONCE {
        let oldest = sql::query(OLDEST_TOO_MANY).bind(organisation).bind(runs).bind(bytes);
        let Some(oldest) = oldest.fetch_optional(tx).await? else { break };
        sql::query("DELETE FROM workflow_executions WHERE id = ?")
            .bind(raw::<String>(&oldest, "id")?)
            .execute(tx)
            .await?;
        sql::query(
            "UPDATE workflow_records SET runs = runs - 1, bytes = bytes - ? WHERE organization_id = ?",
        )
        .bind(raw::<i64>(&oldest, "bytes")?)
        .bind(organisation)
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Gives the runs of a workflow that wait their turn now, and says whether there are any.
pub(super) async fn wake_runs_of(
    tx: &mut Connection,
    (scope, workflow): (&ScopedTo<OrganisationId>, WorkflowId),
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "UPDATE jobs SET run_at = ?1
         WHERE organization_id = ?2 AND kind IN (?3, ?4) AND status = 'waiting' AND run_at > ?1
             AND EXISTS (SELECT 1 FROM workflow_executions e
                         WHERE e.id = jobs.subject AND e.workflow_id = ?5)",
    )
    .bind(now.micros())
    .bind(scope.organisation().to_string())
    .bind(background::RUN_WORKFLOW)
    .bind(background::RUN_AFTER_CONVERSATION)
    .bind(workflow.to_string())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn load(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    id: ExecutionId,
) -> Result<Execution, StoreError> {
    let row = sql::query("SELECT * FROM workflow_executions WHERE id = ? AND organization_id = ?")
        .bind(id.to_string())
        .bind(scope.organisation().to_string())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(from_row).ok_or_else(|| StoreError::not_found("Execution"))?
}

fn summary_from_row(row: &Row) -> Result<ExecutionSummary, StoreError> {
    Ok(ExecutionSummary {
        execution_id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        workflow_id: parsed_opt(row, "workflow_id")?,
        workflow_version: raw(row, "workflow_version")?,
        conversation_id: parsed_opt(row, "conversation_id")?,
        status: word(row, "status")?,
        error: json_opt(row, "error")?,
        resume_at: time_opt(row, "resume_at")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn from_row(row: &Row) -> Result<Execution, StoreError> {
    Ok(Execution {
        execution_id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        workflow_id: parsed_opt(row, "workflow_id")?,
        workflow_version: raw(row, "workflow_version")?,
        conversation_id: parsed_opt(row, "conversation_id")?,
        status: word(row, "status")?,
        input_data: json(row, "input_data")?,
        output: json_opt(row, "output")?,
        error: json_opt(row, "error")?,
        trace: json(row, "trace")?,
        resume_at: time_opt(row, "resume_at")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
