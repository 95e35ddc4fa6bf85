//! What the documentation of Kheish promises of its hooks, a test a sentence. The bytes of each contract, and its model, are
//! tested elsewhere: here is what a user of Kheish reads, and looks for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::kheish::{kheish, outcome, post, shell};
use crate::pipeline::{Place, site};
use crate::sink::{Answer, Sink};

/// The events after which their daemon goes on, whatever hooks say, and those which a hook can stop.
const EVENTS: [&str; 27] = [
    "pre_tool_use",
    "post_tool_use",
    "post_tool_use_failure",
    "permission_request",
    "permission_denied",
    "setup",
    "session_start",
    "session_end",
    "stop",
    "stop_failure",
    "user_prompt_submit",
    "pre_compact",
    "post_compact",
    "subagent_start",
    "subagent_stop",
    "teammate_idle",
    "task_created",
    "task_completed",
    "elicitation",
    "elicitation_result",
    "config_change",
    "worktree_create",
    "worktree_remove",
    "file_changed",
    "instructions_loaded",
    "notification",
    "cwd_changed",
];
const RECORDS: &str = "/v1/runtime/hooks/dead-letter";

/// A hook that says this.
fn says(id: &str, event: &str, answer: &Value) -> String {
    kheish(id, id, event, &shell(&format!("cat > /dev/null; echo '{answer}'")), "")
}

async fn working(hooks: &[String]) -> (Site, Worker) {
    let site = site(Place::File).await.with_gateway().hooks(&hooks.join("\n"));
    let site = site.set("HOOKFLEET_COMMANDS_ALLOW", "/bin/bash").set("HOOKFLEET_HTTP_KHEISH_API", "true");
    let worker = site.worker().await;
    (site, worker)
}

/// What two hooks of an event come to, the first of which says this.
async fn outcome_of(event: &str, first: &Value, second: &Value) -> Value {
    let (_site, mut worker) = working(&[says("first", event, first), says("second", event, second)]).await;
    let outcome = outcome(&worker, &json!({ "event": event, "subject": "bash" })).await;
    assert_eq!(worker.stop().await, Some(0));
    outcome
}

#[tokio::test]
async fn hooks_block_or_approve_execution() {
    let (approves, blocks) = (json!({ "decision": "approve" }), json!({ "decision": "block", "stop_reason": "no" }));
    let outcome = outcome_of("pre_tool_use", &approves, &json!({})).await;
    assert_eq!((&outcome["decision"], &outcome["continue_execution"]), (&json!("approve"), &json!(true)));
    let outcome = outcome_of("pre_tool_use", &blocks, &approves).await;
    assert_eq!((&outcome["decision"], &outcome["stop_reason"]), (&json!("block"), &json!("no")));
    assert_eq!(outcome["matched_hooks"], json!(["first"]), "the second is not asked any more");
}

#[tokio::test]
async fn hooks_update_permission_rules() {
    let rule =
        |tool: &str| json!({ "scope": "session", "tool_name_pattern": tool, "behavior": "allow", "reason": "known" });
    let updates = |tool: &str| json!({ "permission": "allow", "updated_permissions": [rule(tool)] });
    let outcome = outcome_of("permission_request", &updates("bash"), &updates("write_*")).await;
    assert_eq!(outcome["updated_permissions"], json!([rule("bash"), rule("write_*")]));
    assert_eq!(outcome["permission"], "allow");
}

#[tokio::test]
async fn hooks_modify_tool_input_or_output() {
    let (one, two) = (json!({ "updated_input": { "n": 1 } }), json!({ "updated_input": [2], "updated_output": "o" }));
    let outcome = outcome_of("post_tool_use", &one, &two).await;
    assert_eq!(
        (&outcome["updated_input"], &outcome["updated_output"]),
        (&json!([2]), &json!("o")),
        "the last one counts"
    );
}

#[tokio::test]
async fn hooks_inject_additional_context() {
    let context = |text: &str| json!({ "additional_contexts": [text] });
    let outcome = outcome_of("user_prompt_submit", &context("a"), &context("b")).await;
    assert_eq!(outcome["additional_contexts"], json!(["a", "b"]));
}

