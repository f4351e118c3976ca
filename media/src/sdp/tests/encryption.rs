//! The encryption table: what is offered × what is allowed × first or later offer.

use super::*;

const CRYPTO: &str = "AES_CM_128_HMAC_SHA1_80 inline:WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Plain,
    Srtp,
    Refused(Incompatible),
}

use Incompatible::{EncryptionRefused, EncryptionRequired, NoUsableCrypto};
use Outcome::{Plain, Refused, Srtp};

/// The offers with what disable, allow and require make of them.
fn table() -> Vec<(&'static str, String, [Outcome; 3])> {
    let srtp_only = [Refused(EncryptionRefused), Srtp, Srtp];
    let srtp_without =
        [Refused(EncryptionRefused), Refused(NoUsableCrypto), Refused(NoUsableCrypto)];
    let flag =
        |name: &str| described(&format!("m=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO} {name}"));
    vec![
        ("AVP", described("m=audio 4000 RTP/AVP 0"), [Plain, Plain, Refused(EncryptionRequired)]),
        (
            "AVP with crypto",
            described(&format!("m=audio 4000 RTP/AVP 0\na=crypto:1 {CRYPTO}")),
            [Plain, Srtp, Srtp],
        ),
        (
            "AVPF with crypto before rtpmap",
            described(&format!(
                "m=audio 4000 RTP/AVPF 0\na=crypto:1 {CRYPTO}\na=rtpmap:0 PCMU/8000"
            )),
            [Plain, Srtp, Srtp],
        ),
        ("SAVP", described(&format!("m=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO}")), srtp_only),
        ("SAVPF", described(&format!("m=audio 4000 RTP/SAVPF 0\na=crypto:1 {CRYPTO}")), srtp_only),
        ("SAVP without crypto", described("m=audio 4000 RTP/SAVP 0"), srtp_without),
        (
            "SAVP and AVP lines",
            described(&format!(
                "m=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO}\nm=audio 4002 RTP/AVP 0"
            )),
            [Plain, Srtp, Srtp],
        ),
        (
            "AVP and SAVP lines",
            described(&format!(
                "m=audio 4002 RTP/AVP 0\nm=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO}"
            )),
            [Plain, Srtp, Srtp],
        ),
        (
            "SAVP with an unknown suite",
            described(&format!("m=audio 4000 RTP/SAVP 0\na=crypto:1 CRYPTO_X inline:{KEY_A}")),
            srtp_without,
        ),
        (
            "AVP with an unknown suite",
            described(&format!("m=audio 4000 RTP/AVP 0\na=crypto:1 CRYPTO_X inline:{KEY_A}")),
            [Plain, Plain, Refused(NoUsableCrypto)],
        ),
        ("SAVP with UNENCRYPTED_SRTP", flag("UNENCRYPTED_SRTP"), srtp_without),
        ("SAVP with UNENCRYPTED_SRTCP", flag("UNENCRYPTED_SRTCP"), srtp_without),
        ("SAVP with UNAUTHENTICATED_SRTP", flag("UNAUTHENTICATED_SRTP"), srtp_without),
        (
            "SAVP with a weak line and a good one",
            described(&format!(
                "m=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO} UNENCRYPTED_SRTP\na=crypto:2 {CRYPTO}"
            )),
            srtp_only,
        ),
        (
            "DTLS",
            described(
                "m=audio 4000 UDP/TLS/RTP/SAVPF 0\na=fingerprint:sha-256 AA\na=setup:actpass",
            ),
            [Refused(Incompatible::Transport); 3],
        ),
    ]
}

fn outcome(result: &Result<(String, Plan), Incompatible>) -> Outcome {
    match result {
        Ok((_, plan)) if plan.srtp.is_some() => Srtp,
        Ok(_) => Plain,
        Err(why) => Refused(*why),
    }
}

const RULES: [Encryption; 3] = [Encryption::Disable, Encryption::Allow, Encryption::Require];

