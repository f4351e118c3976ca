//! Which agent answers a call to a number, where the organisation's workflow decides about it.
//!
//! | the organisation's inbound routing | who answers |
//! |---|---|
//! | none, or not enabled | the version in the number's inbound slot |
//! | the workflow says `reject` | nobody (603) |
//! | the workflow names an agent that can answer | that agent |
//! | it names nobody who can, fails, is late, or found no room to run | the fallback agent, else nobody (480) |
//!
//! An agent can answer when it is the organisation's own, active, and the version is published. What
//! belongs to another organisation is as unknown as what never was.
//!
//! Pure: everything is read from one [`Snapshot`] and the [`Outcome`] of the run. A call and a dry run
//! are decided by the same function, [`settle`].

pub mod forecast;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, ConversationId, OrganisationId, TrunkId};
use crate::limits;
use crate::model::{RoutingReport, RoutingResult};
use crate::snapshot::{AgentRoute, Fallback, Snapshot, VersionRoute};
use crate::workflows::{Failure, FailureKind, Outcome, TraceEntry};

/// A call, as a routing workflow is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Whose number was called.
    pub organisation: OrganisationId,
    /// Its conversation; `None` for a call that is only thought of.
    pub conversation: Option<ConversationId>,
    /// Who calls: a number where it is one.
    pub caller: &'a str,
    /// The number that was dialled.
    pub called: &'a str,
    /// The trunk it came in on.
    pub trunk: Option<TrunkId>,
    /// The INVITE's own headers.
    pub headers: &'a OwnHeaders,
    /// When it came.
    pub at: Timestamp,
}

impl Incoming<'_> {
    /// The workflow's input.
    #[must_use]
    pub fn input(&self) -> Value {
        json!({
            "caller_number": self.caller,
            "called_number": self.called,
            "trunk_id": self.trunk,
            "organization_id": self.organisation,
            "timestamp": self.at,
            "conversation_id": self.conversation,
            "sip_headers": self.headers.0,
        })
    }
}

/// The headers of an INVITE that mean something to its sender and to nobody between (`X-…`), with names
/// in lower case. Whoever calls wrote them: they prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnHeaders(BTreeMap<String, String>);

impl OwnHeaders {
    /// Keeps what a header block has of such headers: of several with one name the first, and neither
    /// what is too long nor more than so many.
    #[must_use]
    pub fn collect<'h>(headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Self {
        let mut kept = BTreeMap::new();
        for (name, value) in headers {
            let fits = |text: &[u8]| text.len() <= limits::ROUTING_HEADER_BYTES.value_usize();
            if kept.len() == limits::ROUTING_HEADERS.value_usize() {
                break;
            }
            if !is_own(name) || !fits(name) || !fits(value) {
                continue;
            }
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            kept.entry(name).or_insert_with(|| printable(value));
        }
        Self(kept)
    }
}

/// Whether a header's name begins with `X-`, in either case.
#[must_use]
pub fn is_own(name: &[u8]) -> bool {
    name.len() > 2 && name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"x-"))
}

/// A value as text, its folds undone.
fn printable(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let pieces = text.split(['\r', '\n']).map(str::trim).filter(|piece| !piece.is_empty());
    let whole = pieces.collect::<Vec<_>>().join(" ");
    whole.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Why nobody answers, or nobody whom a workflow named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The workflow said no.
    Rejected,
    /// The workflow failed, or its output was unusable.
    Failed,
    /// It was not done in time.
    TimedOut,
    /// As many workflows ran as may.
    Overloaded,
    /// It named no agent that can answer.
    Unresolved,
}

impl Why {
    /// Every reason, for tables and tests.
    pub const ALL: [Why; 5] =
        [Why::Rejected, Why::Failed, Why::TimedOut, Why::Overloaded, Why::Unresolved];

    /// The stable word of a call that ended so while it was routed.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Why::Rejected => "routing_rejected",
            Why::Failed => "routing_failed",
            Why::TimedOut => "routing_timed_out",
            Why::Overloaded => "routing_overloaded",
            Why::Unresolved => "routing_unresolved",
        }
    }

    /// What the caller gets (RFC 3261 section 21).
    #[must_use]
    pub const fn sip_status(self) -> u16 {
        match self {
            Why::Rejected => 603,
            Why::Failed | Why::TimedOut | Why::Overloaded | Why::Unresolved => 480,
        }
    }
}

