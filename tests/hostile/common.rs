//! A gateway process of the test's own, and what to attack it with: phones of plain sockets,
//! sprayers, a small HTTP client.
//!
//! The process is the harness's: port 0 everywhere, a folder of its own, killed when the test lets
//! go of it. Peers are other addresses of 127.0.0.0/8: the trunks made here list
//! [`KNOWN`], everybody else is a stranger.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use media::codec::Codec;
use media::sdp::{Capabilities, Encryption, Incompatible, Local, Negotiation, Plan};
use serde_json::{Value, json};

use crate::http::{HttpReply, http};

/// The network that the trunks list.
pub(crate) const KNOWN: &str = "127.0.0.0/29";
/// A peer of the trunks.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The network of somebody else's trunk, and a peer there.
pub(crate) const OTHERS: &str = "127.0.0.8/29";
/// See [`OTHERS`].
pub(crate) const OTHER_PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// Somebody no trunk lists.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// A number whose agent says back what it hears.
pub(crate) const ECHO: &str = "+15550100100";
/// A number whose agent never stops playing a tone.
pub(crate) const TONE: &str = "+15550100200";
/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

static COUNTER: AtomicU32 = AtomicU32::new(1);

/// A number nobody had before in this process.
pub(crate) fn fresh() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// The clock of the machine: these are tests of real sockets.
#[expect(clippy::disallowed_methods, reason = "real sockets are waited for in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Asks every 20 ms until the answer is yes; fails the test when the limit is reached first.
pub(crate) fn eventually(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) {
    let until = now() + limit;
    while !ask() {
        assert!(now() < until, "not in {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A running `trunkline serve`, quieter and smaller than the harness makes it.
pub(crate) struct Gateway {
    inner: support::Gateway,
    /// Its media ports.
    pub(crate) ports: RangeInclusive<u16>,
}

impl Deref for Gateway {
    type Target = support::Gateway;

    fn deref(&self) -> &support::Gateway {
        &self.inner
    }
}

/// Media ports that nobody seems to use at the moment: 64, or another power of two.
fn some_ports(count: u16) -> RangeInclusive<u16> {
    let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let start = probe.local_addr().unwrap().port().clamp(2_048, 65_000) & !(count - 1);
    start..=start + (count - 1)
}

/// Whether the full numbers are wanted of tests that do with smaller ones otherwise.
pub(crate) fn soak() -> bool {
    std::env::var_os("TRUNKLINE_SOAK").is_some_and(|value| value == "1")
}

impl Gateway {
    /// Starts one with nothing provisioned and some settings changed: `("sip.max_calls", "32")`.
    pub(crate) fn empty(settings: &[(&str, &str)]) -> Gateway {
        Gateway::with_ports(some_ports(64), settings)
    }

    fn with_ports(ports: RangeInclusive<u16>, settings: &[(&str, &str)]) -> Gateway {
        let range = format!("\"{}-{}\"", ports.start(), ports.end());
        let mut all = vec![
            ("media.ports", &*range),
            ("media.realtime", "false"),
            ("observe.level", "\"info\""),
            ("sip.max_calls", "32"),
        ];
        all.extend(settings);
        Gateway { inner: support::Gateway::with(&all), ports }
    }

    /// Starts one with a trunk for [`KNOWN`] that takes plain audio and SRTP, the numbers [`ECHO`]
    /// and [`TONE`] on it, and their agents; and with a trunk without numbers for [`OTHERS`].
    pub(crate) fn start() -> Gateway {
        Gateway::empty(&[]).provisioned()
    }

    /// The same with room for a hundred calls.
    pub(crate) fn roomy() -> Gateway {
        let ports = some_ports(256);
        Gateway::with_ports(ports, &[("sip.max_calls", "128")]).provisioned()
    }

    fn provisioned(self) -> Gateway {
        let gateway = self;
        gateway.trunk("elsewhere", json!({"allowed_addresses": [OTHERS]}));
        let trunk = gateway.pbx("PBX", "ALLOW");
        for number in [ECHO, TONE] {
            gateway.number(number, &trunk);
        }
        gateway.agent(support::gateway::echo(), &[ECHO]);
        gateway.agent(support::gateway::tone(), &[TONE]);
        gateway
    }

    /// A trunk for [`KNOWN`] with this rule of encryption: its id.
    pub(crate) fn pbx(&self, name: &str, encryption: &str) -> String {
        self.trunk(name, json!({"allowed_addresses": [KNOWN], "media_encryption": encryption}))
    }

    /// A request with the organisation's key.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> HttpReply {
        let body = body.map(Value::to_string).unwrap_or_default();
        let key = format!("Bearer {}", self.inner.key);
        self.raw(method, path, &[("authorization", &key)], body.as_bytes())
    }

    /// A request with these headers and this body, whatever they are.
    pub(crate) fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpReply {
        http(self.api, method, path, headers, body)
    }

    /// Nothing panicked and nothing was a fault of its own.
    pub(crate) fn assert_unharmed(&mut self) {
        assert!(!self.inner.has_exited(), "the gateway is gone");
        let bad =
            |line: &&String| line.contains("panicked") || line.contains("\"level\":\"ERROR\"");
        let bad: Vec<String> = self.log().iter().filter(bad).cloned().collect();
        assert!(bad.is_empty(), "{bad:#?}");
        for faults in ["gateway_bugs_total", "gateway_media_faults_total"] {
            assert!(self.metric(faults, "") < 1.0, "{faults}");
        }
    }

    /// Calls, dialogs, sessions and ports are as many as before anybody called, within a bounded
    /// time, and [`Gateway::assert_unharmed`] holds.
    pub(crate) fn assert_quiet(&mut self) {
        self.wait_until_quiet();
        let phone = Phone::new(PEER, self.udp);
        eventually("no dialog is left", PATIENCE, || {
            // Depths are noted whenever signalling has done something.
            phone.options() == 200 && self.metric("gateway_queue_depth", "\"dialogs\"") < 0.5
        });
        self.assert_unharmed();
    }

    /// OPTIONS is answered 200 and a short call succeeds.
    pub(crate) fn assert_serving(&self) {
        let phone = Phone::new(PEER, self.udp);
        assert_eq!(phone.options(), 200);
        let call = phone.dial(ECHO, &offer(PEER, 4_000, "RTP/AVP 0", "")).expect("a call");
        call.hang_up();
    }
}

/// A telephone: one signalling socket.
pub(crate) struct Phone {
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
    pub(crate) gateway: SocketAddr,
}

impl Phone {
    pub(crate) fn new(ip: Ipv4Addr, gateway: SocketAddr) -> Phone {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        Phone { address: socket.local_addr().unwrap(), socket, gateway }
    }

    pub(crate) fn send(&self, message: &[u8]) {
        self.socket.send_to(message, self.gateway).unwrap();
    }

    /// The next message, whoever it is for.
    pub(crate) fn receive(&self, patience: Duration) -> Option<String> {
        receive(&self.socket, patience).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Everything that has come.
    pub(crate) fn received(&self) -> Vec<String> {
        std::iter::from_fn(|| self.receive(Duration::from_millis(1))).collect()
    }

    /// Sends a request and repeats it, as RFC 3261 §17.1 does, until a final response comes.
    pub(crate) fn ask(&self, request: &str) -> Option<String> {
        let branch = parameter(request, "branch=").to_owned();
        let (until, mut pause) = (now() + PATIENCE, Duration::from_millis(500));
        while now() < until {
            self.send(request.as_bytes());
            let repeat = now() + pause;
            pause = (pause * 2).min(Duration::from_secs(4));
            while let Some(left) = repeat.checked_duration_since(now()) {
                let Some(text) = self.receive(left.max(Duration::from_millis(1))) else { break };
                if text.starts_with("SIP/2.0 ") && text.contains(&branch) && status(&text) >= 200 {
                    return Some(text);
                }
            }
        }
        None
    }

    /// The status of an OPTIONS; 0 when nobody answers.
    pub(crate) fn options(&self) -> u16 {
        let dialog = Dialog::new(self, "sip:ping@127.0.0.1");
        self.ask(&dialog.request(self, "OPTIONS", "", "")).map_or(0, |text| status(&text))
    }

    /// Places a call and acknowledges the answer.
    ///
    /// # Errors
    /// The final status; 0 when nobody answers.
    pub(crate) fn dial(&self, number: &str, sdp: &str) -> Result<Call<'_>, u16> {
        let mut dialog = Dialog::new(self, &format!("sip:{number}@{}", self.gateway));
        let invite = dialog.request(self, "INVITE", "Content-Type: application/sdp\r\n", sdp);
        let answer = self.ask(&invite).ok_or(0_u16)?;
        dialog.to = header(&answer, "To").to_owned();
        let status = status(&answer);
        if status >= 300 {
            // Within the transaction: the branch of the INVITE (RFC 3261 §17.1.1.3).
            let branch = parameter(&invite, "branch=").to_owned();
            let ack = dialog.request_with(self, "ACK", ("", ""), &branch);
            self.send(ack.as_bytes());
            return Err(status);
        }
        dialog.target = header(&answer, "Contact").trim_matches(['<', '>']).to_owned();
        self.send(dialog.request(self, "ACK", "", "").as_bytes());
        Ok(Call { phone: self, dialog, answer })
    }
}

/// The next datagram.
pub(crate) fn receive(socket: &UdpSocket, patience: Duration) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    socket.set_read_timeout(Some(patience)).unwrap();
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

/// The identifiers of a call.
#[derive(Clone)]
pub(crate) struct Dialog {
    pub(crate) target: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
}

impl Dialog {
    pub(crate) fn new(phone: &Phone, target: &str) -> Dialog {
        let id = fresh();
        Dialog {
            target: target.to_owned(),
            from: format!("<sip:+15550100001@{}>;tag=t{id}", phone.address),
            to: format!("<{target}>"),
            call_id: format!("call-{id}-{}", phone.address.port()),
            cseq: 1,
        }
    }

    /// A request with a branch of its own.
    pub(crate) fn request(&self, phone: &Phone, method: &str, headers: &str, body: &str) -> String {
        self.request_with(phone, method, (headers, body), &format!("z9hG4bK{}", fresh()))
    }

    /// A request with a branch.
    pub(crate) fn request_with(
        &self,
        phone: &Phone,
        method: &str,
        (headers, body): (&str, &str),
        branch: &str,
    ) -> String {
        let Dialog { target, from, to, call_id, cseq } = self;
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {address};rport;branch={branch}\r\n\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:{address}>\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}",
            address = phone.address,
            length = body.len(),
        )
    }
}

