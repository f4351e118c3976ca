//! The worker processes, and who may use them when.
//!
//! A task waits for its turn ([`turns`](super::turns)), takes an idle worker or starts one, and gives
//! it back. One that died, was too slow or was left in the middle of a task is not given back: the
//! next task starts another. Nothing is started before the first task.
//!
//! A task of a run that somebody waits for fails at once when too many wait; one of a run in the
//! background, which may have done things already, comes again until the time of the run is up.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::ids::OrganisationId;
use config::settings::WorkflowSettings;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout_at};

use super::process::Worker;
use super::turns::Turns;
use super::value;
use super::wire::{Reply, Task, Work};
use crate::clock;

/// What a worker that is asked to give up by itself may take longer, until it is ended.
const GRACE: Duration = Duration::from_millis(100);

/// Pause before a task comes again that found no room.
const COME_AGAIN: Duration = Duration::from_millis(250);

/// Whose task it is, and how patient they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    /// Whose.
    pub organisation: OrganisationId,
    /// When the time is up.
    pub deadline: Instant,
    /// It comes again until then if too many wait.
    pub comes_again: bool,
}

/// How the pool works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// The program that is started; none means this very program.
    pub program: Option<PathBuf>,
    /// Workers at the same time.
    pub workers: usize,
    /// Tasks that may wait for one.
    pub queue: usize,
    /// Memory of each for computing, in MiB.
    pub memory_mib: u32,
    /// How long one task may compute.
    pub limit: Duration,
}

impl From<&WorkflowSettings> for EngineOptions {
    fn from(settings: &WorkflowSettings) -> Self {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            program: settings.worker.clone(),
            workers: count(settings.workers),
            queue: count(settings.queue),
            memory_mib: settings.memory_mib,
            limit: Duration::from_millis(u64::from(settings.step_ms)),
        }
    }
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Too many tasks wait.
    Busy,
    /// The time of the run was up.
    Expired,
    /// The task took longer than a task may.
    TooSlow,
    /// The worker ended, and this is why.
    Died(&'static str),
}

/// A pool. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: EngineOptions,
    turns: Mutex<Turns<oneshot::Sender<Place>>>,
    idle: Mutex<Vec<Worker>>,
}

/// The right to use one worker; dropping it lets the next one go on.
#[derive(Debug)]
struct Place {
    pool: Arc<Inner>,
    organisation: OrganisationId,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.pool.turns).free(self.organisation);
        loop {
            let next = lock(&self.pool.turns).next(oneshot::Sender::is_closed);
            let Some((organisation, waiter)) = next else { break };
            // A waiter that has gone in this moment drops its place, which ends up here again.
            drop(waiter.send(Place { pool: Arc::clone(&self.pool), organisation }));
        }
    }
}

impl Pool {
    pub(super) fn new(options: EngineOptions) -> Self {
        let turns = Turns::new(options.workers.max(1), options.queue);
        Self(Arc::new(Inner { options, turns: Mutex::new(turns), idle: Mutex::default() }))
    }

    /// Has a worker do something for an organisation.
    pub(super) async fn perform(
        &self,
        asker: Asker,
        work: Work,
        (context, names): (&Map<String, Value>, &[(&str, &str)]),
    ) -> Result<Reply, Lost> {
        let Asker { organisation, deadline, .. } = asker;
        let place = self.patient_place(asker).await?;
        let mut worker = self.worker(organisation).map_err(|error| {
            tracing::error!(%error, "no workflow worker could be started");
            Lost::Died("no worker could be started")
        })?;
        match timeout_at(deadline.into(), worker.ready()).await {
            Err(_) => return Err(Lost::Expired),
            Ok(Err(_)) => return Err(Lost::Died(worker.epitaph().await)),
            Ok(Ok(())) => {}
        }
        let limit = self.0.options.limit.min(deadline.saturating_duration_since(clock::now()));
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let names = names.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect();
        let most_values = work.most_values();
        let task = serde_json::to_vec(&Task { limit_ms, names, work });
        let (Ok(task), Ok(context)) = (task, serde_json::to_vec(context)) else {
            return Err(Lost::Died("the context cannot be written"));
        };
        let until = (clock::now() + limit + GRACE).into();
        let reply = match timeout_at(until, worker.exchange(&task, &context)).await {
            Err(_) if clock::now() >= deadline => return Err(Lost::Expired),
            Err(_) => return Err(Lost::TooSlow),
            Ok(Err(_)) => return Err(Lost::Died(worker.epitaph().await)),
            Ok(Ok(reply)) => reply,
        };
        // A worker bounds its replies itself; one that a customer's code had taken over would not.
        if value::holds_more_than(&reply, most_values) {
            return Err(Lost::Died("the worker failed"));
        }
        let reply = serde_json::from_slice(&reply).map_err(|_| Lost::Died("the worker failed"))?;
        if worker.is_fresh() {
            worker.last = Some(organisation);
            lock(&self.0.idle).push(worker);
        }
        drop(place);
        Ok(reply)
    }

    async fn patient_place(&self, asker: Asker) -> Result<Place, Lost> {
        loop {
            match self.place(asker.organisation, asker.deadline).await {
                Err(Lost::Busy) if asker.comes_again => {}
                place => return place,
            }
            if timeout_at(asker.deadline.into(), sleep(COME_AGAIN)).await.is_err() {
                return Err(Lost::Expired);
            }
        }
    }

    async fn place(&self, organisation: OrganisationId, deadline: Instant) -> Result<Place, Lost> {
        let turn = {
            let mut turns = lock(&self.0.turns);
            if turns.take(organisation) {
                return Ok(Place { pool: Arc::clone(&self.0), organisation });
            }
            let (waiter, turn) = oneshot::channel();
            drop(turns.wait(organisation, waiter)); // whoever waits in vain hears of it by that
            turn
        };
        match timeout_at(deadline.into(), turn).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Lost::Busy),
            Err(_) => Err(Lost::Expired),
        }
    }

    /// An idle worker, of the same organisation if there is one, or a new one.
    fn worker(&self, organisation: OrganisationId) -> io::Result<Worker> {
        let idle = {
            let mut idle = lock(&self.0.idle);
            idle.retain_mut(Worker::is_alive);
            let own = idle.iter().rposition(|worker| worker.last == Some(organisation));
            match own {
                Some(index) => Some(idle.swap_remove(index)),
                None => idle.pop(),
            }
        };
        let options = &self.0.options;
        match (idle, &options.program) {
            (Some(worker), _) => Ok(worker),
            (None, Some(program)) => Worker::start(program, options.memory_mib),
            // The running program's own file, even if another has taken its place since.
            (None, None) => Worker::start("/proc/self/exe".as_ref(), options.memory_mib),
        }
    }

    /// Whether an expression or a program took too long, in words.
    pub(super) fn too_slow(&self) -> String {
        format!("it took longer than {} ms and was stopped", self.0.options.limit.as_millis())
    }
}

/// What a panic elsewhere left behind is still whole: no lock is held across one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
