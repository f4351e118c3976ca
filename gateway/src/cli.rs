//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::client;

/// A SIP trunk gateway for voice agents: customers point a PBX or carrier here, an agent answers.
#[derive(Debug, Parser)]
#[command(
    name = "trunkline",
    version,
    about,
    after_help = "First steps:\n  \
        trunkline demo                      seven real calls on this machine, with a report\n  \
        trunkline serve                     run with loopback defaults; prints one API key, once\n  \
        trunkline check trunkline.toml      find every mistake in a settings file\n\n\
        Against a running gateway (TRUNKLINE_URL, and the key in TRUNKLINE_API_KEY or --key-file):\n  \
        trunkline trunk list                what there is; `number`, `agent`, … likewise\n  \
        trunkline apply -f site.yaml        make it what a file declares, after showing the plan\n\n\
        Settings come from one TOML file and from the environment: TRUNKLINE_<SECTION>__<KEY>,\n\
        for example TRUNKLINE_API__LISTEN=127.0.0.1:9000. `trunkline check --example` prints a file\n\
        with every key and its meaning.",
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    ///
    /// SIGTERM or Ctrl-C stops it gracefully: new calls get 503, live calls finish within
    /// `calls.drain_seconds`, then they are hung up; a second signal hangs up at once.
    /// SIGHUP reads the TLS certificate again.
    Serve(Serve),
    /// Show the main job on loopback: seven real calls and a report.
    Demo(Demo),
    /// Check a settings file, with the environment, and list every mistake with its place.
    Check(Check),
    /// Replay captured calls against a gateway and say where it answers otherwise, and why.
    ///
    /// Reads pcap and pcapng, finds SIP over UDP and TCP on any port, and plays the far side of each
    /// call: by default against a gateway of its own on loopback, which is set up with the numbers that
    /// the capture dials. Exit code 0 when everything could be read, whatever the verdicts; 2 when a
    /// file could not.
    Replay(Replay),
    /// Make, list and revoke API keys, and let users in, directly in the store.
    Keys(Keys),
    /// Say whether every entry of every audit log is there and as it was written, directly in the
    /// store.
    ///
    /// Exit code 0 when all are, 1 when one is missing or was changed. The head that is printed for
    /// each log, noted elsewhere, shows later that nothing before it was written anew.
    Verify(Verify),
    /// Print what a shell needs to complete this command line.
    #[command(after_help = "Examples:\n  \
        trunkline completions bash > /etc/bash_completion.d/trunkline\n  \
        trunkline completions zsh > ~/.zfunc/_trunkline")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command into a folder.
    #[command(after_help = "Example:\n  trunkline man /usr/local/share/man/man1")]
    Man {
        /// The folder, which must be there.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// The verbs that ask the REST API.
    #[command(flatten)]
    Client(client::Command),
    /// Compute what workflows hold: started by the gateway itself, to be confined.
    #[command(name = crate::workflow::SUBCOMMAND, hide = true)]
    WorkflowWorker(WorkflowWorker),
}

/// `trunkline serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Settings file; without one the loopback defaults apply.
    #[arg(short, long, value_name = "FILE", env = "TRUNKLINE_SETTINGS")]
    pub settings: Option<PathBuf>,
}

/// `trunkline demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Leave the gateway running afterwards and print how to dial it from a softphone.
    #[arg(long)]
    pub keep: bool,
    /// Folder for the recorded WAV and pcap.
    #[arg(long, value_name = "FOLDER", default_value = "demo-output")]
    pub output: PathBuf,
    /// Seconds each call talks.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=60))]
    pub talk: u32,
    /// Show the gateway's own log lines while it runs.
    #[arg(long)]
    pub verbose: bool,
}

/// `trunkline replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// Capture files, pcap or pcapng.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// A running gateway to replay against, instead of one of the replay's own; over the capture's
    /// transport, or the one named: `127.0.0.1:5060/tcp`.
    #[arg(long, value_name = "HOST:PORT[/udp|/tcp]")]
    pub gateway: Option<crate::replay::Named>,
    /// Print one JSON array instead of text.
    #[arg(long)]
    pub json: bool,
    /// Whose requests are replayed; without it those of whoever sent the first request of a call.
    #[arg(long, value_name = "IP[:PORT]")]
    pub side: Option<crate::replay::Side>,
    /// How long each answer may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub timeout_ms: u64,
    /// The largest file that is read, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub max_bytes: u64,
}

/// `trunkline check`
#[derive(Debug, Args)]
pub struct Check {
    /// Settings file.
    #[arg(value_name = "SETTINGS", required_unless_present = "example")]
    pub settings: Option<PathBuf>,
    /// Print an example file with every key and its meaning.
    #[arg(long)]
    pub example: bool,
}

/// `trunkline keys`
#[derive(Debug, Args)]
pub struct Keys {
    /// Settings file, for the store.
    #[arg(short, long, value_name = "FILE", env = "TRUNKLINE_SETTINGS", global = true)]
    pub settings: Option<PathBuf>,
    /// What to do with keys.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// The verbs of `trunkline keys`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key of the organisation; it is printed once and never again.
    Create {
        /// What the key is for.
        name: String,
        /// The organisation's id; not needed while there is only one.
        #[arg(long, value_name = "ID")]
        organization: Option<String>,
        /// Days until it expires; without it the key lasts until it is revoked.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// List keys: never their secrets.
    List {
        /// The organisation's id; not needed while there is only one.
        #[arg(long, value_name = "ID")]
        organization: Option<String>,
    },
    /// Make somebody a member of the organisation, and print a personal access token for them.
    ///
    /// The user is made if the store knows none by the address; one who is a member already keeps
    /// their role. The token is printed once and never again. Requests with it name the organisation
    /// in the header X-Anyreach-Org.
    User {
        /// The user's e-mail address.
        email: String,
        /// What they may do: `admin` or `viewer`.
        #[arg(long, value_name = "ROLE", default_value = "viewer", value_parser = ["admin", "viewer"])]
        role: String,
        /// The organisation's id; not needed while there is only one.
        #[arg(long, value_name = "ID")]
        organization: Option<String>,
        /// Days until the token expires; without it the token lasts until it is revoked.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// Revoke a key; requests with it fail at once.
    Revoke {
        /// The key's id, as `list` shows it.
        key: String,
        /// The organisation's id; not needed while there is only one.
        #[arg(long, value_name = "ID")]
        organization: Option<String>,
    },
}

/// `trunkline verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Settings file, for the store.
    #[arg(short, long, value_name = "FILE", env = "TRUNKLINE_SETTINGS")]
    pub settings: Option<PathBuf>,
}

/// `trunkline workflow-worker`
#[derive(Debug, Args)]
pub struct WorkflowWorker {
    /// MiB of memory it may take for computing.
    #[arg(value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub memory: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
