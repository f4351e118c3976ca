//! Starting, running and stopping the gateway.
//!
//! ```text
//!  settings ─► store ─► snapshot ─► media workers ─► sockets ─► shard ─► API ─► ready
//!  SIGTERM  ─► draining: 503 to OPTIONS and new calls ─► last call over or time is up ─► BYE ─► stop
//! ```

mod calls;
mod descriptors;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use config::api::Waiting;
use config::journal::Journal;
use config::limits::EVENT_WRITE_SECONDS;
use config::model::Organisation;
use config::seal::Sealer;
use config::secret::Secret;
use config::settings::{Advertise, Settings, StoreUrl};
use config::store::{Store, StoreError, StoreOptions};
use config::workflows::Workflows;
use prometheus_client::registry::Registry;
use socket2::SockRef;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use self::calls::Wires;
use crate::call::EndReason;
use crate::clock;
use crate::control;
use crate::net::reach::{self, Listeners, Means, Reach, Reached};
use crate::net::resolve::{self, Resolver};
use crate::net::target::Policy;
use crate::net::trust::Trust;
use crate::net::{self, Inbound, Outbound, address::Seen, stream::Streams, tls};
use crate::observe::health::{self, Health, Phase};
use crate::observe::metric::Metrics;
use crate::observe::workers;
use crate::random;
use crate::shard::{Command, LiveTable};

/// Conversation and decision entries that may wait for the store.
const JOURNAL_DEPTH: usize = 10_000;

/// Events of one kind that may wait for the shard.
const EVENT_DEPTH: usize = 8_192;

/// How long BYEs of the last calls may take once everything was hung up.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// How long the last words of event streams may take.
const STREAM_FAREWELL: Duration = Duration::from_secs(1);

/// Where the program really listens: what port 0 became.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// SIP over UDP.
    pub udp: Vec<SocketAddr>,
    /// SIP over TCP.
    pub tcp: Vec<SocketAddr>,
    /// SIP over TLS.
    pub tls: Vec<SocketAddr>,
    /// REST API.
    pub api: Option<SocketAddr>,
    /// Metrics and health.
    pub observe: Option<SocketAddr>,
    /// The certificate shown over TLS.
    pub certificate: Option<PathBuf>,
}

/// A running gateway.
pub struct Gateway {
    /// Where it listens.
    pub listening: Listening,
    /// The first organisation and its key, when this start made them. Shown once.
    pub bootstrap: Option<(Organisation, Secret<String>)>,
    /// Phase and store state.
    pub health: Health,
    commands: mpsc::Sender<Command>,
    live: Arc<LiveTable>,
    identity: Option<tls::ServerIdentity>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    jobs: JoinHandle<()>,
    /// Holds the node's name.
    name: JoinHandle<()>,
    waiting: Waiting,
    journal: Journal,
    journal_done: JoinHandle<()>,
    store: Store,
}

/// Every socket, bound before anything runs, so that a busy port stops the start at once.
struct Sockets {
    udp: HashMap<SocketAddr, Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    api: TcpListener,
    observe: TcpListener,
}

impl Sockets {
    async fn bind(settings: &Settings) -> io::Result<Self> {
        Ok(Sockets {
            udp: net::udp::bind_all(&settings.sip.udp)?,
            tcp: listen_all("tcp", &settings.sip.tcp)?,
            tls: listen_all("tls", &settings.sip.tls)?,
            api: listen("api", settings.api.listen).await?,
            observe: listen("observe", settings.observe.listen).await?,
        })
    }

    fn addresses(&self) -> io::Result<Listening> {
        let of = |listeners: &[TcpListener]| -> io::Result<Vec<SocketAddr>> {
            listeners.iter().map(TcpListener::local_addr).collect()
        };
        Ok(Listening {
            udp: self.udp.keys().copied().collect(),
            tcp: of(&self.tcp)?,
            tls: of(&self.tls)?,
            api: Some(self.api.local_addr()?),
            observe: Some(self.observe.local_addr()?),
            certificate: None,
        })
    }
}

async fn listen(what: &str, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{what} {address}: {error}")))
}

fn listen_all(what: &str, addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let named = |address: SocketAddr| {
        net::stream::bind(address)
            .map_err(|error| io::Error::new(error.kind(), format!("{what} {address}: {error}")))
    };
    addresses.iter().copied().map(named).collect()
}

