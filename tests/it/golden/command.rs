//! What programs of command hooks get: environment, arguments, working folder, standard input.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{STRUCTURED, compare, masked, post_event, post_gate};
use crate::fleet::Site;

/// Keeps what a program has got. Of the process itself, since a shell changes its variables.
const RECORD: &str = r"at=FOLDER/$HOOKFLEET_HOOK-$HOOKFLEET_ATTEMPT
cat > $at.stdin
cat /proc/$$/environ > $at.environment
cat /proc/$$/cmdline > $at.arguments
pwd > $at.folder
";
const HOOKS: &str = r#"
  - { id: shell, on: golden.command, run: { command: { shell: ". FOLDER/record.sh" } } }
  - id: arguments
    on: golden.command
    retry: { attempts: 2, backoff: { initial: 250ms, jitter: 0 } }
    run:
      command:
        argv: [sh, -c, ". FOLDER/record.sh; exit $((2 + HOOKFLEET_ATTEMPT))", "two words", "ä {{ event.id }}"]
        env: { TOKEN: "${env:GOLDEN_TOKEN}", LANG: "of the hook", OTHER: "a=b" }
        cwd: FOLDER/work
        exit_codes: { 3: retry, 4: done, other: fail }
  - { id: fenced, on: golden.command, run: { command: { argv: [sh, FOLDER/record.sh], limits: { files: 64 } } } }
  - id: first
    on: golden.asked
    mode: gate
    order: 1
    run: { command: { shell: ". FOLDER/record.sh; echo '{\"updated_input\": {\"n\":1.0}}'" } }
  - id: second
    on: golden.asked
    mode: gate
    order: 2
    run: { command: { shell: ". FOLDER/record.sh; echo no deploys today >&2; exit 2" } }
  - { id: observer, on: golden.asked, run: { command: { argv: [sh, FOLDER/record.sh] } } }
"#;
/// Runs in the order of the record: hook and attempt.
const RUNS: [&str; 7] = ["shell-1", "arguments-1", "arguments-2", "fenced-1", "first-1", "second-1", "observer-1"];

/// A file of values that end with a NUL, one a line.
fn list(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.strip_suffix('\0').unwrap_or(&text).split('\0').map(str::to_owned).collect()
}

/// The name of a run has 32 digits in hex.
fn variable(line: &str) -> String {
    match line.split_once('=') {
        Some(("HOOKFLEET_RUN", run)) if run.len() == 32 && run.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            "HOOKFLEET_RUN={run}".to_owned()
        }
        Some(("PATH", _)) => "PATH={path}".to_owned(),
        _ => line.to_owned(),
    }
}

fn run(folder: &Path, name: &str) -> String {
    let file = |part: &str| folder.join(format!("{name}.{part}"));
    let mut record = format!("=== {name}\nworking folder: {}", fs::read_to_string(file("folder")).unwrap());
    for argument in list(&file("arguments")) {
        writeln!(record, "argument: {argument}").unwrap();
    }
    let mut variables: Vec<String> = list(&file("environment")).iter().map(|line| variable(line)).collect();
    variables.sort_unstable();
    for variable in variables {
        writeln!(record, "variable: {variable}").unwrap();
    }
    let stdin = fs::read_to_string(file("stdin")).unwrap();
    writeln!(record, "standard input: {}\n", masked(&stdin)).unwrap();
    record
}

#[tokio::test]
async fn what_programs_get() {
    let site = Site::embedded().set("HOOKFLEET_COMMANDS_ALLOW", "sh").set("GOLDEN_TOKEN", "golden-token");
    let site = site.set("HOME", "/home/golden").set("LANG", "C.UTF-8").set("TZ", "UTC").set("NOT_INHERITED", "1");
    let folder = site.folder.path().canonicalize().unwrap();
    let at = folder.to_str().unwrap();
    fs::write(folder.join("record.sh"), RECORD.replace("FOLDER", at)).unwrap();
    fs::create_dir(folder.join("work")).unwrap();
    let site = site.hooks(&HOOKS.replace("FOLDER", at));
    let mut worker = site.worker().await;
    let event = |kind: &str| {
        format!(
            r#"{{"specversion":"1.0","type":"golden.{kind}","source":"/golden","id":"{kind} 1","data":{{"n": 1.0}}}}"#
        )
    };
    post_event(worker.port, &[("content-type", STRUCTURED)], &event("command")).await;
    let decision = post_gate(worker.port, &event("asked")).await;
    for hook in ["shell", "arguments", "fenced", "observer"] {
        worker.until_metric("hookfleet_attempts_total", &format!("hook=\"{hook}\",outcome=\"done\""), 1.0).await;
    }
    assert_eq!(worker.stop().await, Some(0));
    let runs: String = RUNS.iter().map(|name| run(&folder, name)).collect();
    let answered = format!("=== the answer to the request to gates\n{}\n", masked(&decision));
    compare("command.txt", &format!("{runs}{answered}").replace(at, "{folder}"));
}