#[test]
fn first_offers_follow_the_table() {
    for (name, offer, outcomes) in table() {
        for (rule, expected) in RULES.into_iter().zip(outcomes) {
            let result = answer(&mut leg(rule), &offer);
            assert_eq!(outcome(&result), expected, "{name}, {rule:?}");
            let Ok((text, plan)) = result else { continue };
            assert_eq!(text.contains("a=crypto:"), plan.srtp.is_some(), "{name}, {rule:?}");
        }
    }
}

#[test]
fn later_offers_follow_the_same_table_and_a_refused_one_changes_nothing() {
    let secure = described(&format!("m=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO}"));
    let plain = described("m=audio 4000 RTP/AVP 0");
    for (name, offer, outcomes) in table() {
        for (rule, expected) in RULES.into_iter().zip(outcomes) {
            let mut leg = leg(rule);
            let mut rng = counting();
            let first = if rule == Encryption::Disable { &plain } else { &secure };
            let (before, _) = answer_with(&mut leg, first, &mut rng).unwrap();
            let result = answer_with(&mut leg, &offer, &mut rng);
            assert_eq!(outcome(&result), expected, "{name}, {rule:?}");
            if result.is_err() {
                let (after, _) = answer_with(&mut leg, first, &mut rng).unwrap();
                assert_eq!(before, after, "{name}, {rule:?}");
            }
        }
    }
}

/// The answers to our offer with what disable, allow and require make of them.
fn answers() -> Vec<(&'static str, String, [Outcome; 3])> {
    let line = |proto: &str, crypto: &str| described(&format!("m=audio 4000 {proto} 0\n{crypto}"));
    let refused_anyhow =
        [Refused(EncryptionRefused), Refused(NoUsableCrypto), Refused(NoUsableCrypto)];
    // A line we left out of our offer cannot be answered with: keys have no meaning there.
    let plain_with = [Plain, Refused(NoUsableCrypto), Refused(NoUsableCrypto)];
    let key = format!("a=crypto:1 {CRYPTO}");
    let short = format!("a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{KEY_A}");
    vec![
        ("AVP", line("RTP/AVP", ""), [Plain, Plain, Refused(EncryptionRequired)]),
        ("AVP with crypto", line("RTP/AVP", &key), [Plain, Srtp, Srtp]),
        ("SAVP", line("RTP/SAVP", &key), [Refused(EncryptionRefused), Srtp, Srtp]),
        ("SAVP, short suite", line("RTP/SAVP", &short), [Refused(EncryptionRefused), Srtp, Srtp]),
        ("SAVP without crypto", line("RTP/SAVP", ""), refused_anyhow),
        (
            "SAVP, then AVP",
            line("RTP/SAVP", &format!("{key}\nm=audio 4002 RTP/AVP 0")),
            [Refused(EncryptionRefused), Srtp, Srtp],
        ),
        (
            "AVP, then SAVP",
            line("RTP/AVP", &format!("m=audio 4002 RTP/SAVP 0\n{key}")),
            [Plain, Plain, Refused(EncryptionRequired)],
        ),
        (
            "AVP, unknown suite",
            line("RTP/AVP", &format!("a=crypto:1 CRYPTO_X inline:{KEY_A}")),
            plain_with,
        ),
        (
            "SAVP, unknown suite",
            line("RTP/SAVP", &format!("a=crypto:1 CRYPTO_X inline:{KEY_A}")),
            refused_anyhow,
        ),
        ("SAVP, tag of nobody", line("RTP/SAVP", &format!("a=crypto:9 {CRYPTO}")), refused_anyhow),
        (
            "SAVP, suite of another tag",
            line("RTP/SAVP", &format!("a=crypto:2 {CRYPTO}")),
            refused_anyhow,
        ),
        (
            "AVP with UNENCRYPTED_SRTP",
            line("RTP/AVP", &format!("{key} UNENCRYPTED_SRTP")),
            plain_with,
        ),
        (
            "SAVP with UNENCRYPTED_SRTCP",
            line("RTP/SAVP", &format!("{key} UNENCRYPTED_SRTCP")),
            refused_anyhow,
        ),
        (
            "SAVP with UNAUTHENTICATED_SRTP",
            line("RTP/SAVP", &format!("{key} UNAUTHENTICATED_SRTP")),
            refused_anyhow,
        ),
        (
            "DTLS",
            line("UDP/TLS/RTP/SAVPF", "a=setup:active"),
            [
                Refused(Incompatible::Transport),
                Refused(Incompatible::Transport),
                Refused(Incompatible::Transport),
            ],
        ),
    ]
}

