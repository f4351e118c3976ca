//! What calls leave behind: conversation records and decision records.

use std::borrow::Cow;
use std::net::SocketAddr;

use config::briefing::PostAction;
use config::calls::{LiveCall, TransferRequest};
use config::clock::Timestamp;
use config::ids::{ConversationId, DecisionId};
use config::journal::Entry;
use config::model::{
    AgentName, Answering, Channel, Considered, Conversation, ConversationChange, ConversationClose,
    ConversationStatus, Decision, Direction, EndReason as RecordedEnd, RoutingReport, Transfer,
    TransferMode, TransferStatus,
};
use config::routing::Told;
use config::snapshot::Snapshot;
use media::report::LegReport;
use serde_json::{Value, json};
use sip::{Flow, Request};

use super::wanted::Outcome;
use crate::call::EndReason;
use crate::call::admission::{Admitted, Refusal};
use crate::clock;

/// Longest piece of a stranger's text that is kept, in characters.
const MAX_TEXT: usize = 512;

/// The record of one call, from admission or order to end.
#[derive(Clone)]
pub(super) struct Record {
    conversation: Box<Conversation>,
    /// How the carrier refused the call, if it did.
    refusal: Option<Outcome>,
    /// What else a person should know about the end: which step of a workflow failed.
    explanation: Option<String>,
    /// It has been closed, though the call goes on: it was handed to another number.
    closed: bool,
}

fn now() -> Timestamp {
    Timestamp::from_micros(clock::unix_micros())
}

impl Record {
    pub(super) fn open(admitted: &Admitted, sip_call_id: String) -> Self {
        let mut conversation =
            Conversation::begun(admitted.organisation, Direction::Inbound, now());
        conversation.channel = Channel::Telephone;
        conversation.status = ConversationStatus::Ringing;
        conversation.user_id = admitted.caller.clone();
        conversation.agent_number = admitted.number.clone();
        conversation.trunk_id = admitted.trunk;
        conversation.trunk_call_id = Some(sip_call_id);
        Record::of(&conversation)
    }

    /// The record of a call that was ordered through the API; the store has it already.
    pub(super) fn of(conversation: &Conversation) -> Self {
        Record {
            conversation: Box::new(conversation.clone()),
            refusal: None,
            explanation: None,
            closed: false,
        }
    }

    /// When the call came or was ordered.
    pub(super) fn started_at(&self) -> Timestamp {
        self.conversation.created_at
    }

    /// What the agent is told by whoever ordered the call.
    pub(super) fn ordered_with(&self) -> Told {
        let metadata = self.conversation.custom_metadata.as_ref().and_then(Value::as_object);
        Told {
            initial_context: self.conversation.initial_context.clone(),
            custom_metadata: metadata.cloned().unwrap_or_default(),
        }
    }

    /// It is known who answers.
    pub(super) fn answered_by(&mut self, by: Answering, name: Option<String>) {
        self.conversation.agent_id = Some(by.agent);
        self.conversation.agent_version_id = Some(by.version);
        self.conversation.agent = name.map(|name| AgentName { id: by.agent, name });
    }

    /// Workflows have said who answers and what the agent is told.
    pub(super) fn told(&mut self, told: &Told) -> Entry {
        self.conversation.initial_context = told.initial_context.clone();
        self.conversation.custom_metadata = told.metadata();
        let conversation = &self.conversation;
        let answering = conversation.agent_id.zip(conversation.agent_version_id);
        Entry::ConversationChanged(ConversationChange {
            answering: answering.map(|(agent, version)| Answering { agent, version }),
            initial_context: conversation.initial_context.clone(),
            custom_metadata: conversation.custom_metadata.clone(),
            ..ConversationChange::to(conversation.id, conversation.status, now())
        })
    }

    /// Says in words why it will end.
    pub(super) fn explain(&mut self, why: String) {
        self.explanation = Some(why);
    }

    pub(super) fn id(&self) -> ConversationId {
        self.conversation.id
    }

    pub(super) fn is_outbound(&self) -> bool {
        self.conversation.direction == Direction::Outbound
    }

    /// The Call-ID of the INVITE that went to the carrier.
    pub(super) fn sent_as(&mut self, sip_call_id: String) {
        self.conversation.trunk_call_id = Some(sip_call_id);
    }

    /// The callee is being alerted.
    pub(super) fn rings(&mut self) {
        self.conversation.status = ConversationStatus::Ringing;
    }

    /// The carrier's own words for why there is no call.
    pub(super) fn refused_by(&mut self, outcome: &Outcome) {
        self.refusal = Some(outcome.clone());
    }

    pub(super) fn transfer_begun(&mut self, request: &TransferRequest, mode: TransferMode) {
        self.conversation.transfer = Some(Transfer {
            status: TransferStatus::Pending,
            transfer_number: request.transfer_number.clone(),
            displayed_number: request.displayed_number,
            mode,
            sip_code: None,
            at: now(),
        });
    }

    pub(super) fn transfer_over(&mut self, status: TransferStatus, sip_code: Option<u16>) {
        if let Some(transfer) = &mut self.conversation.transfer {
            transfer.status = status;
            transfer.sip_code = sip_code;
            transfer.at = now();
        }
    }