/// An answered call.
pub(crate) struct Call<'a> {
    pub(crate) phone: &'a Phone,
    pub(crate) dialog: Dialog,
    /// The 200.
    pub(crate) answer: String,
}

impl Call<'_> {
    /// The session description of the 200.
    pub(crate) fn sdp(&self) -> &str {
        body(&self.answer)
    }

    /// Where the gateway wants its audio.
    pub(crate) fn media(&self) -> SocketAddr {
        media_address(self.sdp())
    }

    /// A request in the dialog and its final response; a 2xx to INVITE is acknowledged.
    pub(crate) fn ask(&mut self, method: &str, headers: &str, body: &str) -> String {
        self.dialog.cseq += 1;
        let request = self.dialog.request(self.phone, method, headers, body);
        let answer = self.phone.ask(&request).unwrap_or_else(|| panic!("no answer to {method}"));
        if method == "INVITE" {
            let branch = parameter(&request, "branch=").to_owned();
            let fresh = format!("z9hG4bK{}", fresh());
            let branch = if status(&answer) < 300 { &fresh } else { &branch };
            self.phone
                .send(self.dialog.request_with(self.phone, "ACK", ("", ""), branch).as_bytes());
        }
        answer
    }

    /// A re-INVITE with this offer.
    pub(crate) fn reinvite(&mut self, sdp: &str) -> String {
        self.ask("INVITE", "Content-Type: application/sdp\r\n", sdp)
    }

    /// Whether the gateway still knows the call.
    pub(crate) fn is_up(&mut self) -> bool {
        status(&self.ask("OPTIONS", "", "")) == 200
    }

    pub(crate) fn hang_up(mut self) {
        assert_eq!(status(&self.ask("BYE", "", "")), 200);
    }
}

