//! Asking DNS: RFC 3263 §4 with a deadline, a cache and a bound on everything.
//!
//! ```text
//!  locate ─► SRV ─► A, AAAA of each host, at once ─► targets in order
//!              2 s for all of it; a query goes on behind its asker's back and fills the cache
//! ```
//!
//! Queries are hickory's: random identifiers and ports, question and source of an answer checked,
//! chains of CNAME at most eight long. The cache is ours (`net::cache`): it also knows failures,
//! and gives what it has when no name server answers, so that calls to carriers we know go on.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::{Instant as Deadline, timeout_at};
use tracing::{debug, warn};

use super::cache::{Answer, Cache, Kind, Known, Question};
use super::target::{
    Destination, LocateError, MAX_TARGETS, Policy, Service, Step, Target, in_order,
};
use crate::clock;
use crate::random::Random;

/// A look-up is over by then, with whatever it has.
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(2);

/// With a stale answer at hand a name server gets this long for a new one (RFC 8767 §5).
const STALE_PATIENCE: Duration = Duration::from_millis(300);

/// Once a host has addresses the others of the same SRV answer get this long.
const GRACE: Duration = Duration::from_millis(300);

/// One attempt of a query; after it another is made, at another name server if there is one.
const ATTEMPT: Duration = Duration::from_millis(600);

/// Further attempts of a query.
const RETRIES: usize = 2;

/// Most questions that are open at a time; more fail.
const MAX_OPEN: usize = 512;

/// What a resolver is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name servers to ask; none for those of the system.
    pub nameservers: Vec<SocketAddr>,
    /// Which addresses may be sent to.
    pub policy: Policy,
    /// Randomness that spreads calls over the hosts of SRV records.
    pub seed: [u8; 32],
}

/// From destinations to addresses. Clones share everything.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    dns: TokioResolver,
    policy: Policy,
    deadline: Duration,
    random: Mutex<Random>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    open: HashMap<Question, Asked>,
}

/// A question that is being asked; all who want to know wait for the same answer. `None`: failed.
type Asked = Shared<BoxFuture<'static, Option<Answer>>>;