impl Gateway {
    /// Starts everything and returns when calls are taken. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Says what could not be opened, bound or read.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let settings = Arc::new(settings);
        let sockets = Sockets::bind(&settings).await?;
        let mut listening = sockets.addresses()?;
        let identity = identity(&settings, &mut listening)?;
        let store = open_store(&settings).await?;
        let name = patiently(|| store.hold_node_name()).await.map_err(io::Error::other)?;
        let name = tokio::spawn(name.keep(store.clone()));
        let bootstrap = patiently(|| store.bootstrap()).await.map_err(io::Error::other)?;
        let (journal, writer) = Journal::new(journal_depth(&settings));
        let health = Health::default();
        let mut registry = Registry::with_prefix("gateway");
        let metrics = Metrics::register(&mut registry);
        let (stop, stopping) = watch::channel(false);
        let journal_done = tokio::spawn(writer.run(store.clone()));
        let network = Network::open(&settings, &sockets, &listening)?;
        let node = Node { settings, store, journal, metrics, health };
        let means = control::Means::open(&node.settings)?;
        let engine: Arc<dyn Workflows> = Arc::new(means.engine(&node.settings));
        let wires = Wires {
            inbound: network.inbound,
            outbound: network.outbound,
            reach: network.reach,
            reached: network.reached,
        };
        let calls = calls::start(&node, Arc::clone(&engine), wires)?;
        let mut tasks = calls.tasks;
        let (plane, background) = ((calls.live.clone() as _, engine), (&stopping, &mut tasks));
        let control::Started { api, attempts, waiting, jobs } =
            control::start((&node.settings, &node.store), plane, means, background)?;
        let extra = workers::describe(
            calls.workers,
            calls.ports,
            (node.metrics.clone(), node.journal.clone()),
            (node.store.events().clone(), attempts),
        );
        let observed = health::router(node.health.clone(), registry, extra);
        tasks.push(tokio::spawn(serve_http(sockets.api, api, stopping.clone())));
        tasks.push(tokio::spawn(serve_http(sockets.observe, observed, stopping)));
        tasks.push(tokio::spawn(watch_store(node.store.clone(), node.health.clone())));
        tasks.push(tokio::spawn(node.store.clone().keep_following()));
        listen_for_sip(
            (sockets.udp, sockets.tcp, sockets.tls),
            (network.inbound_in, network.streams, identity.clone()),
            (&node.metrics, &network.advertise),
            &mut tasks,
        );
        node.health.enter(Phase::Ready);
        announce(&node.settings, &listening);
        Ok(Gateway {
            listening,
            bootstrap,
            health: node.health,
            commands: calls.commands,
            live: calls.live,
            identity,
            stop,
            tasks,
            jobs,
            name,
            waiting,
            journal: node.journal,
            journal_done,
            store: node.store,
        })
    }

    /// Reads the TLS certificate again; a bad file keeps the old one.
    pub fn reload(&self) {
        let Some(identity) = &self.identity else { return };
        match identity.reload() {
            Ok(()) => info!("TLS certificate read again"),
            Err(error) => warn!(%error, "TLS certificate not usable, the old one stays"),
        }
    }

    /// Takes no new calls; returns when the last one is over or was hung up after `limit`.
    pub async fn drain(&self, limit: Duration) {
        self.live.drain();
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::Drain { limit, done }).await.is_ok() {
            let _ = tokio::time::timeout(limit + FAREWELL, finished).await;
        }
    }

    /// Hangs everything up at once.
    pub async fn hang_up_all(&self) {
        let _ = self.commands.send(Command::HangUpAll { reason: EndReason::Drained }).await;
    }

    /// Stops listeners and tasks; waits for the journal to be written.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        if tokio::time::timeout(FAREWELL, self.waiting.stop()).await.is_err() {
            warn!("how some runs of workflows ended is not written in time");
        }
        // Whoever shares the database need not wait until the leases of this node's jobs are over.
        let abort = self.jobs.abort_handle();
        if tokio::time::timeout(FAREWELL, self.jobs).await.is_err() {
            warn!("the store did not take this node's jobs back in time");
            abort.abort();
        }
        drop(self.commands);
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.journal.finish();
        if tokio::time::timeout(FAREWELL, self.journal_done).await.is_err() {
            warn!("the store did not take the last records in time");
        }
        self.store.events().close(STREAM_FAREWELL).await;
        self.store.close().await;
        self.name.abort();
        let _ = self.name.await; // and the name is free
    }
}

