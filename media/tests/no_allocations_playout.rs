//! Playout, latch, digits and statistics allocate nothing once they are made.

mod counting;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use counting::{Counting, allocations};
use media::dtmf::{Receiver, Sender};
use media::jitter::{Jitter, Options};
use media::latch::{Arrival, Latch, Policy};
use media::stats::{Quality, Reception};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(clippy::disallowed_methods, reason = "a moment to count from; nothing waits")]
fn epoch() -> Instant {
    Instant::now()
}

#[test]
fn a_packet_passes_without_an_allocation() {
    let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let stranger: SocketAddr = "198.51.100.1:4000".parse().unwrap();
    let policy =
        Policy { signalling: peer.ip(), secure: false, listed: false, learn_anywhere: false };
    let mut latch = Latch::new(peer, policy);
    let mut jitter = Jitter::new(Options::default());
    let mut reception = Reception::new(8_000);
    let (mut receiver, mut sender) = (Receiver::new(8_000), Sender::new(8_000));
    let start = epoch();
    let before = allocations();
    for n in 0..2_000_u16 {
        let now = start + Duration::from_millis(20) * u32::from(n);
        // Loss, a restart and an intruder on the way.
        let sequence = if n < 1_000 { n } else { n + 30_000 };
        let timestamp = u32::from(sequence) * 160;
        for source in [peer, stranger] {
            latch.admit(Arrival { source, ssrc: 1, sequence, authenticated: false }, now);
        }
        if n % 13 != 0 {
            reception.arrived(1, sequence, Some(timestamp), now);
            jitter.push(sequence, timestamp, &[0x55; 160], now);
        }
        jitter.pull(now);
        if n % 50 == 0 {
            sender.start('5', 100).unwrap();
        }
        if let Some(event) = sender.next(timestamp) {
            receiver.push(&event.payload, event.timestamp, now);
        }
        receiver.poll(now);
        reception.report(now);
        latch.send_to();
    }
    std::hint::black_box(Quality::of(&reception, 0, 40.0, None));
    assert_eq!(allocations() - before, 0);
}