fn accepted(leg: &mut Negotiation, answer: &str) -> Outcome {
    outcome(&leg.accept(answer.as_bytes()).map(|plan| (String::new(), plan)))
}

#[test]
fn answers_to_our_offers_follow_the_rule_too() {
    for (name, answer, outcomes) in answers() {
        for (rule, expected) in RULES.into_iter().zip(outcomes) {
            let mut leg = leg(rule);
            leg.offer(&mut counting());
            assert_eq!(accepted(&mut leg, &answer), expected, "{name}, {rule:?}");
        }
    }
}

/// An answer may come early (183) and once more with the final response, and the two may differ by
/// fork; neither gets past the rule because of the other.
#[test]
fn an_early_answer_opens_no_way_around_the_rule() {
    for (early_name, early, early_outcomes) in answers() {
        for (name, last, outcomes) in answers() {
            for (at, rule) in RULES.into_iter().enumerate() {
                let mut leg = leg(rule);
                leg.offer(&mut counting());
                assert_eq!(
                    accepted(&mut leg, &early),
                    early_outcomes[at],
                    "{early_name}, {rule:?}"
                );
                let found = accepted(&mut leg, &last);
                assert_eq!(found, outcomes[at], "{early_name}, then {name}, {rule:?}");
            }
        }
    }
}

/// Our re-INVITE or UPDATE in a call that is encrypted.
#[test]
fn no_answer_takes_the_keys_away_from_a_call() {
    let proper = described(&format!("m=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO}"));
    for rule in [Encryption::Allow, Encryption::Require] {
        for (name, answer, outcomes) in answers() {
            let mut leg = leg(rule);
            let mut rng = counting();
            leg.offer(&mut rng);
            let before = leg.accept(proper.as_bytes()).unwrap().srtp.unwrap();
            leg.set_direction(crate::sdp::Direction::SendOnly);
            leg.offer(&mut rng);
            let again = leg.accept(answer.as_bytes());
            // The short suite is not the one in use, and no other is offered any more.
            let keeps = outcomes[2] == Srtp && name != "SAVP, short suite";
            assert_eq!(again.is_ok(), keeps, "{name}, {rule:?}");
            if let Ok(plan) = again {
                assert!(plan.srtp.is_some_and(|keys| keys.local == before.local));
                continue;
            }
            leg.withdraw();
            let text = String::from_utf8(leg.offer(&mut rng)).unwrap();
            assert!(text.contains("a=sendrecv"), "the hold was taken back: {text}");
            let after = leg.accept(proper.as_bytes()).unwrap().srtp.unwrap();
            assert_eq!(after.local_epoch, before.local_epoch, "{name}, {rule:?}");
            assert_eq!(after.remote_epoch, before.remote_epoch, "{name}, {rule:?}");
        }
    }
}

#[test]
fn the_strong_suite_is_taken_wherever_it_stands() {
    let offer = described(&format!(
        "m=audio 4000 RTP/SAVP 0
         a=crypto:3 AES_CM_128_HMAC_SHA1_32 inline:{KEY_B}
         a=crypto:8 aes_cm_128_hmac_sha1_80 inline:{KEY_A}|2^31"
    ));
    let (text, plan) = answer(&mut leg(Encryption::Allow), &offer).unwrap();
    let line = text.lines().find(|line| line.starts_with("a=crypto:")).unwrap();
    assert!(line.starts_with("a=crypto:8 AES_CM_128_HMAC_SHA1_80 inline:"), "{line}");
    assert_eq!(plan.srtp.unwrap().suite, crate::srtp::Suite::AesCm128HmacSha1_80);
    assert_has(&text, "m=audio 20000 RTP/SAVP 0");
}

