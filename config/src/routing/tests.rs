//! Every row of the decision, on snapshots made by hand.

use std::sync::Arc;

use super::*;
use crate::snapshot::{NumberRoute, Patch, RoutingRoute};
use crate::workflows::Definition;

/// Two organisations; agents come on top.
struct House {
    patch: Patch,
    organisation: OrganisationId,
    stranger: OrganisationId,
}

impl House {
    fn new() -> Self {
        let (organisation, stranger) = (OrganisationId::random(), OrganisationId::random());
        House { patch: Patch::default(), organisation, stranger }
    }

    /// An agent with these published versions.
    fn agent(&mut self, owner: OrganisationId, active: bool, published: &[u32]) -> AgentId {
        let id = AgentId::random();
        let agent = AgentRoute {
            id,
            organization_id: owner,
            name: "a".into(),
            active,
            deployed_as_sip: false,
            latest_published: None,
        };
        self.patch.agents.push((id, Some(agent)));
        self.patch.versions.extend(published.iter().map(|version| VersionRoute {
            id: AgentVersionId::random(),
            agent_id: id,
            version: *version,
            runtime: None,
            workflows: Arc::default(),
            published: true,
        }));
        id
    }

    fn own(&mut self, published: &[u32]) -> AgentId {
        self.agent(self.organisation, true, published)
    }

    fn settle(self, fallback: Option<AgentId>, result: Result<Value, FailureKind>) -> Settled {
        let fallback = fallback.map(|agent| Fallback { agent, version: None });
        let snapshot = Snapshot::default().patched(self.patch);
        let result = result.map_err(|kind| Failure {
            step_name: "n1".to_owned(),
            message: "division by zero".to_owned(),
            kind,
        });
        settle(&snapshot, (self.organisation, fallback), &Outcome { result, trace: Vec::new() })
    }
}

/// Who answers by the report, which version, and the word.
fn seen(settled: &Settled) -> (RoutingResult, Option<u32>, Option<&str>) {
    let report = &settled.report;
    assert_eq!(settled.verdict.as_ref().ok().map(|answer| answer.agent), report.agent_id);
    assert_eq!(settled.verdict.as_ref().err().map(|why| why.sip_status()), report.sip_status);
    assert!(!report.explanation.is_empty());
    (report.result, report.version, report.reason.as_deref())
}

#[test]
fn an_agent_that_is_named_answers_with_its_latest_version_or_the_one_that_is_named() {
    for (version, expected) in
        [(Value::Null, 10), (json!("latest"), 10), (json!(2), 2), (json!(2.0), 2)]
    {
        let mut house = House::new();
        let agent = house.own(&[2, 10]);
        let output = json!({ "agent_id": agent, "version": version });
        let settled = house.settle(None, Ok(output));
        assert_eq!(seen(&settled), (RoutingResult::Workflow, Some(expected), None));
        assert_eq!(settled.verdict.unwrap().agent, agent);
    }
}

#[test]
fn an_answer_carries_context_metadata_and_whether_the_agents_workflow_is_left_out() {
    let mut house = House::new();
    let agent = house.own(&[1]);
    let output = json!({ "agent_id": agent, "initial_context": "VIP", "custom_metadata": { "a": 1 },
        "skip_pre_conversation_workflow": true, "reject": false, "whatever": 7 });
    let answer = house.settle(None, Ok(output)).verdict.unwrap();
    assert_eq!(answer.told.initial_context.as_deref(), Some("VIP"));
    assert_eq!(answer.told.metadata(), Some(json!({ "a": 1 })));
    assert!(answer.skips_pre_conversation);
}

#[test]
fn a_rejected_call_is_refused_with_603_whatever_else_is_said() {
    let mut house = House::new();
    let (agent, fallback) = (house.own(&[1]), house.own(&[1]));
    let settled = house.settle(Some(fallback), Ok(json!({ "reject": true, "agent_id": agent })));
    assert_eq!(seen(&settled), (RoutingResult::Refused, None, Some("routing_rejected")));
    assert_eq!(settled.verdict, Err(Why::Rejected));
    assert_eq!(settled.report.sip_status, Some(603));
}

#[test]
fn a_run_that_came_to_nothing_goes_to_the_fallback_agent_or_is_refused_with_480() {
    for (kind, word) in [
        (FailureKind::Threw, "routing_failed"),
        (FailureKind::TooManySteps, "routing_failed"),
        (FailureKind::Interrupted, "routing_failed"),
        (FailureKind::TimedOut, "routing_timed_out"),
        (FailureKind::Busy, "routing_overloaded"),
    ] {
        let mut house = House::new();
        let fallback = house.own(&[1, 4]);
        let settled = house.settle(Some(fallback), Err(kind));
        assert_eq!(seen(&settled), (RoutingResult::Fallback, Some(4), Some(word)));
        let settled = House::new().settle(None, Err(kind));
        assert_eq!(seen(&settled), (RoutingResult::Refused, None, Some(word)));
        assert_eq!(settled.report.sip_status, Some(480));
    }
}

