//! Beside clients and programs that mean harm, or know nothing of this fleet: what they do costs nobody else anything.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hookfleet::domain::id::EventDigest;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::input::Stranger;
use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::publishing::event;
use crate::servers::shared;
use crate::sink::{Answer, Call, Sink};

/// So few file handles as a worker comes to its bounds with.
const FILES: &str = "ulimit -n 160; exec \"$@\"";

fn events(calls: &[Call]) -> HashSet<&str> {
    calls.iter().filter(|call| call.status == 200).map(|call| call.event.as_str()).collect()
}

/// Case D3: connections that say nothing, say half of something, or only begin, take no handle that the work needs, and keep
/// no probe out.
#[tokio::test]
async fn d3_idle_clients_keep_nothing_from_its_work() {
    const EVENTS: usize = 100;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", "")).through(&["sh", "-c", FILES, "sh"]);
    let Stage { site, mut worker, publisher } = stage(Place::Servers, site).await;
    let mut idle = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(("127.0.0.1", worker.port)).await.unwrap();
        let said = ["", "GET /healthz HTTP/1.1\r\nhost:", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"];
        let _ = stream.write_all(said[number % 3].as_bytes()).await; // it may have made room by now
        idle.push(stream);
    }
    publisher.send_all((0..EVENTS).map(|number| event("a", &format!("{number}")))).await;
    sink.until("all events", Duration::from_secs(60), |calls| events(calls).len() == EVENTS).await;
    worker.until_ready().await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), EVENTS, "each once");
    assert!(site.letters().is_empty());
    drop(idle);
}

/// Case D3: a worker that has no handle left for a run waits until it has one. That spends no attempt.
#[tokio::test]
async fn d3_want_of_handles_spends_no_attempt() {
    const EVENTS: usize = 300;
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer { wait: Duration::from_secs(1), ..Answer::status(200) });
    let more = ", concurrency: 256, timeout: 60s, retry: { attempts: 1 }";
    let hooks = [hook(&sink, "h", "a", more), hook(&sink, "warm", "w", more)].join("\n");
    let site = site(Place::Servers).await.hooks(&hooks).through(&["sh", "-c", FILES, "sh"]);
    let site = site.set("HOOKFLEET_WORKER_CONCURRENCY", "256");
    let Stage { site, mut worker, publisher } = stage(Place::Servers, site).await;
    // A target that has done well may have all that there is.
    publisher.send(event("w", "warm")).await;
    sink.until("the first", Duration::from_secs(30), |calls| events(calls).len() == 1).await;
    publisher.send_all((0..EVENTS).map(|number| event("a", &format!("{number}")))).await;
    sink.until("all events", Duration::from_secs(120), |calls| events(calls).len() == EVENTS + 1).await;
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty(), "{:#?}", site.letters().first());
    assert_eq!(sink.count(), EVENTS + 1, "each once");
}

/// Case D4: keys of another type. They are told, each once; what is under them waits, and everything else goes on.
#[tokio::test]
async fn d4_a_key_of_another_type_concerns_itself_alone() {
    const EVENTS: usize = 100;
    let (_, redis) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ", rate: 1000/s"));
    let space = site.namespace.clone();
    let claim = format!("{space}:claim:{{{}}}:h", EventDigest::of("/test", "spoilt"));
    let others = ["workers", "breakers", "pause", "rate:{h}"].map(|name| format!("{space}:{name}"));
    for key in others.iter().chain([&claim]) {
        redis.ask::<u64>(&format!("LPUSH {key} x")).await;
    }
    let Stage { worker, publisher, .. } = stage(Place::Servers, site).await;
    publisher.send(event("a", "spoilt")).await;
    let began = Instant::now();
    publisher.send_all((0..EVENTS).map(|number| event("a", &format!("{number}")))).await;
    sink.until("the others", Duration::from_secs(30), |calls| events(calls).len() == EVENTS).await;
    println!("{EVENTS} events beside the spoilt one took {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(worker.ask("/v1/status").await["store_of_claims"], "up");
    let told = |key: &str| worker.log().matches(&format!("the key \"{key}\" of ")).count();
    while others.iter().chain([&claim]).any(|key| told(key) == 0) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", worker.log());
        sleep(Duration::from_millis(50)).await;
    }
    redis.ask::<u64>(&format!("DEL {claim}")).await;
    sink.until("the spoilt one", Duration::from_secs(40), |calls| events(calls).contains("spoilt")).await;
    assert_eq!(sink.count(), EVENTS + 1, "each once");
    // Each cell has a connection of its own, and tells it once; of a claim the way of its messages is told too.
    let log = worker.log();
    let cells = log.matches("connected to Redis").count();
    assert!(others.iter().all(|key| told(key) <= cells) && told(&claim) <= 2 * cells, "{log}");
}

/// Case D8: nobody who publishes can say that workers died of his message.
#[tokio::test]
async fn d8_a_client_counts_no_deliveries() {
    const EVENTS: usize = 50;
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ""));
    let Stage { site, worker, .. } = stage(Place::Servers, site).await;
    let stranger = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    for number in 0..EVENTS {
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(150));
        headers.insert("x-acquired-count".into(), AMQPValue::LongLongInt(150));
        let properties =
            BasicProperties::default().with_content_type("application/cloudevents+json".into()).with_headers(headers);
        stranger.send("a", &event("a", &format!("{number}")), properties).await;
    }
    sink.until("all events", Duration::from_secs(30), |calls| events(calls).len() == EVENTS).await;
    // Few may be true: what is on its way to a consumer that is opened anew with another prefetch may come again.
    assert!(worker.metric("hookfleet_redelivered_total", "times=\"many\"").await < 1.0);
    assert!(worker.metric("hookfleet_deliveries_total", "queue=\"suspect\"").await < 1.0);
}
