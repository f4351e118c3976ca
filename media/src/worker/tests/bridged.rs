//! Two phones on two legs of one worker, over real sockets.

use super::*;
use crate::sdp::SrtpKeys;
use crate::srtp::{MasterKey, SrtpPair, SrtpSession, Suite, TAIL_ROOM};

const A: SessionKey = SessionKey(1);
const B: SessionKey = SessionKey(2);

/// What both legs of a secured phone agreed to: our key, then the phone's.
fn keys() -> SrtpKeys {
    SrtpKeys {
        suite: Suite::AesCm128HmacSha1_80,
        local: MasterKey::new([1; 30]),
        remote: MasterKey::new([2; 30]),
        local_epoch: 1,
        remote_epoch: 1,
    }
}

/// Two phones whose legs are bridged.
struct Call {
    workers: Workers,
    events: Receiver<Event>,
    pool: PortPool,
    a: Phone,
    b: Phone,
}

impl Call {
    fn new(offset: u16, plan_b: impl FnOnce(Plan) -> Plan) -> Self {
        let (workers, events) = start(2);
        let (pool, mut a, mut b) = (pool(offset, 3), Phone::new(), Phone::new());
        let worker = a.open(&workers, A.0, &pool, Far::Nobody);
        let ports = pool.allocate(clock::now()).unwrap();
        b.gateway = SocketAddr::new(LOOPBACK, ports.port());
        let (plan, options) = (plan_b(b.plan()), LegOptions::new(LOOPBACK, [8; 32]));
        let open = Open { ports, plan, far: Far::Nobody, options };
        assert_eq!(workers.open_beside(B, A, open), Ok(worker));
        for key in [A, B] {
            workers.gate(key, true).unwrap();
        }
        workers.bridge(A, B).unwrap();
        Self { workers, events, pool, a, b }
    }

    /// Waits until the worker has obeyed all commands so far.
    fn settle(&self) {
        let (reply, reports) = sync_channel(1);
        let obeyed = move |_| {
            let _ = reply.send(());
        };
        self.workers.report(A, obeyed).unwrap();
        reports.recv_timeout(PATIENCE).unwrap();
    }

    /// Phone `a` says `code` until phone `b` hears something that is `wanted`.
    fn until_heard(&mut self, code: u8, wanted: impl Fn(&[u8]) -> bool) {
        self.b.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        for _ in 0..100 {
            self.a.say(code);
            let mut packet = [0; 1_500];
            let Ok((len, from)) = self.b.socket.recv_from(&mut packet) else { continue };
            assert_eq!(from, self.b.gateway);
            if wanted(&packet[..len]) {
                return;
            }
        }
        panic!("the other phone hears nothing of it");
    }
}

/// The payload of a packet begins with `code`.
fn says(code: u8) -> impl Fn(&[u8]) -> bool {
    move |packet| rtp::view(packet).unwrap().payload(packet)[0] == code
}

#[test]
fn two_phones_hear_each_other_until_one_hangs_up() {
    let mut call = Call::new(60, |plan| plan);
    call.until_heard(0x91, says(0x91));
    std::mem::swap(&mut call.a, &mut call.b);
    call.until_heard(0x92, says(0x92));
    let report = close(&call.workers, A.0);
    assert!(report.quality.packets_received >= 1 && report.quality.packets_sent >= 1);
    // The phone that is left hears silence, 20 ms at a time.
    let mut silent = 0;
    while silent < 5 {
        silent = if call.a.hear() == 0xff { silent + 1 } else { 0 };
    }
    close(&call.workers, B.0);
    assert_eq!(call.pool.counts().in_use, 0);
}

