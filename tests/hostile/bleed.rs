//! RTP bleed and RTP inject: a stranger's packets neither hear nor speak in a call.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::time::Duration;

use gateway::demo::rtp::{Heard, talk};
use media::codec::Codec;
use media::sdp::{Encryption, Plan};

use crate::common::{
    Audio, ECHO, Gateway, PATIENCE, PEER, Phone, STRANGER, Sprayer, TONE, drain, eventually, level,
    listen, rtp, soak, status, tone,
};

/// What the attackers' tone sounds like, and the peer's.
const FOREIGN_HZ: f32 = 1_000.0;
const OWN_HZ: f32 = 400.0;

/// The SSRC and the first sequence number of the peer, which the attackers are told.
const PEER_SSRC: u32 = 0x7068_6f6e;
const PEER_SEQUENCE: u16 = 1_000;

/// Packets of 20 ms that say a loud tone under the peer's own SSRC and sequence numbers.
fn forged() -> impl Fn(u16) -> Vec<u8> + Send + 'static {
    let samples = tone(FOREIGN_HZ, 0.02, 20_000.0);
    let mut payload = vec![0; samples.len()];
    Codec::Pcmu.encode(&samples, &mut payload);
    move |round| {
        let sequence = PEER_SEQUENCE.wrapping_add(round / 2);
        rtp(sequence, u32::from(round / 2) * 160, PEER_SSRC, &payload)
    }
}

fn spray(ip: Ipv4Addr, ports: RangeInclusive<u16>) -> Sprayer {
    Sprayer::start(SocketAddr::from((ip, 0)), ports, forged())
}

/// The peer says its own tone for a while.
fn say(audio: &Audio, plan: Plan) -> Heard {
    say_for(1.5, audio, plan)
}

fn say_for(seconds: f32, audio: &Audio, plan: Plan) -> Heard {
    talk(&audio.socket, plan, &tone(OWN_HZ, seconds, 8_000.0), None).unwrap()
}

const BOTH: [Encryption; 2] = [Encryption::Disable, Encryption::Require];

#[test]
fn a_peer_that_sends_from_its_described_address_is_the_only_one_who_hears() {
    let mut gateway = Gateway::start();
    for encryption in BOTH {
        let attacker = spray(STRANGER, gateway.ports.clone());
        let phone = Phone::new(PEER, gateway.udp);
        let mut audio = Audio::new(PEER, None, encryption);
        let call = phone.dial(TONE, &audio.offer).unwrap();
        let plan = audio.accept(&call);
        assert_eq!(plan.srtp.is_some(), encryption == Encryption::Require);
        let heard = say(&audio, plan);
        assert!(heard.received > 60, "{encryption:?}: the peer hears: {heard:?}");
        call.hang_up();
        assert_eq!(attacker.stop(), 0, "{encryption:?}");
    }
    gateway.assert_quiet();
}

#[test]
fn a_peer_behind_nat_hears_and_the_address_it_described_gets_next_to_nothing() {
    let mut gateway = Gateway::start();
    // Somebody lives at the address that the peer believes to be its own.
    let bystander = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 99), 0)).unwrap();
    for encryption in BOTH {
        let attacker = spray(STRANGER, gateway.ports.clone());
        let phone = Phone::new(PEER, gateway.udp);
        let told = bystander.local_addr().unwrap();
        let mut audio = Audio::new(PEER, Some(told), encryption);
        let call = phone.dial(TONE, &audio.offer).unwrap();
        let plan = audio.accept(&call);
        let heard = say(&audio, plan);
        assert!(heard.received > 40, "{encryption:?}: the peer hears: {heard:?}");
        call.hang_up();
        assert_eq!(attacker.stop(), 0, "{encryption:?}");
        let strays = drain(&bystander);
        assert!(strays <= 4, "{encryption:?}: {strays} packets to an address nobody vouched for");
    }
    gateway.assert_quiet();
}

#[test]
fn a_silent_peer_leaves_nothing_to_be_taken() {
    let mut gateway = Gateway::start();
    for encryption in BOTH {
        let attacker = spray(STRANGER, gateway.ports.clone());
        let phone = Phone::new(PEER, gateway.udp);
        let audio = Audio::new(PEER, None, encryption);
        let call = phone.dial(TONE, &audio.offer).unwrap();
        let mut heard = 0;
        eventually("half a second of audio comes to the silent peer", PATIENCE, || {
            heard += audio.waiting();
            heard > 25
        });
        call.hang_up();
        assert_eq!(attacker.stop(), 0, "{encryption:?}");
    }
    gateway.assert_quiet();
}

#[test]
fn a_peer_that_moves_takes_its_audio_along_and_nobody_else_does() {
    let mut gateway = Gateway::start();
    for encryption in BOTH {
        let attacker = spray(STRANGER, gateway.ports.clone());
        let phone = Phone::new(PEER, gateway.udp);
        let (before, mut after) =
            (Audio::new(PEER, None, encryption), Audio::new(PEER, None, encryption));
        let mut call = phone.dial(TONE, &before.offer).unwrap();
        eventually("audio comes to the first place", PATIENCE, || before.waiting() > 0);
        let answer = call.reinvite(&after.offer);
        assert_eq!(status(&answer), 200, "{answer}");
        call.answer = answer;
        let plan = after.accept(&call);
        let heard = say(&after, plan);
        assert!(heard.received > 60, "{encryption:?}: the peer hears: {heard:?}");
        drain(&before.socket);
        assert_eq!(before.waiting(), 0, "{encryption:?}: nothing more to the first place");
        call.hang_up();
        assert_eq!(attacker.stop(), 0, "{encryption:?}");
    }
    gateway.assert_quiet();
}

