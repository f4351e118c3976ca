//! rsip as the second opinion: whatever it reads, our wire layer reads the same.
//!
//! Two sources of messages: what other people wrote (flows of RFCs and messages of products, read
//! from the folder named by `TRUNKLINE_CONFORMANCE` where it is there), and ordinary messages with
//! letters changed, cut and doubled. Ours may refuse what rsip takes, for a reason that it names;
//! but it may not miss a header that rsip found, and where both read, they read the same.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};
use sip::{Malformed, Message, Request, Response};

/// What both readers are asked for.
#[derive(PartialEq, Eq, Debug)]
struct Reading {
    /// Method, or status code.
    start: String,
    call_id: String,
    cseq: (u32, String),
    from_tag: Option<String>,
    to_tag: Option<String>,
    branch: Option<String>,
    body: Vec<u8>,
}

/// Where rsip ends a value: at a letter that no token has. Ours keeps it, to be echoed as it came.
fn token(value: &Option<String>) -> Option<&str> {
    let letter = |c: char| !(c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c));
    value.as_deref().map(|value| value.split(letter).next().unwrap_or_default())
}

/// Whether both read the same. rsip takes everything behind the header for the body, whatever
/// Content-Length says.
fn agree(ours: &Reading, theirs: &Reading) -> bool {
    let tokens = |reading: &'_ Reading| {
        [&reading.from_tag, &reading.to_tag, &reading.branch]
            .map(|value| token(value).map(str::to_owned))
    };
    (&ours.start, &ours.call_id, &ours.cseq) == (&theirs.start, &theirs.call_id, &theirs.cseq)
        && tokens(ours) == tokens(theirs)
        && theirs.body.starts_with(&ours.body)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ours(bytes: &[u8]) -> Result<Reading, Malformed> {
    let message = Message::parse(Bytes::copy_from_slice(bytes))?;
    if message.is_request() {
        let request = Request::try_from(message).map_err(|rejection| rejection.why)?;
        return Ok(Reading {
            start: text(request.method_token()),
            call_id: text(request.call_id()),
            cseq: (request.cseq(), text(request.method_token())),
            from_tag: request.from().tag().map(text),
            to_tag: request.to().tag().map(text),
            branch: request.via().branch().map(text),
            body: request.body().to_vec(),
        });
    }
    let response = Response::try_from(message)?;
    let cseq = response.header(sip::HeaderName::CSeq).map(text).unwrap_or_default();
    let method = cseq.split_whitespace().nth(1).unwrap_or_default().to_owned();
    Ok(Reading {
        start: response.status().to_string(),
        call_id: text(response.call_id()),
        cseq: (response.cseq().0, method),
        from_tag: response.from().tag().map(text),
        to_tag: response.to().tag().map(text),
        branch: response.via().branch().map(text),
        body: response.body().to_vec(),
    })
}

/// `None`: rsip does not read it.
fn theirs(bytes: &[u8]) -> Option<Reading> {
    // It panics on some letters; that is one way of not reading.
    let message = std::panic::catch_unwind(|| rsip::SipMessage::try_from(bytes).ok()).ok()??;
    let start = match &message {
        rsip::SipMessage::Request(request) => request.method.to_string(),
        rsip::SipMessage::Response(response) => response.status_code.code().to_string(),
    };
    let read = || -> Result<Reading, rsip::Error> {
        let cseq = message.cseq_header()?.typed()?;
        let (from, to) = (message.from_header()?.typed()?, message.to_header()?.typed()?);
        let via = message.via_header()?.typed()?;
        Ok(Reading {
            start: start.clone(),
            call_id: message.call_id_header()?.value().to_owned(),
            cseq: (cseq.seq, cseq.method.to_string()),
            from_tag: from.tag().map(|tag| tag.value().to_owned()),
            to_tag: to.tag().map(|tag| tag.value().to_owned()),
            branch: via.branch().map(|branch| branch.value().to_owned()),
            body: message.body().clone(),
        })
    };
    let reading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read().ok())).ok()??;
    // What it cannot make sense of it reads as nothing.
    let lost = [&reading.from_tag, &reading.to_tag, &reading.branch];
    let lost = reading.branch.is_none() || lost.iter().any(|v| v.as_deref() == Some(""));
    (!lost).then_some(reading)
}

