//! Texts of others: the odd habits of products, and the conformance material where it is there.

use super::*;
use std::path::PathBuf;

/// A file of the conformance material, which is not part of the repository.
fn conformance(path: &str) -> Option<String> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/conformance");
    let root =
        std::env::var_os("TRUNKLINE_CONFORMANCE").map_or(PathBuf::from(default), PathBuf::from);
    let found = std::fs::read_to_string(root.join(path)).ok();
    if found.is_none() {
        println!("skipped: no {path} below TRUNKLINE_CONFORMANCE");
    }
    found
}

#[test]
fn odd_texts_of_the_field_are_understood() {
    for (name, offer) in [
        (
            "user name with a space",
            "v=0\r\no=Cisco SIP 1 1 IN IP4 192.0.2.1\r\ns=x\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n",
        ),
        (
            "no s= and no t=",
            "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n",
        ),
        (
            "bare line feeds",
            "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\nm=audio 4000 RTP/AVP 0\n",
        ),
        (
            "bare carriage returns",
            "v=0\ro=- 1 1 IN IP4 192.0.2.1\rc=IN IP4 192.0.2.1\rm=audio 4000 RTP/AVP 0\r",
        ),
        ("no last line end", "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0"),
        (
            "junk lines",
            "v=0\r\nhello\r\nq=?\r\n=\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\nbogus\r\n",
        ),
        (
            "two c= lines",
            "v=0\r\nc=IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.2\r\nm=audio 4000 RTP/AVP 0\r\n",
        ),
        (
            "broken b= and t=",
            "v=0\r\nb=AS\r\nt=now\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n",
        ),
        (
            "spaces everywhere",
            "v=0 \r\nc=IN  IP4  192.0.2.1 \r\nm=audio  4000  RTP/AVP  0 8 \r\na= sendrecv \r\n",
        ),
        ("port count", "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000/2 RTP/AVP 0\r\n"),
        ("small letters", "v=0\r\nc=in ip4 192.0.2.1\r\nm=Audio 4000 rtp/avp 0\r\n"),
        ("c= only in the line", "v=0\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\n"),
        (
            "unknown attributes",
            "v=0\r\nc=IN IP4 192.0.2.1\r\na=tool:x\r\nm=audio 4000 RTP/AVP 0\r\na=candidate:1 1 UDP 1 10.0.0.1 5000 typ host\r\na=ssrc:1 cname:x\r\n",
        ),
    ] {
        let (_, plan) = answer(&mut leg(Encryption::Allow), offer)
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(plan.remote, "192.0.2.1:4000".parse().unwrap(), "{name}");
        assert!(plan.send && plan.receive, "{name}");
    }
}

#[test]
fn bytes_that_are_no_text_disturb_nothing() {
    let mut offer =
        b"v=0\r\no=J\xe9r\xf4me 1 1 IN IP4 192.0.2.1\r\ns=\xff\xfe\r\nx\x00y=1\r\n".to_vec();
    offer.extend_from_slice(b"c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n");
    assert!(leg(Encryption::Allow).answer(&offer, &mut counting()).is_ok());
}

#[test]
fn one_bundled_audio_line_is_answered_with_its_mid() {
    let offer = described(
        "a=group:BUNDLE audio
         m=audio 4000 RTP/SAVP 8
         a=mid:audio
         a=rtcp:9 IN IP4 0.0.0.0
         a=rtcp-mux
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ",
    );
    let (text, plan) = answer(&mut leg(Encryption::Allow), &offer).unwrap();
    assert_has(&text, "a=mid:audio");
    assert_has(&text, "a=rtcp-mux");
    assert!(plan.rtcp_mux && plan.srtp.is_some());
}

#[test]
fn crypto_lines_of_other_products_are_judged_by_their_class() {
    let Some(table) = conformance("vectors/sdes/crypto_lines.tsv") else { return };
    let mut usable = 0;
    for row in table.lines().skip(1) {
        let mut columns = row.split('\t');
        let (class, line) = (columns.next().unwrap(), columns.next().unwrap());
        let value = line.strip_prefix("a=crypto:").unwrap();
        let suite = value.split(' ').nth(1).unwrap().to_ascii_uppercase();
        let ours = suite == "AES_CM_128_HMAC_SHA1_80" || suite == "AES_CM_128_HMAC_SHA1_32";
        let key_identifier = value.split('|').skip(1).any(|part| part.contains(':'));
        let expected = class.starts_with("well-formed") && ours && !key_identifier;
        let offer = described(&format!("m=audio 4000 RTP/SAVP 0\n{line}"));
        let result = answer(&mut leg(Encryption::Require), &offer);
        assert_eq!(result.is_ok(), expected, "{class}: {line}");
        if let Ok((text, _)) = result {
            usable += 1;
            let tag = value.split(' ').next().unwrap();
            assert!(text.contains(&format!("a=crypto:{tag} {suite} inline:")), "{text}");
        }
    }
    assert!(usable >= 10, "only {usable} usable lines");
}

/// The strings of one key, wherever they stand, without a JSON reader: the file is flat text with
/// `\r\n` written as escapes.
fn strings_of(json: &str, key: &str) -> Vec<String> {
    let mark = format!("\"{key}\": \"");
    let values = json.split(&mark).skip(1).filter_map(|rest| rest.split('"').next());
    values.map(|value| value.replace("\\r\\n", "\r\n")).collect()
}

#[test]
fn offers_of_rfc_3264_and_4317_get_answers_of_their_shape() {
    let Some(json) = conformance("vectors/sdp/offer_answer_rfc3264_rfc4317.json") else { return };
    let offers = strings_of(&json, "offer");
    assert!(offers.len() >= 10, "{} offers", offers.len());
    let mut answered = 0;
    for offer in offers {
        match answer(&mut leg(Encryption::Allow), &offer) {
            Ok((text, plan)) => {
                answered += 1;
                assert_same_shape(&offer, &text);
                assert!(plan.remote.ip().is_unspecified(), "all of them have host names");
            }
            Err(why) => {
                let has_g711 = media_lines(&offer).iter().any(|line| {
                    let mut words = line.split(' ');
                    line.starts_with("m=audio ")
                        && words.nth(1) != Some("0")
                        && line.split(' ').skip(3).any(|format| format == "0" || format == "8")
                });
                assert!(!has_g711, "{why} for\n{offer}");
            }
        }
    }
    assert!(answered >= 8, "{answered} answered");
}

#[track_caller]
fn assert_same_shape(offer: &str, answer: &str) {
    let (offered, answered) = (media_lines(offer), media_lines(answer));
    assert_eq!(offered.len(), answered.len());
    let mut open = 0;
    for (offered, answered) in offered.into_iter().zip(answered) {
        let words: Vec<_> = answered.split(' ').collect();
        let theirs: Vec<_> = offered.split(' ').collect();
        assert_eq!((words[0], words[2]), (theirs[0], theirs[2]));
        assert!(words[3..].iter().all(|format| theirs[3..].contains(format)));
        open += usize::from(words[1] != "0");
    }
    assert_eq!(open, 1);
}
