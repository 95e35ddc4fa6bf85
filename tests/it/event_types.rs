//! Declared event types: what does not fit a strict one is refused where it is published, and buried where it arrives all
//! the same; a letter of it can be replayed once the schema is mended.

use std::collections::BTreeMap;
use std::time::Duration;

use hookfleet::catalog::Terms;
use hookfleet::catalog::files::Files;
use hookfleet::publish::Event;
use serde_json::{Value, json};

use crate::input::Stranger;
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::Publisher;
use crate::servers::{client, shared};
use crate::sink::Sink;

const TYPES: &str = "events:
  order.paid: { schema: { type: object, required: [order], properties: { order: { type: integer } } }, validate: strict }
  order.sent: { schema: { type: object, required: [order] } }
  order.lost: { schema: { type: object, required: [order] }, validate: off }
";

fn event(kind: &str, id: &str, data: &Value) -> bytes::Bytes {
    json!({ "specversion": "1.0", "type": kind, "source": "/shop", "id": id, "data": data }).to_string().into()
}

async fn post(worker: &crate::fleet::Worker, body: bytes::Bytes, content_type: &str) -> (u16, Value) {
    let request = client().post(worker.url("/v1/events")).header("content-type", content_type).body(body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// What does not fit is refused with its path and rule, by the command line and the gateway; the rest goes through.
async fn publishers_are_told(place: Place) {
    let sink = Sink::start().await;
    let site = site(place).await.with_gateway().hooks(&format!("{}\n{TYPES}", hook(&sink, "h", "**", "")));
    let worker = site.worker().await;
    let wrong = "the data is not what the type `order.paid` declares: /order: value is not of type \"integer\" \
                 (rule /properties/order/type)";

    let refused = site.run(&["publish", "--type", "order.paid", "--id", "1", "--data", r#"{"order":"x"}"#]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains(wrong), "{said}");
    let file = site.folder.path().join("events.ndjson");
    let lines = [event("order.paid", "1", &json!({ "order": 1 })), event("order.paid", "2", &json!({}))];
    std::fs::write(&file, lines.join(&b'\n')).unwrap();
    let refused = site.run(&["publish", "--file", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("nothing was published: line 2: the data is not"), "{said}");

    let (status, problem) = post(&worker, event("order.paid", "1", &json!({ "order": "x" })), "application/json").await;
    assert_eq!((status, problem["detail"].as_str()), (422, Some(wrong)));
    let rule = "/properties/order/type";
    let error = json!({ "path": "/order", "rule": rule, "error": "value is not of type \"integer\"" });
    assert_eq!(problem["misfits"][0]["errors"], json!([error]));
    let batch = format!("[{}]", lines.map(|line| String::from_utf8(line.to_vec()).unwrap()).join(","));
    let (status, problem) = post(&worker, batch.into(), "application/cloudevents-batch+json").await;
    assert_eq!((status, &problem["misfits"][0]["event"]), (422, &json!(1)), "{problem}");
    assert!(worker.metric("hookfleet_events_misfit_total", "refused").await >= 2.0);

    // These are taken: it fits, it is only warned of, nobody asked, nobody declared it.
    site.ok(&["publish", "--type", "order.paid", "--id", "fits", "--data", r#"{"order":17}"#]);
    let warned = site.run(&["publish", "--type", "order.sent", "--id", "warned", "--data", "{}"]);
    assert!(warned.status.success());
    let said = String::from_utf8_lossy(&warned.stderr);
    let warning = said.lines().find(|line| !line.starts_with("using ")).unwrap_or_default();
    assert!(warning.starts_with("warning: the data is not what the type `order.sent` declares"), "{said}");
    site.ok(&["publish", "--type", "order.lost", "--id", "off", "--data", "{}"]);
    site.ok(&["publish", "--type", "order.unknown", "--id", "undeclared", "--data", "[1]"]);
    sink.until("the four", Duration::from_secs(20), |calls| calls.len() >= 4).await;
    let mut ids: Vec<String> = sink.calls().iter().map(|call| call.event.clone()).collect();
    ids.sort();
    assert_eq!(ids, ["fits", "off", "undeclared", "warned"]);
    assert!((worker.metric("hookfleet_events_misfit_total", "action=\"warned\"").await - 1.0).abs() < 0.1);
    assert!(site.letters().is_empty());

    // Many are counted, and told once a minute.
    let lines = (0..50).map(|n| event("order.sent", &format!("many-{n}"), &json!({})));
    std::fs::write(&file, lines.collect::<Vec<_>>().join(&b'\n')).unwrap();
    site.ok(&["publish", "--file", file.to_str().unwrap()]);
    sink.until("all of them", Duration::from_secs(20), |calls| calls.len() >= 54).await;
    assert!((worker.metric("hookfleet_events_misfit_total", "action=\"warned\"").await - 51.0).abs() < 0.1);
    let told = worker.log().lines().filter(|line| line.contains("an event is not what its type declares")).count();
    assert!((1..=2).contains(&told), "once a minute: {}", worker.log());
}

#[tokio::test]
async fn publishers_are_told_on_servers() {
    publishers_are_told(Place::Servers).await;
}

#[tokio::test]
async fn publishers_are_told_in_a_file() {
    publishers_are_told(Place::File).await;
}

/// Without a hooks file beside it, the owner of the file tells `publish`.
#[tokio::test]
async fn the_owner_of_the_file_tells() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.hooks(&format!("{}\n{TYPES}", hook(&sink, "h", "**", "")));
    let _worker = site.worker().await;
    let elsewhere = site.clone().set("HOOKFLEET_HOOKS", "/no/such/file.yaml");
    let refused = elsewhere.run(&["publish", "--type", "order.paid", "--data", "{}"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("\"order\" is a required property"), "{said}");
}

/// What comes over AMQP all the same is a letter before any hook runs. Its replay is checked again: open as long as it
/// does not fit, resolved once the schema is mended.
#[tokio::test]
async fn what_arrives_all_the_same_is_a_letter() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let hooks = hook(&sink, "h", "**", "");
    let site = site(Place::Servers).await.hooks(&format!("{hooks}\n{TYPES}"));
    let Stage { site, mut worker, publisher } = stage(Place::Servers, site).await;
    let Publisher::Amqp(_) = &publisher else { panic!("over AMQP") };
    publisher.send(event("order.paid", "1", &json!({ "order": "hunter2" }))).await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    let ce = lapin::BasicProperties::default().with_content_type("application/cloudevents+json".into());
    stranger.send("order.paid", &event("order.paid", "2", &json!({ "order": "hunter2" })), ce).await;
    publisher.send(event("order.paid", "good", &json!({ "order": 7 }))).await;
    let letters = until_letters(&site, 2, "open").await;
    for letter in &letters {
        assert_eq!(letter.pointer("/letter/class").unwrap(), "invalid");
        assert_eq!(letter.pointer("/letter/event/type").unwrap(), "order.paid");
        let error = letter.pointer("/letter/error").unwrap().as_str().unwrap();
        assert!(error.contains("/order: value is not of type \"integer\"") && !error.contains("hunter2"), "{error}");
    }
    sink.until("the good one", Duration::from_secs(20), |calls| calls.len() == 1).await;
    let id = letters[0].pointer("/letter/id").unwrap().as_str().unwrap().to_owned();

    site.ok(&["dead-letters", "replay", &id]);
    let began = std::time::Instant::now();
    loop {
        let shown: Value = serde_json::from_str(&site.ok(&["dead-letters", "show", &id, "--json"])).unwrap();
        if shown["state"] == "open" && shown["letter"]["generation"] == 1 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{shown:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(until_letters(&site, 2, "open").await.len(), 2, "the same letter again");
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.calls().len(), 1);

    let site = site.hooks(&hooks); // mended
    let mut worker = site.worker().await;
    for letter in &letters {
        site.ok(&["dead-letters", "replay", letter.pointer("/letter/id").unwrap().as_str().unwrap()]);
    }
    until_letters(&site, 2, "resolved").await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.calls().len(), 3);
}

/// The vocabularies that ship: each of them alone, all of them together, and every example an event of its type.
#[test]
fn the_vocabularies_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/events");
    let terms = Terms { hint_max: Duration::from_secs(1), env: &|_| None, egress: &[], callbacks: None };
    let catalog = Files::native(folder).load(&terms).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(catalog.warnings.is_empty(), "{:#?}", catalog.warnings);
    let types = catalog.hooks.types();
    let mut counts = BTreeMap::new();
    for declared in types.all() {
        let on = declared.on.as_str();
        assert!(declared.schema.is_some() && declared.description.is_some(), "{on} says nothing");
        let example = declared.example.as_ref().unwrap_or_else(|| panic!("{on} has no example"));
        let kind = if declared.on.is_exact() { on.to_owned() } else { on.replace('*', "example") };
        let event = Event::builder(&kind).data(example).build().unwrap();
        let misfit = event.misfit(types);
        assert!(misfit.is_none(), "{}", misfit.unwrap().sentence());
        if declared.on.is_exact() {
            *counts.entry(on.split('.').next().unwrap()).or_insert(0) += 1;
            let event = Event::builder(&kind).data(&json!([])).build().unwrap();
            assert!(event.misfit(types).is_some(), "{on} takes anything");
        }
    }
    let expected = [("aether", 14 + 1), ("bernstein", 32 + 22 + 38 + 7), ("claude-code", 30), ("kheish", 27)];
    assert_eq!(counts, BTreeMap::from(expected), "types by system");
}
