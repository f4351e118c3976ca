//! A new INVITE: admission, limits, media, and the first answer.

use std::borrow::Cow;
use std::time::Instant;

use config::ids::OrganisationId;
use config::model::MediaEncryption;
use config::routing::OwnHeaders;
use config::snapshot::{Snapshot, TrunkRoute};
use media::codec::Codec;
use media::sdp::{Capabilities, Encryption, Local, Negotiation, Plan};
use sip::endpoint::{Prefix, Reply, ServerTx};
use sip::{Flow, Host, Request, Uri};
use tracing::info;

use super::Shard;
use super::body::{self, Body};
use super::call::{Call, MAX_FORWARDS, Parties};
use super::leg::{Flows, Leg, Media, Offer, Side};
use super::record::{Attempt, Record};
use super::refuse::refused_later;
use super::session_id::SessionId;
use super::workflows::Undecided;
use crate::call::admission::{self, Admitted, Facts, Proof, Rule, Verdict};
use crate::call::machine::Machine;
use crate::call::pace::Bucket;
use crate::net::address;

/// The parts of an INVITE that admission looks at, as text.
struct Dialled<'a> {
    request_user: Cow<'a, str>,
    request_host: String,
    to_user: Cow<'a, str>,
    from_user: Cow<'a, str>,
}

impl<'a> Dialled<'a> {
    fn read(request: &'a Request) -> Self {
        Dialled {
            request_user: user(&request.uri()),
            request_host: host(&request.uri()),
            to_user: user(&request.to().uri),
            from_user: user(&request.from().uri),
        }
    }
}

/// User part of a URI, unescaped (RFC 3261 §19.1.2); the number of a `tel:`.
pub(super) fn user<'a>(uri: &Uri<'a>) -> Cow<'a, str> {
    match uri {
        Uri::Sip(sip) => {
            let mut buffer = [0_u8; 256];
            let user = sip.user_into(&mut buffer).unwrap_or_default();
            // Parameters inside the user part (RFC 3261 §19.1.6) are not part of the number.
            let user = user.split(|&byte| byte == b';').next().unwrap_or_default();
            Cow::Owned(String::from_utf8_lossy(user).into_owned())
        }
        Uri::Tel(tel) => String::from_utf8_lossy(tel.number),
        Uri::Other { .. } => Cow::Borrowed(""),
    }
}

fn host(uri: &Uri<'_>) -> String {
    match uri {
        Uri::Sip(sip) => match sip.host {
            Host::Name(name) => String::from_utf8_lossy(name).to_ascii_lowercase(),
            Host::Address(address) => address.to_string(),
        },
        _ => String::new(),
    }
}

/// One new INVITE, and the snapshot that decides about it.
pub(super) struct Arrival<'a> {
    pub(super) now: Instant,
    pub(super) tx: ServerTx,
    pub(super) flow: Flow,
    pub(super) request: &'a Request,
    pub(super) snapshot: &'a Snapshot,
}

