//! Torture: every message of RFC 4475 and RFC 5118, and our own malformed ones, at the pure
//! endpoint and at the running program, as one datagram and byte by byte on a stream.
//!
//! The messages of the RFCs are other people's and are read from the folder named by
//! `TRUNKLINE_CONFORMANCE`, by default `../shared/conformance` beside the workspace; where it is
//! absent the test says so and passes. Ours are in `tests/malformed`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sip::endpoint::{Endpoint, Event, Options, Trust};
use sip::{Flow, Frame, StreamFramer, Transport};

use crate::common::{Dialog, Gateway, PEER, Phone, header, now, status};
use crate::golden::{Golden, Verdict};

/// Everything on a stream is answered or closed by then: twice the time-limit of a message.
const LIMIT: Duration = Duration::from_secs(20);

/// The largest payload of a datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

/// One message of a collection.
#[derive(Clone)]
struct Message {
    name: String,
    bytes: Vec<u8>,
    /// Answers to the datagram that its RFC is content with, as the index has them.
    accept: String,
}

fn conformance() -> Option<PathBuf> {
    let root = std::env::var_os("TRUNKLINE_CONFORMANCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    let folder = root.join("torture");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is absent; set TRUNKLINE_CONFORMANCE", folder.display());
    None
}

/// The messages that an index lists. The one of RFC 5118 has classes instead of status codes.
fn indexed(folder: &Path, rfc: &str) -> Vec<Message> {
    let index = fs::read_to_string(folder.join(rfc).join("index.tsv")).unwrap();
    let mut rows = index.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let head = rows.next().unwrap();
    let column = |name: &str| head.iter().position(|&found| found == name);
    let (accept, class) = (column("accept_udp"), column("class").unwrap());
    let message = |row: Vec<&str>| {
        let accept = match (accept, row[class]) {
            (Some(accept), _) => row[accept],
            (None, "invalid") => "400,drop",
            (None, "lenient") => "400,2xx,404",
            (None, _) => "1xx,2xx,401,403,404,405,481,488,501",
        };
        let name = row[0].trim_end_matches(".dat");
        Message {
            name: format!("{rfc}/{name}"),
            bytes: fs::read(folder.join(rfc).join(row[0])).unwrap(),
            accept: accept.to_owned(),
        }
    };
    rows.map(message).collect()
}

fn ours() -> Vec<Message> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("malformed");
    let mut messages = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sip") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            messages.push(Message { name, bytes: fs::read(path).unwrap(), accept: String::new() });
        }
    }
    messages
}

/// What the endpoint does by itself for a peer it knows, and what it tells the application.
fn at_the_endpoint(bytes: &[u8]) -> String {
    let mut endpoint = Endpoint::new(Options::default(), [7; 32]);
    let [local, remote] = ["192.0.2.1:5060", "192.0.2.9:5060"].map(|text| text.parse().unwrap());
    let flow = Flow { transport: Transport::Udp, local, remote, connection: 0 };
    endpoint.handle_message(now(), flow, Bytes::copy_from_slice(bytes), Trust::Known);
    let mut seen = Vec::new();
    while let Some(transmit) = endpoint.poll_transmit() {
        assert_eq!(transmit.flow, flow, "sent to somebody else");
        seen.push(status(&String::from_utf8_lossy(&transmit.bytes)).to_string());
    }
    while let Some(event) = endpoint.poll_event() {
        let word = match event {
            Event::Invite { .. } => "invite",
            Event::Request { .. } => "request",
            Event::Malformed { .. } => "malformed",
            other => panic!("{other:?}"),
        };
        seen.push(word.to_owned());
    }
    seen.join(" ")
}

/// The final statuses of some responses, in words: their codes, or silence.
fn said(statuses: impl IntoIterator<Item = u16>) -> String {
    let mut statuses: Vec<u16> = statuses.into_iter().filter(|&status| status >= 200).collect();
    // A repeated refusal is the same one.
    statuses.dedup();
    let codes: Vec<String> = statuses.iter().map(u16::to_string).collect();
    if codes.is_empty() { "silence".to_owned() } else { codes.join(" ") }
}

