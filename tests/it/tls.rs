//! AMQP over TLS: certificates of a test's own authority, and one clear sentence for each way in which it fails.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use tempfile::TempDir;

use crate::fleet::Site;
use crate::pipeline::{hook, until_letters};
use crate::servers::{Make, Rabbit, free_port, shared};
use crate::sink::Sink;

/// The name in the broker's certificate; nobody resolves it.
const NAME: &str = "mq.test";

/// An authority that signs certificates into a folder.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    pub(crate) fn sign(&self, folder: &Path, file: &str, names: &[&str], expired: bool) {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, file);
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join(format!("{file}.pem")), params.signed_by(&key, &self.0).unwrap().pem()).unwrap();
        fs::write(folder.join(format!("{file}-key.pem")), key.serialize_pem()).unwrap();
    }
}

/// A folder with certificates, and a broker that asks its clients for one.
struct Secured {
    folder: TempDir,
    rabbit: Rabbit,
    port: u16,
}

impl Secured {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "ca");
        Authority::new(folder.path(), "other");
        authority.sign(folder.path(), "server", &[NAME, "localhost"], false);
        authority.sign(folder.path(), "client", &["worker"], false);
        authority.sign(folder.path(), "old", &["127.0.0.1"], true);
        fs::write(folder.path().join("password"), "guest\n").unwrap();
        let (port, at) = (free_port(), |file: &str| folder.path().join(file).display().to_string());
        let config = format!(
            "listeners.ssl.default = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
             auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n",
            at("ca.pem"),
            at("server.pem"),
            at("server-key.pem"),
        );
        let plugins = &["rabbitmq_auth_mechanism_ssl"];
        let rabbit = Rabbit::make(Make { cluster: false, plugins, config, ..Make::of_environment() }).await;
        Self { folder, rabbit, port }
    }

    fn at(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// Everything right.
    async fn site(&self) -> Site {
        Site::servers(&self.rabbit, &shared().await.1)
            .hooks("")
            .set("HOOKFLEET_BROKER_URL", &format!("amqps://guest@127.0.0.1:{}", self.port))
            .set("HOOKFLEET_BROKER_PASSWORD_FILE", &self.at("password"))
            .set("HOOKFLEET_BROKER_TLS_CA", &self.at("ca.pem"))
            .set("HOOKFLEET_BROKER_TLS_CERT", &self.at("client.pem"))
            .set("HOOKFLEET_BROKER_TLS_KEY", &self.at("client-key.pem"))
            .set("HOOKFLEET_BROKER_TLS_NAME", NAME)
    }
}

#[tokio::test]
async fn a_fleet_runs_over_tls() {
    let secured = Secured::start().await;
    let sink = Sink::start().await;
    let site = secured.site().await.hooks(&hook(&sink, "h", "a", ""));
    let mut worker = site.worker().await;
    site.ok(&["publish", "--type", "a", "--id", "1"]);
    sink.until("the event", Duration::from_secs(10), |calls| calls.len() == 1).await;

    // The password changes while the worker runs: it is read again when the connections are.
    secured.rabbit.ctl(&["change_password", "guest", "new"]);
    fs::write(secured.at("password"), "new").unwrap();
    secured.rabbit.ctl(&["close_all_connections", "a test cuts them"]);
    site.ok(&["publish", "--type", "a", "--id", "2"]);
    sink.until("the event after", Duration::from_secs(20), |calls| calls.len() == 2).await;
    assert_eq!(worker.stop().await, Some(0));

    // The certificate is the login: its common name is the user.
    secured.rabbit.ctl(&["add_user", "client", "unused"]);
    let by_certificate = site
        .set("HOOKFLEET_BROKER_URL", &format!("amqps://127.0.0.1:{}?auth_mechanism=external", secured.port))
        .set("HOOKFLEET_BROKER_PASSWORD_FILE", "");
    mistake(&by_certificate, "no permissions yet", "may not use it");
    secured.rabbit.ctl(&["set_permissions", "client", ".*", ".*", ".*"]);
    by_certificate.ok(&["publish", "--type", "a", "--id", "3"]);
}

