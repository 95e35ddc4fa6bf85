//! Hooks that decide, for somebody who waits: asked in every way, told to those who observe, and what follows where they fail.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use hookfleet::Event;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::with_data;
use crate::servers::{client, namespace, shared};
use crate::sink::{Call, Sink};

mod conflicts;
mod kills;
mod refusals;
mod vectors;

/// Answers that go straight to the channel that has asked.
const DIRECT: &str = "amq.rabbitmq.reply-to";
/// How long a request may take: generous, since the machine may have much else to do.
const WITHIN: Duration = Duration::from_secs(20);
const STRUCTURED: &str = "application/cloudevents+json";
const ALLOW: &str = "HOOKFLEET_COMMANDS_ALLOW";

/// Refuses what goes to `prod`, has somebody else asked about what is `shared`, and says whether it was asked second.
const FREEZE: &str = r#"case $(cat) in
*prod*) echo no deploys today >&2; exit 2;;
*shared*) echo '{"permission": "ask", "stop_reason": "ask an admin"}';;
*'"updated_input":{"checked":true}'*) echo '{"additional_contexts": ["it was checked"]}';;
esac"#;

/// A gate in YAML that runs a line of shell.
fn gate(id: &str, on: &str, script: &str, more: &str) -> String {
    format!("  - {{ id: {id}, on: {on}, mode: gate, run: {{ command: {{ shell: {} }} }}{more} }}", json!(script))
}

/// An answer over AMQP.
struct Reply {
    id: String,
    content_type: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Asks over AMQP, as any program in any language would.
struct Asker {
    channel: Channel,
    namespace: String,
    reply_to: String,
    replies: Consumer,
    _connection: Connection,
}

impl Asker {
    /// Where answers are to go: [`DIRECT`], or the name of a queue, which is made for them.
    async fn new(site: &Site, reply_to: &str) -> Self {
        let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        if reply_to != DIRECT {
            let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(reply_to.into(), own, FieldTable::default()).await.unwrap();
        }
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let replies = channel.basic_consume(reply_to.into(), "".into(), options, FieldTable::default()).await.unwrap();
        let (namespace, reply_to) = (site.namespace.clone(), reply_to.to_owned());
        Self { channel, namespace, reply_to, replies, _connection: connection }
    }

    /// What a request says of its answer. The broker keeps it until somebody takes it, no longer than it may take.
    fn asking(reply_to: &str, id: &str) -> BasicProperties {
        BasicProperties::default()
            .with_content_type(STRUCTURED.into())
            .with_reply_to(reply_to.into())
            .with_correlation_id(id.into())
            .with_expiration(WITHIN.as_millis().to_string().into())
    }

    async fn publish(&self, kind: &str, body: &[u8], properties: BasicProperties) {
        let (exchange, options) = (format!("{}.gates", self.namespace), BasicPublishOptions::default());
        let sent = self.channel.basic_publish(exchange.into(), kind.into(), options, body, properties).await;
        sent.unwrap().await.unwrap(); // no confirm was asked for: it waits for nothing
    }

    async fn send(&self, kind: &str, id: &str, body: &[u8]) {
        self.publish(kind, body, Self::asking(&self.reply_to, id)).await;
    }

    /// The next answer that comes, to whatever request.
    async fn next(&mut self, until: Instant) -> Option<Reply> {
        let reply = timeout_at(until, self.replies.next()).await.ok()??.unwrap();
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string).unwrap_or_default();
        let (id, content_type) = (text(reply.properties.correlation_id()), text(reply.properties.content_type()));
        Some(Reply { id, content_type, body: String::from_utf8(reply.data).unwrap() })
    }

    /// The answer to this request.
    async fn answer(&mut self, id: &str) -> Reply {
        let until = Instant::now() + 2 * WITHIN;
        loop {
            let reply = self.next(until).await.unwrap_or_else(|| panic!("{id} is not answered"));
            if reply.id == id {
                return reply;
            }
        }
    }

    /// The decision on an event with these data.
    async fn ask(&mut self, kind: &str, id: &str, data: &Value) -> Value {
        self.send(kind, id, &with_data(kind, id, data)).await;
        let reply = self.answer(id).await;
        assert_eq!(reply.content_type, "application/json", "{}", reply.body);
        reply.json()
    }

