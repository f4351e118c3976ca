//! One worker process, as the gateway sees it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use config::ids::OrganisationId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::wire::{self, LONGEST_REPLY, LONGEST_TASK};

/// The hidden subcommand that makes a process a worker.
pub const SUBCOMMAND: &str = "workflow-worker";

/// Tasks after which a worker is replaced, whatever state it is in.
const MOST_TASKS: u32 = 10_000;

/// How long a dead worker may take to say what it died of.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A worker between tasks. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    tasks: u32,
    ready: bool,
    /// Whose task it did last: its compiled texts are still there.
    pub(super) last: Option<OrganisationId>,
}

impl Worker {
    /// Starts one, with nothing of ours but three descriptors.
    pub(super) fn start(program: &Path, memory_mib: u32) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .arg(memory_mib.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, to, from, tasks: 0, ready: false, last: None })
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
        self.to.flush().await?;
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
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it died of, for the author of the code it ran.
    pub(super) async fn epitaph(mut self) -> &'static str {
        let Ok(Ok(status)) = tokio::time::timeout(LAST_WORDS, self.child.wait()).await else {
            return "the worker was stopped";
        };
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
}
