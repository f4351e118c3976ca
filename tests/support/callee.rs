//! SIPp as the called side: a carrier, a SIP agent, the number of a transfer.
//!
//! What it does is written in Rust as a [`Script`], step by step, and becomes a scenario of SIPp's. A
//! script says only in what order messages come and go; what is in them is judged afterwards, from
//! [`crate::sipp::Called`].

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::authority::Identity;
use crate::peer::asset;
use crate::port::{free_media_port, free_port, is_bound};
use crate::process::Process;
use crate::sipp::{Called, Calling};
use crate::wait;

/// An answer in plain G.711 µ-law with keys, after its connection line.
pub const PLAIN_ANSWER: &str = crate::sipp::PLAIN;

/// An answer that takes the first key of an SRTP offer (RFC 4568).
pub const SAVP_ANSWER: &str = "m=audio [media_port] RTP/SAVP 0 101\n\
    a=rtpmap:0 PCMU/8000\n\
    a=rtpmap:101 telephone-event/8000\n\
    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

/// What a called SIPp does, in order.
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: String,
    labels: u32,
    /// Number of the last request of its own.
    cseq: u32,
    /// It has answered: To holds its tag from here on.
    answered: bool,
}

impl Script {
    /// Takes a call: the INVITE, and nothing else yet.
    #[must_use]
    pub fn call() -> Self {
        Script::default().invite()
    }

    /// A whole call: 180, 200 with this answer, ACK, then a BYE from us, which it answers.
    #[must_use]
    pub fn answers(sdp: &str) -> Self {
        Script::call().reply(180, "Ringing").answer(sdp).expect("BYE").reply(200, "OK")
    }

    /// A whole call that it ends itself after `talk_ms`.
    #[must_use]
    pub fn answers_and_hangs_up(sdp: &str, talk_ms: u32) -> Self {
        Script::call().reply(180, "Ringing").answer(sdp).pause(talk_ms).request("BYE", "", "")
    }

    /// Refuses the call with this status.
    #[must_use]
    pub fn refuses(status: u16, reason: &str) -> Self {
        Script::call().refuse(status, reason, "")
    }

    /// An INVITE: the first, a challenged one that comes again, or one in the dialog.
    #[must_use]
    pub fn invite(mut self) -> Self {
        self.steps += "<recv request=\"INVITE\" rrs=\"true\" timeout=\"20000\"><action>\n\
            <ereg regexp=\".*\" search_in=\"hdr\" header=\"From:\" assign_to=\"from\"/>\n\
            <ereg regexp=\".*\" search_in=\"hdr\" header=\"To:\" assign_to=\"to\"/>\n\
            <ereg regexp=\".*\" search_in=\"hdr\" header=\"Via:\" assign_to=\"via\"/>\n\
            <ereg regexp=\"RTP/SAVP\" search_in=\"body\" assign_to=\"secure\"/>\n\
            </action></recv>\n";
        self
    }

    /// Waits for a request, of a dialog or CANCEL.
    #[must_use]
    pub fn expect(mut self, method: &str) -> Self {
        let _ = writeln!(self.steps, "<recv request=\"{method}\" timeout=\"20000\"/>");
        self
    }

    /// Sends a response without a body to the last request.
    #[must_use]
    pub fn reply(self, status: u16, reason: &str) -> Self {
        self.respond((status, reason), "", "", "c")
    }

    /// Final response other than 2xx to the INVITE, and its ACK. The headers are whole lines.
    #[must_use]
    pub fn refuse(self, status: u16, reason: &str, headers: &str) -> Self {
        self.respond((status, reason), headers, "", "c").expect("ACK")
    }

    /// Refuses a request that is not acknowledged: a challenged BYE.
    #[must_use]
    pub fn challenge(self, status: u16, reason: &str, headers: &str) -> Self {
        self.respond((status, reason), headers, "", "c")
    }

