//! Workflows, their versions, and their runs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::follow::until;
use super::*;
use crate::ids::{ExecutionId, WorkflowId};
use crate::jobs::{Desk, Job, JobError, Runner, Turn, Work as _};
use crate::limits::WORKFLOWS;
use crate::model::{
    AuditFilter, Execution, ExecutionFilter, ExecutionStatus, NewWorkflow, NewWorkflowVersion,
    Page, VersionFilter, Workflow, WorkflowChange, WorkflowFilter,
};
use crate::store::{After, Executed, sql};
use crate::workflows::background::{RUN_WORKFLOW, RunWorkflow};
use crate::workflows::{
    Definition, Failure, FailureKind, Outcome, Parsed, Rejected, RunRequest, Running, Stopped,
    TraceEntry, Workflows,
};

fn definition(greeting: &str) -> Value {
    json!({"steps": [
        {"id": "trigger", "type": "input", "next": "out"},
        {"id": "out", "type": "output", "fields": {"greeting": greeting}}]})
}

fn done(output: Value) -> Outcome {
    Outcome { result: Ok(output), trace: Vec::new() }
}

fn failed() -> Outcome {
    let failure =
        Failure { step_name: "out".to_owned(), message: "no".to_owned(), kind: FailureKind::Threw };
    Outcome { result: Err(failure), trace: Vec::new() }
}

impl Scratch {
    async fn make_workflow(&self, org: &Org, name: &str) -> Workflow {
        let definition = definition("1");
        let new = NewWorkflow { name: name.to_owned(), description: None, definition };
        self.create_workflow(org, new).await.unwrap()
    }

    async fn make_published(&self, org: &Org) -> WorkflowId {
        let id = self.make_workflow(org, "w").await.id;
        self.publish_workflow_version(org, id, VersionRef::Latest).await.unwrap();
        id
    }

    async fn run_once(&self, org: &Org, workflow: WorkflowId, outcome: Outcome) -> Execution {
        let what = Executed { workflow, version: 1, input: json!({}) };
        let begun = self.begin_execution(org, what).await.unwrap();
        self.finish_execution(org, begun.execution_id, outcome).await.unwrap()
    }

    async fn runs(&self, org: &Org, filter: ExecutionFilter) -> Vec<ExecutionId> {
        let runs = self.executions(org, &filter, Page::first(Page::MAX)).await.unwrap();
        runs.iter().map(|run| run.execution_id).collect()
    }
}

fn draft(definition: Value) -> NewWorkflowVersion {
    NewWorkflowVersion { definition: Some(definition), base_version: None }
}

#[tokio::test]
async fn versions_are_numbered_and_published_ones_stay_as_they_are() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let made = store.make_workflow(&org, "Greet").await;
    assert_eq!((made.latest_version, made.latest_published_version), (1, None));
    let id = made.id;
    let first = VersionRef::Number(1);
    store.update_workflow_version(&org, id, (first, definition("2"))).await.unwrap();
    store.publish_workflow_version(&org, id, first).await.unwrap();
    let again = store.publish_workflow_version(&org, id, first).await.unwrap();
    assert_eq!((again.published, again.definition), (true, definition("2")));
    let change = (first, definition("3"));
    let refused = store.update_workflow_version(&org, id, change).await.unwrap_err();
    assert_eq!(refused, StoreError::refused("Version is published and cannot change"));
    let copy = NewWorkflowVersion { definition: None, base_version: Some(1) };
    let copy = store.create_workflow_version(&org, id, copy).await.unwrap();
    assert_eq!((copy.version, copy.published, copy.definition), (2, false, definition("2")));
    let third = store.create_workflow_version(&org, id, draft(definition("3"))).await.unwrap();
    assert_eq!(third.version, 3);
    let now = store.workflow(&org, id).await.unwrap();
    assert_eq!((now.latest_version, now.latest_published_version), (3, Some(1)));
    let filter = VersionFilter { published: Some(false), ..VersionFilter::default() };
    let page = Page::first(Page::MAX);
    let drafts = store.workflow_versions(&org, id, &filter, page).await.unwrap();
    assert_eq!(drafts.iter().map(|one| one.version).collect::<Vec<_>>(), [3, 2]);
    let both = NewWorkflowVersion { definition: Some(definition("4")), base_version: Some(1) };
    let both = store.create_workflow_version(&org, id, both).await;
    assert!(matches!(both, Err(StoreError::Invalid(_))));
}

