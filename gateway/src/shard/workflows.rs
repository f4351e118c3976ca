//! The workflows of a call: the organisation's that chooses the agent, and the agent's own.
//!
//! Nothing here waits: a run is begun with [`Runs`](crate::routing::Runs), and what it came to arrives
//! as an input, as the events of agent links do. The shard's own alarm ends its patience.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::briefing::{self, AgentWorkflows, Before};
use config::model::{Answering, Direction, Runtime};
use config::routing::{self, Answer, Incoming, OwnHeaders, Settled, Told, Why, not_run};
use config::snapshot::RoutingRoute;
use config::workflows::{FailureKind, Outcome};
use media::sdp::Plan;
use tracing::{info, warn};

use super::Shard;
use super::inputs::Alarm;
use super::leg::Side;
use super::record::{self, Attempt};
use crate::call::EndReason;
use crate::call::machine::{Input, State};
use crate::routing::{Job, RunDone, RunHandle, briefing_end, routing_end};

/// What a call needs until its agent is reached.
#[derive(Default)]
pub(super) struct Undecided {
    /// How the organisation routes it, and the INVITE as the decision record shows it.
    pub(super) routing: Option<(Arc<RoutingRoute>, Attempt)>,
    /// The INVITE's own headers, for the organisation's workflow.
    pub(super) headers: OwnHeaders,
    /// Whether the agent's own workflow is left out.
    pub(super) skips_briefing: bool,
    /// Where the agent runs, once it is chosen.
    pub(super) runtime: Runtime,
    /// What the carrier's leg will do once it is known what it is connected to.
    pub(super) plan: Option<Plan>,
    /// The run that is awaited, and its number among the call's.
    pub(super) run: Option<RunHandle>,
    pub(super) runs: u64,
}

impl Shard {
    /// Has the organisation's workflow choose the agent.
    pub(super) fn route(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some((route, _)) = &call.undecided.routing else { return };
        let parties = &call.parties;
        let incoming = Incoming {
            organisation: parties.organisation,
            conversation: Some(call.record.id()),
            caller: &parties.caller,
            called: &parties.called,
            trunk: parties.trunk,
            headers: &call.undecided.headers,
            at: call.record.started_at(),
        };
        let seconds = self.services.settings.routing.deadline_seconds;
        let limit = Duration::from_secs(u64::from(seconds));
        let job = Job {
            organisation: parties.organisation,
            workflow: route.workflow.clone(),
            initial_step: None,
            condition: None,
            input: incoming.input(),
            limit,
        };
        if let Err(outcome) = self.begin_run(now, key, job) {
            self.routed(now, key, &outcome);
        }
    }

    /// Begins a run for the call, or says what it came to at once.
    fn begin_run(&mut self, now: Instant, key: u64, job: Job) -> Result<(), Outcome> {
        let limit = now + job.limit;
        let Some(call) = self.calls.get_mut(&key) else { return Ok(()) };
        call.undecided.runs += 1;
        match self.services.runs.start((key, call.undecided.runs), job) {
            Ok(handle) => {
                call.undecided.run = Some(handle);
                self.set_limit(key, limit);
                Ok(())
            }
            Err(busy) => {
                self.shed("workflow_runs");
                Err(not_run(FailureKind::Busy, &busy.to_string()))
            }
        }
    }

    /// A run is over. One that its call does not wait for any more is of no interest.
    pub(super) fn handle_run(&mut self, now: Instant, done: RunDone) {
        let key = done.call;
        let Some(call) = self.calls.get_mut(&key) else { return };
        if call.undecided.runs != done.run || call.undecided.run.take().is_none() {
            return;
        }
        match (call.machine.state(), done.outcome) {
            (State::Routing, Some(outcome)) => self.routed(now, key, &outcome),
            (State::Briefing, Some(outcome)) => self.briefed(now, key, &outcome),
            (State::Briefing, None) => self.handle_input(now, key, Input::Briefed),
            _ => {}
        }
    }

