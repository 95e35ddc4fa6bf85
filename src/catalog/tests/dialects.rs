//! Hooks of other systems, and what models are asked.

use serde_json::{Value, json};

use super::*;
use crate::dialect;
use crate::dialect::kheish::settings::HookDefinition;
use crate::domain::dialect::Dialect;
use crate::domain::hook::{Matcher, ModelAction};
use crate::domain::retry::InRun;

fn hook(fields: &str) -> Hook {
    let text = format!(
        "version: 1\ndefaults: {{ timeout: 1m, retry: {{ attempts: 9 }} }}\nhooks:\n  - {{ id: a, on: a, {fields} }}\n"
    );
    Hook::clone(&read(&text).unwrap().hooks()[0])
}

#[test]
fn a_dialect_has_its_own_defaults() {
    let own = hook("dialect: kheish, run: { command: { argv: [x] } }");
    assert_eq!((own.dialect, own.name, own.matcher), (Dialect::Kheish, None, None));
    assert_eq!(
        (own.timeout, own.retry.attempts, own.retry.hint_max),
        (Duration::from_secs(5), 1, Duration::from_secs(30))
    );
    assert_eq!(own.retry.in_run, Some(InRun { added_below: Duration::from_millis(25) }));
    let own = hook("dialect: kheish, name: 'bash guard', matcher: 'b*', retry: { attempts: 4 }, run: { callback: c }");
    assert_eq!((own.name.as_deref(), own.matcher), (Some("bash guard"), Some(Matcher::Wildcards("b*".to_owned()))));
    assert_eq!((own.timeout, own.retry.attempts), (Duration::from_secs(15), 4));
    assert_eq!(hook("dialect: kheish, matcher: '', run: { callback: c }").matcher, None);
    let ours = hook("dialect: native, run: { callback: c }");
    assert_eq!((ours.timeout, ours.retry.attempts, ours.retry.in_run), (Duration::from_mins(1), 9, None));
}

#[test]
fn wrong_dialects() {
    check(
        "dialect: khesh",
        &["6:14 hooks[0].dialect: expected `native` or `kheish` or `aether` or `bernstein`, found \"khesh\""],
    );
    check(
        "name: x",
        &["6:11 hooks[0].name: expected `name` with another dialect than native only, found it without one"],
    );
    check(
        "matcher: x",
        &[
            "6:14 hooks[0].matcher: expected `matcher` with another dialect than native, which has `subject`, found \"x\"",
        ],
    );
    check("dialect: kheish\nname: ' '", &["7:11 hooks[0].name: expected a name of 1 to 256 characters, found \" \""]);
}

#[test]
fn models_are_kept_and_not_run() {
    let target = |run: &str| match hook(&format!("enabled: false, run: {{ {run} }}")).action {
        Action::Model(model) => model.target(),
        other => panic!("{other:?}"),
    };
    let model = "model: { provider: ollama, name: small, key: 'hunter2', generation: { temperature: 0.1, stop: [x] } }";
    assert_eq!(target(&format!("prompt: {{ template: 'may {{{{subject}}}}?', {model} }}")), "prompt:ollama/small");
    assert_eq!(target("agent: { template: x, tool_surface: { allowlist: [read] }, max_turns: 3 }"), "agent:");
    assert_eq!(target("mcp_tool: { server: s, tool: t, input: { a: [1] } }"), "mcp_tool:s/t");
    let kept = hook(&format!("enabled: false, run: {{ prompt: {{ template: x, {model} }} }}"));
    assert!(!format!("{kept:?}").contains("hunter2"));
    let Action::Model(kept) = kept.action else { panic!("{kept:?}") };
    let ModelAction::Prompt(prompt) = *kept else { panic!("{kept:?}") };
    assert_eq!(prompt.model.unwrap().generation["temperature"], 0.1);
    let found = "expected `enabled: false` beside what no version runs yet, found `prompt` in a hook that is enabled";
    check("run: { prompt: { template: x } }", &[&format!("5:10 hooks[0].run: {found}")]);
    check("run: { agent: {} }\nenabled: false", &["5:19 hooks[0].run.agent: expected a field `template`, found none"]);
}

fn of_kheish(text: &str) -> Result<Catalog, Problems> {
    super::super::read(&[Document { name: "hooks.json".into(), text: text.into(), dialect: Dialect::Kheish }], &TERMS)
}

