//! The report of a demo: every figure in it was measured during the run.

use std::fmt::Write as _;

use super::audio::Echo;
use crate::terminal::Style;

/// What one call showed.
#[derive(Clone, Debug)]
pub struct CallReport {
    /// What the call shows, in a few words.
    pub title: String,
    /// Transport, codec, encryption.
    pub wire: String,
    /// What was dialled.
    pub dialled: String,
    /// What happened.
    pub outcome: Outcome,
    /// True when everything that was expected was seen.
    pub passed: bool,
}

/// How a call went.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was answered.
    Talked(Box<Talk>),
    /// It was refused, and this is why.
    Refused {
        /// What the caller saw: a status, or silence.
        seen: String,
        /// The rule that failed, as the API names it.
        rule: String,
        /// The sentence of the decision record.
        explanation: String,
    },
    /// It failed unexpectedly.
    Failed(String),
}

/// Figures of an answered call.
#[derive(Clone, Debug)]
pub struct Talk {
    /// How fast it came up.
    pub set_up: String,
    /// RTP packets the caller sent.
    pub sent: u64,
    /// RTP packets the caller received.
    pub received: u64,
    /// RTP packets that were lost on the way to the gateway, as its record says.
    pub lost: u64,
    /// Mean opinion score of the caller's audio at the gateway (ITU-T G.107).
    pub mos: f32,
    /// The caller's own audio, looked for in what it heard.
    pub echo: Echo,
    /// Whether it is alike enough to count as heard.
    pub back: bool,
    /// Level between words, said and heard, in dBFS, measured by the caller.
    pub noise: Option<(f32, f32)>,
    /// What else is worth knowing: a word and what it is about.
    pub notes: Vec<(&'static str, String)>,
    /// Status and end reason of the conversation record.
    pub record: String,
}

/// The whole report as text.
#[must_use]
pub fn render(calls: &[CallReport], files: &[String]) -> String {
    let style = Style::of_stdout();
    let mut text = String::new();
    let passed = calls.iter().filter(|call| call.passed).count();
    let _ = writeln!(text, "\n{}What happened{}\n", style.bold, style.off);
    for (number, call) in calls.iter().enumerate() {
        one(&mut text, &style, number + 1, call);
    }
    for file in files {
        let _ = writeln!(text, "  {}{file}{}", style.dim, style.off);
    }
    let (mark, colour) =
        if passed == calls.len() { ("✔", style.good) } else { ("✘", style.bad) };
    let _ = writeln!(
        text,
        "\n{colour}{mark} {passed} of {} calls went as they should.{}",
        calls.len(),
        style.off
    );
    text
}

fn one(text: &mut String, style: &Style, number: usize, call: &CallReport) {
    let (mark, colour) = if call.passed { ("✔", style.good) } else { ("✘", style.bad) };
    let _ = writeln!(
        text,
        "  {colour}{mark}{} {}{number}. {}{}",
        style.off, style.bold, call.title, style.off
    );
    let _ = writeln!(text, "      {}{} · {}{}", style.dim, call.wire, call.dialled, style.off);
    match &call.outcome {
        Outcome::Talked(talk) => talked(text, talk),
        Outcome::Refused { seen, rule, explanation } => {
            let _ = writeln!(text, "      the caller saw   {seen}");
            let _ = writeln!(text, "      the API says     {rule}: {explanation}");
        }
        Outcome::Failed(why) => {
            let _ = writeln!(text, "      failed           {why}");
        }
    }
    text.push('\n');
}

fn talked(text: &mut String, talk: &Talk) {
    let _ = writeln!(text, "      set-up           {}", talk.set_up);
    let _ = writeln!(
        text,
        "      audio            {} packets sent, {} received, {} lost, MOS {:.2}",
        talk.sent, talk.received, talk.lost, talk.mos
    );
    let _ = writeln!(
        text,
        "      came back        {}: {:.1} % alike, {} ms later",
        if talk.back { "yes" } else { "no" },
        talk.echo.likeness * 100.0,
        talk.echo.delay_ms
    );
    if let Some((before, after)) = talk.noise {
        let _ = writeln!(
            text,
            "      noise in pauses  {before:.1} dBFS said, {after:.1} dBFS heard: {:.1} dB quieter",
            before - after
        );
    }
    for (word, note) in &talk.notes {
        let _ = writeln!(text, "      {word:<16} {note}");
    }
    let _ = writeln!(text, "      record           {}", talk.record);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_is_not_counted_as_one_that_went_well() {
        let failed = CallReport {
            title: "a call".to_owned(),
            wire: "UDP".to_owned(),
            dialled: "+1".to_owned(),
            outcome: Outcome::Failed("no answer".to_owned()),
            passed: false,
        };
        let text = render(&[failed], &[]);
        assert!(text.contains("0 of 1 calls went as they should"), "{text}");
    }
}
