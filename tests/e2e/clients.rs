//! The API as other programs use it: our own command line, and clients in Python.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::gateway::program;
use support::postgres::Postgres;
use support::sipp::Sipp;
use support::{Gateway, peer};

/// One run of the program as a client of this gateway.
fn ask(gateway: &Gateway, arguments: &[&str]) -> Output {
    client(gateway, arguments).output().unwrap()
}

fn client(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = program(arguments, gateway.folder());
    command.env("TRUNKLINE_URL", format!("http://{}", gateway.api));
    command.env("TRUNKLINE_API_KEY", &gateway.key);
    command
}

#[track_caller]
fn done(output: Output) -> String {
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}\n{err}");
    out
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn as_json(output: Output) -> Value {
    let text = done(output);
    serde_json::from_str(&text).map_err(|why| format!("{why}: {text}")).unwrap()
}

const SITE: &str = "
trunks:
  - name: Office PBX
    inbound_config:
      allowed_addresses: [127.0.0.1]
  - name: Carrier
    inbound_config: {allowed_addresses: [192.0.2.1]}
    outbound_config:
      address: sip.carrier.example
      auth_username: acme
      auth_password: ${CARRIER_PASSWORD}
phone_numbers:
  - {phone_number: +15550100100, trunk: Office PBX}
  - {phone_number: +15550100200, trunk: Carrier, outbound_shareable: true}
agents:
  - name: Echo
    config_file: echo.json
    inbound_numbers: [+15550100100]
    outbound_numbers: [+15550100200]
    deploy_as_sip: true
";