impl Resolver {
    /// A resolver with an empty cache. Nothing is asked yet. The system's configuration is read here
    /// and not again.
    ///
    /// # Errors
    /// When the resolver cannot be set up, which would be a fault of the build.
    pub fn new(options: Options) -> io::Result<Self> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if options.nameservers.is_empty() {
            TokioResolver::builder(provider.clone()).unwrap_or_else(|error| {
                warn!(%error, "the system names no name servers: only literal addresses work");
                TokioResolver::builder_with_config(no_name_servers(), provider)
            })
        } else {
            let servers = options.nameservers.iter().map(|&address| name_server(address));
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, provider)
        };
        tune(builder.options_mut());
        let inner = Inner {
            dns: builder.build().map_err(io::Error::other)?,
            policy: options.policy,
            deadline: LOOKUP_DEADLINE,
            random: Mutex::new(Random::new(options.seed)),
            state: Mutex::default(),
        };
        Ok(Resolver { inner: Arc::new(inner) })
    }

    /// The addresses to try for `destination`, best first, at most [`MAX_TARGETS`]; within
    /// [`LOOKUP_DEADLINE`]. Each look-up draws anew among SRV records of equal priority.
    ///
    /// # Errors
    /// See [`LocateError`].
    pub async fn locate(&self, destination: &Destination) -> Result<Vec<Target>, LocateError> {
        let deadline = Deadline::from_std(clock::now() + self.inner.deadline);
        let transport = destination.transport()?;
        let found = match destination.first_step()? {
            Step::Ready(address) => {
                let ip = self.inner.policy.judge(address.ip())?;
                vec![SocketAddr::new(ip, address.port())]
            }
            Step::Addresses { host, port } => self.addresses(&host, port, deadline).await?,
            Step::Services { name, host } => {
                let question = Question { name, kind: Kind::Services };
                match self.ask(question, deadline).await? {
                    Answer::Services(services) => self.hosts(&services, deadline).await?,
                    // RFC 3263 §4.2: without SRV records the host itself, at the default port.
                    _ => self.addresses(&host, transport.default_port(), deadline).await?,
                }
            }
        };
        let first = found.into_iter().take(MAX_TARGETS);
        Ok(first.map(|address| destination.target(transport, address)).collect())
    }

    /// The addresses of the hosts of SRV records.
    async fn hosts(
        &self,
        services: &[Service],
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, LocateError> {
        // RFC 2782: the root as the target says that the service is not there.
        if services.iter().all(|one| one.host.is_empty()) {
            return Err(LocateError::NoService);
        }
        let real = services.iter().filter(|one| !one.host.is_empty() && one.port != 0);
        let ordered = in_order(real.cloned().collect(), &mut |most| self.draw(most));
        for one in &ordered {
            // All are asked for at once; below they are waited for in their order.
            self.begin(&one.host);
        }
        let (mut found, mut why, mut until) =
            (Vec::<SocketAddr>::new(), LocateError::NoAddress, deadline);
        for one in &ordered {
            match self.addresses(&one.host, one.port, until).await {
                Ok(addresses) => {
                    if found.is_empty() {
                        until = deadline.min(Deadline::from_std(clock::now() + GRACE));
                    }
                    found.extend(addresses);
                }
                Err(reason) => why = reason,
            }
            if found.len() >= MAX_TARGETS {
                break;
            }
        }
        // Two hosts may be one: each address counts where it stands first.
        let mut seen = HashSet::new();
        found.retain(|address| seen.insert(*address));
        if found.is_empty() { Err(why) } else { Ok(found) }
    }

    /// The addresses of one host that may be sent to.
    async fn addresses(
        &self,
        host: &str,
        port: u16,
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, LocateError> {
        let kinds = self.kinds();
        let asked = kinds.clone().map(|kind| {
            let question = Question { name: host.to_owned(), kind };
            self.ask(question, deadline)
        });
        let answers = futures_util::future::join_all(asked).await;
        let (mut found, mut failed) = (Vec::new(), None);
        for answer in answers {
            match answer {
                Ok(Answer::Addresses(addresses)) => found.extend(addresses.iter().copied()),
                Ok(_) => {}
                Err(why) => failed = Some(why),
            }
        }
        match (found.is_empty(), failed) {
            (true, Some(why)) => Err(why),
            _ => {
                let sifted = self.inner.policy.sift(&found)?;
                Ok(sifted.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
            }
        }
    }

    /// The kinds of addresses that are of use here.
    fn kinds(&self) -> impl Iterator<Item = Kind> + Clone + use<> {
        let Policy { ipv4, ipv6, .. } = self.inner.policy;
        [(ipv4, Kind::Ipv4), (ipv6, Kind::Ipv6)]
            .into_iter()
            .filter_map(|(wanted, kind)| wanted.then_some(kind))
    }

    /// Has the addresses of a host asked for, unless they are known.
    fn begin(&self, host: &str) {
        for kind in self.kinds() {
            let question = Question { name: host.to_owned(), kind };
            let mut state = self.inner.state();
            if !matches!(state.cache.look(clock::now(), &question), Known::Fresh(_) | Known::Failed)
            {
                let _goes_on_by_itself = self.asked(&mut state, &question);
            }
        }
    }

    /// The answer to one question: from the cache, or asked for.
    async fn ask(&self, question: Question, deadline: Deadline) -> Result<Answer, LocateError> {
        let now = clock::now();
        let (stale, asked) = {
            let mut state = self.inner.state();
            match state.cache.look(now, &question) {
                Known::Fresh(answer) => return Ok(answer),
                Known::Failed => return Err(LocateError::Unavailable),
                Known::Stale(answer) => (Some(answer), self.asked(&mut state, &question)),
                Known::Unknown => (None, self.asked(&mut state, &question)),
            }
        };
        let patience = match stale {
            Some(_) => deadline.min(Deadline::from_std(now + STALE_PATIENCE)),
            None => deadline,
        };
        let answer = match asked {
            Some(asked) => timeout_at(patience, asked).await.ok().flatten(),
            None => None,
        };
        answer.or(stale).ok_or(LocateError::Unavailable)
    }

    /// Joins those who ask the same question, or asks it. `None` when too many are open.
    fn asked(&self, state: &mut State, question: &Question) -> Option<Asked> {
        if let Some(asked) = state.open.get(question) {
            return Some(asked.clone());
        }
        if state.open.len() >= MAX_OPEN {
            debug!(name = question.name, "too many DNS queries are open");
            return None;
        }
        let task = tokio::spawn(query(Arc::clone(&self.inner), question.clone()));
        let asked = task.map(|done| done.ok().flatten()).boxed().shared();
        state.open.insert(question.clone(), asked.clone());
        Some(asked)
    }

    /// A random number from 0 to `most`, both included.
    fn draw(&self, most: u32) -> u32 {
        let mut random = self.inner.random.lock().unwrap_or_else(PoisonError::into_inner);
        let wide = u64::from_le_bytes(random.bytes());
        u32::try_from(wide % (u64::from(most) + 1)).unwrap_or(0)
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks name servers, and has the cache know what came of it.
async fn query(inner: Arc<Inner>, question: Question) -> Option<Answer> {
    let outcome = inner.outcome(&question).await;
    let now = clock::now();
    let mut state = inner.state();
    state.open.remove(&question);
    match outcome {
        Ok((answer, ttl)) => {
            state.cache.learn(now, question, answer.clone(), ttl);
            Some(answer)
        }
        // Some name servers do not know SRV, and say so in one of many ways: then there are none,
        // unless we have seen some.
        Err(error) if is_refusal(&error) && state.cache.may_lack_services(now, &question) => {
            debug!(name = question.name, %error, "no SRV records for want of a better answer");
            state.cache.learn(now, question, Answer::Nothing, DEFAULT_NEGATIVE_TTL);
            Some(Answer::Nothing)
        }
        Err(error) => {
            debug!(name = question.name, kind = ?question.kind, %error, "DNS query failed");
            state.cache.fail(now, question);
            None
        }
    }
}

/// Whether a name server has answered, with a code that tells nothing.
fn is_refusal(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::ResponseCode(_)))
}

impl Inner {
    async fn outcome(&self, question: &Question) -> Result<(Answer, Duration), NetError> {
        let mut name = Name::from_ascii(&question.name)?;
        // Names are whole: a search list would ask strangers for them.
        name.set_fqdn(true);
        let kind = match question.kind {
            Kind::Services => RecordType::SRV,
            Kind::Ipv4 => RecordType::A,
            Kind::Ipv6 => RecordType::AAAA,
        };
        match self.dns.lookup(name, kind).await {
            Ok(found) => {
                let data = found.answers().iter().map(|record| &record.data);
                let answer = match question.kind {
                    Kind::Services => Answer::of_services(data.filter_map(service).collect()),
                    _ => Answer::of_addresses(data.filter_map(address).collect()),
                };
                Ok((answer, left(found.valid_until(), clock::now())))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let told = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
                Ok((Answer::Nothing, told.unwrap_or(DEFAULT_NEGATIVE_TTL)))
            }
            Err(error) => Err(error),
        }
    }
}

/// How long "there is nothing" is believed when the answer does not say.
const DEFAULT_NEGATIVE_TTL: Duration = Duration::from_secs(5);

fn left(until: Instant, now: Instant) -> Duration {
    until.saturating_duration_since(now)
}

fn service(data: &RData) -> Option<Service> {
    let RData::SRV(record) = data else { return None };
    let target = record.target.to_ascii().to_ascii_lowercase();
    let host = target.strip_suffix('.').unwrap_or(&target).to_owned();
    let (priority, weight, port) = (record.priority, record.weight, record.port);
    Some(Service { priority, weight, port, host })
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

fn no_name_servers() -> ResolverConfig {
    ResolverConfig::from_name_servers(Vec::new())
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (address.port(), address.port());
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

fn tune(options: &mut ResolverOpts) {
    options.timeout = ATTEMPT;
    options.attempts = RETRIES;
    // The cache is ours.
    options.cache_size = 0;
}

#[cfg(test)]
mod tests;
