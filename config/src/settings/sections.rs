//! Second stage: what the program uses. Each section is declared once, with defaults and ranges.
//!
//! The defaults are a loopback trial: everything listens on 127.0.0.1 and nothing outside is needed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::macros::{section, words};
use super::read::Reader;
use super::store_url::StoreUrl;
use crate::limits;
use crate::model::{AgentEnding, E164, Transport};
use crate::secret::Secret;

/// All settings of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[node]`
    pub node: NodeSettings,
    /// `[sip]`
    pub sip: SipSettings,
    /// `[media]`
    pub media: MediaSettings,
    /// `[calls]`
    pub calls: CallSettings,
    /// `[routing]`
    pub routing: RoutingSettings,
    /// `[api]`
    pub api: ApiSettings,
    /// `[observe]`
    pub observe: ObserveSettings,
    /// `[store]`
    pub store: StoreSettings,
    /// `[agents]`
    pub agents: AgentSettings,
    /// `[fetch]`
    pub fetch: FetchSettings,
    /// `[llm]`
    pub llm: LlmSettings,
    /// `[managed]`
    pub managed: ManagedSettings,
    /// `[events]`
    pub events: EventSettings,
    /// `[webhooks]`
    pub webhooks: WebhookSettings,
    /// `[workflows]`
    pub workflows: WorkflowSettings,
}

impl Settings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            node: NodeSettings::read(reader),
            sip: SipSettings::read(reader),
            media: MediaSettings::read(reader),
            calls: CallSettings::read(reader),
            routing: RoutingSettings::read(reader),
            api: ApiSettings::read(reader),
            observe: ObserveSettings::read(reader),
            store: StoreSettings::read(reader),
            agents: AgentSettings::read(reader),
            fetch: FetchSettings::read(reader),
            llm: LlmSettings::read(reader),
            managed: ManagedSettings::read(reader),
            events: EventSettings::read(reader),
            webhooks: WebhookSettings::read(reader),
            workflows: WorkflowSettings::read(reader),
        }
    }
}

section! {
    /// Who this node is.
    pub struct NodeSettings = "node" {
        /// Name of this node in logs, metrics and records; letters, digits, `-`, `_`, `.`. Nodes that
        /// share a database need names of their own.
        name: String = "trunkline".to_owned();
    }
}

section! {
    /// Where and how SIP is spoken.
    pub struct SipSettings = "sip" {
        /// UDP listeners.
        udp: Vec<SocketAddr> = vec![loopback(5060)];
        /// TCP listeners.
        tcp: Vec<SocketAddr> = vec![loopback(5060)];
        /// TLS listeners.
        tls: Vec<SocketAddr> = Vec::new();
        /// What customers dial: a DNS name, or an address, with an optional port.
        host: String = "127.0.0.1:5060".to_owned();
        /// Which of our addresses is written into messages and SDP, by the peer's network; the most
        /// specific network wins, and the local address of the socket is used where none matches.
        advertise: Vec<Advertise> = Vec::new();
        /// PEM file with the certificate chain for TLS; without one a self-signed certificate is made in
        /// `data_dir` at the first start.
        certificate: Option<PathBuf> = None;
        /// PEM file with the private key for TLS.
        private_key: Option<PathBuf> = None;
        /// What an unknown source gets.
        strangers: Strangers = Strangers::Silent;
        /// Hashes of digest challenges, for trunks with `auth_username`.
        digest: Digest = Digest::Both;
        /// Refuse trunks that take calls from anywhere (neither addresses nor digest).
        require_inbound_protection: bool = false;
        /// `User-Agent` and `Server` header values.
        user_agent: String = "Trunkline".to_owned();
        /// Calls at the same time on this node; one more gets 503 with Retry-After.
        max_calls: u32 = 2_000, in 1..=limits::MAX_CALLS.value_u32();
        /// TCP and TLS connections at the same time; one more is closed at once.
        max_connections: u32 = 4_000, in 1..=limits::MAX_CONNECTIONS.value_u32();
        /// Name servers that find carriers and SIP agents (RFC 3263); none means those of the system.
        nameservers: Vec<SocketAddr> = Vec::new();
        /// PEM file with issuers that are trusted for carriers and SIP agents besides the public ones.
        extra_roots: Option<PathBuf> = None;
        /// Seconds for trying one carrier's targets one after another, until one answers at all.
        failover_seconds: u32 = 10, in 1..=120;
        /// Milliseconds a target may stay silent before the next one is tried.
        target_timeout_ms: u32 = 2_000, in 100..=32_000;
    }
}

