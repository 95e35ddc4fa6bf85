//! Which events a hook wants, and what is warned of.

use super::*;

/// The warnings of a file that is fine else, one in a line.
pub(super) fn check_warnings(hooks: &str, expected: &[&str]) {
    let catalog = parse(&format!("version: 1\nhooks:\n{hooks}"), "hooks.yaml", &TERMS).unwrap();
    let shown: Vec<String> = catalog.warnings.iter().map(|problem| format!("{problem:#}")).collect();
    assert_eq!(shown, expected, "{hooks}");
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
    check(
        "mode: gate\nonce_per: { key: event.id, window: 1s }",
        &["7:15 hooks[0].once_per: expected `once_per` with `mode: observe` only, found it with `mode: gate`"],
    );
}

#[test]
fn what_is_most_likely_not_meant() {
    check_warnings(
        "  - { id: a, on: [a.*, a.b, a.*], mode: gate, run: { command: { argv: [x] } } }",
        &[
            "3:24 hooks[0].on[1]: expected patterns that each match something more, found `a.b`, which `a.*` matches already",
            "3:29 hooks[0].on[2]: expected patterns that each match something more, found `a.*`, which `a.*` matches already",
        ],
    );
}
