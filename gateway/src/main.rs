//! The `trunkline` program. See `trunkline --help`.

use std::process::ExitCode;

use clap::Parser;
use gateway::cli::Cli;
use gateway::run;

fn main() -> ExitCode {
    run::run(Cli::parse())
}
