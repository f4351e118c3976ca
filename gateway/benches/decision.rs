//! How long a workflow takes to decide who answers: three steps, two of them with expressions that a
//! worker process evaluates, nothing over the network. Prints the median and the 99th percentile.
//!
//! `cargo bench -p trunkline --bench decision`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::ids::OrganisationId;
use config::workflows::{Definition, RunRequest, Running};
use gateway::clock;
use gateway::workflow::{Engine, EngineOptions, HttpAnswer, HttpRequest, Outside};
use serde_json::json;

const RUNS: usize = 20_000;
const WARM_UP: usize = 500;

struct Nothing;

impl Outside for Nothing {
    fn fetch(&self, _: HttpRequest) -> Running<'_, Result<HttpAnswer, String>> {
        Box::pin(async { Err("nothing is out there".to_owned()) })
    }

    fn ask(&self, _: String) -> Running<'_, Result<String, String>> {
        Box::pin(async { Err("nobody is out there".to_owned()) })
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(measure());
}

async fn measure() {
    let options = EngineOptions {
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_trunkline"))),
        workers: 2,
        queue: 64,
        memory_mib: 128,
        limit: Duration::from_secs(2),
    };
    let engine = Engine::new(options, Arc::new(Nothing));
    let definition = json!({"steps": [
        {"id": "trigger", "type": "input", "next": "n1"},
        {"id": "n1", "type": "condition", "default": "n3", "branches": [
            {"label": "vip", "when": "{{ input.caller_number = '+15550001' }}", "next": "n2"}]},
        {"id": "n2", "type": "output", "fields": {"agent_id": "{{ input.organization_id }}"}},
        {"id": "n3", "type": "output", "fields": {"reject": true}}]});
    let definition = Definition::parse(&definition).expect("it is a definition").definition;
    let organisation = OrganisationId::random();
    let mut times = Vec::with_capacity(RUNS);
    for run in 0..RUNS + WARM_UP {
        let request = RunRequest {
            organisation,
            definition: Arc::clone(&definition),
            input: json!({"caller_number": "+15550001", "called_number": "+15550002",
                "organization_id": organisation, "timestamp": "2026-01-01T00:00:00Z"}),
            initial_step: None,
            limit: Duration::from_secs(10),
        };
        let began = clock::now();
        let outcome = engine.run(request).await;
        let took = began.elapsed();
        assert!(outcome.result.is_ok(), "{outcome:?}");
        if run >= WARM_UP {
            times.push(took);
        }
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 1_000).copied().unwrap_or_default();
    println!("decision: p50 {:?}  p99 {:?}  p99.9 {:?}  of {RUNS}", at(500), at(990), at(999));
}