    /// The final response of a cancelled INVITE after its CANCEL, and its ACK.
    #[must_use]
    pub fn terminated(self) -> Self {
        self.respond((487, "Request Terminated"), "", "", "c").expect("ACK")
    }

    /// 200 with this SDP, and its ACK. The SDP begins after the connection line.
    #[must_use]
    pub fn answer(self, sdp: &str) -> Self {
        self.answer_as("c", sdp)
    }

    /// The same as another branch of a fork: with a tag of its own.
    #[must_use]
    pub fn answer_as(self, tag: &str, sdp: &str) -> Self {
        let mut script = self.respond((200, "OK"), "", sdp, tag).expect("ACK");
        script.answered = true;
        script
    }

    /// 200 without SDP, since an answer came before, and its ACK.
    #[must_use]
    pub fn answer_without_sdp(self) -> Self {
        let mut script = self.respond((200, "OK"), "", "", "c").expect("ACK");
        script.answered = true;
        script
    }

    /// A provisional response with SDP.
    #[must_use]
    pub fn early(self, status: u16, reason: &str, sdp: &str) -> Self {
        self.respond((status, reason), "", sdp, "c")
    }

    /// Waits.
    #[must_use]
    pub fn pause(mut self, ms: u32) -> Self {
        let _ = writeln!(self.steps, "<pause milliseconds=\"{ms}\"/>");
        self
    }

    /// Where the offer was one of SRTP: these steps, and the end of the script.
    #[must_use]
    pub fn when_secure(mut self, steps: impl FnOnce(Script) -> Script) -> Self {
        let (there, here) = (self.labels + 1, self.labels + 2);
        self.labels += 2;
        let _ = write!(
            self.steps,
            "<nop next=\"{there}\" test=\"secure\"/>\n<nop next=\"{here}\"/>\n\
             <label id=\"{there}\"/>\n"
        );
        let then = steps(Script { steps: String::new(), ..self.clone() });
        self.steps += &then.steps;
        let _ = write!(self.steps, "<nop next=\"{END}\"/>\n<label id=\"{here}\"/>\n");
        self
    }

    /// Sends a request of its own in the dialog and waits for 200. The headers are whole lines; the
    /// body is SDP after the connection line for INVITE, whatever it is for others.
    #[must_use]
    pub fn request(self, method: &str, headers: &str, body: &str) -> Self {
        let mut script = self.send(method, headers, body);
        script.steps += "<recv response=\"100\" optional=\"true\"/>\n\
                         <recv response=\"200\" timeout=\"10000\"/>\n";
        if method == "INVITE" {
            script = script.send_ack();
        }
        script
    }

    /// An INVITE in the dialog, answered with this SDP, and its ACK.
    #[must_use]
    pub fn reinvited(self, sdp: &str) -> Self {
        self.invite().answer(sdp)
    }

    /// Sends a request of its own in the dialog and waits for this final response.
    #[must_use]
    pub fn request_refused(self, method: &str, body: &str, status: u16) -> Self {
        let mut script = self.send(method, "", body);
        let _ = writeln!(script.steps, "<recv response=\"{status}\" timeout=\"10000\"/>");
        script
    }

    /// NOTIFY of a REFER (RFC 3515): the status line of the call it made.
    #[must_use]
    pub fn notify(self, state: &str, status_line: &str) -> Self {
        let headers = format!(
            "Event: refer\nSubscription-State: {state}\nContent-Type: message/sipfrag;version=2.0"
        );
        self.request("NOTIFY", &headers, status_line)
    }

    fn send(mut self, method: &str, headers: &str, body: &str) -> Self {
        self.cseq += 1;
        let (body, kind) = match (method, body) {
            (_, "") => (String::new(), ""),
            ("INVITE", sdp) => (whole_sdp(sdp, self.cseq + 1), "Content-Type: application/sdp"),
            (_, body) => (body.to_owned(), ""),
        };
        let head = format!("{method} [next_url] SIP/2.0");
        self.message(("<send retrans=\"500\">", &head), &[OURS, headers, kind], &body, method);
        self
    }

