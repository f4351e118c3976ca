//! Verbs on jobs: work that goes on after its request was answered.
//!
//! All writers of a database take turns, so whoever claims a job sees what every other node claimed
//! before it; nothing needs to skip a locked row.
//!
//! Organisations take turns, in each kind apart: whose last turn is longest ago is next. A *turn* is a
//! row that says when that was; there is one while anything of the kind is unfinished.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::rows::{
    free_stamp, free_stamp_in, json, json_opt, parsed, raw, small, time, to_json, to_word, word,
};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::ScopedTo;
use crate::ids::{JobId, OrganisationId};
use crate::jobs::{Job, JobStatus, Lease, NewJob};
use crate::limits::{
    JOB_LEASE_SECONDS, JOBS_ASLEEP, JOBS_OF_ORGANIZATION, JOBS_WAITING, RUNS_AFTER_WAITING,
};
use crate::workflows::background::RUN_AFTER_CONVERSATION;

const FREE_STAMP: &str = free_stamp_in!("jobs");

/// How many jobs of an organisation and a kind are at work or due by a time; as far as it matters.
pub(super) const DUE: &str = "SELECT count(*) FROM (SELECT 1 AS one FROM jobs
    WHERE organization_id = ? AND kind = ? AND status IN ('waiting', 'running') AND run_at <= ?
    LIMIT ?) due";

/// How many wait for a later time.
pub(super) const ASLEEP: &str = "SELECT count(*) FROM jobs
    WHERE organization_id = ? AND kind = ? AND status IN ('waiting', 'running') AND run_at > ?";

/// Forgets jobs that were over before a time.
pub(super) const FORGET: &str =
    "DELETE FROM jobs WHERE status IN ('done', 'failed') AND updated_at < ?";

/// Forgets the turns of those who have nothing to be done.
const FORGET_TURNS: &str = "DELETE FROM job_turns WHERE NOT EXISTS
    (SELECT 1 FROM jobs WHERE jobs.organization_id = job_turns.organization_id
         AND jobs.kind = job_turns.kind AND jobs.status IN ('waiting', 'running'))";

const MICROS: i64 = 1_000_000;

/// So many that wait for a later time are counted each time; more take a while to count.
const FEW_ASLEEP: i64 = 1_000;

/// How long that more wait is known without being counted again, in microseconds.
const ASLEEP_KNOWN_US: i64 = 5 * MICROS;

/// How many jobs wait for a later time: of which organisation and kind, and when they were counted. Only
/// those who have many are in it.
#[derive(Default)]
pub(super) struct Asleep(Mutex<HashMap<Whose, (i64, Timestamp)>>);

type Whose = (OrganisationId, &'static str);

impl Asleep {
    fn known(&self, of: Whose, now: Timestamp) -> Option<i64> {
        let counted = *self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&of)?;
        is_fresh(counted.1, now).then_some(counted.0)
    }

    fn learn(&self, of: Whose, (count, now): (i64, Timestamp)) {
        if count > FEW_ASLEEP {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            counts.retain(|_, counted| is_fresh(counted.1, now));
            counts.insert(of, (count, now));
        }
    }
}

fn is_fresh(counted: Timestamp, now: Timestamp) -> bool {
    now.micros().saturating_sub(counted.micros()) < ASLEEP_KNOWN_US
}

/// Which jobs a node takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of these kinds.
    pub kinds: Vec<&'static str>,
    /// None of these: the node is at them, even if it could not renew their leases in time.
    pub held: Vec<JobId>,
    /// Only those that nobody has a lease on, be it over or not: after the store was away for all, the
    /// other nodes have yet to renew theirs.
    pub unleased: bool,
    /// None of organisations that have so many of these kinds at work already.
    pub of_one: u32,
}

impl Default for Wanted {
    fn default() -> Self {
        let (kinds, held) = (Vec::new(), Vec::new());
        Self { kinds, held, unleased: false, of_one: JOBS_OF_ORGANIZATION.value_u32() }
    }
}

