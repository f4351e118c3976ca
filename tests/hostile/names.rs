//! A name server on a loopback port: SRV and A records as a test has them, and a list of what was
//! asked.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// SRV and A of RFC 1035 §3.2.2 and RFC 2782.
const A: u16 = 1;
const SRV: u16 = 33;

/// What stands under a name.
#[derive(Clone)]
pub(crate) enum Record {
    /// An address.
    Address(Ipv4Addr),
    /// Priority, port and host of a service.
    Service(u16, u16, String),
}

/// A running name server.
pub(crate) struct Names {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    pub(crate) fn start(zone: Vec<(String, Record)>) -> Names {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (asked, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (list, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1_500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some((name, kind, end)) = question(&buffer[..length]) else { continue };
                list.lock().unwrap().push(name.clone());
                let records = zone.iter().filter(|(of, record)| *of == name && record.is(kind));
                let records: Vec<Record> = records.map(|(_, record)| record.clone()).collect();
                let _ = socket.send_to(&reply(&buffer[..end], &records), from);
            }
        });
        Names { address, asked, stop, thread: Some(thread) }
    }

    /// For the setting `sip.nameservers`.
    pub(crate) fn setting(&self) -> String {
        format!("[\"{}\"]", self.address)
    }

    /// Names that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Record {
    fn is(&self, kind: u16) -> bool {
        matches!((self, kind), (Record::Address(_), A) | (Record::Service(..), SRV))
    }
}

/// Name and type of a query's question, and where it ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn reply(question: &[u8], records: &[Record]) -> Vec<u8> {
    let mut reply = question.to_vec();
    // A response, authoritative, without error; one question, these answers, nothing else.
    reply[2..4].copy_from_slice(&[0x84, 0]);
    reply[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    for record in records {
        let (kind, data) = match record {
            Record::Address(address) => (A, address.octets().to_vec()),
            Record::Service(priority, port, host) => (SRV, service(*priority, *port, host)),
        };
        // The name of the question, by a pointer; class IN; a minute to live.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend(data);
    }
    reply
}

fn service(priority: u16, port: u16, host: &str) -> Vec<u8> {
    let mut data = [priority.to_be_bytes(), [0, 0], port.to_be_bytes()].concat();
    for label in host.split('.') {
        data.push(u8::try_from(label.len()).unwrap());
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}
