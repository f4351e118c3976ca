//! The other verbs of the command line.

use std::process::Output;

use support::Gateway;
use support::gateway::{SETTINGS, program};
use support::http::Rest;

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn the_demo_makes_its_calls_and_leaves_its_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let demo = program(&["demo", "--talk", "2"], folder.path()).output().unwrap();
    assert!(demo.status.success(), "{}", text(&demo));
    for file in ["call-1.wav", "call-1.pcap"] {
        let made = std::fs::metadata(folder.path().join("demo-output").join(file)).unwrap();
        assert!(made.len() > 10_000, "{file} has {} octets", made.len());
    }
}

#[test]
fn the_example_settings_are_good_and_a_misspelt_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| program(arguments, folder.path()).output().unwrap();
    let example = run(&["check", "--example"]);
    assert!(example.status.success());
    std::fs::write(folder.path().join(SETTINGS), &example.stdout).unwrap();
    let good = run(&["check", SETTINGS]);
    assert!(good.status.success(), "{}", text(&good));
    std::fs::write(folder.path().join(SETTINGS), "[sip]\nupd = []\n").unwrap();
    let bad = run(&["check", SETTINGS]);
    // EX_CONFIG of sysexits.
    assert_eq!(bad.status.code(), Some(78), "{}", text(&bad));
    assert!(text(&bad).contains("upd"), "{}", text(&bad));
}

#[test]
fn a_key_made_on_the_command_line_opens_the_api_of_the_running_program() {
    let gateway = Gateway::start();
    let arguments = ["keys", "create", "second", "--settings", SETTINGS];
    let made = program(&arguments, gateway.folder()).output().unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let key = String::from_utf8(made.stdout).unwrap();
    let rest = Rest::new(gateway.api, key.trim());
    // The running program notices within moments that another process has written.
    support::wait::until("the key works", std::time::Duration::from_secs(10), || {
        (rest.send("GET", "/core/trunks", None).status == 200).then_some(())
    });
    gateway.finish();
}

#[test]
fn completions_and_manual_pages_know_every_noun() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| program(arguments, folder.path()).output().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && text(&script).contains("conversation"), "{shell}");
    }
    let written = run(&["man", "."]);
    assert!(written.status.success(), "{}", text(&written));
    for page in ["trunkline.1", "trunkline-apply.1", "trunkline-agent-publish.1"] {
        let page = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(page.contains("trunkline"), "{page}");
    }
}
