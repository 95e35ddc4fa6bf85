use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::domain::decision::{Decision, Merge};
use crate::domain::dialect::Dialect;
use crate::domain::event::{Foreign, Reading};
use crate::domain::hook::{CommandAction, HttpAction, Matcher, fixture};
use crate::domain::id::HookId;
use crate::domain::message::{Message, Properties};

/// What the contract says, as input and right value.
const VECTORS: &str = include_str!("../../../tests/vectors/kheish.json");

#[derive(Deserialize)]
struct Vectors {
    keys: Vec<Keys>,
    matchers: Vec<Match>,
    readings: Vec<Written>,
}

#[derive(Deserialize)]
struct Keys {
    name: String,
    invocation: Box<RawValue>,
    #[serde(default)]
    hook: String,
    invocation_key: String,
    execution_key: Option<String>,
}

#[derive(Deserialize)]
struct Match {
    matcher: String,
    subject: Option<String>,
    matches: bool,
}

#[derive(Deserialize)]
struct Written {
    name: String,
    exit: Option<i32>,
    status: Option<u16>,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
    #[serde(default)]
    body: String,
    retry_after_s: Option<u64>,
    is: Option<BTreeMap<String, Value>>,
    fails: Option<String>,
    fails_with: Option<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

#[test]
fn keys() {
    for Keys { name, invocation, hook, invocation_key, execution_key } in vectors().keys {
        let read = HookInvocation::read(invocation.get().as_bytes()).unwrap();
        assert_eq!(read.invocation_key(), invocation_key, "{name}");
        if let Some(expected) = execution_key {
            assert_eq!(read.execution_key(&hook), expected, "{name}");
        }
        let wire: Value = serde_json::from_str(&read.wire()).unwrap();
        assert_eq!((&wire["contract_version"], &wire["invocation_key"]), (&json!(1), &json!(invocation_key)), "{name}");
        assert_eq!(HookInvocation::read(read.wire().as_bytes()).unwrap(), read, "{name}");
    }
}

#[test]
fn what_stands_in_the_payload_counts() {
    let key = |json: &str| HookInvocation::read(json.as_bytes()).unwrap().invocation_key();
    let none = key(r#"{"event":"stop"}"#);
    assert_ne!(key(r#"{"event":"stop","subject":""}"#), none);
    assert_ne!(key(r#"{"event":"stop","payload":{"a":null}}"#), none);
    assert_ne!(key(r#"{"event":"stop","payload":{"a":null}}"#), key(r#"{"event":"stop","payload":{}}"#));
    let one = key(r#"{"event":"stop","payload":{"b":{"c":2,"d":3},"a":1}}"#);
    assert_eq!(one, key("{\"payload\": {\"a\": 1, \"b\": {\"d\": 3, \"c\": 2}},\n \"event\": \"stop\"}"));
}

#[test]
fn matchers() {
    for Match { matcher, subject, matches } in vectors().matchers {
        let wanted = crate::dialect::matcher(Dialect::Kheish, &matcher).unwrap();
        let found = wanted.is_none_or(|wanted: Matcher| wanted.matches(subject.as_deref(), b"{}"));
        assert_eq!(found, matches, "{matcher} {subject:?}");
    }
}

#[test]
fn readings() {
    for written in vectors().readings {
        let name = &written.name;
        let raw = match (written.exit, written.status) {
            (Some(code), None) => Raw::Exit {
                code,
                stdout: Body::Whole(written.stdout.into_bytes()),
                stderr: written.stderr.into_bytes(),
            },
            (None, Some(status)) => Raw::Http {
                status,
                reason: None,
                retry_after: written.retry_after_s.map(Duration::from_secs),
                body: Body::Whole(written.body.into_bytes()),
                sent: 0,
            },
            other => panic!("{name}: {other:?}"),
        };
        match read(raw, Vec::new) {
            Ok(answer) => {
                let mut merge = Merge::new(Dialect::Kheish);
                merge.add(&HookId::new("h").unwrap(), *answer.unwrap(), 1, 1);
                let said: Value = serde_json::from_str(&outcome(&merge.done())).unwrap();
                for (field, value) in written.is.unwrap_or_else(|| panic!("{name}: {said}")) {
                    assert_eq!(said[&field], value, "{name}: {said}");
                }
            }
            Err(Outcome::Failed(Failure { again, status, error, .. })) => {
                let again = match again {
                    Again::Never(class) => format!("never {class:?}"),
                    Again::Later(None) => "later".to_owned(),
                    Again::Later(Some(hint)) => format!("later {hint:?}"),
                };
                let status = status.map(|status| format!(" [{status}]")).unwrap_or_default();
                let found = format!("{again}{status}: {error}");
                match (written.fails, written.fails_with) {
                    (Some(fails), None) => assert_eq!(found, fails, "{name}"),
                    (None, Some(fails)) => assert!(found.starts_with(&fails), "{name}: {found}"),
                    other => panic!("{name}: {found} {other:?}"),
                }
            }
            Err(other) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn too_large_an_answer_may_be_smaller_the_next_time() {
    let raw = Raw::Exit { code: 0, stdout: Body::TooLarge { beginning: vec![], bytes_max: 9 }, stderr: vec![] };
    assert_eq!(read(raw, Vec::new), Err(Outcome::later("the answer has more than 9 bytes")));
}

#[test]
fn what_is_no_text() {
    let body = || Body::Whole(b"{\"stop_reason\": \"\xff\"}".to_vec());
    let http = Raw::Http { status: 200, reason: None, retry_after: None, body: body(), sent: 0 };
    assert_eq!(read(http, Vec::new), Err(Outcome::later("expected a hook outcome in UTF-8")));
    let exit = Raw::Exit { code: 0, stdout: body(), stderr: vec![] };
    let said = Answer::of_object("{\"stop_reason\": \"\u{fffd}\"}").unwrap();
    assert_eq!(read(exit, Vec::new), Ok(Some(Box::new(said))));
}

fn event(body: &str, kind: Option<&str>) -> Event {
    let content_type = kind.is_none().then(|| "application/vnd.hookfleet.kheish+json".to_owned());
    let kind = kind.map(str::to_owned);
    let properties = Properties {
        message_id: Some("7".to_owned()),
        timestamp: Some(1_700_000_000),
        content_type,
        kind,
        ..Properties::default()
    };
    let reading = Reading { foreign: Foreign(crate::dialect::decode), ..Reading::default() };
    Event::decode(&Message { body: body.to_owned().into(), properties, ..Message::default() }, &reading).unwrap()
}

#[test]
fn a_message_is_an_event() {
    let sent = r#"{ "event": "pre_tool_use", "subject": "bash", "payload": {"n": 1.50} }"#;
    let event = event(sent, None);
    let found =
        (event.kind.as_str(), event.subject.as_deref(), event.id.as_str(), event.source.as_str(), event.dialect);
    assert_eq!(found, ("kheish.pre_tool_use", Some("bash"), "7", "/kheish/anonymous", Dialect::Kheish));
    let body = std::str::from_utf8(&event.body).unwrap();
    assert!(body.contains(sent), "its own bytes: {body}");
    assert!(body.contains(r#""time":"2023-11-14T22:13:20Z""#), "{body}");
    let again = Message { body: event.body.clone(), ..Message::default() };
    assert_eq!(Event::decode(&again, &Reading::default()).unwrap(), event, "as it comes on a lane");
}

#[test]
fn what_is_no_invocation_is_refused() {
    let check = |json: &str, expected: &str| {
        let error = decode(json.as_bytes()).unwrap_err();
        assert!(error.starts_with(expected), "{json}: {error}");
    };
    check(
        r#"{"event":"PreToolUse"}"#,
        "expected one of the events of Kheish, such as pre_tool_use, found \"PreToolUse\"",
    );
    check("{}", "expected an invocation of a hook of Kheish: missing field `event`");
    check(r#"{"event":"stop","subject":7}"#, "expected an invocation of a hook of Kheish: invalid type");
    check("[]", "expected an invocation of a hook of Kheish");
    check(r#"{"event":"stop","contract_version":2}"#, "expected `contract_version` 1, found 2");
    check(r#"{"event":"stop","contract_version":"1"}"#, "expected `contract_version` 1, found \"1\"");
}

#[test]
fn what_targets_get() {
    let own = event(
        r#"{"event":"notification","subject":"notify","session_id":"session-http","run_id":"run-http","payload":{"message": "hello"}}"#,
        None,
    );
    let invocation = Invocation::first(own.into(), HookId::new("h").unwrap(), "r1".into());
    let wire = r#"{"event":"notification","subject":"notify","session_id":"session-http","run_id":"run-http","payload":{"message":"hello"},"contract_version":1,"invocation_key":"hook-invocation-60827ba872893f28d73f6ca21478b624"}"#;
    let command = Hook { dialect: Dialect::Kheish, ..fixture::hook("h") };
    let exchange = encode(&command, &invocation).unwrap();
    assert_eq!(
        exchange,
        Exchange { body: wire.into(), ends_with_output: true, reads_body: true, ..Exchange::default() }
    );

    let url = "https://example.org/".parse().unwrap();
    let called = Some("second opinion".to_owned());
    let http = Hook { action: Action::Http(HttpAction::plain(url, &[])), name: called, ..command };
    let exchange = encode(&http, &invocation).unwrap();
    assert_eq!((exchange.body.as_ref(), &*exchange.default_headers), (wire.as_bytes(), &[JSON][..]));
    let [(name, key)] = &*exchange.headers else { panic!("{:?}", exchange.headers) };
    assert_eq!(name, "idempotency-key");
    assert!(key.starts_with("hook-execution-") && key.len() == "hook-execution-".len() + 32, "{key}");
}

#[test]
fn events_of_others_are_notifications() {
    let other = event(r#"{"n": 1.50}"#, Some("order.paid"));
    let called = HookInvocation::of_event(&other).unwrap();
    assert_eq!((called.event.snake, called.subject.as_deref()), ("notification", Some("order.paid")));
    assert!(called.payload.unwrap().contains(r#""data":{"n":1.50}"#));
    let native = event(r#"{"event":"stop"}"#, Some("kheish.stop"));
    assert_eq!(
        HookInvocation::of_event(&native).unwrap().wire(),
        HookInvocation::read(br#"{"event":"stop"}"#).unwrap().wire()
    );
    let wrong = event(r#"{"event":"stop"}"#, Some("kheish.setup"));
    assert!(HookInvocation::of_event(&wrong).unwrap_err().contains("about another event"));
}

#[test]
fn thirteen_events_ask_in_turn() {
    let of = |snake: &str| aggregation(&event(&format!(r#"{{"event":"{snake}"}}"#), None)).order;
    for event in EventName::ALL {
        let expected = match (event.snake, event.is_in_turn) {
            ("permission_request", _) => Order::InTurn(StopAt::Denial),
            (_, true) => Order::InTurn(StopAt::Block),
            (_, false) => Order::AtOnce,
        };
        assert_eq!(of(event.snake), expected, "{}", event.snake);
    }
}

#[test]
fn waits_within_a_run() {
    let policy = RetryPolicy { attempts: 5, ..retry() };
    let wait = |attempt, hint, roll| policy.delay_in_run(attempt, hint, roll).map(|wait| wait.as_millis());
    let waits: Vec<_> = (1..=5).map(|attempt| wait(attempt, None, 0.0)).collect();
    assert_eq!(waits, [Some(50), Some(100), Some(200), Some(200), None]);
    assert_eq!(wait(1, None, 0.96), Some(74));
    assert_eq!(wait(1, Some(Duration::from_secs(1)), 0.9), Some(1_000));
    assert_eq!(wait(1, Some(Duration::ZERO), 0.9), Some(0), "it takes the place of the wait");
    assert_eq!(wait(1, Some(Duration::from_mins(5)), 0.0), Some(30_000));
    assert_eq!(retry().delay_in_run(1, None, 0.0), None, "one try, unless the hook says more");
    assert_eq!(policy.delay(1, Duration::ZERO, None, 0.0), None, "it never waits in the broker");
    let action = Action::Command(CommandAction::plain(&["true"]));
    assert_eq!(
        (timeout(&action), timeout(&Action::Callback("c".to_owned()))),
        (Duration::from_secs(5), Duration::from_secs(15))
    );
}

#[test]
fn a_conflict_blocks() {
    let said: Value = serde_json::from_str(&outcome(&Decision::conflict())).unwrap();
    assert_eq!((&said["decision"], &said["continue_execution"]), (&json!("block"), &json!(false)));
}

proptest! {
    #[test]
    fn any_text_is_an_outcome_or_an_error(text in "[\\[\\]{}\"\\\\a: ,]{0,40}") {
        drop(outcome::read(&text));
        drop(HookInvocation::read(text.as_bytes()));
    }
}

#[test]
fn templates() {
    let check = |template: &str, invocation: &Value, expected: &str| {
        let invocation = invocation.to_string();
        let invocation = HookInvocation::read(invocation.as_bytes()).unwrap();
        assert_eq!(template::render(template, &invocation), expected);
    };
    let tool = json!({
        "event": "pre_tool_use", "subject": "bash", "session_id": "s", "agent_id": "a", "run_id": "r", "payload": { "n": 1 }
    });
    let all = "{{event}} {{subject}} {{session_id}} {{agent_id}} {{run_id}} {{payload}}";
    check(all, &tool, r#"PreToolUse bash s a r {"n":1}"#);
    check(all, &json!({ "event": "stop" }), "Stop     null");
    check("{{subject}}{{subject}} {{ subject }} {{x}} {event}", &tool, "bashbash {{ subject }} {{x}} {event}");
    // One after the other: what comes later is replaced in a value too, and what comes earlier is not.
    let odd = json!({ "event": "stop", "subject": "{{run_id}} {{event}}", "run_id": "r" });
    check("{{subject}}", &odd, "r {{event}}");
    let wire = HookInvocation::read(br#"{"event":"stop"}"#).unwrap().wire();
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&wire).unwrap()).unwrap();
    check("<{{invocation_json}}>", &json!({ "event": "stop" }), &format!("<{pretty}>"));
    assert!(pretty.contains("\n  \"contract_version\": 1"), "{pretty}");
}

#[test]
fn words_of_a_hook() {
    let hook = |on: &str, matcher: Option<&str>, name: Option<&str>| {
        let matcher = matcher.map(|matcher| Matcher::Wildcards(matcher.to_owned()));
        Hook { on: vec![Pattern::new(on).unwrap()], matcher, name: name.map(str::to_owned), ..fixture::hook("h") }
    };
    let guard = hook("kheish.pre_tool_use", Some("bash*"), Some("bash guard"));
    assert_eq!(words(&guard), format!("PreToolUse \"bash guard\", matcher bash*, {}", guard.action.kind()));
    let any = hook("order.paid", None, None);
    assert_eq!(words(&any), format!("order.paid \"h\", {}", any.action.kind()));
}
