//! What command hooks run, and inside what.

use super::*;
use crate::domain::hook::{CommandAction, Exit, Files, Limits};

fn command(text: &str) -> CommandAction {
    let set = read(&format!("version: 1\nhooks:\n  - {{ id: a, on: a, run: {{ command: {text} }} }}\n")).unwrap();
    match &set.hooks()[0].action {
        Action::Command(command) => command.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands() {
    assert_eq!(command("{ shell: 'ls | wc -l' }").argv, ["sh", "-c", "ls | wc -l"]);
    assert_eq!(command("{ argv: [ls] }"), CommandAction::plain(&["ls"]));
    let codes = command("{ argv: [a], exit_codes: { 3: done, '64-78': fail, other: fail } }").exit_codes;
    assert_eq!((codes.named, codes.other), (vec![(3..=3, Exit::Done), (64..=78, Exit::Fail)], Exit::Fail));
    let fences = "limits: { cpu: 1m, memory: 2GiB, files: 64, processes: 0 }, no_new_privileges: true, \
                  files: { read: [/usr], write: [/tmp, /srv/a b] }";
    let fences = command(&format!("{{ argv: [a], {fences} }}")).fences;
    let limits = Limits { cpu_s: Some(60), memory: Some(2 << 30), files: Some(64), processes: Some(0) };
    let files = Files { read: vec!["/usr".into()], write: vec!["/tmp".into(), "/srv/a b".into()] };
    assert_eq!((&fences.limits, fences.no_new_privileges, &fences.files), (&limits, true, &Some(files)));
    assert_eq!(command("{ argv: [a], limits: { memory: 1048576 } }").fences.limits.memory, Some(1 << 20));
}

#[test]
fn wrong_commands() {
    let check = |command: &str, expected: &str| check(&format!("run: {{ command: {command} }}"), &[expected]);
    let at = "5:21 hooks[0].run.command:";
    check("{ env: {} }", &format!("{at} expected either `argv` or `shell`, found neither"));
    check("{ argv: [a], shell: b }", &format!("{at} expected either `argv` or `shell`, found both"));
    check("{ shell: '' }", "5:30 hooks[0].run.command.shell: expected a line of shell, found \"\"");
    let codes = "expected an exit code from 1 to 255, a range such as 64-78, or `other`, none of them twice, found";
    for wrong in ["0", "256", "a", "9-3", "-1", "1-", ""] {
        let (quoted, at) = (format!("'{wrong}'"), "5:48 hooks[0].run.command.exit_codes");
        check(
            &format!("{{ argv: [a], exit_codes: {{ {quoted}: done }} }}"),
            &format!("{at}.{wrong}: {codes} \"{wrong}\""),
        );
    }
    check(
        "{ argv: [a], exit_codes: { 1-9: done, 5: fail } }",
        &format!("5:59 hooks[0].run.command.exit_codes.5: {codes} \"5\""),
    );
    check(
        "{ argv: [a], exit_codes: { 1: stop } }",
        "5:51 hooks[0].run.command.exit_codes.1: expected `done` or `retry` or `fail`, found \"stop\"",
    );
    let check = |limit: &str, expected: &str| check(&format!("{{ argv: [a], limits: {{ {limit} }} }}"), expected);
    let at = |name: &str, column: usize| format!("5:{column} hooks[0].run.command.limits.{name}:");
    check("cpu: 1500ms", &format!("{} expected whole seconds, found \"1500ms\"", at("cpu", 49)));
    check("cpu: 1ms", &format!("{} expected a duration from 1s to 1d, found \"1ms\"", at("cpu", 49)));
    let bytes = "expected bytes such as 512MiB or 2GiB, from 1048576 to 9223372036854775807, found";
    check("memory: 512", &format!("{} {bytes} \"512\"", at("memory", 52)));
    check("memory: 512MB", &format!("{} {bytes} \"512MB\"", at("memory", 52)));
    check("files: 7", &format!("{} expected a whole number from 8 to 1048576, found \"7\"", at("files", 51)));
}

#[test]
fn callbacks() {
    let text = |name: &str| format!("version: 1\nhooks:\n  - {{ id: a, on: a, run: {{ callback: {name} }} }}\n");
    let known = BTreeSet::from(["audit".to_owned()]);
    let here = Terms { callbacks: Some(&known), ..TERMS };
    for terms in [&TERMS, &here] {
        let set = parse(&text("audit"), "hooks.yaml", terms).unwrap().hooks;
        assert_eq!(set.hooks()[0].action, Action::Callback("audit".to_owned()));
        assert_eq!(set.hooks()[0].action.target(), "callback:audit");
    }
    let refused = |name: &str| parse(&text(name), "hooks.yaml", &here).unwrap_err().list()[0].to_string();
    let expected = "expected the name of a callback that this program has, found \"audut\"";
    assert!(
        refused("audut").contains(expected) && refused("audut").contains("did you mean `audit`?"),
        "{}",
        refused("audut")
    );
    assert!(parse(&text("audut"), "hooks.yaml", &TERMS).is_ok(), "others know");
    assert!(parse(&text("'a b'"), "hooks.yaml", &TERMS).is_err());
}
