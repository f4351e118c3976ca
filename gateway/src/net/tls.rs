//! The certificate we show (RFC 5246, RFC 8446; TLS 1.2 and later only).
//!
//! Without a configured certificate a self-signed one is made on first run and kept in the data
//! folder, so that TLS works at once; carriers that check names need a real one. A reload swaps the
//! identity for new handshakes; a bad file keeps the old one.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Where certificate and key are read from.
#[derive(Clone, Debug)]
pub struct Files {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub private_key: PathBuf,
}

/// The identity of the moment. Cheap to clone; all clones see a reload.
#[derive(Clone)]
pub struct ServerIdentity {
    files: Files,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl ServerIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// Says which file is missing, unreadable or unusable.
    pub fn load(files: Files) -> io::Result<Self> {
        let current = Arc::new(ArcSwap::from(read(&files)?));
        Ok(ServerIdentity { files, current })
    }

    /// Reads the files again; on error the old identity stays.
    ///
    /// # Errors
    /// As [`ServerIdentity::load`].
    pub fn reload(&self) -> io::Result<()> {
        self.current.store(read(&self.files)?);
        Ok(())
    }

    /// An acceptor for one handshake.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

/// Makes a self-signed certificate for these names unless the files are there. True when it did.
///
/// # Errors
/// When the folder cannot be written.
pub fn self_sign(files: &Files, names: Vec<String>) -> io::Result<bool> {
    if files.certificate.exists() && files.private_key.exists() {
        return Ok(false);
    }
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    write_private(&files.private_key, made.signing_key.serialize_pem().as_bytes())?;
    fs::write(&files.certificate, made.cert.pem())?;
    Ok(true)
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

fn read(files: &Files) -> io::Result<Arc<ServerConfig>> {
    let named = |path: &Path, what: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| named(&files.certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(named(&files.certificate, "holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.private_key)
        .map_err(|error| named(&files.private_key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| named(&files.certificate, error.to_string()))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Files {
        Files { certificate: folder.join("c.pem"), private_key: folder.join("k.pem") }
    }

    #[test]
    fn a_certificate_is_made_once_and_then_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = files(folder.path());
        assert!(self_sign(&files, vec!["localhost".to_owned()]).expect("made"));
        let first = fs::read(&files.certificate).expect("written");
        assert!(!self_sign(&files, vec!["localhost".to_owned()]).expect("kept"));
        assert_eq!(first, fs::read(&files.certificate).expect("still there"));
        ServerIdentity::load(files).expect("usable");
    }

    #[test]
    fn a_bad_file_on_reload_keeps_the_old_identity() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = files(folder.path());
        self_sign(&files, vec!["localhost".to_owned()]).expect("made");
        let identity = ServerIdentity::load(files.clone()).expect("usable");
        fs::write(&files.certificate, "half a file").expect("written");
        assert!(identity.reload().is_err());
        let _still_there = identity.acceptor();
    }
}
