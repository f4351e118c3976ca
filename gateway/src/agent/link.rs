//! The link: a WebSocket (RFC 6455) the gateway opens to the agent's runtime.
//!
//! ```text
//! URL ─► checked ─► resolved ─► addresses judged ─► TCP ─► TLS ─► upgrade, signed ─► Link
//!                   one budget: `connect_timeout_ms`
//! ```
//!
//! The address that was judged is the one that is connected to; redirects are not followed. The socket keeps
//! hardly anything unsent in the kernel, so that what waits is in our queue, where old audio can be dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::guard;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::USER_AGENT;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};

use super::signature::{self, AuthToken};

/// An open link.
pub type Link = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The largest message an agent may send: base64 of a minute and a half of µ-law.
pub const MAX_MESSAGE_OCTETS: usize = 1024 * 1024;

/// The longest URL that is dialled.
pub const MAX_URL_OCTETS: usize = 2048;

/// How links are opened, kept and given up. All times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// From resolving the name to the finished upgrade.
    pub connect_timeout_ms: u64,
    /// An agent that takes nothing off our hands for this long is [`LinkError::Stalled`].
    pub stall_timeout_ms: u64,
    /// A link that was silent this long is asked for a sign of life (ping); 0 never asks.
    pub heartbeat_interval_ms: u64,
    /// A link that was silent this long although asked is [`LinkError::Silent`].
    pub heartbeat_timeout_ms: u64,
    /// For the goodbye at the end of a call.
    pub close_timeout_ms: u64,
    /// After an agent has hung up properly: what it said and was not heard yet may still be, this long.
    pub tail_timeout_ms: u64,
    /// Audio an agent may be ahead of the caller's ear.
    pub playout_limit_ms: u64,
    /// The oldest audio of the caller that is still sent to an agent that reads slowly.
    pub latency_limit_ms: u64,
    /// Whether `ws://` is dialled at all. Audio and numbers travel in the clear then.
    pub allow_plain_ws: bool,
    /// Whether agents may live on loopback, private and link-local addresses.
    pub allow_private_addresses: bool,
}

impl Default for LinkSettings {
    fn default() -> LinkSettings {
        LinkSettings {
            connect_timeout_ms: 5_000,
            stall_timeout_ms: 3_000,
            heartbeat_interval_ms: 1_000,
            heartbeat_timeout_ms: 3_000,
            close_timeout_ms: 500,
            tail_timeout_ms: 10_000,
            playout_limit_ms: 600_000,
            latency_limit_ms: 200,
            allow_plain_ws: false,
            allow_private_addresses: false,
        }
    }
}

/// Why there is no link, or no link any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LinkError {
    /// The URL is none, or has another scheme, a user name, or plain text where that is not allowed.
    #[error("the agent's URL cannot be dialled")]
    BadUrl,
    /// The name has no address.
    #[error("the agent's host name has no address")]
    Unresolved,
    /// All its addresses are ones the gateway must not connect to.
    #[error("the agent's address is not allowed")]
    Forbidden,
    /// Nobody listens there, or the network says no.
    #[error("the agent refused the connection")]
    Refused,
    /// Not open within `connect_timeout_ms`.
    #[error("the agent did not answer in time")]
    Timeout,
    /// No trust: name, issuer, date, or a failed handshake.
    #[error("TLS with the agent failed")]
    Tls,
    /// The agent answered the upgrade with another status than 101.
    #[error("the agent answered the handshake with {status}")]
    Handshake {
        /// The HTTP status.
        status: u16,
    },
    /// The link went down. 1006: without a goodbye (RFC 6455 §7.1.5).
    #[error("the agent closed the link ({code})")]
    Closed {
        /// The close code (RFC 6455 §7.4).
        code: u16,
    },
    /// The agent broke RFC 6455, or sent more than [`MAX_MESSAGE_OCTETS`] in one message.
    #[error("the agent broke the WebSocket protocol")]
    Protocol,
    /// The agent reads nothing any more.
    #[error("the agent stopped reading")]
    Stalled,
    /// The agent gives no sign of life.
    #[error("the agent fell silent")]
    Silent,
}