#[tokio::test]
async fn a_workflow_is_changed_found_by_name_and_deleted() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let id = store.make_workflow(&org, "Ärger").await.id;
    store.make_workflow(&org, "Other").await;
    let change = WorkflowChange { name: None, description: Some(Some("who is angry".to_owned())) };
    let changed = store.update_workflow(&org, id, change).await.unwrap();
    assert_eq!(changed.description.as_deref(), Some("who is angry"));
    let filter = WorkflowFilter { name: Some("äRG".to_owned()), ..WorkflowFilter::default() };
    let found = store.workflows(&org, &filter, Page::first(Page::MAX)).await.unwrap();
    assert_eq!(found, [changed]);
    store.delete_workflow(&org, id).await.unwrap();
    assert_eq!(store.workflow(&org, id).await, Err(not_found("Workflow")));
    assert_eq!(store.delete_workflow(&org, id).await, Err(not_found("Workflow")));
}

#[tokio::test]
async fn only_ones_own_published_versions_can_be_run() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let id = store.make_workflow(&org, "w").await.id;
    let run = async |org: &Org, which| store.workflow_definition(org, id, which).await;
    let none = StoreError::refused("Workflow has no published version");
    assert_eq!(run(&org, VersionRef::Latest).await.unwrap_err(), none);
    let unpublished = StoreError::refused("Version is a draft: publish it to run it");
    assert_eq!(run(&org, VersionRef::Number(1)).await.unwrap_err(), unpublished);
    assert_eq!(run(&org, VersionRef::Number(2)).await.unwrap_err(), not_found("Version"));
    store.publish_workflow_version(&org, id, VersionRef::Latest).await.unwrap();
    store.create_workflow_version(&org, id, draft(definition("2"))).await.unwrap();
    assert_eq!(run(&org, VersionRef::Latest).await.unwrap().0, 1, "the newest that is published");
    for which in [VersionRef::Latest, VersionRef::Number(1)] {
        assert_eq!(run(&other, which).await.unwrap_err(), not_found("Workflow"));
    }
}

#[tokio::test]
async fn a_run_in_the_background_has_a_job_and_ends_once() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let workflow = store.make_published(&org).await;
    let what = Executed { workflow, version: 1, input: json!({"a": 1}) };
    let made = store.enqueue_execution(&org, what).await.unwrap();
    let id = made.execution_id;
    assert_eq!((made.status, &made.input_data), (ExecutionStatus::Queued, &json!({"a": 1})));
    let (job, lease) = store.claim_job(&[RUN_WORKFLOW]).await.unwrap().unwrap();
    assert_eq!(
        (job.organisation, &job.payload),
        (org.organisation(), &json!({"execution_id": id}))
    );
    let (at_work, waits) = ((&lease, &json!({"begun": true})), (&lease, &json!({"begun": false})));
    let at_work = store.advance_execution(&org, id, None, at_work).await.unwrap().unwrap();
    assert_eq!((at_work.status, at_work.resume_at), (ExecutionStatus::Running, None));
    let until = Timestamp::from_micros(START_US);
    let waits = store.advance_execution(&org, id, Some(until), waits).await.unwrap().unwrap();
    assert_eq!((waits.status, waits.resume_at), (ExecutionStatus::Waiting, Some(until)));
    assert_eq!(store.execution(&other, id).await, Err(not_found("Execution")));
    assert_eq!(store.finish_execution(&other, id, failed()).await, Err(not_found("Execution")));
    let over = store.finish_execution(&org, id, done(json!({"b": 2}))).await.unwrap();
    assert_eq!((over.status, &over.output), (ExecutionStatus::Success, &Some(json!({"b": 2}))));
    assert_eq!(over.resume_at, None);
    assert_eq!(store.finish_execution(&org, id, failed()).await.unwrap(), over);
    assert_eq!(store.execution(&org, id).await.unwrap(), over);
    store.delete_workflow(&org, workflow).await.unwrap();
    assert_eq!(store.execution(&org, id).await.unwrap(), over, "the record stays");
}

