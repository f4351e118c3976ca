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
    /// Nothing of it could be asked.
    NotReplayable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Verdict::Same => "same",
            Verdict::Differs => "differs",
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
    let mut sent = false;
    for (at, row) in played.rows.iter().enumerate() {
        // What is not in the capture cannot differ from it, and ACK has no answer.
        if !row.sent || row.own || row.method == "ACK" {
            continue;
        }
        sent = true;
        let covered = played.rows.iter().rev().find(|other| other.covered_by == Some(at));
        let reason = difference(row, covered, known);
        reasons.extend(reason.filter(|reason| !reasons.contains(reason)));
    }
    if let Some(broken) = &played.broken {
        reasons.push(format!("the replay broke off: {broken}"));
    }
    let only_ack = played.rows.iter().all(|row| !row.asked || row.method == "ACK");
    if !sent && reasons.is_empty() {
        let why = if only_ack && played.rows.iter().any(|row| row.asked) {
            "the capture holds nothing of it that has an answer"
        } else {
            "the far side asks nothing in it that a gateway could be asked"
        };
        return Judgement { verdict: Verdict::NotReplayable, reasons: vec![why.to_owned()] };
    }
    let verdict = if reasons.is_empty() { Verdict::Same } else { Verdict::Differs };
    Judgement { verdict, reasons }
}

/// Why a row differs; `None` when it does not.
fn difference(row: &Row, covered: Option<&Row>, known: &Known) -> Option<String> {
    let ours = row.our_final();
    let captured = row.captured_final();
    if captured == ours && captured.is_some() {
        return None;
    }
    let method = row.method.as_str();
    let Some(ours) = ours else { return silence(row, known) };
    let why = gateways_own_reason(method, ours, known);
    let Some(captured) = captured else {
        return Some(format!("the capture holds no final answer to {method}: {why}"));
    };
    if let (401 | 407, Some(covered)) = (captured, covered) {
        let later = covered.captured_final();
        let then = match later {
            Some(later) if later == ours => format!(", and then gives the same {later}"),
            Some(later) => format!(", and then gives {later}"),
            None => String::new(),
        };
        return Some(format!("the capture's server wants credentials ({captured}){then}: {why}"));
    }
    if matches!(captured, 401 | 407) {
        return Some(format!("the capture's server wants credentials ({captured}): {why}"));
    }
    Some(match capture_s_own_reason(method, captured) {
        Some(theirs) if ours < 300 => format!("{theirs} ({captured}): {why}"),
        _ => format!("the capture's answer to {method} is {captured}: {why}"),
    })
}

fn silence(row: &Row, known: &Known) -> Option<String> {
    let captured = row.captured_final();
    let method = &row.method;
    if captured.is_none() && row.ours.is_empty() && row.capture.is_empty() {
        return Some(format!(
            "nobody answers {method}: neither in the capture nor, within {} ms, the gateway",
            known.patience_ms
        ));
    }
    let captured = captured?;
    let heard = match row.ours.last() {
        Some(status) => format!("nothing but {status}"),
        None => "no answer".to_owned(),
    };
    let because = match &known.decision {
        Some((rule, explanation)) => format!(" ({rule}: {explanation})"),
        None => String::new(),
    };
    Some(format!(
        "the capture's answer to {method} is {captured}; the gateway gives {heard} within {} ms{because}",
        known.patience_ms
    ))
}

/// Why the gateway answers as it does.
fn gateways_own_reason(method: &str, ours: u16, known: &Known) -> String {
    let decision = known.decision.as_ref().filter(|_| method == "INVITE");
    match (method, ours) {
        (_, 300..) if decision.is_some() => {
            let (rule, explanation) = decision.cloned().unwrap_or_default();
            format!("Trunkline answers {ours}, {rule}: {explanation}")
        }
        ("INVITE", 200..300) => format!("here the number's agent takes the call, {ours}"),
        ("REGISTER", 405) => "Trunkline is no registrar, 405".to_owned(),
        ("PUBLISH" | "MESSAGE" | "SUBSCRIBE", 405 | 489) => {
            format!("Trunkline takes no {method}, {ours}")
        }
        ("CANCEL", 481) => "there is no such INVITE waiting here, 481".to_owned(),
        (_, 481) => format!("Trunkline knows no such dialog, {ours}"),
        (_, 400) => format!("Trunkline finds the {method} malformed, {ours}"),
        (_, 405 | 501) => format!("Trunkline does not know {method}, {ours}"),
        ("OPTIONS", 200) => "Trunkline says that it is well, 200".to_owned(),
        _ => format!("Trunkline answers {ours}"),
    }
}

/// What a refusal of the capture tells about its callee.
fn capture_s_own_reason(method: &str, captured: u16) -> Option<&'static str> {
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
