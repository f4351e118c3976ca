//! How an agent knows that the one who dialled it is the gateway of its own account.
//!
//! Agents written for Twilio Media Streams check the header [`HEADER`] of the WebSocket upgrade. Its value is
//! the base64 (RFC 4648 §4) of an HMAC-SHA1 (RFC 2104) keyed with the account's auth token. The message is
//! the URL to the letter as it was dialled: scheme, host, port if one was written, path and query, with no
//! normalisation, because the agent signs the URL its owner configured and compares.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;

/// The header of the WebSocket upgrade that carries the signature.
pub const HEADER: &str = "X-Twilio-Signature";

/// The secret an organisation shares with its agents. Has no `Debug` and no way back to its text.
#[derive(Clone)]
pub struct AuthToken(String);

impl AuthToken {
    /// Takes the token as the agent's owner knows it. An empty token is as good as none.
    pub fn new(token: impl Into<String>) -> AuthToken {
        AuthToken(token.into())
    }

    /// The value of [`HEADER`] for `url`.
    ///
    /// ```
    /// use gateway::agent::signature::AuthToken;
    /// let signature = AuthToken::new("12345").sign("wss://agent.example.com/stream");
    /// assert_eq!(signature.len(), 28); // 20 octets in base64
    /// ```
    pub fn sign(&self, url: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(self.0.as_bytes())
            .expect("HMAC takes a key of any length (RFC 2104 §2)");
        mac.update(url.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_hmac_sha1_of_rfc_2202() {
        // RFC 2202 §3, test case 2, in base64.
        let signature = AuthToken::new("Jefe").sign("what do ya want for nothing?");
        assert_eq!(signature, "7/zfauXrL6LSdBbV8YTfnCWafHk=");
    }

    #[test]
    fn every_letter_of_the_url_counts() {
        let token = AuthToken::new("secret");
        let signature = token.sign("wss://a.example/stream");
        for other in
            ["wss://a.example/stream/", "wss://a.example:443/stream", "wss://A.example/stream"]
        {
            assert_ne!(signature, token.sign(other), "{other}");
        }
    }
}
