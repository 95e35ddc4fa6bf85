use super::*;
use crate::embedded::Store;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).unwrap();
    (folder, store)
}

/// The statement that is run for every batch must not sort or scan.
#[tokio::test]
async fn hand_outs_are_searched_for_by_index() {
    let (_folder, store) = store();
    let plan = store.read(|conn| {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", hand_out::AFTER))?;
        let rows = statement.query_map(params!["default", 0, 0], |row| row.get::<_, String>(3))?;
        rows.collect::<Result<Vec<_>, _>>()
    });
    let expected = "SEARCH messages USING INDEX messages_by_due (queue=? AND due_ms>?)";
    assert_eq!(plan.await.unwrap(), [expected]);
}

/// Those that were handed out under a higher prefetch come as the others are acked, without another word.
#[tokio::test]
async fn a_lowered_prefetch_loses_nothing() {
    let (_folder, store) = store();
    let desk = store.desk();
    for _ in 0..6 {
        desk.publish(Queue::Events, Duration::ZERO, Message::default()).await.unwrap();
    }
    desk.want([(Queue::Events, Room { messages: 6, bytes: 1 })]);
    let mut in_hand = Vec::new();
    for _ in 0..3 {
        in_hand.push(desk.next().await.unwrap());
    }
    desk.want([(Queue::Events, Room { messages: 1, bytes: 1 })]);
    for _ in 0..3 {
        let next = desk.next();
        let acks = async {
            for handed in in_hand.drain(..) {
                tokio::task::yield_now().await; // the receiver waits by now
                desk.ack(handed.queue, handed.id);
            }
        };
        let (next, ()) = tokio::join!(next, acks);
        in_hand.push(next.unwrap());
    }
}
