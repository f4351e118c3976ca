//! Logs, metrics and health: what an operator sees.

pub mod health;
pub mod metric;
pub mod workers;

use std::io::IsTerminal;

use config::settings::{LogFormat, ObserveSettings};
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error: lines for people on a terminal, JSON where asked for or piped.
///
/// # Errors
/// Says what is wrong with the level directives.
pub fn start_logs(settings: &ObserveSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level)
        .map_err(|error| format!("observe.level `{}`: {error}", settings.level))?;
    let json = match settings.log {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        lines.json().flatten_event(true).with_current_span(true).try_init()
    } else {
        lines.with_target(false).compact().try_init()
    };
    // A second start (tests in one process) keeps the first.
    let _ = started;
    Ok(())
}
