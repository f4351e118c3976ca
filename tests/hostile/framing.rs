//! Framing on streams: whatever stands before it, a good INVITE is served exactly once or the
//! connection ends; nothing in a body ever becomes a request.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::{Gateway, PEER, fresh, now};

/// Connections must be closed or answered by then: twice the time-limit of a message.
const LIMIT: Duration = Duration::from_secs(20);

/// What must become of the good INVITE behind the case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Served,
    Closed,
    /// It became part of the broken message before it, which was answered 400.
    Swallowed,
}

use Expect::{Closed, Served, Swallowed};

struct Case {
    name: String,
    bytes: Vec<u8>,
    expect: Expect,
}

/// An OPTIONS with these lines at the end of its header and whatever behind it.
fn options(id: u32, lines: &str, rest: &str) -> String {
    format!(
        "OPTIONS sip:ping@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP {PEER}:5060;branch=z9hG4bKc{id}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@{PEER}>;tag=c{id}\r\nTo: <sip:ping@127.0.0.1>\r\n\
         Call-ID: case-{id}\r\nCSeq: 1 OPTIONS\r\n{lines}\r\n{rest}"
    )
}

/// A request that must never be seen as one, or the good one.
fn invite(call_id: &str) -> String {
    format!(
        "INVITE sip:+15550109999@127.0.0.1 SIP/2.0\r\n\
         Via: SIP/2.0/TCP {PEER}:5060;branch=z9hG4bK{call_id}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@{PEER}>;tag={call_id}\r\nTo: <sip:b@127.0.0.1>\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{PEER}>\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Ways to write how long a body is; the body has five bytes.
const LENGTHS: &[(&str, Expect)] = &[
    ("Content-Length: 5\r\n", Served),
    ("content-LENGTH:5\r\n", Served),
    ("Content-Length : 5\r\n", Served),
    ("Content-Length\t:\t5\t\r\n", Served),
    ("Content-Length:\r\n 5\r\n", Served),
    ("l: 5\r\n", Served),
    ("L:5\r\n", Served),
    ("Content-Length: 05\r\n", Served),
    ("Content-Length: 0000000000000005\r\n", Served),
    ("Subject: Content-Length: 50\r\nContent-Length: 5\r\n", Served),
    ("Subject: x\r\n Content-Length: 50\r\nContent-Length: 5\r\n", Served),
    ("X-Content-Length: 50\r\nContent-Length: 5\r\n", Served),
    ("Content-Length: 5\r\nContent-Length: 5\r\n", Served),
    ("Content-Length: 5\r\nl: 5\r\n", Served),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Served),
    ("", Closed),
    ("Content-Length:\r\n", Closed),
    ("Content-Length: -5\r\n", Closed),
    ("Content-Length: -0\r\n", Closed),
    ("Content-Length: +5\r\n", Closed),
    ("Content-Length: 5 5\r\n", Closed),
    ("Content-Length: 5, 5\r\n", Closed),
    ("Content-Length: 5, 50\r\n", Closed),
    ("Content-Length: 0x5\r\n", Closed),
    ("Content-Length: 5.0\r\n", Closed),
    ("Content-Length: 5e0\r\n", Closed),
    ("Content-Length: 5;a=b\r\n", Closed),
    ("Content-Length: \"5\"\r\n", Closed),
    ("Content-Length: five\r\n", Closed),
    ("Content-Length: \u{0665}\r\n", Closed),
    ("Content-Length: 5\u{a0}\r\n", Closed),
    ("Content-Length: 1\r\n 5\r\n", Closed),
    ("Content-Length: 65536\r\n", Closed),
    ("Content-Length: 2147483648\r\n", Closed),
    ("Content-Length: 4294967295\r\n", Closed),
    ("Content-Length: 4294967301\r\n", Closed),
    ("Content-Length: 18446744073709551621\r\n", Closed),
    ("Content-Length: 99999999999999999999999999\r\n", Closed),
    ("Content-Length: 5\r\nContent-Length: 6\r\n", Closed),
    ("Content-Length: 0\r\nContent-Length: 5\r\n", Closed),
    ("Content-Length: 5\r\nl: 0\r\n", Closed),
    ("Content-Length: 5\r\nContent-Length: -1\r\n", Closed),
    ("Content-Length: 5\r\nContent-Length:\r\n", Closed),
    ("Content-Length: 5\0\r\n", Closed),
    ("Content-Length\0: 5\r\n", Closed),
    ("Content-Length; 5\r\n", Closed),
    ("Content-Length 5\r\n", Closed),
    ("Transfer-Encoding: chunked\r\n", Closed),
];

/// A name, how the length of the body is written, and what must follow.
type Smuggled = (&'static str, fn(usize) -> String, Expect);

/// Cases where the body holds a whole request.
fn smuggling() -> Vec<Case> {
    let cases: [Smuggled; 7] = [
        ("a request in a body", |length| format!("Content-Length: {length}\r\n"), Served),
        (
            "first length 0",
            |length| format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
            Closed,
        ),
        (
            "last length 0",
            |length| format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
            Closed,
        ),
        ("compact length 0", |length| format!("l: 0\r\nContent-Length: {length}\r\n"), Closed),
        ("list of lengths", |length| format!("Content-Length: 0, {length}\r\n"), Closed),
        ("2^32 too long", |length| format!("Content-Length: {}\r\n", length + (1 << 32)), Closed),
        ("chunked", |_| "Transfer-Encoding: chunked\r\n".to_owned(), Closed),
    ];
    let make = |(name, lines, expect): Smuggled| {
        let id = fresh();
        let ghost = invite(&format!("ghost-{id}"));
        let bytes = options(id, &lines(ghost.len()), &ghost).into_bytes();
        Case { name: format!("{name}, with a request as the body"), bytes, expect }
    };
    cases.into_iter().map(make).collect()
}

/// Cases of other kinds: what a stream may hold besides messages, and what it may not.
fn others() -> Vec<Case> {
    let good = |id| options(id, "Content-Length: 0\r\n", "");
    let mut many = String::new();
    for n in 0..5_000 {
        let _ = write!(many, "X-{n}: y\r\n");
    }
    let long = format!("X-Long: {}\r\nContent-Length: 0\r\n", "x".repeat(70_000));
    let broken_end = good(1).replace("\r\n\r\n", "\r\n \r\n");
    let hello = [&[22_u8, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[0x5a; 512][..]].concat();
    let cases: Vec<(&str, Vec<u8>, Expect)> = vec![
        ("nothing", Vec::new(), Served),
        ("a keep-alive", b"\r\n\r\n".to_vec(), Served),
        ("an odd number of line ends", b"\r\n\r\n\r\n".to_vec(), Served),
        ("two hundred keep-alives", b"\r\n\r\n".repeat(200), Served),
        ("two messages at once", [good(fresh()), good(fresh())].concat().into_bytes(), Served),
        (
            "a stray response",
            good(fresh())
                .replacen("OPTIONS sip:ping@127.0.0.1 SIP/2.0", "SIP/2.0 200 OK", 1)
                .into_bytes(),
            Served,
        ),
        ("no end of the header", good(2).trim_end().as_bytes().to_vec(), Closed),
        ("a space for the empty line", broken_end.into_bytes(), Swallowed),
        (
            "five thousand headers",
            options(3, &format!("{many}Content-Length: 0\r\n"), "").into_bytes(),
            Closed,
        ),
        ("a header of 70,000 bytes", options(4, &long, "").into_bytes(), Closed),
        ("a line of 70,000 bytes", vec![b'x'; 70_000], Closed),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), Closed),
        ("a TLS hello", hello, Closed),
        ("zeros", vec![0; 300], Closed),
    ];
    let make = |(name, bytes, expect): (&str, Vec<u8>, Expect)| Case {
        name: name.to_owned(),
        bytes,
        expect,
    };
    cases.into_iter().map(make).collect()
}

fn cases() -> Vec<Case> {
    let lengths = LENGTHS.iter().map(|&(lines, expect)| Case {
        name: format!("{lines:?}"),
        bytes: options(fresh(), lines, "hello").into_bytes(),
        expect,
    });
    lengths.chain(smuggling()).chain(others()).collect()
}

/// A connection on which a case was said.
struct Said {
    name: String,
    expect: Expect,
    good: String,
    stream: TcpStream,
    heard: Vec<u8>,
    closed: bool,
}

fn say(to: SocketAddr, case: Case, chunk: usize) -> Said {
    let good = format!("good-{}", fresh());
    let mut bytes = case.bytes;
    bytes.extend(invite(&good).into_bytes());
    let stream = from(PEER, to);
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(chunk) {
        // The gateway may close before it has heard everything.
        if (&stream).write_all(piece).is_err() {
            break;
        }
    }
    stream.set_nonblocking(true).unwrap();
    let name = format!("{} in pieces of {chunk}", case.name);
    Said { name, expect: case.expect, good, stream, heard: Vec::new(), closed: false }
}

/// A connection from an address of our choice.
pub(crate) fn from(ip: std::net::Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

impl Said {
    /// Reads what has come; true when nothing more is waited for.
    fn is_over(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(length) => {
                    self.heard.extend(&buffer[..length]);
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.closed = true,
            }
            return self.closed || self.served() > 0 || self.swallowed();
        }
    }

    fn answers(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.heard).into_owned();
        text.split("\r\n\r\n").map(str::to_owned).collect()
    }

    fn swallowed(&self) -> bool {
        self.expect == Swallowed && self.heard.starts_with(b"SIP/2.0 400 ")
    }

    /// How often the good INVITE got its final answer.
    fn served(&self) -> usize {
        let ours = format!("Call-ID: {}\r\n", self.good);
        let answers = self.answers();
        answers
            .iter()
            .filter(|text| text.starts_with("SIP/2.0 404") && format!("{text}\r\n").contains(&ours))
            .count()
    }
}

