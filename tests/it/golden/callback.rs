//! What callbacks of a program that is a worker itself see of a `Call`.

use std::fmt::Write as _;
use std::time::Duration;

use hookfleet::{Answer, Call, Failed, Fleet, Settings};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{STRUCTURED, compare, masked, post_event, post_gate};
use crate::servers::{client, free_port};

const HOOKS: &str = "
version: 1
hooks:
  - id: audit
    on: golden.called
    retry: { attempts: 2, backoff: { initial: 250ms, jitter: 0 } }
    run: { callback: record }
  - { id: first, on: golden.asked, mode: gate, order: 1, run: { callback: freeze } }
  - { id: second, on: golden.asked, mode: gate, order: 2, run: { callback: free } }
  - { id: observer, on: golden.asked, run: { callback: record } }
";

/// Everything that a call says.
fn shown(call: &Call) -> String {
    let Call { key, hook, attempt, generation, .. } = call;
    let data: Box<RawValue> = call.data().unwrap();
    let mut record = format!("=== {hook} {attempt}\nkey: {key}\ngeneration: {generation}\n");
    for (name, value) in [
        ("id", call.id()),
        ("source", call.source()),
        ("kind", call.kind()),
        ("subject", call.subject().unwrap_or("{none}")),
        ("event", std::str::from_utf8(call.event()).unwrap()),
        ("data", data.get()),
    ] {
        writeln!(record, "{name}: {value}").unwrap();
    }
    let decision = call.decision().map_or_else(|| "{none}".to_owned(), |decision| masked(&decision.to_json()));
    writeln!(record, "decision: {decision}\n").unwrap();
    record
}

#[tokio::test]
async fn calls_of_callbacks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    std::fs::write(folder.path().join("hooks.yaml"), HOOKS).unwrap();
    let port = free_port();
    let settings = format!(
        "hooks: {at}/hooks.yaml\nembedded: {{ path: {at}/hookfleet.db }}\nhttp: {{ bind: \"127.0.0.1:{port}\" }}\n"
    );
    let (calls, mut called) = mpsc::unbounded_channel();
    let (of_gates, second) = (calls.clone(), calls.clone());
    let fleet = Fleet::builder(Settings::from_yaml(&settings).unwrap());
    let fleet = fleet.callback("record", move |call| {
        calls.send(shown(&call)).unwrap();
        async move { if call.hook == "audit" && call.attempt == 1 { Err(Failed::later("busy")) } else { Ok(()) } }
    });
    let fleet = fleet.gate("freeze", move |call| {
        of_gates.send(shown(&call)).unwrap();
        async { Ok(Answer::default()) }
    });
    let fleet = fleet.gate("free", move |call| {
        second.send(shown(&call)).unwrap();
        async { Ok(Answer::refusal("a freeze is on")) }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(fleet.run(async { drop(stopped.await) }));
    let is_up = async || client().get(format!("http://127.0.0.1:{port}/readyz")).send().await;
    while !is_up().await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(!running.is_finished(), "the fleet has ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let event = |kind: &str, more: &str| {
        format!(
            r#"{{"specversion":"1.0", "type":"golden.{kind}","source":"/golden","id":"{kind}-1",{more}"data":{{"n": 1.0}}}}"#
        )
    };
    let mut record = String::new();
    post_event(port, &[("content-type", STRUCTURED)], &event("called", r#""subject":"tasks/7","#)).await;
    for _ in 0..2 {
        record.push_str(&timeout(Duration::from_secs(30), called.recv()).await.unwrap().unwrap());
    }
    let decision = post_gate(port, &event("asked", "")).await;
    for _ in 0..3 {
        record.push_str(&timeout(Duration::from_secs(30), called.recv()).await.unwrap().unwrap());
    }
    drop(stop);
    running.await.unwrap().unwrap();
    writeln!(record, "=== the answer to the request to gates\n{}", masked(&decision)).unwrap();
    compare("callback.txt", &record);
}