#[tokio::test]
async fn runs_are_listed_by_workflow_and_status() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let (one, two) = (store.make_published(&org).await, store.make_published(&org).await);
    let first = store.run_once(&org, one, done(json!({}))).await;
    let second = store.run_once(&org, two, failed()).await;
    assert_eq!(second.error.as_ref().map(|why| why.kind), Some(FailureKind::Threw));
    assert_eq!(
        store.runs(&org, ExecutionFilter::default()).await,
        [second.execution_id, first.execution_id]
    );
    let of_one = ExecutionFilter { workflow_id: Some(one), ..ExecutionFilter::default() };
    assert_eq!(store.runs(&org, of_one).await, [first.execution_id]);
    let status = Some(ExecutionStatus::Failed);
    let bad = ExecutionFilter { status, ..ExecutionFilter::default() };
    assert_eq!(store.runs(&org, bad).await, [second.execution_id]);
}

#[tokio::test]
async fn the_oldest_runs_that_are_over_are_forgotten() {
    let store = Scratch::with(StoreOptions { executions_kept: 2, ..options() }).await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let (workflow, theirs) = (store.make_published(&org).await, store.make_published(&other).await);
    let kept = store.run_once(&other, theirs, done(json!({}))).await;
    let what = Executed { workflow, version: 1, input: json!({}) };
    let unfinished = store.enqueue_execution(&org, what).await.unwrap();
    let mut made = vec![unfinished];
    for _ in 0..4 {
        made.push(store.run_once(&org, workflow, failed()).await);
    }
    let left = store.runs(&org, ExecutionFilter::default()).await;
    let left_over = [4, 3, 0].map(|n: usize| made[n].execution_id);
    assert_eq!(left, left_over);
    assert_eq!(store.runs(&other, ExecutionFilter::default()).await, [kept.execution_id]);
}

#[tokio::test]
async fn the_records_of_runs_take_so_much_of_the_disk() {
    let store = Scratch::with(StoreOptions { execution_bytes_kept: 5_000, ..options() }).await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let (workflow, theirs) = (store.make_published(&org).await, store.make_published(&other).await);
    let kept = store.run_once(&other, theirs, done(json!({}))).await;
    let large = || done(json!({ "text": "x".repeat(2_000) }));
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(store.run_once(&org, workflow, large()).await.execution_id);
    }
    assert_eq!(store.runs(&org, ExecutionFilter::default()).await, [made[3], made[2]]);
    for _ in 0..3 {
        store.run_once(&org, workflow, done(json!({}))).await;
    }
    let left = store.runs(&org, ExecutionFilter::default()).await;
    assert_eq!(left.len(), 5, "small ones fit beside");
    store.run_once(&org, workflow, done(json!({ "text": "x".repeat(9_000) }))).await;
    assert!(store.runs(&org, ExecutionFilter::default()).await.is_empty(), "it never fits");
    store.run_once(&org, workflow, large()).await;
    assert_eq!(
        store.runs(&org, ExecutionFilter::default()).await.len(),
        1,
        "nothing is miscounted"
    );
    assert_eq!(store.runs(&other, ExecutionFilter::default()).await, [kept.execution_id]);
}

#[tokio::test]
async fn an_organisation_has_so_many_workflows() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let mut tx = store.0.db.write().await.unwrap();
    for at in 0..i64::from(WORKFLOWS.value_u32()) {
        sql::query(
            "INSERT INTO workflows (id, organization_id, name, name_folded, created_at, updated_at)
             VALUES (?1, ?2, 'w', 'w', ?3, ?3)",
        )
        .bind(WorkflowId::random().to_string())
        .bind(org.organisation().to_string())
        .bind(at)
        .execute(&mut tx)
        .await
        .unwrap();
    }
    store.commit(tx, After::default()).await.unwrap();
    let new = NewWorkflow { name: "w".to_owned(), description: None, definition: definition("1") };
    let full = store.create_workflow(&org, new).await;
    assert_eq!(full, Err(StoreError::refused("Organization has as many workflows as it may")));
    store.make_workflow(&store.organisation().await, "w").await;
}

