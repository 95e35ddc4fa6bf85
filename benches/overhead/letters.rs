//! What it takes to work with many dead letters: reading all of them, looking at them, sending them out again.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::broker::{Broker, Health};
use hookfleet::dead_letters::DeadLetters as _;
use hookfleet::dead_letters::stream::StreamLetters;
use hookfleet::domain::browse::{Filter, States};
use hookfleet::domain::claim::Point;
use hookfleet::domain::dead_letter::{Cause, Letter, Record};
use hookfleet::domain::event::{Event, Reading};
use hookfleet::domain::failure::{AttemptReport, Class};
use hookfleet::domain::id::HookId;
use hookfleet::domain::invocation::Invocation;
use hookfleet::domain::message::Message;
use hookfleet::operations::Operations;
use hookfleet::publish::prepare;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Leashed, Rabbit, Redis, cpu, servers, worker};

/// Looks of each kind: the slowest counts.
const LOOKS: usize = 20;

/// Prints all figures; answers by how much the command line's full read takes longer than the bare one.
pub(crate) async fn run(count: u64, replayed: u64) -> f64 {
    let (rabbit, redis) = tokio::join!(Rabbit::start(), Redis::start());
    let namespace = servers::namespace();
    let broker = open(&rabbit, &namespace).await;
    let log = StreamLetters::new(Arc::clone(&broker), rabbit.server(), &namespace);
    let began = Instant::now();
    append(&log, count).await;
    println!("{count} letters appended at {:.0}/s", count as f64 / began.elapsed().as_secs_f64());
    let ratio = read(&rabbit, &redis, &namespace, count).await;
    look(Operations::new(Arc::clone(&broker), Arc::new(log)), count).await;
    broker.close().await;
    replay(&rabbit, &redis, replayed).await;
    ratio
}

async fn open(rabbit: &Rabbit, namespace: &str) -> Arc<dyn Broker> {
    let broker = AmqpBroker::connect(&rabbit.server(), namespace).await.unwrap();
    broker.health().wait_for(|health| *health == Health::Up).await.unwrap();
    Arc::new(broker)
}

async fn append(log: &StreamLetters, count: u64) {
    let append = |number: u64| async move { log.append(&Record::Letter(Box::new(letter(number)))).await.unwrap() };
    stream::iter(0..count).map(append).buffer_unordered(256).collect::<()>().await;
}

/// Of five hooks, with seven causes.
fn letter(number: u64) -> Letter {
    let cause = number % 7;
    let body = json!({ "specversion": "1.0", "type": "order.paid", "source": "/bench", "id": number.to_string(),
                       "data": { "session_id": format!("s{}", number % 1000), "pad": "x".repeat(700) } });
    let message = Message { body: body.to_string().into(), ..Message::default() };
    let event = Event::decode(&message, &Reading::default()).unwrap();
    let hook = HookId::new(&format!("hook-{}", cause % 5)).unwrap();
    let mut invocation = Invocation::first(Arc::new(event), hook, "r1".into());
    invocation.at = Point { generation: 0, attempt: 1 };
    let error = format!("status 50{cause}: cause {}", ["a", "b", "c", "d", "e", "f", "g"][cause as usize]);
    let report = Some(AttemptReport {
        generation: 0,
        attempt: 1,
        at_ms: number,
        took_ms: 7,
        status: Some(503),
        tries: 1,
        error,
    });
    let target = Some("http://127.0.0.1".to_owned());
    let cause = Cause { class: Class::Exhausted, report, unprotected: false, deaths: 0, target, foreign: None };
    Letter::of_invocation(&invocation, invocation.at, cause, "default", 1_700_000_000_000 + number)
}

