use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::dialect;
use crate::domain::dialect::{Dialect, HEADER};
use crate::domain::event::{Event, Foreign, Reading};
use crate::domain::hook::{CommandAction, HttpAction, fixture};
use crate::domain::id::HookId;

const TASK_EXIT: &str = r#"{"HookType":"onExit","Scope":"task","WorkflowRunID":"wf-1","WorkflowName":"","TaskRunID":"tr-1","TaskName":"my-task","Template":"hook-task","Context":{"phase":"Succeeded","taskName":"my-task","taskRunID":"tr-1","workflowRunID":"wf-1"}}"#;
const WORKFLOW_START: &str = r#"{"HookType":"onStart","Scope":"workflow","WorkflowRunID":"wf/1","WorkflowName":"nightly","TaskRunID":"","TaskName":"","Template":"notify","Context":null}"#;

fn check(json: &str, kind: &str, subject: Option<&str>, id: Option<&str>, attributes: &[(&str, &str)]) {
    let found = decode(json.as_bytes()).unwrap();
    assert_eq!((found.kind.as_str(), found.subject.as_deref(), found.id.as_deref()), (kind, subject, id), "{json}");
    let attributes_found: Vec<_> = found.attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(attributes_found, attributes, "{json}");
}

#[test]
fn events_of_both_namings() {
    let of_task = [("hooktemplate", "hook-task"), ("taskrunid", "tr-1"), ("workflowrunid", "wf-1")];
    check(TASK_EXIT, "aether.task.onExit", Some("my-task"), Some("wf-1/tr-1/onExit"), &of_task);
    let of_workflow = [("hooktemplate", "notify"), ("workflowrunid", "wf/1")];
    check(WORKFLOW_START, "aether.workflow.onStart", Some("nightly"), None, &of_workflow);
    let tagged = r#"{"hookType":"onError","scope":"workflow","workflowRunID":"a/b%","context":{}}"#;
    check(tagged, "aether.workflow.onError", None, Some("a%2Fb%25//onError"), &[("workflowrunid", "a/b%")]);
}

/// A run fires these once. The others come again with equal content, so that nothing in them tells a repeat.
#[test]
fn which_have_an_id_of_their_own() {
    for (name, has_one) in [
        ("onStart", false),
        ("onSuccess", true),
        ("onFailure", true),
        ("onError", true),
        ("onSuspend", false),
        ("onResume", false),
        ("onCancel", true),
        ("onExit", true),
    ] {
        let json = json!({ "HookType": name, "Scope": "task", "WorkflowRunID": "w", "TaskRunID": "t" }).to_string();
        assert_eq!(decode(json.as_bytes()).unwrap().id, has_one.then(|| format!("w/t/{name}")), "{name}");
    }
}

#[test]
fn what_is_no_event() {
    let check = |json: Value, expected: &str| {
        let found = decode(json.to_string().as_bytes()).unwrap_err();
        assert!(found.starts_with(expected), "{json}: {found}");
    };
    check(json!([]), "expected a hook event of Aether: an object, found a list");
    check(json!({ "HookType": 7 }), "expected a hook event of Aether: invalid type");
    let types = "expected `HookType` of a hook event of Aether (onStart, onSuccess, onFailure, onError, onSuspend, \
                 onResume, onCancel, onExit), found ";
    check(json!({}), &format!("{types}none"));
    check(json!({ "HookType": "onstart", "Scope": "task" }), &format!("{types}\"onstart\""));
    check(json!({ "HookType": "onExit" }), "expected `Scope` of a hook event of Aether (workflow, task), found none");
    let of_task = json!({ "HookType": "onExit", "Scope": "task", "WorkflowRunID": "w", "TaskRunID": "" });
    check(of_task, "expected `TaskRunID` in an event of a task, found none");
    check(json!({ "HookType": "onExit", "Scope": "task" }), "expected `WorkflowRunID`, found none");
    check(json!({ "HookType": "onExit", "hookType": "onExit" }), "expected a hook event of Aether: duplicate field");
}

