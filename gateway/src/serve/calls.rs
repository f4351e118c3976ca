//! What calls are made with: media workers, links to agents, workflows' runs, and the shard that has them all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use config::settings::Settings;
use config::workflows::Workflows;
use media::ports::{PoolOptions, PortPool};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{EVENT_DEPTH, Node, descriptors, named};
use crate::agent::{AgentEvent, AuthToken, Dialer, LinkSettings, TickFan, link};
use crate::call::places::DialLimits;
use crate::net::reach::{Reach, Reached};
use crate::net::{Inbound, Outbound};
use crate::observe::metric::{LimitLabels, Metrics};
use crate::random;
use crate::routing::{RunLimits, Runs};
use crate::shard::links::Links;
use crate::shard::{Command, Inputs, LiveTable, Services, Shard};

/// Commands that may wait for the shard, besides calls to be placed.
const COMMAND_DEPTH: usize = 1_024;
/// Third legs of calls that are being transferred.
const SPARE_SESSIONS: usize = 64;

/// The network, as the shard sees it.
pub(super) struct Wires {
    pub(super) inbound: mpsc::Receiver<Inbound>,
    pub(super) outbound: Outbound,
    pub(super) reach: Reach,
    pub(super) reached: mpsc::Receiver<Reached>,
}

/// The running shard, and what others need of it.
pub(super) struct Calls {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) live: Arc<LiveTable>,
    pub(super) workers: Arc<media::Workers>,
    pub(super) ports: Vec<PortPool>,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

/// Starts the media workers and the shard.
///
/// # Errors
/// Says what could not be started or read.
pub(super) fn start(node: &Node, engine: Arc<dyn Workflows>, wires: Wires) -> io::Result<Calls> {
    let settings = &node.settings;
    let media = start_media(settings, &node.metrics)?;
    let waiting = settings.calls.outbound_queue as usize;
    let (command_in, commands) = mpsc::channel(COMMAND_DEPTH + waiting);
    let told = (command_in.clone(), DialLimits::from(&**settings));
    let live = Arc::new(LiveTable::new(node.store.snapshot(), node.journal.clone(), told));
    let (link_in, agents) = mpsc::channel(EVENT_DEPTH);
    let (run_in, run_done) = mpsc::channel(EVENT_DEPTH);
    let runs = Runs::new(engine, RunLimits::from(&settings.routing), run_in);
    let services = Services {
        snapshot: node.store.snapshot(),
        journal: node.journal.clone(),
        metrics: node.metrics.clone(),
        workers: Arc::clone(&media.workers),
        ports: media.ports.clone(),
        outbound: wires.outbound,
        reach: wires.reach,
        links: make_links(settings, &media.workers, link_in)?,
        runs,
        health: node.health.clone(),
        live: Arc::clone(&live),
        seed: random::seed()?,
        settings: Arc::clone(settings),
    };
    let inputs = Inputs {
        inbound: wires.inbound,
        media: media.events,
        agents,
        runs: run_done,
        reached: wires.reached,
        commands,
    };
    let tasks = vec![tokio::spawn(Shard::new(services).run(inputs))];
    let (workers, ports) = (media.workers, media.ports);
    Ok(Calls { commands: command_in, live, workers, ports, tasks })
}

/// Media workers, their ports, and what they tell.
struct MediaParts {
    workers: Arc<media::Workers>,
    ports: Vec<PortPool>,
    events: mpsc::Receiver<media::Event>,
}

fn start_media(settings: &Settings, metrics: &Metrics) -> io::Result<MediaParts> {
    let (event_in, events) = mpsc::channel(EVENT_DEPTH);
    let options = media::WorkerOptions {
        threads: settings.media.workers,
        realtime: settings.media.realtime,
        prompt_bell: true,
        gathered: true, // the shard wakes them when it has settled what came
        // Whatever worker they are on, `sip.max_calls` is what bounds calls.
        max_sessions: 2 * settings.sip.max_calls as usize + SPARE_SESSIONS,
        ..media::WorkerOptions::default()
    };
    let lost = metrics.shed.get_or_create_owned(&LimitLabels { limit: "media_events" });
    // A full queue loses an event, never a packet: the shard is then far behind anyway.
    let tell = move |event| {
        if event_in.try_send(event).is_err() {
            lost.inc();
        }
    };
    let workers = Arc::new(media::Workers::start(&options, Box::new(tell))?);
    let quarantine = Duration::from_secs(u64::from(settings.media.quarantine_seconds));
    let spare = descriptors::spare(settings, descriptors::raise_limit()?);
    let connected = usize::try_from(spare).unwrap_or(usize::MAX) / settings.media.bind.len().max(1);
    let mut ports = Vec::with_capacity(settings.media.bind.len());
    for &bind in &settings.media.bind {
        let seed = random::seed()?;
        let seed = u64::from_le_bytes(seed.first_chunk().copied().unwrap_or_default());
        let range = settings.media.ports.clone();
        ports.push(PortPool::new(PoolOptions { bind, ports: range, quarantine, seed, connected }));
    }
    Ok(MediaParts { workers, ports, events })
}

fn make_links(
    settings: &Settings,
    workers: &media::Workers,
    events: mpsc::Sender<(u64, AgentEvent)>,
) -> io::Result<Links> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = &settings.agents.extra_roots {
        let pem = std::fs::read(path).map_err(|error| named(path, error))?;
        for certificate in link::certificates(&pem).map_err(|error| named(path, error))? {
            roots.add(certificate).map_err(|error| named(path, error))?;
        }
    }
    let dialer = Dialer::new(roots).map_err(io::Error::other)?;
    let token = match &settings.agents.signing_token {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| named(path, error))?;
            Some(AuthToken::new(text.trim().to_owned()))
        }
        None => None,
    };
    let link = LinkSettings {
        connect_timeout_ms: u64::from(settings.calls.agent_connect_timeout_ms),
        stall_timeout_ms: u64::from(settings.calls.agent_stall_ms),
        allow_plain_ws: settings.agents.allow_plain_ws,
        allow_private_addresses: settings.agents.allow_private_addresses,
        ..LinkSettings::default()
    };
    let fans = (0..workers.count())
        .map(|worker| {
            TickFan::start(workers.tick_fd(media::WorkerId(worker))?, workers.max_sessions())
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(Links::new(dialer, link, token, (fans, events)))
}