#[test]
fn a_good_invite_behind_anything_is_served_once_or_the_connection_ends() {
    let mut gateway = Gateway::start();
    let (mut all, until) = (Vec::new(), now() + LIMIT);
    for chunk in [1, 1 << 20] {
        all.extend(cases().into_iter().map(|case| say(gateway.tcp, case, chunk)));
    }
    assert!(all.len() >= 2 * 60, "{} cases", all.len());
    while all.iter_mut().map(|said| u32::from(!said.is_over())).sum::<u32>() > 0 {
        let waiting: Vec<_> =
            all.iter().filter(|s| !s.closed && s.served() == 0).map(|s| &s.name).collect();
        assert!(now() < until, "neither served nor closed: {waiting:#?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let mut wrong = Vec::new();
    for said in &mut all {
        said.is_over();
        let text = String::from_utf8_lossy(&said.heard);
        let outcome = (said.served(), said.closed, text.contains("ghost"));
        let right = match said.expect {
            Served => outcome == (1, false, false),
            Closed => outcome == (0, true, false),
            Swallowed => outcome == (0, false, false) && said.swallowed(),
        };
        if !right {
            wrong.push(format!("{}: served, closed, ghost = {outcome:?}", said.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let served: usize = all.iter().map(Said::served).sum();
    let refused = gateway.metric("gateway_calls_refused_total", "number_not_found");
    assert_eq!(format!("{refused}"), served.to_string(), "no other INVITE was ever seen");
    drop(all);
    gateway.assert_serving();
    gateway.assert_quiet();
}
