//! Credentials for a carrier's challenges (RFC 3261 §22, RFC 7616, RFC 8760).
//!
//! Invariant: a trunk's credentials answer challenges on that trunk's own legs and nowhere else. An
//! agent's leg and a stranger get nothing, whatever realm they name. The realm itself proves nothing
//! and belongs to nobody: all customers of one carrier are asked with the same.

use config::secret::Secret;
use sip::digest::{self, Credentials, Hash, Rules, Subject};
use sip::{Request, Response};

/// Who we are to one carrier, or to one agent. No `Debug`: it holds a secret.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret<String>,
}

/// What a request was challenged with so far, and how often it was sent again for it.
#[derive(Default)]
pub(super) struct Answers {
    learnt: digest::Answers,
    retries: u32,
}

impl Answers {
    /// Takes the challenges of a 401 or 407. True when the request is to be sent again. The realm
    /// proves nothing: what counts is on whose leg the challenge came.
    pub(super) fn take(&mut self, response: &Response) -> bool {
        let rules = Rules { weakest: Hash::Md5, realm: None };
        let taken = self.learnt.learn(response, rules, self.retries).is_ok();
        self.retries += u32::from(taken);
        taken
    }

    /// The header fields that answer everything asked so far, for `request` sent once more.
    pub(super) fn headers(
        &mut self,
        login: &Login,
        request: &Request,
        cnonce: &str,
    ) -> Vec<(&'static str, String)> {
        let credentials =
            Credentials { username: &login.username, password: login.password.expose() };
        self.learnt.headers(credentials, Subject::from(request), cnonce).unwrap_or_default()
    }
}
