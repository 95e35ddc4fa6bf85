//! The ways to publish: structured and binary, over AMQP and HTTP, batches, the library, and what becomes of bad input.

use std::time::{Duration, Instant};

use hookfleet::{Event, Publisher as Library, PublisherOptions};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::input::Stranger;
use crate::pipeline::{Place, hook, site, until_letters};
use crate::servers::redis::Redis;
use crate::servers::{Rabbit, client, shared};
use crate::sink::{Call, Sink};

#[path = "../../examples/publish.rs"]
#[allow(dead_code, reason = "an example has a `main` too")]
mod example;

/// What a gateway answers to a POST of this body.
async fn post(
    worker: &Worker,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> (u16, Option<String>, Value) {
    let mut request = client().post(worker.url("/v1/events")).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), retry, answer.json().await.unwrap())
}

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
/// What the data is, to the last digit.
const DATA: &str = r#"{"big":18446744073709551617,"small":0.10}"#;

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value.as_bytes()))
}

fn headers(attributes: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in attributes {
        table.insert(ShortString::from(*name), value.clone());
    }
    table
}

fn structured(id: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/ways","type":"a","time":"2018-04-05T03:56:24Z","note":"grün","datacontenttype":"application/json","data":{DATA}}}"#
    )
}

/// One event by each of the five ways.
async fn publish(way: &str, id: &str, stranger: &Stranger, worker: &Worker) {
    let accepted = match way {
        "amqp-structured" => {
            let properties = BasicProperties::default().with_content_type(STRUCTURED.into());
            return stranger.send("a", structured(id).as_bytes(), properties).await;
        }
        "amqp-binary" => {
            let attributes = [
                ("cloudEvents:specversion", text("1.0")),
                ("cloudEvents:id", text(id)),
                ("cloudEvents_source", text("/ways")),
                ("cloudEvents_type", text("a")),
                ("cloudEvents:time", AMQPValue::Timestamp(1_522_900_584)),
                ("cloudEvents:note", text("grün")),
            ];
            let properties = BasicProperties::default().with_content_type("application/json".into());
            return stranger.send("a", DATA.as_bytes(), properties.with_headers(headers(&attributes))).await;
        }
        "http-structured" => post(worker, &[("content-type", STRUCTURED)], structured(id)).await,
        "http-binary" => {
            let attributes = [
                ("content-type", "application/json"),
                ("ce-specversion", "1.0"),
                ("ce-id", id),
                ("ce-source", "/ways"),
                ("ce-type", "a"),
                ("ce-time", "2018-04-05T03:56:24Z"),
                ("ce-note", "gr%C3%BCn"),
            ];
            post(worker, &attributes, DATA).await
        }
        _ => post(worker, &[("content-type", BATCH)], format!("[{}]", structured(id))).await,
    };
    assert_eq!(accepted.0, 202, "{way}: {}", accepted.2);
}

/// Waits until so many events were taken in hand: the copies too.
async fn until_delivered(worker: &Worker, count: f64) {
    let began = Instant::now();
    while worker.metric("hookfleet_deliveries_total", "events").await < count {
        assert!(began.elapsed() < Duration::from_secs(20), "the copies do not arrive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn event(call: &Call) -> Value {
    let payload: Value = serde_json::from_slice(&call.body).unwrap();
    payload.get("event").unwrap().clone()
}

/// The same event in every way is the same event: hooks get the same JSON, and get it once.
#[tokio::test]
async fn an_event_is_the_same_in_every_way() {
    const WAYS: [&str; 5] = ["amqp-structured", "amqp-binary", "http-structured", "http-binary", "batch"];
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.with_gateway().hooks(&hook(&sink, "h", "**", ""));
    let mut worker = site.worker().await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    for way in WAYS {
        publish(way, way, &stranger, &worker).await;
        publish(way, "one for all", &stranger, &worker).await;
    }
    sink.until("one a way and one for all", Duration::from_secs(20), |calls| calls.len() > WAYS.len()).await;
    until_delivered(&worker, 10.0).await;
    assert_eq!(worker.stop().await, Some(0));
    let calls = sink.calls();
    assert_eq!(calls.len(), WAYS.len() + 1, "{calls:#?}");
    for call in calls {
        let expected: Value = serde_json::from_str(&structured(&call.event)).unwrap();
        assert_eq!(event(&call), expected);
        assert!(String::from_utf8_lossy(&call.body).contains(DATA), "every digit: {:?}", call.body);
    }
    assert!(site.letters().is_empty());
}

/// Python's pika in both modes: fifty events, each published twice, each run once.
#[tokio::test]
async fn python_publishes_in_both_modes() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "order.*", ""));
    let mut worker = site.worker().await;
    let python = std::env::var("HOOKFLEET_TEST_PYTHON").expect("set by tests/run: a python with pika");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/publish.py");
    for mode in ["binary", "structured"] {
        let output = tokio::process::Command::new(&python)
            .args([script, &rabbit.port.to_string(), &format!("{}.events", site.namespace), "50", mode])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sink.until("all", Duration::from_secs(20), |calls| calls.len() >= 50).await;
    }
    until_delivered(&worker, 100.0).await;
    assert_eq!(worker.stop().await, Some(0));
    let calls = sink.calls();
    assert_eq!(calls.len(), 50);
    for call in calls {
        let number: u64 = call.event.strip_prefix("py-").unwrap().parse().unwrap();
        let expected = json!({
            "specversion": "1.0", "id": call.event, "source": "/python", "type": "order.paid", "round": 7,
            "time": "2026-11-20T12:00:00Z", "datacontenttype": "application/json", "data": { "n": number },
        });
        assert_eq!(event(&call), expected);
    }
}

