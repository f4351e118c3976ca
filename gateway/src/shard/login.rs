//! Credentials for a carrier's challenges (RFC 3261 §22, RFC 7616, RFC 8760).
//!
//! Invariant: a trunk's credentials answer challenges on that trunk's own legs and nowhere else. An
//! agent's leg and a stranger get nothing, whatever realm they name. The realm itself proves nothing
//! and belongs to nobody: all customers of one carrier are asked with the same.

use config::secret::Secret;
use sip::digest::{Challenge, Credentials, Hash, Question, choose};
use sip::{HeaderName, Request, Response};

/// Realms that one request may be challenged for: a proxy's and a server's, and one to spare.
const MAX_REALMS: usize = 3;

/// Who we are to one carrier, or to one agent. No `Debug`: it holds a secret.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret<String>,
}

/// What a request was challenged with so far, and how often it was answered.
#[derive(Default)]
pub(super) struct Answers {
    given: Vec<Given>,
}

/// One challenge that was answered.
struct Given {
    /// Authorization or Proxy-Authorization.
    header: &'static str,
    /// The challenge's value, as it came.
    challenge: Vec<u8>,
    /// How many requests have used its nonce.
    count: u32,
    /// A stale nonce was replaced once; it is not a second time.
    renewed: bool,
}

impl Answers {
    /// Takes the challenges of a 401 or 407. True when the request may be sent again: there is one we
    /// can answer and have not answered before, or its nonce was only too old.
    pub(super) fn take(&mut self, response: &Response) -> bool {
        let (asks, header) = match response.status() {
            401 => (HeaderName::WwwAuthenticate, "Authorization"),
            407 => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
            _ => return false,
        };
        // SHA-256 where it is offered at all, whatever the order (RFC 8760 §2.4 leaves it to us).
        let offered: Vec<&[u8]> = response.lines(asks).collect();
        let Some(value) = strongest(&offered) else { return false };
        let Some(challenge) = Challenge::parse(value) else { return false };
        let room = self.given.len() < MAX_REALMS;
        let known = self.given.iter_mut().find(|given| {
            given.header == header
                && Challenge::parse(&given.challenge)
                    .is_some_and(|old| old.realm == challenge.realm)
        });
        match known {
            Some(given) if challenge.stale && !given.renewed => {
                given.challenge = value.to_vec();
                given.count = 0;
                given.renewed = true;
                true
            }
            Some(_) => false,
            None if room => {
                let challenge = value.to_vec();
                self.given.push(Given { header, challenge, count: 0, renewed: false });
                true
            }
            None => false,
        }
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
        let mut headers = Vec::with_capacity(self.given.len());
        for given in &mut self.given {
            given.count += 1;
            let question = Question {
                method: request.method().as_str(),
                uri: request.uri_bytes(),
                body: request.body(),
                cnonce,
                nc: given.count,
            };
            let answer = Challenge::parse(&given.challenge)
                .and_then(|challenge| challenge.answer(credentials, question).ok());
            headers.extend(answer.map(|answer| (given.header, answer)));
        }
        headers
    }
}

/// The challenge with the strongest hash; among equals the topmost.
fn strongest<'a>(values: &[&'a [u8]]) -> Option<&'a [u8]> {
    let has = |hash| choose(values.iter().copied(), hash, None).map(|chosen| chosen.nonce);
    let nonce = has(Hash::Sha256).or_else(|| has(Hash::Md5))?;
    values
        .iter()
        .copied()
        .find(|value| Challenge::parse(value).is_some_and(|challenge| challenge.nonce == nonce))
}
