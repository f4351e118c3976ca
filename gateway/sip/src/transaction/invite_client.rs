//! The INVITE client transaction.

use std::time::Instant;

use bytes::Bytes;

use super::timer::{Timer, Timings};
use super::{Notice, Pace, Step};

/// INVITE client transaction: RFC 3261 §17.1.1, figure 5, with the Accepted state of RFC 6026 §7.2.
///
/// ```text
///                       INVITE from the user: sent, A and B armed
///    A: send again,     V
///    doubled      +-----------+   B, transport error: tell the user
///        +--------|  Calling  |-------------------------------------+
///        +------->|           |                                     |
///                 +-----------+                                     |
///           1xx: up |   | | 2xx: up, M armed                        |
///                   V   | +----------------------+                  |
///    1xx: up  +-------------+                    |                  |
///        +----| Proceeding  |- 2xx: up, M armed -+                  |
///        +--->|             |                    |                  |
///             +-------------+--- transport error, B after CANCEL ---+
///      300–699: up, |   |  300–699: up,          |                  |
///      ACK, D armed |   |  ACK, D armed          V                  |
///                   V   V                 +-------------+           |
///   300–699:  +-------------+     2xx: up |  Accepted   |           |
///   ACK  +----|  Completed  |        +----|             |           |
///        +--->|             |        +--->|             |           |
///             +-------------+             +-------------+           |
///        D, transport error |                    | M                |
///                           V                    V                  |
///                         +------------------------+                |
///                         |       Terminated       |<---------------+
///                         +------------------------+
/// ```
///
/// Timer B runs again when a CANCEL has been sent: a final response that stays away for 64·T1 after
/// it ends the transaction (RFC 3261 §9.1).
#[derive(Debug)]
pub(crate) struct InviteClient {
    state: State,
    pace: Pace,
    request: Bytes,
    /// The ACK of the 3xx–6xx that ended the transaction, for its repeats.
    ack: Option<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Calling,
    Proceeding,
    Accepted,
    Completed,
    Terminated,
}

/// What can happen to an INVITE client transaction.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A 1xx arrived.
    Provisional,
    /// A 2xx arrived.
    Success,
    /// A 3xx–6xx arrived; with it the ACK that answers it.
    Failure(Bytes),
    /// A CANCEL for this INVITE has been sent.
    CancelSent,
    /// A timer fired.
    Fired(Timer),
    /// The flow failed.
    TransportFailed,
}

impl InviteClient {
    /// Starts the transaction: the step carries the INVITE to send.
    pub(crate) fn start(
        now: Instant,
        timings: Timings,
        reliable: bool,
        request: Bytes,
    ) -> (InviteClient, Step) {
        let mut pace = Pace::new(timings, reliable);
        pace.start_repeating(now, Timer::A);
        pace.table.arm(Timer::B, now + timings.timeout());
        let step = Step::send(Some(request.clone()));
        (InviteClient { state: State::Calling, pace, request, ack: None }, step)
    }

