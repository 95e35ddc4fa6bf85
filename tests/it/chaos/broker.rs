//! What may happen to a broker.

use std::time::Duration;

use tokio::time::sleep;

use super::{Expect, LEAD, Trial};
use crate::fleet::Site;
use crate::servers::{Make, Rabbit, shared};
use crate::sink::Answer;
use crate::storm::settle_down;

/// One node, on which queues are the test's alone.
async fn rabbit() -> Rabbit {
    Rabbit::make(Make { cluster: false, ..Make::of_environment() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed() {
    let (mut rabbit, redis) = (rabbit().await, &shared().await.1);
    let trial = Trial::begin("broker killed with -9 and started again", &rabbit, redis).await;
    rabbit.kill();
    rabbit.restart().await;
    trial.end(&rabbit, redis, Expect::Once).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_broker_is_stopped() {
    let (rabbit, redis) = (rabbit().await, &shared().await.1);
    let trial = Trial::begin("broker application stopped for 5 s", &rabbit, redis).await;
    rabbit.ctl(&["stop_app"]);
    sleep(Duration::from_secs(5)).await;
    rabbit.ctl(&["start_app"]);
    trial.end(&rabbit, redis, Expect::Once).await;

    let trial = Trial::begin("all connections closed by the broker", &rabbit, redis).await;
    rabbit.ctl(&["close_all_connections", "a test closes them"]);
    sleep(Duration::from_secs(3)).await;
    rabbit.ctl(&["close_all_connections", "a test closes them"]);
    trial.end(&rabbit, redis, Expect::Once).await;
}

/// Blocks publishing for so long.
async fn alarm(rabbit: &Rabbit, time: Duration) {
    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]);
    sleep(time).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_broker_raises_an_alarm() {
    let (rabbit, redis) = (rabbit().await, &shared().await.1);
    let trial = Trial::begin("memory alarm of the broker, 8 s", &rabbit, redis).await;
    alarm(&rabbit, Duration::from_secs(8)).await;
    trial.end(&rabbit, redis, Expect::Once).await;

    let mut trial = Trial::begin("memory alarm, and every worker killed while it lasts", &rabbit, redis).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]);
    sleep(Duration::from_secs(3)).await;
    (0..trial.workers.len()).for_each(|worker| trial.kill(worker));
    sleep(Duration::from_secs(2)).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    trial.end(&rabbit, redis, Expect::Again).await;
}

/// The same with a build that acks before it publishes: the harness has to see that something is lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn a_broken_build_is_seen_to_lose() {
    let (rabbit, redis) = (rabbit().await, &shared().await.1);
    let flawed = |site: Site| {
        let no_breaker = site.set("HOOKFLEET_BREAKER_FAILURES", "0"); // everything fails at first
        no_breaker.set("HOOKFLEET_TEST_FLAW", "ack-before-publish")
    };
    let mut trial = Trial::begin_with("(a broken build: it acks first) the same", &rabbit, redis, flawed).await;
    trial.load.sink.behave(|_, before| Answer {
        status: if before == 0 { 503 } else { 200 }, // every retry is published into the alarm
        ..Answer::after(Duration::from_millis(500))
    });
    sleep(Duration::from_secs(1)).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]);
    sleep(Duration::from_secs(3)).await;
    (0..trial.workers.len()).for_each(|worker| trial.kill(worker));
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    (&mut trial.publishing).await.unwrap();
    trial.revive();
    for worker in &trial.workers {
        worker.until_ready().await;
    }
    settle_down(&rabbit, &trial.site).await;
    trial.load.until_quiet(Duration::from_secs(10)).await;
    let outcome = trial.load.outcome();
    super::row(trial.fault, &outcome, &[]);
    assert!(
        outcome.missing.len() > 10,
        "the harness hardly sees a loss where there has to be one: {}",
        outcome.missing.len()
    );
}

/// Nobody can keep what the broker was told to destroy: what waited in the queue is gone, and no more than that.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn a_queue_is_deleted() {
    let (rabbit, redis) = (rabbit().await, &shared().await.1);
    let trial = Trial::begin("the events' queue deleted (what waits in it goes with it)", &rabbit, redis).await;
    rabbit.ctl(&["delete_queue", &format!("{}.events", trial.site.namespace)]);
    trial.end(&rabbit, redis, Expect::Loss(usize::try_from(super::RATE).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_node_that_leads_is_killed() {
    let mut rabbit = Rabbit::make(Make { cluster: true, ..Make::of_environment() }).await;
    let redis = &shared().await.1;
    let urls = rabbit.urls();
    let at_all = |site: Site| site.set("HOOKFLEET_BROKER_URL", &urls);
    let trial = Trial::begin_with("of three nodes the leader killed with -9", &rabbit, redis, at_all).await;
    let leader = rabbit.leader(&format!("{}.events", trial.site.namespace));
    rabbit.kill_node(leader);
    sleep(LEAD).await;
    rabbit.restart().await;
    trial.end(&rabbit, redis, Expect::Once).await;
}
