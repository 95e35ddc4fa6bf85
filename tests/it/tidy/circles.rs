//! Refuses circles among the modules of one folder, since files that use each other can only be understood together.
//! A module and its own submodules may use each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Source, all};

/// A module by its path in the crate, such as `["catalog", "http"]`.
type Module = Vec<String>;

/// The folder that modules are in, and which of its modules each of them uses.
type Uses = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

#[test]
fn modules_of_a_folder_form_no_circles() {
    let is_model = |source: &Source| source.path == "domain/model.rs" || source.path.starts_with("domain/model/");
    let sources = all().into_iter().filter(|source| !is_model(source)); // a test itself
    let files: Vec<(String, String)> = sources.map(|source| (source.path, source.code)).collect();
    let found = circles(&files);
    assert!(found.is_empty(), "modules that use each other in a circle:\n{}", found.join("\n"));
}

/// The shortest circle through each module that is in one, but one circle only for the modules that it goes through.
fn circles(files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, uses) in uses_by_folder(files) {
        let mut reported = BTreeSet::new();
        for module in uses.keys() {
            let Some(circle) = circle(&uses, module).filter(|_| !reported.contains(module)) else { continue };
            found.push(format!("{folder}: {}", circle.join(" -> ")));
            reported.extend(circle);
        }
    }
    found
}

/// The shortest way from a module back to it, breadth first.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![start.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in uses.get(way.last()?).into_iter().flatten() {
            let further: Vec<String> = way.iter().chain([next]).cloned().collect();
            if next == start {
                return Some(further);
            }
            if seen.insert(next) {
                ways.push_back(further);
            }
        }
    }
    None
}

/// Every use of a module counts in the folder where the ways to both modules part: there it is a use among siblings.
fn uses_by_folder(files: &[(String, String)]) -> Uses {
    let modules: BTreeSet<Module> = files.iter().map(|(path, _)| module(path)).collect();
    let mut uses = Uses::new();
    for (path, code) in files {
        let from = module(path);
        for to in used_paths(code).iter().filter_map(|path| resolve(&from, path, &modules)) {
            let depth = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if depth < from.len() && depth < to.len() {
                let siblings = uses.entry(folder(&from[..depth])).or_default();
                siblings.entry(from[depth].clone()).or_default().insert(to[depth].clone());
            }
        }
    }
    uses
}

fn module(path: &str) -> Module {
    path.trim_end_matches(".rs").split('/').map(str::to_owned).collect()
}

fn folder(modules: &[String]) -> String {
    ["src"].into_iter().chain(modules.iter().map(String::as_str)).collect::<Vec<_>>().join("/")
}

/// The module that a path leads into. A path that begins with neither `crate`, `super` nor `self` is one of a submodule,
/// or of another crate; both lead to no sibling.
fn resolve(from: &Module, path: &str, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut parts: VecDeque<&str> = path.split("::").map(str::trim).collect();
    let mut found = match parts.front() {
        Some(&"crate") => Module::new(),
        Some(&("super" | "self")) => from.clone(),
        _ => return None,
    };
    while let Some(part) = parts.pop_front() {
        match part {
            "super" => drop(found.pop()),
            "crate" | "self" => {}
            name => found.push(name.to_owned()),
        }
    }
    while !found.is_empty() && !modules.contains(&found) {
        found.pop();
    }
    Some(found).filter(|found| !found.is_empty())
}

/// Paths in `use` lines, each name in braces with what stands before them, and paths in the midst of code.
fn used_paths(code: &str) -> Vec<String> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code = code.lines().filter(is_code).collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let is_inside = code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':'));
            if !is_inside {
                expand("", &code[at..], &mut paths);
            }
        }
    }
    paths
}

/// Reads one path at the beginning of a text, with the names in its braces; answers what stands behind it.
fn expand<'a>(before: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':')).unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    let Some(mut rest) = text[end..].strip_prefix('{').filter(|_| path.ends_with("::")) else {
        paths.push(path.trim_end_matches(':').to_owned());
        return &text[end..];
    };
    loop {
        rest = expand(&path, rest, paths);
        // Behind a name there may be `as another`.
        let Some(next) = rest.find([',', '}']) else { return "" };
        let is_last = rest[next..].starts_with('}');
        rest = rest[next + 1..].trim_start();
        if is_last {
            return rest;
        }
        if let Some(behind) = rest.strip_prefix('}') {
            return behind; // the comma was the last
        }
    }
}

#[test]
fn circles_are_found() {
    let check = |files: &[(&str, &str)], expected: &[&str]| {
        let files: Vec<_> = files.iter().map(|(path, code)| ((*path).to_owned(), (*code).to_owned())).collect();
        assert_eq!(circles(&files), expected, "{files:?}");
    };
    let pair = &["src/a: x -> y -> x"];
    check(&[("a/x.rs", "use super::y::Y;"), ("a/y.rs", "use super::z;"), ("a/z.rs", "use crate::b::B;")], &[]);
    check(&[("a/x.rs", "use super::y::Y;"), ("a/y.rs", "use super::x;")], pair);
    check(&[("a/x.rs", "use super::y;"), ("a/y.rs", "let x = crate::a::x::make();")], pair);
    check(&[("a/x.rs", "use super::{Z, y::{A, B}};"), ("a/y.rs", "use crate::{c, a::{z, x::X}};")], pair);
    let broken = "use super::{\n    w::{V as U, T},\n    x,\n};";
    check(&[("a/x.rs", "use super::y as other;"), ("a/y.rs", broken)], pair);
    // A use from or of a file in a folder below is one by or of that folder.
    check(&[("a/x/deep.rs", "use crate::a::y;"), ("a/y.rs", "use self::super::z::Z;"), ("a/z.rs", "")], &[]);
    check(&[("a/x/deep.rs", "use super::super::y;"), ("a/y.rs", "use super::x::deep::D;")], pair);
    check(&[("a.rs", "use crate::b;"), ("b/c.rs", "use crate::a;"), ("b.rs", "")], &["src: a -> b -> a"]);
    // Longer ones are found once.
    let three = [("x.rs", "use crate::y;"), ("y.rs", "use crate::z;"), ("z.rs", "use crate::x;")];
    check(&three, &["src: x -> y -> z -> x"]);
    // A module and its own submodules, comments, and other crates do not count.
    check(&[("a.rs", "use self::x::X;\nuse x::Y;"), ("a/x.rs", "use super::A;\nuse crate::a::B;")], &[]);
    check(&[("a/x.rs", "//! See [`super::y`].\nuse y::Y;\n// crate::a::y"), ("a/y.rs", "use super::x;")], &[]);
}
