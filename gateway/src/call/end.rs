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
    pub const ALL: [EndReason; 17] = [
        EndReason::CallerHungUp,
        EndReason::CallerCancelled,
        EndReason::InviteExpired,
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
