//! One worker thread: wait, tick, obey, receive.
//!
//! Every piece of work is bounded, so the next tick is never far: [`Ready::MAX`] descriptors per
//! wake-up, [`COMMANDS_PER_TURN`], and of each socket and each leg so many datagrams as
//! [`super::receiving`] reads before it leaves the rest to the kernel.
//!
//! A tick that is on time comes first, because what it sends is awaited. One that is late comes
//! after the sockets: the packets it is about to play have arrived while the worker was stalled.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use super::housekeeper::{Finished, give_up};
use super::metrics::Counters;
use super::network::{Network, connect, join, leave, unmute};
use super::schedule::{Arrears, enter_class};
use super::slab::{Slab, SlabKey};
use super::sys::{Alarm, Poller, Ready};
use super::{Events, Shared, WorkerOptions};
use crate::clock::{self, WallAnchor};
use crate::command::{Command, Event, Reply, SessionKey};
use crate::frame::FRAME_MS;
use crate::ports::PortPair;
use crate::report::LegReport;
use crate::session::{DATAGRAM_BYTES, Session};

/// A worker before and while it runs.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    commands: Receiver<Command>,
    finished: SyncSender<Finished>,
    pub(super) events: Events,
    pub(super) poller: Poller,
    alarm: Alarm,
    /// The deadline of the last tick.
    deadline: Instant,
    /// When it was last woken, and how often it was.
    pub(super) woken: Instant,
    pub(super) wakes: u32,
    /// There may have been more than it found then.
    pub(super) was_full: bool,
    /// What stands for the arrival of datagrams that are not late: when it was woken, or the tick it
    /// was woken for, so that no session's time goes back.
    pub(super) moment: Instant,
    /// The kernel is asked when datagrams have arrived.
    pub(super) stamped: bool,
    /// Both clocks as they were at the last tick: what the kernel's stamps are understood by.
    pub(super) anchor: WallAnchor,
    pub(super) tenants: Slab<Tenant>,
    pub(super) keys: HashMap<SessionKey, SlabKey>,
    pub(super) buffer: Box<[u8; DATAGRAM_BYTES]>,
    /// Time spent since the last tick on sessions that are cleaned as packets come.
    pub(super) cleaning: Duration,
    /// Agents were given something, and the bell was not rung since.
    pub(super) fed_agents: bool,
    prompt_bell: bool,
    /// Sockets that may still be connected in this tick.
    connections_left: u8,
}

/// A session and its sockets.
pub(super) struct Tenant {
    pub(super) session: Box<Session>,
    pub(super) ports: PortPair,
    /// The session it is bridged with.
    pub(super) partner: Option<SlabKey>,
    /// Datagrams read since the last tick.
    pub(super) received: u16,
    pub(super) muted: bool,
    /// Ticks for which noise cancellation still stays bypassed.
    pub(super) bypass_left: u16,
    /// Ticks for which the session may still be left alone, and those for which it was.
    resting: u16,
    rested: u16,
    /// Handling it has panicked: it is not touched any more.
    pub(super) faulty: bool,
}

const _: () = assert!(size_of::<Tenant>() <= 56, "with its generation it has one cache line");

impl Tenant {
    /// True when nothing is due in this tick; see [`Session::rest`].
    fn rests(&mut self) -> bool {
        let rests = self.resting > 0;
        self.resting = self.resting.saturating_sub(1);
        self.rested += u16::from(rests);
        rests
    }

    /// The session, about to do something other than to relay: it has to know how late it is.
    pub(super) fn awake(&mut self) -> &mut Session {
        self.resting = 0;
        self.session.make_up_for(std::mem::take(&mut self.rested));
        &mut self.session
    }

