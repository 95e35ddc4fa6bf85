//! What may happen to workers, and what operators do with them.

use std::fs;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Expect, RATE, Trial, hooks};
use crate::fleet::Site;
use crate::servers::shared;
use crate::tiers::sizes::FAULT_SECONDS;

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_killed() {
    let (rabbit, redis) = shared().await;
    let mut trial = Trial::begin("a worker killed with -9, every second", rabbit, redis).await;
    for worker in [0, 1, 0, 1, 0, 1, 0, 1] {
        trial.kill(worker);
        sleep(Duration::from_secs(1)).await;
    }
    trial.end(rabbit, redis, Expect::Again).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn a_worker_stands_still() {
    let (rabbit, redis) = shared().await;
    let trial = Trial::begin("a worker stopped (SIGSTOP) for 45 s", rabbit, redis).await;
    trial.workers[0].process.signal("STOP");
    sleep(Duration::from_secs(45)).await;
    trial.workers[0].process.signal("CONT");
    trial.end(rabbit, redis, Expect::Again).await;
}

/// Every worker is replaced, one after the other, again and again: nothing runs twice. What RabbitMQ sends after it has
/// confirmed the end of a consumer comes again, its count one higher. How many do depends on its mood, but hardly one
/// does so thrice, and that one goes to lane `suspect` with a count of zero: no number of restarts brings a message near
/// the broker's limit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn workers_are_restarted_in_turn() {
    const RESTARTS: usize = 50;
    let (rabbit, redis) = shared().await;
    let mut trial = Trial::begin("50 restarts (SIGTERM) of workers in turn", rabbit, redis).await;
    let (mut again, mut many) = (0.0, 0.0);
    for restart in 0..RESTARTS {
        let worker = &mut trial.workers[restart % 2];
        worker.until_ready().await;
        again += worker.metric("hookfleet_redelivered_total", "").await;
        many += worker.metric("hookfleet_redelivered_total", "many").await;
        assert_eq!(worker.stop().await, Some(0), "{}", worker.log());
        *worker = trial.site.spawn(&[]);
    }
    for worker in &trial.workers {
        worker.until_ready().await;
        again += worker.metric("hookfleet_redelivered_total", "").await;
        many += worker.metric("hookfleet_redelivered_total", "many").await;
    }
    let shown = format!("{again} deliveries came again over {RESTARTS} restarts, {many} of them more than twice");
    println!("{shown}");
    let events = (FAULT_SECONDS.get() * RATE) as f64;
    assert!(again <= events * 0.2 && many <= events * 0.01, "{shown}");
    trial.end(rabbit, redis, Expect::Once).await;
}

/// While workers are replaced one by one, some know a hook that others do not know yet.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn the_catalog_changes() {
    let (rabbit, redis) = shared().await;
    let mut trial = Trial::begin("the hooks file changed, workers restarted in turn", rabbit, redis).await;
    let url = trial.load.sink.url("late");
    let late = format!("  - {{ id: late, on: a, run: {{ http: {{ url: \"{url}\" }} }} }}");
    fs::write(trial.site.hooks_file(), format!("version: 1\nhooks:\n{}\n{late}\n", hooks(&trial.load))).unwrap();
    for worker in 0..2 {
        assert_eq!(trial.workers[worker].stop().await, Some(0));
        trial.workers[worker] = trial.site.worker().await;
        sleep(Duration::from_secs(2)).await;
    }
    trial.end(rabbit, redis, Expect::Once).await;
}

/// Messages of the newer version wait until the newer worker takes them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn an_old_and_a_new_version_work_side_by_side() {
    const LEFT: &str = "a message of a newer version is left to newer workers";
    let (rabbit, redis) = shared().await;
    let mut trial = Trial::begin("an old and a new version side by side", rabbit, redis).await;
    assert_eq!(trial.workers[1].stop().await, Some(0));
    trial.workers[1] = trial.site.of_the_next_version().worker().await;
    let met = async {
        while !trial.workers[0].log().contains(LEFT) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), met).await.expect("the older worker meets messages of the newer version");
    trial.end(rabbit, redis, Expect::Once).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "left to tests/run --all"]
async fn clocks_jump() {
    let (rabbit, redis) = shared().await;
    let fault = "the workers' clocks jump by an hour, forth and back";
    let trial = Trial::begin_with(fault, rabbit, redis, Site::with_clock).await;
    for offset in ["+3600", "-3600", "+0"] {
        trial.site.set_clock(offset);
        sleep(Duration::from_secs(3)).await;
    }
    trial.end(rabbit, redis, Expect::Once).await;
}
