use serde_json::{Value as Json, json};

use super::*;
use crate::dialect;
use crate::dialect::import::Source;

const FILE: &str = include_str!("../../../../tests/imports/bernstein/bernstein.yaml");
const YAML: &str = include_str!("../../../../tests/imports/bernstein/hooks.yaml");
const VECTORS: &str = include_str!("../../../../tests/vectors/bernstein-config.json");

fn wish(text: &str) -> Wish<'_> {
    Wish {
        bytes: text.as_bytes(),
        file: "bernstein.yaml",
        prefix: "bernstein",
        is_lenient: false,
        runs: None,
        scripts: &[],
    }
}

fn imported(wish: &Wish<'_>) -> Result<Imported, Refused> {
    dialect::import(Source::Bernstein, wish)
}

/// What of the vectors is under this name.
fn vectors(name: &str) -> Vec<Json> {
    let all: Json = serde_json::from_str(VECTORS).unwrap();
    all[name].as_array().unwrap().clone()
}

/// The hooks of a file, as the drafts that they are made of.
fn drafts(text: &str) -> Result<Vec<Draft>, String> {
    let report = Report::new("t.yaml", text);
    let mut reading = Reading { folder: String::new(), drafts: Vec::new(), remarks: Vec::new() };
    let root = yaml::parse_foreign(&report);
    if let Some(root) = &root {
        let root = Value::root(&report, root);
        let sections = SECTIONS.iter().filter_map(|(name, read)| Some((entry::field(&root, name)?, read)));
        sections.for_each(|(value, read)| read(&value, &mut reading));
    }
    let wrong: Vec<String> = misfits(report).iter().map(Misfit::to_string).collect();
    if wrong.is_empty() { Ok(reading.drafts) } else { Err(wrong.join("\n")) }
}

#[test]
fn a_file_of_all_surfaces() {
    let scripts = ["on_pre_task_create/10-limit", "on_task_failed/tell", "pre_task.sh", "notes.txt", "on_lunch/x"];
    let scripts: Vec<String> = scripts.map(str::to_owned).to_vec();
    let found = imported(&Wish { scripts: &scripts, ..wish(FILE) }).unwrap();
    assert_eq!(found.yaml, YAML, "{}", found.yaml);
}

