//! Workflows, their versions and their runs, over the API. The engine here is a stand-in that answers
//! at once; the real one has tests of its own.

use std::time::Duration;

use axum::http::Method;
use config::api::ApiOptions;
use config::briefing::AgentWorkflows;
use config::credential::ScopedTo;
use config::ids::ConversationId;
use config::model::{Conversation, ConversationClose, ConversationStatus, EndReason};
use serde_json::{Value, json};

use crate::server::{Server, id};

const UNKNOWN: &str = "wf_67e5504410b1426f9247bb680e5fe0c8";

fn definition() -> Value {
    json!({"schema": "trunkline/1", "steps": [
        {"id": "trigger", "type": "input", "next": "out"},
        {"id": "out", "type": "output", "fields": {"greeting": "{{ 'Hello' }}"}}]})
}

async fn workflow(server: &Server) -> String {
    let body = json!({"name": "Greet", "definition": definition()});
    id(&server.post("/workflow/workflows", body).await.is(200))
}

async fn published(server: &Server) -> String {
    let workflow = workflow(server).await;
    let publish = format!("/workflow/workflows/{workflow}/versions/1/publish");
    server.post(&publish, Value::Null).await.is(200);
    workflow
}

#[tokio::test]
async fn a_workflow_is_made_with_its_first_draft() {
    let server = Server::start().await;
    let body = json!({"name": "Greet", "description": "Says hello", "definition": definition()});
    let made = server.post("/workflow/workflows", body).await.is(200);
    let path = format!("/workflow/workflows/{}", id(&made));
    assert!(id(&made).starts_with("wf_"), "{made}");
    assert_eq!(made["warnings"], json!([]));
    assert_eq!(
        (&made["latest_version"], &made["latest_published_version"]),
        (&json!(1), &Value::Null)
    );
    let version = server.get(&format!("{path}/versions/1")).await.is(200);
    assert_eq!(version["definition"], definition(), "as it was written");
    assert_eq!(version["published"], json!(false));
    let change = json!({"name": "Welcome", "description": null});
    let changed = server.put(&path, change).await.is(200);
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Welcome"), &Value::Null));
    let list = server.get("/workflow/workflows?name=WELC").await.is(200);
    assert_eq!(list, json!([changed]));
    server.delete(&path).await.is(204);
    assert_eq!(server.get(&path).await.is(404)["detail"], "Workflow not found");
}

#[tokio::test]
async fn drafts_change_and_published_versions_do_not() {
    let server = Server::start().await;
    let workflow = workflow(&server).await;
    let versions = format!("/workflow/workflows/{workflow}/versions");
    let mut other = definition();
    other["name"] = json!("second");
    let body = json!({"definition": other});
    server.put(&format!("{versions}/1"), body.clone()).await.is(200);
    let publish = format!("{versions}/1/publish");
    let first = server.post(&publish, Value::Null).await.is(200);
    assert_eq!(first["published"], json!(true));
    assert_eq!(server.post(&publish, Value::Null).await.is(200), first, "twice is once");
    let refused = server.put(&format!("{versions}/1"), body).await.is(400);
    assert_eq!(refused["detail"], "Version is published and cannot change");
    let copy = server.post(&versions, json!({"base_version": 1})).await.is(200);
    assert_eq!((&copy["version"], &copy["definition"]), (&json!(2), &other));
    assert_eq!(server.get(&format!("{versions}/latest")).await.is(200)["version"], 2);
    let drafts = server.get(&format!("{versions}?published=false")).await.is(200);
    assert_eq!(drafts.as_array().map(Vec::len), Some(1));
    server.post(&versions, json!({})).await.is(422);
    server.post(&versions, json!({"base_version": 7})).await.is(404);
}

#[tokio::test]
async fn a_faulty_definition_is_refused_at_its_place() {
    let server = Server::start().await;
    let steps = json!([{"id": "a", "type": "condition", "default": "out", "branches": [
        {"label": "x", "next": "out"}]}, {"id": "out", "type": "outputs"}]);
    let body = json!({"name": "Greet", "definition": {"steps": steps}});
    let refused = server.post("/workflow/workflows", body).await.is(422);
    let places: Vec<_> =
        refused["detail"].as_array().unwrap().iter().map(|one| &one["loc"]).collect();
    let expected = [
        json!(["body", "definition", "steps", 0, "branches", 0, "when"]),
        json!(["body", "definition", "steps", 1, "type"]),
    ];
    assert_eq!(places, expected.iter().collect::<Vec<_>>());
    assert_eq!(server.get("/workflow/workflows").await.is(200), json!([]), "nothing was kept");
}

