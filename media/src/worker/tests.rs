//! Workers with real threads and real sockets on the loopback interface.
//!
//! Nothing here waits for longer than it has to: whoever waits does so on a socket or a channel, up to
//! a generous deadline.

mod bridged;
mod connected;

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::*;
use crate::board::Board;
use crate::codec::Codec;
use crate::command::LegOptions;
use crate::frame::{FRAME_SAMPLES, Frame};
use crate::packet::rtp::{self, Header};
use crate::port::{Down, Up, agent_port};
use crate::ports::{PoolOptions, PortPool, first_test_port};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(20);

/// A pool of `pairs` pairs, at its own `offset` among the ports of these tests.
fn pool(offset: u16, pairs: u16) -> PortPool {
    let first = first_test_port() + 100 + offset;
    let quarantine = PoolOptions::QUARANTINE;
    let ports = first..=first + 2 * pairs - 1;
    PortPool::new(PoolOptions { bind: LOOPBACK, ports, quarantine, seed: 3, connected: 1_000 })
}

fn start(threads: usize) -> (Workers, Receiver<Event>) {
    let (told, events) = sync_channel(1_000);
    let options = WorkerOptions { threads, realtime: false, ..WorkerOptions::default() };
    let tell = Box::new(move |event| {
        let _ = told.try_send(event);
    });
    (Workers::start(&options, tell).unwrap(), events)
}

/// A telephone: a socket that sends and receives plain RTP.
struct Phone {
    socket: UdpSocket,
    gateway: SocketAddr,
    sequence: u16,
    options: LegOptions,
}

impl Phone {
    fn new() -> Self {
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let options = LegOptions::new(LOOPBACK, [9; 32]);
        Self { socket, gateway: SocketAddr::new(LOOPBACK, 9), sequence: 0, options }
    }

    fn plan(&self) -> Plan {
        let remote = self.socket.local_addr().unwrap();
        Plan {
            codec: Codec::Pcmu,
            payload_type: 0,
            dtmf_payload: None,
            dtmf_receive_payload: None,
            ptime_ms: 20,
            send: true,
            receive: true,
            remote,
            remote_rtcp: SocketAddr::new(LOOPBACK, remote.port() + 1),
            rtcp_mux: false,
            srtp: None,
        }
    }

    fn open(&mut self, workers: &Workers, key: u64, pool: &PortPool, far: Far) -> WorkerId {
        let ports = pool.allocate(clock::now()).unwrap();
        self.gateway = SocketAddr::new(LOOPBACK, ports.port());
        let open = Open { ports, plan: self.plan(), far, options: self.options.clone() };
        workers.open(SessionKey(key), open).unwrap()
    }

    fn say(&mut self, code: u8) {
        let mut packet = [code; rtp::HEADER_BYTES + FRAME_SAMPLES];
        let timestamp = u32::from(self.sequence) * 160;
        let header =
            Header { payload_type: 0, marker: false, sequence: self.sequence, timestamp, ssrc: 5 };
        self.sequence += 1;
        rtp::write_header(&mut packet, header).unwrap();
        self.socket.send_to(&packet, self.gateway).unwrap();
    }

    fn hear_header(&self) -> Header {
        self.try_hear_header().expect("RTP keeps coming")
    }

    /// The header of the next packet, unless none comes in time.
    fn try_hear_header(&self) -> Option<Header> {
        let mut packet = [0; 1_500];
        let (len, _) = self.socket.recv_from(&mut packet).ok()?;
        Some(rtp::view(&packet[..len]).unwrap().header)
    }

    /// The first payload byte of the next packet.
    fn hear(&self) -> u8 {
        let mut packet = [0; 1_500];
        let (len, from) = self.socket.recv_from(&mut packet).expect("RTP keeps coming");
        assert_eq!(from, self.gateway);
        let view = rtp::view(&packet[..len]).unwrap();
        view.payload(&packet[..len])[0]
    }
}

fn close(workers: &Workers, key: u64) -> LegReport {
    let (reply, report) = sync_channel(1);
    workers.close(SessionKey(key), move |last| drop(reply.send(last))).unwrap();
    report.recv_timeout(PATIENCE).expect("every closed session reports")
}

