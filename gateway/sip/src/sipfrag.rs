//! What became of a transfer: the body of the NOTIFY that follows a REFER (RFC 3515 §2.4.5).

/// The status of a `message/sipfrag` body that begins with a status line (RFC 3420 §2): what the
/// party we referred was answered. `None` when it begins with anything else.
///
/// ```
/// assert_eq!(sip::sipfrag_status(b"SIP/2.0 200 OK\r\n"), Some(200));
/// assert_eq!(sip::sipfrag_status(b"INVITE sip:bob@example.com SIP/2.0\r\n"), None);
/// ```
#[must_use]
pub fn sipfrag_status(body: &[u8]) -> Option<u16> {
    let text = body.trim_ascii_start();
    let (version, rest) = text.split_at_checked(b"SIP/2.0 ".len())?;
    if !version.eq_ignore_ascii_case(b"SIP/2.0 ") {
        return None;
    }
    let (code, after) = rest.split_at_checked(3)?;
    if !matches!(after.first(), None | Some(b' ' | b'\r' | b'\n')) {
        return None;
    }
    let status = std::str::from_utf8(code).ok()?.parse().ok()?;
    (code.iter().all(u8::is_ascii_digit) && (100..700).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_gives_its_status_with_and_without_the_rest() {
        for (body, status) in [
            (&b"SIP/2.0 100 Trying\r\n"[..], 100),
            (b"SIP/2.0 603 Declined", 603),
            (b"sip/2.0 486\r\n", 486),
            (b"\r\nSIP/2.0 200 OK\nContact: <sip:x>\n", 200),
            (b"SIP/2.0 180", 180),
        ] {
            assert_eq!(sipfrag_status(body), Some(status));
        }
    }

    #[test]
    fn anything_else_gives_none() {
        for body in [
            &b""[..],
            b"SIP/2.0",
            b"SIP/2.0 ",
            b"SIP/2.0 20",
            b"SIP/2.0 2000 OK",
            b"SIP/2.0 099 No",
            b"SIP/2.0 700 No",
            b"SIP/2.0 +20 No",
            b"SIP/3.0 200 OK",
            b"HTTP/1.1 200 OK",
            b"SIP/2.0 \xff\xff\xff x",
        ] {
            assert_eq!(sipfrag_status(body), None, "{body:?}");
        }
    }
}
