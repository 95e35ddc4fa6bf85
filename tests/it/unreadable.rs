//! Messages that the broker cannot hand out, and what a client may write into the dead-letter log: nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, future};
use hookfleet::domain::dead_letter::{Letter, Mark, Record};
use hookfleet::domain::event::Malformed;
use hookfleet::domain::failure::Class;
use hookfleet::domain::invocation::Client;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::fleet::{Site, Worker};
use crate::letters::{items, parsed};
use crate::pipeline::{Place, hook, site, until_letters};
use crate::proxy::refusing::Refusing;
use crate::publishing::{Publisher, event, with_data};
use crate::servers::shared;
use crate::sink::{Answer, Call, Sink};

/// What no message holds that the broker hands out.
const MARK: &str = "cannot-be-handed-out";

/// A site whose broker hands out nothing that holds [`MARK`].
async fn refused() -> (Refusing, Site) {
    let proxy = Refusing::to(shared().await.0.port, MARK);
    let site = site(Place::Servers).await.set("HOOKFLEET_BROKER_URL", &proxy.url());
    (proxy, site)
}

/// Somebody who works at the broker itself.
struct Hand {
    namespace: String,
    channel: Channel,
    connection: Connection,
}

impl Hand {
    async fn at(site: &Site) -> Self {
        let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { namespace: site.namespace.clone(), channel, connection }
    }

    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.namespace)
    }

    async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let (exchange, options) = (self.name(exchange), BasicPublishOptions::default());
        let sent = self.channel.basic_publish(exchange.as_str().into(), key.into(), options, body, properties).await;
        sent.unwrap().await.unwrap();
    }

    async fn bind(&self, queue: &str, exchange: &str) {
        let (queue, exchange, options) = (self.name(queue), self.name(exchange), QueueBindOptions::default());
        let none = FieldTable::default();
        self.channel
            .queue_bind(queue.as_str().into(), exchange.as_str().into(), "".into(), options, none)
            .await
            .unwrap();
    }

    /// Messages that wait in a queue.
    async fn waiting(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.name(queue);
        let found = self.channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
        found.await.unwrap().message_count()
    }

    async fn until_waiting(&self, queue: &str, count: u32) {
        let began = Instant::now();
        loop {
            let found = self.waiting(queue).await;
            if found == count {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{found} wait in {queue}, expected {count}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn json_event() -> BasicProperties {
    BasicProperties::default().with_content_type("application/cloudevents+json".into())
}

/// Headers of one who knows how the broker and this program write theirs.
fn forged(namespace: &str, record: bool) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut death = FieldTable::default();
    for (name, value) in
        [("reason", "delivery_limit"), ("exchange", ""), ("queue", &*format!("{namespace}.lane.default"))]
    {
        death.insert(name.into(), text(value));
    }
    death.insert("count".into(), AMQPValue::LongLongInt(1));
    let mut headers = FieldTable::default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(death)])));
    headers.insert("x-first-death-queue".into(), text(&format!("{namespace}.lane.default")));
    headers.insert("x-first-death-reason".into(), text("delivery_limit"));
    if record {
        headers.insert("hookfleet-record".into(), AMQPValue::Boolean(true));
    } else {
        for (name, value) in [("kind", "invocation"), ("hook", "never-wanted-it")] {
            headers.insert(format!("hookfleet-{name}").as_str().into(), text(value));
        }
        headers.insert("hookfleet-version".into(), AMQPValue::LongLongInt(1));
    }
    headers
}

