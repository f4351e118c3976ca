//! How a call ended: one party, one stable word.
//!
//! The word is the metric label, the field of the conversation record, the API value, the log
//! field and the name of the test that produces it. [`EndReason::row`] is the only table that maps
//! it to SIP (RFC 3261 §21), Q.850 (RFC 3326) and the conversation status.

use std::fmt;

/// Who made the call stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// The person or PBX that dialled in.
    Caller,
    /// The person we dialled.
    Callee,
    /// The company that carries the call.
    Carrier,
    /// The agent, or the link to it.
    Agent,
    /// Somebody with an API key, or the settings.
    Operator,
    /// Ourselves.
    Gateway,
}

impl Party {
    /// Stable lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Party::Caller => "caller",
            Party::Callee => "callee",
            Party::Carrier => "carrier",
            Party::Agent => "agent",
            Party::Operator => "operator",
            Party::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an admitted call stopped. Every call has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndReason {
    /// BYE from the caller after the call was answered.
    CallerHungUp,
    /// CANCEL, or a BYE in the early dialog, from the caller before the call was answered.
    CallerCancelled,
    /// The `Expires` of the INVITE passed before the agent was ready.
    InviteExpired,
    /// BYE from the person we called.
    CalleeHungUp,
    /// 486 or 600 from the other side.
    CalleeBusy,
    /// 603 from the other side.
    CalleeDeclined,
    /// It rang for the configured time, or the other side said 408 or 480.
    NoAnswer,
    /// The carrier refused the call with any other status.
    CarrierRefused,
    /// No target of the carrier answered: not found, no connection, time-out, or a server failure.
    CarrierUnreachable,
    /// The carrier did not take the trunk's credentials.
    CarrierUnauthorised,
    /// The carrier took none of our offers, or its answer was unusable or less than demanded.
    MediaRefused,
    /// The trunk cannot dial any more: deleted, or without an outbound configuration.
    TrunkUnusable,
    /// The caller's Max-Forwards left no hop to the agent: the call goes round in a circle.
    TooManyHops,
    /// Withdrawn through the API before it was answered.
    CallCancelled,
    /// As many calls waited as may.
    QueueFull,
    /// It waited in the queue for the longest time allowed.
    QueueTimedOut,
    /// Handed to another number by the carrier (REFER, RFC 3515).
    Transferred,
    /// The number that the call was handed to hung up.
    TransferTargetHungUp,
    /// The agent closed its link, or asked for the end.
    AgentHungUp,
    /// The agent refused the connection or the handshake.
    AgentRefused,
    /// The agent was not ready within the connect time-out.
    AgentTimedOut,
    /// The link broke while the call was up.
    AgentLost,
    /// The agent stopped reading or stopped answering pings.
    AgentStalled,
    /// A built-in agent played its clip to the end.
    AgentFinished,
    /// Our 200 was never acknowledged (64·T1, RFC 3261 §13.3.1.4).
    AckMissing,
    /// The answer in the ACK was unusable (RFC 3264 §5).
    BadAnswer,
    /// No media came for the configured time.
    MediaTimedOut,
    /// The call reached the maximum duration.
    DurationReached,
    /// Hung up through the API.
    OperatorHungUp,
    /// The drain limit passed while the program was stopping.
    Drained,
    /// The organisation's routing workflow said no.
    RoutingRejected,
    /// The routing workflow failed, and there is no fallback agent.
    RoutingFailed,
    /// The routing workflow was not done in time, and there is no fallback agent.
    RoutingTimedOut,
    /// As many workflows ran as may, and there is no fallback agent.
    RoutingOverloaded,
    /// The routing workflow named no agent that can answer, and there is no fallback agent.
    RoutingUnresolved,
    /// The agent's pre-conversation workflow said no.
    PreConversationRejected,
    /// The pre-conversation workflow failed, and the agent wants no calls without it.
    PreConversationFailed,
    /// The pre-conversation workflow was not done in time, and the agent wants no calls without it.
    PreConversationTimedOut,
    /// No media worker could take the call.
    MediaUnavailable,
    /// A fault of ours. Counted; any non-zero count is a bug report.
    GatewayBug,
}

/// One line of the mapping table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRow {
    /// Who ended the call.
    pub party: Party,
    /// Stable snake_case word.
    pub code: &'static str,
    /// Final response when the INVITE is still unanswered.
    pub sip_status: u16,
    /// Q.850 cause for the Reason header of a BYE (RFC 3326).
    pub q850: u8,
    /// What a person reads.
    pub text: &'static str,
}

