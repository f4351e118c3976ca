//! Kamailio as the proxy in front of a carrier, or of us: stateful, on the route of every dialog.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::peer::asset;
use crate::port::{free_port, is_bound};
use crate::process::Process;
use crate::wait;

/// How long it may take to start or to stop.
const STEP: Duration = Duration::from_secs(15);

/// Who may call through it.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// The user that must show credentials for every request.
    pub user: &'static str,
    /// The user's password.
    pub password: &'static str,
    /// `MD5` or `SHA-256`.
    pub algorithm: &'static str,
}

/// A running proxy.
#[derive(Debug)]
pub struct Kamailio {
    process: Process,
    _folder: TempDir,
    /// Where calls come in, UDP and TCP.
    pub address: SocketAddr,
}

impl Kamailio {
    /// Passes calls on to `next` over UDP or TCP (`udp`, `tcp`), from another port than they came in on:
    /// it is in every route twice (RFC 5658).
    ///
    /// # Panics
    /// When it does not start in time.
    #[must_use]
    pub fn start(next: SocketAddr, transport: &str, door: Option<Door>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (first, second) = (free_port(), free_port());
        let config = std::fs::read_to_string(asset("kamailio.cfg")).expect("the asset is there");
        let known = door.unwrap_or(Door { user: "", password: "", algorithm: "MD5" });
        let config = config
            .replace("{{first}}", &first.to_string())
            .replace("{{second}}", &second.to_string())
            .replace("{{next}}", &format!("sip:{next};transport={transport}"))
            .replace("{{transport}}", transport)
            .replace("{{door}}", if door.is_some() { "#!define DOOR" } else { "" })
            .replace("{{user}}", known.user)
            .replace("{{password}}", known.password)
            .replace("{{algorithm}}", known.algorithm);
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, config).expect("config can be written");
        let mut command = Command::new("kamailio");
        command
            .args(["-DD", "-E", "-m", "32", "-M", "8", "-f"])
            .arg(&file)
            .arg("-Y")
            .arg(folder.path())
            .current_dir(folder.path());
        let mut process = Process::start("kamailio", &mut command);
        wait::until("Kamailio listens", STEP, || {
            assert!(process.exited().is_none(), "{}", process.tail(40));
            (is_bound(false, first) && is_bound(true, first)).then_some(())
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, first));
        Kamailio { process, _folder: folder, address }
    }

    /// What it noted about requests inside dialogs: `routed BYE`, or `astray BYE` for one that did not
    /// name it in its Route.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note = |line: &String| Some(line.split_once("note: ")?.1.trim().to_owned());
        self.process.stderr().iter().filter_map(note).collect()
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Killed outright it would leave its children behind.
        self.process.signal(libc::SIGTERM);
        let _ = wait::try_until(STEP, || self.process.exited());
    }
}