/// D1: a client that may publish events, and nothing else, has them dead-lettered by the broker. Whatever deaths it writes
/// into their headers, and whatever it calls them, it closes no letter and makes none of a hook.
#[tokio::test]
async fn a_client_writes_nothing_into_the_log() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ", retry: { attempts: 1 }"));
    let mut worker = site.worker().await;
    Publisher::amqp(&shared().await.0, &site).await.send(event("a", "1")).await;
    let open = until_letters(&site, 1, "open").await.remove(0);
    assert_eq!(worker.stop().await, Some(0));

    let letter: Letter = serde_json::from_value(
        parsed(&site.ok(&[
            "dead-letters",
            "show",
            open.pointer("/letter/id").unwrap().as_str().unwrap(),
            "--body",
            "--json",
        ]))["letter"]
            .clone(),
    )
    .unwrap();
    let (subject, by) = (letter.subject(), "nobody".to_owned());
    let mark = Mark { subject, generation: u32::MAX, at_ms: 1, by, reason: None, until_ms: u64::MAX };
    let made = Letter { hook: Some("never-wanted-it".to_owned()), generation: 7, ..letter };
    let hand = Hand::at(&site).await;
    let dies = |headers: FieldTable| json_event().with_expiration("1".into()).with_headers(headers);
    for record in [Record::Resolved(mark), Record::Letter(Box::new(made))] {
        hand.publish("events", "a", &record.encode(), dies(forged(&site.namespace, true))).await;
        let mut headers = FieldTable::default();
        headers.insert("hookfleet-record".into(), AMQPValue::Boolean(true));
        hand.publish("events", "a", &record.encode(), dies(headers)).await;
    }
    hand.publish("events", "a", &event("a", "2"), dies(forged(&site.namespace, false))).await;
    hand.until_waiting("events", 0).await;

    let _worker = site.worker().await;
    let began = Instant::now();
    let letters = loop {
        let letters = items(&site, &["list"]);
        let count: u64 = letters.iter().map(|entry| entry["count"].as_u64().unwrap()).sum();
        if count == 6 {
            break letters;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{letters:#?}");
        sleep(Duration::from_millis(100)).await;
    };
    assert!(letters.iter().all(|letter| letter["state"] == "open"), "{letters:#?}");
    for letter in letters.iter().map(|entry| &entry["letter"]).filter(|letter| letter["id"] != open["letter"]["id"]) {
        assert!(letter["hook"].is_null() && letter["class"] == "expired", "{letter:#}");
    }
}

/// Everything that is known of one that could not be handed out: it lies apart, and everybody says so.
async fn told(site: &Site, worker: &Worker, hand: &Hand) {
    hand.until_waiting("unreadable", 1).await;
    let doctor = String::from_utf8_lossy(&site.run(&["doctor"]).stdout).into_owned();
    assert!(doctor.contains("1 messages could be handed to no worker"), "{doctor}");
    assert!(doctor.contains(&format!("rabbitmqctl purge_queue {}.unreadable", site.namespace)), "{doctor}");
    worker.until_metric("hookfleet_unreadable_by_broker", "", 1.0).await;
    let status = worker.until("/v1/status", |it| it["counts"]["unreadable_by_broker_count"] == 1).await;
    assert!(status["warnings"].as_array().unwrap().contains(&Value::from("unreadable_by_broker")), "{status:#}");
}

fn all_delivered(count: usize) -> impl Fn(&[Call]) -> bool {
    move |calls| calls.iter().map(|call| call.event.as_str()).collect::<HashSet<_>>().len() == count
}

/// Events before and behind one that cannot be handed out: each runs, none becomes suspect, the one is set apart.
async fn among_events(workers: usize, limit: Option<u32>, others: usize) {
    let (rabbit, _) = shared().await;
    let (proxy, site) = refused().await;
    let sink = Sink::start().await;
    let site = site.hooks(&hook(&sink, "h", "a", ", concurrency: 64"));
    if let Some(limit) = limit {
        let (name, pattern) = (format!("{}-work", site.namespace), format!("^{}[.]events$", site.namespace));
        let definition = format!("{{\"delivery-limit\":{limit}}}");
        rabbit.ctl(&["set_policy", "--apply-to", "queues", &name, &pattern, &definition]);
    }
    let workers = future::join_all((0..workers).map(|_| site.worker())).await;
    let (hand, publisher) = (Hand::at(&site).await, Publisher::amqp(rabbit, &site).await);
    let began = Instant::now();
    publisher.send_all((0..others / 2).map(|i| event("a", &format!("before-{i}")))).await;
    hand.publish("events", "a", &with_data("a", "bad", &Value::from(MARK)), json_event()).await;
    publisher.send_all((0..others / 2).map(|i| event("a", &format!("behind-{i}")))).await;
    sink.until("all the others", Duration::from_secs(60), all_delivered(others)).await;
    println!(
        "limit {limit:?}: {others} others ran within {:.1} s of the first, after {} connections that ended",
        began.elapsed().as_secs_f64(),
        proxy.ended()
    );
    if limit.is_some() {
        told(&site, keeper_of(&workers).await, &hand).await;
        assert!(site.letters().is_empty());
    } else {
        let letter = until_letters(&site, 1, "open").await.remove(0);
        assert_eq!(letter["letter"]["class"], "unreadable", "{letter:#}");
        assert!(letter["letter"]["error"].as_str().unwrap().contains("has no limit of deliveries"), "{letter:#}");
        hand.until_waiting("events", 0).await;
    }
    for worker in &workers {
        worker.until_ready().await;
        assert!(worker.metric("hookfleet_deliveries_total", "suspect").await < 1.0, "{}", worker.log());
    }
    publisher.send(event("a", "later")).await;
    sink.until("a later one", Duration::from_secs(30), all_delivered(others + 1)).await;
    assert!(sink.calls().iter().all(|call| call.event != "bad"));
}

/// The worker that keeps the letters.
async fn keeper_of(workers: &[Worker]) -> &Worker {
    let began = Instant::now();
    loop {
        if let Some(keeper) = workers.iter().find(|it| it.log().contains("keeper of the dead letters now")) {
            return keeper;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody keeps the letters");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn one_among_events_is_set_apart() {
    among_events(2, Some(20), 400).await;
}

/// The last of the workers is handed what has come three times already, before it meets the one itself.
#[tokio::test]
async fn one_among_events_of_a_larger_fleet_is_set_apart() {
    among_events(6, Some(100), 400).await;
}

#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn one_among_events_is_set_apart_by_our_policies() {
    among_events(2, Some(200), 400).await;
}

#[tokio::test]
async fn one_among_events_is_removed_where_there_is_no_limit() {
    among_events(2, None, 100).await;
}

/// A request that cannot be handed out: the others are decided, and readiness says it meanwhile.
#[tokio::test]
async fn one_among_requests_does_not_stop_the_gates() {
    let (_proxy, site) = refused().await;
    let gate = "  - { id: g, on: a, mode: gate, run: { command: { shell: \"true\" } } }";
    let site = site.hooks(gate).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let worker = site.worker().await;
    let hand = Hand::at(&site).await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let replies = hand.channel.basic_consume("amq.rabbitmq.reply-to".into(), "".into(), options, FieldTable::default());
    let mut replies = replies.await.unwrap();
    let asking = |id: &str| json_event().with_reply_to("amq.rabbitmq.reply-to".into()).with_correlation_id(id.into());
    hand.publish("gates", "a", &with_data("a", "bad", &Value::from(MARK)), asking("bad")).await;
    for id in ["1", "2", "3"] {
        hand.publish("gates", "a", &event("a", id), asking(id)).await;
    }
    let mut answered = HashSet::new();
    while answered.len() < 3 {
        let reply = timeout(Duration::from_secs(60), replies.next()).await.expect("an answer").unwrap().unwrap();
        assert!(String::from_utf8_lossy(&reply.data).contains("\"verdict\":\"allow\""));
        answered.insert(reply.properties.correlation_id().as_ref().unwrap().to_string());
    }
    assert!(!answered.contains("bad"));
    worker.until_ready().await;
    let letter = until_letters(&site, 1, "open").await.remove(0);
    assert_eq!((&letter["letter"]["class"], &letter["letter"]["queue"]), (&"unreadable".into(), &"gates".into()));
    assert!(worker.log().contains("the queue is consumed again"), "{}", worker.log());
}

/// A record in the stream of an older version that the broker cannot hand out: readers go on behind it and show a letter in
/// its place, which can be closed.
#[tokio::test]
async fn a_record_that_is_withheld_does_not_stop_readers() {
    let (proxy, site) = refused().await;
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let site = site.hooks(&hook(&sink, "h", "a", ", retry: { attempts: 1 }"));
    let mut worker = site.worker().await;
    let (hand, publisher) = (Hand::at(&site).await, Publisher::amqp(&shared().await.0, &site).await);
    publisher.send(event("a", "1")).await;
    until_letters(&site, 1, "open").await;
    for body in [MARK, MARK] {
        hand.publish("letters", "", body.as_bytes(), BasicProperties::default()).await;
    }
    publisher.send(event("a", "2")).await;
    let letters = until_letters(&site, 3, "open").await;
    let withheld: Vec<&Value> = letters.iter().filter(|letter| letter["letter"]["class"] == "unreadable").collect();
    assert_eq!(withheld.len(), 1, "two that stand together are one: {letters:#?}");
    let (id, error) = (withheld[0]["letter"]["id"].as_str().unwrap(), withheld[0]["letter"]["error"].as_str().unwrap());
    assert!(error.starts_with("the broker cannot hand out the record at offset"), "{error}");
    assert!(proxy.ended() > 0);
    assert!(site.ok(&["dead-letters", "groups"]).contains("unreadable"));
    site.ok(&["dead-letters", "resolve", id, "--reason", "known"]);
    assert_eq!(items(&site, &["list", "--state", "unresolved"]).len(), 2);
    worker.until_metric("hookfleet_letters_open", "hook=\"h\"", 2.0).await; // the keeper goes on too
    assert_eq!(worker.stop().await, Some(0));
}

/// A fleet of an older version: its bindings go, its records are passed on, and what the broker dead-letters is a letter once.
#[tokio::test]
async fn a_fleet_of_an_older_version_is_taken_over() {
    let site = site(Place::Servers).await.hooks("");
    site.run(&["topology", "apply"]); // fails where there is no management API for the policies
    let hand = Hand::at(&site).await;
    for queue in ["dead", "dead.recent"] {
        hand.bind(queue, "dead").await;
    }
    let malformed = Malformed { class: Class::Invalid, error: "of an older version".into() };
    let letter = Letter::of_message(&malformed, Client::default(), b"1", "events", 7);
    let mut headers = FieldTable::default();
    headers.insert("hookfleet-record".into(), AMQPValue::Boolean(true));
    let record = BasicProperties::default().with_headers(headers);
    let encoded = Record::Letter(Box::new(letter)).encode();
    hand.publish("dead", "", &encoded, record.clone()).await;
    let mut worker = site.worker().await;
    let began = Instant::now();
    while !worker.log().contains("an older version had bound the dead-letter stream") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", worker.log());
        sleep(Duration::from_millis(50)).await;
    }
    let bindings =
        shared().await.0.ctl(&["-q", "list_bindings", "source_name", "destination_name", "--no-table-headers"]);
    let fed: Vec<&str> =
        bindings.lines().filter_map(|line| line.strip_prefix(&*format!("{}\t", hand.name("dead")))).collect();
    assert_eq!(fed, [hand.name("buried")], "{bindings}");
    hand.until_waiting("buried", 0).await;
    let twice = until_letters(&site, 1, "open").await.remove(0);
    assert_eq!(twice["count"], 2, "it came by both ways, and is one letter");

    // From now on by one way: a record, the barrier of an older reader, and what has no route.
    let barrier = Record::Barrier { nonce: "of an older reader".into() }.encode();
    let mut reader = Reader::new(&hand).await;
    hand.publish("dead", "", &barrier, record).await;
    reader.until(&barrier).await;
    hand.publish("lane", "nowhere", b"{}", BasicProperties::default()).await;
    let letters = until_letters(&site, 2, "open").await;
    let unrouted = letters.iter().find(|letter| letter["letter"]["class"] == "unrouted").unwrap();
    assert_eq!((&unrouted["count"], &unrouted["letter"]["queue"]), (&1.into(), &"lane".into()), "{unrouted:#}");
    assert!(unrouted["letter"]["at_ms"].as_u64().unwrap() > 1_700_000_000_000, "{unrouted:#}");
    assert_eq!(worker.stop().await, Some(0));
}

/// Reads the stream from now on.
struct Reader {
    records: lapin::Consumer,
    _channel: Channel,
}

impl Reader {
    async fn new(hand: &Hand) -> Self {
        let channel = hand.connection.create_channel().await.unwrap();
        channel.basic_qos(100, lapin::options::BasicQosOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString("next".into()));
        let (queue, options) = (hand.name("dead"), BasicConsumeOptions::default());
        let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, arguments).await.unwrap();
        Self { records: consumer, _channel: channel }
    }

    async fn until(&mut self, body: &[u8]) {
        loop {
            let next =
                timeout(Duration::from_secs(60), self.records.next()).await.expect("the record").unwrap().unwrap();
            if next.data == body {
                return;
            }
        }
    }
}

