//! What a user sees: events in, hooks run, failures retried and buried, letters replayed. On servers and in a file.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::fleet::{Site, Worker};
use crate::publishing::{Publisher, event};
use crate::servers::shared;
use crate::sink::{Answer, Sink};

/// A site with one worker, ready, and a publisher.
pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) worker: Worker,
    pub(crate) publisher: Publisher,
}

/// Where a scenario plays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Servers,
    File,
}

pub(crate) async fn site(place: Place) -> Site {
    match place {
        Place::Servers => {
            let (rabbit, redis) = shared().await;
            Site::servers(rabbit, redis)
        }
        Place::File => Site::embedded(),
    }
}

pub(crate) async fn stage(place: Place, site: Site) -> Stage {
    let worker = site.worker().await;
    let publisher = match place {
        Place::Servers => Publisher::amqp(&shared().await.0, &site).await,
        Place::File => Publisher::http(worker.port),
    };
    Stage { site, worker, publisher }
}

/// A hook in YAML that posts to the sink.
pub(crate) fn hook(sink: &Sink, id: &str, on: &str, more: &str) -> String {
    format!("  - {{ id: {id}, on: \"{on}\", run: {{ http: {{ url: \"{}\" }} }}{more} }}", sink.url(id))
}

pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted[index]
}

/// A target that fails four times, then works: five attempts, waits as the policy says, one key.
async fn five_attempts(place: Place, count: usize) {
    let sink = Sink::start().await;
    sink.behave(|_, before| Answer::status(if before < 4 { 503 } else { 200 }));
    let policy = ", retry: { attempts: 5, backoff: { initial: 500ms, factor: 2, jitter: 0.2 } }, concurrency: 256";
    let site = site(place).await.hooks(&hook(&sink, "flaky", "order.*", policy));
    let site = site.set("HOOKFLEET_BREAKER_FAILURES", "0"); // else most would be parked: see the tests of breakers
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    publisher.send_all((0..count).map(|i| event("order.paid", &format!("e{i}")))).await;
    sink.until("all attempts", Duration::from_secs(90), |calls| calls.len() >= 5 * count).await;
    assert_eq!(worker.stop().await, Some(0));

    let mut by_event: HashMap<String, Vec<_>> = HashMap::new();
    for call in sink.calls() {
        by_event.entry(call.event.clone()).or_default().push(call);
    }
    assert_eq!(by_event.len(), count);
    let mut lateness = Vec::new();
    for (event, calls) in &by_event {
        assert_eq!(calls.iter().map(|call| call.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5], "{event}");
        assert_eq!(calls.iter().map(|call| &call.key).collect::<HashSet<_>>().len(), 1, "{event}");
        for (pair, planned_ms) in calls.windows(2).zip([500.0, 1000.0, 2000.0, 4000.0]) {
            let waited_ms = (pair[1].at - pair[0].finished.unwrap_or(pair[0].at)).as_secs_f64() * 1000.0;
            assert!(waited_ms >= planned_ms * 0.8 - 2.0, "{event} waited {waited_ms} ms of {planned_ms}");
            lateness.push(waited_ms - planned_ms * 1.2); // beyond the longest wait that jitter allows
        }
    }
    lateness.sort_by(f64::total_cmp);
    println!(
        "{place:?}: {count} invocations of five attempts: beyond the longest planned wait p50 {:.0} ms, p99 {:.0} ms",
        percentile(&lateness, 0.5),
        percentile(&lateness, 0.99)
    );
    assert!(site.letters().is_empty());
}

#[tokio::test]
async fn five_attempts_then_done_on_servers() {
    five_attempts(Place::Servers, 1000).await;
}

#[tokio::test]
async fn five_attempts_then_done_in_a_file() {
    five_attempts(Place::File, 1000).await;
}

/// `Retry-After: 7` lengthens a wait of half a second to seven.
async fn retry_after(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, before| Answer {
        retry_after: (before == 0).then(|| "7".to_owned()),
        ..Answer::status(if before == 0 { 429 } else { 200 })
    });
    let policy = ", retry: { attempts: 3, backoff: { initial: 500ms } }";
    let site = site(place).await.hooks(&hook(&sink, "limited", "a", policy));
    let Stage { publisher, .. } = &stage(place, site).await;
    publisher.send(event("a", "1")).await;
    sink.until("the second attempt", Duration::from_secs(20), |calls| calls.len() == 2).await;
    let calls = sink.calls();
    let waited = calls[1].at - calls[0].at;
    assert!(waited >= Duration::from_secs(7) && waited < Duration::from_secs(9), "{waited:?}");
}

#[tokio::test]
async fn retry_after_is_kept_on_servers() {
    retry_after(Place::Servers).await;
}

#[tokio::test]
async fn retry_after_is_kept_in_a_file() {
    retry_after(Place::File).await;
}