#[tokio::test]
async fn every_write_of_a_workflow_is_told() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let id = store.make_workflow(&org, "w").await.id;
    store.update_workflow(&org, id, WorkflowChange::default()).await.unwrap();
    let latest = VersionRef::Latest;
    store.update_workflow_version(&org, id, (latest, definition("2"))).await.unwrap();
    store.publish_workflow_version(&org, id, latest).await.unwrap();
    store.create_workflow_version(&org, id, draft(definition("3"))).await.unwrap();
    let ran = store.run_once(&org, id, done(json!({}))).await.execution_id;
    let what = Executed { workflow: id, version: 1, input: json!({}) };
    let queued = store.enqueue_execution(&org, what).await.unwrap().execution_id;
    store.cancel_execution(&org, queued).await.unwrap();
    store.delete_workflow(&org, id).await.unwrap();
    let page = Page::first(Page::MAX);
    let mut log = store.audit_log(&org, &AuditFilter::default(), page).await.unwrap();
    log.reverse();
    let told: Vec<_> =
        log.iter().map(|one| (one.action.as_str(), one.object_id.clone().unwrap())).collect();
    let (id, ran, queued) = (id.to_string(), ran.to_string(), queued.to_string());
    let expected = [
        ("workflow.create", &id),
        ("workflow.update", &id),
        ("workflow.update_version", &id),
        ("workflow.publish", &id),
        ("workflow.create_version", &id),
        ("execution.create", &ran),
        ("execution.end", &ran),
        ("execution.create", &queued),
        ("execution.cancel", &queued),
        ("workflow.delete", &id),
    ];
    assert_eq!(told, expected.map(|(action, id)| (action, id.clone())));
    assert!(log[2].before.is_some() && log[2].before != log[2].after);
}

/// An agent with a published version that names the newest version of a workflow.
async fn agent_naming(store: &Scratch, org: &Org, workflow: WorkflowId, version: Value) -> AgentId {
    let agent = store.make_agent(org, "a").await.id;
    let action = json!({"type": "workflow", "workflow_id": workflow, "workflow_version": version,
        "initial_step": "trigger"});
    let config = json!({"pre_conversation_workflow": action});
    let number = store.make_version(org, agent, config).await;
    store.make_publish(org, agent, number, json!({})).await.unwrap();
    agent
}

/// What the agent's first workflow is in the snapshot.
fn named(store: &Store, agent: AgentId) -> Result<Arc<Definition>, String> {
    let snapshot = store.snapshot().load();
    let version = snapshot.agent(agent).unwrap().latest_published.unwrap();
    let version = snapshot.version(version).unwrap();
    let stored = version.workflows.stored().unwrap();
    stored.definition.clone()
}

fn is(found: &Result<Arc<Definition>, String>, greeting: &str) -> bool {
    let expected = Definition::parse(&definition(greeting)).unwrap().definition;
    found.as_ref().is_ok_and(|found| *found == expected)
}

#[tokio::test]
async fn what_an_agent_names_is_in_the_snapshot_as_it_is_published() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let id = store.make_workflow(&org, "w").await.id;
    let newest = agent_naming(&store, &org, id, json!("latest")).await;
    let second = agent_naming(&store, &org, id, json!(2)).await;
    let foreign = agent_naming(&store, &other, id, json!("latest")).await;
    let why = format!("{id}: Workflow has no published version");
    assert_eq!(named(&store, newest), Err(why));
    store.publish_workflow_version(&org, id, VersionRef::Latest).await.unwrap();
    assert!(is(&named(&store, newest), "1"));
    assert_eq!(named(&store, second), Err(format!("There is no version 2 of workflow {id}.")));
    store.create_workflow_version(&org, id, draft(definition("2"))).await.unwrap();
    assert!(is(&named(&store, newest), "1"), "a draft changes nothing");
    store.publish_workflow_version(&org, id, VersionRef::Latest).await.unwrap();
    assert!(is(&named(&store, newest), "2") && is(&named(&store, second), "2"));
    let again = store.again(options()).await;
    assert!(is(&named(&again, newest), "2") && is(&named(&again, second), "2"));
    store.delete_workflow(&org, id).await.unwrap();
    assert_eq!(named(&store, newest), Err(format!("There is no workflow {id}.")));
    for store in [&store.store, &again] {
        let missing = Err(format!("There is no workflow {id}."));
        assert_eq!(named(store, foreign), missing, "another organisation's is none");
    }
}

