use serde_json::{Value, json};

use super::*;
use crate::dialect;
use crate::dialect::import::Source;

const FILE: &str = include_str!("../../../../tests/imports/kheish/hooks.json");
const YAML: &str = include_str!("../../../../tests/imports/kheish/hooks.yaml");

fn wish(text: &str) -> Wish<'_> {
    Wish { bytes: text.as_bytes(), file: "hooks.json", prefix: "kheish", is_lenient: false, runs: None, scripts: &[] }
}

fn imported(wish: &Wish<'_>) -> Result<Imported, Refused> {
    dialect::import(Source::Kheish, wish)
}

/// A file with one hook.
fn one(event: &str, hook: &Value) -> String {
    json!({ "schema_version": 1, "hooks": { event: [hook] } }).to_string()
}

fn command(command: &str) -> Value {
    json!({ "name": "h", "executor": { "type": "command", "command": command } })
}

/// The item of the only hook, from its id on, without comments.
fn check(event: &str, hook: &Value, expected: &str) {
    let text = one(event, hook);
    let yaml = imported(&wish(&text)).unwrap_or_else(|refused| panic!("{refused:?}")).yaml;
    let (_, item) = yaml.split_once("hooks:\n").unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with('#') && !line.is_empty();
    let item: Vec<&str> = item.lines().filter(is_code).collect();
    assert_eq!(item, expected.lines().collect::<Vec<_>>(), "{hook}");
}

/// All that is said of the only hook of a file, but for what is so for all of its kind.
fn remarks(event: &str, hook: &Value) -> Vec<String> {
    let imported = imported(&wish(&one(event, hook))).unwrap();
    let own = imported.remarks.iter().filter(|remark| !remark.is_general);
    own.map(Remark::sentences).collect()
}

fn check_remark(event: &str, hook: &Value, expected: &[&str]) {
    let found = remarks(event, hook);
    let all = found.len() == expected.len() && found.iter().zip(expected).all(|(found, part)| found.contains(part));
    assert!(all, "{hook}: expected {expected:?}, found {found:?}");
}

#[test]
fn a_file_of_all_kinds() {
    let found = imported(&wish(FILE)).unwrap();
    assert_eq!(found.yaml, YAML);
    assert_eq!(found.programs, ["/bin/bash", "/bin/sh"]);
    assert!(found.left_out.is_empty());
    let hooks: Vec<_> = found.hooks.iter().map(|hook| (hook.id.as_str(), hook.name.as_str(), hook.enabled)).collect();
    let expected = [
        ("kheish.pre_tool_use.no-force-push", "no force push", true),
        ("kheish.pre_tool_use.ledger", "ledger", true),
        ("kheish.permission_request.judge", "judge", false),
        ("kheish.stop.never", "never", true),
        ("kheish.task_completed.review", "review", false),
        ("kheish.notification.tell", "tell", true),
        ("kheish.notification.tell-2", "tell", true),
    ];
    assert_eq!(hooks, expected);
    let other = imported(&Wish { prefix: "team.a", ..wish(FILE) }).unwrap();
    assert_eq!(other.hooks[1].id, "team.a.pre_tool_use.ledger");
}

#[test]
fn hooks_are_written_with_all_that_matters() {
    check(
        "pre_tool_use",
        &json!({ "name": "bash-guard", "matcher": "bash*", "failure_policy": { "mode": "closed", "max_retries": 1 },
                 "executor": { "type": "command", "command": "/x \"$A\" \\\n b", "timeout_ms": 2500 } }),
        "  - id: kheish.pre_tool_use.bash-guard\n    name: bash-guard\n    dialect: kheish\n    on: kheish.pre_tool_use\n    \
         matcher: \"bash*\"\n    mode: gate\n    on_failure: closed\n    timeout: 2500ms\n    retry: { attempts: 2 }\n    \
         run:\n      command: { argv: [\"/bin/bash\", \"-lc\", \"/x \\\"$A\\\" \\\\\\n b\"] }\n",
    );
    let agent = json!({ "name": "7", "matcher": "", "executor": { "type": "agent", "template": "a\nb: {{payload}}",
        "tool_surface": { "denylist": ["bash"], "allowlist": ["x"] }, "model": { "generation": { "model": "m", "temperature": 0.2 } } } });
    check(
        "session_end",
        &agent,
        "  - id: kheish.session_end.7\n    name: \"7\"\n    dialect: kheish\n    on: kheish.session_end\n    enabled: false\n    \
         timeout: 30s\n    retry: { attempts: 1 }\n    run:\n      agent:\n        template: \"a\\nb: {{payload}}\"\n        \
         model: { generation: { model: \"m\", temperature: 0.2 } }\n        \
         tool_surface: { allowlist: [\"x\"], denylist: [\"bash\"] }\n",
    );
}

