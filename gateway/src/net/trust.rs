//! Whom we believe when we connect over TLS (RFC 5280, RFC 5922, RFC 8446; TLS 1.2 and later only).
//!
//! The certificate must lead to a known root, be in its time, be for servers and not revoked by any
//! list we were given, and be for the host as it was configured: by a DNS name, an IP address when an
//! address is configured, or a SIP URI of the domain (RFC 5922 §7.1). A wildcard stands for one label,
//! which RFC 5922 §7.2 does not want and carriers' certificates have all the same; in a SIP URI it
//! stands for nothing. The subject's common name is never looked at. There is no way to turn any of
//! this off.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError,
    RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::agent::link;

/// Most names of a certificate that a refusal tells.
const MAX_TOLD: usize = 3;

/// The longest name that a refusal tells, in characters.
const MAX_TOLD_CHARACTERS: usize = 80;

/// What outgoing TLS connections go by. Cheap to clone.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Believes the issuers in `roots`, except in the certificates that `revoked` names.
    ///
    /// # Errors
    /// A revocation list that cannot be read, or a crypto provider that cannot do TLS 1.2 and 1.3,
    /// which would be a fault of the build.
    pub fn new(
        roots: RootCertStore,
        revoked: &[CertificateRevocationListDer<'_>],
    ) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier { roots, revoked: read_lists(revoked)?, algorithms };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Trust { config: Arc::new(config) })
    }

    /// Believes the public issuers, and those of a PEM file that the customer gave. Revocation lists
    /// in the same file are heeded.
    ///
    /// # Errors
    /// When the text is no PEM, holds no certificate, or one that cannot be an issuer's.
    pub fn with_extra_roots(pem: Option<&[u8]>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let mut revoked = Vec::new();
        if let Some(pem) = pem {
            for certificate in link::certificates(pem).map_err(io::Error::other)? {
                roots.add(certificate).map_err(io::Error::other)?;
            }
            let lists = CertificateRevocationListDer::pem_slice_iter(pem);
            revoked = lists.collect::<Result<_, _>>().map_err(io::Error::other)?;
        }
        Trust::new(roots, &revoked)
    }

    /// For one handshake.
    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }
}

fn read_lists(
    lists: &[CertificateRevocationListDer<'_>],
) -> io::Result<Vec<CertRevocationList<'static>>> {
    let read = |list: &CertificateRevocationListDer<'_>| {
        BorrowedCertRevocationList::from_der(list)?.to_owned().map(CertRevocationList::Owned)
    };
    lists.iter().map(read).collect::<Result<_, _>>().map_err(io::Error::other)
}

/// The judge of server certificates.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    revoked: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(of_path)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        certificate
            .verify_for_usage(
                self.algorithms.all,
                &self.roots.roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                revocation(&lists),
                None,
            )
            .map_err(of_path)?;
        let named = certificate.verify_is_valid_for_subject_name(server_name).is_ok()
            || certificate.valid_uri_names().any(|uri| is_domain(uri, server_name));
        if named {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(other_name(&certificate, server_name))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Certificates of issuers whose lists we have are looked up in them; others pass.
fn revocation<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let options = RevocationOptionsBuilder::new(lists).ok()?;
    Some(options.with_status_policy(UnknownStatusPolicy::Allow).build())
}

/// Whether a SIP URI in a certificate stands for the domain: without a user part, the host equal to
/// the letter but for case (RFC 5922 §7.1, §7.2).
fn is_domain(uri: &str, server_name: &ServerName<'_>) -> bool {
    let ServerName::DnsName(wanted) = server_name else { return false };
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let plain = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let wanted = wanted.as_ref().trim_end_matches('.');
    scheme.eq_ignore_ascii_case("sip") && plain && rest.eq_ignore_ascii_case(wanted)
}

fn other_name(certificate: &EndEntityCert<'_>, server_name: &ServerName<'_>) -> rustls::Error {
    let names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
    CertificateError::NotValidForNameContext {
        expected: server_name.to_owned(),
        presented: names.map(str::to_owned).collect(),
    }
    .into()
}

/// What is wrong with a chain.
fn of_path(error: webpki::Error) -> rustls::Error {
    use webpki::Error as Path;
    let certificate = match error {
        Path::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Path::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Path::UnknownIssuer => CertificateError::UnknownIssuer,
        Path::CertRevoked => CertificateError::Revoked,
        Path::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Path::BadDer | Path::BadDerTime | Path::TrailingData(_) => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    certificate.into()
}

/// Why there is no TLS with a peer. Its text is for the customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TlsFault {
    /// The certificate's time is over.
    #[error("the certificate has expired")]
    Expired,
    /// The certificate's time is to come.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// The certificate is good, for somebody else.
    #[error("the certificate is for {presented}, not {expected}")]
    OtherName {
        /// The host that is configured.
        expected: String,
        /// The first names of the certificate, or "no host name".
        presented: String,
    },
    /// The certificate is self-signed, or signed by nobody we know.
    #[error("the certificate's issuer is not known")]
    UnknownIssuer,
    /// The issuer has taken the certificate back.
    #[error("the certificate has been revoked")]
    Revoked,
    /// The certificate breaks another rule.
    #[error("the certificate is not usable: {0}")]
    BadCertificate(String),
    /// The peer wants to see a certificate of ours.
    #[error("the peer demands a client certificate")]
    WantsCertificate,
    /// The peer refused, for a reason of its own.
    #[error("the peer refused the TLS handshake: {0}")]
    Alert(String),
    /// What answers is no TLS, or none we may use.
    #[error("the peer does not speak TLS 1.2 or 1.3")]
    NotTls,
    /// The configured host cannot stand in a certificate.
    #[error("the host cannot be named by a certificate")]
    BadName,
    /// The peer hung up in the handshake.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
}

