//! Workflows with real worker processes: what customers' code can do to them, and to each other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::ids::OrganisationId;
use config::workflows::{Definition, FailureKind, Outcome, Rejected, RunRequest, Running, Stopped};
use gateway::clock;
use gateway::workflow::{Engine, EngineOptions, HttpAnswer, HttpRequest, Outside};
use serde_json::{Value, json};

/// A world that answers every request with what it was asked.
struct Mirror;

impl Outside for Mirror {
    fn fetch(&self, request: HttpRequest) -> Running<'_, Result<HttpAnswer, String>> {
        let body = json!({"method": request.method, "url": request.url}).to_string();
        Box::pin(async move {
            Ok(HttpAnswer { status: 200, headers: Vec::new(), body: body.into_bytes() })
        })
    }

    fn ask(&self, prompt: String) -> Running<'_, Result<String, String>> {
        Box::pin(async move { Ok(prompt.trim().to_uppercase()) })
    }
}

fn options(workers: usize, limit_ms: u64) -> EngineOptions {
    EngineOptions {
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_trunkline"))),
        workers,
        queue: 64,
        memory_mib: 64,
        limit: Duration::from_millis(limit_ms),
    }
}

fn engine_with(workers: usize, limit_ms: u64) -> Engine {
    Engine::new(options(workers, limit_ms), Arc::new(Mirror))
}

fn engine() -> Engine {
    engine_with(2, 1_000)
}

fn request(steps: Value, input: Value) -> RunRequest {
    RunRequest {
        organisation: OrganisationId::random(),
        definition: Definition::parse(&json!({ "steps": steps })).unwrap().definition,
        input,
        initial_step: None,
        limit: Duration::from_secs(20),
    }
}

/// One step of code whose output is the run's.
fn code(source: &str) -> RunRequest {
    request(
        json!([
            {"id": "n1", "type": "code", "code": source, "next": "out"},
            {"id": "out", "type": "output", "fields": {"value": "{{ n1 }}"}},
        ]),
        json!({}),
    )
}

fn failure(outcome: Outcome) -> (String, String) {
    let failure = outcome.result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Threw, "{failure:?}");
    (failure.step_name, failure.message)
}

async fn works(engine: &Engine) {
    let outcome = engine.run(code("def run(ctx):\n    return 'well'")).await;
    assert_eq!(outcome.result, Ok(json!({"value": "well"})));
}

#[tokio::test]
async fn a_whole_workflow_runs() {
    let steps = json!([
        {"id": "trigger", "type": "input", "next": "n1"},
        {"id": "n1", "name": "Who calls", "type": "condition", "default": "no", "branches": [
            {"label": "vip", "when": "{{ $substring(input.caller_number, 0, 4) = '+155' }}", "next": "n2"}]},
        {"id": "n2", "name": "Look up", "type": "http", "next": "n3",
            "url": "https://crm.example/find", "query": {"q": "{{ input.caller_number }}"}},
        {"id": "n3", "type": "code", "next": "yes",
            "code": "import json\ndef run(ctx):\n    return {'seen': ctx['Look up']['body']['url'], 'label': ctx['Who calls']}"},
        {"id": "yes", "type": "output", "fields": {
            "seen": "{{ n3.seen }}", "label": "{{ n3.label }}", "status": "{{ `Look up`.status_code }}",
            "hello": "${ greet {{ input.caller_number }} }"}},
        {"id": "no", "type": "output", "fields": {"reject": true}},
    ]);
    let engine = engine();
    let outcome = engine.run(request(steps.clone(), json!({"caller_number": "+15550001"}))).await;
    let expected = json!({
        "seen": "https://crm.example/find?q=%2B15550001", "label": "vip", "status": 200,
        "hello": "GREET +15550001",
    });
    assert_eq!(outcome.result, Ok(expected));
    assert_eq!(outcome.trace.len(), 5);
    let outcome = engine.run(request(steps, json!({"caller_number": "+4930"}))).await;
    assert_eq!(outcome.result, Ok(json!({"reject": true})));
}

