//! Kills in the middle of load, poison, long runs, a store that goes away, memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{interval, sleep};

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::{Publisher, event};
use crate::servers::{Rabbit, Redis, client, shared};
use crate::sink::{Answer, Call, Sink};

/// Counters of processes that may die at any moment: the last reading of each is kept.
#[derive(Default)]
struct Counters {
    last: HashMap<u16, HashMap<&'static str, f64>>,
}

const ANSWERS: [&str; 7] = ["won", "takeover", "superseded", "done", "busy", "resume", "suspect"];

impl Counters {
    async fn read(&mut self, worker: &Worker) {
        let Ok(answer) = client().get(worker.url("/metrics")).send().await else { return };
        let text = answer.text().await.unwrap_or_default();
        let reading = self.last.entry(worker.port).or_default();
        for name in ANSWERS {
            let label = format!("answer=\"{name}\"");
            reading.insert(name, crate::fleet::metric(&text, "hookfleet_claims_total", &label));
        }
    }

    fn sum(&self, name: &str) -> f64 {
        self.last.values().filter_map(|reading| reading.get(name)).sum()
    }
}

fn calls_by_event(calls: &[Call]) -> HashMap<&str, Vec<&Call>> {
    let mut by_event: HashMap<&str, Vec<&Call>> = HashMap::new();
    for call in calls {
        by_event.entry(call.event.as_str()).or_default().push(call);
    }
    by_event
}

/// 300 events/s for 90 s at a 50 ms target, 3 workers, one killed with -9 every second, RabbitMQ and Redis each killed
/// with -9 and restarted once: every event succeeded at the sink, no letters, and every duplicate is explained.
#[tokio::test]
async fn nothing_is_lost_while_everything_is_killed() {
    const SECONDS: u64 = 90;
    const RATE: u64 = 300;
    let (mut rabbit, mut redis) = tokio::join!(Rabbit::start(), Redis::start());
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_millis(50)));
    let more = ", concurrency: 128, retry: { attempts: 8, backoff: { initial: 500ms } }";
    let site = Site::servers(&rabbit, &redis)
        .hooks(&hook(&sink, "h", "a", more))
        .set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")
        .set("HOOKFLEET_LOG", "hookfleet=warn");
    let mut workers = vec![site.worker().await, site.worker().await, site.worker().await];
    let publisher = Arc::new(Publisher::amqp(&rabbit, &site).await);

    let publishing = {
        let publisher = Arc::clone(&publisher);
        tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis(100));
            let mut sends = tokio::task::JoinSet::new();
            for round in 0..SECONDS * 10 {
                tick.tick().await;
                for i in 0..RATE / 10 {
                    let publisher = Arc::clone(&publisher);
                    sends.spawn(async move { publisher.send(event("a", &format!("e{round}-{i}"))).await });
                }
            }
            while sends.join_next().await.is_some() {}
        })
    };

    let (mut kills, mut redis_died, mut counters) = (Vec::new(), None, Counters::default());
    let mut tick = interval(Duration::from_secs(1));
    let mut next = 0;
    for second in 0..SECONDS {
        tick.tick().await;
        for worker in &workers {
            counters.read(worker).await;
        }
        next = (next + 1) % workers.len();
        workers[next].process.kill();
        kills.push(Instant::now());
        workers[next] = site.spawn(&[]);
        if second == 30 {
            rabbit.kill();
            kills.push(Instant::now());
            rabbit.restart().await;
        }
        if second == 60 {
            redis.kill();
            redis_died = Some(Instant::now());
            redis.restart().await;
        }
    }
    publishing.await.unwrap();
    let total = usize::try_from(SECONDS * RATE).unwrap();
    let all = |calls: &[Call]| {
        let done = calls.iter().filter(|call| call.finished.is_some());
        done.map(|call| call.event.as_str()).collect::<HashSet<_>>().len() == total
    };
    sink.until("every event", Duration::from_secs(120), all).await;
    settle_down(&rabbit, &site).await;
    for worker in &workers {
        counters.read(worker).await;
    }

    let calls = sink.calls();
    let explained = |call: &Call| {
        let end = call.finished.unwrap_or_else(Instant::now) + Duration::from_secs(1); // in flight, or not yet acked
        kills.iter().any(|&kill| call.at <= kill && kill <= end)
            || redis_died.is_some_and(|died| call.at <= died + Duration::from_secs(6) && died <= end)
    };
    let (mut duplicates, mut unexplained) = (0, Vec::new());
    for (event, calls) in calls_by_event(&calls) {
        assert_eq!(calls.iter().map(|call| &call.key).collect::<HashSet<_>>().len(), 1, "{event} has several keys");
        duplicates += calls.len() - 1;
        if calls.len() > 1 && !calls[..calls.len() - 1].iter().all(|call| explained(call)) {
            unexplained.push((event.to_owned(), calls.len()));
        }
    }
    println!("{total} events, {} calls, {duplicates} duplicates with the same key, {} kills", calls.len(), kills.len());
    for name in ANSWERS {
        println!("claims answered {name}: at least {}", counters.sum(name));
    }
    assert!(unexplained.is_empty(), "duplicates without a kill: {unexplained:?}");
    assert_eq!(site.letters().len(), 0, "{:#?}", site.letters().iter().take(3).collect::<Vec<_>>());
    for name in ["takeover", "superseded", "done", "busy"] {
        assert!(counters.sum(name) > 0.0, "no claim was answered {name}");
    }
}

