//! How commands end: exit code, and the error or else the first line of standard error.

use std::fmt::Write as _;
use std::fs;

use serde_json::json;

use super::compare;
use crate::fleet::Site;

const HOOKS: &str = r#"
  - { id: freeze, on: golden.asked, mode: gate, run: { command: { shell: "
      case $(cat) in *prod*) echo no deploys >&2; exit 2;; *shared*) echo '{\"permission\": \"ask\"}';; *slow*) sleep 60;; esac" } } }
  - { id: closed, on: golden.closed, mode: gate, on_failure: closed, run: { command: { shell: "sleep 60" } } }
  - { id: nowhere, on: golden.refused, retry: { attempts: 1 }, run: { command: { shell: "exit 1" } } }
"#;
/// Commands that are wrong before they begin.
const USAGE: &[&[&str]] = &[
    &[],
    &["--version"],
    &["--help"],
    &["nonsense"],
    &["--nonsense"],
    &["worker", "--nonsense"],
    &["settings", "--set", "nonsense"],
    &["settings", "--set", "worker.prefetch=many"],
    &["settings", "--set", "worker.prefech=1"],
    &["settings", "--config", "missing.yaml"],
    &["settings", "--namespace", "UPPER"],
    &["settings"],
    &["schema"],
    &["schema", "--nonsense"],
    &["openapi"],
    &["openapi", "--nonsense"],
    &["up", "--nonsense"],
    &["up", "--http-bind", "nonsense"],
    &["up", "--http-bind", "0.0.0.0:0"],
    &["publish"],
    &["publish", "--type", "a", "--file", "x"],
    &["publish", "--nonsense"],
    &["decide"],
    &["decide", "--type", "a", "--deadline", "soon"],
    &["decide", "--type", "a", "--deadline", "2h"],
    &["decide", "--type", "a", "--on-unavailable", "maybe"],
    &["hooks"],
    &["hooks", "nonsense"],
    &["hooks", "apply"],
    &["hooks", "rollback", "latest"],
    &["hooks", "test"],
    &["fleet"],
    &["fleet", "nonsense"],
    &["dead-letters"],
    &["dead-letters", "nonsense"],
    &["dead-letters", "show"],
    &["dead-letters", "edit", "x"],
    &["dead-letters", "edit", "x", "--data", "1", "--patch", "{}"],
    &["dead-letters", "resolve", "x"],
    &["dead-letters", "replay", "--all", "--rate", "fast"],
    &["dead-letters", "replay", "x", "--force", "--to-hook", "y"],
    &["topology"],
    &["topology", "nonsense"],
    &["doctor", "--rate", "fast"],
    &["bench", "--events", "0"],
    &["verify", "--events", "0"],
];
/// Commands on an embedded file that no process owns.
const ALONE: &[&[&str]] = &[
    &["worker"],
    &["publish", "--type", "golden.unmatched", "--id", "1"],
    &["publish", "--type", "golden.unmatched", "--data", "{"],
    &["publish", "--type", "golden.unmatched", "--data", "@missing.json"],
    &["publish", "--type", ""],
    &["publish", "--file", "good.ndjson"],
    &["publish", "--file", "bad.ndjson"],
    &["publish", "--file", "empty.ndjson"],
    &["publish", "--file", "missing.ndjson"],
    &["decide", "--type", "golden.asked"],
    &["decide", "--type", "golden.asked", "--on-unavailable", "allow"],
    &["decide", "--type", "golden.asked", "--on-unavailable", "deny"],
    &["hooks", "check"],
    &["hooks", "check", "mistake.yaml"],
    &["hooks", "check", "missing.yaml"],
    &["hooks", "list"],
    &["hooks", "list", "missing.yaml"],
    &["hooks", "test", "event.json"],
    &["hooks", "test", "event.json", "--hook", "missing"],
    &["hooks", "test", "event.json", "--send"],
    &["hooks", "test", "bad.ndjson"],
    &["hooks", "test", "missing.json"],
    &["hooks", "apply", "hooks.yaml"],
    &["hooks", "diff", "hooks.yaml"],
    &["hooks", "show"],
    &["hooks", "history"],
    &["hooks", "rollback", "1"],
    &["fleet", "list"],
    &["fleet", "pause"],
    &["fleet", "resume"],
    &["topology", "print"],
    &["topology", "check"],
    &["topology", "apply"],
    &["up", "--hooks", "mistake.yaml"],
    &["up", "--hooks", "missing.yaml"],
    &["bench", "--events", "10", "--json"],
    &["dead-letters", "list"],
    &["dead-letters", "list", "--since", "nonsense"],
    &["dead-letters", "list", "--state", "nonsense"],
    &["dead-letters", "list", "--class", "nonsense"],
    &["dead-letters", "list", "--after", "nonsense"],
    &["dead-letters", "groups"],
    &["dead-letters", "export", "--ndjson"],
    &["dead-letters", "show", "missing"],
    &["dead-letters", "replay"],
    &["dead-letters", "replay", "missing"],
    &["dead-letters", "replay", "missing", "other"],
    &["dead-letters", "replay", "--all", "--yes"],
    &["dead-letters", "edit", "missing", "--data", "{}"],
    &["dead-letters", "edit", "missing", "--patch", "{"],
    &["dead-letters", "resolve", "missing", "--reason", "x"],
    &["dead-letters", "resolve", "--reason", "x"],
    &["dead-letters", "resolve", "--all", "--reason", "x", "--yes"],
    &["dead-letters", "recover"],
];
/// Commands beside the process that owns the file.
const OWNED: &[&[&str]] = &[
    &["up"],
    &["publish", "--type", "golden.unmatched", "--id", "2"],
    &["publish", "--file", "bad.ndjson"],
    &["decide", "--type", "golden.asked", "--data", r#"{"to":"lab"}"#],
    &["decide", "--type", "golden.asked", "--data", r#"{"to":"prod"}"#],
    &["decide", "--type", "golden.asked", "--data", r#"{"to":"shared"}"#],
    &["decide", "--type", "golden.asked", "--data", r#"{"to":"slow"}"#, "--deadline", "2s"],
    &["decide", "--type", "golden.closed", "--deadline", "2s"],
    &["decide", "--type", "golden.asked", "--data", "{"],
    &["hooks", "cancel", "--nonsense"],
    &["hooks", "cancel"],
    &["hooks", "cancel", "missing", "nowhere", "--source", "/golden"],
    &["hooks", "cancel", "missing", "unknown", "--source", "/golden"],
    &["dead-letters", "list"],
    &["dead-letters", "show", "LETTER"],
    &["dead-letters", "show", "missing"],
    &["dead-letters", "replay", "LETTER", "--dry-run"],
    &["dead-letters", "replay", "LETTER", "--to-hook", "missing"],
    &["dead-letters", "replay", "missing"],
    &["dead-letters", "replay", "LETTER", "missing"],
    &["dead-letters", "edit", "LETTER", "--patch", r#"[{"op":"remove","path":"/missing"}]"#],
    &["dead-letters", "resolve", "LETTER", "--reason", "seen to"],
    &["dead-letters", "replay", "LETTER"],
    &["dead-letters", "recover"],
];
/// Commands whose servers are away.
const AWAY: &[&[&str]] = &[
    &["up"],
    &["worker"],
    &["publish", "--type", "a"],
    &["publish", "--file", "good.ndjson"],
    &["decide", "--type", "a", "--deadline", "1s"],
    &["decide", "--type", "a", "--deadline", "1s", "--on-unavailable", "allow"],
    &["decide", "--type", "a", "--deadline", "1s", "--on-unavailable", "deny"],
    &["hooks", "check"],
    &["hooks", "apply", "hooks.yaml"],
    &["hooks", "diff", "hooks.yaml"],
    &["hooks", "show"],
    &["hooks", "history"],
    &["hooks", "rollback", "1"],
    &["fleet", "list"],
    &["fleet", "pause"],
    &["fleet", "resume"],
    &["dead-letters", "list"],
    &["dead-letters", "replay", "x"],
    &["topology", "print"],
    &["topology", "check"],
    &["topology", "apply"],
    &["doctor"],
    &["bench", "--events", "1"],
];

/// Files that commands are given.
const FILES: [(&str, &str); 5] = [
    ("good.ndjson", "{\"type\":\"golden.unmatched\",\"source\":\"/s\",\"id\":\"f1\"}\n"),
    ("bad.ndjson", "{\"type\":\"golden.unmatched\",\"source\":\"/s\",\"id\":\"f1\"}\n{\"source\":\"/s\"}\n"),
    ("empty.ndjson", ""),
    ("mistake.yaml", "version: 1\nhooks:\n  - { id: a, on: \"x..y\", run: { http: { url: \"ftp://x\" } } }\n"),
    ("event.json", r#"{"specversion":"1.0","type":"golden.unmatched","source":"/s","id":"1"}"#),
];

fn prepared(site: Site) -> Site {
    for (name, text) in FILES {
        fs::write(site.folder.path().join(name), text).unwrap();
    }
    site.hooks(HOOKS)
        .set("HOOKFLEET_COMMANDS_ALLOW", "sh")
        .set("HOOKFLEET_HTTP_BIND", "127.0.0.1:0")
        .set("HOOKFLEET_BY", "golden")
        .set("HOOKFLEET_LOG", "off")
}

/// Runs commands, one after the other. `LETTER` among the arguments stands for the id of a letter.
fn rows(title: &str, site: &Site, commands: &[&[&str]], letter: &str) -> String {
    let rows: String = commands.iter().map(|command| row(site, command, letter)).collect();
    format!("# {title}\n{rows}\n")
}

fn row(site: &Site, command: &[&str], letter: &str) -> String {
    let arguments: Vec<&str> = command.iter().map(|&word| if word == "LETTER" { letter } else { word }).collect();
    let output = site.run(&arguments);
    let shown: Vec<String> = std::iter::once("hookfleet".to_owned()).chain(command.iter().map(quoted)).collect();
    let mut row = format!("\n$ {}\nexit {}\n", shown.join(" "), output.status.code().unwrap());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    // What a command talks to is the same for all.
    let is_same = |line: &&str| line.starts_with("using ") || line.starts_with("waiting for ");
    let lines: Vec<&str> = error.lines().filter(|line| !is_same(line)).collect();
    if let Some(first) = lines.iter().find(|line| line.starts_with("error")).or(lines.first()) {
        let folder = site.folder.path().canonicalize().unwrap();
        let first = first.replace(folder.to_str().unwrap(), "{folder}");
        // Of a refused connection, on Linux and on macOS.
        let first =
            first.replace("(os error 111)", "(os error {refused})").replace("(os error 61)", "(os error {refused})");
        writeln!(row, "{first}").unwrap();
    }
    row
}

/// As a shell takes it.
fn quoted(word: &&str) -> String {
    if word.is_empty() || word.contains([' ', '"', '{']) { format!("'{word}'") } else { (*word).to_owned() }
}

#[tokio::test]
async fn commands_in_a_file() {
    let site = prepared(Site::embedded());
    let mut record = rows("Arguments and settings", &site, USAGE, "");
    record.push_str(&rows("In a file that no process owns", &site, ALONE, ""));

    let mut worker = site.worker().await;
    let event = json!({ "specversion": "1.0", "type": "golden.refused", "source": "/golden", "id": "1" }).to_string();
    super::post_event(worker.port, &[("content-type", super::STRUCTURED)], &event).await;
    let letters = crate::pipeline::until_letters(&site, 1, "open").await;
    let letter = letters[0].pointer("/letter/id").unwrap().as_str().unwrap();
    record.push_str(&rows("Beside the process that owns the file", &site, OWNED, letter));
    assert_eq!(worker.stop().await, Some(0));
    let record = record.replace(&worker.port.to_string(), "{port}").replace(letter, "{letter}");
    compare("exits.txt", &record.replace(&worker.process.id().to_string(), "{pid}"));
}

#[tokio::test]
async fn commands_whose_servers_are_away() {
    let site = prepared(Site::embedded());
    let urls = ["HOOKFLEET_BROKER_URL", "HOOKFLEET_REDIS_URL"];
    let site = site.set(urls[0], "amqp://guest:guest@127.0.0.1:1").set(urls[1], "redis://127.0.0.1:1");
    let site = site.without("HOOKFLEET_EMBEDDED_PATH").set("HOOKFLEET_STARTUP_TIMEOUT", "1s");
    let site = site.set("HOOKFLEET_STARTUP_COMMAND_TIMEOUT", "1s");
    // Side by side, since each waits for a while.
    let record: String = std::thread::scope(|scope| {
        let running: Vec<_> = AWAY.iter().map(|command| scope.spawn(|| row(&site, command, ""))).collect();
        running.into_iter().map(|row| row.join().unwrap()).collect()
    });
    compare("exits-away.txt", &format!("# Servers that are away\n{}", without_namespace(&record)));
}

/// A name in place of the namespace that a trial makes for itself.
fn without_namespace(record: &str) -> String {
    let Some((before, after)) = record.split_once("namespace bench-") else { return record.to_owned() };
    format!("{before}namespace bench-{{digits}}{}", after.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}
