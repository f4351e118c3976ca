//! `trunkline replay`: a capture becomes a test.
//!
//! Reads pcap and pcapng files, finds the SIP in them wherever it is, sorts it into calls, and plays
//! the far side of each call to a gateway: one of its own on loopback, or a running one. What the
//! gateway answers is held against what the capture's server had answered, with the reason for each
//! difference.
//!
//! ```text
//!  file ─► link ─► fragment ─► stream ─► capture ─► calls ─► play ─► verdict ─► report
//!  packets  IP      whole      TCP in     SIP        who       │       why
//!           in IP   packets    order      messages   called    └─ rewrite, wire ─► target
//! ```
//!
//! Captures are other people's: whatever they hold, nothing panics, everything is bounded, and
//! nothing is sent but to the gateway. Credentials of a capture are never sent on nor printed.

mod calls;
mod capture;
mod file;
mod fragment;
mod link;
mod play;
pub mod report;
mod rewrite;
mod stream;
mod target;
mod verdict;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;

use crate::cli;
use crate::random::{self, Random};
use crate::run::{say, say_error};

pub use calls::Side;
pub use play::Row;
pub use target::Named;
pub use verdict::Verdict;

use calls::Call;
use capture::Capture;
use play::{Played, Seat};
use target::{Numbers, Target};
use verdict::Known;
use wire::{Line, Media};

/// Exit code for a file that is missing, too large or no capture.
pub const EXIT_UNREADABLE: u8 = 2;

/// Calls of a file that are replayed.
pub const MAX_CALLS: usize = 10_000;

/// Calls that are played at a time.
const AT_A_TIME: usize = 8;

/// From this many calls on, progress is told.
const MANY: usize = 4;

/// How a capture is to be replayed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A running gateway; without one the replay starts its own.
    pub gateway: Option<Named>,
    /// Whose requests are replayed, where that side takes part.
    pub side: Option<Side>,
    /// How long each answer may take.
    pub patience: Duration,
    /// The largest file that is read, in bytes.
    pub max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        let patience = Duration::from_secs(2);
        Options { gateway: None, side: None, patience, max_bytes: 64 << 20 }
    }
}

/// What a file held and what came of it.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// The file as it was named.
    pub name: String,
    /// Its packets.
    pub packets: usize,
    /// Its SIP messages.
    pub messages: usize,
    /// What else was in it, and how often.
    pub others: BTreeMap<String, usize>,
    /// It ends in the middle of a packet.
    pub broken_off: bool,
    /// Its calls, in the order in which they began.
    pub calls: Vec<CallReport>,
}

/// What came of one call: everything with one Call-ID between two addresses.
#[derive(Clone, Debug)]
pub struct CallReport {
    /// The Call-ID of the capture.
    pub call_id: String,
    /// The method it begins with.
    pub method: String,
    /// Whose requests were replayed.
    pub far: SocketAddr,
    /// Whose place the gateway took.
    pub near: SocketAddr,
    /// Number of the packet that it begins with, from 1.
    pub packet: usize,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// The number that stood for what was dialled.
    pub stand_in: Option<String>,
    /// Its ladder.
    pub rows: Vec<Row>,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it differs, or cannot be replayed.
    pub reasons: Vec<String>,
    /// Messages of the same Call-ID on other hops.
    pub elsewhere: usize,
}

/// Runs `trunkline replay`.
pub async fn run(args: cli::Replay) -> ExitCode {
    let options = Options {
        gateway: args.gateway,
        side: args.side,
        patience: Duration::from_millis(args.timeout_ms),
        max_bytes: args.max_bytes,
    };
    let mut code = ExitCode::SUCCESS;
    let mut as_json = Vec::new();
    for path in &args.files {
        match replay(path, &options).await {
            Ok(file) if args.json => as_json.push(report::as_json(&file)),
            Ok(file) => say(&report::render(&file)),
            Err(error) => {
                say_error(&format!("{}: {error}\n", path.display()));
                code = ExitCode::from(EXIT_UNREADABLE);
            }
        }
    }
    if args.json {
        say(&format!("{:#}\n", serde_json::Value::Array(as_json)));
    }
    code
}

