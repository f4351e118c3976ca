//! When the caller hears what an agent says.

use super::*;
use crate::doorbell::Doorbell;

/// A call whose agent knocks when it is awaited, and is let in at once.
struct Talk {
    world: World,
    agent: AgentPort,
    bell: Arc<Doorbell>,
    /// Times that the agent has knocked.
    knocks: u32,
}

const DOOR: usize = 3;

impl Talk {
    fn new() -> Self {
        let (mut world, agent) = World::with_agent(&plan());
        let bell = Arc::new(Doorbell::new(DOOR + 1).unwrap());
        world.session.live_at(&bell, DOOR);
        world.open();
        Self { world, agent, bell, knocks: 0 }
    }

    /// An agent that has been silent for a second.
    fn silent() -> Self {
        let mut talk = Self::new();
        talk.world.ticks(50);
        talk.world.sent();
        talk
    }

    /// An agent that has spoken live for a second, `ms` after each tick. The next frame is due as
    /// many after the next tick.
    fn live(ms: u64) -> Self {
        let mut talk = Self::silent();
        for _ in 0..50 {
            assert_eq!(talk.says_after(ms, &[VOICE]), [VOICE]);
            assert_eq!(talk.rests(20 - ms), [0; 0]);
        }
        talk
    }

    /// The agent says `codes` and the worker hears if it knocks; what was sent thereupon.
    fn says(&mut self, codes: &[u8]) -> Vec<u8> {
        push_frames(&mut self.agent, codes);
        let mut knocked = false;
        self.bell.answer(|door| knocked = door == DOOR);
        if knocked {
            self.knocks += 1;
            self.world.session.handle_speech(&mut self.world.outputs);
        }
        self.world.said()
    }

    /// The same, some time after the last tick.
    fn says_after(&mut self, ms: u64, codes: &[u8]) -> Vec<u8> {
        self.world.now += Duration::from_millis(ms);
        self.says(codes)
    }

    /// The tick comes after so many milliseconds; what was sent in it.
    fn rests(&mut self, ms: u64) -> Vec<u8> {
        self.world.now += Duration::from_millis(ms);
        self.world.session.handle_tick(self.world.now, 0, &mut self.world.outputs);
        self.world.said()
    }

    /// A whole tick of 20 ms.
    fn tick(&mut self) -> Vec<u8> {
        self.rests(20)
    }
}

#[test]
fn a_live_frame_leaves_when_it_comes_wherever_between_the_ticks() {
    for ms in 0..20 {
        let mut talk = Talk::live(ms);
        assert_eq!(talk.knocks, 50);
        let report = talk.world.close();
        assert_eq!(report.frames_played, 50);
    }
}

#[test]
fn the_first_word_after_a_silence_does_not_wait_and_the_rest_of_a_queue_is_paced() {
    let mut talk = Talk::silent();
    assert_eq!(talk.says_after(7, &[1, 2, 3, 4, 5]), [1]);
    assert_eq!(talk.knocks, 1);
    assert_eq!(talk.rests(13), [2]);
    for code in 3..=5 {
        assert_eq!(talk.says(&[6]), [0; 0], "one that must wait is not knocked for");
        assert_eq!(talk.tick(), [code]);
    }
    assert_eq!(talk.knocks, 1);
    assert_eq!([talk.tick(), talk.tick(), talk.tick()], [[6], [6], [6]]);
    assert_eq!(talk.tick(), [SILENCE], "a queue that ends is not waited for");
}

#[test]
fn twenty_milliseconds_are_one_packet_whatever_an_agent_does() {
    let mut talk = Talk::new();
    let mut sent = Vec::new();
    let mut dice = 7_u32;
    for _ in 0..5_000 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let said = match dice >> 28 {
            0 => vec![VOICE; 8],
            1..=4 => vec![VOICE],
            5..=6 => vec![VOICE; 2],
            _ => vec![],
        };
        talk.world.now += Duration::from_millis(9);
        push_frames(&mut talk.agent, &said);
        talk.bell.answer(|_| talk.world.session.handle_speech(&mut talk.world.outputs));
        talk.world.now += Duration::from_millis(11);
        talk.world.session.handle_tick(talk.world.now, 0, &mut talk.world.outputs);
        let new = talk.world.sent();
        assert!(new.len() <= 6, "{}", new.len());
        sent.extend(new.into_iter().map(|(_, header, _)| header));
    }
    assert!((4_997..=5_000).contains(&sent.len()), "{}", sent.len());
    for pair in sent.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160));
    }
}

