//! The server transaction of every method but INVITE (and ACK, which has none).

use std::time::Instant;

use bytes::Bytes;

use super::timer::{Timer, Timings};
use super::{Notice, Pace, Step};

/// Non-INVITE server transaction: RFC 3261 §17.2.2, figure 8, with RFC 4320.
///
/// ```text
///                    request: up, J armed
///                    V
///               +------------+  J: nobody waits any more
///               |   Trying   |----------------------------+
///               +------------+                            |
///      1xx: sent |         | 200–699: sent, J armed       |
///                V         |                              |
///          +------------+  |    J                         |
///     +----| Proceeding |--|------------------------------+
///     +--->|            |  |                              |
///  1xx:    +------------+  |                              |
///  sent;         |         |                              |
///  request:      | 200–699: sent, J armed                 |
///  1xx again     V         V                              |
///               +------------+ request: response again    |
///               | Completed  |----+                       |
///               |            |<---+                       |
///               +------------+                            |
///                     | J, transport error                |
///                     V                                   |
///               +------------+                            |
///               | Terminated |<---------------------------+
///               +------------+
/// ```
///
/// Timer J runs from the start: after 64·T1 the client has given up, a late answer is of no use, and
/// 408 must never be sent (RFC 4320 §4.2). A request that is to be ignored goes to Completed without
/// a response, and so stays unanswered.
#[derive(Debug)]
pub(crate) struct Server {
    state: State,
    pace: Pace,
    /// The last response sent, for repeated requests.
    response: Option<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// What can happen to a non-INVITE server transaction.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The request arrived again.
    Repeated,
    /// The user answers 1xx.
    Provisional(Bytes),
    /// The user answers 200–699.
    Final(Bytes),
    /// The user wants this request never to be answered.
    Ignore,
    /// A timer fired.
    Fired(Timer),
    /// The flow failed.
    TransportFailed,
}

impl Server {
    /// Starts the transaction for a request that has just arrived.
    pub(crate) fn start(now: Instant, timings: Timings, reliable: bool) -> Server {
        let mut pace = Pace::new(timings, reliable);
        pace.table.arm(Timer::J, now + timings.timeout());
        Server { state: State::Trying, pace, response: None }
    }

    /// All transitions, in the order of the figure. Anything not listed is absorbed.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) -> Step {
        match (self.state, input) {
            (State::Trying | State::Proceeding, Input::Provisional(response)) => {
                self.response = Some(response.clone());
                self.state = State::Proceeding;
                Step::send(Some(response))
            }
            (State::Proceeding | State::Completed, Input::Repeated) => {
                Step::send(self.response.clone())
            }
            (State::Trying | State::Proceeding, Input::Final(response)) => {
                self.response = Some(response.clone());
                self.complete(now);
                Step::send(Some(response))
            }
            (State::Trying | State::Proceeding, Input::Ignore) => {
                self.response = None;
                self.complete(now);
                Step::absorb()
            }
            (State::Trying | State::Proceeding, Input::Fired(Timer::J)) => {
                self.terminate();
                Step::tell(Notice::Timeout)
            }
            (State::Trying | State::Proceeding, Input::TransportFailed) => {
                self.terminate();
                Step::tell(Notice::Transport)
            }
            (State::Completed, Input::Fired(Timer::J) | Input::TransportFailed) => {
                self.terminate();
                Step::absorb()
            }
            _ => Step::absorb(),
        }
    }

    fn complete(&mut self, now: Instant) {
        self.pace.table.clear();
        if self.pace.reliable {
            self.state = State::Terminated;
        } else {
            self.pace.table.arm(Timer::J, now + self.pace.timings.timeout());
            self.state = State::Completed;
        }
    }

    fn terminate(&mut self) {
        self.pace.table.clear();
        self.state = State::Terminated;
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

    /// No final response has been given yet.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, State::Trying | State::Proceeding)
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

    fn machine(now: Instant, state: State, reliable: bool) -> Server {
        let mut machine = Server::start(now, Timings::default(), reliable);
        let way = match state {
            State::Trying => vec![],
            State::Proceeding => vec![Input::Provisional(Bytes::from_static(b"100"))],
            State::Completed => vec![Input::Final(Bytes::from_static(b"200"))],
            State::Terminated => vec![Input::TransportFailed],
        };
        for input in way {
            let _ = machine.handle(now, input);
        }
        machine
    }

    fn table(reliable: bool) -> String {
        let now = testing::epoch();
        let title = format!("Non-INVITE server transaction, reliable transport: {reliable}");
        let mut table = testing::heading(&title);
        for state in STATES {
            if machine(now, state, reliable).state != state {
                continue;
            }
            for (name, input) in [
                ("request again", Input::Repeated),
                ("answer 1xx", Input::Provisional(Bytes::from_static(b"100"))),
                ("answer 200-699", Input::Final(Bytes::from_static(b"200"))),
                ("ignore", Input::Ignore),
                ("timer J", Input::Fired(Timer::J)),
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
        testing::check_golden("server_unreliable", &table(false));
        testing::check_golden("server_reliable", &table(true));
    }

    #[test]
    fn a_repeated_bye_gets_the_stored_answer_for_32_seconds() {
        let now = testing::epoch();
        let mut machine = machine(now, State::Completed, false);
        let step = machine.handle(now + Duration::from_secs(20), Input::Repeated);
        assert_eq!(step.transmit.as_deref(), Some(&b"200"[..]));
        assert!(machine.handle_timeout(now + Duration::from_secs(32)).is_some());
        assert!(machine.is_terminated());
    }

    #[test]
    fn a_request_nobody_answers_is_forgotten_when_its_client_has_given_up() {
        let now = testing::epoch();
        let mut machine = machine(now, State::Trying, false);
        assert!(machine.handle_timeout(now + Duration::from_secs(32)).is_some());
        assert!(machine.is_terminated());
    }
}
