//! A child process whose lines are collected and that dies with its value.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait;

/// Lines of one output, as they come.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn follow(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        })
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running program. Dropping it kills it; in a test that failed its last lines are shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with both outputs collected and nothing on its input.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        let spawned =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|why| fail(name, &why.to_string()));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| stdout.follow(pipe)));
        readers.extend(child.stderr.take().map(|pipe| stderr.follow(pipe)));
        Process { name: name.to_owned(), child, stdout, stderr, readers }
    }

    /// Lines of its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Lines of its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Waits until `find` is content with the lines of either output.
    ///
    /// # Panics
    /// When it is not within `limit`, or the program is gone before.
    #[track_caller]
    pub fn find<T>(&mut self, what: &str, limit: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let found = wait::try_until(limit, || {
            let gone = self.exited().is_some();
            let lines = [self.stdout(), self.stderr()].concat();
            let found = lines.iter().find_map(|line| find(line));
            match found {
                Some(found) => Some(Some(found)),
                None if gone => Some(None),
                None => None,
            }
        });
        match found.flatten() {
            Some(found) => found,
            None => fail(&self.name, &format!("{what} is not in its output:\n{}", self.tail(60))),
        }
    }

    /// Memory it holds at the moment, in KiB; 0 when it is gone.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        row.and_then(|row| row.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        send_signal(self.child.id(), signal);
    }

    /// Waits for its end and for the last of its lines.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    #[track_caller]
    pub fn finish(&mut self, limit: Duration) -> ExitStatus {
        let status = wait::try_until(limit, || self.exited());
        let Some(status) = status else {
            fail(&self.name, &format!("still runs after {limit:?}:\n{}", self.tail(60)))
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }

    /// The last lines of both outputs.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let last = |all: Vec<String>| {
            let from = all.len().saturating_sub(lines);
            all.into_iter().skip(from).collect::<Vec<_>>().join("\n")
        };
        format!("--- stdout\n{}\n--- stderr\n{}", last(self.stdout()), last(self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last lines of {}:\n{}", self.name, self.tail(60));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a child, or to a child's child, that is not reaped yet.
pub fn send_signal(process: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(process) else { return };
    #[expect(unsafe_code, reason = "kill(2) has no safe wrapper")]
    // SAFETY: no memory is involved.
    unsafe {
        libc::kill(pid, signal);
    }
}

#[expect(clippy::panic, reason = "without its peer a test has failed")]
#[track_caller]
fn fail(name: &str, why: &str) -> ! {
    panic!("{name}: {why}")
}