#[tokio::test]
async fn only_published_versions_run() {
    let server = Server::start().await;
    let workflow = workflow(&server).await;
    let run = async |version: Value| {
        let body = json!({"workflow_id": workflow, "workflow_version": version});
        server.post("/workflow/workflow-executions", body).await
    };
    assert_eq!(run(json!("latest")).await.is(400)["detail"], "Workflow has no published version");
    assert_eq!(run(json!(1)).await.is(400)["detail"], "Version is a draft: publish it to run it");
    assert_eq!(run(json!(2)).await.is(404)["detail"], "Version not found");
    let body = json!({"workflow_id": UNKNOWN, "workflow_version": 1});
    let unknown = server.post("/workflow/workflow-executions", body).await.is(404);
    assert_eq!(unknown["detail"], "Workflow not found");
}

#[tokio::test]
async fn a_run_answers_with_its_output_and_leaves_a_record() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body = json!({"workflow_id": workflow, "workflow_version": "latest",
        "input_data": {"name": "Ada"}});
    let ran = server.post("/workflow/workflow-executions", body.clone()).await.is(200);
    assert_eq!(
        (&ran["status"], &ran["output"]),
        (&json!("success"), &json!({"echo": {"name": "Ada"}}))
    );
    assert!(ran.get("error").is_none(), "{ran}");
    let path = format!("/workflow/workflow-executions/{}", ran["execution_id"].as_str().unwrap());
    let record = server.get(&path).await.is(200);
    assert_eq!(record["workflow_version"], 1);
    assert_eq!(record["input_data"], json!({"name": "Ada"}));
    assert_eq!(record["trace"][0]["step"], "trigger");

    let mut failing = body;
    failing["input_data"] = json!({"fail": true});
    let ran = server.post("/workflow/workflow-executions", failing).await.is(200);
    assert_eq!(ran["status"], "failed");
    let error = json!({"step_name": "out", "message": "as asked", "kind": "threw"});
    assert_eq!(ran["error"], error);
    assert!(ran.get("output").is_none(), "{ran}");
    let failed = server.get("/workflow/workflow-executions?status=failed").await.is(200);
    assert_eq!(failed.as_array().map(Vec::len), Some(1));
    for document in ["input_data", "output", "trace"] {
        assert!(failed[0].get(document).is_none(), "a list holds no documents: {failed}");
    }
    server.delete(&format!("/workflow/workflows/{workflow}")).await.is(204);
    server.get(&path).await.is(200);
}

#[tokio::test]
async fn a_run_in_the_background_goes_on_over_its_waits() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body = json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"wait": 0}});
    let taken = server.post("/workflow/workflow-executions/async", body).await.is(202);
    let path = format!("/workflow/workflow-executions/{}", taken["execution_id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.is(200)["status"], "queued");
    server.run_jobs().await;
    let record = server.get(&path).await.is(200);
    assert_eq!(
        (&record["status"], &record["output"]),
        (&json!("success"), &json!({"waited": true}))
    );

    let body =
        json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"wait": 3600}});
    let taken = server.post("/workflow/workflow-executions/async", body).await.is(202);
    let path = format!("/workflow/workflow-executions/{}", taken["execution_id"].as_str().unwrap());
    server.run_jobs().await;
    let record = server.get(&path).await.is(200);
    assert_eq!(record["status"], "waiting");
    assert!(record["resume_at"].is_string(), "{record}");
}

#[tokio::test]
async fn a_run_that_was_interrupted_says_so_and_is_not_done_again() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body =
        json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"hang": true}});
    let taken = server.post("/workflow/workflow-executions/async", body).await.is(202);
    let path = format!("/workflow/workflow-executions/{}", taken["execution_id"].as_str().unwrap());
    // The program stops in the middle of it: the future is dropped, and the lease given back.
    let stopped = Duration::from_millis(300);
    assert!(tokio::time::timeout(stopped, server.run_jobs()).await.is_err());
    assert_eq!(server.get(&path).await.is(200)["status"], "running");
    server.store.release_jobs().await.unwrap();
    server.run_jobs().await;
    let record = server.get(&path).await.is(200);
    assert_eq!(
        (&record["status"], &record["error"]["kind"]),
        (&json!("failed"), &json!("interrupted"))
    );
}

