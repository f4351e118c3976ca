//! Answering a challenge (RFC 7616 §3.4, RFC 8760 §2.4, RFC 3261 §22.2).
//!
//! To whom an answer may go is not decided here: credentials belong to one realm and one peer, and
//! the caller compares [`Challenge::realm`] and the flow before it answers (RFC 3261 §26.3).

use std::fmt::{self, Write as _};

use super::field::{Fields, escaped};
use super::hash::{Algorithm, Hash, Inputs, Protection};
use crate::lex::Commas;

/// One challenge of a 401 or 407.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Challenge<'a> {
    /// Whose password is asked for; as written, without its quotes.
    pub realm: &'a [u8],
    /// The server's nonce.
    pub nonce: &'a [u8],
    /// What the server wants back untouched.
    pub opaque: Option<&'a [u8]>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Whether only the nonce was too old: the same credentials may be tried again
    /// (RFC 7616 §3.3).
    pub stale: bool,
    named: bool,
    qop: Qop,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Qop {
    None,
    Auth,
    AuthInt,
}

/// Who we are to the other side. No `Debug`: it is a secret.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The user name.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
}

/// The request that is to carry the answer.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its Request-URI, byte for byte.
    pub uri: &'a [u8],
    /// Its body; only `auth-int` covers it.
    pub body: &'a [u8],
    /// Our nonce: letters and digits, random, new for every nonce of the server's.
    pub cnonce: &'a str,
    /// How many requests with the server's nonce were sent, this one included; from 1.
    pub nc: u32,
}

/// Why a challenge gets no answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unanswerable {
    /// A value of ours holds CR, LF or NUL, or the cnonce a quote.
    Unprintable,
    /// A value of the challenge is no text.
    NotText,
}

impl fmt::Display for Unanswerable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unprintable => "credentials that cannot be printed",
            Self::NotText => "a challenge that is no text",
        })
    }
}

impl std::error::Error for Unanswerable {}

impl<'a> Challenge<'a> {
    /// Reads one WWW-Authenticate or Proxy-Authenticate value.
    ///
    /// `None` for another scheme, an unknown algorithm, a missing realm or nonce, or a `qop` that
    /// offers nothing we know.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let fields = Fields::parse(value)?;
        let algorithm = fields.value("algorithm");
        let qop = match fields.value("qop") {
            None | Some([]) => Qop::None,
            Some(offered) => {
                let has =
                    |token: &[u8]| Commas(Some(offered)).any(|q| q.eq_ignore_ascii_case(token));
                match (has(b"auth"), has(b"auth-int")) {
                    (true, _) => Qop::Auth,
                    (false, true) => Qop::AuthInt,
                    (false, false) => return None,
                }
            }
        };
        Some(Self {
            realm: fields.value("realm")?,
            nonce: fields.value("nonce")?,
            opaque: fields.value("opaque"),
            algorithm: algorithm.map_or(Some(Algorithm::DEFAULT), Algorithm::parse)?,
            stale: fields.value("stale").is_some_and(|stale| stale.eq_ignore_ascii_case(b"true")),
            named: algorithm.is_some(),
            qop,
        })
    }

    /// The value of the Authorization or Proxy-Authorization header that answers it.
    ///
    /// # Errors
    /// [`Unanswerable`] when a value would not fit one header line.
    pub fn answer(
        &self,
        credentials: Credentials<'_>,
        question: Question<'_>,
    ) -> Result<String, Unanswerable> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Unanswerable::NotText);
        let (realm, nonce, uri) = (text(self.realm)?, text(self.nonce)?, text(question.uri)?);
        let nc = format!("{:08x}", question.nc);
        let (cnonce, nc_bytes) = (question.cnonce.as_bytes(), nc.as_bytes());
        let protection = match self.qop {
            Qop::None => Protection::None,
            Qop::Auth => Protection::Auth { cnonce, nc: nc_bytes },
            Qop::AuthInt => Protection::AuthInt { cnonce, nc: nc_bytes, body: question.body },
        };
        let response = Inputs {
            algorithm: self.algorithm,
            username: credentials.username.as_bytes(),
            realm: self.realm,
            password: credentials.password.as_bytes(),
            method: question.method.as_bytes(),
            uri: question.uri,
            nonce: self.nonce,
            protection,
        }
        .response();
        let username = escaped(credentials.username);
        let mut out = format!(
            "Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{}\"",
            response.as_str()
        );
        self.write_rest(&mut out, question.cnonce, &nc)?;
        let fits = !out.contains(['\r', '\n', '\0']) && !question.cnonce.contains(['"', '\\']);
        if fits { Ok(out) } else { Err(Unanswerable::Unprintable) }
    }

    fn write_rest(&self, out: &mut String, cnonce: &str, nc: &str) -> Result<(), Unanswerable> {
        let mut put = |piece: fmt::Arguments<'_>| {
            out.write_fmt(piece).expect("writing to memory never fails");
        };
        if self.named {
            put(format_args!(", algorithm={}", self.algorithm.as_str()));
        }
        match self.qop {
            Qop::None if self.algorithm.session => put(format_args!(", cnonce=\"{cnonce}\"")),
            Qop::None => {}
            Qop::Auth => put(format_args!(", qop=auth, nc={nc}, cnonce=\"{cnonce}\"")),
            Qop::AuthInt => put(format_args!(", qop=auth-int, nc={nc}, cnonce=\"{cnonce}\"")),
        }
        if let Some(opaque) = self.opaque {
            let opaque = std::str::from_utf8(opaque).map_err(|_| Unanswerable::NotText)?;
            put(format_args!(", opaque=\"{opaque}\""));
        }
        Ok(())
    }
}

