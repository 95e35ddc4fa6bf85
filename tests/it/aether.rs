//! Hook events of Aether: published as its notifier does, over HTTP and AMQP, and what the hooks of a workflow's document do.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, hook, site, until_letters};
use crate::servers::{client, shared};
use crate::sink::{Answer, Call, Sink};

const WORKFLOW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/imports/aether/workflow.json");
const MEDIA_TYPE: &str = "application/vnd.hookfleet.aether+json";
const PATIENCE: Duration = Duration::from_secs(30);

/// An event as Go writes it.
fn event(hook_type: &str, scope: &str, name: &str, template: &str) -> Value {
    let [workflow, task] = if scope == "task" { ["", name] } else { [name, ""] };
    let task_run = if task.is_empty() { "" } else { "tr-1" };
    json!({
        "HookType": hook_type,
        "Scope": scope,
        "WorkflowRunID": "wf-1",
        "WorkflowName": workflow,
        "TaskRunID": task_run,
        "TaskName": task,
        "Template": template,
        "Context": { "workflowRunID": "wf-1" },
    })
}

/// Hooks of the document, whose templates post to `notify` and `alarm` of a sink; and one of ours that hears of failures.
fn imported(site: &Site, sink: &Sink) -> String {
    let runs = site.folder.path().join("runs.yaml");
    let run = |template: &str| format!("{template}: {{ http: {{ url: {:?} }} }}\n", sink.url(template));
    std::fs::write(&runs, run("notify") + &run("alarm")).unwrap();
    let runs = runs.to_str().unwrap();
    let hooks = site.ok(&["hooks", "import", "--from", "aether", WORKFLOW, "--runs", runs]);
    format!("{}\n{}\n", hooks.trim_end(), hook(sink, "warned", "aether.errsink.warning", ""))
}

async fn staged(place: Place, sink: &Sink) -> (Site, Worker) {
    sink.behave(|hook, _| Answer::status(if hook == "alarm" { 503 } else { 200 }));
    let site = site(place).await.with_gateway();
    let hooks = imported(&site, sink);
    std::fs::write(site.hooks_file(), hooks).unwrap();
    let worker = site.worker().await;
    (site, worker)
}

/// What the route answers: the status, the event's id, and the body.
async fn post(worker: &Worker, id: Option<&str>, event: &Value) -> (u16, String, Value) {
    let mut request = client().post(worker.url("/v1/hooks/aether")).body(event.to_string());
    if let Some(id) = id {
        request = request.header("hook-event-id", id);
    }
    let answer = request.send().await.unwrap();
    let id = answer.headers().get("hook-event-id").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
    (answer.status().as_u16(), id, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

fn of<'c>(calls: &'c [Call], hook: &str) -> Vec<&'c Call> {
    calls.iter().filter(|call| call.hook == hook).collect()
}

async fn hooks_run_by_their_documents(place: Place) {
    let sink = Sink::start().await;
    let (site, mut worker) = staged(place, &sink).await;
    let start = event("onStart", "workflow", "nightly-report", "notify");
    for _ in 0..2 {
        assert_eq!(post(&worker, Some("start-1"), &start).await.1, "start-1", "sent again: one event");
    }
    for _ in 0..2 {
        let (status, id, answer) = post(&worker, None, &start).await;
        assert_eq!((status, id.len(), &answer["id"]), (202, 32, &json!(id)), "a task may start more than once");
    }
    let exit = event("onExit", "task", "approve", "notify");
    for _ in 0..2 {
        assert_eq!(post(&worker, None, &exit).await.1, "wf-1/tr-1/onExit", "a run ends once");
    }
    // The same template, called in two places: each place has its own hooks.
    post(&worker, None, &event("onExit", "task", "fetch-again", "alarm")).await;
    post(&worker, None, &event("onExit", "task", "fetch", "notify")).await;
    // Another workflow, and another template than the document names.
    post(&worker, None, &event("onSuccess", "workflow", "weekly-report", "notify")).await;
    post(&worker, None, &event("onSuccess", "workflow", "nightly-report", "alarm")).await;

    let is_all = |calls: &[Call]| of(calls, "notify").len() >= 4 && !of(calls, "warned").is_empty();
    sink.until("all", PATIENCE, is_all).await;
    let letters = until_letters(&site, 1, "open").await;
    let letter = &letters[0]["letter"];
    let hook = "aether.nightly-report.fetch-again.onExit";
    assert_eq!((&letter["hook"], &letter["class"]), (&json!(hook), &json!("exhausted")), "{place:?}: one try");
    assert_eq!(worker.stop().await, Some(0));

    let calls = sink.calls();
    let bodies: Vec<Value> =
        of(&calls, "notify").iter().map(|call| serde_json::from_slice(&call.body).unwrap()).collect();
    assert_eq!(bodies.iter().filter(|body| **body == start).count(), 3, "{place:?}: {bodies:#?}");
    assert_eq!(bodies.iter().filter(|body| **body == exit).count(), 1, "{place:?}: {bodies:#?}");
    assert_eq!((bodies.len(), of(&calls, "alarm").len(), of(&calls, "warned").len()), (4, 1, 1), "{place:?}");
    let warning: Value = serde_json::from_slice(&of(&calls, "warned")[0].body).unwrap();
    let data = &warning["event"]["data"];
    let expected = json!({ "workflowRunID": "wf-1", "taskRunID": "tr-1", "operation": "hook.onExit" });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&data[name], value, "{warning:#}");
    }
    assert!(data["error"].as_str().unwrap().starts_with("503 Service Unavailable"), "{warning:#}");
}

