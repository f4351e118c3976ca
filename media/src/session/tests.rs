//! Sessions driven in virtual time: one peer, one far side, no sockets.

mod bridged;
mod prompt;
mod speech;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::*;
use crate::codec::Codec;
use crate::frame::{FRAME_SAMPLES, Frame};
use crate::packet::rtcp::{self, Packet};
use crate::packet::rtp;
use crate::port::{AgentPort, Down, Up, agent_port};
use crate::sdp::SrtpKeys;
use crate::srtp::{MasterKey, SrtpPair, SrtpSession, Suite};

const KEY: SessionKey = SessionKey(7);
const PEER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const PEER: SocketAddr = SocketAddr::new(PEER_IP, 4_000);
const PEER_RTCP: SocketAddr = SocketAddr::new(PEER_IP, 4_001);
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 6)), 4_000);

fn plan() -> Plan {
    Plan {
        codec: Codec::Pcmu,
        payload_type: 0,
        dtmf_payload: Some(101),
        dtmf_receive_payload: Some(101),
        ptime_ms: 20,
        send: true,
        receive: true,
        remote: PEER,
        remote_rtcp: PEER_RTCP,
        rtcp_mux: false,
        srtp: None,
    }
}

fn keys(local: u8, remote: u8) -> SrtpKeys {
    SrtpKeys {
        suite: Suite::AesCm128HmacSha1_80,
        local: MasterKey::new([local; 30]),
        remote: MasterKey::new([remote; 30]),
        local_epoch: u32::from(local),
        remote_epoch: u32::from(remote),
    }
}

fn secure_plan(local: u8, remote: u8) -> Plan {
    Plan { srtp: Some(keys(local, remote)), ..plan() }
}

/// The peer's contexts for [`secure_plan`].
fn peer_crypto(local: u8, remote: u8) -> SrtpPair {
    let SrtpKeys { suite, local, remote, .. } = keys(local, remote);
    SrtpPair::new(suite, &remote, &local)
}

fn options() -> LegOptions {
    LegOptions { entropy: [0x5a; 32], ..LegOptions::new(PEER_IP, [0; 32]) }
}

#[derive(Default)]
struct Outputs {
    sent: Vec<(Channel, SocketAddr, Vec<u8>)>,
    /// How many of them by the connected socket.
    connected: usize,
    events: Vec<Event>,
}

impl Outlet for Outputs {
    fn send(&mut self, channel: Channel, to: SocketAddr, datagram: &[u8]) {
        self.sent.push((channel, to, datagram.to_vec()));
    }

    fn send_connected(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.connected += 1;
        self.send(Channel::Rtp, to, datagram);
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// An RTP packet that has left a session: who to, header, payload.
type Sent = (SocketAddr, rtp::Header, Vec<u8>);

/// A session, its peer, and the time they live in.
struct World {
    session: Session,
    now: Instant,
    outputs: Outputs,
    from: SocketAddr,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    crypto: Option<SrtpPair>,
}

impl World {
    fn new(plan: &Plan, far: Far) -> Self {
        Self::with(plan, far, &options())
    }

    fn with(plan: &Plan, far: Far, options: &LegOptions) -> Self {
        let anchor = WallAnchor::now();
        Self {
            session: Session::new(KEY, plan, far, options, anchor),
            now: anchor.at,
            outputs: Outputs::default(),
            from: PEER,
            ssrc: 0x1122,
            sequence: 100,
            timestamp: 9_000,
            crypto: None,
        }
    }

    fn with_agent(plan: &Plan) -> (Self, AgentPort) {
        let (worker, agent) = agent_port(500);
        (Self::new(plan, Far::Agent(worker)), agent)
    }

    fn open(&mut self) {
        self.session.gate(self.now, true);
    }

    fn arrive(&mut self, channel: Channel, from: SocketAddr, bytes: &[u8], waited: Duration) {
        let mut buffer = [0; DATAGRAM_BYTES];
        buffer[..bytes.len()].copy_from_slice(bytes);
        let datagram = Datagram { channel, from, waited, buffer: &mut buffer, len: bytes.len() };
        self.session.handle_datagram(self.now, datagram, &mut self.outputs);
    }

    /// The next packet of the peer, of 20 ms.
    fn packet(&mut self, payload_type: u8, payload: &[u8]) -> Vec<u8> {
        let header = rtp::Header {
            payload_type,
            marker: false,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0; rtp::HEADER_BYTES + payload.len() + 32];
        rtp::write_header(&mut packet, header).unwrap();
        let len = rtp::HEADER_BYTES + payload.len();
        packet[rtp::HEADER_BYTES..len].copy_from_slice(payload);
        let len = match &mut self.crypto {
            Some(crypto) => crypto.protect(&mut packet, len).unwrap(),
            None => len,
        };
        packet.truncate(len);
        packet
    }

    fn peer_says(&mut self, code: u8) {
        let packet = self.packet(0, &[code; FRAME_SAMPLES]);
        self.timestamp = self.timestamp.wrapping_add(160);
        self.arrive(Channel::Rtp, self.from, &packet, Duration::ZERO);
    }

    fn tick(&mut self) {
        self.tick_after(0);
    }

    fn tick_after(&mut self, missed: u64) {
        self.now += Duration::from_millis(20 * (missed + 1));
        self.session.handle_tick(self.now, missed, &mut self.outputs);
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.tick();
        }
    }

    /// Takes what was sent on the RTP port, decrypted if `crypto` is set.
    fn sent(&mut self) -> Vec<Sent> {
        let sent = std::mem::take(&mut self.outputs.sent);
        let crypto = &mut self.crypto;
        let rtp_only = sent.into_iter().filter(|(channel, ..)| *channel == Channel::Rtp);
        rtp_only
            .map(|(_, to, mut bytes)| {
                let len = bytes.len();
                if let Some(crypto) = crypto {
                    let len = crypto.unprotect(&mut bytes, len).unwrap();
                    bytes.truncate(len);
                }
                let view = rtp::view(&bytes).unwrap();
                (to, view.header, view.payload(&bytes).to_vec())
            })
            .collect()
    }

    /// First payload byte of everything sent.
    fn said(&mut self) -> Vec<u8> {
        self.sent().into_iter().map(|(_, _, payload)| payload[0]).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.outputs.events)
    }

