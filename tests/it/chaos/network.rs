//! The network between workers and their servers.

use std::time::Duration;

use tokio::time::sleep;

use super::{Expect, Trial};
use crate::proxy::{Mode, Proxy};
use crate::servers::shared;

/// The same of each network: `name` is the server behind it.
async fn break_it(fault: &'static str, of: fn(&Trial) -> &Proxy, breaking: impl AsyncFnOnce(&Proxy)) {
    let (rabbit, redis) = shared().await;
    let trial = Trial::begin(fault, rabbit, redis).await;
    breaking(of(&trial)).await;
    trial.end(rabbit, redis, Expect::Once).await;
}

async fn cut_often(proxy: &Proxy) {
    for _ in 0..20 {
        proxy.cut();
        sleep(Duration::from_millis(300)).await;
    }
}

async fn part_for_10_s(proxy: &Proxy) {
    proxy.set(Mode::Silent);
    sleep(Duration::from_secs(10)).await;
    proxy.set(Mode::Through);
}

async fn slow_for_8_s(proxy: &Proxy) {
    proxy.set(Mode::Slow(Duration::from_millis(100)));
    sleep(Duration::from_secs(8)).await;
    proxy.set(Mode::Through);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_broker_are_cut() {
    break_it("connections to the broker cut, 20 times", |trial| &trial.broker, cut_often).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn connections_to_the_broker_are_half_closed() {
    break_it("connections to the broker half closed", |trial| &trial.broker, async |proxy| proxy.half_close()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn connections_to_the_broker_are_forgotten() {
    let fault = "connections to the broker open but dead (a firewall forgot them)";
    break_it(fault, |trial| &trial.broker, async |proxy| proxy.forget()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn workers_are_parted_from_the_broker() {
    break_it("partition from the broker, 10 s", |trial| &trial.broker, part_for_10_s).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_way_to_the_broker_is_slow() {
    break_it("100 ms a packet to the broker, 8 s", |trial| &trial.broker, slow_for_8_s).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn connections_to_redis_are_cut() {
    break_it("connections to Redis cut, 20 times", |trial| &trial.store, cut_often).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn workers_are_parted_from_redis() {
    let (rabbit, redis) = shared().await;
    let trial = Trial::begin("partition from Redis, 10 s", rabbit, redis).await;
    part_for_10_s(&trial.store).await;
    trial.end(rabbit, redis, Expect::Again).await; // leases end, so that runs are interrupted
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_way_to_redis_is_slow() {
    break_it("100 ms a packet to Redis, 8 s", |trial| &trial.store, slow_for_8_s).await;
}