#[test]
fn lifecycle_scripts_as_their_parser_has_them() {
    for case in vectors("lifecycle") {
        let text = case["yaml"].as_str().unwrap();
        let indented = text.lines().map(|line| format!("  {line}\n")).collect::<Vec<_>>().concat();
        let whole = if text.is_empty() { "hooks:\n".to_owned() } else { format!("hooks:\n{indented}") };
        let found = drafts(&whole);
        let Some(scripts) = case["scripts"].as_array() else {
            // A list of targets may stand below `hooks` here.
            assert!(found.is_err() || text.starts_with("webhooks"), "{text}: {found:?}");
            continue;
        };
        let found = found.unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
        let shown = |draft: &Draft| {
            let argv = &draft.run.1["argv"][0];
            json!([draft.event, argv, draft.timeout.as_secs_f64(), draft.matcher])
        };
        let expected = |script: &Json| {
            let seconds = script[2].as_f64().unwrap().clamp(0.001, 86_400.0);
            json!([script[0], script[1], seconds, script[3]])
        };
        let found: Vec<Json> = found.iter().map(shown).collect();
        let expected: Vec<Json> = scripts.iter().map(expected).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn webhooks_as_their_parser_has_them() {
    for case in vectors("webhooks") {
        let entry = &case["entry"];
        let found = drafts(&json!({ "webhooks": [entry] }).to_string());
        if case["refused"].is_string() {
            assert!(found.is_err(), "{entry}: {found:?}");
            continue;
        }
        let found = found.unwrap_or_else(|wrong| panic!("{entry}: {wrong}"));
        if case["passed_over"] == true {
            assert!(found.is_empty(), "{entry}: {found:?}");
            continue;
        }
        let draft = &found[0];
        let events: Vec<&str> = case["events"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        if events.is_empty() {
            assert!(
                draft.on.len() == 16 && draft.on.contains(&"bernstein.task.*".to_owned()),
                "{entry}: {:?}",
                draft.on
            );
        } else {
            assert_eq!(draft.on, events.iter().map(|name| format!("bernstein.{name}")).collect::<Vec<_>>(), "{entry}");
        }
        let (tries, seconds) = (case["max_retries"].as_i64().unwrap(), case["timeout_s"].as_f64().unwrap());
        assert_eq!((draft.is_enabled, &draft.retry["attempts"]), (tries > 0, &json!(tries.max(1))), "{entry}");
        let expected = std::time::Duration::from_secs_f64(seconds.max(0.001));
        assert_eq!(draft.timeout, expected, "{entry}");
        let sent = [("auth", "Authorization"), ("sign", "X-Bernstein-Signature")];
        let sent = sent.into_iter().filter(|(field, _)| draft.run.1.get(field).is_some()).map(|(_, name)| name);
        assert_eq!(json!(sent.collect::<Vec<_>>()), case["headers"], "{entry}");
    }
}

#[test]
fn notifications_as_their_models_have_them() {
    let check = |notifications: &Json, is_good: &Json| {
        let found = drafts(&json!({ "notifications": notifications }).to_string());
        assert_eq!(json!(found.is_ok()), *is_good, "{notifications}: {found:?}");
    };
    for case in vectors("notifications") {
        check(&case["notifications"], &case["is_good"]);
    }
    for case in vectors("sinks") {
        check(&json!({ "sinks": [case["sink"]] }), &case["is_good"]);
    }
}

#[test]
fn what_is_wrong_has_its_place() {
    let check = |text: &str, place: &str, reason: &str| {
        let refused = imported(&wish(text)).unwrap_err();
        let [Misfit { place: at, reason: why }] = &refused.problems[..] else { panic!("{refused:?}") };
        assert_eq!((at.as_str(), refused.can_be_left_out), (place, true), "{text}: {refused:?}");
        assert!(why.contains(reason), "{text}: {why}");
        let lenient = imported(&Wish { is_lenient: true, ..wish(text) }).unwrap();
        assert_eq!((lenient.left_out.len(), lenient.hooks.len()), (1, 1), "{text}: {lenient:?}");
    };
    check(
        "hooks:\n  pre_task: [a/b.sh]\n  task.complete: []\n",
        "bernstein.yaml:3:3 (hooks.task.complete)",
        "expected an event of Bernstein, such as pre_task or task.completed, found \"task.complete\"; did you mean",
    );
    check(
        "hooks:\n  pre_task:\n    - a/b.sh\n    - {type: webhook, url: x}\n",
        "bernstein.yaml:4:7 (hooks.pre_task[1])",
        "the documentation has those for events such as task.completed",
    );
    check(
        "hooks:\n  task.failed: [x.sh, {type: script, command: a}]\n",
        "bernstein.yaml:2:17 (hooks.task.failed[0])",
        "`type`",
    );
    check(
        "hooks:\n  task.failed:\n    - {type: script, command: a}\n    - {type: webhook, url: \"${A}${B}\"}\n",
        "bernstein.yaml:4:28 (hooks.task.failed[1].url)",
        "expected one variable, or text around it, found several",
    );
    check(
        "notifications:\n  sinks:\n    - {id: a, kind: shell, command: [x]}\n    - {id: b, kind: email_smtp}\n",
        "bernstein.yaml:4:21 (notifications.sinks[1].kind)",
        "no hook sends mail by itself: a shell sink can call a program that sends it",
    );
}

#[test]
fn what_cannot_be_read_at_all() {
    for (text, reason) in [
        (&b"hooks: [\xff"[..], "UTF-8"),
        (b"hooks: [", "expected valid YAML"),
        (b"- a", "a map with `hooks` or `notifications`"),
    ] {
        let refused = imported(&Wish { bytes: text, ..wish("") }).unwrap_err();
        assert!(refused.problems[0].reason.contains(reason), "{refused:?}");
    }
    let nothing = imported(&wish("goal: x\n")).unwrap();
    assert!(nothing.hooks.is_empty() && nothing.yaml.ends_with("hooks: []\n"), "{}", nothing.yaml);
}

#[test]
fn secrets_are_in_no_problem() {
    for text in [
        "hooks: {task.failed: [{type: webhook, url: x, secret: [hunter2]}]}",
        "hooks: {task.failed: [{type: webhook, url: 'https://e/{{hunter2'}]}",
        "webhooks: [{url: x, auth: {type: hmac, secret: '${hunter2'}}]",
        "notifications: {sinks: [{id: a, kind: telegram, chat_id: 1, token: '${hunter2'}]}",
    ] {
        let refused = imported(&wish(text)).unwrap_err();
        let shown = format!("{refused:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn scripts_start_in_the_folder_of_the_file() {
    for (file, folder) in [
        ("bernstein.yaml", None),
        ("./bernstein.yaml", None),
        ("a/b/bernstein.yaml", Some("a/b")),
        ("/bernstein.yaml", Some("/")),
    ] {
        let found = imported(&Wish { file, ..wish("hooks: {pre_task: [scripts/a.sh]}") }).unwrap();
        let cwd = folder.map_or_else(|| "] }".to_owned(), |folder| format!("], cwd: {folder:?} }}"));
        assert!(found.yaml.contains(&format!("argv: [\"scripts/a.sh\"{cwd}")), "{}", found.yaml);
    }
}

#[test]
fn a_listing_is_read_back() {
    let scripts = ["pre_task.sh", "on_task_failed/a: b"].map(str::to_owned);
    let found = imported(&wish(&Found::OF_BERNSTEIN.list(&scripts))).unwrap();
    let beside = imported(&Wish { scripts: &scripts, ..wish("") }).unwrap();
    assert_eq!((found.hooks.len(), &found.hooks), (2, &beside.hooks));
    assert_eq!(found.hooks[1].name, ".bernstein/hooks/on_task_failed/a: b");
}
