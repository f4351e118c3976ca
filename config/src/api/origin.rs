//! Where a request comes from, seen through the proxies in front of the API.
//!
//! Each proxy adds to `X-Forwarded-For` whom it heard from, so the list is read from its end, and
//! only as far as those who added to it are trusted: what stands before was written by a stranger.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use ipnet::IpNet;

/// The address of whoever asks; `None` when the request did not come over a network.
pub(crate) fn source(request: &Request, proxies: &[IpNet]) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(seen_through(peer.0.ip().to_canonical(), request.headers(), proxies))
}

fn seen_through(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let entries = lines.flat_map(|line| line.to_str().unwrap_or("").rsplit(','));
    let mut source = peer;
    for entry in entries {
        if !is_proxy(&source) {
            break;
        }
        let Some(address) = address(entry.trim()) else { break };
        source = address;
    }
    source
}

/// An address as proxies write it: plain, in brackets, or with the port.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    plain.or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, lines: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        seen_through(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn what_a_trusted_proxy_says_is_believed() {
        assert_eq!(seen("10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(seen("10.0.0.1", &["192.0.2.7, 10.0.0.2"]), "192.0.2.7");
        assert_eq!(seen("10.0.0.1", &["192.0.2.7", "10.0.0.2"]), "192.0.2.7");
        assert_eq!(seen("fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["192.0.2.7:5000"]), "192.0.2.7");
    }

    #[test]
    fn what_a_stranger_says_is_not() {
        assert_eq!(seen("192.0.2.1", &["10.0.0.1"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, 192.0.2.7", "10.0.0.2"]), "192.0.2.7");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
    }
}
