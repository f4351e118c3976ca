//! The four transaction machines of RFC 3261 §17, with the Accepted states of RFC 6026.
//!
//! A machine is told what arrived (an input) and answers with a [`Step`]: at most one message to
//! transmit and one thing to tell its user. It owns its timers and the bytes it may have to repeat;
//! it knows no header, no socket and no clock. The endpoint gives it messages in order, asks for its
//! next deadline, and drops it when it is terminated.
//!
//! Every machine is one `match` on (state, input) under the RFC's figure. The folder `golden` holds
//! the whole table of each, printed by its test.

pub(crate) mod client;
pub(crate) mod invite_client;
pub(crate) mod invite_server;
pub(crate) mod key;
pub(crate) mod server;
pub(crate) mod timer;

use std::time::Instant;

use bytes::Bytes;

use timer::{TimerTable, Timings};

/// What one step of a machine asks of the endpoint.
#[derive(Default, Debug)]
#[must_use]
pub(crate) struct Step {
    /// Bytes to send on the transaction's flow.
    pub(crate) transmit: Option<Bytes>,
    /// What the transaction's user has to hear.
    pub(crate) notice: Option<Notice>,
}

/// What a transaction tells its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// The message that caused the step is news: hand it up.
    Deliver,
    /// The peer stayed silent for too long.
    Timeout,
    /// The flow failed.
    Transport,
}

impl Step {
    /// Nothing to do: the input is absorbed.
    const fn absorb() -> Step {
        Step { transmit: None, notice: None }
    }

    /// Hand the message up.
    const fn deliver() -> Step {
        Step { transmit: None, notice: Some(Notice::Deliver) }
    }

    /// Send `bytes` (nothing when there are none).
    const fn send(bytes: Option<Bytes>) -> Step {
        Step { transmit: bytes, notice: None }
    }

    /// Tell the user only.
    const fn tell(notice: Notice) -> Step {
        Step { transmit: None, notice: Some(notice) }
    }
}

/// What every machine has: its timers, their values, and whether the transport repeats for it.
#[derive(Clone, Copy, Debug)]
struct Pace {
    timings: Timings,
    /// TCP or TLS: no A, E, G; D, I, J, K fire at once (RFC 3261 §17).
    reliable: bool,
    table: TimerTable,
    /// The interval the repeating timer was last armed with.
    interval: std::time::Duration,
}

impl Pace {
    fn new(timings: Timings, reliable: bool) -> Pace {
        Pace { timings, reliable, table: TimerTable::default(), interval: timings.t1() }
    }

    /// Starts the repeating timer at T1, unless the transport is reliable.
    fn start_repeating(&mut self, now: Instant, timer: timer::Timer) {
        self.repeat(now, timer, self.timings.t1());
    }

    /// Arms the repeating timer with `interval`, unless the transport is reliable.
    fn repeat(&mut self, now: Instant, timer: timer::Timer, interval: std::time::Duration) {
        self.interval = interval;
        if !self.reliable {
            self.table.arm(timer, now + interval);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! An instant to count from, and the printer of transition tables.

    use std::fmt::Write as _;
    use std::time::Instant;

    use super::{Pace, Step};

    /// The instant tests count from.
    #[expect(clippy::disallowed_methods, reason = "tests need one instant to count from")]
    pub(crate) fn epoch() -> Instant {
        Instant::now()
    }

    /// One line of a transition table.
    pub(super) fn line(
        states: [&str; 2],
        input: &str,
        step: &Step,
        armed: &(Instant, Pace),
    ) -> String {
        let [from, to] = states;
        let transmit =
            step.transmit.as_ref().map_or("-", |bytes| std::str::from_utf8(bytes).unwrap());
        let notice = step.notice.map_or_else(|| "-".to_owned(), |notice| format!("{notice:?}"));
        let mut timers = String::new();
        for (timer, left) in armed.1.table.armed(armed.0) {
            write!(timers, "{timer:?}={}ms ", left.as_millis()).unwrap();
        }
        let line = format!("{from:<11} {input:<16} {to:<11} {transmit:<11} {notice:<10} {timers}");
        format!("{}\n", line.trim_end())
    }

    /// The heading above the lines.
    pub(super) fn heading(title: &str) -> String {
        let columns = ["state", "input", "next state", "transmit", "tells", "timers"];
        let [state, input, next, transmit, tells, timers] = columns;
        format!(
            "{title}\n\n{state:<11} {input:<16} {next:<11} {transmit:<11} {tells:<10} {timers}\n"
        )
    }

    /// Compares `table` with the golden file of that name; `UPDATE_GOLDEN=1` writes it.
    pub(super) fn check_golden(name: &str, table: &str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/transaction/golden");
        let path = format!("{folder}/{name}.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&path, table).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == table, "{path} differs from the machine's table:\n{table}");
    }
}
