//! The far side's requests as the gateway must get them: everything as captured, but for what names
//! the capture's machines.
//!
//! | part | becomes |
//! |---|---|
//! | Request-URI | the gateway's address with the captured user; within a dialog the gateway's Contact |
//! | topmost Via | this replay's address and a fresh branch; lower ones stay |
//! | Contact | this replay's address; display name and parameters stay |
//! | Route, Record-Route | those of the gateway's own answers |
//! | Call-ID, tag of To | a fresh one; the gateway's |
//! | Authorization, Proxy-Authorization | left out: they are for another realm, and nobody else's business |
//! | SDP: `o=`, `c=`, `m=` | the replay's media socket; a hold by `0.0.0.0` and ports 0 stay |

use std::net::{IpAddr, SocketAddr};

use sip::{Contact, HeaderName, Message, NameAddr, Transport, Uri};

use super::capture::Sighting;

/// What the gateway and this replay put in the captured names' place.
pub(super) struct Fresh<'a> {
    pub(super) request_uri: &'a [u8],
    pub(super) via: &'a str,
    pub(super) call_id: &'a str,
    /// The tag that replaces the captured one of To, if there is one.
    pub(super) to_tag: Option<&'a str>,
    pub(super) contact: &'a str,
    pub(super) routes: &'a [String],
    pub(super) media: SocketAddr,
}

/// The captured request with fresh names.
pub(super) fn rewrite(captured: &Sighting, fresh: &Fresh<'_>) -> Vec<u8> {
    let message = &captured.message;
    let body = match is_sdp(message) {
        true => rewrite_sdp(message.body(), fresh.media),
        false => message.body().to_vec(),
    };
    let mut out = Vec::with_capacity(message.bytes().len() + 256);
    put(&mut out, &[captured.method.as_bytes(), b" ", fresh.request_uri, b" SIP/2.0"]);
    let mut via_done = false;
    for (name, written, value) in message.headers() {
        match name {
            HeaderName::Via if via_done => {}
            HeaderName::Via => {
                via_done = true;
                put(&mut out, &[written, b": ", fresh.via.as_bytes()]);
                for lower in message.values(HeaderName::Via).skip(1) {
                    put(&mut out, &[written, b": ", lower]);
                }
                for route in fresh.routes {
                    put(&mut out, &[b"Route: ", route.as_bytes()]);
                }
            }
            HeaderName::Route
            | HeaderName::RecordRoute
            | HeaderName::ContentLength
            | HeaderName::Authorization
            | HeaderName::ProxyAuthorization => {}
            HeaderName::CallId if !value.is_empty() => {
                put(&mut out, &[written, b": ", fresh.call_id.as_bytes()]);
            }
            HeaderName::To => {
                put(&mut out, &[written, b": ", &with_tag(value, fresh.to_tag)]);
            }
            HeaderName::Contact => {
                put(&mut out, &[written, b": ", &with_contact(value, fresh.contact)]);
            }
            _ => put(&mut out, &[written, b": ", value]),
        }
    }
    put(&mut out, &[b"Content-Length: ", body.len().to_string().as_bytes()]);
    put(&mut out, &[]);
    out.extend_from_slice(&body);
    out
}

/// A request of the replay's own within a captured call: the ACK, CANCEL or BYE that the capture does
/// not hold. From, To and their like are those of `like`.
pub(super) fn compose(method: &str, cseq: &str, like: &Sighting, fresh: &Fresh<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    put(&mut out, &[method.as_bytes(), b" ", fresh.request_uri, b" SIP/2.0"]);
    put(&mut out, &[b"Via: ", fresh.via.as_bytes()]);
    for route in fresh.routes {
        put(&mut out, &[b"Route: ", route.as_bytes()]);
    }
    put(&mut out, &[b"Max-Forwards: 70"]);
    let from = like.message.header(HeaderName::From).unwrap_or_default();
    let to = like.message.header(HeaderName::To).unwrap_or_default();
    put(&mut out, &[b"From: ", from]);
    put(&mut out, &[b"To: ", &with_tag(to, fresh.to_tag)]);
    put(&mut out, &[b"Call-ID: ", fresh.call_id.as_bytes()]);
    put(&mut out, &[b"CSeq: ", cseq.as_bytes(), b" ", method.as_bytes()]);
    put(&mut out, &[b"Content-Length: 0"]);
    put(&mut out, &[]);
    out
}

