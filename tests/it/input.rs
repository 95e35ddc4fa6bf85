//! Bad input: a letter with the raw body and the reason; the queue goes on. Nothing is ever dropped in silence.

use std::time::Duration;

use hookfleet::domain::dead_letter::Body;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;

use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::event;
use crate::servers::{MESSAGE_BYTES_MAX, Rabbit, client, shared};
use crate::sink::{Answer, Sink};

/// A publisher that knows nothing of this project.
pub(crate) struct Stranger {
    channel: Channel,
    exchange: String,
    _connection: Connection,
}

impl Stranger {
    pub(crate) async fn new(rabbit: &Rabbit, exchange: String) -> Self {
        let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { channel, exchange, _connection: connection }
    }

    pub(crate) async fn send(&self, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let confirm =
            self.channel.basic_publish(self.exchange.as_str().into(), key.into(), options, body, properties).await;
        confirm.unwrap().await.unwrap();
    }
}

fn plain(kind: Option<&str>, id: Option<&str>) -> BasicProperties {
    let mut properties = BasicProperties::default().with_content_type("application/json".into());
    if let Some(kind) = kind {
        properties = properties.with_type(kind.into());
    }
    if let Some(id) = id {
        properties = properties.with_message_id(id.into());
    }
    properties
}

fn classes(letters: &[Value]) -> Vec<(&str, &str)> {
    let mut classes: Vec<(&str, &str)> = letters
        .iter()
        .map(|letter| {
            let at = |pointer| letter.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            (at("/letter/class"), at("/letter/error"))
        })
        .collect();
    classes.sort_unstable();
    classes
}

#[tokio::test]
async fn what_is_no_event_becomes_a_letter_and_the_queue_goes_on() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "**", ""));
    let Stage { site, worker: _worker, .. } = stage(Place::Servers, site).await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    let ce = || BasicProperties::default().with_content_type("application/cloudevents+json".into());

    stranger.send("a", b"{ no json", ce()).await;
    stranger.send("a", &[0xff, 0xfe, 0x00], ce()).await;
    stranger.send("a", b"hello", BasicProperties::default().with_content_type("text/plain".into())).await;
    stranger.send("a", &vec![b' '; 1024 * 1024 + 1], ce()).await;
    stranger.send("a", br#"{"specversion":"1.0","type":"a","source":"/s"}"#, ce()).await;
    stranger.send("a", b"{}", plain(Some("a"), None)).await;
    stranger.send("a", b"{}", plain(None, Some("1"))).await;
    stranger.send("a", br#"{"specversion":"0.3","id":"1","type":"a","source":"/s"}"#, ce()).await;
    // After all of that, two good ones: plain JSON, and CloudEvents with forged headers of ours.
    stranger.send("whatever", br#"{"x":1}"#, plain(Some("order.paid"), Some("plain-1"))).await;
    let mut forged = FieldTable::default();
    for (name, value) in [("hookfleet-kind", "invocation"), ("hookfleet-hook", "other"), ("hookfleet-version", "9")] {
        forged.insert(ShortString::from(name), AMQPValue::LongString(value.into()));
    }
    forged.insert("hookfleet-deaths".into(), AMQPValue::LongLongInt(4));
    forged.insert("x-death".into(), AMQPValue::FieldArray(lapin::types::FieldArray::default()));
    let properties = ce().with_headers(forged).with_user_id("guest".into()).with_expiration("60000".into());
    stranger.send("a", &event("a", "forged-1"), properties).await;

    sink.until("the good ones", Duration::from_secs(20), |calls| calls.len() == 2).await;
    let letters = until_letters(&site, 8, "open").await;
    let found = classes(&letters);
    let expected = [
        ("invalid", "expected CloudEvents JSON, or plain JSON"),
        ("invalid", "expected specversion"),
        ("invalid", "the body has 1048577 bytes, the limit is 1000000"),
        ("unidentified", "expected the attribute `id`"),
        ("unidentified", "expected the message property `message_id`"),
        ("unreadable", "expected an event in JSON"),
        ("unreadable", "expected an event in UTF-8"),
        ("unreadable", "expected content type"),
    ];
    for ((class, error), (expected_class, expected_error)) in found.iter().zip(expected) {
        assert_eq!(*class, expected_class, "{error}");
        assert!(error.starts_with(expected_error), "{error}");
    }
    let raw = letters
        .iter()
        .find(|letter| letter.pointer("/letter/client/properties/content_type").is_some_and(|it| it == "text/plain"));
    let id = raw.unwrap().pointer("/letter/id").unwrap().as_str().unwrap();
    assert!(site.ok(&["dead-letters", "show", id, "--body", "--json"]).contains("\"text\":\"hello\""));
}

/// A message as large as the broker takes, the same in bytes that JSON makes six of, and one that only grows too large
/// on its way: each is a letter with its whole body, and the queue goes on.
#[tokio::test]
async fn what_is_as_large_as_it_may_be_is_a_letter_too() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ""));
    let Stage { site, worker: _worker, publisher } = stage(Place::Servers, site).await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    for byte in [b'x', 1, 0xff] {
        stranger.send("a", &vec![byte; MESSAGE_BYTES_MAX], plain(Some("a"), Some("1"))).await;
    }
    let lane = Stranger::new(rabbit, format!("{}.lane", site.namespace)).await;
    let mut headers = FieldTable::default();
    headers.insert("hookfleet-version".into(), AMQPValue::LongLongInt(9));
    headers.insert("hookfleet-large".into(), AMQPValue::LongString("x".repeat(130_950).into()));
    lane.send("default", b"{}", BasicProperties::default().with_headers(headers)).await;
    publisher.send(event("a", "after")).await;

    sink.until("the good one", Duration::from_secs(30), |calls| calls.len() == 1).await;
    let letters = until_letters(&site, 4, "open").await;
    let found = classes(&letters);
    assert!(found[..3].iter().all(|letter| letter.1.starts_with("the body has 16777216 bytes")), "{found:?}");
    assert!(found[3].1.starts_with("the headers have 131"), "{found:?}");
    for letter in letters {
        let id = letter.pointer("/letter/id").unwrap().as_str().unwrap();
        let whole: Value = serde_json::from_str(&site.ok(&["dead-letters", "show", id, "--body", "--json"])).unwrap();
        let body: Body = serde_json::from_value(whole.pointer("/letter/body").unwrap().clone()).unwrap();
        let body = body.bytes().unwrap();
        assert!(body.len() == 2 || body.len() == MESSAGE_BYTES_MAX, "{id}: {}", body.len());
    }
}