#[test]
fn a_plain_phone_and_a_secured_one_of_the_other_law_understand_each_other() {
    let alaw = |plan| Plan { codec: Codec::Pcma, payload_type: 8, srtp: Some(keys()), ..plan };
    let mut call = Call::new(66, alaw);
    let SrtpKeys { suite, local, remote, .. } = keys();
    let mut crypto = SrtpPair::new(suite, &remote, &local);
    let mut expected = [0x91];
    Codec::Pcmu.transcode(Codec::Pcma, &mut expected);
    let crypto_in = std::cell::RefCell::new(&mut crypto);
    call.until_heard(0x91, |packet| {
        let mut packet = packet.to_vec();
        let len = packet.len();
        let len = crypto_in.borrow_mut().unprotect(&mut packet, len).unwrap();
        let view = rtp::view(&packet[..len]).unwrap();
        view.header.payload_type == 8 && view.payload(&packet[..len])[0] == expected[0]
    });
    let mut heard = 0;
    for sequence in 0..50 {
        let mut packet = [expected[0]; rtp::HEADER_BYTES + FRAME_SAMPLES + TAIL_ROOM];
        let timestamp = u32::from(sequence) * 160;
        let header = Header { payload_type: 8, marker: false, sequence, timestamp, ssrc: 6 };
        rtp::write_header(&mut packet, header).unwrap();
        let len = crypto.protect(&mut packet, rtp::HEADER_BYTES + FRAME_SAMPLES).unwrap();
        call.b.socket.send_to(&packet[..len], call.b.gateway).unwrap();
        heard += u32::from(call.a.hear() == 0x91);
    }
    assert!(heard >= 45, "{heard}");
    assert!(close(&call.workers, B.0).secured);
}

#[test]
fn strangers_at_both_ports_hear_and_say_nothing() {
    let mut call = Call::new(72, |plan| plan);
    call.until_heard(0x91, says(0x91));
    call.b.say(0x92);
    let stranger = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    stranger.set_nonblocking(true).unwrap();
    for n in 0..200_u16 {
        for gateway in [call.a.gateway, call.b.gateway] {
            // It knows source, numbers and all.
            let mut packet = [0x55; rtp::HEADER_BYTES + FRAME_SAMPLES];
            let (sequence, timestamp) = (call.a.sequence + n, u32::from(n) * 160);
            let header = Header { payload_type: 0, marker: false, sequence, timestamp, ssrc: 5 };
            rtp::write_header(&mut packet, header).unwrap();
            stranger.send_to(&packet, gateway).unwrap();
        }
        if n % 10 == 0 {
            call.a.say(0x91);
            assert_eq!(call.b.hear(), 0x91);
        }
    }
    assert!(stranger.recv_from(&mut [0; 1_500]).is_err());
    let (a, b) = (close(&call.workers, A.0), close(&call.workers, B.0));
    for report in [&a, &b] {
        // All but those that still lay in the kernel.
        let dropped = report.strangers + report.drops.over_budget;
        assert!((150..=200).contains(&dropped), "{report:?}");
    }
    assert!(call.events.try_iter().any(|event| event == Event::Intrusion { key: A }));
}

#[test]
fn digits_are_told_where_they_cannot_be_relayed_and_dialled_on_demand() {
    let mut call = Call::new(78, |plan| Plan { dtmf_payload: Some(101), ..plan });
    let events = Plan { dtmf_receive_payload: Some(101), ..call.a.plan() };
    call.workers.apply(A, events).unwrap();
    call.settle();
    // Towards `b` they are relayed.
    call.until_heard(0x91, says(0x91));
    let press = |phone: &mut Phone| {
        let mut packet = [0; rtp::HEADER_BYTES + 4];
        let (sequence, timestamp) = (phone.sequence, u32::from(phone.sequence) * 160);
        let header = Header { payload_type: 101, marker: true, sequence, timestamp, ssrc: 5 };
        rtp::write_header(&mut packet, header).unwrap();
        packet[rtp::HEADER_BYTES..].copy_from_slice(&[4, 0x8a, 0x03, 0x20]);
        phone.sequence += 1;
        phone.socket.send_to(&packet, phone.gateway).unwrap();
    };
    press(&mut call.a);
    call.b.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while call.b.hear_header().payload_type != 101 {}
    // Once `b` takes none they are told.
    call.workers.apply(B, call.b.plan()).unwrap();
    call.settle();
    press(&mut call.a);
    let told = Event::Digit { key: A, digit: '4', duration_ms: 100 };
    while call.events.recv_timeout(PATIENCE).unwrap() != told {}
    // And what came by INFO is played.
    call.workers.apply(B, Plan { dtmf_payload: Some(101), ..call.b.plan() }).unwrap();
    call.workers.digit(B, '7', 60).unwrap();
    let ends = (0..5).map(|_| call.b.hear_header()).filter(|header| header.payload_type == 101);
    assert_eq!(ends.count(), 5);
}

