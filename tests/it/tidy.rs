//! The house rules as a test: direction of `use`, length of files and functions, words that have no place here.

use std::fs;
use std::path::{Path, PathBuf};

mod circles;

/// Modules from the outermost to the innermost. A module may use those on lines below its own, and its own parts.
const LAYERS: [&[&str]; 10] = [
    &["main"],
    &["cli"],
    &["app", "doctor"],
    &["fleet", "http", "catalog"],
    &["worker", "operations", "publish"],
    &["executor"],
    &["broker", "dead_letters", "flow", "idempotency"],
    &["amqp", "redis", "embedded", "config", "failpoint", "telemetry"],
    &["dialect"],
    &["yaml", "domain", "error_chain"],
];

/// Sideways uses within a layer, each with its reason.
const SIDEWAYS: [(&str, &str); 8] = [
    ("http", "catalog"),        // shows it
    ("dead_letters", "broker"), // appends through its confirmed publishing
    ("worker", "publish"),      // wrapped events are published as any other
    ("amqp", "config"),         // how the broker is reached
    ("redis", "config"),        // where it is and how it is reached
    ("redis", "telemetry"),     // what is logged once
    ("telemetry", "config"),    // the log settings
    ("yaml", "domain"),
];

/// Nothing in the pure layer may do I/O, read a clock or roll a die.
const IMPURE: [&str; 9] =
    ["tokio", "lapin", "redis::", "reqwest", "axum", "fastrand", "Instant::now", "SystemTime", "std::fs"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A source file without its tests.
struct Source {
    path: String,
    module: String,
    code: String,
}

fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let module = relative.split(['/', '.']).next().unwrap().to_owned();
        let code = text.split("\n#[cfg(test)]\n").next().unwrap().to_owned();
        Source { path: relative, module, code }
    };
    // The module that is all tests.
    let is_simulation = |path: &Path| {
        let relative = path.strip_prefix(&root).unwrap();
        relative.starts_with("simulation") || relative == Path::new("simulation.rs")
    };
    let is_tests = |path: &Path| path.iter().any(|part| part == "tests.rs" || part == "tests");
    let is_test = |path: &PathBuf| is_tests(path.strip_prefix(&root).unwrap()) || is_simulation(path);
    sources(&root).into_iter().filter(|path| !is_test(path)).map(read).collect()
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("module {module} has no layer: give it one in tests/it/tidy.rs"))
}

#[test]
fn uses_go_inwards() {
    let mut wrong = Vec::new();
    for Source { path, module, code } in all() {
        if module == "lib" {
            continue;
        }
        for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            for used in line.match_indices("crate::").map(|(at, _)| &line[at + 7..]) {
                let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if name == module || name.is_empty() || !LAYERS.iter().any(|layer| layer.contains(&name.as_str())) {
                    continue;
                }
                let sideways = SIDEWAYS.contains(&(module.as_str(), name.as_str()));
                if layer(&name) <= layer(&module) && !sideways {
                    wrong.push(format!("{path}: {line}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "uses that go outwards:\n{}", wrong.join("\n"));
}

#[test]
fn the_pure_layer_is_pure() {
    let mut wrong = Vec::new();
    for Source { path, code, .. } in all().into_iter().filter(|source| source.module == "domain") {
        if path.ends_with("model.rs") || path.contains("model/") {
            continue; // a test itself
        }
        for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            wrong.extend(IMPURE.iter().filter(|word| line.contains(**word)).map(|word| format!("{path}: {word}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn backoff_stays_in_one_place() {
    let places: Vec<String> =
        all().into_iter().filter(|source| source.code.contains("use backoff")).map(|source| source.path).collect();
    assert_eq!(places, ["domain/retry.rs"]);
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for Source { path, code, .. } in all() {
        let lines: Vec<&str> = code.lines().collect();
        if lines.len() > 400 {
            long.push(format!("{path} has {} lines", lines.len()));
        }
        let mut open: Option<(usize, usize)> = None;
        for (number, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match open {
                None if is_function(line) && !line.trim_end().ends_with(['}', ';']) => open = Some((number, indent)),
                Some((start, depth)) if line.trim_end() == format!("{}}}", " ".repeat(depth)) => {
                    if number - start > 60 {
                        long.push(format!("{path}:{} has {} lines", start + 1, number - start));
                    }
                    open = None;
                }
                _ => {}
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

fn is_function(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().take(4).collect();
    words.contains(&"fn") && !line.trim_start().starts_with("//")
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> =
        all().into_iter().filter(|source| !source.code.starts_with("//!")).map(|source| source.path).collect();
    assert!(silent.is_empty(), "without a first line of docs: {silent:?}");
}

#[test]
fn nothing_promises_or_panics() {
    let words = ["todo!(", "unimplemented!(", "TODO", "FIXME", ".unwrap()", ".expect(", "panic!("];
    let mut found = Vec::new();
    for Source { path, code, .. } in all() {
        if path.contains("model") {
            continue; // a test itself
        }
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            found.extend(words.iter().filter(|word| line.contains(**word)).map(|_| format!("{path}: {}", line.trim())));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What other programs may rely on: this, and nothing else. Every change of it is one of the library's version.
const LIBRARY: [&str; 11] = [
    "amqp::connection::ConnectError",
    "app::embed::{Fleet, FleetError}",
    "broker::PublishError",
    "config::Settings",
    "dialect::kheish::{EventName, HookInvocation}",
    "domain::decision::{Answer, Asked, Decision, Json, PermissionRule, Scope, Verdict}",
    "domain::message::Header",
    "executor::callback::{Call, Failed}",
    "publish::{Event, EventBuilder, InvalidEvent}",
    "publish::{OnUnavailable, Publisher, PublisherOptions, Undecided, Unpublished}",
    "yaml::problem::Problems",
];

#[test]
fn the_library_is_small() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.iter().filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(';'));
    assert_eq!(shown.collect::<Vec<_>>(), LIBRARY);
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub mod ")) {
        assert_eq!(lines[at - 1], "#[doc(hidden)]", "{line}");
    }
}
