//! Finds numbers by the patterns that they were put under. The cost does not grow with patterns that do not match.

use std::collections::HashMap;

use super::Pattern;

/// Finds numbers by the patterns that they were put under.
#[derive(Debug, Default, Clone)]
pub struct Index {
    exact: HashMap<String, Vec<usize>>,
    wild: Node,
}

impl Index {
    /// Puts a number under a pattern.
    pub fn insert(&mut self, pattern: &Pattern, number: usize) {
        if pattern.is_exact() {
            self.exact.entry(pattern.as_str().to_owned()).or_default().push(number);
        } else {
            self.wild.insert(pattern, number);
        }
    }

    /// The numbers of all patterns that match a type, each once, in ascending order.
    #[must_use]
    pub fn find(&self, kind: &str) -> Vec<usize> {
        let mut found = self.exact.get(kind).cloned().unwrap_or_default();
        if !self.wild.is_leaf() {
            let segments: Vec<&str> = kind.split('.').collect();
            Search { found: &mut found, done: HashMap::new() }.visit(&self.wild, &segments, false);
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// A node of the trie over segments; `here` lists the hooks whose pattern ends at it.
#[derive(Debug, Default, Clone)]
struct Node {
    named: HashMap<String, Node>,
    any: Option<Box<Node>>,
    any_number: Option<Box<Node>>,
    here: Vec<usize>,
}

impl Node {
    fn insert(&mut self, pattern: &Pattern, index: usize) {
        let mut node = self;
        for segment in pattern.as_str().split('.') {
            node = match segment {
                "*" => node.any.get_or_insert_default(),
                "**" => node.any_number.get_or_insert_default(),
                name => node.named.entry(name.to_owned()).or_default(),
            };
        }
        node.here.push(index);
    }

    fn is_leaf(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.any_number.is_none()
    }
}

/// A walk through the trie.
struct Search<'a> {
    found: &'a mut Vec<usize>,
    /// The most segments that a `**` below another one was tried on, by the address of its node. There are many ways to
    /// it, more than anyone can wait for, and what it finds in fewer segments it has found by then.
    done: HashMap<usize, usize>,
}

impl Search<'_> {
    /// `below`: of a `**`.
    fn visit(&mut self, node: &Node, segments: &[&str], below: bool) {
        if let Some(rest) = &node.any_number {
            for left in self.untried(rest, segments.len(), below) {
                self.visit(rest, &segments[segments.len() - left..], true);
            }
        }
        match segments {
            [] => self.found.extend_from_slice(&node.here),
            [first, rest @ ..] => {
                if let Some(node) = node.named.get(*first) {
                    self.visit(node, rest, below);
                }
                if let Some(node) = &node.any {
                    self.visit(node, rest, below);
                }
            }
        }
    }

    /// How many segments a `**` may leave of so many, without what was tried before.
    fn untried(&mut self, node: &Node, segments: usize, below: bool) -> std::ops::Range<usize> {
        if !below {
            return 0..segments + 1; // there is one way to it
        }
        let done = self.done.entry(std::ptr::from_ref(node).addr()).or_default();
        let untried = *done..segments + 1;
        *done = (*done).max(segments + 1);
        untried
    }
}
