//! The verb as people and scripts use it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use support::Gateway;
use support::gateway::program;

fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pcaps").join(name)
}

fn replay(arguments: &[&str], files: &[PathBuf]) -> Output {
    let mut command = program(&["replay"], Path::new(env!("CARGO_MANIFEST_DIR")));
    command.args(arguments).args(files).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_report_shows_both_ladders_and_the_verdict() {
    let output = replay(&[], &[own("busy-sipp.pcap")]);
    assert!(output.status.success());
    let report = text(&output.stdout);
    for line in ["→ INVITE        486", "differs", "is busy (486): here the number's agent takes"]
    {
        assert!(report.contains(line), "{line} is missing in {report}");
    }
}

#[test]
fn scripts_get_one_array_of_all_files() {
    let output = replay(&["--json"], &[own("tcp-call-sipp.pcap"), own("udp-hold-sipp.pcap")]);
    assert!(output.status.success());
    let files: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts: Vec<&Value> =
        files.as_array().unwrap().iter().map(|file| &file["calls"][0]["verdict"]).collect();
    assert_eq!(verdicts, ["same", "same"]);
    assert_eq!(files[0]["calls"][0]["transport"], "TCP");
}

#[test]
fn a_file_that_cannot_be_read_is_code_2_and_the_others_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (gone, junk) = (folder.path().join("gone.pcap"), folder.path().join("junk.pcap"));
    std::fs::write(&junk, "this is no capture, whatever its name says").unwrap();
    let output = replay(&[], &[gone, junk, own("busy-sipp.pcap")]);
    assert_eq!(output.status.code(), Some(2));
    let complaints = text(&output.stderr);
    assert!(complaints.contains("gone.pcap: No such file"), "{complaints}");
    assert!(complaints.contains("junk.pcap: neither pcap nor pcapng"), "{complaints}");
    assert!(text(&output.stdout).contains("486"));
    let small = replay(&["--max-bytes", "100"], &[own("busy-sipp.pcap")]);
    assert_eq!(small.status.code(), Some(2));
    assert!(text(&small.stderr).contains("larger than 100 bytes"));
}

#[test]
fn a_running_gateway_is_replayed_against() {
    let gateway = Gateway::start();
    // The number that the captures of pcaps/ dial.
    let line = gateway.echo_line();
    assert_eq!(line.number, "+15550100100");
    for (address, file) in [
        (gateway.udp.to_string(), "udp-hold-sipp.pcap"),
        (format!("{}/tcp", gateway.tcp), "tcp-call-sipp.pcap"),
        (format!("{}/tcp", gateway.tcp), "record-route-kamailio.pcap"),
    ] {
        let output = replay(&["--gateway", &address, "--json"], &[own(file)]);
        let files: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(files[0]["calls"][0]["verdict"], "same", "{file} to {address}: {files:#}");
    }
    assert_eq!(gateway.ended_conversations(3).len(), 3);
    gateway.finish();
}
