//! Case D7: a decision is about one event. Under its source and id nothing else is decided, let alone allowed.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{ALLOW, Asker, DIRECT, FREEZE, STRUCTURED, decide, gate, post, posted};
use crate::pipeline::{Place, Stage, hook, site, stage};
use crate::publishing::with_data;
use crate::sink::Sink;

/// Other data, another type, another subject: what somebody would try who was allowed something else.
fn others() -> Vec<Bytes> {
    let event = |more: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"/test",{more}}}"#).into();
    vec![
        event(r#""type":"deploy","data":{"target":"prod"}"#),
        event(r#""type":"remove","data":{"target":"lab"}"#),
        event(r#""type":"deploy","subject":"prod","data":{"target":"lab"}"#),
        event(r#""type":"deploy","data":{"target":"lab","target":"prod"}"#),
    ]
}

/// The same, written in another way: it is the same decision.
const SAME: &str = r#" { "time": "2026-12-01T12:00:00Z", "data": { "target": "l\u0061b" }, "type": "deploy",
    "id": "1", "source": "\/test", "specversion": "1.0" } "#;

async fn conflicts(place: Place) {
    let sink = Sink::start().await;
    let hooks = [gate("freeze", "\"**\"", FREEZE, ""), hook(&sink, "seen", "**", "")];
    let site = site(place).await.with_gateway().hooks(&hooks.join("\n")).set(ALLOW, "sh");
    let Stage { site, worker, .. } = stage(place, site).await;
    let first = posted(&worker, with_data("deploy", "1", &json!({ "target": "lab" }))).await;
    assert_eq!(first["verdict"], "allow", "{first:#}");
    assert_eq!(first["about"].as_str().map(str::len), Some(64), "{first:#}");
    for other in others() {
        let (status, body) = post(&worker, "20s", STRUCTURED, other.clone()).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 409, "{body}");
        assert!(problem["detail"].as_str().unwrap().starts_with("conflict: another type or other data"), "{body}");
        if place == Place::Servers {
            let mut asker = Asker::new(&site, DIRECT).await;
            asker.send("deploy", "1", &other).await;
            let refused = asker.answer("1").await.json();
            assert_eq!((&refused["verdict"], &refused["conflict"]), (&json!("deny"), &json!(true)), "{refused:#}");
        }
    }
    let (code, _, said) = decide(&site, "1", &json!({ "target": "prod" }), &["--on-unavailable", "allow"]);
    assert!(code == Some(2) && said.contains("conflict: "), "{code:?} {said}");
    assert_eq!(posted(&worker, SAME.into()).await, first, "the first decision stays");
    worker.until_metric("hookfleet_events_conflicting_total", "", 5.0).await;
    sink.until("the observer", std::time::Duration::from_secs(30), |calls| !calls.is_empty()).await;
    assert!(sink.calls().iter().all(|call| !String::from_utf8_lossy(&call.body).contains("prod")));
}

#[tokio::test]
async fn d7_nothing_else_is_decided_under_one_id_on_servers() {
    conflicts(Place::Servers).await;
}

#[tokio::test]
async fn d7_nothing_else_is_decided_under_one_id_on_a_file() {
    conflicts(Place::File).await;
}

/// A server, which asks workers over the broker, says the same.
#[tokio::test]
async fn d7_a_server_says_so_too() {
    let site = site(Place::Servers).await.hooks(&gate("freeze", "\"**\"", FREEZE, "")).set(ALLOW, "sh");
    let (_worker, server) = (site.worker().await, site.server().await);
    posted(&server, with_data("deploy", "1", &json!({ "target": "lab" }))).await;
    for other in others() {
        let (status, body) = post(&server, "20s", STRUCTURED, other).await;
        assert!(status == 409 && body.contains("conflict: "), "{status} {body}");
    }
}
