//! How reports look on a terminal, and plain elsewhere.

use std::io::IsTerminal;

/// Escape sequences of ECMA-48, or nothing.
pub(crate) struct Style {
    pub(crate) bold: &'static str,
    pub(crate) dim: &'static str,
    /// Of what is as it should be.
    pub(crate) good: &'static str,
    /// Of what is otherwise, without being wrong.
    pub(crate) other: &'static str,
    /// Of what is wrong.
    pub(crate) bad: &'static str,
    pub(crate) off: &'static str,
}

impl Style {
    pub(crate) const PLAIN: Style =
        Style { bold: "", dim: "", good: "", other: "", bad: "", off: "" };

    const COLOURED: Style = Style {
        bold: "\x1b[1m",
        dim: "\x1b[2m",
        good: "\x1b[32m",
        other: "\x1b[33m",
        bad: "\x1b[31m",
        off: "\x1b[0m",
    };

    /// For standard output: coloured on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn of_stdout() -> Self {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if coloured { Self::COLOURED } else { Self::PLAIN }
    }
}
