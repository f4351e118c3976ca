//! Captures as tests: those of other people, and those of `pcaps/`.
//!
//! Each is replayed against a gateway of its own. What came of every call stands in a table that
//! people can read, and did: its last column says what a difference is about. `UPDATE_GOLDEN=1`
//! rewrites the tables and keeps that column.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers may fail it")]

mod program;
mod table;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use gateway::replay::{self, FileReport, Options};

use table::Table;

/// Files that are replayed at a time: each waits more than it works.
const AT_A_TIME: usize = 4;

/// Every capture in a folder, in the order of its name.
fn captures(folder: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listed
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"))
        .collect();
    files.sort();
    files
}

/// Replays all files, a few at a time; the reports are in the order of the files.
fn replay_all(files: &[PathBuf]) -> Vec<FileReport> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = Options { patience: Duration::from_secs(2), ..Options::default() };
    let mut reports = Vec::new();
    for few in files.chunks(AT_A_TIME) {
        let running: Vec<_> = few
            .iter()
            .cloned()
            .map(|path| {
                let handle = runtime.handle().clone();
                thread::spawn(move || handle.block_on(replay::replay(&path, &options)))
            })
            .collect();
        for (path, one) in few.iter().zip(running) {
            let report = one.join();
            assert!(report.is_ok(), "{} makes the replay panic", path.display());
            reports.push(report.unwrap().unwrap());
        }
    }
    reports
}

#[test]
fn captures_of_other_people_get_the_verdicts_that_a_person_has_read() {
    let named = std::env::var_os("TRUNKLINE_CONFORMANCE").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = named.unwrap_or_else(|| root.join("../shared/conformance")).join("pcaps");
    if !folder.is_dir() {
        println!("skipped: no captures of other people in {}", folder.display());
        return;
    }
    let files = captures(&folder);
    assert!(!files.is_empty(), "no captures in {}", folder.display());
    Table::read("verdicts.tsv").check(&replay_all(&files));
}

#[test]
fn our_own_captures_get_the_verdicts_of_their_readme() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pcaps");
    let files = captures(&folder);
    assert!(!files.is_empty(), "no captures in {}", folder.display());
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let reports = replay_all(&files);
    for report in &reports {
        let name = Path::new(&report.name).file_name().unwrap().to_string_lossy().into_owned();
        let verdict = format!("| `{name}` | {} |", replay::report::sum(report));
        assert!(readme.contains(&verdict), "pcaps/README.md lacks the line {verdict}");
    }
    Table::read("own.tsv").check(&reports);
}
