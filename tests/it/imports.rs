//! `hookfleet hooks import`, as a person runs it.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::fleet::Site;

const JSON: &str = include_str!("../imports/kheish/hooks.json");
const YAML: &str = include_str!("../imports/kheish/hooks.yaml");

fn site() -> Site {
    let site = Site::embedded();
    fs::write(site.folder.path().join("hooks.json"), JSON).unwrap();
    site
}

/// Exit code, standard output and standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn import(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    said(&site.run(&[&["hooks", "import", "--from", "kheish"], arguments].concat()))
}

#[test]
fn hooks_of_kheish_become_a_hooks_file() {
    let site = site();
    let (code, out, err) = import(&site, &["hooks.json"]);
    assert_eq!((code, out.as_str()), (Some(0), YAML), "{err}");
    for part in [
        "HOOK       kheish.pre_tool_use.no-force-push\n",
        "`hooks/push.sh`",
        "commands.allow: [\"/bin/bash\", \"/bin/sh\"]",
        "Load: a tool call makes at most 2 runs: 2 before it (pre_tool_use).",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let table = err.lines().take_while(|line| !line.starts_with("commands.allow"));
    assert!(table.skip(1).all(|line| line.chars().count() <= 80), "{err}");

    // A folder, a file for the output, which is never written over.
    let (code, out, _) = import(&site, &[".", "--output", "kheish.yaml", "--id-prefix", "a.b"]);
    assert_eq!((code, out.trim_end()), (Some(0), "kheish.yaml: 7 hooks, 2 of them switched off"));
    let written = fs::read_to_string(site.folder.path().join("kheish.yaml")).unwrap();
    assert!(written.contains("  - id: a.b.pre_tool_use.ledger\n"), "{written}");
    let (code, _, err) = import(&site, &[".", "--output", "kheish.yaml"]);
    assert!(code == Some(64) && err.contains("kheish.yaml is there already"), "{err}");
    assert_eq!(fs::read_to_string(site.folder.path().join("kheish.yaml")).unwrap(), written);
}

#[test]
fn what_an_import_would_do_is_told() {
    let site = site();
    let (code, out, err) = import(&site, &["hooks.json", "--check"]);
    assert_eq!((code, out.trim_end()), (Some(0), "hooks.json: 7 hooks, 2 of them switched off"), "{err}");
    let (code, out, _) = import(&site, &["hooks.json", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer["yaml"].as_str()), (Some(0), Some(YAML)));
    assert_eq!(answer["hooks"][0]["id"], "kheish.pre_tool_use.no-force-push");
    assert_eq!(answer["commands_allow"][1], "/bin/sh");
    assert!(answer["remarks"].as_array().is_some_and(|remarks| remarks.len() > 5), "{answer}");
    let (_, out, _) = import(&site, &["hooks.json", "--json", "--check"]);
    assert!(serde_json::from_str::<Value>(&out).unwrap().get("yaml").is_none(), "{out}");
}

#[test]
fn imports_that_are_refused() {
    let site = site();
    let file = |name: &str, text: &str| fs::write(Path::new(site.folder.path()).join(name), text).unwrap();
    file("broken.json", &JSON.replace("\"shell*\"", "3").replace("https://", "http://me@"));
    for check in [&["broken.json"][..], &["broken.json", "--check"]] {
        let (code, out, err) = import(&site, check);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        for part in [
            "error: broken.json:7:20 (hooks.pre_tool_use[0].matcher): PreToolUse[0]:no force push: `matcher`: invalid type",
            "PreToolUse[1]:ledger: HTTP hook URL must not include userinfo",
            "note: Kheish starts with all hooks disabled on such a file",
            "`--lenient`",
        ] {
            assert!(err.contains(part), "{part}: {err}");
        }
    }
    let (code, out, err) = import(&site, &["broken.json", "--lenient", "--check"]);
    assert_eq!((code, out.trim_end()), (Some(0), "broken.json: 5 hooks, 2 of them switched off, 2 left out"), "{err}");
    assert!(err.contains("left out: broken.json:7:20"), "{err}");
    let (code, out, _) = import(&site, &["broken.json", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer["problems"].as_array().map(Vec::len)), (Some(1), Some(2)), "{answer}");
    file("twice.json", "{\"hooks\": {},\n \"hooks\": {}}");
    let (code, _, err) = import(&site, &["twice.json"]);
    assert!(code == Some(1) && err.contains("twice.json:2:11 (hooks): expected each key once"), "{err}");
    let (code, _, err) = import(&site, &["missing.json"]);
    assert!(code == Some(1) && err.contains("cannot read missing.json"), "{err}");

    for (arguments, expected) in [
        (
            &["--from", "claude-code", "x"][..],
            "hooks of claude-code cannot be imported yet; those of kheish, bernstein, aether can",
        ),
        (&["--from", "nonsense", "x"], "expected a system whose hooks can be imported (kheish, bernstein, aether)"),
        (&["--from", "kheish"], "<PATH>"),
        (&["x"], "--from <DIALECT>"),
        (&["--from", "kheish", "x", "--id-prefix", "a/b"], "letters, digits"),
        (&["--from", "kheish", "x", "--check", "--output", "y"], "cannot be used with"),
    ] {
        let (code, _, err) = said(&site.run(&[&["hooks", "import"], arguments].concat()));
        assert!(code == Some(64) && err.contains(expected), "{arguments:?}: {err}");
    }
}

/// What comes out goes in.
#[test]
fn an_imported_file_is_good_at_once() {
    let site = site();
    let (code, _, err) = import(&site, &["hooks.json", "--output", "kheish.yaml"]);
    assert_eq!(code, Some(0), "{err}");
    let (code, out, err) = said(&site.run(&["hooks", "check", "kheish.yaml"]));
    assert!(code == Some(0) && out.contains("kheish.yaml: 7 hooks"), "{out}{err}");
    assert!(!err.contains("warning"), "{err}");
    let (_, out, _) = said(&site.run(&["hooks", "list", "kheish.yaml", "--json"]));
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(7), "{listed}");
}