    fn close(&mut self) -> LegReport {
        self.session.close(self.now, &mut self.outputs)
    }
}

/// A frame that encodes to `code` throughout.
fn frame(code: u8) -> Frame {
    let mut samples = [0; FRAME_SAMPLES];
    Codec::Pcmu.decode(&[code; FRAME_SAMPLES], &mut samples);
    Frame { samples }
}

fn push_frames(agent: &mut AgentPort, codes: &[u8]) {
    for code in codes {
        agent.push(Down::Frame(frame(*code))).unwrap();
    }
}

/// The codes of all frames the agent has got, silence left out.
fn heard(agent: &mut AgentPort) -> Vec<u8> {
    let mut codes = Vec::new();
    while let Some(up) = agent.pull() {
        if let Up::Frame(frame) = up {
            let mut code = [0; FRAME_SAMPLES];
            Codec::Pcmu.encode(&frame.samples, &mut code);
            codes.extend((code[80] != SILENCE).then_some(code[80]));
        }
    }
    codes
}

const SILENCE: u8 = 0xff;
const VOICE: u8 = 0x90;

#[test]
fn nothing_is_sent_or_taken_from_the_agent_before_the_gate_opens() {
    let (mut world, mut agent) = World::with_agent(&plan());
    push_frames(&mut agent, &[1, 2, 3]);
    for _ in 0..10 {
        world.peer_says(VOICE);
        world.tick();
    }
    assert_eq!(world.outputs.sent, []);
    assert_eq!(agent.consumed(), 0);
    assert_eq!(agent.pull(), None);
}

#[test]
fn the_agents_first_frame_is_the_first_packet_after_the_gate_opens() {
    let (mut world, mut agent) = World::with_agent(&plan());
    push_frames(&mut agent, &[1, 2]);
    world.ticks(5);
    world.open();
    world.ticks(4);
    let sent = world.sent();
    let codes: Vec<_> = sent.iter().map(|(_, _, payload)| payload[0]).collect();
    assert_eq!(codes, [1, 2, SILENCE, SILENCE]);
    let markers: Vec<_> = sent.iter().map(|(_, header, _)| header.marker).collect();
    assert_eq!(markers, [true, false, false, false]);
    assert!(sent.iter().all(|(to, header, _)| *to == PEER && header.payload_type == 0));
    assert_eq!((agent.played(), agent.consumed()), (2, 2));
}

#[test]
fn what_is_sent_is_one_stream_whose_numbers_step_evenly() {
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    world.ticks(100);
    let sent = world.sent();
    assert_eq!(sent.len(), 100);
    for pair in sent.windows(2) {
        let (before, after) = (pair[0].1, pair[1].1);
        assert_eq!(after.sequence, before.sequence.wrapping_add(1));
        assert_eq!(after.timestamp, before.timestamp.wrapping_add(160));
        assert_eq!(after.ssrc, before.ssrc);
    }
}

