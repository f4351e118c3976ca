//! What calls leave behind: conversation records, decision records, and the table of live calls.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use config::calls::{LiveCall, LiveCalls};
use config::clock::Timestamp;
use config::ids::{ConversationId, DecisionId, OrganisationId};
use config::journal::Entry;
use config::model::{
    AgentName, Channel, Considered, Conversation, ConversationChange, ConversationClose,
    ConversationStatus, Decision, Direction, EndReason as RecordedEnd,
};
use config::snapshot::Snapshot;
use media::report::LegReport;
use serde_json::{Value, json};
use sip::{Flow, Request};

use crate::call::EndReason;
use crate::call::admission::{Admitted, Refusal};
use crate::clock;

/// Longest piece of a stranger's text that is kept, in characters.
const MAX_TEXT: usize = 512;

/// The record of one call, from admission to end.
#[derive(Clone)]
pub(super) struct Record {
    conversation: Box<Conversation>,
}

fn now() -> Timestamp {
    Timestamp::from_micros(clock::unix_micros())
}

impl Record {
    pub(super) fn open(admitted: &Admitted, agent: Option<String>, sip_call_id: String) -> Self {
        let mut conversation =
            Conversation::begun(admitted.organisation, Direction::Inbound, now());
        conversation.channel = Channel::Telephone;
        conversation.status = ConversationStatus::Ringing;
        conversation.user_id = admitted.caller.clone();
        conversation.agent_id = Some(admitted.agent);
        conversation.agent_version_id = Some(admitted.version);
        conversation.agent_number = admitted.number.clone();
        conversation.trunk_id = admitted.trunk;
        conversation.trunk_call_id = Some(sip_call_id);
        conversation.agent = agent.map(|name| AgentName { id: admitted.agent, name });
        Record { conversation: Box::new(conversation) }
    }

    pub(super) fn id(&self) -> ConversationId {
        self.conversation.id
    }

    pub(super) fn opened(&self) -> Entry {
        Entry::ConversationOpened(self.conversation.clone())
    }

    pub(super) fn answered(&mut self) {
        self.conversation.status = ConversationStatus::InProgress;
        self.conversation.answered_at = Some(now());
    }

    pub(super) fn changed(&self) -> Entry {
        Entry::ConversationChanged(ConversationChange {
            id: self.conversation.id,
            status: self.conversation.status,
            answered_at: self.conversation.answered_at,
            trunk_call_id: None,
            transfer: None,
            at: now(),
        })
    }

    /// Freezes how the call ended; the media report completes it.
    pub(super) fn closing(&self, reason: EndReason) -> Closing {
        let at = now();
        let answered = self.conversation.answered_at;
        let duration_s = answered.map(|answered| (at.micros() - answered.micros()) / 1_000_000);
        let row = reason.row();
        let sip_code = answered.is_none().then_some(row.sip_status);
        Closing(Box::new(ConversationClose {
            id: self.conversation.id,
            status: status(reason, answered.is_some()),
            end_reason: RecordedEnd {
                code: Cow::Borrowed(row.code),
                party: Cow::Borrowed(row.party.as_str()),
                sip_code,
                sip_reason: None,
                text: None,
            },
            duration_s,
            quality: None,
            transfer: None,
            closed_at: at,
        }))
    }

    fn shown(&self) -> LiveCall {
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
        EndReason::CallerCancelled | EndReason::InviteExpired => ConversationStatus::Cancelled,
        EndReason::CallerHungUp
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
    let explanation = match detail {
        Some(detail) => format!("{sentence} {detail}"),
        None => sentence.to_owned(),
    };
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
        id: DecisionId::random(),
        at: now(),
        organization_id: refusal.organisation,
        source_ip: attempt.source.ip().to_string(),
        source_port: attempt.source.port(),
        transport: Cow::Borrowed(attempt.transport),
        request_uri: attempt.request_uri,
        from: attempt.from,
        called_raw: attempt.called_raw,
        called_number: refusal.called_number,
        trunks_considered: considered.collect(),
        rule: Cow::Borrowed(rule),
        explanation,
        sip_status: refusal.status,
        sip_call_id: attempt.sip_call_id,
    }))
}

/// Calls that are up, for the API: written by the shard, read by anybody.
#[derive(Debug, Default)]
pub struct LiveTable {
    calls: Mutex<HashMap<ConversationId, LiveCall>>,
    draining: AtomicBool,
}

impl LiveTable {
    fn calls(&self) -> MutexGuard<'_, HashMap<ConversationId, LiveCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn started(&self, record: &Record) {
        self.calls().insert(record.id(), record.shown());
    }

    pub(super) fn changed(&self, record: &Record, status: ConversationStatus) {
        if let Some(call) = self.calls().get_mut(&record.id()) {
            call.status = status;
            call.answered_at = record.conversation.answered_at;
        }
    }

    pub(super) fn ended(&self, record: &Record) {
        self.calls().remove(&record.id());
    }

    /// Notes that no new calls are taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

impl LiveCalls for LiveTable {
    fn live(&self) -> usize {
        self.calls().len()
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn list(&self, organisation: OrganisationId) -> Vec<LiveCall> {
        let mut calls: Vec<LiveCall> = self
            .calls()
            .values()
            .filter(|call| call.organization_id == organisation)
            .cloned()
            .collect();
        calls.sort_by_key(|call| call.started_at);
        calls
    }
}
