//! Metrics: names, types, help and labels.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hookfleet::telemetry::Metric;

use super::{STRUCTURED, compare, post_event, post_gate};
use crate::fleet::Site;
use crate::pipeline::until_letters;
use crate::servers::client;

const HOOKS: &str = r#"
  - { id: good, on: golden.good, run: { command: { shell: "true" } } }
  - id: nowhere
    on: golden.failing
    retry: { attempts: 2, backoff: { initial: 250ms, jitter: 0 } }
    run: { http: { url: "http://127.0.0.1:1/" } }
  - { id: condition, on: golden.good, when: event.data.missing.deeper == 1, run: { command: { shell: "true" } } }
  - { id: once, on: golden.once, once_per: { key: event.type, window: 10m }, run: { command: { shell: "true" } } }
  - { id: paused, on: golden.paused, paused: true, run: { command: { shell: "true" } } }
  - { id: slow, on: golden.good, lane: slow, run: { command: { shell: "true" } } }
  - { id: gate, on: golden.asked, mode: gate, run: { command: { shell: "true" } } }
events:
  golden.misfit: { schema: { type: object } }
"#;
/// What the activity of this test counts, with a part of the labels.
const EXPECTED: [(&str, &str, f64); 15] = [
    ("hookfleet_deliveries_total", "events", 7.0),
    ("hookfleet_attempts_total", "hook=\"good\"", 1.0),
    ("hookfleet_attempts_total", "hook=\"slow\"", 1.0),
    ("hookfleet_attempts_total", "hook=\"gate\"", 1.0),
    ("hookfleet_retries_total", "nowhere", 1.0),
    ("hookfleet_letters_total", "nowhere", 1.0),
    ("hookfleet_letters_open", "nowhere", 1.0),
    ("hookfleet_http_unanswered_total", "nowhere", 2.0),
    ("hookfleet_condition_errors_total", "condition", 1.0),
    ("hookfleet_once_per_skipped_total", "once", 1.0),
    ("hookfleet_parked_total", "paused", 1.0),
    ("hookfleet_handed_over_total", "slow", 1.0),
    ("hookfleet_events_misfit_total", "golden.misfit", 1.0),
    ("hookfleet_events_unmatched_total", "", 1.0),
    ("hookfleet_gate_decisions_total", "allow", 1.0),
];

/// Labels whose values are words of the program.
const WORDS: [&str; 7] = ["le", "outcome", "class", "why", "verdict", "action", "lane"];

/// A series without its value: its name and the names of its labels, some with their values.
fn series(line: &str) -> String {
    let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), "}"));
    let labels = labels.rsplit_once('}').unwrap().0;
    let mut names = Vec::new();
    for label in labels.split("\",").filter(|label| !label.is_empty()) {
        let (label, value) = label.split_once("=\"").unwrap();
        let is_word = WORDS.contains(&label);
        names.push(if is_word { format!("{label}={}", value.trim_end_matches('"')) } else { label.to_owned() });
    }
    format!("{name}{{{}}}", names.join(", "))
}

/// Descriptions in their order, and below each its series.
fn summary(text: &str) -> String {
    let descriptions = text.lines().filter(|line| line.starts_with('#'));
    let mut record: BTreeSet<String> = descriptions.map(str::to_owned).collect();
    record.extend(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(series));
    let lines: Vec<String> = record.into_iter().collect();
    lines.join("\n")
}

/// Prometheus' conventions: counters, and only they, end in `_total`; times are in seconds, shares are ratios.
fn follow_conventions(text: &str) {
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{line}");
        let other_units = ["_ms", "_milliseconds", "_minutes", "_percent", "_kb", "_mb", "_count", "_sum", "_bucket"];
        assert!(!other_units.iter().any(|unit| name.ends_with(unit)), "{line}");
    }
}

#[tokio::test]
async fn names_types_help_and_labels() {
    let site = Site::embedded().hooks(HOOKS).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let mut worker = site.worker().await;
    let event = |kind: &str, id: &str| {
        format!(r#"{{"specversion":"1.0","type":"golden.{kind}","source":"/golden","id":"{id}","data":[]}}"#)
    };
    for (kind, id) in [
        ("good", "1"),
        ("failing", "2"),
        ("once", "3"),
        ("once", "4"),
        ("paused", "5"),
        ("misfit", "6"),
        ("unmatched", "7"),
    ] {
        post_event(worker.port, &[("content-type", STRUCTURED)], &event(kind, id)).await;
    }
    post_gate(worker.port, &event("asked", "8")).await;
    until_letters(&site, 1, "open").await;
    for (name, label, least) in EXPECTED {
        worker.until_metric(name, label, least).await;
    }
    let answer = loop {
        let answer = client().get(worker.url("/metrics")).send().await.unwrap();
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let text = answer.text().await.unwrap();
        if text.contains("hookfleet_letters_retention_used_ratio") {
            break format!("=== content type\n{content_type}\n\n=== series\n{}", summary(&text)); // it is the last one
        }
    };
    assert_eq!(worker.stop().await, Some(0));
    follow_conventions(&answer);
    let mut record = format!("{answer}\n\n=== all names\n");
    for metric in Metric::ALL {
        writeln!(record, "{}", metric.name()).unwrap();
    }
    compare("metrics.txt", &record);
}
