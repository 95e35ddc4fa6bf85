//! The command line: the sample, publishing, mistakes answered by one clear sentence, and how a worker stops.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::fleet::Site;
use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::publishing::{Publisher, event};
use crate::servers::redis::Redis;
use crate::servers::{free_port, shared};
use crate::sink::{Answer, Sink};

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn the_sample_runs_and_ends() {
    let site = Site::embedded();
    let port = free_port().to_string();
    let out = site.ok(&["up", "--sample", "--exit-when-idle", "--http-bind", &format!("127.0.0.1:{port}")]);
    println!("{out}");
    assert_eq!(out.matches("-> audit").count(), 5, "{out}");
    assert_eq!(out.matches("-> notify-oncall").count(), 6, "two events, three attempts each: {out}");
    assert!(out.contains("given up (rejected)"), "{out}");
    assert!(out.contains("7 invocations done, 4 attempts retried, 1 given up"), "{out}");
    let letters = site.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].pointer("/letter/hook").unwrap(), "crm-sync");
}

#[tokio::test]
async fn events_are_published_from_flags_files_and_pipes() {
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "**", ""));
    let Stage { site, worker: _worker, .. } = stage(Place::Servers, site).await;
    let said = site.ok(&["publish", "--type", "task.failed", "--id", "flag-1", "--data", r#"{"x":1}"#]);
    assert!(said.contains("published flag-1"), "{said}");
    let file = site.folder.path().join("events.ndjson");
    let line = |i| format!("{{\"type\":\"a\",\"source\":\"/s\",\"id\":\"f{i}\"}}\n");
    let lines = (0..500).map(line).collect::<Vec<_>>().concat();
    std::fs::write(&file, &lines).unwrap();
    let said = site.ok(&["publish", "--file", file.to_str().unwrap()]);
    assert!(said.contains("published 500 events, all confirmed"), "{said}");
    site.ok(&["publish", "--file", file.to_str().unwrap()]); // the same ids again: handled once
    let mut piped = site.command().args(["publish", "--file", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(lines.replace("\"f", "\"p").as_bytes()).unwrap();
    assert!(piped.wait().unwrap().success());
    sink.until("all", Duration::from_secs(30), |calls| calls.len() >= 1001).await;

    std::fs::write(&file, format!("{lines}{{\"source\":\"/s\"}}\n")).unwrap();
    let refused = site.run(&["publish", "--file", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused);
    assert!(
        said.contains("nothing was published") && said.contains("line 501: expected the attribute `type`"),
        "{said}"
    );
}

/// Into a file nobody owns, and through the process that owns it.
#[tokio::test]
async fn the_embedded_file_is_reached_either_way() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.hooks(&hook(&sink, "h", "a", ""));
    site.ok(&["publish", "--type", "a", "--id", "before"]);
    let mut worker = site.worker().await;
    site.ok(&["publish", "--type", "a", "--id", "through"]);
    sink.until("both", Duration::from_secs(10), |calls| calls.len() == 2).await;
    let second = site.run(&["up", "--http-bind", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second).contains("own"), "{}", text(&second));
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(site.ok(&["dead-letters", "list"]).trim(), "no letters");
}

/// Each mistake is answered by one sentence that names the setting, and a non-zero exit.
#[tokio::test]
async fn mistakes_are_answered_clearly() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).hooks("");
    let port = rabbit.port;
    for (name, value, expected) in [
        (
            "HOOKFLEET_BROKER_URL",
            format!("amqp://guest:wrong@127.0.0.1:{port}"),
            "refused user \"guest\": check user and password",
        ),
        ("HOOKFLEET_BROKER_URL", format!("amqp://guest:guest@127.0.0.1:{port}/nowhere"), "has no vhost \"nowhere\""),
        ("HOOKFLEET_BROKER_URL", "amqp://guest:guest@127.0.0.1:1".to_owned(), "is it running, and are host and port"),
        ("HOOKFLEET_BROKER_URL", "nonsense".to_owned(), "HOOKFLEET_BROKER_URL"),
        ("HOOKFLEET_REDIS_URL", "redis://127.0.0.1:1".to_owned(), "cannot use the Redis of redis.url"),
        (
            "HOOKFLEET_REDIS_URL",
            format!("redis://nobody:wrong@127.0.0.1:{}", redis.port),
            "refused user \"nobody\": check user and password in redis.url",
        ),
        ("HOOKFLEET_WORKER_PREFETCH", "many".to_owned(), "HOOKFLEET_WORKER_PREFETCH"),
        ("HOOKFLEET_WORKER_PREFTCH", "1".to_owned(), "HOOKFLEET_WORKER_PREFETCH"),
    ] {
        let site = site.clone().set("HOOKFLEET_STARTUP_TIMEOUT", "1s").set(name, &value);
        let output = site.run(&["worker", "--http-bind", "127.0.0.1:0"]);
        let said = text(&output);
        let code = match name {
            _ if name.starts_with("HOOKFLEET_WORKER") || value == "nonsense" => 64,
            _ if value.ends_with(":1") => 69,
            _ => 1,
        };
        assert_eq!(output.status.code(), Some(code), "{name}={value}: {said}");
        assert!(said.contains(expected), "{name}={value}: {said}");
        assert!(!said.contains("wrong@") && !said.contains(":wrong"), "a password is shown: {said}");
    }
    let alone = Site::embedded().hooks("").run(&["worker"]);
    assert!(text(&alone).contains("set broker.url and redis.url"), "{}", text(&alone));
}

#[tokio::test]
async fn an_incompatible_queue_is_named() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).hooks("");
    let connection = lapin::Connection::connect(&rabbit.url(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = format!("{}.lane.slow", site.namespace);
    let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.as_str().into(), options, lapin::types::FieldTable::default()).await.unwrap();
    let check = text(&site.run(&["topology", "check"]));
    assert!(check.contains("does not exist"), "{check}");
    assert!(check.contains(&format!("queue {name} exists with another x-")), "{check}");
    let output = site.run(&["worker", "--http-bind", "127.0.0.1:0"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&name) && said.contains("drain and delete it, or use another namespace"), "{said}");
}

