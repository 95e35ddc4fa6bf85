//! The conformance suites on RabbitMQ and Redis.

use std::sync::Arc;
use std::time::Duration;

use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::broker::{Broker, Health};
use hookfleet::config::BrokerServer;
use hookfleet::dead_letters::DeadLetters;
use hookfleet::dead_letters::stream::StreamLetters;
use hookfleet::domain::invocation::InvocationKey;
use hookfleet::flow::Flow;
use hookfleet::flow::local::LocalFlow;
use hookfleet::flow::redis::RedisFlow;
use hookfleet::idempotency::redis::RedisClaims;
use tokio::time::timeout;

use crate::conformance::idempotency::Stored;
use crate::conformance::{broker, dead_letters, flow, idempotency};
use crate::servers::{namespace, shared};

async fn server() -> BrokerServer {
    shared().await.0.server()
}

/// A broker in this namespace that is up.
async fn open(namespace: &str) -> Arc<dyn Broker> {
    let broker = AmqpBroker::connect(&server().await, namespace).await.unwrap();
    let mut health = broker.health();
    let up = health.wait_for(|health| *health == Health::Up);
    timeout(Duration::from_secs(20), up).await.unwrap().unwrap();
    Arc::new(broker)
}

#[tokio::test]
async fn rabbitmq_conforms() {
    let space = namespace();
    broker::suite(async |name| open(&format!("{space}-{name}")).await).await;
}

#[tokio::test]
async fn the_stream_conforms() {
    let space = namespace();
    let letters = async |name: &'static str| {
        let space = format!("{space}-{name}");
        Arc::new(StreamLetters::new(open(&space).await, server().await, &space)) as Arc<dyn DeadLetters>
    };
    dead_letters::suite(letters).await;
    let space = format!("{space}-together");
    let broker = open(&space).await;
    let letters = StreamLetters::new(Arc::clone(&broker), server().await, &space);
    dead_letters::what_is_published_is_read(broker.as_ref(), &letters).await;
}

#[tokio::test]
async fn redis_conforms() {
    let (space, redis) = (namespace(), &shared().await.1);
    let claims = RedisClaims::new(&redis.url(), &space).unwrap();
    let client = redis::Client::open(redis.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let peek = async |key: &InvocationKey| {
        let key = format!("{space}:claim:{{{}}}:{}", key.event, key.hook);
        let mut both = redis::pipe();
        both.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (value, ttl): (Option<String>, i64) = both.query_async(&mut connection.clone()).await.unwrap();
        value.map(|value| Stored { value, ttl_ms: u64::try_from(ttl).unwrap() })
    };
    idempotency::suite(&claims, peek).await;
}

#[tokio::test]
async fn the_flow_in_redis_conforms() {
    let (space, redis) = (namespace(), &shared().await.1);
    let worker = || {
        let claims = RedisClaims::new(&redis.url(), &space).unwrap();
        Arc::new(RedisFlow::new(claims.connection(), &space)) as Arc<dyn Flow>
    };
    flow::suite(&*worker(), &*worker()).await;
    flow::workers_share(&*worker(), &*worker()).await;
}

#[tokio::test]
async fn the_flow_of_one_process_conforms() {
    let flow = LocalFlow::default();
    flow::suite(&flow, &flow).await;
}
