//! SDES: the `a=crypto` line (RFC 4568 §9.1).
//!
//! ```text
//!  1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20 WSH=128
//!  tag suite                 key and salt, base64                            lifetime, parameters
//! ```
//!
//! A line that is not understood whole is not used: RFC 4568 §6.3.7 wants unknown parameters to
//! invalidate their line. Lines that would weaken the stream are never used.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};

use crate::srtp::{MASTER_BYTES, MasterKey, Suite};

/// Longest key text looked at; two keys of the longest suite known would fit.
const KEY_TEXT_MAX: usize = 160;

/// Base64 as the field writes it: padding or none, trailing bits of any value.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// One usable crypto line.
#[derive(Clone)]
pub(crate) struct CryptoLine {
    pub(crate) tag: u32,
    pub(crate) suite: Suite,
    pub(crate) key: MasterKey,
}

/// Why a crypto line is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Malformed,
    UnknownSuite,
    KeyLength,
    /// A master key identifier would have to be sent in every packet; we do not.
    KeyIdentifier,
    /// `UNENCRYPTED_*` or `UNAUTHENTICATED_*`.
    Weakened,
    UnknownParameter,
}

impl CryptoLine {
    /// Reads the value of one attribute.
    pub(crate) fn parse(value: &str) -> Result<Self, Unusable> {
        let mut fields = value.split_ascii_whitespace();
        let (Some(tag), Some(suite), Some(keys)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(Unusable::Malformed);
        };
        let tag = parse_tag(tag)?;
        let suite = Suite::from_name(suite).ok_or(Unusable::UnknownSuite)?;
        // Every parameter first: a weakening one is told as such whatever the key looks like.
        fields.try_for_each(check_parameter)?;
        Ok(Self { tag, suite, key: parse_key(keys)? })
    }

    /// The value of the attribute.
    pub(crate) fn print(&self) -> String {
        let key = STANDARD.encode(self.key.expose());
        format!("{} {} inline:{key}", self.tag, self.suite.name())
    }
}

/// One to nine digits (RFC 4568 §9.1).
fn parse_tag(text: &str) -> Result<u32, Unusable> {
    let is_tag = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !is_tag {
        return Err(Unusable::Malformed);
    }
    text.parse().map_err(|_| Unusable::Malformed)
}

/// `inline:key||salt["|"lifetime]["|"MKI":"length]`; a second key needs an MKI to be told apart.
fn parse_key(text: &str) -> Result<MasterKey, Unusable> {
    let (method, info) = text.split_once(':').ok_or(Unusable::Malformed)?;
    if !method.eq_ignore_ascii_case("inline") || info.len() > KEY_TEXT_MAX {
        return Err(Unusable::Malformed);
    }
    if info.contains(';') {
        return Err(Unusable::KeyIdentifier);
    }
    let mut parts = info.split('|');
    let key = parts.next().unwrap_or_default();
    for (at, part) in parts.enumerate() {
        if part.contains(':') {
            return Err(Unusable::KeyIdentifier);
        }
        if at > 0 || !is_lifetime(part) {
            return Err(Unusable::Malformed);
        }
    }
    let bytes = LENIENT.decode(key).map_err(|_| Unusable::Malformed)?;
    if bytes.len() != MASTER_BYTES {
        return Err(Unusable::KeyLength);
    }
    MasterKey::from_slice(&bytes).ok_or(Unusable::KeyLength)
}

/// `2^48` or a plain number, not zero. A call never lives long enough to use a key up.
fn is_lifetime(text: &str) -> bool {
    match text.strip_prefix("2^") {
        Some(power) => power.parse::<u8>().is_ok_and(|power| power <= 48),
        None => text.parse::<u64>().is_ok_and(|packets| packets > 0),
    }
}

/// Session parameters (RFC 4568 §6.3).
fn check_parameter(text: &str) -> Result<(), Unusable> {
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("UNENCRYPTED") || upper.starts_with("UNAUTHENTICATED") {
        return Err(Unusable::Weakened);
    }
    // The order of FEC matters only with FEC, the replay window is a hint, a key derivation rate
    // of zero is what we do, and a leading minus marks what may be ignored.
    let harmless = upper.starts_with('-')
        || upper.starts_with("WSH=")
        || upper.starts_with("FEC_ORDER=")
        || upper == "KDR=0";
    if harmless { Ok(()) } else { Err(Unusable::UnknownParameter) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ";

    fn parsed(value: &str) -> Result<(u32, Suite), Unusable> {
        CryptoLine::parse(value).map(|line| (line.tag, line.suite))
    }

    #[test]
    fn lines_of_the_field_are_understood() {
        use Suite::{AesCm128HmacSha1_32 as Short, AesCm128HmacSha1_80 as Long};
        for (value, tag, suite) in [
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), 1, Long),
            (format!("1 aes_cm_128_hmac_sha1_80 inline:{KEY}"), 1, Long),
            (format!("2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^31"), 2, Short),
            (format!("0 AES_CM_128_HMAC_SHA1_80 INLINE:{KEY}|2147483648"), 0, Long),
            (format!("999999999  AES_CM_128_HMAC_SHA1_80  inline:{KEY}|2^48"), 999_999_999, Long),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} WSH=128 KDR=0"), 1, Long),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} FEC_ORDER=FEC_SRTP"), 1, Long),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} -unknown=1"), 1, Long),
        ] {
            assert_eq!(parsed(&value), Ok((tag, suite)), "{value}");
        }
    }

    #[test]
    fn lines_that_cannot_be_honoured_are_skipped_with_their_reason() {
        for (value, why) in [
            (String::new(), Unusable::Malformed),
            ("1 AES_CM_128_HMAC_SHA1_80".to_owned(), Unusable::Malformed),
            (format!("x AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Unusable::Malformed),
            (format!("1234567890 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Unusable::Malformed),
            (format!("1 AES_CM_128_HMAC_SHA1_80 outline:{KEY}"), Unusable::Malformed),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|"), Unusable::Malformed),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^49"), Unusable::Malformed),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|0"), Unusable::Malformed),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:!!!!".to_owned(), Unusable::Malformed),
            (format!("1 CRYPTO_X inline:{KEY}"), Unusable::UnknownSuite),
            (format!("1 NULL_HMAC_SHA1_80 inline:{KEY}"), Unusable::UnknownSuite),
            (format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"), Unusable::UnknownSuite),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}{KEY}"), Unusable::KeyLength),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:AAAA".to_owned(), Unusable::KeyLength),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:".to_owned(), Unusable::KeyLength),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4"), Unusable::KeyIdentifier),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:32"), Unusable::KeyIdentifier),
            (
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4;inline:{KEY}|2:4"),
                Unusable::KeyIdentifier,
            ),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=4"), Unusable::UnknownParameter),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} FOO"), Unusable::UnknownParameter),
        ] {
            assert_eq!(parsed(&value), Err(why), "{value}");
        }
        for flag in ["UNENCRYPTED_SRTP", "UNENCRYPTED_SRTCP", "unauthenticated_srtp"] {
            let value = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} {flag}");
            assert_eq!(parsed(&value), Err(Unusable::Weakened), "{value}");
        }
    }

    #[test]
    fn a_printed_line_reads_back() {
        let key = MasterKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let line = CryptoLine { tag: 7, suite: Suite::AesCm128HmacSha1_32, key };
        let again = CryptoLine::parse(&line.print()).ok().unwrap();
        assert_eq!((again.tag, again.suite), (7, Suite::AesCm128HmacSha1_32));
        assert!(again.key == line.key);
    }
}
