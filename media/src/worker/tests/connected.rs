//! A socket that is connected to the peer, over real sockets.

use super::*;
use crate::latch::STEADY;

/// Sockets of this machine that are connected from `local` to `remote` (proc(5), `/proc/net/udp`).
fn connected(local: SocketAddr, remote: SocketAddr) -> usize {
    let name = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let (local, remote) = (name(local), name(remote));
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    table.lines().map(fields).filter(|line| line[1..3] == [local.clone(), remote.clone()]).count()
}

/// A phone with an echo at the far end that has been connected to.
fn start_connected(offset: u16) -> (Workers, PortPool, Phone) {
    let (workers, _events) = start(1);
    let (pool, mut phone) = (pool(offset, 1), Phone::new());
    phone.open(&workers, 1, &pool, Far::Echo);
    workers.gate(SessionKey(1), true).unwrap();
    let local = phone.socket.local_addr().unwrap();
    let rounds = 10 * STEADY.as_millis() / 20;
    // The gateway's own packets are the clock.
    let is_connected = (0..rounds).any(|_| {
        phone.say(0x90);
        phone.hear();
        connected(phone.gateway, local) == 1
    });
    assert!(is_connected, "not in {rounds} packets");
    (workers, pool, phone)
}

fn echoes(phone: &mut Phone) -> bool {
    (0..100).any(|_| {
        phone.say(0x91);
        phone.hear() == 0x91
    })
}

#[test]
fn a_peer_that_stays_gets_a_socket_of_its_own_and_strangers_are_still_seen() {
    let (workers, pool, mut phone) = start_connected(40);
    assert!(echoes(&mut phone));
    let stranger = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let mut packet = [0x80; 172];
    packet[1] = 0;
    for _ in 0..20 {
        stranger.send_to(&packet, phone.gateway).unwrap();
    }
    assert!(echoes(&mut phone));
    let report = close(&workers, 1);
    assert_eq!((report.strangers, report.latched), (20, Some(phone.socket.local_addr().unwrap())));
    assert_eq!(connected(phone.gateway, phone.socket.local_addr().unwrap()), 0);
    assert_eq!(pool.counts().in_use, 0);
    phone.say(0x90);
    pool.sweep(clock::now());
    assert_eq!(pool.counts().strays, 1, "what comes after the end is read in quarantine");
}

#[test]
fn a_peer_whose_port_was_closed_for_a_while_hears_us_again() {
    let (workers, _pool, mut phone) = start_connected(42);
    let local = phone.socket.local_addr().unwrap();
    // Elsewhere. Each packet that finds the port closed is told to the socket it came from.
    phone.socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    phone.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let before = workers.metrics()[0];
    let ticked = (0..1_000).any(|_| {
        let _ = phone.socket.recv(&mut [0]);
        workers.metrics()[0].ticks >= before.ticks + 10
    });
    assert!(ticked && workers.metrics()[0].sent >= before.sent + 9, "each tick sends");
    phone.socket = UdpSocket::bind(local).unwrap();
    phone.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(echoes(&mut phone));
    assert_eq!(workers.metrics()[0].drops.unsent, 0);
}

#[test]
fn a_peer_that_floods_its_own_socket_is_heard_when_it_stops() {
    let (workers, _pool, mut phone) = start_connected(54);
    for _ in 0..25 {
        let before = workers.metrics()[0].ticks;
        // Twice as many as are read before the tick.
        (0..1_100).for_each(|_| phone.say(0x90));
        while workers.metrics()[0].ticks == before {
            std::thread::yield_now();
        }
    }
    while phone.hear() == 0x90 {}
    assert!(echoes(&mut phone));
    assert!(close(&workers, 1).drops.over_budget > 100);
}
