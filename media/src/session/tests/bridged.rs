//! Two sessions that are each other's far side, without a worker between them.

use super::*;
use crate::session::budget::PEER_BURST;

/// Two sessions with a peer each, bridged both ways.
struct Bridge {
    a: World,
    b: World,
}

impl Bridge {
    /// Both gates are open and both peers have shown themselves.
    fn new(a: &Plan, b: &Plan) -> Self {
        let mut bridge = Self::shut(a, b);
        for world in [&mut bridge.a, &mut bridge.b] {
            world.open();
            world.peer_says(VOICE);
            world.events();
            world.sent();
        }
        bridge
    }

    fn shut(a: &Plan, b: &Plan) -> Self {
        let mut bridge = Self { a: World::new(a, Far::Nobody), b: World::new(b, Far::Echo) };
        for (world, plan) in [(&mut bridge.a, a), (&mut bridge.b, b)] {
            world.crypto = plan.srtp.is_some().then(|| peer_crypto(1, 2));
        }
        bridge.introduce();
        bridge
    }

    /// What the worker does after a bridge was made and after a plan was applied.
    fn introduce(&mut self) {
        self.a.session.bridge(&mut self.b.session);
    }

    /// A packet comes to `a`, and what `b` sends because of it.
    fn carry(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.carry_after(bytes, Duration::ZERO)
    }

    fn carry_after(&mut self, bytes: &[u8], waited: Duration) -> Vec<Sent> {
        let mut buffer = [0; DATAGRAM_BYTES];
        buffer[..bytes.len()].copy_from_slice(bytes);
        let (channel, from, len) = (Channel::Rtp, self.a.from, bytes.len());
        let datagram = Datagram { channel, from, waited, buffer: &mut buffer, len };
        let heard = self.a.session.handle_datagram(self.a.now, datagram, &mut self.a.outputs);
        if let Some(crossing) = heard {
            self.b.session.cross(&crossing, &mut buffer, &mut self.b.outputs);
        }
        self.b.sent()
    }

    /// The peer of `a` says 20 ms of `code`; what the peer of `b` gets at once.
    fn say(&mut self, code: u8) -> Option<Sent> {
        let packet = self.a.packet(self.payload_type(), &[code; FRAME_SAMPLES]);
        self.a.timestamp = self.a.timestamp.wrapping_add(160);
        let mut sent = self.carry(&packet);
        assert!(sent.len() <= 1);
        sent.pop()
    }

    fn payload_type(&self) -> u8 {
        self.a.session.leg.terms.payload_type
    }

    fn key(&mut self, payload: [u8; 4]) -> Vec<Sent> {
        let packet = self.a.packet(101, &payload);
        self.carry(&packet)
    }

    fn tick(&mut self) {
        self.a.tick();
        self.b.tick();
    }
}

fn alaw_plan() -> Plan {
    Plan { codec: Codec::Pcma, payload_type: 8, ..plan() }
}

#[test]
fn a_packet_leaves_at_once_under_the_numbers_of_the_other_leg() {
    let mut bridge = Bridge::new(&plan(), &plan());
    bridge.tick();
    bridge.b.sent();
    let mut before: Option<rtp::Header> = None;
    for code in 1..=100 {
        let (to, header, payload) = bridge.say(code).expect("nothing waits for a tick");
        assert_eq!((to, header.payload_type, payload), (PEER, 0, vec![code; FRAME_SAMPLES]));
        assert_ne!(header.ssrc, bridge.a.ssrc);
        assert_eq!(header.marker, before.is_none());
        if let Some(before) = before.replace(header) {
            assert_eq!(header.sequence, before.sequence.wrapping_add(1));
            assert_eq!(header.timestamp, before.timestamp.wrapping_add(160));
            assert_eq!(header.ssrc, before.ssrc);
        }
        bridge.tick();
        assert_eq!(bridge.b.sent(), [], "and a tick adds nothing");
    }
    let (a, b) = (bridge.a.close(), bridge.b.close());
    assert_eq!((a.quality.packets_received, a.quality.packets_sent), (101, 0));
    assert_eq!((b.quality.packets_received, b.quality.packets_sent), (1, 100));
}

