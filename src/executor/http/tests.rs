use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::read::GzDecoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::super::fixture::{executors, hook, invocation, line};
use super::super::{Callbacks, Execute as _, Executors};
use super::*;
use crate::config;
use crate::domain::decision::{Merge, Verdict};
use crate::domain::hook::{Action, Hook};
use crate::domain::id::HookId;
use crate::domain::invocation::Invocation;
use crate::domain::signature::{Algorithm, Encoding, PlainKey, Signing, StandardKey};
use crate::domain::template::{Form, Piece, Text};

mod connections;

fn payload(hook: &Hook, invocation: &Invocation) -> Bytes {
    crate::dialect::encode(hook, invocation, &invocation.idempotency_key(), None).unwrap().body
}

/// A server on this machine that does `serve` with every connection; `/hook/T0` and a secret are its target.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { port, connections }
    }

    /// Answers every request on a connection with these bytes.
    async fn replying(reply: impl Into<String>) -> Self {
        let reply: Arc<str> = reply.into().into();
        Self::start(move |mut stream| {
            let reply = Arc::clone(&reply);
            async move {
                loop {
                    request(&mut stream).await?;
                    stream.write_all(reply.as_bytes()).await.ok()?;
                }
            }
        })
        .await
    }

    /// Takes every request, and hands it on.
    async fn taking() -> (Self, UnboundedReceiver<String>) {
        let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
        let server = Self::start(move |mut stream| {
            let sender = sender.clone();
            async move {
                loop {
                    sender.send(request(&mut stream).await?).ok()?;
                    stream.write_all(reply("204 No Content", "", "").as_bytes()).await.ok()?;
                }
            }
        });
        (server.await, requests)
    }

    fn hook(&self, timeout_ms: u64) -> Hook {
        target(&format!("http://127.0.0.1:{}/hook/T0/pathsecret?key=querysecret", self.port), timeout_ms)
    }

    async fn outcome(&self) -> String {
        line(&executors().run(&self.hook(5_000), &invocation("{}")).await)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn target(url: &str, timeout_ms: u64) -> Hook {
    let headers = [("authorization", "Bearer headersecret"), ("x-a", "1"), ("x-a", "2")];
    hook(Action::Http(HttpAction::plain(url.parse().unwrap(), &headers)), timeout_ms)
}

/// One request, head and body; `None` when the connection is closed.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let (head, body) = bytes(stream).await?;
    Some(head + &String::from_utf8_lossy(&body))
}

async fn bytes(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut whole = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        whole.extend_from_slice(&chunk[..read]);
        let Some(end) = whole.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&whole[..end + 4]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if whole.len() - head.len() >= length.parse().unwrap() {
            return Some((head, whole.split_off(end + 4)));
        }
    }
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