section! {
    /// Where and how audio flows.
    pub struct MediaSettings = "media" {
        /// Addresses that media sockets are bound to; at most one of each family.
        bind: Vec<IpAddr> = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        /// UDP ports of media, both ends included; each call leg takes an even and an odd one.
        ports: RangeInclusive<u16> = 20_000..=29_999;
        /// Media threads; 0 means one per core but one, at least one.
        workers: usize = 0, in 0..=256;
        /// Ask for real-time priority; without permission the program warns and goes on.
        realtime: bool = true;
        /// Seconds without any media in either direction after which a call is ended; 0 = never.
        timeout_seconds: u32 = 30, in 0..=86_400;
        /// Seconds a closed port is drained before another call may have it.
        quarantine_seconds: u32 = 30, in 0..=600;
        /// Least delay of the jitter buffer, in milliseconds.
        jitter_min_ms: u16 = 20, in 20..=400;
        /// Greatest delay of the jitter buffer, in milliseconds.
        jitter_max_ms: u16 = 200, in 20..=400;
    }
}

section! {
    /// How long the parts of a call may take.
    pub struct CallSettings = "calls" {
        /// Seconds that live calls may still run after a stop was asked for.
        drain_seconds: u32 = 3_600, in 0..=86_400;
        /// Milliseconds an agent may take to accept a call.
        agent_connect_timeout_ms: u32 = 5_000, in 100..=60_000;
        /// Milliseconds an agent link may stop reading before it counts as dead.
        agent_stall_ms: u32 = 3_000, in 500..=60_000;
        /// What the caller gets when the agent is lost in mid-call.
        agent_ending: AgentEnding = AgentEnding::Hangup;
        /// Seconds after which any call is ended; a trunk may set less.
        max_duration_seconds: u32 = 14_400, in 1..=604_800;
        /// Seconds after which a call out is ended, where its trunk does not say; never more than
        /// `max_duration_seconds`.
        outbound_duration_seconds: u32 = 3_600, in 1..=604_800;
        /// Seconds a call out may ring, where its trunk does not say.
        ring_timeout_seconds: u32 = 45, in 1..=300;
        /// Calls out at the same time of one organisation that says nothing itself; more wait in the
        /// queue.
        outbound_concurrency: u32 = 10, in 1..=limits::OUTBOUND_CONCURRENCY.value_u32();
        /// Calls out at the same time of all organisations, who share them in fair parts.
        outbound_concurrency_total: u32 = 50, in 1..=limits::MAX_CALLS.value_u32();
        /// Calls out that may wait, half of them of one organisation; one more is refused with 503.
        outbound_queue: u32 = 1_000, in 1..=limits::OUTBOUND_QUEUE.value_u32();
        /// Seconds a call out may wait before it fails.
        outbound_queue_seconds: u32 = 3_600, in 1..=86_400;
        /// Seconds of `Retry-After` in a 503.
        retry_after_seconds: u32 = 5, in 1..=3_600;
    }
}

section! {
    /// The workflows that calls wait for: those that route them, and those of agents before them.
    pub struct RoutingSettings = "routing" {
        /// Seconds the workflow of an organisation may take to choose the agent of a call; then its
        /// fallback agent answers.
        deadline_seconds: u32 = 10, in 1..=60;
        /// Seconds an agent's pre-conversation workflow may take.
        pre_conversation_seconds: u32 = 10, in 1..=60;
        /// Calls whose workflows run at the same time; one more is done as if its workflow had
        /// failed.
        concurrent_runs: u32 = 500, in 1..=limits::MAX_CALLS.value_u32();
        /// The same of one organisation.
        concurrent_runs_per_organization: u32 = 100, in 1..=limits::MAX_CALLS.value_u32();
    }
}

section! {
    /// The REST API.
    pub struct ApiSettings = "api" {
        /// Listener of the API. TLS is the reverse proxy's job.
        listen: SocketAddr = loopback(8080);
        /// Bytes of a request body; more gets 413.
        max_body_bytes: usize = 1_048_576, in 1_024..=16_777_216;
        /// Seconds a request may take; more gets 503. One that waits for a workflow may take a minute,
        /// whatever this says.
        request_timeout_seconds: u32 = 30, in 1..=300;
        /// Requests at the same time; one more gets 503 with Retry-After.
        max_concurrent_requests: usize = 256, in 1..=65_536;
        /// Phone numbers an organisation may hold.
        max_phone_numbers_per_organization: u32 = 100, in 1..=1_000_000;
        /// Networks of the proxies in front of the API: the audit log has the address that they name in
        /// X-Forwarded-For instead of theirs.
        trusted_proxies: Vec<IpNet> = Vec::new();
    }
}