impl From<&[&'static str]> for Wanted {
    fn from(kinds: &[&'static str]) -> Self {
        Self { kinds: kinds.to_vec(), ..Self::default() }
    }
}

impl<const N: usize> From<&[&'static str; N]> for Wanted {
    fn from(kinds: &[&'static str; N]) -> Self {
        kinds.as_slice().into()
    }
}

/// How a turn at a job ends, as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// Done, with this result. Without one, null, nothing is left to be read, and the job is forgotten:
    /// what it did has its record elsewhere.
    Done(Value),
    /// Failed for good, and why.
    Failed(String),
    /// To be begun again after so many seconds, and why.
    Again {
        /// Seconds until then.
        after_seconds: i64,
        /// Why it came to nothing this time.
        why: String,
    },
    /// To go on at this time; the attempts are counted from the start again.
    Later(Timestamp),
}

impl Store {
    /// Makes a job.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while one of the same kind about the same subject is unfinished;
    /// [`StoreError::Refused`] when the organisation has too many of its kind that are unfinished.
    pub async fn enqueue_job(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewJob,
    ) -> Result<Job, StoreError> {
        let mut tx = self.0.db.write().await?;
        let id = self.insert_job(&mut tx, scope, &new).await?;
        let job = load(&mut tx, scope, (new.kind, id)).await?;
        tx.note(Change::of(scope, "job.create").object(id));
        self.commit(tx, After::job_added()).await?;
        Ok(job)
    }

    /// As [`Store::enqueue_job`], within a write that has begun; it must be committed with
    /// [`After::job_added`].
    pub(super) async fn insert_job(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        new: &NewJob,
    ) -> Result<JobId, StoreError> {
        let organisation = scope.organisation().to_string();
        self.has_room(tx, scope, new.kind).await?;
        if is_under_way(tx, new).await? {
            return Err(StoreError::Conflict("The same is being done already".to_owned()));
        }
        let id = JobId::random();
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO jobs (id, organization_id, kind, subject, payload, progress, status,
                 run_at, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, '{}', 'waiting', ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(&organisation)
        .bind(new.kind)
        .bind(&new.subject)
        .bind(to_json(&new.payload)?)
        .bind(at.after(new.rests).micros())
        .bind(at.micros())
        .bind(at.micros())
        .execute(tx)
        .await?;
        sql::query(
            "INSERT INTO job_turns (organization_id, kind, last_at) VALUES (?, ?, ?)
             ON CONFLICT (organization_id, kind) DO NOTHING",
        )
        .bind(organisation)
        .bind(new.kind)
        .bind(at.micros())
        .execute(tx)
        .await?;
        Ok(id)
    }

    /// Refuses a job of a kind of which the organisation has too many. Those that wait for a later time
    /// are bounded apart: they take room on the disk, and nobody's time.
    async fn has_room(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        kind: &'static str,
    ) -> Result<(), StoreError> {
        let (organisation, now) = (scope.organisation(), self.now());
        // A job at work has the end of its lease for its time.
        let soon = lease_end(now);
        let most = if kind == RUN_AFTER_CONVERSATION { RUNS_AFTER_WAITING } else { JOBS_WAITING };
        let counted = |sql| sql::query(sql).bind(organisation.to_string()).bind(kind).bind(soon);
        let due: i64 = counted(DUE).bind(most.value_u32()).fetch_scalar(tx).await?;
        if due >= i64::from(most.value_u32()) {
            return Err(StoreError::refused("Too many jobs of this organization are unfinished"));
        }
        let asleep = match self.0.jobs_asleep.known((organisation, kind), now) {
            Some(known) => known,
            None => {
                let count: i64 = counted(ASLEEP).fetch_scalar(tx).await?;
                self.0.jobs_asleep.learn((organisation, kind), (count, now));
                count
            }
        };
        if asleep >= i64::from(JOBS_ASLEEP.value_u32()) {
            return Err(StoreError::refused("Too many jobs of this organization wait"));
        }
        Ok(())
    }

    /// Takes an unfinished job back from whoever is at it, within a write that has begun: it is gone,
    /// and its worker is stopped when it renews its lease. Returns how far it had come.
    pub(super) async fn take_job_back(
        &self,
        tx: &mut Connection,
        (kind, subject): (&'static str, String),
    ) -> Result<Option<Value>, StoreError> {
        let row = sql::query(
            "DELETE FROM jobs WHERE kind = ? AND subject = ? AND status IN ('waiting', 'running')
             RETURNING progress",
        )
        .bind(kind)
        .bind(subject)
        .fetch_optional(tx)
        .await?;
        row.as_ref().map(|row| json(row, "progress")).transpose()
    }

    /// One job of a kind.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such job, or none of this kind.
    pub async fn job(
        &self,
        scope: &ScopedTo<OrganisationId>,
        kind: &'static str,
        id: JobId,
    ) -> Result<Job, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope, (kind, id)).await
    }

    /// Takes a job of these kinds that is due, of the organisation whose last turn is longest ago;
    /// organisations that have enough of these kinds going on are passed over. `None` when there is
    /// none.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn claim_job(
        &self,
        wanted: impl Into<Wanted>,
    ) -> Result<Option<(Job, Lease)>, StoreError> {
        let wanted = wanted.into();
        if wanted.kinds.is_empty() {
            return Ok(None);
        }
        let now = self.now();
        {
            // Mostly nothing is due, and finding that out disturbs no writer.
            let mut tx = self.0.db.read().await?;
            if next_turn(&mut tx, &wanted, now).await?.is_none() {
                return Ok(None);
            }
        }
        let mut tx = self.0.db.write().await?;
        let Some(turn) = next_turn(&mut tx, &wanted, now).await? else { return Ok(None) };
        let mut due = QueryBuilder::new("");
        push_due(&mut due, &wanted, (&turn, now));
        let Some(row) = due.build().fetch_optional(&mut tx).await? else { return Ok(None) };
        let mut job = from_row(&row)?;
        let lease = Lease { job: job.id, token: uuid::Uuid::new_v4().to_string() };
        job.status = JobStatus::Running;
        job.attempts = job.attempts.saturating_add(1);
        job.updated_at = now;
        sql::query(
            "UPDATE jobs SET status = 'running', attempts = ?, run_at = ?, lease = ?, node = ?,
                 updated_at = ?
             WHERE id = ?",
        )
        .bind(job.attempts)
        .bind(lease_end(now))
        .bind(&lease.token)
        .bind(&self.0.options.node)
        .bind(now.micros())
        .bind(job.id.to_string())
        .execute(&mut tx)
        .await?;
        sql::query("UPDATE job_turns SET last_at = ? WHERE organization_id = ? AND kind = ?")
            .bind(now.micros())
            .bind(turn.organisation)
            .bind(turn.kind)
            .execute(&mut tx)
            .await?;
        self.commit(tx, After::default()).await?;
        Ok(Some((job, lease)))
    }

    /// Keeps a job for longer; says whether it was still ours.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn renew_job(&self, lease: &Lease) -> Result<bool, StoreError> {
        let now = self.now();
        let mut tx = self.0.db.write().await?;
        let done = sql::query("UPDATE jobs SET run_at = ? WHERE id = ? AND lease = ?")
            .bind(lease_end(now))
            .bind(lease.job.to_string())
            .bind(&lease.token)
            .execute(&mut tx)
            .await?;
        self.commit(tx, After::default()).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes how far a job has come; says whether it was still ours.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn save_job(&self, lease: &Lease, progress: &Value) -> Result<bool, StoreError> {
        let mut tx = self.0.db.write().await?;
        let saved = self.write_progress(&mut tx, lease, progress).await?;
        self.commit(tx, After::default()).await?;
        Ok(saved)
    }

    /// As [`Store::save_job`], within a write that has begun.
    pub(super) async fn write_progress(
        &self,
        tx: &mut Connection,
        lease: &Lease,
        progress: &Value,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE jobs SET progress = ?, updated_at = ? WHERE id = ? AND lease = ?";
        let done = sql::query(sql)
            .bind(to_json(progress)?)
            .bind(self.now().micros())
            .bind(lease.job.to_string())
            .bind(&lease.token)
            .execute(tx)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends a turn at a job; says whether it was still ours.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn end_job(&self, lease: &Lease, end: JobEnd) -> Result<bool, StoreError> {
        let mut tx = self.0.db.write().await?;
        let ours = if end == JobEnd::Done(Value::Null) {
            remove(&mut tx, lease).await?
        } else {
            write_end(&mut tx, lease, (end, self.now())).await?
        };
        self.commit(tx, After::default()).await?;
        Ok(ours)
    }

    /// Gives back every job that this node has a lease on: it was stopped, or killed, and nobody works
    /// at them. Being stopped is no failed attempt, unless it happens again and again.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn release_jobs(&self) -> Result<(), StoreError> {
        let now = self.now().micros();
        let mut tx = self.0.db.write().await?;
        sql::query(
            "UPDATE jobs SET status = 'waiting', run_at = ?1, lease = NULL, node = NULL,
                 updated_at = ?1
             WHERE node = ?2 AND status = 'running'",
        )
        .bind(now)
        .bind(&self.0.options.node)
        .execute(&mut tx)
        .await?;
        self.commit(tx, After::job_added()).await
    }

    /// Forgets jobs that were over more than `age_seconds` ago.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn forget_jobs(&self, age_seconds: i64) -> Result<(), StoreError> {
        let before = self.now().micros().saturating_sub(age_seconds.saturating_mul(MICROS));
        let mut tx = self.0.db.write().await?;
        sql::query(FORGET).bind(before).execute(&mut tx).await?;
        sql::query(FORGET_TURNS).execute(&mut tx).await?;
        self.commit(tx, After::default()).await
    }

    /// Returns when a job was made on this node since the last time.
    pub(crate) async fn job_added(&self) {
        self.0.job_added.notified().await;
    }
}