/// The answer to a request of the gateway's: always the same one, with what must be copied
/// (RFC 3261 §8.2.6.2).
pub(super) fn answer(request: &Message, status_line: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    put(&mut out, &[status_line.as_bytes()]);
    for (name, written, value) in request.headers() {
        if matches!(
            name,
            HeaderName::Via
                | HeaderName::From
                | HeaderName::To
                | HeaderName::CallId
                | HeaderName::CSeq
                | HeaderName::RecordRoute
        ) {
            put(&mut out, &[written, b": ", value]);
        }
    }
    put(&mut out, &[b"Content-Length: 0"]);
    put(&mut out, &[]);
    out
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// The Request-URI of a new request: the captured one at the gateway's address, with another user
/// when there is a stand-in. What is no readable `sip:`, `sips:` or `tel:` URI stays as it is.
pub(super) fn request_uri(
    captured: &[u8],
    stand_in: Option<&str>,
    gateway: SocketAddr,
    transport: Transport,
) -> Vec<u8> {
    let parameter = if transport == Transport::Udp { "" } else { ";transport=tcp" };
    match Uri::parse(captured) {
        Some(Uri::Sip(uri)) => {
            let user = stand_in.map_or(uri.user, |number| Some(number.as_bytes()));
            let mut out = b"sip:".to_vec();
            if let Some(user) = user {
                out.extend_from_slice(user);
                out.push(b'@');
            }
            out.extend_from_slice(format!("{gateway}{parameter}").as_bytes());
            for (name, value) in uri.params.iter() {
                let placed = [&b"transport"[..], b"maddr", b"lr", b"ttl"];
                if placed.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                    continue;
                }
                out.push(b';');
                out.extend_from_slice(name);
                if let Some(value) = value {
                    out.push(b'=');
                    out.extend_from_slice(value);
                }
            }
            out
        }
        Some(Uri::Tel(_)) => stand_in
            .map_or_else(|| captured.to_vec(), |number| format!("tel:{number}").into_bytes()),
        _ => captured.to_vec(),
    }
}

/// Puts another tag in the place of the captured one; nothing is added where there was none, unless
/// one is given.
fn with_tag(value: &[u8], tag: Option<&str>) -> Vec<u8> {
    let Some(tag) = tag else { return value.to_vec() };
    match NameAddr::parse(value).and_then(|address| address.tag()) {
        Some(known) => splice(value, known, tag.as_bytes()),
        None => [value, b";tag=", tag.as_bytes()].concat(),
    }
}

/// Puts the replay's address in the place of every captured one.
fn with_contact(value: &[u8], contact: &str) -> Vec<u8> {
    match Contact::parse(value) {
        Some(Contact::Address(address)) => splice(value, address.uri_bytes, contact.as_bytes()),
        Some(Contact::Any) => value.to_vec(),
        // Several in one line, or none that can be read: one of ours stands for them.
        None => format!("<{contact}>").into_bytes(),
    }
}

/// `whole` with `part`, a slice of it, replaced.
fn splice(whole: &[u8], part: &[u8], new: &[u8]) -> Vec<u8> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    let before = whole.get(..start).unwrap_or_default();
    let behind = whole.get(start + part.len()..).unwrap_or_default();
    [before, new, behind].concat()
}

fn is_sdp(message: &Message) -> bool {
    let kind = message.header(HeaderName::ContentType).unwrap_or_default().to_ascii_lowercase();
    kind.starts_with(b"application/sdp") || kind.starts_with(b"multipart/")
}

/// The offer or answer with the replay's own addresses; lines that name other addresses of the
/// captured machine (candidates, RTCP) go.
fn rewrite_sdp(body: &[u8], media: SocketAddr) -> Vec<u8> {
    let version = if media.is_ipv4() { "IP4" } else { "IP6" };
    let address = format!("IN {version} {}", media.ip());
    let mut out = Vec::with_capacity(body.len());
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        let text = line.trim_ascii_end();
        let end = line.get(text.len()..).unwrap_or_default();
        let new = match text {
            [b'o', b'=', ..] => origin(text, &address),
            [b'c', b'=', ..] if !is_hold(text) => Some(format!("c={address}").into_bytes()),
            [b'm', b'=', ..] => media_line(text, media.port()),
            _ => None,
        };
        let gone: [&[u8]; 3] = [b"a=candidate:", b"a=rtcp:", b"a=remote-candidates:"];
        if gone.iter().any(|start| text.starts_with(start)) {
            continue;
        }
        out.extend_from_slice(new.as_deref().unwrap_or(text));
        out.extend_from_slice(end);
    }
    out
}

/// Hold as RFC 2543 did it: the address of nobody.
fn is_hold(line: &[u8]) -> bool {
    let address = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    let address = std::str::from_utf8(address).ok().and_then(|text| text.parse::<IpAddr>().ok());
    address.is_some_and(|address| address.is_unspecified())
}

/// `o=` with another address: its last three words.
fn origin(line: &[u8], address: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let words: Vec<&str> = text.split(' ').collect();
    let [user, id, version, _, _, _] = *words.as_slice() else { return None };
    Some(format!("{user} {id} {version} {address}").into_bytes())
}

