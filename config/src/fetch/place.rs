//! Where a URL leads, and whether we go there.
//!
//! The text is canonicalised before anything is asked of it, by the same parser that the connection
//! will use: `0x7f.1`, `２１３０７０６４３３` and `127.0.0.1` are one address. What two parsers could
//! read differently (spaces, control characters, backslashes, `@` in the authority) is refused unread.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::FetchError;
use super::lookup::Lookup;
use crate::limits::FETCH_URL_CHARACTERS;

/// Which addresses may be connected to.
pub(super) type Allowed = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// What a URL must be like.
pub(super) struct Rules {
    pub(super) allowed: Allowed,
    pub(super) any_port: bool,
}

impl Rules {
    /// The URL in its canonical form, without fragment, if we go there.
    pub(super) fn judge(&self, text: &str, plain_http: bool) -> Result<Url, FetchError> {
        if text.chars().count() > FETCH_URL_CHARACTERS.value_usize() || text.chars().any(is_odd) {
            return Err(FetchError::BadUrl);
        }
        let (_, rest) = text.split_once("://").ok_or(FetchError::BadUrl)?;
        if rest.starts_with('/') {
            return Err(FetchError::BadUrl);
        }
        let mut url = Url::parse(text).map_err(|_| FetchError::BadUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if plain_http => {}
            _ => return Err(FetchError::Scheme),
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(FetchError::Credentials);
        }
        match url.port_or_known_default() {
            Some(80 | 443) => {}
            Some(1..) if self.any_port => {}
            _ => return Err(FetchError::Port),
        }
        if let Some(address) = literal(&url)
            && !(self.allowed)(address)
        {
            return Err(FetchError::NotPublic);
        }
        url.set_fragment(None);
        Ok(url)
    }
}

/// What a tolerant parser drops or turns into something else.
fn is_odd(c: char) -> bool {
    c.is_control() || c.is_whitespace() || c == '\\'
}

/// The address that the host is, if it is no name. Such a host is never asked of a resolver.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The resolver that the HTTP client is given: what it says is all that is connected to, and it says
/// nothing that was not judged. A name with one forbidden address among its own is refused whole.
pub(super) struct Judged {
    pub(super) lookup: Lookup,
    pub(super) allowed: Allowed,
}

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.lookup)(name.as_str().to_owned());
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let found = found.await.unwrap_or_default();
            if found.is_empty() || !found.iter().all(|address| allowed(*address)) {
                return Err(FetchError::NotPublic.into());
            }
            // Port 0 is replaced by that of the URL.
            let addresses: Vec<_> = found
                .into_iter()
                .take(MAX_ADDRESSES)
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