/// The status code of a response; 0 of anything else.
pub(crate) fn status(text: &str) -> u16 {
    text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// The value of a header's first line.
pub(crate) fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

/// What stands behind `name`, up to the next separator.
pub(crate) fn parameter<'a>(text: &'a str, name: &str) -> &'a str {
    let rest = text.split_once(name).map_or("", |(_, rest)| rest);
    rest.split([';', '\r', ',', '>', ' ']).next().unwrap_or_default()
}

/// The body of a message.
pub(crate) fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// The audio address of a description.
pub(crate) fn media_address(sdp: &str) -> SocketAddr {
    let find = |start: &str| sdp.lines().find_map(|line| line.strip_prefix(start)).unwrap();
    let address: IpAddr = find("c=IN IP4 ").trim().parse().unwrap();
    let port = find("m=audio ").split(' ').next().unwrap().parse().unwrap();
    SocketAddr::new(address, port)
}

/// An offer of one audio line, `RTP/AVP 0` for example, with more lines behind it.
pub(crate) fn offer(ip: Ipv4Addr, port: u16, audio: &str, more: &str) -> String {
    format!(
        "v=0\r\no=- {} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {audio}\r\n{more}",
        fresh()
    )
}

/// One side of a call's audio: a socket, and how it was agreed on.
pub(crate) struct Audio {
    pub(crate) socket: UdpSocket,
    negotiation: Negotiation,
    /// The description to send.
    pub(crate) offer: String,
}