/// An unidentified event is replayed under its letter's id; an unreadable one can only be edited.
#[tokio::test]
async fn an_unidentified_event_is_replayed_under_the_id_of_its_letter() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "**", ""));
    let Stage { site, worker: _worker, .. } = stage(Place::Servers, site).await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    stranger.send("a", b"{\"x\":1}", plain(Some("a"), None)).await;
    let letters = until_letters(&site, 1, "open").await;
    let id = letters[0].pointer("/letter/id").unwrap().as_str().unwrap();
    site.ok(&["dead-letters", "replay", id, id]);
    sink.until("the replay", Duration::from_secs(20), |calls| !calls.is_empty()).await;
    until_letters(&site, 1, "resolved").await;
    assert_eq!(sink.calls()[0].event, id);
    assert_eq!(sink.count(), 1);

    stranger.send("a", b"{ no json", BasicProperties::default()).await;
    let began = std::time::Instant::now();
    let unreadable = loop {
        let letters = site.letters();
        if let Some(letter) = letters.iter().find(|letter| letter.pointer("/letter/class").unwrap() == "unreadable") {
            break letter.pointer("/letter/id").unwrap().as_str().unwrap().to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let refused = site.run(&["dead-letters", "replay", &unreadable]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it can only be edited"));
}

/// A message of a newer version is left to newer workers: it goes round, byte for byte, and is no letter.
#[tokio::test]
async fn a_newer_message_is_left_alone() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "**", ""));
    let Stage { site, worker, .. } = stage(Place::Servers, site).await;
    let stranger = Stranger::new(rabbit, format!("{}.lane", site.namespace)).await;
    let mut headers = FieldTable::default();
    headers.insert("hookfleet-version".into(), AMQPValue::LongLongInt(2));
    stranger.send("default", &event("a", "new-1"), BasicProperties::default().with_headers(headers)).await;
    let began = std::time::Instant::now();
    while worker.metric("hookfleet_deliveries_total", "default").await < 2.0 {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come round");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(sink.count(), 0);
    assert!(site.letters().is_empty());
}

