//! What the whole path of the product costs beside the bare loop that it cannot do without.
//!
//! Both sides consume the same events (1 KiB) from a quorum queue of a real RabbitMQ, POST each to one receiver, claim and
//! finish it in a real Redis, and ack; 256 in flight, one thread. The bare side is a loop of its own (`bare.rs`) that uses
//! no module of this crate. hookfleet runs as its release binary with 100 hooks, one of which wants the event. They take
//! turns, pair by pair, since the machine is shared by all of them; the ratios count, not the rates.
//!
//! `cargo bench --bench overhead` prints every pair; `-- --quick --json` is over within 50 s and prints the ratios as
//! JSON in its last line. It fails where a ratio is out of bounds, or where the bare loop itself is much slower than it
//! should be: then the machine is too busy to say anything. With `--signed` hookfleet signs what it sends.
//! `-- --scaling` measures fleets of 1, 2 and 4 workers instead, `-- --matching` what it takes to find the hooks that want
//! an event, `-- --letters` what it takes to read, look at and send out again many dead letters, `-- --commands` what it
//! takes to run a program. `-- --gates` measures how long who asks a gate waits for the decision, beside a bare loop that
//! asks the same receiver, and fails where the ratios are out of bounds. Linux only: CPU time is read from /proc.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::duration_suboptimal_units,
    reason = "a benchmark speaks and may fail loudly"
)]

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use hookfleet::broker::Broker as _;
use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::domain::event::Reading;
use hookfleet::domain::signature::{Signing, StandardKey};
use hookfleet::publish::prepare;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::sleep;

#[path = "../../tests/it/servers.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod servers;

mod bare;
mod commands;
mod gates;
mod letters;
mod matching;
mod scaling;

use servers::redis::Redis;
use servers::{Leashed, Rabbit};

/// What hookfleet may cost beside the bare loop.
const CPU_RATIO_MAX: f64 = 1.25;
const RATE_RATIO_MIN: f64 = 0.85;
/// What the bare loop takes on two shared cores, and by how much it may miss that before the machine is too busy.
const BARE_US: f64 = 30.0;
const BARE_SLACK: f64 = 1.2;
/// How much faster four workers are than one at the least.
const SPEED_UP_MIN: f64 = 3.6;
/// How much slower to find an event's hooks is among 10,000 than among 10 at the most.
const MATCHING_RATIO_MAX: f64 = 2.0;

/// How much longer the command line may take to read every letter than a bare loop that only receives them.
const READING_RATIO_MAX: f64 = 3.0;
/// How much longer who asks may wait for a gate's decision than for that of a bare loop. The p50 is an aim that is missed: a
/// loop which keeps its decisions in Redis misses it too under load.
const GATE_P50_RATIO_MAX: f64 = 1.3;
const GATE_P99_RATIO_MAX: f64 = 2.0;

/// One side of one pair.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Client CPU an event, microseconds, user and system.
    cpu_us: f64,
    /// Events a second.
    rate: f64,
}

struct Options {
    pairs: usize,
    events: u64,
    json: bool,
    /// hookfleet signs what it sends (Standard Webhooks), which the bare loop does not.
    signed: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(at) = arguments.iter().position(|argument| argument == "--bare") {
        return runtime.block_on(bare::run(&arguments[at + 1..]));
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "--bare-gates") {
        return runtime.block_on(gates::bare(&arguments[at + 1..]));
    }
    let quick = has("--quick");
    let options = Options {
        pairs: if quick { 3 } else { 7 },
        events: if quick { 30_000 } else { 100_000 },
        json: has("--json"),
        signed: has("--signed"),
    };
    let good = runtime.block_on(async {
        if has("--matching") {
            return matching::run() <= MATCHING_RATIO_MAX;
        }
        if has("--commands") {
            commands::run(if quick { 1_000 } else { 10_000 }).await;
            return true;
        }
        if has("--gates") {
            return gates::run(if quick { 2_000 } else { 10_000 }).await;
        }
        if has("--letters") {
            let (all, replayed) = if quick { (20_000, 7_000) } else { (200_000, 50_000) };
            return letters::run(all, replayed).await <= READING_RATIO_MAX;
        }
        if has("--scaling") {
            let (rabbit, redis) = tokio::join!(Rabbit::start(), Redis::start());
            return scaling::run(&rabbit, &redis).await >= SPEED_UP_MIN;
        }
        compare(&options).await
    });
    if !good {
        std::process::exit(1);
    }
}

