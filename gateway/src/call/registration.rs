//! The registration machine: how a trunk is made known to its carrier, and stays so (RFC 3261 §10.2),
//! without sockets, clock or tasks.
//!
//! ```text
//!  ┌──────────┐ targets ┌────────────┐ flow  ┌─────────────┐ 2xx ┌────────────┐
//!  │ Locating │ ──────► │ Connecting │ ────► │ Registering │ ──► │ Registered │
//!  └──────────┘         └────────────┘       └─────────────┘     └────────────┘
//!    ▲      ▲             │ ▲  next target:    │  ▲ │ 401, 407: again   │ │
//!    │      │ due         │ └── 5xx, time-out ─┘  └─┘ 423: for longer   │ │ withdrawn
//!    │      │             ▼                    │ refused                 │ ▼
//!    │   ┌─────────────────────────────────────▼─┐        ┌─────────┐ any final ┌──────┐
//!    │   │               Resting                 │        │ Leaving │ ────────► │ Over │
//!    │   └───────────────────────────────────────┘        └─────────┘           └──────┘
//!    └──── due, or the connection broke ─────────────────────────┘ (from Registered)
//! ```
//!
//! A refresh begins with the look-up again, so that a carrier that has moved is followed. A refusal is
//! not the end either: it is asked again after a pause that grows, for the customer may have been late
//! to pay.

/// Where a registration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The carrier's host is being looked up.
    Locating,
    /// A connection to the present target is being opened.
    Connecting,
    /// The REGISTER is out.
    Registering,
    /// The carrier knows where we are, until it is time to say so again.
    Registered,
    /// It did not work; it is tried again after a pause.
    Resting,
    /// The REGISTER that takes the binding back is out.
    Leaving,
    /// Nothing more comes of it.
    Over,
}

impl State {
    /// Every state, for the transition table.
    pub const ALL: [State; 7] = [
        State::Locating,
        State::Connecting,
        State::Registering,
        State::Registered,
        State::Resting,
        State::Leaving,
        State::Over,
    ];
}

/// What can happen to a registration.
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
    /// 2xx.
    Accepted,
    /// 401 or 407 for which there are credentials that were not refused before.
    Challenged,
    /// 423 with a Min-Expires that we can live with.
    TooBrief,
    /// 408, 5xx, no answer, or a broken flow: this target is out of order.
    Unavailable,
    /// Any other final response.
    Refused,
    /// The connection that the binding names is gone.
    Broken,
    /// The pause is over, or it is time to refresh.
    Due,
    /// The trunk does not want to be registered (like this) any more.
    Withdrawn,
}

impl Input {
    /// One example of every input, for the transition table.
    pub const ALL: [Input; 12] = [
        Input::Located(2),
        Input::NotLocated,
        Input::Connected,
        Input::NotConnected,
        Input::Accepted,
        Input::Challenged,
        Input::TooBrief,
        Input::Unavailable,
        Input::Refused,
        Input::Broken,
        Input::Due,
        Input::Withdrawn,
    ];
}

/// What the owner must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look the host up.
    Locate,
    /// Open a flow to the next target.
    Connect,
    /// Send the REGISTER.
    Register,
    /// Send it again with credentials.
    Authenticate,
    /// Be due when the binding is to be refreshed.
    Keep,
    /// Be due after a pause.
    Rest,
    /// Send the REGISTER that takes the binding back.
    Leave,
    /// Forget it.
    Forget,
}

/// The state of one trunk's registration.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    targets_left: usize,
}

impl Machine {
    /// A registration whose host is being looked up.
    #[must_use]
    pub const fn new() -> Self {
        Machine { state: State::Locating, targets_left: 0 }
    }