    pub(super) fn opened(&self) -> Entry {
        Entry::ConversationOpened(self.conversation.clone())
    }

    pub(super) fn answered(&mut self) {
        self.conversation.status = ConversationStatus::InProgress;
        self.conversation.answered_at = Some(now());
    }

    pub(super) fn answered_at(&self) -> Option<Timestamp> {
        self.conversation.answered_at
    }

    pub(super) fn changed(&self) -> Entry {
        Entry::ConversationChanged(ConversationChange {
            id: self.conversation.id,
            status: self.conversation.status,
            answered_at: self.conversation.answered_at,
            trunk_call_id: self.conversation.trunk_call_id.clone(),
            transfer: self.conversation.transfer.clone(),
            ..ConversationChange::to(self.conversation.id, self.conversation.status, now())
        })
    }

    /// Freezes how the call ended, and what its agent has done afterwards; the media report completes
    /// it. `None` when that was done before.
    pub(super) fn closing(
        &mut self,
        reason: EndReason,
        post: Option<PostAction>,
    ) -> Option<Closing> {
        if std::mem::replace(&mut self.closed, true) {
            return None;
        }
        let at = now();
        let answered = self.conversation.answered_at;
        let duration_s = answered.map(|answered| (at.micros() - answered.micros()) / 1_000_000);
        let row = reason.row();
        let refusal = self.refusal.take();
        let own_status = answered.is_none() && !self.is_outbound();
        let sip_code = match &refusal {
            Some(refusal) => refusal.status,
            None => own_status.then_some(row.sip_status),
        };
        let (sip_reason, text) = match refusal {
            // After a 2xx the words are ours: what was wrong with its answer.
            Some(refusal) if refusal.status.is_some_and(|status| status >= 300) => {
                (Some(refusal.text), None)
            }
            Some(refusal) => (None, Some(refusal.text)),
            None => (None, self.explanation.take()),
        };
        // Whoever was to be handed on is gone, and so is the transfer that was still open.
        if self.conversation.transfer.as_ref().is_some_and(|t| t.status == TransferStatus::Pending)
        {
            self.transfer_over(TransferStatus::Failed, None);
        }
        let words = |text: Option<String>| text.filter(|text| !text.is_empty());
        let end_reason = RecordedEnd {
            sip_code,
            sip_reason: words(sip_reason),
            text: words(text),
            ..RecordedEnd::new(row.code, row.party.as_str())
        };
        self.conversation.status = status(reason, answered.is_some());
        Some(Closing(Box::new(ConversationClose {
            id: self.conversation.id,
            status: self.conversation.status,
            end_reason,
            duration_s,
            quality: None,
            transfer: self.conversation.transfer.clone(),
            closed_at: at,
            post,
        })))
    }

    pub(super) fn shown(&self) -> LiveCall {
        let conversation = &self.conversation;
        LiveCall {
            conversation_id: conversation.id,
            organization_id: conversation.organization_id,
            direction: conversation.direction,
            status: conversation.status,
            user_id: conversation.user_id.clone(),
            agent_number: conversation.agent_number.clone(),
            agent_id: conversation.agent_id,
            trunk_id: conversation.trunk_id,
            trunk_call_id: conversation.trunk_call_id.clone().unwrap_or_default(),
            started_at: conversation.created_at,
            answered_at: conversation.answered_at,
        }
    }
}

/// Conversation status of an ending (the table of the conversation statuses).
fn status(reason: EndReason, answered: bool) -> ConversationStatus {
    match reason {
        EndReason::CallerCancelled
        | EndReason::InviteExpired
        | EndReason::CallCancelled
        | EndReason::RoutingRejected
        | EndReason::PreConversationRejected => ConversationStatus::Cancelled,
        EndReason::CalleeBusy | EndReason::CalleeDeclined | EndReason::NoAnswer => {
            ConversationStatus::Unanswered
        }
        EndReason::Transferred => ConversationStatus::Transferred,
        EndReason::CallerHungUp
        | EndReason::CalleeHungUp
        | EndReason::AgentHungUp
        | EndReason::AgentFinished
        | EndReason::DurationReached
        | EndReason::OperatorHungUp
        | EndReason::Drained
        | EndReason::MediaTimedOut
            if answered =>
        {
            ConversationStatus::Completed
        }
        _ => ConversationStatus::Failed,
    }
}

/// A record about to be closed.
#[derive(Clone)]
pub(super) struct Closing(Box<ConversationClose>);

impl Closing {
    pub(super) fn with_media(mut self, report: &LegReport) -> Entry {
        self.0.quality = Some(quality(report));
        Entry::ConversationClosed(self.0)
    }

    pub(super) fn without_media(self) -> Entry {
        Entry::ConversationClosed(self.0)
    }
}