/// Each call opens, changes and closes its record, and the close must find its place; so must that
/// of a call that waits to be placed.
fn journal_depth(settings: &Settings) -> usize {
    let waiting = settings.calls.outbound_queue as usize;
    JOURNAL_DEPTH.max(4 * settings.sip.max_calls as usize + waiting)
}

fn announce(settings: &Settings, listening: &Listening) {
    info!(
        node = settings.node.name, udp = ?listening.udp, tcp = ?listening.tcp,
        tls = ?listening.tls, api = ?listening.api, observe = ?listening.observe, "ready"
    );
}

/// The TLS identity: the configured one, or one made on first run.
fn identity(
    settings: &Settings,
    listening: &mut Listening,
) -> io::Result<Option<tls::ServerIdentity>> {
    if settings.sip.tls.is_empty() {
        return Ok(None);
    }
    let files = match (&settings.sip.certificate, &settings.sip.private_key) {
        (Some(certificate), Some(private_key)) => {
            tls::Files { certificate: certificate.clone(), private_key: private_key.clone() }
        }
        _ => {
            let folder = &settings.store.data_dir;
            std::fs::create_dir_all(folder)?;
            let files = tls::Files {
                certificate: folder.join("self-signed.pem"),
                private_key: folder.join("self-signed.key"),
            };
            let host = settings.sip.host.rsplit_once(':').map_or(&*settings.sip.host, |(h, _)| h);
            let names = vec![host.trim_matches(['[', ']']).to_owned(), "localhost".to_owned()];
            if tls::self_sign(&files, names)? {
                warn!(
                    certificate = %files.certificate.display(),
                    "no TLS certificate is configured: a self-signed one was made; peers that check \
                     certificates will refuse it"
                );
            }
            files
        }
    };
    listening.certificate = Some(files.certificate.clone());
    tls::ServerIdentity::load(files).map(Some)
}

/// How long a store that is busy or whose disk is slow may keep the start waiting.
const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two attempts.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Opens the store; its folder and the key that seals secrets are made when they are not there. A
/// store that is busy is waited for.
///
/// # Errors
/// Says what could not be made or opened.
pub async fn open_store(settings: &Settings) -> io::Result<Store> {
    let folder = &settings.store.data_dir;
    std::fs::create_dir_all(folder)?;
    let key = settings.store.seal_key.clone().unwrap_or_else(|| folder.join("seal.key"));
    Sealer::open(&key).map_err(|error| named(&key, error))?;
    let url = database_url(&settings.store.url, folder);
    let opened = patiently(|| async {
        let options = StoreOptions {
            node: settings.node.name.clone(),
            max_phone_numbers: settings.api.max_phone_numbers_per_organization,
            max_webhooks: settings.webhooks.max_per_organization,
            webhook_retry_first_s: settings.webhooks.retry_first_seconds,
            webhook_retry_hours: settings.webhooks.retry_hours,
            ..StoreOptions::new(
                Sealer::open(&key).map_err(|_| StoreError::Fault)?,
                &settings.sip.host,
            )
        };
        Store::open(url.expose(), options).await
    });
    let failed = |error| io::Error::other(format!("store {}: {error}", settings.store.url));
    opened.await.map_err(failed)
}

