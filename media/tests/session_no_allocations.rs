//! The whole way of a packet through a session allocates nothing: receive, unprotect, latch, buffer,
//! decode, clean, hand to the far side, take from it, encode, protect, send, and RTCP now and then.
//! Nor does the way from one leg to another.

mod counting;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use counting::{Counting, allocations};
use media::clock::WallAnchor;
use media::codec::Codec;
use media::command::{Event, Far, LegOptions, SessionKey};
use media::frame::{FRAME_SAMPLES, Frame};
use media::packet::rtp::{self, Header};
use media::port::{Down, agent_port};
use media::sdp::{Plan, SrtpKeys};
use media::session::{Channel, DATAGRAM_BYTES, Datagram, Outlet, Session};
use media::srtp::{MASTER_BYTES, MasterKey, SrtpPair, SrtpSession, Suite};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PEER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PEER: SocketAddr = SocketAddr::new(PEER_IP, 4_000);
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 4_000);

/// Counts what leaves and keeps nothing of it.
#[derive(Default)]
struct Sink {
    rtp: u32,
    rtcp: u32,
}

impl Outlet for Sink {
    fn send(&mut self, channel: Channel, _: SocketAddr, _: &[u8]) {
        match channel {
            Channel::Rtp => self.rtp += 1,
            Channel::Rtcp => self.rtcp += 1,
        }
    }

    fn event(&mut self, _: Event) {}
}

fn keys() -> [MasterKey; 2] {
    [MasterKey::new([1; MASTER_BYTES]), MasterKey::new([2; MASTER_BYTES])]
}

fn plan(secure: bool) -> Plan {
    let [local, remote] = keys();
    let suite = Suite::AesCm128HmacSha1_80;
    Plan {
        codec: Codec::Pcmu,
        payload_type: 0,
        dtmf_payload: Some(101),
        dtmf_receive_payload: Some(101),
        ptime_ms: 20,
        send: true,
        receive: true,
        remote: PEER,
        remote_rtcp: SocketAddr::new(PEER_IP, 4_001),
        rtcp_mux: false,
        srtp: secure.then_some(SrtpKeys { suite, local, remote, local_epoch: 1, remote_epoch: 1 }),
    }
}

/// As many ticks of a call; returns the allocations after the first second.
fn run(ticks: u16, secure: bool, noise_cancellation: bool) -> (u64, Sink) {
    let options = LegOptions { noise_cancellation, ..LegOptions::new(PEER_IP, [7; 32]) };
    let (worker, mut agent) = agent_port(100);
    let anchor = WallAnchor::now();
    let key = SessionKey(1);
    let mut session = Session::new(key, &plan(secure), Far::Agent(worker), &options, anchor);
    let [local, remote] = keys();
    let mut crypto = SrtpPair::new(Suite::AesCm128HmacSha1_80, &remote, &local);
    let mut sink = Sink::default();
    let mut now = anchor.at;
    let mut before = 0;
    session.gate(now, true);
    for tick in 0..ticks {
        if tick == 50 {
            before = allocations();
        }
        let mut buffer = [0x90; DATAGRAM_BYTES];
        let timestamp = u32::from(tick) * 160;
        // Every tenth packet is a digit, and each is followed by one of a stranger.
        let payload_type = if tick % 10 == 9 { 101 } else { 0 };
        let header = Header { payload_type, marker: false, sequence: tick, timestamp, ssrc: 9 };
        rtp::write_header(&mut buffer, header).expect("the buffer is long enough");
        let mut len = rtp::HEADER_BYTES + FRAME_SAMPLES;
        if secure {
            len = crypto.protect(&mut buffer, len).expect("the packet is well-formed");
        }
        for from in [PEER, STRANGER] {
            let mut copy = buffer;
            let waited = Duration::ZERO;
            let datagram = Datagram { channel: Channel::Rtp, from, waited, buffer: &mut copy, len };
            session.handle_datagram(now, datagram, &mut sink);
        }
        let item = match tick % 25 {
            24 => Down::Digit { digit: '7', duration_ms: 60 },
            _ => Down::Frame(Frame::SILENCE),
        };
        // A full port is part of the way as well.
        let _ = agent.push(item);
        now += Duration::from_millis(20);
        session.handle_tick(now, u64::from(tick % 100 == 99), &mut sink);
        while agent.pull().is_some() {}
    }
    (allocations() - before, sink)
}