#[test]
fn an_echo_gives_back_what_the_caller_said() {
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    for _ in 0..50 {
        world.peer_says(VOICE);
        world.tick();
    }
    let codes = world.said();
    assert!(codes.iter().filter(|code| **code == VOICE).count() >= 40, "{codes:?}");
}

#[test]
fn early_audio_of_the_caller_is_not_kept_for_the_agent() {
    let (mut world, mut agent) = World::with_agent(&plan());
    for _ in 0..20 {
        world.peer_says(0x85);
        world.tick();
    }
    world.open();
    for _ in 0..20 {
        world.peer_says(VOICE);
        world.tick();
    }
    let codes = heard(&mut agent);
    let early = codes.iter().filter(|code| **code == 0x85).count();
    assert!(early <= 3, "only what was still in the playout buffer: {codes:?}");
    assert!(codes.len() >= 15);
}

#[test]
fn clearing_silences_the_agent_within_one_tick() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    push_frames(&mut agent, &[3; 200]);
    world.ticks(10);
    assert_eq!(agent.clear(), 190);
    world.ticks(2);
    let codes = world.said();
    assert_eq!(codes[..10], [3; 10]);
    assert_eq!(codes[10..], [SILENCE; 2]);
    assert_eq!(agent.played(), 10);
    assert_eq!(agent.consumed(), agent.pushed());
}

#[test]
fn a_mark_is_reached_when_the_frame_before_it_was_sent() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    push_frames(&mut agent, &[4; 3]);
    let mark = agent.pushed();
    for sent in 1..=3 {
        assert!(agent.consumed() < mark);
        world.tick();
        assert_eq!(agent.played(), sent);
    }
    assert!(agent.consumed() >= mark);
}

#[test]
fn a_clip_is_played_from_its_start_and_its_end_is_told() {
    let clip: Arc<[i16]> = frame(5).samples.iter().chain(&frame(6).samples).copied().collect();
    let mut world = World::new(&plan(), Far::Playback { clip, repeat: false });
    world.ticks(3);
    world.open();
    world.ticks(4);
    assert_eq!(world.said(), [5, 6, SILENCE, SILENCE]);
    assert_eq!(world.events(), [Event::PlaybackEnded { key: KEY }]);
}

#[test]
fn another_far_side_takes_over_in_mid_call() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    push_frames(&mut agent, &[1, 2, 3]);
    world.ticks(1);
    let clip: Arc<[i16]> = frame(5).samples.into();
    world.session.connect(Far::Playback { clip, repeat: false });
    assert!(agent.is_closed());
    world.ticks(60);
    assert_eq!(world.said()[..3], [1, 5, SILENCE]);
    assert_eq!(world.close().drops.overrun, 0);
}

#[test]
fn the_first_packet_of_the_peer_is_told_once() {
    let mut world = World::new(&plan(), Far::Echo);
    for _ in 0..3 {
        world.peer_says(VOICE);
    }
    let latched = Event::Latched { key: KEY, address: PEER };
    assert_eq!(world.events(), [latched, Event::FirstPacket { key: KEY }]);
}

#[test]
fn a_stranger_is_neither_heard_nor_answered_and_is_told_as_an_intrusion() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    world.peer_says(VOICE);
    world.from = STRANGER;
    world.events();
    for _ in 0..40 {
        world.peer_says(0x81);
        world.tick();
    }
    assert!(!heard(&mut agent).contains(&0x81));
    assert!(world.sent().iter().all(|(to, ..)| *to == PEER));
    assert_eq!(world.events(), [Event::Intrusion { key: KEY }]);
    let report = world.close();
    assert_eq!(report.strangers, 40);
    assert_eq!(report.quality.packets_received, 1);
    assert_eq!(report.latched, Some(PEER));
}

#[test]
fn a_flood_is_dropped_by_budget_and_the_peer_is_still_heard() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    world.peer_says(VOICE);
    for _ in 0..50 {
        world.from = STRANGER;
        for _ in 0..200 {
            let flood = world.packet(0, &[0x81; FRAME_SAMPLES]);
            world.sequence -= 1;
            world.arrive(Channel::Rtp, STRANGER, &flood, Duration::ZERO);
        }
        world.from = PEER;
        world.peer_says(VOICE);
        world.tick();
    }
    let codes = heard(&mut agent);
    assert!(codes.iter().all(|code| *code == VOICE));
    assert!(codes.len() >= 47, "{}", codes.len());
    let drops = world.close().drops;
    assert!(drops.over_budget > 9_000, "{drops:?}");
}

