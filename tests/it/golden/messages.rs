//! The fleet's own messages on RabbitMQ: they are the format between versions.

use std::fmt::Write as _;
use std::fs;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicNackOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::Value;

use super::message::{Tap, properties, shown};
use super::{STRUCTURED, compare, post_event};
use crate::fleet::Site;
use crate::pipeline::{Place, site, until_letters};
use crate::servers::{Rabbit, shared};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const HOOKS: &str = r#"
  - id: retried
    on: golden.retried
    retry: { attempts: 3, backoff: { initial: 64100ms, jitter: 0 } }
    run: { command: { shell: "echo it is broken >&2; exit 1" } }
  - { id: slow, on: golden.slow, lane: slow, run: { command: { shell: "true" } } }
  - { id: long, on: golden.long, concurrency: 1, timeout: 60s, run: { command: { shell: "sleep 7" } } }
  - id: refused
    on: golden.refused
    run: { command: { shell: "[ -e mended ] || { echo no such customer >&2; exit 1; }", exit_codes: { 1: fail } } }
  - { id: gate, on: golden.asked, mode: gate, run: { command: { shell: "echo no deploys today >&2; exit 2" } } }
  - { id: observer, on: golden.asked, run: { command: { shell: "true" } } }
  - id: made
    on: golden.making
    run: { publish: { type: golden.made, headers: { tenant: t-1 }, body: "{\"n\": {{ event.data.n }}}" } }
  - { id: paused, on: golden.paused, paused: true, run: { command: { shell: "true" } } }
"#;
const LANES: [&str; 12] = [
    "default",
    "slow",
    "replay",
    "suspect",
    "overflow.0",
    "overflow.1",
    "overflow.2",
    "overflow.3",
    "overflow.4",
    "overflow.5",
    "overflow.6",
    "overflow.7",
];

