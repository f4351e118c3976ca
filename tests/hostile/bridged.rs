//! Media of bridged calls and of calls out, under attack: what leaks to strangers, what they can
//! inject, what a peer may send without harm, and what is on the wire where SRTP is demanded.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use gateway::demo::rtp::talk;
use media::codec::Codec;
use media::sdp::{Encryption, Plan};
use serde_json::json;

use crate::callee::{Callee, OWN, SDP, kind};
use crate::common::{
    Audio, Call, Gateway, PATIENCE, PEER, Phone, STRANGER, Sprayer, drain, eventually, header,
    level, now, offer, receive, rtp, soak, status, tone,
};

/// The number of the SIP agent.
const DESK: &str = "+15550100903";
/// The agent's machine.
const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
/// What the caller, the agent and the attacker sound like.
const CALLER_HZ: f32 = 400.0;
const AGENT_HZ: f32 = 700.0;
const FOREIGN_HZ: f32 = 1_000.0;

/// A gateway with a SIP agent at [`FAR`] whose leg is encrypted or not.
struct House {
    gateway: Gateway,
    phone: Phone,
    desk: Callee,
}

/// A bridged call whose both ends have media.
struct Bridged<'a> {
    caller: Call<'a>,
    agent: Call<'a>,
    callers: (UdpSocket, Plan),
    agents: (UdpSocket, Plan),
}

fn rule(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Disable => "DISABLE",
        Encryption::Allow => "ALLOW",
        Encryption::Require => "REQUIRE",
    }
}

impl House {
    fn new(agents: Encryption) -> House {
        let gateway = Gateway::empty(&[]);
        let desk = Callee::new(FAR, gateway.udp);
        let trunk = gateway.pbx("callers", "ALLOW");
        gateway.number(DESK, &trunk);
        let runtime = json!({"type": "sip", "uri": format!("sip:desk@{}", desk.address()),
            "media_encryption": rule(agents)});
        gateway.agent(runtime, &[DESK]);
        let phone = Phone::new(PEER, gateway.udp);
        House { gateway, phone, desk }
    }

    fn call(&self, callers: Encryption, agents: Encryption) -> Bridged<'_> {
        let mut audio = Audio::new(PEER, None, callers);
        let mut dialog =
            crate::common::Dialog::new(&self.phone, &format!("sip:{DESK}@{}", self.gateway.udp));
        let invite = dialog.request(&self.phone, "INVITE", SDP, &audio.offer);
        self.phone.send(invite.as_bytes());
        let theirs = self.desk.expect("INVITE");
        let (far, sdp, plan) =
            Audio::answering(FAR, agents, crate::common::body(&theirs)).expect("an answer");
        self.desk.accept_with(&theirs, &sdp);
        self.desk.expect("ACK");
        let mut answer = String::new();
        eventually("the call is answered", PATIENCE, || {
            answer = self.phone.receive(PATIENCE).unwrap_or_default();
            kind(&answer) == "200 INVITE"
        });
        header(&answer, "To").clone_into(&mut dialog.to);
        header(&answer, "Contact").trim_matches(['<', '>']).clone_into(&mut dialog.target);
        self.phone.send(dialog.request(&self.phone, "ACK", "", "").as_bytes());
        let caller = Call { phone: &self.phone, dialog, answer };
        let callers = audio.accept(&caller);
        Bridged {
            caller,
            agent: self.desk.call(&theirs, "callee"),
            callers: (audio.socket, callers),
            agents: (far, plan),
        }
    }

    fn finish(self) {
        let House { mut gateway, .. } = self;
        gateway.assert_quiet();
    }
}

/// Both talk at once; what each heard.
fn converse(call: &Bridged<'_>) -> [gateway::demo::rtp::Heard; 2] {
    let (caller, agent) = (&call.callers, &call.agents);
    std::thread::scope(|scope| {
        let say = |(socket, plan): &(UdpSocket, Plan), hz| {
            talk(socket, plan.clone(), &tone(hz, 1.5, 8_000.0), None).unwrap()
        };
        let other = scope.spawn(move || say(agent, AGENT_HZ));
        [say(caller, CALLER_HZ), other.join().unwrap()]
    })
}

