//! One fault at a time in the middle of a load, each with a line for README's table. `tests/run --long chaos::` repeats
//! them all; CI tries one fault of each family.
//!
//! What holds after each: every event succeeded at the sink under one key, nothing ran twice where nothing can make it, no
//! queue has a message left, every claim is finished, and there is no letter.
//!
//! Runtimes have threads here: sinks and proxies have to go on while the test waits for a command.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::load::{Load, Outcome};
use crate::pipeline::hook;
use crate::proxy::Proxy;
use crate::publishing::Publisher;
use crate::servers::Rabbit;
use crate::servers::redis::Redis;
use crate::storm::settle_down;
use crate::tiers::sizes::FAULT_SECONDS;

mod broker;
mod file;
mod names;
mod network;
mod overload;
mod store;
mod workers;

/// The load of every fault lasts [`FAULT_SECONDS`], with so many events a second.
const RATE: u64 = 200;
/// The load runs so long before anything is broken.
const LEAD: Duration = Duration::from_secs(4);

/// What a fault may lead to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expect {
    /// Every event is done, and no attempt runs twice.
    Once,
    /// Every event is done; what was under way may run twice under its key.
    Again,
    /// So many events at most are gone with what was destroyed, or have a letter.
    Loss(usize),
}

/// Two workers under load, each with a network between it and its servers.
struct Trial {
    fault: &'static str,
    load: Load,
    site: Site,
    workers: Vec<Worker>,
    publishing: JoinHandle<()>,
    broker: Proxy,
    store: Proxy,
}

impl Trial {
    /// Starts the load; returns in the middle of it.
    async fn begin(fault: &'static str, rabbit: &Rabbit, redis: &Redis) -> Self {
        Self::begin_with(fault, rabbit, redis, |site| site).await
    }

    /// With other settings.
    async fn begin_with(
        fault: &'static str,
        rabbit: &Rabbit,
        redis: &Redis,
        settings: impl FnOnce(Site) -> Site,
    ) -> Self {
        let load = Load::new(FAULT_SECONDS.get(), RATE).await;
        let (broker, store) = tokio::join!(Proxy::to(rabbit.port), Proxy::to(redis.port));
        let site = Site::servers(rabbit, redis)
            .set("HOOKFLEET_BROKER_URL", &format!("amqp://guest:guest@127.0.0.1:{}", broker.port))
            .set("HOOKFLEET_REDIS_URL", &format!("redis://127.0.0.1:{}", store.port))
            .set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")
            .set("HOOKFLEET_LOG", "hookfleet=warn")
            .hooks(&hooks(&load));
        let site = settings(site);
        let workers = vec![site.worker().await, site.worker().await];
        let publishing = load.publish(Publisher::amqp(rabbit, &site).await);
        let trial = Self { fault, load, site, workers, publishing, broker, store };
        sleep(LEAD).await;
        trial
    }

    /// Kills a worker and starts another in its place.
    fn kill(&mut self, worker: usize) {
        self.workers[worker].process.kill();
        self.load.kills.push(std::time::Instant::now());
        self.workers[worker] = self.site.spawn(&[]);
    }

    /// A worker that found no server for too long ends: another is started in its place, as any orchestrator does.
    fn revive(&mut self) {
        for worker in &mut self.workers {
            if worker.process.child.try_wait().unwrap().is_some() {
                *worker = self.site.spawn(&[]);
            }
        }
    }

    /// Waits for the end of the load and of all that follows from it, and checks.
    async fn end(mut self, rabbit: &Rabbit, redis: &Redis, expect: Expect) {
        self.load.may_repeat |= expect == Expect::Again && self.load.kills.is_empty();
        self.revive();
        for worker in &self.workers {
            worker.until_ready().await;
        }
        (&mut self.publishing).await.unwrap();
        let logs = || self.workers.iter().map(Worker::log).collect::<Vec<_>>().join("\n--\n");
        if let Expect::Loss(_) = expect {
            self.load.until_quiet(Duration::from_secs(10)).await;
        } else {
            self.load.until_all_done(logs).await;
        }
        settle_down(rabbit, &self.site).await;
        let letters = self.site.letters();
        let outcome = self.load.outcome();
        row(self.fault, &outcome, &letters);
        let lost = lost(&outcome, &letters).len();
        if let Expect::Loss(most) = expect {
            assert!(lost <= most, "{lost} are lost");
        } else {
            assert_eq!((lost, letters.len()), (0, 0), "{:#?}", letters.iter().take(3).collect::<Vec<_>>());
        }
        assert!(expect == Expect::Again || outcome.duplicates == 0, "{}: {outcome:?}", self.fault);
        until_claims_are_finished(redis, &self.site).await;
        for worker in &mut self.workers {
            assert_eq!(worker.stop().await, Some(0), "{}", worker.log());
        }
    }
}

fn hooks(load: &Load) -> String {
    hook(&load.sink, "h", "a", ", concurrency: 128, retry: { attempts: 8, backoff: { initial: 500ms } }")
}

/// Events that neither succeeded nor have a letter.
fn lost<'a>(outcome: &'a Outcome, letters: &[Value]) -> Vec<&'a String> {
    let id = |letter: &Value| {
        let names = ["/letter/event/id", "/letter/client/properties/message_id"];
        names.iter().find_map(|name| letter.pointer(name)?.as_str().map(str::to_owned))
    };
    let kept: HashSet<String> = letters.iter().filter_map(id).collect();
    outcome.missing.iter().filter(|event| !kept.contains(*event)).collect()
}

/// A line of the table.
fn row(fault: &str, outcome: &Outcome, letters: &[Value]) {
    let Outcome { events, duplicates, pause, slowest, .. } = outcome;
    let (lost, pause, slowest) = (lost(outcome, letters).len(), pause.as_secs_f64(), slowest.as_secs_f64());
    let letters = letters.len();
    println!("| {fault} | {events} | {lost} | {letters} | {duplicates} | yes | {pause:.1} s | {slowest:.1} s |");
}

/// No claim of this namespace is held, settled or out: but for readings on lane `suspect`, which are only forgotten.
async fn until_claims_are_finished(redis: &Redis, site: &Site) {
    let began = std::time::Instant::now();
    loop {
        let mut connection = ::redis::Client::open(redis.url()).unwrap();
        let pattern = format!("{}:claim:*", site.namespace);
        let mut keys: Vec<String> = ::redis::cmd("KEYS").arg(pattern).query(&mut connection).unwrap();
        keys.retain(|key| !key.ends_with(":reading"));
        assert!(!keys.is_empty(), "where are the claims?");
        let values: Vec<Option<String>> = ::redis::cmd("MGET").arg(&keys).query(&mut connection).unwrap();
        let unfinished = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.starts_with(['d', 'b']));
        let left: Vec<_> = keys.iter().zip(&values).filter(|(_, value)| unfinished(value)).take(5).collect();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "not finished: {left:?}");
        sleep(Duration::from_millis(500)).await;
    }
}
