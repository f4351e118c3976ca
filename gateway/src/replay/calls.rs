//! From messages to calls: who called whom, what was asked, what was answered.
//!
//! A call here is everything with one Call-ID between two addresses: a telephone call, and as well a
//! registration or a subscription. Its far side is who sent the first request; that side's requests
//! are replayed, the other side's answers are what the gateway's are held against. The same Call-ID
//! between other addresses is the call's next hop behind a proxy and is left alone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use sip::{HeaderName, Transport};

use super::capture::{self, Sighting};

/// Requests of one call that are replayed.
const MAX_STEPS: usize = 500;

/// A request of the far side and what came back.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    /// The request as captured.
    pub(super) request: Sighting,
    /// The statuses that came back, each once, in their order.
    pub(super) answers: Vec<u16>,
    /// How many of them had come when the far side's next request went out.
    pub(super) awaited: usize,
    /// Tags that the answers carried in To: the names of the dialogs it made.
    pub(super) tags: Vec<String>,
    /// Times it was sent again.
    pub(super) repeats: usize,
}

impl Exchange {
    /// The final answer of the capture, if it holds one.
    #[must_use]
    pub(super) fn final_answer(&self) -> Option<u16> {
        self.answers.iter().copied().find(|status| *status >= 200)
    }

    /// Whether the far side was asked for credentials.
    #[must_use]
    pub(super) fn was_challenged(&self) -> bool {
        matches!(self.final_answer(), Some(401 | 407))
    }
}

/// One thing that happened in a call, as the far side saw it.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The far side asked.
    Asked(Box<Exchange>),
    /// The far side was asked: method, and what it answered.
    Was {
        /// The method.
        method: String,
        /// The number of its CSeq, as written.
        cseq: String,
        /// What the far side answered, each status once.
        answers: Vec<u16>,
    },
}

/// Everything with one Call-ID between two addresses.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The Call-ID as captured.
    pub(super) call_id: String,
    /// Whose requests are replayed.
    pub(super) far: SocketAddr,
    /// Whose place the gateway takes.
    pub(super) near: SocketAddr,
    /// Number of the packet that its first message was complete with, from 1.
    pub(super) packet: usize,
    /// UDP or TCP.
    pub(super) transport: Transport,
    /// What happened, in the order in which it began.
    pub(super) steps: Vec<Step>,
    /// Messages of the same Call-ID between other addresses.
    pub(super) elsewhere: usize,
}

impl Call {
    /// The far side's requests with their answers.
    pub(super) fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.steps.iter().filter_map(|step| match step {
            Step::Asked(exchange) => Some(&**exchange),
            Step::Was { .. } => None,
        })
    }

    /// The method that it begins with.
    #[must_use]
    pub(super) fn method(&self) -> &str {
        match self.steps.first() {
            Some(Step::Asked(exchange)) => &exchange.request.method,
            Some(Step::Was { method, .. }) => method,
            None => "answers",
        }
    }

    /// The exchange that a request repeats or a response belongs to (RFC 3261 §17.1.3).
    fn exchange(&mut self, of: &Sighting) -> Option<&mut Exchange> {
        let is = |known: &Sighting| match of.status {
            None => known.method == of.method && known.cseq == of.cseq,
            // Copied from the request, also where that contradicts itself.
            Some(_) => known.cseq_method == of.cseq_method && known.cseq == of.cseq,
        };
        self.steps.iter_mut().rev().find_map(|step| match step {
            Step::Asked(exchange) if is(&exchange.request) => Some(&mut **exchange),
            _ => None,
        })
    }

    fn add(&mut self, sighting: &Sighting) {
        let asks = same_end(sighting.from, self.far, self.near);
        match (asks, sighting.status) {
            (true, None) => self.add_request(sighting),
            (false, Some(status)) => {
                let tag = sighting.to_tag();
                let Some(exchange) = self.exchange(sighting) else { return };
                if !exchange.answers.contains(&status) {
                    exchange.answers.push(status);
                }
                exchange.tags.extend(tag.filter(|tag| !exchange.tags.contains(tag)));
            }
            (false, None) => {
                let known = |step: &Step| {
                    matches!(step, Step::Was { method, cseq, .. }
                    if *method == sighting.method && *cseq == sighting.cseq)
                };
                if self.steps.len() < MAX_STEPS && !self.steps.iter().any(known) {
                    self.steps.push(Step::Was {
                        method: sighting.method.clone(),
                        cseq: sighting.cseq.clone(),
                        answers: Vec::new(),
                    });
                }
            }
            (true, Some(status)) => {
                let found = self.steps.iter_mut().rev().find_map(|step| match step {
                    Step::Was { method, cseq, answers }
                        if *method == sighting.method && *cseq == sighting.cseq =>
                    {
                        Some(answers)
                    }
                    _ => None,
                });
                if let Some(answers) = found.filter(|answers| !answers.contains(&status)) {
                    answers.push(status);
                }
            }
        }
    }

    fn add_request(&mut self, sighting: &Sighting) {
        if let Some(exchange) = self.exchange(sighting) {
            exchange.repeats += 1;
            return;
        }
        if self.steps.len() >= MAX_STEPS {
            return;
        }
        // What was answered until now is what the far side had waited for.
        for step in &mut self.steps {
            if let Step::Asked(exchange) = step
                && exchange.awaited == usize::MAX
            {
                exchange.awaited = exchange.answers.len();
            }
        }
        self.steps.push(Step::Asked(Box::new(Exchange {
            request: sighting.clone(),
            answers: Vec::new(),
            awaited: usize::MAX,
            tags: Vec::new(),
            repeats: 0,
        })));
    }
}

