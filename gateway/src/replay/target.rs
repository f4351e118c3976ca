//! The gateway that a capture is replayed against: one of the replay's own, set up to suit the capture,
//! or a running one.
//!
//! The own one listens on free loopback ports and keeps its store in a scratch folder. Through the
//! REST API it gets a trunk that allows loopback addresses without credentials, and each number that
//! the capture dials, treated as the capture's callee treated it:
//!
//! | in the capture | here the number has |
//! |---|---|
//! | answered, or anything not listed | an agent that answers at once and echoes |
//! | rang and was cancelled, or rings until the capture ends | an agent that never comes: the call rings |
//! | 404, 604 | is not registered |
//! | 480 | no agent |
//!
//! What is dialled and is no telephone number, and a number that is dialled in two of these ways, gets
//! a stand-in from the range for fiction.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use config::settings::Settings;
use serde_json::{Value, json};
use sip::{Transport, Uri};
use tokio::net::TcpListener;

use super::calls::{Call, Exchange};
use crate::call::number;
use crate::demo::rest::Rest;
use crate::random::{self, Random};
use crate::serve::Gateway;

/// Stand-ins there are: `+1 555 019 0000` onwards.
const MAX_STAND_INS: usize = 10_000;

/// How often the decision record is asked for; it is written behind the call's back.
const DECISION_ATTEMPTS: u32 = 40;
const DECISION_PAUSE: Duration = Duration::from_millis(25);

/// How the callee of a captured call behaved, as far as a gateway can be set up to do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Treatment {
    Answers,
    Rings,
    Unregistered,
    WithoutAgent,
}

impl Treatment {
    /// What the capture shows of a call that begins with an INVITE.
    pub(super) fn of(call: &Call) -> Option<Self> {
        let mut invites = call.exchanges().filter(|one| opens_a_call(one)).peekable();
        invites.peek()?;
        let finals: Vec<u16> = invites.filter_map(Exchange::final_answer).collect();
        let rang = call.exchanges().any(|one| one.answers.iter().any(|s| (101..200).contains(s)));
        let cancelled = call.exchanges().any(|one| one.request.method == "CANCEL");
        Some(match finals.iter().rev().find(|status| !matches!(status, 401 | 407)) {
            Some(404 | 604) => Treatment::Unregistered,
            Some(480) if !cancelled => Treatment::WithoutAgent,
            Some(200..300) => Treatment::Answers,
            _ if cancelled || (finals.is_empty() && rang) => Treatment::Rings,
            _ => Treatment::Answers,
        })
    }
}

fn opens_a_call(exchange: &Exchange) -> bool {
    exchange.request.method == "INVITE" && exchange.request.to_tag().is_none()
}

/// The numbers of a capture: how each is treated, and which calls use a stand-in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) treated: BTreeMap<String, Treatment>,
    /// For each call: the number in place of what was dialled.
    pub(super) stand_ins: Vec<Option<String>>,
}

impl Numbers {
    /// No number is provided, none is replaced.
    pub(super) fn none(calls: usize) -> Self {
        Numbers { treated: BTreeMap::new(), stand_ins: vec![None; calls] }
    }

    /// Chooses them.
    pub(super) fn choose<'a>(calls: impl Iterator<Item = &'a Call>) -> Self {
        let mut numbers = Numbers::default();
        for call in calls {
            let stand_in = Treatment::of(call).and_then(|treatment| {
                let dialled = dialled(call);
                let number = dialled.as_deref().and_then(number::normalise);
                match number {
                    Some(number)
                        if *numbers.treated.entry(number.clone()).or_insert(treatment)
                            == treatment =>
                    {
                        None
                    }
                    // A name is found by nobody as well.
                    None if treatment == Treatment::Unregistered => None,
                    _ => numbers.stand_in(treatment),
                }
            });
            numbers.stand_ins.push(stand_in);
        }
        numbers
    }

    fn stand_in(&mut self, treatment: Treatment) -> Option<String> {
        let free = (0..MAX_STAND_INS).map(|n| format!("+1555019{n:04}"));
        let number = free.into_iter().find(|number| !self.treated.contains_key(number))?;
        self.treated.insert(number.clone(), treatment);
        Some(number)
    }
}

