//! What operators do with a catalog and a fleet, on a Redis with sentinels and on a cluster.

use serde_json::Value;

use super::{PATIENCE, hook, text};
use crate::fleet::{Site, Worker};
use crate::publishing::{Publisher, event};
use crate::servers::redis::{Cluster, Watched};
use crate::servers::shared;
use crate::sink::Sink;

/// A fleet of one worker, and who operates it.
struct Operated {
    site: Site,
    sink: Sink,
    worker: Worker,
    publisher: Publisher,
}

impl Operated {
    async fn start(site: Site) -> Self {
        let site = site.of_redis();
        assert!(site.ok(&["hooks", "history"]).contains("there is no catalog yet"));
        let sink = Sink::start().await;
        let first = site.file("first.yaml", &hook(&sink, "a", "a", ""));
        let applied = site.ok(&["hooks", "apply", &first, "--expect-revision", "0", "--message", "the first"]);
        assert!(applied.contains("r1 is the current revision, with 1 hooks\n+ a"), "{applied}");
        let (worker, publisher) = (site.worker().await, Publisher::amqp(&shared().await.0, &site).await);
        worker.until_revision("r1").await;
        Self { site, sink, worker, publisher }
    }

    /// Every command that asks Redis, from revision `number` on; the worker follows and runs what is published.
    async fn operate(&self, number: u64) {
        let Self { site, sink, worker, publisher } = self;
        let next = [hook(sink, "a", "a", ""), hook(sink, "b", "a", &format!(", timeout: {number}s"))].join("\n");
        let next = site.file("next.yaml", &next);
        assert!(site.ok(&["hooks", "diff", &next]).contains("+++ b/next.yaml"));
        let stale = site.run(&["hooks", "apply", &next, "--expect-revision", "17"]);
        assert!(text(&stale).contains(&format!("found revision r{number}")), "{}", text(&stale));
        site.ok(&["hooks", "apply", &next, "--expect-revision", &number.to_string(), "--message", "the next"]);
        let (applied, back) = (format!("r{}", number + 1), format!("r{}", number + 2));
        worker.until_revision(&applied).await;
        assert!(site.ok(&["hooks", "show"]).contains("id: b"));
        assert!(!site.ok(&["hooks", "show", "--revision", "1"]).contains("id: b"));
        assert!(site.ok(&["hooks", "list"]).contains("\nb "), "{}", site.ok(&["hooks", "list"]));
        let seen = sink.count();
        publisher.send(event("a", &applied)).await;
        sink.until("both hooks", PATIENCE, |calls| calls.len() == seen + 2).await;

        assert!(site.ok(&["hooks", "rollback", "1"]).contains(&format!("{back} is the current revision")));
        worker.until_revision(&back).await;
        let history: Value = serde_json::from_str(&site.ok(&["hooks", "history", "--json"])).unwrap();
        let told: Vec<_> =
            history["items"].as_array().unwrap().iter().map(|about| about["message"].as_str().unwrap()).collect();
        assert_eq!(told[..2], ["back to r1", "the next"]);

        site.ok(&["fleet", "pause", "--message", "the target moves"]);
        worker.until("/v1/status", |status| status["paused"].is_string()).await;
        let listed: Value = serde_json::from_str(&site.ok(&["fleet", "list", "--json"])).unwrap();
        assert_eq!(listed["paused"]["message"], "the target moves");
        let workers = listed["items"].as_array().unwrap();
        assert_eq!((workers.len(), &workers[0]["pid"]), (1, &worker.process.id().into()), "{listed:#}");
        publisher.send(event("a", &back)).await;
        assert!(site.ok(&["fleet", "resume"]).contains("goes on"));
        sink.until("what waited", PATIENCE, |calls| calls.len() == seen + 3).await;
        assert!(site.letters().is_empty());
        // It waits for the worker's next beat.
        let examined = site.run(&["doctor"]);
        assert!(text(&examined).contains(&format!("all have {back}")), "{}", text(&examined));
    }
}

#[tokio::test]
async fn operators_work_through_sentinels_and_a_failover() {
    let watched = Watched::start().await;
    let [primary, replica] = &watched.servers;
    let site = Site::servers(&shared().await.0, primary)
        .set("HOOKFLEET_REDIS_URL", "redis://mymaster")
        .set("HOOKFLEET_REDIS_SENTINELS", &watched.urls().join(","));
    let operated = Operated::start(site).await;
    operated.operate(1).await;

    replica.until_like(primary).await;
    let _: () = watched.sentinels[0].ask("SENTINEL FAILOVER mymaster").await;
    replica.until("INFO replication", &["role:master"]).await;
    primary.until("INFO replication", &["role:slave", "master_link_status:up"]).await;
    operated.worker.until_ready().await;
    operated.operate(3).await;
}

#[tokio::test]
async fn operators_work_on_a_cluster() {
    let cluster = Cluster::start().await;
    let site = Site::servers(&shared().await.0, &cluster.servers[1]).set("HOOKFLEET_REDIS_CLUSTER", "true");
    let operated = Operated::start(site).await;
    operated.operate(1).await;
    operated.operate(3).await;
}