/// Waits until no queue of this namespace has a message left, lane `suspect` included.
async fn settle_down(rabbit: &Rabbit, site: &Site) {
    let began = Instant::now();
    loop {
        let listed = rabbit.ctl(&["-q", "list_queues", "name", "messages", "--no-table-headers"]);
        let left: Vec<&str> = listed
            .lines()
            .filter(|line| line.starts_with(&site.namespace) && !line.contains(".dead"))
            .filter(|line| !line.ends_with("\t0"))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "messages are left: {left:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Keeps one process alive for as long as the test wants, counting its deaths.
async fn keep_alive(site: &Site, env: &[(&str, &str)], stop: &AtomicBool) -> u32 {
    let mut deaths = 0;
    let mut worker = site.spawn(env);
    while !stop.load(Ordering::Relaxed) {
        if worker.process.child.try_wait().unwrap().is_some() {
            deaths += 1;
            worker = site.spawn(env);
        }
        sleep(Duration::from_millis(50)).await;
    }
    deaths
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
        let letters = until_letters(&site, 1, "open").await;
        assert_eq!(letters[0].pointer("/letter/class").unwrap(), "poisoned");
        assert_eq!(letters[0].pointer("/letter/event/id").unwrap(), "poison");
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

/// A 60 s target under a 3 s lease: run once, its delivery acked within 6 s.
#[tokio::test]
async fn a_long_run_is_run_once_and_holds_no_delivery() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_secs(60)));
    let (rabbit, _) = shared().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "slow", "a", ", timeout: 90s"));
    let Stage { site, mut worker, publisher } =
        stage(Place::Servers, site.set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")).await;
    publisher.send(event("a", "1")).await;
    sink.until("the call", Duration::from_secs(10), |calls| calls.len() == 1).await;
    sleep(Duration::from_secs(6)).await;
    assert!(worker.metric("hookfleet_guards_total", "").await >= 1.0, "a guard stands in for the delivery by now");
    // What the broker lists of its queues may lag by some seconds; the run goes on for fifty yet.
    let (events, began) = (format!("{}.events\t0", site.namespace), Instant::now());
    loop {
        let unacked = rabbit.ctl(&["-q", "list_queues", "name", "messages_unacknowledged", "--no-table-headers"]);
        if unacked.lines().any(|line| line == events) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{unacked}");
        sleep(Duration::from_millis(500)).await;
    }
    sink.until("the end", Duration::from_secs(70), |calls| calls[0].finished.is_some()).await;
    sleep(Duration::from_secs(4)).await; // the last guard comes round and finds it done
    assert_eq!(sink.count(), 1);
    assert!(worker.metric("hookfleet_guards_total", "").await >= 1.0);
    assert!(worker.metric("hookfleet_claims_total", "busy").await >= 5.0);
    assert!(worker.metric("hookfleet_claims_total", "\"done\"").await >= 1.0);
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

/// The same target; its worker is killed at 30 s: another takes over within a lease or so.
#[tokio::test]
async fn a_long_run_whose_worker_dies_is_taken_over() {
    let sink = Sink::start().await;
    sink.behave(|_, before| Answer::after(Duration::from_secs(if before == 0 { 60 } else { 1 })));
    let site = site(Place::Servers).await.hooks(&hook(&sink, "slow", "a", ", timeout: 90s"));
    let Stage { site, mut worker, publisher } =
        stage(Place::Servers, site.set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")).await;
    publisher.send(event("a", "1")).await;
    sink.until("the call", Duration::from_secs(10), |calls| calls.len() == 1).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(sink.count(), 1);
    worker.process.kill();
    let killed_at = Instant::now();
    let mut second = site.worker().await;
    sink.until("the takeover", Duration::from_secs(20), |calls| calls.len() == 2).await;
    println!("taken over {:.1} s after the kill", killed_at.elapsed().as_secs_f64());
    sink.until("its end", Duration::from_secs(10), |calls| calls[1].finished.is_some()).await;
    assert!(second.metric("hookfleet_claims_total", "takeover").await >= 1.0);
    let calls = sink.calls();
    assert_eq!((calls[1].attempt, &calls[1].key), (1, &calls[0].key)); // no attempt was spent
    assert_eq!(second.stop().await, Some(0));
    assert!(site.letters().is_empty());
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

/// Memory after 1,000 and after 300,000 events: within 10 MiB.
#[tokio::test]
async fn memory_does_not_grow_with_events() {
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ", concurrency: 256"));
    let Stage { site, mut worker, publisher } =
        stage(Place::Servers, site.set("HOOKFLEET_LOG", "hookfleet=warn")).await;
    let warm = 1000;
    publisher.send_all((0..warm).map(|i| event("a", &format!("w{i}")))).await;
    sink.until("the first 1,000", Duration::from_secs(30), |calls| calls.len() >= warm).await;
    let before = rss_kib(&worker);
    let many = 299_000;
    publisher.send_all((0..many).map(|i| event("a", &format!("m{i}")))).await;
    sink.until("300,000", Duration::from_secs(300), |calls| calls.len() >= warm + many).await;
    let after = rss_kib(&worker);
    println!("resident memory: {before} KiB after 1,000 events, {after} KiB after 300,000");
    assert!(after < before + 10 * 1024, "{before} KiB, then {after} KiB");
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

fn rss_kib(worker: &Worker) -> u64 {
    let output =
        std::process::Command::new("ps").args(["-o", "rss=", "-p", &worker.process.id().to_string()]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}
