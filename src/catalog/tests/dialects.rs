//! Hooks of other systems, and what models are asked.

use super::*;
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
    check("dialect: khesh", &["6:14 hooks[0].dialect: expected `native` or `kheish`, found \"khesh\""]);
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