impl EndReason {
    /// Every reason, for tables, metrics and tests.
    pub const ALL: [EndReason; 40] = [
        EndReason::CallerHungUp,
        EndReason::CallerCancelled,
        EndReason::InviteExpired,
        EndReason::CalleeHungUp,
        EndReason::CalleeBusy,
        EndReason::CalleeDeclined,
        EndReason::NoAnswer,
        EndReason::CarrierRefused,
        EndReason::CarrierUnreachable,
        EndReason::CarrierUnauthorised,
        EndReason::MediaRefused,
        EndReason::TrunkUnusable,
        EndReason::TooManyHops,
        EndReason::CallCancelled,
        EndReason::QueueFull,
        EndReason::QueueTimedOut,
        EndReason::Transferred,
        EndReason::TransferTargetHungUp,
        EndReason::AgentHungUp,
        EndReason::AgentRefused,
        EndReason::AgentTimedOut,
        EndReason::AgentLost,
        EndReason::AgentStalled,
        EndReason::AgentFinished,
        EndReason::AckMissing,
        EndReason::BadAnswer,
        EndReason::MediaTimedOut,
        EndReason::DurationReached,
        EndReason::OperatorHungUp,
        EndReason::Drained,
        EndReason::RoutingRejected,
        EndReason::RoutingFailed,
        EndReason::RoutingTimedOut,
        EndReason::RoutingOverloaded,
        EndReason::RoutingUnresolved,
        EndReason::PreConversationRejected,
        EndReason::PreConversationFailed,
        EndReason::PreConversationTimedOut,
        EndReason::MediaUnavailable,
        EndReason::GatewayBug,
    ];