/// The user part of the first INVITE's Request-URI.
fn dialled(call: &Call) -> Option<String> {
    let invite = call.exchanges().find(|one| opens_a_call(one))?;
    let uri = Uri::parse(invite.request.request_uri())?;
    let mut buffer = [0; 256];
    let user = match &uri {
        Uri::Sip(sip) => sip.user_into(&mut buffer)?,
        Uri::Tel(tel) => tel.number,
        Uri::Other { .. } => return None,
    };
    let user = user.split(|&byte| byte == b';').next()?;
    String::from_utf8(user.to_vec()).ok()
}

/// A gateway named on the command line: `HOST:PORT`, `HOST:PORT/udp` or `HOST:PORT/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    address: SocketAddr,
    transport: Option<Transport>,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, transport) = match text.rsplit_once('/') {
            None => (text, None),
            Some((address, "udp")) => (address, Some(Transport::Udp)),
            Some((address, "tcp")) => (address, Some(Transport::Tcp)),
            Some(_) => return Err("the transport is udp or tcp".to_owned()),
        };
        use std::net::ToSocketAddrs;
        let address = address
            .to_socket_addrs()
            .map_err(|error| format!("HOST:PORT is wanted: {error}"))?
            .next()
            .ok_or_else(|| "no such host".to_owned())?;
        Ok(Named { address, transport })
    }
}

/// Where the requests go.
pub(super) enum Target {
    /// A gateway of the replay's own.
    Own(Box<Own>),
    /// A running one.
    Named(Named),
}

/// A gateway of the replay's own.
pub(super) struct Own {
    gateway: Gateway,
    rest: Rest,
    folder: Scratch,
    /// Where the agent that never comes would listen: connections are taken and never spoken to.
    _silent: TcpListener,
}

impl Target {
    /// Starts a gateway and sets it up.
    pub(super) async fn start(numbers: &Numbers, patience: Duration) -> io::Result<Self> {
        let folder = Scratch::make()?;
        let gateway = Gateway::start(settings(&folder.0, patience)).await?;
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let api = gateway.listening.api.ok_or_else(|| io::Error::other("no API listener"))?;
        let made = gateway.bootstrap.as_ref();
        let (_, key) = made.ok_or_else(|| io::Error::other("the store was not empty"))?;
        let rest = Rest::new(api, key.expose());
        provision(&rest, numbers, silent.local_addr()?).await?;
        Ok(Target::Own(Box::new(Own { gateway, rest, folder, _silent: silent })))
    }

    /// Where a call goes: the transport of the capture if there is a choice.
    pub(super) fn address(&self, call: &Call) -> Option<(Transport, SocketAddr)> {
        match self {
            Target::Named(named) => {
                Some((named.transport.unwrap_or(call.transport), named.address))
            }
            Target::Own(own) => {
                let listening = &own.gateway.listening;
                let all = match call.transport {
                    Transport::Udp => &listening.udp,
                    _ => &listening.tcp,
                };
                let v6 = call.far.is_ipv6();
                let same = all.iter().find(|address| address.is_ipv6() == v6);
                same.or(all.first()).map(|address| (call.transport, *address))
            }
        }
    }

    /// The record of a refused call: its rule and its explanation.
    pub(super) async fn decision(&self, sip_call_id: &str) -> Option<(String, String)> {
        let Target::Own(own) = self else { return None };
        for _ in 0..DECISION_ATTEMPTS {
            let listed = own.rest.get("/core/calls/decisions?limit=1000").await.ok()?;
            let mut all = listed.as_array().into_iter().flatten();
            if let Some(found) = all.find(|decision| decision["sip_call_id"] == sip_call_id) {
                return Some((text(found, "rule"), text(found, "explanation")));
            }
            tokio::time::sleep(DECISION_PAUSE).await;
        }
        None
    }

