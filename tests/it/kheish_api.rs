//! Kheish's own paths, as its tools call them.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::letters::items;
use crate::pipeline::hook;
use crate::servers::{client, shared};
use crate::sink::Sink;

const HOOKS: &str = "/v1/runtime/hooks";
const LETTERS: &str = "/v1/runtime/hooks/dead-letter";
const PATIENCE: Duration = Duration::from_secs(30);

async fn call(worker: &Worker, method: Method, body: Option<&Value>) -> (u16, Value) {
    call_at(worker, method, HOOKS, body).await
}

/// Status and body of an answer.
async fn call_at(worker: &Worker, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    let request = client().request(method, worker.url(path));
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string()),
        None => request,
    };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn set(worker: &Worker, body: &Value) -> (u16, Value) {
    call(worker, Method::POST, Some(body)).await
}

/// Bare settings with a command hook of `stop` that blocks, and says so.
fn settings(name: &str, said: &str) -> Value {
    let command = format!("echo '{{\"decision\":\"block\",\"stop_reason\":\"{said}\"}}'");
    let executor = json!({ "type": "command", "command": command, "shell": "/bin/sh" });
    json!({ "hooks": { "stop": [{ "name": name, "executor": executor }] } })
}

async fn stop_reason(worker: &Worker) -> Value {
    let stop = json!({ "event": "stop" }).to_string();
    let answer = client().post(worker.url("/v1/hooks/kheish")).body(stop).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json::<Value>().await.unwrap()["stop_reason"].clone()
}

/// A new daemon's first settings, an update of them, one that comes too late, and the way back to none.
#[tokio::test]
async fn settings_are_read_and_replaced() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let site = Site::servers(rabbit, redis).of_redis().with_gateway().hooks(&hook(&sink, "ours", "kheish.stop", ""));
    let site = site.set("HOOKFLEET_HTTP_KHEISH_API", "true").set("HOOKFLEET_COMMANDS_ALLOW", "/bin/sh");
    site.ok(&["hooks", "apply", site.hooks_file().to_str().unwrap()]);
    let mut worker = site.worker().await;
    worker.until_revision("r1").await;
    assert_eq!(call(&worker, Method::GET, None).await, (200, json!({})));

    let first = settings("a", "first");
    let (status, answer) = set(&worker, &first).await;
    assert_eq!((status, &answer["config"]["revision"]), (200, &json!(2)), "{answer:#}");
    assert_eq!((&answer["config"]["persisted"], &answer["config"]["history_len"]), (&json!(true), &json!(2)));
    assert_eq!(answer["hooks"]["hooks"]["stop"][0]["executor"]["command"], "[redacted hook command]");
    assert_eq!(call(&worker, Method::GET, None).await, (200, first.clone()), "whole for who may operate");
    worker.until_revision("r2").await;
    assert_eq!(stop_reason(&worker).await, "first");
    sink.until("our own hook, which stays", PATIENCE, |calls| calls.len() == 1).await;

    let second = json!({ "settings": settings("a", "second"), "expected_revision": 2, "skip_hooks": true });
    let (status, answer) = set(&worker, &second).await;
    assert_eq!((status, &answer["config"]["revision"]), (200, &json!(3)), "{answer:#}");
    worker.until_revision("r3").await;
    assert_eq!(stop_reason(&worker).await, "second");
    let (status, late) = set(&worker, &second).await;
    assert_eq!((status, &late["code"], &late["domain"]), (409, &json!("runtime_revision_conflict"), &json!("runtime")));
    assert_eq!(late["detail"], "runtime config revision conflict: expected 2, current 3");
    assert_eq!(late["type"], "urn:kheish:problem:runtime_revision_conflict");

    // Operators that expect no revision all have their way, one behind the other.
    let wishes: Vec<Value> = (0..4).map(|number| settings("a", &number.to_string())).collect();
    let answers = futures_util::future::join_all(wishes.iter().map(|wish| set(&worker, wish))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:#?}");
    let revisions = answers.iter().map(|(_, answer)| answer["config"]["revision"].as_u64().unwrap());
    assert_eq!(revisions.collect::<BTreeSet<_>>(), BTreeSet::from([4, 5, 6, 7]));

    let (status, answer) = set(&worker, &json!({ "settings": {} })).await;
    assert_eq!((status, &answer["hooks"]), (200, &json!({})));
    worker.until_revision("r8").await;
    assert_eq!(stop_reason(&worker).await, Value::Null);
    assert_eq!(worker.stop().await, Some(0));
}