/// A worker process of the release binary.
fn worker(rabbit: &Rabbit, redis: &Redis, namespace: &str, hooks: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookfleet"));
    command
        .args(["worker", "--log-level", "warn", "--namespace", namespace, "--hooks", hooks.to_str().unwrap()])
        .args(["--broker-url", &rabbit.url(), "--redis-url", &redis.url()])
        .args(["--http-bind", &format!("127.0.0.1:{}", servers::free_port())])
        .args(["--set", "egress.allow=127.0.0.0/8", "--set", "worker.cells=1"]);
    command
}

/// True if hookfleet is within its bounds.
async fn compare(options: &Options) -> bool {
    if options.signed {
        sign_alone();
    }
    let (rabbit, redis) = tokio::join!(Rabbit::start(), Redis::start());
    let (received, address) = receiver(Duration::ZERO).await;
    let mut pairs = Vec::new();
    for pair in 0..options.pairs {
        let bare = side(options, &rabbit, &redis, &received, |namespace, _| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--bare", &rabbit.url(), &redis.url(), &format!("http://{address}/hook"), namespace]);
            command
        })
        .await;
        let whole = side(options, &rabbit, &redis, &received, |namespace, folder| {
            let hooks = folder.join("hooks.yaml");
            std::fs::write(&hooks, hundred_hooks(&address.to_string(), options.signed)).unwrap();
            let mut command = worker(&rabbit, &redis, namespace, &hooks);
            command.args(["--set", "worker.prefetch=256"]);
            command
        })
        .await;
        println!(
            "pair {pair}: bare {:.1} us {:.0}/s, hookfleet {:.1} us {:.0}/s, cpu x{:.2}, rate x{:.2}",
            bare.cpu_us,
            bare.rate,
            whole.cpu_us,
            whole.rate,
            whole.cpu_us / bare.cpu_us,
            whole.rate / bare.rate
        );
        pairs.push((bare, whole));
    }
    let cpu_ratio = median(pairs.iter().map(|(bare, whole)| whole.cpu_us / bare.cpu_us));
    let rate_ratio = median(pairs.iter().map(|(bare, whole)| whole.rate / bare.rate));
    let (bare_us, whole_us) =
        (median(pairs.iter().map(|(bare, _)| bare.cpu_us)), median(pairs.iter().map(|(_, whole)| whole.cpu_us)));
    println!(
        "medians: bare {bare_us:.1} us, hookfleet {whole_us:.1} us an event; cpu x{cpu_ratio:.2}, rate x{rate_ratio:.2}"
    );
    let good = cpu_ratio <= CPU_RATIO_MAX && rate_ratio >= RATE_RATIO_MIN && bare_us <= BARE_US * BARE_SLACK;
    if !good {
        println!(
            "out of bounds: expected cpu at most x{CPU_RATIO_MAX}, rate at least x{RATE_RATIO_MIN}, and the bare loop within \
             {:.0} us",
            BARE_US * BARE_SLACK
        );
    }
    if options.json {
        println!("{}", json!({ "cpu_ratio": round(cpu_ratio), "rate_ratio": round(rate_ratio) }));
    }
    good
}

