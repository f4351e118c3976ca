//! A new INVITE: admission, limits, media, and the first answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::model::{Builtin, MediaEncryption, Runtime};
use config::snapshot::{Snapshot, TrunkRoute};
use media::codec::Codec;
use media::sdp::{Capabilities, Encryption, Local, Negotiation, Plan};
use sip::endpoint::{Prefix, Reply, ServerTx};
use sip::{Flow, Host, Request, Uri};
use tracing::info;

use super::Shard;
use super::body::{self, Body};
use super::call::{Agent, Call, Media};
use super::links::Introduction;
use super::record::Record;
use super::refuse::refused_later;
use crate::call::admission::{self, Admitted, Facts, Proof, Rule, Verdict};
use crate::call::machine::{Input, Machine};
use crate::call::pace::Bucket;
use crate::net::address;

/// Frames that wait in the ring between agent and wire; the rest waits in the agent's play-out queue.
const RING_FRAMES: usize = 16;

/// What an agent link may take to say how its connecting ended, on top of the connect time-out. Only
/// a link that hangs in its opening or is broken takes that long.
const LINK_GRACE: Duration = Duration::from_secs(1);

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
                let call = self.new_call(arrival, admitted, prepared);
                self.start(arrival, call);
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
            answer_strangers: self.services.settings.sip.strangers
                == config::settings::Strangers::Refuse,
        };
        let nonces = &mut self.nonces;
        admission::decide(snapshot, &facts, &mut |trunk| prove(nonces, trunk, request))
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
    fn pool_for(&self, flow: &Flow) -> Option<media::ports::PortPool> {
        let v6 = flow.remote.ip().to_canonical().is_ipv6();
        self.services.ports.iter().find(|pool| pool.bind().is_ipv6() == v6).cloned()
    }

    fn new_call(
        &mut self,
        arrival: &Arrival<'_>,
        admitted: Admitted,
        prepared: Prepared,
    ) -> (u64, Call, Option<Plan>) {
        let Arrival { now, tx, flow, request, snapshot } = *arrival;
        let key = self.next_key;
        self.next_key += 1;
        let trunk = admitted.trunk.and_then(|id| snapshot.trunk(id));
        let agent_name = snapshot.agent(admitted.agent).map(|agent| agent.name.to_string());
        let record = Record::open(&admitted, agent_name, super::call::sip_call_id(request));
        let call = Call {
            machine: Machine::new(),
            contact: contact(&flow, request),
            flow,
            tx,
            dialog: None,
            record,
            awaiting_answer: prepared.plan.is_none(),
            negotiation: prepared.negotiation,
            sdp: prepared.sdp,
            media: Media::Waiting(prepared.ports, media::Far::Echo),
            agent: Agent::Gone,
            seat: None,
            wake: Arc::default(),
            ending: self.services.settings.calls.agent_ending,
            received_at: now,
            accepted_at: None,
            limit: None,
            noise_cancellation: trunk.is_some_and(|trunk| trunk.noise_cancellation),
            admitted,
        };
        (key, call, prepared.plan)
    }

    /// 180, record, media, agent.
    fn start(&mut self, arrival: &Arrival<'_>, (key, mut call, plan): (u64, Call, Option<Plan>)) {
        let Arrival { now, snapshot, .. } = *arrival;
        let ringing = Reply { contact: Some(&call.contact), ..Reply::new(180) };
        match self.endpoint.respond(now, call.tx, ringing) {
            Ok(dialog) => {
                call.dialog = dialog;
                if let Some(dialog) = dialog {
                    self.by_dialog.insert(dialog, key);
                    let trunk = call.admitted.trunk.and_then(|id| snapshot.trunk(id));
                    self.endpoint.also_from(dialog, &networks(trunk));
                }
            }
            Err(why) => {
                // No place for its dialog: said at once, or the caller would wait for ever.
                info!(call = key, %why, "the call could not be made to ring");
                let (full, fields) = (Rule::GatewayFull, self.retry_after());
                return self.refuse_with(arrival, refused_later(&call.admitted, full), &fields);
            }
        }
        let delay = crate::clock::now().saturating_duration_since(call.received_at);
        self.services.metrics.post_dial_delay.observe(delay.as_secs_f64());
        info!(
            call = key, conversation = %call.record.id(), organization = %call.admitted.organisation,
            source = %call.source(), transport = call.flow.transport.uri_token(), "call admitted"
        );
        self.services.journal.record(call.record.opened());
        self.services.live.started(&call.record);
        if let Some(trunk) = call.admitted.trunk {
            self.loads.entry(trunk).or_default().live += 1;
        }
        *self.peers.entry(call.flow.remote.ip().to_canonical()).or_insert(0) += 1;
        self.by_tx.insert(call.tx, key);
        let runtime =
            snapshot.version(call.admitted.version).map(|version| version.runtime.clone());
        self.calls.insert(key, call);
        self.live_changed();
        self.attach(now, key, runtime.unwrap_or_default(), plan);
    }

    /// Puts the agent at the far end and opens media when the plan is known.
    fn attach(&mut self, now: Instant, key: u64, runtime: Runtime, plan: Option<Plan>) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Media::Waiting(ports, _) = std::mem::replace(&mut call.media, Media::Gone) else {
            return;
        };
        let (far, link) = match runtime {
            Runtime::Builtin(Builtin::Echo) | Runtime::Sip(_) => (media::Far::Echo, None),
            Runtime::Builtin(Builtin::Playback { clip, repeat }) => {
                let clip = self.services.links.clip(clip);
                (media::Far::Playback { clip, repeat }, None)
            }
            Runtime::Websocket(link) => {
                let (worker, port) = media::agent_port(RING_FRAMES);
                (media::Far::Agent(worker), Some((link, port)))
            }
        };
        match plan {
            Some(plan) => self.open_media(now, key, (ports, far), plan),
            None => call.media = Media::Waiting(ports, far),
        }
        let Some(call) = self.calls.get_mut(&key) else { return };
        match link {
            None => {
                call.agent = Agent::Builtin;
                self.handle_input(now, key, Input::AgentReady);
            }
            Some((link, port)) => {
                let who = Introduction {
                    call: key,
                    organisation: call.admitted.organisation,
                    conversation: call.record.id(),
                    from_number: call.admitted.caller.clone(),
                    to_number: call.admitted.called.clone(),
                    entropy: self.random.bytes(),
                };
                let audio = (port, Arc::clone(&call.wake));
                call.ending = link.on_failure.unwrap_or(call.ending);
                let timeout_ms = self.services.settings.calls.agent_connect_timeout_ms;
                let timeout_ms = link.connect_timeout_ms.unwrap_or(timeout_ms);
                let limit = now + Duration::from_millis(u64::from(timeout_ms)) + LINK_GRACE;
                call.limit = Some(limit);
                self.limits.insert((limit, key));
                call.agent = Agent::Linked(self.services.links.start(&link, who, audio));
            }
        }
    }
}

