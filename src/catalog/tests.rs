use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::files::Files;
use super::*;
use crate::domain::event::{self, Event};
use crate::domain::hook::{Action, Hook, HookLane, HttpAction, Mode, OnFailure};
use crate::domain::invocation::Invocation;
use crate::domain::message::Message;
use crate::domain::pattern::{Glob, Pattern};
use crate::domain::request::{Request, Shown};
use crate::domain::retry::RetryPolicy;

mod commands;
mod conditions;
mod credentials;
mod dialects;
mod events;
mod http;
mod publish;
mod secrets;

const HINT_MAX: Duration = Duration::from_secs(1234);
const TERMS: Terms<'_> = Terms { hint_max: HINT_MAX, env: &env, egress: &[], callbacks: None };

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("hunter2".into()),
        "BROKEN" => Some("hunter2\n".into()),
        "URL" => Some("https://hooks.example.com/hunter2".into()),
        "USER_URL" => Some("https://fleet:hunter2@hooks.example.com/".into()),
        _ => None,
    }
}

fn read(text: &str) -> Result<HookSet, Problems> {
    parse(text, "hooks.yaml", &TERMS).map(|catalog| catalog.hooks)
}

/// The problems of a file, one in a line.
fn check_file(text: &str, expected: &[&str]) {
    let problems = match read(text) {
        Ok(set) => panic!("{} hooks and no problem in {text}", set.hooks().len()),
        Err(problems) => problems,
    };
    let shown: Vec<String> = problems.list().iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(shown, expected, "{text}");
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}

/// The problems of a hook that lacks nothing else.
fn check(fields: &str, expected: &[&str]) {
    let mut text = String::from("version: 1\nhooks:\n  - id: a\n");
    for (name, default) in [("on", "a.b"), ("run", "{ command: { argv: [x] } }")] {
        if !fields.lines().any(|line| line.split(':').next() == Some(name)) {
            let _ = writeln!(text, "    {name}: {default}");
        }
    }
    for line in fields.lines() {
        let _ = writeln!(text, "    {line}");
    }
    check_file(&text, expected);
}

#[test]
fn hooks_are_read() {
    let text = r#"
version: 1
hooks:
  - id: full
    on: ["task.failed", "agent.*"]
    run: { http: { url: "${env:URL}?a=1", headers: { Authorization: "Bearer ${env:TOKEN}", x-empty: "" } } }
    timeout: 1.5s
    retry: { attempts: 3, backoff: { initial: 2s, factor: 1.5, max: 1m, jitter: 0 }, give_up_after: 10m }
    concurrency: 7
    concurrency_fleet: 20
    rate: 120/m
    lane: slow
  - id: plain
    on: "**"
    run: { command: { argv: [python3, "a b", ""], env: { A: "x${env:TOKEN}y" }, cwd: /srv } }
    retry:
"#;
    let set = read(text).unwrap();
    let [full, plain] = set.hooks() else { panic!("{set:?}") };
    assert_eq!(full.on.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["task.failed", "agent.*"]);
    let Action::Http(http) = &full.action else { panic!("{full:?}") };
    assert_eq!(http.url.expose().as_str(), "https://hooks.example.com/hunter2?a=1");
    let headers: Vec<_> = http.headers.iter().map(|(name, value)| (name.as_str(), value.prefix())).collect();
    assert_eq!(headers, [("authorization", "Bearer hunter2"), ("x-empty", "")]);
    assert_eq!((full.timeout, full.concurrency), (Duration::from_millis(1500), 7));
    assert_eq!((full.concurrency_fleet, full.lane), (Some(20), HookLane::Slow));
    assert_eq!(full.rate.unwrap().interval, Duration::from_millis(500));
    let retry = RetryPolicy {
        attempts: 3,
        initial: Duration::from_secs(2),
        factor: 1.5,
        max: Duration::from_mins(1),
        jitter: 0.0,
        give_up_after: Duration::from_mins(10),
        hint_max: HINT_MAX,
        in_run: None,
    };
    assert_eq!(full.retry, retry);

    let Action::Command(command) = &plain.action else { panic!("{plain:?}") };
    assert_eq!(command.argv, ["python3", "a b", ""]);
    let variables: BTreeMap<_, _> = command.env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(variables["A"], "xhunter2y");
    assert_eq!(command.cwd.as_deref(), Some(Path::new("/srv")));
    let defaults = Hook { retry: RetryPolicy { hint_max: HINT_MAX, ..Default::default() }, ..(**plain).clone() };
    assert_eq!(**plain, defaults);
    assert_eq!((plain.timeout, plain.concurrency), (Duration::from_secs(10), 64));
    assert_eq!((plain.concurrency_fleet, plain.rate, plain.lane), (None, None, HookLane::Default));
    assert!(!format!("{set:?}").contains("hunter2"));
}

