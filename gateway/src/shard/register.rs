//! Trunks that make themselves known to their carriers: what the registration machine asks for,
//! carried out.
//!
//! The contact names the trunk, so that a carrier's call to it is told from all others by its
//! Request-URI, and the dialled number stands in To. Which trunks are to be registered is read from the
//! snapshot; what changed in a trunk's way out begins a new registration and takes the old one back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::ids::TrunkId;
use config::snapshot::{OutboundRoute, Snapshot, TrunkRoute};
use sip::endpoint::{ClientTx, OutOfDialog};
use sip::{Contact, Flow, HeaderName, Method, Response};
use tracing::{debug, info, warn};

use super::Shard;
use super::inputs::Alarm;
use super::login::{Answers, Login};
use super::outbound::{destination, split_port};
use crate::call::registration::{Action, Input, Machine, State};
use crate::net::reach::{Connection, Reached};
use crate::net::target::Target;

/// Marks tickets of registrations; see `flows` for the other mark.
const REGISTER: u64 = 1 << 62;

/// Registrations begun in one look: a node with thousands of them does not ask all carriers at once.
const AT_ONCE: usize = 50;

/// How long a binding is asked for, and the longest that a carrier may demand, in seconds.
const ASKED_SECONDS: u32 = 600;
const MOST_SECONDS: u32 = 86_400;

/// The soonest that a binding is refreshed, however short it is, in seconds.
const SOONEST_SECONDS: u32 = 20;

/// Pauses after failures, doubled each time (RFC 5626 §4.5).
const REST_FIRST: Duration = Duration::from_secs(30);
const REST_MAX: Duration = Duration::from_secs(1_800);

/// All registrations of this node.
#[derive(Default)]
pub(super) struct Registrations {
    all: HashMap<u64, Registration>,
    by_trunk: HashMap<TrunkId, u64>,
    by_tx: HashMap<ClientTx, u64>,
    next: u64,
    /// What was looked at last, once nothing more is to be begun of it.
    seen: Option<Arc<Snapshot>>,
}

/// One trunk's binding at its carrier, there or wanted.
struct Registration {
    machine: Machine,
    trunk: TrunkId,
    slug: Box<str>,
    route: OutboundRoute,
    targets: VecDeque<Target>,
    /// Counts attempts, so that a late answer to an earlier one is known as such.
    attempt: u8,
    connection: Option<Connection>,
    tx: Option<ClientTx>,
    call_id: String,
    cseq: u32,
    answers: Answers,
    /// How long the binding is asked for.
    seconds: u32,
    /// The carrier has confirmed it, and nothing has said otherwise since.
    is_held: bool,
    failures: u32,
    due: Option<Instant>,
}

impl Registration {
    fn of(trunk: &TrunkRoute, route: &OutboundRoute, call_id: String) -> Self {
        Registration {
            machine: Machine::new(),
            trunk: trunk.id,
            slug: trunk.slug.clone(),
            route: route.clone(),
            targets: VecDeque::new(),
            attempt: 0,
            connection: None,
            tx: None,
            call_id,
            cseq: 1,
            answers: Answers::default(),
            seconds: ASKED_SECONDS,
            is_held: false,
            failures: 0,
            due: None,
        }
    }

    /// Whether the snapshot still has the trunk with the same way out.
    fn is_wanted(&self, snapshot: &Snapshot) -> bool {
        let trunk = snapshot.trunk(self.trunk);
        trunk.and_then(|trunk| trunk.outbound.as_ref()) == Some(&self.route)
    }

    /// Who is registered (RFC 3261 §10.2: the address of record).
    fn address_of_record(&self) -> String {
        let config = &self.route.config;
        let user = config.from_user.as_deref().unwrap_or(&config.auth_username);
        let host = config.from_host.as_deref().unwrap_or(split_port(&config.address).0);
        format!("<sip:{user}@{host}>")
    }

    fn ticket(&self, id: u64) -> u64 {
        REGISTER | id << 8 | u64::from(self.attempt)
    }
}

