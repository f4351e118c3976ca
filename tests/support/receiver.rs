//! Who listens for events: a receiver of webhooks and a client of the stream, both in Python with
//! nothing but its standard library, so that they check what is documented and not what we wrote.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Gateway;
use crate::peer::asset;
use crate::process::Process;
use crate::wait;

/// How long Python may take to start.
const START: Duration = Duration::from_secs(20);

/// How long one event may take.
const EVENT: Duration = Duration::from_secs(20);

/// A receiver of webhooks that checks every signature.
#[derive(Debug)]
pub struct Receiver {
    process: Process,
    folder: TempDir,
    port: u64,
}

impl Receiver {
    /// Starts one that answers its first deliveries with these statuses, and all others with 204.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[must_use]
    pub fn start(statuses: &[u16]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("secrets"), "").expect("a file can be written");
        let mut command = Command::new("python3");
        command
            .arg(asset("webhook_receiver.py"))
            .arg(folder.path().join("secrets"))
            .args(statuses.iter().map(u16::to_string));
        let mut process = Process::start("receiver", &mut command);
        let port = process.find("listening", START, |line| {
            serde_json::from_str::<Value>(line).ok()?["listening"].as_u64()
        });
        Receiver { process, folder, port }
    }

    /// Makes a webhook of the gateway's organisation that leads here; its id.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn hook(&self, gateway: &Gateway, more: Value) -> String {
        let mut body = json!({ "url": format!("http://127.0.0.1:{}/calls", self.port) });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let made = gateway.rest().post("/core/webhooks", &body);
        self.learn(&made);
        made["id"].as_str().unwrap_or_default().to_owned()
    }

    /// Takes over the secret of a webhook that was made or changed; older ones are forgotten.
    ///
    /// # Panics
    /// When it cannot be written down.
    pub fn learn(&self, made: &Value) {
        let secret = made["secret"].as_str().unwrap_or_default();
        std::fs::write(self.secrets(), secret).expect("a secret can be written");
    }

    fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    /// What has come so far.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Value> {
        parsed(&self.process, |told| told["event"].is_object())
    }

    /// What has come, once there are `count`.
    ///
    /// # Panics
    /// When they do not come in time.
    #[must_use]
    pub fn awaits(&self, count: usize) -> Vec<Value> {
        wait::until("deliveries", EVENT, || {
            let all = self.deliveries();
            (all.len() >= count).then_some(all)
        })
    }
}

/// A client of `GET /core/events`.
#[derive(Debug)]
pub struct Listener {
    process: Process,
}

impl Listener {
    /// Opens a stream with the gateway's key, after an event or from now on.
    ///
    /// # Panics
    /// When it is not open in time.
    #[must_use]
    pub fn open(gateway: &Gateway, last: Option<&str>) -> Self {
        let key_file = gateway.folder().join("stream.key");
        std::fs::write(&key_file, &gateway.key).expect("a key can be written");
        Self::with(gateway, &key_file, last)
    }

    fn with(gateway: &Gateway, key_file: &Path, last: Option<&str>) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(asset("event_stream.py"))
            .arg(format!("http://{}/core/events", gateway.api))
            .arg(key_file)
            .args(last);
        let mut process = Process::start("listener", &mut command);
        process.find("stream.opened", START, |line| line.contains("stream.opened").then_some(()));
        Listener { process }
    }

    /// What it was told so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        parsed(&self.process, |told| told["event"].is_string())
    }

    /// What it was told, once an event of this name has come.
    ///
    /// # Panics
    /// When it does not come in time.
    #[must_use]
    pub fn awaits(&self, name: &str) -> Vec<Value> {
        wait::until(name, EVENT, || {
            let all = self.events();
            all.iter().any(|told| told["event"] == name).then_some(all)
        })
    }
}

fn parsed(process: &Process, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let lines = process.stdout();
    let all = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
    all.filter(|told| wanted(told)).collect()
}
