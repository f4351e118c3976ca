//! The call machine: what happens to a call, without sockets, clock or tasks.
//!
//! An inbound call begins when it was admitted, an outbound one when the queue lets it start:
//!
//! ```text
//!  inbound, where the organisation's workflow chooses the agent
//!  ┌─────────┐ agent chosen
//!  │ Routing │ ─────────────┐
//!  └─────────┘              ▼
//!  every other call    ┌──────────┐ the agent's own workflow is done, or there is none
//!  ──────────────────► │ Briefing │ ────────┬───────────────────────────────────────────┐
//!                      └──────────┘         │ outbound                          inbound │
//!        ┌──────────────────────────────────┘                                           │
//!        ▼         agent ready        18x             2xx: gate opens                   │
//!  ┌───────────┐     ┌──────────┐     ┌─────────┐ ───────────────────────────────┐      │
//!  │ Preparing │ ──► │ Dialling │ ──► │ Ringing │                                │      │
//!  └───────────┘     └──────────┘     └─────────┘                                │      │
//!        ┌───────────────────────────────────────────────────────────────────────┼──────┘
//!        ▼        agent ready: 200                ACK: gate opens                 ▼
//!  ┌────────────┐ ───────────────► ┌──────────┐ ──────────────────────────► ┌────────┐
//!  │ Connecting │                  │ Accepted │                             │ Active │
//!  └────────────┘                  └──────────┘                             └────────┘
//!     │  CANCEL, BYE, expiry,         │ BYE, no ACK,                           │ BYE, agent gone,
//!     │  agent failed                 │ agent gone, …                          │ silence, duration, …
//!     ▼                               ▼                                        ▼
//!  ┌───────────────────────────────────────────────────────────────────────────────┐
//!  │ Ended: one reason, one record, both legs told                                 │
//!  └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While a workflow runs the caller hears ringing and may give up, and the call may be hung up. A
//! workflow that is late is done without: whether that means another agent, no more than going on,
//! or the end is configured, and comes as the next input. What one that failed means is known as soon
//! as it has.
//!
//! An agent that is lost in mid-call may leave a farewell behind: the caller hears a clip
//! (`Farewell`) and is hung up when it is over. Until then everything counts as in `Active`.
//!
//! On a call we place, the agent is connected before the callee's telephone rings, so that whoever
//! picks up is not met by silence; the callee's 2xx opens the gate at once.
//!
//! On one we take, the agent is connected while the caller hears ringing; the 200 goes out only when it is ready
//! (RFC 3261 §13.3.1), and its audio is held by the media gate until the ACK, so that its first
//! word is not clipped. The caller's first audio opens the gate too: it proves that the 200 arrived,
//! should the ACK be late or lost. Anything the table does not list is absorbed.

use super::end::EndReason;

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Inbound: the organisation's workflow chooses the agent; the caller hears ringing.
    Routing,
    /// The agent's pre-conversation workflow runs; nobody has been dialled or answered.
    Briefing,
    /// Outbound: the agent is being reached; nobody has been dialled.
    Preparing,
    /// Outbound: the carrier is being dialled.
    Dialling,
    /// Outbound: the callee's telephone rings.
    Ringing,
    /// 180 sent; the agent is being reached.
    Connecting,
    /// 200 sent; the ACK has not come.
    Accepted,
    /// Both parties talk.
    Active,
    /// The agent is lost; a clip says so before the end.
    Farewell,
    /// Over. Nothing leaves this state.
    Ended,
}

impl State {
    /// Every state, for the transition table.
    pub const ALL: [State; 10] = [
        State::Routing,
        State::Briefing,
        State::Preparing,
        State::Dialling,
        State::Ringing,
        State::Connecting,
        State::Accepted,
        State::Active,
        State::Farewell,
        State::Ended,
    ];
}

