//! One worker process, as the gateway sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use config::ids::OrganisationId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;

use super::wire::{self, LONGEST_REPLY, LONGEST_TASK};

/// The hidden subcommand that makes a process a worker.
pub const SUBCOMMAND: &str = "workflow-worker";

/// Tasks after which a worker is replaced, whatever state it is in.
const MOST_TASKS: u32 = 10_000;

/// How often, and how many times, a worker whose pipe broke is asked what it died of.
const LAST_WORDS: (Duration, u32) = (Duration::from_millis(5), 40);

/// A worker between tasks. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Worker {
    process: Process,
    to: pipe::Sender,
    from: pipe::Receiver,
    tasks: u32,
    ready: bool,
    /// Whose task it did last: its compiled texts are still there.
    pub(super) last: Option<OrganisationId>,
}

/// A child process that does not outlive its owner.
#[derive(Debug)]
struct Process(Option<Child>);

impl Process {
    /// How it ended, if it has.
    fn status(&mut self) -> Option<ExitStatus> {
        self.0.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if child.kill().is_err() {
            return; // it had ended, and its status was taken
        }
        // What it ended with has to be taken, or it stays in the system's table; that may wait for a
        // moment, so not here.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || child.wait());
        }
    }
}

impl Worker {
    /// Starts one, with nothing of ours but three descriptors. Must be called within a runtime.
    pub(super) fn start(program: &Path, memory_mib: u32) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .arg(memory_mib.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let process = Process(Some(child));
        let (to, from) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let to = pipe::Sender::from_owned_fd(OwnedFd::from(to))?;
        let from = pipe::Receiver::from_owned_fd(OwnedFd::from(from))?;
        Ok(Self { process, to, from, tasks: 0, ready: false, last: None })
    }

    /// Waits until it is confined and reads: on a busy machine that takes longer than many a task.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        if !self.ready {
            let mut length = [0; 4];
            self.from.read_exact(&mut length).await?;
            wire::announced(length, 0)?;
            self.ready = true;
        }
        Ok(())
    }

    /// Sends a task with its context and waits for the reply. After an error, or if the future is
    /// dropped, the worker is of no more use.
    pub(super) async fn exchange(&mut self, task: &[u8], context: &[u8]) -> io::Result<Vec<u8>> {
        self.tasks += 1;
        for frame in [task, context] {
            self.to.write_all(&wire::length(frame, LONGEST_TASK)?).await?;
            self.to.write_all(frame).await?;
        }
        let mut length = [0; 4];
        self.from.read_exact(&mut length).await?;
        let mut reply = vec![0; wire::announced(length, LONGEST_REPLY)?];
        self.from.read_exact(&mut reply).await?;
        Ok(reply)
    }

    /// Whether it may do another task.
    pub(super) const fn is_fresh(&self) -> bool {
        self.tasks < MOST_TASKS
    }

    /// Whether it is still there: the system may have ended it while it was idle.
    pub(super) fn is_alive(&mut self) -> bool {
        self.process.status().is_none()
    }

    /// What it died of, for the author of the code it ran.
    pub(super) async fn epitaph(mut self) -> &'static str {
        let (pause, times) = LAST_WORDS;
        for _ in 0..times {
            if let Some(status) = self.process.status() {
                return cause(status);
            }
            tokio::time::sleep(pause).await;
        }
        "the worker was stopped"
    }
}

fn cause(status: ExitStatus) -> &'static str {
    match (status.signal(), status.code()) {
        (Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS | libc::SIGILL), _) => {
            "it used more memory, or nested deeper, than a step may"
        }
        (Some(libc::SIGXCPU), _) => "it used more processor time than a step may",
        (Some(_), _) => "the worker was stopped",
        (None, Some(3)) => "this machine cannot confine workers, so they compute nothing",
        (None, _) => "the worker failed",
    }
}
