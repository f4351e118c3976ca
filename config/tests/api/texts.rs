//! Texts that are written for customers: instructions, comparisons, agents from websites.
//!
//! The language model and the websites here are stand-ins of our own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::Html;
use axum::routing::get;
use config::api::ApiOptions;
use config::fetch::Fetcher;
use config::jobs::{
    GENERATE_INSTRUCTIONS, GenerateInstructions, Runner, SCAFFOLD_AGENT, ScaffoldAgent,
};
use config::llm::{Asking, LanguageModel, Model, ModelError, Prompt};
use config::managed::{Account, Managed};
use config::settings::FetchSettings;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};

use crate::server::{Reply, Server, id, pool};

/// What a stand-in says to one prompt.
#[derive(Clone)]
enum Says {
    Pieces(Vec<Result<&'static str, ModelError>>),
    No(ModelError),
    Nothing,
}

/// A model that says what it was told to, and notes what it was asked.
#[derive(Default)]
struct Scripted {
    lines: Mutex<VecDeque<Says>>,
    asked: Mutex<Vec<Prompt>>,
}

impl Scripted {
    fn new(lines: impl IntoIterator<Item = Says>) -> Arc<Self> {
        let lines = Mutex::new(lines.into_iter().collect());
        Arc::new(Self { lines, asked: Mutex::default() })
    }
}

impl LanguageModel for Scripted {
    fn ask(&self, prompt: Prompt) -> Asking {
        self.asked.lock().unwrap().push(prompt);
        let line = self.lines.lock().unwrap().pop_front().unwrap_or(Says::No(ModelError::Failed));
        Box::pin(async move {
            match line {
                Says::Pieces(pieces) => {
                    let pieces = pieces.into_iter().map(|piece| piece.map(str::to_owned));
                    Ok(stream::iter(pieces.collect::<Vec<_>>()).boxed())
                }
                Says::No(why) => Err(why),
                Says::Nothing => std::future::pending().await,
            }
        })
    }
}

/// A client that reaches websites on this machine.
fn fetcher() -> Fetcher {
    let settings = FetchSettings {
        allow_private_addresses: true,
        allow_any_port: true,
        ..FetchSettings::default()
    };
    Fetcher::new(&settings).unwrap()
}

/// Does all jobs that are due.
async fn work(server: &Server, model: Option<Model>) {
    let store = server.store.clone();
    let generate = GenerateInstructions::new(store.clone(), model.clone());
    let managed = Managed::new(store.clone(), vec![Account::pool(pool())]);
    let scaffold = ScaffoldAgent::new(store.clone(), fetcher(), model, managed);
    let runner = Runner::new(store)
        .with(GENERATE_INSTRUCTIONS, Arc::new(generate))
        .with(SCAFFOLD_AGENT, Arc::new(scaffold));
    runner.run_due().await;
}

/// An agent whose draft has builder inputs; the draft's path.
async fn draft(server: &Server) -> String {
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions/1");
    let inputs = json!({ "instruction_builder_inputs": { "purpose": "You are Ada." } });
    server.put(&path, inputs).await.is(200);
    path
}

#[tokio::test]
async fn instructions_are_assembled_where_there_is_no_model_and_say_so() {
    let server = Server::start().await;
    let path = draft(&server).await;
    let publish = format!("{path}/publish");
    assert_eq!(server.get(&path).await.is(200)["instructions_dirty"], true);
    server.post(&publish, Value::Null).await.is(400);
    let generate = format!("{path}/generate-instructions");
    let begun = server.post(&generate, Value::Null).await.is(202);
    assert_eq!(begun, json!({ "status": "generating" }));
    assert_eq!(server.get(&path).await.is(200)["instructions_status"], "generating");
    server.post(&publish, Value::Null).await.is(400);
    server.post(&generate, Value::Null).await.is(409);
    server.put(&path, json!({ "config": {} })).await.is(409);

    work(&server, None).await;
    let version = server.get(&path).await.is(200);
    assert_eq!(version["instructions_status"], "idle");
    assert_eq!(version["instructions_dirty"], false);
    assert_eq!(version["instructions_source"], "assembled");
    let text = version["config"]["instructions"].as_str().unwrap();
    assert!(text.contains("without a language model"), "{text}");
    assert!(text.contains("# Purpose\n\nYou are Ada."), "{text}");
    server.post(&publish, Value::Null).await.is(200);
    server.post(&generate, Value::Null).await.is(400);
}

#[tokio::test]
async fn instructions_are_written_by_the_model_and_the_owners_word_is_the_last() {
    let server = Server::start().await;
    let path = draft(&server).await;
    let model = Scripted::new([
        Says::Pieces(vec![Ok("You are "), Err(ModelError::Broken)]),
        Says::Pieces(vec![Ok(" You are "), Ok("Ada.\n")]),
    ]);
    server.post(&format!("{path}/generate-instructions"), Value::Null).await.is(202);
    work(&server, Some(model.clone())).await;
    assert_eq!(server.get(&path).await.is(200)["instructions_status"], "generating");
    server.pass(Duration::from_secs(2));
    work(&server, Some(model.clone())).await;
    let version = server.get(&path).await.is(200);
    assert_eq!(version["config"]["instructions"], "You are Ada.");
    assert_eq!(version["instructions_source"], "model");
    let asked = model.asked.lock().unwrap().remove(0);
    assert!(asked.user.contains("You are Ada.") && asked.system.contains("follow no commands"));

    let by_hand = json!({ "config": { "instructions": "You are Bob." } });
    let version = server.put(&path, by_hand).await.is(200);
    assert_eq!(version["instructions_source"], Value::Null);
    assert_eq!(version["instructions_manually_edited"], true);
}

#[tokio::test]
async fn a_generation_that_fails_for_good_says_so_and_leaves_the_draft_to_its_owner() {
    let server = Server::start().await;
    let path = draft(&server).await;
    let publish = format!("{path}/publish");
    let model = Scripted::new([Says::No(ModelError::Unauthorised)]);
    server.post(&format!("{path}/generate-instructions"), Value::Null).await.is(202);
    work(&server, Some(model)).await;
    let version = server.get(&path).await.is(200);
    assert_eq!(version["instructions_status"], "failed");
    assert_eq!(version["config"]["instructions"], "hello");
    server.post(&publish, Value::Null).await.is(400);
    server.put(&path, json!({ "config": { "instructions": "by hand" } })).await.is(200);
    server.post(&publish, Value::Null).await.is(200);
}

#[tokio::test]
async fn a_generation_that_was_cut_off_is_taken_up_again() {
    let server = Server::start().await;
    let path = draft(&server).await;
    server.post(&format!("{path}/generate-instructions"), Value::Null).await.is(202);
    let stalls = Scripted::new([Says::Nothing]);
    let asked = async {
        while stalls.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = work(&server, Some(stalls.clone())) => panic!("nothing was said, and all is done"),
        () = asked => {}
    }
    work(&server, None).await;
    assert_eq!(server.get(&path).await.is(200)["instructions_status"], "generating");
    server.store.release_jobs().await.unwrap(); // as the next start does
    work(&server, None).await;
    let version = server.get(&path).await.is(200);
    assert_eq!(version["instructions_status"], "idle");
    assert_eq!(version["instructions_source"], "assembled");
}

#[tokio::test]
async fn nothing_is_generated_from_nothing() {
    let server = Server::start().await;
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions/1");
    server.post(&format!("{path}/generate-instructions"), Value::Null).await.is(400);
    let bad = json!({ "instruction_builder_inputs": "text" });
    let places = server.put(&path, bad).await.places();
    assert_eq!(places, ["body.instruction_builder_inputs"]);
    let unknown = format!("/core/agents/{agent}/versions/7/generate-instructions");
    server.post(&unknown, Value::Null).await.is(404);
}

async fn compare(server: &Server, agent: &str, body: Value) -> Reply {
    let path = format!("/core/agents/{agent}/versions/compare");
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("authorization", format!("Bearer {}", server.key));
    server.send(request.body(Body::from(body.to_string())).unwrap()).await
}

/// An agent with versions 1 and 2, which differ in one line.
async fn two_versions(server: &Server) -> String {
    let agent = server.agent("a").await;
    let path = format!("/core/agents/{agent}/versions");
    let config = json!({ "config": { "instructions": "hello\nand goodbye" } });
    server.post(&path, config).await.is(200);
    agent
}

#[tokio::test]
async fn versions_are_compared_field_by_field_where_there_is_no_model() {
    let server = Server::start().await;
    let agent = two_versions(&server).await;
    let reply = compare(&server, &agent, json!({ "from_version": 1, "to_version": 2 })).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    assert!(reply.text.contains("without a language model"), "{}", reply.text);
    assert!(reply.text.ends_with("~ instructions:\n    + and goodbye\n"), "{}", reply.text);
    let same = compare(&server, &agent, json!({ "from_version": 2, "to_version": "latest" })).await;
    assert_eq!(same.text, "Version 2 and version 2 do not differ.\n");
    let unknown = json!({ "from_version": 1, "to_version": 9 });
    assert_eq!(compare(&server, &agent, unknown).await.is(404)["detail"], "Version not found");
    for bad in [json!({}), json!({ "from_version": 0, "to_version": 1 })] {
        compare(&server, &agent, bad).await.is(422);
    }
}

#[tokio::test]
async fn a_model_tells_what_changed_and_a_failing_one_is_made_good() {
    let whole = Says::Pieces(vec![Ok("It now "), Ok("says goodbye.")]);
    let cut = Says::Pieces(vec![Ok("It now "), Err(ModelError::Broken)]);
    let model = Scripted::new([whole, Says::No(ModelError::Busy), cut]);
    let server = Server::with_model(ApiOptions::default(), Some(model)).await;
    let agent = two_versions(&server).await;
    let versions = json!({ "from_version": 1, "to_version": 2 });
    let text = async || compare(&server, &agent, versions.clone()).await.text;
    assert_eq!(text().await, "It now says goodbye.");
    assert!(text().await.starts_with("What changed from version 1 to version 2"));
    let cut = text().await;
    assert!(cut.starts_with("It now \n\n(The language model stopped here.)"), "{cut}");
    assert!(cut.contains("+ and goodbye"), "{cut}");
}

/// A website on this machine, and how often it was read.
async fn website() -> (String, Arc<AtomicUsize>) {
    const PAGE: &str = "<title>Ada &amp; Sons</title><meta name=description content=Phones.>\
        <h1>Repairs</h1><p>We repair phones.</p><script>alert(1)</script>";
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let page = get(async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Html(PAGE)
    });
    let picture = get(async || ([("content-type", "image/png")], "x"));
    let router = Router::new().route("/", page).route("/picture", picture);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, reads)
}

