//! The table of verdicts: one line per call, with tabs between
//!
//! `file  call  methods  in the capture  here  verdict  why  comment`
//!
//! Of the answers only the final ones are kept: `-` is none, `.` was not sent. The comment is written
//! by people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gateway::replay::{CallReport, FileReport, Row};

/// A table of verdicts.
pub(crate) struct Table {
    path: PathBuf,
    head: String,
    /// What is kept of each call, and the comment, by file and number.
    lines: BTreeMap<(String, String), (String, String)>,
}

impl Table {
    pub(crate) fn read(name: &str) -> Table {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("replay").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let (head, lines): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('#') || line.is_empty());
        let lines = lines.iter().map(|line| {
            let parts: Vec<&str> = line.split('\t').collect();
            let comment = parts.get(7).copied().unwrap_or_default();
            let kept = parts.get(2..7).unwrap_or_default().join("\t");
            ((parts[0].to_owned(), parts[1].to_owned()), (kept, comment.to_owned()))
        });
        Table { path, head: head.join("\n"), lines: lines.collect() }
    }

    /// Holds what was seen against what is kept, or keeps it when asked to.
    pub(crate) fn check(&self, reports: &[FileReport]) {
        let mut wrong = Vec::new();
        let mut text = format!("{}\n", self.head);
        let mut known = 0;
        for (key, seen) in reports.iter().flat_map(lines_of) {
            let kept = self.lines.get(&key);
            known += usize::from(kept.is_some());
            let (kept, comment) = kept.cloned().unwrap_or_default();
            if kept != seen {
                wrong.push(format!("{} {}:\n  kept {kept}\n  seen {seen}", key.0, key.1));
            }
            text += &format!("{}\t{}\t{seen}\t{comment}\n", key.0, key.1);
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&self.path, text).unwrap();
            return;
        }
        if known != self.lines.len() {
            wrong.push(format!("{} kept lines are no longer seen", self.lines.len() - known));
        }
        let path = self.path.display();
        assert!(wrong.is_empty(), "UPDATE_GOLDEN=1 rewrites {path}:\n{}", wrong.join("\n"));
    }
}

fn lines_of(report: &FileReport) -> Vec<((String, String), String)> {
    let path = Path::new(&report.name);
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if report.calls.is_empty() {
        let others: Vec<&str> = report.others.keys().map(String::as_str).collect();
        let line = format!("-\t-\t-\tno SIP\t{}", others.join(", "));
        return vec![((file, "0".to_owned()), line)];
    }
    let calls = report.calls.iter().enumerate();
    calls.map(|(at, call)| ((file.clone(), (at + 1).to_string()), line_of(call))).collect()
}

fn line_of(call: &CallReport) -> String {
    let asked: Vec<&Row> = call.rows.iter().filter(|row| row.asked && !row.own).collect();
    let of = |each: &dyn Fn(&&Row) -> String| asked.iter().map(each).collect::<Vec<_>>().join(" ");
    let status = |status: Option<u16>| status.map_or("-".to_owned(), |status| status.to_string());
    [
        // Fuzzed methods hold anything.
        of(&|row| row.method.escape_debug().to_string()),
        of(&|row| status(row.captured_final())),
        of(&|row| if row.sent { status(row.our_final()) } else { ".".to_owned() }),
        call.verdict.to_string(),
        call.reasons.join("; "),
    ]
    .join("\t")
}