fn apply(gateway: &Gateway, more: &[&str]) -> Output {
    let arguments = [&["apply", "-f", "site.yaml"], more].concat();
    client(gateway, &arguments).env("CARRIER_PASSWORD", "canary-of-the-carrier").output().unwrap()
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_declared_organisation_takes_calls_and_is_left_alone_the_second_time() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    write(gateway.folder(), "site.yaml", SITE);
    write(gateway.folder(), "echo.json", r#"{"runtime": {"type": "builtin", "builtin": "echo"}}"#);

    let dry = done(apply(&gateway, &["--dry-run"]));
    assert!(dry.contains("5 to create"), "{dry}");
    assert_eq!(as_json(ask(&gateway, &["trunk", "list", "--json"])), json!([]));
    let unasked = apply(&gateway, &[]);
    assert_eq!(unasked.status.code(), Some(2), "nobody was asked: {:?}", texts(&unasked));

    let first = apply(&gateway, &["--yes"]);
    let told = texts(&first);
    assert!(!format!("{told:?}").contains("canary"), "{told:?}");
    done(first);
    let second = done(apply(&gateway, &["--yes"]));
    assert!(second.ends_with("No changes: 5 as declared.\n"), "{second}");

    Sipp::new(&gateway, "call", "+15550100100").calls(1).passes();
    assert_eq!(gateway.ended_conversation()["status"], "completed");

    // A change of the config is a new version, and the number follows it.
    let clip = r#"{"runtime": {"type": "builtin", "builtin": "playback", "clip": "tone"}}"#;
    write(gateway.folder(), "echo.json", clip);
    let third = as_json(apply(&gateway, &["--yes", "--json"]));
    let changed: Vec<_> =
        third["plan"].as_array().unwrap().iter().map(|one| &one["action"]).collect();
    assert_eq!(changed, ["same", "same", "same", "same", "change"], "{third:#}");
    let number = as_json(ask(&gateway, &["number", "get", "+15550100100", "--json"]));
    assert_eq!(number["inbound_agent_version"]["version"], 2);

    // What is not declared any more goes only when that is said.
    write(gateway.folder(), "site.yaml", "trunks: []\nphone_numbers: []\nagents: []\n");
    assert!(done(apply(&gateway, &["--yes"])).contains("No changes"));
    let pruned = done(apply(&gateway, &["--yes", "--prune"]));
    assert!(pruned.contains("5 to delete"), "{pruned}");
    assert_eq!(done(ask(&gateway, &["agent", "list"])), "No agents.\n");
    gateway.finish();
}

#[test]
fn a_run_that_fails_says_where_and_the_next_one_goes_on() {
    let gateway = Gateway::start();
    let both = "
trunks: [{name: A, inbound_config: {allowed_addresses: [127.0.0.1]}}]
agents:
  - {name: One, config: {runtime: {type: builtin, builtin: echo}}}
  - {name: Two, config: {runtime: {type: builtin, builtin: nothing}}}
";
    write(gateway.folder(), "site.yaml", both);
    let failed = apply(&gateway, &["--yes"]);
    let (_, told) = texts(&failed);
    assert_eq!(failed.status.code(), Some(1), "{told}");
    assert!(told.contains("stopped at agent Two, with 2 of 3 done"), "{told}");
    assert!(told.contains("body.config.runtime") && told.contains("request id"), "{told}");
    write(gateway.folder(), "site.yaml", &both.replace("nothing", "echo"));
    let rest = done(apply(&gateway, &["--yes"]));
    assert!(rest.contains("0 to create, 1 to change, 0 to delete, 2 as declared."), "{rest}");
    gateway.finish();
}

#[test]
fn every_noun_can_be_made_looked_at_and_deleted() {
    if !peer::have(&["sipp"]) {
        return;
    }
    let gateway = Gateway::start();
    let run = |arguments: &[&str]| done(ask(&gateway, arguments));
    run(&["trunk", "create", "Office PBX", "--allow", "127.0.0.1", "--encryption", "allow"]);
    run(&["number", "create", "+15550100100", "--trunk", "Office PBX"]);
    run(&["agent", "create", "Echo", "--metadata", r#"{"team": "a"}"#]);
    write(gateway.folder(), "echo.yaml", "runtime: {type: builtin, builtin: echo}\n");
    assert_eq!(run(&["agent", "draft", "Echo", "--config", "echo.yaml"]), "draft 1 of Echo\n");
    let published = run(&["agent", "publish", "Echo", "--number", "+15550100100"]);
    assert!(published.contains("Echo v1"), "{published}");
    assert!(run(&["agent", "deploy", "Echo"]).starts_with("sip:"));

    let numbers = run(&["number", "list", "--trunk", "Office PBX"]);
    let (heading, row) = numbers.split_once('\n').unwrap();
    assert!(heading.starts_with("NUMBER") && row.starts_with("+15550100100  Echo v1"), "{numbers}");
    assert!(!numbers.contains('\u{1b}'), "no colours but on a terminal: {numbers:?}");
    assert!(run(&["agent", "get", "Echo"]).contains("metadata"));
    assert!(run(&["agent", "versions", "Echo"]).contains("yes"));

    // A flag changes its own field and leaves the others, and the password, alone.
    run(&["trunk", "update", "Office PBX", "--noise-cancellation", "true"]);
    let trunk = as_json(ask(&gateway, &["trunk", "get", "Office PBX", "--json"]));
    assert_eq!(trunk["inbound_config"]["allowed_addresses"], json!(["127.0.0.1"]));
    assert_eq!(trunk["inbound_config"]["media_encryption"], "SIP_MEDIA_ENCRYPT_ALLOW");
    assert_eq!(trunk["inbound_config"]["enable_noise_cancellation"], true);

    Sipp::new(&gateway, "call", "+15550100100").calls(1).passes();
    let record = gateway.ended_conversation();
    assert!(run(&["conversation", "list", "--agent", "Echo"]).contains("completed"));
    run(&["conversation", "get", record["id"].as_str().unwrap()]);
    run(&["number", "delete", "+15550100100"]);
    run(&["agent", "delete", "Echo"]);
    run(&["trunk", "delete", "Office PBX"]);
    assert_eq!(run(&["trunk", "list"]), "No trunks.\n");
    gateway.finish();
}

#[test]
fn scripts_can_tell_failures_apart_and_no_key_is_shown() {
    let gateway = Gateway::start();
    let code = |arguments: &[&str]| ask(&gateway, arguments).status.code();
    assert_eq!(code(&["trunk", "get", "nobody"]), Some(4));
    assert_eq!(code(&["trunk", "list", "--limit", "0"]), Some(2));
    assert_eq!(code(&["trunk", "create", " "]), Some(1));
    assert_eq!(code(&["trunk", "list", "--url", "http://api.example.com"]), Some(2));
    assert_eq!(code(&["trunk", "list", "--url", "http://127.0.0.1:1"]), Some(5));
    let forged = client(&gateway, &["trunk", "list", "--json"])
        .env("TRUNKLINE_API_KEY", "ak_canary.secret")
        .output()
        .unwrap();
    assert_eq!(forged.status.code(), Some(3));
    let (_, told) = texts(&forged);
    let detail: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(detail["status"], 401, "{told}");
    assert!(detail["request_id"].is_string() && !told.contains("canary"), "{told}");

    // A viewer's key, from a file: what it may not do ends with 3 too.
    let key = done(ask(&gateway, &["key", "create", "viewer", "--grant", "viewer"]));
    write(gateway.folder(), "viewer.key", &key);
    let with_file = |arguments: &[&str]| {
        let arguments = [arguments, &["--key-file", "viewer.key"]].concat();
        ask(&gateway, &arguments)
    };
    assert_eq!(done(with_file(&["trunk", "list"])), "No trunks.\n");
    assert_eq!(with_file(&["trunk", "create", "x"]).status.code(), Some(3));
    gateway.finish();
}

/// A script of `tests/clients` against this gateway.
fn python(python: &Path, gateway: &Gateway, script: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut command = Command::new(python);
    command.arg(folder.join(script)).args(["--url", &format!("http://{}", gateway.api)]);
    command.env("TRUNKLINE_API_KEY", &gateway.key).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs the pipeline twice; it must leave the same behind.
fn provision_twice(interpreter: &Path, gateway: &Gateway) {
    let run = || done(python(interpreter, gateway, "provision.py").output().unwrap());
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    let state: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(state["versions"].as_array().map(Vec::len), Some(1), "{first}");
}

#[test]
fn a_pipeline_in_python_ends_in_the_same_state_twice() {
    let Some(interpreter) = peer::python_with("requests") else { return };
    let gateway = Gateway::start();
    provision_twice(&interpreter, &gateway);
    gateway.finish();
}

#[test]
fn a_pipeline_in_python_ends_in_the_same_state_twice_on_postgresql() {
    let Some(interpreter) = peer::python_with("requests") else { return };
    let Some(server) = Postgres::start() else { return };
    let gateway = Gateway::with(&[("store.url", &server.setting())]);
    provision_twice(&interpreter, &gateway);
    gateway.finish();
}

/// Nobody finds whom the requests tell to call: there is no name server.
const NO_NAMES: (&str, &str) = ("sip.nameservers", r#"["127.0.0.1:9"]"#);

/// Lets schemathesis make this many requests, and more.
fn judge(interpreter: &Path, gateway: &Gateway, cases: &str) {
    done(python(interpreter, gateway, "judge.py").args(["--cases", cases]).output().unwrap());
}

#[test]
fn the_program_does_what_its_document_says() {
    let Some(interpreter) = peer::python_with("schemathesis") else { return };
    let gateway = Gateway::with(&[NO_NAMES]);
    judge(&interpreter, &gateway, &std::env::var(CASES).unwrap_or_else(|_| "1500".to_owned()));
    gateway.finish();
}

#[test]
fn the_program_does_what_its_document_says_on_postgresql() {
    // The store's own tests run on both databases every time; this takes minutes.
    let Ok(cases) = std::env::var(CASES) else { return };
    let Some(interpreter) = peer::python_with("schemathesis") else { return };
    let Some(server) = Postgres::start() else { return };
    let gateway = Gateway::with(&[NO_NAMES, ("store.url", &server.setting())]);
    judge(&interpreter, &gateway, &cases);
    gateway.finish();
}

/// How many requests schemathesis makes at least, when it is not the usual number.
const CASES: &str = "TRUNKLINE_JUDGE_CASES";

#[test]
fn workflows_are_made_run_and_looked_at_from_the_command_line() {
    let gateway = Gateway::start();
    let file = gateway.folder().join("greet.yaml");
    let definition = "
steps:
  - {id: trigger, type: input, next: out}
  - {id: out, type: output, fields: {greeting: \"{{ 'Hello ' & input.name }}\"}}
";
    std::fs::write(&file, definition).unwrap();
    let make = ["workflow", "create", "Greet", "--definition", "greet.yaml", "--publish"];
    assert!(done(ask(&gateway, &make)).starts_with("workflow wf_"));
    assert!(done(ask(&gateway, &["workflow", "list"])).contains("Greet"));
    let run = ["workflow", "run", "Greet", "--input", r#"{"name": "Ada"}"#, "--json"];
    let ran = as_json(ask(&gateway, &run));
    assert_eq!(ran["output"], json!({ "greeting": "Hello Ada" }), "{ran:#}");
    let result = ["workflow", "result", ran["execution_id"].as_str().unwrap()];
    assert!(done(ask(&gateway, &result)).contains("WHAT IT DID"));
    let runs = as_json(ask(&gateway, &["workflow", "runs", "--workflow", "Greet", "--json"]));
    assert_eq!(runs[0]["execution_id"], ran["execution_id"]);
    let fails = definition.replace("'Hello ' & input.name", "$error('no')");
    std::fs::write(&file, fails).unwrap();
    let draft = ["workflow", "draft", "Greet", "--definition", "greet.yaml", "--publish"];
    assert_eq!(done(ask(&gateway, &draft)), "version 2 of Greet\n");
    let output = ask(&gateway, &["workflow", "run", "Greet"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    assert!(err.contains("the workflow failed at out"), "{err}");
    let waits = definition.replace("next: out", "next: later").replace(
        "- {id: out",
        "- {id: later, type: wait, duration: 9, unit: days, next: out}\n  - {id: out",
    );
    let waits = waits.replace("steps:", "timeout_seconds: 900000\nsteps:");
    std::fs::write(&file, waits).unwrap();
    done(ask(&gateway, &draft));
    let run = done(ask(&gateway, &["workflow", "run", "Greet", "--background"]));
    let cancel = ["workflow", "cancel", run.trim()];
    assert_eq!(done(ask(&gateway, &cancel)), format!("run {} cancelled\n", run.trim()));
    assert!(done(ask(&gateway, &["workflow", "runs"])).contains("cancelled"));
    done(ask(&gateway, &["workflow", "delete", "Greet"]));
    assert_eq!(done(ask(&gateway, &["workflow", "list"])), "No workflows.\n");
    gateway.finish();
}
