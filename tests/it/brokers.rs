//! Brokers as people run them: losses of every kind, a cluster, queues that differ, policies, a stream that forgot.

use std::collections::HashSet;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use hookfleet::broker::amqp::AmqpBroker;
use hookfleet::broker::{Broker as _, Wanted};
use hookfleet::domain::message::{Lane, Message, Outgoing, Queue};
use lapin::BasicProperties;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::{sleep, timeout};

use crate::fleet::{Site, Worker};
use crate::input::Stranger;
use crate::pipeline::{Place, hook, site};
use crate::publishing::{Publisher, event};
use crate::servers::{Make, Rabbit, client, free_port, namespace, shared};
use crate::sink::{Answer, Call, Sink};
use crate::tiers::sizes::{BROKER_AWAY_SECONDS, LADDER_KILLS};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until readiness says no; answers why.
async fn until_not_ready(worker: &Worker, what: &str) -> String {
    let began = Instant::now();
    loop {
        let answer = client().get(worker.url("/readyz")).send().await.unwrap();
        if answer.status() == 503 {
            return answer.text().await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: still ready\n{}", worker.log());
        sleep(Duration::from_millis(20)).await;
    }
}

fn delivered(calls: &[Call], id: &str) -> bool {
    calls.iter().any(|call| call.event == id && call.status == 200)
}

/// Cut connections, closed channels, a deleted queue, a memory alarm, a broker that is away: a worker comes back by
/// itself each time, and readiness tells the truth where the trouble lasts.
#[tokio::test]
async fn a_worker_comes_back_from_every_loss() {
    let mut rabbit = Rabbit::make(Make { cluster: false, ..Make::of_environment() }).await;
    let sink = Sink::start().await;
    let is_well = Arc::new(AtomicBool::new(false));
    let answers_well = Arc::clone(&is_well);
    sink.behave(move |hook, _| {
        let fails = hook == "retried" && !answers_well.load(Ordering::Relaxed);
        Answer::status(if fails { 503 } else { 200 })
    });
    let hooks = [
        hook(&sink, "h", "a", ""),
        hook(&sink, "retried", "b", ", retry: { attempts: 100, backoff: { initial: 1s, max: 1s } }"),
    ];
    let site = Site::servers(&rabbit, &shared().await.1).hooks(&hooks.join("\n"));
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(&rabbit, &site).await;
    let works = async |id: &'static str| {
        publisher.send(event("a", id)).await;
        sink.until(id, Duration::from_secs(40), |calls| delivered(calls, id)).await;
        worker.until_ready().await;
    };
    works("first").await;

    rabbit.ctl(&["close_all_connections", "a test cuts them"]);
    works("after cut connections").await;

    rabbit.ctl(&["eval", "[exit(Channel, kill) || Channel <- rabbit_channel:list_local()]."]);
    works("after closed channels").await;

    let queue = format!("{}.events", site.namespace);
    rabbit.ctl(&["delete_queue", &queue]);
    until_declared(&rabbit, &queue).await;
    works("after a deleted queue").await;

    publisher.send(event("b", "blocked")).await;
    sink.until("the run before the alarm", Duration::from_secs(10), |calls| {
        calls.iter().any(|call| call.event == "blocked")
    })
    .await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]); // takes its time; until then retries go on
    let reason = until_not_ready(&worker, "a retry is published into an alarm").await;
    assert!(reason.contains("takes no messages"), "{reason}");
    assert!(!delivered(&sink.calls(), "blocked"));
    is_well.store(true, Ordering::Relaxed);
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    sink.until("the retry", Duration::from_secs(40), |calls| delivered(calls, "blocked")).await;
    works("after a memory alarm").await;

    rabbit.kill();
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(BROKER_AWAY_SECONDS.get()) {
        let reason = until_not_ready(&worker, "the broker is away").await;
        assert!(reason.contains("broker: "), "{reason}");
        sleep(Duration::from_secs(1)).await;
    }
    rabbit.restart().await;
    works("after a broker that was away").await;

    assert_eq!(worker.stop().await, Some(0));
    assert!(site.letters().is_empty());
    let calls = sink.calls();
    assert_eq!(calls.len(), calls.iter().map(|call| (&call.event, call.attempt)).collect::<HashSet<_>>().len());
}

