//! Fifty changes of a catalog in the middle of the work of four workers.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use hookfleet::catalog::Document;
use hookfleet::catalog::apply::{Done, Refused, Wish, apply};
use hookfleet::catalog::consent::{Consent, Way};
use hookfleet::catalog::revisions::Revisions;
use hookfleet::domain::decision::Decision;
use hookfleet::flow::redis::RedisFlow;
use hookfleet::redis::connection::Link;
use tokio::time::sleep;

use super::PATIENCE;
use crate::fleet::{Site, Worker};
use crate::publishing::{Publisher, event};
use crate::servers::shared;
use crate::sink::{Answer, Call, Sink};
use crate::stores::settings;

const STEPS: usize = 50;
/// Events of the new hook of each step.
const FRESH: usize = 10;

/// A fleet, and who changes its catalog as `hooks apply` does.
struct Scene {
    sink: Sink,
    site: Site,
    publisher: Publisher,
    revisions: Revisions,
    flow: RedisFlow,
    workers: Vec<Worker>,
    /// Events sent so far that two hooks want.
    sent: AtomicUsize,
    over: AtomicBool,
}

/// This catalog has no gates.
struct Unasked;

#[async_trait]
impl Consent for Unasked {
    async fn decide(&self, invocation: Bytes) -> Result<Decision, String> {
        panic!("asked: {invocation:?}")
    }
}

impl Scene {
    async fn start() -> Self {
        let (rabbit, redis) = shared().await;
        let sink = Sink::start().await;
        sink.behave(|hook, before| Answer::status(if hook.starts_with("new-") && before == 0 { 503 } else { 200 }));
        let site = Site::servers(rabbit, redis)
            .of_redis()
            .set("HOOKFLEET_WORKER_CELLS", "1")
            .set("HOOKFLEET_WORKER_PREFETCH", "1000")
            .set("HOOKFLEET_WORKER_CONCURRENCY", "4000")
            .set("HOOKFLEET_BREAKER_FAILURES", "0");
        let link = Link::new(settings(&redis.url()));
        let (revisions, flow) = (Revisions::new(link.clone(), &site.namespace), RedisFlow::new(link, &site.namespace));
        let publisher = Publisher::amqp(rabbit, &site).await;
        let (workers, sent, over) =
            ((0..4).map(|_| site.spawn(&[])).collect(), AtomicUsize::new(0), AtomicBool::new(false));
        Self { sink, site, publisher, revisions, flow, workers, sent, over }
    }

    async fn apply(&self, expected: Option<u64>, step: usize, wrong: &str) -> Result<u64, Refused> {
        let documents = vec![Document::native("h.yaml", self.hooks(step, wrong))];
        let hint_max = Duration::from_secs(60);
        let wish = Wish {
            documents,
            expected,
            by: "me".to_owned(),
            message: None,
            dry_run: false,
            at_ms: 0,
            hint_max,
            way: Way::CommandLine,
            skip_hooks: false,
        };
        match apply(&self.revisions, &self.flow, &Unasked, wish).await?.done {
            Done::New(about) => Ok(about.number),
            other => panic!("expected a new revision, found {other:?}"),
        }
    }

    /// The hooks of a step: two that want every event, and of each step so far one whose first attempt fails, so that
    /// its invocation travels to workers that may not know it yet. A header says the step.
    fn hooks(&self, step: usize, wrong: &str) -> String {
        let hook = |id: &str, on: &str| {
            let (url, headers) = (self.sink.url(id), format!("{{ x-revision: \"{step}\"{wrong} }}"));
            let retry = "retry: { attempts: 8, backoff: { initial: 250ms, factor: 1 } }, concurrency: 2000";
            format!(
                "  - {{ id: {id}, on: {on}, run: {{ http: {{ url: \"{url}\", headers: {headers} }} }}, {retry} }}\n"
            )
        };
        let added: String = (0..=step).map(|step| hook(&format!("new-{step}"), &format!("fresh.{step}"))).collect();
        format!("version: 1\nhooks:\n{}{}{added}", hook("one", "load.*"), hook("two", "load.*"))
    }