impl From<FailureKind> for Why {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Threw
            | FailureKind::TooManySteps
            | FailureKind::Interrupted
            | FailureKind::Cancelled => Why::Failed,
            FailureKind::TimedOut => Why::TimedOut,
            FailureKind::Busy => Why::Overloaded,
        }
    }
}

/// What a workflow adds to a conversation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Told {
    /// What the agent is told beforehand.
    pub initial_context: Option<String>,
    /// The customer's own data.
    pub custom_metadata: Map<String, Value>,
}

impl Told {
    /// Adds what was told later, which wins key by key.
    ///
    /// # Errors
    /// A sentence, when the metadata would be larger than a conversation may have; nothing is added.
    pub fn and_later(&mut self, later: Told) -> Result<(), String> {
        let mut metadata = self.custom_metadata.clone();
        metadata.extend(later.custom_metadata);
        check_metadata(&metadata)?;
        self.custom_metadata = metadata;
        if later.initial_context.is_some() {
            self.initial_context = later.initial_context;
        }
        Ok(())
    }

    /// The metadata as a conversation keeps it: nothing at all when there is none.
    #[must_use]
    pub fn metadata(&self) -> Option<Value> {
        (!self.custom_metadata.is_empty()).then(|| Value::Object(self.custom_metadata.clone()))
    }
}

/// An agent that answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The agent.
    pub agent: AgentId,
    /// Its version.
    pub version: AgentVersionId,
    /// What the workflow adds to the conversation.
    pub told: Told,
    /// Whether the agent's own pre-conversation workflow is left out.
    pub skips_pre_conversation: bool,
}

/// What became of a call, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// Who answers, or why nobody.
    pub verdict: Result<Answer, Why>,
    /// The same for people, step by step.
    pub report: RoutingReport,
}

/// Why a version cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswerable {
    /// The agent is switched off.
    Inactive,
    /// There is no such published version of an agent of the organisation.
    Unavailable,
}

/// A published version and its agent, if it can answer the organisation's calls.
///
/// # Errors
/// Why it cannot.
pub fn answering(
    snapshot: &Snapshot,
    organisation: OrganisationId,
    version: AgentVersionId,
) -> Result<(&AgentRoute, &VersionRoute), Unanswerable> {
    let version = snapshot.version(version).filter(|version| version.published);
    let version = version.ok_or(Unanswerable::Unavailable)?;
    let agent = snapshot.agent(version.agent_id).ok_or(Unanswerable::Unavailable)?;
    if agent.organization_id != organisation {
        return Err(Unanswerable::Unavailable);
    }
    if agent.active { Ok((agent, version)) } else { Err(Unanswerable::Inactive) }
}

/// Decides who answers after the workflow has run.
#[must_use]
pub fn settle(
    snapshot: &Snapshot,
    (organisation, fallback): (OrganisationId, Option<Fallback>),
    outcome: &Outcome,
) -> Settled {
    let mut case = Case { snapshot, organisation, fallback, explanation: Vec::new() };
    let (verdict, result) = case.decide(&outcome.result);
    let answer = verdict.as_ref().map(|(answer, _)| answer);
    let version = answer.ok().and_then(|answer| snapshot.version(answer.version));
    let why = match &verdict {
        Ok((_, why)) => *why,
        Err(why) => Some(*why),
    };
    let report = RoutingReport {
        result,
        reason: why.map(|why| why.code().to_owned()),
        sip_status: verdict.as_ref().err().map(|why| why.sip_status()),
        agent_id: answer.ok().map(|answer| answer.agent),
        agent_version_id: answer.ok().map(|answer| answer.version),
        version: version.map(|version| version.version),
        skip_pre_conversation_workflow: answer.is_ok_and(|answer| answer.skips_pre_conversation),
        steps: outcome.trace.clone(),
        explanation: case.explanation,
    };
    Settled { verdict: verdict.map(|(answer, _)| answer), report }
}

/// A report without what a step put out, which is not kept: those who may read why a call was refused need
/// not be those who may read what it was about. Branches stay, and why a step failed; [`without_error`]
/// takes that too.
#[must_use]
pub fn discreet(mut report: RoutingReport, failed: bool) -> RoutingReport {
    let last = report.steps.len().saturating_sub(1);
    for (at, step) in report.steps.iter_mut().enumerate() {
        if step.kind != "condition" && !(failed && at == last) {
            step.summary = String::new();
        }
    }
    report
}

