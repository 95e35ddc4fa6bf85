//! The JSON Schema of hooks files, held against the reader: both know the same fields at every level, the same words and
//! the same bounds, and what the reader takes the schema takes too.

use std::collections::BTreeSet;
use std::path::Path;

use hookfleet::yaml::problem::{Problem, Severity};
use hookfleet::yaml::report::Report;
use hookfleet::{catalog, yaml};
use serde_json::{Value, json};

use crate::docs::TERMS;
use crate::fleet::Site;

fn schema() -> Value {
    serde_json::from_str(&Site::embedded().ok(&["schema"])).unwrap()
}

/// A way into a document: names of fields, and `[0]` for an item of a list.
type Way = Vec<String>;

fn below(way: &Way, name: &str) -> Way {
    way.iter().cloned().chain([name.to_owned()]).collect()
}

/// As problems show it.
fn shown(way: &Way) -> String {
    way.join(".").replace(".[", "[")
}

/// What the reader says of a document that has this at the end of the way, and nothing else but a version.
fn problems(way: &Way, content: &str) -> Vec<Problem> {
    let inner = way.iter().rev().fold(content.to_owned(), |inner, step| match step.as_str() {
        "[0]" => format!("[{inner}]"),
        name => format!("{{ {name}: {inner} }}"),
    });
    let document = match inner.strip_prefix('{') {
        Some(rest) if rest != "}" && !inner.contains("version:") => format!("{{ version: 1, {rest}"),
        Some(_) | None => inner,
    };
    match catalog::parse(&document, "hooks.yaml", &TERMS) {
        Ok(_) => Vec::new(),
        Err(problems) => {
            problems.list().iter().filter(|problem| problem.severity == Severity::Error).cloned().collect()
        }
    }
}