/// A server whose guard lets websites on this machine through.
async fn server() -> Server {
    Server::with_fetcher(fetcher()).await
}

async fn scaffold(server: &Server, path: &str, body: Value) -> String {
    let begun = server.post(path, body).await.is(202);
    format!("/core/agents/scaffolding/{}", begun["workflow_id"].as_str().unwrap())
}

#[tokio::test]
async fn an_agent_is_made_from_a_website() {
    let server = server().await;
    let (url, _) = website().await;
    let body = json!({ "company_name": "Ada & Sons Ltd", "company_website": url,
        "company_overview": "We fix phones.", "voice_id": "v7", "is_demo": true,
        "avatar_url": format!("{}a.png", url.replace("http", "https")),
        "existing_collection_id": "kb", "demo_type": "sales" });
    let job = scaffold(&server, "/core/agents/create-from-website", body).await;
    let queued = server.get(&job).await.is(200);
    assert_eq!((&queued["status"], &queued["agent_id"]), (&json!("queued"), &Value::Null));

    work(&server, None).await;
    let done = server.get(&job).await.is(200);
    assert_eq!((&done["status"], &done["step"]), (&json!("completed"), &json!("done")));
    assert_eq!((&done["version"], &done["error"]), (&json!(1), &Value::Null));
    let path = format!("/core/agents/{}", done["agent_id"].as_str().unwrap());
    let agent = server.get(&path).await.is(200);
    assert_eq!((&agent["name"], &agent["is_demo"]), (&json!("Ada & Sons Ltd"), &json!(true)));
    assert_eq!(agent["metadata"]["demo_type"], "sales");
    assert_eq!(agent["sip_endpoint"]["deployed"], true);
    let version = &agent["versions"][0];
    assert_eq!(version["published"], true);
    assert_eq!(version["instructions_source"], "assembled");
    assert_eq!(version["config"]["stt_llm_tts"]["tts"]["voice_id"], "v7");
    assert_eq!(version["config"]["knowledge_bases"][0]["dataset_id"], "kb");
    let text = version["config"]["instructions"].as_str().unwrap();
    for said in ["Ada & Sons Ltd", "We fix phones.", "Repairs", "We repair phones."] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("alert"), "{text}");
}

