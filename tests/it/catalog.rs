//! One catalog for a whole fleet: applied, followed, refused, paused, and changed in the middle of the work.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::publishing::{Publisher, event};
use crate::servers::redis::Redis;
use crate::servers::{client, shared};
use crate::sink::Sink;

mod load;
mod redises;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Site {
    /// A hooks file for `hooks apply`; `hooks` are the list items.
    fn file(&self, name: &str, hooks: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("version: 1\nhooks:\n{hooks}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn of_redis(self) -> Self {
        self.set("HOOKFLEET_CATALOG_FROM", "redis")
    }
}

impl Worker {
    /// A metric that counts.
    async fn count(&self, name: &str, label: &str) -> u64 {
        self.metric(name, label).await as u64
    }

    /// Waits until it says that it can take no work, and why.
    async fn until_idle(&self, why: &str) {
        let said = |answer: &Value| answer["ready"] == false && answer["reasons"].to_string().contains(why);
        self.until("/readyz", said).await;
    }

    pub(crate) async fn until_revision(&self, revision: &str) {
        self.until("/v1/status", |status| status.pointer("/catalog/revision").is_some_and(|found| found == revision))
            .await;
    }
}

fn hook(sink: &Sink, id: &str, on: &str, more: &str) -> String {
    crate::pipeline::hook(sink, id, on, more)
}

/// What operators do at the command line, one after the other.
#[tokio::test]
async fn operators_change_the_catalog() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).of_redis();
    assert!(site.ok(&["hooks", "history"]).contains("there is no catalog yet"));
    let refused = text(&site.run(&["hooks", "show"]));
    assert!(refused.contains("there is no catalog yet"), "{refused}");

    let one = site.file("one.yaml", &hook(&sink, "a", "a", ", concurrency: 3"));
    let two = site.file("two.yaml", &[hook(&sink, "a", "a", ""), hook(&sink, "b", "b", "")].join("\n"));
    let tried = site.ok(&["hooks", "apply", &one, "--dry-run"]);
    assert!(tried.contains("would change:\n+ a"), "{tried}");
    let applied = site.ok(&["hooks", "apply", &one, "--message", "the first", "--expect-revision", "0"]);
    assert!(applied.contains("r1 is the current revision, with 1 hooks\n+ a"), "{applied}");
    assert!(site.ok(&["hooks", "apply", &one]).contains("this is r1 already"));

    let diff = site.ok(&["hooks", "diff", &two]);
    assert!(diff.contains("+ b\n~ a") && diff.contains("--- a/one.yaml") && diff.contains("+++ b/two.yaml"), "{diff}");
    site.ok(&["hooks", "apply", &two, "--expect-revision", "r1", "--message", "the second"]);
    let stale = site.run(&["hooks", "apply", &one, "--expect-revision", "1"]);
    assert_eq!(stale.status.code(), Some(1));
    let said = text(&stale);
    for part in ["expected revision r1 to be the current one", "found revision r2", "the second", "+ b\n~ a"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(site.ok(&["hooks", "show"]).contains("id: b"));
    assert!(!site.ok(&["hooks", "show", "--revision", "1"]).contains("id: b"));
    assert!(site.ok(&["hooks", "rollback", "r1"]).contains("r3 is the current revision"));
    let history: Value = serde_json::from_str(&site.ok(&["hooks", "history", "--json"])).unwrap();
    let told: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|about| about["message"].as_str().unwrap()).collect();
    assert_eq!(told, ["back to r1", "the second", "the first"]);
    let unknown = text(&site.run(&["hooks", "rollback", "17"]));
    assert!(unknown.contains("expected revision r17 to be kept, found none"), "{unknown}");

    // What is wrong is told as a compiler would, and what the workers know is not judged here.
    let wrong = site
        .file("wrong.yaml", "  - { id: a, on: a, run: { http: { url: \"${env:THEIRS}\" } }, tiemout: 3s, rate: 1 }");
    let said = text(&site.run(&["hooks", "apply", &wrong]));
    assert!(said.contains("did you mean `timeout`?") && said.contains("2 problems"), "{said}");
    let alone = text(&Site::embedded().run(&["hooks", "apply", &one]));
    assert!(alone.contains("set broker.url and redis.url"), "{alone}");
}

