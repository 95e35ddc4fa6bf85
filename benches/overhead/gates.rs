//! How long who asks before doing something waits: the round trip of a request over AMQP, which a hook decides.
//!
//! The bare side is a process of its own that consumes, POSTs the request, and publishes the answer to who asked. A second
//! one claims the request in Redis first, and keeps what is answered before it tells anybody: what nobody can leave out who
//! never tells two things. hookfleet does the same by a gate. One client asks all, one request at a time, and they take turns: first while
//! nothing else goes on, then while the same worker runs as many events as it can, then while a hook of its slow lane has
//! far more to do than it can.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use hookfleet::broker::Broker as _;
use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::executor::install_crypto;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::servers::redis::Redis;
use crate::servers::{self, Leashed, Rabbit};
use crate::{GATE_P50_RATIO_MAX, GATE_P99_RATIO_MAX, receiver, worker};
use load::Load;

mod load;

/// Turns of each side, in which its samples are taken.
const ROUNDS: usize = 5;
/// Samples of each type of queue.
const QUEUE_SAMPLES: usize = 2_000;
/// Requests of each side that are not counted.
const WARM_UP: usize = 200;
/// How long a reply may take, and the first good one of a side that has just been started.
const REPLY_MAX: Duration = Duration::from_secs(10);
const START_MAX: Duration = Duration::from_secs(30);
/// Deliveries of requests that are unacked, at most.
const PREFETCH: u16 = 64;
/// Where replies go without a queue of their own: RabbitMQ's direct reply-to.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// What makes a message of 1 KiB.
const PAD_BYTES: usize = 880;
/// Delivery modes.
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// Prints all figures. True if hookfleet is within its bounds.
pub(crate) async fn run(samples: usize) -> bool {
    install_crypto();
    let (rabbit, redis) = tokio::join!(Rabbit::start(), Redis::start());
    let mut asker = Asker::new(&rabbit).await;
    queue_types(&rabbit, &mut asker).await;

    let (namespace, folder) = (servers::namespace(), tempfile::tempdir().unwrap());
    // Each on a thread of its own: the load is not to keep decisions waiting at their receiver.
    let ((received, load), (_, gate)) = (receiver(Duration::ZERO).await, receiver(Duration::ZERO).await);
    let (_, slow) = receiver(Duration::from_secs(1)).await;
    // It declares what is published to: who publishes to an exchange that does not exist loses the channel.
    AmqpBroker::connect(&rabbit.server(), &namespace).await.unwrap().close().await;
    let processes = [
        bare_process(&rabbit, gate, &bare_queue(&namespace), ""),
        bare_process(&rabbit, gate, &keeping_queue(&namespace), &redis.url()),
        whole_process(&rabbit, &redis, &namespace, folder.path(), [gate, load, slow]),
    ];
    let sides = [
        bare_side("bare", bare_queue(&namespace)),
        bare_side("with Redis", keeping_queue(&namespace)),
        whole_side(&namespace),
    ];
    for side in &sides {
        asker.warm_up(side).await;
    }
    let idle = ratios("idle", &turns(&mut asker, &sides, samples).await, samples);

    let load = Load::start(rabbit.server(), namespace.clone(), &received).await;
    let (from, began) = (received.load(Ordering::Relaxed), Instant::now());
    let busy = turns(&mut asker, &sides, samples).await;
    let rate = (received.load(Ordering::Relaxed) - from) as f64 / began.elapsed().as_secs_f64();
    load.end();
    let busy = ratios(&format!("under {rate:.0} events/s"), &busy, samples);

    let waiting = load::backlog(&rabbit.server(), &namespace, &asker.channel).await;
    let behind = turns(&mut asker, &sides, samples).await;
    let behind = ratios(&format!("with {waiting} events of a slow hook waiting"), &behind, samples);
    drop(processes);
    within_bounds([("idle", idle), ("under load", busy), ("with a backlog", behind)])
}

fn bare_queue(namespace: &str) -> String {
    format!("{namespace}.bare")
}

fn keeping_queue(namespace: &str) -> String {
    format!("{namespace}.keeping")
}

fn within_bounds(measured: [(&str, Spread); 3]) -> bool {
    let mut good = true;
    for (when, ratio) in measured {
        for (what, ratio, max) in [("p50", ratio.p50, GATE_P50_RATIO_MAX), ("p99", ratio.p99, GATE_P99_RATIO_MAX)] {
            if ratio > max {
                println!("out of bounds: {what} {when} x{ratio:.2}, expected at most x{max}");
                good = false;
            }
        }
    }
    good
}

