//! Challenging and verifying (RFC 7616 §3.3, §3.5, RFC 8760 §2.3, RFC 3261 §22.1).
//!
//! ```text
//!   nonce = base64url( seconds:8 | issue:8 | first 16 bytes of HMAC-SHA256(key, seconds | issue) )
//! ```
//!
//! Strangers cost one keyed hash over sixteen bytes: a guessed nonce never reaches the password, and
//! nothing about them is kept. What is kept is one row per nonce that came with the right password:
//! which `nc` values it had. The table is bounded; when it is full the oldest row goes, and with it
//! every nonce as old that has no row: they count as stale, which costs their owner a round trip and
//! a replay its only chance.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::field::{Fields, unescaped};
use super::hash::{Algorithm, Hash, Inputs, Protection};
use crate::print::Unprintable;
use crate::uri::Uri;

/// How long a nonce may be answered, in seconds.
const LIFETIME_S: u64 = 300;
/// The most nonces whose `nc` values are remembered.
const REMEMBERED: usize = 4_096;
/// How far behind the highest `nc` an unseen one may come: datagrams overtake each other.
const NC_WINDOW: u32 = 64;
const PROOF_BYTES: usize = 16;

/// The server's half: mints nonces, proves them, finds replays. No `Debug`: it holds a key.
pub struct Nonces {
    proof: Hmac<Sha256>,
    realm: String,
    /// What is offered and taken, the most wanted first.
    hashes: Vec<Hash>,
    issued: u64,
    seen: BTreeMap<Issue, Counts>,
    /// The newest nonce that was forgotten.
    forgotten: Option<Issue>,
}

/// A nonce by its age: when it was minted, and as the how-manieth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Issue {
    seconds: u64,
    number: u64,
}

/// The `nc` values one nonce has had: the highest, and one bit for each of those below it.
#[derive(Clone, Copy, Default)]
struct Counts {
    highest: u32,
    below: u64,
}

/// What credentials are held against: the request that carries them.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The value of Authorization or Proxy-Authorization.
    pub credentials: &'a [u8],
    /// The request's method.
    pub method: &'a [u8],
    /// The Request-URI.
    pub uri: &'a [u8],
}

/// What credentials are worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The password is right and the request is new.
    Ok {
        /// Whose password it was.
        username: String,
    },
    /// The nonce is ours and too old, or forgotten: challenge again with `stale`.
    Stale,
    /// The password is right and this `nc` was used before: challenge again with `stale`, so that
    /// an honest client that counts badly gets on.
    Replayed,
    /// The nonce is not ours: challenge as if there were no credentials.
    Forged,
    /// An unknown user or a wrong password; the two are not told apart.
    Wrong,
    /// No digest we offered: another scheme, realm, algorithm or `qop`, or fields missing. Challenge
    /// as if there were no credentials.
    Unusable,
    /// They were made for another Request-URI (RFC 7616 §3.4.6).
    OtherUri,
}

