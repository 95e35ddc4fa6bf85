//! The start of a process whose servers are away, and its end as probes see it. Case C12.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, hook, site};
use crate::proxy::Proxy;
use crate::publishing::{Publisher, event};
use crate::servers::{client, free_port, shared};
use crate::sink::{Answer, Sink};

/// Status of the answer and the reasons in it.
async fn readiness(process: &Worker) -> (u16, String) {
    let Ok(answer) = client().get(process.url("/readyz")).send().await else { return (0, String::new()) };
    (answer.status().as_u16(), answer.text().await.unwrap_or_default())
}

/// Waits until readiness is 503 for this reason.
async fn until_not_ready(process: &Worker, reason: &str) {
    let began = Instant::now();
    loop {
        let (status, said) = readiness(process).await;
        if status == 503 && said.contains(reason) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{status} {said}, not {reason}\n{}", process.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// A process whose server is away serves HTTP, says what it waits for, says it once in its log, and goes on by itself.
async fn a_server_is_away_at_the_start(of_redis: bool, is_server: bool) {
    let (rabbit, redis) = shared().await;
    let port = free_port();
    let site = Site::servers(rabbit, redis).hooks("");
    let (site, real, what) = if of_redis {
        (site.set("HOOKFLEET_REDIS_URL", &format!("redis://127.0.0.1:{port}")), redis.port, "Redis")
    } else {
        (site.set("HOOKFLEET_BROKER_URL", &format!("amqp://guest:guest@127.0.0.1:{port}")), rabbit.port, "the broker")
    };
    let mut process = if is_server { site.spawn_server() } else { site.spawn(&[]) };
    until_not_ready(&process, &format!("starting: waiting for {what}: ")).await;
    let ask = async |path: &str| client().get(process.url(path)).send().await.unwrap();
    assert_eq!(ask("/healthz").await.status(), 200);
    assert_eq!(ask("/metrics").await.status(), 200);
    let other = ask("/v1/status").await;
    assert_eq!((other.status().as_u16(), other.headers().contains_key("retry-after")), (503, true));
    assert!(other.text().await.unwrap().contains("starting: waiting for"), "a problem says why");
    sleep(Duration::from_secs(2)).await; // several tries

    let _proxy = Proxy::on(port, real).await;
    process.until_ready().await;
    let log = process.log();
    let count = |words: &str| log.matches(words).count();
    assert_eq!((count(&format!("waiting for {what}")), count(&format!("{what} is there"))), (1, 1), "{log}");
    assert_eq!(process.stop().await, Some(0));
}

#[tokio::test]
async fn a_worker_waits_for_the_broker() {
    a_server_is_away_at_the_start(false, false).await;
}

#[tokio::test]
async fn a_worker_waits_for_redis() {
    a_server_is_away_at_the_start(true, false).await;
}

#[tokio::test]
async fn a_server_waits_for_the_broker() {
    a_server_is_away_at_the_start(false, true).await;
}

/// The wait has an end, and a signal ends it in order.
#[tokio::test]
async fn waiting_ends() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).hooks("");
    for (name, url) in
        [("HOOKFLEET_BROKER_URL", "amqp://guest:guest@127.0.0.1:1"), ("HOOKFLEET_REDIS_URL", "redis://127.0.0.1:1")]
    {
        let site = site.clone().set(name, url);
        let mut bounded = site.spawn(&[("HOOKFLEET_STARTUP_TIMEOUT", "1s")]);
        assert_eq!(bounded.ended(Duration::from_secs(60)).await, Some(69), "{}", bounded.log());
        let mut stopped = site.spawn(&[]);
        until_not_ready(&stopped, "starting").await;
        assert_eq!(stopped.stop().await, Some(0), "{}", stopped.log());
    }
}

/// Commands say what they wait for before they give up, also where nothing refuses the connection.
#[tokio::test]
async fn commands_say_what_they_wait_for() {
    let (rabbit, redis) = shared().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    for (port, said) in
        [(1, "waiting for the broker: cannot connect"), (silent_port, "waiting for an answer of RabbitMQ")]
    {
        for command in [&["publish", "--type", "a"][..], &["dead-letters", "list"], &["decide", "--type", "a"]] {
            let site = Site::servers(rabbit, redis).hooks("");
            let site = site.set("HOOKFLEET_BROKER_URL", &format!("amqp://guest:guest@127.0.0.1:{port}"));
            let mut process = site
                .set("HOOKFLEET_STARTUP_COMMAND_TIMEOUT", "60s")
                .command()
                .args(command)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // It waits for a minute: these lines come before that.
            let lines: Vec<String> =
                BufReader::new(process.stderr.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
            let _ = process.kill();
            let _ = process.wait();
            assert!(lines[0].starts_with("using RabbitMQ") && lines[1].starts_with(said), "{command:?}: {lines:?}");
        }
    }
}

/// A process that drains says so for as long as it does, however many cells it has.
async fn draining(place: Place, cells: &str) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_secs(2)));
    let site =
        site(place).await.hooks(&hook(&sink, "slow", "a", ", timeout: 30s")).set("HOOKFLEET_WORKER_CELLS", cells);
    let mut worker = site.worker().await;
    match place {
        Place::Servers => Publisher::amqp(&shared().await.0, &site).await.send(event("a", "1")).await,
        Place::File => Publisher::http(worker.port).send(event("a", "1")).await,
    }
    sink.until("the run", Duration::from_secs(30), |calls| calls.len() == 1).await;
    worker.process.signal("TERM");
    until_not_ready(&worker, r#"["stopping"]"#).await;
    assert_eq!(worker.ended(Duration::from_secs(60)).await, Some(0));
    assert!(sink.calls()[0].finished.is_some(), "the run has finished meanwhile");
}

#[tokio::test]
async fn a_worker_of_one_cell_says_that_it_stops() {
    draining(Place::Servers, "1").await;
}

#[tokio::test]
async fn a_worker_of_three_cells_says_that_it_stops() {
    draining(Place::Servers, "3").await;
}

#[tokio::test]
async fn a_process_on_a_file_says_that_it_stops() {
    draining(Place::File, "1").await;
}