/// As one datagram; a health check follows.
fn as_datagram(gateway: &Gateway, message: &Message) -> String {
    if message.bytes.len() > MAX_DATAGRAM {
        return "fits none".to_owned();
    }
    let phone = Phone::new(PEER, gateway.udp);
    phone.send(&message.bytes);
    let witness = Phone::new(PEER, gateway.udp);
    assert_eq!(witness.options(), 200, "after {}", message.name);
    let answers = phone.received();
    for answer in answers.iter().filter(|text| makes_call(text)) {
        end_call(&phone, answer);
    }
    gateway.assert_serving();
    said(answers.iter().map(|text| status(text)))
}

fn makes_call(answer: &str) -> bool {
    (200..300).contains(&status(answer)) && header(answer, "CSeq").ends_with("INVITE")
}

/// The dialog that a 200 made.
fn answered(phone: &Phone, answer: &str) -> Dialog {
    let mut dialog = Dialog::new(phone, header(answer, "Contact").trim_matches(['<', '>']));
    dialog.from = header(answer, "From").to_owned();
    dialog.to = header(answer, "To").to_owned();
    dialog.call_id = header(answer, "Call-ID").to_owned();
    dialog.cseq = header(answer, "CSeq").split(' ').next().unwrap().parse().unwrap();
    dialog
}

/// Ends a call that a datagram happened to make.
fn end_call(phone: &Phone, answer: &str) {
    let mut dialog = answered(phone, answer);
    phone.send(dialog.request(phone, "ACK", "", "").as_bytes());
    dialog.cseq += 1;
    let bye = phone.ask(&dialog.request(phone, "BYE", "", ""));
    assert_eq!(bye.map(|text| status(&text)), Some(200));
}

/// A message on a connection of its own, byte by byte, and two OPTIONS behind it: the first tells
/// whether the stream kept its rhythm, the second whether it found it again.
struct OnStream {
    name: String,
    goods: [String; 2],
    stream: TcpStream,
    framer: StreamFramer,
    answers: Vec<String>,
    closed: bool,
}

impl OnStream {
    fn say(to: SocketAddr, message: &Message) -> OnStream {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((PEER, 0)).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        let phone = Phone::new(PEER, to);
        let dialogs = [0; 2].map(|_| Dialog::new(&phone, "sip:ping@127.0.0.1"));
        let options = |dialog: &Dialog| {
            dialog.request(&phone, "OPTIONS", "", "").replace("/UDP", "/TCP").into_bytes()
        };
        let [first, second] = [options(&dialogs[0]), options(&dialogs[1])];
        for piece in message.bytes.chunks(1).chain([&*first, &*second]) {
            // The gateway may close before it has heard everything.
            if (&stream).write_all(piece).is_err() {
                break;
            }
        }
        stream.set_nonblocking(true).unwrap();
        OnStream {
            name: message.name.clone(),
            goods: dialogs.map(|dialog| dialog.call_id),
            stream,
            framer: StreamFramer::new(),
            answers: Vec::new(),
            closed: false,
        }
    }

    fn is_over(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(length) => {
                    self.framer.push(&buffer[..length]);
                    let frames = std::iter::from_fn(|| self.framer.next_frame().unwrap());
                    self.answers.extend(frames.filter_map(|frame| match frame {
                        Frame::Message(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                        Frame::Ping | Frame::Pong => None,
                    }));
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.closed = true,
            }
            return self.closed || self.is_served(1);
        }
    }

    fn is_served(&self, n: usize) -> bool {
        let good = |text: &&String| header(text, "Call-ID") == self.goods[n];
        self.answers.iter().filter(good).any(|text| status(text) == 200)
    }

