//! What would happen to a call that is only thought of.

use serde_json::Value;

use super::{Unanswerable, answering, settle};
use crate::ids::OrganisationId;
use crate::model::{RoutingForecast, RoutingReport, RoutingResult};
use crate::snapshot::{Fallback, NumberRoute, Snapshot};
use crate::workflows::Outcome;

/// A run for a call that is only thought of.
#[derive(Debug)]
pub struct Thought {
    /// Whose number would be called.
    pub organisation: OrganisationId,
    /// Who would answer without the workflow.
    pub fallback: Option<Fallback>,
    /// What the workflow was told.
    pub input: Value,
    /// What it made of that.
    pub outcome: Outcome,
}

/// The workflow decides.
#[must_use]
pub fn by_workflow(snapshot: &Snapshot, thought: Thought) -> RoutingForecast {
    let Thought { organisation, fallback, input, outcome } = thought;
    let settled = settle(snapshot, (organisation, fallback), &outcome);
    let answer = settled.verdict.ok();
    let mut report = settled.report;
    if let Some(answer) = &answer {
        let version = snapshot.version(answer.version);
        let has_own = version.is_some_and(|version| version.workflows.pre.is_some());
        match (has_own, answer.skips_pre_conversation) {
            (true, false) => {
                report.explanation.push("Its pre_conversation_workflow would run next.".to_owned());
            }
            (true, true) => {
                report.explanation.push("Its pre_conversation_workflow is left out.".to_owned());
            }
            (false, _) => {}
        }
    }
    let told = answer.map(|answer| answer.told).unwrap_or_default();
    RoutingForecast {
        report,
        input: Some(input),
        output: outcome.result.ok(),
        custom_metadata: told.metadata(),
        initial_context: told.initial_context,
    }
}

/// No workflow decides: the number's inbound slot does.
#[must_use]
pub fn by_slot(snapshot: &Snapshot, number: &NumberRoute) -> RoutingForecast {
    let first = "No inbound routing config is enabled: the number's inbound slot decides.";
    let refused =
        |rule: &str, why: &str| refused(rule, 480, vec![first.to_owned(), why.to_owned()]);
    let Some(version) = number.inbound_version else {
        return refused("inbound_slot_empty", "It is empty: the call is refused with 480.");
    };
    match answering(snapshot, number.organization_id, version) {
        Ok((agent, version)) => {
            let answers = format!("Agent {} (version {}) answers.", agent.id, version.version);
            report(RoutingReport {
                result: RoutingResult::Slot,
                agent_id: Some(agent.id),
                agent_version_id: Some(version.id),
                version: Some(version.version),
                explanation: vec![first.to_owned(), answers],
                ..nobody()
            })
        }
        Err(Unanswerable::Inactive) => {
            refused("agent_inactive", "Its agent is switched off: the call is refused with 480.")
        }
        Err(Unanswerable::Unavailable) => refused(
            "version_unavailable",
            "Its version is not there or not published: the call is refused with 480.",
        ),
    }
}

/// The number is nobody's, or not the organisation's.
#[must_use]
pub fn unknown_number() -> RoutingForecast {
    let why = "The number is not registered on any trunk of this organization: the call is refused \
               with 404 before anything is routed.";
    refused("number_not_found", 404, vec![why.to_owned()])
}

fn refused(rule: &str, status: u16, explanation: Vec<String>) -> RoutingForecast {
    let reason = Some(rule.to_owned());
    report(RoutingReport { reason, sip_status: Some(status), explanation, ..nobody() })
}

fn report(report: RoutingReport) -> RoutingForecast {
    RoutingForecast {
        report,
        input: None,
        output: None,
        initial_context: None,
        custom_metadata: None,
    }
}

fn nobody() -> RoutingReport {
    RoutingReport {
        result: RoutingResult::Refused,
        reason: None,
        sip_status: None,
        agent_id: None,
        agent_version_id: None,
        version: None,
        skip_pre_conversation_workflow: false,
        steps: Vec::new(),
        explanation: Vec::new(),
    }
}