    /// Waits until the fleet's queue of this name has so many messages and consumers.
    async fn until(&self, queue: &str, is_so: impl Fn(u32, u32) -> bool) {
        let (name, began) = (format!("{}.{queue}", self.namespace), Instant::now());
        loop {
            let asked = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = self.channel.queue_declare(name.as_str().into(), asked, FieldTable::default()).await.unwrap();
            let (messages, consumers) = (found.message_count(), found.consumer_count());
            if is_so(messages, consumers) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{name}: {messages} messages, {consumers} consumers");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What `POST /v1/gates` answers: its status, and its body.
async fn post(worker: &Worker, deadline: &str, content_type: &str, body: Bytes) -> (u16, String) {
    let url = worker.url(&format!("/v1/gates?deadline={deadline}"));
    let answer = client().post(url).header("content-type", content_type).body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The decision on one event, over HTTP.
async fn posted(worker: &Worker, event: Bytes) -> Value {
    let (status, body) = post(worker, "30s", STRUCTURED, event).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// How `hookfleet decide` ends: its exit code, the decision, and what it says beside that.
fn decide(site: &Site, id: &str, data: &Value, more: &[&str]) -> (Option<i32>, Value, String) {
    let data = data.to_string();
    let asked = ["decide", "--type", "deploy", "--source", "/test", "--id", id, "--data", data.as_str()];
    let output = site.run(&[&asked[..], more].concat());
    let decision = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), decision, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What three gates say of a deployment to this target.
fn check(way: &str, target: &str, decision: &Value) {
    let (verdict, reason, contexts, asked) = match target {
        "prod" => ("deny", json!("no deploys today"), json!(["seen"]), json!(["first", "freeze"])),
        "shared" => ("ask", json!("ask an admin"), json!(["seen"]), json!(["first", "freeze", "last"])),
        _ => ("allow", Value::Null, json!(["seen", "it was checked"]), json!(["first", "freeze", "last"])),
    };
    assert_eq!(decision["verdict"], verdict, "{way}: {decision:#}");
    assert_eq!(decision["reason"], reason, "{way}: {decision:#}");
    assert_eq!(decision["updated_input"], json!({ "checked": true }), "{way}: {decision:#}");
    assert_eq!(decision["additional_contexts"], contexts, "{way}: {decision:#}");
    assert_eq!(decision["matched_hooks"], asked, "{way}: {decision:#}");
}

const TARGETS: [(&str, i32); 3] = [("prod", 2), ("shared", 3), ("lab", 0)];

/// Three gates in the order that they ask for: what the first says the second gets, and nobody is asked behind a refusal.
async fn every_way(place: Place) {
    let first = r#"echo 'As asked: {"updated_input": {"checked":true}, "additional_contexts": ["seen"]}'"#;
    let hooks = [
        gate("last", "deploy", "touch \"$HOOKFLEET_EVENT_ID.ran\"", ", order: 1"),
        gate("freeze", "deploy", FREEZE, ""),
        gate("first", "deploy", first, ", order: -1"),
    ];
    let site = site(place).await.with_gateway().hooks(&hooks.join("\n")).set(ALLOW, "sh");
    let Stage { site, mut worker, .. } = stage(place, site).await;
    for (target, code) in TARGETS {
        let (data, id) = (json!({ "target": target }), format!("http-{target}"));
        check("http", target, &posted(&worker, with_data("deploy", &id, &data)).await);
        let (ended, decision, said) = decide(&site, &format!("command-{target}"), &data, &[]);
        check("command", target, &decision);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(decision["reason"].as_str().unwrap_or_default()), "{said}");
    }
    let mut ways = vec!["http", "command"];
    if place == Place::Servers {
        over_amqp(&site).await;
        ways.extend(["direct", "queue", "library"]);
    }
    assert_eq!(worker.stop().await, Some(0));
    for (way, (target, _)) in ways.iter().flat_map(|way| TARGETS.map(|target| (way, target))) {
        let ran = site.folder.path().join(format!("{way}-{target}.ran")).exists();
        assert_eq!(ran, target != "prod", "{way}-{target}");
    }
    assert!(site.letters().is_empty());
}

/// With answers to the channel itself, with a queue and a deadline of one's own, and with the library.
async fn over_amqp(site: &Site) {
    let own = format!("answers-{}", namespace());
    let (mut direct, mut queued) = (Asker::new(site, DIRECT).await, Asker::new(site, &own).await);
    let library = hookfleet::Publisher::connect(&shared().await.0.url(), &site.namespace).await.unwrap();
    for (target, _) in TARGETS {
        let data = json!({ "target": target });
        check("direct", target, &direct.ask("deploy", &format!("direct-{target}"), &data).await);

        let id = format!("queue-{target}");
        let deadline_ms = (SystemTime::UNIX_EPOCH.elapsed().unwrap() + WITHIN).as_millis();
        let mut headers = FieldTable::default();
        headers.insert("hookfleet-deadline".into(), AMQPValue::LongLongInt(i64::try_from(deadline_ms).unwrap()));
        let asking = Asker::asking(&own, &id).with_headers(headers);
        queued.publish("deploy", &with_data("deploy", &id, &data), asking).await;
        check("queue", target, &queued.answer(&id).await.json());

        let id = format!("library-{target}");
        let event = Event::builder("deploy").source("/test").id(&id).data(&data).build().unwrap();
        let decision = library.decide(&event, WITHIN).await.unwrap();
        check("library", target, &serde_json::from_str(&decision.to_json()).unwrap());
    }
    library.close().await;
}

#[tokio::test]
async fn decisions_over_every_way_on_servers() {
    every_way(Place::Servers).await;
}

#[tokio::test]
async fn decisions_over_every_way_in_a_file() {
    every_way(Place::File).await;
}

/// Who asks twice about one event is told the same, to the last byte; who observes it is told that too, once.
async fn observers(place: Place) {
    let sink = Sink::start().await;
    let hooks = [gate("freeze", "deploy", FREEZE, ""), hook(&sink, "watch", "deploy", "")];
    let site = site(place).await.with_gateway().hooks(&hooks.join("\n")).set(ALLOW, "sh");
    let Stage { site, mut worker, .. } = stage(place, site).await;
    for (target, verdict) in [("lab", "allow"), ("prod", "deny")] {
        let event = with_data("deploy", target, &json!({ "target": target }));
        let (status, first) = post(&worker, "30s", STRUCTURED, event.clone()).await;
        assert_eq!(status, 200, "{first}");
        let is_told = |calls: &[Call]| calls.iter().any(|call| call.event == target);
        sink.until("the observer", Duration::from_secs(60), is_told).await;
        assert_eq!(post(&worker, "30s", STRUCTURED, event).await, (200, first.clone()), "the same once more");
        let call = sink.calls().into_iter().find(|call| call.event == target).unwrap();
        let (payload, decision): (Value, Value) =
            (serde_json::from_slice(&call.body).unwrap(), serde_json::from_str(&first).unwrap());
        assert_eq!(payload["decision"]["verdict"], verdict, "{payload:#}");
        assert_eq!(payload["decision"], decision);
    }
    // Of both targets the second request, and its event once more.
    worker.until_metric("hookfleet_claims_total", "\"decided\"", 2.0).await;
    worker.until_metric("hookfleet_claims_total", "\"done\"", 2.0).await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 2, "each once");
    assert!(site.letters().is_empty());
}

#[tokio::test]
async fn observers_run_after_with_the_decision_on_servers() {
    observers(Place::Servers).await;
}

#[tokio::test]
async fn observers_run_after_with_the_decision_in_a_file() {
    observers(Place::File).await;
}

/// A gate that fails: open, it is as if nobody had asked it; closed, it refuses. Both leave a letter that is no work to be
/// done.
async fn failing(place: Place) {
    let hooks = [("open", "lenient"), ("closed", "strict")].map(|(failure, id)| {
        let more = format!(", on_failure: {failure}, retry: {{ attempts: 2, backoff: {{ initial: 50ms }} }}");
        gate(id, failure, "echo it is broken >&2; exit 1", &more)
    });
    let site = site(place).await.with_gateway().hooks(&hooks.join("\n")).set(ALLOW, "sh");
    let Stage { site, mut worker, .. } = stage(place, site.set("HOOKFLEET_BREAKER_FAILURES", "0")).await;
    let open = posted(&worker, with_data("open", "1", &json!({}))).await;
    assert_eq!((&open["verdict"], &open["reason"]), (&json!("allow"), &Value::Null), "{open:#}");
    let closed = posted(&worker, with_data("closed", "2", &json!({}))).await;
    let reason = "hook `strict` failed after 2 attempt(s): exit 1: it is broken";
    assert_eq!((&closed["verdict"], &closed["reason"]), (&json!("deny"), &json!(reason)), "{closed:#}");
    for decision in [open, closed] {
        assert_eq!(decision["matched_hooks"], json!([]), "none has answered");
        let (attempts, verdict) = (&decision["hooks"][0]["attempts"], &decision["hooks"][0]["verdict"]);
        assert_eq!((attempts, verdict), (&json!(2), &Value::Null), "{decision:#}");
    }

    for letter in until_letters(&site, 2, "open").await {
        let at = |pointer| letter.pointer(pointer).unwrap();
        assert_eq!((at("/letter/for_record"), at("/letter/class")), (&json!(true), &json!("exhausted")));
        assert_eq!(at("/letter/attempts").as_array().unwrap().len(), 2, "{letter:#}");
        let id = at("/letter/id").as_str().unwrap();
        let refused = site.run(&["dead-letters", "replay", id]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains("is of a gate, for the record"), "{said}");
        site.ok(&["dead-letters", "resolve", id, "--reason", "seen to"]);
    }
    until_letters(&site, 2, "resolved").await;
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn who_fails_open_and_who_fails_closed_on_servers() {
    failing(Place::Servers).await;
}

#[tokio::test]
async fn who_fails_open_and_who_fails_closed_in_a_file() {
    failing(Place::File).await;
}

/// A few lines of Python are a client.
#[tokio::test]
async fn a_client_in_python() {
    let site = site(Place::Servers).await.hooks(&gate("freeze", "deploy", FREEZE, "")).set(ALLOW, "sh");
    let mut worker = site.worker().await;
    let python = std::env::var("HOOKFLEET_TEST_PYTHON").expect("set by tests/run: a python with pika");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/decide.py");
    let url = shared().await.0.url();
    for (target, verdict) in [("lab", "allow"), ("prod", "deny")] {
        let data = json!({ "target": target }).to_string();
        let asked = [script, url.as_str(), site.namespace.as_str(), "deploy", target, data.as_str()];
        let output = tokio::process::Command::new(&python).args(asked).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let decision: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(decision["verdict"], verdict, "{decision:#}");
    }
    assert_eq!(worker.stop().await, Some(0));
}