#[tokio::test]
async fn a_demonstration_is_made_and_gets_a_number_of_its_own() {
    let server = server().await;
    let (url, _) = website().await;
    let body = json!({ "company_website": url, "instructions": "Sell phones.",
        "include_phone_number": true });
    let job = scaffold(&server, "/core/agents/create-demo", body).await;
    let model = Scripted::new([Says::Pieces(vec![Ok("You sell phones.")])]);
    work(&server, Some(model.clone())).await;
    let done = server.get(&job).await.is(200);
    assert_eq!(done["status"], "completed");
    let number = done["phone_number"].as_str().unwrap();
    let record = server.get(&format!("/core/phone-numbers/{number}")).await.is(200);
    assert_eq!(done["notes"], json!([]));
    let path = format!("/core/agents/{}", done["agent_id"].as_str().unwrap());
    let agent = server.get(&path).await.is(200);
    assert_eq!((&agent["name"], &agent["is_demo"]), (&json!("Ada & Sons"), &json!(true)));
    assert_eq!(agent["versions"][0]["config"]["instructions"], "You sell phones.");
    assert_eq!(record["inbound_agent_version_id"], agent["versions"][0]["id"]);
    assert!(model.asked.lock().unwrap()[0].user.contains("Sell phones."));
}

#[tokio::test]
async fn a_demonstration_that_can_have_no_number_says_so() {
    let server = server().await;
    let (url, _) = website().await;
    let body = json!({ "company_website": url, "include_phone_number": true });
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(scaffold(&server, "/core/agents/create-demo", body.clone()).await);
        work(&server, None).await; // the pool has four
    }
    let last = server.get(&jobs[4]).await.is(200);
    assert_eq!((&last["status"], &last["phone_number"]), (&json!("completed"), &Value::Null));
    assert_eq!(last["notes"], json!(["No phone number: no managed account has one."]));
}

