//! Poison, long runs, a store that goes away, memory.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::{Publisher, event};
use crate::servers::redis::Redis;
use crate::servers::{client, shared};
use crate::sink::{Answer, Call, Sink};
use crate::tiers::sizes::{LONG_RUN_KILL_SECONDS, LONG_RUN_SECONDS, MEMORY_EVENTS};

/// Keeps one process alive for as long as the test wants, counting its deaths: by a signal, since a process that found
/// its file in a command's hands just ends.
async fn keep_alive(site: &Site, env: &[(&str, &str)], stop: &AtomicBool) -> u32 {
    let mut deaths = 0;
    let mut worker = site.spawn(env);
    while !stop.load(Ordering::Relaxed) {
        if let Some(status) = worker.process.child.try_wait().unwrap() {
            deaths += u32::from(status.code().is_none());
            worker = site.spawn(env);
        }
        sleep(Duration::from_millis(50)).await;
    }
    deaths
}

/// The first letter. While processes come and go, one may own the file and not answer yet.
async fn until_a_letter(site: &Site) -> Value {
    let began = Instant::now();
    loop {
        let listed = site.run(&["dead-letters", "export", "--ndjson"]);
        let lines = String::from_utf8_lossy(&listed.stdout);
        if let Some(letter) = lines.lines().next().and_then(|line| serde_json::from_str(line).ok()) {
            return letter;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{}", String::from_utf8_lossy(&listed.stderr));
        sleep(Duration::from_millis(200)).await;
    }
}

/// One event that aborts the process among 5,000: one letter `poisoned`, at most 6 deaths, all others delivered.
async fn poison(place: Place) {
    let sink = Sink::start().await;
    let site =
        site(place).await.hooks(&hook(&sink, "h", "a", "")).set("HOOKFLEET_IDEMPOTENCY_LEASE", "2s").on_one_port();
    let env = [("HOOKFLEET_CRASH_AT", "claimed"), ("HOOKFLEET_CRASH_EVENT", "poison")];
    let stop = AtomicBool::new(false);
    let work = async {
        let publisher = match place {
            Place::Servers => Publisher::amqp(&shared().await.0, &site).await,
            Place::File => Publisher::http(site.port()),
        };
        let id = |i: usize| if i == 2500 { "poison".to_owned() } else { format!("e{i}") };
        publisher.send_all((0..=5000).map(|i| event("a", &id(i)))).await;
        let all = |calls: &[Call]| calls.iter().map(|call| call.event.as_str()).collect::<HashSet<_>>().len() == 5000;
        sink.until("the 5,000 others", Duration::from_secs(120), all).await;
        let letter = until_a_letter(&site).await;
        assert_eq!(letter.pointer("/letter/class").unwrap(), "poisoned");
        assert_eq!(letter.pointer("/letter/event/id").unwrap(), "poison");
        stop.store(true, Ordering::Relaxed);
    };
    let (deaths, ()) = tokio::join!(keep_alive(&site, &env, &stop), work);
    println!("{place:?}: the poisonous event killed {deaths} processes");
    assert!((2..=6).contains(&deaths), "{deaths} deaths");
    assert!(!sink.calls().iter().any(|call| call.event == "poison"));
}

#[tokio::test]
async fn a_poisonous_event_is_buried_alone_on_servers() {
    poison(Place::Servers).await;
}

#[tokio::test]
async fn a_poisonous_event_is_buried_alone_in_a_file() {
    poison(Place::File).await;
}

/// What kills whoever reads it, before there is anything to claim, is named by the deaths of its readers.
async fn deadly_to_read(place: Place) {
    let sink = Sink::start().await;
    let site = site(place).await.hooks(&hook(&sink, "h", "a", "")).on_one_port();
    match place {
        Place::Servers => Publisher::amqp(&shared().await.0, &site).await.send(event("a", "deadly")).await,
        Place::File => drop(site.ok(&["publish", "--type", "a", "--id", "deadly"])),
    }
    let stop = AtomicBool::new(false);
    let work = async {
        let letter = until_a_letter(&site).await;
        assert_eq!(letter.pointer("/letter/class").unwrap(), "poisoned");
        let error = letter.pointer("/letter/error").unwrap().as_str().unwrap();
        assert_eq!(error, "3 workers died reading it, each alone with it");
        stop.store(true, Ordering::Relaxed);
    };
    let (deaths, ()) = tokio::join!(keep_alive(&site, &[("HOOKFLEET_CRASH_AT", "received")], &stop), work);
    println!("{place:?}: to read the event killed {deaths} processes");
    // With all that they held, 3, or fewer where a message went from one dying cell to another, which counts too.
    assert!((4..=6).contains(&deaths), "{deaths} deaths, 3 of them alone with it");
    assert_eq!(sink.count(), 0);
}

#[tokio::test]
async fn what_kills_its_readers_is_buried_on_servers() {
    deadly_to_read(Place::Servers).await;
}

#[tokio::test]
async fn what_kills_its_readers_is_buried_in_a_file() {
    deadly_to_read(Place::File).await;
}

/// A long run under a lease of 3 s: run once, its delivery acked within 6 s.
async fn long_run(place: Place) {
    let sink = Sink::start().await;
    let run = Duration::from_secs(LONG_RUN_SECONDS.get());
    sink.behave(move |_, _| Answer::after(run));
    let site = site(place).await.hooks(&hook(&sink, "slow", "a", ", timeout: 90s"));
    let Stage { site, mut worker, publisher } = stage(place, site.set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")).await;
    publisher.send(event("a", "1")).await;
    sink.until("the call", Duration::from_secs(10), |calls| calls.len() == 1).await;
    sleep(Duration::from_secs(6)).await;
    assert!(worker.metric("hookfleet_guards_total", "").await >= 1.0, "a guard stands in for the delivery by now");
    if place == Place::Servers {
        until_nothing_is_unacked(&site).await;
    }
    sink.until("the end", run, |calls| calls[0].finished.is_some()).await;
    sleep(Duration::from_secs(5)).await; // the last guard comes round and finds it done
    assert_eq!(sink.count(), 1);
    assert!(worker.metric("hookfleet_claims_total", "busy").await >= run.as_secs_f64() / 12.0);
    assert!(worker.metric("hookfleet_claims_total", "\"done\"").await >= 1.0);
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

/// What the broker lists of its queues may lag by some seconds; the run goes on meanwhile.
async fn until_nothing_is_unacked(site: &Site) {
    let (events, began) = (format!("{}.events\t0", site.namespace), Instant::now());
    loop {
        let (rabbit, _) = shared().await;
        let unacked = rabbit.ctl(&["-q", "list_queues", "name", "messages_unacknowledged", "--no-table-headers"]);
        if unacked.lines().any(|line| line == events) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{unacked}");
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_long_run_is_run_once_and_holds_no_delivery_on_servers() {
    long_run(Place::Servers).await;
}

#[tokio::test]
async fn a_long_run_is_run_once_and_holds_no_delivery_in_a_file() {
    long_run(Place::File).await;
}

/// The worker of such a run is killed: another one takes over within a lease or so.
async fn long_run_killed(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, before| Answer::after(Duration::from_secs(if before == 0 { 60 } else { 1 })));
    let site = site(place).await.hooks(&hook(&sink, "slow", "a", ", timeout: 90s"));
    let Stage { site, mut worker, publisher } = stage(place, site.set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")).await;
    publisher.send(event("a", "1")).await;
    sink.until("the call", Duration::from_secs(10), |calls| calls.len() == 1).await;
    sleep(Duration::from_secs(LONG_RUN_KILL_SECONDS.get())).await;
    assert_eq!(sink.count(), 1);
    worker.process.kill();
    let killed_at = Instant::now();
    let mut second = site.worker().await;
    sink.until("the takeover", Duration::from_secs(20), |calls| calls.len() == 2).await;
    println!("{place:?}: taken over {:.1} s after the kill", killed_at.elapsed().as_secs_f64());
    sink.until("its end", Duration::from_secs(10), |calls| calls[1].finished.is_some()).await;
    assert!(second.metric("hookfleet_claims_total", "takeover").await >= 1.0);
    let calls = sink.calls();
    assert_eq!((calls[1].attempt, &calls[1].key), (1, &calls[0].key)); // no attempt was spent
    assert_eq!(second.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

#[tokio::test]
async fn a_long_run_whose_worker_dies_is_taken_over_on_servers() {
    long_run_killed(Place::Servers).await;
}

#[tokio::test]
async fn a_long_run_whose_worker_dies_is_taken_over_in_a_file() {
    long_run_killed(Place::File).await;
}

/// Redis away, policy hold: nothing runs, readiness says why, and all of it runs once Redis is back.
#[tokio::test]
async fn the_fleet_holds_while_redis_is_away() {
    let mut redis = Redis::start().await;
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, &redis).hooks(&hook(&sink, "h", "a", ""));
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    redis.kill();
    publisher.send_all((0..200).map(|i| event("a", &format!("e{i}")))).await;
    let not_ready = async {
        loop {
            let answer = client().get(worker.url("/readyz")).send().await.unwrap();
            if answer.status() == 503 {
                return answer.text().await.unwrap();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(20), not_ready).await.unwrap();
    assert!(reason.contains("holding: the store of claims is away"), "{reason}");
    sleep(Duration::from_secs(7)).await; // longer than a delivery may be held
    assert_eq!(sink.count(), 0);
    redis.restart().await;
    sink.until("all events", Duration::from_secs(40), |calls| calls.len() >= 200).await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 200, "each once");
    assert!(site.letters().is_empty());
}

/// Redis away, policy proceed: first attempts run without a claim, and their letters say so.
#[tokio::test]
async fn the_fleet_proceeds_while_redis_is_away_if_told_to() {
    let mut redis = Redis::start().await;
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::status(if hook == "bad" { 404 } else { 200 }));
    let hooks = [hook(&sink, "good", "a", ""), hook(&sink, "bad", "b", "")].join("\n");
    let site = Site::servers(rabbit, &redis).hooks(&hooks).set("HOOKFLEET_REDIS_WHEN_AWAY", "proceed");
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    redis.kill();
    publisher.send(event("a", "1")).await;
    publisher.send(event("b", "2")).await;
    sink.until("both", Duration::from_secs(20), |calls| calls.len() == 2).await;
    redis.restart().await;
    let letters = until_letters(&site, 1, "open").await;
    assert_eq!(letters[0].pointer("/letter/unprotected").unwrap(), true);
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 2);
}

/// Memory after 10,000 events, by which buffers and permits have been in full use, and after many more: within 10 MiB.
async fn memory(place: Place) {
    let sink = Sink::start().await;
    let site = site(place).await.hooks(&hook(&sink, "h", "a", ", concurrency: 256"));
    let Stage { site, mut worker, publisher } = stage(place, site.set("HOOKFLEET_LOG", "hookfleet=warn")).await;
    let warm = 10_000;
    publisher.send_all((0..warm).map(|i| event("a", &format!("w{i}")))).await;
    sink.until("the first 10,000", Duration::from_secs(300), |calls| calls.len() >= warm).await;
    let before = rss_kib(&worker);
    let many = MEMORY_EVENTS.count() - warm;
    publisher.send_all((0..many).map(|i| event("a", &format!("m{i}")))).await;
    sink.until("all events", Duration::from_secs(900), |calls| calls.len() >= warm + many).await;
    let after = rss_kib(&worker);
    println!("{place:?}: resident memory: {before} KiB after {warm} events, {after} KiB after {many} more");
    assert!(after < before + 10 * 1024, "{before} KiB, then {after} KiB");
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

#[tokio::test]
async fn memory_does_not_grow_with_events_on_servers() {
    memory(Place::Servers).await;
}

#[tokio::test]
async fn memory_does_not_grow_with_events_in_a_file() {
    memory(Place::File).await;
}

/// Resident memory of a worker.
pub(crate) fn rss_kib(worker: &Worker) -> u64 {
    let output =
        std::process::Command::new("ps").args(["-o", "rss=", "-p", &worker.process.id().to_string()]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}
