//! When an agent's words leave: at once if they may, in step with real time in the long run.
//!
//! The worker's tick comes every 20 ms, but an agent speaks whenever it likes. An agent that speaks
//! live sends a frame every 20 ms, somewhere between two ticks; if each of them had to wait for the
//! next tick, the caller would hear everything 10 ms later. So the tick only counts, and a frame
//! leaves as soon as it is there and something is owed:
//!
//! ```text
//!                      ┌────────────── owed ──────────────┐
//!   tick               │ + 1                              │
//!   a frame, a key     │ − 1   when it comes, or at the   │  at most BURST_MAX packets
//!                      │       tick it had to wait for    │  between two ticks
//!   silence, at a tick │ − 1   while more is owed than    │
//!                      │       may be held back           │
//!                      └──────────────────────────────────┘
//!
//!   held back:  nothing      while a queue is played out, and for 100 ms after its end
//!               1 tick       from 100 ms of silence on: the next word need not wait for a tick
//!               2 ticks      while the agent speaks live: a frame that is late is awaited
//! ```
//!
//! Frames that a few others have always to wait for are late for nothing, because of a stall perhaps
//! that is over. When every tick of a second has found some, one more is owed, so that what waits gets
//! shorter by a frame. The stream is then ahead of real time by so much, and the caller's buffer longer;
//! that is paid back as soon as there is nothing to say, by every other packet of silence that is left
//! out.
//!
//! What is held back is not sent at once but owed, so in the long run each 20 ms are exactly one
//! packet of 20 ms and time stamps stay right. A queue is played out with the tick, evenly. Silence
//! that is sent while somebody speaks live delays all that follows; so a frame that is late by up to
//! 20 ms does not cause any. The caller never has a gap of more than 60 ms.
//!
//! The alternative is a beat of its own for every session, of a quarter of a tick, moved to where the
//! agent's frames come. It needs four times the wake-ups, of idle sessions too, and still makes every
//! frame wait for its beat.

/// What is owed to the caller of an agent.
pub(super) struct Pace {
    /// Packets of 20 ms whose time has come and that were not sent.
    owed: u32,
    /// Packets sent since the last tick that was on time.
    burst: u32,
    /// Ticks in a row that found nothing to say, up to [`QUIET_TICKS`].
    quiet: u32,
    /// The agent's frames are sent when they come.
    live: bool,
    /// Ticks in a row that found a few frames waiting.
    behind: u32,
    /// Packets sent ahead of real time and not paid back.
    lead: u32,
    /// The last tick has paid one back.
    paid: bool,
}

impl Pace {
    /// Nothing was said yet.
    pub(super) const fn new() -> Self {
        Self {
            owed: 0,
            burst: 0,
            quiet: QUIET_TICKS - 1,
            live: false,
            behind: 0,
            lead: 0,
            paid: false,
        }
    }

    /// 20 ms have passed, and so much is `waiting` to be sent. A tick is not `on_time` when it is made
    /// up for after a stall, right after another one.
    pub(super) fn tick(&mut self, on_time: bool, waiting: u64) {
        if on_time {
            self.burst = 0;
        }
        let silent = waiting == 0 && self.owed >= self.patience();
        self.paid = silent && self.lead > 0 && !self.paid;
        if self.paid {
            self.lead -= 1;
        } else {
            self.owed = self.owed.saturating_add(1);
        }
        let some = (1..=FEW).contains(&waiting);
        self.behind = if some { self.behind.saturating_add(1) } else { 0 };
        if self.behind >= BEHIND_TICKS && self.lead < LEAD_MAX {
            self.behind = 0;
            self.owed += 1;
            self.lead += 1;
            // Unless there is more than that, what comes next need not wait.
            self.live = true;
        }
    }

    /// Something may be sent now.
    pub(super) const fn may_send(&self) -> bool {
        self.owed > 0 && self.burst < BURST_MAX
    }

    /// A packet was sent that is neither the agent's nor silence for want of it.
    pub(super) fn sent(&mut self) {
        self.owed = self.owed.saturating_sub(1);
        self.burst = self.burst.saturating_add(1);
    }

    /// The agent's next frame or key was sent.
    pub(super) fn spoke(&mut self) {
        self.sent();
        self.quiet = 0;
    }

    /// All that the agent has said so far was sent when it came.
    pub(super) fn kept_up(&mut self) {
        self.live = true;
    }

    /// A tick has sent what it may, and so much is still `waiting`.
    pub(super) fn left(&mut self, waiting: u64) {
        self.live &= waiting == 0;
    }

    /// A tick has found nothing to say: silence is to be sent until this is false.
    pub(super) const fn must_fill(&self) -> bool {
        self.may_send() && self.owed > self.patience()
    }

    /// Silence was sent.
    pub(super) fn filled(&mut self) {
        self.sent();
        self.quiet = (self.quiet + 1).min(QUIET_TICKS);
        self.live &= self.quiet < QUIET_TICKS;
    }

    /// Time has passed with nothing sent in it and nothing owed for it: the agent may not speak, or
    /// the worker was stalled for long. Returns the ticks that are not owed any more.
    pub(super) fn forget(&mut self) -> u32 {
        std::mem::take(&mut self.owed)
    }

    const fn patience(&self) -> u32 {
        if self.live {
            LIVE_PATIENCE
        } else if self.quiet >= QUIET_TICKS {
            QUIET_PATIENCE
        } else {
            0
        }
    }
}

/// What may leave between two ticks: 60 ms, as after any stall.
const BURST_MAX: u32 = 3;

/// Ticks for which a frame of an agent that speaks live is awaited.
const LIVE_PATIENCE: u32 = 2;

/// Frames that wait one behind the other. What has said more than this at a time is not live: it is
/// played out as it comes, to its end.
const FEW: u64 = 4;

/// Ticks in a row that must have found frames waiting before one more is owed: a second.
const BEHIND_TICKS: u32 = 50;

/// What may be sent ahead of real time: half a second.
const LEAD_MAX: u32 = 25;

/// Ticks held back while the agent is silent.
const QUIET_PATIENCE: u32 = 1;

/// After so many ticks without a word an agent is silent and not late: 100 ms.
const QUIET_TICKS: u32 = 5;
