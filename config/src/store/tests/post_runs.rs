//! The runs that the ends of conversations make.

use std::sync::{Arc, Mutex};

use super::*;
use crate::briefing::{AgentWorkflows, PostAction};
use crate::ids::{ConversationId, WorkflowId};
use crate::jobs::Runner;
use crate::journal::Entry;
use crate::limits::{JOBS_WAITING, RUNS_AFTER_WAITING};
use crate::model::{
    Conversation, ConversationClose, ConversationStatus, Direction, EndReason, Execution,
    ExecutionFilter, ExecutionStatus, ExecutionSummary, NewWorkflow, Page,
};
use crate::store::{Executed, JobEnd};
use crate::workflows::background::{RUN_AFTER_CONVERSATION, RUN_WORKFLOW, RunWorkflow};
use crate::workflows::{
    Definition, FailureKind, Outcome, Parsed, Rejected, RunRequest, Running, Workflows,
};

fn definition(greeting: &str) -> Value {
    json!({"steps": [
        {"id": "trigger", "type": "input", "next": "out"},
        {"id": "out", "type": "output", "fields": {"greeting": greeting}}]})
}

fn inline() -> Value {
    json!({"type": "workflow", "definition": definition("inline")})
}

fn post(action: &Value) -> Option<PostAction> {
    AgentWorkflows::read(&json!({"post_conversation_workflow": action})).post
}

fn close(of: &Conversation, action: &Value) -> ConversationClose {
    ConversationClose {
        id: of.id,
        status: ConversationStatus::Completed,
        end_reason: EndReason::new("caller_hung_up", "caller"),
        duration_s: Some(7),
        transfer: None,
        quality: None,
        closed_at: Timestamp::from_micros(START_US + 9_000_000),
        post: post(action),
    }
}

fn ended(of: &Conversation, action: &Value) -> Entry {
    Entry::ConversationClosed(Box::new(close(of, action)))
}

fn begun(org: &Org) -> Conversation {
    let at = Timestamp::from_micros(START_US);
    Conversation::begun(org.organisation(), Direction::Inbound, at)
}

impl Scratch {
    /// A conversation with a beginning.
    async fn call(&self, org: &Org) -> Conversation {
        self.open_conversation(org, begun(org)).await.unwrap().conversation
    }

    /// A conversation that has ended, after which this is to be done.
    async fn over(&self, org: &Org, action: &Value) -> ConversationId {
        let call = self.call(org).await;
        self.close_conversation(org, &close(&call, action)).await.unwrap().id
    }

    async fn published(&self, org: &Org) -> WorkflowId {
        let (name, definition) = ("w".to_owned(), definition("stored"));
        let new = NewWorkflow { name, description: None, definition };
        let id = self.create_workflow(org, new).await.unwrap().id;
        self.publish_workflow_version(org, id, VersionRef::Latest).await.unwrap();
        id
    }

    async fn runs_after(&self, org: &Org, conversation: ConversationId) -> Vec<ExecutionSummary> {
        let filter =
            ExecutionFilter { conversation_id: Some(conversation), ..ExecutionFilter::default() };
        self.executions(org, &filter, Page::first(Page::MAX)).await.unwrap()
    }

    async fn run_after(&self, org: &Org, conversation: ConversationId) -> Execution {
        let runs = self.runs_after(org, conversation).await;
        assert_eq!(runs.len(), 1, "one run of each conversation");
        self.execution(org, runs[0].execution_id).await.unwrap()
    }

    /// Lets the time pass that runs are left.
    async fn grace(&self) {
        self.run("UPDATE jobs SET run_at = run_at - 10000000 WHERE status = 'waiting'").await;
    }

    /// Does what is due once the grace is over, with an engine of which every expression says this.
    async fn do_due(&self, holds: bool) -> Vec<RunRequest> {
        self.grace().await;
        self.do_now(holds).await
    }

    async fn do_now(&self, holds: bool) -> Vec<RunRequest> {
        let engine = Arc::new(Asked { holds, asked: Mutex::default() });
        let work = RunWorkflow::new(self.store.clone(), Arc::clone(&engine) as _);
        Runner::new(self.store.clone())
            .with(RUN_AFTER_CONVERSATION, Arc::new(work))
            .run_due()
            .await;
        engine.asked.lock().unwrap().clone()
    }
}

/// An engine that says the same of everything, and knows what it was asked.
struct Asked {
    holds: bool,
    asked: Mutex<Vec<RunRequest>>,
}

impl Workflows for Asked {
    fn check<'a>(
        &'a self,
        _: OrganisationId,
        definition: &'a Value,
    ) -> Running<'a, Result<Parsed, Rejected>> {
        Box::pin(async move { Definition::parse(definition).map_err(Rejected::Faults) })
    }

    fn run(&self, request: RunRequest) -> Running<'_, Outcome> {
        self.asked.lock().unwrap().push(request);
        let output = json!({"holds": self.holds});
        Box::pin(async move { Outcome { result: Ok(output), trace: Vec::new() } })
    }
}