#[tokio::test]
async fn hooks_run_by_their_documents_in_a_file() {
    hooks_run_by_their_documents(Place::File).await;
}

#[tokio::test]
async fn hooks_run_by_their_documents_on_servers() {
    hooks_run_by_their_documents(Place::Servers).await;
}

/// Events are for those who publish; no gate is asked.
#[tokio::test]
async fn events_need_the_role_that_publishes() {
    let tokens = "publish:publish-publish-publish,decide:decide-decide-decide";
    let site = site(Place::File).await.with_gateway().set("HOOKFLEET_HTTP_TOKENS", tokens);
    let mut worker = site.hooks("").worker().await;
    let exit = event("onExit", "task", "t", "x");
    for (token, status) in [("publish-publish-publish", 202), ("decide-decide-decide", 403), ("x", 401)] {
        let request = client().post(worker.url("/v1/hooks/aether")).bearer_auth(token).body(exit.to_string());
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{token}");
    }
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn what_is_no_event_is_refused() {
    let site = site(Place::File).await.with_gateway();
    let mut worker = site.hooks("").worker().await;
    for (body, why) in [
        (json!({ "HookType": "onend" }), "expected `HookType` of a hook event of Aether (onStart, "),
        (json!({ "HookType": "onExit", "Scope": "task", "WorkflowRunID": "w" }), "expected `TaskRunID`"),
        (json!(7), "expected a hook event of Aether"),
    ] {
        let (status, _, problem) = post(&worker, None, &body).await;
        assert!(status == 422 && problem["detail"].as_str().unwrap().contains(why), "{problem:#}");
    }
    assert_eq!(worker.stop().await, Some(0));
}

async fn channel() -> Channel {
    let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

async fn publish(channel: &Channel, exchange: &str, properties: BasicProperties, event: &Value) {
    let (exchange, body) = (exchange.into(), event.to_string());
    channel
        .basic_publish(exchange, "x".into(), BasicPublishOptions::default(), body.as_bytes(), properties)
        .await
        .unwrap();
}

#[tokio::test]
async fn over_amqp() {
    let sink = Sink::start().await;
    let (site, mut worker) = staged(Place::Servers, &sink).await;
    let channel = channel().await;
    let events = format!("{}.events", site.namespace);
    let properties = || BasicProperties::default().with_content_type(MEDIA_TYPE.into());
    let start = event("onStart", "workflow", "nightly-report", "notify");
    for id in ["1", "1", "2"] {
        publish(&channel, &events, properties().with_message_id(id.into()), &start).await;
    }
    // Nothing in it tells a repeat from the next start, and a worker makes no id up.
    publish(&channel, &events, properties(), &start).await;
    for _ in 0..2 {
        publish(&channel, &events, properties(), &event("onExit", "task", "approve", "notify")).await;
    }
    sink.until("all", PATIENCE, |calls| of(calls, "notify").len() >= 3).await;
    let letters = until_letters(&site, 1, "open").await;
    assert_eq!(letters[0]["letter"]["class"], "unidentified");
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(of(&sink.calls(), "notify").len(), 3);
}

/// A template for which nothing is wished goes to Aether's own workers, as `TaskAssignment` of its package `wire`.
#[tokio::test]
async fn templates_become_assignments() {
    let site = site(Place::Servers).await.with_gateway();
    let (exchange, queue) = (format!("tasks-{}", site.namespace), format!("shell-{}", site.namespace));
    let hooks = site.ok(&["hooks", "import", "--from", "aether", WORKFLOW]);
    std::fs::write(site.hooks_file(), hooks.replace("aether.tasks", &exchange)).unwrap();
    let channel = channel().await;
    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, options, FieldTable::default())
        .await
        .unwrap();
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
    let [queue, exchange] = [&*queue, &*exchange];
    channel
        .queue_bind(queue.into(), exchange.into(), "shell".into(), QueueBindOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut assigned = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();

    let mut worker = site.worker().await;
    post(&worker, None, &event("onExit", "task", "approve", "notify")).await;
    let delivery = tokio::time::timeout(PATIENCE, assigned.next()).await.unwrap().unwrap().unwrap();
    let assignment: Value = serde_json::from_slice(&delivery.data).unwrap();
    let id = delivery.properties.message_id().clone().unwrap().to_string();
    let expected = json!({
        "taskRunID": id,
        "workflowRunID": "wf-1",
        "taskName": "notify",
        "templateName": "notify",
        "executorType": "shell",
    });
    assert_eq!(assignment, expected);
    assert_eq!(worker.stop().await, Some(0));
}
