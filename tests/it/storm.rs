//! Kills in the middle of load: every event succeeded, no letters, and every duplicate is explained by a kill.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, hook, site};
use crate::publishing::{Publisher, event};
use crate::servers::redis::{Cluster, Redis, Watched};
use crate::servers::{Rabbit, client};
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

    async fn read_all(&mut self, workers: &[Worker]) {
        for worker in workers {
            self.read(worker).await;
        }
    }

    fn sum(&self, name: &str) -> f64 {
        self.last.values().filter_map(|reading| reading.get(name)).sum()
    }
}

/// A steady load, and what was killed while it lasted.
struct Storm {
    seconds: u64,
    rate: u64,
    sink: Sink,
    kills: Vec<Instant>,
    redis_died: Option<Instant>,
}

impl Storm {
    /// At a target that takes 50 ms, and fails every third event at first: retries are what can be superseded.
    async fn new(seconds: u64, rate: u64) -> Self {
        let sink = Sink::start().await;
        sink.behave(|_, before| Answer {
            status: if before == 0 && fastrand::u8(..3) == 0 { 503 } else { 200 },
            ..Answer::after(Duration::from_millis(50))
        });
        Self { seconds, rate, sink, kills: Vec::new(), redis_died: None }
    }

    fn ids(&self) -> impl Iterator<Item = String> + use<> {
        let rate = self.rate;
        (0..self.seconds * 10).flat_map(move |round| (0..rate / 10).map(move |i| format!("e{round}-{i}")))
    }

    /// Publishes at the rate, each event until it is confirmed.
    fn publish(&self, publisher: Publisher) -> JoinHandle<()> {
        let (publisher, ids) = (Arc::new(publisher), self.ids().collect::<Vec<_>>());
        let batch = usize::try_from(self.rate / 10).unwrap();
        tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis(100));
            let mut sends = tokio::task::JoinSet::new();
            for batch in ids.chunks(batch) {
                tick.tick().await;
                for id in batch {
                    let (publisher, event) = (Arc::clone(&publisher), event("a", id));
                    sends.spawn(async move { publisher.send(event).await });
                }
            }
            while sends.join_next().await.is_some() {}
        })
    }

    /// Waits until every event has succeeded at the sink.
    async fn until_all_done(&self, describe: impl Fn() -> String) {
        let began = Instant::now();
        loop {
            let calls = self.sink.calls();
            let done: HashSet<&str> =
                calls.iter().filter(|call| succeeded(call)).map(|call| call.event.as_str()).collect();
            let missing: Vec<String> = self.ids().filter(|id| !done.contains(id.as_str())).collect();
            let some = &missing[..missing.len().min(20)];
            if missing.is_empty() {
                println!("everything was done {:.0} s after the storm", began.elapsed().as_secs_f64());
                return;
            }
            if began.elapsed() > Duration::from_secs(300) {
                let tried: Vec<&Call> = calls.iter().filter(|call| some.contains(&call.event)).collect();
                panic!("{} events are missing: {some:?}\n{tried:#?}\n{}", missing.len(), describe());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// A run was in flight or not yet acked at a kill, or finished within a second before Redis died.
    fn explains(&self, call: &Call) -> bool {
        let end = call.finished.unwrap_or_else(Instant::now) + Duration::from_secs(1);
        // A caller that was gone before its answer may have died before the sink read its request.
        let slack = if call.finished.is_none() { Duration::from_secs(1) } else { Duration::ZERO };
        self.kills.iter().any(|&kill| call.at <= kill + slack && kill <= end)
            || self.redis_died.is_some_and(|died| call.at <= died && died <= end)
    }

    /// One key an event; a run after a success, or of an attempt that was run before, follows one that a kill explains.
    /// Answers the number of such runs.
    fn check_duplicates(&self) -> usize {
        let calls = self.sink.calls();
        let (mut duplicates, mut unexplained) = (0, Vec::new());
        let mut by_event: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in &calls {
            by_event.entry(call.event.as_str()).or_default().push(call);
        }
        for (event, calls) in by_event {
            assert_eq!(calls.iter().map(|call| &call.key).collect::<HashSet<_>>().len(), 1, "{event} has several keys");
            for pair in calls.windows(2) {
                let (earlier, later) = (pair[0], pair[1]);
                if later.attempt <= earlier.attempt || succeeded(earlier) {
                    duplicates += 1;
                    if !self.explains(earlier) {
                        unexplained.push((earlier, later));
                    }
                }
            }
        }
        assert!(unexplained.is_empty(), "runs without a kill: {unexplained:#?}\nkills: {:#?}", self.kills);
        duplicates
    }
}

/// Whether the caller was still there for a good answer.
fn succeeded(call: &Call) -> bool {
    call.status == 200 && call.finished.is_some()
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
    // One at a time: two would not leave each other the cores that a broker needs to start.
    static ALONE: Mutex<()> = Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let mut claims = claims.await;
    let mut rabbit = Rabbit::start().await;
    let mut storm = Storm::new(seconds, 300).await;
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
    storm.until_all_done(|| format!("{}\n{}", queues(), logs())).await;
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
    everything_is_killed(90, async { Claims::One(Redis::start().await) }).await;
}

#[tokio::test]
async fn nothing_is_lost_while_everything_is_killed_and_sentinels_fail_over() {
    everything_is_killed(45, async { Claims::Watched(Box::new(Watched::start().await)) }).await;
}

#[tokio::test]
async fn nothing_is_lost_while_everything_is_killed_and_a_cluster_loses_a_node() {
    everything_is_killed(45, async { Claims::Cluster(Cluster::start().await) }).await;
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
        assert!(began.elapsed() < Duration::from_secs(240), "messages are left: {left:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// The same in a file: its one process is killed every three seconds under load.
#[tokio::test]
async fn nothing_is_lost_while_the_owner_of_the_file_is_killed() {
    let mut storm = Storm::new(45, 100).await;
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
