//! Hooks of Kheish, asked in its own words: over HTTP and AMQP, and answered in them.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::pipeline::{Place, hook, site, until_letters};
use crate::servers::{client, shared};
use crate::sink::{Answer, Call, Sink};
use crate::tiers::sizes;

/// Blocks what removes; else it has something to say.
const GUARD: &str = r#"case $(cat) in
*rm*) echo no rm here >&2; exit 2;;
*) echo '{"additional_contexts": ["guarded"], "permission": "allow"}';;
esac"#;

/// A hook of Kheish in YAML: its id, its name there, the event, and what it runs.
pub(crate) fn kheish(id: &str, name: &str, event: &str, run: &str, more: &str) -> String {
    format!("  - {{ id: {id}, name: {name:?}, dialect: kheish, on: kheish.{event}, mode: gate, run: {run}{more} }}")
}

pub(crate) fn shell(line: &str) -> String {
    format!("{{ command: {{ argv: [/bin/bash, -c, {}] }} }}", json!(line))
}

/// What `POST /v1/hooks/kheish` answers: its status, the id of the event, and its body.
pub(crate) async fn post(worker: &Worker, path: &str, key: Option<&str>, invocation: &Value) -> (u16, String, Value) {
    let mut request = client().post(worker.url(&format!("/v1/hooks/{path}"))).body(invocation.to_string());
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.unwrap();
    let id = answer.headers().get("hook-event-id").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
    (answer.status().as_u16(), id, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

pub(crate) async fn outcome(worker: &Worker, invocation: &Value) -> Value {
    let (status, id, outcome) = post(worker, "kheish", None, invocation).await;
    assert_eq!((status, id.len()), (200, 32), "{outcome:#}");
    outcome
}

fn tool(name: &str, command: &str) -> Value {
    json!({ "event": "pre_tool_use", "subject": name, "session_id": "s-1", "payload": { "command": command } })
}

/// Hooks of one event that are asked in turn and at once, fail open and closed, are tried again, and match subjects.
fn hooks(sink: &Sink) -> String {
    let target = format!("{{ http: {{ url: {:?} }} }}", sink.url("target"));
    [
        kheish("guard", "bash guard", "pre_tool_use", &shell(GUARD), ", matcher: 'bash*'"),
        kheish("second", "second opinion", "pre_tool_use", &target, ", retry: { attempts: 3 }"),
        kheish("says", "says", "notification", &shell("echo started"), ""),
        kheish("late", "late", "notification", &shell("sleep 0.5; echo '{\"stop_reason\": \"late\"}'"), ""),
        kheish("soon", "soon", "notification", &shell("echo '{\"stop_reason\": \"soon\"}'"), ""),
        kheish("strict", "strict", "stop", &shell("exit 3"), ", on_failure: closed, retry: { attempts: 2 }"),
        hook(sink, "seen", "kheish.pre_tool_use", ""),
        hook(sink, "ours", "kheish.setup", ", mode: gate"),
    ]
    .join("\n")
}

fn told(outcome: &Value, fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|field| outcome[*field].clone()).collect()
}

async fn hooks_run_as_they_are(place: Place) {
    let sink = Sink::start().await;
    sink.behave(|hook, before| match hook {
        "target" if before < 1 => Answer::status(503),
        "target" => Answer { body: Some(r#"{"permission": "ask"}"#.to_owned()), ..Answer::status(200) },
        "ours" => {
            Answer { body: Some(r#"{"decision": "block", "stop_reason": "ours"}"#.to_owned()), ..Answer::status(200) }
        }
        _ => Answer::status(200),
    });
    let site = site(place).await.with_gateway().hooks(&hooks(&sink)).set("HOOKFLEET_COMMANDS_ALLOW", "/bin/bash");
    let mut worker = site.worker().await;

    let blocked = outcome(&worker, &tool("bash", "rm -r x")).await;
    let fields = ["decision", "continue_execution", "stop_reason", "matched_hooks"];
    let expected =
        [json!("block"), json!(false), json!("hook command blocked execution: no rm here"), json!(["bash guard"])];
    assert_eq!(told(&blocked, &fields), expected, "{place:?}");
    assert_eq!(sink.calls().iter().filter(|call| call.hook == "target").count(), 0, "a block ends the questions");

    let asked = outcome(&worker, &tool("bash", "ls")).await;
    let fields = ["permission", "additional_contexts", "matched_hooks"];
    let expected = [json!("ask"), json!(["guarded"]), json!(["bash guard", "second opinion"])];
    assert_eq!(told(&asked, &fields), expected, "{place:?}: {asked:#}");
    let calls: Vec<_> = sink.calls().into_iter().filter(|call| call.hook == "target").collect();
    assert_eq!(calls.len(), 2, "tried again within the run");
    assert_eq!(calls[0].key, calls[1].key);
    assert!(calls[0].key.starts_with("hook-execution-"), "{}", calls[0].key);
    let body: Value = serde_json::from_slice(&calls[0].body).unwrap();
    assert_eq!(
        told(&body, &["event", "subject", "contract_version"]),
        [json!("pre_tool_use"), json!("bash"), json!(1)]
    );

    merged_and_joined(&worker, place).await;
    sink.until("those who observe", Duration::from_secs(30), |calls| {
        calls.iter().filter(|call| call.hook == "seen").count() == 3
    })
    .await;
    let letters = until_letters(&site, 2, "open").await;
    let mut classes: Vec<_> = letters.iter().map(|it| told(&it["letter"], &["hook", "class"])).collect();
    classes.sort_by_key(|of| of[0].to_string());
    assert_eq!(classes, [[json!("says"), json!("rejected")], [json!("strict"), json!("exhausted")]], "{place:?}");
    refused(&worker).await;
    assert_eq!(worker.stop().await, Some(0));
}

/// Events that no hook blocks. The outcome names the hooks that match, in the order of the catalog, failed ones and ours too.
async fn merged_and_joined(worker: &Worker, place: Place) {
    let unmatched = outcome(worker, &tool("write_file", "x")).await;
    assert_eq!(unmatched["matched_hooks"], json!(["second opinion"]), "{place:?}");

    let merged = outcome(worker, &json!({ "event": "notification", "subject": "notify" })).await;
    let expected = [json!("late"), json!(["late", "soon"]), json!(true)];
    assert_eq!(
        told(&merged, &["stop_reason", "matched_hooks", "continue_execution"]),
        expected,
        "declared first, not first to answer"
    );

    let failed = outcome(worker, &json!({ "event": "stop" })).await;
    let expected = [
        json!("block"),
        json!("hook `strict` failed after 2 attempt(s): hook command exited with status 3"),
        json!(["strict"]),
    ];
    assert_eq!(told(&failed, &["decision", "stop_reason", "matched_hooks"]), expected, "{place:?}");

    let joined = outcome(worker, &json!({ "event": "setup", "subject": "init" })).await;
    assert_eq!(
        told(&joined, &["decision", "stop_reason", "matched_hooks"]),
        [json!("block"), json!("ours"), json!(["ours"])]
    );
}

/// What is no event of Kheish.
async fn refused(worker: &Worker) {
    for (path, invocation, status, why) in [
        ("kheish", json!({ "event": "PreToolUse" }), 422, "expected one of the events of Kheish"),
        ("kheish", json!([]), 422, "expected an invocation of a hook of Kheish"),
        (
            "khesh",
            json!({ "event": "stop" }),
            404,
            "expected a dialect (native, kheish, aether, bernstein), found \"khesh\"",
        ),
        ("native", json!({ "event": "stop" }), 404, "/v1/gates"),
        ("kheish?deadline=soon", json!({ "event": "stop" }), 400, "deadline: expected"),
    ] {
        let (found, _, problem) = post(worker, path, None, &invocation).await;
        assert!(found == status && problem["detail"].as_str().unwrap().contains(why), "{path}: {problem:#}");
    }
}

#[tokio::test]
async fn hooks_run_as_they_are_in_a_file() {
    hooks_run_as_they_are(Place::File).await;
}

#[tokio::test]
async fn hooks_run_as_they_are_on_servers() {
    hooks_run_as_they_are(Place::Servers).await;
}

/// Equal content is many events, unless one is sent again that was not answered. Half of them come at once; half have one key,
/// as their http hooks send it, and come one after the other.
#[tokio::test]
async fn equal_events_are_many_events() {
    let sink = Sink::start().await;
    let site = site(Place::File).await.with_gateway().hooks(&hook(&sink, "seen", "kheish.*", ""));
    let mut worker = site.worker().await;
    let event = json!({ "event": "notification", "subject": "notify" });
    let half = sizes::EQUAL_EVENTS.count() / 2;
    let in_turn = async {
        let mut ids = Vec::new();
        for _ in 0..half {
            let (status, id, _) = post(&worker, "kheish", Some("hook-execution-1"), &event).await;
            assert_eq!(status, 200);
            ids.push(id);
        }
        ids
    };
    let at_once = stream::iter(0..half).map(|_| post(&worker, "kheish", None, &event)).buffer_unordered(64);
    let at_once = at_once.map(|(status, id, answer)| if status == 200 { id } else { panic!("{status}: {answer:#}") });
    let (one, other): (Vec<String>, Vec<String>) = tokio::join!(in_turn, at_once.collect());
    let ids: HashSet<&String> = one.iter().chain(&other).collect();
    assert_eq!(ids.len(), 2 * half);
    let seen = |calls: &[Call]| calls.iter().map(|call| call.event.clone()).collect::<HashSet<_>>().len();
    sink.until("all", Duration::from_mins(2), |calls| seen(calls) == 2 * half).await;
    let url = worker.url("/v1/hooks/kheish");
    let own = || client().post(&url).header("hook-event-id", "mine").body(event.to_string()).send();
    for _ in 0..2 {
        assert_eq!(own().await.unwrap().headers()["hook-event-id"], "mine");
    }
    sink.until("one more", Duration::from_secs(30), |calls| calls.len() > 2 * half).await;
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 2 * half + 1);
}

/// Kheish sends no headers, so that the token stands in the path.
#[tokio::test]
async fn a_token_in_the_path() {
    let tokens = "decide:decide-decide-decide,read:read-read-read-read";
    let site = site(Place::File).await.with_gateway().set("HOOKFLEET_HTTP_TOKENS", tokens);
    let mut worker = site.hooks("").worker().await;
    for (token, status) in [("decide-decide-decide", 200), ("read-read-read-read", 403), ("decide-decide-decidf", 401)]
    {
        let (found, _, answer) = post(&worker, &format!("kheish/{token}"), None, &json!({ "event": "stop" })).await;
        assert_eq!(found, status, "{answer:#}");
        assert!(!answer.to_string().contains(token), "{answer:#}");
    }
    assert_eq!(post(&worker, "kheish", None, &json!({ "event": "stop" })).await.0, 401);
    assert_eq!(worker.stop().await, Some(0));
    assert!(!worker.log().contains("decide-decide"), "{}", worker.log());
}

async fn ask(site: &Site, properties: BasicProperties, body: &[u8]) -> (String, Bytes) {
    let connection = Connection::connect(&shared().await.0.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (direct, options) =
        ("amq.rabbitmq.reply-to", BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() });
    let mut answers = channel.basic_consume(direct.into(), "".into(), options, FieldTable::default()).await.unwrap();
    let properties = properties.with_reply_to(direct.into()).with_expiration("20000".into());
    let exchange = format!("{}.gates", site.namespace);
    channel.basic_publish(exchange.into(), "x".into(), BasicPublishOptions::default(), body, properties).await.unwrap();
    let answer = answers.next().await.unwrap().unwrap();
    let content_type = answer.properties.content_type().as_ref().map(ToString::to_string).unwrap_or_default();
    (content_type, answer.data.into())
}

#[tokio::test]
async fn over_amqp() {
    let sink = Sink::start().await;
    let site = site(Place::Servers).await.hooks(&hooks(&sink)).set("HOOKFLEET_COMMANDS_ALLOW", "/bin/bash");
    let mut worker = site.worker().await;
    let named = |id: &str| BasicProperties::default().with_message_id(id.into());
    let mut header = FieldTable::default();
    header.insert("hook-dialect".into(), AMQPValue::LongString("kheish".into()));
    let media_type = "application/vnd.hookfleet.kheish+json";
    let body = tool("bash", "rm -r x").to_string();
    for properties in [named("1").with_headers(header.clone()), named("2").with_content_type(media_type.into())] {
        let (content_type, answer) = ask(&site, properties, body.as_bytes()).await;
        let outcome: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((content_type.as_str(), &outcome["decision"]), ("application/json", &json!("block")), "{outcome:#}");
    }
    // A worker makes no id up.
    let (content_type, answer) = ask(&site, BasicProperties::default().with_headers(header), body.as_bytes()).await;
    let problem: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(content_type, "application/problem+json");
    assert!(problem["detail"].as_str().unwrap().contains("`message_id`"), "{problem:#}");
    let letters = until_letters(&site, 1, "open").await;
    assert_eq!(letters[0]["letter"]["class"], "unidentified");
    assert_eq!(worker.stop().await, Some(0));
}

/// `hookfleet bridge kheish` as a command hook: what is on stdin, its exit code, and what it writes.
fn bridge(site: &Site, arguments: &[&str], invocation: &str) -> (Option<i32>, String, String) {
    let mut command = site.command();
    command.args(["bridge", "kheish"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(invocation.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // A server under load may let it wait, which it says.
    let complaints = text(&output.stderr).lines().filter(|line| !line.starts_with("waiting for an answer")).collect();
    (output.status.code(), text(&output.stdout), complaints)
}

async fn a_command_hook_of_theirs(place: Place) {
    let sink = Sink::start().await;
    let site = site(place).await.with_gateway().hooks(&hooks(&sink)).set("HOOKFLEET_COMMANDS_ALLOW", "/bin/bash");
    let mut worker = site.worker().await;
    let invocation = tool("bash", "rm -r x").to_string();
    let (code, said, complained) = bridge(&site, &["--gate", "--deadline", "30s"], &invocation);
    let outcome: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &outcome["decision"], &*complained), (Some(0), &json!("block"), ""), "{place:?}: {said}");
    assert_eq!(
        bridge(&site, &["--deadline", "30s"], &invocation),
        (Some(0), String::new(), String::new()),
        "{place:?}"
    );
    sink.until("those who observe", Duration::from_secs(30), |calls| {
        calls.iter().filter(|call| call.hook == "seen").count() == 2
    })
    .await;
    for (arguments, code) in [(&["--gate"][..], 0), (&["--gate", "--closed"], 2)] {
        let (ended, said, complained) = bridge(&site, arguments, r#"{"event": "PreToolUse"}"#);
        assert_eq!((ended, &*said), (Some(code), ""), "{place:?}: {complained}");
        assert!(complained.starts_with("hookfleet: expected one of the events of Kheish"), "{complained}");
    }
    assert_eq!(worker.stop().await, Some(0));
}

#[tokio::test]
async fn a_command_hook_of_theirs_in_a_file() {
    a_command_hook_of_theirs(Place::File).await;
}

#[tokio::test]
async fn a_command_hook_of_theirs_on_servers() {
    a_command_hook_of_theirs(Place::Servers).await;
}

/// The bridge asks a server with a token from a file. With `--closed` it blocks where no server answers.
#[tokio::test]
async fn a_command_hook_of_theirs_over_http() {
    let site = site(Place::File).await.with_gateway();
    let site = site.set("HOOKFLEET_HTTP_TOKENS", "decide:decide-decide-decide,publish:publish-publish-1").hooks("");
    let mut worker = site.worker().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, token: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (decide, publish) = (file("decide", "decide-decide-decide"), file("publish", "publish-publish-1"));
    let url = worker.url("/");
    let ask =
        |more: &[&str]| bridge(&site, &[&["--url", &url, "--deadline", "30s"], more].concat(), r#"{"event": "stop"}"#);
    let (code, said, complained) = ask(&["--gate", "--token-file", &decide]);
    assert!(code == Some(0) && said.contains("\"continue_execution\":true"), "{said} {complained}");
    assert_eq!(ask(&["--token-file", &publish]), (Some(0), String::new(), String::new()));
    let (code, said, complained) = ask(&["--gate", "--closed", "--token-file", &publish]);
    assert_eq!((code, &*said), (Some(2), ""));
    assert!(complained.contains("403") && complained.contains("takes decide"), "{complained}");
    assert_eq!(worker.stop().await, Some(0));
    let (code, said, complained) = ask(&["--gate", "--closed", "--token-file", &decide]);
    assert_eq!((code, &*said), (Some(2), ""));
    assert!(complained.contains("does not answer"), "{complained}");
    let (code, printed, _) = bridge(&site, &["--gate", "--closed", "--print-settings"], "");
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &printed["failure_policy"]["mode"]), (Some(0), &json!("closed")));
    assert_eq!(printed["executor"]["command"], "hookfleet bridge kheish --gate --closed --deadline 4000ms");
}

/// A stdin that is never closed costs the deadline, and one without end a sentence.
#[test]
fn a_bridge_does_not_wait_for_its_stdin() {
    let site = Site::embedded().hooks("");
    let mut command = site.command();
    command.args(["bridge", "kheish", "--closed", "--deadline", "300ms"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complained}");
    assert!(complained.contains("no answer within 300ms"), "{complained}");

    let site = site.set("HOOKFLEET_EVENTS_BODY_BYTES_MAX", "1024");
    let long = json!({ "event": "stop", "payload": "x".repeat(1024) }).to_string();
    let (code, said, complained) = bridge(&site, &["--deadline", "30s"], &long);
    assert_eq!((code, &*said), (Some(0), ""));
    assert!(complained.contains("at most 1024 bytes on stdin"), "{complained}");
}

/// A `hooks.json` of Kheish with a command hook of `pre_tool_use`.
fn settings(command: &str) -> String {
    let executor = json!({ "type": "command", "command": command, "shell": "/bin/sh" });
    let hook = json!({ "name": "guard", "matcher": "bash*", "executor": executor });
    json!({ "schema_version": 1, "hooks": { "pre_tool_use": [hook] } }).to_string()
}

/// `hooks.json` itself is the catalog: it is read by a worker, checked by a command, and an edit of it counts.
#[tokio::test]
async fn settings_are_followed_as_they_are() {
    let site = Site::embedded();
    let file = site.folder.path().join("hooks.json");
    std::fs::write(&file, settings(r#"echo '{"decision":"block","stop_reason":"first"}'"#)).unwrap();
    let site = site.set("HOOKFLEET_HOOKS", file.to_str().unwrap()).set("HOOKFLEET_CATALOG_DIALECT", "kheish");
    let site = site.set("HOOKFLEET_COMMANDS_ALLOW", "/bin/sh");
    let checked = site.ok(&["hooks", "check"]);
    assert!(checked.contains("hooks.json: 1 hooks, revision "), "{checked}");
    let listed = site.ok(&["hooks", "list"]);
    assert!(listed.contains("kheish.pre_tool_use.guard"), "{listed}");

    let mut worker = site.worker().await;
    let found = outcome(&worker, &tool("bash", "ls")).await;
    assert_eq!((&found["decision"], &found["stop_reason"]), (&json!("block"), &json!("first")));
    assert_eq!(outcome(&worker, &tool("read", "ls")).await["decision"], Value::Null);

    // Kheish would start without hooks on such a file; here the last good one goes on, and the status says why.
    std::fs::write(&file, settings(" ")).unwrap();
    let refused = worker.until("/v1/catalog", |catalog| !catalog["refused"].is_null()).await;
    let found = refused.pointer("/refused/problems/0/found").unwrap();
    assert!(found.as_str().unwrap().starts_with("PreToolUse[0]:guard: "), "{refused:#}");
    assert_eq!(outcome(&worker, &tool("bash", "ls")).await["stop_reason"], "first");

    let before = refused["revision"].clone();
    std::fs::write(&file, settings(r#"echo '{"decision":"block","stop_reason":"second"}'"#)).unwrap();
    worker.until("/v1/catalog", |catalog| catalog["revision"] != before && catalog["refused"].is_null()).await;
    assert_eq!(outcome(&worker, &tool("bash", "ls")).await["stop_reason"], "second");
    assert_eq!(worker.stop().await, Some(0));
}
