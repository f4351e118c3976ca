//! How an agent hears the caller: every frame as soon as it is whole.
//!
//! An agent does not play the audio out, it listens, so nothing is gained by pacing it. What it needs
//! is order, no gaps, and over time one frame for every 20 ms. An account keeps that:
//!
//! ```text
//!   a frame is handed on   ahead + 1        whole frames always; concealment only when the account
//!   20 ms pass             ahead − 1        is behind by more than the network's delay variation
//! ```
//!
//! A packet that comes late is handed on late, one that is lost or very late is concealed. What comes
//! after having been concealed is too much; it is left out again where it is quiet, or at once above
//! the greatest depth of the playout buffer. When the caller is silent (or says nothing yet) the
//! agent gets comfort noise with every tick.

use super::listen::{Listener, voice};
use crate::frame::{FRAME_MS, Frame};

/// What was handed on, against real time.
pub(super) struct Account {
    /// Frames handed on less the 20 ms that have passed.
    ahead: i32,
    /// Frames of comfort noise since the last one that was heard.
    silent: u32,
    /// Frames since one was left out.
    since_correction: u32,
}

impl Account {
    /// Nothing was heard yet.
    pub(super) const fn new() -> Self {
        Self { ahead: 0, silent: SILENCE_FRAMES, since_correction: 0 }
    }

    fn handed_on(&mut self, heard: bool) {
        self.ahead += 1;
        self.since_correction = self.since_correction.saturating_add(1);
        self.silent = if heard { 0 } else { self.silent.saturating_add(1) };
    }
}

impl Listener {
    /// Hands on what is whole.
    pub(super) fn hand_on(&mut self, give: &mut dyn FnMut(&Frame)) {
        let most = i32::try_from(self.jitter.max_ms() / FRAME_MS).unwrap_or(0);
        loop {
            let account = &mut self.account;
            let surplus = account.ahead >= 1 && account.since_correction >= CORRECTION_FRAMES;
            if surplus && self.jitter.drop_quiet() {
                account.since_correction = 0;
                continue;
            }
            let Some(slot) = self.jitter.take_whole() else { return };
            let (mut frame, heard) = voice(self.codec, slot, &mut self.concealer);
            self.clean(&mut frame, heard);
            if self.account.ahead < most {
                self.account.handed_on(true);
                give(&frame);
            }
        }
    }

    /// 20 ms have passed: hands on what is whole, and what stands for what is overdue.
    pub(super) fn hand_on_overdue(&mut self, give: &mut dyn FnMut(&Frame)) {
        self.jitter.age();
        self.account.ahead -= 1;
        self.hand_on(give);
        while self.account.ahead < -self.patience() {
            let slot = self.jitter.take_overdue();
            let (mut frame, heard) = voice(self.codec, slot, &mut self.concealer);
            self.clean(&mut frame, heard);
            self.account.handed_on(heard);
            give(&frame);
            self.hand_on(give);
        }
    }

    /// Frames the account may be behind before something is made up: as many as packets are known
    /// to be late; none once the caller has fallen silent.
    fn patience(&self) -> i32 {
        if self.account.silent >= SILENCE_FRAMES {
            return 0;
        }
        i32::try_from(self.jitter.target_ms() / FRAME_MS).unwrap_or(0)
    }
}

/// Without a packet for so many frames the caller is silent, not late: 100 ms.
const SILENCE_FRAMES: u32 = 5;

/// Frames between two that are left out: half a second.
const CORRECTION_FRAMES: u32 = 25;
