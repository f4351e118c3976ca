//! SIPp as the caller: a scenario of `tests/e2e/assets` with its blanks filled in.
//!
//! A blank is `{{name}}`. SIPp itself fills `[brackets]`. A scenario passes when SIPp ends with
//! code 0: every message came in the order it says and no other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::gateway::Gateway;
use crate::peer::asset;
use crate::port::free_media_port;
use crate::process::Process;

/// What a plain offer says after its connection line: G.711 µ-law and keys.
pub const PLAIN: &str = "m=audio [media_port] RTP/AVP 0 101\n\
                         a=rtpmap:0 PCMU/8000\n\
                         a=rtpmap:101 telephone-event/8000\n\
                         a=ptime:20";

/// An offer of SRTP and nothing else (RFC 4568).
pub const SAVP_ONLY: &str = "m=audio [media_port] RTP/SAVP 0\n\
    a=rtpmap:0 PCMU/8000\n\
    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

/// A caller that is about to start.
#[derive(Debug)]
pub struct Sipp {
    scenario: &'static str,
    to: SocketAddr,
    transport: &'static str,
    from: IpAddr,
    calls: u32,
    blanks: BTreeMap<&'static str, String>,
    /// What makes TLS of SIPp's TCP.
    pipe: Option<Process>,
}

impl Sipp {
    /// A caller of `number` over UDP from 127.0.0.1.
    #[must_use]
    pub fn new(gateway: &Gateway, scenario: &'static str, number: &str) -> Self {
        let blanks = BTreeMap::from([
            ("number", number.to_owned()),
            ("sdp", PLAIN.to_owned()),
            ("talk_ms", "300".to_owned()),
            ("ring_ms", "0".to_owned()),
            ("between_ms", "0".to_owned()),
            ("hops", "70".to_owned()),
        ]);
        Sipp {
            scenario,
            to: gateway.udp,
            transport: "u1",
            from: Ipv4Addr::LOCALHOST.into(),
            calls: 1,
            blanks,
            pipe: None,
        }
    }

    /// Over one TCP connection.
    #[must_use]
    pub fn over_tcp(mut self, gateway: &Gateway) -> Self {
        self.to = gateway.tcp;
        self.transport = "t1";
        self
    }

    /// Over one TLS connection. Debian's SIPp has no TLS: Python's does it for it.
    ///
    /// # Panics
    /// When that cannot be started.
    #[must_use]
    pub fn over_tls(mut self, gateway: &Gateway) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(asset("tls_pipe.py"))
            .args([gateway.tls.ip().to_string(), gateway.tls.port().to_string()])
            .arg(gateway.certificate());
        let mut pipe = Process::start("tls_pipe", &mut command);
        let port = pipe.find("the TLS pipe", Duration::from_secs(15), |line| {
            line.strip_prefix("listening ")?.trim().parse().ok()
        });
        self.to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        self.transport = "t1";
        self.pipe = Some(pipe);
        self
    }

    /// By way of a proxy.
    #[must_use]
    pub fn through(mut self, proxy: SocketAddr) -> Self {
        self.to = proxy;
        self
    }

    /// From another address of this machine.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = address;
        self
    }

    /// This many calls at once.
    #[must_use]
    pub fn calls(mut self, calls: u32) -> Self {
        self.calls = calls;
        self
    }

    /// Fills a blank of the scenario.
    #[must_use]
    pub fn set(mut self, blank: &'static str, value: impl ToString) -> Self {
        self.blanks.insert(blank, value.to_string());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When the scenario cannot be read.
    #[must_use]
    pub fn start(self) -> Calling {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let scenario = folder.path().join("scenario.xml");
        std::fs::write(&scenario, self.filled()).expect("the scenario can be written");
        let media = free_media_port(self.from);
        let calls = self.calls.to_string();
        let mut command = Command::new("sipp");
        command
            .current_dir(folder.path())
            .env("TERM", "dumb")
            .arg(self.to.to_string())
            .arg("-sf")
            .arg(&scenario)
            .args(["-t", self.transport, "-i", &self.from.to_string()])
            .args(["-mi", &self.from.to_string(), "-mp", &media.to_string()])
            .args(["-m", &calls, "-l", &calls, "-r", &calls, "-rp", "1000"])
            .args(["-nostdin", "-timeout", "45", "-timeout_error"])
            .args(["-trace_msg", "-message_file", "messages.log"])
            .args(["-trace_err", "-error_file", "errors.log"])
            .args(["-trace_screen", "-screen_file", "screen.log"]);
        let process = Process::start("sipp", &mut command);
        Calling { _pipe: self.pipe, ..Calling::new(self.scenario, process, folder) }
    }

    /// Runs it to its end, which must be as the scenario says.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn passes(self) -> Called {
        self.start().passes()
    }

    fn filled(&self) -> String {
        let path = asset(&format!("{}.xml", self.scenario));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(!text.is_empty(), "{} cannot be read", path.display());
        // The SDP holds no blanks of ours, but stands in messages that are indented.
        let fill = |text: String, (name, value): (&&'static str, &String)| {
            text.replace(&format!("{{{{{name}}}}}"), value)
        };
        let text = self.blanks.iter().fold(text, fill);
        // SIPp would name the transport it knows of.
        let text = if self.pipe.is_some() { text.replace("[transport]", "TLS") } else { text };
        assert!(!text.contains("{{"), "{} has a blank that is not filled", path.display());
        text
    }
}