#[test]
fn digits_of_the_caller_reach_the_agent_once() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    world.peer_says(VOICE);
    for duration in (160..=800_u16).step_by(160) {
        let [high, low] = duration.to_be_bytes();
        let packet = world.packet(101, &[5, 10, high, low]);
        world.arrive(Channel::Rtp, PEER, &packet, Duration::ZERO);
        world.tick();
    }
    for _ in 0..3 {
        let packet = world.packet(101, &[5, 0x8a, 0x03, 0x20]);
        world.arrive(Channel::Rtp, PEER, &packet, Duration::ZERO);
    }
    world.ticks(20);
    let digits: Vec<_> =
        std::iter::from_fn(|| agent.pull()).filter(|up| matches!(up, Up::Digit { .. })).collect();
    assert_eq!(digits, [Up::Digit { digit: '5', duration_ms: 100 }]);
    assert_eq!(world.close().digits_received, 1);
}

#[test]
fn a_digit_of_the_agent_takes_its_place_between_the_frames() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    push_frames(&mut agent, &[1]);
    agent.push(Down::Digit { digit: '#', duration_ms: 100 }).unwrap();
    push_frames(&mut agent, &[2]);
    world.ticks(15);
    let sent = world.sent();
    let kinds: Vec<_> = sent.iter().map(|(_, header, _)| header.payload_type).collect();
    assert_eq!(kinds[..8], [0, 101, 101, 101, 101, 101, 101, 101]);
    let events: Vec<_> = sent.iter().filter(|(_, header, _)| header.payload_type == 101).collect();
    assert!(events.iter().all(|(_, header, payload)| {
        header.timestamp == events[0].1.timestamp && payload[0] == 11
    }));
    assert_eq!(events.iter().filter(|(_, _, payload)| payload[1] & 0x80 != 0).count(), 3);
    assert!(events[0].1.marker && !events[1].1.marker);
    let after: Vec<_> = sent[8..].iter().map(|(_, _, payload)| payload[0]).collect();
    assert_eq!(after.iter().filter(|code| **code == 2).count(), 1);
    for pair in sent.windows(2) {
        assert_eq!(pair[1].1.sequence, pair[0].1.sequence.wrapping_add(1));
    }
}

#[test]
fn without_telephone_events_a_digit_is_heard_as_tones() {
    let (mut world, mut agent) = World::with_agent(&Plan { dtmf_payload: None, ..plan() });
    world.open();
    push_frames(&mut agent, &[1]);
    agent.push(Down::Digit { digit: '5', duration_ms: 60 }).unwrap();
    push_frames(&mut agent, &[2]);
    world.ticks(12);
    let sent = world.sent();
    assert!(
        sent.iter().all(|(_, header, payload)| header.payload_type == 0 && payload.len() == 160)
    );
    let loud: Vec<_> = sent
        .iter()
        .map(|(_, _, payload)| payload.iter().any(|code| *code != payload[80]))
        .collect();
    assert_eq!(loud[..6], [false, true, true, true, false, false]);
    assert!(sent[6..].iter().any(|(_, _, payload)| payload[0] == 2));
}

#[test]
fn hold_stops_both_directions_and_the_media_clock_goes_on() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    world.peer_says(VOICE);
    world.tick();
    let before = world.sent()[0].1;
    world.session.apply(world.now, &Plan { send: false, receive: false, ..plan() });
    push_frames(&mut agent, &[1]);
    for _ in 0..100 {
        world.peer_says(VOICE);
        world.tick();
    }
    assert_eq!(world.sent(), []);
    assert_eq!(agent.consumed(), 0, "the agent's audio waits");
    world.session.apply(world.now, &plan());
    world.tick();
    let (_, after, payload) = world.sent().remove(0);
    assert_eq!(payload[0], 1);
    assert_eq!(after.ssrc, before.ssrc);
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.timestamp, before.timestamp.wrapping_add(101 * 160));
    assert!(after.marker);
    assert_eq!(world.close().drops.on_hold, 100);
}

#[test]
fn a_silent_peer_is_told_once_until_it_comes_back() {
    let mut world = World::new(&plan(), Far::Echo);
    world.ticks(2_000);
    assert_eq!(world.events(), [], "nobody waits before the call is answered");
    world.open();
    world.ticks(1_499);
    assert_eq!(world.events(), []);
    world.ticks(500);
    assert_eq!(world.events(), [Event::MediaTimeout { key: KEY }]);
    world.peer_says(VOICE);
    world.events();
    world.ticks(1_600);
    assert_eq!(world.events(), [Event::MediaTimeout { key: KEY }]);
}

#[test]
fn the_media_timeout_rests_on_hold_and_can_be_switched_off() {
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    world.session.apply(world.now, &Plan { send: false, ..plan() });
    world.ticks(5_000);
    assert_eq!(world.events(), []);
    world.session.apply(world.now, &plan());
    world.ticks(1_400);
    assert_eq!(world.events(), []);
    let mut never =
        World::with(&plan(), Far::Echo, &LegOptions { media_timeout_ms: 0, ..options() });
    never.open();
    never.ticks(5_000);
    assert_eq!(never.events(), []);
}

