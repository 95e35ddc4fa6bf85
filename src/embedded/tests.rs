use std::time::{Duration, Instant};

use super::*;
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::{Broker as _, Health, PublishError, Wanted};
use crate::domain::message::{Lane, Message, Outgoing, Queue};

const DEADLINE: Duration = Duration::from_secs(20);
const LANE: Queue = Queue::Lane(Lane::Default);

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("hookfleet.db");
    (folder, path)
}

#[tokio::test]
async fn a_file_has_one_owner() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::Owned { owner: None, .. })));
    let announced = Owner { address: "127.0.0.1:8080".parse().unwrap(), is_tls: false };
    store.announce(announced).unwrap();
    assert_eq!(owner(&path), Some(announced));
    let error = Store::open(&path).unwrap_err();
    assert!(error.to_string().ends_with("owned by another process, which answers at http://127.0.0.1:8080"), "{error}");
    let other = store.clone();
    store.close().await;
    store.close().await; // once more does nothing
    assert_eq!(owner(&path), None);
    assert!(matches!(other.ping().await, Err(WriteError::Closed)));
    let again = Store::open(&path).unwrap();
    drop(other); // has nothing to do with the new owner
    again.ping().await.unwrap();
}

#[tokio::test]
async fn receivers_end_with_the_store() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    let queues = Arc::clone(store.queues());
    let (received, ()) = tokio::join!(queues.next(), store.close());
    assert_eq!(received, None);
}

#[tokio::test]
async fn dropping_writes_what_was_asked_for() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    let queues = Arc::clone(store.queues());
    let publishing = tokio::spawn(async move { queues.publish(LANE, Duration::ZERO, Message::default()).await });
    tokio::task::yield_now().await; // it has sent its job
    drop(store);
    publishing.await.unwrap().unwrap();
    let store = Store::open(&path).unwrap();
    let count = store.read(|conn| conn.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0)));
    assert_eq!(count.await.unwrap(), 1);
}

/// What a file must look like to be opened.
fn check_open(sql: &str, expected: &str) {
    let (folder, _) = folder();
    let path = folder.path().join("it.db");
    drop(Store::open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    match Store::open(&path) {
        Ok(_) => assert_eq!(expected, "ok"),
        Err(error) => assert!(error.to_string().contains(expected), "{error}\n expected {expected}"),
    }
}

#[test]
fn files_of_others_are_left_alone() {
    check_open("", "ok");
    check_open("PRAGMA user_version = 2", "has schema 2, this version knows 1: use a newer hookfleet");
    check_open("PRAGMA application_id = 7", "is a SQLite file of another program");
    check_open("PRAGMA application_id = 0", "is a SQLite file of another program");
    let (folder, _) = folder();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "remember the milk, and the bread, and the honey").unwrap();
    assert!(matches!(Store::open(&text), Err(OpenError::Database { .. })));
}

#[tokio::test]
async fn a_job_that_fails_undoes_only_itself() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    // All of them wait while the first one sleeps, so that they share a transaction.
    let first = store.write(|_| {
        thread::sleep(Duration::from_millis(100));
        Ok(())
    });
    let insert = |id: i64, then: &'static str| {
        store.write(move |batch| {
            batch.prepare("INSERT INTO dead_letters VALUES (?1, 0, x'')")?.execute([id])?;
            batch.prepare(then)?.execute([]).map(drop)
        })
    };
    let fine = "UPDATE meta SET pings = pings + 1";
    let (first, one, two, three) =
        tokio::join!(first, insert(1, fine), insert(2, "INSERT INTO meta VALUES (1, 0, 0)"), insert(3, fine));
    first.unwrap();
    one.unwrap();
    assert!(matches!(two, Err(WriteError::Failed(_))), "{two:?}");
    three.unwrap();
    assert_eq!(letters::last(&store).await.unwrap(), 3);
    assert_eq!(letters::page(&store, 0, 9).await.unwrap().records.len(), 2);
}