#[test]
fn the_short_suite_is_taken_when_it_is_all_there_is() {
    let offer = described(&format!(
        "m=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{KEY_B}"
    ));
    let (_, plan) = answer(&mut leg(Encryption::Require), &offer).unwrap();
    assert_eq!(plan.srtp.unwrap().suite, crate::srtp::Suite::AesCm128HmacSha1_32);
}

#[test]
fn our_key_stays_while_the_peers_stays_and_changes_with_it() {
    let offer = |key: &str| {
        described(&format!(
            "m=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}"
        ))
    };
    let mut leg = leg(Encryption::Require);
    let mut rng = counting();
    let (first, plan) = answer_with(&mut leg, &offer(KEY_A), &mut rng).unwrap();
    let keys = plan.srtp.unwrap();
    assert_eq!((keys.local_epoch, keys.remote_epoch), (1, 1));

    let (again, plan) = answer_with(&mut leg, &offer(KEY_A), &mut rng).unwrap();
    let same = plan.srtp.unwrap();
    assert_eq!((same.local_epoch, same.remote_epoch), (1, 1));
    assert!(same.local == keys.local && same.remote == keys.remote);
    assert_eq!(first, again, "nothing changed, so neither does the text");

    let (rekeyed, plan) = answer_with(&mut leg, &offer(KEY_B), &mut rng).unwrap();
    let new = plan.srtp.unwrap();
    assert_eq!((new.local_epoch, new.remote_epoch), (2, 2));
    assert!(new.local != keys.local && new.remote != keys.remote);
    assert_eq!(version(&rekeyed), version(&first) + 1);
}

#[test]
fn keys_are_never_the_same_on_two_legs() {
    let offer = described(&format!("m=audio 4000 RTP/SAVP 0\na=crypto:1 {CRYPTO}"));
    let mut rng = counting();
    let (_, one) = answer_with(&mut leg(Encryption::Require), &offer, &mut rng).unwrap();
    let (_, two) = answer_with(&mut leg(Encryption::Require), &offer, &mut rng).unwrap();
    assert!(one.srtp.unwrap().local != two.srtp.unwrap().local);
}

#[test]
fn our_offers_have_the_shape_of_the_rule() {
    for (rule, media, lines) in [
        (Encryption::Disable, "m=audio 20000 RTP/AVP 0 8 101", 0),
        (Encryption::Allow, "m=audio 20000 RTP/AVP 0 8 101", 2),
        (Encryption::Require, "m=audio 20000 RTP/SAVP 0 8 101", 2),
    ] {
        let text = String::from_utf8(leg(rule).offer(&mut counting())).unwrap();
        assert_has(&text, media);
        let crypto = text.lines().filter(|line| line.starts_with("a=crypto:")).count();
        assert_eq!(crypto, lines, "{text}");
    }
}

#[test]
fn a_session_refresh_of_an_encrypted_call_offers_the_same_key() {
    let mut leg = leg(Encryption::Require);
    let mut rng = counting();
    leg.offer(&mut rng);
    let reply = described(&format!(
        "m=audio 4000 RTP/SAVP 0\na=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{KEY_B}"
    ));
    let first = leg.accept(reply.as_bytes()).unwrap().srtp.unwrap();
    let text = String::from_utf8(leg.offer(&mut rng)).unwrap();
    let again = leg.accept(reply.as_bytes()).unwrap().srtp.unwrap();
    assert!(first.local == again.local);
    assert_eq!((again.local_epoch, again.remote_epoch), (first.local_epoch, first.remote_epoch));
    assert_eq!(text.lines().filter(|line| line.starts_with("a=crypto:2 ")).count(), 1);
    assert_eq!(text.lines().filter(|line| line.starts_with("a=crypto:")).count(), 1);
}