/// Whether an address is this end of a leg. Phones send from one port and listen at another: only on
/// one machine do ports tell the ends apart.
fn same_end(address: SocketAddr, end: SocketAddr, other: SocketAddr) -> bool {
    address.ip() == end.ip() && (end.ip() != other.ip() || address.port() == end.port())
}

/// The side that was asked for on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; any without one.
    pub port: Option<u16>,
}

impl Side {
    fn is(self, address: SocketAddr) -> bool {
        address.ip() == self.ip && self.port.is_none_or(|port| port == address.port())
    }
}

impl std::str::FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Side { ip: address.ip(), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let ip = bare.parse().map_err(|_| "an address, or an address with a port".to_owned())?;
        Ok(Side { ip, port: None })
    }
}

/// Sorts messages into calls, in the order of their first messages.
#[must_use]
pub(super) fn split(messages: &[Sighting], side: Option<Side>) -> Vec<Call> {
    let mut groups: Vec<Vec<&Sighting>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for sighting in messages {
        let next = groups.len();
        // Without a Call-ID nothing belongs together.
        let at = match sighting.call_id.as_str() {
            "" => next,
            call_id => *known.entry(call_id).or_insert(next),
        };
        match groups.get_mut(at) {
            Some(group) => group.push(sighting),
            None => groups.push(vec![sighting]),
        }
    }
    groups.iter().filter_map(|group| call(group, side)).collect()
}

fn call(group: &[&Sighting], side: Option<Side>) -> Option<Call> {
    let (far, near) = ends(group, side)?;
    let first = group.first()?;
    let transport =
        group.iter().find(|one| one.from == far).map_or(first.transport, |one| one.transport);
    let mut call = Call {
        call_id: first.call_id.clone(),
        far,
        near,
        packet: first.packet,
        transport,
        steps: Vec::new(),
        elsewhere: 0,
    };
    for sighting in group {
        let forth = same_end(sighting.from, far, near) && same_end(sighting.to, near, far);
        let back = same_end(sighting.from, near, far) && same_end(sighting.to, far, near);
        if forth || back {
            call.add(sighting);
        } else {
            call.elsewhere += 1;
        }
    }
    Some(call)
}

/// The far side and the side whose place the gateway takes.
fn ends(group: &[&Sighting], side: Option<Side>) -> Option<(SocketAddr, SocketAddr)> {
    if let Some(side) = side {
        let sent = group.iter().find(|one| side.is(one.from)).map(|one| (one.from, one.to));
        let got = || group.iter().find(|one| side.is(one.to)).map(|one| (one.to, one.from));
        if let Some(ends) = sent.or_else(got) {
            return Some(ends);
        }
    }
    // A request outside of dialogs tells more than one in the middle of a dialog.
    let asks = |one: &&&Sighting| one.status.is_none();
    let opens = |one: &&&Sighting| {
        asks(one) && capture::tag(&one.message, HeaderName::To).is_none() && one.method != "ACK"
    };
    let request = group.iter().find(opens).or_else(|| group.iter().find(asks));
    match request {
        Some(one) => Some((one.from, one.to)),
        // Answers alone: who got them had asked.
        None => group.first().map(|one| (one.to, one.from)),
    }
}
