//! The client transaction of every method but INVITE (and ACK, which has none).

use std::time::Instant;

use bytes::Bytes;

use super::timer::{Timer, Timings};
use super::{Notice, Pace, Step};

/// Non-INVITE client transaction: RFC 3261 §17.1.2, figure 6.
///
/// ```text
///                    request from the user: sent, E and F armed
///   E: send again,   V
///   doubled      +------------+  F, transport error: tell the user
///   up to T2 +---|   Trying   |----------------------------------+
///            +-->|            |                                  |
///                +------------+                                  |
///        200–699: up |      | 1xx: up                            |
///        K armed     |      V                                    |
///                    | +------------+ F, transport error:        |
///   E: send again,   | | Proceeding | tell the user              |
///   every T2     +---|-|            |----------------------------+
///                +---|>|            |                            |
///         1xx: up    | |            |                            |
///                    | +------------+                            |
///                    |      | 200–699: up, K armed               |
///                    V      V                                    |
///                +------------+                                  |
///                | Completed  | (repeats are absorbed)           |
///                +------------+                                  |
///                     | K                                        |
///                     V                                          |
///                +------------+                                  |
///                | Terminated |<---------------------------------+
///                +------------+
/// ```
#[derive(Debug)]
pub(crate) struct Client {
    state: State,
    pace: Pace,
    request: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// What can happen to a non-INVITE client transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    /// A 1xx arrived.
    Provisional,
    /// A final response arrived.
    Final,
    /// A timer fired.
    Fired(Timer),
    /// The flow failed.
    TransportFailed,
}

impl Client {
    /// Starts the transaction: the step carries the request to send.
    pub(crate) fn start(
        now: Instant,
        timings: Timings,
        reliable: bool,
        request: Bytes,
    ) -> (Client, Step) {
        let mut pace = Pace::new(timings, reliable);
        pace.start_repeating(now, Timer::E);
        pace.table.arm(Timer::F, now + timings.timeout());
        let step = Step::send(Some(request.clone()));
        (Client { state: State::Trying, pace, request }, step)
    }

    /// All transitions, in the order of the figure. Anything not listed is absorbed.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) -> Step {
        match (self.state, input) {
            (State::Trying, Input::Fired(Timer::E)) => {
                let interval = (self.pace.interval * 2).min(self.pace.timings.t2());
                self.pace.repeat(now, Timer::E, interval);
                Step::send(Some(self.request.clone()))
            }
            (State::Proceeding, Input::Fired(Timer::E)) => {
                self.pace.repeat(now, Timer::E, self.pace.timings.t2());
                Step::send(Some(self.request.clone()))
            }
            (State::Trying | State::Proceeding, Input::Fired(Timer::F)) => {
                self.terminate(Notice::Timeout)
            }
            (State::Trying | State::Proceeding, Input::TransportFailed) => {
                self.terminate(Notice::Transport)
            }
            (State::Trying | State::Proceeding, Input::Provisional) => {
                self.state = State::Proceeding;
                Step::deliver()
            }
            (State::Trying | State::Proceeding, Input::Final) => {
                self.pace.table.clear();
                if self.pace.reliable {
                    self.state = State::Terminated;
                } else {
                    self.pace.table.arm(Timer::K, now + self.pace.timings.t4());
                    self.state = State::Completed;
                }
                Step::deliver()
            }
            (State::Completed, Input::Fired(Timer::K) | Input::TransportFailed) => {
                self.pace.table.clear();
                self.state = State::Terminated;
                Step::absorb()
            }
            _ => Step::absorb(),
        }
    }

    fn terminate(&mut self, notice: Notice) -> Step {
        self.pace.table.clear();
        self.state = State::Terminated;
        Step::tell(notice)
    }

    /// Fires the earliest timer due at `now`; `None` when none is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        let timer = self.pace.table.pop_due(now)?;
        Some(self.handle(now, Input::Fired(timer)))
    }

    /// When the machine wants to be woken.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pace.table.next()
    }

    /// The machine is done and can be dropped.
    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing;
    use super::*;

    const STATES: [State; 4] =
        [State::Trying, State::Proceeding, State::Completed, State::Terminated];

    fn machine(now: Instant, state: State, reliable: bool) -> Client {
        let request = Bytes::from_static(b"BYE");
        let (mut machine, _) = Client::start(now, Timings::default(), reliable, request);
        let way = match state {
            State::Trying => vec![],
            State::Proceeding => vec![Input::Provisional],
            State::Completed => vec![Input::Final],
            State::Terminated => vec![Input::TransportFailed],
        };
        for input in way {
            let _ = machine.handle(now, input);
        }
        machine
    }

    fn table(reliable: bool) -> String {
        let now = testing::epoch();
        let title = format!("Non-INVITE client transaction, reliable transport: {reliable}");
        let mut table = testing::heading(&title);
        for state in STATES {
            if machine(now, state, reliable).state != state {
                continue;
            }
            for (name, input) in [
                ("1xx", Input::Provisional),
                ("200-699", Input::Final),
                ("timer E", Input::Fired(Timer::E)),
                ("timer F", Input::Fired(Timer::F)),
                ("timer K", Input::Fired(Timer::K)),
                ("transport error", Input::TransportFailed),
            ] {
                let mut machine = machine(now, state, reliable);
                let step = machine.handle(now, input);
                let states = [format!("{state:?}"), format!("{:?}", machine.state)];
                let states = [states[0].as_str(), states[1].as_str()];
                table += &testing::line(states, name, &step, &(now, machine.pace));
            }
        }
        table
    }

    #[test]
    fn the_whole_transition_table_is_the_golden_one() {
        testing::check_golden("client_unreliable", &table(false));
        testing::check_golden("client_reliable", &table(true));
    }

    #[test]
    fn an_unanswered_request_is_repeated_up_to_every_4_seconds_until_32() {
        let now = testing::epoch();
        let mut machine = machine(now, State::Trying, false);
        let mut instants = vec![];
        while let Some(at) = machine.deadline() {
            while let Some(step) = machine.handle_timeout(at) {
                if step.transmit.is_some() {
                    instants.push((at - now).as_millis());
                }
            }
        }
        let expected: [u128; 10] =
            [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
        assert_eq!(instants, expected);
    }

    #[test]
    fn after_a_provisional_response_the_request_is_repeated_every_4_seconds() {
        let now = testing::epoch();
        let mut machine = machine(now, State::Proceeding, false);
        let first = now + Duration::from_millis(500);
        assert!(machine.handle_timeout(first).unwrap().transmit.is_some());
        assert_eq!(machine.deadline(), Some(first + Duration::from_secs(4)));
    }
}