#[test]
fn an_agent_that_cannot_answer_is_as_good_as_none() {
    type Make = fn(&mut House) -> Value;
    let cases: [(&str, Make); 9] = [
        ("none", |_| json!({})),
        ("empty", |_| json!({ "agent_id": "" })),
        ("null", |_| json!({ "agent_id": null })),
        ("unknown", |_| json!({ "agent_id": AgentId::random() })),
        ("no id", |_| json!({ "agent_id": 7 })),
        ("foreign", |house| json!({ "agent_id": house.agent(house.stranger, true, &[1]) })),
        (
            "switched off",
            |house| json!({ "agent_id": house.agent(house.organisation, false, &[1]) }),
        ),
        ("unpublished", |house| json!({ "agent_id": house.own(&[]) })),
        ("another version", |house| json!({ "agent_id": house.own(&[1]), "version": 2 })),
    ];
    for (name, make) in cases {
        let mut house = House::new();
        let output = make(&mut house);
        let fallback = house.own(&[3]);
        let settled = house.settle(Some(fallback), Ok(output));
        let expected = (RoutingResult::Fallback, Some(3), Some("routing_unresolved"));
        assert_eq!(seen(&settled), expected, "{name}");
        let mut house = House::new();
        let output = make(&mut house);
        let settled = house.settle(None, Ok(output));
        assert_eq!(settled.verdict, Err(Why::Unresolved), "{name}");
    }
}

#[test]
fn what_is_foreign_is_explained_as_what_never_was() {
    let mut house = House::new();
    let foreign = house.agent(house.stranger, true, &[1]);
    let explained = |house: House, agent: AgentId| {
        let settled = house.settle(None, Ok(json!({ "agent_id": agent })));
        settled.report.explanation.join(" ").replace(&agent.to_string(), "A")
    };
    let theirs = explained(house, foreign);
    assert_eq!(theirs, explained(House::new(), AgentId::random()));
}

#[test]
fn a_fallback_agent_that_cannot_answer_is_none() {
    let mut house = House::new();
    let off = house.agent(house.organisation, false, &[1]);
    let settled = house.settle(Some(off), Err(FailureKind::Threw));
    assert_eq!(seen(&settled), (RoutingResult::Refused, None, Some("routing_failed")));
    let mut house = House::new();
    let foreign = house.agent(house.stranger, true, &[1]);
    assert!(house.settle(Some(foreign), Err(FailureKind::Threw)).verdict.is_err());
}

#[test]
fn the_fallback_agent_is_told_what_the_workflow_said() {
    let mut house = House::new();
    let fallback = house.own(&[1]);
    let output = json!({ "initial_context": "x", "skip_pre_conversation_workflow": true });
    let answer = house.settle(Some(fallback), Ok(output)).verdict.unwrap();
    assert_eq!(answer.told.initial_context.as_deref(), Some("x"));
    assert!(answer.skips_pre_conversation);
}

#[test]
fn an_output_of_the_wrong_kind_has_failed() {
    for output in [
        json!({ "reject": "yes" }),
        json!({ "initial_context": 7 }),
        json!({ "initial_context": "a\0b" }),
        json!({ "initial_context": "x".repeat(65_537) }),
        json!({ "custom_metadata": [] }),
        json!({ "custom_metadata": { "a": "x".repeat(16_384) } }),
        json!({ "skip_pre_conversation_workflow": 1 }),
    ] {
        let mut house = House::new();
        let fallback = house.own(&[1]);
        let settled = house.settle(Some(fallback), Ok(output.clone()));
        let expected = (RoutingResult::Fallback, Some(1), Some("routing_failed"));
        assert_eq!(seen(&settled), expected, "{output}");
    }
}

#[test]
fn what_is_told_later_wins_key_by_key() {
    let told = |context: Option<&str>, metadata: Value| Told {
        initial_context: context.map(str::to_owned),
        custom_metadata: metadata.as_object().unwrap().clone(),
    };
    let mut told_so_far = told(Some("routing"), json!({ "a": 1, "b": 1 }));
    told_so_far.and_later(told(None, json!({ "b": 2, "c": 2 }))).unwrap();
    assert_eq!(told_so_far, told(Some("routing"), json!({ "a": 1, "b": 2, "c": 2 })));
    told_so_far.and_later(told(Some("agent"), json!({}))).unwrap();
    assert_eq!(told_so_far.initial_context.as_deref(), Some("agent"));
    let before = told_so_far.clone();
    let large = || json!({ "d": "x".repeat(9_000) });
    told_so_far.and_later(told(None, large())).unwrap();
    let more = json!({ "e": "x".repeat(9_000) });
    assert!(told_so_far.and_later(told(Some("lost"), more)).is_err());
    assert_eq!(told_so_far.initial_context, before.initial_context);
}