impl LinkError {
    /// The stable word for metrics, records and the API.
    pub fn code(self) -> &'static str {
        match self {
            LinkError::BadUrl => "agent_bad_url",
            LinkError::Unresolved => "agent_unresolved",
            LinkError::Forbidden => "agent_forbidden",
            LinkError::Refused => "agent_refused",
            LinkError::Timeout => "agent_timeout",
            LinkError::Tls => "agent_tls",
            LinkError::Handshake { .. } => "agent_handshake",
            LinkError::Closed { .. } => "agent_closed",
            LinkError::Protocol => "agent_protocol",
            LinkError::Stalled => "agent_stalled",
            LinkError::Silent => "agent_silent",
        }
    }

    /// What a failing open link means.
    pub(crate) fn of_open_link(error: &WsError) -> LinkError {
        match error {
            WsError::Io(_) | WsError::ConnectionClosed | WsError::AlreadyClosed => {
                LinkError::Closed { code: CLOSED_ABNORMALLY }
            }
            WsError::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ) => LinkError::Closed { code: CLOSED_ABNORMALLY },
            WsError::WriteBufferFull(_) => LinkError::Stalled,
            _ => LinkError::Protocol,
        }
    }

    fn of_upgrade(error: &WsError) -> LinkError {
        match error {
            WsError::Http(response) => LinkError::Handshake { status: response.status().as_u16() },
            WsError::Io(_) => LinkError::Refused,
            _ => LinkError::Protocol,
        }
    }
}

/// Opens links. One for all calls: it holds whom the gateway trusts.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
}

impl Dialer {
    /// A dialer that trusts the issuers in `roots`: the public ones and, with [`certificates`], private ones.
    ///
    /// # Errors
    /// When the crypto provider cannot do TLS 1.2 and 1.3, which would be a fault of the build.
    pub fn new(roots: RootCertStore) -> Result<Dialer, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Dialer { tls: Arc::new(tls) })
    }

    /// Opens a link to `url`, signed with `token` if the agent's owner has set one.
    ///
    /// # Errors
    /// See [`LinkError`]; never [`LinkError::Stalled`] or [`LinkError::Silent`].
    pub async fn connect(
        &self,
        url: &str,
        token: Option<&AuthToken>,
        settings: &LinkSettings,
    ) -> Result<Link, LinkError> {
        let budget = Duration::from_millis(settings.connect_timeout_ms);
        match timeout(budget, self.dial(url, token, settings)).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Timeout),
        }
    }

    async fn dial(
        &self,
        url: &str,
        token: Option<&AuthToken>,
        settings: &LinkSettings,
    ) -> Result<Link, LinkError> {
        let target = Target::parse(url, settings)?;
        let request = request(url, token)?;
        let addresses = target.resolve(settings).await?;
        let tcp = connect_any(&addresses, settings).await?;
        keep_little_in_the_kernel(&tcp);
        let stream = if target.encrypted {
            let name = ServerName::try_from(target.host).map_err(|_| LinkError::BadUrl)?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let stream = connector.connect(name, tcp).await.map_err(|_| LinkError::Tls)?;
            MaybeTlsStream::Rustls(stream)
        } else {
            MaybeTlsStream::Plain(tcp)
        };
        match client_async_with_config(request, stream, Some(websocket_config())).await {
            Ok((link, _response)) => Ok(link),
            Err(error) => Err(LinkError::of_upgrade(&error)),
        }
    }
}

/// The certificates of a PEM file, to be added to a [`RootCertStore`].
///
/// # Errors
/// When the text is no PEM or holds no certificate.
pub fn certificates(
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err(rustls::pki_types::pem::Error::NoItemsFound);
    }
    Ok(certificates)
}

/// The parts of a URL that decide where to connect.
struct Target {
    host: String,
    port: u16,
    encrypted: bool,
}

impl Target {
    fn parse(url: &str, settings: &LinkSettings) -> Result<Target, LinkError> {
        if url.len() > MAX_URL_OCTETS {
            return Err(LinkError::BadUrl);
        }
        let uri: Uri = url.parse().map_err(|_| LinkError::BadUrl)?;
        let encrypted = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") if settings.allow_plain_ws => false,
            _ => return Err(LinkError::BadUrl),
        };
        let authority = uri.authority().ok_or(LinkError::BadUrl)?;
        if authority.as_str().contains('@') {
            return Err(LinkError::BadUrl);
        }
        let port = match authority.as_str().rsplit_once(authority.host()) {
            Some((_, "" | ":")) => {
                if encrypted {
                    443
                } else {
                    80
                }
            }
            Some((_, port)) => {
                port.trim_start_matches(':').parse().map_err(|_| LinkError::BadUrl)?
            }
            None => return Err(LinkError::BadUrl),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || port == 0 {
            return Err(LinkError::BadUrl);
        }
        Ok(Target { host, port, encrypted })
    }

    /// The addresses that may be connected to, at most [`MAX_ADDRESSES`].
    async fn resolve(&self, settings: &LinkSettings) -> Result<Vec<SocketAddr>, LinkError> {
        let found = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|_| LinkError::Unresolved)?;
        let (mut any, mut allowed) = (false, Vec::new());
        for address in found {
            any = true;
            if settings.allow_private_addresses || guard::is_public(address.ip()) {
                allowed.push(address);
            }
        }
        allowed.truncate(MAX_ADDRESSES);
        match (any, allowed.is_empty()) {
            (_, false) => Ok(allowed),
            (true, true) => Err(LinkError::Forbidden),
            (false, true) => Err(LinkError::Unresolved),
        }
    }
}

