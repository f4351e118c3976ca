//! baresip as a softphone: it says a WAV file and writes what it hears to another.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::peer::asset;
use crate::process::Process;
use crate::sound;

/// How long one step of a call may take.
const STEP: Duration = Duration::from_secs(15);

/// How the audio is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audio {
    /// Plain RTP.
    Plain,
    /// SRTP with keys in the SDP (RFC 4568), and nothing else.
    Srtp,
}

impl Audio {
    const fn account(self) -> &'static str {
        match self {
            Audio::Plain => "",
            Audio::Srtp => ";mediaenc=srtp-mand",
        }
    }
}

/// A softphone in one call.
#[derive(Debug)]
pub struct Baresip {
    process: Process,
    folder: TempDir,
    control: SocketAddr,
}

impl Baresip {
    /// Calls `uri` and says `samples` once; hangs up by itself after `seconds`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn call(uri: &str, audio: Audio, samples: &[i16], seconds: u32) -> Self {
        Self::call_as(uri, audio.account(), samples, seconds)
    }

    /// The same with these parameters of baresip's account.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn call_as(uri: &str, parameters: &str, samples: &[i16], seconds: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let microphone = folder.path().join("microphone.wav");
        sound::write_wav(&microphone, samples).expect("the microphone can be written");
        let recordings = folder.path().join("recordings");
        std::fs::create_dir(&recordings).expect("a folder can be made");
        let control = free_port();
        let config = std::fs::read_to_string(asset("baresip.config")).expect("the asset is there");
        let config = config
            .replace("{{microphone}}", &microphone.to_string_lossy())
            .replace("{{recordings}}", &recordings.to_string_lossy())
            .replace("{{modules}}", &modules().to_string_lossy())
            .replace("{{control}}", &control.port().to_string());
        std::fs::write(folder.path().join("config"), config).expect("config can be written");
        let account =
            format!("<sip:+15550199@127.0.0.1>;regint=0;audio_codecs=pcmu/8000/1{parameters}\n");
        std::fs::write(folder.path().join("accounts"), account).expect("accounts can be written");
        let mut command = Command::new("baresip");
        command
            .arg("-f")
            .arg(folder.path())
            .args(["-t", &seconds.to_string(), "-e", &format!("/dial {uri}")])
            .current_dir(folder.path());
        let process = Process::start("baresip", &mut command);
        Baresip { process, folder, control }
    }

    /// Waits until the call is up.
    ///
    /// # Panics
    /// When it is not, in time.
    #[track_caller]
    pub fn wait_for_answer(&mut self) {
        self.process.find("\"established\"", STEP, |line| {
            line.to_lowercase().contains("call established").then_some(())
        });
    }

    /// Presses a key, which goes out as events in RTP (RFC 4733).
    ///
    /// # Panics
    /// When baresip takes no commands.
    pub fn press(&self, key: char) {
        let command = json!({ "command": "sndcode", "params": key.to_string() }).to_string();
        // Netstrings: length, colon, text, comma.
        let frame = format!("{}:{command},", command.len());
        let mut stream = TcpStream::connect(self.control).expect("baresip takes commands");
        stream.write_all(frame.as_bytes()).expect("baresip reads commands");
    }

    /// What has come out of the loudspeaker until now.
    #[must_use]
    pub fn heard_so_far(&self) -> Vec<i16> {
        let folder = self.folder.path().join("recordings");
        let recorded = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let decoded = recorded.map(|entry| entry.path()).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-dec.wav"))
        });
        decoded.and_then(|path| sound::read_wav(&path).ok()).unwrap_or_default()
    }

    /// Waits for the end of the call.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn ends(mut self) -> Heard {
        self.process.finish(Duration::from_secs(60));
        let samples = self.heard_so_far();
        Heard { samples, output: self.process.tail(80) }
    }
}

/// What is left of a call.
#[derive(Debug)]
pub struct Heard {
    /// What came out of the loudspeaker.
    pub samples: Vec<i16>,
    /// What baresip printed.
    pub output: String,
}

impl Heard {
    /// The notes of `scale_hz` in what was heard.
    #[must_use]
    pub fn notes(&self, scale_hz: &[u32]) -> Vec<u32> {
        sound::notes(&self.samples, scale_hz)
    }
}

fn free_port() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    socket.local_addr().expect("a bound socket has an address")
}

/// Where Debian keeps the modules.
fn modules() -> PathBuf {
    let candidates = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"];
    let found = candidates.iter().map(Path::new).find(|folder| folder.is_dir());
    found.unwrap_or(Path::new("/usr/lib/baresip/modules")).to_path_buf()
}