/// A discreet report as it is for who may not read what is sensitive of conversations: the words of the
/// step that failed, the last that there was, may quote what it was given.
#[must_use]
pub fn without_error(mut report: RoutingReport) -> RoutingReport {
    if let Some(step) = report.steps.last_mut() {
        step.summary = String::new();
    }
    report
}

/// One decision in the making.
struct Case<'a> {
    snapshot: &'a Snapshot,
    organisation: OrganisationId,
    fallback: Option<Fallback>,
    explanation: Vec<String>,
}

/// Who answers, and why it is not whom the workflow named; or why nobody does.
type Verdict = Result<(Answer, Option<Why>), Why>;

impl<'a> Case<'a> {
    fn note(&mut self, sentence: impl Into<String>) {
        self.explanation.push(sentence.into());
    }

    fn decide(&mut self, result: &Result<Value, Failure>) -> (Verdict, RoutingResult) {
        let output = match result {
            Ok(output) => Output::read(output),
            Err(failure) => {
                self.note(failed(failure));
                return self.fall_back(failure.kind.into(), Output::default());
            }
        };
        match output {
            Err(fault) => {
                self.note(format!("The workflow's output cannot be used: {fault}."));
                self.fall_back(Why::Failed, Output::default())
            }
            Ok(output) if output.reject => {
                self.note("The workflow rejects the call: it is refused with 603.");
                (Err(Why::Rejected), RoutingResult::Refused)
            }
            Ok(output) => match self.named(&output) {
                Ok((agent, version)) => {
                    (Ok((output.answered_by(agent, version), None)), RoutingResult::Workflow)
                }
                Err(sentence) => {
                    self.note(sentence);
                    self.fall_back(Why::Unresolved, output)
                }
            },
        }
    }

    /// The agent that the workflow named, or why it cannot be that one.
    fn named(&mut self, output: &Output) -> Result<(AgentId, AgentVersionId), String> {
        let Some(named) = &output.agent else {
            return Err("The workflow names no agent.".to_owned());
        };
        let which = Named::new(named, output.version.as_ref())?;
        let (agent, version) = self
            .resolve(which)
            .map_err(|why| format!("The workflow names agent {}: {why}.", which.agent))?;
        self.note(format!(
            "The workflow names agent {} (version {}): it answers.",
            agent.id, version.version
        ));
        Ok((agent.id, version.id))
    }

    /// The fallback agent answers with what the workflow told, or nobody does.
    fn fall_back(&mut self, why: Why, output: Output) -> (Verdict, RoutingResult) {
        let nobody = (Err(why), RoutingResult::Refused);
        let status = why.sip_status();
        let Some(Fallback { agent, version }) = self.fallback else {
            self.note(format!("There is no fallback agent: the call is refused with {status}."));
            return nobody;
        };
        let found = self.resolve(Named { agent, version });
        let found = found.map(|(agent, version)| (agent.id, version.id, version.version));
        match found {
            Ok((agent, version, number)) => {
                self.note(format!("The fallback agent {agent} (version {number}) answers."));
                (Ok((output.answered_by(agent, version), Some(why))), RoutingResult::Fallback)
            }
            Err(cannot) => {
                self.note(format!(
                    "The fallback agent {agent} cannot answer: {cannot}. The call is refused with \
                     {status}."
                ));
                nobody
            }
        }
    }

    fn resolve(&self, which: Named) -> Result<(&'a AgentRoute, &'a VersionRoute), &'static str> {
        const UNKNOWN: &str = "there is no such agent";
        let snapshot = self.snapshot;
        let agent = snapshot.agent(which.agent);
        let agent = agent.filter(|agent| agent.organization_id == self.organisation);
        let agent = agent.ok_or(UNKNOWN)?;
        let version = match which.version {
            Some(number) => {
                let version = snapshot.version_numbered(agent.id, number);
                version.ok_or("it has no such published version")?.id
            }
            None => agent.latest_published.ok_or("it has no published version")?,
        };
        answering(snapshot, self.organisation, version).map_err(|why| match why {
            Unanswerable::Inactive => "it is switched off (active is false)",
            Unanswerable::Unavailable => "it has no such published version",
        })
    }
}