/// A target on a private address is refused unless it is allowed, and an event claimed by another body is counted.
#[tokio::test]
async fn blocked_targets_and_conflicting_events() {
    let sink = Sink::start().await;
    let hooks = [
        hook(&sink, "h", "a", ""),
        "  - { id: private, on: b, run: { http: { url: \"http://10.255.255.1/x\" } } }".to_owned(),
        "  - { id: off, on: c, run: { command: { argv: [\"true\"] } } }".to_owned(),
    ];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let Stage { site, worker, publisher } = stage(Place::Servers, site).await;
    publisher.send(event("b", "1")).await;
    publisher.send(event("c", "2")).await;
    let letters = until_letters(&site, 2, "open").await;
    assert!(letters.iter().all(|letter| letter.pointer("/letter/class").unwrap() == "target_blocked"), "{letters:#?}");

    publisher.send(event("a", "same")).await;
    sink.until("the first", Duration::from_secs(10), |calls| calls.len() == 1).await;
    publisher.send(event("a", "same")).await;
    publisher.send(r#"{"specversion":"1.0","type":"a","source":"/test","id":"same","data":"other"}"#.into()).await;
    let began = std::time::Instant::now();
    while worker.metric("hookfleet_events_conflicting_total", "").await < 1.0 {
        // Another cell may find the first one under way yet: then it comes round when that lease is over.
        assert!(began.elapsed() < Duration::from_secs(60), "the conflict was not counted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sink.count(), 1);
}

/// A command hook gets the payload on stdin; its failure is retried; commands run only where they are allowed.
#[tokio::test]
async fn a_command_hook_runs_where_it_is_allowed() {
    let site = site(Place::File).await;
    let out = site.folder.path().join("out.json");
    let hooks = format!(
        "  - {{ id: cmd, on: a, run: {{ command: {{ argv: [sh, -c, \"cat > {}\"] }} }} }}",
        out.to_str().unwrap()
    );
    let site = site.hooks(&hooks).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let Stage { publisher, worker: _worker, .. } = stage(Place::File, site).await;
    publisher.send(event("a", "1")).await;
    let began = std::time::Instant::now();
    let payload: Value = loop {
        let read = std::fs::read(&out).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(payload) = read {
            break payload;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the command did not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(payload.pointer("/contract_version").unwrap(), 1);
    assert_eq!(payload.pointer("/event/id").unwrap(), "1");
    assert_eq!(payload.pointer("/hook").unwrap(), "cmd");
}

/// The gateway: 202 after the confirm, a clear problem for what is no event, ids assigned where they are missing.
#[tokio::test]
async fn the_event_gateway() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(200));
    let site = site(Place::File).await.hooks(&hook(&sink, "h", "a", ""));
    let Stage { worker, .. } = &stage(Place::File, site).await;
    let client = client();
    let post = async |body: &str, kind: &str| {
        let sent = client.post(worker.url("/v1/events")).header("content-type", kind.to_owned()).body(body.to_owned());
        let answer = sent.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, answer) = post(r#"{"type":"a","source":"/s"}"#, "application/json").await;
    assert_eq!(status, 202);
    let id = answer.get("id").unwrap().as_str().unwrap().to_owned();
    sink.until("the event", Duration::from_secs(10), |calls| calls.len() == 1).await;
    assert_eq!(sink.calls()[0].event, id);

    for (body, kind, status, detail) in [
        ("{", "application/json", 422, "expected a JSON object"),
        (r#"{"source":"/s"}"#, "application/json", 422, "expected the attribute `type`"),
        ("x", "text/plain", 415, "expected application/cloudevents+json"),
    ] {
        let (found, problem) = post(body, kind).await;
        assert_eq!(found, status);
        let text = problem.get("detail").unwrap().as_str().unwrap();
        assert!(text.starts_with(detail), "{text}");
    }
    let big = format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(1024 * 1024));
    let sent = client.post(worker.url("/v1/events")).header("content-type", "application/json").body(big);
    assert!(matches!(sent.send().await.unwrap().status().as_u16(), 413 | 422));
}