#[test]
fn a_silent_agent_is_silence_every_tick_but_for_one_that_is_left_out() {
    let mut talk = Talk::new();
    assert_eq!(talk.tick(), [SILENCE]);
    assert_eq!(talk.tick(), [0; 0], "so the first word need not wait");
    assert!((0..20).all(|_| talk.tick() == [SILENCE]));
    assert_eq!(talk.says(&[1, 2, 3]), [1]);
    assert_eq!((talk.tick(), talk.tick()), (vec![2], vec![3]));
    let sent: Vec<_> = (0..20).map(|_| talk.tick().len()).collect();
    assert_eq!(sent.iter().sum::<usize>(), 19);
    assert_eq!(sent[5], 0, "and the first one after a pause neither");
}

#[test]
fn a_live_agent_that_has_fallen_behind_catches_up_a_frame_a_second() {
    let mut talk = Talk::live(10);
    // Three ticks without a word, then all of it, and on it goes.
    (0..4).for_each(|_| drop(talk.tick()));
    talk.says_after(10, &[VOICE; 4]);
    let mut late = Vec::new();
    for _ in 0..250 {
        talk.rests(10);
        late.push(talk.world.session.far.waiting());
        talk.says_after(10, &[VOICE]);
    }
    assert!(late[0] >= 1, "{late:?}");
    let all_at_once = talk.rests(10);
    assert_eq!(all_at_once, [0; 0]);
    assert_eq!(talk.says_after(10, &[VOICE]), [VOICE], "{late:?}");
    assert!(late.windows(50).all(|second| second[0] - second[49] <= 1), "{late:?}");
}

#[test]
fn what_was_sent_ahead_of_real_time_is_paid_back_in_silence() {
    let mut talk = Talk::new();
    talk.world.ticks(10);
    let mut ticks = 10;
    for _ in 0..4 {
        talk.says(&[VOICE; 4]);
        for _ in 0..200 {
            talk.rests(20);
            talk.says(&[VOICE]);
        }
        ticks += 200;
    }
    let spoken = talk.world.session.report().quality.packets_sent;
    assert!((ticks + 6..=ticks + 25).contains(&spoken), "{spoken} of {ticks}");
    let pauses: Vec<_> = (0..100).map(|_| talk.tick().len()).collect();
    assert!(pauses[3..].windows(2).all(|pair| pair != [0, 0]), "{pauses:?}");
    let sent = talk.world.session.report().quality.packets_sent;
    assert_eq!(sent, ticks + 100 - 1, "one is held back for the next word");
}

#[test]
fn an_agent_that_began_between_two_ticks_and_never_paused_is_live_in_the_end() {
    let mut talk = Talk::new();
    talk.says(&[VOICE; 2]);
    for _ in 0..200 {
        talk.rests(13);
        talk.says_after(7, &[VOICE]);
    }
    assert_eq!(talk.rests(13), [0; 0]);
    assert_eq!(talk.says_after(7, &[VOICE]), [VOICE]);
}

#[test]
fn a_queue_is_never_hurried() {
    let mut talk = Talk::silent();
    let said = talk.says(&[VOICE; 400]).len();
    assert_eq!(said, 1);
    assert!((0..399).all(|_| talk.tick() == [VOICE]));
}