fn lease_end(now: Timestamp) -> i64 {
    let lease = i64::try_from(JOB_LEASE_SECONDS.value).unwrap_or(i64::MAX).saturating_mul(MICROS);
    now.micros().saturating_add(lease)
}

async fn is_under_way(tx: &mut Connection, new: &NewJob) -> Result<bool, StoreError> {
    let Some(subject) = &new.subject else { return Ok(false) };
    sql::query(
        "SELECT EXISTS (SELECT 1 FROM jobs
             WHERE kind = ? AND subject = ? AND status IN ('waiting', 'running'))",
    )
    .bind(new.kind)
    .bind(subject)
    .fetch_scalar(tx)
    .await
}

async fn remove(tx: &mut Connection, lease: &Lease) -> Result<bool, StoreError> {
    let done = sql::query("DELETE FROM jobs WHERE id = ? AND lease = ?")
        .bind(lease.job.to_string())
        .bind(&lease.token)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn write_end(
    tx: &mut Connection,
    lease: &Lease,
    (end, now): (JobEnd, Timestamp),
) -> Result<bool, StoreError> {
    let again = |after: i64| now.micros().saturating_add(after.saturating_mul(MICROS));
    let (status, run_at, result, error, from_start) = match end {
        JobEnd::Done(result) => (JobStatus::Done, now.micros(), Some(result), None, false),
        JobEnd::Failed(why) => (JobStatus::Failed, now.micros(), None, Some(why), false),
        JobEnd::Again { after_seconds, why } => {
            (JobStatus::Waiting, again(after_seconds), None, Some(why), false)
        }
        JobEnd::Later(at) => (JobStatus::Waiting, at.micros(), None, None, true),
    };
    let done = sql::query(
        "UPDATE jobs SET status = ?, run_at = ?, result = ?, error = ?, lease = NULL,
             node = NULL, attempts = CASE WHEN ? THEN 0 ELSE attempts END, updated_at = ?
         WHERE id = ? AND lease = ?",
    )
    .bind(to_word(status)?)
    .bind(run_at)
    .bind(result.as_ref().map(to_json).transpose()?)
    .bind(error)
    .bind(from_start)
    .bind(now.micros())
    .bind(lease.job.to_string())
    .bind(&lease.token)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Who is next, with what.
pub(super) struct JobTurn {
    pub(super) organisation: String,
    pub(super) kind: String,
}

async fn next_turn(
    tx: &mut Connection,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Option<JobTurn>, StoreError> {
    let mut query = QueryBuilder::new("");
    push_next_turn(&mut query, wanted, now);
    let row = query.build().fetch_optional(tx).await?;
    let turn =
        |row| Ok(JobTurn { organisation: raw(row, "organization_id")?, kind: raw(row, "kind")? });
    row.as_ref().map(turn).transpose()
}

/// The query of [`next_turn`]. It is asked every second, and once more while nobody else may write: it
/// must pass thousands of jobs without reading them, so all that it compares is in indexes. It goes
/// through the turns in their order, asking of each whether anything of it is due, up to the first.
pub(super) fn push_next_turn(query: &mut QueryBuilder, wanted: &Wanted, now: Timestamp) {
    query.push("SELECT s.organization_id, s.kind FROM job_turns s WHERE s.kind IN (");
    push_all(query, wanted.kinds.iter().copied());
    query.push(
        ") AND EXISTS (SELECT 1 FROM jobs t
             WHERE t.organization_id = s.organization_id AND t.kind = s.kind",
    );
    push_is_due(query, wanted, now);
    query
        .push(
            ") AND (SELECT count(*) FROM jobs r
                 WHERE r.organization_id = s.organization_id AND r.status = 'running' AND r.run_at > ",
        )
        .push_bind(now.micros())
        .push(" AND r.kind IN (");
    push_all(query, wanted.kinds.iter().copied());
    query
        .push(")) < ")
        .push_bind(wanted.of_one)
        .push(" ORDER BY s.last_at, s.organization_id LIMIT 1");
}

/// The query for the job that has been due for longest, of those whose turn it is.
pub(super) fn push_due(
    query: &mut QueryBuilder,
    wanted: &Wanted,
    (turn, now): (&JobTurn, Timestamp),
) {
    query.push("SELECT * FROM jobs t WHERE t.organization_id = ").push_bind(&turn.organisation);
    query.push(" AND t.kind = ").push_bind(&turn.kind);
    push_is_due(query, wanted, now);
    query.push(" ORDER BY t.run_at, t.created_at LIMIT 1");
}

/// That `t` may be taken: it waits and its time has come, or it is at work and its lease is over.
fn push_is_due(query: &mut QueryBuilder, wanted: &Wanted, now: Timestamp) {
    query.push(" AND t.status IN ('waiting', 'running') AND t.run_at <= ").push_bind(now.micros());
    if wanted.unleased {
        query.push(" AND t.status = 'waiting'");
    }
    if !wanted.held.is_empty() {
        query.push(" AND t.id NOT IN (");
        push_all(query, wanted.held.iter().map(JobId::to_string));
        query.push(")");
    }
}

fn push_all(query: &mut QueryBuilder, values: impl Iterator<Item = impl Into<sql::Value>>) {
    for (index, value) in values.enumerate() {
        query.push(if index == 0 { "" } else { ", " }).push_bind(value);
    }
}

async fn load(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    (kind, id): (&'static str, JobId),
) -> Result<Job, StoreError> {
    let row = sql::query("SELECT * FROM jobs WHERE id = ? AND organization_id = ? AND kind = ?")
        .bind(id.to_string())
        .bind(scope.organisation().to_string())
        .bind(kind)
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(from_row).ok_or_else(|| StoreError::not_found("Job"))?
}

fn from_row(row: &Row) -> Result<Job, StoreError> {
    Ok(Job {
        id: parsed(row, "id")?,
        organisation: parsed(row, "organization_id")?,
        kind: raw(row, "kind")?,
        payload: json(row, "payload")?,
        progress: json(row, "progress")?,
        status: word(row, "status")?,
        attempts: small(row, "attempts")?,
        result: json_opt(row, "result")?,
        error: raw(row, "error")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