/// Each hears the other, and nobody else.
fn assert_conversation(call: &Bridged<'_>, what: &str) {
    let [caller, agent] = converse(call);
    for (heard, own, who) in [(&caller, AGENT_HZ, "caller"), (&agent, CALLER_HZ, "agent")] {
        let (voice, foreign) = (level(&heard.samples, own), level(&heard.samples, FOREIGN_HZ));
        assert!(voice > 2_000.0, "{what}: the {who} hears the other: {voice} {}", heard.received);
        assert!(foreign < 100.0, "{what}: the {who} heard a stranger: {foreign} beside {voice}");
        assert_eq!(heard.unusable, 0, "{what}: {who}");
    }
}

/// Every pairing of plain and encrypted legs.
const PAIRS: [(Encryption, Encryption); 4] = [
    (Encryption::Disable, Encryption::Disable),
    (Encryption::Require, Encryption::Disable),
    (Encryption::Disable, Encryption::Require),
    (Encryption::Require, Encryption::Require),
];

/// A loud tone under the stream that both peers use.
fn forged() -> impl Fn(u16) -> Vec<u8> + Send + 'static {
    let samples = tone(FOREIGN_HZ, 0.02, 20_000.0);
    let mut payload = vec![0; samples.len()];
    Codec::Pcmu.encode(&samples, &mut payload);
    move |round| rtp(1_000 + round / 2, u32::from(round / 2) * 160, 0x7068_6f6e, &payload)
}

#[test]
fn strangers_neither_hear_nor_speak_on_either_leg() {
    for (callers, agents) in PAIRS {
        let house = House::new(agents);
        let what = format!("{callers:?} and {agents:?}");
        let sprayer =
            Sprayer::start(SocketAddr::from((STRANGER, 0)), house.gateway.ports.clone(), forged());
        let call = house.call(callers, agents);
        assert_conversation(&call, &what);
        call.caller.hang_up();
        house.desk.take_bye();
        assert_eq!(sprayer.stop(), 0, "{what}: packets to a stranger");
        house.finish();
    }
}

/// Datagrams that are no RTP, or RTCP that lies: lengths from nothing to 64, every type, both ports.
fn no_media() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for length in 0..=64_usize {
        for kind in (192..=223).chain([0, 101, 255]) {
            let mut packet = vec![0x81, kind, 0, 1];
            packet.resize(length.max(4), 0xff);
            packet.truncate(length);
            packets.push(packet);
        }
    }
    // BYE for either stream, alone and behind a receiver report; a sender report of somebody else's.
    packets.push([&[0x81, 203, 0, 1][..], b"phon"].concat());
    packets.push([&[0x80, 201, 0, 1][..], b"phon", &[0x81, 203, 0, 1], b"phon"].concat());
    packets.push([&[0x80, 200, 0, 6][..], b"evil", &[0xff; 20]].concat());
    packets
}

#[test]
fn short_and_forged_rtcp_moves_and_ends_nothing() {
    for (callers, agents) in PAIRS {
        let house = House::new(agents);
        let mut call = house.call(callers, agents);
        let stranger = UdpSocket::bind((STRANGER, 0)).unwrap();
        let ports = [call.callers.1.remote, call.agents.1.remote];
        for (n, packet) in no_media().iter().enumerate() {
            for (place, peer) in ports.iter().zip([&call.callers.0, &call.agents.0]) {
                for port in [place.port(), place.port() + 1] {
                    peer.send_to(packet, (place.ip(), port)).unwrap();
                    stranger.send_to(packet, (place.ip(), port)).unwrap();
                }
            }
            if n % 128 == 127 {
                assert!(call.caller.is_up(), "after {n} packets");
            }
        }
        drain(&call.callers.0);
        drain(&call.agents.0);
        assert_conversation(&call, &format!("{callers:?} and {agents:?}"));
        assert_eq!(drain(&stranger), 0);
        assert!(call.caller.is_up() && call.agent.is_up());
        call.agent.hang_up();
        // Ours to the caller.
        let mut bye = String::new();
        eventually("BYE comes", PATIENCE, || {
            bye = house.phone.receive(PATIENCE).unwrap_or_default();
            kind(&bye) == "BYE"
        });
        let ok = crate::callee::response(house.phone.address, &bye, "200 OK", "", ("", ""));
        house.phone.send(ok.as_bytes());
        house.finish();
    }
}