    /// The one table: party, word, SIP status, Q.850 cause, text.
    #[must_use]
    #[rustfmt::skip]
    pub fn row(self) -> EndRow {
        use EndReason as E;
        use Party as P;
        let row = |party, code, sip_status, q850, text| EndRow { party, code, sip_status, q850, text };
        match self {
            E::CallerHungUp     => row(P::Caller,   "caller_hung_up",    487, 16,  "The caller hung up."),
            E::CallerCancelled  => row(P::Caller,   "caller_cancelled",  487, 16,  "The caller gave up before the call was answered."),
            E::InviteExpired    => row(P::Caller,   "invite_expired",    487, 102, "The caller's time limit for an answer passed."),
            E::CalleeHungUp     => row(P::Callee,   "callee_hung_up",    480, 16,  "The callee hung up."),
            E::CalleeBusy       => row(P::Callee,   "callee_busy",       486, 17,  "The callee is busy."),
            E::CalleeDeclined   => row(P::Callee,   "callee_declined",   603, 21,  "The callee declined the call."),
            E::NoAnswer         => row(P::Callee,   "no_answer",         480, 19,  "The callee did not answer."),
            E::CarrierRefused   => row(P::Carrier,  "carrier_refused",   503, 21,  "The carrier refused the call."),
            E::CarrierUnreachable => row(P::Carrier, "carrier_unreachable", 503, 38, "No server of the carrier answered."),
            E::CarrierUnauthorised => row(P::Carrier, "carrier_unauthorised", 503, 57, "The carrier did not take the trunk's credentials."),
            E::MediaRefused     => row(P::Carrier,  "media_refused",     488, 88,  "The other side and the trunk's rules have no media in common."),
            E::TrunkUnusable    => row(P::Operator, "trunk_unusable",    480, 3,   "The number's trunk cannot dial out any more."),
            E::TooManyHops      => row(P::Caller,   "too_many_hops",     483, 25,  "Max-Forwards is used up: the call goes round in a loop."),
            E::QueueFull        => row(P::Gateway,  "queue_full",        480, 34,  "As many calls waited as may."),
            E::CallCancelled    => row(P::Operator, "call_cancelled",    480, 16,  "Cancelled through the API before it was answered."),
            E::QueueTimedOut    => row(P::Operator, "queue_timed_out",   480, 34,  "The call waited in the queue for too long."),
            E::Transferred      => row(P::Operator, "transferred",       480, 16,  "The carrier took the call to another number."),
            E::TransferTargetHungUp => row(P::Callee, "transfer_target_hung_up", 480, 16, "The number that the call was handed to hung up."),
            E::AgentHungUp      => row(P::Agent,    "agent_hung_up",     480, 16,  "The agent ended the call."),
            E::AgentRefused     => row(P::Agent,    "agent_refused",     480, 38,  "The agent refused the connection."),
            E::AgentTimedOut    => row(P::Agent,    "agent_timed_out",   480, 102, "The agent was not ready in time."),
            E::AgentLost        => row(P::Agent,    "agent_lost",        480, 41,  "The link to the agent broke."),
            E::AgentStalled     => row(P::Agent,    "agent_stalled",     480, 41,  "The agent stopped reading its audio."),
            E::AgentFinished    => row(P::Agent,    "agent_finished",    480, 16,  "The agent's clip ended."),
            E::AckMissing       => row(P::Caller,   "ack_missing",       408, 102, "The answer was never acknowledged."),
            E::BadAnswer        => row(P::Caller,   "bad_answer",        488, 88,  "The caller's media answer was unusable."),
            E::MediaTimedOut    => row(P::Carrier,  "media_timed_out",   480, 102, "No media arrived."),
            E::DurationReached  => row(P::Operator, "duration_reached",  480, 31,  "The call reached its maximum duration."),
            E::OperatorHungUp   => row(P::Operator, "operator_hung_up",  480, 16,  "Ended through the API."),
            E::Drained          => row(P::Operator, "drained",           503, 41,  "The gateway stopped before the call ended."),
            E::RoutingRejected  => row(P::Operator, "routing_rejected",  603, 21,  "The routing workflow rejected the call."),
            E::RoutingFailed    => row(P::Operator, "routing_failed",    480, 41,  "The routing workflow failed."),
            E::RoutingTimedOut  => row(P::Operator, "routing_timed_out", 480, 102, "The routing workflow was not done in time."),
            E::RoutingOverloaded => row(P::Gateway, "routing_overloaded", 480, 42, "As many workflows ran as may."),
            E::RoutingUnresolved => row(P::Operator, "routing_unresolved", 480, 3, "The routing workflow named no agent that can answer."),
            E::PreConversationRejected => row(P::Operator, "pre_conversation_rejected", 603, 21, "The agent's pre-conversation workflow rejected the call."),
            E::PreConversationFailed => row(P::Operator, "pre_conversation_failed", 480, 41, "The agent's pre-conversation workflow failed."),
            E::PreConversationTimedOut => row(P::Operator, "pre_conversation_timed_out", 480, 102, "The agent's pre-conversation workflow was not done in time."),
            E::MediaUnavailable => row(P::Gateway,  "media_unavailable", 503, 47,  "No media worker could take the call."),
            E::GatewayBug       => row(P::Gateway,  "gateway_bug",       500, 41,  "The gateway failed."),
        }
    }

    /// Stable snake_case word.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// Who ended the call.
    #[must_use]
    pub fn party(self) -> Party {
        self.row().party
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_word() {
        let words: HashSet<_> = EndReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(words.len(), EndReason::ALL.len());
    }

    #[test]
    fn every_word_is_snake_case_and_every_status_is_final() {
        for reason in EndReason::ALL {
            let row = reason.row();
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.code);
            assert!((400..700).contains(&row.sip_status), "{}", row.code);
        }
    }
}