impl TlsFault {
    /// The stable word for metrics, records and the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            TlsFault::Expired => "tls_expired",
            TlsFault::NotYetValid => "tls_not_yet_valid",
            TlsFault::OtherName { .. } => "tls_other_name",
            TlsFault::UnknownIssuer => "tls_unknown_issuer",
            TlsFault::Revoked => "tls_revoked",
            TlsFault::BadCertificate(_) => "tls_bad_certificate",
            TlsFault::WantsCertificate => "tls_wants_certificate",
            TlsFault::Alert(_) => "tls_refused",
            TlsFault::NotTls => "tls_not_spoken",
            TlsFault::BadName => "tls_bad_name",
            TlsFault::Closed => "tls_closed",
        }
    }

    /// What a handshake that failed means.
    pub(crate) fn of_handshake(error: &io::Error) -> TlsFault {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(why)) => TlsFault::of_certificate(why),
            Some(rustls::Error::AlertReceived(alert)) => match alert {
                AlertDescription::CertificateRequired => TlsFault::WantsCertificate,
                AlertDescription::ProtocolVersion => TlsFault::NotTls,
                other => TlsFault::Alert(format!("{other:?}")),
            },
            Some(rustls::Error::InvalidMessage(_) | rustls::Error::PeerIncompatible(_)) => {
                TlsFault::NotTls
            }
            Some(other) => TlsFault::Alert(other.to_string()),
            None => TlsFault::Closed,
        }
    }

    fn of_certificate(why: &CertificateError) -> TlsFault {
        match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsFault::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsFault::NotYetValid
            }
            CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
            CertificateError::Revoked => TlsFault::Revoked,
            CertificateError::NotValidForNameContext { expected, presented } => {
                TlsFault::OtherName {
                    expected: expected.to_str().into_owned(),
                    presented: told(presented),
                }
            }
            CertificateError::Other(other) => TlsFault::BadCertificate(other.0.to_string()),
            other => TlsFault::BadCertificate(other.to_string()),
        }
    }
}

/// The first names of a certificate as a refusal tells them. They are the peer's words: what could
/// not stand in a host name is replaced, and there is an end to them.
fn told(names: &[String]) -> String {
    if names.is_empty() {
        return "no host name".to_owned();
    }
    let plain = |name: &String| -> String {
        let fit = |char: char| if char.is_ascii_graphic() { char } else { '?' };
        name.chars().take(MAX_TOLD_CHARACTERS).map(fit).collect()
    };
    let mut text = names.iter().take(MAX_TOLD).map(plain).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_TOLD {
        text.push_str(" and others");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sip_uri_stands_for_its_domain_and_for_nothing_else() {
        let name = ServerName::try_from("carrier.example").expect("a name");
        for uri in ["sip:carrier.example", "SIP:Carrier.Example"] {
            assert!(is_domain(uri, &name), "{uri}");
        }
        for uri in [
            "sip:user@carrier.example",
            "sips:carrier.example",
            "sip:*.example",
            "sip:carrier.example;transport=tls",
            "sip:carrier.example:5061",
            "sip:carrier.example\0.evil.example",
            "sip:carrier.example.evil.example",
            "https:carrier.example",
            "carrier.example",
        ] {
            assert!(!is_domain(uri, &name), "{uri}");
        }
        let address = ServerName::try_from("192.0.2.7").expect("an address");
        assert!(!is_domain("sip:192.0.2.7", &address));
    }

    #[test]
    fn the_names_of_a_stranger_are_told_short_and_plain() {
        let names =
            |list: &[&str]| told(&list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&[]), "no host name");
        assert_eq!(names(&["a.example", "sip:b\r\nX: y"]), "a.example, sip:b??X:?y");
        assert_eq!(names(&["a", "b", "c", "d"]), "a, b, c and others");
        assert_eq!(names(&[&"x".repeat(1000)]).len(), MAX_TOLD_CHARACTERS);
    }

    #[test]
    fn a_pem_without_certificates_is_refused() {
        assert!(Trust::with_extra_roots(Some(b"nothing")).is_err());
        assert!(Trust::with_extra_roots(None).is_ok());
    }
}