    /// Noise cancellation may have its share of a tick and no more: media goes first. A session that
    /// comes too late in the `tick` goes without for some seconds rather than for single frames,
    /// which would be heard.
    fn share_cleaning_time(&mut self, tick: Instant, counters: &Counters) {
        if !self.session.is_cleaned() {
            return;
        }
        let used = clock::now().saturating_duration_since(tick);
        self.bypass_left = match self.bypass_left {
            _ if used > CLEANING_SHARE => BYPASS_TICKS,
            left => left.saturating_sub(1),
        };
        let bypassed = self.bypass_left > 0;
        counters.uncleaned.add(u64::from(bypassed));
        self.session.bypass_cleaning(bypassed);
    }
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        finished: SyncSender<Finished>,
        events: Events,
        options: &WorkerOptions,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let alarm = Alarm::every(TICK)?;
        poller.add(alarm.as_fd(), ALARM)?;
        poller.add(shared.mail.as_fd(), MAIL)?;
        poller.add_edge(shared.speech.as_fd(), SPEECH)?;
        Ok(Self {
            shared,
            commands,
            finished,
            events,
            poller,
            alarm,
            deadline: clock::now(),
            woken: clock::now(),
            wakes: 0,
            was_full: false,
            moment: clock::now(),
            stamped: true,
            anchor: WallAnchor::now(),
            tenants: Slab::new(options.max_sessions),
            keys: HashMap::new(),
            buffer: Box::new([0; DATAGRAM_BYTES]),
            cleaning: Duration::ZERO,
            fed_agents: false,
            prompt_bell: options.prompt_bell,
            connections_left: 0,
        })
    }

    /// Takes its scheduling class; to be called on the worker's own thread.
    pub(super) fn enter(self, realtime: bool) -> Self {
        self.shared.heartbeat.begin(enter_class(realtime));
        self
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        let mut ready = Ready::new();
        loop {
            self.shared.heartbeat.idle();
            if let Err(error) = self.poller.wait(&mut ready) {
                tracing::error!(%error, "media worker cannot wait for its sockets and stops");
                break;
            }
            self.fetch_first(&ready);
            let now = clock::now();
            self.shared.heartbeat.busy(now);
            self.moment = now;
            let is_due = ready.tokens().any(|token| token == ALARM);
            let is_late = is_due && self.is_late(now);
            self.stamped = self.may_be_late(&ready, now) || is_late;
            if is_due && !is_late {
                self.tick();
                self.moment = self.anchor.at;
            }
            let mut stop = self.serve(&ready);
            if is_late {
                stop |= self.catch_up(&mut ready, now);
                self.tick();
            }
            if self.prompt_bell {
                self.ring_if_fed();
            }
            if stop {
                break;
            }
        }
        self.close_all();
    }

    /// Serves what is ready besides the alarm; true when told to stop.
    fn serve(&mut self, ready: &Ready) -> bool {
        let mut stop = false;
        for (place, token) in ready.tokens().enumerate() {
            self.fetch_ahead(ready, place);
            match token {
                ALARM => {}
                MAIL => stop |= self.obey(),
                SPEECH => self.let_agents_speak(),
                _ => self.receive(token),
            }
        }
        stop
    }

    /// Before a tick that is late: serves what else has waited for us, so that the tick finds the
    /// packets that were here in time. It has its share of a tick, whatever a flood would like.
    fn catch_up(&mut self, ready: &mut Ready, begun: Instant) -> bool {
        let mut stop = false;
        while !stop && clock::now().saturating_duration_since(begun) < CATCH_UP_SHARE {
            if self.poller.poll(ready).is_err() || ready.tokens().all(|token| token == ALARM) {
                break;
            }
            stop = self.serve(ready);
        }
        stop
    }

    // Ticks.

    /// The next tick should have begun a while ago.
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.deadline + TICK) > LATE
    }

    /// Does the ticks that are due. After a stall those of the last 60 ms are made up for, so that
    /// nothing is lost of what they owe; of a longer one the rest is left out.
    fn tick(&mut self) {
        let Arrears { left_out, owed } = Arrears::of(self.alarm.expirations());
        let counters = &self.shared.counters;
        counters.missed_ticks.add(left_out);
        counters.made_up_ticks.add(owed.saturating_sub(1));
        self.deadline += TICK.saturating_mul(u32::try_from(left_out).unwrap_or(u32::MAX));
        for turn in 0..owed {
            let missed = if turn == 0 { left_out } else { 0 };
            self.tick_once(missed);
        }
        self.ring_if_fed();
    }

    fn ring_if_fed(&mut self) {
        if std::mem::take(&mut self.fed_agents) {
            self.shared.tick.ring();
        }
    }

    /// One tick of every session.
    fn tick_once(&mut self, missed: u64) {
        self.anchor = WallAnchor::now();
        let now = self.anchor.at;
        self.cleaning = Duration::ZERO;
        self.connections_left = CONNECTIONS_PER_TICK;
        self.deadline += TICK;
        self.shared.counters.ticks.add(1);
        if now.saturating_duration_since(self.deadline) > LATE {
            self.shared.counters.late_ticks.add(1);
        }
        for index in 0..self.tenants.slots() {
            if let Some(key) = self.tenants.key_at(index) {
                self.tick_tenant(key, now, missed);
            }
        }
    }

    fn tick_tenant(&mut self, key: SlabKey, now: Instant, missed: u64) {
        let Some(tenant) = self.tenants.get_mut(key).filter(|tenant| !tenant.faulty) else {
            return;
        };
        tenant.received = 0;
        if std::mem::take(&mut tenant.muted) {
            unmute(&self.poller, &tenant.ports, key);
        }
        if missed == 0 && tenant.rests() {
            return;
        }
        tenant.share_cleaning_time(now, &self.shared.counters);
        let Tenant { session, ports, resting, rested, .. } = tenant;
        let since = Some(self.deadline);
        let mut network = Network { ports, shared: &self.shared, events: &self.events, since };
        let done = catch_unwind(AssertUnwindSafe(|| {
            session.make_up_for(std::mem::take(rested));
            session.handle_tick(now, missed, &mut network);
            self.shared.counters.count_drops(&session.take_drops());
            *resting = session.rest();
            session.take_fed_agent()
        }));
        match done {
            Ok(fed) => self.fed_agents |= fed,
            Err(_) => return self.retire(key),
        }
        if let Some(peer) = session.to_connect(now)
            && let Some(left) = self.connections_left.checked_sub(1)
        {
            self.connections_left = left;
            let is_connected = connect(&self.poller, ports, key, peer).is_ok();
            session.connected(now, is_connected);
        }
    }

    // Agents.

    /// Sends what agents have said and nothing has to wait for.
    fn let_agents_speak(&mut self) {
        let bell = Arc::clone(&self.shared.speech);
        bell.answer(|door| {
            if let Some(key) = self.tenants.key_at(door) {
                self.let_speak(key);
            }
        });
    }

    fn let_speak(&mut self, key: SlabKey) {
        let Some(tenant) = self.tenants.get_mut(key).filter(|tenant| !tenant.faulty) else {
            return;
        };
        let Tenant { session, ports, .. } = tenant;
        let since = Some(clock::now());
        let mut network = Network { ports, shared: &self.shared, events: &self.events, since };
        if catch_unwind(AssertUnwindSafe(|| session.handle_speech(&mut network))).is_err() {
            self.retire(key);
        }
    }

    /// Shows a session's agent, if it has one, the door to knock at.
    fn show_door(&mut self, key: SlabKey) {
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.session.live_at(&self.shared.speech, key.index());
        }
    }

    /// A session that panicked harms no other: it is left alone until signalling closes it.
    pub(super) fn retire(&mut self, key: SlabKey) {
        self.shared.counters.faults.add(1);
        self.dissolve(key);
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        tenant.faulty = true;
        leave(&self.poller, &tenant.ports);
        let key = tenant.session.key();
        tracing::error!(session = key.0, "a media session panicked and is out of use");
        self.tell_fault(key);
    }

    /// Outside of any session nothing else would catch a receiver that panics.
    fn tell_fault(&self, key: SessionKey) {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.events)(Event::Fault { key })));
    }

    // Commands.

    /// Obeys what waits in the mailbox; true when told to stop.
    fn obey(&mut self) -> bool {
        self.shared.mail.hush();
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else { return false };
            self.shared.counters.mailbox.fetch_sub(1, Ordering::Relaxed);
            match command {
                Command::Open { session, ports } => self.open(session, ports),
                Command::Apply { key, plan } => {
                    let key = self.with(key, |session, now| session.apply(now, &plan));
                    key.into_iter().for_each(|key| self.introduce(key));
                }
                Command::Gate { key, open } => {
                    self.with(key, |session, now| session.gate(now, open));
                }
                Command::Connect { key, far } => {
                    let key = self.with(key, |session, _| session.replace_far(*far));
                    if let Some(key) = key {
                        self.dissolve(key);
                        self.show_door(key);
                    }
                }
                Command::Bridge { a, b } => self.bridge(a, b),
                Command::Digit { key, digit, duration_ms } => {
                    self.with(key, |session, _| session.dial(digit, duration_ms));
                }
                Command::Noise { key, suppressor } => {
                    self.with(key, |session, _| session.clean_with(suppressor));
                }
                Command::Report { key, reply } => self.tell(key, reply),
                Command::Close { key, reply } => self.close(key, Some(reply)),
                Command::Stop => return true,
            }
        }
        // There may be more: come back after the sockets had their turn.
        self.shared.mail.ring();
        false
    }

    fn open(&mut self, session: Box<Session>, ports: PortPair) {
        let name = session.key();
        // Keys are not used twice; if one is, the older session must not be left without a name.
        if self.keys.contains_key(&name) {
            self.close(name, None);
        }
        let tenant = Tenant {
            session,
            ports,
            partner: None,
            received: 0,
            muted: false,
            bypass_left: 0,
            resting: 0,
            rested: 0,
            faulty: false,
        };
        let key = match self.tenants.insert(tenant) {
            Ok(key) => key,
            Err(Tenant { session, ports, .. }) => {
                self.tell_fault(name);
                let remains = Some((session, ports));
                return self.conclude(Finished {
                    report: LegReport::default(),
                    reply: None,
                    remains,
                });
            }
        };
        self.keys.insert(name, key);
        self.count_sessions();
        self.show_door(key);
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        if let Err(error) = join(&self.poller, &tenant.ports, key) {
            tracing::error!(%error, "cannot listen on a media socket");
            self.retire(key);
        }
    }

    /// Lets a session that is in use obey, and returns its key.
    fn with(
        &mut self,
        name: SessionKey,
        act: impl FnOnce(&mut Session, Instant),
    ) -> Option<SlabKey> {
        let key = *self.keys.get(&name)?;
        let tenant = self.tenants.get_mut(key).filter(|tenant| !tenant.faulty)?;
        let done = catch_unwind(AssertUnwindSafe(|| act(tenant.awake(), clock::now())));
        if done.is_err() {
            self.retire(key);
        }
        Some(key)
    }

    fn tell(&mut self, name: SessionKey, reply: Reply) {
        let mut report = LegReport::default();
        self.with(name, |session, _| report = session.report());
        self.conclude(Finished { report, reply: Some(reply), remains: None });
    }

    fn close(&mut self, name: SessionKey, reply: Option<Reply>) {
        let key = self.keys.remove(&name);
        key.into_iter().for_each(|key| self.dissolve(key));
        let Some(mut tenant) = key.and_then(|key| self.tenants.remove(key)) else {
            // It never came to be; whoever waits for its report gets an empty one.
            return self.conclude(Finished { report: LegReport::default(), reply, remains: None });
        };
        self.count_sessions();
        let report = self.last_words(&mut tenant);
        leave(&self.poller, &tenant.ports);
        let Tenant { session, ports, .. } = tenant;
        self.conclude(Finished { report, reply, remains: Some((session, ports)) });
    }

    fn last_words(&self, tenant: &mut Tenant) -> LegReport {
        let now = clock::now();
        let Tenant { session, ports, rested, .. } = tenant;
        let since = Some(now);
        let mut network = Network { ports, shared: &self.shared, events: &self.events, since };
        let done = catch_unwind(AssertUnwindSafe(|| {
            session.make_up_for(std::mem::take(rested));
            self.shared.counters.count_drops(&session.take_drops());
            session.close(now, &mut network)
        }));
        done.unwrap_or_default()
    }

    fn conclude(&self, finished: Finished) {
        match self.finished.try_send(finished) {
            Ok(()) => {}
            Err(TrySendError::Full(finished) | TrySendError::Disconnected(finished)) => {
                finished.conclude();
            }
        }
    }

    fn close_all(&mut self) {
        let names: Vec<_> = self.keys.keys().copied().collect();
        for name in names {
            self.close(name, None);
        }
        // A worker that had to stop by itself: nobody will obey these any more.
        for command in self.commands.try_iter() {
            give_up(command);
        }
        self.shared.heartbeat.idle();
    }

    fn count_sessions(&self) {
        self.shared.counters.sessions.store(self.tenants.len(), Ordering::Relaxed);
    }
}

const ALARM: u64 = u64::MAX;
const MAIL: u64 = u64::MAX - 1;
const SPEECH: u64 = u64::MAX - 2;

const TICK: Duration = Duration::from_millis(FRAME_MS as u64);

/// A tick that begins later than this is counted: a quarter of a frame.
const LATE: Duration = Duration::from_millis(5);

/// Part of a tick for which a late one waits while the sockets are read: a quarter.
const CATCH_UP_SHARE: Duration = Duration::from_millis(5);

/// Part of a tick after which nothing more is cleaned in it: half.
pub(super) const CLEANING_SHARE: Duration = Duration::from_millis(10);

/// How long a session then goes without: three seconds.
pub(super) const BYPASS_TICKS: u16 = 150;

/// Connected in one tick, which takes a dozen system calls each: 200 a second.
const CONNECTIONS_PER_TICK: u8 = 4;

/// Obeyed before the sockets have their turn again.
const COMMANDS_PER_TURN: usize = 64;
