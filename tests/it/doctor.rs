//! `hookfleet doctor` against real servers, sound and broken.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::Site;
use crate::pipeline::{Place, hook, site};
use crate::servers::redis::Redis;
use crate::servers::shared;
use crate::sink::Sink;

/// The exit code, and `severity subject` of what is not fine.
fn examine(site: &Site, more: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let output = site.run(&[&["doctor", "--json"], more].concat());
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings: Value = serde_json::from_str(&shown)
        .unwrap_or_else(|error| panic!("{error}: {shown}{}", String::from_utf8_lossy(&output.stderr)));
    let of = |finding: &Value, name: &str| finding.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let findings = findings["items"].as_array().unwrap().iter();
    let found = findings.map(|it| format!("{} {}", of(it, "severity"), of(it, "subject")));
    (output.status.code(), found.filter(|it| !it.starts_with("fine")).collect(), shown)
}

#[tokio::test]
async fn a_doctor_finds_what_is_wrong() {
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ""));
    let (_, redis) = shared().await;
    let (code, found, shown) = examine(&site, &[]);
    let always = ["note broker: management", "note redis: memory", "note redis: replicas"];
    let before = [&["note broker: queues"][..], &always, &["note workers"]].concat();
    assert_eq!(found, before, "before the first worker: {shown}");
    assert_eq!(code, Some(0));
    assert!(shown.contains("RabbitMQ 3.") || shown.contains("RabbitMQ 4."), "{shown}");

    let mut worker = site.worker().await;
    let (mut code, mut found, mut shown) = examine(&site, &["--rate", "500/s"]);
    let began = Instant::now();
    while found.contains(&"note workers".to_owned()) && began.elapsed() < Duration::from_secs(60) {
        (code, found, shown) = examine(&site, &["--rate", "500/s"]); // on a starved machine heartbeats are late
    }
    assert_eq!((code, found), (Some(0), always.map(str::to_owned).to_vec()), "{shown}");
    assert!(shown.contains("500/s for 86400s take"), "{shown}");
    assert_eq!(worker.stop().await, Some(0));
    let mut connection = ::redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let left: Vec<String> =
        ::redis::cmd("KEYS").arg(format!("{}:claim:*", site.namespace)).query_async(&mut connection).await.unwrap();
    assert!(left.is_empty(), "the sample is gone: {left:?}");

    let refused = "  - { id: private, on: b, run: { http: { url: \"http://10.255.255.1/x\" } } }";
    let (code, found, shown) = examine(&site.clone().hooks(refused), &[]);
    assert_eq!((code, found.last().unwrap().as_str()), (Some(1), "problem catalog: target"), "{shown}");
    let (code, found, shown) = examine(&site.clone().hooks("  - { id: nothing }"), &[]);
    assert_eq!((code, found.last().unwrap().as_str()), (Some(1), "problem catalog"), "{shown}");

    let away = site.clone().set("HOOKFLEET_REDIS_URL", "redis://:hidden@127.0.0.1:1").hooks(&hook(&sink, "h", "a", ""));
    let (code, found, shown) = examine(&away, &[]);
    assert_eq!((code, found.last().unwrap().as_str()), (Some(3), "unknown redis"), "{shown}");
    assert!(!shown.contains("hidden"), "{shown}");
    let text = String::from_utf8(site.run(&["doctor"]).stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("fine     redis: eviction")), "{text}");
    let wrong = site.run(&["doctor", "--rate", "many"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("expected a rate such as 500/s"));
}

/// Workers that cannot use the newest catalog, or have another one, are named.
#[tokio::test]
async fn a_doctor_compares_the_workers() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).set("HOOKFLEET_CATALOG_FROM", "redis");
    let knowing = site.clone().set("ONLY_ONE_KNOWS", "hunter2");
    let plain = hook(&sink, "h", "a", "");
    let apply = |hook: &str| {
        let path = site.folder.path().join("new.yaml");
        std::fs::write(&path, format!("version: 1\nhooks:\n{hook}\n")).unwrap();
        site.ok(&["hooks", "apply", path.to_str().unwrap()]);
    };
    apply(&plain);
    let (one, other) = (knowing.worker().await, site.worker().await);
    apply(&plain.replace("} }", ", headers: { authorization: \"${env:ONLY_ONE_KNOWS}\" } } }"));
    one.until("/v1/status", |status| status["catalog"]["revision"] == "r2").await;
    other.until("/v1/status", |status| !status["catalog"]["refused"].is_null()).await;
    let (code, found, shown) = examine(&knowing, &[]);
    assert_eq!(code, Some(1), "{shown}");
    assert_eq!(found[found.len() - 2..], ["warning workers: catalog", "problem workers: catalog"], "{shown}");
    let behind = format!("r2 is current, and not all have it: r1 (process {} on", other.process.id());
    let refuses = format!("process {} on", other.process.id());
    for part in [behind.as_str(), "r2 (process", &refuses, "refuses the catalog r2: new.yaml:3:", "`ONLY_ONE_KNOWS`"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(site.ok(&["fleet", "list"]).contains("refuses r2"), "{}", site.ok(&["fleet", "list"]));

    site.ok(&["hooks", "rollback", "1"]);
    let (code, found, shown) = examine(&knowing, &[]);
    assert_eq!(code, Some(0), "it waits for a change to come through: {shown}");
    assert!(!found.iter().any(|it| it.contains("workers")), "{shown}");

    // Hooks files that somebody forgot to bring to all.
    let site = Site::servers(rabbit, redis).hooks(&plain);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hooks.yaml");
    std::fs::write(&file, format!("version: 1\nhooks:\n{plain}\n# another\n")).unwrap();
    let _one = site.worker().await;
    let _other = site.clone().set("HOOKFLEET_HOOKS", file.to_str().unwrap()).worker().await;
    let (_, found, shown) = examine(&site, &[]);
    assert_eq!(found.last().unwrap(), "warning workers: catalog", "{shown}");
    assert!(shown.contains("it differs: "), "{shown}");
}

