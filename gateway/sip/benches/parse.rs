//! What reading and printing one INVITE costs, beside rsip.
//!
//! `cargo bench -p trunkline-sip --bench parse` prints nanoseconds and allocations per message.
//! `… --bench parse -- run <case> <count>` runs one case so often and prints nothing, for
//! `valgrind --tool=callgrind`: the difference between two counts is the cost without start-up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use rsip::prelude::{HeadersExt, ToTypedHeader};
use sip::{Frame, HeaderName, Message, Request, StreamFramer, Writer};

/// Counts what the system allocator is asked for.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe by its signature; this one only counts")]
// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// 17 headers, 224 bytes of SDP.
const INVITE: &str = "INVITE sip:+15550100@trunk.example.com:5060;user=phone SIP/2.0\r\n\
Via: SIP/2.0/UDP 198.51.100.10:5060;rport;branch=z9hG4bK-524287-1---8d2f1c0a9b7e6d5c\r\n\
Via: SIP/2.0/UDP 198.51.100.77:5080;received=198.51.100.77;branch=z9hG4bKnashds8asdf09\r\n\
Record-Route: <sip:198.51.100.10;lr;ftag=9fxced76sl>\r\n\
Max-Forwards: 69\r\n\
From: \"Alice Example\" <sip:+15550123@carrier.example.net>;tag=9fxced76sl\r\n\
To: <sip:+15550100@trunk.example.com>\r\n\
Call-ID: 3848276298220188511@carrier.example.net\r\n\
CSeq: 20714 INVITE\r\n\
Contact: <sip:+15550123@198.51.100.10:5060;transport=udp>\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK, REFER\r\n\
Supported: timer, 100rel, replaces\r\n\
Session-Expires: 1800;refresher=uac\r\n\
Min-SE: 90\r\n\
P-Asserted-Identity: <sip:+15550123@carrier.example.net>\r\n\
User-Agent: Example-SBC/7.2.1\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 224\r\n\
\r\n\
v=0\r\n\
o=carrier 53655765 2353687637 IN IP4 198.51.100.11\r\n\
s=ExampleSBC\r\n\
c=IN IP4 198.51.100.11\r\n\
t=0 0\r\n\
m=audio 49170 RTP/AVP 0 8 101\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=ptime:20\r\n";

type Case = fn(&Ready);

/// Every case by name. Each takes what was made ready and does its work once.
const CASES: &[(&str, Case)] = &[
    ("parse", |ready| {
        black_box(Message::parse(ready.bytes.clone()).is_ok());
    }),
    ("parse+check", |ready| {
        black_box(request(ready).cseq());
    }),
    ("parse+check+typed", |ready| typed(&request(ready))),
    ("frame", |ready| frame(&ready.bytes)),
    ("reply", |ready| {
        black_box(reply(&ready.request));
    }),
    ("print", |ready| {
        black_box(print(&ready.request));
    }),
    ("rsip-parse", |ready| {
        black_box(rsip_request(ready));
    }),
    ("rsip-parse+typed", |ready| rsip_typed(&rsip_request(ready))),
    ("rsip-clone+print", |ready| {
        black_box(Vec::from(rsip::SipMessage::from(ready.rsip.clone())));
    }),
];

struct Ready {
    bytes: Bytes,
    request: Request,
    rsip: rsip::Request,
}

fn request(ready: &Ready) -> Request {
    let message = Message::parse(ready.bytes.clone()).expect("the bench's message is sound");
    Request::try_from(message).expect("the bench's message is sound")
}

/// The six headers a transaction and a dialog need.
fn typed(request: &Request) {
    black_box((request.via().branch(), request.from().tag(), request.to().tag()));
    black_box((
        request.contact().is_some(),
        request.call_id(),
        request.cseq(),
        request.max_forwards(),
    ));
}

fn frame(bytes: &[u8]) {
    let mut framer = StreamFramer::new();
    framer.push(bytes);
    assert!(matches!(framer.next_frame(), Ok(Some(Frame::Message(_)))));
}

fn reply(request: &Request) -> Bytes {
    let source = std::net::SocketAddr::from(([198, 51, 100, 10], 5060));
    let mut writer =
        Writer::reply_to(request, source, 200, None, Some("8f3a1b")).expect("a printable reply");
    writer.header(HeaderName::Contact, "<sip:203.0.113.5:5060>").expect("a printable contact");
    writer.finish(Some(("application/sdp", request.body()))).expect("a printable type")
}

fn print(request: &Request) -> Bytes {
    let mut writer = Writer::request("INVITE", request.uri_bytes()).expect("a printable request");
    for (_, name, value) in request.headers() {
        let name = std::str::from_utf8(name).expect("names are tokens");
        if !name.starts_with("Content-") {
            writer.extension(name, value).expect("a printable value");
        }
    }
    writer.finish(Some(("application/sdp", request.body()))).expect("a printable type")
}

fn rsip_request(ready: &Ready) -> rsip::Request {
    rsip::Request::try_from(&ready.bytes[..]).expect("rsip reads this message")
}

fn rsip_typed(request: &rsip::Request) {
    black_box(request.via_header().expect("there").typed().expect("readable"));
    black_box(request.from_header().expect("there").typed().expect("readable"));
    black_box(request.to_header().expect("there").typed().expect("readable"));
    black_box(request.contact_header().expect("there").typed().expect("readable"));
    black_box(request.cseq_header().expect("there").typed().expect("readable"));
    black_box(request.call_id_header().expect("there"));
}

const ROUNDS: usize = 31;
const ITERATIONS: u32 = 5_000;

/// Nanoseconds per call: the median of the rounds and the fastest.
#[expect(clippy::disallowed_methods, reason = "a bench is there to read the clock")]
fn time(case: Case, ready: &Ready) -> (f64, f64) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..ITERATIONS {
                case(black_box(ready));
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(ITERATIONS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let at = |row: usize| rounds.get(row).copied().unwrap_or_default();
    (at(ROUNDS / 2), at(0))
}

fn table(ready: &Ready) {
    let bytes = ready.bytes.len();
    let (headers, body) = (ready.request.headers().count(), ready.request.body().len());
    println!("one INVITE: {bytes} bytes, {headers} headers, {body} bytes of SDP");
    println!(
        "{:<20} {:>10} {:>10} {:>8} {:>10}",
        "case", "median ns", "best ns", "allocs", "bytes"
    );
    for &(name, case) in CASES {
        case(ready);
        let before = (ALLOCATIONS.load(Ordering::Relaxed), ALLOCATED.load(Ordering::Relaxed));
        case(ready);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before.0;
        let allocated = ALLOCATED.load(Ordering::Relaxed) - before.1;
        let (median, best) = time(case, ready);
        println!("{name:<20} {median:>10.0} {best:>10.0} {allocations:>8} {allocated:>10}");
    }
    println!("instructions: valgrind --tool=callgrind <this program> run <case> <count>");
}

fn main() {
    let bytes = Bytes::from_static(INVITE.as_bytes());
    let message = Message::parse(bytes.clone()).expect("the bench's message is sound");
    let request = Request::try_from(message).expect("the bench's message is sound");
    let rsip = rsip::Request::try_from(&bytes[..]).expect("rsip reads this message");
    let ready = Ready { bytes, request, rsip };
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["run", name, count] => {
            let case =
                CASES.iter().find(|(known, _)| *known == name).expect("a case of the table").1;
            for _ in 0..count.parse::<u64>().expect("a count") {
                case(black_box(&ready));
            }
        }
        _ => table(&ready),
    }
}