#[tokio::test]
async fn what_many_agents_name_is_kept_once() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let id = store.make_published(&org).await;
    let [one, two] = [
        agent_naming(&store, &org, id, json!("latest")).await,
        agent_naming(&store, &org, id, json!("latest")).await,
    ];
    let again = store.again(options()).await;
    let [one, two] = [one, two].map(|agent| named(&again, agent).unwrap());
    assert!(Arc::ptr_eq(&one, &two));
}

/// An engine that says when it has begun, and ends when it may.
struct Held {
    begun: Notify,
    may_end: Notify,
}

impl Workflows for Held {
    fn check<'a>(
        &'a self,
        _: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(async move { Definition::parse(definition).map_err(Rejected::Faults) })
    }

    fn run(&self, _: RunRequest) -> Running<'_, Outcome> {
        Box::pin(async move {
            self.begun.notify_one();
            self.may_end.notified().await;
            done(json!({"paid": true}))
        })
    }
}

#[tokio::test]
async fn what_a_run_came_to_is_written_when_the_store_is_back() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let workflow = store.make_published(&org).await;
    let what = Executed { workflow, version: 1, input: json!({}) };
    let id = store.enqueue_execution(&org, what).await.unwrap().execution_id;
    let (job, lease) = store.claim_job(&[RUN_WORKFLOW]).await.unwrap().unwrap();
    let desk = Desk::new(store.store.clone(), lease);
    let engine = Arc::new(Held { begun: Notify::new(), may_end: Notify::new() });
    let work = RunWorkflow::new(store.store.clone(), Arc::clone(&engine) as _);
    let mut running = work.run(&job, &desk);
    tokio::select! {
        _ = &mut running => panic!("it ended before it might"),
        () = engine.begun.notified() => {}
    }
    let locked = store.lock().await;
    engine.may_end.notify_one();
    let patience = Duration::from_millis(200);
    assert!(
        tokio::time::timeout(patience, &mut running).await.is_err(),
        "nothing could be written"
    );
    locked.release().await;
    assert_eq!(running.await, Ok(Turn::Done(Value::Null)));
    let over = store.execution(&org, id).await.unwrap();
    assert_eq!((over.status, over.output), (ExecutionStatus::Success, Some(json!({"paid": true}))));
}

/// How long a run of [`Patient`] waits.
const WAIT: Duration = Duration::from_secs(1_200);

/// An engine whose runs wait once; those whose input has `hang` never end after that.
#[derive(Default)]
struct Patient {
    /// How long each of its turns might have taken.
    limits: Mutex<Vec<Duration>>,
    hangs: Notify,
}

impl Patient {
    fn limits(&self) -> Vec<Duration> {
        self.limits.lock().unwrap().clone()
    }
}

fn first_step() -> TraceEntry {
    let step = || "trigger".to_owned();
    let summary = "waited".to_owned();
    TraceEntry { step: step(), name: step(), kind: "input".to_owned(), duration_us: 1, summary }
}

impl Workflows for Patient {
    fn check<'a>(
        &'a self,
        _: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(async move { Definition::parse(definition).map_err(Rejected::Faults) })
    }

    fn run(&self, _: RunRequest) -> Running<'_, Outcome> {
        Box::pin(async { failed() })
    }

    fn advance(&self, request: RunRequest, checkpoint: Option<Value>) -> Running<'_, Stopped> {
        Box::pin(async move {
            self.limits.lock().unwrap().push(request.limit);
            if checkpoint.is_none() {
                let checkpoint = json!({"progress": {"trace": [first_step()]}});
                return Stopped::Waiting { time: WAIT, checkpoint };
            }
            if request.input.get("hang").is_some() {
                self.hangs.notify_one();
                std::future::pending::<()>().await;
            }
            Stopped::Ended(done(json!({"waited": true})))
        })
    }
}