#[test]
fn a_discreet_report_keeps_branches_and_the_failure_and_nothing_else() {
    let step = |kind: &str| TraceEntry {
        step: kind.to_owned(),
        name: kind.to_owned(),
        kind: kind.to_owned(),
        duration_us: 1,
        summary: "secret".to_owned(),
    };
    let trace = vec![step("http"), step("condition"), step("code")];
    let outcome = Outcome { trace, ..not_run(FailureKind::Threw, "no") };
    let snapshot = Snapshot::default();
    let report = settle(&snapshot, (OrganisationId::random(), None), &outcome).report;
    let summaries = |failed| {
        let steps = discreet(report.clone(), failed).steps;
        steps.into_iter().map(|step| step.summary).collect::<Vec<_>>()
    };
    assert_eq!(summaries(true), ["", "secret", "secret"]);
    assert_eq!(summaries(false), ["", "secret", ""]);
    let steps = without_error(discreet(report, true)).steps;
    assert_eq!(steps.into_iter().map(|step| step.summary).collect::<Vec<_>>(), ["", "secret", ""]);
}

#[test]
fn of_an_invite_s_headers_only_its_own_are_told_and_only_so_much() {
    let told = |headers: &[(&str, &str)]| {
        let bytes = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        OwnHeaders::collect(bytes).0
    };
    let long = "x".repeat(1_025);
    let headers = [
        ("Via", "SIP/2.0/UDP h"),
        ("Authorization", "Digest username=\"u\""),
        ("X-", "nameless"),
        ("x-Tier", "gold"),
        ("X-TIER", "silver"),
        ("X-Folded", "a\r\n  b\tc"),
        ("X-Long", &long),
        ("X-Odd", "\u{1b}[2J"),
    ];
    let expected = [("x-folded", "a b\u{fffd}c"), ("x-odd", "\u{fffd}[2J"), ("x-tier", "gold")];
    assert_eq!(told(&headers), expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    let many: Vec<String> = (0..40).map(|n| format!("X-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(told(&many).len(), 32);
}

#[test]
fn a_workflow_is_told_who_calls_whom_and_when() {
    let (organisation, trunk) = (OrganisationId::random(), TrunkId::random());
    let incoming = Incoming {
        organisation,
        conversation: None,
        caller: "+15550001",
        called: "+15550002",
        trunk: Some(trunk),
        headers: &OwnHeaders::collect([(&b"X-Tier"[..], &b"gold"[..])].into_iter()),
        at: Timestamp::from_micros(0),
    };
    let expected = json!({
        "caller_number": "+15550001", "called_number": "+15550002", "trunk_id": trunk,
        "organization_id": organisation, "timestamp": "1970-01-01T00:00:00.000000Z",
        "conversation_id": null, "sip_headers": { "x-tier": "gold" },
    });
    assert_eq!(incoming.input(), expected);
}

#[test]
fn a_number_whose_slot_decides_is_forecast_as_admission_would_say() {
    let mut house = House::new();
    let agent = house.own(&[1]);
    let off = house.agent(house.organisation, false, &[1]);
    let organisation = house.organisation;
    let version = |house: &House, agent: AgentId| {
        house.patch.versions.iter().find(|one| one.agent_id == agent).map(|one| one.id)
    };
    let slots =
        [None, version(&house, agent), version(&house, off), Some(AgentVersionId::random())];
    let snapshot = Snapshot::default().patched(house.patch);
    let forecast = |inbound_version| {
        let number = NumberRoute {
            number: "+15550001".into(),
            organization_id: organisation,
            trunk_id: TrunkId::random(),
            inbound_version,
            outbound_version: None,
            outbound_shareable: false,
            created_at: Timestamp::from_micros(0),
        };
        let report = forecast::by_slot(&snapshot, &number).report;
        report.reason.unwrap_or_else(|| format!("{:?}", report.result))
    };
    let words = slots.map(forecast);
    assert_eq!(words, ["inbound_slot_empty", "Slot", "agent_inactive", "version_unavailable"]);
}

#[test]
fn only_an_enabled_config_decides() {
    let organisation = OrganisationId::random();
    let definition = json!({ "steps": [
        { "id": "trigger", "type": "input", "next": "n1" },
        { "id": "n1", "type": "output", "fields": {} },
    ] });
    let workflow = Definition::parse(&definition).map(|parsed| parsed.definition);
    let route = |enabled| RoutingRoute {
        workflow: workflow.clone().map_err(|_| String::new()),
        fallback: None,
        enabled,
    };
    for enabled in [true, false] {
        let routings = vec![(organisation, Some(route(enabled)))];
        let snapshot = Snapshot::default().patched(Patch { routings, ..Patch::default() });
        assert!(snapshot.routing(organisation).is_some());
        assert_eq!(snapshot.enabled_routing(organisation).is_some(), enabled);
        assert!(snapshot.enabled_routing(OrganisationId::random()).is_none());
    }
}
