//! What a replay prints: for people, and with `--json` for scripts.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::play::Row;
use super::verdict::Verdict;
use super::{CallReport, FileReport};
use crate::terminal::Style;

/// Reasons of a call that are printed; the JSON form has them all.
const MAX_REASONS: usize = 4;

/// Width of the ladder's columns.
const METHOD: usize = 14;
const STATUSES: usize = 26;

/// Mark and colour of a verdict.
fn mark(style: &Style, verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Same => ("=", style.good),
        Verdict::Differs => ("≠", style.other),
        Verdict::Unanswered => ("?", style.other),
        Verdict::NotReplayable => ("·", style.dim),
    }
}

/// The report of one file, for people.
#[must_use]
pub fn render(file: &FileReport) -> String {
    let style = Style::of_stdout();
    let mut text = String::new();
    let _ = writeln!(text, "\n{}{}{}", style.bold, file.name, style.off);
    let _ = writeln!(text, "  {}{}{}", style.dim, holds(file), style.off);
    for (number, call) in file.calls.iter().enumerate() {
        one(&mut text, &style, number + 1, call);
    }
    let _ = writeln!(text, "\n  {}", sum(file));
    text
}

/// What a file holds, in a line.
#[must_use]
pub fn holds(file: &FileReport) -> String {
    let mut text = format!("{} packets, {} SIP messages", file.packets, file.messages);
    for (what, count) in &file.others {
        let _ = write!(text, ", {count} {what}");
    }
    if file.broken_off {
        text.push_str("; the file breaks off in the middle of a packet");
    }
    text
}

/// The counts of a file's verdicts.
#[must_use]
pub fn sum(file: &FileReport) -> String {
    if file.calls.is_empty() {
        return "no SIP in it: nothing to replay".to_owned();
    }
    let count = |verdict| file.calls.iter().filter(|call| call.verdict == verdict).count();
    format!(
        "{} of {} the same, {} different, {} unanswered in the capture, {} not replayable",
        count(Verdict::Same),
        file.calls.len(),
        count(Verdict::Differs),
        count(Verdict::Unanswered),
        count(Verdict::NotReplayable)
    )
}

fn one(text: &mut String, style: &Style, number: usize, call: &CallReport) {
    let (mark, colour) = mark(style, call.verdict);
    let _ = writeln!(
        text,
        "\n  {colour}{mark}{} {}{number}. {}{} {}{} → {} · {} · from packet {} · {}{}",
        style.off,
        style.bold,
        call.method,
        style.off,
        style.dim,
        call.far,
        call.near,
        call.transport,
        call.packet,
        shown(&call.call_id),
        style.off
    );
    if let Some(number) = &call.stand_in {
        let _ = writeln!(text, "      {}dialled here: {number}{}", style.dim, style.off);
    }
    let _ = writeln!(
        text,
        "      {}  {:METHOD$}{:STATUSES$}here{}",
        style.dim, "", "in the capture", style.off
    );
    for row in &call.rows {
        ladder(text, style, row);
    }
    if call.elsewhere > 0 {
        let _ = writeln!(
            text,
            "      {}  {} more messages of it between other addresses{}",
            style.dim, call.elsewhere, style.off
        );
    }
    let _ = writeln!(text, "      {colour}{}{}", call.verdict, style.off);
    for reason in call.reasons.iter().take(MAX_REASONS) {
        let _ = writeln!(text, "        {reason}");
    }
    if call.reasons.len() > MAX_REASONS {
        let _ = writeln!(text, "        and {} more reasons", call.reasons.len() - MAX_REASONS);
    }
}

fn ladder(text: &mut String, style: &Style, row: &Row) {
    let arrow = if row.asked { "→" } else { "←" };
    let captured = if row.own { String::new() } else { statuses(&row.capture) };
    let ours = match (row.sent, &*row.ours) {
        (true, []) if row.method == "ACK" => "sent".to_owned(),
        (true, []) => "silence".to_owned(),
        (_, statuses_here) => statuses(statuses_here),
    };
    let note = row.note.as_deref().unwrap_or_default();
    let gap = if ours.is_empty() || note.is_empty() { "" } else { "  " };
    let line = format!("      {arrow} {:METHOD$}{captured:STATUSES$}{ours}", shown(&row.method));
    let _ = writeln!(text, "{}{gap}{}{note}{}", line, style.dim, style.off);
}

fn statuses(all: &[u16]) -> String {
    let words: Vec<String> = all.iter().map(u16::to_string).collect();
    words.join(" ")
}

/// What strangers wrote, fit for a terminal.
fn shown(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(60).map(printable).collect()
}

/// The report of a file, for scripts.
#[must_use]
pub fn as_json(file: &FileReport) -> Value {
    let calls: Vec<Value> = file.calls.iter().map(call_as_json).collect();
    json!({
        "file": file.name,
        "packets": file.packets,
        "sip_messages": file.messages,
        "others": file.others,
        "broken_off": file.broken_off,
        "calls": calls,
    })
}

fn call_as_json(call: &CallReport) -> Value {
    let rows: Vec<Value> = call
        .rows
        .iter()
        .map(|row| {
            json!({
                "method": row.method,
                "asked_by": if row.asked { "far" } else { "near" },
                "in_capture": !row.own,
                "captured": row.capture,
                "sent": row.sent,
                "answered": row.ours,
                "note": row.note,
            })
        })
        .collect();
    json!({
        "call_id": call.call_id,
        "method": call.method,
        "far": call.far.to_string(),
        "near": call.near.to_string(),
        "packet": call.packet,
        "transport": call.transport,
        "stand_in": call.stand_in,
        "verdict": call.verdict.to_string(),
        "reasons": call.reasons,
        "steps": rows,
        "elsewhere": call.elsewhere,
    })
}
