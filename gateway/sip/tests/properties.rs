//! What holds for every input: nothing panics, what is printed reads back, a stream may be cut
//! anywhere.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers may fail it")]

use bytes::Bytes;
use proptest::prelude::*;
use sip::digest::{Challenge, Claim, Credentials, Nonces, Question};
use sip::{Frame, FrameError, HeaderName, Message, NameAddr, Request, Response, StreamFramer, Uri};
use sip::{Via, Writer};

const SEEDS: &[&str] = &[
    "INVITE sips:alice;x=%41:pw@[2001:db8::1]:5061;transport=tls;lr SIP/2.0\r\n\
     Via: SIP/2.0/TLS [2001:db8::9]:5061;branch=z9hG4bKx;rport;received=::1,\r\n SIP / 2.0 / UDP h : 7;ttl=1\r\n\
     Max-Forwards: 070\r\nf : \"A \\\"B\\\" <x>\" <sip:a@h;p=1?s=%20>;tag=f;q=\"1;2\"\r\nt:\r\n <tel:+1-555;phone-context=h>\r\n\
     Call-ID: c@h\r\nCSeq: 12 INVITE\r\nm: <sip:a@h>;+sip.instance=\"<urn:x>\", Z <sip:z@h>\r\nSupported: a, b\r\n\
     X: y\r\n\tz\r\nk:\r\nContent-Type: application/sdp\r\nl: 4\r\n\r\nv=0\nextra",
    "SIP/2.0 407 Proxy Authentication Required\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKq;rport=9\r\n\
     From: sip:a@h;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: 1\r\nCSeq: 4294967295 REGISTER\r\n\
     Proxy-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth,auth-int\", algorithm=SHA-256, stale=true\r\n\
     Contact: *\r\nRecord-Route: <sip:p1;lr>,<sip:p2;lr>\r\nContent-Length: 0\r\n\r\n",
    "REGISTER sip:h SIP/2.0\nVia: SIP/2.0/TCP a\nFrom: <sip:a@h>\nTo: <sip:a@h>\nCall-ID: z\nCSeq: 1 REGISTER\n\
     Authorization: Digest username=\"a\", realm=\"trunkline\", nonce=\"AAAA\", uri=\"sip:h\", response=\"00\", qop=auth, nc=00000001, cnonce=\"c\"\n\n",
];

/// One change to a message: where, and what.
#[derive(Clone, Debug)]
enum Change {
    Flip(u16, u8),
    Cut(u16, u8),
    Insert(u16, &'static str),
    Splice(u16, u16, u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    const PIECES: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        "\0",
        " ",
        "\t",
        "\r\n ",
        ",",
        ";",
        ":",
        "=",
        "\"",
        "\\",
        "<",
        ">",
        "@",
        "%",
        "%00",
        "%4",
        "[",
        "]",
        "?",
        "*",
        "SIP/2.0",
        "99999999999999999999",
        "-1",
        "\u{fc}",
        ";;",
        "\r\n\r\n",
        "Content-Length: 5\r\n",
        "Via: SIP/2.0/UDP h\r\n",
        "tag=",
        "z9hG4bK",
        "sip:",
        "tel:",
        "::",
    ];
    let change = prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        (any::<u16>(), any::<u8>()).prop_map(|(at, length)| Change::Cut(at, length)),
        (any::<u16>(), proptest::sample::select(PIECES))
            .prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<u16>(), any::<u16>(), any::<u8>())
            .prop_map(|(at, from, length)| Change::Splice(at, from, length)),
    ];
    proptest::collection::vec(change, 0..8)
}