/// Tries again while the store is unavailable, up to [`STORE_PATIENCE`].
async fn patiently<T, F>(attempt: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = clock::now() + STORE_PATIENCE;
    loop {
        match attempt().await {
            Err(StoreError::Unavailable(why)) if clock::now() < deadline => {
                warn!(%why, "the store is not ready, trying again");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn named(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// A relative SQLite path is relative to the data folder.
fn database_url(url: &StoreUrl, folder: &Path) -> StoreUrl {
    match url.sqlite_path() {
        Some(path) if !path.starts_with('/') && path != ":memory:" => {
            StoreUrl::from(format!("sqlite:{}", folder.join(path).display()).as_str())
        }
        _ => url.clone(),
    }
}

/// What every part of a node has to do with.
struct Node {
    settings: Arc<Settings>,
    store: Store,
    journal: Journal,
    metrics: Metrics,
    health: Health,
}

/// Everything between sockets and shard.
struct Network {
    advertise: Arc<[Advertise]>,
    outbound: Outbound,
    streams: Streams,
    inbound_in: mpsc::Sender<Inbound>,
    inbound: mpsc::Receiver<Inbound>,
    reach: Reach,
    reached: mpsc::Receiver<Reached>,
}

impl Network {
    fn open(settings: &Settings, sockets: &Sockets, listening: &Listening) -> io::Result<Self> {
        let (inbound_in, inbound) = mpsc::channel(net::INBOUND_DEPTH);
        let (reached_in, reached) = mpsc::channel(EVENT_DEPTH);
        let advertise: Arc<[Advertise]> = settings.sip.advertise.clone().into();
        let outbound = Outbound::advertised(sockets.udp.clone(), &advertise);
        let most = settings.sip.max_connections as usize;
        let streams =
            Streams::new(inbound_in.clone(), outbound.clone(), most, Arc::clone(&advertise));
        let means = Means {
            resolver: make_resolver(settings, &listening.udp)?,
            streams: streams.clone(),
            outbound: outbound.clone(),
            listeners: Listeners { tcp: listening.tcp.clone(), tls: listening.tls.clone() },
            trust: make_trust(settings)?,
            limits: reach::Limits::default(),
        };
        let reach = Reach::new(means, reached_in);
        Ok(Network { advertise, outbound, streams, inbound_in, inbound, reach, reached })
    }
}

/// Finds carriers in the IP versions that we listen on.
fn make_resolver(settings: &Settings, udp: &[SocketAddr]) -> io::Result<Resolver> {
    let families = |six: bool| udp.is_empty() || udp.iter().any(|bound| bound.is_ipv6() == six);
    let policy = Policy { ipv4: families(false), ipv6: families(true), allow_private: true };
    let seed = random::seed()?;
    let options = |nameservers| resolve::Options { nameservers, policy, seed };
    Resolver::new(options(settings.sip.nameservers.clone())).or_else(|error| {
        warn!(%error, "no name servers in the system's configuration: asking this host's own");
        Resolver::new(options(vec![SocketAddr::from(([127, 0, 0, 1], 53))]))
    })
}

/// Whom to believe over TLS: the public issuers, and those of the settings.
fn make_trust(settings: &Settings) -> io::Result<Trust> {
    let Some(path) = &settings.sip.extra_roots else { return Trust::with_extra_roots(None) };
    let pem = std::fs::read(path).map_err(|error| named(path, error))?;
    Trust::with_extra_roots(Some(&pem)).map_err(|error| named(path, error))
}

type SipSockets = (HashMap<SocketAddr, Arc<UdpSocket>>, Vec<TcpListener>, Vec<TcpListener>);
type SipSinks = (mpsc::Sender<Inbound>, Streams, Option<tls::ServerIdentity>);

fn listen_for_sip(
    (udp, tcp, tls): SipSockets,
    (inbound, streams, identity): SipSinks,
    (metrics, advertise): (&Metrics, &Arc<[Advertise]>),
    tasks: &mut Vec<JoinHandle<()>>,
) {
    for (bound, socket) in udp {
        let seen = Seen::new(Arc::clone(advertise), bound);
        let dropped = Arc::clone(&metrics.datagrams_dropped);
        tasks.push(tokio::spawn(net::udp::receive(socket, seen, inbound.clone(), dropped)));
    }
    for listener in tcp {
        tasks.push(tokio::spawn(streams.clone().accept_tcp(listener)));
    }
    if let Some(identity) = identity {
        for listener in tls {
            tasks.push(tokio::spawn(streams.clone().accept_tls(listener, identity.clone())));
        }
    }
}

async fn serve_http(listener: TcpListener, router: axum::Router, mut stop: watch::Receiver<bool>) {
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    // A client that takes nothing of what it asked for does not keep its connection.
    let listener = listener.tap_io(|stream| {
        let patience = Duration::from_secs(EVENT_WRITE_SECONDS.value);
        if let Err(error) = SockRef::from(&*stream).set_tcp_user_timeout(Some(patience)) {
            warn!(%error, "HTTP connections have no time limit for sending");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
        warn!(%error, "HTTP listener failed");
    }
}

/// Looks at the store every second: health says whether it works.
async fn watch_store(store: Store, health: Health) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let up = tokio::time::timeout(Duration::from_secs(1), store.check()).await;
        health.store_is(matches!(up, Ok(Ok(()))));
    }
}
