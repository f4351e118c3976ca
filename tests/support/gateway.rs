//! The real program as a child process, with everything a test asks of it.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{self, Rest};
use crate::process::Process;
use crate::wait;

/// Names the binary under test; without it the one beside the test program is taken.
pub const BINARY: &str = "TRUNKLINE_BIN";

/// The settings file of a gateway, in its folder.
pub const SETTINGS: &str = "trunkline.toml";

/// How long the program may take to start.
const START: Duration = Duration::from_secs(20);

/// How long records and gauges may lag behind a call.
const SETTLE: Duration = Duration::from_secs(10);

/// A running gateway with ports, folder and store of its own.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    folder: TempDir,
    /// SIP over UDP.
    pub udp: SocketAddr,
    /// SIP over TCP.
    pub tcp: SocketAddr,
    /// SIP over TLS.
    pub tls: SocketAddr,
    /// REST API.
    pub api: SocketAddr,
    /// Metrics and health.
    pub observe: SocketAddr,
    /// The key of the one organisation.
    pub key: String,
}

/// A number that an agent answers, made by [`Gateway::line`].
#[derive(Clone, Debug)]
pub struct Line {
    /// The number, E.164.
    pub number: String,
    /// Its trunk.
    pub trunk: String,
    /// The agent that answers.
    pub agent: String,
}

impl Default for Gateway {
    fn default() -> Self {
        Self::start()
    }
}

impl Gateway {
    /// Starts one with the settings that suit a test.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with some settings changed: `("calls.drain_seconds", "5")`, the value as TOML.
    ///
    /// # Panics
    /// When it is not ready in time.
    #[must_use]
    pub fn with(changes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join(SETTINGS);
        std::fs::write(&file, settings(folder.path(), changes)).expect("settings can be written");
        Self::open(folder, None)
    }

    /// Kills the program in the middle of whatever it does, and starts it on the same store.
    ///
    /// # Panics
    /// When it is not ready again in time.
    #[must_use]
    pub fn crash_and_restart(self) -> Self {
        let Gateway { mut process, folder, key, .. } = self;
        process.signal(libc::SIGKILL);
        process.finish(START);
        Self::open(folder, Some(key))
    }

    /// Starts another node of this name on the same database, whose `store.url` is given as TOML.
    ///
    /// # Panics
    /// When it is not ready in time.
    #[must_use]
    pub fn neighbour(&self, name: &str, url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join(SETTINGS);
        let (name, key) = (format!("{name:?}"), self.folder().join("data/seal.key"));
        let key = format!("{key:?}");
        let changes = [("node.name", &*name), ("store.seal_key", &*key), ("store.url", url)];
        std::fs::write(&file, settings(folder.path(), &changes)).expect("settings can be written");
        Self::open(folder, Some(self.key.clone()))
    }

    fn open(folder: TempDir, known_key: Option<String>) -> Self {
        let mut command = program(&["serve", "--settings", SETTINGS], folder.path());
        let mut process = Process::start("trunkline", &mut command);
        let ready = process.find("\"ready\"", START, ready_line);
        let key = known_key.unwrap_or_else(|| {
            process.find("the API key", START, |line| {
                let word = line.trim();
                word.starts_with("ak_").then(|| word.to_owned())
            })
        });
        let at = |name: &str| address(&ready, name);
        let (udp, tcp, tls) = (at("udp"), at("tcp"), at("tls"));
        let (api, observe) = (at("api"), at("observe"));
        let gateway = Gateway { process, folder, udp, tcp, tls, api, observe, key };
        wait::until("/health/ready says 200", START, || (gateway.health().0 == 200).then_some(()));
        gateway
    }

