//! Two endpoints back to back, with every message lost in turn.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sip::endpoint::{
    ClientTx, Content, DialogId, Endpoint, Event, Invite, Options, Reply, Transmit, Trust,
};
use sip::{Flow, Method, Transport};

use crate::support::{OFFER, OUR_CONTACT, epoch, first_line, flow, mirrored};

/// What each side does by itself, and what it has seen.
#[derive(Default)]
struct Side {
    answered: Option<u16>,
    dialog: Option<DialogId>,
    acked: bool,
    ended: bool,
    failed: bool,
}

struct World {
    start: Instant,
    now: Instant,
    sides: [Endpoint; 2],
    seen: [Side; 2],
    call: Option<ClientTx>,
    /// Everything sent, as `0 INVITE …` or `1 SIP/2.0 …`, lost or not.
    wire: Vec<String>,
    bytes: Vec<u8>,
    /// Loses the messages with these numbers.
    lost: Box<dyn Fn(usize) -> bool>,
    flow: Flow,
    /// How the callee answers.
    status: u16,
}

impl World {
    fn new(transport: Transport, status: u16, lost: impl Fn(usize) -> bool + 'static) -> World {
        let start = epoch();
        let sides = [1, 2].map(|seed| Endpoint::new(Options::default(), [seed; 32]));
        World {
            start,
            now: start,
            sides,
            seen: Default::default(),
            call: None,
            wire: vec![],
            bytes: vec![],
            lost: Box::new(lost),
            flow: flow(transport),
            status,
        }
    }

    fn dial(&mut self) {
        let invite = Invite {
            flow: self.flow,
            request_uri: "sip:192.0.2.9",
            from: "<sip:a@192.0.2.1>",
            to: "<sip:b@192.0.2.9>",
            contact: OUR_CONTACT,
            headers: &[],
            body: Some(("application/sdp", OFFER)),
            call_id: None,
        };
        self.call = Some(self.sides[0].invite(self.now, invite).unwrap());
        self.settle();
    }

    /// Lets messages fly and sides react until nothing moves.
    fn settle(&mut self) {
        let mut flying: VecDeque<(usize, Transmit)> = VecDeque::new();
        loop {
            for side in 0..2 {
                while let Some(event) = self.sides[side].poll_event() {
                    self.react(side, event);
                }
                while let Some(transmit) = self.sides[side].poll_transmit() {
                    flying.push_back((side, transmit));
                }
            }
            let Some((side, Transmit { flow, bytes })) = flying.pop_front() else { return };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            self.bytes.extend_from_slice(&bytes);
            self.wire.push(format!("{side} {}", first_line(&text)));
            if !(self.lost)(self.wire.len() - 1) {
                self.sides[1 - side].handle_message(self.now, mirrored(flow), bytes, Trust::Known);
            }
        }
    }