/// `quality` of a conversation: what the trunk's leg was like.
fn quality(report: &LegReport) -> Value {
    let q = &report.quality;
    let mut value = json!({
        "packets_sent": q.packets_sent,
        "packets_received": q.packets_received,
        "packets_lost": q.packets_lost,
        "loss_percent": rounded(loss_percent(q.packets_lost, q.packets_received)),
        "jitter_ms": rounded(q.jitter_ms),
        "mos": q.mos.map(rounded),
        "encrypted": report.secured,
        "strangers_packets": report.strangers,
        "authentication_failures": report.auth_failures,
        "digits_received": report.digits_received,
        "packets_late": q.packets_late,
        "round_trip_ms": q.round_trip_ms.map(rounded),
        "jitter_peak_ms": rounded(q.jitter_peak_ms),
    });
    if let (Some(noise), Some(fields)) = (&report.noise, value.as_object_mut()) {
        fields.insert(
            "noise".to_owned(),
            json!({
                "before_dbfs": rounded(noise.before_dbfs),
                "after_dbfs": rounded(noise.after_dbfs),
            }),
        );
    }
    value
}

/// Estimated delay from the caller's mouth to the agent, in seconds: one packet, half a round trip,
/// and the playout buffer. `None` when nothing was heard.
pub(super) fn mouth_to_ear(report: &LegReport) -> Option<f64> {
    let q = &report.quality;
    (q.packets_received > 0).then(|| {
        let ms = 20.0 + q.round_trip_ms.unwrap_or(0.0) / 2.0 + q.buffer_ms;
        f64::from(ms) / 1000.0
    })
}

/// Of what should have come, the part that did not, in percent.
fn loss_percent(lost: u64, received: u64) -> f32 {
    let expected = lost + received;
    if expected == 0 { 0.0 } else { lost as f32 * 100.0 / expected as f32 }
}

/// Two decimals: more would claim a precision that nobody measured.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 100.0).round() / 100.0
}

/// An INVITE as its decision record will show it.
pub(super) struct Attempt {
    pub(super) source: SocketAddr,
    transport: &'static str,
    request_uri: String,
    from: String,
    called_raw: String,
    sip_call_id: String,
}

impl Attempt {
    pub(super) fn read(request: &Request, flow: &Flow) -> Self {
        let from = request.from();
        Attempt {
            source: SocketAddr::new(flow.remote.ip().to_canonical(), flow.remote.port()),
            transport: flow.transport.uri_token(),
            request_uri: clean(request.uri_bytes()),
            from: clean(from.uri_bytes),
            called_raw: super::invite::user(&request.uri()).chars().take(MAX_TEXT).collect(),
            sip_call_id: clean(request.call_id()),
        }
    }
}

impl Attempt {
    /// A decision about it, of which no more is known than the rule.
    fn decided(self, rule: &'static str) -> Decision {
        Decision {
            id: DecisionId::random(),
            at: now(),
            organization_id: None,
            source_ip: self.source.ip().to_string(),
            source_port: self.source.port(),
            transport: Cow::Borrowed(self.transport),
            request_uri: self.request_uri,
            from: self.from,
            called_raw: self.called_raw,
            called_number: None,
            trunks_considered: Vec::new(),
            rule: Cow::Borrowed(rule),
            explanation: String::new(),
            sip_status: None,
            sip_call_id: self.sip_call_id,
            conversation_id: None,
            routing: None,
        }
    }
}

/// A stranger's bytes as text without control characters, cut short.
fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(MAX_TEXT)
        .collect()
}

/// The record of a refused INVITE.
pub(super) fn decision(
    attempt: Attempt,
    snapshot: &Snapshot,
    refusal: Refusal,
    detail: Option<String>,
) -> Entry {
    let (rule, _, sentence) = refusal.rule.row();
    let considered = refusal.considered.iter().filter_map(|considered| {
        let trunk = snapshot.trunk(considered.trunk_id)?;
        Some(Considered {
            trunk_id: trunk.id,
            organization_id: trunk.organization_id,
            name: trunk.name.to_string(),
            rule: Cow::Borrowed(considered.found_by),
            verdict: considered.verdict.to_owned(),
        })
    });
    Entry::Decision(Box::new(Decision {
        organization_id: refusal.organisation,
        called_number: refusal.called_number,
        trunks_considered: considered.collect(),
        explanation: match detail {
            Some(detail) => format!("{sentence} {detail}"),
            None => sentence.to_owned(),
        },
        sip_status: refusal.status,
        ..attempt.decided(rule)
    }))
}

/// What a call is recorded as that its organisation's workflow brought to an agent.
const ROUTED: &str = "routed";

/// The record of a call that its organisation's workflow decided about.
pub(super) fn routed(attempt: Attempt, record: &Record, report: RoutingReport) -> Entry {
    let conversation = &record.conversation;
    let rule = report.reason.clone().map_or(Cow::Borrowed(ROUTED), Cow::Owned);
    Entry::Decision(Box::new(Decision {
        organization_id: Some(conversation.organization_id),
        called_number: conversation.agent_number.clone(),
        rule,
        explanation: report.explanation.join(" "),
        sip_status: report.sip_status,
        conversation_id: Some(conversation.id),
        routing: Some(report),
        ..attempt.decided(ROUTED)
    }))
}