fn event(body: &str, id: Option<&str>) -> Result<Event, String> {
    let reading = Reading { foreign: Foreign(dialect::decode), ..Reading::default() };
    let properties = Properties { message_id: id.map(str::to_owned), ..Properties::default() };
    let message = Message { body: body.to_owned().into(), properties, ..Message::default() };
    Event::decode(&message.with(HEADER, "aether"), &reading).map_err(|malformed| malformed.error)
}

fn invocation(body: &str) -> Invocation {
    Invocation::first(Arc::new(event(body, Some("m-1")).unwrap()), HookId::new("h").unwrap(), "r1".into())
}

#[test]
fn the_message_names_the_event_before_it_does_itself() {
    assert_eq!(event(TASK_EXIT, Some("m-1")).unwrap().id, "m-1");
    assert_eq!(event(TASK_EXIT, None).unwrap().id, "wf-1/tr-1/onExit");
    assert_eq!(event(WORKFLOW_START, None).unwrap_err(), "expected the message property `message_id`, found none");
    let whole: Value = serde_json::from_slice(&event(TASK_EXIT, None).unwrap().body).unwrap();
    assert_eq!((&whole["hooktemplate"], &whole["hookdialect"]), (&json!("hook-task"), &json!("aether")));
}

#[test]
fn targets_get_the_event_as_it_came() {
    let hook = |action| Hook { action, dialect: Dialect::Aether, ..fixture::hook("h") };
    let http = hook(Action::Http(HttpAction::plain("https://example.org/".parse().unwrap(), &[])));
    let spaced = TASK_EXIT.replace(',', ", ");
    let of_aether = invocation(&spaced);
    let exchange = encode(&http, &of_aether, "k-1", None).unwrap();
    assert_eq!((exchange.body.as_ref(), &*exchange.default_headers), (spaced.as_bytes(), &[JSON][..]));
    assert!(exchange.headers.iter().any(|(name, value)| name == "idempotency-key" && value == "k-1"));
    let command = hook(Action::Command(CommandAction::plain(&["x"])));
    let exchange = encode(&command, &of_aether, "k-1", None).unwrap();
    assert_eq!(exchange.body.as_ref(), spaced.as_bytes());
    assert!(exchange.env.iter().any(|(name, value)| *name == "HOOKFLEET_EVENT_TYPE" && value == "aether.task.onExit"));

    let own = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b"}"#;
    let own = Event::decode(&Message { body: own.into(), ..Message::default() }, &Reading::default()).unwrap();
    let own = Invocation::first(Arc::new(own), HookId::new("h").unwrap(), "r1".into());
    assert_eq!(encode(&http, &own, "k-1", None).unwrap().body, own.event.body, "another system's event as a whole");
}

#[test]
fn a_failure_is_what_the_error_sink_would_get() {
    let hook = Hook { dialect: Dialect::Aether, ..fixture::hook("h") };
    let failed = invocation(TASK_EXIT);
    let message = warning(&hook, &failed, "503 Service Unavailable").unwrap();
    let event = Event::decode(&message, &Reading::default()).unwrap();
    assert_eq!((event.kind.as_str(), event.source.as_str()), (WARNING, "/hookfleet/hooks/h"));
    assert_eq!((event.id, event.hops), (format!("{}.0", failed.idempotency_key()), 1));
    let data: Value = serde_json::from_str(data(&event.body).unwrap().get()).unwrap();
    let expected = json!({
        "workflowRunID": "wf-1",
        "taskRunID": "tr-1",
        "operation": "hook.onExit",
        "error": "503 Service Unavailable",
    });
    assert_eq!(data, expected);

    // A hook that hears of failures, and fails, is not heard of.
    let event = Event::decode(&message, &Reading::default()).unwrap();
    let of_warning = Invocation::first(Arc::new(event), HookId::new("h").unwrap(), "r1".into());
    assert_eq!(warning(&hook, &of_warning, "x"), None);
}

#[test]
fn one_try_unless_a_hook_says_more() {
    assert_eq!(dialect::retry(Dialect::Aether, &[]).map(|retry| retry.attempts), Some(1));
    assert_eq!(words(&Hook { name: Some("notify".to_owned()), ..fixture::hook("h") }), "a.b \"notify\", command");
}