/// Where the peers of a hundred calls are, as seen by who attacks them all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peers {
    /// They send from where they said.
    Described,
    /// They send from elsewhere than they said.
    BehindNat,
    /// They never send.
    Silent,
    /// They move in mid-call.
    Moving,
}

/// One of many calls: whether its peer heard what it should.
fn one_of_many(udp: SocketAddr, peers: Peers, encryption: Encryption, told: SocketAddr) -> bool {
    let told = (peers == Peers::BehindNat).then_some(told);
    let phone = Phone::new(PEER, udp);
    let mut audio = Audio::new(PEER, told, encryption);
    let mut call = phone.dial(TONE, &audio.offer).unwrap();
    if peers == Peers::Moving {
        audio = Audio::new(PEER, None, encryption);
        call.answer = call.reinvite(&audio.offer);
    }
    let plan = audio.accept(&call);
    let seconds: u16 = if soak() { 10 } else { 1 };
    let heard = match peers {
        Peers::Silent => {
            audio.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            listen(&audio.socket, Duration::from_secs(seconds.into())).into()
        }
        _ => say_for(0.5 + f32::from(seconds), &audio, plan).received,
    };
    call.hang_up();
    heard > if peers == Peers::Silent { 0 } else { 35 * u64::from(seconds) }
}

/// Many calls at once while one attacker goes over all ports: a hundred where the full numbers are
/// wanted, for ten seconds, with as many packets a second as the machine lets him send, 25,000 at most.
#[test]
fn of_many_calls_at_once_under_a_spray_over_all_ports_none_is_heard_by_the_attacker() {
    let (calls, encryptions) = if soak() { (100, &BOTH[..]) } else { (10, &BOTH[..1]) };
    for &encryption in encryptions {
        for peers in [Peers::Described, Peers::BehindNat, Peers::Silent, Peers::Moving] {
            let mut gateway = if soak() { Gateway::roomy() } else { Gateway::start() };
            let bystander = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 99), 0)).unwrap();
            let (udp, told) = (gateway.udp, bystander.local_addr().unwrap());
            let attacker = spray(STRANGER, gateway.ports.clone());
            let heard = std::thread::scope(|scope| {
                let one = || scope.spawn(move || one_of_many(udp, peers, encryption, told));
                let all: Vec<_> = (0..calls).map(|_| one()).collect();
                all.into_iter().map(|call| call.join().unwrap()).filter(|heard| *heard).count()
            });
            let rate = attacker.rate();
            println!("{peers:?}, {encryption:?}: {calls} calls, {rate:.0} packets/s");
            assert_eq!(heard, calls, "{peers:?}, {encryption:?}: peers that hear");
            assert!(rate > if soak() { 20_000.0 } else { 1_000.0 }, "{rate} packets a second");
            assert_eq!(attacker.stop(), 0, "{peers:?}, {encryption:?}");
            let strays = drain(&bystander);
            assert!(strays <= 4 * calls, "{peers:?}, {encryption:?}: {strays} to the bystander");
            gateway.assert_quiet();
        }
    }
}

/// The attacker knows everything about the stream and speaks before the peer does and all along;
/// what the agent echoes is what it heard.
fn inject(told: Option<SocketAddr>, encryption: Encryption, attackers: &[Ipv4Addr]) {
    let mut gateway = Gateway::start();
    let phone = Phone::new(PEER, gateway.udp);
    let mut audio = Audio::new(PEER, told, encryption);
    let call = phone.dial(ECHO, &audio.offer).unwrap();
    let port = call.media().port();
    let sprayers: Vec<_> = attackers.iter().map(|&ip| spray(ip, port..=port)).collect();
    eventually("the intrusion is noticed", Duration::from_secs(5), || {
        // Without the right key a packet is nobody's; in the clear it is a stranger's.
        let forged = gateway.metric("gateway_media_drops_total", "cause=\"unauthenticated\"");
        gateway.metric("gateway_shed_total", "media_intrusion") + forged > 0.0
    });
    let plan = audio.accept(&call);
    let heard = say(&audio, plan);
    let (own, foreign) = (level(&heard.samples, OWN_HZ), level(&heard.samples, FOREIGN_HZ));
    assert!(own > 2_000.0, "the peer hears itself: {own} {}", heard.received);
    assert!(foreign < 100.0, "the agent heard a stranger: {foreign} beside {own}");
    assert_eq!(heard.unusable, 0);
    call.hang_up();
    for sprayer in sprayers {
        assert_eq!(sprayer.stop(), 0);
    }
    gateway.assert_quiet();
}

#[test]
fn nothing_a_stranger_says_reaches_the_agent() {
    inject(None, Encryption::Disable, &[STRANGER]);
}

#[test]
fn nothing_a_stranger_says_reaches_the_agent_of_a_peer_behind_nat() {
    let told = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 99), 40_000));
    inject(Some(told), Encryption::Disable, &[STRANGER]);
}

#[test]
fn nothing_without_the_key_reaches_the_agent_not_even_from_the_peers_own_address() {
    inject(None, Encryption::Require, &[STRANGER, PEER]);
}
