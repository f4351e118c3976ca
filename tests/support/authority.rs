//! A certificate authority of one test, by OpenSSL.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

/// An issuer that nobody trusts unless told to.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: Arc<TempDir>,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity {
    folder: Arc<TempDir>,
    name: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// When OpenSSL does not.
    #[must_use]
    pub fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder can be made"));
        let authority = Authority { folder };
        // Two authorities of one test have different names, as in life.
        let own = authority.folder.path().file_name().unwrap_or_default().to_string_lossy();
        let subject = format!("/CN=Authority {own}");
        openssl(
            authority.folder.path(),
            &[
                &["req", "-x509", "-nodes", "-days", "30", "-subj", &subject],
                NEW_KEY,
                &["-keyout", "ca.key", "-out", "ca.pem"],
            ],
        );
        authority
    }

    /// Its own certificate, as `sip.extra_roots` wants it.
    #[must_use]
    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Issues a certificate for a name (`DNS:carrier.test`) or an address (`IP:127.0.0.1`).
    ///
    /// # Panics
    /// When OpenSSL does not.
    #[must_use]
    pub fn issue(&self, subject: &str) -> Identity {
        let name: String = subject.chars().filter(char::is_ascii_alphanumeric).collect();
        let (key, asked, made) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let folder = self.folder.path();
        openssl(
            folder,
            &[
                &["req", "-new", "-nodes", "-subj", "/CN=not looked at"],
                NEW_KEY,
                &["-keyout", &key, "-out", &asked],
            ],
        );
        let extensions = format!("{name}.ext");
        std::fs::write(folder.join(&extensions), format!("subjectAltName={subject}\n"))
            .expect("a file can be written");
        openssl(
            folder,
            &[
                &["x509", "-req", "-days", "30", "-CA", "ca.pem", "-CAkey", "ca.key"],
                &["-CAcreateserial", "-in", &asked, "-extfile", &extensions, "-out", &made],
            ],
        );
        Identity { folder: Arc::clone(&self.folder), name }
    }
}

impl Identity {
    /// The certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join(format!("{}.pem", self.name))
    }

    /// Its key, PEM.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.path().join(format!("{}.key", self.name))
    }
}

const NEW_KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn openssl(folder: &Path, arguments: &[&[&str]]) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args(arguments.concat())
        .output()
        .expect("openssl can be run");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