/// A conversation that ended, after which a workflow of the agent's config is done.
async fn over(server: &Server) -> ConversationId {
    over_with(server, json!({"canary": 1})).await
}

async fn over_with(server: &Server, metadata: Value) -> ConversationId {
    let told = |call: &mut Conversation| {
        call.custom_metadata = Some(metadata);
        call.user_id = "+15557654321".to_owned();
    };
    let call = server.conversation(server.organisation, told).await;
    let action = json!({"type": "workflow", "definition": definition()});
    let close = ConversationClose {
        id: call.id,
        status: ConversationStatus::Completed,
        end_reason: EndReason::new("caller_hung_up", "caller"),
        duration_s: Some(3),
        transfer: None,
        quality: None,
        closed_at: call.created_at,
        post: AgentWorkflows::read(&json!({"post_conversation_workflow": action})).post,
    };
    let scope = ScopedTo::by_gateway(server.organisation);
    server.store.close_conversation(&scope, &close).await.unwrap();
    call.id
}

#[tokio::test]
async fn a_run_after_a_conversation_names_it_and_hides_what_is_sensitive_of_it() {
    let server = Server::start().await;
    let (call, other) = (over(&server).await, over(&server).await);
    let of = |id: ConversationId| format!("/workflow/workflow-executions?conversation_id={id}");
    let listed = server.get(&of(call)).await.is(200);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let run = &listed[0];
    assert_eq!((&run["conversation_id"], &run["status"]), (&json!(call), &json!("queued")));
    assert_eq!((&run["workflow_id"], &run["workflow_version"]), (&Value::Null, &Value::Null));
    assert_ne!(server.get(&of(other)).await.is(200)[0]["execution_id"], run["execution_id"]);
    let said = json!({"conversation": {"items": []}, "summary": "canary, in short"});
    server.patch(&format!("/core/conversations/{call}"), said).await.is(200);
    server.run_jobs().await;
    let path = format!("/workflow/workflow-executions/{}", run["execution_id"].as_str().unwrap());
    let whole = server.get(&path).await.is(200);
    assert_eq!(whole["status"], "success", "{whole}");
    assert_eq!(whole["input_data"]["trigger"]["summary"], "canary, in short");
    assert_eq!(whole["input_data"]["trigger"]["custom_metadata"], json!({"canary": 1}));
    let reader = server.key_with(&["workflows:read"]).await;
    let shown = server.call(Method::GET, &path, &reader, &Value::Null).await.is(200);
    assert!(!shown.to_string().contains("canary"), "{shown}");
    assert_eq!(shown["input_data"]["trigger"]["conversation_id"], json!(call));
    let last = over(&server).await;
    let run = server.get(&of(last)).await.is(200)[0]["execution_id"].clone();
    let cancel = format!("/workflow/workflow-executions/{}/cancel", run.as_str().unwrap());
    let manager = server.key_with(&["workflows:manage"]).await;
    let shown = server.call(Method::POST, &cancel, &manager, &Value::Null).await.is(200);
    assert!(!shown.to_string().contains("canary"), "{shown}");
}

#[tokio::test]
async fn the_words_of_an_error_are_for_who_may_read_what_is_sensitive() {
    let server = Server::start().await;
    let call = over_with(&server, json!({"fail": "canary"})).await;
    server.pass(Duration::from_secs(11)); // nobody writes anything down
    server.run_jobs().await;
    let list = format!("/workflow/workflow-executions?conversation_id={call}");
    let whole = server.get(&list).await.is(200)[0].clone();
    assert_eq!(whole["error"]["message"], "Cannot convert \"canary\" to number");
    let one = format!("/workflow/workflow-executions/{}", whole["execution_id"].as_str().unwrap());
    assert_eq!(server.get(&one).await.is(200)["error"], whole["error"]);
    for scopes in [&["workflows:read"][..], &["workflows:manage", "conversations:read"]] {
        let reader = server.key_with(scopes).await;
        let read =
            async |path: &str| server.call(Method::GET, path, &reader, &Value::Null).await.is(200);
        let (one, list) = (read(&one).await, read(&list).await);
        assert!(!format!("{one}{list}").contains("canary"), "{one} {list}");
        let error = json!({"step_name": "out", "message": "the step failed", "kind": "threw"});
        assert_eq!((&one["error"], &list[0]["error"]), (&error, &error));
    }
}

