//! TLS on the address that is served: certificate and key from files, read again when they change.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::ServerCertificate;

/// How long changed files may go unseen.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The certificate of a process, as its files were read last.
pub(super) struct Certificate {
    files: ServerCertificate,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// Of both files, so that what has not changed is not made again.
    digest: [u8; 32],
    read_at: Instant,
    /// Why they could not be read again, to be told once.
    trouble: Option<String>,
}

/// What two files hold.
struct Pem {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    fn read(files: &ServerCertificate) -> io::Result<Self> {
        let read = |path: &Path, setting: &str| {
            std::fs::read(path).map_err(|error| io::Error::other(format!("{setting} ({}): {error}", path.display())))
        };
        Ok(Self { chain: read(&files.chain, "http.tls_cert")?, key: read(&files.key, "http.tls_key")? })
    }

    fn digest(&self) -> [u8; 32] {
        let parts = [&self.chain, &self.key].map(Sha256::digest);
        Sha256::digest(parts.concat()).into()
    }

    /// How connections are served with them. Errors show nothing of the key.
    fn config(&self, files: &ServerCertificate) -> io::Result<ServerConfig> {
        let wrong = |path: &Path, setting: &str, what: &str| {
            io::Error::other(format!("{setting} ({}): expected {what} in PEM, found none", path.display()))
        };
        let chain = CertificateDer::pem_slice_iter(&self.chain).collect::<Result<Vec<_>, _>>().unwrap_or_default();
        if chain.is_empty() {
            return Err(wrong(&files.chain, "http.tls_cert", "a certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| wrong(&files.key, "http.tls_key", "a private key without a passphrase"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| io::Error::other(format!("http.tls_cert and http.tls_key do not go together: {error}")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Certificate {
    /// # Errors
    /// One sentence: a file cannot be read, or is not what it should be.
    pub(super) fn read(files: &ServerCertificate) -> io::Result<Self> {
        let pem = Pem::read(files)?;
        let config = Arc::new(pem.config(files)?);
        let current = Current { config, digest: pem.digest(), read_at: Instant::now(), trouble: None };
        Ok(Self { files: files.clone(), current: Mutex::new(current) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a connection is served now. Files that cannot be used leave what was known.
    pub(super) async fn config(&self) -> Arc<ServerConfig> {
        let known = {
            let mut current = self.lock();
            if current.read_at.elapsed() < READ_AGAIN {
                return Arc::clone(&current.config);
            }
            current.read_at = Instant::now(); // others need not read them meanwhile
            current.digest
        };
        let files = self.files.clone();
        let again = move || {
            let pem = Pem::read(&files)?;
            let digest = pem.digest();
            let config = if digest == known { None } else { Some(pem.config(&files)?) };
            Ok::<_, io::Error>(config.map(|config| (Arc::new(config), digest)))
        };
        let read = tokio::task::spawn_blocking(again).await.map_err(io::Error::other).and_then(|read| read);
        let mut current = self.lock();
        match read {
            Ok(changed) => {
                if let Some((config, digest)) = changed {
                    tracing::info!("the certificate of http.tls_cert has changed");
                    current.config = config;
                    current.digest = digest;
                }
                current.trouble = None;
            }
            Err(error) => {
                let trouble = Some(error.to_string());
                if current.trouble != trouble {
                    tracing::warn!(%error, "the certificate that was known goes on");
                    current.trouble = trouble;
                }
            }
        }
        Arc::clone(&current.config)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    fn pair() -> CertifiedKey<KeyPair> {
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
    }

    fn files(folder: &TempDir) -> ServerCertificate {
        ServerCertificate { chain: folder.path().join("cert.pem"), key: folder.path().join("key.pem") }
    }

    fn write(files: &ServerCertificate, cert: &str, key: &str) {
        std::fs::write(&files.chain, cert).unwrap();
        std::fs::write(&files.key, key).unwrap();
    }

    #[test]
    fn mistakes_are_told_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let (files, pair, other) = (files(&folder), pair(), pair());
        let check = |expected: &str| {
            let error = Certificate::read(&files).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("http.tls_cert (");
        write(&files, "x", &pair.signing_key.serialize_pem());
        check("expected a certificate in PEM, found none");
        write(&files, &pair.cert.pem(), "hunter2");
        check("expected a private key without a passphrase in PEM, found none");
        write(&files, &pair.cert.pem(), &other.signing_key.serialize_pem());
        check("http.tls_cert and http.tls_key do not go together");
        write(&files, &pair.cert.pem(), &pair.signing_key.serialize_pem());
        assert!(Certificate::read(&files).is_ok());
    }

    #[tokio::test]
    async fn changed_files_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (files, pair, other) = (files(&folder), pair(), pair());
        write(&files, &pair.cert.pem(), &pair.signing_key.serialize_pem());
        let certificate = Certificate::read(&files).unwrap();
        let first = certificate.config().await;
        let later = async || {
            tokio::time::pause();
            tokio::time::advance(READ_AGAIN).await;
            tokio::time::resume();
            certificate.config().await
        };
        assert!(Arc::ptr_eq(&first, &later().await), "nothing has changed");
        std::fs::write(&files.chain, other.cert.pem()).unwrap();
        assert!(Arc::ptr_eq(&first, &later().await), "half of a change leaves what was known");
        std::fs::write(&files.key, other.signing_key.serialize_pem()).unwrap();
        let second = later().await;
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::remove_file(&files.chain).unwrap();
        assert!(Arc::ptr_eq(&second, &later().await));
    }
}