/// A hook brings its own authority and certificate to another broker.
#[tokio::test]
async fn hooks_publish_over_tls() {
    let secured = Secured::start().await;
    let publish = |id: &str, ca: &str| {
        let tls = format!(
            "ca: '${{file:{}}}', cert: '${{file:{}}}', key: '${{file:{}}}'",
            secured.at(ca),
            secured.at("client.pem"),
            secured.at("client-key.pem")
        );
        let publish =
            format!("url: 'amqps://guest:guest@localhost:{}', exchange: amq.topic, mandatory: false", secured.port);
        format!(
            "  - {{ id: {id}, on: a, run: {{ publish: {{ {publish}, tls: {{ {tls} }} }} }}, retry: {{ attempts: 1 }} }}"
        )
    };
    let hooks = [publish("good", "ca.pem"), publish("bad", "other.pem")].join("\n");
    let site = Site::embedded().hooks(&hooks).set("HOOKFLEET_EGRESS_ALLOW", "127.0.0.0/8,::1");
    let mut worker = site.worker().await;
    site.ok(&["publish", "--type", "a", "--id", "1"]);
    let letters = until_letters(&site, 1, "open").await;
    let error = letters[0].pointer("/letter/error").and_then(serde_json::Value::as_str).unwrap();
    assert!(error.starts_with("no TLS with the broker at amqps://localhost:"), "{error}");
    worker.until_metric("hookfleet_attempts_total", "outcome=\"done\"", 1.0).await;
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn mistakes_with_certificates_are_answered_clearly() {
    let secured = Secured::start().await;
    let (site, at) = (secured.site().await, |file: &str| secured.at(file));
    fs::write(at("wrong-password"), "hunter2").unwrap();
    let url = |port: u16| format!("amqps://guest@127.0.0.1:{port}");
    for (name, value, expected) in [
        ("HOOKFLEET_BROKER_TLS_CA", at("other.pem"), "is signed by nobody we trust: check broker.tls_ca"),
        ("HOOKFLEET_BROKER_TLS_CA", at("client-key.pem"), "holds no certificate: check broker.tls_ca"),
        ("HOOKFLEET_BROKER_TLS_CA", at("nowhere.pem"), "check broker.tls_ca"),
        ("HOOKFLEET_BROKER_TLS_NAME", String::new(), "is not for the name \"127.0.0.1\": check the host in broker.url"),
        ("HOOKFLEET_BROKER_TLS_CERT", at("server.pem"), "do not go together"),
        ("HOOKFLEET_BROKER_PASSWORD_FILE", at("nowhere"), "check broker.password_file"),
        (
            "HOOKFLEET_BROKER_PASSWORD_FILE",
            at("wrong-password"),
            "refused user \"guest\": check the user in broker.url and",
        ),
        ("HOOKFLEET_BROKER_URL", url(secured.rabbit.port), "does not speak TLS"),
    ] {
        mistake(&site.clone().set(name, &value), name, expected);
    }
    let nobody = site.clone().set("HOOKFLEET_BROKER_TLS_CERT", "").set("HOOKFLEET_BROKER_TLS_KEY", "");
    mistake(&nobody, "no client certificate", "refused our side of TLS");
    let expired = url(serve_expired(secured.folder.path()));
    let old = site.clone().set("HOOKFLEET_BROKER_URL", &expired).set("HOOKFLEET_BROKER_TLS_NAME", "");
    mistake(&old, "expired", "has expired: renew it");
}

/// The command ends at once, with a sentence that has this in it.
fn mistake(site: &Site, what: &str, expected: &str) {
    let began = std::time::Instant::now();
    let output = site.run(&["worker", "--http-bind", "127.0.0.1:0"]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    assert!(said.contains(expected) && !said.contains("hunter2"), "{what}: {said}");
    assert!(began.elapsed() < Duration::from_secs(10), "{what}: took {:?}", began.elapsed());
}

/// A server whose certificate has expired; answers its port. Its thread ends with the test's process.
fn serve_expired(folder: &Path) -> u16 {
    let chain = vec![CertificateDer::from_pem_file(folder.join("old.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("old-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut connection) = (stream.unwrap(), ServerConnection::new(Arc::clone(&config)).unwrap());
            let mut tls = Stream::new(&mut connection, &mut stream);
            let _ = tls.flush();
            let _ = tls.read(&mut [0; 8]); // until the client has seen the certificate
        }
    });
    port
}
