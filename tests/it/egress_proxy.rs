//! `egress.proxy`: http hooks through a proxy, and the variables of the environment that are not used. cases-2 8.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::fleet::Site;
use crate::pipeline::{hook, until_letters};
use crate::publishing::{Publisher, event};
use crate::sink::Sink;

/// An HTTP proxy that keeps the heads of what it is asked.
struct HttpProxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl HttpProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(lead(client, Arc::clone(&kept)));
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Leads one connection to the target that its first request names.
async fn lead(mut client: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut begun = Vec::new();
    let end = loop {
        let mut piece = [0; 4096];
        let read = client.read(&mut piece).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        begun.extend_from_slice(&piece[..read]);
        if let Some(at) = begun.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
    };
    let head = String::from_utf8_lossy(&begun[..end]).into_owned();
    heads.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap();
    let is_tunnel = head.starts_with("CONNECT ");
    let authority = target.trim_start_matches("http://").split('/').next().unwrap();
    let Ok(mut server) = TcpStream::connect(authority).await else { return };
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    } else {
        server.write_all(&begun).await.unwrap();
    }
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

async fn run(site: &Site, kind: &str) -> crate::fleet::Worker {
    let worker = site.worker().await;
    Publisher::http(worker.port).send(event(kind, "1")).await;
    worker
}

#[tokio::test]
async fn hooks_go_through_the_proxy_and_exceptions_do_not() {
    let (proxy, sink) = (HttpProxy::start().await, Sink::start().await);
    let url = format!("http://me:s3cret@127.0.0.1:{}", proxy.port);
    let site = Site::embedded().hooks(&hook(&sink, "h", "a", "")).set("HOOKFLEET_EGRESS_PROXY", &url);
    let mut worker = run(&site, "a").await;
    sink.until("the call", Duration::from_secs(30), |calls| calls.len() == 1).await;
    let heads = proxy.heads();
    let expected = format!("POST {} HTTP/1.1", sink.url("h"));
    assert!(heads[0].starts_with(&expected), "{heads:?}");
    assert!(heads[0].to_ascii_lowercase().contains("proxy-authorization: basic bwu6cznjcmv0"), "{heads:?}");
    assert_eq!(worker.stop().await, Some(0));
    assert!(!worker.log().contains("s3cret") && !site.ok(&["settings"]).contains("s3cret"));

    let site = Site::embedded().hooks(&hook(&sink, "h", "a", "")).set("HOOKFLEET_EGRESS_PROXY", &url);
    let mut worker = run(&site.set("HOOKFLEET_EGRESS_NO_PROXY", "127.0.0.0/8"), "a").await;
    sink.until("the direct call", Duration::from_secs(30), |calls| calls.len() == 2).await;
    assert_eq!(proxy.heads().len(), heads.len(), "nobody asked the proxy");
    assert_eq!(worker.stop().await, Some(0));
}

/// https goes by CONNECT, the login is for the proxy alone, and what may not be called is asked of no proxy.
#[tokio::test]
async fn https_is_tunnelled_and_addresses_are_checked_before() {
    let (proxy, sink) = (HttpProxy::start().await, Sink::start().await);
    let secure = sink.url("h").replace("http://", "https://");
    let hooks = format!(
        "  - {{ id: secure, on: a, retry: {{ attempts: 1 }}, run: {{ http: {{ url: \"{secure}\" }} }} }}\n\
         \x20 - {{ id: private, on: b, run: {{ http: {{ url: \"http://10.255.255.1/x\" }} }} }}"
    );
    let url = format!("http://me:s3cret@127.0.0.1:{}", proxy.port);
    let site = Site::embedded().hooks(&hooks).set("HOOKFLEET_EGRESS_PROXY", &url);
    let mut worker = run(&site, "a").await;
    Publisher::http(worker.port).send(event("b", "2")).await;
    let letters = until_letters(&site, 2, "open").await;
    let classes: Vec<&str> = letters.iter().map(|it| it.pointer("/letter/class").unwrap().as_str().unwrap()).collect();
    assert!(classes.contains(&"target_blocked"), "{letters:#?}");
    let heads = proxy.heads();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT 127.0.0.1:")), "{heads:?}");
    assert!(heads[0].to_ascii_lowercase().contains("proxy-authorization: basic"), "{heads:?}");
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn the_environment_is_not_used_and_that_is_said() {
    let (proxy, sink) = (HttpProxy::start().await, Sink::start().await);
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let site = Site::embedded().hooks(&hook(&sink, "h", "a", ""));
    let site = site.set("HTTPS_PROXY", &url).set("http_proxy", &url);
    let mut worker = run(&site, "a").await;
    sink.until("the call", Duration::from_secs(30), |calls| calls.len() == 1).await;
    assert!(proxy.heads().is_empty());
    assert_eq!(worker.stop().await, Some(0));
    let log = worker.log();
    assert_eq!(log.matches("the proxy of the environment (HTTPS_PROXY, http_proxy) is not used").count(), 1, "{log}");
}
