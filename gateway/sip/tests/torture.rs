//! Other people's messages: the torture tests of RFC 4475 and RFC 5118, and single messages of
//! products in the field.
//!
//! They are read from the folder named by `TRUNKLINE_CONFORMANCE`, by default `../shared/conformance`
//! beside the workspace; where it is absent the tests say so and pass.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail it")]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sip::{Frame, HeaderName, Malformed, Message, Method, Request, Response, StreamFramer, Uri};

fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TRUNKLINE_CONFORMANCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
        PathBuf::from,
    );
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is absent; set TRUNKLINE_CONFORMANCE", folder.display());
    None
}

fn files(name: &str, extension: &str) -> Vec<(String, Bytes)> {
    let Some(folder) = folder(name) else { return Vec::new() };
    let mut files = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("archive") {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                files.push((name, fs::read(&path).unwrap().into()));
            }
        }
    }
    files.sort();
    files
}

/// What the wire layer makes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reaction {
    Request,
    Response(u16),
    Answered(u16),
    Dropped,
}

fn react(bytes: Bytes) -> Reaction {
    let Ok(message) = Message::parse(bytes) else { return Reaction::Dropped };
    if !message.is_request() {
        return Response::try_from(message)
            .map_or(Reaction::Dropped, |response| Reaction::Response(response.status()));
    }
    match Request::try_from(message) {
        Ok(_) => Reaction::Request,
        Err(rejection) if rejection.is_answerable() => Reaction::Answered(rejection.status),
        Err(_) => Reaction::Dropped,
    }
}

/// RFC 4475, and the two of RFC 5118, that are not plainly accepted as requests.
const EXCEPTIONS: &[(&str, Reaction)] = &[
    ("badaspec", Reaction::Answered(400)),
    ("baddn", Reaction::Answered(400)),
    ("badinv01", Reaction::Dropped), // its only Via is what is broken: nowhere to answer to
    ("badvers", Reaction::Answered(505)),
    ("bcast", Reaction::Response(200)),
    ("bigcode", Reaction::Dropped),
    ("clerr", Reaction::Answered(400)),
    ("escruri", Reaction::Answered(400)),
    ("insuf", Reaction::Answered(400)),
    ("ipv6-bad", Reaction::Answered(400)),
    ("ipv6-bug-abnf-3-colons", Reaction::Answered(400)),
    ("ltgtruri", Reaction::Answered(400)),
    ("lwsruri", Reaction::Answered(400)),
    ("lwsstart", Reaction::Answered(400)),
    ("mcl01", Reaction::Answered(400)),
    ("mismatch01", Reaction::Answered(400)),
    ("mismatch02", Reaction::Answered(400)),
    ("multi01", Reaction::Answered(400)),
    ("ncl", Reaction::Answered(400)),
    ("noreason", Reaction::Response(100)),
    ("quotbal", Reaction::Answered(400)),
    ("regbadct", Reaction::Answered(400)),
    ("scalar02", Reaction::Answered(400)),
    ("scalarlg", Reaction::Dropped),
    ("test", Reaction::Dropped),
    ("unreason", Reaction::Response(200)),
];

#[test]
fn every_torture_message_gets_its_reaction() {
    let mut seen = 0;
    for (name, bytes) in files("torture", "dat") {
        let exception = EXCEPTIONS.iter().find(|(known, _)| *known == name);
        let expected = exception.map_or(Reaction::Request, |&(_, reaction)| reaction);
        assert_eq!(react(bytes), expected, "{name}");
        seen += 1;
    }
    assert!(seen == 0 || seen >= 62, "only {seen} messages");
}

fn torture(name: &str) -> Option<Request> {
    let bytes = fs::read(folder("torture")?.join(name)).unwrap();
    Some(Request::try_from(Message::parse(bytes.into()).unwrap()).unwrap())
}

