//! A real name server on a loopback port: dnsmasq, with the records of one test.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::port::{free_port, is_bound};
use crate::process::Process;
use crate::wait;

/// The zone that every name of a test lies in; what it does not hold does not exist.
pub const ZONE: &str = "test";

/// The records of a test.
#[derive(Clone, Debug, Default)]
pub struct Records(Vec<String>);

impl Records {
    /// A name with the address 127.0.0.1 (A).
    #[must_use]
    pub fn address(mut self, name: &str) -> Self {
        self.0.push(format!("--host-record={name},127.0.0.1"));
        self
    }

    /// A name with the address ::1 (AAAA) and no other.
    #[must_use]
    pub fn address_v6(mut self, name: &str) -> Self {
        self.0.push(format!("--host-record={name},::1"));
        self
    }

    /// A server of a domain (SRV, RFC 2782): `priority`, then `weight`.
    #[must_use]
    pub fn server(
        mut self,
        service: &str,
        target: &str,
        port: u16,
        (priority, weight): (u16, u16),
    ) -> Self {
        self.0.push(format!("--srv-host={service},{target},{port},{priority},{weight}"));
        self
    }

    /// Serves them.
    ///
    /// # Panics
    /// When dnsmasq does not listen in time.
    #[must_use]
    pub fn serve(self) -> NameServer {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new("dnsmasq");
        command
            .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
            .args(["--bind-interfaces", "--listen-address=127.0.0.1", "--log-queries"])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--local=/{ZONE}/"))
            .args(self.0);
        let process = Process::start("dnsmasq", &mut command);
        wait::until("dnsmasq listens", Duration::from_secs(10), || {
            is_bound(false, address.port()).then_some(())
        });
        NameServer { address, process }
    }
}

/// A name server at work.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    process: Process,
}

impl NameServer {
    /// The value of `sip.nameservers` that asks it and nobody else.
    #[must_use]
    pub fn setting(&self) -> String {
        format!("[\"{}\"]", self.address)
    }

    /// What it was asked so far: `SRV _sip._udp.carrier.test`.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        let asked = |line: &String| {
            let (_, question) = line.split_once("query[")?;
            let (kind, rest) = question.split_once("] ")?;
            Some(format!("{kind} {}", rest.split(' ').next()?))
        };
        self.process.stderr().iter().filter_map(asked).collect()
    }
}
