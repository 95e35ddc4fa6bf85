use serde_json::{Value, json};

use super::*;
use crate::dialect;
use crate::dialect::import::Source;

const FILE: &str = include_str!("../../../../tests/imports/aether/workflow.json");
const YAML: &str = include_str!("../../../../tests/imports/aether/hooks.yaml");

fn wish(text: &str) -> Wish<'_> {
    Wish {
        bytes: text.as_bytes(),
        file: "workflow.json",
        prefix: "aether",
        is_lenient: false,
        runs: None,
        scripts: &[],
    }
}

fn imported(wish: &Wish<'_>) -> Result<Imported, Refused> {
    dialect::import(Source::Aether, wish)
}

/// A workflow of one task, which is called `step`, and of the templates that hooks name.
fn workflow(hooks: &Value, of_task: &Value) -> Value {
    json!({
        "apiVersion": "aether/v1",
        "kind": "Workflow",
        "metadata": { "name": "w" },
        "spec": {
            "entrypoint": "main",
            "hooks": hooks,
            "templates": [
                { "dag": { "name": "main", "tasks": [
                    { "name": "step", "template": "work", "hooks": of_task },
                    { "name": "deep", "template": "main-2", "hooks": of_task }
                ] } },
                { "dag": { "name": "main-2", "tasks": [{ "name": "inner", "executor": { "type": "echo" } }] } },
                { "task": { "name": "work", "executor": { "type": "echo" } } },
                { "name": "flat", "executor": { "type": "script", "config": {} } },
                { "task": { "name": "asks", "inputs": { "parameters": [{ "name": "id", "type": "string" }] },
                            "executor": { "type": "echo" } } },
                { "task": { "name": "reads", "inputs": { "parameters": [
                    { "name": "id", "valueFrom": { "parameter": "tasks.step.outputs.parameters.id" } } ] },
                            "executor": { "type": "echo" } } },
                { "task": { "name": "prints", "executor": { "type": "shell", "config": {
                    "line": "echo {{ inputs.parameters.id }}" } } } },
                { "task": { "name": "bare" } },
                { "task": { "name": "odd", "executor": { "type": "${env:HOME} {{ key }}" } } },
                { "loop": { "name": "again", "body": "work", "items": [1] } }
            ]
        }
    })
}

#[test]
fn a_document_of_all_kinds() {
    let runs = json!({
        "notify": { "http": { "url": "https://chat.example.com/hooks/nightly" } },
        "alarm": { "command": { "argv": ["/usr/local/bin/alarm", "--page"] } },
    });
    let found = imported(&Wish { runs: runs.as_object(), ..wish(FILE) }).unwrap();
    assert_eq!(found.yaml, YAML, "{}", found.yaml);
    assert_eq!(found.programs, ["/usr/local/bin/alarm"]);
    let hooks: Vec<_> = found.hooks.iter().map(|hook| (hook.id.as_str(), hook.name.as_str(), hook.runs)).collect();
    let expected = [
        ("aether.nightly-report.onStart", "notify", "http"),
        ("aether.nightly-report.onSuccess", "notify", "http"),
        ("aether.nightly-report.onError", "alarm", "command"),
        ("aether.nightly-report.onCancel", "alarm", "command"),
        ("aether.nightly-report.onExit", "notify", "http"),
        ("aether.nightly-report.fetch.onStart", "notify", "http"),
        ("aether.nightly-report.fetch.onFailure", "alarm", "command"),
        ("aether.nightly-report.approve.onSuspend", "notify", "http"),
        ("aether.nightly-report.approve.onResume", "notify", "http"),
        ("aether.nightly-report.approve.onExit", "notify", "http"),
        ("aether.nightly-report.fetch-again.onExit", "alarm", "command"),
        ("aether.nightly-report.inline.onSuccess", "notify", "http"),
    ];
    assert_eq!(hooks, expected);
}

/// The refusals of a document, each with its place.
fn check_refused(document: &Value, expected: &[&str]) {
    let text = document.to_string();
    let refused = imported(&wish(&text)).unwrap_err();
    let found: Vec<String> = refused.problems.iter().map(|misfit| format!("{misfit}")).collect();
    let all = found.len() == expected.len() && found.iter().zip(expected).all(|(found, part)| found.contains(part));
    assert!(all, "expected {expected:?}, found {found:?}");
}

#[test]
fn hooks_that_the_engine_refuses() {
    let template = |name: &str| json!({ "onSuccess": { "template": name } });
    let of_workflow = |name: &str, expected: &str| {
        check_refused(
            &workflow(&template(name), &json!({})),
            &[&format!("(spec.hooks.onSuccess.template): {expected}")],
        );
    };
    of_workflow("main", "spec.hooks: onSuccess template \"main\" must be a task template (not dag or loop)");
    of_workflow("again", "spec.hooks: onSuccess template \"again\" must be a task template (not dag or loop)");
    of_workflow("x", "spec.hooks: onSuccess references unknown template \"x\"");
    of_workflow("", "spec.hooks: onSuccess names no template");
    let of_task = workflow(&json!({}), &json!({ "onExit": { "template": "x" } }));
    check_refused(
        &of_task,
        &[
            "template \"main\" task \"step\" hooks: onExit references unknown template \"x\"",
            "template \"main\" task \"deep\" hooks: onExit references unknown template \"x\"",
        ],
    );
}

