//! Targets that mean harm: each run ends by its deadline, is told for what it is, and costs the worker little memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::publishing::event;
use crate::sink::{Answer, Sink};

/// Of each behaviour at a time.
const RUNS: usize = 16;
/// What our HTTP library reads byte by byte or line by line for as long as there is more, before it looks at anything
/// else: over the loopback interface there always is. A run at a time of these, when all others are over.
const BUSY: [&str; 2] = ["endless-chunk-size", "endless-informing"];
const DEADLINE_MS: u64 = 1_500;
/// What may come on top of a deadline, beside the time for which the worker had no core ([`starved_ms`]).
const GRACE_MS: u64 = 2_000;
/// The same of a [`BUSY`] behaviour, of which 5 s were seen: only the runtime's budget of reads makes the library look up.
const BUSY_GRACE_MS: u64 = 15_000;
/// More than the worker takes while it does the same with targets that mean well.
const MEMORY_KIB_MAX: u64 = 48 * 1024;

/// What a target sends once it has been asked.
enum Reply {
    /// These bytes, and the end of the connection.
    Once(Vec<u8>),
    /// The first once, the second for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// The first once, a byte in 20 ms for ever.
    Drip(Vec<u8>),
    Silence,
    /// The first once, and a reset in place of an end.
    Reset(Vec<u8>),
}

/// Every behaviour, and how its letter begins; those that are done have none.
fn behaviours() -> Vec<(&'static str, Reply, Option<&'static str>)> {
    use Reply::{Drip, Endless, Once, Reset, Silence};
    let head = |lines: &str| format!("HTTP/1.1 {lines}\r\n\r\n").into_bytes();
    let ok = |lines: &str| head(&format!("200 OK\r\n{lines}"));
    let transport = Some("transport: ");
    let reset = Some("reset: ");
    vec![
        ("silent", Silence, Some("timed out after 1.5s")),
        ("drips-its-head", Drip(b"HTTP/1.1 200 OK\r\nx: ".to_vec()), Some("timed out after 1.5s")),
        ("endless-header", Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 65_536]), transport),
        ("endless-headers", Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(10_000)), transport),
        ("endless-status", Endless(b"HTTP/1.1 200 ".to_vec(), vec![b'x'; 65_536]), transport),
        ("endless-informing", Endless(Vec::new(), head("103 Early Hints").repeat(2_000)), Some("timed out after 1.5s")),
        ("endless-noise", Endless(Vec::new(), vec![0xfe; 65_536]), transport),
        ("endless-blank-lines", Endless(Vec::new(), b"\r\n".repeat(30_000)), transport),
        ("endless-body", Endless(ok("x: y"), vec![b'x'; 65_536]), None),
        ("endless-chunks", Endless(ok("transfer-encoding: chunked"), b"1\r\nx\r\n".repeat(10_000)), None),
        ("endless-chunk-size", Endless(ok("transfer-encoding: chunked"), vec![b'0'; 65_536]), None),
        (
            "endless-trailers",
            Endless([ok("transfer-encoding: chunked"), b"0\r\n".to_vec()].concat(), b"x: y\r\n".repeat(10_000)),
            None,
        ),
        (
            "endless-refusal",
            Endless(head("500 No\r\nx: y"), vec![b'x'; 65_536]),
            Some("500 Internal Server Error: xxx"),
        ),
        ("drips-its-body", Drip(ok("content-length: 1000000")), None),
        ("drips-its-refusal", Drip(head("500 No\r\ncontent-length: 1000000")), Some("500 Internal Server Error: xx")),
        ("bomb", Once(bomb("500 No")), Some("500 Internal Server Error")),
        ("good-bomb", Once(bomb("200 OK")), None),
        ("too-short", Once([ok("content-length: 100"), b"abc".to_vec()].concat()), None),
        ("too-long", Once([ok("content-length: 3"), b"abcdef".to_vec()].concat()), None),
        ("negative-length", Once(ok("content-length: -1")), transport),
        ("huge-length", Once(ok("content-length: 99999999999999999999999")), transport),
        ("two-lengths", Once(ok("content-length: 1\r\ncontent-length: 2")), transport),
        ("bad-chunks", Once([ok("transfer-encoding: chunked"), b"zz\r\n".to_vec()].concat()), None),
        ("bad-status", Once(head("2000 OK")), transport),
        ("upgrades", Once(head("101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade")), Some("101")),
        ("says-nothing", Once(Vec::new()), reset),
        ("stops-in-its-head", Once(b"HTTP/1.1 200 OK\r\nx:".to_vec()), reset),
        ("resets-at-once", Reset(Vec::new()), reset),
        ("resets-in-its-head", Reset(b"HTTP/1.1 200 OK\r\nx:".to_vec()), reset),
        ("resets-in-its-body", Reset([ok("content-length: 100"), b"abc".to_vec()].concat()), None),
        (
            "redirects",
            Once(head("302 Found\r\nlocation: http://169.254.169.254/latest/meta-data/\r\ncontent-length: 0")),
            Some("302 Found (redirects are not followed)"),
        ),
        (
            "redirects-for-ever",
            Once(head("307 Temporary Redirect\r\nlocation: /redirects-for-ever\r\ncontent-length: 0")),
            Some("307 Temporary Redirect (redirects are not followed)"),
        ),
    ]
}

