//! The signalling shard: one task that owns the SIP endpoint and every call on it.
//!
//! ```text
//!  sockets ──► Inbound ─┐                              ┌─► Outbound ──► sockets
//!  media   ──► Event ───┤                              ├─► Workers (open, apply, gate, close)
//!  agents  ──► Event ───┼─► Shard: Endpoint + calls ───┼─► agent links (start, stop)
//!  DNS, TCP ─► Reached ─┤
//!  runs    ──► RunDone ─┤                              ├─► Runs (start)
//!  API     ──► Command ─┤                              └─► Journal (records, decisions)
//!  clock   ──► timeout ─┘
//! ```
//!
//! Nothing here waits: inputs are handled to the end, outputs are handed to bounded queues, and
//! what a full queue means is said where it is filled.

mod avoided;
mod body;
mod call;
mod dial;
mod dialog;
mod far;
mod flows;
mod inputs;
mod invite;
mod leg;
pub mod links;
mod live;
mod login;
mod outbound;
mod outside;
mod record;
mod refuse;
mod register;
mod request;
mod sdp;
mod session_id;
mod transfer;
mod wanted;
mod workflows;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use config::ids::{ConversationId, TrunkId};
use config::settings::{Digest, Strangers};
use sip::digest::Hash;
use sip::endpoint::{ClientTx, DialogId, Event, ServerTx, Trust};
use sip::{Endpoint, Flow};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use crate::call::machine::{Input, State};
use crate::call::queue::{DialQueue, QueueLimits};
use crate::call::{EndReason, pace::Bucket};
use crate::clock;
use crate::net::{Inbound, SendError};
use crate::observe::health::Phase;
use crate::observe::metric::{LimitLabels, MessageLabels};

use avoided::Avoided;
use call::Call;
use dial::Dial;
use inputs::Alarm;
use leg::Side;
use request::Pending;
use session_id::Sessions;

pub use inputs::{Command, Inputs, Services};
pub use live::LiveTable;

/// Realm of digest challenges (RFC 7616 §3.3): the same for every trunk, so that it tells nothing.
pub const REALM: &str = "trunkline";

/// Messages handled before outputs are flushed and other inputs get their turn.
const BATCH: usize = 64;

/// How often the snapshot is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Live calls and call rate of one trunk.
#[derive(Default)]
struct Load {
    live: u32,
    bucket: Option<Bucket>,
}

/// The drain that is under way.
struct Drain {
    until: Instant,
    hung_up: bool,
    done: Option<oneshot::Sender<()>>,
}

/// One signalling shard.
pub struct Shard {
    services: Services,
    endpoint: Endpoint,
    nonces: sip::digest::Nonces,
    calls: HashMap<u64, Call>,
    by_tx: HashMap<ServerTx, u64>,
    by_dialog: HashMap<DialogId, (u64, Side)>,
    by_conversation: HashMap<ConversationId, u64>,
    /// Legs being dialled, and the INVITEs of theirs that are out.
    dials: HashMap<u64, Dial>,
    dial_by_tx: HashMap<ClientTx, u64>,
    next_dial: u64,
    /// Requests of ours in dialogs that await their answer.
    requests: HashMap<ClientTx, Pending>,
    /// Legs whose connection has broken and that are getting another, by ticket.
    moving: HashMap<u64, flows::Moving>,
    /// Calls that wait for their turn to be placed.
    queue: DialQueue,
    /// Trunks that are known to their carriers, or are to be.
    registrations: register::Registrations,
    /// Trunks whose carrier has refused the secure offer, and until when that is remembered.
    plain_trunks: HashMap<TrunkId, Instant>,
    /// Time limits, earliest first.
    alarms: BTreeSet<(Instant, Alarm)>,
    /// Targets that have failed lately.
    avoided: Avoided,
    /// Calls by the session they belong to.
    sessions: Sessions,
    loads: HashMap<TrunkId, Load>,
    /// Sources of admitted calls: their messages are answered while the call lives.
    peers: HashMap<IpAddr, u32>,
    /// How fast strangers may leave records.
    strangers: Option<Bucket>,
    /// How fast calls that are refused for overload may.
    overload: Option<Bucket>,
    drain: Option<Drain>,
    next_key: u64,
    random: crate::random::Random,
}