/// More header fields of a refusal.
type Fields = Vec<(&'static str, String)>;

/// Everything that was prepared before the first answer goes out.
struct Prepared {
    negotiation: Negotiation,
    sdp: Vec<u8>,
    plan: Option<Plan>,
    ports: media::ports::PortPair,
}

impl Shard {
    pub(super) fn handle_invite(
        &mut self,
        now: Instant,
        tx: ServerTx,
        request: Request,
        flow: Flow,
    ) {
        let snapshot = self.services.snapshot.load();
        let arrival = Arrival { now, tx, flow, request: &request, snapshot: &snapshot };
        match self.decide(&arrival) {
            Verdict::Challenge { stale } => self.challenge(now, tx, stale),
            Verdict::Refused(refusal) => self.refuse(&arrival, refusal),
            Verdict::Admitted(admitted) => self.admit(&arrival, admitted),
        }
    }

    fn admit(&mut self, arrival: &Arrival<'_>, admitted: Admitted) {
        let trunk = admitted.trunk.and_then(|id| arrival.snapshot.trunk(id));
        match self.prepare(arrival, trunk) {
            Err((rule, fields)) => {
                self.refuse_with(arrival, refused_later(&admitted, rule), &fields);
            }
            Ok(prepared) => {
                let call = self.new_call(arrival, admitted.clone(), prepared);
                self.start(arrival, call, &admitted);
            }
        }
    }

    fn decide(&mut self, arrival: &Arrival<'_>) -> Verdict {
        let Arrival { flow, request, snapshot, .. } = *arrival;
        let dialled = Dialled::read(request);
        let facts = Facts {
            source: flow.remote,
            request_user: &dialled.request_user,
            request_host: &dialled.request_host,
            to_user: &dialled.to_user,
            from_user: &dialled.from_user,
            max_forwards: request.max_forwards(),
            looped: self.looped(request, &dialled),
            answer_strangers: self.services.settings.sip.strangers
                == config::settings::Strangers::Refuse,
        };
        let nonces = &mut self.nonces;
        admission::decide(snapshot, &facts, &mut |trunk| prove(nonces, trunk, request))
    }

    /// Whose call has come back here: straight from us, or as another party's whose call we passed
    /// on. A call that began here may come back by way of a carrier once: its callee lives here too.
    fn looped(&mut self, request: &Request, dialled: &Dialled) -> Option<OrganisationId> {
        let straight = self.endpoint.come_back(request).and_then(|(tx, hops)| {
            let dial = self.dials.get(self.dial_by_tx.get(&tx)?)?;
            let call = self.calls.get(&dial.call())?;
            (hops == 0 || !call.record.is_outbound()).then_some(call.parties.organisation)
        });
        straight.or_else(|| self.gone_round(request, dialled))
    }

    /// Whose call has come back by way of other gateways: it bears the same name, and is for the same
    /// number once more.
    fn gone_round(&self, request: &Request, dialled: &Dialled) -> Option<OrganisationId> {
        let mut same = self.sessions.calls(SessionId::of(request)?);
        same.find_map(|key| {
            let call = self.calls.get(&key)?;
            let again = !call.record.is_outbound() && call.dialled == dialled.request_user;
            again.then_some(call.parties.organisation)
        })
    }

    /// Limits, body, ports and offer: the rules that need more than the snapshot.
    fn prepare(
        &mut self,
        arrival: &Arrival<'_>,
        trunk: Option<&TrunkRoute>,
    ) -> Result<Prepared, (Rule, Fields)> {
        let Arrival { now, request, flow, .. } = *arrival;
        self.check_limits(now, trunk).map_err(|rule| (rule, self.retry_after()))?;
        let offer = match body::read(request) {
            Body::Unsupported => {
                let accept = vec![
                    ("Accept", "application/sdp".to_owned()),
                    ("Accept-Encoding", "identity".to_owned()),
                ];
                return Err((Rule::BodyUnsupported, accept));
            }
            Body::Nothing => None,
            Body::Sdp(offer) => Some(offer),
        };
        if !body::takes_sdp(request) {
            return Err((Rule::AnswerUnacceptable, Vec::new()));
        }
        let pool = self.pool_for(&flow).ok_or((Rule::NoMediaPorts, Vec::new()))?;
        let advertise = &self.services.settings.sip.advertise;
        let address = address::reachable_at(advertise, pool.bind(), flow.remote.ip());
        let ports = pool.allocate(now).map_err(|_| (Rule::NoMediaPorts, self.retry_after()))?;
        let session_id = u64::from_be_bytes(self.random.bytes()) >> 2;
        let local = Local { address, port: ports.port(), session_id };
        let mut negotiation = Negotiation::new(capabilities(trunk), local);
        let random = &mut self.random;
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        let (sdp, plan) = match offer {
            None => (negotiation.offer(&mut fill), None),
            Some(offer) => match negotiation.answer(offer, &mut fill) {
                Ok((sdp, plan)) => (sdp, Some(plan)),
                Err(why) => {
                    let warning = super::sdp::warning(&self.services.settings.sip.host, why);
                    return Err((Rule::MediaIncompatible, vec![("Warning", warning)]));
                }
            },
        };
        Ok(Prepared { negotiation, sdp, plan, ports })
    }

    pub(super) fn retry_after(&self) -> Fields {
        vec![("Retry-After", self.services.settings.calls.retry_after_seconds.to_string())]
    }

    fn check_limits(&mut self, now: Instant, trunk: Option<&TrunkRoute>) -> Result<(), Rule> {
        if self.is_draining() {
            return Err(Rule::Draining);
        }
        if self.calls.len() >= self.services.settings.sip.max_calls as usize {
            return Err(Rule::GatewayFull);
        }
        let Some(trunk) = trunk else { return Ok(()) };
        let load = self.loads.entry(trunk.id).or_default();
        if trunk.max_concurrent_calls.is_some_and(|most| load.live >= most) {
            return Err(Rule::TrunkFull);
        }
        if let Some(rate) = trunk.calls_per_second {
            let bucket = load.bucket.get_or_insert_with(|| Bucket::full(rate, now));
            if !bucket.take(rate, now) {
                return Err(Rule::TrunkRate);
            }
        }
        Ok(())
    }

    /// The port pool of the caller's IP version.
    pub(super) fn pool_for(&self, flow: &Flow) -> Option<media::ports::PortPool> {
        let v6 = flow.remote.ip().to_canonical().is_ipv6();
        self.services.ports.iter().find(|pool| pool.bind().is_ipv6() == v6).cloned()
    }

    fn new_call(
        &mut self,
        arrival: &Arrival<'_>,
        admitted: Admitted,
        prepared: Prepared,
    ) -> (u64, Call) {
        let Arrival { now, tx, flow, request, snapshot } = *arrival;
        let key = self.next_key;
        self.next_key += 1;
        let trunk = admitted.trunk.and_then(|id| snapshot.trunk(id));
        let record = Record::open(&admitted, super::call::sip_call_id(request));
        let secure = matches!(request.uri(), Uri::Sip(sip) if sip.secure);
        let carrier = Leg {
            contact: contact(&flow, secure),
            flow,
            hold: None,
            moved_at: None,
            target: None,
            dialog: None,
            awaiting_answer: prepared.plan.is_none(),
            negotiation: prepared.negotiation,
            sdp: prepared.sdp,
            media: Media::Waiting(prepared.ports),
            trunk: admitted.trunk,
            // Whoever may call from anywhere is not the carrier, and could have our answer taken for
            // a request of its own there.
            login: trunk.filter(|trunk| trunk.allowed.is_some()).and_then(super::outbound::login),
            noise_cancellation: trunk.is_some_and(|trunk| trunk.noise_cancellation),
            codec: None,
            takes_events: false,
            flows: Flows::BOTH,
            silent: false,
            glares: 0,
            offer: Offer::None,
        };
        let rules = (self.services.settings.calls.agent_ending, self.max_duration());
        let routing = match admitted.answering {
            Some(_) => None,
            None => snapshot.enabled_routing(admitted.organisation).cloned(),
        };
        let machine = if routing.is_some() { Machine::routed() } else { Machine::inbound() };
        let headers = match &routing {
            Some(_) => OwnHeaders::collect(request.headers().map(|(_, name, value)| (name, value))),
            None => OwnHeaders::default(),
        };
        let attempt = |route| (route, Attempt::read(request, &flow));
        let undecided = Undecided {
            routing: routing.map(attempt),
            headers,
            plan: prepared.plan,
            ..Undecided::default()
        };
        let begun = Call::new(now, machine, (Parties::from(admitted), record), rules);
        let call = Call {
            tx: Some(tx),
            carrier: Some(carrier),
            undecided: Box::new(undecided),
            max_forwards: request.max_forwards().unwrap_or(MAX_FORWARDS).saturating_sub(1),
            session: SessionId::of(request).unwrap_or(begun.session),
            dialled: user(&request.uri()).into_owned(),
            ..begun
        };
        (key, call)
    }

    /// 180, record, and whatever comes before the agent.
    fn start(&mut self, arrival: &Arrival<'_>, (key, mut call): (u64, Call), admitted: &Admitted) {
        let Arrival { now, snapshot, tx, flow, .. } = *arrival;
        let Some(leg) = call.carrier.as_mut() else { return };
        let ringing = Reply { contact: Some(&leg.contact), ..Reply::new(180) };
        match self.endpoint.respond(now, tx, ringing) {
            Ok(dialog) => {
                leg.dialog = dialog;
                if let Some(dialog) = dialog {
                    self.by_dialog.insert(dialog, (key, Side::Carrier));
                    let trunk = leg.trunk.and_then(|id| snapshot.trunk(id));
                    self.endpoint.also_from(dialog, &networks(trunk));
                }
            }
            Err(why) => {
                // No place for its dialog: said at once, or the caller would wait for ever.
                info!(call = key, %why, "the call could not be made to ring");
                let (full, fields) = (Rule::GatewayFull, self.retry_after());
                return self.refuse_with(arrival, refused_later(admitted, full), &fields);
            }
        }
        let delay = crate::clock::now().saturating_duration_since(call.received_at);
        self.services.metrics.post_dial_delay.observe(delay.as_secs_f64());
        info!(
            call = key, conversation = %call.record.id(), organization = %call.parties.organisation,
            source = %flow.remote, transport = flow.transport.uri_token(), "call admitted"
        );
        if let Some(trunk) = call.parties.trunk {
            self.loads.entry(trunk).or_default().live += 1;
        }
        self.meet(&flow);
        self.by_tx.insert(tx, key);
        self.by_conversation.insert(call.record.id(), key);
        self.sessions.insert(call.session, key);
        self.services.live.started(&call.record);
        self.calls.insert(key, call);
        self.live_changed();
        if let Some(answering) = admitted.answering {
            self.answer_with(key, answering);
        }
        if let Some(call) = self.calls.get(&key) {
            self.services.journal.record(call.record.opened());
        }
        match admitted.answering {
            Some(_) => self.brief(now, key),
            None => self.route(now, key),
        }
    }
}

/// Our Contact: where the peer reaches this listener (RFC 3261 §8.1.1.8).
pub(super) fn contact(flow: &Flow, secure: bool) -> String {
    let (host, port) = (address::host(flow.local.ip()), flow.local.port());
    match flow.transport {
        sip::Transport::Udp => format!("<sip:{host}:{port}>"),
        sip::Transport::Tcp => format!("<sip:{host}:{port};transport=tcp>"),
        sip::Transport::Tls if secure => format!("<sips:{host}:{port}>"),
        sip::Transport::Tls => format!("<sip:{host}:{port};transport=tls>"),
    }
}

/// Where the carrier's other machines may be: they share its dialogs.
pub(super) fn networks(trunk: Option<&TrunkRoute>) -> Vec<Prefix> {
    let listed = trunk.and_then(|trunk| trunk.allowed.as_deref()).unwrap_or_default();
    listed.iter().map(|net| Prefix { address: net.addr(), bits: net.prefix_len() }).collect()
}

/// What we can do on this trunk. An agent's own endpoint follows the caller's offer.
fn capabilities(trunk: Option<&TrunkRoute>) -> Capabilities {
    let encryption = match trunk.map(|trunk| trunk.encryption) {
        Some(MediaEncryption::Disable) => Encryption::Disable,
        Some(MediaEncryption::Require) => Encryption::Require,
        Some(MediaEncryption::Allow) | None => Encryption::Allow,
    };
    Capabilities { codecs: codecs(None), dtmf: true, encryption }
}

/// Codecs to offer, best first: the trunk's own list, or ours.
pub(super) fn codecs(own: Option<&[config::model::Codec]>) -> Vec<Codec> {
    let own = own.filter(|list| !list.is_empty());
    let Some(own) = own else { return vec![Codec::Pcmu, Codec::Pcma] };
    let codec = |codec: &config::model::Codec| match codec {
        config::model::Codec::Pcmu => Codec::Pcmu,
        config::model::Codec::Pcma => Codec::Pcma,
    };
    own.iter().map(codec).collect()
}

/// Text as the user part of a URI: what may not stand there is escaped (RFC 3261 §19.1.2, §25.1).
pub(super) fn as_user(text: &str) -> String {
    let mut user = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,".contains(&byte) {
            user.push(char::from(byte));
        } else {
            user.push_str(&format!("%{byte:02X}"));
        }
    }
    if user.is_empty() { "anonymous".to_owned() } else { user }
}

/// How the request's Authorization stands against the trunk's credentials.
fn prove(nonces: &mut sip::digest::Nonces, trunk: &TrunkRoute, request: &Request) -> Proof {
    let Some(digest) = &trunk.digest else { return Proof::Absent };
    let credentials = (&*digest.username, digest.password.expose().as_str());
    super::outside::proof(nonces, request, credentials)
}
