//! TLS to the broker: its configuration from files, and one sentence for each way in which it fails.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, ConfigBuilder, RootCertStore};

use crate::config::{ClientCertificate, Tls};

/// The configuration of a client, from files as they are now.
///
/// # Errors
/// One sentence: which file is no good.
pub async fn client_config(files: &Tls) -> Result<ClientConfig, String> {
    let files = files.clone();
    let built = tokio::task::spawn_blocking(move || build(&files)).await;
    built.unwrap_or_else(|error| Err(format!("cannot set up TLS: {error}")))
}

/// The configuration of a client that brings its certificates along, in PEM: authorities beside the usual ones, and its own
/// chain with its key.
///
/// # Errors
/// One sentence, without any of them.
pub async fn client_config_of(ca: Option<String>, identity: Option<String>) -> Result<ClientConfig, String> {
    let built = tokio::task::spawn_blocking(move || build_of(ca.as_deref(), identity.as_deref())).await;
    built.unwrap_or_else(|error| Err(format!("cannot set up TLS: {error}")))
}

fn build_of(ca: Option<&str>, identity: Option<&str>) -> Result<ClientConfig, String> {
    let broken = |error: &dyn std::error::Error| format!("cannot set up TLS: {error}");
    let mut trusted = roots(None)?;
    for certificate in CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
        trusted.add(certificate.map_err(|error| broken(&error))?).map_err(|error| broken(&error))?;
    }
    let builder = builder(trusted)?;
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(identity.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(identity.as_bytes()).map_err(|error| broken(&error))?;
    builder.with_client_auth_cert(chain.map_err(|error| broken(&error))?, key).map_err(|error| broken(&error))
}

fn builder(trusted: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    Ok(builder.with_root_certificates(trusted))
}

fn build(files: &Tls) -> Result<ClientConfig, String> {
    let builder = builder(roots(files.ca.as_deref())?)?;
    let Some(ClientCertificate { chain, key }) = &files.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(chain, "broker.tls_cert")?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, "broker.tls_key", &error))?;
    builder.with_client_auth_cert(chain, private).map_err(|error| {
        format!("broker.tls_cert and broker.tls_key do not go together ({error}): check that both are of one identity")
    })
}

/// Those of the file and no others, or those of the system. Slim container images hold none: then Mozilla's.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if let Some(ca) = ca {
        for certificate in certificates(ca, "broker.tls_ca")? {
            store.add(certificate).map_err(|error| unusable(ca, "broker.tls_ca", &error))?;
        }
        return Ok(store);
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    Ok(store)
}

fn certificates(file: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(file, setting, &error))?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate: check {setting}", file.display()));
    }
    Ok(certificates)
}

fn unusable(file: &Path, setting: &str, error: &dyn std::error::Error) -> String {
    format!("cannot use {} ({error}): check {setting}", file.display())
}

/// What TLS says was wrong, if that is what broke a connection.
#[must_use]
pub fn cause(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner
        .downcast_ref::<rustls::Error>()
        .or_else(|| inner.downcast_ref::<io::Error>().and_then(cause))
        .or_else(|| inner.source()?.downcast_ref())
}

/// What is wrong with the TLS of the broker at `shown`, and what to do. `name` is what its certificate has to be for.
#[must_use]
pub fn sentence(error: &rustls::Error, shown: &str, name: &str) -> String {
    use CertificateError as Bad;
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        rustls::Error::AlertReceived(alert) => {
            return format!(
                "the broker at {shown} refused our side of TLS ({alert:?}): check broker.tls_cert and broker.tls_key"
            );
        }
        rustls::Error::InvalidMessage(_) => {
            return format!("the broker at {shown} does not speak TLS: use its TLS port (5671 as a rule), or amqp://");
        }
        error => return format!("no TLS with the broker at {shown}: {error}"),
    };
    match certificate {
        Bad::UnknownIssuer => format!(
            "the certificate of the broker at {shown} is signed by nobody we trust: check broker.tls_ca, which has to \
             hold the authority that signed it"
        ),
        Bad::Expired | Bad::ExpiredContext { .. } => {
            format!("the certificate of the broker at {shown} has expired: renew it, and check this machine's clock")
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            format!("the certificate of the broker at {shown} is not valid yet: check this machine's clock")
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => format!(
            "the certificate of the broker at {shown} is not for the name \"{name}\": check the host in broker.url, or \
             set broker.tls_name to the name in the certificate"
        ),
        other => format!("the certificate of the broker at {shown} is no good: {other}"),
    }
}