/// A run in the background, a clock that moves only when it is told to, and nodes that do the run.
struct Bench {
    store: Scratch,
    clock: Arc<AtomicI64>,
    org: Org,
    engine: Arc<Patient>,
    workflow: WorkflowId,
    id: ExecutionId,
}

impl Bench {
    async fn new(input: Value) -> Self {
        let clock = Arc::new(AtomicI64::new(START_US));
        let read = Arc::clone(&clock);
        let at = Clock::from_fn(move || Timestamp::from_micros(read.load(Ordering::Relaxed)));
        let store = Scratch::with(StoreOptions { clock: at, ..options() }).await;
        let org = store.organisation().await;
        let workflow = store.make_published(&org).await;
        let what = Executed { workflow, version: 1, input };
        let id = store.enqueue_execution(&org, what).await.unwrap().execution_id;
        Self { store, clock, org, engine: Arc::default(), workflow, id }
    }

    fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.clock.fetch_add(micros, Ordering::Relaxed);
    }

    fn work(&self) -> RunWorkflow {
        RunWorkflow::new(self.store.store.clone(), Arc::clone(&self.engine) as _)
    }

    /// Takes the job, as a node does.
    async fn claimed(&self) -> (Job, Desk) {
        let (job, lease) = self.store.claim_job(&[RUN_WORKFLOW]).await.unwrap().unwrap();
        (job, Desk::new(self.store.store.clone(), lease))
    }

    /// The node starts again after it was killed, and does what is due.
    async fn restarted(&self) {
        self.store.release_jobs().await.unwrap();
        let runner = Runner::new(self.store.store.clone());
        runner.with(RUN_WORKFLOW, Arc::new(self.work())).run_due().await;
    }

    async fn run(&self) -> Execution {
        self.store.execution(&self.org, self.id).await.unwrap()
    }
}

#[tokio::test]
async fn a_wait_is_waited_to_its_end_though_the_node_stops_in_it() {
    let bench = Bench::new(json!({})).await;
    let (job, desk) = bench.claimed().await;
    let until = Timestamp::from_micros(START_US).after(WAIT);
    // That the job's turn is only then is never written: the node is killed.
    assert_eq!(bench.work().run(&job, &desk).await, Ok(Turn::Later(until)));
    bench.pass(WAIT / 2);
    bench.restarted().await;
    let waits = bench.run().await;
    assert_eq!((waits.status, waits.resume_at), (ExecutionStatus::Waiting, Some(until)));
    assert_eq!(bench.engine.limits().len(), 1, "it has not gone on");
    bench.pass(WAIT / 2);
    bench.restarted().await;
    let over = bench.run().await;
    assert_eq!(
        (over.status, over.output),
        (ExecutionStatus::Success, Some(json!({"waited": true})))
    );
    assert_eq!((over.resume_at, bench.engine.limits().len()), (None, 2));
}

#[tokio::test]
async fn a_run_that_waits_is_over_when_its_workflow_is_deleted() {
    let bench = Bench::new(json!({})).await;
    let runner = || {
        Runner::new(bench.store.store.clone()).with(RUN_WORKFLOW, Arc::new(bench.work())).run_due()
    };
    runner().await;
    let other = bench.store.make_published(&bench.org).await;
    bench.store.delete_workflow(&bench.org, other).await.unwrap();
    runner().await;
    assert_eq!(bench.run().await.status, ExecutionStatus::Waiting, "it is not of that one");
    bench.store.delete_workflow(&bench.org, bench.workflow).await.unwrap();
    runner().await;
    let over = bench.run().await;
    assert_eq!((over.status, over.resume_at), (ExecutionStatus::Failed, None));
    assert_eq!(over.error.unwrap().message, "Workflow: it was deleted");
    assert_eq!((over.trace, bench.engine.limits().len()), (vec![first_step()], 1));
}