fn conformance() -> Option<PathBuf> {
    let root = std::env::var_os("TRUNKLINE_CONFORMANCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: {} is absent; set TRUNKLINE_CONFORMANCE", root.display());
    None
}

/// Messages of flows (in JSON) and of products (one a file).
fn foreign(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut folders = vec![folder.join("flows"), folder.join("wire")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            match path.extension().and_then(|extension| extension.to_str()) {
                None if path.is_dir() => folders.push(path),
                Some("sip") => messages.push((name, fs::read(path).unwrap())),
                Some("json") => {
                    let flow: serde_json::Value =
                        serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
                    let listed = flow["messages"].as_array().into_iter().flatten();
                    let raw = listed.filter_map(|message| message["raw"].as_str());
                    messages.extend(raw.map(|raw| (name.clone(), raw.as_bytes().to_vec())));
                }
                _ => {}
            }
        }
    }
    messages
}

#[test]
fn of_other_peoples_messages_both_read_the_same() {
    let Some(folder) = conformance() else { return };
    let (mut both, mut wrong) = (0, Vec::new());
    for (name, bytes) in foreign(&folder) {
        let Some(theirs) = theirs(&bytes) else { continue };
        both += 1;
        match ours(&bytes) {
            Ok(ours) if agree(&ours, &theirs) => {}
            // RFC 3261 §24.2 leaves its bodies out.
            Err(Malformed::BodyTooShort) => {}
            ours => wrong.push(format!("{name}: {ours:?} and {theirs:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(both > 60, "rsip read only {both}");
}

const SEEDS: [&str; 3] = [
    "INVITE sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h.example.com:5060;branch=z9hG4bKx;rport\r\n\
     Max-Forwards: 70\r\nFrom: \"A\" <sip:a@example.com>;tag=f1\r\nTo: <sip:alice@example.com>\r\n\
     Call-ID: c1@example.com\r\nCSeq: 12 INVITE\r\nContact: <sip:a@192.0.2.1:5060>\r\n\
     Content-Type: application/sdp\r\nContent-Length: 4\r\n\r\nv=0\n",
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 192.0.2.1:5061;branch=z9hG4bKy;received=192.0.2.9\r\n\
     From: <sip:a@example.com>;tag=f2\r\nTo: \"B C\" <sip:b@example.com:5080>;tag=t2\r\n\
     Call-ID: c2\r\nCSeq: 7 BYE\r\nContent-Length: 0\r\n\r\n",
    "BYE sip:b@192.0.2.7 SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bKz\r\nMax-Forwards: 9\r\n\
     From: sip:a@example.com;tag=f3\r\nTo: sip:b@example.com;tag=t3\r\nCall-ID: c3@h\r\n\
     CSeq: 4294967295 BYE\r\nContent-Length: 0\r\n\r\n",
];

/// What may stand where something else stood. Left out is what rsip guesses about: quotes and
/// brackets without a partner, blanks and folds around separators, letters that are of no token.
const PIECES: [&str; 9] = ["", "\r\n", "\r\nX: y\r\n", ";", "%41", "0", "9", ";x=y", "Z"];

fn changed() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<u16>(), 0..3_usize, 0..PIECES.len());
    (0..SEEDS.len(), proptest::collection::vec(change, 1..3)).prop_map(|(seed, changes)| {
        let mut bytes = SEEDS[seed].as_bytes().to_vec();
        for (at, cut, piece) in changes {
            let at = usize::from(at) % bytes.len();
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, PIECES[piece].bytes());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn of_changed_messages_both_read_the_same_or_ours_says_why_not(bytes in changed()) {
        let Some(theirs) = theirs(&bytes) else { return Ok(()) };
        // Behind a parameter that it cannot read it finds no tag.
        let written = text(&bytes);
        let lost = |tag: &Option<String>, mark: &str| tag.is_none() && written.contains(mark);
        if lost(&theirs.from_tag, "tag=f") || lost(&theirs.to_tag, "tag=t") {
            return Ok(());
        }
        match ours(&bytes) {
            Ok(ours) => prop_assert!(agree(&ours, &theirs), "{:?} and {:?}: {:?}", ours, theirs, text(&bytes)),
            Err(why) => {
                let overlooked = matches!(why, Malformed::Missing(_) | Malformed::Empty);
                prop_assert!(!overlooked, "{:?}: {:?}", why, theirs);
            }
        }
    }
}