impl Nonces {
    /// A server for one realm. The key must be random, and new for every start: rows about used
    /// nonces do not outlive the process.
    ///
    /// # Errors
    /// When the realm cannot stand between quotes on one line.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn new(key: [u8; 32], realm: &str) -> Result<Self, Unprintable> {
        if realm.contains(['\r', '\n', '\0', '"', '\\']) {
            return Err(Unprintable::Value);
        }
        Ok(Self {
            proof: Hmac::new_from_slice(&key).expect("HMAC takes keys of any length"),
            realm: realm.to_owned(),
            hashes: vec![Hash::Sha256, Hash::Md5],
            issued: 0,
            seen: BTreeMap::new(),
            forgotten: None,
        })
    }

    /// The same, but these hashes are offered and taken, the most wanted first. Some user agents
    /// give up when a challenge they do not know stands among those they do.
    #[must_use]
    pub fn offering(mut self, hashes: &[Hash]) -> Self {
        self.hashes = hashes.to_vec();
        self
    }

    /// The values of the WWW-Authenticate or Proxy-Authenticate headers of one 401 or 407, the most
    /// wanted first (RFC 8760 §2.3): SHA-256, then MD5. `now` is in seconds since 1970.
    pub fn challenge(&mut self, now: u64, stale: bool) -> Vec<String> {
        self.issued = self.issued.wrapping_add(1);
        let nonce = self.mint(Issue { seconds: now, number: self.issued });
        let stale = if stale { ", stale=true" } else { "" };
        self.hashes
            .iter()
            .map(|&hash| {
                let algorithm = Algorithm { hash, session: false }.as_str();
                let realm = &self.realm;
                format!(
                    "Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={algorithm}, \
                     qop=\"auth\"{stale}"
                )
            })
            .collect()
    }

    /// Judges credentials. `password` is asked once, only for credentials with a nonce of ours; an
    /// unknown user costs the same arithmetic as a known one. `now` is in seconds since 1970.
    pub fn verify<P: AsRef<str>>(
        &mut self,
        claim: Claim<'_>,
        password: impl FnOnce(&str) -> Option<P>,
        now: u64,
    ) -> Verdict {
        let Some(answer) = Answer::parse(claim.credentials).filter(|answer| self.offered(answer))
        else {
            return Verdict::Unusable;
        };
        let Some(issue) = self.prove(answer.nonce) else { return Verdict::Forged };
        if now.saturating_sub(issue.seconds) > LIFETIME_S || self.is_forgotten(issue) {
            return Verdict::Stale;
        }
        if !same_uri(answer.uri, claim.uri) {
            return Verdict::OtherUri;
        }
        let username = unescaped(answer.username);
        let Ok(username) = std::str::from_utf8(&username) else { return Verdict::Wrong };
        let known = password(username);
        if !answer.is_right(claim.method, username, known.as_ref().map_or("", AsRef::as_ref))
            || known.is_none()
        {
            return Verdict::Wrong;
        }
        if self.count(issue, answer.nc, now) {
            Verdict::Ok { username: username.to_owned() }
        } else {
            Verdict::Replayed
        }
    }

    fn offered(&self, answer: &Answer<'_>) -> bool {
        answer.realm == self.realm.as_bytes()
            && !answer.algorithm.session
            && self.hashes.contains(&answer.algorithm.hash)
    }

    fn mint(&self, issue: Issue) -> String {
        let mut nonce = issue.to_bytes().to_vec();
        let proof = self.proof.clone().chain_update(&nonce).finalize().into_bytes();
        nonce.extend(proof.iter().take(PROOF_BYTES));
        URL_SAFE_NO_PAD.encode(nonce)
    }

    /// When and as what a nonce was minted, if it was minted here.
    fn prove(&self, nonce: &[u8]) -> Option<Issue> {
        let mut room = [0; 48];
        let length = URL_SAFE_NO_PAD.decode_slice(nonce, &mut room).ok()?;
        let (stamp, proof) = room.get(..length)?.split_first_chunk::<16>()?;
        if proof.len() != PROOF_BYTES {
            return None;
        }
        self.proof.clone().chain_update(stamp).verify_truncated_left(proof).ok()?;
        Some(Issue::from_bytes(*stamp))
    }

    fn is_forgotten(&self, issue: Issue) -> bool {
        self.forgotten.is_some_and(|newest| issue <= newest) && !self.seen.contains_key(&issue)
    }

    /// Notes one use of a nonce that is not forgotten; `false` when it was noted before.
    fn count(&mut self, issue: Issue, nc: u32, now: u64) -> bool {
        while let Some((&oldest, _)) = self.seen.first_key_value() {
            let expired = now.saturating_sub(oldest.seconds) > LIFETIME_S;
            let full = self.seen.len() >= REMEMBERED && !self.seen.contains_key(&issue);
            if !expired && !full {
                break;
            }
            self.seen.pop_first();
            self.forgotten = self.forgotten.max(Some(oldest));
        }
        self.seen.entry(issue).or_default().count(nc)
    }
}

impl Issue {
    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.seconds) << 64 | u128::from(self.number)).to_be_bytes()
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, number @ ..] = bytes;
        let seconds = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Self { seconds, number: u64::from_be_bytes(number) }
    }
}

impl Counts {
    /// Notes a value; `false` when it was noted before or lies too far behind to know.
    fn count(&mut self, nc: u32) -> bool {
        if nc > self.highest {
            let ahead = nc - self.highest;
            let shifted = self.below.checked_shl(ahead).unwrap_or(0);
            let previous =
                if self.highest > 0 { 1u64.checked_shl(ahead - 1).unwrap_or(0) } else { 0 };
            *self = Self { highest: nc, below: shifted | previous };
            return true;
        }
        let behind = self.highest - nc;
        if nc == 0 || behind == 0 || behind > NC_WINDOW {
            return false;
        }
        let bit = 1u64 << (behind - 1);
        let new = self.below & bit == 0;
        self.below |= bit;
        new
    }
}

/// Credentials as they came.
struct Answer<'a> {
    username: &'a [u8],
    realm: &'a [u8],
    nonce: &'a [u8],
    uri: &'a [u8],
    response: &'a [u8],
    algorithm: Algorithm,
    protection: Protection<'a>,
    /// The count of this use; without `qop` a nonce is good for one use, which counts as the first.
    nc: u32,
}

