//! The media workers: operating-system threads that own sockets and sessions and nothing else.
//!
//! ```text
//!  signalling              worker thread (one per core but one)                 network
//!  ──────────              ──────────────────────────────────────               ───────
//!  open, apply, ─mailbox─► ┌ epoll ─────────────────────────────┐ ◄─ RTP, RTCP ─ peers
//!  gate, close   +bell     │ bells │ 20 ms alarm │ leg sockets  │ ── RTP, RTCP ─►
//!                          └────────────────────────────────────┘
//!  events       ◄───────────┘      ▲ frames (rings), a bell each way
//!  agent links  ◄──────────────────┘
//!
//!  housekeeper: watches heartbeats, returns ports, delivers reports (normal priority)
//! ```
//!
//! A session lives on one worker from open to close, so nothing on a packet's way is shared. The two
//! legs of a call are two sessions beside each other ([`Workers::open_beside`]), and each is the
//! other's far side ([`Workers::bridge`]): what one receives the other sends at once.
//!
//! ```no_run
//! # use std::io;
//! # use media::command::{Far, LegOptions, Open, SessionKey};
//! # use media::ports::PortPair;
//! # use media::sdp::Plan;
//! # use media::worker::{WorkerOptions, Workers};
//! # fn call(ports: PortPair, plan: Plan, peer: std::net::IpAddr) -> Result<(), Box<dyn std::error::Error>> {
//! let workers = Workers::start(&WorkerOptions::default(), Box::new(|event| println!("{event:?}")))?;
//! let key = SessionKey(1);
//! let options = LegOptions::new(peer, [0x5a; 32]); // fresh random bytes, of course
//! workers.open(key, Open { ports, plan, far: Far::Echo, options })?;
//! workers.gate(key, true)?; // the call is answered: audio flows
//! workers.close(key, |report| println!("{:?}", report.quality))?;
//! # Ok(())
//! # }
//! ```
//!
//! After a stall the alarm says how many ticks were missed. Those of the last 60 ms are made up for at
//! once, the sockets having been read first, so that a short stall costs nobody a frame. Of a longer
//! one the rest is left out: sessions let that time pass, packets that lay in the kernel for more
//! than 60 ms are not played, and the peer hears a gap and never a burst of more than 60 ms.

mod bridging;
mod housekeeper;
mod metrics;
mod network;
mod receiving;
mod schedule;
mod slab;
pub(crate) mod sys;
mod thread;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::clock::{self, WallAnchor};
use crate::command::{Command, CommandError, Event, Far, Open, Reply, SessionKey, WorkerId};
use crate::doorbell::Doorbell;
use crate::report::LegReport;
use crate::sdp::Plan;
use crate::session::{Cleaning, Session};

pub use metrics::{Drops, RESIDENCE_BUCKETS, Residence, WorkerMetrics};
pub use schedule::Class;

use housekeeper::Housekeeper;
use metrics::Counters;
use schedule::Heartbeat;
use sys::Bell;
use thread::Worker;

/// How [`Workers`] are made.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Threads; zero for one per core but one, and at least one.
    pub threads: usize,
    /// Ask for real-time priority; without the right to it the best that is permitted is taken.
    pub realtime: bool,
    /// Commands that may wait for one worker. Over it, `open`, `apply` and `gate` are refused.
    pub mailbox: usize,
    /// Sessions one worker takes. Over it, `open` is refused.
    pub max_sessions: usize,
    /// Ring the tick bell as soon as an agent was given something instead of once in 20 ms. Its
    /// listener then hears it often, and a [`crate::board::Board`] tells whom it is for.
    pub prompt_bell: bool,
    /// Let commands wait for [`Workers::wake`] instead of waking a worker with each. For who gives many
    /// at a time: where both share a core, a command then costs no change of threads and back.
    pub gathered: bool,
}

impl Default for WorkerOptions {
    /// One thread per core but one, real-time, 1024 commands, 2000 sessions each, one bell a tick, each
    /// command heard at once.
    fn default() -> Self {
        Self {
            threads: 0,
            realtime: true,
            mailbox: 1_024,
            max_sessions: 2_000,
            prompt_bell: false,
            gathered: false,
        }
    }
}

/// Commands that are gathered before a worker is woken in any case.
const GATHERED: usize = 64;