/// Closed means something only where the answer does.
#[test]
fn answers_that_are_ignored_make_observers() {
    let closed =
        json!({ "name": "h", "failure_policy": { "mode": "closed" }, "executor": { "type": "callback", "name": "a" } });
    for event in EventName::ALL {
        let yaml = imported(&wish(&one(event.snake, &closed))).unwrap().yaml;
        let ignored = rules::ignores_answers(&event);
        assert_eq!(yaml.contains("mode: gate\n"), !ignored, "{yaml}");
        assert_eq!(yaml.contains("on_failure: closed\n"), !ignored, "{yaml}");
    }
    let callback = "The callback \"a\" is code inside";
    check_remark(
        "notification",
        &closed,
        &["Kheish ignores what hooks of notification", "closed` means nothing", callback],
    );
    check_remark("pre_tool_use", &closed, &[callback]);
}

#[test]
fn what_is_not_the_same_is_told() {
    let plain = command("/bin/true");
    check_remark("pre_tool_use", &plain, &[]);
    check_remark("pre_tool_use", &command("./guard.sh --strict"), &["acts on the machine of the event: `./guard.sh`"]);
    check_remark("pre_compact", &plain, &["no place of it is known that raises it"]);
    check_remark("stop", &plain, &["completed only"]);
    let matched = |matcher: &str| json!({ "name": "h", "matcher": matcher, "executor": plain["executor"] });
    check_remark("setup", &matched("startup"), &["never runs, there or here: the subject of setup is always init"]);
    check_remark("session_start", &matched("resum?"), &[]);
    check_remark("elicitation", &matched("*"), &["Kheish ignores"]);
    check_remark("elicitation_result", &matched("x"), &["Kheish ignores", "always approvals"]);
    check_remark("pre_tool_use", &matched("bash|edit"), &["`|` stands for itself"]);
    check_remark("pre_tool_use", &matched("^bash"), &["`^` stands for itself"]);
    check_remark("file_changed", &matched("/w/[a](1)"), &[]);
    check_remark("file_changed", &matched("*.rs|*.toml"), &["`|` stands for itself"]);
    let shell = json!({ "name": "h", "executor": { "type": "command", "command": "true", "shell": "/bin/bash -e" } });
    check_remark("setup", &shell, &["is one name of a program"]);
    let http = |url: &str| json!({ "name": "h", "executor": { "type": "http", "url": url } });
    check_remark("setup", &http("https://a.example/x"), &[]);
    check_remark(
        "setup",
        &http("https://168.63.129.16/"),
        &["a cloud metadata address (168.63.129.16), which Kheish calls"],
    );
    check_remark("setup", &http("https://a.example/?q={{x}}"), &["is written as `%7B`"]);
    let prompt = json!({ "name": "h", "failure_policy": { "mode": "closed" }, "executor": { "type": "prompt", "template": "x" } });
    check_remark(
        "setup",
        &prompt,
        &[
            "No prompt hook runs in this version: it is taken over with all its fields, and switched off; its failures block",
        ],
    );
    let agent = json!({ "name": "h", "executor": { "type": "agent", "template": "x" } });
    check_remark("setup", &agent, &["No agent hook runs", "may use no tool"]);
    let unknown = json!({ "name": "h", "enabled": false, "executor": plain["executor"] });
    check_remark("setup", &unknown, &["passes over the field `hooks.setup[0].enabled`"]);
}