section! {
    /// Logs, metrics and health.
    pub struct ObserveSettings = "observe" {
        /// Listener of `/metrics` and `/health`; keep it private.
        listen: SocketAddr = loopback(9090);
        /// How log lines look.
        log: LogFormat = LogFormat::Auto;
        /// Which log lines there are: `error`, `warn`, `info`, `debug`, `trace`, or directives such
        /// as `info,sip=debug`.
        level: String = "info".to_owned();
    }
}

section! {
    /// Where data is kept.
    pub struct StoreSettings = "store" {
        /// The database: `sqlite:` and a path, relative to `data_dir`; or
        /// `postgres://user:password@host/database`, which several nodes can share. How its TLS is
        /// checked is said by `?sslmode=`: `disable`, `prefer`, `require`, `verify-ca` or
        /// `verify-full`, the last two with `&sslrootcert=` and a PEM file of issuers.
        url: StoreUrl = StoreUrl::from("sqlite:trunkline.db");
        /// Folder of the database and of the key that seals secrets.
        data_dir: PathBuf = PathBuf::from("data");
        /// File with the 32-byte key that seals secrets at rest; none means `seal.key` in `data_dir`,
        /// made at the first start.
        seal_key: Option<PathBuf> = None;
    }
}

section! {
    /// Agents that run elsewhere.
    pub struct AgentSettings = "agents" {
        /// Allow `ws://` besides `wss://`.
        allow_plain_ws: bool = false;
        /// Allow agents on loopback and private addresses.
        allow_private_addresses: bool = false;
        /// PEM file with issuers that are trusted for agents besides the public ones.
        extra_roots: Option<PathBuf> = None;
        /// File with the token that signs the handshake of agents without an `auth_token` of their
        /// own; none means such handshakes are not signed.
        signing_token: Option<PathBuf> = None;
    }
}

section! {
    /// Web addresses that customers write: sites to read, webhooks, HTTP steps.
    pub struct FetchSettings = "fetch" {
        /// Seconds that one fetch may take, redirects included.
        timeout_seconds: u32 = 10, in 1..=60;
        /// Bytes of a reply's body; more is an error.
        max_body_bytes: usize = 5_242_880, in 1_024..=67_108_864;
        /// Allow `http://` besides `https://`.
        allow_plain_http: bool = false;
        /// Allow loopback and private addresses.
        allow_private_addresses: bool = false;
        /// Allow other ports than 80 and 443.
        allow_any_port: bool = false;
        /// PEM file with issuers that are trusted besides the public ones.
        extra_roots: Option<PathBuf> = None;
    }
}

section! {
    /// The language model that writes texts: instructions, comparisons, AI expressions of workflows.
    pub struct LlmSettings = "llm" {
        /// The endpoint of the OpenAI kind, such as `https://api.openai.com/v1`; none means that texts
        /// are made from structure, and say so.
        base_url: Option<String> = None;
        /// The model's name there.
        model: Option<String> = None;
        /// The key it asks for.
        api_key: Option<Secret<String>> = None;
        /// Seconds that one answer may take.
        timeout_seconds: u32 = 60, in 1..=600;
        /// PEM file with issuers that are trusted for the endpoint besides the public ones.
        extra_roots: Option<PathBuf> = None;
    }
}