/// A reply whose body takes 1 MB on the way and 1 GB when it is unpacked.
fn bomb(status: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&zeros).unwrap();
    }
    let body = encoder.finish().unwrap();
    let head = format!("HTTP/1.1 {status}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

/// A server that does to who asks for `/{behaviour}` what that says.
async fn start(behaviours: impl IntoIterator<Item = (&'static str, Reply)>) -> SocketAddr {
    let behaviours: Arc<HashMap<_, _>> = Arc::new(behaviours.into_iter().collect());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn({
        let listener = listener.into_std().unwrap();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&behaviours)));
                }
            });
        }
    });
    address
}

async fn serve(mut stream: TcpStream, behaviours: Arc<HashMap<&'static str, Reply>>) -> Option<()> {
    let mut asked = vec![0; 16_384];
    let read = stream.read(&mut asked).await.ok()?;
    let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
    let name = asked.split([' ', '/']).nth(2)?;
    match &behaviours[name] {
        Reply::Once(bytes) => stream.write_all(bytes).await.ok(),
        Reply::Endless(first, rest) => {
            stream.write_all(first).await.ok()?;
            while stream.write_all(rest).await.is_ok() {
                tokio::task::yield_now().await;
            }
            None
        }
        Reply::Drip(first) => {
            stream.write_all(first).await.ok()?;
            while stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            None
        }
        Reply::Silence => {
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
            None
        }
        Reply::Reset(bytes) => {
            stream.write_all(bytes).await.ok()?;
            sleep(Duration::from_millis(20)).await; // a reset takes back what was not read yet
            stream.set_zero_linger().ok()
        }
    }
}

/// A line of a process's status, in KiB; nothing where there is no /proc.
fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = status.lines().find_map(|found| found.strip_prefix(line)).unwrap_or(": 0 kB");
    found.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// How long the threads of a process have waited for a core, whichever waited longest, in milliseconds: what a busy machine
/// adds to every deadline.
fn starved_ms(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waited = threads.filter_map(|thread| {
        let told = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        told.split(' ').nth(1)?.parse::<u64>().ok() // nanoseconds on a run queue
    });
    waited.max().unwrap_or(0) / 1_000_000
}

type Expected = BTreeMap<&'static str, Option<&'static str>>;

/// One for each behaviour.
fn hooks(expected: &Expected, address: SocketAddr) -> String {
    let hooks = expected.keys().fold(String::new(), |mut hooks, name| {
        let on = if BUSY.contains(name) { "b" } else { "a" };
        let run = format!("run: {{ http: {{ url: 'http://{address}/{name}' }} }}");
        writeln!(
            hooks,
            "  - {{ id: {name}, on: {on}, timeout: {DEADLINE_MS}ms, retry: {{ attempts: 1 }}, concurrency: {RUNS}, {run} }}"
        )
        .unwrap();
        hooks
    });
    hooks.trim_end().to_owned()
}