/// A caller at work.
#[derive(Debug)]
pub struct Calling {
    scenario: &'static str,
    process: Process,
    folder: TempDir,
    _pipe: Option<Process>,
}

impl Calling {
    pub(crate) fn new(scenario: &'static str, process: Process, folder: TempDir) -> Self {
        Calling { scenario, process, folder, _pipe: None }
    }

    /// What was sent and received so far.
    #[must_use]
    pub fn messages(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("messages.log")).unwrap_or_default()
    }

    /// Waits until a message with this text has come or gone.
    ///
    /// # Panics
    /// When none does.
    #[track_caller]
    pub fn wait_for_message(&self, text: &str) {
        crate::wait::until(&format!("sipp and {text}"), Duration::from_secs(10), || {
            self.messages().contains(text).then_some(())
        });
    }

    /// Waits for the end, which must be as the scenario says.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn passes(self) -> Called {
        let (scenario, called) = (self.scenario, self.ends());
        assert!(
            called.passed,
            "sipp did not get through {scenario}.xml\n{}\n{}",
            called.errors, called.messages
        );
        called
    }

    /// Waits for the end, whatever it is.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn ends(mut self) -> Called {
        let status = self.process.finish(Duration::from_secs(60));
        let read = |name: &str| {
            std::fs::read(self.folder.path().join(name))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        Called {
            passed: status.code() == Some(0),
            messages: read("messages.log"),
            errors: format!("{status}\n{}\n{}", read("errors.log"), self.process.tail(20)),
            screen: read("screen.log"),
        }
    }
}

/// What is left of a caller.
#[derive(Debug)]
pub struct Called {
    /// Whether every call went as the scenario says.
    pub passed: bool,
    /// Every message, both ways, with time stamps.
    pub messages: String,
    /// SIPp's complaints.
    pub errors: String,
    /// SIPp's last screens.
    pub screen: String,
}

impl Called {
    /// How many messages were received whose first line begins like this.
    #[must_use]
    pub fn received(&self, first_line: &str) -> usize {
        self.messages
            .split("-----------------------------------------------")
            .filter(|message| message.contains("message received"))
            .filter(|message| message.lines().any(|line| line.starts_with(first_line)))
            .count()
    }

    /// The requests of this method that were received, in order, each once however often it came.
    #[must_use]
    pub fn requests(&self, method: &str) -> Vec<Message> {
        let first = format!("{method} ");
        let mut found: Vec<Message> = Vec::new();
        for message in self.messages.split("-----------------------------------------------") {
            let Some((head, text)) = message.split_once(":\n\n") else { continue };
            let is_it = head.contains("message received") && text.starts_with(&first);
            if is_it && !found.iter().any(|known| known.text == text) {
                found.push(Message { text: text.to_owned() });
            }
        }
        found
    }

    /// The only request of this method.
    ///
    /// # Panics
    /// When there is another, or none.
    #[must_use]
    #[track_caller]
    pub fn request(&self, method: &str) -> Message {
        let mut found = self.requests(method);
        assert_eq!(found.len(), 1, "{method}\n{}", self.messages);
        found.remove(0)
    }
}

/// One message as it came.
#[derive(Clone, Debug)]
pub struct Message {
    text: String,
}

impl Message {
    /// All of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The Request-URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.text.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header, the first if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().take_while(|line| !line.trim().is_empty()).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}
