use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;
use crate::domain::event::{self, Event};
use crate::domain::glob::Glob;
use crate::domain::hook::{Action, Hook, HookLane, HttpAction, Mode, OnFailure, Pattern};
use crate::domain::invocation::Invocation;
use crate::domain::message::Message;
use crate::domain::request::{Request, Shown};
use crate::domain::retry::RetryPolicy;

const HINT_MAX: Duration = Duration::from_secs(1234);
const TERMS: Terms<'_> = Terms { hint_max: HINT_MAX, env: &env, egress: &[] };

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

/// The problems of the http action of an otherwise good hook.
fn check_http(http: &str, expected: &[&str]) {
    check(&format!("run: {{ http: {http} }}"), expected);
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

/// The warnings of a file that is fine else, one in a line.
fn check_warnings(hooks: &str, expected: &[&str]) {
    let catalog = parse(&format!("version: 1\nhooks:\n{hooks}"), "hooks.yaml", &TERMS).unwrap();
    let shown: Vec<String> = catalog.warnings.iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(shown, expected, "{hooks}");
}

#[test]
fn unsafe_targets() {
    let warning =
        "3:34 hooks[0].run.http: expected a target that this process may call, found a loopback address (127.0.0.0/8)";
    check_warnings("  - { id: a, on: a, run: { http: { url: 'http://127.1/hunter2' } } }", &[warning]);
    check_warnings("  - { id: a, on: a, run: { http: { url: 'http://localhost/hunter2' } } }", &[]);
}

#[test]
fn which_events_a_hook_wants() {
    let text = r#"
version: 1
defaults: { timeout: 3s, concurrency: 9, lane: slow, retry: { attempts: 4, backoff: { initial: 5s } }, labels: { team: a, tier: "1" } }
hooks:
  - id: last
    order: 7
    on: a.b
    source: /tasks/*
    subject: [task-?, "x*"]
    when: event.data.severity in ["error", "critical"]
    enabled: false
    paused: true
    labels: { team: b }
    once_per: { key: event.data.run, window: 10m }
    retry: { attempts: 2 }
    run: { command: { argv: [x] } }
  - { id: first, on: a.b, order: -1, mode: gate, on_failure: closed, timeout: 1s, run: { command: { argv: [x] } } }
  - { id: middle, on: a.b, mode: gate, run: { command: { argv: [x] } } }
"#;
    let set = read(text).unwrap();
    let [first, middle, last] = set.hooks() else { panic!("{set:?}") };
    let globs = |globs: &[Glob]| globs.iter().map(|glob| glob.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(
        (globs(&last.source), globs(&last.subject)),
        (vec!["/tasks/*".into()], vec!["task-?".into(), "x*".into()])
    );
    assert_eq!(last.when.as_ref().unwrap().as_str(), "event.data.severity in [\"error\", \"critical\"]");
    assert_eq!((last.enabled, last.paused, last.order, last.mode), (false, true, 7, Mode::Observe));
    assert_eq!(
        last.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(),
        [("team", "b"), ("tier", "1")]
    );
    let once = last.once_per.as_ref().unwrap();
    assert_eq!((once.key.as_str(), once.window), ("event.data.run", Duration::from_mins(10)));
    assert_eq!((last.timeout, last.concurrency, last.lane), (Duration::from_secs(3), 9, HookLane::Slow));
    assert_eq!((last.retry.attempts, last.retry.initial), (2, Duration::from_secs(5)));
    assert_eq!((first.mode, first.timeout), (Mode::Gate(OnFailure::Closed), Duration::from_secs(1)));
    assert_eq!((middle.mode, middle.retry.attempts), (Mode::Gate(OnFailure::Open), 4));
}

#[test]
fn wrong_conditions() {
    check(
        "when: event.tpye == 'a' && evnt.id == ''",
        &["6:11 hooks[0].when: expected names that exist: `event`, and the variables of loops, found `evnt`"],
    );
    check(
        "when: event.data.name.startWith('a')",
        &["6:11 hooks[0].when: expected functions that exist, found `startWith`"],
    );
    check(
        "source: []\nsubject: ''",
        &[
            "6:13 hooks[0].source: expected at least one glob, found an empty list",
            "7:14 hooks[0].subject: expected a text in which `*` is any run of characters and `?` any one, found an empty one",
        ],
    );
    check(
        "once_per: { window: 1ms }\nenabled: yes\norder: 1.5\nlabels: { a b: 1 }",
        &[
            "6:15 hooks[0].once_per: expected a field `key`, found none",
            "6:25 hooks[0].once_per.window: expected a duration from 1s to 30d, found \"1ms\"",
            "7:14 hooks[0].enabled: expected `true` or `false`, found \"yes\"",
            "8:12 hooks[0].order: expected a whole number from -1000000 to 1000000, found \"1.5\"",
            "9:15 hooks[0].labels.a b: expected a name of at most 64 letters, digits, `.`, `_`, `-` or `/`, found \"a b\"",
        ],
    );
    check(
        "on_failure: closed",
        &["6:17 hooks[0].on_failure: expected `on_failure` with `mode: gate` only, found it with another mode"],
    );
}

#[test]
fn what_is_most_likely_not_meant() {
    check_warnings(
        "  - { id: a, on: [a.*, a.b, a.*], mode: gate, run: { command: { argv: [x] } } }",
        &[
            "3:24 hooks[0].on[1]: expected patterns that each match something more, found `a.b`, which `a.*` matches already",
            "3:29 hooks[0].on[2]: expected patterns that each match something more, found `a.*`, which `a.*` matches already",
            "3:41 hooks[0].mode: expected `observe`, since this version asks no gates yet: no event runs this hook, found `gate`",
        ],
    );
}

#[test]
fn targets_and_templates() {
    let text = r#"
version: 1
targets:
  chat: { url: "https://chat.example.com/${env:TOKEN}/", headers: { authorization: "Bearer ${env:TOKEN}", x-a: shared } }
hooks:
  - id: whole
    on: a.b
    run: { http: { target: chat } }
  - id: behind
    on: a.b
    run: { http: { target: chat, path: "/rooms/{{ event.data.room }}", headers: { X-A: own }, body: '{"text":"{{ event.subject }}"}' } }
  - id: written
    on: a.b
    run: { http: { url: "https://x.example.com:8443/{{ event.id }}", headers: { content-type: text/plain }, body: "{{ event.subject }}" } }
"#;
    let set = read(text).unwrap();
    let actions: Vec<_> = set
        .hooks()
        .iter()
        .map(|hook| {
            let Action::Http(http) = &hook.action else { panic!("{hook:?}") };
            http
        })
        .collect();
    let [whole, behind, _] = actions.as_slice() else { panic!("{set:?}") };
    assert_eq!(whole.url.expose().as_str(), "https://chat.example.com/hunter2/");
    assert_eq!(behind.url.expose().as_str(), "https://chat.example.com/hunter2/rooms/");
    let headers = |http: &HttpAction| {
        http.headers.iter().map(|(name, value)| format!("{name}: {}", value.prefix())).collect::<Vec<_>>()
    };
    assert_eq!(headers(whole), ["authorization: Bearer hunter2", "x-a: shared"]);
    assert_eq!(headers(behind), ["x-a: own", "authorization: Bearer hunter2"]);

    let body =
        r#"{"specversion":"1.0","id":"e/1","source":"/s","type":"a.b","subject":"say \"hi\"","data":{"room":"a b"}}"#;
    let message = Message { body: body.into(), ..Message::default() };
    let event = std::sync::Arc::new(Event::decode(&message, &event::Reading::default()).unwrap());
    let request = |number: usize| {
        let hook = &set.hooks()[number];
        let invocation = Invocation::first(std::sync::Arc::clone(&event), hook.id.clone(), "r".into());
        let request = Request::new(actions[number], hook, &invocation, "k").unwrap();
        let shown = Shown::new(actions[number], hook, &invocation, "k").unwrap();
        assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
        (request.url.to_string(), request.body.map(String::from), shown.url)
    };
    let url = |url: &str| url.to_owned();
    assert_eq!(request(0), (url("https://chat.example.com/hunter2/"), None, url("https://chat.example.com/[hidden]/")));
    assert_eq!(
        request(1),
        (
            url("https://chat.example.com/hunter2/rooms/a%20b"),
            Some(url(r#"{"text":"say \"hi\""}"#)),
            url("https://chat.example.com/[hidden]/rooms/a%20b"),
        )
    );
    assert_eq!(
        request(2),
        (url("https://x.example.com:8443/e%2F1"), Some(url(r#"say "hi""#)), url("https://x.example.com:8443/e%2F1"),)
    );
}

#[test]
fn wrong_targets_and_templates() {
    check_http(
        "{ url: 'https://{{ event.data.host }}/' }",
        &[
            "5:25 hooks[0].run.http.url: expected scheme, host and port written out, before the first `{{`, found a template among them",
        ],
    );
    check_http(
        "{ url: 'https://a{{ event.data.host }}/' }",
        &[
            "5:25 hooks[0].run.http.url: expected scheme, host and port written out, before the first `{{`, found a template among them",
        ],
    );
    check_http(
        "{ url: 'https://a/{{ evnt.id }}', headers: { a: '{{ x }}' }, body: '{% set x = 1 %}' }",
        &[
            "5:25 hooks[0].run.http.url: expected names that exist: `event`, `hook`, `key`, `attempt`, found `evnt`",
            "5:66 hooks[0].run.http.headers.a: expected names that exist: `event`, `hook`, `key`, `attempt`, found `x`",
            "5:85 hooks[0].run.http.body: expected statements that exist (if, elif, else, endif, for, endfor), found `set`",
        ],
    );
    check_http(
        "{ target: chat }",
        &["5:28 hooks[0].run.http.target: expected the name of one of the `targets`, found \"chat\""],
    );
    check_http(
        "{ url: 'https://a/', path: /x }",
        &["5:45 hooks[0].run.http.path: expected `path` with `target` only, found it beside `url`"],
    );
    check_file(
        "version: 1\ntargets: { chat: { url: 'ftp://hunter2' } }\nhooks: [{ id: a, on: a, run: { http: { target: chat } } }]",
        &["2:25 targets.chat.url: expected an http or https URL with a host, found another scheme"],
    );
    check_file(
        "version: 1\ntargets: { chat: { url: 'http://a' } }\nhooks: [{ id: a, on: a, run: { http: { target: chat, path: x } } }]",
        &[
            "3:60 hooks[0].run.http.path: expected what comes behind the URL of the target, from `/` or `?` on, found another beginning",
        ],
    );
    let unused = "version: 1\ntargets: { chat: { url: 'http://a' } }";
    let warnings = parse(unused, "hooks.yaml", &TERMS).unwrap().warnings;
    assert_eq!(
        warnings.iter().map(|warning| format!("{warning:#}")).collect::<Vec<_>>(),
        ["2:18 targets.chat: expected targets that hooks use, found `chat`, which none uses",]
    );
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

/// A line that is shown for something else may have any part of a file on it.
#[test]
fn what_nobody_looks_at_is_covered() {
    let hook = r#"id: a, on: x, run: { http: { url: "https://x/hunter2", headers: { a: "hunter2" } } }"#;
    for text in [
        format!("{{ version: 2, hooks: [{{ {hook} }}] }}"),
        format!("{{ version: 1, hooks: {{ a: {{ {hook} }} }} }}"),
        format!("{{ version: 1, hooks: [[{{ {hook} }}]] }}"),
        format!("{{ version: {{ {hook} }} }}"),
        format!("[{{ {hook} }}]"),
        "version: 2 # hunter2\nhooks:".to_owned(),
        "# hunter2".to_owned(),
    ] {
        let shown = read(&text).unwrap_err().to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
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
                 `order`, `once_per`, `run`, `timeout`, `retry`, `concurrency`, `lane`, `labels`, \
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
    check("run: {}", &["5:10 hooks[0].run: expected either `http` or `command`, found neither"]);
    check("run: { htpt: {} }", &["5:12 hooks[0].run.htpt: expected one of `http`, `command`, found `htpt`"]);
    check(
        "run: { http: { url: 'http://a' }, command: { argv: [x] } }",
        &["5:10 hooks[0].run: expected either `http` or `command`, found both"],
    );
    check(
        "run: { command: { argv: [], env: { 'A=B': x }, cwd: '', shell: true } }",
        &[
            "5:29 hooks[0].run.command.argv: expected a program and its arguments, found an empty list",
            "5:40 hooks[0].run.command.env.A=B: expected the name of an environment variable, found \"A=B\"",
            "5:57 hooks[0].run.command.cwd: expected a folder, found \"\"",
            "5:61 hooks[0].run.command.shell: expected one of `argv`, `env`, `cwd`, found `shell`",
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
fn urls() {
    let url = "5:25 hooks[0].run.http.url: expected an http or https URL with a host, found";
    check_http("{ url: hooks.example.com }", &[&format!("{url} something else (relative URL without a base)")]);
    check_http("{ url: 'http://' }", &[&format!("{url} something else (empty host)")]);
    check_http("{ url: 'ftp://hunter2' }", &[&format!("{url} another scheme")]);
    check_http("{ url: [hunter2] }", &[&format!("{url} a list")]);
    check_http("{ headers: {} }", &["5:18 hooks[0].run.http: expected either `url` or `target`, found neither"]);
    for url in ["'https://a:hunter2@b/'", "'https://hunter2@b/'", "'${env:USER_URL}'"] {
        let expected = "5:25 hooks[0].run.http.url: expected a URL without user and password, found some";
        check_http(&format!("{{ url: {url} }}"), &[expected]);
    }
}

#[test]
fn headers() {
    let check =
        |headers: &str, expected: &[&str]| check_http(&format!("{{ url: 'http://a', headers: {headers} }}"), expected);
    let value = "expected a header value of printable ASCII, found one with another character, such as a line break";
    check(
        "{ a b: hunter2, Idempotency-Key: hunter2, x-a: 1, X-A: 2 }",
        &[
            "5:48 hooks[0].run.http.headers.a b: expected the name of an HTTP header, found \"a b\"",
            "5:62 hooks[0].run.http.headers.Idempotency-Key: expected a header that a hook may set, found \
             \"Idempotency-Key\"",
            "5:96 hooks[0].run.http.headers.X-A: expected each header once, in any case of its letters, found \"X-A\"",
        ],
    );
    check("{ x: '${env:BROKEN}' }", &[&format!("5:51 hooks[0].run.http.headers.x: {value}")]);
    check("{ x: \"hunter2\\n\" }", &[&format!("5:51 hooks[0].run.http.headers.x: {value}")]);
    check("hunter2", &["5:46 hooks[0].run.http.headers: expected a map, found another value"]);
    check("{ x: { y: hunter2 } }", &["5:51 hooks[0].run.http.headers.x: expected a text, found a map"]);
    check("{ x: }", &["5:49 hooks[0].run.http.headers.x: expected a text, found nothing"]);
}

#[test]
fn unresolved_secrets() {
    let check = |value: &str, expected: &str| {
        check_http(
            &format!("{{ url: 'http://a', headers: {{ x: '{value}' }} }}"),
            &[&format!("5:51 hooks[0].run.http.headers.x: {expected}")],
        );
    };
    check("Bearer ${env:NO}", "expected an environment variable that is set, found `NO`, which is not set");
    check("${hunter2}", "expected `${env:NAME}` or `${file:PATH}`, found another `${...}`");
    check("${env:TOKEN", "expected `}` after `${`, found none");
    check(
        "${file:/no/such/file}",
        "expected a file that can be read, found No such file or directory (os error 2) at `/no/such/file`",
    );
}

#[test]
fn secrets_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let check = |content: &str, expected: &str| {
        let path = folder.path().join("secret");
        std::fs::write(&path, content).unwrap();
        let outside = Outside { values: Some(&env), egress: Some(&[]), files: RefCell::default() };
        let resolved = secret::resolve(&format!("<${{file:{}}}>", path.display()), &outside);
        assert_eq!(outside.files.into_inner(), BTreeSet::from([path]));
        assert_eq!(resolved.unwrap(), format!("<{expected}>"));
    };
    check("hunter2", "hunter2");
    check("hunter2\n", "hunter2");
    check("hunter2\r\n", "hunter2");
    check("hunter2\n\n", "hunter2\n");
    check("${env:TOKEN}", "${env:TOKEN}"); // what comes from outside is not looked at again
    check("", "");
}

#[test]
fn a_misspelt_field_shows_no_secret() {
    check(
        "run: { http: { url: 'http://a', header: { authorization: hunter2 }, tokens: [hunter2] } }",
        &[
            "5:37 hooks[0].run.http.header: expected one of `url`, `target`, `path`, `headers`, `body`, found `header`",
            "5:73 hooks[0].run.http.tokens: expected one of `url`, `target`, `path`, `headers`, `body`, found `tokens`",
        ],
    );
}

#[test]
fn a_misplaced_url_is_not_shown() {
    check("run: https://hunter2/", &["5:10 hooks[0].run: expected a map, found another value"]);
    check("run: { http: https://hunter2/ }", &["5:18 hooks[0].run.http: expected a map, found another value"]);
    check("run: { command: curl hunter2 }", &["5:21 hooks[0].run.command: expected a map, found another value"]);
}

#[test]
fn problems_are_laid_out_with_their_line() {
    let text =
        "version: 1\nhooks:\n  - id: a\n    on: x\n    run: { http: { url: 'http://a?hunter2' } }\n    tiemout: 3\n";
    let expected = "\
error: expected one of `id`, `on`, `source`, `subject`, `when`, `mode`, `on_failure`, `enabled`, `paused`, `order`, `once_per`, `run`, `timeout`, `retry`, `concurrency`, `lane`, `labels`, `concurrency_fleet`, `rate`, found `tiemout`
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
    let problems = load(Path::new("no/such.yaml"), &TERMS).unwrap_err();
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
    let set = load(&path, &terms).unwrap_or_else(|problems| panic!("{problems}")).hooks;
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
    let refused = || load(folder.path(), &TERMS).unwrap_err().to_string();
    assert!(refused().contains("expected a folder with *.yaml files, found none in it"));
    file("b.yml", &hook("b"));
    file("a.yaml", &hook("a"));
    file(".#a.yaml", "an editor's");
    file("notes.txt", "no hooks");
    let ids = |catalog: Catalog| catalog.hooks.hooks().iter().map(|hook| hook.id.to_string()).collect::<Vec<_>>();
    assert_eq!(load(folder.path(), &TERMS).map(ids), Ok(vec!["a".to_owned(), "b".to_owned()]));
    file("c.yaml", &hook("a"));
    file("d.yaml", "version: 2");
    let (refused, first) = (refused(), folder.path().join("a.yaml"));
    let twice = format!("found \"a\" on line 3, which the hook on line 3 of {} has already", first.display());
    assert!(refused.contains(&twice), "{refused}");
    assert!(refused.contains("d.yaml:1:10") && refused.ends_with("2 problems"), "{refused}");
}

/// The problems of what stands under `events:`, and of hooks files that only declare types.
fn check_events(events: &str, expected: &[&str]) {
    let text = format!("version: 1\nevents:\n{events}\n");
    check_file(&text, expected);
    let documents = [Document { name: "hooks.yaml".into(), text }];
    let problems = event_types(&documents).unwrap_err();
    let shown: Vec<String> = problems.list().iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(shown, expected, "the same without the hooks");
}

#[test]
fn event_types_are_read() {
    let text = "version: 1\nevents:\n  task.failed:\n    description: A task failed.\n    schema: { type: object, required: [id] }\n    \
                example: { id: 7 }\n    validate: strict\n  agent.*: { example: hi }\n  note: { schema: { type: string } }\n";
    let set = read(text).unwrap();
    let types = set.types().all();
    let shown: Vec<String> = types
        .iter()
        .map(|it| format!("{} {:?} {} {:?}", it.on.as_str(), it.description, it.validate.name(), it.example))
        .collect();
    let expected = [
        "task.failed Some(\"A task failed.\") strict Some(Object {\"id\": Number(7)})",
        "agent.* None warn Some(String(\"hi\"))",
        "note None warn None",
    ];
    assert_eq!(shown, expected);
    let broken =
        Document { name: "b.yaml".into(), text: "version: 1\nhooks: [{ url: '${env:NO}' }]\nevents: { a: {} }".into() };
    assert_eq!(event_types(&[broken]).unwrap().all().len(), 1, "hooks are nothing to a publisher");
}

#[test]
fn event_types_that_are_wrong() {
    check_events(
        "  a..b: {}\n  a: { schma: {} }\n  b: { validate: strict }\n  c: { validate: loud, schema: 1, example: [.nan] }",
        &[
            "3:3 events.a..b: expected segments between the dots, found an empty one in \"a..b\"",
            "4:8 events.a.schma: expected one of `description`, `schema`, `example`, `validate`, found `schma`",
            "5:18 events.b.validate: expected a `schema` beside it to validate by, found none",
            "6:18 events.c.validate: expected `off` or `warn` or `strict`, found \"loud\"",
            "6:32 events.c.schema: expected a JSON Schema (2020-12), found another: value is not of types \"boolean\", \"object\"",
            "6:45 events.c.example[0]: expected a number that JSON has, found \".nan\"",
        ],
    );
    let allows = "expected an example that its schema allows, found another:";
    check_events(
        "  a:\n    schema:\n      required: [id]\n      properties: { id: { type: integer }, n: { enum: [1] } }\n    \
         example: { id: '7', n: 2 }\n  b:\n    schema: { required: [x] }\n    example: {}",
        &[
            &format!("7:20 events.a.example.id: {allows} value is not of type \"integer\""),
            &format!("7:28 events.a.example.n: {allows} value is not one of 1"),
            &format!("10:14 events.b.example: {allows} \"x\" is a required property"),
        ],
    );
    check_events(
        "  a: { schema: { properties: { id: { type: strin } } } }",
        &[
            "3:44 events.a.schema.properties.id.type: expected a JSON Schema (2020-12), found another: value is not valid under \
           any of the schemas listed in the 'anyOf' keyword",
        ],
    );
    let remote = read("version: 1\nevents:\n  b: { schema: { $ref: 'https://x/y' } }").unwrap_err();
    let shown = format!("{:#}", remote.list()[0]);
    assert!(shown.starts_with("3:16 events.b.schema: expected a JSON Schema (2020-12), found another: "), "{shown}");
    assert!(shown.contains("https://x/y"), "{shown}");
}

#[test]
fn an_event_type_is_declared_once() {
    let document = |name: &str, text: &str| Document { name: name.into(), text: text.into() };
    let one = document("a.yaml", "version: 1\nevents:\n  a: {}\n");
    let two = document("b.yaml", "version: 1\nevents:\n  b: {}\n  a: {}\n");
    let problems = super::read(&[one, two], &TERMS).unwrap_err();
    let shown: Vec<String> = problems.list().iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(
        shown,
        ["4:3 events.a: expected each event type once, found `a`, which is declared on line 3 of a.yaml already"]
    );
}

#[test]
fn a_rule_that_checks_nothing_is_warned_of() {
    let text = "version: 1\nevents:\n  a:\n    schema:\n      requierd: [id]\n      properties: { type: { tpe: string } }\n      allOf: [{ minimun: 1 }]\n";
    let catalog = parse(text, "hooks.yaml", &TERMS).unwrap();
    let shown: Vec<String> = catalog
        .warnings
        .iter()
        .map(|problem| format!("{problem:#} ({})", problem.help.as_deref().unwrap_or_default()))
        .collect();
    let unknown = "expected a keyword of JSON Schema, found";
    let expected = [
        format!("5:17 events.a.schema.requierd: {unknown} `requierd`, which checks nothing (did you mean `required`?)"),
        format!(
            "6:34 events.a.schema.properties.type.tpe: {unknown} `tpe`, which checks nothing (did you mean `type`?)"
        ),
        format!(
            "7:26 events.a.schema.allOf[0].minimun: {unknown} `minimun`, which checks nothing (did you mean `minimum`?)"
        ),
    ];
    assert_eq!(shown, expected);
}

/// What `${...}` stands for is not known where catalogs are applied: that is no mistake, and hides none.
#[test]
fn what_others_know_is_not_judged() {
    let check = |url: &str, expected: &[&str]| {
        let text = format!("version: 1\nhooks: [{{ id: a, on: a, run: {{ http: {{ url: \"{url}\" }} }} }}]");
        let documents = [Document { name: "t.yaml".to_owned(), text }];
        let found = match read_for_others(&documents, Duration::ZERO) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.list().iter().map(|problem| problem.found.clone()).collect(),
        };
        assert_eq!(found, expected, "{url}");
    };
    check("${env:URL}", &[]);
    check("${file:/run/secrets/url}", &[]);
    check("https://h:${env:PORT}/", &[]);
    check("https://example.${env:TLD}/${env:PATH}", &[]);
    check("ftp://${env:HOST}/", &["another scheme"]);
    check("https://${env:USER}:${env:PASSWORD}@host", &["some"]);
    check("https://h/${env:X", &["none"]);
    check("https://h/${vault:X}", &["another `${...}`"]);

    let hooks = |name: &str| {
        let text = format!("version: 1\nhooks: [{{ id: a, on: a, run: {{ http: {{ url: \"${{env:{name}}}\" }} }} }}]");
        read_for_others(&[Document { name: "t.yaml".to_owned(), text }], Duration::ZERO).unwrap().hooks.hooks().to_vec()
    };
    assert_eq!(hooks("A"), hooks("A"));
    assert_ne!(hooks("A"), hooks("B"), "another name is another hook");
}
