//! Ports for programs that must be told theirs.
//!
//! They lie outside the range that the kernel gives to whoever asks for any (32768 to 60999), and
//! outside the gateway's media ports: only another test could take one away between here and the
//! program's start, and tests begin to look at different places.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

/// Where signalling ports are taken from.
const SIGNALLING: Range<u16> = 61_000..65_000;

/// Where media ports are taken from.
const MEDIA: Range<u16> = 10_000..19_900;

/// Ports that SIPp takes at once: RTP and RTCP, of audio and of video.
const MEDIA_PORTS: u16 = 4;

/// A port of 127.0.0.1 that is free for UDP and TCP at this moment.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let is_free = |port: u16| {
        let here = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(here).is_ok() && UdpSocket::bind(here).is_ok()
    };
    search(SIGNALLING, 1, is_free)
}

/// The first of four ports that nobody uses; it is even.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_media_port(address: IpAddr) -> u16 {
    let is_free = |first: u16| {
        (0..MEDIA_PORTS).all(|n| UdpSocket::bind((address, first.saturating_add(n))).is_ok())
    };
    search(MEDIA, MEDIA_PORTS, is_free)
}

/// Looks from some place on, and around.
fn search(range: Range<u16>, step: u16, is_free: impl Fn(u16) -> bool) -> u16 {
    let places = usize::from((range.end - range.start) / step);
    let start = usize::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or(0) % places;
    let all = range.step_by(usize::from(step));
    let found = all.clone().cycle().skip(start).take(places).find(|port| is_free(*port));
    found.expect("some port is free")
}

/// Whether somebody listens on the port: asked of the kernel, since trying would take the port away.
#[must_use]
pub fn is_bound(tcp: bool, port: u16) -> bool {
    const LISTENING: &str = "0A";
    let wanted = format!(":{port:04X}");
    let is_it = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        local.ends_with(&wanted) && (!tcp || state == LISTENING)
    };
    let tables = if tcp { ["tcp", "tcp6"] } else { ["udp", "udp6"] };
    tables.iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        table.lines().any(is_it)
    })
}
