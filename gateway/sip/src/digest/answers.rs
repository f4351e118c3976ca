//! Being challenged, over the life of a call (RFC 3261 §22.2, §22.3; RFC 7616 §3.6; RFC 8760 §2.4).
//!
//! ```text
//!   request ──▶ 401/407 ──▶ learn ──▶ headers ──▶ the request again, number + 1
//!                             │
//!                             └─▶ what was learnt answers later requests unasked: same nonce, nc + 1
//! ```
//!
//! A challenge that comes again after it was answered means that the password is wrong, unless it
//! says `stale`; then, and for a proxy further along, there is another round. There are never more
//! than three, whoever asks.

use super::client::{Challenge, Credentials, Question, Unanswerable, choose};
use super::hash::Hash;
use crate::header::HeaderName;
use crate::message::{Request, Response};

/// Most challenges that are kept: one for every realm on the way.
const MAX_KEPT: usize = 8;

/// How often one request is sent again at most because of challenges.
const MAX_RETRIES: u32 = 3;

/// Which challenges are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules<'a> {
    /// The weakest hash that may protect the password.
    pub weakest: Hash,
    /// The only realm that the credentials are for; `None` for whatever realm the peer names, which
    /// is right only because the caller has made sure who the peer is.
    pub realm: Option<&'a str>,
}

/// Why a challenged request is not to be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refused {
    /// It is no 401 or 407, or holds no challenge.
    NoChallenge,
    /// All challenges are for other realms, too weak, or of kinds we do not know.
    NotForUs,
    /// The credentials were answered with the same challenge: they are wrong.
    WrongCredentials,
    /// It was challenged too often.
    TooOften,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::NoChallenge => "no challenge",
            Self::NotForUs => "no challenge that these credentials may answer",
            Self::WrongCredentials => "the credentials were refused",
            Self::TooOften => "challenged too often",
        })
    }
}

impl std::error::Error for Refused {}

/// The request that is to carry answers.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its Request-URI, byte for byte.
    pub uri: &'a [u8],
    /// Its body; only `auth-int` covers it.
    pub body: &'a [u8],
}

impl<'a> From<&'a Request> for Subject<'a> {
    fn from(request: &'a Request) -> Self {
        Subject {
            method: request.method().as_str(),
            uri: request.uri_bytes(),
            body: request.body(),
        }
    }
}

/// A header to add: its name and its value.
pub type Line = (&'static str, String);

/// The challenges a peer has made, and how often each was answered. One for each call, or for each
/// peer: never for two, because the answers are for whoever asked.
#[derive(Clone, Default)]
pub struct Answers {
    kept: Vec<Kept>,
}

#[derive(Clone)]
struct Kept {
    /// The header that answers it.
    header: &'static str,
    /// The challenge as it came.
    value: Box<[u8]>,
    /// How many requests have answered it.
    count: u32,
}

impl Kept {
    fn challenge(&self) -> Option<Challenge<'_>> {
        Challenge::parse(&self.value)
    }
}

impl Answers {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new() -> Answers {
        Answers::default()
    }