#[test]
fn a_late_frame_of_a_live_agent_is_awaited_and_causes_no_silence() {
    for late_ms in 0..=20 {
        let mut talk = Talk::live(10);
        let mut ticks = late_ms + 10;
        while ticks >= 20 {
            assert_eq!(talk.tick(), [0; 0], "{late_ms}");
            ticks -= 20;
        }
        // All that is late has come by now, in one go.
        let due: Vec<u8> = vec![VOICE; 1 + usize::try_from(late_ms / 20).unwrap()];
        assert_eq!(talk.says_after(ticks, &due), due, "{late_ms}");
        assert_eq!(talk.rests(20 - ticks), [0; 0]);
    }
}

#[test]
fn a_live_agent_that_falls_silent_is_silence_soon_and_nothing_is_left_out() {
    let mut talk = Talk::live(10);
    let sent: Vec<_> = (0..50).map(|_| talk.tick()).collect();
    assert_eq!(sent[..3], [vec![], vec![SILENCE], vec![SILENCE]]);
    assert_eq!(sent.iter().flatten().count(), 50);
    assert!(sent.iter().all(|said| said.len() <= 2));
}

#[test]
fn what_comes_in_one_go_after_a_long_pause_of_the_link_is_no_burst() {
    let mut talk = Talk::live(10);
    (0..10).for_each(|_| drop(talk.tick()));
    let burst = talk.says_after(10, &[VOICE; 10]);
    assert!(burst.len() <= 3, "{}", burst.len());
    assert!((0..7).all(|_| talk.tick().len() <= 1));
}

#[test]
fn a_stall_of_the_worker_ends_with_60_ms_at_most() {
    for (stall_ms, missed) in [(60, 0), (1_000, 47)] {
        let mut talk = Talk::live(10);
        push_frames(&mut talk.agent, &[VOICE; 20]);
        talk.world.now += Duration::from_millis(stall_ms);
        for turn in 0..3 {
            let missed = if turn == 0 { missed } else { 0 };
            talk.world.session.handle_tick(talk.world.now, missed, &mut talk.world.outputs);
        }
        assert_eq!(talk.world.said(), [VOICE; 3]);
        assert!(talk.tick().len() <= 2);
        assert_eq!(talk.tick().len(), 1);
    }
}

#[test]
fn a_cleared_agent_is_silent_at_once_and_may_speak_again_at_once() {
    let mut talk = Talk::silent();
    assert_eq!(talk.says(&[1; 50]), [1]);
    assert_eq!((talk.tick(), talk.tick()), (vec![1], vec![1]));
    talk.agent.clear();
    assert_eq!(talk.tick(), [SILENCE]);
    assert_eq!(talk.agent.consumed(), talk.agent.pushed());
    (0..10).for_each(|_| drop(talk.tick()));
    assert_eq!(talk.says_after(5, &[2]), [2]);
}

#[test]
fn a_key_lasts_as_long_as_it_has_to_wherever_it_begins() {
    let mut talk = Talk::silent();
    talk.agent.push(Down::Digit { digit: '5', duration_ms: 100 }).unwrap();
    let mut sent = Vec::new();
    assert!(talk.says_after(5, &[VOICE]).is_empty() || talk.world.session.leg.is_dialling());
    for _ in 0..15 {
        talk.tick();
        sent.push(talk.agent.consumed());
    }
    assert_eq!(*sent.last().unwrap(), 2, "the key, and the frame behind it");
    let before = sent.iter().filter(|consumed| **consumed < 2).count();
    assert!((5..=12).contains(&before), "{before}");
    assert_eq!(talk.world.close().digits_sent, 1);
}

#[test]
fn nobody_is_let_in_before_the_gate_opens_or_on_hold() {
    let (mut world, mut agent) = World::with_agent(&plan());
    push_frames(&mut agent, &[VOICE]);
    world.session.handle_speech(&mut world.outputs);
    assert_eq!(world.outputs.sent, []);
    let mut talk = Talk::live(10);
    let held = Plan { send: false, ..plan() };
    talk.world.session.apply(talk.world.now, &held);
    assert_eq!(talk.says_after(10, &[VOICE]), [0; 0]);
    assert_eq!(talk.tick(), [0; 0]);
    talk.world.session.apply(talk.world.now, &plan());
    assert_eq!(talk.tick(), [VOICE]);
}