#[tokio::test]
async fn harm_costs_its_deadline_and_little_memory() {
    let all = behaviours();
    let expected: Expected = all.iter().map(|(name, _, letter)| (*name, *letter)).collect();
    let address = start(all.into_iter().map(|(name, reply, _)| (name, reply))).await;
    let site = site(Place::Servers).await.hooks(&hooks(&expected, address)).set("HOOKFLEET_BREAKER_FAILURES", "0");
    let Stage { site, mut worker, publisher } = stage(Place::Servers, site).await;
    let pid = worker.process.child.id();
    let (before, starved_before) = (memory(pid, "VmRSS"), starved_ms(pid));
    let began = Instant::now();
    let others = RUNS * (expected.len() - BUSY.len());
    publisher.send_all((0..RUNS).map(|number| event("a", &format!("a{number}")))).await;
    let over = async |runs: usize| {
        while worker.metric("hookfleet_attempts_total", "").await < runs as f64 {
            assert!(began.elapsed() < Duration::from_secs(120), "not over:\n{}", worker.log());
            sleep(Duration::from_millis(50)).await;
        }
    };
    over(others).await;
    publisher.send(event("b", "b")).await;
    let all = others + BUSY.len();
    over(all).await;
    let (peak, starved) = (memory(pid, "VmHWM"), starved_ms(pid).saturating_sub(starved_before));
    println!(
        "{all} runs against {} behaviours, {RUNS} of each at a time: {:.1} s, {starved} ms of it without a core, \
         {before} KiB before, at most {peak} KiB",
        expected.len(),
        began.elapsed().as_secs_f64()
    );
    assert!(peak - before < MEMORY_KIB_MAX, "{before} KiB before, {peak} KiB at most");
    let mut unanswered = HashMap::new();
    for why in ["timeout", "reset", "transport"] {
        let label = format!("why=\"{why}\"");
        unanswered.insert(why, worker.metric("hookfleet_http_unanswered_total", &label).await as usize);
    }
    assert_eq!(worker.stop().await, Some(0));

    let (mut letters, mut longest) = (BTreeMap::<String, Vec<String>>::new(), 0);
    for exported in site.letters() {
        let letter = &exported["letter"];
        let hook = letter["hook"].as_str().unwrap().to_owned();
        let grace = if BUSY.contains(&hook.as_str()) { BUSY_GRACE_MS } else { GRACE_MS };
        letters.entry(hook).or_default().push(letter["error"].as_str().unwrap().to_owned());
        let took = letter["attempts"][0]["took_ms"].as_u64().unwrap();
        assert!(took < DEADLINE_MS + grace + starved, "without a core for {starved} ms: {letter}");
        longest = longest.max(took);
    }
    println!("the longest run took {longest} ms");
    for (why, head) in [("timeout", "timed out"), ("reset", "reset: "), ("transport", "transport: ")] {
        let told = letters.values().flatten().filter(|error| error.starts_with(head)).count();
        assert_eq!(unanswered[why], told, "{why}");
    }
    for (name, expected) in expected {
        let found = letters.remove(name).unwrap_or_default();
        let runs = if BUSY.contains(&name) { 1 } else { RUNS };
        assert_eq!(found.len(), if expected.is_some() { runs } else { 0 }, "{name}: {found:?}");
        assert!(found.iter().all(|error| error.starts_with(expected.unwrap_or_default())), "{name}: {found:?}");
    }
}

/// What a worker says of the only hook's permits and of its targets.
fn narrowed(status: &Value) -> Option<u64> {
    status["hooks"][0]["narrowed_to"].as_u64()
}

#[tokio::test]
async fn who_is_overloaded_gets_less_and_who_is_gone_nothing() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer { wait: Duration::from_millis(100), ..Answer::status(429) });
    let policy = ", concurrency: 16, retry: { attempts: 100, backoff: { initial: 250ms, factor: 1 } }";
    let overloaded = site(Place::Servers).await.hooks(&hook(&sink, "busy", "a", policy));
    let overloaded = overloaded.set("HOOKFLEET_BREAKER_FAILURES", "0");
    let Stage { worker, publisher, .. } = stage(Place::Servers, overloaded).await;
    publisher.send_all((0..40).map(|number| event("a", &format!("{number}")))).await;
    worker.until("/v1/status", |status| narrowed(status).is_some_and(|runs| runs <= 4)).await;

    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(410));
    let gone = site(Place::Servers).await.hooks(&hook(&sink, "gone", "a", ""));
    let Stage { site, worker, publisher } = stage(Place::Servers, gone).await;
    publisher.send(event("a", "first")).await;
    worker.until("/v1/status", |status| status["broken_targets"].as_array().is_some_and(|all| all.len() == 1)).await;
    publisher.send_all((0..20).map(|number| event("a", &format!("{number}")))).await;
    while worker.metric("hookfleet_parked_total", "").await < 20.0 {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((sink.calls().len(), site.letters().len()), (1, 1), "the others wait");
}
