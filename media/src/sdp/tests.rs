//! Offer/answer as a whole: the encryption table, hold, re-offers, hostile and foreign texts.

mod encryption;
mod exchange;
mod foreign;
mod hostile;

use super::{Capabilities, Encryption, Incompatible, Local, Negotiation, Plan};
use crate::codec::Codec;

const KEY_A: &str = "WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ";
const KEY_B: &str = "t0r0/apkukU7JjjfR0mY8GEimBq4OiPEm9eKSFOx";

fn capabilities(encryption: Encryption) -> Capabilities {
    Capabilities { codecs: vec![Codec::Pcmu, Codec::Pcma], dtmf: true, encryption }
}

fn leg(encryption: Encryption) -> Negotiation {
    let address = "203.0.113.5".parse().unwrap();
    Negotiation::new(capabilities(encryption), Local { address, port: 20_000, session_id: 77 })
}

/// Bytes that count up: a different key each time, the same in each run.
fn counting() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |bytes| {
        next += 1;
        bytes.fill(next);
    }
}

fn answer(leg: &mut Negotiation, offer: &str) -> Result<(String, Plan), Incompatible> {
    answer_with(leg, offer, &mut counting())
}

fn answer_with(
    leg: &mut Negotiation,
    offer: &str,
    rng: &mut dyn FnMut(&mut [u8]),
) -> Result<(String, Plan), Incompatible> {
    let (bytes, plan) = leg.answer(offer.as_bytes(), rng)?;
    Ok((String::from_utf8(bytes).unwrap(), plan))
}

fn refusal(leg: &mut Negotiation, offer: &str) -> Option<Incompatible> {
    answer(leg, offer).err()
}

/// An offer from 192.0.2.1 with these lines after `t=`.
fn described(lines: &str) -> String {
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
    lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .fold(head.to_owned(), |all, line| all + line + "\r\n")
}

fn version(sdp: &str) -> u64 {
    let origin = sdp.lines().find(|line| line.starts_with("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

fn media_lines(sdp: &str) -> Vec<&str> {
    sdp.lines().filter(|line| line.starts_with("m=")).collect()
}

#[track_caller]
fn assert_has(sdp: &str, line: &str) {
    assert!(sdp.lines().any(|found| found == line), "no {line:?} in\n{sdp}");
}
