//! Many calls of every kind, short and long: afterwards ports, timers, transactions, dialogs and
//! descriptors are as many as before, and memory has not grown.
//!
//! By default a thousand short calls and fifty long ones; ten thousand and two hundred with
//! `TRUNKLINE_SOAK=1`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::callee::{Callee, OWN, SDP, kind, response};
use crate::common::{
    ECHO, Gateway, PATIENCE, PEER, Phone, eventually, header, now, offer, parameter, soak, status,
};

/// The number of the SIP agent.
const DESK: &str = "+15550100904";
/// RFC 3261 T1: after this a message that was not answered is sent again.
const T1: Duration = Duration::from_millis(500);

/// Callers at the same time.
const SIDE_BY_SIDE: usize = 8;

/// A callee that lives by itself: it takes every call, answers every request, and repeats what is
/// not answered, as RFC 3261 has it. It can be deaf or dumb to the first copies of a message.
pub(crate) struct Robot {
    pub(crate) address: String,
    /// Calls taken and acknowledged.
    taken: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

/// What a robot does.
#[derive(Clone, Default)]
pub(crate) struct Habits {
    /// Copies of a message that are lost, by its kind: `("200 INVITE", 2)`.
    pub(crate) loses: Option<(&'static str, u32)>,
    /// Hangs up as soon as the call is acknowledged.
    pub(crate) hangs_up: bool,
}

/// A message that is repeated until something comes for it.
struct Repeated {
    text: String,
    at: Instant,
    pause: Duration,
}

/// A robot at work.
struct Shift {
    phone: Phone,
    habits: Habits,
    lost: HashMap<String, u32>,
    repeated: HashMap<String, Repeated>,
    answers: HashMap<String, String>,
    seen: Vec<String>,
    taken: Arc<AtomicU32>,
}

impl Robot {
    pub(crate) fn start(ip: Ipv4Addr, gateway: SocketAddr, habits: Habits) -> Robot {
        let phone = Phone::new(ip, gateway);
        let address = phone.address.to_string();
        let (stop, taken) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&taken));
        let thread = std::thread::spawn(move || {
            let mut shift = Shift {
                phone,
                habits,
                lost: HashMap::new(),
                repeated: HashMap::new(),
                answers: HashMap::new(),
                seen: Vec::new(),
                taken: count,
            };
            while !stopped.load(Ordering::Relaxed) {
                shift.turn();
            }
            shift.seen
        });
        Robot { address, taken, stop, thread: Some(thread) }
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Ends it: the kinds of all that came, in order.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Robot {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Shift {
    /// Whether this copy is one of those that get lost.
    fn loses(&mut self, text: &str) -> bool {
        let Some((lost, times)) = self.habits.loses else { return false };
        if kind(text) != lost {
            return false;
        }
        let count = self.lost.entry(lost.to_owned()).or_default();
        *count += 1;
        *count <= times
    }

    fn say(&mut self, text: &str) {
        if !self.loses(text) {
            self.phone.send(text.as_bytes());
        }
    }

    fn repeat(&mut self, key: String, text: String) {
        self.say(&text);
        self.repeated.insert(key, Repeated { text, at: now() + T1, pause: T1 });
    }

    fn turn(&mut self) {
        let text = self.phone.receive(Duration::from_millis(20));
        let due = now();
        let mut again = Vec::new();
        for one in self.repeated.values_mut().filter(|one| one.at <= due) {
            one.pause *= 2;
            one.at = due + one.pause.min(T1 * 8);
            again.push(one.text.clone());
        }
        for text in again {
            self.say(&text);
        }
        if let Some(text) = text
            && !self.loses(&text)
        {
            self.seen.push(kind(&text));
            self.handle(&text);
        }
    }

    fn handle(&mut self, text: &str) {
        let call = header(text, "Call-ID").to_owned();
        let branch = parameter(text, "branch=").to_owned();
        if let Some(answer) = self.answers.get(&branch).cloned() {
            // A repeated request gets its answer again.
            return self.say(&answer);
        }
        let place = self.phone.address;
        match &*kind(text) {
            "INVITE" => {
                let SocketAddr::V4(v4) = place else { panic!("IPv4 here") };
                self.say(&response(place, text, "100 Trying", "robot", ("", "")));
                self.say(&response(place, text, "180 Ringing", "robot", ("", "")));
                let sdp = offer(*v4.ip(), 9, "RTP/AVP 0", "");
                let ok = response(place, text, "200 OK", "robot", (SDP, &sdp));
                self.answers.insert(branch, ok.clone());
                self.repeat(format!("200 {call}"), ok);
            }
            "ACK" => {
                if let Some(ok) = self.repeated.remove(&format!("200 {call}")) {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    if self.habits.hangs_up {
                        let bye = self.bye(&ok.text);
                        self.repeat(format!("BYE {call}"), bye);
                    }
                }
            }
            "200 BYE" => drop(self.repeated.remove(&format!("BYE {call}"))),
            "BYE" | "CANCEL" => {
                let ok = response(place, text, "200 OK", "robot", ("", ""));
                self.answers.insert(branch, ok.clone());
                self.say(&ok);
            }
            _ => {}
        }
    }

    /// Our BYE in the dialog of our 200.
    fn bye(&self, ok: &str) -> String {
        format!(
            "BYE sip:{gateway} SIP/2.0\r\nVia: SIP/2.0/UDP {place};rport;branch=z9hG4bK{id}\r\n\
             Max-Forwards: 70\r\nFrom: {to}\r\nTo: {from}\r\nCall-ID: {call}\r\nCSeq: 1 BYE\r\n\
             Content-Length: 0\r\n\r\n",
            gateway = self.phone.gateway,
            place = self.phone.address,
            id = crate::common::fresh(),
            to = header(ok, "To"),
            from = header(ok, "From"),
            call = header(ok, "Call-ID"),
        )
    }
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    kib: u64,
    tables: Vec<(&'static str, f64)>,
}

impl Held {
    fn by(gateway: &Gateway) -> Held {
        gateway.wait_until_quiet();
        let names = ["dialogs", "server_transactions", "client_transactions", "connections"];
        let depth = |name| gateway.metric("gateway_queue_depth", &format!("\"{name}\""));
        let tables = names.map(|name| (name, depth(name))).to_vec();
        Held { descriptors: descriptors(gateway), kib: gateway.resident_kib(), tables }
    }

    /// Once everything that ends by itself has ended: the last timers of transactions take 32 s.
    fn at_rest(gateway: &Gateway) -> Held {
        eventually("transactions and dialogs end", T1 * 80, || {
            Held::by(gateway).tables.iter().all(|(_, count)| *count == 0.0)
        });
        Held::by(gateway)
    }
}

/// Open descriptors of the process: the one whose folder is the gateway's.
fn descriptors(gateway: &Gateway) -> usize {
    let folder = gateway.folder().canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let own = |path: &std::path::PathBuf| {
        std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == folder)
    };
    let path = processes.into_iter().find(own).unwrap();
    std::fs::read_dir(path.join("fd")).unwrap().count()
}

struct House {
    gateway: Gateway,
    carrier: Robot,
    desk: Robot,
    agent: String,
}

impl House {
    fn new() -> House {
        let gateway = Gateway::empty(&[
            ("media.ports", "\"20000-21999\""),
            ("sip.max_calls", "500"),
            ("calls.outbound_concurrency", "500"),
            ("calls.outbound_concurrency_total", "500"),
            ("media.quarantine_seconds", "0"),
        ]);
        let carrier = Robot::start(PEER, gateway.udp, Habits::default());
        let desk = Robot::start(PEER, gateway.udp, Habits::default());
        let agent = gateway.caller(OWN, &carrier.address, &json!({}));
        gateway.desk(DESK, &desk.address, &json!({}));
        let trunk = gateway.pbx("echo", "ALLOW");
        gateway.number(ECHO, &trunk);
        gateway.agent(support::gateway::echo(), &[ECHO]);
        House { gateway, carrier, desk, agent }
    }

    /// Short calls, a third of each kind: in to an echo, in to a SIP agent, out to a carrier.
    fn short(&self, count: u32) {
        let left = AtomicU32::new(count / 3);
        let one_more = || {
            let less = |left: u32| left.checked_sub(1);
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
        };
        let caller = || {
            let phone = Phone::new(PEER, self.gateway.udp);
            while one_more() {
                self.one_of_each(&phone);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE {
                scope.spawn(caller);
            }
        });
    }

    fn one_of_each(&self, phone: &Phone) {
        let id = self.gateway.place(OWN, &self.agent);
        for number in [ECHO, DESK] {
            let call = phone.dial(number, &offer(PEER, 9, "RTP/AVP 0", ""));
            call.unwrap_or_else(|status| panic!("{number}: {status}")).hang_up();
        }
        // Answered by now, most of the time; a call that rings is withdrawn.
        self.gateway.hang_up(&id);
    }

    /// Calls of all kinds that are up at the same time; both legs of each are hung up in the end.
    fn long(&self, count: usize) {
        let phones: Vec<_> = (0..count).map(|_| Phone::new(PEER, self.gateway.udp)).collect();
        let sdp = offer(PEER, 9, "RTP/AVP 0", "");
        let mut ids = Vec::new();
        let mut calls = Vec::new();
        for (n, phone) in phones.iter().enumerate() {
            match n % 3 {
                0 => ids.push(self.gateway.place(OWN, &self.agent)),
                1 => calls.push(phone.dial(ECHO, &sdp).unwrap()),
                _ => calls.push(phone.dial(DESK, &sdp).unwrap()),
            }
        }
        let live = || self.gateway.metric("gateway_calls_live", "");
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let all = count as f64;
        eventually("all are up", PATIENCE, || live() >= all);
        for call in &mut calls {
            assert!(call.is_up());
        }
        for id in &ids {
            self.gateway.await_status(id, "in_progress");
            self.gateway.hang_up(id);
        }
        for call in calls {
            call.hang_up();
        }
    }
}

#[test]
fn thousands_of_calls_leave_nothing_behind() {
    let (short, long) = if soak() { (10_000, 200) } else { (1_000, 50) };
    let house = House::new();
    let begun = now();
    let half = || {
        house.short(short / 2);
        house.long(long / 2);
        let held = Held::by(&house.gateway);
        println!("{:?}: {held:?}", now() - begun);
        held
    };
    let first = half();
    let rest = Held::at_rest(&house.gateway);
    println!("{:?}, at rest: {rest:?}", now() - begun);
    // The same once more takes no more than it took: what is needed at a time, and no more.
    let second = half();
    println!("{short} short calls, {long} long ones");
    // Ports that nobody uses are closed after a while.
    eventually("descriptors are as many as before", PATIENCE * 3, || {
        descriptors(&house.gateway) <= rest.descriptors
    });
    assert!(
        second.kib * 100 <= first.kib * 105,
        "memory has grown: {} to {} KiB",
        first.kib,
        second.kib
    );
    let House { mut gateway, carrier, desk, .. } = house;
    carrier.stop();
    desk.stop();
    gateway.assert_quiet();
}

/// One call out or bridged while one kind of message is lost, and how it ends.
fn survives(gateway: &Gateway, agent: &str, (number, robot): (&str, Robot), habits: &Habits) {
    let id = gateway.place(number, agent);
    if habits.hangs_up {
        let record = gateway.ended(&id);
        assert_eq!(record["end_reason"]["code"], "callee_hung_up", "{habits:?}: {record:#}");
        assert_eq!(record["status"], "completed");
    } else {
        gateway.await_status(&id, "in_progress");
        eventually("the ACK comes in the end", PATIENCE, || robot.taken() == 1);
        gateway.hang_up(&id);
        let record = gateway.ended(&id);
        assert_eq!(record["end_reason"]["code"], "operator_hung_up", "{habits:?}: {record:#}");
        eventually("the BYE is answered", PATIENCE, || {
            gateway.conversation(&id)["status"] == "completed"
        });
    }
    // A BYE whose answer is lost comes again after T1; then it is quiet.
    std::thread::park_timeout(T1 * 4);
    let seen = robot.stop();
    let count = |wanted: &str| seen.iter().filter(|kind| *kind == wanted).count();
    let (lost, times) = habits.loses.unwrap_or(("", 0));
    let copies = |message: &str| if lost == message { times as usize } else { 0 };
    // Every copy that was lost was sent once more, and hardly more than that.
    let invites = 1;
    assert!(count("INVITE") >= invites && count("INVITE") <= invites + 1, "{habits:?}: {seen:?}");
    assert!(count("ACK") >= 1 && count("ACK") <= 2 + copies("ACK"), "{habits:?}: {seen:?}");
    let byes = if habits.hangs_up { 0 } else { 1 + copies("200 BYE") };
    assert_eq!(count("BYE"), byes, "{habits:?}: {seen:?}");
    assert_eq!(count("CANCEL"), 0, "{habits:?}: {seen:?}");
}

impl std::fmt::Debug for Habits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} lost, hangs up: {}", self.loses, self.hangs_up)
    }
}