    /// Stops what was started; the scratch folder goes.
    pub(super) async fn stop(self) {
        if let Target::Own(own) = self {
            own.gateway.drain(Duration::from_millis(500)).await;
            own.gateway.stop().await;
            drop(own.folder);
        }
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn settings(folder: &Path, patience: Duration) -> Settings {
    let mut settings = Settings::default();
    let mut hosts = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let six = IpAddr::V6(Ipv6Addr::LOCALHOST);
    // A machine without IPv6 replays IPv6 captures over IPv4.
    if std::net::UdpSocket::bind((six, 0)).is_ok() {
        hosts.push(six);
    }
    let any: Vec<SocketAddr> = hosts.iter().map(|host| SocketAddr::new(*host, 0)).collect();
    settings.sip.udp.clone_from(&any);
    settings.sip.tcp = any;
    settings.sip.tls = Vec::new();
    settings.sip.host = "127.0.0.1".to_owned();
    settings.media.bind = hosts;
    settings.api.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings.observe.listen = settings.api.listen;
    settings.store.data_dir = folder.to_owned();
    settings.agents.allow_plain_ws = true;
    settings.agents.allow_private_addresses = true;
    settings.media.quarantine_seconds = 1;
    // An agent that never comes keeps a call ringing for longer than anything here waits.
    let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    settings.calls.agent_connect_timeout_ms = patience.saturating_mul(8).clamp(5_000, 60_000);
    settings
}

async fn provision(rest: &Rest, numbers: &Numbers, silent: SocketAddr) -> io::Result<()> {
    let trunk = json!({"name": "the capture's far side", "inbound_config": {
        "allowed_addresses": ["127.0.0.0/8", "::1/128"],
        "media_encryption": "SIP_MEDIA_ENCRYPT_ALLOW"}});
    let trunk = text(&rest.post("/core/trunks", trunk).await?, "id");
    let echo = json!({"type": "builtin", "builtin": "echo"});
    let absent =
        json!({"type": "websocket", "dialect": "twilio", "url": format!("ws://{silent}/")});
    for (treatment, name, runtime) in
        [(Treatment::Answers, "Echo", echo), (Treatment::Rings, "Never there", absent)]
    {
        let mine = numbers.treated.iter().filter(|(_, treated)| **treated == treatment);
        let mine: Vec<&String> = mine.map(|(number, _)| number).collect();
        for number in &mine {
            let body = json!({"phone_number": number, "trunk_id": trunk});
            rest.post("/core/phone-numbers", body).await?;
        }
        if mine.is_empty() {
            continue;
        }
        let agent = rest.post("/core/agents", json!({"name": name})).await?;
        let agent = text(&agent, "id");
        let version = json!({"config": {"runtime": runtime}});
        rest.post(&format!("/core/agents/{agent}/versions"), version).await?;
        let publish = json!({"phone_numbers": mine, "direction": "inbound"});
        rest.post(&format!("/core/agents/{agent}/versions/1/publish"), publish).await?;
    }
    let unanswered = numbers.treated.iter().filter(|(_, t)| **t == Treatment::WithoutAgent);
    for (number, _) in unanswered {
        let body = json!({"phone_number": number, "trunk_id": trunk});
        rest.post("/core/phone-numbers", body).await?;
    }
    Ok(())
}

/// A folder for the store of one run; it goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> io::Result<Self> {
        let name: [u8; 8] = Random::new(random::seed()?).bytes();
        let name = u64::from_be_bytes(name);
        let folder = std::env::temp_dir().join(format!("trunkline-replay-{name:016x}"));
        std::fs::create_dir(&folder)?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is the operating system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