    fn react(&mut self, side: usize, event: Event) {
        let (now, endpoint, seen) = (self.now, &mut self.sides[side], &mut self.seen[side]);
        match event {
            Event::Invite { tx, .. } => {
                let contact = Some("<sip:192.0.2.9:5060>");
                let ring = Reply { contact, ..Reply::new(180) };
                endpoint.respond(now, tx, ring).unwrap();
                let reply = Reply { contact, ..Reply::new(self.status) };
                seen.dialog = endpoint.respond(now, tx, reply).unwrap();
            }
            Event::InDialog { tx, request, .. } => {
                seen.ended |= request.method() == Method::Bye;
                endpoint.respond(now, tx, Reply::new(200)).unwrap();
            }
            Event::Acked { .. } => seen.acked = true,
            Event::AckMissing { dialog } => {
                endpoint.request(now, dialog, Method::Bye, Content::default()).unwrap();
            }
            Event::Response { response, dialog, .. } => {
                if response.cseq().1 == Method::Bye {
                    seen.ended = true;
                } else if !response.is_provisional() {
                    assert!(seen.answered.is_none(), "one final response");
                    seen.answered = Some(response.status());
                    seen.dialog = dialog;
                    if let Some(dialog) = dialog {
                        endpoint.ack(now, dialog, None).unwrap();
                    }
                }
            }
            Event::Failed { .. } => seen.failed = true,
            Event::Request { .. } | Event::Cancelled { .. } | Event::Malformed { .. } => {
                panic!("{event:?}")
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        loop {
            let next = self.sides.iter().filter_map(|side| side.poll_timeout()).min();
            let Some(at) = next.filter(|at| *at <= until) else { break };
            self.now = at;
            for side in &mut self.sides {
                side.handle_timeout(at);
            }
            self.settle();
        }
        self.now = until;
    }

    fn hang_up(&mut self, side: usize) {
        let dialog = self.seen[side].dialog.unwrap();
        let bye = self.sides[side].request(self.now, dialog, Method::Bye, Content::default());
        assert!(bye.is_ok());
        self.settle();
    }

    /// A whole call that the caller ends.
    fn whole_call(&mut self) {
        self.dial();
        self.pass(20_000);
        self.hang_up(0);
        self.pass(70_000);
    }

    fn assert_nothing_left(&self) {
        for side in &self.sides {
            assert_eq!(side.load(), Default::default());
        }
    }
}

const PLAIN: [&str; 7] = [
    "0 INVITE sip:192.0.2.9 SIP/2.0",
    "1 SIP/2.0 100 Trying",
    "1 SIP/2.0 180 Ringing",
    "1 SIP/2.0 200 OK",
    "0 ACK sip:192.0.2.9:5060 SIP/2.0",
    "0 BYE sip:192.0.2.9:5060 SIP/2.0",
    "1 SIP/2.0 200 OK",
];

#[test]
fn a_call_is_seven_messages_and_leaves_nothing_behind() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut world = World::new(transport, 200, |_| false);
        world.whole_call();
        assert_eq!(world.wire, PLAIN);
        assert!(world.seen.iter().all(|side| side.ended));
        world.assert_nothing_left();
    }
}

#[test]
fn any_one_or_two_lost_messages_harm_no_call() {
    for first in 0..12 {
        for second in first..12 {
            let mut world = World::new(Transport::Udp, 200, move |n| n == first || n == second);
            world.whole_call();
            let [caller, callee] = &world.seen;
            let story = format!("{first} and {second} lost: {:#?}", world.wire);
            assert_eq!(caller.answered, Some(200), "{story}");
            assert!(callee.acked && caller.ended && callee.ended, "{story}");
            world.assert_nothing_left();
        }
    }
}

#[test]
fn any_one_or_two_lost_messages_harm_no_refusal() {
    for first in 0..8 {
        for second in first..8 {
            let mut world = World::new(Transport::Udp, 486, move |n| n == first || n == second);
            world.dial();
            world.pass(70_000);
            assert_eq!(world.seen[0].answered, Some(486), "{:#?}", world.wire);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_peer_that_falls_silent_at_any_message_is_given_up_and_nothing_leaks() {
    for silent_from in 0..PLAIN.len() {
        let mut world = World::new(Transport::Udp, 200, move |n| n >= silent_from);
        world.dial();
        world.pass(40_000);
        if let Some(call) = world.call {
            // The application's limit on ringing; an error says that the call is over already.
            let _ = world.sides[0].cancel(world.now, call);
        }
        for side in 0..2 {
            if let Some(dialog) = world.seen[side].dialog {
                let _ =
                    world.sides[side].request(world.now, dialog, Method::Bye, Content::default());
            }
        }
        world.settle();
        world.pass(80_000);
        for (side, seen) in world.sides.iter_mut().zip(&world.seen) {
            if let Some(dialog) = seen.dialog {
                side.forget(dialog);
            }
            assert_eq!(side.load(), Default::default(), "silent from {silent_from}");
        }
    }
}

#[test]
fn byes_that_cross_end_the_call_once_on_both_sides() {
    let mut world = World::new(Transport::Udp, 200, |_| false);
    world.dial();
    for side in 0..2 {
        let dialog = world.seen[side].dialog.unwrap();
        let bye = world.sides[side].request(world.now, dialog, Method::Bye, Content::default());
        assert!(bye.is_ok());
    }
    world.settle();
    world.pass(70_000);
    assert!(world.seen.iter().all(|side| side.ended && !side.failed));
    world.assert_nothing_left();
}

#[test]
fn the_same_seed_and_inputs_give_the_same_bytes() {
    let run = || {
        let mut world = World::new(Transport::Udp, 200, |n| n % 3 == 1);
        world.whole_call();
        assert!(world.now > world.start);
        world.bytes
    };
    assert_eq!(run(), run());
}
