//! What hooks of the systems that this one runs say, and what follows: vectors of their own tests, as far as those speak of
//! decisions and not of the names of one system's fields.

use serde_json::{Value, json};

use super::{ALLOW, gate, posted};
use crate::pipeline::{Place, Stage, site, stage};
use crate::publishing::with_data;

const ONCE: &str = ", retry: { attempts: 1 }";
const CLOSED: &str = ", retry: { attempts: 1 }, on_failure: closed";
const TWICE: &str = ", on_failure: closed, retry: { attempts: 2, backoff: { initial: 250ms } }";
const SHORT: &str = ", on_failure: closed, timeout: 120ms, retry: { attempts: 1 }";

/// Its name; the gates that are asked about it, a line of shell and more settings each; what they come to.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// The verdict, whether to stop, who answered by number, attempts of all who were asked, the reason.
const ROWS: [Row; 25] = [
    ("none", &[], "allow, go on, answered [], asked []"),
    (
        "k2-deny",
        &[(r#"echo '{"permission":"allow"}'"#, ""), (r#"echo '{"permission":"deny"}'"#, "")],
        "deny, go on, answered [0, 1], asked [1, 1]",
    ),
    (
        "k2-ask",
        &[(r#"echo '{"permission":"allow"}'"#, ""), (r#"echo '{"permission":"ask"}'"#, "")],
        "ask, go on, answered [0, 1], asked [1, 1]",
    ),
    ("k3", &[("exit 2", "")], "deny, stop, answered [0], asked [1]: the hook's program refused"),
    ("k4", &[("/definitely/not/there", ONCE)], "allow, go on, answered [], asked [1]"),
    (
        "k6",
        &[("echo boom >&2; exit 1", TWICE)],
        "deny, stop, answered [], asked [2]: hook `k6-0` failed after 2 attempt(s): exit 1: boom",
    ),
    (
        "k9",
        &[(r#"echo '{"decision":"block","stop_reason":"api_key=sk-0123456789"}'"#, "")],
        "deny, go on, answered [0], asked [1]: api_key=[REDACTED]",
    ),
    (
        "k10",
        &[("sleep 5", SHORT)],
        "deny, stop, answered [], asked [1]: hook `k10-0` failed after 1 attempt(s): timed out after 120ms",
    ),
    (
        "k11",
        &[(r#"echo '{"contract_version":999}'"#, TWICE)],
        "deny, stop, answered [], asked [1]: hook `k11-0` failed after 1 attempt(s): unsupported hook outcome contract_version 999",
    ),
    ("k12", &[(r#"echo '{"decision":"block"}'"#, ""), ("touch ran", "")], "deny, go on, answered [0], asked [1]"),
    (
        "k12-stop",
        &[(r#"echo '{"continue_execution":false,"stop_reason":"enough"}'"#, ""), ("touch ran", "")],
        "deny, stop, answered [0], asked [1]: enough",
    ),
    ("k21-text", &[(r#"echo '{"contract_version":"999"}'"#, ONCE)], "allow, go on, answered [], asked [1]"),
    (
        "k30",
        &[("printf '```json\\n{\"decision\":\"block\",\"continue_execution\":false}\\n```\\n'", "")],
        "deny, stop, answered [0], asked [1]",
    ),
    (
        "k31",
        &[(
            r#"echo '{"permission":"allow","updated_permissions":[{"scope":"session","tool_name_pattern":"ls*","behavior":"allow"}]}'"#,
            "",
        )],
        "allow, go on, answered [0], asked [1]",
    ),
    (
        "b9-allow",
        &[("true", ""), ("echo '{}'", ""), (r#"echo '{"decision":"approve"}'"#, "")],
        "allow, go on, answered [0, 1, 2], asked [1, 1, 1]",
    ),
    ("b9-deny", &[("echo no >&2; exit 2", ""), ("touch ran", "")], "deny, stop, answered [0], asked [1]: no"),
    (
        "b9-timeout",
        &[("sleep 5", SHORT), ("touch ran", "")],
        "deny, stop, answered [], asked [1]: hook `b9-timeout-0` failed after 1 attempt(s): timed out after 120ms",
    ),
    (
        "b9-raise",
        &[("echo hook exploded >&2; exit 1", CLOSED)],
        "deny, stop, answered [], asked [1]: hook `b9-raise-0` failed after 1 attempt(s): exit 1: hook exploded",
    ),
    ("b10-0", &[("exit 0", ONCE)], "allow, go on, answered [0], asked [1]"),
    ("b10-1", &[("exit 1", ONCE), ("true", "")], "allow, go on, answered [1], asked [1, 1]"),
    ("b10-2", &[("echo because >&2; exit 2", "")], "deny, stop, answered [0], asked [1]: because"),
    ("b10-42", &[("exit 42", ONCE), ("true", "")], "allow, go on, answered [1], asked [1, 1]"),
    ("c2", &[(r#"echo '{"permission":"allow"}'; echo no >&2; exit 2"#, "")], "deny, stop, answered [0], asked [1]: no"),
    ("c3", &[("echo wrong >&2; exit 1", ONCE)], "allow, go on, answered [], asked [1]"),
    (
        "text",
        &[("echo session started", CLOSED)],
        "deny, stop, answered [], asked [1]: hook `text-0` failed after 1 attempt(s): expected a JSON object, or nothing, as the answer; found other text",
    ),
];

fn line(row: &str, decision: &Value) -> String {
    let names = |list: &Value| -> Vec<String> {
        let name = |name: &Value| name.as_str().unwrap().strip_prefix(row).unwrap().trim_start_matches('-').to_owned();
        list.as_array().unwrap().iter().map(name).collect()
    };
    let attempts: Vec<u64> =
        decision["hooks"].as_array().unwrap().iter().map(|asked| asked["attempts"].as_u64().unwrap()).collect();
    let (verdict, stop) = (decision["verdict"].as_str().unwrap(), decision["stop"] == true);
    let reason = decision["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    let answered = names(&decision["matched_hooks"]).join(", ");
    let stop = if stop { "stop" } else { "go on" };
    format!("{verdict}, {stop}, answered [{answered}], asked {attempts:?}{reason}")
}

#[tokio::test]
async fn what_their_own_tests_say() {
    let of_row = |(row, gates, _): &Row| -> Vec<String> {
        let of_gate =
            |(number, (script, more)): (usize, &(&str, &str))| gate(&format!("{row}-{number}"), row, script, more);
        gates.iter().enumerate().map(of_gate).collect()
    };
    let hooks: Vec<String> = ROWS.iter().flat_map(of_row).collect();
    let site = site(Place::File).await.hooks(&hooks.join("\n")).set(ALLOW, "sh");
    let Stage { site, mut worker, .. } = stage(Place::File, site.set("HOOKFLEET_BREAKER_FAILURES", "0")).await;
    let mut wrong = Vec::new();
    for (row, _, expected) in ROWS {
        let decision = posted(&worker, with_data(row, row, &json!({}))).await;
        let found = line(row, &decision);
        if found != expected {
            wrong.push(format!("{row}: {found}\n  expected: {expected}"));
        }
        if row == "k31" {
            let rule = json!([{ "scope": "session", "tool_name_pattern": "ls*", "behavior": "allow" }]);
            assert_eq!(decision["updated_permissions"], rule);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(worker.stop().await, Some(0));
    assert!(!site.folder.path().join("ran").exists(), "nobody is asked behind a refusal");
    let letters = site.letters();
    assert!(letters.iter().all(|letter| letter["letter"]["for_record"] == true));
    let of = |hook: &str| letters.iter().filter(|letter| letter["letter"]["hook"] == hook).collect::<Vec<_>>();
    for (hook, attempts) in [("k4-0", 1), ("k6-0", 2), ("k11-0", 1)] {
        let [letter] = of(hook)[..] else { panic!("one letter of {hook}: {letters:#?}") };
        assert_eq!(letter["letter"]["attempts"].as_array().unwrap().len(), attempts, "{hook}");
    }
}