#[tokio::test]
async fn what_the_target_gets() {
    let (server, mut requests) = Server::taking().await;
    let (executors, invocation, mut hook) = (executors(), invocation("{}"), server.hook(5_000));
    assert_eq!(executors.run(&hook, &invocation).await, Outcome::Done);
    let text = requests.recv().await.unwrap();
    let key = format!("idempotency-key: {}\r\n", invocation.idempotency_key());
    for expected in [
        "POST /hook/T0/pathsecret?key=querysecret HTTP/1.1\r\n",
        "content-type: application/json\r\n",
        concat!("user-agent: hookfleet/", env!("CARGO_PKG_VERSION"), "\r\n"),
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "hookfleet-attempt: 1\r\n",
        "authorization: Bearer headersecret\r\nx-a: 1\r\nx-a: 2\r\n",
        &key,
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for unexpected in ["cookie", "accept-encoding", "referer"] {
        assert!(!text.contains(unexpected), "{unexpected} in {text}");
    }
    assert!(text.ends_with(std::str::from_utf8(&payload(&hook, &invocation)).unwrap()));

    let Action::Http(action) = &mut hook.action else { unreachable!() };
    for (name, value) in [("content-type", "a/b"), ("user-agent", "mine"), ("idempotency-key", "forged")] {
        action.headers.push((name.to_owned(), Text::plain(value)));
    }
    assert_eq!(executors.run(&hook, &invocation).await, Outcome::Done);
    let text = requests.recv().await.unwrap();
    assert!(text.contains("content-type: a/b\r\n") && text.contains("user-agent: mine\r\n"), "{text}");
    assert!(text.contains(&key) && !text.contains("forged"), "{text}");
    assert_eq!(text.matches("content-type").count(), 1, "{text}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn methods_and_signatures() {
    let (server, mut requests) = Server::taking().await;
    let (executors, mut invocation, mut hook) = (executors(), invocation("{}"), server.hook(5_000));
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let plain = PlainKey::new("x-sig".into(), "sha256=".into(), Encoding::Hex, Algorithm::Sha256, "key").unwrap();
    let signing = Box::new(Signing { standard: vec![StandardKey::new(secret).unwrap()], plain: Some(plain) });
    let mut ids = Vec::new();
    for (method, attempt) in [(Method::Put, 1), (Method::Patch, 2), (Method::Delete, 3), (Method::Get, 4)] {
        let Action::Http(action) = &mut hook.action else { unreachable!() };
        (action.method, action.signing) = (method, signing.clone());
        invocation.at.attempt = attempt;
        assert_eq!(executors.run(&hook, &invocation).await, Outcome::Done);
        let text = requests.recv().await.unwrap();
        assert!(text.starts_with(&format!("{} /hook/T0/", method.name())), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.is_empty(), method == Method::Get, "{text}");
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no {name} in {head}")).1.to_owned()
        };
        let at: u64 = header("webhook-timestamp").parse().unwrap();
        assert!(now_ms() / 1000 - at < 60, "{at}");
        for (name, value) in signing.sign(&invocation.idempotency_key(), at, body.as_bytes()).unwrap() {
            assert_eq!(header(name), value);
        }
        ids.push(header("webhook-id"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "the same for every attempt");

    let Action::Http(action) = &mut hook.action else { unreachable!() };
    action.signing.standard.push(StandardKey::unknown("${env:KEY}".into()));
    let outcome = line(&executors.run(&hook, &invocation).await);
    assert_eq!(outcome, "never Invalid: a signing key of the hook is not known to this process");
}

#[tokio::test]
async fn large_bodies_are_compressed_when_asked() {
    let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let sender = sender.clone();
        async move {
            let (head, body) = bytes(&mut stream).await?;
            stream.write_all(reply("204 No Content", "connection: close\r\n", "").as_bytes()).await.ok()?;
            sender.send((head, body)).ok()
        }
    })
    .await;
    let mut hook = server.hook(5_000);
    let Action::Http(action) = &mut hook.action else { unreachable!() };
    action.compression = Compression::Gzip;
    let plain = PlainKey::new("x-sig".into(), String::new(), Encoding::Hex, Algorithm::Sha256, "key").unwrap();
    *action.signing = Signing { standard: vec![], plain: Some(plain) };
    let signing = action.signing.clone();
    for (length, is_compressed) in [(10, false), (2_000, true), (200_000, true)] {
        let invocation = invocation(&format!("\"{}\"", "x".repeat(length)));
        assert_eq!(executors().run(&hook, &invocation).await, Outcome::Done);
        let (head, mut body) = bodies.recv().await.unwrap();
        assert_eq!(head.contains("content-encoding: gzip\r\n"), is_compressed, "{head}");
        if is_compressed {
            let mut whole = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut whole).unwrap();
            assert!(body.len() < whole.len() / 4);
            body = whole;
        }
        assert_eq!(body, payload(&hook, &invocation));
        let signatures = signing.sign(&invocation.idempotency_key(), 0, &body).unwrap();
        assert!(signatures.iter().all(|(name, value)| head.contains(&format!("{name}: {value}\r\n"))), "{head}");
    }
}

