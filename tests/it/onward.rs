//! Hooks that publish: what arrives, where it may go, and what becomes of it when nobody takes it or the broker dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::fleet::Site;
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::{Publisher, with_data};
use crate::servers::{Make, Rabbit, namespace, shared};
use crate::sink::Sink;

/// Somebody else's exchange, and a durable queue that gets all of it.
struct Taker {
    exchange: String,
    channel: Channel,
    queue: String,
    messages: Consumer,
    _connection: Connection,
}

impl Taker {
    async fn new(rabbit: &Rabbit) -> Self {
        Self::at(rabbit, format!("onward-{}", namespace()), "quorum").await.unwrap()
    }

    /// `None`: the queue cannot be consumed from at present.
    async fn at(rabbit: &Rabbit, exchange: String, queue_type: &str) -> Option<Self> {
        let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.ok()?;
        let channel = connection.create_channel().await.ok()?;
        let queue = format!("{exchange}-queue");
        declare(&channel, &exchange, &queue, queue_type).await.ok()?;
        let (name, options) = (queue.as_str().into(), BasicConsumeOptions::default());
        let messages = channel.basic_consume(name, "".into(), options, FieldTable::default()).await.ok()?;
        Some(Self { exchange, channel, queue, messages, _connection: connection })
    }

    async fn key(&mut self) -> String {
        self.next().await.properties.message_id().as_ref().unwrap().to_string()
    }

    /// Whether nothing more has come. Deliveries come before the answer to what is asked after them.
    async fn is_done(&mut self) -> bool {
        let asked = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(self.queue.as_str().into(), asked, FieldTable::default()).await.unwrap();
        queue.message_count() == 0 && self.messages.next().now_or_never().is_none()
    }

    async fn next(&mut self) -> Delivery {
        let next = timeout(Duration::from_secs(30), self.messages.next()).await.expect("a message");
        let message = next.unwrap().unwrap();
        message.ack(BasicAckOptions::default()).await.unwrap();
        message
    }
}

async fn declare(channel: &Channel, exchange: &str, queue: &str, queue_type: &str) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let table = FieldTable::default;
    channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, table()).await?;
    let mut arguments = table();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, arguments).await?;
    bind(channel, exchange, queue).await
}

async fn bind(channel: &Channel, exchange: &str, queue: &str) -> lapin::Result<()> {
    let all = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), "#".into(), all, FieldTable::default()).await
}

/// A hook in YAML that publishes.
fn publishing(id: &str, on: &str, publish: &Value, more: &str) -> String {
    format!("  - {{ id: {id}, on: {on}, run: {{ publish: {publish} }}{more} }}")
}

fn error(letter: &Value) -> &str {
    letter.pointer("/letter/error").and_then(Value::as_str).unwrap()
}

fn class(letter: &Value) -> &str {
    letter.pointer("/letter/class").and_then(Value::as_str).unwrap()
}