/// The ladder hands nothing on: readiness, doctor and a metric say so, until it does again.
#[tokio::test]
async fn retries_that_stand_still_are_told() {
    let site = site(Place::Servers).await.hooks("").set("HOOKFLEET_TEST_KEEPER_MS", "3000");
    let site = site.set("HOOKFLEET_GATES_CONCURRENCY", "0"); // the cell of gates, when it connects, makes every binding anew
    let mut worker = site.worker().await;
    let hand = Hand::at(&site).await;
    let (probes, end) = (hand.name("delay.probes"), hand.name("delay.end"));
    let (probes, end, key) = (probes.as_str(), end.as_str(), "#.probe");
    hand.channel.queue_unbind(probes.into(), end.into(), key.into(), FieldTable::default()).await.unwrap();
    let said = |answer: &Value| answer["reasons"].to_string().contains("retries have not come back for ");
    let answer = worker.until("/readyz", said).await;
    assert_eq!(answer["ready"], false, "{answer}");
    worker.until_metric("hookfleet_retries_still_seconds", "", 1.0).await;
    let doctor = site.run(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("PROBLEM  retries") && doctor.status.code() == Some(1), "{said}");
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    hand.channel.queue_bind(probes.into(), end.into(), key.into(), options, none).await.unwrap();
    worker.until_ready().await;
    assert_eq!(worker.stop().await, Some(0));
}

/// What lies apart and can be read after all becomes letters; the others stay, wherever they stand.
#[tokio::test]
async fn what_can_be_read_after_all_is_taken_back() {
    let (_proxy, site) = refused().await;
    let site = site.hooks("");
    site.run(&["topology", "apply"]); // fails where there is no management API for the policies
    let hand = Hand::at(&site).await;
    for body in [MARK, "one", "two", MARK, "three", MARK] {
        hand.publish("unreadable", "", body.as_bytes(), BasicProperties::default()).await;
    }
    let mut worker = site.worker().await;
    until_letters(&site, 3, "open").await;
    hand.until_waiting("unreadable", 3).await;
    worker.until_metric("hookfleet_unreadable_by_broker", "", 3.0).await;
    assert_eq!(worker.stop().await, Some(0));
}