#[test]
fn audio_crosses_between_any_two_kinds_of_leg() {
    let secure_alaw = Plan { srtp: Some(keys(1, 2)), ..alaw_plan() };
    let plans = [plan(), alaw_plan(), secure_plan(1, 2), secure_alaw];
    for a in &plans {
        for b in &plans {
            let mut bridge = Bridge::new(a, b);
            let (said, mut expected) = ([0x91; FRAME_SAMPLES], [0x91; FRAME_SAMPLES]);
            a.codec.transcode(b.codec, &mut expected);
            for _ in 0..10 {
                let (_, header, payload) = bridge.say(said[0]).unwrap();
                assert_eq!(
                    (header.payload_type, payload.as_slice()),
                    (b.payload_type, &expected[..])
                );
                bridge.tick();
            }
            assert_eq!(bridge.b.close().secured, b.srtp.is_some());
        }
    }
}

#[test]
fn nothing_but_the_payload_gets_through() {
    let mut bridge = Bridge::new(&plan(), &plan());
    let mut packet = bridge.a.packet(0, &[]);
    // Padding, extension and one contributing source.
    packet[0] = 0x80 | 0x20 | 0x10 | 0x01;
    packet.extend([9, 9, 9, 9, 0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
    packet.extend([0x44; 80]);
    packet.extend([0, 0, 3]);
    let sent = bridge.carry(&packet);
    assert_eq!(sent[0].2, [0x44; 80]);
    bridge.a.timestamp += 80;
    assert_eq!(bridge.say(0x45).unwrap().1.timestamp, sent[0].1.timestamp.wrapping_add(80));
}

#[test]
fn losses_and_order_are_left_as_they_are_and_copies_are_not_sent_again() {
    for b in [plan(), secure_plan(1, 2)] {
        let mut bridge = Bridge::new(&plan(), &b);
        let first = bridge.say(1).unwrap().1.sequence;
        let packets: Vec<_> = (0..6_u8)
            .map(|n| {
                bridge.a.timestamp += 160;
                bridge.a.packet(0, &[n; FRAME_SAMPLES])
            })
            .collect();
        let mut sequences = Vec::new();
        for at in [0, 3, 2, 2, 5, 0] {
            let sent = bridge.carry(&packets[at]);
            sequences.extend(sent.iter().map(|sent| sent.1.sequence.wrapping_sub(first)));
        }
        assert_eq!(sequences, [1, 4, 3, 6]);
        assert_eq!(bridge.b.close().drops.uncrossed, 2);
    }
}

#[test]
fn another_source_goes_on_in_the_same_stream_with_a_marker() {
    let mut bridge = Bridge::new(&plan(), &secure_plan(1, 2));
    let before = bridge.say(1).unwrap().1;
    for _ in 0..5 {
        bridge.tick();
    }
    (bridge.a.ssrc, bridge.a.sequence, bridge.a.timestamp) = (0x9999, 60_000, 4_000_000_000);
    let after = bridge.say(2).unwrap().1;
    assert_eq!((after.ssrc, after.sequence), (before.ssrc, before.sequence.wrapping_add(1)));
    assert_eq!(after.timestamp, before.timestamp.wrapping_add(5 * 160));
    assert!(after.marker);
}

#[test]
fn both_gates_have_to_be_open() {
    for (open_a, open_b, crosses) in
        [(true, false, false), (false, true, false), (true, true, true)]
    {
        let mut bridge = Bridge::shut(&plan(), &plan());
        bridge.b.peer_says(VOICE);
        for (world, open) in [(&mut bridge.a, open_a), (&mut bridge.b, open_b)] {
            world.session.gate(world.now, open);
        }
        assert_eq!(bridge.say(1).is_some(), crosses, "{open_a} {open_b}");
    }
}

#[test]
fn a_held_direction_passes_nothing_and_goes_on_without_a_loss() {
    let held_a = (Plan { receive: false, ..plan() }, plan());
    let held_b = (plan(), Plan { send: false, ..plan() });
    for (a, b) in [held_a, held_b] {
        let mut bridge = Bridge::new(&plan(), &plan());
        let before = bridge.say(1).unwrap().1;
        bridge.a.session.apply(bridge.a.now, &a);
        bridge.b.session.apply(bridge.b.now, &b);
        for _ in 0..10 {
            assert_eq!(bridge.say(2), None);
            bridge.tick();
            assert_eq!(bridge.b.sent(), []);
        }
        bridge.a.session.apply(bridge.a.now, &plan());
        bridge.b.session.apply(bridge.b.now, &plan());
        let after = bridge.say(3).unwrap().1;
        assert!(after.timestamp.wrapping_sub(before.timestamp) >= 10 * 160);
        let (a, b) = (bridge.a.close(), bridge.b.close());
        assert_eq!(a.drops.on_hold + b.drops.uncrossed, 10);
        if a.drops.on_hold == 0 {
            assert_eq!(after.sequence, before.sequence.wrapping_add(1));
        }
    }
}

#[test]
fn events_are_relayed_packet_by_packet_on_the_time_line_of_the_audio() {
    let b = Plan { dtmf_payload: Some(96), ..secure_plan(1, 2) };
    let mut bridge = Bridge::new(&plan(), &b);
    let before = bridge.say(1).unwrap().1;
    let mut expected = before.sequence;
    for (n, flags) in [10, 10, 10, 0x8a, 0x8a, 0x8a].into_iter().enumerate() {
        let sent = bridge.key([5, flags, 0, 160]);
        expected = expected.wrapping_add(1);
        let header = sent[0].1;
        assert_eq!((header.payload_type, header.sequence), (96, expected), "{n}");
        assert_eq!(header.timestamp, before.timestamp.wrapping_add(160));
        assert_eq!(sent[0].2, [5, flags, 0, 160]);
        bridge.tick();
    }
    assert_eq!(bridge.a.events(), []);
    assert_eq!(bridge.a.close().digits_received, 1);
}

#[test]
fn a_digit_for_a_peer_without_events_is_told_and_nobody_misses_its_packets() {
    let mut bridge = Bridge::new(&plan(), &Plan { dtmf_payload: None, ..plan() });
    let before = bridge.say(1).unwrap().1;
    for _ in 0..3 {
        assert_eq!(bridge.key([11, 0x8a, 0x03, 0x20]), []);
    }
    let digit = Event::Digit { key: KEY, digit: '#', duration_ms: 100 };
    assert_eq!(bridge.a.events(), [digit]);
    let after = bridge.say(2).unwrap().1;
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    bridge.b.session.apply(bridge.b.now, &plan());
    bridge.introduce();
    assert_eq!(bridge.key([11, 0x0a, 0, 160]).len(), 1, "a new plan may allow them");
}

#[test]
fn a_digit_whose_end_is_lost_is_told_by_time() {
    let mut bridge = Bridge::new(&plan(), &Plan { dtmf_payload: None, ..plan() });
    bridge.key([7, 10, 1, 0x40]);
    for _ in 0..20 {
        bridge.tick();
    }
    assert_eq!(bridge.a.events(), [Event::Digit { key: KEY, digit: '7', duration_ms: 40 }]);
}

#[test]
fn a_digit_dialled_into_a_bridge_takes_the_place_of_the_audio() {
    for (dtmf_payload, payload_type) in [(Some(101), 101), (None, 0)] {
        let mut bridge = Bridge::new(&plan(), &Plan { dtmf_payload, ..plan() });
        let mut headers = vec![bridge.say(1).unwrap().1];
        bridge.b.session.dial('9', 100);
        let mut said = Vec::new();
        for _ in 0..20 {
            let crossed = bridge.say(2);
            bridge.tick();
            let dialled = bridge.b.sent();
            assert!(crossed.is_none() || dialled.is_empty());
            for (_, header, payload) in crossed.into_iter().chain(dialled) {
                headers.push(header);
                said.push((header.payload_type, payload[0]));
            }
        }
        assert!(said[..5].iter().all(|(kind, _)| *kind == payload_type));
        assert!(said[..5].iter().all(|(_, first)| *first != 2), "{said:?}");
        assert_eq!(said.iter().filter(|heard| **heard == (0, 2)).count(), 9, "{said:?}");
        for pair in headers.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        }
    }
}

#[test]
fn comfort_noise_and_unknown_payload_types_stay_behind() {
    let mut bridge = Bridge::new(&plan(), &plan());
    let before = bridge.say(1).unwrap().1.sequence;
    let noise = bridge.a.packet(13, &[60]);
    assert_eq!(bridge.carry(&noise), []);
    let empty = bridge.a.packet(0, &[]);
    assert_eq!(bridge.carry(&empty), []);
    assert_eq!(bridge.say(2).unwrap().1.sequence, before.wrapping_add(1));
    let unknown = bridge.a.packet(96, &[1; 160]);
    assert_eq!(bridge.carry(&unknown), []);
    assert_eq!(bridge.a.close().drops.payload_type, 3);
}

#[test]
fn stale_packets_do_not_cross() {
    let mut bridge = Bridge::new(&plan(), &plan());
    bridge.say(1);
    let packet = bridge.a.packet(0, &[2; FRAME_SAMPLES]);
    assert_eq!(bridge.carry_after(&packet, Duration::from_millis(61)), []);
    assert_eq!(bridge.a.close().drops.stale, 1);
}

#[test]
fn a_stranger_neither_speaks_nor_hears_on_either_leg() {
    let mut bridge = Bridge::new(&plan(), &plan());
    bridge.a.from = STRANGER;
    let forged = bridge.a.packet(0, &[9; FRAME_SAMPLES]);
    for _ in 0..50 {
        assert_eq!(bridge.carry(&forged), []);
    }
    bridge.b.arrive(Channel::Rtp, STRANGER, &forged, Duration::ZERO);
    bridge.a.from = PEER;
    assert_eq!(bridge.say(1).unwrap().0, PEER);
    assert!(bridge.a.events().contains(&Event::Intrusion { key: KEY }));
    assert_eq!((bridge.a.close().strangers, bridge.b.close().strangers), (50, 1));
}

#[test]
fn a_peer_whose_address_is_unproven_gets_four_packets_of_silence_and_no_audio() {
    let elsewhere = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let options = LegOptions { peer_signalling_ip: elsewhere, ..options() };
    let mut bridge = Bridge::new(&plan(), &plan());
    bridge.b = World::with(&plan(), Far::Nobody, &options);
    bridge.introduce();
    bridge.b.open();
    let mut filler = Vec::new();
    for _ in 0..30 {
        assert_eq!(bridge.say(1), None);
        bridge.tick();
        filler.extend(bridge.b.said());
    }
    assert_eq!(filler, [SILENCE; 4]);
    bridge.b.peer_says(VOICE);
    let (_, header, payload) = bridge.say(2).unwrap();
    assert!(header.marker && payload[0] == 2);
}

#[test]
fn a_secured_leg_sends_nothing_in_the_clear_and_takes_nothing_forged() {
    let mut bridge = Bridge::new(&secure_plan(1, 2), &secure_plan(1, 2));
    bridge.b.crypto = None;
    let mut raw = Vec::new();
    for _ in 0..5 {
        raw.extend(bridge.say(0x77).map(|sent| sent.2));
    }
    assert_eq!(raw.len(), 5);
    for payload in &raw {
        assert_eq!(payload.len(), FRAME_SAMPLES + 10, "with its tag");
        assert!(payload.windows(8).all(|part| part != [0x77; 8]));
    }
    let mut forged = bridge.a.packet(0, &[0x77; FRAME_SAMPLES]);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(bridge.carry(&forged), []);
}

#[test]
fn noise_cancellation_cleans_what_crosses_packet_by_packet() {
    let mut bridge = Bridge::new(&plan(), &alaw_plan());
    bridge.a.session.clean_with(Some(Box::new(Cleaning::new())));
    for (samples, packets) in [(160, 60), (240, 6)] {
        for n in 0..packets {
            // Hiss: codes spread by a small generator.
            let hash = |at: usize| (at + n * 977).wrapping_mul(2_654_435_761) >> 28;
            let hiss = |at: usize| u8::try_from(hash(at) & 15).unwrap();
            let codes: Vec<_> =
                (0..samples).map(|at| 0xa0 | hiss(at) | (hiss(at) & 1) << 7).collect();
            let packet = bridge.a.packet(0, &codes);
            bridge.a.timestamp += u32::try_from(samples).unwrap();
            let sent = bridge.carry(&packet);
            assert_eq!((sent.len(), sent[0].2.len()), (1, samples));
            bridge.tick();
        }
    }
    bridge.a.session.bypass_cleaning(true);
    let mut expected = [VOICE];
    Codec::Pcmu.transcode(Codec::Pcma, &mut expected);
    assert_eq!(bridge.say(VOICE).unwrap().2, [expected[0]; FRAME_SAMPLES]);
    let noise = bridge.a.close().noise.unwrap();
    assert!(noise.before_dbfs - noise.after_dbfs > 3.0, "{noise:?}");
}

#[test]
fn a_leg_without_its_other_half_hears_silence_and_its_stream_goes_on() {
    let mut bridge = Bridge::new(&plan(), &plan());
    let before = bridge.say(1).unwrap().1;
    bridge.tick();
    bridge.b.session.connect(Far::Nobody);
    assert_eq!(bridge.say(2), None);
    bridge.tick();
    let sent = bridge.b.sent();
    assert_eq!((sent.len(), sent[0].2[0]), (1, SILENCE));
    assert_eq!(sent[0].1.sequence, before.sequence.wrapping_add(1));
    assert_eq!(sent[0].1.timestamp, before.timestamp.wrapping_add(160));
    assert!(sent[0].1.marker);
    assert!(!bridge.b.session.is_bridged());
}

#[test]
fn an_agent_takes_over_from_a_leg_with_nothing_left_of_it() {
    let mut bridge = Bridge::new(&plan(), &plan());
    for _ in 0..10 {
        bridge.say(0x85);
        bridge.tick();
    }
    let (worker, mut agent) = agent_port(50);
    bridge.a.session.connect(Far::Agent(worker));
    for _ in 0..10 {
        assert_eq!(bridge.say(VOICE), None);
        bridge.tick();
    }
    let codes = heard(&mut agent);
    assert!(codes.len() >= 8 && codes.iter().all(|code| *code == VOICE), "{codes:?}");
}

#[test]
fn each_leg_watches_and_reports_on_its_own_peer() {
    let mut bridge = Bridge::new(&plan(), &plan());
    for _ in 0..1_600 {
        bridge.say(1);
        bridge.tick();
    }
    assert_eq!(bridge.a.events(), []);
    assert_eq!(bridge.b.events(), [Event::MediaTimeout { key: KEY }]);
    let (a, b) = (bridge.a.close(), bridge.b.close());
    assert!(a.quality.mos.unwrap() > 4.0);
    assert_eq!((a.quality.packets_received, b.quality.packets_sent), (1_601, 1_600));
    let kinds = |world: &World| {
        let rtcp = world.outputs.sent.iter().filter(|(channel, ..)| *channel == Channel::Rtcp);
        rtcp.map(|(_, _, bytes)| bytes[1]).collect::<Vec<_>>()
    };
    assert!(kinds(&bridge.a).iter().all(|kind| *kind == 201), "it sent nothing");
    assert!(!kinds(&bridge.a).is_empty());
}

#[test]
fn what_crosses_depends_on_nothing_but_the_inputs() {
    let run = || {
        let mut bridge = Bridge::shut(&plan(), &secure_plan(1, 2));
        bridge.b.crypto = None;
        for world in [&mut bridge.a, &mut bridge.b] {
            world.open();
        }
        (0..50).map(|n| bridge.say(n)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_bridged_session_that_only_relays_may_be_left_alone_for_a_while() {
    let mut shut = Bridge::shut(&plan(), &plan());
    shut.tick();
    assert_eq!(shut.a.session.rest(), 0, "its gate is shut");
    let mut bridge = Bridge::new(&plan(), &plan());
    bridge.tick();
    assert_eq!(bridge.b.session.rest(), REST_TICKS);
    let spent = PEER_BURST / 2 + 10;
    (0..spent).for_each(|n| drop(bridge.say(u8::try_from(n % 100).unwrap())));
    assert_eq!(bridge.a.session.rest(), 0, "its peer sends too much to be left alone");
    bridge.b.session.dial('5', 100);
    assert_eq!(bridge.b.session.rest(), 0, "a key is sent in pieces of 20 ms");
    let mut agentless = World::new(&plan(), Far::Echo);
    agentless.open();
    agentless.peer_says(VOICE);
    assert_eq!(agentless.session.rest(), 0, "a far side speaks with every tick");
}

#[test]
fn what_is_relayed_takes_the_connected_socket_until_the_peer_is_elsewhere() {
    let mut bridge = Bridge::new(&plan(), &plan());
    assert_eq!(bridge.b.session.to_connect(bridge.b.now), None, "too early");
    (0..50).for_each(|_| bridge.tick());
    let now = bridge.b.now;
    assert_eq!(bridge.b.session.to_connect(now), Some(PEER));
    bridge.say(1).unwrap();
    assert_eq!(bridge.b.outputs.connected, 0);
    bridge.b.session.connected(now, true);
    bridge.say(2).unwrap();
    assert_eq!((bridge.b.outputs.connected, bridge.b.session.to_connect(now)), (1, None));
    let elsewhere = SocketAddr::new(PEER_IP, 6_000);
    bridge.b.session.apply(now, &Plan { remote: elsewhere, ..plan() });
    let (to, ..) = bridge.say(3).unwrap();
    assert_eq!((to, bridge.b.outputs.connected), (elsewhere, 1));
}

#[test]
fn a_session_that_was_left_alone_loses_neither_budget_nor_time() {
    // A second of audio, one of silence, and one near the most that a peer may send.
    const PACKETS: [u32; 3] = [1, 0, 8];
    let (mut ticked, mut rested) = (Bridge::new(&plan(), &plan()), Bridge::new(&plan(), &plan()));
    let mut sent = [Vec::new(), Vec::new()];
    for packets in PACKETS {
        for frame in 0..50_u16 {
            for (bridge, sent) in [&mut ticked, &mut rested].into_iter().zip(&mut sent) {
                for _ in 0..packets {
                    let (_, header, _) = bridge.say(VOICE).expect("it is within its budget");
                    sent.push((header.sequence, header.timestamp));
                }
            }
            ticked.tick();
            if frame % (REST_TICKS + 1) == REST_TICKS {
                for world in [&mut rested.a, &mut rested.b] {
                    world.now += Duration::from_millis(20 * u64::from(REST_TICKS));
                    world.session.make_up_for(REST_TICKS);
                    world.tick();
                }
            }
        }
        for bridge in [&mut ticked, &mut rested] {
            // Another source takes up where we are in time.
            bridge.a.ssrc += u32::from(packets == 0);
        }
    }
    assert_eq!(sent[0], sent[1]);
    assert_eq!(rested.a.session.report().drops, Drops::default());
}