/// Receives what workers tell on their own account; called on their threads.
pub(crate) type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// All workers of the program. Dropping it closes every session and ends the threads.
pub struct Workers {
    links: Vec<Link>,
    routes: Mutex<HashMap<SessionKey, WorkerId>>,
    housekeeper: Housekeeper,
    max_sessions: usize,
}

/// What the rest of the program holds of one worker.
struct Link {
    mailbox: SyncSender<Command>,
    shared: Arc<Shared>,
    /// Sessions routed to this worker, opened or about to be.
    load: AtomicUsize,
    gathered: bool,
    /// Commands wait for [`Workers::wake`].
    unheard: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

/// What a worker shares with the rest of the program: bells and numbers.
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    pub(crate) heartbeat: Heartbeat,
    /// Rung when something was put into the mailbox.
    pub(crate) mail: Bell,
    /// Rung when agents were given something.
    pub(crate) tick: Bell,
    /// Knocked at when an agent has said something that was awaited; a session's door is its slot.
    pub(crate) speech: Arc<Doorbell>,
}

impl Shared {
    fn new(max_sessions: usize) -> io::Result<Self> {
        Ok(Self {
            counters: Counters::default(),
            heartbeat: Heartbeat::new(clock::now()),
            mail: Bell::new()?,
            tick: Bell::new()?,
            speech: Arc::new(Doorbell::new(max_sessions)?),
        })
    }
}

impl Workers {
    /// Starts the threads. `events` is called on them and must not wait for anything.
    ///
    /// # Errors
    /// When the system refuses a thread, a descriptor or a timer.
    pub fn start(
        options: &WorkerOptions,
        events: Box<dyn Fn(Event) + Send + Sync>,
    ) -> io::Result<Self> {
        let events: Events = events.into();
        let mut workers = Self {
            links: Vec::new(),
            routes: Mutex::default(),
            housekeeper: Housekeeper::start()?,
            max_sessions: options.max_sessions,
        };
        for index in 0..threads(options.threads) {
            let link = workers.start_one(index, options, &events)?;
            workers.links.push(link);
        }
        Ok(workers)
    }

    fn start_one(
        &self,
        index: usize,
        options: &WorkerOptions,
        events: &Events,
    ) -> io::Result<Link> {
        let (mailbox, commands) = sync_channel(options.mailbox.max(1));
        let (ready, is_ready) = sync_channel(1);
        let shared = Arc::new(Shared::new(options.max_sessions)?);
        let worker = Worker::new(
            Arc::clone(&shared),
            commands,
            self.housekeeper.finished(),
            Arc::clone(events),
            options,
        )?;
        let realtime = options.realtime;
        let thread =
            std::thread::Builder::new().name(format!("media-{index}")).spawn(move || {
                let worker = worker.enter(realtime);
                // The receiver waits for this; that it has gone would be no reason to stop.
                let _ = ready.send(());
                worker.run();
            })?;
        let _ = is_ready.recv();
        self.housekeeper.watch(Arc::clone(&shared));
        Ok(Link {
            mailbox,
            shared,
            load: AtomicUsize::new(0),
            gathered: options.gathered,
            unheard: AtomicBool::new(false),
            thread: Some(thread),
        })
    }

    /// Opens a session on the worker that has the fewest. Its gate is shut.
    ///
    /// # Errors
    /// [`CommandError::Full`] when all workers have their sessions, `MailboxFull` when this one has
    /// too much to do; the ports go back to their pool.
    pub fn open(&self, key: SessionKey, open: Open) -> Result<WorkerId, CommandError> {
        let loads = self.links.iter().map(|link| link.load.load(Ordering::Relaxed));
        let (index, _) =
            loads.enumerate().min_by_key(|(_, load)| *load).ok_or(CommandError::MailboxFull)?;
        self.open_on(WorkerId(index), key, open)
    }

    /// Opens a session on the worker of another one, so that the two can be bridged. Its gate is
    /// shut.
    ///
    /// # Errors
    /// [`CommandError::Unknown`] when there is no session `beside`, `Full` and `MailboxFull` when its
    /// worker takes no more; the ports go back to their pool.
    pub fn open_beside(
        &self,
        key: SessionKey,
        beside: SessionKey,
        open: Open,
    ) -> Result<WorkerId, CommandError> {
        let worker = *self.routes().get(&beside).ok_or(CommandError::Unknown)?;
        self.open_on(worker, key, open)
    }