/// The engine gives a hook neither inputs nor outputs of the run.
#[test]
fn templates_that_read_the_run() {
    let check = |name: &str, expected: &str| {
        check_refused(&workflow(&json!({ "onExit": { "template": name } }), &json!({})), &[expected]);
    };
    check("asks", "(spec.templates[4].task.inputs.parameters[0]): template \"asks\" wants the input \"id\"");
    check("reads", "valueFrom.parameter): template \"reads\" reads \"tasks.step.outputs.parameters.id\"");
    check("prints", "config.line): template \"prints\" reads \"echo {{ inputs.parameters.id }}\"");
    check("bare", "(spec.templates[7].task.executor.type): template \"bare\" has the executor \"\"");
    check("odd", "template \"odd\" has the executor \"${env:HOME} {{ key }}\"");
    // What is wished for in their place reads nothing of it.
    let (runs, text) = (json!({ "asks": { "callback": "c" } }), {
        workflow(&json!({ "onExit": { "template": "asks" } }), &json!({})).to_string()
    });
    let found = imported(&Wish { runs: runs.as_object(), ..wish(&text) }).unwrap();
    assert!(found.yaml.contains("run: { callback: \"c\" }"), "{}", found.yaml);
}

#[test]
fn documents_that_are_none() {
    let with = |pointer: &str, value: Value| {
        let mut document = workflow(&json!({}), &json!({}));
        *document.pointer_mut(pointer).unwrap() = value;
        document
    };
    check_refused(&with("/apiVersion", json!("v2")), &["(apiVersion): unsupported apiVersion: v2"]);
    check_refused(&with("/kind", json!("Job")), &["(kind): unsupported kind: Job"]);
    check_refused(&with("/metadata/name", json!("Nightly")), &["metadata.name \"Nightly\" is invalid"]);
    check_refused(&with("/spec/templates", json!([])), &["spec.templates is required"]);
    check_refused(&with("/spec/entrypoint", json!("x")), &["entrypoint template \"x\" not found in templates"]);
    let both = json!({ "dag": { "name": "main" }, "task": { "name": "main" } });
    check_refused(&with("/spec/templates/0", both), &["template[0] must have exactly one of dag/task/loop"]);
    let unknown = json!({ "dag": { "name": "main", "tasks": [{ "name": "step", "template": "x" }] } });
    check_refused(
        &with("/spec/templates/0", unknown),
        &["template \"main\": task \"step\" references unknown template \"x\""],
    );
    check_refused(&json!([]), &["expected a workflow, found a list"]);
    let refused = imported(&wish("{")).unwrap_err();
    assert!(refused.problems[0].place.starts_with("workflow.json:1:"), "{refused:?}");
}

/// Of each hook what is said of it alone.
fn remarks(document: &Value) -> Vec<String> {
    let text = document.to_string();
    let imported = imported(&wish(&text)).unwrap();
    let own = imported.remarks.iter().filter(|remark| !remark.is_general);
    own.map(|remark| format!("{}: {}", remark.hooks.join(" "), remark.sentences())).collect()
}

#[test]
fn what_is_not_the_same_is_said() {
    let check = |document: Value, expected: &[&str]| {
        let found = remarks(&document);
        let missing: Vec<_> =
            expected.iter().filter(|part| !found.iter().any(|found| found.contains(**part))).collect();
        assert!(missing.is_empty(), "missing {missing:?} in {found:#?}");
    };
    let work = json!({ "template": "work" });
    check(
        workflow(&json!({ "onSuspend": work, "onExit": work, "onLeave": work }), &json!({})),
        &[
            "aether.w.onSuspend: A workflow is not suspended: onSuspend of `spec.hooks` never comes there. To do: drop it.",
            "Aether passes over `spec.hooks.onLeave`, which is no hook of it",
            "publishes a TaskAssignment to the exchange aether.tasks, under the routing key \"echo\"",
        ],
    );
    check(
        workflow(
            &json!({}),
            &json!({ "onSuccess": work, "onCancel": work, "onExit": { "template": "work", "when": 1 } }),
        ),
        &[
            "aether.w.deep.onSuccess: The task runs a dag or a loop: its onSuccess never comes there",
            "aether.w.deep.onExit: The task runs a dag or a loop: its onExit comes when the workflow is cancelled",
            "The engine has onCancel, and the published JSON Schema of documents refuses it",
            "Aether passes over the field `when` of a hook",
        ],
    );
}

#[test]
fn cron_workflows_and_keys_in_another_case() {
    let inner = workflow(&json!({ "ONEXIT": { "Template": "flat" } }), &json!({}));
    let cron = json!({
        "apiVersion": "aether/v1",
        "kind": "CronWorkflow",
        "metadata": { "name": "w" },
        "spec": { "schedule": "@daily", "workflowSpec": inner["spec"] },
    })
    .to_string();
    let found = imported(&wish(&cron)).unwrap();
    assert_eq!(found.hooks.iter().map(|hook| hook.id.as_str()).collect::<Vec<_>>(), ["aether.w.onExit"]);
    let body = r#"{\"taskRunID\": \"{{ key }}\", \"workflowRunID\": \"{{ event.workflowrunid }}\", \"taskName\": \"flat\", \"templateName\": \"flat\", \"executorType\": \"script\"}"#;
    assert!(found.yaml.contains(body), "{}", found.yaml);
}

#[test]
fn with_lenient_the_rest_comes() {
    let hooks = json!({ "onStart": { "template": "work" }, "onExit": { "template": "x" } });
    let text = workflow(&hooks, &json!({})).to_string();
    let found = imported(&Wish { is_lenient: true, ..wish(&text) }).unwrap();
    assert_eq!((found.hooks.len(), found.left_out.len()), (1, 1));
    assert!(found.yaml.contains("Left out: workflow.json:"), "{}", found.yaml);
    let runs = json!({ "nobody": { "callback": "c" } });
    let refused = imported(&Wish { runs: runs.as_object(), ..wish(&text.replace("\"x\"", "\"work\"")) }).unwrap_err();
    assert!(refused.problems[0].reason.contains("there is no template \"nobody\""), "{refused:?}");
}