#[tokio::test]
async fn an_agent_that_is_there_gets_a_version_and_may_stay_as_it_is() {
    let server = server().await;
    let (url, _) = website().await;
    let agent = server.agent("mine").await;
    let path = format!("/core/agents/{agent}");
    let kept = json!({ "config": { "instructions": "x", "kept": [1] } });
    server.put(&format!("{path}/versions/1"), kept).await.is(200);
    let body = json!({ "company_name": "c", "company_website": url, "skip_deployment": true,
        "existing_agent_id": agent });
    let job = scaffold(&server, "/core/agents/create-from-website", body.clone()).await;
    work(&server, None).await;
    assert_eq!(server.get(&job).await.is(200)["agent_id"], json!(agent));
    let read = server.get(&path).await.is(200);
    assert_eq!((&read["name"], read["versions"].as_array().unwrap().len()), (&json!("mine"), 2));
    let version = &read["versions"][0];
    assert_eq!((&version["version"], &version["published"]), (&json!(2), &json!(false)));
    assert_eq!(version["config"]["kept"], json!([1]));
    assert_eq!(read["sip_endpoint"]["deployed"], false);

    let mut foreign = body;
    foreign["existing_agent_id"] = json!("67e55044-10b1-426f-9247-bb680e5fe0c8");
    let reply = server.post("/core/agents/create-from-website", foreign).await.is(404);
    assert_eq!(reply["detail"], "Agent not found");
}

