//! A PostgreSQL server of the test's own: on loopback, in a temporary folder, gone with its value.
//!
//! PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`. Of a frozen server
//! every process is stopped (SIGSTOP): its sockets stay open and nobody answers, as when a machine
//! or a disk hangs.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::peer;
use crate::port::free_port;
use crate::process::{Process, send_signal};

/// How long it may take to start or to stop.
const STEP: Duration = Duration::from_secs(30);

/// What opens it; a test can look for it where it must not be.
pub const PASSWORD: &str = "canary-of-the-store";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Postgres {
    /// Starts one with an empty database; `None`, and said so, where PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it does not start in time.
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let _ = peer::have(&["postgres"]);
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).expect("the password can be written");
        for path in [folder.path(), &secret] {
            if let Some((user, group)) = unprivileged() {
                chown(path, Some(user), Some(group)).expect("root can give files away");
            }
        }
        let mut server = Postgres { process: None, programs, folder, port: free_port() };
        let made = server
            .command("initdb")
            .args(["--username=trunkline", "--auth=scram-sha-256", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pwfile"])
            .arg(&secret)
            .output()
            .expect("initdb can be run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.resume();
        Some(server)
    }

    /// The setting `store.url`, as TOML.
    #[must_use]
    pub fn setting(&self) -> String {
        let host = Ipv4Addr::LOCALHOST;
        format!("\"postgres://trunkline:{PASSWORD}@{host}:{}/postgres\"", self.port)
    }

    /// Stops the server in order; every connection is closed.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(libc::SIGINT);
            process.finish(STEP);
        }
    }

    /// Starts it again, with all it had.
    ///
    /// # Panics
    /// When it does not start in time.
    pub fn resume(&mut self) {
        let mut command = self.command("postgres");
        command
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"]);
        let mut process = Process::start("postgres", &mut command);
        process.find("readiness", STEP, |line| {
            line.contains("ready to accept connections").then_some(())
        });
        self.process = Some(process);
    }

    /// Stops every process of it in the middle of whatever it does.
    pub fn freeze(&self) {
        self.signal_all(libc::SIGSTOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(libc::SIGCONT);
    }

    fn signal_all(&self, signal: libc::c_int) {
        let Some(process) = &self.process else { return };
        send_signal(process.id(), signal); // first of all, so that it makes no more of them
        for child in children(process.id()) {
            send_signal(child, signal);
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).arg("-D").arg(self.folder.path().join("data"));
        if let Some((user, group)) = unprivileged() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed outright it would leave shared memory behind.
        self.thaw();
        if let Some(process) = &mut self.process {
            process.signal(libc::SIGINT);
            let _ = crate::wait::try_until(STEP, || process.exited());
        }
    }
}

/// The folder of `initdb` and `postgres`: on the path, or where Debian keeps them.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(std::env::split_paths(&path));
    let whole = |folder: &PathBuf| ["initdb", "postgres"].map(|name| folder.join(name).is_file());
    folders.into_iter().rfind(|folder| whole(folder) == [true, true])
}

/// Whom root runs it as: user and group; nobody else has to.
fn unprivileged() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").ok()?.uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let numbers = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    numbers("postgres").or_else(|| numbers("nobody"))
}

/// The processes that this one has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_child = |folder: &Path| {
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        // After the name, which may hold anything: state, parent.
        let after = stat.rsplit_once(')').map(|(_, after)| after.to_owned()).unwrap_or_default();
        after.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    processes
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            is_child(&entry.path()).then_some(number)
        })
        .collect()
}
