//! Takes jobs that are due and does them, of each group of kinds a bounded number at a time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{Instrument as _, info, info_span, warn};

use super::{Desk, Job, JobError, Lease, Turn, Work};
use crate::ids::JobId;
use crate::limits::{
    JOB_ATTEMPTS, JOB_KEPT_SECONDS, JOB_LEASE_SECONDS, JOBS_AT_ONCE, JOBS_OF_ORGANIZATION, Limit,
};
use crate::store::{JobEnd, Store, StoreError, Wanted};

/// How often a node looks for jobs that another one made, or that are due again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(JOB_LEASE_SECONDS.value / 6);

/// For how long after the store was away leases that are over are left to their holders: they were
/// away as well, and each renews its own within this time.
const RENEWED_WITHIN: Duration = Duration::from_secs(JOB_LEASE_SECONDS.value / 3);

/// How often runs are looked for whose node is gone.
const END_LOST_EVERY: Duration = Duration::from_secs(60);

/// How often jobs that are long over are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// How long after the first failed attempt the second begins; doubled each time.
const FIRST_PAUSE_SECONDS: i64 = 2;

/// Longest pause between two attempts.
const LONGEST_PAUSE_SECONDS: i64 = 300;

/// What became of a job whose lease is lost.
const TAKEN: &str = "the job is not ours any more: it was cancelled, or another node has it";

/// Does jobs of the kinds it was told about.
pub struct Runner {
    store: Store,
    works: HashMap<&'static str, Arc<dyn Work>>,
    /// The first is of the kinds that have no places of their own.
    groups: Vec<Group>,
    /// What is being done here. A lease that could not be renewed in time is over for the others; here
    /// it is known that somebody is at the job.
    held: Held,
    /// When the store last could not be asked for jobs.
    away_at: Mutex<Option<Instant>>,
}

/// The jobs that are being done.
#[derive(Debug, Clone, Default)]
struct Held(Arc<Mutex<HashSet<JobId>>>);

/// That a job is being done; dropping it says that it no longer is.
#[derive(Debug)]
struct Hold(Held, JobId);

impl Held {
    fn hold(&self, id: JobId) -> Hold {
        lock(&self.0).insert(id);
        Hold(self.clone(), id)
    }

    fn ids(&self) -> Vec<JobId> {
        lock(&self.0).iter().copied().collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.0.0).remove(&self.1);
    }
}

/// A job that this node is to do.
struct Claimed {
    job: Job,
    lease: Lease,
    hold: Hold,
}

/// Kinds that share places. While all are taken, no job of these kinds is claimed; the other groups
/// go on.
struct Group {
    kinds: Vec<&'static str>,
    places: Arc<Semaphore>,
    /// Jobs of one organisation at a time, on all nodes.
    of_one: Limit,
}

impl Group {
    fn new(kinds: Vec<&'static str>, (places, of_one): (Limit, Limit)) -> Self {
        Self { kinds, places: Arc::new(Semaphore::new(places.value_usize())), of_one }
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
        Self {
            store,
            works: HashMap::new(),
            groups: vec![Group::new(Vec::new(), (JOBS_AT_ONCE, JOBS_OF_ORGANIZATION))],
            held: Held::default(),
            away_at: Mutex::default(),
        }
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

    /// Does jobs of this kind too, in so many places of their own, of which an organisation has so many at
    /// a time: for work that may take so long that the other kinds must not wait for it.
    #[must_use]
    pub fn with_places(
        mut self,
        kind: &'static str,
        work: Arc<dyn Work>,
        places: (Limit, Limit),
    ) -> Self {
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
        let mut end_lost = interval(END_LOST_EVERY);
        let mut forget = interval(FORGET_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                _ = forget.tick() => runner.forget().await,
                _ = end_lost.tick() => runner.end_lost().await,
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
        while let Some(claimed) = self.claim_any().await {
            self.work(claimed).await;
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
    }

    async fn end_lost(&self) {
        if let Err(error) = self.store.end_lost_executions().await {
            warn!(%error, "runs of workflows on nodes that are gone seem to go on");
        }
    }

    /// Begins jobs of a group until its places are taken or none is due.
    async fn fill(self: &Arc<Self>, group: &Group, running: &mut JoinSet<()>) {
        while let Ok(place) = Arc::clone(&group.places).try_acquire_owned() {
            let Some(claimed) = self.claim(group).await else { break };
            let runner = Arc::clone(self);
            running.spawn(async move {
                runner.work(claimed).await;
                drop(place);
            });
        }
    }

    async fn claim_any(&self) -> Option<Claimed> {
        for group in &self.groups {
            if let Some(claimed) = self.claim(group).await {
                return Some(claimed);
            }
        }
        None
    }

    async fn claim(&self, group: &Group) -> Option<Claimed> {
        let unleased = lock(&self.away_at).is_some_and(|at| at.elapsed() < RENEWED_WITHIN);
        let wanted = Wanted {
            kinds: group.kinds.clone(),
            held: self.held.ids(),
            unleased,
            of_one: group.of_one.value_u32(),
        };
        match self.store.claim_job(wanted).await {
            Ok(claimed) => claimed.map(|(job, lease)| {
                let hold = self.held.hold(job.id);
                Claimed { job, lease, hold }
            }),
            Err(error) => {
                warn!(%error, "jobs wait for the store");
                *lock(&self.away_at) = Some(Instant::now());
                None
            }
        }
    }

    async fn work(&self, Claimed { job, lease, hold }: Claimed) {
        let span = info_span!("job", id = %job.id, kind = job.kind, attempt = job.attempts);
        self.attempt(&job, lease).instrument(span).await;
        drop(hold);
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
            Err(JobError::LeaseLost) => return info!("{TAKEN}"),
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
            Ok(false) => info!("{TAKEN}"),
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

/// What a panic elsewhere left behind is still whole: no lock is held across one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