#[tokio::test]
async fn who_may_read_no_conversations_learns_only_which_it_was() {
    let server = Server::start().await;
    let call = over(&server).await;
    let list = server.get(&format!("/workflow/workflow-executions?conversation_id={call}")).await;
    let run = list.is(200)[0]["execution_id"].clone();
    let path = format!("/workflow/workflow-executions/{}", run.as_str().unwrap());
    let trigger = async |scopes: &[&str]| {
        let key = server.key_with(scopes).await;
        let shown = server.call(Method::GET, &path, &key, &Value::Null).await.is(200);
        shown["input_data"]["trigger"].as_object().unwrap().clone()
    };
    let seen = trigger(&["workflows:read"]).await;
    let names: Vec<&str> = seen.keys().map(String::as_str).collect();
    let ids = ["agent_id", "agent_version_id", "conversation_id", "organization_id", "type"];
    assert!(names.iter().all(|name| ids.contains(name)) && names.len() == ids.len(), "{names:?}");
    assert_eq!(seen["conversation_id"], json!(call));
    for scope in ["conversations:read", "conversations:manage"] {
        let seen = trigger(&["workflows:read", scope]).await;
        assert_eq!(seen["phone_number"], "+15557654321", "{scope}");
        assert!(!seen.contains_key("custom_metadata"), "{scope}");
    }
}

#[tokio::test]
async fn nothing_of_another_organisation_can_be_run_or_read() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body = json!({"workflow_id": workflow, "workflow_version": 1});
    let ran = server.post("/workflow/workflow-executions", body.clone()).await.is(200);
    let execution = ran["execution_id"].as_str().unwrap();
    let (_, foreign) = server.stranger().await;
    let never = json!({"workflow_id": UNKNOWN, "workflow_version": 1});
    for path in ["/workflow/workflow-executions", "/workflow/workflow-executions/async"] {
        let theirs = server.call(Method::POST, path, &foreign, &body).await;
        let unknown = server.call(Method::POST, path, &foreign, &never).await;
        assert_eq!((theirs.status.as_u16(), &theirs.text), (404, &unknown.text), "{path}");
    }
    for path in [
        format!("/workflow/workflow-executions/{execution}"),
        format!("/workflow/workflows/{workflow}"),
        format!("/workflow/workflows/{workflow}/versions"),
        format!("/workflow/workflows/{workflow}/versions/1"),
    ] {
        server.call(Method::GET, &path, &foreign, &Value::Null).await.is(404);
    }
    for path in [
        "/workflow/workflows".to_owned(),
        "/workflow/workflow-executions".to_owned(),
        format!("/workflow/workflow-executions?workflow_id={workflow}"),
    ] {
        let list = server.call(Method::GET, &path, &foreign, &Value::Null).await.is(200);
        assert_eq!(list, json!([]), "{path}");
    }
}

#[tokio::test]
async fn who_hangs_up_ends_the_run_and_the_record_says_so() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body =
        json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"hang": true}});
    let asking = server.post("/workflow/workflow-executions", body);
    assert!(tokio::time::timeout(Duration::from_millis(300), asking).await.is_err());
    let record = the_run(&server, |record| record["status"] != "running").await;
    assert_eq!(
        (&record["status"], &record["error"]["kind"]),
        (&json!("failed"), &json!("interrupted"))
    );
}

/// The only run there is, once it is as it should be.
async fn the_run(server: &Server, is_so: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let list = server.get("/workflow/workflow-executions").await.is(200);
            match list.get(0) {
                Some(record) if is_so(record) => break record.clone(),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.expect("it never becomes so")
}

#[tokio::test]
async fn a_run_that_a_request_waits_for_may_take_longer_than_other_requests() {
    let short = Duration::from_millis(200);
    let server = Server::with(ApiOptions { request_timeout: short, ..ApiOptions::default() }).await;
    let workflow = published(&server).await;
    let body = json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"take": 700}});
    let ran = server.post("/workflow/workflow-executions", body).await.is(200);
    assert_eq!(ran["status"], "success");
}

