//! rsip as the second opinion: of ordinary messages, both readers say the same.
//!
//! "Ordinary" leaves out what rsip is known to refuse or to misread: IPv6 literals, folds, compact
//! names, blanks around separators, comma-joined Vias, `tel` URIs, unknown methods, and user parts
//! with dots, some of which it loses.

use bytes::Bytes;
use proptest::prelude::*;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};
use sip::{Host, Message, NameAddr, Request, Uri};

#[derive(Clone, Debug)]
struct Parts {
    method: &'static str,
    uri: String,
    via: (String, Option<u16>, String),
    from: (String, String),
    to: (String, Option<String>),
    call_id: String,
    cseq: u32,
    hops: u8,
    contact: String,
    capitals: bool,
    body: String,
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,8}\\.[a-z]{2,5}",
        any::<[u8; 4]>().prop_map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}")),
    ]
}

fn uri() -> impl Strategy<Value = String> {
    let user = proptest::option::of("[A-Za-z0-9][A-Za-z0-9_!~*'+-]{0,11}");
    let port = proptest::option::of(any::<u16>());
    let params = proptest::sample::subsequence(
        &[";transport=tcp", ";user=phone", ";lr", ";x=y", ";ob"][..],
        0..4,
    );
    (any::<bool>(), user, host(), port, params).prop_map(|(secure, user, host, port, params)| {
        let user = user.map_or(String::new(), |user| format!("{user}@"));
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}:{user}{host}{port}{}", if secure { "sips" } else { "sip" }, params.concat())
    })
}

fn parts() -> impl Strategy<Value = Parts> {
    const METHODS: [&str; 8] =
        ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "INFO", "UPDATE"];
    let token = "[A-Za-z0-9.!%*_+`'~-]{1,16}";
    let start = (proptest::sample::select(&METHODS[..]), uri(), any::<bool>(), "[ -~\r\n]{0,40}");
    let hop = (host(), proptest::option::of(any::<u16>()), "z9hG4bK[A-Za-z0-9.-]{1,20}");
    let ends = ((uri(), token), (uri(), proptest::option::of(token)), uri());
    let rest = ("[A-Za-z0-9.!_+-]{1,20}(@[a-z.]{1,9})?", 0..i32::MAX as u32, any::<u8>());
    (start, hop, ends, rest).prop_map(|(start, via, (from, to, contact), (call_id, cseq, hops))| {
        let (method, uri, capitals, body) = start;
        Parts { method, uri, via, from, to, call_id, cseq, hops, contact, capitals, body }
    })
}

impl Parts {
    fn text(&self) -> String {
        let port = self.via.1.map_or(String::new(), |port| format!(":{port}"));
        let tag = self.to.1.as_ref().map_or(String::new(), |tag| format!(";tag={tag}"));
        let lines = [
            ("Via", format!("SIP/2.0/UDP {}{port};rport;branch={}", self.via.0, self.via.2)),
            ("Max-Forwards", self.hops.to_string()),
            ("From", format!("\"A, B\" <{}>;tag={}", self.from.0, self.from.1)),
            ("To", format!("<{}>{tag}", self.to.0)),
            ("Call-ID", self.call_id.clone()),
            ("CSeq", format!("{} {}", self.cseq, self.method)),
            ("Contact", format!("<{}>;expires=60", self.contact)),
            ("X-Other", "a; b, c".into()),
            ("Content-Length", self.body.len().to_string()),
        ];
        let mut text = format!("{} {} SIP/2.0\r\n", self.method, self.uri);
        for (name, value) in lines {
            let name = if self.capitals { name.to_uppercase() } else { name.to_owned() };
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n" + &self.body
    }
}

fn same_uri(ours: &Uri<'_>, theirs: &rsip::Uri) {
    let ours = ours.as_sip().expect("a SIP URI");
    assert_eq!(ours.secure, theirs.scheme == Some(rsip::Scheme::Sips));
    assert_eq!(text(ours.user.unwrap_or_default()), theirs.user().unwrap_or_default());
    assert!(
        Host::parse(theirs.host().to_string().as_bytes()).is_some_and(|h| ours.host.matches(h))
    );
    assert_eq!(ours.port, theirs.port().map(|port| *port.value()));
    assert_eq!(ours.params.iter().count(), theirs.params.len());
}

fn same_address(ours: NameAddr<'_>, uri: &rsip::Uri, tag: Option<&rsip::param::Tag>) {
    same_uri(&ours.uri, uri);
    assert_eq!(ours.tag().map(text), tag.map(|tag| tag.value()));
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("an ASCII message")
}

fn compare(ours: &Request, theirs: &rsip::Request) -> Result<(), rsip::Error> {
    assert_eq!(text(ours.method_token()), theirs.method.to_string());
    same_uri(&ours.uri(), &theirs.uri);
    let via = theirs.via_header()?.typed()?;
    assert_eq!(ours.via().branch().map(text), via.branch().map(|branch| branch.value()));
    assert!(
        Host::parse(via.uri.host().to_string().as_bytes())
            .is_some_and(|h| ours.via().host.matches(h))
    );
    assert_eq!(ours.via().port, via.uri.port().map(|port| *port.value()));
    let (from, to) = (theirs.from_header()?.typed()?, theirs.to_header()?.typed()?);
    same_address(ours.from(), &from.uri, from.tag());
    same_address(ours.to(), &to.uri, to.tag());
    let contact = theirs.contact_header()?.typed()?;
    same_uri(&ours.contact().expect("a contact").uri, &contact.uri);
    assert_eq!(text(ours.call_id()), theirs.call_id_header()?.value());
    assert_eq!(ours.cseq(), theirs.cseq_header()?.typed()?.seq);
    let hops = theirs.max_forwards_header()?.value().parse().ok();
    assert_eq!(ours.max_forwards(), hops);
    assert_eq!(ours.body(), theirs.body);
    assert_eq!(ours.headers().count(), theirs.headers.iter().count());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_ordinary_messages_both_readers_say_the_same(parts in parts()) {
        let text = parts.text();
        let ours = Message::parse(Bytes::from(text.clone())).expect("ours reads it");
        let ours = Request::try_from(ours).expect("ours accepts it");
        let theirs = rsip::Request::try_from(text.as_bytes()).expect("rsip reads it");
        compare(&ours, &theirs).expect("rsip reads its headers");
    }
}