/// The gates on `config_change` are asked before each change, by whichever way it comes; who skips them is in the history.
#[tokio::test]
async fn hooks_of_config_change_are_asked() {
    let (rabbit, redis) = shared().await;
    let sink = Sink::start().await;
    let observer = hook(&sink, "seen", "kheish.config_change", "");
    let site = Site::servers(rabbit, redis).of_redis().with_gateway().hooks(&observer);
    let site = site.set("HOOKFLEET_HTTP_KHEISH_API", "true").set("HOOKFLEET_COMMANDS_ALLOW", "/bin/sh");
    let (file, frozen) = (site.hooks_file().to_str().unwrap().to_owned(), site.folder.path().join("frozen"));
    site.ok(&["hooks", "apply", &file]);
    let worker = site.worker().await;
    let gate = json!({ "name": "freeze", "executor": { "type": "command", "shell": "/bin/sh",
        "command": format!("cat > /dev/null; [ ! -e {} ] || {{ echo not on a friday >&2; exit 2; }}", frozen.display()) } });
    let settings = |said: &str| {
        let mut settings = settings("a", said);
        settings["hooks"]["config_change"] = json!([gate]);
        settings
    };
    let (status, answer) = set(&worker, &settings("first")).await;
    assert_eq!((status, &answer["config"]["revision"]), (200, &json!(2)), "nobody was to be asked: {answer:#}");
    worker.until_revision("r2").await;
    let (status, answer) = set(&worker, &settings("second")).await;
    assert_eq!((status, &answer["config"]["revision"]), (200, &json!(3)), "{answer:#}");
    sink.until("who observes changes", PATIENCE, |calls| calls.len() == 1).await;
    let event: Value = serde_json::from_slice(&sink.calls()[0].body).unwrap();
    let payload = &event["event"]["data"]["payload"];
    assert_eq!(
        (&payload["previous"]["revision"], &payload["current"]["revision"]),
        (&json!(2), &json!(0)),
        "{event:#}"
    );
    assert_eq!(payload["current"]["hooks"], settings("second")["hooks"]);
    worker.until_revision("r3").await;

    std::fs::write(&frozen, "").unwrap();
    let reason = "config change blocked by hook: hooks: hook command blocked execution: not on a friday";
    let (status, problem) = set(&worker, &settings("third")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("runtime_change_blocked")), "{problem:#}");
    assert_eq!(problem["detail"], reason);
    let ours = json!({ "documents": [{ "name": "h.yaml", "text": "version: 1" }] });
    let post = |path: &str| client().post(worker.url(path)).header("content-type", "application/json");
    let refused = post("/v1/catalog").body(ours.to_string()).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    assert_eq!(refused.json::<Value>().await.unwrap()["detail"], reason);
    let tried = site.run(&["hooks", "apply", &file]);
    assert_eq!((tried.status.code(), tried.stdout.is_empty()), (Some(2), true), "{tried:?}");
    assert!(String::from_utf8_lossy(&tried.stderr).contains(reason), "{tried:?}");
    assert_eq!(site.run(&["hooks", "rollback", "2"]).status.code(), Some(2));
    site.ok(&["hooks", "apply", "--dry-run", &file]); // changes nothing
    assert_eq!(site.ok(&["hooks", "history"]).lines().count(), 3);

    let forced = json!({ "settings": settings("third"), "skip_hooks": true });
    let (status, answer) = set(&worker, &forced).await;
    assert_eq!((status, &answer["config"]["revision"]), (200, &json!(4)), "{answer:#}");
    worker.until_revision("r4").await;
    let forced = post("/v1/catalog?skip_hooks=true").body(ours.to_string()).send().await.unwrap();
    assert_eq!(forced.status(), 200);
    site.ok(&["hooks", "rollback", "4", "--skip-hooks", "--by", "ada"]); // r5 has no such gate
    site.ok(&["hooks", "rollback", "1", "--skip-hooks", "--by", "ada"]);
    let history = site.ok(&["hooks", "history"]);
    let by = |number: usize| history.lines().nth(7 - number).unwrap();
    for (number, expected) in [(4, "kheish (hooks skipped)"), (5, "http (hooks skipped)"), (7, "ada (hooks skipped)")] {
        assert!(by(number).contains(expected), "{history}");
    }
    assert!(!by(6).contains("skipped"), "nobody was to be asked: {history}");
}