/// The challenge to answer: of those whose hash we know and that is not weaker than `weakest` the
/// strongest, and of equals the topmost. (RFC 8760 §2.4 would have the topmost of all unless we know
/// better: a peer that offers both accepts both, and whoever puts MD5 first may be in between.) With a
/// `realm`, others are passed over.
#[must_use]
pub fn choose<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    weakest: Hash,
    realm: Option<&str>,
) -> Option<Challenge<'a>> {
    let fitting = values.filter_map(Challenge::parse).filter(|challenge| {
        challenge.algorithm.hash >= weakest
            && realm.is_none_or(|realm| challenge.realm == realm.as_bytes())
    });
    fitting.reduce(|best, next| if next.algorithm.hash > best.algorithm.hash { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUFASA: Credentials<'_> = Credentials { username: "Mufasa", password: "Circle of Life" };

    fn question() -> Question<'static> {
        Question { method: "REGISTER", uri: b"sip:example.org", body: b"", cnonce: "abc", nc: 1 }
    }

    #[test]
    fn the_answer_to_rfc_7616s_example_carries_its_digest() {
        let value = br#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256,
            nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;
        let question = Question {
            method: "GET",
            uri: b"/dir/index.html",
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            ..question()
        };
        let answer = Challenge::parse(value).unwrap().answer(MUFASA, question).unwrap();
        for part in [
            "Digest username=\"Mufasa\"",
            "response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\"",
            "qop=auth, nc=00000001",
            "algorithm=SHA-256",
            "opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
        ] {
            assert!(answer.contains(part), "{part} in {answer}");
        }
    }

    #[test]
    fn a_challenge_without_qop_gets_an_answer_without_nc() {
        let value = br#"Digest nonce="414d:38",algorithm=MD5,realm="3CXPhoneSystem""#;
        let answer = Challenge::parse(value).unwrap().answer(MUFASA, question()).unwrap();
        assert!(!answer.contains("nc=") && !answer.contains("cnonce") && !answer.contains("qop"));
    }

    #[test]
    fn the_strongest_known_challenge_is_chosen_and_none_too_weak() {
        let (md5, sha) =
            (&b"Digest realm=a, nonce=1"[..], &b"Digest realm=a, nonce=2, algorithm=sha-256"[..]);
        let odd = &b"Digest realm=a, nonce=3, algorithm=SHA3"[..];
        let pick = |values: &[&'static [u8]], weakest| {
            choose(values.iter().copied(), weakest, None).map(|challenge| challenge.nonce)
        };
        assert_eq!(pick(&[odd, md5, sha], Hash::Md5), Some(&b"2"[..]));
        assert_eq!(pick(&[odd, md5, sha], Hash::Sha256), Some(&b"2"[..]));
        assert_eq!(pick(&[sha, md5], Hash::Md5), Some(&b"2"[..]));
        assert_eq!(pick(&[md5, odd], Hash::Sha256), None);
        assert_eq!(pick(&[odd, md5], Hash::Md5), Some(&b"1"[..]));
        assert!(choose([md5].into_iter(), Hash::Md5, Some("b")).is_none());
    }

    #[test]
    fn only_an_offer_of_auth_int_alone_covers_the_body() {
        let only = Challenge::parse(b"Digest realm=a, nonce=1, qop=\"auth-int\"").unwrap();
        let with = |body| only.answer(MUFASA, Question { body, ..question() }).unwrap();
        assert_ne!(with(b"v=0"), with(b"v=1"));
        assert!(with(b"").contains("qop=auth-int"));
        assert!(Challenge::parse(b"Digest realm=a, nonce=1, qop=\"token\"").is_none());
    }

    #[test]
    fn credentials_cannot_break_out_of_their_line() {
        let challenge = Challenge::parse(b"Digest realm=a, nonce=1, qop=auth, stale=TRUE").unwrap();
        assert!(challenge.stale);
        for username in ["a\r\nX: y", "a\nb", "a\0b"] {
            let credentials = Credentials { username, ..MUFASA };
            let answer = challenge.answer(credentials, question());
            assert_eq!(answer, Err(Unanswerable::Unprintable));
        }
        let quoted = Credentials { username: "a\", realm=\"b", ..MUFASA };
        let answer = challenge.answer(quoted, question()).unwrap();
        assert_eq!(Fields::parse(answer.as_bytes()).unwrap().value("realm"), Some(&b"a"[..]));
    }
}