/// Every message of a call out, and of its end from either side.
const MESSAGES: [(&str, bool); 9] = [
    ("INVITE", false),
    ("100 INVITE", false),
    ("180 INVITE", false),
    ("200 INVITE", false),
    ("ACK", false),
    ("BYE", false),
    ("200 BYE", false),
    ("BYE", true),
    ("200 BYE", true),
];

/// All cells of the table of losses.
fn losses() -> Vec<Habits> {
    let cell = |(message, hangs_up), times| Habits { loses: Some((message, times)), hangs_up };
    MESSAGES.iter().flat_map(|message| [1, 2].map(|times| cell(*message, times))).collect()
}

#[test]
fn a_call_out_survives_the_loss_of_any_message_once_and_twice() {
    let gateway = Gateway::empty(&[
        ("calls.outbound_concurrency", "100"),
        ("calls.outbound_concurrency_total", "100"),
    ]);
    let cells = losses();
    std::thread::scope(|scope| {
        for (n, habits) in cells.iter().enumerate() {
            let robot = Robot::start(PEER, gateway.udp, habits.clone());
            let number = format!("+1555010{n:04}");
            let agent = gateway.caller(&number, &robot.address, &json!({}));
            let gateway = &gateway;
            scope.spawn(move || survives(gateway, &agent, (&number, robot), habits));
        }
    });
    println!("{} cells of calls out", cells.len());
    let mut gateway = gateway;
    gateway.assert_quiet();
}

