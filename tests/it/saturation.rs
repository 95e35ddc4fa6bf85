//! What is over its capacity waits in queues: of a hook, a lane, a rate, a target. Nobody else waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::fleet::Worker;
use crate::pipeline::{Place, Stage, hook, percentile, site, stage};
use crate::publishing::event;
use crate::servers::client;
use crate::sink::{Answer, Call, Sink};
use crate::tiers::sizes::OVER_CAPACITY_SECONDS;

/// Of the calls of one hook: from its event's publish to its arrival, in milliseconds, sorted.
fn latencies(calls: &[Call], hook: &str, sent: &HashMap<String, Instant>) -> Vec<f64> {
    let mut found: Vec<f64> = calls
        .iter()
        .filter(|call| call.hook == hook)
        .map(|call| (call.at - sent[&call.event]).as_secs_f64() * 1000.0)
        .collect();
    found.sort_by(f64::total_cmp);
    found
}

/// How late the retries of these events of hook `flaky` were after the second that they wait, in milliseconds, sorted.
fn lateness(calls: &[Call], numbers: std::ops::Range<usize>) -> Vec<f64> {
    let mut first: HashMap<&str, Instant> = HashMap::new();
    let mut late = Vec::new();
    for call in calls.iter().filter(|call| call.hook == "flaky") {
        if numbers.contains(&call.event[1..].parse().unwrap()) {
            match first.get(call.event.as_str()) {
                None => drop(first.insert(&call.event, call.finished.unwrap_or(call.at))),
                Some(before) => late.push((call.at - *before).as_secs_f64() * 1000.0 - 1000.0),
            }
        }
    }
    late.sort_by(f64::total_cmp);
    late
}

fn of<'a>(calls: &'a [Call], hook: &'a str) -> impl Iterator<Item = &'a Call> {
    calls.iter().filter(move |call| call.hook == hook)
}

