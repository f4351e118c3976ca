//! The pool and its pairs over real sockets of the loopback interface.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn pool(ports: RangeInclusive<u16>) -> PortPool {
    let quarantine = PoolOptions::QUARANTINE;
    PortPool::new(PoolOptions { bind: LOOPBACK, ports, quarantine, seed: 1, connected: 1 })
}

#[test]
fn rtp_is_even_and_rtcp_is_the_next_port() {
    let pool = pool(first_test_port() + 1..=first_test_port() + 4);
    assert_eq!(pool.counts().capacity, 1);
    let pair = pool.allocate(crate::clock::now()).unwrap();
    assert_eq!(pair.port(), first_test_port() + 2);
    assert_eq!(pair.rtp().local_addr().unwrap().port(), first_test_port() + 2);
    assert_eq!(pair.rtcp().local_addr().unwrap().port(), first_test_port() + 3);
}

#[test]
fn the_capacity_is_exact_and_the_next_call_is_refused() {
    let (pool, now) = (pool(first_test_port() + 10..=first_test_port() + 49), crate::clock::now());
    let pairs: Vec<_> = (0..20).map(|_| pool.allocate(now).unwrap()).collect();
    assert!(matches!(pool.allocate(now), Err(PortError::Exhausted)));
    drop(pairs);
    assert_eq!(pool.counts().quarantined, 20);
    assert!(pool.allocate(now).is_ok());
}

#[test]
fn a_port_bound_by_somebody_else_is_passed_over() {
    let other = UdpSocket::bind((LOOPBACK, first_test_port() + 53)).unwrap();
    let (pool, now) = (pool(first_test_port() + 50..=first_test_port() + 55), crate::clock::now());
    let pairs: Vec<_> = (0..2).map(|_| pool.allocate(now).unwrap()).collect();
    assert!(pairs.iter().all(|pair| pair.port() != first_test_port() + 52));
    assert!(matches!(pool.allocate(now), Err(PortError::Exhausted)));
    drop(other);
    assert_eq!(pool.allocate(now).unwrap().port(), first_test_port() + 52);
}

#[test]
fn when_somebody_else_has_all_that_is_free_a_pair_leaves_quarantine() {
    let (pool, now) = (pool(first_test_port() + 56..=first_test_port() + 59), crate::clock::now());
    let pair = pool.allocate(now).unwrap();
    let (ours, theirs) = (pair.port(), 2 * first_test_port() + 114 - pair.port());
    drop(pair);
    let _other = UdpSocket::bind((LOOPBACK, theirs)).unwrap();
    assert_eq!(pool.allocate(now).unwrap().port(), ours);
    let held = pool.allocate(now).unwrap();
    assert!(matches!(pool.allocate(now), Err(PortError::Exhausted)));
    assert_eq!((held.port(), pool.counts().free), (ours, 1));
}

#[test]
fn a_returned_pair_is_drained_until_its_peer_is_quiet() {
    let (pool, start) =
        (pool(first_test_port() + 60..=first_test_port() + 61), crate::clock::now());
    let at = |s| start + Duration::from_secs(s);
    let pair = pool.allocate(start).unwrap();
    drop(pair);
    let phone = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    for second in 0..10 {
        phone.send_to(b"stray", (LOOPBACK, first_test_port() + 60)).unwrap();
        pool.sweep(at(second));
        assert_eq!(pool.counts().quarantined, 1, "after {second} s");
    }
    pool.sweep(at(13));
    assert_eq!(pool.counts().quarantined, 1);
    pool.sweep(at(14));
    assert_eq!(pool.counts(), PortCounts { capacity: 1, free: 1, strays: 10, ..<_>::default() });
}

#[test]
fn what_the_peer_sends_comes_to_the_connected_socket_and_the_rest_to_the_other() {
    let pool = pool(first_test_port() + 62..=first_test_port() + 63);
    let mut pair = pool.allocate(crate::clock::now()).unwrap();
    let [peer, next, other] = [(); 3].map(|()| UdpSocket::bind((LOOPBACK, 0)).unwrap());
    let port = (LOOPBACK, pair.port());
    for peer in [&peer, &next] {
        pair.connect(peer.local_addr().unwrap()).unwrap();
        peer.send_to(b"peer", port).unwrap();
        other.send_to(b"other", port).unwrap();
        let mut buffer = [0; 8];
        let connected = pair.connected().unwrap();
        assert_eq!(connected.recv_from(&mut buffer).unwrap(), (4, peer.local_addr().unwrap()));
        assert!(connected.recv(&mut buffer).is_err());
        assert_eq!(pair.rtp().recv_from(&mut buffer).unwrap().0, 5);
        assert!(pair.rtp().recv(&mut buffer).is_err());
        connected.send(b"answer").unwrap();
        assert_eq!(peer.recv_from(&mut buffer).unwrap().1.port(), port.1);
    }
    peer.send_to(b"peer", port).unwrap();
    assert_eq!(pair.rtp().recv(&mut [0; 8]).unwrap(), 4, "of the one before");
}

