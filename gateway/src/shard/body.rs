//! The session description in a message body, wherever the sender put it (RFC 3261 §7.4, RFC 5621).

use sip::{HeaderName, Message};

/// What a body says about media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// No body, or one whose handling is optional and that is no SDP: an INVITE without offer.
    Nothing,
    /// The session description.
    Sdp(&'a [u8]),
    /// A body that must be understood and is not: 415 (RFC 3261 §8.2.3).
    Unsupported,
}

/// Most parts of a multipart body that are looked at; one level deep.
const MAX_PARTS: usize = 8;

/// Longest boundary of a multipart body (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// Finds the session description of a message.
pub(super) fn read(message: &Message) -> Body<'_> {
    let body = message.body();
    if body.is_empty() {
        return Body::Nothing;
    }
    let optional = message
        .extension("Content-Disposition")
        .is_some_and(|value| contains_word(value, b"handling=optional"));
    let otherwise = if optional { Body::Nothing } else { Body::Unsupported };
    if message.header(HeaderName::ContentEncoding).is_some_and(|v| !is_word(v, b"identity")) {
        return otherwise;
    }
    match message.header(HeaderName::ContentType) {
        None => Body::Sdp(body),
        Some(kind) if is_media_type(kind, b"application/sdp") => Body::Sdp(body),
        Some(kind) if kind.trim_ascii_start().to_ascii_lowercase().starts_with(b"multipart/") => {
            boundary(kind)
                .and_then(|boundary| sdp_part(body, boundary))
                .map_or(otherwise, Body::Sdp)
        }
        Some(_) => otherwise,
    }
}

/// May the answer be SDP? (RFC 3261 §20.1: no Accept in an INVITE means yes.)
pub(super) fn takes_sdp(message: &Message) -> bool {
    let mut listed = message.values(HeaderName::Accept).peekable();
    if listed.peek().is_none() {
        return message.header(HeaderName::Accept).is_none();
    }
    listed.any(|kind| {
        is_media_type(kind, b"application/sdp")
            || is_media_type(kind, b"application/*")
            || is_media_type(kind, b"*/*")
    })
}

fn is_media_type(value: &[u8], wanted: &[u8]) -> bool {
    let kind = value.split(|&byte| byte == b';').next().unwrap_or(value);
    is_word(kind, wanted)
}

fn is_word(value: &[u8], wanted: &[u8]) -> bool {
    value.trim_ascii().eq_ignore_ascii_case(wanted)
}

fn contains_word(value: &[u8], wanted: &[u8]) -> bool {
    value.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

fn boundary(kind: &[u8]) -> Option<&[u8]> {
    let at = kind.windows(9).position(|window| window.eq_ignore_ascii_case(b"boundary="))?;
    let value = kind.get(at + 9..)?;
    let value = match value.strip_prefix(b"\"") {
        Some(quoted) => quoted.split(|&byte| byte == b'"').next()?,
        None => value.split(|&byte| byte == b';').next()?.trim_ascii(),
    };
    (1..=MAX_BOUNDARY).contains(&value.len()).then_some(value)
}

fn sdp_part<'a>(body: &'a [u8], boundary: &[u8]) -> Option<&'a [u8]> {
    let mut rest = body;
    for _ in 0..MAX_PARTS {
        let start = find_delimiter(rest, boundary)?;
        let part = rest.get(start..)?;
        let end = find_delimiter(part, boundary).unwrap_or(part.len());
        let (head, content) = split_part(part.get(..end.saturating_sub(boundary.len() + 2))?)?;
        if contains_word(head, b"application/sdp") {
            return Some(content);
        }
        rest = part;
    }
    None
}

/// Where the bytes after the next `--boundary` begin.
fn find_delimiter(bytes: &[u8], boundary: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.windows(2).position(|pair| pair == b"--") {
        let after = from + at + 2;
        if bytes.get(after..)?.starts_with(boundary) {
            return Some(after + boundary.len());
        }
        from = after;
    }
    None
}

fn split_part(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = part.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((part.get(..at)?, part.get(at + 4..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(headers: &str, body: &str) -> Message {
        let text = format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:f@b>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Message::parse(Bytes::from(text)).expect("a message")
    }

    #[test]
    fn sdp_is_found_plain_and_inside_multipart() {
        let plain = message("Content-Type: application/sdp\r\n", "v=0\r\n");
        assert_eq!(read(&plain), Body::Sdp(b"v=0\r\n"));
        let parts = "--X\r\nContent-Type: application/isup\r\n\r\nabc\r\n--X\r\n\
                     Content-Type: application/sdp\r\n\r\nv=0\r\n\r\n--X--\r\n";
        let mixed = message("Content-Type: multipart/mixed;boundary=\"X\"\r\n", parts);
        match read(&mixed) {
            Body::Sdp(sdp) => assert!(sdp.starts_with(b"v=0")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_sdp_is_refused_unless_its_handling_is_optional() {
        let unknown = message("Content-Type: application/unknown\r\n", "x");
        assert_eq!(read(&unknown), Body::Unsupported);
        let optional = message(
            "Content-Type: application/unknown\r\nContent-Disposition: session;handling=optional\r\n",
            "x",
        );
        assert_eq!(read(&optional), Body::Nothing);
        let packed = message("Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", "x");
        assert_eq!(read(&packed), Body::Unsupported);
    }

    #[test]
    fn an_accept_without_sdp_is_seen() {
        assert!(takes_sdp(&message("", "")));
        assert!(takes_sdp(&message("Accept: text/plain, application/sdp\r\n", "")));
        assert!(!takes_sdp(&message("Accept: text/nobodyKnowsThis\r\n", "")));
    }
}
