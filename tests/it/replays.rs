//! Replays of many letters that are broken off: each letter is delivered, and each runs once but for what was under way.

use std::collections::HashMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::letters::{items, parsed};
use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::publishing::{Publisher, event};
use crate::servers::Rabbit;
use crate::servers::redis::Redis;
use crate::sink::{Answer, Sink};
use crate::tiers::sizes::{REPLAYED, REPLAYED_FILE};

/// Runs at a time.
const CONCURRENCY: usize = 64;

/// One hook, which refuses everything for now.
async fn refusing() -> (Sink, String) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let more = format!(", retry: {{ attempts: 1 }}, concurrency: {CONCURRENCY}");
    let hooks = hook(&sink, "crm", "order.*", &more);
    (sink, hooks)
}

/// So many letters; what failed is mended then.
async fn mended(sink: &Sink, site: &Site, publisher: &Publisher, count: usize) {
    publisher.send_all((0..count).map(|number| event("order.paid", &format!("e{number}")))).await;
    sink.until("all failures", Duration::from_secs(120), |calls| calls.len() >= count).await;
    let began = Instant::now();
    while open(site) < count {
        assert!(began.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(100)).await;
    }
    sink.behave(|_, _| Answer::after(Duration::from_millis(2)));
}

/// Letters that wait for somebody.
fn open(site: &Site) -> usize {
    let groups = items(site, &["groups", "--state", "open"]);
    groups.iter().map(|group| usize::try_from(group["open"].as_u64().unwrap()).unwrap()).sum()
}

fn delivered(sink: &Sink) -> usize {
    sink.calls().iter().filter(|call| call.status == 200).count()
}

fn replay(site: &Site, more: &[&str]) -> Child {
    let mut command = site.command();
    command.args(["dead-letters", "replay", "--all", "--yes"]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until so many are delivered, or the replay has ended.
async fn until_delivered(sink: &Sink, replay: &mut Child, goal: usize) {
    let began = Instant::now();
    while delivered(sink) < goal && replay.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until every letter is resolved; then each has been delivered, and answers how many were twice.
async fn each_once(sink: &Sink, site: &Site, worker: &Worker, count: usize) -> usize {
    let began = Instant::now();
    while !items(site, &["list", "--state", "unresolved"]).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(120), "{}", worker.log());
        sleep(Duration::from_millis(200)).await;
    }
    let mut by_event: HashMap<String, Vec<String>> = HashMap::new();
    for call in sink.calls().into_iter().filter(|call| call.status == 200) {
        by_event.entry(call.event).or_default().push(call.key);
    }
    assert_eq!(by_event.len(), count, "every letter is delivered");
    let twice: Vec<_> = by_event.values().filter(|keys| keys.len() > 1).collect();
    assert!(twice.iter().all(|keys| keys.iter().all(|key| *key == keys[0])), "under one key");
    twice.len()
}

/// A replay of many is killed three times, begun by two at once, and a worker is killed too. With a file it is the worker
/// that sends, and that is killed each time.
async fn killed(place: Place, count: usize) {
    let (sink, hooks) = refusing().await;
    let Stage { site, mut worker, publisher } = stage(place, site(place).await.hooks(&hooks)).await;
    mended(&sink, &site, &publisher, count).await;
    for round in 1..=3 {
        let mut killed = replay(&site, &[]);
        until_delivered(&sink, &mut killed, delivered(&sink) + count / 10).await;
        assert!(killed.try_wait().unwrap().is_none(), "it is in the middle of it");
        match place {
            Place::Servers => killed.kill().unwrap(), // -9
            Place::File => worker.process.kill(),
        }
        killed.wait().unwrap();
        if place == Place::File {
            worker = site.worker().await;
        }
        assert!(open(&site) > 0, "something is left to do");
        println!("{place:?}: replay {round} killed after {} deliveries", delivered(&sink));
    }
    let mut both = [replay(&site, &[]), replay(&site, &[])];
    sleep(Duration::from_millis(200)).await;
    worker.process.kill();
    let worker = site.worker().await;
    for operator in &mut both {
        operator.wait().unwrap(); // one that spoke to the process that was killed has failed
    }
    let last = site.ok(&["dead-letters", "replay", "--all", "--yes"]);
    println!("{place:?}: the last replay: {}", last.lines().next().unwrap_or_default());
    let twice = each_once(&sink, &site, &worker, count).await;
    println!("{place:?}: {count} letters: {twice} delivered twice, under way when a worker was killed");
    let kills = if place == Place::File { 4 } else { 1 };
    assert!(twice <= kills * CONCURRENCY, "{twice} twice: more than can be under way");
}

#[tokio::test]
async fn a_replay_is_killed_and_gone_on_with_on_servers() {
    killed(Place::Servers, REPLAYED.count()).await;
}

#[tokio::test]
async fn a_replay_is_killed_and_gone_on_with_in_a_file() {
    killed(Place::File, REPLAYED_FILE.count()).await;
}

/// The broker is killed in the middle of a replay, twice. When it comes back, the replay goes on by itself; where it stays
/// away, the replay ends and says what it sent, and the next one sends the rest.
#[tokio::test]
async fn a_replay_outlives_its_broker() {
    const COUNT: usize = 2_000;
    let (mut rabbit, redis) = tokio::join!(Rabbit::start(), Redis::start());
    let (sink, hooks) = refusing().await;
    let site = Site::servers(&rabbit, &redis).hooks(&hooks);
    let mut worker = site.worker().await;
    mended(&sink, &site, &Publisher::amqp(&rabbit, &site).await, COUNT).await;

    let mut replay = replay(&site, &["--rate", "200/s", "--json"]);
    until_delivered(&sink, &mut replay, COUNT / 4).await;
    rabbit.kill();
    rabbit.restart().await;
    until_delivered(&sink, &mut replay, COUNT / 2).await;
    assert!(replay.try_wait().unwrap().is_none(), "it goes on");
    rabbit.kill();
    let output = tokio::task::spawn_blocking(move || replay.wait_with_output().unwrap()).await.unwrap();
    let told = parsed(&String::from_utf8_lossy(&output.stdout));
    println!("the broker stayed away: {told}");
    assert_eq!((output.status.code(), &told["total"]), (Some(1), &json!(COUNT)), "{told}");
    assert!(told["ended"].as_str().is_some_and(|why| !why.is_empty()), "it says why: {told}");
    let number = |name: &str| usize::try_from(told.get(name).and_then(Value::as_u64).unwrap()).unwrap();
    let left = COUNT - number("sent") - number("skipped");
    // What was delivered just before the broker died may not be counted as sent: its mark was not confirmed.
    let most = COUNT / 2 + hookfleet::operations::replay::WINDOW;
    assert!(number("refused") == 0 && (1..=most).contains(&left), "{told}");

    rabbit.restart().await;
    if worker.process.child.try_wait().unwrap().is_some() {
        worker = site.spawn(&[]); // a worker that finds no broker for too long ends, and is started again
    }
    worker.until_ready().await;
    let open = open(&site);
    assert!(open <= left, "{open} are open: {told}");
    let unconfirmed = left - open;
    assert!(
        unconfirmed <= hookfleet::operations::replay::WINDOW,
        "{unconfirmed} were out without being counted: {told}"
    );
    site.ok(&["dead-letters", "replay", "--all", "--yes"]);
    let twice = each_once(&sink, &site, &worker, COUNT).await;
    println!("{COUNT} letters, the broker killed twice: {twice} delivered twice under one key");
    assert!(twice <= 2 * CONCURRENCY, "{twice} twice: more than can be under way");
}