    fn open_on(
        &self,
        worker: WorkerId,
        key: SessionKey,
        open: Open,
    ) -> Result<WorkerId, CommandError> {
        let link = self.links.get(worker.0).ok_or(CommandError::Unknown)?;
        if link.load.load(Ordering::Relaxed) >= self.max_sessions {
            return Err(CommandError::Full);
        }
        let Open { ports, plan, far, options } = open;
        // Everything the session will ever need is allocated here, not on the worker.
        let session = Box::new(Session::new(key, &plan, far, &options, WallAnchor::now()));
        let mut routes = self.routes();
        link.post(Command::Open { session, ports }).map_err(|_| CommandError::MailboxFull)?;
        link.load.fetch_add(1, Ordering::Relaxed);
        routes.insert(key, worker);
        Ok(worker)
    }

    /// Gives a session a new plan: after a re-INVITE or an UPDATE.
    ///
    /// # Errors
    /// [`CommandError`]; after `MailboxFull` the old plan is still in force.
    pub fn apply(&self, key: SessionKey, plan: Plan) -> Result<(), CommandError> {
        self.post(key, Command::Apply { key, plan: Box::new(plan) })
    }

    /// Opens or shuts the gate between caller and far side. It is opened when the call is answered:
    /// the far side's first frame goes out with the next tick and every 20 ms from then on.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn gate(&self, key: SessionKey, open: bool) -> Result<(), CommandError> {
        self.post(key, Command::Gate { key, open })
    }

    /// Puts something else at the far end of a session: an announcement, another agent. What the
    /// old one had queued is not played. If it was bridged, the other session hears silence from
    /// then on, as it does when this one is closed.
    ///
    /// # Errors
    /// [`CommandError`]; `far` is dropped then.
    pub fn connect(&self, key: SessionKey, far: Far) -> Result<(), CommandError> {
        self.post(key, Command::Connect { key, far: Box::new(far.into()) })
    }

    /// Makes two sessions of one worker (see [`Workers::open_beside`]) each other's far side: what
    /// the peer of one says goes to the peer of the other at once, packet by packet, once both gates
    /// are open. Whatever stood at their far ends before is dropped.
    ///
    /// # Errors
    /// [`CommandError`]; `Apart` when they live on different workers or are one and the same.
    pub fn bridge(&self, a: SessionKey, b: SessionKey) -> Result<(), CommandError> {
        let worker = |key| self.routes().get(&key).copied().ok_or(CommandError::Unknown);
        if a == b || worker(a)? != worker(b)? {
            return Err(CommandError::Apart);
        }
        self.post(a, Command::Bridge { a, b })
    }

    /// Presses a key at the session's peer, whatever its far side: as telephone events (RFC 4733),
    /// or as tones if the peer has not agreed to those. For keys that came another way, such as by
    /// INFO on the other leg. What is no key is ignored; `duration_ms` is brought between 40 and
    /// 8,000.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn digit(
        &self,
        key: SessionKey,
        digit: char,
        duration_ms: u32,
    ) -> Result<(), CommandError> {
        self.post(key, Command::Digit { key, digit, duration_ms })
    }

    /// Turns noise cancellation of what the caller says on or off.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn noise_cancellation(&self, key: SessionKey, on: bool) -> Result<(), CommandError> {
        let suppressor = on.then(|| Box::new(Cleaning::new()));
        self.post(key, Command::Noise { key, suppressor })
    }

    /// Ends a session: RTCP BYE, then the ports go into quarantine and `reply` gets the report,
    /// on a thread of normal priority. It is never refused for lack of room.
    ///
    /// # Errors
    /// [`CommandError::Unknown`]; `reply` is dropped then.
    pub fn close(
        &self,
        key: SessionKey,
        reply: impl FnOnce(LegReport) + Send + 'static,
    ) -> Result<(), CommandError> {
        let worker = self.routes().remove(&key).ok_or(CommandError::Unknown)?;
        let link = self.links.get(worker.0).ok_or(CommandError::Unknown)?;
        link.load.fetch_sub(1, Ordering::Relaxed);
        let reply: Reply = Box::new(reply);
        if let Err(refused) = link.post(Command::Close { key, reply }) {
            // Bounded by the number of sessions: each is closed once.
            self.housekeeper.post_later(link.mailbox.clone(), Arc::clone(&link.shared), refused);
        }
        Ok(())
    }

    /// Asks what is known of a session so far; it goes on. `reply` gets it on a thread of normal
    /// priority.
    ///
    /// # Errors
    /// [`CommandError`]; `reply` is dropped then.
    pub fn report(
        &self,
        key: SessionKey,
        reply: impl FnOnce(LegReport) + Send + 'static,
    ) -> Result<(), CommandError> {
        self.post(key, Command::Report { key, reply: Box::new(reply) })
    }

    /// Wakes the workers that have been given commands since the last time; of use with
    /// [`WorkerOptions::gathered`].
    pub fn wake(&self) {
        for link in &self.links {
            if link.unheard.swap(false, Ordering::Relaxed) {
                link.shared.mail.ring();
            }
        }
    }

    /// How many workers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// Sessions that each of them takes.
    #[must_use]
    pub fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// A descriptor of the worker's tick bell (`eventfd(2)`, non-blocking): readable after each tick
    /// if agents were given something since the one before, and at once with
    /// [`WorkerOptions::prompt_bell`]. Reading its eight bytes silences it until the next time.
    ///
    /// # Errors
    /// `NotFound` for a worker that does not exist, or when the system is out of descriptors.
    pub fn tick_fd(&self, worker: WorkerId) -> io::Result<OwnedFd> {
        let link = self.links.get(worker.0).ok_or(io::ErrorKind::NotFound)?;
        link.shared.tick.duplicate()
    }

    /// The worst scheduling class among the workers.
    #[must_use]
    pub fn class(&self) -> Class {
        let classes = self.links.iter().map(|link| link.shared.heartbeat.class());
        classes.max().unwrap_or(Class::Normal)
    }

    /// What each worker counts.
    #[must_use]
    pub fn metrics(&self) -> Vec<WorkerMetrics> {
        let read = |link: &Link| link.shared.counters.read(link.shared.heartbeat.class());
        self.links.iter().map(read).collect()
    }

    fn post(&self, key: SessionKey, command: Command) -> Result<(), CommandError> {
        let worker = *self.routes().get(&key).ok_or(CommandError::Unknown)?;
        let link = self.links.get(worker.0).ok_or(CommandError::Unknown)?;
        link.post(command).map_err(|_| CommandError::MailboxFull)
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<SessionKey, WorkerId>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for link in &mut self.links {
            // Waits for room if need be; a worker that is gone has nothing to stop.
            link.shared.counters.mailbox.fetch_add(1, Ordering::Relaxed);
            if link.mailbox.send(Command::Stop).is_ok() {
                link.shared.mail.ring();
            }
        }
        for thread in self.links.iter_mut().filter_map(|link| link.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Link {
    /// Puts `command` into the mailbox, or hands it back.
    fn post(&self, command: Command) -> Result<(), TrySendError<Command>> {
        let outcome = put(&self.mailbox, &self.shared, command);
        match outcome {
            Ok(waiting) if self.gathered && waiting < GATHERED => {
                self.unheard.store(true, Ordering::Relaxed);
            }
            _ => self.shared.mail.ring(), // a full mailbox may be one that was not heard of
        }
        outcome.map(drop)
    }
}

/// Puts `command` into a worker's mailbox and says how many wait there, or hands the command back.
fn put(
    mailbox: &SyncSender<Command>,
    shared: &Shared,
    command: Command,
) -> Result<usize, TrySendError<Command>> {
    // Counted first: the worker may have taken it before we are back here.
    let waiting = shared.counters.mailbox.fetch_add(1, Ordering::Relaxed) + 1;
    match mailbox.try_send(command) {
        Ok(()) => Ok(waiting),
        Err(refused) => {
            shared.counters.mailbox.fetch_sub(1, Ordering::Relaxed);
            Err(refused)
        }
    }
}

/// `asked`, or one per core but one: that one is for signalling.
fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1),
        asked => asked,
    }
}

#[cfg(test)]
mod tests;
