//! Work in the background that the program is killed in the midst of: it comes to its end after the
//! restart, and nothing of it is done twice.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::gateway::{echo, from_here};
use support::lookup::Lookup;
use support::sipp::Sipp;
use support::{Gateway, peer, wait};

use crate::routing::{action, agent_with};

const NUMBER: &str = "+15550100100";

/// How long work in the background may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(40);

/// What lets workflows ask the tests' own servers.
const HERE: &[(&str, &str)] = &[
    ("fetch.allow_private_addresses", "true"),
    ("fetch.allow_plain_http", "true"),
    ("fetch.allow_any_port", "true"),
];

const RUNS: &str = "/workflow/workflow-executions";

/// A published workflow of these steps.
fn published(gateway: &Gateway, steps: Value) -> String {
    let body = json!({ "name": "w", "definition": { "steps": steps } });
    let made = gateway.rest().post("/workflow/workflows", &body);
    let id = made["id"].as_str().unwrap().to_owned();
    gateway.rest().post(&format!("/workflow/workflows/{id}/versions/1/publish"), &json!({}));
    id
}

/// A run in the background; its path.
fn enqueue(gateway: &Gateway, workflow: &str) -> String {
    let body = json!({ "workflow_id": workflow, "workflow_version": "latest",
        "input_data": { "name": "Ada" } });
    let taken = gateway.rest().post(&format!("{RUNS}/async"), &body);
    format!("{RUNS}/{}", taken["execution_id"].as_str().unwrap())
}

/// What is at a path, once its status is this.
#[track_caller]
fn reaches(gateway: &Gateway, path: &str, status: &str) -> Value {
    let mut seen = Value::Null;
    let there = wait::try_until(PATIENCE, || {
        seen = gateway.rest().get(path);
        (seen["status"] == status).then_some(())
    });
    assert!(there.is_some(), "{status} was awaited, seen: {seen:#}");
    seen
}

/// A type of content, and the content.
type Answer = (&'static str, &'static str);

/// A server that answers no connection but those after the first `unanswered`; it tells of each.
fn slow(unanswered: usize, answer: Answer) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = sync_channel(64);
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            if held.len() < unanswered {
                held.push(stream);
            } else {
                let _ = serve(stream, answer); // whoever asked may have gone
            }
            if tell.send(()).is_err() {
                return;
            }
        }
    });
    (address, told)
}

fn serve(mut stream: TcpStream, (kind, answer): Answer) -> io::Result<u64> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = [0; 4_096];
    let _ = stream.read(&mut request)?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    // What of a request is not read when a connection is closed would take the answer with it.
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::sink())
}

#[test]
fn a_run_whose_wait_the_program_does_not_survive_goes_on_after_the_restart() {
    let gateway = Gateway::with(HERE);
    let crm = Lookup::start(&json!({ "vip": true }));
    let workflow = published(
        &gateway,
        json!([
            { "id": "trigger", "type": "input", "next": "ask" },
            { "id": "ask", "type": "http", "url": crm.url("/find"), "next": "pause" },
            { "id": "pause", "type": "wait", "duration": 8, "unit": "seconds", "next": "done" },
            { "id": "done", "type": "output",
              "fields": { "name": "{{ input.name }}", "vip": "{{ ask.body.vip }}" } },
        ]),
    );
    let run = enqueue(&gateway, &workflow);
    let waiting = reaches(&gateway, &run, "waiting");
    assert!(waiting["resume_at"].is_string(), "{waiting:#}");
    let gateway = gateway.crash_and_restart();
    let over = reaches(&gateway, &run, "success");
    assert_eq!(over["output"], json!({ "name": "Ada", "vip": true }));
    let steps = over["trace"].as_array().unwrap().iter().map(|entry| entry["step"].clone());
    assert_eq!(steps.collect::<Vec<_>>(), ["trigger", "ask", "pause", "done"]);
    assert_eq!(crm.requests().len(), 1, "what was done before the crash is not done again");
    gateway.finish();
}

#[test]
fn a_run_that_a_crash_cut_short_says_so_and_is_not_done_again() {
    let gateway = Gateway::with(HERE);
    let (address, asked) = slow(usize::MAX, ("", ""));
    let workflow = published(
        &gateway,
        json!([
            { "id": "trigger", "type": "input", "next": "pay" },
            { "id": "pay", "type": "http", "method": "POST", "url": format!("http://{address}/"),
              "timeout_seconds": 60, "next": "done" },
            { "id": "done", "type": "output", "fields": {} },
        ]),
    );
    let run = enqueue(&gateway, &workflow);
    asked.recv_timeout(PATIENCE).unwrap();
    reaches(&gateway, &run, "running");
    let gateway = gateway.crash_and_restart();
    let over = reaches(&gateway, &run, "failed");
    assert_eq!(over["error"]["kind"], "interrupted", "{over:#}");
    // The engine is well: another run of the same organisation ends.
    let fine = json!([
        { "id": "trigger", "type": "input", "next": "done" },
        { "id": "done", "type": "output", "fields": { "sum": "{{ 1 + 1 }}" } },
    ]);
    let run = enqueue(&gateway, &published(&gateway, fine));
    assert_eq!(reaches(&gateway, &run, "success")["output"], json!({ "sum": 2 }));
    assert!(asked.try_recv().is_err(), "the server was asked again");
    gateway.finish();
}

