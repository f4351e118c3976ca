//! The dial machine: how one SIP leg is called, without sockets, clock or tasks.
//!
//! ```text
//!  ┌──────────┐ targets ┌────────────┐ flow  ┌──────────┐ 100 ┌────────────┐ 18x ┌─────────┐
//!  │ Locating │ ──────► │ Connecting │ ────► │ Inviting │ ──► │ Proceeding │ ──► │ Ringing │
//!  └──────────┘         └────────────┘       └──────────┘     └────────────┘     └─────────┘
//!                        ▲   next target:      │  ▲ │ 401, 407: again       │          │
//!                        │   503, time-out,    │  └─┘ 488: again, plain     │ 2xx      │ 2xx
//!                        └── broken, silent ───┘                            ▼          ▼
//!                                                                       ┌──────────────────┐
//!                       Over: refused, out of targets, given up         │     Answered     │
//!                                                                       └──────────────────┘
//! ```
//!
//! Three kinds of leg are dialled this way: the callee behind a customer's carrier, an agent that is
//! a SIP endpoint, and the number a caller is transferred to. The targets are those of RFC 3263 in
//! their order; the next is tried after a time-out, a 5xx or a broken transport (§4.3), never after a
//! refusal and never once we have given up. An INVITE that is left behind in silence is cancelled, and
//! should it be answered all the same the endpoint ends it with ACK and BYE, so that two answers are
//! never alive.

/// Where the dialling of one leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The host is being looked up.
    Locating,
    /// A connection to the present target is being opened.
    Connecting,
    /// The INVITE is out, and nothing has come back.
    Inviting,
    /// A 100 came: somebody works on it.
    Proceeding,
    /// A 101–199 came: the far side is being alerted.
    Ringing,
    /// The call is answered. The leg is the call's from here on.
    Answered,
    /// Nothing more comes of it.
    Over,
}

impl State {
    /// Every state, for the transition table.
    pub const ALL: [State; 7] = [
        State::Locating,
        State::Connecting,
        State::Inviting,
        State::Proceeding,
        State::Ringing,
        State::Answered,
        State::Over,
    ];
}

/// What can happen while a leg is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The host has this many targets, at least one.
    Located(usize),
    /// The host has no target.
    NotLocated,
    /// The flow to the target is there.
    Connected,
    /// There is no flow to the target.
    NotConnected,
    /// 100 Trying.
    Trying,
    /// Any other provisional response.
    Rings,
    /// 2xx with an answer that media can work with.
    Accepted,
    /// 2xx with an answer that it cannot.
    BadAnswer,
    /// 401 or 407 for which there are credentials that were not refused before.
    Challenged,
    /// 488 or 415: the offer is not acceptable there.
    MediaRefused,
    /// 500, 502, 503, 504, no answer in 64·T1, or a broken flow: this target is out of order.
    Unavailable,
    /// Any other final response.
    Refused,
    /// The present target has been silent for as long as is waited before trying the next.
    Silent,
    /// The leg is not wanted any more: it rang for too long, or the call is over.
    GiveUp,
}

impl Input {
    /// One example of every input, for the transition table.
    pub const ALL: [Input; 14] = [
        Input::Located(2),
        Input::NotLocated,
        Input::Connected,
        Input::NotConnected,
        Input::Trying,
        Input::Rings,
        Input::Accepted,
        Input::BadAnswer,
        Input::Challenged,
        Input::MediaRefused,
        Input::Unavailable,
        Input::Refused,
        Input::Silent,
        Input::GiveUp,
    ];
}

/// What the owner must do now, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a flow to the next target.
    Connect,
    /// Send the INVITE: the secure offer first where there are two.
    Invite,
    /// Send the INVITE again with credentials.
    Authenticate,
    /// Send the INVITE again with the plain offer.
    InvitePlain,
    /// Tell that it rings.
    Ring,
    /// Acknowledge, open media, tell that the leg is up.
    Accept,
    /// Acknowledge and hang up.
    HangUp,
    /// Withdraw the INVITE that is out.
    Cancel,
    /// Tell that it has failed; the owner knows the last reason.
    Fail,
}

/// At most two actions follow from one input.
pub type Actions = [Option<Action>; 2];

/// The state of one leg being dialled.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    targets_left: usize,
    plain_left: bool,
}

impl Machine {
    /// A leg whose host is being looked up. `falls_back` when a plain offer may follow a refused
    /// secure one.
    #[must_use]
    pub fn new(falls_back: bool) -> Self {
        Machine { state: State::Locating, targets_left: 0, plain_left: falls_back }
    }

    /// Where the dialling is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether there is a target to turn to should the present one stay silent.
    #[must_use]
    pub fn has_alternative(&self) -> bool {
        self.targets_left > 0
    }

