//! Takes jobs that are due and does them, of each group of kinds a bounded number at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Instrument as _, info_span, warn};

use super::{Desk, Job, JobError, Lease, Turn, Work};
use crate::limits::{JOB_ATTEMPTS, JOB_KEPT_SECONDS, JOB_LEASE_SECONDS, JOBS_AT_ONCE, Limit};
use crate::store::{JobEnd, Store, StoreError};

/// How often a node looks for jobs that another one made, or that are due again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(JOB_LEASE_SECONDS.value / 6);

/// How often jobs that are long over are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// How long after the first failed attempt the second begins; doubled each time.
const FIRST_PAUSE_SECONDS: i64 = 2;

/// Longest pause between two attempts.
const LONGEST_PAUSE_SECONDS: i64 = 300;

/// Does jobs of the kinds it was told about.
pub struct Runner {
    store: Store,
    works: HashMap<&'static str, Arc<dyn Work>>,
    /// The first is of the kinds that have no places of their own.
    groups: Vec<Group>,
}

/// Kinds that share places. While all are taken, no job of these kinds is claimed; the other groups
/// go on.
struct Group {
    kinds: Vec<&'static str>,
    places: Arc<Semaphore>,
}

impl Group {
    fn new(kinds: Vec<&'static str>, places: Limit) -> Self {
        Self { kinds, places: Arc::new(Semaphore::new(places.value_usize())) }
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("kinds", &self.works.keys()).finish_non_exhaustive()
    }
}