    /// The API with the organisation's key.
    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest::new(self.api, &self.key)
    }

    /// The certificate it made for itself.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("data/self-signed.pem")
    }

    /// The folder of settings and data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Status and word of `/health/ready`; `(0, "")` when nobody answers.
    #[must_use]
    pub fn health(&self) -> (u16, String) {
        let reply = http::send(self.observe, "GET", "/health/ready", None, None);
        reply.map_or((0, String::new()), |reply| {
            let word = serde_json::from_str::<Value>(&reply.text).unwrap_or_default();
            (reply.status, word["status"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// Sum of a metric's lines, whose labels all contain `label`; 0 when there is none.
    ///
    /// # Panics
    /// When metrics cannot be read.
    #[must_use]
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let reply = http::send(self.observe, "GET", "/metrics", None, None);
        let text = reply.expect("metrics can be read").text;
        text.lines()
            .filter(|line| {
                let (full, _) = line.split_once(' ').unwrap_or_default();
                full.split('{').next() == Some(name) && full.contains(label)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Makes a trunk; its id.
    pub fn trunk(&self, name: &str, inbound: Value) -> String {
        let body = json!({ "name": name, "inbound_config": inbound });
        id(&self.rest().post("/core/trunks", &body))
    }

    /// Puts a number on a trunk.
    pub fn number(&self, number: &str, trunk: &str) {
        let body = json!({ "phone_number": number, "trunk_id": trunk });
        self.rest().post("/core/phone-numbers", &body);
    }

    /// Makes an agent with one version that runs as `runtime` says, published to these numbers.
    pub fn agent(&self, runtime: Value, numbers: &[&str]) -> String {
        self.agent_for(runtime, numbers, "inbound")
    }

    fn agent_for(&self, runtime: Value, numbers: &[&str], direction: &str) -> String {
        let rest = self.rest();
        let agent = id(&rest.post("/core/agents", &json!({ "name": "under test" })));
        let version = json!({ "config": { "runtime": runtime } });
        rest.post(&format!("/core/agents/{agent}/versions"), &version);
        let publish = json!({ "phone_numbers": numbers, "direction": direction });
        rest.post(&format!("/core/agents/{agent}/versions/1/publish"), &publish);
        agent
    }

    /// Trunk, number and agent at once.
    pub fn line(&self, number: &str, inbound: Value, runtime: Value) -> Line {
        let trunk = self.trunk(number, inbound);
        self.number(number, &trunk);
        let agent = self.agent(runtime, &[number]);
        Line { number: number.to_owned(), trunk, agent }
    }

    /// A number that calls go out from over a trunk of its own, with the agent that talks then. Calls
    /// come in over it from 127.0.0.1 as well.
    pub fn way_out(&self, number: &str, outbound: Value, runtime: Value) -> Line {
        let body =
            json!({ "name": number, "inbound_config": from_here(), "outbound_config": outbound });
        let trunk = id(&self.rest().post("/core/trunks", &body));
        self.number(number, &trunk);
        let agent = self.agent_for(runtime, &[number], "both");
        Line { number: number.to_owned(), trunk, agent }
    }

    /// Orders a call from the line's number to `callee`; the conversation's id.
    pub fn dial(&self, line: &Line, callee: &str) -> String {
        let body = json!({
            "channel": "telephone", "user_id": callee, "agent_number": line.number,
        });
        let reply = self.rest().send("POST", "/core/conversations", Some(&body));
        assert_eq!(reply.status, 202, "{}", reply.text);
        id(&reply.json()["conversation"])
    }

    /// Asks something of a conversation: `hangup`, `transfer`.
    pub fn ask(&self, conversation: &str, what: &str, body: &Value) -> Value {
        self.rest().post(&format!("/core/conversations/{conversation}/{what}"), body)
    }

    /// One conversation as it is now.
    #[must_use]
    pub fn conversation(&self, id: &str) -> Value {
        self.rest().get(&format!("/core/conversations/{id}"))
    }

    /// One conversation, once it has this status.
    ///
    /// # Panics
    /// When it does not get there in time.
    #[track_caller]
    pub fn reaches(&self, id: &str, status: &str) -> Value {
        let mut seen = Value::Null;
        let there = wait::try_until(SETTLE, || {
            seen = self.conversation(id);
            (seen["status"] == status).then_some(())
        });
        assert!(there.is_some(), "{status} was awaited, seen: {seen:#}");
        seen
    }

    /// One conversation, once it is over.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn ends(&self, id: &str) -> Value {
        let mut seen = Value::Null;
        let ended = wait::try_until(SETTLE, || {
            seen = self.conversation(id);
            (!seen["end_reason"].is_null()).then_some(())
        });
        assert!(ended.is_some(), "the end was awaited, seen: {seen:#}");
        seen
    }

    /// A number for callers on 127.0.0.1 that the built-in echo answers.
    pub fn echo_line(&self) -> Line {
        self.line("+15550100100", from_here(), echo())
    }

    /// Every conversation there is, newest first.
    #[must_use]
    pub fn conversations(&self) -> Vec<Value> {
        let listed = self.rest().get("/core/conversations?limit=1000");
        listed.as_array().cloned().unwrap_or_default()
    }

    /// The conversations, once there are `count` and all of them are over.
    ///
    /// # Panics
    /// When that does not come.
    #[must_use]
    pub fn ended_conversations(&self, count: usize) -> Vec<Value> {
        let mut seen = Vec::new();
        let ended = wait::try_until(SETTLE, || {
            seen = self.conversations();
            let over = seen.iter().all(|record| !record["end_reason"].is_null());
            (over && seen.len() == count).then_some(())
        });
        assert!(ended.is_some(), "{count} ended conversations were awaited, seen: {seen:#?}");
        seen
    }

    /// The only conversation, once it is over.
    ///
    /// # Panics
    /// When there is another, or it does not end.
    #[must_use]
    pub fn ended_conversation(&self) -> Value {
        self.ended_conversations(1).remove(0)
    }

    /// The newest decision about a called number, once it is there.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn decision(&self, called: &str) -> Value {
        wait::until("a decision record", SETTLE, || {
            let listed = self.rest().get("/core/calls/decisions?limit=100");
            let mut all = listed.as_array().into_iter().flatten();
            all.find(|decision| decision["called_number"] == called).cloned()
        })
    }

    /// Waits until calls, media sessions and ports are all given back.
    ///
    /// # Panics
    /// When something is kept.
    pub fn wait_until_quiet(&self) {
        let left = || {
            [
                ("calls live", self.metric("gateway_calls_live", "")),
                ("media sessions", self.metric("gateway_media_sessions", "")),
                ("ports in use", self.metric("gateway_media_ports", "state=\"in_use\"")),
            ]
        };
        let quiet =
            wait::try_until(SETTLE, || left().iter().all(|(_, count)| *count == 0.0).then_some(()));
        assert!(quiet.is_some(), "not quiet again: {:?}", left());
    }

    /// Memory it holds at the moment, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        self.process.resident_kib()
    }

    /// Sends a signal: SIGTERM drains, SIGHUP reads the certificate again.
    pub fn signal(&self, signal: libc::c_int) {
        self.process.signal(signal);
    }

    /// Waits for the end of the program after a signal.
    ///
    /// # Panics
    /// When it goes on.
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        self.process.finish(limit)
    }

    /// Whether the program has ended by itself.
    pub fn has_exited(&mut self) -> bool {
        self.process.exited().is_some()
    }

    /// Its log lines so far, JSON.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.process.stderr()
    }

    /// The proper end of every test: quiet again, no fault of ours counted, stopped in order.
    ///
    /// # Panics
    /// When one of the three is not so.
    pub fn finish(mut self) {
        self.wait_until_quiet();
        assert_eq!(self.metric("gateway_bugs_total", ""), 0.0, "faults were counted");
        assert_eq!(self.metric("gateway_media_faults_total", ""), 0.0, "media faults were counted");
        self.signal(libc::SIGTERM);
        let status = self.wait_for_exit(Duration::from_secs(15));
        assert!(status.success(), "ended with {status}");
        let cries = self.log().into_iter().filter(|line| line.contains("panicked"));
        assert_eq!(cries.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

/// Inbound rules that take calls from 127.0.0.1 only.
#[must_use]
pub fn from_here() -> Value {
    json!({ "allowed_addresses": ["127.0.0.1"] })
}

/// The built-in agent that says back what it hears.
#[must_use]
pub fn echo() -> Value {
    json!({ "type": "builtin", "builtin": "echo" })
}

/// The built-in agent that plays a steady 440 Hz.
#[must_use]
pub fn tone() -> Value {
    json!({ "type": "builtin", "builtin": "playback", "clip": "tone", "repeat": true })
}

/// An agent on this machine that speaks Twilio's dialect.
#[must_use]
pub fn websocket(url: &str) -> Value {
    json!({ "type": "websocket", "dialect": "twilio", "url": url })
}

/// The `id` of an object.
#[track_caller]
fn id(object: &Value) -> String {
    let id = object["id"].as_str();
    assert!(id.is_some(), "no id: {object}");
    id.unwrap_or_default().to_owned()
}

/// The program with these arguments, in this folder. Settings of whoever runs the tests do not reach
/// it.
#[must_use]
pub fn program(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder);
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("TRUNKLINE_")) {
        command.env_remove(name);
    }
    command
}

/// The binary under test.
fn binary() -> PathBuf {
    let named = env::var_os(BINARY).map(PathBuf::from);
    let beside = || {
        let test = env::current_exe().expect("a test program knows its own path");
        // target/<profile>/deps/<test> ─► target/<profile>/trunkline
        test.ancestors().nth(2).map(|folder| folder.join("trunkline")).unwrap_or_default()
    };
    let path = named.unwrap_or_else(beside);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build --bin trunkline`, or tests/run, or set {BINARY}",
        path.display()
    );
    path
}

/// The settings file of one test.
fn settings(folder: &Path, changes: &[(&str, &str)]) -> String {
    let data = format!("{:?}", folder.join("data"));
    let mut all = BTreeMap::from([
        ("sip.udp", r#"["127.0.0.1:0"]"#),
        ("sip.tcp", r#"["127.0.0.1:0"]"#),
        ("sip.tls", r#"["127.0.0.1:0"]"#),
        ("sip.host", r#""127.0.0.1""#),
        ("api.listen", r#""127.0.0.1:0""#),
        ("observe.listen", r#""127.0.0.1:0""#),
        ("observe.log", r#""json""#),
        ("observe.level", r#""info,gateway=debug""#),
        ("media.quarantine_seconds", "1"),
        ("store.data_dir", &data),
        ("agents.allow_plain_ws", "true"),
        ("agents.allow_private_addresses", "true"),
    ]);
    all.extend(changes.iter().copied());
    let mut text = String::new();
    let mut section = "";
    for (key, value) in all {
        let (of, name) = key.split_once('.').unwrap_or(("", key));
        if of != section {
            let _ = writeln!(text, "\n[{of}]");
            section = of;
        }
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

/// The log line that says where everything listens.
fn ready_line(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "ready").then_some(line)
}

/// The first address in a field of the ready line, as in `[127.0.0.1:4711]` or `Some([::1]:4711)`.
fn address(ready: &Value, name: &str) -> SocketAddr {
    let text = ready[name].as_str().unwrap_or_default();
    let inner = text.trim_start_matches("Some(").trim_end_matches(')');
    // A list has brackets of its own around those of IPv6.
    let list = inner.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let inner = list.unwrap_or(inner).split(", ").next().unwrap_or_default();
    let parsed = inner.parse();
    assert!(parsed.is_ok(), "{name} is no address: {text}");
    parsed.unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)))
}
