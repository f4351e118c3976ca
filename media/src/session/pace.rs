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
//! What is held back is not sent at once but owed, so each 20 ms of real time become exactly one
//! packet of 20 ms and time stamps stay right. A queue is played out with the tick, evenly. Silence
//! that is sent while somebody speaks live delays all that follows; so a frame that is a little late,
//! or a link that stalls for less than 40 ms, does not cause any.
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
}

impl Pace {
    /// Nothing was said yet.
    pub(super) const fn new() -> Self {
        Self { owed: 0, burst: 0, quiet: 0, live: false }
    }

    /// 20 ms have passed. A tick is not `on_time` when it is made up for after a stall, right after
    /// another one.
    pub(super) fn tick(&mut self, on_time: bool) {
        self.owed = self.owed.saturating_add(1);
        if on_time {
            self.burst = 0;
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

    /// A tick has sent what it may, and the agent has said `more`.
    pub(super) fn found(&mut self, more: bool) {
        self.live &= !more;
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

/// Ticks held back while the agent is silent.
const QUIET_PATIENCE: u32 = 1;

/// After so many ticks without a word an agent is silent and not late: 100 ms.
const QUIET_TICKS: u32 = 5;