/// Tries one address after the other. All but the last get an equal share of the budget, so that one that
/// swallows packets does not keep the next from being tried.
async fn connect_any(
    addresses: &[SocketAddr],
    settings: &LinkSettings,
) -> Result<TcpStream, LinkError> {
    let shares = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let share = Duration::from_millis(settings.connect_timeout_ms) / shares;
    let mut last = LinkError::Unresolved;
    for address in addresses {
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => LinkError::Timeout,
            Ok(Err(_)) => LinkError::Refused,
            Err(_) => LinkError::Timeout,
        };
    }
    Err(last)
}

/// The upgrade request: signature over the URL to the letter, and who we are.
fn request(url: &str, token: Option<&AuthToken>) -> Result<Request, LinkError> {
    let mut request = url.into_client_request().map_err(|_| LinkError::BadUrl)?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
    if let Some(token) = token {
        let value = HeaderValue::try_from(token.sign(url)).map_err(|_| LinkError::BadUrl)?;
        let name = HeaderName::try_from(signature::HEADER).map_err(|_| LinkError::BadUrl)?;
        headers.insert(name, value);
    }
    Ok(request)
}

/// Small buffers: a call's audio is 20 kB/s, and what lies in a buffer is late. The write buffer can hold a
/// batch of the pump and all marks of a clear.
fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(8 * 1024)
        .max_write_buffer_size(256 * 1024)
        .max_message_size(Some(MAX_MESSAGE_OCTETS))
        .max_frame_size(Some(MAX_MESSAGE_OCTETS))
}

/// No Nagle, and no more than [`UNSENT_OCTETS`] waiting in the kernel for a peer that does not take them.
/// A system that cannot do either only makes stalls visible later.
fn keep_little_in_the_kernel(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_OCTETS);
}

/// About 50 ms of audio messages.
#[cfg(target_os = "linux")]
const UNSENT_OCTETS: u32 = 1024;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Close code for an end without a close frame (RFC 6455 §7.1.5).
pub(crate) const CLOSED_ABNORMALLY: u16 = 1006;

const USER_AGENT_VALUE: &str = concat!("Trunkline/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<(String, u16, bool), LinkError> {
        let settings = LinkSettings { allow_plain_ws: true, ..LinkSettings::default() };
        Target::parse(url, &settings).map(|target| (target.host, target.port, target.encrypted))
    }

    #[test]
    fn a_url_says_host_port_and_encryption() {
        assert_eq!(parse("wss://a.example/s?x=1"), Ok(("a.example".into(), 443, true)));
        assert_eq!(parse("ws://a.example"), Ok(("a.example".into(), 80, false)));
        assert_eq!(parse("wss://[2001:db8::1]:8443/"), Ok(("2001:db8::1".into(), 8443, true)));
    }

    #[test]
    fn what_is_no_websocket_url_is_not_dialled() {
        let long = format!("wss://a.example/{}", "x".repeat(MAX_URL_OCTETS));
        for url in [
            "",
            "a.example",
            "/path",
            "http://a.example",
            "https://a.example",
            "wss://",
            "wss:///x",
            "wss://user:pass@a.example/",
            "wss://a.example:0/",
            "wss://a.example:99999/",
            "wss://a b/",
            "wss://a.example/\r\nX: y",
            long.as_str(),
        ] {
            assert_eq!(parse(url), Err(LinkError::BadUrl), "{url:.60}");
        }
    }

    #[test]
    fn plain_text_is_dialled_only_where_it_is_allowed() {
        let refused = Target::parse("ws://a.example/", &LinkSettings::default());
        assert_eq!(refused.err(), Some(LinkError::BadUrl));
    }

    #[test]
    fn the_request_is_signed_over_the_url_to_the_letter() {
        let url = "wss://A.example:443/stream?a=b";
        let token = AuthToken::new("secret");
        let request = request(url, Some(&token)).unwrap();
        let headers = request.headers();
        assert_eq!(headers.get(signature::HEADER).unwrap(), &token.sign(url));
        assert_eq!(headers.get(USER_AGENT).unwrap(), USER_AGENT_VALUE);
        assert!(super::request(url, None).unwrap().headers().get(signature::HEADER).is_none());
    }

    #[test]
    fn a_file_without_certificates_is_an_error() {
        assert!(certificates(b"").is_err());
        assert!(certificates(b"-----BEGIN NONSENSE-----\nAA\n-----END NONSENSE-----\n").is_err());
    }
}