#[tokio::test]
async fn hooks_suggest_an_initial_session_message() {
    let suggests = |text: &str| json!({ "initial_user_message": text });
    let outcome = outcome_of("session_start", &suggests("hello"), &suggests("bye")).await;
    assert_eq!(outcome["initial_user_message"], "hello");
}

#[tokio::test]
async fn hooks_register_watch_paths() {
    let watches = |paths: [&str; 2]| json!({ "watch_paths": paths });
    let outcome = outcome_of("session_start", &watches(["/z", "/b"]), &watches(["/a", "/b"])).await;
    assert_eq!(outcome["watch_paths"], json!(["/a", "/b", "/z"]));
}

#[tokio::test]
async fn hooks_emit_retry_instructions_after_failures() {
    let outcome = outcome_of("permission_denied", &json!({ "retry": true }), &json!({ "retry": false })).await;
    assert_eq!(outcome["retry"], json!(true));
}

#[tokio::test]
async fn hooks_cover_a_broad_set_of_runtime_events() {
    let hooks: Vec<String> = EVENTS.iter().map(|event| says(event, event, &json!({ "stop_reason": event }))).collect();
    let (_site, mut worker) = working(&hooks).await;
    for event in EVENTS {
        let outcome = outcome(&worker, &json!({ "event": event })).await;
        assert_eq!((&outcome["stop_reason"], &outcome["matched_hooks"]), (&json!(event), &json!([event])));
    }
    assert_eq!(worker.stop().await, Some(0));
}

/// Shell commands and http; functions of the process are tested where the library is, models where they are run.
#[tokio::test]
async fn several_hook_executors_with_a_wire_payload_and_stable_keys() {
    let sink = Sink::start().await;
    sink.behave(|_, before| if before == 0 { Answer::status(429) } else { Answer::status(200) });
    let command = "python3 -c 'import json,sys; i=json.load(sys.stdin); print(json.dumps({\"stop_reason\": \
        i[\"invocation_key\"] + str(i[\"contract_version\"])}))'";
    let url = format!("{{ http: {{ url: {:?} }} }}", sink.url("target"));
    let http = kheish("http", "http hook", "stop", &url, ", retry: { attempts: 2 }");
    let (_site, mut worker) = working(&[kheish("command", "command", "stop", &shell(command), ""), http]).await;
    let outcome = outcome(&worker, &json!({ "event": "stop" })).await;
    // As two programs that have nothing in common with this one have computed them.
    assert_eq!(outcome["stop_reason"], "hook-invocation-e0124b61a2ed37ea9b6b73074af4c1321");
    let calls = sink.calls();
    let keys: Vec<&str> = calls.iter().map(|call| call.key.as_str()).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].starts_with("hook-execution-"), "{keys:?}");
    let body: Value = serde_json::from_slice(&calls[0].body).unwrap();
    let key = "hook-invocation-e0124b61a2ed37ea9b6b73074af4c132";
    assert_eq!(body, json!({ "event": "stop", "contract_version": 1, "invocation_key": key }));
    assert_eq!(worker.stop().await, Some(0));
}

/// Asks about `stop`, for which there is one http hook that always gets this answer, and up to three tries. Answers how often
/// the target was called, and the outcome.
async fn tried(answer: Answer, more: &str) -> (usize, Value) {
    let sink = Sink::start().await;
    sink.behave(move |_, _| answer.clone());
    let url = format!("{{ http: {{ url: {:?} }} }}", sink.url("target"));
    let hook = kheish("h", "h", "stop", &url, &format!(", retry: {{ attempts: 3 }}, on_failure: closed{more}"));
    let (_site, mut worker) = working(&[hook]).await;
    let outcome = outcome(&worker, &json!({ "event": "stop" })).await;
    assert_eq!(worker.stop().await, Some(0));
    (sink.count(), outcome)
}

#[tokio::test]
async fn http_hooks_retry_timeouts_429_and_5xx() {
    for status in [408, 429, 500, 503] {
        let (tries, outcome) = tried(Answer::status(status), "").await;
        let reason = outcome["stop_reason"].as_str().unwrap();
        assert!(tries == 3 && reason.starts_with("hook `h` failed after 3 attempt(s): "), "{status}: {outcome:#}");
    }
    // The timeout is one over all tries.
    let (tries, outcome) = tried(Answer::after(Duration::from_secs(20)), ", timeout: 400ms").await;
    let reason = outcome["stop_reason"].as_str().unwrap();
    assert!(tries == 1 && reason.contains("after 1 attempt(s)") && reason.contains("timed out"), "{outcome:#}");
}

