//! Whom to believe over TLS when this program is an HTTP client: the public issuers, and those an
//! operator adds.
//!
//! The public ones are compiled in, so that a container without certificates of its own works, and so
//! that every client of the program believes the same.

use std::io;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// How TLS is spoken by clients: the public issuers, and those in the PEM file at `extra_roots`.
///
/// # Errors
/// When the file cannot be read or holds no certificate; the message names it.
pub fn client_tls(extra_roots: Option<&Path>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = extra_roots {
        let named = |why: String| io::Error::other(format!("{}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| named(error.to_string()))?;
        if certificates.is_empty() {
            return Err(named("holds no certificate".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| named(error.to_string()))?;
        }
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_issuers_are_enough() {
        assert!(client_tls(None).is_ok());
    }

    #[test]
    fn a_file_that_is_no_list_of_issuers_is_named() {
        let path = std::env::temp_dir().join(format!("trust-{}.pem", uuid::Uuid::new_v4()));
        assert!(client_tls(Some(&path)).is_err());
        std::fs::write(&path, "nothing").unwrap();
        let error = client_tls(Some(&path)).unwrap_err().to_string();
        let _ = std::fs::remove_file(&path);
        assert!(error.contains("trust-") && error.contains("holds no certificate"), "{error}");
    }
}
