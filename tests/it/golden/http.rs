//! Requests of http hooks: every byte on the wire.

use std::fmt::Write as _;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use flate2::read::GzDecoder;

use super::{STRUCTURED, compare, masked, post_event, post_gate};
use crate::fleet::{Site, Worker};
use crate::pipeline::until_letters;

const LIMIT: Duration = Duration::from_secs(30);
/// The body of an event whose bytes a worker must not change.
const MADE: &str = r#"{"specversion":"1.0", "type":"golden.made","source":"/golden/\u00e4","id":"made-1","subject":"tasks/7 ä",
 "time":"2026-11-21T10:00:00Z","tenant":"t-1","data":{"n":1.0,"text":"say \"hi\" & bye","list":[1,2.50],"z":1,"a":2}}"#;
const HOOKS: &str = r#"
  - { id: plain, on: [golden.plain, golden.binary], run: { http: { url: "TARGET/plain" } } }
  - id: headers
    on: golden.made
    run:
      http:
        url: "TARGET/headers"
        headers:
          X-Own: "fixed text"
          Authorization: "Bearer ${env:GOLDEN_TOKEN}"
          Content-Type: application/vnd.golden+json
          User-Agent: golden/1
  - id: templates
    on: golden.made
    labels: { team: core }
    run:
      http:
        url: "TARGET/templates/{{ event.subject }}?n={{ event.data.n }}&t={{ event.data.text }}"
        headers: { x-subject: "{{ event.type }} {{ event.data.list | length }}", x-key: "{{ key }} {{ attempt }}" }
        body: '{"text": "{{ event.data.text }} by {{ hook.labels.team }}", "n": {{ event.data.n }}, "all": {{ event.data }}}'
  - id: form
    on: golden.made
    run:
      http:
        url: "TARGET/form"
        headers: { content-type: application/x-www-form-urlencoded }
        body: "text={{ event.data.text }}&subject={{ event.subject }}"
  - { id: put, on: golden.made, run: { http: { url: "TARGET/put", method: PUT } } }
  - { id: patch, on: golden.made, run: { http: { url: "TARGET/patch", method: PATCH } } }
  - { id: delete, on: golden.made, run: { http: { url: "TARGET/delete", method: DELETE } } }
  - { id: get, on: golden.made, run: { http: { url: "TARGET/get", method: GET } } }
  - id: standard
    on: golden.made
    run:
      http:
        url: "TARGET/standard"
        sign:
          standard:
            - whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
            - whsk_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
  - id: hmac
    on: golden.made
    run: { http: { url: "TARGET/hmac", sign: { hmac: { header: X-Hub-Signature-256, prefix: sha256=, key: open sesame } } } }
  - id: hmac-sha512
    on: golden.made
    run:
      http:
        url: "TARGET/hmac-sha512"
        sign: { hmac: { header: x-signature, algorithm: sha512, encoding: base64, key: open sesame } }
  - id: target
    on: golden.made
    run: { http: { target: hub, path: "/of/{{ event.id }}", method: PUT, headers: { x-second: "2" } } }
  - { id: large, on: golden.large, run: { http: { url: "TARGET/large", compress: gzip } } }
  - id: large-signed
    on: golden.large
    run: { http: { url: "TARGET/large-signed", compress: gzip, sign: { hmac: { header: x-signature, key: open sesame } } } }
  - id: retried
    on: golden.retried
    retry: { attempts: 3, backoff: { initial: 250ms, jitter: 0 } }
    run: { http: { url: "TARGET/retried", headers: { x-attempt: "{{ attempt }}" } } }
  - { id: replayed, on: golden.replayed, run: { http: { url: "TARGET/replayed" } } }
  - { id: second, on: golden.asked, mode: gate, order: 2, run: { http: { url: "TARGET/second" } } }
  - { id: first, on: golden.asked, mode: gate, order: 1, run: { http: { url: "TARGET/first" } } }
  - { id: observer, on: golden.asked, run: { http: { url: "TARGET/observer" } } }