/// As many ticks of a bridged call, a packet each way in each of them; returns the allocations after
/// the first second and what left on both legs.
fn run_bridged(ticks: u16, (a, b): (&Plan, &Plan), noise_cancellation: bool) -> (u64, Sink) {
    let options = LegOptions { noise_cancellation, ..LegOptions::new(PEER_IP, [7; 32]) };
    let anchor = WallAnchor::now();
    let [local, remote] = keys();
    let leg = |plan: &Plan| {
        let mut session = Session::new(SessionKey(1), plan, Far::Nobody, &options, anchor);
        session.gate(anchor.at, true);
        let crypto = SrtpPair::new(Suite::AesCm128HmacSha1_80, &remote, &local);
        (session, crypto, plan.srtp.is_some(), plan.payload_type)
    };
    let (mut a, mut b) = (leg(a), leg(b));
    a.0.bridge(&mut b.0);
    let (mut sink, mut now, mut before) = (Sink::default(), anchor.at, 0);
    for tick in 0..ticks {
        if tick == 50 {
            before = allocations();
        }
        for _ in 0..2 {
            let (session, crypto, secure, codec) = &mut a;
            let payload_type = if tick % 10 == 9 { 101 } else { *codec };
            let timestamp = u32::from(tick) * 160;
            let header = Header { payload_type, marker: false, sequence: tick, timestamp, ssrc: 9 };
            let mut buffer = [0x90; DATAGRAM_BYTES];
            rtp::write_header(&mut buffer, header).expect("the buffer is long enough");
            let mut len = rtp::HEADER_BYTES + FRAME_SAMPLES;
            if *secure {
                len = crypto.protect(&mut buffer, len).expect("the packet is well-formed");
            }
            let (channel, waited) = (Channel::Rtp, Duration::ZERO);
            let datagram = Datagram { channel, from: PEER, waited, buffer: &mut buffer, len };
            if let Some(crossing) = session.handle_datagram(now, datagram, &mut sink) {
                b.0.cross(&crossing, &mut buffer, &mut sink);
            }
            std::mem::swap(&mut a, &mut b);
        }
        now += Duration::from_millis(20);
        for (session, ..) in [&mut a, &mut b] {
            session.handle_tick(now, u64::from(tick % 100 == 99), &mut sink);
        }
    }
    (allocations() - before, sink)
}

#[test]
fn a_bridged_call_allocates_nothing() {
    let alaw = Plan { codec: Codec::Pcma, payload_type: 8, ..plan(false) };
    for legs in [(&plan(false), &alaw), (&plan(true), &alaw), (&plan(true), &plan(true))] {
        let (allocated, sink) = run_bridged(500, legs, false);
        assert_eq!(allocated, 0);
        assert_eq!(sink.rtp, 1_000);
        assert!(sink.rtcp >= 2);
    }
}

#[test]
fn a_cleaned_bridged_call_allocates_nothing() {
    let (allocated, sink) = run_bridged(60, (&plan(true), &plan(false)), true);
    assert_eq!((allocated, sink.rtp), (0, 120));
}

#[test]
fn a_plain_call_allocates_nothing() {
    let (allocated, sink) = run(500, false, false);
    assert_eq!(allocated, 0);
    assert_eq!(sink.rtp, 500);
    assert!(sink.rtcp >= 1);
}

#[test]
fn a_secured_call_allocates_nothing() {
    let (allocated, sink) = run(500, true, false);
    assert_eq!(allocated, 0);
    assert_eq!(sink.rtp, 500);
    assert!(sink.rtcp >= 1);
}

#[test]
fn a_cleaned_call_allocates_nothing() {
    // The noise suppressor is slow without optimisation, so this one is short.
    let (allocated, sink) = run(70, false, true);
    assert_eq!(allocated, 0);
    assert_eq!(sink.rtp, 70);
}