    /// Whether a request would carry anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// A response has come to a request that was sent again `retries` times because of challenges.
    /// `Ok` when it is to be sent again, with [`Answers::headers`].
    ///
    /// # Errors
    /// [`Refused`]: the response is final.
    pub fn learn(
        &mut self,
        response: &Response,
        rules: Rules<'_>,
        retries: u32,
    ) -> Result<(), Refused> {
        let (asks, header) = match response.status() {
            401 => (HeaderName::WwwAuthenticate, "Authorization"),
            407 => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
            _ => return Err(Refused::NoChallenge),
        };
        let values: Vec<&[u8]> = response.values(asks).take(MAX_KEPT * 4).collect();
        let chosen = one_for_each_realm(&values, rules);
        match (values.is_empty(), chosen.is_empty()) {
            (true, _) => return Err(Refused::NoChallenge),
            (false, true) => return Err(Refused::NotForUs),
            _ if retries >= MAX_RETRIES => return Err(Refused::TooOften),
            _ => {}
        }
        // With no retry yet an answer went out unasked if any did, and its nonce may simply have been
        // too old; not every peer says so.
        let another_round = |challenge: &Challenge<'_>| {
            challenge.stale || self.find(header, challenge.realm).is_none()
        };
        if retries > 0 && !chosen.iter().any(|(challenge, _)| another_round(challenge)) {
            return Err(Refused::WrongCredentials);
        }
        for (challenge, value) in chosen {
            self.keep(header, &challenge, value);
        }
        Ok(())
    }

    /// The headers that answer all challenges so far, for one request; each call is one more use of
    /// the nonces. `cnonce` is letters and digits, random.
    ///
    /// # Errors
    /// [`Unanswerable`].
    pub fn headers(
        &mut self,
        credentials: Credentials<'_>,
        subject: Subject<'_>,
        cnonce: &str,
    ) -> Result<Vec<Line>, Unanswerable> {
        let mut lines = Vec::with_capacity(self.kept.len());
        for kept in &mut self.kept {
            kept.count = kept.count.saturating_add(1);
            let Subject { method, uri, body } = subject;
            let question = Question { method, uri, body, cnonce, nc: kept.count };
            let Some(challenge) = Challenge::parse(&kept.value) else { continue };
            lines.push((kept.header, challenge.answer(credentials, question)?));
        }
        Ok(lines)
    }

    fn find(&self, header: &str, realm: &[u8]) -> Option<usize> {
        self.kept.iter().position(|kept| {
            kept.header == header && kept.challenge().is_some_and(|known| known.realm == realm)
        })
    }

    /// Keeps a challenge in the place of the one before it of the same realm.
    fn keep(&mut self, header: &'static str, challenge: &Challenge<'_>, value: &[u8]) {
        let place = self.find(header, challenge.realm);
        let known = place.and_then(|place| self.kept.get_mut(place));
        if let Some(known) = known {
            let same = known.challenge().is_some_and(|known| known.nonce == challenge.nonce);
            known.count = if same { known.count } else { 0 };
            known.value = value.into();
        } else if self.kept.len() < MAX_KEPT {
            self.kept.push(Kept { header, value: value.into(), count: 0 });
        }
    }
}