/// `m=` with the replay's port; a refused line (port 0) stays refused.
fn media_line(line: &[u8], port: u16) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let (kind, rest) = text.split_once(' ')?;
    let (captured, rest) = rest.split_once(' ')?;
    // The second part of `49170/2` is the number of ports.
    let number = captured.split('/').next()?;
    (number.parse() != Ok(0_u16)).then(|| format!("{kind} {port} {rest}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const INVITE: &str = "INVITE sip:+15550100@pbx.example;user=phone;transport=udp SIP/2.0\r\n\
        v: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1, SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK0\r\n\
        Route: <sip:10.0.0.2;lr>\r\nRecord-Route: <sip:10.0.0.3;lr>\r\n\
        From: \"A\" <sip:a@x>;tag=a1\r\nt: <sip:b@y>;tag=b1;x=1\r\ni: one\r\nCSeq: 3 INVITE\r\n\
        m: \"A\" <sip:a@10.0.0.1>;+sip.instance=\"<u>\"\r\nX-Odd: kept\r\n\
        Proxy-Authorization: Digest response=\"00\"\r\nContent-Type: application/sdp\r\n";

    fn sighting(body: &str) -> Sighting {
        let text = format!("{INVITE}Content-Length: {}\r\n\r\n{body}", body.len());
        let end = "192.0.2.1:5060".parse().unwrap();
        Sighting::read(1, (end, end), Transport::Udp, Bytes::from(text)).unwrap()
    }

    fn rewritten(body: &str) -> String {
        let fresh = Fresh {
            request_uri: b"sip:b@127.0.0.1:5",
            via: "SIP/2.0/UDP 127.0.0.1:7;branch=z9hG4bKnew",
            call_id: "two",
            to_tag: Some("ours"),
            contact: "sip:replay@127.0.0.1:7",
            routes: &["<sip:127.0.0.1:9;lr>".to_owned()],
            media: "127.0.0.1:4000".parse().unwrap(),
        };
        String::from_utf8(rewrite(&sighting(body), &fresh)).unwrap()
    }

    #[test]
    fn only_what_names_the_captures_machines_is_changed() {
        let text = rewritten("");
        let expected = "INVITE sip:b@127.0.0.1:5 SIP/2.0\r\n\
            v: SIP/2.0/UDP 127.0.0.1:7;branch=z9hG4bKnew\r\n\
            v: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK0\r\nRoute: <sip:127.0.0.1:9;lr>\r\n\
            From: \"A\" <sip:a@x>;tag=a1\r\nt: <sip:b@y>;tag=ours;x=1\r\ni: two\r\nCSeq: 3 INVITE\r\n\
            m: \"A\" <sip:replay@127.0.0.1:7>;+sip.instance=\"<u>\"\r\nX-Odd: kept\r\n\
            Content-Type: application/sdp\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn media_is_led_to_the_replays_own_socket_and_holds_stay_holds() {
        let text = rewritten(
            "v=0\r\no=- 7 8 IN IP4 10.0.0.1\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
             m=audio 30000/2 RTP/AVP 0\r\na=rtcp:30001\r\na=candidate:1 1 UDP 1 10.0.0.1 9 typ host\r\n\
             c=IN IP4 0.0.0.0\r\na=sendonly\r\nm=video 0 RTP/AVP 99\r\n",
        );
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let expected = "v=0\r\no=- 7 8 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\na=sendonly\r\nm=video 0 RTP/AVP 99\r\n";
        assert_eq!(body, expected);
        assert!(text.contains(&format!("Content-Length: {}\r\n", expected.len())));
    }

    #[test]
    fn new_requests_go_to_the_gateway_and_keep_what_was_dialled() {
        let gateway = "127.0.0.1:5070".parse().unwrap();
        let new = |captured: &str, stand_in, transport| {
            let uri = request_uri(captured.as_bytes(), stand_in, gateway, transport);
            String::from_utf8(uri).unwrap()
        };
        let captured = "sips:+1555@pbx.example:5061;transport=tls;user=phone?a=b";
        assert_eq!(new(captured, None, Transport::Udp), "sip:+1555@127.0.0.1:5070;user=phone");
        let tcp = new("sip:alice@pbx", Some("+15550100"), Transport::Tcp);
        assert_eq!(tcp, "sip:+15550100@127.0.0.1:5070;transport=tcp");
        assert_eq!(new("sip:pbx.example", None, Transport::Udp), "sip:127.0.0.1:5070");
        assert_eq!(new("tel:+1-555", None, Transport::Udp), "tel:+1-555");
        assert_eq!(new("tel:112", Some("+1555"), Transport::Udp), "tel:+1555");
        assert_eq!(new("urn:service:sos", None, Transport::Udp), "urn:service:sos");
    }
}