#[tokio::test]
async fn an_endless_loop_fails_its_step_in_time() {
    let engine = engine();
    let began = clock::now();
    let (step, why) = failure(engine.run(code("def run(ctx):\n    while True: pass")).await);
    assert_eq!(step, "n1");
    assert!(why.contains("time limit") || why.contains("longer than"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    works(&engine).await;
}

#[tokio::test]
async fn what_does_not_look_at_the_clock_is_ended_from_outside() {
    let engine = engine();
    let slow = "{{ $match('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!', /^(a+)+$/) }}";
    let steps = json!([{"id": "out", "type": "output", "fields": {"value": slow}}]);
    let began = clock::now();
    let _either_way = engine.run(request(steps, json!({}))).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let power = "def run(ctx):\n    x = 7\n    while True:\n        x = x ** 3\n";
    assert!(engine.run(code(power)).await.result.is_err());
    works(&engine).await;
}

#[tokio::test]
async fn a_memory_bomb_takes_its_worker_and_nothing_else() {
    let engine = engine();
    for bomb in [
        "def run(ctx):\n    x = 'x' * 1000\n    while True:\n        x = x + x",
        "def run(ctx):\n    return len([0] * 10000000000)",
        "def run(ctx):\n    x = []\n    while True:\n        x.append('y' * 100000)",
    ] {
        let (step, why) = failure(engine.run(code(bomb)).await);
        assert_eq!(step, "n1", "{why}");
        works(&engine).await;
    }
    let bomb = "{{ $pad('x', 3000000000) }}";
    let steps = json!([{"id": "out", "type": "output", "fields": {"value": bomb}}]);
    assert!(engine.run(request(steps, json!({}))).await.result.is_err());
    works(&engine).await;
}

#[tokio::test]
async fn deep_recursion_and_deep_values_do_no_harm() {
    let engine = engine();
    for deep in [
        "def run(ctx):\n    return run(ctx)",
        "def run(ctx):\n    x = []\n    for i in range(100000):\n        x = [x]\n    return x",
        "def run(ctx):\n    x = []\n    x.append(x)\n    return x",
    ] {
        let outcome = engine.run(code(deep)).await;
        assert!(outcome.result.is_err(), "{outcome:?}");
        works(&engine).await;
    }
    for deep in [
        "{{ ($f := function($n) { [$f($n + 1)] }; $f(0)) }}",
        "{{ $reduce([1..50000], function($a, $b) { {'a': $a} }, {}) }}",
    ] {
        let steps = json!([{"id": "out", "type": "output", "fields": {"value": deep}}]);
        let outcome = engine.run(request(steps, json!({}))).await;
        assert!(outcome.result.is_err(), "{outcome:?}");
        works(&engine).await;
    }
}

#[tokio::test]
async fn a_huge_output_fails_its_step() {
    let engine = engine();
    let (_, why) = failure(engine.run(code("def run(ctx):\n    return 'x' * 1000000")).await);
    assert!(why.contains("more than"), "{why}");
    works(&engine).await;
}

/// A worker of this program that was given so much memory: its folder under `/proc`, and whether it
/// computes at the moment.
fn find_worker(memory_mib: u32) -> Option<(PathBuf, bool)> {
    let ours = std::process::id().to_string();
    let command = format!("workflow-worker\0{memory_mib}\0");
    let fields = |stat: PathBuf| -> Option<(String, String)> {
        let stat = std::fs::read_to_string(stat).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace().map(str::to_owned);
        fields.next().zip(fields.next())
    };
    std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        let (_, parent) = fields(path.join("stat"))?;
        let found = std::fs::read_to_string(path.join("cmdline")).ok()?.ends_with(&command);
        if parent != ours || !found {
            return None;
        }
        let mut threads = std::fs::read_dir(path.join("task")).ok()?.flatten();
        let computes = threads.any(|thread| {
            fields(thread.path().join("stat")).is_some_and(|(state, _)| state == "R")
        });
        Some((path, computes))
    })
}