    fn send_ack(mut self) -> Self {
        self.message(("<send>", "ACK [next_url] SIP/2.0"), &[OURS], "", "ACK");
        self
    }

    fn respond(
        mut self,
        (status, reason): (u16, &str),
        headers: &str,
        sdp: &str,
        tag: &str,
    ) -> Self {
        let own = if self.answered && tag == "c" {
            String::new()
        } else {
            format!(";tag=[pid]{tag}[call_number]")
        };
        // After a CANCEL the last CSeq is that one's.
        let cseq = if status == 487 || status == 200 && !sdp.is_empty() {
            "CSeq: [last_cseq_number] INVITE"
        } else {
            "[last_CSeq:]"
        };
        // Another branch may answer when the last message is an ACK already.
        let (via, to) = match tag {
            "c" => ("[last_Via:]", format!("[last_To:]{own}")),
            _ => ("Via:[$via]", format!("To:[$to]{own}")),
        };
        let common = format!(
            "{via}\n[last_Record-Route:]\n[last_From:]\n{to}\n\
             [last_Call-ID:]\n{cseq}\nContact: <sip:callee@[local_ip]:[local_port];transport=[transport]>"
        );
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp" };
        let body = if sdp.is_empty() { String::new() } else { whole_sdp(sdp, 1) };
        // What is acknowledged comes again until it is.
        let opening = if status >= 200 && !self.answered && (status != 200 || !sdp.is_empty()) {
            "<send retrans=\"500\">"
        } else {
            "<send>"
        };
        let head = format!("SIP/2.0 {status} {reason}");
        self.message((opening, &head), &[&common, headers, kind], &body, "");
        self
    }

    fn message(
        &mut self,
        (opening, head): (&str, &str),
        headers: &[&str],
        body: &str,
        method: &str,
    ) {
        let cseq = self.cseq.to_string();
        let _ = writeln!(self.steps, "{opening}<![CDATA[\n{head}");
        for lines in headers.iter().filter(|lines| !lines.is_empty()) {
            let lines = lines.replace("{{cseq}}", &cseq).replace("{{method}}", method);
            let _ = writeln!(self.steps, "{lines}");
        }
        let _ = writeln!(self.steps, "Content-Length: [len]\n\n{body}\n]]></send>");
    }

    fn scenario(&self) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE scenario SYSTEM \"sipp.dtd\">\n\
             <scenario name=\"called\">\n{}<label id=\"{END}\"/>\n<nop/>\n\
             <Reference variables=\"from,to,via,secure\"/>\n</scenario>\n",
            self.steps
        )
    }
}

/// Where a script ends.
const END: u32 = 99;

/// What a request of its own has, with From and To the other way round.
const OURS: &str = "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
    Max-Forwards: 70\n\
    [routes]\n\
    From:[$to];tag=[pid]c[call_number]\n\
    To:[$from]\n\
    Call-ID: [call_id]\n\
    CSeq: {{cseq}} {{method}}\n\
    Contact: <sip:callee@[local_ip]:[local_port];transport=[transport]>";

fn whole_sdp(media: &str, version: u32) -> String {
    format!(
        "v=0\no=callee 1 {version} IN IP[media_ip_type] [media_ip]\ns=-\n\
         c=IN IP[media_ip_type] [media_ip]\nt=0 0\n{media}"
    )
}

/// A called SIPp that is about to start, on 127.0.0.1 unless told otherwise.
#[derive(Debug)]
pub struct Callee {
    script: Script,
    transport: &'static str,
    calls: u32,
    here: IpAddr,
    identity: Option<Identity>,
}