#[test]
fn what_is_so_for_all_is_told_once() {
    let hooks = json!([command("/bin/a"), { "name": "i", "executor": command("/bin/b")["executor"] }]);
    let file = json!({ "hooks": { "pre_tool_use": hooks, "cwd_changed": hooks }, "note": 1 }).to_string();
    let found = imported(&wish(&file)).unwrap();
    let told = |part: &str| found.remarks.iter().filter(|remark| remark.change.contains(part)).collect::<Vec<_>>();
    let yaml = found.yaml.replace("\n# ", " ");
    for part in ["login shell", "variables of commands.env", "Plain text as the answer"] {
        let [remark] = told(part)[..] else { panic!("{part}: {:?}", found.remarks) };
        assert_eq!(
            (remark.hooks.len(), remark.events.as_slice()),
            (4, ["pre_tool_use".to_owned(), "cwd_changed".to_owned()].as_slice())
        );
        assert_eq!(yaml.matches(part).count(), 1, "{yaml}");
    }
    assert_eq!(told("Order matters")[0].events, ["pre_tool_use"]);
    assert_eq!(told("run at the same time")[0].events, ["cwd_changed"]);
    assert!(told("the field `note` at the top")[0].hooks.is_empty());
    assert!(found.yaml.contains("# Kheish passes over the field `note` at the top"), "{}", found.yaml);
}

#[test]
fn hooks_of_one_name_are_told() {
    let hook = command("/bin/a");
    let file =
        json!({ "hooks": { "stop": [hook, hook, { "name": "H", "executor": hook["executor"] }], "setup": [hook] } })
            .to_string();
    let found = imported(&wish(&file)).unwrap();
    let same: Vec<_> = found.remarks.iter().filter(|remark| remark.change.contains("same name")).collect();
    assert_eq!(same.len(), 1);
    assert_eq!(same[0].hooks, ["kheish.stop.h", "kheish.stop.h-2"]);
}

#[test]
fn the_load_is_told() {
    let check = |file: &Value, expected: &[&str]| {
        assert_eq!(imported(&wish(&file.to_string())).unwrap().load, expected, "{file}");
    };
    let (run, off) = (command("/bin/a"), json!({ "name": "p", "executor": { "type": "prompt", "template": "x" } }));
    check(&json!({ "hooks": {} }), &[]);
    check(&json!({ "hooks": { "stop": [run, run] } }), &["Load: runs for each event, at most: stop 2."]);
    check(
        &json!({ "hooks": { "pre_tool_use": [run, run], "post_tool_use": [run], "post_tool_use_failure": [run, run],
            "permission_request": [run, off], "file_changed": [run], "setup": [run], "stop": [off] } }),
        &[
            "Load: a tool call makes at most 5 runs and those for files: 2 before it (pre_tool_use), 1 where it has to be \
             permitted (permission_request), 1 behind it (post_tool_use), 2 where it fails (post_tool_use_failure), 1 for each \
             file that it reads or changes (file_changed).",
            "Load: runs for each event, at most: setup 1.",
            "2 of 10 hooks are switched off, and make no load.",
        ],
    );
}

fn refused(text: &str) -> String {
    let Refused { problems, mut notes, can_be_left_out } = imported(&wish(text)).unwrap_err();
    notes.extend(can_be_left_out.then(|| "the rest can be taken over".to_owned()));
    let lines: Vec<String> = problems.iter().map(Misfit::to_string).chain(notes).collect();
    lines.join("\n") + "\n"
}

