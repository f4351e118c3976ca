//! Header names: what a name is called, which short form it has, and how its values join.
//!
//! RFC 3261 §7.3.1 and §20, with the registry's later additions. A name is recognised through a
//! perfect hash over its length and three of its letters, then one blind-to-case comparison, so an
//! unknown name costs no more than a known one. Unknown names are not lost: the message keeps them.

/// How the values of a header join (RFC 3261 §7.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Join {
    /// Several values, joined by commas or on lines of their own.
    List,
    /// Commas belong to the value; several lines may still occur (challenges, free text).
    Whole,
}

macro_rules! headers {
    ($($variant:ident $name:literal $compact:literal $join:ident;)*) => {
        /// A header name this product has a use for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each variant is the header of the same name")]
        pub enum HeaderName {
            $($variant,)*
            /// Any other name; the message has its letters.
            Other,
        }

        /// One row per variant, in their order: the name, the compact form or a space, the join.
        const ROWS: &[(HeaderName, &str, u8, Join)] = &[
            $((HeaderName::$variant, $name, $compact, Join::$join),)*
        ];
    };
}

headers! {
    Accept "Accept" b' ' List;
    AcceptContact "Accept-Contact" b'a' List;
    AcceptEncoding "Accept-Encoding" b' ' List;
    AcceptLanguage "Accept-Language" b' ' List;
    AlertInfo "Alert-Info" b' ' List;
    Allow "Allow" b' ' List;
    AllowEvents "Allow-Events" b'u' List;
    AuthenticationInfo "Authentication-Info" b' ' Whole;
    Authorization "Authorization" b' ' Whole;
    CallId "Call-ID" b'i' Whole;
    CallInfo "Call-Info" b' ' List;
    Contact "Contact" b'm' List;
    ContentDisposition "Content-Disposition" b' ' Whole;
    ContentEncoding "Content-Encoding" b'e' List;
    ContentId "Content-ID" b' ' Whole;
    ContentLanguage "Content-Language" b' ' List;
    ContentLength "Content-Length" b'l' Whole;
    ContentType "Content-Type" b'c' Whole;
    CSeq "CSeq" b' ' Whole;
    Date "Date" b' ' Whole;
    Diversion "Diversion" b' ' List;
    ErrorInfo "Error-Info" b' ' List;
    Event "Event" b'o' Whole;
    Expires "Expires" b' ' Whole;
    FeatureCaps "Feature-Caps" b' ' List;
    FlowTimer "Flow-Timer" b' ' Whole;
    From "From" b'f' Whole;
    Geolocation "Geolocation" b' ' List;
    HistoryInfo "History-Info" b' ' List;
    Identity "Identity" b'y' Whole;
    InReplyTo "In-Reply-To" b' ' List;
    InfoPackage "Info-Package" b' ' Whole;
    Join "Join" b' ' Whole;
    MaxForwards "Max-Forwards" b' ' Whole;
    MimeVersion "MIME-Version" b' ' Whole;
    MinExpires "Min-Expires" b' ' Whole;
    MinSe "Min-SE" b' ' Whole;
    Organization "Organization" b' ' Whole;
    PAccessNetworkInfo "P-Access-Network-Info" b' ' List;
    PAssertedIdentity "P-Asserted-Identity" b' ' List;
    PChargeInfo "P-Charge-Info" b' ' Whole;
    PChargingVector "P-Charging-Vector" b' ' Whole;
    PEarlyMedia "P-Early-Media" b' ' List;
    PPreferredIdentity "P-Preferred-Identity" b' ' List;
    Path "Path" b' ' List;
    Priority "Priority" b' ' Whole;
    Privacy "Privacy" b' ' Whole;
    ProxyAuthenticate "Proxy-Authenticate" b' ' Whole;
    ProxyAuthorization "Proxy-Authorization" b' ' Whole;
    ProxyRequire "Proxy-Require" b' ' List;
    RAck "RAck" b' ' Whole;
    Reason "Reason" b' ' List;
    RecordRoute "Record-Route" b' ' List;
    RecvInfo "Recv-Info" b' ' List;
    ReferSub "Refer-Sub" b' ' Whole;
    ReferTo "Refer-To" b'r' Whole;
    ReferredBy "Referred-By" b'b' Whole;
    RejectContact "Reject-Contact" b'j' List;
    RemotePartyId "Remote-Party-ID" b' ' List;
    Replaces "Replaces" b' ' Whole;
    ReplyTo "Reply-To" b' ' Whole;
    RequestDisposition "Request-Disposition" b'd' List;
    Require "Require" b' ' List;
    ResourcePriority "Resource-Priority" b' ' List;
    RetryAfter "Retry-After" b' ' Whole;
    Route "Route" b' ' List;
    RSeq "RSeq" b' ' Whole;
    Server "Server" b' ' Whole;
    ServiceRoute "Service-Route" b' ' List;
    SessionExpires "Session-Expires" b'x' Whole;
    SessionId "Session-ID" b' ' Whole;
    SipEtag "SIP-ETag" b' ' Whole;
    SipIfMatch "SIP-If-Match" b' ' Whole;
    Subject "Subject" b's' Whole;
    SubscriptionState "Subscription-State" b' ' Whole;
    Supported "Supported" b'k' List;
    TargetDialog "Target-Dialog" b' ' Whole;
    Timestamp "Timestamp" b' ' Whole;
    To "To" b't' Whole;
    Unsupported "Unsupported" b' ' List;
    UserAgent "User-Agent" b' ' Whole;
    UserToUser "User-to-User" b' ' List;
    Via "Via" b'v' List;
    Warning "Warning" b' ' List;
    WwwAuthenticate "WWW-Authenticate" b' ' Whole;
}