/// Ten times a hook's capacity: each invocation moves once, all arrive, and another hook's retries are as late as alone.
async fn ten_times_over(place: Place, seconds: u64) {
    let sink = Sink::start().await;
    // 8 permits at 100 ms: 80 a second, until the flood is over.
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    sink.behave(move |hook, before| match hook {
        "narrow" if !is_over.load(Ordering::Relaxed) => Answer::after(Duration::from_millis(100)),
        "flaky" if before == 0 => Answer::status(503),
        _ => Answer::status(200),
    });
    let hooks = [
        hook(&sink, "narrow", "n", ", concurrency: 8"),
        hook(&sink, "flaky", "f", ", retry: { attempts: 3, backoff: { initial: 1s, jitter: 0 } }"),
    ];
    let site = site(place).await.hooks(&hooks.join("\n")).set("HOOKFLEET_BREAKER_FAILURES", "0");
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    let flaky = async |names: std::ops::Range<usize>| {
        for number in names {
            publisher.send(event("f", &format!("f{number}"))).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    flaky(0..100).await;
    sink.until("the retries alone", Duration::from_secs(20), |calls| calls.len() == 200).await;

    let total = 800 * usize::try_from(seconds).unwrap();
    let flood = async {
        for tenth in 0..seconds * 10 {
            publisher.send_all((0..80).map(|n| event("n", &format!("n{}", tenth * 80 + n)))).await;
            sleep(Duration::from_millis(60)).await;
        }
    };
    tokio::join!(flood, flaky(100..200));
    sink.until("the retries beside", Duration::from_secs(20), |calls| of(calls, "flaky").count() == 400).await;
    let calls = sink.calls();
    let p99 = |numbers| percentile(&lateness(&calls, numbers), 0.99);
    let (alone, beside) = (p99(0..100), p99(100..200));
    over.store(true, Ordering::Relaxed);
    let all = Duration::from_secs(seconds * 5 + 60);
    sink.until("the flood", all, |calls| of(calls, "narrow").count() >= total).await;
    let moves = worker.metric("hookfleet_overflowed_total", "narrow").await;
    let trips = worker.metric("hookfleet_overflow_trips_total", "narrow").await.abs(); // a sum of nothing is -0
    println!(
        "{place:?}: {total} invocations at ten times the capacity: {:.2} moves and {:.2} trips each; retries of another \
         hook late by p99 {alone:.0} ms alone, {beside:.0} ms beside",
        moves / total as f64,
        trips / total as f64,
    );
    assert!(moves > 0.0 && moves <= total as f64, "each moves once: {moves}");
    assert!(moves + trips <= 2.0 * total as f64, "{moves} moves and {trips} trips");
    assert!(beside < alone.max(100.0) * 2.0, "the other hook is late");
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(of(&sink.calls(), "narrow").count(), total, "each once");
    assert!(site.letters().is_empty());
}

#[tokio::test]
async fn ten_times_over_capacity_moves_once_on_servers() {
    ten_times_over(Place::Servers, OVER_CAPACITY_SECONDS.get()).await;
}

#[tokio::test]
async fn ten_times_over_capacity_moves_once_in_a_file() {
    ten_times_over(Place::File, 5).await;
}

/// Two thousand hooks with dead targets, half of which refuse and half of which never answer: a healthy hook is hardly
/// later than alone.
#[tokio::test]
async fn dead_targets_harm_nobody() {
    const DEAD: usize = 2000;
    const ROUNDS: usize = 400;
    let sink = Sink::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections, says nothing
    let dead = |number: usize| {
        let port = if number.is_multiple_of(2) { silent.local_addr().unwrap().port() } else { 9 };
        let url = format!("http://127.0.0.1:{port}/{number}");
        format!("  - {{ id: dead{number}, on: d{number}, timeout: 2s, run: {{ http: {{ url: \"{url}\" }} }} }}")
    };
    let hooks: Vec<String> = (0..DEAD).map(dead).chain([hook(&sink, "well", "w", "")]).collect();
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let Stage { mut worker, publisher, .. } = stage(Place::Servers, site).await;
    let mut sent = HashMap::new();
    for number in 0..2 * ROUNDS {
        if number >= ROUNDS {
            let first = (number - ROUNDS) * 10; // each dead hook twice, 400 a second
            let dead = (first..first + 10).map(|number| event(&format!("d{}", number % DEAD), &format!("d{number}")));
            publisher.send_all(dead).await;
        }
        let id = format!("w{number}");
        sent.insert(id.clone(), Instant::now());
        publisher.send(event("w", &id)).await;
        sleep(Duration::from_millis(25)).await;
    }
    sink.until("the healthy hook", Duration::from_secs(60), |calls| calls.len() == 2 * ROUNDS).await;
    let calls = sink.calls();
    let is_alone = |call: &Call| call.event[1..].parse::<usize>().unwrap() < ROUNDS;
    let (alone, beside): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(is_alone);
    let quantile = |calls: &[Call], quantile: f64| percentile(&latencies(calls, "well", &sent), quantile);
    println!(
        "2,000 dead targets: healthy p50 {:.1} ms alone, {:.1} ms beside; p99 {:.1} ms alone, {:.1} ms beside",
        quantile(&alone, 0.5),
        quantile(&beside, 0.5),
        quantile(&alone, 0.99),
        quantile(&beside, 0.99),
    );
    let tried = worker.metric("hookfleet_attempts_total", "\"dead").await;
    assert!(tried >= DEAD as f64 / 4.0, "the dead were tried {tried} times");
    // Without a bound for the dead it was two seconds, their timeout.
    assert!(quantile(&beside, 0.99) < 250.0, "the healthy hook waits for dead targets");
    assert_eq!(worker.stop().await, Some(0));
}

/// 50 a second on four workers are 50 a second in sum.
#[tokio::test]
async fn a_rate_is_the_fleets() {
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "paced", "a", ", rate: 50/s"));
    let Stage { site, worker, publisher } = stage(Place::Servers, site).await;
    let mut workers: Vec<Worker> = vec![worker];
    for _ in 0..3 {
        workers.push(site.worker().await);
    }
    let total = 1000;
    publisher.send_all((0..total).map(|n| event("a", &format!("e{n}")))).await;
    sink.until("all", Duration::from_secs(60), |calls| calls.len() >= total).await;
    for worker in &mut workers {
        assert_eq!(worker.stop().await, Some(0));
    }
    let calls = sink.calls();
    assert_eq!(calls.len(), total, "each once");
    // The middle of the run: its ends are those of the backlog.
    let middle = &calls[total / 10..total * 9 / 10];
    let rate = (middle.len() - 1) as f64 / (middle[middle.len() - 1].at - middle[0].at).as_secs_f64();
    println!("rate: 50/s on 4 workers: {rate:.1}/s");
    assert!((45.0..55.0).contains(&rate), "{rate}");
}

