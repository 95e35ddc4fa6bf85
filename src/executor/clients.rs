//! The HTTP clients of a process: one for all hooks, and one for each set of certificates that hooks bring with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::Verifier;
use tokio::time::Instant;

use super::egress::Guard;
use crate::config;
use crate::domain::tls::{Credentials, Tls};
use crate::error_chain::root;
use connection::Connector;
pub(super) use connection::{CONNECT_TIMEOUT, NoConnection};
pub(super) use proxy::NotLed;
use proxy::Proxy;
pub(super) use sending::{Client, Outbound};

mod connection;
mod proxy;
mod sending;

/// A client of certificates that no hook has used for this long belongs to a revision that is gone.
const UNUSED_AFTER: Duration = Duration::from_mins(10);

/// The guarded HTTP clients of a process, which its executors share.
#[derive(Debug)]
pub(super) struct Clients {
    usual: Client,
    own: Mutex<HashMap<[u8; 32], Own>>,
    /// In place of the roots of trust of a system that has none.
    roots: Vec<CertificateDer<'static>>,
    pub(super) guard: Guard,
    proxy: Option<Arc<Proxy>>,
}

#[derive(Debug)]
struct Own {
    client: Client,
    used: Instant,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("its certificates cannot be read")]
    Pem(#[from] PemError),
    #[error("its certificates cannot be used")]
    Tls(#[from] rustls::Error),
}

impl Clients {
    pub(super) fn new(egress: &config::Egress) -> Result<Self, rustls::Error> {
        Self::guarded(Guard::new(egress), Proxy::of(egress))
    }

    /// With this guard in place of one of the settings.
    pub(super) fn guarded(guard: Guard, proxy: Option<Arc<Proxy>>) -> Result<Self, rustls::Error> {
        super::install_crypto();
        let mut roots = Vec::new();
        let verifier = verifier(Vec::new()).or_else(|error| {
            // Slim container images hold no certificates.
            tracing::warn!(error = %root(&error), "no roots of trust on this system, taking Mozilla's");
            roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
            self::verifier(roots.clone())
        })?;
        let usual = client(&guard, proxy.as_ref(), tls(verifier, None)?);
        Ok(Self { usual, own: Mutex::default(), roots, guard, proxy })
    }

    /// The client of a hook.
    ///
    /// # Errors
    /// There is none; shows nothing of its certificates.
    pub(super) fn of(&self, tls: &Tls) -> Result<Client, String> {
        match tls {
            Tls::Usual => Ok(self.usual.clone()),
            Tls::Unknown(_) => Err("the certificates of the hook's `tls` are not known to this process".to_owned()),
            Tls::Own(credentials) => {
                self.own(credentials).map_err(|error| format!("the hook's `tls`: {}", root(&error)))
            }
        }
    }

    fn own(&self, credentials: &Arc<Credentials>) -> Result<Client, Unusable> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(found) = own.get_mut(&credentials.id) {
            found.used = now;
            return Ok(found.client.clone());
        }
        let mut roots = self.roots.clone();
        if let Some(ca) = &credentials.ca {
            roots.extend(certificates(ca.expose())?);
        }
        let identity = match &credentials.identity {
            Some(identity) => {
                let pem = identity.expose();
                Some((certificates(pem)?, PrivateKeyDer::from_pem_slice(pem.as_bytes())?))
            }
            None => None,
        };
        let client = client(&self.guard, self.proxy.as_ref(), tls(verifier(roots)?, identity)?);
        own.retain(|_, other| now - other.used < UNUSED_AFTER);
        own.insert(credentials.id, Own { client: client.clone(), used: now });
        Ok(client)
    }
}

fn client(guard: &Guard, proxy: Option<&Arc<Proxy>>, tls: ClientConfig) -> Client {
    Client::new(&Connector::new(guard, proxy, Arc::new(tls)))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

/// Trusts what the system trusts, and these.
fn verifier(roots: Vec<CertificateDer<'static>>) -> Result<Verifier, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    if roots.is_empty() { Verifier::new(provider) } else { Verifier::new_with_extra_roots(roots, provider) }
}

/// A certificate that shows who calls, and its key.
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn tls(verifier: Verifier, shown: Option<Shown>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous() // so rustls calls every verifier that is not its own
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        Some((certificates, key)) => builder.with_client_auth_cert(certificates, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
