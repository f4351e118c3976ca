//! Why a fetch came to nothing.

use std::error::Error;
use std::io;

/// Why a fetch came to nothing. The words are for customers: they never name an address, and they do
/// not tell a name that leads inside from one that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FetchError {
    /// Not an absolute URL with a host, or one that two readers could read differently.
    #[error("is not a URL that can be fetched")]
    BadUrl,
    /// Another scheme than `https`, or than `http` where that is allowed.
    #[error("must be an https:// URL")]
    Scheme,
    /// A user name or password before the host.
    #[error("must not carry a user name or password")]
    Credentials,
    /// Another port than 80 and 443.
    #[error("must use port 80 or 443")]
    Port,
    /// The host is, or resolves to, an address that is not on the public internet; or to none.
    #[error("has no address on the public internet")]
    NotPublic,
    /// A method that is not served.
    #[error("method cannot be used")]
    Method,
    /// A header that only the client itself writes.
    #[error("header cannot be set")]
    Header,
    /// Nobody there takes connections.
    #[error("cannot be reached")]
    Unreachable,
    /// Its certificate is not one of a known issuer for this host.
    #[error("shows a certificate that is not trusted")]
    Untrusted,
    /// The whole fetch took too long.
    #[error("did not answer in time")]
    TimedOut,
    /// It sent us further than we go.
    #[error("redirects too often")]
    TooManyRedirects,
    /// More than is read.
    #[error("answered with too large a body")]
    TooLarge,
    /// Something that is not read.
    #[error("answered with a content type that is not read")]
    ContentType,
    /// A compressed body, which nobody asked for.
    #[error("answered with a content encoding that is not read")]
    Encoded,
    /// Not HTTP, or HTTP that ended in the middle.
    #[error("did not answer as HTTP says")]
    Broken,
}

impl FetchError {
    /// Whether the same fetch may well succeed later: the fault is on the way or at the far end, not
    /// in what was asked.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::NotPublic | Self::Unreachable | Self::Untrusted | Self::TimedOut | Self::Broken
        )
    }

    /// What reqwest's error means; it hides ours and those of TLS among its causes.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(found) = cause {
            if let Some(known) = Self::known(found) {
                return known;
            }
            // An I/O error hides what it holds from `source`, and may hold another one.
            let held = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = held.map(|held| held as &(dyn Error + 'static)).or_else(|| found.source());
        }
        match error {
            error if error.is_timeout() => Self::TimedOut,
            error if error.is_connect() => Self::Unreachable,
            _ => Self::Broken,
        }
    }

    fn known(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(ours) = error.downcast_ref::<Self>() {
            return Some(*ours);
        }
        match error.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(_) => Some(Self::Untrusted),
            _ => Some(Self::Broken),
        }
    }
}