#[test]
fn an_address_nobody_vouches_for_gets_four_packets_of_silence_and_no_word_of_the_agent() {
    let elsewhere = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let options = LegOptions { peer_signalling_ip: elsewhere, ..options() };
    let (worker, mut agent) = agent_port(10);
    let mut world = World::with(&plan(), Far::Agent(worker), &options);
    push_frames(&mut agent, &[1, 2]);
    world.open();
    world.ticks(50);
    assert_eq!(world.said(), [SILENCE; 4]);
    assert_eq!(agent.consumed(), 0);
    world.peer_says(VOICE);
    world.ticks(2);
    assert_eq!(world.said(), [1, 2]);
}

#[test]
fn a_stall_is_a_gap_and_not_a_burst() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    push_frames(&mut agent, &[1; 100]);
    for _ in 0..10 {
        world.peer_says(VOICE);
        world.tick();
    }
    let last = world.sent().pop().unwrap().1;
    world.tick_after(50);
    let sent = world.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.timestamp, last.timestamp.wrapping_add(51 * 160));
    assert_eq!(sent[0].1.sequence, last.sequence.wrapping_add(1));
    assert!(sent[0].1.marker);
    heard(&mut agent);
    for _ in 0..50 {
        let packet = world.packet(0, &[0x82; FRAME_SAMPLES]);
        world.timestamp += 160;
        world.arrive(Channel::Rtp, PEER, &packet, Duration::from_millis(500));
    }
    for _ in 0..20 {
        world.peer_says(VOICE);
        world.tick();
    }
    let codes = heard(&mut agent);
    assert!(!codes.contains(&0x82), "stale audio was played: {codes:?}");
    assert!(codes.iter().filter(|code| **code == VOICE).count() >= 15, "{codes:?}");
    assert_eq!(world.close().drops.stale, 50);
}

#[test]
fn a_short_stall_whose_ticks_are_made_up_for_loses_nothing_either_way() {
    for stall in 1..=2_u64 {
        let (mut world, mut agent) = World::with_agent(&plan());
        world.open();
        push_frames(&mut agent, &[1; 100]);
        for _ in 0..20 {
            world.peer_says(VOICE);
            world.tick();
        }
        let before = world.session.report().playout;
        let last = world.sent().pop().unwrap().1;
        heard(&mut agent);
        for round in 0..10 {
            // Every other round the worker sleeps for some ticks and finds everything at once.
            let ticks = if round % 2 == 0 { stall + 1 } else { 1 };
            world.now += Duration::from_millis(20 * ticks);
            for tick in 0..ticks {
                let packet = world.packet(0, &[VOICE; FRAME_SAMPLES]);
                world.timestamp += 160;
                let waited = Duration::from_millis(20 * (ticks - 1 - tick));
                world.arrive(Channel::Rtp, PEER, &packet, waited);
            }
            for _ in 0..ticks {
                world.session.handle_tick(world.now, 0, &mut world.outputs);
            }
        }
        let ticks = 5 * (stall + 2);
        let sent = world.sent();
        assert_eq!(sent.len() as u64, ticks);
        for (n, (_, header, payload)) in (1..).zip(&sent) {
            assert_eq!(header.sequence, last.sequence.wrapping_add(n));
            assert_eq!(header.timestamp, last.timestamp.wrapping_add(160 * u32::from(n)));
            assert!(!header.marker && payload[0] == 1);
        }
        assert_eq!(heard(&mut agent), vec![VOICE; usize::try_from(ticks).unwrap()]);
        let after = world.session.report().playout;
        assert_eq!(after.played - before.played, ticks);
        assert_eq!((after.starved, after.slipped, after.late), (before.starved, 0, 0));
    }
}

#[test]
fn a_new_source_of_the_peer_is_heard_at_once() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    for round in 0..2_u8 {
        for _ in 0..20 {
            world.peer_says(VOICE + round);
            world.tick();
        }
        (world.ssrc, world.sequence, world.timestamp) = (0x9999, 60_000, 4_000_000_000);
    }
    let codes = heard(&mut agent);
    assert!(codes.iter().filter(|code| **code == VOICE + 1).count() >= 15, "{codes:?}");
}

