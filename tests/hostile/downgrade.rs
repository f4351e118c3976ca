//! Encryption is never lowered: what every offer gets from a trunk that forbids, allows or requires
//! SRTP, first and in mid-call, and what is on the wire then.

use std::time::Duration;

use serde_json::json;

use crate::common::{
    Call, Gateway, PATIENCE, PEER, Phone, body, drain, header, now, offer, receive, status,
};

/// 16 bytes of key and 14 of salt.
const CRYPTO: &str = "AES_CM_128_HMAC_SHA1_80 inline:WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ";

/// Bytes of a 20 ms packet of G.711: in the clear, and with the tag of the suite above.
const PLAIN_BYTES: usize = 12 + 160;
const SECURE_BYTES: usize = PLAIN_BYTES + 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Plain,
    Srtp,
    Refused,
}

use Outcome::{Plain, Refused, Srtp};

const RULES: [(&str, &str); 3] =
    [("DISABLE", "+15550100301"), ("ALLOW", "+15550100302"), ("REQUIRE", "+15550100303")];

/// What is offered; what DISABLE, ALLOW and REQUIRE make of it. `{audio}` and `{other}` are ports.
fn table() -> Vec<(&'static str, String, [Outcome; 3])> {
    let secure = |more: &str| format!("m=audio {{audio}} RTP/SAVP 0\r\n{more}");
    let plain = |more: &str| format!("m=audio {{audio}} RTP/AVP 0\r\n{more}");
    let key = format!("a=crypto:1 {CRYPTO}\r\n");
    let flag = |name: &str| secure(&format!("a=crypto:1 {CRYPTO} {name}\r\n"));
    let unknown =
        "a=crypto:1 NULL_HMAC_SHA1_80 inline:WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ\r\n";
    let never = [Refused; 3];
    vec![
        ("AVP", plain(""), [Plain, Plain, Refused]),
        ("AVP with crypto", plain(&key), [Plain, Srtp, Srtp]),
        ("SAVP", secure(&key), [Refused, Srtp, Srtp]),
        ("SAVP without crypto", secure(""), never),
        (
            "SAVP and AVP",
            format!("{}m=audio {{other}} RTP/AVP 0\r\n", secure(&key)),
            [Plain, Srtp, Srtp],
        ),
        ("SAVP with an unknown suite", secure(unknown), never),
        ("AVP with an unknown suite", plain(unknown), [Plain, Plain, Refused]),
        ("UNENCRYPTED_SRTP", flag("UNENCRYPTED_SRTP"), never),
        ("UNENCRYPTED_SRTCP", flag("UNENCRYPTED_SRTCP"), never),
        ("UNAUTHENTICATED_SRTP", flag("UNAUTHENTICATED_SRTP"), never),
    ]
}

/// The caller's two places: one for each line that an offer may have.
struct Sockets {
    audio: std::net::UdpSocket,
    other: std::net::UdpSocket,
}

impl Sockets {
    fn new() -> Sockets {
        let bind = || std::net::UdpSocket::bind((PEER, 0)).unwrap();
        Sockets { audio: bind(), other: bind() }
    }

    fn describe(&self, media: &str) -> String {
        let port = |socket: &std::net::UdpSocket| socket.local_addr().unwrap().port().to_string();
        let media =
            media.replace("{audio}", &port(&self.audio)).replace("{other}", &port(&self.other));
        let session = offer(PEER, 9, "RTP/AVP 0", "");
        let (session, _) = session.split_once("m=audio").unwrap();
        format!("{session}{media}")
    }