#[test]
fn a_bridged_call_survives_the_loss_of_any_message_of_its_agent_once_and_twice() {
    let gateway = Gateway::empty(&[]);
    let cells = losses();
    std::thread::scope(|scope| {
        for (n, habits) in cells.iter().enumerate() {
            let robot = Robot::start(PEER, gateway.udp, habits.clone());
            let number = format!("+1555020{n:04}");
            gateway.desk(&number, &robot.address, &json!({}));
            let gateway = &gateway;
            scope.spawn(move || {
                let caller = Callee::new(PEER, gateway.udp);
                let call = caller.phone.dial(&number, &caller.sdp());
                let mut call = call.unwrap_or_else(|status| panic!("{habits:?}: {status}"));
                if habits.hangs_up {
                    caller.take_bye();
                } else {
                    eventually("the ACK comes in the end", PATIENCE, || robot.taken() == 1);
                    assert_eq!(status(&call.ask("BYE", "", "")), 200, "{habits:?}");
                }
                std::thread::park_timeout(T1 * 4);
                let seen = robot.stop();
                let byes = seen.iter().filter(|kind| *kind == "BYE").count();
                assert!(habits.hangs_up == (byes == 0), "{habits:?}: {seen:?}");
            });
        }
    });
    let records = gateway.ended_conversations(cells.len());
    let hung_up =
        |code: &str| records.iter().filter(|one| one["end_reason"]["code"] == code).count();
    assert_eq!((hung_up("caller_hung_up"), hung_up("agent_hung_up")), (14, 4));
    println!("{} cells of bridged calls", cells.len());
    let mut gateway = gateway;
    gateway.assert_quiet();
}