#[test]
fn a_flood_of_bad_tags_is_counted_and_drops_no_call() {
    // As many as one leg gets.
    let flood: u32 = if soak() { 200_000 } else { 20_000 };
    let house = House::new(Encryption::Require);
    let mut call = house.call(Encryption::Disable, Encryption::Require);
    // Tags are looked at up to a budget, the rest is dropped unread: both are counted.
    let drops = || {
        ["unauthenticated", "over_budget"].map(|cause| {
            house.gateway.metric("gateway_media_drops_total", &format!("cause=\"{cause}\""))
        })
    };
    let before: f64 = drops().iter().sum();
    let lines = house.gateway.log().len();
    let place = call.agents.1.remote;
    let mut packet = rtp(1, 160, 0x7068_6f6e, &[0x55; 170]);
    for n in 0..flood {
        packet[2..4].copy_from_slice(&n.to_be_bytes()[2..]);
        call.agents.0.send_to(&packet, place).unwrap();
        // At a pace that a socket's buffer can hold.
        if n % 64 == 63 {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
    let after = drops();
    let counted = after.iter().sum::<f64>() - before;
    println!("{flood} bad tags: {} tried, {} over the budget", after[0], after[1]);
    // A machine that stalls meanwhile loses some in the socket's buffer.
    assert!(counted > f64::from(flood) * 0.5, "{counted} of {flood} counted");
    assert!(house.gateway.log().len() < lines + 50, "a log line for each");
    drain(&call.callers.0);
    drain(&call.agents.0);
    assert_conversation(&call, "after the flood");
    assert!(call.agent.is_up());
    call.caller.hang_up();
    house.desk.take_bye();
    house.finish();
}

/// 16 bytes of key and 14 of salt, and suites that are none of ours.
const KEY: &str = "inline:WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ";

/// What a carrier may answer to our offer of `{proto}`.
fn answers() -> Vec<(&'static str, String)> {
    let media = |proto: &str, more: &str| {
        let more = if more.is_empty() { String::new() } else { format!("a=crypto:1 {more}\r\n") };
        format!("RTP/{proto} 0\r\n{more}")
    };
    let good = format!("AES_CM_128_HMAC_SHA1_80 {KEY}");
    vec![
        ("AVP", media("AVP", "")),
        ("AVP with crypto", media("AVP", &good)),
        ("SAVP", media("SAVP", &good)),
        ("SAVP without crypto", media("SAVP", "")),
        ("an unknown suite", media("SAVP", &format!("NULL_HMAC_SHA1_80 {KEY}"))),
        ("UNENCRYPTED_SRTP", media("SAVP", &format!("{good} UNENCRYPTED_SRTP"))),
        ("UNENCRYPTED_SRTCP", media("SAVP", &format!("{good} UNENCRYPTED_SRTCP"))),
        ("UNAUTHENTICATED_SRTP", media("SAVP", &format!("{good} UNAUTHENTICATED_SRTP"))),
    ]
}

/// Packets of audio that come within a while: plain ones, others.
fn sniff(socket: &UdpSocket, time: Duration) -> (u32, u32) {
    const PLAIN_BYTES: usize = 12 + 160;
    let (until, mut plain, mut other) = (now() + time, 0, 0);
    while now() < until {
        let Some(packet) = receive(socket, Duration::from_millis(20)) else { continue };
        if packet.len() > 1 && !(192..224).contains(&packet[1]) {
            plain += u32::from(packet.len() == PLAIN_BYTES);
            other += u32::from(packet.len() != PLAIN_BYTES);
        }
    }
    (plain, other)
}

/// How a carrier puts its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// In the 200.
    First,
    /// In a 183, and again in the 200.
    Early,
}

/// One call out whose carrier answers in this way: what was heard, and whether the call came about.
fn answered(
    (gateway, callee, agent): (&Gateway, &Callee, &str),
    answer: &str,
    way: Way,
) -> (u32, u32, bool) {
    let socket = UdpSocket::bind((PEER, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let describe = |media: &str| {
        let (proto, more) = media.split_once("\r\n").unwrap();
        offer(PEER, port, proto, more)
    };
    let id = gateway.place(OWN, agent);
    let invite = callee.expect("INVITE");
    if way == Way::Early {
        callee.answer(&invite, "183 Session Progress", SDP, &describe(answer));
    }
    callee.accept_with(&invite, &describe(answer));
    callee.expect("ACK");
    let (plain, other) = sniff(&socket, Duration::from_millis(120));
    let record = gateway.conversation(&id);
    let up = record["end_reason"].is_null();
    if up {
        gateway.hang_up(&id);
    }
    callee.take_bye();
    gateway.ended(&id);
    (plain, other, up)
}

#[test]
fn every_answer_to_our_offer_gets_what_the_trunks_rule_says() {
    let mut cells = 0;
    let mut table = String::new();
    for rule in ["DISABLE", "ALLOW", "REQUIRE"] {
        let gateway = Gateway::empty(&[]);
        let callee = Callee::new(PEER, gateway.udp);
        let trunk = gateway.way_out(&callee.address(), &json!({"media_encryption": rule}));
        gateway.number(OWN, &trunk);
        let agent = gateway.agent(support::gateway::tone(), &[OWN]);
        for (name, answer) in answers() {
            for way in [Way::First, Way::Early] {
                let (plain, other, up) = answered((&gateway, &callee, &agent), &answer, way);
                cells += 1;
                let outcome = match (plain > 0, other > 0) {
                    (true, _) => "plain",
                    (_, true) => "SRTP",
                    _ => "refused",
                };
                table += &format!("{rule} {name} {way:?}: {outcome} ({plain}, {other})\n");
                let expected = match (rule, name) {
                    ("DISABLE", "AVP" | "AVP with crypto") => "plain",
                    // Keys are keys, whatever the profile is called (RFC 8643).
                    ("ALLOW" | "REQUIRE", "SAVP" | "AVP with crypto") => "SRTP",
                    _ => "refused",
                };
                assert_eq!(outcome, expected, "{table}");
                assert_eq!(up, expected != "refused", "{table}");
            }
        }
        let mut gateway = gateway;
        gateway.assert_quiet();
    }
    println!("{cells} cells\n{table}");
}

#[test]
fn an_answer_to_a_later_offer_takes_no_encryption_away() {
    for rule in ["ALLOW", "REQUIRE"] {
        let gateway = Gateway::empty(&[]);
        let (callee, desk) = (Callee::new(PEER, gateway.udp), Callee::new(FAR, gateway.udp));
        let trunk = gateway.way_out(&callee.address(), &json!({"media_encryption": rule}));
        gateway.number(OWN, &trunk);
        let runtime = json!({"type": "sip", "uri": format!("sip:desk@{}", desk.address())});
        let agent = gateway.agent(runtime, &[OWN]);
        for (name, answer) in answers() {
            let id = gateway.place(OWN, &agent);
            let theirs = desk.expect("INVITE");
            let (_far, sdp, _) =
                Audio::answering(FAR, Encryption::Disable, crate::common::body(&theirs)).unwrap();
            desk.accept_with(&theirs, &sdp);
            desk.expect("ACK");
            let invite = callee.expect("INVITE");
            let (near, sdp, _) =
                Audio::answering(PEER, Encryption::Require, crate::common::body(&invite)).unwrap();
            callee.accept_with(&invite, &sdp);
            callee.expect("ACK");
            gateway.await_status(&id, "in_progress");
            // The agent holds: the carrier is offered the same, and answers as it likes.
            let mut desks = desk.call(&theirs, "callee");
            let held = offer(FAR, 9, "RTP/AVP 0", "a=sendonly\r\n");
            assert_eq!(status(&desks.reinvite(&held)), 200);
            let again = callee.expect("INVITE");
            let (proto, more) = answer.split_once("\r\n").unwrap();
            let port = near.local_addr().unwrap().port();
            callee.accept_with(&again, &offer(PEER, port, proto, &format!("{more}a=recvonly\r\n")));
            callee.expect("ACK");
            // The agent's audio while it holds: whatever goes on to the carrier is not plain.
            let place = crate::callee::described(&theirs);
            let far = UdpSocket::bind((FAR, 0)).unwrap();
            for n in 0..10_u16 {
                far.send_to(&rtp(n, u32::from(n) * 160, 9, &[0x55; 160]), place).unwrap();
            }
            let (plain, _) = sniff(&near, Duration::from_millis(150));
            assert_eq!(plain, 0, "{rule}, {name}: plain packets");
            if gateway.conversation(&id)["end_reason"].is_null() {
                gateway.hang_up(&id);
            }
            gateway.ended(&id);
            callee.take_bye();
            desk.take_bye();
        }
        let mut gateway = gateway;
        gateway.assert_quiet();
    }
}

#[test]
fn a_refused_secure_offer_is_followed_by_a_plain_one_only_where_that_is_allowed() {
    for (rule, follows) in [("ALLOW", true), ("REQUIRE", false)] {
        let gateway = Gateway::empty(&[]);
        let callee = Callee::new(PEER, gateway.udp);
        let trunk = gateway.way_out(&callee.address(), &json!({"media_encryption": rule}));
        gateway.number(OWN, &trunk);
        let agent = gateway.agent(support::gateway::tone(), &[OWN]);
        let id = gateway.place(OWN, &agent);
        let first = callee.expect("INVITE");
        assert!(first.contains("RTP/SAVP") && first.contains("a=crypto:"), "{first}");
        callee.answer(&first, "488 Not Acceptable Here", "", "");
        callee.expect("ACK");
        if follows {
            let second = callee.expect("INVITE");
            assert!(second.contains("RTP/AVP") && !second.contains("a=crypto:"), "{second}");
            callee.answer(&second, "486 Busy Here", "", "");
            callee.expect("ACK");
            assert_eq!(gateway.ended(&id)["end_reason"]["code"], "callee_busy");
        } else {
            let record = gateway.ended(&id);
            assert_eq!(record["end_reason"]["code"], "media_refused", "{record:#}");
        }
        assert_eq!(callee.rest(), Vec::<String>::new(), "{rule}");
        let mut gateway = gateway;
        gateway.assert_quiet();
    }
}

#[test]
fn nothing_of_the_last_call_reaches_an_agent_of_the_next_ones() {
    let house = House::new(Encryption::Disable);
    // A phone that never stops sending, from the address that the next callers have too.
    let call = house.call(Encryption::Disable, Encryption::Disable);
    let (old, port) = (call.callers.0.local_addr().unwrap(), call.callers.1.remote.port());
    call.caller.hang_up();
    house.desk.take_bye();
    drop(call.callers.0);
    let loud = forged();
    let late = Sprayer::start(old, port..=port, loud);
    let (calls, mut loudest) = (if soak() { 500 } else { 24 }, 0.0_f32);
    for _ in 0..calls {
        let call = house.call(Encryption::Disable, Encryption::Disable);
        let (socket, plan) = &call.agents;
        let heard = talk(socket, plan.clone(), &[0; 800], None).unwrap();
        loudest = loudest.max(level(&heard.samples, FOREIGN_HZ));
        assert!(loudest < 100.0, "the agent heard the last call: {loudest}");
        call.caller.hang_up();
        house.desk.take_bye();
    }
    println!("{calls} calls on {} ports, {loudest} of the old voice", house.gateway.ports.len());
    assert_eq!(late.stop(), 0);
    house.finish();
}
