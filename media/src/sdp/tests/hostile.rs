//! Texts that mean harm: counts, sizes, numbers out of range, and anything at all.

use super::*;
use proptest::prelude::*;

fn judged(offer: &str) -> Option<Incompatible> {
    refusal(&mut leg(Encryption::Allow), offer)
}

#[test]
fn what_is_no_description_is_malformed() {
    for text in ["", "\r\n\r\n", "hello", "<xml/>", "=", "m", "c=IN IP4 192.0.2.1"] {
        assert_eq!(judged(text), Some(Incompatible::Malformed), "{text:?}");
    }
    for line in [
        "m=audio",
        "m=audio 4000",
        "m=audio 4000 RTP/AVP",
        "m=audio -1 RTP/AVP 0",
        "m=audio 65536 RTP/AVP 0",
        "m=audio port RTP/AVP 0",
        "m= 4000 RTP/AVP 0",
        "m=audio 4000 RTP/\u{e9} 0",
    ] {
        assert_eq!(judged(&described(line)), Some(Incompatible::Malformed), "{line}");
    }
}

#[test]
fn counts_and_sizes_are_bounded() {
    let eight = "m=audio 4000 RTP/AVP 0\n".repeat(8);
    assert_eq!(judged(&described(&eight)), None);
    assert_eq!(judged(&described(&(eight + "m=audio 1 RTP/AVP 0"))), Some(Incompatible::TooLarge));
    let big = described("m=audio 4000 RTP/AVP 0") + &"a=x\r\n".repeat(20_000);
    assert_eq!(judged(&big), Some(Incompatible::TooLarge));

    let long = described("m=audio 4000 RTP/AVP 0") + &"a=x\n".repeat(2_000);
    assert_eq!(judged(&long), Some(Incompatible::TooLarge));

    let formats: String = (0..40).map(|_| "18 ").collect();
    let offer = described(&format!("m=audio 4000 RTP/AVP {formats}0"));
    assert_eq!(judged(&offer), Some(Incompatible::NoCodec), "the 41st format is not read");

    let line = format!("a=crypto:1 CRYPTO_X inline:{KEY_A}\n");
    let good = format!("a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{KEY_A}\n");
    let fifteen = format!("m=audio 4000 RTP/SAVP 0\n{}{good}", line.repeat(15));
    assert_eq!(judged(&described(&fifteen)), None);
    let many = format!("m=audio 4000 RTP/SAVP 0\n{}{good}", line.repeat(65));
    assert_eq!(judged(&described(&many)), Some(Incompatible::NoUsableCrypto));
}

#[test]
fn numbers_out_of_range_are_not_formats() {
    for formats in ["128", "255", "256", "999999999999", "-1", "0x0", "72", "64", "95"] {
        let offer =
            described(&format!("m=audio 4000 RTP/AVP {formats}\na=rtpmap:{formats} PCMU/8000"));
        assert_eq!(judged(&offer), Some(Incompatible::NoCodec), "{formats}");
    }
    for map in
        ["a=rtpmap:", "a=rtpmap:96", "a=rtpmap:96 PCMU", "a=rtpmap:96 /8000", "a=rtpmap:x y/z"]
    {
        let offer = described(&format!("m=audio 4000 RTP/AVP 96\n{map}"));
        assert_eq!(judged(&offer), Some(Incompatible::NoCodec), "{map}");
    }
}

#[test]
fn redundancy_without_rtpmap_and_duplicate_mids_are_harmless() {
    let offer = described(
        "m=audio 4000 RTP/AVP 121 0\na=fmtp:121 0/0\na=mid:0\na=mid:1\nm=video 1 RTP/AVP 31\na=mid:0",
    );
    assert_eq!(judged(&offer), None);
}

#[test]
fn media_cannot_be_aimed_at_groups_everyone_or_ourselves() {
    for (address, why) in [
        ("IP4 224.2.1.1/127", Incompatible::Multicast),
        ("IP4 239.1.1.1/127/3", Incompatible::Multicast),
        ("IP6 ff15::101/3", Incompatible::AddressFamily),
        ("IP4 255.255.255.255", Incompatible::BadAddress),
        ("IP4 127.0.0.1", Incompatible::BadAddress),
        ("IP4 169.254.169.254", Incompatible::BadAddress),
        ("IP4 0.0.0.1", Incompatible::BadAddress),
        ("IP4 256.1.1.1", Incompatible::BadAddress),
        ("IP4 1.2.3.4.5", Incompatible::BadAddress),
        ("IP4 0x7f.1", Incompatible::BadAddress),
        ("IP4 2130706433", Incompatible::BadAddress),
        ("IP6 2001:db8::1", Incompatible::AddressFamily),
        ("IP6 ::ffff:127.0.0.1", Incompatible::BadAddress),
        ("IP4 a_b!c", Incompatible::BadAddress),
    ] {
        let why = if address.starts_with("IP6 ff") { Incompatible::Multicast } else { why };
        let offer = format!("v=0\r\nc=IN {address}\r\nm=audio 4000 RTP/AVP 0\r\n");
        assert_eq!(judged(&offer), Some(why), "{address}");
    }
    let own = "v=0\r\nc=IN IP4 203.0.113.5\r\nm=audio 20000 RTP/AVP 0\r\n";
    assert_eq!(judged(own), Some(Incompatible::BadAddress));
    let nowhere = "v=0\r\nm=audio 4000 RTP/AVP 0\r\n";
    assert_eq!(judged(nowhere), Some(Incompatible::BadAddress));
    let atm = "v=0\r\nc=ATM NSAP 47.0091\r\nm=audio 4000 RTP/AVP 0\r\n";
    assert_eq!(judged(atm), Some(Incompatible::BadAddress));
    assert_eq!(judged(&described("m=audio 0 RTP/AVP 0")), Some(Incompatible::NoAudio));
}