    /// Sends up to 2,000 events a second, as far as this machine can, until all changes are made.
    async fn load(&self) -> Duration {
        let began = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            let (first, tick) = (self.sent.load(Ordering::Relaxed), sleep(Duration::from_millis(50)));
            self.publisher.send_all((first..first + 100).map(|i| event("load.a", &format!("l{i}")))).await;
            self.sent.fetch_add(100, Ordering::Relaxed);
            tick.await;
        }
        began.elapsed()
    }

    /// Ten of the changes are wrong, half of them for the workers alone, and five come too late. Answers the number of the
    /// last revision, and the slowest time in which all workers had one in force.
    async fn change(&self, mut number: u64) -> (u64, Duration) {
        let mut slowest = Duration::ZERO;
        for step in 1..=STEPS {
            match step % 10 {
                3 => match self.apply(None, step, ", x: []").await {
                    Err(Refused::Invalid(_)) => {}
                    other => panic!("expected it to be invalid: {other:?}"),
                },
                5 => match self.apply(Some(number - 1), step, "").await {
                    Err(Refused::Stale { current, .. }) => assert_eq!(current.unwrap().number, number),
                    other => panic!("expected it to be stale: {other:?}"),
                },
                7 => {
                    number = self.apply(Some(number), step, ", x: \"${env:NOWHERE}\"").await.unwrap();
                    let name = format!("r{number}");
                    for worker in &self.workers {
                        worker.until("/v1/status", |status| status["catalog"]["refused"]["revision"] == name).await;
                    }
                }
                _ => {
                    number = self.apply(Some(number), step, "").await.unwrap();
                    let (began, name) = (Instant::now(), format!("r{number}"));
                    let fresh = (0..FRESH).map(|round| event(&format!("fresh.{step}"), &format!("f{step}-{round}")));
                    let followed = async {
                        let all = self.workers.iter().map(|worker| worker.until_revision(&name));
                        join_all(all).await;
                        began.elapsed()
                    };
                    // Some are matched by the first workers that know the new hook, and tried again by others.
                    let (took, ()) = tokio::join!(followed, self.slowly(fresh));
                    slowest = slowest.max(took);
                }
            }
        }
        self.over.store(true, Ordering::Relaxed);
        (number, slowest)
    }

    async fn slowly(&self, events: impl Iterator<Item = bytes::Bytes>) {
        for event in events {
            self.publisher.send(event).await;
            sleep(Duration::from_millis(40)).await;
        }
    }
}

/// Ids of events that begin so and were called with any of these answers.
fn ids(calls: &[Call], begin: char, statuses: &[u16]) -> HashSet<String> {
    let found = calls.iter().filter(|call| call.event.starts_with(begin) && statuses.contains(&call.status));
    found.map(|call| call.event.clone()).collect()
}

/// Nothing is lost, each event is run under one revision, and no worker takes a hook to be removed that it does not know
/// yet.
#[tokio::test]
async fn a_fleet_changes_its_catalog_under_load() {
    let mut scene = Scene::start().await;
    let first = scene.apply(Some(0), 0, "").await.unwrap();
    for worker in &scene.workers {
        worker.until_ready().await;
    }
    let (took, (number, slowest)) = tokio::join!(scene.load(), scene.change(first));
    let count = scene.sent.load(Ordering::Relaxed);
    let twice = |calls: &[Call]| calls.iter().filter(|call| call.event.starts_with('l')).count() >= 2 * count;
    scene.sink.until("every event at both hooks", PATIENCE * 4, twice).await;
    let all = |calls: &[Call]| ids(calls, 'f', &[200]) == ids(calls, 'f', &[200, 503]);
    scene.sink.until("every retry", PATIENCE, all).await;
    let refused = scene.workers.iter().map(async |worker| worker.count("hookfleet_catalogs_refused_total", "").await);
    let refused: Vec<u64> = join_all(refused).await;
    for worker in &mut scene.workers {
        assert_eq!(worker.stop().await, Some(0));
    }

    let calls = scene.sink.calls();
    let mut runs: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    for call in calls.iter().filter(|call| call.event.starts_with('l')) {
        runs.entry(&call.event).or_default().push((&call.hook, &call.revision));
    }
    let lost = (0..count).filter(|i| runs.get(&*format!("l{i}")).is_none_or(|runs| runs.len() != 2)).count();
    let mixed: Vec<_> = runs.values().filter(|runs| runs.iter().any(|(_, step)| *step != runs[0].1)).collect();
    let steps: HashSet<&str> = runs.values().map(|runs| runs[0].1).collect();
    let fresh = ids(&calls, 'f', &[503]).len();
    println!(
        "{count} events at {:.0}/s, r{number}, {} revisions in runs: {lost} not run exactly twice, {} mixed; the slowest \
         worker followed in {:.2} s; {fresh} of the events of new hooks came after their hook, and were tried again",
        count as f64 / took.as_secs_f64(),
        steps.len(),
        mixed.len(),
        slowest.as_secs_f64(),
    );
    assert_eq!((lost, mixed.len()), (0, 0), "{mixed:?}");
    assert!(scene.site.letters().is_empty(), "{:#?}", scene.site.letters());
    assert!(fresh > STEPS && steps.len() > STEPS / 2, "the test saw no change: {fresh}, {steps:?}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert_eq!(refused, [5; 4], "each worker refuses each wrong revision once");
}
