//! What commands talk to, what they create, and how they end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::fleet::Site;
use crate::servers::shared;

const ALLOWED: &str = "  - { id: freeze, on: deploy.requested, mode: gate, run: { command: { shell: \"exit 2\" } } }";

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The files of a folder and what is in each.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap_or_default())).collect()
}

/// Case C1: in a folder without settings nothing is created by looking, and every command says what it talks to.
#[tokio::test]
async fn looking_creates_nothing() {
    let site = Site::embedded().without("HOOKFLEET_EMBEDDED_PATH").without("HOOKFLEET_HOOKS");
    for (command, code) in [
        (&["dead-letters", "list"][..], 0),
        (&["dead-letters", "groups"], 0),
        (&["dead-letters", "export"], 0),
        (&["dead-letters", "show", "nosuch"], 3),
        (&["dead-letters", "replay", "--all", "--dry-run"], 0),
        (&["dead-letters", "replay", "--all", "--yes"], 0),
        (&["dead-letters", "resolve", "nosuch", "--reason", "x"], 3),
        (&["fleet", "list"], 64),
        (&["hooks", "list"], 1),
        (&["hooks", "history"], 64),
        (&["topology", "check"], 64),
        (&["doctor"], 1), // there are no hooks
        (&["settings"], 0),
    ] {
        let output = site.run(command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        let talks = !matches!(command[0], "settings");
        assert_eq!(said.starts_with("using the "), talks, "{command:?}: {said}");
        if !matches!(command[0], "settings" | "hooks") {
            let expected = "using the file data/hookfleet.db, which is not there (broker.url is not set)";
            assert!(said.starts_with(expected), "{command:?}: {said}");
        }
        assert!(contents(site.folder.path()).is_empty(), "{command:?} has created something");
    }
    let doctor = String::from_utf8(site.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("no broker is set: everything is kept in the file data/hookfleet.db"), "{doctor}");

    let published = site.run(&["publish", "--type", "a"]);
    let said = stderr(&published);
    assert!(published.status.success(), "{said}");
    assert!(said.contains("warning: no process has data/hookfleet.db open"), "{said}");
    assert!(site.folder.path().join("data/hookfleet.db").exists(), "an event has to be somewhere");
}

/// A file that nobody has open is looked at without being changed: nothing is delivered again because of it.
#[tokio::test]
async fn looking_changes_nothing() {
    let site = Site::embedded().hooks("");
    site.ok(&["publish", "--type", "a"]);
    let before = contents(site.folder.path());
    site.ok(&["dead-letters", "list"]);
    site.ok(&["dead-letters", "groups", "--json"]);
    assert!(before == contents(site.folder.path()), "the files differ: {:?}", contents(site.folder.path()).keys());
}

#[tokio::test]
async fn json_says_the_place() {
    let (rabbit, redis) = shared().await;
    let site = Site::servers(rabbit, redis).hooks("");
    for command in [&["fleet", "list"][..], &["hooks", "history"], &["dead-letters", "list"], &["doctor"]] {
        let output = site.run(&[command, &["--json"]].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let place = |member: &str| answer.pointer(&format!("/place/{member}")).unwrap().clone();
        assert_eq!((place("kind"), place("namespace")), ("servers".into(), site.namespace.as_str().into()));
        assert!(place("redis").as_str().unwrap().starts_with("redis://127.0.0.1:"), "{answer}");
        assert!(answer["items"].is_array(), "{answer}");
        assert!(!stderr(&output).contains("using"), "{}", stderr(&output));
    }
    let said = stderr(&site.run(&["fleet", "list"]));
    assert!(said.starts_with("using RabbitMQ amqp://127.0.0.1:") && said.contains(&site.namespace), "{said}");
    assert!(!said.contains("guest"), "{said}");
}

/// Case C7: beside a closed gate a misspelt type is told, and with `--require-gate` nothing is allowed by it.
#[tokio::test]
async fn a_type_that_no_gate_wants_is_told() {
    let site = Site::embedded().hooks(ALLOWED).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let mut worker = site.worker().await;
    let decide = |more: &[&str]| {
        let output = site.run(&[&["decide", "--deadline", "20s"], more].concat());
        (output.status.code().unwrap(), stderr(&output))
    };
    assert_eq!(decide(&["--type", "deploy.requested"]).0, 2);
    assert_eq!(decide(&["--type", "deploy.requested", "--require-gate"]).0, 2);
    let (code, said) = decide(&["--type", "deploy.reqested"]);
    assert_eq!(code, 0);
    assert!(said.contains("no gate wants events of type deploy.reqested"), "{said}");
    let (code, said) = decide(&["--type", "deploy.reqested", "--require-gate", "--on-unavailable", "allow"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("no gate wants events of type deploy.reqested"), "{said}");
    assert_eq!(worker.stop().await, Some(0));
}

/// Case C13: every command prints one JSON object on one line, and says in it what it talks to.
#[tokio::test]
async fn every_command_has_json() {
    let hooks = "  - { id: h, on: a, run: { command: { shell: \"true\" } } }";
    let site = Site::embedded().hooks(hooks).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let event = site.folder.path().join("event.json");
    std::fs::write(&event, r#"{"specversion":"1.0","type":"a","source":"/s","id":"1"}"#).unwrap();
    let (event, copy) = (event.to_str().unwrap(), site.folder.path().join("copy.db"));
    for (command, member) in [
        (&["publish", "--type", "a"][..], "published"),
        (&["publish", "--file", event], "published"),
        (&["hooks", "check"], "revision"),
        (&["hooks", "list"], "items"),
        (&["hooks", "test", event], "items"),
        (&["hooks", "test", event, "--send"], "sent"),
        (&["dead-letters", "list"], "items"),
        (&["dead-letters", "groups"], "items"),
        (&["dead-letters", "replay", "--all", "--dry-run"], "letters"),
        (&["topology", "print"], "items"),
        (&["doctor"], "items"),
        (&["settings"], "items"),
        (&["backup", copy.to_str().unwrap()], "bytes"),
    ] {
        let output = site.run(&[command, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command:?}: {error}: {text}"));
        assert_eq!(text.trim_end().lines().count(), 1, "{command:?}: {text}");
        assert!(!answer[member].is_null(), "{command:?} has no {member}: {text}");
        let talks = !matches!(command, ["settings"] | ["topology", "print"]);
        assert_eq!(answer["place"].is_object(), talks, "{command:?}: {text}");
    }
}

/// Case C15: what is most likely not meant is told.
#[tokio::test]
async fn odd_names_are_told() {
    let hooks = "  - { id: notify-oncall, on: a, run: { command: { shell: \"true\" } } }";
    let site = Site::embedded().hooks(hooks).set("HOOKFLEET_COMMANDS_ALLOW", "sh");
    let published = site.run(&["publish", "--type", "a b"]);
    assert!(published.status.success());
    assert!(stderr(&published).contains("warning: the type \"a b\" has a space"), "{}", stderr(&published));
    let listed = stderr(&site.run(&["dead-letters", "list", "--hook", "notify-oncal"]));
    assert!(listed.contains("no hook notify-oncal: did you mean `notify-oncall`?"), "{listed}");
    assert!(!stderr(&site.run(&["dead-letters", "list", "--hook", "notify-oncall"])).contains("note:"));
}

/// Case C11: a local file is its owner's; only what stands where secrets do is covered.
#[tokio::test]
async fn checks_show_the_owners_own_lines() {
    let hooks = "  - { id: a, on: \"order.#\", run: { http: { url: \"https://h.example/\" } }, tiemout: 3s } # for sales\n\
                 \x20 - { id: b, on: b, run: { http: { url: \"https://me:hunter2@h.example/\" } } }";
    let output = Site::embedded().hooks(hooks).run(&["hooks", "check"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("the wildcard of RabbitMQ in \"order.#\"") && said.contains("hooks.yaml:3:"), "{said}");
    assert!(said.contains("tiemout: 3s } # for sales"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
