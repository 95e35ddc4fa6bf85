//! The bare loop: consume, claim, POST, finish, ack. Nothing of hookfleet, and nothing that could be left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use redis::Script;
use reqwest::Client;
use tokio::sync::{Semaphore, mpsc};

/// In flight at a time.
const WINDOW: usize = 256;

/// Runs until killed. Arguments: broker, Redis, receiver, namespace.
pub(crate) async fn run(arguments: &[String]) {
    let [broker, store, receiver, namespace] = arguments else { panic!("broker, redis, receiver, namespace") };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connection = Connection::connect(broker, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(u16::try_from(WINDOW).unwrap(), BasicQosOptions::default()).await.unwrap();
    let queue = format!("{namespace}.events");
    let mut consumer = channel
        .basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let claims = redis::Client::open(store.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let finish = Arc::new(Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', 86400000) end return 1",
    ));
    let http = Client::builder().no_proxy().build().unwrap();
    let (window, receiver) = (Arc::new(Semaphore::new(WINDOW)), Arc::<str>::from(receiver.as_str()));
    let (finished, mut tags) = mpsc::unbounded_channel();
    let acking = channel.clone();
    tokio::spawn(async move {
        let (mut done, mut head, mut batch) = (BTreeSet::new(), 1u64, Vec::new());
        while tags.recv_many(&mut batch, 64).await > 0 {
            done.extend(batch.drain(..));
            let before = head;
            while done.remove(&head) {
                head += 1;
            }
            if head > before {
                acking.basic_ack(head - 1, BasicAckOptions { multiple: true }).await.unwrap();
            }
        }
    });
    let mut number = 0u64;
    while let Some(Ok(delivery)) = consumer.next().await {
        let permit = Arc::clone(&window).acquire_owned().await.unwrap();
        let (mut claims, finish, http) = (claims.clone(), Arc::clone(&finish), http.clone());
        let (receiver, finished) = (Arc::clone(&receiver), finished.clone());
        number += 1;
        let (key, token) = (format!("{namespace}:{number}"), format!("token-{number}"));
        tokio::spawn(async move {
            let mut claim = redis::cmd("SET");
            claim.arg(&key).arg(&token).arg("NX").arg("GET").arg("PX").arg(30_000);
            let _: Option<String> = claim.query_async(&mut claims).await.unwrap();
            let request = http.post(&*receiver).header("content-type", "application/json");
            let answer = request.header("idempotency-key", &key).body(delivery.data).send().await.unwrap();
            let _ = answer.bytes().await.unwrap();
            let _: i32 = finish.key(&key).arg(&token).arg("done").invoke_async(&mut claims).await.unwrap();
            finished.send(delivery.delivery_tag).unwrap();
            drop(permit);
        });
    }
}