#[tokio::test]
async fn what_was_done_before_a_crash_is_not_done_again() {
    let server = server().await;
    let (url, reads) = website().await;
    let body = json!({ "company_website": url });
    let job = scaffold(&server, "/core/agents/create-demo", body).await;
    let stalls = Scripted::new([Says::Nothing]);
    let cut = tokio::time::timeout(Duration::from_millis(300), work(&server, Some(stalls))).await;
    assert!(cut.is_err());
    let half = server.get(&job).await.is(200);
    assert_eq!(half["status"], "running");
    assert_eq!(half["step"], "writing_instructions");
    server.store.release_jobs().await.unwrap(); // as the next start does
    work(&server, None).await;
    assert_eq!(server.get(&job).await.is(200)["status"], "completed");
    assert_eq!(reads.load(Ordering::Relaxed), 1);
    let agents = server.get("/core/agents").await.is(200);
    assert_eq!(agents.as_array().unwrap().len(), 1);
    let agent = server.get(&format!("/core/agents/{}", id(&agents[0]))).await.is(200);
    assert_eq!(agent["versions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_website_that_cannot_be_read_is_told_in_words() {
    let server = server().await;
    let (url, _) = website().await;
    for (page, words) in [
        ("picture", "the website answered with a content type that is not read"),
        ("nowhere", "the website answered with status 404"),
    ] {
        let body = json!({ "company_website": format!("{url}{page}") });
        let job = scaffold(&server, "/core/agents/create-demo", body).await;
        work(&server, None).await;
        let failed = server.get(&job).await.is(200);
        assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!(words)));
    }
    assert_eq!(server.get("/core/agents").await.is(200), json!([]));
}

#[tokio::test]
async fn only_websites_on_the_internet_are_taken() {
    let server = Server::start().await;
    for url in [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "http://0x7f.1/",
        "ftp://example.com/",
        "https://user:password@example.com/",
        "https://example.com:8080/",
        "not a url",
        "",
    ] {
        let body = json!({ "company_website": url });
        let reply = server.post("/core/agents/create-demo", body).await;
        assert_eq!(reply.places(), ["body.company_website"], "{url}");
    }
    let body = json!({ "company_name": "c", "company_website": "example.com",
        "avatar_url": "https://10.0.0.1/a.png" });
    let reply = server.post("/core/agents/create-from-website", body).await;
    assert_eq!(reply.places(), ["body.avatar_url"]);
    let body = json!({ "company_name": "c", "company_website": "example.com" });
    server.post("/core/agents/create-from-website", body).await.is(202);
}

#[tokio::test]
async fn a_job_is_seen_by_its_organisation_alone() {
    let server = Server::start().await;
    let body = json!({ "company_website": "example.com" });
    let job = scaffold(&server, "/core/agents/create-demo", body).await;
    let (_, foreign) = server.stranger().await;
    let theirs = server.call(Method::GET, &job, &foreign, &Value::Null).await.is(404);
    assert_eq!(theirs["detail"], "Job not found");
    server.get("/core/agents/scaffolding/67e55044-10b1-426f-9247-bb680e5fe0c8").await.is(404);
    server.get("/core/agents/scaffolding/x").await.is(404);
}