/// What can happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// It is known which agent answers.
    Routed,
    /// The agent's own workflow is done, or there is none.
    Briefed,
    /// The workflow, or what is configured to happen without it, says no.
    Rejected(EndReason),
    /// The workflow has had all the time it may have.
    RunTimedOut,
    /// The agent is connected and listening.
    AgentReady,
    /// The agent could not be reached, or left.
    AgentGone(EndReason),
    /// The agent was lost in mid-call and the settings ask for a clip before the end.
    AgentFell(EndReason),
    /// The clip is over.
    FarewellOver,
    /// The callee is being alerted.
    CalleeRings,
    /// The callee's 2xx came; media is open.
    CalleeAnswered,
    /// The carrier's leg did not come about.
    DialFailed(EndReason),
    /// It has rung for long enough.
    RingTimedOut,
    /// The caller cancelled; the endpoint has answered 487.
    Cancelled,
    /// The INVITE's own `Expires` passed; the endpoint has answered 487.
    Expired,
    /// The ACK to our 200 came.
    Acked,
    /// The caller's first audio came.
    Heard,
    /// The ACK to our 200 never came.
    AckMissing,
    /// The ACK carried an unusable answer.
    BadAnswer,
    /// The caller or callee hung up; the BYE has been answered.
    Bye,
    /// The caller's audio stopped for the configured time.
    MediaTimedOut,
    /// The maximum duration passed.
    DurationReached,
    /// Hang up now, for this reason (API, drain, fault).
    HangUp(EndReason),
}

impl Input {
    /// One example of every input, for the transition table.
    pub const ALL: [Input; 22] = [
        Input::Routed,
        Input::Briefed,
        Input::Rejected(EndReason::RoutingRejected),
        Input::RunTimedOut,
        Input::AgentReady,
        Input::AgentGone(EndReason::AgentLost),
        Input::AgentFell(EndReason::AgentLost),
        Input::FarewellOver,
        Input::CalleeRings,
        Input::CalleeAnswered,
        Input::DialFailed(EndReason::CarrierRefused),
        Input::RingTimedOut,
        Input::Cancelled,
        Input::Expired,
        Input::Acked,
        Input::Heard,
        Input::AckMissing,
        Input::BadAnswer,
        Input::Bye,
        Input::MediaTimedOut,
        Input::DurationReached,
        Input::HangUp(EndReason::OperatorHungUp),
    ];
}

/// What the owner of the call must do now, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the agent's own workflow, if it has one: [`Input::Briefed`] follows, or why not.
    Brief,
    /// The workflow is late: do without it, as is configured; another input says what that is.
    DoWithout(EndReason),
    /// Reach the agent.
    ReachAgent,
    /// Dial the callee.
    Dial,
    /// Withdraw what is being dialled.
    GiveUpDial,
    /// Answer the INVITE with 200 and our SDP.
    Accept,
    /// Let the agent's audio out and the caller's audio in.
    OpenGate,
    /// Answer the INVITE with the reason's final status.
    Refuse(EndReason),
    /// Play the farewell clip to the caller.
    PlayFarewell,
    /// Send BYE with the reason.
    SendBye(EndReason),
    /// The call is over: stop agent and media, close the record.
    End(EndReason),
}

/// At most two actions follow from one input.
pub type Actions = [Option<Action>; 2];

/// The state of one call.
#[derive(Debug)]
pub struct Machine {
    state: State,
    /// Where a call goes whose agent may be reached.
    briefed: State,
    /// Who is at the carrier's end has hung up, if there is a BYE.
    bye: EndReason,
    /// Why the farewell plays.
    fell: EndReason,
}

impl Machine {
    /// An admitted call whose agent is known, and whose 180 has been sent.
    #[must_use]
    pub fn inbound() -> Self {
        Machine {
            state: State::Briefing,
            briefed: State::Connecting,
            bye: EndReason::CallerHungUp,
            fell: EndReason::AgentLost,
        }
    }

    /// An admitted call whose agent the organisation's workflow chooses.
    #[must_use]
    pub fn routed() -> Self {
        Machine { state: State::Routing, ..Machine::inbound() }
    }

    /// A call to be placed.
    #[must_use]
    pub fn outbound() -> Self {
        let (briefed, bye) = (State::Preparing, EndReason::CalleeHungUp);
        Machine { briefed, bye, ..Machine::inbound() }
    }