#[test]
fn a_caller_hears_an_echo_over_real_sockets() {
    let (workers, events) = start(1);
    let (pool, mut phone) = (pool(0, 1), Phone::new());
    phone.open(&workers, 1, &pool, Far::Echo);
    workers.gate(SessionKey(1), true).unwrap();
    // The gateway's own packets are the clock.
    let mut echoes = 0;
    for _ in 0..200 {
        phone.say(0x90);
        echoes += u32::from(phone.hear() == 0x90);
        if echoes == 10 {
            break;
        }
    }
    assert_eq!(echoes, 10);
    let first = events.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(first, Event::Latched { key: SessionKey(1), .. }), "{first:?}");
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), Event::FirstPacket { key: SessionKey(1) });
    let report = close(&workers, 1);
    assert!(report.quality.packets_received >= 10 && report.quality.packets_sent >= 10);
    let counts = pool.counts();
    assert_eq!((counts.in_use, counts.free + counts.quarantined), (0, 1));
    let metrics = workers.metrics();
    assert_eq!((metrics.len(), metrics[0].sessions, metrics[0].faults), (1, 0, 0));
    assert!(metrics[0].received >= 10 && metrics[0].sent >= 10 && metrics[0].ticks >= 10);
    assert!(metrics[0].residence.count() > 0);
}

#[test]
fn an_agent_is_woken_by_the_tick_and_speaks_and_hears() {
    let (workers, _events) = start(1);
    let (pool, mut phone) = (pool(2, 1), Phone::new());
    let (worker_port, mut agent) = agent_port(100);
    let worker = phone.open(&workers, 1, &pool, Far::Agent(worker_port));
    let mut frame = Frame::SILENCE;
    Codec::Pcmu.decode(&[0x95; FRAME_SAMPLES], &mut frame.samples);
    for _ in 0..5 {
        agent.push(Down::Frame(frame)).unwrap();
    }
    let bell = workers.tick_fd(worker).unwrap();
    workers.gate(SessionKey(1), true).unwrap();
    for _ in 0..5 {
        phone.say(0x85);
        assert_eq!(phone.hear(), 0x95, "the agent's first words come first");
    }
    let poller = sys::Poller::new().unwrap();
    poller.add(bell.as_fd(), 0).unwrap();
    let mut bell = File::from(bell);
    let mut heard = false;
    for _ in 0..200 {
        phone.say(0x85);
        poller.wait(&mut sys::Ready::new()).unwrap();
        bell.read_exact(&mut [0; 8]).unwrap();
        while let Some(up) = agent.pull() {
            heard |= matches!(up, Up::Frame(frame) if frame.level_dbfs() > -40.0);
        }
        if heard {
            break;
        }
    }
    assert!(heard);
    close(&workers, 1);
    assert_eq!(agent.played(), 5);
    assert!(agent.is_closed());
}

#[test]
fn a_prompt_bell_rings_for_a_packet_and_not_only_for_a_tick() {
    let options = WorkerOptions {
        threads: 1,
        realtime: false,
        prompt_bell: true,
        ..WorkerOptions::default()
    };
    let workers = Workers::start(&options, Box::new(drop)).unwrap();
    let (pool, mut phone) = (pool(56, 1), Phone::new());
    let (worker_port, mut agent) = agent_port(100);
    let worker = phone.open(&workers, 1, &pool, Far::Agent(worker_port));
    workers.gate(SessionKey(1), true).unwrap();
    phone.hear();
    let mut bell = File::from(workers.tick_fd(worker).unwrap());
    let board = Arc::new(Board::new(1));
    agent.news().mark_at(&board, 0);
    let poller = sys::Poller::new().unwrap();
    poller.add(bell.as_fd(), 0).unwrap();
    // Each packet is said when the one before it was heard: a bell a tick would take a tick for each.
    let mut ticks_for_eight = || {
        let before = workers.metrics()[0].ticks;
        for said in 0..8 {
            phone.say(0x80 | said);
            let mut heard = false;
            while !heard {
                poller.wait(&mut sys::Ready::new()).unwrap();
                bell.read_exact(&mut [0; 8]).unwrap();
                let (mut is_for_us, is_loud) =
                    (false, |up: Up| matches!(up, Up::Frame(frame) if frame.level_dbfs() > -40.0));
                board.take(|_| is_for_us = true);
                heard |= is_for_us && std::iter::from_fn(|| agent.pull()).any(is_loud);
            }
        }
        let ticks = workers.metrics()[0].ticks - before;
        // So much was said ahead of time; the next try begins even.
        (0..10).for_each(|_| assert_eq!(phone.hear(), 0xff));
        ticks
    };
    // On a busy machine a try may take its time.
    assert!((0..10).any(|_| ticks_for_eight() < 8));
}