async fn until_declared(rabbit: &Rabbit, queue: &str) {
    let began = Instant::now();
    while !rabbit.ctl(&["-q", "list_queues", "name", "--no-table-headers"]).lines().any(|line| line == queue) {
        assert!(began.elapsed() < Duration::from_secs(20), "{queue} was not declared again");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The node that leads the queue is killed with -9 in the middle: nothing is lost, nothing runs twice.
#[tokio::test]
async fn a_leader_that_is_killed_loses_nothing() {
    const EVENTS: usize = 6000;
    let mut rabbit = Rabbit::make(Make { cluster: true, ..Make::default() }).await;
    let sink = Sink::start().await;
    let site = Site::servers(&rabbit, &shared().await.1).hooks(&hook(&sink, "h", "a", ", concurrency: 128"));
    let mut workers = [site.worker().await, site.worker().await];
    let publisher = Publisher::amqp(&rabbit, &site).await;
    let publishing = publisher.send_all((0..EVENTS).map(|i| event("a", &format!("e{i}"))));
    let killing = async {
        sink.until("a third", Duration::from_secs(60), |calls| calls.len() >= EVENTS / 3).await;
        let leader = rabbit.leader(&format!("{}.events", site.namespace));
        rabbit.kill_node(leader);
        println!("node {leader} led the queue; killed after {} calls", sink.count());
    };
    let both = async { tokio::join!(publishing, killing) };
    timeout(Duration::from_secs(180), both).await.expect("publishing goes on at another node");
    let all = |calls: &[Call]| calls.iter().map(|call| call.event.as_str()).collect::<HashSet<_>>().len() == EVENTS;
    sink.until("all events", Duration::from_secs(120), all).await;
    rabbit.restart().await;
    for worker in &mut workers {
        assert_eq!(worker.stop().await, Some(0), "{}", worker.log());
    }
    assert_eq!(sink.count(), EVENTS, "each once");
    // The stream may take a while to be there again on all three.
    let began = Instant::now();
    let letters = loop {
        let output = site.run(&["dead-letters", "export", "--ndjson"]);
        if output.status.success() {
            break String::from_utf8_lossy(&output.stdout).into_owned();
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(began.elapsed() < Duration::from_secs(90), "the log cannot be read: {error}");
        sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(letters.trim(), "");
}

/// The broker is killed with -9 while it passes on what has waited: nothing is lost, whatever it could not pass on when
/// it started (`config/rabbitmq-advanced.config`).
#[tokio::test]
async fn the_ladder_outlives_its_broker() {
    const MESSAGES: usize = 6000;
    const WAIT: Duration = Duration::from_millis(500);
    let mut rabbit = Rabbit::make(Make { cluster: false, ..Make::of_environment() }).await;
    let broker = AmqpBroker::connect(&rabbit.server(), &namespace()).await.unwrap();
    let send = async |number: usize| {
        let message = Message { body: number.to_string().into(), ..Message::default() };
        let outgoing = Outgoing::to_lane(Lane::Default, WAIT, message);
        while broker.publish(outgoing.clone()).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let mut last_sent = Instant::now();
    let publishing = async {
        stream::iter(0..MESSAGES).map(send).buffer_unordered(4).collect::<()>().await;
        last_sent = Instant::now();
    };
    let killing = async {
        for _ in 0..LADDER_KILLS.get() {
            sleep(Duration::from_millis(900)).await;
            rabbit.kill();
            rabbit.restart().await;
        }
    };
    tokio::join!(publishing, killing);
    broker.want(vec![Wanted { queue: Queue::Lane(Lane::Default), prefetch: 500, bytes: 1 << 20 }]);
    let mut missing: HashSet<usize> = (0..MESSAGES).collect();
    let mut late = 0;
    while !missing.is_empty() {
        let left = Duration::from_secs(250).saturating_sub(last_sent.elapsed());
        let delivery = timeout(left, broker.receive()).await;
        let delivery = delivery.unwrap_or_else(|_| panic!("{} messages are lost", missing.len())).unwrap();
        let number: usize = std::str::from_utf8(&delivery.message.body).unwrap().parse().unwrap();
        late += usize::from(missing.remove(&number) && last_sent.elapsed() > Duration::from_secs(30));
        broker.ack(delivery.receipt);
    }
    println!("all came, {late} of them later than 30 s, the last after {:.0} s", last_sent.elapsed().as_secs_f64());
    broker.close().await;
}

/// What has waited and finds no way on waits on, as happens where a broker starts: nobody gave it up, so it is no letter.
#[tokio::test]
async fn what_waited_and_has_no_way_on_is_kept() {
    let (rabbit, namespace) = (&shared().await.0, namespace());
    let broker = AmqpBroker::connect(&rabbit.server(), &namespace).await.unwrap();
    let lanes = [Lane::Default, Lane::Slow];
    broker.want(lanes.map(|lane| Wanted { queue: Queue::Lane(lane), prefetch: 10, bytes: 1 << 20 }).to_vec());
    let next = async || {
        let delivery = timeout(Duration::from_secs(60), broker.receive()).await.unwrap().unwrap();
        broker.ack(delivery.receipt);
        delivery.queue
    };
    for lane in lanes {
        broker.publish(Outgoing::to_lane(lane, Duration::ZERO, Message::default())).await.unwrap();
        assert_eq!(next().await, Queue::Lane(lane)); // whoever connects makes every binding anew: not from now on
    }
    let connection = lapin::Connection::connect(&rabbit.url(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (queue, end) = (format!("{namespace}.lane.default"), format!("{namespace}.delay.end"));
    let (queue, end, key) = (queue.as_str(), end.as_str(), "#.default");
    channel.queue_unbind(queue.into(), end.into(), key.into(), FieldTable::default()).await.unwrap();
    let wait = Duration::from_millis(250);
    for lane in lanes {
        broker.publish(Outgoing::to_lane(lane, wait, Message::default())).await.unwrap();
        broker.publish(Outgoing::parked(lane, wait, Message::default())).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(next().await, Queue::Lane(Lane::Slow)); // what went before it has been let go, too
    }
    let bound =
        channel.queue_bind(queue.into(), end.into(), key.into(), QueueBindOptions::default(), FieldTable::default());
    bound.await.unwrap();
    for _ in 0..2 {
        assert_eq!(next().await, Queue::Lane(Lane::Default));
    }
    broker.close().await;
}

/// A queue that was made with limits of its own is run with, and said once; one of another type is not.
#[tokio::test]
async fn only_fixed_arguments_have_to_agree() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).hooks(&hook(&sink, "h", "a", ""));
    let connection = lapin::Connection::connect(&rabbit.url(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let dead = format!("{}.dead", site.namespace);
    let declare = async |name: &str, kind: &str| {
        let mut arguments = FieldTable::default();
        for (name, value) in [
            ("x-queue-type", kind),
            ("x-dead-letter-exchange", dead.as_str()),
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ] {
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(50));
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1_000_000));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.into(), options, arguments).await.unwrap();
    };
    declare(&format!("{}.lane.slow", site.namespace), "quorum").await;
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    publisher.send(event("a", "1")).await;
    sink.until("the event", Duration::from_secs(10), |calls| calls.len() == 1).await;
    assert_eq!(worker.stop().await, Some(0));
    let log = worker.log();
    for argument in ["x-delivery-limit", "x-max-length"] {
        assert_eq!(log.matches(&format!("another {argument} ")).count(), 1, "{log}");
    }
    let checked = site.run(&["topology", "check"]);
    assert!(text(&checked).contains("2 findings") && !checked.status.success(), "{}", text(&checked));
}

/// Over the management API where there is one; else the commands are printed, and it says what was not done.
#[tokio::test]
async fn policies_are_applied_and_checked() {
    let port = free_port();
    let config = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
    let rabbit =
        Rabbit::make(Make { cluster: false, plugins: &["rabbitmq_management"], config, ..Make::of_environment() })
            .await;
    let site = Site::servers(&rabbit, &shared().await.1)
        .hooks("")
        .set("HOOKFLEET_BROKER_MANAGEMENT_URL", &format!("http://127.0.0.1:{port}"))
        .set("HOOKFLEET_DEAD_LETTERS_RETENTION", "36h");
    let space = &site.namespace;
    let missing = text(&site.run(&["topology", "check"]));
    assert!(missing.contains(&format!("policy {space}-work does not exist")), "{missing}");
    assert!(
        missing.contains("-> ") && missing.contains("does not exist: `hookfleet topology apply` makes it"),
        "{missing}"
    );

    let applied = site.ok(&["topology", "apply"]);
    assert!(applied.contains(&format!("policy {space}-dead is set")), "{applied}");
    let checked = site.ok(&["topology", "check"]);
    assert!(checked.contains("4 policies checked, 0 findings"), "{checked}");
    assert!(checked.contains("RabbitMQ ") && checked.contains(", 1 nodes"), "{checked}");
    let listed = rabbit.ctl(&["-q", "list_policies", "--no-table-headers"]);
    assert!(listed.contains(r#""max-age":"36h""#) && listed.contains(r#""delivery-limit":200"#), "{listed}");
    let in_force = rabbit.ctl(&["-q", "list_queues", "name", "policy", "--no-table-headers"]);
    for (queue, policy) in
        [("events", "work"), ("lane.suspect", "suspect"), ("dead.recent", "recent"), ("dead", "dead")]
    {
        assert!(in_force.contains(&format!("{space}.{queue}\t{space}-{policy}")), "{in_force}");
    }

    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]);
    until_check(&site, "is short of memory: the broker takes no messages").await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]);

    rabbit.ctl(&["clear_policy", &format!("{space}-suspect")]);
    rabbit.ctl(&["set_policy", "--apply-to", "queues", "--priority", "9", "ours", "events$", r#"{"max-length":9}"#]);
    let found = until_check(&site, &format!("queue {space}.events is under policy ours")).await;
    assert!(found.contains(&format!("policy {space}-suspect does not exist")), "{found}");

    let wrong = site.clone().set("HOOKFLEET_BROKER_MANAGEMENT_URL", &format!("http://guest:hunter2@127.0.0.1:{port}"));
    let refused = wrong.run(&["topology", "apply"]);
    let said = text(&refused);
    assert!(said.contains("refused user \"guest\"") && !said.contains("hunter2"), "{said}");

    let without = site.clone().set("HOOKFLEET_BROKER_MANAGEMENT_URL", "http://127.0.0.1:1");
    let printed = without.run(&["topology", "apply"]);
    assert_eq!(printed.status.code(), Some(69));
    let commands = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(commands.contains(&format!("rabbitmqctl -p / set_policy --apply-to queues {space}-suspect")), "{commands}");
    assert!(text(&without.run(&["topology", "check"])).contains("bindings and policies NOT checked"));
}

/// Case D2: what other policies do to the fleet's queues is told by everything that looks, with what it costs.
#[tokio::test]
async fn d2_policies_that_cost_work_are_told() {
    let port = free_port();
    let config = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
    let rabbit =
        Rabbit::make(Make { cluster: false, plugins: &["rabbitmq_management"], config, ..Make::of_environment() })
            .await;
    let site = Site::servers(&rabbit, &shared().await.1)
        .hooks("")
        .set("HOOKFLEET_BROKER_MANAGEMENT_URL", &format!("http://127.0.0.1:{port}"));
    let space = &site.namespace;
    site.ok(&["topology", "apply"]);
    site.ok(&["topology", "check"]);
    let pattern = format!("^{space}\\.");
    rabbit.ctl(&["set_operator_policy", "--apply-to", "queues", "tidy", &pattern, r#"{"expires":86400000}"#]);
    let level = format!("^{space}\\.delay\\.17$");
    rabbit.ctl(&["set_policy", "--priority", "9", "early", &level, r#"{"message-ttl":1000}"#]);
    let log = format!("^{space}\\.dead$");
    rabbit.ctl(&["set_policy", "--priority", "9", "small", &log, r#"{"max-length-bytes":1000000,"max-age":"30D"}"#]);
    let way = format!("^{space}\\.delay\\.end$");
    rabbit.ctl(&["set_policy", "--apply-to", "exchanges", "detour", &way, r#"{"alternate-exchange":"amq.fanout"}"#]);
    let costs = [
        format!("sets expires = 86400000 for queues {space}.delay.0, {space}.delay.1, {space}.delay.2 and "),
        "deletes it with all retries and parked work in it".to_owned(),
        format!("sets message-ttl = 1000 for queue {space}.delay.17: what waits in it comes back after 1000 ms"),
        "open ones too".to_owned(),
        format!("policy detour sets alternate-exchange = \"amq.fanout\" for exchange {space}.delay.end: "),
    ];
    for cost in &costs {
        until_check(&site, cost).await; // the broker puts policies into force one after the other
    }
    let doctor = String::from_utf8_lossy(&site.run(&["doctor"]).stdout).into_owned();
    let said = [until_check(&site, &costs[0]).await, doctor];
    for (said, cost) in said.iter().flat_map(|said| costs.iter().map(move |cost| (said, cost))) {
        assert!(said.contains(cost.as_str()) && said.contains("PROBLEM"), "{cost}: {said}");
    }
    let worker = site.worker().await;
    while worker.metric("hookfleet_policies_harmful", "").await < 6.0 {
        sleep(Duration::from_millis(50)).await;
    }
    let log = worker.log();
    assert!(costs.iter().all(|cost| log.replace('\\', "").contains(cost.as_str())), "{log}");
}

/// Checks until this is said; what the API says of nodes and queues may lag by some seconds.
async fn until_check(site: &Site, expected: &str) -> String {
    let began = Instant::now();
    loop {
        let found = text(&site.run(&["topology", "check"]));
        if found.contains(expected) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "expected {expected} in {found}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// The stream is deleted, as if a power cut had taken it whole: every record comes back, once.
#[tokio::test]
async fn what_the_stream_forgot_is_recovered() {
    const UNROUTED: usize = 2300; // more than a quorum queue shows at a time
    let (rabbit, _) = shared().await;
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(404));
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ""));
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(rabbit, &site).await;
    publisher.send_all((0..20).map(|i| event("a", &format!("e{i}")))).await;
    sink.until("the refusals", Duration::from_secs(20), |calls| calls.len() == 20).await;
    // As large as a letter in two messages is, and many that the broker itself puts there.
    let events = Stranger::new(rabbit, format!("{}.events", site.namespace)).await;
    events.send("a", &vec![0xff; 5 * 1024 * 1024], BasicProperties::default()).await;
    let lanes = Stranger::new(rabbit, format!("{}.lane", site.namespace)).await;
    for i in 0..UNROUTED {
        lanes.send("nowhere", format!("{{\"n\":{i}}}").as_bytes(), BasicProperties::default()).await;
    }
    let before = crate::pipeline::until_letters(&site, 21 + UNROUTED, "open").await;
    let replayed = before.iter().find(|letter| letter.pointer("/letter/hook").is_some()).unwrap();
    site.ok(&["dead-letters", "replay", replayed.pointer("/letter/id").unwrap().as_str().unwrap()]);
    sink.until("the replay", Duration::from_secs(20), |calls| calls.len() == 21).await;
    assert_eq!(worker.stop().await, Some(0));
    let states = || -> HashSet<String> {
        let letter =
            |letter: serde_json::Value| format!("{} {}", letter.pointer("/letter/id").unwrap(), letter["state"]);
        site.letters().into_iter().map(letter).collect()
    };
    let before = states();

    let nothing = site.ok(&["dead-letters", "recover"]);
    assert!(nothing.contains(", 0 records were missing"), "{nothing}");
    rabbit.ctl(&["delete_queue", &format!("{}.dead", site.namespace)]);
    assert_eq!(site.letters().len(), 0);
    let recovered = site.ok(&["dead-letters", "recover"]);
    println!("{recovered}");
    assert_eq!(states(), before);
    let again = site.ok(&["dead-letters", "recover"]);
    assert!(again.contains(", 0 records were missing"), "{again}");
    let large = before.len();
    assert_eq!(large, 21 + UNROUTED);
    assert_eq!(states(), before);
}