    /// What the next packets of audio are like, once those under way have come.
    fn outcome(&self) -> Outcome {
        drain(&self.audio);
        drain(&self.other);
        let mut sizes = Vec::new();
        let until = now() + PATIENCE;
        while sizes.len() < 6 {
            assert!(now() < until, "no audio comes");
            let patience = Duration::from_millis(if sizes.is_empty() { 40 } else { 5 });
            for socket in [&self.audio, &self.other] {
                let packet = receive(socket, patience);
                // RTCP has types that no payload type can be.
                sizes.extend(packet.filter(|p| !(192..224).contains(&p[1])).map(|p| p.len()));
            }
        }
        // What was on its way when the answer came may be of the old kind.
        match sizes.split_off(2)[..] {
            [PLAIN_BYTES, .., PLAIN_BYTES] => Plain,
            ref sizes if sizes.iter().all(|&size| size == SECURE_BYTES) => Srtp,
            ref sizes => panic!("neither plain nor secure throughout: {sizes:?}"),
        }
    }
}

/// One gateway with a trunk of each rule, and a tone behind each.
fn gateway() -> Gateway {
    let gateway = Gateway::empty(&[]);
    for (rule, number) in RULES {
        let trunk = gateway.pbx(rule, rule);
        gateway.number(number, &trunk);
    }
    let tone = json!({"type": "builtin", "builtin": "playback", "clip": "tone", "repeat": true});
    gateway.agent(tone, &RULES.map(|(_, number)| number));
    gateway
}

fn assert_answer(sdp: &str, outcome: Outcome, what: &str) {
    let secure = sdp.lines().any(|line| line.starts_with("a=crypto:"));
    assert_eq!(secure, outcome == Srtp, "{what}: {sdp}");
    for weak in ["UNENCRYPTED", "UNAUTHENTICATED", "NULL_"] {
        assert!(!sdp.contains(weak), "{what}: {sdp}");
    }
}

#[test]
fn every_first_offer_gets_what_the_trunks_rule_says() {
    let mut gateway = gateway();
    let phone = Phone::new(PEER, gateway.udp);
    for (name, media, outcomes) in table() {
        for ((rule, number), expected) in RULES.into_iter().zip(outcomes) {
            let what = format!("{name} to {rule}");
            let sockets = Sockets::new();
            match phone.dial(number, &sockets.describe(&media)) {
                Err(status) => {
                    assert_eq!((status, expected), (488, Refused), "{what}");
                    assert_eq!(drain(&sockets.audio) + drain(&sockets.other), 0, "{what}");
                }
                Ok(call) => {
                    assert_answer(call.sdp(), expected, &what);
                    assert_eq!(sockets.outcome(), expected, "{what}");
                    call.hang_up();
                }
            }
        }
    }
    gateway.assert_quiet();
}

#[test]
fn every_later_offer_gets_the_same_and_a_refused_one_changes_nothing() {
    let mut gateway = gateway();
    let phone = Phone::new(PEER, gateway.udp);
    for (name, media, outcomes) in table() {
        for ((rule, number), expected) in RULES.into_iter().zip(outcomes) {
            let what = format!("{name} in mid-call, {rule}");
            let (first, begun) = if rule == "DISABLE" { (0, Plain) } else { (2, Srtp) };
            let sockets = Sockets::new();
            let (_, opening, _) = table().swap_remove(first);
            let mut call = phone.dial(number, &sockets.describe(&opening)).unwrap();
            assert_eq!(sockets.outcome(), begun, "{what}");
            again(&mut call, &sockets, (&media, expected, begun), &what);
            call.hang_up();
        }
    }
    gateway.assert_quiet();
}

fn again(
    call: &mut Call<'_>,
    sockets: &Sockets,
    (media, expected, begun): (&str, Outcome, Outcome),
    what: &str,
) {
    let answer = call.reinvite(&sockets.describe(media));
    if expected == Refused {
        assert_eq!(status(&answer), 488, "{what}");
        assert!(!header(&answer, "Warning").is_empty(), "{what}: {answer}");
        assert_eq!(sockets.outcome(), begun, "{what}: the session stays");
        assert!(call.is_up(), "{what}");
    } else {
        assert_eq!(status(&answer), 200, "{what}: {answer}");
        assert_answer(body(&answer), expected, what);
        assert_eq!(sockets.outcome(), expected, "{what}");
    }
}