#[tokio::test]
async fn topology_is_printed_and_checked() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).hooks("");
    let printed = site.ok(&["topology", "print"]);
    assert!(printed.contains(&format!("queue {}.delay.18", site.namespace)), "{printed}");
    let mut worker = site.worker().await;
    let checked = site.ok(&["topology", "check"]);
    assert!(checked.contains("0 findings"), "{checked}");
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn an_invalid_hooks_file_starts_nothing_and_tells_everything() {
    let site = Site::embedded().hooks(
        "  - { id: a, on: \"x..y\", run: { http: { url: \"ftp://x\" } } }\n  - { id: a, on: b, tiemout: 3s, run: { command: { argv: [] } } }",
    );
    for arguments in [&["hooks", "check"][..], &["up", "--http-bind", "127.0.0.1:0"]] {
        let output = site.run(arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for expected in ["hooks.yaml:3", "hooks.yaml:4", "x..y", "another scheme", "`timeout`", "argv"] {
            assert!(said.contains(expected), "{expected} is not in:\n{said}");
        }
    }
}

#[tokio::test]
async fn settings_are_shown_without_secrets() {
    let site = Site::embedded()
        .set("HOOKFLEET_BROKER_URL", "amqp://me:s3cret@h:5672")
        .set("HOOKFLEET_REDIS_URL", "redis://:p4ss@h");
    let mut command = site.command();
    command.env_remove("HOOKFLEET_EMBEDDED_PATH").args(["settings", "--set", "worker.prefetch=64"]);
    let shown = text(&command.output().unwrap());
    assert!(!shown.contains("s3cret") && !shown.contains("p4ss"), "{shown}");
    assert!(shown.contains("HOOKFLEET_BROKER_URL") && shown.contains("64"), "{shown}");
}

/// SIGTERM: runs finish, nothing is left, exit 0. Runs that do not finish in time are interrupted and run elsewhere.
#[tokio::test]
async fn a_worker_drains_on_sigterm() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    sink.behave(|hook, before| {
        Answer::after(Duration::from_millis(if hook == "long" && before == 0 { 60_000 } else { 1500 }))
    });
    let hooks = [hook(&sink, "short", "a", ""), hook(&sink, "long", "b", ", timeout: 90s")].join("\n");
    let site = site(Place::Servers).await.hooks(&hooks).set("HOOKFLEET_WORKER_GRACE", "4s");
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    publisher.send_all((0..20).map(|i| event("a", &format!("e{i}")))).await;
    publisher.send(event("b", "long")).await;
    sink.until("all runs", Duration::from_secs(10), |calls| calls.len() == 21).await;
    let code = worker.stop().await;
    let log = worker.log();
    assert_eq!(code, Some(0), "the one run that was interrupted was released: {log}");
    let interrupted = log.lines().find(|line| line.contains(" interrupted"));
    assert!(interrupted.is_some_and(|line| line.contains("\"long\"")), "it is named: {log}");
    let finished = sink.calls().iter().filter(|call| call.hook == "short" && call.finished.is_some()).count();
    assert_eq!(finished, 20, "short runs finished");

    let mut second = site.worker().await;
    sink.until("the long one again", Duration::from_secs(10), |calls| calls.len() == 22).await;
    let calls = sink.calls();
    assert_eq!((calls[21].event.as_str(), calls[21].attempt), ("long", 1), "no attempt was spent");
    assert_eq!(second.stop().await, Some(0));
}

