//! What a hook can say, seen from outside: which events run it, when it waits, and what its target gets.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::Worker;
use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::{Publisher, event};
use crate::servers::{client, shared};
use crate::sink::{Answer, Sink};

const SOON: Duration = Duration::from_secs(30);

fn with(id: &str, subject: &str, data: &Value) -> Bytes {
    let event =
        json!({ "specversion": "1.0", "type": "a", "source": "/tasks/7", "id": id, "subject": subject, "data": data });
    event.to_string().into()
}

async fn status(worker: &Worker) -> Value {
    client().get(worker.url("/v1/status")).send().await.unwrap().json().await.unwrap()
}

/// Conditions choose; one that fails is no match, and counted; templates make the request.
async fn conditions_and_templates(place: Place) {
    let sink = Sink::start().await;
    let url = sink.url("templated");
    let hooks = [
        hook(
            &sink,
            "severe",
            "a",
            ", source: '/tasks/*', subject: 'task-?', when: \"event.data.severity in ['error', 'critical']\"",
        ),
        hook(&sink, "elsewhere", "a", ", source: '/other/*'"),
        hook(&sink, "failing", "a", ", when: event.data.missing.deeper == 1"),
        hook(&sink, "off", "a", ", enabled: false"),
        hook(&sink, "gate", "a", ", mode: gate"),
        format!(
            "  - {{ id: templated, on: a, labels: {{ team: core }}, run: {{ http: {{ url: \"{url}?id={{{{ event.id }}}}\", \
             body: '{{\"text\":\"{{{{ event.data.text }}}} by {{{{ hook.labels.team }}}}\",\"n\":{{{{ event.data.n }}}}}}' }} }} }}"
        ),
        format!(
            "  - {{ id: undefined, on: a, run: {{ http: {{ url: \"{url}\", body: '{{{{ event.data.nothing }}}}' }} }} }}"
        ),
    ];
    let site = site(place).await.hooks(&hooks.join("\n"));
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    let data = json!({ "severity": "error", "text": "say \"hi\"", "n": [1, 2] });
    publisher.send(with("1", "task-7", &data)).await;
    publisher.send(with("2", "task-77", &data)).await;
    publisher.send(with("3", "task-8", &json!({ "severity": "info", "text": "", "n": 1 }))).await;
    sink.until("those that match", SOON, |calls| calls.len() >= 4).await;
    until_letters(&site, 3, "open").await;
    let failed = worker.metric("hookfleet_condition_errors_total", "failing").await;
    assert!((2.5..3.5).contains(&failed), "one of each event: {failed}");
    assert_eq!(worker.stop().await, Some(0));

    let calls = sink.calls();
    let of = |hook: &str| calls.iter().filter(|call| call.hook == hook).collect::<Vec<_>>();
    assert_eq!(calls.len(), 4, "{calls:#?}");
    assert_eq!(of("severe").len(), 1);
    let bodies: Vec<_> = of("templated").iter().map(|call| String::from_utf8_lossy(&call.body).into_owned()).collect();
    let first = r#"{"text":"say \"hi\" by core","n":[1,2]}"#;
    assert_eq!(bodies.iter().filter(|body| *body == first).count(), 2, "{bodies:?}");
    for letter in site.letters() {
        assert_eq!(
            (letter["letter"]["class"].as_str(), letter["letter"]["hook"].as_str()),
            (Some("invalid"), Some("undefined")),
            "{letter}"
        );
    }
    let warned = worker.log().lines().filter(|line| line.contains("cannot be evaluated")).count();
    assert!((1..=2).contains(&warned), "once a minute: {}", worker.log());
}

#[tokio::test]
async fn conditions_and_templates_on_servers() {
    conditions_and_templates(Place::Servers).await;
}

#[tokio::test]
async fn conditions_and_templates_in_a_file() {
    conditions_and_templates(Place::File).await;
}

/// What is pending when its hook is disabled becomes a letter; nothing new runs it.
async fn disabled(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(503));
    let retry = ", retry: { attempts: 5, backoff: { initial: 4s, jitter: 0 } }";
    let site = site(place).await.hooks(&hook(&sink, "h", "a", retry));
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    publisher.send(event("a", "1")).await;
    sink.until("the first attempt", SOON, |calls| calls.len() == 1).await;
    assert_eq!(worker.stop().await, Some(0));

    let site = site.hooks(&hook(&sink, "h", "a", &format!("{retry}, enabled: false")));
    let mut worker = site.worker().await;
    if let Place::File = place {
        Publisher::http(worker.port).send(event("a", "2")).await;
    } else {
        publisher.send(event("a", "2")).await;
    }
    until_letters(&site, 1, "open").await;
    assert_eq!(site.letters()[0]["letter"]["class"], "hook_disabled");
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 1);
}

/// A run goes on whose hook is disabled meanwhile, and what comes again for it is no letter.
#[tokio::test]
async fn a_run_outlives_its_hook() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::after(Duration::from_secs(6)));
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", ", timeout: 20s"));
    let site = site.set("HOOKFLEET_IDEMPOTENCY_LEASE", "2s").set("HOOKFLEET_WORKER_HOLD", "1s");
    let Stage { site, mut worker, publisher } = stage(Place::Servers, site).await;
    publisher.send(event("a", "1")).await;
    sink.until("the call", SOON, |calls| calls.len() == 1).await;
    let before = worker.ask("/v1/status").await["catalog"]["revision"].clone();
    let site = site.hooks(&hook(&sink, "h", "a", ", enabled: false"));
    worker.until("/v1/status", |status| status["catalog"]["revision"] != before).await;
    while worker.metric("hookfleet_claims_total", "\"done\"").await < 1.0 {
        sleep(Duration::from_millis(50)).await; // the guard comes round until it finds it done
    }
    assert!(worker.metric("hookfleet_claims_total", "busy").await >= 1.0);
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.calls().iter().filter(|call| call.status == 200 && call.finished.is_some()).count(), 1);
    assert_eq!(sink.count(), 1);
    assert!(site.letters().is_empty());
}