#[tokio::test]
async fn a_worker_can_open_nothing_and_start_nothing() {
    let engine = Engine::new(EngineOptions { memory_mib: 65, ..options(1, 300) }, Arc::new(Mirror));
    works(&engine).await;
    let (worker, _) = find_worker(65).expect("the worker waits for its next task");
    let status = std::fs::read_to_string(worker.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(field("Seccomp:"), "2", "a filter is in place");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(std::fs::read(worker.join("environ")).unwrap(), b"", "no environment");
    let limits = std::fs::read_to_string(worker.join("limits")).unwrap();
    for none in ["Max file size", "Max core file size", "Max processes", "Max open files"] {
        let line = limits.lines().find(|line| line.starts_with(none)).unwrap();
        assert_eq!(line[none.len()..].split_whitespace().next(), Some("0"), "{line}");
    }
    let mut open: Vec<_> = std::fs::read_dir(worker.join("fd")).unwrap().flatten().collect();
    open.sort_by_key(std::fs::DirEntry::file_name);
    let open: Vec<_> = open.iter().map(|entry| entry.file_name()).collect();
    assert_eq!(open, ["0", "1", "2"], "no descriptors of ours");
}

#[tokio::test]
async fn a_killed_worker_fails_one_step_and_is_replaced() {
    let options = EngineOptions { memory_mib: 66, ..options(1, 5_000) };
    let engine = Engine::new(options, Arc::new(Mirror));
    works(&engine).await;
    let looping = tokio::spawn({
        let engine = engine.clone();
        async move { engine.run(code("def run(ctx):\n    while True: pass")).await }
    });
    let began = clock::now();
    let worker = loop {
        assert!(began.elapsed() < Duration::from_secs(4), "no worker computes");
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some((worker, true)) = find_worker(66) {
            break worker;
        }
    };
    let id = worker.file_name().unwrap();
    assert!(std::process::Command::new("kill").arg("-9").arg(id).status().unwrap().success());
    let (step, why) = failure(looping.await.unwrap());
    assert_eq!((&*step, &*why), ("n1", "the worker was stopped"));
    works(&engine).await;
}

#[tokio::test]
async fn loops_of_one_organisation_leave_others_their_workers() {
    let engine = engine_with(4, 15_000);
    let hostile = OrganisationId::random();
    let mut loops = Vec::new();
    for _ in 0..12 {
        let engine = engine.clone();
        let request =
            RunRequest { organisation: hostile, ..code("def run(ctx):\n    while True: pass") };
        loops.push(tokio::spawn(async move { engine.run(request).await }));
    }
    works(&engine).await;
    let began = clock::now();
    for _ in 0..10 {
        works(&engine).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for task in loops {
        task.abort();
    }
}

#[tokio::test]
async fn a_full_queue_says_busy() {
    let engine = Engine::new(EngineOptions { queue: 1, ..options(1, 500) }, Arc::new(Mirror));
    let endless = || async { engine.run(code("def run(ctx):\n    while True: pass")).await };
    let outcomes = tokio::join!(endless(), endless(), endless());
    let kinds =
        [outcomes.0, outcomes.1, outcomes.2].map(|outcome| outcome.result.unwrap_err().kind);
    assert_eq!(kinds.iter().filter(|kind| **kind == FailureKind::Busy).count(), 1, "{kinds:?}");
    works(&engine).await;
}

#[tokio::test]
async fn a_run_in_the_background_waits_while_the_queue_is_full() {
    let engine = Engine::new(EngineOptions { queue: 1, ..options(1, 500) }, Arc::new(Mirror));
    let others = std::array::from_fn::<_, 2, _>(|_| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.run(code("def run(ctx):\n    while True: pass")).await })
    });
    for _ in 0..50 {
        tokio::task::yield_now().await; // they have the worker, and the only place to wait
    }
    let quick = || code("def run(ctx):\n    return 7");
    assert_eq!(engine.run(quick()).await.result.unwrap_err().kind, FailureKind::Busy);
    let in_the_background = async |limit: Duration| {
        let stopped = engine.advance(RunRequest { limit, ..quick() }, None).await;
        let Stopped::Ended(outcome) = stopped else { panic!("{stopped:?}") };
        outcome.result.map_err(|failure| failure.kind)
    };
    let short = in_the_background(Duration::from_millis(50)).await;
    assert_eq!(short, Err(FailureKind::TimedOut));
    let patient = in_the_background(Duration::from_secs(20)).await;
    assert_eq!(patient, Ok(json!({ "value": 7 })));
    for other in others {
        assert!(other.await.unwrap().result.is_err());
    }
}