/// Everything read by a bare loop, and by the command line, in turns.
async fn read(rabbit: &Rabbit, redis: &Redis, namespace: &str, count: u64) -> f64 {
    let mut ratios = Vec::new();
    for round in 0..3 {
        let began = Instant::now();
        bare_read(rabbit, namespace, count).await;
        let bare = began.elapsed();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hookfleet"));
        command.args(["--namespace", namespace, "--broker-url", &rabbit.url(), "--redis-url", &redis.url()]);
        let began = Instant::now();
        let output = command.args(["dead-letters", "groups", "--json"]).stdin(Stdio::null()).output().unwrap();
        let whole = began.elapsed();
        let groups: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(groups["items"].as_array().unwrap().len(), 7);
        let ratio = whole.as_secs_f64() / bare.as_secs_f64();
        println!(
            "round {round}: bare read {:.2} s, `dead-letters groups` {:.2} s, x{ratio:.2}",
            bare.as_secs_f64(),
            whole.as_secs_f64()
        );
        ratios.push(ratio);
    }
    super::median(ratios.into_iter())
}

async fn bare_read(rabbit: &Rabbit, namespace: &str, count: u64) {
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(200, BasicQosOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let queue = format!("{namespace}.dead");
    let mut consumer = channel
        .basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments)
        .await
        .unwrap();
    for number in 1..=count {
        let delivery = consumer.next().await.unwrap().unwrap();
        if number % 100 == 0 {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await.unwrap();
        }
    }
    connection.close(200, "bye".into()).await.unwrap();
}

/// What `up` does for those who look: from its projection.
async fn look(operations: Operations, count: u64) {
    let before = resident();
    let began = Instant::now();
    assert_eq!(operations.letters.now().await.unwrap().len() as u64, count);
    let bytes = resident().saturating_sub(before) as f64 / count as f64;
    println!("projection: built in {:.2} s, {bytes:.0} resident bytes a letter", began.elapsed().as_secs_f64());
    let filters = [
        ("a page", Filter::default()),
        ("a page of a session", Filter { session: Some("s7".into()), ..Filter::default() }),
        ("a page of a text that is nowhere", Filter { text: Some("nowhere".into()), ..Filter::default() }),
    ];
    for (what, filter) in filters {
        timed(&operations, what, async || drop(operations.page(&filter, None, 100).await.unwrap())).await;
    }
    let open = Filter { states: States::Open, ..Filter::default() };
    timed(&operations, "groups", async || assert_eq!(operations.groups(&open).await.unwrap().len(), 7)).await;
}

/// Looks that find a fresh index, and the same together with reading what has come since.
async fn timed(operations: &Operations, what: &str, look: impl AsyncFn()) {
    let (mut alone, mut with_read) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        sleep(hookfleet::dead_letters::projection::VIEW_AGE_MAX).await;
        let began = Instant::now();
        drop(operations.letters.lately().await.unwrap());
        let read = began.elapsed();
        look().await;
        with_read.push(began.elapsed().as_secs_f64() * 1e3);
        alone.push(began.elapsed().saturating_sub(read).as_secs_f64() * 1e3);
    }
    let slowest = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    println!(
        "{what}: {:.1} ms, at most {:.1} ms; with reading on {:.1} ms, at most {:.1} ms",
        super::median(alone.iter().copied()),
        slowest(&alone),
        super::median(with_read.iter().copied()),
        slowest(&with_read),
    );
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// One group sent out again while new events come in: letters a second, and how late the new events are.
async fn replay(rabbit: &Rabbit, redis: &Redis, count: u64) {
    let namespace = servers::namespace();
    let broker = open(rabbit, &namespace).await;
    let log = StreamLetters::new(Arc::clone(&broker), rabbit.server(), &namespace);
    append(&log, count).await;
    let (late, received, address) = receiver().await;
    let folder = tempfile::tempdir().unwrap();
    let hooks = folder.path().join("hooks.yaml");
    let hook = |id: &str, on: &str| {
        format!(
            "  - {{ id: {id}, on: {on}, concurrency: 64, run: {{ http: {{ url: \"http://{address}/hook\" }} }} }}\n"
        )
    };
    let failed: String = (0..5).map(|number| hook(&format!("hook-{number}"), "nothing")).collect();
    std::fs::write(&hooks, format!("version: 1\nhooks:\n{failed}{}", hook("new", "order.paid"))).unwrap();
    let process = Leashed::start(worker(rabbit, redis, &namespace, &hooks).stdin(Stdio::null()));
    let operations = Operations::new(Arc::clone(&broker), Arc::new(log));
    let groups = operations.groups(&Filter::default()).await.unwrap();
    let group = groups.first().unwrap();
    lag(&broker, &late, sleep(Duration::from_secs(3))).await; // connected and warm
    let alone = lag(&broker, &late, sleep(Duration::from_secs(10))).await;
    let (used, mut sent, mut ran) = (cpu(process.id()), Duration::ZERO, Duration::ZERO);
    let beside = lag(&broker, &late, async {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hookfleet"));
        command.args(["--namespace", &namespace, "--broker-url", &rabbit.url(), "--redis-url", &redis.url()]);
        command.args(["dead-letters", "replay", "--group", &group.fingerprint, "--yes"]);
        let began = Instant::now();
        let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sent = began.elapsed();
        while received.load(Ordering::Relaxed) < group.open {
            assert!(began.elapsed() < Duration::from_secs(300), "{} replayed", received.load(Ordering::Relaxed));
            sleep(Duration::from_millis(10)).await;
        }
        ran = began.elapsed();
    })
    .await;
    let rate = |took: Duration| group.open as f64 / took.as_secs_f64();
    println!(
        "replay of {} of {count} letters: sent at {:.0}/s, run at {:.0}/s, {:.0} us of the worker each; p99 of new events \
         {:.1} ms alone, {:.1} ms beside it, x{:.2}",
        group.open,
        rate(sent),
        rate(ran),
        cpu(process.id()).saturating_sub(used).as_secs_f64() * 1e6 / group.open as f64,
        alone * 1e3,
        beside * 1e3,
        beside / alone,
    );
    broker.close().await;
}