/// Lets the file grow to so many pages; none: as it likes.
async fn limit(store: &Store, more_pages: Option<i64>) {
    let limit = store.write(move |batch| {
        let pages: i64 = batch.prepare("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        let max = more_pages.map_or(i64::from(u32::MAX - 1), |more| pages + more);
        batch.prepare(&format!("PRAGMA max_page_count = {max}"))?.query_row([], |_| Ok(()))
    });
    limit.await.unwrap();
}

fn outgoing(bytes: usize) -> Outgoing {
    Outgoing::to_lane(Lane::Default, Duration::ZERO, Message { body: vec![b'x'; bytes].into(), ..Message::default() })
}

/// The disk is full and then not: what was refused is not there, what was confirmed is, and nobody starts again.
#[tokio::test]
async fn a_full_disk_passes() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    let broker = EmbeddedBroker::new(store.clone());
    let mut health = broker.health();
    limit(&store, Some(50)).await;
    let mut confirmed = 0;
    let error = loop {
        match broker.publish(outgoing(10_000)).await {
            Ok(()) => confirmed += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, PublishError::Away(reason) if reason.starts_with("the disk is full")), "{error}");
    let down = |health: &Health| matches!(health, Health::Down(reason) if reason.starts_with("the disk is full"));
    assert!(down(&health.wait_for(|health| *health != Health::Up).await.unwrap()));
    limit(&store, None).await;
    health.wait_for(|health| *health == Health::Up).await.unwrap();
    broker.publish(outgoing(10_000)).await.unwrap();
    store.ping().await.unwrap();
    broker.want(vec![Wanted { queue: LANE, prefetch: 100, bytes: 1 << 20 }]);
    for _ in 0..=confirmed {
        tokio::time::timeout(DEADLINE, broker.receive()).await.unwrap().unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), broker.receive()).await.is_err());
}

#[tokio::test]
async fn one_failure_in_a_batch_of_a_full_disk_reaches_everyone_in_it() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    limit(&store, Some(20)).await;
    let broker = EmbeddedBroker::new(store.clone());
    let publishing = (0..64).map(|_| broker.publish(outgoing(10_000)));
    let outcomes = futures_util::future::join_all(publishing).await;
    let confirmed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let rows = store.read(|conn| conn.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, u32>(0)));
    assert_eq!(rows.await.unwrap() as usize, confirmed);
    assert!(confirmed < 64);
}

/// Acks and dispatches that could not be written are written when writing works again, without being asked for.
#[tokio::test]
async fn what_failed_is_done_when_the_trouble_is_over() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    let broker = EmbeddedBroker::new(store.clone());
    broker.publish(outgoing(1)).await.unwrap();
    broker.want(vec![Wanted { queue: LANE, prefetch: 1, bytes: 1 << 20 }]);
    let delivery = broker.receive().await.unwrap();
    let execute = async |sql: &'static str| {
        store.write(move |batch| batch.prepare(sql)?.execute([]).map(drop)).await.unwrap();
    };
    execute("CREATE TRIGGER broken BEFORE DELETE ON messages BEGIN SELECT raise(ABORT, 'broken'); END").await;
    broker.ack(delivery.receipt);
    let mut health = broker.health();
    health.wait_for(|health| *health != Health::Up).await.unwrap();
    execute("CREATE TRIGGER broken_too BEFORE UPDATE ON messages BEGIN SELECT raise(ABORT, 'broken'); END").await;
    broker.publish(outgoing(2)).await.unwrap(); // cannot be dispatched
    execute("DROP TRIGGER broken").await;
    execute("DROP TRIGGER broken_too").await;
    let second = tokio::time::timeout(DEADLINE, broker.receive()).await.unwrap().unwrap();
    assert_eq!(second.message.body.len(), 2);
    let start = Instant::now();
    let rows = async || {
        let count = |conn: &Connection| conn.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0));
        store.read(count).await.unwrap()
    };
    while rows().await > 1 {
        assert!(start.elapsed() < DEADLINE);
    }
}