section! {
    /// Managed accounts: where organisations buy numbers.
    pub struct ManagedSettings = "managed" {
        /// Numbers of the account `pool`, which organisations buy from the operator.
        pool_numbers: Vec<E164> = Vec::new();
        /// Their country, ISO 3166-1 alpha-2.
        pool_country: String = "US".to_owned();
        /// The carrier of the pool's numbers: host or domain, with an optional port; none means that
        /// there is no pool.
        pool_address: Option<String> = None;
        /// Digest user at that carrier.
        pool_username: Option<String> = None;
        /// Its password.
        pool_password: Option<Secret<String>> = None;
        /// What carries SIP to that carrier.
        pool_transport: Transport = Transport::Udp;
        /// Where that carrier's calls come from; none means anywhere.
        pool_allowed_addresses: Vec<IpNet> = Vec::new();
        /// The account, `pool` or `twilio`, at which an organisation that is made over the API is given its
        /// first number, and a trunk with it; none means that it begins without.
        first_number_account: Option<String> = None;
        /// The country of these numbers, ISO 3166-1 alpha-2.
        first_number_country: String = "US".to_owned();
        /// SID of the account `twilio` at Twilio; none means that there is no such account.
        twilio_account_sid: Option<String> = None;
        /// Its auth token.
        twilio_auth_token: Option<Secret<String>> = None;
        /// Whether Twilio's trunks use TLS and SRTP.
        twilio_secure: bool = false;
        /// Where Twilio's calls come from.
        twilio_allowed_addresses: Vec<IpNet> = twilio_networks();
        /// Twilio's REST API.
        twilio_api_url: String = "https://api.twilio.com".to_owned();
        /// Twilio's trunking API.
        twilio_trunking_url: String = "https://trunking.twilio.com".to_owned();
    }
}

/// The signalling addresses that Twilio publishes for elastic SIP trunking.
fn twilio_networks() -> Vec<IpNet> {
    const PUBLISHED: [([u8; 4], u8); 8] = [
        ([54, 172, 60, 0], 30),
        ([54, 244, 51, 0], 30),
        ([54, 171, 127, 192], 30),
        ([35, 156, 191, 128], 30),
        ([54, 65, 63, 192], 30),
        ([54, 169, 127, 128], 30),
        ([54, 252, 254, 64], 30),
        ([177, 71, 206, 192], 30),
    ];
    let network = |(address, length)| IpNet::new(IpAddr::from(address), length).ok();
    PUBLISHED.into_iter().filter_map(network).collect()
}

section! {
    /// Streams of live events.
    pub struct EventSettings = "events" {
        /// Streams that an organisation may have open at the same time; one more gets 503.
        max_streams_per_organization: usize = 20, in 1..=10_000;
        /// Streams of all organisations; one more gets 503.
        max_streams: usize = 1_000, in 1..=10_000;
        /// Seconds of silence after which a stream carries a heartbeat.
        heartbeat_seconds: u32 = 15, in 1..=60;
    }
}

section! {
    /// Events that are posted to customers' programs.
    pub struct WebhookSettings = "webhooks" {
        /// Webhooks that an organisation may have.
        max_per_organization: u32 = 20, in 1..=1_000;
        /// Seconds a receiver may take to answer.
        timeout_seconds: u32 = 10, in 1..=30;
        /// Seconds until the second attempt; each further one waits twice as long, up to an hour.
        retry_first_seconds: u32 = 5, in 1..=3_600;
        /// Hours after which a delivery is given up.
        retry_hours: u32 = 24, in 1..=168;
    }
}

section! {
    /// Workflows: the processes that compute customers' expressions and code.
    pub struct WorkflowSettings = "workflows" {
        /// Worker processes at the same time; one organisation gets at most half of them.
        workers: u32 = 4, in 1..=limits::WORKFLOW_WORKERS.value_u32();
        /// MiB of memory that each may take for computing.
        memory_mib: u32 = 128, in 32..=4_096;
        /// Milliseconds that one expression, or the code of one step, may compute.
        step_ms: u32 = 2_000, in 10..=60_000;
        /// Steps that may wait for a worker; one more fails.
        queue: u32 = 256, in 1..=10_000;
        /// Program that is run as a worker instead of this one: a sandbox that runs `trunkline` with
        /// the arguments it was given.
        worker: Option<PathBuf> = None;
    }
}

words! {
    /// Which hashes a digest challenge offers (RFC 8760).
    pub enum Digest: "\"both\", \"sha-256\" or \"md5\"" {
        /// SHA-256 and MD5, each in a challenge of its own.
        Both = "both",
        /// SHA-256 only.
        Sha256 = "sha-256",
        /// MD5 only: for phones that give up when they see SHA-256.
        Md5 = "md5",
    }
}

words! {
    /// What a source that no trunk knows gets.
    pub enum Strangers: "\"silent\" or \"refuse\"" {
        /// No answer at all: a scanner learns nothing.
        Silent = "silent",
        /// 403, which helps while setting up.
        Refuse = "refuse",
    }
}

words! {
    /// How log lines look.
    pub enum LogFormat: "\"auto\", \"text\" or \"json\"" {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// One line of the table that chooses the address we call ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Peers this line is for.
    pub peers: IpNet,
    /// The address these peers reach us at.
    pub address: IpAddr,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