impl Callee {
    /// One that takes one call over UDP.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let here = Ipv4Addr::LOCALHOST.into();
        Callee { script, transport: "u1", calls: 1, here, identity: None }
    }

    /// On another address of this machine.
    #[must_use]
    pub fn on(mut self, address: IpAddr) -> Self {
        self.here = address;
        self
    }

    /// Over TCP.
    #[must_use]
    pub fn over_tcp(mut self) -> Self {
        self.transport = "t1";
        self
    }

    /// Over TLS, as whoever the certificate names. Debian's SIPp has no TLS: Python's takes its place.
    #[must_use]
    pub fn over_tls(mut self, identity: Identity) -> Self {
        self.transport = "t1";
        self.identity = Some(identity);
        self
    }

    /// Takes this many calls (INVITEs with a Call-ID of their own), then ends.
    #[must_use]
    pub fn calls(mut self, calls: u32) -> Self {
        self.calls = calls;
        self
    }

    /// Starts it; it listens when this returns.
    ///
    /// # Panics
    /// When it does not in time.
    #[must_use]
    pub fn start(self) -> Answering {
        self.start_on(free_port())
    }

    /// The same on this port.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[must_use]
    pub fn start_on(self, port: u16) -> Answering {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let scenario = folder.path().join("scenario.xml");
        let mut text = self.script.scenario();
        if self.identity.is_some() {
            text = text.replace("[transport]", "TLS");
        }
        std::fs::write(&scenario, text).expect("the scenario can be written");
        let here = self.here;
        let media = free_media_port(here);
        let mut command = Command::new("sipp");
        command
            .current_dir(folder.path())
            .env("TERM", "dumb")
            .arg("-sf")
            .arg(&scenario)
            .args(["-t", self.transport, "-i", &here.to_string(), "-p", &port.to_string()])
            .args(["-mi", &here.to_string(), "-mp", &media.to_string()])
            .args(["-m", &self.calls.to_string()])
            .args(["-nostdin", "-timeout", "45", "-timeout_error"])
            .args(["-trace_msg", "-message_file", "messages.log"])
            .args(["-trace_err", "-error_file", "errors.log"])
            .args(["-trace_screen", "-screen_file", "screen.log"]);
        let process = Process::start("sipp", &mut command);
        let tcp = self.transport == "t1";
        wait::until("sipp listens", Duration::from_secs(10), || is_bound(tcp, port).then_some(()));
        let address = SocketAddr::new(here, port);
        let front = self.identity.map(|identity| TlsFront::start(&identity, address));
        Answering {
            address: front.as_ref().map_or(address, |front| front.address),
            media,
            calling: Calling::new("called", process, folder),
            _front: front,
        }
    }
}

/// A called SIPp at work.
#[derive(Debug)]
pub struct Answering {
    /// Where it is called.
    pub address: SocketAddr,
    /// The port its SDP names.
    pub media: u16,
    calling: Calling,
    _front: Option<TlsFront>,
}

impl Answering {
    /// What was sent and received so far.
    #[must_use]
    pub fn messages(&self) -> String {
        self.calling.messages()
    }

    /// Waits until a message with this text has come or gone.
    ///
    /// # Panics
    /// When none does.
    #[track_caller]
    pub fn wait_for_message(&self, text: &str) {
        self.calling.wait_for_message(text);
    }

    /// Waits for the end, which must be as the script says.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn passes(self) -> Called {
        self.calling.passes()
    }
}

/// TLS in front of a program that has none.
#[derive(Debug)]
struct TlsFront {
    address: SocketAddr,
    _process: Process,
    _identity: Identity,
}

impl TlsFront {
    fn start(identity: &Identity, behind: SocketAddr) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(asset("tls_front.py"))
            .args([identity.certificate(), identity.key()])
            .args([behind.ip().to_string(), behind.port().to_string()]);
        let mut process = Process::start("tls_front", &mut command);
        let port = process.find("the TLS listener", Duration::from_secs(15), |line| {
            line.strip_prefix("listening ")?.trim().parse().ok()
        });
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        TlsFront { address, _process: process, _identity: identity.clone() }
    }
}