/// Workers take up what is applied, say why they do not, and stop consuming when they cannot.
#[tokio::test]
async fn workers_follow_the_catalog() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).of_redis().with_gateway().set("HOOKFLEET_WORKER_CELLS", "1");
    let mut worker = site.spawn(&[]);
    worker.until_idle("there is no catalog to work with: Redis has no catalog").await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    publisher.send(event("a", "before")).await;

    site.ok(&["hooks", "apply", &site.file("h.yaml", &hook(&sink, "a", "a", ""))]);
    worker.until_ready().await;
    sink.until("what waited for a catalog", PATIENCE, |calls| calls.len() == 1).await;
    let shown = worker.ask("/v1/catalog").await;
    assert_eq!((&shown["revision"], &shown["hooks"][0]["id"]), (&"r1".into(), &"a".into()), "{shown:#}");
    assert!(!shown.to_string().contains(&sink.url("a")), "the path of a URL may be secret: {shown}");

    // A revision that this worker cannot use: the old one goes on for a while, then nothing does.
    let more = ", timeout: 7s";
    let secret =
        hook(&sink, "a", "a", more).replace("} }", ", headers: { authorization: \"${env:NOBODY_SETS_THIS}\" } } }");
    site.ok(&["hooks", "apply", &site.file("h.yaml", &secret)]);
    let status = worker.until("/v1/status", |status| !status["catalog"]["refused"].is_null()).await;
    assert_eq!(status["catalog"]["revision"], "r1");
    assert!(
        status["catalog"]["refused"]["problems"][0]["found"].to_string().contains("NOBODY_SETS_THIS"),
        "{status:#}"
    );
    assert!(worker.log().contains("a catalog is refused"), "{}", worker.log());
    assert_eq!(worker.count("hookfleet_catalogs_refused_total", "").await, 1);
    worker.until_idle("r2 is current for more than 10s, r1 is in force").await;
    publisher.send(event("a", "meanwhile")).await;
    site.ok(&["hooks", "rollback", "1"]);
    worker.until_ready().await;
    worker.until_revision("r3").await;
    sink.until("what waited for a good catalog", PATIENCE, |calls| calls.len() == 2).await;
    assert_eq!(worker.count("hookfleet_catalog_revision", "r3").await, 1);
    assert_eq!(worker.count("hookfleet_catalog_revision", "r1").await, 0);
    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
}