targets:
  hub: { url: "TARGET/target", headers: { x-first: "1" } }
"#;
/// Every path of the target, in the order of the record, with the requests that come to it.
const PATHS: [(&str, usize); 19] = [
    ("plain", 2),
    ("headers", 1),
    ("templates", 1),
    ("form", 1),
    ("put", 1),
    ("patch", 1),
    ("delete", 1),
    ("get", 1),
    ("standard", 1),
    ("hmac", 1),
    ("hmac-sha512", 1),
    ("target", 1),
    ("large", 1),
    ("large-signed", 1),
    ("retried", 2),
    ("replayed", 3),
    ("first", 1),
    ("second", 1),
    ("observer", 1),
];

/// The data of a large event are so many of this letter.
const LARGE: usize = 1200;

/// What the target answers: status and body.
fn answer(path: &str, before: usize) -> (u16, &'static str) {
    match (path, before) {
        ("retried", 0) => (503, "busy"),
        ("replayed", 0) => (400, "no such customer"),
        ("first", _) => (200, r#"{"updated_input": {"checked":true, "n":1.0}, "additional_contexts": ["seen"]}"#),
        ("second", _) => (200, r#"{"permission": "ask", "stop_reason": "ask an admin"}"#),
        _ => (204, ""),
    }
}

/// One request as it came.
struct Request {
    path: String,
    head: String,
    body: Vec<u8>,
}

#[derive(Default)]
struct Received {
    requests: Mutex<Vec<Request>>,
    came: Condvar,
}

/// An HTTP server that keeps the bytes of all requests; each connection has a thread, so that it answers while the test
/// waits for a command.
struct Target {
    address: SocketAddr,
    received: Arc<Received>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Received::default());
        let shared = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let received = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream.unwrap(), &received));
            }
        });
        Self { address, received }
    }

    /// Waits until so many requests have come to this path.
    fn until(&self, path: &str, count: usize, worker: &Worker) {
        let requests = self.received.requests.lock().unwrap();
        let is_missing = |requests: &mut Vec<Request>| count_of(requests, path) < count;
        let waited = self.received.came.wait_timeout_while(requests, LIMIT, is_missing).unwrap();
        assert!(!waited.1.timed_out(), "{path}: {} of {count} requests\n{}", count_of(&waited.0, path), worker.log());
    }

    /// All requests, in the order of [`PATHS`].
    fn shown(&self) -> String {
        let requests = self.received.requests.lock().unwrap();
        let mut record = String::new();
        for (path, count) in PATHS {
            assert_eq!(count_of(&requests, path), count, "requests to {path}");
            let of_path = requests.iter().filter(|request| request.path == path);
            for (number, request) in of_path.enumerate() {
                writeln!(record, "=== {path} {}\n{}\n", number + 1, self.request(request)).unwrap();
            }
        }
        assert_eq!(requests.len(), PATHS.iter().map(|(_, count)| count).sum::<usize>());
        record
    }

    fn request(&self, request: &Request) -> String {
        let body = body(request);
        let is_exact = body.as_bytes() == request.body;
        let head = request.head.strip_suffix("\r\n\r\n").unwrap();
        let lines: Vec<String> = head.split("\r\n").map(|line| self.line(line, is_exact)).collect();
        format!("{}\n\n{body}", lines.join("\n"))
    }

    /// One line of a head.
    fn line(&self, line: &str, is_exact: bool) -> String {
        assert!(!line.contains(['\r', '\n']), "{line:?}");
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "host" => line.replace(&self.address.to_string(), "{target}"),
            "user-agent" => line.replace(env!("CARGO_PKG_VERSION"), "{version}"),
            "webhook-timestamp" if is_number(value) => format!("{name}: {{seconds}}"),
            "webhook-signature" => format!("{name}: {}", signatures(value)),
            "content-length" if !is_exact && is_number(value) => format!("{name}: {{bytes}}"),
            _ => line.to_owned(),
        }
    }
}