    fn verdict(&self) -> String {
        let good = |text: &&String| self.goods.iter().any(|good| header(text, "Call-ID") == good);
        let others = self.answers.iter().filter(|text| !good(text));
        let others = said(others.map(|text| status(text)));
        match (self.is_served(0), self.is_served(1)) {
            (true, true) => format!("{others}, served"),
            (false, true) => format!("{others}, swallowed"),
            // What was under way when the connection was closed may or may not have come.
            _ => "closed".to_owned(),
        }
    }

    /// Ends the calls that the message happened to make.
    fn end_calls(&self, to: SocketAddr) {
        let phone = Phone::new(PEER, to);
        for answer in self.answers.iter().filter(|text| makes_call(text)) {
            let mut dialog = answered(&phone, answer);
            for method in ["ACK", "BYE"] {
                let request = dialog.request(&phone, method, "", "").replace("/UDP", "/TCP");
                (&self.stream).write_all(request.as_bytes()).unwrap();
                dialog.cseq += 1;
            }
        }
    }
}

fn on_streams(gateway: &Gateway, messages: &[Message]) -> BTreeMap<String, String> {
    let mut all: Vec<_> = messages.iter().map(|m| OnStream::say(gateway.tcp, m)).collect();
    let until = now() + LIMIT;
    while all.iter_mut().map(|one| u32::from(!one.is_over())).sum::<u32>() > 0 {
        let waiting: Vec<_> = all.iter().filter(|one| !one.closed && !one.is_served(1)).collect();
        let waiting: Vec<_> = waiting.iter().map(|one| (&one.name, one.verdict())).collect();
        assert!(now() < until, "neither served nor closed: {waiting:#?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    all.iter().for_each(|one| one.end_calls(gateway.tcp));
    let verdicts = all.iter().map(|one| (one.name.clone(), one.verdict())).collect();
    gateway.assert_serving();
    verdicts
}

fn judge(messages: &[Message]) -> BTreeMap<String, Verdict> {
    // Two of them: the same request over two transports would be a merged one (RFC 3261 §8.2.2.2).
    let (mut gateway, mut other) = (Gateway::start(), Gateway::start());
    let mut streams = on_streams(&other, messages);
    let verdict = |message: &Message| {
        let udp = as_datagram(&gateway, message);
        let endpoint = at_the_endpoint(&message.bytes);
        (
            message.name.clone(),
            Verdict { endpoint, udp, tcp: streams.remove(&message.name).unwrap() },
        )
    };
    let verdicts = messages.iter().map(verdict).collect();
    gateway.assert_quiet();
    other.assert_quiet();
    verdicts
}

/// Whether an answer is one that the index is content with.
fn accepts(accept: &str, udp: &str) -> bool {
    let one = |word: &str| match word.trim() {
        "drop" | "none" => udp == "silence",
        class if class.ends_with("xx") => udp.len() == 3 && udp.starts_with(&class[..1]),
        code => udp == code,
    };
    accept.split(',').any(one)
}

#[test]
fn every_torture_message_of_the_rfcs_gets_its_verdict() {
    let Some(folder) = conformance() else { return };
    let messages = [indexed(&folder, "rfc4475"), indexed(&folder, "rfc5118")].concat();
    assert_eq!(messages.len(), 62);
    let golden = Golden::read("torture.golden.txt");
    let verdicts = judge(&messages);
    let mut unexplained = Vec::new();
    for Message { name, accept, .. } in &messages {
        let udp = &verdicts[name].udp;
        if !accepts(accept, udp) && golden.note(name).is_empty() {
            unexplained.push(format!("{name}: {udp}, where the index has {accept}"));
        }
    }
    golden.check(verdicts);
    assert!(unexplained.is_empty(), "say why, as the note: {unexplained:#?}");
}

#[test]
fn every_malformed_message_of_ours_gets_its_verdict() {
    let messages = ours();
    assert!(messages.len() >= 100, "{}", messages.len());
    let golden = Golden::read("malformed.golden.txt");
    for message in &messages {
        assert!(
            !golden.note(&message.name).is_empty(),
            "{}: say what is wrong with it",
            message.name
        );
    }
    golden.check(judge(&messages));
}
