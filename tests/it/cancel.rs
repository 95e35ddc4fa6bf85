//! `hooks cancel`: an invocation that waits for its next attempt, or runs, is ended by an operator, without a letter.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::Site;
use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::publishing::event;
use crate::sink::{Answer, Sink};

fn cancel(site: &Site, event: &str, hook: &str) -> (bool, String) {
    let output = site.run(&["hooks", "cancel", event, hook, "--source", "/test"]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// The message that was out is dropped: seen by the claim that it asks for in vain, and counted.
async fn until_dropped(stage: &Stage, count: f64) {
    let began = Instant::now();
    while stage.worker.metric("hookfleet_claims_total", "cancelled").await < count {
        assert!(began.elapsed() < Duration::from_secs(40), "nothing was dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_pending_retry(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|hook, _| Answer::status(if hook == "flaky" { 503 } else { 200 }));
    let policy = ", retry: { attempts: 5, backoff: { initial: 3s, jitter: 0 } }";
    let hooks = [hook(&sink, "flaky", "a", policy), hook(&sink, "well", "a", "")].join("\n");
    let mut stage = stage(place, site(place).await.hooks(&hooks)).await;
    stage.publisher.send(event("a", "1")).await;
    let failed = |line: &str| line.contains("failed, will be retried");
    sink.until("both hooks", Duration::from_secs(20), |calls| calls.len() == 2).await;
    // A permit is given back once everything is recorded.
    let all_recorded = |status: &Value| {
        let hooks = status["hooks"].as_array().unwrap();
        hooks.len() == 2 && hooks.iter().all(|hook| hook["running"] == 0)
    };
    stage.worker.until("/v1/status", all_recorded).await;
    let (ok, said) = cancel(&stage.site, "1", "flaky");
    assert!(ok && said.contains("cancelled: its message is dropped"), "{said}");
    let (ok, said) = cancel(&stage.site, "1", "flaky");
    assert!(ok && said.contains("was cancelled before"), "{said}");
    let (ok, said) = cancel(&stage.site, "1", "well");
    assert!(!ok && said.contains("has finished: there is nothing to cancel"), "{said}");
    until_dropped(&stage, 1.0).await;

    // The name from a log line does too; what has not come yet does not run when it does.
    let log = stage.worker.log();
    let line = log.lines().find(|line| failed(line)).unwrap();
    let digest = line.split_once("/flaky").map(|(before, _)| &before[before.len() - 32..]).unwrap();
    let said = stage.site.ok(&["hooks", "cancel", digest, "flaky"]);
    assert!(said.contains("was cancelled before"), "{said}");
    for hook in ["flaky", "nosuch"] {
        let output = stage.site.run(&["hooks", "cancel", "2", hook, "--source", "/test"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && said.contains("nothing is known of "), "{said}");
    }
    let said = stage.site.ok(&["hooks", "cancel", "2", "flaky", "--source", "/test", "--even-if-unknown"]);
    assert!(said.contains("cancelled, though nothing is known of it"), "{said}");
    stage.publisher.send(event("a", "2")).await;
    sink.until("the other hook of it", Duration::from_secs(20), |calls| calls.len() == 3).await;
    until_dropped(&stage, 2.0).await;
    assert!(stage.worker.metric("hookfleet_cancelled_total", "flaky").await >= 2.0);
    assert_eq!(stage.worker.stop().await, Some(0));
    let log = stage.worker.log();
    let dropped = log.lines().filter(|line| line.contains("dropped: an operator has cancelled it"));
    let dropped: Vec<&str> = dropped.collect();
    assert!(dropped.len() >= 2 && dropped.iter().all(|line| line.contains("INFO") && line.contains("flaky")), "{log}");
    let calls: Vec<(String, String)> = sink.calls().into_iter().map(|call| (call.event, call.hook)).collect();
    assert_eq!(calls.iter().filter(|(_, hook)| hook == "flaky").count(), 1, "{calls:?}");
    assert!(stage.site.letters().is_empty(), "cancelling writes no letter");
}

#[tokio::test]
async fn a_pending_retry_is_cancelled_on_servers() {
    a_pending_retry(Place::Servers).await;
}

#[tokio::test]
async fn a_pending_retry_is_cancelled_in_a_file() {
    a_pending_retry(Place::File).await;
}

/// A run is stopped when its worker renews its claim, and settles nothing.
async fn a_run(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_secs(50)));
    let site = site(place).await.hooks(&hook(&sink, "long", "a", ", timeout: 60s"));
    let mut stage = stage(place, site.set("HOOKFLEET_IDEMPOTENCY_LEASE", "3s")).await;
    stage.publisher.send(event("a", "1")).await;
    sink.until("the run", Duration::from_secs(20), |calls| calls.len() == 1).await;
    let (ok, said) = cancel(&stage.site, "1", "long");
    assert!(ok && said.contains("it is running"), "{said}");
    until_dropped(&stage, 1.0).await;
    let began = Instant::now();
    assert_eq!(stage.worker.stop().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "nothing was left to wait for");
    assert_eq!(sink.calls().len(), 1);
    assert!(stage.site.letters().is_empty());
}

#[tokio::test]
async fn a_run_is_cancelled_on_servers() {
    a_run(Place::Servers).await;
}

#[tokio::test]
async fn a_run_is_cancelled_in_a_file() {
    a_run(Place::File).await;
}

/// Nobody owns the file: the command opens it.
#[tokio::test]
async fn an_event_in_a_file_that_nobody_owns_is_cancelled() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.hooks(&[hook(&sink, "one", "a", ""), hook(&sink, "two", "a", "")].join("\n"));
    site.ok(&["publish", "--type", "a", "--id", "1", "--source", "/test"]);
    let (ok, said) = cancel(&site, "1", "one");
    assert!(!ok && said.contains("nothing is known of "), "what waits for its first run is not known: {said}");
    let said = site.ok(&["hooks", "cancel", "1", "one", "--source", "/test", "--even-if-unknown"]);
    assert!(said.contains("nothing is known of it"), "{said}");
    let mut worker = site.worker().await;
    sink.until("the other hook", Duration::from_secs(20), |calls| !calls.is_empty()).await;
    assert_eq!(worker.stop().await, Some(0));
    let hooks: Vec<String> = sink.calls().into_iter().map(|call| call.hook).collect();
    assert_eq!(hooks, ["two"]);
}

#[tokio::test]
async fn mistakes_are_told() {
    let site = Site::embedded().hooks("");
    for (arguments, expected) in
        [(&["17", "h"][..], "say --source too"), (&["17", "h h", "--source", "/s"], "HOOK: expected 1 to 128 letters")]
    {
        let output = site.run(&[&["hooks", "cancel"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}