impl Audio {
    /// A socket at `ip` that is described as being at `told`.
    pub(crate) fn new(ip: Ipv4Addr, told: Option<SocketAddr>, encryption: Encryption) -> Audio {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let told = told.unwrap_or_else(|| socket.local_addr().unwrap());
        let local = Local { address: told.ip(), port: told.port(), session_id: u64::from(fresh()) };
        let capabilities = Capabilities { codecs: vec![Codec::Pcmu], dtmf: true, encryption };
        let mut negotiation = Negotiation::new(capabilities, local);
        let offer = negotiation.offer(&mut bytes());
        Audio { socket, negotiation, offer: String::from_utf8(offer).unwrap() }
    }

    /// A socket at `ip` for who is offered something; the answer, and what was agreed on.
    pub(crate) fn answering(
        ip: Ipv4Addr,
        encryption: Encryption,
        offer: &str,
    ) -> Result<(UdpSocket, String, Plan), Incompatible> {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let own = socket.local_addr().unwrap();
        let local = Local { address: own.ip(), port: own.port(), session_id: u64::from(fresh()) };
        let capabilities = Capabilities { codecs: vec![Codec::Pcmu], dtmf: true, encryption };
        let (answer, plan) =
            Negotiation::new(capabilities, local).answer(offer.as_bytes(), &mut bytes())?;
        Ok((socket, String::from_utf8(answer).unwrap(), plan))
    }

    /// What was agreed on.
    pub(crate) fn accept(&mut self, call: &Call<'_>) -> Plan {
        self.negotiation.accept(call.sdp().as_bytes()).unwrap()
    }

    /// Datagrams that have come and were not read.
    pub(crate) fn waiting(&self) -> usize {
        drain(&self.socket)
    }
}

/// Keys that are no secret.
fn bytes() -> impl FnMut(&mut [u8]) {
    let mut seed = fresh().wrapping_mul(2_654_435_761);
    move |bytes: &mut [u8]| {
        for byte in bytes {
            seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            [*byte, ..] = seed.rotate_left(11).to_le_bytes();
        }
    }
}