/// A gate that nobody can ask for holds up a change until it is skipped.
#[tokio::test]
async fn a_change_waits_for_a_worker_that_can_be_asked() {
    let (rabbit, redis) = shared().await;
    let gate = "  - { id: g, on: kheish.config_change, mode: gate, run: { command: { shell: \"true\" } } }";
    let site = Site::servers(rabbit, redis).of_redis().hooks(gate).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let site = site.set("HOOKFLEET_GATES_DEADLINE", "1s");
    let file = site.hooks_file().to_str().unwrap().to_owned();
    site.ok(&["hooks", "apply", &file]);
    std::fs::write(site.hooks_file(), "version: 1").unwrap();
    let refused = site.run(&["hooks", "apply", &file]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("no gate has answered within 1s") && said.contains("--skip-hooks"), "{said}");
    let worker = site.worker().await;
    worker.until_revision("r1").await;
    site.ok(&["hooks", "apply", &file]);
    worker.until_revision("r2").await;
}

/// What is wrong is answered with its code, and changes nothing.
#[tokio::test]
async fn wrong_settings_change_nothing() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).of_redis().with_gateway().hooks("");
    let site = site.set("HOOKFLEET_HTTP_KHEISH_API", "true");
    site.ok(&["hooks", "apply", site.hooks_file().to_str().unwrap()]);
    let worker = site.worker().await;
    let blank = json!({ "hooks": { "pre_tool_use": [{ "name": "x",
        "executor": { "type": "command", "command": "true", "timeout_ms": 0 } }] } });
    for (body, status, code, detail) in [
        (json!({}), 422, "daemon_error", "hooks request must include settings or legacy hooks"),
        (json!({ "expected_revision": 1 }), 422, "daemon_error", "hooks request must include settings or legacy hooks"),
        (json!([]), 422, "daemon_error", "hooks request must be an object"),
        (blank, 400, "invalid_hook_settings", "PreToolUse[0]:x: hook timeout_ms must be greater than zero"),
    ] {
        let (found, problem) = set(&worker, &body).await;
        assert_eq!((found, &problem["code"], &problem["detail"]), (status, &json!(code), &json!(detail)), "{body}");
    }
    let post = |kind: &'static str| client().post(worker.url(HOOKS)).header("content-type", kind).body("{");
    assert_eq!(post("text/plain").send().await.unwrap().status(), 415, "a page in a browser may send it unasked");
    let large = client().post(worker.url(HOOKS)).header("content-type", "application/json");
    let large = large.body("x".repeat(8 * 1024 * 1024 + 1)).send().await.unwrap();
    assert_eq!(large.status(), 413);
    assert_eq!(large.json::<Value>().await.unwrap()["type"], "urn:kheish:problem:daemon_error");
    let answer = post("application/json").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(
        (answer.status().as_u16(), &answer.json::<Value>().await.unwrap()["code"]),
        (400, &json!("bad_request"))
    );
    assert_eq!(call(&worker, Method::GET, None).await, (200, json!({})));
    assert_eq!(worker.ask("/v1/catalog").await["revision"], "r1");
}

/// A process that follows a file shows it, and does not write to it; one without the setting has no such paths.
#[tokio::test]
async fn a_file_is_shown_and_not_written() {
    let site = Site::embedded();
    let file = site.folder.path().join("hooks.json");
    let text = settings("a", "x").to_string();
    std::fs::write(&file, &text).unwrap();
    let site = site.set("HOOKFLEET_HOOKS", file.to_str().unwrap()).set("HOOKFLEET_CATALOG_DIALECT", "kheish");
    let site = site.set("HOOKFLEET_COMMANDS_ALLOW", "/bin/sh");
    let mut worker = site.worker().await;
    let (status, problem) = call(&worker, Method::GET, None).await;
    assert_eq!(status, 404);
    assert!(problem["detail"].as_str().unwrap().contains("http.kheish_api: true"), "{problem:#}");
    assert_eq!(worker.stop().await, Some(0));

    let site = site.set("HOOKFLEET_HTTP_KHEISH_API", "true");
    let worker = site.worker().await;
    assert_eq!(call(&worker, Method::GET, None).await, (200, settings("a", "x")));
    let (status, problem) = set(&worker, &settings("a", "y")).await;
    assert_eq!((status, &problem["code"]), (409, &json!("runtime_change_blocked")));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    std::fs::remove_file(&file).unwrap();
    let (status, problem) = call(&worker, Method::GET, None).await;
    assert_eq!((status, &problem["code"]), (503, &json!("daemon_error")), "{problem:#}");
}