#[tokio::test]
async fn an_end_makes_one_run_however_often_it_is_written() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let workflow = store.published(&org).await;
    let action = json!({"type": "workflow", "workflow_id": workflow, "workflow_version": "latest",
        "initial_step": "out"});
    let call = begun(&org);
    let opened = Entry::ConversationOpened(Box::new(call.clone()));
    let twice = [opened, ended(&call, &action), ended(&call, &action)];
    store.write_entries(&twice).await.unwrap();
    store.write_entries(&twice).await.unwrap();
    store.close_conversation(&org, &close(&call, &action)).await.unwrap();
    let run = store.run_after(&org, call.id).await;
    assert_eq!((run.workflow_id, run.workflow_version), (Some(workflow), Some(1)));
    assert_eq!((run.conversation_id, run.status), (Some(call.id), ExecutionStatus::Queued));
    let told = &run.input_data["trigger"];
    assert_eq!((&told["type"], &told["status"]), (&json!("post_call"), &json!("completed")));
    assert_eq!((&told["duration"], &told["conversation_id"]), (&json!(7), &json!(call.id)));
    let asked = store.do_due(true).await;
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].initial_step.as_deref(), Some("out"));
    assert_eq!(asked[0].definition, Definition::parse(&definition("stored")).unwrap().definition);
    assert_eq!(store.run_after(&org, call.id).await.status, ExecutionStatus::Success);
    store.write_entries(&twice).await.unwrap();
    assert!(store.do_due(true).await.is_empty(), "what has run does not run again");
}

#[tokio::test]
async fn a_conversation_that_ends_in_no_workflow_makes_no_run() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let over = store.over(&org, &Value::Null).await;
    assert!(store.runs_after(&org, over).await.is_empty());
    assert_eq!(store.claim_job(&[RUN_AFTER_CONVERSATION]).await, Ok(None));
}

#[tokio::test]
async fn one_organisations_conversations_do_not_keep_anothers_waiting() {
    let store = Scratch::new().await;
    let (greedy, other) = (store.organisation().await, store.organisation().await);
    for _ in 0..6 {
        store.over(&greedy, &inline()).await;
    }
    store.over(&other, &inline()).await;
    store.grace().await;
    let mut claimed = Vec::new();
    while let Some((job, _)) = store.claim_job(&[RUN_AFTER_CONVERSATION]).await.unwrap() {
        claimed.push(job.organisation);
    }
    assert_eq!(claimed.len(), 3, "two of one, and one of the other: {claimed:?}");
    assert!(claimed.contains(&other.organisation()));
}

#[tokio::test]
async fn a_workflow_of_the_config_runs_if_its_condition_is_true_and_leaves_nothing_if_not() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let mut action = inline();
    action["condition"] = json!("input.trigger.duration > 5");
    let over = store.over(&org, &action).await;
    let asked = store.do_due(true).await;
    let kept = Definition::parse(&definition("inline")).unwrap().definition;
    assert_eq!(
        asked.iter().map(|asked| asked.definition == kept).collect::<Vec<_>>(),
        [false, true]
    );
    let run = store.run_after(&org, over).await;
    assert_eq!((run.workflow_id, run.workflow_version), (None, None));
    assert_eq!(run.status, ExecutionStatus::Success);
    let over = store.over(&org, &action).await;
    assert_eq!(store.do_due(false).await.len(), 1, "the condition alone");
    assert!(store.runs_after(&org, over).await.is_empty());
}

#[tokio::test]
async fn a_run_is_told_what_was_written_down_after_the_end() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let (quick, late) = (store.over(&org, &inline()).await, store.over(&org, &inline()).await);
    assert!(store.do_now(true).await.is_empty(), "whoever held it has yet to write");
    let write = async |of: ConversationId, said: Value| {
        let said = serde_json::from_value(said).unwrap();
        store.annotate_conversation(&org, (of, &said)).await.unwrap()
    };
    let said = json!({"items": [{"type": "message", "role": "user", "content": ["hello"]}]});
    write(late, json!({ "summary": "s" })).await;
    write(quick, json!({ "conversation": said })).await;
    assert!(store.do_now(true).await.is_empty(), "one of the two is not there yet");
    write(quick, json!({ "summary": "a greeting" })).await;
    let asked = store.do_now(true).await;
    let told = asked.iter().map(|asked| asked.input["trigger"].clone()).collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["conversation_id"], json!(quick));
    assert_eq!((&told[0]["summary"], &told[0]["conversation"]), (&json!("a greeting"), &said));
    assert_eq!(told[0]["user_turn_count"], json!(1));
    assert_eq!(store.run_after(&org, quick).await.input_data["trigger"], told[0]);
    let asked = store.do_due(true).await;
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].input["trigger"]["summary"], "s", "as far as it is there in time");
}