#[tokio::test]
async fn messages_arrive_as_the_hook_says() {
    let mut taker = Taker::new(&shared().await.0).await;
    let own = json!({
        "exchange": taker.exchange, "routing_key": "paid.{{ event.data.n }}", "type": "invoice.made",
        "headers": { "tenant": "t-{{ event.data.n }}", "token": "${env:TOKEN}" },
        "body": "{\"order\": {{ event.data.n }}}",
    });
    let whole = json!({ "exchange": taker.exchange });
    let hooks = [publishing("own", "order.paid", &own, ""), publishing("whole", "order.seen", &whole, "")];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n")).set("TOKEN", "s3cret");
    let Stage { publisher, mut worker, site } = stage(Place::Servers, site).await;

    publisher.send(with_data("order.paid", "1", &json!({ "n": 7 }))).await;
    let message = taker.next().await;
    assert_eq!((message.routing_key.as_str(), message.data.as_slice()), ("paid.7", &br#"{"order": 7}"#[..]));
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().unwrap().to_string();
    let properties = &message.properties;
    assert_eq!(*properties.delivery_mode(), Some(2), "it outlives the broker");
    assert_eq!((text(properties.kind()).as_str(), text(properties.app_id()).as_str()), ("invoice.made", "hookfleet"));
    assert_eq!(text(properties.content_type()), "application/json");
    assert!(text(properties.message_id()).ends_with("/own"), "the key: {properties:?}");
    let headers = properties.headers().as_ref().unwrap().inner();
    let header = |name: &str| headers.get(name).unwrap().clone();
    assert_eq!(header("tenant"), AMQPValue::LongString("t-7".into()));
    assert_eq!(header("token"), AMQPValue::LongString("s3cret".into()));
    assert_eq!(header("hookfleet-attempt"), AMQPValue::LongLongInt(1));
    assert_eq!(header("hookfleet-hops"), AMQPValue::LongLongInt(1));

    let event = with_data("order.seen", "2", &json!({ "n": [1.0, "ä"] }));
    publisher.send(event.clone()).await;
    let message = taker.next().await;
    assert_eq!((message.routing_key.as_str(), message.data.as_slice()), ("order.seen", &event[..]));
    assert_eq!(text(message.properties.content_type()), "application/cloudevents+json");
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

/// One hook makes an event that another one runs for.
async fn chain(place: Place) {
    let sink = Sink::start().await;
    let made = json!({ "type": "invoice.made", "body": "{\"n\": {{ event.data.n }}}" });
    let hooks = [publishing("make", "order.paid", &made, ""), hook(&sink, "send", "invoice.*", "")].join("\n");
    let Stage { publisher, mut worker, site } = stage(place, site(place).await.hooks(&hooks)).await;
    let events = (0..50).map(|n| with_data("order.paid", &n.to_string(), &json!({ "n": n })));
    publisher.send_all(events).await;
    sink.until("all of them", Duration::from_secs(30), |calls| calls.len() == 50).await;
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
    let number = |body: &[u8]| -> u64 {
        let payload: Value = serde_json::from_slice(body).unwrap();
        payload.pointer("/event/data/n").and_then(Value::as_u64).unwrap()
    };
    let mut numbers: Vec<u64> = sink.calls().iter().map(|call| number(&call.body)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hook_makes_events_for_others_on_servers() {
    chain(Place::Servers).await;
}

#[tokio::test]
async fn a_hook_makes_events_for_others_in_a_file() {
    chain(Place::File).await;
}

/// A hook that wakes itself runs so many times, and no more.
async fn circle(place: Place) {
    let around = json!({ "body": "{}" });
    let hooks = publishing("around", "ping", &around, "");
    let Stage { publisher, mut worker, site } = stage(place, site(place).await.hooks(&hooks)).await;
    publisher.send(with_data("ping", "1", &json!({}))).await;
    let letters = until_letters(&site, 1, "open").await;
    assert_eq!(class(&letters[0]), "invalid");
    assert_eq!(error(&letters[0]), "the event has come through 16 hooks that publish: they go round in a circle");
    let done = worker.metric("hookfleet_attempts_total", "outcome=\"done\"").await;
    assert!((done - 16.0).abs() < 0.1, "{done} runs that published");
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn circles_end_on_servers() {
    circle(Place::Servers).await;
}

#[tokio::test]
async fn circles_end_in_a_file() {
    circle(Place::File).await;
}

/// What nobody takes is tried again until somebody does, and costs others nothing that publish meanwhile.
#[tokio::test]
async fn what_nobody_takes_is_tried_again() {
    let mut taker = Taker::new(&shared().await.0).await;
    let missing = format!("{}-missing", taker.exchange);
    let unbound = format!("{}-unbound", taker.exchange);
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let table = FieldTable::default();
    taker.channel.exchange_declare(unbound.as_str().into(), ExchangeKind::Topic, durable, table).await.unwrap();
    let slow = ", retry: { attempts: 60, backoff: { initial: 250ms, max: 250ms } }, concurrency: 64";
    let hooks = [
        publishing("missing", "a", &json!({ "exchange": missing }), slow),
        publishing("unbound", "a", &json!({ "exchange": unbound }), slow),
        publishing("optional", "a", &json!({ "exchange": unbound, "mandatory": false }), ""),
        publishing("once", "b", &json!({ "exchange": missing }), ", retry: { attempts: 1 }"),
        publishing("once-more", "b", &json!({ "exchange": unbound }), ", retry: { attempts: 1 }"),
        publishing("good", "a", &json!({ "exchange": taker.exchange }), ", concurrency: 64"),
    ];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n")).set("HOOKFLEET_BREAKER_FAILURES", "0");
    let Stage { publisher, mut worker, site } = stage(Place::Servers, site).await;
    publisher.send(with_data("b", "b", &json!({}))).await;
    let mut letters = until_letters(&site, 2, "open").await;
    letters.sort_by_key(|letter| error(letter).to_owned());
    let errors: Vec<&str> = letters.iter().map(error).collect();
    assert!(errors[0].starts_with("no queue got the message: none is bound for its routing key"), "{errors:?}");
    assert!(errors[1].starts_with("the broker refused the message: NOT_FOUND - no exchange"), "{errors:?}");

    let count = 300;
    publisher.send_all((0..count).map(|n| with_data("a", &n.to_string(), &json!({})))).await;
    let mut seen = BTreeMap::<String, usize>::new();
    for _ in 0..count {
        *seen.entry(taker.key().await).or_default() += 1;
    }
    assert!(seen.len() == count, "each once, whatever else failed beside: {} of {count}", seen.len());

    let optional = "hook=\"optional\",outcome=\"done\"";
    worker.until_metric("hookfleet_attempts_total", optional, count as f64).await;
    declare(&taker.channel, &missing, &taker.queue, "quorum").await.unwrap();
    bind(&taker.channel, &unbound, &taker.queue).await.unwrap();
    let mut seen = BTreeMap::<String, usize>::new();
    while seen.len() < 2 * count {
        let key = taker.key().await;
        assert!(!key.ends_with("/optional") && !key.ends_with("/good"), "{key}");
        *seen.entry(key).or_default() += 1;
    }
    assert_eq!(worker.stop().await, Some(0));
    assert!(seen.values().all(|count| *count == 1) && taker.is_done().await, "each is there once");
    assert_eq!(site.letters().len(), 2);
    taker.channel.exchange_delete(missing.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
}

/// Another broker is killed in the middle: all messages are there in the end, each under one key.
#[tokio::test]
async fn another_broker_may_die_in_the_middle() {
    another_broker_dies("classic").await;
}

/// The same with a quorum queue. Not in the gate: it failed now and then on RabbitMQ 3.10.8, for a cause that is not known.
/// In the one failure that was watched, the broker answered `basic.consume` with INTERNAL_ERROR twice within 120 s, and then
/// listed the queue as running and empty.
#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn another_broker_with_a_quorum_queue_may_die_in_the_middle() {
    another_broker_dies("quorum").await;
}

async fn another_broker_dies(queue_type: &str) {
    let mut other = Rabbit::make(Make { cluster: false, ..Make::of_environment() }).await;
    let exchange = format!("onward-{}", namespace());
    let mut taker = Taker::at(&other, exchange.clone(), queue_type).await.unwrap();
    let publish = json!({ "url": "${env:OTHER}", "exchange": taker.exchange });
    let hooks =
        publishing("h", "a", &publish, ", timeout: 2s, retry: { attempts: 60, backoff: { initial: 250ms, max: 1s } }");
    let site =
        site(Place::Servers).await.hooks(&hooks).set("OTHER", &other.url()).set("HOOKFLEET_BREAKER_FAILURES", "0");
    let Stage { publisher, mut worker, site } = stage(Place::Servers, site).await;
    let count = 2_000;
    let events =
        |half: usize| (half * count / 2..(half + 1) * count / 2).map(|n| with_data("a", &n.to_string(), &json!({})));
    publisher.send_all(events(0)).await;
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        seen.insert(taker.key().await);
    }
    drop(taker);
    other.kill();
    publisher.send_all(events(1)).await;
    other.restart().await;
    let began = Instant::now();
    let mut taker = loop {
        if let Some(taker) = Taker::at(&other, exchange.clone(), queue_type).await {
            break taker;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "the broker was started again, and its queue cannot be consumed from\n{}",
            other.log()
        );
    };
    while seen.len() < count {
        seen.insert(taker.key().await);
    }

    // It takes nothing for a while: runs end at their deadline with their message under way.
    other.ctl(&["set_vm_memory_high_watermark", "0"]);
    publisher.send_all((0..200).map(|n| with_data("a", &format!("alarm-{n}"), &json!({})))).await;
    worker.until_metric("hookfleet_retries_total", "", 100.0).await;
    other.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    while seen.len() < count + 200 {
        seen.insert(taker.key().await);
    }
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

/// A broker with few channels, each of which a missing exchange costs: what else is published there arrives, each once. And a
/// routing key without a queue is no reason to leave its exchange alone.
#[tokio::test]
async fn refusals_cost_others_nothing() {
    let config = "channel_max = 8\n".to_owned();
    let few = Rabbit::make(Make { cluster: false, config, ..Make::of_environment() }).await;
    let mut taker = Taker::new(&few).await;
    let to = |exchange: &str, key: &str| json!({ "url": few.url(), "exchange": exchange, "routing_key": key });
    let missing = format!("{}-missing", taker.exchange);
    let direct = format!("{}-direct", taker.exchange);
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (channel, table) = (&taker.channel, FieldTable::default);
    channel.exchange_declare(direct.as_str().into(), ExchangeKind::Direct, durable, table()).await.unwrap();
    let (queue, options) = (taker.queue.as_str().into(), QueueBindOptions::default());
    channel.queue_bind(queue, direct.as_str().into(), "good".into(), options, table()).await.unwrap();
    let hooks = [
        publishing("missing", "a", &to(&missing, "x"), ", retry: { attempts: 1 }"),
        publishing("bad-key", "a", &to(&direct, "bad"), ", retry: { attempts: 1 }"),
        publishing("good", "a", &to(&direct, "good"), ", concurrency: 64"),
    ];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let Stage { publisher, mut worker, .. } = stage(Place::Servers, site).await;
    let count = 400;
    publisher.send_all((0..count).map(|n| with_data("a", &n.to_string(), &json!({})))).await;
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        assert!(seen.insert(taker.key().await), "once");
    }
    let bad = "hook=\"bad-key\"";
    worker.until_metric("hookfleet_letters_total", bad, count as f64).await;
    assert!(
        worker.metric("hookfleet_attempts_total", "hook=\"missing\"").await >= 20.0,
        "more than there are channels"
    );
    let connected = || few.ctl(&["-q", "list_connections", "client_properties"]).matches("hookfleet hooks").count();
    for _ in 0..100 {
        if connected() <= 4 {
            break;
        }
    }
    assert!(connected() <= 4, "what is worn out is closed: {} are open", connected());
    let failed = worker.metric("hookfleet_retries_total", "hook=\"good\"").await;
    assert!(failed < 0.5, "{failed} good ones failed at first:\n{}", worker.log());
    assert_eq!(worker.stop().await, Some(0));
    assert!(seen.iter().all(|key| key.ends_with("/good")) && taker.is_done().await);
}

/// While the fleet's own broker takes nothing no attempt is spent, of which these hooks have one.
#[tokio::test]
async fn trouble_of_the_fleets_own_broker_spends_no_attempt() {
    let rabbit = Rabbit::make(Make { cluster: false, ..Make::of_environment() }).await;
    let mut taker = Taker::new(&rabbit).await;
    let hooks = publishing("h", "a", &json!({ "exchange": taker.exchange }), ", timeout: 2s, retry: { attempts: 1 }");
    let site = Site::servers(&rabbit, &shared().await.1).hooks(&hooks);
    let publisher = Publisher::amqp(&rabbit, &site).await;
    publisher.send_all((0..50).map(|n| with_data("a", &n.to_string(), &json!({})))).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]);
    let mut worker = site.spawn(&[]); // it is not ready
    worker.until_metric("hookfleet_attempts_total", "outcome=\"interrupted\"", 10.0).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    let mut seen = BTreeSet::new();
    while seen.len() < 50 {
        seen.insert(taker.key().await);
    }
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

/// A deadline that no confirm keeps is a failure, not trouble of the broker's: it comes to an end.
#[tokio::test]
async fn a_deadline_that_is_too_short_spends_attempts() {
    let taker = Taker::new(&shared().await.0).await;
    let hooks = publishing("h", "a", &json!({ "exchange": taker.exchange }), ", timeout: 1ms, retry: { attempts: 1 }");
    let site = site(Place::Servers).await.hooks(&hooks).set("HOOKFLEET_BREAKER_FAILURES", "0");
    let Stage { publisher, mut worker, site } = stage(Place::Servers, site).await;
    publisher.send_all((0..50).map(|n| with_data("a", &n.to_string(), &json!({})))).await;
    let began = Instant::now();
    loop {
        let done = worker.metric("hookfleet_attempts_total", "outcome=\"done\"").await;
        let letters = worker.metric("hookfleet_letters_total", "hook=\"h\"").await;
        if done + letters >= 50.0 {
            println!("{done} in time, {letters} letters");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{done} done, {letters} letters\n{}", worker.log());
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().iter().all(|letter| error(letter).starts_with("timed out after 1ms")));
}

/// What may not be, and what cannot be, is said in the letter.
#[tokio::test]
async fn where_nobody_may_or_can_publish() {
    let (rabbit, _) = shared().await;
    let wrong = rabbit.url().replace("guest:guest@", "guest:hunter2@");
    let site = site(Place::Servers).await;
    let lanes = format!("{}.lane", site.namespace);
    let queue = format!("{}.lane.default", site.namespace);
    let once = ", retry: { attempts: 1 }";
    let hooks = [
        publishing("lane", "a", &json!({ "exchange": lanes, "routing_key": "default" }), once),
        publishing("queue", "a", &json!({ "exchange": "", "routing_key": queue }), once),
        publishing("guarded", "a", &json!({ "url": "amqp://169.254.169.254", "exchange": "x" }), once),
        publishing("wrong", "a", &json!({ "url": wrong, "exchange": "x" }), once),
        publishing("nobody", "a", &json!({ "url": "amqp://127.0.0.1:1", "exchange": "x" }), once),
        publishing("large", "a", &json!({ "exchange": "x", "headers": { "note": "{{ event.data.note }}" } }), once),
        publishing("clear", "a", &json!({ "url": format!("amqps{}", &rabbit.url()[4..]), "exchange": "x" }), once),
    ];
    let Stage { publisher, mut worker, site } = stage(Place::Servers, site.hooks(&hooks.join("\n"))).await;
    publisher.send(with_data("a", "1", &json!({ "note": "x".repeat(200_000) }))).await;
    let letters = until_letters(&site, hooks.len(), "open").await;
    let hook = |letter: &Value| letter.pointer("/letter/hook").and_then(Value::as_str).unwrap().to_owned();
    let found: BTreeMap<String, (&str, &str)> =
        letters.iter().map(|letter| (hook(letter), (class(letter), error(letter)))).collect();
    let check = |hook: &str, expected: &str, sentence: &str| {
        let (class, error) = found[hook];
        assert!(
            class == expected && error.contains(sentence) && !error.contains("hunter2"),
            "{hook}: {class}: {error}"
        );
    };
    check("lane", "target_blocked", "exchanges and queues of the fleet are its own");
    check("queue", "target_blocked", "exchanges and queues of the fleet are its own");
    check("guarded", "target_blocked", "the target 169.254.169.254 is");
    check("wrong", "exhausted", "refused user");
    check("nobody", "exhausted", "cannot connect to the broker at amqp://127.0.0.1:1");
    check("large", "rejected", "the broker will never take the message: the headers have 200");
    check("clear", "exhausted", "no TLS with the broker at amqps://127.0.0.1");
    assert_eq!(worker.stop().await, Some(0));
}

/// What would be published is shown without its secrets.
#[tokio::test]
async fn what_would_be_published_is_shown() {
    let publish = json!({
        "url": "amqp://me:${env:PASSWORD}@mq.example.com", "exchange": "orders", "routing_key": "{{ event.data.n }}",
        "headers": { "token": "${env:TOKEN}" }, "body": "{{ event.data.n }}", "content_type": "text/plain",
    });
    let site = Site::embedded().hooks(&publishing("h", "a", &publish, "")).set("PASSWORD", "hunter2");
    let file = site.folder.path().join("event.json");
    std::fs::write(&file, with_data("a", "1", &json!({ "n": "x" }))).unwrap();
    let shown = site.ok(&["hooks", "test", file.to_str().unwrap()]);
    for line in [
        "+ h: amqp://mq.example.com/orders routing key \"x\"",
        "    type: a",
        "    content_type: text/plain",
        "    header token: ${env:TOKEN}",
        "    ${env:TOKEN} is not set here",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    let listed = site.clone().set("TOKEN", "t").ok(&["hooks", "list", "--json"]);
    assert!(!listed.contains("hunter2"), "{listed}");
}
