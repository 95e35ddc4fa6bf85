//! Requests that cannot be decided, or answered: who asks is told, or not, and nobody else waits for that.

use std::time::Duration;

use bytes::Bytes;
use hookfleet::PublishError;
use hookfleet::broker::Broker as _;
use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::domain::message::Message;
use serde_json::{Value, json};

use super::{ALLOW, Asker, DIRECT, STRUCTURED, gate, post};
use crate::pipeline::{Place, hook, site, until_letters};
use crate::publishing::with_data;
use crate::servers::{MESSAGE_BYTES_MAX, namespace, shared};
use crate::sink::Sink;

/// Who wants an answer where none can go gets none, and costs nobody else's request its answer: also where RabbitMQ ends the
/// connection for it, as it does for names that only begin like its own.
#[tokio::test]
async fn answers_that_find_nobody() {
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "gate", "ask", ", mode: gate, on_failure: closed"));
    let mut worker = site.worker().await;
    let mut asker = Asker::new(&site, DIRECT).await;
    let own = format!("{}.events", site.namespace);
    let longest = "q".repeat(255);
    let nowhere = ["nobody-has-this", &own, "amq.rabbitmq.reply-to.x", "amq.rabbitmq.reply-to.g1h2.AAAA", &longest];
    for (number, reply_to) in nowhere.into_iter().enumerate() {
        let id = format!("{number}");
        asker.publish("ask", &with_data("ask", &id, &json!({})), Asker::asking(reply_to, &id)).await;
    }
    assert_eq!(asker.ask("ask", "last", &json!({})).await["verdict"], "allow");
    asker.until("gates", |messages, _| messages == 0).await;
    assert_eq!(worker.stop().await, Some(0));
    asker.until("gates", |messages, consumers| messages == 0 && consumers == 0).await; // all are acked
    let log = worker.log();
    assert!(log.contains(&format!("queue {own} is the fleet's own: no answer goes there")), "{log}");
    let calls = sink.calls();
    assert_eq!(calls.len(), nowhere.len() + 1, "each was asked once: {calls:#?}");
    assert!(site.letters().is_empty());
}

/// What the broker will never take is told at once, and costs nobody else's request its answer for longer than a repeat.
#[tokio::test]
async fn a_request_over_the_limit_of_the_broker_is_refused() {
    let broker = AmqpBroker::connect(&shared().await.0.server(), &namespace()).await.unwrap();
    let request = |bytes| Message { body: vec![b'x'; bytes].into(), ..Message::default() };
    let (small, large) = (request(2), request(MESSAGE_BYTES_MAX + 1));
    let (waited, refused) =
        tokio::join!(broker.ask(&small, Duration::from_secs(2)), broker.ask(&large, Duration::from_mins(1)));
    assert!(matches!(&refused, Err(PublishError::TooLarge(why)) if why.contains("max_message_size")), "{refused:?}");
    assert!(matches!(waited, Ok(None)), "asked again on another channel, and nobody is there: {waited:?}");
    broker.close().await;
}

/// A process that is to ask no gates says so, and takes no request from the queue.
#[tokio::test]
async fn who_asks_no_gates_says_so() {
    let sink = Sink::start().await;
    for place in [Place::Servers, Place::File] {
        let site = site(place).await.with_gateway().set("HOOKFLEET_GATES_CONCURRENCY", "0");
        let mut worker = site.hooks(&hook(&sink, "gate", "ask", ", mode: gate")).worker().await;
        let (status, body) = post(&worker, "5s", STRUCTURED, with_data("ask", "1", &json!({}))).await;
        assert!(status == 503 && body.contains("gates.concurrency is 0"), "{place:?} {status}: {body}");
        assert_eq!(worker.stop().await, Some(0));
    }
    assert_eq!(sink.count(), 0);
}

/// What is no event is refused with a reason, and kept; an answer goes into no queue of the fleet; and a gate that takes
/// its time has failed by the deadline of who asks.
#[tokio::test]
async fn what_is_no_event_is_refused() {
    let sink = Sink::start().await;
    // Of a deadline a tenth is left for what follows the last hook, half a second at most.
    let slow = gate("slow", "slow", "sleep 60", ", on_failure: closed, timeout: 90s");
    let hooks = [slow, hook(&sink, "watch", "ask", "")];
    let site = site(Place::Servers).await.with_gateway().hooks(&hooks.join("\n")).set(ALLOW, "sh");
    let mut worker = site.worker().await;
    let mut asker = Asker::new(&site, DIRECT).await;
    for (id, body, why) in [
        ("cut", "{", "expected an event in JSON"),
        ("nameless", r#"{"specversion":"1.0","type":"ask","source":"/test"}"#, "expected the attribute `id`"),
    ] {
        asker.send("ask", id, body.as_bytes()).await;
        let reply = asker.answer(id).await;
        assert_eq!(reply.content_type, "application/problem+json", "{}", reply.body);
        assert!(reply.json()["detail"].as_str().unwrap().contains(why), "{}", reply.body);
    }
    let letters = until_letters(&site, 2, "open").await;
    let mut classes: Vec<&str> = letters.iter().map(|letter| letter["letter"]["class"].as_str().unwrap()).collect();
    classes.sort_unstable();
    assert_eq!(classes, ["unidentified", "unreadable"]);

    let asking = Asker::asking(&format!("{}.lane.default", site.namespace), "stray");
    asker.publish("ask", &with_data("ask", "stray", &json!({})), asking).await;
    sink.until("what follows", Duration::from_secs(60), |calls| calls.len() == 1).await;
    assert_eq!(asker.ask("ask", "good", &json!({})).await["verdict"], "allow", "nobody is against it");

    let event = |kind| with_data(kind, "over-http", &json!({}));
    let batch = Bytes::from(format!("[{}]", String::from_utf8_lossy(&event("ask"))));
    let (status, body) = post(&worker, "5s", "application/cloudevents-batch+json", batch).await;
    assert!(status == 422 && body.contains("expected one event, found a batch"), "{status}: {body}");
    let (status, body) = post(&worker, "soon", STRUCTURED, event("ask")).await;
    assert!(status == 400 && body.contains("deadline: expected"), "{status}: {body}");
    let (status, body) = post(&worker, "5s", STRUCTURED, event("slow")).await;
    assert_eq!(status, 200, "{body}");
    let decision: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(decision["verdict"], "deny", "{decision:#}");
    assert!(body.contains("it has not answered by the deadline of the request"), "{body}");

    assert!(worker.log().contains("is the fleet's own: no answer goes there"), "{}", worker.log());
    until_letters(&site, 3, "open").await; // of the slow gate, and none of an answer that went astray
    assert_eq!(worker.stop().await, Some(0));
}