    /// All transitions, in the order of the figure.
    pub fn handle(&mut self, input: Input) -> Actions {
        use Action::{
            Accept, Authenticate, Cancel, Connect, Fail, HangUp, Invite, InvitePlain, Ring,
        };
        use State::{Answered, Connecting, Inviting, Locating, Over, Proceeding, Ringing};
        let next_target = self.targets_left > 0;
        let (next, actions) = match (self.state, input) {
            (Locating, Input::Located(targets)) => {
                self.targets_left = targets;
                (Connecting, [Some(Connect), None])
            }
            (Locating, Input::NotLocated) => (Over, [Some(Fail), None]),
            (Locating | Connecting, Input::GiveUp) => (Over, [None, None]),

            (Connecting, Input::Connected) => (Inviting, [Some(Invite), None]),
            (Connecting, Input::NotConnected) if next_target => (Connecting, [Some(Connect), None]),
            (Connecting, Input::NotConnected) => (Over, [Some(Fail), None]),

            (Inviting, Input::Trying) => (Proceeding, [None, None]),
            (Inviting | Proceeding, Input::Rings) => (Ringing, [Some(Ring), None]),
            (Inviting | Proceeding, Input::Silent) if next_target => {
                (Connecting, [Some(Cancel), Some(Connect)])
            }

            (Inviting | Proceeding | Ringing, Input::Accepted) => (Answered, [Some(Accept), None]),
            (Inviting | Proceeding | Ringing, Input::BadAnswer) => {
                (Over, [Some(HangUp), Some(Fail)])
            }
            (Inviting | Proceeding | Ringing, Input::Challenged) => {
                (Inviting, [Some(Authenticate), None])
            }
            (Inviting | Proceeding | Ringing, Input::MediaRefused) if self.plain_left => {
                self.plain_left = false;
                (Inviting, [Some(InvitePlain), None])
            }
            (Inviting | Proceeding, Input::Unavailable) if next_target => {
                (Connecting, [Some(Connect), None])
            }
            (
                Inviting | Proceeding | Ringing,
                Input::Refused | Input::MediaRefused | Input::Unavailable,
            ) => (Over, [Some(Fail), None]),
            (Inviting | Proceeding | Ringing, Input::GiveUp) => (Over, [Some(Cancel), None]),

            (Locating, _) | (Connecting, _) | (Inviting, _) | (Proceeding, _) | (Ringing, _) => {
                (self.state, [None, None])
            }
            (Answered | Over, _) => (self.state, [None, None]),
        };
        if actions.contains(&Some(Connect)) {
            self.targets_left = self.targets_left.saturating_sub(1);
        }
        self.state = next;
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// The whole table as text, with and without something left to try.
    fn table() -> String {
        let mut text = String::from("state × input → state: actions\n");
        for (left, heading) in
            [(true, "another target and the plain offer left"), (false, "nothing left")]
        {
            writeln!(text, "\n# {heading}").expect("a String takes all text");
            let pairs = State::ALL.iter().flat_map(|s| Input::ALL.iter().map(move |i| (*s, *i)));
            for (state, input) in pairs {
                let next = outcome(state, input, left);
                writeln!(text, "{state:?} × {input:?} → {next}").expect("a String takes all text");
            }
        }
        text
    }

    fn outcome(state: State, input: Input, left: bool) -> String {
        let mut machine = Machine { state, targets_left: usize::from(left), plain_left: left };
        let actions = machine.handle(input);
        let listed: Vec<_> = actions.iter().flatten().map(|action| format!("{action:?}")).collect();
        if machine.state == state && listed.is_empty() {
            return "absorbed".to_owned();
        }
        format!("{:?}: {}", machine.state, listed.join(", "))
            .trim_end_matches([':', ' '])
            .to_owned()
    }

    #[test]
    fn the_transition_table_is_the_golden_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/call/dial.golden.txt");
        let table = table();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &table).expect("the golden file is writable");
        }
        let golden = std::fs::read_to_string(path).expect("the golden file exists");
        assert_eq!(table, golden, "run with UPDATE_GOLDEN=1 and review the difference");
    }

    /// How often a leg that was connected comes to an end.
    fn ends(inputs: [Input; 3]) -> usize {
        let mut machine = Machine::new(true);
        let begin = [Input::Located(2), Input::Connected];
        begin
            .into_iter()
            .chain(inputs)
            .chain([Input::GiveUp])
            .flat_map(|input| machine.handle(input))
            .flatten()
            .filter(|action| matches!(action, Action::Accept | Action::Fail))
            .count()
    }

    #[test]
    fn a_leg_comes_to_one_end_whatever_happens() {
        for first in Input::ALL {
            for second in Input::ALL {
                for third in Input::ALL {
                    let inputs = [first, second, third];
                    assert!(ends(inputs) <= 1, "{inputs:?}");
                }
            }
        }
    }

    #[test]
    fn no_target_is_tried_after_giving_up() {
        for input in Input::ALL {
            let mut machine = Machine::new(true);
            machine.handle(Input::Located(3));
            machine.handle(Input::Connected);
            machine.handle(Input::GiveUp);
            assert_eq!(machine.handle(input), [None, None], "{input:?}");
        }
    }

    #[test]
    fn each_target_is_tried_once() {
        let mut machine = Machine::new(false);
        machine.handle(Input::Located(3));
        let mut connects = 1;
        for _ in 0..10 {
            machine.handle(Input::Connected);
            let actions = machine.handle(Input::Unavailable);
            connects += usize::from(actions.contains(&Some(Action::Connect)));
        }
        assert_eq!(connects, 3);
        assert_eq!(machine.state(), State::Over);
    }

    #[test]
    fn a_ringing_callee_is_not_left_for_another_target() {
        let mut machine = Machine::new(false);
        machine.handle(Input::Located(2));
        machine.handle(Input::Connected);
        machine.handle(Input::Rings);
        assert_eq!(machine.handle(Input::Silent), [None, None]);
        assert_eq!(machine.handle(Input::Unavailable), [Some(Action::Fail), None]);
    }
}