#[test]
fn documents_of_kheish_are_imported_as_they_are_read() {
    let executor = r#""executor": { "type": "command", "command": "./guard.sh" }"#;
    let text =
        format!(r#"{{ "hooks": {{ "pre_tool_use": [{{ "name": "guard", "matcher": "bash*", {executor} }}] }} }}"#);
    let Catalog { hooks, warnings, .. } = of_kheish(&text).unwrap();
    let hook = &hooks.hooks()[0];
    assert_eq!((hook.id.as_str(), hook.dialect), ("kheish.pre_tool_use.guard", Dialect::Kheish));
    assert_eq!(hook.matcher, Some(Matcher::Wildcards("bash*".to_owned())));
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    let expected =
        "hooks.json kheish.pre_tool_use.guard: expected a hook that is the same as in Kheish, found The command acts";
    assert!(warning.sentence().starts_with(expected), "{}", warning.sentence());
    assert!(warning.help.as_deref().is_some_and(|help| help.contains("run_on: origin")), "{warning:?}");

    // The same text in another dialect is another catalog.
    let native = [Document::native("hooks.json", text.as_str())];
    assert_ne!(digest(&native).as_str(), hooks.revision().to_string());
    let problems = of_kheish(r#"{ "hooks": { "stop": [{ "name": "a" }, { "name": "b" }] } }"#).unwrap_err();
    let [first, last] = problems.list() else { panic!("{problems}") };
    let expected =
        "hooks.json:1:23 (hooks.stop[0].executor): expected hooks of Kheish that run there and here, found Stop[0]:a: ";
    assert!(first.sentence().starts_with(expected) && first.help.is_none(), "{problems}");
    assert!(
        last.help.as_deref().is_some_and(|help| help.contains("Kheish starts with all hooks disabled")),
        "{problems}"
    );
}

/// A catalog of both, such as a folder with `hooks.json` beside hooks files.
#[test]
fn documents_of_two_dialects_make_one_catalog() {
    let ours = "version: 1\nevents: { a.b: { description: x } }\nhooks: [{ id: own, on: a.b, run: { callback: c } }]";
    let text = r#"{ "hooks": { "setup": [{ "name": "a", "executor": { "type": "callback", "name": "c" } }] } }"#;
    let documents = [
        Document { name: "hooks.json".into(), text: text.into(), dialect: Dialect::Kheish },
        Document::native("hooks.yaml", ours),
    ];
    let read = super::super::read(&documents, &TERMS).unwrap();
    let ids: Vec<&str> = read.hooks.hooks().iter().map(|hook| hook.id.as_str()).collect();
    assert_eq!(ids, ["kheish.setup.a", "own"]);
    assert!(event_types(&documents).is_ok(), "a document of another system declares none");
}

/// A file of nothing but mistakes is told of as briefly as one of ours.
#[test]
fn many_mistakes_are_counted() {
    let hooks = vec!["{}"; 1_000].join(",");
    let problems = of_kheish(&format!(r#"{{ "hooks": {{ "stop": [{hooks}] }} }}"#)).unwrap_err();
    assert_eq!(problems.list().len(), 100);
    assert!(problems.to_string().ends_with("1000 problems, 100 of them shown"));
}

/// What letters say of a hook of Kheish is what Kheish says of its definition.
#[test]
fn letters_have_hooks_of_kheish_in_its_words() {
    let check = |executor: &Value, policy: &Value, target: &str| {
        let definition = json!({ "name": "a  b", "executor": executor, "failure_policy": policy });
        let text = json!({ "hooks": { "pre_tool_use": [definition] } }).to_string();
        let hooks = of_kheish(&text).unwrap().hooks;
        let found = dialect::foreign_hook(&hooks.hooks()[0]).unwrap();
        let definition: HookDefinition = serde_json::from_value(definition).unwrap();
        assert_eq!(found.definition, definition.digest(), "{text}");
        assert_eq!((found.name.as_str(), found.target.as_str()), ("a  b", target));
        assert_eq!(found.fails_closed, policy["mode"] == "closed");
    };
    let (open, closed) = (json!({}), json!({ "mode": "closed", "max_retries": 2 }));
    check(&json!({ "type": "command", "command": "x 'y' $Z" }), &open, "command:a b");
    let command = json!({ "type": "command", "command": "x", "shell": "/bin/sh", "timeout_ms": 70 });
    check(&command, &closed, "command:a b");
    let url = "https://example.com:8443/path?token=1";
    check(&json!({ "type": "http", "url": url }), &closed, "http:a b:https://example.com:8443");
    check(&json!({ "type": "callback", "name": "cb", "timeout_ms": 30000 }), &open, "callback:a b:cb");
}
