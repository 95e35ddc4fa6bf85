//! What else a worker has to do while it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use hookfleet::amqp::topology::Names;
use hookfleet::broker::Broker as _;
use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::config::BrokerServer;
use hookfleet::domain::event::Reading;
use hookfleet::domain::message::{Lane, Queue};
use hookfleet::publish::prepare;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::json;
use tokio::time::sleep;

use super::{PAD_BYTES, START_MAX};

/// Events of the load that are published and have not reached their receiver, at most.
const AHEAD_MAX: u64 = 5_000;
/// Events that are unconfirmed, at most.
const WINDOW: usize = 128;
/// Events of the backlog.
const BACKLOG: u64 = 100_000;
/// How long a worker may take to put the backlog where it waits.
const SORTED_MAX: Duration = Duration::from_mins(5);

/// Events without end, by a thread of its own: as many as the worker takes.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Returns when the load is under way.
    pub(super) async fn start(server: BrokerServer, namespace: String, received: &Arc<AtomicU64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, counter) = (Arc::clone(&stop), Arc::clone(received));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(without_end(&server, &namespace, &counter, &stopping));
        });
        let (before, began) = (received.load(Ordering::Relaxed), Instant::now());
        while received.load(Ordering::Relaxed) - before < AHEAD_MAX {
            assert!(began.elapsed() < START_MAX, "the load does not get on");
            sleep(Duration::from_millis(5)).await;
        }
        Self { stop, thread }
    }

    /// Fails if publishing did.
    pub(super) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Publishes until stopped, never further ahead of the receiver than it may be.
async fn without_end(server: &BrokerServer, namespace: &str, received: &AtomicU64, stop: &AtomicBool) {
    let broker = AmqpBroker::connect(server, namespace).await.unwrap();
    let before = received.load(Ordering::Relaxed);
    let goes_on = || !stop.load(Ordering::Relaxed);
    let send = async |number: u64| {
        while number >= received.load(Ordering::Relaxed) - before + AHEAD_MAX && goes_on() {
            sleep(Duration::from_millis(1)).await;
        }
        publish(&broker, "order.paid", number).await;
    };
    let numbers = (0u64..).take_while(|_| goes_on());
    stream::iter(numbers).map(send).buffer_unordered(WINDOW).collect::<()>().await;
    broker.close().await;
}

async fn publish(broker: &AmqpBroker, kind: &str, number: u64) {
    let (id, pad) = (number.to_string(), "x".repeat(PAD_BYTES));
    let event = json!({ "specversion": "1.0", "type": kind, "source": "/load", "id": id, "data": pad });
    let event = prepare(&event.to_string().into(), None, None, &Reading::default()).unwrap();
    broker.publish(event.outgoing()).await.unwrap();
}

/// Publishes more than a slow hook does in hours, and waits until the worker has put it where it waits; answers how many
/// events wait then.
pub(super) async fn backlog(server: &BrokerServer, namespace: &str, channel: &Channel) -> u32 {
    let broker = AmqpBroker::connect(server, namespace).await.unwrap();
    let publishing = stream::iter(0..BACKLOG).map(|number| publish(&broker, "batch.run", number));
    publishing.buffer_unordered(WINDOW).collect::<()>().await;
    broker.close().await;
    let (names, began) = (Names::new(namespace), Instant::now());
    while count(channel, &names.queue(Queue::Events)).await > 0 {
        assert!(began.elapsed() < SORTED_MAX, "the events queue does not get empty");
        sleep(Duration::from_millis(100)).await;
    }
    let mut waiting = 0;
    for lane in Lane::ALL {
        waiting += count(channel, &names.queue(Queue::Lane(lane))).await;
    }
    assert!(u64::from(waiting) > BACKLOG * 9 / 10, "{waiting} of {BACKLOG} wait");
    waiting
}

/// How many messages of a queue nobody has in hand.
async fn count(channel: &Channel, queue: &str) -> u32 {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap().message_count()
}