/// One that always fails: one letter; mended and replayed twice at the same time: delivered once, letter resolved.
async fn letter_and_replay(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(500));
    let policy = ", retry: { attempts: 2, backoff: { initial: 250ms } }";
    let site = site(place).await.hooks(&hook(&sink, "broken", "a", policy));
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    publisher.send(event("a", "1")).await;
    sink.until("both attempts", Duration::from_secs(20), |calls| calls.len() == 2).await;
    let letter = until_letters(&site, 1, "open").await.remove(0);
    let id = letter.pointer("/letter/id").unwrap().as_str().unwrap().to_owned();
    assert_eq!(letter.pointer("/letter/class").unwrap(), "exhausted");
    assert_eq!(letter.pointer("/letter/attempts").unwrap().as_array().unwrap().len(), 2);
    let shown = site.ok(&["dead-letters", "show", &id, "--body", "--json"]);
    assert!(shown.contains("\\\"specversion\\\":\\\"1.0\\\""), "{shown}");

    sink.behave(|_, _| Answer::after(Duration::from_millis(300))); // mended, and slow enough to be caught twice
    let replays: Vec<_> = (0..2)
        .map(|_| site.command().args(["dead-letters", "replay", &id]).spawn().unwrap())
        .map(|mut child| std::thread::spawn(move || child.wait().unwrap().success()))
        .collect();
    for replay in replays {
        replay.join().unwrap(); // the later one may find the letter resolved already and say so
    }
    until_letters(&site, 1, "resolved").await;
    assert_eq!(worker.stop().await, Some(0)); // nothing is left under way
    let calls = sink.calls();
    assert_eq!(calls.len(), 3, "delivered once more: {calls:#?}");
    assert_eq!(calls.iter().map(|call| &call.key).collect::<HashSet<_>>().len(), 1);
}

#[tokio::test]
async fn a_letter_replayed_twice_is_delivered_once_on_servers() {
    letter_and_replay(Place::Servers).await;
}

#[tokio::test]
async fn a_letter_replayed_twice_is_delivered_once_in_a_file() {
    letter_and_replay(Place::File).await;
}

/// Waits until exactly so many letters are there, all in this state.
pub(crate) async fn until_letters(site: &Site, count: usize, state: &str) -> Vec<serde_json::Value> {
    let began = std::time::Instant::now();
    loop {
        let letters = site.letters();
        if letters.len() == count && letters.iter().all(|letter| letter.get("state").unwrap() == state) {
            return letters;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "waited for {count} {state}: {letters:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Events of the healthy hook.
const HEALTHY: usize = 600;
/// Below this, a p99 is the machine's.
const P99_FLOOR_MS: f64 = 10.0;

/// A worker with a healthy hook, and its p99.
struct Measured {
    sink: Sink,
    stage: Stage,
}

impl Measured {
    async fn start(place: Place, others: &[&str]) -> Self {
        let sink = Sink::start().await;
        sink.behave(|hook, _| Answer::after(Duration::from_millis(if hook == "hangs" { 60_000 } else { 20 })));
        let mut hooks = vec![hook(&sink, "healthy", "good.*", ", timeout: 5s")];
        hooks.extend(others.iter().map(|policy| hook(&sink, "hangs", "bad.*", policy)));
        let site = site(place).await.hooks(&hooks.join("\n"));
        let stage = stage(place, site).await;
        Self { sink, stage }
    }

    /// Milliseconds from publishing to the target, when all these events are there.
    async fn p99(&self, sent: &HashMap<String, std::time::Instant>) -> f64 {
        let is_healthy = |call: &&crate::sink::Call| call.hook == "healthy";
        let done = |calls: &[crate::sink::Call]| calls.iter().filter(is_healthy).count() >= sent.len();
        self.sink.until("the healthy hook", Duration::from_secs(60), done).await;
        let calls = self.sink.calls();
        let calls = calls.iter().filter(is_healthy);
        let mut waits: Vec<f64> = calls.map(|call| (call.at - sent[&call.event]).as_secs_f64() * 1000.0).collect();
        waits.sort_by(f64::total_cmp);
        percentile(&waits, 0.99)
    }
}

/// A hook whose target hangs leaves another hook's p99 within 2 times of alone: of two workers that do the same at the same
/// time, so that whatever else the machine does comes upon both.
async fn isolation(place: Place) {
    let alone = Measured::start(place, &[]).await;
    let beside = Measured::start(place, &[", timeout: 30s, concurrency: 32"]).await;
    let mut sent = [HashMap::new(), HashMap::new()];
    for number in 0..HEALTHY {
        let id = format!("good-{number}");
        if number % 2 == 0 {
            beside.stage.publisher.send(event("bad.a", &format!("bad-{number}"))).await;
        }
        for (measured, sent) in [&alone, &beside].into_iter().zip(&mut sent) {
            sent.insert(id.clone(), std::time::Instant::now());
            measured.stage.publisher.send(event("good.a", &id)).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (alone_ms, beside_ms) = tokio::join!(alone.p99(&sent[0]), beside.p99(&sent[1]));
    println!("{place:?}: p99 of a healthy hook: alone {alone_ms:.1} ms, beside a hanging one {beside_ms:.1} ms");
    for mut measured in [alone, beside] {
        measured.stage.worker.process.kill();
    }
    assert!(beside_ms <= 2.0 * alone_ms.max(P99_FLOOR_MS), "{alone_ms:.1} ms alone, {beside_ms:.1} ms beside");
}

#[tokio::test]
async fn a_hanging_target_does_not_slow_another_hook_on_servers() {
    isolation(Place::Servers).await;
}

#[tokio::test]
async fn a_hanging_target_does_not_slow_another_hook_in_a_file() {
    isolation(Place::File).await;
}