impl Shard {
    /// A shard without calls.
    #[must_use]
    pub fn new(services: Services) -> Self {
        let settings = &services.settings;
        let options = sip::Options {
            max_dialogs: settings.sip.max_calls as usize * 2 + 64,
            retry_after_seconds: settings.calls.retry_after_seconds,
            node: node_number(&settings.node.name),
            ..sip::Options::default()
        };
        let mut random = crate::random::Random::new(services.seed);
        let endpoint = Endpoint::new(options, random.bytes());
        let nonces =
            sip::digest::Nonces::new(random.bytes(), REALM).expect("the realm is a plain word");
        let nonces = nonces.offering(hashes(settings.sip.digest));
        let queue = DialQueue::new(QueueLimits::from(&**settings));
        Shard {
            endpoint,
            nonces,
            services,
            calls: HashMap::new(),
            by_tx: HashMap::new(),
            by_dialog: HashMap::new(),
            by_conversation: HashMap::new(),
            dials: HashMap::new(),
            dial_by_tx: HashMap::new(),
            next_dial: 1,
            requests: HashMap::new(),
            moving: HashMap::new(),
            queue,
            registrations: register::Registrations::default(),
            plain_trunks: HashMap::new(),
            alarms: BTreeSet::new(),
            avoided: Avoided::default(),
            sessions: Sessions::default(),
            loads: HashMap::new(),
            peers: HashMap::new(),
            strangers: None,
            overload: None,
            drain: None,
            next_key: 1,
            random,
        }
    }

    /// Runs until every sender of commands is gone.
    pub async fn run(mut self, mut inputs: Inputs) {
        self.look_around(clock::now());
        loop {
            self.note_depths(&inputs);
            let deadline = tokio::time::Instant::from_std(self.next_deadline());
            tokio::select! {
                biased;
                command = inputs.commands.recv() => match command {
                    Some(command) => {
                        let now = clock::now();
                        self.guarded(now, None, |shard| shard.handle_command(now, command));
                    }
                    None => return,
                },
                Some(event) = inputs.media.recv() => {
                    let (now, (key, _)) = (clock::now(), Side::of(event.key()));
                    self.guarded(now, Some(key), |shard| shard.handle_media(now, event));
                }
                Some((key, event)) = inputs.agents.recv() => {
                    let now = clock::now();
                    self.guarded(now, Some(key), |shard| shard.handle_link(now, key, event));
                }
                Some(done) = inputs.runs.recv() => {
                    let now = clock::now();
                    self.guarded(now, Some(done.call), |shard| shard.handle_run(now, done));
                }
                Some(reached) = inputs.reached.recv() => {
                    let now = clock::now();
                    self.guarded(now, None, |shard| shard.handle_reached(now, reached));
                }
                Some(inbound) = inputs.inbound.recv() => {
                    let now = clock::now();
                    let busy = self.is_overloaded(now, &inbound, inputs.inbound.len());
                    self.endpoint.set_busy(busy);
                    self.handle_inbound(now, inbound);
                    for _ in 1..BATCH {
                        let Ok(inbound) = inputs.inbound.try_recv() else { break };
                        self.handle_inbound(now, inbound);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
            let now = clock::now();
            // Whatever woke us: timers fire under full load too.
            if deadline.into_std() <= now {
                self.guarded(now, None, |shard| shard.handle_timeout(now));
            }
            self.settle(now);
            if !inputs.inbound.is_empty() {
                // Audio of agents, on the same thread, does not wait until all is handled.
                tokio::task::yield_now().await;
            }
        }
    }

    /// How full everything is, for the metrics.
    fn note_depths(&self, inputs: &Inputs) {
        let metrics = &self.services.metrics;
        metrics.queue("sip_messages", inputs.inbound.len());
        metrics.queue("media_events", inputs.media.len());
        metrics.queue("agent_events", inputs.agents.len());
        metrics.queue("calls_out", self.queue.waiting());
        metrics.queue("workflow_runs", self.services.runs.live());
        metrics.queue("journal", self.services.journal.stats().queued);
        let load = self.endpoint.load();
        metrics.queue("server_transactions", load.server_transactions);
        metrics.queue("client_transactions", load.client_transactions);
        metrics.queue("stranger_transactions", load.strangers);
        metrics.queue("dialogs", load.dialogs);
        metrics.queue("connections", self.services.outbound.connections_open());
    }

    /// Runs one piece of work; a panic in it is a fault of ours that ends that call, not the program.
    fn guarded(&mut self, now: Instant, key: Option<u64>, work: impl FnOnce(&mut Self)) {
        let ran = catch_unwind(AssertUnwindSafe(|| work(self)));
        if ran.is_ok() {
            return;
        }
        self.services.metrics.bugs.inc();
        error!(call = key, "a fault of the gateway was contained");
        if let Some(key) = key {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                self.handle_input(now, key, Input::HangUp(EndReason::GatewayBug));
            }));
            if ended.is_err() {
                self.calls.remove(&key);
            }
        }
    }