/// A limit of the fleet holds over its workers.
#[tokio::test]
async fn a_share_is_the_fleets() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_millis(100)));
    let site = site(Place::Servers).await.hooks(&hook(&sink, "few", "a", ", concurrency_fleet: 5"));
    let Stage { site, worker, publisher } = stage(Place::Servers, site).await;
    let mut workers = vec![worker, site.worker().await, site.worker().await];
    sleep(Duration::from_secs(2)).await; // each has heard of the others
    let total = 300;
    publisher.send_all((0..total).map(|n| event("a", &format!("e{n}")))).await;
    sink.until("all", Duration::from_secs(60), |calls| {
        calls.iter().filter(|call| call.finished.is_some()).count() >= total
    })
    .await;
    for worker in &mut workers {
        assert_eq!(worker.stop().await, Some(0));
    }
    let calls = sink.calls();
    let at_a_time = |at: Instant| calls.iter().filter(|c| c.at <= at && c.finished.is_some_and(|end| end > at)).count();
    let most = calls.iter().map(|call| at_a_time(call.at)).max().unwrap();
    let span = calls.iter().filter_map(|call| call.finished).max().unwrap() - calls[0].at;
    println!("concurrency_fleet: 5 on 3 workers: {most} at a time, {total} in {:.1} s", span.as_secs_f64());
    assert!(most <= 5, "{most} at a time");
    assert_eq!(calls.len(), total, "each once");
}

/// Workers of the slow lane and workers of the default one: each runs its own, and a flood of slow work leaves the
/// others alone.
#[tokio::test]
async fn lanes_are_apart() {
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::after(Duration::from_millis(if hook == "slow" { 500 } else { 1 })));
    let hooks = [hook(&sink, "slow", "a", ", lane: slow, concurrency: 8"), hook(&sink, "quick", "a", "")];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let default = site.clone().set("HOOKFLEET_WORKER_LANES", "default");
    let Stage { site, mut worker, publisher } = stage(Place::Servers, default).await;
    publisher.send_all((0..50).map(|n| event("a", &format!("e{n}")))).await;
    sink.until("the quick ones", Duration::from_secs(10), |calls| calls.len() == 50).await;
    assert!(sink.calls().iter().all(|call| call.hook == "quick"), "nobody serves the other lane");
    let handed = worker.metric("hookfleet_handed_over_total", "slow").await;
    assert!((handed - 50.0).abs() < 0.5, "{handed}");
    let mut slow = site.clone().set("HOOKFLEET_WORKER_LANES", "slow").worker().await;
    sink.until("the slow ones", Duration::from_secs(30), |calls| calls.len() == 100).await;
    assert!(worker.metric("hookfleet_attempts_total", "\"slow\"").await < 0.5);
    assert!(slow.metric("hookfleet_attempts_total", "\"quick\"").await < 0.5);
    assert_eq!((worker.stop().await, slow.stop().await), (Some(0), Some(0)));
    assert!(site.letters().is_empty());
}

/// Four workers, two of which serve the slow lane alone: slow work far beyond the capacity of all leaves the default lane's
/// events hardly later than alone.
#[tokio::test]
async fn a_flood_of_slow_work_leaves_the_default_lane_alone() {
    const ROUNDS: usize = 400;
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::after(Duration::from_millis(if hook == "slow" { 500 } else { 1 })));
    let hooks = [hook(&sink, "slow", "s", ", lane: slow, concurrency: 16"), hook(&sink, "quick", "q", "")];
    let site = site(Place::Servers).await.hooks(&hooks.join("\n"));
    let slow = site.clone().set("HOOKFLEET_WORKER_LANES", "slow");
    let Stage { site, worker, publisher } = stage(Place::Servers, site).await;
    let mut workers = vec![worker, site.worker().await, slow.worker().await, slow.worker().await];
    let mut sent = HashMap::new();
    for number in 0..2 * ROUNDS {
        if number >= ROUNDS {
            publisher.send_all((0..10).map(|slow| event("s", &format!("s{number}-{slow}")))).await; // 400 a second
        }
        let id = format!("q{number}");
        sent.insert(id.clone(), Instant::now());
        publisher.send(event("q", &id)).await;
        sleep(Duration::from_millis(25)).await;
    }
    sink.until("the quick ones", Duration::from_secs(60), |calls| of(calls, "quick").count() == 2 * ROUNDS).await;
    let calls = sink.calls();
    let slow_done = of(&calls, "slow").count();
    let is_alone = |call: &Call| call.event[1..].parse::<usize>().unwrap() < ROUNDS;
    let (alone, beside): (Vec<Call>, Vec<Call>) = of(&calls, "quick").cloned().partition(is_alone);
    let quantile = |calls: &[Call], quantile: f64| percentile(&latencies(calls, "quick", &sent), quantile);
    println!(
        "a flood of slow work, {slow_done} of {} done meanwhile: quick p50 {:.1} ms alone, {:.1} ms beside; p99 {:.1} ms alone, \
         {:.1} ms beside",
        ROUNDS * 10,
        quantile(&alone, 0.5),
        quantile(&beside, 0.5),
        quantile(&alone, 0.99),
        quantile(&beside, 0.99),
    );
    assert!(slow_done < ROUNDS * 9, "it was no flood: {slow_done} done");
    // An event that waits for one slow run is up to 500 ms late, for a queue of them many times that.
    assert!(quantile(&beside, 0.99) < 250.0, "the default lane waits for slow runs");
    for worker in &mut workers {
        worker.process.kill();
    }
}

