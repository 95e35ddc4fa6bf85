//! Anchors, aliases and merge keys of YAML 1.1, in files of other systems.

use std::collections::{HashMap, HashSet};

use super::problem::Mismatch;
use super::{Key, Kind, Node};

/// Nodes that all aliases of a text may stand for together, so that a small text stays a small tree.
const NODES_MAX: usize = 100_000;
/// The key of maps that fill in what is not there.
const MERGE: &str = "<<";

/// What the anchors of a text name.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    named: HashMap<usize, Node>,
    /// Nodes that aliases have stood for.
    nodes: usize,
}

impl Anchors {
    /// Keeps what an anchor names; 0 is none.
    pub(super) fn keep(&mut self, anchor: usize, node: &Node) {
        if anchor != 0 {
            self.named.insert(anchor, node.clone());
        }
    }

    /// What an alias stands for. `room`: levels that it may have.
    ///
    /// # Errors
    /// There is nothing that it stands for, or it is inside of that, or would make the tree too large or too deep.
    pub(super) fn again(&mut self, anchor: usize, room: usize) -> Result<Node, Mismatch> {
        let Some(node) = self.named.get(&anchor) else {
            return Err(Mismatch::new("an alias of something that ends before it").found("another"));
        };
        self.nodes += size(node);
        if self.nodes > NODES_MAX {
            return Err(Mismatch::new(format!("aliases of {NODES_MAX} values together at most")).found("more"));
        }
        if depth(node) > room {
            return Err(Mismatch::new(format!("at most {} levels", super::DEPTH_MAX)).found("more"));
        }
        Ok(node.clone())
    }
}

/// How many nodes it is. What is kept is never deeper than the parser's bound, here and below.
fn size(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::List(items) => items.iter().map(size).sum(),
        Kind::Map(entries) => entries.iter().map(|(_, node)| size(node)).sum(),
        Kind::Nothing | Kind::Text(_) | Kind::Refused => 0,
    }
}

/// How many levels it has; a scalar has none.
fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or_default(),
        Kind::Nothing | Kind::Text(_) | Kind::Refused => 0,
    }
}

/// The entries with those of the maps behind `<<`, which stand for keys that are not there already.
pub(super) fn merged(entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    if entries.iter().all(|(key, _)| key.name != MERGE) {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, node)| is_merge(key, node));
    let maps = merges.into_iter().flat_map(|(_, node)| match node.kind {
        Kind::List(items) => items,
        _ => vec![node],
    });
    let mut known: HashSet<String> = own.iter().map(|(key, _)| key.name.clone()).collect();
    for map in maps {
        let Kind::Map(entries) = map.kind else { continue };
        own.extend(entries.into_iter().filter(|(key, _)| known.insert(key.name.clone())));
    }
    own
}

fn is_merge(key: &Key, node: &Node) -> bool {
    let is_map = |node: &Node| matches!(node.kind, Kind::Map(_));
    let is_maps = match &node.kind {
        Kind::List(items) => items.iter().all(is_map),
        _ => is_map(node),
    };
    key.name == MERGE && is_maps
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::super::value::Value;

    fn check(text: &str, expected: &str) {
        let report = Report::new("t.yaml", text);
        let node = super::super::parse_foreign(&report);
        let json = node.as_ref().and_then(|node| Value::root(&report, node).json());
        let shown = match report.into_result(json) {
            Ok(json) => json.to_string(),
            Err(problems) => {
                problems.list().iter().map(|problem| format!("{problem:#}")).collect::<Vec<_>>().join("\n")
            }
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn aliases_stand_for_what_is_named() {
        check("a: &x 1\nb: *x\nc: [*x, *x]", r#"{"a":1,"b":1,"c":[1,1]}"#);
        check("a: &x {k: [1, 2]}\nb: *x\nc: &x 3\nd: *x", r#"{"a":{"k":[1,2]},"b":{"k":[1,2]},"c":3,"d":3}"#);
        check("a: &x k\n*x : 1", r#"{"a":"k","k":1}"#);
    }

    #[test]
    fn merge_keys_fill_in() {
        check("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}", r#"{"a":{"k":1,"l":2},"b":{"k":3,"l":2}}"#);
        check("b: {<<: [{k: 1}, {k: 2, l: 3}], m: 4}", r#"{"b":{"k":1,"l":3,"m":4}}"#);
        check("b: {<<: 1}", r#"{"b":{"<<":1}}"#);
    }

    #[test]
    fn aliases_have_bounds() {
        check("a: *x", "1:4 a: expected an alias of something that ends before it, found another");
        check("a: &x [*x]", "1:8 a[0]: expected an alias of something that ends before it, found another");
        check("a: !t 1", "1:7 a: expected a value without a tag, found `!` before it");
        let each = |at: usize| format!("a{at}: &a{at} [{}]\n", vec![format!("*a{}", at - 1); 10].join(", "));
        let many = (1..7).fold("a0: &a0 1\n".to_owned(), |text, at| text + &each(at));
        let report = Report::new("t.yaml", &many);
        let node = super::super::parse_foreign(&report);
        let problems = report.into_result(node).unwrap_err();
        assert!(problems.list()[0].reason().starts_with("expected aliases of 100000 values"), "{problems}");
        let deeper = |at: usize| format!("a{at}: &a{at} [*a{}]\n", at - 1);
        let deep = (1..40).fold("a0: &a0 [1]\n".to_owned(), |text, at| text + &deeper(at));
        let report = Report::new("t.yaml", &deep);
        let node = super::super::parse_foreign(&report);
        let problems = report.into_result(node).unwrap_err();
        assert!(problems.list()[0].reason().starts_with("expected at most 32 levels"), "{problems}");
    }
}
