//! Kills in the middle of load: every event succeeded, no letters, and every duplicate is explained by a kill.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::fleet::{Site, Worker};
use crate::load::Load;
use crate::pipeline::{Place, hook, site};
use crate::publishing::Publisher;
use crate::servers::redis::{Cluster, Redis, Watched};
use crate::servers::{Rabbit, client};
use crate::tiers::sizes::{STORM_SECONDS, STORM_SECONDS_FILE};

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

    async fn read_all(&mut self, workers: &[Worker]) {
        for worker in workers {
            self.read(worker).await;
        }
    }

    fn sum(&self, name: &str) -> f64 {
        self.last.values().filter_map(|reading| reading.get(name)).sum()
    }
}

/// Where claims are kept, and how that is lost in the middle.
enum Claims {
    /// Killed, and restarted.
    One(Redis),
    /// The primary is killed for good; its replica follows it.
    Watched(Box<Watched>),
    /// The same, of one of three.
    Cluster(Cluster),
}

impl Claims {
    fn site(&self, rabbit: &Rabbit) -> Site {
        match self {
            Self::One(redis) => Site::servers(rabbit, redis),
            Self::Watched(watched) => Site::servers(rabbit, &watched.servers[0])
                .set("HOOKFLEET_REDIS_URL", "redis://mymaster")
                .set("HOOKFLEET_REDIS_SENTINELS", &watched.urls().join(",")),
            Self::Cluster(cluster) => {
                let nodes: Vec<String> =
                    cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
                Site::servers(rabbit, &cluster.servers[0])
                    .set("HOOKFLEET_REDIS_CLUSTER", "true")
                    .set("HOOKFLEET_REDIS_NODES", &nodes.join(","))
            }
        }
    }

    /// Answers when.
    async fn lose(&mut self) -> Instant {
        match self {
            Self::One(redis) => redis.kill(),
            Self::Watched(watched) => watched.servers[0].kill(),
            Self::Cluster(cluster) => cluster.servers[0].kill(),
        }
        let died = Instant::now();
        if let Self::One(redis) = self {
            redis.restart().await;
        }
        died
    }
}

/// 300 events/s at a 50 ms target, 3 workers, one killed with -9 every second, RabbitMQ killed with -9 and restarted
/// after a third, the store of claims lost after two: every event succeeded at the sink, no letters, and every duplicate
/// is explained.
async fn everything_is_killed(seconds: u64, claims: impl Future<Output = Claims>) {
    let mut claims = claims.await;
    let mut rabbit = Rabbit::start().await;
    let mut storm = Load::new(seconds, 300).await;
    let more = ", concurrency: 128, retry: { attempts: 8, backoff: { initial: 500ms } }";
    let site = claims
        .site(&rabbit)
        .hooks(&hook(&storm.sink, "h", "a", more))
        .set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")
        .set("HOOKFLEET_LOG", "hookfleet=warn");
    let mut workers = vec![site.worker().await, site.worker().await, site.worker().await];
    let publishing = storm.publish(Publisher::amqp(&rabbit, &site).await);

    let (mut counters, mut tick) = (Counters::default(), interval(Duration::from_secs(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay); // ten kills at once are poison
    for second in 0..storm.seconds {
        tick.tick().await;
        counters.read_all(&workers).await;
        let next = usize::try_from(second).unwrap() % workers.len();
        workers[next].process.kill();
        storm.kills.push(Instant::now());
        workers[next] = site.spawn(&[]);
        if second == seconds / 3 {
            rabbit.kill();
            storm.kills.push(Instant::now());
            rabbit.restart().await;
        }
        if second == seconds * 2 / 3 {
            storm.redis_died = Some(claims.lose().await);
        }
        // A worker that found no broker for too long ends, and is started again, as by any orchestrator.
        for worker in &mut workers {
            if worker.process.child.try_wait().unwrap().is_some() {
                *worker = site.spawn(&[]);
            }
        }
    }
    for worker in &workers {
        worker.until_ready().await;
    }
    publishing.await.unwrap();
    let queues = || rabbit.ctl(&["-q", "list_queues", "name", "messages", "messages_ready", "messages_unacknowledged"]);
    let logs = || workers.iter().map(Worker::log).collect::<Vec<_>>().join("\n--\n");
    let letters = || format!("{:#?}", site.letters());
    storm.until_all_done(|| format!("{}\n{}\n{}", queues(), letters(), logs())).await;
    settle_down(&rabbit, &site).await;
    counters.read_all(&workers).await;

    let (duplicates, kills) = (storm.check_duplicates(), storm.kills.len() + 1);
    println!("{} events, {duplicates} duplicates with the same key, {kills} kills", storm.ids().count());
    for name in ANSWERS {
        println!("claims answered {name}: at least {}", counters.sum(name));
    }
    assert_eq!(site.letters().len(), 0, "{:#?}", site.letters().iter().take(3).collect::<Vec<_>>());
    // Else it was no storm. The others are too rare to be sure of.
    for name in ["takeover", "done", "busy"] {
        assert!(counters.sum(name) > 0.0, "no claim was answered {name}");
    }
}

#[tokio::test]
async fn nothing_is_lost_while_everything_is_killed() {
    everything_is_killed(STORM_SECONDS.get(), async { Claims::One(Redis::start().await) }).await;
}

#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn nothing_is_lost_while_everything_is_killed_and_sentinels_fail_over() {
    everything_is_killed(STORM_SECONDS.get() / 2, async { Claims::Watched(Box::new(Watched::start().await)) }).await;
}

#[tokio::test]
#[ignore = "left to tests/run --all"]
async fn nothing_is_lost_while_everything_is_killed_and_a_cluster_loses_a_node() {
    everything_is_killed(STORM_SECONDS.get() / 2, async { Claims::Cluster(Cluster::start().await) }).await;
}

/// Waits until no queue of this namespace has a message left, lane `suspect` included.
pub(crate) async fn settle_down(rabbit: &Rabbit, site: &Site) {
    let began = Instant::now();
    loop {
        let listed = rabbit.ctl(&["-q", "list_queues", "name", "messages", "--no-table-headers"]);
        let left: Vec<&str> = listed
            .lines()
            .filter(|line| {
                line.starts_with(&site.namespace) && !line.contains(".dead") && !line.contains(".delay.probes")
            })
            .filter(|line| !line.ends_with("\t0"))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(240), "messages are left: {left:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// The same in a file: its one process is killed every three seconds under load.
#[tokio::test]
async fn nothing_is_lost_while_the_owner_of_the_file_is_killed() {
    let mut storm = Load::new(STORM_SECONDS_FILE.get(), 100).await;
    let hooks = hook(&storm.sink, "h", "a", ", concurrency: 128, retry: { attempts: 8, backoff: { initial: 500ms } }");
    let site = site(Place::File).await.hooks(&hooks).on_one_port();
    let mut worker = site.worker().await;
    let publishing = storm.publish(Publisher::http(site.port()));
    for _ in 0..storm.seconds / 3 {
        sleep(Duration::from_secs(3)).await;
        worker.process.kill();
        storm.kills.push(Instant::now());
        worker = site.spawn(&[]);
    }
    publishing.await.unwrap();
    storm.until_all_done(|| worker.log()).await;
    assert_eq!(worker.stop().await, Some(0));
    let duplicates = storm.check_duplicates();
    println!("in a file: {} events, {duplicates} duplicates, {} kills", storm.ids().count(), storm.kills.len());
    assert!(site.letters().is_empty());
}
