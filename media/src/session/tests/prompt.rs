//! How soon and how completely an agent hears the caller.

use super::*;

/// What the agent has got since the last call: the code of each frame.
fn codes(agent: &mut AgentPort) -> Vec<u8> {
    let frames = std::iter::from_fn(|| agent.pull()).filter_map(|up| match up {
        Up::Frame(frame) => Some(frame),
        Up::Digit { .. } => None,
    });
    let encode = |frame: Frame| {
        let mut code = [0; FRAME_SAMPLES];
        Codec::Pcmu.encode(&frame.samples, &mut code);
        code[80]
    };
    frames.map(encode).collect()
}

/// An open call whose caller has spoken for a while; the next packet has the code 0.
fn talking() -> (World, AgentPort) {
    let (mut world, mut agent) = World::with_agent(&plan());
    world.open();
    for _ in 0..20 {
        world.peer_says(VOICE);
        world.tick();
        assert_eq!(codes(&mut agent), [VOICE]);
    }
    (world, agent)
}

/// Packets of the peer with the codes given, ready to arrive in any order.
fn packets(world: &mut World, codes: impl IntoIterator<Item = u8>) -> Vec<Vec<u8>> {
    let packet = |code| {
        let packet = world.packet(0, &[code; FRAME_SAMPLES]);
        world.timestamp = world.timestamp.wrapping_add(160);
        packet
    };
    codes.into_iter().map(packet).collect()
}

fn arrive(world: &mut World, packet: &[u8]) {
    world.arrive(Channel::Rtp, PEER, packet, Duration::ZERO);
}

#[test]
fn a_frame_is_handed_on_when_it_arrives() {
    let (mut world, mut agent) = talking();
    assert!(world.session.take_fed_agent());
    assert!(!world.session.take_fed_agent());
    world.peer_says(0x81);
    assert_eq!(codes(&mut agent), [0x81]);
    assert!(world.session.take_fed_agent());
    world.tick();
    assert_eq!(codes(&mut agent), [0_u8; 0]);
}

#[test]
fn packets_that_come_in_bunches_are_neither_lost_nor_added_to() {
    let (mut world, mut agent) = talking();
    let mut said = Vec::new();
    for n in 0..100_u8 {
        // Two ticks without a packet, then three at once.
        let bunch = if n % 3 == 2 { 3 } else { 0 };
        for _ in 0..bunch {
            world.peer_says(0x80 | (n % 8));
            said.push(0x80 | (n % 8));
        }
        world.tick();
        if n == 30 {
            // By now it is known how late packets may be.
            codes(&mut agent);
            said.clear();
        }
    }
    let heard = codes(&mut agent);
    let skipped = said.len() - heard.len().min(said.len());
    assert_eq!(heard, said[skipped..], "the ring holds a second");
}

#[test]
fn swapped_packets_are_put_in_order_and_a_copy_is_heard_once() {
    let (mut world, mut agent) = talking();
    let packets = packets(&mut world, 1..=4);
    for at in [1, 0, 0, 3, 1, 2] {
        arrive(&mut world, &packets[at]);
    }
    assert_eq!(codes(&mut agent), [1, 2, 3, 4]);
}

#[test]
fn a_lost_packet_is_concealed_once_and_holds_the_others_up_for_no_longer_than_it_might_be_late() {
    let (mut world, mut agent) = talking();
    let packets = packets(&mut world, 1..=10);
    let mut heard = Vec::new();
    let mut held_up = 0;
    for (n, packet) in packets.iter().enumerate() {
        if n != 3 {
            arrive(&mut world, packet);
        }
        world.tick();
        let new = codes(&mut agent);
        held_up += u32::from(new.is_empty());
        heard.extend(new);
    }
    assert_eq!(heard.len(), 10);
    assert_eq!(heard[..3], [1, 2, 3]);
    assert_eq!(heard[4..], [5, 6, 7, 8, 9, 10]);
    assert!((1..=2).contains(&held_up), "{held_up}");
    assert_eq!(world.session.report().playout.lost, 1);
}

#[test]
fn a_silent_caller_is_comfort_noise_with_every_tick() {
    for spoke in [true, false] {
        let (mut world, mut agent) = World::with_agent(&plan());
        world.open();
        for _ in 0..10 {
            if spoke {
                world.peer_says(VOICE);
            }
            world.tick();
        }
        assert_eq!(codes(&mut agent).len(), 10);
        for tick in 0..100 {
            world.tick();
            let frames = codes(&mut agent).len();
            // It may be late before it is silent.
            assert!((spoke && tick < 10) || frames == 1, "{tick}: {frames}");
        }
    }
}

#[test]
fn over_time_there_is_a_frame_for_every_tick_whatever_the_sender_leaves_out() {
    let (mut world, mut agent) = talking();
    let mut frames = 0;
    for n in 0..2_000 {
        // Spurts of speech with pauses in between, in which time goes on (RFC 3551 §4.1).
        if n % 100 < 60 {
            world.peer_says(VOICE);
        } else {
            world.timestamp = world.timestamp.wrapping_add(160);
        }
        world.tick();
        frames += codes(&mut agent).len();
    }
    assert!((1_990..=2_000).contains(&frames), "{frames}");
}

#[test]
fn a_burst_after_a_stall_of_the_network_is_bounded_and_made_good_where_it_is_quiet() {
    let (mut world, mut agent) = talking();
    for _ in 0..50 {
        world.tick();
    }
    assert_eq!(codes(&mut agent).len(), 50);
    for packet in packets(&mut world, [VOICE; 50]) {
        arrive(&mut world, &packet);
    }
    let burst = codes(&mut agent).len();
    assert!((1..=10).contains(&burst), "{burst}");
    let mut surplus = burst;
    for _ in 0..1_000 {
        world.peer_says(SILENCE);
        world.tick();
        surplus = surplus + codes(&mut agent).len() - 1;
    }
    assert!(surplus <= 1, "{surplus}");
}

#[test]
fn every_packet_time_is_cut_into_frames_at_once() {
    for (samples, packets) in [(80, 24), (240, 8), (480, 4), (1_600, 2)] {
        let (mut world, mut agent) = World::with_agent(&plan());
        world.open();
        let mut frames = 0;
        for _ in 0..packets {
            let packet = world.packet(0, &vec![VOICE; samples]);
            world.timestamp += u32::try_from(samples).unwrap();
            arrive(&mut world, &packet);
            let heard = codes(&mut agent);
            assert!(heard.iter().all(|code| *code == VOICE));
            frames += heard.len();
        }
        assert_eq!(frames, (samples * packets / FRAME_SAMPLES).min(10), "{samples}");
    }
}

#[test]
fn a_senders_fast_clock_fills_nothing_up() {
    let (mut world, mut agent) = talking();
    let mut frames = 0;
    for n in 0..5_000_u32 {
        // One packet in a hundred more than there are ticks; pauses are quiet.
        let code = if n % 50 < 30 { VOICE } else { SILENCE };
        world.peer_says(code);
        if n % 100 == 0 {
            world.peer_says(code);
        }
        world.tick();
        frames += codes(&mut agent).len();
    }
    assert!((5_000..=5_003).contains(&frames), "{frames}");
}