#[test]
fn no_hooks_are_fine() {
    for text in ["version: 1", "version: 1\nhooks:\n", "version: 1\nhooks: []\n"] {
        assert!(read(text).unwrap().hooks().is_empty(), "{text}");
    }
}

#[test]
fn the_revision_is_the_digest_of_the_text() {
    let revision = |text: &str| read(text).unwrap().revision().to_owned();
    assert_eq!(revision("version: 1").to_string(), "1a6ddd3533d9");
    assert_ne!(revision("version: 1"), revision("version: 1\n"));
}

#[test]
fn whole_files() {
    check_file("", &["1:1: expected a field `version`, found none"]);
    check_file("hooks: []", &["1:1: expected a field `version`, found none"]);
    check_file("version: 2\nnews: 1", &["1:10 version: expected version `1`, the only one so far, found \"2\""]);
    check_file("version: 1\nhooks: x", &["2:8 hooks: expected a list, found \"x\""]);
    check_file(
        "version: 1\nhook: []",
        &["2:1 hook: expected one of `version`, `defaults`, `targets`, `hooks`, `events`, found `hook`"],
    );
    check_file(
        "version: 1\nhooks:\n  - x\n  -\n",
        &[
            "3:5 hooks[0]: expected a map, found \"x\"",
            "4:4 hooks[1]: expected a field `id`, found none",
            "4:4 hooks[1]: expected a field `on`, found none",
            "4:4 hooks[1]: expected a field `run`, found none",
        ],
    );
    check_file(
        "version: 1\nhooks:\n  - { id: a, on: x, run: { command: { argv: [x] } } }\n  - { id: a }\n",
        &[
            "4:5 hooks[1]: expected a field `on`, found none",
            "4:5 hooks[1]: expected a field `run`, found none",
            "4:11 hooks[1].id: expected an id that no other hook has, found \"a\" on line 4, which the hook on line 3 \
             has already",
        ],
    );
}

#[test]
fn fields() {
    check(
        "timeout: 10 parsecs",
        &["6:14 hooks[0].timeout: expected a duration such as 500ms, 10s, 5m, 1h or 7d, found \"10 parsecs\""],
    );
    check("timeout: 0s", &["6:14 hooks[0].timeout: expected a duration from 1ms to 1d, found \"0s\""]);
    check("timeout: 25h", &["6:14 hooks[0].timeout: expected a duration from 1ms to 1d, found \"25h\""]);
    check("concurrency: 0", &["6:18 hooks[0].concurrency: expected a whole number from 1 to 100000, found \"0\""]);
    check("on: []", &["5:9 hooks[0].on: expected at least one event type or pattern, found an empty list"]);
    check(
        "on: [a..b, 'a*', {}]",
        &[
            "5:10 hooks[0].on[0]: expected segments between the dots, found an empty one in \"a..b\"",
            "5:16 hooks[0].on[1]: expected `*` or `**` to be a whole segment, found \"a*\" in \"a*\"",
            "5:22 hooks[0].on[2]: expected an event type or a pattern such as `task.*`, found a map",
        ],
    );
    let known = "expected one of `id`, `on`, `source`, `subject`, `when`, `mode`, `on_failure`, `enabled`, `paused`, \
                 `order`, `once_per`, `run`, `dialect`, `name`, `matcher`, `timeout`, `retry`, `concurrency`, `lane`, `labels`, \
                 `concurrency_fleet`, `rate`";
    check(
        "tiemout: 1s\nmods: gate",
        &[
            &format!("6:5 hooks[0].tiemout: {known}, found `tiemout`"),
            &format!("7:5 hooks[0].mods: {known}, found `mods`"),
        ],
    );
}