#[test]
fn nothing_of_the_peer_can_add_a_line_to_our_answer() {
    let offer = described(
        "m=video 5000 RTP/AVP 31
         m=audio 4000 RTP/AVP 0
         a=mid:x\u{b}a=inactive
         a=mid:y",
    );
    let (text, _) = answer(&mut leg(Encryption::Allow), &offer).unwrap();
    assert!(!text.contains("inactive"), "{text}");
    assert!(text.ends_with("\r\n") && !text.contains("\n\n"));
}

/// Bits a description is made of, true and false ones.
fn piece() -> impl Strategy<Value = String> {
    let fixed = proptest::sample::select(vec![
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "s=-",
        "t=0 0",
        "c=IN IP4 192.0.2.1",
        "c=IN IP4 0.0.0.0",
        "c=IN IP6 ::1",
        "c=IN IP4 224.0.0.1",
        "m=audio 4000 RTP/AVP 0 8 101",
        "m=audio 0 RTP/AVP 0",
        "m=audio 4000 RTP/SAVP 0",
        "m=image 5 udptl t38",
        "m=video 5000 RTP/AVP 31",
        "a=sendonly",
        "a=inactive",
        "a=ptime:0",
        "a=ptime:30",
        "a=maxptime:10",
        "a=rtcp:5",
        "a=rtcp-mux",
        "a=mid:1",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:0 opus/48000/2",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WnD7|2^31|1:4",
        "a=crypto:",
        "b=AS:64",
        "k=clear:x",
    ]);
    prop_oneof![
        8 => fixed.prop_map(str::to_owned),
        1 => "[ -~]{0,40}",
        1 => "[a-z]=.{0,40}",
        1 => "m=audio [0-9]{0,6} [A-Z/]{0,12} [0-9 ]{0,60}",
        1 => "a=crypto:[0-9]{0,10} [A-Z0-9_]{0,30} inline:[A-Za-z0-9+/=|:^]{0,60}",
    ]
}

/// What must hold of every answer we give.
fn check_answer(offer: &[u8], text: &str, plan: &Plan) -> Result<(), TestCaseError> {
    let again = super::super::parse::Description::parse(text.as_bytes());
    prop_assert!(again.is_ok(), "our own text: {text}");
    let offered = super::super::parse::Description::parse(offer).ok().unwrap();
    let answered = again.ok().unwrap();
    prop_assert_eq!(offered.sections.len(), answered.sections.len());
    let open = answered.sections.iter().filter(|section| section.port != 0).count();
    prop_assert_eq!(open, 1);
    prop_assert!((10..=60).contains(&plan.ptime_ms));
    prop_assert!(plan.payload_type <= 127);
    prop_assert!(!plan.remote.ip().is_multicast() && plan.remote.port() != 0);
    prop_assert!(text.len() < 2_000);
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut leg = leg(Encryption::Allow);
        if let Ok((text, plan)) = leg.answer(&bytes, &mut counting()) {
            check_answer(&bytes, &String::from_utf8(text).unwrap(), &plan)?;
        }
        leg.offer(&mut counting());
        let _ = leg.accept(&bytes);
    }

    #[test]
    fn any_mix_of_lines_keeps_the_promises(
        offers in proptest::collection::vec(proptest::collection::vec(piece(), 0..14), 1..4),
        rule in 0..3_usize,
    ) {
        let rule = [Encryption::Disable, Encryption::Allow, Encryption::Require][rule];
        let mut leg = leg(rule);
        let mut rng = counting();
        let mut last = None;
        for lines in offers {
            let offer = described("m=audio 4000 RTP/AVP 0") + &lines.join("\r\n");
            let Ok((text, plan)) = answer_with(&mut leg, &offer, &mut rng) else { continue };
            check_answer(offer.as_bytes(), &text, &plan)?;
            match rule {
                Encryption::Disable => prop_assert!(plan.srtp.is_none()),
                Encryption::Require => prop_assert!(plan.srtp.is_some()),
                Encryption::Allow => {}
            }
            if let Some(before) = last.replace(text.clone()) {
                let grown = version(&text) - version(&before);
                prop_assert_eq!(grown, u64::from(before != text));
            }
        }
    }
}
