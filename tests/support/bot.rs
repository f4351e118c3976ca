//! An agent that we did not write the protocol of: `tests/e2e/assets/bot.py` on pipecat.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::peer::asset;
use crate::process::Process;
use crate::sound;

/// How long pipecat may take to be imported, on a machine that does other things too.
const START: Duration = Duration::from_secs(60);

/// How long one event may take.
const EVENT: Duration = Duration::from_secs(15);

/// A running bot, for one call.
#[derive(Debug)]
pub struct Bot {
    process: Process,
    folder: TempDir,
    port: u64,
}

impl Bot {
    /// Starts one that plays these notes to whoever calls.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[must_use]
    pub fn start(python: &Path, notes_hz: &[u32], note_ms: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let notes: Vec<_> = notes_hz.iter().map(u32::to_string).collect();
        let mut command = Command::new(python);
        command
            .arg(asset("bot.py"))
            .arg("--heard")
            .arg(folder.path().join("heard.wav"))
            .args(["--notes", &notes.join(","), "--note-ms", &note_ms.to_string()])
            .current_dir(folder.path());
        let mut process = Process::start("bot", &mut command);
        let listening = process.find("listening", START, |line| event(line, "listening"));
        let port = listening["port"].as_u64().unwrap_or_default();
        Bot { process, folder, port }
    }

    /// Where the gateway connects.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/agent", self.port)
    }

    /// Waits for something that it says has happened.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn tells(&mut self, name: &str) -> Value {
        self.process.find(name, EVENT, |line| event(line, name))
    }

    /// Every key that it was told of so far.
    #[must_use]
    pub fn digits(&self) -> String {
        let lines = self.process.stdout();
        let digits = lines.iter().filter_map(|line| event(line, "digit"));
        digits.filter_map(|told| told["digit"].as_str().map(str::to_owned)).collect()
    }

    /// What the caller said, once the call is over.
    ///
    /// # Panics
    /// When the call does not end or nothing was written.
    #[track_caller]
    pub fn heard(&mut self) -> Vec<i16> {
        self.tells("ended");
        sound::read_wav(&self.recording()).expect("the bot wrote what it heard")
    }

    fn recording(&self) -> PathBuf {
        self.folder.path().join("heard.wav")
    }
}

fn event(line: &str, name: &str) -> Option<Value> {
    let told: Value = serde_json::from_str(line).ok()?;
    (told["event"] == name).then_some(told)
}