/// The catalog over HTTP.
#[tokio::test]
async fn the_catalog_is_changed_over_http() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).of_redis().with_gateway().set("HOOKFLEET_WORKER_CELLS", "1");
    let worker = site.spawn(&[]);
    let has_started = |answer: &Value| answer["ready"] == false && !answer.to_string().contains("starting");
    worker.until("/readyz", has_started).await;
    let url = worker.url("/v1/catalog");
    let post = async |query: &str, kind: &str, body: String| {
        let sent = client().post(format!("{url}{query}")).header("content-type", kind).body(body).send().await.unwrap();
        (sent.status().as_u16(), sent.json::<Value>().await.unwrap())
    };
    let yaml = |id: &str| format!("version: 1\nhooks:\n{}\n", hook(&sink, id, "a", ""));
    let (status, said) = post("?expected_revision=0&by=me", "application/yaml", yaml("a")).await;
    assert_eq!((status, &said["revision"], &said["applied"]["by"]), (200, &"r1".into(), &"me".into()), "{said:#}");
    worker.until_revision("r1").await;
    let documents = serde_json::json!({
        "documents": [{ "name": "b.yaml", "text": yaml("b") }], "expected_revision": 1, "message": "why"
    });
    let (status, said) = post("", "application/json", documents.to_string()).await;
    assert_eq!((status, &said["changes"]["removed"][0]), (200, &"a".into()), "{said:#}");
    let (status, said) = post("?expected_revision=1", "application/yaml", yaml("c")).await;
    assert_eq!((status, &said["current"]["number"], &said["current"]["message"]), (409, &2.into(), &"why".into()));
    let (status, said) =
        post("", "application/yaml", "version: 1\nhooks: [{ id: x, on: a }, { id: y }]\n".into()).await;
    assert_eq!(
        (status, said["problems"].as_array().map(Vec::len), &said["problems"][0]["line"]),
        (400, Some(3), &2.into())
    );
    let documents = |more: Value| {
        let mut body = serde_json::json!({ "documents": [{ "name": "b.yaml", "text": yaml("c") }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let none = serde_json::json!({});
    let (status, _) = post("?expected_revision=1", "application/json", documents(none.clone())).await;
    assert_eq!(status, 409, "what the query says counts for documents too");
    let (status, said) = post("?dry_run=true", "application/json", documents(none)).await;
    assert_eq!((status, &said["changed"], &said["revision"]), (200, &false.into(), &Value::Null), "{said:#}");
    for wrong in [serde_json::json!({ "expected_revison": 2 }), serde_json::json!({ "expected_revision": 2 })] {
        let (status, said) = post("?expected_revision=1", "application/json", documents(wrong)).await;
        assert_eq!(status, 400, "{said:#}");
    }
    let (status, _) = post("", "text/plain", yaml("c")).await;
    assert_eq!(status, 415);
    worker.until_revision("r2").await;

    let alone = Site::embedded().hooks(&hook(&sink, "a", "a", ""));
    let worker = alone.worker().await;
    let sent = client().post(worker.url("/v1/catalog")).header("content-type", "application/yaml").body(yaml("b"));
    let answer = sent.send().await.unwrap();
    assert_eq!(answer.status(), 409);
    assert!(answer.text().await.unwrap().contains("takes its hooks from a file"));
}

/// An edit of the file counts without a restart; a mistake in it is told and changes nothing.
#[tokio::test]
async fn a_worker_follows_its_file() {
    let sink = Sink::start().await;
    let site = Site::embedded().hooks(&hook(&sink, "a", "a", ""));
    let worker = site.worker().await;
    let publisher = Publisher::http(worker.port);
    let first = worker.ask("/v1/status").await["catalog"]["revision"].clone();
    fs::write(site.hooks_file(), "version: 1\nhooks: [{}]\n").unwrap();
    worker.until("/v1/status", |status| status["catalog"]["refused"]["problems"].as_array().is_some()).await;
    assert_eq!(worker.ask("/v1/status").await["catalog"]["revision"], first);
    let began = Instant::now();
    let site = site.hooks(&hook(&sink, "b", "a", ""));
    let status = worker.until("/v1/status", |status| status["catalog"]["revision"] != first).await;
    println!("an edit was in force after {:.2} s", began.elapsed().as_secs_f64());
    assert!(status["catalog"]["refused"].is_null(), "{status:#}");
    publisher.send(event("a", "1")).await;
    sink.until("the new hook", PATIENCE, |calls| calls.len() == 1 && calls[0].hook == "b").await;
    drop(site);
}

/// A pause holds the whole fleet, also who starts meanwhile; what is published waits.
#[tokio::test]
async fn a_fleet_pauses_and_goes_on() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).hooks(&hook(&sink, "a", "a", ""));
    let first = site.worker().await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    site.ok(&["fleet", "pause", "--message", "the target moves"]);
    let paused = |status: &Value| status["paused"].as_str().is_some_and(|reason| reason.ends_with("the target moves"));
    first.until("/v1/status", paused).await;
    let second = site.worker().await; // ready: it is not to be replaced
    second.until("/v1/status", paused).await;
    let holding = async |worker: &Worker| {
        let began = Instant::now();
        while worker.count("hookfleet_holding", "").await != 1 {
            assert!(began.elapsed() < PATIENCE);
            sleep(Duration::from_millis(20)).await;
        }
    };
    holding(&first).await;
    holding(&second).await;
    publisher.send_all((0..20).map(|i| event("a", &i.to_string()))).await;
    let began = Instant::now();
    let is_told =
        |listed: &str| listed.starts_with("paused by") && listed.matches("takes no work: paused by").count() == 2;
    while !is_told(&site.ok(&["fleet", "list"])) {
        assert!(began.elapsed() < PATIENCE, "{}", site.ok(&["fleet", "list"])); // a worker says it at its next beat
    }
    let listed: Value = serde_json::from_str(&site.ok(&["fleet", "list", "--json"])).unwrap();
    assert_eq!(listed["paused"]["message"], "the target moves");
    let pids: HashSet<i64> =
        listed["items"].as_array().unwrap().iter().map(|card| card["pid"].as_i64().unwrap()).collect();
    assert_eq!(pids, [&first, &second].map(|worker| i64::from(worker.process.id())).into());
    assert_eq!(sink.count(), 0);
    assert!(site.ok(&["fleet", "resume"]).contains("goes on"));
    sink.until("what waited", PATIENCE, |calls| calls.len() == 20).await;
    assert!(site.ok(&["fleet", "resume"]).contains("not paused"));
}

/// Who starts while Redis is away waits and says why; who has kept the catalog serves that, if it may work at all.
#[tokio::test]
async fn workers_start_while_redis_is_away() {
    let (rabbit, _) = shared().await;
    let mut redis = Redis::start().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, &redis).of_redis().set("HOOKFLEET_REDIS_WHEN_AWAY", "proceed");
    let cache = site.folder.path().join("catalog.json").to_str().unwrap().to_owned();
    site.ok(&["hooks", "apply", &site.file("h.yaml", &hook(&sink, "a", "a", ""))]);
    let mut keeps = site.spawn(&[("HOOKFLEET_CATALOG_CACHE", &cache)]);
    keeps.until_ready().await;
    let began = Instant::now();
    while !PathBuf::from(&cache).exists() {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(keeps.stop().await, Some(0));
    redis.kill();

    let waits = site.spawn(&[]);
    waits.until_idle("there is no catalog to work with: Redis is away").await;
    assert!(waits.log().contains("no work is taken"), "{}", waits.log());
    sleep(Duration::from_millis(1100)).await; // older than the next one allows
    let too_old = site.spawn(&[("HOOKFLEET_CATALOG_CACHE", &cache), ("HOOKFLEET_CATALOG_MAX_AGE", "1s")]);
    too_old.until_idle("catalog.max_age is 1s").await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    publisher.send(event("a", "1")).await;
    assert_eq!(sink.count(), 0, "nobody has a catalog");

    let serves = site.spawn(&[("HOOKFLEET_CATALOG_CACHE", &cache)]);
    serves.until_ready().await;
    sink.until("the event that waited", PATIENCE, |calls| calls.len() == 1).await;
    let status = serves.ask("/v1/status").await;
    assert_eq!(
        (&status["catalog"]["revision"], &status["catalog"]["cached"]),
        (&"r1".into(), &true.into()),
        "{status:#}"
    );
    let holds = site.spawn(&[("HOOKFLEET_CATALOG_CACHE", &cache), ("HOOKFLEET_REDIS_WHEN_AWAY", "hold")]);
    holds.until("/readyz", |answer| answer["reasons"].to_string().contains("starting: waiting for Redis")).await;

    redis.restart().await;
    for worker in [&waits, &too_old, &serves, &holds] {
        worker.until_ready().await;
        worker.until("/v1/status", |status| status["catalog"]["cached"] == false).await;
        worker.until_revision("r1").await;
    }
}