/// A dead target is found out, its invocations are parked and spend no attempt, and all is delivered when it is back.
async fn broken_target(place: Place) {
    let sink = Sink::start().await;
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    sink.behave(move |hook, _| {
        let broken = hook == "dead" && is_down.load(Ordering::Relaxed);
        Answer::status(if broken { 503 } else { 200 })
    });
    let retry = ", retry: { attempts: 3, backoff: { initial: 500ms } }";
    let hooks = [hook(&sink, "dead", "d", retry), hook(&sink, "well", "w", "")];
    let site = site(place).await.hooks(&hooks.join("\n")).set("HOOKFLEET_BREAKER_FAILURES", "5");
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    // Six at first, which fail; of the others none may spend its attempts.
    publisher.send_all((0..6).map(|n| event("d", &format!("first{n}")))).await;
    let opened = async {
        while worker.metric("hookfleet_breaker_open", "").await < 1.0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), opened).await.unwrap();
    publisher.send_all((0..100).map(|n| event("d", &format!("e{n}")))).await;
    let mut sent = HashMap::new();
    for n in 0..100 {
        let id = format!("w{n}");
        sent.insert(id.clone(), Instant::now());
        publisher.send(event("w", &id)).await;
    }
    sink.until("the healthy hook", Duration::from_secs(10), |calls| {
        calls.iter().filter(|call| call.hook == "well").count() == 100
    })
    .await;
    let p99 = percentile(&latencies(&sink.calls(), "well", &sent), 0.99);
    let status: serde_json::Value = client().get(worker.url("/v1/status")).send().await.unwrap().json().await.unwrap();
    let broken = status.pointer("/broken_targets").unwrap().as_array().unwrap();
    assert_eq!(broken.len(), 1, "{status}");
    sleep(Duration::from_secs(5)).await; // probes fail meanwhile
    let attempts = sink.calls().iter().filter(|call| call.hook == "dead").count();
    down.store(false, Ordering::Relaxed);
    let back = Instant::now();
    let delivered = |calls: &[Call]| {
        let done = calls.iter().filter(|call| call.hook == "dead" && call.status == 200);
        done.filter(|call| call.event.starts_with('e')).count() == 100
    };
    sink.until("all that was parked", Duration::from_secs(60), delivered).await;
    println!(
        "{place:?}: {attempts} attempts at the dead target; all delivered {:.1} s after it was back; healthy p99 {p99:.1} ms",
        back.elapsed().as_secs_f64()
    );
    assert!(attempts < 40, "{attempts} attempts");
    let worst = sink.calls().iter().filter(|call| call.event.starts_with('e')).map(|call| call.attempt).max().unwrap();
    assert!(worst <= 2, "parking spends no attempt, and few were probes: {worst}");
    assert!(worker.metric("hookfleet_parked_total", "dead").await >= 100.0);
    assert!(worker.metric("hookfleet_breaker_open", "").await < 0.5);
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().len() <= 6, "only those that were there at first may have spent their attempts");
}

#[tokio::test]
async fn a_broken_target_is_left_alone_on_servers() {
    broken_target(Place::Servers).await;
}

#[tokio::test]
async fn a_broken_target_is_left_alone_in_a_file() {
    broken_target(Place::File).await;
}
