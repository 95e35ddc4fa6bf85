//! What every [`Broker`] does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hookfleet::broker::{Broker, Delivery, Health, Wanted};
use hookfleet::domain::message::{Destination, Header, Lane, Message, Outgoing, Properties, Queue};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Nothing takes longer than this.
const DEADLINE: Duration = Duration::from_secs(20);
/// What has not arrived by now does not arrive.
const QUIET: Duration = Duration::from_millis(300);
/// Room enough for every body here.
const BYTES: usize = 64 * 1024 * 1024;
const LANE: Queue = Queue::Lane(Lane::Default);

/// Every check, one after the other.
pub(crate) async fn suite(open: impl AsyncFn(&'static str) -> Arc<dyn Broker>) {
    each_queue_is_separate(&open).await;
    a_message_survives_as_it_is(&open).await;
    what_is_acked_is_gone(&open).await;
    what_is_not_acked_comes_again(&open).await;
    void_receipts_are_ignored(&open).await;
    delays_are_kept(&open).await;
    delays_outlive_the_connection(&open).await;
    wanting_nothing_stops(&open).await;
    prefetch_is_a_bound(&open).await;
    large_bodies_are_few_in_hand(&open).await;
    receiving_is_cancel_safe(&open).await;
    a_thousand_at_a_time(&open).await;
    closing_ends_receiving(&open).await;
}

/// What opens brokers by name.
pub(crate) trait Open: AsyncFn(&'static str) -> Arc<dyn Broker> {}

impl<F: AsyncFn(&'static str) -> Arc<dyn Broker>> Open for F {}

async fn each_queue_is_separate(open: &impl Open) {
    let broker = open("separate").await;
    for queue in Queue::ALL {
        publish(&*broker, queue, queue.name()).await;
    }
    for queue in Queue::ALL {
        want(&*broker, queue, 10);
        let delivery = receive(&*broker).await;
        assert_eq!((delivery.queue, text(&delivery)), (queue, queue.name().to_owned()));
        assert_eq!(delivery.receipt.queue, queue);
        broker.ack(delivery.receipt);
        nothing(&*broker).await;
    }
    // And all of them together.
    broker.want(Queue::ALL.map(|queue| Wanted { queue, prefetch: 1, bytes: BYTES }).to_vec());
    for queue in Queue::ALL {
        publish(&*broker, queue, queue.name()).await;
    }
    let mut found = Vec::new();
    for _ in Queue::ALL {
        found.push(receive(&*broker).await.queue);
    }
    found.sort();
    assert_eq!(found, Queue::ALL);
    broker.close().await;
}

async fn a_message_survives_as_it_is(open: &impl Open) {
    let broker = open("as-it-is").await;
    broker.want(vec![
        Wanted { queue: Queue::Events, prefetch: 10, bytes: BYTES },
        Wanted { queue: LANE, prefetch: 10, bytes: BYTES },
    ]);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let message = Message { body: all_bytes.into(), properties: properties(), ..Message::default() }
        .with("hookfleet-text", "a \"quoted\" text, ünïcödé, \n and a line")
        .with("hookfleet-empty", "")
        .with("hookfleet-digits", "17") // stays a text
        .with("hookfleet-number", i64::MAX)
        .with("hookfleet-negative", i64::MIN)
        .with("hookfleet-true", true)
        .with("hookfleet-false", false);
    let large = Message { body: Bytes::from(vec![0xA5; 1024 * 1024]), ..Message::default() };
    for message in [message, large, Message::default()] {
        for to in [Destination::Events, Destination::Lane(Lane::Default)] {
            let outgoing = Outgoing { to: to.clone(), delay: Duration::ZERO, message: message.clone() };
            broker.publish(outgoing).await.expect("publish");
            let delivery = receive(&*broker).await;
            let (found, sent) = (&delivery.message, &message);
            assert_eq!(found.body, sent.body, "{to:?}");
            assert_eq!(ours(found), ours(sent), "{to:?}");
            assert_eq!(found.properties, sent.properties, "{to:?}");
            assert_eq!(delivery.deliveries, 0, "{to:?}");
            broker.ack(delivery.receipt);
        }
    }
    broker.close().await;
}

/// Everything but `user_id`: brokers with users check it.
fn properties() -> Properties {
    Properties {
        content_type: Some("application/json".to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        message_id: Some("id-1 \u{2713}".to_owned()),
        kind: Some("task.failed".to_owned()),
        app_id: Some("shop".to_owned()),
        user_id: None,
        timestamp: Some(1_700_000_000),
    }
}

/// A broker may add headers of its own.
fn ours(message: &Message) -> BTreeMap<&String, &Header> {
    message.headers.iter().filter(|(name, _)| name.starts_with("hookfleet-")).collect()
}

async fn what_is_acked_is_gone(open: &impl Open) {
    let broker = open("acked").await;
    want(&*broker, LANE, 10);
    for body in ["a", "b", "c"] {
        publish(&*broker, LANE, body).await;
    }
    for _ in 0..3 {
        let delivery = receive(&*broker).await;
        broker.ack(delivery.receipt);
        broker.ack(delivery.receipt); // once more does nothing
    }
    let broker = reopen(open, "acked", broker).await;
    want(&*broker, LANE, 10);
    nothing(&*broker).await;
    broker.close().await;
}

async fn what_is_not_acked_comes_again(open: &impl Open) {
    let mut broker = open("not-acked").await;
    for body in ["a", "b"] {
        publish(&*broker, LANE, body).await;
    }
    let mut before: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..3 {
        want(&*broker, LANE, 10);
        for _ in 0..2 {
            let delivery = receive(&*broker).await;
            let (body, deliveries) = (text(&delivery), delivery.deliveries);
            let last = before.insert(body, deliveries);
            assert!(last.is_none_or(|last| deliveries > last), "{before:?} after {last:?}");
        }
        broker = reopen(open, "not-acked", broker).await;
    }
    assert_eq!(before.len(), 2);
    broker.close().await;
}

async fn void_receipts_are_ignored(open: &impl Open) {
    let broker = open("void").await;
    publish(&*broker, LANE, "a").await;
    want(&*broker, LANE, 10);
    let void = receive(&*broker).await.receipt;
    let broker = reopen(open, "void", broker).await;
    broker.ack(void);
    want(&*broker, LANE, 10);
    let receipt = receive(&*broker).await.receipt;
    assert_ne!(receipt, void);
    broker.ack(void);
    let broker = reopen(open, "void", broker).await;
    want(&*broker, LANE, 10);
    assert_eq!(text(&receive(&*broker).await), "a");
    broker.close().await;
}

async fn delays_are_kept(open: &impl Open) {
    let broker = open("delays").await;
    want(&*broker, LANE, 10);
    let start = Instant::now();
    for units in [5, 1, 3, 0] {
        delayed(&*broker, units).await;
    }
    let mut found = Vec::new();
    for _ in 0..4 {
        let delivery = receive(&*broker).await;
        found.push(arrived(&delivery, start));
        broker.ack(delivery.receipt);
    }
    assert_eq!(found, [0, 1, 3, 5]); // half a second apart is order enough
    nothing(&*broker).await;
    broker.close().await;
}

async fn delays_outlive_the_connection(open: &impl Open) {
    let broker = open("delays-outlive").await;
    let start = Instant::now();
    delayed(&*broker, 4).await;
    let broker = reopen(open, "delays-outlive", broker).await;
    want(&*broker, LANE, 10);
    arrived(&receive(&*broker).await, start);
    broker.close().await;
}

/// Publishes a message that says how many units of the ladder it waits.
async fn delayed(broker: &dyn Broker, units: u64) {
    let message = Message { body: units.to_string().into(), ..Message::default() };
    let outgoing = Outgoing::to_lane(Lane::Default, Duration::from_millis(250 * units), message);
    broker.publish(outgoing).await.expect("publish");
}

/// Checks that a message from [`delayed`] is here in time, not before.
fn arrived(delivery: &Delivery, start: Instant) -> u64 {
    let units: u64 = text(delivery).parse().unwrap();
    let (took, due) = (start.elapsed(), Duration::from_millis(250 * units));
    assert!(took >= due, "{took:?}, expected {due:?} or more");
    assert!(took < due + Duration::from_secs(2), "{took:?}, expected little more than {due:?}");
    units
}

async fn wanting_nothing_stops(open: &impl Open) {
    let broker = open("nothing").await;
    publish(&*broker, LANE, "a").await;
    nothing(&*broker).await; // nothing was wanted yet
    want(&*broker, LANE, 10);
    let in_hand = receive(&*broker).await;
    broker.want(Vec::new());
    // A consumer is cancelled in its own time; what comes until then is valid.
    while timeout(QUIET, broker.receive()).await.is_ok() {}
    publish(&*broker, LANE, "b").await;
    nothing(&*broker).await;
    broker.ack(in_hand.receipt);
    nothing(&*broker).await;
    want(&*broker, LANE, 10);
    let delivery = receive(&*broker).await;
    assert_eq!(text(&delivery), "b");
    broker.ack(delivery.receipt);
    let broker = reopen(open, "nothing", broker).await;
    want(&*broker, LANE, 10);
    nothing(&*broker).await;
    broker.close().await;
}

async fn prefetch_is_a_bound(open: &impl Open) {
    let broker = open("prefetch").await;
    want(&*broker, LANE, 3);
    for body in 0..8 {
        publish(&*broker, LANE, &body.to_string()).await;
    }
    let mut in_hand = Vec::new();
    for _ in 0..3 {
        in_hand.push(receive(&*broker).await);
    }
    nothing(&*broker).await;
    for _ in 0..5 {
        broker.ack(in_hand.pop().unwrap().receipt);
        in_hand.push(receive(&*broker).await);
        nothing(&*broker).await;
    }
    broker.close().await;
}

async fn large_bodies_are_few_in_hand(open: &impl Open) {
    let broker = open("large").await;
    broker.want(vec![Wanted { queue: LANE, prefetch: 50, bytes: 1024 * 1024 }]);
    // Those that are acked show what bodies are like.
    let in_hand = async |body: &str, acked: usize, count: usize| {
        for _ in 0..count {
            publish(&*broker, LANE, body).await;
        }
        for _ in 0..acked {
            broker.ack(receive(&*broker).await.receipt);
        }
        let mut held = Vec::new();
        while let Ok(delivery) = timeout(QUIET, broker.receive()).await {
            held.push(delivery.unwrap());
        }
        for delivery in &held {
            broker.ack(delivery.receipt);
        }
        for _ in acked + held.len()..count {
            broker.ack(receive(&*broker).await.receipt);
        }
        held.len()
    };
    let large = in_hand(&"x".repeat(256 * 1024), 30, 40).await;
    assert!((2..=4).contains(&large), "{large} bodies of a quarter in hand");
    assert_eq!(in_hand("small", 100, 300).await, 50);
    let large = in_hand(&"x".repeat(256 * 1024), 100, 120).await;
    assert!((2..=4).contains(&large), "{large} bodies of a quarter in hand again");
    nothing(&*broker).await;
    broker.close().await;
}

async fn receiving_is_cancel_safe(open: &impl Open) {
    const MESSAGES: usize = 100;
    let broker = open("cancel-safe").await;
    want(&*broker, LANE, 20);
    let other = Arc::clone(&broker);
    let publishing = tokio::spawn(async move {
        for body in 0..MESSAGES {
            publish(&*other, LANE, &body.to_string()).await;
        }
    });
    let (start, mut found) = (Instant::now(), Vec::new());
    while found.len() < MESSAGES {
        assert!(start.elapsed() < DEADLINE, "{} of {MESSAGES} came", found.len());
        let patience = Duration::from_micros(fastrand::u64(0..2_000));
        if let Ok(delivery) = timeout(patience, broker.receive()).await {
            let delivery = delivery.expect("open");
            found.push(text(&delivery).parse::<usize>().unwrap());
            broker.ack(delivery.receipt);
        }
    }
    publishing.await.unwrap();
    found.sort_unstable();
    assert_eq!(found, (0..MESSAGES).collect::<Vec<_>>());
    nothing(&*broker).await;
    broker.close().await;
}

async fn a_thousand_at_a_time(open: &impl Open) {
    const MESSAGES: usize = 1_000;
    let broker = open("thousand").await;
    want(&*broker, LANE, 200);
    let mut publishing = JoinSet::new();
    for body in 0..MESSAGES {
        let broker = Arc::clone(&broker);
        publishing.spawn(async move { publish(&*broker, LANE, &body.to_string()).await });
    }
    let mut found = Vec::new();
    for _ in 0..MESSAGES {
        let delivery = receive(&*broker).await;
        found.push(text(&delivery).parse::<usize>().unwrap());
        broker.ack(delivery.receipt);
    }
    publishing.join_all().await;
    found.sort_unstable();
    assert_eq!(found, (0..MESSAGES).collect::<Vec<_>>());
    let broker = reopen(open, "thousand", broker).await;
    want(&*broker, LANE, 200);
    nothing(&*broker).await;
    broker.close().await;
}

async fn closing_ends_receiving(open: &impl Open) {
    let broker = open("closing").await;
    want(&*broker, LANE, 10);
    assert_eq!(*broker.health().borrow(), Health::Up);
    let other = Arc::clone(&broker);
    let receiving = tokio::spawn(async move { other.receive().await.is_none() });
    tokio::time::sleep(Duration::from_millis(50)).await; // so that it waits already, most of the time
    broker.close().await;
    assert!(timeout(DEADLINE, receiving).await.expect("ends").unwrap());
    assert!(timeout(DEADLINE, broker.receive()).await.expect("ends").is_none());
}

async fn publish(broker: &dyn Broker, queue: Queue, body: &str) {
    let to = match queue {
        Queue::Events => Destination::Events,
        Queue::Lane(lane) => Destination::Lane(lane),
        Queue::Gates | Queue::Undecided => unreachable!("only servers have them"),
    };
    let message = Message { body: Bytes::copy_from_slice(body.as_bytes()), ..Message::default() };
    broker.publish(Outgoing { to, delay: Duration::ZERO, message }).await.expect("publish");
}

fn want(broker: &dyn Broker, queue: Queue, prefetch: u16) {
    broker.want(vec![Wanted { queue, prefetch, bytes: BYTES }]);
}

async fn receive(broker: &dyn Broker) -> Delivery {
    timeout(DEADLINE, broker.receive()).await.expect("a delivery in time").expect("an open broker")
}

async fn nothing(broker: &dyn Broker) {
    if let Ok(delivery) = timeout(QUIET, broker.receive()).await {
        panic!("expected nothing, found {delivery:?}");
    }
}

/// Closes a broker and opens it again.
async fn reopen(open: &impl Open, name: &'static str, broker: Arc<dyn Broker>) -> Arc<dyn Broker> {
    broker.close().await;
    drop(broker);
    open(name).await
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.body).into_owned()
}
