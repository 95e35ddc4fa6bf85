use super::*;
use crate::embedded::Store;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).unwrap();
    (folder, store)
}

/// The statement that is run for every batch must not sort or scan.
#[tokio::test]
async fn messages_to_dispatch_are_searched_for_by_index() {
    let (_folder, store) = store();
    let plan = store.read(|conn| {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", dispatch::AFTER))?;
        let rows = statement.query_map(params!["default", 0, 0], |row| row.get::<_, String>(3))?;
        rows.collect::<Result<Vec<_>, _>>()
    });
    let expected = "SEARCH messages USING INDEX messages_by_due (queue=? AND due_ms>?)";
    assert_eq!(plan.await.unwrap(), [expected]);
}

/// Messages that were dispatched under a higher prefetch come as the others are acked, without another call.
#[tokio::test]
async fn a_lowered_prefetch_loses_nothing() {
    let (_folder, store) = store();
    let queues = store.queues();
    for _ in 0..6 {
        queues.publish(Queue::Events, Duration::ZERO, Message::default()).await.unwrap();
    }
    queues.want([(Queue::Events, Credit { messages: 6, bytes: 1 })]);
    let mut in_flight = Vec::new();
    for _ in 0..3 {
        in_flight.push(queues.next().await.unwrap());
    }
    queues.want([(Queue::Events, Credit { messages: 1, bytes: 1 })]);
    for _ in 0..3 {
        let next = queues.next();
        let acks = async {
            for dispatched in in_flight.drain(..) {
                tokio::task::yield_now().await; // the receiver waits by now
                queues.ack(dispatched.queue, dispatched.id);
            }
        };
        let (next, ()) = tokio::join!(next, acks);
        in_flight.push(next.unwrap());
    }
}
