//! Signed deliveries, verified by implementations that are not ours.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::pipeline::{Place, site};
use crate::publishing::{Publisher, event};
use crate::servers::shared;

const EVENTS: usize = 1000;
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
const ASYMMETRIC: &str = "whsk_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// A thousand deliveries of each scheme, keys of which one follows the other included: Python's `standardwebhooks` takes
/// every one of them, and none whose body was changed.
#[tokio::test]
async fn others_verify_what_is_signed() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let taking = {
        let lines = Arc::clone(&lines);
        move |Path(hook): Path<String>, headers: HeaderMap, body: String| async move {
            let headers: serde_json::Map<String, Value> =
                headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect();
            lines.lock().unwrap().push(json!({ "hook": hook, "headers": headers, "body": body }).to_string());
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/{hook}", post(taking))).await });
    let schemes = [
        ("one", format!("standard: {OLD}")),
        ("rotated", format!("standard: [\"{NEW}\", {OLD}]")),
        ("asymmetric", format!("standard: \"{ASYMMETRIC}\"")),
        ("plain", "hmac: { header: x-hub-signature-256, prefix: sha256=, key: open sesame }".to_owned()),
    ];
    let hooks = schemes.iter().fold(String::new(), |mut hooks, (id, sign)| {
        let url = format!("http://{address}/{id}");
        writeln!(hooks, "  - {{ id: {id}, on: order.paid, run: {{ http: {{ url: '{url}', sign: {{ {sign} }} }} }} }}")
            .unwrap();
        hooks
    });
    let site = site(Place::Servers).await.hooks(hooks.trim_end());
    let mut worker = site.worker().await;
    let publisher = Publisher::amqp(&shared().await.0, &site).await;
    publisher.send_all((0..EVENTS).map(|number| event("order.paid", &format!("e{number}")))).await;
    let (wanted, began) = (EVENTS * schemes.len(), Instant::now());
    while lines.lock().unwrap().len() < wanted {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of {wanted}", lines.lock().unwrap().len());
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(worker.stop().await, Some(0));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.lock().unwrap().join("\n")).unwrap();
    let python = std::env::var("HOOKFLEET_TEST_PYTHON").expect("set by tests/run: a python with standardwebhooks");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify.py");
    let output = tokio::process::Command::new(python).arg(script).arg(file.path()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts, json!({ "one": EVENTS, "rotated": EVENTS, "asymmetric": EVENTS, "plain": EVENTS }));
}
