//! The backend in one SQLite file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hookfleet::broker::embedded::EmbeddedBroker;
use hookfleet::broker::{Broker, Wanted};
use hookfleet::dead_letters::DeadLetters;
use hookfleet::dead_letters::embedded::EmbeddedLetters;
use hookfleet::domain::id::InvocationKey;
use hookfleet::domain::message::{Lane, Message, Outgoing, Queue};
use hookfleet::embedded::Store;
use hookfleet::idempotency::Idempotency;
use hookfleet::idempotency::embedded::EmbeddedClaims;
use rusqlite::{Connection, OptionalExtension as _};

use crate::conformance::idempotency::Stored;
use crate::conformance::{broker, dead_letters, idempotency};
use crate::servers::slots;

/// Files by name, gone in the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        slots::take();
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name).join("hookfleet.db")
    }

    fn open(&self, name: &str) -> Store {
        Store::open(&self.path(name)).unwrap()
    }
}

#[tokio::test]
async fn broker_conforms() {
    let folder = Folder::new();
    broker::suite(async |name| Arc::new(EmbeddedBroker::new(folder.open(name))) as Arc<dyn Broker>).await;
}

#[tokio::test]
async fn dead_letters_conform() {
    let folder = Folder::new();
    dead_letters::suite(async |name| Arc::new(EmbeddedLetters::new(folder.open(name))) as Arc<dyn DeadLetters>).await;
    let store = folder.open("together");
    let letters = EmbeddedLetters::new(store.clone());
    dead_letters::what_is_published_is_read(&EmbeddedBroker::new(store), &letters).await;
    let store = folder.open("kept");
    let letters = Arc::new(EmbeddedLetters::new(store.clone()));
    dead_letters::the_keeper_carries_letters_on(Arc::new(EmbeddedBroker::new(store)), letters).await;
}

#[tokio::test]
async fn idempotency_conforms() {
    let folder = Folder::new();
    let claims = EmbeddedClaims::new(folder.open("claims"));
    let conn = Connection::open(folder.path("claims")).unwrap();
    idempotency::suite(&claims, async |key: &InvocationKey| peek(&conn, key), idempotency::MANY).await;
}

#[tokio::test]
async fn leases_end_with_their_owner() {
    let folder = Folder::new();
    let open = async || Arc::new(EmbeddedClaims::new(folder.open("claims"))) as Arc<dyn Idempotency>;
    idempotency::a_former_owners_lease_is_over(open().await, open).await;
}

fn peek(conn: &Connection, key: &InvocationKey) -> Option<Stored> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut statement = conn.prepare_cached("SELECT value, expires_ms FROM claims WHERE key = ?1").unwrap();
    let row = statement.query_row([key.to_string()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
    let (value, expires_ms) = row.optional().unwrap()?;
    let ttl_ms = u64::try_from(expires_ms).unwrap().checked_sub(u64::try_from(now.as_millis()).unwrap())?;
    (ttl_ms > 0).then_some(Stored { value, ttl_ms })
}

/// As after a kill: nobody closes anything.
#[tokio::test]
async fn what_is_dropped_without_closing_comes_again() {
    let folder = Folder::new();
    let wanted = vec![Wanted { queue: Queue::Lane(Lane::Slow), prefetch: 1, bytes: 1 << 20 }];
    let message = Message { body: "a".into(), ..Message::default() };
    let broker = EmbeddedBroker::new(folder.open("dropped"));
    broker.publish(Outgoing::to_lane(Lane::Slow, Duration::ZERO, message)).await.unwrap();
    drop(broker);
    for deliveries in 0..4 {
        let broker = EmbeddedBroker::new(folder.open("dropped"));
        broker.want(wanted.clone());
        assert_eq!(broker.receive().await.unwrap().deliveries, deliveries);
    }
}

/// What only waited in the process is no delivery, if the process ends in peace.
#[tokio::test]
async fn what_nobody_received_does_not_count() {
    let folder = Folder::new();
    let wanted = vec![Wanted { queue: Queue::Events, prefetch: 10, bytes: 1 << 20 }];
    let path: &Path = &folder.path("unseen");
    for _ in 0..3 {
        let broker = EmbeddedBroker::new(Store::open(path).unwrap());
        broker.want(wanted.clone());
        for body in ["a", "b"] {
            let message = Message { body: body.into(), ..Message::default() };
            let to = hookfleet::domain::message::Destination::Events;
            broker.publish(Outgoing { to, delay: Duration::ZERO, message }).await.unwrap();
        }
        let delivery = broker.receive().await.unwrap();
        assert_eq!(delivery.deliveries, 0);
        broker.ack(delivery.receipt);
        broker.close().await;
    }
}