#[test]
fn an_agents_first_word_after_a_silence_leaves_before_the_next_tick() {
    let (workers, _events) = start(1);
    let (pool, mut phone) = (pool(58, 1), Phone::new());
    let (worker_port, mut agent) = agent_port(100);
    phone.open(&workers, 1, &pool, Far::Agent(worker_port));
    workers.gate(SessionKey(1), true).unwrap();
    let mut frame = Frame::SILENCE;
    Codec::Pcmu.decode(&[0x95; FRAME_SAMPLES], &mut frame.samples);
    let mut leaves_at_once = || {
        (0..10).for_each(|_| assert_eq!(phone.hear(), 0xff));
        let before = workers.metrics()[0].ticks;
        agent.push(Down::Frame(frame)).unwrap();
        while phone.hear() == 0xff {}
        workers.metrics()[0].ticks == before
    };
    // On a busy machine a tick may come in between.
    assert!((0..10).any(|_| leaves_at_once()));
}

#[test]
fn a_session_that_panics_takes_nobody_with_it() {
    let options = WorkerOptions { threads: 1, realtime: false, ..WorkerOptions::default() };
    let (told, faults) = sync_channel(10);
    let tell = Box::new(move |event| match event {
        Event::FirstPacket { key: SessionKey(1) } => panic!("this panic belongs to the test"),
        Event::Fault { .. } => drop(told.try_send(event)),
        _ => {}
    });
    let workers = Workers::start(&options, tell).unwrap();
    let pool = pool(6, 2);
    let (mut unlucky, mut other) = (Phone::new(), Phone::new());
    unlucky.open(&workers, 1, &pool, Far::Echo);
    other.open(&workers, 2, &pool, Far::Echo);
    workers.gate(SessionKey(2), true).unwrap();
    unlucky.say(0x90);
    assert_eq!(faults.recv_timeout(PATIENCE).unwrap(), Event::Fault { key: SessionKey(1) });
    other.say(0x90);
    other.hear();
    assert_eq!(workers.metrics()[0].faults, 1);
    close(&workers, 1);
    close(&workers, 2);
    assert_eq!(pool.counts().in_use, 0);
}

/// A worker that stalls once, when a session hears its peer for the first time, until released.
struct Stalling {
    stalled: Receiver<()>,
    /// Dropped before the workers, which would be waited for otherwise.
    release: SyncSender<()>,
    workers: Workers,
}

impl Stalling {
    fn start() -> Self {
        Self::at(|event| matches!(event, Event::FirstPacket { .. }))
    }

    /// Stalls at another event.
    fn at(is_it: fn(&Event) -> bool) -> Self {
        let (release, wait) = sync_channel::<()>(0);
        let (told, stalled) = sync_channel(1);
        let (wait, has_stalled) = (Mutex::new(wait), AtomicBool::new(false));
        let tell = Box::new(move |event| {
            if is_it(&event) && !has_stalled.swap(true, Ordering::Relaxed) {
                let _ = told.send(());
                let _ = wait.lock().unwrap().recv();
            }
        });
        let options = WorkerOptions { threads: 1, realtime: false, ..WorkerOptions::default() };
        Self { workers: Workers::start(&options, tell).unwrap(), stalled, release }
    }

    /// Stalls for as long as `phone`, which says `packets` meanwhile, hears nothing for `length`.
    /// Returns the last header heard before and the ones after.
    fn stall(&self, phone: &mut Phone, packets: usize, length: Duration) -> (Header, Vec<Header>) {
        let mut last = phone.hear_header();
        phone.say(0x90);
        self.stalled.recv_timeout(PATIENCE).unwrap();
        (0..packets).for_each(|_| phone.say(0x90));
        phone.socket.set_read_timeout(Some(length)).unwrap();
        while let Some(header) = phone.try_hear_header() {
            last = header;
        }
        self.release.send(()).unwrap();
        phone.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (last, (0..5).map(|_| phone.hear_header()).collect())
    }
}