/// The names in backticks.
fn names(sentence: &str) -> BTreeSet<String> {
    sentence.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The fields that the reader knows at the end of this way; `None` if it looks for none there.
fn known(way: &Way) -> Option<BTreeSet<String>> {
    let place = shown(&below(way, "zzz"));
    let unknown =
        problems(way, "{ zzz: 1 }").into_iter().find(|problem| problem.path == place && problem.found == "`zzz`");
    unknown.map(|problem| names(&problem.expected))
}

/// Those of them that it misses.
fn required(way: &Way) -> BTreeSet<String> {
    let missing = |problem: &Problem| problem.path == shown(way) && problem.expected.starts_with("a field `");
    problems(way, "{}").iter().filter(|problem| missing(problem)).flat_map(|problem| names(&problem.expected)).collect()
}

fn is_refused(way: &Way, content: &str) -> bool {
    problems(way, content).iter().any(|problem| problem.path == shown(way))
}

/// Walks the schema and asks the reader at every place.
struct Walk {
    root: Value,
    /// Places at which fields were compared.
    levels: usize,
    rules: usize,
}

impl Walk {
    fn visit(&mut self, rule: &Value, way: &Way) {
        let resolved = self.resolve(rule);
        let place = shown(way);
        if let Some(properties) = resolved["properties"].as_object() {
            self.levels += 1;
            assert_eq!(resolved["additionalProperties"], json!(false), "{place} lets unknown fields through");
            let listed: BTreeSet<String> = properties.keys().cloned().collect();
            assert_eq!(known(way), Some(listed), "fields at `{place}`: the reader's, and the schema's");
            let needed = resolved["required"].as_array().into_iter().flatten();
            let needed: BTreeSet<String> = needed.map(|name| name.as_str().unwrap().to_owned()).collect();
            assert_eq!(required(way), needed, "fields that `{place}` has to have");
            for (name, rule) in properties {
                self.visit(rule, &below(way, name));
            }
            return;
        }
        assert_eq!(known(way).filter(|_| place != "version"), None, "the reader knows fields at `{place}`");
        if resolved["additionalProperties"].is_object() {
            let name = if resolved["propertyNames"].is_null() { "a" } else { "other" }; // of exit codes
            self.visit(&resolved["additionalProperties"], &below(way, name));
        }
        for list in [&resolved["items"], &resolved["anyOf"][1]["items"]] {
            if list.is_object() {
                self.visit(list, &below(way, "[0]"));
            }
        }
        self.values(&resolved, way);
    }

    fn resolve(&self, rule: &Value) -> Value {
        let Some(name) = rule["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) else {
            return rule.clone();
        };
        self.root["$defs"][name].clone()
    }

    /// The words and bounds of one value.
    fn values(&mut self, rule: &Value, way: &Way) {
        let place = shown(way);
        let words = rule["enum"].as_array().cloned().unwrap_or_default();
        for word in &words {
            // These two are refused where nothing stands beside them that they need.
            let needs_more = [".validate", ".on_failure"].iter().any(|field| place.ends_with(field));
            assert!(!is_refused(way, &word.to_string()) || needs_more, "{place}: {word}");
        }
        if !words.is_empty() {
            assert!(is_refused(way, "zzz"), "{place} takes any word");
            let listed: BTreeSet<String> = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
            let said: Vec<_> = problems(way, "zzz").into_iter().filter(|problem| problem.path == place).collect();
            let is_listed = said.iter().any(|problem| names(&problem.expected) == listed);
            assert!(is_listed, "words at `{place}`: {listed:?}, and {said:?}");
        }
        for (bound, outwards) in [("minimum", -1.0), ("maximum", 1.0)] {
            let Some(bound) = rule[bound].as_f64() else { continue };
            assert!(!is_refused(way, &bound.to_string()), "{place}: {bound}");
            assert!(is_refused(way, &(bound + outwards).to_string()), "{place} goes beyond {bound}");
            self.rules += 1;
        }
        self.rules += usize::from(!words.is_empty());
    }
}

#[test]
fn schema_and_reader_know_the_same() {
    let root = schema();
    let mut walk = Walk { root: root.clone(), levels: 0, rules: 0 };
    walk.visit(&root, &Way::new());
    assert!(walk.levels >= 8 && walk.rules >= 10, "{} levels, {} rules", walk.levels, walk.rules);
}

fn as_json(text: &str) -> Value {
    let report = Report::new("t.yaml", text);
    let node = yaml::parse(&report).unwrap();
    yaml::value::Value::root(&report, &node).json().unwrap()
}

/// Every hooks file that there is, and one that says all there is to say in several ways.
#[test]
fn what_the_reader_takes_the_schema_takes() {
    let schema = jsonschema::draft202012::options().offline().build(&schema()).unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let shipped =
        ["hooks.yaml", "sample/hooks.yaml", "events/kheish.yaml", "events/bernstein.yaml", "events/aether.yaml"];
    let shipped = shipped.into_iter().chain(["events/claude-code.yaml"]);
    let mut texts: Vec<String> = shipped.map(|name| std::fs::read_to_string(config.join(name)).unwrap()).collect();
    texts.extend(crate::docs::hooks_of_readme());
    for hook in [
        "{ id: 7, on: task.created, run: { command: { argv: [sleep, 1, true], env: { A: 1, B: x }, cwd: /tmp } } }",
        "{ id: a, on: a, run: { command: { shell: 'ls | wc', exit_codes: { 3: done, 64-78: fail, other: fail }, \
         limits: { cpu: 10s, memory: 1GiB, files: 64, processes: 0 }, no_new_privileges: true, \
         files: { read: [/usr], write: [] } } } }",
        "{ id: a, on: a, run: { callback: audit.log-1 } }",
        "{ id: a, on: a, run: { publish: { exchange: '', routing_key: q, mandatory: false, headers: } } }",
        "{ id: a, on: a, run: { publish: { exchange: x, body: n, type: b, content_type: text/plain, headers: { n: 1 } } } }",
        "{ id: a, on: a, run: { publish: { url: 'amqp://u:p@h/v', exchange: x } } }",
        "{ id: a, on: a, run: { publish: { body: '{}' } } }",
        "{ id: a.B_c-9, on: ['**', a.*.b], run: { http: { url: 'http://x', headers: {} } }, retry: {}, rate: ' 5 / h' }",
        "{ id: a, on: [a], timeout: 1.5m, retry: { give_up_after: 90d, backoff: { initial: 1ms, max: 365d } }, \
         run: { http: { url: 'http://x' } } }",
    ] {
        texts.push(format!("version: 1\nhooks: [{hook}]\n"));
    }
    texts.extend(
        [
            "version: 1",
            "version: 1\nhooks:\nevents:",
            "version: 1\nevents: { a: , b.*: { example: [1], schema: true } }",
        ]
        .map(str::to_owned),
    );
    for text in texts {
        if let Err(problems) = catalog::parse(&text, "hooks.yaml", &TERMS) {
            panic!("the reader refuses\n{text}\n{problems}");
        }
        let document = as_json(&text);
        let refused: Vec<String> =
            schema.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(refused.is_empty(), "the schema refuses what the reader takes:\n{text}\n{}", refused.join("\n"));
    }
}

#[test]
fn both_refuse_what_is_wrong() {
    let schema = jsonschema::draft202012::options().offline().build(&schema()).unwrap();
    let run = "run: { http: { url: 'http://x' } }";
    for hook in [
        format!("{{ on: a, {run} }}"),
        format!("{{ id: -a, on: a, {run} }}"),
        format!("{{ id: a, on: [], {run} }}"),
        format!("{{ id: a, on: a..b, {run} }}"),
        format!("{{ id: a, on: 'a*', {run} }}"),
        format!("{{ id: a, on: a, {run}, tiemout: 1s }}"),
        format!("{{ id: a, on: a, {run}, timeout: 10 }}"),
        format!("{{ id: a, on: a, {run}, timeout: 10 parsecs }}"),
        format!("{{ id: a, on: a, {run}, lane: fast }}"),
        format!("{{ id: a, on: a, {run}, rate: 5/w }}"),
        format!("{{ id: a, on: a, {run}, retry: {{ attempts: many }} }}"),
        "{ id: a, on: a, run: {} }".to_owned(),
        "{ id: a, on: a, run: { http: { url: 'http://x' }, command: { argv: [x] } } }".to_owned(),
        "{ id: a, on: a, run: { command: { argv: [] } } }".to_owned(),
        "{ id: a, on: a, run: { callback: 'a b' } }".to_owned(),
        "{ id: a, on: a, run: { callback: a, command: { argv: [x] } } }".to_owned(),
        "{ id: a, on: a, run: { command: { argv: [x], shell: y } } }".to_owned(),
        "{ id: a, on: a, run: { publish: {} } }".to_owned(),
        "{ id: a, on: a, run: { publish: { url: 'amqp://h', body: x } } }".to_owned(),
        "{ id: a, on: a, run: { publish: { exchange: x, content_type: text/plain } } }".to_owned(),
        "{ id: a, on: a, run: { publish: { exchange: x, tls: { ca: x } } } }".to_owned(),
        "{ id: a, on: a, run: { command: { argv: [x], exit_codes: { stop: done } } } }".to_owned(),
        "{ id: a, on: a, run: { command: { argv: [x], limits: { files: 7 } } } }".to_owned(),
        "{ id: a, on: a, run: { command: { argv: [x], files: { read: [usr] } } } }".to_owned(),
    ] {
        let text = format!("version: 1\nhooks: [{hook}]\n");
        assert!(catalog::parse(&text, "hooks.yaml", &TERMS).is_err(), "the reader takes {hook}");
        assert!(!schema.is_valid(&as_json(&text)), "the schema takes {hook}");
    }
}