fn count_of(requests: &[Request], path: &str) -> usize {
    requests.iter().filter(|request| request.path == path).count()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Versions of signatures, without their values.
fn signatures(value: &str) -> String {
    let shown = value.split(' ').map(|signature| {
        let (version, text) = signature.split_once(',').unwrap();
        format!("{version},{{{} characters}}", text.len())
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A body as text, decompressed, without what differs between runs.
fn body(request: &Request) -> String {
    if !request.head.contains("content-encoding: gzip\r\n") {
        return masked(std::str::from_utf8(&request.body).unwrap());
    }
    let mut text = String::new();
    GzDecoder::new(request.body.as_slice()).read_to_string(&mut text).unwrap();
    let letters = "x".repeat(LARGE);
    format!("{{gzip of}} {}", text.replace(&letters, &format!("{{{LARGE} times x}}")))
}

fn serve(stream: &TcpStream, received: &Received) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let path = request.path.clone();
        let mut requests = received.requests.lock().unwrap();
        let (status, body) = answer(&path, count_of(&requests, &path));
        requests.push(request);
        drop(requests);
        received.came.notify_all();
        let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let mut writer = stream;
        if write!(writer, "HTTP/1.1 {status} -\r\n{length}\r\n{body}").is_err() {
            return;
        }
    }
}

/// The next request of a connection; `None` at its end.
fn read(reader: &mut impl std::io::BufRead) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).ok()?;
    let path = head.split([' ', '/', '?']).find(|part| !part.is_empty() && *part != head.split(' ').next().unwrap());
    Some(Request { path: path.unwrap_or_default().to_owned(), head: head.clone(), body })
}

/// An event in structured mode, with these data.
fn event(kind: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","type":"golden.{kind}","source":"/golden","id":"{kind}-1","subject":"s","data":{data}}}"#
    )
}

#[tokio::test]
async fn requests_of_http_hooks() {
    let target = Target::start();
    let url = format!("http://{}", target.address);
    let site = Site::embedded().hooks(&HOOKS.replace("TARGET", &url)).set("GOLDEN_TOKEN", "golden-token");
    let mut worker = site.worker().await;
    let structured = ("content-type", STRUCTURED);
    let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");

    post_event(worker.port, &[structured, trace], &event("plain", r#"{"n": 1.0}"#)).await;
    target.until("plain", 1, &worker);
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-type", "golden.binary"),
        ("ce-source", "/golden"),
        ("ce-id", "binary-1"),
        ("ce-subject", "caf%C3%A9"),
        ("ce-tenant", "t-1"),
    ];
    post_event(worker.port, &binary, r#"{"b": 1.0, "a": "ä"}"#).await;
    post_event(worker.port, &[structured, trace], MADE).await;
    post_event(worker.port, &[structured], &event("large", &format!("\"{}\"", "x".repeat(LARGE)))).await;
    post_event(worker.port, &[structured], &event("retried", "null")).await;
    let decision = post_gate(worker.port, &event("asked", r#"{"input": 1}"#)).await;

    post_event(worker.port, &[structured], &event("replayed", "[]")).await;
    let letters = until_letters(&site, 1, "open").await;
    let id = letters[0].pointer("/letter/id").unwrap().as_str().unwrap();
    site.ok(&["dead-letters", "replay", id]);
    target.until("replayed", 2, &worker);
    until_letters(&site, 1, "resolved").await;
    site.ok(&["dead-letters", "replay", "--force", id]);

    for (path, count) in PATHS {
        target.until(path, count, &worker);
    }
    assert_eq!(worker.stop().await, Some(0));
    let answered = format!("=== the answer to the request to gates\n{}\n", masked(&decision));
    compare("http.txt", &format!("{}{answered}", target.shown()));
}
