//! The housekeeper: a thread of normal priority for what must not happen on a media worker.
//!
//! It is the canary that demotes a stuck worker, it frees closed sessions and sends their ports into
//! quarantine, it delivers reports, and it posts what did not fit a mailbox.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Shared, put};
use crate::clock;
use crate::command::{Command, Reply};
use crate::ports::{PortPair, PortPool};
use crate::report::LegReport;
use crate::session::Session;

/// A session that is over, on its way out.
pub(crate) struct Finished {
    pub(crate) report: LegReport,
    pub(crate) reply: Option<Reply>,
    /// `None` for a session that never was.
    pub(crate) remains: Option<(Box<Session>, PortPair)>,
}

impl Finished {
    /// Frees what is left and delivers the report. The ports go first, so that whoever gets the
    /// report finds them counted right.
    pub(crate) fn conclude(self) -> Option<PortPool> {
        let pool = self.remains.map(|(session, ports)| {
            drop(session);
            let pool = ports.pool();
            drop(ports);
            pool
        });
        if let Some(reply) = self.reply {
            deliver(reply, self.report);
        }
        pool
    }
}

/// The handle of the thread; dropping it ends the thread.
pub(super) struct Housekeeper {
    finished: Option<SyncSender<Finished>>,
    duties: Arc<Duties>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Duties {
    watched: Mutex<Vec<Arc<Shared>>>,
    later: Mutex<VecDeque<Later>>,
}

struct Later {
    mailbox: SyncSender<Command>,
    shared: Arc<Shared>,
    command: Command,
}

impl Housekeeper {
    pub(super) fn start() -> io::Result<Self> {
        let (finished, inbox) = sync_channel(INBOX);
        let duties = Arc::new(Duties::default());
        let own = Arc::clone(&duties);
        let thread = std::thread::Builder::new()
            .name("media-housekeeper".into())
            .spawn(move || run(&inbox, &own))?;
        Ok(Self { finished: Some(finished), duties, thread: Some(thread) })
    }

    /// Where workers put closed sessions.
    pub(super) fn finished(&self) -> SyncSender<Finished> {
        self.finished.clone().expect("the sender is there until the housekeeper is dropped")
    }

    /// Watches one more worker.
    pub(super) fn watch(&self, worker: Arc<Shared>) {
        lock(&self.duties.watched).push(worker);
    }

    /// Posts what was `refused` as soon as there is room.
    pub(super) fn post_later(
        &self,
        mailbox: SyncSender<Command>,
        shared: Arc<Shared>,
        refused: TrySendError<Command>,
    ) {
        match refused {
            TrySendError::Full(command) => {
                lock(&self.duties.later).push_back(Later { mailbox, shared, command });
            }
            TrySendError::Disconnected(command) => give_up(command),
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        // The workers have dropped theirs: this was the last sender, and the thread comes to its end.
        self.finished = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(inbox: &Receiver<Finished>, duties: &Duties) {
    let mut pools: Vec<PortPool> = Vec::new();
    let mut round = clock::now();
    loop {
        match inbox.recv_timeout(ROUND) {
            Ok(finished) => remember(&mut pools, finished.conclude()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = clock::now();
        if now.saturating_duration_since(round) >= ROUND {
            go_round(duties, &pools, (round, now));
            round = now;
        }
    }
    // The workers are gone: what still waits for room in a mailbox will find none.
    for Later { command, .. } in lock(&duties.later).drain(..) {
        give_up(command);
    }
}

fn go_round(duties: &Duties, pools: &[PortPool], (before, now): (Instant, Instant)) {
    // If we were not running ourselves, nobody was: a stopped process is no stuck worker.
    if now.saturating_duration_since(before) < 3 * ROUND {
        for worker in lock(&duties.watched).iter() {
            worker.heartbeat.watch(now);
        }
    }
    let mut later = lock(&duties.later);
    for _ in 0..later.len() {
        let Some(Later { mailbox, shared, command }) = later.pop_front() else { break };
        match put(&mailbox, &shared, command) {
            Ok(_) => shared.mail.ring(),
            Err(TrySendError::Full(command)) => {
                later.push_back(Later { mailbox, shared, command });
            }
            Err(TrySendError::Disconnected(command)) => give_up(command),
        }
    }
    drop(later);
    for pool in pools {
        pool.sweep(now);
    }
}

/// The worker is gone, and its sessions with it: whoever waits for a report gets an empty one.
pub(super) fn give_up(command: Command) {
    if let Command::Close { reply, .. } | Command::Report { reply, .. } = command {
        deliver(reply, LegReport::default());
    }
}

/// A receiver that panics harms nobody but itself.
fn deliver(reply: Reply, report: LegReport) {
    if catch_unwind(AssertUnwindSafe(|| reply(report))).is_err() {
        tracing::error!("the receiver of a media report panicked");
    }
}

/// Pools are few and live as long as the program: those seen are swept from then on.
fn remember(pools: &mut Vec<PortPool>, pool: Option<PortPool>) {
    if let Some(pool) = pool.filter(|pool| !pools.iter().any(|known| known.is_same(pool))) {
        pools.push(pool);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time between two rounds.
const ROUND: Duration = Duration::from_millis(50);

/// Closed sessions that may wait; over it the worker concludes them itself.
const INBOX: usize = 1_024;