impl HeaderName {
    /// Which header a name means, in any case, in the long or the compact form
    /// (RFC 3261 §7.3.1, §7.3.3).
    #[must_use]
    pub fn parse(name: &[u8]) -> Self {
        if let [letter] = name {
            let row = COMPACT.get(usize::from(letter & 0x1f)).copied();
            return Self::row(row.filter(|_| letter.is_ascii_alphabetic()));
        }
        let found = TABLE.get(slot(name)).copied();
        match found.and_then(|row| ROWS.get(usize::from(row))) {
            Some(&(id, known, ..)) if same(known.as_bytes(), name) => id,
            _ => Self::Other,
        }
    }

    fn row(index: Option<u8>) -> Self {
        index.and_then(|row| ROWS.get(usize::from(row))).map_or(Self::Other, |row| row.0)
    }

    /// The name as it is printed; empty for [`HeaderName::Other`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ROWS.get(self as usize).map_or("", |row| row.1)
    }

    /// Whether a comma outside quotes and angle brackets starts another value.
    #[must_use]
    pub fn is_list(self) -> bool {
        ROWS.get(self as usize).is_some_and(|row| row.3 == Join::List)
    }
}

/// Equal blind to case; nearly every name comes in the usual spelling, which is quicker to compare.
fn same(known: &[u8], name: &[u8]) -> bool {
    known == name || known.eq_ignore_ascii_case(name)
}

/// Row numbers by compact letter; `NONE` where the letter means nothing.
static COMPACT: [u8; 32] = compact_table();
/// Row numbers by [`slot`].
static TABLE: [u8; SLOTS] = name_table();
const SLOTS: usize = 1024;
const NONE: u8 = u8::MAX;

/// The hash of a name of two letters or more; blind to case.
const fn slot(name: &[u8]) -> usize {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    let middle = match name.split_at_checked(name.len() / 2) {
        Some((_, [middle, ..])) => *middle,
        _ => 0,
    };
    let mut hash = name.len().wrapping_mul(FACTORS[0]);
    hash = hash.wrapping_add((*first | 0x20) as usize * FACTORS[1]);
    hash = hash.wrapping_add((*last | 0x20) as usize * FACTORS[2]);
    hash = hash.wrapping_add((middle | 0x20) as usize * FACTORS[3]);
    hash % SLOTS
}

/// Chosen so that no two names share a slot; the table's construction proves it when compiled.
const FACTORS: [usize; 4] = [669, 389, 809, 215];

#[expect(clippy::indexing_slicing, reason = "runs at compile time, where a fault is a build error")]
#[expect(clippy::cast_possible_truncation, reason = "fewer than 255 rows, asserted below")]
const fn name_table() -> [u8; SLOTS] {
    assert!(ROWS.len() < NONE as usize);
    let mut table = [NONE; SLOTS];
    let mut row = 0;
    while row < ROWS.len() {
        let at = slot(ROWS[row].1.as_bytes());
        assert!(table[at] == NONE, "two header names share a slot: change FACTORS");
        table[at] = row as u8;
        row += 1;
    }
    table
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time, where a fault is a build error")]
#[expect(clippy::cast_possible_truncation, reason = "fewer than 255 rows, asserted by name_table")]
const fn compact_table() -> [u8; 32] {
    let mut table = [NONE; 32];
    let mut row = 0;
    while row < ROWS.len() {
        let letter = ROWS[row].2;
        if letter != b' ' {
            table[(letter & 0x1f) as usize] = row as u8;
        }
        row += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_every_case_and_in_its_short_form() {
        for &(id, name, compact, _) in ROWS {
            assert_eq!(HeaderName::parse(name.as_bytes()), id);
            assert_eq!(HeaderName::parse(name.to_uppercase().as_bytes()), id);
            assert_eq!(HeaderName::parse(name.to_lowercase().as_bytes()), id);
            assert_eq!(id.as_str(), name);
            if compact != b' ' {
                assert_eq!(HeaderName::parse(&[compact]), id);
                assert_eq!(HeaderName::parse(&[compact.to_ascii_uppercase()]), id);
            }
        }
    }

    #[test]
    fn a_name_that_only_resembles_is_another_name() {
        for name in
            ["", "z", "1", "\u{6}", "C%6Fntact", "Vja", "Contact ", "Content_Length", "Ｖia", "@"]
        {
            assert_eq!(HeaderName::parse(name.as_bytes()), HeaderName::Other, "{name:?}");
        }
    }

    #[test]
    fn commas_separate_where_the_grammar_says_so() {
        assert!(HeaderName::Via.is_list() && HeaderName::Contact.is_list());
        assert!(!HeaderName::From.is_list() && !HeaderName::WwwAuthenticate.is_list());
        assert!(!HeaderName::Other.is_list());
    }
}