    /// All transitions, in the order of the figure. Anything not listed is absorbed.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) -> Step {
        match (self.state, input) {
            (State::Calling, Input::Fired(Timer::A)) => {
                self.pace.repeat(now, Timer::A, self.pace.interval * 2);
                Step::send(Some(self.request.clone()))
            }
            (State::Calling | State::Proceeding, Input::Fired(Timer::B)) => {
                self.terminate(Notice::Timeout)
            }
            (State::Calling | State::Proceeding, Input::TransportFailed) => {
                self.terminate(Notice::Transport)
            }
            (State::Calling, Input::Provisional) => {
                self.pace.table.clear();
                self.state = State::Proceeding;
                Step::deliver()
            }
            (State::Proceeding, Input::Provisional) | (State::Accepted, Input::Success) => {
                Step::deliver()
            }
            (State::Proceeding, Input::CancelSent) => {
                self.pace.table.arm(Timer::B, now + self.pace.timings.timeout());
                Step::absorb()
            }
            (State::Calling | State::Proceeding, Input::Success) => {
                self.pace.table.clear();
                self.pace.table.arm(Timer::M, now + self.pace.timings.timeout());
                self.state = State::Accepted;
                Step::deliver()
            }
            (State::Calling | State::Proceeding, Input::Failure(ack)) => self.complete(now, ack),
            (State::Completed, Input::Failure(_)) => Step::send(self.ack.clone()),
            (State::Completed, Input::Fired(Timer::D) | Input::TransportFailed)
            | (State::Accepted, Input::Fired(Timer::M)) => {
                self.pace.table.clear();
                self.state = State::Terminated;
                Step::absorb()
            }
            _ => Step::absorb(),
        }
    }

    fn complete(&mut self, now: Instant, ack: Bytes) -> Step {
        self.pace.table.clear();
        if self.pace.reliable {
            self.state = State::Terminated;
        } else {
            self.pace.table.arm(Timer::D, now + self.pace.timings.timeout());
            self.state = State::Completed;
        }
        self.ack = Some(ack.clone());
        Step { transmit: Some(ack), notice: Some(Notice::Deliver) }
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

    /// A provisional response has come and no final one: the state in which CANCEL may be sent.
    pub(crate) fn is_proceeding(&self) -> bool {
        self.state == State::Proceeding
    }

    /// No final response has come yet.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, State::Calling | State::Proceeding)
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
        [State::Calling, State::Proceeding, State::Accepted, State::Completed, State::Terminated];

    fn machine(now: Instant, state: State, reliable: bool) -> InviteClient {
        let request = Bytes::from_static(b"INVITE");
        let (mut machine, _) = InviteClient::start(now, Timings::default(), reliable, request);
        let ack = || Input::Failure(Bytes::from_static(b"ACK"));
        let way = match state {
            State::Calling => vec![],
            State::Proceeding => vec![Input::Provisional],
            State::Accepted => vec![Input::Success],
            State::Completed => vec![ack()],
            State::Terminated => vec![Input::TransportFailed],
        };
        for input in way {
            let _ = machine.handle(now, input);
        }
        machine
    }

    fn table(reliable: bool) -> String {
        let now = testing::epoch();
        let title = format!("INVITE client transaction, reliable transport: {reliable}");
        let mut table = testing::heading(&title);
        for state in STATES {
            if machine(now, state, reliable).state != state {
                continue;
            }
            for (name, input) in [
                ("1xx", Input::Provisional),
                ("2xx", Input::Success),
                ("3xx-6xx", Input::Failure(Bytes::from_static(b"ACK"))),
                ("CANCEL sent", Input::CancelSent),
                ("timer A", Input::Fired(Timer::A)),
                ("timer B", Input::Fired(Timer::B)),
                ("timer D", Input::Fired(Timer::D)),
                ("timer M", Input::Fired(Timer::M)),
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
        testing::check_golden("invite_client_unreliable", &table(false));
        testing::check_golden("invite_client_reliable", &table(true));
    }

    /// Runs every timer until the machine ends; the instants of transmissions in milliseconds.
    fn transmissions(machine: &mut InviteClient, start: Instant) -> Vec<u128> {
        let mut instants = vec![];
        while let Some(at) = machine.deadline() {
            while let Some(step) = machine.handle_timeout(at) {
                if step.transmit.is_some() {
                    instants.push((at - start).as_millis());
                }
            }
        }
        instants
    }

    #[test]
    fn an_unanswered_invite_is_repeated_with_doubling_intervals_until_32_seconds() {
        let now = testing::epoch();
        let mut machine = machine(now, State::Calling, false);
        let instants = transmissions(&mut machine, now);
        assert_eq!(instants, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
        assert!(machine.is_terminated());
    }

    #[test]
    fn a_ringing_invite_has_no_deadline() {
        let now = testing::epoch();
        assert_eq!(machine(now, State::Proceeding, false).deadline(), None);
    }

    #[test]
    fn a_repeated_4xx_gets_the_same_ack_for_32_seconds_and_then_nothing() {
        let now = testing::epoch();
        let mut machine = machine(now, State::Completed, false);
        let again = Input::Failure(Bytes::from_static(b"other"));
        let step = machine.handle(now + Duration::from_secs(10), again.clone());
        assert_eq!(step.transmit.as_deref(), Some(&b"ACK"[..]));
        assert!(machine.handle_timeout(now + Duration::from_secs(32)).is_some());
        assert!(machine.is_terminated());
        assert!(machine.handle(now + Duration::from_secs(33), again).transmit.is_none());
    }
}
