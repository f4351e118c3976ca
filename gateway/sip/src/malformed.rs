//! What can be wrong with a message (RFC 3261 §7, §16.3, §21.4.1; RFC 4475).

use std::fmt;

use crate::header::HeaderName;

/// What is wrong with bytes that should have been a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// Nothing but line breaks: a keep-alive (RFC 5626 §4.4.1), not a message.
    Empty,
    /// Longer than [`crate::message::MAX_MESSAGE_BYTES`].
    TooLong,
    /// The first line is neither a request line nor a status line.
    StartLine,
    /// The status code is no number from 100 to 699.
    StatusCode,
    /// A protocol version other than SIP/2.0.
    Version,
    /// More than [`crate::message::MAX_HEADER_LINES`] lines.
    TooManyHeaders,
    /// A line longer than [`crate::message::MAX_HEADER_BYTES`].
    HeaderTooLong,
    /// The bytes end inside a header line.
    Truncated,
    /// A header line without a colon, or with a name that is no token.
    HeaderLine,
    /// A CR without LF, or both kinds of line end in one message.
    LineEnd,
    /// Content-Length is no number.
    ContentLength,
    /// Several Content-Length headers that disagree.
    ContentLengths,
    /// Fewer bytes of body than Content-Length says.
    BodyTooShort,
    /// The request line holds too many blanks, or a Request-URI that cannot be read.
    RequestUri,
    /// A mandatory header is missing.
    Missing(HeaderName),
    /// A header that may stand once stands twice.
    Repeated(HeaderName),
    /// A header's value cannot be read.
    Invalid(HeaderName),
    /// More than [`crate::message::MAX_VIAS`] Via values.
    TooManyVias,
    /// CSeq names another method than the request line.
    MethodMismatch,
}

impl Malformed {
    /// A reason phrase for the 400 that may answer it; says what, never echoes the input.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "Empty Message",
            Self::TooLong => "Message Too Long",
            Self::StartLine => "Bad Start Line",
            Self::StatusCode => "Bad Status Code",
            Self::Version => "Version Not Supported",
            Self::TooManyHeaders => "Too Many Header Fields",
            Self::HeaderTooLong => "Header Field Too Long",
            Self::Truncated => "Message Truncated",
            Self::HeaderLine => "Bad Header Field",
            Self::LineEnd => "Bad Line End",
            Self::ContentLength => "Bad Content-Length",
            Self::ContentLengths => "Conflicting Content-Length",
            Self::BodyTooShort => "Body Shorter Than Content-Length",
            Self::RequestUri => "Bad Request-URI",
            Self::Missing(name) => missing_reason(name),
            Self::Repeated(name) => repeated_reason(name),
            Self::Invalid(name) => invalid_reason(name),
            Self::TooManyVias => "Too Many Via Header Fields",
            Self::MethodMismatch => "CSeq Method Mismatch",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.reason())
    }
}

impl std::error::Error for Malformed {}

const fn missing_reason(name: HeaderName) -> &'static str {
    match name {
        HeaderName::Via => "Missing Via Header Field",
        HeaderName::From => "Missing From Header Field",
        HeaderName::To => "Missing To Header Field",
        HeaderName::CallId => "Missing Call-ID Header Field",
        HeaderName::CSeq => "Missing CSeq Header Field",
        _ => "Missing Header Field",
    }
}

const fn repeated_reason(name: HeaderName) -> &'static str {
    match name {
        HeaderName::From => "Repeated From Header Field",
        HeaderName::To => "Repeated To Header Field",
        HeaderName::CallId => "Repeated Call-ID Header Field",
        HeaderName::CSeq => "Repeated CSeq Header Field",
        HeaderName::MaxForwards => "Repeated Max-Forwards Header Field",
        _ => "Repeated Header Field",
    }
}

const fn invalid_reason(name: HeaderName) -> &'static str {
    match name {
        HeaderName::Via => "Bad Via Header Field",
        HeaderName::From => "Bad From Header Field",
        HeaderName::To => "Bad To Header Field",
        HeaderName::CallId => "Bad Call-ID Header Field",
        HeaderName::CSeq => "Bad CSeq Header Field",
        HeaderName::Contact => "Bad Contact Header Field",
        HeaderName::MaxForwards => "Bad Max-Forwards Header Field",
        _ => "Bad Header Field",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_one_printable_line() {
        for name in [HeaderName::Via, HeaderName::CSeq, HeaderName::Contact, HeaderName::Other] {
            for fault in
                [Malformed::Missing(name), Malformed::Repeated(name), Malformed::Invalid(name)]
            {
                assert!(fault.reason().bytes().all(|byte| matches!(byte, b' '..=b'~')));
                assert_eq!(fault.to_string(), fault.reason());
            }
        }
    }
}