/// Reads away what a socket holds: how many datagrams.
pub(crate) fn drain(socket: &UdpSocket) -> usize {
    let (mut count, mut buffer) = (0, [0; 2_048]);
    socket.set_nonblocking(true).unwrap();
    while socket.recv_from(&mut buffer).is_ok() {
        count += 1;
    }
    socket.set_nonblocking(false).unwrap();
    count
}

/// A tone at 8 kHz.
pub(crate) fn tone(hz: f32, seconds: f32, peak: f32) -> Vec<i16> {
    let step = std::f32::consts::TAU * hz / 8_000.0;
    let mut phase = 0.0_f32;
    let mut next = || {
        phase = (phase + step) % std::f32::consts::TAU;
        #[expect(clippy::cast_possible_truncation, reason = "the peak is within range")]
        let sample = (phase.sin() * peak) as i16;
        sample
    };
    let mut left = seconds * 8_000.0;
    let mut samples = Vec::new();
    while left > 0.0 {
        samples.push(next());
        left -= 1.0;
    }
    samples
}

/// How much of a frequency there is, as an amplitude (Goertzel's algorithm).
pub(crate) fn level(samples: &[i16], hz: f32) -> f32 {
    let (sin, cos) = (std::f32::consts::TAU * hz / 8_000.0).sin_cos();
    let (mut a, mut b, mut count) = (0.0_f32, 0.0_f32, 0.0_f32);
    for &sample in samples {
        (a, b) = (f32::from(sample) + 2.0 * cos * a - b, a);
        count += 1.0;
    }
    let (re, im) = (a - b * cos, b * sin);
    2.0 * re.hypot(im) / count.max(1.0)
}

/// An RTP packet of payload type 0.
pub(crate) fn rtp(sequence: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// How many datagrams come within a time, give or take the time-out of the socket.
pub(crate) fn listen(socket: &UdpSocket, time: Duration) -> u32 {
    let (until, mut count, mut buffer) = (now() + time, 0, [0; 2_048]);
    while now() < until {
        count += u32::from(socket.recv_from(&mut buffer).is_ok());
    }
    count
}

/// Sends to every given port again and again from one address, and counts what comes back.
pub(crate) struct Sprayer {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicU32>,
    sent: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
    since: Instant,
}

/// How often a sprayer goes over all ports.
const ROUND: Duration = Duration::from_millis(10);

impl Sprayer {
    /// One round over all ports every 10 ms, each with the packet that `make` gives for its round.
    pub(crate) fn start(
        from: SocketAddr,
        ports: RangeInclusive<u16>,
        make: impl Fn(u16) -> Vec<u8> + Send + 'static,
    ) -> Sprayer {
        let socket = UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let (stop, heard) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&heard));
        let sent = Arc::<AtomicU32>::default();
        let sprayed = Arc::clone(&sent);
        let thread = std::thread::spawn(move || {
            let (mut round, mut due) = (0, now());
            while !stopped.load(Ordering::Relaxed) {
                let (packet, begun) = (make(round), now());
                for port in ports.clone() {
                    let _ = socket.send_to(&packet, (Ipv4Addr::LOCALHOST, port));
                    sprayed.fetch_add(1, Ordering::Relaxed);
                }
                round = round.wrapping_add(1);
                // A wait may last milliseconds longer than it should: the next one is shorter by that.
                due = (due + ROUND).max(begun);
                let left = due.saturating_duration_since(now()).max(Duration::from_millis(1));
                count.fetch_add(listen(&socket, left), Ordering::Relaxed);
            }
        });
        Sprayer { stop, heard, sent, thread: Some(thread), since: now() }
    }

    /// Packets a second that it has sent so far.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.sent.load(Ordering::Relaxed)) / (now() - self.since).as_secs_f64()
    }

    /// Stops: how many packets came to the attacker.
    pub(crate) fn stop(mut self) -> u32 {
        self.end();
        self.heard.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Sprayer {
    fn drop(&mut self) {
        self.end();
    }
}