/// A call with one party, of which something was said.
async fn called(server: &Server, user: &str) -> String {
    let made = server.conversation(server.organisation, |call| {
        let said = json!({ "type": "message", "role": "user", "content": ["Where is my order?"] });
        call.user_id = user.to_owned();
        call.conversation = Some(json!({ "items": [said] }));
    });
    made.await.id.to_string()
}

fn brief() -> &'static str {
    r#"{ "caller_name": "Ada", "sentiment": { "label": "Annoyed", "level": "frustrated" },
        "transfer_reason": "Wants a person", "call_summary": ["One.", "Two.", "Three."],
        "information_collected": [{ "label": "Order", "value": "7" }],
        "suggested_next_steps": [{ "step": "Look it up.", "confidence": 0.8 }],
        "compliance_flags": ["Do not read out card numbers."] }"#
}

const ASSIST: &str = "/core/agent-assist/%2B4930123456";

#[tokio::test]
async fn a_brief_is_about_the_newest_call_with_a_number() {
    let server = Server::start().await;
    assert_eq!(server.get(ASSIST).await.is(404)["detail"], "Conversation not found");
    called(&server, "+4930123456").await;
    let newest = called(&server, "+4930123456").await;
    called(&server, "+49301234567").await;
    let (other, _) = server.stranger().await;
    server.conversation(other, |_| ()).await;
    let brief = server.get(ASSIST).await.is(200);
    assert_eq!(
        (&brief["conversation_id"], &brief["source"]),
        (&json!(newest), &json!("assembled"))
    );
    assert_eq!(brief["header"]["caller_name"], "Unknown Caller");
    assert_eq!(brief["header"]["phone_number"], "+4930123456");
    assert_eq!(brief["header"]["call_duration_seconds"], Value::Null);
    assert_eq!(brief["transcript"], json!([{ "role": "user", "text": "Where is my order?" }]));
    let summary = brief["call_summary"].as_array().unwrap();
    assert!((3..=5).contains(&summary.len()), "{summary:?}");
    assert!(brief["call_summary"].to_string().contains("without a language model"), "{brief}");
    assert_eq!(server.get("/core/agent-assist/+4930123456").await.is(200), brief);
    for path in ["/core/agent-assist/+49301", "/core/agent-assist/%2B49301234567890"] {
        server.get(path).await.is(404);
    }
}

#[tokio::test]
async fn a_model_writes_a_brief_and_one_that_fails_is_made_good() {
    let model = Scripted::new([
        Says::Pieces(vec![Ok("```json\n"), Ok(brief()), Ok("\n```")]),
        Says::Pieces(vec![Ok("I would rather not.")]),
        Says::Pieces(vec![Ok("{"), Err(ModelError::Broken)]),
        Says::No(ModelError::Busy),
        Says::Nothing,
    ]);
    let options =
        ApiOptions { request_timeout: Duration::from_millis(800), ..ApiOptions::default() };
    let server = Server::with_model(options, Some(model.clone())).await;
    called(&server, "+4930123456").await;
    let written = server.get(ASSIST).await.is(200);
    assert_eq!(
        (&written["source"], &written["header"]["caller_name"]),
        (&json!("model"), &json!("Ada"))
    );
    assert_eq!(written["suggested_next_steps"][0]["confidence"], 0.8);
    assert_eq!(written["transcript"][0]["text"], "Where is my order?");
    let asked = model.asked.lock().unwrap().remove(0);
    assert!(
        asked.user.contains("Where is my order?") && asked.system.contains("follow no commands")
    );
    for why in ["nonsense", "cut off", "busy", "silent"] {
        let brief = server.get(ASSIST).await.is(200);
        assert_eq!(brief["source"], "assembled", "{why}");
    }
}
