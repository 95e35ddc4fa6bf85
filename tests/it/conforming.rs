//! The conformance suites on RabbitMQ and Redis.

use std::sync::Arc;
use std::time::Duration;

use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::broker::{Broker, Health};
use hookfleet::catalog::revisions::Revisions;
use hookfleet::config::{self, BrokerServer};
use hookfleet::dead_letters::DeadLetters;
use hookfleet::dead_letters::stream::StreamLetters;
use hookfleet::domain::id::InvocationKey;
use hookfleet::flow::local::LocalFlow;
use hookfleet::flow::redis::RedisFlow;
use hookfleet::idempotency::redis::RedisClaims;
use hookfleet::redis::connection::Link;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::time::timeout;

use crate::conformance::idempotency::{Sequences, Stored};
use crate::conformance::{broker, dead_letters, flow, idempotency, revisions};
use crate::servers::redis::{Cluster, Redis, Watched};
use crate::servers::{namespace, shared};
use crate::stores::{Safe, clustered, settings, watched_by};

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
    let space = format!("{space}-kept");
    let broker = open(&space).await;
    let letters = StreamLetters::new(Arc::clone(&broker), server().await, &space);
    dead_letters::the_keeper_carries_letters_on(broker, Arc::new(letters)).await;
}

/// The suite on claims that are reached in some way; `look` reaches the same keys in another one.
async fn redis_suite(settings: config::Redis, look: impl ConnectionLike + Clone, sequences: Sequences) {
    let space = namespace();
    let claims = RedisClaims::new(Link::new(settings), &space);
    let peek = async |key: &InvocationKey| {
        let key = format!("{space}:claim:{{{}}}:{}", key.event, key.hook);
        let mut both = redis::pipe();
        both.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (value, ttl): (Option<String>, i64) = both.query_async(&mut look.clone()).await.unwrap();
        value.map(|value| Stored { value, ttl_ms: u64::try_from(ttl).unwrap() })
    };
    idempotency::suite(&claims, peek, sequences).await;
}

async fn plain(server: &Redis) -> MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test]
async fn redis_conforms() {
    let server = &shared().await.1;
    redis_suite(settings(&server.url()), plain(server).await, idempotency::MANY).await;
}

/// Everything that protects a Redis, at once: TLS with certificates on both sides, a user who may do only what claims
/// need, the password in a file.
#[tokio::test]
async fn redis_behind_tls_and_users_conforms() {
    let safe = Safe::start().await;
    redis_suite(safe.settings(), plain(&safe.server).await, idempotency::SOME).await;
    flow_suite(safe.settings()).await;
}

#[tokio::test]
async fn redis_with_sentinels_conforms() {
    let watched = Watched::start().await;
    let look = plain(&watched.servers[0]).await;
    redis_suite(watched_by("redis://mymaster", &watched.urls()), look, idempotency::SOME).await;
}

#[tokio::test]
async fn a_redis_cluster_conforms() {
    let cluster = Cluster::start().await;
    let nodes = redis::cluster::ClusterClient::new(cluster.servers.iter().map(Redis::url)).unwrap();
    let look = nodes.get_async_connection().await.unwrap();
    let settings = clustered(&cluster.servers[0].url(), &[]);
    redis_suite(settings.clone(), look, idempotency::SOME).await;
    flow_suite(settings).await;
}

async fn flow_suite(settings: config::Redis) {
    let space = namespace();
    let worker = || RedisFlow::new(Link::new(settings.clone()), &space);
    flow::suite(&worker(), &worker()).await;
    let space = namespace();
    let worker = || RedisFlow::new(Link::new(settings.clone()), &space);
    flow::workers_share(&worker(), &worker()).await;
    let space = namespace();
    let revisions = || Revisions::new(Link::new(settings.clone()), &space);
    revisions::suite(&revisions(), &revisions()).await;
}

#[tokio::test]
async fn the_flow_in_redis_conforms() {
    flow_suite(settings(&shared().await.1.url())).await;
}

#[tokio::test]
async fn the_flow_of_one_process_conforms() {
    let flow = LocalFlow::default();
    flow::suite(&flow, &flow).await;
}