/// A hook that blocks when it fails, and one whose answer nobody waits for, as dead letters: their records, their numbers in the
/// status, and what becomes of both when an operator closes them.
#[tokio::test]
async fn dead_letters_are_records_of_kheish() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).of_redis().with_gateway().hooks("");
    let site = site.set("HOOKFLEET_HTTP_KHEISH_API", "true").set("HOOKFLEET_COMMANDS_ALLOW", "/bin/sh");
    site.ok(&["hooks", "apply", site.hooks_file().to_str().unwrap()]);
    let worker = site.worker().await;
    assert_eq!(call_at(&worker, Method::GET, LETTERS, None).await, (200, json!([])));
    fail_twice(&worker).await;

    let records = until_records(&worker, 2).await;
    let of = |name: &str| records.iter().find(|record| record["hook_name"] == name).unwrap().clone();
    let (guard, tell) = (of("guard"), of("tell"));
    check_record(&guard);
    assert!(!records.iter().any(|record| record.to_string().contains("a secret of the event")), "{records:#?}");
    assert_eq!((&tell["event"], &tell["failure_mode"]), (&json!("notification"), &json!("open")));
    assert!(records[0]["at_ms"].as_u64() <= records[1]["at_ms"].as_u64(), "{records:#?}");
    assert_eq!(site.letters().iter().filter(|it| it["letter"]["foreign"]["name"] == "guard").count(), 1);
    assert_eq!(items(&site, &["list", "--dialect", "kheish", "--text", "guard"]).len(), 1);
    assert_eq!(items(&site, &["list", "--dialect", "native"]).len(), 0);
    let newest = &records[1]["hook_name"];
    check_status(&worker.until("/v1/status", |it| unresolved(it) == 2).await, newest);

    let resolve = async |record: &Value, body: Value| {
        let path = format!("{LETTERS}/{}/resolve", record["id"].as_str().unwrap());
        call_at(&worker, Method::POST, &path, Some(&body)).await
    };
    let (status, resolved) = resolve(&guard, json!({ "reason": " fixed with token=abc " })).await;
    assert_eq!((status, &resolved["resolution_reason"]), (200, &json!("fixed with token=[REDACTED]")), "{resolved:#}");
    let again = resolve(&guard, json!({ "reason": "another" })).await;
    assert_eq!(again, (200, resolved.clone()), "the first reason stays");
    assert_eq!(resolve(&tell, json!({})).await.1["resolution_reason"], "operator resolved");
    assert!(until_records(&worker, 2).await.contains(&resolved), "resolved ones stay");
    let status = worker.until("/v1/status", |it| unresolved(it) == 0).await;
    assert_eq!(status["health"]["warnings"], json!([]), "{status:#}");

    let unknown = json!({ "id": "hook-dlq-17-aaaaaaaa-bbbbbbbb-0123456789abcdef" });
    for (record, body, expected) in [
        (&unknown, json!({}), (404, "unknown_hook_dead_letter")),
        (&json!({ "id": "x" }), json!({}), (404, "unknown_hook_dead_letter")),
        (&guard, json!([]), (422, "daemon_error")),
    ] {
        let (status, problem) = resolve(record, body).await;
        assert_eq!((status, problem["code"].as_str().unwrap()), expected, "{record:#} {problem:#}");
    }
    let (_, problem) = resolve(&unknown, json!({})).await;
    let detail = "unknown hook dead-letter record hook-dlq-17-aaaaaaaa-bbbbbbbb-0123456789abcdef";
    assert_eq!(problem["detail"], detail);
}

/// Two hooks that fail for good, `guard` and `tell`.
async fn fail_twice(worker: &Worker) {
    let command = json!({ "type": "command", "shell": "/bin/sh",
        "command": "cat > /dev/null; echo broke with api_key=sk-1234567890abcdef >&2; exit 3" });
    let closed = json!({ "name": "guard", "executor": command, "failure_policy": { "mode": "closed" } });
    let open = json!({ "name": "tell", "executor": command });
    let hooks = json!({ "hooks": { "stop": [closed], "notification": [open] } });
    let (status, answer) = set(worker, &hooks).await;
    assert_eq!(status, 200, "{answer:#}");
    worker.until_revision("r2").await;
    let stop = json!({ "event": "stop", "subject": "completed", "session_id": "s1", "run_id": "r1",
        "payload": { "status": "a secret of the event" } });
    let (_, outcome) = call_at(worker, Method::POST, "/v1/hooks/kheish", Some(&stop)).await;
    assert_eq!((&outcome["decision"], &outcome["continue_execution"]), (&json!("block"), &json!(false)), "{outcome:#}");
    let notification = json!({ "event": "notification", "subject": "here", "payload": {} });
    let (status, _) = call_at(worker, Method::POST, "/v1/hooks/kheish", Some(&notification)).await;
    assert_eq!(status, 200);
}