/// A bare side: answers requests until killed. Arguments: broker, receiver, queue, Redis or nothing.
pub(crate) async fn bare(arguments: &[String]) {
    let [broker, receiver, queue, store] = arguments else { panic!("broker, receiver, queue, redis") };
    install_crypto();
    let connection = Connection::connect(broker, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let requests = consume(&channel, queue, "classic").await;
    let http = Client::builder().no_proxy().build().unwrap();
    let store = match store.as_str() {
        "" => None,
        url => Some(redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()),
    };
    let decide = |key: String, body: Vec<u8>| {
        let request = http.post(receiver.as_str()).header("content-type", "application/json");
        let request = request.header("idempotency-key", &key).body(body);
        let store = store.clone();
        async move {
            keep(store.clone(), &key, "claim", "held").await;
            let answer = request.send().await.unwrap().bytes().await.unwrap();
            let answer = if answer.is_empty() { Bytes::from_static(b"{}") } else { answer };
            keep(store, &key, "decision", &String::from_utf8_lossy(&answer)).await;
            answer
        }
    };
    echo(channel, requests, decide).await;
}

/// Keeps something, if there is a store, unless it is there.
async fn keep(store: Option<redis::aio::MultiplexedConnection>, key: &str, what: &str, value: &str) {
    let Some(mut store) = store else { return };
    let mut set = redis::cmd("SET");
    set.arg(format!("{what}:{key}")).arg(value).arg("NX").arg("GET").arg("PX").arg(86_400_000);
    let _: Option<String> = set.query_async(&mut store).await.unwrap();
}

/// Consumes from a durable queue of this type, which it declares.
async fn consume(channel: &Channel, queue: &str, kind: &str) -> Consumer {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

/// Replies to every request what is decided on its id and body, until the connection ends.
async fn echo<F>(channel: Channel, mut requests: Consumer, decide: impl Fn(String, Vec<u8>) -> F)
where
    F: Future<Output = Bytes> + Send + 'static,
{
    while let Some(Ok(request)) = requests.next().await {
        let asked = &request.properties;
        let key = asked.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        let (reply_to, id) = (asked.reply_to().clone().unwrap(), asked.correlation_id().clone().unwrap());
        let properties = BasicProperties::default().with_delivery_mode(TRANSIENT).with_correlation_id(id);
        let (channel, tag) = (channel.clone(), request.delivery_tag);
        let decision = decide(key, request.data);
        tokio::spawn(async move {
            let decision = decision.await;
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish("".into(), reply_to, options, &decision, properties).await;
            sent.unwrap().await.unwrap(); // no confirm was asked for: it waits for nothing
            let _ = channel.basic_ack(tag, BasicAckOptions::default()).await; // the last one may come too late
        });
    }
}

/// Prints what the type of the queue costs by itself: nobody is asked, and all of it is in this process.
async fn queue_types(rabbit: &Rabbit, asker: &mut Asker) {
    let types = [
        ("classic transient", "classic", TRANSIENT),
        ("classic persistent", "classic", PERSISTENT),
        ("quorum", "quorum", TRANSIENT),
    ];
    for (name, kind, delivery_mode) in types {
        let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let key = format!("{}.echo", servers::namespace());
        let requests = consume(&channel, &key, kind).await;
        let decide = |_, _| std::future::ready(Bytes::from_static(b"{}"));
        let answering = tokio::spawn(echo(channel, requests, decide));
        let side = Side { name, exchange: String::new(), key, delivery_mode, is_good: is_empty };
        asker.warm_up(&side).await;
        let mut times = Vec::with_capacity(QUEUE_SAMPLES);
        for _ in 0..QUEUE_SAMPLES {
            times.push(asker.sample(&side).await);
        }
        let spread = Spread::of(times);
        println!("queue type: {name} p50 {:.2} ms p99 {:.2} ms", spread.p50, spread.p99);
        answering.abort();
        connection.close(200, "bye".into()).await.unwrap();
    }
}

/// Where requests go, and what a good reply to them is.
struct Side {
    name: &'static str,
    exchange: String,
    key: String,
    delivery_mode: u8,
    is_good: fn(&[u8]) -> bool,
}

fn bare_side(name: &'static str, queue: String) -> Side {
    Side { name, exchange: String::new(), key: queue, delivery_mode: TRANSIENT, is_good: is_empty }
}

fn whole_side(namespace: &str) -> Side {
    let (exchange, key) = (format!("{namespace}.gates"), "tool.pre".to_owned());
    Side { name: "hookfleet", exchange, key, delivery_mode: TRANSIENT, is_good: allows }
}

fn is_empty(reply: &[u8]) -> bool {
    reply == b"{}"
}

fn allows(reply: &[u8]) -> bool {
    serde_json::from_slice(reply).is_ok_and(|decision: Value| decision["verdict"] == "allow")
}

fn bare_process(rabbit: &Rabbit, gate: SocketAddr, queue: &str, redis: &str) -> Leashed {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--bare-gates", &rabbit.url(), &format!("http://{gate}/gate"), queue, redis]);
    Leashed::start(command.stdin(Stdio::null()))
}

/// A worker that is asked, and that runs the load and the backlog too.
fn whole_process(
    rabbit: &Rabbit,
    redis: &Redis,
    namespace: &str,
    folder: &Path,
    [gate, load, slow]: [SocketAddr; 3],
) -> Leashed {
    let text = format!(
        "version: 1\nhooks:\n  - {{ id: gate, on: \"tool.pre\", mode: gate, on_failure: closed, timeout: 5s, \
         run: {{ http: {{ url: \"http://{gate}/gate\" }} }} }}\n  - {{ id: load, on: \"order.paid\", concurrency: 256, \
         run: {{ http: {{ url: \"http://{load}/hook\" }} }} }}\n  - {{ id: slow, on: \"batch.run\", lane: slow, \
         concurrency: 8, run: {{ http: {{ url: \"http://{slow}/hook\" }} }} }}\n"
    );
    let hooks = folder.join("hooks.yaml");
    std::fs::write(&hooks, text).unwrap();
    Leashed::start(worker(rabbit, redis, namespace, &hooks).stdin(Stdio::null()))
}

/// Asks one thing at a time, over one channel, and waits for the reply.
struct Asker {
    channel: Channel,
    replies: Consumer,
    asked: u64,
    pad: String,
    _connection: Connection,
}

impl Asker {
    async fn new(rabbit: &Rabbit) -> Self {
        let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let replies = channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default()).await.unwrap();
        Self { channel, replies, asked: 0, pad: "x".repeat(PAD_BYTES), _connection: connection }
    }

    /// The round trip in milliseconds, and the reply, if one comes so soon.
    async fn ask(&mut self, side: &Side, patience: Duration) -> Option<(f64, Vec<u8>)> {
        self.asked += 1;
        let id = format!("ask-{}", self.asked);
        let body = json!({ "specversion": "1.0", "type": "tool.pre", "source": "/bench", "id": id, "data": self.pad })
            .to_string();
        let id = ShortString::from(id);
        let properties = BasicProperties::default()
            .with_content_type("application/cloudevents+json".into())
            .with_message_id(id.clone())
            .with_type("tool.pre".into())
            .with_delivery_mode(side.delivery_mode)
            .with_reply_to(REPLY_TO.into())
            .with_correlation_id(id.clone())
            .with_expiration("5000".into());
        let (channel, replies) = (&self.channel, &mut self.replies);
        let (exchange, key) = (ShortString::from(side.exchange.as_str()), ShortString::from(side.key.as_str()));
        let began = Instant::now();
        let round_trip = async {
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(exchange, key, options, body.as_bytes(), properties).await;
            sent.unwrap().await.unwrap();
            loop {
                let reply = replies.next().await.expect("the channel stays open").unwrap();
                if reply.properties.correlation_id().as_ref() == Some(&id) {
                    break reply.data; // others are late: nobody waits for them any more
                }
            }
        };
        let reply = timeout(patience, round_trip).await.ok()?;
        Some((began.elapsed().as_secs_f64() * 1e3, reply))
    }

    /// The milliseconds until a good reply.
    async fn sample(&mut self, side: &Side) -> f64 {
        let Some((took, reply)) = self.ask(side, REPLY_MAX).await else {
            panic!("{}: no reply within {REPLY_MAX:?}", side.name)
        };
        assert!((side.is_good)(&reply), "{}: {}", side.name, String::from_utf8_lossy(&reply));
        took
    }

    /// Asks until the first good reply comes, and then some more.
    async fn warm_up(&mut self, side: &Side) {
        let began = Instant::now();
        loop {
            let reply = self.ask(side, Duration::from_secs(1)).await.map(|(_, reply)| reply);
            if reply.as_deref().is_some_and(side.is_good) {
                break;
            }
            let last = reply.as_deref().map(String::from_utf8_lossy);
            assert!(began.elapsed() < START_MAX, "{}: no good reply within {START_MAX:?}, but {last:?}", side.name);
            sleep(Duration::from_millis(100)).await;
        }
        for _ in 0..WARM_UP {
            self.sample(side).await;
        }
    }
}

/// Samples of all sides, which take turns.
async fn turns(asker: &mut Asker, sides: &[Side; 3], samples: usize) -> [Spread; 3] {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (side, times) in sides.iter().zip(&mut times) {
            for _ in 0..samples / ROUNDS {
                times.push(asker.sample(side).await);
            }
        }
    }
    times.map(Spread::of)
}

/// Milliseconds, or ratios of them.
struct Spread {
    p50: f64,
    p99: f64,
}

impl Spread {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self { p50: times[times.len() / 2], p99: times[times.len() * 99 / 100] }
    }
}

/// Prints all sides; answers by how much hookfleet is slower than the bare one.
fn ratios(what: &str, [bare, keeping, whole]: &[Spread; 3], samples: usize) -> Spread {
    let [to_bare, to_keeping] =
        [bare, keeping].map(|side| Spread { p50: whole.p50 / side.p50, p99: whole.p99 / side.p99 });
    let shown = |spread: &Spread| format!("p50 {:.2} ms p99 {:.1} ms", spread.p50, spread.p99);
    println!(
        "{what}, {samples} samples each: bare {}, with Redis {}, hookfleet {}; to bare p50 x{:.2}, p99 x{:.2}, to the one \
         with Redis p50 x{:.2}, p99 x{:.2}",
        shown(bare),
        shown(keeping),
        shown(whole),
        to_bare.p50,
        to_bare.p99,
        to_keeping.p50,
        to_keeping.p99
    );
    to_bare
}