#[test]
fn the_tortuous_invite_is_read_as_the_rfc_says() {
    let Some(request) = torture("rfc4475/wsinv.dat") else { return };
    assert_eq!(
        (request.method(), request.cseq(), request.max_forwards()),
        (Method::Invite, 9, Some(68))
    );
    assert_eq!(request.to().tag(), Some(&b"1918181833n"[..]));
    assert_eq!(request.from().tag(), Some(&b"98asjd8"[..]));
    assert_eq!(request.from().display_name().as_deref(), Some(&br#"J Rosenberg \""#[..]));
    assert_eq!(request.body().len(), 150);
    let branches: Vec<_> = request.vias().map(|via| via.branch().unwrap()).collect();
    assert_eq!(branches, [&b"390skdjuw"[..], b"z9hG4bK9ikj8", b"z9hG4bK30239"]);
    assert!(request.via().unique_branch().is_none());
    assert_eq!(request.headers().count(), 14);
    assert_eq!(request.header(HeaderName::Subject), Some(&b""[..]));
    assert!(
        request.extension("newfangledheader").unwrap().ends_with(b"continued newfangled value")
    );
    assert_eq!(request.contact().unwrap().params.value("q"), Some(&b"0.33"[..]));
}

#[test]
fn odd_letters_survive_untouched() {
    let Some(request) = torture("rfc4475/intmeth.dat") else { return };
    assert_eq!(request.method(), Method::Other);
    assert_eq!(request.method_token(), b"!interesting-Method0123456789_*+`.%indeed'~");
    assert_eq!(request.to().display_name().as_deref(), Some(&b"BEL:\x07 NUL:\0 DEL:\x7f"[..]));
    assert_eq!(request.from().tag(), Some(&b"_token~1'+`*%!-."[..]));
    assert_eq!(request.call_id(), br#"intmeth.word%ZK-!.*_+'@word`~)(><:\/"][?}{"#);

    let Some(request) = torture("rfc4475/escnull.dat") else { return };
    let contacts: Vec<_> = request.values(HeaderName::Contact).collect();
    assert_eq!(contacts.len(), 2);
    let mut user = [0; 32];
    let to = request.to();
    assert_eq!(to.uri.as_sip().unwrap().user_into(&mut user), Some(&b"null-\0-null"[..]));
}

#[test]
fn lengths_counts_and_schemes_are_read_as_the_rfc_says() {
    if folder("torture").is_none() {
        return;
    }
    assert_eq!(torture("rfc4475/longreq.dat").unwrap().vias().count(), 34);
    assert_eq!(torture("rfc4475/dblreq.dat").unwrap().body(), b"");
    assert_eq!(torture("rfc4475/mpart01.dat").unwrap().body().len(), 553);
    assert_eq!(torture("rfc4475/transports.dat").unwrap().vias().count(), 5);
    assert_eq!(torture("rfc4475/zeromf.dat").unwrap().max_forwards(), Some(0));
    assert!(torture("rfc4475/badbranch.dat").unwrap().via().unique_branch().is_none());
    assert!(torture("rfc4475/inv2543.dat").unwrap().body().len() == 105);
    for name in ["unkscm", "novelsc"] {
        let request = torture(&format!("rfc4475/{name}.dat")).unwrap();
        assert!(matches!(request.uri(), Uri::Other { .. }), "{name}");
    }
    let port = |name: &str| torture(name).unwrap().uri().as_sip().unwrap().port;
    assert_eq!(port("rfc5118/port-ambiguous.dat"), None);
    assert_eq!(port("rfc5118/port-unambiguous.dat"), Some(5070));
    for name in ["with", "no"] {
        let request = torture(&format!("rfc5118/via-received-param-{name}-delim.dat")).unwrap();
        assert_eq!(request.via().received(), "2001:db8::9:255".parse().ok(), "{name}");
    }
}

#[test]
fn messages_of_real_products_are_all_read() {
    for (name, bytes) in files("wire", "sip") {
        let reaction = react(bytes.clone());
        assert!(
            matches!(reaction, Reaction::Request | Reaction::Response(_)),
            "{name}: {reaction:?} {:?}",
            Message::parse(bytes).map(|message| message.fault())
        );
    }
}

#[test]
fn on_a_stream_every_framed_torture_message_is_the_same_message() {
    for (name, bytes) in files("torture", "dat") {
        let Ok(alone) = Message::parse(bytes.clone()) else { continue };
        let length = alone.header(HeaderName::ContentLength);
        let ended = alone.bytes().windows(4).any(|end| end == b"\r\n\r\n");
        if alone.fault().is_some() || length.is_none() || !ended {
            continue;
        }
        let mut framer = StreamFramer::new();
        framer.push(alone.bytes());
        match framer.next_frame() {
            Ok(Some(Frame::Message(frame))) => assert_eq!(&frame, alone.bytes(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn broken_lengths_never_frame_a_message() {
    let Some(folder) = folder("torture") else { return };
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    for name in ["rfc4475/ncl.dat", "rfc4475/mcl01.dat", "rfc4475/inv2543.dat"] {
        let mut framer = StreamFramer::new();
        framer.push(&read(name));
        assert!(framer.next_frame().is_err(), "{name}");
        framer.push(b"OPTIONS sip:h SIP/2.0\r\n\r\n");
        assert!(framer.next_frame().is_err() && framer.pending() == 0, "{name}");
    }
    let mut framer = StreamFramer::new();
    framer.push(&read("rfc4475/clerr.dat"));
    assert_eq!(framer.next_frame(), Ok(None), "the rest may still come");
    let short = Message::parse(read("rfc4475/clerr.dat").into()).unwrap();
    assert_eq!(short.fault(), Some(Malformed::BodyTooShort));
}
