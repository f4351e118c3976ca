//! The capture's answers beside the gateway's, and why they differ, in words.
//!
//! Only final answers are held against each other: whether a callee rings with 180 or 183 is its own
//! affair. Every difference has a reason; the first that applies is told.

use std::fmt;

use super::play::{Played, Row};

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every request got the final answer of the capture.
    Same,
    /// At least one got another.
    Differs,
    /// The capture holds no final answer that could be compared.
    Unanswered,
    /// Nothing of it could be asked.
    NotReplayable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Verdict::Same => "same",
            Verdict::Differs => "differs",
            Verdict::Unanswered => "unanswered in the capture",
            Verdict::NotReplayable => "not replayable",
        })
    }
}

/// A verdict with its reasons: for each row that differs, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The verdict.
    pub(super) verdict: Verdict,
    /// Why, in sentences.
    pub(super) reasons: Vec<String>,
}

/// What else is known when a call is judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Rule and explanation of the gateway's decision record.
    pub(super) decision: Option<(String, String)>,
    /// The patience that was had, in milliseconds.
    pub(super) patience_ms: u128,
}

/// Judges a call.
pub(super) fn judge(played: &Played, known: &Known) -> Judgement {
    let mut reasons: Vec<String> = Vec::new();
    let (mut same, mut other, mut open) = (0_u32, 0_u32, 0_u32);
    for (at, row) in played.rows.iter().enumerate() {
        // What is not in the capture cannot differ from it, and ACK has no answer.
        if !row.sent || row.own || row.method == "ACK" {
            continue;
        }
        let covered = played.rows.iter().rev().find(|other| other.covered_by == Some(at));
        let reason = match (row.captured_final(), row.our_final()) {
            (Some(captured), Some(ours)) if captured == ours => {
                same += 1;
                continue;
            }
            (Some(captured), _) => {
                other += 1;
                difference(row, captured, covered, known)
            }
            (None, _) => {
                open += 1;
                uncompared(row, known)
            }
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if let Some(broken) = &played.broken {
        reasons.push(format!("the replay broke off: {broken}"));
        other += 1;
    }
    let verdict = match (same, other, open) {
        (0, 0, 0) => Verdict::NotReplayable,
        (0, 0, _) => Verdict::Unanswered,
        (_, 0, _) => Verdict::Same,
        _ => Verdict::Differs,
    };
    if verdict == Verdict::NotReplayable {
        reasons.push(nothing_asked(&played.rows).to_owned());
    }
    Judgement { verdict, reasons }
}

/// Why there was nothing to send.
fn nothing_asked(rows: &[Row]) -> &'static str {
    if rows.is_empty() {
        "the capture holds answers alone, without what was asked"
    } else if rows.iter().any(|row| row.asked) {
        "the capture holds nothing of it that is answered"
    } else {
        "the far side asks nothing in it"
    }
}

/// Why a row differs from what was captured.
fn difference(row: &Row, captured: u16, covered: Option<&Row>, known: &Known) -> String {
    let method = row.method.as_str();
    let why = our_reason(row, known);
    if matches!(captured, 401 | 407) {
        let wants = format!("the capture's server wants credentials ({captured})");
        return match covered.and_then(Row::captured_final) {
            Some(later) if Some(later) == row.our_final() => {
                format!("{wants}, and then gives the same {later}: {why}")
            }
            Some(later) => format!("{wants}, and then gives {later}: {why}"),
            None => format!("{wants}: {why}"),
        };
    }
    match their_reason(method, captured) {
        Some(theirs) if row.our_final().is_some_and(|ours| ours < 300) => {
            format!("{theirs} ({captured}): {why}")
        }
        _ => format!("the capture's answer to {method} is {captured}: {why}"),
    }
}

/// A row without a final answer in the capture.
fn uncompared(row: &Row, known: &Known) -> String {
    format!("the capture holds no final answer to {}: {}", row.method, our_reason(row, known))
}

/// What the gateway did, and why.
fn our_reason(row: &Row, known: &Known) -> String {
    let because = match known.decision.as_ref().filter(|_| row.method == "INVITE") {
        Some((rule, explanation)) => format!(", {rule}: {explanation}"),
        None => String::new(),
    };
    match (row.our_final(), row.ours.last()) {
        (Some(300..), _) if !because.is_empty() => {
            format!("Trunkline answers {}{because}", row.ours.last().copied().unwrap_or_default())
        }
        (Some(ours), _) => answered(&row.method, ours, &row.phrase),
        (None, None) if row.note.is_some() => row.note.clone().unwrap_or_default(),
        (None, None) => {
            format!("Trunkline says nothing within {} ms{because}", known.patience_ms)
        }
        (None, Some(last)) => {
            format!("Trunkline says {last} and no more within {} ms{because}", known.patience_ms)
        }
    }
}

/// Why the gateway answers as it does, where no decision record tells.
fn answered(method: &str, ours: u16, phrase: &str) -> String {
    match (method, ours) {
        ("INVITE", 200..300) => format!("here the number's agent takes the call, {ours}"),
        ("INVITE", 487) => "here the call is cancelled while it rings, 487".to_owned(),
        ("REGISTER", 405) => "Trunkline is no registrar, 405".to_owned(),
        ("PUBLISH" | "MESSAGE" | "SUBSCRIBE", 405 | 489) => {
            format!("Trunkline takes no {method}, {ours}")
        }
        ("CANCEL", 481) => "no such INVITE waits here, 481".to_owned(),
        (_, 481) => format!("Trunkline knows no such dialog, {ours}"),
        (_, 405 | 501) => format!("Trunkline does not know {method}, {ours}"),
        ("OPTIONS", 200) => "Trunkline says that it is well, 200".to_owned(),
        (_, 400) => format!("Trunkline finds it malformed, 400 {phrase}"),
        _ => format!("Trunkline answers {ours} {phrase}").trim_end().to_owned(),
    }
}

/// What a refusal of the capture tells about its callee.
fn their_reason(method: &str, captured: u16) -> Option<&'static str> {
    if method != "INVITE" {
        return None;
    }
    Some(match captured {
        300..400 => "the capture's server sends the caller elsewhere",
        403 => "the capture's server forbids the call",
        404 | 604 => "the capture's server knows no such number",
        408 | 480 => "the capture's callee is not there",
        486 | 600 => "the capture's callee is busy",
        487 => "the capture's caller gave up",
        488 | 606 => "the capture's callee finds no common media",
        603 => "the capture's callee declines",
        500..600 => "the capture's server has a fault",
        _ => return None,
    })
}