#[test]
fn unknown_payload_types_and_other_bytes_are_counted_and_nothing_else() {
    let mut world = World::new(&plan(), Far::Echo);
    let packet = world.packet(96, &[1; 160]);
    world.arrive(Channel::Rtp, PEER, &packet, Duration::ZERO);
    world.arrive(Channel::Rtp, PEER, b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl", Duration::ZERO);
    world.arrive(Channel::Rtp, PEER, b"", Duration::ZERO);
    let packet = world.packet(0, &[1; 160]);
    world.arrive(Channel::Rtcp, PEER_RTCP, &packet, Duration::ZERO);
    assert_eq!(world.events(), []);
    let report = world.close();
    assert_eq!((report.drops.payload_type, report.drops.malformed), (1, 3));
    assert_eq!((report.latched, report.quality.packets_received), (None, 0));
}

#[test]
fn every_short_or_odd_rtcp_is_survived_and_moves_nothing() {
    for secured in [false, true] {
        let plan = if secured { secure_plan(1, 2) } else { plan() };
        let mut world = World::new(&plan, Far::Echo);
        world.open();
        for len in 0..=64 {
            for kind in 192..=223 {
                let mut bytes = vec![0x81; len];
                if let Some(second) = bytes.get_mut(1) {
                    *second = kind;
                }
                world.arrive(Channel::Rtp, PEER, &bytes, Duration::ZERO);
                world.arrive(Channel::Rtcp, STRANGER, &bytes, Duration::ZERO);
                world.session.handle_tick(world.now, 0, &mut world.outputs);
            }
        }
        assert!(world.events().is_empty());
        assert_eq!(world.close().latched, None);
    }
}

#[test]
fn reports_leave_every_five_seconds_and_the_last_one_says_bye() {
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    for _ in 0..1_500 {
        world.peer_says(VOICE);
        world.tick();
    }
    let report = world.close();
    let reports: Vec<_> = world
        .outputs
        .sent
        .iter()
        .filter(|(channel, ..)| *channel == Channel::Rtcp)
        .map(|(_, to, bytes)| {
            assert_eq!(*to, PEER_RTCP);
            rtcp::parse(bytes).unwrap().collect::<Vec<_>>()
        })
        .collect();
    assert!((5..=12).contains(&reports.len()), "{}", reports.len());
    let Packet::SenderReport { info, mut reports, .. } = reports[reports.len() - 2][0] else {
        panic!("we have sent, so it is a sender report");
    };
    let block = reports.next().unwrap();
    assert_eq!((block.ssrc, block.cumulative_lost), (0x1122, 0));
    assert!(info.packets > 1_000);
    assert_eq!(report.quality.packets_sent, 1_500);
    assert_eq!(report.quality.packets_received, 1_500);
    assert!(report.quality.mos.unwrap() > 4.0);
    let last = world.outputs.sent.last().unwrap();
    let packets = rtcp::parse(&last.2).unwrap();
    assert!(matches!(packets.last(), Some(Packet::Bye { .. })));
}

#[test]
fn with_rtcp_mux_everything_goes_through_one_port() {
    let mut world = World::new(&Plan { rtcp_mux: true, remote_rtcp: PEER, ..plan() }, Far::Echo);
    world.open();
    world.ticks(500);
    assert!(
        world.outputs.sent.iter().all(|(channel, to, _)| (*channel, *to) == (Channel::Rtp, PEER))
    );
    let rtcp = world.outputs.sent.iter().filter(|(_, _, bytes)| (192..=223).contains(&bytes[1]));
    assert!(rtcp.count() >= 1);
}

#[test]
fn a_reports_round_trip_and_loss_are_in_the_last_word() {
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    while !world.outputs.sent.iter().any(|(channel, ..)| *channel == Channel::Rtcp) {
        world.tick();
    }
    let ours = world.outputs.sent.pop().unwrap().2;
    let Some(Packet::SenderReport { ssrc, info, .. }) = rtcp::parse(&ours).unwrap().next() else {
        panic!("a sender report");
    };
    world.now += Duration::from_millis(100);
    let block = rtcp::ReportBlock {
        ssrc,
        cumulative_lost: i32::try_from(info.packets / 10).unwrap(),
        last_sender_report: rtcp::ntp_middle(info.ntp),
        ..rtcp::ReportBlock::default()
    };
    let reports = [block];
    let compound =
        rtcp::Compound { ssrc: 0x1122, sender: None, reports: &reports, cname: "x", bye: true };
    let mut buffer = [0; 200];
    let len = compound.write(&mut buffer).unwrap();
    world.arrive(Channel::Rtcp, PEER_RTCP, &buffer[..len], Duration::ZERO);
    assert_eq!(world.events(), [], "a BYE in RTCP ends nothing");
    let quality = world.close().quality;
    assert!((quality.round_trip_ms.unwrap() - 100.0).abs() < 2.0, "{quality:?}");
    assert!((quality.remote_loss_percent.unwrap() - 10.0).abs() < 1.5, "{quality:?}");
}

#[test]
fn secured_media_is_heard_and_sent_only_under_its_keys() {
    let mut world = World::new(&secure_plan(1, 2), Far::Echo);
    world.open();
    world.crypto = Some(peer_crypto(1, 2));
    for _ in 0..50 {
        world.peer_says(VOICE);
        world.tick();
    }
    let codes = world.said();
    assert_eq!(codes.len(), 50);
    assert!(codes.iter().filter(|code| **code == VOICE).count() >= 40, "{codes:?}");
    assert!(world.close().secured);
}

#[test]
fn forged_packets_change_nothing_but_a_counter() {
    let (mut world, mut agent) = World::with_agent(&secure_plan(1, 2));
    world.open();
    world.crypto = Some(peer_crypto(1, 2));
    for _ in 0..30 {
        let mut forged = world.packet(0, &[0x81; FRAME_SAMPLES]);
        *forged.last_mut().unwrap() ^= 1;
        world.arrive(Channel::Rtp, PEER, &forged, Duration::ZERO);
        let plain = [0x80; 172];
        world.arrive(Channel::Rtp, STRANGER, &plain, Duration::ZERO);
        world.peer_says(VOICE);
        world.tick();
    }
    let codes = heard(&mut agent);
    assert!(codes.len() >= 10 && codes.iter().all(|code| *code == VOICE), "{codes:?}");
    let report = world.close();
    assert_eq!(report.auth_failures, 60);
    assert_eq!(report.quality.packets_received, 30);
    assert_eq!(report.latched, Some(PEER));
}

#[test]
fn a_replayed_packet_is_heard_once() {
    let mut world = World::new(&secure_plan(1, 2), Far::Echo);
    world.crypto = Some(peer_crypto(1, 2));
    let packet = world.packet(0, &[VOICE; FRAME_SAMPLES]);
    for _ in 0..3 {
        world.arrive(Channel::Rtp, PEER, &packet, Duration::ZERO);
    }
    let report = world.close();
    assert_eq!((report.quality.packets_received, report.auth_failures), (1, 2));
}

#[test]
fn a_plan_with_the_same_keys_keeps_the_contexts_and_one_with_new_keys_starts_anew() {
    let mut world = World::new(&secure_plan(1, 2), Far::Echo);
    world.open();
    world.crypto = Some(peer_crypto(1, 2));
    world.peer_says(VOICE);
    world.tick();
    let first = world.sent()[0].1;
    let replay = world.packet(0, &[VOICE; FRAME_SAMPLES]);
    world.arrive(Channel::Rtp, PEER, &replay, Duration::ZERO);
    world.session.apply(world.now, &secure_plan(1, 2));
    world.arrive(Channel::Rtp, PEER, &replay, Duration::ZERO);
    world.tick();
    assert_eq!(world.sent()[0].1.sequence, first.sequence.wrapping_add(1));
    world.session.apply(world.now, &secure_plan(3, 4));
    world.crypto = Some(peer_crypto(3, 4));
    world.peer_says(VOICE);
    world.tick();
    let rekeyed = world.sent()[0].1;
    assert_eq!((rekeyed.ssrc, rekeyed.sequence), (first.ssrc, first.sequence.wrapping_add(2)));
    let report = world.close();
    assert_eq!(report.auth_failures, 1, "the replay across the plan was still seen as one");
    assert_eq!(report.quality.packets_received, 3);
}

#[test]
fn packets_under_the_old_key_are_heard_after_a_new_one_from_the_same_place_only() {
    let moved = Plan { remote: SocketAddr::new(PEER_IP, 6_000), ..secure_plan(3, 4) };
    for (next, received, refused) in [(secure_plan(3, 4), 6, 0), (moved, 3, 3)] {
        let mut world = World::new(&secure_plan(1, 2), Far::Echo);
        world.crypto = Some(peer_crypto(1, 2));
        let under_way: Vec<_> = (0..6).map(|_| world.packet(0, &[VOICE; FRAME_SAMPLES])).collect();
        let (before, after) = under_way.split_at(3);
        for packet in before {
            world.arrive(Channel::Rtp, PEER, packet, Duration::ZERO);
        }
        world.session.apply(world.now, &next);
        for packet in after {
            world.arrive(Channel::Rtp, PEER, packet, Duration::ZERO);
        }
        let report = world.close();
        assert_eq!((report.quality.packets_received, report.auth_failures), (received, refused));
    }
}

#[test]
fn silence_after_a_new_plan_is_told_again() {
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    world.ticks(1_600);
    assert_eq!(world.events(), [Event::MediaTimeout { key: KEY }]);
    world.session.apply(world.now, &Plan { receive: false, ..plan() });
    world.ticks(1_600);
    assert_eq!(world.events(), [], "a peer on hold may be silent");
    world.session.apply(world.now, &plan());
    world.ticks(1_600);
    assert_eq!(world.events(), [Event::MediaTimeout { key: KEY }]);
}

#[test]
fn a_new_address_is_learned_anew_and_the_stream_goes_on_there() {
    let moved = SocketAddr::new(PEER_IP, 6_000);
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    world.peer_says(VOICE);
    world.tick();
    let before = world.sent()[0].1;
    let next = Plan { remote: moved, remote_rtcp: SocketAddr::new(PEER_IP, 6_001), ..plan() };
    world.session.apply(world.now, &next);
    world.tick();
    let (to, after, _) = world.sent().remove(0);
    assert_eq!(to, moved);
    assert_eq!((after.ssrc, after.sequence), (before.ssrc, before.sequence.wrapping_add(1)));
}

#[test]
fn a_new_codec_and_packet_time_take_effect_in_the_same_stream() {
    let mut world = World::new(&plan(), Far::Echo);
    world.open();
    world.ticks(2);
    let before = world.sent().pop().unwrap().1;
    let next = Plan { codec: Codec::Pcma, payload_type: 8, ptime_ms: 40, ..plan() };
    world.session.apply(world.now, &next);
    for _ in 0..40 {
        let packet = world.packet(8, &[0x2a; FRAME_SAMPLES]);
        world.timestamp += 160;
        world.arrive(Channel::Rtp, PEER, &packet, Duration::ZERO);
        world.tick();
    }
    let sent = world.sent();
    assert_eq!(sent.len(), 20);
    assert_eq!(sent[0].1.sequence, before.sequence.wrapping_add(1));
    assert!(
        sent.iter().all(|(_, header, payload)| header.payload_type == 8 && payload.len() == 320)
    );
    assert!(sent.iter().filter(|(_, _, payload)| payload[0] == 0x2a).count() >= 15);
}

#[test]
fn lost_packets_are_concealed_and_counted() {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    for n in 0..200 {
        if n % 10 == 5 {
            world.packet(0, &[VOICE; FRAME_SAMPLES]);
            world.timestamp += 160;
        } else {
            world.peer_says(VOICE);
        }
        world.tick();
    }
    let frames = std::iter::from_fn(|| agent.pull()).count();
    assert_eq!(frames, 50, "the ring holds a second; one frame came with every tick");
    let quality = world.close().quality;
    assert_eq!((quality.packets_received, quality.packets_lost), (180, 20));
    assert!(quality.mos.unwrap() < 4.0);
}

#[test]
fn noise_cancellation_reports_levels_and_can_be_switched_in_mid_call() {
    let options = LegOptions { noise_cancellation: true, ..options() };
    let mut world = World::with(&plan(), Far::Echo, &options);
    world.open();
    for n in 0..100_u32 {
        // Hiss: codes spread by a small generator.
        let code = 0xa0 | u8::try_from(n.wrapping_mul(2_654_435_761) >> 28).unwrap();
        let packet = world.packet(0, &[code, code ^ 0x80].repeat(80));
        world.timestamp += 160;
        world.arrive(Channel::Rtp, PEER, &packet, Duration::ZERO);
        world.tick();
    }
    assert!(world.session.is_cleaned());
    world.session.bypass_cleaning(true);
    world.sent();
    world.peer_says(VOICE);
    world.ticks(3);
    assert!(world.said().contains(&VOICE), "bypassed audio is untouched");
    assert!(world.close().noise.is_some());
    world.session.clean_with(None);
    assert!(world.close().noise.is_none());
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let run = || {
        let mut world = World::new(&secure_plan(1, 2), Far::Echo);
        world.session = Session::new(
            KEY,
            &secure_plan(1, 2),
            Far::Echo,
            &options(),
            WallAnchor { at: world.now, since_1970: Duration::from_secs(1) },
        );
        world.open();
        world.crypto = Some(peer_crypto(1, 2));
        for n in 0..300 {
            if n % 7 != 0 {
                world.peer_says(VOICE);
            }
            world.tick();
        }
        world.close();
        world.outputs.sent
    };
    assert!(run() == run());
}

#[test]
fn drops_are_told_once() {
    let mut world = World::new(&plan(), Far::Echo);
    world.arrive(Channel::Rtp, PEER, b"junk", Duration::ZERO);
    assert_eq!(world.session.take_drops().malformed, 1);
    assert_eq!(world.session.take_drops(), Drops::default());
}