/// What nobody can read is no match for a condition, and a letter; hooks that ask for nothing of it run.
#[tokio::test]
async fn what_a_condition_cannot_read_is_a_letter() {
    let sink = Sink::start().await;
    let hooks = [hook(&sink, "asks", "a", ", when: event.data.n == 1"), hook(&sink, "takes", "a", "")].join("\n");
    let site = site(Place::Servers).await.hooks(&hooks);
    let Stage { site, worker: _worker, publisher } = stage(Place::Servers, site).await;
    let body = r#"{"specversion":"1.0","type":"a","source":"/s","id":"1","data":{"n":1,"cut":"\ud83d"}}"#;
    publisher.send(Bytes::from(body)).await;
    until_letters(&site, 1, "open").await;
    assert_eq!(site.letters()[0]["letter"]["class"], "unreadable");
    sink.until("the one that asks for nothing", SOON, |calls| calls.len() == 1 && calls[0].hook == "takes").await;
}

#[tokio::test]
async fn what_is_pending_for_a_disabled_hook_is_a_letter_on_servers() {
    disabled(Place::Servers).await;
}

#[tokio::test]
async fn what_is_pending_for_a_disabled_hook_is_a_letter_in_a_file() {
    disabled(Place::File).await;
}

/// A paused hook's invocations wait in the broker, no attempt spent, and run when it goes on.
async fn paused(place: Place) {
    let sink = Sink::start().await;
    let site = site(place).await.hooks(&hook(&sink, "h", "a", ", paused: true"));
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    publisher.send_all((0..20).map(|number| event("a", &number.to_string()))).await;
    while worker.metric("hookfleet_parked_total", "h").await < 20.0 {
        sleep(Duration::from_millis(50)).await;
    }
    let status = status(&worker).await;
    assert_eq!(status["hooks"][0]["paused"], true, "{status}");
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 0);

    let site = site.hooks(&hook(&sink, "h", "a", ""));
    let mut worker = site.worker().await;
    sink.until("all of them", Duration::from_secs(60), |calls| calls.len() == 20).await;
    assert_eq!(worker.stop().await, Some(0));
    assert!(sink.calls().iter().all(|call| call.attempt == 1));
    assert!(site.letters().is_empty());
}

#[tokio::test]
async fn a_paused_hook_waits_in_the_broker_on_servers() {
    paused(Place::Servers).await;
}

#[tokio::test]
async fn a_paused_hook_waits_in_the_broker_in_a_file() {
    paused(Place::File).await;
}

/// A storm of like events runs a hook once; the one whose run failed is tried again all the same.
async fn a_storm(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|_, before| Answer::status(if before == 0 { 503 } else { 200 }));
    let once = ", once_per: { key: event.data.run, window: 1h }, retry: { attempts: 3, backoff: { initial: 500ms } }";
    let site = site(place).await.hooks(&hook(&sink, "h", "a", once));
    let Stage { site, mut worker, publisher } = stage(place, site).await;
    let storm = (0..300).map(|number| with(&number.to_string(), "s", &json!({ "run": number % 3 })));
    publisher.send_all(storm).await;
    sink.until("one run of each kind, and its retry", SOON, |calls| calls.len() >= 6).await;
    while worker.metric("hookfleet_once_per_skipped_total", "h").await < 297.0 {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(worker.stop().await, Some(0));
    let calls = sink.calls();
    let keys: std::collections::HashSet<_> = calls.iter().map(|call| &call.key).collect();
    assert_eq!((calls.len(), keys.len()), (6, 3), "{calls:#?}");
    assert!(site.letters().is_empty());
}

#[tokio::test]
async fn a_storm_of_like_events_runs_a_hook_once_on_servers() {
    a_storm(Place::Servers).await;
}

#[tokio::test]
async fn a_storm_of_like_events_runs_a_hook_once_in_a_file() {
    a_storm(Place::File).await;
}

/// The worker dies after the run of the event that has the window, before that is known: another runs it again, although
/// the window is taken.
#[tokio::test]
async fn a_crash_does_not_lose_the_run_that_has_the_window() {
    let sink = Sink::start().await;
    let once = ", once_per: { key: event.data.run, window: 1h }";
    let site = site(Place::Servers).await.hooks(&hook(&sink, "h", "a", once)).set("HOOKFLEET_IDEMPOTENCY_LEASE", "2s");
    let publisher = Publisher::amqp(&shared().await.0, &site).await;
    publisher.send(with("1", "s", &json!({ "run": 1 }))).await;
    let mut first = site.spawn(&[("HOOKFLEET_CRASH_AT", "ran")]);
    assert_eq!(first.ended(SOON).await, None);
    publisher.send(with("2", "s", &json!({ "run": 1 }))).await;
    let mut second = site.worker().await;
    sink.until("the takeover", SOON, |calls| calls.len() == 2).await;
    while second.metric("hookfleet_once_per_skipped_total", "h").await < 1.0 {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(second.stop().await, Some(0));
    let calls = sink.calls();
    assert_eq!(calls.iter().map(|call| call.event.as_str()).collect::<Vec<_>>(), ["1", "1"], "{calls:#?}");
}
