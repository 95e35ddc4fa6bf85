//! Targets with certificates of every kind.

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::domain::hook::{Action, Hook, HttpAction};
use crate::executor::fixture::{executors, hook, invocation, line};
use crate::executor::{Execute as _, install_crypto};

mod http2;
mod proxied;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key in PEM, of somebody of this name.
fn issued(by: &Authority, name: &str, until: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

/// A server on this machine.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers every request with 204.
    async fn start(identity: &(String, String), clients: Option<&Authority>) -> Self {
        Self::serving(config(identity, clients), |mut stream| async move {
            let mut chunk = [0; 4096];
            while stream.read(&mut chunk).await.ok()? > 0 {
                if chunk.contains(&b'}') {
                    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
                }
            }
            Some(())
        })
        .await
    }

    /// Does `serve` with every connection.
    async fn serving<F>(config: ServerConfig, serve: impl Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let (acceptor, serve) = (TlsAcceptor::from(Arc::new(config)), Arc::new(serve));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, count, serve) = (acceptor.clone(), Arc::clone(&count), Arc::clone(&serve));
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.ok()?;
                    count.fetch_add(1, Ordering::SeqCst);
                    serve(stream).await
                });
            }
        });
        Self { port, connections }
    }

    fn hook(&self, tls: Tls) -> Hook {
        let url = format!("https://127.0.0.1:{}/", self.port).parse().unwrap();
        hook(Action::Http(HttpAction { tls, ..HttpAction::plain(url, &[]) }), 5_000)
    }
}

fn config((cert, key): &(String, String), clients: Option<&Authority>) -> ServerConfig {
    install_crypto();
    let builder = ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
}

fn own(ca: Option<&Authority>, identity: Option<&(String, String)>) -> Tls {
    let identity = identity.map(|(cert, key)| crate::domain::tls::Identity { cert, key });
    Tls::Own(Arc::new(Credentials::new(ca.map(Authority::pem).as_deref(), identity.as_ref()).unwrap()))
}

#[tokio::test]
async fn who_is_trusted() {
    let (authority, stranger) = (authority(), authority());
    let (good, wrong_name) = (issued(&authority, "127.0.0.1", 2100), issued(&authority, "b.example", 2100));
    let expired = issued(&authority, "127.0.0.1", 2021);
    let check = async |cert: &(String, String), tls: Tls, expected: &str| {
        let server = Server::start(cert, None).await;
        let found = line(&executors().run(&server.hook(tls), &invocation("{}")).await);
        assert!(found.starts_with(expected), "{found}, not {expected}");
    };
    check(&good, own(Some(&authority), None), "done").await;
    check(&good, Tls::Usual, "later: tls: invalid peer certificate: UnknownIssuer").await;
    check(&good, own(Some(&stranger), None), "later: tls: invalid peer certificate").await;
    check(&wrong_name, own(Some(&authority), None), "later: tls: invalid peer certificate: certificate not valid for")
        .await;
    check(&expired, own(Some(&authority), None), "later: tls: invalid peer certificate: certificate expired").await;
    let unknown = "never Invalid: the certificates of the hook's `tls` are not known to this process";
    check(&good, Tls::Unknown(Box::default()), unknown).await;
}

#[tokio::test]
async fn a_target_that_wants_to_know_who_calls() {
    let (authority, stranger) = (authority(), authority());
    let server = Server::start(&issued(&authority, "127.0.0.1", 2100), Some(&authority)).await;
    let executors = executors();
    let run = async |tls: Tls| line(&executors.run(&server.hook(tls), &invocation("{}")).await);
    let (known, unknown) = (issued(&authority, "us", 2100), issued(&stranger, "us", 2100));
    for _ in 0..3 {
        // Read anew, as by every revision.
        assert_eq!(run(own(Some(&authority), Some(&known))).await, "done");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the same certificates, the same connection");
    for tls in [own(Some(&authority), None), own(Some(&authority), Some(&unknown))] {
        let found = run(tls).await;
        assert!(found.starts_with("later: tls: received fatal alert: "), "{found}");
    }
}

#[test]
fn a_system_without_certificates_is_no_obstacle() {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
    assert!(roots.len() > 50);
    tls(verifier(roots).unwrap(), None).unwrap();
}
