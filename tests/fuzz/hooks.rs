//! Hooks files: any text is a catalog or a list of problems with their places, soon, and without the secrets behind it.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use hookfleet::catalog::{self, Terms};
use hookfleet::domain::dialect::Dialect;
use hookfleet::domain::event::Event;
use hookfleet::domain::expression::Facts;
use hookfleet::domain::id::EventDigest;
use hookfleet::domain::matching::{HookSet, Unmatched};
use hookfleet::yaml::problem::{Place, Problem, Problems};

/// What stands behind `${env:TOKEN}`: in no problem, and not in what is shown of hooks.
const SECRET: &str = "Zq9S3CRETzq9";
const HINT_MAX: Duration = Duration::from_hours(1);
const TERMS: Terms<'_> = Terms { hint_max: HINT_MAX, env: &env, egress: &[], callbacks: None };
/// Longest text that is made of a repeated part: what takes more than linear time takes seconds here.
const REPEATED_BYTES_MAX: usize = 128 * 1024;
/// Problems that are shown, and the longest of them on one line.
const PROBLEMS_MAX: usize = 100;
const PROBLEM_CHARS_MAX: usize = 2000;
const SNIPPET_CHARS_MAX: usize = 140;
/// Longest type of an event.
const KIND_BYTES_MAX: usize = 1024;

/// A hooks file. One that begins with `#repeat N` has three parts with lines `#--` between them, and N times the second.
pub fn hooks(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(repeated) = repeated(&text) {
        file(&repeated);
        return;
    }
    file(&text);
    if !text.contains(SECRET) {
        written_out(&text);
    }
}

fn repeated(text: &str) -> Option<String> {
    let (count, parts) = text.strip_prefix("#repeat ")?.split_once('\n')?;
    let mut parts = parts.splitn(3, "#--\n");
    let (before, part, after) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
    let room = REPEATED_BYTES_MAX.saturating_sub(before.len() + after.len());
    let count = count.parse::<usize>().ok()?.min(room / part.len().max(1));
    Some([before, &part.repeat(count), after].concat())
}

fn env(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some(SECRET.to_owned()),
        "BROKEN" => Some(format!("{SECRET}\n\0")),
        "URL" => Some(format!("https://hooks.example.com/{SECRET}?{SECRET}#{SECRET}")),
        "USER_URL" => Some(format!("https://{SECRET}:{SECRET}@hooks.example.com/")),
        _ => None,
    }
}

fn file(text: &str) -> Option<HookSet> {
    let read = catalog::parse(text, "hooks.yaml", &TERMS).map(|catalog| catalog.hooks);
    match &read {
        Ok(set) => sound(set, text),
        Err(problems) => refused(problems, text),
    }
    read.ok()
}

/// What holds of every set of hooks.
fn sound(set: &HookSet, text: &str) {
    assert!(text.contains(SECRET) || !format!("{set:?}").contains(SECRET), "a secret in {set:?}");
    assert_eq!(set.revision().to_string().len(), 12);
    let ids: HashSet<&str> = set.hooks().iter().map(|hook| hook.id.as_str()).collect();
    assert_eq!(ids.len(), set.hooks().len(), "ids are unique");
    for hook in set.hooks() {
        assert_eq!(set.get(hook.id.as_str()), Some(hook));
        assert_eq!(hook.action.identity(), hook.identity);
        let retry = &hook.retry;
        assert!((1..=100).contains(&retry.attempts) && hook.concurrency > 0 && !hook.timeout.is_zero(), "{hook:?}");
        assert!(retry.factor >= 1.0 && (0.0..=1.0).contains(&retry.jitter), "{retry:?}");
        assert!(!retry.initial.is_zero() && retry.initial <= retry.max && retry.hint_max == HINT_MAX, "{retry:?}");
        assert!(!hook.on.is_empty());
    }
    matched(set);
}

/// Events find the hooks that the plainest matcher finds, long types too.
fn matched(set: &HookSet) {
    let patterns = set.hooks().iter().flat_map(|hook| &hook.on).map(hookfleet::domain::pattern::Pattern::as_str);
    let like = patterns.take(4).map(|pattern| cut(&pattern.replace("**", "a.a").replace('*', "a")).to_owned());
    let long = ["a", "a.b"].map(|part| cut(&[part; KIND_BYTES_MAX].join(".")).to_owned());
    for kind in like.chain(long) {
        let event = event(&kind);
        let found: HashSet<&str> = set.matching(&event).hooks.iter().map(|hook| hook.id.as_str()).collect();
        for hook in set.hooks().iter().take(8) {
            let of_type = hook.on.iter().take(8).any(|pattern| matches(pattern.as_str(), &kind));
            let (id, unmatched) = (hook.id.as_str(), hook.unmatched(&Facts::new(&event)));
            assert_eq!(found.contains(id), unmatched.is_none(), "{id} and {kind}: {unmatched:?}");
            if hook.is_run_by_events() && hook.on.len() <= 8 {
                assert_eq!(unmatched != Some(Unmatched::Type), of_type, "{id} and {kind}: {unmatched:?}");
            }
        }
    }
}

