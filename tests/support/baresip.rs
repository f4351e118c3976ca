//! baresip as a softphone: it says a WAV file and writes what it hears to another.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::peer::asset;
use crate::port::{free_port, is_bound};
use crate::process::Process;
use crate::{sound, wait};

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
    address: SocketAddr,
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
        let account = format!("<sip:+15550199@127.0.0.1>;regint=0{parameters}");
        Self::start(&account, free_port(), samples, seconds, &["-e", &format!("/dial {uri}")])
    }

    /// Takes one call to `user` and says `samples` once it is up; gone after `seconds`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn answer(user: &str, audio: Audio, samples: &[i16], seconds: u32) -> Self {
        Self::answer_as(user, audio.account(), samples, seconds)
    }

    /// The same with these parameters of baresip's account.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[must_use]
    pub fn answer_as(user: &str, parameters: &str, samples: &[i16], seconds: u32) -> Self {
        let account = format!("<sip:{user}@127.0.0.1>;regint=0;answermode=auto{parameters}");
        let sip = free_port();
        let phone = Self::start(&account, sip, samples, seconds, &[]);
        wait::until("baresip listens", STEP, || is_bound(false, sip).then_some(()));
        phone
    }

    fn start(account: &str, sip: u16, samples: &[i16], seconds: u32, rest: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let microphone = folder.path().join("microphone.wav");
        sound::write_wav(&microphone, samples).expect("the microphone can be written");
        let recordings = folder.path().join("recordings");
        std::fs::create_dir(&recordings).expect("a folder can be made");
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = std::fs::read_to_string(asset("baresip.config")).expect("the asset is there");
        let config = config
            .replace("{{microphone}}", &microphone.to_string_lossy())
            .replace("{{recordings}}", &recordings.to_string_lossy())
            .replace("{{modules}}", &modules().to_string_lossy())
            .replace("{{sip}}", &sip.to_string())
            .replace("{{control}}", &control.port().to_string());
        std::fs::write(folder.path().join("config"), config).expect("config can be written");
        let codecs =
            if account.contains("audio_codecs") { "" } else { ";audio_codecs=pcmu/8000/1" };
        std::fs::write(folder.path().join("accounts"), format!("{account}{codecs}\n"))
            .expect("accounts can be written");
        let mut command = Command::new("baresip");
        command
            .arg("-f")
            .arg(folder.path())
            .args(["-t", &seconds.to_string()])
            .args(rest)
            .current_dir(folder.path());
        let process = Process::start("baresip", &mut command);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, sip));
        Baresip { process, folder, control, address }
    }

    /// Where it is called.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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
        let _ = self.command("sndcode", &key.to_string());
    }

    /// Hangs up and leaves.
    ///
    /// # Panics
    /// When baresip takes no commands.
    pub fn quit(&self) {
        let _ = self.command("quit", "");
    }

    /// Listens to what baresip tells of the call from here on.
    ///
    /// # Panics
    /// When it tells nothing to anybody.
    #[must_use]
    pub fn events(&self) -> Events {
        let stream = TcpStream::connect(self.control).expect("baresip takes listeners");
        stream.set_nonblocking(true).expect("a socket can be asked not to wait");
        Events { stream, text: String::new() }
    }

    fn command(&self, name: &str, parameters: &str) -> TcpStream {
        let command = json!({ "command": name, "params": parameters }).to_string();
        // Netstrings: length, colon, text, comma.
        let frame = format!("{}:{command},", command.len());
        let mut stream = TcpStream::connect(self.control).expect("baresip takes commands");
        stream.write_all(frame.as_bytes()).expect("baresip reads commands");
        stream
    }

    /// What has come out of the loudspeaker until now.
    #[must_use]
    pub fn heard_so_far(&self) -> Vec<i16> {
        let folder = self.folder.path().join("recordings");
        let recorded = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let is_heard = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-dec.wav"))
        };
        let mut files: Vec<_> = recorded.map(|entry| entry.path()).filter(is_heard).collect();
        // A file for each time that audio was begun; its name tells when.
        files.sort();
        files.iter().flat_map(|path| sound::read_wav(path).unwrap_or_default()).collect()
    }

    /// Waits until these notes, with nothing else between, have come out of the loudspeaker.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn hears(&self, scale_hz: &[u32], tune: &[u32]) {
        let heard = || sound::notes(&self.heard_so_far(), scale_hz);
        let came = wait::try_until(STEP, || sound::contains(&heard(), tune).then_some(()));
        assert!(came.is_some(), "{tune:?} was awaited, heard: {:?}", heard());
    }

    /// The same, for what comes out of it from now on.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn hears_from_now_on(&self, scale_hz: &[u32], tune: &[u32]) {
        let before = self.heard_so_far().len();
        let heard =
            || sound::notes(self.heard_so_far().get(before..).unwrap_or_default(), scale_hz);
        let came = wait::try_until(STEP, || sound::contains(&heard(), tune).then_some(()));
        assert!(came.is_some(), "{tune:?} was awaited, heard: {:?}", heard());
    }

    /// Waits until the other side has hung up.
    ///
    /// # Panics
    /// When it has not, in time.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        self.process.find("the end of the call", STEP, |line| {
            let line = line.to_lowercase();
            let over = ["session closed", "call terminated", "connection reset by peer"];
            over.iter().any(|words| line.contains(words)).then_some(())
        });
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

/// What baresip tells as it happens.
#[derive(Debug)]
pub struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    /// Waits for an event of this type whose parameter is `parameter`.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn wait_for(&mut self, kind: &str, parameter: &str) {
        let (kind, parameter) =
            (format!("\"type\":\"{kind}\""), format!("\"param\":\"{parameter}\""));
        let found = wait::try_until(STEP, || {
            let mut octets = [0; 4_096];
            while let Ok(read @ 1..) = self.stream.read(&mut octets) {
                let heard = octets.get(..read).unwrap_or_default();
                self.text += &String::from_utf8_lossy(heard);
            }
            let mut events = self.text.split("{\"event\"");
            events.any(|event| event.contains(&kind) && event.contains(&parameter)).then_some(())
        });
        assert!(found.is_some(), "{kind} {parameter} was awaited: {}", self.text);
    }
}

/// Where Debian keeps the modules.
fn modules() -> PathBuf {
    let candidates = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"];
    let found = candidates.iter().map(Path::new).find(|folder| folder.is_dir());
    found.unwrap_or(Path::new("/usr/lib/baresip/modules")).to_path_buf()
}
