//! What may happen to the store of claims.

use std::time::Duration;

use tokio::time::sleep;

use super::{Expect, Trial};
use crate::servers::redis::Redis;
use crate::servers::{free_port, shared};

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed() {
    let (rabbit, mut redis) = (&shared().await.0, Redis::start().await);
    let trial = Trial::begin("Redis killed with -9 and started again", rabbit, &redis).await;
    redis.kill();
    sleep(Duration::from_secs(2)).await;
    redis.restart().await;
    trial.end(rabbit, &redis, Expect::Again).await; // its file is a second behind
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn redis_is_frozen() {
    let (rabbit, redis) = (&shared().await.0, Redis::start().await);
    let trial = Trial::begin("Redis frozen for 8 s", rabbit, &redis).await;
    redis.freeze();
    sleep(Duration::from_secs(8)).await;
    redis.thaw();
    trial.end(rabbit, &redis, Expect::Again).await; // leases end meanwhile, so that runs are interrupted
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn redis_refuses_writes() {
    let (rabbit, redis) = (&shared().await.0, Redis::start().await);
    let trial = Trial::begin("Redis out of memory (OOM), 5 s", rabbit, &redis).await;
    let _: () = redis.ask("CONFIG SET maxmemory 1").await;
    sleep(Duration::from_secs(5)).await;
    let _: () = redis.ask("CONFIG SET maxmemory 0").await;
    trial.end(rabbit, &redis, Expect::Again).await; // as above

    let trial = Trial::begin("Redis a replica (READONLY), 5 s", rabbit, &redis).await;
    let _: () = redis.ask(&format!("REPLICAOF 127.0.0.1 {}", free_port())).await;
    sleep(Duration::from_secs(5)).await;
    let _: () = redis.ask("REPLICAOF NO ONE").await;
    trial.end(rabbit, &redis, Expect::Again).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn redis_forgets_everything() {
    let (rabbit, redis) = (&shared().await.0, Redis::start().await);
    let trial = Trial::begin("FLUSHALL, three times", rabbit, &redis).await;
    for _ in 0..3 {
        let _: () = redis.ask("FLUSHALL").await;
        sleep(Duration::from_secs(2)).await;
    }
    trial.end(rabbit, &redis, Expect::Again).await;
}