fn event(kind: &str, data: &str) -> String {
    format!(r#"{{"specversion":"1.0", "type":"golden.{kind}","source":"/golden","id":"{kind}-1","data":{data}}}"#)
}

/// Copies of what the fleet publishes, by exchange.
struct Taps {
    site: Site,
    lanes: Tap,
    ladder: Tap,
    dead: Tap,
    parked: Tap,
    running: Tap,
    replies: Tap,
    record: String,
}

impl Taps {
    async fn new(rabbit: &Rabbit, site: &Site) -> Self {
        let name = |part: &str| format!("{}.{part}", site.namespace);
        let mut lanes = Tap::new(rabbit).await;
        for lane in LANES {
            lanes = lanes.bound(&name("lane"), lane).await;
        }
        let mut parked = Tap::new(rabbit).await;
        for level in 1..=8 {
            parked = parked.bound(&name(&format!("park.{level}")), "").await;
        }
        let mut ladder = Tap::new(rabbit).await;
        for lane in LANES {
            ladder = ladder.bound(&name("delay"), &format!("#.{lane}")).await; // and no probes
        }
        let running = Tap::new(rabbit).await.bound(&name("running"), "").await;
        let dead = Tap::new(rabbit).await.bound(&name("letters"), "").await;
        let replies = Tap::new(rabbit).await;
        Self { site: site.clone(), lanes, ladder, dead, parked, running, replies, record: String::new() }
    }

    /// Publishes an event as any client would.
    async fn publish(&self, kind: &str, data: &str) {
        self.publish_with(properties(STRUCTURED, &[("traceparent", TRACE)]), &event(kind, data)).await;
    }

    async fn publish_with(&self, properties: BasicProperties, body: &str) {
        let exchange = format!("{}.events", self.site.namespace);
        self.replies.publish(&exchange, "golden", properties, body).await;
    }

    /// The next records of the log but barriers, which every read leaves. Marks and letters of different processes come in
    /// any order.
    async fn next_records(&mut self, count: usize) -> Vec<Delivery> {
        let mut records = Vec::new();
        while records.len() < count {
            let record = self.dead.next().await;
            if nonce(&record).is_none() {
                records.push(record);
            }
        }
        records.sort_by_key(|record| String::from_utf8_lossy(&record.data).into_owned());
        records
    }

    /// The next barrier.
    async fn put_barrier(&mut self) {
        let (record, nonce) = loop {
            let record = self.dead.next().await;
            if let Some(nonce) = nonce(&record) {
                break (record, nonce);
            }
        };
        writeln!(self.record, "=== a barrier\n{}", shown(&record).replace(&nonce, "{nonce}")).unwrap();
    }

    /// A guard is due when its lease ends, so that its wait differs between runs.
    async fn put_guard(&mut self) {
        let guard = shown(&self.running.next().await);
        writeln!(self.record, "=== a guard").unwrap();
        for line in guard.lines() {
            let is_wait = line.starts_with("expiration: ");
            writeln!(self.record, "{}", if is_wait { "expiration: {wait}" } else { line }).unwrap();
        }
        self.record.push('\n');
    }

    fn put(&mut self, title: &str, deliveries: &[Delivery]) {
        for delivery in deliveries {
            writeln!(self.record, "=== {title}\n{}", shown(delivery)).unwrap();
        }
    }

    async fn put_records(&mut self, title: &str, count: usize) {
        let records = self.next_records(count).await;
        self.put(title, &records);
    }

    async fn put_lane(&mut self, title: &str) {
        let message = self.lanes.next().await;
        self.put(title, &[message]);
    }
}

/// Of a record that is a barrier.
fn nonce(record: &Delivery) -> Option<String> {
    let record: Value = serde_json::from_slice(&record.data).unwrap();
    (record["record"] == "barrier").then(|| record["nonce"].as_str().unwrap().to_owned())
}

/// Takes the event from its queue so often, and puts it back, that the fleet runs it alone.
async fn make_suspect(rabbit: &Rabbit, site: &Site) {
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = format!("{}.events", site.namespace);
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
    let mut messages = consumer.await.unwrap();
    for _ in 0..3 {
        let delivery = messages.next().await.unwrap().unwrap();
        delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
    }
    channel.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn messages_of_the_fleet() {
    let (rabbit, _) = shared().await;
    let site = site(Place::Servers).await.with_gateway().hooks(HOOKS).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let site = site.set("HOOKFLEET_WORKER_CELLS", "1").set("HOOKFLEET_BY", "golden");
    site.run(&["topology", "apply"]); // without the management API it fails at the policies only
    let mut taps = Taps::new(rabbit, &site).await;

    let client = properties(STRUCTURED, &[("other", "x")]).with_message_id("m-1".into()).with_app_id("a-client".into());
    taps.publish_with(client, &event("unmatched", "1")).await;
    make_suspect(rabbit, &site).await;
    let mut worker = site.worker().await;
    taps.put_lane("an event that was delivered too often").await;

    taps.publish("retried", "[1]").await;
    let retry = taps.ladder.next().await;
    taps.put("a retry", &[retry]);
    taps.publish("slow", "[1]").await;
    taps.put_lane("an invocation for another lane").await;
    taps.publish("long", "[1]").await;
    taps.publish_with(properties(STRUCTURED, &[]), &event("long", "[2]").replace("long-1", "long-2")).await;
    taps.put_guard().await;
    taps.put_lane("an invocation over the capacity of its hook").await;
    dead_letters(&mut taps, &site).await;
    gates(&mut taps, &site).await;
    events(&mut taps, rabbit, &site, worker.port).await;
    taps.publish("paused", "[1]").await;
    let parked = taps.parked.next().await;
    taps.put("a parked invocation", &[parked]);

    assert_eq!(worker.stop().await, Some(0));
    let record = taps.record.replace(&taps.replies.queue, "{queue}");
    compare("messages.txt", &record.replace(&site.namespace, "{namespace}"));
}

/// Letters of an invocation, and of messages that are no events; what an operator does with them.
async fn dead_letters(taps: &mut Taps, site: &Site) {
    let id_of = |member: &str, value: &str| {
        let letters = site.letters();
        let letter = letters.iter().find(|letter| letter.pointer(member).is_some_and(|found| found == value)).unwrap();
        letter["letter"]["id"].as_str().unwrap().to_owned()
    };
    taps.publish("refused", r#"{"n": 1.0}"#).await;
    taps.put_records("the letter of an invocation", 1).await;
    taps.publish_with(properties(STRUCTURED, &[]), &event("refused", "[2]").replace("refused-1", "refused-2")).await;
    taps.next_records(1).await;
    until_letters(site, 2, "open").await;
    let id = id_of("/letter/event/id", "refused-1");
    fs::write(site.folder.path().join("mended"), "").unwrap();
    site.ok(&["dead-letters", "replay", &id]);
    taps.put_lane("a replay of an invocation").await;
    taps.put_records("marks of that replay", 2).await;
    site.ok(&["dead-letters", "replay", "--force", &id]);
    taps.put_lane("a forced replay").await;
    taps.put_records("marks of the forced replay", 2).await;
    let id = id_of("/letter/event/id", "refused-2");
    site.ok(&["dead-letters", "edit", &id, "--data", r#"{"n": 2.0}"#]);
    taps.put_lane("an edited event").await;
    taps.put_records("marks of the edited event", 2).await;

    let client = properties("text/plain", &[("other", "x")]).with_type("golden.text".into());
    taps.publish_with(client, "hello").await;
    taps.put_records("the letter of a message that cannot be read", 1).await;
    let client = properties("application/json", &[]).with_type("golden.unidentified".into());
    taps.publish_with(client, r#"{"n": 1.0}"#).await;
    taps.put_records("the letter of an event without an id", 1).await;
    let id = id_of("/letter/class", "unidentified");
    site.ok(&["dead-letters", "replay", &id]);
    taps.put_lane("a replay of an event").await;
    taps.put_records("marks of that replay", 2).await;
    let id = id_of("/letter/class", "unreadable");
    site.ok(&["dead-letters", "resolve", &id, "--reason", "seen to"]);
    taps.put_records("the mark of a letter that was closed by hand", 1).await;
    site.letters();
    taps.put_barrier().await;
}

/// Replies, and the event for those who observe it.
async fn gates(taps: &mut Taps, site: &Site) {
    let exchange = format!("{}.gates", site.namespace);
    for (title, body) in [("a decision", event("asked", "[1]")), ("a refusal", "{".to_owned())] {
        let asking = properties(STRUCTURED, &[("traceparent", TRACE)])
            .with_reply_to(taps.replies.queue.as_str().into())
            .with_correlation_id("request-1".into())
            .with_expiration("30000".into());
        taps.replies.publish(&exchange, "golden.asked", asking, &body).await;
        let reply = taps.replies.next().await;
        taps.put(title, &[reply]);
    }
    taps.put_lane("an event with its decision").await;
    taps.put_records("the letter of a request that is no event", 1).await;
}

/// What the fleet publishes as events: of hooks, of the gateway, of the command line.
async fn events(taps: &mut Taps, rabbit: &Rabbit, site: &Site, port: u16) {
    // Two words: of the events that this test itself publishes the key has one.
    let mut events = Tap::new(rabbit).await.bound(&format!("{}.events", site.namespace), "golden.*").await;
    taps.publish("making", r#"{"n": 7}"#).await;
    let made = events.next().await;
    taps.put("an event of a hook", &[made]);
    let headers = [("content-type", STRUCTURED), ("traceparent", TRACE)];
    post_event(port, &headers, &event("posted", "[1]")).await;
    let posted = events.next().await;
    taps.put("an event of the gateway", &[posted]);
    site.ok(&["publish", "--type", "golden.command", "--id", "command-1", "--subject", "s", "--data", "[1.0]"]);
    let published = events.next().await;
    taps.put("an event of the command line", &[published]);
}
