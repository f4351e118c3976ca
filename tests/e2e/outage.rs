//! The store is away while calls come and go: calls notice nothing, the API says 503 and why, and a few
//! seconds after the store is back everything is as it should be.
//!
//! `TRUNKLINE_OUTAGE_SECONDS` makes the outages longer than the usual 6 seconds.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::postgres::{PASSWORD, Postgres};
use support::process::Process;
use support::sipp::Sipp;
use support::{Gateway, Line, peer, wait};

/// How soon after an outage the API writes and records are complete.
const RECOVERY: Duration = Duration::from_secs(5);

/// Calls in each batch during an outage.
const BATCH: u32 = 5;

fn outage() -> Duration {
    let seconds = std::env::var("TRUNKLINE_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(6))
}

fn create(gateway: &Gateway) -> (u16, Value) {
    let reply = gateway.rest().send("POST", "/core/trunks", Some(&json!({ "name": "t" })));
    (reply.status, reply.json())
}

/// Calls in batches until the outage has lasted long enough; how many calls there were.
fn call_through(gateway: &Gateway, line: &Line, reasons: &[&str]) -> usize {
    let (mut calls, mut lasted) = (0, Duration::ZERO);
    while lasted < outage() {
        let (took, ()) = wait::timed(|| {
            Sipp::new(gateway, "call", &line.number).calls(BATCH).passes();
            let (status, body) = create(gateway);
            assert_eq!(status, 503, "{body}");
            let detail = body["detail"].as_str().unwrap();
            assert!(reasons.iter().any(|reason| detail.contains(reason)), "{detail}");
        });
        calls += usize::try_from(BATCH).unwrap();
        lasted += took;
    }
    calls
}

/// The API writes again, and every call of the outage is recorded.
fn is_back(gateway: &Gateway, calls: usize) {
    let (took, ()) = wait::timed(|| {
        wait::until("the API writes again", RECOVERY, || (create(gateway).0 == 200).then_some(()));
        wait::until("health is good again", RECOVERY, || {
            (gateway.health() == (200, "ready".to_owned())).then_some(())
        });
        let records = gateway.ended_conversations(calls);
        assert!(records.iter().all(|record| record["status"] == "completed"), "{records:#?}");
    });
    assert!(took <= RECOVERY, "{took:?}");
}

fn over(server: &Postgres) -> Gateway {
    Gateway::with(&[("store.url", &server.setting())])
}

/// A password must not be in a log, whatever went wrong with the server.
fn finish(gateway: Gateway) {
    assert!(!gateway.log().concat().contains(PASSWORD));
    gateway.finish();
}

#[test]
fn calls_go_on_while_the_file_is_locked_and_are_recorded_afterwards() {
    if !peer::have(&["sipp", "python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let line = gateway.echo_line();
    let database = gateway.folder().join("data/trunkline.db");
    let mut lock = Process::start(
        "lock",
        Command::new("python3")
            .arg("-c")
            .arg(
                "import sqlite3, sys, time\n\
                 store = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                 store.execute('BEGIN EXCLUSIVE')\n\
                 print('locked', flush=True)\n\
                 time.sleep(600)\n",
            )
            .arg(&database),
    );
    lock.find("the lock", Duration::from_secs(10), |line| (line == "locked").then_some(()));
    let calls = call_through(&gateway, &line, &["busy"]);
    assert!(gateway.conversations().is_empty(), "the store was not locked");
    drop(lock);
    is_back(&gateway, calls);
    gateway.finish();
}

#[test]
fn calls_go_on_while_postgresql_is_frozen_and_are_recorded_afterwards() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let Some(server) = Postgres::start() else { return };
    let gateway = over(&server);
    let line = gateway.echo_line();
    server.freeze();
    let calls = call_through(&gateway, &line, &["no_answer", "busy"]);
    assert_eq!(gateway.health(), (200, "degraded".to_owned()), "calls are still taken");
    server.thaw();
    is_back(&gateway, calls);
    finish(gateway);
}

#[test]
fn calls_go_on_while_postgresql_is_down_and_are_recorded_afterwards() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let Some(mut server) = Postgres::start() else { return };
    let gateway = over(&server);
    let line = gateway.echo_line();
    server.stop();
    let calls = call_through(&gateway, &line, &["no_answer", "busy"]);
    server.resume();
    is_back(&gateway, calls);
    finish(gateway);
}

#[test]
fn a_line_made_on_one_node_is_answered_by_the_other() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let Some(server) = Postgres::start() else { return };
    let one = over(&server);
    let other = one.neighbour("other", &server.setting());
    let line = one.echo_line();
    wait::until("the other knows the number", RECOVERY, || {
        let path = format!("/core/phone-numbers/{}", line.number);
        (other.rest().send("GET", &path, None).status == 200).then_some(())
    });
    Sipp::new(&other, "call", &line.number).passes();
    assert_eq!(one.ended_conversations(1)[0]["status"], "completed");
    finish(other);
    finish(one);
}