#[test]
fn a_stalled_worker_goes_on_with_a_gap_and_without_a_long_burst() {
    let stalling = Stalling::start();
    let (pool, mut phone) = (pool(44, 1), Phone::new());
    phone.open(&stalling.workers, 1, &pool, Far::Echo);
    stalling.workers.gate(SessionKey(1), true).unwrap();
    // A quarter of a second: what was said has become stale by then.
    let (last, after) = stalling.stall(&mut phone, 10, Duration::from_millis(250));
    assert_eq!(after[0].sequence, last.sequence.wrapping_add(1));
    assert!(after[0].timestamp.wrapping_sub(last.timestamp) >= 9 * 160, "{last:?} {after:?}");
    assert!(after[0].marker);
    let report = close(&stalling.workers, 1);
    assert!(report.drops.stale >= 9, "{:?}", report.drops);
    let metrics = stalling.workers.metrics()[0];
    assert!(metrics.missed_ticks >= 8 && metrics.made_up_ticks >= 2, "{metrics:?}");
}

#[test]
fn a_worker_stalled_within_a_tick_knows_what_has_waited_for_too_long() {
    let stalling = Stalling::at(|event| matches!(event, Event::MediaTimeout { .. }));
    let (pool, mut phone) = (pool(60, 1), Phone::new());
    phone.options.media_timeout_ms = 60;
    phone.open(&stalling.workers, 1, &pool, Far::Echo);
    stalling.workers.gate(SessionKey(1), true).unwrap();
    stalling.stalled.recv_timeout(PATIENCE).unwrap();
    (0..10).for_each(|_| phone.say(0x90));
    phone.socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    while phone.try_hear_header().is_some() {}
    stalling.release.send(()).unwrap();
    phone.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..5 {
        phone.hear_header();
    }
    let report = close(&stalling.workers, 1);
    assert!(report.drops.stale >= 9, "{:?}", report.drops);
}

#[test]
fn a_worker_stalled_for_less_than_60_ms_owes_nobody_a_packet() {
    let pool = pool(46, 1);
    // On a busy machine a stall may turn out longer than asked for, on an idle one a bit short.
    for _ in 0..50 {
        let stalling = Stalling::start();
        let mut phone = Phone::new();
        phone.open(&stalling.workers, 1, &pool, Far::Echo);
        stalling.workers.gate(SessionKey(1), true).unwrap();
        let (last, after) = stalling.stall(&mut phone, 2, Duration::from_millis(40));
        close(&stalling.workers, 1);
        let metrics = stalling.workers.metrics()[0];
        if metrics.missed_ticks > 0 || metrics.made_up_ticks == 0 {
            continue;
        }
        for (n, header) in (1..).zip(&after) {
            assert_eq!(header.sequence, last.sequence.wrapping_add(n));
            assert_eq!(header.timestamp, last.timestamp.wrapping_add(160 * u32::from(n)));
            assert!(!header.marker);
        }
        return;
    }
    panic!("no stall lasted for more than a tick and less than 60 ms");
}

#[test]
fn a_flooded_leg_recovers_and_harms_no_other() {
    let (workers, _events) = start(1);
    let pool = pool(48, 2);
    let (mut flooded, mut other) = (Phone::new(), Phone::new());
    for (key, phone) in [(1, &mut flooded), (2, &mut other)] {
        phone.open(&workers, key, &pool, Far::Echo);
        workers.gate(SessionKey(key), true).unwrap();
        phone.say(0x90);
        phone.hear();
    }
    let stranger = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    for _ in 0..25 {
        for _ in 0..200 {
            stranger.send_to(&[0x80; 172], flooded.gateway).unwrap();
        }
        other.say(0x90);
        other.hear();
    }
    // What came during the flood lies before the first echo.
    let echoes = (0..500).filter(|_| {
        flooded.say(0x91);
        flooded.hear() == 0x91
    });
    assert!(echoes.take(5).count() == 5);
    let report = close(&workers, 1);
    assert!(report.drops.over_budget + report.drops.stranger > 100, "{:?}", report.drops);
    assert_eq!(close(&workers, 2).strangers, 0);
}

#[test]
fn a_report_can_be_had_while_the_session_goes_on() {
    let (workers, _events) = start(1);
    let (pool, mut phone) = (pool(52, 1), Phone::new());
    phone.open(&workers, 1, &pool, Far::Echo);
    workers.gate(SessionKey(1), true).unwrap();
    phone.hear();
    let (reply, reports) = sync_channel(1);
    workers
        .report(SessionKey(1), move |report| {
            let _ = reply.send(report);
        })
        .unwrap();
    assert!(reports.recv_timeout(PATIENCE).unwrap().quality.packets_sent >= 1);
    phone.hear();
    close(&workers, 1);
}