/// What can neither finish nor be released is named, and the exit code says so.
#[tokio::test]
async fn what_a_shutdown_cuts_off_is_named() {
    let mut redis = Redis::start().await;
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_secs(60)));
    let site = Site::servers(rabbit, &redis).hooks(&hook(&sink, "long", "b", ", timeout: 90s"));
    let site = site.set("HOOKFLEET_WORKER_GRACE", "1s");
    let mut worker = site.worker().await;
    Publisher::amqp(rabbit, &site).await.send(event("b", "1")).await;
    sink.until("the run", Duration::from_secs(10), |calls| calls.len() == 1).await;
    redis.kill();
    assert_eq!(worker.stop().await, Some(1));
    let log = worker.log();
    assert!(log.contains("1 runs were cut off") && log.contains("/long generation 0 attempt 1"), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_secs(60)));
    let site = site(Place::Servers).await.hooks(&hook(&sink, "long", "b", ", timeout: 90s"));
    let mut worker = site.worker().await;
    Publisher::amqp(rabbit, &site).await.send(event("b", "1")).await;
    sink.until("the run", Duration::from_secs(10), |calls| calls.len() == 1).await;
    worker.process.signal("TERM");
    let began = Instant::now();
    while !worker.log().contains("a second signal ends this at once") {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    worker.process.signal("TERM");
    assert_eq!(worker.ended(Duration::from_secs(5)).await, Some(130));
}

/// Python's pika publishes 10,000 CloudEvents; three workers; the sink sees each exactly once, one key each.
#[tokio::test]
async fn ten_thousand_events_from_python() {
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "order.*", ", concurrency: 128"));
    let mut workers = vec![site.worker().await, site.worker().await, site.worker().await];
    let python = std::env::var("HOOKFLEET_TEST_PYTHON").expect("set by tests/run: a python with pika");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/publish.py");
    let published = tokio::process::Command::new(python)
        .args([script, &rabbit.port.to_string(), &format!("{}.events", site.namespace), "10000"])
        .output()
        .await
        .unwrap();
    assert!(published.status.success(), "{}", text(&published));
    sink.until("all events", Duration::from_secs(60), |calls| calls.len() >= 10_000).await;
    for worker in &mut workers {
        assert_eq!(worker.stop().await, Some(0));
    }
    let calls = sink.calls();
    assert_eq!(calls.len(), 10_000);
    let keys: std::collections::HashSet<&str> = calls.iter().map(|call| call.key.as_str()).collect();
    assert_eq!(keys.len(), 10_000);
    assert!(site.letters().is_empty());
}