#[test]
fn capacities() {
    let expected = "expected runs in a second, minute, hour or day, such as 50/s, 100/m, 5/h or 1/d, found";
    for rate in ["50", "0/s", "x/s", "5/w", "-1/s", "5000000/s"] {
        check(&format!("rate: {rate}"), &[&format!("6:11 hooks[0].rate: {expected} \"{rate}\"")]);
    }
    check(
        "lane: fast\nconcurrency_fleet: 0",
        &[
            "6:11 hooks[0].lane: expected `default` or `slow`, found \"fast\"",
            "7:24 hooks[0].concurrency_fleet: expected a whole number from 1 to 1000000, found \"0\"",
        ],
    );
}

#[test]
fn retries() {
    check(
        "retry: { attempts: 0 }",
        &["6:24 hooks[0].retry.attempts: expected a whole number from 1 to 100, found \"0\""],
    );
    check(
        "retry: { give_up_after: 0 }",
        &["6:29 hooks[0].retry.give_up_after: expected a duration from 1ms to 365d, found \"0\""],
    );
    check(
        "retry: { attempts: 101, backoff: { initial: 0s, factor: 0.5, jitter: 1.5, min: 1s }, foo: 1 }",
        &[
            "6:24 hooks[0].retry.attempts: expected a whole number from 1 to 100, found \"101\"",
            "6:49 hooks[0].retry.backoff.initial: expected a duration from 1ms to 365d, found \"0s\"",
            "6:61 hooks[0].retry.backoff.factor: expected a number from 1 to 1000, found \"0.5\"",
            "6:74 hooks[0].retry.backoff.jitter: expected a number from 0 to 1, found \"1.5\"",
            "6:79 hooks[0].retry.backoff.min: expected one of `initial`, `max`, `factor`, `jitter`, found `min`",
            "6:90 hooks[0].retry.foo: expected one of `attempts`, `give_up_after`, `backoff`, found `foo`",
        ],
    );
    let too_long = "expected `initial` to be at most `max`, found";
    check(
        "retry: { backoff: { initial: 2h } }",
        &[&format!("6:34 hooks[0].retry.backoff.initial: {too_long} 2h and 1h")],
    );
    check("retry: { backoff: { max: 0.5s } }", &[&format!("6:30 hooks[0].retry.backoff.max: {too_long} 1s and 500ms")]);
}