#[test]
fn files_that_kheish_does_not_use_are_refused() {
    let none = "no hook of it runs there as it is\n";
    let disabled = format!("Kheish starts with all hooks disabled on such a file: {none}");
    let aside = format!("Kheish moves such a file aside and starts without hooks: {none}");
    assert_eq!(refused("{"), format!("hooks.json:1:1: expected JSON: EOF while parsing an object\n{aside}"));
    let version = "hooks.json:1:20 (schema_version): unsupported hook settings schema_version 2; expected 1\n";
    assert_eq!(refused("{\"schema_version\": 2}"), format!("{version}{disabled}"));
    let lenient = "the rest can be taken over\n";
    let hook = json!({ "name": "h", "executor": { "type": "http", "url": "http://10.0.0.1/" } });
    let private = "SessionEnd[0]:h: HTTP hook URL must not target private or local addresses\n";
    let found = refused(&one("session_end", &hook));
    assert_eq!(found, format!("hooks.json:1:59 (hooks.session_end[0].executor.url): {private}{disabled}{lenient}"));
    let twice = "hooks.json:1:21 (hooks): expected each key once in an object\n";
    let dropped = "Kheish takes the last one and drops those before it without a word\n";
    assert_eq!(refused("{\"hooks\":{},\"hooks\":{}}"), format!("{twice}{dropped}"));
    let empty = imported(&wish("{}")).unwrap();
    assert!(
        empty.yaml.ends_with("version: 1\nhooks: []\n") && empty.remarks[0].change.contains("no hooks"),
        "{empty:?}"
    );
}

#[test]
fn hooks_that_cannot_be_the_same_are_refused() {
    let check = |hook: &Value, place: &str, reason: &str| {
        let found = refused(&one("stop", hook));
        assert!(found.contains(&format!("(hooks.stop[0].executor.{place}): Stop[0]:h: ")), "{found}");
        assert!(found.contains(reason) && found.contains("the rest can be taken over"), "{found}");
        let text = one("stop", hook);
        let lenient = imported(&Wish { is_lenient: true, ..wish(&text) }).unwrap();
        assert!(
            lenient.hooks.is_empty() && lenient.left_out.len() == 1 && lenient.yaml.contains("# Left out: "),
            "{lenient:?}"
        );
    };
    check(&command("echo ${env:-prod}"), "command", "`${env:`, which is a reference");
    check(&command("echo \0"), "command", "it has a NUL");
    let shell = json!({ "name": "h", "executor": { "type": "command", "command": "x", "shell": "/a${file:b}" } });
    check(&shell, "shell", "`${file:`");
    let callback = json!({ "name": "h", "executor": { "type": "callback", "name": "two words" } });
    check(&callback, "name", "a callback is registered here under");
    let long = json!({ "name": "x".repeat(257), "executor": command("x")["executor"] });
    assert!(refused(&one("stop", &long)).contains("(hooks.stop[0].name): Stop[0]:xxx"));
    let mut schema = json!({ "kind": "any" });
    for _ in 0..30 {
        schema = json!({ "kind": "array", "items": schema });
    }
    let format = json!({ "type": "structured_json", "schema": schema });
    let deep = json!({ "type": "prompt", "template": "x", "model": { "generation": { "response_format": format } } });
    check(&json!({ "name": "h", "executor": deep }), "model", "nested more than 24 deep");
}

/// What would run here and not there is told.
#[test]
fn the_rest_of_a_wrong_file_is_taken_over_if_wished() {
    let file = json!({ "hooks": { "Stop": [], "stop": [command(""), command("/bin/a")] } }).to_string();
    let found = imported(&Wish { is_lenient: true, ..wish(&file) }).unwrap();
    assert_eq!(found.hooks.len(), 1);
    let reasons: Vec<_> = found.left_out.iter().map(|left| format!("{}: {}", left.place, left.reason)).collect();
    assert!(reasons[0].contains("(hooks.Stop): unknown event"), "{reasons:?}");
    assert!(
        reasons[1].contains("(hooks.stop[0].executor.command): Stop[0]:h: command hook command is empty"),
        "{reasons:?}"
    );
    assert!(found.remarks[0].change.contains("No hook of this file runs in Kheish as it is"), "{:?}", found.remarks);
    for whole in ["{", "[]", "{\"schema_version\":2}", "{\"hooks\":{},\"hooks\":{}}"] {
        assert!(imported(&Wish { is_lenient: true, ..wish(whole) }).is_err(), "{whole}");
    }
}