#[tokio::test]
async fn a_run_in_a_wait_is_cancelled_at_once_and_only_by_its_owner() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body =
        json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"wait": 3600}});
    let taken = server.post("/workflow/workflow-executions/async", body).await.is(202);
    server.run_jobs().await;
    let path = format!("/workflow/workflow-executions/{}", taken["execution_id"].as_str().unwrap());
    let cancel = format!("{path}/cancel");
    let (_, foreign) = server.stranger().await;
    let theirs = server.call(Method::POST, &cancel, &foreign, &Value::Null).await.is(404);
    assert_eq!(theirs["detail"], "Execution not found");
    let reader = server.key_with(&["workflows:read"]).await;
    server.call(Method::POST, &cancel, &reader, &Value::Null).await.is(403);
    let over = server.post(&cancel, Value::Null).await.is(200);
    assert_eq!(
        (&over["status"], &over["error"]["kind"], &over["resume_at"]),
        (&json!("failed"), &json!("cancelled"), &Value::Null)
    );
    assert_eq!(server.post(&cancel, Value::Null).await.is(200), over, "twice is once");
    server.pass(Duration::from_secs(3_700));
    server.run_jobs().await;
    assert_eq!(server.get(&path).await.is(200), over);
}

#[tokio::test]
async fn a_run_that_has_ended_cannot_be_cancelled() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body = json!({"workflow_id": workflow, "workflow_version": 1});
    let ran = server.post("/workflow/workflow-executions", body).await.is(200);
    let path = format!("/workflow/workflow-executions/{}", ran["execution_id"].as_str().unwrap());
    let refused = server.post(&format!("{path}/cancel"), Value::Null).await.is(409);
    assert_eq!(refused["detail"], "Execution is over");
    assert_eq!(server.get(&path).await.is(200)["status"], "success");
}

#[tokio::test]
async fn who_waits_for_a_run_that_is_cancelled_hears_of_it() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body =
        json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"hang": true}});
    let cancelling = async {
        let run = the_run(&server, |record| record["status"] == "running").await;
        let id = run["execution_id"].as_str().unwrap();
        let path = format!("/workflow/workflow-executions/{id}/cancel");
        server.post(&path, Value::Null).await.is(200)
    };
    let (ran, cancelled) =
        tokio::join!(server.post("/workflow/workflow-executions", body), cancelling);
    let ran = ran.is(200);
    assert_eq!((&ran["status"], &ran["error"]), (&json!("failed"), &cancelled["error"]));
}

#[tokio::test]
async fn a_node_that_stops_ends_the_runs_that_requests_wait_for_and_records_it() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body =
        json!({"workflow_id": workflow, "workflow_version": 1, "input_data": {"hang": true}});
    let stopping = async {
        the_run(&server, |record| record["status"] == "running").await;
        server.waiting.stop().await;
        server.get("/workflow/workflow-executions").await.is(200)
    };
    let asking = server.post("/workflow/workflow-executions", body.clone());
    let (ran, list) = tokio::join!(asking, stopping);
    assert_eq!(list[0]["error"]["kind"], "interrupted", "it is written when stopping is over");
    assert_eq!(ran.is(200)["error"]["kind"], "interrupted");
    server.post("/workflow/workflow-executions", body).await.is(503);
}

#[tokio::test]
async fn an_organisation_that_waits_for_too_many_runs_leaves_room_for_others() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let run = async |input: Value| {
        let body = json!({"workflow_id": workflow, "workflow_version": 1, "input_data": input});
        server.post("/workflow/workflow-executions", body).await
    };
    let waiting = futures_util::future::join_all((0..16).map(|_| run(json!({"hang": true}))));
    let mut waiting = std::pin::pin!(waiting);
    let seventeenth = loop {
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let reply = run(json!({})).await;
        if reply.status != 200 {
            break reply;
        }
    };
    seventeenth.is(503);
}

#[tokio::test]
async fn an_input_is_no_larger_than_what_a_step_may_give() {
    let server = Server::start().await;
    let workflow = published(&server).await;
    let body = json!({"workflow_id": workflow, "workflow_version": 1,
        "input_data": {"name": "x".repeat(300_000)}});
    for path in ["/workflow/workflow-executions", "/workflow/workflow-executions/async"] {
        let refused = server.post(path, body.clone()).await;
        assert_eq!(refused.places(), ["body.input_data"]);
    }
    let runs = server.get("/workflow/workflow-executions").await.is(200);
    assert_eq!(runs, json!([]));
}
