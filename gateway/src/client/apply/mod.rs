//! `trunkline apply`: an organisation as files declare it.
//!
//! ```text
//!  files ─► yaml ─► declared ─┐
//!                             ├─► plan (pure) ─► shown ─► asked ─► run, step by step
//!           API ─► found ─────┘
//! ```
//!
//! Trunks and agents are matched by name, numbers by number. What a file does not mention is left
//! alone; `--prune` deletes it, kind by kind, and only kinds that the files have a section for. A run
//! that fails stops at the step that failed; running it again goes on from there, because every plan
//! is made from what there is. When nothing differs nothing is written.
//!
//! Secrets are read from the environment only. The API never shows one, so one that is stored cannot
//! be compared: it stays, unless `--rewrite-secrets` says otherwise.

mod agents;
mod declared;
mod difference;
mod fields;
mod found;
mod plan;
mod routing;
mod run;
mod trunks;

#[cfg(test)]
mod tests;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::EXIT_CODES;
use super::connection::Connection;
use super::failure::Failure;
use crate::run::{say, say_error};
use crate::terminal::Style;
use declared::Declared;
use found::Found;
use plan::Plan;

/// `trunkline apply`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = long_help())]
pub struct Apply {
    /// File that declares trunks, phone_numbers, agents or inbound_routing, in one or more YAML
    /// documents; `-` is standard input. Give it once for each file.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Do it without asking.
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Delete what the files do not declare, of each kind they have a section for, and clear number
    /// slots that they do not give to an agent they declare.
    #[arg(long)]
    prune: bool,
    /// Write passwords and tokens again although they are stored already.
    #[arg(long)]
    rewrite_secrets: bool,
    #[command(flatten)]
    pub(super) connection: Connection,
}

const EXAMPLES: &str = "Examples:\n  \
    trunkline apply -f site.yaml --dry-run\n  \
    trunkline apply -f trunks.yaml -f agents.yaml --yes";

/// What a file looks like, and what is done with it.
fn long_help() -> String {
    let file = include_str!("example.yaml");
    format!(
        "{EXAMPLES}\n\nA file:\n\n{file}\n\
         Every section may be left out. What is left out of a trunk or an agent stays as it is; a\n\
         trunk's config that is given replaces the stored one whole. A config that differs from the\n\
         published one becomes a new version, which is published unless `publish: false`.\n\n\
         ${{NAME}} is taken from the environment; secrets must be. $${{NAME}} is the text itself.\n\n\
         {EXIT_CODES}"
    )
}

/// How a plan is made.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    prune: bool,
    rewrite_secrets: bool,
}

impl Apply {
    /// Reads, plans, shows, asks and does.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let declared = Declared::read(&self.files, &super::yaml::environment)?;
        let rest = self.connection.open()?;
        let found = Found::fetch(&rest, &declared).await?;
        let options = Options { prune: self.prune, rewrite_secrets: self.rewrite_secrets };
        let plan = Plan::make(&declared, &found, options)
            .map_err(|faults| Failure::Unusable(faults.join("\n")))?;
        let json = self.connection.json;
        if !json {
            say(&plan.text(&Style::of_stdout()));
        }
        let applied = plan.has_changes() && !self.dry_run;
        if applied {
            self.agree()?;
            run::run(&rest, &declared, &found, &plan, json).await?;
        }
        if json {
            say(&format!("{:#}\n", json!({ "plan": plan.json(), "applied": applied })));
        } else if applied {
            say("Done.\n");
        }
        Ok(())
    }

    fn agree(&self) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            let why = "nobody is there to be asked: say --yes, or --dry-run";
            return Err(Failure::Unusable(why.to_owned()));
        }
        say_error("Do this? [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(Failure::Stopped("nothing was done".to_owned()))
    }
}