/// What is no event over AMQP is a letter with the body and the headers that came.
#[tokio::test]
async fn bad_attributes_are_letters() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "**", ""));
    let _worker = site.worker().await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    let good = [
        ("cloudEvents:specversion", text("1.0")),
        ("cloudEvents:id", text("1")),
        ("cloudEvents:source", text("/s")),
        ("cloudEvents:type", text("a")),
    ];
    let with = |more: &[(&'static str, AMQPValue)]| [&good[..], more].concat();
    let table = AMQPValue::FieldTable(FieldTable::default());
    for (attributes, body) in [
        (vec![good[0].clone(), good[2].clone(), good[3].clone()], "{}"),
        (with(&[("cloudEvents_id", text("2"))]), "{}"),
        (with(&[("cloudEvents:x", table)]), "{}"),
        (with(&[("cloudEvents:Upper", text("x"))]), "{}"),
        (with(&[]), "{ no json"),
    ] {
        let properties = BasicProperties::default().with_content_type("application/json".into());
        stranger.send("a", body.as_bytes(), properties.with_headers(headers(&attributes))).await;
    }
    let letters = until_letters(&site, 5, "open").await;
    let at =
        |letter: &Value, pointer: &str| letter.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found: Vec<_> =
        letters.iter().map(|letter| (at(letter, "/letter/class"), at(letter, "/letter/error"))).collect();
    found.sort();
    let expected = [
        ("invalid", "expected attribute names of a-z and 0-9, found the header \"cloudEvents:Upper\""),
        ("invalid", "expected the attribute `x` as a text in UTF-8, found a table"),
        ("unidentified", "expected the attribute `id`, found none"),
        ("unidentified", "the attribute `id` is given twice"),
        ("unreadable", "expected data in JSON"),
    ];
    for ((class, error), (expected_class, expected_error)) in found.iter().zip(expected) {
        assert_eq!(class, expected_class, "{error}");
        assert!(error.starts_with(expected_error), "{error}");
    }
    for letter in &letters {
        let shown = site.ok(&["dead-letters", "show", &at(letter, "/letter/id"), "--body", "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(at(&shown, "/letter/client/headers/cloudEvents:type"), "a");
        assert!(["{}", "{ no json"].contains(&at(&shown, "/letter/body/text").as_str()), "{shown}");
    }
    assert_eq!(sink.count(), 0);
}

/// A batch is published whole or not at all, as far as its events can be judged; ids that were assigned are told, and
/// with them the batch can be sent again.
#[tokio::test]
async fn a_batch_over_http() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.hooks(&hook(&sink, "h", "a", ""));
    let mut worker = site.worker().await;
    let batch = |events: &[Value]| Value::from(events.to_vec()).to_string();
    let of = |status: u16, answer: &(u16, Option<String>, Value), detail: &str| {
        assert_eq!(answer.0, status, "{}", answer.2);
        let said = answer.2.get("detail").and_then(Value::as_str).unwrap_or_default();
        assert!(said.starts_with(detail), "{said}");
    };
    let content = [("content-type", BATCH)];
    let mut events: Vec<Value> = (0..100).map(|n| json!({ "type": "a", "source": "/s", "data": n })).collect();
    let bad = [events.clone(), vec![json!({ "source": "/s" })]].concat();
    of(422, &post(&worker, &content, batch(&bad)).await, "nothing was published, since 1 of 101 (counted from 0)");
    of(422, &post(&worker, &content, "{}").await, "expected a JSON array of events");
    let large = json!({ "type": "a", "data": "x".repeat(1024 * 1024) });
    of(413, &post(&worker, &content, batch(&[large])).await, "event 0: the event has 1048");
    let single = [("content-type", "application/json")];
    of(413, &post(&worker, &single, " ".repeat(1024 * 1024 + 1)).await, "the request is larger than 1000000 bytes");
    let binary = [("content-type", "text/plain"), ("ce-type", "a"), ("ce-id", "50%")];
    of(422, &post(&worker, &binary, "x").await, "the header `ce-id`: expected two hexadecimal digits");

    let (status, _, answer) = post(&worker, &content, batch(&events)).await;
    assert_eq!(status, 202, "{answer}");
    let told = answer.get("events").unwrap().as_array().unwrap().clone();
    assert!(told.iter().all(|event| event.get("confirmed").unwrap() == true));
    for (event, told) in events.iter_mut().zip(&told) {
        event["id"] = told["id"].clone();
    }
    assert_eq!(post(&worker, &content, batch(&events)).await.0, 202);
    sink.until("all", Duration::from_secs(20), |calls| calls.len() >= 100).await;
    until_delivered(&worker, 200.0).await;
    assert_eq!(worker.stop().await, Some(0));
    let mut found: Vec<String> = sink.calls().into_iter().map(|call| call.event).collect();
    let mut expected: Vec<String> = told.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "each once, and nothing of what was refused");
}

/// The broker dies under the gateway and the library: the gateway says 503 and which ids it gave; the library keeps
/// trying. Once the broker is back, everything is delivered once.
#[tokio::test]
async fn publishers_outlive_their_broker() {
    let (mut rabbit, redis) = tokio::join!(Rabbit::start(), Redis::start());
    let sink = Sink::start().await;
    let site = Site::servers(&rabbit, &redis).with_gateway().hooks(&hook(&sink, "h", "a", ""));
    let mut worker = site.worker().await;
    let options = PublisherOptions { patience: Duration::from_secs(90), ..PublisherOptions::default() };
    let library = Library::connect_with(&rabbit.url(), &site.namespace, options).await.unwrap();
    let event = |n: usize| Event::builder("a").id(&format!("library-{n}")).data(&n).build().unwrap();
    library.publish(&event(0)).await.unwrap();
    // A RabbitMQ that is killed within a second of its first stream forgets for good that it has one (3.10.8).
    tokio::time::sleep(Duration::from_secs(2)).await;
    rabbit.kill();

    let began = Instant::now();
    let batch = json!([{ "type": "a", "id": "first", "source": "/s" }, { "type": "a", "source": "/s" }]);
    let (status, retry, problem) = post(&worker, &[("content-type", BATCH)], batch.to_string()).await;
    assert_eq!((status, retry.as_deref()), (503, Some("1")), "{problem}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(problem.get("confirmed").unwrap(), 0);
    let told = problem.get("events").unwrap().as_array().unwrap().clone();
    assert_eq!(told[0].get("id").unwrap(), "first");
    assert_eq!(told[1].get("id").unwrap().as_str().unwrap().len(), 32);
    let (status, retry, problem) = post(&worker, &[("content-type", STRUCTURED)], structured("lost")).await;
    assert_eq!((status, retry.as_deref()), (503, Some("1")), "{problem}");
    assert_eq!(problem.pointer("/event/id").unwrap(), "lost");

    let many: Vec<Event> = (1..=100).map(event).collect();
    let publishing = futures_util::future::join_all(many.iter().map(|event| library.publish(event)));
    let ((), confirmed) = tokio::join!(rabbit.restart(), publishing);
    let failed: Vec<String> =
        confirmed.into_iter().filter_map(Result::err).map(|unpublished| unpublished.to_string()).collect();
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    library.close().await;
    assert!(library.publish(&event(0)).await.unwrap_err().to_string().contains("closed"));

    worker.until_ready().await;
    let again: Vec<Value> = told.iter().map(|it| json!({ "type": "a", "source": "/s", "id": it["id"] })).collect();
    let (status, _, answer) = post(&worker, &[("content-type", BATCH)], Value::from(again).to_string()).await;
    assert_eq!(status, 202, "{answer}");
    sink.until("all", Duration::from_secs(30), |calls| calls.len() >= 103).await;
    assert_eq!(worker.stop().await, Some(0));
    // What the gateway could not see confirmed may have arrived all the same; nothing has run twice.
    let calls = sink.calls();
    let keys: std::collections::HashSet<&str> = calls.iter().map(|call| call.key.as_str()).collect();
    assert_eq!(keys.len(), calls.len());
    assert!((103..=104).contains(&calls.len()), "{}", calls.len());
}

/// The example of the library, against a broker and a worker.
#[tokio::test]
async fn the_example_publishes() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "order.paid", ""));
    assert_eq!(example::run(&rabbit.url(), &site.namespace).await.unwrap(), 101); // before there is a worker
    let mut worker = site.worker().await;
    assert_eq!(example::run(&rabbit.url(), &site.namespace).await.unwrap(), 101); // the same ids again
    sink.until("all", Duration::from_secs(20), |calls| calls.len() >= 101).await;
    until_delivered(&worker, 202.0).await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 101);
    let first = sink.calls().into_iter().find(|call| call.event == "order-0-paid").unwrap();
    assert_eq!(event(&first).pointer("/data/amount").unwrap(), "19.90");
    assert!(Library::connect("nonsense", "x").await.err().unwrap().to_string().contains("expected a URL"));
}