/// Replays one capture file.
///
/// # Errors
/// When the file cannot be read, is too large or is no capture, and when a gateway of the replay's own
/// cannot start. What happens to calls is never an error: it is reported.
pub async fn replay(path: &Path, options: &Options) -> io::Result<FileReport> {
    let bytes = read_file(path, options.max_bytes)?;
    replay_bytes(&path.display().to_string(), &bytes, options).await
}

/// Replays a capture from memory.
///
/// # Errors
/// As [`replay`].
pub async fn replay_bytes(name: &str, bytes: &[u8], options: &Options) -> io::Result<FileReport> {
    let capture = Capture::read(bytes).map_err(io::Error::other)?;
    let mut calls = calls::split(&capture.messages, options.side);
    calls.truncate(MAX_CALLS);
    let numbers = match options.gateway {
        // A running gateway has numbers of its own.
        Some(_) => Numbers::none(calls.len()),
        None => Numbers::choose(calls.iter()),
    };
    let reports = if calls.is_empty() {
        Vec::new()
    } else {
        let target = match options.gateway {
            Some(named) => Target::Named(named),
            None => Target::start(&numbers, options.patience).await?,
        };
        let reports = play_all(&target, &calls, (&numbers, options)).await;
        target.stop().await;
        reports?
    };
    Ok(FileReport {
        name: name.to_owned(),
        packets: capture.packets,
        messages: capture.messages.len(),
        others: capture.others,
        broken_off: capture.broken_off,
        calls: reports,
    })
}

/// A file of at most `most` bytes; a larger one is refused before it is read.
fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, also one that grows.
    std::fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        return Err(io::Error::other(format!("larger than {most} bytes (see --max-bytes)")));
    }
    Ok(bytes)
}

async fn play_all(
    target: &Target,
    calls: &[Call],
    (numbers, options): (&Numbers, &Options),
) -> io::Result<Vec<CallReport>> {
    let mut random = Random::new(random::seed()?);
    let jobs: Vec<_> = calls
        .iter()
        .enumerate()
        .map(|(at, call)| {
            let stand_in = numbers.stand_ins.get(at).cloned().flatten();
            play_one(target, call, (stand_in, options.patience), random.bytes())
        })
        .collect();
    let mut playing = futures_util::stream::iter(jobs).buffered(AT_A_TIME);
    let mut reports = Vec::with_capacity(calls.len());
    while let Some(report) = playing.next().await {
        reports.push(report);
        progress(reports.len(), calls.len());
    }
    Ok(reports)
}

fn progress(done: usize, of: usize) {
    if of < MANY || !io::stderr().is_terminal() {
        return;
    }
    // One line that is written over, and gone at the end.
    let text = if done == of { String::new() } else { format!("  · call {done} of {of} …") };
    say_error(&format!("\r\x1b[K{text}"));
}

async fn play_one(
    target: &Target,
    call: &Call,
    (stand_in, patience): (Option<String>, Duration),
    seed: [u8; 32],
) -> CallReport {
    let played = match seat(target, call, (stand_in.clone(), patience), seed).await {
        Ok(seat) => play::play(call, seat).await,
        Err(error) => Played { broken: Some(error.to_string()), ..Played::default() },
    };
    let refused = played.rows.iter().any(|row| {
        row.method == "INVITE" && row.sent && !matches!(row.our_final(), Some(200..300 | 487))
    });
    let decision = if refused { target.decision(&played.call_id).await } else { None };
    let known = Known { decision, patience_ms: patience.as_millis() };
    let judgement = verdict::judge(&played, &known);
    CallReport {
        call_id: call.call_id.clone(),
        method: call.method().to_owned(),
        far: call.far,
        near: call.near,
        packet: call.packet,
        transport: if call.transport == sip::Transport::Udp { "UDP" } else { "TCP" },
        stand_in,
        rows: played.rows,
        verdict: judgement.verdict,
        reasons: judgement.reasons,
        elsewhere: call.elsewhere,
    }
}

async fn seat(
    target: &Target,
    call: &Call,
    (stand_in, patience): (Option<String>, Duration),
    seed: [u8; 32],
) -> io::Result<Seat> {
    let (transport, address) =
        target.address(call).ok_or_else(|| io::Error::other("the gateway has no such listener"))?;
    let line = Line::open(transport, address).await?;
    let media = Media::open(line.local).await?;
    Ok(Seat { line, media, patience, stand_in, random: Random::new(seed) })
}