    fn next_deadline(&mut self) -> Instant {
        let far = clock::now() + Duration::from_secs(3600);
        let mut next = self.endpoint.poll_timeout().unwrap_or(far);
        if let Some(&(limit, _)) = self.alarms.first() {
            next = next.min(limit);
        }
        if let Some(limit) = self.queue.poll_timeout() {
            next = next.min(limit);
        }
        match &self.drain {
            Some(drain) if !drain.hung_up => next.min(drain.until),
            _ => next,
        }
    }

    fn handle_inbound(&mut self, now: Instant, inbound: Inbound) {
        match inbound {
            Inbound::Message { flow, bytes, .. } => {
                self.count_message(flow, "in");
                let trust = self.trust(&flow);
                self.guarded(now, None, |shard| {
                    shard.endpoint.handle_message(now, flow, bytes, trust);
                });
            }
            Inbound::Refused { remote } => self.handle_refused_datagram(now, remote),
            Inbound::Closed { flow, .. } => self.handle_flow_closed(now, &flow),
        }
        self.drain_events(now);
    }

    /// A source is known when a trunk lists it, or while a call of its own is up.
    fn trust(&self, flow: &Flow) -> Trust {
        let source = flow.remote.ip().to_canonical();
        let refuse_aloud = self.services.settings.sip.strangers == Strangers::Refuse;
        let known = refuse_aloud
            || self.peers.contains_key(&source)
            || !self.services.snapshot.load().trunks_allowing(source).is_empty();
        if known { Trust::Known } else { Trust::Stranger }
    }