    /// Where the call is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// All transitions, in the order of the figure. Pairs that are not listed are absorbed.
    pub fn handle(&mut self, input: Input) -> Actions {
        use Action::{Accept, Brief, Dial, GiveUpDial, OpenGate, PlayFarewell, ReachAgent};
        use State::{
            Accepted, Active, Briefing, Connecting, Dialling, Farewell, Preparing, Ringing, Routing,
        };
        if let Input::AgentFell(why) = input {
            self.fell = why;
        }
        let (next, actions) = match (self.state, input) {
            (Routing, Input::Routed) => (Briefing, [Some(Brief), None]),
            (Routing, Input::RunTimedOut) => without(Routing, EndReason::RoutingTimedOut),
            (Briefing, Input::Briefed) => (self.briefed, [Some(ReachAgent), None]),
            (Briefing, Input::RunTimedOut) => without(Briefing, EndReason::PreConversationTimedOut),
            (Routing | Briefing, Input::Rejected(why) | Input::HangUp(why)) => refused(why),

            (Preparing, Input::AgentReady) => (Dialling, [Some(Dial), None]),
            (Preparing, Input::AgentGone(why) | Input::AgentFell(why) | Input::HangUp(why)) => {
                ended(None, why)
            }
            (Dialling, Input::CalleeRings) => (Ringing, [None, None]),
            (Dialling | Ringing, Input::CalleeAnswered) => (Active, [Some(OpenGate), None]),
            (Dialling | Ringing, Input::DialFailed(why)) => ended(None, why),
            (Dialling | Ringing, Input::RingTimedOut) => {
                ended(Some(GiveUpDial), EndReason::NoAnswer)
            }
            (
                Dialling | Ringing,
                Input::AgentGone(why) | Input::AgentFell(why) | Input::HangUp(why),
            ) => ended(Some(GiveUpDial), why),

            (Connecting, Input::AgentReady) => (Accepted, [Some(Accept), None]),
            // A BYE in the early dialog gives up just as well (RFC 3261 §15).
            (Routing | Briefing | Connecting, Input::Cancelled | Input::Bye) => {
                ended(None, EndReason::CallerCancelled)
            }
            (Routing | Briefing | Connecting, Input::Expired) => {
                ended(None, EndReason::InviteExpired)
            }
            (Connecting, Input::AgentGone(why) | Input::AgentFell(why)) => refused(why),
            (Connecting, Input::HangUp(why)) => refused(why),
            (Connecting, Input::MediaTimedOut) => refused(EndReason::MediaTimedOut),

            (Accepted, Input::Acked) => (Active, [Some(OpenGate), None]),
            (Accepted, Input::Heard) => (Accepted, [Some(OpenGate), None]),
            (Accepted, Input::AckMissing) => hung_up(EndReason::AckMissing),
            (Accepted, Input::AgentFell(why)) => hung_up(why),

            (Active, Input::AgentFell(_)) => (Farewell, [Some(PlayFarewell), None]),
            (Farewell, Input::FarewellOver) => hung_up(self.fell),

            (Accepted | Active | Farewell, Input::Bye) => ended(None, self.bye),
            (Accepted | Active | Farewell, Input::HangUp(why)) => hung_up(why),
            (Accepted | Active, Input::AgentGone(why)) => hung_up(why),
            (Accepted | Active | Farewell, Input::BadAnswer) => hung_up(EndReason::BadAnswer),
            (Accepted | Active | Farewell, Input::MediaTimedOut) => {
                hung_up(EndReason::MediaTimedOut)
            }
            (Accepted | Active | Farewell, Input::DurationReached) => {
                hung_up(EndReason::DurationReached)
            }
            _ => (self.state, [None, None]),
        };
        self.state = next;
        actions
    }
}

/// The call is over.
fn ended(first: Option<Action>, why: EndReason) -> (State, Actions) {
    match first {
        Some(first) => (State::Ended, [Some(first), Some(Action::End(why))]),
        None => (State::Ended, [Some(Action::End(why)), None]),
    }
}

/// Over before it was answered; a call that we place has nobody to refuse.
fn refused(why: EndReason) -> (State, Actions) {
    ended(Some(Action::Refuse(why)), why)
}

/// Over after it was answered.
fn hung_up(why: EndReason) -> (State, Actions) {
    ended(Some(Action::SendBye(why)), why)
}