#[test]
fn a_port_that_has_had_a_connected_socket_is_nobody_elses() {
    let pool = pool(first_test_port() + 64..=first_test_port() + 65);
    let mut pair = pool.allocate(crate::clock::now()).unwrap();
    let peer = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    pair.connect(peer.local_addr().unwrap()).unwrap();
    for is_connected in [true, false] {
        for share in [Socket::set_reuse_address, Socket::set_reuse_port] {
            let thief = open(pair.rtp().local_addr().unwrap()).unwrap();
            share(&thief, true).unwrap();
            let error = thief.bind(&pair.rtp().local_addr().unwrap().into()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "connected: {is_connected}");
        }
        pair.disconnect();
    }
}

#[test]
fn no_more_sockets_are_connected_than_can_be_spared() {
    let pool = pool(first_test_port() + 66..=first_test_port() + 69);
    let [mut first, mut second] = [(); 2].map(|()| pool.allocate(crate::clock::now()).unwrap());
    let peer = UdpSocket::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap();
    first.connect(peer).unwrap();
    first.connect(peer).unwrap();
    assert_eq!(second.connect(peer).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    drop(first);
    second.connect(peer).unwrap();
}

#[test]
fn a_pool_on_every_address_leaves_the_way_of_each_packet_to_the_kernel() {
    let ports = first_test_port() + 74..=first_test_port() + 75;
    let bind = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let pool = PortPool::new(PoolOptions { bind, ..pool(ports).inner.options.clone() });
    let mut pair = pool.allocate(crate::clock::now()).unwrap();
    let error = pair.connect((LOOPBACK, 9).into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn when_the_range_is_short_the_quietest_pair_goes_first() {
    let (pool, start) =
        (pool(first_test_port() + 70..=first_test_port() + 73), crate::clock::now());
    let first = pool.allocate(start).unwrap();
    let second = pool.allocate(start).unwrap();
    let quiet = first.port();
    drop(first);
    pool.sweep(start);
    drop(second);
    pool.sweep(start + Duration::from_secs(1));
    let pair = pool.allocate(start + Duration::from_secs(2)).unwrap();
    assert_eq!(pair.port(), quiet);
}

#[test]
fn quarantine_gives_way_when_descriptors_run_out() {
    let pool = pool(first_test_port() + 96..=first_test_port() + 99);
    let fails = |mut times: u32| {
        move || match times.checked_sub(1) {
            Some(left) => {
                times = left;
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            }
            None => Ok(()),
        }
    };
    let mut state = pool.inner.lock();
    assert!(state.with_descriptors(fails(1)).is_err(), "there is nothing in quarantine");
    drop(state);
    drop(pool.allocate(crate::clock::now()).unwrap());
    let quarantined = || pool.counts().quarantined;
    state = pool.inner.lock();
    assert!(state.with_descriptors(fails(0)).is_ok());
    drop(state);
    assert_eq!(quarantined(), 1);
    assert!(pool.inner.lock().with_descriptors(fails(1)).is_ok());
    assert_eq!(pool.counts(), PortCounts { capacity: 2, free: 2, ..<_>::default() });
}

#[test]
fn two_thousand_short_calls_on_twenty_pairs_leak_nothing() {
    let (pool, start) =
        (pool(first_test_port() + 160..=first_test_port() + 199), crate::clock::now());
    for call in 0..2_000 {
        let now = start + Duration::from_millis(10 * call);
        assert!(pool.allocate(now).is_ok(), "call {call}");
    }
    pool.sweep(start + Duration::from_secs(100));
    pool.sweep(start + Duration::from_secs(200));
    assert_eq!(pool.counts(), PortCounts { capacity: 20, free: 20, ..<_>::default() });
}

#[test]
fn the_order_depends_on_the_seed() {
    let order = |seed| {
        let options = PoolOptions { seed, ..pool(20_000..=30_000).inner.options.clone() };
        let pool = PortPool::new(options);
        let mut state = pool.inner.lock();
        (0..10).map(|_| state.draw(0).unwrap()).collect::<Vec<_>>()
    };
    assert_ne!(order(1), order(2));
    assert_eq!(order(3), order(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_port_is_ever_lost_or_handed_out_twice(
        steps in proptest::collection::vec((0_u8..3, 0_usize..8, 0_u64..4_000), 1..60),
    ) {
        let (pool, mut now) = (pool(first_test_port() + 80..=first_test_port() + 95), crate::clock::now());
        let mut held: Vec<PortPair> = Vec::new();
        for (step, pick, ms) in steps {
            now += Duration::from_millis(ms);
            match step {
                0 | 1 => match pool.allocate(now) {
                    Ok(pair) => {
                        prop_assert!(held.iter().all(|other| other.port() != pair.port()));
                        held.push(pair);
                    }
                    Err(_) => prop_assert_eq!(held.len(), 8),
                },
                _ if held.is_empty() => pool.sweep(now),
                _ => drop(held.swap_remove(pick % held.len())),
            }
            let counts = pool.counts();
            prop_assert_eq!(counts.in_use, held.len());
            prop_assert_eq!(counts.free + counts.in_use + counts.quarantined, 8);
        }
        drop(held);
        now += Duration::from_secs(60);
        pool.sweep(now);
        pool.sweep(now + Duration::from_secs(60));
        prop_assert_eq!(pool.counts().free, 8);
    }
}
