//! What one whole call costs: INVITE, 100, 180, 200, ACK, BYE, 200 through two pure endpoints.
//!
//! `cargo bench -p trunkline-sip --bench call` prints nanoseconds and allocations per call, both
//! sides together. `… --bench call -- run <case> <count>` makes so many calls and prints nothing,
//! for `valgrind --tool=callgrind`: the difference between two counts is the cost without start-up.
//!
//! A tenth of a second passes between calls, so that some 320 calls linger in each endpoint as they
//! would at ten calls a second; the timers that end them are part of the figure.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sip::endpoint::{Content, DialogId, Endpoint, Event, Invite, Options, Reply, Trust};
use sip::{Flow, Method, Transport};

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

const SDP: &[u8] = b"v=0\r\no=carrier 53655765 2353687637 IN IP4 198.51.100.11\r\ns=-\r\n\
c=IN IP4 198.51.100.11\r\nt=0 0\r\nm=audio 49170 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n";

/// Every case by name: the transport, and how many calls stay up beside the one that is made.
const CASES: &[(&str, Transport, usize)] = &[
    ("udp", Transport::Udp, 0),
    ("tcp", Transport::Tcp, 0),
    ("udp+10000-calls-up", Transport::Udp, 10_000),
];

/// Two endpoints and the wire between them.
struct World {
    now: Instant,
    caller: Endpoint,
    callee: Endpoint,
    flow: Flow,
    messages: usize,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a bench needs one instant to count from")]
    fn new(transport: Transport, calls_up: usize) -> World {
        let [local, remote] = [[198, 51, 100, 10], [203, 0, 113, 5]].map(|ip| (ip, 5060).into());
        let connection = u64::from(transport.is_reliable());
        let mut world = World {
            now: Instant::now(),
            caller: Endpoint::new(Options::default(), [1; 32]),
            callee: Endpoint::new(Options::default(), [2; 32]),
            flow: Flow { transport, local, remote, connection },
            messages: 0,
        };
        for _ in 0..calls_up {
            world.dial();
            world.pass(10);
        }
        world.pass(60_000);
        world
    }

    /// A call that is set up and ended, and the pause after it.
    fn call(&mut self) {
        let dialog = self.dial();
        let bye = self.caller.request(self.now, dialog, Method::Bye, Content::default());
        assert!(bye.is_ok());
        self.settle();
        self.pass(100);
    }

    fn dial(&mut self) -> DialogId {
        let invite = Invite {
            flow: self.flow,
            request_uri: "sip:+15550100@203.0.113.5;user=phone",
            from: "\"Alice Example\" <sip:+15550123@carrier.example.net>",
            to: "<sip:+15550100@203.0.113.5>",
            contact: "<sip:+15550123@198.51.100.10:5060>",
            headers: &[
                ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO"),
                ("P-Asserted-Identity", "<sip:+15550123@carrier.example.net>"),
                ("User-Agent", "Example-SBC/7.2.1"),
            ],
            body: Some(("application/sdp", SDP)),
            call_id: None,
        };
        assert!(self.caller.invite(self.now, invite).is_ok());
        self.settle().expect("the call is answered")
    }

    /// Carries messages to and fro until nothing moves; the dialog the caller got.
    fn settle(&mut self) -> Option<DialogId> {
        let mut dialog = None;
        loop {
            let before = self.messages;
            let back = Flow { local: self.flow.remote, remote: self.flow.local, ..self.flow };
            while let Some(transmit) = self.caller.poll_transmit() {
                self.messages += 1;
                self.callee.handle_message(self.now, back, transmit.bytes, Trust::Known);
                self.serve();
            }
            while let Some(transmit) = self.callee.poll_transmit() {
                self.messages += 1;
                self.caller.handle_message(self.now, self.flow, transmit.bytes, Trust::Known);
                dialog = self.follow().or(dialog);
            }
            if self.messages == before {
                return dialog;
            }
        }
    }

    /// The callee's application.
    fn serve(&mut self) {
        while let Some(event) = self.callee.poll_event() {
            match event {
                Event::Invite { tx, .. } => {
                    let contact = Some("<sip:203.0.113.5:5060>");
                    let ringing = Reply { contact, ..Reply::new(180) };
                    assert!(self.callee.respond(self.now, tx, ringing).is_ok());
                    let body = Some(("application/sdp", SDP));
                    let accepted = Reply { contact, body, ..Reply::new(200) };
                    assert!(self.callee.respond(self.now, tx, accepted).is_ok());
                }
                Event::InDialog { tx, .. } => {
                    assert!(self.callee.respond(self.now, tx, Reply::new(200)).is_ok());
                }
                _ => {}
            }
        }
    }

    /// The caller's application.
    fn follow(&mut self) -> Option<DialogId> {
        let mut accepted = None;
        while let Some(event) = self.caller.poll_event() {
            if let Event::Response { response, dialog: Some(dialog), .. } = event
                && response.cseq().1 == Method::Invite
                && response.is_success()
            {
                assert!(self.caller.ack(self.now, dialog, None).is_ok());
                accepted = Some(dialog);
            }
        }
        accepted
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.caller.handle_timeout(self.now);
        self.callee.handle_timeout(self.now);
    }
}

const ROUNDS: usize = 15;
const CALLS: u32 = 1_000;

/// Nanoseconds per call: the median of the rounds and the fastest.
#[expect(clippy::disallowed_methods, reason = "a bench is there to read the clock")]
fn time(world: &mut World) -> (f64, f64) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                world.call();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let at = |row: usize| rounds.get(row).copied().unwrap_or_default();
    (at(ROUNDS / 2), at(0))
}

fn table() {
    println!("one call, both sides: INVITE 100 180 200 ACK BYE 200");
    println!(
        "{:<20} {:>10} {:>10} {:>8} {:>10}",
        "case", "median ns", "best ns", "allocs", "bytes"
    );
    for &(name, transport, calls_up) in CASES {
        let mut world = World::new(transport, calls_up);
        for _ in 0..1_000 {
            world.call();
        }
        let before = (ALLOCATIONS.load(Ordering::Relaxed), ALLOCATED.load(Ordering::Relaxed));
        for _ in 0..CALLS {
            world.call();
        }
        let calls = u64::from(CALLS);
        let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before.0) / calls;
        let allocated = (ALLOCATED.load(Ordering::Relaxed) - before.1) / calls;
        let (median, best) = time(&mut world);
        println!("{name:<20} {median:>10.0} {best:>10.0} {allocations:>8} {allocated:>10}");
    }
    println!("instructions: valgrind --tool=callgrind <this program> run <case> <count>");
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["run", name, count] => {
            let case = CASES.iter().find(|case| case.0 == name).expect("a case of the table");
            let mut world = World::new(case.1, case.2);
            for _ in 0..count.parse::<u64>().expect("a count") {
                world.call();
            }
        }
        _ => table(),
    }
}