#[test]
fn a_session_that_panics_leaves_its_other_half_in_silence() {
    let (told, faults) = sync_channel(10);
    let tell = Box::new(move |event| match event {
        Event::FirstPacket { key: A } => panic!("this panic belongs to the test"),
        Event::Fault { .. } => drop(told.try_send(event)),
        _ => {}
    });
    let options = WorkerOptions { threads: 1, realtime: false, ..WorkerOptions::default() };
    let workers = Workers::start(&options, tell).unwrap();
    let (pool, mut a, mut b) = (pool(84, 2), Phone::new(), Phone::new());
    a.open(&workers, A.0, &pool, Far::Nobody);
    b.open(&workers, B.0, &pool, Far::Nobody);
    workers.gate(A, true).unwrap();
    workers.gate(B, true).unwrap();
    workers.bridge(A, B).unwrap();
    a.say(0x91);
    assert_eq!(faults.recv_timeout(PATIENCE).unwrap(), Event::Fault { key: A });
    for _ in 0..5 {
        b.say(0x92);
        assert_eq!(b.hear(), 0xff);
    }
    assert_eq!(workers.bridge(A, B), Ok(()), "which does nothing any more");
    assert_eq!(b.hear(), 0xff);
    assert_eq!(workers.metrics()[0].faults, 1);
    close(&workers, A.0);
    assert!(close(&workers, B.0).quality.packets_received >= 5);
}

#[test]
fn another_far_side_or_another_leg_dissolves_a_bridge() {
    let mut call = Call::new(88, |plan| plan);
    call.until_heard(0x91, says(0x91));
    let mut c = Phone::new();
    let ports = call.pool.allocate(clock::now()).unwrap();
    c.gateway = SocketAddr::new(LOOPBACK, ports.port());
    let options = LegOptions::new(LOOPBACK, [7; 32]);
    let open = Open { ports, plan: c.plan(), far: Far::Echo, options };
    call.workers.open_beside(SessionKey(3), A, open).unwrap();
    call.workers.gate(SessionKey(3), true).unwrap();
    call.workers.bridge(A, SessionKey(3)).unwrap();
    assert_eq!(call.b.hear(), 0xff, "it is alone again");
    std::mem::swap(&mut call.b, &mut c);
    call.until_heard(0x93, says(0x93));
    call.workers.connect(A, Far::Echo).unwrap();
    assert_eq!(call.b.hear(), 0xff);
}

#[test]
fn sessions_that_are_not_beside_each_other_are_not_bridged() {
    let (workers, _events) = start(2);
    let pool = pool(94, 3);
    for key in [1, 2] {
        Phone::new().open(&workers, key, &pool, Far::Nobody);
    }
    assert_eq!(workers.bridge(A, B), Err(CommandError::Apart));
    assert_eq!(workers.bridge(A, A), Err(CommandError::Apart));
    assert_eq!(workers.bridge(A, SessionKey(9)), Err(CommandError::Unknown));
    let (ports, options) =
        (pool.allocate(clock::now()).unwrap(), LegOptions::new(LOOPBACK, [0; 32]));
    let open = Open { ports, plan: Phone::new().plan(), far: Far::Nobody, options };
    let refused = workers.open_beside(SessionKey(3), SessionKey(9), open);
    assert_eq!(refused, Err(CommandError::Unknown));
    assert_eq!(pool.counts().in_use, 2);
    assert_eq!(workers.digit(SessionKey(9), '1', 100), Err(CommandError::Unknown));
}