impl<'a> Answer<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let fields = Fields::parse(value)?;
        let algorithm = match fields.value("algorithm") {
            Some(token) => Algorithm::parse(token)?,
            None => Algorithm::DEFAULT,
        };
        let (protection, nc) = match fields.value("qop") {
            None => (Protection::None, 1),
            Some(qop) if qop.eq_ignore_ascii_case(b"auth") => {
                let (cnonce, nc) = (fields.value("cnonce")?, fields.value("nc")?);
                (Protection::Auth { cnonce, nc }, nonce_count(nc)?)
            }
            Some(_) => return None,
        };
        Some(Self {
            username: fields.value("username")?,
            realm: fields.value("realm")?,
            nonce: fields.value("nonce")?,
            uri: fields.value("uri")?,
            response: fields.value("response")?,
            algorithm,
            protection,
            nc,
        })
    }

    fn is_right(&self, method: &[u8], username: &str, password: &str) -> bool {
        let inputs = Inputs {
            algorithm: self.algorithm,
            username: username.as_bytes(),
            realm: self.realm,
            password: password.as_bytes(),
            method,
            uri: self.uri,
            nonce: self.nonce,
            protection: self.protection,
        };
        inputs.response().matches(self.response)
    }
}

/// Eight hexadecimal digits.
fn nonce_count(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    let fits = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

fn same_uri(one: &[u8], two: &[u8]) -> bool {
    one == two
        || matches!((Uri::parse(one), Uri::parse(two)), (Some(one), Some(two)) if one.equivalent(&two))
}

#[cfg(test)]
mod tests {
    use super::super::client::{Challenge, Credentials, Question};
    use super::*;

    const NOW: u64 = 1_900_000_000;
    const URI: &[u8] = b"sip:+15550100@trunk.example.com";

    fn nonces() -> Nonces {
        Nonces::new([7; 32], "trunkline").unwrap()
    }

    fn password(user: &str) -> Option<&'static str> {
        (user == "alice").then_some("correct horse")
    }

    fn answer(challenge: &str, password: &str, nc: u32) -> String {
        let credentials = Credentials { username: "alice", password };
        let question = Question { method: "INVITE", uri: URI, body: b"", cnonce: "c0ffee", nc };
        Challenge::parse(challenge.as_bytes()).unwrap().answer(credentials, question).unwrap()
    }

    fn judge(nonces: &mut Nonces, credentials: &str, now: u64) -> Verdict {
        let claim = Claim { credentials: credentials.as_bytes(), method: b"INVITE", uri: URI };
        nonces.verify(claim, password, now)
    }

    fn granted() -> Verdict {
        Verdict::Ok { username: "alice".into() }
    }

    #[test]
    fn the_right_password_is_accepted_under_both_hashes() {
        let mut nonces = nonces();
        for row in 0..2 {
            let challenges = nonces.challenge(NOW, false);
            assert!(challenges[0].contains("SHA-256") && challenges[1].contains("MD5"));
            let credentials = answer(&challenges[row], "correct horse", 1);
            assert_eq!(judge(&mut nonces, &credentials, NOW + 1), granted());
        }
    }

    #[test]
    fn a_repeated_nc_is_a_replay_and_an_overtaken_one_is_not() {
        let mut nonces = nonces();
        let challenge = nonces.challenge(NOW, false).remove(0);
        for (nc, verdict) in [
            (1, granted()),
            (1, Verdict::Replayed),
            (3, granted()),
            (2, granted()),
            (2, Verdict::Replayed),
            (3, Verdict::Replayed),
            (0, Verdict::Replayed),
            (200, granted()),
            (136, granted()),
            (135, Verdict::Replayed),
            (136, Verdict::Replayed),
        ] {
            let credentials = answer(&challenge, "correct horse", nc);
            assert_eq!(judge(&mut nonces, &credentials, NOW), verdict, "nc {nc}");
        }
    }

    #[test]
    fn wrong_passwords_teach_the_server_nothing() {
        let mut nonces = nonces();
        let challenge = nonces.challenge(NOW, false).remove(0);
        for nc in 1..100 {
            let guess = answer(&challenge, &format!("guess{nc}"), nc);
            assert_eq!(judge(&mut nonces, &guess, NOW), Verdict::Wrong);
        }
        assert!(nonces.seen.is_empty());
        assert_eq!(judge(&mut nonces, &answer(&challenge, "correct horse", 1), NOW), granted());
    }

    #[test]
    fn nonces_that_are_not_ours_never_reach_the_password() {
        let mut theirs = Nonces::new([8; 32], "trunkline").unwrap();
        let foreign = theirs.challenge(NOW, false).remove(0);
        let mut ours = nonces();
        let own = ours.challenge(NOW, false).remove(0);
        for challenge in
            [foreign, own.replace("nonce=\"", "nonce=\"A"), own.replace("nonce=\"", "nonce=\"*")]
        {
            let credentials = answer(&challenge, "correct horse", 1);
            let claim = Claim { credentials: credentials.as_bytes(), method: b"INVITE", uri: URI };
            let never = |_: &str| -> Option<&str> { panic!("asked for a password") };
            assert_eq!(ours.verify(claim, never, NOW), Verdict::Forged);
        }
    }

    #[test]
    fn an_old_nonce_is_stale_and_says_so_when_asked_again() {
        let mut nonces = nonces();
        let challenge = nonces.challenge(NOW, false).remove(0);
        let credentials = answer(&challenge, "correct horse", 1);
        assert_eq!(judge(&mut nonces, &credentials, NOW + LIFETIME_S + 1), Verdict::Stale);
        assert!(nonces.challenge(NOW, true)[0].contains("stale=true"));
    }

    #[test]
    fn a_nonce_without_qop_is_good_for_one_use() {
        let mut nonces = nonces();
        let challenge = nonces.challenge(NOW, false).remove(1).replace(", qop=\"auth\"", "");
        let credentials = answer(&challenge, "correct horse", 1);
        assert_eq!(judge(&mut nonces, &credentials, NOW), granted());
        assert_eq!(judge(&mut nonces, &credentials, NOW), Verdict::Replayed);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_still_takes_no_replay() {
        let mut nonces = nonces();
        let first = nonces.challenge(NOW, false).remove(1);
        let unused = nonces.challenge(NOW, false).remove(1);
        let first = answer(&first, "correct horse", 1);
        assert_eq!(judge(&mut nonces, &first, NOW), granted());
        for _ in 0..REMEMBERED {
            nonces.issued += 1;
            let issue = Issue { seconds: NOW, number: nonces.issued };
            assert!(nonces.count(issue, 1, NOW));
        }
        assert_eq!(nonces.seen.len(), REMEMBERED);
        assert_eq!(judge(&mut nonces, &first, NOW), Verdict::Stale);
        let unused = answer(&unused, "correct horse", 1);
        assert_eq!(judge(&mut nonces, &unused, NOW), granted());
    }

    #[test]
    fn credentials_belong_to_their_uri_method_realm_and_offer() {
        let mut nonces = nonces().offering(&[Hash::Sha256]);
        let challenge = nonces.challenge(NOW, false).remove(0);
        assert_eq!(nonces.challenge(NOW, false).len(), 1);
        let credentials = answer(&challenge, "correct horse", 1);
        let claim = Claim { credentials: credentials.as_bytes(), method: b"INVITE", uri: URI };
        let mut verdict = |claim| nonces.verify(claim, password, NOW);
        assert_eq!(verdict(Claim { uri: b"sip:other@h", ..claim }), Verdict::OtherUri);
        assert_eq!(verdict(Claim { method: b"BYE", ..claim }), Verdict::Wrong);
        let realm = credentials.replace("realm=\"trunkline\"", "realm=\"other\"");
        assert_eq!(verdict(Claim { credentials: realm.as_bytes(), ..claim }), Verdict::Unusable);
        let weak = credentials.replace("algorithm=SHA-256", "algorithm=MD5");
        assert_eq!(verdict(Claim { credentials: weak.as_bytes(), ..claim }), Verdict::Unusable);
        assert_eq!(verdict(Claim { credentials: b"Basic YTpi", ..claim }), Verdict::Unusable);
        let equal = Claim { uri: b"sip:%2b15550100@TRUNK.example.com;x=1", ..claim };
        assert_eq!(verdict(equal), Verdict::OtherUri, "an escaped plus is another user");
        let equal = Claim { uri: b"sip:+1555010%30@TRUNK.example.com;x=1", ..claim };
        assert_eq!(verdict(equal), granted());
    }

    #[test]
    fn unknown_users_look_like_wrong_passwords() {
        let mut nonces = nonces();
        let challenge = nonces.challenge(NOW, false).remove(0);
        let credentials = answer(&challenge, "", 1).replace("alice", "mallory");
        assert_eq!(judge(&mut nonces, &credentials, NOW), Verdict::Wrong);
        assert_eq!(Nonces::new([0; 32], "a\"b").err(), Some(Unprintable::Value));
    }
}