impl Shard {
    /// Begins what the snapshot wants and has not got, and takes back what it does not want.
    pub(super) fn look_at_registrations(&mut self, now: Instant) {
        let (snapshot, draining) = (self.services.snapshot.load(), self.is_draining());
        let seen = self.registrations.seen.as_ref();
        if !draining && seen.is_some_and(|seen| Arc::ptr_eq(seen, &snapshot)) {
            return;
        }
        let all = self.registrations.all.iter();
        let unwanted = all.filter(|(_, one)| draining || !one.is_wanted(&snapshot));
        for id in unwanted.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.registrations.by_trunk.retain(|_, current| *current != id);
            self.step_registration(now, id, Input::Withdrawn);
        }
        if draining {
            return;
        }
        let known = |trunk: &&TrunkRoute| self.registrations.by_trunk.contains_key(&trunk.id);
        let missing: Vec<&TrunkRoute> =
            snapshot.registering().filter(|trunk| !known(trunk)).take(AT_ONCE).collect();
        let done = missing.len() < AT_ONCE;
        for trunk in missing {
            self.begin_registration(trunk);
        }
        self.registrations.seen = done.then_some(snapshot);
    }

    fn begin_registration(&mut self, trunk: &TrunkRoute) {
        let Some(route) = &trunk.outbound else { return };
        let call_id = self.cnonce();
        let registrations = &mut self.registrations;
        registrations.next += 1;
        let id = registrations.next;
        registrations.all.insert(id, Registration::of(trunk, route, call_id));
        registrations.by_trunk.insert(trunk.id, id);
        self.locate_registrar(id);
    }

    /// Feeds one registration's machine and does what it says.
    fn step_registration(&mut self, now: Instant, id: u64, input: Input) {
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        let Some(action) = one.machine.handle(input) else { return };
        match action {
            Action::Locate => self.locate_registrar(id),
            Action::Connect => self.connect_registrar(id),
            Action::Register => {
                let seconds = one.seconds;
                self.send_register(now, id, seconds);
            }
            Action::Leave => {
                self.hold_registration(id, false);
                self.send_register(now, id, 0);
            }
            Action::Authenticate => self.authenticate_register(now, id),
            Action::Keep => self.keep_registration(now, id),
            Action::Rest => self.rest_registration(now, id),
            Action::Forget => self.forget_registration(id),
        }
    }

    fn locate_registrar(&mut self, id: u64) {
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        one.attempt = one.attempt.wrapping_add(1);
        let (ticket, destination) = (one.ticket(id), destination(&one.route.config));
        self.services.reach.locate(ticket, destination);
    }

    fn connect_registrar(&mut self, id: u64) {
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        let Some(target) = one.targets.pop_front() else { return };
        one.attempt = one.attempt.wrapping_add(1);
        let ticket = one.ticket(id);
        self.services.reach.connect(ticket, target, 0);
    }

    /// What the resolver or a connection has to say. False when it is said to somebody else.
    pub(super) fn handle_registrar_reached(&mut self, now: Instant, reached: &Reached) -> bool {
        let (Reached::Located { ticket, .. } | Reached::Connected { ticket, .. }) = reached;
        if ticket & REGISTER == 0 || ticket >> 63 == 1 {
            return false;
        }
        let id = (ticket & !REGISTER) >> 8;
        let Some(one) = self.registrations.all.get_mut(&id) else { return true };
        if one.ticket(id) != *ticket {
            return true;
        }
        let input = match reached {
            Reached::Located { result: Ok(targets), .. } if !targets.is_empty() => {
                one.targets = targets.iter().cloned().collect();
                Input::Located(targets.len())
            }
            Reached::Located { result, .. } => {
                let why = result.as_ref().err().map(ToString::to_string);
                info!(trunk = %one.trunk, ?why, "the carrier to register with was not found");
                Input::NotLocated
            }
            Reached::Connected { result: Ok(connection), .. } => {
                one.connection = Some(connection.clone());
                Input::Connected
            }
            Reached::Connected { result: Err(why), .. } => {
                info!(trunk = %one.trunk, %why, "the carrier to register with was not reached");
                Input::NotConnected
            }
        };
        self.step_registration(now, id, input);
        true
    }

    /// The REGISTER, for a binding of so many seconds; 0 takes it back.
    fn send_register(&mut self, now: Instant, id: u64, seconds: u32) {
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        let Some(flow) = one.connection.as_ref().map(|connection| connection.flow) else {
            return self.step_registration(now, id, Input::Unavailable);
        };
        let aor = one.address_of_record();
        let (contact, expires) = (contact(&one.slug, &flow), seconds.to_string());
        let agent = self.services.settings.sip.user_agent.as_str();
        let headers = [("Contact", &*contact), ("Expires", &*expires), ("User-Agent", agent)];
        let request = OutOfDialog {
            flow,
            method: Method::Register,
            request_uri: &format!("sip:{}", one.route.config.address),
            from: &aor,
            to: &aor,
            headers: &headers,
            body: None,
            sequence: Some((&one.call_id, one.cseq)),
        };
        one.answers = Answers::default();
        match self.endpoint.request_outside(now, request) {
            Ok(tx) => self.register_is_out(id, tx),
            Err(why) => {
                warn!(trunk = %one.trunk, %why, "a REGISTER could not be sent");
                self.step_registration(now, id, Input::Unavailable);
            }
        }
    }

    fn register_is_out(&mut self, id: u64, tx: ClientTx) {
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        one.cseq = one.cseq.wrapping_add(1);
        if let Some(old) = one.tx.replace(tx) {
            self.registrations.by_tx.remove(&old);
        }
        self.registrations.by_tx.insert(tx, id);
    }

    fn authenticate_register(&mut self, now: Instant, id: u64) {
        let cnonce = self.cnonce();
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        let login = Login {
            username: one.route.config.auth_username.clone(),
            password: one.route.password.clone(),
        };
        let Some(tx) = one.tx else { return };
        let Some(request) = self.endpoint.request_of(tx) else {
            return self.step_registration(now, id, Input::Unavailable);
        };
        let headers = one.answers.headers(&login, request, &cnonce);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match self.endpoint.retry_with(now, tx, &headers) {
            Ok(tx) => self.register_is_out(id, tx),
            Err(_) => self.step_registration(now, id, Input::Unavailable),
        }
    }

    /// A response to a REGISTER. False when it is to something else.
    pub(super) fn handle_register_response(
        &mut self,
        now: Instant,
        tx: ClientTx,
        response: &Response,
    ) -> bool {
        let Some(&id) = self.registrations.by_tx.get(&tx) else { return false };
        if response.is_provisional() {
            return true;
        }
        let Some(one) = self.registrations.all.get_mut(&id) else { return true };
        let status = response.status();
        let input = match status {
            200..=299 => {
                one.seconds = granted(response, &one.slug).unwrap_or(one.seconds);
                Input::Accepted
            }
            401 | 407 if one.answers.take(response) => Input::Challenged,
            423 => match whole(response, HeaderName::MinExpires) {
                Some(least) if least > one.seconds && least <= MOST_SECONDS => {
                    one.seconds = least;
                    Input::TooBrief
                }
                _ => Input::Refused,
            },
            408 | 500..=599 => Input::Unavailable,
            _ => Input::Refused,
        };
        if matches!(input, Input::Refused | Input::Unavailable) {
            warn!(trunk = %one.trunk, status, "the carrier did not register the trunk");
        }
        self.step_registration(now, id, input);
        true
    }

    /// A REGISTER that will not be answered. False when the request was something else.
    pub(super) fn handle_register_failed(&mut self, now: Instant, tx: ClientTx) -> bool {
        let Some(&id) = self.registrations.by_tx.get(&tx) else { return false };
        self.step_registration(now, id, Input::Unavailable);
        true
    }

    /// A connection is gone, and with it the bindings that name it.
    pub(super) fn handle_registrar_closed(&mut self, now: Instant, flow: &Flow) {
        let on = |one: &Registration| one.connection.as_ref().is_some_and(|on| on.flow == *flow);
        let all = self.registrations.all.iter();
        for id in all.filter(|(_, one)| on(one)).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.step_registration(now, id, Input::Broken);
        }
    }

    /// It is time to refresh, or to try again.
    pub(super) fn handle_registration_alarm(&mut self, now: Instant, id: u64) {
        if let Some(one) = self.registrations.all.get_mut(&id) {
            one.due = None;
        }
        self.step_registration(now, id, Input::Due);
    }

    fn keep_registration(&mut self, now: Instant, id: u64) {
        self.hold_registration(id, true);
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        one.failures = 0;
        debug!(trunk = %one.trunk, seconds = one.seconds, "registered with the carrier");
        // Early enough that a lost answer does not lose the binding.
        let seconds = (one.seconds / 5 * 4).max(SOONEST_SECONDS);
        one.seconds = one.seconds.max(ASKED_SECONDS);
        self.registration_due(id, now + Duration::from_secs(u64::from(seconds)));
    }

    fn rest_registration(&mut self, now: Instant, id: u64) {
        self.hold_registration(id, false);
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        let pause = REST_FIRST.saturating_mul(1 << one.failures.min(10)).min(REST_MAX);
        one.failures = one.failures.saturating_add(1);
        // From half of it to the whole, so that a carrier that comes back is not asked by all at once.
        let [part] = self.random.bytes();
        self.registration_due(id, now + pause / 2 + pause.mul_f64(f64::from(part) / 512.0));
    }

    fn registration_due(&mut self, id: u64, due: Instant) {
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        if let Some(before) = one.due.replace(due) {
            self.alarms.remove(&(before, Alarm::Registration(id)));
        }
        self.alarms.insert((due, Alarm::Registration(id)));
    }

    fn hold_registration(&mut self, id: u64, is_held: bool) {
        let Some(one) = self.registrations.all.get_mut(&id) else { return };
        if one.is_held == is_held {
            return;
        }
        one.is_held = is_held;
        let held = &self.services.metrics.registrations;
        if is_held {
            held.inc();
            info!(trunk = %one.trunk, "registered with the carrier");
        } else {
            held.dec();
            info!(trunk = %one.trunk, "no longer registered with the carrier");
        }
    }

    fn forget_registration(&mut self, id: u64) {
        self.hold_registration(id, false);
        let Some(one) = self.registrations.all.remove(&id) else { return };
        if let Some(due) = one.due {
            self.alarms.remove(&(due, Alarm::Registration(id)));
        }
        if let Some(tx) = one.tx {
            self.registrations.by_tx.remove(&tx);
        }
        debug_assert_eq!(one.machine.state(), State::Over, "only what is over is forgotten");
    }
}

/// Where the carrier's calls are to go: to us, with the trunk's name as the user.
fn contact(slug: &str, flow: &Flow) -> String {
    let contact = super::invite::contact(flow, false);
    contact.replacen("<sip:", &format!("<sip:{slug}@"), 1)
}

/// How long our binding lasts, as the carrier says (RFC 3261 §10.2.4).
fn granted(response: &Response, slug: &str) -> Option<u32> {
    let ours = response.contacts().find_map(|contact| match contact {
        Contact::Address(address) if address.uri.user() == Some(slug.as_bytes()) => {
            seconds(address.params.value("expires")?)
        }
        _ => None,
    });
    ours.or_else(|| whole(response, HeaderName::Expires)).filter(|seconds| *seconds > 0)
}

fn whole(response: &Response, name: HeaderName) -> Option<u32> {
    seconds(response.header(name)?)
}

fn seconds(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.trim().parse::<u32>().ok().map(|value| value.min(MOST_SECONDS))
}
