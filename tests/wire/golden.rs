//! Verdicts about messages, kept beside the tests: one line per message, with tabs between
//!
//! `name  endpoint  udp  tcp  note`
//!
//! The first three are what was seen; the note is written by people and survives a rewrite
//! (`UPDATE_GOLDEN=1`).

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What became of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// What the endpoint did for a peer it knows.
    pub(crate) endpoint: String,
    /// What the program answered to one datagram.
    pub(crate) udp: String,
    /// What it answered on a stream, byte by byte; whether the good request behind was served or
    /// swallowed, or the stream closed.
    pub(crate) tcp: String,
}

/// A golden file.
pub(crate) struct Golden {
    path: PathBuf,
    head: String,
    lines: BTreeMap<String, (Verdict, String)>,
}

impl Golden {
    pub(crate) fn read(name: &str) -> Golden {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wire").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let (head, lines): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('#') || line.is_empty());
        let lines = lines.iter().map(|line| {
            let mut parts = line.split('\t').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            let (name, endpoint, udp, tcp) = (next(), next(), next(), next());
            (name, (Verdict { endpoint, udp, tcp }, next()))
        });
        Golden { path, head: head.join("\n"), lines: lines.collect() }
    }

    /// The note beside a message.
    pub(crate) fn note(&self, name: &str) -> &str {
        self.lines.get(name).map_or("", |(_, note)| note)
    }

    /// Holds what was seen against what is kept, or keeps it when asked to.
    pub(crate) fn check(self, seen: BTreeMap<String, Verdict>) {
        let update = std::env::var_os("UPDATE_GOLDEN").is_some();
        let mut wrong = Vec::new();
        let mut text = format!("{}\n", self.head);
        for (name, verdict) in &seen {
            let kept = self.lines.get(name).map(|(kept, _)| kept);
            if kept != Some(verdict) {
                wrong.push(format!("{name}: kept {kept:?}, seen {verdict:?}"));
            }
            let Verdict { endpoint, udp, tcp } = verdict;
            text += &format!("{name}\t{endpoint}\t{udp}\t{tcp}\t{}\n", self.note(name));
        }
        let gone = self.lines.keys().filter(|name| !seen.contains_key(*name));
        wrong.extend(gone.map(|name| format!("{name}: no longer there")));
        if update {
            std::fs::write(&self.path, text).unwrap();
        } else {
            assert!(
                wrong.is_empty(),
                "UPDATE_GOLDEN=1 rewrites {}: {wrong:#?}",
                self.path.display()
            );
        }
    }
}