#[tokio::test]
async fn a_doctor_judges_a_redis_that_forgets() {
    let redis = Redis::start().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.set("HOOKFLEET_REDIS_URL", &redis.url()).hooks(&hook(&sink, "h", "a", ""));
    let mut connection = ::redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for (name, value) in [("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")] {
        let () = ::redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async(&mut connection).await.unwrap();
    }
    let (code, found, shown) = examine(&site, &["--rate", "500/s"]);
    assert_eq!(code, Some(1), "{shown}");
    for expected in ["warning redis: persistence", "problem redis: eviction", "problem redis: memory"] {
        assert!(found.iter().any(|it| it == expected), "{expected}: {shown}");
    }
}

#[tokio::test]
async fn a_doctor_looks_at_the_disk_of_a_file() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.hooks(&hook(&sink, "h", "a", ""));
    let (code, _, shown) = examine(&site, &[]);
    assert!(shown.contains("file: space") && shown.contains("the embedded file lies on"), "{shown}");
    assert!(matches!(code, Some(0 | 1)), "{shown}"); // by where the tests keep their files
    assert!(!site.folder.path().join("hookfleet.db").exists(), "looking makes nothing");
}

/// cases-2 7: as the Redis user of README's ACL line claims are fine, and what cannot be looked at is a note.
#[tokio::test]
async fn a_doctor_is_content_with_the_user_of_the_readme() {
    let redis = Redis::start().await;
    let readme = include_str!("../../README.md");
    let line = readme.split("ACL SETUSER fleet ").nth(1).unwrap().split("```").next().unwrap();
    let sink = Sink::start().await;
    let url = format!("redis://fleet:password@127.0.0.1:{}", redis.port);
    let site = site(Place::Servers).await.set("HOOKFLEET_REDIS_URL", &url).hooks(&hook(&sink, "h", "a", ""));
    let line = line.replace("hookfleet:", &format!("{}:", site.namespace));
    let mut connection = ::redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut acl = ::redis::cmd("ACL");
    acl.arg("SETUSER").arg("fleet").arg(line.split_whitespace().collect::<Vec<_>>());
    let () = acl.query_async(&mut connection).await.unwrap();
    let mut worker = site.worker().await;
    let (code, found, shown) = examine(&site, &["--rate", "500/s"]);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(found, ["note broker: management", "note redis: server", "note redis: memory"], "{shown}");
    for part in ["claims can be written and deleted", "a call takes", "this machine's clock is", "+info"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(worker.stop().await, Some(0));
}

/// Case C16: a hook that only fails, and work that waits, are told.
#[tokio::test]
async fn a_doctor_tells_what_only_fails() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    sink.behave(|_, _| crate::sink::Answer::status(400));
    let hooks = hook(&sink, "crm", "a", ", retry: { attempts: 1 }");
    let site = site(Place::Servers).await.hooks(&hooks);
    let mut worker = site.worker().await;
    let publisher = crate::publishing::Publisher::amqp(rabbit, &site).await;
    publisher.send_all((0..10).map(|i| crate::publishing::event("a", &format!("e{i}")))).await;
    worker.until_metric("hookfleet_letters_total", "crm", 10.0).await;
    let began = std::time::Instant::now();
    let listed = loop {
        let listed = site.ok(&["fleet", "list"]);
        if listed.contains("only fails: crm") {
            break listed;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{listed}");
    };
    assert!(listed.contains("ATTEMPTS/S") && listed.contains("nothing waits for a worker"), "{listed}");
    let (_, found, shown) = examine(&site, &[]);
    assert!(found.contains(&"warning hooks: failing".to_owned()), "{shown}");
    assert!(shown.contains("the last 10 attempts of hook crm have all failed"), "{shown}");
    assert_eq!(worker.stop().await, Some(0));
    publisher.send_all((0..7).map(|i| crate::publishing::event("a", &format!("later{i}")))).await;
    let listed: Value = serde_json::from_str(&site.ok(&["fleet", "list", "--json"])).unwrap();
    let waiting = serde_json::json!([{ "queue": format!("{}.events", site.namespace), "waiting": 7 }]);
    assert_eq!(listed["backlog"], waiting, "{listed:#}");
}
