//! The INVITE server transaction.

use std::time::Instant;

use bytes::Bytes;

use super::timer::{Timer, Timings};
use super::{Notice, Pace, Step};

/// INVITE server transaction: RFC 3261 §17.2.1, figure 7, with the Accepted state of RFC 6026 §7.1.
///
/// ```text
///                              INVITE: up
///                              V
///    INVITE: last 1xx again +------------+ 1xx: sent
///                      +----| Proceeding |----+
///                      +--->|            |<---+
///                           +------------+
///    300–699: sent, G, H armed  |     | 2xx: sent, L armed
///            +------------------+     +------------------+
///            V                                           V
///      +-----------+ G, INVITE: response again    +------------+ ACK: up
///      | Completed |----+                         |  Accepted  |----+
///      |           |<---+                         |            |<---+
///      +-----------+                              +------------+ 2xx: sent
///   ACK, I |   | H: tell the user                        | L
///   armed  |   +-------------------+                     |
///          V                       |                     |
///      +-----------+               |                     |
///      | Confirmed |               |                     |
///      +-----------+               |                     |
///          | I                     V                     |
///          |               +------------+                |
///          +-------------->| Terminated |<---------------+
///                          +------------+
/// ```
///
/// A failed flow changes no state (RFC 6026 §8.8): the timers end the transaction. An INVITE that is
/// to be ignored goes straight to Confirmed, which is the state that says nothing, for 64·T1.
#[derive(Debug)]
pub(crate) struct InviteServer {
    state: State,
    pace: Pace,
    /// The last response sent, for repeated INVITEs.
    response: Option<Bytes>,
    /// Timer G may run. Off towards strangers: a forged source must not be sent repeats.
    repeats: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Proceeding,
    Accepted,
    Completed,
    Confirmed,
    Terminated,
}

/// What can happen to an INVITE server transaction.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The INVITE arrived again.
    Repeated,
    /// An ACK arrived.
    Ack,
    /// The user answers 1xx.
    Provisional(Bytes),
    /// The user answers 2xx, or repeats it.
    Success(Bytes),
    /// The user answers 3xx–6xx.
    Failure(Bytes),
    /// The user wants this INVITE never to be answered.
    Ignore,
    /// A timer fired.
    Fired(Timer),
    /// The flow failed.
    TransportFailed,
}

impl InviteServer {
    /// Starts the transaction for an INVITE that has just arrived.
    pub(crate) fn start(timings: Timings, reliable: bool, repeats: bool) -> InviteServer {
        let pace = Pace::new(timings, reliable);
        InviteServer { state: State::Proceeding, pace, response: None, repeats }
    }

