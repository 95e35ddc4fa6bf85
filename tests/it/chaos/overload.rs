//! Far more events than a fleet of two can take at once, some of them for a target that answers in a minute.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::faults::rss_kib;
use crate::fleet::Site;
use crate::pipeline::hook;
use crate::publishing::{Publisher, event};
use crate::servers::{client, shared};
use crate::sink::{Answer, Sink};
use crate::tiers::sizes::FLOOD;

/// One event in so many is for the slow target.
const SLOW_EVERY: usize = 250;
/// What a worker's memory may grow by, KiB: runs of a minute are many at a time.
const GROWTH_KIB: u64 = 24 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_into_a_fleet_of_two() {
    let count = FLOOD.count();
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::after(Duration::from_secs(if hook == "slow" { 60 } else { 0 })));
    let hooks = [hook(&sink, "h", "a", ", concurrency: 128"), hook(&sink, "slow", "b", ", timeout: 90s")];
    let site = Site::servers(rabbit, redis).set("HOOKFLEET_LOG", "hookfleet=warn").hooks(&hooks.join("\n"));
    let workers = [site.worker().await, site.worker().await];
    let publisher = Publisher::amqp(rabbit, &site).await;
    publisher.send_all((0..1000).map(|i| event("a", &format!("warm{i}")))).await;
    sink.until("the first", Duration::from_secs(60), |calls| calls.len() >= 1000).await;
    let before = workers.each_ref().map(rss_kib);

    let kind = |i: usize| if i.is_multiple_of(SLOW_EVERY) { "b" } else { "a" };
    let began = Instant::now();
    let publishing = publisher.send_all((0..count).map(|i| event(kind(i), &format!("e{i}"))));
    let mut most = before;
    let watching = async {
        loop {
            for (worker, most) in workers.iter().zip(&mut most) {
                *most = rss_kib(worker).max(*most);
                let answer = timeout(Duration::from_secs(5), client().get(worker.url("/readyz")).send()).await;
                assert!(answer.unwrap().unwrap().status().is_success(), "{}", worker.log());
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let healthy = 1000 + count - count.div_ceil(SLOW_EVERY);
    let done = async {
        publishing.await;
        let all = |calls: &[crate::sink::Call]| calls.iter().filter(|call| call.hook == "h").count() >= healthy;
        sink.until("the healthy ones", Duration::from_mins(20), all).await;
    };
    tokio::select! {
        () = watching => {}
        () = done => {}
    }
    let calls = sink.calls();
    let distinct: HashSet<&str> = calls.iter().map(|call| call.event.as_str()).collect();
    let slow = calls.iter().filter(|call| call.hook == "slow").count();
    let rate = healthy as f64 / began.elapsed().as_secs_f64();
    println!(
        "{count} events into two workers, {slow} runs of a minute begun beside them: {rate:.0} events/s, memory in KiB \
         {before:?} -> {most:?}"
    );
    assert_eq!(distinct.len(), calls.len(), "nothing ran twice");
    assert!(slow > 0);
    for (before, most) in before.iter().zip(&most) {
        assert!(most - before < GROWTH_KIB, "{before} -> {most} KiB");
    }
    assert!(site.letters().is_empty());
}
