//! `events show`: where an event is, hook by hook, by claims, letters and the queues of a file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::fleet::Site;
use crate::letters::parsed;
use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::publishing::event;
use crate::servers::client;
use crate::sink::{Answer, Sink};

/// The states of an event, by hook.
fn states(known: &Value) -> BTreeMap<String, String> {
    let hooks = known["items"][0]["hooks"].as_array().unwrap();
    let text = |it: &Value, name: &str| it[name].as_str().unwrap().to_owned();
    hooks.iter().map(|at| (text(at, "hook"), text(at, "state"))).collect()
}

fn show(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.run(&[&["events", "show"], arguments].concat());
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), told)
}

/// Hooks that end in every way there is, and a worker.
async fn every_way(place: Place) -> (Sink, Stage) {
    let sink = Sink::start().await;
    sink.behave(|hook, _| match hook {
        "ill" => Answer::status(404),
        "flaky" | "ended" => Answer::status(503),
        "long" => Answer::after(Duration::from_secs(50)),
        _ => Answer::status(200),
    });
    let later = ", retry: { attempts: 5, backoff: { initial: 60s, max: 60s, jitter: 0 } }";
    let hooks = [
        hook(&sink, "well", "a", ""),
        hook(&sink, "ill", "a", ", retry: { attempts: 1 }"),
        hook(&sink, "flaky", "a", later),
        hook(&sink, "ended", "a", later),
        hook(&sink, "long", "a", ", timeout: 60s"),
        hook(&sink, "resting", "a", ", paused: true"),
        hook(&sink, "other", "z", ""),
    ];
    let site = site(place).await.hooks(&hooks.join("\n")).set("HOOKFLEET_WORKER_GRACE", "1s");
    let stage = stage(place, site).await;
    (sink, stage)
}

/// Waits until an event is so far.
async fn until(site: &Site, arguments: &[&str], expected: BTreeMap<String, String>) -> Value {
    let began = Instant::now();
    loop {
        let (code, told) = show(site, &[arguments, &["--json"]].concat());
        let known = if code == Some(0) { parsed(told.lines().next().unwrap()) } else { Value::Null };
        if code == Some(0) && states(&known) == expected {
            return known;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{code:?} {told}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn whereabouts(place: Place) {
    let (sink, Stage { site, worker, publisher }) = every_way(place).await;
    let (code, told) = show(&site, &["1", "--source", "/test"]);
    assert!(code == Some(3) && told.contains("nothing is known of event \"1\" of source \"/test\""), "{told}");
    publisher.send(event("a", "1")).await;
    sink.until("all that run", Duration::from_secs(20), |calls| calls.len() == 5).await;

    // What waits in RabbitMQ for its first run is not known there.
    let resting = if place == Place::File { "parked" } else { "unknown" };
    let expected = |ended: &str| -> BTreeMap<String, String> {
        let states = [("well", "done"), ("ill", "dead_letter"), ("flaky", "waiting"), ("ended", ended)];
        let others = [("long", "running"), ("resting", resting), ("other", "unknown")];
        states.into_iter().chain(others).map(|(hook, state)| (hook.to_owned(), state.to_owned())).collect()
    };
    until(&site, &["1", "--source", "/test"], expected("waiting")).await;
    site.ok(&["hooks", "cancel", "1", "ended", "--source", "/test"]);
    let known = until(&site, &["1", "--source", "/test"], expected("cancelled")).await;
    let at = |name: &str| {
        let hooks = known["items"][0]["hooks"].as_array().unwrap();
        hooks.iter().find(|at| at["hook"] == name).unwrap().clone()
    };
    assert_eq!((at("flaky")["attempt"].as_u64(), at("long")["attempt"].as_u64()), (Some(2), Some(1)), "{known}");
    assert_eq!((at("ill")["letter"]["class"].as_str(), at("well").get("letter")), (Some("rejected"), None), "{known}");
    // A letter has the event's id; a log line has its digest.
    until(&site, &["1"], expected("cancelled")).await;
    until(&site, &[known["items"][0]["event"].as_str().unwrap()], expected("cancelled")).await;

    let (code, told) = show(&site, &["1"]);
    let letter = at("ill")["letter"]["id"].as_str().unwrap().to_owned();
    let shown = ["HOOK", "in letters", "cancelled", "running", &letter, "other hooks of the catalog nothing is known"];
    assert!(code == Some(0) && shown.iter().all(|expected| told.contains(expected)), "{told}");
    let (code, told) = show(&site, &["2"]);
    assert!(code == Some(3) && told.contains("say the source too"), "{told}");
    if place == Place::File {
        let answer = client().get(worker.url("/v1/events?id=1&source=%2Ftest")).send().await.unwrap();
        assert_eq!(states(&answer.json().await.unwrap()), expected("cancelled"));
        let answer = client().get(worker.url("/v1/events?id=2")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 404);
    }
    assert_eq!(sink.count(), 5, "looking changes nothing");
}

#[tokio::test]
async fn an_event_is_found_on_servers() {
    whereabouts(Place::Servers).await;
}

#[tokio::test]
async fn an_event_is_found_in_a_file() {
    whereabouts(Place::File).await;
}

/// Nobody owns the file: its queues are searched all the same, and the event that waits there goes to the hooks that want it.
#[tokio::test]
async fn an_event_that_waits_in_a_file_is_found() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.hooks(&[hook(&sink, "one", "a", ""), hook(&sink, "two", "b", "")].join("\n"));
    site.ok(&["publish", "--type", "a", "--id", "1", "--source", "/test"]);
    let known = parsed(&site.ok(&["events", "show", "1", "--json"]));
    let expected = [("one", "waiting"), ("two", "unknown")].map(|(hook, state)| (hook.to_owned(), state.to_owned()));
    assert_eq!(states(&known), BTreeMap::from(expected), "{known}");
    assert_eq!((&known["items"][0]["source"], &known["items"][0]["type"]), (&"/test".into(), &"a".into()), "{known}");
}