/// A sentence that quotes nothing of the call; the words of an error are with the step.
fn failed(failure: &Failure) -> String {
    let (step, why) = (failure.step_name.as_str(), failure.discreet());
    match failure.kind {
        FailureKind::TimedOut if step.is_empty() => "The workflow was not done in time.".to_owned(),
        FailureKind::TimedOut => {
            format!("The workflow was not done in time: it was at step \"{step}\".")
        }
        FailureKind::Busy => format!("The workflow found no room to run: {why}."),
        _ if step.is_empty() => format!("The workflow did not run: {why}"),
        _ => format!("The workflow failed at step \"{step}\": {why}."),
    }
}

/// An agent that was named, by the latest published version or a certain one.
#[derive(Clone, Copy)]
struct Named {
    agent: AgentId,
    version: Option<u32>,
}

impl Named {
    fn new(agent: &Value, version: Option<&Value>) -> Result<Self, String> {
        let agent = agent.as_str().and_then(|text| text.parse().ok());
        let agent = agent.ok_or("The workflow names an agent by what is no agent's id.")?;
        let version = match version {
            None => None,
            Some(Value::String(text)) if text == "latest" => None,
            Some(value) => {
                let number = whole(value).filter(|number| *number > 0);
                let wrong =
                    || format!("The workflow names agent {agent} and no version by number.");
                Some(number.ok_or_else(wrong)?)
            }
        };
        Ok(Self { agent, version })
    }
}

/// A whole number, also as expressions write it: 2.0.
fn whole(value: &Value) -> Option<u32> {
    if let Some(number) = value.as_u64() {
        return u32::try_from(number).ok();
    }
    let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
    // Printed without a fraction, it reads as an integer exactly when it is one in range.
    format!("{number:.0}").parse().ok()
}

/// What a routing or pre-conversation workflow gives.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) reject: bool,
    pub(crate) told: Told,
    agent: Option<Value>,
    version: Option<Value>,
    skips_pre_conversation: bool,
}

impl Output {
    /// Reads an output; what it holds besides is of no meaning here.
    pub(crate) fn read(output: &Value) -> Result<Self, String> {
        let present = |key: &str| output.get(key).filter(|value| !value.is_null());
        let truth = |key: &str| match present(key) {
            None => Ok(false),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(_) => Err(format!("{key} must be true or false")),
        };
        let initial_context = match present("initial_context") {
            None => None,
            Some(Value::String(text)) => checked_context(text)?,
            Some(_) => return Err("initial_context must be a string".to_owned()),
        };
        let custom_metadata = match present("custom_metadata") {
            None => Map::new(),
            Some(Value::Object(map)) => map.clone(),
            Some(_) => return Err("custom_metadata must be an object".to_owned()),
        };
        check_metadata(&custom_metadata)?;
        Ok(Self {
            reject: truth("reject")?,
            told: Told { initial_context, custom_metadata },
            agent: present("agent_id").filter(|agent| **agent != "").cloned(),
            version: present("version").cloned(),
            skips_pre_conversation: truth("skip_pre_conversation_workflow")?,
        })
    }

    fn answered_by(self, agent: AgentId, version: AgentVersionId) -> Answer {
        let skips_pre_conversation = self.skips_pre_conversation;
        Answer { agent, version, told: self.told, skips_pre_conversation }
    }
}

fn checked_context(text: &str) -> Result<Option<String>, String> {
    let limit = limits::INITIAL_CONTEXT_BYTES;
    if text.len() > limit.value_usize() {
        return Err(format!("initial_context must be at most {} bytes", limit.value));
    }
    if text.contains('\0') {
        return Err("initial_context must not hold NUL characters".to_owned());
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn check_metadata(metadata: &Map<String, Value>) -> Result<(), String> {
    let limit = limits::CUSTOM_METADATA_BYTES;
    let length = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
    if length > limit.value_usize() {
        return Err(format!("custom_metadata must be at most {} bytes as JSON", limit.value));
    }
    Ok(())
}

/// The trace of a run that never began.
#[must_use]
pub fn not_run(kind: FailureKind, message: &str) -> Outcome {
    let failure = Failure { step_name: String::new(), message: message.to_owned(), kind };
    Outcome { result: Err(failure), trace: Vec::<TraceEntry>::new() }
}