    /// Handles what the endpoint has to say, lets media hear what has been decided, then sends what the
    /// endpoint has to send.
    fn settle(&mut self, now: Instant) {
        self.drain_events(now);
        let unheard = self.endpoint.take_unheard();
        if unheard > 0 {
            self.shed_many("stranger_request", unheard);
        }
        self.services.workers.wake();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            self.count_message(transmit.flow, "out");
            match self.services.outbound.send(&transmit.flow, transmit.bytes) {
                Ok(()) => {}
                // SIP retransmits over UDP; a stream that does not read is given up.
                Err(SendError::Full) if !transmit.flow.transport.is_reliable() => {
                    self.shed("udp_send_buffer");
                }
                Err(error) => {
                    debug!(remote = %transmit.flow.remote, ?error, "flow failed");
                    self.services.outbound.forget(transmit.flow.connection);
                    self.endpoint.handle_flow_failed(now, &transmit.flow);
                    self.drain_events(now);
                }
            }
        }
        self.finish_drain();
        self.services.workers.wake();
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            let key = self.call_of(&event);
            self.guarded(now, key, |shard| shard.handle_event(now, event));
        }
        while let Some(refused) = self.endpoint.poll_refused() {
            self.guarded(now, None, |shard| shard.handle_refused(now, &refused));
        }
    }

    /// The call an event is about.
    fn call_of(&self, event: &Event) -> Option<u64> {
        match event {
            Event::Cancelled { tx, .. } => self.by_tx.get(tx).copied(),
            Event::InDialog { dialog, .. }
            | Event::Acked { dialog, .. }
            | Event::AckMissing { dialog } => self.by_dialog.get(dialog).map(|(key, _)| *key),
            Event::Response { tx, .. } | Event::Failed { tx, .. } => {
                let dial = self.dial_by_tx.get(tx).and_then(|id| self.dials.get(id));
                dial.map(Dial::call).or_else(|| Some(self.requests.get(tx)?.call))
            }
            _ => None,
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Invite { tx, request, flow } => self.handle_invite(now, tx, request, flow),
            Event::Request { tx, request, flow } => self.handle_outside(now, tx, &request, flow),
            Event::InDialog { dialog, tx, request } => {
                self.handle_in_dialog(now, dialog, tx, &request);
            }
            Event::Cancelled { tx, request } => {
                let expired = request.method() == sip::Method::Invite;
                let input = if expired { Input::Expired } else { Input::Cancelled };
                if let Some(&key) = self.by_tx.get(&tx) {
                    self.handle_input(now, key, input);
                }
            }
            Event::Acked { dialog, body } => self.handle_ack(now, dialog, body.as_deref()),
            Event::AckMissing { dialog } => {
                if let Some(&(key, _)) = self.by_dialog.get(&dialog) {
                    self.handle_ack_missing(now, key);
                }
            }
            Event::Response { tx, response, dialog } => {
                self.handle_response(now, tx, &response, dialog);
            }
            Event::Failed { tx, why, dialog } => {
                if !self.handle_dial_failed(now, tx, why) && !self.handle_register_failed(now, tx) {
                    self.handle_request_failed(now, (tx, dialog), why);
                }
            }
            Event::Malformed { flow, why } => {
                debug!(remote = %flow.remote, ?why, "malformed message");
            }
        }
    }

    /// A response is for a leg being dialled, for a request in a dialog, or for nobody: then a 2xx to
    /// an INVITE is one more fork of a call that has been answered (RFC 3261 §13.2.2.4).
    fn handle_response(
        &mut self,
        now: Instant,
        tx: ClientTx,
        response: &sip::Response,
        dialog: Option<DialogId>,
    ) {
        if self.dial_by_tx.contains_key(&tx) {
            self.handle_dial_response(now, tx, response, dialog);
        } else if self.requests.contains_key(&tx) {
            self.handle_request_response(now, tx, response, dialog);
        } else if self.handle_register_response(now, tx, response) {
            // It has been dealt with.
        } else if (200..300).contains(&response.status()) {
            let fork = dialog.filter(|dialog| !self.by_dialog.contains_key(dialog));
            self.acknowledge_orphan(now, fork);
        }
    }

    fn handle_media(&mut self, now: Instant, event: media::Event) {
        let (key, side) = Side::of(event.key());
        match event {
            media::Event::FirstPacket { .. } => {
                debug!(call = key, ?side, "first media packet");
                if side == Side::Carrier {
                    self.handle_input(now, key, Input::Heard);
                }
            }
            media::Event::MediaTimeout { .. } => self.handle_silence(now, key, side),
            media::Event::Latched { address, .. } => {
                debug!(call = key, ?side, %address, "media latched");
            }
            media::Event::PlaybackEnded { .. } => self.handle_playback_ended(now, key),
            media::Event::Digit { digit, duration_ms, .. } => {
                self.carry_digit(now, (key, side), (digit, duration_ms));
            }
            media::Event::Fault { .. } => {
                self.services.metrics.bugs.inc();
                self.handle_input(now, key, Input::HangUp(EndReason::GatewayBug));
            }
            media::Event::Intrusion { .. } => {
                self.shed("media_intrusion");
                warn!(call = key, ?side, "packets from a stranger at the call's media port");
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.drain_events(now);
        while let Some(&(limit, alarm)) = self.alarms.first() {
            if limit > now {
                break;
            }
            self.alarms.remove(&(limit, alarm));
            match alarm {
                Alarm::Call(key) => self.handle_limit(now, key),
                Alarm::Dial(id) => self.handle_dial_alarm(now, id),
                Alarm::Transfer(key) => self.handle_transfer_alarm(now, key),
                Alarm::Offer(key, side) => self.handle_offer_alarm(now, key, side),
                Alarm::Look => self.look_around(now),
                Alarm::Registration(id) => self.handle_registration_alarm(now, id),
            }
        }
        if self.queue.poll_timeout().is_some_and(|limit| limit <= now) {
            self.start_waiting(now);
        }
        let overdue = match &mut self.drain {
            Some(drain) if !drain.hung_up && drain.until <= now => {
                drain.hung_up = true;
                true
            }
            _ => false,
        };
        if overdue {
            self.hang_up_all(now, EndReason::Drained);
        }
        for pool in &self.services.ports {
            pool.sweep(now);
        }
    }

    /// Looks what the snapshot says now, which nothing tells; then once more after a while.
    fn look_around(&mut self, now: Instant) {
        self.alarms.insert((now + LOOK, Alarm::Look));
        self.look_at_registrations(now);
        if self.queue.waiting() > 0 {
            self.start_waiting(now); // an organisation may have raised its limit
        }
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Drain { limit, done } => {
                info!(live = self.calls.len(), limit_s = limit.as_secs(), "draining");
                self.services.health.enter(Phase::Draining);
                let until = now + limit;
                self.drain = Some(Drain { until, hung_up: false, done: Some(done) });
                self.start_waiting(now);
            }
            Command::Dial(request) => self.take_on(now, *request),
            Command::HangUp { id } => self.hang_up(now, id),
            Command::Transfer { id, request } => self.transfer(now, id, request),
            Command::HangUpAll { reason } => self.hang_up_all(now, reason),
        }
    }

    fn hang_up_all(&mut self, now: Instant, reason: EndReason) {
        let keys: Vec<u64> = self.calls.keys().copied().collect();
        for key in keys {
            self.handle_input(now, key, Input::HangUp(reason));
        }
    }

    /// Says that the drain is over once no call and no BYE of ours is open.
    fn finish_drain(&mut self) {
        if self.drain.is_none() || !self.calls.is_empty() {
            return;
        }
        let bye = |pending: &Pending| pending.kind == request::Kind::Bye;
        let waits = self.moving.values().any(flows::Moving::holds_bye);
        if waits || self.requests.values().any(bye) {
            return;
        }
        if let Some(done) = self.drain.as_mut().and_then(|drain| drain.done.take()) {
            let _ = done.send(());
        }
    }

    fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    fn count_message(&self, flow: Flow, direction: &'static str) {
        let transport = flow.transport.uri_token();
        self.services.metrics.messages.get_or_create(&MessageLabels { transport, direction }).inc();
    }

    fn shed(&self, limit: &'static str) {
        self.shed_many(limit, 1);
    }

    fn shed_many(&self, limit: &'static str, count: u64) {
        self.services.metrics.shed.get_or_create(&LimitLabels { limit }).inc_by(count);
    }

    fn live_changed(&self) {
        let live = i64::try_from(self.calls.len()).unwrap_or(i64::MAX);
        self.services.metrics.live.set(live);
    }

    /// Datagrams the sockets dropped because this task was behind.
    #[must_use]
    pub fn datagrams_dropped(&self) -> u64 {
        self.services.metrics.datagrams_dropped.load(Ordering::Relaxed)
    }
}

/// The hashes of a digest challenge, the most wanted first.
fn hashes(digest: Digest) -> &'static [Hash] {
    match digest {
        Digest::Both => &[Hash::Sha256, Hash::Md5],
        Digest::Sha256 => &[Hash::Sha256],
        Digest::Md5 => &[Hash::Md5],
    }
}

/// The number that leads every tag this node mints: its name, folded (FNV-1a).
fn node_number(name: &str) -> u16 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}

/// What a call looks like to the API.
fn live_status(state: State, outbound: bool) -> config::model::ConversationStatus {
    match state {
        State::Preparing | State::Dialling => config::model::ConversationStatus::Triggered,
        State::Briefing if outbound => config::model::ConversationStatus::Triggered,
        State::Routing | State::Briefing | State::Ringing | State::Connecting => {
            config::model::ConversationStatus::Ringing
        }
        State::Accepted | State::Active | State::Farewell => {
            config::model::ConversationStatus::InProgress
        }
        State::Ended => config::model::ConversationStatus::Completed,
    }
}