#[tokio::test]
async fn the_time_in_the_queue_is_not_the_runs() {
    let (bench, hour) = (Bench::new(json!({})).await, Duration::from_secs(3_600));
    bench.pass(hour * 2);
    bench.restarted().await;
    bench.pass(WAIT);
    bench.restarted().await;
    assert_eq!(bench.engine.limits(), [hour, hour - WAIT], "what it waits itself is");
    assert_eq!(bench.run().await.status, ExecutionStatus::Success);
}

#[tokio::test]
async fn a_node_that_was_cut_off_neither_begins_a_run_nor_puts_it_aside() {
    let bench = Bench::new(json!({})).await;
    let (job, cut_off) = bench.claimed().await;
    bench.store.release_jobs().await.unwrap();
    let (_, desk) = bench.claimed().await;
    assert_eq!(bench.work().run(&job, &cut_off).await, Err(JobError::LeaseLost));
    let (org, id, until) = (&bench.org, bench.id, Some(Timestamp::from_micros(START_US)));
    let late = (cut_off.lease(), &json!({}));
    assert_eq!(bench.store.advance_execution(org, id, until, late).await, Ok(None));
    assert_eq!(bench.run().await.status, ExecutionStatus::Queued);
    let over = bench.store.finish_execution(org, id, done(json!({}))).await.unwrap();
    for desk in [&cut_off, &desk] {
        let late = (desk.lease(), &json!({}));
        let left = bench.store.advance_execution(org, id, until, late).await;
        assert_eq!(left, Ok(Some(over.clone())));
    }
    assert_eq!(bench.run().await, over);
    assert!(bench.engine.limits().is_empty(), "nothing was run");
}

#[tokio::test]
async fn a_run_that_is_cut_short_shows_what_it_did_before_its_last_wait() {
    let bench = Bench::new(json!({"hang": true})).await;
    bench.restarted().await;
    bench.pass(WAIT);
    let (job, desk) = bench.claimed().await;
    let work = bench.work();
    let mut running = work.run(&job, &desk);
    tokio::select! {
        _ = &mut running => panic!("it hangs"),
        () = bench.engine.hangs.notified() => drop(running),
    }
    bench.restarted().await;
    let over = bench.run().await;
    let kind = over.error.map(|error| error.kind);
    assert_eq!((kind, over.trace), (Some(FailureKind::Interrupted), vec![first_step()]));
}

#[tokio::test]
async fn a_run_whose_workflow_is_deleted_while_it_waits_says_so() {
    let bench = Bench::new(json!({})).await;
    bench.restarted().await;
    bench.store.delete_workflow(&bench.org, bench.workflow).await.unwrap();
    bench.pass(WAIT);
    bench.restarted().await;
    let over = bench.run().await;
    let message = over.error.map(|error| error.message);
    assert_eq!(message.as_deref(), Some("Workflow: it was deleted"));
    assert_eq!(over.trace, [first_step()]);
}

#[tokio::test]
async fn a_run_that_is_cancelled_in_a_wait_is_over_and_leaves_no_job() {
    let bench = Bench::new(json!({})).await;
    bench.restarted().await;
    let other = bench.store.organisation().await;
    let (store, id) = (&bench.store, bench.id);
    assert_eq!(store.cancel_execution(&other, id).await, Err(not_found("Execution")));
    let over = store.cancel_execution(&bench.org, id).await.unwrap();
    let kind = over.error.as_ref().map(|error| error.kind);
    assert_eq!((over.status, kind), (ExecutionStatus::Failed, Some(FailureKind::Cancelled)));
    assert_eq!((over.resume_at, &over.trace), (None, &vec![first_step()]));
    assert_eq!(bench.run().await, over);
    assert_eq!(store.cancel_execution(&bench.org, id).await.unwrap(), over, "twice is once");
    bench.pass(WAIT);
    assert!(store.claim_job(&[RUN_WORKFLOW]).await.unwrap().is_none());
    assert_eq!(bench.engine.limits().len(), 1, "it has not gone on");
}

