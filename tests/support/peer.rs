//! Whether the programs that other people wrote are there.
//!
//! `tests/run` installs them and sets `TRUNKLINE_REQUIRE_PEERS=1`, so that a missing one is a
//! failure there. Without it (a plain `cargo test`) the test says what it misses and passes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set to `1` when a missing peer is a failure.
pub const REQUIRE: &str = "TRUNKLINE_REQUIRE_PEERS";

/// The Python that has pipecat, requests and schemathesis.
pub const PYTHON: &str = "TRUNKLINE_PYTHON";

/// True when every one of these programs can be run.
///
/// # Panics
/// When one is missing and [`REQUIRE`] is `1`.
#[must_use]
pub fn have(programs: &[&str]) -> bool {
    programs.iter().all(|program| found(program, on_path(program)))
}

/// The Python interpreter that can import pipecat, if there is one.
///
/// # Panics
/// When there is none and [`REQUIRE`] is `1`.
#[must_use]
pub fn python_with_pipecat() -> Option<PathBuf> {
    python_with("pipecat")
}

/// The Python interpreter that can import this module, if there is one.
///
/// # Panics
/// When there is none and [`REQUIRE`] is `1`.
#[must_use]
pub fn python_with(module: &str) -> Option<PathBuf> {
    let python =
        env::var_os(PYTHON).map_or_else(|| root().join("target/venv/bin/python"), PathBuf::from);
    let works = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    found(module, works.is_ok_and(|output| output.status.success())).then_some(python)
}

/// The folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A file of the tests' own assets.
#[must_use]
pub fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/assets").join(name)
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn found(program: &str, is_there: bool) -> bool {
    assert!(
        is_there || env::var(REQUIRE).as_deref() != Ok("1"),
        "{program} is missing; tests/run installs it"
    );
    if !is_there {
        eprintln!("skipped: {program} is missing; tests/run installs it");
    }
    is_there
}