    /// Where the registration is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// All transitions, in the order of the figure.
    pub fn handle(&mut self, input: Input) -> Option<Action> {
        use Action::{Authenticate, Connect, Forget, Keep, Leave, Locate, Register, Rest};
        use State::{Connecting, Leaving, Locating, Over, Registered, Registering, Resting};
        let next_target = self.targets_left > 0;
        let (next, action) = match (self.state, input) {
            (Locating, Input::Located(targets)) => {
                self.targets_left = targets;
                (Connecting, Some(Connect))
            }
            (Locating, Input::NotLocated) => (Resting, Some(Rest)),

            (Connecting, Input::Connected) => (Registering, Some(Register)),
            (Connecting, Input::NotConnected) if next_target => (Connecting, Some(Connect)),
            (Connecting, Input::NotConnected) => (Resting, Some(Rest)),

            (Registering, Input::Accepted) => (Registered, Some(Keep)),
            (Registering, Input::Challenged) => (Registering, Some(Authenticate)),
            (Registering, Input::TooBrief) => (Registering, Some(Register)),
            (Registering, Input::Unavailable | Input::Broken) if next_target => {
                (Connecting, Some(Connect))
            }
            (Registering, Input::Unavailable | Input::Broken | Input::Refused) => {
                (Resting, Some(Rest))
            }

            (Registered, Input::Due | Input::Broken) => (Locating, Some(Locate)),
            (Resting, Input::Due) => (Locating, Some(Locate)),

            (Registering | Registered, Input::Withdrawn) => (Leaving, Some(Leave)),
            (Locating | Connecting | Resting, Input::Withdrawn) => (Over, Some(Forget)),
            (Leaving, Input::Challenged) => (Leaving, Some(Authenticate)),
            (
                Leaving,
                Input::Accepted
                | Input::TooBrief
                | Input::Unavailable
                | Input::Refused
                | Input::Broken,
            ) => (Over, Some(Forget)),

            (Locating | Connecting | Registering | Registered | Resting | Leaving | Over, _) => {
                (self.state, None)
            }
        };
        if action == Some(Connect) {
            self.targets_left = self.targets_left.saturating_sub(1);
        }
        self.state = next;
        action
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn outcome(state: State, input: Input, left: bool) -> String {
        let mut machine = Machine { state, targets_left: usize::from(left) };
        match machine.handle(input) {
            None if machine.state == state => "absorbed".to_owned(),
            None => format!("{:?}", machine.state),
            Some(action) => format!("{:?}: {action:?}", machine.state),
        }
    }

    /// The whole table as text, with and without another target.
    fn table() -> String {
        let mut text = String::from("state × input → state: action\n");
        for (left, heading) in [(true, "another target left"), (false, "no target left")] {
            writeln!(text, "\n# {heading}").expect("a String takes all text");
            let pairs = State::ALL.iter().flat_map(|s| Input::ALL.iter().map(move |i| (*s, *i)));
            for (state, input) in pairs {
                let next = outcome(state, input, left);
                writeln!(text, "{state:?} × {input:?} → {next}").expect("a String takes all text");
            }
        }
        text
    }

    #[test]
    fn the_transition_table_is_the_golden_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/call/registration.golden.txt");
        let table = table();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &table).expect("the golden file is writable");
        }
        let golden = std::fs::read_to_string(path).expect("the golden file exists");
        assert_eq!(table, golden, "run with UPDATE_GOLDEN=1 and review the difference");
    }

    #[test]
    fn a_registration_that_is_withdrawn_comes_to_an_end_and_stays_there() {
        for before in Input::ALL {
            let mut machine = Machine::new();
            machine.handle(Input::Located(1));
            machine.handle(Input::Connected);
            machine.handle(before);
            machine.handle(Input::Withdrawn);
            machine.handle(Input::Refused);
            assert_eq!(machine.state(), State::Over, "{before:?}");
            for after in Input::ALL {
                assert_eq!(machine.handle(after), None, "{before:?}, {after:?}");
            }
        }
    }

    #[test]
    fn whatever_fails_is_tried_again() {
        for failure in [Input::Unavailable, Input::Refused, Input::Broken] {
            let mut machine = Machine::new();
            machine.handle(Input::Located(1));
            machine.handle(Input::Connected);
            assert_eq!(machine.handle(failure), Some(Action::Rest));
            assert_eq!(machine.handle(Input::Due), Some(Action::Locate));
        }
    }
}