#[test]
fn sessions_are_spread_and_the_limit_is_exact() {
    let options =
        WorkerOptions { threads: 2, realtime: false, max_sessions: 2, ..WorkerOptions::default() };
    let workers = Workers::start(&options, Box::new(drop)).unwrap();
    let pool = pool(12, 5);
    let mut placed = [0; 2];
    for key in 0..4 {
        placed[Phone::new().open(&workers, key, &pool, Far::Echo).0] += 1;
    }
    assert_eq!(placed, [2, 2]);
    let (ports, options) =
        (pool.allocate(clock::now()).unwrap(), LegOptions::new(LOOPBACK, [0; 32]));
    let open = Open { ports, plan: Phone::new().plan(), far: Far::Echo, options };
    assert_eq!(workers.open(SessionKey(4), open), Err(CommandError::Full));
    assert_eq!(pool.counts().in_use, 4);
    close(&workers, 0);
    Phone::new().open(&workers, 5, &pool, Far::Echo);
    drop(workers);
    assert_eq!(pool.counts().in_use, 0, "stopping returns every port");
}

#[test]
fn commands_for_unknown_sessions_say_so() {
    let (workers, _events) = start(1);
    let key = SessionKey(99);
    assert_eq!(workers.gate(key, true), Err(CommandError::Unknown));
    assert_eq!(workers.apply(key, Phone::new().plan()), Err(CommandError::Unknown));
    assert_eq!(workers.close(key, drop), Err(CommandError::Unknown));
    assert!(workers.tick_fd(WorkerId(1)).is_err());
}

#[test]
fn a_close_that_finds_the_mailbox_full_is_still_done() {
    let options =
        WorkerOptions { threads: 1, realtime: false, mailbox: 1, ..WorkerOptions::default() };
    let workers = Workers::start(&options, Box::new(drop)).unwrap();
    let pool = pool(24, 8);
    let (reply, reports) = sync_channel(16);
    let mut opened = 0;
    for key in 0..8 {
        let (ports, options) =
            (pool.allocate(clock::now()).unwrap(), LegOptions::new(LOOPBACK, [0; 32]));
        let open = Open { ports, plan: Phone::new().plan(), far: Far::Echo, options };
        opened += u32::from(workers.open(SessionKey(key), open).is_ok());
    }
    for key in 0..8 {
        let reply = reply.clone();
        let _ = workers.close(SessionKey(key), move |_| {
            let _ = reply.send(());
        });
    }
    for _ in 0..opened {
        reports.recv_timeout(PATIENCE).expect("every close is answered");
    }
    assert!(opened >= 1);
    assert_eq!(pool.counts().in_use, 0);
}

#[test]
fn gathered_commands_are_heard_when_the_workers_are_woken_or_when_they_are_many() {
    let options =
        WorkerOptions { threads: 1, realtime: false, gathered: true, ..WorkerOptions::default() };
    let workers = Workers::start(&options, Box::new(drop)).unwrap();
    let (pool, mut phone) = (pool(66, 1), Phone::new());
    phone.open(&workers, 1, &pool, Far::Echo);
    let (reply, reports) = sync_channel(2 * GATHERED);
    let ask = || {
        let reply = reply.clone();
        let done = move |_| {
            let _ = reply.send(());
        };
        workers.report(SessionKey(1), done).unwrap();
    };
    ask();
    let ticks = || workers.metrics()[0].ticks;
    let before = ticks();
    while ticks() < before + 2 {
        std::thread::yield_now();
    }
    assert_eq!(workers.metrics()[0].mailbox, 2, "it is awake, and nobody has told it");
    assert!(reports.try_recv().is_err());
    workers.wake();
    reports.recv_timeout(PATIENCE).expect("it was told");
    (0..GATHERED).for_each(|_| ask());
    for _ in 0..GATHERED {
        reports.recv_timeout(PATIENCE).expect("so many are a reason of their own");
    }
}

#[test]
fn the_class_is_what_the_system_permits() {
    let options = WorkerOptions { threads: 1, realtime: true, ..WorkerOptions::default() };
    let workers = Workers::start(&options, Box::new(drop)).unwrap();
    assert!(Class::Realtime <= workers.class() && workers.class() <= Class::Demoted);
    assert_eq!(workers.metrics()[0].class, workers.class());
    assert_eq!(start(1).0.class(), Class::Normal);
}

#[test]
fn one_worker_is_started_for_every_core_but_one() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(threads(0), (cores - 1).max(1));
    assert_eq!(threads(3), 3);
}