/// Our Contact: where the peer reaches this listener (RFC 3261 §8.1.1.8).
fn contact(flow: &Flow, request: &Request) -> String {
    let (host, port) = (address::host(flow.local.ip()), flow.local.port());
    let secure = matches!(request.uri(), Uri::Sip(sip) if sip.secure);
    match flow.transport {
        sip::Transport::Udp => format!("<sip:{host}:{port}>"),
        sip::Transport::Tcp => format!("<sip:{host}:{port};transport=tcp>"),
        sip::Transport::Tls if secure => format!("<sips:{host}:{port}>"),
        sip::Transport::Tls => format!("<sip:{host}:{port};transport=tls>"),
    }
}

/// Where the carrier's other machines may be: they share its dialogs.
fn networks(trunk: Option<&TrunkRoute>) -> Vec<Prefix> {
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
    Capabilities { codecs: vec![Codec::Pcmu, Codec::Pcma], dtmf: true, encryption }
}

/// How the request's Authorization stands against the trunk's credentials.
fn prove(nonces: &mut sip::digest::Nonces, trunk: &TrunkRoute, request: &Request) -> Proof {
    let Some(digest) = &trunk.digest else { return Proof::Absent };
    let credentials = (&*digest.username, digest.password.expose().as_str());
    super::outside::proof(nonces, request, credentials)
}
