//! What a call looked like: in the capture, and in this run.

/// One line of a call's ladder: what the capture shows, and what this run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The method.
    pub method: String,
    /// True when the far side asked; false when it was asked.
    pub asked: bool,
    /// The statuses of the capture.
    pub capture: Vec<u16>,
    /// The statuses of this run.
    pub ours: Vec<u16>,
    /// The reason phrase of this run's refusal; empty without one.
    pub phrase: String,
    /// True when the request went out in this run.
    pub sent: bool,
    /// True when the capture has no such row: the replay cleans up, or the gateway hangs up.
    pub own: bool,
    /// The row whose request stands for this one too: the same, before credentials were asked for.
    pub covered_by: Option<usize>,
    /// What is to be said about it.
    pub note: Option<String>,
}

impl Row {
    /// The final answer of the capture.
    #[must_use]
    pub fn captured_final(&self) -> Option<u16> {
        self.capture.iter().copied().find(|status| *status >= 200)
    }

    /// The final answer of this run.
    #[must_use]
    pub fn our_final(&self) -> Option<u16> {
        self.ours.iter().copied().find(|status| *status >= 200)
    }
}

/// What became of a call.
#[derive(Clone, Debug, Default)]
pub(in crate::replay) struct Played {
    /// Its ladder.
    pub rows: Vec<Row>,
    /// The Call-ID that the gateway saw.
    pub call_id: String,
    /// Why it broke off, when a socket failed.
    pub broken: Option<String>,
}