    /// The workflow is late: whatever it may still say is not listened to.
    pub(super) fn do_without(&mut self, now: Instant, key: u64, why: EndReason) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.undecided.run = None;
        info!(call = key, reason = why.code(), "a workflow is late");
        let outcome = not_run(FailureKind::TimedOut, "the run was not done in time");
        match call.machine.state() {
            State::Routing => self.routed(now, key, &outcome),
            _ => self.briefed(now, key, &outcome),
        }
    }

    /// The organisation's workflow has run: the same decision as a dry run's, carried out.
    fn routed(&mut self, now: Instant, key: u64, outcome: &Outcome) {
        let snapshot = self.services.snapshot.load();
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some((route, attempt)) = call.undecided.routing.take() else { return };
        let organisation = call.parties.organisation;
        let Settled { verdict, report } =
            routing::settle(&snapshot, (organisation, route.fallback), outcome);
        info!(
            call = key, result = ?report.result, reason = report.reason,
            agent = report.agent_id.map(|id| id.to_string()), steps = report.steps.len(), "routed"
        );
        let why = report.explanation.join(" ");
        let failed = outcome.result.is_err();
        let report = routing::discreet(report, failed);
        self.services.journal.record(record::routed(attempt, &call.record, report));
        match verdict {
            Ok(answer) => {
                let Answer { agent, version, told, skips_pre_conversation } = answer;
                call.undecided.skips_briefing = skips_pre_conversation;
                call.told = told;
                self.answer_with(key, Answering { agent, version });
                self.note_told(key);
                self.handle_input(now, key, Input::Routed);
            }
            Err(reason) => {
                call.record.explain(why);
                self.handle_input(now, key, Input::Rejected(routing_end(reason)));
            }
        }
    }

    /// It is known who answers.
    pub(super) fn answer_with(&mut self, key: u64, answering: Answering) {
        let snapshot = self.services.snapshot.load();
        let Some(call) = self.calls.get_mut(&key) else { return };
        let version = snapshot.version(answering.version);
        call.parties.agent = Some(answering.agent);
        call.parties.version = Some(answering.version);
        call.undecided.runtime =
            version.map(|version| snapshot.runtime(version)).unwrap_or_default();
        call.workflows = version.map(|version| Arc::clone(&version.workflows)).unwrap_or_default();
        let name = snapshot.agent(answering.agent).map(|agent| agent.name.to_string());
        call.record.answered_by(answering, name);
        self.services.live.answered_by(&call.record);
    }

    /// Runs the agent's own workflow, if it has one.
    pub(super) fn brief(&mut self, now: Instant, key: u64) {
        let Some(call) = self.calls.get(&key) else { return };
        let workflows: Arc<AgentWorkflows> = Arc::clone(&call.workflows);
        let Some(action) = workflows.pre.as_ref().filter(|_| !call.undecided.skips_briefing) else {
            return self.handle_input(now, key, Input::Briefed);
        };
        let parties = &call.parties;
        let outbound = call.record.is_outbound();
        let before = Before {
            organisation: parties.organisation,
            conversation: call.record.id(),
            agent: parties.agent,
            version: parties.version,
            phone_number: if outbound { &parties.called } else { &parties.caller },
            agent_number: parties.number.as_deref(),
            direction: if outbound { Direction::Outbound } else { Direction::Inbound },
            told: &call.told,
            at: call.record.started_at(),
        };
        let seconds = self.services.settings.routing.pre_conversation_seconds;
        let limit = Duration::from_secs(u64::from(seconds));
        let job = Job::of(action, parties.organisation, (before.input(), limit));
        if let Err(outcome) = self.begin_run(now, key, job) {
            self.briefed(now, key, &outcome);
        }
    }

    /// The agent's own workflow has run.
    fn briefed(&mut self, now: Instant, key: u64, outcome: &Outcome) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let told = briefing::settle(outcome)
            .and_then(|told: Told| call.told.and_later(told).map_err(|why| (Why::Failed, why)));
        let Err((why, text)) = told else {
            self.note_told(key);
            return self.handle_input(now, key, Input::Briefed);
        };
        let reason = briefing_end(why);
        let rejects = call.workflows.pre.as_ref().is_some_and(|action| action.reject_on_error);
        if why == Why::Rejected || rejects {
            call.record.explain(text);
            return self.handle_input(now, key, Input::Rejected(reason));
        }
        // What a workflow says may quote callers: its words are for its owner, not for the log.
        let failure = outcome.result.as_ref().err();
        warn!(
            call = key, conversation = %call.record.id(), reason = reason.code(),
            step = failure.map(|failure| failure.step_name.as_str()),
            kind = failure.map(|failure| failure.kind.as_str()),
            "the call goes on without its pre-conversation workflow"
        );
        self.handle_input(now, key, Input::Briefed);
    }

    /// All is decided: media, and the agent.
    pub(super) fn connect(&mut self, now: Instant, key: u64) {
        self.clear_limit(key);
        let Some(call) = self.calls.get_mut(&key) else { return };
        let undecided = std::mem::take(&mut call.undecided);
        let port = self.prepare_far(key, &undecided.runtime);
        if let Some(plan) = undecided.plan {
            self.apply_plan(now, (key, Side::Carrier), plan);
        }
        self.reach_agent(now, key, (undecided.runtime, port));
    }

    /// The record says who answers and what a workflow added.
    fn note_told(&mut self, key: u64) {
        if let Some(call) = self.calls.get_mut(&key) {
            let entry = call.record.told(&call.told);
            self.services.journal.record(entry);
        }
    }

    /// Forgets the call's time limit.
    fn clear_limit(&mut self, key: u64) {
        let limit = self.calls.get_mut(&key).and_then(|call| call.limit.take());
        if let Some(limit) = limit {
            self.alarms.remove(&(limit, Alarm::Call(key)));
        }
    }
}
