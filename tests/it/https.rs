//! TLS on `http.bind`: with certificates that change, and for the commands that speak to the process that owns the file.

use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use reqwest::{Certificate, Client};
use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::pipeline::hook;
use crate::publishing::event;
use crate::servers::client;
use crate::sink::{Answer, Sink};

/// The name that the certificates are for; nobody resolves it.
const NAME: &str = "hooks.test";

fn write(site: &Site) -> CertifiedKey<KeyPair> {
    let pair = generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let file = |name: &str| site.folder.path().join(name);
    std::fs::write(file("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::write(file("cert.pem"), pair.cert.pem()).unwrap();
    pair
}

fn secured(sink: &Sink) -> (Site, CertifiedKey<KeyPair>) {
    let site = Site::embedded().hooks(&hook(sink, "h", "a.*", ""));
    let pair = write(&site);
    let file = |name: &str| site.folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    (site.set("HOOKFLEET_HTTP_TLS_CERT", &cert).set("HOOKFLEET_HTTP_TLS_KEY", &key), pair)
}

/// A client from elsewhere, which trusts this certificate and goes by its name.
fn of(pair: &CertifiedKey<KeyPair>, worker: &Worker) -> Client {
    let _ = client(); // installs what TLS is made of
    let trusted = Certificate::from_pem(pair.cert.pem().as_bytes()).unwrap();
    let builder = Client::builder().tls_certs_only([trusted]).resolve(NAME, ([127, 0, 0, 1], worker.port).into());
    builder.pool_max_idle_per_host(0).build().unwrap()
}

async fn is_healthy(client: &Client, worker: &Worker) -> bool {
    let answer = client.get(format!("https://{NAME}:{}/healthz", worker.port));
    // On loopback the name of the host has to be one of this machine.
    answer.header("host", "localhost").send().await.is_ok_and(|answer| answer.status() == 200)
}

async fn until_healthy(client: &Client, worker: &Worker) {
    let began = Instant::now();
    while !is_healthy(client, worker).await {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", worker.log());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn http_is_served_over_tls() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let (site, first) = secured(&sink);
    let mut worker = site.spawn(&[]);
    let here = of(&first, &worker);
    until_healthy(&here, &worker).await;
    assert!(client().get(worker.url("/healthz")).send().await.is_err(), "nothing is answered without TLS");
    let url = format!("https://{NAME}:{}/v1/events", worker.port);
    let sent = here.post(url).header("host", "localhost").header("content-type", "application/cloudevents+json");
    assert_eq!(sent.body(event("a.b", "by-http")).send().await.unwrap().status(), 202);

    // Commands reach the process that owns the file, whatever name its certificate is for.
    site.ok(&["publish", "--type", "a.b", "--id", "by-command"]);
    let letters = crate::pipeline::until_letters(&site, 2, "open").await;
    let id = letters[0].pointer("/letter/id").unwrap().as_str().unwrap();
    site.ok(&["dead-letters", "resolve", id, "--reason", "seen to"]);
    let without = site.clone().set("HOOKFLEET_HTTP_TLS_CERT", "").set("HOOKFLEET_HTTP_TLS_KEY", "");
    let refused = without.run(&["dead-letters", "list"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("set http.tls_cert and http.tls_key"), "{said}");

    // The next certificate counts within a second, for new connections.
    let second = write(&site);
    until_healthy(&of(&second, &worker), &worker).await;
    assert!(!is_healthy(&here, &worker).await, "who trusts the first one only is not fooled");
    assert!(site.ok(&["dead-letters", "list", "--state", "open"]).contains("rejected"));
    // Half written, or gone: what was known goes on.
    std::fs::write(site.folder.path().join("cert.pem"), "-----BEGIN").unwrap();
    sleep(Duration::from_millis(1200)).await;
    until_healthy(&of(&second, &worker), &worker).await;
    until_healthy(&of(&second, &worker), &worker).await;
    assert!(worker.log().contains("the certificate that was known goes on"), "{}", worker.log());
    assert_eq!(worker.stop().await, Some(0));
}

/// A client that connects and says nothing keeps no other waiting.
#[tokio::test]
async fn slow_handshakes_keep_nobody_waiting() {
    let sink = Sink::start().await;
    let (site, pair) = secured(&sink);
    let worker = site.spawn(&[]);
    let here = of(&pair, &worker);
    until_healthy(&here, &worker).await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", worker.port)).await.unwrap());
    }
    let began = Instant::now();
    assert!(is_healthy(&here, &worker).await);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn mistakes_with_certificates_end_the_start() {
    let sink = Sink::start().await;
    let (site, _) = secured(&sink);
    let fails = async |site: &Site, expected: &str| {
        let mut worker = site.spawn(&[]);
        assert!(matches!(worker.ended(Duration::from_secs(30)).await, Some(1 | 64)), "{}", worker.log());
        assert!(worker.log().contains(expected), "{}", worker.log());
    };
    let nowhere = site.folder.path().join("nowhere.pem");
    fails(&site.clone().set("HOOKFLEET_HTTP_TLS_CERT", nowhere.to_str().unwrap()), "http.tls_cert (").await;
    fails(&site.clone().set("HOOKFLEET_HTTP_TLS_KEY", ""), "expected `http.tls_key` to be set too").await;
    let other = generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    std::fs::write(site.folder.path().join("key.pem"), other.signing_key.serialize_pem()).unwrap();
    fails(&site, "http.tls_cert and http.tls_key do not go together").await;
}