/// Of each realm the challenge to answer, in the order in which the realms come.
fn one_for_each_realm<'a>(values: &[&'a [u8]], rules: Rules<'_>) -> Vec<(Challenge<'a>, &'a [u8])> {
    let mut chosen: Vec<(Challenge<'a>, &'a [u8])> = Vec::new();
    for first in values.iter().filter_map(|value| Challenge::parse(value)) {
        let seen = chosen.iter().any(|(challenge, _)| challenge.realm == first.realm);
        let ours = rules.realm.is_none_or(|realm| first.realm == realm.as_bytes());
        let Ok(realm) = std::str::from_utf8(first.realm) else { continue };
        if seen || !ours || chosen.len() == MAX_KEPT {
            continue;
        }
        let best = choose(values.iter().copied(), rules.weakest, Some(realm));
        let value = best.and_then(|best| {
            values.iter().find(|value| Challenge::parse(value).as_ref() == Some(&best))
        });
        chosen.extend(best.zip(value.copied()));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Message;

    const CREDENTIALS: Credentials<'_> = Credentials { username: "us", password: "secret" };
    const ANY: Rules<'_> = Rules { weakest: Hash::Md5, realm: None };
    const INVITE: Subject<'_> = Subject { method: "INVITE", uri: b"sip:b@c.example", body: b"" };

    fn challenged(status: u16, challenges: &[&str]) -> Response {
        let name = if status == 401 { "WWW-Authenticate" } else { "Proxy-Authenticate" };
        let lines: String =
            challenges.iter().map(|value| format!("{name}: Digest {value}\r\n")).collect();
        let text = format!(
            "SIP/2.0 {status} Who\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=f\r\n\
             To: <sip:b@x>;tag=t\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        Response::try_from(Message::parse(Bytes::from(text)).unwrap()).unwrap()
    }

    fn lines(answers: &mut Answers) -> Vec<Line> {
        answers.headers(CREDENTIALS, INVITE, "c0ffee").unwrap()
    }

    const MD5: &str = "realm=\"a\", nonce=\"n1\", qop=\"auth\", algorithm=MD5";
    const SHA: &str = "realm=\"a\", nonce=\"n2\", qop=\"auth\", algorithm=SHA-256";

    #[test]
    fn of_several_challenges_the_strongest_is_answered_once() {
        for order in [[MD5, SHA], [SHA, MD5]] {
            let mut answers = Answers::new();
            answers.learn(&challenged(401, &order), ANY, 0).unwrap();
            let lines = lines(&mut answers);
            assert_eq!(lines.len(), 1);
            assert_eq!(lines[0].0, "Authorization");
            assert!(lines[0].1.contains("nonce=\"n2\"") && lines[0].1.contains("SHA-256"));
        }
    }

    #[test]
    fn a_nonce_is_used_again_with_a_rising_count() {
        let mut answers = Answers::new();
        answers.learn(&challenged(407, &[SHA]), ANY, 0).unwrap();
        for count in 1..=3 {
            let lines = lines(&mut answers);
            assert_eq!(lines[0].0, "Proxy-Authorization");
            assert!(lines[0].1.contains(&format!("nc={count:08x}")), "{}", lines[0].1);
        }
        // The peer asks again with the same nonce: the count goes on. With another: from 1.
        answers.learn(&challenged(407, &[SHA]), ANY, 0).unwrap();
        assert!(lines(&mut answers)[0].1.contains("nc=00000004"));
        answers.learn(&challenged(407, &[&SHA.replace("n2", "n3")]), ANY, 0).unwrap();
        assert!(lines(&mut answers)[0].1.contains("nc=00000001"));
    }

    #[test]
    fn the_same_challenge_after_an_answer_means_wrong_credentials() {
        let mut answers = Answers::new();
        answers.learn(&challenged(401, &[MD5]), ANY, 0).unwrap();
        let again = challenged(401, &[&MD5.replace("n1", "n9")]);
        assert_eq!(answers.learn(&again, ANY, 1), Err(Refused::WrongCredentials));
    }

    #[test]
    fn a_stale_nonce_gets_another_round_and_no_more_than_three() {
        let stale = challenged(401, &[&format!("{SHA}, stale=true")]);
        let mut answers = Answers::new();
        answers.learn(&challenged(401, &[SHA]), ANY, 0).unwrap();
        assert_eq!(answers.learn(&stale, ANY, 1), Ok(()));
        assert_eq!(answers.learn(&stale, ANY, 2), Ok(()));
        assert_eq!(answers.learn(&stale, ANY, 3), Err(Refused::TooOften));
    }

    #[test]
    fn an_answer_that_went_out_unasked_may_be_too_old() {
        let mut answers = Answers::new();
        answers.learn(&challenged(401, &[SHA]), ANY, 0).unwrap();
        lines(&mut answers);
        assert_eq!(answers.learn(&challenged(401, &[&SHA.replace("n2", "n7")]), ANY, 0), Ok(()));
        assert!(lines(&mut answers)[0].1.contains("nonce=\"n7\""));
    }

    #[test]
    fn server_and_proxies_are_answered_together() {
        let mut answers = Answers::new();
        answers.learn(&challenged(407, &[MD5, "realm=\"p\", nonce=\"x\""]), ANY, 0).unwrap();
        answers.learn(&challenged(401, &[MD5]), ANY, 1).unwrap();
        let names: Vec<_> = lines(&mut answers).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Proxy-Authorization", "Proxy-Authorization", "Authorization"]);
    }

    #[test]
    fn other_realms_and_weak_hashes_get_no_answer() {
        let mut answers = Answers::new();
        let strong = Rules { weakest: Hash::Sha256, ..ANY };
        assert_eq!(answers.learn(&challenged(401, &[MD5]), strong, 0), Err(Refused::NotForUs));
        let ours = Rules { realm: Some("b"), ..ANY };
        assert_eq!(answers.learn(&challenged(401, &[MD5, SHA]), ours, 0), Err(Refused::NotForUs));
        assert_eq!(answers.learn(&challenged(401, &[]), ANY, 0), Err(Refused::NoChallenge));
        assert_eq!(answers.learn(&challenged(403, &[MD5]), ANY, 0), Err(Refused::NoChallenge));
        assert!(answers.is_empty() && lines(&mut answers).is_empty());
    }

    #[test]
    fn a_peer_of_many_realms_fills_no_memory() {
        let many: Vec<String> = (0..40).map(|n| format!("realm=\"r{n}\", nonce=\"n\"")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut answers = Answers::new();
        answers.learn(&challenged(407, &many), ANY, 0).unwrap();
        answers.learn(&challenged(401, &many), ANY, 1).unwrap();
        assert_eq!(answers.kept.len(), MAX_KEPT);
    }
}
