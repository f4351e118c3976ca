//! The signature of a delivery: HMAC-SHA256 (RFC 2104) over `timestamp.body`.
//!
//! ```text
//!  Trunkline-Signature: t=1767225600,v1=5257a8…e01b,v1=6ffbb5…7a90
//!                         │          │              └ by the previous secret, while it is good
//!                         │          └ hex of HMAC(secret, "1767225600." + body)
//!                         └ seconds since the epoch, anew for each attempt
//! ```
//!
//! The key is the secret's whole text as it was shown, `whsec_` included. A receiver takes a delivery
//! whose `t` is at most five minutes off and of whose `v1` one is right, compared in constant time.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fmt::Write as _;

use crate::secret::Secret;

/// The header that carries it.
pub const HEADER: &str = "trunkline-signature";

/// The header's value for a body that is sent at this second, signed with every one of the secrets.
#[must_use]
pub fn header(secrets: &[Secret<String>], timestamp_s: i64, body: &[u8]) -> String {
    let mut value = format!("t={timestamp_s}");
    for secret in secrets {
        value.push_str(",v1=");
        push_hex(&mut value, &sign(secret.expose(), timestamp_s, body));
    }
    value
}

fn sign(secret: &str, timestamp_s: i64, body: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .expect("HMAC takes a key of any length (RFC 2104 section 2)");
    mac.update(timestamp_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's `hmac.new(b"whsec_test", b'1767225600.{"a":1}', "sha256").hexdigest()`.
    const BY_PYTHON: &str = "6d204545ff126a339c00513d93603299c984074ce1331c3537c3f6c976b49019";

    #[test]
    fn the_signature_is_the_one_that_others_compute() {
        let header = header(&[Secret::from("whsec_test")], 1_767_225_600, br#"{"a":1}"#);
        assert_eq!(header, format!("t=1767225600,v1={BY_PYTHON}"));
    }

    #[test]
    fn each_secret_signs_and_everything_signed_counts() {
        let two = [Secret::from("whsec_new"), Secret::from("whsec_test")];
        let both = header(&two, 1_767_225_600, br#"{"a":1}"#);
        assert_eq!(both.matches(",v1=").count(), 2);
        assert!(both.ends_with(BY_PYTHON), "the newest first: {both}");
        let key = &two[1..];
        assert!(!header(key, 1_767_225_601, br#"{"a":1}"#).contains(BY_PYTHON));
        assert!(!header(key, 1_767_225_600, br#"{"a":2}"#).contains(BY_PYTHON));
    }
}