impl Runner {
    /// A runner that knows no kind yet, and leaves all jobs to others.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, works: HashMap::new(), groups: vec![Group::new(Vec::new(), JOBS_AT_ONCE)] }
    }

    /// Does jobs of this kind too, in the places that all kinds share which have none of their own.
    #[must_use]
    pub fn with(mut self, kind: &'static str, work: Arc<dyn Work>) -> Self {
        self.works.insert(kind, work);
        if let Some(shared) = self.groups.first_mut() {
            shared.kinds.push(kind);
        }
        self
    }

    /// Does jobs of this kind too, in so many places of their own: for work that may take so long that
    /// the other kinds must not wait for it.
    #[must_use]
    pub fn with_places(mut self, kind: &'static str, work: Arc<dyn Work>, places: Limit) -> Self {
        self.works.insert(kind, work);
        self.groups.push(Group::new(vec![kind], places));
        self
    }

    /// Works until `stop` becomes true. What is then being done is left for the next start.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let runner = Arc::new(self);
        runner.take_back().await;
        let mut running = JoinSet::new();
        let mut look = interval(LOOK_EVERY);
        let mut forget = interval(FORGET_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                _ = forget.tick() => runner.forget().await,
                _ = look.tick() => {}
                () = runner.store.job_added() => {}
                Some(_) = running.join_next() => {}
            }
            for group in &runner.groups {
                runner.fill(group, &mut running).await;
            }
        }
        running.shutdown().await;
        runner.take_back().await;
    }

    /// Does the jobs that are due now, one after the other: for tests and tools.
    pub async fn run_due(self) {
        while let Some((job, lease)) = self.claim_any().await {
            self.work(job, lease).await;
        }
    }

    /// Whatever this node has a lease on, nobody works at it: it may be begun again at once.
    async fn take_back(&self) {
        if let Err(error) = self.store.release_jobs().await {
            warn!(%error, "jobs of the last run wait until their leases are over");
        }
    }

    async fn forget(&self) {
        let age = i64::try_from(JOB_KEPT_SECONDS.value).unwrap_or(i64::MAX);
        if let Err(error) = self.store.forget_jobs(age).await {
            warn!(%error, "old jobs are kept for now");
        }
        if let Err(error) = self.store.end_lost_executions().await {
            warn!(%error, "runs of workflows on nodes that are gone seem to go on");
        }
    }

    /// Begins jobs of a group until its places are taken or none is due.
    async fn fill(self: &Arc<Self>, group: &Group, running: &mut JoinSet<()>) {
        while let Ok(place) = Arc::clone(&group.places).try_acquire_owned() {
            let Some((job, lease)) = self.claim(group).await else { break };
            let runner = Arc::clone(self);
            running.spawn(async move {
                runner.work(job, lease).await;
                drop(place);
            });
        }
    }

    async fn claim_any(&self) -> Option<(Job, Lease)> {
        for group in &self.groups {
            if let Some(claimed) = self.claim(group).await {
                return Some(claimed);
            }
        }
        None
    }

    async fn claim(&self, group: &Group) -> Option<(Job, Lease)> {
        match self.store.claim_job(&group.kinds).await {
            Ok(claimed) => claimed,
            Err(error) => {
                warn!(%error, "jobs wait for the store");
                None
            }
        }
    }

    async fn work(&self, job: Job, lease: Lease) {
        let span = info_span!("job", id = %job.id, kind = job.kind, attempt = job.attempts);
        self.attempt(&job, lease).instrument(span).await;
    }

    async fn attempt(&self, job: &Job, lease: Lease) {
        let Some(work) = self.works.get(job.kind.as_str()) else { return };
        let desk = Desk::new(self.store.clone(), lease.clone());
        let outcome = if u64::from(job.attempts) > JOB_ATTEMPTS.value {
            Err(JobError::Final("begun too often without coming to an end".to_owned()))
        } else {
            tokio::select! {
                outcome = work.run(job, &desk) => outcome,
                () = self.keep(&lease) => Err(JobError::LeaseLost),
            }
        };
        let end = match outcome {
            Ok(Turn::Done(result)) => JobEnd::Done(result),
            Ok(Turn::Later(at)) => JobEnd::Later(at),
            Err(JobError::LeaseLost) => return warn!("another node has the job"),
            Err(JobError::Passing(why)) if u64::from(job.attempts) < JOB_ATTEMPTS.value => {
                warn!(why, "the job will be tried again");
                JobEnd::Again { after_seconds: pause(job.attempts), why }
            }
            Err(JobError::Passing(why) | JobError::Final(why)) => {
                warn!(why, "the job has failed");
                if let Err(error) = work.give_up(job).await {
                    // The lease is let lapse, so that giving up is tried again.
                    return warn!(%error, "what the job leaves behind stays for now");
                }
                JobEnd::Failed(why)
            }
        };
        self.end(&lease, end).await;
    }

    async fn end(&self, lease: &Lease, end: JobEnd) {
        match self.store.end_job(lease, end).await {
            Ok(true) => {}
            Ok(false) => warn!("another node has the job"),
            Err(error) => warn!(%error, "how the job ended is not written: it will be done again"),
        }
    }

    /// Renews a lease for as long as that works.
    async fn keep(&self, lease: &Lease) {
        let mut every = interval(RENEW_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every.tick().await; // the first is at once
        loop {
            every.tick().await;
            match self.store.renew_job(lease).await {
                Ok(true) => {}
                Ok(false) => return,
                // Another turn may find the store again; if not, the lease lapses and writes fail.
                Err(StoreError::Unavailable(why)) => warn!(%why, "a lease is not renewed"),
                Err(error) => warn!(%error, "a lease is not renewed"),
            }
        }
    }
}

/// Seconds before the next attempt.
fn pause(attempts: u32) -> i64 {
    let doubled = FIRST_PAUSE_SECONDS << attempts.saturating_sub(1).min(16);
    doubled.min(LONGEST_PAUSE_SECONDS)
}

/// The progress of a job, read as what its work keeps there; nothing at all is the beginning.
pub(crate) fn progress<T: serde::de::DeserializeOwned + Default>(job: &Job) -> T {
    match &job.progress {
        Value::Null => T::default(),
        value => serde_json::from_value(value.clone()).unwrap_or_default(),
    }
}

/// Returns when `stop` is true, or nobody is left to make it so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses: Vec<i64> = [1, 2, 3, 5, 20, u32::MAX].into_iter().map(pause).collect();
        assert_eq!(pauses, [2, 4, 8, 32, 300, 300]);
    }
}