#[tokio::test]
async fn the_deadline_of_the_run_ends_waits_and_code_alike() {
    let engine = engine_with(2, 5_000);
    let began = clock::now();
    let limit = Duration::from_millis(300);
    let loops = RunRequest { limit, ..code("def run(ctx):\n    while True: pass") };
    let steps = json!([
        {"id": "w", "type": "wait", "duration": 0.2, "next": "w"},
        {"id": "out", "type": "output"},
    ]);
    assert!(Definition::parse(&json!({ "steps": steps })).is_err(), "no output can be reached");
    let steps = json!([
        {"id": "w", "type": "wait", "duration": 0.2, "next": "c"},
        {"id": "c", "type": "condition", "default": "w",
            "branches": [{"label": "done", "when": "{{ false }}", "next": "out"}]},
        {"id": "out", "type": "output"},
    ]);
    let waits = RunRequest { limit, ..request(steps, json!({})) };
    for request in [loops, waits] {
        let failure = engine.run(request).await.result.unwrap_err();
        // The code gives up by itself a moment before; either way it was the time.
        let timed = failure.kind == FailureKind::TimedOut || failure.message.contains("time");
        assert!(timed, "{failure:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_run_in_the_background_is_put_aside_at_a_long_wait() {
    let steps = json!([
        {"id": "n1", "type": "code", "code": "def run(ctx):\n    return 7", "next": "w"},
        {"id": "w", "type": "wait", "duration": 1, "unit": "hours", "next": "out"},
        {"id": "out", "type": "output", "fields": {"n": "{{ n1 }}", "w": "{{ w.waited_seconds }}"}},
    ]);
    let engine = engine();
    let request = RunRequest { limit: Duration::from_secs(7_200), ..request(steps, json!({})) };
    let Stopped::Waiting { time, checkpoint } = engine.advance(request.clone(), None).await else {
        panic!("an hour is long");
    };
    assert!(time > Duration::from_secs(3_500), "{time:?}");
    // Where whoever ends a run that was cut short finds its steps.
    assert_eq!(
        checkpoint.pointer("/progress/trace").map(|trace| trace[0]["step"].clone()),
        Some(json!("n1"))
    );
    let Stopped::Ended(outcome) = engine.advance(request, Some(checkpoint)).await else {
        panic!("the wait is over");
    };
    assert_eq!(outcome.result, Ok(json!({"n": 7, "w": 3600})));
    assert_eq!(outcome.trace.len(), 3);
}

#[tokio::test]
async fn a_definition_is_checked_down_to_its_code() {
    let definition = json!({"steps": [
        {"id": "c", "type": "condition", "default": "out",
            "branches": [{"label": "a", "when": "{{ input.( }}", "next": "p"}]},
        {"id": "p", "type": "code", "code": "import requests\ndef run(ctx): return 1", "next": "x"},
        {"id": "x", "type": "app", "action": "send_fax", "next": "out"},
        {"id": "out", "type": "output", "fields": {"deep": {"er": ["{{ ok }}", "a {{ $ok( }} b"]}}},
    ]});
    let engine = engine();
    let checked = engine.check(OrganisationId::random(), &definition).await;
    let Err(Rejected::Faults(faults)) = checked else { panic!("{checked:?}") };
    let mut places: Vec<_> = faults.iter().map(|fault| fault.place.as_str()).collect();
    places.sort_unstable();
    let expected =
        ["steps[0].branches[0].when", "steps[1].code", "steps[2].action", "steps[3].fields.deep"];
    assert_eq!(places, expected, "{faults:?}");
    let deep = format!("{{{{ {} }}}}", "(".repeat(8_000));
    let definition = json!({"steps": [{"id": "out", "type": "output", "fields": {"a": deep}}]});
    assert!(engine.check(OrganisationId::random(), &definition).await.is_err());
    works(&engine).await;
}