#[test]
fn what_is_done_after_a_conversation_is_done_once_though_the_program_is_killed_before_it() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let patient = [HERE, &[("fetch.timeout_seconds", "60")]].concat();
    let gateway = Gateway::with(&patient);
    gateway.number(NUMBER, &gateway.trunk("t", from_here()));
    let crm = Lookup::start(&json!({}));
    let steps = json!([
        { "id": "trigger", "type": "input", "next": "tell" },
        { "id": "tell", "type": "http", "method": "POST", "url": crm.url("/after"),
          "body": "{{ input.trigger }}", "next": "pause" },
        { "id": "pause", "type": "wait", "duration": 6, "unit": "seconds", "next": "done" },
        { "id": "done", "type": "output",
          "fields": { "how": "{{ input.trigger.end_reason.code }}" } },
    ]);
    let config = json!({ "runtime": echo(), "post_conversation_workflow": action(&steps) });
    agent_with(&gateway, &config, &json!({ "phone_numbers": [NUMBER] }));
    Sipp::new(&gateway, "call", NUMBER).passes();
    let record = gateway.ended_conversation();
    let of_it = format!("{RUNS}?conversation_id={}", record["id"].as_str().unwrap());
    let queued = gateway.rest().get(&of_it);
    assert_eq!(queued[0]["status"], "queued", "{queued:#}");
    assert!(crm.requests().is_empty());
    let gateway = gateway.crash_and_restart();
    let run = format!("{RUNS}/{}", queued[0]["execution_id"].as_str().unwrap());
    let waiting = reaches(&gateway, &run, "waiting");
    assert!(waiting["resume_at"].is_string(), "{waiting:#}");
    let over = reaches(&gateway, &run, "success");
    assert_eq!(over["output"], json!({ "how": "caller_hung_up" }));
    assert_eq!(over["conversation_id"], record["id"]);
    assert_eq!(gateway.rest().get(&of_it).as_array().unwrap().len(), 1);
    assert_eq!(crm.requests().len(), 1, "it was told once");
    gateway.finish();
}

#[test]
fn an_agent_that_is_being_made_when_the_program_is_killed_is_made_once() {
    let gateway = Gateway::with(HERE);
    let page = "<html><head><title>Lilac Bakery</title></head><body><h1>Bread</h1></body></html>";
    let (address, asked) = slow(1, ("text/html", page));
    let body = json!({ "company_website": format!("http://{address}/") });
    let begun = gateway.rest().post("/core/agents/create-demo", &body);
    let job = format!("/core/agents/scaffolding/{}", begun["workflow_id"].as_str().unwrap());
    asked.recv_timeout(PATIENCE).unwrap();
    reaches(&gateway, &job, "running");
    let gateway = gateway.crash_and_restart();
    let made = reaches(&gateway, &job, "completed");
    let agents = gateway.rest().get("/core/agents");
    assert_eq!(agents.as_array().map(Vec::len), Some(1), "{agents:#}");
    assert_eq!((&agents[0]["id"], &agents[0]["name"]), (&made["agent_id"], &json!("Lilac Bakery")));
    let agent = made["agent_id"].as_str().unwrap();
    let versions = gateway.rest().get(&format!("/core/agents/{agent}/versions"));
    assert_eq!(versions.as_array().map(Vec::len), Some(1), "{versions:#}");
    assert_eq!(versions[0]["published"], true);
    gateway.finish();
}

#[test]
fn instructions_that_are_being_written_when_the_program_is_killed_are_written() {
    let answer = r#"{"choices": [{"message": {"content": "You are Ada."}}]}"#;
    let (address, asked) = slow(1, ("application/json", answer));
    let base_url = format!("\"http://{address}/v1\"");
    let gateway = Gateway::with(&[("llm.base_url", &base_url), ("llm.model", "\"small\"")]);
    let rest = gateway.rest();
    let agent = rest.post("/core/agents", &json!({ "name": "Ada" }));
    let versions = format!("/core/agents/{}/versions", agent["id"].as_str().unwrap());
    let body =
        json!({ "config": {}, "instruction_builder_inputs": { "company_name": "Lilac Bakery" } });
    rest.post(&versions, &body);
    rest.post(&format!("{versions}/1/generate-instructions"), &json!({}));
    asked.recv_timeout(PATIENCE).unwrap();
    let path = format!("{versions}/1");
    assert_eq!(rest.get(&path)["instructions_status"], "generating");
    let gateway = gateway.crash_and_restart();
    let written = wait::until("instructions", PATIENCE, || {
        let version = gateway.rest().get(&path);
        (version["instructions_status"] == "idle").then_some(version)
    });
    assert_eq!(written["config"]["instructions"], "You are Ada.", "{written:#}");
    assert_eq!(written["instructions_source"], "model");
    gateway.finish();
}