/// The record of `guard`: all fields that Kheish always has, and nothing that is secret.
fn check_record(record: &Value) {
    let names = "id at_ms hook_name event subject session_id run_id target attempt_count failure_mode contract_version \
        invocation_digest definition_digest error";
    let found: BTreeSet<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, names.split_whitespace().collect(), "{record:#}");
    for (name, expected) in [
        ("event", json!("stop")),
        ("failure_mode", json!("closed")),
        ("subject", json!("completed")),
        ("session_id", json!("s1")),
        ("run_id", json!("r1")),
        ("target", json!("command:guard")),
        ("attempt_count", json!(1)),
        ("contract_version", json!(1)),
    ] {
        assert_eq!(record[name], expected, "{name} {record:#}");
    }
    let error = record["error"].as_str().unwrap();
    assert!(error.contains("status 3") && !error.contains("sk-1234567890abcdef"), "{error}");
    let digest = |name: &str| record[name].as_str().unwrap()[..8].to_owned();
    let begins =
        format!("hook-dlq-{}-{}-{}-", record["at_ms"], digest("invocation_digest"), digest("definition_digest"));
    assert!(record["id"].as_str().unwrap().starts_with(&begins), "{record:#}");
}

fn unresolved(status: &Value) -> Value {
    status["hooks"]["unresolved_dead_lettered_count"].clone()
}

/// Two hooks have failed, neither was tried again.
fn check_status(status: &Value, newest: &Value) {
    let hooks = &status["hooks"];
    assert_eq!((&hooks["configured_count"], &hooks["dead_lettered_count"]), (&json!(2), &json!(2)), "{status:#}");
    assert_eq!((&hooks["execution_count"], &hooks["retry_count"]), (&json!(0), &json!(0)), "{status:#}");
    assert_eq!((&hooks["last_dead_letter_hook"], &hooks["last_unresolved_dead_letter_hook"]), (newest, newest));
    let warning = &status["health"]["warnings"][0];
    assert_eq!(
        (&warning["code"], &warning["message"]),
        (&json!("hook_dead_letters"), &json!("2 unresolved hook dead-letter record(s)"))
    );
    assert!(status["hooks_run"].is_array(), "{status:#}");
}

async fn until_records(worker: &Worker, count: usize) -> Vec<Value> {
    let found = worker.until(LETTERS, |found| found.as_array().is_some_and(|found| found.len() == count)).await;
    found.as_array().unwrap().clone()
}

/// A hook that was asked and has failed runs again as one that observes; what it says then changes nothing.
#[tokio::test]
async fn what_has_decided_is_replayed_as_an_observer() {
    let site = Site::embedded();
    let at = |name: &str| site.folder.path().join(name);
    let (file, mended, ran) = (at("hooks.json"), at("mended"), at("ran"));
    let command = format!(
        "cat > /dev/null; [ -e {} ] || exit 3; echo ran >> {}; echo '{{\"decision\":\"block\"}}'",
        mended.display(),
        ran.display()
    );
    let hook = json!({ "name": "guard", "executor": { "type": "command", "shell": "/bin/sh", "command": command } });
    std::fs::write(&file, json!({ "hooks": { "stop": [hook] } }).to_string()).unwrap();
    let site = site.set("HOOKFLEET_HOOKS", file.to_str().unwrap()).set("HOOKFLEET_CATALOG_DIALECT", "kheish");
    let site = site.set("HOOKFLEET_COMMANDS_ALLOW", "/bin/sh").set("HOOKFLEET_HTTP_KHEISH_API", "true");
    let worker = site.worker().await;
    let stop = json!({ "event": "stop" });
    let (_, outcome) = call_at(&worker, Method::POST, "/v1/hooks/kheish", Some(&stop)).await;
    assert_eq!(
        (&outcome["continue_execution"], &outcome["matched_hooks"]),
        (&json!(true), &json!([])),
        "it fails open"
    );
    until_records(&worker, 1).await;
    let letter = items(&site, &["list"]).remove(0);
    let id = letter["letter"]["id"].as_str().unwrap();
    assert!(site.ok(&["dead-letters", "show", id]).contains("runs it as an observer, and its answer is not used"));

    let again = site.run(&["dead-letters", "replay", id, "--wait"]);
    let said = String::from_utf8_lossy(&again.stdout);
    assert_eq!(again.status.code(), Some(1), "{said}");
    assert!(said.contains("1 failed again") && said.contains("1 of hooks that decide run as observers"), "{said}");
    std::fs::write(&mended, "").unwrap();
    let said = site.ok(&["dead-letters", "replay", id, "--wait"]);
    assert!(said.contains("as generation 2: done"), "{said}");
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "ran\n");
    let record = until_records(&worker, 1).await.remove(0);
    assert_eq!(record["resolution_reason"], "a replay of it has succeeded", "{record:#}");
}