#[tokio::test]
async fn a_run_that_is_cancelled_at_work_stays_cancelled_and_its_node_finds_out() {
    let bench = Bench::new(json!({})).await;
    let (job, desk) = bench.claimed().await;
    let over = bench.store.cancel_execution(&bench.org, bench.id).await.unwrap();
    assert!(!bench.store.renew_job(desk.lease()).await.unwrap());
    assert_eq!(bench.work().run(&job, &desk).await, Ok(Turn::Done(Value::Null)));
    let late = bench.store.finish_execution(&bench.org, bench.id, done(json!({}))).await;
    assert_eq!(late, Ok(over));
    assert!(bench.engine.limits().is_empty(), "nothing was run");
}

#[tokio::test]
async fn a_run_that_is_over_cannot_be_cancelled() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let workflow = store.make_published(&org).await;
    let what = Executed { workflow, version: 1, input: json!({}) };
    let id = store.begin_execution(&org, what).await.unwrap().execution_id;
    assert!(!store.execution_is_over(&org, id).await.unwrap());
    let over = store.finish_execution(&org, id, failed()).await.unwrap();
    let refused = StoreError::Conflict("Execution is over".to_owned());
    assert_eq!(store.cancel_execution(&org, id).await, Err(refused));
    assert_eq!(store.execution(&org, id).await.unwrap(), over);
    assert!(store.execution_is_over(&org, id).await.unwrap());
    assert!(store.execution_is_over(&org, ExecutionId::random()).await.unwrap(), "nor begun");
}

#[tokio::test]
async fn what_a_node_publishes_its_neighbours_agents_run() {
    let here = Scratch::new().await;
    if !here.is_postgres() {
        return;
    }
    let org = here.organisation().await;
    let id = here.make_published(&org).await;
    let agent = agent_naming(&here, &org, id, json!("latest")).await;
    let there = here.again(StoreOptions { node: "there".to_owned(), ..options() }).await;
    let following = tokio::spawn(there.clone().keep_following());
    assert!(is(&named(&there, agent), "1"));
    here.create_workflow_version(&org, id, draft(definition("2"))).await.unwrap();
    here.publish_workflow_version(&org, id, VersionRef::Latest).await.unwrap();
    until("a publish is seen", || is(&named(&there, agent), "2")).await;
    here.delete_workflow(&org, id).await.unwrap();
    until("a workflow that was deleted is gone", || named(&there, agent).is_err()).await;
    following.abort();
}

#[tokio::test]
async fn a_run_that_a_request_waited_for_on_a_node_that_is_gone_has_failed() {
    let now = Arc::new(AtomicI64::new(START_US));
    let read = Arc::clone(&now);
    let clock =
        Clock::from_fn(move || Timestamp::from_micros(read.fetch_add(1_000, Ordering::Relaxed)));
    let store = Scratch::with(StoreOptions { clock, ..options() }).await;
    let org = store.organisation().await;
    let workflow = store.make_published(&org).await;
    let what = || Executed { workflow, version: 1, input: json!({}) };
    let waited_for = store.begin_execution(&org, what()).await.unwrap();
    let in_the_background = store.enqueue_execution(&org, what()).await.unwrap().execution_id;
    let (_, lease) = store.claim_job(&[RUN_WORKFLOW]).await.unwrap().unwrap();
    let at_work = (&lease, &json!({}));
    store.advance_execution(&org, in_the_background, None, at_work).await.unwrap().unwrap();
    assert_eq!(store.end_lost_executions().await.unwrap(), 0, "it may be at work");
    now.fetch_add(16 * 60_000_000, Ordering::Relaxed);
    assert_eq!(store.end_lost_executions().await.unwrap(), 1);
    let run = store.execution(&org, waited_for.execution_id).await.unwrap();
    assert_eq!(run.error.map(|error| error.kind), Some(FailureKind::Interrupted));
    let other = store.execution(&org, in_the_background).await.unwrap();
    assert_eq!(other.status, ExecutionStatus::Running, "its job knows what becomes of it");
}