fn apply(seed: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.as_bytes().to_vec();
    for change in changes {
        let spot = |at: u16| usize::from(at) % (bytes.len() + 1);
        match *change {
            Change::Flip(at, byte) => {
                let at = spot(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            Change::Cut(at, length) => {
                let (start, end) = (spot(at), (spot(at) + usize::from(length)).min(bytes.len()));
                bytes.drain(start..end);
            }
            Change::Insert(at, piece) => {
                let at = spot(at);
                bytes.splice(at..at, piece.bytes());
            }
            Change::Splice(at, from, length) => {
                let (at, from) = (spot(at), spot(from));
                let end = (from + usize::from(length)).min(bytes.len());
                let piece = bytes[from..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Asks a message for everything it could be asked for.
fn exhaust(bytes: Bytes) {
    let Ok(message) = Message::parse(bytes) else { return };
    let source = "192.0.2.7:5060".parse().unwrap();
    for (name, raw, value) in message.headers() {
        let _ = (HeaderName::parse(raw), message.text(name), message.values(name).count());
        let _ = (Uri::parse(value), Via::parse(value), NameAddr::parse(value));
        let _ = NameAddr::parse(value).map(|address| (address.display_name(), address.tag()));
        digests(value);
    }
    if message.is_request() {
        let reply = Writer::reply_to(&message, source, 200, None, Some("tag")).unwrap();
        let reply = Message::parse(reply.finish(None).unwrap()).expect("a reply can be read");
        assert_eq!(reply.fault(), None, "{:?}", reply.bytes());
    }
    match Request::try_from(message.clone()) {
        Ok(request) => {
            let _ = (request.uri().user(), request.via().branch(), request.from().tag());
            let _ =
                (request.to().tag(), request.contact(), request.call_id(), request.vias().count());
            let reply = Writer::reply_to(&request, source, 180, None, Some("tag")).unwrap();
            let reply = Message::parse(reply.finish(None).unwrap()).unwrap();
            let response =
                Response::try_from(reply).expect("the reply to a checked request is whole");
            assert_eq!(response.call_id(), request.call_id());
            assert_eq!(response.cseq(), (request.cseq(), request.method()));
            assert_eq!(response.from().tag(), request.from().tag());
            assert_eq!(response.via().branch(), request.via().branch());
            assert_eq!(response.vias().count(), request.vias().count());
        }
        Err(rejection) => drop((rejection.is_answerable(), rejection.reason)),
    }
    if let Ok(response) = Response::try_from(message) {
        let _ =
            (response.via(), response.from(), response.to(), response.contact(), response.cseq());
    }
}

fn digests(value: &[u8]) {
    let credentials = Credentials { username: "a", password: "b" };
    let question = Question { method: "INVITE", uri: b"sip:h", body: b"", cnonce: "c", nc: 1 };
    if let Some(Ok(answer)) = Challenge::parse(value).map(|c| c.answer(credentials, question)) {
        assert!(!answer.contains(['\r', '\n', '\0']));
    }
    let mut nonces = Nonces::new([1; 32], "trunkline").unwrap();
    let claim = Claim { credentials: value, method: b"REGISTER", uri: b"sip:h" };
    let _ = nonces.verify(claim, |_| Some("b"), 1);
}

fn frames(chunks: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let (mut framer, mut frames) = (StreamFramer::new(), Vec::new());
    for chunk in chunks {
        framer.push(chunk);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn printable() -> impl Strategy<Value = String> {
    proptest::string::string_regex("([!-~\u{fc}\u{44f}]([ -~\u{fc}]{0,40}[!-~])?)?").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_changed_message_makes_anything_panic(seed in 0..SEEDS.len(), changes in changes()) {
        exhaust(apply(SEEDS[seed], &changes).into());
    }

    #[test]
    fn no_bytes_at_all_make_anything_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Uri::parse(&bytes), Via::parse(&bytes), NameAddr::parse(&bytes));
        digests(&bytes);
        frames(&[&bytes]);
        exhaust(bytes.into());
    }

    #[test]
    fn a_stream_gives_the_same_frames_wherever_it_is_cut(
        picks in proptest::collection::vec((0..SEEDS.len(), changes()), 1..4),
        cuts in proptest::collection::vec(any::<u16>(), 0..12),
    ) {
        let stream: Vec<u8> = picks.iter().flat_map(|(seed, changes)| apply(SEEDS[*seed], changes)).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|&at| usize::from(at) % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let bytes: Vec<_> = stream.chunks(1).collect();
        prop_assert_eq!(frames(&chunks), frames(&[&stream]));
        prop_assert_eq!(frames(&bytes), frames(&[&stream]));
    }

    /// A frame is a message of exactly its bytes: the two readers agree on where it ends.
    #[test]
    fn framer_and_parser_agree_on_where_a_message_ends(seed in 0..SEEDS.len(), changes in changes()) {
        for frame in frames(&[&apply(SEEDS[seed], &changes)]).0 {
            let Frame::Message(frame) = frame else { continue };
            let Ok(message) = Message::parse(frame.clone()) else { continue };
            if message.fault().is_none() {
                prop_assert_eq!(message.bytes(), &frame);
            }
        }
    }

    #[test]
    fn what_was_printed_reads_back_the_same(
        headers in proptest::collection::vec(("[A-Za-z0-9.!%*_+`'~-]{1,20}", printable()), 0..30),
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let length = HeaderName::ContentLength;
        prop_assume!(headers.iter().all(|(name, _)| HeaderName::parse(name.as_bytes()) != length));
        let mut writer = Writer::request("INFO", b"sip:a@h").unwrap();
        for (name, value) in &headers {
            writer.extension(name, value).unwrap();
        }
        let bytes = writer.finish(Some(("a/b", &body))).unwrap();
        let message = Message::parse(bytes.clone()).unwrap();
        prop_assert_eq!(message.fault(), None);
        prop_assert_eq!(message.body(), &body[..]);
        let read: Vec<_> = message.headers().map(|(_, name, value)| (name, value)).collect();
        prop_assert_eq!(read.len(), headers.len() + 2);
        for ((name, value), read) in headers.iter().zip(read) {
            prop_assert_eq!((name.as_bytes(), value.as_bytes()), read);
        }
    }

    #[test]
    fn a_value_is_printed_exactly_when_it_cannot_end_its_line(value in any::<Vec<u8>>()) {
        let mut writer = Writer::request("INFO", b"sip:a@h").unwrap();
        let fits = !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        prop_assert_eq!(writer.header(HeaderName::Subject, &value).is_ok(), fits);
        let bytes = writer.finish(None).unwrap();
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        prop_assert_eq!(lines, if fits { 4 } else { 3 });
    }

    #[test]
    fn equivalence_of_uris_is_symmetric_and_reflexive(
        one in "(sips?|tel|x):[a-c%0-9;=@?&.:+-]{0,24}", two in "(sips?|tel|x):[a-c%0-9;=@?&.:+-]{0,24}",
    ) {
        if let (Some(one), Some(two)) = (Uri::parse(one.as_bytes()), Uri::parse(two.as_bytes())) {
            prop_assert!(one.equivalent(&one) && two.equivalent(&two));
            prop_assert_eq!(one.equivalent(&two), two.equivalent(&one));
        }
    }
}
