//! What each verb of the command line does.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory as _;
use config::settings::Settings;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::cli::{Check, Cli, Command};
use crate::serve::{FAREWELL, Gateway};
use crate::{client, demo, keys, observe, replay, verify, workflow};

/// Exit code for settings that cannot be used (`EX_CONFIG` of sysexits).
pub const EXIT_SETTINGS: u8 = 78;

/// An example settings file: every key with its meaning and default.
const EXAMPLE: &str = include_str!("../../config/trunkline.example.toml");

/// Runs one command to its end.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Check(check) => self::check(&check),
        Command::Serve(serve) => with_settings(serve.settings.as_deref(), |settings| {
            block_on(serve_until_stopped(settings))
        }),
        Command::Keys(keys) => with_settings(keys.settings.clone().as_deref(), |settings| {
            block_on(keys::run(keys, settings))
        }),
        Command::Verify(verify) => {
            with_settings(verify.settings.as_deref(), |settings| block_on(verify::run(settings)))
        }
        Command::Demo(demo) => block_on(demo::run(demo)),
        Command::Replay(args) => block_on(replay::run(args)),
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => manual_pages(&folder),
        Command::Client(command) => block_on(client::run(command)),
        Command::WorkflowWorker(worker) => workflow::worker::run(worker.memory),
    }
}

fn load(path: Option<&Path>) -> Result<Settings, ExitCode> {
    Settings::load(path, std::env::vars()).map_err(|errors| {
        say_error(&format!("{}\n", errors.to_string().trim_end()));
        ExitCode::from(EXIT_SETTINGS)
    })
}

fn with_settings(path: Option<&Path>, then: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    match load(path) {
        Ok(settings) => then(settings),
        Err(code) => code,
    }
}

fn check(check: &Check) -> ExitCode {
    if check.example {
        say(EXAMPLE);
        return ExitCode::SUCCESS;
    }
    with_settings(check.settings.as_deref(), |settings| {
        say(&format!(
            "settings are good: SIP on {} UDP, {} TCP, {} TLS listener(s), API on {}\n",
            settings.sip.udp.len(),
            settings.sip.tcp.len(),
            settings.sip.tls.len(),
            settings.api.listen
        ));
        ExitCode::SUCCESS
    })
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "trunkline", &mut script);
    say(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

fn manual_pages(folder: &Path) -> ExitCode {
    match clap_mangen::generate_to(Cli::command(), folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&format!("{}: {error}\n", folder.display()));
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            runtime.shutdown_timeout(Duration::from_secs(1));
            code
        }
        Err(error) => {
            say_error(&format!("the runtime cannot start: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_stopped(settings: Settings) -> ExitCode {
    if let Err(error) = observe::start_logs(&settings.observe) {
        say_error(&format!("{error}\n"));
        return ExitCode::from(EXIT_SETTINGS);
    }
    let drain = Duration::from_secs(u64::from(settings.calls.drain_seconds));
    let gateway = match Gateway::start(settings).await {
        Ok(gateway) => gateway,
        Err(why) => {
            error!(%why, "the gateway cannot start");
            say_error(&format!("trunkline cannot start: {why}\n"));
            return ExitCode::FAILURE;
        }
    };
    if let Some((organisation, key)) = &gateway.bootstrap {
        // The only place where the key is ever shown.
        say(&format!(
            "A new store: organisation \"{}\" ({}).\nIts API key, shown this once:\n\n    {}\n\n",
            organisation.name,
            organisation.id,
            key.expose()
        ));
    }
    if let Err(error) = wait_for_the_end(&gateway, drain).await {
        error!(%error, "signals cannot be watched");
    }
    gateway.stop().await;
    info!("stopped");
    ExitCode::SUCCESS
}

/// First SIGTERM or Ctrl-C drains, the second hangs up at once; SIGHUP reads the certificate again.
async fn wait_for_the_end(gateway: &Gateway, limit: Duration) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => gateway.reload(),
        }
    }
    info!("stopping: live calls may finish, a second signal hangs up at once");
    let drained = gateway.drain(limit);
    tokio::pin!(drained);
    loop {
        tokio::select! {
            () = &mut drained => return Ok(()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => gateway.reload(),
        }
    }
    gateway.hang_up_all().await;
    // A peer that is gone does not answer its BYE: it is not waited for.
    let _ = tokio::time::timeout(FAREWELL, drained).await;
    Ok(())
}

/// Prints to standard output; a reader that has gone away is no error of ours.
pub fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let _ = std::io::stdout().lock().flush();
}

/// Prints to standard error.
pub fn say_error(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