/// How late events came that were published at this pace while something else went on: the p99, in seconds.
async fn lag(broker: &Arc<dyn Broker>, late: &Late, meanwhile: impl Future<Output = ()>) -> f64 {
    late.seconds.lock().unwrap().clear();
    let stop = CancellationToken::new();
    let publishing = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !stop.is_cancelled() {
            ticks.tick().await;
            let id = format!("new-{}", late.base.elapsed().as_micros());
            let event = json!({ "specversion": "1.0", "type": "order.paid", "source": "/new", "id": id, "data": "x" });
            let event = prepare(&event.to_string().into(), None, None, &Reading::default()).unwrap();
            broker.publish(event.outgoing()).await.unwrap();
        }
    };
    let ending = async {
        meanwhile.await;
        stop.cancel();
    };
    tokio::join!(publishing, ending);
    sleep(Duration::from_secs(1)).await; // the last ones
    let mut seconds = late.seconds.lock().unwrap().clone();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() * 99 / 100]
}

/// How late new events come, by the time in their ids.
struct Late {
    base: Instant,
    seconds: Mutex<Vec<f64>>,
}

/// A receiver on a thread of its own that counts what is replayed, and notes how late new events are.
async fn receiver() -> (Arc<Late>, Arc<AtomicU64>, SocketAddr) {
    let late = Arc::new(Late { base: Instant::now(), seconds: Mutex::default() });
    let replayed = Arc::new(AtomicU64::new(0));
    let (sender, address) = tokio::sync::oneshot::channel();
    let (noting, counting) = (Arc::clone(&late), Arc::clone(&replayed));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let take = move |body: Bytes| async move {
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let id = body["event"]["id"].as_str().unwrap();
                match id.strip_prefix("new-") {
                    Some(at) => {
                        let at = Duration::from_micros(at.parse().unwrap());
                        let late = noting.base.elapsed().saturating_sub(at).as_secs_f64();
                        noting.seconds.lock().unwrap().push(late);
                    }
                    None => drop(counting.fetch_add(1, Ordering::Relaxed)),
                }
                StatusCode::NO_CONTENT
            };
            axum::serve(listener, Router::new().route("/hook", post(take))).await.unwrap();
        });
    });
    (late, replayed, address.await.unwrap())
}