#[tokio::test]
async fn a_run_that_waits_is_neither_woken_nor_told_anew() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let over = store.over(&org, &inline()).await;
    store.grace().await;
    let (_, lease) = store.claim_job(&[RUN_AFTER_CONVERSATION]).await.unwrap().unwrap();
    store.save_job(&lease, &json!({"began_at": store.now()})).await.unwrap();
    let later = Timestamp::from_micros(START_US + 3_600_000_000);
    store.end_job(&lease, JobEnd::Later(later)).await.unwrap();
    let said = json!({"conversation": {"items": []}, "summary": "s"});
    let said = serde_json::from_value(said).unwrap();
    store.annotate_conversation(&org, (over, &said)).await.unwrap();
    assert!(store.do_now(true).await.is_empty());
    assert_eq!(store.run_after(&org, over).await.input_data["trigger"]["summary"], json!(null));
}

#[tokio::test]
async fn a_run_that_was_cancelled_while_its_condition_was_asked_is_still_there() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let over = store.over(&org, &inline()).await;
    let run = store.run_after(&org, over).await.execution_id;
    store.cancel_execution(&org, run).await.unwrap();
    store.forget_execution(&org, run).await.unwrap();
    assert!(store.run_after(&org, over).await.is_cancelled());
}

#[tokio::test]
async fn what_cannot_be_run_after_a_conversation_has_failed_and_says_why() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let foreign = store.published(&other).await;
    let draft = NewWorkflow { name: "w".to_owned(), description: None, definition: definition("") };
    let draft = store.create_workflow(&org, draft).await.unwrap().id;
    let named = |id: WorkflowId| {
        json!({"type": "workflow", "workflow_id": id, "workflow_version": "latest",
            "initial_step": "out"})
    };
    let bad = json!({"type": "workflow", "definition": {"steps": []}});
    for (action, why) in [
        (named(foreign), "Workflow: it was deleted"),
        (named(draft), "Workflow has no published version"),
        (bad, "definition.steps"),
    ] {
        let over = store.over(&org, &action).await;
        assert!(store.do_due(true).await.is_empty());
        let error = store.run_after(&org, over).await.error.unwrap();
        assert!(error.message.starts_with(why), "{error:?}");
        assert_eq!(error.kind, FailureKind::Threw);
    }
}

#[tokio::test]
async fn a_run_of_too_many_has_failed_and_its_conversation_has_ended_all_the_same() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let workflow = store.published(&org).await;
    let what = || Executed { workflow, version: 1, input: json!({}) };
    store.enqueue_execution(&org, what()).await.unwrap();
    store.fill_jobs(&org, RUN_WORKFLOW, (JOBS_WAITING.value - 1, START_US)).await;
    assert!(matches!(store.enqueue_execution(&org, what()).await, Err(StoreError::Refused(_))));
    let full = store.over(&org, &inline()).await;
    let run = store.run_after(&org, full).await;
    assert_eq!(run.status, ExecutionStatus::Queued, "whatever else there is to be run");
    let most = RUNS_AFTER_WAITING.value - 1;
    store.fill_jobs(&org, RUN_AFTER_CONVERSATION, (most, START_US)).await;
    let last = store.over(&org, &inline()).await;
    let run = store.run_after(&org, last).await;
    assert_eq!(run.error.map(|error| error.kind), Some(FailureKind::Busy));
    let conversation = store.conversation(&org, last).await.unwrap();
    assert_eq!(conversation.status, ConversationStatus::Completed);
}

#[tokio::test]
async fn a_conversation_that_a_crash_ended_has_its_run_too() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let config = json!({"post_conversation_workflow": inline()});
    let number = store.make_version(&org, agent, config).await;
    store.make_publish(&org, agent, number, json!({})).await.unwrap();
    let version = store.version(&org, agent, VersionRef::Number(number)).await.unwrap().id;
    let with = Conversation { agent_version_id: Some(version), ..begun(&org) };
    let with = store.open_conversation(&org, with).await.unwrap().conversation.id;
    let without = store.call(&org).await.id;
    let again = store.again(options()).await;
    assert_eq!(again.close_left_open().await, Ok(2));
    assert_eq!(again.close_left_open().await, Ok(0));
    let run = store.run_after(&org, with).await;
    let told = &run.input_data["trigger"];
    assert_eq!(
        (&told["status"], &told["end_reason"]["code"]),
        (&json!("failed"), &json!("gateway_crash"))
    );
    assert!(store.runs_after(&org, without).await.is_empty());
    assert_eq!(store.do_due(true).await.len(), 1);
}