/// Publishes the events into a fresh namespace, starts the client, and measures it from its first hundred events on.
async fn side(
    options: &Options,
    rabbit: &Rabbit,
    redis: &Redis,
    received: &Arc<AtomicU64>,
    client: impl FnOnce(&str, &std::path::Path) -> Command,
) -> Measured {
    let (namespace, folder) = (servers::namespace(), tempfile::tempdir().unwrap());
    publish(rabbit, &namespace, options.events).await;
    let start = received.load(Ordering::Relaxed);
    let mut command = client(&namespace, folder.path());
    let process = Leashed::start(command.stdin(Stdio::null()));
    let reach = async |count: u64| {
        let began = Instant::now();
        while received.load(Ordering::Relaxed) - start < count {
            assert!(began.elapsed() < Duration::from_secs(120), "the client does not get on");
            sleep(Duration::from_millis(1)).await;
        }
    };
    reach(options.events / 20).await; // connected and warm
    let (from, cpu_from, began) = (received.load(Ordering::Relaxed), cpu(process.id()), Instant::now());
    reach(options.events).await;
    let (elapsed, count) = (began.elapsed(), received.load(Ordering::Relaxed) - from);
    let cpu_us = cpu(process.id()).saturating_sub(cpu_from).as_secs_f64() * 1e6;
    drop(process);
    let _ = redis; // its keys go with its process
    Measured { cpu_us: cpu_us / count as f64, rate: count as f64 / elapsed.as_secs_f64() }
}

async fn publish(rabbit: &Rabbit, namespace: &str, count: u64) {
    let broker = AmqpBroker::connect(&rabbit.server(), namespace).await.unwrap();
    let pad = "x".repeat(880);
    let send = async |number: u64| {
        let event = json!({ "specversion": "1.0", "type": "order.paid", "source": "/bench", "id": number.to_string(), "data": pad });
        let event = prepare(&event.to_string().into(), None, None, &Reading::default()).unwrap();
        broker.publish(event.outgoing()).await.unwrap();
    };
    stream::iter(0..count).map(send).buffer_unordered(256).collect::<()>().await;
    broker.close().await;
}

/// A receiver on a thread of its own that counts, and answers 204 after `latency`. What gates ask it allows at once.
async fn receiver(latency: Duration) -> (Arc<AtomicU64>, std::net::SocketAddr) {
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    let (sender, address) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let count = move |_body: bytes::Bytes| {
                let counter = Arc::clone(&counter);
                async move {
                    if !latency.is_zero() {
                        sleep(latency).await;
                    }
                    counter.fetch_add(1, Ordering::Relaxed);
                    StatusCode::NO_CONTENT
                }
            };
            let allow = |_body: bytes::Bytes| async { axum::Json(json!({})) };
            let routes = Router::new().route("/hook", post(count)).route("/gate", post(allow));
            axum::serve(listener, routes).await.unwrap();
        });
    });
    (received, address.await.unwrap())
}

const SIGNING_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwjY5wTUMhGa4=";

/// Prints what a signature takes on its own: next to a whole event it is lost in the noise.
fn sign_alone() {
    const SIGNATURES: u32 = 100_000;
    let signing = Signing { standard: vec![StandardKey::new(SIGNING_KEY).unwrap()], plain: None };
    let body = [b'x'; 1200];
    let began = Instant::now();
    for at in 0..SIGNATURES {
        black_box(signing.sign("the-key-of-an-invocation", at.into(), black_box(&body)).unwrap());
    }
    println!(
        "a signature of {} bytes: {:.0} ns",
        body.len(),
        began.elapsed().as_secs_f64() * 1e9 / f64::from(SIGNATURES)
    );
}

/// A hundred hooks, one of which wants the event.
fn hundred_hooks(address: &str, signed: bool) -> String {
    let sign = if signed { format!(", sign: {{ standard: \"{SIGNING_KEY}\" }}") } else { String::new() };
    let hook = |number: usize| {
        let on = match number {
            0 => "order.paid".to_owned(),
            odd if odd % 2 == 1 => format!("other.kind{number}"),
            _ => format!("group{number}.*"),
        };
        let run = format!("{{ http: {{ url: \"http://{address}/hook\"{sign} }} }}");
        format!("  - {{ id: h{number}, on: \"{on}\", concurrency: 256, run: {run} }}\n")
    };
    format!("version: 1\nhooks:\n{}", (0..100).map(hook).collect::<Vec<_>>().concat())
}

/// User and system time of a process and its threads so far.
fn cpu(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("CPU time is read from /proc: Linux only");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10) // USER_HZ is 100 on every Linux that runs this
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