#[tokio::test]
async fn headers_that_cannot_be_sent() {
    let server = Server::replying(reply("200 OK", "", "")).await;
    for (name, value) in [("x-a", "line\nbreak-secret"), ("x a", "1"), ("content-length", "1"), ("te", "trailers")] {
        let mut hook = server.hook(5_000);
        let Action::Http(action) = &mut hook.action else { unreachable!() };
        action.headers.push((name.to_owned(), Text::plain(value)));
        let found = line(&executors().run(&hook, &invocation("{}")).await);
        assert!(found.starts_with(&format!("never Invalid: the hook's header `{name}` is ")), "{found}");
        assert!(!found.contains("secret"), "{found}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn refusals_are_told_without_secrets() {
    let check =
        async |reply: String, expected: &str| assert_eq!(Server::replying(reply).await.outcome().await, expected);
    check(reply("200 OK", "", "fine"), "done").await;
    check(reply("500 Whatever", "", ""), "later [500]: 500 Internal Server Error").await;
    let body = "no route /hook/T0/pathsecret\r\n(key querysecret, Bearer headersecret, headersecret)";
    let expected = "never Rejected [404]: 404 Not Found: no route [REDACTED] (key [REDACTED], [REDACTED], [REDACTED])";
    check(reply("404 Not Found", "", body), expected).await;
    check(reply("429 Slow", "retry-after: 30\r\n", "slow"), "later 30s [429]: 429 Too Many Requests: slow").await;
    let past = "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    check(reply("503 Away", past, ""), "later 0ns [503]: 503 Service Unavailable").await;
    let expected = format!("later [502]: 502 Bad Gateway: {}…", "x".repeat(200));
    check(reply("502 Bad", "", &"x".repeat(200_000)), &expected).await;
    check("HTTP/1.1 777 Odd\r\ncontent-length: 0\r\n\r\n".into(), "later [777]: 777").await;
    check("HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nabc".into(), "later [503]: 503 Service Unavailable: abc").await;
    check("SMTP/1.1 no\r\n\r\n".into(), "later: transport: invalid HTTP version parsed").await;
}

#[test]
fn what_is_hidden_is_so_wherever_it_was_put() {
    let hidden = |secret: &str| Piece::Hidden(crate::domain::secret::Secret::new(secret.to_owned()));
    let text = |secret: &str| Text::new(vec![Piece::Literal("a=".into()), hidden(secret)], Form::Plain).unwrap();
    let mut action = HttpAction::plain("https://x.example/".parse().unwrap(), &[]);
    action.headers = vec![("x".to_owned(), text("in-a-header"))];
    action.body = Some(text("in-the-body"));
    let invocation = invocation("{}");
    let hook = hook(Action::Http(action.clone()), 1000);
    let request = Request::new(&action, &hook, &invocation, "key").unwrap();
    let secrets = known_secrets(&action, &request);
    for secret in ["in-a-header", "in-the-body"] {
        assert!(secrets.iter().any(|it| it == secret), "{secrets:?}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Server::replying(reply("302 Found", "location: /elsewhere?secret\r\n", "")).await;
    let expected = "never Rejected [302]: 302 Found (redirects are not followed)";
    assert_eq!(server.outcome().await, expected);
    assert_eq!(server.connections(), 1);
}

/// Sends `head`, then a byte at a time, for ever.
async fn dripping(head: &'static str) -> Server {
    Server::start(move |mut stream| async move {
        request(&mut stream).await?;
        stream.write_all(head.as_bytes()).await.ok()?;
        loop {
            stream.write_all(b"x").await.ok()?;
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_good_head_is_done_whatever_its_body_does() {
    let wrong_length = Server::start(|mut stream| async move {
        request(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc").await.ok()
    });
    let bad_chunks = Server::replying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
    let flood = Server::start(|mut stream| async move {
        request(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        while stream.write_all(&[b'x'; 8_192]).await.is_ok() {}
        None
    });
    let drip = dripping("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
    for server in [wrong_length.await, bad_chunks.await, flood.await, drip.await] {
        let start = Instant::now();
        assert_eq!(server.outcome().await, "done");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn answers_of_those_that_decide() {
    let asked = async |server: Server| {
        let asked = executors().ask(&server.hook(1_000), &invocation("{}"), None).await;
        asked.map(|answer| answer.verdict()).map_err(|outcome| line(&outcome))
    };
    let rejected = |error: &str| Err(format!("never Rejected: {error}"));
    for (body, expected) in [
        ("", Ok(Verdict::Allow)),
        (r#"{"decision":"block"}"#, Ok(Verdict::Deny)),
        ("```json\n{\"permission\":\"ask\"}\n```", Ok(Verdict::Ask)),
        ("fine", rejected("expected a JSON object, or nothing, as the answer; found other text")),
        (r#"{"contract_version":2}"#, rejected("unsupported hook outcome contract_version 2")),
        (&"x".repeat(REPLY_BYTES_MAX + 1), rejected("the answer has more than 131072 bytes")),
    ] {
        assert_eq!(asked(Server::replying(reply("200 OK", "", body)).await).await, expected, "{body:.40}");
    }
    let body = r#"{"decision": "block", "stop_reason": "Bearer headersecret\nis known: headersecret"}"#;
    let server = Server::replying(reply("200 OK", "", body)).await;
    let mut merge = Merge::default();
    let answer = executors().ask(&server.hook(1_000), &invocation("{}"), None).await.unwrap();
    merge.add(&HookId::new("h").unwrap(), answer, 1, 1);
    assert_eq!(merge.done().reason.as_deref(), Some("[REDACTED]\nis known: [REDACTED]"));
    let refused = reply("403 Forbidden", "", r#"{"decision":"approve"}"#);
    let failed = asked(Server::replying(refused).await).await.unwrap_err();
    assert!(failed.starts_with("never Rejected [403]: 403 Forbidden"), "a status alone decides nothing: {failed}");
    let slow = asked(dripping("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await).await;
    assert_eq!(slow, Err("later: timed out after 1s".to_owned()));
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{}";
    let cut = asked(Server::replying(cut).await).await.unwrap_err();
    assert!(cut.starts_with("later: "), "{cut}");
}