fn cut(kind: &str) -> &str {
    &kind[..kind.floor_char_boundary(KIND_BYTES_MAX)]
}

fn event(kind: &str) -> Event {
    Event {
        id: "1".into(),
        source: "/s".into(),
        kind: kind.into(),
        subject: None,
        body: Bytes::new(),
        digest: EventDigest::of("/s", "1"),
        body_digest: 0,
        trace: None,
        hops: 0,
        dialect: Dialect::Native,
    }
}

/// By a table: whether the first so many segments of the pattern match the first so many of the type.
fn matches(pattern: &str, kind: &str) -> bool {
    let kind: Vec<&str> = kind.split('.').collect();
    let mut row = vec![false; kind.len() + 1];
    row[0] = true;
    for segment in pattern.split('.') {
        if segment == "**" {
            let first = row.iter().position(|matches| *matches).unwrap_or(row.len());
            row[first..].fill(true);
        } else {
            for end in (1..row.len()).rev() {
                row[end] = row[end - 1] && (segment == "*" || segment == kind[end - 1]);
            }
            row[0] = false;
        }
    }
    row[kind.len()]
}

fn refused(problems: &Problems, text: &str) {
    assert!((1..=PROBLEMS_MAX).contains(&problems.list().len()));
    let shown = problems.to_string();
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "a terminal would obey: {shown:?}");
    assert!(text.contains(SECRET) || !shown.contains(SECRET), "a secret in {shown}");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", " \n").replace('\r', "\n"); // of as many characters
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in problems.list() {
        placed(problem, &lines);
    }
}

/// A problem on one line, at a place that there is.
fn placed(problem: &Problem, lines: &[&str]) {
    let short = format!("{problem:#}");
    super::input::assert_one_line(&short);
    assert!(short.chars().count() <= PROBLEM_CHARS_MAX, "a problem of {} characters", short.chars().count());
    let Place::Line { line, column, snippet, .. } = &problem.place else { return };
    assert!((1..=lines.len()).contains(line), "line {line} of {}", lines.len());
    assert!((1..=lines[line - 1].chars().count() + 1).contains(column), "column {column} of line {line}");
    assert!(snippet.text.chars().count() <= SNIPPET_CHARS_MAX && snippet.width >= 1, "{snippet:?}");
    assert!(snippet.offset + snippet.width <= SNIPPET_CHARS_MAX + 1, "{snippet:?}");
}

/// Secrets that stand in the file itself, with any text behind them.
fn written_out(text: &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    let head = "version: 1\nhooks:\n  - id: a\n    on: x\n    run:\n      http:\n";
    let rest = format!("        {}\n", rest.replace('\n', "\n        "));
    for secrets in [
        format!("        url: https://hooks.example.com/{SECRET}{line}\n        headers:\n          x: y\n"),
        format!("        url: https://x\n        headers:\n          authorization: Bearer {SECRET}{line}\n"),
        format!("        url: https://x\n        headers: {{ authorization: \"{SECRET}{line}\" }}\n"),
        format!("        url: https://x\n        auth: {{ oauth2: {{ client_secret: \"{SECRET}{line}\" }} }}\n"),
        format!("        url: https://x\n        auth: {{ bearer: a, basic: {{ password: \"{SECRET}{line}\" }} }}\n"),
    ] {
        keeps_secret(&format!("{head}{secrets}{rest}"));
    }
    // On one line, which every problem shows. Quotes would make something else of what is quoted.
    if !line.contains(['"', '\'', '\\']) {
        let run = format!(r#"run: {{ http: {{ url: "https://x/{SECRET}", headers: {{ a: "{SECRET}" }} }} }}"#);
        keeps_secret(&format!("{{ version: {line}, hooks: [{{ id: a, on: x, {run} }}] }}"));
        keeps_secret(&format!("{{ version: 1, hooks: {line} [{{ id: a, on: x, {run} }}] }}"));
        keeps_secret(&format!("{{ version: 1, hooks: [{{ {line}, {run} }}] }}"));
        keeps_secret(&format!("{{ version: 1, hooks: [{{ id: a, on: x, {run} {line} }}] }}"));
    }
}

fn keeps_secret(file: &str) {
    if let Err(problems) = catalog::parse(file, "hooks.yaml", &TERMS) {
        let shown = problems.to_string();
        assert!(!shown.contains(SECRET), "{shown}\n\nfor {file}");
    }
}