/// The workflow is late; what is configured for that comes as the next input.
fn without(state: State, why: EndReason) -> (State, Actions) {
    (state, [Some(Action::DoWithout(why)), None])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// The whole table as text: a reviewer diffs this, not code.
    fn table() -> String {
        let mut text = String::from("state × input → state: actions\n");
        for state in State::ALL {
            for input in Input::ALL {
                let mut machine = Machine { state, ..Machine::inbound() };
                let actions = machine.handle(input);
                let listed: Vec<_> =
                    actions.iter().flatten().map(|action| format!("{action:?}")).collect();
                let next = if machine.state == state && listed.is_empty() {
                    "absorbed".to_owned()
                } else {
                    format!("{:?}: {}", machine.state, listed.join(", "))
                };
                writeln!(text, "{state:?} × {input:?} → {next}").expect("a String takes all text");
            }
        }
        text
    }

    #[test]
    fn the_transition_table_is_the_golden_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/call/machine.golden.txt");
        let table = table();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &table).expect("the golden file is writable");
        }
        let golden = std::fs::read_to_string(path).expect("the golden file exists");
        assert_eq!(table, golden, "run with UPDATE_GOLDEN=1 and review the difference");
    }

    fn ends(mut machine: Machine, inputs: [Input; 3]) -> usize {
        inputs
            .into_iter()
            .chain([Input::Bye, Input::Cancelled])
            .flat_map(|input| machine.handle(input))
            .flatten()
            .filter(|action| matches!(action, Action::End(_)))
            .count()
    }

    #[test]
    fn a_call_ends_exactly_once_whatever_comes_after() {
        for first in Input::ALL {
            for second in Input::ALL {
                for third in Input::ALL {
                    let inputs = [first, second, third];
                    assert!(ends(Machine::inbound(), inputs) <= 1, "{inputs:?}");
                    assert!(ends(Machine::routed(), inputs) <= 1, "{inputs:?}");
                    assert!(ends(Machine::outbound(), inputs) <= 1, "{inputs:?}");
                }
            }
        }
    }

    /// A machine that has been through these inputs.
    fn after(mut machine: Machine, inputs: &[Input]) -> Machine {
        for input in inputs {
            machine.handle(*input);
        }
        machine
    }

    #[test]
    fn a_call_is_answered_only_when_the_agent_is_ready() {
        for input in Input::ALL {
            let mut machine = after(Machine::inbound(), &[Input::Briefed]);
            let accepted = machine.handle(input).contains(&Some(Action::Accept));
            assert_eq!(accepted, input == Input::AgentReady, "{input:?}");
        }
    }

    #[test]
    fn nobody_is_dialled_before_the_agent_is_ready() {
        for input in Input::ALL {
            let mut machine = after(Machine::outbound(), &[Input::Briefed]);
            let dialled = machine.handle(input).contains(&Some(Action::Dial));
            assert_eq!(dialled, input == Input::AgentReady, "{input:?}");
        }
    }

    #[test]
    fn no_agent_is_reached_and_nobody_answered_or_dialled_while_a_workflow_runs() {
        let forbidden = [Action::ReachAgent, Action::Accept, Action::Dial, Action::OpenGate];
        for machine in [Machine::routed, Machine::inbound, Machine::outbound] {
            for input in Input::ALL {
                let (mut machine, state) = (machine(), machine().state());
                let actions = machine.handle(input);
                let briefed = (state, input) == (State::Briefing, Input::Briefed);
                let acted = actions.iter().flatten().any(|action| forbidden.contains(action));
                assert_eq!(acted, briefed, "{state:?} {input:?}");
            }
        }
    }

    #[test]
    fn a_caller_who_gives_up_ends_a_call_whose_workflow_runs() {
        for machine in [Machine::routed, Machine::inbound] {
            for input in [Input::Cancelled, Input::Bye] {
                let actions = machine().handle(input);
                assert_eq!(actions, [Some(Action::End(EndReason::CallerCancelled)), None]);
            }
        }
    }

    #[test]
    fn a_workflow_that_is_late_leaves_the_call_waiting_for_what_is_configured() {
        for (machine, late) in [
            (Machine::routed as fn() -> Machine, EndReason::RoutingTimedOut),
            (Machine::inbound, EndReason::PreConversationTimedOut),
        ] {
            let mut machine = machine();
            let before = machine.state();
            let actions = machine.handle(Input::RunTimedOut);
            assert_eq!(actions, [Some(Action::DoWithout(late)), None]);
            assert_eq!(machine.state(), before);
        }
    }

    #[test]
    fn a_bye_on_a_call_we_placed_is_the_callees() {
        let inputs = [Input::Briefed, Input::AgentReady, Input::CalleeRings, Input::CalleeAnswered];
        let mut machine = after(Machine::outbound(), &inputs);
        let actions = machine.handle(Input::Bye);
        assert_eq!(actions, [Some(Action::End(EndReason::CalleeHungUp)), None]);
    }
}