    /// All transitions, in the order of the figure. Anything not listed is absorbed.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) -> Step {
        match (self.state, input) {
            (State::Proceeding | State::Completed, Input::Repeated) => {
                Step::send(self.response.clone())
            }
            (State::Proceeding, Input::Provisional(response)) => {
                self.response = Some(response.clone());
                Step::send(Some(response))
            }
            (State::Proceeding, Input::Success(response)) => {
                self.response = None;
                self.pace.table.arm(Timer::L, now + self.pace.timings.timeout());
                self.state = State::Accepted;
                Step::send(Some(response))
            }
            (State::Proceeding, Input::Failure(response)) => {
                self.response = Some(response.clone());
                if self.repeats {
                    self.pace.start_repeating(now, Timer::G);
                }
                self.pace.table.arm(Timer::H, now + self.pace.timings.timeout());
                self.state = State::Completed;
                Step::send(Some(response))
            }
            (State::Proceeding, Input::Ignore) => {
                self.response = None;
                self.pace.table.arm(Timer::I, now + self.pace.timings.timeout());
                self.state = State::Confirmed;
                Step::absorb()
            }
            (State::Accepted, Input::Success(response)) => Step::send(Some(response)),
            (State::Accepted, Input::Ack) => Step::deliver(),
            (State::Completed, Input::Fired(Timer::G)) => {
                let interval = (self.pace.interval * 2).min(self.pace.timings.t2());
                self.pace.repeat(now, Timer::G, interval);
                Step::send(self.response.clone())
            }
            (State::Completed, Input::Fired(Timer::H)) => {
                self.terminate();
                Step::tell(Notice::Timeout)
            }
            (State::Completed, Input::Ack) => self.confirm(now),
            (State::Confirmed, Input::Fired(Timer::I))
            | (State::Accepted, Input::Fired(Timer::L)) => {
                self.terminate();
                Step::absorb()
            }
            _ => Step::absorb(),
        }
    }

    fn confirm(&mut self, now: Instant) -> Step {
        self.terminate();
        self.response = None;
        if !self.pace.reliable {
            self.pace.table.arm(Timer::I, now + self.pace.timings.t4());
            self.state = State::Confirmed;
        }
        Step::absorb()
    }

    fn terminate(&mut self) {
        self.pace.table.clear();
        self.state = State::Terminated;
    }

    /// Lets Timer G run from now on: the source has turned out to be no stranger.
    pub(crate) fn allow_repeats(&mut self) {
        self.repeats = true;
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
    pub(crate) fn is_proceeding(&self) -> bool {
        self.state == State::Proceeding
    }

    /// A 2xx has been given.
    pub(crate) fn is_accepted(&self) -> bool {
        self.state == State::Accepted
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

    const STATES: [State; 5] =
        [State::Proceeding, State::Accepted, State::Completed, State::Confirmed, State::Terminated];

    fn failure() -> Input {
        Input::Failure(Bytes::from_static(b"486"))
    }

    fn machine(now: Instant, state: State, reliable: bool) -> InviteServer {
        let mut machine = InviteServer::start(Timings::default(), reliable, true);
        let ringing = Input::Provisional(Bytes::from_static(b"180"));
        let way = match state {
            State::Proceeding => vec![ringing],
            State::Accepted => vec![ringing, Input::Success(Bytes::from_static(b"200"))],
            State::Completed => vec![ringing, failure()],
            State::Confirmed => vec![ringing, failure(), Input::Ack],
            State::Terminated => vec![ringing, failure(), Input::Fired(Timer::H)],
        };
        for input in way {
            let _ = machine.handle(now, input);
        }
        machine
    }

    fn table(reliable: bool) -> String {
        let now = testing::epoch();
        let title = format!("INVITE server transaction, reliable transport: {reliable}");
        let mut table = testing::heading(&title);
        for state in STATES {
            if machine(now, state, reliable).state != state {
                continue;
            }
            for (name, input) in [
                ("INVITE again", Input::Repeated),
                ("ACK", Input::Ack),
                ("answer 1xx", Input::Provisional(Bytes::from_static(b"183"))),
                ("answer 2xx", Input::Success(Bytes::from_static(b"200"))),
                ("answer 3xx-6xx", failure()),
                ("ignore", Input::Ignore),
                ("timer G", Input::Fired(Timer::G)),
                ("timer H", Input::Fired(Timer::H)),
                ("timer I", Input::Fired(Timer::I)),
                ("timer L", Input::Fired(Timer::L)),
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
        testing::check_golden("invite_server_unreliable", &table(false));
        testing::check_golden("invite_server_reliable", &table(true));
    }

    #[test]
    fn a_refusal_is_repeated_up_to_every_4_seconds_until_32_or_an_ack() {
        let now = testing::epoch();
        let mut machine = machine(now, State::Completed, false);
        let mut instants = vec![];
        let mut last = None;
        while let Some(at) = machine.deadline() {
            while let Some(step) = machine.handle_timeout(at) {
                if step.transmit.is_some() {
                    instants.push((at - now).as_millis());
                }
                last = step.notice;
            }
        }
        let expected: [u128; 10] =
            [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
        assert_eq!(instants, expected);
        assert_eq!(last, Some(Notice::Timeout));
    }

    #[test]
    fn a_stranger_is_refused_once_and_only_reminded_when_it_asks_again() {
        let now = testing::epoch();
        let mut machine = InviteServer::start(Timings::default(), false, false);
        let _ = machine.handle(now, failure());
        assert_eq!(machine.deadline(), Some(now + Duration::from_secs(32)));
        assert!(machine.handle(now, Input::Repeated).transmit.is_some());
    }
}