#[test]
fn actions() {
    check(
        "run: {}",
        &[
            "5:10 hooks[0].run: expected one of `http`, `command`, `callback`, `publish`, `prompt`, `agent` and `mcp_tool`, found none",
        ],
    );
    check(
        "run: { htpt: {} }",
        &[
            "5:12 hooks[0].run.htpt: expected one of `http`, `command`, `callback`, `publish`, `prompt`, `agent`, `mcp_tool`, found `htpt`",
        ],
    );
    check(
        "run: { http: { url: 'http://a' }, command: { argv: [x] } }",
        &[
            "5:10 hooks[0].run: expected one of `http`, `command`, `callback`, `publish`, `prompt`, `agent` and `mcp_tool`, found several",
        ],
    );
    check(
        "run: { command: { argv: [], env: { 'A=B': x }, cwd: '', shall: true } }",
        &[
            "5:29 hooks[0].run.command.argv: expected a program and its arguments, found an empty list",
            "5:40 hooks[0].run.command.env.A=B: expected the name of an environment variable, found \"A=B\"",
            "5:57 hooks[0].run.command.cwd: expected a folder, found \"\"",
            "5:61 hooks[0].run.command.shall: expected one of `argv`, `shell`, `env`, `cwd`, `exit_codes`, `limits`, \
             `no_new_privileges`, `files`, found `shall`",
        ],
    );
    check(
        "run: { command: { argv: ['', '${env:TOKEN}', '${HOME}'] } }",
        &[
            "5:30 hooks[0].run.command.argv[0]: expected the name or path of a program, found \"\"",
            "5:34 hooks[0].run.command.argv[1]: expected an argument that says all by itself, found \"${env:TOKEN}\"",
        ],
    );
}

#[test]
fn problems_are_laid_out_with_their_line() {
    let text =
        "version: 1\nhooks:\n  - id: a\n    on: x\n    run: { http: { url: 'http://a?hunter2' } }\n    tiemout: 3\n";
    let expected = "\
error: expected one of `id`, `on`, `source`, `subject`, `when`, `mode`, `on_failure`, `enabled`, `paused`, `order`, `once_per`, `run`, `dialect`, `name`, `matcher`, `timeout`, `retry`, `concurrency`, `lane`, `labels`, `concurrency_fleet`, `rate`, found `tiemout`
 --> hooks.yaml:6:5 (hooks[0].tiemout)
  |
6 |     tiemout: *
  |     ^^^^^^^
  = help: did you mean `timeout`?

1 problem";
    assert_eq!(read(text).unwrap_err().to_string(), expected);
}

#[test]
fn a_file_that_is_not_there() {
    let problems = Files::native(Path::new("no/such.yaml")).load(&TERMS).unwrap_err();
    let expected = "\
error: expected a file that can be read, found No such file or directory (os error 2)
 --> no/such.yaml

1 problem";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn the_shipped_catalog_loads_without_any_variable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/hooks.yaml");
    let terms = Terms { env: &|_| None, ..TERMS };
    let set = Files::native(&path).load(&terms).unwrap_or_else(|problems| panic!("{problems}")).hooks;
    let ids: Vec<&str> = set.hooks().iter().map(|hook| hook.id.as_str()).collect();
    assert_eq!(ids, ["notify-oncall", "build-failed", "audit-log", "validate-task", "weekly-report"]);
    assert_eq!(set.revision().to_string().len(), DIGEST_CHARS);
}

#[test]
fn a_folder_is_one_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let hook =
        |id: &str| format!("version: 1\nhooks:\n  - {{ id: {id}, on: a.b, run: {{ command: {{ argv: [x] }} }} }}\n");
    let refused = || Files::native(folder.path()).load(&TERMS).unwrap_err().to_string();
    assert!(refused().contains("expected a folder with *.yaml files, found none in it"));
    file("b.yml", &hook("b"));
    file("a.yaml", &hook("a"));
    file(".#a.yaml", "an editor's");
    file("notes.txt", "no hooks");
    let ids = |catalog: Catalog| catalog.hooks.hooks().iter().map(|hook| hook.id.to_string()).collect::<Vec<_>>();
    assert_eq!(Files::native(folder.path()).load(&TERMS).map(ids), Ok(vec!["a".to_owned(), "b".to_owned()]));
    file("c.yaml", &hook("a"));
    file("d.yaml", "version: 2");
    let (refused, first) = (refused(), folder.path().join("a.yaml"));
    let twice = format!("found \"a\" on line 3, which the hook on line 3 of {} has already", first.display());
    assert!(refused.contains(&twice), "{refused}");
    assert!(refused.contains("d.yaml:1:10") && refused.ends_with("2 problems"), "{refused}");
}