#[tokio::test]
async fn redirects_parse_errors_and_ordinary_4xx_are_terminal() {
    let said = |body: &str| Answer { body: Some(body.to_owned()), ..Answer::status(200) };
    for answer in [Answer::status(302), Answer::status(400), Answer::status(404), said("done"), said("[1]")] {
        let (tries, outcome) = tried(answer.clone(), "").await;
        let reason = outcome["stop_reason"].as_str().unwrap();
        assert!(tries == 1 && reason.starts_with("hook `h` failed after 1 attempt(s): "), "{answer:?}: {outcome:#}");
    }
}

#[tokio::test]
async fn capped_retry_after_is_honored() {
    let answer = Answer { retry_after: Some("3600".to_owned()), ..Answer::status(503) };
    let (tries, outcome) = tried(answer, ", timeout: 2s").await;
    assert_eq!((tries, &outcome["decision"]), (1, &json!("block")), "what does not fit into the timeout is not tried");
    let answer = Answer { retry_after: Some("1".to_owned()), ..Answer::status(503) };
    let (tries, _) = tried(answer, ", timeout: 20s").await;
    assert_eq!(tries, 3);
}

#[tokio::test]
async fn failures_support_open_and_closed_modes_and_are_persisted() {
    let fails = |id: &str, more: &str| kheish(id, id, "notification", &shell("cat > /dev/null; exit 3"), more);
    let (_site, mut worker) = working(&[fails("open", ""), fails("closed", ", on_failure: closed")]).await;
    let outcome = outcome(&worker, &json!({ "event": "notification", "session_id": "s" })).await;
    assert_eq!((&outcome["decision"], &outcome["matched_hooks"]), (&json!("block"), &json!(["closed"])));
    let records = worker.until(RECORDS, |found| found.as_array().is_some_and(|found| found.len() == 2)).await;
    for record in records.as_array().unwrap() {
        let name = record["hook_name"].as_str().unwrap();
        assert_eq!((record["failure_mode"].as_str(), record["session_id"].as_str()), (Some(name), Some("s")));
        assert_eq!(record["target"], format!("command:{name}"));
    }
    let status = worker.ask("/v1/status").await;
    assert_eq!(status["hooks"]["unresolved_dead_lettered_count"], 2);
    assert!(!status.to_string().contains("cat >"), "it shows no body of a hook: {status:#}");
    assert_eq!(worker.stop().await, Some(0));
}

/// Without the setting that lets tests call this machine.
#[tokio::test]
async fn http_hooks_reject_local_and_private_targets() {
    let sink = Sink::start().await;
    let url = format!("{{ http: {{ url: {:?} }} }}", sink.url("target"));
    let hook = kheish("h", "h", "stop", &url, ", retry: { attempts: 3 }, on_failure: closed");
    let site = site(Place::File).await.with_gateway().hooks(&hook).set("HOOKFLEET_EGRESS_ALLOW", "");
    let mut worker = site.worker().await;
    let outcome = outcome(&worker, &json!({ "event": "stop" })).await;
    let reason = outcome["stop_reason"].as_str().unwrap();
    assert!(reason.starts_with("hook `h` failed after 1 attempt(s): ") && reason.contains("loopback"), "{outcome:#}");
    assert_eq!(worker.stop().await, Some(0));
    assert_eq!(sink.count(), 0);
}

#[tokio::test]
async fn response_bodies_are_capped() {
    let large = Answer { body: Some(format!("{{\"stop_reason\": {:?}}}", "a".repeat(200_000))), ..Answer::status(200) };
    let (tries, outcome) = tried(large, "").await;
    assert_eq!((tries, &outcome["decision"]), (3, &json!("block")), "it may be smaller the next time");
}

#[tokio::test]
async fn what_is_no_invocation_is_refused() {
    let (_site, mut worker) = working(&[]).await;
    let (status, _, problem) = post(&worker, "kheish", None, &json!({ "event": "stop", "contract_version": 2 })).await;
    assert_eq!(status, 422, "{problem:#}");
    assert_eq!(worker.stop().await, Some(0));
}
